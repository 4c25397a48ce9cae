"""The traffic of a promotion: when it moves, when it waits, and when it goes back."""

from datetime import timedelta

import pytest

from reconciler.promotion import AskChecks, advance, judged
from reconciler.readiness import Readiness, State
from reconciler.records import Action, Outcome, Phase
from schemas.variation import Step
from tests.unit.promotion.making import (
    CANARY,
    DEAD,
    ERRORS,
    NOT_READY,
    NOW,
    READY,
    B,
    after,
    canary,
    decision,
    environment,
    rolling,
    variation,
    verdict,
    world,
)

REPLACE = variation("replace")
UNCHECKED = variation(canary(checks=()))


def step(one, now=NOW, **changes):
    return advance(one, world(**changes), now)


def course(status):
    """(phase, step, weight) of a status."""
    return status.phase, status.rollout.step, status.rollout.weight


def passed(at=NOW, **more):
    return verdict(Outcome.PASSED, name="errors", at=at, **more)


# -- ready before traffic -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("served", [REPLACE, variation()])
def test_no_traffic_before_the_deployment_is_ready(served):
    waits = step(rolling(-1, 0), after(60), variation=served, candidate=NOT_READY)
    assert course(waits.status) == (Phase.ROLLING_OUT, -1, 0)
    assert "1 of 2 pods are available" in waits.status.message
    assert waits.look_again is not None


@pytest.mark.parametrize(
    ("served", "kind", "current", "replaces", "expected"),
    [
        (REPLACE, "Promote", None, None, (0, 100)),
        (variation(), "Promote", None, None, (0, 5)),
        (variation(), "Rollback", None, None, (0, 100)),
        (variation(), "Promote", "", "", (0, 100)),  # nobody else answers
    ],
)
def test_the_first_traffic(served, kind, current, replaces, expected):
    of = {"kind": kind} | ({} if replaces is None else {"replaces": replaces})
    changes = {} if current is None else {"current": current}
    moved = step(rolling(-1, 0, of=of), variation=served, **changes)
    assert course(moved.status) == (Phase.ROLLING_OUT, *expected)
    assert moved.status.rollout.routed_at is None
    assert "as soon as the routes are accepted" in moved.status.message


@pytest.mark.parametrize(("on_failure", "phase"), [("rollback", Phase.ROLLED_BACK), ("hold", Phase.HELD)])
def test_a_deployment_that_fails_gets_no_traffic(on_failure, phase):
    ended = step(rolling(-1, 0), variation=variation(canary(on_failure=on_failure)), candidate=DEAD)
    assert ended.status.phase is phase
    assert "its Deployment has failed: the pods crash" in ended.status.message


@pytest.mark.parametrize(("given", "limit"), [({}, 1800), ({"deployment": {"deployment_timeout": 120}}, 120)])
def test_the_deadline_of_a_deployment_counts_from_the_beginning(given, limit):
    """A crash loop that comes up for a moment now and then must not win time by it."""
    served = variation("replace", **given)
    assert step(rolling(-1, 0), after(limit - 1), variation=served, candidate=NOT_READY).look_again == after(limit)
    ended = step(rolling(-1, 0), after(limit), variation=served, candidate=NOT_READY)
    assert ended.status.phase is Phase.ROLLED_BACK
    assert f"not ready after {limit} s: 1 of 2 pods are available; build aaaaaaaa has" in ended.status.message


def test_a_deployment_that_is_ready_at_last_is_not_late():
    assert step(rolling(-1, 0), after(9999), variation=REPLACE).status.rollout.weight == 100


# -- replace --------------------------------------------------------------------------------------------------------


def test_it_has_succeeded_when_the_routes_give_it_everything():
    assert step(rolling(0, 100), variation=REPLACE, routed=None).status.phase is Phase.ROLLING_OUT
    assert step(rolling(0, 100), variation=REPLACE, routed=0).status.phase is Phase.ROLLING_OUT
    ended = step(rolling(0, 100), variation=REPLACE, routed=100).status
    assert (ended.phase, ended.message, ended.finished_at) == (Phase.SUCCEEDED, "build bbbbbbbb is served", NOW)


# -- canary ---------------------------------------------------------------------------------------------------------


