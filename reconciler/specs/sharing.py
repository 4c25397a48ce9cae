"""Specs take half the memory when equal parts of them are one: names that recur, and the sets of what was given.

pydantic keeps a set of the fields that were given for every value, by itself larger than many a value; of a kind,
few different ones occur.
"""

from __future__ import annotations

from functools import lru_cache
from sys import intern
from typing import Any, TypeVar

from schemas.base import SpecModel

S = TypeVar("S", bound=SpecModel)

#: Longer text is SQL or a description, which nobody writes twice.
_LONGEST_NAME = 64


def shared(spec: S) -> S:
    """The spec itself, its parts replaced by equal ones that others have as well. Only for one that nobody else has."""
    values = spec.__dict__
    for key, value in values.items():
        if (one := _shared(value)) is not value:
            values[key] = one
    given = _one_set(frozenset(spec.model_fields_set))
    object.__setattr__(spec, "__pydantic_fields_set__", given)  # a copy of the spec gets a copy of it
    return spec


def _shared(value: Any) -> Any:
    if value.__class__ is str:
        return intern(value) if len(value) <= _LONGEST_NAME else value
    if value.__class__ is tuple:
        return tuple([_shared(item) for item in value]) if value else value
    return shared(value) if isinstance(value, SpecModel) else value


@lru_cache(maxsize=1024)
def _one_set(given: frozenset[str]) -> set[str]:
    return set(given)


def alike(one: Any, other: Any) -> bool:
    """Whether two specs, or parts of them, mean the same.

    Equality is not enough: an override gives some fields, and giving one its default differs from not giving it.
    """
    if one is other:
        return True
    if one.__class__ is not other.__class__:
        return False
    if isinstance(one, SpecModel):
        same_given = one.model_fields_set == other.model_fields_set
        return same_given and all(alike(value, other.__dict__[key]) for key, value in one.__dict__.items())
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other)
