"""ReplicaSet -> Pods: as many as it asks for, and its status. Written after kube-controller-manager 1.36."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from embedded.deletion import timestamp
from embedded.errors import StatusError
from embedded.loop import Cluster
from embedded.store import Event
from embedded.workloads import pods as _pods
from embedded.workloads.index import PODS, REPLICA_SETS, Index, controller_of, key_of
from embedded.workloads.writes import Create, Decision, Delete, Replace, Write, Writer, sooner

Object = dict[str, Any]

#: Pods that are created or deleted in one look: all controllers share one thread. Their events bring the next look.
_BURST = 10

#: Seconds after which a refused creation is tried again.
_RETRY = 5.0


def replicas(
    replica_set: Object, active: Sequence[Object], related: Iterable[Mapping[str, Any]]
) -> list[Create | Delete]:
    """What brings the Pods to their number. `related` are the Pods of all ReplicaSets of the same Deployment."""
    if _pods.is_deleting(replica_set):
        return []
    missing = int(replica_set["spec"].get("replicas", 1)) - len(active)
    if missing > 0:
        return [Create(PODS, _pods.from_template(replica_set), replica_set) for _ in range(min(missing, _BURST))]
    leaving = _pods.first_to_go(active, related)[: min(-missing, _BURST)] if missing < 0 else []
    return [Delete(PODS, pod, replica_set) for pod in leaving]


def status(
    replica_set: Object, pods: Iterable[Object], refusal: StatusError | None, now: datetime
) -> tuple[Object, float | None]:
    """The status that says what there is, and in how many seconds it changes by time alone."""
    spec, before = replica_set["spec"], replica_set.get("status") or {}
    labels = spec["template"].get("metadata", {}).get("labels") or {}
    min_ready = int(spec.get("minReadySeconds", 0))
    active, terminating, waits = [], 0, []
    for pod in pods:
        if _pods.is_active(pod):
            active.append(pod)
            waits.append(_pods.seconds_to_available(pod, min_ready, now))
        elif _pods.is_terminating(pod):
            terminating += 1
    counts = {
        "fullyLabeledReplicas": sum(labels.items() <= (pod["metadata"].get("labels") or {}).items() for pod in active),
        "readyReplicas": sum(wait is not None for wait in waits),
        "availableReplicas": sum(wait == 0 for wait in waits),
    }
    after: Object = {
        "replicas": len(active),
        **{name: count for name, count in counts.items() if count},
        "terminatingReplicas": terminating,
        "observedGeneration": replica_set["metadata"]["generation"],
    }
    conditions = [found for found in before.get("conditions") or () if found["type"] != "ReplicaFailure"]
    if refusal is not None:
        conditions.append(_pods.condition(replica_set, "ReplicaFailure") or _failure(refusal, now))
    if conditions:
        after["conditions"] = conditions
    return after, sooner(*(wait for wait in waits if wait))


def _failure(refusal: StatusError, now: datetime) -> Object:
    return {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": refusal.message,
        "lastTransitionTime": timestamp(now),
    }


class ReplicaSets:
    """loop.Controller of ReplicaSets."""

    def __init__(self, cluster: Cluster, index: Index, writer: Writer) -> None:
        self._cluster = cluster
        self._index = index
        self._writer = writer

    def keys(self, event: Event) -> Iterable[str]:
        """loop.Controller"""
        key = key_of(event)
        if key.resource == REPLICA_SETS:
            return (key.path,)
        return self._index.owners(event, REPLICA_SETS, "ReplicaSet") if key.resource == PODS else ()

    def reconcile(self, key: str) -> float | None:
        """loop.Controller"""
        namespace, _, name = key.partition("/")
        replica_set = self._cluster.get(REPLICA_SETS, namespace, name)
        if replica_set is None:
            return None
        found = self._cluster.read(PODS, namespace, self._index.children(PODS, replica_set))
        claims = _pods.claim(replica_set, PODS, found)
        self._writer.carry_out(claims.writes)
        active = [pod for pod in claims.claimed if _pods.is_active(pod)]
        writes = replicas(replica_set, active, self._related(replica_set, active))
        refusal = self._writer.carry_out(writes)
        if writes and refusal is None:
            return None  # the Pods' own events bring us back, to count them
        decision = self._status(replica_set, claims.claimed, refusal)
        self._writer.carry_out(decision.writes)
        return decision.again

    def _status(self, replica_set: Object, claimed: list[Object], refusal: StatusError | None) -> Decision:
        after, again = status(replica_set, claimed, refusal, self._cluster.now)
        changed: list[Write] = []
        if after != replica_set.get("status"):
            changed = [Replace(REPLICA_SETS, {**replica_set, "status": after}, "status")]
        return Decision(changed, again if refusal is None else _RETRY)

    def _related(self, replica_set: Object, active: list[Object]) -> list[Object]:
        """The Pods of all ReplicaSets of one Deployment: only asked for where some of several must go."""
        wanted = int(replica_set["spec"].get("replicas", 1))
        reference = controller_of(replica_set)
        if reference is None or not 0 < wanted < len(active):
            return []
        namespace = replica_set["metadata"]["namespace"]
        owned = self._index.owned
        uids = (self._index.uid(REPLICA_SETS, namespace, name) for name in owned(REPLICA_SETS, reference["uid"]))
        return self._cluster.read(PODS, namespace, (name for uid in uids for name in owned(PODS, uid)))
