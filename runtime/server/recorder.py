"""The recorder: takes records of predictions from the front, and writes them to the object storage.

`python -m runtime.server.recorder SOCKET`, in the bootstrap's Python, not in the model's: it needs the client of the
object storage, whose requirements would meet the model's own. Records become lines of JSON in gzip, in objects named

    inferences/environment=<e>/model=<m>/variation=<v>/date=YYYY-MM-DD/hour=HH/<pod>-<recorder>-<sequence>.jsonl.gz

by the time of their first record (UTC). `recorder` is 8 random hex digits: a container that is restarted has the pod's
name again. An object ends after 4 MiB, a minute, or with the hour. While the storage is out of reach some objects
wait; then the newest are dropped. What is written, and what is dropped, is told to the front, which counts it.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import queue
import secrets
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate, pairwise
from typing import Any

from runtime.server import frames, log
from runtime.storage import ObjectStorage, StorageError, open_storage

_SEGMENT_BYTES = 4 * 1024 * 1024
_SEGMENT_SECONDS = 60.0
#: Objects that wait for the storage.
_WAITING = 8
#: Seconds for the rest, once the front has ended.
_ENDING = 8.0
#: Pauses between tries to write an object, in seconds; the last one is repeated.
_PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Source:
    """Whose predictions they are."""

    environment: str
    model: str
    variation: str
    pod: str
    recorder: str

    def key(self, moment: datetime, sequence: int) -> str:
        """The name of an object whose first record is of this moment."""
        return (
            f"inferences/environment={self.environment}/model={self.model}/variation={self.variation}"
            f"/date={moment:%Y-%m-%d}/hour={moment:%H}/{self.pod}-{self.recorder}-{sequence}.jsonl.gz"
        )


@dataclass(slots=True)
class Segment:
    """An object that is being filled. `opened` is a monotonic time in seconds."""

    key: str
    hour: str  #: of its first record, as 2026-11-21T14
    opened: float
    records: int = 0
    _content: io.BytesIO = field(default_factory=io.BytesIO)
    _gzip: gzip.GzipFile | None = None

    def add(self, line: bytes) -> None:
        if self._gzip is None:
            self._gzip = gzip.GzipFile(fileobj=self._content, mode="wb", compresslevel=4, mtime=0)
        self._gzip.write(line)
        self.records += 1

    def is_full(self, now: float) -> bool:
        return self._content.tell() >= _SEGMENT_BYTES or now - self.opened >= _SEGMENT_SECONDS

    def finished(self) -> bytes:
        assert self._gzip is not None
        self._gzip.close()
        return self._content.getvalue()


def line(known: Mapping[str, Any], body: bytes, answer: bytes, excluded: frozenset[str]) -> bytes:
    """One record as a line of JSON. What is no JSON (an image, a file) is left out, and its size remains."""
    known = {name: value for name, value in known.items() if name != "exclude_columns"}
    parts = {"input": _kept(body, excluded), "output": _kept(answer, excluded)}
    try:
        text = _dump({**known, **parts})
    except RecursionError:  # the limit is met while writing what could just be read
        text = _dump({**known, "input": None, "output": None})
    return text.encode("utf-8", "replace") + b"\n"


def _dump(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _kept(body: bytes, excluded: frozenset[str]) -> Any:
    try:
        return _without(json.loads(body, parse_constant=lambda _: None), excluded)
    except (ValueError, RecursionError):
        return None


def _without(value: Any, excluded: frozenset[str]) -> Any:
    """The value without columns: in records, in an object of columns, in pandas' "split", in tensors."""
    if not excluded:
        return value
    if isinstance(value, list):
        return [_without(item, excluded) for item in value]
    if not isinstance(value, dict):
        return value
    columns, data = value.get("columns"), value.get("data")
    if isinstance(columns, list) and isinstance(data, list):
        kept = [number for number, column in enumerate(columns) if column not in excluded]
        rows = [
            [row[number] for number in kept if number < len(row)] if isinstance(row, list) else None for row in data
        ]
        return {**value, "columns": [columns[number] for number in kept], "data": rows}
    if isinstance(value.get("name"), str) and "shape" in value and "data" in value:  # a tensor
        return value if value["name"] not in excluded else {**value, "data": None}
    return {name: _without(item, excluded) for name, item in value.items() if name not in excluded}


