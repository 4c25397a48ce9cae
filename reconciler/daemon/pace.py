"""When to look again: about so often, and not all at one moment."""

from __future__ import annotations

from random import random


def spread(seconds: float, by: float = 0.1) -> float:
    """So many seconds, up to this share more or less: many reconcilers must not ask one server at once."""
    return seconds * (1 + by * (2 * random() - 1))  # noqa: S311 - spreads load, keeps no secret
