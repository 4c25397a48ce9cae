"""The part of the story for a pull request: the specs of two commits -> what the change does, and its plan.

The base takes the place of the clusters: what its specs render to is what there is, and the plan is what would be done
about it. So the same rules decide, and the same limits are run into, as when the change is applied. No cluster is
asked, and nothing of the network.

Only models that the change is about are rendered, twice: a pull request of ten specs costs ten, whatever is beside.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from reconciler import desired, effects, inventory, plan, policy, queries
from reconciler.desired import Rendered
from reconciler.offline import NO_RULES, Rules, notes_of
from reconciler.plan import Beside, Change, Guard, Note, Observed, Predicted, Wanted
from reconciler.policy import Policy
from reconciler.report import Base, Effect, Report, Topic
from reconciler.source import checkout, files
from reconciler.source.files import Files
from reconciler.specs.index import Index
from renderers.catalog import Catalog, Facts, promotion_order
from renderers.manifest import Body, Manifest, Origin
from schemas.problem import Problem


def preview(
    paths: Sequence[Path],
    ref: str,
    head: str | None = None,
    only: Collection[str] = (),
    rules: Rules = NO_RULES,
) -> Report:
    """What the specs change, compared with the commit where they parted from `ref`; `only` in these environments.

    `head` is a commit; without it, the files as they are now. What is wrong with the base is told and stops nothing:
    what cannot be read there is taken for not being there. The rules are those of the head, and of the base those that
    the head changes or removes: nobody gets around a rule with the change that breaks it. Rules outside of the
    repository are as they are now. Raises `checkout.CheckoutError`, NoEnvironmentError.
    """
    sides = checkout.sides(paths, ref, head, beside=rules.places)
    of_base = _of_base(sides, rules)
    of_head = _read(sides.beside.head, rules) if sides.beside is not None and head is not None else rules.read()
    head_files = sides.head or files.read(paths)
    review = Review(sides.base, head_files, ref, sides.commit, of_head, before=of_base, approvals=rules.approvals)
    return review.report(only)


def follow(
    paths: Sequence[Path],
    ref: str | None,
    only: Collection[str],
    changes: Iterable[object],
    rules: Rules = NO_RULES,
) -> Iterator[tuple[Report, float]]:
    """`preview`, and again where one of the changes has changed something, with the seconds that it took.

    Without `ref`, the base is what the files were in the beginning.
    """
    began = time.perf_counter()
    sides = checkout.sides(paths, ref, beside=rules.places) if ref is not None else None
    head, asked = files.read(paths), rules.read()
    base, commit = (sides.base, sides.commit) if sides is not None else (head, "")
    of_base = _of_base(sides, rules) if sides is not None else asked
    review = Review(base, head, ref or "", commit, asked, before=of_base, approvals=rules.approvals)
    yield review.report(only), time.perf_counter() - began
    for _ in changes:
        began = time.perf_counter()
        seen, before = head, asked
        head, asked = files.read(paths), rules.read()
        is_alike = _is_alike(asked, before)
        if is_alike and head == seen:
            continue  # somebody has looked, and nothing is otherwise
        if is_alike:
            review.update(head)
        else:
            review = Review(base, head, ref or "", commit, asked, before=of_base, approvals=rules.approvals)
        yield review.report(only), time.perf_counter() - began


def _of_base(sides: checkout.Sides, rules: Rules) -> Policy:
    return _read(sides.beside.base, rules) if sides.beside is not None else rules.read()


def _read(file: tuple[str, bytes] | None, rules: Rules) -> Policy:
    return policy.read(*file, rules.approvals) if file is not None else policy.NONE


def _is_alike(rules: Policy, others: Policy) -> bool:
    """Whether two readings are of the same file. What is compiled is another thing each time."""
    one, other = ([(rule.spec, rule.line) for rule in read.rules] for read in (rules, others))
    return one == other and rules.problems == others.problems


class NoEnvironmentError(Exception):
    """Neither side has an environment that was asked for: a sentence."""


class Review:
    """The specs of a base and of a head. The head may go on; each report costs what differs.

    `before` are the rules of the base. `approvals` are what a person has given: ids of limits are among them.
    """

    def __init__(
        self,
        base: Files,
        head: Files,
        ref: str,
        commit: str,
        rules: Policy = policy.NONE,
        *,
        before: Policy | None = None,
        approvals: Collection[str] = (),
    ) -> None:
        # Rules may ask for approvals of their own, which are no ids of limits.
        self._approved = frozenset(filter(inventory.is_approval, approvals))
        self._base, self._head, self._ref, self._commit = base, head, ref, commit
        before = rules if before is None else before
        self._of_rules = tuple(_effects(before, rules))
        self._beside = _unlike(before, rules)
        self._broken_before = tuple(problem for problem in before.problems if problem.severity == "error")
        # A spec that breaks a rule is shown with what it would do: that is what the rule is about.
        self._rules = replace(rules.beside(before), enforce=False)
        self._index = Index(self._content, queries.check, self._rules.check)
        self._index.replace(head.content)
        self._of_base: tuple[frozenset[str], tuple[Rendered, ...]] | None = None
        self._sizes: _Sizes = {}

    def update(self, head: Files) -> None:
        """Other files, or the same ones with something else in them, are the head."""
        changed = {name: head.content.get(name) for name in _differing(self._head.content, head.content)}
        self._head = head
        self._index.update(changed)

    def report(self, only: Collection[str] = ()) -> Report:
        """What the head changes, `only` in these environments. Raises NoEnvironmentError."""
        index, base, head = self._index, self._base, self._head
        differing = _differing(base.content, head.content)
        # The way there says which models are concerned, and the index ends where it was.
        changed = index.update({name: base.content.get(name) for name in differing})
        before = _Side(index.catalog, tuple(sorted((*base.problems, *index.problems))))
        index.update({name: head.content.get(name) for name in differing})
        after = _Side(index.catalog, tuple(sorted((*head.problems, *index.problems))))
        known = {*before.catalog.environments, *after.catalog.environments}
        if unknown := sorted(set(only) - known):
            raise NoEnvironmentError(
                f"there is no valid environment {unknown[0]!r}; there are: {', '.join(sorted(known))}"
            )
        models = changed.models
        if models is None:
            models = frozenset({"", *_models(before.catalog), *_models(after.catalog)})
        unread = [*_unread(before.catalog, after), *_unread_before(before, after.catalog)]
        models -= {one.model for one in unread if one.model}
        lost = {one.environment for one in unread if one.environment}
        if self._of_base is None or self._of_base[0] != models:
            self._of_base = models, before.render(models)  # the base stays, and often what is edited does too
        before.take(self._of_base[1])
        after.take(after.render(models))
        changes, guards = _planned(before, after, models, only, self._sizes)
        # What is so with the base as well is no news. Where a spec stands is no part of it.
        known_before = {_said(note) for note in notes_of(before.units)}
        told = notes_of(unit for unit in after.units if _is_meant(unit.environment, only))
        notes = [note for note in told if _said(note) not in known_before]
        done = effects.between(_part(before.catalog, models), _part(after.catalog, models))
        found = (*self._of_rules, *unread, *(one for one in done if one.environment not in lost))
        planned = plan.approved(plan.assemble(changes, notes, guards), self._approved)
        judged = self._rules.judge(planned.changes, after.catalog)
        return Report(
            problems=policy.summed((*after.problems, *judged.problems, *self._rules.problems)),
            plan=replace(planned, changes=judged.changes),
            base=Base(
                self._ref,
                self._commit,
                tuple(sorted({*differing, *_unreadable(base, head), *self._beside})),
                (*before.errors, *self._broken_before),
            ),
            effects=tuple(one for one in found if _is_meant(one.environment, only)),
            specs=after.catalog.origins,
        )

    def _content(self, name: str) -> bytes:
        """A file that no update is about: it is the same on both sides."""
        return self._head.content[name]


def _effects(before: Policy, after: Policy) -> Iterator[Effect]:
    """What becomes of the rules themselves."""
    for words, rule in policy.differing(before, after):
        origin = Origin(rule.file, rule.line, "policy", rule.spec.name) if rule is not None else None
        yield Effect("", "", Topic.GATE, words, origin)


def _unread(before: Catalog, after: _Side) -> Iterator[Effect]:
    """What the head has no valid specs of, while some are wrong: it may be gone, or be what is wrong.

    To call it gone would frighten for nothing: what cannot be read stays as it is, when this is applied.
    """
    if not after.errors:
        return
    words = "not compared: its specs are wrong or gone, and nothing of it is changed before all specs can be read"
    for name in before.environments.keys() - after.catalog.environments.keys():
        yield Effect(name, "", Topic.UNREAD, words)
    for model in _models(before) - _models(after.catalog):
        yield Effect("", model, Topic.UNREAD, words)


def _unread_before(before: _Side, after: Catalog) -> Iterator[Effect]:
    """What the base has no valid specs of, while some of those that it could read are wrong: who knows if it is new."""
    if all(problem.rule.startswith("source/") for problem in before.errors):
        return
    words = "not compared: it is new, or its specs were wrong in the base; what is wrong there is told above"
    for model in _models(after) - _models(before.catalog):
        yield Effect("", model, Topic.UNREAD, words)


def _said(note: Note) -> tuple[str, str]:
    return note.environment, note.text


#: The limits on how much of an environment goes.
_SHARES = frozenset({"prune/all", "prune/budget"})


@dataclass(slots=True)
class _Side:
    """The specs of one commit."""

    catalog: Catalog
    problems: tuple[Problem, ...]
    units: tuple[Rendered, ...] = ()

    def render(self, models: Collection[str]) -> tuple[Rendered, ...]:
        """What it asks for of these models."""
        catalog = _part(self.catalog, models)
        return tuple(desired.build(catalog, Facts(), asked=lambda unit: unit.model in models))

    def take(self, units: tuple[Rendered, ...]) -> None:
        self.units = units
        refused = (unit.problem for unit in units if unit.problem is not None)
        self.problems = tuple(sorted({*self.problems, *refused}))

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Why not every spec could be read and rendered. One that breaks a rule of the organisation was."""
        return tuple(p for p in self.problems if p.severity == "error" and not p.rule.startswith("policy/"))

    def manifests(self, environment: str) -> tuple[Manifest, ...]:
        return tuple(m for unit in self.units if unit.environment == environment for m in unit.manifests)


