"""Processes of containers: started, ended with all that they started, and found after a crash."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from embedded.node import memory, processes
from embedded.node.leftovers import Records, end_leftovers, name_of
from embedded.node.memory import MemoryWatch
from embedded.node.processes import NoRoomError, Process, StartError, kill_marked, marked, stat_of

ENV = {"PATH": os.environ["PATH"]}
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    return uvloop.run if request.param == "uvloop" else asyncio.run


def start(*argv: str, mark: str = "test/", **more: Any) -> Process:
    with Path(os.devnull).open("wb") as nowhere:
        return processes.start(argv, ENV, "/", mark=mark, output=nowhere.fileno(), **more)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def children() -> list[int]:
    return [pid for pid in processes.all_pids() if (stat := stat_of(pid)) and stat.parent == os.getpid()]


def test_an_exit_code_is_that_of_a_shell(run: Run) -> None:
    async def codes() -> None:
        assert await start("sh", "-c", "exit 7").exited == 7
        killed = start("sh", "-c", "kill -9 $$")
        assert (await killed.exited, killed.signal) == (137, 9)
        ended = start("sleep", "100")
        ended.terminate()
        assert (await ended.exited, ended.signal) == (143, signal.SIGTERM)
        assert not ended.running
        ended.kill()  # whom there is no more: nothing happens

    run(codes())


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["no-such-program"], 'exec: "no-such-program": executable file not found in $PATH'),
        (["/no/such/program"], 'exec: "/no/such/program": no such file or directory'),
        (["/etc"], 'exec: "/etc": permission denied'),
    ],
)
def test_what_cannot_be_started_is_named(argv: list[str], why: str) -> None:
    async def fail() -> None:
        with pytest.raises(StartError) as raised:
            start(*argv)
        assert str(raised.value) == why

    asyncio.run(fail())


def test_hundreds_of_starts_leave_no_zombie_and_no_open_file(run: Run) -> None:
    async def many() -> None:
        await start("true").exited
        before = (open_files(), children())
        for _ in range(30):
            await asyncio.gather(*(start("true").exited for _ in range(10)))
        assert (open_files(), children()) == before

    run(many())


def test_limits_are_those_of_the_process(tmp_path: Path) -> None:
    async def limits() -> str:
        process = start("sleep", "100", memory=1 << 30, nice=5)
        text = Path(f"/proc/{process.pid}/limits").read_text()
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == os.getpriority(os.PRIO_PROCESS, 0) + 5
        process.kill()
        await process.exited
        return text

    rows = {row[:25].strip(): row[25:].split()[:2] for row in asyncio.run(limits()).splitlines()}
    assert rows["Max core file size"] == ["0", "0"]
    assert rows["Max data size"] == [str(1 << 30)] * 2


def test_starting_takes_the_loop_little_time() -> None:
    async def measure() -> list[float]:
        started, taken = [], []
        for _ in range(20):
            begun = time.perf_counter()
            started.append(start("sleep", "100"))
            taken.append(time.perf_counter() - begun)
        for process in started:
            process.kill()
        await asyncio.gather(*(process.exited for process in started))
        return taken

    assert sorted(uvloop.run(measure()))[10] < 0.02


def test_the_marker_finds_those_who_left_the_group() -> None:
    async def scatter() -> None:
        mark = f"test-{os.getpid()}/one/"
        process = start("sh", "-c", "setsid sleep 100 & (sleep 100 &) & wait", mark=mark)
        deadline, found = time.monotonic() + 20, set[int]()
        while len(found) < 3 and time.monotonic() < deadline:
            found |= set(marked(mark))
            await asyncio.sleep(0.02)
        assert len(found) >= 3
        other = start("sleep", "100", mark=f"test-{os.getpid()}/two/")
        assert await asyncio.to_thread(kill_marked, mark) >= 3
        await process.exited
        assert not any(map(lives, found))
        assert other.running
        other.kill()
        await other.exited

    uvloop.run(scatter())


def test_a_command_that_takes_too_long_is_ended() -> None:
    async def slow() -> None:
        assert await processes.run(["sh", "-c", "exit 3"], ENV, "/", mark="test/", seconds=10) == 3
        mark = f"test-{os.getpid()}/slow/"
        with pytest.raises(TimeoutError):
            await processes.run(["sleep", "100"], ENV, "/", mark=mark, seconds=0.1)
        await asyncio.sleep(0.1)
        assert marked(mark) == []

    uvloop.run(slow())


# Leftovers


def left_running(data: Path, script: str) -> int:
    """Start a container in a process that is then killed, as a runner is; the container's process."""
    code = f"""
import asyncio, os
from pathlib import Path
from embedded.node import processes
from embedded.node.leftovers import Records, name_of
data = Path({str(data)!r})
async def start():
    out = os.open(os.devnull, os.O_WRONLY)
    mark = name_of(data) + "/uid/main/0/"
    process = processes.start(["sh", "-c", {script!r}], {ENV!r}, "/", mark=mark, output=out)
    Records(data).add(process)
    print(process.pid, flush=True)
    os.kill(os.getpid(), 9)
asyncio.run(start())
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -9
    return int(done.stdout)


def lives(pid: int) -> bool:
    stat = stat_of(pid)
    return stat is not None and stat.state != "Z"


def is_gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while lives(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not lives(pid)


def test_what_a_killed_runner_left_is_ended(tmp_path: Path) -> None:
    plain = left_running(tmp_path, "sleep 1000")
    hidden = left_running(tmp_path, "exec env -i sleep 1000")  # its environment says nothing
    assert end_leftovers(tmp_path) >= 2
    assert is_gone(plain)
    assert is_gone(hidden)
    assert end_leftovers(tmp_path) == 0


def test_nobody_elses_process_is_ended(tmp_path: Path) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    bystander = subprocess.Popen(["sleep", "1000"], env={**ENV, "TRUEUP_CONTAINER": f"{'0' * 32}/uid/main/0/"})
    stat = stat_of(bystander.pid)
    assert stat is not None
    Records(tmp_path)
    name_of(tmp_path)
    folder = tmp_path / "node" / "processes"
    (folder / f"{bystander.pid}-{stat.started - 1}-{boot}").touch()  # a number that was used before
    (folder / f"{bystander.pid}-{stat.started}-another-boot").touch()  # before the machine started anew
    assert end_leftovers(tmp_path) == 0
    assert bystander.poll() is None
    assert list(folder.iterdir()) == []
    bystander.kill()
    bystander.wait()


def test_a_folder_that_no_runner_has_used_has_no_leftovers(tmp_path: Path) -> None:
    assert end_leftovers(tmp_path) == 0
    assert list(tmp_path.iterdir()) == []


# Memory


def test_the_memory_of_a_whole_tree_is_limited() -> None:
    async def watch() -> None:
        watched, exceeded = MemoryWatch(), asyncio.Event()
        task = asyncio.create_task(watched.run())
        greedy = "import time; x = b'x' * (60 << 20); time.sleep(100)"
        code = (
            f"import subprocess, sys; [subprocess.Popen([sys.executable, '-c', {greedy!r}]) for _ in '123'][0].wait()"
        )
        process = start(sys.executable, "-c", code)
        watched.add(process, 150 << 20, exceeded.set)
        async with asyncio.timeout(20):
            await exceeded.wait()
        process.kill()
        await process.exited
        task.cancel()

    uvloop.run(watch())


def test_what_forked_processes_share_counts_once() -> None:
    async def measure() -> None:
        # One array, five processes that have it: 500 MiB by one count, 100 MiB in memory.
        forks = "leader = os.getpid(); [os.fork() for _ in '1234' if os.getpid() == leader]"
        code = f"import os, time; x = b'x' * (100 << 20); {forks}; time.sleep(100)"
        process = start(sys.executable, "-c", code)
        stats: list[processes.Stat] = []
        for _ in range(200):
            stats = [stat for pid in processes.all_pids() if (stat := stat_of(pid)) and stat.session == process.pid]
            if len(stats) == 5:
                break
            await asyncio.sleep(0.05)
        pids = [stat.pid for stat in stats]
        assert len(pids) == 5
        assert sum(memory._private(pid) for pid in pids) > 480 << 20
        assert 95 << 20 < sum(memory._share(pid) for pid in pids) < 200 << 20
        process.kill()
        await process.exited

    uvloop.run(measure())


@pytest.mark.parametrize("left", range(6))
def test_without_a_file_descriptor_nothing_is_started_and_nothing_is_left(run: Run, left: int) -> None:
    async def use() -> None:
        before, limits = children(), resource.getrlimit(resource.RLIMIT_NOFILE)
        told = ""
        with Path(os.devnull).open("wb") as output, ExitStack() as files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
            taken = []
            with suppress(OSError):
                while True:
                    taken.append(files.enter_context(Path(os.devnull).open("rb")))
            for file in taken[:left]:
                file.close()
            try:
                process = processes.start(("sleep", "60"), ENV, "/", mark="test/", output=output.fileno())
            except NoRoomError as error:
                told = str(error.strerror)
            else:
                process.kill()
                await process.exited
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert told in ("", "Too many open files")
        assert told or left
        assert children() == before

    run(use())
