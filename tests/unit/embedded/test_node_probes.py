"""Asking a container how it is, against real servers."""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop

from embedded.node.probes import Asked, problem_of
from embedded.node.processes import StartError


async def nothing(command: list[str], seconds: float) -> int:
    raise StartError(f"exec: {command[0]}")


async def answering(answer: bytes, handler: dict[str, Any], seconds: float = 5) -> tuple[str, bytes]:
    """What a probe says of a server that answers so, and what it was asked; an empty answer never comes."""
    asked = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked = await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if not answer:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    said = await problem_of(handler, Asked("127.0.0.1", {"http": port}, nothing), seconds)
    server.close()
    return said.replace(str(port), "PORT"), asked


def test_answers_from_200_to_399_are_good() -> None:
    handler = {"httpGet": {"path": "/v2/health/ready", "port": "http", "httpHeaders": [{"name": "X-A", "value": "b"}]}}

    async def story() -> None:
        said, asked = await answering(b"HTTP/1.1 200 OK\r\n\r\nfine", handler)
        assert said == ""
        assert asked.startswith(b"GET /v2/health/ready HTTP/1.1\r\n")
        assert b"X-A: b\r\n" in asked
        assert b"kube-probe/" in asked
        assert (await answering(b"HTTP/1.0 302 Found\r\nLocation: /\r\n\r\n", handler))[0] == ""
        bad = await answering(b"HTTP/1.1 503 Service Unavailable\r\n\r\n", handler)
        assert bad[0] == "HTTP probe failed with statuscode: 503"

    uvloop.run(story())


def test_what_is_no_answer_is_named() -> None:
    handler = {"httpGet": {"path": "/", "port": "http", "scheme": "HTTP"}}

    async def story() -> None:
        assert (await answering(b"\x16\x03\x01garbage", handler))[0].endswith("malformed HTTP response")
        assert (await answering(b"", handler, 0.1))[0] == "no answer within 0.1 s"
        closed = await problem_of({"httpGet": {"port": 1}}, Asked("127.0.0.1", {}, nothing), 1)
        assert closed == 'Get "http://127.0.0.1:1/": dial tcp 127.0.0.1:1: connect: connection refused'

    uvloop.run(story())


def test_a_port_may_be_enough() -> None:
    async def story() -> None:
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        asked = Asked("127.0.0.1", {}, nothing)
        assert await problem_of({"tcpSocket": {"port": port}}, asked, 1) == ""
        server.close()
        await server.wait_closed()
        refused = await problem_of({"tcpSocket": {"port": port}}, asked, 1)
        assert refused == f"dial tcp 127.0.0.1:{port}: connect: connection refused"

    uvloop.run(story())


def test_a_command_says_it_by_its_exit_code() -> None:
    async def story() -> None:
        async def code(command: list[str], seconds: float) -> int:
            if command[0] == "slow":
                raise TimeoutError
            return len(command) - 1

        asked = Asked("127.0.0.1", {}, code)
        assert await problem_of({"exec": {"command": ["check"]}}, asked, 1) == ""
        assert await problem_of({"exec": {"command": ["check", "x"]}}, asked, 1) == 'command "check x" exited with 1'
        assert await problem_of({"exec": {"command": ["slow"]}}, asked, 1) == 'command "slow" timed out'
        missing = Asked("127.0.0.1", {}, nothing)
        assert await problem_of({"exec": {"command": ["none"]}}, missing, 1) == "exec: none"

    uvloop.run(story())


def test_a_host_that_can_be_none_is_a_failed_probe_and_no_fault_of_ours() -> None:
    async def story() -> None:
        asked = Asked("127.0.0.1", {}, nothing)
        for handler in ({"tcpSocket": {"port": 80, "host": ".."}}, {"httpGet": {"port": 80, "host": "x" * 300}}):
            assert "dial tcp" in await problem_of(handler, asked, 1)

    uvloop.run(story())
