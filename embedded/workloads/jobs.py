"""Job -> Pods: reads and writes for `runs`, which decides; and the Pods that a Job leaves behind."""

from __future__ import annotations

from collections.abc import Iterable

from embedded.loop import Cluster
from embedded.store import Event
from embedded.workloads import runs
from embedded.workloads.index import JOBS, PODS, Index, Key, controller_of, decoded, key_of, states
from embedded.workloads.writes import Replace, Writer

#: Seconds after which a refused creation is tried again.
_RETRY = 5.0

#: The controller of Jobs that name none in spec.managedBy.
_OURS = "kubernetes.io/job-controller"


class Jobs:
    """loop.Controller of Jobs."""

    def __init__(self, cluster: Cluster, index: Index, writer: Writer) -> None:
        self._cluster = cluster
        self._index = index
        self._writer = writer

    def keys(self, event: Event) -> Iterable[str]:
        """loop.Controller"""
        key = key_of(event)
        if key.resource == JOBS:
            return (key.path,)
        if key.resource != PODS:
            return ()
        owners = map(controller_of, states(event))
        names = {reference["name"] for reference in owners if reference and reference["kind"] == "Job"}
        return [f"{key.namespace}/{name}" for name in sorted(names)]

    def reconcile(self, key: str) -> float | None:
        """loop.Controller"""
        namespace, _, name = key.partition("/")
        job = self._cluster.get(JOBS, namespace, name)
        if job is None or job["spec"].get("managedBy", _OURS) != _OURS:
            return None
        if runs.finished(job) is not None:
            return self._outlive(job)
        pods = self._cluster.read(PODS, namespace, self._index.owned(PODS, job["metadata"]["uid"]))
        decision = runs.decide(job, pods, self._cluster.now)
        refusal = self._writer.carry_out(decision.writes)
        return decision.again if refusal is None else _RETRY

    def _outlive(self, job: runs.Object) -> float | None:
        """ttlSecondsAfterFinished."""
        left, metadata = runs.seconds_to_live(job, self._cluster.now), job["metadata"]
        if left is None or left > 0:
            return left
        self._cluster.delete(JOBS, metadata["namespace"], metadata["name"], uid=metadata["uid"])
        return None


class LeftPods:
    """loop.Controller of the Pods that wait to be counted by a Job that is gone, or has finished: they may go."""

    def __init__(self, cluster: Cluster, index: Index, writer: Writer) -> None:
        self._cluster = cluster
        self._index = index
        self._writer = writer

    def keys(self, event: Event) -> Iterable[str]:
        """loop.Controller"""
        key = key_of(event)
        if key.resource == PODS and event.type != "DELETED" and runs.TRACKING.encode() in event.body:
            return (key.path,)
        if key.resource == JOBS:
            job = decoded(event.body)
            if event.type == "DELETED" or runs.finished(job) is not None:
                names = self._index.owned(PODS, job["metadata"]["uid"])
                return [Key(PODS, key.namespace, name).path for name in names]
        return ()

    def reconcile(self, key: str) -> float | None:
        """loop.Controller"""
        namespace, _, name = key.partition("/")
        pod = self._cluster.get(PODS, namespace, name)
        if pod is not None and runs.is_tracked(pod) and not self._is_awaited(pod):
            self._writer.carry_out([Replace(PODS, runs.without_tracking(pod))])
        return None

    def _is_awaited(self, pod: runs.Object) -> bool:
        """Whether a Job has still to count it, or another kind of owner to look after it."""
        reference = controller_of(pod)
        if reference is None:
            return False
        if reference["kind"] != "Job":
            return True
        job = self._cluster.get(JOBS, pod["metadata"]["namespace"], reference["name"])
        if job is None or job["metadata"]["uid"] != reference["uid"]:
            return False
        return job["spec"].get("managedBy", _OURS) != _OURS or runs.finished(job) is None
