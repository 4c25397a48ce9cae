"""desired x observed -> plan. Objects are written as small as the rules allow."""

from dataclasses import replace

import pytest

from reconciler import inventory, plan
from reconciler.inventory import CONTENT_HASH, Inventory
from reconciler.plan import (
    Conflicted,
    Immutable,
    Observed,
    Op,
    Predicted,
    Refusal,
    Unverifiable,
    Wanted,
)
from renderers.manifest import Manifest, ObjectId, Origin, object_id
from renderers.names import ANSWERS, BUILD_ID, LINEAGE, NAME, PROTECTED, VARIATION

ORIGIN = Origin("specs/churn.yaml", 4, "variation", "churn/default")
VERSIONS = {"Deployment": "apps/v1", "HTTPRoute": "gateway.networking.k8s.io/v1"}


def wanted(kind="Deployment", name="churn", *, content="1", lineage="", **spec) -> Manifest:
    annotations = {CONTENT_HASH: content} | ({LINEAGE: lineage} if lineage else {})
    body = {
        "apiVersion": VERSIONS.get(kind, "v1"),
        "kind": kind,
        "metadata": {"name": name, "namespace": "prod", "labels": {}, "annotations": annotations},
        "spec": spec,
    }
    return Manifest(object_id(body), body, ORIGIN, "production")


def live(manifest: Manifest, *, uid=None, content=None, annotations=None, owners=(), deleting=False, **spec):
    """The object as a cluster has it: what was applied, and what the server added."""
    body = manifest.body
    metadata = body["metadata"] | {
        "uid": uid or f"uid-{manifest.id.kind}-{manifest.id.name}",
        "resourceVersion": "7",
        "annotations": body["metadata"]["annotations"]
        | ({CONTENT_HASH: content} if content else {})
        | (annotations or {}),
    }
    if owners:
        metadata["ownerReferences"] = list(owners)
    if deleting:
        metadata |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["example.com/hold"]}
    return body | {"metadata": metadata, "spec": body["spec"] | spec}


def observed(*bodies, predictions=None, foreign=None, rebuilt=False) -> Observed:
    members = {object_id(body): body for body in bodies}
    known = Inventory("production", frozenset(map(inventory.place_of, members)))
    return Observed("production", members, foreign or {}, predictions or {}, known, rebuilt)


def planned(manifests=(), seen=None, **state):
    changes, guards = plan.environment(Wanted("production", tuple(manifests), **state), seen or observed())
    return changes, guards


def only(changes):
    (change,) = changes
    return change


