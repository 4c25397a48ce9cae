"""What all specs ask for, kept as an index: which objects, of which model, in which environment.

The manifests themselves are not kept any longer than until somebody has looked at them. Rendering is a pure function
and takes a millisecond for a model, so whoever needs them again has them rendered, and ten thousand objects cost ten
thousand names. One lock makes an answer one
revision's: the conductor changes what is wanted, and keepers of environments ask, each in a thread of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from threading import RLock
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeVar

import orjson

from reconciler import desired, policy
from reconciler.automate import Recall
from reconciler.desired import SHARED, Rendered
from reconciler.inventory import CONTENT_HASH, Place, place_of
from reconciler.policy import Policy
from renderers import catalog as catalogs
from renderers.build import FULL_ID
from renderers.catalog import Catalog, Facts
from renderers.manifest import Manifest, ObjectId
from schemas.environment import DataPlane, Environment
from schemas.problem import Problem


class UnitId(NamedTuple):
    """A model in an environment; the model is "" for the environment's own objects."""

    environment: str
    model: str


class Unit(NamedTuple):
    """What became of a unit: the hash of each object that it wants, or why there is none."""

    objects: Mapping[ObjectId, str]
    builds: Mapping[str, ObjectId]  #: build id -> the Job that makes it
    waits: str = ""
    problem: Problem | None = None


class Moved(NamedTuple):
    """What an update has changed: units; and by environment, Jobs that are not to be kept any more, or newly are."""

    units: frozenset[UnitId]
    jobs: Mapping[str, frozenset[ObjectId]]


class Specs(Protocol):
    """What the desire is made from: `reconciler.specs.index.Index`."""

    @property
    def catalog(self) -> Catalog: ...

    @property
    def problems(self) -> tuple[Problem, ...]: ...

    def part(self, models: Collection[str]) -> Catalog: ...


class _Unseen(NamedTuple):
    """Manifests that nobody has looked at yet. Their bodies are apart, as JSON, which is a fifth of the memory."""

    manifests: tuple[Manifest, ...]
    bodies: bytes

    @classmethod
    def of(cls, manifests: Collection[Manifest]) -> _Unseen:
        return cls(tuple(replace(one, body={}) for one in manifests), orjson.dumps([one.body for one in manifests]))

    def whole(self) -> tuple[Manifest, ...]:
        bodies = orjson.loads(self.bodies)
        return tuple(replace(one, body=body) for one, body in zip(self.manifests, bodies, strict=True))


#: Manifests that are kept until somebody looks at them, about: 10 MB. Those of a first apply come in that order.
_UNSEEN = 5_000
_NO_RECALL = Recall(Facts(), {}, {})


