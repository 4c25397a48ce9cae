"""What the model analytics consist of: five tables, whatever engine reads them. Pure.

Three are stored, as objects that are never written twice; the other two are views of them. The objects:

    analytics/builds/model=<m>/<build id>.json                            one line each; `runtime build` writes them
    analytics/promotions/environment=<e>/model=<m>/<promotion>.json       one line each; the reconciler writes them
    inferences/environment=<e>/model=<m>/variation=<v>/date=YYYY-MM-DD/hour=HH/*.jsonl.gz     a server's log

Instants are ISO 8601 with `Z` in the objects, and timestamps without a zone, in UTC, in the tables: so they compare
alike in every engine.

A gate (a query with `:build_id` bound) sees the past only: neither the build that is judged, nor anything that came
after `:as_of`, is in any table. `statement.prepared` puts that into the statement; no query need say it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from reconciler.records import Promotion

#: What a query may name, as `:model`. `as_of` is an instant, the others are text.
PARAMETERS = ("model", "environment", "build_id", "as_of")


class Type(StrEnum):
    """Of a column, in no engine's words."""

    TEXT = "text"
    WHOLE = "whole number"  #: 64 bits
    NUMBER = "number"  #: binary, 64 bits
    TRUTH = "true or false"
    INSTANT = "instant"  #: a timestamp without a zone, in UTC, to the millisecond
    TEXTS = "texts by name"  #: a map
    NUMBERS = "numbers by name"  #: a map
    JSON = "JSON"  #: any value; text of JSON where the engine has no such type


class Column(NamedTuple):
    """A column. `key`: what its value is called in the objects, where that is another name.

    A partition's value stands in the name of the object, not in its lines.
    """

    name: str
    type: Type
    description: str
    key: str = ""
    partition: bool = False


class Table(NamedTuple):
    """A table. `prefix` of its objects' keys; "" for a view, which says in `of` what it is a view of."""

    name: str
    description: str
    columns: tuple[Column, ...]
    prefix: str = ""
    of: str = ""
    excluded: str = ""
    """Rows that a gate does not see are those for which this is not true. It names :build_id and :as_of."""


BUILDS = Table(
    "builds",
    "Builds that succeeded.",
    (
        Column("build_id", Type.TEXT, "64 hex digits: the hash of all that makes the build what it is."),
        Column("model", Type.TEXT, "The model."),
        Column("environment", Type.TEXT, "Where it was built."),
        Column("commit_id", Type.TEXT, "The commit of its code."),
        Column("python", Type.TEXT, "The version of Python, such as 3.11.7."),
        Column("artifact", Type.TEXT, "The key of its artifact in the object storage."),
        Column("parameters", Type.TEXTS, "Of the specification, and over them those that the model logged."),
        Column("metrics", Type.NUMBERS, "That the model logged."),
        Column("tests_passed", Type.WHOLE, "Of the model's own tests; NULL where none were run."),
        Column("tests_failed", Type.WHOLE, "Of the model's own tests; NULL where none were run."),
        Column("tests_skipped", Type.WHOLE, "Of the model's own tests; NULL where none were run."),
        Column("started_at", Type.INSTANT, "When it began."),
        Column("finished_at", Type.INSTANT, "When it ended."),
        Column("duration_s", Type.NUMBER, "How long it took, in seconds."),
    ),
    prefix="analytics/builds/",
    excluded="build_id <> :build_id AND finished_at <= :as_of",
)

BUILD_METRICS = Table(
    "build_metrics",
    "The metrics of builds, a row each.",
    (
        Column("build_id", Type.TEXT, "The build."),
        Column("model", Type.TEXT, "The model."),
        Column("environment", Type.TEXT, "Where it was built."),
        Column("name", Type.TEXT, "The metric's name, as the model logged it."),
        Column("value", Type.NUMBER, "Its value."),
        Column("finished_at", Type.INSTANT, "When the build ended."),
    ),
    of="builds",
    excluded="build_id <> :build_id AND finished_at <= :as_of",
)

PROMOTIONS = Table(
    "promotions",
    "Promotions that came to an end, good or bad.",
    (
        Column("name", Type.TEXT, "Of the Promotion."),
        Column("environment", Type.TEXT, "Where its build was to be served."),
        Column("model", Type.TEXT, "The model."),
        Column("variation", Type.TEXT, "Which variation was to serve it."),
        Column("build_id", Type.TEXT, "The build that was to be served."),
        Column("previous_build_id", Type.TEXT, "The build that was served when it was asked for; NULL for none."),
        Column("kind", Type.TEXT, "Promote, or Rollback."),
        Column("attempt", Type.WHOLE, "1, or more where a person asked again."),
        Column("automation", Type.TEXT, "Whose run made the build; NULL for none."),
        Column("phase", Type.TEXT, "Succeeded, Rejected, RolledBack or Superseded."),
        Column("message", Type.TEXT, "How it ended, in one sentence."),
        Column("started_at", Type.INSTANT, "When it was asked for."),
        Column("finished_at", Type.INSTANT, "When it ended."),
        Column("approved_by", Type.TEXT, "Who let it pass; NULL where nobody had to."),
        Column("gate_outcome", Type.TEXT, "Passed, Rejected, Inconclusive or Error; NULL without a gate."),
        Column("gate_reason", Type.TEXT, "In one word, such as ThresholdNotMet; NULL without a gate."),
        Column("metric", Type.TEXT, "The metric that the gate judged."),
        Column("value", Type.NUMBER, "Of the metric; NULL where there was none."),
        Column("threshold", Type.NUMBER, "What it was compared with; NULL where there was none."),
    ),
    prefix="analytics/promotions/",
    excluded="finished_at <= :as_of",
)

