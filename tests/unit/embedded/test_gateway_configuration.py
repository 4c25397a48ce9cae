"""From objects to the whole configuration of the proxy: addresses, endpoints, policies, and what is made again."""

from __future__ import annotations

from typing import Any

import pytest

from embedded.gateway.attachment import gates, selects
from embedded.gateway.configuration import Memo, configure
from embedded.gateway.world import Key, World
from tests.unit.embedded.gateway_objects import (
    ADDRESSES,
    configured,
    endpoints,
    gateway,
    metadata,
    route,
    routes_of,
    to,
    world,
)

Object = dict[str, Any]


# --- addresses ---------------------------------------------------------------------------------------------------


def addressed(**gateways: Object) -> dict[str, str]:
    made = World(gateways={Key("shop", name): one for name, one in gateways.items()})
    return {key.name: gate.address for key, gate in gates(made, ADDRESSES).items()}


def test_a_gateway_keeps_its_address_and_the_oldest_other_gets_the_next() -> None:
    kept = gateway(name="kept", creationTimestamp="2026-03-01T00:00:00Z")
    kept["status"] = {"addresses": [{"type": "IPAddress", "value": ADDRESSES[0]}]}
    old = gateway(name="old", creationTimestamp="2026-01-01T00:00:00Z")
    new = gateway(name="new", creationTimestamp="2026-02-01T00:00:00Z")
    assert addressed(new=new, old=old, kept=kept) == {"kept": ADDRESSES[0], "old": ADDRESSES[1], "new": ""}


def test_an_address_of_another_subnet_is_given_up() -> None:
    moved = gateway(name="moved")
    moved["status"] = {"addresses": [{"type": "IPAddress", "value": "127.99.1.1"}]}
    assert addressed(moved=moved) == {"moved": ADDRESSES[0]}


def test_two_gateways_never_have_one_address() -> None:
    both = {name: gateway(name=name) for name in ("a", "b")}
    for one in both.values():
        one["status"] = {"addresses": [{"type": "IPAddress", "value": ADDRESSES[1]}]}
    assert addressed(**both) == {"a": ADDRESSES[1], "b": ADDRESSES[0]}


def test_an_address_that_was_given_is_kept_before_any_status_says_so() -> None:
    first, second = Key("shop", "zoo"), Key("shop", "app")
    given = {first: ADDRESSES[0]}
    made = World(gateways={key: gateway(name=key.name) for key in (first, second)})
    assert {key: gate.address for key, gate in gates(made, ADDRESSES, given).items()} == {
        first: ADDRESSES[0],
        second: ADDRESSES[1],
    }


def test_an_address_is_given_again_last() -> None:
    new = Key("shop", "new")
    gone = {Key("shop", "gone"): ADDRESSES[0]}
    made = World(gateways={new: gateway(name="new")})
    assert gates(made, ADDRESSES, gone)[new].address == ADDRESSES[1]
    assert gates(made, ADDRESSES[:1], gone)[new].address == ADDRESSES[0]


def test_a_gateway_of_another_class_is_not_ours() -> None:
    other = gateway(name="other")
    other["spec"]["gatewayClassName"] = "istio"
    assert addressed(other=other) == {}


def test_an_address_that_somebody_asks_for_is_refused() -> None:
    wanted = gateway(name="wanted")
    wanted["spec"]["addresses"] = [{"value": "10.0.0.1"}]
    made = World(gateways={Key("shop", "wanted"): wanted})
    (gate,) = gates(made, ADDRESSES).values()
    assert gate.refused is not None
    assert (gate.refused.reason, gate.address) == ("AddressNotUsable", "")


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ({}, True),
        ({"matchLabels": {"team": "red"}}, True),
        ({"matchLabels": {"team": "blue"}}, False),
        ({"matchExpressions": [{"key": "team", "operator": "In", "values": ["red", "blue"]}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["x"]}]}, True),
        ({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}, False),
        ({"matchExpressions": [{"key": "team", "operator": "Nonsense"}]}, False),
    ],
)
def test_namespaces_are_selected_by_their_labels(selector: Object, selected: bool) -> None:
    assert selects(selector, {"team": "red"}) is selected


