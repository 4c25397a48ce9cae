"""What is asked aside, so that a slow warehouse holds up its own promotion and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, TypeAlias

#: Questions at a time. One that hangs holds none of the others up, until there are as many.
_AT_ONCE = 8

Key: TypeAlias = tuple[str, ...]


@dataclass(slots=True)
class _Asked:
    """In the name of one model. `failed`: what was raised last by what has not been answered since."""

    futures: dict[Key, Future[Any]] = field(default_factory=dict)
    failed: dict[Key, BaseException] = field(default_factory=dict)

    @property
    def open(self) -> Collection[Key]:
        return self.futures.keys() - self.failed.keys()


class Questions:
    """An answer is given once, to whoever asks by the same key again. The first word of a key is the model."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_AT_ONCE)
        self._asked: dict[str, _Asked] = {}

    @property
    def open(self) -> frozenset[Key]:
        """What is asked, and nobody has heard the answer of. What has failed is asked again, and nobody waits for it: a
        storage that is away may be so for hours.
        """
        return frozenset(key for asked in self._asked.values() for key in asked.open)

    def ask(self, key: Key, question: Callable[[], Any]) -> Any:
        """The answer, or None while there is none yet. Raises what the question raised.

        What has failed is asked again, and raises the same until it is answered: so it is known to be in trouble, and
        looked at soon, for as long as it is.
        """
        asked = self._asked.setdefault(key[0], _Asked())
        future = asked.futures.get(key)
        if future is None:
            asked.futures[key] = self._pool.submit(question)
        elif future.done():
            del asked.futures[key]
            error = future.exception()
            if error is None:
                asked.failed.pop(key, None)
                return future.result()
            asked.failed[key] = error
            raise error
        if key in asked.failed:
            raise asked.failed[key].with_traceback(None)  # which would grow each time
        return None

    def forget(self, model: str, wanted: Collection[Key]) -> bool:
        """What was asked for a model, and is not wanted any more, is waited for no more. Whether any of it is open."""
        asked = self._asked.get(model)
        if asked is None:
            return False
        for key in asked.futures.keys() - wanted:
            asked.futures.pop(key).cancel()
        for key in asked.failed.keys() - wanted:
            del asked.failed[key]
        if not asked.futures and not asked.failed:
            del self._asked[model]
        return bool(asked.open)

    @property
    def answered(self) -> frozenset[Key]:
        """Those of them whose answer is there."""
        futures = (item for asked in self._asked.values() for item in asked.futures.items())
        return frozenset(key for key, future in futures if future.done())

    def wait(self, seconds: float) -> None:
        """Until one of them is answered, or for so long."""
        futures = [future for asked in self._asked.values() for future in asked.futures.values()]
        if futures:
            wait(futures, seconds, return_when=FIRST_COMPLETED)

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
        return self.questions.forget(self.model, self._wanted)
