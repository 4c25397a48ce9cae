"""What one watch knows of its objects: entries, and what each event means for them. Pure but for a lock.

An entry holds what comparison needs, and the object itself only as compressed text: thousands of decoded objects
would take ten times the memory, and hardly any of them is ever looked at.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from threading import Lock
from typing import Literal, NamedTuple, TypeAlias

import orjson

from reconciler.cluster.objects import WatchEvent, is_ours
from renderers.manifest import Body, ObjectId


class Watched(NamedTuple):
    """Objects that are watched together: a kind, in one namespace or in all ("") of them, with these labels.

    `labels` is a label selector of equalities and existences: "app=x,trueup.dev/environment", "" for all objects.
    """

    api_version: str
    kind: str
    namespace: str = ""
    labels: str = ""

    def __str__(self) -> str:
        return f"{self.kind} in {self.namespace or 'all namespaces'}" + (f" with {self.labels}" if self.labels else "")


class Entry(NamedTuple):
    """What is kept of an object."""

    uid: str
    version: str  #: its resourceVersion
    #: Hash of everything that a person or a controller may have changed in it: all but the status and its bookkeeping
    fingerprint: bytes
    state: str  #: what the cache's `judge` said; "" where it could not
    labels: Mapping[str, str]
    blob: bytes  #: see `unpack`


class Heard(NamedTuple):
    """What an event changed. Own writes are not heard, as whoever made them knows.

    ADDED and DELETED say what they say. CHANGED: the fingerprint differs, also because the object was deleted and made
    anew. STATUS: only the status or the bookkeeping differs, so it cannot be drift. COMPLETE: from now on the watch
    knows all its objects (`target` has no name); after its first list that stands for all of them.
    """

    watched: Watched
    target: ObjectId
    how: Literal["ADDED", "CHANGED", "STATUS", "DELETED", "COMPLETE"]
    #: As last seen before, as these tell whose object it was; its own where it is new
    labels: Mapping[str, str] = {}
    was: str = ""  #: the state before
    state: str = ""  #: the state now


class OddObjectError(ValueError):
    """What came is not an object as the API has them. The sentence says why."""


# -- selectors ------------------------------------------------------------------------------------------------------

#: (key, value); no value where the key only has to exist.
Requirement: TypeAlias = tuple[str, str | None]

_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][\w./-]*)\s*(?:==?\s*([\w.-]*)\s*)?", re.ASCII)


@lru_cache(1024)
def requirements(selector: str) -> tuple[Requirement, ...] | None:
    """What a label selector asks for; None where it asks for more than equality and existence."""
    if not selector.strip():
        return ()
    found = [_REQUIREMENT.fullmatch(part) for part in selector.split(",")]
    return tuple((match[1], match[2]) for match in found if match) if all(found) else None


def meets(labels: Mapping[str, str], asked: Iterable[Requirement]) -> bool:
    """Whether labels meet all requirements."""
    return all(key in labels and value in (None, labels[key]) for key, value in asked)


def implies(asked: tuple[Requirement, ...], watched: tuple[Requirement, ...]) -> bool:
    """Whether whatever meets `asked` meets `watched`."""
    keys = {key for key, _ in asked}
    return all(one in asked or (one[1] is None and one[0] in keys) for one in watched)


# -- entries --------------------------------------------------------------------------------------------------------

#: What changes by itself, or with anything else.
_BOOKKEEPING = frozenset({"managedFields", "resourceVersion", "generation"})
#: What reading an object that is not one runs into.
_ODD = (AttributeError, IndexError, KeyError, TypeError, ValueError)

Judge: TypeAlias = Callable[[Body], str]


class Meta(NamedTuple):
    """What the API promises of every object."""

    namespace: str
    name: str
    uid: str
    version: str
    labels: dict[str, str]


def _meta(body: object) -> Meta:
    metadata = body.get("metadata") if isinstance(body, dict) else None
    if not isinstance(metadata, dict):
        raise OddObjectError("an object without metadata")
    name, namespace, labels = metadata.get("name"), metadata.get("namespace") or "", metadata.get("labels") or {}
    uid, version = metadata.get("uid"), metadata.get("resourceVersion")
    if not (isinstance(name, str) and name and isinstance(namespace, str)):
        raise OddObjectError("an object without a name")
    if not (isinstance(uid, str) and isinstance(version, str)):
        raise OddObjectError(f"{name}: it has no uid or no resourceVersion")
    if not (isinstance(labels, dict) and all(isinstance(value, str) for value in labels.values())):
        raise OddObjectError(f"{name}: its labels are not texts")
    return Meta(namespace, name, uid, version, labels)


def _version(body: object) -> str:
    """Of a bookmark, which has nothing else."""
    metadata = body.get("metadata") if isinstance(body, dict) else None
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    return version if isinstance(version, str) else ""


def pack(body: Body, meta: Meta, judge: Judge) -> tuple[Entry, str]:
    """The entry of an object, and a sentence where `judge` could not judge it. Raises OddObjectError.

    What cannot be judged is kept all the same: it exists, and only its state is unknown.
    """
    state = odd = ""
    try:
        state = judge(body)
    except _ODD as error:  # its words may quote the object, which may be a Secret
        odd = f"{meta.name}: its state cannot be told ({type(error).__name__})"
    try:
        return _packed(body, meta, state), odd
    except _ODD as error:  # such as nesting that is deeper than anybody means
        raise OddObjectError(f"{meta.name}: it cannot be kept ({type(error).__name__})") from error


def _packed(body: Body, meta: Meta, state: str) -> Entry:
    metadata = body["metadata"]
    essence = {key: value for key, value in body.items() if key != "status"}
    essence["metadata"] = {key: value for key, value in metadata.items() if key not in _BOOKKEEPING}
    digest = hashlib.blake2b(orjson.dumps(essence, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()
    kept = {key: value for key, value in metadata.items() if key != "managedFields"}
    # Whether the number of pods is ours is told by our own entry, and by nothing else.
    if body.get("kind") == "Deployment" and (ours := [e for e in metadata.get("managedFields") or () if is_ours(e)]):
        kept["managedFields"] = ours
    blob = zlib.compress(orjson.dumps({**body, "metadata": kept}), 1)
    labels = {_shared(key): _shared(value) for key, value in meta.labels.items()}
    return Entry(meta.uid, meta.version, digest, state, labels, blob)


_SHARED_AT_MOST = 20_000
_shared_texts: dict[str, str] = {}


def _shared(text: str) -> str:
    """The same text, once in memory: objects share most of their labels. `sys.intern` would keep them for ever."""
    if len(_shared_texts) >= _SHARED_AT_MOST:
        _shared_texts.clear()
    return _shared_texts.setdefault(text, text)


def unpack(entry: Entry) -> bytes:
    """The object as JSON, without managedFields; of a Deployment with those of our own applies."""
    return zlib.decompress(entry.blob)


# -- what an event means --------------------------------------------------------------------------------------------

#: How long an own write that took an object away is remembered, in seconds. A watch that lags further is broken.
_REMEMBERED = 600.0


def _number(version: str) -> int | None:
    return int(version) if version.isascii() and version.isdecimal() and len(version) < 40 else None


def order(version: str) -> int:
    """The place of a version among those of an object."""
    return _number(version) or 0


def _is_newer(version: str, than: str, *, unknown: bool) -> bool:
    """As numbers, which Kubernetes promises since 1.35. `unknown` is the answer where one of them is none."""
    one, other = _number(version), _number(than)
    return unknown if one is None or other is None else one > other


class Shelf:
    """The entries of one watch, safe to share between threads.

    The watch's thread alone calls `begin`, `arrive`, `complete`, `none`, `forget` and `hear`, which say what it was
    told. `put` and `gone` are what own writes were answered, in whatever order these come.

    - An event is news only if it is newer than what is known: own writes come back, and old events come late.
    - An own write is news only if it is newer than the place that the watch has reached. Otherwise the watch has seen
      what became of it already, which may have been a deletion. One whose version is no number is left to the watch.
    - What an own write took away stays away: late events of it are no news either.
    - While an own write is under way, between `begin_write` and `end_write`, its event may come before its answer. So
      what is heard of that object is held back until the answer tells which of it was our own doing.
    """

    def __init__(self, watched: Watched, judge: Judge, clock: Callable[[], float]) -> None:
        asked = requirements(watched.labels)
        if asked is None:
            raise ValueError(f"{watched}: only equalities and existences can be watched")
        self.watched = watched
        self.requirements = asked
        #: whether all objects are known, as far as the watch has come
        self.is_complete = False
        #: how far the watch has come; "" where it has to list
        self.position = ""
        self._judge = judge
        self._clock = clock
        self._lock = Lock()
        self._entries: dict[str, dict[str, Entry]] = {}  # by namespace, by name
        self._arriving: dict[str, dict[str, Entry]] = {}
        self._states: Counter[str] = Counter()
        self._was_complete = False
        #: What own writes took away, and when: the uid that was deleted, or the (namespace, name) that was left and the
        #: version up to which that holds
        self._left: OrderedDict[tuple[str, ...], tuple[str, float]] = OrderedDict()
        self._writes: dict[tuple[str, str], _Write] = {}
        self._odd: dict[str, str] = {}

    # -- questions

    def __len__(self) -> int:
        with self._lock:
            return sum(map(len, self._entries.values()))

    def get(self, namespace: str, name: str) -> Entry | None:
        """The entry of an object, as last seen."""
        with self._lock:
            return self._find(namespace, name)

    def select(self, namespace: str, asked: tuple[Requirement, ...]) -> tuple[list[tuple[ObjectId, Entry]], str]:
        """The entries of a namespace ("" for all) that meet the requirements, in order; and the watch's position."""
        with self._lock:
            spaces = {namespace: self._entries.get(namespace, {})} if namespace else self._entries
            found = [
                (self._id(space, name), entry) for space, name, entry in _each(spaces) if meets(entry.labels, asked)
            ]
            position = self.position
        found.sort(key=lambda one: one[0])
        return found, position

    def states(self) -> Counter[str]:
        """How many objects are in which state."""
        with self._lock:
            return +self._states

    def odd(self) -> list[str]:
        """A sentence for each object that could not be read or judged."""
        with self._lock:
            return list(self._odd.values())

    # -- a list

    def begin(self) -> None:
        """A list begins. What is known stays, and is not complete."""
        with self._lock:
            self.is_complete = False
            self._arriving, self._odd = {}, {}

    def arrive(self, items: Iterable[Body]) -> None:
        """A page of the list. Nothing follows from it before the list is complete."""
        for body in items:
            try:
                meta = _meta(body)
                entry = self.get(meta.namespace, meta.name)
                if entry is None or (entry.uid, entry.version) != (meta.uid, meta.version):
                    entry = self._packed(body, meta)
                self._arriving.setdefault(meta.namespace, {})[meta.name] = entry
            except OddObjectError as error:
                self._note(str(error))

    def complete(self, position: str) -> list[Heard]:
        """The list is complete: it is what there was at `position`. What that changed."""
        with self._lock:
            before, now = self._entries, self._arriving
            for namespace, name, listed in list(_each(now)):
                if self._is_past(namespace, name, listed.uid, listed.version):
                    del now[namespace][name]
            for namespace, name, known in _each(before):
                arrived = now.get(namespace, {}).get(name)
                # An own write, made after the list was.
                if _is_newer(known.version, arrived.version if arrived else position, unknown=False):
                    now.setdefault(namespace, {})[name] = known
            self._entries, self._arriving = now, {}
            self._states = Counter(str(entry.state) for _, _, entry in _each(now))
            self.position, self.is_complete = position, True
            heard = list(self._compared(before, now, position)) if self._was_complete else []
            self._was_complete = True
        return [*(one for one in heard if one), Heard(self.watched, self._id(self.watched.namespace, ""), "COMPLETE")]

    def none(self) -> list[Heard]:
        """The cluster does not have the kind, so there is no object of it, and nowhere to watch from."""
        self.begin()
        return self.complete("")

    def forget(self) -> None:
        """The server does not remember the place that the watch had reached."""
        with self._lock:
            self.position, self.is_complete = "", False

    # -- an event

    def hear(self, event: WatchEvent) -> Heard | None:
        """An event of the watch; what it changed."""
        if event.type == "BOOKMARK":
            self.position = _version(event.object) or self.position
            return None
        try:
            meta = _meta(event.object)
            with self._lock:
                self.position = meta.version
                known = self._find(meta.namespace, meta.name)
                if not self._is_news(event, meta, known):
                    return None
                entry = None if event.type == "DELETED" else self._packed(event.object, meta)
                self._set(meta.namespace, meta.name, entry)
                return self._told(meta, known, entry)
        except OddObjectError as error:
            self._note(str(error))
            return None

    def _is_news(self, event: WatchEvent, meta: Meta, known: Entry | None) -> bool:
        if self._is_past(*meta[:4]):
            return False
        if event.type == "DELETED":
            # Of the same version is of the same moment: what a deletion is answered may be the object as it was last.
            return known is not None and not _is_newer(known.version, meta.version, unknown=False)
        return known is None or _is_newer(meta.version, known.version, unknown=True)

    # -- own writes

    def begin_write(self, target: ObjectId) -> None:
        """An own write to this object is about to be sent."""
        with self._lock:
            write = self._writes.setdefault((target.namespace, target.name), _Write())
            write.under_way += 1

    def end_write(self, target: ObjectId) -> list[Heard]:
        """It is over, and `put` or `gone` were called where it was answered. What was held back, and was not ours."""
        key = target.namespace, target.name
        with self._lock:
            write = self._writes[key]
            write.under_way -= 1
            if write.under_way:
                return []
            del self._writes[key]
            return [heard for _, _, heard in write.held]

    def put(self, body: Body) -> None:
        """An own write has left the object like this."""
        try:
            meta = _meta(body)
        except OddObjectError:
            return  # the watch will say so
        if self.watched.namespace not in ("", meta.namespace):
            return
        with self._lock:
            if write := self._writes.get((meta.namespace, meta.name)):
                write.forget(lambda _, version: not _is_newer(version, meta.version, unknown=version != meta.version))
            known = self._find(meta.namespace, meta.name)
            floors = (self.position, known.version if known else "")
            is_news = all(_is_newer(meta.version, floor, unknown=False) for floor in floors if floor)
            if not is_news or self._is_past(*meta[:4]):
                return
            try:
                entry, _ = pack(body, meta, self._judge)
            except OddObjectError:
                return
            if meets(entry.labels, self.requirements):
                self._set(meta.namespace, meta.name, entry)
            else:
                self._leave((meta.namespace, meta.name), meta.version)
                self._set(meta.namespace, meta.name, None)

    def gone(self, target: ObjectId, uid: str) -> None:
        """An own write has deleted this very object."""
        with self._lock:
            if write := self._writes.get((target.namespace, target.name)):
                write.forget(lambda held, _: held == uid)
            self._leave((uid,))
            known = self._find(target.namespace, target.name)
            if known is not None and known.uid == uid:
                self._leave((target.namespace, target.name), known.version)  # what had its name before is past, too
                self._set(target.namespace, target.name, None)

    # -- details: all but `_packed` and `_note` of `arrive` are called with the lock held

    def _find(self, namespace: str, name: str) -> Entry | None:
        return self._entries.get(namespace, {}).get(name)

    def _set(self, namespace: str, name: str, entry: Entry | None) -> None:
        space = self._entries.setdefault(namespace, {})
        if (known := space.pop(name, None)) is not None:
            self._states[str(known.state)] -= 1
        if entry is not None:
            self._states[str(entry.state)] += 1
            space[name] = entry
        if not space:
            del self._entries[namespace]

    def _leave(self, key: tuple[str, ...], version: str = "") -> None:
        now = self._clock()
        self._left.pop(key, None)
        self._left[key] = version, now
        while next(iter(self._left.values()))[1] < now - _REMEMBERED:
            self._left.popitem(last=False)

    def _is_past(self, namespace: str, name: str, uid: str, version: str) -> bool:
        """Whether this is from before an own write that took the object away."""
        until, _ = self._left.get((namespace, name), ("", 0.0))
        return (uid,) in self._left or (until != "" and not _is_newer(version, until, unknown=True))

    def _packed(self, body: Body, meta: Meta) -> Entry:
        """Only the watch's own thread takes notes."""
        entry, odd = pack(body, meta, self._judge)
        self._odd.pop(meta.name, None)
        if odd:
            self._note(odd)
        return entry

    def _note(self, sentence: str) -> None:
        self._odd[sentence.partition(":")[0]] = sentence

    def _compared(self, before: _Spaces, now: _Spaces, position: str) -> Iterator[Heard | None]:
        for namespace, name, known in _each(before):
            entry = now.get(namespace, {}).get(name)
            if entry is None:
                yield self._told(Meta(namespace, name, known.uid, position, {}), known, None)
            elif (entry.uid, entry.version) != (known.uid, known.version):
                yield self._told(Meta(namespace, name, entry.uid, entry.version, {}), known, entry)
        for namespace, name, entry in _each(now):
            if name not in before.get(namespace, {}):
                yield self._told(Meta(namespace, name, entry.uid, entry.version, {}), None, entry)

    def _told(self, meta: Meta, known: Entry | None, entry: Entry | None) -> Heard | None:
        """What is to be told of a change; None where it is held back. `meta`: of what has come."""
        target = self._id(meta.namespace, meta.name)
        labels = known.labels if known else entry.labels if entry else {}
        how: Literal["ADDED", "CHANGED", "STATUS", "DELETED"]
        if entry is None:
            how = "DELETED"
        elif known is None:
            how = "ADDED"
        else:
            how = "STATUS" if entry.fingerprint == known.fingerprint else "CHANGED"
        heard = Heard(self.watched, target, how, labels, known.state if known else "", entry.state if entry else "")
        if write := self._writes.get((meta.namespace, meta.name)):
            write.held.append((meta.uid, meta.version, heard))
            return None
        return heard

    def _id(self, namespace: str, name: str) -> ObjectId:
        return ObjectId(self.watched.api_version, self.watched.kind, namespace, name)


@dataclass(slots=True)
class _Write:
    """Own writes to one object that are under way, and what is heard of it meanwhile: uid, version, and that."""

    under_way: int = 0
    held: list[tuple[str, str, Heard]] = field(default_factory=list)

    def forget(self, ours: Callable[[str, str], bool]) -> None:
        """Leaves out what was our own doing, or came before it."""
        self.held = [one for one in self.held if not ours(one[0], one[1])]


_Spaces: TypeAlias = Mapping[str, Mapping[str, Entry]]


def _each(spaces: _Spaces) -> Iterator[tuple[str, str, Entry]]:
    return ((space, name, entry) for space, entries in spaces.items() for name, entry in entries.items())
