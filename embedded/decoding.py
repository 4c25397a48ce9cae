"""What reading a request body finds before any rule is looked at: unknown fields, wrong JSON types, unreadable
quantities and times."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from embedded.quantity import parse_quantity
from embedded.schema import ANY, Schema, fits, quote


class WrongType(NamedTuple):
    """A value of a JSON type that its field cannot hold."""

    path: tuple[str | int, ...]
    expected: Schema
    value: Any
    struct: str  # the struct that has the field, as decoding messages name it


class Decoded(NamedTuple):
    """What decoding finds before any rule is looked at."""

    unknown: list[str]  # `unknown field "spec.foo"`
    wrong: list[WrongType]
    unreadable: list[str]  # quantities and times that cannot be parsed


_GO_JSON = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}
_GO_TYPES = {"string": "string", "boolean": "bool", "number": "float64", "integer": "int32"}
_TYPE_META = frozenset({"apiVersion", "kind", "metadata"})


def decode(schema: Schema, obj: Any) -> Decoded:
    """One walk for what strict decoding complains of, and for what no decoding can read. Null is fine everywhere."""
    found = Decoded([], [], [])
    _decode(schema, obj, (), schema.name, found)
    return found


def _decode(schema: Schema, value: Any, path: tuple[str | int, ...], struct: str, found: Decoded) -> None:
    if value is None:
        return
    if not fits(schema, value):
        found.wrong.append(WrongType(path, schema, value, struct))
        return
    if isinstance(value, dict):
        for key, child in value.items():
            sub = schema.properties.get(key, schema.additional)
            if sub is None:
                if not schema.preserve_unknown and not (schema.embedded and key in _TYPE_META):
                    found.unknown.append(f'unknown field "{dotted((*path, key))}"')
            elif type(child) is not str or sub.type != "string" or sub.codec:
                _decode(sub, child, (*path, key), schema.name or struct, found)
    elif isinstance(value, list):
        if schema.items is not None:
            for index, child in enumerate(value):
                _decode(schema.items, child, (*path, index), struct, found)
    elif schema.codec and (problem := _unreadable(schema.codec, value)):
        found.unreadable.append(problem)


def dotted(path: tuple[str | int, ...]) -> str:
    """`spec.containers[0].image`"""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def json_error(wrong: WrongType) -> str:
    """How decoding a request body words it: `json: cannot unmarshal string into Go struct field
    DeploymentSpec.spec.replicas of type int32`."""
    where = ".".join(part for part in wrong.path if isinstance(part, str))
    if where.rpartition(".")[0].endswith(("labels", "annotations", "matchLabels", "nodeSelector", "data")):
        where = where.rpartition(".")[0]
    shown = f"number {wrong.value}" if isinstance(wrong.value, float) else _GO_JSON[type(wrong.value)]
    return (
        f"json: cannot unmarshal {shown} into Go struct field {wrong.struct}.{where} of type {_go_type(wrong.expected)}"
    )


def _go_type(schema: Schema) -> str:
    if schema.int_or_string:
        return "int32"
    if schema.type == "integer":
        return schema.format or "int32"
    if schema.type == "array":
        return f"[]{_go_type(schema.items or ANY)}"
    if schema.type == "object":
        return f"v1.{schema.name}" if schema.name else f"map[string]{_go_type(schema.additional or ANY)}"
    return _GO_TYPES.get(schema.type, "interface {}")


def _unreadable(codec: str, value: Any) -> str:
    if codec == "quantity":
        try:
            parse_quantity(value)
        except ValueError as error:
            return str(error)
        return ""
    if codec == "base64":
        return _base64_problem(value)
    layout = "2006-01-02T15:04:05.000000Z07:00" if codec == "microtime" else "2006-01-02T15:04:05Z07:00"
    if not isinstance(value, str):
        return f"json: cannot unmarshal {_GO_JSON[type(value)]} into Go value of type string"
    match = _RFC3339.fullmatch(value)
    if match is None:
        return f'parsing time {quote(value)} as "{layout}": cannot parse {quote(value)} as "2006"'
    if codec == "microtime" and not match["fraction"]:
        return f'parsing time {quote(value)} as "{layout}": cannot parse {quote(match["zone"])} as ".000000"'
    return ""


def _base64_problem(value: Any) -> str:
    text = value.replace("\n", "").replace("\r", "") if isinstance(value, str) else ""
    good = _BASE64.match(text)
    assert good is not None  # the pattern matches the empty text
    return f"illegal base64 data at input byte {good.end()}" if good.end() != len(text) else ""


_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?P<fraction>\.\d+)?(?P<zone>Z|[+-]\d\d:\d\d)", re.ASCII)


def prune(schema: Schema, obj: Any) -> None:
    """Drop, in place, what the schema does not know (fieldValidation Ignore and Warn, and everything in storage)."""
    if isinstance(obj, dict):
        properties, additional = schema.properties, schema.additional
        for key in list(obj):
            sub = properties.get(key, additional)
            if sub is not None:
                prune(sub, obj[key])
            elif not schema.preserve_unknown and not (schema.embedded and key in _TYPE_META):
                del obj[key]
    elif isinstance(obj, list) and schema.items is not None:
        for child in obj:
            prune(schema.items, child)
