"""Keeps one environment true: what watches tell, against what the specs want, for the models that are not settled.

    heard -> agenda -> look (rendered again) -> plan -> apply -> settled

Four looks, the cheapest first, decide about an object. An event that says nothing new is dropped by the cache. What is
new is compared with what is wanted, here. Where that leaves doubts, the server is asked (a dry run). And once in a
while it is asked about everything, as it may have learned new defaults. A pass in which nothing has changed has no
model to look at, and sends nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from queue import SimpleQueue
from random import random
from threading import Event

from reconciler import apply, inventory, observe, plan
from reconciler.cluster import ApiError, Heard, Watched
from reconciler.daemon import verdicts
from reconciler.daemon.agenda import Agenda
from reconciler.daemon.desire import Desire, Unit
from reconciler.daemon.drifts import MENDED, Drifted, Drifts
from reconciler.daemon.members import model_of
from reconciler.daemon.pace import spread
from reconciler.daemon.plane import INVENTORIES, Plane
from reconciler.daemon.queues import drained
from reconciler.daemon.sight import Batch, Rendered, Sight
from reconciler.daemon.ties import Pass, Ties
from reconciler.daemon.verdicts import Next
from reconciler.inventory import Place
from reconciler.plan import Observed, Op, Plan, Wanted
from reconciler.policy import Policy
from reconciler.readiness import State
from reconciler.report import Done, Outcome
from reconciler.telling.logs import Log
from renderers.catalog import Catalog
from renderers.manifest import Body, Manifest, ObjectId

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
_UNREADY = frozenset({State.IN_PROGRESS, State.FAILED})
_CHANGES_STATE = frozenset({"Job", "Deployment", "HTTPRoute"})


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
    drifts: Drifts = field(default_factory=Drifts)
    guards: tuple[plan.Guard, ...] = ()
    bell: Event = field(default_factory=Event)
    _stopped: bool = False
    _heard: SimpleQueue[Heard] = field(default_factory=SimpleQueue)
    _wrote: SimpleQueue[Body] = field(default_factory=SimpleQueue)
    _wants: SimpleQueue[Collection[str] | None] = field(default_factory=SimpleQueue)
    _unkept: SimpleQueue[frozenset[ObjectId]] = field(default_factory=SimpleQueue)
    _stirs: SimpleQueue[str] = field(default_factory=SimpleQueue)
    _lifted: Event = field(default_factory=Event)
    _sight: Sight = field(init=False)
    #: Models that are looked at even though they look settled: a Job has ended, which the inventory is to remember.
    _forced: set[str] = field(default_factory=set)
    _to_audit: set[str] = field(default_factory=set)
    #: Models that this program has failed about: each is looked at alone, so that it stops no other.
    _odd: set[str] = field(default_factory=set)
    #: What was changed past Git was to be left so, when it was last looked at.
    _reports: bool = False
    _audit_due: float | None = None
    #: A pass might not delete anything, whatever the specs say.
    _kept_all: bool = False
    _watched: frozenset[Watched] = frozenset()
    _is_known: bool = False

    def __post_init__(self) -> None:
        self._sight = Sight(self.name, self.plane, self.desire)

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
        if self.desire.environment(self.name) is not None or self._sight.members.kinds - plan.NEVER_PRUNED:
            return False
        return self._is_known and self.plane.inventory(self.name)[1] is None

    @property
    def is_seen(self) -> bool:
        """Whether the cache has all of the environment that the cluster shows."""
        return self._refused() is not None

    def _refused(self) -> Mapping[Watched, str] | None:
        """What the cluster does not show, and why. None while it has not answered about all of it."""
        unseen = {one for one in self._watched if not self.plane.is_complete([one])}
        refused = self.plane.refusals(self._watched)  # later, so that nothing passes for seen that is refused by now
        return refused if self._watched and unseen <= refused.keys() else None

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
            if self.plane.cache.states(watched).keys() & _UNREADY
            for target, entry in self.plane.cache.entries(watched)
            if entry.state in _UNREADY
        )
        return [
            (self._sight.members.model(target), f"{target} is not ready: {self.plane.state_of(target).message}")
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
                if not self._stopped:
                    log.exception("a pass ended with an error of the program", environment=self.name)
                self._lose(f"{type(error).__name__}: {error}")
            if self.bell.wait(self._patience()):
                self.bell.clear()
                time.sleep(_GATHER_SECONDS)
        self.ties.health.forget(self.loop)  # here, as nobody waits for long until a cluster that hangs has let go of it

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
        if self._stopped:
            return
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
        self._sight.written.clear()
        refused = self._refused()
        if refused is None:
            self.trouble = self.plane.trouble({INVENTORIES, *self._watched}) or "its objects are being listed"
            return
        self._see_what_is_refused(refused)
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
        reports = environment is not None and environment.drift == "report"
        if self._reports and not reports:
            owners = (self.desire.owner(self.name, target) for target in self.drifts.reported)
            self.agenda.touch({owner for owner in owners if owner is not None}, now)
        self._reports = reports

    def _see_what_is_refused(self, refused: Mapping[Watched, str]) -> None:
        blind = {Place(*one[:3]): why for one, why in refused.items()}
        self.trouble = self.plane.trouble(refused) if refused else ""
        if self._sight.blind.keys() != blind.keys():
            told = self.trouble or "all of it can be seen again"
            log.warning("what the cluster does not show stays as it is", environment=self.name, why=told)
        self._sight.blind = blind

    def _work(self, due: frozenset[str]) -> None:
        """Passes over these models. What holds some of them back is known when all of them were looked at."""
        limits: list[plan.Guard] = []
        held = forbidden = 0
        is_whole = True
        _, stored_in = self.plane.inventory(self.name)
        approved = inventory.approved_in(stored_in) if stored_in is not None else None
        looked: dict[Place, list[Body]] = {}
        with closing(self._batches(due)) as batches:
            for batch in batches:
                planned: Plan | None = None
                with self._apart(batch):
                    planned = self._pass(batch, approved, looked)
                is_whole &= planned is not None
                if planned is not None:
                    limits += planned.guards
                    rules = {guard.message for guard in planned.guards if guard.is_of_policy}
                    forbidden += sum(change.held in rules for change in planned.changes)
                    deletions = (change for change in planned.changes if change.op is Op.DELETE)
                    held += sum(bool(change.held) and change.held not in rules for change in deletions)
                if self._is_preempted():
                    return
                del batch, planned  # with all their manifests, before the next ones are rendered
        self._forget_drift()
        if not is_whole:
            return
        self.guards = tuple(dict.fromkeys(limits))
        held = 0 if all(guard.is_of_policy for guard in limits) else held
        self.ties.listener.limited(self.name, self.guards, held, forbidden)
        if approved is not None:
            self._take_back(approved)

    @contextmanager
    def _apart(self, models: Collection[str]) -> Iterator[None]:
        """A fault of ours that one model brings about must not stop the others: it is looked for one by one."""
        try:
            yield
        except ApiError:
            raise
        except Exception as error:  # whatever it is, the other models go on
            if self._stopped:
                return  # nobody has waited for it, and its cluster was let go of
            log.exception("a pass ended with an error of the program", environment=self.name, models=sorted(models))
            self._odd.update(models)
            for model in models:
                self.agenda.leave(model, f"{type(error).__name__}: {error}", time.monotonic(), waits=False)
        else:
            self._odd.difference_update(models)

    def _all_models(self) -> set[str]:
        return {*self.desire.models(self.name), *self._sight.members.models}

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
        if self._stopped or not self.plane.is_complete([INVENTORIES]):
            return
        stored, _ = self.plane.inventory(self.name)
        places = self.desire.places(self.name).keys() | (stored.places if stored is not None else frozenset())
        namespaces = {place.namespace for place in places} - {""}
        namespaces |= self._sight.members.namespaces
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
            self._forget_drift()  # before any of it is wanted again
        for jobs in drained(self._unkept):
            self.agenda.touch({self._sight.members.model(job) for job in jobs if job in self._sight.members}, now)
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
                self._sight.members.join(one, entry.labels)
                self.agenda.touch([model_of(entry.labels)], now)
            # A kind that was missing may be there now.
            self.agenda.touch([model for model, _ in self.agenda], now)
            return
        labelled = model_of(heard.labels)
        owner = self.desire.owner(self.name, target)
        models = {labelled} if owner is None else {labelled, owner}
        if heard.how == "STATUS":
            self.agenda.stir(models, now)
        else:
            self._sight.count(target)
            self.agenda.touch(models, now)
        if heard.how == "DELETED":
            if owner is not None:
                self.drifts.deleted(target, now)
            if target.kind == "Namespace":
                # Whatever was refused in it while it was being deleted need not wait any more.
                self.agenda.touch([model for model, _ in self.agenda], now)
        elif heard.how != "STATUS":
            self.drifts.is_back(target)
            if heard.how == "CHANGED":
                self.drifts.changed(target, now)
        if target.kind in _CHANGES_STATE:
            if target.kind == "Job" and self.plane.state_of(target).state is State.CURRENT:
                self._forced |= models
                self.agenda.touch(models, now)
            self.ties.moved(owner or labelled)

    def _forget_drift(self) -> None:
        """What a broken spec asks for looks like what nobody wants."""
        complete, _ = self.desire.standing(self.name)
        if complete:
            self.drifts.forget(self._sight.is_known)

    def _join_own(self) -> None:
        for stored in drained(self._wrote):
            self._sight.wrote(stored)

    # -- what is to be looked at ------------------------------------------------------------------------------------

    def _batches(self, models: frozenset[str]) -> Generator[Batch, None, None]:
        """The models that are not settled, rendered, as many at a time as a pass takes.

        Those of which something is to be deleted come last, and all together: so what takes their place is there
        first, and a limit on deletions sees all of them: even those that are due later, as something failed.
        """
        leaving = {model for model in models if self._sight.has_unwanted(model)}
        if leaving:
            leaving |= {model for model, one in self.agenda if not one.waits and self._sight.has_unwanted(model)}
        odd = self._odd & (models - leaving)
        batch: dict[str, Rendered] = {}
        for chunk in _chunks(sorted(models - leaving - odd)):
            batch |= self._unsettled(chunk)
            if sum(len(one.manifests) for one in batch.values()) >= BATCH:
                yield batch
                batch = {}
        if batch and (odd or self._odd & leaving):
            yield batch
            batch = {}
        for model in sorted(odd):
            if alone := self._unsettled([model]):
                yield alone
        with self._apart(leaving):
            going: dict[str, Rendered] = {}
            for chunk in _chunks(sorted(leaving)):
                going |= self._rendered(chunk)
            batch |= going
        if batch:
            yield batch

    def _unsettled(self, models: Collection[str]) -> dict[str, Rendered]:
        """Those that there may be something to do about."""
        found: dict[str, Rendered] = {}
        with self._apart(models):
            for model, one in self._rendered(models).items():
                if self._is_settled(model, one.manifests):
                    self._settle(model)
                else:
                    found[model] = one
        return found

    def _rendered(self, models: Collection[str]) -> dict[str, Rendered]:
        with self.desire.lock:
            looked = self.desire.look(self.name, models).items()
            return {model: Rendered(self.desire.unit(self.name, model), manifests) for model, manifests in looked}

    def _is_settled(self, model: str, manifests: Collection[Manifest]) -> bool:
        return not (model in self._forced or model in self._to_audit) and self._sight.is_settled(model, manifests)

    def _is_as_wanted(self, model: str, manifests: Collection[Manifest]) -> bool:
        return not self._sight.has_unwanted(model) and self._is_settled(model, manifests)

    def _settle(self, model: str) -> None:
        """Nothing is to be done about it."""
        self.agenda.settle(model)
        self._forced.discard(model)
        self._to_audit.discard(model)
        unit, now = self.desire.unit(self.name, model), time.monotonic()
        targets = [*self._sight.members.of(model), *(unit.objects if unit else ())]
        self._tell(self.drifts.settled(targets, self.name, self._sight.is_there, now), now)

    # -- a pass -----------------------------------------------------------------------------------------------------

    def _pass(self, batch: Batch, approved: inventory.Approved | None, looked: dict[Place, list[Body]]) -> Plan | None:
        """Plans and applies what was rendered. None where something else is wanted since: then it is rendered anew."""
        began, asked = time.monotonic(), self.plane.asked
        manifests = tuple(manifest for one in batch.values() for manifest in one.manifests)
        with self.desire.lock:
            environment = self.desire.environment(self.name)
            complete, keep = self.desire.standing(self.name)
            rules, catalog = self.desire.rules, self.desire.specs.catalog
            if any(self.desire.unit(self.name, model) != one.unit for model, one in batch.items()):
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
        seen = self._sight.seen(batch, frozenset(self.drifts.vanished))
        known = self.plane.inventories().keys()
        audit = bool(batch.keys() & self._to_audit)
        observed = observe.judged(
            self.plane.reader, seen, manifests, known, self.plane.pool, audit=audit, looked=looked
        )
        changes, guards = plan.environment(wanted, observed)
        planned = self._lifted_by(approved, plan.assemble(changes), guards)
        planned = self._judged(planned, rules, catalog, approved)
        self.ties.listener.planned(self.name, planned)
        done, is_whole = self._carry_out(planned, wanted, observed, began)
        self._join_own()
        for one in done:
            if one.outcome is Outcome.DELETED:
                self._sight.members.leave(one.change.id)
        self._note(batch, planned, done, time.monotonic(), is_whole=is_whole)
        self._sight.written.clear()
        self.last = Pass(self.name, time.monotonic() - began, began, self.plane.asked - asked)
        self.ties.listener.passed(self.last)
        return planned

    def _judged(self, planned: Plan, rules: Policy, catalog: Catalog, approved: inventory.Approved | None) -> Plan:
        """The plan, held where it breaks a rule of the organisation, and a person has not let just that pass."""
        judged = rules.judge(planned.changes, catalog)
        if warnings := [problem for problem in judged.problems if problem.severity == "warning"]:
            self.ties.listener.warned(self.name, warnings)
        return self._lifted_by(approved, replace(planned, changes=judged.changes), judged.guards)

    def _lifted_by(self, approved: inventory.Approved | None, planned: Plan, guards: Collection[plan.Guard]) -> Plan:
        """The plan with these limits, too; but for the one that a person has lifted."""
        planned = replace(planned, guards=(*planned.guards, *guards))
        if approved is not None and any(guard.approval == approved.id for guard in guards):
            planned = plan.approved(planned, {approved.id})
            self.ties.listener.approved(self.name, approved)
        return planned

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
                if not (verdicts.is_done(done) or self.ties.leadership.leads):
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

        @lru_cache(maxsize=1)
        def wanted(_generation: int) -> frozenset[ObjectId]:
            units = self.desire.wanted(self.name).values()
            return frozenset(target for unit in units for target in unit.objects)

        return lambda: wanted(self.desire.generation)  # as of each deletion

    def _take_back(self, approved: inventory.Approved) -> None:
        """An approval is for one plan, once. Another one may have come meanwhile, which counts."""
        live = self.plane.writer.get(inventory.object_id_of(self.name))
        if live is not None and inventory.approved_in(live) == approved:
            self.plane.writer.update(inventory.without_approval(live))

    # -- what became of it ------------------------------------------------------------------------------------------

    def _note(self, batch: Batch, planned: Plan, done: Collection[Done], now: float, *, is_whole: bool) -> None:
        self._tell(self.drifts.noted(planned, done, now), now)
        of = {manifest.id: model for model, one in batch.items() for manifest in one.manifests}
        found = verdicts.of(
            {model: _why_waits(self.desire.unit(self.name, model)) for model in batch},
            planned,
            done,
            self.name,
            lambda target: of.get(target, self._sight.members.model(target)),
            is_whole=is_whole,
        )
        for model, verdict in found.items():
            (self._forced.add if verdict.forced else self._forced.discard)(model)
            if verdict.next is not Next.AT_ONCE:
                self._to_audit.discard(model)
            match verdict.next:
                case Next.SETTLED:
                    self._settle(model)
                case Next.KEPT:
                    self.agenda.settle(model)
                case Next.LATER:
                    self.agenda.leave(model, verdict.why, now, waits=verdict.waits, held=verdict.held)
                case Next.WRITTEN if self._is_as_wanted(model, batch[model].manifests):
                    self._settle(model)
                case Next.WRITTEN | Next.AT_ONCE:
                    self.agenda.touch([model], now)

    def _tell(self, drifts: Collection[Drifted], now: float) -> None:
        mended: dict[str, dict[ObjectId, Drifted]] = {}
        for drifted in drifts:
            self.ties.listener.drifted(self.name, drifted, now)
            if drifted.outcome == MENDED:
                mended.setdefault(self._sight.members.model(drifted.change.id), {})[drifted.change.id] = drifted
        for model, theirs in mended.items():
            for target in self.agenda.repaired(model, theirs, now):
                words = "somebody keeps changing it; it is left alone for a while"
                self.ties.listener.drifted(self.name, theirs[target]._replace(outcome=words), now)


def _chunks(models: list[str]) -> Iterator[list[str]]:
    for begin in range(0, len(models), _CHUNK):
        yield models[begin : begin + _CHUNK]


def _why_waits(unit: Unit | None) -> str:
    return "" if unit is None else unit.waits or str(unit.problem or "")


def _is_suspended(desire: Desire, name: str) -> bool:
    environment = desire.environment(name)
    return environment is not None and environment.suspended
