"""Server-side apply: who owns which field, and what that means."""

from __future__ import annotations

from typing import Any

from tests.contract.client import MERGE, Api, config_map, deployment, eventually


def managers(obj: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """fieldsV1 by manager and operation."""
    return {
        (entry["manager"], entry["operation"]): entry["fieldsV1"] for entry in obj["metadata"].get("managedFields", [])
    }


def test_applying_creates_what_is_not_there(api: Api, config_maps: str) -> None:
    answer = api.apply(f"{config_maps}/a", config_map("a", {"key": "1"}))
    assert (answer.status, answer.body["data"]) == (201, {"key": "1"})
    assert managers(answer.body) == {("trueup", "Apply"): {"f:data": {"f:key": {}}}}


def test_applying_accepts_yaml(api: Api, config_maps: str) -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  key: '1'\n"
    assert api.apply(f"{config_maps}/a", text).body["data"] == {"key": "1"}


def test_applying_needs_a_manager(api: Api, config_maps: str) -> None:
    answer = api("PATCH", f"{config_maps}/a", config_map("a"), content_type="application/apply-patch+yaml")
    assert answer.status == 422
    assert answer.body["details"]["causes"][0]["field"] == "fieldManager"
    assert "is required for apply patch" in answer.body["message"]


def test_applying_the_same_again_changes_nothing(api: Api, deployments: str) -> None:
    def applied() -> Any:
        return api.apply(f"{deployments}/a", deployment("a", replicas=2)).body

    eventually(lambda: applied() == applied())  # a controller may be at work in between


def test_a_field_that_is_applied_no_more_goes(api: Api, config_maps: str) -> None:
    api.apply(f"{config_maps}/a", config_map("a", {"keep": "1", "drop": "2"}))
    assert api.apply(f"{config_maps}/a", config_map("a", {"keep": "1"})).body["data"] == {"keep": "1"}


def test_a_field_that_another_applies_too_stays(api: Api, config_maps: str) -> None:
    api.apply(f"{config_maps}/a", config_map("a", {"shared": "1", "mine": "2"}))
    api.apply(f"{config_maps}/a", config_map("a", {"shared": "1"}), manager="other")
    assert api.apply(f"{config_maps}/a", config_map("a")).body["data"] == {"shared": "1"}


def test_a_default_returns_when_its_value_is_applied_no_more(api: Api, deployments: str) -> None:
    api.apply(f"{deployments}/a", deployment("a", replicas=7))
    assert api.apply(f"{deployments}/a", deployment("a")).body["spec"]["replicas"] == 1


def test_another_managers_value_is_a_conflict_that_names_manager_and_field(api: Api, deployments: str) -> None:
    api.apply(f"{deployments}/a", deployment("a", replicas=1), manager="first")
    answer = api.apply(f"{deployments}/a", deployment("a", replicas=2), manager="second")
    assert (answer.status, answer.body["reason"]) == (409, "Conflict")
    assert answer.body["message"] == 'Apply failed with 1 conflict: conflict with "first": .spec.replicas'
    assert answer.body["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "first"', "field": ".spec.replicas"}
    ]
    assert api("GET", f"{deployments}/a").body["spec"]["replicas"] == 1


def test_conflicts_name_list_items_by_their_key(api: Api, deployments: str) -> None:
    api.apply(f"{deployments}/a", deployment("a"), manager="first")
    other = deployment("a")
    other["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.example/model:2"
    answer = api.apply(f"{deployments}/a", other, manager="second")
    assert answer.status == 409
    (cause,) = answer.body["details"]["causes"]
    assert cause["field"] == '.spec.template.spec.containers[name="model"].image'


def test_several_conflicts_are_counted_and_listed(api: Api, config_maps: str) -> None:
    api.apply(f"{config_maps}/a", config_map("a", {"x": "1", "y": "1"}), manager="first")
    answer = api.apply(f"{config_maps}/a", config_map("a", {"x": "2", "y": "2"}), manager="second")
    assert answer.body["message"] == 'Apply failed with 2 conflicts: conflicts with "first":\n- .data.x\n- .data.y'


def test_what_an_update_set_conflicts_too(api: Api, config_maps: str) -> None:
    api("POST", f"{config_maps}?fieldManager=kubectl-edit", config_map("a", {"key": "1"}))
    answer = api.apply(f"{config_maps}/a", config_map("a", {"key": "2"}))
    assert answer.status == 409
    assert 'conflict with "kubectl-edit" using v1' in answer.body["message"]


def test_the_same_value_is_no_conflict_but_shared(api: Api, config_maps: str) -> None:
    api.apply(f"{config_maps}/a", config_map("a", {"key": "1"}), manager="first")
    answer = api.apply(f"{config_maps}/a", config_map("a", {"key": "1"}), manager="second")
    assert answer.status == 200
    assert set(managers(answer.body)) == {("first", "Apply"), ("second", "Apply")}


def test_force_takes_the_field_over(api: Api, config_maps: str) -> None:
    api.apply(f"{config_maps}/a", config_map("a", {"key": "1", "other": "1"}), manager="first")
    answer = api.apply(f"{config_maps}/a", config_map("a", {"key": "2"}), manager="second", query="&force=true")
    assert answer.body["data"] == {"key": "2", "other": "1"}
    assert managers(answer.body) == {
        ("first", "Apply"): {"f:data": {"f:other": {}}},
        ("second", "Apply"): {"f:data": {"f:key": {}}},
    }


def test_force_is_for_applying_only(api: Api, config_maps: str) -> None:
    api("POST", config_maps, config_map("a"))
    answer = api("PATCH", f"{config_maps}/a?force=true", {"data": {"k": "v"}}, content_type=MERGE)
    assert (answer.status, answer.body["details"]["causes"][0]["field"]) == (422, "force")


def test_an_update_takes_the_field_from_who_applied_it(api: Api, config_maps: str) -> None:
    api.apply(f"{config_maps}/a", config_map("a", {"key": "1", "other": "1"}))
    api("PATCH", f"{config_maps}/a?fieldManager=human", {"data": {"key": "2"}}, content_type=MERGE)
    owned = managers(api("GET", f"{config_maps}/a").body)
    assert owned[("trueup", "Apply")] == {"f:data": {"f:other": {}}}
    assert owned[("human", "Update")] == {"f:data": {"f:key": {}}}


def test_containers_merge_by_name(api: Api, deployments: str) -> None:
    api.apply(f"{deployments}/a", deployment("a"))
    sidecar: dict[str, Any] = deployment("a")
    sidecar["spec"] = {
        "selector": {"matchLabels": {"app": "a"}},
        "template": {
            "metadata": {"labels": {"app": "a"}},
            "spec": {"containers": [{"name": "proxy", "image": "proxy:1"}]},
        },
    }
    both = api.apply(f"{deployments}/a", sidecar, manager="mesh").body
    assert [container["name"] for container in both["spec"]["template"]["spec"]["containers"]] == ["model", "proxy"]
    alone = api.apply(
        f"{deployments}/a", {**deployment("a"), "spec": {"selector": {"matchLabels": {"app": "a"}}}}, manager="mesh"
    )
    assert [c["name"] for c in alone.body["spec"]["template"]["spec"]["containers"]] == ["model"]


def test_finalizers_merge_as_a_set(api: Api, config_maps: str) -> None:
    api.apply(f"{config_maps}/a", config_map("a", finalizers=["example.com/one"]))
    both = api.apply(f"{config_maps}/a", config_map("a", finalizers=["example.com/two"]), manager="other").body
    assert both["metadata"]["finalizers"] == ["example.com/one", "example.com/two"]
    one = api.apply(f"{config_maps}/a", config_map("a"), manager="other").body
    assert one["metadata"]["finalizers"] == ["example.com/one"]
    api.apply(f"{config_maps}/a", config_map("a"))


def test_a_dry_run_gives_the_merged_object_and_writes_nothing(api: Api, config_maps: str) -> None:
    api("POST", f"{config_maps}?fieldManager=human", config_map("a", {"theirs": "1"}))
    merged = api.apply(f"{config_maps}/a", config_map("a", {"ours": "2"}), query="&dryRun=All")
    assert merged.body["data"] == {"theirs": "1", "ours": "2"}
    assert api("GET", f"{config_maps}/a").body["data"] == {"theirs": "1"}
    assert api.apply(f"{config_maps}/b", config_map("b"), query="&dryRun=All").status == 201
    assert api("GET", f"{config_maps}/b").status == 404


def test_an_unknown_field_cannot_be_applied(api: Api, config_maps: str) -> None:
    answer = api.apply(f"{config_maps}/a", {**config_map("a"), "size": 1}, query="&fieldValidation=Strict")
    assert answer.status == 500
    assert ".size: field not declared in schema" in answer.body["message"]


def test_managed_fields_cannot_be_applied(api: Api, config_maps: str) -> None:
    answer = api.apply(f"{config_maps}/a", config_map("a", managedFields=[]))
    assert (answer.status, answer.body["message"]) == (400, "metadata.managedFields must be nil")


def test_a_resource_version_makes_applying_conditional(api: Api, config_maps: str) -> None:
    version = api.apply(f"{config_maps}/a", config_map("a", {"key": "1"})).body["metadata"]["resourceVersion"]
    fresh = api.apply(f"{config_maps}/a", config_map("a", {"key": "2"}, resourceVersion=version))
    assert fresh.status == 200
    stale = api.apply(f"{config_maps}/a", config_map("a", {"key": "3"}, resourceVersion=version))
    assert (stale.status, stale.body["reason"]) == (409, "Conflict")


def test_applying_another_kind_or_name_is_refused(api: Api, config_maps: str) -> None:
    assert api.apply(f"{config_maps}/a", {"metadata": {"name": "a"}}).status == 400
    assert api.apply(f"{config_maps}/a", config_map("b")).status == 400


def test_applying_into_a_missing_namespace_names_the_namespace(api: Api) -> None:
    answer = api.apply("/api/v1/namespaces/not-there/configmaps/a", config_map("a"))
    assert (answer.status, answer.body["details"]["kind"]) == (404, "namespaces")


def test_clearing_managed_fields_makes_everything_unowned(api: Api, config_maps: str) -> None:
    api.apply(f"{config_maps}/a", config_map("a", {"key": "1"}), manager="first")
    api("PATCH", f"{config_maps}/a", {"metadata": {"managedFields": [{}]}}, content_type=MERGE)
    assert managers(api("GET", f"{config_maps}/a").body) == {}


def test_status_is_applied_to_its_subresource(api: Api, deployments: str) -> None:
    api.apply(f"{deployments}/a", deployment("a"))
    status = {**deployment("a"), "status": {"collisionCount": 3}}  # a field that no controller sets
    applied = api.apply(f"{deployments}/a/status", status, manager="controller")
    assert applied.body["status"]["collisionCount"] == 3
    entry = next(entry for entry in applied.body["metadata"]["managedFields"] if entry["manager"] == "controller")
    assert (entry["subresource"], entry["fieldsV1"]) == ("status", {"f:status": {"f:collisionCount": {}}})
    ignored = api.apply(f"{deployments}/a", {**deployment("a"), "status": {"collisionCount": 9}})
    assert ignored.body["status"]["collisionCount"] == 3
