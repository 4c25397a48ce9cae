"""The reconciler's two ports, asked over real sockets by good and bad clients."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import logging
import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from reconciler.telling.metrics import CONTENT_TYPE
from reconciler.web.server import Limits, Telling, Web, Webhook

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SECRET = b"it-is-a-secret"
FAST = Limits(seconds=1)


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]  #: lower-case names
    body: bytes


@dataclass
class Reconciler:
    """What the ports ask: as a daemon answers it, and to be changed by a test."""

    healthy: bool = True
    is_ready: bool = True
    page: bytes = b"<!doctype html><title>Trueup</title>"
    secrets: list[bytes] = field(default_factory=lambda: [SECRET])
    pushes: int = 0
    heard: list[str] = field(default_factory=list)
    busy: threading.Event = field(default_factory=threading.Event)
    goes_on: threading.Event = field(default_factory=threading.Event)

    def metrics(self) -> bytes:
        raise RuntimeError("a secret that no client may see")

    def pushed(self) -> None:
        self.pushes += 1

    def slow_page(self, query: str) -> bytes:
        self.busy.set()
        assert self.goes_on.wait(10)
        return self.page

    def telling(self) -> Telling:
        return Telling(
            address="127.0.0.1:0",
            health=lambda: (self.healthy, "the loops turn" if self.healthy else "the conductor is stuck"),
            ready=lambda: (self.is_ready, "the cache is complete" if self.is_ready else "2 of 5 caches are complete"),
            metrics=lambda: b"trueup_leader 1.0\n",
            page=lambda query: self.page + query.encode(),
            policy="default-src 'none'; style-src 'sha256-abc'; frame-ancestors 'none'",
        )

    def webhook(self) -> Webhook:
        return Webhook(
            address="127.0.0.1:0",
            repository="https://git.example/acme/specs.git",
            branch="main",
            secrets=lambda: self.secrets,
            pushed=self.pushed,
            clock=lambda: NOW,
            heard=self.heard.append,
        )


@contextmanager
def serving(telling: Telling, webhook: Webhook | None = None, limits: Limits | None = None) -> Iterator[list[int]]:
    web = Web(telling, webhook, limits)
    web.start()
    try:
        yield web.ports
    finally:
        web.stop()


@pytest.fixture
def reconciler() -> Reconciler:
    return Reconciler()


@pytest.fixture
def ports(reconciler: Reconciler) -> Iterator[list[int]]:
    with serving(reconciler.telling(), reconciler.webhook(), FAST) as ports:
        yield ports


def ask(
    port: int, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Reply:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


_deliveries = count()


def push(ref: str = "refs/heads/main", secret: bytes = SECRET, size: int = 0, **headers: str) -> tuple[Any, ...]:
    """The arguments of `ask` for a push as GitHub sends it, of at least `size` bytes."""
    payload = {"ref": ref, "repository": {"full_name": "acme/specs"}, "commits": ""}
    payload["commits"] = "x" * (size - len(json.dumps(payload)))
    body = json.dumps(payload).encode()
    signature = hmac.new(secret, body, hashlib.sha256).hexdigest()
    own = {
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": f"d-{next(_deliveries)}",
        "X-Hub-Signature-256": f"sha256={signature}",
        "Content-Type": "application/json",
    }
    return "POST", "/webhook", body, own | {name.replace("_", "-"): value for name, value in headers.items()}


def raw(port: int, request: bytes, timeout: float = 10) -> bytes:
    """Everything that comes back until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


# -- how it is --


def test_health_and_readiness_are_told_with_their_reasons(reconciler: Reconciler, ports: list[int]) -> None:
    assert ask(ports[0], "GET", "/healthz")[::2] == (200, b"the loops turn\n")
    assert ask(ports[0], "GET", "/readyz?verbose")[::2] == (200, b"the cache is complete\n")
    reconciler.healthy = reconciler.is_ready = False
    assert ask(ports[0], "GET", "/healthz")[::2] == (503, b"the conductor is stuck\n")
    assert ask(ports[0], "GET", "/readyz")[::2] == (503, b"2 of 5 caches are complete\n")


def test_metrics_are_served_as_prometheus_reads_them(ports: list[int]) -> None:
    reply = ask(ports[0], "GET", "/metrics")
    assert (reply.status, reply.body) == (200, b"trueup_leader 1.0\n")
    assert reply.headers["content-type"] == CONTENT_TYPE


