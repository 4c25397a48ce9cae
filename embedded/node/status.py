"""Pure: the status of a Pod, as a kubelet computes it from what its containers do.

Rules: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/, compared with the kubelet's behaviour.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from embedded.deletion import timestamp

Object = dict[str, Any]

#: The conditions that we write; what others say of a pod stays.
_OURS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


class ContainerReport(NamedTuple):
    """One container now. `state` and `last` are as in a ContainerStatus."""

    spec: Object
    state: Object
    last: Object
    ready: bool = False
    started: bool = False
    restarts: int = 0
    id: str = ""

    @property
    def exit_code(self) -> int | None:
        """None while it has not ended."""
        code = self.state.get("terminated", {}).get("exitCode")
        return None if code is None else int(code)

    @property
    def is_sidecar(self) -> bool:
        """An init container that runs along with the others."""
        return self.spec.get("restartPolicy") == "Always"

    def status(self) -> Object:
        """As it stands in a Pod's status."""
        made: Object = {
            "name": self.spec["name"],
            "image": self.spec.get("image", ""),
            "imageID": "",  # no image was pulled
            "state": self.state,
            "lastState": {"terminated": self.last} if self.last else {},
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
        }
        if self.id:
            made["containerID"] = self.id
        return made


class PodReport(NamedTuple):
    """One pod now."""

    ip: str
    host_ip: str
    start_time: str
    init: Sequence[ContainerReport]
    main: Sequence[ContainerReport]
    prepared: bool = False  #: its volumes are mounted
    ended: bool = False  #: nothing of it runs, or will run again
    reason: str = ""  #: why it was ended before its time, in a word
    message: str = ""
    disrupted: str = ""  #: what became of it was no fault of its own: a sentence


def pod_status(pod: Object, report: PodReport, now: datetime) -> Object:
    """The whole status. Conditions that are as before keep the moment of their last change."""
    old = pod.get("status", {})
    made: Object = {
        "phase": phase(report),
        "conditions": _conditions(pod, report, now),
        "hostIP": report.host_ip,
        "hostIPs": [{"ip": report.host_ip}],
        "podIP": report.ip,
        "podIPs": [{"ip": report.ip}],
        "startTime": report.start_time,
        "containerStatuses": [container.status() for container in report.main],
        "observedGeneration": pod["metadata"].get("generation", 1),
    }
    if report.init:
        made["initContainerStatuses"] = [container.status() for container in report.init]
    if report.reason:
        made |= {"reason": report.reason, "message": report.message}
    kept = ("qosClass", "nominatedNodeName", "resourceClaimStatuses")
    return made | {name: old[name] for name in kept if name in old}


def phase(report: PodReport) -> str:
    """Pending, Running, Succeeded or Failed."""
    regular = [container for container in report.init if not container.is_sidecar]
    main = report.main
    if report.ended:
        done = not report.reason and all(one.exit_code == 0 for one in (*regular, *main))
        return "Succeeded" if done else "Failed"
    if not all(one.exit_code == 0 for one in regular):
        return "Pending"
    if not all(one.started for one in report.init if one.is_sidecar) and not any(one.id for one in main):
        return "Pending"
    if any("waiting" in one.state and not one.last for one in main):
        return "Pending"
    # Who has ended will be restarted, or waits for others to end: without that the pod had ended.
    return "Running"


def _conditions(pod: Object, report: PodReport, now: datetime) -> list[Object]:
    old = {condition["type"]: condition for condition in pod.get("status", {}).get("conditions", ())}
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates", ())]
    ended = phase(report) if report.ended else ""
    unready = [one.spec["name"] for one in report.main if not one.ready]
    uninitialized = [one.spec["name"] for one in report.init if not one.ready and not (one.is_sidecar and one.started)]
    not_ready: tuple[str, str] | None = None
    if ended:
        not_ready = ("PodCompleted", "") if ended == "Succeeded" else ("PodFailed", "")
    elif unready:
        not_ready = ("ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]")
    gate_problem = _gate_problem(gates, old)
    wrong: dict[str, tuple[str, str] | None] = {
        "PodReadyToStartContainers": None if report.prepared and not report.ended else ("", ""),
        "Initialized": None,
        "Ready": not_ready or gate_problem,
        "ContainersReady": not_ready,
        "PodScheduled": None,
    }
    if uninitialized and ended != "Succeeded":
        why = f"containers with incomplete status: [{' '.join(uninitialized)}]"
        wrong["Initialized"] = ("ContainersNotInitialized", why)
    made = [_condition(name, wrong[name], old.get(name), pod, now) for name in _OURS]
    if ended == "Succeeded":
        made[1] = _condition("Initialized", None, old.get("Initialized"), pod, now, reason="PodCompleted")
    if report.disrupted:
        known = old.get("DisruptionTarget")
        told = _condition("DisruptionTarget", None, known, pod, now, reason="TerminationByKubelet")
        made.append({**told, "message": report.disrupted})
    types = {condition["type"] for condition in made}
    return made + [condition for name, condition in old.items() if name not in types]


def _gate_problem(gates: list[str], old: dict[str, Object]) -> tuple[str, str] | None:
    missing = [gate for gate in gates if old.get(gate, {}).get("status") != "True"]
    if not missing:
        return None
    told = (
        f'corresponding condition of pod readiness gate "{gate}" does not exist.'
        if gate not in old
        else f'the status of pod readiness gate "{gate}" is not "True", but {old[gate]["status"]}'
        for gate in missing
    )
    return "ReadinessGatesNotReady", ", ".join(told)


def _condition(
    name: str, wrong: tuple[str, str] | None, old: Object | None, pod: Object, now: datetime, *, reason: str = ""
) -> Object:
    status = "True" if wrong is None else "False"
    made: Object = {"type": name, "status": status, "observedGeneration": pod["metadata"].get("generation", 1)}
    made["lastProbeTime"] = None  # as it is stored: what equals what is stored is not written
    changed = old is None or old["status"] != status or "lastTransitionTime" not in old
    made["lastTransitionTime"] = timestamp(now) if changed or old is None else old["lastTransitionTime"]
    why, message = wrong or (reason, "")
    if why:
        made["reason"] = why
    if message:
        made["message"] = message
    return made
