"""What is said about the objects: conditions with the reasons of Gateway API. Pure.

"Accepted" is said of a route once the proxy has taken it, so that who waits for it can send requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple

from embedded.deletion import timestamp
from embedded.gateway.attachment import Attachment, Gate, Section
from embedded.gateway.configuration import Configuration, Memo, RouteReport
from embedded.gateway.world import (
    CLASSES,
    CONTROLLER,
    GATEWAYS,
    GROUP,
    ROUTES,
    SECURITY_POLICIES,
    TRAFFIC_POLICIES,
    Key,
    Object,
    Problem,
    World,
)

#: What the class says that it can do; names of https://gateway-api.sigs.k8s.io/concepts/conformance/ .
_FEATURES = (
    "Gateway",
    "GatewayPort8080",
    "HTTPRoute",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteSchemeRedirect",
)


class Condition(NamedTuple):
    """A condition, before anybody knows since when it holds."""

    type: str
    status: str  #: True, False or Unknown
    reason: str
    message: str


class Proxy(NamedTuple):
    """What the proxy makes of its configuration. Sentences are "" where all is well."""

    trouble: str = ""  #: why it does not run, or does not take anything
    listeners: Mapping[str, str] = {}  #: why one does not listen
    refused: Mapping[Key, str] = {}  #: why the newest version of a route is not in use


class Report(NamedTuple):
    """The status that an object should have."""

    resource: str
    key: Key
    status: Object


def reports(world: World, made: Configuration, proxy: Proxy, now: datetime, memo: Memo) -> Iterator[Report]:
    """The statuses that are not what they should be."""
    for resource, objects, wanted in (
        (CLASSES, world.classes, _classes(world, now)),
        (GATEWAYS, world.gateways, _gateways(world, made, proxy, now)),
        (ROUTES, world.routes, _routes(world, made, proxy, now, memo)),
        (
            SECURITY_POLICIES,
            world.security_policies,
            _policies(world.security_policies, made.policies.security_outcomes, made, proxy, now),
        ),
        (
            TRAFFIC_POLICIES,
            world.traffic_policies,
            _policies(world.traffic_policies, made.policies.traffic_outcomes, made, proxy, now),
        ),
    ):
        for key, status in wanted:
            if status != objects[key].get("status"):
                yield Report(resource, key, status)


def conditions(old: Sequence[Object], wanted: Sequence[Condition], generation: int, now: datetime) -> list[Object]:
    """Conditions as they are kept. The moment of one changes with its status only."""
    since = {(one["type"], one["status"]): one["lastTransitionTime"] for one in old}
    return [
        {
            **one._asdict(),
            "observedGeneration": generation,
            "lastTransitionTime": since.get((one.type, one.status), timestamp(now)),
        }
        for one in wanted
    ]


def _classes(world: World, now: datetime) -> Iterator[tuple[Key, Object]]:
    for key, one in world.classes.items():
        if one["spec"]["controllerName"] == CONTROLLER:
            old = one.get("status", {}).get("conditions", ())
            accepted = [Condition("Accepted", "True", "Accepted", "its Gateways are served on this machine")]
            yield (
                key,
                {
                    "conditions": conditions(old, accepted, one["metadata"].get("generation", 0), now),
                    "supportedFeatures": [{"name": name} for name in _FEATURES],
                },
            )


# --- Gateways ----------------------------------------------------------------------------------------------------


def _gateways(world: World, made: Configuration, proxy: Proxy, now: datetime) -> Iterator[tuple[Key, Object]]:
    attached: dict[tuple[Key, str], set[Key]] = {}
    for route, report in made.routes.items():
        for one in report.attachments:
            for place in one.places:
                attached.setdefault((one.gate.key, place.section.name), set()).add(route)
    for key, gate in made.gates.items():
        old = world.gateways[key].get("status", {})
        before = {one["name"]: one["conditions"] for one in old.get("listeners", ())}
        sections = [
            {
                "name": section.name,
                "attachedRoutes": len(attached.get((key, section.name), ())),
                "supportedKinds": list(section.kinds),
                "conditions": conditions(
                    before.get(section.name, ()), _of_section(gate, section, proxy), gate.generation, now
                ),
            }
            for section in gate.sections
        ]
        status = {
            "conditions": conditions(old.get("conditions", ()), _of_gate(gate, proxy), gate.generation, now),
            "listeners": sections,
        }
        if gate.address:
            status["addresses"] = [{"type": "IPAddress", "value": gate.address}]
        yield key, status


def trouble_of(gate: Gate, section: Section, proxy: Proxy) -> Problem | None:
    """Why nothing answers on a listener; None where it is served."""
    if section.refused is not None:
        return Problem("Invalid", section.refused.message)
    if gate.refused is not None:
        return gate.refused
    if proxy.trouble:
        return Problem("Pending", proxy.trouble)
    why = proxy.listeners.get(gate.listener(section.port))
    return Problem("Invalid", why) if why else None


def _of_gate(gate: Gate, proxy: Proxy) -> list[Condition]:
    invalid = [f"listener {one.name}: {one.refused.message}" for one in gate.sections if one.refused is not None]
    none_valid = len(invalid) == len(gate.sections)
    accepted = Condition(
        "Accepted",
        "False" if none_valid else "True",
        "ListenersNotValid" if invalid else "Accepted",
        "; ".join(invalid),
    )
    troubles = [(section, trouble_of(gate, section, proxy)) for section in gate.sections]
    failing = [f"listener {section.name}: {trouble.message}" for section, trouble in troubles if trouble is not None]
    whole = gate.refused or (Problem("Pending", proxy.trouble) if proxy.trouble else None)
    if whole is None and len(failing) == len(gate.sections):
        whole = Problem("Invalid", "; ".join(failing))
    if whole is not None:
        return [accepted, Condition("Programmed", "False", *whole)]
    return [accepted, Condition("Programmed", "True", "Programmed", f"served at {gate.address}")]


def _of_section(gate: Gate, section: Section, proxy: Proxy) -> list[Condition]:
    accepted = Condition("Accepted", "True", "Accepted", "")
    if section.refused is not None:
        accepted = Condition("Accepted", "False", *section.refused)
    programmed = Condition("Programmed", "True", "Programmed", f"served at {gate.address}:{section.port}")
    if (trouble := trouble_of(gate, section, proxy)) is not None:
        reason = "Pending" if trouble.reason == "Pending" else "Invalid"
        programmed = Condition("Programmed", "False", reason, trouble.message)
    resolved = Condition("ResolvedRefs", "True", "ResolvedRefs", "")
    if section.unknown_kinds is not None:
        resolved = Condition("ResolvedRefs", "False", *section.unknown_kinds)
    return [accepted, programmed, resolved, Condition("Conflicted", "False", "NoConflicts", "")]


# --- HTTPRoutes --------------------------------------------------------------------------------------------------


def _routes(world: World, made: Configuration, proxy: Proxy, now: datetime, memo: Memo) -> Iterator[tuple[Key, Object]]:
    for key, route in world.routes.items():
        report = made.routes.get(key)
        parents = memo(("parents", key), (route, report, proxy), partial(_parents, key, route, report, proxy, now))
        if parents is not None and parents != route.get("status", {}).get("parents"):
            yield key, {"parents": parents}
    memo.keep(world.routes)


def _parents(key: Key, route: Object, report: RouteReport | None, proxy: Proxy, now: datetime) -> list[Object] | None:
    """What is said for each parent, with what others say; None where a route has nothing to do with us."""
    old = route.get("status", {}).get("parents", ())
    theirs = [one for one in old if one["controllerName"] != CONTROLLER]
    if report is None and len(theirs) == len(old):
        return None
    generation = route["metadata"].get("generation", 0)
    return theirs + [
        {
            "parentRef": one.ref,
            "controllerName": CONTROLLER,
            "conditions": conditions(_of_ref(old, one.ref), _of_route(key, report, one, proxy), generation, now),
        }
        for one in (report.attachments if report is not None else ())
        if report is not None
    ]


def _of_ref(parents: Sequence[Object], ref: Object) -> Sequence[Object]:
    for one in parents:
        if one["controllerName"] == CONTROLLER and one["parentRef"] == ref:
            found: Sequence[Object] = one["conditions"]
            return found
    return ()


def _of_route(key: Key, report: RouteReport, one: Attachment, proxy: Proxy) -> list[Condition]:
    compiled = report.compiled
    found = [_accepted(key, report, one, proxy)]
    if compiled.problems:
        reason = compiled.problems[0].reason
        listed = "; ".join(problem.message for problem in compiled.problems)
        found.append(Condition("ResolvedRefs", "False", reason, listed))
    else:
        found.append(Condition("ResolvedRefs", "True", "ResolvedRefs", "all backends exist"))
    if compiled.dropped and len(compiled.dropped) < compiled.rules:
        found.append(Condition("PartiallyInvalid", "True", "UnsupportedValue", _dropped(compiled.dropped)))
    return found


def _accepted(key: Key, report: RouteReport, one: Attachment, proxy: Proxy) -> Condition:
    if one.refused is not None:
        return Condition("Accepted", "False", *one.refused)
    if report.compiled.dropped and len(report.compiled.dropped) == report.compiled.rules:
        return Condition("Accepted", "False", "UnsupportedValue", _dropped(report.compiled.dropped))
    if why := proxy.refused.get(key):
        return Condition("Accepted", "False", "UnsupportedValue", f"the proxy does not take it: {why}")
    for place in one.places:
        if (trouble := trouble_of(one.gate, place.section, proxy)) is not None:
            return Condition("Accepted", "Unknown", "Pending", f"Gateway {one.gate.key}: {trouble.message}")
    return Condition("Accepted", "True", "Accepted", f"served by Gateway {one.gate.key} at {one.gate.address}")


def _dropped(sentences: Sequence[str]) -> str:
    return f"Dropped Rule(s): {'; '.join(sentences)}"


# --- policies ----------------------------------------------------------------------------------------------------


def _policies(
    objects: Mapping[Key, Object],
    outcomes: Mapping[Key, Mapping[Key, Problem | None]],
    made: Configuration,
    proxy: Proxy,
    now: datetime,
) -> Iterator[tuple[Key, Object]]:
    """A policy is reported for each Gateway at which it matters; of several targets there, one that has a problem."""
    for key, policy in objects.items():
        at: dict[Key, list[Problem | None]] = {}
        for target, problem in outcomes[key].items():
            for one in made.routes[target].attachments if target in made.routes else ():
                at.setdefault(one.gate.key, []).append(problem)
        old = policy.get("status", {}).get("ancestors", ())
        ancestors = [one for one in old if one["controllerName"] != CONTROLLER]
        for gate, problems in sorted(at.items()):
            ref = {"group": GROUP, "kind": "Gateway", "namespace": gate.namespace, "name": gate.name}
            kept = [
                one["conditions"] for one in old if (one["controllerName"], one["ancestorRef"]) == (CONTROLLER, ref)
            ]
            accepted = Condition("Accepted", "True", "Accepted", "")
            if proxy.trouble:
                accepted = Condition("Accepted", "Unknown", "Pending", proxy.trouble)
            if (problem := next(filter(None, problems), None)) is not None:
                accepted = Condition("Accepted", "False", *problem)
            since = kept[0] if kept else ()
            said = conditions(since, [accepted], policy["metadata"].get("generation", 0), now)
            ancestors.append({"ancestorRef": ref, "controllerName": CONTROLLER, "conditions": said})
        if ancestors or old:
            yield key, {"ancestors": ancestors[:16]}