def test_a_hold_counts_from_when_the_routes_had_the_weight():
    waits = step(rolling(0, 5), after(100), variation=UNCHECKED, routed=0)
    assert waits.status.rollout.routed_at is None
    held = step(rolling(0, 5), after(100), variation=UNCHECKED, routed=5)
    assert held.status.rollout.routed_at == after(100)
    assert held.look_again == after(110)
    assert "step 1 of 2: 5 % of the traffic since 2026-11-21 12:01:40Z" in held.status.message


def test_step_by_step_to_all_of_it():
    one, now, seen = rolling(-1, 0), NOW, []
    for _ in range(20):
        weight = one.status.rollout.weight
        taken = step(one, now, variation=UNCHECKED, routed=weight)
        one = one.model_copy(update={"status": taken.status})
        if course(taken.status) not in [key for key, _ in seen]:
            seen.append((course(taken.status), (now - NOW).total_seconds()))
        now = taken.look_again if taken.look_again and taken.look_again > now else now
    assert seen == [
        ((Phase.ROLLING_OUT, 0, 5), 0),
        ((Phase.ROLLING_OUT, 1, 50), 10),
        ((Phase.ROLLING_OUT, 2, 100), 30),
        ((Phase.SUCCEEDED, 2, 100), 30),
    ]


def test_no_more_traffic_for_a_deployment_that_is_not_ready_just_now():
    one = rolling(0, 5, routed_at=NOW)
    assert course(step(one, after(10), variation=UNCHECKED, candidate=NOT_READY).status)[2] == 5
    assert course(step(one, after(10), variation=UNCHECKED, candidate=READY).status)[2] == 50


def test_pods_that_die_under_traffic_end_it():
    for served in (UNCHECKED, variation(canary(on_failure="hold"))):
        ended = step(rolling(0, 5, routed_at=NOW), variation=served, candidate=DEAD)
        assert ended.status.phase is Phase.ROLLED_BACK


def test_a_clock_that_goes_back_ends_no_hold():
    one = rolling(0, 5, routed_at=NOW)
    for ago in (1, 3600):
        assert course(step(one, after(-ago), variation=UNCHECKED).status)[2] == 5


def test_a_list_of_steps_that_changes_meanwhile_neither_repeats_nor_skips_traffic():
    """The step is the weight: after 5 % comes the next that is more, wherever it stands in the list."""
    one = rolling(0, 5, routed_at=NOW)
    longer = canary(steps=(Step(weight=1), Step(weight=5, hold="10s"), Step(weight=20)), checks=(), timeout="1h")
    assert course(step(one, after(10), variation=variation(longer)).status)[1:] == (2, 20)
    without = canary(steps=(Step(weight=20),), checks=())
    assert course(step(one, NOW, variation=variation(without)).status)[1:] == (0, 20)
    far = rolling(4, 60, routed_at=NOW)
    assert course(step(far, NOW, variation=variation(without)).status)[1:] == (1, 100)
    assert course(step(one, NOW, variation=REPLACE).status)[1:] == (0, 100)


# -- checks ---------------------------------------------------------------------------------------------------------


def test_checks_are_asked_once_the_traffic_is_there_and_then_again_and_again():
    assert step(rolling(0, 5), routed=None).question is None
    first = step(rolling(0, 5), routed=5)
    assert first.question == AskChecks((ERRORS,), 5, NOW)
    one = rolling(0, 5, routed_at=NOW, checks=(passed(),), checked_at=NOW)
    assert step(one, after(0.9)).question is None
    assert step(one, after(0.9)).look_again == after(1)  # a tenth of the window of 10 s
    assert step(one, after(1)).question is not None


def test_checks_of_long_windows_are_asked_every_thirty_seconds_and_those_of_short_holds_every_second():
    slow = ERRORS.model_copy(update={"window": "1h"})
    one = rolling(0, 5, routed_at=NOW, checks=(passed(),), checked_at=NOW)
    long = variation(canary(checks=(slow,), steps=(Step(weight=5, hold="1h"),), timeout="2h"))
    assert step(one, NOW, variation=long).look_again == after(30)
    short = variation(canary(checks=(slow,), steps=(Step(weight=5, hold="2s"),), timeout="2h"))
    assert step(one, NOW, variation=short).look_again == after(1)


