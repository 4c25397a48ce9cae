"""A report for people: plain lines, readable in 80 columns, colours only where asked for."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

from reconciler.diff import FieldChange
from reconciler.plan import SUSPENDED, Change, Guard, Op, Plan
from reconciler.report import Base, Done, Effect, Outcome, Report, Told, Topic, Trouble
from reconciler.report.columns import width_of, wrap
from reconciler.report.shortened import shortened
from renderers.manifest import ObjectId
from renderers.names import CONFIG_HASH, SHARES
from schemas.problem import Problem

#: Sign and colour (ANSI SGR) of each operation.
_SIGNS: dict[Op, tuple[str, int]] = {
    Op.CREATE: ("+", 32),
    Op.CHANGE: ("~", 33),
    Op.REPLACE: ("±", 35),
    Op.DELETE: ("-", 31),
    Op.CONFLICT: ("!", 31),
    Op.UNVERIFIED: ("?", 36),
    Op.REFUSED: ("x", 31),
    Op.UNCHANGED: ("=", 2),
}
_OUTCOMES: dict[Outcome, tuple[str, int]] = {
    Outcome.APPLIED: ("+", 32),
    Outcome.DELETED: ("-", 32),
    Outcome.FAILED: ("x", 31),
    Outcome.BLOCKED: ("!", 33),
    Outcome.WAITING: ("…", 36),
}
DIM, BOLD, RED, GREEN, YELLOW, CYAN = 2, 1, 31, 32, 33, 36
#: The words of the summary, in this order. Zeros are left out.
_SUMMARY = (
    (Op.CREATE, "to create"),
    (Op.CHANGE, "to change"),
    (Op.REPLACE, "to replace"),
    (Op.DELETE, "to delete"),
    (Op.UNVERIFIED, "unverified"),
    (Op.CONFLICT, "in conflict"),
    (Op.REFUSED, "refused"),
    (Op.UNCHANGED, "unchanged"),
)
#: No value of a field takes more of the screen than this many characters.
_VALUE_LIMIT = 300
#: So many names stand in a row; more are counted.
_NAMES = 12
#: Hashes over other fields, for whoever compares: people see the fields themselves.
_SHARES = f"metadata.annotations[{SHARES}]"
_FOR_PROGRAMS = frozenset({_SHARES, f"spec.template.metadata.annotations[{CONFIG_HASH}]"})
#: A terminal that is narrower than this breaks lines by itself.
_NARROWEST = 40
_TOPICS = {Topic.UNREAD: ("?", YELLOW), Topic.REMOVED: ("-", RED)}
_IMPORTANCE = {topic: number for number, topic in enumerate(Topic)}


def report(report: Report, *, width: int, color: bool, whole: bool = False) -> Iterator[str]:
    """All of a preview: what a change does, problems, the plan, what is in the way. `whole`: as in `problems`."""
    if report.base is not None:
        yield from _base(report.base, width=width, color=color)
    if report.base is not None or report.effects:
        yield from _effects(report.effects, width=width, color=color)
        yield ""
    yield from problems(report.problems, width=width, color=color, whole=whole)
    if report.plan is not None:
        if report.base is not None:
            if report.problems:
                yield ""
            yield from wrapped("What follows is as if the base were what runs.", "", width, DIM, color=color)
        yield from plan(report.plan, report.base, width=width, color=color)
    for one in report.told:
        yield from told(one, width=width, color=color)
    yield from _troubles(report.trouble, width=width, color=color)


def differing(base: Base) -> str:
    """`2 files differ`."""
    number = len(base.files)
    return f"{counted(number, 'file')} differ{'s' if number == 1 else ''}" if number else "no spec file differs"


def importance(effect: Effect) -> int:
    """Smaller is more important."""
    return _IMPORTANCE[effect.topic]


def most_important_first(effects: Iterable[Effect]) -> list[Effect]:
    """By topic, and otherwise in the order in which they are."""
    return sorted(effects, key=importance)


class Together(NamedTuple):
    """Environments in which the same happens; what that is, by the models of which the same is told."""

    environments: tuple[str, ...]
    models: tuple[tuple[tuple[str, ...], tuple[Effect, ...]], ...]


def by_importance(effects: Iterable[Effect]) -> list[Together]:
    """What changes, so that nothing is told twice. At each level, what has the most important of all comes first.

    The effects have no place and no origin there: each stands for all that say the same.
    """
    places: dict[str, dict[str, list[Effect]]] = {}
    for effect in most_important_first(effects):
        models = places.setdefault(effect.environment, {})
        models.setdefault(effect.model, []).append(replace(effect, environment="", model="", origin=None))
    told = {
        environment: tuple(_alike({model: tuple(theirs) for model, theirs in models.items()}))
        for environment, models in places.items()
    }
    return [Together(environments, models) for environments, models in _alike(told)]


_Said = TypeVar("_Said", bound=Hashable)


def _alike(said: Mapping[str, _Said]) -> Iterator[tuple[tuple[str, ...], _Said]]:
    """Names of which the same is said, with that. What is about all of them, under "", stands apart."""
    groups: dict[tuple[bool, _Said], list[str]] = {}
    for name, words in said.items():
        groups.setdefault((bool(name), words), []).append(name)
    yield from ((tuple(names), words) for (_, words), names in groups.items())


def listed(names: Sequence[str]) -> str:
    """`a, b, c`; of many, the first ones, and how many more there are."""
    shown = ", ".join(names[:_NAMES])
    return f"{shown} and {len(names) - _NAMES} more" if len(names) > _NAMES else shown


def problems(problems: Sequence[Problem], *, width: int, color: bool, whole: bool = False) -> Iterator[str]:
    """Each begins with `file:line:column: error:`, which editors and terminals turn into a link.

    `whole`: what is wrong is on one line, for programs that read line by line.
    """
    width = sys.maxsize if whole else max(width, _NARROWEST)
    for problem in problems:
        paint = RED if problem.severity == "error" else YELLOW
        where = clean(f"{problem.file}:{problem.line}:{problem.column}")
        head = f"{painted(where, BOLD, color)}: {painted(problem.severity, paint, color)}:"
        message, taken = clean(problem.message), width_of(where) + len(problem.severity) + 3
        if taken < width:
            first, *more = wrap(f"{'.' * taken} {message}", width, "", "    ")
            yield f"{head}{first[taken:]}"
            yield from more
        else:  # where it is stays whole, or it would be no link
            yield head
            yield from wrap(message, width, "    ", "    ")
        if problem.hint:
            yield from wrap(f"try: {clean(problem.hint)}", width, "      ", "           ")
        place = clean(problem.pointer)
        rule = wrap(f"[{problem.rule}]{f' at {place}' if place else ''}", width, "      ", "        ")
        yield from (painted(line, DIM, color) for line in rule)


def verdict(problems: Sequence[Problem], count: int) -> str:
    """The last line of `validate`."""
    errors = sum(problem.severity == "error" for problem in problems)
    warnings = len(problems) - errors
    also = f", {counted(warnings, 'warning')}" if warnings else ""
    return (
        f"{counted(errors, 'error')}{also}; {counted(count, 'valid spec')}"
        if errors
        else f"{counted(count, 'spec')} valid{also}"
    )


def plan(plan: Plan, base: Base | None = None, *, width: int, color: bool) -> Iterator[str]:
    """What would be done: environment by environment, spec by spec. Unchanged objects are only counted.

    Notes are those of the specs that are shown; all of them are in the JSON. `base`: what stands for the clusters.
    """
    yield from wrapped(headline(plan), "", width, BOLD, color=color)
    if plan.offline:
        offline = "Offline: shown as if nothing existed yet; --live compares with the clusters."
        yield from wrap(offline, max(width, _NARROWEST))
    shown = [change for change in plan.changes if change.op is not Op.UNCHANGED]
    blocks = {
        environment: tuple(_objects(environment, changes, plan, base, width=width, color=color))
        for environment, changes in _by_environment(shown, plan)
    }
    for environments, lines in _alike(blocks):
        yield ""
        yield from wrapped(clean(listed(environments)), "", width, BOLD, color=color)
        yield from lines


def _objects(
    environment: str, changes: Sequence[Change], plan: Plan, base: Base | None, *, width: int, color: bool
) -> Iterator[str]:
    """What would be done in an environment, without its name: where the same is done in others, it is told once."""
    if changes and all(change.held == SUSPENDED for change in changes):
        words = f"suspended: nothing is done about {counted(len(changes), 'object')}"
        yield from wrap(words, max(width, _NARROWEST), "  ", "    ")
        return
    marks = held_marks(changes)
    guards = [guard for guard in plan.guards if guard.environment == environment]
    incomplete = any(guard.rule == "prune/incomplete" for guard in guards)
    for title, theirs in _by_spec(changes, "asked for by no valid spec" if incomplete else _UNWANTED):
        yield from wrap(title, max(width, _NARROWEST), "  ", "    ")
        for change in theirs:
            yield from _change(change, marks.get(why_held(change), ""), width=width, color=color)
    limits = {guard.message for guard in guards}
    for why, mark in marks.items():
        if why not in limits:
            yield from wrapped(f"{mark}: {clean(why)}", "  ", width, DIM, color=color)
    for note in notes_of(plan, environment, changes):
        yield from wrapped(f"note: {clean(note)}", "  ", width, DIM, color=color)
    for guard in guards:
        mark = marks.get(guard.message, "") if len(marks) > 1 else ""
        yield from _guard(guard, mark, base, width=width, color=color)


def why_held(change: Change) -> str:
    """The reason, without what it is said of: a rule of the organisation names each object."""
    return change.held.replace(f" ({change.op} {change.id} in {change.environment})", "")


def held_marks(changes: Iterable[Change]) -> dict[str, str]:
    """Why something of an environment is held, each reason with the mark of all objects that it holds."""
    reasons = dict.fromkeys(why_held(change) for change in changes if change.held)
    return {why: f"held {number}" if len(reasons) > 1 else "held" for number, why in enumerate(reasons, start=1)}


def notes_of(plan: Plan, environment: str, changes: Iterable[Change]) -> list[str]:
    """What is to be known of the specs of these changes, each note once."""
    origins = {change.origin for change in changes}
    noted = (note for note in plan.notes if note.environment == environment and note.origin in origins)
    return list(dict.fromkeys(note.text for note in noted))


def shown_fields(change: Change) -> list[FieldChange]:
    """The fields that a person is shown. All of them are in the JSON.

    Backend by backend and rule by rule, those of a route say once more how its requests move between builds.
    """
    told = [one for one in change.fields if change.traffic is None or not one.path.startswith("spec.rules")]
    return [one for one in told if one.path not in _FOR_PROGRAMS]


def moves(change: Change) -> tuple[str, ...]:
    """How the requests of a route move, as far as its fields are not shown."""
    if [field.path for field in change.fields] == [_SHARES]:
        return ("other shares, of variations that serve no build here yet",)
    return change.traffic or ()


#: What an approval is worth where a commit stands for the clusters.
ASKED_AGAIN = "That lets this check pass. A run against the cluster asks again, and names an id of its own."


def approval(guard: Guard, base: Base | None) -> str:
    """The command that lifts exactly this limit, for a person who means it; "" where nobody can."""
    if not guard.approval:
        return ""
    against = ["--base", base.ref] if base is not None and base.ref else []
    preview = ["--dry-run", *against] if base is not None else []
    return clean(shlex.join(["reconcile", *preview, "--approve", guard.approval]))


def headline(plan: Plan) -> str:
    """`Plan 3f9a1c2e77aa: 34 to create, 1 to delete.`"""
    counts = counted_changes(plan.changes)
    suspended = sum(change.held == SUSPENDED for change in plan.changes)
    if not counts and not suspended:
        return "Nothing is planned."
    if all(change.op is Op.UNCHANGED or change.held == SUSPENDED for change in plan.changes):
        also = f" ({suspended} in suspended environments)" if suspended else ""
        unchanged = sum(change.op is Op.UNCHANGED and not change.held for change in plan.changes)
        return f"Nothing to do: {counted(unchanged, 'object')} as the specs ask for{also}."
    return f"Plan {plan.id}: {counts}."


def counted_changes(changes: Sequence[Change]) -> str:
    """`34 to create, 1 to delete, 2 held`; what is suspended is not counted."""
    numbers = {op: sum(change.op is op and not change.held for change in changes) for op, _ in _SUMMARY}
    held = sum(change.held not in ("", SUSPENDED) for change in changes)
    counts = [f"{numbers[op]} {words}" for op, words in _SUMMARY if numbers[op]]
    return ", ".join([*counts, f"{held} held"] if held else counts)


def done(done: Done, *, width: int, color: bool) -> Iterator[str]:
    """One line as a thing is done; its message below where something went another way than planned."""
    sign, paint = _OUTCOMES[done.outcome]
    yield f"{painted(f'{sign} {done.outcome:<8}', paint, color)} {clean(str(done.change.id))}"
    yield from wrap(clean(done.message), max(width, _NARROWEST), "    ", "    ")


def told(told: Told, *, width: int, color: bool) -> Iterator[str]:
    """A build or a promotion has moved on."""
    yield from wrapped(f"· {clean(told.where)}: {clean(told.message)}", "", width, CYAN, color=color)


def end(report: Report, *, width: int, color: bool, whole: bool = False) -> Iterator[str]:
    """What a run came to, with problems, so that they are the last thing on the screen. `whole`: as in `problems`."""
    yield ""
    yield from problems(report.problems, width=width, color=color, whole=whole)
    yield from _troubles(report.trouble, width=width, color=color)
    counts = {outcome: sum(one.outcome is outcome for one in report.done) for outcome in Outcome}
    words = ", ".join(f"{number} {outcome}" for outcome, number in counts.items() if number)
    # What is suspended is as the specs ask for.
    held = sum(change.held not in ("", SUSPENDED) for change in report.plan.changes) if report.plan else 0
    words = ", ".join(filter(None, (words, f"{held} held" if held else "")))
    unsettled = report.trouble or held or counts[Outcome.FAILED] or counts[Outcome.BLOCKED] or counts[Outcome.WAITING]
    sentences = []
    if words:
        sentences.append(f"Done: {words}.")
    elif not report.trouble and not report.problems:
        sentences.append("Done: nothing was left to do.")
    if report.overdue:
        sentences.append("The time to wait is over, and not everything is ready.")
    if unsettled or any(problem.severity == "error" for problem in report.problems):
        sentences.append("Not everything is as the specs ask for; the next run goes on from here.")
    for sentence in sentences:
        yield from wrap(sentence, max(width, _NARROWEST), "", "  ")


def clean(text: str) -> str:
    """Text that a terminal shows and does not obey: control characters are escaped, bidirectional ones too."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _change(change: Change, mark: str, *, width: int, color: bool) -> Iterator[str]:
    sign, paint = _SIGNS[change.op]
    kind, name = f"{sign} {change.id.kind}", clean(change.id.name) + (f" ({mark})" if mark else "")
    if 5 + width_of(kind) + width_of(name) <= max(width, _NARROWEST):
        yield f"    {painted(kind, paint, color)} {name}"
    else:  # a name is one word, and there to be copied
        yield f"    {painted(kind, paint, color)}"
        yield f"      {name}"
    for words in _remarks(change):
        yield from wrapped(words, "        ", width, DIM, color=color)
    for line in moves(change):
        yield from wrap(clean(line), max(width, _NARROWEST), " " * 8, " " * 10)
    for field in shown_fields(change):
        yield from _field(field, width=max(width, _NARROWEST), color=color)


