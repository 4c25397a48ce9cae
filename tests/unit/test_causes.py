"""What a pod in trouble says, as a report quotes it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler import causes


def pod(
    *containers: dict[str, Any], created: str = "2026-01-01T00:00:00Z", init: Any = (), **status: Any
) -> dict[str, Any]:
    metadata = {"name": "a", "creationTimestamp": created}
    return {
        "metadata": metadata,
        "status": {"initContainerStatuses": list(init), "containerStatuses": list(containers), **status},
    }


def ended(message: str, code: int = 3, reason: str = "Error", name: str = "build") -> dict[str, Any]:
    return {"name": name, "state": {"terminated": {"exitCode": code, "reason": reason, "message": message}}}


def said(*pods: Any) -> str:
    cause = causes.of_pods(list(pods))
    return "" if cause is None else cause.text


def test_the_runtime_names_its_step_and_the_cause() -> None:
    message = json.dumps(
        {
            "error": {
                "step": "tests",
                "reason": "TestsFailed",
                "message": "2 of 5 tests failed:\ntest_a\nTraceback (most recent call last):",
            }
        }
    )

    assert said(pod(ended(message, 4))) == "tests: 2 of 5 tests failed: test_a"


def test_any_other_program_is_quoted_with_its_exit_code() -> None:
    assert said(pod(ended("no such file\n"))) == "container build: Error, exit code 3: no such file"
    assert said(pod(ended("", 137, "OOMKilled"))) == "container build: OOMKilled, exit code 137"


def test_an_init_container_comes_first() -> None:
    fetch = ended("", 5, name="fetch")

    assert said(pod(ended("x"), init=[fetch])).startswith("container fetch: ")


def test_what_a_container_waits_for_is_told_unless_it_only_starts() -> None:
    missing = {"reason": "CreateContainerConfigError", "message": 'secret "git" not found'}

    assert (
        said(pod({"name": "build", "state": {"waiting": missing}}))
        == 'container build: CreateContainerConfigError: secret "git" not found'
    )
    assert said(pod({"name": "build", "state": {"waiting": {"reason": "ContainerCreating"}}})) == ""


def test_the_last_end_of_a_container_that_is_started_again_says_more_than_that_it_waits() -> None:
    container = {
        "name": "model",
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
        "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": "port taken"}},
    }

    assert said(pod(container)) == "container model: Error, exit code 1: port taken"


def test_the_newest_pod_that_says_something_is_quoted() -> None:
    old, new = pod(ended("old")), pod(ended("new"), created="2026-01-02T00:00:00Z")
    silent = pod(created="2026-01-03T00:00:00Z")

    assert said(old, silent, new).endswith("new")


def test_a_pod_that_fits_nowhere_says_so() -> None:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes have a GPU",
    }

    assert said(pod(conditions=[condition])) == "Unschedulable: 0/3 nodes have a GPU"


@pytest.mark.parametrize("message", ["[]", '"text"', "{}", '{"error": 1}', '{"error": {}}', "{"])
def test_json_that_is_not_the_runtimes_is_text(message: str) -> None:
    assert said(pod(ended(message))) == f"container build: Error, exit code 3: {message}"


def test_a_long_message_keeps_its_end() -> None:
    assert said(pod(ended("a" * 5000 + " the cause"))).endswith("a the cause")


def test_no_pods_say_nothing() -> None:
    assert said() == ""
    assert said({"metadata": {"name": "a"}}) == ""
