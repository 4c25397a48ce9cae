"""Which records are old enough to go. Pure.

What was analysed also lies in the object storage: nothing that anybody could still need is lost. What stays is all that
the next decision may turn on, and the newest of the rest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from datetime import datetime
from itertools import islice

from reconciler.records import Build, BuildPhase, Phase, Promotion

#: Newest promotions that are kept of each place: an environment, a model and a variation.
PROMOTIONS = 50
#: Newest builds that are kept of each model.
BUILDS = 100


def expired(
    builds: Iterable[Build], promotions: Iterable[Promotion], wanted: Container[str]
) -> list[Build | Promotion]:
    """The records that may be deleted; builds and promotions are all that there are.

    `wanted` are the ids of the builds that specs ask for: without a record, such a build would be made once more.

    Of promotions stay, beside the newest 50 of each place: those under way, and what verified their builds in any
    environment; the current one of each place, and the one before of another build, to which a rollback goes; and the
    newest that was no rollback with the newest rollback away from its build, since a build that was rejected or taken
    back is not tried again only as long as that is known.

    Of builds stay, beside the newest 100 of each model: those under way, those that are wanted, those that a kept
    promotion or a batch under way names, and of each automation the newest, which is the state of its schedule, and the
    newest that succeeded, its candidate.
    """
    promotions = list(promotions)
    kept_promotions = _kept_promotions(promotions)
    gone: list[Build | Promotion] = [p for p in promotions if p.identity.name not in kept_promotions]
    named = {
        build
        for p in promotions
        if p.identity.name in kept_promotions
        for build in (p.spec.build, p.spec.expected_current)
    }
    builds = list(builds)
    named |= {str(b.spec.specification.get("build")) for b in builds if b.spec.action == "Batch" and not b.is_finished}
    kept_builds = _kept_builds(builds)
    unnamed = (b for b in builds if b.spec.id not in named and b.spec.id not in wanted)
    gone += [b for b in unnamed if b.identity.name not in kept_builds]
    return gone


def _kept_promotions(promotions: Sequence[Promotion]) -> set[str]:
    kept = [p for p in promotions if not p.is_finished]
    under_way = {(p.spec.model, p.spec.build) for p in kept}
    places: defaultdict[tuple[str, str, str], list[Promotion]] = defaultdict(list)
    for promotion in sorted(promotions, key=_age, reverse=True):
        places[promotion.place].append(promotion)
    for newest_first in places.values():
        kept += newest_first[:PROMOTIONS]
        succeeded = sorted((p for p in newest_first if p.status.phase is Phase.SUCCEEDED), key=_end, reverse=True)
        kept += [p for p in succeeded if (p.spec.model, p.spec.build) in under_way]
        kept += succeeded[:1]
        kept += [p for p in succeeded if p.spec.build != succeeded[0].spec.build][:1]
        candidate = next((p for p in newest_first if p.spec.kind == "Promote"), None)
        if candidate is not None:
            left = (p for p in newest_first if p.spec.kind == "Rollback" and _leaves(p, candidate.spec.build))
            kept += [candidate, *islice(left, 1)]
    return {p.identity.name for p in kept}


def _kept_builds(builds: Sequence[Build]) -> set[str]:
    kept = [b for b in builds if not b.is_finished]
    models: defaultdict[str, list[Build]] = defaultdict(list)
    automations: defaultdict[str, list[Build]] = defaultdict(list)
    for build in sorted(builds, key=_age, reverse=True):
        models[build.spec.model].append(build)
        if build.spec.automation:
            automations[build.spec.automation].append(build)
    for newest_first in models.values():
        kept += newest_first[:BUILDS]
    for newest_first in automations.values():
        kept += newest_first[:1]
        kept += [b for b in newest_first if b.status.phase is BuildPhase.SUCCEEDED][:1]
    return {b.identity.name for b in kept}


def _leaves(rollback: Promotion, build: str) -> bool:
    return rollback.spec.expected_current == build != rollback.spec.build


def _end(promotion: Promotion) -> tuple[datetime, str]:
    return promotion.status.finished_at or promotion.spec.cause.at, promotion.identity.name


def _age(record: Build | Promotion) -> tuple[datetime, str]:
    return record.spec.cause.at, record.identity.name
