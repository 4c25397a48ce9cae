"""Starting the process of a container, and ending it with everything that it started.

Each process leads a session of its own, so what it starts is in its process group, unless it leaves that on purpose.
Everything inherits a variable of the environment that names the container, which finds those who left. Who leaves both
behind, a daemon with an environment of its own, is not found: pods are not isolated.

Python's `subprocess` starts processes by vfork, which takes about a millisecond however large we are; a pidfd tells the
event loop of an end, without signals, in any thread, and with any loop.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

#: The variable that marks every process of a container: `<data plane>/<pod uid>/<container>`.
MARKER = "TRUEUP_CONTAINER"

_FILES = 65536
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM}
_PROC = Path("/proc")


class StartError(Exception):
    """The program could not be started: it is not there, or it is no program."""


class NoRoomError(OSError):
    """The machine has no room for another process now: no memory, no number, no file descriptor left."""


class Stat(NamedTuple):
    """What /proc says of a process. `started` is in ticks since the machine started."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    started: int


def stat_of(pid: int) -> Stat | None:
    """None where there is no such process."""
    try:
        # The name, in parentheses, may itself hold spaces and parentheses.
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:  # it has gone, or it is somebody else's and hidden
        return None
    return Stat(pid, fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def all_pids() -> Iterator[int]:
    """Every process of this machine that we can see."""
    return (int(name) for name in os.listdir(_PROC) if name.isdigit())  # noqa: PTH208  # half the time of iterdir


def marked(mark: str) -> list[int]:
    """The living processes whose marker starts with `mark`. Takes a few milliseconds, and belongs into a thread."""
    wanted = f"\0{MARKER}={mark}".encode()
    found = []
    for pid in all_pids():
        with suppress(OSError):
            if wanted in b"\0" + (_PROC / str(pid) / "environ").read_bytes():
                found.append(pid)
    return found


def kill_marked(mark: str) -> int:
    """SIGKILL for every process so marked, until there is none; how many there were. Belongs into a thread."""
    ended: set[int] = set()
    looks_in_vain = 0
    for _ in range(100):  # what forks faster than we look is gone after a few rounds, and an end takes its time
        found = [pid for pid in marked(mark) if pid != os.getpid()]
        for pid in found:
            _signal(os.kill, pid, signal.SIGKILL)
        ended.update(found)
        # A process has no environment for the moment in which it becomes another program: one look proves nothing.
        looks_in_vain = 0 if found else looks_in_vain + 1
        if looks_in_vain == 2:
            break
        time.sleep(0.01)
    return len(ended)


class Process:
    """A process that runs, or has ended and is reaped.

    `exited` gets its exit code: as a shell gives it, 128 and the number where a signal ended it.
    """

    def __init__(self, popen: subprocess.Popen[bytes], mark: str, on_end: Callable[[Process], None] | None) -> None:
        self.pid = popen.pid
        self.mark = mark
        self.signal = 0  #: that ended it
        self._popen = popen
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        stat = stat_of(self.pid)
        self.started = stat.started if stat else 0  #: ticks since the machine started; it is not reaped yet
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(self._pidfd, self._ended)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.returncode is None

    def terminate(self) -> None:
        """SIGTERM, for the process alone: it knows how to end its children, as process 1 of a container does."""
        if self.running:
            _signal(os.kill, self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, for its whole group."""
        if self.running:
            _signal(os.killpg, self.pid, signal.SIGKILL)
            _signal(os.kill, self.pid, signal.SIGKILL)

    def _ended(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        # What it leaves ends with it, as in a container. Before it is reaped: until then the number is its own.
        _signal(os.killpg, self.pid, signal.SIGKILL)
        code = self._popen.wait()
        self.signal = max(0, -code)
        if self._on_end is not None:
            self._on_end(self)
        if not self.exited.done():
            self.exited.set_result(128 - code if code < 0 else code)


def start(
    argv: Iterable[str],
    env: Mapping[str, str],
    cwd: str,
    *,
    mark: str,
    output: int,
    memory: int | None = None,
    nice: int = 0,
    on_end: Callable[[Process], None] | None = None,
) -> Process:
    """Start a program. Its output goes to the file descriptor `output`, its input is empty.

    `memory` bounds the bytes of data that each process of it may have, `nice` says how much it lets others go first,
    `on_end` is called as soon as it has ended. Raises StartError and NoRoomError.
    """
    arguments = list(argv)
    try:
        popen = subprocess.Popen(  # noqa: S603  # to run what manifests say is what this is for
            arguments,
            env={**env, MARKER: mark},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise NoRoomError(error.errno, error.strerror) from None
        raise StartError(_why(arguments[0], cwd, error)) from None
    # From outside, and not in the child: a function to call there would make `subprocess` fork, slowly.
    with suppress(ProcessLookupError, PermissionError):  # a program may have the rights of another user
        resource.prlimit(popen.pid, resource.RLIMIT_CORE, (0, 0))
        allow_files(popen.pid)
        if memory is not None:
            resource.prlimit(popen.pid, resource.RLIMIT_DATA, (memory, memory))
        if nice:
            os.setpriority(os.PRIO_PROCESS, popen.pid, os.getpriority(os.PRIO_PROCESS, 0) + nice)
    try:
        return Process(popen, mark, on_end)
    except OSError as error:  # no descriptor is left to watch it with
        popen.kill()
        popen.wait()
        raise NoRoomError(error.errno, error.strerror) from None


def allow_files(pid: int = 0) -> None:
    """Let a process have many files open, as far as its user may: by default us. Login shells allow only 1024."""
    _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    files = _FILES if most == resource.RLIM_INFINITY else min(_FILES, most)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (files, most))


async def run(argv: Iterable[str], env: Mapping[str, str], cwd: str, *, mark: str, seconds: float) -> int:
    """Run a program to its end, and give its exit code.

    Raises StartError, NoRoomError, and TimeoutError once it was ended.
    """
    with Path(os.devnull).open("wb") as nowhere:
        process = start(argv, env, cwd, mark=mark, output=nowhere.fileno())
    try:
        async with asyncio.timeout(seconds):
            return await asyncio.shield(process.exited)
    finally:
        process.kill()


def _why(program: str, cwd: str, error: OSError | ValueError) -> str:
    if isinstance(error, ValueError):
        return f"exec: {program!r}: {error}"
    if isinstance(error, FileNotFoundError) and error.filename == cwd:
        return f"working directory {cwd} does not exist"
    if isinstance(error, FileNotFoundError) and "/" not in program:
        return f'exec: "{program}": executable file not found in $PATH'
    return f'exec: "{program}": {error.strerror.lower() if error.strerror else error}'


def _signal(send: Callable[[int, int], None], target: int, number: int) -> None:
    """A signal to whom may be gone by now, or may have become somebody whom we may not signal."""
    with suppress(ProcessLookupError, PermissionError):
        send(target, number)
