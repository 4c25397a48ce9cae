"""Child processes: their output goes to the log, and none of them outlives the run."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, NamedTuple

from runtime.exits import Exit, Failure
from runtime.logs import Log

#: Seconds between asking a process to end and ending it.
_GRACE = 3.0
#: The longest line that is logged as one.
_LINE = 1 << 14
#: How much of the end of the output an error may quote.
_TAIL = 1 << 14


class Ended(NamedTuple):
    """How a process ended."""

    status: int | None  #: its exit status; negative: the signal that killed it; None: it took too long
    tail: str  #: the end of its output
    out_of_memory: bool = False  #: the kernel killed it for lack of memory

    @property
    def fault(self) -> str | None:
        """What became of it, for a sentence that begins with its name; None where it ended by itself."""
        if self.out_of_memory:
            limit = memory_limit()
            allowed = f", of which it may use {limit >> 20} MiB" if limit else ""
            return f"was killed for lack of memory{allowed}: give the build more"
        if self.status is not None and self.status < 0:
            name = signal.Signals(-self.status).name
            guess = " (this is how a lack of memory looks, too)" if self.status == -signal.SIGKILL else ""
            return f"was killed by {name}{guess}"
        return None


def run(
    arguments: Sequence[str | Path],
    *,
    log: Log,
    cwd: Path,
    env: Mapping[str, str],
    timeout_s: float | None = None,
    pass_fds: Sequence[int] = (),
) -> Ended:
    """Runs a program to its end, or for `timeout_s` seconds. What it leaves running is ended with it, but for what
    has begun a session of its own: that ends with the container, and is not waited for. `pass_fds` are descriptors
    that it gets under the same numbers.

    Raises OSError where it cannot be started.
    """
    kills = _memory_kills()
    # A group of its own, so that what it started is ended too; the same session, which whoever runs us may end.
    process = subprocess.Popen(  # noqa: S603 - the callers' argument lists are fixed
        [str(argument) for argument in arguments],
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
        pass_fds=pass_fds,
    )
    assert process.stdout is not None
    tail: list[str] = []
    # The thread closes the pipe: nobody else can while it reads, and what left the group may hold it open for ever.
    reader = threading.Thread(target=_pass_on, args=(process.stdout, log, tail), daemon=True)
    reader.start()
    try:
        status: int | None = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        _end(process)
        reader.join(_GRACE)
    return Ended(status, "".join(tail), status == -signal.SIGKILL and _memory_kills() > kills)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGINT raise a Failure in the main thread, so that everything is left tidy."""

    def interrupt(number: int, _: FrameType | None) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_IGN)  # once: the second would interrupt the tidying
        raise Failure("interrupted", f"{signal.Signals(number).name} ended it", Exit.INTERRUPTED)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def memory_limit() -> int | None:
    """Bytes that this container may use, where a control group says so."""
    with suppress(OSError, ValueError):
        return int(Path("/sys/fs/cgroup/memory.max").read_text())
    return None


def _memory_kills() -> int:
    """How many processes of this container the kernel has killed for lack of memory."""
    for file in ("memory.events", "memory/memory.oom_control"):  # of cgroup v2, of v1
        with suppress(OSError, ValueError):
            for line in (Path("/sys/fs/cgroup") / file).read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return 0


def _pass_on(stream: IO[bytes], log: Log, tail: list[str]) -> None:
    kept = 0
    with stream:
        for line in iter(lambda: stream.readline(_LINE), b""):
            text = line.decode("utf-8", "replace")
            log.say(text)
            tail.append(text)
            kept += len(text)
            while kept > _TAIL and len(tail) > 1:
                kept -= len(tail.pop(0))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process, if it runs, and its group."""
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
