"""A small world in which promotions run to their end: records with versions, and a data plane that follows them.

The data plane is slow and honest: pods become ready some passes after their Deployment is wanted, routes take a weight
some passes after the record has it, and nothing is removed before its successor's traffic is routed. Whatever is
written or routed is held against the rules of promotion, by books that the store keeps for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from reconciler.promotion import (
    APPROVAL_VALID,
    AskGate,
    Ledger,
    PlaceKey,
    Step,
    advance,
    judged,
    places,
    requests,
    stands,
)
from reconciler.promotion import world as world_of
from reconciler.readiness import Readiness, State
from reconciler.records import (
    ENDS,
    Action,
    Build,
    Decision,
    Identity,
    Outcome,
    Phase,
    Promotion,
    PromotionRequest,
    PromotionStatus,
    Verdict,
    from_body,
    promotion_name,
    to_body,
)
from renderers.catalog import Catalog, promotion_order
from tests.unit.promotion.making import NOW, verdict


class Killed(BaseException):
    """The process dies here. Nothing may catch it, and so it is no Exception."""


@dataclass
class Store:
    """The records, as the cluster keeps them: created once, written against a version, decisions only added."""

    now: datetime = NOW
    builds: dict[str, Build] = field(default_factory=dict)
    promotions: dict[str, Promotion] = field(default_factory=dict)
    writes: int = 0
    #: Called with the number of the write, before and after it: may raise Killed.
    before: Callable[[int], None] = lambda number: None
    after: Callable[[int], None] = lambda number: None
    is_ready: Callable[[str, str], bool] = lambda environment, build: True
    routed: Callable[[str, str], int | None] = lambda environment, build: None
    catalog: Catalog = field(default_factory=Catalog)
    # The store's own books, for the rules.
    refused: set[tuple[PlaceKey, str]] = field(default_factory=set)
    verified: set[tuple[str, str]] = field(default_factory=set)
    passed: set[tuple[str, str]] = field(default_factory=set)

    def ledger(self) -> Ledger:
        return Ledger(dict(self.builds), tuple(self.promotions.values()))

    def create(self, request: PromotionRequest, *, by_person: bool = False) -> None:
        name = promotion_name(request)
        if name in self.promotions:
            return  # another one was faster
        if request.cause.kind == "Manual":
            self.refused.discard(((request.environment, request.model, request.variation), request.build))
        made = Promotion(identity=Identity(name=name, created_at=self.now), spec=request)
        self._write(name, made, by_person=by_person)
        if request.kind == "Rollback":
            self.refused.add((made.place, request.expected_current))

    def write(self, read: Promotion, status: PromotionStatus) -> Promotion | None:
        """None: it has changed since it was read."""
        if status == read.status:
            return read
        name = read.identity.name
        if self.promotions[name].identity.resource_version != read.identity.resource_version:
            return None
        self._check(read, status)
        return self._write(name, read.model_copy(update={"status": status}))

    def decide(self, name: str, action: Action, *, by: str = "kim", at: datetime | None = None) -> None:
        one = self.promotions[name]
        said = Decision(action=action, by=by, at=at or self.now, build=one.spec.build)
        spec = one.spec.model_copy(update={"decisions": (*one.spec.decisions, said)})
        self._write(name, one.model_copy(update={"spec": spec}), by_person=True)

    def _write(self, name: str, record: Promotion, *, by_person: bool = False) -> Promotion:
        if not by_person:
            self.writes += 1
            self.before(self.writes)
        version = int(record.identity.resource_version or 0) + 1
        body = to_body(record)
        body["metadata"] |= {"resourceVersion": str(version), "creationTimestamp": record.identity.created_at}
        self.promotions[name] = stored = from_body(Promotion, body)
        self._keep_books(stored)
        if not by_person:
            self.after(self.writes)
        return stored

    def _keep_books(self, one: Promotion) -> None:
        key = one.place, one.spec.build
        if one.status.phase in (Phase.REJECTED, Phase.ROLLED_BACK):
            self.refused.add(key)
        if one.status.phase is Phase.SUCCEEDED:
            self.refused.discard(key)
            self.verified.add((one.spec.environment, one.spec.build))

    def _check(self, one: Promotion, new: PromotionStatus) -> None:
        """The rules that every write must keep."""
        old, name = one.status, one.identity.name
        assert old.phase not in ENDS, f"{name} had ended"
        assert len(new.gate.verdicts) <= 10
        if new.rollout is None:
            return
        environment = self.catalog.environments[one.spec.environment].spec
        if old.rollout is None and one.spec.kind == "Promote":
            assert (one.place, one.spec.build) not in self.refused, f"{name}: a refused build comes again by itself"
            for before in environment.promote_after:
                assert (before, one.spec.build) in self.verified, f"{name}: not verified in {before}"
            if environment.approval == "manual":
                approved = [d for d in one.spec.decisions if d.action is Action.APPROVE and d.build == one.spec.build]
                assert any(self.now - d.at <= APPROVAL_VALID for d in approved), f"{name}: nobody approved"
            variation = self.catalog.variations[one.spec.model, one.spec.variation].spec
            if variation.automation is not None:
                was_let = any(v.outcome is Outcome.PASSED for v in new.gate.verdicts)
                assert was_let, f"{name}: its gate has not let it pass"
        weight = old.rollout.weight if old.rollout else 0
        if new.rollout.weight > weight:
            assert self.is_ready(one.spec.environment, one.spec.build), f"{name}: traffic before it is ready"
            assert new.phase is Phase.ROLLING_OUT
        if weight and (new.rollout.weight > weight or new.phase is Phase.SUCCEEDED):
            assert self.routed(one.spec.environment, one.spec.build) == weight, f"{name}: on before it is routed"


@dataclass
class Plant:
    """The data plane: Deployments and routes that follow what stands, some passes later."""

    ready_after: Callable[[str, str], int | None] = lambda environment, build: 2
    """Passes until the pods of a build are ready; None: never, they crash."""
    route_lag: int = 1
    age: dict[tuple[str, str], int] = field(default_factory=dict)
    routes: dict[str, dict[str, int]] = field(default_factory=dict)
    _waiting: dict[str, tuple[dict[str, int], int]] = field(default_factory=dict)

    def apply(self, standing: dict[PlaceKey, tuple[tuple[str, int], ...]]) -> None:
        for (environment, _, _), here in standing.items():
            percents = dict(here)
            assert len(percents) <= 2, f"{environment}: {percents}"
            assert sum(percents.values()) in (0, 100), f"{environment}: {percents}"
            wanted, waited = self._waiting.get(environment, ({}, 0))
            waited = waited + 1 if wanted == percents else 0
            self._waiting[environment] = percents, waited
            if waited >= self.route_lag:
                self.routes[environment] = percents
            named = {b for b, percent in self.routes.get(environment, {}).items() if percent} | percents.keys()
            for key in [key for key in self.age if key[0] == environment and key[1] not in named]:
                del self.age[key]  # removed when nobody names it any more
            for build in percents:
                self.age[environment, build] = self.age.get((environment, build), -1) + 1
            for build, percent in self.routes.get(environment, {}).items():
                assert not percent or (environment, build) in self.age, f"{environment}: {build[:8]} has gone"

    def readiness(self, environment: str, build: str) -> Readiness:
        age, needed = self.age.get((environment, build)), self.ready_after(environment, build)
        if age is None:
            return Readiness(State.NOT_FOUND, "it does not exist")
        if needed is None:
            return Readiness(State.FAILED, "the pods crash") if age > 2 else Readiness(State.IN_PROGRESS, "it starts")
        return Readiness(State.CURRENT, "ready") if age >= needed else Readiness(State.IN_PROGRESS, "it starts")

    def routed(self, environment: str, build: str) -> int | None:
        return self.routes.get(environment, {}).get(build)


@dataclass
class Simulator:
    """Reconcilers, a store and a plant. `gate` and `check` answer; `people` do what they do after each pass."""

    catalog: Catalog
    gate: Callable[[Promotion, int], Verdict]
    check: Callable[[Promotion, str], Outcome] = lambda promotion, name: Outcome.PASSED
    store: Store = field(default_factory=Store)
    plant: Plant = field(default_factory=Plant)
    targets: dict[PlaceKey, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store.catalog = self.catalog
        self.store.is_ready = lambda environment, build: self.plant.readiness(environment, build).state is State.CURRENT

        self.store.routed = self.plant.routed

    def one_pass(self, *, stale: Ledger | None = None) -> datetime | None:
        """What a reconciler does once; with `stale`, from records as they were. Says when to look again."""
        ledger, now, again = stale or self.store.ledger(), self.store.now, None
        where = places(self.catalog, promotion_order(self.catalog), ledger)
        for request in requests(where, ledger, self.targets, now):
            self.store.create(request)
        ledger = stale or self.store.ledger()
        for one in ledger.promotions:
            if one.is_finished:
                continue
            ledger = stale or self.store.ledger()
            environment, build = one.spec.environment, one.spec.build
            around = world_of(
                one,
                self.catalog,
                where,
                ledger,
                self.targets,
                candidate=self.plant.readiness(environment, build),
                routed=self.plant.routed(environment, build),
            )
            step = advance(one, around, now)
            assert step.status.message, one.identity.name
            written = self.store.write(one, step.status)
            if written is not None:
                self._answer(written, step)
            if step.look_again is not None:
                again = step.look_again if again is None else min(again, step.look_again)
        self.plant.apply(stands(where, self.store.ledger()))
        return again

    def _answer(self, one: Promotion, step: Step) -> None:
        if step.question is None:
            return
        now = self.store.now
        if isinstance(step.question, AskGate):
            verdicts: Iterable[Verdict] = [self.gate(one, step.question.attempt).model_copy(update={"at": now})]
        else:
            names = [check.name for check in step.question.checks]
            verdicts = [verdict(self.check(one, name), name=name, at=now) for name in names]
        self.store.write(one, judged(one.status, list(verdicts), now))

    def run(self, people: Callable[[Simulator], bool] = lambda simulator: False, *, twice: bool = False) -> None:
        """Passes until nothing moves any more. `twice`: a second reconciler repeats each pass with stale records."""
        quiet = 0
        for _ in range(600):
            before, seen = self.store.ledger(), self._state()
            try:
                again = self.one_pass()
                if twice:
                    self.one_pass(stale=before)
            except Killed:
                again = None  # another process begins, and knows nothing
            acted = people(self)
            quiet = 0 if acted or self._state() != seen else quiet + 1
            if quiet > 6 and (again is None or again <= self.store.now):
                return
            jump = again is not None and again > self.store.now and quiet > 4
            self.store.now = again if jump and again else self.store.now + timedelta(seconds=1)
        raise AssertionError(f"it never comes to rest: {self.outcome()}")

    def _state(self) -> object:
        versions = {name: one.identity.resource_version for name, one in self.store.promotions.items()}
        return versions, {key: dict(value) for key, value in self.plant.routes.items()}

    def outcome(self) -> dict[str, tuple[object, ...]]:
        """What is the same however often it was interrupted: everything but times, and how often was asked."""
        found: dict[str, tuple[object, ...]] = {}
        for name, one in sorted(self.store.promotions.items()):
            rollout, gate = one.status.rollout, one.status.gate.verdicts
            found[name] = (
                one.status.phase.value,
                rollout.weight if rollout else None,
                gate[-1].outcome.value if gate else None,
                one.status.approval.by if one.status.approval else None,
                one.status.decided,
                one.spec.expected_current[:1],
            )
        return found | {f"routes in {where}": tuple(sorted(r.items())) for where, r in self.plant.routes.items()}

    def weight_of(self, one: Promotion) -> int:
        return one.status.rollout.weight if one.status.rollout else 0
