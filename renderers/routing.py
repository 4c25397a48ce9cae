"""Routing: one HTTPRoute for a model in an environment, rendered whole, because `rules` is one field to the API server.

Paths, of predictions as the platform's clients send them and of the Open Inference Protocol:

    /v1/MODEL/predict              /v2/models/MODEL/...                      by audience
    /v1/MODEL/VARIATION/predict    /v2/models/MODEL/versions/VARIATION/...   to one variation, whoever asks

Two modes. `native`: the gateway itself tells audiences apart, by the headers of the request. `resolver`: Trueup's
evaluator in front of it does, and says so in one header; every gateway can route by that, and since each rule then
has one Exact match, the order of the rules is the order of the audiences. Native needs no extra hop, so it is chosen
where the gateway can do it and where it is proved that it tries the audiences in their order. A gateway prefers the
match with more headers, whatever the list says; where that would be the wrong one, the others get as many, of headers
that every request has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, combinations, pairwise
from typing import Any, NamedTuple

from renderers import names
from renderers.audiences import (
    HeaderMatch,
    Match,
    NotNative,
    Unsound,
    check,
    compile_audience,
    disjoint,
    headers,
    in_order,
    rank,
)
from renderers.catalog import Facts, Unit
from renderers.environment import namespace_id
from renderers.gateways import GatewayFeatures, gateway_features
from renderers.manifest import Manifest, object_id
from renderers.notes import Note, Refused
from renderers.served import Served, served
from renderers.serving import SERVICE_PORT
from renderers.template import Template
from schemas.audience import Audience
from schemas.variation import Traffic

_ROUTE = Template("http-route")

#: Who a request was routed as, for the server's log. In mode resolver the evaluator sets it, and the route matches it.
AUDIENCE_HEADER = "x-trueup-audience"

#: Limits of HTTPRoute (Gateway API v1.6). A controller may take a route that breaks one, and then ignore it.
RULES = 16
MATCHES_PER_RULE = 64
MATCHES = 128

#: What the weights of a rule sum to, always: a gateway that pins users by a hash would move most of them otherwise.
#: A variation's percent are hundreds of it, so that a canary can take a percent of a percent.
WEIGHT_TOTAL = 10_000

#: Milliseconds that a gateway waits longer than the server does, so that it is the server that says what happened.
TIMEOUT_MARGIN = 1000


class Share(NamedTuple):
    """A variation and what it gets of an audience's requests."""

    served: Served
    traffic: Traffic


class Plan(NamedTuple):
    """How the model's audiences are told apart. `shares` of None are everybody else's."""

    audiences: list[Audience]  #: those with somebody to answer, in the order in which they are tried
    shares: Mapping[str | None, list[Share]]
    matches: Mapping[str, tuple[Match, ...]]
    resolver_because: str  #: "" in mode native


def render(unit: Unit, facts: Facts) -> list[Manifest]:
    """The HTTPRoute; nothing where nothing is served. Errors: `Refused`."""
    here = served(unit, facts)
    if not here:
        return []
    environment, origin = unit.environment.spec, here[0].variation.origin
    plan = _plan(unit, here)
    body = _ROUTE(
        name=names.object_name(unit.model),
        namespace=environment.namespace_name,
        labels=names.labels(unit.model, "routing", environment.name),
        annotations=names.provenance(origin, f"model/{unit.model}") | _protection(here),
        gateway=environment.gateway.name,
        gateway_namespace=environment.gateway.namespace or environment.namespace_name,
        section_name=environment.gateway.section_name,
        hostnames=_hostnames(unit),
        rules=_rules(unit, here, plan),
    )
    needs = [namespace_id(environment)]
    for one in here:
        needs += [one.service_id(environment), one.deployment_id(environment)]
    return [Manifest(object_id(body), body, origin, environment.name, tuple(needs))]


def _protection(here: Sequence[Served]) -> dict[str, str]:
    """The route decides who gets a protected variation, so it is protected too."""
    return {names.PROTECTED: "true"} if any(one.variation.spec.protected for one in here) else {}


