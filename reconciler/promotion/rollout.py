"""The way of the traffic: ready before traffic, step by step, and back at once where something is wrong. Pure.

A step is known by its weight and not by its number: who edits the list of steps during a rollout neither repeats nor
skips any traffic. A clock that goes back makes waiting longer, never shorter: an instant in the future is waited for.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from reconciler.promotion.status import WAIVED, AskChecks, Step, clock, ended, moved, short
from reconciler.promotion.world import World
from reconciler.readiness import State
from reconciler.records import Outcome, Phase, Promotion, PromotionStatus, Rollout, Verdict
from schemas.base import seconds
from schemas.variation import Canary, CanaryRollout
from schemas.variation import Step as CanaryStep

#: Until a Deployment that is not ready has failed, where its spec says nothing.
DEPLOYMENT_TIMEOUT = timedelta(seconds=1800)
#: That a step may take to arrive at the gateways, whatever is left of the canary's time.
_ROUTES = timedelta(minutes=5)
#: Checks are asked again after a tenth of the shortest window or hold, within these bounds.
_SOONEST, _LATEST = timedelta(seconds=1), timedelta(seconds=30)


class _Course(NamedTuple):
    """A rollout at one moment, with what it depends on."""

    status: PromotionStatus
    rollout: Rollout
    world: World
    canary: Canary | None
    """None for `replace`, and for a rollback, which nothing may hold up."""
    steps: tuple[CanaryStep, ...]
    """() also where nothing is served yet: with nobody else to answer, all traffic is its own."""
    now: datetime

    @property
    def step(self) -> CanaryStep | None:
        """The step of this weight; None before the first, after the last, and where somebody took it out."""
        return next((step for step in self.steps if step.weight == self.rollout.weight), None)

    @property
    def is_at_the_end(self) -> bool:
        return self.rollout.weight == 100 and self.rollout.step >= len(self.steps)

    @property
    def where(self) -> str:
        """The step, for people."""
        if self.is_at_the_end or not self.steps:
            return "the last step: 100 %"
        return f"step {self.rollout.step + 1} of {len(self.steps)}: {self.rollout.weight} %"


def advance(promotion: Promotion, status: PromotionStatus, world: World, now: datetime) -> Step:
    """The next step of a promotion whose rollout has begun."""
    course = _course(promotion, status, world, now)
    rollout, candidate = course.rollout, world.candidate
    has_failed = candidate.state is State.FAILED
    if has_failed and rollout.weight > 0:
        # People get its errors meanwhile: nothing to hold and look at.
        return _roll_back(course, f"its Deployment has failed: {candidate.message}")
    if course.status.phase is Phase.HELD:
        return Step(course.status)
    wanted = {check.name for check in course.canary.checks} if course.canary else set()
    rejected = [v for v in rollout.checks if v.outcome is Outcome.REJECTED and v.name in wanted]
    if rejected:
        return _fail(course, "; ".join(f"its check {verdict.name}: {verdict.message}" for verdict in rejected))
    if has_failed:
        return _fail(course, f"its Deployment has failed: {candidate.message}")
    if rollout.paused_at is not None:
        # Traffic that is there is watched, paused or not.
        return Step(course.status, _question(course, final=False), _next_check(course))
    if rollout.step < 0:
        return _stand(course)
    if rollout.routed_at is None:
        if world.routed != rollout.weight:
            return _wait(course, f"{course.where} of the traffic, as soon as the routes are accepted")
        rollout = rollout.model_copy(update={"routed_at": now})
        course = course._replace(rollout=rollout, status=status.model_copy(update={"rollout": rollout}))
    if course.is_at_the_end:
        words = f"build {short(promotion.spec.build)} is served"
        return Step(ended(course.status, Phase.SUCCEEDED, words, now, world.last_end))
    return _hold(course)


def given_back(world: World) -> str:
    """Where the traffic goes when a rollout ends early."""
    return f"build {short(world.current)} has all traffic" if world.current else "nothing is served"


def paused(rollout: Rollout, now: datetime) -> Rollout:
    """Its weight stays, and its clocks stand still."""
    return rollout if rollout.paused_at is not None else rollout.model_copy(update={"paused_at": now})


def resumed(rollout: Rollout, now: datetime) -> Rollout:
    """Its clocks go on from where they stood."""
    if rollout.paused_at is None:
        return rollout
    return stood_still(rollout, now - rollout.paused_at).model_copy(update={"paused_at": None})


def stood_still(rollout: Rollout, span: timedelta) -> Rollout:
    """What it has waited for took that long, and counts for nothing: neither for a hold nor for a time limit."""
    span = max(timedelta(), span)
    changes: dict[str, Any] = {"began_at": rollout.began_at + span, "checked_at": None}
    for key in ("routed_at", "paused_at"):
        moment = getattr(rollout, key)
        changes[key] = moment + span if moment is not None else None
    return rollout.model_copy(update=changes)


def let_pass(rollout: Rollout, passed: Verdict, now: datetime) -> Rollout:
    """A person takes the place of this step's checks, and the time limits count anew."""
    checks = () if rollout.step < 0 else (passed.model_copy(update={"name": "approval"}),)
    return rollout.model_copy(update={"checks": checks, "began_at": now, "paused_at": None})


