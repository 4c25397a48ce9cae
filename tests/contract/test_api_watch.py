"""Watches: every change, in order, from a known revision on."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

from tests.contract.client import MERGE, Api, config_map


def seen(events: Any, number: int) -> list[tuple[str, str]]:
    """The next events: type and name."""
    return [(event["type"], event["object"]["metadata"]["name"]) for event in islice(events, number)]


def revision(api: Api, path: str) -> str:
    version: str = api("GET", path).body["metadata"]["resourceVersion"]
    return version


def test_a_watch_from_a_list_shows_only_what_comes_after(api: Api, config_maps: str) -> None:
    api("POST", config_maps, config_map("before"))
    with api.watch(config_maps, f"resourceVersion={revision(api, config_maps)}") as events:
        api("POST", config_maps, config_map("a", {"key": "1"}))
        api("PATCH", f"{config_maps}/a", {"data": {"key": "2"}}, content_type=MERGE)
        api("DELETE", f"{config_maps}/a")
        assert seen(events, 3) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]


def test_events_carry_the_whole_object_and_its_revision(api: Api, config_maps: str) -> None:
    with api.watch(config_maps, f"resourceVersion={revision(api, config_maps)}") as events:
        created = api("POST", config_maps, config_map("a", {"key": "1"})).body
        api("DELETE", f"{config_maps}/a")
        added, deleted = islice(events, 2)
    assert added["object"] == created
    assert deleted["object"]["data"] == {"key": "1"}
    assert int(deleted["object"]["metadata"]["resourceVersion"]) > int(created["metadata"]["resourceVersion"])


def test_a_watch_goes_back_in_history(api: Api, config_maps: str) -> None:
    start = revision(api, config_maps)
    api("POST", config_maps, config_map("a"))
    api("POST", config_maps, config_map("b"))
    api("DELETE", f"{config_maps}/a")
    with api.watch(config_maps, f"resourceVersion={start}") as events:
        assert seen(events, 3) == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")]


@pytest.mark.parametrize("query", ["", "resourceVersion=0"])
def test_a_watch_from_nowhere_begins_with_what_is_there(api: Api, config_maps: str, query: str) -> None:
    api("POST", config_maps, config_map("a"))
    with api.watch(config_maps, f"fieldSelector=metadata.name=a&{query}") as events:
        assert seen(events, 1) == [("ADDED", "a")]
        api("DELETE", f"{config_maps}/a")
        assert seen(events, 1) == [("DELETED", "a")]


def test_a_streamed_list_ends_with_a_bookmark(api: Api, config_maps: str) -> None:
    api("POST", config_maps, config_map("a"))
    query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&labelSelector=!nothing"
    with api.watch(config_maps, f"fieldSelector=metadata.name=a&{query}") as events:
        added, bookmark = islice(events, 2)
        assert (added["type"], bookmark["type"]) == ("ADDED", "BOOKMARK")
        metadata = bookmark["object"]["metadata"]
        assert metadata["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert int(metadata["resourceVersion"]) >= int(added["object"]["metadata"]["resourceVersion"])
        api("DELETE", f"{config_maps}/a")
        assert seen(events, 1) == [("DELETED", "a")]


def test_a_streamed_list_needs_its_options(api: Api, config_maps: str) -> None:
    answer = api("GET", f"{config_maps}?watch=1&sendInitialEvents=true")
    assert (answer.status, answer.body["details"]["causes"][0]["field"]) == (422, "resourceVersionMatch")


def test_a_watch_ends_after_its_time(api: Api, config_maps: str) -> None:
    with api.watch(config_maps, f"timeoutSeconds=1&resourceVersion={revision(api, config_maps)}") as events:
        assert list(events) == []


def test_through_a_selector_objects_come_and_go(api: Api, config_maps: str) -> None:
    with api.watch(config_maps, f"labelSelector=tier=front&resourceVersion={revision(api, config_maps)}") as events:
        api("POST", config_maps, config_map("other", labels={"tier": "back"}))
        api("POST", config_maps, config_map("a", labels={"tier": "back"}))
        for tier in ("front", "front-2", "front"):
            api("PATCH", f"{config_maps}/a", {"metadata": {"labels": {"tier": tier}}}, content_type=MERGE)
        api("PATCH", f"{config_maps}/a", {"data": {"key": "1"}}, content_type=MERGE)
        api("DELETE", f"{config_maps}/a")
        assert seen(events, 5) == [
            ("ADDED", "a"),
            ("DELETED", "a"),
            ("ADDED", "a"),
            ("MODIFIED", "a"),
            ("DELETED", "a"),
        ]


def test_a_watch_of_one_object_sees_no_other(api: Api, config_maps: str) -> None:
    query = f"fieldSelector=metadata.name=a&resourceVersion={revision(api, config_maps)}"
    with api.watch(config_maps, query) as events:
        for name in ("b", "a", "c"):
            api("POST", config_maps, config_map(name))
        api("DELETE", f"{config_maps}/a")
        assert seen(events, 2) == [("ADDED", "a"), ("DELETED", "a")]


def test_a_watch_of_one_namespace_sees_no_other(api: Api, config_maps: str) -> None:
    with api.watch(config_maps, f"resourceVersion={revision(api, config_maps)}") as events:
        name = config_maps.split("/")[4]
        api("POST", "/api/v1/namespaces/default/configmaps", config_map(f"{name}-elsewhere"))
        api("POST", config_maps, config_map("a"))
        assert seen(events, 1) == [("ADDED", "a")]
    api("DELETE", f"/api/v1/namespaces/default/configmaps/{name}-elsewhere")


def test_an_object_that_did_not_change_makes_no_event(api: Api, config_maps: str) -> None:
    api.apply(f"{config_maps}/a", config_map("a", {"key": "1"}))
    with api.watch(config_maps, f"resourceVersion={revision(api, config_maps)}") as events:
        api.apply(f"{config_maps}/a", config_map("a", {"key": "1"}))
        api.apply(f"{config_maps}/b", config_map("b", {"key": "1"}))
        assert seen(events, 1) == [("ADDED", "b")]


def test_events_can_be_tables(api: Api, config_maps: str) -> None:
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    with api.watch(config_maps, f"resourceVersion={revision(api, config_maps)}", accept=accept) as events:
        api("POST", config_maps, config_map("a"))
        api("POST", config_maps, config_map("b"))
        first, second = (event["object"] for event in islice(events, 2))
    assert [first["kind"], first["rows"][0]["cells"][0], second["rows"][0]["cells"][0]] == ["Table", "a", "b"]
    assert [column["name"] for column in first["columnDefinitions"]] == ["Name", "Data", "Age"]
    assert not second["columnDefinitions"]


def test_a_revision_that_is_none_is_refused(api: Api, config_maps: str) -> None:
    assert api("GET", f"{config_maps}?watch=1&resourceVersion=abc").status == 500
