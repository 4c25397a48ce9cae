"""What is served, seen from outside: whether a build's pods are ready, what share the routes give it, and where it is
asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import NamedTuple

from reconciler import causes, readiness
from reconciler.cluster import Reader
from reconciler.inventory import PART_OF, set_id
from reconciler.readiness import Readiness, State
from renderers import names
from renderers.manifest import Body, ObjectId
from schemas.environment import Environment

_ROUTE = ("gateway.networking.k8s.io/v1", "HTTPRoute")
_GATEWAY = ("gateway.networking.k8s.io/v1", "Gateway")


class Asked(NamedTuple):
    """Where predictions of a model are asked for. `host`: the header Host that the gateway wants; "": any."""

    environment: str
    model: str
    url: str
    host: str = ""


def deployment_of(environment: Environment, model: str, variation: str, build: str) -> ObjectId:
    """The Deployment that serves a build (its id) of a variation."""
    name = names.served_name(model, variation, build[:8])
    return ObjectId("apps/v1", "Deployment", environment.namespace_name, name)


def state_of(reader: Reader, deployment: ObjectId) -> Readiness:
    """Of its pods, in their own words where something is wrong. Raises `ApiError`."""
    return causes.state_of(reader, reader.get(deployment))


def routes_of(reader: Reader, environment: Environment, model: str) -> list[Body]:
    """The live routes of a model. Raises `ApiError`."""
    ours = f"{PART_OF}={set_id(environment.name)}"
    labels = f"{ours},{names.NAME}={model},{names.COMPONENT}=routing"
    return reader.list(*_ROUTE, namespace=environment.namespace_name, labels=labels).items


def share_of(routes: Iterable[Body], new: str, old: str) -> int | None:
    """The percent of a variation's own traffic that the routes give to its new build; None while nobody can tell.

    `new` and `old` are the names of the two builds' Services; "" for none. A route that no gateway has accepted in its
    newest version says what will be, not what is. Pure.
    """
    found: list[tuple[int, float]] = []
    for route in routes:
        if readiness.of(route).state is not State.CURRENT:
            return None
        for rule in route["spec"].get("rules", ()):
            weights = {ref["name"]: ref.get("weight", 1) for ref in rule.get("backendRefs", ())}
            theirs = weights.get(new, 0) + (weights.get(old, 0) if old else 0)
            if theirs:
                found.append((theirs, 100 * weights.get(new, 0) / theirs))
    if not found:
        return None
    most, share = max(found)
    # Weights are whole numbers, so a rule in which the variation has little can only come near.
    if any(abs(other - share) > ceil(100 / total) for total, other in found if total != most or other != share):
        return None
    return round(share)


def all_asked(reader: Reader) -> list[Asked]:
    """Of every model of a cluster whose gateway has an address. Raises `ApiError`."""
    routes = reader.list(*_ROUTE, labels=f"{names.MANAGED_BY}=trueup,{names.COMPONENT}=routing").items
    return asked(routes, reader.list(*_GATEWAY).items if routes else [])


def asked(routes: Iterable[Body], gateways: Iterable[Body]) -> list[Asked]:
    """The same, of routes and gateways as they are. Pure."""
    known = {(gateway["metadata"]["namespace"], gateway["metadata"]["name"]): gateway for gateway in gateways}
    found: list[Asked] = []
    for route in routes:
        metadata, parent = route["metadata"], route["spec"]["parentRefs"][0]
        gateway = known.get((parent.get("namespace", metadata["namespace"]), parent["name"]))
        if gateway is None or metadata.get("annotations", {}).get(names.ANSWERS) != "true":
            continue
        addresses, listeners = gateway.get("status", {}).get("addresses"), gateway["spec"]["listeners"]
        if not addresses:
            continue
        listener = next((one for one in listeners if one["name"] == parent.get("sectionName")), listeners[0])
        model = metadata["labels"][names.NAME]
        scheme = "https" if listener["protocol"] == "HTTPS" else "http"
        url = f"{scheme}://{addresses[0]['value']}:{listener['port']}/v1/{model}/predict"
        found.append(Asked(metadata["labels"][names.ENVIRONMENT], model, url, *route["spec"].get("hostnames", ())[:1]))
    return sorted(found)
