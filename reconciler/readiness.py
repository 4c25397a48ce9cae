"""Whether a live object has become what its spec asks for: the rules of kstatus, for the kinds that we apply. Pure."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple

from renderers.manifest import Body


class State(StrEnum):
    """Words of kstatus."""

    CURRENT = "ready"
    IN_PROGRESS = "in progress"
    FAILED = "failed"
    TERMINATING = "terminating"
    NOT_FOUND = "not found"


class Readiness(NamedTuple):
    """A state, and the sentence that explains it."""

    state: State
    message: str = ""


def of(body: Body | None) -> Readiness:
    """The readiness of a live object; None is one that does not exist."""
    if body is None:
        return Readiness(State.NOT_FOUND, "it does not exist")
    metadata, status = body["metadata"], body.get("status") or {}
    if "deletionTimestamp" in metadata:
        holders = ", ".join(metadata.get("finalizers", ())) or "its dependents"
        return Readiness(State.TERMINATING, f"its deletion waits for {holders}")
    observed = status.get("observedGeneration")
    if observed is not None and observed < metadata.get("generation", 0):
        return Readiness(State.IN_PROGRESS, "its controller has not seen the newest version")
    rule = _RULES.get(body["kind"])
    return rule(body.get("spec") or {}, status, metadata) if rule else Readiness(State.CURRENT)


def _deployment(spec: dict[str, Any], status: dict[str, Any], _: dict[str, Any]) -> Readiness:
    """Flux and kubectl agree on these: all pods new, all available, none old left."""
    wanted = spec.get("replicas", 1)
    progressing = _condition(status, "Progressing")
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        return Readiness(State.FAILED, progressing.get("message", "it made no progress in time"))
    if "observedGeneration" not in status:
        return Readiness(State.IN_PROGRESS, "no controller has looked at it yet")
    updated, total, available = (status.get(key, 0) for key in ("updatedReplicas", "replicas", "availableReplicas"))
    if updated < wanted:
        return Readiness(State.IN_PROGRESS, f"{updated} of {wanted} pods are of the new version")
    if total > updated:
        return Readiness(State.IN_PROGRESS, f"{total - updated} pods of the old version are still there")
    if available < wanted:
        return Readiness(State.IN_PROGRESS, f"{available} of {wanted} pods are available")
    return Readiness(State.CURRENT, f"{available} of {wanted} pods are available")


def _job(spec: dict[str, Any], status: dict[str, Any], _: dict[str, Any]) -> Readiness:
    failed = _condition(status, "Failed")
    if failed.get("status") == "True":
        return Readiness(State.FAILED, f"{failed.get('reason', 'Failed')}: {failed.get('message', '')}".rstrip(": "))
    if _condition(status, "Complete").get("status") == "True":
        return Readiness(State.CURRENT, "it is complete")
    if spec.get("suspend"):
        return Readiness(State.IN_PROGRESS, "it is suspended, mostly because its queue has not admitted it")
    active = status.get("active", 0)
    return Readiness(State.IN_PROGRESS, "it runs" if active else "it has not started")


def _route(_spec: dict[str, Any], status: dict[str, Any], metadata: dict[str, Any]) -> Readiness:
    """Every parent must have accepted this very generation, with all references resolved."""
    parents = status.get("parents") or []
    if not parents:
        return Readiness(State.IN_PROGRESS, "no gateway has looked at it yet")
    for parent in parents:
        name = parent.get("parentRef", {}).get("name", "the gateway")
        conditions = {condition["type"]: condition for condition in parent.get("conditions", ())}
        for kind, good in (("Accepted", "True"), ("ResolvedRefs", "True"), ("PartiallyInvalid", "False")):
            condition = conditions.get(kind)
            if condition is None:
                if good == "True":
                    return Readiness(State.IN_PROGRESS, f"{name} has not said whether it is {kind}")
                continue
            if condition.get("observedGeneration", 0) < metadata.get("generation", 0):
                return Readiness(State.IN_PROGRESS, f"{name} has not seen the newest version")
            if condition["status"] == "Unknown":
                return Readiness(
                    State.IN_PROGRESS, f"{name}: {condition.get('reason')}: {condition.get('message', '')}"
                )
            if condition["status"] != good:
                return Readiness(State.FAILED, f"{name}: {condition.get('reason')}: {condition.get('message', '')}")
    return Readiness(State.CURRENT, "accepted")


def _gateway(_spec: dict[str, Any], status: dict[str, Any], metadata: dict[str, Any]) -> Readiness:
    programmed = _condition(status, "Programmed")
    if programmed.get("observedGeneration", 0) < metadata.get("generation", 0):
        return Readiness(State.IN_PROGRESS, "no gateway has looked at it yet")
    if programmed["status"] != "True":
        return Readiness(State.IN_PROGRESS, f"{programmed.get('reason')}: {programmed.get('message', '')}")
    return Readiness(State.CURRENT)


def _policy(_spec: dict[str, Any], status: dict[str, Any], metadata: dict[str, Any]) -> Readiness:
    """Nobody reports a policy before the route that it is for is there, so silence is no failure."""
    for ancestor in status.get("ancestors") or ():
        accepted = _condition(ancestor, "Accepted")
        if accepted.get("status") == "False" and accepted.get("observedGeneration") == metadata.get("generation"):
            return Readiness(State.FAILED, f"{accepted.get('reason')}: {accepted.get('message', '')}")
    return Readiness(State.CURRENT)


def _scaled_object(_spec: dict[str, Any], status: dict[str, Any], _: dict[str, Any]) -> Readiness:
    ready = _condition(status, "Ready")
    if not ready:
        return Readiness(State.IN_PROGRESS, "KEDA has not looked at it yet")
    if ready.get("status") != "True":
        return Readiness(State.FAILED, f"{ready.get('reason')}: {ready.get('message', '')}")
    return Readiness(State.CURRENT)


def _disruption_budget(_spec: dict[str, Any], status: dict[str, Any], _: dict[str, Any]) -> Readiness:
    if "observedGeneration" not in status:
        return Readiness(State.IN_PROGRESS, "no controller has looked at it yet")
    return Readiness(State.CURRENT)


def _namespace(_spec: dict[str, Any], status: dict[str, Any], _: dict[str, Any]) -> Readiness:
    phase = status.get("phase", "Active")
    return Readiness(State.CURRENT) if phase == "Active" else Readiness(State.TERMINATING, f"it is {phase}")


_RULES: dict[str, Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], Readiness]] = {
    "BackendTrafficPolicy": _policy,
    "Deployment": _deployment,
    "Gateway": _gateway,
    "HTTPRoute": _route,
    "Job": _job,
    "Namespace": _namespace,
    "PodDisruptionBudget": _disruption_budget,
    "ScaledObject": _scaled_object,
    "SecurityPolicy": _policy,
}


def _condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    return next((c for c in status.get("conditions") or () if c.get("type") == kind), {})
