"""What `reconcile import` makes of what users of the reference platform have.

Each case is a folder: `platform/` is read, `specs/` is what is written, and `said.txt` what is told.
After a change that is meant: `pytest tests/golden --update`, and look at it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reconciler.importing import Imported, Options, convert
from reconciler.report import text

CASES = Path(__file__).parent / "import"

#: What the person who imports would say on the command line.
OPTIONS = {
    "automations": Options(
        environment="production", git_uris={"arrival_time": "https://github.com/acme-fleet/models.git"}
    ),
    "deployments": Options(environments={"staging": "test"}),
}


@pytest.mark.parametrize("case", sorted(path.name for path in CASES.iterdir()))
def test_the_import_is_as_expected(case: str, update: bool) -> None:
    folder = CASES / case
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted((folder / "platform").rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    result = convert(files, OPTIONS.get(case, Options()), folder="specs/")
    said = _said(result)
    if update:
        shutil.rmtree(folder / "specs", ignore_errors=True)
        for name, content in result.files.items():
            path = folder / "specs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        (folder / "said.txt").write_text(said, encoding="utf-8")
    expected = {
        path.relative_to(folder / "specs").as_posix(): path.read_text(encoding="utf-8")
        for path in (folder / "specs").rglob("*.yaml")
    }
    assert dict(result.files) == expected
    assert said == (folder / "said.txt").read_text(encoding="utf-8")


def _said(result: Imported) -> str:
    lines = [
        *text.problems((*result.told, *result.problems), width=1000, color=False),
        *(f"secret {secret.name}, key {secret.key}: {secret.place}" for secret in result.secrets),
        f"{dict(result.counts)}, {result.others} others, {'whole' if result.is_whole else 'not whole'}",
    ]
    return "".join(f"{line}\n" for line in lines)
