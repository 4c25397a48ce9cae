"""Label and field selectors: which objects of a list or a watch somebody wants.

Grammar and messages are those of the API server (k8s.io/apimachinery, `labels` and `fields`):
`app=web,tier in (a, b),!canary,weight>5` and `metadata.name=web,status.phase!=Failed`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

_TOKEN = re.compile(r"\s*(==|=|!=|!|\(|\)|,|>|<|[^\s=!(),<>]+)")
_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_OPERATORS = {"=", "==", "!=", "in", "notin", ">", "<"}
_SYMBOLS = {"=", "==", "!=", ">", "<", "(", ")", ","}


class Requirement(NamedTuple):
    """One condition. `operator` is one of `in`, `notin`, `exists`, `!`, `>`, `<`."""

    key: str
    operator: str
    values: frozenset[str]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels meet it. An absent label is in no set, and so `notin` holds for it."""
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value in self.values
            case "notin":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
        (bound,) = self.values
        if value is None or not _is_integer(value):
            return False
        return int(value) > int(bound) if self.operator == ">" else int(value) < int(bound)


#: Whether an object is selected.
Match = Callable[[Mapping[str, Any]], bool]


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """A label selector as it stands in a query. Raises ValueError with the server's text."""
    tokens = _Tokens(text)
    requirements: list[Requirement] = []
    while word := tokens.peek():
        if word in _SYMBOLS:
            expected = "identifier after ','" if requirements else "!, identifier, or 'end of string'"
            raise ValueError(f"found '{word}', expected: {expected}")
        try:
            requirements.append(_requirement(tokens))
        except ValueError as error:
            raise ValueError(f"unable to parse requirement: {error}") from None
        following = tokens.next()
        if following not in ("", ","):
            raise ValueError(f"found '{following}', expected: ',' or 'end of string'")
        if following and not tokens.peek():
            raise ValueError("found '', expected: identifier after ','")
    return tuple(requirements)


def labels_match(requirements: tuple[Requirement, ...]) -> Match:
    """A predicate on objects."""

    def match(body: Mapping[str, Any]) -> bool:
        labels = body["metadata"].get("labels") or {}
        return all(requirement.matches(labels) for requirement in requirements)

    return match


def parse_fields(text: str, allowed: Mapping[str, Callable[[Mapping[str, Any]], str]]) -> Match:
    """A field selector as a predicate. `allowed` gives the value of each field that may be asked for.

    Raises ValueError with the server's text.
    """
    terms: list[tuple[Callable[[Mapping[str, Any]], str], str, bool]] = []
    for term in _split_terms(text):
        name, operator, value = _field_term(text, term)
        if name not in allowed:
            known = '"metadata.name", "metadata.namespace"'
            raise ValueError(f'"{name}" is not a known field selector: only {known}')
        terms.append((allowed[name], value, operator != "!="))

    def match(body: Mapping[str, Any]) -> bool:
        return all((read(body) == value) is wanted for read, value, wanted in terms)

    return match


def single_name(text: str) -> str:
    """The name, where a field selector asks for exactly one object (`metadata.name=web`); else ""."""
    for prefix in ("metadata.name==", "metadata.name="):
        if text.startswith(prefix) and "," not in text and "\\" not in text:
            return text.removeprefix(prefix)
    return ""


class _Tokens:
    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(text)
        self._next = 0

    def peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def next(self) -> str:
        word = self.peek()
        self._next += 1
        return word


def _requirement(tokens: _Tokens) -> Requirement:
    if tokens.peek() == "!":
        tokens.next()
        return Requirement(_key(tokens.next()), "!", frozenset())
    key = _key(tokens.next())
    operator = tokens.peek()
    if operator in ("", ","):
        return Requirement(key, "exists", frozenset())
    if operator not in _OPERATORS:
        raise ValueError(f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")
    tokens.next()
    if operator in ("in", "notin"):
        return Requirement(key, operator, _values(tokens))
    value = tokens.next() if tokens.peek() not in ("", ",") else ""
    if operator in (">", "<"):
        if not _is_integer(value):
            why = "for 'Gt', 'Lt' operators, the value must be an integer"
            raise ValueError(f'values[0][{key}]: Invalid value: "{value}": {why}')
        return Requirement(key, operator, frozenset([value]))
    _check_value(key, value)
    return Requirement(key, "notin" if operator == "!=" else "in", frozenset([value]))


def _values(tokens: _Tokens) -> frozenset[str]:
    opening = tokens.next()
    if opening != "(":
        raise ValueError(f"found '{opening}' expected: '('")
    values: list[str] = []
    while True:
        word = tokens.next()
        if word == ")":
            return frozenset(values or [""])
        if word == ",":
            values.append("")
            continue
        if not word or word in _SYMBOLS:
            raise ValueError(f"found '{word}', expected: ',', ')' or identifier")
        values.append(word)
        following = tokens.next()
        if following == ")":
            return frozenset(values)
        if following != ",":
            raise ValueError(f"found '{following}', expected: ',' or ')'")


def _key(key: str) -> str:
    prefix, slash, name = key.rpartition("/")
    if not _NAME.fullmatch(name) or len(name) > 63 or (slash and not _SUBDOMAIN.fullmatch(prefix)):
        raise ValueError(
            f"<nil>: Invalid value: \"{key}\": a valid label key must consist of alphanumeric characters, '-', '_'"
            " or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or"
            " '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional"
            " DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        )
    return key


def _check_value(key: str, value: str) -> None:
    if value and (len(value) > 63 or not _NAME.fullmatch(value)):
        raise ValueError(
            f'values[0][{key}]: Invalid value: "{value}": a valid label must be an empty string or consist of'
            " alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g."
            " 'MyValue',  or 'my_value',  or '12345', regex used for validation is"
            " '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        )


def _is_integer(text: str) -> bool:
    return bool(re.fullmatch(r"[+-]?[0-9]+", text))


def _split_terms(text: str) -> list[str]:
    """At commas, but not at escaped ones (`\\,`)."""
    return [term for term in re.split(r"(?<!\\),", text) if term]


def _field_term(text: str, term: str) -> tuple[str, str, str]:
    found = re.search(r"(?<!\\)(!=|==|=)", term)
    if not found:
        raise ValueError(f"invalid selector: '{text}'; can't understand '{term}'")
    value = re.sub(r"\\([\\,=])", r"\1", term[found.end() :])
    return term[: found.start()], found.group(), value
