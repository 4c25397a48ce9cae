"""From objects to the configuration of the proxy: the whole of it, as one function. Pure.

    classes, gateways -> gates with addresses          (attachment)
    policies          -> who is asked, who is pinned   (policies)
    routes            -> where they belong             (attachment), and what they do there (routes)
    services, slices  -> clusters                      (backends)

What it costs follows what changed: what is made of an HTTPRoute is made again only if something of it is new.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from embedded.gateway.attachment import Attachment, Gate, attachments, gates, owner
from embedded.gateway.backends import Endpoints, cluster, resolve
from embedded.gateway.listeners import Placed
from embedded.gateway.policies import Policies, policies, security_filter
from embedded.gateway.routes import Compiled, Source, compile_route, references
from embedded.gateway.world import Key, Object, World

_Made = TypeVar("_Made")


class Memo:
    """What was made the last time, and of what. A name is what it is for, and the object that it is about."""

    def __init__(self) -> None:
        self._known: dict[tuple[Hashable, ...], tuple[Any, Any]] = {}

    def __call__(self, name: tuple[Hashable, ...], of: Any, make: Callable[[], _Made]) -> _Made:
        """What `make` gives; without a call, if it was made of the same last time."""
        known = self._known.get(name)
        if known is not None and known[0] == of:
            same: _Made = known[1]
            return same
        made = make()
        self._known[name] = (of, made)
        return made

    def keep(self, about: Container[Hashable]) -> None:
        """Forget what is about other objects than these."""
        self._known = {name: known for name, known in self._known.items() if name[1] in about}


class Port(NamedTuple):
    """A listener of the proxy: one port of a Gateway, with all that is on it."""

    gate: Gate
    number: int
    placed: list[Placed]
    filters: dict[str, Object]


class RouteReport(NamedTuple):
    """What became of an HTTPRoute: where it is attached, and what it is made of."""

    attachments: tuple[Attachment, ...]
    compiled: Compiled
    placed: tuple[tuple[str, Placed], ...]  #: on which listeners of the proxy


class Configuration(NamedTuple):
    """Everything that the proxy should know, and everything that can be said about the objects."""

    ports: dict[str, Port]  #: by the name of the listener
    clusters: dict[str, Object]
    gates: dict[Key, Gate]
    routes: dict[Key, RouteReport]  #: those that name a Gateway of ours
    policies: Policies


def configure(
    world: World, addresses: Sequence[str], memo: Memo, given: Mapping[Key, str] = MappingProxyType({})
) -> Configuration:
    """The configuration for these objects. `addresses` are those that Gateways can have, `given` who has had which.

    The memo compares with what was given the last time, so `world` is a snapshot that nobody changes.
    """
    ours, told = gates(world, addresses, given), policies(world)
    ports = {gate.listener(port): Port(gate, port, [], {}) for gate in ours.values() for port in gate.ports}
    # One object that stands for all that matters to every route: to compare it is nothing, to compare that is much.
    around = memo(("around", ""), (ours, told, world.services, world.namespaces), object)
    routes: dict[Key, RouteReport] = {}
    clusters: set[str] = set()
    for key, route in sorted(world.routes.items()):
        report = memo(("report", key), (route, around), partial(_report, key, world, ours, told, memo))
        if not report.attachments:
            continue
        routes[key] = report
        security = told.security.get(key)
        for listener, placed in report.placed:
            ports[listener].placed.append(placed)
            clusters |= placed.compiled.clusters
            if security is not None and security.filter:
                ports[listener].filters[security.filter] = security_filter(security)
    endpoints = Endpoints(world)
    made = {}
    for name in sorted(clusters):
        addressed = endpoints.of(name)
        made[name] = memo(("cluster", name), addressed, partial(cluster, name, addressed))
    memo.keep(world.routes.keys() | clusters | {""})
    return Configuration(ports, made, ours, routes, told)


def _report(key: Key, world: World, ours: Mapping[Key, Gate], told: Policies, memo: Memo) -> RouteReport:
    route = world.routes[key]
    attached = tuple(attachments(key, route, ours, world.labels(key.namespace)))
    refs = dict.fromkeys(references(route, key.namespace))
    source = Source(
        key,
        route["metadata"]["uid"],
        route["metadata"].get("generation", 0),
        0,
        tuple((ref, resolve(ref, key.namespace, world.services)) for ref in refs),
        told.security.get(key),
        told.sticky.get(key, ""),
    )
    placed = []
    compiled = None
    for one in attached:
        for section, hostname in one.places:
            if section.port in one.gate.ports and owner(one.gate, section.port, hostname) == section:
                here = source._replace(port=section.port)
                compiled = memo(("route", key, section.port), here, partial(compile_route, route, here))
                placed.append((one.gate.listener(section.port), Placed(section.name, hostname, key, compiled)))
    return RouteReport(attached, compiled or compile_route(route, source), tuple(placed))
