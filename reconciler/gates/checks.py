"""What Prometheus says of a build under traffic: the questions to it, and what its answers mean. Pure.

A build is told apart by its pods, whose names begin with the name of its Deployment. What is measured lags behind the
traffic by up to the interval of two scrapes (`renderers.metrics.SCRAPE_SECONDS`), so a step should hold for longer than
the window of its checks. What a pod has answered before it was first scraped is not seen. A pod that has gone counts
for as long as the window holds its samples.

Silence never rejects and never passes: no series, NaN and too few requests are Inconclusive.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from typing import NamedTuple

from reconciler.gates.values import Finding, Reason, decide, difference, number
from reconciler.records import Outcome, Verdict
from reconciler.specs.wording import listed
from reconciler.warehouse import QueryError
from renderers import names
from renderers.metrics import DURATION, REQUESTS, pods_of
from schemas.variation import Check


class Sample(NamedTuple):
    """One series of an answer. `value` as Prometheus wrote it, such as "2.5", "1e+06", "NaN", "+Inf"."""

    labels: Mapping[str, str]
    value: str


class Samples(NamedTuple):
    """An answer."""

    series: tuple[Sample, ...]
    duration_ms: int


class Measured(NamedTuple):
    """A question to Prometheus, and what came of it."""

    expression: str
    answer: Samples | QueryError


class Subject(NamedTuple):
    """The build that is measured. `build_id`: its 8 hex digits."""

    namespace: str
    model: str
    variation: str
    build_id: str


class Expressions(NamedTuple):
    """The questions of one check, in PromQL. None where it does not ask."""

    value: str
    current: str | None  #: the same of the current build
    requests: str | None


class Measurements(NamedTuple):
    """The answers, all of one instant."""

    value: Measured
    current: Measured | None = None
    requests: Measured | None = None


def expressions(check: Check, new: Subject, current: Subject | None) -> Expressions:
    """What Prometheus is asked for a check. `current` is None where no build is served yet."""
    return Expressions(
        _expression(check, new),
        _expression(check, current) if check.relative_to_current and current is not None else None,
        f"round(sum({_counted(f'{REQUESTS}{{{_pods(new)}}}', check.window)}))" if check.min_samples else None,
    )


def _pods(subject: Subject) -> str:
    return pods_of(subject.namespace, names.served_name(subject.model, subject.variation, subject.build_id))


def _expression(check: Check, subject: Subject) -> str:
    """An error is what the alert on errors counts: an answer of 500 or above. One of 4xx is its sender's."""
    if check.query is not None:
        return _filled(check.query, subject, check.window)
    pods = _pods(subject)

    def counted(name: str, *more: str) -> str:
        return _counted(f"{name}{{{','.join((pods, *more))}}}", check.window)

    if check.metric == "error_rate":
        # No `or 0`: a server begins all its codes at zero, so where none of them is there, nobody has looked.
        measured = f"""100 * sum({counted(REQUESTS, 'code=~"5.."')}) / sum({counted(REQUESTS)})"""
    elif check.metric == "latency_avg":
        measured = f"1000 * sum({counted(f'{DURATION}_sum')}) / sum({counted(f'{DURATION}_count')})"
    else:
        quantile = (check.metric or "").removeprefix("latency_p")
        measured = f"1000 * histogram_quantile(0.{quantile}, sum by (le) ({counted(f'{DURATION}_bucket')}))"
    # 25 of 1,000 are 2.5 %, and not the 2.4999999999999996 that doubles make of it and that is below 2.5.
    return f"round({measured}, 0.000001)"


def _counted(counter: str, window: str) -> str:
    """How far each series of a counter has come in the window.

    `increase` estimates the edges of the window. That is a tenth and more for a pod that is new, as those of a canary
    are, and another part at each pod: 25 of 1,000 would be 2.4 %. So it is left to counters that began anew.
    """
    series = f"{counter}[{window}]"
    return f"max_over_time({series}) - min_over_time({series}) and resets({series}) == 0 or increase({series})"


_PLACEHOLDER = re.compile(r"\$(build_id|variation|namespace|window)\b")


def _filled(query: str, subject: Subject, window: str) -> str:
    """The query with its placeholders filled in, quoted as inside a string. Any other `$` is PromQL's own."""
    values = {
        "build_id": subject.build_id,
        "variation": subject.variation,
        "namespace": subject.namespace,
        "window": window,
    }
    return _PLACEHOLDER.sub(lambda found: _quoted(values[found[1]]), query)


