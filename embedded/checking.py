"""Why a value does not fit its schema, in the words of the API server."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

from embedded.cel import CelRuntimeError, Rule
from embedded.schema import ABSENT, Cause, Rules, Schema, fits, go_value, list_key, quote

_JSON_NAMES = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}

# Required by OpenAPI, yet the empty string is a value there.
_MAY_BE_BLANK = frozenset({"value", "message", "reason", "resource", "identity", "holderIdentity", "apiGroup"})

# After one of these the rules of x-kubernetes-validations would only add noise.
_BLOCKING = frozenset(
    {"FieldValueRequired", "FieldValueNotSupported", "FieldValueTypeInvalid", "FieldValueTooLong", "FieldValueTooMany"}
)
_NOT_CHECKED = (
    "some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation"
)

_DATE_TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})t([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(z|[+-]\d{2}:\d{2})", re.ASCII | re.IGNORECASE
)


def check(schema: Schema, obj: Any, old: Any = ABSENT, path: str = "") -> list[Cause]:
    """Why the value does not fit the schema; empty when it does. `old` is the stored value.

    What a custom kind stored before and has not changed is not refused now, though the schema may have become
    stricter since.
    """
    walk = _Check()
    walk.value(schema, obj, old, path)
    if schema.has_cel:
        if any(cause.reason in _BLOCKING for cause in walk.causes):
            walk.causes.append(Cause("<nil>", "FieldValueInvalid", f"Invalid value: null: {_NOT_CHECKED}"))
        else:
            walk.rules(schema, obj, old, path)
    return walk.causes


class _Check:
    """Collects the causes. Paths are texts: `spec.containers[0].name`."""

    def __init__(self) -> None:
        self.causes: list[Cause] = []

    # types, required fields, limits

    def value(self, schema: Schema, value: Any, old: Any, path: str) -> None:
        if value is None:
            if not schema.nullable and not schema.built_in and (schema.type or schema.int_or_string):
                self.causes.append(_type_cause(schema, value, path))
            return
        if not schema.built_in and old is not ABSENT and old == value:
            return
        if not fits(schema, value):
            self.causes.append(_type_cause(schema, value, path))
            return
        if schema.rules is not None:
            self.limits(schema.rules, value, old, path)
        if isinstance(value, dict):
            self.fields(schema, value, old if isinstance(old, dict) else {}, path)
        elif isinstance(value, list):
            self.elements(schema, value, old, path)

    def fields(self, schema: Schema, value: dict[str, Any], old: dict[str, Any], path: str) -> None:
        for name in schema.required:
            held = value.get(name, ABSENT)
            if held is ABSENT or (schema.built_in and (held is None or (held == "" and name not in _MAY_BE_BLANK))):
                self.causes.append(Cause(_join(path, name), "FieldValueRequired", "Required value"))
        for key, child in value.items():
            sub = schema.properties.get(key)
            if sub is None:
                if schema.additional is not None:
                    where = f"{path}[{key}]" if schema.built_in else f"{path}.{key}"
                    self.value(schema.additional, child, old.get(key, ABSENT), where)
            elif schema.built_in and child == "":
                continue  # a blank enum is a missing one; "required" has said so
            elif sub.rules is not None or type(child) is not str or sub.type != "string":
                self.value(sub, child, old.get(key, ABSENT), _join(path, key))

    def elements(self, schema: Schema, value: list[Any], old: Any, path: str) -> None:
        if schema.items is not None:
            previous = _by_key(schema, old)
            for index, child in enumerate(value):
                held = previous.get(list_key(schema, child), ABSENT) if previous else ABSENT
                self.value(schema.items, child, held, f"{path}[{index}]")
        if schema.list_type == "atomic" or schema.built_in:
            return  # built-in kinds have rules of their own: `env` may repeat a name
        seen = set()
        for index, item in enumerate(value):
            key = list_key(schema, item)
            if key and key in seen:
                self.causes.append(Cause(f"{path}[{index}]", "FieldValueDuplicate", f"Duplicate value: {key[2:]}"))
            seen.add(key)

    def limits(self, rules: Rules, value: Any, old: Any, path: str) -> None:
        if rules.enum and value not in rules.enum:
            supported = ", ".join(go_value(item) for item in rules.enum)
            message = f"Unsupported value: {go_value(value)}: supported values: {supported}"
            self.causes.append(Cause(path, "FieldValueNotSupported", message))
        if isinstance(value, str):
            self.text(rules, value, path)
        elif isinstance(value, list):
            self.size(len(value), rules.min_items, rules.max_items, "items", path)
        elif isinstance(value, dict):
            self.size(len(value), rules.min_properties, rules.max_properties, "properties", path)
        elif not isinstance(value, bool):
            self.number(rules, value, path)
        self.branches(rules, value, old, path)

    def invalid(self, path: str, shown: str, text: str) -> None:
        self.causes.append(Cause(path, "FieldValueInvalid", f"Invalid value: {shown}: {path} in body {text}"))

    def text(self, rules: Rules, value: str, path: str) -> None:
        if rules.max_length is not None and len(value) > rules.max_length:
            message = f"Too long: may not be more than {rules.max_length} bytes"
            self.causes.append(Cause(path, "FieldValueTooLong", message))
        if rules.min_length is not None and len(value) < rules.min_length:
            self.invalid(path, quote(value), f"should be at least {rules.min_length} chars long")
        if rules.matches is not None and rules.matches.search(value) is None:
            self.invalid(path, quote(value), f"should match '{rules.pattern}'")
        if rules.date_time and not _is_date_time(value):
            shown = quote(value)
            message = f"Invalid value: {shown}: {path} in body must be of type date-time: {shown}"
            self.causes.append(Cause(path, "FieldValueTypeInvalid", message))

    def size(self, size: int, least: int | None, most: int | None, what: str, path: str) -> None:
        if most is not None and size > most:
            message = f"Too many: {size}: must have at most {most} items"
            self.causes.append(Cause(path, "FieldValueTooMany", message))
        if least is not None and size < least:
            self.invalid(path, str(size), f"should have at least {least} {what}")

    def number(self, rules: Rules, value: float, path: str) -> None:
        least, most, step = rules.minimum, rules.maximum, rules.multiple_of
        if least is not None and (value < least or (rules.exclusive_minimum and value == least)):
            or_equal = "" if rules.exclusive_minimum else "or equal to "
            self.invalid(path, go_value(value), f"should be greater than {or_equal}{_number(least)}")
        if most is not None and (value > most or (rules.exclusive_maximum and value == most)):
            or_equal = "" if rules.exclusive_maximum else "or equal to "
            self.invalid(path, go_value(value), f"should be less than {or_equal}{_number(most)}")
        if step is not None and value % step:
            self.invalid(path, go_value(value), f"should be a multiple of {_number(step)}")

    def branches(self, rules: Rules, value: Any, old: Any, path: str) -> None:
        for branch in rules.all_of:
            self.value(branch, value, old, path)
        if rules.any_of and all(check(branch, value, path=path) for branch in rules.any_of):
            self.invalid(path, _shown(value), "must validate at least one schema (anyOf)")
        if rules.one_of and sum(not check(branch, value, path=path) for branch in rules.one_of) != 1:
            self.invalid(path, _shown(value), "must validate one and only one schema (oneOf)")
        if rules.not_ is not None and not check(rules.not_, value, path=path):
            self.invalid(path, _shown(value), "must not validate the schema (not)")

    # x-kubernetes-validations

    def rules(self, schema: Schema, value: Any, old: Any, path: str) -> None:
        """The rules of the node and of everything below it.

        Unchanged values pass, except that rules which compare old and new always run where there is an old value.
        """
        if value is None or not schema.has_cel:
            return
        for rule in schema.rules.cel if schema.rules is not None else ():
            if (old is not ABSENT) if rule.transition else (old is ABSENT or old != value):
                self.rule(rule, schema, value, old, path)
        if isinstance(value, dict):
            old_map = old if isinstance(old, dict) else {}
            for key, child in value.items():
                sub = schema.properties.get(key, schema.additional)
                if sub is not None and sub.has_cel:
                    self.rules(sub, child, old_map.get(key, ABSENT), _join(path, key))
        elif isinstance(value, list) and schema.items is not None and schema.items.has_cel:
            previous = _by_key(schema, old)
            for index, child in enumerate(value):
                held = previous.get(list_key(schema, child), ABSENT) if previous else ABSENT
                self.rules(schema.items, child, held, f"{path}[{index}]")

    def rule(self, rule: Rule, schema: Schema, value: Any, old: Any, path: str) -> None:
        try:
            refusal = rule.refusal(value, None if old is ABSENT else old)
        except CelRuntimeError as error:
            message = f"{quote(schema.type or 'any')}: {error} evaluating rule: {rule.message or rule.text}"
            self.causes.append(Cause(path or "<nil>", "FieldValueInvalid", f"Invalid value: {message}"))
            return
        if refusal is not None:
            where = f"{path}{rule.field_path}".removeprefix(".") or "<nil>"
            self.causes.append(_rule_cause(rule, value, refusal, where))


def _rule_cause(rule: Rule, value: Any, refusal: str, path: str) -> Cause:
    if rule.reason == "FieldValueForbidden":
        return Cause(path, rule.reason, f"Forbidden: {refusal}")
    if rule.reason == "FieldValueRequired":
        return Cause(path, rule.reason, f"Required value: {refusal}")
    if rule.reason == "FieldValueDuplicate":
        return Cause(path, rule.reason, f"Duplicate value: {go_value(value)}")
    # of maps and lists the server shows nothing: they would drown the message
    shown = "" if isinstance(value, dict | list) else f"{go_value(value)}: "
    return Cause(path, "FieldValueInvalid", f"Invalid value: {shown}{refusal}")


def _type_cause(schema: Schema, value: Any, path: str) -> Cause:
    wanted = "integer or string" if schema.int_or_string else schema.type
    name, where = quote(_JSON_NAMES[type(value)]), path or "<nil>"
    message = f"Invalid value: {name}: {where} in body must be of type {wanted}: {name}"
    return Cause(where, "FieldValueTypeInvalid", message)


def _is_date_time(text: str) -> bool:
    """The server's reading of RFC 3339: no leap seconds, and any two digits in the offset."""
    found = _DATE_TIME.fullmatch(text)
    if found is None:
        return False
    try:
        date.fromisoformat(found[1])
    except ValueError:
        return False
    return True


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _shown(value: Any) -> str:
    return quote(_JSON_NAMES[type(value)]) if isinstance(value, dict | list) else go_value(value)


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


def _by_key(schema: Schema, items: Any) -> dict[str, Any]:
    if schema.list_type == "atomic" or not isinstance(items, list):
        return {}
    return {list_key(schema, item): item for item in items}
