"""Deployment -> ReplicaSets: reads and writes for `rollouts`, which decides."""

from __future__ import annotations

from collections.abc import Iterable

from embedded.loop import Cluster
from embedded.store import Event
from embedded.workloads import pods as _pods
from embedded.workloads import rollouts
from embedded.workloads.index import DEPLOYMENTS, PODS, REPLICA_SETS, Index, key_of
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
        return self._index.owners(event, DEPLOYMENTS, "Deployment") if key.resource == REPLICA_SETS else ()

    def reconcile(self, key: str) -> float | None:
        """loop.Controller"""
        namespace, _, name = key.partition("/")
        deployment = self._cluster.get(DEPLOYMENTS, namespace, name)
        if deployment is None:
            return None
        found = self._cluster.read(REPLICA_SETS, namespace, self._index.children(REPLICA_SETS, deployment))
        claims = _pods.claim(deployment, REPLICA_SETS, found)
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
        pods = self._cluster.read(PODS, namespace, self._index.owned(PODS, uid))
        return not all(map(_pods.is_finished, pods))
