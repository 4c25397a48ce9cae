"""What specs become, to be read: each folder in cases/ has specs.yaml, and expected/ with a file for each unit.

What is known beside the specs, of Git and of the records, is in files beside them (`harness.facts_of`).
After a change that is meant: `pytest tests/golden --update`, and read the diff.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from renderers.catalog import Catalog, Facts, units
from tests.golden.harness import facts_of, load, rendered

FOLDER = Path(__file__).parent
CASES = sorted(path.name for path in (FOLDER / "cases").iterdir())
EXAMPLES = sorted((FOLDER.parents[1] / "examples" / "specs").rglob("*.yaml"))


def made(catalog: Catalog, facts: Facts) -> dict[str, str]:
    """File name -> text, for every unit: `production.yaml`, `production.churn.yaml`."""
    return {
        f"{'.'.join(filter(None, (unit.environment.spec.name, unit.model)))}.yaml": rendered(unit, facts)
        for unit in units(catalog, facts)
    }


def compare(texts: dict[str, str], expected: Path, *, update: bool) -> None:
    if update:
        expected.mkdir(exist_ok=True)
        for stale in expected.glob("*.yaml"):
            stale.unlink()
        for name, text in texts.items():
            (expected / name).write_text(text, encoding="utf-8")
    assert {path.name: path.read_text(encoding="utf-8") for path in expected.glob("*.yaml")} == texts


@pytest.mark.parametrize("case", [case for case in CASES if case != "examples"])
def test_a_case_renders_as_expected(case: str, update: bool) -> None:
    folder = FOLDER / "cases" / case
    catalog = load([folder / "specs.yaml"])

    compare(made(catalog, facts_of(folder, catalog)), folder / "expected", update=update)


def test_the_examples_render_as_expected(update: bool) -> None:
    compare(made(load(EXAMPLES), Facts()), FOLDER / "cases" / "examples" / "expected", update=update)


def test_rendering_again_gives_the_same_bytes() -> None:
    assert made(load(EXAMPLES), Facts()) == made(load(EXAMPLES), Facts())


def test_a_spec_that_moves_in_its_file_changes_no_manifest(tmp_path: Path) -> None:
    specs = (FOLDER / "cases" / "production" / "specs.yaml").read_text(encoding="utf-8")
    moved = tmp_path / "moved.yaml"
    moved.write_text("# A comment\n\n" + specs, encoding="utf-8")

    def manifests(path: Path) -> dict[str, str]:
        texts = made(load([path]), Facts()).items()
        return {name: "".join(line for line in text.splitlines(True) if line[0] != "#") for name, text in texts}

    assert manifests(moved) == manifests(FOLDER / "cases" / "production" / "specs.yaml")
