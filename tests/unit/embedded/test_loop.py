"""The loop of controllers."""

from __future__ import annotations

import pytest

from embedded.loop import retry_seconds


@pytest.mark.parametrize(("failures", "seconds"), [(1, 0.4), (2, 0.8), (7, 25.6), (8, 30.0), (100_000, 30.0)])
def test_a_look_that_fails_is_repeated_more_and_more_rarely_and_for_ever(failures: int, seconds: float) -> None:
    assert retry_seconds(failures) == seconds