class TestOneObject:
    def test_what_does_not_exist_is_created(self):
        assert only(planned([wanted()])[0]).op is Op.CREATE

    def test_what_is_as_wanted_is_unchanged(self):
        manifest = wanted(replicas=2)
        assert only(planned([manifest], observed(live(manifest)))[0]).op is Op.UNCHANGED

    def test_a_change_shows_what_the_server_would_store(self):
        manifest = wanted(replicas=3)
        before = live(manifest, content="0", replicas=2)
        after = Predicted(live(manifest, replicas=3))
        change = only(planned([manifest], observed(before, predictions={manifest.id: after}))[0])
        assert change.op is Op.CHANGE
        assert [tuple(field) for field in change.fields] == [("spec.replicas", 2, 3)]

    def test_a_prediction_without_a_difference_is_unchanged(self):
        manifest = wanted(cpu="1000m")
        same = live(manifest, cpu="1")
        change = only(planned([manifest], observed(same, predictions={manifest.id: Predicted(same)}))[0])
        assert change.op is Op.UNCHANGED

    def test_a_new_content_hash_alone_is_applied_once_so_that_the_next_look_is_clean(self):
        manifest = wanted(content="2")
        before = live(manifest, content="1")
        change = only(planned([manifest], observed(before, predictions={manifest.id: Predicted(live(manifest))}))[0])
        assert (change.op, change.fields) == (Op.CHANGE, ())

    def test_a_persons_edit_is_taken_back_and_the_person_is_named(self):
        manifest = wanted(replicas=2)
        edited = live(manifest, replicas=9)
        prediction = Predicted(live(manifest), (("kubectl-edit", ".spec.replicas"),))
        change = only(planned([manifest], observed(edited, predictions={manifest.id: prediction}))[0])
        assert change.op is Op.CHANGE
        assert "takes .spec.replicas over from kubectl-edit" in change.reason

    def test_another_controllers_field_is_a_conflict_that_names_it(self):
        manifest = wanted()
        prediction = Conflicted((("vpa", ".spec.template"),))
        change = only(planned([manifest], observed(live(manifest), predictions={manifest.id: prediction}))[0])
        assert (change.op, change.reason) == (Op.CONFLICT, ".spec.template belongs to vpa")
        assert not change.is_action

    def test_an_object_that_somebody_else_made_is_a_conflict_that_says_how_to_hand_it_over(self):
        manifest = wanted()
        change = only(planned([manifest], observed(foreign={manifest.id: ""}))[0])
        assert change.op is Op.CONFLICT
        assert f"{inventory.PART_OF}={inventory.set_id('production')}" in change.reason

    def test_an_object_of_another_set_is_a_conflict_that_names_the_set(self):
        manifest = wanted()
        change = only(planned([manifest], observed(foreign={manifest.id: "applyset-x-v1"}))[0])
        assert (change.op, "applyset-x-v1" in change.reason) == (Op.CONFLICT, True)

    def test_an_immutable_field_becomes_a_replacement_if_the_new_object_is_proven_valid(self):
        manifest = wanted(selector="new")
        prediction = Immutable("spec.selector: field is immutable", proven=True)
        change = only(
            planned([manifest], observed(live(manifest, selector="old"), predictions={manifest.id: prediction}))[0]
        )
        assert change.op is Op.REPLACE
        assert [tuple(field) for field in change.fields] == [("spec.selector", "old", "new")]
        assert change.uid == "uid-Deployment-churn"

    @pytest.mark.parametrize("kind", ["Namespace", "Secret", "HTTPRoute"])
    def test_kinds_with_something_to_lose_are_never_replaced(self, kind):
        manifest = wanted(kind)
        prediction = Immutable("field is immutable", proven=True)
        change = only(planned([manifest], observed(live(manifest), predictions={manifest.id: prediction}))[0])
        assert change.op is Op.REFUSED

    def test_an_unproven_replacement_is_refused_rather_than_deleted_first(self):
        manifest = wanted()
        prediction = Immutable("field is immutable", proven=False)
        change = only(planned([manifest], observed(live(manifest), predictions={manifest.id: prediction}))[0])
        assert change.op is Op.REFUSED

    def test_what_the_server_cannot_be_asked_about_is_unverified_and_applied_all_the_same(self):
        manifest = wanted()
        change = only(planned([manifest], observed(predictions={manifest.id: Unverifiable("no such kind")}))[0])
        assert (change.op, change.is_action, change.reason) == (Op.UNVERIFIED, True, "no such kind")

    def test_what_the_server_would_refuse_is_said_in_its_words(self):
        manifest = wanted()
        change = only(planned([manifest], observed(predictions={manifest.id: Refusal("spec.x: Invalid value")}))[0])
        assert (change.op, change.is_action, change.reason) == (Op.REFUSED, False, "spec.x: Invalid value")


class TestCleanOrUnsure:
    def test_defaults_of_the_server_do_not_make_an_object_unsure(self):
        manifest = wanted(template={"containers": [{"name": "model"}]})
        defaulted = {"containers": [{"name": "model", "imagePullPolicy": "Always"}], "restartPolicy": "Always"}
        assert plan.is_clean(manifest, live(manifest, template=defaulted, paused=False))

    @pytest.mark.parametrize(
        "change",
        [
            {"replicas": 3},
            {"flag": 1},
            {"list": ["a"]},
            {"list": ["a", "b", "c"]},
            {"selector": {"matchLabels": {"a": "1", "more": "2"}}},
        ],
        ids=["another value", "1 for true", "an item less", "an item more", "a key more in an atomic map"],
    )
    def test_drift_makes_an_object_unsure(self, change):
        manifest = wanted(replicas=2, flag=True, list=["a", "b"], selector={"matchLabels": {"a": "1"}})
        assert plan.is_clean(manifest, live(manifest))
        assert not plan.is_clean(manifest, live(manifest, **change))

    def test_a_new_wish_makes_an_object_unsure_even_where_it_only_takes_a_field_away(self):
        before = live(wanted(content="1", replicas=2, paused=True))
        assert not plan.is_clean(wanted(content="2", replicas=2), before)

    def test_an_object_that_is_being_deleted_is_unsure(self):
        manifest = wanted()
        assert not plan.is_clean(manifest, live(manifest, deleting=True))