def _planned(
    before: _Side, after: _Side, models: Collection[str], only: Collection[str], sizes: _Sizes
) -> tuple[list[Change], list[Guard]]:
    """What would be done in each environment where the base is what there is."""
    changes: list[Change] = []
    guards: list[Guard] = []
    gone = [name for name in promotion_order(before.catalog) if name not in after.catalog.environments]
    gone = gone if not after.errors else []  # or unreadable
    for name in (*promotion_order(after.catalog), *gone):
        if not _is_meant(name, only):
            continue
        placed = after.catalog.environments.get(name)
        wanted = Wanted(
            name,
            after.manifests(name),
            complete=not after.errors,
            suspended=placed is not None and placed.spec.suspended,
            in_specs=placed is not None,
        )
        observed = _observed(name, before.manifests(name), wanted.manifests)
        theirs, limits = plan.environment(wanted, observed)
        if any(limit.rule in _SHARES for limit in limits):
            # Which share of an environment goes is only known with all of it.
            observed = replace(observed, beside=Beside(_others(before.catalog, models, name, sizes)))
            theirs, limits = plan.environment(wanted, observed)
        changes += theirs
        guards += limits
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


#: By environment and model: how many objects the base has of it, as far as somebody has asked.
_Sizes: TypeAlias = dict[tuple[str, str], int]


