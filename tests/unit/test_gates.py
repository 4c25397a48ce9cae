"""Gates and checks: every row of the value matrix, and comparison against exact rational arithmetic."""

from __future__ import annotations

import struct
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from hashlib import sha256
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reconciler.gates import (
    Asked,
    Measured,
    Measurements,
    Sample,
    Samples,
    compare,
    expressions,
    is_static,
    judge,
    judge_check,
    judge_trigger,
    number,
)
from reconciler.gates.checks import Subject
from reconciler.gates.values import difference
from reconciler.records import Build, BuildPhase, BuildRequest, BuildStatus, Cause, Identity, Outcome, Verdict
from reconciler.warehouse import Answer, Query, QueryError
from schemas.automation import DeploymentCondition, MetricTrigger
from schemas.base import Direction
from schemas.variation import Check

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SQL = "select max(value) from build_metrics where model = :model and build_id <> :build_id"
QUERY = Query(SQL, {"model": "churn", "build_id": "a" * 64, "as_of": NOW})


def build(build_id: str = "3f9a1c2e" * 8, **metrics: str) -> Build:
    return Build(
        identity=Identity(name=f"churn-build-{build_id[:8]}"),
        spec=BuildRequest(id=build_id, model="churn", environment="staging", cause=Cause(kind="Spec", at=NOW)),
        status=BuildStatus(phase=BuildPhase.SUCCEEDED, metrics=metrics, finished_at=NOW),
    )


def condition(**fields: Any) -> DeploymentCondition:
    known: dict[str, Any] = {"metric_name": "roc_auc"} | fields
    if "threshold" not in known and "variation" not in known:
        known["threshold"] = SQL
    return DeploymentCondition.model_validate(known)


def answered(*rows: tuple[Any, ...], columns: tuple[str, ...] = ("max(value)",)) -> Asked:
    return Asked(QUERY, Answer(columns, rows, "sqlite 3.40.1", SQL, 12))


def failed(reason: str, *, retryable: bool) -> Asked:
    return Asked(QUERY, QueryError(reason, "the warehouse said no", retryable=retryable))


def of_sql(asked: Asked, value: str = "0.9132", **fields: Any) -> Verdict:
    return judge(condition(**fields), build(roc_auc=value), asked, NOW)


def of_static(direction: str, value: str, threshold: str) -> Verdict:
    return judge(condition(direction=direction, threshold=threshold), build(roc_auc=value), None, NOW)


# -- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0.65", "+1", "-.5", "1e3", "1E-07", "00.10", "9" * 400])
def test_a_static_threshold_is_ascii_digits(text: str) -> None:
    assert is_static(text)
    assert number(text) == Decimal(text)


@pytest.mark.parametrize(
    "text",
    ["1_000", "٣", "nan", "inf", " 0.65", "0.65\n", "0x10", "1.", "", "1e", "--1", "0,65", "65%", "select 1"],
)
def test_what_python_would_read_as_a_number_is_not_one(text: str) -> None:
    assert not is_static(text)
    with pytest.raises(ValueError, match="not a decimal number"):
        number(text)


def test_an_exponent_that_no_decimal_has_is_an_error_and_no_crash() -> None:
    with pytest.raises(ValueError, match="exponent"):
        number("1e9999999999999999999")
    verdict = of_static("ABOVE", "1", "1e9999999999999999999")
    assert (verdict.outcome, verdict.reason, verdict.retryable) == (Outcome.ERROR, "NotNumeric", False)


DIRECTIONS = {
    "ABOVE": (False, False, True),
    "BELOW": (True, False, False),
    "EQUALS": (False, True, False),
    "BELOW_OR_EQUALS": (True, True, False),
    "ABOVE_OR_EQUALS": (False, True, True),
}


