"""One cluster, as the daemon holds it: its connection, what its watches have seen, and who is told of it.

A cluster is a failure domain. It has a connection, a bound on its requests, a cache and threads of its own, so one
that is slow or away costs nobody else anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock

from reconciler import inventory, readiness
from reconciler.cluster import (
    FIELD_MANAGER,
    ApiError,
    Cache,
    CachedReader,
    CachedWriter,
    Connection,
    Entry,
    Heard,
    Reader,
    Watched,
    Writer,
)
from reconciler.inventory import CorruptInventoryError, Inventory
from reconciler.readiness import Readiness, State
from reconciler.telling.events import Events
from renderers.manifest import Body, ObjectId
from schemas.environment import DataPlane

#: Threads for requests to one cluster; how many of them ask at a time is the connection's own decision.
THREADS = 8

#: The inventories of all environments.
INVENTORIES = Watched("v1", "ConfigMap", inventory.NAMESPACE, inventory.ENVIRONMENT)


class Pen(CachedWriter):
    """A writer that says what it has applied. Watches do not: an own write is no news to them."""

    def __init__(
        self,
        connection: Connection,
        cache: Cache,
        fence: Callable[[], None] | None,
        wrote: Callable[[Body], None],
    ) -> None:
        super().__init__(connection, cache, fence)
        self._wrote = wrote

    def apply(self, body: Body, *, force: bool = False, manager: str = FIELD_MANAGER) -> Body:
        """As `Writer.apply`."""
        stored = super().apply(body, force=force, manager=manager)
        self._wrote(stored)
        return stored


@dataclass(slots=True, eq=False)
class Plane:
    """`fence` is asked before each write. `events_to` makes the sink of the cluster's Events.

    `restarted` is told of each watch that had to begin again: the cluster, and why.
    """

    key: DataPlane
    connection: Connection
    fence: Callable[[], None] | None
    events_to: Callable[[Writer], Events]
    restarted: Callable[[str, str], None] = lambda *_: None
    events: Events = field(init=False)
    cache: Cache = field(init=False)
    reader: CachedReader = field(init=False)
    writer: Pen = field(init=False)
    pool: ThreadPoolExecutor = field(init=False)
    _followers: dict[Watched, Callable[[Heard], None]] = field(default_factory=dict, init=False)
    #: By the label of the members.
    _writers: dict[str, Callable[[Body], None]] = field(default_factory=dict, init=False)
    _wanted: dict[str, frozenset[Watched]] = field(default_factory=dict, init=False)
    #: Inventories as they were read last, and of what: they are asked for all the time, and may be long.
    _read: dict[str, tuple[Entry, Inventory | None, Body]] = field(default_factory=dict, init=False)
    #: How many requests were sent.
    asked: int = field(default=0, init=False)
    _identity: str = field(default="", init=False)
    _asked_who: Future[None] | None = field(default=None, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def __post_init__(self) -> None:
        self.cache = Cache(
            Reader(self.connection),
            self._dispatch,
            judge=lambda body: readiness.of(body).state,
            restarted=lambda why: self.restarted(self.connection.host, why),
        )
        self.reader = CachedReader(self.connection, self.cache)
        self.writer = Pen(self.connection, self.cache, self.fence, self._tell_writer)
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="requests")
        self.events = self.events_to(self.writer)

    def hear_own(self, environment: str, wrote: Callable[[Body], None] | None) -> None:
        """From now on somebody is told of own writes to the members of an environment; None: nobody."""
        with self._lock:
            others = {key: one for key, one in self._writers.items() if key != inventory.set_id(environment)}
            self._writers = others | ({inventory.set_id(environment): wrote} if wrote is not None else {})

    def follow(self, who: str, watched: Collection[Watched], heard: Callable[[Heard], None]) -> None:
        """From now on somebody is told of what happens to these, and of nothing else that was followed before."""
        with self._lock:
            if self._wanted.get(who, frozenset()) == frozenset(watched):
                return
            mine = self._wanted.get(who, frozenset())
            self._followers = {one: to for one, to in self._followers.items() if one not in mine}
            self._followers |= dict.fromkeys(watched, heard)
            self._wanted[who] = frozenset(watched)
            self.cache.follow(frozenset().union(*self._wanted.values()))

    def is_complete(self, watched: Collection[Watched]) -> bool:
        """Whether everything is there that these see."""
        return all(self.cache.is_complete(one) for one in watched)

    def refusals(self, watched: Collection[Watched]) -> dict[Watched, str]:
        """What of this the cluster does not show, and why."""
        return {one: why for one in watched if (why := self.cache.refusal(one))}

    def inventories(self) -> dict[str, Inventory | None]:
        """By environment; None for one that we cannot read."""
        found: dict[str, Inventory | None] = {}
        for target, entry in self.cache.entries(INVENTORIES):
            name = entry.labels.get(inventory.ENVIRONMENT, "")
            if target.name == inventory.name_of(name):
                found[name], _ = self.inventory(name)
        return found

    def inventory(self, environment: str) -> tuple[Inventory | None, Body | None]:
        """Of one environment, and the ConfigMap that it is kept in."""
        target = inventory.object_id_of(environment)
        entry = self.cache.entry(target)
        if entry is None:
            return None, None
        known = self._read.get(environment)
        if known is None or known[0] is not entry:
            body = self.cache.get(target)
            if body is None:
                return None, None
            known = self._read[environment] = entry, _readable(body), body
        return known[1:]

    @property
    def identity(self) -> str:
        """What tells two clusters apart: our namespace has one UID in each. "" while nobody can say.

        It is asked for aside: whoever minds all clusters must not wait for one that hangs.
        """
        if not self._identity and (self._asked_who is None or self._asked_who.done()):
            self._asked_who = self.pool.submit(self._identify)
        return self._identity

    def _identify(self) -> None:
        with suppress(ApiError):
            body = Reader(self.connection).get(ObjectId("v1", "Namespace", "", inventory.NAMESPACE))
            self._identity = body["metadata"]["uid"] if body is not None else ""

    def state_of(self, target: ObjectId) -> Readiness:
        """What has become of an object that is watched."""
        return readiness.of(self.cache.get(target))

    def has_run(self, environment: str, job: ObjectId) -> bool:
        """Whether a Job of an environment has, as its inventory remembers."""
        stored, _ = self.inventory(environment)
        return stored is not None and job in stored.finished

    def trouble(self, watched: Collection[Watched]) -> str:
        """Why not all of this can be seen; "" where it can."""
        unseen = sorted(one for one in watched if not self.cache.is_complete(one))
        return "; ".join(one.sentence for one in self.cache.troubles(unseen))

    def observe(self, told: Callable[[str, str, int, float], None]) -> None:
        """Tells of each request to the cluster from now on, and counts them."""

        def exchanged(verb: str, code: int, seconds: float) -> None:
            self.asked += 1
            told(self.connection.host, verb, code, seconds)

        self.connection.observe = exchanged

    def close(self) -> None:
        """Sends the last Events, and ends watches and requests."""
        self.events.close()
        self.cache.close()
        self.connection.close()
        self.pool.shutdown(wait=False, cancel_futures=True)

    def _tell_writer(self, stored: Body) -> None:
        told = self._writers.get((stored["metadata"].get("labels") or {}).get(inventory.PART_OF, ""))
        if told is not None:
            told(stored)

    def _dispatch(self, heard: Heard) -> None:
        follower = self._followers.get(heard.watched)
        if follower is not None:
            follower(heard)


def _readable(body: Body) -> Inventory | None:
    try:
        return inventory.from_config_map(body)
    except CorruptInventoryError:
        return None


def build_state(plane: Plane, environment: str, job: ObjectId) -> Readiness:
    """What has become of a build by its Job, which the cluster may have cleaned up."""
    if plane.has_run(environment, job):
        return Readiness(State.CURRENT)
    return plane.state_of(job)
