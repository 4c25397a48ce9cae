"""Whose the items of a list are, from managedFields as the server writes them."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler import owners
from reconciler.owners import Stranger
from reconciler.plan import is_human

PORT_80, PORT_81, PORT_82 = (f'k:{{"port":{number},"protocol":"TCP"}}' for number in (80, 81, 82))
ITEM: dict[str, Any] = {".": {}, "f:name": {}, "f:port": {}}
WANTED = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "churn", "namespace": "prod"},
    "spec": {"ports": [{"name": "http", "port": 80}]},
}


def entry(manager: str, fields: dict[str, Any], *, operation: str = "Update", **more: str) -> dict[str, Any]:
    said = {"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1", **more}
    return said | {"fieldsV1": fields}


def ports(*items: str) -> dict[str, Any]:
    return {"f:spec": {"f:ports": {item: deepcopy(ITEM) for item in items}}}


def stored(*entries: dict[str, Any]) -> dict[str, Any]:
    both = [{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "more", "port": 81, "protocol": "TCP"}]
    return {**WANTED, "metadata": {"name": "churn", "managedFields": list(entries)}, "spec": {"ports": both}}


OURS = entry("trueup", ports(PORT_80), operation="Apply")
THEIRS = entry("kubectl-edit", ports(PORT_81))


def test_an_item_of_another_key_is_a_strangers() -> None:
    (found,) = owners.strangers(stored(OURS, THEIRS), WANTED)
    assert (found.manager, found.field) == ("kubectl-edit", '.spec.ports[port=81,protocol="TCP"]')
    assert owners.without(stored(OURS, THEIRS), (found,))["spec"]["ports"] == [
        {"name": "http", "port": 80, "protocol": "TCP"}
    ]


@pytest.mark.parametrize(
    "other",
    [
        entry("kubectl-edit", ports(PORT_80)),
        entry("trueup", ports(PORT_81), operation="Apply"),
        entry("kubectl-edit", ports(PORT_81), subresource="status"),
        entry("kubectl-edit", {"f:spec": {"f:ports": {PORT_81: {"f:nodePort": {}}}}}),
        entry("kubectl-edit", {"f:spec": {"f:externalIPs": {'k:{"ip":"a"}': {".": {}}}}}),
        entry("kubectl-edit", {"f:metadata": {"f:finalizers": {'v:"a"': {}}}}),
        {"manager": "kubectl-edit", "operation": "Update"},
    ],
    ids=["ours", "ours before", "of the status", "field of an item", "unstated list", "of a set", "no fields"],
)
def test_these_are_not(other: dict[str, Any]) -> None:
    assert owners.strangers(stored(OURS, other), WANTED) == ()
    assert owners.taken_over(stored(OURS, other), WANTED, is_human) is None


def test_without_the_servers_account_there_is_none() -> None:
    assert owners.strangers(WANTED, WANTED) == ()


def test_what_is_taken_over_is_ours_and_nothing_is_left_of_it() -> None:
    assert owners.taken_over(stored(OURS, THEIRS), WANTED, is_human) == [
        entry("trueup", ports(PORT_80, PORT_81), operation="Apply")
    ]


def test_what_else_they_own_stays_theirs() -> None:
    label: dict[str, Any] = {"f:metadata": {"f:labels": {"f:mine": {}}}}
    theirs = entry("kubectl-edit", {**ports(PORT_81), **label})
    assert owners.taken_over(stored(theirs), WANTED, is_human) == [
        entry("kubectl-edit", label),
        entry("trueup", ports(PORT_81), operation="Apply"),
    ]


def test_only_who_gives_way_is_taken_from() -> None:
    program = entry("mesh", ports(PORT_82))
    assert owners.taken_over(stored(OURS, program), WANTED, is_human) is None
    made = owners.taken_over(stored(OURS, THEIRS, program), WANTED, is_human)
    assert made is not None
    assert program in made


@pytest.mark.parametrize(
    "fields",
    [ports(PORT_81), {"f:spec": {"f:ports": {PORT_81: {"f:nodePort": {}}}}}],
    ids=["all of it", "a field of it"],
)
def test_what_a_program_owns_as_well_would_stay_and_is_not_taken(fields: dict[str, Any]) -> None:
    both = stored(OURS, THEIRS, entry("mesh", fields))
    assert owners.leaving(both, WANTED, is_human) == ()
    assert owners.taken_over(both, WANTED, is_human) is None


def test_what_two_people_own_is_taken_from_both() -> None:
    both = stored(OURS, THEIRS, entry("k9s", ports(PORT_81)))
    assert {one.manager for one in owners.leaving(both, WANTED, is_human)} == {"kubectl-edit", "k9s"}
    assert owners.taken_over(both, WANTED, is_human) == [entry("trueup", ports(PORT_80, PORT_81), operation="Apply")]


def test_a_port_of_another_protocol_is_another_port() -> None:
    udp = 'k:{"port":80,"protocol":"UDP"}'
    live = stored(OURS, entry("kubectl-edit", ports(udp)))
    live["spec"]["ports"].append({"name": "udp", "port": 80, "protocol": "UDP"})
    (found,) = owners.strangers(live, WANTED)
    assert found.field == '.spec.ports[port=80,protocol="UDP"]'
    assert [one["name"] for one in owners.without(live, (found,))["spec"]["ports"]] == ["http", "more"]


@pytest.mark.parametrize("emptied", ["trueup", "kubectl-edit"])
def test_an_entry_without_fields_owns_nothing(emptied: str) -> None:
    operation = "Apply" if emptied == "trueup" else "Update"
    bare = {"manager": emptied, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1"}
    entries = [bare, *(one for one in (OURS, THEIRS) if one["manager"] != emptied), entry("k9s", ports(PORT_82))]
    made = owners.taken_over(stored(*entries), WANTED, is_human)
    assert made is not None
    (ours,) = (one for one in made if one["manager"] == "trueup")
    assert PORT_82 in ours["fieldsV1"]["f:spec"]["f:ports"]


def test_an_item_within_an_item_is_found() -> None:
    container, variable = 'k:{"name":"server"}', 'k:{"name":"DEBUG"}'
    fields: dict[str, Any] = {
        "f:spec": {"f:containers": {container: {"f:env": {variable: {".": {}, "f:name": {}, "f:value": {}}}}}}
    }
    wanted: dict[str, Any] = {"spec": {"containers": [{"name": "server", "env": [{"name": "LEVEL", "value": "a"}]}]}}
    live: dict[str, Any] = {"metadata": {"managedFields": [entry("kubectl-set", fields)]}, **deepcopy(wanted)}
    live["spec"]["containers"][0]["env"].append({"name": "DEBUG", "value": "1"})
    (found,) = owners.strangers(live, wanted)
    assert found == Stranger("kubectl-set", ("f:spec", "f:containers", container, "f:env", variable))
    assert found.field == '.spec.containers[name="server"].env[name="DEBUG"]'
    assert owners.without(live, (found,))["spec"] == wanted["spec"]


@given(st.sets(st.sampled_from([PORT_80, PORT_81, PORT_82])), st.booleans())
def test_afterwards_there_is_nothing_to_take_over_and_nobody_has_lost_anything(theirs: set[str], ours: bool) -> None:
    before = stored(*([deepcopy(OURS)] if ours else []), *([entry("kubectl-edit", ports(*theirs))] if theirs else []))
    after = owners.taken_over(before, WANTED, is_human)
    assert (after is None) == (theirs <= {PORT_80})
    if after is not None:
        owned = {item for one in after for item in one["fieldsV1"]["f:spec"]["f:ports"]}
        assert owned == theirs | ({PORT_80} if ours else set())
        again = {**before, "metadata": {"name": "churn", "managedFields": after}}
        assert owners.taken_over(again, WANTED, is_human) is None
