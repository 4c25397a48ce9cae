"""One watch: a thread that lists, follows what happens from there, and never stops trying."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from reconciler.cluster.errors import ApiError, Expired, KindMissing, Unavailable, is_of_one
from reconciler.cluster.objects import Reader, kind_missing
from reconciler.cluster.shelf import Heard, Shelf
from reconciler.cluster.transport import Stream
from renderers.manifest import ObjectId

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient watches are, in seconds. Every pause is drawn from a range, so that no two clients keep step."""

    spread: float = 2.0  #: over which the first lists of many watches are spread
    base: float = 0.5  #: of the exponential back-off after failures
    longest: float = 30.0  #: pause between two tries
    missing: float = 30.0  #: between two looks for a kind that the cluster does not have
    doubt: float = 60.0  #: without the server, after which what is known is not trusted any more
    renewal: float = 300.0  #: the shortest life of a stream; the longest is twice that, as in client-go
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random

    def delay(self, failures: int, retry_after: float = 0.0) -> float:
        """Seconds to wait after this many failures in a row (1 or more): full jitter."""
        return min(self.longest, retry_after) + min(self.longest, self.base * 2.0 ** min(failures, 30)) * self.jitter()

    def around(self, seconds: float) -> float:
        """From three to five quarters of it."""
        return seconds * (0.75 + 0.5 * self.jitter())


_SHORT = 1.0  # seconds; a stream that ends sooner, and brought nothing, has failed


class Listers(NamedTuple):
    """One thread each, so that one page at a time is decoded: pages are large, and memory that many threads have taken
    in turn is hard to give back. A list that has failed goes to the other thread: it may take a minute to fail again.
    """

    usual: Executor
    troubled: Executor

    @classmethod
    def start(cls) -> Listers:
        """Threads that end with `close`."""
        return cls(ThreadPoolExecutor(1, "list"), ThreadPoolExecutor(1, "list again"))

    def close(self) -> None:
        """Ends the threads when they have done what they are at."""
        for executor in self:
            executor.shutdown(wait=False)


