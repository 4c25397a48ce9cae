"""What a person asks for by a command: a run of an automation, and a verdict without any effect."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from reconciler import judging, recorded
from reconciler.decisions import NotMeantError
from reconciler.outside import Outside
from reconciler.promotion import Ledger
from reconciler.records import Build, BuildPhase, Cause, Identity, Promotion, PromotionRequest, Verdict
from reconciler.triggers import run_name
from renderers.catalog import Catalog, automation_environment, promotion_order
from schemas.automation import Automation
from schemas.environment import Environment


def run(catalog: Catalog, ledger: Ledger, name: str, outside: Outside, *, by: str, reason: str, now: datetime) -> Build:
    """A run of an automation, as its record. A disabled one runs too: a person says so.

    Raises NotMeantError, OutsideError (the branch cannot be read) and `ApiError`.
    """
    automation, environment = _automation(catalog, name)
    cause = Cause(kind="Manual", at=now, by=by, reason=reason)
    marker = run_name(name, now)
    if automation.batch_execution is not None:
        batch = automation.batch_execution
        place = environment.name, automation.model, batch.variation
        build = batch.build_id or ledger.current(place)
        if not build:
            raise NotMeantError(f"variation {batch.variation} serves no promoted build in {environment.name} yet")
        return recorded.of_batch(automation, environment.name, cause, marker, build)
    assert automation.build_spec is not None
    commit = outside.commit(automation.build_spec, automation.build_spec.git_branch, environment)
    return recorded.of_run(automation, environment.name, cause, marker, commit)


def verdict(
    catalog: Catalog, ledger: Ledger, name: str, outside: Outside, *, build: str, to: str, now: datetime
) -> Verdict:
    """What the gate of an automation says of a build, as for a promotion to the environment `to`; "": its first.

    `build` begins an id; "": the newest that succeeded. Raises NotMeantError.
    """
    automation, home = _automation(catalog, name)
    condition, target = automation.deployment_condition, automation.deployment_spec
    if automation.batch_execution is not None:
        raise NotMeantError(f"automation {name} predicts on files, and promotes nothing")
    if condition is None or target is None:
        raise NotMeantError(f"automation {name} has no deployment_condition: every build passes")
    builds = [b for b in ledger.builds.values() if b.spec.model == automation.model and b.spec.action == "Build"]
    builds = [b for b in builds if b.status.phase is BuildPhase.SUCCEEDED and b.spec.id.startswith(build)]
    if build and len(builds) > 1:
        raise NotMeantError(f"build {build} may be any of {', '.join(b.short for b in builds)}")
    if not build:
        builds = [b for b in builds if b.spec.automation == name]
    if not builds:
        which = f"build {build}" if build else f"build of automation {name}"
        raise NotMeantError(f"no {which} has succeeded yet")
    judged = max(builds, key=lambda one: one.spec.cause.at)
    environment = to or next(iter(target.environments), home.name)
    if environment not in catalog.environments:
        known = ", ".join(catalog.environments)
        raise NotMeantError(f"there is no valid environment {environment!r}; there are: {known}")
    place = environment, automation.model, condition.variation or target.variation_name
    current = ledger.current(place)
    request = PromotionRequest(
        model=automation.model,
        variation=target.variation_name,
        environment=environment,
        build=judged.spec.id,
        expected_current=current,
        automation=name,
        cause=Cause(kind="Manual", at=now),
    )
    asked = Promotion(identity=Identity(name="asked"), spec=request)
    deployed = ledger.build(current) if condition.variation is not None else None
    engine = partial(outside.engine, home)
    timeout_s = home.analytics.timeout_seconds
    return judging.gate(condition, asked, judged, deployed, engine, now=now, timeout_s=timeout_s)


def _automation(catalog: Catalog, name: str) -> tuple[Automation, Environment]:
    placed = catalog.automations.get(name)
    if placed is None:
        raise NotMeantError(
            f"there is no valid automation {name!r}; there are: {', '.join(catalog.automations) or 'none'}"
        )
    environment = automation_environment(catalog, placed.spec, promotion_order(catalog))
    if environment not in catalog.environments:
        raise NotMeantError(f"automation {name} has no environment to build in")
    return placed.spec, catalog.environments[environment].spec