def _remarks(change: Change) -> Iterator[str]:
    if change.supersedes is not None:
        yield f"in place of {clean(beside(change.supersedes, change))}"
    if change.superseded_by is not None:
        yield f"when {clean(beside(change.superseded_by, change))} has taken over"
    if change.reason:
        yield clean(change.reason)


def beside(other: ObjectId, change: Change) -> str:
    """What another object is called where the change is told: where they have one name, with its namespace."""
    return f"{other.namespace}/{other.name}" if other.name == change.id.name else other.name


def _field(field: FieldChange, *, width: int, color: bool) -> Iterator[str]:
    old, new = values(field)
    path = clean(field.path)
    if old is None:
        words = f"{new} (new)"
    elif new is None:
        words = f"{old} (removed)"
    else:
        words = f"{old} -> {new}"
    if width_of(f"{path}: {words}") + 8 <= width:
        yield f"        {path}: {words}"
        return
    *lines, last = wrap(f"{path}:", width, " " * 8, " " * 10)
    yield from lines
    if width_of(words) + 11 <= width:
        # Beside the end of a path that takes several lines, or below one that takes a whole one.
        beside = width_of(last) + width_of(words) + 1 <= width
        yield from [f"{last} {words}"] if beside else [last, f"{' ' * 10}{words}"]
        return
    yield last
    if old is not None:
        yield from wrapped(f"- {old}", "          ", width, RED, color=color)
    if new is not None:
        yield from wrapped(f"+ {new}", "          ", width, GREEN, color=color)


