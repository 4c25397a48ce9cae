"""Requests and answers on the wire, on connections that urllib3 makes.

Addresses, TLS, proxies and time-outs are urllib3's, as the official client sets it up. What goes through a connection
is written and read here, by llhttp, the parser of Node.js: http.client reads headers as if they were an e-mail, and
urllib3's pool locks and counts, so that many threads of one interpreter wait for each other. A request costs a third
of the CPU so, and a quarter where eight threads make them. Watches are left to urllib3.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextlib import suppress
from http.client import BadStatusLine, HTTPException, IncompleteRead, RemoteDisconnected
from ssl import SSLError as TLSError
from typing import Any

from httptools import HttpParserError, HttpResponseParser
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ProtocolError, ProxyError, ReadTimeoutError, SSLError

from reconciler.cluster.transport import Answer

_CHUNK = 1 << 16  # TLS gives 16 KiB at a time
#: Of all headers together, of which API servers send less than a kilobyte; and of a body, which is a page of 500
#: objects at the most. What is longer is no answer, and would take the memory of everybody else.
_HEAD_BYTES, _BODY_BYTES = 1 << 18, 1 << 26


class _Reading:
    """What the parser has found so far; `complete` once it is all there."""

    __slots__ = (
        "complete",
        "content",
        "has_head",
        "headers",
        "is_kept",
        "is_measured",
        "parser",
        "size",
        "size_of_head",
    )

    def __init__(self) -> None:
        self.parser = HttpResponseParser(self)
        self._begin()
        self.complete = False
        self.is_kept = False  #: the connection is good for another request

    def _begin(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.content: list[bytes] = []
        self.has_head = False
        self.size = self.size_of_head = 0

    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.size_of_head += len(name) + len(value)
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.has_head = True

    def on_body(self, part: bytes) -> None:
        self.content.append(part)
        self.size += len(part)

    def on_message_complete(self) -> None:
        if self.parser.get_status_code() < 200:  # on the way to the answer
            self._begin()
            return
        self.complete = True
        self.is_kept = self.parser.should_keep_alive()

    def ends_with_its_connection(self) -> bool:
        """Whether nothing else says where it ends."""
        return self.has_head and not any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers)

    def answer(self) -> Answer:
        headers: dict[str, str] = {}
        for name, value in self.headers:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        return Answer(self.parser.get_status_code(), headers, b"".join(self.content))


class Wire(HTTPConnectionPool):
    """A pool that also exchanges by itself. Any thread may, and takes a connection that is idle, or a new one."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._idle: list[HTTPConnection] = []  # `append` and `pop` need no lock
        weakref.finalize(self, _close_all, self._idle)  # of credentials that nobody uses any more
        self._is_closed = False

    def exchange(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], patience: float
    ) -> Answer:
        """Sends a request, and waits for its answer: no longer than `patience` seconds without any part of it.

        `target`: path and query, escaped.

        Raises the `HTTPError` that urllib3 would, and ValueError, with nothing sent, for a header that would end before
        its end.
        """
        sent = _bytes_of(method, target, body, headers)
        connection = self._taken()
        reading = _Reading()
        is_kept = False
        try:
            self._open(connection)
            connection.sock.settimeout(patience)
            with suppress(BrokenPipeError):  # what did not want all of it may have said why
                connection.sock.sendall(sent)
            _read(connection, reading)
            is_kept = reading.is_kept and not self._is_closed
        except TLSError as error:
            raise SSLError(error) from error
        except TimeoutError as error:
            raise ReadTimeoutError(self, target, "no answer in time") from error
        except (OSError, HTTPException) as error:
            if connection.proxy is not None and not connection.has_connected_to_proxy:
                raise ProxyError("cannot connect", error) from error
            raise ProtocolError("the connection broke", error) from error
        finally:
            if is_kept:
                self._idle.append(connection)
            else:
                connection.close()
        return reading.answer()

    def close(self) -> None:
        """Closes what is idle; what is under way is finished."""
        self._is_closed = True
        _close_all(self._idle)
        super().close()

    def _taken(self) -> HTTPConnection:
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if connection.is_connected:
                    return connection
                connection.close()  # the server has closed it meanwhile
        made: HTTPConnection = self._new_conn()  # type: ignore[assignment] # a protocol that both kinds meet
        return made

    def _open(self, connection: HTTPConnection) -> None:
        """Connects it, where it is new: as urllib3 does."""
        if connection.is_closed:
            connection.timeout = self.timeout.connect_timeout  # type: ignore[assignment] # it was given
            if self.proxy is not None:
                self._prepare_proxy(connection)
            else:
                connection.connect()


class _SecureWire(Wire, HTTPSConnectionPool):
    pass


def _close_all(idle: list[HTTPConnection]) -> None:
    with suppress(IndexError):
        while True:
            idle.pop().close()


def _bytes_of(method: str, target: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", *[f"{name}: {value}" for name, value in headers.items()]]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    if not all(map(str.isprintable, lines)) or " " in target:
        raise ValueError("an address or a header holds a space or a control character")
    head = "\r\n".join([*lines, "\r\n"]).encode("ascii")
    return head + body if body else head


def _read(connection: HTTPConnection, reading: _Reading) -> None:
    """The whole answer. Raises OSError and HTTPException."""
    has_begun = False
    while not reading.complete:
        part = connection.sock.recv(_CHUNK)
        if not part:
            if reading.ends_with_its_connection():
                return
            raise IncompleteRead(b"") if has_begun else RemoteDisconnected("closed without an answer")
        has_begun = True
        try:
            reading.parser.feed_data(part)
        except HttpParserError as error:
            raise BadStatusLine(str(error)) from None
        if reading.size_of_head > _HEAD_BYTES or reading.size > _BODY_BYTES:
            raise BadStatusLine("the answer does not end")


def use(manager: PoolManager) -> None:
    """Pools that it makes from now on are of this module."""
    manager.pool_classes_by_scheme = {"http": Wire, "https": _SecureWire}
