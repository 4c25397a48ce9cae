"""A real HTTP server between a client and an API server, which fails on purpose.

    with FaultProxy(upstream_kubeconfig) as proxy:
        proxy.inject(lose(), method="PATCH")        # the next PATCH is carried out, and its answer lost
        proxy.inject(answer(503, NOT_READY), nth=7) # the seventh request from now is refused

Requests that no fault is meant for pass through, watches included. `proxy.seen` is what arrived. Without
an upstream, every request has to have its fault: that is a scripted server.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import yaml


class Seen(NamedTuple):
    """A request as it arrived."""

    method: str
    path: str
    authorization: str | None
    body: bytes


class Upstream(NamedTuple):
    """An API server, as its kubeconfig describes it: inline certificates, a token or a client certificate."""

    address: str
    tls: ssl.SSLContext | None
    token: str | None

    @classmethod
    def of(cls, kubeconfig: Path) -> Self:
        config = yaml.safe_load(kubeconfig.read_text())
        named = {
            part: {entry["name"]: entry[part[:-1]] for entry in config[part]}
            for part in ("contexts", "clusters", "users")
        }
        context = named["contexts"][config["current-context"]]
        cluster, user = named["clusters"][context["cluster"]], named["users"][context["user"]]
        url = urlsplit(cluster["server"])
        tls = None
        if url.scheme == "https":
            authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
            tls = ssl.create_default_context(cadata=authority)
        return cls(url.netloc, tls, user.get("token"))

    def open(self) -> http.client.HTTPConnection:
        if self.tls is None:
            return http.client.HTTPConnection(self.address, timeout=60)
        return http.client.HTTPSConnection(self.address, timeout=60, context=self.tls)


Fault = Callable[["_Handler", bytes], None]


def answer(status: int, body: str | bytes | dict[str, Any] = b"", **headers: str) -> Fault:
    """Answer in the server's stead; the server hears nothing of it. `Retry_After="1"` is a header."""
    content = json.dumps(body).encode() if isinstance(body, dict) else body
    content = content.encode() if isinstance(content, str) else content
    kind = "application/json" if isinstance(body, dict) else "text/plain; charset=utf-8"

    def act(handler: _Handler, request: bytes) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        handler.reply(status, {"Content-Type": kind} | named, content)

    return act


def drop() -> Fault:
    """Reset the connection; the server hears nothing of it."""

    def act(handler: _Handler, request: bytes) -> None:
        handler.reset()

    return act


def lose() -> Fault:
    """Let the server do it, then reset the connection instead of passing on its answer."""

    def act(handler: _Handler, request: bytes) -> None:
        handler.ask_upstream(request).read()
        handler.reset()

    return act


def stall(until: threading.Event) -> Fault:
    """Let the server do it, then say nothing until the event is set (or the test is over)."""

    def act(handler: _Handler, request: bytes) -> None:
        handler.ask_upstream(request).read()
        until.wait(30)
        handler.reset()

    return act


