"""A promotion before it has traffic: what it waits for, what ends it, and what people say."""

from datetime import timedelta

import pytest

from reconciler.promotion import APPROVAL_VALID, AskGate, Ledger, advance, judged, places
from reconciler.promotion import world as world_of
from reconciler.records import Action, Approval, BuildPhase, Gate, Outcome, Phase, PromotionStatus
from renderers.catalog import promotion_order
from tests.unit.promotion.making import (
    CONDITION,
    NOW,
    PRODUCTION,
    READY,
    A,
    B,
    C,
    D,
    after,
    automation,
    build,
    by_name,
    catalog,
    decision,
    environment,
    judged_gate,
    promotion,
    rolling,
    variation,
    verdict,
    world,
)

AUTOMATED = variation(automation="nightly")
MANUAL = environment(approval="manual")


def test_where_nothing_is_in_the_way_the_deployment_is_made_ready_without_any_traffic():
    step = advance(promotion(), world(), NOW)
    assert step.status.phase is Phase.ROLLING_OUT
    assert step.status.rollout is not None
    assert (step.status.rollout.step, step.status.rollout.weight, step.status.rollout.began_at) == (-1, 0, NOW)
    assert step.status.since == NOW


def test_an_ended_promotion_stays_as_it_is():
    for phase in (Phase.SUCCEEDED, Phase.REJECTED, Phase.ROLLED_BACK, Phase.SUPERSEDED):
        done = promotion(phase=phase, ended=NOW, decisions=(decision(Action.REJECT),))
        assert advance(done, world(variation=None), NOW).status == done.status


def test_in_a_suspended_environment_nothing_moves_and_the_message_says_so():
    waiting = rolling(1, 50)
    step = advance(waiting, world(environment=environment(suspended=True), target=C), NOW)
    assert step.status.message == "production is suspended: nothing changes there"
    assert step.status.model_copy(update={"message": "", "suspended_at": None}) == waiting.status


def test_the_same_arguments_give_the_same_step_and_a_step_taken_twice_changes_nothing():
    around = world(condition=CONDITION)
    first = advance(promotion(), around, NOW)
    assert advance(promotion(), around, NOW) == first
    written = promotion().model_copy(update={"status": first.status})
    assert advance(written, around, NOW).status == first.status


# -- superseded -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "changes", "phase", "words"),
    [
        (promotion(), {"environment": None}, Phase.SUPERSEDED, "production has left the specs"),
        (promotion(), {"variation": None}, Phase.SUPERSEDED, "not promoted to the variation default in production"),
        (rolling(), {"variation": None}, Phase.SUPERSEDED, "any more; build aaaaaaaa has all traffic"),
        (promotion(), {"target": C}, Phase.SUPERSEDED, "build cccccccc is wanted by now"),
        (rolling(), {"target": C}, Phase.SUPERSEDED, "cccccccc is wanted by now; build aaaaaaaa has all traffic"),
        (promotion(), {"target": C, "variation": AUTOMATED}, Phase.SUPERSEDED, "build cccccccc is wanted by now"),
        (promotion(), {"current": B}, Phase.SUPERSEDED, "its build is served already"),
        (promotion(), {"current": C}, Phase.SUPERSEDED, "to replace build aaaaaaaa, and build cccccccc is served"),
        (
            promotion(replaces=""),
            {},
            Phase.SUPERSEDED,
            "to replace no build (its expectedCurrent is empty), and build aaaaaaaa is served",
        ),
        (promotion(), {"rollback": "back"}, Phase.SUPERSEDED, "the rollback back takes its place"),
        # It had traffic, and a person did not want it: it is not to come again by itself.
        (rolling(), {"rollback": "back"}, Phase.ROLLED_BACK, "the rollback back takes its place; build aaaaaaaa has"),
        (rolling(of={"kind": "Rollback"}), {"rollback": "back"}, Phase.SUPERSEDED, "the rollback back takes its place"),
        (rolling(), {"ahead": "first"}, Phase.SUPERSEDED, "first rolls out at the same place"),
    ],
)
def test_what_is_not_wanted_any_more_ends(one, changes, phase, words):
    status = advance(one, world(**changes), NOW).status
    assert status.phase is phase
    assert words in status.message
    assert status.finished_at == NOW


@pytest.mark.parametrize(
    ("one", "changes"),
    [
        (rolling(), {"target": C, "variation": AUTOMATED}),  # an automation's rollout is finished first
        (promotion(), {"target": ""}),  # nobody knows what is wanted
        (promotion(kind="Rollback"), {"target": C}),
    ],
)
def test_what_goes_on(one, changes):
    assert advance(one, world(**changes), NOW).status.phase is Phase.ROLLING_OUT


