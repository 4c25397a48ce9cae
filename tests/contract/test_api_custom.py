"""Kinds that somebody brings along: CustomResourceDefinitions, and objects of their kinds."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.contract.client import MERGE, STRATEGIC, Api, eventually

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1, "maximum": 10},
                "color": {"type": "string", "enum": ["red", "green"], "default": "red"},
                "model": {
                    "type": "string",
                    "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "model is immutable"}],
                },
                "low": {"type": "integer"},
                "high": {"type": "integer"},
                "replicas": {"type": "integer", "minimum": 0},
                "parts": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"type": "string"}, "value": {"type": "string"}},
                    },
                },
            },
            "x-kubernetes-validations": [
                {
                    "rule": "!has(self.low) || !has(self.high) || self.low <= self.high",
                    "message": "low must not be above high",
                }
            ],
        },
        "status": {"type": "object", "properties": {"phase": {"type": "string"}, "replicas": {"type": "integer"}}},
    },
}


class Widgets(NamedTuple):
    """A custom kind of this test alone."""

    crd: str
    group: str
    path: str

    def widget(self, name: str, **spec: Any) -> dict[str, Any]:
        return {
            "apiVersion": f"{self.group}/v1",
            "kind": "Widget",
            "metadata": {"name": name},
            "spec": {"size": 1, **spec},
        }


def definition(group: str) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "plural": "widgets",
                "singular": "widget",
                "kind": "Widget",
                "listKind": "WidgetList",
                "shortNames": ["wd"],
            },
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": SCHEMA},
                    "subresources": {
                        "status": {},
                        "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
                    },
                    "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                }
            ],
        },
    }


@pytest.fixture
def widgets(api: Api, namespace: str) -> Iterator[Widgets]:
    group = f"g{secrets.token_hex(4)}.example.com"
    crd = f"{CRDS}/widgets.{group}"
    path = f"/apis/{group}/v1/namespaces/{namespace}/widgets"
    assert api.apply(crd, definition(group)).status == 201
    eventually(lambda: api("GET", path).status == 200)
    yield Widgets(crd, group, path)
    api("DELETE", crd)


def test_a_definition_is_established(api: Api, widgets: Widgets) -> None:
    status = api("GET", widgets.crd).body["status"]
    assert {item["type"]: item["status"] for item in status["conditions"]} == {
        "NamesAccepted": "True",
        "Established": "True",
    }
    assert (status["acceptedNames"]["plural"], status["storedVersions"]) == ("widgets", ["v1"])


def test_a_definition_that_contradicts_itself_is_refused(api: Api) -> None:
    body = definition("example.com")
    body["metadata"]["name"] = "gadgets.example.com"
    answer = api("POST", CRDS, body)
    assert answer.status == 422
    assert answer.body["details"]["causes"][0]["field"] == "metadata.name"


def test_a_custom_kind_is_discovered(api: Api, widgets: Widgets) -> None:
    listed = eventually(lambda: api("GET", f"/apis/{widgets.group}/v1").body["resources"])
    resource = next(item for item in listed if item["name"] == "widgets")
    assert (resource["kind"], resource["shortNames"], resource["namespaced"]) == ("Widget", ["wd"], True)
    assert widgets.group in {group["name"] for group in api("GET", "/apis").body["groups"]}


def test_custom_objects_get_defaults(api: Api, widgets: Widgets) -> None:
    answer = api("POST", widgets.path, widgets.widget("a"))
    assert (answer.status, answer.body["spec"]) == (201, {"size": 1, "color": "red"})
    assert answer.body["metadata"]["generation"] == 1


def test_items_of_a_list_of_custom_objects_have_a_kind(api: Api, widgets: Widgets) -> None:
    api("POST", widgets.path, widgets.widget("a"))
    body = api("GET", widgets.path).body
    assert (body["kind"], body["items"][0]["kind"], body["items"][0]["apiVersion"]) == (
        "WidgetList",
        "Widget",
        f"{widgets.group}/v1",
    )


@pytest.mark.parametrize(
    ("spec", "field", "text"),
    [
        ({"size": 11}, "spec.size", "should be less than or equal to 10"),
        ({"size": "many"}, "spec.size", "must be of type integer"),
        ({"color": "blue"}, "spec.color", 'supported values: "red", "green"'),
        ({"low": 3, "high": 1}, "spec", "low must not be above high"),
        ({"parts": [{"name": "x"}, {"name": "x"}]}, "spec.parts[1]", "Duplicate value"),
    ],
)
def test_custom_objects_keep_to_their_schema(
    api: Api, widgets: Widgets, spec: dict[str, Any], field: str, text: str
) -> None:
    answer = api("POST", widgets.path, widgets.widget("a", **spec))
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    causes = {cause["field"]: cause["message"] for cause in answer.body["details"]["causes"]}
    assert text in causes[field]


def test_a_required_field_is_required(api: Api, widgets: Widgets) -> None:
    body = widgets.widget("a")
    del body["spec"]["size"]
    answer = api("POST", widgets.path, body)
    assert answer.status == 422
    assert answer.body["message"].startswith(f'Widget.{widgets.group} "a" is invalid: ')
    assert answer.body["details"]["causes"][0] == {
        "reason": "FieldValueRequired",
        "message": "Required value",
        "field": "spec.size",
    }


def test_a_rule_may_look_at_the_old_value(api: Api, widgets: Widgets) -> None:
    api("POST", widgets.path, widgets.widget("a", model="m1"))
    answer = api("PATCH", f"{widgets.path}/a", {"spec": {"model": "m2"}}, content_type=MERGE)
    assert answer.status == 422
    assert "model is immutable" in answer.body["message"]
    assert api("PATCH", f"{widgets.path}/a", {"spec": {"size": 2}}, content_type=MERGE).status == 200


def test_unknown_fields_of_custom_objects_are_dropped_or_refused(api: Api, widgets: Widgets) -> None:
    refused = api("POST", f"{widgets.path}?fieldValidation=Strict", widgets.widget("a", weight=1))
    assert refused.status == 400
    assert 'unknown field "spec.weight"' in refused.body["message"]
    warned = api("POST", widgets.path, widgets.widget("a", weight=1))
    assert 'unknown field \\"spec.weight\\"' in warned.headers["warning"]
    assert "weight" not in warned.body["spec"]


def test_custom_objects_are_applied(api: Api, widgets: Widgets) -> None:
    api.apply(f"{widgets.path}/a", widgets.widget("a", parts=[{"name": "x", "value": "1"}]))
    merged = api.apply(f"{widgets.path}/a", widgets.widget("a", parts=[{"name": "y", "value": "2"}]), manager="other")
    assert [part["name"] for part in merged.body["spec"]["parts"]] == ["x", "y"]
    answer = api.apply(f"{widgets.path}/a", widgets.widget("a", parts=[{"name": "x", "value": "3"}]), manager="other")
    assert answer.status == 409
    assert answer.body["details"]["causes"][0]["field"] == '.spec.parts[name="x"].value'
    again = api.apply(f"{widgets.path}/a", widgets.widget("a", parts=[{"name": "x", "value": "1"}]))
    assert again.body == api("GET", f"{widgets.path}/a").body


def test_unknown_fields_of_custom_objects_cannot_be_applied(api: Api, widgets: Widgets) -> None:
    for query in ("", "&fieldValidation=Strict"):
        answer = api.apply(f"{widgets.path}/a", widgets.widget("a", weight=1), query=query)
        assert answer.status == 500
        assert ".spec.weight: field not declared in schema" in answer.body["message"]


def test_custom_objects_know_no_strategic_merge_patch(api: Api, widgets: Widgets) -> None:
    api("POST", widgets.path, widgets.widget("a"))
    answer = api("PATCH", f"{widgets.path}/a", {"spec": {"size": 2}}, content_type=STRATEGIC)
    assert (answer.status, answer.body["reason"]) == (415, "UnsupportedMediaType")


def test_custom_objects_are_not_replaced_blindly(api: Api, widgets: Widgets) -> None:
    created = api("POST", widgets.path, widgets.widget("a")).body
    assert api("PUT", f"{widgets.path}/a", widgets.widget("a", size=2)).status == 422
    created["spec"]["size"] = 2
    assert api("PUT", f"{widgets.path}/a", created).body["metadata"]["generation"] == 2


def test_the_status_of_custom_objects_is_apart(api: Api, widgets: Widgets) -> None:
    created = api("POST", widgets.path, {**widgets.widget("a"), "status": {"phase": "Done"}}).body
    assert "status" not in created
    patch = {"spec": {"size": 9}, "status": {"phase": "Done"}}
    body = api("PATCH", f"{widgets.path}/a/status", patch, content_type=MERGE).body
    assert (body["spec"]["size"], body["status"], body["metadata"]["generation"]) == (1, {"phase": "Done"}, 1)


def test_custom_objects_scale(api: Api, widgets: Widgets) -> None:
    api("POST", widgets.path, widgets.widget("a", replicas=2))
    assert api("GET", f"{widgets.path}/a/scale").body["spec"] == {"replicas": 2}
    answer = api("PATCH", f"{widgets.path}/a/scale", {"spec": {"replicas": 5}}, content_type=MERGE)
    assert answer.body["spec"] == {"replicas": 5}
    assert api("GET", f"{widgets.path}/a").body["spec"]["replicas"] == 5


def test_custom_objects_come_as_a_table(api: Api, widgets: Widgets) -> None:
    api("POST", widgets.path, widgets.widget("a", size=7))
    body = api("GET", widgets.path, accept="application/json;as=Table;v=v1;g=meta.k8s.io").body
    assert [column["name"] for column in body["columnDefinitions"]] == ["Name", "Size"]
    assert body["rows"][0]["cells"] == ["a", 7]


def test_custom_objects_are_watched(api: Api, widgets: Widgets) -> None:
    version = api("GET", widgets.path).body["metadata"]["resourceVersion"]
    with api.watch(widgets.path, f"resourceVersion={version}") as events:
        created = api("POST", widgets.path, widgets.widget("a")).body
        assert next(events) == {"type": "ADDED", "object": created}


def test_a_definition_takes_its_objects_along(api: Api, widgets: Widgets) -> None:
    api("POST", widgets.path, widgets.widget("a"))
    api("DELETE", widgets.crd)
    eventually(lambda: api("GET", widgets.crd).status == 404)
    eventually(lambda: api("GET", widgets.path).status == 404)
    assert api.apply(widgets.crd, definition(widgets.group)).status == 201
    eventually(lambda: api("GET", widgets.path).status == 200)
    assert api("GET", widgets.path).body["items"] == []


def test_a_definition_can_gain_a_version(api: Api, widgets: Widgets) -> None:
    api("POST", widgets.path, widgets.widget("a"))
    newer = definition(widgets.group)
    newer["spec"]["versions"].append({**newer["spec"]["versions"][0], "name": "v2", "storage": False})
    assert api.apply(widgets.crd, newer).status == 200
    path = widgets.path.replace("/v1/", "/v2/")
    body = eventually(lambda: (answer := api("GET", f"{path}/a")).status == 200 and answer.body)
    assert (body["apiVersion"], body["spec"]["size"]) == (f"{widgets.group}/v2", 1)
