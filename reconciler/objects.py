"""The object storage of an environment: what builds left there, and what the analytics are to know of promotions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.records import Build, Promotion
from reconciler.warehouse.tables import promotion_key, promotion_row, to_line
from runtime import records
from runtime.records import BuildRecord, RecordError, parse_record
from runtime.storage import NotFound, ObjectStorage, StorageError, open_storage
from schemas.environment import Environment


class ObjectsError(Exception):
    """The storage did not do it: one sentence without credentials. `retryable`: another try may fare better."""

    def __init__(self, sentence: str, *, retryable: bool = False) -> None:
        super().__init__(sentence)
        self.retryable = retryable


def url_of(environment: Environment, home: Path) -> str:
    """The URL of the storage. An environment without one is on the embedded data plane, which keeps a folder for all
    of them below `home`. Raises ObjectsError.
    """
    if environment.object_storage is not None:
        return environment.object_storage
    if environment.data_plane.type != "embedded":
        raise ObjectsError(f"the environment {environment.name} has no object_storage: write s3://BUCKET/PREFIX")
    return (home / "data" / "objects").resolve().as_uri()


def open_for(environment: Environment, home: Path) -> Objects:
    """The storage of an environment. Nothing is asked of it yet. Raises ObjectsError."""
    try:
        return Objects(open_storage(url_of(environment, home)))
    except ValueError as error:
        raise ObjectsError(f"the object_storage of the environment {environment.name}: {error}") from None


class Objects:
    """One storage. Used by several threads at once. Every method raises ObjectsError."""

    def __init__(self, storage: ObjectStorage) -> None:
        self._storage = storage

    def put_promotion(self, promotion: Promotion) -> bool:
        """Tells the analytics of a promotion that has ended. False: they knew it already, and keep what they had."""
        with _told():
            return self._storage.create(promotion_key(promotion), to_line(promotion_row(promotion)))

    def record(self, build: Build) -> BuildRecord | None:
        """What the build left of itself, with every metric; None where there is none. Its result has only as many
        metrics as fit into 4 KiB.
        """
        key = build.status.record or records.record_key(build.spec.model, build.spec.id)
        with _told():
            try:
                return parse_record(self._storage.read(key), key)
            except NotFound:
                return None

    def close(self) -> None:
        """Closes its connections."""
        self._storage.close()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        raise ObjectsError(str(error), retryable=error.worth_retry) from error
    except (RecordError, ValueError) as error:  # ValueError: a record that somebody has edited names no key
        raise ObjectsError(str(error)) from error
