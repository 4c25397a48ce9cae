"""What follows from a write: the few controllers of a cluster without which its API does not behave like one.

Namespaces are filled, emptied and removed, CustomResourceDefinitions begin and end to be served, owners take along
what they own. Each reacts to events of the store, as in a real cluster; unlike there, they have finished before the
request that caused the event is answered, so that nobody has to wait.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import orjson

from embedded import kinds
from embedded.deletion import CRD_CLEANUP, CRDS, DeleteOptions
from embedded.garbage import GarbageCollector
from embedded.objects import Object, Objects, Options, Target
from embedded.store import Event, key_of, prefix_of

#: The field manager of what the server itself writes.
MANAGER = "embedded"

_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_API_SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
    "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443, "targetPort": 6443}]},
}


class Controllers:
    """React to what happens in a store: `start` once, `run` after each write."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._registry = objects.registry
        self._store = objects.store
        self._garbage = GarbageCollector(objects)
        self._queue: deque[Event] = deque()
        self._store.listen("", self._queue.append)

    def start(self) -> None:
        """Bring a store up to date: what every cluster has is there, and what a dead server had begun is finished."""
        for key, body in self._store.scan(prefix_of(CRDS)):
            self._serve(key.rpartition("/")[2], orjson.loads(body))
        for resource in self._registry.stored_resources():
            for key, body in self._store.scan(prefix_of(resource)):
                self._garbage.note(key, body)
        for crd in kinds.shipped_crds():
            self._apply("", crd)
        self.run()  # from here on the kinds of the definitions are served
        for namespace in _NAMESPACES:
            self._apply("", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        self._apply("default", _API_SERVICE)
        for resource in ("namespaces", CRDS):
            for key, body in list(self._store.scan(prefix_of(resource))):
                self._on_change(key, orjson.loads(body))
        self.run()

    def run(self) -> None:
        """React to every event since the last time, and to those that the reactions make."""
        while self._queue:
            event = self._queue.popleft()
            if event.type == "DELETED":
                self._on_deleted(event.key, orjson.loads(event.body))
                continue
            self._garbage.note(event.key, event.body)
            if event.key.startswith(("namespaces/", f"{CRDS}/")) or b'"deletionTimestamp"' in event.body:
                self._on_change(event.key, orjson.loads(event.body))

    def _on_change(self, key: str, obj: Object) -> None:
        resource, _, name = key.split("/", 2)
        deleting = "deletionTimestamp" in obj["metadata"]
        if resource == CRDS:
            self._serve(name, obj)
        if resource == CRDS and deleting:
            self._delete_all(name)
            self._finish_definition(name)
        elif resource == "namespaces" and deleting:
            for stored in self._registry.stored_resources(namespaced=True):
                self._delete_all(stored, name)
            self._finish_namespace(name)
        elif resource == "namespaces":
            self._fill_namespace(name)
        if deleting:
            self._garbage.deleting(self._objects.target_of(key), obj)

    def _on_deleted(self, key: str, obj: Object) -> None:
        resource, namespace, name = key.split("/", 2)
        self._garbage.deleted(key, obj["metadata"]["uid"])
        if namespace:
            self._finish_namespace(namespace)
        if self._registry.is_custom(resource):
            self._finish_definition(resource)
        if resource == CRDS:
            self._registry.uninstall(name)

    # Namespaces

    def _fill_namespace(self, name: str) -> None:
        """Every namespace has a service account, as which Pods run that name none."""
        if self._store.get(key_of("serviceaccounts", name, "default")) is None:
            self._apply(name, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}})

    def _finish_namespace(self, name: str) -> None:
        """Let a namespace go that is being deleted and has become empty."""
        target = self._objects.target_of(key_of("namespaces", "", name))
        namespace = self._objects.read(target)
        if namespace is None or "deletionTimestamp" not in namespace["metadata"]:
            return
        resources = self._registry.stored_resources(namespaced=True)
        if not any(self._store.count(prefix_of(resource, name)) for resource in resources):
            self._objects.adjust(target, lambda obj: obj.update(spec={}))

    # CustomResourceDefinitions

    def _serve(self, name: str, crd: Object) -> None:
        whole = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", **crd}
        self._registry.install(name, kinds.kinds_of_crd(whole))

    def _finish_definition(self, name: str) -> None:
        """Let a definition go that is being deleted and of whose kind there is no object any more."""
        target = self._objects.target_of(key_of(CRDS, "", name))
        crd = self._objects.read(target)
        if crd is not None and "deletionTimestamp" in crd["metadata"] and not self._store.count(prefix_of(name)):
            self._objects.drop_finalizer(target, CRD_CLEANUP)

    # What both need

    def _delete_all(self, resource: str, namespace: str = "") -> None:
        keys = [key for key, _ in self._store.scan(prefix_of(resource, namespace))]
        with self._store.transaction():
            for key in keys:
                target = self._objects.target_of(key)
                obj = self._objects.read(target)
                if obj is not None and "deletionTimestamp" not in obj["metadata"]:
                    self._objects.delete(target, DeleteOptions(propagation="Background", grace_seconds=0))

    def _apply(self, namespace: str, obj: Object) -> None:
        kind = self._registry.find_kind(obj["apiVersion"].rpartition("/")[0], obj["kind"])
        assert kind is not None
        target = Target(kind, namespace, obj["metadata"]["name"])
        self._objects.apply(target, orjson.loads(orjson.dumps(obj)), Options(MANAGER, force=True), [])
