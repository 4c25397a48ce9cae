"""Who of several replicas does the work: leader election by a Lease, and the fence before every write.

The algorithm of client-go, on a `coordination.k8s.io/v1` Lease. Whether its holder is alive is judged by when *we* saw
the Lease change, on our monotonic clock: the times written in it are for people, and no wall clock, ours or the
other's, decides anything.

    decide    pure: what one look at the Lease asks for
    Elector   looks, writes, and knows at any moment whether this replica leads

A leader may write for `renew_deadline` seconds after it *sent* its last successful renewal; another one takes over no
sooner than the lease's duration after it *saw* that renewal. What lies between is the time that a write under way has
to arrive. Needs the verbs get, create and update of leases (get and update of this one by name); no list, no watch.
"""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil, inf
from typing import Any, NamedTuple, TypeAlias
from uuid import uuid4

from reconciler.cluster import (
    AlreadyExists,
    ApiError,
    NotFound,
    NotLeader,
    Retry,
    Stale,
    Timeouts,
    Unavailable,
    Writer,
)
from renderers.manifest import Body, ObjectId

log = logging.getLogger(__name__)

#: Of the connection that elects: it is not shared with what writes much, and it has no patience of its own, as the
#: next round is a new try. So a request that hangs leaves time for another one before the renew deadline.
RETRY = Retry(attempts=1, longest=2.0)
TIMEOUTS = Timeouts(connect=2.0, answer=3.0)
CONNECTIONS = 2

#: How long a Lease may say that its holder needs, in seconds. What says something else was not written by an elector.
_SENSIBLE = range(1, 3601)
#: Between two looks of a replica that waits, in seconds: what bounds the hand-over after a clean stop.
_LOOK = 0.6
_SOON = 0.1  # seconds, at most: somebody else wrote the Lease just now

#: Annotation of the Lease: when a replica that waits heard of a push, for the one that leads.
PUSHED = "trueup.dev/pushed"
#: Seconds between two such notes of one replica: each costs the leader a renewal that it has to repeat.
_NOTE_EVERY = 5.0


class Record(NamedTuple):
    """What a Lease says."""

    holder: str = ""
    duration: float = 0.0  #: seconds; 0 where it says nothing sensible
    released: bool = False  #: by its holder, for whoever comes: that is no Lease with a missing holder


class Acquire(NamedTuple):
    """It is free, or its holder is gone: take it."""


class Renew(NamedTuple):
    """It is ours: say so again."""


class Wait(NamedTuple):
    """It is somebody's, for so many seconds at least."""

    seconds: float


class Lost(NamedTuple):
    """We took it for ours, and it is somebody else's."""


Decision: TypeAlias = Acquire | Renew | Wait | Lost


def decide(
    record: Record | None, seen_at: float, now: float, me: str, *, leads: bool = False, duration: float = 15.0
) -> Decision:
    """What to do about a Lease that has said this since `seen_at` (monotonic). None: it never existed.

    A Lease that somebody deleted is judged by what it said last, and one that names nobody and was not released is
    somebody's until it has stayed so for `duration` seconds: its holder, who will mend it, does not know yet. No
    holder is waited for less than `duration`, whatever the Lease says: that may have been edited too.
    """
    if record is None or record.released:
        return Acquire()
    if record.holder == me:
        return Renew()
    if leads:
        return Lost() if record.holder else Renew()
    left = seen_at + max(record.duration, duration) - now
    return Wait(left) if left > 0 else Acquire()


def read(body: Body) -> tuple[Record, str]:
    """What a Lease says, and what is wrong with it ("" where nothing is). Never raises: people edit these."""
    given = body.get("spec")
    spec: dict[str, Any] = given if isinstance(given, dict) else {}
    holder, seconds = spec.get("holderIdentity"), spec.get("leaseDurationSeconds")
    duration = float(seconds) if type(seconds) is int and seconds in _SENSIBLE else 0.0
    if not isinstance(holder, str | None):
        return Record("", duration), f"its holderIdentity is no text: {holder!r}"
    if not duration:
        return Record(holder or ""), f"its leaseDurationSeconds is no number from 1 to 3600: {seconds!r}"
    if holder:
        return Record(holder, duration), ""
    released = duration == 1.0  # how client-go, and we, give one back
    return Record("", duration, released), "" if released else "it names no holder"


