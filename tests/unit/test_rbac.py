"""The judge of roles that the tests use, judged itself."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.rbac import Grant, Request, Roles, request_of, requests_of

PROD = "/apis/apps/v1/namespaces/prod/deployments"


@pytest.mark.parametrize(
    ("method", "target", "request_"),
    [
        ("GET", PROD, Request("list", "apps", "deployments", namespace="prod")),
        ("GET", f"{PROD}?labelSelector=a%3Db&limit=500", Request("list", "apps", "deployments", namespace="prod")),
        ("GET", f"{PROD}?watch=true", Request("watch", "apps", "deployments", namespace="prod")),
        ("GET", f"{PROD}?watch=1&timeoutSeconds=60", Request("watch", "apps", "deployments", namespace="prod")),
        ("GET", f"{PROD}?watch=", Request("watch", "apps", "deployments", namespace="prod")),
        ("GET", f"{PROD}?watch=False", Request("list", "apps", "deployments", namespace="prod")),
        ("GET", f"{PROD}?fieldSelector=metadata.name%3Dc", Request("list", "apps", "deployments", "", "prod", "c")),
        ("GET", f"{PROD}/c", Request("get", "apps", "deployments", "", "prod", "c")),
        ("HEAD", f"{PROD}/c", Request("get", "apps", "deployments", "", "prod", "c")),
        ("POST", f"{PROD}?dryRun=All", Request("create", "apps", "deployments", namespace="prod")),
        ("PATCH", f"{PROD}/c?force=true", Request("patch", "apps", "deployments", "", "prod", "c")),
        ("PUT", f"{PROD}/c/status", Request("update", "apps", "deployments", "status", "prod", "c")),
        ("GET", f"{PROD}/c/scale", Request("get", "apps", "deployments", "scale", "prod", "c")),
        ("DELETE", f"{PROD}/c", Request("delete", "apps", "deployments", "", "prod", "c")),
        ("DELETE", PROD, Request("deletecollection", "apps", "deployments", namespace="prod")),
        ("GET", "/apis/apps/v1/deployments?watch=true", Request("watch", "apps", "deployments")),
        ("GET", "/api/v1/watch/namespaces/prod/pods", Request("watch", "", "pods", namespace="prod")),
        ("GET", "/api/v1/namespaces/prod/pods/c-0/log", Request("get", "", "pods", "log", "prod", "c-0")),
        ("GET", "/api/v1/namespaces", Request("list", "", "namespaces")),
        ("GET", "/api/v1/namespaces/prod", Request("get", "", "namespaces", "", "prod", "prod")),
        ("PUT", "/api/v1/namespaces/prod/finalize", Request("update", "", "namespaces", "finalize", "prod", "prod")),
        ("PATCH", "/api/v1/namespaces/prod", Request("patch", "", "namespaces", "", "prod", "prod")),
        ("GET", "/version", Request("get", path="/version")),
        ("GET", "/api/v1", Request("get", path="/api/v1")),
        ("GET", "/apis/apps/v1", Request("get", path="/apis/apps/v1")),
        ("GET", "/openapi/v3?hash=x", Request("get", path="/openapi/v3")),
    ],
)
def test_a_request_is_what_an_api_server_makes_of_it(method: str, target: str, request_: Request) -> None:
    assert request_of(method, target) == request_


def test_an_apply_that_creates_needs_both_verbs_and_knows_the_name() -> None:
    patch = Request("patch", "apps", "deployments", "", "prod", "c")
    assert requests_of("PATCH", f"{PROD}/c", 201) == [patch, patch._replace(verb="create")]
    assert requests_of("PATCH", f"{PROD}/c", 200) == [patch]
    assert requests_of("POST", PROD, 201) == [Request("create", "apps", "deployments", namespace="prod")]


def test_a_request_is_written_in_words() -> None:
    assert str(request_of("GET", f"{PROD}/c/scale")) == "get deployments/scale.apps c in prod"
    assert str(request_of("GET", "/api/v1/namespaces")) == "list namespaces"
    assert str(request_of("GET", "/version")) == "get /version"


def role(kind: str, name: str, rules: list[dict[str, Any]], namespace: str = "") -> dict[str, Any]:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata, "rules": rules}


def binding(kind: str, role: str, namespace: str = "", *, account: str = "us") -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": {"name": role} | ({"namespace": namespace} if namespace else {}),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": "here"}],
    }


def given(rule: dict[str, Any], namespace: str = "prod") -> Roles:
    """One rule, in one namespace; "" for all."""
    kind = "Role" if namespace else "ClusterRole"
    return Roles.of([role(kind, "r", [rule], namespace), binding(kind, "r", namespace)], "us", "here")


PODS = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}
POD = request_of("GET", "/api/v1/namespaces/prod/pods/p")


def test_a_rule_allows_its_verbs_of_its_resources_and_nothing_else() -> None:
    roles = given(PODS)
    assert roles.allows(POD)
    for other in (
        POD._replace(verb="watch"),
        POD._replace(group="metrics.k8s.io"),
        POD._replace(resource="secrets"),
        POD._replace(subresource="log"),
        POD._replace(namespace="dev"),
        POD._replace(namespace=""),
    ):
        assert not roles.allows(other), other


def test_a_cluster_role_bound_in_a_namespace_applies_there_and_bound_everywhere_applies_everywhere() -> None:
    rules = role("ClusterRole", "r", [PODS])
    assert Roles.of([rules, binding("ClusterRole", "r", "prod")], "us", "here").allows(POD)
    assert not Roles.of([rules, binding("ClusterRole", "r", "dev")], "us", "here").allows(POD)
    everywhere = Roles.of([rules, binding("ClusterRole", "r")], "us", "here")
    assert everywhere.allows(POD)
    assert everywhere.allows(POD._replace(namespace="", name="", verb="list"))


def test_roles_of_others_are_not_ours() -> None:
    bodies = [role("Role", "r", [PODS], "prod"), binding("Role", "r", "prod", account="them")]
    assert not Roles.of(bodies, "us", "here").allows(POD)
    assert not Roles.of(bodies, "them", "elsewhere").allows(POD)
    assert Roles.of(bodies, "them", "here").allows(POD)


def test_a_binding_to_a_role_that_does_not_exist_is_no_slip() -> None:
    with pytest.raises(KeyError, match="missing"):
        Roles.of([binding("Role", "missing", "prod")], "us", "here")


def test_names_bind_what_has_a_name() -> None:
    roles = given(
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"], "verbs": ["get", "list", "create"]}
    )
    secret = Request("get", "", "secrets", "", "prod", "a")
    assert roles.allows(secret)
    assert not roles.allows(secret._replace(name="b"))
    assert not roles.allows(secret._replace(verb="list", name=""))
    assert not roles.allows(secret._replace(verb="create", name=""))  # a POST does not say the name
    assert roles.allows(secret._replace(verb="create"))  # an apply does
    assert roles.allows(request_of("GET", "/api/v1/namespaces/prod/secrets?fieldSelector=metadata.name=a"))


@pytest.mark.parametrize(
    "rule",
    [
        {"apiGroups": ["*"], "resources": ["pods/log"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["*"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["*/log"], "verbs": ["*"]},
    ],
)
def test_stars_stand_for_everything(rule: dict[str, Any]) -> None:
    assert given(rule).allows(POD._replace(subresource="log"))


def test_a_role_in_a_namespace_is_about_the_namespace_itself_too() -> None:
    roles = given({"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]})
    assert roles.allows(request_of("GET", "/api/v1/namespaces/prod"))
    assert not roles.allows(request_of("GET", "/api/v1/namespaces/dev"))


def test_paths_that_are_no_resources_have_rules_of_their_own() -> None:
    roles = given({"nonResourceURLs": ["/metrics", "/logs/*"], "verbs": ["get"]}, "")
    assert roles.allows(request_of("GET", "/metrics"))
    assert roles.allows(request_of("GET", "/logs/a/b"))
    assert not roles.allows(request_of("GET", "/metrics/cadvisor"))
    assert not roles.allows(request_of("POST", "/metrics"))


def test_everybody_may_discover_and_ask_about_themselves() -> None:
    nobody = Roles([])
    for path in ("/version", "/api/v1", "/apis/apps/v1", "/openapi/v3", "/readyz"):
        assert nobody.allows(request_of("GET", path)), path
    assert nobody.allows(request_of("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews"))
    assert not nobody.allows(request_of("GET", "/metrics"))
    assert not nobody.allows(request_of("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews"))


def test_what_no_request_needed_is_told_verb_by_verb() -> None:
    assert given(PODS).unused([POD]) == [Grant("Role/r", "list", "", "pods")]
    assert given(PODS).unused([POD, POD._replace(verb="list", name="")]) == []
    assert str(given(PODS).unused([POD])[0]) == "Role/r: list pods"


def test_a_role_that_is_in_several_namespaces_is_needed_in_one_of_them() -> None:
    bodies = [one for ns in ("dev", "prod") for one in (role("Role", "r", [PODS], ns), binding("Role", "r", ns))]
    assert Roles.of(bodies, "us", "here").unused([POD]) == [Grant("Role/r", "list", "", "pods")]


def test_two_rules_that_say_the_same_are_needed_together() -> None:
    bodies = [role("Role", "r", [PODS, PODS | {"resourceNames": ["p"]}], "prod"), binding("Role", "r", "prod")]
    unused = Roles.of(bodies, "us", "here").unused([POD, POD._replace(verb="list", name="")])
    assert unused == [Grant("Role/r", "list", "", "pods", ("p",))]
