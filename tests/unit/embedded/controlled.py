"""A store with workload controllers and a clock, for tests: no server, no waiting, every step seen."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from embedded import kinds, workloads
from embedded.controllers import Controllers
from embedded.loop import Cluster, Controller
from embedded.objects import Objects
from embedded.registry import Registry
from embedded.store import Event, Store, prefix_of

Object = dict[str, Any]


class _Watched(Store):
    """A store whose writes can fail."""

    before_write: Callable[[str], Any] | None = None

    def put(self, key: str, body: Object) -> bytes:
        if self.before_write is not None:
            self.before_write(key)
        return super().put(key, body)

    def remove(self, key: str, body: Object) -> bytes:
        if self.before_write is not None:
            self.before_write(key)
        return super().remove(key, body)


class Controlled:
    """Controllers on a store in a directory. `settle` runs them until there is no work left at this moment."""

    def __init__(self, directory: Path) -> None:
        self.now = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
        self.store = _Watched(directory)
        self._objects = Objects(self.store, Registry(kinds.BUILTIN), lambda: self.now)
        self._reactions = Controllers(self._objects)
        self._reactions.start()
        #: As a user: what the tests do.
        self.user = self.cluster("user")
        self.writes: list[Event] = []
        self.store.listen("", self.writes.append)
        self._restart()

    def close(self) -> None:
        self.store.close()

    def before_write(self, call: Callable[[str], Any] | None) -> None:
        """Have something called before each write, with its key: what raises there is a crash at that point."""
        self.store.before_write = call

    def cluster(self, manager: str) -> Cluster:
        return Cluster(self._objects, self._reactions, manager)

    def _restart(self) -> None:
        """Controllers that know nothing yet, as after a crash."""
        self._controllers = workloads.controllers(self.cluster)
        self._queue: dict[tuple[int, str], None] = {}
        self._timers: list[tuple[datetime, int, tuple[int, str]]] = []
        self._ties = itertools.count()
        self.store.forget(self._on_event)
        self.store.listen("", self._on_event)
        for resource in self._objects.registry.stored_resources():
            for key, body in list(self.store.scan(prefix_of(resource))):
                self._on_event(Event(0, key, "ADDED", body, None))

    def restart(self) -> None:
        """A crash, and a new start."""
        self._restart()

    def clear(self) -> Controlled:
        """As new, for the next example of a property: making another one takes half a second."""
        self.before_write(None)
        self.restart()
        for resource in ("deployments.apps", "jobs.batch", "pods"):
            for found in self.list(resource):
                self.user.delete(resource, "default", found["metadata"]["name"], grace_seconds=0)
        self.settle()
        for pod in self.list("pods"):
            self.gone(pod)
        self.settle()
        assert self.store.count("pods/") == self.store.count("replicasets.apps/") == 0
        self.writes.clear()
        return self

    def _on_event(self, event: Event) -> None:
        for number, controller in enumerate(self._controllers):
            for key in controller.keys(event):
                self._queue[number, key] = None

    def step(self) -> bool:
        """One look of one controller; whether there was anything to look at."""
        due = next(iter(self._queue), None)
        if due is None:
            return False
        del self._queue[due]
        again = self._at(due).reconcile(due[1])
        if again is not None:
            heapq.heappush(self._timers, (self.now + timedelta(seconds=again), next(self._ties), due))
        return True

    def _at(self, due: tuple[int, str]) -> Controller:
        return self._controllers[due[0]]

    def settle(self, each: Callable[[], Any] = lambda: None) -> int:
        """Everything there is to do now; `each` is called after every look. Gives the number of looks."""
        looks = 0
        while self.step():
            each()
            looks += 1
            assert looks < 20_000, f"no end of work: {list(self._queue)[:5]}"
        return looks

    def wait(self, seconds: float) -> None:
        """Let time pass; what was to be looked at again by then is."""
        until = self.now + timedelta(seconds=seconds)
        while self._timers and self._timers[0][0] <= until:
            self.now, _, due = heapq.heappop(self._timers)
            self._queue[due] = None
            self.settle()
        self.now = until
        self.settle()

    # What tests ask for

    def create(self, resource: str, name: str, spec: Object, **metadata: Any) -> Object:
        created = self.user.create(resource, "default", {"metadata": {"name": name, **metadata}, "spec": spec})
        assert created is not None
        return created

    def get(self, resource: str, name: str) -> Object:
        found = self.user.get(resource, "default", name)
        assert found is not None, f"no {resource} {name}"
        return found

    def list(self, resource: str, **labels: str) -> list[Object]:
        return self.user.list(resource, "default", labels)

    def change(self, resource: str, name: str, change: Callable[[Object], Any], subresource: str = "") -> None:
        self.user.update(resource, "default", name, change, subresource)

    def spec(self, resource: str, name: str, **fields: Any) -> None:
        self.change(resource, name, lambda obj: obj["spec"].update(fields))

    def pods(self, **labels: str) -> list[Object]:
        """Those that are not being deleted."""
        return [pod for pod in self.list("pods", **labels) if "deletionTimestamp" not in pod["metadata"]]

    def ready(self, pod: Object, *, ready: bool = True, ip: str = "10.1.2.3") -> None:
        stamp = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        conditions = [{"type": "Ready", "status": str(ready), "lastTransitionTime": stamp}]
        fields = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": conditions}
        self.change("pods", pod["metadata"]["name"], lambda obj: obj["status"].update(fields), "status")

    def ended(self, pod: Object, code: int = 0) -> None:
        stamp = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        ended = {"exitCode": code, "startedAt": stamp, "finishedAt": stamp}
        one = {"name": "main", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
        fields = {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [one | {"state": {"terminated": ended}}],
        }
        self.change("pods", pod["metadata"]["name"], lambda obj: obj["status"].update(fields), "status")

    def gone(self, pod: Object) -> None:
        self.user.delete("pods", "default", pod["metadata"]["name"], grace_seconds=0)


def deployment(name: str = "web", image: str = "v1", **spec: Any) -> Object:
    template = {"metadata": {"labels": {"app": name}}, "spec": pod_spec(image)}
    return {"selector": {"matchLabels": {"app": name}}, "template": template, **spec}


def job(**spec: Any) -> Object:
    return {"template": {"spec": {"restartPolicy": "Never", **pod_spec("v1")}}, **spec}


def pod_spec(image: str) -> Object:
    container = {"name": "main", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}
    return {"nodeName": "embedded", "containers": [container]}


def image_of(obj: Object) -> str:
    """Of a Pod, or of a workload's template."""
    spec = obj["spec"].get("template", obj)["spec"]
    return str(spec["containers"][0]["image"])


def condition(obj: Object, kind: str) -> Object:
    found = (one for one in obj.get("status", {}).get("conditions", ()) if one["type"] == kind)
    return next(found, {})