@pytest.mark.parametrize("direction", get_args(Direction))
def test_above_and_below_are_strict_and_the_others_say_what_they_are(direction: Direction) -> None:
    below, equal, above = DIRECTIONS[direction]
    assert compare(direction, Decimal("0.64"), Decimal("0.65")) is below
    assert compare(direction, Decimal("0.650"), Decimal("0.65")) is equal
    assert compare(direction, Decimal("0.66"), Decimal("0.65")) is above


def test_the_precision_of_the_context_never_rounds() -> None:
    """40 digits, where the context has 28, and where it has 1."""
    less, more = "0." + "3" * 39 + "1", "0." + "3" * 39 + "2"
    for precision in (28, 1):
        with localcontext() as context:
            context.prec = precision
            assert of_static("ABOVE", more, less).outcome is Outcome.PASSED
            assert of_static("ABOVE", less, more).outcome is Outcome.REJECTED
            assert of_static("EQUALS", less, more).outcome is Outcome.REJECTED


def test_astronomical_exponents_are_compared_without_being_written_out() -> None:
    assert of_static("ABOVE", "1e300", "1e999999999999999999").outcome is Outcome.REJECTED
    assert of_static("ABOVE", "1e300", "1e-999999999999999999").outcome is Outcome.PASSED


RATIONAL = {
    "ABOVE": Fraction.__gt__,
    "BELOW": Fraction.__lt__,
    "EQUALS": Fraction.__eq__,
    "BELOW_OR_EQUALS": Fraction.__le__,
    "ABOVE_OR_EQUALS": Fraction.__ge__,
}
DOUBLES = st.floats(allow_nan=False, allow_infinity=False).map(repr)
#: What numpy writes of a float32: the shortest text that leads back to it, which is no text of the double.
SINGLES = st.floats(allow_nan=False, allow_infinity=False, width=32).map(
    lambda value: next(text for p in range(1, 10) if single(text := f"{value:.{p}g}") == value)
)
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, places=30, min_value=-2, max_value=2).map(str)
NUMBERS = st.one_of(DOUBLES, SINGLES, DECIMALS, st.sampled_from(["0.65", "0.650", ".65", "+0.65", "65e-2", "-0"]))


def single(text: str) -> float:
    try:
        value: float = struct.unpack("f", struct.pack("f", float(text)))[0]
    except OverflowError:
        return float("inf")
    return value


@given(value=NUMBERS, threshold=NUMBERS, direction=st.sampled_from(get_args(Direction)))
@example(value="0.65", threshold="0.650", direction="ABOVE")
@example(value="0.6499999761581421", threshold="0.65", direction="ABOVE_OR_EQUALS")
def test_a_gate_agrees_with_exact_rational_arithmetic(value: str, threshold: str, direction: Direction) -> None:
    met = RATIONAL[direction](Fraction(value), Fraction(threshold))
    verdict = of_static(direction, value, threshold)
    assert verdict.outcome is (Outcome.PASSED if met else Outcome.REJECTED)
    assert Fraction(verdict.value) == Fraction(value)
    assert Fraction(verdict.threshold) == Fraction(threshold)


@given(value=NUMBERS, threshold=st.floats(allow_nan=False, allow_infinity=False))
@example(value="0.65", threshold=0.65)
def test_a_float_of_a_driver_is_the_number_that_it_prints(value: str, threshold: float) -> None:
    """Python has 0.65 > Decimal("0.65"), because the float is a little more than it prints."""
    met = Fraction(value) > Fraction(repr(threshold))
    verdict = of_sql(answered((threshold,)), value)
    assert verdict.outcome is (Outcome.PASSED if met else Outcome.REJECTED)


@given(one=st.floats(allow_nan=False, allow_infinity=False), other=st.floats(allow_nan=False, allow_infinity=False))
@example(one=1.7976931348623157e308, other=5e-324)
@example(one=0.3, other=0.1)
def test_a_difference_keeps_every_digit(one: float, other: float) -> None:
    exact = difference(Decimal(repr(one)), Decimal(repr(other)))
    assert Fraction(exact) == Fraction(repr(one)) - Fraction(repr(other))


