"""A reconciler in the middle of its work: what it says of itself, its records, and the specs that it follows."""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from reconciler.promotion import Ledger
from reconciler.records import (
    Build,
    BuildPhase,
    BuildStatus,
    Failure,
    Gate,
    Outcome,
    Phase,
    Promotion,
    PromotionStatus,
    Rollout,
)
from reconciler.telling.standing import (
    Drift,
    EnvironmentStanding,
    Limit,
    Pass,
    Source,
    Specs,
    Standing,
    State,
    Unsettled,
    listed,
)
from renderers.catalog import Catalog
from schemas.problem import Problem
from tests.golden.harness import load
from tests.sample_records import START, a_build, a_promotion, a_verdict

#: When somebody looks.
NOW = START + timedelta(hours=9)
COMMIT = "3f9a1c2e77aa4b0d8e5f6a7b8c9d0e1f2a3b4c5d"
SPECS = """\
api_version: v1
spec:
  environments:
    - {name: staging, data_plane: embedded}
    - {name: production, data_plane: embedded, promote_after: [staging], approval: manual}
  audiences:
    - {name: clinics, priority: 1, conditions: {unary: [{key: tier, operator: IN, operand: [clinic]}]}}
  builds:
    - name: churn-phones
      model: churn
      git_uri: https://git.example/models.git#churn
      git_commit: 3f9a1c2e77aa4b0d8e5f6a7b8c9d0e1f2a3b4c5d
    - {name: fraud-1, model: fraud, git_uri: "https://git.example/models.git#fraud", git_branch: main}
  automations:
    - name: churn-nightly
      model: churn
      trigger: {scheduled: {interval: Daily}}
      build_spec: {git_uri: "https://git.example/models.git#churn", git_branch: main}
      deployment_spec: {variation_name: default, environments: [staging, production]}
  variations:
    - model: churn
      name: default
      description: The best build that there ever was.
      environments: [staging, production]
      automation: churn-nightly
      traffic: [{weight: 90}, {audience: clinics, weight: 100}]
      rollout: {canary: {steps: [{weight: 20}, {weight: 50}]}}
    - model: churn
      name: phones
      environments: [production]
      build: churn-phones
      traffic: [{weight: 10}, {weight: 25, shadow: true, audience: clinics}]
    - {model: fraud, name: default, environments: [production], build: fraud-1}
"""


class Sample(NamedTuple):
    """What the page shows."""

    standing: Standing
    ledger: Ledger
    catalog: Catalog


def ago(**span: float) -> Any:
    """A moment before somebody looks."""
    return NOW - timedelta(**span)


def an_id(number: int) -> str:
    """The id of the build of this number, always the same."""
    return sha256(str(number).encode()).hexdigest()


def a_standing(words: str = "") -> Standing:
    """A standing in which everything is set. `words` is in each text that people, specs or clusters have written."""
    unsettled = Unsettled(f"churn{words}", f"1 of 2 pods are available{words}", ago(minutes=3))
    blocked = Limit(
        "prune/budget", f"12 of 40 objects of production would be deleted, more than 20%{words}", COMMIT[:12]
    )
    incomplete = Limit("prune/incomplete", f"not all specs could be read and rendered{words}")
    changed = ("spec.replicas", f"spec.template.spec.containers[0].image{words}")
    drift = (
        Drift("Deployment/production/churn-default-4b227777", changed, f"kubectl-edit{words}", ago(hours=3)),
        Drift(f"Service/production/churn{words}", since=ago(minutes=30), mended=False),
    )
    problem = Problem(
        f"specs/a.yaml{words}", 3, 5, ("a", 1), "schema/type", f"The threshold is no string.{words}", "'0.65'"
    )
    return Standing(
        at=ago(seconds=12),
        revision=COMMIT,
        branch=f"main{words}",
        committed_at=ago(minutes=9),
        applied_at=ago(minutes=7),
        leader=f"trueup-0{words}",
        source=Source("https://git.example/acme/specs.git", ago(minutes=1), words),
        specs=Specs(31, listed([problem])),
        environments={
            "staging": EnvironmentStanding(
                "lab", COMMIT, State.SYNCED, {"ready": 42, "in progress": 0}, last_pass=Pass(ago(seconds=40), 0.42, 3)
            ),
            "production": EnvironmentStanding(
                f"eu{words}",
                COMMIT,
                State.BLOCKED,
                {"ready": 40, f"in progress{words}": 2},
                listed([unsettled]),
                listed([blocked, incomplete]),
                listed(drift),
                Pass(ago(seconds=4), 12.4, 60),
                words,
            ),
        },
    )


def a_sample(folder: Path, words: str = "") -> Sample:
    """A standing with records and specs to go with it. `folder` is for the file of the specs."""
    file = folder / "specs.yaml"
    file.write_text(SPECS)
    builds = [_run(number, {"auc": f"0.{900 + number * number}", "f1": "0.8"}) for number in range(6)]
    failure = Failure(step="dependencies", reason="NoSuchPackage", message=f"no such package: pandsa{words}")
    builds.append(
        _run(6, {}, phase=BuildPhase.FAILED, failure=failure, repository=words or "ssh://git@git.example/m.git")
    )
    ledger = Ledger({build.identity.name: build for build in builds}, tuple(_promotions(words)))
    return Sample(a_standing(words), ledger, load([file]))


def _run(
    number: int, metrics: dict[str, str], *, repository: str = "https://git.example/models.git", **status: Any
) -> Build:
    status = {"phase": BuildPhase.SUCCEEDED, "finished_at": ago(hours=20 - number)} | status
    return a_build(
        id=an_id(number),
        automation="churn-nightly",
        environment="staging",
        commit="0123456789" * 4,
        specification={"git_uri": f"{repository}#churn"},
        cause={"kind": "Schedule", "at": ago(hours=21 - number)},
        status=BuildStatus(metrics=metrics, **status),
    )


def _promotions(words: str) -> list[Promotion]:
    verdict = a_verdict(
        name="", message=f"0.925 is above 0.916{words}", at=ago(hours=2), attempt=1, dry_run=False,
        metric=f"auc{words}", value="0.925", threshold="0.916",
        query=f"select max(value)\n  from build_metrics {words}",
    )  # fmt: skip
    check = a_verdict(
        name="errors", outcome=Outcome.INCONCLUSIVE, reason="TooFewSamples", message=f"12 of 20 requests so far{words}",
        at=ago(minutes=1), query="", dry_run=False, metric="error_rate", value="", threshold="1", direction="BELOW",
    )  # fmt: skip
    rollout = Rollout(step=0, weight=20, began_at=ago(minutes=3), checks=(check,))
    done = PromotionStatus(phase=Phase.SUCCEEDED, finished_at=ago(hours=1), gate=Gate(verdicts=(verdict,)))
    return [
        a_promotion(environment="staging", build=an_id(5), status=done),
        a_promotion(build=an_id(4), status=PromotionStatus(phase=Phase.SUCCEEDED, finished_at=ago(hours=9))),
        a_promotion(
            build=an_id(5),
            expected_current=an_id(4),
            status=PromotionStatus(phase=Phase.ROLLING_OUT, message=f"20 % since 11:57{words}", rollout=rollout),
        ),
        a_promotion(
            model="fraud",
            build=an_id(3),
            status=PromotionStatus(phase=Phase.AWAITING_APPROVAL, message=f"a person has to approve{words}"),
        ),
    ]
