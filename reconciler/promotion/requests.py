"""Which builds are wanted where, and the promotions that are to be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import takewhile

from reconciler.promotion.ledger import Ledger, PlaceKey
from reconciler.promotion.places import Place
from reconciler.records import BuildPhase, Cause, PromotionRequest


def target(place: Place, ledger: Ledger, targets: Mapping[PlaceKey, str]) -> str:
    """The id of the build that the specs want at a place now; "" where nobody knows, or nothing new is wanted.

    For a pinned variation that is what the caller knows (`targets`), for an automation's its newest good build. In an
    environment that comes after others, the newest that was verified there wins over newer ones that were not, and
    what waits for that already goes on to wait: where builds come faster than they are verified, nothing would ever
    arrive otherwise.
    """
    if place.automation is None:
        return targets.get(place.key, "")
    deployment = place.automation.deployment_spec
    if deployment is not None and deployment.environments and place.environment.name not in deployment.environments:
        return ""
    model = place.variation.model
    newest_first = [b.spec.id for b in ledger.newer(ledger.made_by(place.automation.name, model), place.key)]
    candidates = newest_first[:1]
    upstream = place.environment.promote_after
    if upstream:
        current, variation = ledger.current(place.key), place.variation.name
        newer = list(takewhile(lambda build: build != current, newest_first))
        verified = [build for build in newer if all(ledger.verified(build, name, model) for name in upstream)]
        here = {promotion.spec.build for promotion in ledger.under_way(place.key)}
        waiting = [
            build
            for build in newer
            if build in here and not any(ledger.quarantined(build, (name, model, variation)) for name in upstream)
        ]
        candidates = [*verified[:1], *waiting[:1], *candidates]
    return next((build for build in candidates if ledger.quarantined(build, place.key) is None), "")


def requests(
    places: Mapping[PlaceKey, Place], ledger: Ledger, targets: Mapping[PlaceKey, str], now: datetime
) -> list[PromotionRequest]:
    """The promotions that nobody has asked for yet.

    None where the wanted build is served, on its way, not (or not yet) built, or was rejected or rolled back there;
    none in a suspended environment; and none while something rolls out or is rolled back, since a request says what
    it expects to replace.
    """
    found: list[PromotionRequest] = []
    for key, place in places.items():
        wanted = target(place, ledger, targets)
        if not wanted or place.environment.suspended or wanted == ledger.current(key):
            continue
        if key[:2] in ledger.unreadable:
            continue
        build = ledger.build(wanted)
        if build is None or build.status.phase is not BuildPhase.SUCCEEDED or ledger.quarantined(wanted, key):
            continue
        under_way = ledger.under_way(key)
        if any(p.spec.build == wanted or p.is_rolling_out or p.spec.kind == "Rollback" for p in under_way):
            continue
        automation = place.automation.name if place.automation else ""
        why = f"the newest build of automation {automation}" if automation else f"pinned: {place.variation.build}"
        found.append(
            PromotionRequest(
                model=place.variation.model,
                variation=place.variation.name,
                environment=place.environment.name,
                build=wanted,
                expected_current=ledger.current(key),
                automation=automation,
                attempt=ledger.next_attempt(wanted, key),
                # Never Manual, also where a person started the build: that would lift a quarantine.
                cause=Cause(kind="Spec", at=now, reason=why),
            )
        )
    return found
