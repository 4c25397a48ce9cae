"""`python -m runtime.steps.check CODE FOLDER ANSWER`: runs the model's own tests with pytest.

The answer has pytest's exit `status`, how many tests `passed`, `failed` and were `skipped`, and the first `failures`.
"""

from __future__ import annotations

import configparser
import os
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from runtime.steps.step import run

#: An error message names no more of them.
_FAILURES = 10


class _Counts:
    """A plugin of pytest's that counts."""

    def __init__(self) -> None:
        self.passed = self.failed = self.skipped = 0
        self.failures: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:  # in its setup and its teardown, too
            self._fail(report)
        elif report.skipped:
            self.skipped += 1
        elif report.when == "call":
            self.passed += 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._fail(report)

    def _fail(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        self.failed += 1
        if len(self.failures) < _FAILURES:
            self.failures.append(f"{report.nodeid}: {_last_line(report)}")


def _last_line(report: pytest.TestReport | pytest.CollectReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line: str = (lines[0] if crash is not None else lines[-1]) if lines else ""
    return line[:300]


def check(arguments: list[str]) -> dict[str, Any]:
    """Raises nothing: a test that fails is an answer."""
    code, home = Path(arguments[0]), Path(arguments[0], arguments[1])
    os.chdir(home)
    # As when the model was built: its own folder first, then the repository's.
    sys.path[:0] = [str(home), *([str(code)] if home != code else [])]
    counts = _Counts()
    status = pytest.main(
        [
            "tests",
            "-q",
            "--color=no",
            "-p",
            "no:cacheprovider",
            f"--rootdir={home}",
            f"--confcutdir={code}",
            # Nothing above the code is the model's: pytest would look there, too.
            f"--config-file={_configuration(home)}",
        ],
        plugins=[counts],
    )
    return {"status": int(status), **vars(counts)}


def _configuration(home: Path) -> Path:
    """The file of the model's folder that configures pytest, or none."""
    for name in ("pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg"):
        if (home / name).is_file() and _configures(home / name):
            return home / name
    return Path(os.devnull)


def _configures(path: Path) -> bool:
    if path.suffix == ".toml":
        return "pytest" in tomllib.loads(path.read_text("utf-8")).get("tool", {})
    parser = configparser.RawConfigParser()
    parser.read(path, "utf-8")
    return parser.has_section("tool:pytest" if path.suffix == ".cfg" else "pytest")


if __name__ == "__main__":
    sys.exit(run(check))