class TestDeletion:
    def test_a_member_that_nobody_wants_is_deleted_with_its_uid_as_precondition(self):
        kept, unwanted = wanted(name="kept"), wanted(name="gone")
        changes, guards = planned([kept], observed(live(kept), live(unwanted)))
        change = next(change for change in changes if change.op is Op.DELETE)
        assert (change.id.name, change.uid, change.is_action, guards) == ("gone", "uid-Deployment-gone", True, [])

    def test_one_object_under_two_api_versions_is_one_object(self):
        manifest = wanted("HTTPRoute", "churn")
        old = live(manifest) | {"apiVersion": "gateway.networking.k8s.io/v1beta1"}
        changes, _ = planned([manifest], observed(live(manifest), old))
        assert [change.op for change in changes] == [Op.UNCHANGED]

    @pytest.mark.parametrize(
        ("kind", "more", "words"),
        [
            ("Namespace", {}, "never deleted by a plan"),
            ("Secret", {}, "never deleted by a plan"),
            ("Deployment", {"annotations": {"trueup.dev/prevent-deletion": "true"}}, "prevent-deletion"),
            ("Deployment", {"owners": [{"controller": True}]}, "a controller owns it"),
            ("Deployment", {"deleting": True}, "waits for example.com/hold"),
        ],
        ids=["a namespace", "a secret", "protected", "a controller's", "already going"],
    )
    def test_some_members_stay_and_the_plan_says_why(self, kind, more, words):
        kept = [wanted(name=f"kept-{n}") for n in range(5)]
        changes, _ = planned(kept, observed(*map(live, kept), live(wanted(kind, "odd"), **more)))
        change = next(change for change in changes if change.op is Op.DELETE)
        assert words in change.held
        assert not change.is_action

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            ({"annotations": {"trueup.dev/prevent-deletion": "true"}}, "prevent-deletion"),
            ({"deleting": True}, "waits for example.com/hold"),
        ],
        ids=["a person wants it", "it is on its way"],
    )
    def test_what_a_route_leads_to_stays_as_long_as_the_route_does(self, more, words):
        kept = [wanted(name=f"kept-{n}") for n in range(20)]
        gone = [wanted(kind, "churn") for kind in ("Deployment", "Service", "HTTPRoute", "Job")]
        for manifest in (*gone, other := wanted(name="fraud")):
            manifest.body["metadata"]["labels"][NAME] = manifest.id.name
        *served, route, job = gone
        seen = observed(*map(live, [*kept, *served, job, other]), live(route, **more))
        changes, guards = planned(kept, seen)
        held = {change.id: change.held for change in changes if change.op is Op.DELETE and change.held}
        assert held.keys() == {route.id, *(one.id for one in served)}
        assert words in held[route.id]
        for one in served:
            assert held[one.id] == f"{route.id} may still lead to it, and stays: {held[route.id]}"
        assert guards == []

    def test_deletion_comes_last_and_goes_the_other_way_round(self):
        kept = [wanted(name=f"kept-{n}") for n in range(9)]
        gone = [wanted(kind, "gone") for kind in ("Service", "HTTPRoute", "ConfigMap")]
        changes, _ = planned(kept, observed(*map(live, [*kept, *gone])))
        assert [change.id.kind for change in changes[-3:]] == ["HTTPRoute", "Service", "ConfigMap"]
        assert all(change.op is Op.DELETE for change in changes[-3:])


def _environment_of(number, *, keep):
    everything = [wanted(name=f"d-{n:03}") for n in range(number)]
    return everything[:keep], observed(*map(live, everything))


def _told(guard):
    return guard.rule, guard.message, guard.approval