def cut() -> Fault:
    """Let the server do it, pass on the head and half of the body of its answer, then reset."""

    def act(handler: _Handler, request: bytes) -> None:
        response = handler.ask_upstream(request)
        body = response.read()
        handler.head(response.status, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        handler.wfile.write(body[: len(body) // 2])
        handler.wfile.flush()
        handler.reset()

    return act


def stream(*events: dict[str, Any] | bytes, then: Callable[[], None] = lambda: None, end: bool = True) -> Fault:
    """Answer a watch with these events; then call `then`, and end it in order or by a reset."""

    def act(handler: _Handler, request: bytes) -> None:
        handler.head(200, {"Content-Type": "application/json", "Transfer-Encoding": "chunked"})
        for event in events:
            line = event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n"
            handler.chunk(line)
        then()
        if end:
            handler.chunk(b"")
        else:
            handler.reset()

    return act


@dataclass
class _Rule:
    fault: Fault
    method: str | None
    path: re.Pattern[str]
    skip: int
    times: int


@dataclass
class FaultProxy:
    """The server; a context manager. `upstream` is the kubeconfig of the API server behind it.

    It speaks TLS where it has a `certificate`: PEM, with its key, and its own authority.
    """

    upstream: Path | None = None
    seen: list[Seen] = field(default_factory=list)
    #: what the server behind it did, and the status of its answer, which a fault may have kept from the client
    answered: list[tuple[Seen, int]] = field(default_factory=list)
    #: what an Authorization header must be; the proxy answers 401 to another one
    accepts: Callable[[str | None], bool] = lambda _: True
    connections: int = 0  #: how many were opened
    certificate: Path | None = None
    _rules: list[_Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        self.behind = Upstream.of(self.upstream) if self.upstream else None
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        if self.certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            plain = self._server.socket
            self._server.socket = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.end_connections()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http{'s' * bool(self.certificate)}://127.0.0.1:{self._server.server_address[1]}"

    def kubeconfig(self, path: Path, **user: Any) -> Path:
        """Write a kubeconfig for the proxy, with these credentials (a token where none are given)."""
        cluster = {"server": self.url}
        if self.certificate is not None:
            pem = re.findall(b"-----BEGIN CERT.*?-----END CERT[^\n]*\n", self.certificate.read_bytes(), re.DOTALL)
            cluster["certificate-authority-data"] = base64.b64encode(b"".join(pem)).decode()
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "proxy", "cluster": cluster}],
                    "users": [{"name": "tester", "user": user or {"token": "a-token"}}],
                    "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "tester"}}],
                    "current-context": "proxy",
                }
            )
        )
        return path

    def inject(self, fault: Fault, *, method: str | None = None, path: str = "", nth: int = 1, times: int = 1) -> None:
        """Meet the nth matching request from now on, and those after it, with the fault, `times` times.

        `path` is a regular expression, searched in the path and query. The fault injected first wins.
        """
        with self._lock:
            self._rules.append(_Rule(fault, method, re.compile(path), nth - 1, times))

    def count(self, method: str, path: str = "") -> int:
        """How many such requests have arrived."""
        return sum(seen.method == method and bool(re.search(path, seen.path)) for seen in self.seen)

    def fault_for(self, request: Seen) -> Fault | None:
        with self._lock:
            self.seen.append(request)
            for rule in self._rules:
                if rule.times and rule.method in (None, request.method) and rule.path.search(request.path):
                    if rule.skip:
                        rule.skip -= 1
                    else:
                        rule.times -= 1
                        return rule.fault
        if not self.accepts(request.authorization):
            return answer(401, UNAUTHORIZED)
        return None


#: As kube-apiserver answers.
UNAUTHORIZED = {
    "kind": "Status",
    "apiVersion": "v1",
    "metadata": {},
    "status": "Failure",
    "message": "Unauthorized",
    "reason": "Unauthorized",
    "code": 401,
}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    proxy: FaultProxy

    def __init__(self, *arguments: Any) -> None:
        self.connections: set[socket.socket] = set()
        super().__init__(*arguments)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away, as clients in these tests do, is no news."""

    def end_connections(self) -> None:
        for connection in tuple(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)
        self.server.proxy.connections += 1
        self._upstream: http.client.HTTPConnection | None = None

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        if self._upstream is not None:
            self._upstream.close()
        super().finish()

    def log_message(self, *_: object) -> None:
        pass

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._seen = seen = Seen(self.command, self.path, self.headers.get("Authorization"), body)
        fault = self.server.proxy.fault_for(seen)
        if fault is not None:
            fault(self, body)
        elif self.server.proxy.behind is None:
            self.reply(418, {}, f"unscripted: {seen.method} {seen.path}".encode())
        else:
            self._pass_on(body)

    do_GET = do_PATCH = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815 - names that http.server calls

    def ask_upstream(self, body: bytes) -> http.client.HTTPResponse:
        upstream = self.server.proxy.behind
        assert upstream is not None
        if self._upstream is None:
            self._upstream = upstream.open()
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in ("host", "authorization", "connection")
        }
        if upstream.token:
            headers["Authorization"] = f"Bearer {upstream.token}"
        self._upstream.request(self.command, self.path, body=body or None, headers=headers)
        response = self._upstream.getresponse()
        self.server.proxy.answered.append((self._seen, response.status))
        return response

    def _pass_on(self, body: bytes) -> None:
        response = self.ask_upstream(body)
        passed = ("content-type", "retry-after", "warning")
        headers = {name: value for name, value in response.getheaders() if name.lower() in passed}
        if not response.chunked:
            self.reply(response.status, headers, response.read())
            return
        self.head(response.status, headers | {"Transfer-Encoding": "chunked"})
        while data := response.read1(65536):
            self.chunk(data)
        self.chunk(b"")

    def head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.head(status, headers | {"Content-Length": str(len(body))})
        self.wfile.write(body)
        self.wfile.flush()

    def reset(self) -> None:
        """Close with a TCP reset, as a crashed process or a balancer does."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
