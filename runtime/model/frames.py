"""Rows: a pandas DataFrame where pandas is installed, else a list of dicts or of lists.

Everything that knows both forms is here: reading them from JSON, writing them, joining and splitting batches.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Hashable, Iterable, Sequence
from functools import cache
from typing import Any

from runtime.model.exceptions import BadRequest, NoAnswer

#: As pandas has them, except `table`.
ORIENTS = ("split", "records", "index", "columns", "values")
_EXAMPLE = 'for example [{"age": 41, "plan": "basic"}]'


class CannotSplit(ValueError):  # noqa: N818 - what it is
    """The answer to a batch does not have one row for each row of it."""


@cache
def pandas() -> Any:
    """The module, or None where it is not installed."""
    return importlib.import_module("pandas") if importlib.util.find_spec("pandas") else None


def rows_of(value: Any, orient: str | None = None) -> Any:
    """The rows that a JSON value has, as a DataFrame, or without pandas as a list of dicts (of lists, without names).

    Without an `orient`, the shape says it: a list has a row in each element; {"columns", "index", "data"} is split;
    a dict of lists or dicts has a column in each; a dict of single values is one row. Raises BadRequest.
    """
    if orient == "split" or (orient is None and _is_split(value)):
        return _from_split(value)
    if isinstance(value, list) and orient in (None, "records", "values"):
        return _from_list(value)
    if isinstance(value, dict) and orient == "index":
        return _from_index(value)
    if isinstance(value, dict) and orient in (None, "columns"):
        return _from_columns(value)
    expected = "a list of rows, or the columns" if orient is None else f'the orient "{orient}" of pandas'
    raise BadRequest(f"The body is {_what(value)}; send {expected}, {_EXAMPLE}.")


def _is_split(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("columns"), list)
        and isinstance(value.get("data"), list)
        and value.keys() <= {"columns", "index", "data"}
    )


def _from_split(value: Any) -> Any:
    if not _is_split(value):
        raise BadRequest('Send {"columns": ["age", ...], "data": [[41, ...], ...]}: the orient "split" of pandas.')
    columns, data, index = value["columns"], value["data"], value.get("index")
    if not all(isinstance(name, str | int | float) for name in columns):
        raise BadRequest('"columns" must be a list of names.')
    if len(set(columns)) < len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise BadRequest(f'"columns" has {twice!r} twice; name each column once.')
    width = len(columns)
    for number, row in enumerate(data):
        if not isinstance(row, list) or len(row) != width:
            found = f"{len(row)} values" if isinstance(row, list) else _what(row)
            raise BadRequest(f'"data" has {found} in row {number}; send a list of {width}, as many as "columns".')
    if index is not None and not (isinstance(index, list) and len(index) == len(data)):
        raise BadRequest(f'"index" must be a list of {len(data)}, as many as the rows of "data"; or leave it out.')
    if pandas() is None:
        return [dict(zip(columns, row, strict=True)) for row in data]
    return _frame(data, columns=columns, index=index)


def _from_list(value: list[Any]) -> Any:
    if not value:
        raise BadRequest(f"The list has no rows; send at least one, {_EXAMPLE}.")
    kind = type(value[0])
    for number, row in enumerate(value):
        if type(row) is not kind and (isinstance(row, dict | list) or kind in (dict, list)):
            raise BadRequest(f"Row {number} is {_what(row)} and row 0 is {_what(value[0])}; send rows of one kind.")
    if kind is list:
        width = len(value[0])
        for number, row in enumerate(value):
            if len(row) != width:
                raise BadRequest(f"Row {number} has {len(row)} values and row 0 has {width}; send rows of one length.")
    return value if pandas() is None else _frame(value)


def _from_index(value: dict[str, Any]) -> Any:
    for label, row in value.items():
        if not isinstance(row, dict):
            raise BadRequest(
                f'Row {label!r} is {_what(row)}; send {{"0": {{"age": 41, ...}}, ...}}: the orient "index".'
            )
    if not value:
        raise BadRequest(f"The body has no rows; send at least one, {_EXAMPLE}.")
    rows = list(value.values())
    return rows if pandas() is None else _frame(rows, index=list(value))


def _from_columns(value: dict[str, Any]) -> Any:
    if not value:
        raise BadRequest(f"The body has no columns; send {_EXAMPLE}.")
    kinds = {_kind(column) for column in value.values()}
    if len(kinds) > 1:
        names = [next(name for name, column in value.items() if _kind(column) == kind) for kind in kinds]
        found = " and ".join(f"{name!r} is {_what(value[name])}" for name in sorted(names))
        raise BadRequest(f"{found}. Send one row as [{{...}}], or each column as a list.")
    (kind,) = kinds
    if kind is None:
        return [value] if pandas() is None else _frame([value])
    lengths = {name: len(column) for name, column in value.items()}
    if kind is list and len(set(lengths.values())) > 1:
        short, long = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
        raise BadRequest(
            f"The column {short!r} has {lengths[short]} values and {long!r} has {lengths[long]}; send as many for each."
        )
    if pandas() is not None:
        return _frame(value)
    if kind is list:
        return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
    labels = list(dict.fromkeys(label for column in value.values() for label in column))
    return [{name: column.get(label) for name, column in value.items()} for label in labels]


def _kind(value: Any) -> type | None:
    return type(value) if isinstance(value, list | dict) else None


def _frame(data: Any, **arguments: Any) -> Any:
    try:
        return pandas().DataFrame(data, **arguments)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadRequest(f"The body cannot become a DataFrame: {error}. Send {_EXAMPLE}.") from None


def _what(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "true or false", dict: "an object", list: "a list", str: "text", int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")


# -- answers --


def is_frame(value: Any) -> bool:
    return pandas() is not None and isinstance(value, pandas().DataFrame)


def is_series(value: Any) -> bool:
    return pandas() is not None and isinstance(value, pandas().Series)


def structure_of(frame: Any, orient: str) -> Any:
    """What a DataFrame (or a Series, as one column) looks like in JSON. Raises NoAnswer."""
    frame = frame.to_frame() if is_series(frame) else frame
    names = [name if isinstance(name, str) else str(name) for name in frame.columns]
    columns = [column.tolist() for _, column in frame.items()]
    rows: Iterable[Any] = zip(*columns, strict=True) if columns else [()] * len(frame)
    if orient == "values":
        return [list(row) for row in rows]
    if orient == "split":
        return {"columns": names, "index": frame.index.tolist(), "data": [list(row) for row in rows]}
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise NoAnswer(f"predict() answered a DataFrame with the column {twice!r} twice; name each column once.")
    if orient == "records":
        return [dict(zip(names, row, strict=True)) for row in rows]
    labels = [str(label) for label in frame.index.tolist()]
    if orient == "index":
        return {label: dict(zip(names, row, strict=True)) for label, row in zip(labels, rows, strict=True)}
    return {name: dict(zip(labels, column, strict=True)) for name, column in zip(names, columns, strict=True)}


# -- batches --


def count(value: Any) -> int:
    """How many rows a value has; 1 for what has none."""
    if isinstance(value, list):
        return len(value)
    shape = getattr(value, "shape", None)
    return int(shape[0]) if shape else 1


def kind_of(value: Any) -> Hashable:
    """Values of one kind can be joined without any of them changing: same columns in the same order, same types."""
    if is_frame(value):
        return ("frame", tuple(value.columns), tuple(str(kind) for kind in value.dtypes))
    if isinstance(value, list):
        return ("list", *sorted({type(row).__name__ for row in value}))
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return ("array", tuple(value.shape[1:]), str(value.dtype))
    return ("alone", id(value))


def join(values: Sequence[Any]) -> Any:
    """One value with the rows of all. Raises ValueError for values of more than one kind."""
    if len(values) == 1:
        return values[0]
    if len({kind_of(value) for value in values}) > 1:
        raise ValueError("only values of one kind can be joined: see kind_of()")
    if is_frame(values[0]):
        return pandas().concat(values, ignore_index=True)
    if isinstance(values[0], list):
        return [row for value in values for row in value]
    return importlib.import_module("numpy").concatenate(values)


def split(result: Any, sizes: Sequence[int]) -> list[Any]:
    """The answers to the parts of a batch, from the answer to the whole of it. Raises CannotSplit."""
    if not (
        isinstance(result, list | tuple) or is_frame(result) or is_series(result) or getattr(result, "shape", None)
    ):
        raise CannotSplit(
            f"predict() answered {_what(result)} to a batch of {sum(sizes)} rows; it must have a row for each"
        )
    if len(result) != sum(sizes):
        raise CannotSplit(f"predict() answered {len(result)} rows to a batch of {sum(sizes)}")
    positional = result.iloc if is_frame(result) or is_series(result) else result
    parts, start = [], 0
    for size in sizes:
        parts.append(positional[start : start + size])
        start += size
    return parts
