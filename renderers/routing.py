"""Routing: one HTTPRoute for a model in an environment, rendered whole, because `rules` is one field to the API server.

Only where a route cannot hold all rules, those to one variation go to routes of their own: their paths are longer, so
that it does not matter in which order a gateway sees the routes.

Paths, of predictions as the platform's clients send them and of the Open Inference Protocol:

    /v1/MODEL/predict              /v2/models/MODEL/...                      by audience
    /v1/MODEL/VARIATION/predict    /v2/models/MODEL/versions/VARIATION/...   to one variation, whoever asks

Two modes. `native`: the gateway itself tells audiences apart, by the headers of the request. `resolver`: Trueup's
evaluator in front of it does, and says so in one header; every gateway can route by that, and since each rule then
has one Exact match, the order of the rules is the order of the audiences. Native needs no extra hop, so it is chosen
where the gateway can do it and where it is proved that it tries the audiences in their order. A gateway prefers the
match with more headers, whatever the list says; where that would be the wrong one, the others get as many, of headers
that every request has.

Backends of a rule are in order of their variations' names, those of one variation in the order in which they came (a
canary's new build after the current one), and their weights always sum to the same. So a gateway that pins users by a
hash gives each variation one stretch of all users, which a growing share takes from its neighbour's end: nobody who
has the new build goes back to the old one. A variation's stretch is cut first, and then shared among its builds, so
that no step of a canary moves anybody between variations.

A build that takes over is not named before it gets traffic, so that the route waits for its pods then and not earlier.
The current build stays named, with a weight of 0, for as long as it stands: the way back waits for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import accumulate, chain, combinations, pairwise
from typing import Any, NamedTuple, TypeAlias, TypeVar

import orjson

from renderers import names, resolver
from renderers.audiences import HeaderMatch, Match, NotNative, Unsound, check, disjoint
from renderers.catalog import Facts, Unit
from renderers.environment import namespace_id
from renderers.gateways import GatewayFeatures, gateway_features
from renderers.manifest import Manifest, ObjectId, object_id
from renderers.native import MATCHES, MATCHES_PER_RULE, RULES, native
from renderers.notes import Note, Refused
from renderers.served import Served, by_variation, served, traffic_of
from renderers.serving import SERVICE_PORT
from renderers.template import Template
from schemas.audience import Audience
from schemas.base import SpecModel
from schemas.matching import AUDIENCE_HEADER, EVERYBODY_ELSE, conditions_of, headers, in_order
from schemas.variation import Traffic, Variation

T = TypeVar("T")

_ROUTE = Template("http-route")
_STICKY = Template("backend-traffic-policy")

#: What the weights of a rule sum to, always: a gateway that pins users by a hash would move most of them otherwise.
#: A variation's percent are hundreds of it, so that a canary can take a percent of a percent.
WEIGHT_TOTAL = 10_000

#: Milliseconds that a gateway waits longer than the server does, so that it is the server that says what happened.
TIMEOUT_MARGIN = 1000


#: The builds of each variation, the current one first.
_Variations: TypeAlias = Sequence[Sequence[Served]]


class Share(NamedTuple):
    """A variation, by its builds, and what it gets of an audience's requests."""

    builds: Sequence[Served]  #: the current one first
    traffic: Traffic

    @property
    def variation(self) -> Variation:
        """Whose share it is."""
        return self.builds[0].variation.spec


class Plan(NamedTuple):
    """How the model's audiences are told apart. `shares` of None are everybody else's."""

    audiences: list[Audience]  #: those with somebody to answer, in the order in which they are tried
    shares: Mapping[str | None, list[Share]]
    matches: Mapping[str, tuple[Match, ...]]
    resolver_because: str  #: "" in mode native


def render(unit: Unit, facts: Facts) -> list[Manifest]:
    """The HTTPRoute, after what it needs to be right from the start: the resolver, and what pins users.

    Nothing where nothing is served. Errors: `Refused`.
    """
    here = _routed(unit, facts)
    if not here:
        return []
    environment, origin = unit.environment.spec, here[0][0].variation.origin
    plan = _plan(unit, here)
    (main, by_audience), *others = _layout(unit, here, plan)
    manifests: list[Manifest] = []
    waits_for: list[ObjectId] = []
    if plan.resolver_because:
        manifests += resolver.render(unit, plan.audiences, origin, main)
        waits_for = [resolver.service_id(unit), resolver.deployment_id(unit)]
        waits_for += [made.id for made in manifests if made.id.kind == "SecurityPolicy"]
    if _is_sticky(unit, plan) and gateway_features(environment).policies:
        policy = _STICKY(
            name=main,
            namespace=environment.namespace_name,
            labels=names.labels(unit.model, "routing", environment.name),
            annotations=names.provenance(origin, f"model/{unit.model}"),
            header=(environment.gateway.sticky_header or "").lower(),
        )
        manifests.append(Manifest(object_id(policy), policy, origin, environment.name, (namespace_id(environment),)))
    manifests.append(_route(unit, here, main, by_audience, answers=bool(plan.shares), after=waits_for))
    return manifests + [_route(unit, here, name, rules) for name, rules in others]


