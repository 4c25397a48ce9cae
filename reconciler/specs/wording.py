"""What is wrong with a document, in the words of who wrote it.

A validator says `0.65 is not of type "string"` of a path; people are told that the threshold must be text, where
it stands, and to write "0.65" with quotes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from jsonschema_rs import ValidationError as SchemaError
from jsonschema_rs import ValidationErrorKind as Kind
from jsonschema_rs import Validator, validator_for
from pydantic import ValidationError as TypesError

from reconciler.specs.places import position
from schemas.document import KINDS
from schemas.problem import Path, Problem, quoted
from schemas.reader import Document
from schemas.scalar import meaning
from schemas.spelling import nearest


class Fault(NamedTuple):
    """A problem before it has a place. `message` has no capital letter and no full stop yet."""

    path: Path
    rule: str
    message: str
    hint: str = ""
    at_key: bool = False

    def problem(self, file: str, document: Document) -> Problem:
        """The problem, placed. `document` knows the position of every node."""
        line, column = position(document.mark(self.path), at_key=self.at_key)
        return Problem(file, line, column, self.path, self.rule, sentence(self.message), self.hint)


# -- the JSON Schema's errors ------------------------------------------------------------------------------------


def in_words(errors: Iterable[SchemaError], schema: Mapping[str, Any], document: Document) -> list[Fault]:
    """The faults of a document, one for each mistake."""
    faults = [_discreet(fault) for error in errors for fault in _faults(error, schema, document)]
    renamed = {(f.path[:-1], f.hint) for f in faults if f.rule == "schema/unknown-field"}
    values = {fault.path for fault in faults if fault.rule == "schema/value"}
    types = {fault.path for fault in faults if fault.rule == "schema/type"} - values
    return [
        fault
        for fault in faults
        # What may stand here says more than its type; a wrong type mostly has a wrong form or size as well.
        if (fault.rule == "schema/value" or fault.path not in values)
        and (fault.rule == "schema/type" or fault.path not in types)
        # A key with a slip in it is unknown, and missing under its right name.
        and (fault.rule != "schema/missing-field" or (fault.path[:-1], f"write {fault.path[-1]}") not in renamed)
    ]


def _faults(  # noqa: PLR0912, PLR0915 (one case for each keyword of the schema)
    error: SchemaError, schema: Mapping[str, Any], document: Document
) -> Iterator[Fault]:
    path, kind = tuple(error.instance_path), error.kind
    instance: Any = error.instance
    node = _node(schema, list(error.schema_path)[:-1])
    what = _what(path)
    match kind:
        case Kind.AnyOf() | Kind.OneOfNotValid():
            yield from _alternatives(kind.context, path, instance, schema, document)
        case Kind.OneOfMultipleValid():
            yield Fault(path, "schema/one-of", f"{what} is written in two ways at once", "keep one of them")
        case Kind.Type():
            yield _wrong_type(path, kind.types, instance, document, node)
        case Kind.Constant():
            expected = _literal(kind.expected_value)
            yield Fault(path, "schema/value", f"{what} must be {expected}", f"write {expected}")
        case Kind.Enum() if _is_a_key_of(instance, [_node(schema, list(error.schema_path)[:-2])]):
            yield _without_settings(path, instance)
        case Kind.Enum():
            options = [str(option) for option in kind.options]
            yield Fault(
                path,
                "schema/value",
                f"{_shown(instance)} is no value of {what}",
                _one_of(str(instance), options, options),
            )
        case Kind.Pattern():
            yield Fault(
                path, "schema/form", f"{_shown(instance)} does not have the form of {what}", _form(instance, node)
            )
        case Kind.Required():
            message = f"{kind.property} is missing{_of(path)}"
            yield Fault((*path, kind.property), "schema/missing-field", message, _example(node, kind.property))
        case Kind.AdditionalProperties():
            fields = list(node.get("properties", ()))
            free = [name for name in fields if name not in instance]
            for name in kind.unexpected:
                message = f"there is no field {_shown(name)}{_of(path)}"
                yield Fault((*path, name), "schema/unknown-field", message, _one_of(name, free, fields), at_key=True)
        case Kind.PropertyNames():
            key = str(kind.error.instance)
            message = f"{_shown(key)} does not have the form of a key of {what}"
            names = _node(schema, list(kind.error.schema_path)[:-1])
            yield Fault((*path, key), "schema/key", message, _form(key, names), at_key=True)
        case Kind.Minimum() | Kind.Maximum() | Kind.ExclusiveMinimum() | Kind.ExclusiveMaximum():
            yield _out_of_range(path, kind, instance)
        case Kind.MinLength():
            yield Fault(path, "schema/size", f"{what} is empty", "write something, or remove the key")
        case Kind.MaxLength():
            message = f"{what} has {len(instance):,} characters and {kind.limit:,} are allowed"
            yield Fault(path, "schema/size", message, "shorten it")
        case Kind.MinItems():
            yield Fault(path, "schema/size", f"{what} is empty", "write at least one item")
        case Kind.MaxItems() | Kind.MaxProperties():
            message = f"{what} has {len(instance):,} entries and {kind.limit:,} are allowed"
            yield Fault(path, "schema/size", message, "remove some")
        case Kind.UniqueItems():
            index = _repeated(instance)
            message = f"{_shown(instance[index])} is twice in {what}"
            yield Fault((*path, index), "schema/repeated", message, "remove one of them")
        case _:
            # No keyword of the schema comes here; a test sees to that.
            yield Fault(path, "schema/invalid", f"{what} is not valid ({error.message})")


_ONLY_ITS_NAME = "write the name of a Secret, never what is in it"


def _discreet(fault: Fault) -> Fault:
    """The fault, without the value where it was to be a Secret's name: people paste the secret itself."""
    *_, holder, key = "", "", *map(str, fault.path)
    if fault.rule not in _OF_VALUES or not (key.endswith(("_secret", "_secret_name")) or holder.endswith("_secrets")):
        return fault
    message = f"{_what(fault.path)} must be the name of a Secret, and this is none"
    return fault._replace(message=message, hint=_ONLY_ITS_NAME)


