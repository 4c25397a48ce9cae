"""A report as SARIF 2.1.0, for code scanning: what is wrong with the specs, at the lines where it is.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/, and what GitHub makes of it:
https://docs.github.com/en/code-security/reference/code-scanning/sarif-files/sarif-support
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import orjson

from reconciler.plan import Guard, Op
from reconciler.report import Base, ExitCode, Outcome, Report, exit_code, rules
from reconciler.report.places import Places
from reconciler.report.text import approval, clean, counted
from renderers.manifest import Origin
from schemas.problem import Problem

#: GitHub refuses a file with more than 25,000 results, and shows 5,000: here, the errors are among these.
SHOWN = 5_000
#: GitHub cuts descriptions and names of rules.
_LONGEST_DESCRIPTION = 1_000
#: Of the repository: what every path is relative to.
_ROOT = "%SRCROOT%"
#: Not `primaryLocationLineHash`: that one is made by GitHub's upload, which warns of every value that is not its own.
_FINGERPRINT = "trueupProblem/v1"

#: Which command finds the problems of a family, where it is not `reconcile validate`.
_FINDS = {
    "cluster": "reconcile --dry-run --live",
    "policy": "reconcile --dry-run",
    "prune": "reconcile --dry-run --base REF",
    "variation/protected": "reconcile --dry-run --base REF",
    "routing/last-variation": "reconcile --dry-run --base REF",
}


def report(report: Report, places: Places, *, version: str) -> str:
    """The log, with one run. `version`: of this program."""
    problems = sorted(
        [*report.problems, *_of_objects(report), *_of_limits(report)], key=lambda one: (one.severity != "error", one)
    )
    shown = problems[:SHOWN]
    rules = {rule: number for number, rule in enumerate(sorted({problem.rule for problem in shown}))}
    fingerprints = _fingerprints(shown)
    driver = {
        "name": "Trueup",
        "version": version,
        "semanticVersion": version,
        "rules": [_rule(rule, [one for one in shown if one.rule == rule]) for rule in rules],
    }
    run = {
        "tool": {"driver": driver},
        "invocations": [_invocation(report, len(problems) - len(shown))],
        "originalUriBaseIds": {_ROOT: {"description": {"text": "The root of the repository."}}},
        # Columns of problems are counted in characters.
        "columnKind": "unicodeCodePoints",
        "results": [
            _result(problem, rules[problem.rule], fingerprint, places)
            for problem, fingerprint in zip(shown, fingerprints, strict=True)
        ],
    }
    log = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return orjson.dumps(log, option=orjson.OPT_INDENT_2).decode() + "\n"


def _of_objects(report: Report) -> Iterator[Problem]:
    """What a cluster does not take, at the spec that asks for it."""
    for change in report.plan.changes if report.plan else ():
        if change.op in (Op.REFUSED, Op.CONFLICT) and change.origin is not None:
            rule = "cluster/refused" if change.op is Op.REFUSED else "cluster/conflict"
            yield _at(change.origin, rule, f"{change.environment}: {change.id}: {change.reason}")
    for done in report.done:
        if done.outcome is Outcome.FAILED and done.change.origin is not None:
            message = f"{done.change.environment}: {done.change.id}: {done.message}"
            yield _at(done.change.origin, "cluster/failed", message)


def _of_limits(report: Report) -> Iterator[Problem]:
    """What a limit holds, at the first spec that asks for it. GitHub takes no result without a place, so a limit on
    what no spec asks for any more is among the notifications.
    """
    for guard, origin in _limits(report):
        if origin is not None:
            yield _at(origin, guard.rule, _limit(guard, report.base))


def _limits(report: Report) -> Iterator[tuple[Guard, Origin | None]]:
    if report.plan is None:
        return
    for guard in report.plan.guards:
        held = (c for c in report.plan.changes if c.environment == guard.environment and c.held == guard.message)
        yield guard, next((change.origin for change in held if change.origin is not None), None)


def _limit(guard: Guard, base: Base | None) -> str:
    command = approval(guard, base)
    return f"{guard.environment}: {guard.message}.{f' If that is meant: {command}' if command else ''}"


def _at(origin: Origin, rule: str, message: str) -> Problem:
    return Problem(origin.file, origin.line, origin.column, origin.path, rule, message)


def _rule(rule: str, problems: Sequence[Problem]) -> dict[str, Any]:
    family, _, name = rule.partition("/")
    about = rules.about(rule)
    is_error = any(problem.severity == "error" for problem in problems)
    title = f"{family}: {name.replace('-', ' ')}"[:_LONGEST_DESCRIPTION]
    words = (
        f"{about} `{_FINDS.get(rule, _FINDS.get(family, 'reconcile validate'))}` finds it before anything is applied."
    )
    return {
        "id": rule,
        "name": rule,
        "shortDescription": {"text": title},
        "fullDescription": {"text": about.replace("`", "")},
        "help": {"text": words.replace("`", ""), "markdown": words},
        "defaultConfiguration": {"level": "error" if is_error else "warning"},
        "properties": {
            "tags": [family],
            "precision": "very-high",
            "problem.severity": "error" if is_error else "warning",
        },
    }


def _result(problem: Problem, rule: int, fingerprint: str, places: Places) -> dict[str, Any]:
    hint = f" Try: {problem.hint}" if problem.hint else ""
    result: dict[str, Any] = {
        "ruleId": problem.rule,
        "ruleIndex": rule,
        "level": problem.severity,
        "message": {"text": _message(f"{problem.message}{hint}")},
        "partialFingerprints": {_FINGERPRINT: fingerprint},
    }
    if problem.file:
        result["locations"] = [_location(problem, places)]
    return result


def _location(problem: Problem, places: Places) -> dict[str, Any]:
    file = places.relative(problem.file)
    artifact = {"uri": _uri(places.absolute(problem.file))} if file is None else {"uri": _uri(file), "uriBaseId": _ROOT}
    line, column = max(problem.line, 1), max(problem.column, 1)
    # GitHub wants all four.
    region = {"startLine": line, "startColumn": column, "endLine": line, "endColumn": column + 1}
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": artifact, "region": region}}
    if problem.pointer:
        location["logicalLocations"] = [{"fullyQualifiedName": clean(problem.pointer)}]
    return location


def _uri(path: str) -> str:
    # Bytes of a name that are no UTF-8 come as surrogates, and go as they were. Others stand in no name of a file.
    quoted = quote(_LONE.sub("\ufffd", path), errors="surrogateescape")
    return f"file://{quoted}" if path.startswith("/") else quoted


def _invocation(report: Report, left_out: int) -> dict[str, Any]:
    notes = [
        {"level": "error", "message": {"text": _message(f"{trouble.where}: {trouble.message}")}}
        for trouble in report.trouble
    ]
    notes += [
        {"level": "error", "message": {"text": _message(f"{_limit(guard, report.base)} [{guard.rule}]")}}
        for guard, origin in _limits(report)
        if origin is None
    ]
    if left_out:
        words = f"Left out, so that GitHub shows what is here: {counted(left_out, 'result')}."
        notes.append({"level": "warning", "message": {"text": words}})
    code = exit_code(report)
    return {
        "executionSuccessful": not report.trouble,
        "exitCode": int(code),
        "exitCodeDescription": ExitCode(code).name.lower(),
        "toolExecutionNotifications": notes,
    }


def _message(text: str) -> str:
    """Plain text: braces are doubled, for one is a placeholder (3.11.5), and nothing becomes a link (3.11.6)."""
    return clean(text).replace("{", "{{").replace("}", "}}").replace("](", "] (") or "-"


def _fingerprints(problems: Iterable[Problem]) -> Iterator[str]:
    """Of each problem, what stays when lines move and specs change places in their file.

    Those that are alike are numbered.
    """
    seen: Counter[str] = Counter()
    for problem in problems:
        path = "/".join("*" if isinstance(step, int) else step for step in problem.path)
        message = _LINES.sub(r"\1", problem.message)
        identity = "\0".join((problem.file, problem.rule, path, message))
        digest = sha256(identity.encode(errors="surrogatepass")).hexdigest()[:32]
        seen[digest] += 1
        yield f"{digest}:{seen[digest]}"


#: Surrogates that stand for no byte.
_LONE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
#: Places in a message: `on line 7`, `specs/a.yaml:12:3`.
_LINES = re.compile(r"(\bline |:)[0-9]+(?::[0-9]+)?")
