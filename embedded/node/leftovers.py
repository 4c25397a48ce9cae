"""What a runner that was killed left running: it is ended before anything new starts.

It is not adopted: a process that is not our child cannot tell us its exit code, and what it printed since went nowhere.
Nor does it need to be: a container may be restarted at any time.

Two things find it, so that nobody else's process is ever ended: the marker in the environment, which holds a random
name of this data plane; and, for a process that has overwritten its environment (as those do that set their title), a
record of its number and the moment it started, which no other process of the machine shares.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
from contextlib import suppress
from pathlib import Path

from embedded.node.processes import Process, all_pids, kill_marked, stat_of

log = logging.getLogger(__name__)


class Records:
    """Which processes run, as files: `node/processes/<pid>-<start>-<boot>`, empty."""

    def __init__(self, data: Path) -> None:
        self._folder = data / "node" / "processes"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._boot = _boot()

    def add(self, process: Process) -> None:
        """It runs."""
        try:
            (self._folder / f"{process.pid}-{process.started}-{self._boot}").touch(mode=0o600)
        except OSError as error:  # a full disk, for example: its marker finds it as well
            log.warning("process %s has no record: %s", process.pid, error)

    def remove(self, process: Process) -> None:
        """It has ended."""
        (self._folder / f"{process.pid}-{process.started}-{self._boot}").unlink(missing_ok=True)


def name_of(data: Path) -> str:
    """The random name of a data plane, made when it is first asked for: how its markers begin."""
    path = data / "node" / "name"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        if name := path.read_text().strip():
            return name
    name = secrets.token_hex(16)
    path.write_text(f"{name}\n")
    return name


def end_leftovers(data: Path) -> int:
    """End all processes that a runner on this data folder has left; how many there were. No runner may run on it."""
    ended = 0
    folder = data / "node" / "processes"
    boot = _boot()
    for record in sorted(folder.glob("*-*-*")) if folder.is_dir() else ():
        pid, started, booted = record.name.split("-", 2)
        stat = stat_of(int(pid))
        if booted == boot and stat is not None and stat.started == int(started) and stat.state != "Z":
            ended += _end_session(int(pid))
        record.unlink()
    if (data / "node" / "name").exists():
        ended += kill_marked(f"{name_of(data)}/")
    return ended


def _end_session(leader: int) -> int:
    """End all processes of a session whose leader lives."""
    ended = 0
    for pid in all_pids():
        stat = stat_of(pid)
        if stat is not None and stat.session == leader and stat.state != "Z":
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                ended += 1
    return ended


def _boot() -> str:
    """Which start of the machine this is: numbers of processes and their moments repeat after another one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