class TestGuards:
    def test_nothing_is_deleted_while_the_specs_have_errors(self):
        kept, seen = _environment_of(10, keep=9)
        changes, guards = planned(kept, seen, complete=False)
        assert [guard.rule for guard in guards] == ["prune/incomplete"]
        assert not any(change.is_action for change in changes)

    def test_existing_routes_stay_as_they_are_while_the_specs_have_errors(self):
        manifest = wanted("HTTPRoute", rules=[{"name": "new"}])
        before = live(manifest, content="0", rules=[{"name": "old"}])
        seen = observed(before, predictions={manifest.id: Predicted(live(manifest))})
        assert only(planned([manifest], seen)[0]).is_action
        assert not only(planned([manifest], seen, complete=False)[0]).is_action

    def test_an_existing_route_that_cannot_be_verified_stays_as_well(self):
        manifest = wanted("HTTPRoute", rules=[{"name": "new"}])
        seen = observed(live(manifest, content="0"), predictions={manifest.id: Unverifiable("no dry run")})
        assert not only(planned([manifest], seen, complete=False)[0]).is_action

    def test_everything_else_goes_on_while_the_specs_have_errors(self):
        assert only(planned([wanted()], complete=False)[0]).is_action

    def test_up_to_a_fifth_of_an_environment_may_go(self):
        kept, seen = _environment_of(100, keep=80)
        assert planned(kept, seen)[1] == []

    def test_more_than_a_fifth_is_blocked_until_it_is_approved(self):
        kept, seen = _environment_of(100, keep=79)
        changes, guards = planned(kept, seen)
        assert [(guard.rule, bool(guard.approval)) for guard in guards] == [("prune/budget", True)]
        assert not any(change.is_action for change in changes)

    def test_five_objects_of_a_small_environment_may_go(self):
        kept, seen = _environment_of(7, keep=2)
        assert planned(kept, seen)[1] == []

    @pytest.mark.parametrize("number", [1, 5, 100])
    def test_all_objects_never_go_without_approval(self, number):
        _, seen = _environment_of(number, keep=0)
        assert [guard.rule for guard in planned([], seen)[1]] == ["prune/all"]

    def test_an_environment_that_no_spec_names_any_more_is_emptied_only_with_approval(self):
        _, seen = _environment_of(3, keep=0)
        guard = only(planned([], seen, in_specs=False)[1])
        assert "no spec names the environment any more" in guard.message

    def test_it_needs_approval_even_where_something_of_it_stays(self):
        seen = observed(
            live(wanted(name="a")), live(wanted(name="b"), annotations={"trueup.dev/prevent-deletion": "true"})
        )
        changes, guards = planned([], seen, in_specs=False)
        assert [guard.rule for guard in guards] == ["prune/all"]
        assert not any(change.is_action for change in changes)

    def test_a_lost_inventory_deletes_nothing_on_the_run_that_rebuilds_it(self):
        kept, seen = _environment_of(10, keep=9)
        changes, guards = planned(kept, replace(seen, rebuilt=True, inventory=None))
        assert [(guard.rule, guard.approval) for guard in guards] == [("prune/rebuilt", "")]
        assert not any(change.is_action for change in changes)

    def test_nothing_is_deleted_while_a_kind_cannot_be_seen(self):
        kept, seen = _environment_of(10, keep=9)
        blind = {inventory.Place("gateway.networking.k8s.io/v1", "HTTPRoute", "prod"): "it is forbidden"}
        changes, guards = planned([*kept, wanted(name="new")], replace(seen, blind=blind))
        message = "the cluster does not show what there is of HTTPRoute, so nothing is deleted"
        assert [_told(guard) for guard in guards] == [("prune/blind", message, "")]
        assert [change.op for change in changes if change.is_action] == [Op.CREATE]
        assert only(change for change in changes if change.op is Op.DELETE).held == message

    def test_what_nobody_can_approve_is_not_lifted_by_an_empty_approval(self):
        kept, seen = _environment_of(10, keep=9)
        changes, guards = planned(kept, seen, complete=False)
        made = plan.assemble(changes, (), guards)
        assert plan.approved(made, {""}).actions == ()

    def test_where_nothing_would_be_deleted_a_kind_that_cannot_be_seen_limits_nothing(self):
        kept, seen = _environment_of(2, keep=2)
        blind = {inventory.Place("v1", "Service", "prod"): "it is forbidden"}
        namespace = live(wanted("Namespace", "prod"))
        seen = replace(seen, blind=blind, members={**seen.members, object_id(namespace): namespace})
        assert planned(kept, seen)[1] == []

    def test_a_suspended_environment_is_neither_changed_nor_emptied(self):
        kept, seen = _environment_of(3, keep=2)
        changes, guards = planned([*kept, wanted(name="new")], seen, suspended=True)
        assert guards == []
        assert not any(change.is_action for change in changes)
        assert {change.held for change in changes if change.op is not Op.UNCHANGED} == {"the environment is suspended"}

    def test_an_approval_lifts_the_limit_that_named_it_and_no_other(self):
        _, seen = _environment_of(3, keep=0)
        blocked = plan.assemble(*_split(planned([], seen)))
        (guard,) = blocked.guards
        lifted = plan.approved(blocked, {guard.approval})
        assert (len(blocked.actions), len(lifted.actions), lifted.guards) == (0, 3, ())
        assert lifted.id == blocked.id
        missed = plan.approved(blocked, {"0123456789ab"})
        assert missed.actions == ()
        assert "what was approved is another plan: 0123456789ab" in only(missed.guards).message

    def test_an_approval_is_for_exactly_these_deletions(self):
        approvals = {only(planned([], _environment_of(number, keep=0)[1])[1]).approval for number in (3, 4)}
        assert len(approvals) == 2

    def test_what_else_a_pass_holds_makes_it_no_other_approval(self):
        kept, seen = _environment_of(100, keep=79)
        alone = only(planned(kept, seen)[1]).approval
        with_more = only(planned([wanted(name="new"), *reversed(kept)], seen)[1]).approval
        assert with_more == alone


