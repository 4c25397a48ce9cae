"""The chart's roles and its admission policy: who may decide, and that nobody decides in the name of another.

On a real API server alone: the embedded one has one user, who may do everything, and no admission policies.
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler import inventory, ledger
from reconciler.cluster import Forbidden, Writer, connect
from reconciler.records import Build, Cause, Promotion, to_body
from tests.contract import helm
from tests.contract.client import APPLY, MERGE, Answer, Api, eventually
from tests.sample_records import START, a_build, a_decision, a_promotion

Body = dict[str, Any]
#: (user) -> the requests of that user.
As = Callable[[str], "User"]


class User:
    """Requests as somebody else, which an administrator may make. To the server they are that user's."""

    def __init__(self, api: Api, name: str, records: str) -> None:
        self.api, self.name, self.records = api, name, records
        self.headers = {"Impersonate-User": name}

    def create(self, record: Build | Promotion, *, dry_run: bool = False) -> Answer:
        body = to_body(record)
        del body["metadata"]["namespace"]
        path = f"{self.records}/{plural(body)}{'?dryRun=All' if dry_run else ''}"
        return self.api("POST", path, body, headers=self.headers)

    def put(self, body: Body, *, status: bool = False) -> Answer:
        path = f"{self.records}/{plural(body)}/{body['metadata']['name']}{'/status' if status else ''}"
        return self.api("PUT", path, body, headers=self.headers)

    def decide(self, body: Body, *, by: str) -> Answer:
        said = a_decision(body["spec"]["build"], by=by).model_dump(by_alias=True, mode="json")
        changed = copy.deepcopy(body)
        changed["spec"]["decisions"].append(said)
        return self.put(changed)

    def get(self, body: Body) -> Answer:
        return self.api("GET", f"{self.records}/{plural(body)}/{body['metadata']['name']}", headers=self.headers)


def plural(body: Body) -> str:
    return f"{body['kind'].lower()}s"


def asked_by(name: str) -> Cause:
    return Cause(kind="Manual", at=START, by=name, reason="please")


def path_of(body: Body) -> str:
    group = f"/apis/{body['apiVersion']}"
    namespace = body["metadata"].get("namespace")
    plurals = {"ValidatingAdmissionPolicy": "validatingadmissionpolicies"}
    kind = plurals.get(body["kind"], f"{body['kind'].lower()}s")
    return f"{group}{f'/namespaces/{namespace}' if namespace else ''}/{kind}/{body['metadata']['name']}"


@pytest.fixture
def as_(server: tuple[Path, str], api: Api, namespace: str, tmp_path: Path) -> Iterator[As]:
    """The chart is installed in the namespace of this test, where three people have its roles."""
    if server[1] != "real":
        pytest.skip("the embedded server has one user, who may do everything, and no admission policies")
    connection = connect(str(server[0]), trusted=True)
    assert ledger.ensure(Writer(connection)) == []
    connection.close()
    records = f"/apis/trueup.dev/v1/namespaces/{namespace}"
    name = f"trueup-{namespace}"
    values = helm.MINIMUM | {"fullnameOverride": name, "environments": [{"name": f"{namespace}-env"}]}
    chart = helm.rendered(values, namespace=namespace, chart=helm.chart_for(namespace, tmp_path))
    people = [binding(namespace, person, f"{name}-{role}") for person, role in ROLES.items()]
    needed = [body for body in chart if body["apiVersion"].startswith(("rbac.", "admissionregistration."))]
    installed = [body for body in (*needed, *people) if body["metadata"].get("namespace") in (None, namespace)]
    for body in installed:
        answer = api.apply(path_of(body), body)
        assert answer.status == 201, answer.body

    account = name

    def user(name: str) -> User:
        return User(api, f"system:serviceaccount:{namespace}:{account}" if name == "reconciler" else name, records)

    # Roles and policies have effect some time after they were stored.
    for name in (*ROLES, "reconciler"):
        eventually(lambda name=name: api("GET", f"{records}/builds", headers=user(name).headers).status == 200)
    forged = a_promotion(cause=asked_by("x"))
    eventually(lambda: "by must be alice" in user("alice").create(forged, dry_run=True).body.get("message", ""))
    forged_plan = inventory_of(namespace, f"{PLAN} by nobody")
    path = f"{maps_of(namespace)}?dryRun=All"
    eventually(lambda: "in the name of another" in api("POST", path, forged_plan).body.get("message", ""))
    yield user
    for body in installed:
        api("DELETE", path_of(body))


