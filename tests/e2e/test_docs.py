"""The tutorial from its first command to its last, with the command as people get it and the embedded data plane."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.client import KUBECTL
from tests.docs.pages import TUTORIAL, Reader, blocks
from tests.e2e.harness import processes_with


@pytest.mark.timeout(400)
def test_somebody_who_follows_the_tutorial_gets_what_it_shows(installed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "place"
    folder.mkdir()
    reader = Reader(folder, tmp_path, installed)
    reader.environment["PATH"] += f":{Path(KUBECTL).parent}"
    try:
        for block in blocks(TUTORIAL):
            reader.do(block)
    finally:
        reader.shell("reconcile down")
    assert processes_with(str(folder)) == []
