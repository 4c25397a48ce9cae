"""Requests and answers on the wire, for the connections of urllib3's pools.

The pool, TLS, proxies and time-outs are urllib3's. Only what goes through an open connection is read and written here,
by llhttp, the parser of Node.js: http.client reads headers as if they were an e-mail, which costs more than everything
else that a request does (300 microseconds of CPU against 100). Streams are left to urllib3.
"""

from __future__ import annotations

from collections.abc import Mapping
from http.client import BadStatusLine, IncompleteRead, RemoteDisconnected
from io import BytesIO
from typing import Any

from httptools import HttpParserError, HttpResponseParser
from urllib3 import HTTPConnectionPool, HTTPHeaderDict, HTTPResponse, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

_CHUNK = 1 << 16  # TLS gives 16 KiB at a time
_HEAD_BYTES = 1 << 18  # of all headers together; API servers send less than a kilobyte


class _Answer:
    """What the parser has found; `complete` once it is all there."""

    __slots__ = ("complete", "content", "has_head", "headers", "is_kept", "is_measured", "parser", "size_of_head")

    def __init__(self) -> None:
        self.parser = HttpResponseParser(self)
        self._begin()
        self.complete = False
        self.is_kept = False  #: the connection is good for another request

    def _begin(self) -> None:
        self.headers = HTTPHeaderDict()
        self.content: list[bytes] = []
        self.has_head = False
        self.is_measured = False  #: its end is known without the end of the connection
        self.size_of_head = 0

    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.size_of_head += len(name) + len(value)
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self.is_measured = True
        self.headers.add(name.decode("latin-1"), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        self.has_head = True

    def on_body(self, part: bytes) -> None:
        self.content.append(part)

    def on_message_complete(self) -> None:
        if self.parser.get_status_code() < 200:  # on the way to the answer
            self._begin()
            return
        self.complete = True
        self.is_kept = self.parser.should_keep_alive()

    def response(self) -> HTTPResponse:
        """As urllib3 gives it."""
        content = b"".join(self.content)
        status = self.parser.get_status_code()
        return HTTPResponse(content or BytesIO(), self.headers, status, preload_content=False)


class _Wire(HTTPConnection):
    """Mixed into a connection of urllib3."""

    _streams = False

    def request(  # type: ignore[override] # as urllib3, it takes more than http.client
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        preload_content: bool = True,
        **others: Any,
    ) -> None:
        """Sends it; `body` is bytes, or None. Raises ValueError where a header would end before its end."""
        self._streams = not preload_content
        if self._streams:
            super().request(method, url, body, headers, preload_content=False, **others)
            return
        lines = [f"{method} {url} HTTP/1.1", *(f"{name}: {value}" for name, value in (headers or {}).items())]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        if not all(map(str.isprintable, lines)):
            raise ValueError("a header holds a control character")
        head = "\r\n".join([*lines, "\r\n"]).encode("ascii")
        if self.sock is None:
            self.connect()
        else:
            self.sock.settimeout(self.timeout)
        self.sock.sendall(head + (body or b""))

    def getresponse(self) -> HTTPResponse:  # type: ignore[override] # as of urllib3
        """The whole answer. Raises what http.client does, which urllib3 expects."""
        if self._streams:
            return super().getresponse()
        self.sock.settimeout(self.timeout)
        answer = _Answer()
        has_begun = False
        while not answer.complete:
            part = self.sock.recv(_CHUNK)
            if not part:
                self.close()
                if not has_begun:
                    raise RemoteDisconnected("the connection was closed without an answer")
                if answer.is_measured or not answer.has_head:
                    raise IncompleteRead(b"".join(answer.content))
                break
            has_begun = True
            try:
                answer.parser.feed_data(part)
            except HttpParserError as error:
                raise BadStatusLine(str(error)) from None
            if answer.size_of_head > _HEAD_BYTES:
                raise BadStatusLine("its headers do not end")
        if not answer.is_kept:
            self.close()
        return answer.response()


class _Plain(_Wire):
    pass


class _Secure(_Wire, HTTPSConnection):
    pass


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


def use(manager: PoolManager) -> None:
    """Pools that are made by it from now on have connections of this module."""
    manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