ROLES = {"alice": "approver", "bob": "approver", "victor": "viewer", "tina": "trigger"}


def binding(namespace: str, user: str, role: str) -> Body:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": user, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }


@pytest.fixture
def promotion(as_: As) -> Body:
    """One that the reconciler has asked for."""
    answer = as_("reconciler").create(a_promotion())
    assert answer.status == 201, answer.body
    return dict(answer.body)


def is_refused(answer: Answer, words: str) -> bool:
    return answer.status == 403 and words in answer.body["message"]


# -- roles ----------------------------------------------------------------------------------------------------------


def test_who_may_not_patch_promotions_cannot_approve(as_: As, promotion: Body) -> None:
    for name in ("victor", "tina", "eve"):
        words = f'User "{name}" cannot update resource "promotions"'
        assert is_refused(as_(name).decide(promotion, by=name), words)


def test_a_viewer_looks_and_nothing_else(as_: As, promotion: Body) -> None:
    assert as_("victor").get(promotion).status == 200
    assert as_("eve").get(promotion).status == 403
    assert is_refused(as_("victor").create(a_build(cause=asked_by("victor"))), 'User "victor" cannot create')


def test_builds_and_promotions_are_asked_for_by_different_roles(as_: As) -> None:
    build, wanted = a_build(cause=asked_by("tina")), a_promotion(cause=asked_by("tina"))
    assert as_("tina").create(build).status == 201
    assert is_refused(as_("tina").create(wanted), 'User "tina" cannot create')
    build, wanted = a_build(cause=asked_by("alice")), a_promotion(cause=asked_by("alice"))
    assert is_refused(as_("alice").create(build), 'User "alice" cannot create')
    assert as_("alice").create(wanted).status == 201


def test_the_reconciler_writes_what_became_of_it_and_decides_nothing(as_: As, promotion: Body) -> None:
    stored = as_("reconciler").put(promotion | {"status": {"phase": "Held"}}, status=True)
    assert (stored.status, stored.body["status"]) == (200, {"phase": "Held"})
    assert is_refused(as_("reconciler").decide(stored.body, by="alice"), 'cannot update resource "promotions"')


def test_a_token_of_the_cluster_is_enough_to_read_and_not_to_decide(
    server: tuple[Path, str], api: Api, namespace: str, as_: As, tmp_path: Path
) -> None:
    """The same by a kubeconfig, as people have it, and not by impersonation."""
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    api("POST", accounts, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "guest"}})
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
    token = api("POST", f"{accounts}/guest/token", body).body["status"]["token"]
    config = yaml.safe_load(server[0].read_text())
    config["users"][0]["user"] = {"token": token}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    connection = connect(str(tmp_path / "kubeconfig"), trusted=True)
    guest = Writer(connection)
    assert ledger.who(guest) == f"system:serviceaccount:{namespace}:guest"
    assert ledger.ensure(guest) == []  # it may look at no definition, and needs to look at none
    with pytest.raises(Forbidden):
        ledger.create(guest, a_build(cause=asked_by("guest")))
    connection.close()


# -- who said it ----------------------------------------------------------------------------------------------------


def test_people_decide_in_their_own_name(as_: As, promotion: Body) -> None:
    after = as_("alice").decide(promotion, by="alice")
    assert after.status == 200, after.body
    assert as_("bob").decide(after.body, by="bob").status == 200


def test_nobody_decides_in_the_name_of_another(as_: As, promotion: Body) -> None:
    answer = as_("bob").decide(promotion, by="alice")
    assert is_refused(answer, "nobody decides in the name of another: by must be bob")
    after = as_("alice").decide(promotion, by="alice")
    assert is_refused(as_("bob").decide(after.body, by="alice"), "by must be bob")  # nor by repeating what she said


