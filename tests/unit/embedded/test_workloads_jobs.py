"""Jobs: verdicts on failed Pods, back-off, and that every Pod is counted once, whatever crashes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedded.workloads.job_failures import Verdict, judge, seconds_to_retry
from tests.conftest import examples
from tests.unit.embedded.controlled import Controlled, Object, condition, job


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Controlled]:
    controlled = Controlled(tmp_path)
    yield controlled
    controlled.close()


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controlled]:
    controlled = Controlled(tmp_path_factory.mktemp("plane"))
    yield controlled
    controlled.close()


def _pod(codes: dict[str, int] | None = None, init: dict[str, int] | None = None, **status: Any) -> Object:
    def listed(given: dict[str, int]) -> list[Object]:
        return [{"name": name, "state": {"terminated": {"exitCode": code}}} for name, code in given.items()]

    statuses = {"containerStatuses": listed(codes or {}), "initContainerStatuses": listed(init or {})}
    return {"metadata": {"namespace": "shop", "name": "build-x"}, "status": {"phase": "Failed", **statuses, **status}}


def _exit(action: str, operator: str, *values: int, container: str | None = None) -> Object:
    asked: Object = {"operator": operator, "values": list(values)}
    return {"action": action, "onExitCodes": asked | ({"containerName": container} if container else {})}


_LOST = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
_DISRUPTED = [{"type": "DisruptionTarget", "status": "True"}]


@pytest.mark.parametrize(
    ("rules", "pod", "verdict"),
    [
        ([], _pod({"main": 3}), Verdict()),
        ([_exit("Ignore", "In", 3)], _pod({"main": 3}), Verdict(counts=False)),
        ([_exit("Ignore", "In", 3)], _pod({"main": 4}), Verdict()),
        ([_exit("Count", "In", 3), _exit("FailJob", "In", 3)], _pod({"main": 3}), Verdict()),
        ([_exit("Ignore", "NotIn", 3)], _pod({"main": 0, "log": 3}), Verdict()),
        ([_exit("Ignore", "NotIn", 3)], _pod({"main": 4}), Verdict(counts=False)),
        ([_exit("Ignore", "In", 3, container="main")], _pod({"log": 3}), Verdict()),
        ([_exit("Ignore", "In", 3)], _pod({"main": 0}, {"fetch": 3}), Verdict(counts=False)),
        ([_LOST], _pod({"main": 137}, conditions=_DISRUPTED), Verdict(counts=False)),
        ([_LOST], _pod({"main": 137}, conditions=[{"type": "DisruptionTarget", "status": "False"}]), Verdict()),
        (
            [_LOST, _exit("FailJob", "In", 5)],
            _pod({"main": 5}),
            Verdict(
                fails_job="Container main for pod shop/build-x failed with exit code 5 matching FailJob rule at index 1"
            ),
        ),
        (
            [{**_LOST, "action": "FailJob"}],
            _pod(conditions=_DISRUPTED),
            Verdict(fails_job="Pod shop/build-x has condition DisruptionTarget matching FailJob rule at index 0"),
        ),
    ],
)
def test_the_first_rule_that_matches_judges_a_failed_pod(rules: list[Object], pod: Object, verdict: Verdict) -> None:
    assert judge({"rules": rules}, pod) == verdict


def test_without_a_policy_every_failure_counts() -> None:
    assert judge(None, _pod({"main": 5})) == Verdict()


def _finished(at: datetime) -> Object:
    ended = {"terminated": {"exitCode": 0, "finishedAt": at.isoformat()}}
    return {"metadata": {"creationTimestamp": at.isoformat()}, "status": {"containerStatuses": [{"state": ended}]}}


@pytest.mark.parametrize(("failures", "wait"), [(0, 0), (1, 10), (2, 20), (3, 40), (7, 600), (200, 600)])
def test_the_wait_doubles_with_each_failure_up_to_ten_minutes(now: datetime, failures: int, wait: float) -> None:
    failed = [_finished(now - timedelta(seconds=number)) for number in range(failures)]
    assert seconds_to_retry([], failed, now) == wait


def test_a_success_begins_the_count_of_failures_anew(now: datetime) -> None:
    failed = [_finished(now - timedelta(seconds=second)) for second in (1, 30, 40, 50)]
    assert seconds_to_retry([_finished(now - timedelta(seconds=20))], failed, now) == 9
    assert seconds_to_retry([_finished(now)], failed, now) == 0


def _status(plane: Controlled) -> Object:
    status: Object = plane.get("jobs.batch", "build").get("status") or {}
    return status


def test_attempts_follow_each_other_after_the_back_off(plane: Controlled) -> None:
    plane.create("jobs.batch", "build", job(backoffLimit=3))
    plane.settle()
    for attempt, wait in enumerate((10, 20, 40), start=1):
        (pod,) = [found for found in plane.pods() if found["status"]["phase"] == "Pending"]
        plane.ended(pod, 1)
        plane.settle()
        assert _status(plane)["failed"] == attempt
        plane.wait(wait - 1)
        assert len(plane.pods()) == attempt
        plane.wait(1)
        assert len(plane.pods()) == attempt + 1
    (pod,) = [found for found in plane.pods() if found["status"]["phase"] == "Pending"]
    plane.ended(pod, 1)
    plane.settle()
    assert condition(plane.get("jobs.batch", "build"), "Failed")["reason"] == "BackoffLimitExceeded"


def test_a_restart_of_the_controller_forgets_no_back_off(plane: Controlled) -> None:
    plane.create("jobs.batch", "build", job(backoffLimit=3))
    plane.settle()
    plane.ended(plane.pods()[0], 1)
    plane.settle()
    plane.restart()
    plane.settle()
    assert len(plane.pods()) == 1
    plane.wait(10)
    assert len(plane.pods()) == 2


def test_an_indexed_job_fails_and_says_that_it_is_not_supported(plane: Controlled) -> None:
    plane.create("jobs.batch", "build", job(completionMode="Indexed", completions=2))
    plane.settle()
    assert condition(plane.get("jobs.batch", "build"), "Failed")["message"] == (
        "The embedded data plane runs Jobs with completionMode NonIndexed only"
    )
    assert plane.pods() == []


def test_a_job_of_another_controller_is_left_alone(plane: Controlled) -> None:
    plane.create("jobs.batch", "build", job(managedBy="example.com/theirs"))
    plane.settle()
    assert plane.pods() == []
    assert _status(plane) == {}


def test_a_deadline_counts_from_the_start_and_needs_no_event(plane: Controlled) -> None:
    plane.create("jobs.batch", "build", job(activeDeadlineSeconds=60))
    plane.settle()
    plane.wait(59)
    assert len(plane.pods()) == 1
    plane.wait(1)
    (stopping,) = plane.list("pods")
    assert "deletionTimestamp" in stopping["metadata"]
    assert not condition(plane.get("jobs.batch", "build"), "Failed")
    plane.gone(stopping)
    plane.settle()
    assert condition(plane.get("jobs.batch", "build"), "Failed")["reason"] == "DeadlineExceeded"


def test_time_to_live_is_counted_from_the_end(plane: Controlled) -> None:
    plane.create("jobs.batch", "build", job(ttlSecondsAfterFinished=100))
    plane.settle()
    plane.ended(plane.pods()[0])
    plane.settle()
    plane.wait(99)
    assert plane.get("jobs.batch", "build")
    plane.wait(1)
    assert plane.list("jobs.batch") == []
    assert plane.list("pods") == []


class _CrashError(Exception):
    """The process dies here."""


@settings(max_examples=examples(60))
@given(
    outcomes=st.lists(st.sampled_from([0, 0, 1]), min_size=1, max_size=5),
    crashes=st.lists(st.integers(1, 6), max_size=6),
)
def test_every_pod_is_counted_once_whatever_crashes(
    lasting: Controlled, outcomes: list[int], crashes: list[int]
) -> None:
    """Pods end as `outcomes` say; the controllers die in the middle of their writes, again and again."""
    plane = lasting.clear()
    wanted = outcomes.count(0) + 1  # one more, so that the Job goes on
    left = list(crashes)
    plane.create("jobs.batch", "build", job(completions=wanted, parallelism=len(outcomes), backoffLimit=9))
    plane.settle()
    pods = plane.pods()
    for pod, code in zip(pods, outcomes, strict=False):
        plane.ended(pod, code)
        _settle_with_crashes(plane, left)
    ended = outcomes[: len(pods)]
    status = _status(plane)
    assert (status.get("succeeded", 0), status.get("failed", 0)) == (ended.count(0), ended.count(1))
    assert status["uncountedTerminatedPods"] == {}


def _settle_with_crashes(plane: Controlled, crashes: list[int]) -> None:
    """Lets so many writes happen, dies, starts anew."""
    while crashes:
        allowed = crashes.pop()
        written = 0

        def write(_: object) -> None:
            nonlocal written
            written += 1
            if written > allowed:  # noqa: B023  # called within this turn of the loop only
                raise _CrashError

        plane.before_write(write)
        try:
            plane.settle()
        except _CrashError:
            plane.before_write(None)
            plane.restart()
            continue
        break
    plane.before_write(None)
    plane.settle()
