"""Tells at the end how far the fuzzers came."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fuzz import campaign, worker


def pytest_report_collectionfinish() -> list[str]:
    return [] if campaign.engine() == "atheris" else [f"fuzzing without coverage: {worker.WITHOUT_ATHERIS}"]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """From the reports, which come from xdist's workers as well."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    told = [
        str(value)
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for key, value in report.user_properties
        if key == "fuzzing"
    ]
    if told:
        terminalreporter.section("fuzzing")
        for line in sorted(told):
            terminalreporter.write_line(line)
