"""The HTTP of the prediction server, with clients that cut their bytes in any way."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.server.http import Connections, Exchange, Head, Limits, Reply, Response
from tests.conftest import examples

SECONDS = 10


class Echo:
    """An application that answers a body with itself, a little later where the path is /later."""

    def __init__(self, **limits: Any) -> None:
        self.limits = Limits(**limits)
        self.closing = False
        self.held_bytes = 0
        self.abandoned: list[bool] = []
        self.reply: Reply | None = None

    def refusal(self, head: Head) -> Response | None:
        return Response(404, b"{}") if head.path == "/nowhere" else None

    def unread(self, head: Head | None, status: int, message: str) -> Response:
        return Response(status, json.dumps({"message": message}).encode())

    def handle(self, head: Head, body: bytes, reply: Reply) -> Exchange | None:
        if head.path == "/later":
            asyncio.get_running_loop().call_later(0.002, reply, Response(200, body))
            return self
        if head.path == "/never":
            self.reply = reply
            return self
        reply(self.refusal(head) or Response(200, body))
        return None

    def abandon(self, *, certainly: bool) -> None:
        self.abandoned.append(certainly)
        if self.reply is not None:
            self.reply(Response(499, b"{}"))

    def common_headers(self) -> bytes:
        return b"x-common: 1\r\n"


Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def talk(echo: Echo, client: Client) -> None:
    """Runs a client against the application; whatever it did, nothing may be left."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        connections = Connections(echo)
        server = await loop.create_server(connections, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            await client(reader, writer)
        finally:
            writer.close()
            for _ in range(100):
                if not connections.open:
                    break
                await asyncio.sleep(0.01)
            connections.stop()
            server.close()
            await server.wait_closed()
        assert echo.held_bytes == 0
        assert not connections.open

    asyncio.run(asyncio.wait_for(run(), SECONDS))


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    assert "x-common: 1" in head
    length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(length)


messages = st.lists(
    st.tuples(
        st.sampled_from(["/", "/later", "/nowhere"]), st.binary(max_size=200), st.sampled_from(["length", "chunks"])
    ),
    min_size=1,
    max_size=6,
)


def encoded(path: str, body: bytes, how: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\n".encode()
    if how == "length":
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    chunks = [body[start : start + 50] for start in range(0, len(body), 50)]
    packed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + packed + b"0\r\n\r\n"


@settings(max_examples=examples(40))
@given(messages, st.lists(st.integers(1, 400), min_size=1, max_size=12))
def test_every_request_is_answered_once_and_in_order_however_its_bytes_are_cut(
    asked: list[tuple[str, bytes, str]], sizes: list[int]
) -> None:
    stream = b"".join(encoded(*message) for message in asked)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        start = 0
        for size in [*sizes, len(stream)]:
            writer.write(stream[start : start + size])
            await writer.drain()
            await asyncio.sleep(0)
            start += size
        for path, body, _ in asked:
            assert await answer(reader) == ((404, b"{}") if path == "/nowhere" else (200, body))

    talk(Echo(), client)


@settings(max_examples=examples(60))
@given(st.binary(max_size=400), st.integers(0, 60))
def test_no_bytes_whatever_break_the_server(noise: bytes, kept: int) -> None:
    echo = Echo()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(encoded("/later", b"x" * 20, "length")[:kept] + noise)
        writer.write_eof()
        await reader.read()

    talk(echo, client)


def test_bodies_of_all_requests_together_have_a_limit() -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(encoded("/", b"x" * 600, "length"))
        assert (await answer(reader))[0] == 200
        writer.write(encoded("/", b"x" * 1500, "length"))
        assert (await answer(reader))[0] == 503

    talk(Echo(bodies_bytes=1000), client)


@pytest.mark.parametrize("certainly", [True, False])
def test_a_client_that_leaves_is_told_to_the_application(certainly: bool) -> None:
    echo = Echo()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(encoded("/", b"x", "length") + encoded("/never", b"x", "length"))
        assert await answer(reader) == (200, b"x")
        if certainly:  # a reset; without it, the client may still read
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    talk(echo, client)
    assert echo.abandoned[0] is certainly


def test_beyond_the_limit_of_connections_the_one_that_is_idle_for_longest_makes_room() -> None:
    async def run() -> None:
        connections = Connections(Echo(connections=2))
        server = await asyncio.get_running_loop().create_server(connections, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        pairs = []
        for _ in range(3):
            pairs.append(await asyncio.open_connection(*address))
            await asyncio.sleep(0.01)
        (first, _), *others = pairs
        assert await first.read() == b""
        for reader, writer in others:
            writer.write(encoded("/", b"hello", "length"))
            assert await answer(reader) == (200, b"hello")
        for _, writer in pairs:
            writer.close()
        connections.stop()
        server.close()

    asyncio.run(asyncio.wait_for(run(), SECONDS))