def test_an_administrator_does_not_either(as_: As, api: Api, promotion: Body) -> None:
    administrator = User(api, "admin", as_("admin").records)
    administrator.headers = {}
    assert is_refused(administrator.decide(promotion, by="alice"), "by must be admin")
    assert administrator.decide(promotion, by="admin").status == 200


def test_two_decisions_at_once_are_both_looked_at(as_: As, promotion: Body) -> None:
    first, second = (
        a_decision(promotion["spec"]["build"], by=by).model_dump(by_alias=True, mode="json") for by in ("bob", "alice")
    )
    for both in ([first, second], [second, first]):
        changed = promotion | {"spec": promotion["spec"] | {"decisions": both}}
        assert is_refused(as_("bob").put(changed), "by must be bob")


def test_nobody_asks_in_the_name_of_another_or_of_the_reconciler(as_: As) -> None:
    words = "what a person asks for has the cause Manual, by themselves: spec.cause.by must be alice"
    for cause in (asked_by("bob"), asked_by(""), Cause(kind="Schedule", at=START, by="alice")):
        assert is_refused(as_("alice").create(a_promotion(cause=cause)), words)
        assert is_refused(as_("tina").create(a_build(cause=cause)), "spec.cause.by must be tina")


def test_a_promotion_is_not_born_with_the_approval_of_another(as_: As) -> None:
    build = secrets.token_hex(32)
    forged = a_promotion(build=build, cause=asked_by("alice"), decisions=(a_decision(build, by="bob"),))
    assert is_refused(as_("alice").create(forged), "by must be alice")


def test_a_status_is_written_by_the_reconciler_alone(as_: As, api: Api, promotion: Body) -> None:
    administrator = User(api, "admin", as_("admin").records)
    administrator.headers = {}
    forged = promotion | {"status": {"phase": "Succeeded"}}
    assert is_refused(administrator.put(forged, status=True), "written by the reconciler alone")
    assert is_refused(as_("alice").put(forged, status=True), 'cannot update resource "promotions/status"')
    assert "status" not in as_("alice").put(forged).body  # a part of the object that this request does not write


def test_what_is_neither_may_be_changed_by_whoever_may_patch(as_: As, api: Api, promotion: Body) -> None:
    after = as_("bob").decide(promotion, by="bob").body
    alice = as_("alice")
    path = f"{alice.records}/promotions/{after['metadata']['name']}"
    labels = {"metadata": {"labels": {"ticket": "4711"}}}
    assert api("PATCH", path, labels, content_type=MERGE, headers=alice.headers).status == 200


def test_the_policy_is_about_the_namespace_of_the_release_alone(as_: As, api: Api) -> None:
    elsewhere = User(api, "admin", "/apis/trueup.dev/v1/namespaces/default")
    elsewhere.headers = {}
    assert elsewhere.create(a_build(cause=asked_by("anybody")), dry_run=True).status == 201


# -- who lifted a limit ----------------------------------------------------------------------------------------------

PLAN = "0123456789ab"


