"""Where objects are kept: one SQLite table that holds every version of every object.

A key is a path, `resource/namespace/name` (`deployments.apps/shop/web`; cluster-scoped kinds have an empty namespace),
so that a list is a range and its order is the one that clients of a real API server see. Each write gets the next
revision, and a row is valid from its `revision` until the revision that replaced it (`until`, NULL while it is
current). From this one table come the current state, the state at an older revision (so that the pages of a list
belong together) and the events of a watch. Compaction drops what ended long ago; who asks for it then is told so.

SQLite runs in WAL mode with synchronous=NORMAL: a committed write survives the death of this process (not the loss of
power, which may cost the last moments but never consistency). One process opens the store, which a lock file ensures,
and one thread uses it, so nothing can come between a read and the write that follows from it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import orjson

#: How many revisions of history a store keeps: about ten minutes of a busy reconciler.
HISTORY = 10_000

#: Compaction runs once per so many revisions: rarely enough to cost nothing, often enough to be short.
COMPACT_EVERY = 500

_SCHEMA = """
CREATE TABLE IF NOT EXISTS versions (
  revision INTEGER PRIMARY KEY,
  key      TEXT NOT NULL,
  type     TEXT NOT NULL,     -- ADDED, MODIFIED or DELETED
  body     BLOB NOT NULL,     -- the object as JSON; of a deleted one, its last state
  previous INTEGER,           -- the revision that this row replaces
  until    INTEGER            -- the revision that replaced this row; NULL: current
);
CREATE UNIQUE INDEX IF NOT EXISTS current ON versions (key) WHERE until IS NULL;
CREATE INDEX IF NOT EXISTS ended ON versions (until) WHERE until IS NOT NULL;
CREATE TABLE IF NOT EXISTS compaction (revision INTEGER NOT NULL);
"""


class StoreLockedError(RuntimeError):
    """Another process has this store open."""


class CompactedError(LookupError):
    """The history that was asked for is gone. `oldest` is the oldest revision that can still be asked for."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"revisions before {oldest} were compacted")
        self.oldest = oldest


class Event(NamedTuple):
    """One change of one object."""

    revision: int
    key: str
    type: str  #: ADDED, MODIFIED or DELETED
    body: bytes  #: the object; of a deleted one its last state, with the resourceVersion of the deletion
    previous: bytes | None  #: the object before the change


#: Called with each committed event, in order, in the thread that wrote.
Listener = Callable[[Event], None]


def key_of(resource: str, namespace: str, name: str) -> str:
    """The key of one object: `deployments.apps/shop/web`."""
    return f"{resource}/{namespace}/{name}"


def prefix_of(resource: str, namespace: str = "") -> str:
    """The prefix of every key of a resource, or of a resource in one namespace."""
    return f"{resource}/{namespace}/" if namespace else f"{resource}/"