#: Rules whose sentences and hints may hold the value.
_OF_VALUES = frozenset({"schema/type", "schema/form", "schema/size", "schema/value"})


def _alternatives(
    branches: list[list[SchemaError]],
    path: Path,
    instance: Any,
    schema: Mapping[str, Any],
    document: Document,
) -> Iterator[Fault]:
    """The faults of the alternative that was meant: the one that the value has the type of."""
    wrong = [
        [e.kind for e in errors if isinstance(e.kind, Kind.Type) and tuple(e.instance_path) == path]
        for errors in branches
    ]
    meant = [in_words(errors, schema, document) for errors, kinds in zip(branches, wrong, strict=True) if not kinds]
    others = [
        _node(schema, list(errors[0].schema_path)[:-1]) for errors, kinds in zip(branches, wrong, strict=True) if kinds
    ]
    if _is_a_key_of(instance, others):
        yield _without_settings(path, instance)
    elif not meant:
        yield _wrong_type(path, [name for kinds in wrong for kind in kinds for name in kind.types], instance, document)
    elif len(meant) == 1:
        yield from meant[0]
    elif missing := [str(f.path[-1]) for branch in meant for f in branch if f.rule == "schema/missing-field"]:
        message = f"{' or '.join(missing)} is missing{_of(path)}"
        yield Fault((*path, missing[0]), "schema/missing-field", message, f"write {' or '.join(missing)}")
    else:
        yield Fault(path, "schema/one-of", f"{_what(path)} has none of its possible forms")


def _is_a_key_of(instance: Any, objects: Iterable[Mapping[str, Any]]) -> bool:
    """Whether text is the key of a longer form, as in `rollout: canary`."""
    return isinstance(instance, str) and any(instance in node.get("properties", {}) for node in objects)


def _without_settings(path: Path, key: str) -> Fault:
    return Fault(path, "schema/value", f"{key} needs settings", f"write {_what(path)}: {{{key}: {{...}}}}")


_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "empty",
}