def _route(
    unit: Unit,
    here: _Variations,
    name: str,
    rules: list[dict[str, Any]],
    *,
    answers: bool = False,
    after: Iterable[ObjectId] = (),
) -> Manifest:
    environment, origin = unit.environment.spec, here[0][0].variation.origin
    body = _ROUTE(
        name=name,
        namespace=environment.namespace_name,
        labels=names.labels(unit.model, "routing", environment.name),
        annotations=names.provenance(origin, f"model/{unit.model}")
        | _protection(here)
        | {names.SHARES: _shares_hash(unit)}
        | ({names.ANSWERS: "true"} if answers else {}),
        gateway=environment.gateway.name,
        gateway_namespace=environment.gateway.namespace or environment.namespace_name,
        section_name=environment.gateway.section_name,
        hostnames=_hostnames(unit),
        rules=rules,
    )
    needs = [namespace_id(environment)]
    for one in chain.from_iterable(here):
        needs.append(one.service_id(environment))
        # Who answers must be there first. A shadow that cannot be built holds nobody up.
        if one.percent and any(share.weight and not share.shadow for share in one.traffic):
            needs.append(one.deployment_id(environment))
    return Manifest(object_id(body), body, origin, environment.name, (*needs, *after))


def _routed(unit: Unit, facts: Facts) -> _Variations:
    """The builds that the routes name, variation by variation, the current one first."""
    groups = [group for group in by_variation(served(unit, facts)) if any(one.percent for one in group)]
    return [[group[0], *(one for one in group[1:] if one.percent)] for group in groups]


def _shares_hash(unit: Unit) -> str:
    """Of what decides, in no order: descriptions, and the order in which people write, move nobody."""
    shares = [(one.spec.name, _dumps(traffic_of(one.spec, unit))) for one in unit.variations]
    audiences = [
        (name, placed.spec.priority, _dumps(conditions_of(placed.spec)))
        for name, placed in sorted(unit.audiences.items())
    ]
    return sha256(orjson.dumps([sorted(shares), audiences])).hexdigest()[:16]


def _dumps(parts: Iterable[SpecModel]) -> list[str]:
    return sorted(part.model_dump_json() for part in parts)


def _protection(here: _Variations) -> dict[str, str]:
    """The route decides who gets a protected variation, so it is protected too."""
    return {names.PROTECTED: "true"} if any(one.variation.spec.protected for one, *_ in here) else {}


def notes(unit: Unit, facts: Facts) -> list[Note]:
    """The mode and why, and who gets no answer. Errors: `Refused`."""
    here = _routed(unit, facts)
    if not here:
        return []
    plan, origin, told = _plan(unit, here), here[0][0].variation.origin, []
    where = f"{unit.model} in {unit.environment.spec.name}"
    gateway = gateway_features(unit.environment.spec)
    if plan.audiences:
        how = (
            f"resolver, because {plan.resolver_because}: {resolver.instructions(unit, plan.audiences)}"
            if plan.resolver_because
            else f"native: {gateway.title} tells the audiences apart"
        )
        told.append(Note(origin, f"routing mode of {where}: {how}"))
    waiting = sorted(unit.audiences.keys() - plan.shares.keys())
    if waiting:
        told.append(
            Note(
                origin,
                f"{', '.join(waiting)}: no variation of {where} answers these yet, so their requests belong to the "
                "next audience that they are in, or to everybody else",
            )
        )
    if None not in plan.shares and all(map(headers, plan.audiences)):
        told.append(Note(origin, f"no variation of {where} takes everybody else: other requests are answered with 404"))
    sticky_header = unit.environment.spec.gateway.sticky_header
    if _is_sticky(unit, plan) and not gateway.policies:
        told.append(
            Note(
                unit.environment.origin,
                f"{gateway.title} is not known to keep users with a variation: sticky_header {sticky_header} does "
                f"nothing, and each request to {where} is decided by itself",
            )
        )
    if not gateway.underscores:
        looked_at = [(unit.audiences[a.name].origin, key) for a in plan.audiences for key in headers(a)]
        if _is_sticky(unit, plan) and sticky_header is not None:
            looked_at.append((unit.environment.origin, sticky_header))
        dropped = f"{gateway.title} lets no header with _ through"
        told += [Note(where_from, f"{dropped}: {key}") for where_from, key in looked_at if "_" in key]
    return told


