"""Policies of Envoy Gateway that hang on HTTPRoutes: who is asked about a request, and who stays with a backend. Pure.

Of these kinds only some fields are known (see the definitions), and mean what they mean there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from embedded.gateway.backends import ref_of, resolve
from embedded.gateway.world import Key, Object, Problem, World, oldest_first

#: How long an answer may take. Envoy's own limit (0.2 s) is nothing that a busy laptop keeps.
_TIMEOUT = "5s"


class Security(NamedTuple):
    """The service that is asked about each request of a route.

    `filter` names the listener's filter that does it and `cluster` is the service; where there is a `problem`, both
    are "". `sets` are the headers, in lower case, by which the answer may change the route.
    """

    filter: str = ""
    cluster: str = ""
    sets: frozenset[str] = frozenset()
    fail_open: bool = False
    headers: tuple[str, ...] = ()  #: of the request, that the service sees
    passed_on: tuple[str, ...] = ()  #: of its answer, that the backend sees
    recompute: bool = False
    problem: Problem | None = None


class Policies(NamedTuple):
    """What policies make of routes; and of each policy whether it is accepted, by the route that it targets."""

    security: Mapping[Key, Security]
    sticky: Mapping[Key, str]
    security_outcomes: Mapping[Key, Mapping[Key, Problem | None]]
    traffic_outcomes: Mapping[Key, Mapping[Key, Problem | None]]


def policies(world: World) -> Policies:
    """All policies there are. Of two on one route the older one counts."""
    security, security_outcomes = _by_route(world, world.security_policies, _security)
    sticky, traffic_outcomes = _by_route(world, world.traffic_policies, _sticky)
    return Policies(security, sticky, security_outcomes, traffic_outcomes)


_Made = TypeVar("_Made")


def _by_route(
    world: World, objects: Mapping[Key, Object], make: Callable[[World, Key, Object], tuple[_Made, Problem | None]]
) -> tuple[dict[Key, _Made], dict[Key, dict[Key, Problem | None]]]:
    made: dict[Key, _Made] = {}
    owners: dict[Key, Key] = {}
    outcomes: dict[Key, dict[Key, Problem | None]] = {}
    for key, policy in oldest_first(objects.items()):
        outcomes[key] = {}
        for target in policy["spec"]["targetRefs"]:
            route = Key(key.namespace, target["name"])
            if route not in world.routes:
                problem: Problem | None = Problem("TargetNotFound", f"there is no HTTPRoute {route}")
            elif route in owners:
                problem = Problem("Conflicted", f"{owners[route]}, which is older, is about HTTPRoute {route} already")
            else:
                owners[route] = key
                made[route], problem = make(world, key, policy["spec"])
            outcomes[key][route] = problem
    return made, outcomes


def _security(world: World, key: Key, spec: Object) -> tuple[Security, Problem | None]:
    auth = spec["extAuth"]
    (written,) = auth["http"]["backendRefs"]
    backend = resolve(ref_of(written, key.namespace), key.namespace, world.services)
    passed_on = tuple(auth["http"].get("headersToBackend", ()))
    recompute, fail_open = auth.get("recomputeRoute", False), auth.get("failOpen", False)
    if backend.problem is not None:
        told = Problem("Invalid", backend.problem.message)
        return Security(problem=None if fail_open else backend.problem), told
    made = Security(
        f"security.{key.namespace}.{key.name}",
        backend.cluster,
        frozenset(map(str.lower, passed_on)) if recompute else frozenset(),
        fail_open,
        tuple(auth.get("headersToExtAuth", ())),
        passed_on,
        recompute,
    )
    return made, None


def _sticky(_world: World, _key: Key, spec: Object) -> tuple[str, None]:
    header: str = spec["loadBalancer"]["consistentHash"]["header"]["name"]
    return header.lower(), None


def security_filter(security: Security) -> Object:
    """The filter of a listener that asks the service. It is off until a route turns it on."""
    return {
        "name": security.filter,
        "disabled": True,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
            "http_service": {
                "server_uri": {"uri": "http://resolver", "cluster": security.cluster, "timeout": _TIMEOUT},
                "authorization_response": {"allowed_upstream_headers": _names(security.passed_on)},
            },
            "allowed_headers": _names(security.headers),
            "encode_raw_headers": True,  # or octets that are no UTF-8 become "!"
            "clear_route_cache": security.recompute,
            "failure_mode_allow": security.fail_open,
            "status_on_error": {"code": 503},  # nobody is forbidden anything: the service is away, and comes back
        },
    }


def _names(names: tuple[str, ...]) -> Object:
    return {"patterns": [{"exact": name, "ignore_case": True} for name in names]}
