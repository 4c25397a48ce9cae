"""Records of the inference log: their names, their lines, and what is left out of them."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from runtime.server.recorder import Segment, Source, line

MOMENT = datetime(2026, 3, 7, 9, 30, tzinfo=UTC)
SOURCE = Source("production", "churn", "default", "churn-default-3f9a1c2e-abcde", "0a1b2c3d")


def recorded(body: bytes, *excluded: str, answer: bytes = b"[]") -> dict[str, Any]:
    known: dict[str, Any] = {"status": 200, "exclude_columns": list(excluded)}
    made = line(known, body, answer, frozenset(excluded))
    assert made.endswith(b"\n")
    assert made.count(b"\n") == 1
    value: dict[str, Any] = json.loads(made)
    assert "exclude_columns" not in value
    return value


def test_objects_are_named_by_what_a_query_asks_for() -> None:
    assert SOURCE.key(MOMENT, 7) == (
        "inferences/environment=production/model=churn/variation=default/date=2026-03-07/hour=09/"
        "churn-default-3f9a1c2e-abcde-0a1b2c3d-7.jsonl.gz"
    )


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ([{"age": 41, "name": "Ada"}, {"age": 5}], [{"age": 41}, {"age": 5}]),
        ({"age": [41, 5], "name": ["Ada", "Bo"]}, {"age": [41, 5]}),
        (
            {"columns": ["name", "age"], "index": [0], "data": [["Ada", 41]]},
            {"columns": ["age"], "index": [0], "data": [[41]]},
        ),
        (
            {"inputs": [{"name": "name", "shape": [1], "data": ["Ada"]}, {"name": "age", "shape": [1], "data": [41]}]},
            {"inputs": [{"name": "name", "shape": [1], "data": None}, {"name": "age", "shape": [1], "data": [41]}]},
        ),
        ({"customer": {"name": "Ada", "age": 41}}, {"customer": {"age": 41}}),
        ({"columns": ["name", "age"], "data": [[], "Ada"]}, {"columns": ["age"], "data": [[], None]}),
        ([1, "name"], [1, "name"]),
        ("name", "name"),
    ],
)
def test_excluded_columns_are_in_no_form_of_a_body(body: Any, kept: Any) -> None:
    assert recorded(json.dumps(body).encode(), "name")["input"] == kept
    assert recorded(b"{}", "name", answer=json.dumps(body).encode())["output"] == kept


@pytest.mark.parametrize("body", [b"", b"\x89PNG\r\n", b"{", b"[" * 100_000])
def test_what_is_no_json_is_left_out(body: bytes) -> None:
    assert recorded(body)["input"] is None


@pytest.mark.parametrize("depth", range(50, 1200, 50))
def test_a_body_of_any_depth_makes_a_line(depth: int) -> None:
    assert recorded(b"[" * depth + b"]" * depth, "name")["status"] == 200


def test_numbers_that_json_does_not_have_are_null() -> None:
    assert recorded(b"[NaN, Infinity, 1]")["input"] == [None, None, 1]


def test_a_segment_is_whole_gzip_and_ends_by_age_or_size() -> None:
    segment = Segment("key", "2026-03-07T09", opened=100.0)
    segment.add(b'{"a": 1}\n')
    segment.add(b'{"a": 2}\n')
    assert not segment.is_full(159.0)
    assert segment.is_full(160.0)
    assert gzip.decompress(segment.finished()) == b'{"a": 1}\n{"a": 2}\n'
    assert segment.records == 2
