"""Automata and the patterns written from them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from decimal import Decimal
from functools import reduce
from operator import and_

import pytest
from hypothesis import given
from hypothesis import strategies as st

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

#: Few letters, so that overlaps, repetitions and near misses are common.
words = st.text("ab.", max_size=6)
nonempty = st.text("ab.", min_size=1, max_size=5)

#: Texts that read as decimals, or nearly.
decimal_texts = st.from_regex(r"[+-]?[0-9]{1,4}(\.[0-9]{1,3})?", fullmatch=True)
near_decimals = st.one_of(decimal_texts, st.text("+-.0159e ", max_size=6))

automata = st.recursive(
    st.one_of(
        st.just(EVERYTHING),
        st.builds(literals, st.lists(words, min_size=1, max_size=4)),
        st.builds(starting_with, nonempty),
        st.builds(ending_with, nonempty),
        st.builds(containing, nonempty),
    ),
    lambda inner: st.one_of(
        st.builds(Automaton.__and__, inner, inner),
        st.builds(Automaton.__or__, inner, inner),
        st.builds(lambda a: ~a, inner),
    ),
    max_leaves=3,
)


@given(st.lists(words, min_size=1, max_size=5), words)
def test_literals_are_exactly_these_texts(texts: list[str], text: str) -> None:
    assert (text in literals(texts)) == (text in texts)


@given(nonempty, words)
def test_prefix_suffix_and_part_are_those_of_python(part: str, text: str) -> None:
    assert (text in starting_with(part)) == text.startswith(part)
    assert (text in ending_with(part)) == text.endswith(part)
    assert (text in containing(part)) == (part in text)


@given(decimal_texts, near_decimals, st.sets(st.sampled_from([-1, 0, 1])))
def test_decimals_compare_as_decimal_does(bound: str, text: str, orders: set[int]) -> None:
    is_decimal = re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?", text) is not None
    expected = is_decimal and (Decimal(text) > Decimal(bound)) - (Decimal(text) < Decimal(bound)) in orders
    assert (text in decimals(Decimal(bound), orders)) == expected


@given(automata, automata, words)
def test_and_or_and_not_are_those_of_sets(a: Automaton, b: Automaton, text: str) -> None:
    assert (text in a & b) == (text in a and text in b)
    assert (text in a | b) == (text in a or text in b)
    assert (text in ~a) == (text not in a)


@given(automata, automata)
def test_equal_sets_are_equal_automata(a: Automaton, b: Automaton) -> None:
    assert ~(a & b) == ~a | ~b
    assert (a & ~a).is_empty
    assert (a | ~a) == EVERYTHING


@given(automata, st.lists(words, min_size=1, max_size=20))
def test_a_pattern_matches_what_the_automaton_accepts(automaton: Automaton, texts: list[str]) -> None:
    if automaton.is_empty:
        with pytest.raises(ValueError, match="matches nothing"):
            automaton.pattern(4096)
        return
    pattern = re.compile(automaton.pattern(100_000))
    for text in texts:
        assert (pattern.fullmatch(text) is not None) == (text in automaton)


@given(decimal_texts, decimal_texts, st.booleans(), st.lists(near_decimals, min_size=1, max_size=20))
def test_a_range_of_decimals_is_one_pattern(low: str, high: str, negate: bool, texts: list[str]) -> None:
    automaton = decimals(Decimal(low), [0, 1]) & decimals(Decimal(high), [-1, 0])
    automaton = ~automaton if negate else automaton
    assert automaton.is_empty == (not negate and Decimal(low) > Decimal(high))
    if not automaton.is_empty:
        pattern = re.compile(automaton.pattern(100_000))
        for text in texts:
            assert (pattern.fullmatch(text) is not None) == (text in automaton)


@given(st.text(min_size=1, max_size=8))
def test_escaped_text_matches_itself_alone(text: str) -> None:
    assert re.fullmatch(escape(text), text) is not None
    assert re.fullmatch(escape(text), text + "x") is None


def test_patterns_read_as_people_write_them() -> None:
    assert starting_with("gold.").pattern(100) == r"gold\..*"
    assert literals(["berlin", "bern", "bonn"]).pattern(100) == "b(?:er(?:li)?n|onn)"
    assert decimals(Decimal(0), [0, 1]).pattern(100) == r"(?:-0+(?:\.0+)?|\+?[0-9]+(?:\.[0-9]+)?)"


def test_what_would_grow_without_bound_is_refused_at_once() -> None:
    parts = [containing(part) for part in ("abc", "bcd", "cde", "def", "efg", "fgh", "ghi", "hij", "ijk", "jkl", "klm")]
    with pytest.raises(TooLarge):
        reduce(and_, parts)
    with pytest.raises(TooLarge):
        (~literals(["x" * 1000])).pattern(4096)
    with pytest.raises(TooLarge):
        starting_with("abc").pattern(3)


@pytest.mark.parametrize("make", [containing, ending_with, starting_with])
@pytest.mark.parametrize("text", ["." * 1024, "ab" * 512, "a" * 930 + "".join(map(chr, range(33, 127)))])
def test_a_text_as_long_as_the_language_allows_takes_moments(make: Callable[[str], Automaton], text: str) -> None:
    began = time.process_time()
    assert text in make(text)
    assert time.process_time() - began < 5  # a tenth of it where nobody else computes; it has been a minute
