"""Memory limits: a container that has more than its limit is ended, as the kernel ends one in a control group.

Control groups themselves need a delegated subtree, which neither a laptop's login session nor a container gives its
processes. So this looks: what the processes of a container have in memory of their own, several times a second. The
limit of data per process (RLIMIT_DATA), far above, stops what grows faster than that.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from embedded.node.processes import Process, Stat, all_pids, stat_of

#: Seconds between two looks, and how many looks until the processes of all containers are found anew: that reads /proc.
_LOOK_SECONDS, _LOOKS_PER_SEARCH = 0.1, 10

#: After an exact measurement, which walks page tables, nothing is measured for so many times the time it took.
_REST = 20

_PAGE = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")


def data_limit(limit: int) -> int:
    """RLIMIT_DATA for a container with this limit: it counts what is only reserved, like the stacks of threads."""
    return 2 * limit + 4 * 1024**3


class _Member(NamedTuple):
    pid: int
    started: int


@dataclass(slots=True)
class _Watched:
    process: Process
    limit: int
    exceeded: Callable[[], None]
    members: set[_Member] = field(default_factory=set)
    rest_until: float = 0.0


class MemoryWatch:
    """Watches the memory of containers. `run` until it is cancelled."""

    def __init__(self) -> None:
        self._watched: dict[Process, _Watched] = {}
        self._some = asyncio.Event()

    def add(self, process: Process, limit: int, exceeded: Callable[[], None]) -> None:
        """Call `exceeded`, once, when what `process` started has more than `limit` bytes in memory."""
        member = _Member(process.pid, process.started)
        self._watched[process] = _Watched(process, limit, exceeded, {member})
        self._some.set()

    def remove(self, process: Process) -> None:
        """The process has ended."""
        self._watched.pop(process, None)
        if not self._watched:
            self._some.clear()

    async def run(self) -> None:
        """Look, again and again, while there is somebody to look at."""
        looks = 0
        clock = asyncio.get_running_loop().time
        while True:
            await self._some.wait()
            await asyncio.sleep(_LOOK_SECONDS)
            watched = list(self._watched.values())
            for one in await asyncio.to_thread(_look, watched, clock, search=looks % _LOOKS_PER_SEARCH == 0):
                if self._watched.pop(one.process, None) is not None:
                    one.exceeded()
            looks += 1


def _look(watched: list[_Watched], clock: Callable[[], float], *, search: bool) -> list[_Watched]:
    """Those who have more than their limit."""
    if search:
        _search(watched)
    over = []
    for one in watched:
        # First the cheap way, by which pages that forked processes share count several times.
        if sum(_private(member.pid) for member in one.members) <= one.limit or clock() < one.rest_until:
            continue
        begun = clock()
        if sum(_share(member.pid) for member in one.members) > one.limit:
            over.append(one)
        one.rest_until = clock() + _REST * (clock() - begun)
    return over


def _search(watched: list[_Watched]) -> None:
    """Find the processes of each container: those of its session, and the children of those, wherever they went."""
    stats = {pid: stat for pid in all_pids() if (stat := stat_of(pid)) is not None}
    by_session = {one.process.pid: one for one in watched}
    for one in watched:
        one.members = {member for member in one.members if _is(member, stats)}
    known = {member.pid: one for one in watched for member in one.members}
    for stat in stats.values():
        found = _container_of(stat, stats, by_session, known)
        if found is not None:
            found.members.add(_Member(stat.pid, stat.started))


def _is(member: _Member, stats: dict[int, Stat]) -> bool:
    return member.pid in stats and stats[member.pid].started == member.started


def _container_of(
    stat: Stat, stats: dict[int, Stat], by_session: dict[int, _Watched], known: dict[int, _Watched]
) -> _Watched | None:
    passed: list[int] = []
    at: Stat | None = stat
    while at is not None and at.pid not in passed:
        found = known.get(at.pid) or by_session.get(at.session)
        if found is not None:
            return found
        passed.append(at.pid)
        at = stats.get(at.parent)
    return None


def _private(pid: int) -> int:
    """Bytes in memory that no file holds, those shared with forked processes included."""
    try:
        _, resident, of_files, *_ = (_PROC / str(pid) / "statm").read_bytes().split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(of_files)) * _PAGE


def _share(pid: int) -> int:
    """The same, where pages that several processes share count for each in part; with shared memory."""
    total = 0
    try:
        for line in (_PROC / str(pid) / "smaps_rollup").read_bytes().splitlines():
            if line.startswith((b"Pss_Anon:", b"Pss_Shmem:")):
                total += int(line.split()[1]) * 1024
    except OSError:
        return 0
    return total
