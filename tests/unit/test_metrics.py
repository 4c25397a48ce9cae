from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from reconciler.telling.metrics import Metrics

PROMTOOL = shutil.which("promtool")
NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("0.1.0")


def tell_everything(metrics: Metrics) -> None:
    metrics.leading(True)
    metrics.reconciled("prod", 0.02)
    metrics.objects("prod", {"clean": 40, "drifted": 1})
    metrics.unsettled("prod", 3)
    metrics.blocked("prod", 2)
    metrics.forbidden("prod", 4)
    metrics.drift_found("prod", "Deployment")
    metrics.drift_mended("prod", "Deployment")
    metrics.oldest_drift("prod", NOON)
    metrics.applied("prod", "c0ffee", NOON, NOON + timedelta(seconds=12))
    metrics.gate("churn", "prod", "weekly", "Passed")
    metrics.promotions("prod", {"Pending": 1})
    metrics.builds({"Running": 1})
    metrics.fetched("specs", 0.3)
    metrics.webhook("pushed")
    metrics.spec_problems(2, 1)
    metrics.request("eu", "patch", 200, 0.004)
    metrics.request_limit("eu", 16)
    metrics.watch_restarted("eu", "expired")
    metrics.event_dropped()


def samples(metrics: Metrics) -> dict[str, float]:
    """Each series as it is written, and its value."""
    return {
        name + "".join(f",{label}={value}" for label, value in sorted(labels.items())): value_
        for family in text_string_to_metric_families(metrics.render().decode())
        for name, labels, value_, *_ in family.samples
    }


def test_what_was_told_is_rendered(metrics: Metrics) -> None:
    tell_everything(metrics)
    told = samples(metrics)
    expected = {
        "trueup_leader": 1,
        "trueup_reconcile_duration_seconds_count,environment=prod": 1,
        "trueup_reconcile_duration_seconds_bucket,environment=prod,le=0.01": 0,
        "trueup_reconcile_duration_seconds_bucket,environment=prod,le=0.025": 1,
        "trueup_objects,environment=prod,state=clean": 40,
        "trueup_unsettled_units,environment=prod": 3,
        "trueup_blocked_prunes,environment=prod": 2,
        "trueup_forbidden_changes,environment=prod": 4,
        "trueup_drift_found_total,environment=prod,kind=Deployment": 1,
        "trueup_drift_mended_total,environment=prod,kind=Deployment": 1,
        "trueup_oldest_drift_timestamp_seconds,environment=prod": NOON.timestamp(),
        "trueup_applied_revision_info,environment=prod,revision=c0ffee": 1,
        "trueup_applied_revision_timestamp_seconds,environment=prod": NOON.timestamp() + 12,
        "trueup_applied_commit_timestamp_seconds,environment=prod": NOON.timestamp(),
        "trueup_commit_to_applied_seconds_sum,environment=prod": 12,
        "trueup_gate_verdicts_total,automation=weekly,environment=prod,model=churn,outcome=Passed": 1,
        "trueup_promotions,environment=prod,phase=Pending": 1,
        "trueup_builds,phase=Running": 1,
        "trueup_git_fetches_total,repository=specs": 1,
        "trueup_git_fetch_failures_total,repository=specs": 0,
        "trueup_git_fetch_duration_seconds_count,repository=specs": 1,
        "trueup_webhooks_total,outcome=pushed": 1,
        "trueup_spec_problems,severity=error": 2,
        "trueup_spec_problems,severity=warning": 1,
        "trueup_api_requests_total,cluster=eu,code=200,verb=patch": 1,
        "trueup_api_request_duration_seconds_count,cluster=eu,verb=patch": 1,
        "trueup_api_requests_in_flight_limit,cluster=eu": 16,
        "trueup_watch_restarts_total,cluster=eu,reason=expired": 1,
        "trueup_events_dropped_total": 1,
    }
    assert {name: told.get(name) for name in expected} == expected
    assert "process_resident_memory_bytes" in told
    assert "python_gc_collections_total,generation=0" in told
    assert any(name.startswith("trueup_build_info,") and name.endswith("version=0.1.0") for name in told)


def test_two_of_them_share_nothing() -> None:
    one, other = Metrics("1"), Metrics("1")
    one.event_dropped()
    assert samples(one)["trueup_events_dropped_total"] == 1
    assert samples(other)["trueup_events_dropped_total"] == 0


@pytest.mark.skipif(
    PROMTOOL is None and "CI" not in os.environ, reason="needs promtool (Debian: apt-get install prometheus)"
)
def test_prometheus_own_linter_finds_nothing(metrics: Metrics) -> None:
    assert PROMTOOL is not None, "CI has to install promtool"
    tell_everything(metrics)
    ours = b"".join(line + b"\n" for line in metrics.render().splitlines() if b"trueup_" in line)
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=ours, capture_output=True, check=False)
    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (0, "", "")


