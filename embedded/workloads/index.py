"""Which objects belong together, without reading them: kept from the events of the store.

`Cluster.list` reads and decodes every object of a resource. A controller that looks at one Deployment among thousands
asks here for the few names that matter, and reads those.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from embedded.kinds.problems import matches
from embedded.store import Event

Object = dict[str, Any]

PODS, SERVICES, EVENTS = "pods", "services", "events"
DEPLOYMENTS, REPLICA_SETS, JOBS = "deployments.apps", "replicasets.apps", "jobs.batch"
SLICES, BUDGETS, SCALED_OBJECTS = (
    "endpointslices.discovery.k8s.io",
    "poddisruptionbudgets.policy",
    "scaledobjects.keda.sh",
)

#: What is found by its labels or by its owner, and what selects others by their labels.
_FOUND = frozenset({PODS, REPLICA_SETS, SLICES})
_SELECTING = frozenset({SERVICES, DEPLOYMENTS, REPLICA_SETS, BUDGETS})

_Pair = tuple[str, str, str, str]  # resource, namespace, key and value of a label


class Key(NamedTuple):
    """What a key of the store names."""

    resource: str
    namespace: str
    name: str

    @property
    def path(self) -> str:
        """`namespace/name`, by which controllers call their objects."""
        return f"{self.namespace}/{self.name}"


def key_of(event: Event) -> Key:
    """What an event is about."""
    return Key(*event.key.split("/", 2))


@lru_cache(maxsize=16)
def decoded(body: bytes) -> Mapping[str, Any]:
    """The object of an event, decoded once for all controllers: to be read only."""
    obj: Mapping[str, Any] = orjson.loads(body)
    return obj


def states(event: Event) -> Iterator[Mapping[str, Any]]:
    """The object before and after an event: what it belonged to may have changed."""
    if event.previous is not None and event.previous != event.body:
        yield decoded(event.previous)
    yield decoded(event.body)


def controller_of(obj: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The owner reference of the object that manages this one."""
    references = obj["metadata"].get("ownerReferences") or ()
    return next((reference for reference in references if reference.get("controller")), None)


class _Entry(NamedTuple):
    """What is remembered of one object."""

    uid: str
    labels: Mapping[str, str]
    owner: str  # uid of its controller
    selector: Mapping[str, Any] | None
    anchor: _Pair | None  # the label by which its selector is found


class Index:
    """A controller that never has work: it stands first, so that the others find it up to date."""

    def __init__(self) -> None:
        self._entries: dict[Key, _Entry] = {}
        self._labelled: defaultdict[_Pair, set[str]] = defaultdict(set)
        self._owned: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self._anchored: defaultdict[_Pair, set[str]] = defaultdict(set)

    def keys(self, event: Event) -> Iterable[str]:
        """loop.Controller"""
        key = key_of(event)
        if key.resource in _FOUND or key.resource in _SELECTING:
            self._forget(key)
            if event.type != "DELETED":
                self._note(key, decoded(event.body))
        return ()

    def reconcile(self, _key: str) -> float | None:
        """loop.Controller"""
        return None

    def uid(self, resource: str, namespace: str, name: str) -> str:
        """Which object has a name, "" where none has."""
        entry = self._entries.get(Key(resource, namespace, name))
        return entry.uid if entry else ""

    def owned(self, resource: str, uid: str) -> list[str]:
        """The names of what an object controls, in order."""
        return sorted(self._owned.get((resource, uid), ()))

    def selected(self, resource: str, namespace: str, selector: Mapping[str, Any] | None) -> list[str]:
        """The names of what a LabelSelector selects, in order. None selects nothing."""
        if selector is None:
            return []
        pairs = [(resource, namespace, *pair) for pair in (selector.get("matchLabels") or {}).items()]
        sets = [self._labelled.get(pair, set()) for pair in pairs]
        candidates = min(sets, key=len) if sets else self._labelled.get((resource, namespace, "", ""), set())
        entries = self._entries
        return sorted(name for name in candidates if matches(selector, entries[Key(resource, namespace, name)].labels))

    def children(self, resource: str, owner: Mapping[str, Any]) -> list[str]:
        """The names of what an object owns, or selects and may adopt."""
        metadata, selector = owner["metadata"], owner["spec"].get("selector")
        owned = self.owned(resource, metadata["uid"])
        return sorted({*owned, *self.selected(resource, metadata["namespace"], selector)})

    def owners(self, event: Event, resource: str, kind: str) -> list[str]:
        """As "namespace/name": the owners of this kind of what an event is about, or who selects it where it has none.

        `resource` is the owners'.
        """
        key, names = key_of(event), set[str]()
        for found in states(event):
            reference = controller_of(found)
            if reference is None:
                names.update(self.selecting(resource, key.namespace, found["metadata"].get("labels") or {}))
            elif reference["kind"] == kind:
                names.add(reference["name"])
        return [f"{key.namespace}/{name}" for name in sorted(names)]

    def selecting(self, resource: str, namespace: str, labels: Mapping[str, str]) -> list[str]:
        """The names of what selects an object with these labels."""
        found: list[str] = []
        for pair in [("", ""), *labels.items()]:
            names = self._anchored.get((resource, namespace, *pair), ())
            found += [name for name in names if matches(self._entries[Key(resource, namespace, name)].selector, labels)]
        return found

    def _note(self, key: Key, obj: Mapping[str, Any]) -> None:
        labels = obj["metadata"].get("labels") or {}
        reference = controller_of(obj)
        owner = reference["uid"] if reference else ""
        selector = _selector(key, obj) if key.resource in _SELECTING else None
        anchor = self._anchor(key, selector) if selector is not None else None
        self._entries[key] = _Entry(obj["metadata"]["uid"], labels, owner, selector, anchor)
        if anchor is not None:
            self._anchored[anchor].add(key.name)
        if key.resource in _FOUND:
            for pair in [("", ""), *labels.items()]:
                self._labelled[(key.resource, key.namespace, *pair)].add(key.name)
        if owner:
            self._owned[key.resource, owner].add(key.name)

    def _anchor(self, key: Key, selector: Mapping[str, Any]) -> _Pair:
        """The label that fewest others ask for: thousands of Services share `managed-by`, and few a model's name."""
        pairs = [(key.resource, key.namespace, *pair) for pair in (selector.get("matchLabels") or {}).items()]
        return min(pairs, key=lambda pair: len(self._anchored.get(pair, ())), default=(*key[:2], "", ""))

    def _forget(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        if entry.anchor is not None:
            _discard(self._anchored, entry.anchor, key.name)
        if key.resource in _FOUND:
            for pair in [("", ""), *entry.labels.items()]:
                _discard(self._labelled, (key.resource, key.namespace, *pair), key.name)
        if entry.owner:
            _discard(self._owned, (key.resource, entry.owner), key.name)


def _selector(key: Key, obj: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """As a LabelSelector. A Service without one selects nothing: somebody else writes its endpoints."""
    selector: Mapping[str, Any] | None = (obj.get("spec") or {}).get("selector")
    if key.resource == SERVICES:
        return {"matchLabels": selector} if selector else None
    return selector


def _discard(sets: defaultdict[Any, set[str]], where: tuple[str, ...], name: str) -> None:
    members = sets.get(where)
    if members is not None:
        members.discard(name)
        if not members:
            del sets[where]
