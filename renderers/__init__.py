"""The renderers: specs to manifests, as a pure function.

One module for each concern (environment, build, serving, routing, autoscaling, monitoring), each with
`render(unit, facts)` and most with `notes(unit, facts)`. Templates are YAML files in templates/ (`template`); names
and labels come from `names`, build ids from `identity`, sizes from `resources`, what pods share from `pods`.
"""

from __future__ import annotations

from renderers import autoscaling, batch, build, environment, monitoring, routing, serving
from renderers.catalog import Facts, Unit
from renderers.manifest import Manifest
from renderers.notes import Note, Refused

__all__ = ["Note", "Refused", "notes", "render"]


def render(unit: Unit, facts: Facts) -> list[Manifest]:
    """Everything that a unit asks for. Equal arguments give equal manifests in the same order, and what an object
    needs comes before it. Errors: `Refused`, for the unit as a whole.
    """
    if not unit.model:
        return environment.render(unit)
    return [
        *build.render(unit, facts),
        *batch.render(unit, facts.batches.get((unit.environment.spec.name, unit.model), ())),
        *serving.render(unit, facts),
        *routing.render(unit, facts),
        *autoscaling.render(unit, facts),
        *monitoring.render(unit, facts),
    ]


def notes(unit: Unit, facts: Facts) -> list[Note]:
    """What a reader of the plan should know of the unit. Errors: `Refused`, as in `render`."""
    if not unit.model:
        return environment.notes(unit)
    return [
        *build.notes(unit, facts),
        *batch.notes(unit, facts.batches.get((unit.environment.spec.name, unit.model), ())),
        *serving.notes(unit, facts),
        *routing.notes(unit, facts),
        *autoscaling.notes(unit, facts),
    ]
