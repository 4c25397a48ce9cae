"""The way of a promotion, one step at a time: gate, environments before, approval, rollout. Pure.

    Pending -> (gate) -> (verified upstream) -> AwaitingApproval -> RollingOut -> Succeeded
       |          |                                  |                  |
       |       Held, Rejected                     Rejected        Held, RolledBack
       +-> Superseded, from anywhere

A rollback goes straight to its rollout: it must work while analytics and Prometheus are down, and nobody has to be
awake but the one who asks for it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from reconciler.promotion import rollout
from reconciler.promotion.status import (
    MOST_BACK_OFF,
    VERDICTS,
    WAIVED,
    AskGate,
    Step,
    because,
    clock,
    ended,
    is_retried,
    moved,
    short,
)
from reconciler.promotion.world import World
from reconciler.records import (
    ENDS,
    Action,
    Approval,
    BuildPhase,
    Decision,
    Gate,
    Outcome,
    Phase,
    Promotion,
    PromotionStatus,
    Rollout,
    Verdict,
)

#: An approval that is older than this when the rollout could begin is asked for anew.
APPROVAL_VALID = timedelta(days=7)


def advance(promotion: Promotion, world: World, now: datetime) -> Step:
    """The next step of a promotion; the same status where there is none. The same arguments give the same step."""
    now = now.replace(microsecond=now.microsecond // 1000 * 1000)  # as precise as records are
    status = promotion.status
    if promotion.is_finished:
        return Step(status)
    if world.environment is not None and world.environment.suspended:
        words = f"{world.environment.name} is suspended: nothing changes there"
        return Step(moved(status, status.phase, words, now, suspended_at=status.suspended_at or now))
    promotion = promotion.model_copy(update={"status": _unsuspended(status, now)})
    status = _decided(promotion, world, now)
    if status.phase in ENDS:
        return Step(status)
    superseded = _superseded(promotion, status, world, now)
    if superseded is not None:
        return Step(superseded)
    if status.rollout is not None:
        return rollout.advance(promotion, status, world, now)
    if status.phase is Phase.HELD:
        return Step(status)
    return _towards_rollout(promotion, status, world, now)


def _unsuspended(status: PromotionStatus, now: datetime) -> PromotionStatus:
    """The clocks of a rollout go on from where they stood when its environment was suspended."""
    if status.suspended_at is None:
        return status
    rolls_out = status.rollout
    if rolls_out is not None:
        rolls_out = rollout.stood_still(rolls_out, now - status.suspended_at)
    return status.model_copy(update={"suspended_at": None, "rollout": rolls_out})


# -- what people decided --------------------------------------------------------------------------------------------


def _decided(promotion: Promotion, world: World, now: datetime) -> PromotionStatus:
    """The status after the decisions that are new. Each counts once, in the phase in which it came."""
    status = promotion.status
    for decision in promotion.spec.decisions[status.decided :]:
        if status.phase not in ENDS and decision.build == promotion.spec.build:
            status = _decide(status, decision, world, now)
        status = status.model_copy(update={"decided": status.decided + 1})
    return status


def _decide(status: PromotionStatus, decision: Decision, world: World, now: datetime) -> PromotionStatus:
    who, why = decision.by, because(decision.reason)
    if decision.action is Action.REJECT:
        if status.rollout is None:
            return ended(status, Phase.REJECTED, f"rejected by {who}{why}", now, world.last_end)
        words = f"aborted by {who}{why}; {rollout.given_back(world)}"
        return ended(status, Phase.ROLLED_BACK, words, now, world.last_end)
    if decision.action is Action.APPROVE:
        return _approved(status, decision, now)
    if status.phase is Phase.ROLLING_OUT and status.rollout is not None:
        turned = rollout.paused if decision.action is Action.PAUSE else rollout.resumed
        words = f"{'paused' if decision.action is Action.PAUSE else 'resumed'} by {who}{why}"
        return moved(status, Phase.ROLLING_OUT, words, now, rollout=turned(status.rollout, now))
    return status


def _approved(status: PromotionStatus, decision: Decision, now: datetime) -> PromotionStatus:
    if status.phase not in (Phase.PENDING, Phase.AWAITING_APPROVAL, Phase.HELD):
        return status
    # A person's clock may go ahead; an approval of next year would never expire.
    approval = Approval(by=decision.by, at=min(decision.at, now), reason=decision.reason)
    words = f"approved by {decision.by}{because(decision.reason)}"
    if status.phase is not Phase.HELD:
        return moved(status, status.phase, words, now, approval=approval)
    # The word of a person stands where the verdict was missing.
    passed = Verdict(outcome=Outcome.PASSED, reason=WAIVED, message=words, at=now)
    if status.rollout is not None:
        on = rollout.let_pass(status.rollout, passed, now)
        return moved(status, Phase.ROLLING_OUT, words, now, approval=approval, rollout=on)
    gate = Gate(verdicts=(*status.gate.verdicts, passed)[-VERDICTS:], first_at=status.gate.first_at)
    return moved(status, Phase.PENDING, words, now, approval=approval, gate=gate)


# -- what is wanted by now ------------------------------------------------------------------------------------------


def _superseded(promotion: Promotion, status: PromotionStatus, world: World, now: datetime) -> PromotionStatus | None:
    """The end of a promotion that something else has taken the place of; None where it goes on."""
    spec, rolls_out = promotion.spec, status.rollout is not None
    back = f"; {rollout.given_back(world)}" if rolls_out else ""
    phase, words = Phase.SUPERSEDED, ""
    if world.environment is None:
        words = f"the environment {spec.environment} has left the specs"
    elif world.variation is None:
        words = f"builds are not promoted to the variation {spec.variation} in {spec.environment} any more"
    elif world.rollback:
        words = f"the rollback {world.rollback} takes its place"
        # Whoever rolls back while it has traffic does not want to see it come again by itself.
        phase = Phase.ROLLED_BACK if rolls_out and spec.kind == "Promote" else Phase.SUPERSEDED
    elif rolls_out and world.ahead:
        words = f"{world.ahead} rolls out at the same place, and came first"
    elif world.current == spec.build:
        words = "its build is served already"
    elif world.current != spec.expected_current:
        served = f"build {short(world.current)}" if world.current else "no build"
        nothing = "no build (its expectedCurrent is empty)"
        expected = f"build {short(spec.expected_current)}" if spec.expected_current else nothing
        words = f"it was to replace {expected}, and {served} is served by now"
    elif spec.kind == "Promote" and world.target not in ("", spec.build):
        is_pinned = world.variation.build is not None
        if is_pinned or not rolls_out:  # what an automation rolls out is finished first
            words = f"build {short(world.target)} is wanted by now"
    return ended(status, phase, words + back, now, world.last_end) if words else None


# -- before there is any traffic ------------------------------------------------------------------------------------


def _towards_rollout(promotion: Promotion, status: PromotionStatus, world: World, now: datetime) -> Step:
    spec = promotion.spec
    if world.ahead:
        return Step(moved(status, Phase.PENDING, f"waits for the end of {world.ahead}", now))
    if world.build is None:
        return Step(moved(status, Phase.PENDING, f"there is no record of build {short(spec.build)}", now))
    phase = world.build.status.phase
    if phase in (BuildPhase.FAILED, BuildPhase.CANCELLED):
        words = f"its build {world.build.identity.name} has not succeeded: it is {phase}"
        return Step(ended(status, Phase.REJECTED, words, now, world.last_end))
    if phase is not BuildPhase.SUCCEEDED:
        words = f"waits for its build {world.build.identity.name}, which is {phase}"
        return Step(moved(status, Phase.PENDING, words, now))
    if spec.kind == "Rollback" and not world.has_served:
        # Nobody asks about a rollback, so it leads to nothing that nobody was asked about before.
        return Step(ended(status, Phase.REJECTED, "its build was never served there", now, world.last_end))
    if spec.kind == "Promote":
        waits = _gate(status, world, now) or _upstream(status, world, now) or _approval(promotion, status, world, now)
        if waits is not None:
            return waits
    words = "its Deployment is made ready beside the one that serves"
    begun = Rollout(began_at=now)
    return Step(moved(status, Phase.ROLLING_OUT, words, now, rollout=begun))


def _gate(status: PromotionStatus, world: World, now: datetime) -> Step | None:
    """None once the gate lets it pass. Only Passed does, or any verdict where the gate is dry."""
    condition, gate = world.condition, status.gate
    if condition is None:
        return None
    if not gate.verdicts:
        words = f"its gate is asked about {condition.metric_name}"
        return Step(moved(status, Phase.PENDING, words, now), AskGate(condition, 1))
    last = gate.verdicts[-1]
    if last.outcome is Outcome.PASSED or condition.dry_run:
        return None
    if last.outcome is Outcome.REJECTED:
        return Step(ended(status, Phase.REJECTED, f"its gate: {last.message}", now, world.last_end))
    if not is_retried(last):
        return Step(moved(status, Phase.HELD, f"held for a person, as its gate cannot tell: {last.message}", now))
    deadline = (gate.first_at or last.at) + timedelta(seconds=condition.timeout_seconds)
    if last.at >= deadline:
        words = f"held for a person, as its gate had no answer for {condition.timeout_seconds} s: {last.message}"
        return Step(moved(status, Phase.HELD, words, now))
    due = min(gate.next_at or now, deadline)  # the last try is at the deadline
    step = moved(status, Phase.PENDING, f"its gate is asked again: {last.message}", now)
    # A clock that went back is not waited for.
    if due <= now or due - now > MOST_BACK_OFF:
        return Step(step, AskGate(condition, last.attempt + 1))
    return Step(step, look_again=due)


def _upstream(status: PromotionStatus, world: World, now: datetime) -> Step | None:
    """None once the build is verified wherever it has to be before."""
    missing = sorted(name for name, verified in world.verified.items() if not verified)
    if not missing:
        return None
    return Step(moved(status, Phase.PENDING, f"waits until its build is verified in {' and '.join(missing)}", now))


def _approval(promotion: Promotion, status: PromotionStatus, world: World, now: datetime) -> Step | None:
    """None where a person has approved of it lately, or nobody has to."""
    assert world.environment is not None
    if world.environment.approval != "manual":
        return None
    approval = status.approval
    if approval is not None and now - approval.at <= APPROVAL_VALID:
        return None
    name = promotion.identity.name
    words = f"waits for a person: reconcile approve {name}, or reconcile reject {name}"
    if approval is not None:
        words = f"the approval by {approval.by} of {clock(approval.at)} has expired; {words}"
    return Step(moved(status, Phase.AWAITING_APPROVAL, words, now))
