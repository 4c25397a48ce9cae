"""KEDA's ScaledObject, without KEDA: nothing measures load here, so the replicas stay within their range.

A target that has fewer than the least, or more than the most, gets that number; one within the range is left alone.
Status says so in plain words, where KEDA's conditions would tell of metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from embedded.loop import Cluster
from embedded.store import Event
from embedded.workloads.index import DEPLOYMENTS, REPLICA_SETS, SCALED_OBJECTS, decoded, key_of
from embedded.workloads.writes import Note, Replace, Write, Writer

Object = dict[str, Any]
View = Mapping[str, Any]

_PAUSED, _PAUSED_AT = "autoscaling.keda.sh/paused", "autoscaling.keda.sh/paused-replicas"

#: What can be scaled here, by kind.
_TARGETS = {"Deployment": DEPLOYMENTS, "ReplicaSet": REPLICA_SETS}


class Range(NamedTuple):
    """The least and the most replicas. Nothing is scaled to zero: without KEDA nothing would wake it."""

    least: int
    most: int

    @classmethod
    def of(cls, spec: View) -> Range:
        """As KEDA reads it: by default any number up to 100."""
        most = int(spec.get("maxReplicaCount", 100))
        return cls(min(max(1, int(spec.get("minReplicaCount", 0))), most), most)

    def nearest(self, replicas: int) -> int:
        """The number in the range that is closest."""
        return min(max(replicas, self.least), self.most)


def decide(scaled: Object, target: Object | None) -> list[Write]:
    """The number of replicas of the target, where it is out of range, and the status of the ScaledObject."""
    spec, annotations = scaled["spec"], scaled["metadata"].get("annotations") or {}
    who, held = spec["scaleTargetRef"], annotations.get(_PAUSED_AT, "")
    kind = who.get("kind") or "Deployment"
    paused = held.isdigit() or annotations.get(_PAUSED) == "true"
    allowed = Range.of(spec)
    writes: list[Write] = []
    if kind not in _TARGETS:
        ready = ("False", "ScaledObjectCheckFailed", f"the embedded data plane scales no {kind}, only {_names()}")
    elif target is None:
        ready = ("False", "ScaledObjectCheckFailed", f"there is no {kind} {who['name']} to scale")
    else:
        before = int(target["spec"].get("replicas", 1))
        after = int(held) if held.isdigit() else before if paused else allowed.nearest(before)
        if after != before:
            changed = {**target, "spec": {**target["spec"], "replicas": after}}
            writes.append(Replace(_TARGETS[kind], changed, "scale"))
            message = f"Scaled {target['apiVersion']}/{kind} {who['name']} from {before} to {after}"
            writes.append(
                Note(scaled, "KEDAScaleTargetActivated" if after > before else "KEDAScaleTargetScaled", message)
            )
        ready = ("True", "LoadNotFollowed", _explained(f"{kind} {who['name']}", allowed, paused=paused))
    before_status = scaled.get("status") or {}
    status = {**before_status, "scaleTargetKind": f"{who.get('apiVersion') or 'apps/v1'}.{kind}"}
    status["conditions"] = [
        _condition("Ready", *ready),
        _condition("Active", "Unknown", "LoadNotFollowed", "Nothing measures load on the embedded data plane"),
        _condition("Fallback", "False", "NoFallbackFound", "No fallbacks are active on this scaled object"),
        _pause("True" if paused else "False", held if held.isdigit() else ""),
    ]
    if status != before_status:
        writes.append(Replace(SCALED_OBJECTS, {**scaled, "status": status}, "status"))
    return writes


def _explained(who: str, allowed: Range, *, paused: bool) -> str:
    if paused:
        return f"{who} is not scaled: the ScaledObject is paused"
    return (
        f"Load is not followed on the embedded data plane: {who} keeps its replicas between {allowed.least}"
        f" and {allowed.most}"
    )


def _pause(status: str, at: str) -> Object:
    if status == "False":
        return _condition("Paused", status, "ScaledObjectUnpaused", "pause annotation removed for ScaledObject")
    where = f" at {at} replicas" if at else ""
    return _condition("Paused", status, "ScaledObjectPaused", f"ScaledObject is paused{where}")


def _condition(kind: str, status: str, reason: str, message: str) -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def _names() -> str:
    return " and ".join(f"{kind}s" for kind in _TARGETS)


class ScaledObjects:
    """loop.Controller of ScaledObjects."""

    def __init__(self, cluster: Cluster, writer: Writer) -> None:
        self._cluster = cluster
        self._writer = writer
        self._targets: dict[str, tuple[str, str]] = {}  # namespace/name -> resource and namespace/name of its target

    def keys(self, event: Event) -> Iterable[str]:
        """loop.Controller"""
        key = key_of(event)
        if key.resource == SCALED_OBJECTS:
            who = decoded(event.body)["spec"]["scaleTargetRef"]
            resource = _TARGETS.get(who.get("kind") or "Deployment", "")
            self._targets[key.path] = (resource, f"{key.namespace}/{who['name']}")
            if event.type == "DELETED":
                del self._targets[key.path]
            return (key.path,)
        if key.resource in _TARGETS.values():
            return [path for path, target in self._targets.items() if target == (key.resource, key.path)]
        return ()

    def reconcile(self, key: str) -> float | None:
        """loop.Controller"""
        namespace, _, name = key.partition("/")
        scaled = self._cluster.get(SCALED_OBJECTS, namespace, name)
        if scaled is None or "deletionTimestamp" in scaled["metadata"]:
            return None
        who = scaled["spec"]["scaleTargetRef"]
        resource = _TARGETS.get(who.get("kind") or "Deployment")
        target = self._cluster.get(resource, namespace, who["name"]) if resource else None
        self._writer.carry_out(decide(scaled, target))
        return None
