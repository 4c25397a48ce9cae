"""Events as a cluster is sent them, by a scripted server: what is counted, what is dropped, what is never repeated."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.cluster import Retry, Writer, connect
from reconciler.telling import events
from reconciler.telling.events import MESSAGE, WARNINGS, Events, Reason, namespace_of
from renderers.manifest import ObjectId
from tests.contract.client import eventually
from tests.contract.faults import Fault, FaultProxy, answer

ROUTE = ObjectId("gateway.networking.k8s.io/v1", "HTTPRoute", "prod", "churn")
KINDS = {"resources": [{"name": "events", "kind": "Event", "namespaced": True, "verbs": ["create", "patch"]}]}
FORBIDDEN = {
    "kind": "Status",
    "status": "Failure",
    "reason": "Forbidden",
    "code": 403,
    "message": 'events "churn.1" is forbidden: User "system:serviceaccount:trueup-system:trueup" cannot patch',
}


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, 3, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def wait(self, **span: float) -> None:
        self.now += timedelta(**span)


class Cluster:
    """A server that takes Events, and a sink that writes to it."""

    def __init__(self, proxy: FaultProxy, folder: Path) -> None:
        self.proxy, self.clock, self.lost = proxy, Clock(), 0
        self.connection = connect(str(proxy.kubeconfig(folder / "kubeconfig")), trusted=True)
        self.connection.retry = Retry(attempts=1)
        self.events = Events(Writer(self.connection), self.clock, self.lose, instance="trueup-0")

    def lose(self) -> None:
        self.lost += 1

    def answer(self, fault: Fault, times: int = 100_000) -> None:
        self.proxy.inject(fault, method="PATCH", times=times)

    def close(self) -> None:
        self.events.close()
        self.connection.close()

    def sent(self, number: int = 0) -> list[Any]:
        """What was sent, once it is so much."""

        def arrived() -> list[Any]:
            return [json.loads(seen.body) for seen in self.proxy.seen if seen.method == "PATCH"]

        assert eventually(lambda: len(arrived()) >= number, 10)
        return arrived()


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Cluster]:
    """A server that a test tells what to answer."""
    with FaultProxy() as proxy:
        proxy.inject(answer(200, KINDS), method="GET", times=100_000)
        cluster = Cluster(proxy, tmp_path)
        yield cluster
        cluster.close()


@pytest.fixture
def cluster(silent: Cluster) -> Cluster:
    """A server that takes everything."""
    silent.answer(answer(200, {"kind": "Event"}))
    return silent


def test_an_event_says_what_happened_to_which_object_and_who_tells(cluster: Cluster) -> None:
    about = ObjectId("v1", "ConfigMap", "trueup-system", "trueup-prod")
    cluster.events.tell(ROUTE, Reason.DRIFT_FOUND, "kubectl-edit changed spec.rules", uid="u-1", related=about)
    (sent,) = cluster.sent(1)
    assert sent.pop("metadata")["namespace"] == "prod"
    assert sent == {
        "apiVersion": "v1",
        "kind": "Event",
        "involvedObject": {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "namespace": "prod",
            "name": "churn",
            "uid": "u-1",
        },
        "related": {"apiVersion": "v1", "kind": "ConfigMap", "namespace": "trueup-system", "name": "trueup-prod"},
        "reason": "DriftFound",
        "message": "kubectl-edit changed spec.rules",
        "type": "Warning",
        "count": 1,
        "firstTimestamp": "2026-11-21T03:00:00Z",
        "lastTimestamp": "2026-11-21T03:00:00Z",
        "source": {"component": "trueup", "host": "trueup-0"},
        "reportingComponent": "trueup",
        "reportingInstance": "trueup-0",
    }


def test_what_repeats_is_one_event_with_a_count(cluster: Cluster) -> None:
    for _ in range(3):
        cluster.events.tell(ROUTE, Reason.DRIFT_MENDED, "kubectl-edit changed spec.rules")
        cluster.sent(cluster.clock.now.minute + 1)
        cluster.clock.wait(minutes=1)
    sent = cluster.sent(3)
    assert [event["count"] for event in sent] == [1, 2, 3]
    assert len({event["metadata"]["name"] for event in sent}) == 1
    assert sent[-1]["firstTimestamp"] == "2026-11-21T03:00:00Z"
    assert sent[-1]["lastTimestamp"] == "2026-11-21T03:02:00Z"


def test_after_ten_quiet_minutes_it_is_another_event(cluster: Cluster) -> None:
    for number in (1, 2):
        cluster.events.tell(ROUTE, Reason.DRIFT_MENDED, "kubectl-edit changed spec.rules")
        cluster.sent(number)
        cluster.clock.wait(minutes=10, seconds=1)
    first, second = cluster.sent(2)
    assert first["metadata"]["name"] != second["metadata"]["name"]
    assert second["count"] == 1


def test_an_object_has_a_budget_and_what_repeats_beyond_it_is_told_with_the_next(cluster: Cluster) -> None:
    for number in range(15):
        cluster.events.tell(ROUTE, Reason.FAILED, "it is refused")
        cluster.sent(min(number + 1, 10))
    assert cluster.sent(10)[-1]["count"] == 10
    cluster.clock.wait(seconds=61)
    cluster.events.tell(ROUTE, Reason.FAILED, "it is refused")
    assert cluster.sent(11)[-1]["count"] == 16
    assert cluster.lost == 0


def test_an_object_that_has_always_something_new_to_tell_costs_nobody_else_anything(cluster: Cluster) -> None:
    for number in range(50):
        cluster.events.tell(ROUTE, Reason.FAILED, f"attempt {number}")
    cluster.events.tell(ROUTE._replace(name="fraud"), Reason.FAILED, "it is refused")
    assert len(cluster.sent(11)) == 11
    assert cluster.lost == 40


def test_all_events_together_have_a_budget(cluster: Cluster) -> None:
    for number in range(300):
        cluster.events.tell(ROUTE._replace(name=f"model-{number}"), Reason.DRIFT_MENDED, "it is mended")
    assert len(cluster.sent(200)) == 200
    assert cluster.lost == 100
    cluster.clock.wait(seconds=1)
    cluster.events.tell(ROUTE, Reason.DRIFT_MENDED, "it is mended")
    cluster.sent(201)


def test_a_clock_that_is_set_back_stops_nothing(cluster: Cluster) -> None:
    for number in range(10):
        cluster.events.tell(ROUTE, Reason.FAILED, f"attempt {number}")
    cluster.clock.wait(days=-1)
    cluster.events.tell(ROUTE, Reason.FAILED, "too much, still")
    cluster.clock.wait(seconds=60)
    cluster.events.tell(ROUTE, Reason.FAILED, "once more")
    assert cluster.sent(11)[-1]["message"] == "once more"


def test_who_tells_never_waits_for_the_cluster(silent: Cluster) -> None:
    hold = threading.Event()

    def stuck(handler: Any, request: bytes) -> None:
        hold.wait(20)
        handler.reply(200, {"Content-Type": "application/json"}, b'{"kind": "Event"}')

    silent.answer(stuck)
    told = threading.Thread(
        target=lambda: [
            silent.events.tell(ROUTE._replace(name=f"model-{number % 40}"), Reason.DRIFT_MENDED, f"time {number}")
            for number in range(2000)
        ]
    )
    told.start()
    told.join(5)
    assert not told.is_alive()
    hold.set()


MISSING = {
    "kind": "Status",
    "status": "Failure",
    "reason": "NotFound",
    "code": 404,
    "message": 'namespaces "prod" not found',
    "details": {"name": "prod", "kind": "namespaces"},
}


@pytest.mark.parametrize("refusal", [FORBIDDEN, MISSING], ids=["forbidden", "not there"])
def test_where_nothing_can_be_written_it_is_said_once_and_waits_until_it_can(
    silent: Cluster, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, refusal: dict[str, Any]
) -> None:
    monkeypatch.setattr(events, "_LOOK", 0.3)
    silent.answer(answer(refusal["code"], refusal), times=3)
    silent.answer(answer(200, {"kind": "Event"}))
    with caplog.at_level(logging.WARNING):
        for number in range(5):
            silent.events.tell(ROUTE, Reason.DRIFT_MENDED, f"time {number}")
        silent.sent(8)
    tried, said = silent.sent()[:3], silent.sent()[3:]
    assert {event["message"] for event in tried} <= {"time 0", "time 1", "time 2", "time 3", "time 4"}
    assert sorted(event["message"] for event in said) == [f"time {number}" for number in range(5)]
    assert silent.lost == 0
    assert len(caplog.records) == 1


def test_one_namespace_where_nothing_can_be_written_holds_up_no_other(silent: Cluster) -> None:
    silent.proxy.inject(answer(404, MISSING), method="PATCH", path="/namespaces/prod/", times=100)
    silent.answer(answer(200, {"kind": "Event"}))
    for number in range(5):
        silent.events.tell(ROUTE, Reason.DRIFT_MENDED, f"time {number}")
    silent.events.tell(ROUTE._replace(namespace="staging"), Reason.DRIFT_MENDED, "it is mended")
    assert [event["metadata"]["namespace"] for event in silent.sent(2)] == ["prod", "staging"]
    silent.events.close(10)
    assert silent.lost == 5, "what waits at the end is lost, and counted"


def test_what_waits_is_bounded_and_grows_old(silent: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_LOOK", 1.0)
    monkeypatch.setattr(events, "_WAITING", 3)
    silent.answer(answer(404, MISSING))
    for number in range(5):
        silent.events.tell(ROUTE, Reason.DRIFT_MENDED, f"time {number}")
    assert eventually(lambda: silent.lost == 2, 10)
    silent.clock.wait(hours=1, seconds=1)
    assert eventually(lambda: silent.lost == 5, 10)
    assert len(silent.sent()) == 1


def test_what_repeats_while_it_waits_is_still_one_event(silent: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_LOOK", 0.3)
    silent.answer(answer(404, MISSING), times=1)
    silent.answer(answer(200, {"kind": "Event"}))
    for _ in range(4):
        silent.events.tell(ROUTE, Reason.DRIFT_MENDED, "it is mended")
        silent.sent(1)
    assert silent.sent(2)[-1]["count"] == 4


def test_what_is_told_again_while_it_is_refused_waits_once(silent: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_WAITING", 1)

    def told_again(handler: Any, request: bytes) -> None:
        silent.events.tell(ROUTE, Reason.FAILED, "it is refused")
        answer(403, FORBIDDEN)(handler, request)

    silent.answer(told_again, times=1)
    silent.events.tell(ROUTE, Reason.FAILED, "it is refused")
    silent.sent(1)
    assert eventually(lambda: silent.events._waiting, 10)
    assert eventually(lambda: not silent.events._queue, 10)
    assert (len(silent.events._waiting), silent.lost) == (1, 0)


def test_a_cluster_that_is_away_loses_events_and_nothing_else(silent: Cluster) -> None:
    silent.answer(answer(503, {"kind": "Status", "code": 503}), times=2)
    silent.answer(answer(200, {"kind": "Event"}))
    for number in range(3):
        silent.events.tell(ROUTE, Reason.DRIFT_MENDED, f"time {number}")
    assert silent.sent(3)[-1]["message"] == "time 2"
    assert silent.lost == 2


def test_closing_sends_what_waits_and_takes_nothing_new(cluster: Cluster) -> None:
    for number in range(10):
        cluster.events.tell(ROUTE, Reason.DRIFT_MENDED, f"time {number}")
    cluster.events.close(10)
    assert len(cluster.sent()) == 10
    cluster.events.tell(ROUTE._replace(name="fraud"), Reason.DRIFT_MENDED, "too late")
    assert cluster.lost == 1


@pytest.mark.parametrize(
    ("about", "namespace"),
    [
        (ROUTE, "prod"),
        (ObjectId("v1", "Namespace", "", "prod"), "prod"),
        (ObjectId("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "builds.trueup.dev"), "trueup-system"),
    ],
)
def test_an_event_is_where_the_roles_reach(about: ObjectId, namespace: str) -> None:
    assert namespace_of(about) == namespace


def test_every_reason_is_one_word_in_camel_case_and_most_of_them_are_no_warning() -> None:
    assert all(reason.value.isalpha() and reason.value[0].isupper() for reason in Reason)
    assert Reason.DRIFT_MENDED not in WARNINGS
    assert set(Reason) >= WARNINGS


@given(st.text(max_size=3000))
def test_a_message_is_one_line_within_the_limit_whatever_it_says(text: str) -> None:
    message = events._bounded(text)
    assert message.isprintable()
    assert len(message.encode()) <= MESSAGE


@given(st.text(min_size=1, max_size=300))
def test_the_name_of_an_event_is_one_that_the_api_takes(name: str) -> None:
    now = datetime(2026, 11, 21, 3, tzinfo=UTC)
    what = events._What(ROUTE._replace(name=name), "", Reason.DRIFT_MENDED, "")
    made = events._name(events._Series(what, None, now, now), "trueup", "")
    assert events._SUBDOMAIN.fullmatch(made)
    assert len(made) <= 253