def _others(base: Catalog, models: Collection[str], environment: str, sizes: _Sizes) -> int:
    """How many objects the environment has of models that the change is not about."""
    rendered = desired.build(
        base,
        Facts(),
        asked=lambda unit: (
            unit.environment.spec.name == environment
            and unit.model not in models
            and (environment, unit.model) not in sizes
        ),
    )
    for unit in rendered:
        sizes[environment, unit.model] = sum(m.id.kind not in plan.NEVER_PRUNED for m in unit.manifests)
    return sum(size for (where, model), size in sizes.items() if where == environment and model not in models)


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


def _unreadable(base: Files, head: Files) -> Iterator[str]:
    """The files that could not be read on one side only, or in another way: they differ, and nobody knows in what."""
    found = {problem.file for problem in {*base.problems} ^ {*head.problems}}
    yield from (name for name in found if files.is_spec(Path(name).name))


def _unlike(before: Policy, after: Policy) -> frozenset[str]:
    """The files with rules, where these are not the same."""
    if not [*policy.differing(before, after)] and before.problems == after.problems:
        return frozenset()
    rules = {rule.file for side in (before, after) for rule in side.rules}
    return frozenset(rules | {problem.file for side in (before, after) for problem in side.problems})


def _is_meant(environment: str, only: Collection[str]) -> bool:
    return not only or not environment or environment in only
