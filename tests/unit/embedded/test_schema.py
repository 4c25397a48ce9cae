"""Decoding, defaulting and checking by a structural schema."""

from __future__ import annotations

from typing import Any

import pytest

from embedded.checking import check
from embedded.decoding import decode, json_error, prune
from embedded.defaulting import normalise, set_defaults
from embedded.kinds import BUILTIN
from embedded.patterns import go_pattern
from embedded.schema import compile_schema

BY_NAME = {kind.kind: kind for kind in BUILTIN}
DEPLOYMENT = BY_NAME["Deployment"].schema

WIDGET = compile_schema(
    {
        "type": "object",
        "required": ["size"],
        "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 10},
            "name": {"type": "string", "minLength": 2, "maxLength": 5, "pattern": "^[a-z]+$"},
            "mode": {"type": "string", "enum": ["fast", "slow"], "default": "fast"},
            "port": {"x-kubernetes-int-or-string": True},
            "maybe": {"type": "string", "nullable": True},
            "parts": {
                "type": "array",
                "maxItems": 2,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"type": "string"}, "count": {"type": "integer", "default": 1}},
                },
            },
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }
)


def causes(value: Any, old: Any = None) -> list[str]:
    found = check(WIDGET, value) if old is None else check(WIDGET, value, old)
    return [str(cause) for cause in found]


def test_unknown_fields_are_named_with_their_path() -> None:
    body = {
        "spec": {"foo": 1, "template": {"spec": {"containers": [{"bar": 1}]}}},
        "metadata": {"labels": {"any": "x"}},
    }
    assert decode(DEPLOYMENT, body).unknown == [
        'unknown field "spec.foo"',
        'unknown field "spec.template.spec.containers[0].bar"',
    ]


def test_a_wrong_type_is_worded_as_the_decoder_words_it() -> None:
    (wrong,) = decode(DEPLOYMENT, {"spec": {"replicas": "3"}}).wrong
    assert json_error(wrong) == (
        "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
    )


@pytest.mark.parametrize("value", ["2GB", "2 Gi", "x"])
def test_a_quantity_that_cannot_be_parsed_is_unreadable(value: str) -> None:
    containers = [{"name": "x", "resources": {"limits": {"cpu": value}}}]
    found = decode(DEPLOYMENT, {"spec": {"template": {"spec": {"containers": containers}}}})
    assert found.unreadable[0].startswith("quantities must match the regular expression")


def test_pruning_drops_what_the_schema_does_not_know_and_keeps_what_may_be_anything() -> None:
    value = {"size": 1, "x": 1, "parts": [{"name": "a", "y": 1}], "free": {"z": {"deep": 1}}}
    prune(WIDGET, value)
    assert value == {"size": 1, "parts": [{"name": "a"}], "free": {"z": {"deep": 1}}}


def test_defaults_come_into_nested_values_too_and_a_null_counts_as_absent() -> None:
    value: dict[str, Any] = {"size": 1, "mode": None, "name": None, "maybe": None, "parts": [{"name": "a"}]}
    set_defaults(WIDGET, value)
    assert value == {"size": 1, "mode": "fast", "maybe": None, "parts": [{"name": "a", "count": 1}]}


def test_a_built_in_kind_has_its_structs_and_neither_nulls_nor_empty_optional_fields() -> None:
    container = {"name": "x", "env": [], "command": None, "ports": [{"containerPort": 80, "hostPort": 0}]}
    value: dict[str, Any] = {
        "spec": {"paused": False, "replicas": 0, "template": {"spec": {"containers": [container]}}}
    }
    normalise(DEPLOYMENT, value)
    assert value["status"] == {}
    assert "paused" not in value["spec"]
    assert value["spec"]["replicas"] == 0  # a pointer: an explicit zero is a value
    (held,) = value["spec"]["template"]["spec"]["containers"]
    assert held == {"name": "x", "ports": [{"containerPort": 80, "protocol": "TCP"}], "resources": {}}
    before = repr(value)
    normalise(DEPLOYMENT, value)
    assert repr(value) == before