# -- the matrix: a build's metric against SQL -----------------------------------------------------------------------

NAN, INFINITY = float("nan"), float("inf")

MATRIX: dict[str, tuple[Asked, str, str, bool]] = {
    "no row": (answered(), "Inconclusive", "NoRows", False),
    "two rows": (answered((0.9,), (0.8,)), "Error", "NotOneRow", False),
    "no column": (answered(columns=()), "Error", "NotOneColumn", False),
    "two columns": (answered((0.9, 0.8), columns=("a", "b")), "Error", "NotOneColumn", False),
    "two columns and no row": (answered(columns=("a", "b")), "Error", "NotOneColumn", False),
    "NULL": (answered((None,)), "Inconclusive", "NullThreshold", False),
    "NaN as a float": (answered((NAN,)), "Inconclusive", "NaN", False),
    "NaN as a Decimal": (answered((Decimal("NaN"),)), "Inconclusive", "NaN", False),
    "signalling NaN": (answered((Decimal("sNaN"),)), "Inconclusive", "NaN", False),
    "infinity as a float": (answered((INFINITY,)), "Error", "NotFinite", False),
    "minus infinity as a Decimal": (answered((Decimal("-Infinity"),)), "Error", "NotFinite", False),
    "true": (answered((True,)), "Error", "NotNumeric", False),
    "false": (answered((False,)), "Error", "NotNumeric", False),
    "text": (answered(("high",)), "Error", "NotNumeric", False),
    "text that reads as a number": (answered(("0.5",)), "Error", "NotNumeric", False),
    "a date": (answered((date(2026, 3, 1),)), "Error", "NotNumeric", False),
    "an instant": (answered((NOW,)), "Error", "NotNumeric", False),
    "an interval": (answered((timedelta(1),)), "Error", "NotNumeric", False),
    "bytes": (answered((b"1",)), "Error", "NotNumeric", False),
    "a list": (answered(([1],)), "Error", "NotNumeric", False),
    "timeout": (failed("Timeout", retryable=True), "Error", "Timeout", True),
    "connection lost": (failed("Unavailable", retryable=True), "Error", "Unavailable", True),
    "permission": (failed("Permission", retryable=False), "Error", "Permission", False),
    "syntax": (failed("Syntax", retryable=False), "Error", "Syntax", False),
    "an int that is less": (answered((0,)), "Passed", "ThresholdMet", False),
    "an int that is more": (answered((1,)), "Rejected", "ThresholdNotMet", False),
    "a float that is less": (answered((0.9131,)), "Passed", "ThresholdMet", False),
    "a Decimal that is equal": (answered((Decimal("0.91320"),)), "Rejected", "ThresholdNotMet", False),
}


@pytest.mark.parametrize("row", MATRIX)
def test_the_value_matrix(row: str) -> None:
    asked, outcome, reason, retryable = MATRIX[row]
    verdict = of_sql(asked)
    assert (verdict.outcome, verdict.reason, verdict.retryable) == (outcome, reason, retryable)
    assert verdict.message
    assert verdict.query == SQL


@pytest.mark.parametrize("row", MATRIX)
def test_on_no_baseline_lets_only_a_lack_of_data_pass(row: str) -> None:
    asked, outcome, reason, _ = MATRIX[row]
    verdict = of_sql(asked, on_no_baseline="pass")
    assert verdict.reason == reason
    assert verdict.outcome == ("Passed" if row in ("no row", "NULL") else outcome)


@pytest.mark.parametrize(
    ("text", "outcome", "reason"),
    [
        ("0.5", "Passed", "ThresholdMet"),
        ("9.5e-1", "Rejected", "ThresholdNotMet"),
        ("NaN", "Error", "NotNumeric"),
        ("Infinity", "Error", "NotNumeric"),
        (" 0.5", "Error", "NotNumeric"),
        ("1_0", "Error", "NotNumeric"),
    ],
)
def test_cast_reads_text_by_the_strict_grammar(text: str, outcome: str, reason: str) -> None:
    verdict = of_sql(answered((text,)), cast=True)
    assert (verdict.outcome, verdict.reason) == (outcome, reason)


