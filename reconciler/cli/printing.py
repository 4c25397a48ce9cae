"""A report, in the form that was asked for, and where a CI system looks for it."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.cli.common import Format, colors, columns, piped, write, write_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.report import Report
    from reconciler.report.places import Places


def print_report(report: Report, output: Format, *, detailed: bool) -> None:
    """A preview."""
    from reconciler.report import text

    if output is Format.TEXT:
        write_lines(text.report(report, width=columns(), color=colors(sys.stdout), whole=piped(sys.stdout)))
    else:
        _print_document(report, output, detailed=detailed)


def print_end(report: Report, output: Format, *, detailed: bool) -> None:
    """A run, of which people have seen all but the end."""
    from reconciler.report import text

    if output is Format.TEXT:
        write_lines(text.end(report, width=columns(), color=colors(sys.stdout), whole=piped(sys.stdout)))
    else:
        _print_document(report, output, detailed=detailed)


def print_problems(report: Report, output: Format) -> None:
    """What `validate` finds."""
    from reconciler.report import text

    if output is Format.TEXT:
        write_lines(text.problems(report.problems, width=columns(), color=colors(sys.stdout), whole=piped(sys.stdout)))
        write_lines([text.verdict(report.problems, len(report.specs))])
    else:
        _print_document(report, output)


def command_for_all(arguments: Sequence[str]) -> str:
    """The command that shows all of what a command with these arguments does, for somebody who reads a part of it.

    Of its options there are those that say what to read: no other could be secret, or do something.
    """
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name in _SAYS_WHAT:
            kept += [name, value if equals else next(rest, "")]
        elif argument in ("validate", "--dry-run", "--live"):
            kept.append(argument)
    if "validate" not in kept and "--dry-run" not in kept:
        kept[:0] = ["--dry-run", "--live"]
    return shlex.join(["reconcile", *kept])


_SAYS_WHAT = frozenset({"-f", "--file", "-e", "--environment", "--base", "--head"})


def _print_document(report: Report, output: Format, *, detailed: bool = False) -> None:
    """In every form but text, a report is one document. Each form is imported only where it is asked for."""
    if output is Format.MARKDOWN:
        from reconciler.report import markdown

        write(markdown.report(report, command=command_for_all(sys.argv[1:])))
    elif output is Format.GITHUB:
        from reconciler.report import workflow

        summarised = _summarise(report)
        write_lines(workflow.report(report, _places(), summarised=summarised))
    elif output is Format.SARIF:
        from importlib.metadata import version

        from reconciler.report import sarif

        write(sarif.report(report, _places(), version=version("trueup")))
    elif output is Format.JUNIT:
        from reconciler.report import junit

        write(junit.report(report))
    else:
        from reconciler.report import machine

        write(machine.report(report, output.value, detailed=detailed))


def _summarise(report: Report) -> bool:
    """Adds the report to the summary of the GitHub job, where there is one. Whether it is there now."""
    from reconciler.report import markdown

    name = os.environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        return False
    try:
        with Path(name).open("a", encoding="utf-8") as summary:
            # GitHub takes none of a step's summary if all of it together is too long.
            room = markdown.SUMMARY_LIMIT - summary.tell() - 1
            if room < markdown.COMMENT_LIMIT:
                sys.stderr.write("warning: the summary of this step has no room for the plan\n")
                return False
            page = markdown.report(report, command=command_for_all(sys.argv[1:]), limit=room)
            summary.write(page if summary.tell() == 0 else f"\n{page}")
    except OSError as error:
        sys.stderr.write(f"warning: GITHUB_STEP_SUMMARY cannot be written: {error.strerror}\n")
        return False
    return True


def _places() -> Places:
    """This folder, and the repository that it is in; without one, what GitHub calls the workspace."""
    from reconciler.report.places import Places

    here = Path.cwd()
    repository = next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), None)
    workspace = os.environ.get("GITHUB_WORKSPACE")
    root = repository or (Path(workspace).resolve() if workspace else here)
    return Places(str(here), str(root))