def test_no_series_says_when_another_began(metrics: Metrics) -> None:
    tell_everything(metrics)
    assert not [name for name in samples(metrics) if "_created" in name]


def test_a_state_that_no_object_is_in_any_more_is_zero(metrics: Metrics) -> None:
    metrics.objects("prod", {"clean": 40, "drifted": 1})
    metrics.objects("prod", {"clean": 41})
    assert samples(metrics)["trueup_objects,environment=prod,state=drifted"] == 0


def test_only_the_commit_that_is_applied_now_has_a_series(metrics: Metrics) -> None:
    metrics.applied("prod", "old", NOON, NOON)
    metrics.applied("staging", "old", NOON, NOON)
    metrics.applied("prod", "new", NOON, NOON)
    infos = {name for name in samples(metrics) if name.startswith("trueup_applied_revision_info")}
    assert infos == {
        "trueup_applied_revision_info,environment=prod,revision=new",
        "trueup_applied_revision_info,environment=staging,revision=old",
    }


def test_a_commit_that_an_earlier_process_has_applied_has_its_series_and_no_latency(metrics: Metrics) -> None:
    metrics.stands("prod", "c0ffee", NOON)
    metrics.forget_environment("prod")
    assert "trueup_applied_revision_info,environment=prod,revision=c0ffee" not in samples(metrics)
    metrics.stands("prod", "c0ffee", NOON)
    told = samples(metrics)
    assert told["trueup_applied_revision_info,environment=prod,revision=c0ffee"] == 1
    assert not [name for name in told if name.startswith("trueup_commit_to_applied_seconds")]


def test_a_commit_from_a_clock_that_is_ahead_has_no_negative_latency(metrics: Metrics) -> None:
    metrics.applied("prod", "c0ffee", NOON + timedelta(minutes=5), NOON)
    assert samples(metrics)["trueup_commit_to_applied_seconds_sum,environment=prod"] == 0


def test_drift_that_is_mended_has_no_age(metrics: Metrics) -> None:
    metrics.oldest_drift("prod", NOON)
    metrics.oldest_drift("prod", None)
    metrics.oldest_drift("never-drifted", None)
    assert not [name for name in samples(metrics) if name.startswith("trueup_oldest_drift")]


def test_failures_are_counted_beside_what_was_tried(metrics: Metrics) -> None:
    metrics.fetched("builds", 0.1)
    metrics.fetched("builds", 30.0, failed=True)
    told = samples(metrics)
    assert told["trueup_git_fetches_total,repository=builds"] == 2
    assert told["trueup_git_fetch_failures_total,repository=builds"] == 1


def test_what_is_gone_from_the_specs_is_gone_from_the_metrics(metrics: Metrics) -> None:
    tell_everything(metrics)
    metrics.reconciled("staging", 0.02)
    metrics.forget_environment("prod")
    metrics.forget_environment("never-seen")
    left = samples(metrics)
    assert not [name for name in left if "environment=prod" in name]
    assert left["trueup_reconcile_duration_seconds_count,environment=staging"] == 1


def test_the_verdicts_of_an_automation_that_has_left_the_specs_are_gone_too(metrics: Metrics) -> None:
    for automation in ("nightly", "weekly"):
        for outcome in ("Passed", "Rejected"):
            metrics.gate("churn", "prod", automation, outcome)
    metrics.keep_gates({"weekly", "another"})
    left = [name for name in samples(metrics) if name.startswith("trueup_gate_verdicts_total")]
    assert len(left) == 2
    assert all("automation=weekly" in name for name in left)


def test_a_hostile_name_stays_one_label(metrics: Metrics) -> None:
    name = 'a"} 1\ntrueup_leader 1\n# \\'
    metrics.reconciled(name, 1.0)
    assert samples(metrics)[f"trueup_reconcile_duration_seconds_count,environment={name}"] == 1
    assert samples(metrics)["trueup_leader"] == 0


def test_threads_lose_no_increment(metrics: Metrics) -> None:
    def request() -> None:
        for _ in range(2000):
            metrics.request("eu", "get", 200, 0.001)

    threads = [threading.Thread(target=request) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert samples(metrics)["trueup_api_requests_total,cluster=eu,code=200,verb=get"] == 8000


def test_telling_is_cheap(metrics: Metrics) -> None:
    """What is told most often is each request. 3 microseconds where this was written."""

    def microseconds() -> float:
        begun = time.thread_time()
        for _ in range(2000):
            metrics.request("eu", "patch", 200, 0.004)
        return (time.thread_time() - begun) / 2000 * 1e6

    assert min(microseconds() for _ in range(5)) < 30