def test_a_promotion_waits_for_one_that_came_first():
    status = advance(promotion(), world(ahead="first", condition=CONDITION), NOW).status
    assert (status.phase, status.message) == (Phase.PENDING, "waits for the end of first")


@pytest.mark.parametrize(
    ("record", "phase", "words"),
    [
        (None, Phase.PENDING, "there is no record of build bbbbbbbb"),
        (build(B, BuildPhase.RUNNING), Phase.PENDING, "waits for its build churn-build-bbbbbbbb, which is Running"),
        (build(B, BuildPhase.FAILED), Phase.REJECTED, "has not succeeded: it is Failed"),
    ],
)
def test_only_a_build_that_has_succeeded_goes_anywhere(record, phase, words):
    status = advance(promotion(), world(build=record), NOW).status
    assert status.phase is phase
    assert words in status.message


def test_the_end_is_after_all_other_ends_of_the_place_also_when_the_clock_went_back():
    """What is served is what succeeded last: a clock must not make an older success the newer one."""
    status = advance(promotion(), world(target=C, last_end=after(60)), NOW).status
    assert status.finished_at == after(60) + timedelta(milliseconds=1)


# -- the gate -------------------------------------------------------------------------------------------------------


def gated(gate, now=NOW, **changes):
    return advance(promotion(gate=gate), world(**({"condition": CONDITION} | changes)), now)


def test_the_gate_is_asked_before_anything_else():
    step = gated(Gate(), environment=MANUAL, verified={"staging": False})
    assert step.question == AskGate(CONDITION, 1)
    assert step.status.phase is Phase.PENDING


@pytest.mark.parametrize(
    ("outcome", "phase"),
    [
        (Outcome.PASSED, Phase.ROLLING_OUT),
        (Outcome.REJECTED, Phase.REJECTED),
        (Outcome.INCONCLUSIVE, Phase.HELD),
        (Outcome.ERROR, Phase.HELD),
    ],
)
def test_only_passed_promotes(outcome, phase):
    step = gated(judged_gate(outcome, message="0.7 is not above 0.8"))
    assert step.status.phase is phase
    assert step.question is None
    assert phase is Phase.ROLLING_OUT or "0.7 is not above 0.8" in step.status.message


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_dry_gate_is_judged_and_recorded_without_effect(outcome):
    dry = CONDITION.model_copy(update={"dry_run": True})
    assert gated(Gate(), condition=dry).question == AskGate(dry, 1)
    assert gated(judged_gate(outcome, retryable=True), condition=dry).status.phase is Phase.ROLLING_OUT


def test_an_error_is_asked_again_with_back_off_until_the_deadline_and_then_held():
    status, now, waits = PromotionStatus(), NOW, []
    for attempt in range(1, 20):
        step = advance(promotion().model_copy(update={"status": status}), world(condition=CONDITION), now)
        if step.status.phase is Phase.HELD:
            break
        assert step.question == AskGate(CONDITION, attempt)
        error = verdict(Outcome.ERROR, at=now, attempt=attempt, retryable=True, message="no route to the warehouse")
        status = judged(step.status, [error], now)
        step = advance(promotion().model_copy(update={"status": status}), world(condition=CONDITION), now)
        assert step.question is None
        if step.look_again is not None:
            waits.append((step.look_again - now).total_seconds())
            now = step.look_again
    assert waits == [2, 4, 8, 16, 30]  # 60 s together, which is the condition's timeout: the last try is at its end
    assert step.status.phase is Phase.HELD
    assert "no answer for 60 s: no route to the warehouse" in step.status.message


def test_a_try_that_seems_far_away_is_made_now_since_the_clock_went_back():
    gate = judged_gate(Outcome.ERROR, retryable=True).model_copy(update={"next_at": after(2)})
    step = gated(gate, now=after(-3600))
    assert step.question == AskGate(CONDITION, 2)


def test_the_record_keeps_the_last_ten_verdicts_and_when_the_first_one_was():
    status = PromotionStatus()
    for number in range(12):
        status = judged(status, [verdict(Outcome.ERROR, attempt=number, retryable=True)], after(number))
    assert [one.attempt for one in status.gate.verdicts] == list(range(2, 12))
    assert status.gate.first_at == NOW
    assert status.gate.next_at == after(11 + 60)


