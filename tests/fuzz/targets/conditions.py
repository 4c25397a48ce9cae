"""Audiences: what the gateway and the resolver are told means what the evaluator, which is the oracle, says."""

# ruff: noqa: PT017 - what a fuzzer tries is told apart without pytest

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import ValidationError

from renderers.audiences import Match, NotNative, Unsound, compile_audience, disjoint
from renderers.audiences import check as check_audience
from renderers.gateways import FEATURES, GatewayFeatures
from renderers.native import MATCHES, MATCHES_PER_RULE, native
from runtime.resolve import Configuration, Service
from schemas.audience import Audience
from schemas.matching import in_order, matches, request_of, resolve
from schemas.regex import compile_re2
from tests.fuzz.choices import Choices
from tests.fuzz.targets.target import Target

_KEYS = ("k", "K", "j", "age", "x-a_b")
_TEXTS = ("", "a", "ab", "b", "1", "-", ".", "0", "9", " ", "*", "é"[:0], "A", "(", "\\")
_NUMBERS = ("0", "1", "-1", "17", "18", "0.5", "-0.50", "1.05", "99999999999999999999", "0.000000000000000001", "007")
_PIECES = (
    *(
        "a",
        "b",
        "1",
        ".",
        "*",
        "+",
        "?",
        "|",
        "(",
        ")",
        "[",
        "]",
        "^",
        "$",
        "-",
        "\\",
        "{",
        "}",
        ",",
        "2",
        "1000",
        "99",
    ),
    *("\\d", "\\w", "\\b", "\\1", "\\Q", "\\E", "\\pL", "\\x41", "\\C", "\\z", "(?i)", "(?:", "(?P<a>", "(?=", "[[:"),
    *("alpha:]]", "[^", "a-z", "--", "&&", "~~", "||", "((((((((", "))))))))", "{1000}", "{99999999999}", "(a{1,500})"),
)
_UNARY = ("EXACT", "PREFIX", "SUFFIX", "CONTAINS", "SAFE_REGEX", "PRESENT")
_NUMERIC = ("LESS_THAN", "LESS_OR_EQUAL", "GREATER_THAN", "GREATER_OR_EQUAL")


def check(data: bytes) -> None:
    choices = Choices(data)
    raw = [_audience(choices, f"a{number}") for number in range(1 + choices.below(3))]
    requests = [{}, *(_request(choices, raw) for _ in range(1 + choices.below(4)))]
    audiences = []
    for one in raw:
        try:
            audience = Audience.model_validate(one)
        except ValidationError:
            continue  # refused with a rule; what comes after it never sees the audience
        try:
            check_audience(audience)
        except Unsound as unsound:
            assert unsound.message.isprintable(), unsound.message
            if unsound.rule == "audience/contradiction":
                assert not any(matches(audience, request) for request in requests)
            continue
        audiences.append(audience)
    for audience in audiences:
        for gateway in FEATURES.values():
            for exact in {True, not gateway.exact_first}:
                _compiles_to_itself(audience, gateway, exact, requests)
    for first in audiences:
        for second in audiences:
            if first is not second and disjoint(first, second):
                assert not any(matches(first, request) and matches(second, request) for request in requests)
    _is_the_same_to_the_resolver(audiences, requests)
    for gateway in FEATURES.values():
        _is_tried_in_order(audiences, gateway, requests)


def _compiles_to_itself(
    audience: Audience, gateway: GatewayFeatures, exact: bool, requests: list[dict[str, str]]
) -> None:
    try:
        compiled = compile_audience(audience, gateway, exact=exact)
    except NotNative as reason:
        assert str(reason).isprintable()
        return
    assert 1 <= len(compiled) <= MATCHES_PER_RULE
    for match in compiled:
        assert len({header.name for header in match}) == len(match) <= 16
        for header in match:
            assert 1 <= len(header.value) <= 4096
            assert header.value.isascii()
            if header.type == "RegularExpression":
                assert gateway.regex
                size = compile_re2(header.value).programsize
                assert gateway.program_limit is None or size <= gateway.program_limit
    for request in requests:
        assert _takes(compiled, request) == matches(audience, request), (compiled, request)


def _takes(compiled: tuple[Match, ...], request: Mapping[str, str]) -> bool:
    return any(_meets(match, request) for match in compiled)


def _meets(match: Match, request: Mapping[str, str]) -> bool:
    """What a gateway does with the headers of a match: the whole value, or RE2 over octets."""
    for header in match:
        value = request.get(header.name.lower())
        if value is None:
            return False
        if header.type == "Exact":
            if value != header.value:
                return False
        elif compile_re2(header.value).fullmatch(value.encode("latin-1")) is None:
            return False
    return True


