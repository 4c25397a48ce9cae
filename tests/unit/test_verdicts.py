"""What a pass means for each of its models: when it is looked at again, and why."""

from __future__ import annotations

import pytest

from reconciler import inventory, plan
from reconciler.daemon import verdicts
from reconciler.daemon.verdicts import Next, Verdict
from reconciler.plan import Change, Guard, Op, Plan
from reconciler.report import Done, Outcome
from renderers.manifest import ObjectId

SERVICE, ROUTE = ObjectId("v1", "Service", "prod", "churn"), ObjectId("v1", "HTTPRoute", "prod", "churn")
LIMIT = Guard("prod", "prune/budget", "too much would be deleted", "1a2b")


def change(op: Op = Op.CHANGE, target: ObjectId = SERVICE, *, held: str = "", reason: str = "") -> Change:
    return Change(op, target, "prod", held=held, reason=reason)


def judged(*changes: Change, done: tuple[Done, ...] = (), waits: str = "", whole: bool = True) -> Verdict:
    """The verdict on the only model of a pass."""
    planned = Plan(changes, guards=(LIMIT,))
    found = verdicts.of({"churn": waits}, planned, done, "prod", lambda _: "churn", is_whole=whole)
    assert found.keys() == {"churn"}
    return found["churn"]


def applied(one: Change) -> Done:
    return Done(one, Outcome.APPLIED)


STUCK = Done(change(target=inventory.object_id_of("prod")), Outcome.FAILED, "the inventory could not be narrowed")


def test_nothing_to_do_is_settled() -> None:
    assert judged(change(Op.UNCHANGED)) == Verdict(Next.SETTLED)


def test_what_was_written_is_looked_at_as_the_server_has_it() -> None:
    assert judged(change(), done=(applied(change()),)) == Verdict(Next.WRITTEN)


def test_drift_that_is_only_reported_is_kept_and_left_alone() -> None:
    assert judged(change(held=plan.REPORTED)) == Verdict(Next.KEPT)


def test_what_was_not_begun_is_next() -> None:
    written, left = change(), change(target=ROUTE)
    assert judged(written, left, done=(applied(written),), whole=False) == Verdict(Next.AT_ONCE)


@pytest.mark.parametrize("done", [(), (applied(change()),)], ids=["nothing to do", "all done"])
def test_what_was_cut_off_before_the_inventory_says_so_is_next_even_if_it_looks_settled(done: tuple[Done, ...]) -> None:
    assert judged(*(one.change for one in done), done=done, whole=False) == Verdict(Next.AT_ONCE, forced=True)


def test_an_inventory_that_cannot_be_written_is_tried_again_even_if_all_looks_settled() -> None:
    assert judged(done=(STUCK,)) == Verdict(Next.LATER, STUCK.message, forced=True)


def test_what_cannot_be_rendered_waits_for_what_it_lacks() -> None:
    assert judged(change(Op.UNCHANGED), waits="its commit is not known") == Verdict(
        Next.LATER, "its commit is not known", waits=True
    )


def test_a_failure_counts_more_than_what_waits() -> None:
    waits, fails = change(), change(target=ROUTE)
    done = Done(waits, Outcome.WAITING, "pods"), Done(fails, Outcome.FAILED, "away")
    assert judged(waits, fails, done=done) == Verdict(Next.LATER, f"{ROUTE}: away")
    assert judged(waits, done=done[:1]) == Verdict(Next.LATER, f"{SERVICE}: pods", waits=True)


@pytest.mark.parametrize("op", [Op.CONFLICT, Op.REFUSED])
def test_what_the_server_refuses_has_failed(op: Op) -> None:
    assert judged(change(op, reason="it belongs to argo")) == Verdict(Next.LATER, f"{SERVICE}: it belongs to argo")


def test_what_a_limit_holds_waits_for_a_person() -> None:
    held = change(Op.DELETE, held=LIMIT.message)
    assert judged(held) == Verdict(Next.LATER, f"{SERVICE}: {LIMIT.message}", waits=True, held=True)


def test_what_is_of_a_model_that_was_not_looked_at_is_nobodys() -> None:
    planned = Plan((change(),))
    found = verdicts.of({"churn": ""}, planned, (), "prod", lambda _: "fraud", is_whole=True)
    assert found == {"churn": Verdict(Next.SETTLED)}
