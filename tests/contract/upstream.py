"""A server that says who it is and what it was asked: what stands behind a gateway in the tests, as a process.

    python upstream.py NAME ADDRESS PORT

`x-wait: SECONDS` in a request delays the answer, `x-answer: STATUS` is its status. Where the path is /count the answer
is how many requests came before, those to /count left out. A request with `x-user` of a known member of an audience is
answered with that audience, as a resolver does.
"""

from __future__ import annotations

import asyncio
import json
import sys

AUDIENCES = {"anna": "west", "ben": "east"}


class Connection(asyncio.Protocol):
    requests = 0

    def __init__(self, name: str) -> None:
        self._name = name
        self._unread = b""
        self._head: list[str] = []
        self._body_left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        data = self._unread + data
        while True:
            if self._head:
                skipped = min(self._body_left, len(data))
                self._body_left -= skipped
                data = data[skipped:]
                if self._body_left:
                    break
                self._answer(self._head)
                self._head = []
            head, end, rest = data.partition(b"\r\n\r\n")
            if not end:
                break
            self._head, data = head.decode("latin-1").split("\r\n"), rest
            lengths = [line for line in self._head if line.lower().startswith("content-length:")]
            self._body_left = int(lengths[0].partition(":")[2]) if lengths else 0
        self._unread = data

    def _answer(self, lines: list[str]) -> None:
        method, path, _ = lines[0].split(" ")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(": ")
            name = name.lower()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        if path == "/count":
            said: object = Connection.requests
        else:
            Connection.requests += 1
            said = {"name": self._name, "method": method, "path": path, "headers": headers}
        body = json.dumps(said).encode()
        audience = AUDIENCES.get(headers.get("x-user", ""))
        told = f"x-trueup-audience: {audience}\r\n" if audience else ""
        status = headers.get("x-answer", "200")
        text = (
            f"HTTP/1.1 {status} Said\r\nserver: upstream\r\n{told}content-length: {len(body)}\r\n\r\n".encode() + body
        )
        asyncio.get_running_loop().call_later(float(headers.get("x-wait", 0)), self._transport.write, text)


async def serve(name: str, address: str, port: int) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Connection(name), address, port, backlog=1024)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], int(sys.argv[3])))
