"""Kubernetes Events: what the reconciler did, and what is in its way, beside the objects that it is about.

Events of the core API, with `count` and two timestamps. They are the ones that `kubectl describe` and `kubectl events`
look for, that `kubectl get events --sort-by=.lastTimestamp` sorts, and that the tools around know; the same objects are
read as events.k8s.io/v1, too. That one's own form has no `lastTimestamp`, so it sorts first in what people type.

Each is written by server-side apply under a name of its own, so that a lost answer, a repetition and the first time
are one request of one kind; the role needs `create` and `patch` of events.

Whoever tells never waits: a thread of its own sends from a bounded queue. What repeats is counted and not written anew,
an object has a budget, all of them have one, and what is too much is dropped and counted.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from threading import Condition, Thread
from time import monotonic
from typing import Any, NamedTuple, TypeVar

from reconciler.cluster import ApiError, Forbidden, NamespaceMissing, Writer
from reconciler.inventory import NAMESPACE
from reconciler.report.text import clean
from reconciler.telling.logs import Log
from renderers.manifest import Body, ObjectId

log = Log(__name__)


class Reason(StrEnum):
    """What Events are about: all of them, in one word each, by which people filter and alert."""

    PRUNED = "Pruned"
    FAILED = "Failed"  #: the cluster refused an object, or it will never be ready
    CONFLICT = "Conflict"  #: another manager owns a field that a spec asks for
    BLOCKED = "Blocked"  #: a plan ran into a limit, and waits for a person
    APPROVED = "Approved"  #: a person has let it pass
    DRIFT_FOUND = "DriftFound"  #: and only reported
    DRIFT_MENDED = "DriftMended"
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    REJECTED = "Rejected"
    GIT_UNREACHABLE = "GitUnreachable"
    GIT_REWOUND = "GitRewound"  #: the branch does not contain any more what it did
    GIT_UNSIGNED = "GitUnsigned"  #: the newest commit is not signed by anybody who may
    SPECS_INVALID = "SpecsInvalid"  #: what is wrong stays as it was applied last
    RULES_CHANGED = "RulesChanged"  #: what the organisation asks of specs and plans
    REVISION_APPLIED = "RevisionApplied"
    LEADING = "Leading"
    STANDING_BY = "StandingBy"


#: Of the type Warning: somebody should look. All others are Normal.
WARNINGS = frozenset(
    {
        *(Reason.FAILED, Reason.CONFLICT, Reason.BLOCKED, Reason.DRIFT_FOUND, Reason.ROLLED_BACK, Reason.REJECTED),
        *(Reason.GIT_UNREACHABLE, Reason.GIT_REWOUND, Reason.GIT_UNSIGNED, Reason.SPECS_INVALID),
    }
)

#: Bytes of a message: the limit of the API.
MESSAGE = 1024
#: The same thing about the same object is one Event, with a count, until nothing was heard of it for so long.
SERIES = timedelta(minutes=10)

_QUEUE = 1000
#: How many objects and series are remembered. An Event itself is gone after an hour.
_REMEMBERED = 4096
#: Requests: so many at once, and then one in so many seconds. Of one object, and of all.
_OF_ONE, _OF_ALL = (10, 60.0), (200, 0.2)
#: Where nothing can be written, as the namespace is not there or the right is missing, one Event tries it again after
#: so many seconds. Meanwhile so many wait, of all namespaces, and none longer than an Event is kept.
_LOOK, _WAITING, _TOO_OLD = 60.0, 200, timedelta(hours=1)
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
#: Of a name, with room for a dot and 16 hex digits.
_NAME = 236

K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True)
class _Bucket:
    """A token bucket. A clock that is set back stops it for no longer than that moment."""

    capacity: int
    seconds: float  #: until there is one token more
    at: datetime
    tokens: float

    def take(self, now: datetime) -> bool:
        """Whether there was a token."""
        passed = max((now - self.at).total_seconds(), 0.0)
        self.tokens = min(self.capacity, self.tokens + passed / self.seconds)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class _What(NamedTuple):
    """Two Events that agree in this are one."""

    regarding: ObjectId
    uid: str
    reason: Reason
    message: str


@dataclass(slots=True)
class _Series:
    what: _What
    related: ObjectId | None
    first: datetime
    last: datetime
    count: int = 0
    queued: bool = False


class Events:
    """The Events of one cluster. `tell` may be called by any thread; it neither waits nor raises.

    `clock` gives the moment. `instance` is which reconciler it is: its pod's name. `dropped` is called for each Event
    that is not written: the queue was full, a budget used up, or the cluster refused it.

    An Event waits for its namespace, which may be about to be made. Where rights are given in the namespace, as the
    chart does, one that is not there looks like one that is forbidden.
    """

    def __init__(
        self,
        writer: Writer,
        clock: Callable[[], datetime],
        dropped: Callable[[], None],
        *,
        component: str = "trueup",
        instance: str = "",
    ) -> None:
        self._writer = writer
        self._clock = clock
        self._dropped = dropped
        self._component = component
        self._instance = instance
        self._series: OrderedDict[_What, _Series] = OrderedDict()
        self._buckets: OrderedDict[ObjectId, _Bucket] = OrderedDict()
        self._all = _full(_OF_ALL, clock())
        self._queue: deque[_Series] = deque()
        self._changed = Condition()
        self._closed = False
        # What the sender alone knows: what waits, since the last look where nothing can be written, when the next look
        # is due, and what was said of which namespace.
        self._waiting: deque[_Series] = deque()
        self._shut: set[str] = set()
        self._look_at = 0.0
        self._said: dict[str, type[ApiError]] = {}
        self._sender = Thread(target=self._send_all, name="events", daemon=True)
        self._sender.start()

    def tell(
        self, regarding: ObjectId, reason: Reason, message: str, *, uid: str = "", related: ObjectId | None = None
    ) -> None:
        """Something happened to an object. `message` is a sentence, without any value that may be a secret.

        `uid` is that of the object: without it, `kubectl describe` does not show the Event. `related` is another
        object that has to do with it.
        """
        what, now = _What(regarding, uid, reason, _bounded(message)), self._clock()
        with self._changed:
            known = self._series.get(what)
            series = known if known is not None and now - known.last <= SERIES else _Series(what, related, now, now)
            if not series.queued:
                if not self._may_send(regarding, now):
                    if series is known:
                        series.count, series.last = series.count + 1, now  # told with the next one
                    else:
                        self._dropped()
                    return
                series.queued = True
                self._queue.append(series)
                self._changed.notify()
            series.count, series.last = series.count + 1, now
            _remember(self._series, what, series)

    def close(self, timeout_s: float = 2.0) -> None:
        """Sends what is waiting, for so long at the most, and ends."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._sender.join(timeout_s)

    def _may_send(self, regarding: ObjectId, now: datetime) -> bool:
        bucket = self._buckets.get(regarding) or _full(_OF_ONE, now)
        _remember(self._buckets, regarding, bucket)
        return len(self._queue) < _QUEUE and not self._closed and bucket.take(now) and self._all.take(now)

    # -- the sender's thread ----------------------------------------------------------------------------------------

    def _send_all(self) -> None:
        while (series := self._next()) is not None:
            namespace = namespace_of(series.what.regarding)
            if namespace in self._shut:
                self._keep(series)
                continue
            try:
                # By force: nobody else writes under our names.
                self._writer.apply(_body(series, self._component, self._instance), force=True)
            except (Forbidden, NamespaceMissing) as error:
                self._shut.add(namespace)
                self._keep(series)
                self._note(namespace, error)
            except ApiError as error:
                self._dropped()
                self._note(namespace, error)
            else:
                self._said.pop(namespace, None)
        for _ in self._waiting:
            self._dropped()

    def _keep(self, series: _Series) -> None:
        """Until the next look. What was told again meanwhile is in the queue, and comes by once more."""
        with self._changed:
            if series.queued:
                return
            if not self._waiting:
                self._look_at = monotonic() + _LOOK
            if len(self._waiting) >= _WAITING:
                self._waiting.popleft().queued = False
                self._dropped()
            series.queued = True
            self._waiting.append(series)

    def _look(self) -> None:
        """What waits is tried once more, and what has waited for too long is not worth it."""
        oldest = self._clock() - _TOO_OLD
        for series in self._waiting:
            if series.last >= oldest:
                self._queue.append(series)
            else:
                series.queued = False
                self._dropped()
        self._waiting.clear()
        self._shut.clear()

    def _next(self) -> _Series | None:
        with self._changed:
            while True:
                if self._waiting and monotonic() >= self._look_at:
                    self._look()
                if self._queue:
                    break
                if self._closed:
                    return None
                self._changed.wait(max(0.0, self._look_at - monotonic()) if self._waiting else None)
            series = self._queue.popleft()
            series.queued = False
            return series

    def _note(self, namespace: str, error: ApiError) -> None:
        """Of what goes on and on, a log says it once."""
        if self._said.get(namespace) is not type(error):
            self._said[namespace] = type(error)
            log.warning("an Event could not be written, and others may follow", namespace=namespace, error=error)


