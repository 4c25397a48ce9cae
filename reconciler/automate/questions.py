"""What is asked aside, so that a slow warehouse holds up its own promotion and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, TypeAlias

#: Questions at a time. One that hangs holds none of the others up, until there are as many.
_AT_ONCE = 8

Key: TypeAlias = tuple[str, ...]


class Questions:
    """An answer is given once, to whoever asks by the same key again. The first word of a key is the model."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_AT_ONCE)
        self._asked: dict[Key, Future[Any]] = {}
        self._failed: set[Key] = set()

    @property
    def open(self) -> frozenset[Key]:
        """What is asked, and nobody has heard the answer of. What has failed is asked again, and nobody waits for it: a
        storage that is away may be so for hours.
        """
        return frozenset(self._asked.keys() - self._failed)

    def ask(self, key: Key, question: Callable[[], Any]) -> Any:
        """The answer, or None while there is none yet. Raises what the question raised."""
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

    def forget(self, model: str, wanted: Collection[Key]) -> None:
        """What was asked for a model, and is not wanted any more, is waited for no more."""
        for key in [key for key in self._asked.keys() - wanted if key[0] == model]:
            self._asked.pop(key).cancel()

    @property
    def answered(self) -> frozenset[Key]:
        """Those of them whose answer is there."""
        return frozenset(key for key, future in self._asked.items() if future.done())

    def wait(self, seconds: float) -> None:
        """Until one of them is answered, or for so long."""
        if self._asked:
            wait(self._asked.values(), seconds, return_when=FIRST_COMPLETED)

    def close(self) -> None:
        """No more questions."""
        self._pool.shutdown(wait=False, cancel_futures=True)


@dataclass(slots=True)
class Asker:
    """Asks in the name of a model, in one step."""

    questions: Questions
    model: str
    _wanted: set[Key] = field(default_factory=set)

    def ask(self, key: Key, question: Callable[[], Any]) -> Any:
        """As `Questions.ask`."""
        whole = (self.model, *key)
        self._wanted.add(whole)
        return self.questions.ask(whole, question)

    def end(self) -> bool:
        """The step ends: what was not asked for in it is forgotten. Whether anything is open."""
        self.questions.forget(self.model, self._wanted)
        return not self.questions.open.isdisjoint(self._wanted)
