"""What was changed past Git in an environment: what is so still, and what was mended lately. Pure.

Moments are seconds of a clock that never goes back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from reconciler import plan
from reconciler.plan import Change, Op, Plan
from reconciler.report import Done, Outcome
from renderers.manifest import ObjectId

REPORTED, MENDED = "reported", "mended"

#: What was mended is remembered, so much of it, for people who look.
_REMEMBERED = 20


class Drifted(NamedTuple):
    """Something was changed past Git. `seen` is when."""

    change: Change
    seen: float
    outcome: str  #: `MENDED`, `REPORTED`, or why it is not mended


@dataclass(slots=True)
class Drifts:
    """Of one environment."""

    #: What was changed past Git and is still so, by object.
    open: dict[ObjectId, Drifted] = field(default_factory=dict)
    #: What was mended lately, the newest last.
    mended: deque[Drifted] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    #: What somebody has deleted, and nobody was seen to make again.
    vanished: set[ObjectId] = field(default_factory=set)
    #: When somebody else was first seen to touch an object that has not been found to be as it should be since.
    _seen_at: dict[ObjectId, float] = field(default_factory=dict)

    @property
    def reported(self) -> list[ObjectId]:
        """What stays as somebody has made it, as long as the environment wants that."""
        return [target for target, one in self.open.items() if one.outcome == REPORTED]

    def changed(self, target: ObjectId, now: float) -> None:
        """Somebody else was seen to change an object."""
        self._seen_at.setdefault(target, now)

    def deleted(self, target: ObjectId, now: float) -> None:
        """Somebody else was seen to delete an object."""
        self.vanished.add(target)
        self._seen_at.setdefault(target, now)

    def is_back(self, target: ObjectId) -> None:
        """An object was seen, whoever made it."""
        self.vanished.discard(target)

    def noted(self, planned: Plan, done: Collection[Done], now: float) -> list[Drifted]:
        """A pass has ended. What is to be told: what was mended, and what is new about what was not."""
        outcome = {one.change.id: one for one in done}
        news = []
        for change in planned.changes:
            one = outcome.get(change.id)
            is_applied = one is not None and one.outcome is Outcome.APPLIED
            if not change.drift:
                # Of what has vanished and is there again, nobody was told yet: see `settled`.
                if (is_applied or change.op is Op.UNCHANGED) and change.id not in self.vanished:
                    self._drop(change.id)
                continue
            seen = self._seen_at.setdefault(change.id, now)
            if is_applied:
                news.append(self._mend(Drifted(change, seen, MENDED)))
                continue
            words = (one.message if one else "") or change.held or change.reason
            words = REPORTED if change.held == plan.REPORTED else words
            drifted, before = Drifted(change, seen, words), self.open.get(change.id)
            if before is None or _edit(before) != _edit(drifted):
                news.append(drifted)
            self.open[change.id] = drifted
        return news

    def settled(
        self, targets: Iterable[ObjectId], environment: str, is_there: Callable[[ObjectId], bool], now: float
    ) -> list[Drifted]:
        """These objects are as they should be. What is to be told: what a pass has made anew before it had heard of
        the deletion."""
        if not (self.open or self.vanished or self._seen_at):
            return []
        news = []
        for target in targets:
            if target in self.vanished and is_there(target):
                made = Change(Op.CREATE, target, environment, drift=True)
                news.append(self._mend(Drifted(made, self._seen_at.get(target, now), MENDED)))
            self._drop(target)
        return news

    def forget(self, is_known: Callable[[ObjectId], bool]) -> None:
        """What is neither there nor wanted is no drift any more; if it is wanted again some day, that is a new wish."""
        for target in {*self.open, *self.vanished, *self._seen_at}:
            if not is_known(target):
                self._drop(target)

    def _mend(self, drifted: Drifted) -> Drifted:
        self._drop(drifted.change.id)
        # Without its manifest, which would be kept with it.
        self.mended.append(drifted._replace(change=replace(drifted.change, manifest=None)))
        return drifted

    def _drop(self, target: ObjectId) -> None:
        self.open.pop(target, None)
        self._seen_at.pop(target, None)
        self.vanished.discard(target)


def _edit(drifted: Drifted) -> object:
    """What somebody did: when that is something else, it is told again."""
    return drifted.change.by, drifted.change.fields
