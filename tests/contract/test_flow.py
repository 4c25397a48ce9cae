"""A connection to a server that is busy, slow, silent or away: what is asked of it, and how long its callers wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from reconciler.cluster import Connection, Reader, Retry, Timeouts, Unavailable, Writer, connect
from renderers.manifest import ObjectId
from tests.contract.faults import Fault, FaultProxy, answer, drop

ALWAYS = 10**6
VERSION = "/version"


class Clock:
    """Time that passes by itself; a pause between tries passes at once."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return time.monotonic() + self.ahead

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.ahead += seconds


def silent(until: threading.Event) -> Fault:
    """Accept the request, and never answer."""

    def act(handler: Any, request: bytes) -> None:
        until.wait(30)
        handler.reset()

    return act


def slow(seconds: float) -> Fault:
    def act(handler: Any, request: bytes) -> None:
        time.sleep(seconds)
        response = handler.ask_upstream(request)
        handler.reply(response.status, {"Content-Type": "application/json"}, response.read())

    return act


@pytest.fixture
def proxy(server: tuple[Path, str]) -> Iterator[FaultProxy]:
    with FaultProxy(server[0]) as proxy:
        yield proxy


@pytest.fixture
def reach(tmp_path: Path) -> Iterator[Callable[..., Connection]]:
    made: list[Connection] = []

    def make(proxy: FaultProxy, **options: Any) -> Connection:
        path = str(proxy.kubeconfig(tmp_path / f"kubeconfig-{uuid4()}"))
        made.append(connect(path, trusted=True, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_429_halves_what_is_asked_at_a_time_and_successes_bring_it_back(
    proxy: FaultProxy, reach: Callable[..., Connection]
) -> None:
    connection = reach(proxy, retry=Retry(base=0.01))
    reader = Reader(connection)
    assert connection.limit == 8
    proxy.inject(answer(429, "too many"), path=VERSION)
    reader.version()
    assert connection.limit == 4
    proxy.inject(slow(0.005), path=VERSION, times=ALWAYS)
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda _: reader.version(), range(100)))
    assert connection.limit >= 8
    assert connection.in_flight == 0


def test_more_is_asked_of_a_server_whose_answers_do_not_slow_down(
    proxy: FaultProxy, reach: Callable[..., Connection]
) -> None:
    connection = reach(proxy)
    reader = Reader(connection)
    proxy.inject(slow(0.05), path=VERSION, times=ALWAYS)  # a way that is long, and a server that is idle
    reader.version()
    with ThreadPoolExecutor(32) as threads:
        list(threads.map(lambda _: reader.version(), range(300)))
    assert connection.limit > 12
    assert proxy.connections <= 32


def test_nothing_is_asked_by_anybody_while_the_server_wants_to_be_left_alone(
    proxy: FaultProxy, reach: Callable[..., Connection]
) -> None:
    connection = reach(proxy, retry=Retry(base=0.01))
    reader = Reader(connection)
    reader.version()
    proxy.inject(answer(429, "too many", Retry_After="1"), path=VERSION)
    began = time.monotonic()
    threads = [threading.Thread(target=reader.version)]
    threads[0].start()
    while proxy.count("GET", VERSION) < 2:
        time.sleep(0.001)
    time.sleep(0.05)
    threads += [threading.Thread(target=reader.version) for _ in range(6)]
    for thread in threads[1:]:
        thread.start()
    time.sleep(0.5)
    assert proxy.count("GET", VERSION) == 2
    for thread in threads:
        thread.join(5)
    assert time.monotonic() - began >= 1.0
    assert proxy.count("GET", VERSION) == 2 + 7


def test_a_server_that_accepts_and_never_answers_holds_up_its_first_callers_only(
    proxy: FaultProxy, reach: Callable[..., Connection]
) -> None:
    clock, over = Clock(), threading.Event()
    connection = reach(proxy, timeouts=Timeouts(answer=0.5), retry=Retry(attempts=3, clock=clock, pause=clock.pause))
    reader = Reader(connection)
    proxy.inject(silent(over), times=ALWAYS)
    with pytest.raises(Unavailable, match="no answer in time"):
        reader.version()
    clock.ahead += 10
    with pytest.raises(Unavailable, match="no answer in time"):
        reader.version()  # the second in a row, over ten seconds: it is given up
    seen, began = len(proxy.seen), time.monotonic()
    words = r"is not reachable \(no answer in time\); a request at a time looks whether it is back\. The next pass"
    for _ in range(200):
        with pytest.raises(Unavailable, match=words) as caught:
            reader.version()
        assert not caught.value.maybe_done
        assert caught.value.retry_after > 0
    assert time.monotonic() - began < 0.5
    assert len(proxy.seen) == seen
    over.set()


def given_up(proxy: FaultProxy, reach: Callable[..., Connection], clock: Clock) -> tuple[Connection, Reader]:
    """A connection to a server that resets every connection, for long enough to be given up."""
    connection = reach(proxy, retry=Retry(clock=clock, pause=clock.pause, jitter=lambda: 1.0))
    reader = Reader(connection)
    proxy.inject(drop(), times=ALWAYS)
    with pytest.raises(Unavailable, match="the connection broke"):
        reader.version()
    with pytest.raises(Unavailable, match="is not reachable"):
        reader.version()
    return connection, reader


