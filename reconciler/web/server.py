"""The two ports of the reconciler: one tells how it is, the other takes webhooks.

Each is a server of its own (waitress) with its own connections and threads, so that whoever floods the webhook port,
which may face the internet, takes nothing from the probes. Nothing that comes in costs more than `Limits` says, before
anything is known of who sends it: no request is spooled to a disk, and one that arrives too slowly is cut off.

There is no TLS and no login here: a gateway in front has the one, and the page shows what the cluster's readers may
know. What goes wrong inside is in the log; the answer says "500" and nothing else.
"""

from __future__ import annotations

import errno
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple, TypeAlias
from wsgiref.types import StartResponse, WSGIEnvironment

from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer, create_server

from reconciler.telling.logs import Log
from reconciler.web.webhooks import Deliveries, Ignored, Pushed, judge

log = Log(__name__)


class Limits(NamedTuple):
    """What strangers may cost."""

    #: Bytes of a webhook's body. Bitbucket sends at most 256 KiB. GitHub sends up to 25 MB, of which we need two words;
    #: a push of so many files is refused and found by the next poll, and `connections` such bodies fit into memory.
    body: int = 1 << 20
    #: Bytes of a request's first line and headers.
    header: int = 16 << 10
    #: Open connections of one port; more wait in the kernel.
    connections: int = 32
    #: Seconds until a request must have arrived whole, and until a connection without one is closed.
    seconds: int = 10
    #: Webhook requests a second, of all senders together, and how many may come at once.
    rate: float = 10.0
    burst: int = 50
    #: Requests that one port answers at the same time.
    threads: int = 4


@dataclass(frozen=True, slots=True)
class Telling:
    """What is asked about the reconciler. `health` and `ready` say whether, and a sentence that strangers may see.

    An address is `host:port`; without a host it is every address of this machine, IPv4 and IPv6.
    """

    address: str
    health: Callable[[], tuple[bool, str]]  #: GET /healthz: 200 or 503. Not healthy: restart me
    ready: Callable[[], tuple[bool, str]]  #: GET /readyz: 200 or 503
    metrics: Callable[[], bytes]  #: GET /metrics, in Prometheus' text format
    page: Callable[[str], bytes] | None = None  #: GET /, of a query string without "?": HTML in UTF-8
    policy: str = "default-src 'none'; frame-ancestors 'none'"  #: the page's Content-Security-Policy


@dataclass(frozen=True, slots=True)
class Webhook:
    """Who wants to know of pushes to which branch: POST /webhook.

    `secrets` is called for each request, so that they can be replaced while this runs. `heard` is told what became of
    a request, to be counted: "pushed", "ignored", "refused" or "limited".
    """

    address: str
    repository: str
    branch: str
    secrets: Callable[[], Sequence[bytes]]
    pushed: Callable[[], None]  #: called by several threads; must return at once
    clock: Callable[[], datetime]
    heard: Callable[[str], None]


class Web:
    """Both ports, or the first alone."""

    def __init__(self, telling: Telling, webhook: Webhook | None = None, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self._listeners = [_Listener("--address", telling.address, _telling(telling), limits)]
        if webhook:
            app = _webhook(webhook, limits)
            self._listeners.append(_Listener("--webhook-address", webhook.address, app, limits))

    def start(self) -> None:
        """Returns when both listen. Raises ValueError for what is no address, OSError where one cannot be had."""
        try:
            for listener in self._listeners:
                listener.start()
        except (OSError, ValueError):
            self.stop()
            raise

    def stop(self) -> None:
        """Answers what is being answered, for at most five seconds, and closes everything. Harmless when repeated."""
        for listener in self._listeners:
            listener.stop()

    @property
    def ports(self) -> list[int]:
        """Where it listens: the telling port, and the webhook port if there is one."""
        return [listener.port for listener in self._listeners]


# -- what is answered --


class _Answer(NamedTuple):
    status: HTTPStatus
    body: bytes = b""
    headers: Mapping[str, str] = {}


_Route: TypeAlias = Callable[[WSGIEnvironment], _Answer]
_App: TypeAlias = Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]


