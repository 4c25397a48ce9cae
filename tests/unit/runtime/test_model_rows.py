"""What predict() gets from JSON, in an environment that has pandas."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.model.adapters import DataFrameInputAdapter
from runtime.model.api import api, api_of
from runtime.model.exceptions import BadRequest
from runtime.model.frames import CannotSplit, join, kind_of, split


def read(value: Any, orient: str | None = None) -> pd.DataFrame:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    frame = DataFrameInputAdapter(orient).decode(body, "application/json", {})
    assert isinstance(frame, pd.DataFrame)
    return frame


CUSTOMERS = pd.DataFrame({"age": [41, 29], "plan": ["basic", None]})


@pytest.mark.parametrize("orient", ["split", "records", "columns"])
def test_what_pandas_writes_is_read_by_its_shape(orient: str) -> None:
    read_again = read(CUSTOMERS.to_json(orient=orient).encode())
    assert read_again.to_dict("records") == CUSTOMERS.to_dict("records")


@pytest.mark.parametrize("orient", ["split", "records", "columns", "index", "values"])
def test_what_pandas_writes_is_read_by_its_name(orient: str) -> None:
    read_again = read(CUSTOMERS.to_json(orient=orient).encode(), orient)
    assert read_again.to_numpy().tolist() == CUSTOMERS.to_numpy().tolist()


def test_split_keeps_its_index() -> None:
    frame = read({"columns": ["age"], "index": [7, 9], "data": [[41], [29]]})
    assert frame.index.tolist() == [7, 9]
    assert read({"columns": ["age"], "data": [[41]]}).index.tolist() == [0]


def test_a_list_of_lists_has_rows_without_names() -> None:
    assert read([[1, 2], [3, 4]]).to_numpy().tolist() == [[1, 2], [3, 4]]


def test_a_list_of_values_is_one_column() -> None:
    assert read([1, 2, None]).shape == (3, 1)


def test_an_object_of_lists_has_a_column_in_each() -> None:
    assert read({"age": [41, 29], "plan": ["a", "b"]}).to_dict("list") == {"age": [41, 29], "plan": ["a", "b"]}


def test_an_object_of_values_is_one_row() -> None:
    assert read({"age": 41, "plan": None}).to_dict("records") == [{"age": 41, "plan": None}]


def test_a_row_may_hold_a_list() -> None:
    assert read([{"user": "u", "words": [1, 2, 3]}]).to_dict("records") == [{"user": "u", "words": [1, 2, 3]}]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "The body is empty. Send JSON"),
        (b"{", "The body is not JSON: "),
        (b"[NaN]", "The body is not JSON: "),
        (b"\xff", "The body is not JSON: "),
        (b"[" * 100_000, "The body is not JSON"),
        (b"3", "The body is a number; send a list of rows, or the columns"),
        (b"null", "The body is null; send"),
        (b'"age"', "The body is text; send"),
        (b"[]", "The list has no rows; send at least one"),
        (b"{}", "The body has no columns; send"),
        (b'[{"a": 1}, 2]', "Row 1 is a number and row 0 is an object; send rows of one kind."),
        (b'[1, {"a": 1}]', "Row 1 is an object and row 0 is a number; send rows of one kind."),
        (b"[[1, 2], [3]]", "Row 1 has 1 values and row 0 has 2; send rows of one length."),
        (b'{"a": [1], "b": [1, 2]}', "The column 'a' has 1 values and 'b' has 2; send as many for each."),
        (
            b'{"a": [1], "b": 2}',
            "'a' is a list and 'b' is a number. Send one row as [{...}], or each column as a list.",
        ),
        (b'{"columns": ["a", "a"], "data": []}', "\"columns\" has 'a' twice; name each column once."),
        (
            b'{"columns": ["a"], "data": [[1, 2]]}',
            '"data" has 2 values in row 0; send a list of 1, as many as "columns".',
        ),
        (b'{"columns": ["a"], "data": [{"a": 1}]}', '"data" has an object in row 0; send a list of 1'),
        (b'{"columns": [["a"]], "data": []}', '"columns" must be a list of names.'),
        (b'{"columns": ["a"], "index": [1], "data": []}', '"index" must be a list of 0'),
    ],
)
def test_what_cannot_be_rows_is_told_with_what_to_send(body: bytes, sentence: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(body)
    assert sentence in str(caught.value)
    assert caught.value.status == 400
    assert caught.value.body == {"message": str(caught.value)}


@pytest.mark.parametrize(
    ("orient", "value", "sentence"),
    [
        (
            "split",
            [{"a": 1}],
            'Send {"columns": ["age", ...], "data": [[41, ...], ...]}: the orient "split" of pandas.',
        ),
        ("records", {"a": 1}, 'The body is an object; send the orient "records" of pandas'),
        ("index", {"0": 1}, "Row '0' is a number; send"),
        ("index", {}, "The body has no rows"),
    ],
)
def test_a_named_orient_is_the_only_one(orient: str, value: Any, sentence: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(value, orient)
    assert sentence in str(caught.value)


def test_an_orient_that_is_none_is_refused_where_it_is_written() -> None:
    with pytest.raises(ValueError, match="input_orient is 'rows'; it must be one of split, records, index, columns"):
        DataFrameInputAdapter("rows")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["columns", "data", "index", "a", "b"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(JSON, st.sampled_from([None, "split", "records", "index", "columns", "values"]))
def test_any_json_is_rows_or_a_bad_request(value: Any, orient: str | None) -> None:
    with suppress(BadRequest):
        assert isinstance(read(value, orient), pd.DataFrame)


# -- batches --


class Doubling:
    """Answers as many rows as it gets."""

    @api()
    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame * 2


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=5))
def test_a_row_gets_the_same_answer_in_a_batch_as_alone(requests: list[list[int]]) -> None:
    asked = api_of(Doubling())
    values = [asked.decode(json.dumps([{"x": number} for number in numbers]).encode()) for numbers in requests]

    together = asked.split(asked.call(asked.join(values)), [asked.rows(value) for value in values])

    assert [asked.encode(part) for part in together] == [asked.encode(asked.call(value)) for value in values]


def test_lists_of_rows_are_joined_and_split_too() -> None:
    assert join([[1], [2, 3]]) == [1, 2, 3]
    assert split([1, 2, 3], [1, 2]) == [[1], [2, 3]]
    assert [list(part) for part in split(pd.Series([1, 2, 3]), [1, 2])] == [[1], [2, 3]]


def test_only_rows_of_the_same_columns_and_types_are_joined() -> None:
    rows = read([{"a": 1, "b": "x"}])
    assert kind_of(rows) == kind_of(read([{"a": 2, "b": "y"}]))
    # Each of these would change what the model sees of the other request.
    for other in (
        [{"b": "x", "a": 1}],
        [{"a": 1}],
        [{"a": 1.5, "b": "x"}],
        [{"a": "1", "b": "x"}],
        [{"a": None, "b": "x"}],
    ):
        assert kind_of(rows) != kind_of(read(other))
        with pytest.raises(ValueError, match="only values of one kind"):
            join([rows, read(other)])


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ([1], "predict() answered 1 rows to a batch of 2"),
        ({"a": [1, 2]}, "predict() answered an object to a batch of 2 rows; it must have a row for each"),
        (3.0, "predict() answered a number to a batch of 2 rows"),
    ],
)
def test_an_answer_that_has_no_row_for_each_cannot_be_split(answer: Any, sentence: str) -> None:
    with pytest.raises(CannotSplit) as caught:
        split(answer, [1, 1])
    assert sentence in str(caught.value)
