"""What a change of the specs does, in the words of the domain: two catalogs compared. Pure.

A reviewer wants to know who gets other predictions, what is built, what a build must achieve from now on, and what
goes. The manifests say all of it, in a language that few read. Where a spec stands in a file, and how it is written,
is no part of what it means, so a file that was renamed or reformatted has no effect.
"""

from __future__ import annotations

from dataclasses import replace

from reconciler.effects.audiences import of_audiences
from reconciler.effects.automations import of_automations
from reconciler.effects.environments import SUSPENDED, of_environments
from reconciler.effects.models import of_models
from reconciler.report import Effect, Topic
from renderers.catalog import Catalog, promotion_order


def between(before: Catalog, after: Catalog) -> tuple[Effect, ...]:
    """What it does to go from the one to the other: environments in order of promotion, then models by name.

    Of each model, the most important first (`report.Topic`).
    """
    parts = (of_environments, of_models, of_automations, of_audiences)
    found = [_marked(effect, after) for part in parts for effect in part(before, after)]
    order = {name: number for number, name in enumerate(promotion_order(after))}
    topics = {topic: number for number, topic in enumerate(Topic)}
    return tuple(
        sorted(
            dict.fromkeys(found),
            key=lambda one: (order.get(one.environment, -1), one.environment, one.model, topics[one.topic]),
        )
    )


def _marked(effect: Effect, after: Catalog) -> Effect:
    """What waits, because its environment is suspended, says so."""
    where = after.environments.get(effect.environment)
    if where is None or not where.spec.suspended or effect.text == SUSPENDED:
        return effect
    return replace(effect, text=f"{effect.text} (suspended: waits)")
