"""HTTP/1.1 over TLS, as far as an API server needs it: keep-alive, request bodies up to a limit, answers that go on.

Why not a framework: on one core a request through uvicorn costs 140 us, through this 75 us, and a reconciler sends
thousands. A handler is an ordinary function, called in one thread, one request at a time: what it reads cannot change
before it writes. It returns a `Response`, or a `Stream` that the connection feeds until one side ends it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, cast
from urllib.parse import parse_qsl, unquote

import httptools

log = logging.getLogger(__name__)

#: The largest request body, as on a real API server.
BODY_LIMIT = 3 * 1024 * 1024

#: Header bytes of one request; a real API server allows 1 MiB, no client needs a tenth of this.
_HEADER_LIMIT = 64 * 1024

#: A stream whose client has not read so much is ended: it watches again from where it was.
_BACKLOG_LIMIT = 16 * 1024 * 1024

_REASONS = {
    200: "OK",
    201: "Created",
    202: "Accepted",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    409: "Conflict",
    410: "Gone",
    413: "Request Entity Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Entity",
    500: "Internal Server Error",
    504: "Gateway Timeout",
}


class Request(NamedTuple):
    """One request. `path` has no query and is not percent-decoded; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[bytes, bytes]
    body: bytes

    def header(self, name: bytes) -> str:
        """A header as text, "" where it is missing."""
        return self.headers.get(name, b"").decode("latin-1")


class Response(NamedTuple):
    """A whole answer."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


class Channel(Protocol):
    """The connection, as a stream sees it."""

    def send(self, data: bytes) -> None:
        """Send one chunk; nothing happens once the stream has ended."""

    def end(self) -> None:
        """End the answer properly; the connection can serve the next request."""


class Stream(Protocol):
    """An answer that goes on. `start` may send at once; `stop` is called once, however the stream ended."""

    content_type: str

    def start(self, channel: Channel) -> None: ...

    def stop(self) -> None: ...


Handler = Callable[[Request], "Response | Stream"]


class Connection(asyncio.Protocol):
    """One client connection: parses requests, calls the handler, writes answers in the order of the requests."""

    def __init__(self, handler: Handler, connections: set[Connection], oversized: Response) -> None:
        self._handler = handler
        self._connections = connections
        self._oversized = oversized  # the answer to a body above the limit
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._stream: Stream | None = None
        self._backlog_limit = _BACKLOG_LIMIT
        self._reset()

    def _reset(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._header_size = 0
        self._body: list[bytes] = []
        self._body_size = 0

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its type
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing() or self._stream is not None:
            return  # nothing that a client says while it watches changes the answer
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The request itself is answered by now; there is no other protocol to go on with.
            self._transport.close()
        except httptools.HttpParserCallbackError:
            # Our own fault: the client gets an answer, the log the reason, other connections go on.
            log.exception("a request could not be answered")
            self._refuse(500, b"internal error\n")
        except httptools.HttpParserError:
            self._refuse(400, b"malformed HTTP request\n")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # the signature is asyncio's
        self._connections.discard(self)
        self._stop_stream()

    # What the parser calls

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_header(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value
        self._count_header(len(name) + len(value))

    def on_headers_complete(self) -> None:
        if self._headers.get(b"expect", b"").lower() == b"100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        self._body_size += len(data)
        if self._body_size > BODY_LIMIT:
            self._body.clear()
            if not self._transport.is_closing():
                self._answer(self._oversized, keep_alive=False)
            return
        self._body.append(data)

    def on_message_complete(self) -> None:
        if self._transport.is_closing():
            return
        url = self._url.decode("latin-1")
        path, _, query = url.partition("?")
        request = Request(
            self._parser.get_method().decode("ascii"),
            path,
            dict(parse_qsl(query, keep_blank_values=True)) if query else {},
            self._headers,
            b"".join(self._body),
        )
        keep_alive = self._parser.should_keep_alive()
        self._reset()
        answer = self._handler(request)
        if isinstance(answer, Response):
            self._answer(answer, keep_alive=keep_alive)
        else:
            self._begin(answer)

    # Writing

    def _answer(self, response: Response, *, keep_alive: bool) -> None:
        status, body, content_type, headers = response
        more = "".join(f"{name}: {value}\r\n" for name, value in headers)
        if not keep_alive:
            more += "Connection: close\r\n"
        head = (
            f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}\r\nContent-Type: {content_type}\r\n"
            f"Cache-Control: no-cache, private\r\n{more}Content-Length: {len(body)}\r\n\r\n"
        )
        self._transport.write(head.encode("latin-1", "replace") + body)
        if not keep_alive:
            self._transport.close()

    def _begin(self, stream: Stream) -> None:
        self._stream = stream
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: {stream.content_type}\r\n"
            "Cache-Control: no-cache, private\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        self._transport.write(head.encode("latin-1"))
        self._backlog_limit = sys.maxsize  # what a stream begins with may be as large as it is
        stream.start(self)
        self._backlog_limit = self._transport.get_write_buffer_size() + _BACKLOG_LIMIT

    def send(self, data: bytes) -> None:
        """Channel.send"""
        if not data or self._stream is None or self._transport.is_closing():
            return
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        if self._transport.get_write_buffer_size() > self._backlog_limit:
            self._transport.abort()

    def end(self) -> None:
        """Channel.end"""
        if self._stream is None:
            return
        self._stop_stream()
        if not self._transport.is_closing():
            self._transport.write(b"0\r\n\r\n")

    def shut_down(self) -> None:
        """The server stops: end a stream properly, then close."""
        self.end()
        self._transport.close()

    def _stop_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.stop()

    def _count_header(self, size: int) -> None:
        self._header_size += size
        if self._header_size > _HEADER_LIMIT and not self._transport.is_closing():
            self._refuse(400, b"the request headers are too large\n")

    def _refuse(self, status: int, text: bytes) -> None:
        if not self._transport.is_closing():
            self._answer(Response(status, text, "text/plain; charset=utf-8"), keep_alive=False)


def segments(path: str) -> list[str]:
    """The parts of a path, percent-decoded: `/api/v1/` gives ["api", "v1"]."""
    parts = path.strip("/").split("/")
    return [unquote(part) for part in parts] if "%" in path else parts