class TestProtection:
    """`protected: true` on a variation: its objects, and the route of its model, wait for a person."""

    def _protected(self, kind="Deployment", **spec):
        manifest = wanted(kind, **spec)
        manifest.body["metadata"]["annotations"][PROTECTED] = "true"
        return manifest

    def test_a_protected_variation_is_not_removed_without_approval(self):
        kept = [wanted(name=f"kept-{n}") for n in range(9)]
        changes, guards = planned(kept, observed(*map(live, [*kept, self._protected()])))
        assert [guard.rule for guard in guards] == ["variation/protected"]
        assert not changes[-1].is_action
        assert plan.approved(plan.assemble(changes, (), guards), {guards[0].approval}).changes[-1].is_action

    def test_its_traffic_is_not_moved_without_approval(self):
        before, after = (
            self._protected("HTTPRoute", rules=[{"name": "old"}]),
            self._protected("HTTPRoute", content="2", rules=[{"name": "new"}]),
        )
        seen = observed(live(before), predictions={after.id: Predicted(live(after))})
        changes, guards = planned([after], seen)
        assert [guard.rule for guard in guards] == ["variation/protected"]
        assert not only(changes).is_action

    def test_everything_else_about_it_may_change(self):
        before, after = self._protected(replicas=2), self._protected(content="2", replicas=3)
        seen = observed(live(before), predictions={after.id: Predicted(live(after))})
        changes, guards = planned([after], seen)
        assert guards == []
        assert only(changes).is_action