def test_at_the_end_of_a_hold_all_checks_must_have_passed_and_looked_at_all_of_it():
    early = rolling(0, 5, routed_at=NOW, checks=(passed(after(9.5)),), checked_at=after(9.5))
    last = step(early, after(10))
    assert last.question is not None
    assert last.status.rollout.weight == 5
    looked = judged(last.status, [passed(after(10))], after(10))
    assert step(early.model_copy(update={"status": looked}), after(10)).status.rollout.weight == 50


def test_the_next_step_is_judged_by_itself():
    one = rolling(0, 5, routed_at=NOW, checks=(passed(after(10)),), checked_at=after(10))
    rollout = step(one, after(10)).status.rollout
    assert (rollout.weight, rollout.checks, rollout.checked_at, rollout.routed_at) == (50, (), None, None)


def test_an_answer_about_an_earlier_step_is_not_taken_for_one_about_this():
    waiting = rolling(1, 50).status
    assert judged(waiting, [passed()], after(1)) == waiting
    routed = rolling(1, 50, routed_at=after(5)).status
    assert judged(routed, [passed(after(4))], after(6)) == routed
    assert judged(routed, [passed(after(5))], after(6)).rollout.checked_at == after(5)


REJECTS = verdict(Outcome.REJECTED, name="errors", message="12 % is not below 1 %")


@pytest.mark.parametrize("paused_at", [None, NOW])
def test_a_check_that_rejects_ends_it_at_once_paused_or_not(paused_at):
    one = rolling(0, 5, routed_at=NOW, checks=(REJECTS,), checked_at=NOW, paused_at=paused_at)
    ended = step(one, after(1))
    assert ended.status.phase is Phase.ROLLED_BACK
    assert ended.status.message == "its check errors: 12 % is not below 1 %; build aaaaaaaa has all traffic"


def test_a_check_that_rejects_asks_a_person_where_the_canary_says_so():
    one = rolling(0, 5, routed_at=NOW, checks=(REJECTS,), checked_at=NOW)
    held = step(one, after(1), variation=variation(canary(on_failure="hold")))
    assert course(held.status) == (Phase.HELD, 0, 5)
    assert "held at 5 % of the traffic" in held.status.message


def test_a_verdict_of_a_check_that_the_spec_has_no_more_counts_no_more():
    one = rolling(0, 5, routed_at=NOW, checks=(REJECTS,), checked_at=NOW)
    assert step(one, after(1), variation=UNCHECKED).status.phase is Phase.ROLLING_OUT


@pytest.mark.parametrize("outcome", [Outcome.INCONCLUSIVE, Outcome.ERROR])
def test_without_a_verdict_it_waits_and_is_held_in_the_end_but_never_rolled_back(outcome):
    unsure = verdict(outcome, name="errors", at=after(20), message="3 of 100 requests")
    one = rolling(0, 5, routed_at=NOW, checks=(unsure,), checked_at=after(20))
    waits = step(one, after(30))
    assert waits.status.phase is Phase.ROLLING_OUT
    assert "its check errors: 3 of 100 requests" in waits.status.message
    assert waits.question is not None
    late = step(one, after(600))
    assert late.question is not None, "whoever was away asks first"
    asked = judged(late.status, [unsure.model_copy(update={"at": after(601)})], after(601))
    held = step(one.model_copy(update={"status": asked}), after(602))
    assert course(held.status) == (Phase.HELD, 0, 5)
    assert "no verdict within 10m: its check errors: 3 of 100 requests" in held.status.message


@pytest.mark.parametrize(("on_failure", "phase"), [("rollback", Phase.ROLLED_BACK), ("hold", Phase.HELD)])
def test_a_canary_that_is_not_through_in_time_fails_as_it_says(on_failure, phase):
    served = variation(canary(on_failure=on_failure))
    assert step(rolling(0, 5), after(599), variation=served).look_again == after(600)
    ended = step(rolling(0, 5), after(600), variation=served)
    assert ended.status.phase is phase
    assert "not through after 10m" in ended.status.message


def test_what_can_go_on_does_so_even_at_the_last_moment():
    one = rolling(0, 5, routed_at=NOW, checks=(passed(after(600)),), checked_at=after(600))
    assert step(one, after(600)).status.rollout.weight == 50


# -- what people say ------------------------------------------------------------------------------------------------