# --- deciding ----------------------------------------------------------------------------------------------------


def _plan(unit: Unit, here: _Variations) -> Plan:
    shares: dict[str | None, list[Share]] = {}
    for builds in here:
        for traffic in builds[0].traffic:
            shares.setdefault(traffic.audience, []).append(Share(builds, traffic))
    # A rule with nobody behind it would answer 500.
    shares = {name: of for name, of in shares.items() if any(s.traffic.weight for s in of if not s.traffic.shadow)}
    audiences = in_order(unit.audiences[name].spec for name in shares if name is not None)
    _refuse_unsound(unit, audiences)
    gateway = gateway_features(unit.environment.spec)
    try:
        matches, because = native(audiences, gateway, paths=len(_PATHS), everybody=None in shares), ""
    except NotNative as reason:
        matches, because = {a.name: ((HeaderMatch(AUDIENCE_HEADER, "Exact", a.name),),) for a in audiences}, str(reason)
    return Plan(audiences, shares, matches, because)


def _is_sticky(unit: Unit, plan: Plan) -> bool:
    """Whether there is anything to decide that a user should not feel twice; a canary counts before its first step."""
    return unit.environment.spec.gateway.sticky_header is not None and any(map(_is_split, plan.shares.values()))


def _is_split(shares: Iterable[Share]) -> bool:
    answering = [share for share in shares if not share.traffic.shadow]
    return len(answering) > 1 or any(len(s.builds) > 1 or s.variation.rollout != "replace" for s in answering)


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


# --- writing -----------------------------------------------------------------------------------------------------

#: Kind and form of the paths by audience, and of those of one variation.
_PATHS = (("Exact", "/v1/{model}/predict"), ("PathPrefix", "/v2/models/{model}"))
_DIRECT_PATHS = (
    ("Exact", "/v1/{model}/{variation}/predict"),
    ("PathPrefix", "/v2/models/{model}/versions/{variation}"),
)


#: The rules of a route, by the route's name.
_Layout = list[tuple[str, list[dict[str, Any]]]]


def _layout(unit: Unit, here: _Variations, plan: Plan) -> _Layout:
    """The model's route: direct rules first, then the audiences in order, then everybody else.

    Where these are too many, it has the audiences alone, and the direct rules follow in routes of their own.
    """
    gateway, name = gateway_features(unit.environment.spec), names.object_name(unit.model)
    direct = [_direct_rule(unit, builds, gateway) for builds in here]
    by_audience = _rules(unit, plan, gateway)
    if _fits(together := direct + by_audience):
        return [(name, together)]
    if not _fits(by_audience):
        raise Refused(
            here[0][0].variation.origin,
            "routing/too-many-rules",
            f"the {len(plan.audiences)} audiences of {unit.model} in {unit.environment.spec.name} share their requests "
            f"in {len(by_audience)} different ways, which takes {len(by_audience)} rules and "
            f"{sum(len(rule['matches']) for rule in by_audience)} matches, and a route has {RULES} and {MATCHES}",
            "let more audiences have the same shares, or name fewer of them",
        )
    more = [(_overflow_name(unit.model, n), rules) for n, rules in enumerate(_batches(direct, RULES))]
    return [(name, by_audience), *more]


def _fits(rules: list[dict[str, Any]]) -> bool:
    return len(rules) <= RULES and sum(len(rule["matches"]) for rule in rules) <= MATCHES


def _overflow_name(model: str, number: int) -> str:
    """A name that no model's own route can have: theirs end in 8 hex digits only as a hash of themselves."""
    digest = sha256(f"variations/{model}/{number}".encode()).hexdigest()[:8]
    return f"{names.object_name(model, 'variations', limit=names.LABEL_LIMIT - names.SUFFIX)}-{digest}"


