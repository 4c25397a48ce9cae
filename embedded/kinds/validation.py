"""Why an object is refused: metadata, the schema, and the rules of its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from embedded.checking import check
from embedded.kinds import definition_rules, formats, resources, workloads
from embedded.kinds.kind import Kind
from embedded.kinds.problems import Problems
from embedded.schema import ABSENT, Cause

_Object = Mapping[str, Any]


def validate(kind: Kind, obj: _Object, old: _Object | None) -> list[Cause]:
    """The causes of a 422, [] when the object is fine. `old` is the stored object, None on create.

    The object must be decodable and defaulted. uid and name must be set: messages and the selector of a Job show them.
    """
    found = Problems()
    _metadata(found, kind, obj["metadata"], old)
    if kind.custom:
        found.causes += check(kind.schema, obj, ABSENT if old is None else old)
        return found.causes
    rules = _RULES.get(kind.kind)
    if rules is not None:
        rules(found, obj, old)
    said = {(cause.field, cause.reason) for cause in found.causes}
    wanted = {
        key: value for key, value in obj.items() if key not in ("metadata", "status")
    }  # of status the server checks next to nothing
    found.causes += [
        cause
        for cause in check(kind.schema, wanted)
        if (cause.field, cause.reason) not in said and cause.field != "metadata"
    ]
    return found.causes


def _metadata(found: Problems, kind: Kind, meta: _Object, old: _Object | None) -> None:
    name = meta.get("name", "")
    if not name:
        found.required("metadata.name", "name or generateName is required")
    elif old is None:
        found.each_invalid("metadata.name", name, _name_rule(kind)(name))
    found.labels("metadata.labels", meta.get("labels"))
    found.annotations("metadata.annotations", meta.get("annotations"))
    for index, finalizer in enumerate(meta.get("finalizers", ())):
        found.each_invalid("metadata.finalizers", finalizer, formats.qualified_name(finalizer))
        if "/" not in finalizer and finalizer not in ("orphan", "foregroundDeletion", "kubernetes"):
            found.invalid(
                f"metadata.finalizers[{index}]",
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            )
    _owners(found, meta.get("ownerReferences", ()))
    if old is not None:
        for field in ("name", "namespace", "uid", "creationTimestamp"):
            if meta.get(field) != old["metadata"].get(field):
                found.invalid(f"metadata.{field}", meta.get(field, ""), "field is immutable")


def _owners(found: Problems, owners: Any) -> None:
    for owner in owners:
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                found.invalid(
                    f"metadata.ownerReferences.{field}",
                    owner.get(field, ""),
                    "must not be empty" if field != "apiVersion" else "version must not be empty",
                )
    controllers = [owner for owner in owners if owner.get("controller")]
    if len(controllers) > 1:
        first, second = (f"{owner.get('kind')}/{owner.get('name')}" for owner in controllers[:2])
        why = f'Only one reference can have Controller set to true. Found "true" in references for {first} and {second}'
        found.invalid("metadata.ownerReferences", list(owners), why)


def _name_rule(kind: Kind) -> Callable[[str], list[str]]:
    if kind.custom:
        return formats.dns_subdomain
    return _NAME_RULES.get(kind.kind, formats.dns_subdomain)


def _service_name(name: str) -> list[str]:
    # the server counts characters here, and bytes elsewhere
    return [problem.replace("63 bytes", "63 characters") for problem in formats.dns_label(name)]


_NAME_RULES: Mapping[str, Callable[[str], list[str]]] = {
    "Namespace": formats.dns_label,
    "Service": _service_name,
    "StatefulSet": formats.dns_subdomain,
    "Role": formats.path_segment,
    "RoleBinding": formats.path_segment,
    "ClusterRole": formats.path_segment,
    "ClusterRoleBinding": formats.path_segment,
    "SelfSubjectAccessReview": lambda _name: [],
    "SelfSubjectRulesReview": lambda _name: [],
    "SelfSubjectReview": lambda _name: [],
}

_RULES: Mapping[str, Callable[[Problems, _Object, _Object | None], None]] = {
    "ClusterRole": resources.cluster_role,
    "ClusterRoleBinding": resources.cluster_role_binding,
    "ConfigMap": resources.config_map,
    "CronJob": workloads.cron_job,
    "CustomResourceDefinition": definition_rules.custom_resource_definition,
    "Deployment": workloads.deployment,
    "EndpointSlice": resources.endpoint_slice,
    "Event": resources.event,
    "HorizontalPodAutoscaler": workloads.autoscaler,
    "Job": workloads.job,
    "Lease": resources.lease,
    "LimitRange": resources.limit_range,
    "Namespace": resources.namespace,
    "NetworkPolicy": resources.network_policy,
    "PersistentVolumeClaim": resources.volume_claim,
    "Pod": workloads.pod,
    "PodDisruptionBudget": workloads.disruption_budget,
    "ReplicaSet": workloads.replica_set,
    "ResourceQuota": resources.resource_quota,
    "Role": resources.role,
    "RoleBinding": resources.role_binding,
    "Secret": resources.secret,
    "Service": resources.service,
    "StatefulSet": workloads.stateful_set,
}
