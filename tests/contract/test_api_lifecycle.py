"""Beginnings and ends: finalizers, namespaces, owners."""

from __future__ import annotations

import secrets

import pytest

from tests.contract.client import MERGE, Api, config_map, deployment, eventually


@pytest.fixture
def controlled(api: Api) -> Api:
    """An API server with the controllers of a cluster, without which nothing follows from a write."""
    if api.plane == "real":
        managers = api("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases").body["items"]
        service_account = api("GET", "/api/v1/namespaces/default/serviceaccounts/default").status
        if service_account != 200:
            pytest.skip(
                f"this API server has no controller manager ({len(managers)} leases, no default service account)"
            )
    return api


def test_a_finalizer_holds_a_deletion(api: Api, config_maps: str) -> None:
    api("POST", config_maps, config_map("a", finalizers=["example.com/hold"]))
    answer = api("DELETE", f"{config_maps}/a")
    assert (answer.status, answer.body["kind"]) == (200, "ConfigMap")
    deleting = api("GET", f"{config_maps}/a").body
    assert "deletionTimestamp" in deleting["metadata"]
    assert deleting["metadata"]["deletionGracePeriodSeconds"] == 0
    api("PATCH", f"{config_maps}/a", {"metadata": {"finalizers": None}}, content_type=MERGE)
    assert api("GET", f"{config_maps}/a").status == 404


def test_deleting_again_changes_nothing(api: Api, config_maps: str) -> None:
    api("POST", config_maps, config_map("a", finalizers=["example.com/hold"]))
    first = api("DELETE", f"{config_maps}/a").body
    assert api("DELETE", f"{config_maps}/a").body == first
    api("PATCH", f"{config_maps}/a", {"metadata": {"finalizers": None}}, content_type=MERGE)


