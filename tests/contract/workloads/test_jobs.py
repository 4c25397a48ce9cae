"""Jobs: attempts, failures, deadlines, suspension, and what is left in the end."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.contract.client import eventually
from tests.contract.workloads.kubelet import Kubelet, conditions_of, reason_of

# What the build Jobs of Trueup say.
_BUILD_POLICY = {
    "rules": [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [3, 4, 5, 6]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
}


def test_a_job_runs_a_pod_and_completes(kubelet: Kubelet) -> None:
    created = kubelet.create("jobs", kubelet.job())
    uid = created["metadata"]["uid"]
    (pod,) = kubelet.pods(1)
    labels = {"controller-uid": uid, "job-name": "build"}
    assert pod["metadata"]["labels"] == labels | {f"batch.kubernetes.io/{key}": value for key, value in labels.items()}
    assert pod["metadata"]["finalizers"] == ["batch.kubernetes.io/job-tracking"]
    assert pod["metadata"]["generateName"] == "build-"
    (reference,) = pod["metadata"]["ownerReferences"]
    assert (reference["apiVersion"], reference["kind"], reference["uid"]) == ("batch/v1", "Job", uid)
    status = kubelet.status("jobs", "build", lambda status: status.get("active"))
    assert {key: value for key, value in status.items() if key != "startTime"} == {
        "active": 1,
        "ready": 0,
        "terminating": 0,
        "uncountedTerminatedPods": {},
    }
    kubelet.ready(pod)
    kubelet.status("jobs", "build", lambda status: status.get("ready") == 1)
    kubelet.ended(pod)
    status = kubelet.status("jobs", "build", lambda status: "Complete" in conditions_of(status))
    said = ("True", "CompletionsReached", "Reached expected number of succeeded pods")
    assert conditions_of(status) == {"SuccessCriteriaMet": said, "Complete": said}
    assert {key: value for key, value in status.items() if not key.endswith("Time") and key != "conditions"} == {
        "succeeded": 1,
        "ready": 0,
        "terminating": 0,
        "uncountedTerminatedPods": {},
    }
    assert status["completionTime"] >= status["startTime"]
    (left,) = kubelet.list("pods")
    assert "finalizers" not in left["metadata"]


def test_a_job_runs_as_many_pods_at_a_time_as_it_says(kubelet: Kubelet) -> None:
    kubelet.create("jobs", kubelet.job(completions=3, parallelism=2))
    first, second = kubelet.pods(2)
    kubelet.ended(first)
    eventually(lambda: len(kubelet.list("pods")) == 3)
    kubelet.ended(second)
    status = kubelet.status("jobs", "build", lambda status: status.get("succeeded") == 2)
    assert status["active"] == 1
    (third,) = [pod for pod in kubelet.pods() if pod["status"]["phase"] == "Pending"]
    kubelet.ended(third)
    kubelet.status("jobs", "build", lambda status: "Complete" in conditions_of(status) and status["succeeded"] == 3)


def test_an_exit_code_of_the_policy_fails_the_job_at_once_and_is_named(kubelet: Kubelet) -> None:
    kubelet.create("jobs", kubelet.job(backoffLimit=2, podFailurePolicy=_BUILD_POLICY, podReplacementPolicy="Failed"))
    (pod,) = kubelet.pods(1)
    kubelet.ended(pod, 5)
    status = kubelet.status("jobs", "build", lambda status: "Failed" in conditions_of(status))
    who = f"{kubelet.namespace}/{pod['metadata']['name']}"
    message = f"Container main for pod {who} failed with exit code 5 matching FailJob rule at index 0"
    said = ("True", "PodFailurePolicy", message)
    assert conditions_of(status) == {"FailureTarget": said, "Failed": said}
    assert (status["failed"], status["uncountedTerminatedPods"]) == (1, {})
    assert "completionTime" not in status
    assert "active" not in status


def test_a_rule_without_a_container_name_holds_for_init_containers(kubelet: Kubelet) -> None:
    kubelet.create("jobs", kubelet.job(podFailurePolicy=_BUILD_POLICY))
    (pod,) = kubelet.pods(1)
    kubelet.ended(pod, 6, container="fetch", init=True)
    status = kubelet.status("jobs", "build", lambda status: "Failed" in conditions_of(status))
    assert "Container fetch for pod" in conditions_of(status)["Failed"][2]


def test_a_rule_with_a_container_name_holds_for_that_one_only(kubelet: Kubelet) -> None:
    rule = {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "NotIn", "values": [1]}}
    kubelet.create("jobs", kubelet.job(backoffLimit=0, podFailurePolicy={"rules": [rule]}))
    (pod,) = kubelet.pods(1)
    kubelet.ended(pod, 1)
    status = kubelet.status("jobs", "build", lambda status: "Failed" in conditions_of(status))
    assert reason_of(status, "Failed") == "BackoffLimitExceeded"


def test_a_lost_node_is_no_attempt(kubelet: Kubelet) -> None:
    kubelet.create("jobs", kubelet.job(backoffLimit=0, podFailurePolicy=_BUILD_POLICY, podReplacementPolicy="Failed"))
    (pod,) = kubelet.pods(1)
    disrupted = [{"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}]
    kubelet.ended(pod, 137, conditions=disrupted)
    # After the back-off, a second attempt, although no failure is allowed.
    (again,) = eventually(lambda: [one for one in kubelet.pods() if one["status"]["phase"] == "Pending"] or None)
    assert again["metadata"]["uid"] != pod["metadata"]["uid"]
    status = kubelet.status("jobs", "build", lambda status: status.get("active") == 1)
    assert "failed" not in status
    assert "conditions" not in status


def test_the_last_failure_allowed_fails_the_job(kubelet: Kubelet) -> None:
    kubelet.create("jobs", kubelet.job(backoffLimit=0))
    (pod,) = kubelet.pods(1)
    kubelet.ended(pod, 1)
    status = kubelet.status("jobs", "build", lambda status: "Failed" in conditions_of(status))
    said = ("True", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    assert conditions_of(status) == {"FailureTarget": said, "Failed": said}
    assert status["failed"] == 1


def test_a_failure_is_tried_again_after_ten_seconds(kubelet: Kubelet) -> None:
    kubelet.create("jobs", kubelet.job(backoffLimit=2))
    (pod,) = kubelet.pods(1)
    kubelet.ended(pod, 1)
    begun = datetime.now(UTC)  # noqa: TID251  # the test measures time
    kubelet.status("jobs", "build", lambda status: status.get("failed") == 1)
    eventually(lambda: len(kubelet.list("pods")) == 2, 60)
    waited = (datetime.now(UTC) - begun).total_seconds()  # noqa: TID251  # the test measures time
    assert waited >= 8


def test_a_job_that_runs_too_long_is_ended(kubelet: Kubelet) -> None:
    kubelet.create("jobs", kubelet.job(activeDeadlineSeconds=2, podReplacementPolicy="Failed"))
    (pod,) = kubelet.pods(1)
    kubelet.ready(pod)
    status = kubelet.status("jobs", "build", lambda status: "FailureTarget" in conditions_of(status))
    said = ("True", "DeadlineExceeded", "Job was active longer than specified deadline")
    assert conditions_of(status) == {"FailureTarget": said}
    stopping = kubelet.get("pods", pod["metadata"]["name"])
    assert stopping is not None
    assert "deletionTimestamp" in stopping["metadata"]
    kubelet.status("jobs", "build", lambda status: status.get("terminating") == 1)
    # It has failed once its Pod is gone.
    kubelet.gone(pod)
    status = kubelet.status("jobs", "build", lambda status: "Failed" in conditions_of(status))
    assert conditions_of(status) == {"FailureTarget": said, "Failed": said}
    assert status["failed"] == 1


def test_a_pod_on_its_way_out_is_replaced_only_once_it_has_failed(kubelet: Kubelet) -> None:
    kubelet.create("jobs", kubelet.job(podReplacementPolicy="Failed", backoffLimit=0))
    (pod,) = kubelet.pods(1)
    kubelet.ready(pod)
    kubelet.api("DELETE", kubelet.path("pods", pod["metadata"]["name"]))
    status = kubelet.status("jobs", "build", lambda status: status.get("terminating") == 1)
    assert "failed" not in status
    assert len(kubelet.list("pods")) == 1
    kubelet.ended(pod, 143)
    status = kubelet.status("jobs", "build", lambda status: "Failed" in conditions_of(status))
    assert status["failed"] == 1


def test_a_suspended_job_has_no_pods_until_it_is_resumed(kubelet: Kubelet) -> None:
    kubelet.create("jobs", kubelet.job(suspend=True))
    status = kubelet.status("jobs", "build", lambda status: "Suspended" in conditions_of(status))
    assert conditions_of(status) == {"Suspended": ("True", "JobSuspended", "Job suspended")}
    assert "startTime" not in status
    assert kubelet.list("pods") == []
    kubelet.patch("jobs", "build", {"spec": {"suspend": False}})
    (pod,) = kubelet.pods(1)
    status = kubelet.status("jobs", "build", lambda status: reason_of(status, "Suspended") == "JobResumed")
    assert conditions_of(status) == {"Suspended": ("False", "JobResumed", "Job resumed")}
    assert "startTime" in status
    kubelet.patch("jobs", "build", {"spec": {"suspend": True}})
    stopping = eventually(
        lambda: (
            (found := kubelet.get("pods", pod["metadata"]["name"]))
            and "deletionTimestamp" in found["metadata"]
            and found
        )
    )
    assert "finalizers" not in stopping["metadata"]
    kubelet.gone(pod)
    status = kubelet.status(
        "jobs", "build", lambda status: reason_of(status, "Suspended") == "JobSuspended" and status["terminating"] == 0
    )
    assert "failed" not in status


def test_a_finished_job_goes_after_its_time(kubelet: Kubelet) -> None:
    kubelet.create("jobs", kubelet.job(ttlSecondsAfterFinished=1))
    (pod,) = kubelet.pods(1)
    kubelet.ended(pod)
    eventually(lambda: kubelet.get("jobs", "build") is None)
    eventually(lambda: kubelet.list("pods") == [])


def test_the_pods_of_a_deleted_job_are_held_by_nothing(kubelet: Kubelet) -> None:
    kubelet.create("jobs", kubelet.job())
    (pod,) = kubelet.pods(1)
    kubelet.api("DELETE", kubelet.path("jobs", "build") + "?propagationPolicy=Background")
    eventually(lambda: kubelet.get("jobs", "build") is None)
    kubelet.gone(pod)
    eventually(lambda: kubelet.list("pods") == [])
