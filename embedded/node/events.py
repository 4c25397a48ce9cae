"""Events: what `kubectl describe pod` tells of how it went. They go after an hour, as in a cluster."""

from __future__ import annotations

import logging
from collections import deque
from datetime import datetime, timedelta
from typing import Any

from embedded.deletion import timestamp
from embedded.errors import StatusError
from embedded.loop import Cluster

Object = dict[str, Any]

log = logging.getLogger(__name__)

#: How long an event is kept, and how long the same one is only counted, so that a container that crashes all day
#: does not write all day.
_KEPT, _SAME = timedelta(hours=1), timedelta(seconds=10)

_COMPONENT = "kubelet"


class Events:
    """Writes events about pods, and removes old ones."""

    def __init__(self, cluster: Cluster, host: str) -> None:
        self._cluster = cluster
        self._source = {"component": _COMPONENT, "host": host}
        self._recent: dict[tuple[str, str, str], tuple[datetime, str, int]] = {}
        self._ages: deque[tuple[datetime, str, str]] = deque()

    def start(self) -> None:
        """Take over what an earlier run has written."""
        for event in self._cluster.list("events"):
            if event.get("source") == self._source:
                metadata = event["metadata"]
                self._ages.append((self._cluster.now, metadata["namespace"], metadata["name"]))

    def record(self, pod: Object, reason: str, message: str, *, warning: bool = False) -> None:
        """Something happened to a pod."""
        now, metadata = self._cluster.now, pod["metadata"]
        self._expire(now)
        key = (metadata["uid"], reason, message)
        written, name, count = self._recent.get(key, (now, "", 0))
        if count and now - written < _SAME:
            self._recent[key] = (written, name, count + 1)
            return
        try:
            if count:
                self._count(metadata["namespace"], name, count + 1, now)
            else:
                name = self._create(pod, reason, message, now, warning=warning)
                self._ages.append((now, metadata["namespace"], name))
        except StatusError as refused:  # its namespace is going, for example: it is not worth more than a line
            log.info("%s of pod %s/%s: %s", reason, metadata["namespace"], metadata["name"], refused.message)
        self._recent[key] = (now, name, count + 1)

    def _create(self, pod: Object, reason: str, message: str, now: datetime, *, warning: bool) -> str:
        metadata = pod["metadata"]
        name = f"{metadata['name']}.{int(now.timestamp() * 1_000_000):x}"
        event = {
            "metadata": {"name": name},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
            "reason": reason,
            "message": message[:1024],
            "type": "Warning" if warning else "Normal",
            "source": self._source,
            "firstTimestamp": timestamp(now),
            "lastTimestamp": timestamp(now),
            "count": 1,
            "reportingComponent": _COMPONENT,
            "reportingInstance": self._source["host"],
        }
        self._cluster.create("events", metadata["namespace"], event)
        return name

    def _count(self, namespace: str, name: str, count: int, now: datetime) -> None:
        again = {"count": count, "lastTimestamp": timestamp(now)}
        self._cluster.update("events", namespace, name, lambda event: event.update(again))

    def _expire(self, now: datetime) -> None:
        while self._ages and now - self._ages[0][0] > _KEPT:
            _, namespace, name = self._ages.popleft()
            self._cluster.delete("events", namespace, name)
        if len(self._recent) > 1000:
            self._recent = {key: known for key, known in self._recent.items() if now - known[0] < _KEPT}
