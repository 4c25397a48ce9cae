"""HTTPRoutes as routes of the proxy."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedded.gateway.routes import milliseconds
from embedded.gateway.world import Key
from tests.conftest import examples
from tests.unit.embedded.gateway_objects import configured, route, routes_of, to, world

Object = dict[str, Any]


# --- order -------------------------------------------------------------------------------------------------------

PATHS = [{"type": kind, "value": value} for kind in ("Exact", "PathPrefix") for value in ("/", "/a", "/a/b")]
MATCHES = st.builds(
    lambda path, method, headers: {"path": path, "headers": headers, **({"method": method} if method else {})},
    st.sampled_from(PATHS),
    st.sampled_from(["", "GET", "POST"]),
    st.sampled_from([[], [{"name": "k", "value": "1"}], [{"name": "k", "value": "1"}, {"name": "j", "value": "1"}]]),
)


def prefers(match: Object) -> tuple[Any, ...]:
    """Gateway API's order, as its documentation lists it."""
    path = match["path"]
    return (path["type"] == "Exact", len(path["value"]), "method" in match, len(match["headers"]))


def fits(match: Object, path: str, method: str, headers: dict[str, str]) -> bool:
    wanted = match["path"]["value"]
    whole = path == wanted or (
        match["path"]["type"] == "PathPrefix" and f"{path}/".startswith(f"{wanted.rstrip('/')}/")
    )
    named = all(headers.get(one["name"]) == one["value"] for one in match["headers"])
    return whole and named and match.get("method", method) == method


def taken(made: list[Object], path: str, method: str, headers: dict[str, str]) -> str:
    """The cluster of the first route that matches, as the proxy does it."""
    values = {":method": method, **headers}
    for one in made:
        match = one["match"]
        if "path" in match:
            whole = path == match["path"]
        elif "prefix" in match:
            whole = path.startswith(match["prefix"])
        else:
            whole = f"{path}/".startswith(f"{match['path_separated_prefix']}/")
        if whole and all(values.get(each["name"]) == each["string_match"]["exact"] for each in match["headers"]):
            return str(one["route"]["cluster"])
    return ""


@settings(max_examples=examples(150))
@given(
    st.lists(MATCHES, min_size=1, max_size=8),
    st.sampled_from(["/", "/a", "/ab", "/a/b", "/a/b/c"]),
    st.sampled_from(["GET", "POST"]),
    st.dictionaries(st.sampled_from(["k", "j"]), st.sampled_from(["1", "2"])),
)
def test_a_request_takes_the_match_that_gateway_api_prefers(
    matches: list[Object], path: str, method: str, headers: dict[str, str]
) -> None:
    made = world(r=route("r", *(to(f"s{number}", match) for number, match in enumerate(matches))))
    for number in range(len(matches)):
        made.services[Key("shop", f"s{number}")] = made.services[Key("shop", "a")]
    fitting = [number for number, match in enumerate(matches) if fits(match, path, method, headers)]
    best = max(fitting, key=lambda number: (prefers(matches[number]), -number), default=None)
    expected = "" if best is None else f"shop.s{best}.80"
    assert taken(routes_of(made), path, method, headers) == expected


def test_an_expression_comes_after_exact_paths_and_before_prefixes() -> None:
    kinds = ["PathPrefix", "RegularExpression", "Exact"]
    made = routes_of(world(r=route("r", *(to("a", {"path": {"type": kind, "value": "/x"}}) for kind in kinds))))
    assert [next(iter(one["match"])) for one in made] == ["path", "safe_regex", "path_separated_prefix"]


def test_the_older_route_comes_first() -> None:
    made = world(r1=route("r1", to("a")), r2=route("r2", to("b")))
    assert [one["route"]["cluster"] for one in routes_of(made)] == ["shop.a.80", "shop.b.80"]
    made.routes[Key("shop", "r1")]["metadata"]["creationTimestamp"] = "2026-01-02T00:00:00Z"
    assert [one["route"]["cluster"] for one in routes_of(made)] == ["shop.b.80", "shop.a.80"]


