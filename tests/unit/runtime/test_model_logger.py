"""The logger that model code imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
from runtime.model.tools.logger import get_qwak_logger
get_qwak_logger().debug("fine print")
get_qwak_logger("trees").info("200 of them")
"""


@pytest.mark.parametrize(
    ("level", "told"),
    [
        ("", ["INFO trees: 200 of them"]),
        ("debug", ["DEBUG model: fine print", "INFO trees: 200 of them"]),
        ("nonsense", ["INFO trees: 200 of them"]),
    ],
)
def test_it_speaks_without_being_set_up_from_the_level_that_the_environment_names(level: str, told: list[str]) -> None:
    run = subprocess.run(
        [sys.executable, "-c", CODE], env={"LOG_LEVEL": level}, capture_output=True, text=True, check=True
    )

    assert [line.split(" ", 2)[2] for line in run.stderr.splitlines()] == told
