"""An environment's own objects: the namespace and its bounds, the account of its builds, who may talk to whom."""

from __future__ import annotations

from typing import Any

from renderers import names, pods
from renderers.catalog import Unit
from renderers.manifest import Manifest, ObjectId, object_id
from renderers.notes import Note
from renderers.resources import GPU, cpu_quantity, memory_quantity
from renderers.template import Template
from schemas.environment import Environment, Gateway

_NAMESPACE = Template("namespace")
_SERVICE_ACCOUNT = Template("service-account")
_RESOURCE_QUOTA = Template("resource-quota")
_NETWORK_POLICY = Template("network-policy")
_GATEWAY = Template("gateway")

#: The account of builds that name no role of their own.
BUILD_ACCOUNT = "trueup-build"

#: The ports of the server, by name.
HTTP_PORT = 8080
METRICS_PORT = 9090
#: The port of the embedded data plane's gateways; each has a loopback address of its own.
GATEWAY_PORT = 8080


def render(unit: Unit) -> list[Manifest]:
    """Namespace, ServiceAccount, ResourceQuota and NetworkPolicies, in this order; on this machine a Gateway, too."""
    environment, origin = unit.environment.spec, unit.environment.origin
    namespace = environment.namespace_name
    labels, annotations = names.labels("", "environment", environment.name), names.provenance(origin)
    role = pods.role_annotations(environment.defaults.iam_role_arn)
    common = {"namespace": namespace, "labels": labels, "annotations": annotations}
    bodies = [
        _SERVICE_ACCOUNT(name=BUILD_ACCOUNT, namespace=namespace, labels=labels, annotations=annotations | role),
        _RESOURCE_QUOTA(hard=_hard(environment), **common),
        _NETWORK_POLICY(name="trueup-builds", component="build", ingress=None, **common),
        _NETWORK_POLICY(name="trueup-batches", component="batch", ingress=None, **common),
        _NETWORK_POLICY(name="trueup-serving", component="serving", ingress=_serving_ingress(environment), **common),
    ]
    if _owns_gateway(environment):
        gateway, listener = environment.gateway.name, environment.gateway.section_name or "http"
        bodies.append(_GATEWAY(name=gateway, listener=listener, port=GATEWAY_PORT, **common))
    # Everything of ours satisfies it, and so must what the model's dependencies would start.
    security = {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "latest",
        "pod-security.kubernetes.io/warn": "restricted",
        "pod-security.kubernetes.io/warn-version": "latest",
    }
    first = _NAMESPACE(name=namespace, labels=labels | security, annotations=annotations)
    manifests = [Manifest(object_id(first), first, origin, environment.name)]
    manifests += [Manifest(object_id(b), b, origin, environment.name, (namespace_id(environment),)) for b in bodies]
    return manifests


def notes(unit: Unit) -> list[Note]:
    """What the plan says of the environment itself."""
    environment, origin = unit.environment.spec, unit.environment.origin
    if environment.suspended:
        return [Note(origin, f"environment {environment.name} is suspended: nothing in it is changed or removed")]
    return []


def namespace_id(environment: Environment) -> ObjectId:
    """What every other object of the environment needs."""
    return ObjectId("v1", "Namespace", "", environment.namespace_name)


def build_account_id(environment: Environment) -> ObjectId:
    """The account of builds that name no role of their own."""
    return ObjectId("v1", "ServiceAccount", environment.namespace_name, BUILD_ACCOUNT)


def _owns_gateway(environment: Environment) -> bool:
    """The embedded gateway, unless the environment names one of somebody else's."""
    gateway = environment.gateway
    ours = gateway.controller in ("embedded", "unknown") and gateway.namespace in (None, environment.namespace_name)
    return environment.data_plane.type == "embedded" and ours


def _hard(environment: Environment) -> dict[str, str]:
    quota = environment.quota
    hard = {"pods": str(quota.pods), "count/jobs.batch": str(quota.builds)}
    if quota.cpu is not None:
        hard["requests.cpu"] = cpu_quantity(quota.cpu)
    if quota.memory is not None:
        hard["requests.memory"] = memory_quantity(quota.memory)
    if quota.gpu is not None:
        hard[f"requests.{GPU}"] = str(quota.gpu)
    return hard


def _serving_ingress(environment: Environment) -> list[dict[str, Any]]:
    """Predictions from the gateway, metrics from anywhere in the cluster: nobody says where Prometheus runs."""
    return [
        {"from": _gateway_pods(environment), "ports": [{"port": HTTP_PORT, "protocol": "TCP"}]},
        {"from": [{"namespaceSelector": {}}], "ports": [{"port": METRICS_PORT, "protocol": "TCP"}]},
    ]


def _gateway_pods(environment: Environment) -> list[dict[str, Any]]:
    """The namespaces of the gateway's proxies: most controllers start them beside the Gateway.

    With a controller that we do not know, a wrong guess would let predictions time out with no word why, so the
    whole cluster may come.
    """
    gateway: Gateway = environment.gateway
    if gateway.controller == "unknown" and environment.data_plane.type != "embedded":
        return [{"namespaceSelector": {}}]
    namespaces = {gateway.namespace or environment.namespace_name}
    if gateway.controller == "envoy-gateway":
        namespaces.add("envoy-gateway-system")
    return [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
        for namespace in sorted(namespaces)
    ]
