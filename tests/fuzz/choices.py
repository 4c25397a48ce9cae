"""Decisions read off bytes, so that a fuzzer that changes bytes changes decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Takes a byte or two for each decision. When the bytes are used up, every decision is the first choice."""

    def __init__(self, data: bytes) -> None:
        self._left = iter(data)

    def below(self, count: int) -> int:
        """A number from 0, below `count`."""
        number = next(self._left, 0)
        if count > 256:
            number = number << 8 | next(self._left, 0)
        return number % count

    def one_of(self, options: Sequence[T]) -> T:
        """One of several."""
        return options[self.below(len(options))]

    def seldom(self, once_in: int = 16) -> bool:
        """True once in so many times; False when the bytes are used up."""
        return self.below(once_in) == once_in - 1

    def flag(self) -> bool:
        """False, or True."""
        return self.seldom(2)

    def text(self, alphabet: Sequence[str], most: int) -> str:
        """Up to so many pieces."""
        return "".join(self.one_of(alphabet) for _ in range(self.below(most + 1)))
