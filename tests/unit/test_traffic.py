"""What a plan says of a route that changes: whether requests only move between the builds of a variation."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from reconciler.traffic import Backend, backends, between_builds

KNOWN = {
    f"churn-{variation}-{build}": Backend("churn", variation, build)
    for variation in ("careful", "default")
    for build in ("aaaaaaaa", "bbbbbbbb")
}


def backend(name: str, weight: int | None = None) -> dict[str, Any]:
    made = {"group": "", "kind": "Service", "name": f"churn-{name}", "port": 80}
    return made if weight is None else made | {"weight": weight}


def rule(name: str = "everybody", mirror: str = "", **weights: int) -> dict[str, Any]:
    """Variations and builds by short names: `default_a=75`."""
    refs = [backend(short.replace("_", "-") + short[-1] * 7, weight) for short, weight in weights.items()]
    filters = [{"type": "RequestMirror", "requestMirror": {"backendRef": backend(mirror)}}] if mirror else []
    return {
        "name": name,
        "matches": [{"path": {"value": "/v1/churn/predict"}}],
        "filters": filters,
        "backendRefs": refs,
    }


def route(*rules: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"kind": "HTTPRoute", "spec": {"hostnames": ["churn.example.com"], "rules": list(rules)} | spec}


def moved(old: dict[str, Any], new: dict[str, Any]) -> tuple[str, ...] | None:
    return between_builds(old, new, KNOWN)


def test_a_step_is_told_in_percent_of_the_variations_own_requests() -> None:
    before = route(rule(default_a=8550, default_b=450, careful_a=1000), rule("direct", default_a=9500, default_b=500))
    after = route(rule(default_a=6750, default_b=2250, careful_a=1000), rule("direct", default_a=7500, default_b=2500))

    assert moved(before, after) == ("default: build aaaaaaaa 95 % -> 75 %, build bbbbbbbb 5 % -> 25 %",)


def test_builds_that_come_and_go_are_told() -> None:
    first, both, last = rule(default_a=10_000), rule(default_a=9975, default_b=25), rule(default_b=10_000)

    assert moved(route(first), route(both)) == (
        "default: build aaaaaaaa 100 % -> 99.8 %, build bbbbbbbb none -> 0.25 %",
    )
    kept = rule(default_a=0, default_b=10_000)
    assert moved(route(kept), route(last)) == ("default: build aaaaaaaa 0 % -> none",)


def test_each_variation_has_a_line_of_its_own() -> None:
    before, after = rule(careful_a=1000, default_a=9000), rule(careful_b=1000, default_b=9000)

    assert moved(route(before), route(after)) == (
        "careful: build aaaaaaaa 100 % -> none, build bbbbbbbb none -> 100 %",
        "default: build aaaaaaaa 100 % -> none, build bbbbbbbb none -> 100 %",
    )


def test_copies_that_go_to_the_next_build_are_told() -> None:
    before, after = (rule(mirror=f"careful-{build}", default_a=10_000) for build in ("aaaaaaaa", "bbbbbbbb"))

    assert moved(route(before), route(after)) == ("careful: copies to build aaaaaaaa -> build bbbbbbbb",)


def test_what_moves_requests_between_variations_is_more_than_that() -> None:
    before = route(rule(careful_a=1000, default_a=9000))

    assert moved(before, route(rule(careful_a=1001, default_a=8999))) is None
    assert moved(before, route(rule(careful_a=1000, default_b=8999))) is None
    assert moved(before, route(rule(default_b=10_000))) is None
    assert moved(before, route(rule(careful_a=1000, default_b=9000, mirror="careful-aaaaaaaa"))) is None


def test_so_is_everything_else_that_a_route_says() -> None:
    before, after = rule(default_a=10_000), rule(default_b=10_000)

    assert moved(route(before), route(after, hostnames=["other.example.com"])) is None
    assert moved(route(before), route(after, rule("more", default_b=10_000))) is None
    assert moved(route(before), route(after | {"timeouts": {"request": "6s"}})) is None
    elsewhere = after | {"backendRefs": [backend("default-bbbbbbbb", 10_000) | {"port": 81}]}
    assert moved(route(before), route(elsewhere)) is None
    assert moved(route(before), route(before)) is None, "nothing moves"


def test_a_variation_that_gets_nothing_may_be_named_or_not() -> None:
    before, after = rule(careful_a=0, default_a=10_000), rule(default_b=10_000)

    assert moved(route(before), route(after)) is not None


def test_a_service_that_nobody_knows_is_taken_for_what_it_is_called() -> None:
    """Also where its name looks like that of a build."""
    theirs = route(rule() | {"backendRefs": [backend("default-cccccccc", 10_000)]})

    assert moved(theirs, route(rule(default_a=10_000))) is None
    assert moved(route(rule(default_a=10_000)), theirs) is None


def test_what_stands_behind_a_service_is_read_from_its_labels() -> None:
    labels = {"app.kubernetes.io/name": "churn", "trueup.dev/variation": "default", "trueup.dev/build-id": "aaaaaaaa"}
    ours = {"metadata": {"name": "a-name-of-any-kind", "labels": labels}}
    resolver = {"metadata": {"name": "churn-resolver", "labels": {"app.kubernetes.io/name": "churn"}}}

    found = backends([ours, resolver, {"metadata": {"name": "bare"}}])
    assert found == {"a-name-of-any-kind": Backend("churn", "default", "aaaaaaaa")}


PERCENT = st.integers(0, 100)


@given(PERCENT, PERCENT, PERCENT, PERCENT)
def test_weights_decide_by_their_sums_alone(a: int, b: int, c: int, d: int) -> None:
    found = moved(route(rule(default_a=a, default_b=b)), route(rule(default_a=c, default_b=d)))

    assert (found is not None) == (a + b == c + d and (a, b) != (c, d))
