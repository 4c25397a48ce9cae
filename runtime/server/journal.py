"""The front's side of the inference log: hands records to the recorder process, or drops them, and never waits.

The recorder is a process of its own (`recorder`), of low priority: what it does with JSON, gzip and a slow or absent
object storage costs no prediction anything. What it cannot take at once is dropped and counted.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import Mapping, Sequence
from typing import Any, cast

from runtime.server import frames, log

#: Bytes that may be on their way to the recorder.
_BACKLOG = 8 * 1024 * 1024
#: A larger body is left out of its record, which says how large it was; so is what the model logged itself.
_BODY_LIMIT = 256 * 1024
#: Seconds that records are collected for before they are sent: one system call for many.
_COLLECT = 0.05
#: Seconds for the rest of the log, at the end.
_ENDING = 10.0


class Journal:
    """The log of one server. `command` starts the recorder, the number of its socket is appended.

    Until `begin` is called nothing is recorded.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self._command = command
        self._environ = environ
        self._loop = asyncio.get_running_loop()
        self._ratio = 0.0
        self._transport: asyncio.WriteTransport | None = None
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._sent = 0  # records that this recorder has not told of
        self._job: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._closing = False
        self.counts = {"written": 0, "dropped": 0}

    def begin(self, ratio: float) -> None:
        """Record this part of the predictions, from 0 to 1."""
        self._ratio = ratio
        if ratio > 0:
            self._job = self._loop.create_task(self._run())

    def is_sampled(self) -> bool:
        """Whether the next prediction is recorded."""
        return self._ratio > 0 and random.random() < self._ratio  # noqa: S311 - a sample, and no secret

    def record(self, known: Mapping[str, Any], body: bytes, answer: bytes, notes: bytes = b"") -> None:
        """One prediction. Bodies are as they were received and sent; `notes`: what the model logged of it, as JSON."""
        sizes = {"input_bytes": len(body), "output_bytes": len(answer)}
        if notes:
            sizes["logged_bytes"] = len(notes)
        told = json.dumps({**known, **sizes}).encode()
        parts = [told, *(part if len(part) <= _BODY_LIMIT else b"" for part in (body, answer, notes))]
        frame = frames.pack(frames.RECORD, 0, " ".join(str(len(part)) for part in parts), b"".join(parts))
        if self._pending_bytes + len(frame) > _BACKLOG or self._is_behind():
            self.counts["dropped"] += 1
            return
        if not self._pending:
            self._loop.call_later(_COLLECT, self._send)
        self._pending.append(frame)
        self._pending_bytes += len(frame)

    def pids(self) -> list[int]:
        """Of the recorder."""
        return [self._process.pid] if self._process is not None else []

    async def close(self) -> None:
        """Waits until the recorder has written the rest, for some seconds."""
        self._closing = True
        self._send()
        if self._job is None:
            return
        if self._transport is not None:
            self._transport.write_eof()
        _, unfinished = await asyncio.wait([self._job], timeout=_ENDING)
        if unfinished:
            if self._process is not None:
                self._process.kill()
            self._job.cancel()
            log.write("warning", "the rest of the inference log could not be written in time", records=self._sent)

    def _is_behind(self) -> bool:
        return self._transport is not None and self._transport.get_write_buffer_size() > _BACKLOG

    def _send(self) -> None:
        if self._transport is None or not self._pending:
            if self._pending:  # the recorder is being started
                self._loop.call_later(1.0, self._send)
            return
        self._sent += len(self._pending)
        self._transport.write(b"".join(self._pending))
        self._pending, self._pending_bytes = [], 0

    async def _run(self) -> None:
        """Keeps a recorder."""
        while True:
            ours, theirs = socket.socketpair()
            with theirs:
                number = theirs.fileno()
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    str(number),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=[number],
                    env=dict(self._environ),
                )
            ours.setblocking(False)
            transport, _ = await self._loop.create_unix_connection(lambda: _Listener(self), sock=ours)
            self._transport = transport
            if self._closing:
                self._send()
                transport.write_eof()
            status = await self._process.wait()
            self._transport, self._process = None, None
            transport.abort()
            self.counts["dropped"] += self._sent
            self._sent = 0
            if self._closing:
                return
            log.write("warning", "the recorder of the inference log ended and is started anew", status=status)
            await asyncio.sleep(5.0)
            if self._closing:
                return

    def told(self, counts: Mapping[str, int]) -> None:
        """What became of records."""
        for name, count in counts.items():
            self.counts[name] += count
            self._sent -= count


class _Listener(asyncio.Protocol):
    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._buffer = frames.Buffer()

    def data_received(self, data: bytes) -> None:
        for frame in self._buffer.feed(data):
            self._journal.told(cast(dict[str, int], json.loads(frame.body)))


def recorder_environment(environ: Mapping[str, str], path: str | None) -> dict[str, str]:
    """The recorder's environment variables: the server's, with the bootstrap's path for modules."""
    made = {name: value for name, value in environ.items() if name != "PYTHONPATH"}
    return made | {"PYTHONPATH": path} if path else dict(environ)