def _wrong_type(
    path: Path, types: list[str], instance: Any, document: Document, node: Mapping[str, Any] = MappingProxyType({})
) -> Fault:
    expected = " or ".join(dict.fromkeys(_TYPES[kind] for kind in types))
    message = f"{_what(path)} must be {expected}, and this is {_kind_of(instance)}"
    return Fault(path, "schema/type", message, _retyped(types, instance, document.mark(path).text, node))


def _kind_of(instance: Any) -> str:
    match instance:
        case None:
            return "empty"
        case bool():
            return str(instance).lower()
        case int() | float():
            return f"the number {instance}"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "a mapping"


def _retyped(types: list[str], instance: Any, written: str | None, node: Mapping[str, Any]) -> str:
    """What to write for a value that only has the wrong type."""
    if instance is None:
        return "write a value, or remove the key"
    if "string" in types and isinstance(instance, bool | int | float):
        # As written: 1.10 is not 1.1, and a version number's last zero counts.
        text = written if written is not None else _literal(instance)
        # "512" would be the next mistake where a unit is wanted.
        fits = "pattern" not in node or _matches(node["pattern"], text)
        return f'write "{text}", with quotes' if fits else _form(text, node)
    if isinstance(instance, str):
        if {"integer", "number"} & set(types) and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", instance):
            return f"write {instance}, without quotes"
        if "boolean" in types and instance.lower() in ("true", "false", "yes", "no", "on", "off"):
            return f"write {'true' if instance.lower() in ('true', 'yes', 'on') else 'false'}, without quotes"
    if types == ["array"]:
        return 'begin each item with "- "' if isinstance(instance, dict) else f"write [{_key(_literal(instance))}]"
    if "integer" in types and isinstance(instance, float):
        return f"write {round(instance)}"
    return ""


def _out_of_range(path: Path, kind: Any, instance: Any) -> Fault:
    limit = _literal(kind.limit)
    bound, hint = {
        "minimum": ("at least", f"write {limit} or more"),
        "maximum": ("at most", f"write {limit} or less"),
        "exclusiveMinimum": ("more than", f"write more than {limit}"),
        "exclusiveMaximum": ("less than", f"write less than {limit}"),
    }[kind.name]
    message = f"{_what(path)} must be {bound} {limit}, and this is {_literal(instance)}"
    return Fault(path, "schema/range", message, hint)


def _repeated(items: list[Any]) -> int:
    """The index of the first item that was there before."""
    seen: set[str] = set()
    for index, item in enumerate(items):
        text = json.dumps(item, sort_keys=True)
        if text in seen:
            return index
        seen.add(text)
    return 0


# -- the types' errors ------------------------------------------------------------------------------------------


def of_types(error: TypesError, value: Any, path: Path) -> Iterator[Fault]:
    """The faults of one spec, at `path` of the document, that only the types can see."""
    details = error.errors(include_url=False, include_input=False)
    # The JSON Schema has let the spec pass. So beside an error of our own validators, another one is about an
    # alternative of a union that was not meant; and one around another is about what that one left.
    ours = [detail for detail in details if "/" in detail["type"]]
    inner = [d for d in details if not any(o["loc"][: len(d["loc"])] == d["loc"] for o in details if o is not d)]
    for detail in ours or inner:
        context: Mapping[str, Any] = detail.get("ctx", {})
        below = [*detail["loc"]]
        if context.get("at") is not None:
            below.append(context["at"])
        where = _walk(value, path, below)
        if ours:
            yield Fault(where, detail["type"], context["message"], context["hint"])
        else:
            # The platform's nestings are described loosely by the schema, and read by the types.
            kind = detail["type"]
            rule = _RULES.get(kind, "schema/type" if kind.endswith("_type") else "schema/form")
            said = f"{_what(tuple(below))}: {detail['msg'][:1].lower()}{detail['msg'][1:]}"
            yield _discreet(Fault(where, rule, said))


#: pydantic's kinds of errors -> our rules.
_RULES = {
    "extra_forbidden": "schema/unknown-field",
    "literal_error": "schema/value",
    "missing": "schema/missing-field",
}


