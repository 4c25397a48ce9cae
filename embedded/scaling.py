"""The scale subresource: `autoscaling/v1` Scale, one view for everything that has replicas."""

from __future__ import annotations

import copy
from typing import Any

from embedded.errors import invalid
from embedded.kinds.kind import Kind
from embedded.schema import Cause

Object = dict[str, Any]

_PATHS = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.selector",
}

API_VERSION = "autoscaling/v1"


def scale_of(kind: Kind, obj: Object) -> Object:
    """The Scale of an object."""
    metadata = {
        field: obj["metadata"][field]
        for field in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        if field in obj["metadata"]
    }
    status: Object = {"replicas": _read(kind, obj, "statusReplicasPath") or 0}
    if selector := _selector(kind, obj):
        status["selector"] = selector
    replicas = _read(kind, obj, "specReplicasPath")
    return {
        "kind": "Scale",
        "apiVersion": API_VERSION,
        "metadata": metadata,
        "spec": {"replicas": replicas} if replicas else {},
        "status": status,
    }


def with_scale(kind: Kind, obj: Object, scale: Any) -> Object:
    """A copy of the object with the replicas of a Scale; its uid and resourceVersion become preconditions."""
    spec, metadata = scale.get("spec") or {}, scale.get("metadata") or {}
    replicas = spec.get("replicas", 0)
    if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 0:
        cause = Cause(
            "spec.replicas", "FieldValueInvalid", f"Invalid value: {replicas}: must be greater than or equal to 0"
        )
        name = obj["metadata"]["name"]
        refused = invalid(kind, name, f'Scale.autoscaling "{name}" is invalid: {cause}', [cause])
        refused.details = {**(refused.details or {}), "group": "autoscaling", "kind": "Scale"}
        raise refused
    scaled = copy.deepcopy(obj)
    parts = _path(kind, "specReplicasPath")
    parent = scaled
    for part in parts[:-1]:
        parent = parent.setdefault(part, {})
    parent[parts[-1]] = replicas
    for field in ("uid", "resourceVersion"):
        if metadata.get(field):
            scaled["metadata"][field] = metadata[field]
    return scaled


def applied_scale(kind: Kind, scale: Object) -> Object:
    """An applied Scale as an applied configuration of the object that it scales."""
    applied: Object = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": dict(scale.get("metadata") or {}),
    }
    spec = scale.get("spec") or {}
    if "replicas" in spec:
        parent = applied
        *parents, last = _path(kind, "specReplicasPath")
        for part in parents:
            parent = parent.setdefault(part, {})
        parent[last] = spec["replicas"]
    return applied


def _path(kind: Kind, which: str) -> list[str]:
    return (kind.scale_paths.get(which) or _PATHS[which]).strip(".").split(".")


def _read(kind: Kind, obj: Object, which: str) -> Any:
    value: Any = obj
    for part in _path(kind, which):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _selector(kind: Kind, obj: Object) -> str:
    if kind.custom:
        written = _read(kind, obj, "labelSelectorPath") if kind.scale_paths.get("labelSelectorPath") else ""
        return written or ""
    selector = obj.get("spec", {}).get("selector") or {}
    terms = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for expression in selector.get("matchExpressions") or []:
        key, values = expression["key"], ",".join(sorted(expression.get("values") or []))
        match expression["operator"]:
            case "In":
                terms.append(f"{key} in ({values})")
            case "NotIn":
                terms.append(f"{key} notin ({values})")
            case "Exists":
                terms.append(key)
            case _:
                terms.append(f"!{key}")
    return ",".join(terms)
