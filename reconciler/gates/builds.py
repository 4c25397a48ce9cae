"""A build's metric against its threshold, and an automation's metric against its own. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any, NamedTuple

from reconciler.gates.values import Finding, Reason, decide, number, number_in, shown
from reconciler.records import Build, Outcome, Verdict
from reconciler.specs.wording import listed
from reconciler.warehouse import Answer, Query, QueryError
from schemas.automation import DeploymentCondition, MetricTrigger
from schemas.spelling import nearest

#: Names of metrics in a sentence.
_NAMES = 12


class Asked(NamedTuple):
    """A question to the warehouse, and what came of it."""

    query: Query
    answer: Answer | QueryError


def judge(
    condition: DeploymentCondition, build: Build, baseline: Asked | Build | None, now: datetime, attempt: int = 1
) -> Verdict:
    """The verdict of a gate.

    `baseline`: for SQL what was asked; for `condition.variation` the build that this variation serves, or None where
    it serves none; None for a static threshold.
    """
    metric, threshold = _metric(condition, build), _threshold(condition, baseline)
    if isinstance(metric, Finding):
        finding = metric
    elif isinstance(threshold, Finding):
        finding = threshold
    else:
        what = f"{condition.metric_name} {build.status.metrics[condition.metric_name]}"
        decided = decide(condition.direction, metric, threshold, what, str(threshold))
        finding = decided.saying(decided.message + _source(condition, baseline))
    return _verdict(
        finding,
        baseline if isinstance(baseline, Asked) else None,
        at=now,
        attempt=attempt,
        metric=condition.metric_name,
        value=build.status.metrics.get(condition.metric_name, ""),
        threshold="" if isinstance(threshold, Finding) else str(threshold),
        direction=condition.direction,
        dry_run=condition.dry_run,
    )


def threshold_of(answer: Answer | QueryError, condition: DeploymentCondition) -> Decimal | Finding:
    """The threshold that an answer to SQL holds, or what is to be done without one."""
    return _without(condition, number_in(answer, null=Reason.NULL_THRESHOLD, cast=condition.cast))


def judge_trigger(trigger: MetricTrigger, value: Asked, threshold: Asked | None, now: datetime) -> Verdict:
    """Whether an automation's metric has crossed its threshold: Passed starts a run, nothing else does.

    `threshold` is None for a static one.
    """
    measured = number_in(value.answer, null=Reason.NULL_METRIC, cast=False)
    if threshold is None:
        limit = _static(trigger.threshold)
    else:
        limit = number_in(threshold.answer, null=Reason.NULL_THRESHOLD, cast=False)
    evidence = value
    if isinstance(measured, Finding):
        finding = measured.saying(f"the metric: {measured.message}")
    elif isinstance(limit, Finding):
        finding, evidence = limit.saying(f"the threshold: {limit.message}"), threshold or value
    else:
        finding = decide(trigger.direction, measured, limit, f"the metric {measured}", str(limit))
    return _verdict(
        finding,
        evidence,
        at=now,
        value="" if isinstance(measured, Finding) else str(measured),
        threshold="" if isinstance(limit, Finding) else str(limit),
        direction=trigger.direction,
    )


def _metric(condition: DeploymentCondition, build: Build) -> Decimal | Finding:
    name, logged = condition.metric_name, build.status.metrics
    if name not in logged:
        names = sorted(logged)
        message = f"build {build.short} logged no metric {name}"
        if names:
            more = [f"{len(names) - _NAMES} more"] if len(names) > _NAMES else []
            message += f", only {listed([*names[:_NAMES], *more])}"
        if meant := nearest(name, names):
            message += f"; is {meant} meant?"
        return Finding(Outcome.REJECTED, Reason.METRIC_MISSING, message)
    value = _logged(logged[name])
    if value is None:
        message = f"build {build.short} logged {name} as {logged[name][:64]}, which is no finite number"
        return Finding(Outcome.REJECTED, Reason.METRIC_NOT_FINITE, message)
    return value


def _threshold(condition: DeploymentCondition, baseline: Asked | Build | None) -> Decimal | Finding:
    if isinstance(baseline, Asked):
        return threshold_of(baseline.answer, condition)
    if condition.threshold is not None:
        return _static(condition.threshold)
    if baseline is None:
        message = f"variation {condition.variation} serves no build yet"
        return _without(condition, Finding(Outcome.INCONCLUSIVE, Reason.NO_BASELINE, message))
    name, logged = condition.metric_name, baseline.status.metrics
    served = f"build {baseline.short}, which variation {condition.variation} serves,"
    if name not in logged:
        message = f"{served} logged no metric {name}"
        return Finding(Outcome.INCONCLUSIVE, Reason.BASELINE_METRIC_MISSING, message)
    value = _logged(logged[name])
    if value is None:
        message = f"{served} logged {name} as {logged[name][:64]}, which is no finite number"
        return Finding(Outcome.INCONCLUSIVE, Reason.BASELINE_NOT_FINITE, message)
    return value


def _static(threshold: str) -> Decimal | Finding:
    try:
        return number(threshold)
    except ValueError as error:
        return Finding(Outcome.ERROR, Reason.NOT_NUMERIC, f"the threshold {threshold[:64]} cannot be compared: {error}")


def _logged(text: str) -> Decimal | None:
    """A metric of a record, which has what the model's code logged: any float. None where it is not finite."""
    try:
        return number(text)
    except ValueError:
        return None


def _without(condition: DeploymentCondition, found: Decimal | Finding) -> Decimal | Finding:
    """Where nothing is there to compare with yet, as `on_no_baseline` says. All else stays as it is."""
    if (
        isinstance(found, Finding)
        and found.reason in (Reason.NO_ROWS, Reason.NULL_THRESHOLD, Reason.NO_BASELINE)
        and condition.on_no_baseline == "pass"
    ):
        return found._replace(
            outcome=Outcome.PASSED, message=f"{found.message}; without a baseline it passes (on_no_baseline: pass)"
        )
    return found


def _source(condition: DeploymentCondition, baseline: Asked | Build | None) -> str:
    if isinstance(baseline, Asked):
        return ", the answer of the query"
    if isinstance(baseline, Build):
        return f", that of build {baseline.short}, which variation {condition.variation} serves"
    return ""


def _verdict(finding: Finding, asked: Asked | None, **fields: Any) -> Verdict:
    if asked is not None:
        query, answer = asked
        ran = answer.sql if isinstance(answer, Answer) else query.sql
        fields |= {
            "query": query.sql,
            "ran": "" if ran == query.sql else ran,
            "query_sha256": sha256(ran.encode()).hexdigest(),
            "parameters": {name: _bound(value) for name, value in query.parameters.items()},
        }
        if isinstance(answer, Answer):
            fields |= {
                "engine": answer.engine,
                "row": tuple(shown(cell) for row in answer.rows[:1] for cell in row[:8]),
                "duration_ms": answer.duration_ms,
            }
    return Verdict(
        outcome=finding.outcome,
        reason=str(finding.reason),
        message=finding.message,
        retryable=finding.retryable,
        **fields,
    )


def _bound(value: str | datetime) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
