"""JSON patch, JSON merge patch and strategic merge patch."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded.kinds import BUILTIN
from embedded.merge import PatchError, json_patch, merge_patch, strategic_merge_patch

DEPLOYMENT = next(kind for kind in BUILTIN if kind.kind == "Deployment")
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("document", "operations", "result"),
    [
        ({"a": 1}, [{"op": "add", "path": "/b", "value": 2}], {"a": 1, "b": 2}),
        ({"a": [1, 3]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2, 3]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}], {"a": [1, 2]}),
        ({"a": [1, 2]}, [{"op": "remove", "path": "/a/0"}], {"a": [2]}),
        ({"a": 1}, [{"op": "replace", "path": "/a", "value": None}], {"a": None}),
        ({"a": {"b": 1}}, [{"op": "move", "from": "/a/b", "path": "/c"}], {"a": {}, "c": 1}),
        ({"a": {"b": 1}}, [{"op": "copy", "from": "/a", "path": "/c"}], {"a": {"b": 1}, "c": {"b": 1}}),
        ({"a/b": {"c~d": 1}}, [{"op": "replace", "path": "/a~1b/c~0d", "value": 2}], {"a/b": {"c~d": 2}}),
        ({"a": 1}, [{"op": "test", "path": "/a", "value": 1}, {"op": "remove", "path": "/a"}], {}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"z": 1}}], {"z": 1}),
    ],
)
def test_json_patch_operations(document: Any, operations: Any, result: Any) -> None:
    before = repr(document)
    assert json_patch(document, operations) == result
    assert repr(document) == before


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ({"op": "test", "path": "/a", "value": 2}, "testing value /a failed: test failed"),
        ({"op": "test", "path": "/a", "value": True}, "testing value /a failed: test failed"),
        ({"op": "remove", "path": "/x"}, 'remove operation does not apply: doc is missing path: "/x": missing value'),
        ({"op": "replace", "path": "/x", "value": 1}, "missing value"),
        ({"op": "add", "path": "/l/7", "value": 1}, "invalid index referenced"),
        ({"op": "add", "path": "/l/x", "value": 1}, "invalid syntax"),
        ({"op": "fly", "path": "/a"}, "Unexpected kind"),
    ],
)
def test_an_operation_that_does_not_apply_refuses_the_whole_patch(operation: Any, message: str) -> None:
    with pytest.raises(PatchError, match=message) as refused:
        json_patch({"a": 1, "l": []}, [operation])
    assert refused.value.code == 422


def test_a_json_patch_that_is_no_list_is_malformed() -> None:
    with pytest.raises(PatchError) as refused:
        json_patch({}, {"a": 1})
    assert refused.value.code == 400


@given(json_values, json_values)
def test_a_merge_patch_applied_twice_does_what_it_did_once(document: Any, patch: Any) -> None:
    once = merge_patch(document, patch)
    assert merge_patch(once, patch) == once


def test_a_merge_patch_removes_with_null_and_replaces_lists() -> None:
    assert merge_patch({"a": {"b": 1, "c": 2}, "l": [1, 2]}, {"a": {"b": None}, "l": [3]}) == {"a": {"c": 2}, "l": [3]}


def containers(*items: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": list(items)}}}}


def patched(before: dict[str, Any], patch: dict[str, Any]) -> Any:
    result = strategic_merge_patch(DEPLOYMENT, before, {"spec": {"template": {"spec": patch}}})
    return result["spec"]["template"]["spec"]["containers"]


X, Y = {"name": "x", "image": "1"}, {"name": "y", "image": "2"}


@pytest.mark.parametrize(
    ("patch", "result"),
    [
        ({"containers": [{"name": "x", "image": "9"}]}, [{"name": "x", "image": "9"}, Y]),
        ({"containers": [{"name": "z"}]}, [{"name": "z"}, X, Y]),
        ({"containers": [{"name": "x", "$patch": "delete"}]}, [Y]),
        ({"containers": [{"$patch": "replace"}, {"name": "z"}]}, [{"name": "z"}]),
        ({"$setElementOrder/containers": [{"name": "y"}, {"name": "x"}]}, [Y, X]),
        (
            {
                "$setElementOrder/containers": [{"name": "x"}, {"name": "z"}],
                "containers": [{"name": "z"}],
            },
            [X, {"name": "z"}, Y],
        ),
        ({"containers": [{"name": "x", "image": None}]}, [{"name": "x"}, Y]),
    ],
)
def test_a_strategic_patch_merges_containers_by_name(patch: Any, result: Any) -> None:
    assert patched(containers(X, Y), patch) == result


def test_retain_keys_drops_the_other_member_of_a_union() -> None:
    before = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert strategic_merge_patch(DEPLOYMENT, before, patch) == {"spec": {"strategy": {"type": "Recreate"}}}


def test_lists_of_words_merge_and_words_can_be_deleted_from_them() -> None:
    before = {"metadata": {"finalizers": ["a", "b"]}}
    assert strategic_merge_patch(DEPLOYMENT, before, {"metadata": {"finalizers": ["c"]}}) == {
        "metadata": {"finalizers": ["c", "a", "b"]}
    }
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}
    assert strategic_merge_patch(DEPLOYMENT, before, patch) == {"metadata": {"finalizers": ["b"]}}


def test_a_list_without_a_merge_key_in_the_schema_is_replaced() -> None:
    before = {"spec": {"template": {"spec": {"tolerations": [{"key": "a"}]}}}}
    patch = {"spec": {"template": {"spec": {"tolerations": [{"key": "b"}]}}}}
    assert strategic_merge_patch(DEPLOYMENT, before, patch) == patch


def test_an_element_without_its_merge_key_is_refused() -> None:
    with pytest.raises(PatchError, match=r"map: map\[image:9\] does not contain declared merge key: name"):
        patched(containers(X), {"containers": [{"image": "9"}]})
