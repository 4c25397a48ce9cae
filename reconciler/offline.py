"""The part of the story that needs no cluster and no network: files -> specs -> desired objects -> plan.

A module of its own because it starts fast: what talks to clusters costs a tenth of a second to import, and the check
of a pull request does not need it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from reconciler import desired, plan, policy, queries, specs
from reconciler.desired import Rendered
from reconciler.plan import Change, Note
from reconciler.policy import Policy
from reconciler.report import Report
from reconciler.source import files
from reconciler.source.files import Files
from reconciler.specs import Loaded
from renderers.catalog import Facts
from schemas.problem import Problem


class Rules(NamedTuple):
    """Where the organisation's rules are looked for: in the first of these files that is there."""

    places: tuple[Path, ...] = ()
    approvals: frozenset[str] = frozenset()

    def read(self) -> Policy:
        """As they are now; none where none of the files is there. Of a file that cannot be read, its problems."""
        # Whatever is there was meant to be the rules; that it cannot be read never means that there are none.
        path = next((path for path in self.places if os.path.lexists(path)), None)
        if path is None:
            return policy.NONE
        if path.is_symlink():  # as `source.tree` refuses it where the reconciler in the cluster reads it
            message, hint = "It is a symbolic link.", "put a copy in its place"
            return Policy(problems=(Problem(str(path), 1, 1, (), "source/symbolic-link", message, hint),))
        if path.is_dir():
            return Policy(problems=(Problem(str(path), 1, 1, (), "source/not-a-file", "It is a folder, and no file."),))
        return rules_in(files.read([path]), self.approvals)


def rules_in(found: Files, approvals: Iterable[str] = ()) -> Policy:
    """The rules of a file that was looked for; none where it was not found."""
    read = (policy.read(name, content, approvals) for name, content in found.content.items())
    return next(read, Policy(problems=found.problems))


NO_RULES = Rules()


def rules_of(given: Path | None, approvals: Iterable[str] = ()) -> Rules:
    """The file that somebody has named; or else the usual one, here or in a folder above, up to the repository's."""
    places = [given] if given is not None else []
    if given is None:
        here = Path.cwd()
        up = next((number for number, folder in enumerate((here, *here.parents)) if (folder / ".git").exists()), 0)
        places = [Path(*[".."] * number, policy.FILE) for number in range(up + 1)]
    return Rules(tuple(places), frozenset(approvals))


def load(paths: Sequence[Path], rules: Policy = policy.NONE) -> Loaded:
    """files -> specs, with the problems of both steps, and of specs that break a rule of the organisation.

    What is wrong with the rules themselves is not among them: for its sake, no spec is taken for one that is not read.
    """
    found = files.read(paths)
    seen = files.lookalikes(found.content)
    loaded = specs.parse(found.content, queries.check, rules.check)
    return Loaded(loaded.catalog, policy.summed((*found.problems, *seen, *loaded.problems)))


def preview(loaded: Loaded, only: Collection[str] = (), rules: Policy = policy.NONE) -> Report:
    """What the specs ask for, without any cluster or network; `only` for these environments, if there are any."""
    changes: list[Change] = []
    notes: list[Note] = []
    problems = [*loaded.problems, *rules.problems]
    for rendered in desired.build(loaded.catalog, Facts()):
        if not only or rendered.environment in only:
            theirs = rules.judge(plan.offline(rendered.manifests, whole=rules.is_of_changes), loaded.catalog)
            # No body is kept in memory, and thousands of specs are no problem.
            judged = theirs.changes
            changes += [replace(change, manifest=None) for change in judged] if rules.is_of_changes else judged
            notes += notes_of([rendered])
            problems += theirs.problems
        problems += [rendered.problem] if rendered.problem else []
    return Report(policy.summed(problems), plan.assemble(changes, notes, offline=True), specs=loaded.catalog.origins)


def notes_of(units: Iterable[Rendered]) -> list[Note]:
    """What rendering has to tell, for the plan."""
    return [Note(unit.environment, note.origin, note.text) for unit in units for note in unit.notes]
