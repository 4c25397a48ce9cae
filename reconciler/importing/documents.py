"""YAML and JSON files of the reference platform -> values, read as the platform reads them.

The language of the platform's files is YAML 1.1 as PyYAML has it: `yes` is true, anchors and merge keys work, and the
last of two equal keys counts. What means something else in a spec of ours, or is refused there, is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from yaml.constructor import SafeConstructor
from yaml.cyaml import CBaseLoader
from yaml.error import YAMLError
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from yaml.nodes import ScalarNode
from yaml.resolver import Resolver

from reconciler.importing.values import MAXIMUM_NUMBER, Data, Place, Unknown, Value
from schemas.problem import Problem, quoted
from schemas.reader import DEFAULT_LIMITS, Limits
from schemas.reader import read as read_strictly

#: What our own reader refuses and the platform's reads. Here it is only told.
_READ_OTHERWISE = {
    "yaml/alias": "",
    "yaml/anchor": "",
    "yaml/merge-key": "",
    "yaml/tag": "",
    "yaml/key-not-text": "",
    "yaml/ambiguous-value": "This is written as the platform reads it",
    "yaml/duplicate-key": "The platform takes the last one, and so did the import",
}


class Reading(NamedTuple):
    """The documents of a file, and what is wrong or was read otherwise."""

    documents: tuple[Value, ...]
    problems: tuple[Problem, ...]


def read(file: str, content: bytes, limits: Limits = DEFAULT_LIMITS) -> Reading:
    """Reads a file. Never raises for what is in it."""
    strict = read_strictly(file, content, limits)
    problems = [told for problem in strict.problems if (told := _told(problem)) is not None]
    if any(problem.severity == "error" for problem in problems):
        return Reading((), tuple(problems))
    composer = _Composer(file, content, limits)
    try:
        documents = tuple(composer.documents())
    except _TooMuchError as error:
        return Reading((), (Problem(file, error.line, 1, (), "import/yaml", "The aliases come to too much.", ""),))
    except YAMLError:  # what the strict reader let through, this one can read
        return Reading((), (Problem(file, 1, 1, (), "import/yaml", "This is not YAML.", ""),))
    return Reading(documents, (*problems, *composer.problems))


def _told(problem: Problem) -> Problem | None:
    """A problem of a spec, as one of a file that is only read once; None for what makes no difference."""
    instead = _READ_OTHERWISE.get(problem.rule)
    if instead is None:
        return problem
    if not instead:
        return None
    message = f"{problem.message} {instead}."
    return Problem(problem.file, problem.line, problem.column, (), "import/changed", message, "", "warning")


class _TooMuchError(Exception):
    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


class _Composer:
    """One pass over libyaml's events. Depth is bounded by the strict reader, which saw the file first."""

    def __init__(self, file: str, content: bytes, limits: Limits) -> None:
        self._file = file
        self._next: Any = CBaseLoader(content).get_event
        self._limits = limits
        self._resolver: Any = Resolver()
        self._constructor = SafeConstructor()
        self._anchors: dict[str, Value] = {}
        self.problems: list[Problem] = []

    def documents(self) -> Iterator[Value]:
        while (event := self._next()).__class__ is not StreamEndEvent:
            if event.__class__ is DocumentStartEvent:
                self._anchors = {}
                value = self._value(self._next())
                if value.data is not None:
                    yield value

    def _value(self, event: Any) -> Value:
        place = Place(self._file, event.start_mark.line + 1, event.start_mark.column + 1)
        match event:
            case AliasEvent(anchor=anchor):
                return self._anchors.get(str(anchor)) or Value(Unknown("is an alias of nothing above it"), place)
            case ScalarEvent():
                value = Value(self._scalar(event), place)
            case SequenceStartEvent():
                value = self._whole(self._list(), place)
            case MappingStartEvent():
                value = self._whole(self._mapping(), place)
            case _:
                raise YAMLError
        if event.anchor is not None:
            self._anchors[event.anchor] = value
        return value

    def _whole(self, data: list[Value] | dict[str, Value], place: Place) -> Value:
        inner = data if isinstance(data, list) else list(data.values())
        size = 1 + sum(item.size for item in inner)
        depth = 1 + max((item.depth for item in inner), default=0)
        if size > self._limits.nodes or depth > self._limits.depth:
            raise _TooMuchError(place.line)
        return Value(data, place, size, depth)

    def _list(self) -> list[Value]:
        items = []
        while (event := self._next()).__class__ is not SequenceEndEvent:
            items.append(self._value(event))
        return items

    def _mapping(self) -> dict[str, Value]:
        fields: dict[str, Value] = {}
        merged: dict[str, Value] = {}
        while (event := self._next()).__class__ is not MappingEndEvent:
            key = event.value if event.__class__ is ScalarEvent else self._passed_over(event)
            value = self._value(self._next())
            if key == "<<" and event.implicit[0]:
                for source in value.data if isinstance(value.data, list) else [value]:
                    if isinstance(source.data, dict):
                        merged = {**source.data, **merged}
            else:
                fields[key] = value
        return {**{key: item for key, item in merged.items() if key not in fields}, **fields}

    def _passed_over(self, event: Any) -> str:
        self._value(event)
        return ""

    def _scalar(self, event: Any) -> Data:
        if not event.implicit[0] and event.tag is None:
            return str(event.value)  # in quotes
        tag = event.tag or self._resolver.resolve(ScalarNode, event.value, (True, False))
        node = ScalarNode(tag, event.value, event.start_mark, event.end_mark)
        match tag.rpartition(":")[2]:
            case "null":
                return None
            case "bool":
                return bool(self._constructor.construct_yaml_bool(node))
            case "int" | "float" as kind:
                return self._number(kind, node)
        return str(event.value)  # a date is the text that it is written as

    def _number(self, kind: str, node: ScalarNode) -> Data:
        read = self._constructor.construct_yaml_int if kind == "int" else self._constructor.construct_yaml_float
        try:
            number: int | float = read(node)
        except (ValueError, OverflowError):
            return str(node.value)
        if abs(number) <= MAXIMUM_NUMBER:  # not so: infinity, NaN
            return number
        return Unknown(f"is {quoted(node.value)}, which is no number that a spec can hold")
