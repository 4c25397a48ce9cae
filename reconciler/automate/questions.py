"""What is asked aside, so that a slow warehouse holds up its own promotion and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

#: Questions at a time. One that hangs holds none of the others up, until there are as many.
_AT_ONCE = 8


class Questions:
    """An answer is given once, to whoever asks by the same key again."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_AT_ONCE)
        self._asked: dict[tuple[str, ...], Future[Any]] = {}
        self._wanted: set[tuple[str, ...]] = set()
        self._failed: set[tuple[str, ...]] = set()

    @property
    def any(self) -> bool:
        """Whether anything is asked that nobody has heard the answer of. What has failed is asked again, and nobody
        waits for it: a storage that is away may be so for hours.
        """
        return bool(self._asked.keys() - self._failed)

    def ask(self, key: tuple[str, ...], question: Callable[[], Any]) -> Any:
        """The answer, or None while there is none yet. Raises what the question raised."""
        self._wanted.add(key)
        future = self._asked.get(key)
        if future is None:
            self._asked[key] = self._pool.submit(question)
            return None
        if not future.done():
            return None
        del self._asked[key]
        self._failed.add(key)
        answer = future.result()
        self._failed.discard(key)
        return answer

    def forget_unwanted(self) -> None:
        """At the end of a step: what nobody has asked for in it, as who asked has gone, is waited for no more."""
        for key in self._asked.keys() - self._wanted:
            self._asked.pop(key).cancel()
        self._wanted.clear()

    @property
    def open(self) -> frozenset[tuple[str, ...]]:
        """What is asked, and nobody has heard the answer of, nor a failure before."""
        return frozenset(self._asked.keys() - self._failed)

    @property
    def answered(self) -> frozenset[tuple[str, ...]]:
        """Those of them whose answer is there."""
        return frozenset(key for key, future in self._asked.items() if future.done())

    def wait(self, seconds: float) -> None:
        """Until one of them is answered, or for so long."""
        if self._asked:
            wait(self._asked.values(), seconds, return_when=FIRST_COMPLETED)

    def close(self) -> None:
        """No more questions."""
        self._pool.shutdown(wait=False, cancel_futures=True)