class TestLastVariation:
    """Whoever removes the last variation that answers a model's requests means it, or has made a mistake."""

    def _of_model(self, kind="Deployment", *, model="churn", answers=False, **spec):
        manifest = wanted(kind, **spec)
        manifest.body["metadata"]["labels"][NAME] = model
        if answers:
            manifest.body["metadata"]["annotations"][ANSWERS] = "true"
        return manifest

    def _seen(self, *more, **fields):
        kept = [wanted(name=f"kept-{n}") for n in range(20)]
        return kept, observed(*map(live, [*kept, *more]), **fields)

    def test_a_model_is_not_left_without_an_answer_unless_a_person_agrees(self):
        route, serves = self._of_model("HTTPRoute", answers=True), self._of_model()
        kept, seen = self._seen(route, serves)
        changes, guards = planned(kept, seen)
        guard = only(guards)
        assert (guard.rule, guard.message) == (
            "routing/last-variation",
            "nobody would answer predictions of churn any more",
        )
        assert [change.held for change in changes if change.op is Op.DELETE] == [guard.message] * 2
        lifted = plan.approved(plan.assemble(changes, (), guards), {guard.approval})
        assert {change.id for change in lifted.actions} == {route.id, serves.id}

    def test_a_route_that_keeps_only_what_is_asked_for_by_name_is_held_as_well(self):
        before, after = (
            self._of_model("HTTPRoute", answers=True, rules=[{"name": "everybody"}]),
            self._of_model("HTTPRoute", content="2", rules=[{"name": "variation-shadow"}]),
        )
        kept, seen = self._seen(before, self._of_model(), predictions={after.id: Predicted(live(after))})
        changes, guards = planned([*kept, after], seen)
        assert [guard.rule for guard in guards] == ["routing/last-variation"]
        assert not any(change.is_action for change in changes)

    def test_as_long_as_somebody_answers_variations_may_go(self):
        before, after = (
            self._of_model("HTTPRoute", answers=True, rules=[{"name": "two"}]),
            self._of_model("HTTPRoute", answers=True, content="2", rules=[{"name": "one"}]),
        )
        kept, seen = self._seen(before, self._of_model(), predictions={after.id: Predicted(live(after))})
        changes, guards = planned([*kept, after], seen)
        assert guards == []
        assert [change.op for change in changes if change.is_action] == [Op.CHANGE, Op.DELETE]

    def test_its_approval_is_the_same_whatever_else_is_in_the_pass(self):
        gone = self._of_model("HTTPRoute", answers=True), self._of_model()
        kept, seen = self._seen(*gone)
        other = self._of_model(name="fraud", model="fraud")
        and_more = observed(*map(live, [*kept, *gone, other]))
        first = only(planned(kept, seen)[1])
        assert first.approval
        assert only(planned([*kept, wanted(name="new")], and_more)[1]).approval == first.approval

    def test_an_approval_of_one_limit_lifts_no_other_of_the_same_environment(self):
        protected = self._of_model(name="fraud", model="fraud")
        protected.body["metadata"]["annotations"][PROTECTED] = "true"
        route = self._of_model("HTTPRoute", answers=True)
        kept, seen = self._seen(route, protected)
        blocked = plan.assemble(*_split(planned(kept, seen)))
        silent, removed = blocked.guards
        assert (silent.rule, removed.rule) == ("routing/last-variation", "variation/protected")
        assert silent.approval != removed.approval
        first = plan.approved(blocked, {silent.approval})
        assert ([change.id for change in first.actions], first.guards) == ([route.id], (removed,))
        second = plan.approved(blocked, {removed.approval})
        assert ([change.id for change in second.actions], second.guards) == ([protected.id], (silent,))
        assert plan.approved(blocked, {silent.approval, removed.approval}).guards == ()

    def test_the_other_models_go_on(self):
        other = self._of_model(name="fraud", model="fraud")
        kept, seen = self._seen(self._of_model("HTTPRoute", answers=True), other)
        changes, _ = planned(kept, seen)
        assert [change.id for change in changes if change.is_action] == [other.id]


