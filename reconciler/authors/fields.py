"""What the fields of the language are: type, default, unit, limits and examples, out of the JSON Schema. Pure.

The schema is the one that documents are validated against and that editors read, so nothing is said here that is not
true there. It says some things twice, for the spellings of the reference platform: a list that may be written as its
only item, a mapping with one level more. Here a field is one thing, whose type names the ways to write it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files as resources
from typing import Any

import schemas
from schemas.spelling import nearest

#: A JSON Schema, or a part of one.
Schema = Mapping[str, Any]

#: Stands in a path for a key that its author chooses.
ANY_KEY = "NAME"

_NOTHING = object()

#: How the name of a promotion ends: its build, and which attempt it is.
_PROMOTION = re.compile(r"\.[0-9a-f]{8}-[0-9]+$")


class NoFieldError(ValueError):
    """A path leads to no field: a sentence, with what may have been meant."""


@dataclass(frozen=True)
class Field:
    """A field, or a kind of spec, or the document.

    `path` is how people write it, beginning with the word for the kind: ("variation", "traffic", "weight"). Items of
    lists have no step of their own; a key that its author chooses is `ANY_KEY`.
    """

    path: tuple[str, ...]
    schema: Schema
    required: bool = False

    @property
    def name(self) -> str:
        """The last step of the path."""
        return self.path[-1]

    @property
    def description(self) -> str:
        """What it means; of a mapping that is described where it is defined only, that."""
        return str(next((part["description"] for part in self._parts if part.get("description")), ""))

    @property
    def has_default(self) -> bool:
        """Whether something particular holds where it is left out."""
        return self._said("default") is not _NOTHING

    @property
    def default(self) -> Any:
        """What holds where it is left out; None where that is nothing in particular."""
        return self._said("default", None)

    @property
    def unit(self) -> str:
        """Of a number: "seconds"; "" for none."""
        return str(self._said("x-unit", ""))

    @property
    def deprecated(self) -> bool:
        """Whether it is another spelling of something."""
        return bool(self._said("deprecated", default=False))

    @property
    def examples(self) -> tuple[Any, ...]:
        """Values as they could be written."""
        found = self._said("examples", ())
        if found or not self._items:
            return tuple(found)
        return tuple([example] for item in self._items for example in item.get("examples", ()))[:1]

    @property
    def type(self) -> str:
        """In words: "text", "whole number", "list of mappings", "text or mapping"."""
        return " or ".join(dict.fromkeys(self._types()))

    @cached_property
    def limits(self) -> tuple[str, ...]:
        """What a value must keep to, as phrases."""
        found = (phrase for part in (*self._parts, *self._items) for phrase in _limits(part))
        return tuple(dict.fromkeys(found))

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The fields below it, in the order of the schema. They are in the items of a list, and in each of several
        ways to write it.
        """
        found: dict[str, Field] = {}
        for part in (*self._parts, *self._items):
            required = part.get("required", ())
            for name, schema in part.get("properties", {}).items():
                found.setdefault(name, Field((*self.path, name), schema, required=name in required))
            others = part.get("additionalProperties")
            if isinstance(others, Mapping) and _is_a_mapping(others):
                found.setdefault(ANY_KEY, Field((*self.path, ANY_KEY), others))
        return tuple(found.values())

    def below(self) -> Iterator[Field]:
        """All fields below it, each before those below itself."""
        for field in self.fields:
            yield field
            yield from field.below()

    def step(self, name: str) -> Field | None:
        """The field of this name below it."""
        by_name = {field.name: field for field in self.fields}
        return by_name.get(name) or by_name.get(ANY_KEY)

    @cached_property
    def _parts(self) -> tuple[Schema, ...]:
        return tuple(_parts(self.schema))

    @cached_property
    def _items(self) -> tuple[Schema, ...]:
        return tuple(part for outer in self._parts if "items" in outer for part in _parts(outer["items"]))

    def _said(self, keyword: str, default: Any = _NOTHING) -> Any:
        return next((part[keyword] for part in self._parts if keyword in part), default)

    def _types(self) -> Iterator[str]:
        for part in self._parts:
            if part.get("type") == "array":
                of = dict.fromkeys(_PLURALS[word] for item in _parts(part["items"]) for word in _words(item))
                yield f"list of {' or '.join(of)}"
            else:
                yield from _words(part)


