"""Which routes belong to which listeners of which Gateways, by the rules of Gateway API. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from embedded.gateway.hostnames import covers, intersection, precision
from embedded.gateway.world import CLASS, CONTROLLER, GROUP, Key, Object, Problem, World, oldest_first
from embedded.selectors import Requirement

_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}


class Section(NamedTuple):
    """One listener of a Gateway. `refused` says why it takes no route at all."""

    name: str
    port: int
    hostname: str
    namespaces: Object  #: allowedRoutes.namespaces
    kinds: tuple[Object, ...]  #: those of allowedRoutes.kinds that are supported
    refused: Problem | None = None
    unknown_kinds: Problem | None = None


class Gate(NamedTuple):
    """A Gateway of ours. `address` is "" where there is none for it, and `refused` says why."""

    key: Key
    generation: int
    address: str
    sections: tuple[Section, ...]
    refused: Problem | None = None

    @property
    def ports(self) -> list[int]:
        """The ports that it listens on."""
        if not self.address:
            return []
        return sorted({section.port for section in self.sections if section.refused is None})

    def listener(self, port: int) -> str:
        """The name of the proxy's listener on a port."""
        return f"{self.key.namespace}.{self.key.name}.{port}"


class Place(NamedTuple):
    """Where a route takes part, and for which hostname."""

    section: Section
    hostname: str


class Attachment(NamedTuple):
    """A reference of a route to one of our Gateways: where that puts it, or why nowhere."""

    ref: Object
    gate: Gate
    places: tuple[Place, ...] = ()
    refused: Problem | None = None


def gates(world: World, addresses: Sequence[str], given: Mapping[Key, str] = MappingProxyType({})) -> dict[Key, Gate]:
    """Our Gateways. Each keeps the address that it was given, or that its status has; others get a free one.

    `given`: what was given before. A status may not say so yet, and the proxy may still listen where a Gateway was.
    """
    classes = {key.name for key, one in world.classes.items() if one["spec"]["controllerName"] == CONTROLLER} | {CLASS}
    ours = {key: gateway for key, gateway in world.gateways.items() if gateway["spec"]["gatewayClassName"] in classes}
    taken = {address: key for key, address in given.items() if key in ours}
    for key, gateway in oldest_first(ours.items()):
        for address in gateway.get("status", {}).get("addresses", ()):
            if address["value"] in addresses and key not in taken.values():
                taken.setdefault(address["value"], key)
    fresh = [address for address in addresses if address not in taken]
    free = iter(sorted(fresh, key=set(given.values()).__contains__))
    held = {key: address for address, key in taken.items()}
    found = {}
    for key, gateway in oldest_first(ours.items()):
        refused = None
        if gateway["spec"].get("addresses"):
            address = ""
            refused = Problem("AddressNotUsable", "spec.addresses must be empty: addresses are given by this machine")
        elif not (address := held.get(key) or next(free, "")):
            refused = Problem("AddressNotAssigned", f"all {len(addresses)} addresses are in use by other Gateways")
        sections = tuple(map(_section, gateway["spec"]["listeners"]))
        found[key] = Gate(key, gateway["metadata"].get("generation", 0), address, sections, refused)
    return found


def attachments(key: Key, route: Object, ours: Mapping[Key, Gate], labels: Mapping[str, str]) -> list[Attachment]:
    """What becomes of each reference of a route to a Gateway of ours. `labels` are those of its namespace."""
    found = []
    for ref in route["spec"].get("parentRefs", ()):
        gate = ours.get(Key(ref.get("namespace", key.namespace), ref["name"]))
        if gate is not None and (ref.get("group", GROUP), ref.get("kind", "Gateway")) == (GROUP, "Gateway"):
            found.append(_attach(key, route["spec"].get("hostnames") or [""], ref, gate, labels))
    return found


def _attach(key: Key, hostnames: Iterable[str], ref: Object, gate: Gate, labels: Mapping[str, str]) -> Attachment:
    meant = [
        section
        for section in gate.sections
        if ref.get("sectionName") in (None, section.name) and ref.get("port") in (None, section.port)
    ]
    if not meant:
        wanted = " ".join(f"{what} {ref[field]}" for field, what in _WANTED if field in ref)
        listeners = ", ".join(f"{section.name} on port {section.port}" for section in gate.sections)
        why = f"Gateway {gate.key} has no listener with {wanted}; it has {listeners}"
        return Attachment(ref, gate, refused=Problem("NoMatchingParent", why))
    allowed = [section for section in meant if _allows(section, gate.key.namespace, key.namespace, labels)]
    if not allowed:
        why = f"no listener of Gateway {gate.key} that is meant takes HTTPRoutes of namespace {key.namespace}"
        return Attachment(ref, gate, refused=Problem("NotAllowedByListeners", why))
    places = tuple(
        Place(section, shared)
        for section in allowed
        for shared in dict.fromkeys(intersection(section.hostname, hostname) for hostname in hostnames)
        if shared is not None
    )
    if not places:
        why = f"no hostname of the route is one of Gateway {gate.key}'s listeners"
        return Attachment(ref, gate, refused=Problem("NoMatchingListenerHostname", why))
    return Attachment(ref, gate, places)


_WANTED = (("sectionName", "name"), ("port", "port"))


def owner(gate: Gate, port: int, hostname: str) -> Section | None:
    """The listener that a hostname belongs to: of those on the port, the one that describes it most closely."""
    covering = [
        section
        for section in gate.sections
        if section.port == port and section.refused is None and covers(section.hostname, hostname)
    ]
    return max(covering, key=lambda section: precision(section.hostname), default=None)


def _section(listener: Object) -> Section:
    allowed = listener.get("allowedRoutes", {})
    kinds = allowed.get("kinds") or [_HTTP_ROUTE]
    supported = tuple(
        _HTTP_ROUTE for kind in kinds if kind.get("group", GROUP) == GROUP and kind["kind"] == "HTTPRoute"
    )
    refused = unknown = None
    if listener["protocol"] != "HTTP":
        why = f"protocol {listener['protocol']} is not supported: this gateway speaks HTTP, on this machine alone"
        refused, supported = Problem("UnsupportedProtocol", why), ()
    elif len(supported) < len(kinds):
        unknown = Problem("InvalidRouteKinds", "of the kinds in allowedRoutes, only HTTPRoute is supported")
    return Section(
        listener["name"],
        listener["port"],
        listener.get("hostname", ""),
        allowed.get("namespaces", {"from": "Same"}),
        supported[:1],
        refused,
        unknown,
    )


_HTTP_ROUTE = {"group": GROUP, "kind": "HTTPRoute"}


def _allows(section: Section, own: str, namespace: str, labels: Mapping[str, str]) -> bool:
    if section.refused is not None or not section.kinds:
        return False
    match section.namespaces.get("from", "Same"):
        case "All":
            return True
        case "Selector":
            return selects(section.namespaces.get("selector", {}), labels)
        case _:
            return own == namespace


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes these labels; an empty one takes all."""
    requirements = [
        Requirement(key, "in", frozenset([value])) for key, value in selector.get("matchLabels", {}).items()
    ]
    for rule in selector.get("matchExpressions", ()):
        operator = _OPERATORS.get(rule["operator"])
        if operator is None:
            return False
        requirements.append(Requirement(rule["key"], operator, frozenset(rule.get("values", ()))))
    return all(requirement.matches(labels) for requirement in requirements)
