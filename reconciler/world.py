"""What a rollout looks like from outside: whether the new build's pods are ready, and what share the routes give it."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from reconciler import causes, readiness
from reconciler.cluster import Reader
from reconciler.inventory import PART_OF, set_id
from reconciler.readiness import Readiness, State
from renderers import names
from renderers.manifest import Body, ObjectId
from schemas.environment import Environment

_ROUTE = ("gateway.networking.k8s.io/v1", "HTTPRoute")


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