def _telling(telling: Telling) -> _App:
    def said(question: Callable[[], tuple[bool, str]], _: WSGIEnvironment) -> _Answer:
        good, sentence = question()
        return _Answer(HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE, f"{sentence}\n".encode())

    def metrics(_: WSGIEnvironment) -> _Answer:
        return _Answer(HTTPStatus.OK, telling.metrics(), {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    def page(environ: WSGIEnvironment) -> _Answer:
        if telling.page is None:
            return _Answer(HTTPStatus.NOT_FOUND)
        headers = {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": telling.policy,
            "Referrer-Policy": "no-referrer",
        }
        return _Answer(HTTPStatus.OK, telling.page(environ["QUERY_STRING"]), headers)

    health, ready = partial(said, telling.health), partial(said, telling.ready)
    return _app("GET", {"/healthz": health, "/readyz": ready, "/metrics": metrics, "/": page})


def _webhook(webhook: Webhook, limits: Limits) -> _App:
    deliveries, bucket = Deliveries(), _Bucket(limits.rate, limits.burst)

    def hook(environ: WSGIEnvironment) -> _Answer:
        if not bucket.take(time.monotonic()):
            webhook.heard("limited")
            return _Answer(HTTPStatus.TOO_MANY_REQUESTS, headers={"Retry-After": "1"})
        now = webhook.clock()
        judgement = judge(
            _headers(environ),
            environ["wsgi.input"].read(),
            secrets=webhook.secrets(),
            repository=webhook.repository,
            branch=webhook.branch,
            now=now,
            deliveries=deliveries,
        )
        source = environ.get("REMOTE_ADDR", "")
        match judgement:
            case Pushed(delivery):
                webhook.pushed()
                deliveries.remember(delivery, now)
                log.info("a webhook says that the branch has moved", source=source, delivery=delivery)
                webhook.heard("pushed")
                return _Answer(HTTPStatus.ACCEPTED)
            case Ignored(reason):
                log.info("a webhook was ignored", source=source, reason=reason)
                webhook.heard("ignored")
                return _Answer(HTTPStatus.OK)
        log.warning("a webhook was refused", source=source, status=judgement.status, reason=judgement.reason)
        webhook.heard("refused")
        return _Answer(HTTPStatus(judgement.status))

    return _app("POST", {"/webhook": hook})


def _headers(environ: WSGIEnvironment) -> dict[str, str]:
    names = ((name.removeprefix("HTTP_"), value) for name, value in environ.items() if name.startswith("HTTP_"))
    headers = {name.replace("_", "-").lower(): value for name, value in names}
    return headers | {"content-type": environ.get("CONTENT_TYPE", "")}


def _app(method: str, routes: Mapping[str, _Route]) -> _App:
    """A WSGI application of which every path takes one method (and HEAD where that is GET)."""
    methods = {"GET": ("GET", "HEAD")}.get(method, (method,))

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        route = routes.get(environ["PATH_INFO"])
        if route is None:
            answer = _Answer(HTTPStatus.NOT_FOUND)
        elif environ["REQUEST_METHOD"] not in methods:
            answer = _Answer(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(methods)})
        else:
            answer = route(environ)
        status, body = answer.status, answer.body or f"{answer.status.phrase}\n".encode()
        headers = {
            "Content-Type": "text/plain; charset=utf-8",
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            **answer.headers,
            "Content-Length": str(len(body)),
        }
        start_response(f"{status.value} {status.phrase}", list(headers.items()))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    return app


@dataclass(slots=True)
class _Bucket:
    """A token bucket: `burst` requests at once, and `rate` a second in the long run."""

    rate: float
    burst: float
    _tokens: float = field(init=False)
    _filled: float = field(default=0.0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._tokens = self.burst

    def take(self, now: float) -> bool:
        """Whether another one may pass. `now`: seconds of a clock that never goes back."""
        with self._lock:
            self._tokens = min(self.burst, self._tokens + (now - self._filled) * self.rate)
            self._filled = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


# -- how it is served --


class _Channel(HTTPChannel):
    """A connection on which a request must arrive whole within the limit, counted from its first byte.

    waitress counts from the last byte, so that a client which sends one now and then keeps its place for ever. And an
    address that `urlsplit` raises for, http://[, would be an error in the log, as often as strangers like.
    """

    _begun = 0.0

    def received(self, data: bytes) -> bool:
        before = self.request
        try:
            result: bool = super().received(data)
        except ValueError:
            self.will_close = True
            return False
        if self.request is not before:
            self._begun = self.last_activity
        if self.request is not None:
            self.last_activity = self._begun
        return result


class _Listener:
    """One port: a thread that reads and writes, and a few that answer. `option` is what its address is given by."""

    def __init__(self, option: str, address: str, app: _App, limits: Limits) -> None:
        self._option, self._address, self._app, self._limits = option, address, app, limits
        self._sockets: dict[int, Any] = {}  #: by descriptor: what waitress reads from and writes to
        self._server: TcpWSGIServer | None = None
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"http {address}", daemon=True)
        self.port = 0

    def start(self) -> None:
        listening = _bound(self._address, self._option)
        self.port = listening.getsockname()[1]
        memory = 1 << 30  # beyond this, waitress would write to a disk
        server = create_server(
            self._app,
            map=self._sockets,
            sockets=[listening],
            threads=self._limits.threads,
            connection_limit=self._limits.connections + 2,  # the listening socket and the trigger count as well
            channel_timeout=self._limits.seconds,
            cleanup_interval=1,
            max_request_header_size=self._limits.header,
            max_request_body_size=self._limits.body + 1,  # the first size that is refused
            inbuf_overflow=memory,
            outbuf_overflow=memory,
            ident="",
        )
        assert isinstance(server, TcpWSGIServer)  # as it is for one socket
        server.channel_class = _Channel
        self._server = server
        self._thread.start()

    def stop(self) -> None:
        server, self._server = self._server, None
        if server:
            server.task_dispatcher.shutdown()
            self._ends.set()
            with suppress(OSError):  # it has seen it by itself, and closed what would wake it up
                server.pull_trigger()
            self._thread.join()

    def _serve(self) -> None:
        while not self._ends.is_set():
            # poll, for select() knows no descriptor above 1023, and watches take many.
            wasyncore.loop(timeout=1, use_poll=True, map=self._sockets, count=1)
        wasyncore.close_all(self._sockets)


def host_and_port(address: str) -> tuple[str, int]:
    """What is to be listened at; a host of "" is every address of this machine. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"{address!r} is no address to listen at: write host:port, [::1]:8080 or :8080")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _bound(address: str, option: str) -> socket.socket:
    host, port = host_and_port(address)
    try:
        if not host:
            both = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if both else socket.AF_INET
            return socket.create_server(("", port), family=family, dualstack_ipv6=both)
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        # Without the number, and without the address once more, which Python puts behind in brackets.
        why = (error.strerror or str(error)).partition(" (while attempting")[0]
        if error.errno == errno.EADDRINUSE:
            why = "another program listens there"
        raise OSError(f"cannot listen at {address}: {why}; choose another one with {option}") from error
