"""The termination message: JSON that fits, whatever was said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.exits import LIMIT, Exit, Failure, report, termination_message

#: Surrogates, as in file names that are no UTF-8, and characters of four bytes.
ANY_TEXT = st.text(st.characters(), max_size=3000)


@given(ANY_TEXT, st.integers(1, 4))
def test_an_error_always_fits_and_keeps_step_and_reason(text: str, times: int) -> None:
    message = termination_message(Failure("tests", text * times, Exit.ARTIFACT).result(build_id="a" * 64))
    assert len(message.encode()) <= LIMIT
    told = json.loads(message)
    assert (told["error"]["step"], told["error"]["reason"]) == ("tests", "ArtifactFailed")
    assert told["build_id"] == "a" * 64


@given(st.dictionaries(ANY_TEXT, st.floats(allow_nan=False, allow_infinity=False), max_size=200))
def test_metrics_always_fit_and_those_left_out_are_counted(metrics: dict[str, float]) -> None:
    message = termination_message({"build_id": "a" * 64, "record": "builds/x/record.json", "metrics": metrics})
    assert len(message.encode()) <= LIMIT
    told = json.loads(message)
    assert len(told["metrics"]) + told.get("metrics_left_out", 0) == len(metrics)


def test_a_long_error_keeps_its_beginning_and_its_end() -> None:
    told = json.loads(termination_message(Failure("build", f"what failed{'.' * 9000}and why", Exit.MODEL).result()))
    assert told["error"]["message"].startswith("what failed")
    assert told["error"]["message"].endswith("and why")
    assert " [...] " in told["error"]["message"]


def test_what_fits_is_not_touched() -> None:
    result: dict[str, Any] = {"metrics": {"auc": 0.1, "größe": 2.0}, "tests": None}
    assert json.loads(termination_message(result)) == result


def test_a_place_that_cannot_be_written_is_told_and_does_not_fail_the_build(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report({"build_id": "x"}, tmp_path / "nowhere" / "result")
    assert "cannot be written" in capsys.readouterr().err


def test_a_failure_has_the_reason_of_its_code_unless_it_has_its_own() -> None:
    assert Failure("fetch", "x", Exit.CODE).reason == "CodeNotFetched"
    assert Failure("build", "x", Exit.MODEL, "OutOfMemory").reason == "OutOfMemory"
