"""The HTTPRoute of a model: who answers whom."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderers import routing as renderer
from renderers.catalog import Unit
from renderers.manifest import Body
from renderers.notes import Refused
from renderers.routing import WEIGHT_TOTAL, _scaled
from tests.unit.renderers.made import NO_FACTS, environment, one
from tests.unit.renderers.made_serving import (
    audience,
    cluster,
    header,
    implied_by_an_automation,
    serving,
    variation,
)

VIP = audience("VIP", header("plan", "gold"), priority=1)
NYC = audience("nyc", header("city", "nyc"), priority=2)


def route(unit: Unit) -> Body:
    return one(renderer.render(unit, NO_FACTS), "HTTPRoute")


def rules(unit: Unit) -> dict[str, Any]:
    return {rule["name"]: rule for rule in route(unit)["spec"]["rules"]}


def headers_of(rule: Any) -> list[Any]:
    """The header matches of a rule, of its predict path."""
    return [match.get("headers", []) for match in rule["matches"] if match["path"]["type"] == "Exact"]


def weights(rule: Any) -> dict[str, int]:
    return {backend["name"].rsplit("-", 1)[0]: backend["weight"] for backend in rule["backendRefs"]}


def mode(unit: Unit) -> str:
    (note,) = [note.text for note in renderer.notes(unit, NO_FACTS) if note.text.startswith("routing mode")]
    return note


def taking(name: str, *names: str) -> Any:
    """A variation that answers these audiences alone."""
    return variation(name, traffic=[{"audience": audience_name, "weight": 100} for audience_name in names])


def test_an_only_variation_takes_everybody_and_can_be_addressed_by_name() -> None:
    made = route(
        serving(variation(), where=cluster(gateway={"hostname": "{model}.example.com", "section_name": "https"}))
    )

    assert [rule["name"] for rule in made["spec"]["rules"]] == ["variation-default", "everybody"]
    direct, everybody = made["spec"]["rules"]
    assert [match["path"] for match in direct["matches"]] == [
        {"type": "Exact", "value": "/v1/churn/default/predict"},
        {"type": "PathPrefix", "value": "/v2/models/churn/versions/default"},
    ]
    assert [match["path"] for match in everybody["matches"]] == [
        {"type": "Exact", "value": "/v1/churn/predict"},
        {"type": "PathPrefix", "value": "/v2/models/churn"},
    ]
    assert made["spec"]["hostnames"] == ["churn.example.com"]
    assert made["spec"]["parentRefs"] == [
        {
            "group": "gateway.networking.k8s.io",
            "kind": "Gateway",
            "name": "trueup",
            "namespace": "production",
            "sectionName": "https",
        }
    ]


def test_audiences_come_in_order_of_priority_and_everybody_else_last() -> None:
    unit = serving(taking("a", "nyc"), taking("b", "VIP"), variation("c", traffic=[{}]), audiences=(VIP, NYC))

    assert list(rules(unit))[3:] == ["audience-vip-" + list(rules(unit))[3][-8:], "audience-nyc", "everybody"]
    assert headers_of(rules(unit)["audience-nyc"]) == [[{"name": "city", "type": "Exact", "value": "nyc"}]]
    assert headers_of(rules(unit)["everybody"]) == [[]]


def test_the_server_hears_who_was_asking_and_a_client_cannot_pretend() -> None:
    unit = serving(taking("a", "nyc"), variation("c", traffic=[{}]), audiences=(NYC,))
    changes = {name: rule["filters"][0]["requestHeaderModifier"] for name, rule in rules(unit).items()}

    assert changes["audience-nyc"] == {"set": [{"name": "x-trueup-audience", "value": "nyc"}]}
    assert changes["everybody"] == changes["variation-a"] == {"remove": ["x-trueup-audience"]}


def test_weights_of_a_rule_sum_to_the_same_total_and_keep_their_order() -> None:
    def split(first: int) -> Unit:
        return serving(variation("a", traffic=[{"weight": first}]), variation("b", traffic=[{"weight": 100 - first}]))

    assert weights(rules(split(90))["everybody"]) == {"churn-a": 9000, "churn-b": 1000}
    assert list(weights(rules(split(0))["everybody"]).items()) == [("churn-a", 0), ("churn-b", 10_000)]


@given(st.lists(st.integers(0, 100), min_size=1, max_size=8).filter(any))
def test_shares_of_those_that_are_left_sum_to_the_total(percents: list[int]) -> None:
    made = _scaled(percents, WEIGHT_TOTAL)

    assert sum(made) == WEIGHT_TOTAL
    for percent, weight in zip(percents, made, strict=True):
        assert abs(weight - percent * WEIGHT_TOTAL / sum(percents)) <= 1


def test_a_variation_that_waits_for_its_automation_leaves_its_share_to_the_others() -> None:
    waiting = variation("b", automation="nightly", traffic=[{"weight": 10}, {"audience": "nyc", "weight": 100}])
    unit = serving(variation("a", traffic=[{"weight": 90}]), waiting, audiences=(NYC,))

    assert list(rules(unit)) == ["variation-a", "everybody"]
    assert weights(rules(unit)["everybody"]) == {"churn-a": 10_000}
    told = renderer.notes(unit, NO_FACTS)[0].text
    assert "nyc: no variation of churn in production answers these yet, so their requests belong to the next" in told


def test_nothing_is_routed_where_nothing_is_served() -> None:
    assert renderer.render(implied_by_an_automation(), NO_FACTS) == []
    assert renderer.notes(implied_by_an_automation(), NO_FACTS) == []


def test_a_route_needs_what_it_names() -> None:
    (manifest,) = renderer.render(
        serving(variation("a", traffic=[{"weight": 50}]), variation("b", traffic=[{"weight": 50}])), NO_FACTS
    )

    assert [needed.kind for needed in manifest.needs] == ["Namespace", "Service", "Deployment", "Service", "Deployment"]


def test_who_answers_nobody_holds_no_route_up() -> None:
    shadow = variation("shadow", traffic=[{"shadow": True}])
    (manifest,) = renderer.render(serving(variation("a", traffic=[{}]), shadow, variation("idle")), NO_FACTS)

    needed = [needed for needed in manifest.needs if needed.kind == "Deployment"]
    assert [one.name.startswith("churn-a-") for one in needed] == [True]


# --- shadows -----------------------------------------------------------------------------------------------------


def mirrored(percent: int, controller: str) -> list[Any]:
    unit = serving(
        variation("main", traffic=[{}]),
        variation("observer", traffic=[{"weight": percent, "shadow": True}]),
        where=cluster(controller),
    )
    return [f["requestMirror"] for f in rules(unit)["everybody"]["filters"] if f["type"] == "RequestMirror"]


def test_a_shadow_gets_copies_and_no_share() -> None:
    (mirror,) = mirrored(25, "istio")

    assert mirror["percent"] == 25
    assert mirror["backendRef"]["name"].startswith("churn-observer-")
    assert "percent" not in mirrored(100, "kgateway")[0]
    assert mirrored(0, "istio") == []


@pytest.mark.parametrize(("percent", "controller"), [(100, "unknown"), (25, "kgateway")])
def test_a_shadow_is_refused_where_the_gateway_may_ignore_it(percent: int, controller: str) -> None:
    with pytest.raises(Refused, match="observer of churn is a shadow") as caught:
        mirrored(percent, controller)
    assert caught.value.rule == "routing/no-mirror"


# --- modes -------------------------------------------------------------------------------------------------------


def two(first: Any, second: Any, where: Any = None) -> Unit:
    """Two audiences, of which the first one comes first."""
    audiences = audience("first", *first, priority=1), audience("second", *second, priority=2)
    return serving(
        taking("a", "first"), taking("b", "second"), variation("c", traffic=[{}]), audiences=audiences, where=where
    )


def test_a_gateway_that_is_known_tells_audiences_apart_itself() -> None:
    unit = two([header("plan", "gold")], [header("age", "18", "GREATER_OR_EQUAL")])

    assert mode(unit) == "routing mode of churn in production: native: Istio tells the audiences apart"
    assert headers_of(rules(unit)["audience-second"])[0][0]["type"] == "RegularExpression"


def test_an_unknown_gateway_does_it_with_whole_values_alone() -> None:
    whole = two([header("plan", "gold")], [header("city", ["nyc", "sf"], "IN")], where=cluster("unknown"))
    other = two([header("plan", "gold")], [header("age", "18", "GREATER_OR_EQUAL")], where=cluster("unknown"))

    assert "native" in mode(whole)
    assert len(headers_of(rules(whole)["audience-second"])) == 2
    assert "resolver, because the gateway (environment.gateway.controller is not given) is only known" in mode(other)
    assert mode(other).endswith(
        ": what stands before the gateway must ask http://churn-resolver.production.svc about each request, with any "
        "method and path and these of its headers: age, plan; and pass the request on with the x-trueup-audience of "
        "the answer, and never with one that a client sent"
    )


def test_the_resolver_leaves_one_header_to_match_in_the_order_of_the_audiences() -> None:
    unit = two([header("consent", None, "ABSENT")], [header("plan", "gold")])

    assert "because Gateway API has no match for a missing header (consent)" in mode(unit)
    assert [headers_of(rules(unit)[f"audience-{name}"]) for name in ("first", "second")] == [
        [[{"name": "x-trueup-audience", "type": "Exact", "value": name}]] for name in ("first", "second")
    ]


def test_an_only_shadow_of_an_audience_gets_copies_of_that_audience_alone() -> None:
    unit = serving(
        taking("a", "nyc", "VIP"),
        variation("b", traffic=[{}]),
        variation("watcher", traffic=[{"audience": "nyc", "shadow": True}]),
        audiences=(VIP, NYC),
    )
    copied = {
        name: [f["requestMirror"]["backendRef"]["name"] for f in rule["filters"] if f["type"] == "RequestMirror"]
        for name, rule in rules(unit).items()
    }

    assert [name for name, copies in copied.items() if copies] == ["audience-nyc"]
    assert copied["audience-nyc"][0].startswith("churn-watcher-")


def test_a_route_says_whether_anybody_answers() -> None:
    def answers(unit: Unit) -> bool:
        return route(unit)["metadata"]["annotations"].get("trueup.dev/answers") == "true"

    assert answers(serving(taking("a", "nyc"), audiences=(NYC,)))
    assert not answers(serving(variation("a", traffic=[]), variation("b", traffic=[])))


def test_the_embedded_data_plane_has_our_own_gateway() -> None:
    unit = two([header("plan", "gold")], [header("age", "18", "GREATER_OR_EQUAL")], where=environment())

    assert "native: the embedded gateway" in mode(unit)


def test_an_audience_with_more_headers_does_not_overtake() -> None:
    """A gateway prefers more headers, so the first audience gets as many, of headers that every request has."""
    more = [header("plan", "gold"), header("city", "nyc"), header("age", "18", "GREATER_OR_EQUAL")]
    unit = two([header("beta", "yes")], more)
    names = [[h["name"] for h in headers_of(rules(unit)[f"audience-{name}"])[0]] for name in ("first", "second")]

    assert "native" in mode(unit)
    assert names == [["beta", "host", "x-forwarded-proto"], ["age", "city", "plan"]]
    unproven = two([header("beta", "yes")], [*more, header("x", "y")])
    assert "resolver, because first comes before second, and a gateway tries" in mode(unproven)


def test_order_does_not_matter_between_audiences_that_never_meet() -> None:
    unit = two([header("plan", "free")], [header("plan", "gold"), header("city", "nyc")], where=cluster("unknown"))

    assert "native" in mode(unit)
    assert [len(headers_of(rules(unit)[f"audience-{name}"])[0]) for name in ("first", "second")] == [1, 2]


def test_envoy_gateway_is_not_led_to_prefer_exact_matches() -> None:
    first, second = [header("age", "18", "GREATER_OR_EQUAL")], [header("plan", "gold.")]
    types = {
        controller: [
            headers_of(rules(two(first, second, where=cluster(controller)))[f"audience-{name}"])[0][0]["type"]
            for name in ("first", "second")
        ]
        for controller in ("istio", "envoy-gateway")
    }

    assert types["istio"] == ["RegularExpression", "Exact"]
    assert types["envoy-gateway"] == ["RegularExpression", "RegularExpression"]


def test_an_audience_with_too_many_values_goes_to_the_resolver() -> None:
    many = [header("city", [f"c{n}" for n in range(40)], "IN")]

    assert "first would need 80 matches, and a rule has 64" in mode(two(many, [header("a", "b")], cluster("unknown")))
    thirty = [header("city", [f"c{n}" for n in range(30)], "IN")]
    also = [header("plan", [f"p{n}" for n in range(30)], "IN")]
    assert "the route would need 128 matches" not in mode(two(thirty, also, cluster("unknown")))
    assert "native" in mode(two(many, also, cluster("istio")))


# --- refusals ----------------------------------------------------------------------------------------------------


def test_two_audiences_that_can_meet_need_different_priorities() -> None:
    first, second = audience("first", header("plan", "gold")), audience("second", header("city", "nyc"))
    unit = serving(taking("a", "first", "second"), audiences=(first, second))

    with pytest.raises(Refused, match="in both first and second") as caught:
        renderer.render(unit, NO_FACTS)
    assert caught.value.rule == "audience/priority"
    assert caught.value.origin == second.origin


def test_everybody_may_have_the_priority_of_the_others_and_comes_last() -> None:
    unit = serving(taking("a", "nyc", "all"), audiences=(audience("nyc", header("city", "nyc")), audience("all")))

    assert list(rules(unit))[1:] == ["audience-nyc", "audience-all"]
    assert not any("answered with 404" in note.text for note in renderer.notes(unit, NO_FACTS))


def test_a_contradiction_is_refused_where_it_is_written() -> None:
    nobody = audience("nobody", header("plan", "gold"), header("Plan", "free"))

    with pytest.raises(Refused, match="no value of the header plan") as caught:
        renderer.render(serving(taking("a", "nobody"), audiences=(nobody,)), NO_FACTS)
    assert caught.value.origin == nobody.origin


def split_among(count: int, *, alike: bool) -> Unit:
    """A model with so many audiences; each has shares of its own, unless they are alike."""
    audiences = tuple(audience(f"a{n}", header("plan", f"p{n}"), priority=n) for n in range(count))

    def weight(n: int) -> int:
        return 50 if alike else n + 1

    names = [one.spec.name for one in audiences]
    first = [{"audience": name, "weight": weight(n)} for n, name in enumerate(names)]
    second = [{"audience": name, "weight": 100 - weight(n)} for n, name in enumerate(names)]
    return serving(variation("a", traffic=first), variation("b", traffic=[*second, {}]), audiences=audiences)


def test_rules_to_one_variation_get_a_route_of_their_own_where_they_are_too_many() -> None:
    def made(count: int) -> list[Any]:
        return [m for m in renderer.render(split_among(count, alike=False), NO_FACTS) if m.id.kind == "HTTPRoute"]

    assert [len(route.body["spec"]["rules"]) for route in made(13)] == [16]
    main, more = made(15)
    assert [rule["name"] for rule in more.body["spec"]["rules"]] == ["variation-a", "variation-b"]
    assert len(main.body["spec"]["rules"]) == 16
    assert main.id.name == "churn"
    assert re.fullmatch("churn-variations-[0-9a-f]{8}", more.id.name)
    assert more.body["spec"]["parentRefs"] == main.body["spec"]["parentRefs"]


def test_a_model_may_have_many_variations() -> None:
    unit = serving(*[variation(f"v{n}", traffic=[{}] if n == 0 else []) for n in range(40)])
    routes = [m.body["spec"]["rules"] for m in renderer.render(unit, NO_FACTS) if m.id.kind == "HTTPRoute"]

    assert [len(rules) for rules in routes] == [1, 16, 16, 8]
    assert len({rule["name"] for rules in routes for rule in rules}) == 41


def test_too_many_audiences_for_a_gateway_share_rules_behind_the_resolver() -> None:
    unit = split_among(20, alike=True)

    assert "resolver, because 20 audiences and everybody else would need a rule each, and a route has 16" in mode(unit)
    assert list(rules(unit)) == ["variation-a", "variation-b", "audiences-a0", "everybody"]
    together = rules(unit)["audiences-a0"]
    assert [h[0]["value"] for h in headers_of(together)] == [f"a{n}" for n in range(20)]
    assert together["filters"] == []


def test_a_route_that_no_server_takes_is_refused_with_the_count() -> None:
    with pytest.raises(Refused, match="the 20 audiences of churn in production share their requests in 21 different"):
        renderer.render(split_among(20, alike=False), NO_FACTS)


# --- who stays where -----------------------------------------------------------------------------------------------


def sticky(controller: str = "envoy-gateway", **fields: Any) -> Any:
    gateway = {"name": "ml", "namespace": "gateways", "controller": controller, "sticky_header": "User"}
    return cluster(gateway=gateway | fields)


def shared(weight: int, where: Any = None) -> Unit:
    return serving(
        variation("canary", traffic=[{"weight": weight}]), variation("main", traffic=[{"weight": 100 - weight}]),
        where=where,
    )  # fmt: skip


def test_users_are_pinned_where_there_is_a_choice() -> None:
    policy = one(renderer.render(shared(10, sticky()), NO_FACTS), "BackendTrafficPolicy")

    assert policy["spec"]["targetRefs"] == [
        {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "churn"}
    ]
    assert policy["spec"]["loadBalancer"]["consistentHash"] == {"type": "Header", "header": {"name": "user"}}
    kinds = {m.id.kind for m in renderer.render(serving(variation(), where=sticky()), NO_FACTS)}
    assert kinds == {"HTTPRoute"}
    assert {m.id.kind for m in renderer.render(shared(10, cluster("envoy-gateway")), NO_FACTS)} == {"HTTPRoute"}


def test_a_gateway_that_pins_nobody_is_told() -> None:
    (note,) = [n for n in renderer.notes(shared(10, sticky("kgateway")), NO_FACTS) if "sticky_header" in n.text]

    assert note.origin.kind == "environment"
    assert note.text.startswith("kgateway is not known to keep users with a variation: sticky_header User does nothing")
    assert {m.id.kind for m in renderer.render(shared(10, sticky("kgateway")), NO_FACTS)} == {"HTTPRoute"}


def test_a_header_that_pins_users_must_arrive() -> None:
    told = [note.text for note in renderer.notes(shared(10, sticky(sticky_header="user_id")), NO_FACTS)]

    assert "Envoy Gateway lets no header with _ through: user_id" in told


def whom(unit: Unit, bucket: int) -> str:
    """Who answers a user whose hash is in this of 10,000 buckets: what Envoy does with weights."""
    for name, weight in weights(rules(unit)["everybody"]).items():
        if bucket < weight:
            return name
        bucket -= weight
    raise AssertionError("the weights do not sum to the total")


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, WEIGHT_TOTAL - 1))
def test_a_share_that_grows_takes_nobody_back(one_weight: int, other_weight: int, bucket: int) -> None:
    less, more = sorted([one_weight, other_weight])

    if whom(shared(less), bucket) == "churn-canary":
        assert whom(shared(more), bucket) == "churn-canary"


def test_a_variation_that_is_added_takes_from_its_neighbour_and_moves_nobody_else() -> None:
    before = serving(variation("b", traffic=[{"weight": 60}]), variation("c", traffic=[{"weight": 40}]))
    after = serving(
        variation("a", traffic=[{"weight": 10}]), variation("b", traffic=[{"weight": 50}]),
        variation("c", traffic=[{"weight": 40}]),
    )  # fmt: skip
    moved = {(whom(before, n), whom(after, n)) for n in range(0, WEIGHT_TOTAL, 50)}

    assert moved == {("churn-b", "churn-a"), ("churn-b", "churn-b"), ("churn-c", "churn-c")}


def test_backends_are_in_order_of_their_variations_names() -> None:
    unit = serving(variation("main", traffic=[{"weight": 90}]), variation("challenger", traffic=[{"weight": 10}]))

    assert list(weights(rules(unit)["everybody"])) == ["churn-challenger", "churn-main"]


# --- the rest ----------------------------------------------------------------------------------------------------


def test_requests_that_nobody_takes_are_told() -> None:
    unit = serving(taking("a", "nyc"), audiences=(NYC,))

    assert "everybody" not in rules(unit)
    assert any("other requests are answered with 404" in note.text for note in renderer.notes(unit, NO_FACTS))


def test_a_header_that_the_gateway_drops_is_told() -> None:
    odd = audience("odd", header("user_id", "7"))
    unit = serving(taking("a", "odd"), audiences=(odd,), where=cluster("envoy-gateway"))

    assert any(note.text.endswith("lets no header with _ through: user_id") for note in renderer.notes(unit, NO_FACTS))


@pytest.mark.parametrize(("milliseconds", "expected"), [(5000, "6s"), (1500, "2s500ms"), (3_600_000, "3601s")])
def test_the_gateway_waits_a_little_longer_than_the_server(milliseconds: int, expected: str) -> None:
    unit = serving(variation(deployment={"http_request_timeout_ms": milliseconds}))

    assert rules(unit)["everybody"]["timeouts"] == {"request": expected, "backendRequest": expected}


def test_a_gateway_that_has_no_time_limits_is_not_given_one() -> None:
    assert "timeouts" not in rules(serving(variation(), where=cluster("unknown")))["everybody"]
