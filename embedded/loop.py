"""Controllers that take their time: each looks again at an object when something about it changed, and acts.

What the API server itself does after a write is in `controllers`, and has happened when the write is answered.
Deployments, Jobs, endpoints, running Pods and the gateway follow here, as they do in a cluster: later, each in its own
pace, and only through objects of the store. All of it runs in the one thread that owns the store, so that nothing
changes between what a controller reads and what it writes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import orjson

from embedded.controllers import Controllers
from embedded.deletion import DeleteOptions
from embedded.errors import StatusError
from embedded.objects import Object, Objects, Options, Target
from embedded.store import Event, key_of, prefix_of

log = logging.getLogger(__name__)

#: Seconds after which a look that failed is repeated; doubled each time.
_RETRY_SECONDS, _RETRY_MOST = 0.2, 30.0


class Cluster:
    """The objects, as a controller reads and writes them. A resource is named `pods` or `deployments.apps`.

    `manager` is the field manager of what is written.
    """

    def __init__(self, objects: Objects, controllers: Controllers, manager: str) -> None:
        self._objects = objects
        self._controllers = controllers
        self._options = Options(manager)

    @property
    def now(self) -> datetime:
        """The moment, in UTC."""
        return self._objects.clock()

    def get(self, resource: str, namespace: str, name: str) -> Object | None:
        """One object; None where it does not exist."""
        return self._objects.read(self._target(resource, namespace, name))

    def read(self, resource: str, namespace: str, names: Iterable[str]) -> list[Object]:
        """Those of the named objects that exist, in this order."""
        found = (self.get(resource, namespace, name) for name in names)
        return [obj for obj in found if obj is not None]

    def list(self, resource: str, namespace: str = "", labels: Mapping[str, str] | None = None) -> list[Object]:
        """All objects of a resource, in one namespace or in all ("") and with these labels, in order of name."""
        wanted = (labels or {}).items()
        found: list[Object] = []
        for key, _ in list(self._objects.store.scan(prefix_of(resource, namespace))):
            obj = self._objects.read(self._objects.target_of(key))
            if obj is not None and wanted <= obj["metadata"].get("labels", {}).items():
                found.append(obj)
        return found

    def create(self, resource: str, namespace: str, obj: Object) -> Object | None:
        """A new object (`metadata.name`, or `generateName`), as it was stored; None where it exists already."""
        target = self._target(resource, namespace, "")
        body = {"apiVersion": target.kind.api_version, "kind": target.kind.kind, **orjson.loads(orjson.dumps(obj))}
        try:
            answer = self._objects.create(target, body, self._options, [])
        except StatusError as refused:
            if refused.code == 409 and refused.reason == "AlreadyExists":
                return None
            raise
        self._controllers.run()
        created: Object = orjson.loads(answer.body)
        return created

    def update(
        self, resource: str, namespace: str, name: str, change: Callable[[Object], Any], subresource: str = ""
    ) -> None:
        """Change an object in place, or its `status` alone; nothing where it is gone or where nothing changes."""

        def changed(live: Object) -> Object:
            copy: Object = orjson.loads(orjson.dumps(live))
            change(copy)
            return copy

        with _gone_is_fine(404):
            self._objects.patch(self._target(resource, namespace, name, subresource), changed, self._options)
            self._controllers.run()

    def set_status(self, resource: str, namespace: str, name: str, status: Object) -> None:
        """Replace the status of an object; nothing where it is gone or has this status already."""
        self.update(resource, namespace, name, lambda obj: obj.update(status=status), "status")

    def delete(
        self, resource: str, namespace: str, name: str, *, uid: str = "", grace_seconds: int | None = None
    ) -> None:
        """Delete an object, and in the background what it owns; nothing where it is gone, or another one by now."""
        options = DeleteOptions(uid=uid, propagation="Background", grace_seconds=grace_seconds)
        with _gone_is_fine(404, 409):
            self._objects.delete(self._target(resource, namespace, name), options)
            self._controllers.run()

    def _target(self, resource: str, namespace: str, name: str, subresource: str = "") -> Target:
        target = self._objects.target_of(key_of(resource, namespace, name))
        return target._replace(subresource=subresource)


@contextmanager
def _gone_is_fine(*codes: int) -> Iterator[None]:
    """Nothing happens where the object is gone (404), or was changed by somebody else meanwhile (409)."""
    try:
        yield
    except StatusError as refused:
        if refused.code not in codes:
            raise


class Controller(Protocol):
    """Brings one kind of thing to the state that it should have. Levels, not edges: an event may come twice or late."""

    def keys(self, event: Event) -> Iterable[str]:
        """What to look at again because of an event. At the start there is an ADDED event for every object."""

    def reconcile(self, key: str) -> float | None:
        """Looks, and acts. In how many seconds to look again without an event; None: not at all."""


class _Due(NamedTuple):
    controller: Controller
    key: str


def retry_seconds(failures: int) -> float:
    """When a look that has failed so often in a row is repeated."""
    # A power that grows for a night of failures is too large for a float, and the last one would be the last look.
    return min(_RETRY_SECONDS * 2.0 ** min(failures, 10), _RETRY_MOST)


class Loop:
    """Runs controllers on the events of a store, in the asyncio loop in which `start` is called."""

    def __init__(self, objects: Objects, controllers: Sequence[Controller]) -> None:
        self._store = objects.store
        self._registry = objects.registry
        self._controllers = controllers
        self._queue: dict[_Due, None] = {}  # a set in order
        self._timers: dict[_Due, asyncio.TimerHandle] = {}
        self._failures: dict[_Due, int] = {}
        self._scheduled: asyncio.Handle | None = None
        self._loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        """Looks at everything there is, and from then on at what changes."""
        self._loop = asyncio.get_running_loop()
        self._store.listen("", self._on_event)
        for resource in self._registry.stored_resources():
            for key, body in list(self._store.scan(prefix_of(resource))):
                self._on_event(Event(0, key, "ADDED", body, None))

    def stop(self) -> None:
        """No controller is called any more."""
        self._store.forget(self._on_event)
        for timer in self._timers.values():
            timer.cancel()
        if self._scheduled is not None:
            self._scheduled.cancel()
        self._queue.clear()

    def enqueue(self, controller: Controller, key: str) -> None:
        """Have a controller look at something again, soon: for what happens outside the store, like a process's end."""
        due = _Due(controller, key)
        if (timer := self._timers.pop(due, None)) is not None:
            timer.cancel()
        self._queue[due] = None
        if self._scheduled is None:
            self._scheduled = self._loop.call_soon(self._work)

    def _on_event(self, event: Event) -> None:
        for controller in self._controllers:
            try:
                keys = list(controller.keys(event))
            except Exception:  # the write has happened, and its answer must not depend on who reacts to it
                log.exception("%s could not read %s", type(controller).__name__, event.key)
                continue
            for key in keys:
                self.enqueue(controller, key)

    def _work(self) -> None:
        """One piece of work at a time: requests come in between."""
        self._scheduled = None
        due = next(iter(self._queue), None)
        if due is None:
            return
        del self._queue[due]
        again = self._reconcile(due)
        if again is not None and due not in self._queue:
            self._timers[due] = self._loop.call_later(again, self.enqueue, *due)
        if self._queue and self._scheduled is None:
            self._scheduled = self._loop.call_soon(self._work)

    def _reconcile(self, due: _Due) -> float | None:
        try:
            again = due.controller.reconcile(due.key)
        except Exception:  # one object that cannot be handled must not stop the others
            failures = self._failures[due] = self._failures.get(due, 0) + 1
            log.exception("%s could not handle %s", type(due.controller).__name__, due.key)
            return retry_seconds(failures)
        self._failures.pop(due, None)
        return again
