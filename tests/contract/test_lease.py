"""Replicas that elect a leader over a real API server, and what happens to their writes when they are cut off."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pytest

from reconciler.cluster import ApiError, NotLeader, Retry, Unavailable, Writer, connect
from reconciler.lease import CONNECTIONS, RETRY, TIMEOUTS, Durations, Elector
from renderers.manifest import ObjectId, object_id
from tests.contract.client import MERGE, Api, eventually
from tests.contract.faults import Fault, FaultProxy, answer

QUICK = Durations(lease=3.0, renew_deadline=2.0, retry=0.4)
LEASES = r"/leases(/|\?|$)"
ALWAYS = 10**6


def wall() -> datetime:
    return datetime.fromtimestamp(time.clock_gettime(time.CLOCK_REALTIME), UTC)


def held(until: threading.Event) -> Fault:
    """Keep the request back until the event is set; then the server gets it, late."""

    def act(handler: Any, request: bytes) -> None:
        until.wait(30)
        response = handler.ask_upstream(request)
        handler.reply(response.status, {"Content-Type": "application/json"}, response.read())

    return act


def slow(seconds: float) -> Fault:
    def act(handler: Any, request: bytes) -> None:
        time.sleep(seconds)
        response = handler.ask_upstream(request)
        handler.reply(response.status, {"Content-Type": "application/json"}, response.read())

    return act


class Replica:
    """A candidate with its own way to the server, and, where asked for, something that writes all the time."""

    def __init__(
        self, kubeconfig: Path, folder: Path, namespace: str, me: str, durations: Durations | None = QUICK
    ) -> None:
        self.me, self.namespace = me, namespace
        self.told: list[bool] = []
        self.stop = threading.Event()
        self.done = threading.Event()
        self.writes: list[float] = []
        self._stack = ExitStack()
        self.proxy = self._stack.enter_context(FaultProxy(kubeconfig))
        path = str(self.proxy.kubeconfig(folder / f"kubeconfig-{me}"))
        self.connection = connect(path, trusted=True, timeouts=TIMEOUTS, retry=RETRY, connections=CONNECTIONS)
        self._stack.callback(self.connection.close)
        self.elector = Elector(
            Writer(self.connection),
            me,
            now=wall,
            namespace=namespace,
            durations=durations,
            on_change=self.told.append,
        )
        working = connect(path, trusted=True)
        self._stack.callback(working.close)
        self.writer = Writer(working, self.elector.fence)
        self._threads: list[threading.Thread] = []

    def start(self) -> Self:
        self._begin(lambda: self.elector.run(self.stop))
        return self

    def write_all_the_time(self) -> None:
        self._begin(self._write)

    def end(self) -> None:
        """As a clean stop does: nothing writes any more, then the Lease is given back."""
        self.done.set()
        self.stop.set()
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        self.end()
        self._stack.close()

    def _begin(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work)
        self._threads.append(thread)
        thread.start()

    def _write(self) -> None:
        while not self.done.wait(0.01):
            body = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "written", "namespace": self.namespace},
                "data": {"by": self.me, "count": str(len(self.writes))},
            }
            with suppress(NotLeader):
                self.writer.apply(body, force=True)
                self.writes.append(time.monotonic())


@pytest.fixture
def replica(server: tuple[Path, str], tmp_path: Path, namespace: str) -> Iterator[Callable[..., Replica]]:
    made: list[Replica] = []

    def make(me: str, durations: Durations | None = QUICK) -> Replica:
        made.append(Replica(server[0], tmp_path, namespace, me, durations))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def lease(api: Api, namespace: str) -> Callable[[], dict[str, Any]]:
    return lambda: api("GET", path_of(namespace)).body["spec"]  # type: ignore[no-any-return] # JSON


def path_of(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/trueup"


def seconds_until(condition: Callable[[], bool], within: float) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within, f"not within {within} s"
        time.sleep(0.005)
    return time.monotonic() - began


def test_the_first_one_leads_and_says_so_in_the_lease(
    replica: Callable[..., Replica], lease: Callable[[], dict[str, Any]]
) -> None:
    one = replica("one").start()
    seconds_until(lambda: one.elector.leads, 2)
    said = lease()
    assert (said["holderIdentity"], said["leaseDurationSeconds"], said["leaseTransitions"]) == ("one", 3, 0)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", said["renewTime"])
    assert said["acquireTime"] == said["renewTime"]
    eventually(lambda: lease()["renewTime"] > said["renewTime"])
    assert lease()["acquireTime"] == said["acquireTime"]
    assert time.monotonic() - (one.elector.since or 0) < 5
    assert one.told == [True]


def test_of_several_one_leads_and_the_others_know_who(replica: Callable[..., Replica]) -> None:
    three = [replica(name).start() for name in ("a", "b", "c")]
    seconds_until(lambda: sum(one.elector.leads for one in three) == 1, 2)
    (leader,) = (one for one in three if one.elector.leads)
    seconds_until(lambda: {one.elector.holder for one in three} == {leader.me}, 2)
    time.sleep(4)  # longer than a lease
    assert leader.told == [True]
    assert [one.told for one in three if one is not leader] == [[], []]


@pytest.mark.parametrize("delay", [0.0, 0.25], ids=["swift", "slow"])
def test_after_a_clean_stop_another_one_leads_within_two_seconds(
    replica: Callable[..., Replica], lease: Callable[[], dict[str, Any]], delay: float
) -> None:
    first, second = replica("first", None).start(), replica("second", None)
    seconds_until(lambda: first.elector.leads, 2)
    second.start()
    seconds_until(lambda: second.elector.holder == "first", 2)
    if delay:
        for one in (first, second):
            one.proxy.inject(slow(delay), times=ALWAYS)
    threading.Thread(target=first.end).start()
    took = seconds_until(lambda: second.elector.leads, 5)
    assert took <= 2.0
    assert not first.elector.leads
    assert lease()["leaseTransitions"] == 1
    assert lease()["leaseDurationSeconds"] == 15


def test_a_lease_given_back_says_nobody(replica: Callable[..., Replica], lease: Callable[[], dict[str, Any]]) -> None:
    one = replica("one").start()
    seconds_until(lambda: one.elector.leads, 2)
    one.end()
    assert (lease()["holderIdentity"], lease()["leaseDurationSeconds"]) == ("", 1)
    assert one.told == [True, False]
    assert one.elector.trouble == ""


def test_after_a_crash_another_one_leads_when_the_lease_is_over(replica: Callable[..., Replica]) -> None:
    crashed, other = replica("crashed"), replica("other")
    crashed.elector.round()
    assert crashed.elector.leads
    other.start()
    took = seconds_until(lambda: other.elector.leads, 6)
    assert not crashed.elector.leads
    assert QUICK.renew_deadline < took < QUICK.lease + 1.0
    assert other.elector.holder == "other"


def test_a_leader_that_is_cut_off_writes_nothing_after_its_deadline_and_does_not_come_back_by_force(
    replica: Callable[..., Replica], lease: Callable[[], dict[str, Any]], namespace: str
) -> None:
    frozen, other = replica("frozen").start(), replica("other")
    seconds_until(lambda: frozen.elector.leads, 2)
    other.start()
    for one in (frozen, other):
        one.write_all_the_time()
    time.sleep(0.5)
    thaw = threading.Event()
    frozen.proxy.inject(held(thaw), path=LEASES, times=2)
    cut_off = time.monotonic()
    seconds_until(lambda: bool(other.writes), 8)
    assert not frozen.elector.leads
    thaw.set()  # what it sent arrives now, and is too late
    seconds_until(lambda: frozen.elector.holder == "other", 6)
    time.sleep(QUICK.lease)
    assert cut_off < frozen.writes[-1] < cut_off + QUICK.renew_deadline + 0.2
    assert frozen.writes[-1] < other.writes[0], "never did both of them write"
    assert other.writes[-1] > other.writes[0] + QUICK.lease - 0.5
    assert (frozen.told, other.told) == ([True, False], [True])
    assert lease()["leaseTransitions"] == 1


def test_a_lease_that_somebody_deletes_is_made_anew_by_its_holder(
    replica: Callable[..., Replica], lease: Callable[[], dict[str, Any]], api: Api, namespace: str
) -> None:
    one, two = replica("one").start(), replica("two")
    seconds_until(lambda: one.elector.leads, 2)
    two.start()
    seconds_until(lambda: two.elector.holder == "one", 2)
    assert api("DELETE", path_of(namespace)).status == 200
    seconds_until(lambda: api("GET", path_of(namespace)).status == 200, 2)
    seconds_until(lambda: two.elector.holder == "one", 2)
    assert (one.told, two.told) == ([True], [])
    assert lease()["holderIdentity"] == "one"


@pytest.mark.parametrize(
    "nonsense",
    [
        {"holderIdentity": None},
        {"holderIdentity": "", "leaseDurationSeconds": 15},
        {"leaseDurationSeconds": None},
        {"holderIdentity": None, "leaseDurationSeconds": None, "acquireTime": None, "leaseTransitions": None},
    ],
)
def test_nonsense_in_the_lease_is_mended_by_its_holder(
    replica: Callable[..., Replica],
    lease: Callable[[], dict[str, Any]],
    api: Api,
    namespace: str,
    nonsense: dict[str, Any],
) -> None:
    one, two = replica("one").start(), replica("two")
    seconds_until(lambda: one.elector.leads, 2)
    two.start()
    seconds_until(lambda: two.elector.holder == "one", 2)
    assert api("PATCH", path_of(namespace), {"spec": nonsense}, content_type=MERGE).status == 200
    seconds_until(lambda: lease().get("holderIdentity") == "one" and lease().get("leaseDurationSeconds") == 3, 2)
    time.sleep(QUICK.lease)
    assert (one.told, two.told) == ([True], [])


def test_a_lease_that_names_somebody_else_is_obeyed_until_it_is_over(
    replica: Callable[..., Replica], lease: Callable[[], dict[str, Any]], api: Api, namespace: str
) -> None:
    one = replica("one").start()
    seconds_until(lambda: one.elector.leads, 2)
    since = one.elector.since
    api("PATCH", path_of(namespace), {"spec": {"holderIdentity": "a-person"}}, content_type=MERGE)
    seconds_until(lambda: one.told == [True, False], 2)
    assert one.elector.holder == "a-person"
    with pytest.raises(NotLeader, match=r"one does not lead \(a-person does\)"):
        one.elector.fence()
    seconds_until(lambda: one.elector.leads, 6)
    assert lease()["leaseTransitions"] == 1, "what the person did not count is not counted"
    assert one.elector.since != since


FORBIDDEN = {
    "kind": "Status",
    "message": 'leases.coordination.k8s.io "trueup" is forbidden: User "trueup" cannot get resource "leases"',
    "reason": "Forbidden",
    "code": 403,
}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (answer(403, FORBIDDEN), "Grant it in the role of this account"),
        (answer(200, {}), "the answer is not a Lease"),
        (answer(200, "<html>"), "not a JSON object"),
        (answer(503, "down"), "HTTP 503"),
    ],
)
def test_what_keeps_the_election_from_going_on_is_said_and_survived(
    replica: Callable[..., Replica], fault: Fault, words: str
) -> None:
    one = replica("one")
    one.proxy.inject(fault, path=LEASES, times=ALWAYS)
    one.start()
    seconds_until(lambda: words in one.elector.trouble, 2)
    assert not one.elector.leads
    one.proxy._rules.clear()
    seconds_until(lambda: one.elector.leads, 3)
    assert one.elector.trouble == ""


def test_a_namespace_that_is_missing_is_said(server: tuple[Path, str], tmp_path: Path) -> None:
    one = Replica(server[0], tmp_path, "no-such-namespace", "one")
    one.elector.round()
    assert "Create the namespace first" in one.elector.trouble
    one.close()


# --- the fence ---------------------------------------------------------------------------------------------


class Gate:
    """A fence that somebody closes."""

    def __init__(self) -> None:
        self.closed = False
        self.asked = 0

    def __call__(self) -> None:
        self.asked += 1
        if self.closed:
            raise NotLeader("one does not lead")


@pytest.fixture
def proxy(server: tuple[Path, str]) -> Iterator[FaultProxy]:
    with FaultProxy(server[0]) as proxy:
        yield proxy


@pytest.fixture
def gate() -> Gate:
    return Gate()


def config_map(namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a", "namespace": namespace},
        "data": {"k": "v"},
    }


@pytest.fixture
def writer(proxy: FaultProxy, gate: Gate, tmp_path: Path) -> Iterator[Writer]:
    connection = connect(
        str(proxy.kubeconfig(tmp_path / "k")), trusted=True, retry=Retry(base=0.01, pause=lambda _: None)
    )
    yield Writer(connection, gate)
    connection.close()


def test_no_write_passes_a_closed_fence_and_every_read_does(
    writer: Writer, gate: Gate, proxy: FaultProxy, namespace: str
) -> None:
    made = writer.apply(config_map(namespace))
    gate.closed = True
    for write in (
        lambda: writer.apply(config_map(namespace)),
        lambda: writer.create(config_map(namespace)),
        lambda: writer.update(made),
        lambda: writer.delete(object_id(made), uid=made["metadata"]["uid"]),
    ):
        with pytest.raises(NotLeader, match="one does not lead"):
            write()
    assert [proxy.count(method) for method in ("PATCH", "POST", "PUT", "DELETE")] == [1, 0, 0, 0]
    assert writer.get(object_id(made)) == made
    assert writer.predict(config_map(namespace))["data"] == {"k": "v"}
    assert issubclass(NotLeader, ApiError)
    assert not issubclass(NotLeader, Unavailable), "it is not tried again"


def test_the_fence_is_asked_again_before_each_repetition(
    server: tuple[Path, str], gate: Gate, proxy: FaultProxy, namespace: str, tmp_path: Path
) -> None:
    def lose_the_lease(_: float) -> None:
        gate.closed = len(proxy.seen) > 2

    connection = connect(
        str(proxy.kubeconfig(tmp_path / "k")), trusted=True, retry=Retry(base=0.01, pause=lose_the_lease)
    )
    writer = Writer(connection, gate)
    writer.get(ObjectId("v1", "ConfigMap", namespace, "a"))
    proxy.inject(answer(503, "down"), method="PATCH", times=ALWAYS)
    with pytest.raises(NotLeader):
        writer.apply(config_map(namespace))
    assert proxy.count("PATCH") == 1
    assert gate.asked == 2
    connection.close()


def test_the_fence_is_asked_after_the_wait_for_a_turn(
    gate: Gate, proxy: FaultProxy, namespace: str, tmp_path: Path
) -> None:
    connection = connect(str(proxy.kubeconfig(tmp_path / "k")), trusted=True, connections=1)
    writer = Writer(connection, gate)
    writer.get(ObjectId("v1", "ConfigMap", namespace, "a"))
    thaw = threading.Event()
    proxy.inject(held(thaw), method="GET")
    reading = threading.Thread(target=writer.get, args=(ObjectId("v1", "ConfigMap", namespace, "a"),))
    reading.start()
    seconds_until(lambda: connection.in_flight == 1, 2)
    refused: list[NotLeader] = []

    def write() -> None:
        try:
            writer.apply(config_map(namespace))
        except NotLeader as error:
            refused.append(error)

    writing = threading.Thread(target=write)
    writing.start()
    time.sleep(0.1)
    assert gate.asked == 0, "it waits"
    gate.closed = True
    thaw.set()
    for thread in (reading, writing):
        thread.join(5)
    assert refused
    assert proxy.count("PATCH") == 0
    connection.close()
