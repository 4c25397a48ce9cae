"""Gates, triggers and checks as a run of the reconciler judges them: real SQL, and a real Prometheus."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from reconciler import judging
from reconciler.records import (
    Build,
    BuildPhase,
    BuildRequest,
    BuildStatus,
    Cause,
    Gate,
    Identity,
    Outcome,
    Promotion,
    PromotionRequest,
    PromotionStatus,
    Rollout,
    Verdict,
)
from reconciler.warehouse import Answer, Engine, Query, QueryError
from reconciler.warehouse.duckdb import DuckDb
from schemas.automation import DeploymentCondition, MetricTrigger
from schemas.environment import Environment
from schemas.variation import Check
from tests.contract.prometheus_server import Exporter, PrometheusServer, eventually, needs_prometheus, now

END = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOW = END + timedelta(minutes=3)
NEW, CURRENT = "3f9a1c2e" * 8, "1a2b3c4d" * 8
BEST = """
    select max(value) from build_metrics
    where model = :model and name = 'roc_auc' and build_id <> :build_id and finished_at <= :as_of
"""


class Warehouse:
    """DuckDB over an object storage in a folder. Remembers how long it was given."""

    def __init__(self, folder: Path) -> None:
        self._builds = folder / "storage" / "analytics" / "builds" / "model=churn"
        self._builds.mkdir(parents=True)
        self._engine = DuckDb((folder / "storage").as_uri(), folder / "cache")
        self.timeouts: list[float] = []

    def log(self, build_id: str, value: float, at: datetime = END) -> None:
        """A build has ended, as its container says it."""
        ended = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        row = {
            "build_id": build_id,
            "model": "churn",
            "environment": "staging",
            "metrics": {"roc_auc": value},
            "started_at": ended,
            "finished_at": ended,
        }
        (self._builds / f"{build_id}.json").write_text(json.dumps(row) + "\n")

    def ask(self, query: Query, timeout_s: float) -> Answer:
        self.timeouts.append(timeout_s)
        return self._engine.ask(query, timeout_s)


@pytest.fixture
def empty(tmp_path: Path) -> Warehouse:
    """Of a model that was never built."""
    return Warehouse(tmp_path)


@pytest.fixture
def warehouse(empty: Warehouse) -> Warehouse:
    """The history of churn: 0.9207 at its best, and what the new build logged itself."""
    empty.log("a" * 64, 0.87)
    empty.log("b" * 64, 0.9207)
    empty.log(NEW, 0.9132)
    return empty


def nobody() -> Engine:
    raise AssertionError("no warehouse is asked")


def build(build_id: str = NEW, **status: Any) -> Build:
    known: dict[str, Any] = {"phase": BuildPhase.SUCCEEDED, "finished_at": END, "metrics": {"roc_auc": "0.9132"}}
    return Build(
        identity=Identity(name="churn-build"),
        spec=BuildRequest(id=build_id, model="churn", environment="staging", cause=Cause(kind="Spec", at=END)),
        status=BuildStatus(**known | status),
    )


def promotion(**status: Any) -> Promotion:
    request = PromotionRequest(
        model="churn",
        variation="default",
        environment="production",
        build=NEW,
        expected_current=CURRENT,
        cause=Cause(kind="Schedule", at=END),
    )
    return Promotion(identity=Identity(name="churn"), spec=request, status=PromotionStatus(**status))


def condition(**fields: Any) -> DeploymentCondition:
    known: dict[str, Any] = {"metric_name": "roc_auc"}
    if "variation" not in fields:
        known["threshold"] = BEST
    return DeploymentCondition.model_validate(known | fields)


def gate(
    engine: Callable[[], Engine],
    on: Promotion | None = None,
    of: Build | None = None,
    deployed: Build | None = None,
    **fields: Any,
) -> Verdict:
    return judging.gate(condition(**fields), on or promotion(), of or build(), deployed, engine, now=NOW, timeout_s=60)


# -- gates ------------------------------------------------------------------------------------------------------------


def test_a_build_that_is_worse_than_the_best_of_its_history_is_rejected(warehouse: Warehouse) -> None:
    verdict = gate(lambda: warehouse)
    assert (verdict.outcome, verdict.value, verdict.threshold) == (Outcome.REJECTED, "0.9132", "0.9207")
    assert verdict.message == "roc_auc 0.9132 is not above 0.9207 (ABOVE is strict), the answer of the query"
    assert verdict.parameters == {
        "model": "churn",
        "environment": "production",
        "build_id": NEW,
        "as_of": "2026-03-01T12:00:00+00:00",
    }
    assert (verdict.row, verdict.engine) == (("0.9207",), f"duckdb {version('duckdb')}")
    assert verdict.query == BEST
    assert "build_id <> $build_id" in verdict.ran
    assert verdict.query_sha256 == sha256(verdict.ran.encode()).hexdigest()
    assert (verdict.at, verdict.attempt) == (NOW, 1)


def test_a_better_build_passes(warehouse: Warehouse) -> None:
    better = build(metrics={"roc_auc": "0.92070000000000001"})  # a float could not say so
    assert gate(lambda: warehouse, of=better).outcome is Outcome.PASSED


def test_what_came_after_the_builds_end_does_not_count(warehouse: Warehouse) -> None:
    """Asked again after a crash, or tomorrow, the answer is the same."""
    warehouse.log("c" * 64, 0.99, END + timedelta(minutes=1))
    assert gate(lambda: warehouse).threshold == "0.9207"


@pytest.mark.parametrize(("on_no_baseline", "outcome"), [("hold", Outcome.INCONCLUSIVE), ("pass", Outcome.PASSED)])
def test_the_first_build_of_all_has_a_null_for_a_baseline(
    empty: Warehouse, on_no_baseline: str, outcome: Outcome
) -> None:
    verdict = gate(lambda: empty, on_no_baseline=on_no_baseline)
    assert (verdict.outcome, verdict.reason, verdict.row) == (outcome, "NullThreshold", ("NULL",))


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("select 1.0::double / 0", "NotFinite"),
        ("select 'nan'::double", "NaN"),
        ("select 1 = 1", "NotNumeric"),
        ("select '0.5'", "NotNumeric"),
        ("select date '2026-03-01'", "NotNumeric"),
        ("select [0.5]", "NotNumeric"),
        ("select interval 1 day", "NotNumeric"),
        ("select 0.5, 0.6", "NotOneColumn"),
        ("select * from range(3)", "NotOneRow"),
        ("select 1 where 1 = 0", "NoRows"),
        ("select no_such_column from build_metrics", "Syntax"),
        ("select 0.5::decimal(38, 37)", "ThresholdMet"),
        ("select 0::hugeint", "ThresholdMet"),
    ],
)
def test_what_duckdb_answers_is_judged_by_the_matrix(warehouse: Warehouse, sql: str, reason: str) -> None:
    assert gate(lambda: warehouse, threshold=sql).reason == reason


def test_a_warehouse_that_cannot_be_had_is_an_error_to_be_tried_again() -> None:
    def down() -> Engine:
        raise QueryError("Unavailable", "the warehouse cannot be reached", retryable=True)

    verdict = gate(down)
    assert (verdict.outcome, verdict.reason, verdict.retryable) == (Outcome.ERROR, "Unavailable", True)
    assert verdict.message == "the query got no answer: the warehouse cannot be reached"


def test_a_static_threshold_asks_nobody() -> None:
    verdict = gate(nobody, threshold="0.9")
    assert (verdict.outcome, verdict.query, verdict.engine) == (Outcome.PASSED, "", "")


def test_the_build_that_is_served_is_asked_of_nobody_either() -> None:
    served = build(CURRENT, metrics={"roc_auc": "0.95"})
    assert gate(nobody, variation="default", deployed=served).outcome is Outcome.REJECTED
    assert gate(nobody, variation="default").reason == "NoBaseline"


def test_an_attempt_gets_the_time_that_is_left_and_the_last_one_a_second(warehouse: Warehouse) -> None:
    error = Verdict(outcome=Outcome.ERROR, reason="Timeout", message="", at=END, attempt=4, retryable=True)
    for first_at in (None, NOW - timedelta(seconds=570), NOW - timedelta(seconds=600)):
        verdict = gate(lambda: warehouse, promotion(gate=Gate(verdicts=(error,), first_at=first_at)))
        assert verdict.attempt == 5
    assert warehouse.timeouts == [60, 30, 1]


def test_a_build_whose_record_has_no_end_is_not_judged(warehouse: Warehouse) -> None:
    verdict = gate(lambda: warehouse, of=build(finished_at=None))
    assert (verdict.outcome, verdict.reason, verdict.retryable) == (Outcome.ERROR, "NotFinished", False)
    assert warehouse.timeouts == []


# -- triggers ---------------------------------------------------------------------------------------------------------


def environment(**fields: Any) -> Environment:
    return Environment.model_validate({"name": "production"} | fields)


def test_a_trigger_is_asked_as_of_now(warehouse: Warehouse) -> None:
    sql = "select count(*) from build_metrics where model = :model and finished_at > :as_of - interval 1 hour"
    trigger = MetricTrigger.model_validate({"sql_query": sql, "threshold": "2"})
    verdict = judging.trigger_metric(trigger, "churn", environment(), lambda: warehouse, NOW)
    later = judging.trigger_metric(trigger, "churn", environment(), lambda: warehouse, NOW + timedelta(hours=1))
    assert (verdict.outcome, verdict.message) == (Outcome.PASSED, "the metric 3 is above 2")
    assert verdict.parameters == {
        "model": "churn",
        "environment": "production",
        "as_of": "2026-03-01T12:03:00+00:00",
    }
    assert later.outcome is Outcome.REJECTED


def test_both_sides_of_a_trigger_may_be_sql(warehouse: Warehouse) -> None:
    fields = {"sql_query": BEST.replace(":build_id", "''"), "threshold": "select avg(value) from build_metrics"}
    trigger = MetricTrigger.model_validate(fields)
    verdict = judging.trigger_metric(
        trigger, "churn", environment(analytics={"timeout_seconds": 7}), lambda: warehouse, NOW
    )
    assert (verdict.outcome, verdict.value) == (Outcome.PASSED, "0.9207")
    assert warehouse.timeouts == [7, 7]


# -- checks -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where 3 % of the new build's 400 requests fail and 1 % of the current one's, and the new one is slower."""
    new, current = (
        Exporter({"model": "churn", "variation": "default", "build_id": build_id[:8]}) for build_id in (NEW, CURRENT)
    )
    targets = {
        ("production", f"churn-default-{NEW[:8]}-7f9c5d6b8-abcde"): new,
        ("production", f"churn-default-{CURRENT[:8]}-6b9c5d7f8-abcde"): current,
    }
    server = PrometheusServer(tmp_path_factory.mktemp("prometheus"), targets)

    def requests() -> list[str]:
        wanted = (Check.model_validate({"name": "seen", "metric": "error_rate", "threshold": "1", "min_samples": 400}),)
        both = [judging.checks(wanted, on, environment(prometheus_url=server.url), now()) for on in (SWAPPED, ROLLING)]
        return [verdict.samples for verdicts in both for verdict in verdicts]

    eventually(lambda: requests() == ["0", "0"], "both are scraped")
    new.serve(400, failed=12, seconds=0.2)
    current.serve(400, failed=4, seconds=0.04)
    eventually(lambda: requests() == ["400", "400"], "their requests are seen")
    yield server.url
    server.stop()
    new.stop()
    current.stop()


