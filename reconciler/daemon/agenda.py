"""Which models of an environment are to be looked at, and when. Pure: every method is told the moment.

Moments are seconds of a clock that never goes back. A model that is settled is not here at all, so a pass over an
environment in which nothing has changed has nothing to do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

from renderers.manifest import ObjectId

#: Seconds until what failed is tried again: doubled each time, up to the second.
_FIRST_RETRY, _LONGEST_RETRY = 1.0, 300.0
#: Seconds until something that waits for the cluster is looked at although the cluster has said nothing.
_PATIENCE = 15.0
#: So many repairs of one object, none of them so many seconds after the last, are a fight with somebody.
_FIGHT, _TRUCE = 5, 60.0


@dataclass(slots=True)
class Unsettled:
    """Why a model is not as it should be, since when, and when it is looked at again."""

    since: float
    due: float
    why: str = ""
    tries: int = 0
    #: It waits for a person, or for the cluster: nothing failed.
    waits: bool = False
    #: Something of it is not done because of a limit, which is about all such models together.
    held: bool = False


@dataclass(slots=True)
class _Repairs:
    """How often each object of a model was repaired in a row, and when one was last."""

    last: float
    counts: Counter[ObjectId] = field(default_factory=Counter)

    @property
    def pause(self) -> float:
        return _pause(max(self.counts.values(), default=0))

    def is_over(self, now: float) -> bool:
        return now - self.last > 2 * self.pause + _TRUCE


@dataclass(slots=True)
class Agenda:
    """`jitter` gives numbers from 0 to 1."""

    jitter: Callable[[], float]
    _open: dict[str, Unsettled] = field(default_factory=dict)
    #: By model; that of the latest repair is the last one.
    _repairs: dict[str, _Repairs] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[tuple[str, Unsettled]]:
        return iter(sorted(self._open.items()))

    def touch(self, models: Iterable[str], now: float) -> None:
        """Something else is wanted, or something of it has changed: it is looked at now, however often it failed."""
        for model in models:
            known = self._open.get(model)
            since = known.since if known else now
            self._open[model] = Unsettled(since, max(now, self._calm_at(model)), held=bool(known and known.held))

    def stir(self, models: Iterable[str], now: float) -> None:
        """Something has happened to it that matters only to one who waits: so long as that goes on, patience is new."""
        for model in models:
            known = self._open.get(model)
            if known is not None and known.waits:
                known.due, known.tries = min(known.due, now), 0

    def touch_held(self, now: float) -> None:
        """A limit may have been lifted."""
        self.touch([model for model, one in self._open.items() if one.held], now)

    def due(self, now: float) -> frozenset[str]:
        """Those whose time has come; and with them all that a limit holds, as limits are about all of it."""
        ripe = {model for model, one in self._open.items() if one.due <= now}
        return frozenset(ripe | {model for model, one in self._open.items() if one.held}) if ripe else frozenset()

    def next_due(self) -> float | None:
        """When to look again; None: when something happens."""
        return min((one.due for one in self._open.values()), default=None)

    def settle(self, model: str) -> None:
        """All is as it should be."""
        self._open.pop(model, None)

    def leave(self, model: str, why: str, now: float, *, waits: bool, held: bool = False) -> None:
        """It is not as it should be yet.

        What waits is looked at when the cluster speaks of it; what failed, after a while that grows.
        """
        known = self._open.get(model) or Unsettled(now, now)
        tries = known.tries + 1 if known.waits is waits else 1
        pause = min(_LONGEST_RETRY, (_PATIENCE if waits else _FIRST_RETRY) * 2 ** min(tries - 1, 20))
        due = now + pause * (0.5 + self.jitter())
        self._open[model] = Unsettled(known.since, due, why, tries, waits, held)

    def repaired(self, model: str, objects: Collection[ObjectId], now: float) -> list[ObjectId]:
        """Drift of these objects of it was mended. Which of them it happens to too often.

        Then the model is left alone for longer and longer. Many objects that somebody deletes once are no fight.
        """
        before = self._repairs.pop(model, None)
        row = _Repairs(now) if before is None or before.is_over(now) else before
        row.last = now
        for target in objects:
            row.counts[target] += 1
        self._repairs[model] = row
        while (oldest := next(iter(self._repairs))) != model and self._repairs[oldest].is_over(now):
            del self._repairs[oldest]
        return [target for target in objects if _pause(row.counts[target])]

    def _calm_at(self, model: str) -> float:
        """When a model may be looked at again that somebody keeps changing."""
        row = self._repairs.get(model)
        return row.last + row.pause if row is not None and row.pause else 0.0


def _pause(level: int) -> float:
    """Seconds that a model is left alone after so many repairs in a row."""
    return 0.0 if level < _FIGHT else min(_LONGEST_RETRY, 2.0 ** min(level - _FIGHT + 1, 20))
