"""JSON of what predict() answers: always valid, whatever is in it."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import subprocess
import sys
import uuid
from collections import OrderedDict, deque
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.model.adapters import DataFrameOutputAdapter
from runtime.model.exceptions import NoAnswer
from runtime.model.jsons import dumps, loads, plain

REPOSITORY = Path(__file__).resolve().parents[3]


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: float
    label: Any = None


class Answer(pydantic.BaseModel):
    score: float


MOMENT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "null"),
        ([math.inf, -math.inf, 0.1], "[null,null,0.1]"),
        ({"a": {"b": math.nan}}, '{"a":{"b":null}}'),
        (np.float64("nan"), "null"),
        (np.float32(0.5), "0.5"),
        (np.int64(7), "7"),
        (np.uint8(7), "7"),
        (np.bool_(True), "true"),
        (np.str_("x"), '"x"'),
        (np.array([[1, 2], [3, 4]]), "[[1,2],[3,4]]"),
        (np.array([1.5, np.nan]), "[1.5,null]"),
        (np.array(["a", None], dtype=object), '["a",null]'),
        (np.array([1, 2, 3, 4])[::2], "[1,3]"),
        (np.array(5), "5"),
        ({"score": np.float64(0.25), 3: "three"}, '{"score":0.25,"3":"three"}'),
        ({np.int64(3): 1, None: 2, 1.5: 3, Colour.RED: 4}, '{"3":1,"null":2,"1.5":3,"red":4}'),
        (Decimal("0.65"), "0.65"),
        (Decimal("NaN"), "null"),
        (Decimal("-Infinity"), "null"),
        (MOMENT, '"2026-03-01T12:30:00+00:00"'),
        (date(2026, 3, 1), '"2026-03-01"'),
        (time(12, 30), '"12:30:00"'),
        (timedelta(minutes=1.5), "90.0"),
        (pd.Timestamp(MOMENT), '"2026-03-01T12:30:00+00:00"'),
        ([pd.NaT, pd.NA, pd.Timedelta(seconds=1)], "[null,null,1.0]"),
        (np.datetime64("2026-03-01"), '"2026-03-01T00:00:00"'),
        (np.array(["2026-03-01", "NaT"], dtype="datetime64[ns]"), '["2026-03-01T00:00:00",null]'),
        (np.array([90], dtype="timedelta64[s]"), "[90.0]"),
        ([np.datetime64("NaT")], "[null]"),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (PurePosixPath("a/b"), '"a/b"'),
        (b"caf\xc3\xa9", '"café"'),
        ([b"\xff"], '[{"b64":"/w=="}]'),
        ({7}, "[7]"),
        ((1, deque([2])), "[1,[2]]"),
        (OrderedDict(a=1), '{"a":1}'),
        (Colour.RED, '"red"'),
        (Point(1.0, np.int8(2)), '{"x":1.0,"label":2}'),
        (Answer(score=0.5), '{"score":0.5}'),
        (2**70, str(2**70)),
        ("\ud800", '"\\ud800"'),
        (pd.DataFrame({"a": [1, None]}), '[{"a":1.0},{"a":null}]'),
        (pd.Series([1, 2]), "[1,2]"),
        ({"frame": pd.DataFrame({"a": [1]})}, '{"frame":[{"a":1}]}'),
        (pd.Index(["a"]), '["a"]'),
    ],
)
def test_values_become_json(value: Any, text: str) -> None:
    assert json.loads(dumps(value)) == json.loads(text)
    # The long way, which answers where orjson is not installed or does not know a value, says the same.
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == json.loads(text)


@pytest.mark.parametrize("value", [object(), [lambda: 1], {"a": {"b": object()}}, type, Point])
def test_what_json_cannot_hold_is_named_and_not_shown(value: Any) -> None:
    with pytest.raises(
        NoAnswer, match=r"predict\(\) answered a \w+\.\w+, which JSON cannot hold. Answer a DataFrame"
    ) as caught:
        dumps(value)
    assert caught.value.status == 500


def test_what_holds_itself_is_told() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(NoAnswer, match="holds itself"):
        dumps(ring)


@given(
    st.recursive(
        st.floats() | st.text() | st.integers() | st.none(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_the_answer_is_always_valid_json(value: Any) -> None:
    def refuse(name: str) -> Any:
        raise AssertionError(name)

    json.loads(dumps(value), parse_constant=refuse)


def test_numbers_and_text_survive_the_way_in_and_out() -> None:
    body = '{"a":[1,2.5,"é",true,null],"b":9007199254740993}'.encode()
    assert dumps(loads(body)) == body


# -- DataFrames --

FRAME = pd.DataFrame(
    {
        "score": [0.1234567890123456, float("nan")],
        "label": ["a", None],
        "at": pd.to_datetime(["2026-03-01", None]),
        "many": pd.array([1, None], dtype="Int64"),
        "kind": pd.Categorical(["x", "y"]),
        5: [Decimal("1.5"), None],
    },
    index=[7, 9],
)


def test_a_frame_is_records_in_full_precision() -> None:
    body, content_type = DataFrameOutputAdapter().encode(FRAME)
    assert content_type == "application/json"
    assert json.loads(body) == [
        {"score": 0.1234567890123456, "label": "a", "at": "2026-03-01T00:00:00", "many": 1, "kind": "x", "5": 1.5},
        {"score": None, "label": None, "at": None, "many": None, "kind": "y", "5": None},
    ]


@pytest.mark.parametrize("orient", ["split", "records", "index", "columns", "values"])
def test_the_orients_are_those_of_pandas(orient: str) -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]}, index=[7, 9])
    body, _ = DataFrameOutputAdapter(orient).encode(frame)
    assert json.loads(body) == json.loads(frame.to_json(orient=orient))


def test_a_series_is_one_column() -> None:
    assert DataFrameOutputAdapter().encode(pd.Series([1], name="score"))[0] == b'[{"score":1}]'
    assert DataFrameOutputAdapter().encode(pd.Series([1]))[0] == b'[{"0":1}]'


def test_a_frame_without_columns_has_empty_rows() -> None:
    assert DataFrameOutputAdapter().encode(pd.DataFrame(index=[0, 1]))[0] == b"[{},{}]"
    assert DataFrameOutputAdapter().encode(pd.DataFrame())[0] == b"[]"


def test_a_column_twice_is_told() -> None:
    with pytest.raises(NoAnswer, match="a DataFrame with the column 'a' twice"):
        DataFrameOutputAdapter().encode(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_an_orient_that_is_none_is_refused_where_it_is_written() -> None:
    with pytest.raises(ValueError, match="output_orient is 'rows'"):
        DataFrameOutputAdapter("rows")


# -- without any package --

_BARE = """
import sys
sys.path.insert(0, sys.argv[1])
import json
from runtime.model import Model, api, log_metric, run_local
from runtime.model.api import api_of
from runtime.model.exceptions import BadRequest
from runtime.model.tensors import tensors_from_result, value_from_tensors

