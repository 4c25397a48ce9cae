"""`python -m runtime resolve`: tells gateways which audience a request belongs to.

An HTTP service for external authorization (Envoy's ext_authz, `auth_request` of NGINX, and their like). The gateway
asks with the headers of a request, by any method and path, and gets 200 with `x-trueup-audience: NAME`; for everybody
else the value is "-". The header is always set, so that what a client sent under its name never counts.

A request that comes with that header has been decided already: a route leads it here where no variation answers it,
and it gets 404. `GET /v2/health/live` and `/ready` are for the probes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, cast

import httptools
from pydantic import BaseModel, ConfigDict, ValidationError

from runtime.exits import Exit
from schemas.audience import Audience
from schemas.matching import AUDIENCE_HEADER, EVERYBODY_ELSE, headers, request_of, resolver

#: Bytes that the head of a request may have. Envoy forwards 60 KiB, unless it is told to forward more.
HEAD_LIMIT = 1 << 20
#: Seconds that open connections get to end by themselves when the service ends.
DRAIN_SECONDS = 3.0

_HEALTH = {b"/v2/health/live": b'{"live":true}', b"/v2/health/ready": b'{"ready":true}'}


class Configuration(BaseModel):
    """What `--audiences` holds, as JSON: the audiences in the order in which they are tried."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    model: str
    audiences: tuple[Audience, ...]


def main(options: argparse.Namespace) -> int:
    """Answers until SIGTERM. `options`: port, audiences (a path). Listens at POD_IP, or everywhere without one."""
    try:
        configuration = Configuration.model_validate_json(options.audiences.read_bytes())
        service = Service(configuration)
    except (OSError, ValueError) as error:
        return _refuse(f"the audiences in {options.audiences} cannot be read: {_reason(error)}")
    host = os.environ.get("POD_IP")
    try:
        with _runner() as runner:
            runner.run(_serve(service, host, options.port))
    except OSError as error:
        return _refuse(f"cannot listen at {host or 'any address'}, port {options.port}: {error.strerror}")
    return Exit.DONE


class Service:
    """What the connections share: the audiences, compiled once, and whether the end has come."""

    def __init__(self, configuration: Configuration) -> None:
        audiences = configuration.audiences
        self.decide = resolver(audiences)
        self.wanted = frozenset(key.encode() for audience in audiences for key in headers(audience)) | {_DECIDED}
        #: Every answer there is, made before anybody asks.
        names = [EVERYBODY_ELSE, *(audience.name for audience in audiences)]
        self.answers = {name: _head(200, 0, f"{AUDIENCE_HEADER}: {name}\r\n") for name in names}
        self.nobody = _json(404, {"error": f"no variation of {configuration.model} answers this request"})
        self.ending = False
        self.connections: set[Connection] = set()


class Connection(asyncio.Protocol):
    """One connection of a gateway. Requests are answered in their order, and nothing of a body is kept."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._head_bytes = 0
        self.on_message_begin()

    # -- of asyncio -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass
        self._service.connections.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._service.connections.discard(self)

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._transport.close()  # it was answered; what follows is another protocol
        except httptools.HttpParserError:
            self._end(_BAD_REQUEST)
        else:
            if self._head_bytes > HEAD_LIMIT:
                self._end(_TOO_LARGE)

    # -- of the parser --------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._path = b""
        self._lines: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in self._service.wanted:
            self._lines.append((name, value))

    def on_body(self, _: bytes) -> None:
        self._head_bytes = 0

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        answer = self._answer()
        if self._parser.get_method() == b"HEAD":
            answer = answer[: answer.index(b"\r\n\r\n") + 4]
        if self._service.ending or not self._parser.should_keep_alive():
            self._end(answer)
        else:
            self._transport.write(answer)

    # -- ours -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """At once: what was asked is answered."""
        self._transport.close()

    def _answer(self) -> bytes:
        request = request_of(self._lines)
        if AUDIENCE_HEADER in request:
            return self._service.nobody
        if self._path in _HEALTH and self._parser.get_method() in (b"GET", b"HEAD"):
            if self._service.ending and self._path == b"/v2/health/ready":
                return _ENDING
            return _HEALTHY[self._path]
        return self._service.answers[self._service.decide(request) or EVERYBODY_ELSE]

    def _end(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer.replace(b"\r\n", b"\r\nconnection: close\r\n", 1))
            self._transport.close()


async def _serve(service: Service, host: str | None, port: int) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    server = await loop.create_server(lambda: Connection(service), host, port, backlog=1024)
    sys.stderr.write(f"resolving at {_address(server.sockets[0])}\n")
    sys.stderr.flush()
    await ended.wait()
    service.ending = True
    server.close()
    until = loop.time() + DRAIN_SECONDS
    while service.connections and loop.time() < until:
        await asyncio.sleep(0.05)
    for connection in list(service.connections):
        connection.close()


def _address(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _runner() -> asyncio.Runner:
    factory: Callable[[], asyncio.AbstractEventLoop] | None
    try:
        from uvloop import new_event_loop as factory  # noqa: PLC0415 - three times as fast, and not everywhere
    except ImportError:
        factory = None
    return asyncio.Runner(loop_factory=factory)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)


def _refuse(message: str) -> int:
    sys.stderr.write(f"{message}\n")
    return Exit.DISTURBED


_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 431: "Request Header Fields Too Large", 503: "Unavailable"}


def _head(status: int, length: int, more: str = "") -> bytes:
    return f"HTTP/1.1 {status} {_REASONS[status]}\r\n{more}content-length: {length}\r\n\r\n".encode()


def _json(status: int, value: Any) -> bytes:
    return _body(status, json.dumps(value).encode())


def _body(status: int, body: bytes) -> bytes:
    return _head(status, len(body), "content-type: application/json\r\n") + body


_DECIDED = AUDIENCE_HEADER.encode()
_HEALTHY = {path: _body(200, body) for path, body in _HEALTH.items()}
_ENDING = _json(503, {"ready": False})
_BAD_REQUEST = _json(400, {"error": "this is no HTTP request"})
_TOO_LARGE = _json(431, {"error": f"the head of a request may have {HEAD_LIMIT} bytes"})