def maps_of(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


def inventory_of(namespace: str, approval: str = "") -> Body:
    """As it is in the cluster, in the namespace of this test."""
    body = inventory.to_config_map(inventory.Inventory(f"{namespace}-env"))
    body["metadata"]["namespace"] = namespace
    if approval:
        body["metadata"]["annotations"][inventory.APPROVED] = approval
    return body


class Plans:
    """The inventory of an environment: approvals of its plans are written into it."""

    def __init__(self, as_: As, namespace: str) -> None:
        self.as_, self.namespace = as_, namespace
        self.path = f"{maps_of(namespace)}/{inventory_of(namespace)['metadata']['name']}"
        applied = self.apply("reconciler", inventory_of(namespace))
        assert applied.status == 201, applied.body

    def apply(self, user: str, body: Body) -> Answer:
        one = self.as_(user)
        return one.api("PATCH", f"{self.path}?fieldManager=trueup", body, content_type=APPLY, headers=one.headers)

    def put(self, user: str, change: Callable[[Body], Body]) -> Answer:
        """What is there, changed."""
        one = self.as_(user)
        return one.api("PUT", self.path, change(one.api("GET", self.path).body), headers=one.headers)

    def approve(self, user: str, *, by: str, plan: str = PLAN) -> Answer:
        """By the very function that `reconcile approve` uses."""
        return self.put(user, lambda body: inventory.with_approval(body, inventory.Approved(plan, by), "because"))

    def approved(self) -> inventory.Approved | None:
        return inventory.approved_in(self.as_("alice").api("GET", self.path).body)


@pytest.fixture
def plans(as_: As, namespace: str) -> Plans:
    return Plans(as_, namespace)


def test_people_approve_a_plan_in_their_own_name(plans: Plans) -> None:
    answer = plans.approve("alice", by="alice")
    assert answer.status == 200, answer.body
    assert plans.approved() == (PLAN, "alice")
    assert plans.approve("bob", by="bob").status == 200


def test_nobody_approves_a_plan_in_the_name_of_another(plans: Plans, api: Api, namespace: str) -> None:
    words = "nobody approves in the name of another: trueup.dev/approved must end in `by bob`"
    assert is_refused(plans.approve("bob", by="alice"), words)
    assert is_refused(plans.approve("bob", by="bob by alice"), words)
    forged = api("POST", maps_of(namespace), inventory_of(namespace, f"{PLAN} by alice"))
    assert is_refused(forged, "must end in `by admin`")


def test_the_reconciler_approves_of_nothing_and_may_take_an_approval_back(plans: Plans) -> None:
    reconciler = f"system:serviceaccount:{plans.namespace}:trueup-{plans.namespace}"
    for by in ("alice", reconciler):
        assert is_refused(plans.approve("reconciler", by=by), "the reconciler approves of nothing")
    assert plans.approve("alice", by="alice").status == 200
    # What it writes leaves the approval as it is,
    wider = inventory_of(plans.namespace) | {"data": {"places": "v1 Service prod", "finished": ""}}
    assert plans.apply("reconciler", wider).status == 200
    assert plans.approved() == (PLAN, "alice")
    # it cannot make another one of it,
    assert is_refused(plans.approve("reconciler", by="alice", plan="f" * 12), "the reconciler approves of nothing")
    # and takes it back when it was used.
    assert plans.put("reconciler", inventory.without_approval).status == 200
    assert plans.approved() is None


def test_an_approval_has_a_form(plans: Plans) -> None:
    for plan in ("", "012", "0123456789AB", "0123456789abc"):
        answer = plans.approve("alice", by="alice", plan=plan)
        assert (answer.status, "has the form `PLAN by USER`" in answer.body["message"]) == (422, True)


def test_who_may_only_approve_changes_nothing_else_of_an_inventory(plans: Plans, api: Api) -> None:
    def pointed_elsewhere(body: Body) -> Body:
        return body | {"data": {"places": "v1 Secret kube-system"}}

    assert is_refused(plans.put("alice", pointed_elsewhere), "written by the reconciler alone")
    assert plans.put("alice", lambda body: body).status == 200
    # Who may delete it could have made another one in its place: `reconcile` by an administrator, or in CI.
    body = api("GET", plans.path).body
    assert api("PUT", plans.path, pointed_elsewhere(body)).status == 200


def test_who_may_only_look_approves_no_plan(plans: Plans) -> None:
    for name in ("victor", "tina", "eve"):
        assert is_refused(plans.approve(name, by=name), f'User "{name}" cannot update resource "configmaps"')


def test_other_config_maps_are_nobodys_business(plans: Plans, api: Api, namespace: str) -> None:
    other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other"}, "data": {"a": "b"}}
    assert api("POST", maps_of(namespace), other).status == 201
    elsewhere = inventory_of("default", f"{PLAN} by alice")
    assert api("POST", f"{maps_of('default')}?dryRun=All", elsewhere).status == 201