def test_one_request_has_all_its_tries_against_a_dead_server_whatever_the_breaker_thinks(
    proxy: FaultProxy, reach: Callable[..., Connection]
) -> None:
    clock = Clock()
    given_up(proxy, reach, clock)
    assert len(proxy.seen) == 6
    assert len(clock.pauses) == 5


def test_one_probe_at_a_time_is_sent_when_it_is_due_and_its_success_lets_everybody_in(
    proxy: FaultProxy, reach: Callable[..., Connection]
) -> None:
    clock = Clock()
    connection, reader = given_up(proxy, reach, clock)
    tried = len(proxy.seen)
    clock.ahead += 60
    with pytest.raises(Unavailable, match="the connection broke"):
        reader.version()
    with pytest.raises(Unavailable, match="is not reachable") as refused:
        reader.version()
    assert 14 < refused.value.retry_after <= 15
    assert len(proxy.seen) == tried + 1, "the probe has one try"
    assert connection.unreachable_since is not None
    clock.ahead += 16
    proxy._rules.clear()
    proxy.inject(slow(0.3))
    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(lambda _: _outcome(reader), range(8)))
    assert outcomes.count("answered") == 1
    assert len(proxy.seen) == tried + 2
    assert {outcome for outcome in outcomes if "a request at a time looks" not in outcome} == {"answered"}
    assert reader.version()
    assert connection.unreachable_since is None


def _outcome(reader: Reader) -> str:
    try:
        reader.version()
    except Unavailable as error:
        return str(error)
    return "answered"


def test_a_server_that_restarts_within_seconds_fails_nobody(
    proxy: FaultProxy, reach: Callable[..., Connection], namespace: str
) -> None:
    connection = reach(proxy, retry=Retry(base=0.1, jitter=lambda: 1.0))
    writer = Writer(connection)
    writer.get(ObjectId("v1", "ConfigMap", namespace, "a"))
    proxy.inject(drop(), method="PATCH", times=ALWAYS)
    threading.Timer(1.5, proxy._rules.clear).start()

    def write(number: int) -> Any:
        metadata = {"name": f"c-{number}", "namespace": namespace}
        return writer.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {}})

    with ThreadPoolExecutor(16) as threads:
        assert len(list(threads.map(write, range(64)))) == 64
    assert connection.unreachable_since is None


def test_errors_about_an_object_are_no_outage(
    proxy: FaultProxy, reach: Callable[..., Connection], namespace: str
) -> None:
    clock = Clock()
    reader = Reader(reach(proxy, retry=Retry(clock=clock, pause=clock.pause)))
    target = ObjectId("v1", "ConfigMap", namespace, "a")
    reader.get(target)
    proxy.inject(answer(503, "the aggregated API is down"), path="/configmaps/", times=ALWAYS)
    for _ in range(3):
        clock.ahead += 10
        with pytest.raises(Unavailable, match="HTTP 503"):
            reader.get(target)
    assert reader.version()


def test_a_watch_of_a_server_that_was_given_up_waits_for_the_next_look(
    proxy: FaultProxy, reach: Callable[..., Connection], namespace: str
) -> None:
    clock = Clock()
    connection = reach(proxy, retry=Retry(clock=clock, pause=clock.pause, jitter=lambda: 1.0))
    reader = Reader(connection)
    listing = reader.list("v1", "ConfigMap", namespace=namespace)
    proxy.inject(drop(), times=ALWAYS)
    for _ in range(2):
        with pytest.raises(Unavailable):
            reader.version()
    tried = len(proxy.seen)
    with pytest.raises(Unavailable):
        list(
            reader.watch(
                "v1", "ConfigMap", namespace=namespace, resource_version=listing.resource_version, timeout_s=600
            )
        )
    assert 0 < len(proxy.seen) - tried <= 5


def test_every_exchange_is_told_with_verb_code_and_seconds(
    proxy: FaultProxy, reach: Callable[..., Connection], namespace: str
) -> None:
    connection = reach(proxy, retry=Retry(base=0.001))
    told: list[tuple[str, int, float]] = []
    connection.observe = lambda verb, code, seconds: told.append((verb, code, seconds))
    reader = Reader(connection)
    proxy.inject(answer(503, "down"), path=VERSION)
    proxy.inject(drop(), path=VERSION)
    proxy.inject(slow(0.1), path=VERSION)
    reader.version()
    assert [(verb, code) for verb, code, _ in told] == [("GET", 503), ("GET", 0), ("GET", 200)]
    assert 0.1 <= told[-1][2] < 1.0
    told.clear()
    assert reader.get(ObjectId("v1", "ConfigMap", namespace, "missing")) is None
    listing = reader.list("v1", "ConfigMap", namespace=namespace)
    list(reader.watch("v1", "ConfigMap", namespace=namespace, resource_version=listing.resource_version, timeout_s=1))
    assert [(verb, code) for verb, code, _ in told] == [("GET", 200), ("GET", 404), ("GET", 200), ("WATCH", 200)]
