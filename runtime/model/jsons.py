"""JSON in both directions, by orjson where it is installed (as in a server), else by the standard library.

What is written is always valid JSON: NaN and the infinities become null. Values of numpy, pandas, Decimal, dates, sets,
enumerations, dataclasses and pydantic models are known.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from runtime.model.exceptions import BadRequest, NoAnswer

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment] # a model's environment has it, a laptop need not


def loads(body: bytes | str) -> Any:
    """The value of a JSON text in UTF-8. Raises BadRequest."""
    if not body:
        raise BadRequest('The body is empty. Send JSON, for example [{"age": 41, "plan": "basic"}].')
    try:
        if orjson is not None:
            return orjson.loads(body)
        text = body.decode() if isinstance(body, bytes) else body
        return json.loads(text, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise BadRequest(f"The body is not UTF-8: byte {error.start} cannot be read. Send JSON in UTF-8.") from None
    except RecursionError:
        raise BadRequest("The body is not JSON that can be read: it is nested too deeply.") from None
    except ValueError as error:
        raise BadRequest(f"The body is not JSON: {error}.") from None


def dumps(value: Any) -> bytes:
    """The JSON text of a value, in UTF-8. Raises NoAnswer for what JSON cannot hold."""
    if orjson is not None:
        try:
            # Not OPT_SERIALIZE_NUMPY: it writes NaT as a moment of the year 1677.
            return orjson.dumps(value, _known)
        except TypeError:
            pass  # Keys that are no text, numbers above 64 bit, a lone surrogate: the long way knows them.
    try:
        return json.dumps(plain(value), separators=(",", ":"), allow_nan=False).encode()
    except RecursionError:
        raise NoAnswer("predict() answered something that holds itself, or is nested too deeply for JSON.") from None


def plain(value: Any) -> Any:
    """The value in the types that JSON has, all the way down. Raises NoAnswer."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [plain(item) for item in value]
    return plain(_known(value))


def _key(key: Any) -> str:
    if isinstance(key, str):
        return str(key)
    name = plain(key)
    return name if isinstance(name, str) else json.dumps(name)


def _known(value: Any) -> Any:
    """One step towards what JSON has, for a value that it has not."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime):
        return value.isoformat() if value == value else None  # noqa: PLR0124 - pandas' NaT, which is a datetime
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds() if value == value else None  # noqa: PLR0124 - NaT again
    if isinstance(value, bytes | bytearray | memoryview):
        return _text(bytes(value))
    if isinstance(value, Set):
        return list(value)
    if isinstance(value, UUID | PurePath):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return _foreign(value)


def _foreign(value: Any) -> Any:
    """Types of packages that need not be installed are known by what they can do."""
    kind = type(value)
    library = kind.__module__.partition(".")[0]
    if kind.__name__ == "NAType":
        return None
    if library == "numpy" and value.dtype.kind in "mM":
        # As Python's own: of nanoseconds, numpy would make plain numbers.
        return value.astype(f"{value.dtype.name.partition('[')[0]}[us]").tolist()
    if library == "pandas" and callable(getattr(value, "to_dict", None)):
        return value.to_dict("records") if kind.__name__ == "DataFrame" else value.tolist()
    for method in ("model_dump", "tolist", "numpy"):  # pydantic; numpy, torch, pandas; TensorFlow
        convert = getattr(value, method, None)
        if callable(convert) and not isinstance(value, type):
            return convert()
    raise NoAnswer(
        f"predict() answered a {kind.__module__}.{kind.__qualname__}, which JSON cannot hold. "
        "Answer a DataFrame, an array, a list, a dict, text or numbers, or name an output_adapter in @api(...)."
    )


def _text(value: bytes) -> Any:
    """Bytes inside of JSON: as text, or as {"b64": ...}, as TensorFlow Serving has it."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value; send null")
