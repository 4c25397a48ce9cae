"""All specs of one revision, by name, with where each of them stands: what rendering reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar

from renderers.manifest import Origin
from schemas.audience import Audience
from schemas.automation import Automation, BatchExecution
from schemas.base import SpecModel
from schemas.build import Build
from schemas.environment import Environment
from schemas.variation import Variation

S = TypeVar("S", bound=SpecModel)


@dataclass(frozen=True, slots=True)
class Placed(Generic[S]):
    """A spec and the place where it is written."""

    spec: S
    origin: Origin


@dataclass(frozen=True, slots=True)
class Catalog:
    """The valid specs. References between them hold: `reconciler.specs` leaves out what refers to nothing.

    Keys are names; a variation's is (model, name).
    """

    environments: Mapping[str, Placed[Environment]] = field(default_factory=dict)
    builds: Mapping[str, Placed[Build]] = field(default_factory=dict)
    variations: Mapping[tuple[str, str], Placed[Variation]] = field(default_factory=dict)
    audiences: Mapping[str, Placed[Audience]] = field(default_factory=dict)
    automations: Mapping[str, Placed[Automation]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many specs there are."""
        kinds = (self.environments, self.builds, self.audiences, self.automations)
        return sum(len(kind) for kind in kinds) + len(self.variations)

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Where all specs stand."""
        kinds = (self.environments, self.builds, self.variations, self.audiences, self.automations)
        return tuple(placed.origin for kind in kinds for placed in kind.values())


class BuildId(NamedTuple):
    """A build's identity."""

    id: str  #: SHA-256, 64 hex digits
    commit: str | None  #: the commit that is built
    provisional: bool  #: True: the branch's commit is not known here, and the real id will be another one

    @property
    def short(self) -> str:
        """The 8 hex digits that are part of names and labels."""
        return self.id[:8]


class Recorded(NamedTuple):
    """A build that is known by a record, and not (or no longer) by a spec of its own."""

    build: Placed[Build]  #: as its spec was; its origin is that of the automation or variation that it is for
    identity: BuildId
    home: Environment  #: where it was built, and in whose object storage its artifact is


class BatchRun(NamedTuple):
    """A run of an automation that predicts on files, as its record says it."""

    id: str  #: SHA-256, 64 hex digits
    at: datetime  #: the instant that dates in the names of folders are those of
    automation: str
    batch: BatchExecution
    build: Recorded  #: what it predicts with
    origin: Origin  #: the automation's


