"""What DuckDB reads, on this machine: rows packed into one file, and inference logs.

Objects never change, so a copy is never stale: each time only what is new is fetched. The cache may be removed at any
time. It is a folder for each storage:

    builds.jsonl, promotions.jsonl    a row a line, under `object` the key that it comes from
    inferences/...                    as in the storage; only of a storage that is no folder of this machine
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import queue
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import orjson

from reconciler.warehouse import QueryError
from reconciler.warehouse.tables import INFERENCES, Table, Type
from runtime.storage import FileStorage, NotFound, ObjectStorage, StorageError

_MIB = 1 << 20
#: A row has at most a record's metrics and parameters, which are 1 MiB.
_ROW_BYTES = 4 * _MIB
_ROWS = 200_000
#: Of inference logs that one question may need from a bucket. Beyond, a warehouse beside the bucket is the right tool.
_LOG_OBJECTS = 50_000
_LOG_BYTES = 1024 * _MIB
#: Of inference logs that are kept, for all questions.
_CACHE_BYTES = 4 * _LOG_BYTES
_THREADS = 8

T = TypeVar("T")


class Files(NamedTuple):
    """Where something lies: a folder, and a name or a pattern in it."""

    folder: Path
    pattern: str


class Copies:
    """The copies of one storage, below `cache`. `until` is always a monotonic time, `model` the one that is asked for.

    Every method raises QueryError.
    """

    def __init__(self, storage: ObjectStorage, cache: Path) -> None:
        self._storage = storage
        self._folder = cache / hashlib.sha256(storage.url.encode()).hexdigest()[:16]

    def rows(self, table: Table, model: str, until: float) -> Files | None:
        """The rows of a table of the analytics; None where there are none.

        A row that cannot be read is left out, for it must not stop the gates of other models. It does stop those of
        its own: it may be the row of the best build.
        """
        with self._locked(until), _told(f"{table.prefix} in {self._storage.url}"):
            keys = self._listed(table.prefix, until)
            if len(keys) > _ROWS:
                raise _too_large(f"{table.name} has {len(keys)} rows", _ROWS)
            pack = self._folder / f"{table.name}.jsonl"
            packed = _read(pack)
            fetched = _each([key for key in keys if key not in packed], self._row, until)
            lines = {key: packed.get(key) or _line(key, fetched[key], table) for key in keys}
            broken = [key for key, line in lines.items() if line is None and f"/model={model}/" in key]
            if broken:
                sentence = f"{broken[0]} in {self._storage.url} is no row of {table.name}; mend it, or remove it"
                raise QueryError("Failed", sentence)
            kept = {key: line for key, line in lines.items() if line is not None}
            if kept.keys() != packed.keys():
                _write(pack, kept.values())
            return Files(self._folder, pack.name) if kept else None

    def inferences(self, narrowed: Mapping[str, str], until: float) -> Files | None:
        """The inference logs of these partitions; None where there are none."""
        parts = [(column.name, narrowed.get(column.name, "")) for column in INFERENCES.columns if column.partition]
        values = [f"{name}={value if re.fullmatch(r'[A-Za-z0-9._-]+', value) else '*'}" for name, value in parts]
        pattern = f"{INFERENCES.prefix}{'/'.join(values)}/*.jsonl.gz"
        with _told(f"{INFERENCES.prefix} in {self._storage.url}"):
            if isinstance(self._storage, FileStorage):
                files = Files(self._storage.root, pattern)
                return files if any(files.folder.glob(pattern)) else None
            with self._locked(until):
                wanted = re.compile(re.escape(pattern).replace(r"\*", "[^/]*"))
                keys = [key for key in self._listed(pattern.partition("*")[0], until) if wanted.fullmatch(key)]
                self._copy(keys, until)
                self._clear(pattern, {self._folder / key for key in keys})
                return Files(self._folder, pattern) if keys else None

    def _listed(self, prefix: str, until: float) -> list[str]:
        return _each([prefix], lambda prefix: list(self._storage.list(prefix)), until)[prefix]

    def _row(self, key: str) -> bytes:
        with suppress(NotFound):  # a lifecycle rule has just removed it
            return self._storage.read(key, _ROW_BYTES)
        return b""

    def _copy(self, keys: Sequence[str], until: float) -> None:
        if len(keys) > _LOG_OBJECTS:
            raise _too_large(f"the inference logs that it may need are {len(keys)} objects", _LOG_OBJECTS)
        sizes = _Sizes()

        def copied(key: str) -> None:
            path = self._folder / key
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                self._storage.download(key, path)
            sizes.add(path.stat().st_size)

        _each(keys, copied, until)

    def _clear(self, pattern: str, wanted: set[Path]) -> None:
        """Removes what the storage does not have any more, and what was fetched longest ago where there is too much.

        Whoever is just reading that gets an error that is worth another try.
        """
        for path in set(self._folder.glob(pattern)) - wanted:
            path.unlink()
        found = [(path, path.stat()) for path in self._folder.glob(f"{INFERENCES.prefix}**/*.jsonl.gz")]
        size = sum(stat.st_size for _, stat in found)
        for path, stat in sorted(found, key=lambda each: each[1].st_mtime):
            if size > _CACHE_BYTES and path not in wanted:
                path.unlink()
                size -= stat.st_size

    @contextmanager
    def _locked(self, until: float) -> Iterator[None]:
        """One fetches at a time: the others find what it fetched."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (self._folder / "lock").open("w")
        except OSError as error:
            raise QueryError("Failed", f"the cache {error.filename}: {error.strerror}", retryable=True) from None
        with lock:
            while True:
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                if time.monotonic() > until:
                    raise _too_late()
                time.sleep(0.02)
            yield


