"""What was changed past Git: what a keeper has heard and done, and what is told of it. No clock runs."""

from __future__ import annotations

import pytest

from reconciler import plan
from reconciler.daemon.drifts import MENDED, REPORTED, Drifted, Drifts
from reconciler.diff import FieldChange
from reconciler.plan import Change, Op, Plan
from reconciler.report import Done, Outcome
from renderers.manifest import ObjectId

SERVICE, ROUTE = ObjectId("v1", "Service", "prod", "churn"), ObjectId("v1", "HTTPRoute", "prod", "churn")


def edit(*fields: str, by: str = "kubectl-edit", held: str = "") -> Change:
    changed = tuple(FieldChange(path, 1, 2) for path in fields)
    return Change(Op.CHANGE, SERVICE, "prod", fields=changed, by=by, held=held, drift=True)


def reported(*fields: str, by: str = "kubectl-edit") -> Change:
    return edit(*fields, by=by, held=plan.REPORTED)


def noted(drifts: Drifts, change: Change, now: float, outcome: Outcome | None = None, why: str = "") -> list[Drifted]:
    return drifts.noted(Plan((change,)), [Done(change, outcome, why)] if outcome is not None else [], now)


@pytest.fixture
def drifts() -> Drifts:
    return Drifts()


class TestWhatIsReported:
    def test_is_told_once_with_the_moment_at_which_it_was_heard_of(self, drifts: Drifts) -> None:
        drifts.changed(SERVICE, 1.0)
        drifts.changed(SERVICE, 2.0)
        assert [(one.seen, one.outcome) for one in noted(drifts, reported("spec.a"), 3.0)] == [(1.0, REPORTED)]
        assert noted(drifts, reported("spec.a"), 4.0) == []
        assert drifts.reported == [SERVICE]

    def test_was_seen_when_it_was_found_where_nobody_has_heard_of_it(self, drifts: Drifts) -> None:
        noted(drifts, reported("spec.a"), 3.0)
        noted(drifts, reported("spec.a"), 4.0)
        assert drifts.open[SERVICE].seen == 3.0

    @pytest.mark.parametrize("more", [reported("spec.a", "spec.b"), reported("spec.a", by="k9s")])
    def test_is_told_again_when_somebody_does_something_else(self, drifts: Drifts, more: Change) -> None:
        noted(drifts, reported("spec.a"), 3.0)
        assert [one.change for one in noted(drifts, more, 4.0)] == [more]

    def test_is_over_when_somebody_takes_it_back_although_the_model_has_more_of_it(self, drifts: Drifts) -> None:
        noted(drifts, reported("spec.a"), 3.0)
        assert noted(drifts, Change(Op.UNCHANGED, SERVICE, "prod"), 4.0) == []
        assert drifts == Drifts()

    def test_is_over_when_the_specs_want_something_else_and_get_it(self, drifts: Drifts) -> None:
        noted(drifts, reported("spec.a"), 3.0)
        noted(drifts, Change(Op.CHANGE, SERVICE, "prod"), 4.0, Outcome.FAILED)
        assert drifts.reported == [SERVICE]
        noted(drifts, Change(Op.CHANGE, SERVICE, "prod"), 5.0, Outcome.APPLIED)
        assert drifts == Drifts()


class TestWhatIsMended:
    def test_is_told_each_time_and_is_so_no_more(self, drifts: Drifts) -> None:
        for now in (1.0, 2.0):
            assert [one.outcome for one in noted(drifts, edit("spec.a"), now, Outcome.APPLIED)] == [MENDED]
            assert drifts.open == {}
        assert [one.seen for one in drifts.mended] == [1.0, 2.0]

    def test_is_told_once_while_it_cannot_be_with_the_reason_of_the_last_try(self, drifts: Drifts) -> None:
        assert [one.outcome for one in noted(drifts, edit("spec.a"), 1.0, Outcome.FAILED, "away")] == ["away"]
        assert noted(drifts, edit("spec.a"), 2.0, Outcome.FAILED, "refused") == []
        assert drifts.open[SERVICE].outcome == "refused"
        assert drifts.reported == []

    def test_is_remembered_for_those_who_look_and_not_for_ever(self, drifts: Drifts) -> None:
        for now in range(100):
            noted(drifts, edit("spec.a"), now, Outcome.APPLIED)
        assert [one.seen for one in drifts.mended] == list(range(80, 100))


class TestWhatHasVanished:
    def test_and_is_there_again_by_a_write_of_our_own_is_told_when_all_is_settled(self, drifts: Drifts) -> None:
        drifts.deleted(SERVICE, 1.0)
        noted(drifts, Change(Op.UNCHANGED, SERVICE, "prod"), 2.0)
        (told,) = drifts.settled([SERVICE, ROUTE], "prod", {SERVICE}.__contains__, 3.0)
        assert (told.change.op, told.change.id, told.seen, told.outcome) == (Op.CREATE, SERVICE, 1.0, MENDED)
        assert drifts.settled([SERVICE], "prod", {SERVICE}.__contains__, 4.0) == []

    def test_and_is_there_again_by_somebody_else_is_nothing_to_tell(self, drifts: Drifts) -> None:
        drifts.deleted(SERVICE, 1.0)
        drifts.is_back(SERVICE)
        assert drifts.settled([SERVICE], "prod", {SERVICE}.__contains__, 3.0) == []
        assert drifts == Drifts()


def test_what_is_neither_there_nor_wanted_is_forgotten_and_the_rest_is_not(drifts: Drifts) -> None:
    for target in (SERVICE, ROUTE):
        drifts.deleted(target, 1.0)
        drifts.changed(target, 1.0)
    noted(drifts, reported("spec.a"), 2.0)
    drifts.forget({SERVICE}.__contains__)
    assert (drifts.vanished, drifts.reported, drifts._seen_at) == ({SERVICE}, [SERVICE], {SERVICE: 1.0})
    drifts.forget({ROUTE}.__contains__)
    assert drifts == Drifts()