@dataclass(slots=True)
class Desire:
    """`unresolved` is of `desired.build`: branches whose commits nobody knows."""

    specs: Specs
    revision: str = ""
    #: Files that could not be read as specs.
    unreadable: tuple[Problem, ...] = ()
    #: In words, that the revision does not follow the one before.
    rewound: str = ""
    #: What the organisation asks of specs and of plans.
    rules: Policy = policy.NONE
    _recall: Recall = _NO_RECALL
    _unresolved: desired.Unresolved = field(default_factory=lambda: MappingProxyType({}))
    #: By environment, then by model.
    _units: dict[str, dict[str, Unit]] = field(default_factory=dict)
    _owners: dict[tuple[DataPlane, ObjectId], UnitId] = field(default_factory=dict)
    #: By build (its id): the Jobs that make it.
    _makers: dict[str, dict[UnitId, ObjectId]] = field(default_factory=dict)
    #: By environment: how many objects it wants at each place.
    _places: dict[str, Counter[Place]] = field(default_factory=dict)
    _unseen: dict[UnitId, _Unseen] = field(default_factory=dict)
    #: Units that want what another one has.
    _shared: set[UnitId] = field(default_factory=set)
    #: What is wrong with units that were not rendered; replaced where that changes.
    _refused: Mapping[UnitId, Problem] = field(default_factory=dict)
    #: All problems, and what they were put together from: they are asked for all the time, and may be many.
    _problems: tuple[Problem, ...] = ()
    _problems_of: tuple[object, ...] = (None, None, None, None)
    #: Models whose specs are newer than what is known of their units; None: all.
    _expected: frozenset[str] | None = frozenset()
    lock: RLock = field(default_factory=RLock)
    #: Another number whenever something else may be wanted of any model.
    generation: int = 0

    def expect(self, models: Collection[str] | None) -> None:
        """The specs of these models have changed (None: all), and nobody has asked yet what that means to the records.

        Until the next update, nobody can look at them: what a canary is to bring about, or a build whose commit is not
        known yet, would look like something to be applied as it is written.
        """
        with self.lock:
            before = self._expected
            self._expected = None if models is None or before is None else before.union(models)

    def update(
        self, revision: str, models: Collection[str] | None, recall: Recall, unresolved: desired.Unresolved
    ) -> Moved:
        """Renders again what may have changed, and says what has. `models`: those of the specs; None: all."""
        with self.lock:
            jobs = {
                name: self._recall.keep.get(name, frozenset()) ^ recall.keep.get(name, frozenset())
                for name in _differing(self._recall.keep, recall.keep)
            }
            if models is not None:
                models = {*models, *self._remembered(recall, unresolved)}
            if self._shared and models:
                models = None  # whose object it is may be settled by a change of either
            self.generation += models is None or bool(models or jobs)
            self.revision, self._recall, self._unresolved = revision, recall, unresolved
            self._expected = frozenset()
            made = None if models is None else self._render(models)
            if made is None:
                made, models = self._render(None), None
            assert made is not None
            return Moved(self._replace(made, models), jobs)

    def environment(self, name: str) -> Environment | None:
        """The spec of an environment; None where there is none."""
        with self.lock:
            placed = self.specs.catalog.environments.get(name)
            return placed.spec if placed is not None else None

    def environments(self) -> dict[str, Environment]:
        """All of them."""
        with self.lock:
            return {name: placed.spec for name, placed in self.specs.catalog.environments.items()}

    def models(self, environment: str) -> frozenset[str]:
        """The models that an environment has anything of."""
        with self.lock:
            return frozenset(self._units.get(environment, ()))

    def owner(self, environment: str, target: ObjectId) -> str | None:
        """The model that wants an object; None where none does."""
        with self.lock:
            spec = self.environment(environment)
            unit = self._owners.get((spec.data_plane, target)) if spec is not None else None
            return unit.model if unit is not None and unit.environment == environment else None

    def wanted(self, environment: str) -> dict[str, Unit]:
        """What each model wants there."""
        with self.lock:
            return dict(self._units.get(environment, {}))

    def unit(self, environment: str, model: str) -> Unit | None:
        """What one model wants there; None: nothing at all."""
        with self.lock:
            return self._units.get(environment, {}).get(model)

    def places(self, environment: str) -> Counter[Place]:
        """Where an environment wants objects, and how many."""
        with self.lock:
            return Counter(self._places.get(environment))

    def job_of(self, build: str) -> tuple[UnitId, ObjectId] | None:
        """Where a build (its id) is made."""
        with self.lock:
            return next(iter(self._makers.get(build, {}).items()), None)

    def look(self, environment: str, models: Collection[str]) -> dict[str, tuple[Manifest, ...]]:
        """The manifests of some models in an environment, by model; without those that cannot be looked at now."""
        with self.lock:
            models = [model for model in models if self._expected is not None and model not in self._expected]
            manifests: dict[str, tuple[Manifest, ...]] = dict.fromkeys(models, ())
            for model in models:
                if (unseen := self._unseen.pop(UnitId(environment, model), None)) is not None:
                    manifests[model] = unseen.whole()
            again = [model for model in models if not manifests[model]]

            def is_asked(unit: catalogs.Unit) -> bool:
                return unit.environment.spec.name == environment and unit.model in again

            recall = self._recall
            for unit in desired.build(
                self.specs.part(again), recall.facts, self._unresolved, recall.unclear, asked=is_asked
            ):
                known = self._units.get(unit.environment, {}).get(unit.model)
                # One whose objects another model wants as well is a problem that only the index has seen.
                if known is None or known.problem is None:
                    manifests[unit.model] = unit.manifests
            return manifests

    def standing(self, environment: str) -> tuple[bool, frozenset[ObjectId]]:
        """Whether every spec was read and all of the environment rendered; and Jobs that are kept for their logs."""
        with self.lock:
            theirs = self._units.get(environment, {}).values()
            is_known = self._expected == frozenset() and not self.has_errors
            complete = is_known and not any(unit.waits or unit.problem for unit in theirs)
            return complete, self._recall.keep.get(environment, frozenset())

    def problems(self) -> tuple[Problem, ...]:
        """Of the specs, of rendering them, and of the rules themselves."""
        with self.lock:
            of = self.unreadable, self.specs.problems, self._refused, self.rules.problems
            if any(one is not before for one, before in zip(of, self._problems_of, strict=True)):
                self._problems_of = of
                unreadable, of_specs, refused, of_rules = of
                self._problems = policy.summed({*unreadable, *of_specs, *refused.values(), *of_rules})
            return self._problems

    @property
    def has_errors(self) -> bool:
        """Whether there may be specs that nobody could read."""
        return bool(self.unreadable) or any(problem.severity == "error" for problem in self.specs.problems)

    # -- rendering --------------------------------------------------------------------------------------------------

    def _render(self, models: Collection[str] | None) -> dict[UnitId, Unit] | None:
        """Units by name. None where some models alone cannot say it: one wants an object that another has."""
        catalog = self.specs.catalog if models is None else self.specs.part(models)
        made: dict[UnitId, Unit] = {}

        def is_asked(unit: catalogs.Unit | UnitId) -> bool:
            return models is None or unit.model in models

        self._unseen = {unit: one for unit, one in self._unseen.items() if not is_asked(unit)}
        room = _UNSEEN - sum(len(one.manifests) for one in self._unseen.values())
        recall = self._recall
        for rendered in desired.build(catalog, recall.facts, self._unresolved, recall.unclear, asked=is_asked):
            unit = UnitId(rendered.environment, rendered.model)
            made[unit] = _indexed(rendered)
            if 0 < len(rendered.manifests) <= room:
                self._unseen[unit] = _Unseen.of(rendered.manifests)
                room -= len(rendered.manifests)
            if models is None:
                continue
            plane = catalog.environments[unit.environment].spec.data_plane
            owners = (self._owners.get((plane, target), unit) for target in made[unit].objects)
            if any(owner != unit and owner.model not in models for owner in owners):
                return None
        return made

    def _replace(self, made: Mapping[UnitId, Unit], models: Collection[str] | None) -> frozenset[UnitId]:
        before = dict(self._all(models))
        catalog = self.specs.catalog
        if models is None:
            self._owners.clear()
            self._makers.clear()
            self._units.clear()
            self._places.clear()
            self._shared.clear()
        else:
            for unit, old in before.items():
                plane = catalog.environments[unit.environment].spec.data_plane
                for target in old.objects:
                    self._owners.pop((plane, target), None)
                for build in old.builds:
                    del self._makers[build][unit]
                    if not self._makers[build]:
                        del self._makers[build]
                self._places[unit.environment] -= Counter(map(place_of, old.objects))
                self._shared.discard(unit)
                del self._units[unit.environment][unit.model]
        for unit, new in made.items():
            self._units.setdefault(unit.environment, {})[unit.model] = new
            plane = catalog.environments[unit.environment].spec.data_plane
            self._owners |= {(plane, target): unit for target in new.objects}
            for build, job in new.builds.items():
                self._makers.setdefault(build, {})[unit] = job
            self._places.setdefault(unit.environment, Counter()).update(map(place_of, new.objects))
            if new.problem is not None and new.problem.rule == SHARED:
                self._shared.add(unit)
        self._refuse(before, made)
        return frozenset(unit for unit in before.keys() | made.keys() if before.get(unit) != made.get(unit))

    def _refuse(self, before: Mapping[UnitId, Unit], made: Mapping[UnitId, Unit]) -> None:
        old = {unit: one.problem for unit, one in before.items() if one.problem is not None}
        new = {unit: one.problem for unit, one in made.items() if one.problem is not None}
        if old != new:
            self._refused = {unit: one for unit, one in self._refused.items() if unit not in old} | new

    def _all(self, models: Collection[str] | None = None) -> Iterator[tuple[UnitId, Unit]]:
        """All units, or those of some models."""
        for environment, theirs in self._units.items():
            for model in theirs if models is None else [model for model in models if model in theirs]:
                yield UnitId(environment, model), theirs[model]

    def _remembered(self, recall: Recall, unresolved: desired.Unresolved) -> set[str]:
        """The models of which the records, or Git, say something else than before."""
        old, new = self._recall, recall
        changed = {model for _, model, _ in _differing(old.facts.stands, new.facts.stands)}
        changed |= {model for _, model in _differing(old.facts.runs, new.facts.runs)}
        changed |= {model for _, model in _differing(old.facts.batches, new.facts.batches)}
        changed |= {model for _, model in _differing(old.unclear, new.unclear)}
        branches = set(_differing(old.facts.commits, new.facts.commits)) | set(_differing(self._unresolved, unresolved))
        if branches:
            builds = self.specs.catalog.builds.values()
            changed |= {b.spec.model for b in builds if (b.spec.repository, b.spec.branch) in branches}
        return changed


def _indexed(rendered: Rendered) -> Unit:
    hashes = {m.id: str(m.body["metadata"]["annotations"][CONTENT_HASH]) for m in rendered.manifests}
    jobs = (m for m in rendered.manifests if m.id.kind == "Job")
    builds = {m.body["metadata"]["annotations"].get(FULL_ID, ""): m.id for m in jobs}
    return Unit(hashes, builds, rendered.waits, rendered.problem)


K = TypeVar("K")


def _differing(old: Mapping[K, object], new: Mapping[K, object]) -> list[K]:
    if old == new:
        return []
    return [key for key in old.keys() | new.keys() if old.get(key) != new.get(key)]
