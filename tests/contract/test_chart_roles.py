"""What the chart lets the reconciler do: what it needs, by name where a name is known, and nothing else.

Judged by tests/contract/rbac.py; a real API server judges alike (test_chart_installed.py).
"""

from __future__ import annotations

from typing import Any

import pytest

from reconciler import inventory, observe
from reconciler.telling import standing
from tests.contract.helm import CASES, ENVIRONMENTS, EVERYTHING, MINIMUM, NAMESPACE, rendered
from tests.contract.rbac import Roles, request_of, requests_of


def roles(values: dict[str, Any]) -> Roles:
    return Roles.of(rendered(values), "trueup", NAMESPACE)


@pytest.mark.parametrize("case", CASES)
def test_no_rule_has_a_star_and_none_is_about_rights_themselves(case: str) -> None:
    for body in rendered(CASES[case]):
        for rule in body.get("rules", ()) if body["kind"] in ("Role", "ClusterRole") else ():
            assert "*" not in [*rule["verbs"], *rule["apiGroups"], *rule["resources"]]
            assert not {"escalate", "bind", "impersonate", "deletecollection"} & {*rule["verbs"]}
            assert not {"rbac.authorization.k8s.io", "admissionregistration.k8s.io"} & {*rule["apiGroups"]}
            # An empty list would mean every name.
            assert rule.get("resourceNames", ["some"]) != []
            assert "secrets" not in rule["resources"] or (rule["verbs"], bool(rule["resourceNames"])) == (["get"], True)


def test_secrets_are_read_by_name_where_they_were_named() -> None:
    allowed = roles(EVERYTHING)
    named = {NAMESPACE: {"specs-git", "signers", "push", "cluster-eu", "cluster-us"}, "models": {"git-token", "slack"}}
    everywhere = {name for names in named.values() for name in names} | {"trueup-token", "other"}
    for namespace in (*named, "staging", "default", "kube-system"):
        path = f"/api/v1/namespaces/{namespace}/secrets"
        assert {name for name in everywhere if allowed.allows(request_of("GET", f"{path}/{name}"))} == named.get(
            namespace, set()
        )
        for method, target in (("GET", path), ("GET", f"{path}?watch=true"), ("POST", path), ("PATCH", f"{path}/push")):
            assert not allowed.allows(request_of(method, target))


def test_it_may_do_nothing_in_any_other_namespace() -> None:
    for bound in roles(EVERYTHING).bound:
        assert bound.namespace in {"", NAMESPACE, "staging", "models"}
        if bound.namespace == "":
            assert bound.rule.resources <= {"namespaces", "customresourcedefinitions"}


def test_it_makes_and_deletes_no_namespace() -> None:
    allowed = roles(EVERYTHING)
    for name in ("staging", "models", "other", NAMESPACE):
        path = f"/api/v1/namespaces/{name}"
        assert not allowed.allows(request_of("DELETE", path))
        assert not all(map(allowed.allows, requests_of("PATCH", path, 201)))
        assert allowed.allows(request_of("PATCH", path)) is (name in ("staging", "models"))
        assert allowed.allows(request_of("GET", path)) is (name != "other")
    assert allowed.allows(request_of("GET", "/api/v1/namespaces?watch=true&labelSelector=x"))


def plural(kind: str) -> str:
    """As the API has it, for the kinds that we use."""
    if kind.endswith(("cy", "ty")):
        return f"{kind[:-1].lower()}ies"
    return f"{kind.lower()}s"


def collection(api_version: str, kind: str, namespace: str) -> str:
    prefix = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    return f"{prefix}{f'/namespaces/{namespace}' if namespace else ''}/{plural(kind)}"


@pytest.mark.parametrize("known", observe.KNOWN_KINDS, ids=lambda known: known[1])
def test_whatever_it_renders_it_may_see_write_and_delete(known: tuple[str, str, bool]) -> None:
    allowed = roles(EVERYTHING)
    version, kind, namespaced = known
    path = collection(version, kind, "models" if namespaced else "")
    for target in (path, f"{path}?watch=true&labelSelector=a"):
        assert allowed.allows(request_of("GET", target))
    # A Gateway is somebody else's in every cluster, and a Namespace is never deleted.
    if kind in ("Gateway", "Namespace"):
        return
    one = f"{path}/churn"
    wanted = [request_of("GET", one), *requests_of("PATCH", one, 201), request_of("DELETE", one)]
    assert [request for request in wanted if not allowed.allows(request)] == []


def test_inventories_are_written_by_name_and_so_is_the_status() -> None:
    allowed = roles(EVERYTHING)

    def written(name: str) -> bool:
        return all(map(allowed.allows, requests_of("PATCH", f"/api/v1/namespaces/{NAMESPACE}/configmaps/{name}", 201)))

    assert all(written(inventory.name_of(environment["name"])) for environment in ENVIRONMENTS)
    assert written(standing.NAME)
    assert not written("other")
    assert not written(inventory.name_of("other"))
    # An approval is taken back by an update.
    path = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
    assert allowed.allows(request_of("PUT", f"{path}/{inventory.name_of('staging')}"))
    assert allowed.allows(request_of("GET", f"{path}?watch=1&labelSelector={inventory.ENVIRONMENT}"))


def test_records_and_the_lease_are_its_own_and_decisions_are_not() -> None:
    allowed = roles(MINIMUM)
    promotions = f"/apis/trueup.dev/v1/namespaces/{NAMESPACE}/promotions"
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
    for method, target in (
        ("GET", promotions),
        ("GET", f"{promotions}?watch=1"),
        ("POST", promotions),
        ("PUT", f"{promotions}/p/status"),
        ("DELETE", f"{promotions}/p"),
        ("POST", leases),
        ("GET", f"{leases}/trueup"),
        ("PUT", f"{leases}/trueup"),
    ):
        assert allowed.allows(request_of(method, target)), target
    for method, target in (
        ("PUT", f"{promotions}/p"),
        ("PATCH", f"{promotions}/p"),
        ("GET", f"{leases}/other"),
        ("DELETE", f"{leases}/trueup"),
    ):
        assert not allowed.allows(request_of(method, target)), target


def test_without_environments_and_secrets_nothing_is_said_of_them() -> None:
    allowed = roles(MINIMUM)
    assert not allowed.allows(request_of("GET", f"/api/v1/namespaces/{NAMESPACE}/secrets/any"))
    assert not allowed.allows(request_of("GET", f"/api/v1/namespaces/{NAMESPACE}/configmaps/any"))
    assert not allowed.allows(request_of("GET", "/api/v1/namespaces"))