def test_the_page_is_served_with_its_own_policy(reconciler: Reconciler, ports: list[int]) -> None:
    reply = ask(ports[0], "GET", "/")
    assert (reply.status, reply.body) == (200, reconciler.page)
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["content-security-policy"] == reconciler.telling().policy
    assert reply.headers["referrer-policy"] == "no-referrer"


def test_without_a_policy_of_its_own_a_page_may_nothing(reconciler: Reconciler) -> None:
    telling = reconciler.telling()
    plain = Telling(telling.address, telling.health, telling.ready, telling.metrics, telling.page)
    with serving(plain) as [port]:
        policy = ask(port, "GET", "/").headers["content-security-policy"]
    assert policy == "default-src 'none'; frame-ancestors 'none'"


def test_the_page_gets_the_query(reconciler: Reconciler, ports: list[int]) -> None:
    assert ask(ports[0], "GET", "/?model=churn&page=2").body == reconciler.page + b"model=churn&page=2"


def test_without_a_page_there_is_none(reconciler: Reconciler) -> None:
    with serving(replace(reconciler.telling(), page=None)) as [port]:
        assert ask(port, "GET", "/").status == 404
        assert ask(port, "GET", "/healthz").status == 200


@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics", "/nothing"])
def test_head_is_get_without_the_body(ports: list[int], path: str) -> None:
    got, headed = ask(ports[0], "GET", path), ask(ports[0], "HEAD", path)
    assert headed.status == got.status
    assert headed.body == b""
    ignored = {"date", "connection"}
    assert {k: v for k, v in headed.headers.items() if k not in ignored} == {
        k: v for k, v in got.headers.items() if k not in ignored
    }


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_the_telling_port_is_only_read(ports: list[int], method: str) -> None:
    reply = ask(ports[0], method, "/healthz")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/healthz/", "/webhook", "/%2e%2e/etc/passwd", "/index.html", "/%00"])
def test_an_unknown_path_is_not_found(ports: list[int], path: str) -> None:
    assert ask(ports[0], "GET", path).status == 404


def test_each_answer_is_for_now_and_for_nobody_in_between(ports: list[int]) -> None:
    for port, path in ((0, "/"), (0, "/healthz"), (0, "/nothing"), (1, "/webhook")):
        headers = ask(ports[port], "GET", path).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


def test_what_goes_wrong_inside_stays_inside(reconciler: Reconciler, caplog: pytest.LogCaptureFixture) -> None:
    with serving(replace(reconciler.telling(), metrics=reconciler.metrics)) as [port]:
        reply = ask(port, "GET", "/metrics")
        assert reply.status == 500
        assert not re.search(rb"secret|Traceback|File|waitress|python", reply.body, re.IGNORECASE)
        assert "server" not in reply.headers
        assert ask(port, "GET", "/healthz").status == 200
    assert "a secret that no client may see" in caplog.text


# -- webhooks --


def test_a_push_wakes_the_reconciler(reconciler: Reconciler, ports: list[int]) -> None:
    assert ask(ports[1], *push())[::2] == (202, b"Accepted\n")
    assert (reconciler.pushes, reconciler.heard) == (1, ["pushed"])


def test_a_push_that_is_sent_again_does_not(reconciler: Reconciler, ports: list[int]) -> None:
    again = push()
    assert [ask(ports[1], *again).status for _ in range(3)] == [202, 200, 200]
    assert (reconciler.pushes, reconciler.heard) == (1, ["pushed", "ignored", "ignored"])


def test_a_ping_and_a_push_elsewhere_are_answered_and_ignored(reconciler: Reconciler, ports: list[int]) -> None:
    assert ask(ports[1], *push(X_GitHub_Event="ping")).status == 200
    assert ask(ports[1], *push("refs/heads/other")).status == 200
    assert (reconciler.pushes, reconciler.heard) == (0, ["ignored", "ignored"])