def values(field: FieldChange) -> tuple[str | None, str | None]:
    """The old and the new value, each on one line, clean; of long ones, a part with what differs. None is absent."""
    old, new = (None if value is None else _one_line(value) for value in field[1:])
    return shortened(old, new, _VALUE_LIMIT)


def _one_line(value: Any) -> str:
    is_text = isinstance(value, str) and value
    return clean(value if is_text else json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _by_environment(changes: Iterable[Change], plan: Plan) -> Iterator[tuple[str, list[Change]]]:
    """Environments with something to show. Notes alone do not make one: they are about what is there already."""
    groups = {name: list(theirs) for name, theirs in groupby(changes, key=lambda change: change.environment)}
    for guard in plan.guards:
        groups.setdefault(guard.environment, [])
    yield from groups.items()


_UNWANTED = "asked for by no spec any more"


def _by_spec(changes: Sequence[Change], unwanted: str) -> Iterator[tuple[str, list[Change]]]:
    """In order of first appearance: each spec with its objects, then what no spec asks for."""
    groups: dict[str, list[Change]] = {}
    for change in changes:
        origin = change.origin
        title = f"{origin.kind} {origin.name}  {origin}" if origin is not None else unwanted
        groups.setdefault(clean(title), []).append(change)
    yield from groups.items()


def _guard(guard: Guard, mark: str, base: Base | None, *, width: int, color: bool) -> Iterator[str]:
    words = f"! {f'{mark}: ' if mark else ''}{clean(guard.message)}."
    yield from wrapped(words, "  ", width, RED, color=color)
    if command := approval(guard, base):
        lead = "    If that is meant:"
        # Unbroken: it is there to be copied.
        fits = width_of(lead) + width_of(command) + 1 <= max(width, _NARROWEST)
        yield from (
            painted(line, RED, color) for line in ([f"{lead} {command}"] if fits else [lead, f"      {command}"])
        )
        if base is not None:
            yield from wrapped(ASKED_AGAIN, "    ", width, DIM, color=color)


def _base(base: Base, *, width: int, color: bool) -> Iterator[str]:
    against = f"{base.ref} at {base.commit[:12]}" if base.commit else "how the files were in the beginning"
    words = f"Compared with {against}: {differing(base)}."
    yield from wrapped(clean(words), "", width, BOLD, color=color)
    if base.problems:
        words = f"The base has {counted(len(base.problems), 'error')}; what is broken there counts as absent:"
        yield from wrapped(words, "", width, YELLOW, color=color)
    for problem in base.problems:
        where = f"{problem.file}:{problem.line}:{problem.column}"
        yield from wrapped(clean(f"{where}: {problem.message}"), "  ", width, DIM, color=color)


def _effects(effects: Sequence[Effect], *, width: int, color: bool) -> Iterator[str]:
    if not effects:
        yield from wrapped("No model, environment or automation is changed.", "", width, 0, color=color)
    for environments, models in by_importance(effects):
        yield ""
        yield from wrapped(clean(listed(environments)) or "in general", "", width, BOLD, color=color)
        for names, theirs in models:
            yield from wrap(clean(listed(names)), max(width, _NARROWEST), "  ", "    ")
            for effect in theirs:
                sign, paint = _TOPICS.get(effect.topic, ("·", 0))
                indent = "    " if any(names) else "  "
                yield from wrapped(f"{sign} {clean(effect.text)}", indent, width, paint, color=color)


def _troubles(troubles: Sequence[Trouble], *, width: int, color: bool) -> Iterator[str]:
    for trouble in troubles:
        yield from wrapped(f"! {clean(trouble.where)}: {clean(trouble.message)}", "", width, RED, color=color)


def wrapped(text: str, indent: str, width: int, paint: int, *, color: bool) -> Iterator[str]:
    """Lines of at most `width` columns; what does not fit goes two columns deeper. `paint`: an ANSI SGR code."""
    yield from (painted(line, paint, color) for line in wrap(text, max(width, _NARROWEST), indent, f"{indent}  "))


def counted(number: int, noun: str) -> str:
    """`3 objects`, `1 object`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def painted(text: str, code: int, color: bool) -> str:
    """The text in a colour (an ANSI SGR code; 0: as it is), where colours are wanted."""
    return f"\x1b[{code}m{text}\x1b[0m" if color and code else text
