"""JSON patch, merge patch and strategic merge patch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.client import JSON_PATCH, MERGE, STRATEGIC, Api, config_map, deployment


def test_a_merge_patch_changes_adds_and_removes(api: Api, config_maps: str) -> None:
    api("POST", config_maps, config_map("a", {"keep": "1", "change": "1", "drop": "1"}))
    patch = {"data": {"change": "2", "drop": None, "add": "2"}}
    answer = api("PATCH", f"{config_maps}/a", patch, content_type=MERGE)
    assert (answer.status, answer.body["data"]) == (200, {"keep": "1", "change": "2", "add": "2"})


def test_a_json_patch_works_by_pointer(api: Api, config_maps: str) -> None:
    api("POST", config_maps, config_map("a", {"old": "1"}, annotations={"example.com/note": "1"}))
    operations = [
        {"op": "test", "path": "/data/old", "value": "1"},
        {"op": "replace", "path": "/metadata/annotations/example.com~1note", "value": "2"},
        {"op": "move", "from": "/data/old", "path": "/data/new"},
        {"op": "add", "path": "/metadata/labels", "value": {"x": "y"}},
    ]
    body = api("PATCH", f"{config_maps}/a", operations, content_type=JSON_PATCH).body
    assert body["data"] == {"new": "1"}
    assert (body["metadata"]["annotations"], body["metadata"]["labels"]) == ({"example.com/note": "2"}, {"x": "y"})


def test_a_json_patch_whose_test_fails_changes_nothing(api: Api, config_maps: str) -> None:
    api("POST", config_maps, config_map("a", {"key": "1"}))
    operations = [
        {"op": "replace", "path": "/data/key", "value": "2"},
        {"op": "test", "path": "/data/key", "value": "1"},
    ]
    answer = api("PATCH", f"{config_maps}/a", operations, content_type=JSON_PATCH)
    assert answer.status == 422
    assert api("GET", f"{config_maps}/a").body["data"] == {"key": "1"}


def test_a_strategic_merge_patch_merges_lists_by_key(api: Api, deployments: str) -> None:
    api("POST", deployments, deployment("a"))
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "proxy", "image": "proxy:1"}]}}}}
    body = api("PATCH", f"{deployments}/a", patch, content_type=STRATEGIC).body
    containers = {item["name"]: item["image"] for item in body["spec"]["template"]["spec"]["containers"]}
    assert containers == {"proxy": "proxy:1", "model": "registry.example/model:1"}
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "proxy", "$patch": "delete"}]}}}}
    body = api("PATCH", f"{deployments}/a", patch, content_type=STRATEGIC).body
    assert [item["name"] for item in body["spec"]["template"]["spec"]["containers"]] == ["model"]


def test_a_merge_patch_replaces_lists(api: Api, deployments: str) -> None:
    api("POST", deployments, deployment("a"))
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "only", "image": "only:1"}]}}}}
    body = api("PATCH", f"{deployments}/a", patch, content_type=MERGE).body
    assert [item["name"] for item in body["spec"]["template"]["spec"]["containers"]] == ["only"]


def test_a_patch_that_changes_nothing_writes_nothing(api: Api, config_maps: str) -> None:
    created = api("POST", config_maps, config_map("a", {"key": "1"})).body
    assert api("PATCH", f"{config_maps}/a", {"data": {"key": "1"}}, content_type=MERGE).body == created


def test_a_patch_may_carry_a_resource_version(api: Api, config_maps: str) -> None:
    api("POST", config_maps, config_map("a"))
    patch: dict[str, Any] = {"metadata": {"resourceVersion": "1"}, "data": {"key": "1"}}
    answer = api("PATCH", f"{config_maps}/a", patch, content_type=MERGE)
    assert (answer.status, answer.body["reason"]) == (409, "Conflict")


def test_a_patch_does_not_rename(api: Api, config_maps: str) -> None:
    api("POST", config_maps, config_map("a"))
    assert api("PATCH", f"{config_maps}/a", {"metadata": {"name": "b"}}, content_type=MERGE).status == 400


def test_patching_what_is_not_there_creates_nothing(api: Api, config_maps: str) -> None:
    assert api("PATCH", f"{config_maps}/a", {"data": {}}, content_type=MERGE).status == 404


@pytest.mark.parametrize(
    ("patch", "content_type", "status"),
    [("[]", MERGE, 400), ("{", MERGE, 400), ("{}", JSON_PATCH, 400), ("{}", "application/json", 415)],
)
def test_a_patch_that_is_none_is_refused(
    api: Api, config_maps: str, patch: str, content_type: str, status: int
) -> None:
    api("POST", config_maps, config_map("a"))
    assert api("PATCH", f"{config_maps}/a", patch, content_type=content_type).status == status