# --- endpoints ---------------------------------------------------------------------------------------------------


def found(*slices: Object) -> list[tuple[str, int]]:
    made = world(r=route("r", to("a")))
    for number, one in enumerate(slices):
        made.slices[Key("shop", f"a-{number}")] = one
    (cluster,) = configured(made).clusters.values()
    (locality,) = cluster["load_assignment"]["endpoints"]
    sockets = [one["endpoint"]["address"]["socket_address"] for one in locality["lb_endpoints"]]
    return [(one["address"], one["port_value"]) for one in sockets]


def at(address: str, **conditions: bool) -> Object:
    return {"addresses": [address], "conditions": conditions}


def test_endpoints_are_those_that_are_ready() -> None:
    slices = endpoints("a", at("127.20.2.1", ready=True), at("127.20.2.2", ready=False), at("127.20.2.3"))
    assert found(slices) == [("127.20.2.1", 8080), ("127.20.2.3", 8080)]


def test_where_none_is_ready_those_that_end_and_still_answer_do() -> None:
    ending = at("127.20.2.1", ready=False, serving=True, terminating=True)
    assert found(endpoints("a", ending, at("127.20.2.2", ready=False))) == [("127.20.2.1", 8080)]
    assert found(endpoints("a", ending, at("127.20.2.2", ready=True))) == [("127.20.2.2", 8080)]


def test_an_endpoint_counts_once_and_only_with_the_port_that_is_meant() -> None:
    other = endpoints("a", at("127.20.2.9", ready=True), ports=[{"name": "more", "port": 9090}])
    named = endpoints("a", {"addresses": ["host.test"]})
    none = {**endpoints("a"), "endpoints": None, "ports": None}
    same = endpoints("a", at("127.20.2.1", ready=True))
    assert found(same, other, same, named, none, endpoints("b", at("127.20.2.8"))) == [("127.20.2.1", 8080)]


def test_only_what_a_route_leads_to_is_a_cluster() -> None:
    made = world(r=route("r", to("a")), elsewhere=route("elsewhere", to("b"), parentRefs=[{"name": "other"}]))
    assert list(configured(made).clusters) == ["shop.a.80"]


# --- policies ----------------------------------------------------------------------------------------------------