# -- finding --------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def document() -> Field:
    """The document, from which every field can be reached."""
    return Field(("document",), _definitions())


def kinds() -> dict[str, Field]:
    """The kinds of spec, by the word for one: "variation"."""
    spec = document().step("spec")
    assert spec is not None
    return {_one_of(kind.name): Field((_one_of(kind.name),), {**kind.schema["items"]}) for kind in spec.fields}


@lru_cache(maxsize=1)
def policy() -> Field:
    """A rule of an organisation. It is in a file of its own, and no part of the document."""
    loaded: dict[str, Any] = json.loads((resources(schemas) / "policy.schema.json").read_bytes())
    return Field(("policy",), loaded["$defs"]["Policy"])


def is_path(text: str) -> bool:
    """Whether a text begins as the path of a field does: with a kind, or with the document. A promotion of a model
    that is called like a kind is none: it ends with a build and an attempt.
    """
    steps = _steps(text)
    if not steps or _PROMOTION.search(text):
        return False
    first = _one_of(steps[0])
    return first in ("document", "api_version", "spec", "policy") or first in kinds()


def find(text: str) -> Field:
    """The field at a path: `variation.traffic.weight`, `variations[0].traffic[1].weight`, or a JSON pointer, as
    problems show them. Raises NoFieldError.
    """
    field = document()
    steps = [step for step in _steps(text) if step not in ("document", "spec")]
    if not steps:
        return document().step("spec") or field if _steps(text) == ["spec"] else field
    known = {**kinds(), "api_version": document().step("api_version"), "policy": policy()}
    first = known.get(_one_of(steps[0]))
    if first is None:
        raise NoFieldError(_no_kind(steps[0], list(known)))
    field = first
    for step in steps[1:]:
        below = field.step(step)
        if below is None:
            raise NoFieldError(_no_field(step, field))
        field = below
    return field


def why_none(text: str) -> str:
    """Why a text whose first word is no kind leads to no field, with what was probably meant; "" for a promotion."""
    if _PROMOTION.search(text):
        return ""
    if near := meant(text):
        return f"there is no field {text!r}; write {near}"
    try:
        find(text)
    except NoFieldError as error:
        return str(error)
    return ""


def meant(text: str) -> str:
    """The path that was probably meant by one whose first word is no kind; "" for none."""
    first, *rest = _steps(text) or [""]
    kind = nearest(first, [*kinds(), *(f"{kind}s" for kind in kinds()), "policy", "policies"])
    for place in [_one_of(kind)] if kind else _places(first):
        path = ".".join([place, *rest])
        with suppress(NoFieldError):
            return ".".join(find(path).path)
    return ""


def named(name: str) -> list[Field]:
    """The fields of this name, wherever they are; those least deep first."""
    fields = [field for kind in kinds().values() for field in kind.below() if field.name == name]
    return sorted(fields, key=lambda field: len(field.path))


def order(path: Sequence[str | int]) -> tuple[str, ...]:
    """In which order the schema has the keys of the mapping at a path of a document; () where it says nothing of it."""
    return _order(tuple(step for step in path if isinstance(step, str)))


@lru_cache(maxsize=4096)
def _order(steps: tuple[str, ...]) -> tuple[str, ...]:
    field: Field | None = document()
    if steps[:1] == ("policies",):
        field, steps = policy(), steps[1:]
    for step in steps:
        field = field.step(step) if field else None
    return tuple(below.name for below in field.fields if below.name != ANY_KEY) if field else ()


def _no_kind(word: str, known: list[str]) -> str:
    places = _places(word)
    meant = nearest(word, known)
    if places:
        hint = f"; there is {_listed(places)}"
    elif meant:
        hint = f"; write {meant}"
    else:
        hint = f"; there are {', '.join(kinds())}"
    return f"there is no kind {word!r}{hint}"


def _no_field(name: str, holder: Field) -> str:
    at = ".".join(holder.path)
    if not holder.fields:
        return f"{at} is {holder.type}, and has no fields"
    if meant := nearest(name, [field.name for field in holder.fields if field.name != ANY_KEY]):
        return f"there is no field {name!r} in {at}; write {at}.{meant}"
    # A field is often looked for one level too high, or by what another platform calls it.
    if places := _places(name) or _places(nearest(name, _names())):
        return f"there is no field {name!r} in {at}, but there is {_listed(places)}"
    return f"there is no field {name!r} in {at}; see reconcile explain {at}"


