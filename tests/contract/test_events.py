"""Events on API servers: they take them, and kubectl shows them where people look."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from reconciler.cluster import Writer, connect
from reconciler.telling.events import Events, Reason
from renderers.manifest import ObjectId
from tests.contract.client import KUBECTL, Api, config_map, eventually


class Clock:
    """The time of day, which a test may put ahead: kubectl shows ages."""

    ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead  # noqa: TID251 - what is compared with the server's own clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def events(server: tuple[Path, str], clock: Clock) -> Iterator[Events]:
    connection = connect(str(server[0]), trusted=True)
    lost: list[None] = []
    made = Events(Writer(connection), clock, lambda: lost.append(None), instance="trueup-0")
    yield made
    made.close(10)
    connection.close()
    assert not lost


@pytest.fixture
def about(api: Api, namespace: str, config_maps: str) -> tuple[ObjectId, str]:
    """An object, and its UID."""
    made = api("POST", config_maps, config_map("churn"))
    return ObjectId("v1", "ConfigMap", namespace, "churn"), made.body["metadata"]["uid"]


def stored(api: Api, namespace: str, number: int = 1) -> list[Any]:
    """The Events of a namespace that are ours, once there are so many."""

    def found() -> list[Any]:
        items = api("GET", f"/api/v1/namespaces/{namespace}/events").body["items"]
        return [item for item in items if item["source"].get("component") == "trueup"]

    assert eventually(lambda: len(found()) >= number)
    return found()


def kubectl(api: Api, *arguments: str) -> str:
    command = [KUBECTL, "--kubeconfig", str(api.kubeconfig), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_describe_shows_what_was_told_of_an_object(api: Api, events: Events, about: tuple[ObjectId, str]) -> None:
    target, uid = about
    events.tell(target, Reason.DRIFT_FOUND, "kubectl-edit changed data.depth; it is left so", uid=uid)
    stored(api, target.namespace)
    shown = kubectl(api, "describe", "configmap", target.name, "-n", target.namespace)
    (line,) = [line.split() for line in shown.splitlines() if "DriftFound" in line]
    assert line[:2] == ["Warning", "DriftFound"]
    assert " ".join(line).endswith("trueup kubectl-edit changed data.depth; it is left so")


def test_kubectl_tells_how_often_and_since_when(
    api: Api, events: Events, clock: Clock, about: tuple[ObjectId, str]
) -> None:
    target, uid = about
    for times in (1, 2, 3):
        clock.ahead = timedelta(minutes=times - 4)
        events.tell(target, Reason.DRIFT_MENDED, "kubectl-edit changed data.depth; it is mended", uid=uid)
        assert eventually(lambda times=times: stored(api, target.namespace)[0]["count"] == times)
    listed = kubectl(api, "events", "-n", target.namespace, "--for", f"configmap/{target.name}")
    assert "(x3 over 3m" in listed
    assert "DriftMended" in listed
    sorted_by_time = kubectl(api, "get", "events", "-n", target.namespace, "--sort-by=.lastTimestamp")
    assert "configmap/churn" in sorted_by_time


def test_events_about_a_namespace_are_in_it(api: Api, events: Events, namespace: str) -> None:
    events.tell(ObjectId("v1", "Namespace", "", namespace), Reason.BLOCKED, "all 12 objects would be deleted")
    (event,) = stored(api, namespace)
    assert event["involvedObject"]["kind"] == "Namespace"
    assert "namespace/" + namespace in kubectl(api, "get", "events", "-n", namespace)


def test_a_message_of_any_length_is_taken(api: Api, events: Events, about: tuple[ObjectId, str]) -> None:
    target, uid = about
    events.tell(target, Reason.FAILED, "é\x1b[2J" * 5000, uid=uid, related=ObjectId("v1", "Service", "x", "y"))
    (event,) = stored(api, target.namespace)
    assert len(event["message"].encode()) <= 1024
    assert "\x1b" not in event["message"]
