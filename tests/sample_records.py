"""Records to test with: a plain one of each kind, and one of each kind in which every field is set."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from reconciler.records import (
    Action,
    Approval,
    Build,
    BuildPhase,
    BuildRequest,
    BuildStatus,
    Cause,
    Decision,
    Failure,
    Gate,
    Identity,
    Outcome,
    Phase,
    Promotion,
    PromotionRequest,
    PromotionStatus,
    Rollout,
    Verdict,
    build_name,
    promotion_name,
)

START = datetime(2026, 11, 21, 3, tzinfo=UTC)


def an_id() -> str:
    """The id of a build that no other test has."""
    return secrets.token_hex(32)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def a_build(*, status: BuildStatus | None = None, **spec: Any) -> Build:
    request = BuildRequest(
        **{
            "id": an_id(),
            "model": "churn",
            "environment": "production",
            "cause": Cause(kind="Schedule", at=START),
            "specification": {"git_uri": "https://git.example/models.git#churn", "parameters": {"depth": "3"}},
        }
        | spec
    )
    name = build_name(request.model, request.id)
    return Build(identity=Identity(name=name), spec=request, status=status or BuildStatus())


def a_promotion(*, status: PromotionStatus | None = None, **spec: Any) -> Promotion:
    request = PromotionRequest(
        **{
            "model": "churn",
            "variation": "default",
            "environment": "production",
            "build": an_id(),
            "cause": Cause(kind="Schedule", at=START),
        }
        | spec
    )
    name = promotion_name(request)
    return Promotion(identity=Identity(name=name), spec=request, status=status or PromotionStatus())


def a_decision(build: str, *, action: Action = Action.APPROVE, by: str = "alice", minutes: float = 1) -> Decision:
    return Decision(action=action, by=by, at=at(minutes), reason="looks right", build=build)


def a_full_build() -> Build:
    return a_build(
        automation="nightly",
        action="Batch",
        cause=Cause(kind="Manual", at=START, by="alice@example.com", reason="the data is back"),
        commit="0123456789" * 4,
        status=BuildStatus(
            phase=BuildPhase.FAILED,
            started_at=at(1),
            finished_at=at(2),
            metrics={"auc": "0.910", "f1/macro": "0.8"},
            artifact="models/churn/artifact.tar.zst",
            record="models/churn/record.json",
            failure=Failure(step="dependencies", reason="NoSuchPackage", message="no such package: pandsa"),
            notified=("slack/Failed",),
        ),
    )


def a_verdict(**fields: Any) -> Verdict:
    return Verdict(
        **{
            "outcome": Outcome.PASSED,
            "reason": "Above",
            "message": "the metric 0.91 is above 0.9",
            "name": "error-rate",
            "at": at(3),
            "attempt": 2,
            "metric": "auc",
            "value": "0.91",
            "threshold": "0.9",
            "direction": "ABOVE",
            "query": "select max(value) from build_metrics where model = :model",
            "ran": "SELECT MAX(value) FROM build_metrics WHERE model = $model",
            "query_sha256": "ab" * 32,
            "parameters": {"model": "churn"},
            "engine": "duckdb",
            "row": ("0.9",),
            "duration_ms": 12,
            "samples": "250",
            "retryable": True,
            "dry_run": True,
        }
        | fields
    )


def a_full_promotion() -> Promotion:
    build = an_id()
    return a_promotion(
        build=build,
        expected_current=an_id(),
        kind="Rollback",
        automation="nightly",
        attempt=12,
        cause=Cause(kind="Manual", at=START, by="alice@example.com", reason="complaints"),
        decisions=(a_decision(build), a_decision(build, action=Action.PAUSE, by="bob", minutes=2)),
        status=PromotionStatus(
            phase=Phase.HELD,
            message="paused by bob",
            since=at(1),
            gate=Gate(verdicts=(a_verdict(),), first_at=at(1), next_at=at(9)),
            approval=Approval(by="alice", at=at(2), reason="looks right"),
            rollout=Rollout(
                step=1, weight=20, began_at=at(3), routed_at=at(4), checks=(a_verdict(),), checked_at=at(5),
                paused_at=at(6),
            ),
            decided=2,
            finished_at=at(7),
            notified=("slack/Held",),
        ),
    )  # fmt: skip
