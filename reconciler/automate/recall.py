"""What the records mean for rendering: what is served where, and which Jobs are wanted. Pure but for the desk."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import NamedTuple, TypeVar

from reconciler import promotion, recorded
from reconciler.automate.builds import job_of
from reconciler.automate.desk import Desk
from reconciler.promotion import PlaceKey
from reconciler.records import Build, BuildPhase, RecordError
from reconciler.report import Trouble
from renderers.catalog import BatchRun, Catalog, Facts, Recorded, Stood
from renderers.manifest import ObjectId, Origin
from schemas.build import Build as BuildSpec

K = TypeVar("K")
V = TypeVar("V")

#: The Jobs of this many of an automation's finished runs stay, for their logs.
_KEPT_JOBS = 3


class Recall(NamedTuple):
    """What the records mean for rendering.

    `keep`: by environment, what is not wanted any more and stays all the same. `unclear`: (environment, model) -> why
    nobody can say what is to be served there, so that all of it is left as it is.
    """

    facts: Facts
    keep: Mapping[str, frozenset[ObjectId]]
    unclear: Mapping[tuple[str, str], str]


NOTHING = Recall(Facts(), {}, {})


def recall(desk: Desk) -> Recall:
    """Of the records of one model, as they are by now. `facts.commits` are what was built of branches last."""
    unclear: dict[tuple[str, str], str] = {}
    stands: dict[PlaceKey, tuple[Stood, ...]] = {}
    for key, stood in promotion.stands(desk.places, desk.ledger).items():
        environment, model, _ = key
        # Where something serves without a record, the route is turned to what comes when that is ready, and to nothing
        # before: so what serves keeps on.
        is_first = key in desk.unclear
        try:
            stands[key] = tuple(
                Stood(_recorded(desk, key, build), 100 if is_first else percent) for build, percent in stood
            )
        except RecordError as error:
            unclear[environment, model] = str(error)
            desk.trouble.append(Trouble(f"{model} in {environment}", str(error)))
            continue
        if is_first and not stood:
            unclear[environment, model] = desk.unclear[key]
    unclear |= desk.ledger.unreadable
    facts = Facts(_last_commits(desk), _runs(desk), stands, _batches(desk))
    return Recall(facts, _kept_jobs(desk), unclear)


class Recalls:
    """The recalls of all models in one: a model that changes costs what it has, and not what there is."""

    def __init__(self) -> None:
        self._parts: dict[str, Recall] = {}
        self._whole = NOTHING
        #: By branch, then by model: the commit that was built of it last.
        self._built: dict[tuple[str, str], dict[str, str]] = {}

    @property
    def models(self) -> Collection[str]:
        """Those of which anything is recalled."""
        return self._parts.keys()

    def part(self, model: str) -> Recall:
        """What a model recalls, as far as anybody knows."""
        return self._parts.get(model, NOTHING)

    def take(self, parts: Mapping[str, Recall]) -> None:
        """What these models recall by now."""
        changed = {model: part for model, part in parts.items() if self._parts.get(model, NOTHING) != part}
        old = {model: self._parts.pop(model, NOTHING) for model in changed}
        self._parts |= {model: part for model, part in changed.items() if part != NOTHING}
        self._note_built(old, changed)

        def exchanged(pick: Callable[[Recall], Mapping[K, V]]) -> Mapping[K, V]:
            found = dict(pick(self._whole))
            for part in old.values():
                for key in pick(part):
                    del found[key]
            for part in changed.values():
                found |= pick(part)
            return found

        facts = Facts(
            runs=exchanged(lambda one: one.facts.runs),
            stands=exchanged(lambda one: one.facts.stands),
            batches=exchanged(lambda one: one.facts.batches),
        )
        self._whole = Recall(facts, self._kept(old, changed), exchanged(lambda one: one.unclear))

    def whole(self, catalog: Catalog, facts: Facts) -> Recall:
        """All of it, with the commits of branches; where Git does not answer, what was built of them last.

        So a rollback moves its traffic also while Git is away. No new build comes of it: the commit is that of every
        build of the branch, and they have their records.
        """
        known = dict(facts.commits)
        if self._built:
            users: dict[tuple[str, str], set[str]] = {}
            for build in catalog.builds.values():
                users.setdefault((build.spec.repository, build.spec.branch or ""), set()).add(build.spec.model)
            for branch, said in self._built.items():
                commits = set(said.values())
                if branch not in known and users.get(branch) == said.keys() and len(commits) == 1 and "" not in commits:
                    known[branch] = commits.pop()
        return self._whole._replace(facts=replace(self._whole.facts, commits=known))

    def _note_built(self, old: Mapping[str, Recall], new: Mapping[str, Recall]) -> None:
        for model, part in old.items():
            for branch in part.facts.commits:
                del self._built[branch][model]
                if not self._built[branch]:
                    del self._built[branch]
        for model, part in new.items():
            for branch, commit in part.facts.commits.items():
                self._built.setdefault(branch, {})[model] = commit

    def _kept(self, old: Mapping[str, Recall], new: Mapping[str, Recall]) -> Mapping[str, frozenset[ObjectId]]:
        gone, come = _united(old.values()), _united(new.values())
        keep = dict(self._whole.keep)
        for environment in gone.keys() | come.keys():
            left = keep.pop(environment, frozenset()) - gone.get(environment, set())
            if jobs := left | come.get(environment, set()):
                keep[environment] = jobs
        return keep


def _united(parts: Collection[Recall]) -> dict[str, set[ObjectId]]:
    found: dict[str, set[ObjectId]] = {}
    for part in parts:
        for environment, jobs in part.keep.items():
            found.setdefault(environment, set()).update(jobs)
    return found


def _last_commits(desk: Desk) -> Mapping[tuple[str, str], str]:
    """Of branches that Git says nothing of: the commit that was built of them last; "" where it is not one."""
    specs = [placed.spec for placed in desk.catalog.builds.values() if placed.spec.branch is not None]
    found: dict[tuple[str, str], str] = {}
    for branch in {(spec.repository, spec.branch or "") for spec in specs} - desk.facts.commits.keys():
        theirs = [_newest(desk, spec) for spec in specs if (spec.repository, spec.branch) == branch]
        commits = {build.spec.commit if build is not None else "" for build in theirs}
        found[branch] = commits.pop() if len(commits) == 1 else ""
    return found


def _newest(desk: Desk, spec: BuildSpec) -> Build | None:
    """The record of what was built of a spec last."""
    content = recorded.specification_of(spec)
    same = (b for b in desk.ledger.builds.values() if b.spec.cause.kind == "Spec" and b.spec.model == spec.model)
    alike = [build for build in same if dict(build.spec.specification) == content]
    return max(alike, key=lambda build: build.spec.cause.at, default=None)


def _recorded(desk: Desk, key: PlaceKey, build_id: str) -> Recorded:
    """A build that a place serves. Raises RecordError where nobody knows its spec any more."""
    pinned = desk.pinned.get(key)
    if pinned is not None and pinned.identity.id == build_id:
        return Recorded(pinned.build, pinned.identity, pinned.home)
    build = desk.ledger.build(build_id)
    place, home = desk.places[key], None
    if build is None:
        raise RecordError(f"the record of build {build_id[:8]} is gone, which variation {key[2]} serves")
    home = desk.environment(build.spec.environment) or place.environment
    return recorded.recorded(build, home, _origin(desk, build, key))


def _origin(desk: Desk, build: Build, key: PlaceKey | None = None) -> Origin:
    automation = desk.catalog.automations.get(build.spec.automation)
    if automation is not None:
        return automation.origin
    variation = desk.catalog.variations.get((key[1], key[2])) if key is not None else None
    if variation is not None:
        return variation.origin
    return Origin("", 0, "automation", build.spec.automation)


def _runs(desk: Desk) -> Mapping[tuple[str, str], tuple[Recorded, ...]]:
    found: dict[tuple[str, str], tuple[Recorded, ...]] = {}
    for build in _unfinished(desk, "Build"):
        environment = desk.environment(build.spec.environment)
        assert environment is not None
        where = environment.name, build.spec.model
        automation = desk.catalog.automations.get(build.spec.automation)
        if build.spec.cause.kind == "Manual" and not (automation and recorded.is_of(build, automation.spec)):
            # Whoever may ask for a run does not choose what runs: that is for whoever may commit specs.
            words = f"it is not what automation {build.spec.automation} builds now; ask for another run"
            desk.trouble.append(Trouble(f"build {build.identity.name}", words))
            continue
        try:
            found[where] = (*found.get(where, ()), recorded.recorded(build, environment, _origin(desk, build)))
        except RecordError as error:
            desk.trouble.append(Trouble(f"build {build.identity.name}", str(error)))
    return found


def _batches(desk: Desk) -> Mapping[tuple[str, str], tuple[BatchRun, ...]]:
    found: dict[tuple[str, str], tuple[BatchRun, ...]] = {}
    for run in _unfinished(desk, "Batch"):
        environment = desk.environment(run.spec.environment)
        assert environment is not None
        where = environment.name, run.spec.model
        try:
            batch = recorded.batch_of(run)
            key = environment.name, run.spec.model, batch.variation
            build = _of_batch(desk, key, str(run.spec.specification.get("build", "")))
        except RecordError as error:
            desk.trouble.append(Trouble(f"batch {run.identity.name}", str(error)))
            continue
        made = BatchRun(run.spec.id, run.spec.cause.at, run.spec.automation, batch, build, _origin(desk, run))
        found[where] = (*found.get(where, ()), made)
    return found


def _of_batch(desk: Desk, key: PlaceKey, build_id: str) -> Recorded:
    pinned = desk.pinned.get(key)
    if pinned is not None and pinned.identity.id == build_id:
        return Recorded(pinned.build, pinned.identity, pinned.home)
    build = next((b for b in desk.ledger.builds.values() if b.spec.id.startswith(build_id)), None)
    if build is None:
        raise RecordError(f"there is no record of build {build_id[:8]}, which it is to predict with")
    home = desk.environment(build.spec.environment)
    if home is None:
        raise RecordError(f"build {build_id[:8]} was built in {build.spec.environment}, which has left the specs")
    return recorded.recorded(build, home, _origin(desk, build, key))


def _unfinished(desk: Desk, action: str) -> list[Build]:
    """Runs of automations whose Jobs are wanted."""
    return [
        build
        for build in desk.ledger.builds.values()
        if build.spec.automation
        and build.spec.action == action
        and not build.is_finished
        and desk.environment(build.spec.environment) is not None
    ]


def _kept_jobs(desk: Desk) -> Mapping[str, frozenset[ObjectId]]:
    kept: dict[str, frozenset[ObjectId]] = {}
    finished: dict[str, list[Build]] = {}
    for build in desk.ledger.builds.values():
        if build.status.phase in (BuildPhase.SUCCEEDED, BuildPhase.FAILED) and build.spec.automation:
            finished.setdefault(build.spec.automation, []).append(build)
    for builds in finished.values():
        for build in sorted(builds, key=lambda b: b.spec.cause.at, reverse=True)[:_KEPT_JOBS]:
            environment = desk.environment(build.spec.environment)
            if environment is not None:
                kept[environment.name] = kept.get(environment.name, frozenset()) | {job_of(build, environment)}
    return kept
