"""Promotions run to their end in a small world, are killed after every write, and end the same.

The rules that hold at every write and in every pass are in the simulator: nothing that was refused comes again, no
traffic before pods are ready, nothing in production that staging has not verified and nobody has approved, and never
more than a current build and one that takes over.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.decisions import retry, rollback
from reconciler.records import Action, Outcome, Phase, Promotion, Rollout
from schemas.variation import Step
from tests.conftest import FULL, examples
from tests.unit.promotion.making import (
    NOW,
    PRODUCTION,
    STAGING,
    A,
    B,
    C,
    automation,
    build,
    canary,
    catalog,
    environment,
    promotion,
    variation,
    verdict,
)
from tests.unit.promotion.simulator import Killed, Plant, Simulator, Store

STEPS = (Step(weight=5, hold="2s"), Step(weight=50, hold="3s"))
KNOWN = catalog(
    (environment("staging"), environment("production", promote_after=("staging",), approval="manual")),
    (variation(canary(steps=STEPS, timeout="1m"), automation="nightly"),),
    (automation(),),
)


def served(build_id: str) -> Simulator:
    """Both environments serve this build, and another one has just been built."""
    simulator = Simulator(KNOWN, lambda one, attempt: verdict(Outcome.PASSED, attempt=attempt))
    store = simulator.store
    for place in (STAGING, PRODUCTION):
        # As the records of an earlier life.
        done = promotion(build_id, Phase.SUCCEEDED, place=place, replaces="", ended=NOW - timedelta(hours=1))
        store.promotions[done.identity.name] = done
        store.verified.add((place[0], build_id))
        simulator.plant.age[place[0], build_id] = 10
        simulator.plant.routes[place[0]] = {build_id: 100}
    add(simulator, build_id, minutes=-60)
    return simulator


def add(simulator: Simulator, build_id: str, *, minutes: int = -1) -> None:
    made = build(build_id, at=NOW + timedelta(minutes=minutes))
    simulator.store.builds[made.identity.name] = made


def waiting(simulator: Simulator, phase: Phase, build_id: str = B, environment: str = "production") -> Promotion | None:
    """The promotion that stands so, and has not been answered."""
    for one in simulator.store.promotions.values():
        if (one.status.phase, one.spec.build, one.spec.environment) == (phase, build_id, environment):
            return one if len(one.spec.decisions) == one.status.decided else None
    return None


def approve(simulator: Simulator) -> bool:
    one = waiting(simulator, Phase.AWAITING_APPROVAL)
    if one is not None:
        simulator.store.decide(one.identity.name, Action.APPROVE)
    return one is not None


def resume(simulator: Simulator) -> bool:
    paused = next((one for one in simulator.store.promotions.values() if is_paused(one)), None)
    if paused is not None:
        simulator.store.decide(paused.identity.name, Action.RESUME)
    return paused is not None


def is_paused(one: Promotion) -> bool:
    return not one.is_finished and one.status.rollout is not None and one.status.rollout.paused_at is not None


# -- the scenes -----------------------------------------------------------------------------------------------------


@dataclass
class Scene:
    """How it begins, what people do, and how it ends: (place, build) -> phase, and what is served."""

    begin: Callable[[], Simulator]
    ends: dict[str, str]
    serves: tuple[str, str]
    people: Callable[[Simulator], bool] = approve


def better() -> Simulator:
    simulator = served(A)
    add(simulator, B)
    return simulator


def first() -> Simulator:
    simulator = Simulator(KNOWN, lambda one, attempt: verdict(Outcome.PASSED, attempt=attempt))
    add(simulator, B)
    return simulator


def worse() -> Simulator:
    simulator = better()
    simulator.gate = lambda one, attempt: verdict(Outcome.REJECTED, attempt=attempt)
    return simulator


def errors_at(environment: str, weight: int) -> Callable[[], Simulator]:
    def begin() -> Simulator:
        simulator = better()
        bad = environment, weight
        simulator.check = lambda one, name: (
            Outcome.REJECTED if (one.spec.environment, simulator.weight_of(one)) == bad else Outcome.PASSED
        )
        return simulator

    return begin


def crashes() -> Simulator:
    simulator = better()
    simulator.plant.ready_after = lambda environment, build: None if build == B else 2
    return simulator


def slow_warehouse() -> Simulator:
    simulator = better()
    simulator.gate = lambda one, attempt: verdict(
        Outcome.ERROR if attempt < 3 else Outcome.PASSED, attempt=attempt, retryable=True
    )
    return simulator


def no_baseline() -> Simulator:
    simulator = better()
    simulator.gate = lambda one, attempt: verdict(Outcome.INCONCLUSIVE, attempt=attempt)
    return simulator


def let_pass(simulator: Simulator) -> bool:
    for where in ("staging", "production"):
        one = waiting(simulator, Phase.HELD, environment=where)
        if one is not None:
            simulator.store.decide(one.identity.name, Action.APPROVE)
            return True
    return approve(simulator)


def approve_and_regret(simulator: Simulator) -> bool:
    """Approves; and when B is served, goes back to A."""
    ledger = simulator.store.ledger()
    if ledger.current(PRODUCTION) == B and ledger.quarantined(B, PRODUCTION) is None:
        request = rollback(ledger, PRODUCTION, "", by="kim", reason="calls from users", now=simulator.store.now)
        simulator.store.create(request, by_person=True)
        return True
    return approve(simulator)


def reject_then_retry(simulator: Simulator) -> bool:
    """Rejects the first attempt in production, then asks for another, and approves that one."""
    one = waiting(simulator, Phase.AWAITING_APPROVAL)
    if one is not None:
        action = Action.REJECT if one.spec.attempt == 1 else Action.APPROVE
        simulator.store.decide(one.identity.name, action, by="lee")
        return True
    rejected = waiting(simulator, Phase.REJECTED)
    if rejected is not None and len(simulator.store.ledger().at(PRODUCTION)) == 2:
        ledger = simulator.store.ledger()
        again = retry(ledger, rejected, by="kim", reason="Monday", now=simulator.store.now)
        simulator.store.create(again, by_person=True)
        return True
    return False


def newer_comes(simulator: Simulator) -> bool:
    """While B waits for a person in production, C is built; from then on people approve C."""
    if waiting(simulator, Phase.AWAITING_APPROVAL, B) is not None and len(simulator.store.builds) == 2:
        add(simulator, C, minutes=0)
        return True
    one = waiting(simulator, Phase.AWAITING_APPROVAL, C)
    if one is not None:
        simulator.store.decide(one.identity.name, Action.APPROVE)
    return one is not None


PINNED = catalog(
    (environment("staging"), environment("production", promote_after=("staging",))),
    (variation(canary(steps=STEPS, timeout="1m")),),
)


def pinned() -> Simulator:
    simulator = better()
    simulator.catalog = simulator.store.catalog = PINNED
    simulator.targets |= {STAGING: B, PRODUCTION: B}
    return simulator


def git_changes_its_mind(simulator: Simulator) -> bool:
    """While B rolls out in production, a commit names C instead."""
    here = simulator.store.ledger().under_way(PRODUCTION)
    if C[:8] in str(simulator.targets) or not any(p.spec.build == B and simulator.weight_of(p) for p in here):
        return False
    add(simulator, C)
    simulator.targets |= {STAGING: C, PRODUCTION: C}
    return True


def git_goes_back(simulator: Simulator) -> bool:
    """When B is served everywhere, a commit names A again: nobody objects to it, so it is promoted again."""
    if serves(simulator) != (B, B) or simulator.targets[STAGING] == A:
        return False
    simulator.targets |= {STAGING: A, PRODUCTION: A}
    return True


SCENES = {
    "git changes its mind": Scene(
        pinned,
        {
            "staging b1": "Succeeded",
            "staging c1": "Succeeded",
            "production b1": "Superseded",
            "production c1": "Succeeded",
        },
        (C, C),
        git_changes_its_mind,
    ),
    "git goes back": Scene(
        pinned,
        {
            "staging b1": "Succeeded",
            "staging a2": "Succeeded",
            "production b1": "Succeeded",
            "production a2": "Succeeded",
        },
        (A, A),
        git_goes_back,
    ),
    "a better build takes over": Scene(better, {"staging b1": "Succeeded", "production b1": "Succeeded"}, (B, B)),
    "the first build of all": Scene(first, {"staging b1": "Succeeded", "production b1": "Succeeded"}, (B, B)),
    "a worse build is rejected": Scene(worse, {"staging b1": "Rejected", "production b1": "Rejected"}, (A, A)),
    "it fails in staging": Scene(
        errors_at("staging", 5), {"staging b1": "RolledBack", "production b1": "Pending"}, (A, A)
    ),
    "it fails in production": Scene(
        errors_at("production", 50), {"staging b1": "Succeeded", "production b1": "RolledBack"}, (B, A)
    ),
    "its pods crash": Scene(crashes, {"staging b1": "RolledBack", "production b1": "Pending"}, (A, A)),
    "the warehouse is slow": Scene(slow_warehouse, {"staging b1": "Succeeded", "production b1": "Succeeded"}, (B, B)),
    "people let it pass": Scene(
        no_baseline, {"staging b1": "Succeeded", "production b1": "Succeeded"}, (B, B), let_pass
    ),
    "nobody approves": Scene(
        better, {"staging b1": "Succeeded", "production b1": "AwaitingApproval"}, (B, A), lambda simulator: False
    ),
    "people go back": Scene(
        better,
        {"staging b1": "Succeeded", "production b1": "Succeeded", "production a2": "Succeeded"},
        (B, A),
        approve_and_regret,
    ),
    "rejected, and tried again": Scene(
        better,
        {"staging b1": "Succeeded", "production b1": "Rejected", "production b2": "Succeeded"},
        (B, B),
        reject_then_retry,
    ),
    "a newer build comes": Scene(
        better,
        # B stays the newest that staging has verified until C is, and then gives way.
        {
            "staging b1": "Succeeded",
            "staging c1": "Succeeded",
            "production b1": "Superseded",
            "production c1": "Succeeded",
        },
        (C, C),
        newer_comes,
    ),
}


def phases(simulator: Simulator) -> dict[str, str]:
    return {
        f"{one.spec.environment} {one.spec.build[0]}{one.spec.attempt}": one.status.phase.value
        for one in simulator.store.promotions.values()
        if one.spec.attempt > 1 or one.spec.expected_current or one.spec.build != A
    }


def serves(simulator: Simulator) -> tuple[str, str]:
    ledger = simulator.store.ledger()
    return ledger.current(STAGING), ledger.current(PRODUCTION)


@pytest.mark.parametrize("title", SCENES)
def test_a_scene_ends_as_it_should(title):
    scene = SCENES[title]
    simulator = scene.begin()
    simulator.run(scene.people)
    assert phases(simulator) == scene.ends
    assert serves(simulator) == scene.serves
    for where, build_id in zip(("staging", "production"), scene.serves, strict=True):
        assert simulator.plant.routes[where] == {build_id: 100}


@pytest.mark.parametrize("title", SCENES)
def test_killed_before_or_after_every_write_it_ends_the_same(title):
    scene = SCENES[title]
    whole = scene.begin()
    whole.run(scene.people)
    assert whole.store.writes > 2
    for number in range(1, whole.store.writes + 1):
        for moment in ("before", "after") if FULL else ("before" if number % 2 else "after",):
            simulator = scene.begin()

            def kill(written: int, number: int = number) -> None:
                if written == number:
                    raise Killed

            setattr(simulator.store, moment, kill)
            simulator.run(scene.people)
            assert simulator.outcome() == whole.outcome(), f"killed {moment} write {number}"


@pytest.mark.parametrize("title", SCENES)
def test_two_reconcilers_at_once_one_of_them_late_end_the_same(title):
    scene = SCENES[title]
    alone, both = scene.begin(), scene.begin()
    alone.run(scene.people)
    both.run(scene.people, twice=True)
    assert both.outcome() == alone.outcome()


@pytest.mark.parametrize("title", SCENES)
def test_at_rest_a_pass_writes_nothing(title):
    scene = SCENES[title]
    simulator = scene.begin()
    simulator.run(scene.people)
    before = simulator.store.writes
    simulator.one_pass()
    assert simulator.store.writes == before


# -- anything goes --------------------------------------------------------------------------------------------------

OUTCOMES = st.sampled_from([*[Outcome.PASSED] * 12, *Outcome])


@dataclass
class Drawn:
    """A run in which everything that can happen does: kills, late reconcilers, people, clocks, bad builds."""

    data: st.DataObject
    acts: int = 16
    rest: int = 0
    """Passes until the next act."""

    def people(self, simulator: Simulator) -> bool:
        approve(simulator)
        self.rest -= 1
        if not self.acts:
            return resume(simulator)
        if self.rest > 0:
            return True
        self.rest = self.data.draw(st.integers(0, 9))
        act = self.data.draw(st.sampled_from(["decide", "build", "rollback", "retry", "clock", "late"]))
        store, ledger = simulator.store, simulator.store.ledger()
        self.acts -= 1
        if act == "decide":
            unfinished = sorted(name for name, one in store.promotions.items() if not one.is_finished)
            if unfinished:
                store.decide(self.data.draw(st.sampled_from(unfinished)), self.data.draw(st.sampled_from(Action)))
        elif act == "build":
            add(simulator, f"{len(store.builds):x}" * 64, minutes=len(store.builds))
        elif act == "rollback":
            place = self.data.draw(st.sampled_from([STAGING, PRODUCTION]))
            before = [p for p in ledger.at(place) if p.status.phase is Phase.SUCCEEDED]
            if any(
                p.spec.build != ledger.current(place) and not ledger.quarantined(p.spec.build, place) for p in before
            ):
                store.create(rollback(ledger, place, "", by="kim", reason="", now=store.now), by_person=True)
        elif act == "retry":
            refused = [p for p in ledger.promotions if ledger.quarantined(p.spec.build, p.place)]
            if refused:
                again = self.data.draw(st.sampled_from(sorted(refused, key=lambda p: p.identity.name)))
                store.create(retry(ledger, again, by="kim", reason="", now=store.now), by_person=True)
        elif act == "clock":
            store.now += timedelta(seconds=self.data.draw(st.sampled_from([-90, -5, 45])))
        elif act == "late":
            stale = ledger
            simulator.one_pass()
            simulator.one_pass(stale=stale)
        return True


@settings(max_examples=examples(60), derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_happens_the_rules_hold_and_it_comes_to_rest(data):
    simulator = better()
    gates: dict[tuple[str, int], Outcome] = {}
    simulator.plant.ready_after = lambda environment, build: None if build in crashing else 1 + len(environment) % 2
    crashing = {f"{number}" * 64 for number in data.draw(st.sets(st.integers(2, 9), max_size=2))}
    simulator.plant.route_lag = data.draw(st.integers(0, 2))
    simulator.gate = lambda one, attempt: verdict(
        gates.setdefault((one.identity.name, attempt), data.draw(OUTCOMES)), attempt=attempt, retryable=attempt < 3
    )
    checks: dict[tuple[str, int], Outcome] = {}

    def check(one: Promotion, name: str) -> Outcome:
        key = one.identity.name, simulator.weight_of(one)
        if key not in checks:
            checks[key] = data.draw(OUTCOMES)
        return checks[key]

    simulator.check = check
    kills = data.draw(st.sets(st.integers(1, 40), max_size=5))

    def kill(number: int) -> None:
        if number in kills:
            kills.discard(number)
            raise Killed

    simulator.store.before = simulator.store.after = kill
    drawn = Drawn(data)

    def people(world: Simulator) -> bool:
        try:
            return drawn.people(world)
        except Killed:
            return True

    simulator.run(people)
    # At rest, whatever is not decided waits for a person, or for the environment before.
    for one in simulator.store.promotions.values():
        assert one.is_finished or one.status.phase in (Phase.HELD, Phase.AWAITING_APPROVAL, Phase.PENDING)


def test_the_rules_of_the_simulator_can_be_broken():
    """A machine that gave traffic to pods that are not ready, or served what was refused, would be caught."""
    simulator = better()
    store: Store = deepcopy(simulator.store)
    store.is_ready = lambda environment, build: False
    store.create(promotion(B, place=STAGING).spec)
    [one] = [p for p in store.promotions.values() if p.spec.build == B]
    rolls = Rollout(began_at=NOW, step=0, weight=5)
    with pytest.raises(AssertionError, match="its gate has not let it pass"):
        store.write(one, one.status.model_copy(update={"phase": Phase.ROLLING_OUT, "rollout": rolls}))
    store.refused.add((STAGING, B))
    with pytest.raises(AssertionError, match="comes again by itself"):
        store.write(one, one.status.model_copy(update={"phase": Phase.ROLLING_OUT, "rollout": rolls}))
    plant = Plant()
    with pytest.raises(AssertionError):
        plant.apply({STAGING: ((A, 60), (B, 60))})
