"""Expressions of x-kubernetes-validations."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded.cel import CelError, CelRuntimeError, compile_expression, compile_rule


def value_of(text: str, **env: Any) -> Any:
    return compile_expression(text, frozenset(env))(env)


@pytest.mark.parametrize(
    "text",
    [
        "1 + 2 * 3 == 7",
        "(1 + 2) * 3 == 9",
        "-7 / 2 == -3 && -7 % 2 == -1",
        "7.0 / 2.0 == 3.5",
        "1 < 2 && 2 <= 2 && 'a' < 'b'",
        "!(1 == 2) || false",
        "1 == 1.0 && 1 != true",
        "'b' in ['a', 'b'] && !('c' in {'a': 1})",
        "true ? 1 == 1 : false",
        "[1, 2].size() == 2 && size('abc') == 3 && size({'a': 1}) == 1",
        "[1, 2, 3].all(x, x > 0) && [1, 2].exists(x, x == 2) && [1, 2, 2].exists_one(x, x == 1)",
        "[1, 2, 3].filter(x, x > 1) == [2, 3] && [1, 2].map(x, x * 2) == [2, 4]",
        "[1, 2, 3].map(x, x > 1, x * 2) == [4, 6]",
        "{'a': 1, 'b': 2}.all(key, key.matches('^[ab]$'))",
        "'abc'.startsWith('a') && 'abc'.endsWith('c') && 'abc'.contains('b')",
        "'a/b'.split('/')[0] == 'a' && ['a', 'b'].join('-') == 'a-b'",
        "'AbC'.lowerAscii() == 'abc' && ' x '.trim() == 'x' && 'abc'.substring(1, 2) == 'b'",
        r"'a.b'.matches(r'^a\.b$') && 'a\tb'.size() == 3",
        'r"""^(?:[-A-Za-z0-9/._~]|[%][0-9a-fA-F]{2})+$""".size() > 3',
        "duration('1m') > duration('30s') && duration('1h30m') == duration('90m')",
        "timestamp('2026-01-01T00:00:00Z') < timestamp('2026-01-02T00:00:00Z')",
        "int('42') == 42 && string(42) == '42' && double('1.5') == 1.5",
        "quantity('1Gi').isGreaterThan(quantity('1G')) && isQuantity('1Mi') && !isQuantity('x')",
        "[1, 2, 3].sum() == 6 && [2, 1].isSorted() == false && [1, 3].max() == 3",
        "0x1F == 31 && 1e3 == 1000.0",
        "isIP('10.0.0.1') && !isIP('x')",
    ],
)
def test_holds(text: str) -> None:
    assert value_of(text) is True


def test_a_side_that_decides_hides_the_error_of_the_other() -> None:
    assert value_of("self.missing == 1 || true", self={}) is True
    assert value_of("self.missing == 1 && false", self={}) is False
    assert value_of("[1, 2].exists(x, self.missing == x || x == 2)", self={}) is True


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("self.a", "no such key: a"),
        ("[1][5]", "index out of bounds: 5"),
        ("1 / 0", "division by zero"),
        ("'a' + 1", "no such overload"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("'a' < 1", "no such overload"),
        ("self.all(x, self.b == x)", "no such key: b"),
    ],
)
def test_an_expression_without_a_value_says_why(text: str, problem: str) -> None:
    with pytest.raises(CelRuntimeError, match=problem):
        value_of(text, self={"x": 1})


@pytest.mark.parametrize(
    "text", ["1 +", "foo", "self.foo(", "unknown(1)", "self.nosuch(1)", "has(self)", "1 2", "self.?a", "'open"]
)
def test_an_expression_that_cannot_be_compiled_is_refused(text: str) -> None:
    with pytest.raises(CelError):
        compile_expression(text, frozenset({"self"}))


def test_reserved_words_as_fields_are_written_with_underscores() -> None:
    assert value_of("self.__namespace__ == 'x' && has(self.a__dash__b)", self={"namespace": "x", "a-b": 1}) is True


def test_has_asks_for_the_field_and_not_for_its_value() -> None:
    assert value_of("has(self.a) && !has(self.b) && has(self.c.d)", self={"a": 0, "c": {"d": ""}}) is True


def test_a_rule_gives_its_message_or_itself() -> None:
    assert compile_rule({"rule": "self > 1", "message": " too small "}).refusal(1, None) == "too small"
    assert compile_rule({"rule": "self > 1"}).refusal(1, None) == "failed rule: self > 1"
    assert compile_rule({"rule": "self > 1", "messageExpression": "'got ' + string(self)"}).refusal(1, None) == "got 1"
    assert compile_rule({"rule": "self > 1"}).refusal(2, None) is None


def test_a_rule_that_compares_with_the_stored_value_is_a_transition_rule() -> None:
    rule = compile_rule({"rule": "self == oldSelf"})
    assert rule.transition
    assert rule.refusal(1, 1) is None
    assert rule.refusal(1, 2) is not None


numbers = st.integers(-1000, 1000)


@given(numbers, numbers, numbers)
def test_arithmetic_on_small_integers_is_that_of_integers(a: int, b: int, c: int) -> None:
    assert value_of("a + b * c - a", a=a, b=b, c=c) == b * c
    assert value_of("a < b ? a : b", a=a, b=b) == min(a, b)
    if b:
        assert value_of("a / b * b + a % b", a=a, b=b) == a


@given(st.text())
def test_no_text_crashes_the_parser(text: str) -> None:
    with contextlib.suppress(CelError):
        compile_expression(text, frozenset({"self"}))
