"""The plan, carried out. The only caller of what writes.

For each environment: the inventory is widened, the stages are applied in order, what nobody wants is deleted last,
and the inventory is narrowed to what is really there. An object that fails stops what needs it and nothing else;
a cluster that is lost stops its own environment and no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, as_completed, wait
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from threading import Event
from typing import Literal, NamedTuple

from reconciler import causes, inventory, owners, plan, readiness, system
from reconciler.cluster import (
    FIELD_MANAGER,
    ApiError,
    FieldConflict,
    Forbidden,
    Invalid,
    KindMissing,
    KubeconfigError,
    NotLeader,
    Stale,
    Terminating,
    Unauthorized,
    Unavailable,
    Writer,
    is_ours,
)
from reconciler.inventory import Inventory, Place
from reconciler.plan import Change, InTheWay, Observed, Op, Plan, Predicted, Wanted
from reconciler.readiness import Readiness, State
from reconciler.report import Done, Outcome
from renderers.build import FULL_ID
from renderers.manifest import Body, ObjectId
from renderers.names import NAME

#: Whose children a controller cleans up; everything else has none, and is deleted without waiting for a collector.
_HAVE_DEPENDENTS = frozenset({"Deployment", "Job"})
#: What tells that no other object of the cluster will fare better.
_LOST = (KubeconfigError, NotLeader, Unauthorized, Unavailable)
#: A 500 may be about one object (a webhook that cannot be called) or about all: after so many, all is assumed.
_OUTAGES = 8
#: What no spec can mend.
_INFRASTRUCTURE = (*_LOST, Forbidden, KindMissing, Terminating)
_POLL_SECONDS = 0.25
#: Requests at a time; a cluster gets as many connections.
LOOPS = 8
_LOOK_IN_SECONDS = 0.05
#: How long a deletion may take before the run goes on without it; the next run looks again.
_GONE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where and from what an environment's part of the plan is carried out.

    `still_wanted` reads and renders the specs again: what is desired then, or None where that failed. Nothing is
    deleted that it names, so that no half-written file deletes anything.
    """

    writer: Writer
    wanted: Wanted
    observed: Observed
    still_wanted: Callable[[], frozenset[ObjectId] | None]


