"""What a cluster holds, kept up to date by watches; and a `Reader` and a `Writer` that look there first.

    cache = Cache(reader, heard, judge=lambda body: readiness.of(body).state)
    cache.follow({Watched("v1", "ConfigMap", "prod", "app=x")})
    CachedReader(connection, cache).list("v1", "ConfigMap", namespace="prod", labels="app=x")

A cache that is not complete is never trusted: then the server is asked, as if there were no cache.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Literal, NamedTuple

from reconciler.cluster.errors import KindMissing
from reconciler.cluster.objects import FIELD_MANAGER, Listing, Reader, Writer, kind_missing
from reconciler.cluster.shelf import (
    Entry,
    Heard,
    Judge,
    Requirement,
    Shelf,
    Watched,
    implies,
    order,
    requirements,
    unpack,
)
from reconciler.cluster.transport import Connection, decoded
from reconciler.cluster.watching import Listers, Pace, Watch
from renderers.manifest import Body, ObjectId, object_id

_START_EVERY = 0.001  # seconds, on average, between two watches that begin; one thread takes their lists in turn
_ENDING = 2.0  # seconds that `close` waits for threads
_ODD_TOLD = 5  # sentences about single objects, of each watch


class Trouble(NamedTuple):
    """Something that a person should know of a watch."""

    watched: Watched
    sentence: str


class Counts(NamedTuple):
    """For metrics; but for the first three, since the start, of watches that have ended too."""

    watches: int
    complete: int
    objects: int
    lists: int  #: lists of everything; more than one for each watch: places were forgotten
    starts: int  #: streams opened
    events: int


class Cache:
    """The objects of one cluster that are watched. Safe to share between threads.

    `heard` is called after the cache has changed, from the threads of the watches and of own writes: it should only
    take a note, and not raise. `judge` says in a word what state an object is in. `restarted` is told why a watch had
    to begin again (`Watch`).
    """

    def __init__(
        self,
        reader: Reader,
        heard: Callable[[Heard], None],
        *,
        judge: Judge = lambda _: "",
        pace: Pace | None = None,
        restarted: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.reader = reader
        self._restarted = restarted
        self._heard = heard
        self._judge = judge
        self._pace = pace or Pace()
        self._listers = Listers.start()
        self._lock = Lock()  # of what follows; both are replaced as a whole, so that readers need no lock
        self._watches: dict[Watched, Watch] = {}
        self._by_kind: dict[tuple[str, str], list[Watch]] = {}
        self._ended = Counts(0, 0, 0, 0, 0, 0)
        self._closed = False

    def follow(self, wanted: Collection[Watched]) -> None:
        """What is watched from now on. Starts and ends watches as needed, waits for none.

        What a watch that ends knew is forgotten. Raises ValueError for labels that say more than equality and
        existence.
        """
        with self._lock:
            if self._closed:
                return
            shelves = {
                what: Shelf(what, self._judge, self._pace.clock)
                for what in sorted(set(wanted))
                if what not in self._watches
            }
            spread = min(self._pace.spread, _START_EVERY * (len(shelves) - 1))
            new = {what: self._watch(shelf, spread * self._pace.jitter()) for what, shelf in shelves.items()}
            old = [watch for what, watch in self._watches.items() if what not in set(wanted)]
            self._have({what: watch for what, watch in {**self._watches, **new}.items() if what in set(wanted)})
            self._end(old)
            for watch in new.values():
                watch.start()

    def close(self) -> None:
        """Ends all watches, before their connection is closed. Nothing is heard any more."""
        with self._lock:
            self._closed = True
            watches = list(self._watches.values())
            self._have({})
            self._end(watches)
        until = time.monotonic() + _ENDING
        for watch in watches:
            watch.join(until)
        self._listers.close()

    # -- questions

    def is_complete(self, watched: Watched) -> bool:
        """Whether a watch that has all of these objects is complete; also one that watches more than these.

        One of a kind that the cluster does not have is complete, with nothing.
        """
        return self._complete(watched) is not None

    def is_missing(self, watched: Watched) -> bool:
        """Whether it is complete because the cluster does not have the kind. Another look is taken now and then."""
        watch = self._complete(watched)
        return watch is not None and watch.is_missing

    def refusal(self, watched: Watched) -> str:
        """Why the cluster shows nothing of a watch, while it may show other things; "" where it does. Tried again."""
        watch = self._watches.get(watched)
        return watch.refusal if watch is not None and watch.refusal and not watch.is_complete else ""

    def troubles(self, of: Collection[Watched] | None = None) -> list[Trouble]:
        """Why what is not complete is not, which kinds are missing, and which objects cannot be read; `of` these."""
        found = []
        watches = self._watches
        for what, watch in watches.items() if of is None else [(one, watches[one]) for one in of if one in watches]:
            odd = watch.shelf.odd()
            more = [f"and {len(odd) - _ODD_TOLD} more objects"] if len(odd) > _ODD_TOLD else []
            sentences = (watch.trouble, *odd[:_ODD_TOLD], *more)
            found += [Trouble(what, f"{what}: {sentence}") for sentence in sentences if sentence]
        return found

    def counts(self) -> Counts:
        """What there is, and what has happened."""
        return _counted(self._ended, self._watches.values())

    def get(self, target: ObjectId) -> Body | None:
        """The object as last seen, whether its watch is complete or not; without managedFields (see `Entry.blob`).

        None where no watch has seen it, which proves nothing.
        """
        entry = self.entry(target)
        return None if entry is None else decoded(unpack(entry), target)

    def entry(self, target: ObjectId) -> Entry | None:
        """As `get`, without decoding it."""
        return _newest(watch.shelf.get(target.namespace, target.name) for watch in self._of(target))

    def entries(self, watched: Watched) -> Iterator[tuple[ObjectId, Entry]]:
        """These objects as last seen, in order, without decoding them; whether that is all: see `is_complete`."""
        asked = _asked(watched)
        watch = self._complete(watched) or next(self._covering(watched), None)
        if watch is not None:
            found, _ = watch.shelf.select(watched.namespace, asked)
            yield from found

    def states(self, watched: Watched) -> Counter[str]:
        """How many objects of a watch are in which state, as far as it has come."""
        watch = self._watches.get(watched)
        return Counter() if watch is None else watch.shelf.states()

    def listing(self, watched: Watched) -> Listing | None:
        """All of these objects, decoded; None where the cache cannot tell. `KindMissing` where there can be none."""
        watch = self._complete(watched)
        if watch is None:
            return None
        if watch.is_missing:
            raise kind_missing(ObjectId(watched.api_version, watched.kind, watched.namespace, ""))
        found, position = watch.shelf.select(watched.namespace, _asked(watched))
        return Listing(_decoded(entry for _, entry in found), position)

    def lookup(self, target: ObjectId) -> list[Body] | None:
        """The object, or an empty list where it does not exist; None where the cache cannot tell.

        That a watch with labels does not have it proves nothing: it may have other labels. `KindMissing` where it
        cannot exist.
        """
        watches = [watch for watch in self._of(target) if watch.is_complete]
        if any(watch.is_missing for watch in watches):
            raise kind_missing(target)
        entry = _newest(watch.shelf.get(target.namespace, target.name) for watch in watches)
        if entry is not None:
            return _decoded([entry])
        return [] if any(not watch.shelf.requirements for watch in watches) else None

    # -- own writes

    def put(self, body: Body) -> None:
        """An own write was answered with this object: it is known at once, and never heard of as a change."""
        for watch in self._of_kind(str(body.get("apiVersion")), str(body.get("kind"))):
            watch.shelf.put(body)

    def gone(self, target: ObjectId, uid: str) -> None:
        """An own write has deleted the object of this uid."""
        for watch in self._of(target):
            watch.shelf.gone(target, uid)

    @contextmanager
    def writing(self, target: ObjectId) -> Iterator[None]:
        """Around an own write and the `put` or `gone` of its answer. Its event may come before the answer.

        What others do to the object meanwhile is heard at the end, from this thread.
        """
        shelves = [watch.shelf for watch in self._of(target)]
        for shelf in shelves:
            shelf.begin_write(target)
        try:
            yield
        finally:
            for shelf in shelves:
                for heard in shelf.end_write(target):
                    self._heard(heard)

    def look_again(self, api_version: str, kind: str) -> None:
        """Somebody has found a kind that was missing."""
        for watch in self._of_kind(api_version, kind):
            if watch.is_missing:
                watch.look_again()

    # -- details

    def _watch(self, shelf: Shelf, delay: float) -> Watch:
        return Watch(
            self.reader,
            shelf,
            self._heard,
            listers=self._listers,
            pace=self._pace,
            delay=delay,
            restarted=self._restarted,
        )

    def _have(self, watches: dict[Watched, Watch]) -> None:
        by_kind: dict[tuple[str, str], list[Watch]] = {}
        # The narrowest first: there is the least to look through.
        for what, watch in sorted(watches.items(), key=lambda one: (not one[0].namespace, not one[0].labels)):
            by_kind.setdefault(what[:2], []).append(watch)
        self._watches, self._by_kind = watches, by_kind

    def _end(self, watches: Iterable[Watch]) -> None:
        watches = list(watches)
        for watch in watches:
            watch.stop()
        self._ended = _counted(self._ended, watches)._replace(watches=0, complete=0, objects=0)

    def _of_kind(self, api_version: str, kind: str) -> list[Watch]:
        return self._by_kind.get((api_version, kind), [])

    def _of(self, target: ObjectId) -> Iterator[Watch]:
        """The watches that may have an object."""
        for watch in self._of_kind(target.api_version, target.kind):
            if watch.shelf.watched.namespace in ("", target.namespace):
                yield watch

    def _covering(self, watched: Watched) -> Iterator[Watch]:
        asked = requirements(watched.labels)
        if asked is not None:
            for watch in self._of_kind(watched.api_version, watched.kind):
                is_there = watch.shelf.watched.namespace in ("", watched.namespace)
                if is_there and implies(asked, watch.shelf.requirements):
                    yield watch

    def _complete(self, watched: Watched) -> Watch | None:
        return next((watch for watch in self._covering(watched) if watch.is_complete), None)


def _asked(watched: Watched) -> tuple[Requirement, ...]:
    return requirements(watched.labels) or ()


def _newest(entries: Iterable[Entry | None]) -> Entry | None:
    """Of what several watches have seen of one object."""
    return max((entry for entry in entries if entry), key=lambda entry: order(entry.version), default=None)


def _decoded(entries: Iterable[Entry]) -> list[Body]:
    """All at once, as `decoded` spares the cycle collector."""
    whole = b'{"items":[%b]}' % b",".join(map(unpack, entries))
    items: list[Body] = decoded(whole, None)["items"]
    return items


def _counted(before: Counts, watches: Collection[Watch]) -> Counts:
    return Counts(
        len(watches),
        sum(watch.is_complete for watch in watches),
        sum(len(watch.shelf) for watch in watches),
        before.lists + sum(watch.lists for watch in watches),
        before.starts + sum(watch.starts for watch in watches),
        before.events + sum(watch.events for watch in watches),
    )


class CachedReader(Reader):
    """A `Reader` that answers from the cache where that is complete, and asks the server otherwise.

    What comes from the cache is without managedFields, but those that our own applies have in a Deployment. `predict`
    and `watch` ask the server always.
    """

    def __init__(self, connection: Connection, cache: Cache) -> None:
        super().__init__(connection)
        self._use(cache)

    def _use(self, cache: Cache) -> None:
        self._cache = cache
        self._discovery = cache.reader._discovery  # who installs a kind through this reader has found it for the watch

    def get(self, target: ObjectId) -> Body | None:
        """As `Reader.get`. Of an object that has other labels than those watched, the server is asked."""
        try:
            found = self._cache.lookup(target)
        except KindMissing:
            if not self._is_served_by_now(target.api_version, target.kind):
                raise
            found = None
        return super().get(target) if found is None else next(iter(found), None)

    def list(
        self,
        api_version: str,
        kind: str,
        *,
        namespace: str | None = None,
        labels: str = "",
        metadata_only: bool = False,
    ) -> Listing:
        """As `Reader.list`: all objects at one moment, which is the one that the watch has reached."""
        try:
            found = self._cache.listing(Watched(api_version, kind, namespace or "", labels))
        except KindMissing:
            if not self._is_served_by_now(api_version, kind):
                raise
            found = None
        if found is None:
            return super().list(api_version, kind, namespace=namespace, labels=labels, metadata_only=metadata_only)
        if metadata_only:
            return found._replace(items=[{key: body[key] for key in _IDENTITY} for body in found.items])
        return found

    def _is_served_by_now(self, api_version: str, kind: str) -> bool:
        """Whether a kind that the cache misses has been found since: by whoever has just installed it."""
        if not self._discovery.knows(api_version, kind):
            return False
        self._cache.look_again(api_version, kind)
        return True


_IDENTITY = ("apiVersion", "kind", "metadata")


class CachedWriter(CachedReader, Writer):
    """A `Writer` that lists from the cache and puts into it what its writes are answered.

    `get` asks the server always: what is about to be changed or deleted is looked at as it is.
    """

    def __init__(self, connection: Connection, cache: Cache, fence: Callable[[], None] | None = None) -> None:
        Writer.__init__(self, connection, fence)
        self._use(cache)

    def get(self, target: ObjectId) -> Body | None:
        """As `Reader.get`, from the server."""
        return Reader.get(self, target)

    def apply(self, body: Body, *, force: bool = False, manager: str = FIELD_MANAGER) -> Body:
        """As `Writer.apply`."""
        with self._cache.writing(object_id(body)):
            return self._kept(super().apply(body, force=force, manager=manager))

    def create(self, body: Body) -> Body:
        """As `Writer.create`."""
        metadata = body["metadata"]  # without a name where the server is to make one
        target = ObjectId(body["apiVersion"], body["kind"], metadata.get("namespace", ""), metadata.get("name", ""))
        with self._cache.writing(target):
            return self._kept(super().create(body))

    def update(self, body: Body, *, subresource: Literal["", "status"] = "") -> Body:
        """As `Writer.update`."""
        with self._cache.writing(object_id(body)):
            return self._kept(super().update(body, subresource=subresource))

    def delete(
        self,
        target: ObjectId,
        *,
        uid: str,
        resource_version: str | None = None,
        propagation: Literal["Foreground", "Background", "Orphan"] = "Foreground",
    ) -> Body | None:
        """As `Writer.delete`."""
        with self._cache.writing(target):
            left = super().delete(target, uid=uid, resource_version=resource_version, propagation=propagation)
            # Of some kinds the answer is the object as it was last, though it is gone.
            if left is not None and "deletionTimestamp" in left["metadata"]:
                return self._kept(left)
            self._cache.gone(target, uid)
            return left

    def _kept(self, body: Body) -> Body:
        self._cache.put(body)
        return body
