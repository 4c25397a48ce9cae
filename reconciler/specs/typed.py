"""YAML documents -> typed specs: the JSON Schema first, then the types, which know what a schema cannot say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files as resources
from typing import Any, Generic, TypeVar

import jsonschema_rs
from pydantic import ValidationError

import schemas
from reconciler.specs.places import Places, Site
from reconciler.specs.wording import Fault, in_words, of_types
from renderers.catalog import Placed
from renderers.manifest import Origin
from schemas.base import SpecModel
from schemas.document import KINDS
from schemas.problem import Path, Problem
from schemas.reader import Document
from schemas.reader import read as read_yaml
from schemas.variation import Variation

S_co = TypeVar("S_co", bound=SpecModel, covariant=True)


@dataclass(frozen=True, slots=True)
class Found(Generic[S_co]):
    """A valid spec, and where it is."""

    spec: S_co
    kind: str  #: the key under `spec`: "variations"
    site: Site

    @property
    def name(self) -> str:
        """Its name. Every kind has one."""
        name: str = self.spec.name  # type: ignore[attr-defined]  # of all types in KINDS
        return name

    @property
    def placed(self) -> Placed[S_co]:
        """As a catalog holds it. A variation is called by its model too: every model may have a `default`."""
        name = f"{self.spec.model}/{self.name}" if isinstance(self.spec, Variation) else self.name
        site = self.site
        return Placed(self.spec, Origin(site.file, site.line, KINDS[self.kind][0], name, site.column, site.path))


@dataclass(slots=True)
class Typed:
    """What is in the files, each spec by itself.

    `doubtful` are all names that the unreadable parts mention, as `plain_name` has them: whether one of them
    exists cannot be said. `doubtful_models` are the models that may lack a variation because of it.
    """

    found: list[Found[SpecModel]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    doubtful: set[str] = field(default_factory=set)
    doubtful_models: set[str] = field(default_factory=set)


def read(files: Mapping[str, bytes], places: Places) -> Typed:
    """All specs that are valid by themselves, in the order of the files."""
    typed = Typed()
    for file in sorted(files):
        reading = read_yaml(file, files[file])
        typed.problems += reading.problems
        unread = not reading.whole
        for number, document in enumerate(reading.documents):
            # What precedes a syntax error may be a piece of something: text that lost its colon is no document.
            if reading.whole or isinstance(document.value, dict):
                unread |= not _read_document(typed, file, number, document, places)
        if unread:
            words = plain_names(_WORD.findall(files[file].decode(errors="replace")))
            typed.doubtful |= words
            typed.doubtful_models |= words
    return typed


#: What a name looks like. In a file that is not understood, every word may be one.
_WORD = re.compile(r"[A-Za-z0-9](?:[-_.A-Za-z0-9]*[A-Za-z0-9])?")


def _read_document(typed: Typed, file: str, number: int, document: Document, places: Places) -> bool:
    """Adds what is in a document. False if there may be specs in it that could not be told apart."""
    value, broken = document.value, list(document.stand_ins)
    if not validator().is_valid(value):
        marked = places.document(file, number)
        faults = in_words(validator().iter_errors(value), schema(), marked)
        faults = [fault for fault in faults if not _starts_with_one(fault.path, document.stand_ins)]
        broken += [fault.path for fault in faults]
        typed.problems += [fault.problem(file, marked) for fault in faults]
    if not isinstance(value, dict) or value.get("api_version") != "v1" or not isinstance(value.get("spec"), dict):
        return False
    broken_specs = {path[:3] for path in broken}
    for path, raw in _specs(value["spec"]):
        kind = str(path[1])
        if path in broken_specs:
            _doubt(typed, raw, kind)
            marked = places.document(file, number)
            typed.problems += [fault.problem(file, marked) for fault in _also_wrong(value, path, broken)]
            continue
        try:
            spec = KINDS[kind][1].model_validate(raw)
        except ValidationError as error:
            marked = places.document(file, number)
            typed.problems += [fault.problem(file, marked) for fault in of_types(error, value, path)]
            _doubt(typed, raw, kind)
        else:
            mark = document.marks[path]
            typed.found.append(Found(spec, kind, Site(file, number, path, mark.line, mark.column)))
    return all(len(bad) > 2 for bad in broken)


def _also_wrong(value: Any, path: Path, broken: Iterable[Path]) -> list[Fault]:
    """What our own rules say of the parts of a spec that the schema found no fault with."""
    kind, index = path[1:]
    try:
        KINDS[str(kind)][1].model_validate(value["spec"][kind][index])
    except ValidationError as error:
        faults = [fault for fault in of_types(error, value, path) if not fault.rule.startswith("schema/")]
        return [fault for fault in faults if not _starts_with_one(fault.path, broken)]
    return []


def _starts_with_one(path: Path, beginnings: Iterable[Path]) -> bool:
    return any(path[: len(beginning)] == beginning for beginning in beginnings)


def _specs(spec: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    for kind in KINDS:
        items = spec.get(kind)
        if isinstance(items, list):
            for index, raw in enumerate(items):
                yield ("spec", kind, index), raw


def _doubt(typed: Typed, raw: Any, kind: str) -> None:
    names = plain_names(_texts(raw))
    typed.doubtful |= names
    if kind in ("builds", "audiences", "environments"):
        return  # what serves or names one of them is left out for it
    model = raw.get("model") if isinstance(raw, dict) else None
    typed.doubtful_models |= plain_names([model]) if isinstance(model, str) else names


def plain_names(names: Iterable[str]) -> set[str]:
    """The names without what people get wrong in them: whoever writes Churn_1 means churn-1."""
    return {plain_name(name) for name in names}


def plain_name(name: str) -> str:
    """One name without what people get wrong in it."""
    return name.lower().replace("_", "-").replace(".", "-")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for child in value.values():
            yield from _texts(child)
    elif isinstance(value, list):
        for child in value:
            yield from _texts(child)


@lru_cache(maxsize=1)
def schema() -> dict[str, Any]:
    """The JSON Schema of a document: the file that editors use, too."""
    loaded: dict[str, Any] = json.loads((resources(schemas) / "document.schema.json").read_bytes())
    return loaded


@lru_cache(maxsize=1)
def validator() -> jsonschema_rs.Validator:
    """Compiled once. Every `$ref` is inside the file, so nothing is ever fetched."""
    return jsonschema_rs.validator_for(schema())
