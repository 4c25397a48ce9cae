"""What counts as a number, and how two of them are compared. Exact: nothing is rounded, and no float takes part.

`0.65 > Decimal("0.65")` is True in Python, NaN is the largest number to PostgreSQL and DuckDB, and `True > 0.65`
holds as well. So every value becomes a finite Decimal first, or a `Finding` that says why it cannot.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from decimal import Context, Decimal, Inexact, InvalidOperation
from enum import StrEnum
from typing import Any, NamedTuple

from reconciler.records import Outcome
from reconciler.warehouse import Answer, QueryError
from schemas.base import STATIC_THRESHOLD, Direction


class Reason(StrEnum):
    """Of a verdict. Where a question got no answer, the reason is that of the QueryError."""

    THRESHOLD_MET = "ThresholdMet"
    THRESHOLD_NOT_MET = "ThresholdNotMet"
    METRIC_MISSING = "MetricMissing"  #: the build logged no metric of this name
    METRIC_NOT_FINITE = "MetricNotFinite"  #: the build logged NaN or an infinity
    NOT_FINISHED = "NotFinished"  #: the build has no end, so that there is no instant to ask for
    NO_BASELINE = "NoBaseline"  #: nothing is served yet
    BASELINE_METRIC_MISSING = "BaselineMetricMissing"  #: the build that is served did not log the metric
    BASELINE_NOT_FINITE = "BaselineNotFinite"
    NO_ROWS = "NoRows"
    NOT_ONE_ROW = "NotOneRow"
    NOT_ONE_COLUMN = "NotOneColumn"
    NULL_THRESHOLD = "NullThreshold"
    NULL_METRIC = "NullMetric"  #: of a trigger
    NAN = "NaN"
    NOT_FINITE = "NotFinite"
    NOT_NUMERIC = "NotNumeric"
    NO_PROMETHEUS = "NoPrometheus"  #: the environment has none
    NO_SERIES = "NoSeries"
    NOT_ONE_SERIES = "NotOneSeries"
    NOT_ENOUGH_SAMPLES = "NotEnoughSamples"


class Finding(NamedTuple):
    """An outcome with its reason. Where a number was looked for: why there is none."""

    outcome: Outcome
    reason: str
    message: str
    retryable: bool = False

    def saying(self, message: str) -> Finding:
        """The same in other words."""
        return self._replace(message=message)


#: Of two numbers from Prometheus, which are doubles, every digit: 1.8e308 - 5e-324 has 650.
_EXACT = Context(prec=1000, traps=[Inexact, InvalidOperation])

_COMPARISONS: dict[Direction, tuple[Callable[[Decimal, Decimal], bool], str]] = {
    "ABOVE": (operator.gt, "above"),
    "BELOW": (operator.lt, "below"),
    "EQUALS": (operator.eq, "equal to"),
    "BELOW_OR_EQUALS": (operator.le, "below or equal to"),
    "ABOVE_OR_EQUALS": (operator.ge, "above or equal to"),
}


def compare(direction: Direction, value: Decimal, threshold: Decimal) -> bool:
    """Whether a finite value lies to a finite threshold as the direction says. ABOVE and BELOW are strict."""
    return _COMPARISONS[direction][0](value, threshold)


def decide(direction: Direction, value: Decimal, threshold: Decimal, what: str, limit: str) -> Finding:
    """What the comparison decides: Passed or Rejected. `what` and `limit` are the two numbers in words."""
    met = compare(direction, value, threshold)
    words = _COMPARISONS[direction][1]
    if met:
        return Finding(Outcome.PASSED, Reason.THRESHOLD_MET, f"{what} is {words} {limit}")
    rule = f" ({direction} is strict)" if direction in ("ABOVE", "BELOW") else ""
    return Finding(Outcome.REJECTED, Reason.THRESHOLD_NOT_MET, f"{what} is not {words} {limit}{rule}")


def difference(one: Decimal, other: Decimal) -> Decimal:
    """`one` minus `other`, exactly. Both from Prometheus."""
    return _EXACT.subtract(one, other)


def is_static(threshold: str) -> bool:
    """Whether a threshold is a number, and no SQL."""
    return STATIC_THRESHOLD.fullmatch(threshold) is not None


def number(text: str) -> Decimal:
    """The decimal that the text is, by the grammar of static thresholds. Raises ValueError."""
    if not is_static(text):
        raise ValueError("it is not a decimal number")
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent of more than 18 digits
        raise ValueError("its exponent is too large") from None


def number_in(answer: Answer | QueryError, *, null: Reason, cast: bool) -> Decimal | Finding:
    """The number that an answer of one row and one column holds.

    `null` is the reason for NULL, which an average over no rows is. `cast`: text that reads as a number is one.
    """
    if isinstance(answer, QueryError):
        return Finding(Outcome.ERROR, answer.reason, f"the query got no answer: {answer.message}", answer.retryable)
    # The columns first: no row of two columns is a mistake of the query, and not a lack of data.
    if len(answer.columns) != 1:
        return _mistake(Reason.NOT_ONE_COLUMN, f"the query answered {len(answer.columns)} columns instead of one")
    if not answer.rows:
        return Finding(Outcome.INCONCLUSIVE, Reason.NO_ROWS, "the query answered no row")
    if len(answer.rows) > 1:
        return _mistake(Reason.NOT_ONE_ROW, "the query answered more than one row")
    return _number(answer.rows[0][0], null, cast=cast)


def _number(cell: Any, null: Reason, *, cast: bool) -> Decimal | Finding:
    match cell:
        case None:
            return Finding(Outcome.INCONCLUSIVE, null, "the query answered NULL, as an average over no rows is")
        case bool():  # before int, which it also is
            return _mistake(Reason.NOT_NUMERIC, "the query answered a truth value instead of a number")
        case int():
            return Decimal(cell)
        case float():
            # repr, because Decimal(0.65) has 53 digits; and that of float, because a subclass has its own.
            return _finite(Decimal(float.__repr__(cell)))
        case Decimal():
            return _finite(cell)
        case str() if cast:
            try:
                return number(cell)
            except ValueError:
                return _mistake(Reason.NOT_NUMERIC, "the query answered text that does not read as a decimal number")
        case str():
            hint = "; cast it in the query, or write cast: true" if is_static(cell) else ""
            return _mistake(Reason.NOT_NUMERIC, f"the query answered text instead of a number{hint}")
    return _mistake(Reason.NOT_NUMERIC, f"the query answered {_kind(cell)} instead of a number")


def _finite(value: Decimal) -> Decimal | Finding:
    if value.is_nan():
        return Finding(Outcome.INCONCLUSIVE, Reason.NAN, "the query answered NaN, which compares with nothing")
    if value.is_infinite():
        return _mistake(Reason.NOT_FINITE, "the query answered an infinite number, as DuckDB does for a division by 0")
    return value


def _mistake(reason: Reason, message: str) -> Finding:
    return Finding(Outcome.ERROR, reason, message)


def _kind(cell: Any) -> str:
    return f"a value of type {type(cell).__name__}"


def shown(cell: Any) -> str:
    """A cell as evidence: numbers as they are. Anything else may be customers' data, and is named by its type."""
    if cell is None:
        return "NULL"
    if isinstance(cell, str) and is_static(cell) and len(cell) <= 64:
        return f"'{cell}'"
    if isinstance(cell, bool | float | Decimal) or (isinstance(cell, int) and abs(cell) < 10**64):
        return str(cell)
    return f"({type(cell).__name__})"
