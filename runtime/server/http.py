"""HTTP/1.1, as far as a prediction server needs it, and no further: what is unclear about a message is refused.

A connection answers its requests one at a time and in their order, so the messages that a client sends ahead cost no
more than the bytes that were read of them. The application sees a request twice: its head, to refuse it before a body
is read, and whole.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple, Protocol, cast

import httptools

_REASONS = {status.value: status.phrase for status in HTTPStatus}

#: A message may have one of these only. With two, two servers could see two different messages in the same bytes.
_ONCE = frozenset({b"content-length", b"transfer-encoding", b"host", b"content-type", b"content-encoding"})

#: A body that is refused is read to its end when it is this short, so that the connection can go on.
_SHORT_BODY = 64 * 1024

#: Seconds and bytes that are read of a body that nobody wants, after the answer. A client that still sends while the
#: connection is closed would get a reset instead of the answer.
_LINGER_SECONDS = 3.0
_LINGER_BYTES = 256 * 1024 * 1024

#: Seconds for a client to read its answer.
_WRITE_SECONDS = 60.0

_NEVER = float("inf")


class Limits(NamedTuple):
    """What one client may ask of the server."""

    body_bytes: int = 16 * 1024 * 1024  #: of one request, unpacked
    head_bytes: int = 64 * 1024  #: a gateway passes on up to 60 KiB
    bodies_bytes: int = 256 * 1024 * 1024  #: of all the requests that are in the server at a time
    connections: int = 4096
    head_seconds: float = 10.0  #: from a request's first byte to the end of its head
    body_seconds: float = 60.0  #: from there to the end of its body
    #: Longer than gateways keep a connection that nobody uses (Envoy: one hour): the side that sends must be the one
    #: that closes, or a request crosses the other side's closing.
    idle_seconds: float = 3900.0


class Head(NamedTuple):
    """A request without its body. Header names are in lower case; the path is not percent-decoded and has no query."""

    method: str
    path: str
    headers: Mapping[bytes, bytes]

    def header(self, name: bytes) -> str:
        """A header as text, "" where there is none. One that came several times has its values with ", " between."""
        return self.headers.get(name, b"").decode("latin-1")


class Response(NamedTuple):
    """A whole answer. The application adds to it what every answer carries."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


#: Called once, and too late is no harm: the client may be gone.
Reply = Callable[[Response], None]


class Exchange(Protocol):
    """One request in the application."""

    def abandon(self, *, certainly: bool) -> None:
        """The client is gone; or has ended its side, which most only do when they go."""


class Application(Protocol):
    """What connections serve."""

    limits: Limits
    closing: bool  #: the server ends: no answer keeps its connection
    held_bytes: int  #: of all bodies that are in the server

    def refusal(self, head: Head) -> Response | None:
        """The answer to a request that needs no look at its body; None: go on reading."""

    def unread(self, head: Head | None, status: int, message: str) -> Response:
        """The answer to a request that could not be read; None: not even its head."""

    def handle(self, head: Head, body: bytes, reply: Reply) -> Exchange | None:
        """Answer through `reply`, at once or later. An exchange is told when its client is gone."""

    def common_headers(self) -> bytes:
        """The header lines that every answer carries, each with its line end."""


class _Unpacker:
    """A body in gzip, unpacked as it arrives and never beyond what is allowed."""

    def __init__(self) -> None:
        self._gzip = zlib.decompressobj(wbits=31)

    def feed(self, data: bytes, room: int) -> bytes:
        """At most `room` + 1 bytes, so that a body that is too large shows. Raises zlib.error."""
        return self._gzip.decompress(data, room + 1)

    def is_whole(self) -> bool:
        return self._gzip.eof and not self._gzip.unused_data


