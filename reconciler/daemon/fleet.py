"""All clusters and all environments: who keeps which, each in a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock, Thread

from reconciler import inventory
from reconciler.cluster import ApiError, CachedReader, CachedWriter, Heard, Writer
from reconciler.clusters import Clusters
from reconciler.daemon.desire import Desire, Moved
from reconciler.daemon.keeper import Keeper
from reconciler.daemon.plane import INVENTORIES, Plane, build_state
from reconciler.daemon.ties import Ties
from reconciler.readiness import Readiness
from reconciler.telling.events import Events
from reconciler.telling.logs import Log
from schemas.environment import DataPlane

log = Log(__name__)

#: For all of them together, at the end: another replica waits to lead. Whose cluster does not answer is not waited for:
#: what it has sent can be repeated, and what it would send next is fenced.
_STOP_SECONDS = 1.0
#: For one of which nothing is left to keep.
_DISMISS_SECONDS = 1.0
_RETRY_SECONDS = 10.0
#: Between two looks at the Secrets with kubeconfigs.
SECRET_SECONDS = 30.0


@dataclass(slots=True)
class Fleet:
    """`only`: the environments that this reconciler is about; none: all.

    `heard` is told of every event of a cluster's inventories, for whoever minds the environments. `restarted`: see
    `Plane`.
    """

    clusters: Clusters
    desire: Desire
    ties: Ties
    fence: Callable[[], None] | None
    heard: Callable[[], None]
    requested: Callable[[str, str, int, float], None]
    events: Callable[[Writer], Events]
    only: frozenset[str] = frozenset()
    restarted: Callable[[str, str], None] = lambda *_: None
    keepers: dict[tuple[DataPlane, str], Keeper] = field(default_factory=dict, init=False)
    #: By environment: why nobody keeps it; and what it has left in another cluster.
    troubles: dict[str, str] = field(default_factory=dict, init=False)
    moved: dict[str, str] = field(default_factory=dict, init=False)
    _planes: dict[DataPlane, Plane] = field(default_factory=dict, init=False)
    _threads: dict[tuple[DataPlane, str], Thread] = field(default_factory=dict, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)
    #: Clusters that could not be connected to: why, and when it is tried again.
    _refused: dict[DataPlane, tuple[str, float]] = field(default_factory=dict, init=False)
    _is_minded: bool = field(default=False, init=False)
    _secrets_seen_at: float = field(default_factory=time.monotonic, init=False)

    def plane(self, key: DataPlane) -> Plane:
        """The cluster of a data plane. Raises `ApiError` where there is no way to it."""
        key = self.clusters.meant(key)
        if key in self._planes:
            return self._planes[key]
        with self._lock:
            if key not in self._planes:
                plane = Plane(key, self.clusters.connection(key), self.fence, self.events, self.restarted)
                plane.observe(self.requested)
                plane.follow("inventories", [INVENTORIES], self._hear_of_inventory)
                self._planes[key] = plane
            return self._planes[key]

    def reader(self, key: DataPlane) -> CachedReader:
        """What the watches of a cluster have seen, and its server for everything else. Raises `ApiError`."""
        return self.plane(key).reader

    def writer(self, key: DataPlane) -> CachedWriter:
        """The same, to be changed. Raises `ApiError`."""
        return self.plane(key).writer

    @property
    def planes(self) -> Mapping[DataPlane, Plane]:
        """Every cluster that was asked for until now."""
        return dict(self._planes)

    def mind(self) -> None:
        """Sees to it that every environment has a keeper: those of the specs, and those that are left over."""
        self._let_go_of_replaced()
        specs = {name: self.clusters.meant(spec.data_plane) for name, spec in self.desire.environments().items()}
        wanted = {(key, name) for name, key in specs.items() if self._is_meant(name)}
        left_over: set[tuple[str, str]] = set()
        moved: dict[str, str] = {}
        for key, plane in self.planes.items():
            for name in plane.inventories():
                if name in specs:
                    moved |= self._move_of(plane, name, specs[name])
                elif self._is_meant(name) and (plane.identity, name) not in left_over:
                    left_over.add((plane.identity, name))  # two ways may lead to one cluster
                    wanted.add((key, name))
        troubles: dict[str, str] = {}
        for (key, name), keeper in list(self.keepers.items()):
            if keeper.is_over or ((key, name) not in wanted and name in specs):
                self._dismiss(key, name)
        now = time.monotonic()
        for key, name in wanted - self.keepers.keys():
            why, again_at = self._refused.get(key, ("", 0.0))
            try:
                if now < again_at:
                    troubles[name] = why
                else:
                    self._appoint(key, name)
            except (ApiError, OSError) as error:  # such as no room for a kubeconfig
                troubles[name] = str(error)
                self._refused[key] = str(error), now + _RETRY_SECONDS
        self.troubles, self.moved, self._is_minded = troubles, moved, True

    def ring(self) -> None:
        """Wakes everybody up: this replica may write from now on."""
        for keeper in list(self.keepers.values()):
            keeper.bell.set()

    def plane_of(self, environment: str) -> Plane | None:
        """The cluster that an environment is in, where that is known."""
        spec = self.desire.environment(environment)
        return self._planes.get(self.clusters.meant(spec.data_plane)) if spec is not None else None

    def _let_go_of_replaced(self) -> None:
        """A cluster whose Secret holds another kubeconfig by now is connected to anew. No other one notices.

        It is asked for, not watched: a watch would need the right to list Secrets, and so to read all of them.
        """
        if time.monotonic() - self._secrets_seen_at < SECRET_SECONDS:
            return
        for key, plane in self.planes.items():
            with suppress(ApiError):  # nothing is given up because nobody can say
                if self.clusters.is_replaced(key):
                    log.info("the kubeconfig of a cluster was replaced", cluster=plane.connection.host)
                    self._let_go(key)
        self._secrets_seen_at = time.monotonic()

    def _let_go(self, key: DataPlane) -> None:
        with self._lock:  # so that nobody makes another plane of the old connection
            plane = self._planes.pop(key)
            self.clusters.forget(key)
        for one, name in list(self.keepers):
            if one == key:
                self._dismiss(key, name)
        plane.close()

    def _is_meant(self, environment: str) -> bool:
        return not self.only or environment in self.only

    def move(self, moved: Moved) -> None:
        """Tells the keepers what has changed about what is wanted of them."""
        models: dict[str, set[str]] = {}
        for unit in moved.units:
            models.setdefault(unit.environment, set()).add(unit.model)
        for (_, name), keeper in list(self.keepers.items()):
            if name in models:
                keeper.want(models[name])
            if name in moved.jobs:
                keeper.unkeep(moved.jobs[name])

    def want_all(self) -> None:
        """Everything is looked at once more: what decides about all of it has changed."""
        for keeper in list(self.keepers.values()):
            keeper.want(None)

    def stir(self, model: str) -> None:
        """Something of a model has changed that another environment may wait for."""
        for keeper in list(self.keepers.values()):
            keeper.stir(model)

    def built(self, build: str) -> Readiness | None:
        """What has become of a build (its id), wherever it is made; None: nobody makes it."""
        found = self.desire.job_of(build)
        if found is None:
            return None
        unit, job = found
        spec = self.desire.environment(unit.environment)
        if spec is None or spec.suspended or not self._is_meant(unit.environment):
            return None  # nobody makes it now, and it may have been made before
        plane = self.plane_of(unit.environment)
        return None if plane is None else build_state(plane, unit.environment, job)

    @property
    def is_seen(self) -> bool:
        """Whether every cluster that answers has been seen completely."""
        keepers = list(self.keepers.values())
        seen = all(k.is_seen or k.plane.connection.unreachable_since is not None for k in keepers)
        return seen and self._is_minded

    @property
    def unseen(self) -> str:
        """What clusters that answer do not show, by environment; "" where that is nothing."""
        keepers = list(self.keepers.values())
        return "; ".join(f"{keeper.name}: {keeper.trouble}" for keeper in keepers if keeper.trouble and keeper.is_seen)

    def stop(self) -> None:
        """Ends all threads, each after what it is doing; whose cluster hangs, is left behind."""
        for keeper in list(self.keepers.values()):
            keeper.stop()
        until = time.monotonic() + _STOP_SECONDS
        for thread in list(self._threads.values()):
            thread.join(max(0.0, until - time.monotonic()))

    def close(self) -> None:
        """Lets go of the clusters."""
        for plane in self._planes.values():
            plane.close()

    def _move_of(self, left: Plane, name: str, to: DataPlane) -> dict[str, str]:
        """What an environment has left in a cluster where it is no more. Two ways may lead to one cluster."""
        now = self._planes.get(to)
        if left.key == to or now is None or "" in (now.identity, left.identity) or now.identity == left.identity:
            return {}
        words = (
            f"it has moved from {left.connection.host}, where what it left still runs; delete there what has the label "
            f"{inventory.PART_OF}={inventory.set_id(name)}, and the ConfigMap {inventory.object_id_of(name)} last"
        )
        return {name: words}

    def _appoint(self, key: DataPlane, name: str) -> None:
        keeper = Keeper(name, self.plane(key), self.desire, self.ties)
        keeper.plane.hear_own(name, keeper.hear_own)
        thread = Thread(target=keeper.run, name=f"keeper of {name}", daemon=True)
        self.keepers[key, name] = keeper
        thread.start()
        self._threads[key, name] = thread  # by now somebody may wait for its end

    def _dismiss(self, key: DataPlane, name: str) -> None:
        keeper = self.keepers.pop((key, name))
        keeper.stop()
        self._threads.pop((key, name)).join(_DISMISS_SECONDS)
        self.ties.listener.forgot(name)
        keeper.plane.follow(keeper.loop, (), keeper.hear)
        keeper.plane.hear_own(name, None)
        self.ties.health.forget(keeper.loop)

    def _hear_of_inventory(self, heard: Heard) -> None:
        name = heard.labels.get(inventory.ENVIRONMENT, "")
        for (_, environment), keeper in list(self.keepers.items()):
            if environment == name or heard.how == "COMPLETE":
                keeper.hear_of_inventory()
        self.heard()