def _walk(value: Any, path: Path, steps: Iterable[str | int]) -> Path:
    """The path that pydantic's location means.

    It names the alternatives of unions, and positions in what a validator has rearranged; neither is in the
    document.
    """
    for step in path:
        value = value[step]
    for step in steps:
        inside = step in value if isinstance(value, dict) else isinstance(step, int) and isinstance(value, list)
        if inside and (isinstance(value, dict) or int(step) < len(value)):
            path, value = (*path, step), value[step]
    return path


# -- words ------------------------------------------------------------------------------------------------------


def sentence(message: str) -> str:
    """With a full stop, and with a capital letter unless it begins with something from the spec."""
    first = message.split(" ", 1)[0]
    return f"{message[:1].upper() + message[1:] if first in _ORDINARY_WORDS else message}."


def listed(names: Sequence[str]) -> str:
    """For a sentence: "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


_ORDINARY_WORDS = frozenset(["a", "an", "athena", "item", "no", "the", "there", "two", "where", "with"])


def _what(path: Path) -> str:
    """What people call a node: its key, or its place in a list."""
    if not path:
        return "the document"
    if isinstance(path[-1], int):
        return f"item {path[-1] + 1} of {_key(path[-2])}" if len(path) > 1 else f"item {path[-1] + 1}"
    return _key(path[-1])


def _key(step: str | int) -> str:
    """A key as it is, or in quotes where it is empty, long, or something that a terminal would obey."""
    text = str(step)
    return text if text.isprintable() and 0 < len(text) <= 60 else quoted(text)


def _of(path: Path) -> str:
    """Of which mapping, where it has a name."""
    named = [step for step in path if isinstance(step, str)]
    if not named or named[-1] == "spec":
        return ""
    if len(path) == 3 and named[-1] in KINDS:
        return f" in this {KINDS[named[-1]][0]}"
    if path[0] == "policies" and len(path) == 2:
        return " in this policy"
    return f" in {_key(named[-1])}"


def _shown(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else _literal(value)[:60]


def _literal(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _one_of(word: str, candidates: list[str], known: list[str]) -> str:
    if meant := nearest(word, candidates):
        return f"write {meant}"
    return f"one of {', '.join(known)}" if known and sum(map(len, known)) < 300 else ""


def _form(value: Any, node: Mapping[str, Any]) -> str:
    """What to write for text that does not match the pattern."""
    pattern = str(node.get("pattern", ""))
    if isinstance(value, str) and "***" in quoted(value):
        return _ONLY_ITS_NAME
    if isinstance(value, str) and value.isascii() and len(value) <= 253:
        plain = re.sub(r"[^A-Za-z0-9]+", "-", value).strip("-")
        alike = (plain, plain.replace("-", "_"), plain.lower(), plain.lower().replace("-", "_"))
        for candidate in (value.strip(), value.lower(), *alike):
            if candidate.isprintable() and candidate and _matches(pattern, candidate):
                return f"write {_as_text(candidate)}"
    if examples := node.get("examples"):
        return f"such as {_as_text(examples[0])}"
    if description := node.get("description"):
        return str(description)
    return f"it must match {pattern}"


def _as_text(text: str) -> str:
    """In quotes where YAML would take it for a number."""
    return text if meaning(text) == text else f'"{text}"'


def _matches(pattern: str, text: str) -> bool:
    return _matcher(pattern).is_valid(text)


@lru_cache(maxsize=256)
def _matcher(pattern: str) -> Validator:
    # Not by `re`: some patterns would take it exponential time, and not all `$` mean the same.
    return validator_for({"pattern": pattern})


def _example(node: Mapping[str, Any], key: str) -> str:
    """`key: value`, as it could be written."""
    described = node.get("properties", {}).get(key, {})
    const = [described["const"]] if "const" in described else []
    examples = described.get("examples") or described.get("enum") or const
    return f"write {key}: {_literal(examples[0])}" if examples else ""


def _node(schema: Mapping[str, Any], path: Iterable[str | int]) -> Mapping[str, Any]:
    """The part of the schema at a path."""
    node: Any = schema
    for step in path:
        node = node[step]
    return node if isinstance(node, Mapping) else {}
