"""The record of a build and the names of objects."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.warehouse.tables import BUILDS, COLUMNS
from runtime import records
from runtime.records import (
    BuildRecord,
    RecordError,
    StoredFile,
    artifact_key,
    digest_of,
    log_key,
    packages_key,
    parse_record,
    record_key,
    row_key,
)

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
FILES = st.builds(StoredFile, TEXT, TEXT, st.integers(0))
MOMENTS = st.datetimes(datetime(2000, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001 - `timezones` adds it
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
)
RECORDS = st.builds(
    BuildRecord,
    build_id=TEXT,
    model=TEXT,
    environment=TEXT,
    commit=TEXT,
    parameters=st.dictionaries(TEXT, TEXT | NUMBERS | st.none()),
    metrics=st.dictionaries(TEXT, NUMBERS),
    artifact=FILES,
    packages=FILES,
    python=TEXT,
    schema=st.none() | st.just({"inputs": [], "outputs": []}),
    tests=st.none() | st.builds(records.Tests, st.integers(0), st.integers(0), st.integers(0)),
    started_at=MOMENTS,
    finished_at=MOMENTS,
    log=st.none() | TEXT,
)


@given(RECORDS)
def test_a_record_is_read_as_it_was_written(record: BuildRecord) -> None:
    assert parse_record(record.to_json(), "record.json") == record


@given(RECORDS)
def test_fields_of_a_later_version_are_passed_over(record: BuildRecord) -> None:
    document = json.loads(record.to_json()) | {"colour": "blue"}
    assert parse_record(json.dumps(document).encode(), "record.json") == record


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format": 1}', b"\xff", b'{"format": 1, "artifact": 3}'])
def test_a_damaged_record_is_named(content: bytes) -> None:
    with pytest.raises(RecordError, match=r"^builds/x/record\.json is damaged"):
        parse_record(content, "builds/x/record.json")


def test_a_record_of_another_format_says_what_to_do() -> None:
    with pytest.raises(RecordError, match="has format 2, and this version reads 1: update Trueup"):
        parse_record(b'{"format": 2}', "record.json")


def test_a_number_that_json_does_not_have_is_not_written() -> None:
    file, moment = StoredFile("k", "s", 1), datetime(2025, 1, 6, tzinfo=UTC)
    record = BuildRecord(
        "b", "m", "e", "c", {}, {"auc": float("nan")}, file, file, "3.11.7", None, None, moment, moment, None
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.to_json()


@given(RECORDS)
def test_a_record_is_a_row_of_the_analytics(record: BuildRecord) -> None:
    (line,) = record.to_row().splitlines()
    row = json.loads(line)
    assert tuple(row) == COLUMNS["builds"]
    assert (row["build_id"], row["commit_id"], row["metrics"]) == (record.build_id, record.commit, record.metrics)
    assert row["duration_s"] == (record.finished_at - record.started_at).total_seconds()
    assert all(isinstance(value, str) for value in row["parameters"].values())
    assert (row["tests_passed"] is None) == (record.tests is None)


def test_parameters_that_are_no_text_are_json_in_the_row() -> None:
    file, moment = StoredFile("k", "s", 1), datetime(2025, 1, 6, tzinfo=UTC)
    parameters = {"depth": 6, "rate": 0.1, "name": "gbm", "sizes": [1, 2], "none": None}
    record = BuildRecord("b", "m", "e", "c", parameters, {}, file, file, "3.11.7", None, None, moment, moment, None)
    row = json.loads(record.to_row())
    assert row["parameters"] == {"depth": "6", "rate": "0.1", "name": "gbm", "sizes": "[1, 2]", "none": "null"}


def test_objects_have_the_names_that_others_look_for() -> None:
    assert record_key("churn", "a1") == "builds/churn/a1/record.json"
    assert artifact_key("churn", "a1", "f" * 64) == f"builds/churn/a1/artifact-{'f' * 16}.tar.gz"
    assert log_key("churn", "a1", 2) == "builds/churn/a1/log-2.txt"
    assert row_key("churn", "a1") == f"{BUILDS.prefix}model=churn/a1.json"
    assert packages_key("d1") == "environments/d1.tar.gz"
    assert digest_of(packages_key("d1")) == "d1"
