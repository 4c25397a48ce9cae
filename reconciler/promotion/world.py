"""All that the next step of a promotion depends on, besides its own record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from reconciler.promotion.ledger import Ledger, PlaceKey
from reconciler.promotion.places import Place
from reconciler.promotion.requests import target
from reconciler.readiness import Readiness
from reconciler.records import Build, Promotion
from renderers.catalog import Catalog
from schemas.automation import DeploymentCondition
from schemas.environment import Environment
from schemas.variation import Variation


@dataclass(frozen=True, slots=True)
class World:
    """What is around a promotion."""

    build: Build | None
    """Its build's record."""
    environment: Environment | None
    """None: it has left the specs."""
    variation: Variation | None
    """As it is in that environment. None: it has left the specs, or needs no promotions there any more."""
    candidate: Readiness
    """Of the Deployment that serves its build there."""
    condition: DeploymentCondition | None = None
    """Of its automation."""
    target: str = ""
    """The id of the build that the specs want there now; "" where nobody knows."""
    current: str = ""
    """The id of the build that is served there; "" for none."""
    verified: Mapping[str, bool] = field(default_factory=dict)
    """For each environment that this one comes after: whether the build was verified there."""
    routed: int | None = None
    """The percent of the variation's own traffic that the live and accepted routes give to its build. None: nobody
    knows, as no gateway has accepted them yet. A variation that gets no traffic has nothing to route: then the
    percent of the record, as soon as its routes are applied."""
    rollback: str = ""
    """Another promotion of the place, a rollback, that this one gives way to."""
    ahead: str = ""
    """Another promotion of the place that must end first."""
    has_served: bool = False
    """Whether its build was ever the current one there."""
    last_end: datetime | None = None
    """When the last promotion of the place ended."""


def world(
    promotion: Promotion,
    catalog: Catalog,
    places: Mapping[PlaceKey, Place],
    ledger: Ledger,
    targets: Mapping[PlaceKey, str],
    *,
    candidate: Readiness,
    routed: int | None,
) -> World:
    """The world of a promotion. `candidate` and `routed` are what the data plane says."""
    key, spec = promotion.place, promotion.spec
    place, placed = places.get(key), catalog.environments.get(spec.environment)
    under_way, name = ledger.under_way(key), promotion.identity.name
    first = next(iter(under_way), promotion)
    ahead = first if first.identity.name != name else None
    if ahead is None and not promotion.is_rolling_out:
        # Also a rollback begins when nothing else has traffic any more.
        ahead = next((p for p in under_way if p.is_rolling_out), None)
    gives_way = ahead is first and first.spec.kind == "Rollback"
    automation = place.automation if place else None
    return World(
        build=ledger.build(spec.build),
        environment=placed.spec if placed else None,
        variation=place.variation if place else None,
        candidate=candidate,
        condition=automation.deployment_condition if automation else None,
        target=target(place, ledger, targets) if place else "",
        current=ledger.current(key),
        verified={
            before: ledger.verified(spec.build, before, spec.model)
            for before in (placed.spec.promote_after if placed else ())
        },
        routed=routed,
        rollback=first.identity.name if gives_way else "",
        ahead=ahead.identity.name if ahead else "",
        has_served=ledger.has_served(spec.build, key),
        last_end=ledger.last_end(key),
    )
