"""The places that builds are promoted to, and what stands at each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reconciler.promotion.ledger import Ledger, PlaceKey
from renderers.catalog import Catalog, variations
from schemas.automation import Automation
from schemas.environment import Environment
from schemas.variation import Variation


@dataclass(frozen=True, slots=True)
class Place:
    """A variation in an environment, as far as builds come there by promotion."""

    environment: Environment
    variation: Variation
    """As it is in this environment: its override laid over it."""
    automation: Automation | None = None
    """The one whose builds it serves; None for a pinned variation."""

    @property
    def key(self) -> PlaceKey:
        """(environment, model, variation)."""
        return self.environment.name, self.variation.model, self.variation.name


_NO_RECORDS = Ledger()


def places(catalog: Catalog, order: Sequence[str], ledger: Ledger = _NO_RECORDS) -> dict[PlaceKey, Place]:
    """All places where something must be decided; any other variation is rendered straight from its spec.

    Decided it must be for a variation of an automation, one with a canary, and one of whose environments comes after
    another or asks for approval: then in all its environments. Also for one that serves, in an environment that
    another one comes after, the very build that is pinned there: else nothing could say that it was verified. And for
    one that has promotions in the `ledger`: its records would fall behind, and a canary that comes back later would
    begin at a build of last year. And for one whose build a batch execution predicts with: it is looked up
    in the records. `order` is that of promotion.
    """
    served = {key: placed.spec for key, placed in variations(catalog, order).items()}
    promoted = {(p.spec.model, p.spec.variation) for p in ledger.promotions}
    batched = {
        (placed.spec.model, placed.spec.batch_execution.variation)
        for placed in catalog.automations.values()
        if placed.spec.batch_execution is not None
    }
    recorded = promoted | batched
    needed = {key for key, variation in served.items() if key in recorded or _is_decided(variation, catalog)}
    upstream = {
        (variation.model, variation.in_environment(name).build, before)
        for variation in (served[key] for key in needed)
        for name in variation.environments
        for before in catalog.environments[name].spec.promote_after
    }
    needed |= {
        key
        for key, variation in served.items()
        if any((variation.model, variation.in_environment(e).build, e) in upstream for e in variation.environments)
    }
    found: dict[PlaceKey, Place] = {}
    for name in order:
        environment = catalog.environments[name].spec
        for key in sorted(needed):
            variation = served[key]
            if name in variation.environments:
                automation = catalog.automations[variation.automation].spec if variation.automation else None
                place = Place(environment, variation.in_environment(name), automation)
                found[place.key] = place
    return found


def _is_decided(variation: Variation, catalog: Catalog) -> bool:
    environments = [catalog.environments[name].spec for name in variation.environments]
    return (
        variation.automation is not None
        or any(variation.in_environment(e.name).rollout != "replace" for e in environments)
        or any(e.promote_after or e.approval == "manual" for e in environments)
    )


def stands(places: Mapping[PlaceKey, Place], ledger: Ledger) -> dict[PlaceKey, tuple[tuple[str, int], ...]]:
    """What stands at each place: (build id, percent of the variation's own traffic), the current build first.

    After it comes the one that rolls out, from before it has any traffic. Percents sum to 100, but for the very first
    build of a place, which has 0 until it is ready. Nothing stands where nothing was promoted yet.
    """
    found: dict[PlaceKey, tuple[tuple[str, int], ...]] = {}
    for key in places:
        current = ledger.current(key)
        # By rights there is one. Where two reconcilers began two at once, the second gives way, and has no traffic.
        rolling = next((p for p in ledger.under_way(key) if p.is_rolling_out and p.spec.build != current), None)
        weight = rolling.status.rollout.weight if rolling and rolling.status.rollout else 0
        here = ((current, 100 - weight),) if current else ()
        found[key] = (*here, (rolling.spec.build, weight)) if rolling else here
    return found
