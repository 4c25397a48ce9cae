"""The status of PodDisruptionBudgets: how many Pods may be taken away now. After kube-controller-manager 1.36."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from embedded.deletion import timestamp
from embedded.loop import Cluster
from embedded.store import Event
from embedded.workloads import pods as _pods
from embedded.workloads.index import (
    BUDGETS,
    DEPLOYMENTS,
    PODS,
    REPLICA_SETS,
    Index,
    controller_of,
    decoded,
    key_of,
    states,
)
from embedded.workloads.writes import Replace, Writer, sooner

Object = dict[str, Any]
View = Mapping[str, Any]

#: How long a Pod that was evicted counts as gone, although its deletion has not begun.
_EVICTION = timedelta(minutes=2)


def status(budget: Object, pods: Sequence[View], scale: int | str, now: datetime) -> tuple[Object, float | None]:
    """The status, and in how many seconds to look again.

    `pods` are those that the budget selects, `scale` how many there should be by their controllers: a sentence where
    that cannot be known.
    """
    spec, before = budget["spec"], budget.get("status") or {}
    generation = budget["metadata"].get("generation", 1)
    expected: int | str = scale
    if "maxUnavailable" in spec:
        least = spec["maxUnavailable"]
        desired = max(scale - _pods.portion(least, scale, up=True), 0) if isinstance(scale, int) else 0
    elif isinstance(spec.get("minAvailable"), str):
        desired = _pods.portion(spec["minAvailable"], scale, up=True) if isinstance(scale, int) else 0
    else:
        desired, expected = int(spec.get("minAvailable", 0)), len(pods)
    if isinstance(expected, str):
        failed = _condition(before, ("False", "SyncFailed", expected), before.get("observedGeneration", 0), now)
        empty = {"currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}
        return {**empty, **before, "disruptionsAllowed": 0, "conditions": [failed]}, None
    evicted = _evicted(before, pods, now)
    left = [pod for pod in pods if not _pods.is_deleting(pod) and pod["metadata"]["name"] not in evicted]
    healthy = sum(map(_pods.is_ready, left))
    allowed = max(healthy - desired, 0) if expected > 0 else 0
    said = ("True", "SufficientPods", "") if allowed else ("False", "InsufficientPods", "")
    after: Object = {
        "observedGeneration": generation,
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
        "conditions": [_condition(before, said, generation, now)],
    }
    if evicted:
        after["disruptedPods"] = evicted
    ends = (_pods.moment(since) + _EVICTION - now for since in evicted.values())
    return after, sooner(*(left.total_seconds() for left in ends))


def _evicted(before: View, pods: Iterable[View], now: datetime) -> dict[str, str]:
    """The Pods whose eviction was granted, and whose deletion is still to come."""
    there = {pod["metadata"]["name"] for pod in pods if not _pods.is_deleting(pod)}
    listed = (before.get("disruptedPods") or {}).items()
    return {name: since for name, since in listed if name in there and now <= _pods.moment(since) + _EVICTION}


def _condition(before: View, said: tuple[str, str, str], generation: int, now: datetime) -> Object:
    held, reason, message = said
    found: Object = {
        "type": "DisruptionAllowed",
        "status": held,
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
    }
    old = next((one for one in before.get("conditions") or () if one["type"] == "DisruptionAllowed"), None)
    same = old is not None and old["status"] == held
    return {**found, "lastTransitionTime": old["lastTransitionTime"] if old and same else timestamp(now)}


class Budgets:
    """loop.Controller of PodDisruptionBudgets."""

    def __init__(self, cluster: Cluster, index: Index, writer: Writer) -> None:
        self._cluster = cluster
        self._index = index
        self._writer = writer

    def keys(self, event: Event) -> Iterable[str]:
        """loop.Controller"""
        key = key_of(event)
        names: set[str] = set()
        if key.resource == BUDGETS:
            names.add(key.name)
        elif key.resource == PODS:
            for pod in states(event):
                names.update(self._index.selecting(BUDGETS, key.namespace, pod["metadata"].get("labels") or {}))
        elif key.resource in (DEPLOYMENTS, REPLICA_SETS):  # the scale: of the Pods that are to come, too
            template = decoded(event.body)["spec"]["template"]
            labels = (template.get("metadata") or {}).get("labels") or {}
            names.update(self._index.selecting(BUDGETS, key.namespace, labels))
        return [f"{key.namespace}/{name}" for name in sorted(names)]

    def reconcile(self, key: str) -> float | None:
        """loop.Controller"""
        namespace, _, name = key.partition("/")
        budget = self._cluster.get(BUDGETS, namespace, name)
        if budget is None:
            return None
        names = self._index.selected(PODS, namespace, budget["spec"].get("selector"))
        pods = self._cluster.read(PODS, namespace, names)
        after, again = status(budget, pods, self._scale(namespace, pods), self._cluster.now)
        if after != budget.get("status"):
            self._writer.carry_out([Replace(BUDGETS, {**budget, "status": after}, "status")])
        return again

    def _scale(self, namespace: str, pods: Iterable[View]) -> int | str:
        """How many Pods the controllers of these are to have, or why that is not known."""
        sizes: dict[str, int] = {}
        seen: set[str] = set()
        for pod in pods:
            reference = controller_of(pod)
            if reference is None or reference["uid"] in seen:
                continue
            seen.add(reference["uid"])
            if reference["kind"] == "Job":
                return "jobs.batch does not implement the scale subresource"
            owner = self._cluster.get(REPLICA_SETS, namespace, reference["name"])
            if owner is None or owner["metadata"]["uid"] != reference["uid"]:
                return f'found no controllers for pod "{pod["metadata"]["name"]}"'
            parent = controller_of(owner)
            above = self._cluster.get(DEPLOYMENTS, namespace, parent["name"]) if parent else None
            owner = above or owner
            sizes[owner["metadata"]["uid"]] = int(owner["spec"].get("replicas", 1))
        return sum(sizes.values())
