"""Whether the daemon is alive: every loop of it says so now and then, and one that is stuck says nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

#: Longer than any single thing that a loop does between two beats: a request insists for a minute; git for two, and a
#: fetch for two to ask and two more to fetch.
STUCK_SECONDS = 300.0


class Beat(Protocol):
    """How a loop says that it is alive: `Health.beat`."""

    def __call__(self, loop: str, /, rest: float = 0.0) -> None: ...


@dataclass(slots=True)
class Health:
    """Threads may share it."""

    clock: Callable[[], float] = time.monotonic
    stuck_s: float = STUCK_SECONDS
    _beats: dict[str, float] = field(default_factory=dict)

    def beat(self, loop: str, /, rest: float = 0.0) -> None:
        """A loop goes round. It is about to rest for so many seconds, which do not count."""
        self._beats[loop] = self.clock() + rest

    def forget(self, loop: str) -> None:
        """A loop has ended, as it should."""
        self._beats.pop(loop, None)

    def judge(self) -> tuple[bool, str]:
        """Whether all of them go round, and which do not."""
        now = self.clock()
        stuck = {loop: now - at for loop, at in list(self._beats.items()) if now - at > self.stuck_s}
        words = ", ".join(f"{loop} has been stuck for {seconds:.0f} s" for loop, seconds in sorted(stuck.items()))
        return not stuck, words or "alive"
