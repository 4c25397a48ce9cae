"""A peer that is gone without a word: a machine without power, a path that swallows everything, even TCP's own."""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from reconciler.cluster import Cache, Connection, Pace, Reader, Retry, Timeouts, Watched, connect
from reconciler.cluster.access import _keepalive
from tests.contract.client import eventually
from tests.contract.faults import Fault, FaultProxy, answer, drop, stream
from tests.contract.test_cache import until

_SO_ATTACH_FILTER = 26  # of asm-generic/socket.h; Python does not name it
MAPS = Watched("v1", "ConfigMap", "prod")
KINDS = {"resources": [{"name": "configmaps", "kind": "ConfigMap", "namespaced": True, "verbs": ["list", "watch"]}]}
NONE = {"kind": "ConfigMapList", "metadata": {"resourceVersion": "1"}, "items": []}
BOOKMARK = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "2"}}}
GONE = {"kind": "Status", "status": "Failure", "message": "too old resource version", "reason": "Expired", "code": 410}


def deafen(connection: socket.socket) -> None:
    """From now on the kernel throws away whatever comes for a socket before TCP sees it, so that nothing is answered.

    A program alone cannot do that: its kernel answers keepalive for it. This is a filter of one instruction, "take
    nothing" (BPF), as anybody may attach to a socket of their own.
    """
    take_nothing = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    program = struct.pack("HxxxxxxP", 1, ctypes.addressof(take_nothing))
    connection.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def swallow(over: threading.Event) -> Fault:
    """Answers a watch with a bookmark, and is never heard of again."""

    def act(handler: Any, request: bytes) -> None:
        handler.head(200, {"Content-Type": "application/json", "Transfer-Encoding": "chunked"})
        handler.chunk(b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"2"}}}\n')
        time.sleep(0.2)  # until it is acknowledged: what is on its way is sent again and again
        deafen(handler.connection)
        over.wait(60)

    return act


class Watching:
    """A cache behind a scripted server, and why its watch began again."""

    def __init__(self, folder: Path) -> None:
        self.why: Counter[str] = Counter()
        self.over = threading.Event()
        self.stack = ExitStack()
        self.proxy = self.stack.enter_context(FaultProxy())
        self.stack.callback(self.over.set)
        self.kubeconfig = self.proxy.kubeconfig(folder / "kubeconfig")
        self.proxy.inject(answer(200, KINDS), path=r"/api/v1$", times=1000)
        self.proxy.inject(answer(200, NONE), path=r"configmaps\?limit", times=1000)

    def watch(self, *answers: Fault, pace: Pace | None = None, **timeouts: Any) -> Cache:
        """The watch gets these answers, one after the other; the last one stays."""
        for one in answers:
            self.proxy.inject(one, path="watch=true")
        self.proxy.inject(stream(BOOKMARK, then=until(self.over)), path="watch=true", times=1000)
        connection: Connection = connect(
            str(self.kubeconfig), trusted=True, timeouts=Timeouts(**timeouts), retry=Retry(attempts=1)
        )
        quick = pace or Pace(spread=0.0, base=0.01, longest=0.05)
        cache = Cache(Reader(connection), lambda _: None, pace=quick, restarted=lambda why: self.why.update([why]))
        self.stack.callback(connection.close)
        self.stack.callback(cache.close)
        self.stack.callback(self.over.set)
        cache.follow({MAPS})
        return cache

    def watches(self) -> int:
        return self.proxy.count("GET", "watch=true")


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    made = Watching(tmp_path)
    with made.stack:
        yield made


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can be told to swallow a segment")
def test_a_peer_that_swallows_everything_is_noticed_long_before_the_silence_of_a_watch_is(watching: Watching) -> None:
    began = time.monotonic()
    watching.watch(swallow(watching.over), silence=120.0, vanished=5)
    eventually(lambda: watching.watches() == 2, 20)
    assert 2 <= time.monotonic() - began < 12
    assert watching.why == {"silent": 1}


def test_by_default_that_takes_less_than_half_a_minute() -> None:
    options = {option: value for _, option, value in _keepalive(Timeouts().vanished)}
    idle = options.get(getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", -1)), 0)
    assert options[socket.SO_KEEPALIVE] == 1
    assert 10 <= idle + options[socket.TCP_KEEPINTVL] * options[socket.TCP_KEEPCNT] <= 30


def test_both_requests_and_watches_are_kept_alive_so(watching: Watching) -> None:
    connection = connect(str(watching.kubeconfig), trusted=True)
    for pool in (connection._access.pool, connection._access.watch_pool):
        assert pool.conn_kw["socket_options"] == _keepalive(Timeouts().vanished)
    connection.close()


#: How a watch ended -> what is counted.
ENDS: dict[str, tuple[Callable[[], Fault], str]] = {
    "in order, too early": (lambda: stream(BOOKMARK, then=lambda: time.sleep(1.1)), "closed"),
    "by a reset": (lambda: stream(BOOKMARK, then=lambda: time.sleep(1.1), end=False), "error"),
    "before it began": (drop, "error"),
    "refused": (lambda: answer(403, b"no"), "error"),
    "as its place is forgotten": (lambda: answer(410, GONE), "expired"),
    "as its place is forgotten in the stream": (lambda: stream({"type": "ERROR", "object": GONE}), "expired"),
}


@pytest.mark.parametrize("how", ENDS)
def test_each_restart_of_a_watch_is_counted_by_its_reason(watching: Watching, how: str) -> None:
    fault, reason = ENDS[how]
    cache = watching.watch(fault())
    eventually(lambda: watching.watches() == 2)
    eventually(lambda: cache.is_complete(MAPS))
    assert watching.why == {reason: 1}


def test_a_silent_stream_is_counted_as_one(watching: Watching) -> None:
    watching.watch(stream(BOOKMARK, then=until(watching.over)), silence=0.3)
    eventually(lambda: watching.watches() == 2)
    assert watching.why["silent"] >= 1
    assert set(watching.why) == {"silent"}


def test_the_end_of_its_life_is_a_renewal(watching: Watching) -> None:
    """The server ends a stream when it was asked to."""
    pace = Pace(spread=0.0, base=0.01, longest=0.05, renewal=0.6)
    watching.watch(stream(BOOKMARK, then=lambda: time.sleep(1.3)), pace=pace)
    eventually(lambda: watching.watches() >= 2)
    assert watching.why == {"renewed": 1}


def test_an_end_that_we_want_is_no_restart(watching: Watching) -> None:
    cache = watching.watch()
    eventually(lambda: cache.is_complete(MAPS))
    cache.follow(set())
    assert watching.why == {}