def carry_out(
    wanted: Plan,
    targets: Mapping[str, Target],
    pool: Executor,
    *,
    built_elsewhere: Callable[[str], Readiness | None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[Done, None, None]:
    """Does what the plan says and tells of each object as it is done.

    It waits for nothing: what needs something that is not there yet is told as waiting, and left for the next pass.
    `built_elsewhere` tells what has become of a build (its id) whose Job is not among the targets; None: nobody knows.
    Who stops listening waits for what is under way, so that a later run does not meet a write of this one.
    """
    builds = _Builds(built_elsewhere, {})
    runs = {
        name: _Run(target, [c for c in wanted.changes if c.environment == name], clock, builds)
        for name, target in targets.items()
    }
    for run in runs.values():
        builds.here.update((made, (run, job)) for made, job in run.jobs())
    busy = {name: run for name, run in runs.items() if run.needs_writing()}
    yield from _each(pool, busy.values(), _Run.widen)
    to_apply = _by_stage((run, change) for run in busy.values() for change in run.to_apply)
    for stage in range(len(plan.STAGES)):
        yield from _as_done(pool, _Run.apply, to_apply.get(stage, ()))
    to_delete = _by_stage((run, change) for run in busy.values() for change in run.to_delete)
    for stage in reversed(range(len(plan.STAGES))):
        yield from _as_done(pool, _Run.prune, to_delete.get(stage, ()))
    yield from _each(pool, busy.values(), _Run.narrow)


class _Builds(NamedTuple):
    """Who makes builds, by their id."""

    elsewhere: Callable[[str], Readiness | None]
    #: Whose Job makes it, and which one that is.
    here: dict[str, tuple[_Run, ObjectId]]


def _by_stage(jobs: Iterable[tuple[_Run, Change]]) -> dict[int, list[tuple[_Run, Change]]]:
    stages: dict[int, list[tuple[_Run, Change]]] = {}
    for run, change in jobs:
        stages.setdefault(plan.stage(change.id), []).append((run, change))
    return stages


def _as_done(
    pool: Executor, work: Callable[[_Run, Change], Done], jobs: Sequence[tuple[_Run, Change]]
) -> Iterator[Done]:
    """Does all jobs and yields what became of them, some at a time.

    A few loops take the jobs one by one, and this thread looks in now and then: to wake it for each of thousands of
    jobs would cost a third of the rate, as only one thread runs at a time.
    """
    left = iter(jobs)  # of a list: safe to share, as `next` holds the interpreter lock
    done: SimpleQueue[Done] = SimpleQueue()
    stopped = Event()

    def loop() -> None:
        for run, change in left:
            if stopped.is_set():
                return
            done.put(work(run, change))

    loops = {pool.submit(loop) for _ in range(min(LOOPS, len(jobs)))}
    try:
        while loops:
            finished, loops = wait(loops, timeout=_LOOK_IN_SECONDS, return_when=FIRST_EXCEPTION)
            while not done.empty():
                yield done.get()
            for one in finished:
                one.result()
    except GeneratorExit:
        stopped.set()
        wait(loops)
        raise
    finally:
        stopped.set()


def _each(pool: Executor, runs: Iterable[_Run], step: Callable[[_Run], list[Done]]) -> Iterator[Done]:
    for future in as_completed([pool.submit(step, run) for run in runs]):
        yield from future.result()


class _Left(NamedTuple):
    """Why something is left alone in this pass: it waits for what comes by itself, or for what nobody moves."""

    outcome: Outcome
    message: str


@dataclass(slots=True)
class _Run:
    """One environment's part of a run."""

    target: Target
    changes: list[Change]
    clock: Callable[[], float]
    #: Where each build is made, of all environments: what serves it waits for it.
    builds: _Builds
    #: Objects that are not as they should be: what needs them is left alone.
    failed: dict[ObjectId, str] = field(default_factory=dict)
    #: Those of them that are only not there yet: what needs them waits, too, and nobody has to do anything.
    waiting: set[ObjectId] = field(default_factory=set)
    gone: set[ObjectId] = field(default_factory=set)
    #: How many requests the cluster answered with a 500.
    outages: int = 0
    #: Why the whole environment stops, "" while it goes on.
    lost: str = ""
    stored: Inventory | None = None

    def __post_init__(self) -> None:
        self.stored = self.target.observed.inventory
        for change in self.changes:
            # A held deletion is in nobody's way, unless a route stays by it, and neither is drift of what is there;
            # anything else that is held is not as what needs it expects.
            stays = change.op is Op.DELETE and change.id.kind != "HTTPRoute"
            in_the_way = change.held and not stays and not (change.drift and change.uid)
            if change.op in (Op.CONFLICT, Op.REFUSED) or in_the_way:
                self.failed[change.id] = change.held or change.reason
                if (
                    change.op is Op.DELETE
                    and "deletionTimestamp" in self.target.observed.members[change.id]["metadata"]
                ):
                    self.waiting.add(change.id)  # it goes by itself

    @property
    def environment(self) -> str:
        return self.target.observed.environment

    @property
    def to_apply(self) -> list[Change]:
        return [change for change in self.changes if change.is_action and change.op is not Op.DELETE]

    @property
    def to_delete(self) -> list[Change]:
        return [change for change in self.changes if change.is_action and change.op is Op.DELETE]

    def jobs(self) -> Iterator[tuple[str, ObjectId]]:
        """The builds that are made here, by their id."""
        for manifest in self.target.wanted.manifests:
            build = manifest.body["metadata"].get("annotations", {}).get(FULL_ID)
            if manifest.id.kind == "Job" and build is not None:
                yield build, manifest.id

    def needs_writing(self) -> bool:
        """A pass in which nothing changed writes nothing, not even an inventory."""
        return any(change.is_action for change in self.changes) or self._narrowed() != self.stored

    # -- the inventory ----------------------------------------------------------------------------------------------

    def widen(self) -> list[Done]:
        """Before anything is applied: the inventory knows every place where there will be something."""
        wider = self._widened()
        if wider == self.stored:
            return []
        try:
            self._write(wider)
        except ApiError as error:
            self.lost = f"the inventory could not be written: {error}"
            return [self._done_inventory(Outcome.FAILED, self.lost, error)]
        return []

    def narrow(self) -> list[Done]:
        """After everything is deleted: the inventory knows the places where something is left, and no others."""
        if self.lost:
            return []
        narrower = self._narrowed()
        if narrower == self.stored:
            return []
        try:
            if narrower.places:
                self._write(narrower)
            else:
                self._delete_inventory()
        except ApiError as error:
            return [self._done_inventory(Outcome.FAILED, f"the inventory could not be narrowed: {error}", error)]
        return []

    def _widened(self) -> Inventory:
        base = self.stored or Inventory(self.environment)
        places = base.places | self.target.observed.beside.places | self._unseen()
        places |= {inventory.place_of(target) for target in self.target.observed.members}
        wider = Inventory(self.environment, places, self._finished(), self._gone() | base.gone)
        return wider.widened(self.target.wanted.manifests)

    def _narrowed(self) -> Inventory:
        if not self.target.wanted.complete:
            # What cannot be rendered today has not ceased to exist, and what of it has run is not to run again.
            return self._widened()
        left, beside = set(self.target.observed.members) - self.gone, self.target.observed.beside
        is_over = not (self.target.wanted.in_specs or self._unseen())
        if is_over and all(target.kind in plan.NEVER_PRUNED for target in left):
            # All that was ours to delete is gone: what stays is for people, and no run need speak of it again.
            return Inventory(self.environment)
        wanted = {manifest.id for manifest in self.target.wanted.manifests}
        places = frozenset(map(inventory.place_of, left | wanted)) | beside.places | self._unseen()
        finished = self._finished() & (frozenset(left | wanted) | beside.finished)
        return Inventory(self.environment, places, finished, self._gone())

    def _gone(self) -> frozenset[ObjectId]:
        """What somebody has deleted past Git, and is left so; of what nobody may look at now, as it was before."""
        before = self.stored.gone if self.stored else frozenset()
        left_so = {change.id for change in self.changes if change.op is Op.CREATE and change.held == plan.REPORTED}
        unseen = {change.id for change in self.changes if change.op is Op.REFUSED and change.id in before}
        return self.target.observed.beside.gone | left_so | unseen

    def _unseen(self) -> frozenset[Place]:
        """Where nobody could look, what was there may still be: to be found by whoever may look again."""
        blind = frozenset(self.target.observed.blind)
        return blind if self.stored is None else blind & self.stored.places

    def _finished(self) -> frozenset[ObjectId]:
        """What runs once and was seen to have done so, now or before. What failed may be deleted, to try it again."""
        before = self.stored.finished if self.stored else frozenset()
        members = self.target.observed.members.items()
        done = {t for t, body in members if t.kind in plan.RUN_ONCE and readiness.of(body).state is State.CURRENT}
        return before | done

    def _write(self, wanted: Inventory) -> None:
        """Only we write it, so a field that somebody else took is taken back."""
        if self.stored is None:
            system.ensure_namespace(self.target.writer)
        self.target.writer.apply(inventory.to_config_map(wanted), force=True)
        self.stored = wanted

    def _delete_inventory(self) -> None:
        target = inventory.object_id_of(self.environment)
        live = self.target.writer.get(target)
        if live is not None:
            self.target.writer.delete(target, uid=live["metadata"]["uid"], propagation="Background")
        self.stored = None

    def _done_inventory(self, outcome: Outcome, message: str, error: ApiError) -> Done:
        change = Change(Op.CHANGE, inventory.object_id_of(self.environment), self.environment)
        return Done(change, outcome, message, infrastructure=isinstance(error, _INFRASTRUCTURE))

    # -- applying ---------------------------------------------------------------------------------------------------

    def apply(self, change: Change) -> Done:
        """One object: created, changed or replaced, unless something that it needs is missing."""
        assert change.manifest is not None
        if self.lost:
            return Done(change, Outcome.BLOCKED, self.lost)
        missing = [needed for needed in self._needs(change) if needed in self.failed]
        if missing:
            worst = min(missing, key=self.waiting.__contains__)
            outcome = Outcome.WAITING if worst in self.waiting else Outcome.BLOCKED
            return self._leave(change, outcome, f"it needs {worst}")
        try:
            left = self._waits_for(change)
            if left is not None:
                return self._leave(change, left.outcome, left.message)
            if change.op is Op.REPLACE and not self._make_room(change):
                message = "the old one is still being deleted; the next run goes on with it"
                return self._leave(change, Outcome.WAITING, message)
            self._hand_over_replicas(change)
            self._apply(change, self._guarded(change, change.manifest.body))
        except Stale:
            if not self._is_done(change):
                message = "it has changed since it was looked at; the next run looks again"
                return self._leave(change, Outcome.WAITING, message)
        except ApiError as error:
            return self._failure(change, error)
        return Done(change, Outcome.APPLIED)

    def _is_done(self, change: Change) -> bool:
        """Whether what changed it was this very write, whose answer was lost before it was repeated."""
        assert change.manifest is not None
        try:
            live = self.target.writer.get(change.id)
        except ApiError:
            return False
        return live is not None and plan.is_clean(change.manifest, live)

    def _needs(self, change: Change) -> Sequence[ObjectId]:
        """What must be as it should be first. A way back waits for nothing that already gets requests."""
        assert change.manifest is not None
        if change.traffic is None:
            return change.manifest.needs
        named = _backends(self.target.observed.members[change.id])
        return [n for n in change.manifest.needs if n.kind not in ("Service", "Deployment") or n.name not in named]

    def _leave(self, change: Change, outcome: Outcome, message: str) -> Done:
        self.failed[change.id] = message
        if outcome is Outcome.WAITING:
            self.waiting.add(change.id)
        return Done(change, outcome, message)

    def _guarded(self, change: Change, body: Body) -> Body:
        """A route is changed only as it was seen: another reconciler may have moved the traffic on meanwhile."""
        live = self.target.observed.members.get(change.id)
        if change.id.kind != "HTTPRoute" or change.op is not Op.CHANGE or live is None:
            return body
        version = {"resourceVersion": live["metadata"]["resourceVersion"]}
        return body | {"metadata": body["metadata"] | version}

    def _apply(self, change: Change, body: Body) -> None:
        """Git wins over a person's tool, both in fields and in what it has put into lists."""
        writer = self.target.writer
        live: Body | None
        if self._takes_over(change.id):
            # Now, as ours beside theirs would be one rollout, and ours alone another.
            live = writer.live(change.id)
            if live is not None and body["metadata"].get("resourceVersion", _version(live)) == _version(live):
                body = self._owned(live, body) or body
        try:
            live = self._set(change.id, body)
        except Invalid:
            live = writer.live(change.id)
            if live is None or owners.taken_over(live, body, plan.is_human) is None:
                raise
        alone = self._owned(live, body)
        if alone is not None:
            self._set(change.id, alone)

    def _takes_over(self, target: ObjectId) -> bool:
        """Whether it was foreseen that something of a person's is in it."""
        prediction = self.target.observed.predictions.get(target)
        return isinstance(prediction, InTheWay) or (isinstance(prediction, Predicted) and bool(prediction.forced))

    def _owned(self, live: Body, body: Body) -> Body | None:
        """What is to be applied, once what goes from its lists is ours. None where there is no such thing."""
        managed_fields = owners.taken_over(live, body, plan.is_human)
        if managed_fields is None:
            return None
        version = _version(self.target.writer.own(live, managed_fields))
        seen = {"resourceVersion": version} if "resourceVersion" in body["metadata"] else {}
        return body | {"metadata": body["metadata"] | seen}

    def _set(self, target: ObjectId, body: Body) -> Body:
        try:
            return self.target.writer.apply(body)
        except FieldConflict as conflict:
            if not all(plan.gives_way(target, manager, path) for manager, path in conflict.conflicts):
                raise
            return self.target.writer.apply(body, force=True)

    def _hand_over_replicas(self, change: Change) -> None:
        """Keeps the pods of a Deployment that is autoscaled from now on.

        A field whose only owner stops stating it goes back to its default, which for replicas is 1. So a second
        manager states the live number first; the autoscaler's first write takes it over.
        """
        live = self.target.observed.members.get(change.id)
        if change.id.kind != "Deployment" or live is None or change.manifest is None:
            return
        if "replicas" in change.manifest.body["spec"] or not _states_replicas(live):
            return
        identity = {"name": change.id.name, "namespace": change.id.namespace}
        replicas = {"replicas": live["spec"]["replicas"]}
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": identity, "spec": replicas}
        self.target.writer.apply(body, force=True, manager=f"{FIELD_MANAGER}-handover")

    def _make_room(self, change: Change) -> bool:
        """Deletes the old object of a replacement. Whether it went in time: pods may take a minute to end."""
        self.target.writer.delete(change.id, uid=change.uid, propagation=_propagation(change.id))
        return self._is_gone(change.id, change.uid)

    def _waits_for(self, change: Change) -> _Left | None:
        """Built before served, and ready before traffic: what is not there yet, or will never be; None: all is."""
        live = self.target.observed.members.get(change.id)
        if change.id.kind == "Deployment" and live is None:
            return self._waits_for_build(change)
        if change.id.kind == "HTTPRoute" and live is not None:
            return self._waits_for_pods(change, _backends(live))
        return None

    def _waits_for_build(self, change: Change) -> _Left | None:
        """Pods whose artifact is not there yet would only fail to start. The build may be another environment's."""
        assert change.manifest is not None
        annotations = change.manifest.body["metadata"].get("annotations", {})
        build = annotations.get(FULL_ID, "")
        if build in self.builds.here:
            run, job = self.builds.here[build]
            if run.target.observed.has_run(job):
                return None
            if why := run.failed.get(job) or run.lost:
                comes = run.lost or job in run.waiting
                return _Left(Outcome.WAITING if comes else Outcome.BLOCKED, f"it waits for {job}: {why}")
            what, state = f"its build {job}", self._state_of_build(run, job)
        else:
            what, state = f"its build {build[:8]}", self.builds.elsewhere(build) or Readiness(State.CURRENT)
        if state.state is State.CURRENT:
            return None
        if state.state is State.FAILED:
            return _Left(Outcome.FAILED, f"its build failed: {state.message}")
        return _Left(Outcome.WAITING, f"it waits for {what}: {state.message}")

    def _state_of_build(self, run: _Run, job: ObjectId) -> Readiness:
        """That the cluster of another environment is lost does not lose this one."""
        try:
            return run.state_of(job)
        except _LOST as error:
            if run is self:
                raise
            return Readiness(State.IN_PROGRESS, error.message)

    def _waits_for_pods(self, change: Change, named: set[str]) -> _Left | None:
        """A route is not turned to pods that cannot answer yet.

        Only for what the live route does not name already, so that a pod that is down does not stop other changes.
        """
        assert change.manifest is not None
        for needed in change.manifest.needs:
            if needed.kind == "Deployment" and needed.name not in named:
                state = self.state_of(needed)
                if state.state is State.FAILED:
                    words = f"traffic stays where it is, as {needed} has failed: {state.message}"
                    return _Left(Outcome.FAILED, words)
                if state.state is not State.CURRENT:
                    words = f"traffic stays where it is until {needed} is ready: {state.message}"
                    return _Left(Outcome.WAITING, words)
        return None

    def _failure(self, change: Change, error: ApiError) -> Done:
        self.outages += error.status == 500
        if isinstance(error, _LOST) and (error.status != 500 or self.outages >= _OUTAGES):
            self.lost = f"the cluster of {self.environment} was lost: {error}"
        self.failed[change.id] = error.message
        if isinstance(error, FieldConflict):  # taken since the plan was made; one of the plan is told alike
            return Done(replace(change, op=Op.CONFLICT), Outcome.BLOCKED, str(error))
        return Done(change, Outcome.FAILED, str(error), infrastructure=isinstance(error, _INFRASTRUCTURE))

    def state_of(self, target: ObjectId) -> Readiness:
        """What has become of an object by now; with the cause, where its pods know. Raises `ApiError`."""
        return causes.state_of(self.target.writer, self.target.writer.get(target))

    # -- pruning ----------------------------------------------------------------------------------------------------

    def prune(self, change: Change) -> Done:
        """Deletes what nobody wants, if a second look at the specs agrees."""
        if self.lost:
            return Done(change, Outcome.BLOCKED, self.lost)
        wanted = self.target.still_wanted()
        if wanted is None:
            return Done(change, Outcome.BLOCKED, "the specs could not be read a second time, so nothing is deleted")
        if change.id in wanted:
            return Done(change, Outcome.BLOCKED, "the specs were read again, and want it")
        try:
            if left := self._still_in_use(change):
                return Done(change, left.outcome, left.message)
            done = self._delete(change)
        except ApiError as error:
            return self._failure(change, error)
        return self._leave(change, done.outcome, done.message) if done.outcome is Outcome.WAITING else done

    def _still_in_use(self, change: Change) -> _Left | None:
        """What serves goes when no route can name it any more, and its successor, if it has one, stands."""
        if change.id.kind in ("Job", "HTTPRoute"):
            return None
        for target, why in list(self.failed.items()):
            if target.kind == "HTTPRoute" and self._model(target) == self._model(change.id):
                outcome = Outcome.WAITING if target in self.waiting else Outcome.BLOCKED
                return _Left(outcome, f"it may still get traffic, because {target} was not changed: {why}")
        if change.superseded_by is None:
            return None
        deployment = self._user_of(change.superseded_by)
        if deployment is None:
            return None
        state = self.state_of(deployment)
        if state.state is State.CURRENT:
            return None
        # What was left alone because of a build that has failed is not there, and nobody makes it.
        comes = state.state is not State.FAILED and (deployment not in self.failed or deployment in self.waiting)
        outcome = Outcome.WAITING if comes else Outcome.BLOCKED
        return _Left(outcome, f"its successor {deployment} is not ready: {state.message}")

    def _user_of(self, target: ObjectId) -> ObjectId | None:
        """The wanted Deployment that an object belongs to: the one of its name, or the one that mounts it."""
        for manifest in self.target.wanted.manifests:
            if manifest.id.kind == "Deployment" and manifest.id.namespace == target.namespace:
                volumes = manifest.body["spec"]["template"]["spec"].get("volumes", ())
                mounts = {volume["configMap"]["name"] for volume in volumes if "configMap" in volume}
                if manifest.id.name == target.name or (target.kind == "ConfigMap" and target.name in mounts):
                    return manifest.id
        return None

    def _model(self, target: ObjectId) -> str | None:
        """The model that an object is for; None where it does not exist. Unseen, it may exist."""
        unseen = (c.manifest.body for c in self.changes if c.id == target and c.manifest and c.op is not Op.CREATE)
        body = self.target.observed.members.get(target) or next(unseen, None)
        return None if body is None else body["metadata"].get("labels", {}).get(NAME, "")

    def _delete(self, change: Change) -> Done:
        """With the UID as a precondition, and only while the label on the live object is still ours."""
        for _ in range(3):
            live = self.target.writer.get(change.id)
            if live is None or live["metadata"]["uid"] != change.uid:
                self.gone.add(change.id)
                return Done(change, Outcome.DELETED, "it was gone already")
            owner = live["metadata"].get("labels", {}).get(inventory.PART_OF)
            if owner != inventory.set_id(self.environment):
                self.gone.add(change.id)
                return Done(change, Outcome.BLOCKED, "its label says by now that it is somebody else's")
            version = live["metadata"]["resourceVersion"]
            try:
                propagation = _propagation(change.id)
                self.target.writer.delete(change.id, uid=change.uid, resource_version=version, propagation=propagation)
            except Stale:
                continue  # it changed between the look and the deletion: look again
            if self._is_gone(change.id, change.uid):
                self.gone.add(change.id)
                return Done(change, Outcome.DELETED)
            live = self.target.writer.get(change.id)
            return Done(change, Outcome.WAITING, readiness.of(live).message)
        return Done(change, Outcome.WAITING, "it changes faster than it can be deleted; the next run tries again")

    def _is_gone(self, target: ObjectId, uid: str) -> bool:
        until = self.clock() + _GONE_SECONDS
        while True:
            live = self.target.writer.get(target)
            if live is None or live["metadata"]["uid"] != uid:
                return True
            # A finalizer that is not Kubernetes' own may take for ever: told, and left for the next run.
            foreign = set(live["metadata"].get("finalizers", ())) - {"foregroundDeletion", "orphan"}
            if foreign or self.clock() >= until:
                return False
            time.sleep(_POLL_SECONDS)


def _states_replicas(live: Body) -> bool:
    """Whether the number of pods is ours, by the server's own account."""
    ours = filter(is_ours, live["metadata"].get("managedFields") or ())
    return any("f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {}) for entry in ours)


def _version(body: Body) -> str:
    return str(body["metadata"]["resourceVersion"])


def _propagation(target: ObjectId) -> Literal["Foreground", "Background"]:
    return "Foreground" if target.kind in _HAVE_DEPENDENTS else "Background"


def _backends(route: Body) -> set[str]:
    """The services that a route names, mirrors included."""
    names = set()
    for rule in route.get("spec", {}).get("rules", ()):
        names |= {backend["name"] for backend in rule.get("backendRefs", ())}
        names |= {f["requestMirror"]["backendRef"]["name"] for f in rule.get("filters", ()) if "requestMirror" in f}
    return names
