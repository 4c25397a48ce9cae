"""Deployment -> ReplicaSets: reads and writes for `rollouts`, which decides."""

from __future__ import annotations

from collections.abc import Iterable

from embedded.loop import Cluster
from embedded.store import Event
from embedded.workloads import pods as _pods
from embedded.workloads import rollouts
from embedded.workloads.index import DEPLOYMENTS, PODS, REPLICA_SETS, Index, controller_of, key_of, states
from embedded.workloads.writes import Writer

#: Seconds after which a refused creation is tried again.
_RETRY = 5.0


class Deployments:
    """loop.Controller of Deployments."""

    def __init__(self, cluster: Cluster, index: Index, writer: Writer) -> None:
        self._cluster = cluster
        self._index = index
        self._writer = writer

    def keys(self, event: Event) -> Iterable[str]:
        """loop.Controller"""
        key = key_of(event)
        if key.resource == DEPLOYMENTS:
            return (key.path,)
        if key.resource != REPLICA_SETS:
            return ()
        names: set[str] = set()
        for found in states(event):
            reference = controller_of(found)
            if reference is None:
                names.update(self._index.selecting(DEPLOYMENTS, key.namespace, found["metadata"].get("labels") or {}))
            elif reference["kind"] == "Deployment":
                names.add(reference["name"])
        return [f"{key.namespace}/{name}" for name in sorted(names)]

    def reconcile(self, key: str) -> float | None:
        """loop.Controller"""
        namespace, _, name = key.partition("/")
        deployment = self._cluster.get(DEPLOYMENTS, namespace, name)
        if deployment is None:
            return None
        owned = self._index.owned(REPLICA_SETS, deployment["metadata"]["uid"])
        selected = self._index.selected(REPLICA_SETS, namespace, deployment["spec"].get("selector"))
        found = (self._cluster.get(REPLICA_SETS, namespace, other) for other in sorted({*owned, *selected}))
        claims = _pods.claim(deployment, REPLICA_SETS, (one for one in found if one is not None))
        self._writer.carry_out(claims.writes)
        decision = rollouts.decide(
            deployment,
            claims.claimed,
            runs=lambda uid: self._runs(namespace, uid),
            taken=lambda other: self._cluster.get(REPLICA_SETS, namespace, other) is not None,
            now=self._cluster.now,
        )
        refusal = self._writer.carry_out(decision.writes)
        if refusal is None:
            return decision.again
        self._writer.carry_out(rollouts.refused(deployment, refusal.message, self._cluster.now))
        return _RETRY

    def _runs(self, namespace: str, uid: str) -> bool:
        """Whether a ReplicaSet has Pods that have not ended."""
        found = (self._cluster.get(PODS, namespace, name) for name in self._index.owned(PODS, uid))
        return any(pod is not None and not _pods.is_finished(pod) for pod in found)