ROLLING = promotion(rollout=Rollout(began_at=NOW))
#: The same with the builds the other way round.
SWAPPED = ROLLING.model_copy(
    update={"spec": ROLLING.spec.model_copy(update={"build": CURRENT, "expected_current": NEW})}
)


def check(name: str, **fields: Any) -> Check:
    return Check.model_validate({"name": name} | fields)


@needs_prometheus
def test_the_checks_of_a_canary_are_judged_at_one_instant(prometheus: str) -> None:
    wanted = (
        check("errors", metric="error_rate", threshold="2"),
        check("more-errors", metric="error_rate", threshold="2.5", relative_to_current=True),
        check("slower", metric="latency_avg", threshold="100", relative_to_current=True),
        check("slowest", metric="latency_p99", threshold="500"),
        check("quiet", metric="error_rate", threshold="2", min_samples=401),
        check(
            "own",
            query='sum(trueup_requests_total{namespace="$namespace",build_id="$build_id",code="500"})',
            direction="EQUALS",
            threshold="12",
            min_samples=0,
        ),
    )
    verdicts = judging.checks(wanted, ROLLING, environment(prometheus_url=prometheus), now())
    assert [(verdict.name, verdict.outcome.value, verdict.reason) for verdict in verdicts] == [
        ("errors", "Rejected", "ThresholdNotMet"),
        ("more-errors", "Passed", "ThresholdMet"),
        ("slower", "Rejected", "ThresholdNotMet"),
        ("slowest", "Passed", "ThresholdMet"),
        ("quiet", "Inconclusive", "NotEnoughSamples"),
        ("own", "Passed", "ThresholdMet"),
    ]
    assert verdicts[0].message == "error_rate 3 % is not below 2 % (BELOW is strict), over 5m and 400 requests"
    assert verdicts[2].message == (
        "latency_avg 200 ms less the current build's 40 ms is 160 ms, which is not below 100 ms (BELOW is strict), "
        "over 5m and 400 requests"
    )
    assert verdicts[4].message == "400 requests in 5m are fewer than the 401 of min_samples"
    assert len({verdict.at for verdict in verdicts}) == 1


