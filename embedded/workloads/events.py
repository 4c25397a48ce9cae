"""Events as `kubectl describe` shows them: what a controller did to an object, and how often.

One that repeats is counted instead of written again. All Events of a data plane together are bounded: those of the
last hour, and no more than a thousand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from embedded.deletion import timestamp
from embedded.errors import StatusError
from embedded.loop import Cluster
from embedded.store import Event
from embedded.workloads.index import EVENTS, Key, decoded, key_of

Object = dict[str, Any]

#: How long an Event is kept (as a cluster does by default), and how many there may be.
KEPT, MOST = timedelta(hours=1), 1000


class _Sameness(NamedTuple):
    """Two Events of one object that agree in this are one."""

    uid: str
    component: str
    type: str
    reason: str
    message: str


class Recorder:
    """Writes Events, and removes old ones. A controller of its own: what others write is bounded, too."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._last: dict[Key, tuple[_Sameness, str]] = {}  # by when they were seen last, oldest first
        self._known: dict[_Sameness, Key] = {}

    def record(self, about: Mapping[str, Any], component: str, kind: str, reason: str, message: str) -> None:
        """Tell of an object, which has apiVersion and kind. `kind` is Normal or Warning, `message` a sentence."""
        metadata, now = about["metadata"], self._cluster.now
        known = self._known.get(_Sameness(metadata["uid"], component, kind, reason, message))
        if known is not None:
            self._cluster.update(EVENTS, known.namespace, known.name, lambda event: _again(event, now))
            return
        namespace = metadata.get("namespace", "default")
        event = {
            # Unique, and in the order of time, as in a cluster.
            "metadata": {"name": f"{metadata['name'][:230]}.{int(now.timestamp() * 1_000_000_000):x}"},
            "involvedObject": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "namespace": metadata.get("namespace", ""),
                "name": metadata["name"],
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": component},
            "reportingComponent": component,
            "firstTimestamp": timestamp(now),
            "lastTimestamp": timestamp(now),
            "count": 1,
        }
        try:
            self._cluster.create(EVENTS, namespace, event)
        except StatusError as refused:
            # A namespace that is going takes no Events, and nobody would read them.
            if refused.code not in (403, 404):
                raise

    def keys(self, event: Event) -> Iterable[str]:
        """loop.Controller"""
        key = key_of(event)
        if key.resource != EVENTS:
            return ()
        seen = self._last.pop(key, None)
        if seen is not None and self._known.get(seen[0]) == key:
            del self._known[seen[0]]
        if event.type == "DELETED":
            return ()
        same, last = _sameness(decoded(event.body))
        self._last[key] = (same, last)
        self._known[same] = key
        return ("old",)

    def reconcile(self, _key: str) -> float | None:
        """Remove what is old, or too much."""
        oldest = timestamp(self._cluster.now - KEPT)
        while self._last:
            key, (_, last) = next(iter(self._last.items()))
            if last > oldest and len(self._last) <= MOST:
                written = datetime.fromisoformat(last)
                return max((written + KEPT - self._cluster.now).total_seconds(), 1.0)
            self._last.pop(key, None)
            self._cluster.delete(EVENTS, key.namespace, key.name)
        return None


def _again(event: Object, now: datetime) -> None:
    event["count"] = event.get("count", 1) + 1
    event["lastTimestamp"] = timestamp(now)


def _sameness(event: Mapping[str, Any]) -> tuple[_Sameness, str]:
    """What an Event has in common with its repetitions, and when it was seen last."""
    involved, source = event.get("involvedObject") or {}, event.get("source") or {}
    same = _Sameness(
        involved.get("uid", ""),
        source.get("component") or event.get("reportingComponent") or "",
        event.get("type", ""),
        event.get("reason", ""),
        event.get("message", ""),
    )
    last = event.get("lastTimestamp") or (event.get("eventTime") or "")[:19] or event["metadata"]["creationTimestamp"]
    return same, last if last.endswith("Z") else f"{last}Z"
