"""What somebody changed past Git, and what a plan of a part of an environment must know of the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler import inventory, plan
from reconciler.inventory import Inventory
from reconciler.plan import (
    Beside,
    Change,
    Conflicted,
    Immutable,
    Observed,
    Op,
    Predicted,
    Prediction,
    Refusal,
    Unverifiable,
)
from renderers.manifest import Body, Manifest, ObjectId
from tests.unit.test_plan import live, observed, only, planned, wanted


def wrote(manager: str, time: str, operation: str = "Update", **more: str) -> dict[str, str]:
    """An entry of managedFields."""
    return {"manager": manager, "operation": operation, "time": time, **more}


def predicted(manifest: Manifest, *entries: dict[str, str], **spec: Any) -> Predicted:
    """What the server would store, and who has written to it until now."""
    body = live(manifest, **spec)
    return Predicted(body | {"metadata": body["metadata"] | {"managedFields": list(entries)}})


def of_one(manifest: Manifest, before: Body | None, prediction: Prediction | None = None, **more: Any) -> Change:
    """What is planned for one object."""
    seen = observed(*([before] if before is not None else []))
    predictions = {manifest.id: prediction} if prediction is not None else {}
    changes, _ = planned([manifest], replace(seen, predictions=predictions, **more))
    return only(changes)


class TestDrift:
    def test_is_a_difference_from_what_was_applied_and_is_wanted_still(self) -> None:
        manifest = wanted(replicas=2)
        change = of_one(manifest, live(manifest, replicas=3), predicted(manifest))
        assert (change.op, change.drift) == (Op.CHANGE, True)

    def test_is_not_what_the_specs_newly_ask_for(self) -> None:
        manifest = wanted(content="2", replicas=2)
        change = of_one(manifest, live(manifest, content="1", replicas=1), predicted(manifest))
        assert (change.op, change.drift, change.by) == (Op.CHANGE, False, "")

    def test_is_not_what_is_as_it_should_be(self) -> None:
        manifest = wanted()
        assert not of_one(manifest, live(manifest)).drift
        assert not of_one(manifest, live(manifest), predicted(manifest)).drift

    def test_is_an_object_that_was_seen_to_vanish_and_not_one_that_was_never_there(self) -> None:
        manifest = wanted()
        gone = of_one(manifest, None, vanished=frozenset({manifest.id}))
        assert (gone.op, gone.drift) == (Op.CREATE, True)
        assert not of_one(manifest, None).drift

    def test_is_another_object_in_the_place_of_one_that_was_seen_to_vanish(self) -> None:
        manifest = wanted(replicas=2)
        other = live(manifest, uid="another", content="", replicas=1)
        change = of_one(manifest, other, predicted(manifest), vanished=frozenset({manifest.id}))
        assert (change.op, change.drift, change.uid) == (Op.CHANGE, True, "another")

    @pytest.mark.parametrize(
        ("prediction", "op"),
        [
            (Conflicted((("vpa", ".spec.replicas"),)), Op.CONFLICT),
            (Immutable("spec.selector: field is immutable", proven=True), Op.REPLACE),
            (Unverifiable("no dry run"), Op.UNVERIFIED),
        ],
    )
    def test_is_told_whatever_can_be_done_about_it(self, prediction: Prediction, op: Op) -> None:
        manifest = wanted(replicas=2)
        change = of_one(manifest, live(manifest, replicas=3), prediction)
        assert (change.op, change.drift) == (op, True)

    def test_is_not_what_the_server_refuses(self) -> None:
        """That one has not changed: it is the manifest that the server would not take any more."""
        manifest = wanted()
        assert not of_one(manifest, live(manifest), Refusal("spec.x: Invalid value")).drift


class TestWhoDidIt:
    def test_is_whose_field_is_taken_back(self) -> None:
        manifest = wanted(replicas=2)
        taken = (("kubectl-edit", ".spec.replicas"), ("k9s", ".spec.paused"), ("k9s", ".spec.replicas"))
        change = of_one(manifest, live(manifest, replicas=3), Predicted(live(manifest), taken))
        assert change.by == "k9s, kubectl-edit"

    def test_is_whose_field_is_left_alone(self) -> None:
        manifest = wanted(replicas=2)
        change = of_one(manifest, live(manifest, replicas=3), Conflicted((("vpa", ".spec.replicas"),)))
        assert change.by == "vpa"

    def test_is_who_wrote_last_where_a_field_was_taken_away(self) -> None:
        """Who takes away owns nothing."""
        manifest = wanted(replicas=2)
        entries = [wrote("someone", "2026-01-01T00:00:00Z"), wrote("kubectl-edit", "2026-01-02T00:00:00Z")]
        assert of_one(manifest, live(manifest, replicas=3), predicted(manifest, *entries)).by == "kubectl-edit"

    def test_is_nobody_who_only_reports_a_status_or_applies(self) -> None:
        manifest = wanted(replicas=2)
        entries = [
            wrote("kubectl-edit", "2026-01-01T00:00:00Z"),
            wrote("kube-controller-manager", "2026-01-03T00:00:00Z", subresource="status"),
            wrote("trueup", "2026-01-04T00:00:00Z", "Apply"),
        ]
        assert of_one(manifest, live(manifest, replicas=3), predicted(manifest, *entries)).by == "kubectl-edit"

    def test_is_not_known_where_the_server_does_not_say(self) -> None:
        manifest = wanted(replicas=2)
        assert of_one(manifest, live(manifest, replicas=3), predicted(manifest)).by == ""
        assert of_one(manifest, None, vanished=frozenset({manifest.id})).by == ""


class TestAnEnvironmentThatOnlyReportsDrift:
    def test_leaves_it_and_says_so(self) -> None:
        manifest = wanted(replicas=2)
        seen = observed(live(manifest, replicas=3), predictions={manifest.id: predicted(manifest)})
        change = only(planned([manifest], seen, reports_drift=True)[0])
        assert (change.drift, change.is_action, change.held) == (True, False, plan.REPORTED)
        assert [tuple(field) for field in change.fields] == [("spec.replicas", 3, 2)]

    def test_does_not_bring_back_what_somebody_has_deleted(self) -> None:
        manifest = wanted()
        seen = replace(observed(), vanished=frozenset({manifest.id}))
        assert not only(planned([manifest], seen, reports_drift=True)[0]).is_action

    def test_gets_what_its_specs_newly_ask_for_and_with_that_the_drift_of_the_same_object_goes(self) -> None:
        manifest = wanted(content="2", replicas=2)
        before = live(manifest, content="1", replicas=7)
        seen = observed(before, predictions={manifest.id: predicted(manifest)})
        assert only(planned([manifest], seen, reports_drift=True)[0]).is_action

    def test_gets_what_is_new_and_loses_what_nobody_wants(self) -> None:
        kept = [wanted(name=f"kept-{n}") for n in range(9)]
        new = wanted(name="new")
        changes, _ = planned([*kept, new], observed(*map(live, [*kept, wanted(name="gone")])), reports_drift=True)
        assert {(c.op, c.id.name) for c in changes if c.is_action} == {(Op.CREATE, "new"), (Op.DELETE, "gone")}


class TestWhenNothingMayBeDeletedYet:
    WHY = "this replica leads for less than 15 s, so nothing is deleted yet"

    def test_deletions_are_held_with_the_reason_and_everything_else_goes_on(self) -> None:
        kept = [wanted(name=f"kept-{n}") for n in range(9)]
        seen = observed(*map(live, [*kept, wanted(name="gone")]))
        changes, guards = planned([*kept, wanted(name="new")], seen, keeps_all=self.WHY)
        assert [(c.op, c.held) for c in changes if c.op is Op.DELETE] == [(Op.DELETE, self.WHY)]
        assert [c.id.name for c in changes if c.is_action] == ["new"]
        assert guards == []

    def test_no_limit_is_asked_about_that_could_only_be_lifted_for_nothing(self) -> None:
        """An approval of it would be used up by a pass that deletes nothing."""
        everything = [wanted(name=f"d-{n}") for n in range(20)]
        assert planned(everything[:2], observed(*map(live, everything)), keeps_all=self.WHY)[1] == []


class TestARewoundBranch:
    WORDS = "the branch was rewound from 45a96240e08b to deb5c5bfd3c0"

    def test_lets_nothing_be_lost_before_somebody_agrees(self) -> None:
        kept = [wanted(name=f"kept-{n}") for n in range(9)]
        seen = observed(*map(live, [*kept, wanted(name="gone")]))
        changes, (guard,) = planned(kept, seen, rewound=self.WORDS)
        assert guard.rule == "prune/rewound"
        assert guard.message == f"{self.WORDS}, and 1 objects of production would be deleted by that"
        assert not any(change.is_action for change in changes)
        lifted = plan.approved(plan.assemble(changes, (), (guard,)), {guard.approval})
        assert [(c.op, c.id.name) for c in lifted.actions] == [(Op.DELETE, "gone")]

    def test_is_no_reason_to_keep_what_has_a_successor(self) -> None:
        old, new = wanted(name="churn-1", lineage="churn"), wanted(name="churn-2", lineage="churn")
        changes, guards = planned([new], observed(live(old), live(new)), rewound=self.WORDS)
        assert guards == []
        assert [(c.op, c.id.name) for c in changes if c.is_action] == [(Op.DELETE, "churn-1")]

    def test_is_no_reason_to_hold_anything_where_nothing_would_be_lost(self) -> None:
        changes, guards = planned([wanted()], rewound=self.WORDS)
        assert guards == []
        assert only(changes).is_action


class TestAPartOfAnEnvironment:
    """A pass looks at the models that are not settled; limits are about the environment."""

    def beside(self, members: int) -> Observed:
        """Ten objects of a model of which nobody wants any more, and so many objects of others."""
        seen = observed(*(live(wanted(name=f"d-{n}")) for n in range(10)))
        return replace(seen, beside=Beside(members=members))

    def test_is_measured_by_the_whole(self) -> None:
        assert planned([], self.beside(40))[1] == []
        (guard,) = planned([], self.beside(39))[1]
        assert (guard.rule, "10 of 49 objects" in guard.message) == ("prune/budget", True)

    def test_is_all_only_where_there_is_nothing_beside_it(self) -> None:
        assert [guard.rule for guard in planned([], self.beside(0))[1]] == ["prune/all"]
        assert [guard.rule for guard in planned([], self.beside(1))[1]] == ["prune/budget"]

    def test_makes_the_same_plan_as_the_whole_would_for_what_it_is_about(self) -> None:
        others = [wanted(name=f"other-{n}") for n in range(30)]
        part = [wanted(name="one"), wanted(name="two")]
        gone = live(wanted(name="gone"))
        whole, _ = planned([*part, *others], observed(gone, live(part[0]), *map(live, others)))
        alone, _ = planned(part, replace(observed(gone, live(part[0])), beside=Beside(members=len(others))))
        is_about = {change.id for change in alone}
        assert [change for change in whole if change.id in is_about] == alone
        # So what is approved of the one is approved of the other.
        assert plan.plan_id(whole) == plan.plan_id(alone)

    def test_remembers_what_has_run_elsewhere(self) -> None:
        job = wanted("Job", "churn-build-1")
        stored = Inventory("production", frozenset({inventory.place_of(job.id)}), frozenset({job.id}))
        change = only(planned([job], Observed("production", inventory=stored))[0])
        assert (change.op, change.drift) == (Op.UNCHANGED, False)

    def test_a_job_that_somebody_took_away_after_it_has_run_is_no_drift(self) -> None:
        job = wanted("Job", "churn-build-1")
        stored = Inventory("production", frozenset(), frozenset({job.id}))
        seen = Observed("production", inventory=stored, vanished=frozenset({ObjectId(*job.id)}))
        change = only(planned([job], seen)[0])
        assert (change.op, change.drift) == (Op.UNCHANGED, False)