DEPLOYMENTS = Table(
    "deployments",
    "Which build a variation served, from when to when: the promotions that succeeded.",
    (
        Column("environment", Type.TEXT, "Where."),
        Column("model", Type.TEXT, "The model."),
        Column("variation", Type.TEXT, "The variation."),
        Column("build_id", Type.TEXT, "The build."),
        Column("deployed_at", Type.INSTANT, "Since when it has all of the variation's traffic."),
        Column("replaced_at", Type.INSTANT, "When the next one had; NULL while it is served."),
        Column("promotion", Type.TEXT, "The name of the Promotion."),
    ),
    of="promotions",
    excluded="deployed_at <= :as_of",
)

INFERENCES = Table(
    "inferences",
    "Predictions, those of them that were sampled.",
    (
        Column("requested_at", Type.INSTANT, "When the request came.", key="time"),
        Column("request_id", Type.TEXT, "Of the request."),
        Column("trace_id", Type.TEXT, "Of its trace, 32 hex digits."),
        Column("build_id", Type.TEXT, "The build that answered."),
        Column("audience", Type.TEXT, "The audience that the request was counted to; NULL for everybody."),
        Column("status", Type.WHOLE, "The answer's HTTP status."),
        Column("duration_ms", Type.NUMBER, "Until it was answered, in milliseconds."),
        Column("shadow", Type.TRUTH, "Whether the answer was thrown away."),
        Column("input_bytes", Type.WHOLE, "The size of the request's body."),
        Column("output_bytes", Type.WHOLE, "The size of the answer's body."),
        Column("input", Type.JSON, "The request, without excluded columns; NULL where it is too large or no JSON."),
        Column("output", Type.JSON, "The answer; NULL where it is too large or no JSON."),
        Column("logged", Type.JSON, "What the model logged of it."),
        Column("environment", Type.TEXT, "Where.", partition=True),
        Column("model", Type.TEXT, "The model.", partition=True),
        Column("variation", Type.TEXT, "The variation.", partition=True),
        Column("date", Type.TEXT, "The day of the first request of its object, in UTC: 2026-11-21.", partition=True),
        Column("hour", Type.TEXT, "And the hour: 00 to 23.", partition=True),
    ),
    prefix="inferences/",
    excluded="requested_at <= :as_of",
)

#: By name.
TABLES: Mapping[str, Table] = {
    table.name: table for table in (BUILDS, BUILD_METRICS, PROMOTIONS, DEPLOYMENTS, INFERENCES)
}

#: For `statement.problems`: the names of the columns of each table.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    table.name: tuple(column.name for column in table.columns) for table in TABLES.values()
}

#: The view `build_metrics`, by dialect.
BUILD_METRICS_SQL: Mapping[str, str] = {
    "duckdb": (
        "SELECT build_id, model, environment, metric.key AS name, metric.value AS value, finished_at "
        "FROM (SELECT *, unnest(map_entries(metrics)) AS metric FROM builds)"
    ),
    "athena": (
        "SELECT build_id, model, environment, name, value, finished_at "
        "FROM builds CROSS JOIN UNNEST(metrics) AS metric (name, value)"
    ),
}

#: The view `deployments`, in any dialect.
DEPLOYMENTS_SQL = (
    "SELECT environment, model, variation, build_id, finished_at AS deployed_at, "
    "lead(finished_at) OVER (PARTITION BY environment, model, variation ORDER BY finished_at) AS replaced_at, "
    "name AS promotion FROM promotions WHERE phase = 'Succeeded'"
)


def stored(names: frozenset[str]) -> tuple[Table, ...]:
    """The stored tables that must be read for these, in the order of TABLES."""
    wanted = {TABLES[name].of or name for name in names if name in TABLES}
    return tuple(table for table in TABLES.values() if table.name in wanted)


def promotion_key(promotion: Promotion) -> str:
    """The name of the object that a promotion's row is."""
    spec = promotion.spec
    return f"{PROMOTIONS.prefix}environment={spec.environment}/model={spec.model}/{promotion.identity.name}.json"


def promotion_row(promotion: Promotion) -> dict[str, Any]:
    """The row of a promotion that has come to an end. Its keys are the columns of `promotions`."""
    spec, status = promotion.spec, promotion.status
    verdict = status.gate.verdicts[-1] if status.gate.verdicts else None
    document = promotion.model_dump(mode="json")  # instants as text
    return {
        "name": promotion.identity.name,
        "environment": spec.environment,
        "model": spec.model,
        "variation": spec.variation,
        "build_id": spec.build,
        "previous_build_id": spec.expected_current or None,
        "kind": spec.kind,
        "attempt": spec.attempt,
        "automation": spec.automation or None,
        "phase": status.phase.value,
        "message": status.message,
        "started_at": document["spec"]["cause"]["at"],
        "finished_at": document["status"]["finished_at"],
        "approved_by": status.approval.by if status.approval else None,
        "gate_outcome": verdict.outcome.value if verdict else None,
        "gate_reason": verdict.reason if verdict else None,
        "metric": verdict.metric or None if verdict else None,
        "value": _number(verdict.value) if verdict else None,
        "threshold": _number(verdict.threshold) if verdict else None,
    }


def to_line(row: Mapping[str, Any]) -> bytes:
    """A row as its object has it: one line of JSON."""
    return (
        json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace") + b"\n"
    )


def _number(text: str) -> float | None:
    """Decimal text as what JSON and every engine have."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
