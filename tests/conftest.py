"""What generated examples may cost, and how wide what is printed is, everywhere."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

FULL = bool(os.environ.get("TRUEUP_TEST_FULL"))

# Workers of xdist are told the size of a terminal. What is printed is to be the same with and without them.
for size in ("COLUMNS", "LINES"):
    os.environ.pop(size, None)

# A machine that others use too is slow for a moment, and that is no fault of an example: none has a deadline of its
# own. `timeout` in pyproject.toml ends a test that hangs.
settings.register_profile(
    "ordinary", deadline=None, max_examples=100 if FULL else 40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ordinary")


def examples(count: int) -> int:
    """How many are drawn where `count` would be thorough: that many in full, a fifth of them ordinarily."""
    return count if FULL else max(count // 5, 20)
