"""A report as JUnit XML, which every CI system shows: a suite for each file of specs, a test case for each spec. Pure.

There is no one standard. This is what Jenkins (junit-10.xsd), Maven Surefire (surefire-test-report.xsd) and GitLab all
read. GitLab and Jenkins look at one failure of a test case, so all problems of a spec are in one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

from reconciler.plan import NEVER_LIFTED, Change, Op
from reconciler.report import Outcome, Report, Topic
from reconciler.report.text import approval, clean, counted, most_important_first
from renderers.manifest import Origin
from schemas.problem import Problem

_WHOLE_FILE = "the whole file"
_NO_SPEC = "asked for by no spec any more"


@dataclass(slots=True)
class _Case:
    """What became of one spec. Of failures and errors, the first is the title."""

    failures: list[tuple[str, str]] = field(default_factory=list)  #: (rule, sentence)
    errors: list[tuple[str, str]] = field(default_factory=list)
    skipped: str = ""
    told: list[str] = field(default_factory=list)


#: Name -> its cases by their names, both in order of appearance.
_Suites = dict[str, dict[str, _Case]]


def report(report: Report) -> str:
    """The document."""
    suites: _Suites = {}
    _add_specs(suites, report)
    _add_effects(suites, report)
    if report.plan is not None and not report.plan.offline:
        _add_objects(suites, report)
    for trouble in report.trouble:
        case = suites.setdefault("clusters", {}).setdefault(trouble.where, _Case())
        case.errors.append(("trouble", trouble.message))
    root = ElementTree.Element("testsuites")
    root.extend(_suite(name, cases) for name, cases in suites.items())
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


# -- specs ----------------------------------------------------------------------------------------------------------


def _add_specs(suites: _Suites, report: Report) -> None:
    """A suite for each file, in order of name, with a case for each spec that is valid or has problems."""
    planned = (change.origin for change in report.plan.changes if change.origin) if report.plan else ()
    origins = sorted({*report.specs, *planned})
    by_file: dict[str, list[Origin]] = {}
    for origin in origins:
        by_file.setdefault(origin.file, []).append(origin)
    for name in sorted({*by_file, *(problem.file for problem in report.problems)}):
        suites[name] = {_title(origin): _Case() for origin in by_file.get(name, ())}
    for problem in report.problems:
        case = suites[problem.file].setdefault(_spec(problem, by_file.get(problem.file, ())), _Case())
        if problem.severity == "error":
            case.failures.append((problem.rule, str(problem)))
        else:
            case.told.append(f"{problem.severity}: {problem} [{problem.rule}]")


def _title(origin: Origin) -> str:
    return f"{origin.kind} {origin.name}"


def _spec(problem: Problem, origins: Iterable[Origin]) -> str:
    """Which spec it is about. A file may hold several documents, so the last one before the problem is meant."""
    path = problem.path
    around = [one for one in origins if one.path and path[: len(one.path)] == one.path and one.line <= problem.line]
    if around:
        return _title(max(around, key=lambda origin: origin.line))
    return f"{path[1]}[{path[2]}]" if len(path) > 2 else _WHOLE_FILE


# -- what changes --------------------------------------------------------------------------------------------------


def _add_effects(suites: _Suites, report: Report) -> None:
    """In the suite of each environment, a case for each model of which something is told. It passes, unless that is
    that nobody can say what becomes of it.
    """
    for effect in most_important_first(report.effects):
        suite = suites.setdefault(_environment(effect.environment), {})
        case = suite.setdefault(f"model {effect.model}" if effect.model else "in general", _Case())
        case.told.append(f"{effect.topic}: {effect.text}")
        if effect.topic is Topic.UNREAD:
            case.skipped = effect.text


# -- objects --------------------------------------------------------------------------------------------------------


def _add_objects(suites: _Suites, report: Report) -> None:
    """A suite for each environment, with a case for each spec that asks for something in it, and for each limit."""
    assert report.plan is not None
    for change in report.plan.changes:
        _add_change(_case(suites, change), change)
    for done in report.done:
        case, words = _case(suites, done.change), f"{done.change.id}: {done.message}"
        if done.outcome is Outcome.FAILED:
            (case.errors if done.infrastructure else case.failures).append((done.outcome, words))
        elif done.outcome is Outcome.BLOCKED:
            case.failures.append((done.outcome, words))
        elif done.outcome is Outcome.WAITING:
            case.told.append(f"{done.outcome}: {words}")
    for guard in report.plan.guards:
        case = suites.setdefault(_environment(guard.environment), {}).setdefault(f"limit {guard.rule}", _Case())
        command = approval(guard, report.base)
        approve = f" If that is meant: {command}" if command else ""
        never = " No approval lifts it." if guard.rule in NEVER_LIFTED else ""
        case.failures.append((guard.rule, f"{guard.message}.{approve}{never}"))


def _environment(name: str) -> str:
    return f"environment {name}" if name else "all environments"


def _case(suites: _Suites, change: Change) -> _Case:
    title = _title(change.origin) if change.origin else _NO_SPEC
    return suites.setdefault(_environment(change.environment), {}).setdefault(title, _Case())


def _add_change(case: _Case, change: Change) -> None:
    if change.op in (Op.REFUSED, Op.CONFLICT):
        failed = case.errors if change.infrastructure else case.failures
        failed.append((change.op, f"{change.id}: {change.reason}"))
    elif change.held:
        case.skipped = case.skipped or change.held
    if change.op is not Op.UNCHANGED:
        case.told.append(f"{change.op}: {change.id}{f' (held: {change.held})' if change.held else ''}")


# -- XML ------------------------------------------------------------------------------------------------------------


def _suite(name: str, cases: dict[str, _Case]) -> ElementTree.Element:
    counts = {
        "tests": len(cases),
        "failures": sum(bool(case.failures) and not case.errors for case in cases.values()),
        "errors": sum(bool(case.errors) for case in cases.values()),
        "skipped": sum(_is_skipped(case) for case in cases.values()),
    }
    suite = ElementTree.Element(
        "testsuite", {"name": clean(name), **{key: str(number) for key, number in counts.items()}, "time": "0"}
    )
    # Jenkins takes what is behind the last dot for a class, and what is before it for a package.
    group = name.removesuffix(".yaml").removesuffix(".yml").replace(".", "_")
    suite.extend(_element(title, group, case) for title, case in cases.items())
    return suite


def _is_skipped(case: _Case) -> bool:
    return bool(case.skipped) and not case.failures and not case.errors


def _element(title: str, group: str, case: _Case) -> ElementTree.Element:
    element = ElementTree.Element("testcase", {"name": clean(title), "classname": clean(group), "time": "0"})
    if case.errors:
        element.append(_outcome("error", [*case.errors, *case.failures]))
    elif case.failures:
        element.append(_outcome("failure", case.failures))
    elif case.skipped:
        element.append(ElementTree.Element("skipped", {"message": clean(case.skipped)}))
    if case.told:
        ElementTree.SubElement(element, "system-out").text = "\n".join(map(clean, case.told))
    return element


def _outcome(tag: str, all_of_it: Sequence[tuple[str, str]]) -> ElementTree.Element:
    rule, first = all_of_it[0]
    more = f" (and {counted(len(all_of_it) - 1, 'more problem')})" if len(all_of_it) > 1 else ""
    element = ElementTree.Element(tag, {"message": clean(f"{first}{more}"), "type": clean(rule)})
    element.text = "\n".join(_lines(all_of_it))
    return element


def _lines(all_of_it: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield from (f"{clean(words)} [{clean(rule)}]" for rule, words in all_of_it)
