"""What is printed of a report, in every form: for a pull request, a run, and a change that changes nothing.

After a change that is meant: `pytest tests/golden --update`, and read the diff.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.report import Report, junit, machine, markdown, sarif, text, workflow
from reconciler.report.places import Places
from tests.sample_report import of_a_pull_request, of_a_run, of_nothing

FOLDER = Path(__file__).parent / "outputs"
PLACES = Places("/work/ml", "/work/ml")
REPORTS = {"pull-request": of_a_pull_request, "run": of_a_run, "nothing": of_nothing}


def in_columns(width: int) -> Callable[[Report], str]:
    return lambda report: "".join(f"{line}\n" for line in text.report(report, width=width, color=False))


FORMS: dict[str, Callable[[Report], str]] = {
    "80.txt": in_columns(80),
    "40.txt": in_columns(40),
    "json": lambda report: machine.report(report, "json"),
    "yaml": lambda report: machine.report(report, "yaml"),
    "md": lambda report: markdown.report(report, command="reconcile --dry-run --base main"),
    "github.txt": lambda report: "".join(f"{line}\n" for line in workflow.report(report, PLACES, summarised=True)),
    "sarif": lambda report: sarif.report(report, PLACES, version="1.2.3"),
    "xml": junit.report,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", REPORTS)
def test_a_report_is_printed_as_expected(name: str, form: str, update: bool) -> None:
    printed = FORMS[form](REPORTS[name]())
    expected = FOLDER / f"{name}.{form}"
    if update:
        expected.write_text(printed, encoding="utf-8")
    assert printed == expected.read_text(encoding="utf-8")