def test_a_refusal_tells_the_sender_nothing_and_the_log_why(
    reconciler: Reconciler, ports: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    replies = [
        ask(ports[1], *push(secret=b"guess")),
        ask(ports[1], "POST", "/webhook", b"{}"),
        ask(ports[1], *push(X_Hub_Signature_256="sha1=0", X_GitHub_Event="")),
    ]
    reconciler.secrets = []
    replies.append(ask(ports[1], *push()))
    assert {reply[::2] for reply in replies} == {(403, b"Forbidden\n")}
    assert reconciler.pushes == 0
    assert reconciler.heard == ["refused"] * 4
    told = [record.fields for record in caplog.records if record.levelno == logging.WARNING]  # type: ignore[attr-defined] # our own extra
    assert [fields["source"] for fields in told] == ["127.0.0.1"] * 4
    assert "fits none of the secrets (1)" in told[0]["reason"]
    assert "none of the headers" in told[1]["reason"]
    assert told[3]["reason"] == "no webhook secret is configured"
    assert SECRET.decode() not in caplog.text


def test_secrets_are_asked_for_each_time(reconciler: Reconciler, ports: list[int]) -> None:
    reconciler.secrets = [b"new"]
    assert ask(ports[1], *push()).status == 403
    assert ask(ports[1], *push(secret=b"new")).status == 202


def test_the_webhook_port_takes_posts_to_one_path_and_tells_nothing(ports: list[int]) -> None:
    reply = ask(ports[1], "GET", "/webhook")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert [ask(ports[1], "GET", path).status for path in ("/", "/healthz", "/metrics")] == [404, 404, 404]
    assert ask(ports[0], *push()).status == 404


def test_a_push_of_a_mebibyte_is_read_and_no_disk_is_touched(
    ports: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "read-only"))  # a file there cannot be made
    assert ask(ports[1], *push(size=1 << 20)).status == 202


def test_a_larger_one_is_refused_before_it_is_sent(reconciler: Reconciler, ports: list[int]) -> None:
    for size in ((1 << 20) + 1, 100 << 20, 10**30):
        head = f"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
        assert raw(ports[1], head).startswith(b"HTTP/1.1 413 ")
    assert reconciler.heard == []


def test_one_that_does_not_say_how_large_it_is_ends_at_the_limit(reconciler: Reconciler, ports: list[int]) -> None:
    head = b"POST /webhook HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    sent = 0
    with socket.create_connection(("127.0.0.1", ports[1]), 10) as connection:
        connection.sendall(head)
        with suppress(ConnectionError):
            while sent < 100 << 20:
                connection.sendall(piece)
                sent += len(piece)
    assert sent < 8 << 20  # what the kernel's buffers hold goes beyond the limit
    assert reconciler.heard == []


def test_a_chunked_push_is_read(ports: list[int]) -> None:
    method, path, body, headers = push()
    pieces = [body[:10], body[10:]]
    with closing(http.client.HTTPConnection("127.0.0.1", ports[1], timeout=10)) as connection:
        connection.request(method, path, iter(pieces), headers, encode_chunked=True)
        assert connection.getresponse().status == 202


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ((b"GET /webhook HTTP/1.1\r\nX: ".ljust((16 << 10) - 4, b"a") + b"\r\n\r\n"), 431),
        (b"POST /webhook HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /webhook HTTP/1.1\r\nContent-Length: 1, 2\r\n\r\nab", 400),
        (b"POST /webhook HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST /webhook HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"get /webhook HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA b: c\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_is_refused_and_closed(ports: list[int], request_: bytes, status: int) -> None:
    answer = raw(ports[1], request_)
    assert re.match(rb"HTTP/1\.[01] %d " % status, answer), answer[:200]
    assert b"waitress" not in answer
    assert b"Traceback" not in answer


def test_an_address_that_cannot_be_read_closes_the_connection_and_fills_no_log(
    ports: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    assert raw(ports[1], b"POST http://[bad/ HTTP/1.1\r\n\r\n") == b""
    assert caplog.records == []
    assert ask(ports[1], *push()).status == 202


# -- too much of it --


def test_more_requests_than_the_rate_are_told_to_come_later(reconciler: Reconciler) -> None:
    limits = Limits(rate=1, burst=3)
    with serving(reconciler.telling(), reconciler.webhook(), limits) as [telling, webhook]:
        taken = 0
        while (reply := ask(webhook, *push())).status == 202:
            taken += 1
        assert taken >= 3
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")
        assert ask(telling, "GET", "/healthz").status == 200
        limited = reconciler.heard.count("limited")
        while ask(webhook, *push()).status == 429:
            limited += 1
            time.sleep(0.1)
    assert reconciler.pushes == taken + 1
    assert reconciler.heard.count("limited") == limited


def closed_after(port: int, pieces: Iterator[bytes], pause: float) -> float:
    """Seconds until the server closes the connection of a client that sends a piece now and then."""
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.settimeout(pause)
        while time.monotonic() - begun < 20:
            try:
                connection.sendall(next(pieces, b""))
                if connection.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        return time.monotonic() - begun


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"P"] * 1000,
        [b"POST /webhook HTTP/1.1\r\n", *[b"X: y\r\n"] * 1000],
        [b"POST /webhook HTTP/1.1\r\nContent-Length: 1000\r\n\r\n", *[b"x"] * 1000],
        [b"POST /webhook HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"1\r\nx\r\n"] * 1000],
    ],
    ids=["nothing", "letters", "headers", "body", "chunks"],
)
def test_a_client_that_takes_its_time_is_cut_off(ports: list[int], pieces: list[bytes]) -> None:
    """The limit is one second here; the server looks once a second."""
    assert closed_after(ports[1], iter(pieces), 0.1) < 10


