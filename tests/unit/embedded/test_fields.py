"""Sets of fields: the algebra, and the walks over values."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from embedded import fields as sets
from embedded.schema import compile_schema

SCHEMA = compile_schema(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "selector": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "x-kubernetes-map-type": "atomic",
            },
            "args": {"type": "array", "items": {"type": "string"}},
            "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            "ports": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["port", "protocol"],
                "items": {
                    "type": "object",
                    "properties": {
                        "port": {"type": "integer"},
                        "protocol": {"type": "string", "default": "TCP"},
                        "name": {"type": "string"},
                    },
                },
            },
            "free": {"x-kubernetes-preserve-unknown-fields": True},
        },
    }
)

words = st.sampled_from(["a", "b", "c"])
ports = st.lists(
    st.fixed_dictionaries(
        {"port": st.integers(1, 3)}, optional={"protocol": st.sampled_from(["TCP", "UDP"]), "name": words}
    ),
    max_size=3,
    unique_by=lambda port: (port["port"], port.get("protocol", "TCP")),
)
free = st.recursive(
    st.none() | st.integers(0, 2) | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)
values = st.fixed_dictionaries(
    {},
    optional={
        "name": words,
        "labels": st.dictionaries(words, words, max_size=3),
        "selector": st.dictionaries(words, words, max_size=2),
        "args": st.lists(words, max_size=3),
        "tags": st.lists(words, max_size=3, unique=True),
        "ports": ports,
        "free": free,
    },
)
trees: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.just({}), lambda inner: st.dictionaries(st.sampled_from([".", "f:a", "f:b", "k:{}"]), inner, max_size=3)
).map(lambda tree: leaves_have_no_dot(tree))  # noqa: PLW0108 - defined below


def leaves_have_no_dot(tree: dict[str, Any]) -> dict[str, Any]:
    """The canonical form: "." holds nothing, and a member without children is empty."""
    out = {key: {} if key == "." else leaves_have_no_dot(child) for key, child in tree.items()}
    return {} if set(out) == {"."} else out


def members(fields: dict[str, Any]) -> set[str]:
    return set(sets.paths({key: node for key, node in fields.items() if key != "."}))


@given(trees, trees)
def test_union_intersection_and_difference_are_those_of_the_members(left: Any, right: Any) -> None:
    left.pop(".", None)
    right.pop(".", None)
    assert members(sets.union(left, right)) == members(left) | members(right)
    assert members(sets.intersection(left, right)) == members(left) & members(right)
    assert members(sets.difference(left, right)) == members(left) - members(right)


def test_applied_fields_are_claimed_leaf_by_leaf_keyed_lists_by_element_atomic_values_as_one() -> None:
    value = {
        "name": "x",
        "labels": {"a": "1"},
        "selector": {"b": "2"},
        "args": ["x"],
        "tags": ["t"],
        "ports": [{"port": 80, "name": "http"}],
    }
    assert sets.field_set(SCHEMA, value) == {
        "f:name": {},
        "f:labels": {"f:a": {}},
        "f:selector": {},
        "f:args": {},
        "f:tags": {'v:"t"': {}},
        "f:ports": {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:port": {}, "f:name": {}}},
    }


def test_an_empty_keyed_list_claims_nothing_and_an_empty_map_itself() -> None:
    assert sets.field_set(SCHEMA, {"tags": [], "labels": {}}) == {"f:labels": {}}


def test_paths_are_printed_as_conflict_messages_print_them() -> None:
    fields = {"f:ports": {'k:{"port":80,"protocol":"TCP"}': {"f:name": {}}}, "f:tags": {'v:"t"': {}}}
    assert list(sets.paths(fields)) == ['.ports[port=80,protocol="TCP"].name', '.tags[="t"]']


@given(values, values)
def test_merging_the_same_once_more_changes_nothing(live: Any, applied: Any) -> None:
    merged = sets.merge(SCHEMA, live, applied)
    assert sets.merge(SCHEMA, merged, applied) == merged
    assert sets.compare(SCHEMA, merged, merged) == ({}, {})


@given(values, values)
def test_a_merge_loses_no_field_of_a_granular_value(live: Any, applied: Any) -> None:
    granular = ("labels", "tags", "ports")
    before = {key: value for key, value in live.items() if key in granular and value}
    merged = sets.merge(SCHEMA, live, applied)
    assert members(sets.field_set(SCHEMA, before)) <= members(sets.field_set(SCHEMA, merged))


@given(values, values)
def test_comparing_says_what_changed_and_nothing_else(old: Any, new: Any) -> None:
    removed, changed = sets.compare(SCHEMA, old, new)
    assert (removed == {} and changed == {}) == (old == new or same_elements(old, new))
    assert sets.compare(SCHEMA, old, old) == ({}, {})


def same_elements(old: Any, new: Any) -> bool:
    """The order in a keyed list belongs to nobody."""

    def key(value: dict[str, Any]) -> dict[str, Any]:
        ports = sorted(value["ports"], key=str) if "ports" in value else None
        return {**value, "tags": sorted(value["tags"]) if "tags" in value else None, "ports": ports}

    return key(old) == key(new)


@given(values, values)
def test_the_arguments_of_a_merge_are_left_alone_and_not_shared(live: Any, applied: Any) -> None:
    before = repr((live, applied))
    merged = sets.merge(SCHEMA, live, applied)
    for container in (value for value in merged.values() if isinstance(value, dict | list)):
        container.clear()
    assert repr((live, applied)) == before


def test_the_order_of_the_applied_elements_wins_and_the_others_keep_their_places() -> None:
    merged = sets.merge(SCHEMA, {"tags": ["a", "b", "x"]}, {"tags": ["b", "a", "c"]})
    assert merged["tags"] == ["b", "x", "a", "c"]


def test_an_element_that_nobody_claims_any_more_goes_with_what_was_filled_into_it() -> None:
    value = {"ports": [{"port": 80, "protocol": "TCP", "name": "http"}, {"port": 81}]}
    last = sets.field_set(SCHEMA, {"ports": [{"port": 80}]})
    other = sets.field_set(SCHEMA, {"ports": [{"port": 81}]})
    sets.remove_stale(SCHEMA, value, last, [other])
    assert value == {"ports": [{"port": 81}]}


def test_a_field_that_somebody_else_claims_stays() -> None:
    value = {"labels": {"a": "1", "b": "2"}}
    last = sets.field_set(SCHEMA, value)
    sets.remove_stale(SCHEMA, value, last, [{"f:labels": {"f:b": {}}}])
    assert value == {"labels": {"b": "2"}}
