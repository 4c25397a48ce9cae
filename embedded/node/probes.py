"""Asking a container how it is: probes, and the hooks of its life, which are asked in the same ways.

What a probe is told, and in which words, is what a kubelet says (https://kubernetes.io/docs/concepts/configuration/
liveness-readiness-startup-probes/): any answer from 200 to 399 is a good one, and redirects are not followed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from embedded.node import processes

Object = dict[str, Any]

#: Runs a command in the container: its exit code. Raises TimeoutError and processes.StartError.
Exec = Callable[[list[str], float], Awaitable[int]]


class Asked(NamedTuple):
    """Whom a probe asks."""

    ip: str
    ports: Mapping[str, int]  #: of the container, by name
    run: Exec


class Thresholds:
    """Pure: what a row of results means. It starts with `first`, and changes after so many equal results."""

    def __init__(self, probe: Object, *, first: bool) -> None:
        self.value = first
        self._needed = {True: probe.get("successThreshold", 1), False: probe.get("failureThreshold", 3)}
        self._row = 0
        self._last: bool | None = None

    def take(self, result: bool) -> bool:
        """One more result; whether the meaning is settled by it: the row is as long as it must be."""
        self._row = self._row + 1 if result is self._last else 1
        self._last = result
        if self._row < self._needed[result]:
            return False
        self.value = result
        return True


async def problem_of(handler: Object, asked: Asked, seconds: float) -> str:
    """What is wrong, "" where nothing is: of a probe or a hook (`httpGet`, `tcpSocket`, `exec`, `sleep`)."""
    try:
        if "exec" in handler:
            return await _exec(handler["exec"]["command"], asked, seconds)
        async with asyncio.timeout(seconds):
            if "sleep" in handler:
                await asyncio.sleep(handler["sleep"]["seconds"])
                return ""
            if "httpGet" in handler:
                return await _http(handler["httpGet"], asked)
            if "tcpSocket" in handler:
                return await _tcp(handler["tcpSocket"], asked)
    except TimeoutError:
        return f"no answer within {seconds:g} s"
    return f"a {', '.join(handler)} handler is not known here"


async def _exec(command: list[str], asked: Asked, seconds: float) -> str:
    try:
        code = await asked.run(command, seconds)
    except TimeoutError:
        return f'command "{" ".join(command)}" timed out'
    except (processes.StartError, processes.NoRoomError) as error:
        return str(error)
    return f'command "{" ".join(command)}" exited with {code}' if code else ""


async def _tcp(action: Object, asked: Asked) -> str:
    host, port = _address(action, asked)
    try:
        _, writer = await asyncio.open_connection(host, port)
    except (OSError, ValueError) as error:  # a ValueError: what no name of a host can be
        return f"dial tcp {host}:{port}: {_cause(error)}"
    writer.transport.abort()
    return ""


async def _http(action: Object, asked: Asked) -> str:
    host, port = _address(action, asked)
    secure = action.get("scheme") == "HTTPS"
    path = action.get("path") or "/"
    url = f"{'https' if secure else 'http'}://{host}:{port}{path}"
    headers = {"Host": f"{host}:{port}", "User-Agent": "kube-probe/1.36", "Accept": "*/*", "Connection": "close"}
    headers |= {header["name"]: header.get("value", "") for header in action.get("httpHeaders", ())}
    head = f"GET {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=_unverified() if secure else None)
    except (OSError, ValueError) as error:
        return f'Get "{url}": dial tcp {host}:{port}: {_cause(error)}'
    try:
        writer.write(f"{head}\r\n".encode("latin-1", "replace"))
        version, _, rest = (await reader.readline()).partition(b" ")
        status = rest[:3]
        if not version.startswith(b"HTTP/") or not status.isdigit():
            return f'Get "{url}": EOF' if not version else f'Get "{url}": malformed HTTP response'
        # Whoever writes an answer to a connection that was closed before is told off by the kernel, and logs that.
        with suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.read(10 * 1024)
    except (OSError, ValueError) as error:
        return f'Get "{url}": {_cause(error)}'
    finally:
        writer.transport.abort()
    code = int(status)
    return "" if 200 <= code < 400 else f"HTTP probe failed with statuscode: {code}"


def _address(action: Object, asked: Asked) -> tuple[str, int]:
    port = action["port"]
    if isinstance(port, str) and not port.isdigit():
        port = asked.ports.get(port, 0)
    return action.get("host") or asked.ip, int(port)


def _cause(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connect: connection refused"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _unverified() -> ssl.SSLContext:
    """A probe asks whether somebody answers, not who it is: certificates are not looked at, as by a kubelet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
