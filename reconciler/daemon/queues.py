"""What one thread leaves for another."""

from __future__ import annotations

from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")


def drained(queue: SimpleQueue[T]) -> Iterator[T]:
    """All that is in a queue by now."""
    while True:
        try:
            yield queue.get_nowait()
        except Empty:
            return