@pytest.mark.parametrize(
    ("value", "messages"),
    [
        ({"size": 5}, []),
        ({}, ["size: Required value"]),
        ({"size": 0}, ["size: Invalid value: 0: size in body should be greater than or equal to 1"]),
        ({"size": 11}, ["size: Invalid value: 11: size in body should be less than or equal to 10"]),
        ({"size": "5"}, ['size: Invalid value: "string": size in body must be of type integer: "string"']),
        ({"size": 5, "mode": "x"}, ['mode: Unsupported value: "x": supported values: "fast", "slow"']),
        ({"size": 5, "name": "a"}, ['name: Invalid value: "a": name in body should be at least 2 chars long']),
        ({"size": 5, "name": "abcdef"}, ["name: Too long: may not be more than 5 bytes"]),
        ({"size": 5, "name": "A1"}, ["name: Invalid value: \"A1\": name in body should match '^[a-z]+$'"]),
        ({"size": 5, "name": "ab\n"}, ["name: Invalid value: \"ab\\n\": name in body should match '^[a-z]+$'"]),
        ({"size": 5, "port": "http"}, []),
        ({"size": 5, "maybe": None}, []),
        ({"size": 5, "name": None}, ['name: Invalid value: "null": name in body must be of type string: "null"']),
        ({"size": 5, "parts": [{}]}, ["parts[0].name: Required value"]),
        (
            {"size": 5, "parts": [{"name": "a"}, {"name": "a"}]},
            ['parts[1]: Duplicate value: {"name":"a"}'],
        ),
        (
            {"size": 5, "parts": [{"name": "a"}, {"name": "b"}, {"name": "c"}]},
            ["parts: Too many: 3: must have at most 2 items"],
        ),
    ],
)
def test_a_custom_object_is_refused_in_the_servers_words(value: Any, messages: list[str]) -> None:
    assert causes(value) == messages


def test_what_was_stored_and_has_not_changed_is_not_refused_after_the_schema_became_stricter() -> None:
    stored = {"size": 11, "name": "A1"}
    assert causes({**stored, "mode": "slow"}, old=stored) == []
    assert causes({**stored, "size": 12}, old=stored) == [
        "size: Invalid value: 12: size in body should be less than or equal to 10"
    ]


RULED = compile_schema(
    {
        "type": "object",
        "x-kubernetes-validations": [
            {"rule": "self.low <= self.high", "message": "low must not be above high", "fieldPath": ".low"},
            {"rule": "self.id == oldSelf.id", "message": "id is immutable"},
        ],
        "properties": {"low": {"type": "integer"}, "high": {"type": "integer"}, "id": {"type": "string"}},
    }
)


def test_rules_name_their_field_and_message() -> None:
    found = check(RULED, {"low": 2, "high": 1})
    assert [str(cause) for cause in found] == [".low: Invalid value: low must not be above high".removeprefix(".")]


def test_a_transition_rule_runs_on_updates_alone() -> None:
    assert check(RULED, {"low": 1, "high": 1, "id": "a"}) == []
    assert check(RULED, {"low": 1, "high": 1, "id": "b"}, {"low": 1, "high": 1, "id": "a"}) != []


def test_rules_are_not_tried_on_a_value_that_does_not_fit_and_the_answer_says_so() -> None:
    found = [str(cause) for cause in check(RULED, {"low": "x", "high": 1})]
    assert len(found) == 2
    assert found[1].startswith("<nil>: Invalid value: null: some validation rules were not checked")


def test_a_rule_without_an_answer_is_a_refusal() -> None:
    (cause,) = check(RULED, {"low": 1})
    assert "no such key: high evaluating rule: low must not be above high" in cause.message


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("2026-02-20T00:00:00Z", True),
        ("2026-02-20t00:00:00.123456789z", True),
        ("2026-02-20T00:00:00+99:99", True),
        ("2026-02-20T23:59:60Z", False),
        ("2026-02-20T24:00:00Z", False),
        ("2026-02-30T00:00:00Z", False),
        ("2026-02-20T00:00:00", False),
        ("2026-02-20 00:00:00Z", False),
        ("2026-02-20", False),
        ("", False),
    ],
)
def test_a_moment_of_a_custom_kind_is_read_as_the_server_reads_it(text: str, fits: bool) -> None:
    schema = compile_schema({"type": "object", "properties": {"at": {"type": "string", "format": "date-time"}}})
    shown = f'at: Invalid value: "{text}": at in body must be of type date-time: "{text}"'
    assert [str(cause) for cause in check(schema, {"at": text})] == ([] if fits else [shown])


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        (r"^a$", "a\n", False),
        (r"^[$]$", "$", True),
        (r"^\$$", "$", True),
        (r"^[[:alpha:]]+\z", "abc", True),
        (r"^(?i)(abort|warn)?$", "ABORT", True),
        (r"^\d+$", "٣", False),
    ],
)
def test_go_patterns_mean_the_same_here(pattern: str, text: str, matches: bool) -> None:
    assert (go_pattern(pattern).search(text) is not None) == matches
