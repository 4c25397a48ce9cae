"""The resolver: Trueup's own evaluator of audiences, for a gateway that cannot tell them apart by itself.

It is an HTTP service that a gateway asks about each request before it routes it (external authorization). The answer
says the audience in one header, and the route matches that. Where the gateway has a way to be told so in the cluster
(`GatewayFeatures.policies`), it is told here; elsewhere people put something in front of it, and `instructions` says
what.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import orjson

from renderers import names, pods
from renderers.catalog import Unit
from renderers.environment import HTTP_PORT, namespace_id
from renderers.gateways import gateway_features
from renderers.manifest import Body, Manifest, ObjectId, Origin, object_id
from renderers.notes import Refused
from renderers.resources import serving_placement
from renderers.serving import SERVICE_PORT, pace
from renderers.template import Template
from schemas.audience import Audience
from schemas.environment import Environment
from schemas.matching import AUDIENCE_HEADER, headers
from schemas.variation import DeploymentSpecification

_CONFIG_MAP = Template("config-map")
_DEPLOYMENT = Template("resolver-deployment")
_SERVICE = Template("resolver-service")
_BUDGET = Template("pod-disruption-budget")
_SECURITY_POLICY = Template("security-policy")

#: Where the pods find the audiences.
FOLDER = "/etc/trueup"
FILE = "audiences.json"
#: Bytes that a ConfigMap may have; the API server takes 1 MiB of the whole object.
CONFIG_LIMIT = 1_000_000

#: A decision takes some 50 microseconds. On demand, because every request of the model waits for one.
_SIZE = DeploymentSpecification(cpu_fraction=0.1, memory="128Mi", purchase_option="ondemand")
#: Seconds to finish what is asked when the end comes; the answer itself takes no time.
_CLOSING_SECONDS = 5


def render(unit: Unit, audiences: Sequence[Audience], origin: Origin, target: str) -> list[Manifest]:
    """ConfigMap, Deployment, Service, PodDisruptionBudget, and the SecurityPolicy where the gateway has it.

    `audiences` are those of the route named `target`, in the order in which they are tried. Errors: `Refused`.
    """
    environment, namespace = unit.environment.spec, namespace_id(unit.environment.spec)
    name, keys = name_of(unit), asked_headers(audiences)
    data = _data(unit, audiences, origin)
    # A change of audiences is a new ConfigMap, so that pods of the old and the new Deployment never share one.
    config_map = f"{name}-{sha256(data.encode()).hexdigest()[:8]}"
    common: dict[str, Any] = {
        "namespace": environment.namespace_name,
        "labels": names.labels(unit.model, "serving", environment.name, instance=name),
        "annotations": names.provenance(origin, f"resolver/{unit.model}"),
    }
    selector = names.selector(unit.model, name)

    def made(body: Body, *needs: ObjectId) -> Manifest:
        return Manifest(object_id(body), body, origin, environment.name, (namespace, *needs))

    configured = made(_CONFIG_MAP(name=config_map, data={FILE: data}, **common))
    deployment = made(_deployment(unit, name, config_map, origin, common), configured.id)
    service = made(_SERVICE(name=name, selector=selector, port=SERVICE_PORT, **common))
    manifests = [configured, deployment, service]
    if _replicas(environment) > 1:
        manifests.append(made(_BUDGET(name=name, selector=selector, **common), deployment.id))
    if gateway_features(environment).policies:
        policy = _SECURITY_POLICY(
            **common | {"name": target}, service=name, port=SERVICE_PORT, answer=[AUDIENCE_HEADER], asked=keys
        )
        manifests.append(made(policy, service.id, deployment.id))
    return manifests


def instructions(unit: Unit, audiences: Sequence[Audience]) -> str:
    """How requests come to the resolver, as the end of a sentence."""
    environment = unit.environment.spec
    gateway = gateway_features(environment)
    if gateway.policies:
        return f"{gateway.title} asks {name_of(unit)} about each request"
    host = f"{name_of(unit)}.{environment.namespace_name}.svc"
    return (
        f"what stands before the gateway must ask http://{host} about each request, with any method and path and "
        f"these of its headers: {', '.join(asked_headers(audiences)) or 'none'}; and pass the request on with the "
        f"{AUDIENCE_HEADER} of the answer, and never with one that a client sent"
    )


def name_of(unit: Unit) -> str:
    """The name of its Deployment and Service."""
    return names.object_name(unit.model, "resolver", limit=names.DEPLOYMENT_LIMIT)


def deployment_id(unit: Unit) -> ObjectId:
    """What a route must wait for: without it, nobody knows where a request goes."""
    return ObjectId("apps/v1", "Deployment", unit.environment.spec.namespace_name, name_of(unit))


def service_id(unit: Unit) -> ObjectId:
    """What gateways talk to."""
    return ObjectId("v1", "Service", unit.environment.spec.namespace_name, name_of(unit))


def asked_headers(audiences: Sequence[Audience]) -> list[str]:
    """The headers that decide, in order."""
    return sorted({key for audience in audiences for key in headers(audience)})


def _deployment(unit: Unit, name: str, config_map: str, origin: Origin, common: dict[str, Any]) -> Body:
    environment = unit.environment.spec
    placement, seconds = serving_placement(_SIZE, environment.defaults, origin), pace(environment)
    return _DEPLOYMENT(
        name=name,
        replicas=_replicas(environment),
        min_ready=seconds.min_ready or None,  # 0 is what the API server leaves out
        selector=names.selector(unit.model, name),
        pod_labels=common["labels"],
        grace=seconds.drain + _CLOSING_SECONDS,
        image_pull_secrets=pods.image_pull_secrets(environment.defaults),
        node_selector=placement.node_selector,
        tolerations=placement.tolerations,
        affinity=placement.affinity,
        image=pods.SERVER_IMAGE,
        command=pods.RUNTIME,
        args=["resolve", f"--port={HTTP_PORT}", f"--audiences={FOLDER}/{FILE}"],
        port=HTTP_PORT,
        probe_period=seconds.probe,
        drain=seconds.drain,
        resources=placement.resources,
        folder=FOLDER,
        config_map=config_map,
        **common,
    )


def _replicas(environment: Environment) -> int:
    return 1 if environment.data_plane.type == "embedded" else 2


def _said(audience: Audience) -> dict[str, Any]:
    """Without what moves nobody: the description, and the order in which conditions are written."""
    said = audience.model_dump(mode="json", exclude_defaults=True, exclude={"description"})
    for conditions in said.get("conditions", {}).values():
        conditions.sort(key=orjson.dumps)
    return said


def _data(unit: Unit, audiences: Sequence[Audience], origin: Origin) -> str:
    said = [_said(audience) for audience in audiences]
    data = orjson.dumps({"model": unit.model, "audiences": said}).decode()
    if len(data) > CONFIG_LIMIT:
        raise Refused(
            origin,
            "routing/audiences-too-large",
            f"the audiences of {unit.model} in {unit.environment.spec.name} are {len(data)} bytes, and the ConfigMap "
            f"of their resolver takes {CONFIG_LIMIT}",
            "give them shorter lists",
        )
    return data
