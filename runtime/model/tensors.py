"""Tensors of the Open Inference Protocol v2, in JSON, to values and back.

An input is {"name", "shape", "datatype", "data"}; `data` is flat or nested, in row-major order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from runtime.model import adapters, frames, jsons
from runtime.model.api import Api
from runtime.model.exceptions import BadRequest

_INTEGERS = {f"{sign}INT{bits}": bits for sign in ("", "U") for bits in (8, 16, 32, 64)}
_FLOATS = ("FP16", "FP32", "FP64", "BF16")
DATATYPES = ("BOOL", *_INTEGERS, *_FLOATS, "BYTES")


def value_from_tensors(inputs: Any, api: Api | None = None) -> Any:
    """The argument of predict(), from the `inputs` of a request. Raises BadRequest.

    For a model that reads rows, each tensor of the shape [rows] or [rows, 1] is a column, and a single one of the shape
    [rows, columns] is all of them. One that reads JSON gets a dict of nested lists.
    """
    if not isinstance(inputs, list) or not inputs:
        raise BadRequest('Send "inputs": a list of tensors, each with name, shape, datatype and data.')
    tensors = dict(_tensor(given, position) for position, given in enumerate(inputs))
    if len(tensors) < len(inputs):
        raise BadRequest("Two inputs have the same name; name each tensor once.")
    return api.from_tensors(tensors) if api else adapters.DataFrameInputAdapter().from_tensors(tensors)


def _tensor(given: Any, position: int) -> tuple[str, Any]:
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise BadRequest(f"inputs[{position}] has no name; send name, shape, datatype and data.")
    name, shape, datatype, data = (given.get(key) for key in ("name", "shape", "datatype", "data"))
    where = f"The input {name!r}"
    if not isinstance(shape, list) or not shape or not all(type(size) is int and size >= 0 for size in shape):
        raise BadRequest(f'{where} needs a "shape": a list of lengths, as [1, 4].')
    if datatype not in DATATYPES:
        raise BadRequest(f'{where} needs a "datatype": one of {", ".join(DATATYPES)}.')
    if not isinstance(data, list):
        raise BadRequest(f'{where} needs "data": a list, flat or nested. Binary data is not read.')
    values = _flat(data)
    if len(values) != math.prod(shape):
        raise BadRequest(f"{where} has {len(values)} values, and its shape {shape} asks for {math.prod(shape)}.")
    for value in values:
        if not _is(value, datatype):
            raise BadRequest(f"{where} has {value!r:.40}, which is no {datatype}.")
    return str(name), _nested(values, shape)


def _is(value: object, datatype: str) -> bool:
    if datatype in _FLOATS:
        return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    if datatype == "BOOL":
        return isinstance(value, bool)
    if datatype == "BYTES":
        return isinstance(value, str)
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    # One bit is the sign's.
    magnitude: int = 2 ** (_INTEGERS[datatype] - (not datatype.startswith("U")))
    return (0 if datatype.startswith("U") else -magnitude) <= value < magnitude


def _flat(data: list[Any]) -> list[Any]:
    while data and any(isinstance(item, list) for item in data):
        data = [inner for item in data for inner in (item if isinstance(item, list) else [item])]
    return data


def _nested(values: list[Any], shape: Sequence[int]) -> list[Any]:
    for size in reversed(shape[1:]):
        values = [values[start : start + size] for start in range(0, len(values), size)] if size else []
    return values


def tensors_from_result(result: Any) -> list[dict[str, Any]]:
    """The `outputs` of a response, from what predict() answered. Raises NoAnswer.

    A DataFrame, or a list of dicts with the same keys, becomes a tensor for each column; anything else one, `output-0`.
    What is neither number, text nor true or false is sent as the text of its JSON.
    """
    if frames.is_frame(result) or frames.is_series(result):
        rows = jsons.plain(frames.structure_of(result, "records"))
        names = [str(name) for name in (result.columns if frames.is_frame(result) else result.to_frame().columns)]
        return [_output(name, [row[name] for row in rows]) for name in names]
    value = jsons.plain(result)
    if (
        isinstance(value, list)
        and value
        and all(isinstance(row, dict) and row.keys() == value[0].keys() for row in value)
    ):
        return [_output(name, [row[name] for row in value]) for name in value[0]]
    return [_output("output-0", value if isinstance(value, list) else [value])]


def _output(name: str, values: list[Any]) -> dict[str, Any]:
    shape = _shape(values)
    flat = values
    for _ in shape[1:]:
        flat = [inner for item in flat for inner in item]
    kinds = {type(value) for value in flat}
    told = kinds - {type(None)}
    if kinds <= {bool} and kinds:
        datatype = "BOOL"
    elif kinds <= {int} and kinds and all(_is(value, "INT64") for value in flat):
        datatype = "INT64"
    elif told <= {int, float}:
        datatype = "FP64"
    else:
        datatype = "BYTES"
        flat = [value if isinstance(value, str) else jsons.dumps(value).decode() for value in flat]
    return {"name": name, "shape": shape, "datatype": datatype, "data": flat}


def _shape(value: list[Any]) -> list[int]:
    """Of the part that is regular: [[1, 2], [3]] has the shape [2], of lists."""
    shape, level = [len(value)], value
    while level and all(isinstance(item, list) for item in level) and len({len(item) for item in level}) == 1:
        shape.append(len(level[0]))
        level = [inner for item in level for inner in item]
    return shape
