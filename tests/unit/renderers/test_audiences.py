"""Audiences: what they mean, what a gateway is told, and which two can meet."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from renderers.audiences import (
    HeaderMatch,
    Match,
    NotNative,
    Unsound,
    check,
    compile_audience,
    disjoint,
    rank,
)
from renderers.gateways import FEATURES
from schemas.audience import Audience
from schemas.matching import in_order, matches, request_of, resolve, resolver
from schemas.regex import compile_re2

EMBEDDED, ENVOY_GATEWAY, KGATEWAY, UNKNOWN = (
    FEATURES[name] for name in ("embedded", "envoy-gateway", "kgateway", "unknown")
)


def unary(key: str, operator: str, operand: Any = None, *, negate: bool = False) -> dict[str, Any]:
    names = ("EXACT", "SAFE_REGEX", "PRESENT", "PREFIX", "SUFFIX", "CONTAINS")
    name = f"UNARY_OPERATOR_TYPE_{operator}_MATCH" if operator in names else operator
    return {"key": key, "operator": name, "operand": operand, "negate": negate}


def between(key: str, low: str, high: str, *, negate: bool = False) -> dict[str, Any]:
    return {
        "key": key,
        "operator": "BINARY_OPERATOR_TYPE_RANGE_MATCH",
        "first_operand": low,
        "second_operand": high,
        "negate": negate,
    }


def audience(*conditions: dict[str, Any], name: str = "a", priority: int = 100) -> Audience:
    of = {
        "unary": [c for c in conditions if "first_operand" not in c],
        "binary": [c for c in conditions if "first_operand" in c],
    }
    return Audience.model_validate({"name": name, "priority": priority, "conditions": of})


def taken(compiled: tuple[Match, ...], headers: dict[str, str]) -> bool:
    """What a gateway does with header matches: Envoy compares the whole value, and reads RE2."""

    def one(header: HeaderMatch) -> bool:
        value = headers.get(header.name)
        if value is None or header.type == "Exact":
            return value == header.value
        python = re.fullmatch(header.value, value, re.ASCII) is not None
        assert (compile_re2(header.value).fullmatch(value.encode("latin-1")) is not None) == python
        return python

    return any(all(map(one, match)) for match in compiled)


# --- the meaning -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "inside", "outside"),
    [
        (unary("k", "EXACT", "nyc"), ["nyc"], ["NYC", "nyc2", ""]),
        (unary("k", "PREFIX", "ny"), ["ny", "nyc"], ["Ny", "any"]),
        (unary("k", "SUFFIX", "yc"), ["yc", "nyc"], ["nycx"]),
        (unary("k", "CONTAINS", "y"), ["y", "nyc"], ["nc", ""]),
        (unary("k", "PRESENT"), ["", "x"], []),
        (unary("k", "SAFE_REGEX", "n.c|sf"), ["nyc", "sf"], ["nycx", "xsf"]),
        (unary("k", "IN", ["nyc", "sf"]), ["nyc", "sf"], ["la", "nyc,sf"]),
        (unary("k", "GREATER_OR_EQUAL", "18"), ["18", "+18", "018", "18.0", "19"], ["17.99", "x", "", "1e3", "-18"]),
        (unary("k", "LESS_THAN", "0.5"), ["0.49", "-1", "0"], ["0.5", "0.50", ".4", "nan"]),
        (between("k", "18", "64.5"), ["18", "64.5", "64.50"], ["17", "64.51", "118"]),
        (between("k", "18", "64", negate=True), ["17", "x", ""], ["18", "64"]),
        (unary("k", "EXACT", "nyc", negate=True), ["sf", ""], ["nyc"]),
    ],
)
def test_a_condition_holds_for(condition: dict[str, Any], inside: list[str], outside: list[str]) -> None:
    one = audience(condition)
    for value in inside:
        assert matches(one, {"k": value})
    for value in outside:
        assert not matches(one, {"k": value})
    assert not matches(one, {})


def test_a_missing_header_meets_absent_alone() -> None:
    assert matches(audience(unary("k", "ABSENT")), {"other": "x"})
    assert not matches(audience(unary("k", "ABSENT")), {"k": ""})
    assert not matches(audience(unary("k", "EXACT", "x", negate=True)), {})


def test_all_conditions_must_hold_and_header_names_have_no_case() -> None:
    one = audience(unary("City", "EXACT", "nyc"), between("age", "18", "30"))
    assert matches(one, {"city": "nyc", "age": "20"})
    assert not matches(one, {"city": "nyc", "age": "31"})


def test_a_request_is_what_its_header_lines_say() -> None:
    lines = [(b"City", b" new york\t"), (b"AGE", b"20"), (b"age", b""), (b"name", b"\xc3\xa9"), (b"x", b"")]

    assert request_of(lines) == {"city": "new york", "age": "20,", "name": "Ã©", "x": ""}


def test_a_header_that_comes_twice_has_one_value() -> None:
    twice = request_of([(b"k", b"a"), (b"K", b"b")])

    assert matches(audience(unary("k", "EXACT", "a,b")), twice)
    assert not matches(audience(unary("k", "EXACT", "a")), twice)
    assert not matches(audience(unary("k", "GREATER_THAN", "1")), request_of([(b"k", b"2"), (b"k", b"3")]))


def test_a_regular_expression_reads_octets() -> None:
    assert matches(audience(unary("k", "SAFE_REGEX", "a..")), request_of([(b"k", "aé".encode())]))
    assert matches(audience(unary("k", "SAFE_REGEX", "a.")), request_of([(b"k", b"a\xff")]))


def test_audiences_are_read_once_for_many_requests() -> None:
    decide = resolver([audience(unary("k", "EXACT", "a"), name="a"), audience(unary("k", "PREFIX", "b"), name="b")])

    assert [decide({"k": value}) for value in ("a", "bc", "c")] == ["a", "b", None]


def test_the_audience_with_the_lowest_priority_wins_and_everybody_comes_last() -> None:
    city, adult = unary("city", "EXACT", "nyc"), unary("age", "GREATER_OR_EQUAL", "18")
    audiences = [
        audience(name="all"),
        audience(adult, name="adults", priority=20),
        audience(city, name="nyc", priority=10),
    ]
    assert [a.name for a in in_order(audiences)] == ["nyc", "adults", "all"]
    assert [a.name for a in in_order([audience(name="all"), audience(city, name="city")])] == ["city", "all"]
    assert resolve(audiences, {"city": "nyc", "age": "20"}) == "nyc"
    assert resolve(audiences, {"age": "20"}) == "adults"
    assert resolve(audiences, {}) == "all"
    assert resolve(audiences[1:], {}) is None


# --- header matches ----------------------------------------------------------------------------------------------


def test_values_become_exact_matches_and_several_of_them_several_matches() -> None:
    assert compile_audience(audience(unary("City", "EXACT", "nyc")), UNKNOWN) == ((("city", "Exact", "nyc"),),)
    assert compile_audience(audience(unary("city", "IN", ["nyc", "sf"]), unary("plan", "EXACT", "gold")), UNKNOWN) == (
        (("city", "Exact", "nyc"), ("plan", "Exact", "gold")),
        (("city", "Exact", "sf"), ("plan", "Exact", "gold")),
    )


def test_everybody_is_one_match_without_headers() -> None:
    assert compile_audience(audience(), UNKNOWN) == ((),)


def test_a_long_list_is_one_expression_where_the_gateway_has_them() -> None:
    cities = [f"city-{number}" for number in range(10)]
    many = audience(unary("city", "IN", cities))
    assert compile_audience(many, EMBEDDED) == ((("city", "RegularExpression", "city-[0-9]"),),)
    assert len(compile_audience(many, UNKNOWN)) == 10


@pytest.mark.parametrize(
    ("condition", "pattern"),
    [
        (unary("k", "PRESENT"), ".*"),
        (unary("k", "PREFIX", "a.b"), r"a\.b.*"),
        (unary("k", "SUFFIX", "a+"), r".*a\+"),
        (unary("k", "CONTAINS", "new york"), ".*new york.*"),
        (unary("k", "SAFE_REGEX", "n.c|sf"), "n.c|sf"),
    ],
)
def test_what_has_a_plain_pattern_gets_it(condition: dict[str, Any], pattern: str) -> None:
    assert compile_audience(audience(condition), EMBEDDED) == ((("k", "RegularExpression", pattern),),)


def test_conditions_on_one_header_become_one_expression() -> None:
    merged = audience(
        unary("age", "GREATER_THAN", "17"), unary("Age", "LESS_THAN", "65"), unary("age", "EXACT", "20", negate=True)
    )
    (match,) = compile_audience(merged, EMBEDDED)
    assert [header.name for header in match] == ["age"]
    assert taken((match,), {"age": "18"})
    assert taken((match,), {"age": "20.0"})
    assert not taken((match,), {"age": "20"})


def test_a_value_and_other_conditions_are_decided_at_once() -> None:
    one = audience(unary("city", "IN", ["nyc", "sf", "la"]), unary("city", "SUFFIX", "c"))
    assert compile_audience(one, UNKNOWN) == ((("city", "Exact", "nyc"),),)


def test_a_gateway_that_prefers_exact_matches_gets_expressions_where_order_asks_for_it() -> None:
    one = audience(unary("city", "EXACT", "n.c"))
    assert compile_audience(one, ENVOY_GATEWAY, exact=False) == ((("city", "RegularExpression", r"n\.c"),),)
    assert rank(compile_audience(one, ENVOY_GATEWAY), ENVOY_GATEWAY) == (1, 1)
    assert rank(compile_audience(one, ENVOY_GATEWAY, exact=False), ENVOY_GATEWAY) == (1, 0)
    assert rank(compile_audience(one, EMBEDDED), EMBEDDED) == (1, 0)


@pytest.mark.parametrize(
    ("conditions", "gateway", "reason"),
    [
        ([unary("k", "ABSENT")], EMBEDDED, "no match for a missing header"),
        ([unary("k", "PREFIX", "x")], UNKNOWN, "only known to compare whole values"),
        ([unary("k", "IN", ["california", "washington"], negate=True)], KGATEWAY, "takes 100"),
        ([unary("k", "SAFE_REGEX", "x+", negate=True)], EMBEDDED, "is negated"),
        ([unary("k", "SAFE_REGEX", "x+"), unary("k", "PREFIX", "x")], EMBEDDED, "meets another condition"),
        ([unary("k", "EXACT", "x" * 900, negate=True)], EMBEDDED, "too large"),
        ([unary("k", "PREFIX", "." * 1024), unary("j", "PREFIX", "." * 1024)], EMBEDDED, None),
        ([unary(f"k{n}", "EXACT", "x") for n in range(16)] + [between("j", "1", "2")], EMBEDDED, "17 headers"),
        ([unary("k", "IN", [f"{n}" for n in range(13)]), unary("j", "IN", list("abcde"))], UNKNOWN, "65 matches"),
        ([unary("k", "EXACT", "a  b")], UNKNOWN, "two blanks"),
    ],
)
def test_what_a_gateway_cannot_tell_is_said_with_the_reason(
    conditions: list[dict[str, Any]], gateway: Any, reason: str | None
) -> None:
    if reason is None:
        assert len(compile_audience(audience(*conditions), gateway)) == 1
        return
    with pytest.raises(NotNative, match=reason):
        compile_audience(audience(*conditions), gateway)


def test_small_numbers_fit_into_the_smallest_gateway() -> None:
    ages = audience(between("age", "18", "64"), unary("score", "GREATER_THAN", "0.65"))
    assert len(compile_audience(ages, KGATEWAY)) == 1


# --- unsound audiences -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "conditions",
    [
        [unary("k", "EXACT", "a"), unary("k", "EXACT", "b")],
        [unary("k", "GREATER_THAN", "5"), unary("K", "LESS_OR_EQUAL", "5")],
        [unary("k", "ABSENT"), unary("k", "PRESENT")],
        [unary("k", "PREFIX", "a"), unary("k", "PREFIX", "ab", negate=True), unary("k", "PREFIX", "ab")],
        [unary("k", "SAFE_REGEX", "a+"), unary("k", "SAFE_REGEX", "a+", negate=True)],
        [between("k", "1", "2"), unary("k", "PREFIX", "x")],
    ],
)
def test_conditions_that_nothing_can_meet_are_refused(conditions: list[dict[str, Any]]) -> None:
    with pytest.raises(Unsound, match="no value of the header k") as caught:
        check(audience(*conditions))
    assert caught.value.rule == "audience/contradiction"


@pytest.mark.parametrize("pattern", ["a++", "(" * 900, "[a", "a**", "((a{100}){100}){100}", "a\\"])
def test_a_regular_expression_that_re2_does_not_read_is_refused(pattern: str) -> None:
    with pytest.raises(ValidationError, match="RE2 does not read"):
        audience(unary("k", "SAFE_REGEX", pattern))


@pytest.mark.parametrize("pattern", ["[[a]", "[a||b]", "(" * 500 + "a" + ")" * 500, r"\pL", "a{99999999999}"])
def test_what_python_would_warn_of_or_stumble_over_is_nobodys_business(pattern: str) -> None:
    check(audience(unary("k", "SAFE_REGEX", pattern)))


def test_a_regular_expression_cannot_hang_the_evaluator() -> None:
    assert not matches(audience(unary("k", "SAFE_REGEX", "(a+)+b")), {"k": "a" * 50_000})


# --- which two can meet ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (unary("k", "EXACT", "a"), unary("K", "EXACT", "b"), True),
        (unary("k", "EXACT", "a"), unary("j", "EXACT", "b"), False),
        (unary("k", "EXACT", "a"), unary("k", "EXACT", "a", negate=True), True),
        (unary("k", "IN", ["a", "b"]), unary("k", "IN", ["b", "c"]), False),
        (unary("k", "PREFIX", "ab"), unary("k", "PREFIX", "ac"), True),
        (unary("k", "PREFIX", "ab"), unary("k", "SUFFIX", "c"), False),
        (between("k", "1", "5"), between("k", "5.5", "6"), True),
        (between("k", "1", "5"), between("k", "5", "6"), False),
        (between("k", "1", "5"), between("k", "0", "6", negate=True), True),
        (unary("k", "ABSENT"), unary("k", "PRESENT"), True),
        (unary("k", "ABSENT"), unary("k", "ABSENT"), False),
        (unary("k", "SAFE_REGEX", "a+"), unary("k", "EXACT", "b"), True),
        (unary("k", "SAFE_REGEX", "a+"), unary("k", "SAFE_REGEX", "b+"), False),
    ],
)
def test_two_audiences_are_disjoint_where_one_header_proves_it(
    first: dict[str, Any], second: dict[str, Any], expected: bool
) -> None:
    assert disjoint(audience(first), audience(second)) is expected
    assert disjoint(audience(second), audience(first)) is expected


# --- against the meaning -----------------------------------------------------------------------------------------

keys = st.sampled_from(["k", "K", "j"])
#: As the language has operands: printable ASCII without blanks at the ends. Few letters, so that values meet.
operands = st.text("ab1.-", min_size=1, max_size=4)
numbers = st.from_regex(r"-?[0-9]{1,3}(\.[0-9]{1,2})?", fullmatch=True)
texts = st.sampled_from(["EXACT", "PREFIX", "SUFFIX", "CONTAINS"])
comparisons = st.sampled_from(["LESS_THAN", "LESS_OR_EQUAL", "GREATER_THAN", "GREATER_OR_EQUAL"])
regexes = st.sampled_from(["a+", "[ab]*1?", "(a|b)+", r"\d+", "a.*|b"])


def ranges(key: str, bounds: tuple[str, str], negate: bool) -> dict[str, Any]:
    low, high = sorted(bounds, key=float)
    return between(key, low, high, negate=negate)


conditions = st.one_of(
    st.builds(unary, keys, texts, operands, negate=st.booleans()),
    st.builds(unary, keys, comparisons, numbers, negate=st.booleans()),
    st.builds(
        unary, keys, st.just("IN"), st.lists(operands, min_size=1, max_size=7, unique=True), negate=st.booleans()
    ),
    st.builds(unary, keys, st.just("SAFE_REGEX"), regexes, negate=st.booleans()),
    st.builds(unary, keys, st.sampled_from(["PRESENT", "ABSENT"])),
    st.builds(ranges, keys, st.tuples(numbers, numbers), st.booleans()),
)
audiences = st.lists(conditions, max_size=4).map(lambda given_conditions: audience(*given_conditions))
values = st.one_of(operands, numbers, st.text("ab1.-+0é", max_size=6), st.sampled_from(["", "1.0", "+1", "01", "aab"]))
requests = st.dictionaries(st.sampled_from(["k", "j", "other"]), values)
gateways = st.sampled_from([EMBEDDED, ENVOY_GATEWAY, KGATEWAY, UNKNOWN])


@given(audiences, gateways, st.booleans(), st.lists(requests, min_size=1, max_size=10))
def test_a_gateway_takes_exactly_the_requests_of_the_audience(
    one: Audience, gateway: Any, exact: bool, headers: list[dict[str, str]]
) -> None:
    try:
        compiled = compile_audience(one, gateway, exact=exact or not gateway.regex)
    except (NotNative, ValueError):
        assume(False)
    for request in headers:
        assert taken(compiled, request) == matches(one, request)


@given(audiences, audiences, st.lists(requests, min_size=1, max_size=10))
def test_no_request_is_in_two_disjoint_audiences(a: Audience, b: Audience, headers: list[dict[str, str]]) -> None:
    if disjoint(a, b):
        assert not any(matches(a, request) and matches(b, request) for request in headers)


@given(audiences, st.lists(requests, min_size=1, max_size=10))
def test_no_request_is_in_a_refused_audience(one: Audience, headers: list[dict[str, str]]) -> None:
    try:
        check(one)
    except Unsound:
        assert not any(matches(one, request) for request in headers)
