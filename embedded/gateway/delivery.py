"""Bringing a configuration to Envoy in an order in which no request is lost, and seeing that it was taken.

First what is new: clusters, then listeners, and what is to go stays. Then the routes, which change from one to the
other. What they have let go follows seconds later, when no request can be on its way to it any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Generic, TypeVar

import orjson

from embedded.gateway import listeners
from embedded.gateway.attachment import Gate
from embedded.gateway.configuration import Configuration, Port
from embedded.gateway.envoy import ADMIN, Envoy, NotAnsweringError
from embedded.gateway.files import Files
from embedded.gateway.listeners import Placed, route_table
from embedded.gateway.routes import Compiled
from embedded.gateway.statuses import Proxy
from embedded.gateway.world import Key, Object

#: Seconds that something stays after the last route has let it go: for a request that has chosen it just before, and
#: that the service of a SecurityPolicy is thinking about.
_LINGER = 10.0

#: Seconds after which Envoy should have taken something, and between two questions whether it has.
_TAKEN_SECONDS, _ASK_FIRST, _ASK_MOST = 20.0, 0.002, 0.1

#: Seconds after which what did not work is tried again.
_RETRY_SECONDS = 5.0

#: What it says about itself: versions that it has taken, and how often it has refused one.
_LISTENERS = "listener_manager"
_CDS, _LDS, _RDS = "cluster_manager.cds", f"{_LISTENERS}.lds", f"http.{listeners.STATISTICS}.rds"
_STATE = r"/stats?filter=\.(version_text|update_rejected|total_listeners_warming)$"

_Name = TypeVar("_Name", bound=Hashable)


class RefusedError(Exception):
    """Envoy does not take a configuration; the text is what it says."""


class Lingering(Generic[_Name]):
    """Things that stay for some seconds after they are wanted no more."""

    def __init__(self) -> None:
        self._known: dict[_Name, Object] = {}
        self._until: dict[_Name, float] = {}

    def with_leaving(self, wanted: Mapping[_Name, Object], now: float) -> dict[_Name, Object]:
        """What is wanted, and what was until a moment ago."""
        for name in self._known.keys() - wanted.keys():
            self._until.setdefault(name, now + _LINGER)
        self._until = {name: until for name, until in self._until.items() if name not in wanted and until > now}
        self._known = {name: self._known[name] for name in self._until} | dict(wanted)
        return dict(sorted(self._known.items()))

    @property
    def next(self) -> float:
        """When the next of them goes."""
        return min(self._until.values(), default=inf)


class Delivery:
    """What Envoy has been told, and what it has taken."""

    def __init__(self, files: Files, envoy: Envoy) -> None:
        self._files = files
        self._envoy = envoy
        self._clusters: Lingering[str] = Lingering()
        self._filters: Lingering[tuple[str, str]] = Lingering()
        self._tables: dict[str, tuple[Gate, list[Placed]]] = {}  # what of each listener's routes was taken
        self._unsure: set[str] = set()  # listeners whose file may hold something else by now
        self._bad: dict[tuple[str, Key], tuple[Compiled, str]] = {}  # what was not, and why
        self._failing: dict[str, str] = {}  # listeners, and why they do not listen
        self._retry = inf
        self._taken: dict[str, str] = {}  # versions
        self._refused: dict[str, tuple[str, str]] = {}  # versions, and why
        self._rejections: dict[str, int] = {}
        self._pid = 0

    @property
    def next(self) -> float:
        """When there is something to do without anything having changed, as the event loop counts."""
        return min(self._clusters.next, self._filters.next, self._retry)

    async def deliver(self, wanted: Configuration) -> Proxy:
        """Have Envoy use this configuration. Returns what it makes of it."""
        try:
            return await self._deliver(wanted)
        except (NotAnsweringError, RefusedError) as error:
            self._retry = asyncio.get_running_loop().time() + _RETRY_SECONDS
            return Proxy(trouble=self._envoy.trouble or str(error))

    async def _deliver(self, wanted: Configuration) -> Proxy:
        clusters, heads = self._grown(wanted, asyncio.get_running_loop().time())
        if not self._envoy.started:
            if not wanted.ports:
                return Proxy()
            self._files.write_bootstrap(listeners.bootstrap(self._files.listeners, self._files.clusters, ADMIN))
            self._files.write(self._files.clusters, clusters)
            self._files.write(self._files.listeners, heads)
        for name in wanted.ports.keys() - self._tables.keys():
            port = wanted.ports[name]
            table = await asyncio.to_thread(route_table, port.gate, port.number, port.placed)
            self._files.write(self._files.routes(name), [table])
        self._envoy.start()
        await self._give(_CDS, self._files.clusters, clusters)
        await self._give_listeners(heads)
        for name, port in wanted.ports.items():
            if name not in self._failing:
                await self._give_routes(name, port)
        await self._state(lambda state: state.get(f"{_LISTENERS}.total_listeners_warming") == "0")
        for name in self._tables.keys() - wanted.ports.keys():
            del self._tables[name]
        self._files.keep_routes(set(wanted.ports))
        self._bad = {
            (name, one.key): self._bad[name, one.key]
            for name, port in wanted.ports.items()
            for one in port.placed
            if self._is_bad(name, one)
        }
        return Proxy("", dict(self._failing), {key: why for (_, key), (_, why) in self._bad.items()})

    def _grown(self, wanted: Configuration, now: float) -> tuple[list[Object], list[Object]]:
        """Clusters and listeners, with what is to go but should stay for a while."""
        flat = {(port, name): made for port, one in wanted.ports.items() for name, made in one.filters.items()}
        filters: dict[str, dict[str, Object]] = {}
        for (port_name, name), made in self._filters.with_leaving(flat, now).items():
            filters.setdefault(port_name, {})[name] = made
        heads = [
            listeners.listener(port.gate, port.number, filters.get(name, {}), self._files.routes(name))
            for name, port in wanted.ports.items()
        ]
        return list(self._clusters.with_leaving(wanted.clusters, now).values()), heads

    async def _give_listeners(self, heads: list[Object]) -> None:
        """Those that cannot listen are tried again every few seconds: whatever is in their way may go."""
        loop = asyncio.get_running_loop()
        try:
            await self._give(_LDS, self._files.listeners, heads, again=loop.time() >= self._retry)
        except RefusedError:
            dump = orjson.loads(await self._envoy.ask("/config_dump?resource=dynamic_listeners"))
            errors = [one["error_state"] for one in dump.get("configs", ()) if "error_state" in one]
            self._failing = {error["failed_configuration"]["name"]: error["details"] for error in errors}
            if not self._failing:
                raise
            if loop.time() >= self._retry or self._retry == inf:
                self._retry = loop.time() + _RETRY_SECONDS
        else:
            self._failing, self._retry = {}, inf

    async def _give_routes(self, name: str, port: Port) -> None:
        good = [one for one in port.placed if not self._is_bad(name, one)]
        try:
            await self._give_table(name, port, good)
        except RefusedError:
            # One after the other, to find who is at fault: it must not keep the others from changing.
            known = self._tables[name][1] if name in self._tables else []
            taken = [one for one in good if any(one.compiled is before.compiled for before in known)]
            for one in [one for one in good if one not in taken]:
                try:
                    await self._give_table(name, port, [*taken, one])
                    taken.append(one)
                except RefusedError as why:
                    self._bad[name, one.key] = (one.compiled, str(why))
            await self._give_table(name, port, taken)  # it is what the next start will read

    async def _give_table(self, name: str, port: Port, placed: list[Placed]) -> None:
        if self._tables.get(name) == (port.gate, placed) and name not in self._unsure:
            return
        # In a thread: thousands of routes take a while, and this one has requests to answer.
        table = await asyncio.to_thread(route_table, port.gate, port.number, placed)
        self._unsure.add(name)
        await self._give(f"{_RDS}.{name}", self._files.routes(name), [table])
        self._unsure.discard(name)
        self._tables[name] = (port.gate, placed)

    def _is_bad(self, name: str, one: Placed) -> bool:
        known = self._bad.get((name, one.key))
        return known is not None and known[0] is one.compiled

    async def _give(self, what: str, path: Path, resources: list[Object], *, again: bool = False) -> None:
        """Write a file, and wait until Envoy has taken it. Raises RefusedError, NotAnsweringError."""
        version = self._files.write(path, resources, again=again)
        if self._taken.get(what) == version:
            return
        known, why = self._refused.get(what, ("", ""))
        if known == version:
            raise RefusedError(why)

        def decided(state: dict[str, str]) -> bool:
            rejections = int(state.get(f"{what}.update_rejected", 0))
            if state.get(f"{what}.version_text") == f'"{version}"':
                self._taken[what] = version
            elif rejections > self._rejections.get(what, 0):
                self._refused[what] = (version, self._envoy.last_words())
            self._rejections[what] = rejections
            return self._taken.get(what) == version or self._refused.get(what, ("",))[0] == version

        await self._state(decided)
        if self._taken.get(what) != version:
            raise RefusedError(self._refused[what][1])

    async def _state(self, wanted: Callable[[dict[str, str]], bool]) -> None:
        """Wait until Envoy's state is as wanted. Raises NotAnsweringError after a while."""
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + _TAKEN_SECONDS, _ASK_FIRST
        while True:
            await self._envoy.ready()
            if self._envoy.pid != self._pid:  # another one, which counts from 0
                self._pid, self._rejections = self._envoy.pid, {}
            with suppress(NotAnsweringError):  # it may just have died, and will be there again
                lines = (await self._envoy.ask(_STATE)).decode().splitlines()
                if wanted(dict(line.split(": ", 1) for line in lines if ": " in line)):
                    return
            if loop.time() > deadline:
                raise NotAnsweringError(f"Envoy has not taken its configuration after {_TAKEN_SECONDS:.0f} s")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _ASK_MOST)