class _Sizes:
    """Bytes so far. Raises QueryError beyond the limit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = 0

    def add(self, amount: int) -> None:
        with self._lock:
            self._total += amount
        if self._total > _LOG_BYTES:
            raise _too_large(f"the inference logs that it may need have more than {_LOG_BYTES >> 30} GiB", None)


def _each(keys: Sequence[str], work: Callable[[str], T], until: float) -> dict[str, T]:
    """The work's result for every key, from several threads. Raises what it raises, and QueryError when time is up.

    Not a ThreadPoolExecutor: the end of the program would wait for a storage that does not answer.
    """
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[str, T | StorageError | QueryError | OSError]] = queue.SimpleQueue()
    given_up = threading.Event()
    for key in keys:
        waiting.put(key)

    def worker() -> None:
        with suppress(queue.Empty):
            while not given_up.is_set():
                key = waiting.get_nowait()
                try:
                    done.put((key, work(key)))
                except (StorageError, QueryError, OSError) as error:
                    done.put((key, error))

    for _ in range(min(_THREADS, len(keys))):
        threading.Thread(target=worker, daemon=True).start()
    results: dict[str, T] = {}
    try:
        while len(results) < len(keys):
            key, result = done.get(timeout=max(until - time.monotonic(), 0.001))
            if isinstance(result, StorageError | QueryError | OSError):
                raise result
            results[key] = result
    except queue.Empty:
        raise _too_late() from None
    finally:
        given_up.set()
    return results


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Errors of the storage and of the cache as the warehouse's."""
    try:
        yield
    except StorageError as error:
        raise QueryError("Unavailable", str(error), retryable=error.worth_retry) from error
    except OSError as error:
        raise QueryError("Failed", f"{what} cannot be kept here: {error.strerror}", retryable=True) from error


def _too_late() -> QueryError:
    return QueryError("Timeout", "the object storage took too long", retryable=True)


def _too_large(what: str, limit: int | None) -> QueryError:
    hint = "name environment, model and variation in its WHERE, or use Athena (analytics: {engine: athena})"
    most = f"; {limit} are the most" if limit else ""
    return QueryError("TooLarge", f"the query is too large for DuckDB: {what}{most}. Let it {hint}")


# -- packs -----------------------------------------------------------------------------------------------------------

#: How a line begins. Lines are not parsed again: only their keys matter here.
_BEGINNING = b'{"object":"'


def _read(pack: Path) -> dict[str, bytes]:
    """The lines that were packed, by key. One that is damaged is packed anew."""
    with suppress(FileNotFoundError, ValueError):
        lines = pack.read_bytes().splitlines(keepends=True)
        if all(line.startswith(_BEGINNING) and line.endswith(b"}\n") for line in lines):
            return {line[len(_BEGINNING) : line.index(b'"', len(_BEGINNING))].decode(): line for line in lines}
    return {}


def _write(pack: Path, lines: Iterable[bytes]) -> None:
    """Whole or not at all, also when power is lost: somebody may be reading it."""
    partial = pack.with_name(f".{pack.name}.{secrets.token_hex(6)}")
    try:
        with partial.open("xb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(pack)
    finally:
        partial.unlink(missing_ok=True)


def _line(key: str, content: bytes, table: Table) -> bytes | None:
    """A row with the table's columns, each NULL or of its type; None for what is none. Others are passed over: a later
    version wrote them.
    """
    try:
        row = orjson.loads(content)
        checked = {column.name: _value(row.get(column.name), column.type) for column in table.columns}
    except (ValueError, TypeError, AttributeError, OverflowError):
        return None
    return orjson.dumps({"object": key, **checked}) + b"\n" if checked[table.columns[0].name] else None


def _value(value: Any, kind: Type) -> Any:
    if value is None:
        return None
    match kind:
        case Type.INSTANT:
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is None:
                raise ValueError(f"{value} has no time zone")
            return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")
        case Type.TEXTS:
            return {name: _value(item, Type.TEXT) for name, item in value.items()}
        case Type.NUMBERS:
            return {name: _value(item, Type.NUMBER) for name, item in value.items()}
    fits = {Type.TEXT: str, Type.WHOLE: int, Type.NUMBER: int | float, Type.TRUTH: bool}[kind]
    if not isinstance(value, fits) or (isinstance(value, bool) and kind is not Type.TRUTH):
        raise TypeError(f"{value!r} is no {kind}")
    if kind is Type.WHOLE and not -(1 << 63) <= int(value) < 1 << 63:
        raise OverflowError(f"{value} has more than 64 bits")
    return value
