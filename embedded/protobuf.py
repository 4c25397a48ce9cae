"""Request bodies in Kubernetes' protobuf, which kubectl sends for built-in kinds (`kubectl create namespace`).

A body is `k8s\\0` and a `runtime.Unknown`: apiVersion, kind, and the object as bytes. Field numbers are in
`protobuf.json` (made by `embedded.generate_protobuf`): `{message: {number: [JSON name, type]}}`. A type is `string`,
`bytes`, `bool`, `int`, `double` or a message, with `[]` in front of lists, `{}` in front of maps from strings, and `~`
in front of a message whose fields JSON has one level higher. Only decoding is needed: clients accept JSON in answers.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from embedded.errors import bad_request
from embedded.kinds import definitions

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"

_MAGIC = b"k8s\0"
_MAX_DEPTH = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."

Table = dict[str, dict[str, tuple[str, str]]]
Field = tuple[int, int | bytes]


def decode(body: bytes) -> dict[str, Any]:
    """The object in a protobuf body. Raises StatusError (400) where it cannot be read."""
    if not body.startswith(_MAGIC):
        raise bad_request("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    try:
        envelope = dict(_fields(body[len(_MAGIC) :]))
        type_meta = dict(_fields(_bytes(envelope.get(1, b""))))
        api_version, kind = _text(type_meta.get(1, b"")), _text(type_meta.get(2, b""))
        message = _messages().get((api_version, kind))
        if message is None:
            raise bad_request(f'no kind "{kind}" is registered for version "{api_version}" here')
        obj = _message(message, _bytes(envelope.get(2, b"")), 0)
    except (ValueError, IndexError, struct.error) as error:
        raise bad_request(f"the protobuf body cannot be read: {error}") from None
    return {"apiVersion": api_version, "kind": kind, **obj}


@cache
def _table() -> Table:
    table: Table = orjson.loads((Path(__file__).parent / "protobuf.json").read_bytes())
    return table


@cache
def _messages() -> dict[tuple[str, str], str]:
    """Messages by apiVersion and kind."""
    found: dict[tuple[str, str], str] = {}
    for name, schema in definitions().items():
        for kind in schema.get("x-kubernetes-group-version-kind", ()):
            version = f"{kind['group']}/{kind['version']}" if kind["group"] else kind["version"]
            if name in _table():
                found[version, kind["kind"]] = name
    return found


def _message(name: str, data: bytes, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested deeper than {_MAX_DEPTH} levels")
    special = _SPECIAL.get(name)
    if special is not None:
        return special(dict(_fields(data)))
    fields = _table()[name]
    result: dict[str, Any] = {}
    for number, raw in _fields(data):
        field = fields.get(str(number))
        if field is None:
            continue  # of a newer client; protobuf has no strict decoding
        key, kind = field
        if kind.startswith("[]"):
            result.setdefault(key, []).append(_value(kind[2:], raw, depth))
        elif kind.startswith("{}"):
            entry = dict(_fields(_bytes(raw)))
            result.setdefault(key, {})[_text(entry.get(1, b""))] = _value(kind[2:], entry.get(2, b""), depth)
        elif kind.startswith("~"):
            result.update(_value(kind[1:], raw, depth))
        else:
            result[key] = _value(kind, raw, depth)
    return result


def _value(kind: str, raw: int | bytes, depth: int) -> Any:
    match kind:
        case "string":
            return _text(raw)
        case "bytes":
            return base64.b64encode(_bytes(raw)).decode()
        case "bool":
            return bool(raw)
        case "int":
            return _signed(raw)
        case "double":
            return struct.unpack("<d", _bytes(raw))[0]
    return _message(kind, _bytes(raw), depth + 1)


def _fields(data: bytes) -> Iterator[Field]:
    """Number and raw value of each field: an int, or bytes."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        match tag & 7:
            case 0:
                value, position = _varint(data, position)
                yield tag >> 3, value
                continue
            case 1:
                length = 8
            case 2:
                length, position = _varint(data, position)
            case 5:
                length = 4
            case wire_type:
                raise ValueError(f"wire type {wire_type}")
        end = position + length
        if end > len(data):
            raise ValueError("it ends too early")
        yield tag >> 3, data[position:end]
        position = end


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _signed(raw: int | bytes) -> int:
    if not isinstance(raw, int):
        raise ValueError("bytes where a number should be")
    return raw - (1 << 64) if raw >= 1 << 63 else raw


def _bytes(raw: int | bytes) -> bytes:
    if not isinstance(raw, bytes):
        raise ValueError("a number where bytes should be")
    return raw


def _text(raw: int | bytes) -> str:
    return _bytes(raw).decode()


def _time(fields: dict[int, int | bytes]) -> str | None:
    if not fields:
        return None
    return (_EPOCH + timedelta(seconds=_signed(fields.get(1, 0)))).strftime("%Y-%m-%dT%H:%M:%SZ")


def _micro_time(fields: dict[int, int | bytes]) -> str | None:
    if not fields:
        return None
    moment = _EPOCH + timedelta(seconds=_signed(fields.get(1, 0)), microseconds=_signed(fields.get(2, 0)) // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _int_or_string(fields: dict[int, int | bytes]) -> int | str:
    return _text(fields.get(3, b"")) if fields.get(1, 0) else _signed(fields.get(2, 0))


def _json(fields: dict[int, int | bytes]) -> Any:
    raw = _bytes(fields.get(1, b""))
    return orjson.loads(raw) if raw else None


# Messages that are something simpler in JSON.
_SPECIAL: dict[str, Callable[[dict[int, int | bytes]], Any]] = {
    f"{_META}Time": _time,
    f"{_META}MicroTime": _micro_time,
    f"{_META}FieldsV1": _json,
    "io.k8s.apimachinery.pkg.runtime.RawExtension": _json,
    "io.k8s.apimachinery.pkg.api.resource.Quantity": lambda fields: _text(fields.get(1, b"")),
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": _int_or_string,
}
