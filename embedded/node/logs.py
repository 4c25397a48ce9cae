"""What containers print: kept in files of bounded size, each line with its moment, and read for `kubectl logs`.

A line of a file is `<RFC 3339 moment> <F or P> <text>`: P is a part of a line, without its end, as container runtimes
write it. All a container prints goes through one pipe, so that its two outputs keep their order. The pipe is always
read, whether or not the text can be kept, so that no container waits for a full disk; and at a bounded pace, so that
one that prints without end cannot keep us from everything else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from embedded.errors import StatusError, bad_request
from embedded.protocol import Channel, Response, Stream

Object = dict[str, Any]

log = logging.getLogger(__name__)

#: A file that has grown to this is put aside as `<n>.log.old`, in place of the one before: two are kept. Together they
#: are below what a connection may have to send, so that a whole log can be handed out at once.
FILE_BYTES = 5 * 1024 * 1024

#: A line that is longer is kept in parts.
_LINE_BYTES = 16 * 1024

#: After a read that filled the buffer, the pipe rests for a while, and for four times as long as the read took: a
#: container has at most 16 MB/s and a fifth of our time.
_READ_BYTES, _REST_SECONDS, _REST = 16 * 1024, 0.001, 4

#: Of a file, so much is read and sent at a time; requests come in between.
_BLOCK_BYTES = 128 * 1024

_TRUE = {"1", "t", "T", "true", "TRUE", "True"}


def moment(now: datetime) -> str:
    """As a log line starts: nanoseconds, as clients expect them, though our clock has microseconds."""
    return now.strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


class LogWriter:
    """Reads what one run of a container prints, from the pipe whose other end is `output`, and keeps it in a file.

    Raises OSError where there is no place for the file, or no descriptor left.
    """

    def __init__(self, path: Path, clock: Callable[[], datetime]) -> None:
        self.path = path
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.followers: set[Callable[[], None]] = set()
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._unfinished = b""
        self._size = 0
        self._rest: asyncio.TimerHandle | None = None
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._pipe, self.output = os.pipe()
        except OSError:
            os.close(self._file)
            raise
        os.set_blocking(self._pipe, False)
        self._loop.add_reader(self._pipe, self._read)

    def handed_over(self) -> None:
        """The process has its end of the pipe; ours of it is closed, so that the pipe ends with the process."""
        os.close(self.output)

    def close(self) -> None:
        """Nothing more is read."""
        if self.closed.done():
            return
        self._loop.remove_reader(self._pipe)
        if self._rest is not None:
            self._rest.cancel()
        os.close(self._pipe)
        if self._unfinished:
            self._append(self._unfinished, b"P")
        os.close(self._file)
        self.closed.set_result(None)
        self._tell()

    def _read(self) -> None:
        begun = self._loop.time()
        try:
            data = os.read(self._pipe, _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self.close()
            return
        lines, ended, self._unfinished = (self._unfinished + data).rpartition(b"\n")
        if ended:
            self._append(lines, b"F")
        if len(self._unfinished) >= _LINE_BYTES:
            self._append(self._unfinished, b"P")
            self._unfinished = b""
        if len(data) == _READ_BYTES:
            self._loop.remove_reader(self._pipe)
            rest = max(_REST_SECONDS, _REST * (self._loop.time() - begun))
            self._rest = self._loop.call_later(rest, self._resume)

    def _resume(self) -> None:
        self._rest = None
        self._loop.add_reader(self._pipe, self._read)

    def _append(self, text: bytes, flag: bytes) -> None:
        stamp = b"%b %b " % (moment(self._clock()).encode(), flag)
        data = stamp + text.replace(b"\n", b"\n" + stamp) + b"\n"
        try:
            if self._size and self._size + len(data) > FILE_BYTES:
                self._rotate()
            self._size += os.write(self._file, data)
        except OSError as error:  # a full disk: what cannot be kept is lost, the container goes on
            log.warning("%s: %s", self.path, error.strerror)
        self._tell()

    def _rotate(self) -> None:
        old = self._file
        self.path.replace(old_of(self.path))
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.close(old)
        self._size = 0

    def _tell(self) -> None:
        for follower in list(self.followers):
            follower()


def old_of(path: Path) -> Path:
    """Where a full log file is put aside."""
    return path.with_name(f"{path.name}.old")


def last_lines(path: Path, *, lines: int, size: int) -> str:
    """The end of a log, as text: at most so many lines and bytes."""
    found: list[bytes] = []
    for file in (old_of(path), path):
        with suppress(FileNotFoundError), file.open("rb") as opened:
            opened.seek(max(0, os.fstat(opened.fileno()).st_size - 4 * size - lines * 40))
            found += opened.read().split(b"\n")[:-1]
    text = b"".join(_text(line) for line in found[-lines:])
    return text[-size:].decode(errors="replace")


def _text(line: bytes) -> bytes:
    """A line of a file as the container printed it."""
    _, flag, text = (*line.split(b" ", 2), b"", b"")[:3]
    return text if flag == b"P" else text + b"\n"


class LogOptions(NamedTuple):
    """What of a log is asked for. `since` is a moment as in `moment`, "" for everything; negative numbers: all."""

    container: str = ""
    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    since: str = ""
    tail: int = -1
    limit: int = -1


def parse_options(query: Mapping[str, str], pod: str, now: datetime) -> LogOptions:
    """The options of a request. Raises StatusError where they make no sense."""
    wrong: list[tuple[str, str]] = []

    def number(name: str, least: int, why: str) -> int:
        text = query.get(name, "")
        if not text:
            return -1
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
            raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
        if int(text) < least:
            wrong.append((name, f"Invalid value: {text}: {why}"))
        return int(text)

    seconds = number("sinceSeconds", 1, "must be greater than 0")
    tail = number("tailLines", 0, "must be greater than or equal to 0")
    limit = number("limitBytes", 1, "must be greater than 0")
    since = ""
    if query.get("sinceTime"):
        if seconds >= 0:
            wrong.append(("", "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"))
        try:
            since = moment(datetime.fromisoformat(query["sinceTime"]).astimezone(now.tzinfo))
        except (ValueError, OverflowError):
            raise bad_request(f'parsing time "{query["sinceTime"]}": it is no RFC 3339 time') from None
    elif seconds > 0:
        since = moment(datetime.fromtimestamp(max(now.timestamp() - seconds, 0), now.tzinfo))
    if wrong:
        causes = [{"reason": "FieldValueInvalid", "message": why, "field": name} for name, why in wrong]
        text = ", ".join(f"{name}: {why}" for name, why in wrong)
        details = {"name": pod, "kind": "PodLogOptions", "causes": causes}
        raise StatusError(422, "Invalid", f'PodLogOptions "{pod}" is invalid: {text}', details)
    return LogOptions(
        container=query.get("container", ""),
        follow=query.get("follow", "") in _TRUE,
        previous=query.get("previous", "") in _TRUE,
        timestamps=query.get("timestamps", "") in _TRUE,
        since=since,
        tail=tail,
        limit=limit,
    )


def container_of(pod: Object, wanted: str) -> str:
    """The container whose log is meant; the only one, where none is named. Raises StatusError."""
    name, spec = pod["metadata"]["name"], pod["spec"]
    containers = [container["name"] for container in spec["containers"]]
    init = [container["name"] for container in spec.get("initContainers", ())]
    if wanted:
        if wanted not in containers + init:
            raise bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    if len(containers) == 1:
        return str(containers[0])
    choices = f"choose one of: [{' '.join(containers)}]"
    if init:
        choices += f" or one of the init containers: [{' '.join(init)}]"
    raise bad_request(f"a container name must be specified for pod {name}, {choices}")


def run_of(pod: Object, container: str, *, previous: bool) -> str:
    """The id of the run whose log is meant. Raises StatusError where there is none, in the words of a kubelet."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    every = (*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ()))
    found = next((one for one in every if one["name"] == container), None)
    what = f'container "{container}" in pod "{name}" is'
    if found is None:
        raise bad_request(f"{what} not available")
    state, last = found.get("state", {}), found.get("lastState", {}).get("terminated", {})
    if previous:
        if not last.get("containerID"):
            raise bad_request(f'previous terminated container "{container}" in pod "{name}" not found')
        return str(last["containerID"])
    if "running" in state:
        return str(found["containerID"])
    ended = state.get("terminated", {}).get("containerID") or last.get("containerID")
    if ended:
        return str(ended)
    if "terminated" in state:
        raise bad_request(f"{what} terminated")
    reason = state.get("waiting", {}).get("reason")
    raise bad_request(f"{what} waiting to start: {reason}" if reason else f"{what} waiting to start - no logs yet")