def _rules(unit: Unit, plan: Plan, gateway: GatewayFeatures) -> list[dict[str, Any]]:
    """The audiences in order, then everybody else, or what says that nobody answers."""
    rules = [_audience_rule(unit, plan, [audience], gateway) for audience in plan.audiences]
    if plan.resolver_because and len(rules) + 1 > RULES:
        # The resolver has named one audience, so that their order says nothing any more, and some may have one rule.
        rules = [_audience_rule(unit, plan, alike, gateway) for alike in _alike(plan)]
    everybody: tuple[Match, ...] = ((),)
    matches = _matches(_PATHS, everybody, model=unit.model)
    if None in plan.shares:
        filters = [_header_filter({"remove": [AUDIENCE_HEADER]}), *_mirrors(plan.shares[None], gateway)]
        rules.append(_rule("everybody", matches, filters, plan.shares[None], gateway))
    elif plan.resolver_because:
        # A gateway asks the resolver about the requests of a route, which until then have no audience: without this
        # rule, they would be nobody's. The resolver answers what comes with an audience with 404.
        rules.append(_nobody_rule(unit, matches))
    return rules


def _audience_rule(unit: Unit, plan: Plan, audiences: list[Audience], gateway: GatewayFeatures) -> dict[str, Any]:
    """The rule of one audience, or of several with the same shares that the resolver tells apart."""
    first = audiences[0].name
    shares = plan.shares[first]
    alternatives = tuple(match for audience in audiences for match in plan.matches[audience.name])
    filters = _mirrors(shares, gateway)
    if len(audiences) == 1:
        filters.insert(0, _header_filter({"set": [{"name": AUDIENCE_HEADER, "value": first}]}))
    return _rule(
        names.object_name("audience" if len(audiences) == 1 else "audiences", first),
        _matches(_PATHS, alternatives, model=unit.model),
        filters,
        shares,
        gateway,
    )


def _alike(plan: Plan) -> list[list[Audience]]:
    """The audiences with the same shares together, as many as one rule can hold."""
    groups: dict[tuple[tuple[str, int, bool], ...], list[Audience]] = {}
    for audience in plan.audiences:
        shares = plan.shares[audience.name]
        key = tuple((share.variation.name, share.traffic.weight, share.traffic.shadow) for share in shares)
        groups.setdefault(key, []).append(audience)
    most = MATCHES_PER_RULE // len(_PATHS)
    return [batch for group in groups.values() for batch in _batches(group, most)]


def _batches(items: list[T], size: int) -> list[list[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _nobody_rule(unit: Unit, matches: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": "nobody",
        "matches": matches,
        "filters": [_header_filter({"set": [{"name": AUDIENCE_HEADER, "value": EVERYBODY_ELSE}]})],
        "backendRefs": [_service(resolver.name_of(unit)) | {"weight": 1}],
    }


def _direct_rule(unit: Unit, builds: Sequence[Served], gateway: GatewayFeatures) -> dict[str, Any]:
    variation = builds[0].variation.spec.name
    return _rule(
        names.object_name("variation", variation),
        _matches(_DIRECT_PATHS, ((),), model=unit.model, variation=variation),
        [_header_filter({"remove": [AUDIENCE_HEADER]})],
        [Share(builds, Traffic())],
        gateway,
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
    stretches = _scaled([share.traffic.weight for share in answering], WEIGHT_TOTAL)
    rule: dict[str, Any] = {
        "name": name,
        "matches": matches,
        "filters": filters,
        "backendRefs": [
            _backend(one) | {"weight": weight}
            for share, stretch in zip(answering, stretches, strict=True)
            for one, weight in zip(share.builds, _scaled([b.percent for b in share.builds], stretch), strict=True)
        ],
    }
    if gateway.timeouts:
        longest = max(share.variation.deployment.http_request_timeout_ms for share in answering)
        duration = _duration(longest + TIMEOUT_MARGIN)
        rule["timeouts"] = {"request": duration, "backendRequest": duration}
    return rule


def _backend(one: Served) -> dict[str, Any]:
    return _service(one.name)


def _service(name: str) -> dict[str, Any]:
    return {"group": "", "kind": "Service", "name": name, "port": SERVICE_PORT}


def _scaled(percents: list[int], total: int) -> list[int]:
    """Weights in these proportions that sum to the total, also where a variation that waits has left a gap."""
    if len(percents) == 1:
        return [total]
    whole = sum(percents)
    marks = [mark * total // whole for mark in accumulate(percents, initial=0)]
    return [high - low for low, high in pairwise(marks)]


def _mirrors(shares: list[Share], gateway: GatewayFeatures) -> list[dict[str, Any]]:
    filters: list[dict[str, Any]] = []
    for builds, traffic in shares:
        if not traffic.shadow or traffic.weight == 0:
            continue
        one = max(builds, key=lambda build: build.percent)  # of a route's copies, one service gets all
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
