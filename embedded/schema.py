"""Structural schemas of Kubernetes objects, compiled once: types, required fields, limits, and how lists merge.

A schema comes from OpenAPI v3 with the `x-kubernetes-*` extensions, either from `embedded/definitions/` (built-in
kinds) or from a CustomResourceDefinition. `embedded.decoding`, `defaulting` and `checking` walk values by it.
Everything here is pure: no clock, no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from embedded.cel import Rule, compile_rule
from embedded.patterns import go_pattern


class Cause(NamedTuple):
    """One reason why an object is refused, as in `Status.details.causes`.

    `field` is a path such as `spec.containers[0].name`; `reason` one of FieldValueInvalid, FieldValueRequired,
    FieldValueNotSupported, FieldValueDuplicate, FieldValueForbidden, FieldValueTypeInvalid, FieldValueTooLong,
    FieldValueTooMany; `message` the text without the field (`Required value`, `Invalid value: -1: must be greater
    than or equal to 0`). `str(cause)` is `field: message`.
    """

    field: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class _Absent:
    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()


@dataclass(slots=True, eq=False)
class Schema:
    """One node of a compiled schema. `type` is "" where any value is allowed. Written to by `compile_schema` only."""

    type: str = ""  # object | array | string | integer | number | boolean | ""
    format: str = ""
    properties: dict[str, Schema] = field(default_factory=dict)
    additional: Schema | None = None
    items: Schema | None = None
    list_type: str = "atomic"  # atomic | set | map
    map_keys: tuple[str, ...] = ()
    atomic_map: bool = False
    patch_strategy: frozenset[str] = frozenset()
    patch_key: str = ""
    required: tuple[str, ...] = ()
    default: Any = ABSENT
    int_or_string: bool = False
    preserve_unknown: bool = False
    embedded: bool = False  # x-kubernetes-embedded-resource: apiVersion, kind and metadata are known there
    nullable: bool = False
    omit_empty: bool = False  # zero values are left out of what the server stores
    never_absent: bool = False  # the server writes null rather than nothing
    codec: str = ""  # quantity | time | microtime | base64: scalars that the server spells in one way
    name: str = ""  # of the definition: Container
    nulls: tuple[str, ...] = ()  # the properties that are never absent
    built_in: bool = False
    filled: tuple[tuple[str, Schema], ...] = ()  # the properties that have a default
    rules: Rules | None = None  # None: nothing beyond the type to check
    has_cel: bool = False  # here or below there are x-kubernetes-validations


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """The value validations of one node."""

    enum: tuple[Any, ...] = ()
    pattern: str = ""
    matches: re.Pattern[str] | None = None
    min_length: int | None = None
    max_length: int | None = None
    date_time: bool = False
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: bool = False
    exclusive_maximum: bool = False
    multiple_of: float | None = None
    min_items: int | None = None
    max_items: int | None = None
    min_properties: int | None = None
    max_properties: int | None = None
    all_of: tuple[Schema, ...] = ()
    any_of: tuple[Schema, ...] = ()
    one_of: tuple[Schema, ...] = ()
    not_: Schema | None = None
    cel: tuple[Rule, ...] = ()


ANY: Final = Schema(preserve_unknown=True)


def compile_schema(node: Mapping[str, Any], definitions: Mapping[str, Any] | None = None) -> Schema:
    """Compile an OpenAPI v3 schema; a `$ref` is a key of `definitions`. With definitions, it is a built-in kind's
    schema."""
    return _Compiler(definitions).compile(node)


_CODECS = {
    "Quantity": "quantity",
    "Time": "time",
    "MicroTime": "microtime",
}  # by definition; the format "byte" is one more


class _Compiler:
    def __init__(self, definitions: Mapping[str, Any] | None) -> None:
        self.definitions = definitions or {}
        self.built_in = definitions is not None
        self.by_ref: dict[str, Schema] = {}

    def compile(self, node: Mapping[str, Any]) -> Schema:
        ref = node.get("$ref")
        if ref is None:
            return self._fill(Schema(), node)
        target = self.definitions[ref]
        own = {key: value for key, value in node.items() if key != "$ref"}
        name = ref.rpartition(".")[2]
        if own:  # siblings of $ref (default, patch strategy) belong to this place only; recursive definitions have none
            return self._fill(Schema(codec=_CODECS.get(name, ""), name=name), {**target, **own})
        if ref not in self.by_ref:
            self.by_ref[ref] = Schema(
                codec=_CODECS.get(name, ""), name=name
            )  # registered before it is filled: definitions may be recursive
            self._fill(self.by_ref[ref], target)
        return self.by_ref[ref]

    def _fill(self, schema: Schema, node: Mapping[str, Any]) -> Schema:
        one_of_scalars = {child.get("type") for child in node.get("oneOf", ())} in (
            {"integer", "string"},
            {"string", "number"},
        )
        schema.int_or_string = bool(node.get("x-kubernetes-int-or-string")) or (self.built_in and one_of_scalars)
        schema.type = "" if schema.int_or_string else node.get("type", "")
        schema.format = node.get("format", "")
        if self.built_in and schema.format == "byte":
            schema.codec = "base64"
        schema.properties.update((name, self.compile(child)) for name, child in node.get("properties", {}).items())
        if isinstance(additional := node.get("additionalProperties"), Mapping):
            schema.additional = self.compile(additional)
        elif additional:
            schema.additional = ANY
        if "items" in node:
            schema.items = self.compile(node["items"])
        schema.list_type = node.get("x-kubernetes-list-type", "atomic")
        schema.map_keys = tuple(sorted(node.get("x-kubernetes-list-map-keys", ())))
        schema.atomic_map = node.get("x-kubernetes-map-type") == "atomic"
        schema.patch_strategy = frozenset(filter(None, node.get("x-kubernetes-patch-strategy", "").split(",")))
        schema.patch_key = node.get("x-kubernetes-patch-merge-key", "")
        schema.required = tuple(node.get("required", ()))
        schema.default = node.get("default", ABSENT)
        schema.preserve_unknown = bool(node.get("x-kubernetes-preserve-unknown-fields")) or (
            self.built_in
            and node.get("type") in (None, "object")
            and not schema.properties
            and schema.additional is None
        )
        schema.embedded = bool(node.get("x-kubernetes-embedded-resource"))
        schema.nullable = bool(node.get("nullable"))
        schema.omit_empty = bool(node.get("x-omit-empty"))
        schema.never_absent = bool(node.get("x-never-absent"))
        schema.built_in = self.built_in
        schema.filled = tuple((name, child) for name, child in schema.properties.items() if child.default is not ABSENT)
        schema.nulls = tuple(name for name, child in schema.properties.items() if child.never_absent)
        schema.rules = self._rules(node)
        below = (*schema.properties.values(), *filter(None, (schema.additional, schema.items)))
        schema.has_cel = (schema.rules is not None and bool(schema.rules.cel)) or any(child.has_cel for child in below)
        return schema

    def _rules(self, node: Mapping[str, Any]) -> Rules | None:
        def number(name: str) -> Any:
            return node.get(name)

        def branches(name: str) -> tuple[Schema, ...]:
            # oneOf [string, integer] of a built-in int-or-string says the type once more
            return () if self.built_in else tuple(self.compile(child) for child in node.get(name, ()))

        cel = () if self.built_in else tuple(compile_rule(rule) for rule in node.get("x-kubernetes-validations", ()))
        rules = Rules(
            enum=tuple(node.get("enum", ())),
            pattern=node.get("pattern", ""),
            matches=go_pattern(node["pattern"]) if "pattern" in node else None,
            min_length=number("minLength"),
            max_length=number("maxLength"),
            date_time=node.get("format") == "date-time" and not self.built_in,
            minimum=number("minimum"),
            maximum=number("maximum"),
            exclusive_minimum=bool(node.get("exclusiveMinimum")),
            exclusive_maximum=bool(node.get("exclusiveMaximum")),
            multiple_of=number("multipleOf"),
            min_items=number("minItems"),
            max_items=number("maxItems"),
            min_properties=number("minProperties"),
            max_properties=number("maxProperties"),
            all_of=branches("allOf"),
            any_of=branches("anyOf"),
            one_of=branches("oneOf"),
            not_=self.compile(node["not"]) if "not" in node and not self.built_in else None,
            cel=cel,
        )
        empty = Rules()
        return None if all(getattr(rules, name) == getattr(empty, name) for name in Rules.__slots__) else rules


def fits(schema: Schema, value: Any) -> bool:
    """The value has a JSON type that the schema allows."""
    kind = schema.type
    if kind == "string":
        return isinstance(value, str)
    if kind == "integer":
        return (isinstance(value, int) and not isinstance(value, bool)) or (
            isinstance(value, float) and value.is_integer()
        )
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "object":
        return isinstance(value, dict)
    if kind == "array":
        return isinstance(value, list)
    if schema.int_or_string:
        return isinstance(value, str | int | float) and not isinstance(value, bool)
    return True


def list_key(schema: Schema, item: Any) -> str:
    """Which element this is: the path element of FieldsV1, `k:{"name":"a"}` in a list-map, `v:"a"` in a set. "" where
    it has none.

    A key that is missing counts with its default (`protocol: TCP`); one without a default is left out.
    """
    if schema.list_type == "set":
        return (
            "v:" + orjson.dumps(item, option=orjson.OPT_SORT_KEYS).decode()
            if not isinstance(item, dict | list) and item is not None
            else ""
        )
    if not isinstance(item, dict) or schema.items is None:
        return ""
    keys = {}
    for name in schema.map_keys:
        if name in item:
            keys[name] = item[name]
        elif (sub := schema.items.properties.get(name)) is not None and sub.default is not ABSENT:
            keys[name] = sub.default
    return "k:" + orjson.dumps(keys).decode() if keys else ""


def go_value(value: Any) -> str:
    """The value as the server's messages print it."""
    if isinstance(value, str):
        return quote(value)
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def quote(text: str) -> str:
    """Go's %q for the characters that matter in names and values."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t") + '"'


def go_syntax(value: Any) -> str:
    """The value as Go's %v prints it."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{go_syntax(child)}" for key, child in sorted(value.items())) + "]"
    if isinstance(value, list):
        return "[" + " ".join(go_syntax(child) for child in value) + "]"
    return "<nil>" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