def _is_tried_in_order(audiences: list[Audience], gateway: GatewayFeatures, requests: list[dict[str, str]]) -> None:
    """A gateway prefers matches with more headers, then (some) those with more Exact ones, then the first."""
    ordered = in_order(audiences)
    try:
        rules = native(ordered, gateway, paths=1, everybody=True)
    except NotNative:
        return
    if not audiences:
        return
    assert sum(map(len, rules.values())) < MATCHES
    for request in requests:
        whole = {**dict.fromkeys(gateway.always_present, "x"), **request}
        met = [
            (len(match), sum(h.type == "Exact" for h in match) if gateway.exact_first else 0, -place, name)
            for place, (name, of) in enumerate((one.name, rules[one.name]) for one in ordered)
            for match in of
            if _meets(match, whole)
        ]
        assert (max(met)[3] if met else None) == resolve(audiences, whole), (gateway.title, whole)


def _is_the_same_to_the_resolver(audiences: list[Audience], requests: list[dict[str, str]]) -> None:
    said = [one.model_dump(mode="json", exclude_defaults=True, exclude={"description"}) for one in in_order(audiences)]
    service = Service(Configuration.model_validate_json(orjson.dumps({"model": "m", "audiences": said})))
    for request in requests:
        lines = [(name.encode(), value.encode("latin-1")) for name, value in request.items()]
        seen = request_of((name, value) for name, value in lines if name in service.wanted)
        assert service.decide(seen) == resolve(audiences, request)


# -- what is made of bytes -----------------------------------------------------------------------------------------


def _audience(choices: Choices, name: str) -> dict[str, Any]:
    conditions: dict[str, list[Any]] = {"unary": [], "binary": []}
    for _ in range(choices.below(5)):
        condition: dict[str, Any] = {"key": choices.one_of(_KEYS), "negate": choices.seldom(4)}
        match choices.below(8):
            case 0:
                low, high = _number(choices), _number(choices)
                condition |= {"first_operand": low, "second_operand": high}
                conditions["binary"].append({**condition, "operator": "BINARY_OPERATOR_TYPE_RANGE_MATCH"})
                continue
            case 1:
                condition |= {"operator": choices.one_of(_NUMERIC), "operand": _number(choices)}
            case 2:
                few = 1 + choices.below(8)
                condition |= {"operator": "IN", "operand": [_text(choices) for _ in range(few)]}
            case 3:
                condition |= {"operator": "ABSENT"}
            case _:
                operator = choices.one_of(_UNARY)
                condition["operator"] = f"UNARY_OPERATOR_TYPE_{operator}_MATCH"
                condition["operand"] = choices.text(_PIECES, 12) if operator == "SAFE_REGEX" else _text(choices)
        conditions["unary"].append(condition)
    return {"name": name, "priority": choices.below(3), "conditions": conditions}


def _text(choices: Choices) -> str:
    if choices.seldom():
        return choices.one_of("abc.") * choices.one_of((100, 1000, 1024, 1025))
    return choices.text(_TEXTS, 4)


def _number(choices: Choices) -> str:
    return choices.one_of(_NUMBERS) if choices.flag() else choices.text(("1", "0", "9", ".", "-", "+"), 6)


def _request(choices: Choices, raw: list[dict[str, Any]]) -> dict[str, str]:
    """Headers whose values are near what the audiences ask for."""
    request: dict[str, str] = {}
    operands = ["", *(str(value) for one in raw for value in _operands(one["conditions"]))]
    for _ in range(choices.below(5)):
        value = choices.one_of(operands) if choices.flag() else choices.text((*_TEXTS, ",", "\xe9", "\x7f"), 5)
        if choices.seldom(4):
            value = value + choices.one_of(("0", ".0", "a", "x")) if choices.flag() else value[1:]
        if value.isascii() or len(value.encode("latin-1")) == len(value):
            request[choices.one_of(_KEYS).lower()] = value.strip(" \t")
    return request


def _operands(conditions: dict[str, list[Any]]) -> list[Any]:
    found: list[Any] = []
    for condition in (*conditions["unary"], *conditions["binary"]):
        for key in ("operand", "first_operand", "second_operand"):
            value = condition.get(key)
            found += value if isinstance(value, list) else [value] if value is not None else []
    return found


TARGET = Target(check, seeds=[bytes(n * step % 251 for n in range(300)) for step in (1, 3, 7, 11, 29, 101)])
