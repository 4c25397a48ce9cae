"""What a file of the reference platform says: values that know where they stand, whichever language they are in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

#: Whole numbers up to here are the same to everybody who reads them.
MAXIMUM_NUMBER = 1 << 53


class Place(NamedTuple):
    """Where something stands. Lines and columns are 1-based; columns count characters."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Made(NamedTuple):
    """An object of the platform's SDK: its class, and what it was given by the names of its parameters."""

    name: str
    fields: dict[str, Value]


class Unknown(NamedTuple):
    """What nobody can know without running the file. `why` completes the sentence "it ...": "is read from ..."."""

    why: str


Data: TypeAlias = "str | int | float | bool | list[Value] | dict[str, Value] | Made | Unknown | None"


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """One value. Two names may hold the same one, so it is told apart by identity."""

    data: Data
    place: Place
    size: int = 1  #: with all that is in it; what is in it twice counts twice
    depth: int = 1

    @property
    def says_nothing(self) -> bool:
        """Whether it is one of the platform's ways to leave something out."""
        return self.data is None or self.data in ("", [], {})


def same(one: Value, other: Value) -> bool:
    """Whether two values say the same, wherever they stand."""
    return plain(one) == plain(other)


def plain(value: Value) -> object:
    """The value without its places, to be compared."""
    match value.data:
        case list(items):
            return [plain(item) for item in items]
        case dict(fields):
            return {key: plain(item) for key, item in fields.items()}
        case Made(name, fields):
            return (name, {key: plain(item) for key, item in fields.items()})
        case bool(truth):
            return (bool, truth)  # True == 1
        case Unknown():
            return object()  # equal to nothing, not even to itself
        case data:
            return data
