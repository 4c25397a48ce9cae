"""What the gateway says about the objects."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from embedded.gateway.configuration import Memo
from embedded.gateway.statuses import Proxy, Report, reports
from embedded.gateway.world import GATEWAYS, ROUTES, Key, World
from tests.unit.embedded.gateway_objects import ADDRESSES, configured, gateway, route, to, world

Object = dict[str, Any]

NOW, LATER = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)


def said(given: World, proxy: Proxy | None = None, now: datetime = NOW) -> list[Report]:
    return list(reports(given, configured(given), proxy or Proxy(), now, Memo()))


def write(given: World, found: list[Report]) -> None:
    objects = {ROUTES: given.routes, GATEWAYS: given.gateways}
    for one in found:
        objects[one.resource][one.key] = {**objects[one.resource][one.key], "status": one.status}


def route_conditions(found: list[Report], name: str = "r") -> dict[str, tuple[str, str]]:
    (report,) = [one for one in found if one.resource == ROUTES and one.key.name == name]
    (parent,) = report.status["parents"]
    return {one["type"]: (one["status"], one["reason"]) for one in parent["conditions"]}


def test_a_route_that_is_fine_is_accepted_and_resolved_and_nothing_else() -> None:
    assert route_conditions(said(world(r=route("r", to("a"))))) == {
        "Accepted": ("True", "Accepted"),
        "ResolvedRefs": ("True", "ResolvedRefs"),
    }


def test_what_has_been_said_is_not_said_again() -> None:
    given = world(r=route("r", to("a")))
    write(given, said(given))
    assert said(given, now=LATER) == []


def test_a_condition_keeps_its_moment_while_its_status_stays() -> None:
    given = world(r=route("r", to("a")))
    write(given, said(given))
    changed = {**given.routes[Key("shop", "r")], **route("r", to("missing"))}
    changed["metadata"] = {**changed["metadata"], "generation": 2}
    given.routes[Key("shop", "r")] = changed
    (report,) = [one for one in said(given, now=LATER) if one.resource == ROUTES]
    accepted, resolved = report.status["parents"][0]["conditions"]
    assert (accepted["lastTransitionTime"], accepted["observedGeneration"]) == ("2026-01-01T00:00:00Z", 2)
    assert (resolved["lastTransitionTime"], resolved["status"]) == ("2026-01-02T00:00:00Z", "False")


def test_what_others_say_of_a_route_stays() -> None:
    given = world(r=route("r", to("a"), parentRefs=[{"name": "theirs"}]))
    theirs = {"parentRef": {"name": "theirs"}, "controllerName": "example.com/theirs", "conditions": []}
    old = {"parentRef": {"name": "gate"}, "controllerName": "trueup.dev/embedded", "conditions": []}
    given.routes[Key("shop", "r")]["status"] = {"parents": [old, theirs]}
    (report,) = [one for one in said(given) if one.resource == ROUTES]
    assert report.status["parents"] == [theirs]


def test_a_route_of_others_is_none_of_our_business() -> None:
    given = world(r=route("r", to("a"), parentRefs=[{"name": "theirs"}]))
    assert [one for one in said(given) if one.resource == ROUTES] == []


def test_a_route_is_not_accepted_before_its_listener_listens() -> None:
    given = world(r=route("r", to("a")))
    for proxy in (Proxy(trouble="Envoy is ill"), Proxy(listeners={"shop.gate.80": "the port is taken"})):
        assert route_conditions(said(given, proxy))["Accepted"] == ("Unknown", "Pending")


def test_a_route_that_the_proxy_refuses_says_so_and_the_others_do_not() -> None:
    given = world(r=route("r", to("a")), other=route("other", to("a")))
    found = said(given, Proxy(refused={Key("shop", "r"): "it is wrong"}))
    assert route_conditions(found)["Accepted"] == ("False", "UnsupportedValue")
    assert route_conditions(found, "other")["Accepted"] == ("True", "Accepted")


def test_a_gateway_tells_of_each_listener() -> None:
    given = world(r=route("r", to("a")))
    secure = {"name": "tls", "port": 443, "protocol": "HTTPS"}
    plain = {
        "name": "http",
        "port": 80,
        "protocol": "HTTP",
        "allowedRoutes": {"kinds": [{"kind": "TCPRoute"}, {"kind": "HTTPRoute"}]},
    }
    given.gateways[Key("shop", "gate")] = gateway(plain, secure)
    (report,) = [one for one in said(given) if one.resource == GATEWAYS]
    assert report.status["addresses"] == [{"type": "IPAddress", "value": ADDRESSES[0]}]
    listeners = {one["name"]: one for one in report.status["listeners"]}
    assert (listeners["http"]["attachedRoutes"], listeners["tls"]["attachedRoutes"]) == (1, 0)
    states = {name: {each["type"]: each["reason"] for each in one["conditions"]} for name, one in listeners.items()}
    assert states["http"]["ResolvedRefs"] == "InvalidRouteKinds"
    assert states["tls"]["Accepted"] == "UnsupportedProtocol"
    assert listeners["tls"]["supportedKinds"] == []
    whole = {one["type"]: (one["status"], one["reason"]) for one in report.status["conditions"]}
    assert whole == {"Accepted": ("True", "ListenersNotValid"), "Programmed": ("True", "Programmed")}


def test_a_gateway_whose_listeners_all_fail_is_not_programmed() -> None:
    (report,) = [one for one in said(world(), Proxy(listeners={"shop.gate.80": "taken"})) if one.resource == GATEWAYS]
    programmed = report.status["conditions"][1]
    assert (programmed["status"], programmed["message"]) == ("False", "listener http: taken")
