"""The workers, and the one queue in front of them.

A worker computes one batch at a time, and one that has nothing to do gets what waits at once. Three rules keep a
model's faults to the requests that met them:

- A request that is not answered within the time limit, counted from when it was read, gets a 504 at that moment.
- A worker whose call has lasted for the time limit is killed and replaced. Every request of that call arrived before
  the call began, so each of them has had its 504 by then: the kill takes nobody's answer.
- A worker that dies by itself fails the requests of its call. They are not tried again: the next worker would die of
  the same request. What waits in the queue goes to the other workers, or to the one that takes its place.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from runtime.server import frames, log

#: Longest pause between two tries to start a worker, in seconds.
_LONGEST_PAUSE = 30.0
#: Seconds for the processes to end by themselves.
_ENDING = 4.0
#: A worker that lived for so many seconds was well.
_WELL_AFTER = 10.0


class LoadFailed(Exception):  # noqa: N818 - what a person calls it
    """The model could not be loaded: why, in a sentence."""


class Unavailable(Exception):  # noqa: N818 - a state, and not a fault of the caller
    """No request is taken at the moment: why, in a sentence."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a worker tells of the model that it loaded."""

    batchable: bool = False
    sample_ratio: float = 0.0
    exclude_columns: tuple[str, ...] = ()


class Task:
    """A request's way through the pool. `finish(status, text, body)` is called exactly once.

    `text` is the content type of an answer below 400, and the exception's class ("" if there is none) of others.
    """

    __slots__ = ("_finish", "arrived", "begun", "body", "kind", "notes", "number", "settled", "text")

    def __init__(self, kind: int, text: str, body: bytes, finish: Callable[[int, str, bytes], None]) -> None:
        self.kind = kind
        self.text = text
        self.body = body
        self.arrived = 0.0
        self.number = 0
        self.settled = False
        self.begun = False  # a worker has it
        self.notes = b""  # what the model logged of it itself, as a list in JSON
        self._finish = finish

    def settle(self, status: int, text: str, body: bytes) -> None:
        """The answer, unless there is one already."""
        if not self.settled:
            self.settled = True
            self.body = b""
            self._finish(status, text, body)

    def fail(self, status: int, message: str, exception: str = "") -> None:
        self.settle(status, exception, json.dumps({"message": message}).encode())

    def abandon(self) -> None:
        """The caller is gone: what still waits is not computed. 499 is what nginx calls it."""
        self.fail(499, "the caller did not wait for the answer")


