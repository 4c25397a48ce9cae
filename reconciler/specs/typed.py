"""YAML documents -> typed specs: the JSON Schema first, then the types, which know what a schema cannot say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.resources import files as resources
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import jsonschema_rs
from pydantic import ValidationError

import schemas
from reconciler.specs.places import Places, Site
from reconciler.specs.sharing import shared
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

#: What a spec is known by: its kind (the key under `spec`), its name, and for a variation the model before the name.
Key: TypeAlias = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Found(Generic[S_co]):
    """A valid spec, and where it is."""

    placed: Placed[S_co]  #: as a catalog holds it
    key: Key
    document: int  #: the index of its YAML document, as in `Site`

    @property
    def spec(self) -> S_co:
        """The spec itself."""
        return self.placed.spec

    @property
    def kind(self) -> str:
        """The key under `spec`: "variations"."""
        return self.key[0]

    @property
    def name(self) -> str:
        """Its name. Every kind has one."""
        return self.key[2]

    @property
    def site(self) -> Site:
        """Which part of its file it is."""
        return Site(self.placed.origin.file, self.document, self.placed.origin.path)

    def replaced(self, spec: Any) -> Found[Any]:
        """The same with another spec in its place."""
        return Found(Placed(spec, self.placed.origin), self.key, self.document)

    @property
    def rank(self) -> tuple[str, int, int, int]:
        """Where it stands among all specs of all files. Of two with one name, the first is the one that is meant."""
        file, document, (_, _, index) = self.site
        return file, document, _KIND_RANK[self.kind], int(index)


_KIND_RANK = {kind: rank for rank, kind in enumerate(KINDS)}


def _found(site: Site, line: int, column: int, spec: Any) -> Found[Any]:
    """A spec that was read. A variation is called by its model too: every model may have a `default`."""
    kind = str(site.path[1])
    model = spec.model if isinstance(spec, Variation) else ""
    called = f"{model}/{spec.name}" if model else spec.name
    origin = Origin(site.file, line, KINDS[kind][0], called, column, site.path)
    return Found(Placed(spec, origin), (kind, model, spec.name), site.document)


class Typed(NamedTuple):
    """What is in a file, each spec by itself.

    `doubtful` are all names that the unreadable parts mention, as `plain_name` has them: whether one of them
    exists cannot be said. `doubtful_models` are the models that may lack a variation because of it.
    """

    found: tuple[Found[Any], ...] = ()
    problems: tuple[Problem, ...] = ()
    doubtful: frozenset[str] = frozenset()
    doubtful_models: frozenset[str] = frozenset()


def read(file: str, content: bytes, places: Places) -> Typed:
    """The specs of a file that are valid by themselves, in their order."""
    reading = read_yaml(file, content)
    draft = _Draft()
    draft.problems += reading.problems
    unread = not reading.whole
    for number, document in enumerate(reading.documents):
        # What precedes a syntax error may be a piece of something: text that lost its colon is no document.
        if reading.whole or isinstance(document.value, dict):
            unread |= not _read_document(draft, file, number, document, places)
    if unread:
        words = plain_names(_WORD.findall(content.decode(errors="replace")))
        draft.doubtful |= words
        draft.doubtful_models |= words
    return draft.finished()


@dataclass(slots=True)
class _Draft:
    """A `Typed` that is being made."""

    found: list[Found[Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    doubtful: set[str] = field(default_factory=set)
    doubtful_models: set[str] = field(default_factory=set)

    def finished(self) -> Typed:
        # Nearly all files leave no doubt, and share one empty set.
        doubtful = frozenset(self.doubtful) or _NO_NAMES
        return Typed(tuple(self.found), tuple(self.problems), doubtful, frozenset(self.doubtful_models) or _NO_NAMES)


_NO_NAMES: frozenset[str] = frozenset()

#: What a name looks like. In a file that is not understood, every word may be one.
_WORD = re.compile(r"[A-Za-z0-9](?:[-_.A-Za-z0-9]*[A-Za-z0-9])?")


def _read_document(draft: _Draft, file: str, number: int, document: Document, places: Places) -> bool:
    """Adds what is in a document. False if there may be specs in it that could not be told apart."""
    value, broken = document.value, list(document.stand_ins)
    if not validator().is_valid(value):
        marked = places.document(file, number)
        faults = faults_by_schema(document, marked, "document")
        broken += [fault.path for fault in faults]
        draft.problems += [fault.problem(file, marked) for fault in faults]
    if not isinstance(value, dict) or value.get("api_version") != "v1" or not isinstance(value.get("spec"), dict):
        return False
    broken_specs = {path[:3] for path in broken}
    for path, raw in _specs(value["spec"]):
        kind = str(path[1])
        if path in broken_specs:
            _doubt(draft, raw, kind)
            marked = places.document(file, number)
            draft.problems += [fault.problem(file, marked) for fault in _also_wrong(value, path, broken)]
            continue
        try:
            spec = KINDS[kind][1].model_validate(raw)
        except ValidationError as error:
            marked = places.document(file, number)
            draft.problems += [fault.problem(file, marked) for fault in of_types(error, value, path)]
            _doubt(draft, raw, kind)
        else:
            mark = document.marks[path]
            draft.found.append(_found(Site(file, number, path), mark.line, mark.column, shared(spec)))
    return all(len(bad) > 2 for bad in broken)


def faults_by_schema(document: Document, marked: Document, name: str) -> list[Fault]:
    """What a schema has against a document, but for what the reader has told of. `marked`: with its positions."""
    faults = in_words(validator(name).iter_errors(document.value), schema(name), marked)
    return [fault for fault in faults if not _starts_with_one(fault.path, document.stand_ins)]


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
                yield _path(kind, index), raw


@lru_cache(maxsize=1024)
def _path(kind: str, index: int) -> Path:
    # Where each spec has a file of its own, all paths are the same few.
    return "spec", kind, index


def _doubt(draft: _Draft, raw: Any, kind: str) -> None:
    names = plain_names(_texts(raw))
    draft.doubtful |= names
    if kind in ("builds", "audiences", "environments"):
        return  # what serves or names one of them is left out for it
    model = raw.get("model") if isinstance(raw, dict) else None
    draft.doubtful_models |= plain_names([model]) if isinstance(model, str) else names


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


@cache
def schema(name: str = "document") -> dict[str, Any]:
    """A JSON Schema: the file that editors use, too. "document" is that of specs, "policy" that of rules."""
    loaded: dict[str, Any] = json.loads((resources(schemas) / f"{name}.schema.json").read_bytes())
    return loaded


@cache
def validator(name: str = "document") -> jsonschema_rs.Validator:
    """Compiled once. Every `$ref` is inside the file, so nothing is ever fetched."""
    return jsonschema_rs.validator_for(schema(name))
