"""The part of the story that needs no cluster and no network: files -> specs -> desired objects -> plan.

A module of its own because it starts fast: what talks to clusters costs a tenth of a second to import, and the check
of a pull request does not need it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from reconciler import desired, plan, policy, queries, specs
from reconciler.desired import Rendered
from reconciler.plan import Change, Note
from reconciler.policy import Policy
from reconciler.report import Report
from reconciler.source import files
from reconciler.specs import Loaded
from renderers.catalog import Facts


def load(paths: Sequence[Path], rules: Policy = policy.NONE) -> Loaded:
    """files -> specs, with the problems of both steps, those with the organisation's own rules included."""
    found = files.read(paths)
    seen = files.lookalikes(found.content)
    loaded = specs.parse(found.content, queries.check, rules.check)
    return Loaded(loaded.catalog, tuple(sorted((*found.problems, *seen, *loaded.problems, *rules.problems))))


def preview(loaded: Loaded, only: Collection[str] = (), rules: Policy = policy.NONE) -> Report:
    """What the specs ask for, without any cluster or network; `only` for these environments, if there are any."""
    changes: list[Change] = []
    notes: list[Note] = []
    problems = list(loaded.problems)
    for rendered in desired.build(loaded.catalog, Facts()):
        if not only or rendered.environment in only:
            theirs, broken = rules.judge(plan.offline(rendered.manifests, whole=rules.is_of_changes), loaded.catalog)
            # No body is kept in memory, and thousands of specs are no problem.
            changes += [replace(change, manifest=None) for change in theirs] if rules.is_of_changes else theirs
            notes += notes_of([rendered])
            problems += broken
        problems += [rendered.problem] if rendered.problem else []
    return Report(tuple(sorted(problems)), plan.assemble(changes, notes, offline=True))


def notes_of(units: Iterable[Rendered]) -> list[Note]:
    """What rendering has to tell, for the plan."""
    return [Note(unit.environment, note.origin, note.text) for unit in units for note in unit.notes]
