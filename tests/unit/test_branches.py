"""The look at the branches that are built: that it says that it is alive, however long it pauses."""

from __future__ import annotations

import threading
import time

import pytest

from reconciler.daemon.branches import Branches
from renderers.catalog import Catalog


def test_the_pause_between_two_looks_is_announced_and_does_not_count() -> None:
    beats: list[tuple[str, float]] = []
    branches = Branches(
        catalog=Catalog,
        reader_of=lambda plane: (_ for _ in ()).throw(AssertionError("no cluster is asked")),
        mirrors={},
        interval_s=3600.0,
        hand_on=lambda commits: None,
        heard=lambda failed, seconds: None,
        beat=lambda loop, rest=0.0: beats.append((loop, rest)),
    )
    thread = threading.Thread(target=branches.run)
    thread.start()
    end = time.monotonic() + 10
    while len(beats) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    branches.stop()
    thread.join(10)
    assert beats[0] == ("branches", 0.0)
    assert beats[1][0] == "branches"
    assert 3600 * 0.9 - 1 <= beats[1][1] <= 3600 * 1.1


def test_an_error_of_the_program_does_not_end_the_looking(caplog: pytest.LogCaptureFixture) -> None:
    looks: list[str] = []

    def catalog() -> Catalog:
        looks.append("a look")
        if len(looks) == 1:
            raise LookupError
        return Catalog()

    branches = Branches(
        catalog=catalog,
        reader_of=lambda plane: (_ for _ in ()).throw(AssertionError("no cluster is asked")),
        mirrors={},
        interval_s=3600.0,
        hand_on=lambda commits: None,
        heard=lambda failed, seconds: None,
        beat=lambda loop, rest=0.0: None,
    )
    thread = threading.Thread(target=branches.run)
    thread.start()
    end = time.monotonic() + 10
    while len(looks) < 2 and time.monotonic() < end:
        branches.look_now()
        time.sleep(0.01)
    branches.stop()
    thread.join(10)
    assert len(looks) >= 2
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [LookupError]