class Echo(Model):
    def build(self): log_metric("n", 1)
    def predict(self, rows): return rows

def ask(body): return json.loads(run_local(Echo(), body))

rows = [{"a": 1, "b": "x"}, {"a": 2, "b": None}]
assert ask(json.dumps(rows)) == rows
assert ask('{"columns": ["a", "b"], "index": [5, 6], "data": [[1, "x"], [2, null]]}') == rows
assert ask('{"a": [1, 2], "b": ["x", null]}') == rows
assert ask('{"a": {"0": 1, "1": 2}, "b": {"0": "x", "1": null}}') == rows
assert ask('{"a": 1, "b": "x"}') == rows[:1]
assert ask("[[1, 2]]") == [[1, 2]]
for body, sentence in {
    "": "The body is empty", "{": "The body is not JSON: ", "[NaN]": "NaN is no JSON value; send null",
    "[" * 100000: "nested too deeply", "3": "The body is a number; send a list of rows", "[]": "has no rows",
}.items():
    try:
        ask(body)
    except BadRequest as refusal:
        assert sentence in str(refusal), (sentence, str(refusal))
    else:
        raise AssertionError(body[:10])

class Strange:
    def predict(self, rows): return {"nan": float("nan"), "set": {1}, 2: b"x"}
assert json.loads(api_of(Strange()).encode(Strange().predict(None))[0]) == {"nan": None, "set": [1], "2": "x"}
given = [{"name": "a", "shape": [2], "datatype": "INT64", "data": [1, 2]}]
assert value_from_tensors(given) == [{"a": 1}, {"a": 2}]
assert tensors_from_result([{"a": 1}, {"a": 2}]) == given
assert "pandas" not in sys.modules and "orjson" not in sys.modules and "numpy" not in sys.modules
print("fine")
"""


def test_a_model_needs_no_package_but_ours() -> None:
    """Without pandas it gets plain rows; without orjson, the standard library reads and writes."""
    bare = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _BARE, str(REPOSITORY)], capture_output=True, text=True, check=False
    )
    assert (bare.stdout, bare.stderr) == ("fine\n", "")