def test_a_connection_that_is_used_stays_open(ports: list[int]) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", ports[0], timeout=10)) as connection:
        for _ in range(4):
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b"the loops turn\n"
            held = connection.sock
            time.sleep(0.5)
            assert connection.sock is held


def test_whoever_holds_all_connections_of_the_webhook_port_holds_nothing_else(reconciler: Reconciler) -> None:
    limits = Limits(connections=4, seconds=1)
    with serving(reconciler.telling(), reconciler.webhook(), limits) as [telling, webhook]:
        held = [socket.create_connection(("127.0.0.1", webhook), 10) for _ in range(5)]
        time.sleep(0.2)
        assert ask(telling, "GET", "/healthz").status == 200
        assert ask(webhook, *push()).status == 202  # when those before have been cut off
        for connection in held:
            connection.close()


def test_a_page_that_takes_its_time_does_not_hold_up_the_probes(reconciler: Reconciler) -> None:
    with serving(replace(reconciler.telling(), page=reconciler.slow_page), limits=Limits(threads=2)) as [port]:
        reader = threading.Thread(target=ask, args=(port, "GET", "/"))
        reader.start()
        assert reconciler.busy.wait(5)
        assert ask(port, "GET", "/healthz").status == 200
        reconciler.goes_on.set()
        reader.join()


# -- beginning and end --


def test_stopping_answers_what_is_being_answered(reconciler: Reconciler) -> None:
    web = Web(replace(reconciler.telling(), page=reconciler.slow_page))
    web.start()
    replies: list[Reply] = []
    reader = threading.Thread(target=lambda: replies.append(ask(web.ports[0], "GET", "/")))
    reader.start()
    assert reconciler.busy.wait(5)
    threading.Timer(0.2, reconciler.goes_on.set).start()
    web.stop()
    reader.join()
    assert [reply[::2] for reply in replies] == [(200, reconciler.page)]


def test_stopping_is_quick_leaves_nothing_behind_and_may_be_repeated(reconciler: Reconciler) -> None:
    before = set(threading.enumerate())
    web = Web(reconciler.telling(), reconciler.webhook())
    web.start()
    held = socket.create_connection(("127.0.0.1", web.ports[1]), 10)
    assert ask(web.ports[0], "GET", "/healthz").status == 200
    begun = time.monotonic()
    web.stop()
    web.stop()
    assert time.monotonic() - begun < 8
    assert held.recv(1) == b""
    held.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive(), thread.name
    for port in web.ports:
        with pytest.raises(ConnectionRefusedError):
            ask(port, "GET", "/healthz")


def test_a_port_that_is_taken_is_named_and_the_other_one_is_given_back(reconciler: Reconciler) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        web = Web(reconciler.telling(), replace(reconciler.webhook(), address=address))
        with pytest.raises(OSError, match="cannot listen at") as refused:
            web.start()
        advice = "another program listens there; choose another one with --webhook-address"
        assert str(refused.value) == f"cannot listen at {address}: {advice}"
        with pytest.raises(ConnectionRefusedError):
            ask(web.ports[0], "GET", "/healthz")


@pytest.mark.parametrize("address", ["", "8080", "localhost", "127.0.0.1:http", "127.0.0.1:70000", ":-1", ":٨"])
def test_what_is_no_address_is_said(reconciler: Reconciler, address: str) -> None:
    with pytest.raises(ValueError, match="is no address to listen at: write host:port"):
        Web(replace(reconciler.telling(), address=address)).start()


def test_without_a_host_it_listens_everywhere(reconciler: Reconciler) -> None:
    with serving(replace(reconciler.telling(), address=":0")) as [port]:
        assert ask(port, "GET", "/healthz").status == 200
        if socket.has_dualstack_ipv6():
            with closing(http.client.HTTPConnection("::1", port, timeout=10)) as connection:
                connection.request("GET", "/healthz")
                assert connection.getresponse().status == 200