def notes(unit: Unit, facts: Facts) -> list[Note]:
    """The mode and why, and who gets no answer. Errors: `Refused`."""
    here = served(unit, facts)
    if not here:
        return []
    plan, origin, told = _plan(unit, here), here[0].variation.origin, []
    where = f"{unit.model} in {unit.environment.spec.name}"
    gateway = gateway_features(unit.environment.spec)
    if plan.audiences:
        how = (
            f"resolver, because {plan.resolver_because}: Trueup's resolver must stand before the gateway and set "
            f"{AUDIENCE_HEADER}"
            if plan.resolver_because
            else f"native: {gateway.title} tells the audiences apart"
        )
        told.append(Note(origin, f"routing mode of {where}: {how}"))
    waiting = sorted(unit.audiences.keys() - plan.shares.keys())
    if waiting:
        told.append(
            Note(origin, f"{', '.join(waiting)}: no variation of {where} answers these yet, so they are everybody else")
        )
    if None not in plan.shares and all(map(headers, plan.audiences)):
        told.append(Note(origin, f"no variation of {where} takes everybody else: other requests are answered with 404"))
    if not gateway.underscores:
        told += [
            Note(unit.audiences[audience.name].origin, f"{gateway.title} lets no header with _ through: {key}")
            for audience in plan.audiences
            for key in headers(audience)
            if "_" in key
        ]
    return told


# --- deciding ----------------------------------------------------------------------------------------------------


def _plan(unit: Unit, here: list[Served]) -> Plan:
    shares: dict[str | None, list[Share]] = {}
    for one in here:
        for traffic in one.traffic:
            shares.setdefault(traffic.audience, []).append(Share(one, traffic))
    # A rule with nobody behind it would answer 500.
    shares = {name: of for name, of in shares.items() if any(s.traffic.weight for s in of if not s.traffic.shadow)}
    audiences = in_order(unit.audiences[name].spec for name in shares if name is not None)
    _refuse_unsound(unit, audiences)
    gateway = gateway_features(unit.environment.spec)
    others = len(_PATHS) + len(_DIRECT_PATHS) * len(here)
    try:
        matches, because = _native(audiences, gateway, others), ""
    except NotNative as reason:
        matches, because = {a.name: ((HeaderMatch(AUDIENCE_HEADER, "Exact", a.name),),) for a in audiences}, str(reason)
    return Plan(audiences, shares, matches, because)


def _refuse_unsound(unit: Unit, audiences: list[Audience]) -> None:
    for audience in audiences:
        try:
            check(audience)
        except Unsound as error:
            raise Refused(unit.audiences[audience.name].origin, error.rule, error.message, error.hint) from error
    for first, second in combinations(audiences, 2):
        # Everybody comes last of those with its priority, so that there is nothing to decide.
        clash = first.priority == second.priority and headers(first) and headers(second)
        if clash and not disjoint(first, second):
            raise Refused(
                unit.audiences[second.name].origin,
                "audience/priority",
                f"a request can be in both {first.name} and {second.name}, which have the same priority "
                f"{first.priority}, so that model {unit.model} does not say who gets it",
                "give one of them a lower number: it is tried first",
            )


def _native(audiences: list[Audience], gateway: GatewayFeatures, others: int) -> dict[str, tuple[Match, ...]]:
    """Header matches that the gateway tries in the order of the audiences, or NotNative.

    `others` are the route's matches that are not of audiences.
    """
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
    counts = {name: len(of) * len(_PATHS) for name, of in matches.items()}
    for name, count in counts.items():
        if count > MATCHES_PER_RULE:
            raise NotNative(f"{name} would need {count} matches, and a rule has {MATCHES_PER_RULE}")
    if (total := sum(counts.values()) + others) > MATCHES:
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


# --- writing -----------------------------------------------------------------------------------------------------

#: Kind and form of the paths by audience, and of those of one variation.
_PATHS = (("Exact", "/v1/{model}/predict"), ("PathPrefix", "/v2/models/{model}"))
_DIRECT_PATHS = (
    ("Exact", "/v1/{model}/{variation}/predict"),
    ("PathPrefix", "/v2/models/{model}/versions/{variation}"),
)


def _rules(unit: Unit, here: list[Served], plan: Plan) -> list[dict[str, Any]]:
    """Direct ones first, then the audiences in order, then everybody else."""
    gateway = gateway_features(unit.environment.spec)
    everybody: tuple[Match, ...] = ((),)
    rules = [_direct_rule(unit, one, gateway) for one in here]
    for audience in plan.audiences:
        set_header = {"set": [{"name": AUDIENCE_HEADER, "value": audience.name}]}
        rules.append(
            _rule(
                names.object_name("audience", audience.name),
                _matches(_PATHS, plan.matches[audience.name], model=unit.model),
                [_header_filter(set_header), *_mirrors(plan.shares[audience.name], gateway)],
                plan.shares[audience.name],
                gateway,
            )
        )
    if None in plan.shares:
        rules.append(
            _rule(
                "everybody",
                _matches(_PATHS, everybody, model=unit.model),
                [_header_filter({"remove": [AUDIENCE_HEADER]}), *_mirrors(plan.shares[None], gateway)],
                plan.shares[None],
                gateway,
            )
        )
    _refuse_too_many(unit, here, plan, rules)
    return rules