def _parts(frame: frames.Frame) -> list[bytes]:
    ends = list(accumulate(map(int, frame.text.split()), initial=0))
    return [frame.body[start:end] for start, end in pairwise(ends)]


class Recorder:
    """Fills segments, and has a thread write them."""

    def __init__(self, front: socket.socket, storage: ObjectStorage, source: Source) -> None:
        self._front = front
        self._storage = storage
        self._source = source
        self._segment: Segment | None = None
        self._sequence = 0
        self._sealed: queue.Queue[tuple[str, bytes, int] | None] = queue.Queue(_WAITING)
        self._telling = threading.Lock()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._warned = False
        self._ending = False

    def run(self) -> None:
        """Until the front ends its side and everything is written, which has its time."""
        self._thread.start()
        buffer = frames.Buffer()
        self._front.setblocking(False)
        while True:
            readable, _, _ = select.select([self._front], [], [], 1.0)
            now = time.monotonic()
            if readable:
                try:
                    data = self._front.recv(1024 * 1024)
                except (BlockingIOError, ConnectionResetError):
                    data = b""
                if not data:
                    break
                for frame in buffer.feed(data):
                    self._take(frame, now)
            if self._segment is not None and self._segment.is_full(now):
                self._seal()
        self._seal()
        self._ending = True
        with suppress(queue.Full):  # then the storage is out of reach, and the time below too short
            self._sealed.put_nowait(None)
        self._thread.join(_ENDING)

    def _take(self, frame: frames.Frame, now: float) -> None:
        told, body, answer, notes = _parts(frame)
        known = json.loads(told)
        if notes:
            known["logged"] = json.loads(notes)
        hour = known["time"][:13]
        if self._segment is not None and (self._segment.hour != hour or self._segment.is_full(now)):
            self._seal()
        if self._segment is None:
            key = self._source.key(datetime.fromisoformat(known["time"]), self._sequence)
            self._segment = Segment(key, hour, now)
            self._sequence += 1
        self._segment.add(line(known, body, answer, frozenset(known.get("exclude_columns", ()))))

    def _seal(self) -> None:
        segment, self._segment = self._segment, None
        if segment is None:
            return
        try:
            self._sealed.put_nowait((segment.key, segment.finished(), segment.records))
        except queue.Full:
            self._tell(dropped=segment.records)

    def _write(self) -> None:
        while (sealed := self._sealed.get()) is not None:
            key, content, records = sealed
            tries = 0
            while True:
                try:
                    self._storage.create(key, content)
                except StorageError as error:
                    if self._ending and not error.worth_retry:
                        self._tell(dropped=records)
                        break
                    if not self._warned:
                        log.write("warning", f"the inference log cannot be written at the moment: {error}")
                        self._warned = True
                    time.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
                    tries += 1
                else:
                    self._warned = False
                    self._tell(written=records)
                    break

    def _tell(self, **counts: int) -> None:
        with self._telling:
            try:
                self._front.setblocking(True)
                self._front.sendall(frames.pack(frames.RECORDED, 0, "", json.dumps(counts).encode()))
            except OSError:
                pass  # the front is gone, and nobody counts any more
            finally:
                self._front.setblocking(False)


def main() -> None:
    """The recorder's whole life."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the front says when to end
    os.nice(10)
    environ = os.environ
    source = Source(
        environ.get("TRUEUP_ENVIRONMENT", ""),
        environ["TRUEUP_MODEL"],
        environ["TRUEUP_VARIATION"],
        environ.get("POD_NAME") or socket.gethostname(),
        secrets.token_hex(4),
    )
    with socket.socket(fileno=int(sys.argv[1])) as front:
        Recorder(front, open_storage(environ["TRUEUP_OBJECT_STORAGE"]), source).run()


if __name__ == "__main__":
    main()
