"""The part of the story for a pull request: the specs of two commits -> what the change does, and its plan.

The base takes the place of the clusters: what its specs render to is what there is, and the plan is what would be done
about it. So the same rules decide, and the same limits are run into, as when the change is applied. No cluster is
asked, and nothing of the network.

Only models that the change is about are rendered, twice: a pull request of ten specs costs ten, whatever is beside.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reconciler import desired, effects, plan, queries
from reconciler.desired import Rendered
from reconciler.offline import notes_of
from reconciler.plan import Beside, Change, Guard, Observed, Predicted, Wanted
from reconciler.report import Base, Report
from reconciler.source import checkout, files
from reconciler.source.files import Files
from reconciler.specs.index import Index
from renderers.catalog import Catalog, Facts, promotion_order
from renderers.manifest import Body, Manifest
from schemas.problem import Problem


def preview(paths: Sequence[Path], ref: str, head: str | None = None, only: Collection[str] = ()) -> Report:
    """What the specs change, compared with the commit where they parted from `ref`; `only` in these environments.

    `head` is a commit; without it, the files as they are now. What is wrong with the base is told and stops nothing:
    what cannot be read there is taken for not being there. Raises `checkout.CheckoutError`.
    """
    sides = checkout.sides(paths, ref, head)
    return compare(sides.base, sides.head or files.read(paths), ref, sides.commit, only)


def compare(base: Files, head: Files, ref: str, commit: str, only: Collection[str] = ()) -> Report:
    """As `preview`, of files that were read."""
    index = Index(lambda name: head.content.get(name) or base.content[name], queries.check)
    index.replace(base.content)
    before = _Side(index.catalog, tuple(sorted((*base.problems, *index.problems))))
    differing = _differing(base.content, head.content)
    changed = index.update({name: head.content.get(name) for name in differing})
    after = _Side(index.catalog, tuple(sorted((*head.problems, *index.problems))))
    models = changed.models
    if models is None:
        models = frozenset({"", *_models(before.catalog), *_models(after.catalog)})
    before.render(models)
    after.render(models)
    changes, guards = _planned(before, after, models, only)
    notes = notes_of(unit for unit in after.units if _is_meant(unit.environment, only))
    planned = plan.assemble(changes, notes, guards)
    broken = tuple(problem for problem in before.problems if problem.severity == "error")
    return Report(
        problems=after.problems,
        plan=planned,
        base=Base(ref, commit, tuple(differing), broken),
        effects=tuple(
            one
            for one in effects.between(_part(before.catalog, models), _part(after.catalog, models))
            if _is_meant(one.environment, only)
        ),
    )


#: The limits on how much of an environment goes.
_SHARES = frozenset({"prune/all", "prune/budget"})


@dataclass(slots=True)
class _Side:
    """The specs of one commit."""

    catalog: Catalog
    problems: tuple[Problem, ...]
    units: tuple[Rendered, ...] = ()

    def render(self, models: Collection[str]) -> None:
        """What it asks for of these models."""
        catalog = _part(self.catalog, models)
        self.units = tuple(desired.build(catalog, Facts(), asked=lambda unit: unit.model in models))
        refused = (unit.problem for unit in self.units if unit.problem is not None)
        self.problems = tuple(sorted({*self.problems, *refused}))

    @property
    def is_whole(self) -> bool:
        """Whether every spec could be read."""
        return not any(problem.severity == "error" for problem in self.problems)

    def manifests(self, environment: str) -> tuple[Manifest, ...]:
        return tuple(m for unit in self.units if unit.environment == environment for m in unit.manifests)


def _planned(
    before: _Side, after: _Side, models: Collection[str], only: Collection[str]
) -> tuple[list[Change], list[Guard]]:
    """What would be done in each environment where the base is what there is."""
    changes: list[Change] = []
    guards: list[Guard] = []
    gone = [name for name in promotion_order(before.catalog) if name not in after.catalog.environments]
    for name in (*promotion_order(after.catalog), *gone):
        if not _is_meant(name, only):
            continue
        placed = after.catalog.environments.get(name)
        wanted = Wanted(
            name,
            after.manifests(name),
            complete=after.is_whole,
            suspended=placed is not None and placed.spec.suspended,
            in_specs=placed is not None,
        )
        observed = _observed(name, before.manifests(name), wanted.manifests)
        theirs, limits = plan.environment(wanted, observed)
        if any(limit.rule in _SHARES for limit in limits):
            # Which share of an environment goes is only known with all of it.
            observed = replace(observed, beside=Beside(_others(before.catalog, models, name)))
            theirs, limits = plan.environment(wanted, observed)
        changes += theirs
        # Whoever lifts a limit names what the cluster has; here, it can only be foreseen.
        guards += [replace(limit, approval="") for limit in limits]
    return changes, guards


def _observed(environment: str, manifests: Iterable[Manifest], wanted: Iterable[Manifest]) -> Observed:
    """What a cluster would hold of the base, and answer to a dry run of the head."""
    members = {manifest.id: _as_stored(manifest) for manifest in manifests}
    predictions = {
        manifest.id: Predicted(manifest.body)
        for manifest in wanted
        if manifest.id in members and not plan.is_settled(manifest, members[manifest.id])
    }
    return Observed(environment, members, predictions=predictions)


def _as_stored(manifest: Manifest) -> Body:
    """With a uid, by which the plan tells objects apart. What runs once has."""
    stored = {**manifest.body, "metadata": {**manifest.body["metadata"], "uid": str(manifest.id)}}
    return stored | ({"status": _HAS_RUN} if manifest.id.kind in plan.RUN_ONCE else {})


_HAS_RUN = {"conditions": [{"type": "Complete", "status": "True"}]}


def _others(catalog: Catalog, models: Collection[str], environment: str) -> int:
    """How many objects the environment has of models that the change is not about."""
    rendered = desired.build(
        catalog, Facts(), asked=lambda unit: unit.environment.spec.name == environment and unit.model not in models
    )
    return sum(m.id.kind not in plan.NEVER_PRUNED for unit in rendered for m in unit.manifests)


def _models(catalog: Catalog) -> set[str]:
    kinds = (catalog.builds, catalog.variations, catalog.automations)
    return {placed.spec.model for kind in kinds for placed in kind.values()}


def _part(catalog: Catalog, models: Collection[str]) -> Catalog:
    """As much of it as these models need: what is rendered and compared costs what it is about."""
    return Catalog(
        catalog.environments,
        {name: one for name, one in catalog.builds.items() if one.spec.model in models},
        {name: one for name, one in catalog.variations.items() if one.spec.model in models},
        catalog.audiences,
        {name: one for name, one in catalog.automations.items() if one.spec.model in models},
    )


def _differing(base: Mapping[str, bytes], head: Mapping[str, bytes]) -> list[str]:
    """The files that are not the same on both sides, in order of name."""
    return sorted(name for name in base.keys() | head.keys() if base.get(name) != head.get(name))


def _is_meant(environment: str, only: Collection[str]) -> bool:
    return not only or not environment or environment in only
