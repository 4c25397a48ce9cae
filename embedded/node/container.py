"""The life of one container: started, watched, ended, and started again as its pod's restart policy says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

from embedded.deletion import timestamp
from embedded.node import processes
from embedded.node.environment import ConfigError, Facts, Launch, command_line, launch
from embedded.node.leftovers import Records
from embedded.node.logs import LogWriter, last_lines
from embedded.node.memory import MemoryWatch, data_limit
from embedded.node.probes import Asked, Thresholds, problem_of
from embedded.node.processes import Process, StartError
from embedded.node.status import ContainerReport
from embedded.node.volumes import Place
from embedded.quantity import parse_quantity

Object = dict[str, Any]

#: The first restart is at once, then after 1 s, doubled each time up to a minute: a kubelet's own times with
#: ReduceDefaultCrashLoopBackOffDecay, for a user who waits. A run of ten minutes is a new beginning.
_BACK_OFF, _BACK_OFF_MOST, _RECOVERED = 1.0, 60.0, 600.0

#: Seconds that a process has after SIGTERM at least, even if a preStop hook has used up the grace period.
_LEAST_GRACE = 2.0

#: Seconds after which it is tried again to make what a container needs, if nothing happens before.
_TRY_AGAIN = 10.0

#: Seconds in which a pipe that nobody should have open any more is still read.
_DRAIN = 2.0

#: How much a pod that ends by itself, like a build, lets others go first: those that serve.
_BATCH_NICE = 5

#: The exit code of what could not be started at all, as container runtimes have it.
_NOT_STARTED = 128

#: What a kubelet takes of a log where a container left no message.
_LOG_LINES, _LOG_BYTES = 80, 2048


def back_off(restarts: int) -> float:
    """Seconds to wait before a container is started again that has been so often already."""
    return min(_BACK_OFF * 2.0 ** min(restarts - 1, 10), _BACK_OFF_MOST) if restarts else 0.0


class Machine(NamedTuple):
    """What all containers of a node share."""

    name: str  #: of the data plane: how its markers begin
    clock: Callable[[], datetime]
    base: Mapping[str, str]  #: the environment below that of the manifest
    capacity: Mapping[str, str]
    records: Records
    memory: MemoryWatch
    logs: dict[str, LogWriter]  #: of the containers that run, by id
    event: Callable[..., None]  #: events.Events.record


class Container:
    """One container of a pod. `changed` is called whenever `report` has something new to say."""

    def __init__(self, spec: Object, facts: Facts, place: Place, machine: Machine, changed: Callable[[], None]) -> None:
        self.spec = spec
        first = "PodInitializing" if facts.pod["spec"].get("initContainers") else "ContainerCreating"
        self.state: Object = {"waiting": {"reason": first}}
        self.last: Object = {}
        self.restarts = 0
        self.started = asyncio.Event()
        self._id = ""
        self._ready = False
        self._facts = facts
        self._place = place
        self._machine = machine
        self._changed = changed
        self._process: Process | None = None
        self._launch: Launch | None = None  # of the process
        self._ending: asyncio.Task[None] | None = None
        self._ends = 0.0  # when the grace period does
        self._out_of_memory = False
        self._stopping = False
        self._wake = asyncio.Event()
        self._clock = asyncio.get_running_loop().time

    def report(self) -> ContainerReport:
        """How it is now."""
        return ContainerReport(
            self.spec, self.state, self.last, self._ready, self.started.is_set(), self.restarts, self._id
        )

    def restore(self, status: Object, now: datetime, *, again: bool) -> bool:
        """Take over from an earlier runner, as whose last act the container was ended; whether it had been started.

        `again`: it will be started once more.
        """
        if not status.get("containerID"):
            return False
        self._id, self.restarts = status["containerID"], status["restartCount"]
        self.last = status.get("lastState", {}).get("terminated", {})
        ended = status["state"].get("terminated") or self.last
        running = status["state"].get("running")
        if running is not None:
            ended = {
                "exitCode": 137,
                "reason": "ContainerStatusUnknown",
                "message": "The container could not be located when the pod was terminated",
                "startedAt": running.get("startedAt"),
                "finishedAt": timestamp(now),
                "containerID": self._id,
            }
        if again and not (self.policy == "OnFailure" and not self._is_init and ended.get("exitCode") == 0):
            self.last = ended
        else:
            self.state = {"terminated": ended}
            self._ready = self._is_init and ended.get("exitCode") == 0
        return True

    @property
    def policy(self) -> str:
        """When it is started again: Always, OnFailure or Never."""
        return str(self.spec.get("restartPolicy") or self._facts.pod["spec"].get("restartPolicy", "Always"))

    async def run(self, policy: str) -> None:
        """Run it until it is not started any more: it ended, and `policy` says so, or `stop` was called."""
        crashes = 0
        while (described := await self._described()) is not None:
            begun = self._clock()
            try:
                process = self._start(described)
            except OSError as error:  # a full disk, no file descriptor left: no fault of the container
                await self._try_again("CreateContainerError", str(error))
                continue
            code = await self._run(process) if process is not None else _NOT_STARTED
            if self._stopping or policy == "Never" or (policy == "OnFailure" and code == 0):
                return
            crashes = 0 if self._clock() - begun >= _RECOVERED else crashes
            await self._back_off(back_off(crashes))
            crashes += 1
        if self.last and "waiting" in self.state:
            self.state = {"terminated": self.last}  # it waited to be started once more

    def stop(self, grace: float) -> None:
        """End it within so many seconds, and do not start it again. A later call may shorten the time."""
        if not self._stopping and self._process is not None:
            self._machine.event(self._facts.pod, "Killing", f"Stopping container {self.spec['name']}")
        self._stopping = True
        self._wake.set()
        self._end(grace)

    def look_again(self) -> None:
        """A Secret or ConfigMap that it may wait for has changed."""
        self._wake.set()

    # Before it runs

    async def _described(self) -> Launch | None:
        """How to start it, once all is there that it needs; None where it is not to be started any more."""
        while not self._stopping:
            try:
                base = self._place.environment(self._machine.base)
                _check_handlers(self.spec)
                described = launch(self.spec, self._facts, self._place.paths, base, str(self._place.work))
                await asyncio.to_thread(self._place.make)
                if not self._stopping:
                    return described
            except ConfigError as error:
                reason = "CreateContainerConfigError" if self.spec.get("command") else "CreateContainerError"
                await self._try_again(reason, str(error))
            except OSError as error:  # a full disk, for example
                await self._try_again("CreateContainerError", str(error))
        return None

    async def _try_again(self, reason: str, message: str) -> None:
        if self.state.get("waiting", {}).get("message") != message:
            self._machine.event(self._facts.pod, "Failed", f"Error: {message}", warning=True)
        self._wait(reason, message)
        await self._sleep(_TRY_AGAIN)

    async def _back_off(self, seconds: float) -> None:
        if not seconds:
            return
        metadata = self._facts.pod["metadata"]
        pod = f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"
        message = f"back-off {seconds:g}s restarting failed container={self.spec['name']} pod={pod}"
        self._wait("CrashLoopBackOff", message)
        self._machine.event(self._facts.pod, "BackOff", message, warning=True)
        ends = self._clock() + seconds
        while not self._stopping and (left := ends - self._clock()) > 0:
            await self._sleep(left)

    def _wait(self, reason: str, message: str) -> None:
        self.last = self.state.get("terminated") or self.last
        self.state = {"waiting": {"reason": reason, "message": message}}
        self._changed()

    async def _sleep(self, seconds: float) -> None:
        """So long, or until somebody wakes it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    # While it runs

    def _start(self, described: Launch) -> Process | None:
        """Start it; None where that cannot be. Raises OSError where the machine has no room for it now."""
        attempt = self.restarts + bool(self._id)
        pod = self._facts.pod
        uid, name = pod["metadata"]["uid"], self.spec["name"]
        mark = f"{self._machine.name}/{uid}/{name}/{attempt}/"
        self._forget_log(attempt - 2)
        log = LogWriter(self._place.log(attempt), self._machine.clock)
        limit = self.spec.get("resources", {}).get("limits", {}).get("memory")
        memory = int(parse_quantity(limit)) if limit is not None else None
        started_at = timestamp(self._machine.clock())
        refused = ""
        try:
            process = processes.start(
                described.argv,
                described.env,
                described.cwd,
                mark=mark,
                output=log.output,
                memory=data_limit(memory) if memory is not None else None,
                nice=0 if pod["spec"].get("restartPolicy", "Always") == "Always" else _BATCH_NICE,
                on_end=self._machine.records.remove,
            )
        except StartError as error:
            refused = str(error)
            log.close()
        except OSError:
            log.close()
            raise
        finally:
            log.handed_over()
        if self._id:  # it ran before
            self.last = self.state.get("terminated") or self.last
        self._id, self.restarts = f"process://{uid}/{name}/{attempt}", attempt
        if refused:
            self._machine.event(pod, "Failed", f"Error: {refused}", warning=True)
            self._finish("StartError", _NOT_STARTED, refused, "1970-01-01T00:00:00Z")
            return None
        self._machine.records.add(process)
        self._machine.logs[self._id] = log
        self._process, self._launch, self._ending, self._out_of_memory = process, described, None, False
        if memory is not None:
            self._machine.memory.add(process, memory, self._on_memory_exceeded)
        self.state = {"running": {"startedAt": started_at}}
        self._machine.event(pod, "Started", f"Started container {name}: a process of this machine, not its image")
        self._changed()
        return process

    async def _run(self, process: Process) -> int:
        """See it through, and give its exit code."""
        log, started_at = self._machine.logs[self._id], self.state["running"]["startedAt"]
        care = asyncio.create_task(self._care(process.mark))
        code = await process.exited
        for task in (care, self._ending):
            if task is not None:
                task.cancel()
        self._machine.memory.remove(process)
        await asyncio.to_thread(processes.kill_marked, process.mark)
        await asyncio.wait({log.closed}, timeout=_DRAIN)
        log.close()
        self._machine.logs.pop(self._id, None)
        self._process = None
        reason = "OOMKilled" if self._out_of_memory else "Error" if code else "Completed"
        self._finish(reason, code, self._message(code), started_at, process.signal)
        return code

    def _on_memory_exceeded(self) -> None:
        self._out_of_memory = True
        if self._process is not None:
            self._process.kill()

    def _finish(self, reason: str, code: int, message: str, started_at: str, number: int = 0) -> None:
        ended: Object = {
            "exitCode": code,
            "reason": reason,
            "startedAt": started_at,
            "finishedAt": timestamp(self._machine.clock()),
            "containerID": self._id,
        }
        if number:
            ended["signal"] = number
        if message:
            ended["message"] = message
        self.state = {"terminated": ended}
        self._ready = code == 0 and self._is_init
        self.started.clear()
        self._changed()

    @property
    def _is_init(self) -> bool:
        return any(one["name"] == self.spec["name"] for one in self._facts.pod["spec"].get("initContainers", ()))

    def _message(self, code: int) -> str:
        message = self._place.termination_message()
        if not message and code and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            return last_lines(self._place.log(self.restarts), lines=_LOG_LINES, size=_LOG_BYTES)
        return message

    def _forget_log(self, attempt: int) -> None:
        """Of the run before the last nobody can ask."""
        for path in self._place.folder.glob(f"{attempt}.log*"):
            path.unlink()

    # Probes and hooks

    async def _care(self, mark: str) -> None:
        """Ask it how it is, until it has ended."""
        asked = self._asked(mark)
        hook = self.spec.get("lifecycle", {}).get("postStart")
        if hook is not None and (problem := await problem_of(hook, asked, 3600)):
            self._machine.event(
                self._facts.pod, "FailedPostStartHook", f"PostStartHook failed: {problem}", warning=True
            )
            self._end(self._grace)
            return
        startup, readiness = self.spec.get("startupProbe"), self.spec.get("readinessProbe")
        if startup is not None and not await self._probe(startup, "Startup", asked):
            return
        self.started.set()
        self._ready = readiness is None
        self._changed()
        async with asyncio.TaskGroup() as group:
            if readiness is not None:
                group.create_task(self._probe(readiness, "Readiness", asked))
            if (liveness := self.spec.get("livenessProbe")) is not None:
                group.create_task(self._probe(liveness, "Liveness", asked))

    async def _probe(self, probe: Object, what: str, asked: Asked) -> bool:
        """Ask, again and again. A startup probe says once that it has started; a container that fails one is ended."""
        meaning = Thresholds(probe, first=what == "Liveness")
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        while not self._stopping or what == "Readiness":
            problem = await problem_of(probe, asked, max(1, probe.get("timeoutSeconds", 1)))
            if problem:
                self._machine.event(self._facts.pod, "Unhealthy", f"{what} probe failed: {problem}", warning=True)
            if meaning.take(not problem):
                if what == "Readiness":
                    self._set_ready(meaning.value)
                elif what == "Startup" and meaning.value:
                    return True
                elif not meaning.value:
                    failed = f"Container {self.spec['name']} failed {what.lower()} probe, will be restarted"
                    self._machine.event(self._facts.pod, "Killing", failed)
                    self._end(probe.get("terminationGracePeriodSeconds", self._grace))
                    return False
            await asyncio.sleep(max(1, probe.get("periodSeconds", 10)))
        return False

    def _set_ready(self, ready: bool) -> None:
        if ready != self._ready:
            self._ready = ready
            self._changed()

    def _asked(self, mark: str) -> Asked:
        described = self._launch
        assert described is not None

        async def run(command: list[str], seconds: float) -> int:
            argv = command_line(command, self._place.paths)
            return await processes.run(argv, described.env, described.cwd, mark=mark, seconds=seconds)

        ports = {port["name"]: port["containerPort"] for port in self.spec.get("ports", ()) if "name" in port}
        return Asked(self._facts.ip, ports, run)

    # Its end

    @property
    def _grace(self) -> float:
        return float(self._facts.pod["spec"].get("terminationGracePeriodSeconds", 30))

    def _end(self, grace: float) -> None:
        """End the process that runs now, within so many seconds; of two calls the sooner end counts."""
        process, ends = self._process, self._clock() + grace
        if process is None or not process.running or (self._ending is not None and ends >= self._ends):
            return
        first = self._ending is None
        if self._ending is not None:
            self._ending.cancel()
        self._ends = ends
        self._ending = asyncio.create_task(self._end_process(process, grace, hook=first))

    async def _end_process(self, process: Process, grace: float, *, hook: bool) -> None:
        if grace > 0:
            before = self.spec.get("lifecycle", {}).get("preStop")
            if hook and before is not None:
                problem = await problem_of(before, self._asked(process.mark), grace)
                if problem:
                    self._machine.event(
                        self._facts.pod, "FailedPreStopHook", f"PreStopHook failed: {problem}", warning=True
                    )
            process.terminate()
            await asyncio.wait({process.exited}, timeout=max(self._ends - self._clock(), _LEAST_GRACE))
        process.kill()


def _check_handlers(spec: Object) -> None:
    """Refuse what cannot be asked here, rather than to say that the container is ill."""
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        if "grpc" in spec.get(name, {}):
            raise ConfigError(f"{name}: grpc probes are not known to the embedded data plane: use httpGet or tcpSocket")