# -- steps ----------------------------------------------------------------------------------------------------------


def _course(promotion: Promotion, status: PromotionStatus, world: World, now: datetime) -> _Course:
    assert world.variation is not None
    assert status.rollout is not None
    rollout, spec = status.rollout, world.variation.rollout
    canary = spec.canary if isinstance(spec, CanaryRollout) and promotion.spec.kind == "Promote" else None
    steps = canary.steps if canary is not None and world.current else ()
    return _Course(status, rollout, world, canary, steps, now)


def _stand(course: _Course) -> Step:
    """Before there is traffic, the Deployment is ready, or fails at its deadline, however often it seemed to begin."""
    candidate, began_at = course.world.candidate, course.rollout.began_at
    if candidate.state is State.CURRENT:
        return _next(course)
    assert course.world.variation is not None
    given = course.world.variation.deployment.deployment_timeout
    limit = timedelta(seconds=given) if given else DEPLOYMENT_TIMEOUT
    if course.now - began_at >= limit:
        why = candidate.message if candidate.state is not State.NOT_FOUND else "it is not there"
        return _fail(course, f"its Deployment is not ready after {limit.total_seconds():.0f} s: {why}")
    is_there = candidate.state is not State.NOT_FOUND
    words = f"is {candidate.state}: {candidate.message}" if is_there else "is not there yet"
    return _wait(course, f"its Deployment {words}", look_again=began_at + limit)


def _hold(course: _Course) -> Step:
    """A step lasts as long as it says, and until all checks have passed at its end; a person may end it, too."""
    rollout, now = course.rollout, course.now
    assert rollout.routed_at is not None
    over = rollout.routed_at + timedelta(seconds=seconds(course.step.hold) if course.step else 0)
    is_waived = any(verdict.reason == WAIVED for verdict in rollout.checks)
    if is_waived or (now >= over and _have_passed(course, over)):
        if course.world.candidate.state is State.CURRENT:
            return _next(course)
        return _wait(course, f"{course.where}; more when its Deployment is ready: {course.world.candidate.message}")
    words = f"{course.where} of the traffic since {clock(rollout.routed_at)}, until {clock(over)} at the least"
    if course.canary is None or not course.canary.checks:
        return _wait(course, words, look_again=over)
    unsure = _unsure(course)
    words += f"; {unsure}" if unsure else ""
    times = [moment for moment in (over, _next_check(course)) if moment is not None and moment > now]
    return _wait(course, words, _question(course, final=now >= over), min(times, default=None))


def _next(course: _Course) -> Step:
    """More traffic: that of the next greater step, or all of it."""
    weight = course.rollout.weight
    more = ((number, step.weight) for number, step in enumerate(course.steps) if step.weight > weight)
    number, weight = next(more, (len(course.steps), 100))
    changes: dict[str, Any] = {"step": number, "weight": weight, "routed_at": None, "checks": (), "checked_at": None}
    if course.canary is not None:
        # What moves has not hung: there is time for the routes, also where nobody looked for as long as all may take.
        timeout = timedelta(seconds=seconds(course.canary.timeout))
        changes["began_at"] = max(course.rollout.began_at, course.now - timeout + min(timeout, _ROUTES))
    course = course._replace(rollout=course.rollout.model_copy(update=changes))
    words = f"{course.where} of the traffic, as soon as the routes are accepted"
    return Step(moved(course.status, Phase.ROLLING_OUT, words, course.now, rollout=course.rollout))


