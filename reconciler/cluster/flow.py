"""How much is asked of one API server at a time, and whether it is asked at all.

`Limit` and `Breaker` decide: no thread, no clock, no network. `Flow` is what threads pass through on their way to the
server: it holds them to both, first come, first served.

There is no limit on requests per second. An API server of today shares itself out (API Priority and Fairness): it
queues what is too much, and answers 429 when its queue is full. A limit on our side could only leave it idle, or be
too high on the day when it is busy. What it says is obeyed instead: fewer at a time after a 429, and none before the
Retry-After is over.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from math import inf
from typing import NamedTuple

from reconciler.cluster.errors import Unavailable
from renderers.manifest import ObjectId

_START = 8  # requests in flight that are asked of any server
_RISEN = 1.5  # times the shortest answer: what makes longer answers longer is a queue, and not the way to the server
_MEMORY = 300.0  # seconds, after which what was short then begins to be forgotten: servers move and grow
_SHRINKS = frozenset({0, 408, 429, 504})  # no answer, or one that says "too much" or "too late"
_GATEWAYS = frozenset({502, 503, 504})  # may be the word of something on the way; proves neither life nor death

_LOSSES = 2  # in a row, before a server is taken for unreachable: what a request has lost that tried for its whole time
_PATIENCE = 5.0  # seconds without any answer before that: a restart, or a balancer that moves, takes less
_SHORTEST_PAUSE = 1.0  # seconds between two looks at an unreachable server; the longest one is `Retry.longest`


class Limit:
    """How many requests may be in flight: additive increase, multiplicative decrease (as TCP, RFC 5681).

    Begins with 8, or `most` if that is less. Halved by a 429 or a lost answer, at most once per round trip. One more
    after as many successes as it allows, all of them while it was used up. Above the 8 that it begins with, it also
    has to pay: the shortest answer of those successes must be no longer than 1.5 times the shortest one of the last
    minutes (as TCP Vegas; of the same verb, as a list is slower than a patch). Longer answers tell that requests wait
    for each other in the server already. That is never a reason for fewer.
    """

    __slots__ = ("_fastest", "_most", "_shortest", "_shrunk_at", "_successes", "value")

    def __init__(self, most: int) -> None:
        self.value = min(_START, most)
        self._most = most
        self._shrunk_at = -inf
        self._shortest: dict[str, _Shortest] = {}
        self._successes, self._fastest = 0, inf

    def succeeded(self, verb: str, sent_at: float, now: float, *, used_up: bool) -> None:
        """Counts a success. `used_up`: whether as many as are allowed were in flight."""
        seconds = max(now - sent_at, 1e-6)
        shortest = self._shortest.get(verb)
        if shortest is None:
            shortest = self._shortest[verb] = _Shortest(now)
        fastest = seconds / shortest.with_(seconds, now)
        if not used_up:
            return
        self._successes += 1
        self._fastest = min(self._fastest, fastest)
        if self._successes >= self.value:
            if self._fastest <= _RISEN or self.value < _START:
                self.value = min(self._most, self.value + 1)
            self._successes, self._fastest = 0, inf

    def refused(self, sent_at: float, now: float) -> None:
        """Halves it, unless the request is older than the last halving: its fate says nothing of what holds since."""
        if sent_at >= self._shrunk_at:
            self.value = max(1, self.value // 2)
            self._shrunk_at = now
            self._successes, self._fastest = 0, inf


class _Shortest:
    """The least of the numbers of the last five to ten minutes."""

    __slots__ = ("_new", "_old", "_since")

    def __init__(self, now: float) -> None:
        self._old, self._new, self._since = inf, inf, now

    def with_(self, seconds: float, now: float) -> float:
        if now - self._since > _MEMORY:
            self._old, self._new, self._since = self._new, inf, now
        self._new = min(self._new, seconds)
        return min(self._old, self._new)


class Breaker:
    """Whether the server is asked at all, so that one that is away does not hold every caller up for a minute.

    Closed while it answers. Open once two requests in a row got no answer at all and nothing was answered for five
    seconds. Open, one request at a time is let through, the probe; its answer closes the breaker. Who was trying when
    it opened goes on trying at its own pace, so that an outage as short as a request's patience fails nobody. Who
    comes later is refused at once, until the next look is due: after a quarter of the time that the server has been
    away for, at least one second and at most `longest`.
    """

    __slots__ = ("_longest", "_losses", "_next_look", "_opened_at", "_probing", "_why", "unreachable_since")

    def __init__(self, longest: float) -> None:
        self._longest = longest
        #: when the first of those requests was sent that have all got no answer; None while the server answers
        self.unreachable_since: float | None = None
        self._losses = 0
        self._why = ""
        self._opened_at: float | None = None
        self._next_look = inf
        self._probing = False

    @property
    def is_open(self) -> bool:
        return self._opened_at is not None

    def is_late(self, began: float) -> bool:
        """Whether a request that was begun then was begun after the server was given up."""
        return self._opened_at is not None and began >= self._opened_at

    def refusal(self, began: float, now: float) -> tuple[str, float] | None:
        """Why a request begun at `began` is not sent now, and in how many seconds it may be; None where it may."""
        if self._opened_at is None:
            return None
        wait = max(0.0, self._next_look - now) if began >= self._opened_at else 0.0
        if not (self._probing or wait):
            return None
        # The same words for the whole outage: callers compare them, and tell what is new.
        return f"is not reachable ({self._why}); a request at a time looks whether it is back", wait

    def admit(self) -> bool:
        """Notes that a request goes out. Whether it is the probe."""
        self._probing = self.is_open
        return self._probing

    def answered(self) -> None:
        self.unreachable_since = None
        self._losses = 0
        self._opened_at = None
        self._probing = False

    def lost(self, sent_at: float, now: float, why: str) -> None:
        self._losses += 1
        self._why = why
        if self.unreachable_since is None:
            self.unreachable_since = sent_at
        if not self.is_open and self._losses >= _LOSSES and now - self.unreachable_since >= _PATIENCE:
            self._opened_at = now
            self._look_later(now)

    def probed(self, now: float, *, sent: bool) -> None:
        """The probe is over. `sent`: it was not held back by something else."""
        self._probing = False
        if sent and self.is_open:
            self._look_later(now)

    def _look_later(self, now: float) -> None:
        away = now - self.unreachable_since if self.unreachable_since is not None else 0.0
        self._next_look = now + min(self._longest, max(_SHORTEST_PAUSE, away / 4))


class Turn(NamedTuple):
    """The permission to send one request."""

    verb: str
    counted: bool  #: among those in flight; a watch is not
    probe: bool


class Flow:
    """The way to one API server. Safe to share between threads; times are those of `clock`.

    `enter` before a request is sent, and `leave` when it is over. `host` is for messages, `most` the number of
    requests in flight that is never exceeded, `longest` the longest pause between two looks at an unreachable server.
    """

    def __init__(self, host: str, most: int, clock: Callable[[], float], longest: float) -> None:
        self._host = host
        self._clock = clock
        self._limit = Limit(most)
        self._breaker = Breaker(longest)
        self._in_flight = 0
        self._paused_until = -inf
        self._closed = False
        self._lock = threading.Lock()
        self._queue: deque[threading.Condition] = deque()

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        return self._limit.value

    @property
    def in_flight(self) -> int:
        """How many requests are in flight, watches not counted."""
        return self._in_flight

    @property
    def unreachable_since(self) -> float | None:
        """When the first of those requests was sent that have all got no answer; None while the server answers."""
        return self._breaker.unreachable_since

    def is_late(self, began: float) -> bool:
        """Whether a request that was begun then was begun after the server was given up: it gets one try."""
        return self._breaker.is_late(began)

    def enter(self, verb: str, began: float, *, counted: bool = True, target: ObjectId | None = None) -> Turn:
        """Wait for the turn of a request that was begun (its first try) at `began`.

        Raises `Unavailable` where the server is given up, and where the flow is closed.
        """
        with self._lock:
            place: threading.Condition | None = None
            try:
                while True:
                    self._refuse(began, target)
                    pause = self._paused_until - self._clock()
                    if pause <= 0 and (not counted or self._is_free_for(place)):
                        break
                    if place is None:
                        place = threading.Condition(self._lock)
                        self._queue.append(place)
                    place.wait(pause if pause > 0 else None)
                self._in_flight += counted
                return Turn(verb, counted, self._breaker.admit())
            finally:
                if place is not None:
                    self._queue.remove(place)
                    self._wake_next()

    def leave(self, turn: Turn, sent_at: float, status: int | None, *, why: str = "", pause: float = 0.0) -> None:
        """Tell what became of it: the HTTP status, 0 where the answer was lost (`why`), None where it was not sent.

        `pause`: for how many seconds the server wants to be left alone by everybody.
        """
        with self._lock:
            now = self._clock()
            was_open = self._breaker.is_open
            if status == 0:
                self._breaker.lost(sent_at, now, why)
            elif status is not None and status not in _GATEWAYS:
                self._breaker.answered()
            if turn.probe:
                self._breaker.probed(now, sent=status is not None)
            if status in _SHRINKS:
                self._limit.refused(sent_at, now)
            elif turn.counted and status is not None and status < 300:
                used_up = self._in_flight >= self._limit.value
                self._limit.succeeded(turn.verb, sent_at, now, used_up=used_up)
            if pause:
                self._paused_until = max(self._paused_until, now + pause)
            self._in_flight -= turn.counted
            if self._breaker.is_open and not was_open:
                self._wake_all()
            else:
                self._wake_next()

    def close(self) -> None:
        """Refuse everybody from now on."""
        with self._lock:
            self._closed = True
            self._wake_all()

    def _refuse(self, began: float, target: ObjectId | None) -> None:
        if self._closed:
            raise Unavailable(0, "", f"{self._host}: the connection was closed", target, maybe_done=False)
        if refusal := self._breaker.refusal(began, self._clock()):
            words, wait = refusal
            raise Unavailable(0, "", f"{self._host} {words}", target, maybe_done=False, retry_after=wait)

    def _is_free_for(self, place: threading.Condition | None) -> bool:
        return self._in_flight < self._limit.value and (not self._queue or self._queue[0] is place)

    def _wake_next(self) -> None:
        if self._queue:
            self._queue[0].notify()

    def _wake_all(self) -> None:
        for place in self._queue:
            place.notify()
