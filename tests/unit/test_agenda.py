"""Which models are looked at, and when: what an agenda is told, and what follows from it. No clock runs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.daemon.agenda import Agenda
from renderers.manifest import ObjectId

LONGEST, LONGEST_WITH_JITTER = 300.0, 450.0
#: So many repairs in a row are not yet a fight.
BEFORE_A_FIGHT = 4
SERVICE, ROUTE = ObjectId("v1", "Service", "prod", "churn"), ObjectId("v1", "HTTPRoute", "prod", "churn")


@pytest.fixture
def agenda() -> Agenda:
    """In the middle of every jitter."""
    return Agenda(lambda: 0.5)


def fail(agenda: Agenda, model: str, now: float) -> float:
    """The seconds until it is tried again."""
    agenda.leave(model, "it failed", now, waits=False)
    return dict(agenda)[model].due - now


def wait(agenda: Agenda, model: str, now: float) -> float:
    """The seconds until it is looked at although nothing was heard of it."""
    agenda.leave(model, "its pods are not ready", now, waits=True)
    return dict(agenda)[model].due - now


def fight(agenda: Agenda, model: str, now: float) -> None:
    """Somebody changes it again as soon as it was repaired, until that is a fight."""
    for _ in range(BEFORE_A_FIGHT):
        assert not agenda.repaired(model, [SERVICE], now)
    assert agenda.repaired(model, [SERVICE], now)


class TestWhatIsSettled:
    def test_costs_nothing(self, agenda: Agenda) -> None:
        assert (len(agenda), agenda.due(1e9), agenda.next_due()) == (0, frozenset(), None)

    def test_is_touched_and_looked_at_at_once(self, agenda: Agenda) -> None:
        agenda.touch(["churn", "fraud"], 10.0)
        assert agenda.due(10.0) == {"churn", "fraud"}
        assert agenda.next_due() == 10.0

    def test_is_gone_from_the_agenda(self, agenda: Agenda) -> None:
        agenda.touch(["churn", "fraud"], 10.0)
        agenda.settle("churn")
        agenda.settle("churn")
        assert [model for model, _ in agenda] == ["fraud"]

    def test_is_not_stirred(self, agenda: Agenda) -> None:
        agenda.stir(["churn"], 10.0)
        assert len(agenda) == 0


class TestWhatFailed:
    def test_is_tried_again_after_a_while_that_doubles(self, agenda: Agenda) -> None:
        assert [fail(agenda, "churn", 10.0) for _ in range(5)] == [1, 2, 4, 8, 16]

    def test_is_tried_again_for_ever_but_no_more_often_than_it_must(self, agenda: Agenda) -> None:
        pauses = [fail(agenda, "churn", 10.0) for _ in range(100)]
        assert max(pauses) == pauses[-1] == LONGEST

    def test_says_why_and_since_when(self, agenda: Agenda) -> None:
        agenda.touch(["churn"], 10.0)
        fail(agenda, "churn", 12.0)
        fail(agenda, "churn", 14.0)
        one = dict(agenda)["churn"]
        assert (one.since, one.why, one.tries, one.waits) == (10.0, "it failed", 2, False)

    def test_is_looked_at_now_when_something_else_is_wanted_of_it(self, agenda: Agenda) -> None:
        for _ in range(9):
            fail(agenda, "churn", 10.0)
        agenda.touch(["churn"], 11.0)
        assert agenda.due(11.0) == {"churn"}
        assert dict(agenda)["churn"].since == 10.0, "it is unsettled for as long as before"
        assert fail(agenda, "churn", 11.0) == 1, "what is wanted now has not failed before"

    def test_is_not_stirred_by_what_happens_to_it(self, agenda: Agenda) -> None:
        """Its own tries make events, and would be the reason for the next one."""
        fail(agenda, "churn", 10.0)
        agenda.stir(["churn"], 10.1)
        assert agenda.due(10.1) == frozenset()

    def test_begins_anew_to_count_when_it_waits(self, agenda: Agenda) -> None:
        fail(agenda, "churn", 10.0)
        fail(agenda, "churn", 10.0)
        assert wait(agenda, "churn", 10.0) == 15
        assert fail(agenda, "churn", 10.0) == 1

    def test_is_not_tried_by_everybody_at_once(self) -> None:
        pauses = [fail(Agenda(lambda chance=chance: chance), "churn", 0.0) for chance in (0.0, 0.25, 0.999)]
        assert pauses == pytest.approx([0.5, 0.75, 1.499])


class TestWhatWaits:
    def test_is_looked_at_when_the_cluster_speaks_of_it(self, agenda: Agenda) -> None:
        wait(agenda, "churn", 10.0)
        assert agenda.due(11.0) == frozenset()
        agenda.stir(["churn", "fraud"], 11.0)
        assert agenda.due(11.0) == {"churn"}

    def test_is_looked_at_now_and_then_although_the_cluster_says_nothing(self, agenda: Agenda) -> None:
        assert [wait(agenda, "churn", 10.0) for _ in range(7)] == [15, 30, 60, 120, 240, 300, 300]

    def test_is_waited_for_no_longer_because_the_cluster_has_spoken_of_it_often(self, agenda: Agenda) -> None:
        """A look that the cluster has asked for is none that it was silent for: the last word of many may be missed."""
        for now in range(10, 20):
            assert wait(agenda, "churn", now) == 15
            agenda.stir(["churn"], now)

    def test_is_not_put_off_by_being_stirred(self, agenda: Agenda) -> None:
        wait(agenda, "churn", 10.0)
        agenda.stir(["churn"], 11.0)
        agenda.stir(["churn"], 12.0)
        assert dict(agenda)["churn"].due == 11.0


class TestWhatALimitHolds:
    """A limit is about all of an environment: a part of it alone would be within it."""

    def hold(self, agenda: Agenda, *models: str) -> None:
        for model in models:
            agenda.leave(model, "too much would be deleted", 10.0, waits=True, held=True)

    def test_is_looked_at_together_with_whatever_is_due(self, agenda: Agenda) -> None:
        self.hold(agenda, "churn", "fraud")
        assert agenda.due(11.0) == frozenset()
        agenda.touch(["upsell"], 11.0)
        assert agenda.due(11.0) == {"churn", "fraud", "upsell"}

    def test_is_looked_at_when_the_limit_may_have_been_lifted_and_nothing_else_is(self, agenda: Agenda) -> None:
        self.hold(agenda, "churn", "fraud")
        wait(agenda, "upsell", 10.0)
        agenda.touch_held(11.0)
        assert agenda.due(11.0) == {"churn", "fraud"}

    def test_stays_so_while_it_is_looked_at_again(self, agenda: Agenda) -> None:
        self.hold(agenda, "churn", "fraud")
        agenda.touch(["churn"], 11.0)
        assert all(one.held for _, one in agenda)

    def test_is_no_more_when_it_is_left_for_another_reason(self, agenda: Agenda) -> None:
        self.hold(agenda, "churn")
        wait(agenda, "churn", 12.0)
        agenda.touch(["upsell"], 13.0)
        assert agenda.due(13.0) == {"upsell"}


class TestAFight:
    def test_a_repair_now_and_then_is_none(self, agenda: Agenda) -> None:
        now = 0.0
        for _ in range(50):
            now += 61
            assert not agenda.repaired("churn", [SERVICE], now)
            agenda.touch(["churn"], now)
            assert agenda.due(now) == {"churn"}

    def test_the_fifth_repair_in_a_row_is_one_and_the_model_is_left_alone_for_longer_and_longer(
        self, agenda: Agenda
    ) -> None:
        fight(agenda, "churn", 10.0)
        now, pauses = 10.0, []
        for _ in range(10):
            agenda.touch(["churn"], now)
            pauses.append(dict(agenda)["churn"].due - now)
            now = dict(agenda)["churn"].due
            assert agenda.repaired("churn", [SERVICE], now)
        assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]

    def test_is_over_when_there_was_peace_for_a_while(self, agenda: Agenda) -> None:
        fight(agenda, "churn", 10.0)
        assert not agenda.repaired("churn", [SERVICE], 10.0 + 2 * 2 + 60.1)
        agenda.touch(["churn"], 80.0)
        assert agenda.due(80.0) == {"churn"}

    def test_goes_on_for_whoever_waits_no_longer_than_the_pause(self, agenda: Agenda) -> None:
        fight(agenda, "churn", 10.0)
        assert agenda.repaired("churn", [SERVICE], 10.0 + 2 * 2 + 59.9)

    def test_many_objects_that_somebody_deletes_once_are_none_however_few_at_a_time_they_are_mended(
        self, agenda: Agenda
    ) -> None:
        objects = [ObjectId("v1", "Service", "prod", str(number)) for number in range(30)]
        assert not agenda.repaired("churn", objects[:10], 10.0)
        assert not any(agenda.repaired("churn", [one], 11.0) for one in objects[10:])
        agenda.touch(["churn"], 12.0)
        assert agenda.due(12.0) == {"churn"}

    def test_names_what_is_fought_over(self, agenda: Agenda) -> None:
        fight(agenda, "churn", 10.0)
        assert agenda.repaired("churn", [ROUTE, SERVICE], 10.0) == [SERVICE]

    def test_is_not_remembered_for_ever(self, agenda: Agenda) -> None:
        for number in range(100):
            agenda.repaired(f"model-{number}", [SERVICE], 100.0 * number)
        assert list(agenda._repairs) == ["model-99"]

    def test_of_one_model_costs_no_other(self, agenda: Agenda) -> None:
        fight(agenda, "churn", 10.0)
        agenda.touch(["churn", "fraud"], 10.0)
        assert agenda.due(10.0) == {"fraud"}


# -- whatever it is told ----------------------------------------------------------------------------------------------

models = st.sampled_from(("", "churn", "fraud"))
steps = st.one_of(
    st.tuples(st.just("touch"), st.lists(models, max_size=3)),
    st.tuples(st.just("stir"), st.lists(models, max_size=3)),
    st.tuples(st.just("settle"), models),
    st.tuples(st.just("leave"), models, st.booleans(), st.booleans()),
    st.tuples(st.just("repaired"), models),
    st.tuples(st.just("touch_held")),
)
histories = st.lists(st.tuples(st.floats(0, 1000), steps), max_size=40)


def play(history: list[tuple[float, tuple[Any, ...]]], chance: float) -> tuple[Agenda, set[str], float]:
    """An agenda after all that, which models are open, and when that is."""
    agenda, open_, now = Agenda(lambda: chance), set[str](), 0.0
    for seconds, (what, *more) in history:
        now += seconds
        match what, more:
            case "touch", [touched]:
                agenda.touch(touched, now)
                open_ |= set(touched)
            case "stir", [stirred]:
                agenda.stir(stirred, now)
            case "settle", [model]:
                agenda.settle(model)
                open_.discard(model)
            case "leave", [model, waits, held]:
                agenda.leave(model, "why", now, waits=waits, held=held)
                open_.add(model)
            case "repaired", [model]:
                agenda.repaired(model, [SERVICE], now)
            case _:
                agenda.touch_held(now)
    return agenda, open_, now


@given(histories, st.floats(0, 1))
def test_exactly_what_is_not_settled_is_on_it(history: list[Any], chance: float) -> None:
    agenda, open_, _ = play(history, chance)
    assert {model for model, _ in agenda} == open_
    assert len(agenda) == len(open_)


@given(histories, st.floats(0, 1))
def test_whatever_is_open_is_looked_at_within_minutes(history: list[Any], chance: float) -> None:
    agenda, open_, now = play(history, chance)
    assert agenda.due(now + LONGEST_WITH_JITTER) == open_
    assert all(one.since <= now for _, one in agenda)


@given(histories, st.floats(0, 1), st.floats(0, 1000))
def test_something_is_due_from_the_moment_on_that_was_said(history: list[Any], chance: float, later: float) -> None:
    agenda, _, now = play(history, chance)
    due = agenda.next_due()
    assert bool(agenda.due(now + later)) == (due is not None and due <= now + later)


@given(histories, st.floats(0, 1), st.floats(0, 1000))
def test_a_part_of_what_a_limit_holds_is_never_looked_at_alone(history: list[Any], chance: float, later: float) -> None:
    agenda, _, now = play(history, chance)
    held = {model for model, one in agenda if one.held}
    due = agenda.due(now + later)
    assert held <= due or not due