@dataclass(frozen=True, slots=True)
class Durations:
    """Seconds. Those of Kubernetes' own components by default."""

    lease: float = 15.0  #: how long a holder is waited for that shows no sign of life; rounded up to whole seconds
    renew_deadline: float = 10.0  #: how long after its last renewal a holder still writes
    retry: float = 2.0  #: between two renewals

    def __post_init__(self) -> None:
        if not 0 < self.retry < self.renew_deadline < self.lease <= _SENSIBLE[-1]:
            raise ValueError("a lease needs retry < renew_deadline < lease <= 3600 (seconds)")


def identity() -> str:
    """A name for this process that no other one has, a restarted one included: "trueup-7c9f-x2x_1b2c3d4e"."""
    return f"{socket.gethostname()}_{uuid4().hex[:8]}"


class Elector:
    """One candidate. `run` in a thread of its own; the rest from any thread.

    `writer` has a connection of its own (`RETRY`, `TIMEOUTS`, `CONNECTIONS`) and no fence. `me` must be the name of
    this process alone (`identity`). `on_change` is told True when this replica begins to lead and False when it has
    ceased to; it is called by the thread of `run`, which a hanging request holds up for a time-out, so `leads` may be
    False before, and it must not raise. `on_push` is called likewise, when another replica was told of a push
    (`poke`). `clock` is monotonic, `now` the wall clock, which is written and never read.

    Who comes when somebody has just deleted the Lease, and never saw it, takes it at once; its holder notices with its
    next renewal. Give a Lease to another replica by ending its holder, not by deleting it.
    """

    def __init__(
        self,
        writer: Writer,
        me: str,
        *,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
        namespace: str = "trueup-system",
        name: str = "trueup",
        durations: Durations | None = None,
        on_change: Callable[[bool], None] = lambda _: None,
        on_push: Callable[[], None] = lambda: None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.me = me
        self.on_change = on_change
        self.on_push = on_push
        #: what keeps the election from going on, a sentence for people; "" where nothing does
        self.trouble = ""
        self._writer = writer
        self._now = now
        self._clock = clock
        self._target = ObjectId("coordination.k8s.io/v1", "Lease", namespace, name)
        self._durations = durations or Durations()
        self._jitter = jitter
        self._body: Body | None = None  # as the server last showed it; None: it has to be looked at
        self._record: Record | None = None
        self._seen_at = -inf
        self._version = ""
        self._shown: tuple[str, object] = ("", None)  # what it said last: of a push, and of its holder
        self._push_heard = threading.Event()
        self._next_note = -inf
        self._leads_until = -inf  # the one word on whether we lead: a number, which time itself makes untrue
        self._since: float | None = None
        self._told = False

    @property
    def leads(self) -> bool:
        """Whether this replica may write now: it holds the Lease, and its last renewal is not too long ago."""
        return self._clock() < self._leads_until

    @property
    def since(self) -> float | None:
        """When it began to lead, by the monotonic clock, without a gap since then; None where it does not."""
        since = self._since
        return since if self.leads else None

    @property
    def holder(self) -> str:
        """Who holds the Lease, as last seen; "" where nobody does."""
        return self._record.holder if self._record else ""

    def fence(self) -> None:
        """Raises `NotLeader` unless this replica leads. What a `Writer` calls before each write."""
        if not self.leads:
            other = self.holder
            who = f"{other} does" if other and other != self.me else "nobody is known to"
            raise NotLeader(f"{self.me} does not lead ({who}), so it writes nothing")

    def poke(self) -> None:
        """There was a push, and this replica was told: whoever leads will be, within a renewal. Returns at once."""
        self._push_heard.set()

    def run(self, stop: threading.Event) -> None:
        """Takes part in the election until `stop` is set, then gives the Lease back.

        Set `stop` when nothing writes any more: from then on another replica may.
        """
        pause = 0.0
        while not stop.wait(pause):
            pause = self.round()
        self.release()

    def round(self) -> float:
        """Looks, decides, writes: one round of the election. How many seconds to wait until the next one."""
        try:
            pause = self._round()
        except (Stale, AlreadyExists, NotFound):  # somebody wrote it since we looked
            self._body = None
            pause = _SOON * self._jitter()
        except ApiError as error:
            self._body = None
            self._say(str(error))
            pause = self._between(_LOOK if self.leads else self._durations.retry)
        self._tell()
        if self._told:  # to tell in time that it is over
            pause = min(pause, max(0.0, self._leads_until - self._clock()))
        return pause

    def release(self) -> None:
        """Stop leading, and give the Lease back so that another replica takes it at once. Not while `run` runs."""
        was_ours = self.holder == self.me
        self._leads_until = -inf
        self._tell()
        for _ in range(2 if was_ours else 0):  # again, where somebody touched it meanwhile
            try:
                if self._body is None:
                    self._look()
                if self._body is not None and self.holder == self.me:
                    self._write(holder="", seconds=1)
                return
            except Stale:
                self._body = None
            except ApiError as error:  # then it has to expire
                self._say(str(error))
                return

    def _round(self) -> float:
        now = self._clock()  # before anything is asked: an answer may be old when it comes
        if self._body is None or not self.leads:
            self._look()
        lease = float(ceil(self._durations.lease))
        match decide(self._record, self._seen_at, now, self.me, leads=self.leads, duration=lease):
            case Wait(seconds):
                self._note_push(now)
                return min(seconds, self._between(_LOOK))
            case Lost():
                self._leads_until = -inf
                return self._between(_LOOK)
            case Acquire() | Renew():
                self._write(holder=self.me, seconds=ceil(self._durations.lease))
                if not self.leads:
                    self._since = self._clock()
                self._leads_until = now + self._durations.renew_deadline
                self._push_heard.clear()  # who leads need not tell itself
                self._say("")
        return self._between(self._durations.retry)

    def _look(self) -> None:
        self._body = self._writer.get(self._target)
        if self._body is None:
            if self._record is not None:
                self._say(f"{self._target}: somebody deleted it; its holder makes it anew")
                # Who was its last holder, only the one knows that still is.
                self._record = Record(self.me if self.leads else "", self._record.duration)
                self._see("")
            return
        self._show(self._body)

    def _show(self, body: Body) -> None:
        """Take note of what the Lease says now."""
        version = (body.get("metadata") or {}).get("resourceVersion")
        if not version:
            raise Unavailable(0, "", "the answer is not a Lease; is this an API server?", self._target)
        pushed, spec = _pushed(body), body.get("spec")
        before, self._shown = self._shown, (pushed, spec)
        is_note = pushed not in ("", before[0])
        if is_note and spec == before[1]:
            self._version = version  # by another replica that waits: that is no sign of its holder's life
        else:
            self._see(version)
        if is_note:
            self.on_push()
        self._record, wrong = read(body)
        self._say(f"{self._target}: {wrong}; its holder mends it, or it is taken over" if wrong else "")

    def _see(self, version: str) -> None:
        """Take note of when it changed. To be deleted is a change: until then its holder may have been alive."""
        if version != self._version:
            self._version, self._seen_at = version, self._clock()

    def _note_push(self, now: float) -> None:
        """Leave word of a push on a Lease that is somebody's. Its holder meets it with its next renewal."""
        if self._body is None or now < self._next_note or not self._push_heard.is_set():
            return
        self._push_heard.clear()
        metadata = self._body["metadata"]
        annotations = {**(metadata.get("annotations") or {}), PUSHED: self._moment()}
        try:
            stored = self._writer.update(self._body | {"metadata": metadata | {"annotations": annotations}})
        except ApiError:
            self._push_heard.set()
            raise
        self._next_note = now + _NOTE_EVERY
        self._version, self._shown = stored["metadata"]["resourceVersion"], (_pushed(stored), stored.get("spec"))

    def _moment(self) -> str:
        return self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _write(self, *, holder: str, seconds: int) -> None:
        """Create it, or replace the very version that was seen."""
        moment = self._moment()
        spec = {"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": moment}
        if self._body is None:
            spec |= {"acquireTime": moment, "leaseTransitions": 0}
            metadata = {"namespace": self._target.namespace, "name": self._target.name}
            new = {"apiVersion": self._target.api_version, "kind": self._target.kind, "metadata": metadata}
            stored = self._writer.create(new | {"spec": spec})
        else:
            given = self._body.get("spec")
            old = given if isinstance(given, dict) else {}
            if self.holder != holder:
                before = old.get("leaseTransitions")
                transitions = before if type(before) is int and 0 <= before < 2**31 - 1 else 0
                spec |= {"acquireTime": moment, "leaseTransitions": transitions + (holder != "")}
            stored = self._writer.update(self._body | {"spec": old | spec})
        self._body = stored
        self._show(stored)

    def _tell(self) -> None:
        leads = self.leads
        if leads is not self._told:
            self._told = leads
            log.info("%s %s", self.me, "leads" if leads else "does not lead any more")
            self.on_change(leads)

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            log.warning("leader election: %s", trouble)
        self.trouble = trouble

    def _between(self, seconds: float) -> float:
        """So that replicas that started together do not ask together for ever."""
        return seconds * (0.75 + 0.25 * self._jitter())


def _pushed(body: Body) -> str:
    return str((body["metadata"].get("annotations") or {}).get(PUSHED, ""))
