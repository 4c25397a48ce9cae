"""Specs that follow their files: a changed file costs what it is about, not what there is.

Of each file its typed specs are kept, and of each group of specs (`names`) what came of judging it. A file that
changes is read, and the groups that it is about are judged again. What came of the others still holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

from reconciler.specs import references, traffic
from reconciler.specs.names import Change, Group, Names, Question, Scope, group_of_model
from reconciler.specs.places import Places
from reconciler.specs.references import Specs, name_in_catalog, references_of
from reconciler.specs.sharing import alike
from reconciler.specs.typed import Found, Key, Typed, read
from renderers.catalog import Catalog, Facts, Placed
from schemas.problem import Problem

#: Adds the problems that only others can see, such as those of SQL. It is called for one group of specs at a time, and
#: may look at nothing but these and what is `around` them.
Check: TypeAlias = Callable[[Specs, Places], None]


class Changed(NamedTuple):
    """The models whose specs, or what these refer to, may mean something else now; None: everything may.

    Where a spec stands is no part of what it means: no manifest holds it. `moved` are the models of which that is all
    that changed, because a file was renamed or a line came above them: whoever keeps their origins, for notes and
    problems, keeps old ones. "" among them stands for the environments, as it does in a unit.
    """

    models: frozenset[str] | None
    moved: frozenset[str] = frozenset()


class Index:
    """All specs of one revision, and the way to the next one.

    `catalog` and `problems` are always what `specs.parse` makes of all files. They are replaced, never changed: who
    holds them holds one revision. For one thread at a time.

    `content` gives the bytes of a file, to find the line of a problem. It is asked only for files that the update
    does not change. What it raises, `update` raises, and then nothing has happened.
    """

    def __init__(self, content: Callable[[str], bytes], *checks: Check) -> None:
        self._content = content
        self._checks = checks
        self._forget()

    def _forget(self) -> None:
        self.catalog = Catalog()
        self.problems: tuple[Problem, ...] = ()
        self._files: dict[str, Typed] = {}
        self._names = Names()
        self._verdicts: dict[Group, _Verdict] = {}
        self._askers: dict[Question, set[Group]] = {}

    def replace(self, files: Mapping[str, bytes]) -> Changed:
        """Takes these files for all that there are: name, as it is to be shown -> content."""
        self._forget()
        self.update(files)
        return Changed(None)

    def update(self, changed: Mapping[str, bytes | None]) -> Changed:
        """Takes what some files hold now: name -> content; None: the file is gone."""
        texts = {file: text for file, text in sorted(changed.items()) if text is not None}
        places = Places(lambda file: texts[file] if file in texts else self._content(file))
        old = {file: self._files[file] for file in changed if file in self._files}
        new = {file: read(file, text, places) for file, text in texts.items()}
        change = self._names.exchange(old.values(), new.values())
        try:
            step = self._step(change, places)
        except BaseException:
            self._names.exchange(new.values(), old.values())
            raise
        told = self._told(change, step)
        before = [self._verdicts.get(group, _NONE) for group in step.verdicts]
        for file in old:
            del self._files[file]
        self._files.update(new)
        self._remember(step.verdicts)
        self.catalog = step.catalog
        if _problems(old.values(), before) != _problems(new.values(), step.verdicts.values()):
            self.problems = _in_order(_problems(self._files.values(), self._verdicts.values()))
        return told

    def part(self, models: Collection[str]) -> Catalog:
        """As much of the catalog as these models need, and all environments.

        `renderers.catalog.units` makes of it the units of these models, as it makes them of the whole catalog, and
        those of the environments themselves, if its facts are about these models only (`of_models`). What cannot be
        seen in it is that another model wants an object of the same name (`desired.SHARED`).
        """
        groups = {group_of_model(model) for model in models}
        keys = [key for group in groups for key in self._verdicts.get(group, _NONE).valid]
        part = {key: placed for key in keys if (placed := _placed(self.catalog, key)).spec.model in models}
        named = {reference.key for placed in part.values() for reference in references_of(placed.spec)}
        part |= {key: _placed(self.catalog, key) for key in named if key[0] == "audiences"}
        return _with(Catalog(self.catalog.environments), part)

    # -- one step -------------------------------------------------------------------------------------------------

    def _step(self, change: Change, places: Places) -> _Step:
        """Judges what a change is about: environments and audiences first, because models need them."""
        groups = change.groups.union(*(self._askers.get(question, _NOBODY) for question in change.answers))
        for key in change.moved:
            # Where something else stands is said by problems only.
            groups |= {group for group in self._askers.get(key, _NOBODY) if self._verdicts[group].problems}
        models = {group for group in groups if group.kind == "models"}
        verdicts, catalog = self._judged(groups - models, {}, self.catalog, places)
        keys: list[Key] = [("environments", "", name) for name in catalog.environments]
        environments = {key: self._names.claims[key][0] for key in keys}
        is_about_all = any(question[0] == "environments" for question in change.answers)
        if is_about_all:
            models |= self._names.models()
        of_models, catalog = self._judged(models, environments, catalog, places)
        return _Step(verdicts | of_models, catalog, is_about_all)

    def _judged(
        self, groups: Collection[Group], environments: dict[Key, Found[Any]], catalog: Catalog, places: Places
    ) -> tuple[dict[Group, _Verdict], Catalog]:
        """Judges groups that do not need each other: what came of it, and the catalog with what is valid of them."""
        verdicts: dict[Group, _Verdict] = {}
        valid: dict[Key, Placed[Any]] = {}
        for group in groups:
            members = self._names.members(group)
            scope = Scope(self._names, environments, catalog.audiences)
            specs = references.check(members, scope, places)
            traffic.check(specs, places)
            for check in self._checks:
                check(specs, places)
            asked = scope.asked.difference(found.key for found in members)
            verdicts[group] = _Verdict(tuple(specs.found), tuple(specs.problems), tuple(asked))
            valid.update((key, found.placed) for key, found in specs.found.items())
        before = {key for group in groups for key in self._verdicts.get(group, _NONE).valid}
        return verdicts, _with(catalog, valid, before - valid.keys())

    def _told(self, change: Change, step: _Step) -> Changed:
        if step.is_about_all:
            return Changed(None)
        audiences = {question for question in change.answers if question[0] == "audiences"}
        models: set[str] = set()
        moved = {"" for key in change.moved if key[0] == "environments"}
        for group, verdict in step.verdicts.items():
            if group.kind != "models":
                continue
            before = {key: _placed(self.catalog, key) for key in self._verdicts.get(group, _NONE).valid}
            after = {key: _placed(step.catalog, key) for key in verdict.valid}
            names_it = not audiences.isdisjoint(verdict.asked)
            for key in before.keys() | after.keys():
                was, now = before.get(key), after.get(key)
                theirs = {placed.spec.model for placed in (was, now) if placed is not None}
                if was is None or now is None or not alike(was.spec, now.spec) or names_it:
                    models |= theirs
                elif was.origin != now.origin:
                    moved |= theirs
        return Changed(frozenset(models), frozenset(moved - models))

    def _remember(self, verdicts: Mapping[Group, _Verdict]) -> None:
        unasked: set[Question] = set()
        for group in verdicts:
            for question in self._verdicts.pop(group, _NONE).asked:
                self._askers[question].remove(group)
                unasked.add(question)
        for group, verdict in verdicts.items():
            for question in verdict.asked:
                self._askers.setdefault(question, set()).add(group)
            if verdict != _NONE:
                self._verdicts[group] = verdict
        for question in unasked:
            if not self._askers[question]:
                del self._askers[question]
                self._names.forget(question)


class _Verdict(NamedTuple):
    """What came of judging a group."""

    valid: tuple[Key, ...] = ()
    problems: tuple[Problem, ...] = ()
    asked: tuple[Question, ...] = ()


_NONE = _Verdict()
_NOBODY: frozenset[Group] = frozenset()


class _Step(NamedTuple):
    """What an update comes to."""

    verdicts: Mapping[Group, _Verdict]  #: of the groups that were judged again
    catalog: Catalog
    is_about_all: bool


def _placed(catalog: Catalog, key: Key) -> Placed[Any]:
    placed: Placed[Any] = getattr(catalog, key[0])[name_in_catalog(key)]
    return placed


def _with(catalog: Catalog, valid: Mapping[Key, Placed[Any]], gone: Collection[Key] = ()) -> Catalog:
    """A catalog with some specs, and without others. It is in order of name, by whatever way one came to it.

    A kind of which nothing is another one stays the very same, so that what follows from it alone need not be looked
    for again.
    """
    valid = {
        key: placed for key, placed in valid.items() if getattr(catalog, key[0]).get(name_in_catalog(key)) is not placed
    }
    kinds: dict[str, dict[Any, Placed[Any]]] = {
        kind: dict(getattr(catalog, kind)) for kind in {key[0] for key in (*valid, *gone)}
    }
    for key in gone:
        del kinds[key[0]][name_in_catalog(key)]
    sizes = {kind: len(specs) for kind, specs in kinds.items()}
    for key, placed in valid.items():
        kinds[key[0]][name_in_catalog(key)] = placed
    grown = {kind: dict(sorted(specs.items())) for kind, specs in kinds.items() if len(specs) > sizes[kind]}
    return replace(catalog, **(kinds | grown))


def _problems(files: Iterable[Typed], groups: Iterable[_Verdict]) -> set[Problem]:
    return {problem for parts in (files, groups) for part in parts for problem in part.problems}


def _in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """In the order of the files; of two in one place, too, it does not depend on chance which is the first."""
    return tuple(sorted(problems, key=lambda p: (p.file, p.line, p.column, p.rule, p.message, p.hint, repr(p.path))))


def of_models(facts: Facts, models: Collection[str]) -> Facts:
    """The facts that are about these models: what to render a part of the catalog with."""
    return Facts(
        facts.commits,
        {key: runs for key, runs in facts.runs.items() if key[1] in models},
        facts.stands,
        {key: batches for key, batches in facts.batches.items() if key[1] in models},
    )