def _direct_rule(unit: Unit, one: Served, gateway: GatewayFeatures) -> dict[str, Any]:
    variation = one.variation.spec.name
    return _rule(
        names.object_name("variation", variation),
        _matches(_DIRECT_PATHS, ((),), model=unit.model, variation=variation),
        [_header_filter({"remove": [AUDIENCE_HEADER]})],
        [Share(one, Traffic())],
        gateway,
    )


def _refuse_too_many(unit: Unit, here: list[Served], plan: Plan, rules: list[dict[str, Any]]) -> None:
    if len(rules) > RULES:
        raise Refused(
            here[0].variation.origin,
            "routing/too-many-rules",
            f"the route of {unit.model} in {unit.environment.spec.name} would have {len(rules)} rules (one for each of "
            f"{len(here)} variations and {len(plan.audiences)} audiences, and one for everybody else), and {RULES} "
            "is the most",
            "serve fewer variations or audiences, or split the model",
        )


def _matches(
    paths: tuple[tuple[str, str], ...], alternatives: tuple[Match, ...], **values: str
) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for kind, form in paths:
        path = {"type": kind, "value": form.format(**values)}
        for alternative in alternatives:
            match: dict[str, Any] = {"path": path}
            if alternative:
                match["headers"] = [header._asdict() for header in alternative]
            made.append(match)
    return made


def _rule(
    name: str,
    matches: list[dict[str, Any]],
    filters: list[dict[str, Any]],
    shares: list[Share],
    gateway: GatewayFeatures,
) -> dict[str, Any]:
    answering = [share for share in shares if not share.traffic.shadow]
    weights = _scaled([share.traffic.weight for share in answering])
    rule: dict[str, Any] = {
        "name": name,
        "matches": matches,
        "filters": filters,
        "backendRefs": [
            _backend(share.served) | {"weight": weight} for share, weight in zip(answering, weights, strict=True)
        ],
    }
    if gateway.timeouts:
        longest = max(share.served.variation.spec.deployment.http_request_timeout_ms for share in answering)
        duration = _duration(longest + TIMEOUT_MARGIN)
        rule["timeouts"] = {"request": duration, "backendRequest": duration}
    return rule


def _backend(one: Served) -> dict[str, Any]:
    return {"group": "", "kind": "Service", "name": one.name, "port": SERVICE_PORT}


def _scaled(percents: list[int]) -> list[int]:
    """Weights in these proportions that sum to WEIGHT_TOTAL, also where a variation that waits has left a gap."""
    marks = [mark * WEIGHT_TOTAL // sum(percents) for mark in accumulate(percents, initial=0)]
    return [high - low for low, high in pairwise(marks)]


def _mirrors(shares: list[Share], gateway: GatewayFeatures) -> list[dict[str, Any]]:
    filters: list[dict[str, Any]] = []
    for one, traffic in shares:
        if not traffic.shadow or traffic.weight == 0:
            continue
        spec = one.variation.spec
        if not gateway.mirror or (traffic.weight < 100 and not gateway.mirror_percent):
            what = "copy requests" if not gateway.mirror else "copy a part of the requests"
            raise Refused(
                one.variation.origin,
                "routing/no-mirror",
                f"variation {spec.name} of {spec.model} is a shadow, and {gateway.title} is not known to {what}",
                "name the environment's gateway.controller; Envoy Gateway and Istio can",
            )
        mirror: dict[str, Any] = {"backendRef": _backend(one)}
        if traffic.weight < 100:
            mirror["percent"] = traffic.weight
        filters.append({"type": "RequestMirror", "requestMirror": mirror})
    return filters


def _header_filter(change: dict[str, Any]) -> dict[str, Any]:
    return {"type": "RequestHeaderModifier", "requestHeaderModifier": change}


def _duration(milliseconds: int) -> str:
    """As Gateway API writes it (GEP-2257): at most five digits before each unit."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds}s{rest}ms" if rest else f"{seconds}s"


def _hostnames(unit: Unit) -> list[str] | None:
    hostname = unit.environment.spec.gateway.hostname
    return None if hostname is None else [hostname.replace("{model}", names.object_name(unit.model))]