def say(one, *actions, now, **changes):
    said = tuple(decision(action, at=now, reason="because") for action in actions)
    spec = one.spec.model_copy(update={"decisions": (*one.spec.decisions, *said)})
    one = one.model_copy(update={"spec": spec})
    return one.model_copy(update={"status": step(one, now, **changes).status})


def test_a_pause_stops_the_clocks_of_the_hold_and_of_the_canary():
    one = rolling(0, 5, routed_at=NOW)
    paused = say(one, Action.PAUSE, now=after(4), variation=UNCHECKED)
    assert (paused.status.rollout.paused_at, paused.status.message) == (after(4), "paused by kim: because")
    assert step(paused, after(9999), variation=UNCHECKED).status == paused.status
    resumed = say(paused, Action.RESUME, now=after(104), variation=UNCHECKED).status.rollout
    assert resumed.paused_at is None
    assert (resumed.routed_at, resumed.began_at) == (after(100), after(100))


def test_a_paused_rollout_gets_no_traffic_when_its_deployment_becomes_ready():
    paused = say(rolling(-1, 0), Action.PAUSE, now=NOW)
    assert step(paused, after(5)).status.rollout.weight == 0


def test_traffic_is_watched_while_it_is_paused():
    paused = say(rolling(0, 5, routed_at=NOW), Action.PAUSE, now=after(4))
    assert step(paused, after(5)).question == AskChecks((ERRORS,), 5, NOW)


def test_a_pause_that_seems_to_begin_in_the_future_takes_no_time_from_the_hold():
    paused = say(rolling(0, 5, routed_at=NOW), Action.PAUSE, now=after(4))
    assert say(paused, Action.RESUME, now=after(-50)).status.rollout.routed_at == NOW


def test_each_decision_counts_once():
    both = say(rolling(0, 5, routed_at=NOW), Action.PAUSE, Action.RESUME, Action.PAUSE, now=after(4))
    assert both.status.decided == 3
    assert both.status.rollout.paused_at == after(4)
    assert step(both, after(8)).status.rollout.paused_at == after(4)


def test_an_abort_gives_all_traffic_back_at_once():
    aborted = say(rolling(1, 50, routed_at=NOW), Action.REJECT, now=after(1)).status
    assert aborted.phase is Phase.ROLLED_BACK
    assert aborted.message == "aborted by kim: because; build aaaaaaaa has all traffic"


def held(**rollout):
    one = rolling(0, 5, **({"routed_at": NOW, "checks": (REJECTS,), "checked_at": NOW} | rollout))
    return one.model_copy(update={"status": one.status.model_copy(update={"phase": Phase.HELD})})


def test_a_person_lets_one_step_pass_and_the_next_is_judged_again():
    on = say(held(), Action.APPROVE, now=after(700))
    assert course(on.status) == (Phase.ROLLING_OUT, 1, 50)
    assert on.status.approval.by == "kim"
    assert on.status.rollout.began_at == after(700)  # the time limits count anew
    assert step(on, after(701), routed=50).question is not None


def test_what_a_person_lets_pass_still_waits_until_it_is_ready():
    on = say(held(), Action.APPROVE, now=after(700), candidate=NOT_READY)
    assert course(on.status) == (Phase.ROLLING_OUT, 0, 5)
    assert course(step(on, after(701)).status) == (Phase.ROLLING_OUT, 1, 50)


def test_a_held_rollout_keeps_its_traffic_and_loses_it_when_rejected_or_dying():
    assert step(held(), after(9999)).status.phase is Phase.HELD
    assert say(held(), Action.REJECT, now=after(1)).status.phase is Phase.ROLLED_BACK
    assert step(held(), candidate=DEAD).status.phase is Phase.ROLLED_BACK


def test_a_person_gives_a_deployment_that_was_late_more_time():
    one = rolling(-1, 0)
    late = one.model_copy(update={"status": one.status.model_copy(update={"phase": Phase.HELD})})
    served = variation(canary(on_failure="hold"))
    on = say(late, Action.APPROVE, now=after(2000), variation=served, candidate=NOT_READY)
    assert course(on.status) == (Phase.ROLLING_OUT, -1, 0)
    assert step(on, after(2300), variation=served, candidate=NOT_READY).status.phase is Phase.ROLLING_OUT


