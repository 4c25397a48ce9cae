"""An object that fails for ever is tried less and less often, and nobody waits for it (T21)."""

from __future__ import annotations

from itertools import pairwise

from reconciler.daemon.agenda import Agenda
from renderers.manifest import ObjectId


def moments(agenda: Agenda, model: str, tries: int) -> list[float]:
    """When it is looked at, when each look fails at once."""
    seen = [0.0]
    for _ in range(tries):
        agenda.leave(model, "its Deployment is refused", seen[-1], waits=False)
        due = agenda.next_due()
        assert due is not None
        seen.append(due)
    return seen


def test_what_keeps_failing_is_tried_after_twice_the_time_and_at_last_every_five_minutes() -> None:
    pauses = [later - earlier for earlier, later in pairwise(moments(Agenda(lambda: 0.5), "poison", 14))]
    assert pauses[:8] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert set(pauses[9:]) == {300}


def test_many_that_fail_together_are_not_tried_together() -> None:
    slow, quick = moments(Agenda(lambda: 1.0), "poison", 5), moments(Agenda(lambda: 0.0), "poison", 5)
    assert slow[1:] == [3 * moment for moment in quick[1:]]


def test_a_thousand_failures_of_one_model_make_no_other_wait() -> None:
    agenda = Agenda(lambda: 0.5)
    now = moments(agenda, "poison", 1000)[-2]
    agenda.touch(["churn"], now)
    assert agenda.due(now) == {"churn"}
    agenda.settle("churn")
    assert agenda.due(now) == frozenset()


def test_what_has_failed_is_tried_at_once_when_something_else_is_wanted() -> None:
    agenda = Agenda(lambda: 0.5)
    now = moments(agenda, "poison", 10)[-2]
    agenda.touch(["poison"], now)
    assert agenda.due(now) == {"poison"}
    agenda.leave("poison", "and again", now, waits=False)
    assert agenda.next_due() == now + 1, "it counts from the beginning"


def test_two_who_change_one_model_by_turns_come_to_rest() -> None:
    agenda = Agenda(lambda: 0.5)
    service = ObjectId("v1", "Service", "prod", "churn")
    fought = [bool(agenda.repaired("churn", [service], float(second))) for second in range(20)]
    assert fought[:4] == [False] * 4
    assert all(fought[4:])
    agenda.touch(["churn", "other"], 20.0)
    assert agenda.due(20.0) == {"other"}
    assert agenda.due(20.0 + 300) == {"churn", "other"}