def test_cast_does_not_make_a_number_of_a_truth_value() -> None:
    assert of_sql(answered((True,)), cast=True).reason == "NotNumeric"


def test_a_rejection_says_the_numbers_and_the_rule() -> None:
    verdict = of_sql(answered((0.9207,)))
    assert verdict.message == "roc_auc 0.9132 is not above 0.9207 (ABOVE is strict), the answer of the query"


def test_a_pass_says_the_numbers() -> None:
    assert of_static("BELOW_OR_EQUALS", "0.30", "0.3").message == "roc_auc 0.30 is below or equal to 0.3"


def test_the_evidence_is_all_that_the_verdict_was_made_from() -> None:
    verdict = judge(condition(), build(roc_auc="0.9132"), answered((Decimal("0.9207"),)), NOW, attempt=3)
    assert verdict.model_dump() | {"message": ""} == {
        "outcome": "Rejected",
        "reason": "ThresholdNotMet",
        "message": "",
        "name": "",
        "at": NOW.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "attempt": 3,
        "metric": "roc_auc",
        "value": "0.9132",
        "threshold": "0.9207",
        "direction": "ABOVE",
        "query": SQL,
        "ran": "",
        "query_sha256": "85412ba3592eea8b53346414d5ab010152d08c7bcb043bae1351a539fcd33250",
        "parameters": {"model": "churn", "build_id": "a" * 64, "as_of": "2026-03-01T12:00:00+00:00"},
        "engine": "sqlite 3.40.1",
        "row": ("0.9207",),
        "duration_ms": 12,
        "samples": "",
        "retryable": False,
        "dry_run": False,
    }


def test_the_query_is_shown_as_it_was_written_and_what_ran_is_kept_beside_it() -> None:
    """People must find their own words again; a machine asks whether the same statement ran."""
    ran = "SELECT MAX(value) FROM (SELECT * FROM build_metrics WHERE build_id <> $build_id) AS build_metrics"
    verdict = of_sql(Asked(QUERY, Answer(("max(value)",), ((0.9207,),), "duckdb", ran, 12)))
    assert (verdict.query, verdict.ran) == (SQL, ran)
    assert verdict.query_sha256 == sha256(ran.encode()).hexdigest()


def test_what_got_no_answer_is_known_as_it_was_written() -> None:
    verdict = of_sql(failed("Syntax", retryable=False))
    assert (verdict.query, verdict.ran) == (SQL, "")
    assert verdict.query_sha256 == sha256(SQL.encode()).hexdigest()


def test_customers_data_that_a_wrong_query_answers_is_no_evidence() -> None:
    verdict = of_sql(answered(("anna@example.com", b"secret", 7), columns=("a", "b", "c")))
    assert verdict.row == ("(str)", "(bytes)", "7")
    assert "anna" not in verdict.model_dump_json()


def test_a_dry_run_is_judged_and_says_that_it_is_one() -> None:
    verdict = of_sql(answered((0.9207,)), dry_run=True)
    assert (verdict.outcome, verdict.dry_run) == (Outcome.REJECTED, True)


# -- the metric of the build ------------------------------------------------------------------------------------------


def test_a_metric_that_was_never_logged_is_rejected_with_the_names_that_were() -> None:
    verdict = judge(condition(metric_name="roc_auk"), build(roc_auc="0.9", f1="0.8"), answered((0.5,)), NOW)
    assert (verdict.outcome, verdict.reason, verdict.value) == (Outcome.REJECTED, "MetricMissing", "")
    assert verdict.message == "build 3f9a1c2e logged no metric roc_auk, only f1 and roc_auc; is roc_auc meant?"


