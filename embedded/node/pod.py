"""The life of one pod: its volumes, its init containers in turn, its containers together, and its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from embedded.deletion import timestamp
from embedded.node import volumes
from embedded.node.container import Container, Machine
from embedded.node.environment import ConfigError, Facts
from embedded.node.status import PodReport
from embedded.node.volumes import MountError, Place

Object = dict[str, Any]

log = logging.getLogger(__name__)

#: Seconds after which it is tried again to mount volumes, if nothing happens before.
_TRY_AGAIN = 10.0


class Pod:
    """A pod that runs, or has ended. `changed` is called whenever `report` has something new to say."""

    def __init__(self, facts: Facts, folder: Path, machine: Machine, changed: Callable[[], None]) -> None:
        self._facts = facts
        self._folder = folder
        self._machine = machine
        self._changed = changed
        spec = facts.pod["spec"]
        self._init = [self._container(one) for one in spec.get("initContainers", ())]
        self._main = [self._container(one) for one in spec["containers"]]
        now = machine.clock()
        self._start_time = facts.pod.get("status", {}).get("startTime") or timestamp(now)
        self._prepared = False
        self._ended = False
        self._reason = self._message = self._disrupted = ""
        self._stopping = asyncio.Event()
        self._look = asyncio.Event()
        self._deadline: asyncio.TimerHandle | None = None
        self._restore(now)
        self.task: asyncio.Task[None] = asyncio.create_task(self._run())
        self.task.add_done_callback(self._on_end)
        self.update(facts.pod)

    @property
    def uid(self) -> str:
        """Of the object."""
        return str(self._facts.pod["metadata"]["uid"])

    @property
    def ended(self) -> bool:
        """Nothing of it runs, or will run again."""
        return self._ended

    def report(self) -> PodReport:
        """How it is now."""
        return PodReport(
            ip=self._facts.ip,
            host_ip=self._facts.host_ip,
            start_time=self._start_time,
            init=[container.report() for container in self._init],
            main=[container.report() for container in self._main],
            prepared=self._prepared,
            ended=self._ended,
            reason=self._reason,
            message=self._message,
            disrupted=self._disrupted,
        )

    def update(self, pod: Object) -> None:
        """The object has changed: it may have to end now, or sooner."""
        metadata, now = pod["metadata"], self._machine.clock()
        if "deletionTimestamp" in metadata:
            ends = datetime.fromisoformat(metadata["deletionTimestamp"])
            grace = metadata.get("deletionGracePeriodSeconds", 0)
            self.stop(min(grace, max(0.0, (ends - now).total_seconds() + 1)) if grace else 0)
        deadline = pod["spec"].get("activeDeadlineSeconds")
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if deadline is not None and not self._ended:
            left = deadline - (now - datetime.fromisoformat(self._start_time)).total_seconds()
            self._deadline = asyncio.get_running_loop().call_later(max(0.0, left), self._on_deadline)

    def look_again(self) -> None:
        """A Secret or ConfigMap of its namespace has changed."""
        self._look.set()
        if self._prepared and not self._stopping.is_set():
            try:
                volumes.mount(self._folder, self._facts)
            except (MountError, ConfigError, OSError) as error:  # what is mounted stays as it was
                log.info("pod %s: %s", self._facts.pod["metadata"]["name"], error)
        for container in (*self._init, *self._main):
            container.look_again()

    def stop(self, grace: float) -> None:
        """End it within so many seconds. A later call may shorten the time."""
        self._stopping.set()
        self._look.set()
        for container in (*self._init, *self._main):
            container.stop(grace)

    def _container(self, spec: Object) -> Container:
        place = Place(self._folder, self._facts.pod, spec)
        return Container(spec, self._facts, place, self._machine, self._changed)

    def _restore(self, now: datetime) -> None:
        """Take over what an earlier runner has reported: what ran then has been ended since."""
        status = self._facts.pod.get("status", {})
        known = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
        by_name = {one["name"]: one for one in known}
        again = self._policy != "Never"
        ran = [one.restore(by_name.get(one.spec["name"], {}), now, again=again) for one in (*self._init, *self._main)]
        if any(ran) and not again:
            self._stopping.set()
            states = [one["state"] for one in known]
            failed = any(state.get("terminated", {}).get("exitCode") for state in states)
            if any("running" in state or ("waiting" in state and not failed) for state in states):
                self._disrupted = "The embedded data plane was stopped while the pod ran"

    async def _run(self) -> None:
        sidecars: list[tuple[Container, asyncio.Task[None]]] = []
        if await self._mount() and await self._initialize(sidecars):
            async with asyncio.TaskGroup() as group:
                for container in self._main:
                    if not (container.policy == "OnFailure" and container.report().exit_code == 0):
                        group.create_task(container.run(container.policy))
        for container, task in reversed(sidecars):
            container.stop(self.grace)
            await task

    async def _mount(self) -> bool:
        """Wait until all volumes can be mounted; False where that is not wanted any more."""
        told = ""
        while not self._stopping.is_set():
            try:
                volumes.mount(self._folder, self._facts)
            except (MountError, ConfigError, OSError) as error:
                if str(error) != told:
                    told = str(error)
                    self._machine.event(self._facts.pod, "FailedMount", told, warning=True)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_TRY_AGAIN):
                        await self._look.wait()
                self._look.clear()
            else:
                self._prepared = True
                self._changed()
                return True
        return False

    async def _initialize(self, sidecars: list[tuple[Container, asyncio.Task[None]]]) -> bool:
        """Run the init containers in turn; whether all did what they should. `sidecars` gets those that go on."""
        for container in self._init:
            if container.spec.get("restartPolicy") == "Always":
                task = asyncio.create_task(container.run("Always"))
                sidecars.append((container, task))
                started = asyncio.create_task(container.started.wait())
                await asyncio.wait({started, task}, return_when=asyncio.FIRST_COMPLETED)
                started.cancel()
            else:
                await container.run("Never" if self._policy == "Never" else "OnFailure")
                if container.report().exit_code != 0:
                    return False
            if self._stopping.is_set():
                return False
        return True

    @property
    def _policy(self) -> str:
        return str(self._facts.pod["spec"].get("restartPolicy", "Always"))

    @property
    def grace(self) -> float:
        """Seconds that its manifest gives it to end."""
        return float(self._facts.pod["spec"].get("terminationGracePeriodSeconds", 30))

    def _on_deadline(self) -> None:
        self._reason = "DeadlineExceeded"
        self._message = "Pod was active on the node longer than the specified deadline"
        self._machine.event(self._facts.pod, "DeadlineExceeded", self._message)
        self.stop(self.grace)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            # Our own fault. Nothing of the pod may go on without anybody who looks after it.
            log.error("pod %s", self._facts.pod["metadata"]["name"], exc_info=error)
            self._reason, self._message = "RunnerError", "The process runner failed: see the log of the data plane"
            self.stop(0)
        if self._deadline is not None:
            self._deadline.cancel()
        self._ended = True
        self._changed()