class Connections:
    """Every open connection of one listening socket, and the clock that ends those that take too long."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.loop = asyncio.get_running_loop()
        self.open: set[Connection] = set()
        self._timer = self.loop.call_later(0.5, self._sweep)

    def __call__(self) -> Connection:
        return Connection(self)

    def _sweep(self) -> None:
        now = self.loop.time()
        for connection in [one for one in self.open if one.deadline < now]:
            connection.expire()
        self._timer = self.loop.call_later(0.5, self._sweep)

    def make_room(self) -> bool:
        """One connection that waits for nothing goes, the one that does so for longest. False: all are at work."""
        idle = min((one for one in self.open if one.is_idle()), key=lambda one: one.deadline, default=None)
        if idle is not None:
            idle.close()
        return idle is not None

    def close_idle(self, seconds: float) -> None:
        """Those that nothing came from for so long: a client that sends just now would meet the closing."""
        latest = self.loop.time() + self.application.limits.idle_seconds - seconds
        for connection in list(self.open):
            if connection.is_idle() and connection.deadline <= latest:
                connection.close()

    def stop(self) -> None:
        """Nobody is waited for any more."""
        self._timer.cancel()
        for connection in list(self.open):
            connection.abort()


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._application = connections.application
        self._limits = connections.application.limits
        self._loop = connections.loop
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self.deadline = _NEVER
        self._turns: deque[tuple[Head, bytes, bool] | tuple[Response, bool]] = deque()  # read, and not begun
        self._busy = False  # a request is with the application
        self._head_only = False  # ... and it is a HEAD request
        self._keep_alive = True
        self._exchange: Exchange | None = None
        self._held = 0  # bytes of the request that is with the application
        self._lingering = 0  # bytes that may still come after the last answer; 0: not so far yet
        self._ended = False  # the client sends no more
        self._deaf = False  # nothing more is read
        self._paused = False  # the client has sent enough ahead
        self._reset()

    def _reset(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._fed = 0  # bytes of a head that is not complete
        self._in_head = True
        self._head: Head | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._unpacker: _Unpacker | None = None
        self._refused: Response | None = None  # the answer, once the rest of the body is read

    def is_idle(self) -> bool:
        """Nothing was asked that is not answered, nothing is half read."""
        return not (self._busy or self._turns or self._fed or self._head is not None or self._deaf)

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its type
        full = len(self._connections.open) >= self._limits.connections and not self._connections.make_room()
        self._connections.open.add(self)
        self.deadline = self._loop.time() + self._limits.idle_seconds
        if full:
            self._refuse(503, f"this server has {self._limits.connections} connections and all are at work")

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            self._lingering -= len(data)
            if self._lingering <= 0:
                self.abort()
            return
        if self._deaf:
            return
        if self._in_head:
            if not self._fed:
                self.deadline = self._loop.time() + self._limits.head_seconds
            # httptools collects a header until it ends, so what it was given is counted, not what it reports.
            self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The request itself is with the application by now; there is no other protocol to go on with.
            self._deafen()
        except httptools.HttpParserError as error:
            self._refuse(400, f"this is no HTTP request: {error}")
        if self._in_head and self._fed > self._limits.head_bytes and not self._deaf:
            self._refuse_head()

    def eof_received(self) -> bool:
        self._ended = True
        if self._exchange is not None:
            self._exchange.abandon(certainly=False)
        return self._busy or bool(self._turns)  # a client that ended its side only still reads its answer

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # the signature is asyncio's
        self._connections.open.discard(self)
        self._deaf = True
        self._release_body()
        self._drop_body()
        self._drop_turns()
        if self._exchange is not None:
            self._exchange.abandon(certainly=True)

    def pause_writing(self) -> None:
        self.deadline = self._loop.time() + _WRITE_SECONDS

    def resume_writing(self) -> None:
        if not self._lingering:
            self.deadline = self._loop.time() + self._limits.idle_seconds

    # What the parser calls

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head is not None or self._deaf:
            return  # after the body: a trailer, which nobody asked for
        name = name.lower()
        before = self._headers.get(name)
        if before is None:
            self._headers[name] = value
        elif name in _ONCE:
            self._refuse(400, f"the header {name.decode('latin-1')} stands there twice")
        else:
            self._headers[name] = before + b", " + value

    def on_headers_complete(self) -> None:
        self._in_head, self._fed = False, 0
        if self._deaf:
            return
        if sum(map(len, self._headers)) + sum(map(len, self._headers.values())) > self._limits.head_bytes:
            self._refuse_head()
            return
        headers, version = self._headers, self._parser.get_http_version()
        head = Head(self._parser.get_method().decode("ascii"), _path(self._url), headers)
        coding = headers.get(b"transfer-encoding")
        if version not in ("1.1", "1.0"):
            self._refuse(505, f"HTTP {version} is not spoken here: 1.1 is", head)
        elif coding is not None and (coding.lower() != b"chunked" or version == "1.0"):
            self._refuse(501, "of the transfer codings only chunked is understood", head)
        elif b"host" not in headers and version == "1.1":
            self._refuse(400, "the header Host is missing", head)
        else:
            self._begin_body(head, has_body=coding is not None or headers.get(b"content-length", b"0") != b"0")

    def _begin_body(self, head: Head, *, has_body: bool) -> None:
        self._head = head
        if not has_body:
            return  # what it is refused for does not depend on a body: `on_message_complete` asks
        self.deadline = self._loop.time() + self._limits.body_seconds
        length = int(head.headers.get(b"content-length", b"0"))
        refused = self._application.refusal(head) or self._body_refusal(head, length)
        expects = head.headers.get(b"expect", b"").lower()
        if refused is not None:
            if length > _SHORT_BODY or expects:
                self._answer_last(refused)
            else:
                self._refused = refused
        elif expects == b"100-continue":
            if not self._busy and not self._turns:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        elif expects:
            self._answer_last(
                self._application.unread(head, 417, "of the expectations only 100-continue is understood")
            )

    def _body_refusal(self, head: Head, length: int) -> Response | None:
        packing = head.headers.get(b"content-encoding", b"identity").lower()
        if packing not in (b"identity", b"gzip", b"x-gzip"):
            return self._application.unread(head, 415, "of the content codings only gzip is understood")
        if length > self._limits.body_bytes:
            return self._too_large(head)
        if packing != b"identity":
            self._unpacker = _Unpacker()
        return None

    def on_body(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._refused is not None:
            self._size += len(data)
            if self._size > _SHORT_BODY:
                self._answer_last(self._refused)
            return
        assert self._head is not None
        limit = self._limits.body_bytes
        if self._unpacker is not None:
            try:
                data = self._unpacker.feed(data, limit - self._size)
            except zlib.error:
                self._refuse(400, "the body is no gzip, though its Content-Encoding says so", self._head)
                return
        self._size += len(data)
        if self._size > limit:
            self._answer_last(self._too_large(self._head))
        elif self._application.held_bytes + len(data) > self._limits.bodies_bytes:
            self._refuse(503, "the requests in this server take all the memory that it has for them", self._head)
        else:
            self._application.held_bytes += len(data)
            self._body.append(data)

    def on_message_complete(self) -> None:
        if self._deaf:
            return
        head, refused = self._head, self._refused
        assert head is not None
        keep_alive = self._parser.should_keep_alive()
        if refused is None and self._unpacker is not None and not self._unpacker.is_whole():
            refused = self._application.unread(head, 400, "the body's gzip ends early, or something follows it")
        if refused is not None:
            self._drop_body()
            self._turns.append((refused, keep_alive))
        else:
            self._turns.append((head, b"".join(self._body), keep_alive))
        self._reset()
        self.deadline = _NEVER  # from here on it is the application's time
        if not self._busy:
            self._next()
        elif len(self._turns) > 1 and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    # Answering

    def _next(self) -> None:
        """Begins turns until one takes its time, or none is left."""
        while self._turns and not self._busy:
            turn = self._turns.popleft()
            if len(turn) == 2:
                self._write(turn[0], keep_alive=turn[1], head_only=False)
                continue
            head, body, self._keep_alive = turn
            self._busy, self._held, self._head_only = True, len(body), head.method == "HEAD"
            exchange = self._application.handle(head, body, self._reply)
            if self._busy:
                self._exchange = exchange
        if self._busy or self._transport.is_closing() or self._deaf:
            return
        if self._ended:
            self._transport.close()
        elif self._head is None and not self._fed:
            self.deadline = self._loop.time() + self._limits.idle_seconds

    def _reply(self, response: Response) -> None:
        # An application that answers while `handle` runs is within `_next` already, which goes on by itself.
        was_pending, self._exchange = self._exchange is not None, None
        self._busy = False
        self._release_body()
        if self._transport.is_closing():
            return
        self._write(response, keep_alive=self._keep_alive, head_only=self._head_only)
        if was_pending:
            self._resume()
            self._next()

    def _write(self, response: Response, *, keep_alive: bool, head_only: bool) -> None:
        if self._transport.is_closing() or self._lingering:
            return
        keep_alive = keep_alive and not self._application.closing and not self._ended
        status, body, content_type, headers = response
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        if not keep_alive:
            lines += "connection: close\r\n"
        head = (
            f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}\r\ncontent-type: {content_type}\r\n"
            f"content-length: {len(body)}\r\n{lines}"
        ).encode("latin-1", "replace")
        self._transport.write(b"%b%b\r\n%b" % (head, self._application.common_headers(), b"" if head_only else body))
        if not keep_alive:
            self._drop_turns()
            self._linger()

    def _answer_last(self, response: Response) -> None:
        """Answer when its turn comes, and read no more of this connection."""
        self._drop_body()
        self._deaf, self.deadline = True, _NEVER
        self._turns.append((response, False))
        if not self._busy:
            self._next()

    def _refuse(self, status: int, message: str, head: Head | None = None) -> None:
        if not self._deaf:
            self._answer_last(self._application.unread(head, status, message))

    def _refuse_head(self) -> None:
        self._refuse(431, f"the request's head is larger than {self._limits.head_bytes} bytes")

    def _too_large(self, head: Head) -> Response:
        return self._application.unread(
            head, 413, f"the body is larger than the {self._limits.body_bytes} bytes that this server takes"
        )

    # Ending

    def _deafen(self) -> None:
        """The last request is read; it may still be waiting for its answer."""
        self._deaf = True
        self._keep_alive = False
        if not self._busy and not self._turns:
            self._linger()

    def _linger(self) -> None:
        """The last answer is written: close, but not while the client still sends."""
        self._deaf = True
        if self._ended:
            self._transport.close()
            return
        self._lingering = _LINGER_BYTES
        self.deadline = self._loop.time() + _LINGER_SECONDS
        self._resume()
        self._transport.write_eof()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def expire(self) -> None:
        """The deadline has passed."""
        if self._transport.get_write_buffer_size():
            self.abort()  # who does not read its answer
        elif self.is_idle():
            self.close()
        elif self._deaf or self._busy or self._turns:
            self.abort()
        else:
            self._refuse(408, "the request did not arrive in time", self._head)

    def close(self) -> None:
        """Close once everything is written."""
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _drop_body(self) -> None:
        """Forget what is read of a request."""
        self._application.held_bytes -= sum(map(len, self._body))
        self._body.clear()

    def _drop_turns(self) -> None:
        """Forget the requests that are not begun."""
        self._application.held_bytes -= sum(len(turn[1]) for turn in self._turns if len(turn) == 3)
        self._turns.clear()

    def _release_body(self) -> None:
        """The request that the application had is answered."""
        self._application.held_bytes -= self._held
        self._held = 0


def _path(url: bytes) -> str:
    """Of the request's target, which may be a whole URL."""
    if not url.startswith(b"/"):
        try:
            url = httptools.parse_url(url).path or b"/"
        except httptools.HttpParserInvalidURLError:
            return "*"
    return url.partition(b"?")[0].partition(b"#")[0].decode("latin-1")