def test_a_build_without_metrics_is_rejected() -> None:
    assert judge(condition(), build(), answered((0.5,)), NOW).message == "build 3f9a1c2e logged no metric roc_auc"


def test_a_thousand_logged_names_do_not_make_a_sentence_of_a_thousand() -> None:
    many = {f"m{number:04}": "1" for number in range(1000)}
    message = judge(condition(), build(**many), answered((0.5,)), NOW).message
    assert "m0011 and 988 more" in message


@pytest.mark.parametrize("logged", ["NaN", "nan", "Infinity", "-inf", "1_000", ""])
def test_a_metric_that_is_not_finite_is_the_builds_fault(logged: str) -> None:
    verdict = of_sql(answered((0.5,)), logged)
    assert (verdict.outcome, verdict.reason) == (Outcome.REJECTED, "MetricNotFinite")


def test_a_missing_metric_decides_before_a_missing_answer() -> None:
    """Nothing that the warehouse could still say would mend it."""
    verdict = judge(condition(), build(f1="0.8"), failed("Timeout", retryable=True), NOW)
    assert verdict.outcome is Outcome.REJECTED


# -- against the build that is served ---------------------------------------------------------------------------------


def against(served: Build | None, value: str = "0.9", **fields: Any) -> Verdict:
    return judge(condition(variation="default", **fields), build(roc_auc=value), served, NOW)


def test_the_build_that_is_served_is_the_threshold() -> None:
    served = build("1a2b3c4d" * 8, roc_auc="0.85")
    verdict = against(served)
    assert (verdict.outcome, verdict.threshold) == (Outcome.PASSED, "0.85")
    assert verdict.message == "roc_auc 0.9 is above 0.85, that of build 1a2b3c4d, which variation default serves"
    assert against(served, "0.85").outcome is Outcome.REJECTED
    assert against(served, "0.85", direction="ABOVE_OR_EQUALS").outcome is Outcome.PASSED


def test_without_a_build_that_is_served_on_no_baseline_decides() -> None:
    held, passed = against(None), against(None, on_no_baseline="pass")
    assert (held.outcome, held.reason) == (Outcome.INCONCLUSIVE, "NoBaseline")
    assert (passed.outcome, passed.reason) == (Outcome.PASSED, "NoBaseline")


@pytest.mark.parametrize("on_no_baseline", ["hold", "pass"])
@pytest.mark.parametrize(
    ("metrics", "reason"), [({"f1": "0.8"}, "BaselineMetricMissing"), ({"roc_auc": "NaN"}, "BaselineNotFinite")]
)
def test_a_served_build_with_nothing_to_compare_is_held(
    metrics: dict[str, str], reason: str, on_no_baseline: str
) -> None:
    """It is there, so it is not the first build: on_no_baseline does not speak of it."""
    verdict = against(build("1a2b3c4d" * 8, **metrics), on_no_baseline=on_no_baseline)
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, reason)


# -- triggers ---------------------------------------------------------------------------------------------------------


def triggered(value: Asked, threshold: Asked | None = None) -> Verdict:
    text = "0.2" if threshold is None else SQL
    trigger = MetricTrigger.model_validate({"sql_query": SQL, "direction": "ABOVE", "threshold": text})
    return judge_trigger(trigger, value, threshold, NOW)