@needs_prometheus
def test_the_build_that_has_the_rest_of_the_traffic_may_be_named(prometheus: str) -> None:
    wanted = (check("errors", metric="error_rate", threshold="1", relative_to_current=True),)
    where = environment(prometheus_url=prometheus)
    assert judging.checks(wanted, ROLLING, where, now(), current=NEW)[0].row == ("3", "3")
    assert judging.checks(wanted, ROLLING, where, now(), current="")[0].reason == "NoBaseline"
    assert judging.checks(wanted, ROLLING, where, now(), current="0" * 64)[0].reason == "NoSeries"


@needs_prometheus
def test_a_clock_that_jumped_finds_no_samples_and_rejects_nothing(prometheus: str) -> None:
    wanted = (check("errors", metric="error_rate", threshold="2"),)
    where = environment(prometheus_url=prometheus)
    for jump in (timedelta(hours=-2), timedelta(hours=2)):
        (verdict,) = judging.checks(wanted, ROLLING, where, now() + jump)
        assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, "NoSeries")


def test_checks_are_counted(unused_url: str) -> None:
    earlier = Verdict(outcome=Outcome.ERROR, reason="Unavailable", message="", at=NOW, attempt=2, name="errors")
    rolling = promotion(rollout=Rollout(began_at=NOW, checks=(earlier,)))
    wanted = (check("errors", metric="error_rate", threshold="2"), check("slow", metric="latency_avg", threshold="9"))
    verdicts = judging.checks(wanted, rolling, environment(prometheus_url=unused_url), NOW)
    assert [(verdict.outcome, verdict.reason, verdict.attempt) for verdict in verdicts] == [
        (Outcome.ERROR, "Unavailable", 3),
        (Outcome.ERROR, "Unavailable", 1),
    ]


def test_an_environment_without_a_prometheus_is_an_error_that_says_so() -> None:
    where = environment(data_plane="kubernetes", object_storage="s3://acme-models/production")
    (verdict,) = judging.checks((check("errors", metric="error_rate", threshold="2"),), ROLLING, where, NOW)
    assert (verdict.outcome, verdict.reason, verdict.retryable) == (Outcome.ERROR, "NoPrometheus", False)
    assert "the environment production has no prometheus_url" in verdict.message


@pytest.fixture
def unused_url() -> str:
    """Of nobody."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"