def test_what_is_being_deleted_takes_no_new_finalizer(api: Api, config_maps: str) -> None:
    api("POST", config_maps, config_map("a", finalizers=["example.com/hold"]))
    api("DELETE", f"{config_maps}/a")
    patch = {"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}}
    answer = api("PATCH", f"{config_maps}/a", patch, content_type=MERGE)
    assert answer.status == 422
    assert "no new finalizers can be added if the object is being deleted" in answer.body["message"]
    api("PATCH", f"{config_maps}/a", {"metadata": {"finalizers": None}}, content_type=MERGE)


def test_what_is_being_deleted_counts_a_generation(api: Api, deployments: str) -> None:
    body = deployment("a")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    api("POST", deployments, body)
    assert api("DELETE", f"{deployments}/a").body["metadata"]["generation"] == 2
    api("PATCH", f"{deployments}/a", {"metadata": {"finalizers": None}}, content_type=MERGE)


def test_a_namespace_carries_its_name_as_a_label(api: Api, namespace: str) -> None:
    body = api("GET", f"/api/v1/namespaces/{namespace}").body
    assert body["metadata"]["labels"] == {"kubernetes.io/metadata.name": namespace}
    assert (body["spec"]["finalizers"], body["status"]["phase"]) == (["kubernetes"], "Active")


def test_a_namespace_that_is_being_deleted_takes_nothing_new(api: Api, namespace: str, config_maps: str) -> None:
    api("POST", config_maps, config_map("a", finalizers=["example.com/hold"]))
    answer = api("DELETE", f"/api/v1/namespaces/{namespace}")
    assert (answer.status, answer.body["status"]["phase"]) == (200, "Terminating")
    refused = api("POST", config_maps, config_map("b"))
    assert (refused.status, refused.body["reason"]) == (403, "Forbidden")
    assert refused.body["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    assert api.apply(f"{config_maps}/b", config_map("b")).status == 403
    api("PATCH", f"{config_maps}/a", {"metadata": {"finalizers": None}}, content_type=MERGE)


def test_a_namespace_takes_what_is_in_it_along(controlled: Api, namespace: str, config_maps: str) -> None:
    api = controlled
    api("POST", config_maps, config_map("a"))
    api("DELETE", f"/api/v1/namespaces/{namespace}")
    eventually(lambda: api("GET", f"/api/v1/namespaces/{namespace}").status == 404)
    again = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    assert api("POST", "/api/v1/namespaces", again).status == 201
    assert api("GET", f"{config_maps}/a").status == 404


def test_a_namespace_waits_for_the_finalizers_in_it(controlled: Api, namespace: str, config_maps: str) -> None:
    api = controlled
    api("POST", config_maps, config_map("a", finalizers=["example.com/hold"]))
    api("DELETE", f"/api/v1/namespaces/{namespace}")
    eventually(lambda: "deletionTimestamp" in api("GET", f"{config_maps}/a").body["metadata"])
    assert api("GET", f"/api/v1/namespaces/{namespace}").status == 200
    api("PATCH", f"{config_maps}/a", {"metadata": {"finalizers": None}}, content_type=MERGE)
    eventually(lambda: api("GET", f"/api/v1/namespaces/{namespace}").status == 404)


def test_a_namespace_has_a_service_account(controlled: Api, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
    eventually(lambda: controlled("GET", path).status == 200)


def owned(name: str, *owners: dict[str, str], **metadata: object) -> dict[str, object]:
    return config_map(name, ownerReferences=list(owners), **metadata)


def reference(obj: dict[str, dict[str, str]]) -> dict[str, str]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "name": obj["metadata"]["name"], "uid": obj["metadata"]["uid"]}


def test_an_owner_takes_what_it_owns_along(controlled: Api, config_maps: str) -> None:
    api = controlled
    owner = api("POST", config_maps, config_map("owner")).body
    child = api("POST", config_maps, owned("child", reference(owner))).body
    api("POST", config_maps, owned("grandchild", reference(child)))
    api("DELETE", f"{config_maps}/owner")
    for name in ("child", "grandchild"):
        eventually(lambda name=name: api("GET", f"{config_maps}/{name}").status == 404)


def test_what_has_another_owner_stays(controlled: Api, config_maps: str) -> None:
    api = controlled
    first, second = (api("POST", config_maps, config_map(name)).body for name in ("first", "second"))
    api("POST", config_maps, owned("child", reference(first), reference(second)))
    api("DELETE", f"{config_maps}/first")
    left = eventually(
        lambda: len(owners := api("GET", f"{config_maps}/child").body["metadata"]["ownerReferences"]) == 1 and owners
    )
    assert left == [reference(second)]


def test_orphans_stay_and_forget_their_owner(controlled: Api, config_maps: str) -> None:
    api = controlled
    owner = api("POST", config_maps, config_map("owner")).body
    api("POST", config_maps, owned("child", reference(owner)))
    api("DELETE", f"{config_maps}/owner", {"propagationPolicy": "Orphan"})
    eventually(lambda: api("GET", f"{config_maps}/owner").status == 404)
    assert "ownerReferences" not in api("GET", f"{config_maps}/child").body["metadata"]


def test_in_the_foreground_an_owner_goes_last(controlled: Api, config_maps: str) -> None:
    api = controlled
    owner = api("POST", config_maps, config_map("owner")).body
    blocking = {**reference(owner), "blockOwnerDeletion": True}
    api("POST", config_maps, owned("child", blocking, finalizers=["example.com/hold"]))
    answer = api("DELETE", f"{config_maps}/owner", {"propagationPolicy": "Foreground"})
    assert answer.body["metadata"]["finalizers"] == ["foregroundDeletion"]
    eventually(lambda: "deletionTimestamp" in api("GET", f"{config_maps}/child").body["metadata"])
    assert api("GET", f"{config_maps}/owner").status == 200
    api("PATCH", f"{config_maps}/child", {"metadata": {"finalizers": None}}, content_type=MERGE)
    eventually(lambda: api("GET", f"{config_maps}/owner").status == 404)


def test_a_namespace_name_is_a_dns_label(api: Api) -> None:
    name = f"with.dot-{secrets.token_hex(3)}"
    answer = api("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    assert (answer.status, answer.body["details"]["causes"][0]["field"]) == (422, "metadata.name")