class TestBetweenBuilds:
    """A canary's step, and the way back: they must work although something else is in the way."""

    def _of_build(self, build, kind="Deployment", variation="default", content="1"):
        lineage = f"variation/churn/{variation}"
        manifest = wanted(kind, f"churn-{variation}-{build}", lineage=lineage, content=content)
        manifest.body["metadata"]["labels"] |= {NAME: "churn", VARIATION: variation, BUILD_ID: build}
        manifest.body["metadata"]["annotations"][PROTECTED] = "true"
        return manifest

    def _route(self, *, content="1", **weights):
        refs = [{"name": f"churn-default-{build * 8}", "weight": weight} for build, weight in weights.items()]
        manifest = wanted("HTTPRoute", content=content, rules=[{"name": "everybody", "backendRefs": refs}])
        manifest.body["metadata"]["annotations"] |= {PROTECTED: "true", ANSWERS: "true"}
        return manifest

    def _planned(self, before, after, *, builds="ab", wanted_builds="ab", answer=None, **state):
        of = {b: [self._of_build(b * 8, kind) for kind in ("Deployment", "Service")] for b in builds}
        kept = [manifest for b in wanted_builds for manifest in of[b]]
        seen = observed(
            live(before),
            *(live(manifest) for manifests in of.values() for manifest in manifests),
            predictions={after.id: answer or Predicted(live(after))},
        )
        return planned([*kept, after], seen, **state)

    STEP = "default: build aaaaaaaa 95 % -> 75 %, build bbbbbbbb 5 % -> 25 %"

    def test_a_step_of_a_protected_variation_waits_for_nobody(self):
        changes, guards = self._planned(self._route(a=95, b=5), self._route(a=75, b=25, content="2"))
        (step,) = [change for change in changes if change.is_action]
        assert guards == []
        assert step.traffic == (self.STEP,)

    def test_a_step_is_taken_although_other_specs_are_broken(self):
        changes, guards = self._planned(self._route(a=95, b=5), self._route(a=75, b=25, content="2"), complete=False)
        assert [change.id.kind for change in changes if change.is_action] == ["HTTPRoute"]
        assert guards == []

    def test_so_is_the_way_back_and_what_it_leaves_waits_until_all_specs_are_read(self):
        changes, guards = self._planned(
            self._route(a=75, b=25), self._route(a=100, content="2"), wanted_builds="a", complete=False
        )
        assert [change.id.kind for change in changes if change.is_action] == ["HTTPRoute"]
        assert [guard.rule for guard in guards] == ["prune/incomplete"]

    def test_a_step_is_taken_where_the_server_could_not_be_asked_as_well(self):
        answer = Unverifiable("no dry run")
        after = self._route(a=75, b=25, content="2")
        changes, _ = self._planned(self._route(a=95, b=5), after, answer=answer, complete=False)
        assert [change.id.kind for change in changes if change.is_action] == ["HTTPRoute"]

    def test_a_suspended_environment_takes_no_steps(self):
        changes, _ = self._planned(self._route(a=95, b=5), self._route(a=75, b=25, content="2"), suspended=True)
        assert not any(change.is_action for change in changes)

    def test_what_gives_a_variation_more_requests_is_held_as_ever(self):
        before, after = self._route(a=95, b=5), self._route(a=75, b=26, content="2")
        changes, guards = self._planned(before, after)
        assert [guard.rule for guard in guards] == ["variation/protected"]
        assert not any(change.is_action for change in changes)
        assert not any(change.is_action for change in self._planned(before, after, complete=False)[0])

    def test_the_old_build_of_a_protected_variation_goes_when_the_new_one_has_taken_over(self):
        before, after = self._route(a=0, b=100), self._route(b=100, content="2")
        changes, guards = self._planned(before, after, wanted_builds="b")
        gone = [change for change in changes if change.op is Op.DELETE]
        assert guards == []
        assert [(c.id.kind, c.id.name, c.superseded_by.name) for c in gone if c.is_action] == [
            ("Deployment", "churn-default-aaaaaaaa", "churn-default-bbbbbbbb"),
            ("Service", "churn-default-aaaaaaaa", "churn-default-bbbbbbbb"),
        ]

    def test_what_goes_is_followed_by_the_sibling_that_is_there_and_not_by_one_that_still_comes(self):
        gone, stays, comes = (self._of_build(b * 8) for b in "bca")
        changes, _ = planned([comes, stays], observed(live(gone), live(stays)))
        found = {change.id: change for change in changes}
        assert found[gone.id].superseded_by == stays.id
        assert found[comes.id].supersedes is None


class TestKept:
    """Jobs of runs that have finished: not wanted any more, and there as long as the cluster keeps them."""

    JOB = wanted("Job", "churn-build-3f9a1c2e")

    def test_what_is_kept_is_not_deleted(self):
        changes, guards = planned([], observed(live(self.JOB)), keep=frozenset({self.JOB.id}))
        assert (changes, guards) == ([], [])

    def test_what_is_kept_does_not_make_room_for_deleting_more(self):
        kept = [wanted("Job", f"job-{number}") for number in range(200)]
        manifests, seen = _environment_of(40, keep=31)
        seen = replace(seen, members=seen.members | {job.id: live(job) for job in kept})
        guard = only(planned(manifests, seen, keep=frozenset(job.id for job in kept))[1])
        assert guard.message == "9 of 40 objects of production would be deleted, more than 20%"

    def test_an_environment_of_which_only_such_jobs_would_stay_is_emptied_only_with_approval(self):
        changes, guards = planned([], observed(live(wanted()), live(self.JOB)), keep=frozenset({self.JOB.id}))
        assert [guard.rule for guard in guards] == ["prune/all"]
        assert not any(change.is_action for change in changes)

    def test_what_is_wanted_is_not_kept_from_changing(self):
        job = wanted("Job", "churn-build-3f9a1c2e")
        (change,) = planned([job], observed(), keep=frozenset({job.id}))[0]
        assert change.op is Op.CREATE


def _split(result):
    changes, guards = result
    return changes, (), guards