def _wait(course: _Course, words: str, question: AskChecks | None = None, look_again: datetime | None = None) -> Step:
    """Nothing moves, unless the canary has no time left."""
    canary, now = course.canary, course.now
    if canary is not None:
        deadline = course.rollout.began_at + timedelta(seconds=seconds(canary.timeout))
        checked_at = course.rollout.checked_at
        is_asked = question is not None and (checked_at is None or checked_at < deadline)
        if now >= deadline and not is_asked:  # who was away that long asks first, and judges then
            if unsure := _unsure(course):
                # Quiet traffic is no failure of the build.
                return _held(course, f"no verdict within {canary.timeout}: {unsure}")
            return _fail(course, f"it is not through after {canary.timeout}: {words}")
        look_again = min(look_again, deadline) if look_again is not None else deadline
    return Step(moved(course.status, Phase.ROLLING_OUT, words, now), question, look_again)


# -- checks ---------------------------------------------------------------------------------------------------------


def _have_passed(course: _Course, over: datetime) -> bool:
    """Whether all checks have passed when they were last asked, and that was after the hold."""
    if course.canary is None or not course.canary.checks:
        return True
    passed = {verdict.name for verdict in course.rollout.checks if verdict.outcome is Outcome.PASSED}
    checked_at = course.rollout.checked_at
    return checked_at is not None and checked_at >= over and all(c.name in passed for c in course.canary.checks)


def _unsure(course: _Course) -> str:
    """The checks that give no verdict, for people."""
    wanted = {check.name for check in course.canary.checks} if course.canary else set()
    unsure = [v for v in course.rollout.checks if v.outcome is not Outcome.PASSED and v.name in wanted]
    return "; ".join(f"its check {verdict.name}: {verdict.message}" for verdict in unsure)


def _next_check(course: _Course) -> datetime | None:
    """When checks are asked next: at once in a step whose traffic has just come. None where nothing is to be asked."""
    rollout, canary = course.rollout, course.canary
    if canary is None or not canary.checks or rollout.routed_at is None:
        return None
    checked_at = rollout.checked_at
    if checked_at is None or checked_at > course.now:  # a clock that went back is not waited for
        return course.now
    spans = [seconds(check.window) for check in canary.checks]
    spans += [seconds(course.step.hold)] if course.step else []
    return checked_at + min(max(timedelta(seconds=min(spans) / 10), _SOONEST), _LATEST)


def _question(course: _Course, *, final: bool) -> AskChecks | None:
    """The checks, where it is time for them. `final`: the hold is over, and its end has to be looked at."""
    rollout, due = course.rollout, _next_check(course)
    if due is None or course.canary is None or rollout.routed_at is None:
        return None
    hold = timedelta(seconds=seconds(course.step.hold) if course.step else 0)
    at_the_end = final and (rollout.checked_at is None or rollout.checked_at < rollout.routed_at + hold)
    if due > course.now and not at_the_end:
        return None
    return AskChecks(course.canary.checks, rollout.weight, rollout.routed_at)


# -- ends -----------------------------------------------------------------------------------------------------------


def _fail(course: _Course, why: str) -> Step:
    """As the canary says: all traffic back, or stay and ask."""
    if course.canary is not None and course.canary.on_failure == "hold":
        return _held(course, why)
    return _roll_back(course, why)


def _held(course: _Course, why: str) -> Step:
    words = f"held at {course.rollout.weight} % of the traffic for a person, who lets it pass or rejects it: {why}"
    return Step(moved(course.status, Phase.HELD, words, course.now))


def _roll_back(course: _Course, why: str) -> Step:
    words = f"{why}; {given_back(course.world)}"
    return Step(ended(course.status, Phase.ROLLED_BACK, words, course.now, course.world.last_end))
