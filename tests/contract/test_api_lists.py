"""Lists: selectors, pages, and the forms that they are given in."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.contract.client import Api, config_map, is_given

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"

LABELS: dict[str, dict[str, str]] = {
    "a": {"tier": "front", "weight": "1"},
    "b": {"tier": "back", "weight": "20", "canary": ""},
    "c": {"tier": "front", "weight": "20", "canary": "yes"},
    "d": {},
}


@pytest.fixture
def labelled(api: Api, config_maps: str) -> str:
    for name, labels in LABELS.items():
        assert api("POST", config_maps, config_map(name, labels=labels)).status == 201
    return config_maps


def names(answer: Any) -> list[str]:
    found = [item["metadata"]["name"] for item in answer.body["items"]]
    return [name for name in found if not is_given(name)]


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ("tier=front", "ac"),
        ("tier==front", "ac"),
        ("tier!=front", "bd"),
        ("tier in (front, back)", "abc"),
        ("tier notin (back)", "acd"),
        ("canary", "bc"),
        ("!canary", "ad"),
        ("canary=", "b"),
        ("weight>5", "bc"),
        ("weight<5", "a"),
        ("tier=front,!canary", "a"),
        ("tier=front,tier=back", ""),
    ],
)
def test_a_label_selector_selects(api: Api, labelled: str, selector: str, selected: str) -> None:
    assert names(api("GET", f"{labelled}?labelSelector={quote(selector)}")) == list(selected)


@pytest.mark.parametrize("selector", ["a b", "a in (", "a in b", "a/b/c=d", "=x", "weight>many", "a=b c"])
def test_a_label_selector_that_is_none_is_refused(api: Api, config_maps: str, selector: str) -> None:
    answer = api("GET", f"{config_maps}?labelSelector={quote(selector)}")
    assert (answer.status, answer.body["reason"]) == (400, "BadRequest")
    assert "found '" in answer.body["message"] or "Invalid value" in answer.body["message"]


@pytest.mark.parametrize(
    ("selector", "selected"),
    [("metadata.name=b", "b"), ("metadata.name!=b", "acd"), ("metadata.name=b,metadata.name=c", "")],
)
def test_a_field_selector_selects(api: Api, labelled: str, selector: str, selected: str) -> None:
    assert names(api("GET", f"{labelled}?fieldSelector={selector}")) == list(selected)


def test_only_some_fields_can_be_selected(api: Api, config_maps: str) -> None:
    answer = api("GET", f"{config_maps}?fieldSelector=data.key=1")
    assert answer.status == 400
    assert answer.body["message"].startswith('"data.key" is not a known field selector')


def test_pods_are_selected_by_phase(api: Api, namespace: str) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    spec = {"containers": [{"name": "a", "image": "a"}]}
    api("POST", pods, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec})
    assert names(api("GET", f"{pods}?fieldSelector=status.phase=Pending")) == ["a"]
    assert names(api("GET", f"{pods}?fieldSelector=status.phase!=Pending")) == []


def test_a_list_has_a_kind_and_a_resource_version(api: Api, labelled: str) -> None:
    body = api("GET", labelled).body
    assert (body["kind"], body["apiVersion"]) == ("ConfigMapList", "v1")
    newest = max(int(item["metadata"]["resourceVersion"]) for item in body["items"])
    assert int(body["metadata"]["resourceVersion"]) >= newest


def test_items_of_a_list_of_built_in_kinds_have_no_kind_of_their_own(api: Api, labelled: str) -> None:
    assert "kind" not in api("GET", labelled).body["items"][0]


def test_all_namespaces_are_listed_together(api: Api, labelled: str, namespace: str) -> None:
    items = api("GET", "/api/v1/configmaps?labelSelector=tier").body["items"]
    assert {"a", "b", "c"} <= {item["metadata"]["name"] for item in items if item["metadata"]["namespace"] == namespace}


def test_a_list_comes_in_pages(api: Api, labelled: str) -> None:
    seen: list[str] = []
    token, versions = "", set()
    while True:
        answer = api("GET", f"{labelled}?limit=1{f'&continue={token}' if token else ''}")
        assert len(answer.body["items"]) == 1
        seen += names(answer)
        versions.add(answer.body["metadata"]["resourceVersion"])
        token = answer.body["metadata"].get("continue", "")
        if not token:
            break
    assert seen == list("abcd")
    assert len(versions) == 1


def test_a_page_tells_how_much_is_left(api: Api, labelled: str) -> None:
    whole = len(api("GET", labelled).body["items"])
    assert api("GET", f"{labelled}?limit=1").body["metadata"]["remainingItemCount"] == whole - 1


def test_pages_are_filled_with_what_is_selected(api: Api, labelled: str) -> None:
    first = api("GET", f"{labelled}?limit=2&labelSelector=canary")
    assert names(first) == ["b", "c"]
    rest = api("GET", f"{labelled}?limit=2&labelSelector=canary&continue={first.body['metadata']['continue']}")
    assert (names(rest), "continue" in rest.body["metadata"]) == ([], False)


def test_the_pages_of_a_list_belong_to_one_moment(api: Api, labelled: str) -> None:
    first = api("GET", f"{labelled}?limit=2").body
    api("POST", labelled, config_map("bb"))
    api("DELETE", f"{labelled}/d")
    rest = api("GET", f"{labelled}?limit=10&continue={first['metadata']['continue']}")
    assert [item["metadata"]["name"] for item in first["items"]] + names(rest) == list("abcd")


def test_a_continue_token_that_is_none_is_refused(api: Api, config_maps: str) -> None:
    answer = api("GET", f"{config_maps}?limit=1&continue=abc")
    assert answer.status == 400
    assert answer.body["message"].startswith("invalid continue token")


def test_a_list_as_of_an_older_revision(api: Api, labelled: str) -> None:
    version = api("GET", labelled).body["metadata"]["resourceVersion"]
    api("DELETE", f"{labelled}/a")
    old = api("GET", f"{labelled}?resourceVersion={version}&resourceVersionMatch=Exact")
    assert names(old) == list("abcd")
    assert names(api("GET", f"{labelled}?resourceVersion={version}&resourceVersionMatch=NotOlderThan")) == list("bcd")


def test_a_revision_to_come_cannot_be_listed(api: Api, config_maps: str) -> None:
    answer = api("GET", f"{config_maps}?resourceVersion=999999999")
    assert (answer.status, answer.body["reason"]) == (504, "Timeout")
    assert answer.body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"


@pytest.mark.parametrize(
    "query", ["resourceVersionMatch=Exact", "resourceVersion=1&resourceVersionMatch=Roughly", "sendInitialEvents=true"]
)
def test_list_options_that_make_no_sense_are_refused(api: Api, config_maps: str, query: str) -> None:
    answer = api("GET", f"{config_maps}?{query}")
    assert (answer.status, answer.body["details"]["kind"]) == (422, "ListOptions")


def test_a_list_can_be_of_metadata_alone(api: Api, labelled: str) -> None:
    body = api("GET", f"{labelled}?labelSelector=tier", accept=PARTIAL_LIST).body
    assert (body["kind"], body["apiVersion"]) == ("PartialObjectMetadataList", "meta.k8s.io/v1")
    assert [item["metadata"]["labels"] for item in body["items"]] == [LABELS["a"], LABELS["b"], LABELS["c"]]
    assert all(set(item) == {"kind", "apiVersion", "metadata"} for item in body["items"])


def test_a_list_can_be_a_table(api: Api, labelled: str) -> None:
    api("POST", labelled, config_map("e", {"one": "1", "two": "2"}, labels={"tier": "end"}))
    body = api("GET", f"{labelled}?labelSelector=tier=end", accept=TABLE).body
    assert (body["kind"], body["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert [column["name"] for column in body["columnDefinitions"]] == ["Name", "Data", "Age"]
    (row,) = body["rows"]
    assert row["cells"][:2] == ["e", 2]
    assert row["object"]["kind"] == "PartialObjectMetadata"
    assert row["object"]["metadata"]["labels"] == {"tier": "end"}


def test_a_table_carries_as_much_of_the_objects_as_is_asked_for(api: Api, labelled: str) -> None:
    query = f"{labelled}?labelSelector=canary=yes&includeObject="
    assert api("GET", f"{query}None", accept=TABLE).body["rows"][0]["object"] is None
    assert api("GET", f"{query}Object", accept=TABLE).body["rows"][0]["object"]["kind"] == "ConfigMap"


def test_one_object_can_be_a_table(api: Api, labelled: str) -> None:
    body = api("GET", f"{labelled}/a", accept=TABLE).body
    assert (body["kind"], body["rows"][0]["cells"][0]) == ("Table", "a")


def test_an_answer_that_nobody_can_give_is_refused(api: Api, config_maps: str) -> None:
    answer = api("GET", config_maps, accept="text/html")
    assert (answer.status, answer.body["reason"]) == (406, "NotAcceptable")