@pytest.mark.parametrize(
    ("value", "threshold", "outcome", "reason"),
    [
        (answered((0.3,)), None, "Passed", "ThresholdMet"),
        (answered((0.2,)), None, "Rejected", "ThresholdNotMet"),
        (answered((None,)), None, "Inconclusive", "NullMetric"),
        (answered(), None, "Inconclusive", "NoRows"),
        (answered((NAN,)), None, "Inconclusive", "NaN"),
        (answered(("0.3",)), None, "Error", "NotNumeric"),
        (failed("Timeout", retryable=True), None, "Error", "Timeout"),
        (answered((0.3,)), answered((0.1,)), "Passed", "ThresholdMet"),
        (answered((0.3,)), answered((0.4,)), "Rejected", "ThresholdNotMet"),
        (answered((0.3,)), answered((None,)), "Inconclusive", "NullThreshold"),
        (answered((0.3,)), failed("Syntax", retryable=False), "Error", "Syntax"),
    ],
)
def test_a_trigger_starts_a_run_only_when_its_metric_has_crossed(
    value: Asked, threshold: Asked | None, outcome: str, reason: str
) -> None:
    verdict = triggered(value, threshold)
    assert (verdict.outcome, verdict.reason) == (outcome, reason)


def test_a_trigger_says_which_of_its_queries_has_no_answer() -> None:
    assert triggered(answered(("x",))).message.startswith("the metric: the query answered text")
    assert triggered(answered((1,)), answered()).message == "the threshold: the query answered no row"
    assert triggered(answered((0.3,))).message == "the metric 0.3 is above 0.2"


# -- checks of a canary -----------------------------------------------------------------------------------------------

NEW, CURRENT = (Subject("production", "churn", "default", build_id) for build_id in ("3f9a1c2e", "1a2b3c4d"))


def check(**fields: Any) -> Check:
    known: dict[str, Any] = {"name": "errors", "threshold": "1", "min_samples": 100} | fields
    if "query" not in known:
        known.setdefault("metric", "error_rate")
    return Check.model_validate(known)


def measured(*values: str) -> Measured:
    series = tuple(Sample({"code": str(number)}, value) for number, value in enumerate(values))
    return Measured("up", Samples(series, 3))


def lost(reason: str, *, retryable: bool) -> Measured:
    return Measured("up", QueryError(reason, "prometheus:9090 said no", retryable=retryable))


ENOUGH = measured("1000")

CHECKS: dict[str, tuple[Measurements, str, str, bool]] = {
    "fine": (Measurements(measured("0.5"), None, ENOUGH), "Passed", "ThresholdMet", False),
    "too many errors": (Measurements(measured("2.5"), None, ENOUGH), "Rejected", "ThresholdNotMet", False),
    "exactly at the threshold": (Measurements(measured("1"), None, ENOUGH), "Rejected", "ThresholdNotMet", False),
    "exactly min_samples": (Measurements(measured("0"), None, measured("100")), "Passed", "ThresholdMet", False),
    "one request too few, all of them failed": (
        Measurements(measured("100"), None, measured("99")),
        "Inconclusive",
        "NotEnoughSamples",
        False,
    ),
    "no request": (Measurements(measured("NaN"), None, measured("0")), "Inconclusive", "NotEnoughSamples", False),
    "nobody scrapes it": (Measurements(measured(), None, measured()), "Inconclusive", "NoSeries", False),
    "only its requests are there": (Measurements(measured(), None, ENOUGH), "Inconclusive", "NoSeries", False),
    "0 of 0": (Measurements(measured("NaN"), None, ENOUGH), "Inconclusive", "NaN", False),
    "division by zero": (Measurements(measured("+Inf"), None, ENOUGH), "Error", "NotFinite", True),
    "several series": (Measurements(measured("0", "1"), None, ENOUGH), "Error", "NotOneSeries", False),
    "Prometheus is down": (
        Measurements(lost("Unavailable", retryable=True), None, lost("Unavailable", retryable=True)),
        "Error",
        "Unavailable",
        True,
    ),
    "Prometheus went down in between": (
        Measurements(lost("Timeout", retryable=True), None, ENOUGH),
        "Error",
        "Timeout",
        True,
    ),
    "wrong query": (Measurements(lost("Syntax", retryable=False), None, ENOUGH), "Error", "Syntax", False),
    "an exponent": (Measurements(measured("1e-06"), None, measured("1e+06")), "Passed", "ThresholdMet", False),
}