def _places(name: str) -> list[str]:
    """Where the fields of this name are; a few."""
    return [".".join(field.path) for field in named(name)][:4]


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    return frozenset(field.name for field in document().below() if field.name != ANY_KEY)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _one_of(word: str) -> str:
    """ "variation" for "variations" and "Variation", "policy" for "policies"; what is no kind stays."""
    lowered = word.lower()
    if lowered == "policies":
        return "policy"
    return lowered.removesuffix("s") if lowered in _definitions()["$defs"]["Specs"]["properties"] else lowered


def _steps(text: str) -> list[str]:
    """The names in a path. An index says which item, and all items have the same fields."""
    text = text.strip()
    if text.startswith("/"):
        steps = [step.replace("~1", "/").replace("~0", "~") for step in text[1:].split("/")]
    else:
        steps = re.sub(r"\[[^\]]*\]", "", text).split(".")
    return [step for step in steps if step and not step.isdigit()]


# -- reading the schema ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _definitions() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((resources(schemas) / "document.schema.json").read_bytes())
    return loaded


def _parts(schema: Schema) -> Iterator[Schema]:
    """The schema with its reference resolved, and then each of the ways that it knows to write the value."""
    while "$ref" in schema:
        definition = _definitions()["$defs"][schema["$ref"].rpartition("/")[2]]
        schema = {**definition, **{key: value for key, value in schema.items() if key != "$ref"}}
    yield schema
    # The usual way stands last: `if` asks whether it is one of the platform's.
    for keyword in ("else", "then"):
        if keyword in schema:
            yield from _parts(schema[keyword])
    for keyword in ("anyOf", "oneOf"):
        for alternative in schema.get(keyword, ()):
            yield from _parts(alternative)


_WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "mapping",
}
_PLURALS = {
    "text": "texts",
    "whole number": "whole numbers",
    "number": "numbers",
    "true or false": "true or false",
    "mapping": "mappings",
}


def _words(part: Schema) -> Iterator[str]:
    given = part.get("type")
    if given in _WORDS:
        yield _WORDS[given]
    elif given is None and "properties" in part:
        yield "mapping"
    elif given is None and "enum" in part:
        yield "text"


def _is_a_mapping(schema: Schema) -> bool:
    return any("properties" in part for part in _parts(schema))


def _limits(part: Schema) -> Iterator[str]:
    values = part.get("enum") or ([part["const"]] if "const" in part else [])
    if values:
        yield f"one of {', '.join(map(str, values))}" if len(values) > 1 else f"the word {values[0]}"
    yield from _bounds(part)
    for noun, least, most in (
        ("character", "minLength", "maxLength"),
        ("item", "minItems", "maxItems"),
        ("entry", "minProperties", "maxProperties"),
    ):
        if phrase := _amount(part.get(least), part.get(most), noun):
            yield phrase
    if part.get("uniqueItems"):
        yield "no item twice"
    if "pattern" in part:
        yield f"of the form {part['pattern']}"
    if names := part.get("propertyNames", {}).get("pattern"):
        yield f"keys of the form {names}"
    exclusive = [one["required"][0] for one in part.get("oneOf", ()) if len(one.get("required", ())) == 1]
    if exclusive:
        yield f"exactly one of {_listed(exclusive)}"


def _bounds(part: Schema) -> Iterator[str]:
    least, most = part.get("minimum"), part.get("maximum")
    if least is not None and most is not None:
        yield f"from {least:,} to {most:,}"
    elif least is not None:
        yield f"at least {least:,}"
    elif most is not None:
        yield f"at most {most:,}"
    if (above := part.get("exclusiveMinimum")) is not None:
        yield f"more than {above:,}"


def _amount(least: int | None, most: int | None, noun: str) -> str:
    plural = "entries" if noun == "entry" else f"{noun}s"
    if least and most:
        return f"from {least:,} to {most:,} {plural}"
    if most is not None:
        return f"at most {most:,} {plural}"
    return f"at least {least:,} {noun if least == 1 else plural}" if least else ""