def answer(path: Path, options: LogOptions, live: LogWriter | None) -> Response | Stream:
    """The log in a file, and what `live` adds to it while it is followed."""
    if not path.exists():
        return Response(200, b"", "text/plain")
    return LogStream(path, options, live if options.follow else None)


class LogStream:
    """A log as it is sent: what there is, and then, where it is followed, what comes until the container ends."""

    content_type = "text/plain"

    def __init__(self, path: Path, options: LogOptions, live: LogWriter | None) -> None:
        self._path = path
        self._options = options
        self._live = live
        self._left = options.limit
        self._skip = _lines_to_skip(path, options.tail)
        self._descriptors = _open_all(path)
        self._rest = b""
        self._amid_line = False
        self._scheduled: asyncio.Handle | None = None
        self._channel: Channel

    def start(self, channel: Channel) -> None:
        """Stream.start"""
        self._channel = channel
        if self._live is not None:
            self._live.followers.add(self._wake)
        self._wake()

    def stop(self) -> None:
        """Stream.stop"""
        if self._live is not None:
            self._live.followers.discard(self._wake)
        if self._scheduled is not None:
            self._scheduled.cancel()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []

    def _wake(self) -> None:
        if self._scheduled is None:
            self._scheduled = asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._scheduled = None
        data = self._next()
        if data:
            chosen = b"".join(self._chosen(data))
            if self._left >= 0:
                chosen = chosen[: self._left]
                self._left -= len(chosen)
            self._channel.send(chosen)
            if self._left == 0:
                self._channel.end()
            elif self._descriptors:  # the client may have gone while we sent
                self._wake()
        elif self._live is None or self._live.closed.done():
            self._channel.end()

    def _next(self) -> bytes:
        """More of the files, as whole lines; nothing where there is no more now."""
        while True:
            data = os.read(self._descriptors[0], _BLOCK_BYTES)
            if data:
                whole, ended, rest = (self._rest + data).rpartition(b"\n")
                self._rest = rest
                if ended:
                    return whole + ended
            elif len(self._descriptors) > 1:
                os.close(self._descriptors.pop(0))
            elif not self._is_current():
                self._descriptors.append(os.open(self._path, os.O_RDONLY | os.O_CLOEXEC))
            else:
                return b""

    def _is_current(self) -> bool:
        """Whether the file that is read is the one that is written."""
        if self._live is None:
            return True
        with suppress(FileNotFoundError):
            return os.fstat(self._descriptors[0]).st_ino == self._path.stat().st_ino
        return True

    def _chosen(self, data: bytes) -> Iterator[bytes]:
        since = self._options.since.encode()
        for line in data.split(b"\n")[:-1]:
            if self._skip:
                self._skip -= 1
            elif line[:30] >= since:
                stamped = self._options.timestamps and not self._amid_line
                yield line[:31] + _text(line) if stamped else _text(line)
                self._amid_line = line[31:32] == b"P"


def _open_all(path: Path) -> list[int]:
    """The files of a log, the older one first."""
    descriptors = []
    for file in (old_of(path), path):
        with suppress(FileNotFoundError):
            descriptors.append(os.open(file, os.O_RDONLY | os.O_CLOEXEC))
    return descriptors


def _lines_to_skip(path: Path, tail: int) -> int:
    """How many lines come before the last `tail` ones; 0 for all of them."""
    if tail < 0:
        return 0
    total = 0
    for file in (old_of(path), path):
        with suppress(FileNotFoundError), file.open("rb") as opened:
            while block := opened.read(1024 * 1024):
                total += block.count(b"\n")
    return max(0, total - tail)
