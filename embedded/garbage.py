"""Owners and dependents: who goes when whom is deleted (metadata.ownerReferences)."""

from __future__ import annotations

from typing import Any

import orjson

from embedded.deletion import FOREGROUND, ORPHAN, DeleteOptions
from embedded.objects import Object, Objects, Target


class GarbageCollector:
    """Deletes dependents whose owners are all gone, and does what the deletion of an owner waits for."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._dependents: dict[str, set[str]] = {}  # uid of an owner -> keys
        self._owners: dict[str, list[dict[str, Any]]] = {}  # key -> its owner references

    def note(self, key: str, body: bytes) -> None:
        """An object was written: remember who owns it."""
        self._forget(key)
        if b'"ownerReferences"' in body:
            self._owners[key] = orjson.loads(body)["metadata"].get("ownerReferences") or []
            for reference in self._owners[key]:
                self._dependents.setdefault(reference["uid"], set()).add(key)

    def deleted(self, key: str, uid: str) -> None:
        """An object is gone: so are those that only it owned; and an owner may have waited for it."""
        references = self._owners.get(key, [])
        self._forget(key)
        for dependent in sorted(self._dependents.get(uid, ())):
            self._collect(dependent, uid)
        for reference in references:
            owner, obj = self._owner(key, reference)
            if owner is not None and obj is not None:
                self.deleting(owner, obj)

    def deleting(self, target: Target, obj: Object) -> None:
        """The deletion of an owner has begun, or gone on."""
        uid, finalizers = obj["metadata"]["uid"], obj["metadata"].get("finalizers", ())
        dependents = sorted(self._dependents.get(uid, ()))
        if "deletionTimestamp" not in obj["metadata"]:
            return
        if ORPHAN in finalizers:
            for key in dependents:
                self._let_go(key, uid)
            self._objects.drop_finalizer(target, ORPHAN)
        elif FOREGROUND in finalizers and dependents:
            for key in dependents:
                self._delete(key, "Foreground")
        elif FOREGROUND in finalizers:
            self._objects.drop_finalizer(target, FOREGROUND)

    def _collect(self, key: str, gone: str) -> None:
        others = [reference for reference in self._owners.get(key, ()) if reference["uid"] != gone]
        if any(self._owner(key, reference)[1] is not None for reference in others):
            self._let_go(key, gone)
        else:
            self._delete(key, "Background")

    def _delete(self, key: str, propagation: str) -> None:
        target = self._objects.target_of(key)
        obj = self._objects.read(target)
        if obj is not None and "deletionTimestamp" not in obj["metadata"]:
            self._objects.delete(target, DeleteOptions(propagation=propagation))

    def _let_go(self, key: str, uid: str) -> None:
        left = [reference for reference in self._owners.get(key, ()) if reference["uid"] != uid]

        def change(obj: Object) -> None:
            obj["metadata"].pop("ownerReferences", None)
            if left:
                obj["metadata"]["ownerReferences"] = left

        self._objects.adjust(self._objects.target_of(key), change)

    def _owner(self, key: str, reference: dict[str, Any]) -> tuple[Target | None, Object | None]:
        """Where an owner should be, and the owner; None for each that is not there."""
        kind = self._objects.registry.find_kind(reference["apiVersion"].rpartition("/")[0], reference["kind"])
        if kind is None:
            return None, None
        target = Target(kind, key.split("/")[1] if kind.namespaced else "", reference["name"])
        obj = self._objects.read(target)
        return target, obj if obj is not None and obj["metadata"]["uid"] == reference["uid"] else None

    def _forget(self, key: str) -> None:
        for reference in self._owners.pop(key, ()):
            keys = self._dependents.get(reference["uid"], set())
            keys.discard(key)
            if not keys:
                self._dependents.pop(reference["uid"], None)
