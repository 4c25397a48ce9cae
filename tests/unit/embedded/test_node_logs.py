"""Logs: what containers print is kept in bounded files, and read as it is asked for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from embedded.errors import StatusError
from embedded.node import logs
from embedded.node.logs import LogOptions, LogStream, LogWriter, container_of, last_lines, old_of, parse_options, run_of
from tests.conftest import examples

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def clock() -> Callable[[], datetime]:
    """A clock that goes on by a second with every look."""
    moments: Iterator[datetime] = (NOW + timedelta(seconds=second) for second in range(10**6))
    return lambda: next(moments)


class Client:
    """The connection of a client, which reads everything."""

    def __init__(self) -> None:
        self.received = b""
        self.ended = asyncio.Event()

    def send(self, data: bytes) -> None:
        self.received += data

    def end(self) -> None:
        self.ended.set()


async def write(path: Path, *chunks: bytes) -> None:
    writer = LogWriter(path, clock())
    for chunk in chunks:
        await asyncio.to_thread(os.write, writer.output, chunk)
        await asyncio.sleep(0.01)
    writer.handed_over()
    async with asyncio.timeout(10):
        await writer.closed


async def read(path: Path, live: LogWriter | None = None, **options: Any) -> str:
    client, stream = Client(), LogStream(path, LogOptions(**options), live)
    stream.start(client)
    async with asyncio.timeout(10):
        await client.ended.wait()
    stream.stop()
    return client.received.decode()


def test_lines_have_the_moment_when_they_came(tmp_path: Path) -> None:
    async def story() -> None:
        await write(tmp_path / "0.log", b"one\ntw", b"o\n")
        assert await read(tmp_path / "0.log") == "one\ntwo\n"
        stamped = "2030-01-02T03:04:05.000000000Z one\n2030-01-02T03:04:06.000000000Z two\n"
        assert await read(tmp_path / "0.log", timestamps=True) == stamped
        assert await read(tmp_path / "0.log", since="2030-01-02T03:04:06.000000000Z") == "two\n"

    uvloop.run(story())


@settings(max_examples=examples(40))
@given(st.lists(st.binary(max_size=40_000), max_size=4))
def test_whatever_is_printed_is_read_unchanged(tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]) -> None:
    async def story() -> None:
        path = tmp_path_factory.mktemp("logs") / "0.log"
        await write(path, *filter(None, chunks))
        client, stream = Client(), LogStream(path, LogOptions(), None)
        stream.start(client)
        await client.ended.wait()
        stream.stop()
        assert client.received == b"".join(chunks)

    uvloop.run(story())


def test_files_are_bounded_and_the_newest_lines_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FILE_BYTES", 10_000)
    path = tmp_path / "0.log"

    async def story() -> None:
        await write(path, *(b"%05d\n" % number * 50 for number in range(100)))
        lines = (await read(path)).splitlines()
        assert lines[-1] == "00099"
        assert lines == sorted(lines)
        assert (await read(path, tail=3)).splitlines() == lines[-3:]
        assert (await read(path, tail=250)).splitlines() == lines[-250:]

    uvloop.run(story())
    assert path.stat().st_size <= 10_000
    assert old_of(path).stat().st_size <= 10_000
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["0.log", "0.log.old"]


def test_who_follows_sees_every_line_across_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FILE_BYTES", 2_000)

    async def story() -> None:
        writer = LogWriter(tmp_path / "0.log", clock())
        following = asyncio.create_task(read(tmp_path / "0.log", writer, follow=True))
        for number in range(300):
            os.write(writer.output, b"%d\n" % number)
            await asyncio.sleep(0.002)
        writer.handed_over()
        assert (await following).split() == [str(number) for number in range(300)]
        assert writer.followers == set()

    uvloop.run(story())


def test_a_full_disk_stops_nobody_from_printing(tmp_path: Path) -> None:
    async def story() -> None:
        writer = LogWriter(tmp_path / "0.log", clock())
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, writer._file)
        os.close(full)
        for _ in range(50):
            await asyncio.to_thread(os.write, writer.output, b"x" * 60_000 + b"\n")
        writer.handed_over()
        async with asyncio.timeout(10):
            await writer.closed

    uvloop.run(story())


def test_a_log_without_end_is_read_at_a_bounded_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FILE_BYTES", 10**9)

    async def story() -> None:
        loop, begun = asyncio.get_running_loop(), asyncio.get_running_loop().time()
        writer = LogWriter(tmp_path / "0.log", clock())
        process = await asyncio.create_subprocess_exec("yes", "x" * 1000, stdout=writer.output)
        await asyncio.sleep(0.5)
        process.kill()
        await process.wait()
        writer.handed_over()
        async with asyncio.timeout(10):
            await writer.closed
        read = (tmp_path / "0.log").stat().st_size
        assert 16_384 < read < (loop.time() - begun) * 18e6

    uvloop.run(story())


def test_the_end_of_a_log_is_text(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    uvloop.run(write(path, b"".join(b"line %d\n" % number for number in range(500)) + b"last"))
    assert last_lines(path, lines=3, size=2048) == "line 498\nline 499\nlast"
    assert last_lines(path, lines=80, size=10) == "ne 499\nlast"[-10:]
    assert last_lines(tmp_path / "none.log", lines=80, size=10) == ""


def pod(state: dict[str, Any], last: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    status = {"name": "main", "state": state, "lastState": {"terminated": last} if last else {}, **more}
    spec = {"containers": [{"name": "main"}]}
    return {"metadata": {"name": "a"}, "spec": spec, "status": {"containerStatuses": [status]}}


@pytest.mark.parametrize(
    ("made", "previous", "run"),
    [
        (pod({"running": {}}, containerID="r1"), False, "r1"),
        (pod({"terminated": {"containerID": "r1"}}), False, "r1"),
        (pod({"waiting": {"reason": "CrashLoopBackOff"}}, {"containerID": "r0"}), False, "r0"),
        (pod({"running": {}}, {"containerID": "r0"}, containerID="r1"), True, "r0"),
    ],
)
def test_the_run_whose_log_is_meant(made: dict[str, Any], previous: bool, run: str) -> None:
    assert run_of(made, "main", previous=previous) == run


@pytest.mark.parametrize(
    ("made", "previous", "message"),
    [
        (pod({"waiting": {"reason": "X"}}), False, 'container "main" in pod "a" is waiting to start: X'),
        (pod({}), False, 'container "main" in pod "a" is waiting to start - no logs yet'),
        (pod({"terminated": {}}), False, 'container "main" in pod "a" is terminated'),
        (pod({"running": {}}, containerID="r"), True, 'previous terminated container "main" in pod "a" not found'),
        ({**pod({}), "status": {}}, False, 'container "main" in pod "a" is not available'),
    ],
)
def test_a_log_that_is_not_there_is_told_of_as_by_a_kubelet(made: dict[str, Any], previous: bool, message: str) -> None:
    with pytest.raises(StatusError) as raised:
        run_of(made, "main", previous=previous)
    assert (raised.value.code, raised.value.message) == (400, message)


def test_a_container_is_named_where_there_are_several() -> None:
    several = {
        "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "x"}, {"name": "y"}], "initContainers": [{"name": "i"}]},
    }
    assert container_of(several, "i") == "i"
    with pytest.raises(StatusError, match=r"choose one of: \[x y\] or one of the init containers: \[i\]"):
        container_of(several, "")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"tailLines": "-1"}, 422),
        ({"limitBytes": "0"}, 422),
        ({"sinceSeconds": "0"}, 422),
        ({"sinceSeconds": "5", "sinceTime": "2030-01-02T00:00:00Z"}, 422),
        ({"tailLines": "many"}, 400),
        ({"tailLines": "--5"}, 400),
        ({"tailLines": "²"}, 400),
        ({"tailLines": "9" * 5000}, 400),
        ({"sinceTime": "0001-01-01T00:00:00+05:00"}, 400),
        ({"sinceTime": "yesterday"}, 400),
    ],
)
def test_options_that_make_no_sense_are_refused(query: dict[str, str], code: int) -> None:
    with pytest.raises(StatusError) as raised:
        parse_options(query, "a", NOW)
    assert raised.value.code == code


def test_options_are_read() -> None:
    options = parse_options({"follow": "true", "sinceSeconds": "60", "tailLines": "5", "container": "c"}, "a", NOW)
    assert options == LogOptions("c", follow=True, since="2030-01-02T03:03:05.000000000Z", tail=5)
    assert parse_options({"sinceSeconds": "99999999999999"}, "a", NOW).since[:10] == "1970-01-01"
    assert parse_options({"sinceTime": "2030-01-02T04:00:00+01:00"}, "a", NOW).since[:19] == "2030-01-02T03:00:00"