class Watch:
    """Keeps a shelf up to date, from `delay` seconds after `start` until `stop`. Whatever happens, it goes on trying.

    Complete is what was listed as a whole and is still followed. It stops being so

    - at once, when the server forgets the place that the watch has reached (410), or refuses to answer (403 ...):
      nobody tells any more what changes;
    - after `Pace.doubt` seconds without the server. What is decided meanwhile is written to the same server, or not at
      all, and what is deleted is looked at live before.

    It is so again as soon as the stream goes on where it was, or after a new list.

    Pages are read by the threads of `listers`, which all watches of a cluster share. `restarted` is told why each time
    that it begins again: "renewed" at the end of its life, "closed" by the server before that, "error" (refused, or a
    broken connection), "expired" (410), "silent" (nothing came for too long, or the peer has vanished).
    """

    def __init__(
        self,
        reader: Reader,
        shelf: Shelf,
        heard: Callable[[Heard], None],
        *,
        listers: Listers,
        pace: Pace,
        delay: float,
        restarted: Callable[[str], None],
    ) -> None:
        self.shelf = shelf
        self.is_missing = False  #: the cluster does not have the kind
        self.trouble = "it is being listed"  #: why it is not complete, "" as a rule
        self.refusal = ""  #: why the cluster shows nothing of it, while it shows other things; "" as a rule
        self.starts = 0  #: how many times a stream was opened
        self.lists = 0  #: how many times all objects were listed
        self.events = 0  #: how many came, own writes included
        self._reader = reader
        self._heard = heard
        self._listers = listers
        self._pace = pace
        self._doubted: float | None = None  # from when on
        self._failures = 0
        self._stopped = False
        self._nudged = threading.Event()
        self._stream: Stream | None = None
        self._restarted = restarted
        what = shelf.watched
        self._thread = threading.Thread(
            target=self._run, args=(delay,), name=f"watch {what.kind} {what.namespace}".rstrip(), daemon=True
        )

    @property
    def is_complete(self) -> bool:
        """Whether the shelf has all objects, and somebody would tell if they changed."""
        trusted = self._doubted is None or self._pace.clock() < self._doubted
        return self.shelf.is_complete and trusted and self._thread.is_alive()

    def start(self) -> None:
        """Starts its thread."""
        self._thread.start()

    def look_again(self) -> None:
        """Ends a pause: there is reason to think that the next try is the good one."""
        self._nudged.set()

    def stop(self) -> None:
        """Ends soon, and tells nothing more."""
        self._stopped = True
        self._nudged.set()
        if self._stream is not None:
            self._stream.end()

    def join(self, until: float) -> None:
        """Waits for its end, though no longer than until then: it may be waiting for a server that is away."""
        self._thread.join(max(0.0, until - time.monotonic()))

    def _run(self, delay: float) -> None:
        self._pause(delay)
        while not self._stopped:
            try:
                pause = self._try()
            except Exception as error:  # of whatever kind: without this thread, an environment would be blind for ever
                words = f"it ended with an error of the program ({type(error).__name__}), and begins again"
                if words != self.trouble and not self._stopped:
                    log.exception("a watch of %s ended with an error of the program", self.shelf.watched)
                pause = self._stumble(words)
            self._pause(pause)

    def _try(self) -> float:
        """Lists where it has to, and follows. After how many seconds to try again."""
        try:
            if not self.shelf.position:
                self._list()
            return 0.0 if self._stopped else self._follow()
        except KindMissing as error:
            self.is_missing, self.trouble, self.refusal, self._doubted = True, _sentence(error), "", None
            if not self.shelf.is_complete or len(self.shelf):
                self._tell(self.shelf.none())
            return self._pace.around(self._pace.missing)
        except ApiError as error:
            self._restarted("expired" if isinstance(error, Expired) else "error")
            self._failures += 1
            self.trouble = _sentence(error)
            self.refusal = self.trouble if is_of_one(error) and not isinstance(error, Expired) else ""
            if isinstance(error, Expired):
                self.shelf.forget()
            if self._doubted is None or not isinstance(error, Unavailable):
                grace = self._pace.doubt if isinstance(error, Unavailable) else 0.0
                self._doubted = self._pace.clock() + grace
            return self._pace.delay(self._failures, error.retry_after if isinstance(error, Unavailable) else 0.0)

    def _stumble(self, words: str) -> float:
        """What is known may be half of it, so all is listed anew. After how many seconds."""
        self._restarted("error")
        self._failures += 1
        self.trouble, self.refusal, self._doubted = words, "", self._pace.clock()
        self.shelf.forget()
        return self._pace.delay(self._failures)

    def _list(self) -> None:
        version, kind, namespace, _ = self.shelf.watched
        if self._reader.resource(version, kind) is None:
            raise kind_missing(ObjectId(version, kind, namespace, ""))
        token, is_first = "", True
        while token or is_first:
            lister = self._listers.troubled if self._failures else self._listers.usual
            position, token = lister.submit(self._take_page, token, is_first=is_first).result()
            is_first = False
            if self._stopped:
                return
        if not position:
            raise Unavailable(0, "", "the list does not say of which moment it is")
        self.lists += 1
        self._answered()
        self._tell(self.shelf.complete(position))

    def _take_page(self, token: str, *, is_first: bool) -> tuple[str, str]:
        """Its moment, and the token of the next one. It is not held any longer than this takes."""
        version, kind, namespace, labels = self.shelf.watched
        page = self._reader.page(version, kind, namespace=namespace or None, labels=labels, token=token)
        if is_first:
            self.shelf.begin()
        self.shelf.arrive(page.items)
        return page.resource_version, page.token

    def _follow(self) -> float:
        """Follows until the stream ends. After how many seconds to open another one."""
        version, kind, namespace, labels = self.shelf.watched
        seen, began = self.shelf.position, self._pace.clock()
        life = self._pace.renewal * (1 + self._pace.jitter())
        for event in self._reader.watch_once(
            version,
            kind,
            namespace=namespace or None,
            labels=labels,
            resource_version=seen,
            timeout_s=life,
            opened=self._opened,
        ):
            if self._stopped:
                break
            self.events += 1
            self._failures = 0
            heard = self.shelf.hear(event)
            if heard is not None:
                self._tell([heard])
        lived = self._pace.clock() - began
        if self.shelf.position == seen and lived < _SHORT and not self._stopped:
            raise Unavailable(0, "", "watches end as soon as they begin")
        self._failures = 0
        ended = self._stream.ended if self._stream is not None else ""
        if not self._stopped:
            self._restarted("renewed" if ended == "closed" and lived > life - _SHORT else ended or "error")
        # A stream that broke is one of many, and they should not all come back in the same moment.
        return 0.0 if lived > life - _SHORT else self._pace.base * self._pace.jitter()

    def _opened(self, stream: Stream) -> None:
        self.starts += 1
        self._answered()
        self._stream = stream
        if self._stopped:
            stream.end()

    def _answered(self) -> None:
        self.is_missing, self.trouble, self.refusal, self._doubted = False, "", "", None

    def _tell(self, heard: Iterable[Heard]) -> None:
        for one in heard:
            if not self._stopped:
                self._heard(one)

    def _pause(self, seconds: float) -> None:
        if seconds > 0 and not self._stopped:
            self._nudged.wait(seconds)
            self._nudged.clear()


def _sentence(error: ApiError) -> str:
    """Without what was asked for: that is said of the watch already."""
    return f"{error.message.rstrip('.')}. {error.remedy}".rstrip()