class Stood(NamedTuple):
    """A build that a variation serves, and its percent of the variation's own traffic; 0 before it gets any."""

    recorded: Recorded
    percent: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What rendering must know of the world, because specs do not say it.

    `commits`: (repository, branch) -> full commit id, as far as somebody asked Git. A preview without network
    has none; a build of a branch then has a provisional id, and the plan says so.

    `runs`: (environment, model) -> builds that no spec names, and whose Jobs are wanted there: runs of automations.
    `batches`: the same for runs that predict on files.

    `stands`: (environment, model, variation) -> what is served there by what was promoted: the current build, and
    after it the one that takes over, if there is one; nothing where nothing was promoted yet. A variation that is
    not here serves the build that its spec names.
    """

    commits: Mapping[tuple[str, str], str] = field(default_factory=dict)
    runs: Mapping[tuple[str, str], tuple[Recorded, ...]] = field(default_factory=dict)
    stands: Mapping[tuple[str, str, str], tuple[Stood, ...]] = field(default_factory=dict)
    batches: Mapping[tuple[str, str], tuple[BatchRun, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unit:
    """The smallest part that is rendered by itself: one environment's own objects, or one model in it.

    Nothing outside a unit decides what it renders to, so that a change costs the units it touches.
    `model` is "" for the environment's own objects. `variations` are those served here, each already with its
    override for this environment laid over it, in order of name; `builds` are those that run here or are served
    here, by name, and `built_in` says where each of them runs; `audiences` are those that the variations name.
    """

    environment: Placed[Environment]
    model: str
    variations: tuple[Placed[Variation], ...] = ()
    builds: Mapping[str, Placed[Build]] = field(default_factory=dict)
    runs_here: frozenset[str] = frozenset()
    built_in: Mapping[str, Environment] = field(default_factory=dict)
    audiences: Mapping[str, Placed[Audience]] = field(default_factory=dict)


_NO_FACTS = Facts()


def units(catalog: Catalog, facts: Facts = _NO_FACTS) -> Iterator[Unit]:
    """Every unit, environments in order of promotion, and in each its own objects before its models.

    A variation that is implied by an automation (its `variation_name` has no spec) is among the variations.
    A build runs where its `environment` says, or else in the first environment, in order of promotion, of the
    variations that serve it, or else in the first environment of all; nowhere while that one is left out.
    A model has a unit wherever it is served or built, by its automations as well, and where `facts` has runs of it.
    """
    order = promotion_order(catalog)
    served: dict[str, dict[str, list[Placed[Variation]]]] = {name: {} for name in order}
    users: dict[str, set[str]] = {}
    for _, variation in sorted(variations(catalog, order).items()):
        for name in variation.spec.environments:
            here = Placed(variation.spec.in_environment(name), variation.origin)
            served[name].setdefault(here.spec.model, []).append(here)
            if here.spec.build is not None:
                users.setdefault(here.spec.build, set()).add(name)
    runs: dict[str, dict[str, list[str]]] = {name: {} for name in order}
    built_in: dict[str, Environment] = {}
    for name, build in catalog.builds.items():
        place = build.spec.environment or next(
            (e for e in order if e in users.get(name, ())), order[0] if order else ""
        )
        if place in runs:
            runs[place].setdefault(build.spec.model, []).append(name)
            built_in[name] = catalog.environments[place].spec
    automated = [(automation_environment(catalog, a.spec, order), a.spec.model) for a in catalog.automations.values()]
    for place, model in (*automated, *facts.runs, *facts.batches):
        if place in runs:
            runs[place].setdefault(model, [])
    for name in order:
        environment = catalog.environments[name]
        yield Unit(environment, "")
        for model in sorted(served[name].keys() | runs[name].keys()):
            here_served = tuple(served[name].get(model, ()))
            here_run = runs[name].get(model, [])
            needed = {*here_run, *(v.spec.build for v in here_served if v.spec.build is not None)}
            named = {t.audience for v in here_served for t in v.spec.traffic or () if t.audience is not None}
            yield Unit(
                environment,
                model,
                here_served,
                {build: catalog.builds[build] for build in sorted(needed)},
                frozenset(here_run),
                {build: built_in[build] for build in sorted(needed) if build in built_in},
                {audience: catalog.audiences[audience] for audience in sorted(named)},
            )


def promotion_order(catalog: Catalog) -> list[str]:
    """The environments, each after those that it is promoted after, otherwise by name."""
    done: dict[str, None] = {}
    pending = sorted(catalog.environments)
    while pending:
        ready = [n for n in pending if all(e in done for e in catalog.environments[n].spec.promote_after)]
        if not ready:
            raise ValueError(f"promote_after goes in a circle: {', '.join(pending)}")
        done |= dict.fromkeys(ready)
        pending = [name for name in pending if name not in done]
    return list(done)


def variations(catalog: Catalog, order: Sequence[str]) -> dict[tuple[str, str], Placed[Variation]]:
    """All variations by (model, name), those that automations imply included. `order` is that of promotion."""
    return dict(catalog.variations) | _implied_variations(catalog, order)


def automation_environment(catalog: Catalog, automation: Automation, order: Sequence[str]) -> str:
    """Where an automation builds, or predicts on files: where it says, or else the first of its environments.

    Its environments are those that it deploys to, or else those of its variation; all where it has neither.
    `order` is that of promotion. "" where there is no environment at all.
    """
    if automation.environment is not None:
        return automation.environment
    theirs = _environments_of(catalog, automation, order)
    return next((name for name in order if not theirs or name in theirs), "")


def _environments_of(catalog: Catalog, automation: Automation, order: Sequence[str]) -> tuple[str, ...]:
    target, batch = automation.deployment_spec, automation.batch_execution
    if target is not None:
        variation = catalog.variations.get((automation.model, target.variation_name))
        return target.environments or (variation.spec.environments if variation else ())
    if batch is not None:
        key = automation.model, batch.variation
        variation = catalog.variations.get(key) or _implied_variations(catalog, order).get(key)
        return variation.spec.environments if variation else ()
    return ()


def _implied_variations(catalog: Catalog, order: Sequence[str]) -> dict[tuple[str, str], Placed[Variation]]:
    """What automations deploy to without a variation spec: one that takes everybody."""
    implied: dict[tuple[str, str], Placed[Variation]] = {}
    for name, automation in sorted(catalog.automations.items()):
        spec = automation.spec
        target = spec.deployment_spec
        if target is None or (spec.model, target.variation_name) in catalog.variations:
            continue
        environments = target.environments or tuple(filter(None, [automation_environment(catalog, spec, order)]))
        if not environments:
            continue
        variation = Variation(
            model=spec.model, name=target.variation_name, environments=environments, automation=name, deployment=target
        )
        implied[spec.model, target.variation_name] = Placed(variation, automation.origin)
    return implied
