"""The controller of the gateway: looks at the objects, has Envoy do what they say, and reports on them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Protocol

from embedded.gateway.configuration import Configuration, Memo, configure
from embedded.gateway.delivery import Delivery
from embedded.gateway.envoy import Envoy, find_envoy
from embedded.gateway.files import Files
from embedded.gateway.statuses import reports
from embedded.gateway.world import CLASS, CLASSES, CONTROLLER, Key, World
from embedded.loop import Cluster
from embedded.store import Event

log = logging.getLogger(__name__)

#: Seconds after which it is tried again to deliver what could not be: a full disk, for example.
_RETRY_SECONDS = 2.0

#: How many Gateways one data plane can have.
_GATEWAYS = 254


class Addresses(Protocol):
    """The part of the loopback network that Gateways get their addresses from."""

    def gateway(self, index: int) -> str:
        """The address of the gateway with this number, from 0 on."""


class Gateway:
    """Gateways of class `trueup-embedded`, as one Envoy: a Controller, and a task of its own.

    `start` before the loop of controllers, `stop` after it. `data` is the data folder, in which `gateway/` is used.
    Envoy runs from the first Gateway on.
    """

    def __init__(self, cluster: Cluster, data: Path, subnet: Addresses) -> None:
        self._cluster = cluster
        self._addresses = [subnet.gateway(index) for index in range(_GATEWAYS)]
        self._world = World()
        self._memo, self._said = Memo(), Memo()
        self._given: dict[Key, str] = {}  # which address each Gateway has, or had
        folder = data.resolve() / "gateway"
        self._news = asyncio.Event()
        self.envoy = Envoy(data, folder, self._news.set, find_envoy())
        self._delivery = Delivery(Files(folder), self.envoy)
        self._wanted: tuple[World, Configuration] | None = None
        self._reporting = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Make the class of our Gateways known, and begin to deliver."""
        spec = {"controllerName": CONTROLLER, "description": "An Envoy on this machine"}
        self._cluster.create(CLASSES, "", {"metadata": {"name": CLASS}, "spec": spec})
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End the delivery, and Envoy."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self.envoy.stop()

    def keys(self, event: Event) -> Iterable[str]:
        """Controller: there is one key, for everything. What we report ourselves changes nothing."""
        return ("",) if self._world.note(event) and not self._reporting else ()

    def reconcile(self, _key: str) -> float | None:
        """Controller: find out what Envoy should do. The task has it done."""
        world = self._world.snapshot()
        wanted = configure(world, self._addresses, self._memo, self._given)
        self._given |= {key: gate.address for key, gate in wanted.gates.items() if gate.address}
        self._wanted = (world, wanted)
        self._news.set()
        return None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            pause = self._delivery.next - loop.time()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if pause == inf else max(pause, 0)):
                    await self._news.wait()
            self._news.clear()
            if self._wanted is not None:
                try:
                    await self._deliver(*self._wanted)
                except Exception:  # as with every controller: what cannot be handled must not end all the rest
                    log.exception("the gateway could not be brought up to date")
                    await asyncio.sleep(_RETRY_SECONDS)
                    self._news.set()

    async def _deliver(self, world: World, wanted: Configuration) -> None:
        proxy = await self._delivery.deliver(wanted)
        for report in list(reports(world, wanted, proxy, self._cluster.now, self._said)):
            self._reporting = True
            try:
                self._cluster.set_status(report.resource, report.key.namespace, report.key.name, report.status)
            finally:
                self._reporting = False
            await asyncio.sleep(0)  # requests come in between
