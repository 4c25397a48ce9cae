"""A report as the comment on a pull request, in GitHub's Markdown.

What a reviewer has to know stands on top; the manifests are folded below. A comment has a limit, so what does not fit
is left out in order of importance, beginning with whole manifests; errors would be the last to go. What is left out is
counted, and the command that shows it is named. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple, TypeAlias

from reconciler import diff
from reconciler.diff import FieldChange
from reconciler.inventory import CONTENT_HASH
from reconciler.plan import NEVER_LIFTED, SUSPENDED, Change, Guard, Op, Plan
from reconciler.report import Done, Effect, Outcome, Report, Told, Topic, Trouble, quoted_yaml, text
from reconciler.report.gfm import LONGEST_CODE, code, fenced, html_code, prose
from reconciler.report.text import counted
from renderers.manifest import Body
from schemas.problem import Problem

#: By this first line, whoever keeps one comment up to date finds it again.
MARKER = "<!-- trueup:plan -->"
#: Bytes of UTF-8. GitHub documents 65,536 characters; measured, it takes 262,144 bytes in a comment and 65,536 code
#: points in a pull request's description. Bytes are the most cautious of these, and what is left of 65,536 is for
#: tools that put a line of their own around it.
COMMENT_LIMIT = 65_000
#: Bytes of a job's summary that one step may write (GitHub Actions: "content up to a size of 1024k").
SUMMARY_LIMIT = 1_048_576
#: No object takes more lines than this.
_LINES = 300
#: No line of one takes more characters.
_COLUMNS = 800
#: Bytes for the line that says what was left out.
_LAST_LINE = 1_600

_OPS = {op: op.value for op in Op} | {Op.CONFLICT: "in conflict"}

#: Where a piece stands: a section, and then places within it.
_Place: TypeAlias = tuple[int, ...]
_HEAD, _ERRORS, _TROUBLE, _FAILED, _EFFECTS, _GUARDS, _POLICY, _WARNINGS, _BASE, _TOLD, _OBJECTS, _END = range(12)
_FIRST, _MIDDLE, _NOTES, _LAST = range(4)
_TITLES = {
    _ERRORS: "#### Errors\n\n",
    _TROUBLE: "#### In the way\n\n",
    _FAILED: "#### Not done\n\n",
    _EFFECTS: "#### What changes\n\n",
    _GUARDS: "#### Limits\n\n",
    _POLICY: "#### Policy\n\n",
    _WARNINGS: "#### Warnings\n\n",
    _BASE: "#### Errors of the base\n\nWhat is broken there counts as absent.\n\n",
    _TOLD: "#### What went on\n\n",
}


def report(report: Report, *, command: str, limit: int = COMMENT_LIMIT) -> str:
    """At most `limit` bytes of Markdown. `command` is what shows all of it, where something is left out."""
    page = _Page(limit - _LAST_LINE)
    page.put({(_HEAD,): "".join(_head(report))})
    left_out = _fill(page, _stages(report))
    if left_out:
        page.room += _LAST_LINE
        everything = code(command) if len(command) <= LONGEST_CODE else f"the same command with {code('-o text')}"
        last = f"**Left out, so that it fits: {', '.join(left_out)}.** All of it: {everything}\n"
        page.put({(_END,): f"\n{last}"})
    return page.text()


@dataclass(slots=True)
class _Page:
    """Pieces of text that have room together; they are added in order of importance, and read in order of place."""

    room: int  #: bytes
    pieces: dict[_Place, str] = field(default_factory=dict)

    def put(self, pieces: dict[_Place, str]) -> bool:
        """Adds all of the pieces, in place of what was there, or none if there is no room."""
        cost = sum(_size(new) - _size(self.pieces.get(place, "")) for place, new in pieces.items())
        if cost > self.room:
            return False
        self.room -= cost
        self.pieces |= pieces
        return True

    def text(self) -> str:
        return "".join(self.pieces[place] for place in sorted(self.pieces))


def _size(text: str) -> int:
    return len(text.encode())


@dataclass(frozen=True, slots=True)
class _Stage:
    """What is equally important: `noun` for one of it, and how each becomes pieces, done only while there is room."""

    noun: str
    items: Sequence[Any]
    pieces: Callable[[int, Any], dict[_Place, str]]


def _fill(page: _Page, stages: Sequence[_Stage]) -> list[str]:
    """As much as fits. From the first that does not on, everything is left out: `12 effects`, `40 objects`."""
    is_full = False
    left_out = []
    for stage in stages:
        for number, item in enumerate(stage.items):
            is_full = is_full or not page.put(stage.pieces(number, item))
            if is_full:
                left_out.append(counted(len(stage.items) - number, stage.noun))
                break
    return left_out


def _stages(report: Report) -> list[_Stage]:
    """The most important first."""
    of_policy = [problem for problem in report.problems if _is_policy(problem)]
    errors = [p for p in report.problems if p.severity == "error" and not _is_policy(p)]
    warnings = [p for p in report.problems if p.severity != "error" and not _is_policy(p)]
    failed = [done for done in report.done if done.outcome not in (Outcome.APPLIED, Outcome.DELETED)]
    effects = [
        _Told(outer, inner, together.environments, models, effect)
        for outer, together in enumerate(text.by_importance(report.effects))
        for inner, (models, theirs) in enumerate(together.models)
        for effect in theirs
    ]
    effects.sort(key=lambda one: text.importance(one.effect))
    changes = [] if report.plan is None else list(_shown(report.plan))
    last = {one.environment: one for one in changes}.values()
    notes = [(one, note) for one in last for note in one.notes]
    detailed = [one for one in changes if text.shown_fields(one.change)]
    new = [one for one in changes if not one.change.fields and one.change.manifest and one.change.op is not Op.DELETE]
    guards = report.plan.guards if report.plan else ()
    return [
        _Stage("error", errors, _listed(_ERRORS, _problem)),
        _Stage("policy problem", of_policy, _listed(_POLICY, _problem)),
        _Stage("obstacle", report.trouble, _listed(_TROUBLE, _trouble)),
        _Stage("unfinished object", failed, _listed(_FAILED, _failed)),
        _Stage("limit", guards, _listed(_GUARDS, lambda guard: _guard(guard, report))),
        _Stage("effect", effects, _effect),
        _Stage("warning", warnings, _listed(_WARNINGS, _problem)),
        _Stage("base error", report.base.problems if report.base else (), _listed(_BASE, _problem)),
        _Stage("event", report.told, _listed(_TOLD, _told)),
        _Stage("object", changes, _object),
        _Stage("note", notes, _note),
        _Stage("field list", detailed, _object_with_fields),
        _Stage("manifest", new, _object_with_manifest),
    ]


def _is_policy(problem: Problem) -> bool:
    return problem.rule.startswith("policy/")


def _listed(section: int, line: Callable[[Any], str]) -> Callable[[int, Any], dict[_Place, str]]:
    """Pieces of a section that is one list."""
    title: dict[_Place, str] = {(section, _FIRST): _TITLES[section], (section, _LAST): "\n"}
    return lambda number, item: {**title, (section, _MIDDLE, number): f"- {line(item)}\n"}


# -- what stands on top ---------------------------------------------------------------------------------------------


def _head(report: Report) -> Iterator[str]:
    base, plan = report.base, report.plan
    fine = "the specs are valid" if plan is None and base is None else "nothing changes"
    yield f"{MARKER}\n### Trueup: {'; '.join(_counts(report)) or fine}\n\n"
    if base is not None:
        yield f"Compared with {code(base.ref)} at {code(base.commit[:12])}: {text.differing(base)}.\n\n"
        if not report.effects:
            yield "No model, environment or automation is changed.\n\n"
    elif plan is not None and plan.offline:
        yield "Offline: shown as if nothing existed yet.\n\n"
    elif plan is not None and plan.actions:
        yield f"Plan {code(plan.id)}.\n\n"


def _counts(report: Report) -> Iterator[str]:
    errors = sum(problem.severity == "error" for problem in report.problems)
    if errors:
        yield f"**{counted(errors, 'error')}**"
    if report.trouble:
        yield "**the world is in the way**"
    if report.plan and report.plan.guards:
        yield f"**{counted(len(report.plan.guards), 'limit')} reached**"
    if report.effects:
        places = len({effect.environment for effect in report.effects if effect.environment})
        where = f" in {counted(places, 'environment')}" if places else ""
        yield f"{counted(len(report.effects), 'effect')}{where}"
    outcomes = [f"{sum(done.outcome is one for done in report.done)} {one}" for one in Outcome]
    if report.done:
        yield ", ".join(words for words in outcomes if not words.startswith("0 "))
    elif report.plan and (counts := text.counted_changes([c for c in report.plan.changes if c.op is not Op.UNCHANGED])):
        yield f"objects: {counts}"


def _problem(problem: Problem) -> str:
    where = code(f"{problem.file}:{problem.line}:{problem.column}")
    hint = f" Try: {prose(problem.hint)}." if problem.hint else ""
    return f"**{problem.severity}** at {where}: {prose(problem.message)}{hint} {code(problem.rule)}"


def _trouble(trouble: Trouble) -> str:
    return f"{code(trouble.where)}: {prose(trouble.message)}"


def _failed(done: Done) -> str:
    message = f": {prose(done.message)}" if done.message else ""
    return f"**{done.outcome}** {code(str(done.change.id))} in {code(done.change.environment)}{message}"


def _told(told: Told) -> str:
    return f"{code(told.where)}: {prose(told.message)}"


def _guard(guard: Guard, report: Report) -> str:
    if command := text.approval(guard, report.base):
        again = f" {text.ASKED_AGAIN}" if report.base is not None else ""
        approval = f" If that is meant: {code(command)}.{again}"
    else:
        approval = " No approval lifts it." if guard.rule in NEVER_LIFTED else ""
    return f"{code(guard.environment)}: {prose(guard.message)}.{approval} {code(guard.rule)}"


class _Told(NamedTuple):
    """A sentence that is true of some environments and models, and the places of these in the page."""

    outer: int
    inner: int
    environments: tuple[str, ...]
    models: tuple[str, ...]
    effect: Effect


def _effect(number: int, told: _Told) -> dict[_Place, str]:
    effect = told.effect
    title = f"**{_names(told.environments)}**" if any(told.environments) else "**In general**"
    about = f"{_names(told.models)}: " if any(told.models) else ""
    sign = "**removed:** " if effect.topic is Topic.REMOVED else ""
    section: _Place = (_EFFECTS, _MIDDLE, told.outer)
    return {
        (_EFFECTS, _FIRST): _TITLES[_EFFECTS],
        (*section, _FIRST): f"{title}\n\n",
        (*section, _MIDDLE, told.inner, number): f"- {about}{sign}{prose(effect.text)}\n",
        (*section, _LAST): "\n",
    }


def _names(names: Sequence[str]) -> str:
    return text.listed([code(name) for name in names])


# -- objects, folded ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Shown:
    """A change, its place in the page, and what stands once in the environment that it is folded into."""

    change: Change
    environment: int
    number: int
    summary: str
    marks: Mapping[str, str]  #: of what is held
    notes: Sequence[str]


def _shown(plan: Plan) -> Iterator[_Shown]:
    changes = (change for change in plan.changes if change.op is not Op.UNCHANGED and change.held != SUSPENDED)
    for at, (environment, group) in enumerate(groupby(changes, key=lambda change: change.environment)):
        theirs = list(group)
        summary = f"Objects of {html_code(environment)}: {text.counted_changes(theirs)}"
        marks, notes = text.held_marks(theirs), text.notes_of(plan, environment, theirs)
        yield from (_Shown(change, at, number, summary, marks, notes) for number, change in enumerate(theirs))


def _object(_: int, shown: _Shown, details: Sequence[str] = ()) -> dict[_Place, str]:
    block = f"\n{fenced(details, 'diff')}\n" if details else ""
    section: _Place = (_OBJECTS, shown.environment)
    held = "".join(f"{mark}: {prose(why)}\n\n" for why, mark in shown.marks.items())
    return {
        (*section, _FIRST): f"<details><summary>{shown.summary}</summary>\n\n{held}",
        (*section, _MIDDLE, shown.number): f"{_line(shown)}{block}",
        (*section, _LAST): "\n</details>\n\n",
    }


def _note(number: int, item: tuple[_Shown, str]) -> dict[_Place, str]:
    shown, note = item
    return {(_OBJECTS, shown.environment, _NOTES, number): f"- note: {prose(note)}\n"}


def _line(shown: _Shown) -> str:
    change = shown.change
    origin = f" ({code(f'{change.origin}')})" if change.origin else ""
    remarks = [shown.marks.get(text.why_held(change), ""), prose(change.reason)]
    if change.supersedes is not None:
        remarks.append(f"in place of {code(text.beside(change.supersedes, change))}")
    if change.superseded_by is not None:
        remarks.append(f"when {code(text.beside(change.superseded_by, change))} has taken over")
    remarks += [prose(line) for line in text.moves(change)]
    name = code(f"{change.id.kind} {change.id.name}")
    return f"- {_OPS[change.op]} {name}{origin}{''.join(f'; {remark}' for remark in remarks if remark)}\n"


def _object_with_fields(number: int, shown: _Shown) -> dict[_Place, str]:
    lines = [line for field in text.shown_fields(shown.change) for line in _field(field)]
    return _object(number, shown, _cut(lines))


def _object_with_manifest(number: int, shown: _Shown) -> dict[_Place, str]:
    assert shown.change.manifest is not None
    lines = [f"+ {line}" for line in quoted_yaml.dump(_visible(shown.change.manifest.body)).splitlines()]
    return _object(number, shown, _cut(lines))


def _field(field: FieldChange) -> Iterator[str]:
    path, (old, new) = text.clean(field.path), text.values(field)
    if old is not None:
        yield f"- {path}: {old}"
    if new is not None:
        yield f"+ {path}: {new}"


def _visible(body: Body) -> Body:
    """A new object without what nobody may see, by the rules for a changed one."""
    shown: Body = {}
    for path, _, value in diff.compare({}, body):
        key = path.removeprefix("metadata.")
        (shown if key == path else shown.setdefault("metadata", {}))[key] = value
    metadata = shown["metadata"]
    annotations = {key: value for key, value in metadata.get("annotations", {}).items() if key != CONTENT_HASH}
    shown["metadata"] = metadata | {"annotations": annotations}
    return {key: shown[key] for key in body if key in shown}


def _cut(lines: Sequence[str]) -> list[str]:
    kept = [line if len(line) <= _COLUMNS else f"{line[:_COLUMNS]}…" for line in lines[:_LINES]]
    return [*kept, f"# and {counted(len(lines) - _LINES, 'more line')}"] if len(lines) > _LINES else kept
