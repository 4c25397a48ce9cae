"""A report as the log of a GitHub workflow: annotations on the lines of the specs, and the plan for who opens the log.

A line of a log is a command where it begins with `::` after spaces, or has `##[` anywhere (actions/runner,
ActionCommand.cs). No text of a spec gets to be one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from reconciler.plan import Op
from reconciler.report import Effect, Outcome, Report, text
from reconciler.report.places import Places
from reconciler.report.text import clean, counted
from renderers.manifest import Origin
from schemas.problem import Problem

#: Of each kind, GitHub makes so many lines of one step into annotations (and 50 of all steps of a job).
#: https://github.com/actions/toolkit/blob/main/docs/problem-matchers.md#limitations
SHOWN = 10
#: The runner cuts a message at 4,096 characters (`_maxIssueMessageLength`), the Checks API a title at 255.
_LONGEST_MESSAGE, _LONGEST_TITLE = 4_000, 250
_KINDS = {"error": "error", "warning": "warning", "notice": "effect"}


@dataclass(frozen=True, slots=True)
class Annotation:
    """What is shown at a line of a file, or of the whole run where `file` is ""."""

    kind: str  #: "error", "warning" or "notice"
    title: str
    message: str
    file: str = ""
    line: int = 0
    column: int = 0

    def command(self, places: Places) -> str:
        """The workflow command: `::error file=specs/a.yaml,line=3,endLine=3,col=7,title=schema/type::...`"""
        file = places.relative(self.file)
        properties = {}
        if file is not None:
            properties["file"] = file
            if self.line > 0:
                properties |= {"line": str(self.line), "endLine": str(self.line)}
                properties |= {"col": str(self.column)} if self.column > 0 else {}
        properties["title"] = _cut(self.title, _LONGEST_TITLE)
        # What is no file of the repository is still told.
        message = self.message if file is not None or not self.file else f"{self.file}:{self.line}: {self.message}"
        listed = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
        return f"::{self.kind} {listed}::{_data(_cut(message, _LONGEST_MESSAGE))}"

    def line_of_log(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: " if self.file else ""
        return guarded(f"{where}{self.kind}: {self.title}: {self.message}")


def report(report: Report, places: Places, *, summarised: bool) -> Iterator[str]:
    """The lines. `summarised`: the plan is in the job's summary, and the log says so."""
    annotations = list(_annotations(report))
    if any((report.plan, report.base, report.told)):
        yield "::group::Plan"
        yield from map(guarded, text.report(report, width=100, color=False, whole=True))
        yield "::endgroup::"
    by_kind = {kind: [one for one in annotations if one.kind == kind] for kind in _KINDS}
    for theirs in by_kind.values():
        yield from (annotation.command(places) for annotation in theirs[:SHOWN])
    more = {kind: theirs[SHOWN:] for kind, theirs in by_kind.items() if theirs[SHOWN:]}
    if more:
        yield "::group::Not shown as annotations"
        for theirs in more.values():
            yield from (annotation.line_of_log() for annotation in theirs)
        yield "::endgroup::"
    yield _last_line(report, by_kind, more, summarised=summarised)


def guarded(line: str) -> str:
    """A line of a log that the runner takes for no command."""
    harmless = clean(line).replace("##[", "# #[")
    return f"\u00b7 {harmless}" if harmless.lstrip().startswith("::") else harmless


def _annotations(report: Report) -> Iterator[Annotation]:
    """The most important of each kind first."""
    errors = [problem for problem in report.problems if problem.severity == "error"]
    yield from map(_problem, errors)
    for trouble in report.trouble:
        yield Annotation("error", clean(trouble.where), trouble.message)
    for change in report.plan.changes if report.plan else ():
        if change.op in (Op.REFUSED, Op.CONFLICT):
            title = f"{change.environment}: {change.op} {change.id}"
            yield _at(change.origin, "error", title, change.reason)
    for done in report.done:
        if done.outcome in (Outcome.FAILED, Outcome.BLOCKED):
            kind = "error" if done.outcome is Outcome.FAILED else "warning"
            title = f"{done.change.environment}: {done.outcome} {done.change.id}"
            yield _at(done.change.origin, kind, title, done.message)
    for guard in report.plan.guards if report.plan else ():
        command = text.approval(guard, report.base)
        approve = f" If that is meant: {command}" if command else ""
        again = f"\n{text.ASKED_AGAIN}" if command and report.base is not None else ""
        yield Annotation("error", f"{guard.environment}: {guard.rule}", f"{guard.message}.{approve}{again}")
    yield from map(_problem, [problem for problem in report.problems if problem.severity != "error"])
    yield from _effects(report.effects)


def _problem(problem: Problem) -> Annotation:
    hint = f"\nTry: {problem.hint}" if problem.hint else ""
    kind = "error" if problem.severity == "error" else "warning"
    return Annotation(kind, problem.rule, f"{problem.message}{hint}", problem.file, problem.line, problem.column)


def _effects(effects: Iterable[Effect]) -> Iterator[Annotation]:
    """What is told of several environments or models at one place takes one of the few annotations."""
    alike: dict[tuple[Origin | None, str], list[Effect]] = {}
    for effect in text.most_important_first(effects):
        alike.setdefault((effect.origin, effect.text), []).append(effect)
    for (origin, words), theirs in alike.items():
        about = [": ".join(filter(None, (effect.environment, effect.model))) for effect in theirs]
        yield _at(origin, "notice", text.listed([one or "all environments" for one in about]), words)


def _at(origin: Origin | None, kind: str, title: str, message: str) -> Annotation:
    if origin is None:
        return Annotation(kind, title, message)
    return Annotation(kind, title, message, origin.file, origin.line, origin.column)


def _last_line(
    report: Report, by_kind: dict[str, list[Annotation]], more: dict[str, list[Annotation]], *, summarised: bool
) -> str:
    counts = [counted(len(theirs), _KINDS[kind]) for kind, theirs in by_kind.items() if theirs]
    fine = "the specs are valid" if report.plan is None and report.base is None else "nothing to tell"
    line = f"Trueup: {', '.join(counts) or fine}"
    if report.plan is not None:
        line += f". {text.headline(report.plan)}"[:-1]
    if more:
        cut = ", ".join(f"{counted(len(theirs), _KINDS[kind])}" for kind, theirs in more.items())
        line += f". GitHub shows {SHOWN} annotations of a kind for one step; above, and not among them: {cut}"
    if summarised:
        line += ". The job's summary has all of it"
    return guarded(f"{line}.")


def _cut(message: str, longest: int) -> str:
    return message if len(message) <= longest else f"{message[: longest - 1]}\u2026"


def _data(message: str) -> str:
    """Lines stay lines; whatever else a terminal would obey is shown."""
    lines = [clean(line) for line in message.split("\n")]
    return "%0A".join(line.replace("%", "%25") for line in lines)


def _property(value: str) -> str:
    escaped = clean(value).replace("%", "%25")
    return escaped.replace(":", "%3A").replace(",", "%2C")
