"""READ THIS FIRST: the story. Everything else is called from here.

    git revision -> files -> specs -> desired objects -> plan (against observed) -> apply -> report
                      records -> automate -^

What builds and promotes itself is one step of `automate` in each pass: it moves the records on, and they say what is
served. `preview` goes as far as the plan and holds nothing that could write; `reconcile` carries the plan out. The part
that needs no cluster is `offline`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from reconciler import apply, causes, desired, facts, observe, plan, policy
from reconciler.automate import Automator, Progress, Recall, out_of_reach
from reconciler.cluster import ApiError, Reader, Writer
from reconciler.clusters import Clusters
from reconciler.desired import Rendered
from reconciler.inventory import PART_OF, Inventory, object_id_of, place_of, set_id
from reconciler.offline import load, notes_of
from reconciler.outside import Outside
from reconciler.plan import Change, Guard, Observed, Wanted
from reconciler.policy import Policy
from reconciler.readiness import State
from reconciler.report import Done, Outcome, Report, Told, Trouble
from renderers.catalog import Catalog, Facts, promotion_order
from renderers.manifest import Manifest, ObjectId
from schemas.environment import DataPlane
from schemas.problem import Problem

#: Threads for requests: as many as a cluster gets connections.
THREADS = 8
#: Seconds between two passes of a run that waits: the longer nothing has happened, the less often it looks.
_PAUSE, _PAUSE_MOST = 0.1, 2.0
#: Passes in a row that are given up because another reconciler was faster.
_OVERTAKEN = 20
#: Seconds that a run waits at its end for the answers to what it has asked: a warehouse, Prometheus, Git.
_ANSWERS = 60.0

#: Of specs that need no records.
_NOTHING = Progress(Recall(Facts(), {}, {}))


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a run.

    `home` is the folder of the embedded data plane. `environments`: only these, also where they are left over; none:
    all, and whatever else has an inventory.

    `approved` are the ids of limits that a person lifts (`plan.Guard`). `mirrors` maps the beginnings of repository
    URLs to where they are to be read instead. `rules` are those of the organisation.
    """

    paths: tuple[Path, ...]
    home: Path = Path(".trueup")
    environments: frozenset[str] = frozenset()
    approved: frozenset[str] = frozenset()
    mirrors: Mapping[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    rules: Policy = policy.NONE


def preview(request: Request, clusters: Clusters, clock: Callable[[], datetime]) -> Report:
    """What a run would do to the clusters. A `Reader` cannot write, so neither can this.

    Gates that ask SQL are asked, where there is a build to ask about: an answer that cannot be had is better known
    before a build waits for it.
    """
    with _threads() as pool:
        desire = _desire(request, clusters.reader)
        automator = _automator(desire, request, clusters)
        progress = _NOTHING
        if automator is not None:
            try:
                progress = automator.look(clock())
            except ApiError as error:
                progress = out_of_reach(desire.catalog, desire.facts, error)
            finally:
                automator.close()
        report = _plan(request, desire.recalled(progress), clusters.reader, pool, verify=True).report
        return replace(report, told=progress.told)


def reconcile(
    request: Request,
    clusters: Clusters,
    tell: Callable[[plan.Plan | Done | Told], None],
    clock: Callable[[], datetime],
) -> Report:
    """Trues the clusters up to the specs. `tell` hears of the plan before it begins, and of each thing done.

    A pass never waits. With `wait_s`, passes over the same specs follow each other until there is nothing left to wait
    for: a build, pods, a route, a canary; or until the time is over. Then, and without it, only what was asked of a
    warehouse, of Prometheus or of Git is heard. `clock` gives the moment of each pass.
    """
    with _threads() as pool, ExitStack() as closing:
        began = stirred = time.monotonic()
        desire = _desire(request, clusters.writer)
        automator = _automator(desire, request, clusters)
        if automator is not None:
            closing.callback(automator.close)
        account, overtaken = _Account(tell), 0
        heard = frozenset[tuple[str, ...]]()
        while True:
            news = account.news
            progress = _step(automator, desire, clusters, clock)
            account.hear(progress)
            planned = _plan(request, desire.recalled(progress), clusters.writer, pool, verify=False)
            report = planned.report
            assert report.plan is not None
            if _is_overtaken(automator, progress, report.plan) and overtaken < _OVERTAKEN:
                overtaken += 1
                continue
            overtaken = 0
            account.begin(report.plan)
            unready = account.look(planned.stands, clusters.writer)
            busy = bool(unready)
            for one in apply.carry_out(report.plan, _targets(request, planned, clusters.writer), pool):
                account.note(one)
                busy |= one.outcome in (Outcome.WAITING, Outcome.APPLIED, Outcome.DELETED)
            waited = time.monotonic() - began
            if not (busy or progress.busy):
                break
            if waited >= request.wait_s:
                # What was asked is heard, and what follows from it done; what is asked again is for the next run.
                unheard = automator.questions.open - heard if automator is not None else frozenset()
                if waited >= request.wait_s + _ANSWERS or not (unheard or progress.told):
                    break
                if unheard and automator is not None:
                    automator.questions.wait(request.wait_s + _ANSWERS - waited)
                    heard |= automator.questions.answered
                continue
            if account.news > news:
                stirred = time.monotonic()
            time.sleep(min(_PAUSE_MOST, _PAUSE + (time.monotonic() - stirred) / 10))
        overdue = (busy or progress.busy) and request.wait_s > 0
        if overdue:
            for one in unready:
                account.note(one)
        assert account.first is not None
        # What was held back at first, as a build's record was not there yet, may be done by now.
        shown = replace(account.first, guards=report.plan.guards)
        done, told = tuple(account.done.values()), tuple(account.told)
        return Report(report.problems, shown, done, report.trouble, overdue, told, specs=report.specs)


def _automator(desire: _Desire, request: Request, clusters: Clusters) -> Automator | None:
    """What moves records on; None where no spec needs any."""
    planes = [placed.spec.data_plane for placed in desire.catalog.environments.values()]
    outside = Outside(clusters.reader, request.home, request.mirrors)
    home, complete = clusters.home_plane(planes), not _has_errors(desire.problems)
    automator = Automator(desire.catalog, desire.facts, outside, home, complete, request.environments)
    return automator if automator.is_needed() else None


def _step(automator: Automator | None, desire: _Desire, clusters: Clusters, clock: Callable[[], datetime]) -> Progress:
    """One step of what builds and promotes itself."""
    if automator is None:
        return _NOTHING
    try:
        return automator.step(clusters.writer(automator.home), clock())
    except ApiError as error:
        return out_of_reach(desire.catalog, desire.facts, error)


def _is_overtaken(automator: Automator | None, progress: Progress, planned: plan.Plan) -> bool:
    """Whether the records have changed since they were read, and before the cluster was looked at.

    Another reconciler may have begun a build in between: to a plan of older records, its Job is nobody's.
    """
    if automator is None or not planned.actions:
        return False
    try:
        return automator.recall() != progress.recall
    except ApiError:
        return False


@dataclass(slots=True)
class _Account:
    """What has become of each object over the passes of a run. Nothing is told twice."""

    tell: Callable[[plan.Plan | Done | Told], None]
    #: The plan that was told before anything was done.
    first: plan.Plan | None = None
    done: dict[tuple[str, ObjectId], Done] = field(default_factory=dict)
    #: What builds and promotions came to.
    told: list[Told] = field(default_factory=list)
    #: How often something has moved on.
    news: int = 0

    def begin(self, shown: plan.Plan) -> None:
        """A pass."""
        if self.first is None:
            self.first = shown
            self.tell(shown)

    def hear(self, progress: Progress) -> None:
        """Builds and promotions have moved on."""
        self.told += progress.told
        self.news += len(progress.told)
        for one in progress.told:
            self.tell(one)

    def note(self, one: Done) -> None:
        """Something was done, or could not be."""
        key = one.change.environment, one.change.id
        before = self.done.get(key)
        self.done[key] = one
        if before is None or before.outcome is not one.outcome:
            self.news += 1
            self.tell(one)

    def look(self, stands: Iterable[_Stand], reader_of: Callable[[DataPlane], Reader]) -> list[Done]:
        """What was applied by earlier passes, and is not ready yet. What has failed for good is noted."""
        unready: list[Done] = []
        for wanted, plane, observed in stands:
            still = {manifest.id for manifest in wanted.manifests} | observed.members.keys()
            for change in [one.change for (name, _), one in self.done.items() if name == wanted.environment]:
                # What another run has deleted, as nobody wants it any more, will never be ready.
                if self.done[wanted.environment, change.id].outcome is Outcome.APPLIED and change.id in still:
                    state = causes.state_of(reader_of(plane), observed.members.get(change.id))
                    if state.state is State.FAILED:
                        self.note(Done(change, Outcome.FAILED, state.message))
                    elif state.state is not State.CURRENT:
                        unready.append(Done(change, Outcome.WAITING, f"not ready: {state.message}"))
        return unready


def _targets(request: Request, planned: _Planned, writer_of: Callable[[DataPlane], Writer]) -> dict[str, apply.Target]:
    second_look = _SecondLook(request, planned.facts)
    return {
        wanted.environment: apply.Target(
            writer_of(plane), wanted, observed, partial(second_look.of, wanted.environment)
        )
        for wanted, plane, observed in planned.stands
        if not wanted.suspended
    }


@contextmanager
def _threads() -> Iterator[Executor]:
    """Threads for requests. An interrupt begins no further request, and does not wait for those under way."""
    pool = ThreadPoolExecutor(THREADS)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


# -- the plan, with what it was made from ---------------------------------------------------------------------------


class _Stand(NamedTuple):
    """Where one environment stands: what it should have, and what it has."""

    wanted: Wanted
    plane: DataPlane
    observed: Observed


@dataclass(slots=True)
class _Desire:
    """What the specs ask for, read once; and what that comes to, with the records of a pass."""

    catalog: Catalog
    facts: Facts
    unresolved: desired.Unresolved
    problems: tuple[Problem, ...]
    _rendered: _Recalled | None = None

    def recalled(self, progress: Progress) -> _Recalled:
        """Rendered with what the records mean now; nothing is rendered twice for the same meaning."""
        recall = progress.recall if progress is not _NOTHING else Recall(self.facts, {}, {})
        before = self._rendered
        if before is None or before.recall != recall:
            units = tuple(desired.build(self.catalog, recall.facts, self.unresolved, recall.unclear))
            problems = (*self.problems, *(unit.problem for unit in units if unit.problem))
            before = self._rendered = _Recalled(self.catalog, recall, units, problems, ())
        return before._replace(trouble=progress.trouble)


class _Recalled(NamedTuple):
    """What the specs ask for in one pass."""

    catalog: Catalog
    recall: Recall
    units: tuple[Rendered, ...]
    problems: tuple[Problem, ...]
    trouble: tuple[Trouble, ...]


class _Planned(NamedTuple):
    report: Report
    stands: tuple[_Stand, ...]
    facts: Facts


def _desire(request: Request, reader_of: Callable[[DataPlane], Reader]) -> _Desire:
    loaded = load(request.paths, request.rules)
    known, unresolved = facts.gather(loaded.catalog, reader_of, request.mirrors)
    return _Desire(loaded.catalog, known, unresolved, loaded.problems)


def _plan(
    request: Request, desire: _Recalled, reader_of: Callable[[DataPlane], Reader], pool: Executor, *, verify: bool
) -> _Planned:
    catalog, recall, units, problems, so_far = desire
    trouble = [*so_far, *(Trouble(f"{unit.model} in {unit.environment}", unit.waits) for unit in units if unit.waits)]
    complete = not _has_errors(problems)

    stands: list[_Stand] = []
    changes: list[Change] = []
    guards: list[Guard] = []
    for wanted, plane, inventories in _environments(
        catalog, units, reader_of, trouble, only=request.environments, complete=complete
    ):
        kept = replace(wanted, keep=recall.keep.get(wanted.environment, frozenset()))
        try:
            observed = observe.observe(
                reader_of(plane), wanted.environment, wanted.manifests, inventories, pool, verify=verify
            )
        except ApiError as error:
            trouble.append(Trouble(f"environment {wanted.environment}", str(error)))
            continue
        # Of what is wanted there, the plan says so itself.
        places = {place_of(manifest.id) for manifest in wanted.manifests}
        unseen = sorted({why for place, why in observed.blind.items() if place not in places})
        trouble += [Trouble(f"environment {wanted.environment}", why) for why in unseen]
        stands.append(_Stand(kept, plane, observed))
        theirs, limits = plan.environment(kept, observed)
        changes += theirs
        guards += limits
    planned = plan.assemble(changes, notes_of(units), guards)
    if request.approved:
        planned = plan.approved(planned, request.approved)
    judged = request.rules.judge(planned.changes, catalog)
    planned = replace(planned, changes=judged.changes)
    told = policy.summed((*problems, *judged.problems, *request.rules.problems))
    report = Report(told, planned, trouble=tuple(trouble), specs=catalog.origins)
    return _Planned(report, tuple(stands), recall.facts)


def _environments(
    catalog: Catalog,
    units: Iterable[Rendered],
    reader_of: Callable[[DataPlane], Reader],
    trouble: list[Trouble],
    *,
    only: frozenset[str],
    complete: bool,
) -> Iterable[tuple[Wanted, DataPlane, Mapping[str, Inventory | None]]]:
    """Every environment of the specs, and those that only have an inventory left, cluster by cluster.

    A cluster that cannot be reached is its own environments' trouble, and nobody else's.
    """
    manifests: dict[str, list[Manifest]] = {name: [] for name in catalog.environments}
    whole = dict.fromkeys(catalog.environments, complete)
    for unit in units:
        manifests[unit.environment] += unit.manifests
        whole[unit.environment] &= not (unit.waits or unit.problem)
    by_cluster: dict[Reader, list[str]] = {}
    planes: dict[Reader, DataPlane] = {}
    # What no spec names may be left over in any cluster.
    looked_at = only if only and only <= catalog.environments.keys() else catalog.environments.keys()
    for name in (name for name in promotion_order(catalog) if name in looked_at):
        placed = catalog.environments[name]
        try:
            reader = reader_of(placed.spec.data_plane)
        except ApiError as error:
            trouble.append(Trouble(f"environment {name}", str(error)))
            continue
        planes.setdefault(reader, placed.spec.data_plane)
        by_cluster.setdefault(reader, []).append(name)
    left_over: set[str] = set()
    known = set(catalog.environments)
    for reader, names in by_cluster.items():
        try:
            inventories = observe.inventories(reader)
        except ApiError as error:
            trouble.append(Trouble(f"environment{'s' * (len(names) > 1)} {', '.join(names)}", str(error)))
            continue
        known |= inventories.keys()
        namespaces: dict[str, str] = {}
        for name in names:
            spec = catalog.environments[name].spec
            # Two clusters by their specs may be one by the command line.
            first = namespaces.setdefault(spec.namespace_name, name)
            if first != name:
                message = f"environment {first} has the namespace {spec.namespace_name} of the same cluster"
                trouble.append(Trouble(f"environment {name}", message))
                continue
            if not only or name in only:
                wanted = Wanted(
                    name, manifests[name], whole[name], spec.suspended, reports_drift=spec.drift == "report"
                )
                yield wanted, planes[reader], inventories
        elsewhere = {name: other for other, theirs in by_cluster.items() if other is not reader for name in theirs}
        for name in sorted(inventories.keys() & elsewhere.keys()):
            if not observe.same_cluster(reader, elsewhere[name]):
                message = (
                    "it has moved to another cluster, and what it left in this one still runs; delete there what has "
                    f"the label {PART_OF}={set_id(name)}, and the ConfigMap {object_id_of(name)} last"
                )
                trouble.append(Trouble(f"environment {name}", message))
        # Two contexts may lead to one cluster, and two clusters may have left-overs of one name: one at a time.
        strays = inventories.keys() - catalog.environments.keys() - left_over
        for name in sorted(strays & only if only else strays):
            left_over.add(name)
            yield Wanted(name, (), complete, in_specs=False), planes[reader], inventories
    unknown = "no spec names it, and no cluster that was looked at knows it"
    trouble += [Trouble(f"environment {name}", unknown) for name in sorted(only - known)]


class _SecondLook:
    """The specs, read and rendered once more, before anything is deleted: a file may have been half written."""

    def __init__(self, request: Request, known: Facts) -> None:
        self._request = request
        self._facts = known
        self._lock = Lock()
        self._found: Mapping[str, frozenset[ObjectId]] | None = None
        self._looked = False

    def of(self, environment: str) -> frozenset[ObjectId] | None:
        """What the environment should have; None where the specs could not be read whole."""
        with self._lock:
            if not self._looked:
                self._found = self._look()
                self._looked = True
        return None if self._found is None else self._found.get(environment, frozenset())

    def _look(self) -> Mapping[str, frozenset[ObjectId]] | None:
        loaded = load(self._request.paths, self._request.rules)
        wanted: dict[str, set[ObjectId]] = {name: set() for name in loaded.catalog.environments}
        problems = list(loaded.problems)
        for unit in desired.build(loaded.catalog, self._facts):
            problems += [unit.problem] if unit.problem else []
            wanted[unit.environment] |= {manifest.id for manifest in unit.manifests}
        if _has_errors(problems):
            return None
        return {name: frozenset(ids) for name, ids in wanted.items()}


def _has_errors(problems: Iterable[Problem]) -> bool:
    return any(problem.severity == "error" for problem in problems)