class Store:
    """The objects of one data directory.

    `directory` is made when it is missing. `history` is the number of revisions that can still be asked for.
    Raises StoreLockedError where another process has it open.
    """

    def __init__(self, directory: Path, *, history: int = HISTORY) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._history = history
        self._lock = _lock(directory / "lock")
        self._db = sqlite3.connect(directory / "objects.db", isolation_level=None, cached_statements=64)
        (directory / "objects.db").chmod(0o600)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("PRAGMA cache_size=-32000")
        self._db.executescript(_SCHEMA)
        self._listeners: dict[Listener, str] = {}
        self._pending: list[Event] = []
        (self.compacted,) = self._db.execute("SELECT coalesce(max(revision), 0) FROM compaction").fetchone()
        (newest,) = self._db.execute("SELECT coalesce(max(revision), 0) FROM versions").fetchone()
        #: The newest revision.
        self.revision: int = max(newest, self.compacted)

    def close(self) -> None:
        """Give the store back; what was written stays."""
        self._db.close()
        os.close(self._lock)

    # Reading

    def get(self, key: str) -> bytes | None:
        """The object, None where there is none."""
        row = self._db.execute("SELECT body FROM versions WHERE key = ? AND until IS NULL", (key,)).fetchone()
        return row[0] if row else None

    def scan(self, prefix: str, *, after: str = "", at: int | None = None) -> Iterator[tuple[str, bytes]]:
        """Every (key, object) below `prefix`, in the order of keys, from the one behind `after` on.

        `at` asks for the state at an older revision, and raises CompactedError where that is gone.
        """
        low, high = after or prefix, _end(prefix)
        if at is None or at >= self.revision:
            return self._db.execute(
                "SELECT key, body FROM versions WHERE key > ? AND key < ? AND until IS NULL ORDER BY key",
                (low, high),
            )
        if at < self.compacted:
            raise CompactedError(self.compacted)
        return self._db.execute(
            "SELECT key, body FROM versions WHERE key > :low AND key < :high AND until IS NULL AND revision <= :at"
            " UNION ALL "
            "SELECT key, body FROM versions WHERE until > :at AND revision <= :at AND key > :low AND key < :high"
            " ORDER BY key",
            {"low": low, "high": high, "at": at},
        )

    def count(self, prefix: str, *, after: str = "", at: int | None = None) -> int:
        """How many objects `scan` would give."""
        if at is not None and at < self.revision:
            return sum(1 for _ in self.scan(prefix, after=after, at=at))
        query = "SELECT count(*) FROM versions WHERE key > ? AND key < ? AND until IS NULL"
        (number,) = self._db.execute(query, (after or prefix, _end(prefix))).fetchone()
        return int(number)

    def events(self, prefix: str, since: int) -> list[Event]:
        """What happened below `prefix` after revision `since`. Raises CompactedError where that is forgotten."""
        if since < self.compacted:
            raise CompactedError(self.compacted)
        rows = self._db.execute(
            "SELECT new.revision, new.key, new.type, new.body, old.body FROM versions AS new"
            " LEFT JOIN versions AS old ON old.revision = new.previous"
            " WHERE new.revision > ? AND new.key > ? AND new.key < ? ORDER BY new.revision",
            (since, prefix, _end(prefix)),
        )
        return [Event(*row) for row in rows]

    # Writing

    def put(self, key: str, body: dict[str, Any]) -> bytes:
        """Write an object, new or not. Sets its `metadata.resourceVersion`; returns it as it is kept."""
        return self._write(key, body, delete=False)

    def remove(self, key: str, body: dict[str, Any]) -> bytes:
        """Delete an object. `body` is its last state, which gets the resourceVersion of the deletion."""
        return self._write(key, body, delete=True)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes in it happen, or none; their events come out at its end. It may stand in another one."""
        if self._db.in_transaction:
            yield
            return
        first = self.revision
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            self.revision = first
            self._pending.clear()
            raise
        events, self._pending = self._pending, []
        for event in events:
            for listener, prefix in list(self._listeners.items()):
                if event.key.startswith(prefix):
                    listener(event)
        if self.revision // COMPACT_EVERY > first // COMPACT_EVERY:
            self.compact(self.revision - self._history)

    def _write(self, key: str, body: dict[str, Any], *, delete: bool) -> bytes:
        with self.transaction():
            revision = self.revision + 1
            body["metadata"]["resourceVersion"] = str(revision)
            written = orjson.dumps(body)
            row = self._db.execute(
                "SELECT revision, body FROM versions WHERE key = ? AND until IS NULL", (key,)
            ).fetchone()
            previous, before = row or (None, None)
            if previous is not None:
                self._db.execute("UPDATE versions SET until = ? WHERE revision = ?", (revision, previous))
            event = "DELETED" if delete else "ADDED" if previous is None else "MODIFIED"
            self._db.execute(
                "INSERT INTO versions (revision, key, type, body, previous, until) VALUES (?, ?, ?, ?, ?, ?)",
                (revision, key, event, written, previous, revision if delete else None),
            )
            self.revision = revision
            self._pending.append(Event(revision, key, event, written, before))
        return written

    def compact(self, revision: int) -> None:
        """Forget what ended at or before `revision`: nobody can list or watch from before it any more."""
        if revision <= self.compacted:
            return
        with self.transaction():
            self._db.execute("DELETE FROM versions WHERE until <= ?", (revision,))
            self._db.execute("DELETE FROM compaction")
            self._db.execute("INSERT INTO compaction (revision) VALUES (?)", (revision,))
        self.compacted = revision

    # Watching

    def listen(self, prefix: str, listener: Listener) -> None:
        """Call `listener` with each event below `prefix` from now on."""
        self._listeners[listener] = prefix

    def forget(self, listener: Listener) -> None:
        """Stop calling `listener`."""
        self._listeners.pop(listener, None)


def _end(prefix: str) -> str:
    """The first key behind every key that starts with `prefix`, which ends in a slash."""
    return prefix[:-1] + "0"


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StoreLockedError(
            f"{path.parent} is in use by another embedded API server: stop it first, or use another directory"
        ) from None
    return descriptor