def _quoted(value: str) -> str:
    """Escaped as the Go strings that PromQL has, whichever quotation marks are around it."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else f"\\u{ord(c):04x}" for c in value)


def judge_check(check: Check, measured: Measurements, now: datetime, attempt: int = 1) -> Verdict:
    """The verdict of one check at one instant."""
    value = _sample(measured.value, "the new build")
    requests = _sample(measured.requests, "the new build") if measured.requests is not None else None
    finding = _finding(check, measured, value, requests)
    asked = measured.value
    return Verdict(
        outcome=finding.outcome,
        reason=str(finding.reason),
        message=finding.message,
        retryable=finding.retryable,
        name=check.name,
        at=now,
        attempt=attempt,
        metric=check.metric or "query",
        value="" if isinstance(value, Finding) else str(value),
        threshold=check.threshold,
        direction=check.direction,
        query=asked.expression,
        query_sha256=sha256(asked.expression.encode()).hexdigest(),
        parameters={"current": measured.current.expression} if measured.current is not None else {},
        engine="prometheus",
        row=tuple(
            sample.value
            for one in (measured.value, measured.current)
            if one is not None and isinstance(one.answer, Samples)
            for sample in one.answer.series[:4]
        ),
        duration_ms=sum(one.answer.duration_ms for one in measured if one and isinstance(one.answer, Samples)),
        samples="" if requests is None or isinstance(requests, Finding) else f"{requests:f}",
    )


def _finding(
    check: Check, measured: Measurements, value: Decimal | Finding, requests: Decimal | Finding | None
) -> Finding:
    what, unit = check.metric or "the query's answer", _unit(check)
    if isinstance(requests, Finding):
        return requests.saying(f"requests: {requests.message}")
    if requests is not None and requests < check.min_samples:
        message = f"{requests:f} requests in {check.window} are fewer than the {check.min_samples} of min_samples"
        return Finding(Outcome.INCONCLUSIVE, Reason.NOT_ENOUGH_SAMPLES, message)
    if isinstance(value, Finding):
        return value.saying(f"{what}: {value.message}")
    try:
        threshold = number(check.threshold)
    except ValueError as error:
        message = f"the threshold {check.threshold} cannot be compared: {error}"
        return Finding(Outcome.ERROR, Reason.NOT_NUMERIC, message)
    over = f", over {check.window}" + (f" and {requests:f} requests" if requests is not None else "")
    limit, told = f"{threshold}{unit}", f"{what} {value}{unit}"
    if not check.relative_to_current:
        decided = decide(check.direction, value, threshold, told, limit)
        return decided.saying(decided.message + over)
    if measured.current is None:
        return Finding(Outcome.INCONCLUSIVE, Reason.NO_BASELINE, "no build is served yet, so there is none to compare")
    current = _sample(measured.current, "the current build")
    if isinstance(current, Finding):
        return current.saying(f"{what}: {current.message}")
    change = difference(value, current)
    told += f" less the current build's {current}{unit} is {change:f}{unit}, which"
    decided = decide(check.direction, change, threshold, told, limit)
    return decided.saying(decided.message + over)


def _unit(check: Check) -> str:
    if check.metric is None:
        return ""
    return " %" if check.metric == "error_rate" else " ms"


def _sample(measured: Measured, whose: str) -> Decimal | Finding:
    """The one finite number of an answer."""
    answer = measured.answer
    if isinstance(answer, QueryError):
        message = f"{whose} could not be measured: {answer.message}"
        return Finding(Outcome.ERROR, answer.reason, message, answer.retryable)
    if not answer.series:
        message = f"Prometheus has no series of {whose}: its pods may not have been scraped yet"
        return Finding(Outcome.INCONCLUSIVE, Reason.NO_SERIES, message)
    if len(answer.series) > 1:
        apart = sorted(
            name
            for name in {name for sample in answer.series for name in sample.labels}
            if len({sample.labels.get(name) for sample in answer.series}) > 1
        )
        message = f"the query has {len(answer.series)} series where one is wanted, apart in {listed(apart)}; sum them"
        return Finding(Outcome.ERROR, Reason.NOT_ONE_SERIES, message)
    text = answer.series[0].value
    if text == "NaN":
        return Finding(Outcome.INCONCLUSIVE, Reason.NAN, f"of {whose} it is NaN, as 0 of 0 requests are")
    if text in ("+Inf", "-Inf"):
        # Another window may divide by something else than zero.
        return Finding(Outcome.ERROR, Reason.NOT_FINITE, f"of {whose} it is {text}", retryable=True)
    try:
        return number(text)
    except ValueError as error:
        return Finding(Outcome.ERROR, Reason.NOT_NUMERIC, f"Prometheus said {text[:64]!r} of {whose}, and {error}")
