"""The overview page as a browser gets it.

After a change that is meant: `pytest tests/golden --update`, and look at it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.telling import page
from reconciler.telling.page import Asked
from tests.sample_standing import NOW, a_sample

FOLDER = Path(__file__).parent / "pages"


@pytest.mark.parametrize(("name", "asked"), [("overview", Asked()), ("churn", Asked("churn"))])
def test_the_page_is_as_expected(name: str, asked: Asked, update: bool, tmp_path: Path) -> None:
    shown = page.render(*a_sample(tmp_path), NOW, asked)
    expected = FOLDER / f"{name}.html"
    if update:
        FOLDER.mkdir(exist_ok=True)
        expected.write_bytes(shown)
    assert shown == expected.read_bytes()
