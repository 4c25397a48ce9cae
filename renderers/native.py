"""Mode native of routing: audiences as header matches, which a gateway tries in the order of the audiences."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from renderers.audiences import HeaderMatch, Match, NotNative, compile_audience, disjoint, rank
from renderers.gateways import GatewayFeatures
from schemas.audience import Audience

#: Limits of HTTPRoute (Gateway API v1.6). A controller may take a route that breaks one, and then ignore it.
RULES = 16
MATCHES_PER_RULE = 64
MATCHES = 128


def native(
    audiences: list[Audience], gateway: GatewayFeatures, *, paths: int, everybody: bool
) -> dict[str, tuple[Match, ...]]:
    """Header matches that the gateway tries in the order of the audiences, or NotNative.

    Each match is needed for so many `paths`. `everybody`: a rule for everybody else follows.
    """
    if len(audiences) + everybody > RULES:
        raise NotNative(
            f"{len(audiences)} audiences{' and everybody else' * everybody} would need a rule each, and a route has "
            f"{RULES}"
        )
    matches = {audience.name: compile_audience(audience, gateway) for audience in audiences}
    late = _tried_too_late(audiences, matches, gateway)
    if late is not None:
        level = {
            audience.name: compile_audience(audience, gateway, exact=not gateway.exact_first) for audience in audiences
        }
        if (made := _levelled(level, gateway)) is None:
            raise NotNative(
                f"{late[0]} comes before {late[1]}, and a gateway tries the audience with more headers first"
            )
        matches = made
    counts = {name: len(of) * paths for name, of in matches.items()}
    for name, count in counts.items():
        if count > MATCHES_PER_RULE:
            raise NotNative(f"{name} would need {count} matches, and a rule has {MATCHES_PER_RULE}")
    if (total := sum(counts.values()) + paths * everybody) > MATCHES:
        raise NotNative(f"the route would need {total} matches, and {MATCHES} is the most")
    return matches


def _tried_too_late(
    audiences: list[Audience], matches: Mapping[str, tuple[Match, ...]], gateway: GatewayFeatures
) -> tuple[str, str] | None:
    """Two audiences of which the gateway would prefer the second, although a request can be in both."""
    for first, second in combinations(audiences, 2):
        prefers_second = rank(matches[second.name], gateway) > rank(matches[first.name], gateway)
        if prefers_second and not disjoint(first, second):
            return first.name, second.name
    return None


def _levelled(matches: dict[str, tuple[Match, ...]], gateway: GatewayFeatures) -> dict[str, tuple[Match, ...]] | None:
    """The matches with as many headers each, so that the gateway goes by their order; None where it cannot be done.

    What is added are headers that every request has, with any value.
    """
    most = max(len(of[0]) for of in matches.values())
    if most - min(len(of[0]) for of in matches.values()) > len(gateway.always_present):
        return None
    anything = tuple(HeaderMatch(name, "RegularExpression", ".*") for name in gateway.always_present)
    return {name: tuple(match + anything[: most - len(match)] for match in of) for name, of in matches.items()}