def test_a_rollback_has_no_checks_and_no_steps():
    back = rolling(-1, 0, of={"kind": "Rollback"})
    moved = step(back)
    assert moved.question is None
    there = back.model_copy(update={"status": moved.status})
    ended = step(there, after(1), routed=100)
    assert (ended.status.phase, ended.question) == (Phase.SUCCEEDED, None)


def test_the_step_says_when_to_look_again_at_the_latest():
    one = rolling(0, 5, routed_at=NOW)
    assert step(one, NOW, variation=UNCHECKED).look_again == NOW + timedelta(seconds=10)
    assert CANARY.timeout == "10m"
    assert step(rolling(0, 5), NOW, variation=UNCHECKED).look_again == after(600)
    assert step(rolling(0, 100), variation=REPLACE).look_again is None
    assert step(rolling(0, 5, build_id=B), variation=UNCHECKED).sentence.startswith("step 1 of 2")


# -- suspended ------------------------------------------------------------------------------------------------------

SUSPENDED = environment(suspended=True)


def suspend(one, begin, end, **changes):
    """Suspended, looked at many times, and looked at again when it is so no more."""
    for now in (begin, begin + 1, (begin + end) / 2, end - 1):
        step_taken = step(one, after(now), environment=SUSPENDED, **changes)
        assert (step_taken.question, step_taken.look_again) == (None, None)
        one = one.model_copy(update={"status": step_taken.status})
    assert one.status.suspended_at == after(begin)
    return step(one, after(end), **changes)


def test_an_hour_of_suspension_is_no_part_of_a_hold():
    one = rolling(0, 5, routed_at=NOW)
    back = suspend(one, 4, 3604, variation=UNCHECKED, routed=5)
    assert (back.status.suspended_at, back.look_again) == (None, after(3610))
    assert course(back.status) == (Phase.ROLLING_OUT, 0, 5)
    assert back.status.rollout.routed_at == after(3600)
    again = one.model_copy(update={"status": back.status})
    assert course(step(again, after(3610), variation=UNCHECKED, routed=5).status) == (Phase.ROLLING_OUT, 1, 50)


@pytest.mark.parametrize("weight", [0, 5])
def test_an_hour_of_suspension_is_no_part_of_a_time_limit(weight):
    """Neither of the Deployment's, which is not ready yet, nor of the canary's, whose routes are not accepted yet."""
    served = variation(canary(), deployment={"deployment_timeout": 600})
    one = rolling(0 if weight else -1, weight)
    back = suspend(one, 500, 4100, variation=served, candidate=NOT_READY, routed=0)
    assert (back.status.phase, back.look_again) == (Phase.ROLLING_OUT, after(4200))
    late = step(one.model_copy(update={"status": back.status}), after(4200), variation=served, candidate=NOT_READY)
    assert late.status.phase is Phase.ROLLED_BACK


def test_what_a_person_has_paused_stays_so_after_a_suspension_and_no_time_counts_twice():
    paused = say(rolling(0, 5, routed_at=NOW), Action.PAUSE, now=after(4), variation=UNCHECKED)
    back = suspend(paused, 10, 110, variation=UNCHECKED)
    assert back.status.rollout.paused_at is not None
    again = paused.model_copy(update={"status": back.status})
    on = say(again, Action.RESUME, now=after(204), variation=UNCHECKED).status.rollout
    assert (on.paused_at, on.routed_at) == (None, after(200))


def test_a_suspension_that_seems_to_begin_in_the_future_takes_no_time_from_the_hold():
    one = rolling(0, 5, routed_at=NOW)
    held = step(one, after(50), environment=SUSPENDED).status
    back = step(one.model_copy(update={"status": held}), after(4), variation=UNCHECKED)
    assert back.status.rollout.routed_at == NOW


def test_before_it_exists_a_deployment_is_said_not_to_be_there_yet():
    missing = Readiness(State.NOT_FOUND, "it does not exist")
    waits = step(rolling(-1, 0), after(1), candidate=missing)
    assert waits.status.message == "its Deployment is not there yet"
    late = step(rolling(-1, 0), after(1800), candidate=missing, variation=REPLACE)
    assert "its Deployment is not ready after 1800 s: it is not there; " in late.status.message
