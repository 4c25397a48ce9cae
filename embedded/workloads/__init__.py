"""The workload controllers of the embedded data plane: what kube-controller-manager does in a cluster.

Deployment -> ReplicaSet -> Pods, Job -> Pods, Service -> EndpointSlices, the status of PodDisruptionBudgets, and KEDA's
ScaledObjects as far as that goes without KEDA. What each does is decided by pure functions (objects and the moment in,
writes out) that follow kube-controller-manager 1.36; one contract test suite holds both against each other.

    controllers(cluster_for)   what a loop.Loop runs, in this order
"""

from __future__ import annotations

from collections.abc import Callable

from embedded.loop import Cluster, Controller
from embedded.workloads.budgets import Budgets
from embedded.workloads.deployments import Deployments
from embedded.workloads.endpoints import Endpoints
from embedded.workloads.events import Recorder
from embedded.workloads.index import Index
from embedded.workloads.jobs import Jobs, LeftPods
from embedded.workloads.replicasets import ReplicaSets
from embedded.workloads.scaled_objects import ScaledObjects
from embedded.workloads.writes import Writer

__all__ = ["Recorder", "controllers"]

#: The field manager of what each writes, as in a cluster.
_MANAGER, _SCALER = "kube-controller-manager", "keda"


def controllers(cluster_for: Callable[[str], Cluster]) -> list[Controller]:
    """The controllers, for one loop.Loop. `cluster_for` gives the objects to a field manager."""
    cluster, index = cluster_for(_MANAGER), Index()
    recorder = Recorder(cluster)

    def writer(component: str) -> Writer:
        return Writer(cluster, recorder, component)

    scaler = cluster_for(_SCALER)
    return [
        index,  # first: the others ask it about the event that they see
        recorder,
        Deployments(cluster, index, writer("deployment-controller")),
        ReplicaSets(cluster, index, writer("replicaset-controller")),
        Jobs(cluster, index, writer("job-controller")),
        LeftPods(cluster, index, writer("job-controller")),
        Endpoints(cluster, index, writer("endpoint-slice-controller")),
        Budgets(cluster, index, writer("controllermanager")),
        ScaledObjects(scaler, Writer(scaler, recorder, "keda-operator")),
    ]
