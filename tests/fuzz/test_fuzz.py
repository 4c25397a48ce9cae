"""Every fuzz target for a while, and whatever broke one before."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable

import pytest

from tests.fuzz import campaign
from tests.fuzz.targets.target import CORPUS, NAMES

#: For each target. Longer campaigns are for a night: `python -m tests.fuzz --seconds 3600`.
SECONDS = 60 if os.environ.get("TRUEUP_TEST_FULL") else 2


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("target", NAMES)
def test_a_target_takes_whatever_strangers_write(target: str, record_property: Callable[[str, object], None]) -> None:
    outcome = campaign.run(target, SECONDS, campaign.engine())
    record_property("fuzzing", str(outcome).splitlines()[0])
    assert outcome.broken_by is None, f"\n{outcome}"
    assert outcome.executions > SECONDS  # more than nothing, on a machine that has other things to do


@pytest.mark.parametrize("engine", sorted({campaign.engine(), "hypothesis"}))
def test_what_breaks_a_target_is_told_with_its_bytes_and_its_traceback(engine: str) -> None:
    outcome = campaign.run("planted", 60, engine)
    assert outcome.broken_by is not None
    assert outcome.broken_by.startswith(b"tru")
    assert 'raise RuntimeError("planted")' in outcome.why
    assert base64.b64encode(outcome.broken_by).decode() in str(outcome)
    assert "RuntimeError: planted" in campaign.replay("planted", outcome.broken_by)
    assert campaign.replay("planted", b"fine") == ""


def test_the_corpus_belongs_to_targets() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= set(NAMES)
    assert all(path.stat().st_size <= 10_000 for path in CORPUS.glob("*/*")), "seeds are small"