def namespace_of(regarding: ObjectId) -> str:
    """Where Events about an object are: in its namespace.

    Those about a Namespace are in it, and those about anything else without a namespace are in ours, so that no role
    reaches beyond the namespaces of the environments. The API wants the object to be said to be there, too.
    """
    inside = regarding.name if (regarding.api_version, regarding.kind) == ("v1", "Namespace") else NAMESPACE
    return regarding.namespace or inside


def _body(series: _Series, component: str, instance: str) -> Body:
    regarding, uid, reason, message = series.what
    namespace = namespace_of(regarding)
    body: Body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": _name(series, component, instance), "namespace": namespace},
        "involvedObject": _reference(regarding, namespace) | ({"uid": uid} if uid else {}),
        "reason": reason.value,
        "message": message,
        "type": "Warning" if reason in WARNINGS else "Normal",
        "count": series.count,
        "firstTimestamp": _timestamp(series.first),
        "lastTimestamp": _timestamp(series.last),
        "source": {"component": component} | ({"host": instance} if instance else {}),
        "reportingComponent": component,
        "reportingInstance": instance,
    }
    if series.related is not None:
        body["related"] = _reference(series.related, series.related.namespace)
    return body


def _reference(target: ObjectId, namespace: str) -> dict[str, Any]:
    reference = {"apiVersion": target.api_version, "kind": target.kind, "name": target.name}
    return reference | ({"namespace": namespace} if namespace else {})


def _name(series: _Series, component: str, instance: str) -> str:
    """Unique, and the same for each repetition; it begins with the object's name, as those of other controllers do."""
    told = repr((series.what, series.first, component, instance))
    digest = sha256(told.encode(errors="backslashreplace")).hexdigest()[:16]
    name = series.what.regarding.name[:_NAME].rstrip("-.")
    return f"{name if _SUBDOMAIN.fullmatch(name) else series.what.regarding.kind.lower()}.{digest}"


def _bounded(message: str) -> str:
    """One line that no terminal obeys, and no longer than the API takes."""
    encoded = clean(message).encode()
    return encoded.decode() if len(encoded) <= MESSAGE else encoded[: MESSAGE - 3].decode(errors="ignore") + "…"


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _full(rate: tuple[int, float], now: datetime) -> _Bucket:
    capacity, seconds = rate
    return _Bucket(capacity, seconds, now, capacity)


def _remember(known: OrderedDict[K, V], key: K, value: V) -> None:
    """As the newest; the oldest is forgotten where there are too many."""
    known[key] = value
    known.move_to_end(key)
    if len(known) > _REMEMBERED:
        known.popitem(last=False)
