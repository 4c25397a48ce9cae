"""The SQL of specs, looked at before anybody runs it: one SELECT of one column, known tables, known parameters. Pure.

A gate that cannot be asked holds every build back, and is found out at night, by the first build that waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from reconciler.specs.places import Places
from reconciler.specs.references import Specs
from renderers.catalog import Catalog, automation_environment, promotion_order
from schemas.automation import Automation
from schemas.base import STATIC_THRESHOLD
from schemas.environment import Analytics
from schemas.problem import Path

#: What is bound for a metric trigger, and what for a gate besides.
_TRIGGER = ("model", "environment", "as_of")
_GATE = (*_TRIGGER, "build_id")


class _Question(NamedTuple):
    """SQL in a spec: where it stands, and what is bound for it."""

    path: Path
    sql: str
    parameters: tuple[str, ...]


def check(specs: Specs, places: Places) -> None:
    """Adds the problems of every question that an automation asks."""
    catalog = specs.catalog()
    order = promotion_order(catalog)
    for key, found in specs.found.items():
        if not isinstance(found.spec, Automation):
            continue
        for question in _questions(found.spec):
            for rule, message, hint in _problems(question, _analytics(catalog, found.spec, order)):
                said = f"automation {key[2]}: its SQL: {message}."
                specs.problems.append(places.problem(found.site, question.path, rule, said, hint))


def _questions(automation: Automation) -> Iterator[_Question]:
    condition, metric = automation.deployment_condition, automation.trigger.metric
    if condition is not None and condition.threshold is not None and not _is_static(condition.threshold):
        yield _Question(("deployment_condition", "threshold"), condition.threshold, _GATE)
    if metric is not None:
        yield _Question(("trigger", "metric", "sql_query"), metric.sql_query, _TRIGGER)
        if not _is_static(metric.threshold):
            yield _Question(("trigger", "metric", "threshold"), metric.threshold, _TRIGGER)


def _is_static(threshold: str) -> bool:
    return STATIC_THRESHOLD.fullmatch(threshold) is not None


def _analytics(catalog: Catalog, automation: Automation, order: list[str]) -> Analytics:
    placed = catalog.environments.get(automation_environment(catalog, automation, order))
    return placed.spec.analytics if placed is not None else Analytics()


def _problems(question: _Question, analytics: Analytics) -> Iterator[tuple[str, str, str]]:
    from reconciler.warehouse import statement, tables  # noqa: PLC0415 - specs without SQL do not pay for a parser

    # Whose dialect a URL in a Secret stands for nobody knows here, nor what tables there are.
    is_ours = analytics.engine != "sqlalchemy"
    yield from statement.problems(
        question.sql,
        analytics.engine if is_ours else "",
        tables=tables.COLUMNS if is_ours else None,
        parameters=question.parameters,
        elsewhere=not is_ours,
    )
    if analytics.engine == "athena":
        yield from statement.misplaced(question.sql, "athena")