def security(name: str, *targets: str, service: str = "b", **more: Any) -> Object:
    refs = [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": target} for target in targets]
    http = {"backendRefs": [{"name": service, "port": 80}], "headersToBackend": ["X-Trueup-Audience"]}
    auth = {"http": http, "headersToExtAuth": ["x-user"], "recomputeRoute": True, **more}
    return {"metadata": metadata(name), "spec": {"targetRefs": refs, "extAuth": auth}}


WEST = {"headers": [{"name": "x-trueup-audience", "value": "west"}]}


def test_only_the_routes_of_a_policy_are_asked_about() -> None:
    made = world(r=route("r", to("a")), other=route("other", to("a", {"path": {"value": "/other"}})))
    made.security_policies[Key("shop", "p")] = security("p", "r")
    asked = {
        one["match"].get("path_separated_prefix", "/"): "typed_per_filter_config" in one for one in routes_of(made)
    }
    assert asked == {"/": True, "/other": False}
    (made_filter,) = configured(made).ports["shop.gate.80"].filters.values()
    assert made_filter["disabled"]
    assert made_filter["typed_config"]["clear_route_cache"]


def test_a_request_is_asked_about_even_where_every_rule_wants_an_audience() -> None:
    made = world(r=route("r", to("a", WEST)))
    made.security_policies[Key("shop", "p")] = security("p", "r")
    audience, nobody = routes_of(made)
    assert audience["route"]["cluster"] == "shop.a.80"
    assert (nobody["match"]["headers"], nobody["direct_response"]) == ([], {"status": 404})
    assert "typed_per_filter_config" in nobody


def test_a_policy_that_leads_nowhere_lets_nobody_through_unless_it_says_so() -> None:
    made = world(r=route("r", to("a")))
    made.security_policies[Key("shop", "p")] = security("p", "r", service="missing")
    (closed,) = routes_of(made)
    assert closed["direct_response"]["status"] == 500
    made.security_policies[Key("shop", "p")] = security("p", "r", service="missing", failOpen=True)
    (opened,) = routes_of(made)
    assert opened["route"]["cluster"] == "shop.a.80"


def test_of_two_policies_on_a_route_the_older_counts() -> None:
    made = world(r=route("r", to("a")))
    made.security_policies[Key("shop", "p1")] = security("p1", "r", "missing")
    made.security_policies[Key("shop", "p2")] = security("p2", "r")
    outcomes = configured(made).policies.security_outcomes
    problems = {key.name: [one.reason if one else "" for one in each.values()] for key, each in outcomes.items()}
    assert problems == {"p1": ["", "TargetNotFound"], "p2": ["Conflicted"]}


def test_who_says_who_they_are_is_pinned_by_a_salted_hash_and_others_are_not() -> None:
    refs = [{"name": "a", "port": 80, "weight": 9}, {"name": "b", "port": 80, "weight": 1}]
    made = world(r=route("r", {"backendRefs": refs}), one=route("one", to("a", {"path": {"value": "/one"}})))
    ref = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}
    pinned = {"type": "ConsistentHash", "consistentHash": {"type": "Header", "header": {"name": "X-User"}}}
    spec = {"targetRefs": [{**ref, "name": "r"}, {**ref, "name": "one"}], "loadBalancer": pinned}
    made.traffic_policies[Key("shop", "p")] = {"metadata": metadata("p"), "spec": spec}
    single, known, unknown = routes_of(made)
    assert "hash_policy" not in single["route"]  # there is nothing to choose
    assert known["match"]["headers"] == [{"name": "x-user", "string_match": {"safe_regex": {"regex": ".+"}}}]
    assert known["route"]["weighted_clusters"]["use_hash_policy"]
    assert known["route"]["hash_policy"][0]["header"]["regex_rewrite"]["substitution"] == "shop/r|"
    assert "hash_policy" not in unknown["route"]


# --- what is made again ------------------------------------------------------------------------------------------


def test_a_change_makes_only_what_it_is_about() -> None:
    names = [f"r{number}" for number in range(5)]
    given, memo = world(**{name: route(name, to("a")) for name in names}), Memo()
    before = configure(given.snapshot(), ADDRESSES, memo)
    given.routes[Key("shop", "r3")] = {**route("r3", to("b")), "metadata": metadata("r3", generation=2)}
    after = configure(given.snapshot(), ADDRESSES, memo)
    same = {key.name for key in before.routes if before.routes[key] is after.routes[key]}
    assert same == set(names) - {"r3"}
    assert before.clusters["shop.a.80"] is after.clusters["shop.a.80"]


def test_a_service_that_comes_is_seen_by_its_routes() -> None:
    given, memo = world(r=route("r", to("c")), other=route("other", to("a"))), Memo()
    before = configure(given.snapshot(), ADDRESSES, memo)
    assert before.routes[Key("shop", "r")].compiled.problems
    given.services[Key("shop", "c")] = given.services[Key("shop", "a")]
    after = configure(given.snapshot(), ADDRESSES, memo)
    assert not after.routes[Key("shop", "r")].compiled.problems
    assert before.routes[Key("shop", "other")].compiled is after.routes[Key("shop", "other")].compiled


def test_what_is_gone_is_forgotten() -> None:
    given, memo = world(r=route("r", to("a"))), Memo()
    configure(given.snapshot(), ADDRESSES, memo)
    del given.routes[Key("shop", "r")]
    after = configure(given.snapshot(), ADDRESSES, memo)
    assert (after.routes, after.clusters) == ({}, {})
    assert len(memo._known) == 1
