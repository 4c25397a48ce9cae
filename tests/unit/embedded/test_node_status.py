"""What a Pod's status says of what its containers do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from embedded.node.container import back_off
from embedded.node.probes import Thresholds
from embedded.node.status import ContainerReport, PodReport, phase, pod_status

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
RUNNING = {"running": {"startedAt": "2030-01-02T03:00:00Z"}}
WAITING = {"waiting": {"reason": "PodInitializing"}}


def ended(code: int) -> dict[str, Any]:
    return {"terminated": {"exitCode": code}}


def one(state: dict[str, Any], name: str = "main", **more: Any) -> ContainerReport:
    spec = {"name": name, "image": "x"} | more.pop("spec", {})
    return ContainerReport(spec, state, **{"last": {}, **more})


def report(*main: ContainerReport, init: tuple[ContainerReport, ...] = (), **more: Any) -> PodReport:
    return PodReport("127.20.5.6", "127.20.0.1", "2030-01-02T03:00:00Z", init, main, **{"prepared": True, **more})


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"generation": 2}, "spec": {"containers": [{"name": "main"}]}, "status": status}


SIDECAR = {"restartPolicy": "Always"}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (report(one(WAITING)), "Pending"),
        (report(one(RUNNING)), "Running"),
        (report(one(RUNNING), one(ended(0))), "Running"),
        (report(one(RUNNING), one(WAITING)), "Pending"),
        (report(one(WAITING, last={"exitCode": 1}, id="x")), "Running"),
        (report(one(ended(1))), "Running"),  # it is started again
        (report(one(WAITING), init=(one(RUNNING),)), "Pending"),
        (report(one(WAITING), init=(one(ended(1)),)), "Pending"),
        (report(one(RUNNING), init=(one(ended(0)),)), "Running"),
        (report(one(WAITING), init=(one(RUNNING, spec=SIDECAR),)), "Pending"),
        (report(one(RUNNING, id="x"), init=(one(WAITING, spec=SIDECAR),)), "Running"),
        (report(one(ended(0)), ended=True), "Succeeded"),
        (report(one(ended(0)), one(ended(2)), ended=True), "Failed"),
        (report(one(WAITING), init=(one(ended(1)),), ended=True), "Failed"),
        (report(one(ended(0)), init=(one(ended(143), spec=SIDECAR),), ended=True), "Succeeded"),
        (report(one(ended(0)), ended=True, reason="DeadlineExceeded"), "Failed"),
    ],
)
def test_the_phase_of_a_pod(made: PodReport, expected: str) -> None:
    assert phase(made) == expected


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    return {
        each["type"]: (each["status"], each.get("reason", ""), each.get("message", "")) for each in status["conditions"]
    }


def test_the_conditions_of_a_pod_that_initializes() -> None:
    status = pod_status(pod(), report(one(WAITING), init=(one(RUNNING, "fetch"),)), NOW)
    assert conditions(status) == {
        "PodScheduled": ("True", "", ""),
        "PodReadyToStartContainers": ("True", "", ""),
        "Initialized": ("False", "ContainersNotInitialized", "containers with incomplete status: [fetch]"),
        "ContainersReady": ("False", "ContainersNotReady", "containers with unready status: [main]"),
        "Ready": ("False", "ContainersNotReady", "containers with unready status: [main]"),
    }


def test_a_condition_keeps_the_moment_of_its_last_change() -> None:
    early = NOW.replace(year=2029)
    before = pod_status(pod(), report(one(RUNNING)), early)
    after = pod_status(pod(**before), report(one(RUNNING, ready=True)), NOW)
    moments = {each["type"]: each["lastTransitionTime"][:4] for each in after["conditions"]}
    assert moments == {
        "PodScheduled": "2029", "Initialized": "2029", "PodReadyToStartContainers": "2029",
        "ContainersReady": "2030", "Ready": "2030",
    }  # fmt: skip


def test_a_status_computed_again_is_the_same() -> None:
    made = report(one(RUNNING, ready=True, started=True))
    status = pod_status(pod(qosClass="Burstable"), made, NOW)
    assert pod_status(pod(**status), made, NOW.replace(year=2031)) == status
    assert status["qosClass"] == "Burstable"


def test_a_pod_waits_for_its_readiness_gates_and_keeps_what_others_say_of_it() -> None:
    gated = pod(conditions=[{"type": "gate", "status": "False"}])
    gated["spec"]["readinessGates"] = [{"conditionType": "gate"}, {"conditionType": "other"}]
    status = pod_status(gated, report(one(RUNNING, ready=True)), NOW)
    assert conditions(status)["ContainersReady"][0] == "True"
    assert conditions(status)["Ready"][:2] == ("False", "ReadinessGatesNotReady")
    assert "gate" in conditions(status)
    gated["status"]["conditions"] = [{"type": name, "status": "True"} for name in ("gate", "other")]
    assert conditions(pod_status(gated, report(one(RUNNING, ready=True)), NOW))["Ready"][0] == "True"


def test_a_pod_that_was_disrupted_says_so() -> None:
    made = report(one(ended(137)), ended=True, disrupted="stopped")
    assert conditions(pod_status(pod(), made, NOW))["DisruptionTarget"] == ("True", "TerminationByKubelet", "stopped")


def test_restarts_are_slower_and_slower() -> None:
    assert [back_off(count) for count in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert back_off(10**6) == 60


def test_a_probe_means_something_after_enough_equal_results() -> None:
    meaning = Thresholds({"successThreshold": 2, "failureThreshold": 3}, first=False)
    results = [True, False, True, True, False, False, True, False, False, False]
    values = []
    for result in results:
        meaning.take(result)
        values.append(meaning.value)
    assert values == [False, False, False, True, True, True, True, True, True, False]
