"""Audiences: how a gateway can tell who is in one. What they mean is in `schemas.matching`.

`compile_audience` writes an audience as header matches of Gateway API, or says why it cannot (`NotNative`).
`disjoint` proves that two audiences never share a request.

A request has one value for each header: the language joins what comes several times. A gateway does so too, or
compares each value by itself (Envoy since 1.40, unless told otherwise); the embedded one is told to join.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache, reduce
from itertools import product
from math import prod
from operator import and_
from typing import Literal, NamedTuple

from renderers.automata import (
    EVERYTHING,
    Automaton,
    TooLarge,
    containing,
    decimals,
    ending_with,
    escape,
    literals,
    starting_with,
)
from renderers.gateways import GatewayFeatures
from schemas.audience import NUMERIC_OPERATORS, Audience, BinaryCondition, UnaryCondition
from schemas.matching import ORDERS, Condition, conditions_of, holds
from schemas.regex import compile_re2

#: Limits of HTTPRoute (Gateway API v1.6).
HEADERS_PER_MATCH = 16
VALUE_LENGTH = 4096
MATCHES_PER_RULE = 64
#: A list of up to so many values becomes as many Exact matches, which every gateway knows; a longer one becomes one
#: regular expression where the gateway has them, because a route may have 128 matches in all.
FEW = 4

_REGEX = "UNARY_OPERATOR_TYPE_SAFE_REGEX_MATCH"
_LISTS = ("UNARY_OPERATOR_TYPE_EXACT_MATCH", "IN")


class NotNative(Exception):  # noqa: N818 - no error: the resolver takes over
    """The gateway cannot tell who is in the audience; the text is the reason, to be read after "because"."""


class Unsound(Exception):  # noqa: N818 - reads as what the audience is
    """The audience makes no sense anywhere; `rule` is a rule id, `message` a sentence, `hint` what to write."""

    def __init__(self, rule: str, message: str, hint: str) -> None:
        super().__init__(rule, message, hint)
        self.rule = rule
        self.message = message
        self.hint = hint


class HeaderMatch(NamedTuple):
    """One header of an HTTPRouteMatch."""

    name: str
    type: Literal["Exact", "RegularExpression"]
    value: str


#: All of these headers, as one match of Gateway API has them. An audience is any one of several matches.
Match = tuple[HeaderMatch, ...]


# --- proofs ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def check(audience: Audience) -> None:
    """Raises Unsound where no request can be in the audience."""
    for key, conditions in _by_header(audience).items():
        if _never(conditions):
            raise Unsound(
                "audience/contradiction",
                f"no value of the header {key} can meet the conditions of the audience {audience.name}",
                "alternatives are several audiences: the conditions of one must all be true",
            )


@lru_cache(maxsize=16_384)
def disjoint(first: Audience, second: Audience) -> bool:
    """True where it is proved that no request is in both; False also where that is not known."""
    ours, theirs = _by_header(first), _by_header(second)
    return any(_never(ours[key] + theirs[key]) for key in ours.keys() & theirs.keys())


def _by_header(audience: Audience) -> dict[str, tuple[Condition, ...]]:
    """The conditions on each header, names in lower case and in order, because "Age" and "age" are one header."""
    by_header: dict[str, tuple[Condition, ...]] = {}
    for condition in conditions_of(audience):
        key = condition.key.lower()
        by_header[key] = (*by_header.get(key, ()), condition)
    return dict(sorted(by_header.items()))


def _never(conditions: tuple[Condition, ...]) -> bool:
    """True where it is proved that no value of one header meets them all, nor its absence."""
    wants_absence = [condition.operator == "ABSENT" for condition in conditions]
    if any(wants_absence):
        return not all(wants_absence)
    values = _values(conditions)
    if values is not None:
        return not values
    # A regular expression of the user's has no automaton. Leaving it out proves less, and nothing that is wrong.
    regexes = _regexes(conditions)
    if any((pattern, not negate) in regexes for pattern, negate in regexes):
        return True
    try:
        return _automaton(condition for condition in conditions if condition.operator != _REGEX).is_empty
    except TooLarge:
        return False


def _values(of_header: tuple[Condition, ...]) -> tuple[str, ...] | None:
    """The values that meet them all, where one of them is a list of values; None where none is."""
    for condition in of_header:
        if isinstance(condition, UnaryCondition) and condition.operator in _LISTS and not condition.negate:
            others = [holds(other) for other in of_header if other is not condition]
            return tuple(value for value in _operands(condition) if all(is_met(value) for is_met in others))
    return None


def _regexes(conditions: tuple[Condition, ...]) -> set[tuple[str, bool]]:
    """The regular expressions among the conditions, and whether they are negated."""
    return {
        (_operands(condition)[0], condition.negate)
        for condition in conditions
        if isinstance(condition, UnaryCondition) and condition.operator == _REGEX
    }


def _operands(condition: UnaryCondition) -> tuple[str, ...]:
    operand = condition.operand
    return operand if isinstance(operand, tuple) else (operand or "",)


def _automaton(conditions: Iterable[Condition]) -> Automaton:
    return reduce(and_, map(_automaton_of, conditions), EVERYTHING)


@lru_cache(maxsize=4096)
def _automaton_of(condition: Condition) -> Automaton:
    """The values that meet one condition. Raises TooLarge."""
    automaton = _plain_automaton(condition)
    return ~automaton if condition.negate else automaton


def _plain_automaton(condition: Condition) -> Automaton:
    if isinstance(condition, BinaryCondition):
        first, second = Decimal(condition.first_operand), Decimal(condition.second_operand)
        return decimals(first, (0, 1)) & decimals(second, (-1, 0))
    if condition.operator == "UNARY_OPERATOR_TYPE_PRESENT_MATCH":
        return EVERYTHING
    operands = _operands(condition)
    if condition.operator in _LISTS:
        return literals(operands)
    if condition.operator in NUMERIC_OPERATORS:
        return decimals(Decimal(operands[0]), ORDERS[condition.operator])
    makers = {
        "UNARY_OPERATOR_TYPE_PREFIX_MATCH": starting_with,
        "UNARY_OPERATOR_TYPE_SUFFIX_MATCH": ending_with,
        "UNARY_OPERATOR_TYPE_CONTAINS_MATCH": containing,
    }
    return makers[condition.operator](operands[0])


# --- header matches ----------------------------------------------------------------------------------------------


@lru_cache(maxsize=16_384)
def compile_audience(audience: Audience, gateway: GatewayFeatures, *, exact: bool = True) -> tuple[Match, ...]:
    """The matches, of which any one must be met; one empty match for an audience that is everybody.

    All have the same number of headers, and of headers of type Exact, so that an audience has one rank. `exact`
    False: regular expressions alone, for a gateway that would prefer Exact ones. The audience has passed `check`.
    Raises NotNative.
    """
    by_header = _by_header(audience)
    if len(by_header) > HEADERS_PER_MATCH:
        raise NotNative(f"{audience.name} looks at {len(by_header)} headers, and a match has {HEADERS_PER_MATCH}")
    choices = [_header_matches(key, conditions, gateway, exact) for key, conditions in by_header.items()]
    if prod(map(len, choices)) > MATCHES_PER_RULE:
        raise NotNative(f"{audience.name} would need {prod(map(len, choices))} matches")
    return tuple(product(*choices))


def rank(matches_of_one: tuple[Match, ...], gateway: GatewayFeatures) -> tuple[int, int]:
    """How much a gateway prefers an audience's matches to others of the same path, whatever their order."""
    match = matches_of_one[0]
    return len(match), sum(header.type == "Exact" for header in match) if gateway.exact_first else 0