def test_an_answer_that_comes_after_the_end_changes_nothing():
    status = promotion(phase=Phase.SUPERSEDED, ended=NOW).status
    assert judged(status, [verdict(Outcome.PASSED)], NOW) == status


# -- verified upstream, approved ------------------------------------------------------------------------------------


def test_a_build_waits_for_the_environments_before_and_the_message_names_those_that_are_missing():
    waits = world(verified={"qa": False, "staging": True, "lab": False})
    status = advance(promotion(), waits, NOW).status
    assert (status.phase, status.message) == (Phase.PENDING, "waits until its build is verified in lab and qa")
    assert advance(promotion(), world(verified={"staging": True}), NOW).status.phase is Phase.ROLLING_OUT


def test_nobody_is_asked_before_the_build_is_verified():
    waits = advance(promotion(), world(environment=MANUAL, verified={"staging": False}), NOW)
    assert waits.status.phase is Phase.PENDING


def decided(*decisions, phase=Phase.AWAITING_APPROVAL, now=NOW, around=None, **status):
    return advance(
        promotion(phase=phase, decisions=decisions, **status), around or world(environment=MANUAL), now
    ).status


def test_a_person_approves_by_name_and_the_message_says_how():
    waiting = advance(promotion(), world(environment=MANUAL), NOW).status
    assert waiting.phase is Phase.AWAITING_APPROVAL
    assert "reconcile approve churn.default.production.bbbbbbbb-1" in waiting.message
    status = decided(decision(Action.APPROVE, reason="looks good"))
    assert status.phase is Phase.ROLLING_OUT
    assert status.approval == Approval(by="kim", at=NOW, reason="looks good")


def test_an_approval_may_come_before_it_is_asked_for():
    early = decided(
        decision(Action.APPROVE),
        phase=Phase.PENDING,
        around=world(environment=MANUAL, verified={"staging": False}),
    )
    assert (early.phase, early.decided) == (Phase.PENDING, 1)
    late = promotion(decisions=(decision(Action.APPROVE),)).model_copy(update={"status": early})
    assert advance(late, world(environment=MANUAL), NOW).status.phase is Phase.ROLLING_OUT


def test_an_approval_of_another_build_decides_nothing():
    assert decided(decision(Action.APPROVE, build=C)).phase is Phase.AWAITING_APPROVAL


def test_an_approval_from_a_clock_that_is_behind_counts():
    assert decided(decision(Action.APPROVE, at=after(-90)), since=NOW).phase is Phase.ROLLING_OUT


def test_an_approval_that_has_expired_is_asked_for_anew():
    old = Approval(by="kim", at=NOW - APPROVAL_VALID - timedelta(seconds=1))
    status = decided(approval=old)
    assert status.phase is Phase.AWAITING_APPROVAL
    assert "the approval by kim of 2026-11-14 11:59:59Z has expired" in status.message
    assert decided(decision(Action.APPROVE, by="lee"), approval=old).phase is Phase.ROLLING_OUT


def test_an_approval_for_what_is_not_served_any_more_is_no_approval():
    """Kim agreed to B instead of A. By now D is served, so somebody has to look again."""
    status = decided(decision(Action.APPROVE), around=world(environment=MANUAL, current=D))
    assert status.phase is Phase.SUPERSEDED


@pytest.mark.parametrize("phase", [Phase.PENDING, Phase.AWAITING_APPROVAL, Phase.HELD])
def test_a_rejection_before_there_is_traffic(phase):
    status = decided(decision(Action.REJECT, reason="not on a Friday"), phase=phase)
    assert (status.phase, status.message) == (Phase.REJECTED, "rejected by kim: not on a Friday")


def test_what_was_rejected_is_not_superseded_instead():
    """Else the specs could bring back what a person did not want."""
    assert decided(decision(Action.REJECT), around=world(target=C)).phase is Phase.REJECTED


def test_decisions_count_in_their_order():
    status = decided(decision(Action.REJECT), decision(Action.APPROVE))
    assert (status.phase, status.decided) == (Phase.REJECTED, 2)


# -- held -----------------------------------------------------------------------------------------------------------

HELD = judged_gate(Outcome.INCONCLUSIVE, message="there is nothing to compare with")


