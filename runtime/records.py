"""What the object storage holds of builds: the names of its objects, and the record of a build.

    builds/<model>/<build id>/record.json                     written last: a build without it did not happen
    builds/<model>/<build id>/artifact-<sha256[:16]>.tar.gz
    builds/<model>/<build id>/log-<attempt>.txt
    environments/<digest>.tar.gz, environments/<digest>.json
    analytics/builds/model=<model>/<build id>.json            a row of the model analytics, made from the record

No object is ever written twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

FORMAT = 1

#: Bytes that what a model leaves beside its artifact (metrics, parameters, schema) may have as JSON: it is read whole,
#: often and by many.
LIMIT = 1 << 20


class RecordError(Exception):
    """A record that cannot be read: which one, and why."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An object of the storage: its name, the digest of its content in hex, and its size."""

    key: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Tests:
    """How many of the model's own tests came to which end. A skipped one says nothing."""

    passed: int
    failed: int
    skipped: int


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """A finished build. Times are in UTC; `parameters` are the spec's and over them those that the model logged."""

    build_id: str
    model: str
    environment: str  #: the name of the environment that it was built in
    commit: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    artifact: StoredFile
    packages: StoredFile  #: the packed environment that the model's code runs in
    python: str  #: the version, as 3.11.7
    schema: Mapping[str, Any] | None
    tests: Tests | None  #: None: the model has none, or they were not asked for
    started_at: datetime
    finished_at: datetime
    log: str | None  #: the key of its log

    def to_json(self) -> bytes:
        """Raises ValueError for a number that JSON does not have."""
        document = {"format": FORMAT, **asdict(self)}
        document |= {name: _timestamp(document[name]) for name in ("started_at", "finished_at")}
        return json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False).encode("utf-8", "replace")

    def to_row(self) -> bytes:
        """As a row of the table `builds` of the model analytics: one line of JSON, whose keys are the columns.

        Parameters are text there; what is none is JSON. Raises ValueError for a number that JSON does not have.
        """
        tests = self.tests
        # Of the instants as they are written: the record as it is read again makes the same row.
        began, ended = (datetime.fromisoformat(_timestamp(moment)) for moment in (self.started_at, self.finished_at))
        row = {
            "build_id": self.build_id,
            "model": self.model,
            "environment": self.environment,
            "commit_id": self.commit,
            "python": self.python,
            "artifact": self.artifact.key,
            "parameters": {name: _as_text(value) for name, value in self.parameters.items()},
            "metrics": dict(self.metrics),
            "tests_passed": tests and tests.passed,
            "tests_failed": tests and tests.failed,
            "tests_skipped": tests and tests.skipped,
            "started_at": _timestamp(self.started_at),
            "finished_at": _timestamp(self.finished_at),
            "duration_s": (ended - began).total_seconds(),
        }
        line = json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return line.encode("utf-8", "replace") + b"\n"


def parse_record(content: bytes, key: str) -> BuildRecord:
    """The record that was written as `content`. Fields that this version does not know are passed over.

    Raises RecordError.
    """
    try:
        document = json.loads(content)
        if document["format"] != FORMAT:
            raise RecordError(f"{key} has format {document['format']}, and this version reads {FORMAT}: update Trueup")
        values = {field.name: document[field.name] for field in fields(BuildRecord)}
        values |= {name: _file(values[name]) for name in ("artifact", "packages")}
        values |= {name: datetime.fromisoformat(values[name]) for name in ("started_at", "finished_at")}
        if values["tests"] is not None:
            values["tests"] = Tests(**{name: values["tests"][name] for name in ("passed", "failed", "skipped")})
        if not isinstance(values["metrics"], dict):
            raise TypeError("its metrics have no names")
        return BuildRecord(**values)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RecordError(f"{key} is damaged: {type(error).__name__}: {error}") from error


def record_key(model: str, build_id: str) -> str:
    return f"builds/{model}/{build_id}/record.json"


def artifact_key(model: str, build_id: str, sha256: str) -> str:
    return f"builds/{model}/{build_id}/artifact-{sha256[:16]}.tar.gz"


def log_key(model: str, build_id: str, attempt: int) -> str:
    return f"builds/{model}/{build_id}/log-{attempt}.txt"


def packages_key(digest: str) -> str:
    return f"environments/{digest}.tar.gz"


def packages_description_key(digest: str) -> str:
    return f"environments/{digest}.json"


def row_key(model: str, build_id: str) -> str:
    return f"analytics/builds/model={model}/{build_id}.json"


def digest_of(key: str) -> str:
    """The digest of an environment, from the name of its packed form."""
    return key.removeprefix("environments/").removesuffix(".tar.gz")


def _file(document: Mapping[str, Any]) -> StoredFile:
    return StoredFile(document["key"], document["sha256"], document["bytes"])


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
