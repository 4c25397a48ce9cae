"""Asks Git, now and then, which commits the branches that are built stand at."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event

from reconciler import facts
from reconciler.cluster import Reader
from reconciler.daemon.conductor import Commits
from reconciler.daemon.health import Beat
from reconciler.daemon.pace import spread
from reconciler.desired import Unresolved
from reconciler.telling.logs import Log
from renderers.catalog import Catalog, Facts
from schemas.environment import DataPlane

log = Log(__name__)


@dataclass(slots=True)
class Branches:
    """`catalog` gives the specs as they are by now."""

    catalog: Callable[[], Catalog]
    reader_of: Callable[[DataPlane], Reader]
    mirrors: Mapping[str, str]
    interval_s: float
    hand_on: Callable[[Commits], None]
    heard: Callable[[bool, float], None]
    beat: Beat
    _asked: Event = field(default_factory=Event, init=False)
    _stopped: bool = field(default=False, init=False)

    def look_now(self) -> None:
        """There may be new branches, or new commits."""
        self._asked.set()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped = True
        self._asked.set()

    def run(self) -> None:
        """Until it is stopped."""
        before = Commits({}, {})
        while not self._stopped:
            self.beat("branches")
            began = time.monotonic()
            try:
                before = self._look(before, began)
            except Exception:  # without this thread nobody would ever look again
                log.exception("a look at the branches ended with an error of the program")
            pause = max(1.0, spread(self.interval_s) - (time.monotonic() - began))
            self.beat("branches", pause)
            if self._asked.wait(pause):
                self._asked.clear()

    def _look(self, before: Commits, began: float) -> Commits:
        known, unresolved = self._gathered(self.catalog())
        if known.commits or unresolved:
            self.heard(bool(unresolved), time.monotonic() - began)
        found = Commits(known.commits, unresolved)
        if found != before:
            self.hand_on(found)
        return found

    def _reader(self, plane: DataPlane) -> Reader:
        """Each cluster that hangs is waited for once, and several may."""
        self.beat("branches")
        return self.reader_of(plane)

    def _gathered(self, catalog: Catalog) -> tuple[Facts, Unresolved]:
        """Where no branch is built, there is no unit to look through for it."""
        if all(build.spec.branch is None for build in catalog.builds.values()):
            return Facts(), {}
        return facts.gather(catalog, self._reader, self.mirrors)