def test_a_held_gate_stays_so_until_a_person_says_how_it_goes_on():
    around = world(condition=CONDITION)
    assert decided(phase=Phase.HELD, gate=HELD, around=around).phase is Phase.HELD
    status = decided(decision(Action.APPROVE, reason="first of all"), phase=Phase.HELD, gate=HELD, around=around)
    assert status.phase is Phase.ROLLING_OUT
    assert status.gate.verdicts[:-1] == HELD.verdicts
    assert (status.gate.verdicts[-1].outcome, status.gate.verdicts[-1].reason) == (Outcome.PASSED, "Waived")
    assert status.gate.verdicts[-1].message == "approved by kim: first of all"


def test_an_approval_from_before_does_not_let_a_later_hold_pass():
    one = promotion(decisions=(decision(Action.APPROVE, at=after(3600)),), gate=HELD)
    around = world(condition=CONDITION, environment=MANUAL)
    held = advance(one, around, NOW).status
    assert (held.phase, held.decided) == (Phase.HELD, 1)
    again = one.model_copy(update={"status": held})
    assert advance(again, around, after(7200)).status.phase is Phase.HELD


def test_a_held_promotion_is_superseded_by_a_newer_build():
    assert decided(phase=Phase.HELD, gate=HELD, around=world(target=C)).phase is Phase.SUPERSEDED


# -- rollback -------------------------------------------------------------------------------------------------------


def test_a_rollback_asks_nobody():
    around = world(condition=CONDITION, environment=MANUAL, verified={"staging": False}, target=C, variation=AUTOMATED)
    step = advance(promotion(kind="Rollback"), around, NOW)
    assert step.status.phase is Phase.ROLLING_OUT
    assert step.question is None


def test_a_rollback_from_what_is_not_served_any_more_has_no_effect():
    assert advance(promotion(kind="Rollback"), world(current=D), NOW).status.phase is Phase.SUPERSEDED


# -- who has the place ----------------------------------------------------------------------------------------------

KNOWN = catalog((environment("production"),), (variation(environments=("production",)),))
PLACES = places(KNOWN, promotion_order(KNOWN))
SERVES_A = promotion(A, Phase.SUCCEEDED, replaces="", at=after(-9), ended=after(-5))


def around_of(one, *others):
    ledger = Ledger(by_name(build(B)), (SERVES_A, one, *others))
    return world_of(one, KNOWN, PLACES, ledger, {PRODUCTION: B}, candidate=READY, routed=None)


def test_the_world_of_a_promotion_is_read_from_the_records():
    one = promotion(B)
    around = around_of(one)
    assert (around.build, around.current, around.target) == (build(B), A, B)
    assert (around.ahead, around.rollback, around.last_end) == ("", "", after(-5))
    assert around.variation == PLACES[PRODUCTION].variation


def test_the_world_has_the_condition_and_what_must_be_verified_before():
    known = catalog(variations=(AUTOMATED,), automations=(automation(),))
    found = places(known, promotion_order(known))
    done = promotion(B, Phase.SUCCEEDED, place=("staging", "churn", "default"), ended=NOW)
    for promotions, expected in (((), False), ((done,), True)):
        around = world_of(promotion(B), known, found, Ledger(promotions=promotions), {}, candidate=READY, routed=None)
        assert around.condition == CONDITION
        assert around.verified == {"staging": expected}


def test_a_rollback_takes_the_place_but_begins_when_nothing_else_has_traffic():
    running, back = rolling(), promotion(D, kind="Rollback", at=after(5))
    assert around_of(running, back).rollback == back.identity.name
    assert around_of(back, running).ahead == running.identity.name
    assert around_of(back, running).rollback == ""
    assert around_of(back).ahead == ""


def test_of_two_rollbacks_the_newer_one_counts():
    first, second = promotion(D, kind="Rollback"), promotion(C, kind="Rollback", at=after(5))
    assert around_of(first, second).rollback == second.identity.name
    assert around_of(second, first).rollback == ""


def test_who_asks_twice_for_a_rollback_does_not_make_it_begin_anew():
    first = rolling(0, 100, build_id=D, of={"kind": "Rollback"})
    second = promotion(D, kind="Rollback", attempt=2, at=after(5))
    assert around_of(first, second).rollback == ""
    assert around_of(second, first).rollback == first.identity.name


def test_of_two_that_roll_out_at_once_exactly_one_gives_way():
    first, second = rolling(), rolling(build_id=C, of={"at": after(1)})
    assert (around_of(first, second).ahead, around_of(second, first).ahead) == ("", first.identity.name)


def test_what_rolls_out_comes_before_what_was_asked_for_earlier():
    early, running = promotion(C, at=after(-3)), rolling()
    assert around_of(early, running).ahead == running.identity.name
    assert around_of(running, early).ahead == ""
