"""Specs -> YAML as people would write it: block style, quotes where they are needed, comments where something is said.

A value is what JSON can say, or one of these: `Noted` (a value, and a comment above it), `Lost` (a comment where a
value should be), `Name` (what something is called, which is decided when all is read).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from reconciler.importing.naming import Name
from reconciler.report.quoted_yaml import quoted
from schemas.document import KINDS
from schemas.scalar import meaning

#: Every comment of an import begins so: `grep -r "# import:"` finds what is left to look at.
MARK = "# import:"


class Noted(NamedTuple):
    """A value, and what there is to say about it."""

    value: Any
    comment: str


class Lost(NamedTuple):
    """What could not be known. The comment stands in its place."""

    comment: str


class Item(NamedTuple):
    """One spec: its kind ("audiences"), what is said above it, and its fields in order."""

    kind: str
    comments: tuple[str, ...]
    fields: Mapping[str, Any]


def document(items: Iterable[Item], name_of: Callable[[Name], str]) -> str:
    """One document with these specs, the kinds in the order of the language."""
    by_kind: dict[str, list[Item]] = {}
    for item in items:
        by_kind.setdefault(item.kind, []).append(item)
    lines = ["api_version: v1", "spec:"]
    for kind in KINDS:
        if kind in by_kind:
            lines.append(f"  {kind}:")
            for item in by_kind[kind]:
                lines += [f"    {line}" for line in _item(item, name_of)]
    return "".join(f"{line}\n" for line in lines)


def _item(item: Item, name_of: Callable[[Name], str]) -> Iterator[str]:
    for comment in item.comments:
        yield f"{MARK} {_one_line(comment)}"
    yield from _dashed(_fields(item.fields, name_of))


def _dashed(lines: Iterable[str]) -> Iterator[str]:
    """The lines of a mapping as an item of a list. Comments that come first stay above the dash."""
    begun = False
    for line in lines:
        if not begun and line.startswith("#"):
            yield line
        else:
            yield f"  {line}" if begun else f"- {line}"
            begun = True


def _fields(fields: Mapping[Any, Any], name_of: Callable[[Name], str]) -> Iterator[str]:
    for given, value in fields.items():
        key = name_of(given) if isinstance(given, Name) else given
        if isinstance(value, Noted):
            yield f"{MARK} {_one_line(value.comment)}"
            value = value.value  # noqa: PLW2901 - what it is about
        if isinstance(value, Lost):
            yield f"{MARK} {key}: {_one_line(value.comment)}"
            continue
        if isinstance(value, Name):
            value = name_of(value)  # noqa: PLW2901 - as above
        yield from _field(scalar(key), value, name_of)


def _field(key: str, value: Any, name_of: Callable[[Name], str]) -> Iterator[str]:
    if isinstance(value, Mapping):
        inner = list(_fields(value, name_of))
        yield f"{key}:" if any(not line.startswith("#") for line in inner) else f"{key}: {{}}"
        yield from (f"  {line}" for line in inner)
    elif isinstance(value, list):
        inner = [line for item in value for line in _element(item, name_of)]
        yield f"{key}:" if any(not line.startswith("#") for line in inner) else f"{key}: []"
        yield from (f"  {line}" for line in inner)
    elif isinstance(value, str) and _is_block(value):
        yield f"{key}: |{_chomping(value)}"
        yield from (f"  {line}" if line else "" for line in value.removesuffix("\n").split("\n"))
    else:
        yield f"{key}: {scalar(value)}"


def _element(item: Any, name_of: Callable[[Name], str]) -> Iterator[str]:
    if isinstance(item, Noted):
        yield f"{MARK} {_one_line(item.comment)}"
        item = item.value
    if isinstance(item, Lost):
        yield f"{MARK} {_one_line(item.comment)}"
    elif isinstance(item, Mapping) and any(not isinstance(value, Lost) for value in item.values()):
        yield from _dashed(_fields(item, name_of))
    elif isinstance(item, Mapping):
        yield from _fields(item, name_of)
        yield "- {}"
    elif isinstance(item, list):
        yield "-" if item else "- []"
        yield from (f"  {line}" for inner in item for line in _element(inner, name_of))
    else:
        yield f"- {scalar(name_of(item) if isinstance(item, Name) else item)}"


#: Text that needs no quotes: begins with what cannot begin anything else, and holds no ": ", " #" or blank at an end.
_INSIDE = r"A-Za-z0-9_./$()=<>@%+~^*?;,|'\"\\!&{}\[\]\-"
_PLAIN = re.compile(rf"[A-Za-z0-9_./$(][{_INSIDE}#]*( [{_INSIDE}][{_INSIDE}#]*)*")


def scalar(value: Any) -> str:
    """One value on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _number(value)
    text = str(value)
    # `a:b` reads well without quotes: an address, an image, an ARN.
    is_plain = _PLAIN.fullmatch(text.replace(":", "_")) is not None
    if is_plain and re.search(r"^:|:( |$)", text) is None and meaning(text) == text:
        return text
    return quoted(text)


def _number(value: float) -> str:
    if abs(value) < 1e15 and float(value).is_integer():
        return str(int(value))
    # Without an exponent: the two versions of YAML disagree on how one is written.
    return format(Decimal(repr(value)), "f")


def _is_block(text: str) -> bool:
    """Whether text is lines that can stand as they are: SQL, mostly."""
    lines = text.removesuffix("\n").split("\n")
    return (
        len(lines) > 1
        and all(line.isprintable() and not line.endswith(" ") and "\ufeff" not in line for line in lines)
        # The first line that is not empty says how far all are indented, and the last one where the text ends.
        and lines[0] != ""
        and not lines[0].startswith(" ")
        and lines[-1] != ""
    )


def _chomping(text: str) -> str:
    return "" if text.endswith("\n") else "-"


def _one_line(text: str) -> str:
    """A comment ends with its line: nothing in it may begin another one, nor reach a terminal as a command."""
    return "".join(character if character.isprintable() else " " for character in text)
