"""Asks what a verdict needs, and judges: the warehouse for a gate and a trigger, Prometheus for a canary's checks.

Nothing is written here, and nothing raised: a question without an answer is a verdict too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import datetime, timedelta

from reconciler.gates import Asked, Measured, Measurements, expressions, is_static, judge, judge_check, judge_trigger
from reconciler.gates.checks import Subject
from reconciler.gates.values import Reason
from reconciler.prometheus import Prometheus
from reconciler.records import Build, Promotion, Verdict
from reconciler.warehouse import Engine, Query, QueryError
from renderers.served import prometheus_of
from schemas.automation import DeploymentCondition, MetricTrigger
from schemas.environment import Environment
from schemas.variation import Check

#: Seconds for all checks of a canary together.
CHECKS_TIMEOUT_S = 10.0


def gate(
    condition: DeploymentCondition,
    promotion: Promotion,
    build: Build,
    deployed: Build | None,
    engine: Callable[[], Engine],
    *,
    now: datetime,
    timeout_s: float,
) -> Verdict:
    """The verdict of a promotion's gate.

    `deployed`: the build that `condition.variation` serves in the environment of the promotion. `engine` gives the
    warehouse; it is called only for SQL, and may raise QueryError. `timeout_s`: of one query
    (`environment.analytics.timeout_seconds`); what is left of the condition's own is another bound.
    """
    so_far = promotion.status.gate
    attempt = so_far.verdicts[-1].attempt + 1 if so_far.verdicts else 1
    if condition.threshold is None or is_static(condition.threshold):
        return judge(condition, build, deployed if condition.variation else None, now, attempt)
    request = promotion.spec
    parameters: dict[str, str | datetime] = {
        "model": request.model,
        "environment": request.environment,
        "build_id": build.spec.id,
    }
    as_of = build.status.finished_at  # and not `now`: asked again after a crash, the answer is the same
    if as_of is None:
        unasked = QueryError(Reason.NOT_FINISHED, f"build {build.short} has no end, which is what :as_of is")
        return judge(condition, build, Asked(Query(condition.threshold, parameters), unasked), now, attempt)
    deadline = (so_far.first_at or now) + timedelta(seconds=condition.timeout_seconds)
    # The last try is at the deadline itself, and needs some time.
    allowed = max(1.0, min(timeout_s, (deadline - now).total_seconds()))
    query = Query(condition.threshold, parameters | {"as_of": as_of})
    return judge(condition, build, _ask(engine, query, allowed), now, attempt)


def trigger_metric(
    trigger: MetricTrigger, model: str, environment: Environment, engine: Callable[[], Engine], now: datetime
) -> Verdict:
    """Whether the metric of an automation has crossed its threshold at `now`: Passed starts a run.

    `environment` is the one whose analytics are asked.
    """
    parameters: dict[str, str | datetime] = {"model": model, "environment": environment.name, "as_of": now}
    timeout_s = environment.analytics.timeout_seconds
    value = _ask(engine, Query(trigger.sql_query, parameters), timeout_s)
    threshold = None
    if not is_static(trigger.threshold):
        threshold = _ask(engine, Query(trigger.threshold, parameters), timeout_s)
    return judge_trigger(trigger, value, threshold, now)


def checks(
    wanted: Sequence[Check],
    promotion: Promotion,
    environment: Environment,
    now: datetime,
    *,
    current: str | None = None,
    timeout_s: float = CHECKS_TIMEOUT_S,
) -> tuple[Verdict, ...]:
    """The verdicts of a canary's checks, in their order, all of one instant.

    `current` is the id of the build that has the rest of the traffic, "" for none; None: the one that the promotion
    expected. `environment` is that of the promotion.
    """
    request, rollout = promotion.spec, promotion.status.rollout
    before = {verdict.name: verdict.attempt for verdict in rollout.checks} if rollout else {}

    def subject(build_id: str) -> Subject:
        return Subject(environment.namespace_name, request.model, request.variation, build_id[:8])

    new, other = subject(request.build), request.expected_current if current is None else current
    url = prometheus_of(environment)
    with Prometheus(url, timeout_s) if url else nullcontext() as prometheus:

        def measured(expression: str) -> Measured:
            if prometheus is None:
                words = f"the environment {environment.name} has no prometheus_url"
                return Measured(expression, QueryError(Reason.NO_PROMETHEUS, words))
            try:
                return Measured(expression, prometheus.ask(expression, now))
            except QueryError as error:
                return Measured(expression, error)

        verdicts: list[Verdict] = []
        for check in wanted:
            asked = expressions(check, new, subject(other) if other else None)
            answers = Measurements(
                measured(asked.value),
                measured(asked.current) if asked.current else None,
                measured(asked.requests) if asked.requests else None,
            )
            verdicts.append(judge_check(check, answers, now, before.get(check.name, 0) + 1))
    return tuple(verdicts)


def _ask(engine: Callable[[], Engine], query: Query, timeout_s: float) -> Asked:
    try:
        return Asked(query, engine().ask(query, timeout_s))
    except QueryError as error:
        return Asked(query, error)
