"""Specs and records for these tests: a model `churn`, promoted from staging to production."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from reconciler.promotion import World
from reconciler.readiness import Readiness, State
from reconciler.records import (
    Action,
    Build,
    BuildPhase,
    BuildRequest,
    BuildStatus,
    Cause,
    Decision,
    Gate,
    Identity,
    Outcome,
    Phase,
    Promotion,
    PromotionRequest,
    PromotionStatus,
    Rollout,
    Verdict,
    promotion_name,
)
from renderers.catalog import Catalog, Placed
from renderers.manifest import Origin
from schemas.automation import Automation, AutomationDeployment, DeploymentCondition, Trigger
from schemas.build import AutomationBuildSpecification
from schemas.environment import Environment
from schemas.variation import Canary, CanaryRollout, Check, Step, Variation

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
A, B, C, D = (letter * 64 for letter in "abcd")
STAGING, PRODUCTION = ("staging", "churn", "default"), ("production", "churn", "default")

READY = Readiness(State.CURRENT, "2 of 2 pods are available")
NOT_READY = Readiness(State.IN_PROGRESS, "1 of 2 pods are available")
DEAD = Readiness(State.FAILED, "the pods crash")


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


ERRORS = Check(name="errors", metric="error_rate", threshold="1", window="10s")
CANARY = Canary(steps=(Step(weight=5, hold="10s"), Step(weight=50, hold="20s")), checks=(ERRORS,), timeout="10m")
CONDITION = DeploymentCondition(metric_name="auc", threshold="0.8", timeout_seconds=60)


def canary(**changes: Any) -> Canary:
    return CANARY.model_copy(update=changes)


def environment(name: str = "production", **changes: Any) -> Environment:
    return Environment(name=name, **changes)


def variation(rollout: Any = CANARY, **changes: Any) -> Variation:
    given = {"model": "churn", "environments": ("staging", "production"), "build": "churn-1"} | changes
    if given.get("automation"):
        del given["build"]
    return Variation(rollout=rollout if rollout == "replace" else CanaryRollout(canary=rollout), **given)


def automation(condition: DeploymentCondition | None = CONDITION, **changes: Any) -> Automation:
    given = {
        "name": "nightly",
        "model": "churn",
        "trigger": Trigger.model_validate({"manual": {}}),
        "build_spec": AutomationBuildSpecification(git_uri="https://git.example.com/m.git#churn"),
        "deployment_condition": condition,
        "deployment_spec": AutomationDeployment(),
    }
    return Automation(**(given | changes))


def catalog(
    environments: tuple[Environment, ...] = (
        environment("staging"),
        environment("production", promote_after=("staging",), approval="manual"),
    ),
    variations: tuple[Variation, ...] = (),
    automations: tuple[Automation, ...] = (),
) -> Catalog:
    return Catalog(
        environments={e.name: Placed(e, _origin("environment", e.name)) for e in environments},
        variations={(v.model, v.name): Placed(v, _origin("variation", v.name)) for v in variations},
        automations={a.name: Placed(a, _origin("automation", a.name)) for a in automations},
    )


def _origin(kind: str, name: str) -> Origin:
    return Origin("specs.yaml", 1, 1, (), kind, name)


def build(
    build_id: str = B, phase: BuildPhase = BuildPhase.SUCCEEDED, *, at: datetime = NOW, by: str = "nightly"
) -> Build:
    return Build(
        identity=Identity(name=f"churn-build-{build_id[:8]}"),
        spec=BuildRequest(
            id=build_id, model="churn", environment="staging", automation=by, cause=Cause(kind="Schedule", at=at)
        ),
        status=BuildStatus(phase=phase, finished_at=at),
    )


def promotion(
    build_id: str = B,
    phase: Phase = Phase.PENDING,
    *,
    place: tuple[str, str, str] = PRODUCTION,
    replaces: str = A,
    kind: Any = "Promote",
    attempt: int = 1,
    at: datetime = NOW,
    ended: datetime | None = None,
    by: str = "",
    decisions: tuple[Decision, ...] = (),
    **status: Any,
) -> Promotion:
    request = PromotionRequest(
        model=place[1],
        variation=place[2],
        environment=place[0],
        build=build_id,
        expected_current=replaces,
        kind=kind,
        attempt=attempt,
        cause=Cause(kind="Manual" if by or kind == "Rollback" else "Spec", at=at, by=by),
        decisions=decisions,
    )
    made = PromotionStatus(**({"phase": phase, "since": at, "finished_at": ended} | status))
    return Promotion(identity=Identity(name=promotion_name(request)), spec=request, status=made)


def rolling(
    step: int = 0, weight: int = 5, *, build_id: str = B, of: dict[str, Any] | None = None, **rollout: Any
) -> Promotion:
    """A promotion whose rollout began at NOW."""
    made = Rollout(**({"step": step, "weight": weight, "began_at": NOW} | rollout))
    return promotion(build_id, Phase.ROLLING_OUT, rollout=made, **(of or {}))


def decision(action: Action, *, at: datetime = NOW, by: str = "kim", build: str = B, reason: str = "") -> Decision:
    return Decision(action=action, by=by, at=at, build=build, reason=reason)


def verdict(outcome: Outcome, *, name: str = "", at: datetime = NOW, message: str = "", **more: Any) -> Verdict:
    words = message or f"it is {outcome}"
    return Verdict(outcome=outcome, reason="Compared", message=words, name=name, at=at, **more)


def judged_gate(outcome: Outcome, **more: Any) -> Gate:
    return Gate(verdicts=(verdict(outcome, **more),), first_at=NOW)


def world(**changes: Any) -> World:
    """Nothing is in the way of build B, which is to replace build A in production."""
    given: dict[str, Any] = {
        "build": build(B),
        "environment": environment(),
        "variation": variation(),
        "candidate": READY,
        "condition": None,
        "target": B,
        "current": A,
        "has_served": True,
    }
    return World(**(given | changes))


def by_name(*builds: Build) -> Mapping[str, Build]:
    return {one.identity.name: one for one in builds}