# --- backends ----------------------------------------------------------------------------------------------------


def test_backends_keep_their_order_and_their_weights() -> None:
    refs = [{"name": "b", "port": 80, "weight": 9000}, {"name": "a", "port": 80, "weight": 1000}]
    (made,) = routes_of(world(r=route("r", {"backendRefs": refs})))
    clusters = made["route"]["weighted_clusters"]["clusters"]
    assert [(one["name"], one["weight"]) for one in clusters] == [("shop.b.80", 9000), ("shop.a.80", 1000)]


def test_a_backend_without_weight_has_one_and_one_of_zero_gets_nothing() -> None:
    refs = [{"name": "a", "port": 80}, {"name": "b", "port": 80, "weight": 0}]
    (made,) = routes_of(world(r=route("r", {"backendRefs": refs})))
    assert made["route"]["cluster"] == "shop.a.80"


@pytest.mark.parametrize(
    ("written", "share"),
    [
        ({}, 1_000_000),
        ({"percent": 0}, 0),
        ({"percent": 7}, 70_000),
        ({"fraction": {"numerator": 1, "denominator": 3}}, 333_333),
    ],
)
def test_the_share_of_a_mirror_is_counted_in_millionths(written: Object, share: int) -> None:
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "b", "port": 80}, **written}}
    (made,) = routes_of(world(r=route("r", to("a", filters=[mirror]))))
    (policy,) = made["route"]["request_mirror_policies"]
    assert policy["runtime_fraction"]["default_value"] == {"numerator": share, "denominator": "MILLION"}


def test_a_mirror_that_leads_nowhere_is_said_and_left_out() -> None:
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "c", "port": 80}}}
    made = world(r=route("r", to("a", filters=[mirror])))
    assert "request_mirror_policies" not in routes_of(made)[0]["route"]
    assert [one.reason for one in configured(made).routes[Key("shop", "r")].compiled.problems] == ["BackendNotFound"]


def test_nothing_is_tried_again_once_a_model_may_have_seen_it() -> None:
    port = configured(world(r=route("r", to("a")))).ports["shop.gate.80"]
    from embedded.gateway.listeners import route_table

    (host,) = route_table(port.gate, port.number, port.placed)["virtual_hosts"]
    assert host["retry_policy"]["retry_on"] == "connect-failure,refused-stream,reset-before-request"


# --- filters and timeouts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "expected"), [("1h2m3s4ms", 3_723_004), ("500ms", 500), ("0s", 0), ("1m", 60_000)])
def test_durations_are_those_of_gateway_api(text: str, expected: int) -> None:
    assert milliseconds(text) == expected


def test_without_a_timeout_there_is_none() -> None:
    (made,) = routes_of(world(r=route("r", to("a"))))
    assert made["route"]["timeout"] == "0.000s"
    (made,) = routes_of(world(r=route("r", to("a", timeouts={"request": "2h", "backendRequest": "2h"}))))
    assert (made["route"]["timeout"], made["route"]["idle_timeout"]) == ("7200.000s", "7200.000s")
    assert "retry_policy" not in made["route"]  # one try may take as long as all of them


@pytest.mark.parametrize("name", ["Host", ":path"])
def test_a_filter_cannot_change_what_a_request_is_routed_by(name: str) -> None:
    change = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": [name]}}
    made = world(r=route("r", to("a", filters=[change], name="mine"), to("b")))
    (left,) = routes_of(made)
    assert left["route"]["cluster"] == "shop.b.80"
    (why,) = configured(made).routes[Key("shop", "r")].compiled.dropped
    assert re.match(f"rule mine: header {name} cannot be changed", why)


def test_a_value_with_a_line_break_is_refused() -> None:
    change = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "k", "value": "a\r\nb: c"}]}}
    made = world(r=route("r", to("a", filters=[change])))
    assert routes_of(made) == []
    assert "control characters" in configured(made).routes[Key("shop", "r")].compiled.dropped[0]
