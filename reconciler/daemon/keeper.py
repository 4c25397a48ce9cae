"""Keeps one environment true: what watches tell, against what the specs want, for the models that are not settled.

    heard -> agenda -> look (rendered again) -> plan -> apply -> settled

Four looks, the cheapest first, decide about an object. An event that says nothing new is dropped by the cache. What is
new is compared with what is wanted, here. Where that leaves doubts, the server is asked (a dry run). And once in a
while it is asked about everything, as it may have learned new defaults. A pass in which nothing has changed has no
model to look at, and sends nothing.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from queue import SimpleQueue
from random import random
from threading import Event
from typing import NamedTuple, Protocol, TypeVar

from reconciler import apply, inventory, observe, plan, readiness
from reconciler.cluster import ApiError, Heard, Watched
from reconciler.daemon.agenda import Agenda
from reconciler.daemon.desire import Desire
from reconciler.daemon.health import Health
from reconciler.daemon.members import Members, model_of
from reconciler.daemon.pace import spread
from reconciler.daemon.plane import INVENTORIES, Plane
from reconciler.daemon.queues import drained
from reconciler.inventory import Inventory, Place, place_of
from reconciler.plan import Beside, Change, Observed, Op, Plan, Wanted
from reconciler.readiness import Readiness, State
from reconciler.report import Done, Outcome
from reconciler.telling.logs import Log
from renderers.manifest import Body, Manifest, ObjectId, object_id

log = Log(__name__)

#: Objects of one pass, about: what is rendered and looked at together is in memory together.
BATCH = 500
#: Models that are rendered at a time, to be compared.
_CHUNK = 32
#: Seconds between two audits, about.
AUDIT_SECONDS = 12 * 3600.0
#: After a change, so long is waited for others that come with it.
_GATHER_SECONDS = 0.02
#: A pass that takes longer gives up, and the next one begins where it stopped.
PASS_SECONDS = 600.0
#: What was mended is remembered, so much of it, for people who look.
_MENDED = 20

_T = TypeVar("_T")

_CHANGES_STATE = frozenset({"Job", "Deployment", "HTTPRoute"})


class Leadership(Protocol):
    """Whether this process may write."""

    @property
    def leads(self) -> bool: ...

    def keeps_all(self) -> str:
        """Why nothing may be deleted yet; "" where it may."""


class Pass(NamedTuple):
    """That a pass has ended. Its plan is told before, and not kept: all its manifests would be kept with it."""

    environment: str
    seconds: float
    at: float
    requests: int  #: to its cluster meanwhile


class Drifted(NamedTuple):
    """Something was changed past Git. `seen` is when, in seconds of the monotonic clock."""

    change: Change
    seen: float
    outcome: str  #: "mended", "reported", or why it is not mended


_REPORTED = "reported"


class Listener(Protocol):
    """Who is told of what a keeper does. Every method returns at once, and raises nothing."""

    def limited(self, environment: str, limits: Collection[plan.Guard], held: int) -> None: ...

    def approved(self, environment: str, approved: inventory.Approved) -> None: ...

    def planned(self, environment: str, planned: Plan) -> None: ...

    def did(self, environment: str, done: Done) -> None: ...

    def drifted(self, environment: str, drift: Drifted, now: float) -> None: ...

    def passed(self, one: Pass) -> None: ...

    def forgot(self, environment: str) -> None: ...

    def lost(self, environment: str, why: str) -> None: ...


@dataclass(slots=True)
class Ties:
    """What a keeper needs of its neighbours.

    `again` reads all specs from Git once more and says what the environment should have; None where that failed.
    `built` says what has become of a build, wherever it is made. `moved` tells that something has changed which others
    may wait for: a Job, pods, a route of this model.
    """

    leadership: Leadership
    listener: Listener
    again: Callable[[str], frozenset[ObjectId] | None]
    built: Callable[[str], Readiness | None]
    moved: Callable[[str], None]
    health: Health


@dataclass(slots=True, eq=False)
class Keeper:
    """`name` is the environment's. `run` is for a thread of its own; everything else may be called from any."""

    name: str
    plane: Plane
    desire: Desire
    ties: Ties
    agenda: Agenda = field(default_factory=lambda: Agenda(random))
    last: Pass | None = None
    trouble: str = ""
    #: What was changed past Git and is still so, by object.
    drift: dict[ObjectId, Drifted] = field(default_factory=dict)
    #: What was mended lately, the newest last.
    mended: deque[Drifted] = field(default_factory=lambda: deque(maxlen=_MENDED))
    guards: tuple[plan.Guard, ...] = ()
    bell: Event = field(default_factory=Event)
    _stopped: bool = False
    _heard: SimpleQueue[Heard] = field(default_factory=SimpleQueue)
    _wrote: SimpleQueue[Body] = field(default_factory=SimpleQueue)
    _wants: SimpleQueue[Collection[str] | None] = field(default_factory=SimpleQueue)
    _unkept: SimpleQueue[frozenset[ObjectId]] = field(default_factory=SimpleQueue)
    _stirs: SimpleQueue[str] = field(default_factory=SimpleQueue)
    _lifted: Event = field(default_factory=Event)
    #: What this pass has written, as it was answered: to look at it again, nothing has to be unpacked.
    _written: dict[ObjectId, Body] = field(default_factory=dict)
    _members: Members = field(default_factory=Members)
    _seen_at: dict[ObjectId, float] = field(default_factory=dict)
    _vanished: set[ObjectId] = field(default_factory=set)
    #: Models that are looked at even though they look settled: a Job has ended, which the inventory is to remember.
    _forced: set[str] = field(default_factory=set)
    _to_audit: set[str] = field(default_factory=set)
    _audit_due: float | None = None
    #: A pass might not delete anything, whatever the specs say.
    _kept_all: bool = False
    _watched: frozenset[Watched] = frozenset()
    #: Where the cluster does not let us look, and why, as of this turn. The rest goes on.
    _blind: Mapping[Place, str] = field(default_factory=dict)
    _is_known: bool = False

    # -- for others -------------------------------------------------------------------------------------------------

    def want(self, models: Collection[str] | None) -> None:
        """Something else is wanted of these models; None: of all."""
        self._wants.put(models)
        self.bell.set()

    def unkeep(self, jobs: frozenset[ObjectId]) -> None:
        """Jobs that were kept for their logs need not stay any more, or the other way around."""
        self._unkept.put(jobs)
        self.bell.set()

    def stir(self, model: str) -> None:
        """Something has happened that a model here may wait for."""
        self._stirs.put(model)
        self.bell.set()

    def hear(self, heard: Heard) -> None:
        """What a watch has seen of the environment."""
        self._heard.put(heard)
        self.bell.set()

    def hear_own(self, stored: Body) -> None:
        """What a write of ours has left."""
        self._wrote.put(stored)

    def hear_of_inventory(self) -> None:
        """Its inventory has changed: by us, or by a person who lifts a limit."""
        self._lifted.set()
        self.bell.set()

    def stop(self) -> None:
        """Ends the thread after what it is doing."""
        self._stopped = True
        self.bell.set()

    @property
    def loop(self) -> str:
        """Its name among the loops of the process."""
        return f"environment {self.name}"

    @property
    def is_over(self) -> bool:
        """Whether nothing is wanted here, and nothing is left that is ours to delete."""
        left = bool(self._members.kinds - plan.NEVER_PRUNED)
        gone = self.desire.environment(self.name) is None and not left
        return gone and self._is_known and self.plane.inventory(self.name)[1] is None

    @property
    def is_seen(self) -> bool:
        """Whether the cache has all of the environment that the cluster shows."""
        refused = self.plane.refusals(self._watched)
        return bool(self._watched) and self.plane.is_complete(self._watched - refused.keys())

    @property
    def is_caught_up(self) -> bool:
        """Whether it has looked at all that there was to look at. In a suspended environment, that is nothing."""
        is_idle = not len(self.agenda) or _is_suspended(self.desire, self.name)
        return self._is_known and self.is_seen and self._wants.empty() and self._heard.empty() and is_idle

    def states(self) -> dict[str, int]:
        """How many of its objects are in which state of readiness."""
        counts: Counter[str] = Counter()
        for watched in self._watched:
            counts += self.plane.cache.states(watched)
        return dict(counts)

    def unready(self, most: int = 10) -> list[tuple[str, str]]:
        """Objects that are applied and not ready yet, the first of them: the model, and why."""
        waiting = (
            target
            for watched in self._watched
            for target, entry in self.plane.cache.entries(watched)
            if entry.state in (State.IN_PROGRESS, State.FAILED)
        )
        return [
            (self._members.model(target), f"{target} is not ready: {self.plane.state_of(target).message}")
            for target in islice(waiting, most)
        ]

    def run(self) -> None:
        """Until it is stopped."""
        while not self._stopped:
            self.ties.health.beat(self.loop)
            try:
                self.turn(time.monotonic())
            except ApiError as error:
                self._lose(str(error))
            except Exception as error:  # a fault of ours in one environment must not stop the others
                log.exception("a pass ended with an error of the program", environment=self.name)
                self._lose(f"{type(error).__name__}: {error}")
            if self.bell.wait(self._patience()):
                self.bell.clear()
                time.sleep(_GATHER_SECONDS)

    def _patience(self) -> float:
        """Seconds until the next turn, if nothing is heard before."""
        if not self.is_seen or self._kept_all:
            return 0.2
        due = self.agenda.next_due()
        if due is None or not self.ties.leadership.leads or _is_suspended(self.desire, self.name):
            return 5.0
        return max(0.01, min(5.0, due - time.monotonic()))

    def _lose(self, why: str) -> None:
        """What was due is tried again later: the cluster is away, or something is wrong with what it holds."""
        self.trouble = why
        self.ties.listener.lost(self.name, why)
        now = time.monotonic()
        for model in self.agenda.due(now):
            self.agenda.leave(model, why, now, waits=False)

    # -- a turn -----------------------------------------------------------------------------------------------------

    def turn(self, now: float) -> None:
        """Hears what there is to hear, and does what is due. Raises `ApiError` where the cluster is lost."""
        self._follow()
        self._listen(now)
        self._written.clear()
        if not self.is_seen:
            self.trouble = self.plane.trouble({INVENTORIES, *self._watched}) or "its objects are being listed"
            return
        self._see_what_is_refused()
        if not self._is_known:
            self._is_known = True
            self._audit_due = now + spread(AUDIT_SECONDS, 0.5)
            self.agenda.touch(self._all_models(), now)
        self._audit(now)
        if not self.ties.leadership.leads or _is_suspended(self.desire, self.name):
            return  # what is to be looked at stays on the agenda
        if self._kept_all and not self.ties.leadership.keeps_all():
            self._kept_all = False
            self.agenda.stir([model for model, _ in self.agenda], now)
        self._mend_what_was_reported(now)
        due = self.agenda.due(now)
        if due:
            self._work(due)

    def _mend_what_was_reported(self, now: float) -> None:
        """Somebody has changed the environment to `drift: mend`: that counts for what was changed before, too."""
        environment = self.desire.environment(self.name)
        if environment is not None and environment.drift != "report":
            left = [target for target, drifted in self.drift.items() if drifted.outcome == _REPORTED]
            owners = (self.desire.owner(self.name, target) for target in left)
            self.agenda.touch({owner for owner in owners if owner is not None}, now)

    def _see_what_is_refused(self) -> None:
        refused = self.plane.refusals(self._watched)
        blind = {Place(*one[:3]): why for one, why in refused.items()}
        self.trouble = self.plane.trouble(refused) if refused else ""
        if self._blind.keys() != blind.keys():
            told = self.trouble or "all of it can be seen again"
            log.warning("what the cluster does not show stays as it is", environment=self.name, why=told)
        self._blind = blind

    def _work(self, due: frozenset[str]) -> None:
        """Passes over these models. What holds some of them back is known when all of them were looked at."""
        limits: list[plan.Guard] = []
        held = 0
        generation = self.desire.generation
        _, stored_in = self.plane.inventory(self.name)
        approved = inventory.approved_in(stored_in) if stored_in is not None else None
        looked: dict[Place, list[Body]] = {}
        with closing(self._batches(due)) as batches:
            for batch in batches:
                planned = self._pass(batch, generation, approved, looked)
                if planned is not None:
                    limits += planned.guards
                    held += sum(change.op is Op.DELETE and bool(change.held) for change in planned.changes)
                if self._is_preempted() or planned is None:
                    return
                del batch, planned  # with all their manifests, before the next ones are rendered
        self.guards = tuple(dict.fromkeys(limits))
        self.ties.listener.limited(self.name, self.guards, held if limits else 0)
        if approved is not None:
            self._take_back(approved)

    def _all_models(self) -> set[str]:
        return {*self.desire.models(self.name), *self._members.models}

    def _audit(self, now: float) -> None:
        if self._audit_due is not None and now >= self._audit_due:
            self._audit_due = now + spread(AUDIT_SECONDS, 0.5)
            self._to_audit = self._all_models()
            self.agenda.touch(self._to_audit, now)

    def _is_preempted(self) -> bool:
        """Whether something newer is wanted, or somebody else leads. What is left is looked at again."""
        return self._stopped or not self._wants.empty() or not self.ties.leadership.leads

    def _follow(self) -> None:
        """Watches the kinds that there may be members of. What a cluster may not have is watched where it is needed."""
        if not self.plane.is_complete([INVENTORIES]):
            return
        stored, _ = self.plane.inventory(self.name)
        places = self.desire.places(self.name).keys() | (stored.places if stored is not None else frozenset())
        namespaces = {place.namespace for place in places} - {""}
        namespaces |= self._members.namespaces
        kinds = {(place.api_version, place.kind, bool(place.namespace)) for place in places}
        kinds |= {known for known in observe.KNOWN_KINDS if stored is None or known[0] not in observe.ADDED_APIS}
        selector = f"{inventory.PART_OF}={inventory.set_id(self.name)}"
        watched = set()
        for version, kind, namespaced in kinds:
            for namespace in namespaces if namespaced else ("",):
                watched.add(Watched(version, kind, namespace, selector))
        if watched != self._watched:
            self._watched = frozenset(watched)
            self.plane.follow(self.loop, watched, self.hear)

    # -- hearing ----------------------------------------------------------------------------------------------------

    def _listen(self, now: float) -> None:
        self._join_own()
        for heard in drained(self._heard):
            self._take(heard, now)
        for wanted in drained(self._wants):
            self.agenda.touch(self._all_models() if wanted is None else wanted, now)
        for jobs in drained(self._unkept):
            self.agenda.touch({self._members.model(job) for job in jobs if job in self._members}, now)
        self.agenda.stir(set(drained(self._stirs)), now)
        if self._lifted.is_set():
            self._lifted.clear()
            _, stored_in = self.plane.inventory(self.name)
            if stored_in is None:
                self.agenda.touch(self._all_models(), now)  # it was deleted, and is made anew from labels
            elif inventory.approved_in(stored_in) is not None:
                self.agenda.touch_held(now)

    def _take(self, heard: Heard, now: float) -> None:
        target = heard.target
        if heard.how == "COMPLETE":
            for one, entry in self.plane.cache.entries(heard.watched):
                self._members.join(one, entry.labels)
                self.agenda.touch([model_of(entry.labels)], now)
            # A kind that was missing may be there now.
            self.agenda.touch([model for model, _ in self.agenda], now)
            return
        labelled = model_of(heard.labels)
        owner = self.desire.owner(self.name, target)
        models = {labelled} if owner is None else {labelled, owner}
        if heard.how == "DELETED":
            self._members.leave(target)
            if owner is not None:
                self._vanished.add(target)
                self._seen_at.setdefault(target, now)
            self.agenda.touch(models, now)
        elif heard.how == "STATUS":
            self.agenda.stir(models, now)
        else:
            known = self.plane.cache.entry(target)
            if known is not None:  # otherwise it is gone again: own deletions are not heard of
                self._members.join(target, known.labels)
            self._vanished.discard(target)
            if heard.how == "CHANGED":
                self._seen_at.setdefault(target, now)
            self.agenda.touch(models, now)
        if target.kind in _CHANGES_STATE:
            if target.kind == "Job" and self.plane.state_of(target).state is State.CURRENT:
                self._forced |= models
                self.agenda.touch(models, now)
            self.ties.moved(owner or labelled)

    def _join_own(self) -> None:
        for stored in drained(self._wrote):
            target = object_id(stored)
            self._members.join(target, stored["metadata"].get("labels") or {})
            self._written[target] = stored

    # -- what is to be looked at ------------------------------------------------------------------------------------

    def _batches(self, models: frozenset[str]) -> Generator[dict[str, tuple[Manifest, ...]], None, None]:
        """The models that are not settled, rendered, as many at a time as a pass takes.

        Those of which something is to be deleted come last, and all together: so what takes their place is there
        first, and a limit on deletions sees all of them.
        """
        leaving = {model for model in models if self._unwanted(model)}
        batch: dict[str, tuple[Manifest, ...]] = {}
        size = 0
        for chunk in _chunks(sorted(models - leaving)):
            for model, manifests in self.desire.look(self.name, chunk).items():
                if self._is_settled(model, manifests):
                    self._settle(model)
                    continue
                batch[model] = manifests
                size += len(manifests)
            if size >= BATCH:
                yield batch
                batch, size = {}, 0
        for chunk in _chunks(sorted(leaving)):
            batch |= self.desire.look(self.name, chunk)
        if batch:
            yield batch

    def _unwanted(self, model: str) -> bool:
        """Whether there is anything of a model that nobody wants."""
        unit = self.desire.unit(self.name, model)
        objects = unit.objects if unit is not None else {}
        return any(target not in objects and self._is_alone(target, model) for target in self._members.of(model))

    def _is_alone(self, target: ObjectId, model: str) -> bool:
        """Whether no other model wants it, whatever its label says."""
        return self.desire.owner(self.name, target) in (None, model)

    def _is_wanted_beside(self, target: ObjectId, models: Collection[str]) -> bool:
        """Whether another model than these wants it."""
        owner = self.desire.owner(self.name, target)
        return owner is not None and owner not in models

    def _is_settled(self, model: str, manifests: Collection[Manifest]) -> bool:
        unit = self.desire.unit(self.name, model)
        if model in self._forced or model in self._to_audit or unit is None or unit.waits or unit.problem:
            return False
        stored, _ = self.plane.inventory(self.name)
        if stored is None or (not model and self._is_wide(stored)):
            return False
        for manifest in manifests:
            has_run = manifest.id in stored.finished
            if place_of(manifest.id) in self._blind and not has_run:
                return False
            live = self._live(manifest.id)
            if live is None:
                if not has_run:
                    return False
            elif not plan.is_settled(manifest, live):
                return False
            elif not has_run and manifest.id.kind in plan.RUN_ONCE and readiness.of(live).state is State.CURRENT:
                return False  # the cluster may clean it up before anybody remembers
        return True

    def _is_wide(self, stored: Inventory) -> bool:
        """Whether an inventory names places where nothing is any more: whoever emptied them was cut short."""
        known = self.desire.places(self.name).keys() | self._members.places.keys() | self._blind.keys()
        return not stored.places <= known

    def _live(self, target: ObjectId) -> Body | None:
        """A member, as the cache has it."""
        entry = self.plane.cache.entry(target)
        if entry is None or entry.labels.get(inventory.PART_OF) != inventory.set_id(self.name):
            return None
        written = self._written.get(target)
        if written is not None and written["metadata"]["resourceVersion"] == entry.version:
            return written
        return self.plane.cache.get(target)

    def _settle(self, model: str, *, drifted: bool = False) -> None:
        """Nothing is to be done about it. `drifted`: although somebody has changed something of it."""
        self.agenda.settle(model)
        self._forced.discard(model)
        self._to_audit.discard(model)
        if drifted:
            return
        unit = self.desire.unit(self.name, model)
        for target in [*self._members.of(model), *(unit.objects if unit else ())]:
            if target in self._vanished and self._live(target) is not None:
                # A pass has made it anew before it had heard of the deletion.
                now = time.monotonic()
                made = Change(Op.CREATE, target, self.name, drift=True)
                self._tell_mended(Drifted(made, self._seen_at.get(target, now), "mended"), now)
            self._seen_at.pop(target, None)
            self.drift.pop(target, None)
            self._vanished.discard(target)

    # -- a pass -----------------------------------------------------------------------------------------------------

    def _pass(
        self,
        batch: Mapping[str, tuple[Manifest, ...]],
        generation: int,
        approved: inventory.Approved | None,
        looked: dict[Place, list[Body]],
    ) -> Plan | None:
        """Plans and applies what was rendered. None where something else is wanted since: then it is rendered anew."""
        began, asked = time.monotonic(), self.plane.asked
        manifests = tuple(manifest for theirs in batch.values() for manifest in theirs)
        with self.desire.lock:
            environment = self.desire.environment(self.name)
            complete, keep = self.desire.standing(self.name)
            if self.desire.generation != generation:
                self.agenda.touch(batch, began)
                return None
        wanted = Wanted(
            self.name,
            manifests,
            complete,
            in_specs=environment is not None,
            keep=keep,
            reports_drift=environment is not None and environment.drift == "report",
            keeps_all=self.ties.leadership.keeps_all(),
            rewound=self.desire.rewound,
        )
        self._kept_all = bool(wanted.keeps_all)
        seen = self._seen(batch, manifests)
        known = self.plane.inventories().keys()
        audit = bool(batch.keys() & self._to_audit)
        observed = observe.judged(
            self.plane.reader, seen, manifests, known, self.plane.pool, audit=audit, looked=looked
        )
        changes, guards = plan.environment(wanted, observed)
        planned = plan.assemble(changes, (), guards)
        if approved is not None and any(guard.approval == approved.id for guard in guards):
            planned = plan.approved(planned, {approved.id})
            self.ties.listener.approved(self.name, approved)
        self.ties.listener.planned(self.name, planned)
        done, is_whole = self._carry_out(planned, wanted, observed, began)
        self._join_own()
        for one in done:
            if one.outcome is Outcome.DELETED:
                self._members.leave(one.change.id)
        self._note(batch, planned, done, time.monotonic(), is_whole=is_whole)
        self._written.clear()
        self.last = Pass(self.name, time.monotonic() - began, began, self.plane.asked - asked)
        self.ties.listener.passed(self.last)
        return planned

    def _seen(self, batch: Mapping[str, tuple[Manifest, ...]], manifests: Collection[Manifest]) -> Observed:
        """What the cache has of these models, and of all others in numbers."""
        stored, _ = self.plane.inventory(self.name)
        ids = {manifest.id for manifest in manifests}
        for model in batch:
            ids |= {target for target in self._members.of(model) if self._is_alone(target, model)}
        bodies = {target: self._live(target) for target in ids}
        members = {target: body for target, body in bodies.items() if body is not None}
        # What others have and want is counted, not looked through: a pass costs what it is about.
        others = self._members.places - Counter(place_of(target) for target in ids if target in self._members)
        units = [unit for model in batch if (unit := self.desire.unit(self.name, model)) is not None]
        theirs = Counter(place_of(target) for unit in units for target in unit.objects)
        elsewhere = self.desire.places(self.name) - theirs
        finished = stored.finished if stored is not None else frozenset()
        remembered = {
            t for t in finished if (t in self._members and t not in ids) or self._is_wanted_beside(t, batch.keys())
        }
        beside = Beside(
            sum(number for place, number in others.items() if place.kind not in plan.NEVER_PRUNED),
            frozenset(others.keys() | elsewhere.keys()),
            frozenset(remembered),
            frozenset(t for t in (stored.gone if stored else ()) if self._is_wanted_beside(t, batch.keys())),
        )
        return Observed(
            self.name,
            members,
            inventory=stored,
            rebuilt=stored is None and bool(self._members.places),
            vanished=frozenset(self._vanished),
            beside=beside,
            blind=self._blind,
        )

    def _carry_out(
        self, planned: Plan, wanted: Wanted, observed: Observed, began: float
    ) -> tuple[tuple[Done, ...], bool]:
        """What was done, and whether that came to its end: something newer may have come before."""
        target = apply.Target(self.plane.writer, wanted, observed, self._second_look(planned))
        doing = apply.carry_out(planned, {self.name: target}, self.plane.pool, built_elsewhere=self.ties.built)
        told: list[Done] = []
        with closing(doing):
            for done in doing:
                self.ties.health.beat(self.loop)
                if not (_is_done(done) or self.ties.leadership.leads):
                    break  # the fence has stopped it, and another replica does it
                self.ties.listener.did(self.name, done)
                told.append(done)
                if self._is_preempted() or time.monotonic() - began > PASS_SECONDS:
                    return tuple(told), False
        return tuple(told), True

    def _second_look(self, planned: Plan) -> Callable[[], frozenset[ObjectId] | None]:
        """What goes for good is wanted by nobody in a second, whole reading of the commit; the rest, in the index."""
        losses = any(c.op is Op.DELETE and not c.held and c.superseded_by is None for c in planned.changes)
        if losses:
            return lambda: self.ties.again(self.name)
        units = self.desire.wanted(self.name).values()
        return lambda: frozenset(target for unit in units for target in unit.objects)

    def _take_back(self, approved: inventory.Approved) -> None:
        """An approval is for one plan, once. Another one may have come meanwhile, which counts."""
        live = self.plane.writer.get(inventory.object_id_of(self.name))
        if live is not None and inventory.approved_in(live) == approved:
            self.plane.writer.update(inventory.without_approval(live))

    # -- what became of it ------------------------------------------------------------------------------------------

    def _note(
        self,
        batch: Mapping[str, tuple[Manifest, ...]],
        planned: Plan,
        done: Collection[Done],
        now: float,
        *,
        is_whole: bool,
    ) -> None:
        self._note_drift(planned, done, now)
        of = {manifest.id: model for model, theirs in batch.items() for manifest in theirs}
        outcome = {one.change.id: one for one in done}
        stuck = outcome.get(inventory.object_id_of(self.name))
        limits = {guard.message for guard in planned.guards}
        wanted = self.desire.wanted(self.name)
        open_changes: dict[str, list[Change]] = {model: [] for model in batch}
        for change in planned.changes:
            model = of.get(change.id, self._members.model(change.id))
            if change.op is not Op.UNCHANGED and model in open_changes:
                open_changes[model].append(change)
        for model, changes in open_changes.items():
            unit = wanted.get(model)
            open_ = [c for c in changes if not (c.id in outcome and _is_done(outcome[c.id]))]
            left = [change for change in open_ if change.held != plan.REPORTED]
            if unit is not None and (unit.waits or unit.problem):
                self.agenda.leave(model, unit.waits or str(unit.problem), now, waits=True)
            elif not left and stuck is not None:
                self._forced.add(model)
                self.agenda.leave(model, stuck.message, now, waits=False)
            elif not left and not is_whole:
                # Its objects are as they should be, and the inventory may not say so yet.
                self._forced.add(model)
                self.agenda.touch([model], now)
            elif not changes:
                self._settle(model)
            elif open_ and not left:
                self._settle(model, drifted=True)
            elif not left or any(change.is_action and change.id not in outcome for change in left):
                self._forced.discard(model)
                self._to_audit.discard(model)
                # What was written is looked at once more, as the server has it by now; what was not begun, as
                # something newer came, is next.
                if not left and not self._unwanted(model) and self._is_settled(model, batch[model]):
                    self._settle(model)
                else:
                    self.agenda.touch([model], now)
            else:
                self._leave(model, left, outcome, limits, now)

    def _leave(
        self,
        model: str,
        left: Collection[Change],
        outcome: Mapping[ObjectId, Done],
        limits: Collection[str],
        now: float,
    ) -> None:
        """Not all of it is done: whoever is waited for, or how it failed, decides when to look again."""
        self._forced.discard(model)
        self._to_audit.discard(model)
        whys = [(change, outcome.get(change.id)) for change in left]
        failed = [(c, d) for c, d in whys if d is not None and d.outcome in (Outcome.FAILED, Outcome.BLOCKED)]
        refused = [(c, d) for c, d in whys if c.op in (Op.CONFLICT, Op.REFUSED)]
        first, one = (failed or refused or whys)[0]
        why = (one.message if one is not None else "") or first.held or first.reason
        held = any(change.held and change.held in limits for change in left)
        self.agenda.leave(model, f"{first.id}: {why}", now, waits=not (failed or refused), held=held)

    def _note_drift(self, planned: Plan, done: Collection[Done], now: float) -> None:
        outcome = {one.change.id: one for one in done}
        for change in planned.changes:
            if not change.drift:
                continue
            seen = self._seen_at.get(change.id, now)
            one = outcome.get(change.id)
            if one is not None and one.outcome is Outcome.APPLIED:
                self._tell_mended(Drifted(change, seen, "mended"), now)
                continue
            words = _REPORTED if change.held == plan.REPORTED else (one.message if one else "") or change.reason
            drifted = Drifted(change, seen, words)
            if change.id not in self.drift:
                self.ties.listener.drifted(self.name, drifted, now)
            self.drift[change.id] = drifted

    def _tell_mended(self, drifted: Drifted, now: float) -> None:
        target = drifted.change.id
        self.drift.pop(target, None)
        self._seen_at.pop(target, None)
        self._vanished.discard(target)
        self.mended.append(drifted._replace(change=replace(drifted.change, manifest=None)))
        self.ties.listener.drifted(self.name, drifted, now)
        if self.agenda.repaired(self._members.model(target), now):
            words = "somebody keeps changing it; it is left alone for a while"
            self.ties.listener.drifted(self.name, drifted._replace(outcome=words), now)


def _chunks(models: list[str]) -> Iterator[list[str]]:
    for begin in range(0, len(models), _CHUNK):
        yield models[begin : begin + _CHUNK]


def _is_done(one: Done) -> bool:
    return one.outcome in (Outcome.APPLIED, Outcome.DELETED)


def _is_suspended(desire: Desire, name: str) -> bool:
    environment = desire.environment(name)
    return environment is not None and environment.suspended
