"""What the server fills in and leaves out, as far as the schema says it.

Built-in kinds live in Go structs on a real server, custom kinds in plain maps. The difference shows on the wire: a
struct has no nulls, leaves out some zero values and always has its nested structs. `normalise` does that for built-in
kinds, `set_defaults` is for custom ones.
"""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

from embedded.quantity import canonical_quantity
from embedded.schema import Schema

_SCALARS = frozenset({str, int, float, bool})


def set_defaults(schema: Schema, obj: Any) -> None:
    """Fill in, in place, the defaults that a custom kind's schema states. A null that may not be null counts as
    absent."""
    if isinstance(obj, dict):
        properties, additional = schema.properties, schema.additional
        nulls = [
            key
            for key, value in obj.items()
            if value is None and (sub := properties.get(key)) is not None and not sub.nullable and sub.type
        ]
        for key in nulls:
            del obj[key]
        for name, child in schema.filled:
            if name not in obj:
                obj[name] = deepcopy(child.default)
        for key, value in obj.items():
            if type(value) in _SCALARS:
                continue
            sub = properties.get(key, additional)
            if sub is not None:
                set_defaults(sub, value)
    elif isinstance(obj, list) and schema.items is not None:
        for child in obj:
            set_defaults(schema.items, child)


def normalise(schema: Schema, obj: Any) -> None:
    """What a round trip through the server's own types does to an object of a built-in kind, in place.

    Nulls go (but where the server writes one), zero values of optional fields go (`env: []`, `hostPort: 0`), nested
    structs and stated defaults come (`resources: {}`, `protocol: TCP`), whole floats become integers, and quantities
    and times get the server's spelling.
    """
    if isinstance(obj, dict):
        _normalise_fields(schema, obj)
        for name, child in schema.filled:
            if name not in obj:
                obj[name] = {} if child.type == "object" else child.default
                normalise(child, obj[name])
        for name in schema.nulls:
            obj.setdefault(name, None)
    elif isinstance(obj, list) and schema.items is not None:
        items = schema.items
        if items.properties or items.items or items.additional:
            for child in obj:
                normalise(items, child)


def _normalise_fields(schema: Schema, obj: dict[str, Any]) -> None:
    properties, additional = schema.properties, schema.additional
    dropped = []
    for key, value in obj.items():
        sub = properties.get(key, additional)
        if sub is None:
            continue
        if value is None:
            if sub is additional and sub.type == "string":
                obj[key] = ""  # a null in a map of strings is the empty string
            elif not sub.never_absent:
                dropped.append(key)
        elif not value and sub.omit_empty:
            dropped.append(key)
        elif type(value) is dict or type(value) is list:
            normalise(sub, value)
        elif sub.codec:
            obj[key] = _spell("milli" if sub is additional and sub.codec == "quantity" else sub.codec, value)
        elif type(value) is float and sub.type == "integer":
            obj[key] = int(value)
    for key in dropped:
        del obj[key]


def _spell(codec: str, value: Any) -> Any:
    """The server's one spelling of a quantity or a time; what it cannot read stays as it is, for validation to name."""
    if codec == "quantity":
        return canonical_quantity(value)
    if codec == "base64":
        return value
    if codec == "milli":  # resource lists are kept to milli units
        return canonical_quantity(value, finest=-3)
    try:
        moment = datetime.fromisoformat(value).astimezone(UTC)
    except (TypeError, ValueError):
        return value
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if codec == "microtime" else "%Y-%m-%dT%H:%M:%SZ")
