"""Server-side apply: who owns what, who is asked, what goes."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedded import kinds, merge
from embedded.kinds import BUILTIN, Kind
from tests.conftest import examples

BY_NAME = {kind.kind: kind for kind in BUILTIN}
CONFIG_MAP, DEPLOYMENT = BY_NAME["ConfigMap"], BY_NAME["Deployment"]
START = datetime(2026, 1, 1, tzinfo=UTC)
LATER = START + timedelta(hours=1)


def config_map(data: dict[str, str] | None = None, **metadata: Any) -> dict[str, Any]:
    out: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", **metadata}}
    return {**out, "data": data} if data else out


def deployment(**spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "model", "image": "i"}]}}
    base = {"selector": {"matchLabels": {"app": "x"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {**base, **spec}}


def applied(kind: Kind, live: dict[str, Any] | None, body: dict[str, Any], manager: str, **options: Any) -> Any:
    result = merge.apply(kind, live, body, manager=manager, **{"force": False, "now": START, **options})
    return result if isinstance(result, merge.Conflicts) else result.object


def updated(kind: Kind, live: dict[str, Any], change: dict[str, Any], manager: str, now: datetime = START) -> Any:
    obj = merge.merge_patch(live, change)
    kinds.defaults(kind, obj)
    merge.update(kind, live, obj, manager=manager, now=now)
    return obj


def owners(obj: dict[str, Any]) -> dict[str, Any]:
    return {entry["manager"]: entry["fieldsV1"] for entry in obj["metadata"].get("managedFields", ())}


def test_an_apply_records_what_was_applied_and_not_what_was_defaulted(now: datetime) -> None:
    obj = applied(DEPLOYMENT, None, deployment(), "me", now=now)
    (entry,) = obj["metadata"]["managedFields"]
    assert entry["time"] == "2026-11-21T08:15:18Z"
    assert (entry["manager"], entry["operation"], entry["apiVersion"]) == ("me", "Apply", "apps/v1")
    assert "f:replicas" not in entry["fieldsV1"]["f:spec"]
    assert obj["spec"]["replicas"] == 1


def test_a_conflict_names_the_manager_and_the_field() -> None:
    live = applied(DEPLOYMENT, None, deployment(replicas=3), "first")
    refused = applied(DEPLOYMENT, live, deployment(replicas=4), "second")
    assert refused.message == 'Apply failed with 1 conflict: conflict with "first": .spec.replicas'
    assert refused.causes == [(".spec.replicas", "FieldManagerConflict", 'conflict with "first"')]


def test_a_conflict_with_an_update_names_its_version_and_time() -> None:
    live = updated(DEPLOYMENT, applied(DEPLOYMENT, None, deployment(), "first"), {"spec": {"replicas": 7}}, "hpa")
    refused = applied(DEPLOYMENT, live, deployment(replicas=4), "second")
    wanted = 'conflict with "hpa" using apps/v1 at 2026-01-01T00:00:00Z: .spec.replicas'
    assert refused.message == f"Apply failed with 1 conflict: {wanted}"


def test_several_conflicts_are_listed_by_manager() -> None:
    live = applied(CONFIG_MAP, None, config_map({"a": "1"}), "first")
    live = applied(CONFIG_MAP, live, config_map({"b": "1", "c": "1"}), "second")
    refused = applied(CONFIG_MAP, live, config_map({"a": "2", "b": "2", "c": "2"}), "third")
    assert refused.message.splitlines() == [
        'Apply failed with 3 conflicts: conflicts with "first":',
        "- .data.a",
        'conflicts with "second":',
        "- .data.b",
        "- .data.c",
    ]


def test_the_same_value_is_no_conflict_and_has_two_owners() -> None:
    live = applied(CONFIG_MAP, None, config_map({"a": "1"}), "first")
    live = applied(CONFIG_MAP, live, config_map({"a": "1"}), "second")
    assert owners(live) == {"first": {"f:data": {"f:a": {}}}, "second": {"f:data": {"f:a": {}}}}


def test_force_takes_the_field_from_its_owner() -> None:
    live = applied(CONFIG_MAP, None, config_map({"a": "1", "b": "1"}), "first")
    live = applied(CONFIG_MAP, live, config_map({"a": "2"}), "second", force=True)
    assert live["data"] == {"a": "2", "b": "1"}
    assert owners(live) == {"first": {"f:data": {"f:b": {}}}, "second": {"f:data": {"f:a": {}}}}


def test_a_field_that_its_only_owner_drops_is_removed() -> None:
    live = applied(CONFIG_MAP, None, config_map({"a": "1", "b": "1"}), "first")
    assert applied(CONFIG_MAP, live, config_map({"a": "1"}), "first")["data"] == {"a": "1"}


def test_a_defaulted_field_that_its_only_owner_drops_gets_its_default() -> None:
    live = applied(DEPLOYMENT, None, deployment(replicas=3), "first")
    assert applied(DEPLOYMENT, live, deployment(), "first")["spec"]["replicas"] == 1


def test_a_field_that_one_of_two_owners_drops_stays() -> None:
    live = applied(DEPLOYMENT, None, deployment(replicas=3), "first")
    live = applied(DEPLOYMENT, live, deployment(replicas=3), "second")
    assert applied(DEPLOYMENT, live, deployment(), "first")["spec"]["replicas"] == 3


def test_a_field_without_an_owner_is_taken_without_a_conflict() -> None:
    live = applied(DEPLOYMENT, None, deployment(), "first")
    scaled = updated(DEPLOYMENT, live, {"spec": {"replicas": 7}}, "hpa")
    del scaled["metadata"]["managedFields"][1]
    assert applied(DEPLOYMENT, scaled, deployment(replicas=3), "first")["spec"]["replicas"] == 3


def test_a_no_op_gives_back_the_live_object_itself() -> None:
    live = applied(DEPLOYMENT, None, deployment(), "first")
    again = merge.apply(DEPLOYMENT, live, deployment(), manager="first", force=False, now=LATER)
    assert isinstance(again, merge.Merged)
    assert not again.changed
    assert again.object is live


def test_another_spelling_of_the_same_quantity_is_a_no_op() -> None:
    def with_cpu(cpu: str) -> dict[str, Any]:
        body = deployment()
        body["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"cpu": cpu}}
        return body

    live = applied(DEPLOYMENT, None, with_cpu("1000m"), "first")
    assert live["spec"]["template"]["spec"]["containers"][0]["resources"] == {"limits": {"cpu": "1"}}
    assert applied(DEPLOYMENT, live, with_cpu("1000m"), "first") is live


def test_containers_merge_by_name_and_their_variables_too() -> None:
    live = applied(DEPLOYMENT, None, deployment(), "first")
    sidecar = {"containers": [{"name": "proxy", "image": "p"}, {"name": "model", "env": [{"name": "A", "value": "1"}]}]}
    body = {key: value for key, value in deployment().items() if key != "spec"} | {
        "spec": {"template": {"spec": sidecar}}
    }
    merged = applied(DEPLOYMENT, live, body, "second")
    found = {container["name"]: container for container in merged["spec"]["template"]["spec"]["containers"]}
    assert found["proxy"]["image"] == "p"
    assert (found["model"]["image"], found["model"]["env"]) == ("i", [{"name": "A", "value": "1"}])


def test_an_update_takes_what_it_changes_and_what_it_removes_belongs_to_nobody() -> None:
    live = applied(CONFIG_MAP, None, config_map({"a": "1", "b": "1"}), "first")
    live = updated(CONFIG_MAP, live, {"data": {"a": "2", "b": None}}, "editor")
    assert owners(live) == {"editor": {"f:data": {"f:a": {}}}}


def test_an_update_that_changes_nothing_leaves_the_entries_alone() -> None:
    live = applied(CONFIG_MAP, None, config_map({"a": "1"}), "first")
    assert updated(CONFIG_MAP, live, {}, "editor", now=LATER) == live


def test_the_status_of_a_request_to_the_main_resource_belongs_to_nobody() -> None:
    obj = deployment()
    obj["status"] = {"replicas": 3}
    kinds.defaults(DEPLOYMENT, obj)
    merge.update(DEPLOYMENT, None, obj, manager="first", now=START)
    assert "f:status" not in owners(obj)["first"]


def test_an_apply_to_status_owns_status_alone_and_touches_nothing_else() -> None:
    live = applied(DEPLOYMENT, None, deployment(), "first")
    body = {**deployment(replicas=9), "status": {"replicas": 3}}
    merged = merge.apply(DEPLOYMENT, live, body, manager="ctl", force=False, now=START, subresource="status")
    assert isinstance(merged, merge.Merged)
    assert merged.object["spec"] == live["spec"]
    assert merged.object["status"]["replicas"] == 3
    assert [entry["fieldsV1"] for entry in merged.object["metadata"]["managedFields"] if "subresource" in entry] == [
        {"f:status": {"f:replicas": {}}}
    ]


def test_managed_fields_can_be_forgotten_but_not_applied() -> None:
    live = applied(CONFIG_MAP, None, config_map({"a": "1"}), "first")
    forgotten = copy.deepcopy(live)
    forgotten["metadata"]["managedFields"] = []
    merge.update(CONFIG_MAP, live, forgotten, manager="editor", now=START)
    assert "managedFields" not in forgotten["metadata"]
    with pytest.raises(merge.PatchError, match=r"metadata\.managedFields must be nil") as refused:
        applied(CONFIG_MAP, live, config_map({}, managedFields=[{"manager": "x"}]), "first")
    assert refused.value.code == 400


def test_fields_from_before_the_first_apply_have_an_owner_from_then_on() -> None:
    live = config_map({"a": "1"})
    kinds.defaults(CONFIG_MAP, live)
    refused = applied(CONFIG_MAP, live, config_map({"a": "2"}), "first")
    assert refused.message.startswith('Apply failed with 1 conflict: conflict with "before-first-apply" using v1')


def test_what_kubectl_applied_on_the_client_it_may_apply_on_the_server() -> None:
    last = '{"apiVersion":"v1","data":{"a":"1"},"kind":"ConfigMap","metadata":{"name":"c"}}'
    live = config_map({"a": "1"}, annotations={"kubectl.kubernetes.io/last-applied-configuration": last})
    kinds.defaults(CONFIG_MAP, live)
    merge.update(CONFIG_MAP, None, live, manager="kubectl-client-side-apply", now=START)
    merged = applied(CONFIG_MAP, live, config_map({"a": "2"}), "kubectl")
    assert merged["data"] == {"a": "2"}
    assert '"a":"2"' in merged["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spec": {"replicas": "3"}}, ".spec.replicas: expected numeric (int or float), got string"),
        ({"spec": {"foo": 1}}, ".spec.foo: field not declared in schema"),
        (
            {"spec": {"template": {"spec": {"containers": ["x"]}}}},
            ".spec.template.spec.containers: element 0: associative list with keys may not have non-map elements",
        ),
        (
            {"spec": {"template": {"spec": {"containers": [{"name": "x"}, {"name": "x"}]}}}},
            '.spec.template.spec.containers: duplicate entries for key [name="x"]',
        ),
        (
            {"spec": {"template": {"spec": {"containers": [{"name": "x", "tty": 1}]}}}},
            '.spec.template.spec.containers[name="x"].tty: expected boolean, got &{1}',
        ),
    ],
)
def test_what_cannot_be_typed_cannot_be_applied(change: dict[str, Any], message: str) -> None:
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "n"}, **change}
    with pytest.raises(merge.PatchError) as refused:
        applied(DEPLOYMENT, None, body, "first")
    assert f"failed to create typed patch object (n/d; apps/v1, Kind=Deployment): {message}" in refused.value.message


def test_more_than_ten_updaters_become_one_entry_of_ancient_changes() -> None:
    live = config_map({"k0": "1"})
    kinds.defaults(CONFIG_MAP, live)
    merge.update(CONFIG_MAP, None, live, manager="m0", now=START)
    for number in range(1, 14):
        when = START + timedelta(hours=number)
        live = updated(CONFIG_MAP, live, {"data": {f"k{number}": "1"}}, f"m{number}", now=when)
    names = [entry["manager"] for entry in live["metadata"]["managedFields"]]
    assert len(names) == 10
    assert "ancient-changes" in names


data = st.dictionaries(st.sampled_from("abc"), st.sampled_from("12"), max_size=3)
requests = st.lists(st.tuples(st.sampled_from(["x", "y", "z"]), data, st.booleans()), max_size=6)


@settings(max_examples=examples(200))
@given(requests)
def test_whatever_happened_before_the_last_applier_has_what_it_asked_for_and_a_second_time_changes_nothing(
    history: list[tuple[str, dict[str, str], bool]],
) -> None:
    live: dict[str, Any] | None = None
    for manager, wanted, force in history:
        result = merge.apply(CONFIG_MAP, live, config_map(wanted), manager=manager, force=force, now=START)
        if isinstance(result, merge.Conflicts):
            assert not force
            continue
        live = result.object
        assert {key: live.get("data", {}).get(key) for key in wanted} == wanted
        again = merge.apply(CONFIG_MAP, live, config_map(wanted), manager=manager, force=False, now=LATER)
        assert isinstance(again, merge.Merged)
        assert again.object is live
    if live is not None:
        claimed = {key for fields in owners(live).values() for key in fields.get("f:data", {})}
        assert {f"f:{key}" for key in live.get("data", {})} == claimed - {"."}


@settings(max_examples=examples(200))
@given(data, data, data)
def test_without_force_nobody_loses_a_value_that_they_own(first: Any, second: Any, third: Any) -> None:
    live = applied(CONFIG_MAP, None, config_map(first), "first")
    for manager, wanted in (("second", second), ("third", third)):
        result = applied(CONFIG_MAP, live, config_map(wanted), manager)
        live = live if isinstance(result, merge.Conflicts) else result
    assert {key: live.get("data", {}).get(key) for key in first} == first


@settings(max_examples=examples(200))
@given(data, data)
def test_an_applier_that_leaves_takes_along_what_was_only_its_own(mine: Any, theirs: Any) -> None:
    live = applied(CONFIG_MAP, None, config_map(theirs), "they")
    live = applied(CONFIG_MAP, live, config_map(mine), "me", force=True)
    gone = applied(CONFIG_MAP, live, config_map(), "me")
    kept = {key: value for key, value in theirs.items() if mine.get(key, value) == value}
    assert gone.get("data", {}) == kept
    assert "me" not in owners(gone)
