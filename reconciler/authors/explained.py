"""The documentation of a field, as people and programs read it. Pure."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any

from reconciler.authors.fields import Field

Data = dict[str, Any]


def as_data(field: Field, *, recursive: bool = False) -> Data:
    """For programs. `fields` has those below it; with `recursive`, each of these has `fields` of its own."""
    return {**_facts(field), "fields": [_below(child, recursive=recursive) for child in field.fields]}


def text(field: Field, *, recursive: bool = False, width: int) -> Iterator[str]:
    """For people: what it is, what it may be, and the fields below it."""
    yield f"{'.'.join(field.path)}  {_kind(field)}"
    yield ""
    yield from _paragraph(field.description, "  ", width)
    facts = {
        "default": _written(field.default) if field.has_default else "",
        "unit": field.unit,
        "limits": "; ".join(field.limits),
        "example": "  or  ".join(map(_written, field.examples)),
    }
    given = {name: value for name, value in facts.items() if value}
    if given:
        yield ""
    for name, value in given.items():
        yield from _paragraph(value, f"  {name:<9}", width)
    if field.fields:
        yield ""
        yield "Fields:"
        yield from _fields(field, 2, recursive=recursive, width=width)


def _fields(field: Field, indent: int, *, recursive: bool, width: int) -> Iterator[str]:
    blanks = " " * indent
    for child in field.fields:
        default = f", default {_written(child.default)}" if child.has_default and child.default != "" else ""
        unit = f", in {child.unit}" if child.unit else ""
        yield f"{blanks}{child.name}  {_kind(child)}{unit}{default}"
        if recursive:
            yield from _fields(child, indent + 2, recursive=True, width=width)
        else:
            yield from _paragraph(child.description, f"{blanks}    ", width)


def _kind(field: Field) -> str:
    marks = ["required"] * field.required + ["another spelling"] * field.deprecated
    return f"<{', '.join([field.type, *marks])}>"


def _below(field: Field, *, recursive: bool) -> Data:
    return as_data(field, recursive=True) if recursive else _facts(field)


def _facts(field: Field) -> Data:
    return {
        "path": ".".join(field.path),
        "name": field.name,
        "type": field.type,
        "required": field.required,
        "default": field.default,
        "unit": field.unit or None,
        "limits": list(field.limits),
        "description": field.description,
        "examples": list(field.examples),
    }


def _written(value: Any) -> str:
    """A value as it could stand in a spec."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return value or '""'


def _paragraph(words: str, before: str, width: int) -> list[str]:
    after = " " * len(before)
    # No narrower than a word needs, and no wider than people read.
    return textwrap.wrap(
        words,
        width=min(max(width, 40), 120),
        initial_indent=before,
        subsequent_indent=after,
        break_long_words=False,
        break_on_hyphens=False,
    )
