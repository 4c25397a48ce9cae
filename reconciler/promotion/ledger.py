"""What the records say of a place: what is served there, what was verified, and what must not be tried again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TypeAlias

from reconciler.records import Build, BuildPhase, Phase, Promotion

#: (environment, model, variation): where a build is to be served.
PlaceKey: TypeAlias = tuple[str, str, str]

_NEVER = datetime.min.replace(tzinfo=UTC)
_NOT_YET = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Ledger:
    """All records, by what is asked of them.

    `builds`: by their records' names. `served`: what a place serves although no promotion has brought it there: it was
    rendered straight from its spec until promotions became needed. Without that, the first change of
    `rollout: replace` to a canary would take away what serves. `unreadable`: (environment, model) -> why, where a
    promotion cannot be read: it may be the one that says what is served, so nothing is decided there.
    """

    builds: Mapping[str, Build] = field(default_factory=dict)
    promotions: tuple[Promotion, ...] = ()
    served: Mapping[PlaceKey, str] = field(default_factory=dict)
    unreadable: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @cached_property
    def _builds_by_id(self) -> dict[str, Build]:
        return {build.spec.id: build for _, build in sorted(self.builds.items())}

    @cached_property
    def _by_place(self) -> dict[PlaceKey, tuple[Promotion, ...]]:
        found: dict[PlaceKey, list[Promotion]] = {}
        for promotion in sorted(self.promotions, key=_asked):
            found.setdefault(promotion.place, []).append(promotion)
        return {place: tuple(promotions) for place, promotions in found.items()}

    @cached_property
    def _reached(self) -> dict[tuple[str, str, str], tuple[PlaceKey, ...]]:
        """(build id, environment, model) -> where it was served with success, or before there were promotions."""
        found: dict[tuple[str, str, str], dict[PlaceKey, None]] = {}
        for place in sorted(self._by_place.keys() | self.served.keys()):
            succeeded = [p.spec.build for p in self.at(place) if p.status.phase is Phase.SUCCEEDED]
            for build_id in succeeded or [self.current(place)]:
                found.setdefault((build_id, *place[:2]), {})[place] = None
        return {key: tuple(places) for key, places in found.items()}

    def build(self, build_id: str) -> Build | None:
        """The record of a build."""
        return self._builds_by_id.get(build_id)

    @cached_property
    def _by_automation(self) -> dict[tuple[str, str], tuple[Build, ...]]:
        found: dict[tuple[str, str], list[Build]] = {}
        for build in self.builds.values():
            if build.spec.action == "Build" and build.status.phase is BuildPhase.SUCCEEDED:
                found.setdefault((build.spec.automation, build.spec.model), []).append(build)
        newest_first = {
            key: sorted(builds, key=lambda build: (build.spec.cause.at, build.identity.name), reverse=True)
            for key, builds in found.items()
        }
        return {key: tuple(builds) for key, builds in newest_first.items()}

    def made_by(self, automation: str, model: str) -> tuple[Build, ...]:
        """The builds of an automation that have succeeded, the newest run first."""
        return self._by_automation.get((automation, model), ())

    def newer(self, builds: Sequence[Build], place: PlaceKey) -> list[Build]:
        """Those of these that are not older than what the place serves, for all that is known.

        That is all of them, unless the record of what is served is gone, or was gone and is made anew: then those that
        began after it was asked for.
        """
        current = self.current(place)
        served = self.build(current)
        asked_for = [p.spec.cause.at for p in self.at(place) if p.spec.build == current]
        if not asked_for or (served is not None and served.status.phase is BuildPhase.SUCCEEDED):
            return list(builds)
        return [build for build in builds if build.spec.cause.at > max(asked_for)]

    def at(self, place: PlaceKey) -> tuple[Promotion, ...]:
        """The promotions of a place, in the order in which they were asked for."""
        return self._by_place.get(place, ())

    def under_way(self, place: PlaceKey) -> tuple[Promotion, ...]:
        """Its unfinished promotions. The first one has the place: the others wait, or give way.

        A rollback comes before everything: to the build that the newest one names, and of those the first, since who
        asks twice must not make it begin anew. Then comes what rolls out; then what was asked for first. Any two
        reconcilers agree on it.
        """
        unfinished = [p for p in self.at(place) if not p.is_finished]
        rollbacks = [p for p in unfinished if p.spec.kind == "Rollback"]
        others = [p for p in unfinished if p.spec.kind != "Rollback"]
        newest = rollbacks[-1].spec.build if rollbacks else ""
        rollbacks.sort(key=lambda p: p.spec.build != newest)
        return (*rollbacks, *sorted(others, key=lambda p: not p.is_rolling_out))

    def current(self, place: PlaceKey) -> str:
        """The id of the build that is served there; "" for none."""
        here = self.at(place)
        succeeded = [p for p in here if p.status.phase is Phase.SUCCEEDED]
        if succeeded:
            return max(succeeded, key=_ended).spec.build
        # What was served from the spec is remembered by the first promotion that was to replace it.
        expected = next((p.spec.expected_current for p in here if p.spec.expected_current), "")
        return expected or self.served.get(place, "")

    def says_what_is_served(self, place: PlaceKey) -> bool:
        """Whether a promotion of the place does, so that nobody has to look."""
        return any(p.status.phase is Phase.SUCCEEDED or p.spec.expected_current for p in self.at(place))

    def verified(self, build_id: str, environment: str, model: str) -> bool:
        """Whether a promotion of it has succeeded there, for any variation, and nobody has taken it back since."""
        reached = self._reached.get((build_id, environment, model), ())
        return any(self.quarantined(build_id, place) is None for place in reached)

    def quarantined(self, build_id: str, place: PlaceKey) -> Promotion | None:
        """The promotion because of which a build is not tried there again by itself; None where it may be.

        That is one that was rejected or rolled back, or a rollback away from it. What the build achieved later, or a
        person who asked for another attempt, lifts it. The order is that of the ends, which are all of one clock.
        """
        against: Promotion | None = None
        # A rollback under way leaves what is served now, whatever else is under way.
        for promotion in sorted(self.at(place), key=lambda p: (_ended(p)[0], _leaves(p, build_id), p.identity.name)):
            spec, phase = promotion.spec, promotion.status.phase
            if _leaves(promotion, build_id):
                if phase not in (Phase.REJECTED, Phase.SUPERSEDED):
                    against = promotion
            elif spec.build == build_id:
                if phase in (Phase.REJECTED, Phase.ROLLED_BACK):
                    against = promotion
                elif phase is Phase.SUCCEEDED or spec.cause.kind == "Manual":
                    against = None
        return against

    def has_served(self, build_id: str, place: PlaceKey) -> bool:
        """Whether it was ever the current build there."""
        if self.served.get(place) == build_id:
            return True
        succeeded = (p.spec for p in self.at(place) if p.status.phase is Phase.SUCCEEDED)
        return any(build_id in (spec.build, spec.expected_current) for spec in succeeded)

    def next_attempt(self, build_id: str, place: PlaceKey) -> int:
        """The number of the next attempt: from the last one, and not counted, as old records may be gone."""
        return 1 + max((p.spec.attempt for p in self.at(place) if p.spec.build == build_id), default=0)

    def last_end(self, place: PlaceKey) -> datetime | None:
        """When the last promotion of a place ended."""
        return max((p.status.finished_at for p in self.at(place) if p.status.finished_at is not None), default=None)


def _asked(promotion: Promotion) -> tuple[datetime, str]:
    return promotion.identity.created_at or promotion.spec.cause.at, promotion.identity.name


def _ended(promotion: Promotion) -> tuple[datetime, str]:
    if not promotion.is_finished:
        return _NOT_YET, promotion.identity.name
    return promotion.status.finished_at or _NEVER, promotion.identity.name


def _leaves(promotion: Promotion, build_id: str) -> bool:
    """Whether it is a rollback away from this build."""
    return promotion.spec.kind == "Rollback" and promotion.spec.expected_current == build_id != promotion.spec.build