@pytest.mark.parametrize("row", CHECKS)
def test_the_matrix_of_checks(row: str) -> None:
    measurements, outcome, reason, retryable = CHECKS[row]
    verdict = judge_check(check(), measurements, NOW)
    assert (verdict.outcome, verdict.reason, verdict.retryable) == (outcome, reason, retryable)


def test_a_check_that_wants_no_samples_counts_none() -> None:
    wanted = check(min_samples=0)
    assert expressions(wanted, NEW, None).requests is None
    assert judge_check(wanted, Measurements(measured("0.5")), NOW).outcome is Outcome.PASSED


def test_a_check_says_the_numbers_the_rule_and_how_much_it_saw() -> None:
    verdict = judge_check(check(), Measurements(measured("2.5"), None, measured("1e+03")), NOW)
    assert verdict.message == "error_rate 2.5 % is not below 1 % (BELOW is strict), over 5m and 1000 requests"
    assert (verdict.value, verdict.threshold, verdict.samples, verdict.name) == ("2.5", "1", "1000", "errors")


@pytest.mark.parametrize(
    ("new", "current", "outcome", "reason"),
    [
        ("2.5", "2.4", "Passed", "ThresholdMet"),
        ("3.4", "2.4", "Rejected", "ThresholdNotMet"),
        ("0.3", "9", "Passed", "ThresholdMet"),
        ("0.3", "NaN", "Inconclusive", "NaN"),
        ("NaN", "0.3", "Inconclusive", "NaN"),
    ],
)
def test_relative_to_current_compares_the_difference(new: str, current: str, outcome: str, reason: str) -> None:
    measurements = Measurements(measured(new), measured(current), ENOUGH)
    verdict = judge_check(check(relative_to_current=True), measurements, NOW)
    assert (verdict.outcome, verdict.reason) == (outcome, reason)


def test_a_difference_of_decimals_is_exact() -> None:
    """In floats 0.3 - 0.1 is 0.19999999999999998, which is below 0.2."""
    wanted = check(relative_to_current=True, threshold="0.2")
    verdict = judge_check(wanted, Measurements(measured("0.3"), measured("0.1"), ENOUGH), NOW)
    assert verdict.outcome is Outcome.REJECTED
    assert verdict.message == (
        "error_rate 0.3 % less the current build's 0.1 % is 0.2 %, which is not below 0.2 % (BELOW is strict), "
        "over 5m and 1000 requests"
    )
    assert verdict.row == ("0.3", "0.1")


def test_relative_to_a_build_that_is_not_there_is_inconclusive() -> None:
    wanted = check(relative_to_current=True)
    asked = expressions(wanted, NEW, None)
    verdict = judge_check(wanted, Measurements(measured("0"), None, ENOUGH), NOW)
    assert asked.current is None
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, "NoBaseline")


def test_several_series_are_told_apart_by_name() -> None:
    verdict = judge_check(check(), Measurements(measured("0", "1"), None, ENOUGH), NOW)
    assert "2 series where one is wanted, apart in code" in verdict.message


def test_the_placeholders_of_a_query_are_filled_in_and_other_dollars_left_alone() -> None:
    query = 'sum(x{b="$build_id",v=~"$variation.*$",n="$namespace",o="$other",w="$windows"}) + rate(y[$window])'
    asked = expressions(check(query=query, relative_to_current=True, window="90s"), NEW, CURRENT)
    assert asked.value == ('sum(x{b="3f9a1c2e",v=~"default.*$",n="production",o="$other",w="$windows"}) + rate(y[90s])')
    assert asked.current is not None
    assert 'b="1a2b3c4d"' in asked.current


def test_a_placeholder_cannot_leave_its_string() -> None:
    """Specs cannot name such a variation; a record that was edited by hand can."""
    wild = Subject("production", "churn", 'x"} or vector(0) #', "3f9a1c2e")
    asked = expressions(check(query='x{v="$variation"}'), wild, None)
    assert asked.value.count('"') == 2