def _header_matches(
    key: str, conditions: tuple[Condition, ...], gateway: GatewayFeatures, exact: bool
) -> list[HeaderMatch]:
    values = _values(conditions)
    if values is not None and any("  " in value for value in values):
        raise NotNative(f"a value of {key} has two blanks in a row, which not every version of Gateway API takes")
    if values is not None and (len(values) <= FEW or not gateway.regex):
        return [
            HeaderMatch(key, "Exact", value) if exact else HeaderMatch(key, "RegularExpression", escape(value))
            for value in values
        ]
    if not gateway.regex:
        raise NotNative(f"{gateway.title} is only known to compare whole values, and the condition on {key} is another")
    try:
        pattern = _pattern(key, conditions) if values is None else literals(values).pattern(VALUE_LENGTH)
    except TooLarge as error:
        raise NotNative(f"the conditions on {key} would be too large a regular expression") from error
    if len(pattern) > VALUE_LENGTH:
        raise NotNative(f"the conditions on {key} would be a regular expression of {len(pattern)} characters")
    if gateway.program_limit is not None and (size := compile_re2(pattern).programsize) > gateway.program_limit:
        raise NotNative(
            f"the conditions on {key} are a regular expression of size {size}, and {gateway.title} takes "
            f"{gateway.program_limit}"
        )
    return [HeaderMatch(key, "RegularExpression", pattern)]


def _pattern(key: str, conditions: tuple[Condition, ...]) -> str:
    if any(condition.operator == "ABSENT" for condition in conditions):
        raise NotNative(f"Gateway API has no match for a missing header ({key})")
    if len(conditions) == 1 and (simple := _simple_pattern(conditions[0])) is not None:
        return simple
    if any(condition.operator == _REGEX for condition in conditions):
        raise NotNative(f"a regular expression of {key} is negated, or meets another condition, and RE2 has no way to")
    return _automaton(conditions).pattern(VALUE_LENGTH)


def _simple_pattern(condition: Condition) -> str | None:
    """A pattern as people write it, for what has one."""
    if condition.negate or isinstance(condition, BinaryCondition):
        return None
    text = _operands(condition)[0]
    patterns = {
        "UNARY_OPERATOR_TYPE_PRESENT_MATCH": ".*",
        "UNARY_OPERATOR_TYPE_PREFIX_MATCH": f"{escape(text)}.*",
        "UNARY_OPERATOR_TYPE_SUFFIX_MATCH": f".*{escape(text)}",
        "UNARY_OPERATOR_TYPE_CONTAINS_MATCH": f".*{escape(text)}.*",
        _REGEX: text,
    }
    return patterns.get(condition.operator)