class Worker(asyncio.Protocol):
    """A worker, as the front sees it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._buffer = frames.Buffer()
        self._transport: asyncio.Transport | None = None
        self.pid = 0  # not known yet
        self.ready_at: float | None = None
        self.began: float | None = None  # its call; None: it has nothing to do
        self.batches = 0  # that it finished
        self.held: dict[int, Task] = {}
        self.killed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its type

    def data_received(self, data: bytes) -> None:
        for frame in self._buffer.feed(data):
            if frame.kind >= 100:
                task = self.held.pop(frame.number, None)
                if task is not None:
                    self._pool.answered(task, frame)
            elif frame.kind == frames.DONE:
                self.began = None
                self.batches += 1
                self._pool.is_idle(self)
            elif frame.kind == frames.BACK:
                self._pool.give_back(self.held.pop(frame.number))
            elif frame.kind == frames.NOTES:
                self.held[frame.number].notes = frame.body
            elif frame.kind == frames.READY:
                self.pid = frame.number
                self._pool.is_ready(self, frame.body)
            else:
                self._pool.load_failed(frame.body.decode())

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # the signature is asyncio's
        self._pool.is_gone(self)

    def begin(self, batch: list[Task], now: float) -> None:
        assert self._transport is not None
        self.began = now
        self.held = {task.number: task for task in batch}
        parts = [frames.pack(task.kind, task.number, task.text, task.body) for task in batch]
        self._transport.write(b"".join((*parts, frames.pack(frames.GO))))

    def computing(self) -> list[dict[str, str]]:
        """What the requests that it has are called, for the log."""
        names = [task.text.split("\n") for task in self.held.values()]
        return [{"request_id": request_id, "trace_id": trace_id} for request_id, trace_id, *_ in names]

    def kill(self) -> None:
        self.killed = True
        if self.pid:
            with suppress(ProcessLookupError):  # it may be faster
                os.kill(self.pid, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """Its input ends, and with it the worker, once it has done what it is at."""
        if self._transport is not None:
            self._transport.abort()


class Pool:
    """Keeps `workers` workers, made by the template process that `command` starts (the socket's number is appended).

    `timeout` is in seconds, `max_batch` in rows, `max_waiting` in requests.
    """

    def __init__(
        self, command: Sequence[str], *, workers: int, timeout: float, max_batch: int, max_waiting: int, forked: bool
    ) -> None:
        self._command = command
        self._timeout = timeout
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._forked = forked
        self._loop = asyncio.get_running_loop()
        self._hello: asyncio.Future[Hello] = self._loop.create_future()
        self._control: socket.socket | None = None
        self._template: asyncio.subprocess.Process | None = None
        self._loaded = False  # the template can fork
        self._due = workers  # workers to fork as soon as it can
        self._trouble = 0  # ends in a row of workers that were not well
        self._workers: set[Worker] = set()
        self._idle: list[Worker] = []
        self._waiting: deque[Task] = deque()
        self._unanswered: OrderedDict[int, Task] = OrderedDict()  # by number, so by arrival
        self._numbers = 0
        self._timer: asyncio.TimerHandle | None = None
        self._jobs: set[asyncio.Task[None]] = set()
        self._closing = False
        self.hello = Hello()
        self.replaced: Counter[str] = Counter({"died": 0, "timeout": 0})  # workers, by why

    # What the server asks

    async def start(self) -> None:
        """Returns when the first worker is ready. Raises LoadFailed."""
        self._job(self._run_template())
        self.hello = await asyncio.shield(self._hello)

    @property
    def ready(self) -> int:
        """Workers that have the model."""
        return sum(worker.ready_at is not None for worker in self._workers)

    @property
    def waiting(self) -> int:
        """Requests that no worker has."""
        return len(self._waiting)

    @property
    def unanswered(self) -> int:
        """Requests that wait or are computed."""
        return len(self._unanswered)

    def pids(self) -> list[int]:
        """Of the template and the workers."""
        template = [self._template.pid] if self._template is not None else []
        return template + [worker.pid for worker in self._workers if worker.pid]

    def check(self) -> None:
        """Raises Unavailable where `submit` would."""
        if not self._hello.done():
            raise Unavailable("the model is being loaded")
        if not self.ready and self._trouble > 1:
            raise Unavailable("no process that has the model is alive; the next one is being started")
        if len(self._waiting) >= self._max_waiting:
            raise Unavailable(f"{self._max_waiting} requests wait already")

    def submit(self, task: Task) -> None:
        """Compute it. Raises Unavailable."""
        self.check()
        self._numbers = (self._numbers + 1) & 0xFFFF_FFFF
        task.number, task.arrived = self._numbers, self._loop.time()
        self._unanswered[task.number] = task
        self._waiting.append(task)
        if self._timer is None:
            self._timer = self._loop.call_at(task.arrived + self._timeout, self._check_times)
        if self._idle:
            self._dispatch()

    async def close(self) -> None:
        """Ends every process; what is not answered by now gets a 503."""
        self._closing = True
        for task in list(self._unanswered.values()):
            task.fail(503, "the server ends")
        if self._timer is not None:
            self._timer.cancel()
        for worker in list(self._workers):
            if worker.began is not None:
                worker.kill()
            worker.close()
        self._drop_control()  # the template waits for the workers, and ends
        if self._jobs:
            _, unfinished = await asyncio.wait(self._jobs, timeout=_ENDING)
            if unfinished and self._template is not None:
                self._template.kill()
                await self._template.wait()
            for job in unfinished:
                job.cancel()

    # The queue

    def _dispatch(self) -> None:
        most = self._max_batch if self.hello.batchable else 1
        waiting = self._waiting
        while self._idle and waiting:
            batch: list[Task] = []
            while waiting and len(batch) < most:
                task = waiting.popleft()
                if not task.settled:
                    task.begun = True
                    batch.append(task)
            if batch:
                # The one that worked last has its memory in the processor's caches.
                self._idle.pop().begin(batch, self._loop.time())

    def _check_times(self) -> None:
        """Ends what is over its time, and comes again when the next is."""
        limit = self._loop.time() - self._timeout
        while self._unanswered:
            number, task = next(iter(self._unanswered.items()))
            if task.arrived > limit and not task.settled:
                break
            del self._unanswered[number]
            task.fail(504, f"no answer within {self._timeout * 1000:.0f} ms")
        while self._waiting and self._waiting[0].settled:
            self._waiting.popleft()
        for worker in list(self._workers):
            if worker.began is not None and worker.began <= limit:
                self._kill(worker)
        due = [worker.began for worker in self._workers if worker.began is not None]
        due += [task.arrived for task in list(self._unanswered.values())[:1]]
        self._timer = self._loop.call_at(min(due) + self._timeout, self._check_times) if due else None

    def _kill(self, worker: Worker) -> None:
        hint = None
        if self._forked and not worker.batches:
            hint = (
                "its first call already: a library that keeps threads may not survive daemon_mode, which loads the "
                "model once and forks"
            )
        sentence = f"a call of the model took longer than {self._timeout:g} s: its process is replaced"
        log.write("error", sentence, requests=worker.computing(), hint=hint)
        worker.kill()

    # What workers tell

    def answered(self, task: Task, frame: frames.Frame) -> None:
        self._unanswered.pop(task.number, None)
        task.settle(frame.kind, frame.text, frame.body)

    def give_back(self, task: Task) -> None:
        task.begun = False
        self._waiting.appendleft(task)

    def is_idle(self, worker: Worker) -> None:
        for task in worker.held.values():  # a fault of ours, not of the model's: nobody waits for it until the limit
            self._unanswered.pop(task.number, None)
            task.fail(500, "the worker gave no answer")
        worker.held = {}
        self._idle.append(worker)
        self._dispatch()

    def is_ready(self, worker: Worker, body: bytes) -> None:
        told = json.loads(body)
        worker.ready_at = self._loop.time()
        if not self._hello.done():
            hello = Hello(told["batchable"], told["sample_ratio"], tuple(told["exclude_columns"]))
            self.hello = hello
            self._hello.set_result(hello)
        self.is_idle(worker)

    def load_failed(self, why: str) -> None:
        if not self._hello.done():
            self._hello.set_exception(LoadFailed(why))
        elif self._hello.exception() is None:
            log.write("error", f"the model cannot be loaded: {why}")

    def is_gone(self, worker: Worker) -> None:
        self._workers.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        for task in worker.held.values():
            self._unanswered.pop(task.number, None)
            task.fail(500, "the process that computed this prediction died", "WorkerDied")
        if self._closing:
            return
        if not self._hello.done():
            self._hello.set_exception(LoadFailed("its process died while it was loaded (is its memory enough?)"))
            return
        if worker.killed:
            self.replaced["timeout"] += 1
            pause = 0.0
        else:
            self.replaced["died"] += 1
            well = worker.ready_at is not None and self._loop.time() - worker.ready_at >= _WELL_AFTER
            self._trouble = 0 if well else self._trouble + 1
            pause = _pause(self._trouble)
            log.write(
                "error",
                "a process of the model died and is replaced",
                pid=worker.pid,
                requests=worker.computing(),
                pause_seconds=pause,
            )
        self._loop.call_later(pause, self._fork)

    # Processes

    def _job(self, work: Any) -> None:
        job = self._loop.create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    def _fork(self) -> None:
        if self._closing:
            return
        if not self._loaded or self._control is None:
            self._due += 1
            return
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [frames.pack(frames.FORK)], [theirs.fileno()])
            except OSError:  # the template is gone, and its end is on the way to us
                ours.close()
                self._due += 1
                return
        ours.setblocking(False)
        worker = Worker(self)
        self._workers.add(worker)
        self._job(self._connect(worker, ours))

    async def _connect(self, worker: Worker, ours: socket.socket) -> None:
        await self._loop.create_unix_connection(lambda: worker, sock=ours)

    async def _run_template(self) -> None:
        """Keeps a template. Workers outlive theirs; only new ones need it."""
        pause = 0.0
        while not self._closing:
            ours, theirs = socket.socketpair()
            with theirs:
                self._template = await asyncio.create_subprocess_exec(
                    *self._command,
                    str(theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
            ours.setblocking(False)
            self._control = ours
            self._loop.add_reader(ours, self._hear, ours, frames.Buffer())
            if self._closing:
                self._drop_control()
            status = await self._template.wait()
            self._template = None
            self._drop_control()
            if self._closing:
                return
            if not self._hello.done():
                how = f"signal {-status}: is its memory enough?" if status < 0 else f"exit code {status}"
                self._hello.set_exception(LoadFailed(f"its process died while it was loaded ({how})"))
                return
            pause = min(_LONGEST_PAUSE, pause * 2 or 0.25)
            log.write("error", "the process that makes workers died and is replaced", status=status)
            await asyncio.sleep(pause)

    def _hear(self, control: socket.socket, buffer: frames.Buffer) -> None:
        try:
            data = control.recv(65_536)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._loop.remove_reader(control)
        for frame in buffer.feed(data):
            if frame.kind == frames.LOADED:
                self._loaded = True
                due, self._due = self._due, 0
                for _ in range(due):
                    self._fork()
            else:
                self.load_failed(frame.body.decode())

    def _drop_control(self) -> None:
        self._loaded = False
        if self._control is not None:
            self._loop.remove_reader(self._control)
            self._control.close()
            self._control = None


def _pause(trouble: int) -> float:
    """Seconds before the next start, after so many ends in a row: none at first, then 1/4 s, doubled each time."""
    return 0.0 if trouble <= 1 else float(min(_LONGEST_PAUSE, 0.25 * 2 ** min(trouble - 2, 16)))
