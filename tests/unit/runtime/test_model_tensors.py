"""Tensors of the Open Inference Protocol, to values and back."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.model.adapters import JsonInputAdapter, NumpyInputAdapter, StringInputAdapter
from runtime.model.api import Api, Options
from runtime.model.exceptions import BadRequest
from runtime.model.tensors import tensors_from_result, value_from_tensors


def tensor(name: str, shape: Any, datatype: Any, data: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def reads(adapter: Any) -> Api:
    return Api(lambda value: value, Options(input=adapter), logs=False)


def test_each_tensor_is_a_column() -> None:
    frame = value_from_tensors(
        [
            tensor("age", [2], "INT64", [41, 29]),
            tensor("plan", [2, 1], "BYTES", ["a", "b"]),
            tensor("ok", [2], "BOOL", [[True], [False]]),
        ]
    )
    assert frame.to_dict("list") == {"age": [41, 29], "plan": ["a", "b"], "ok": [True, False]}


def test_a_single_matrix_is_all_columns() -> None:
    assert value_from_tensors([tensor("x", [2, 3], "FP32", [1, 2, 3, 4, 5, 6])]).to_numpy().tolist() == [
        [1, 2, 3],
        [4, 5, 6],
    ]
    assert value_from_tensors([tensor("x", [2, 2], "FP32", [[1, 2], [3, None]])]).shape == (2, 2)


def test_a_model_gets_tensors_as_its_adapter_says() -> None:
    given = [tensor("x", [1, 2, 2], "INT32", [1, 2, 3, 4])]
    assert value_from_tensors(given, reads(NumpyInputAdapter(dtype="float32"))).tolist() == [[[1, 2], [3, 4]]]
    assert value_from_tensors(given, reads(JsonInputAdapter())) == {"x": [[[1, 2], [3, 4]]]}
    with pytest.raises(BadRequest, match="The model reads its input by StringInputAdapter, not as tensors"):
        value_from_tensors(given, reads(StringInputAdapter()))
    with pytest.raises(BadRequest, match="The model reads one array; send one tensor, not x, y"):
        value_from_tensors([*given, tensor("y", [1], "INT32", [1])], reads(NumpyInputAdapter()))


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (None, 'Send "inputs": a list of tensors'),
        ([], 'Send "inputs": a list of tensors'),
        ([3], "inputs[0] has no name; send name, shape, datatype and data."),
        ([{"name": "x"}], "The input 'x' needs a \"shape\": a list of lengths"),
        ([tensor("x", [-1], "INT8", [])], 'needs a "shape"'),
        ([tensor("x", [True], "INT8", [1])], 'needs a "shape"'),
        ([tensor("x", [1], "INT7", [1])], 'needs a "datatype": one of BOOL, INT8'),
        ([tensor("x", [1], ["INT8"], [1])], 'needs a "datatype": one of BOOL, INT8'),
        ([tensor("x", [1], "INT8", None)], 'needs "data": a list, flat or nested. Binary data is not read.'),
        ([tensor("x", [3], "INT8", [1, 2])], "has 2 values, and its shape [3] asks for 3."),
        ([tensor("x", [10**9, 10**9], "INT8", [])], "has 0 values, and its shape"),
        ([tensor("x", [1], "INT8", [128])], "The input 'x' has 128, which is no INT8."),
        ([tensor("x", [1], "UINT8", [-1])], "has -1, which is no UINT8."),
        ([tensor("x", [1], "INT8", [1.5])], "has 1.5, which is no INT8."),
        ([tensor("x", [1], "INT8", [True])], "has True, which is no INT8."),
        ([tensor("x", [1], "BOOL", [1])], "has 1, which is no BOOL."),
        ([tensor("x", [1], "FP32", ["1"])], "has '1', which is no FP32."),
        ([tensor("x", [1], "BYTES", [1])], "has 1, which is no BYTES."),
        ([tensor("x", [1], "BYTES", [{"a": 1}])], "which is no BYTES."),
        ([tensor("x", [1], "INT8", [1])] * 2, "Two inputs have the same name; name each tensor once."),
        (
            [tensor("x", [2], "INT8", [1, 2]), tensor("y", [1], "INT8", [1])],
            "The column 'y' has 1 values and 'x' has 2",
        ),
        (
            [tensor("x", [1, 2], "INT8", [1, 2]), tensor("y", [1], "INT8", [1])],
            "Of several tensors each is a column: send 'x'",
        ),
    ],
)
def test_a_wrong_tensor_is_told_with_its_name(inputs: Any, sentence: str) -> None:
    with pytest.raises(BadRequest) as caught:
        value_from_tensors(inputs)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("datatype", ["INT8", "UINT8", "INT64", "UINT64"])
def test_integers_have_the_range_of_their_type(datatype: str) -> None:
    info = np.iinfo(datatype.lower())
    for fits in (int(info.min), int(info.max)):
        assert value_from_tensors([tensor("x", [1], datatype, [fits])], reads(JsonInputAdapter())) == {"x": [fits]}
    for beyond in (int(info.min) - 1, int(info.max) + 1):
        with pytest.raises(BadRequest, match=f"which is no {datatype}"):
            value_from_tensors([tensor("x", [1], datatype, [beyond])])


@pytest.mark.parametrize(
    ("result", "outputs"),
    [
        (
            pd.DataFrame({"score": [0.5, float("nan")], "label": ["a", "b"], "n": [1, 2], "ok": [True, False]}),
            [
                tensor("score", [2], "FP64", [0.5, None]),
                tensor("label", [2], "BYTES", ["a", "b"]),
                tensor("n", [2], "INT64", [1, 2]),
                tensor("ok", [2], "BOOL", [True, False]),
            ],
        ),
        (
            [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}],
            [tensor("a", [2], "INT64", [1, 2]), tensor("b", [2], "BYTES", ["x", "y"])],
        ),
        (np.array([[1.0, 2.0], [3.0, 4.0]]), [tensor("output-0", [2, 2], "FP64", [1.0, 2.0, 3.0, 4.0])]),
        ([1, 2.5], [tensor("output-0", [2], "FP64", [1, 2.5])]),
        ([2**64], [tensor("output-0", [1], "FP64", [2**64])]),
        (0.5, [tensor("output-0", [1], "FP64", [0.5])]),
        ("yes", [tensor("output-0", [1], "BYTES", ["yes"])]),
        ([[1], [2, 3]], [tensor("output-0", [2], "BYTES", ["[1]", "[2,3]"])]),
        ({"label": "a"}, [tensor("output-0", [1], "BYTES", ['{"label":"a"}'])]),
        ([{"a": 1}, {"b": 2}], [tensor("output-0", [2], "BYTES", ['{"a":1}', '{"b":2}'])]),
        (pd.Series([1, 2], name="n"), [tensor("n", [2], "INT64", [1, 2])]),
        ([], [tensor("output-0", [0], "FP64", [])]),
        ([None, "x"], [tensor("output-0", [2], "BYTES", ["null", "x"])]),
    ],
)
def test_an_answer_becomes_tensors(result: Any, outputs: Any) -> None:
    assert json.loads(json.dumps(tensors_from_result(result), allow_nan=False)) == outputs


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1), st.integers(1, 3))
def test_an_array_survives_the_way_out_and_in(numbers: list[float], width: int) -> None:
    array = np.array([numbers] * width)
    (told,) = tensors_from_result(array)
    assert value_from_tensors([told], reads(NumpyInputAdapter())).tolist() == array.tolist()