class TestSuccession:
    """The next build's objects have other names; the plan shows them beside those that they follow."""

    OLD = wanted(name="churn-default-aaaaaaaa", lineage="variation/churn/default")
    NEW = wanted(name="churn-default-bbbbbbbb", lineage="variation/churn/default")

    def test_the_new_object_names_the_one_that_it_follows_and_the_other_way_round(self):
        changes, _ = planned([self.NEW], observed(live(self.OLD)))
        created, deleted = changes
        assert (created.op, created.supersedes) == (Op.CREATE, self.OLD.id)
        assert (deleted.op, deleted.superseded_by) == (Op.DELETE, self.NEW.id)

    def test_what_is_superseded_does_not_count_against_the_budget(self):
        changes, guards = planned([self.NEW], observed(live(self.OLD)))
        assert guards == []
        assert all(change.is_action for change in changes)


class TestWhatRunsOnce:
    """A build's Job: its name is the hash of what it does."""

    JOB = wanted("Job", "churn-build-3f9a1c2e", content="2", image="new")

    def test_a_job_that_exists_is_the_right_one_whatever_has_changed_around_it(self):
        live_job = live(self.JOB, content="1", image="old")
        assert plan.is_settled(self.JOB, live_job)
        assert only(planned([self.JOB], observed(live_job))[0]).op is Op.UNCHANGED

    def test_a_job_that_has_finished_and_was_cleaned_up_does_not_run_again(self):
        known = Inventory("production", frozenset(), frozenset({self.JOB.id}))
        change = only(planned([self.JOB], Observed("production", inventory=known))[0])
        assert (change.op, change.is_action) == (Op.UNCHANGED, False)

    def test_the_job_of_an_older_commit_is_left_alone_while_it_runs(self):
        old = wanted("Job", "churn-build-aaaaaaaa", lineage="build/churn")
        new = wanted("Job", "churn-build-bbbbbbbb", lineage="build/churn")
        running = live(old)
        done = running | {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
        held = next(c for c in planned([new], observed(running))[0] if c.op is Op.DELETE)
        gone = next(c for c in planned([new], observed(done))[0] if c.op is Op.DELETE)
        assert "still runs" in held.held
        assert gone.is_action


class TestOrderAndId:
    def test_objects_come_in_the_order_in_which_they_need_each_other(self):
        kinds = ["HTTPRoute", "SecurityPolicy", "ScaledObject", "Deployment", "Service", "ConfigMap", "ServiceAccount",
                 "Namespace"]  # fmt: skip
        changes, _ = planned([wanted(kind) for kind in kinds])
        assert [change.id.kind for change in changes] == [
            "Namespace", "ServiceAccount", "ConfigMap", "Service", "Deployment", "ScaledObject",
            "SecurityPolicy", "HTTPRoute",
        ]  # fmt: skip

    def test_the_plan_does_not_depend_on_the_order_of_its_input(self):
        manifests = [wanted(name=f"d-{n}") for n in range(5)]
        forwards, backwards = (plan.assemble(planned(m)[0]) for m in (manifests, manifests[::-1]))
        assert forwards == backwards

    def test_the_id_changes_with_what_would_be_done_and_with_nothing_else(self):
        manifest = wanted(replicas=2)
        first = plan.assemble(planned([manifest])[0])
        assert first.id == plan.assemble(planned([manifest])[0]).id
        assert first.id != plan.assemble(planned([wanted(content="2", replicas=3)])[0]).id
        unchanged = plan.assemble(planned([manifest], observed(live(manifest)))[0])
        assert unchanged.id == plan.assemble([]).id

    def test_a_preview_that_asked_the_server_has_the_id_of_the_run_that_did_not(self):
        manifest = wanted(replicas=2)
        run = plan.assemble(planned([manifest])[0])
        for answer in (Predicted(live(manifest)), Unverifiable("no such kind"), Refusal("no")):
            preview = plan.assemble(planned([manifest], observed(predictions={manifest.id: answer}))[0])
            assert preview.id == run.id


def test_a_persons_tools_are_told_from_controllers():
    assert all(map(plan.is_human, ["kubectl", "kubectl-edit", "kubectl-client-side-apply", "k9s", "rancher", "Lens"]))
    assert not any(map(plan.is_human, ["kube-controller-manager", "keda-operator", "argocd-controller", "helm"]))


def test_an_offline_plan_creates_everything_and_keeps_no_bodies():
    change = only(plan.offline([wanted()]))
    assert (change.op, change.origin, change.manifest) == (Op.CREATE, ORIGIN, None)
    assert change.id == ObjectId("apps/v1", "Deployment", "prod", "churn")
