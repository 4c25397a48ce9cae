"""Between specs and records: a build as its record says it, and what its Job says of it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

import orjson

from reconciler.readiness import Readiness, State
from reconciler.records import (
    Build,
    BuildPhase,
    BuildRequest,
    BuildStatus,
    Cause,
    Failure,
    Identity,
    RecordError,
    build_name,
)
from renderers.catalog import BuildId, Placed, Recorded
from renderers.identity import build_id
from renderers.manifest import Body, Origin
from runtime.records import BuildRecord, record_key
from schemas.automation import Automation, BatchExecution
from schemas.build import Build as BuildSpec
from schemas.build import BuildSpecification
from schemas.environment import Environment

#: What a record leaves out of a build specification: it has a field of its own, or is only for people.
_ELSEWHERE = {"name", "model", "git_branch", "git_commit", "environment", "description"}


def of_spec(build: BuildSpec, identity: BuildId, environment: str, now: datetime) -> Build:
    """The record of a build that a spec names."""
    request = BuildRequest(
        id=identity.id,
        model=build.model,
        environment=environment,
        cause=Cause(kind="Spec", at=now),
        commit=identity.commit or "",
        specification=specification_of(build),
    )
    return _new(request)


def of_run(automation: Automation, environment: str, cause: Cause, run: str, commit: str) -> Build:
    """The record of a run of an automation that builds."""
    assert automation.build_spec is not None
    identity = build_id(automation.build_spec, automation.model, commit, run=run)
    request = BuildRequest(
        id=identity.id,
        model=automation.model,
        environment=environment,
        automation=automation.name,
        cause=cause,
        commit=commit,
        specification=specification_of(automation.build_spec),
    )
    return _new(request)


def of_batch(automation: Automation, environment: str, cause: Cause, run: str, build: str) -> Build:
    """The record of a run of an automation that predicts on files, with the build of this id."""
    assert automation.batch_execution is not None
    batch = automation.batch_execution.model_dump(mode="json", exclude_defaults=True)
    content = {"model": automation.model, "run": run, "build": build, "batch": batch}
    request = BuildRequest(
        id=sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest(),
        model=automation.model,
        environment=environment,
        automation=automation.name,
        action="Batch",
        cause=cause,
        specification={"build": build, "batch": batch},
    )
    return _new(request)


def of_registration(automation: Automation, environment: str, cause: Cause) -> Build:
    """The record that says when an automation was first seen: nothing runs, and its schedule counts from there."""
    digest = sha256(f"{automation.name}@registered".encode()).hexdigest()
    request = BuildRequest(
        id=digest, model=automation.model, environment=environment, automation=automation.name, cause=cause
    )
    return _new(request).model_copy(update={"status": registered(cause)})


def registered(cause: Cause) -> BuildStatus:
    """The status of such a record."""
    return BuildStatus(phase=BuildPhase.REGISTERED, finished_at=cause.at)


def is_of(build: Build, automation: Automation) -> bool:
    """Whether a run is what the automation would ask for now."""
    if automation.build_spec is None or build.spec.action != "Build":
        return False
    return dict(build.spec.specification) == specification_of(automation.build_spec)


def _new(request: BuildRequest) -> Build:
    return Build(identity=Identity(name=build_name(request.model, request.id)), spec=request)


def specification_of(spec: BuildSpecification) -> Mapping[str, Any]:
    """What a record keeps of a build specification."""
    return spec.model_dump(mode="json", exclude_defaults=True, exclude=_ELSEWHERE)


def recorded(build: Build, home: Environment, origin: Origin) -> Recorded:
    """What rendering needs of a recorded build. `origin` is that of the spec that it is built or served for.

    Raises RecordError where its specification is none: somebody has edited it, or a newer Trueup wrote it.
    """
    spec = build.spec
    content = dict(spec.specification) | {"name": "recorded", "model": spec.model, "git_commit": spec.commit or None}
    try:
        parsed = BuildSpec.model_validate_json(orjson.dumps(content))
    except ValueError as error:
        words = " ".join(str(error).split())[:300]
        raise RecordError(f"the specification of Build {build.identity.name} cannot be read: {words}") from None
    # The record's own name, which no spec can have: nothing may take the one for the other.
    parsed = parsed.model_copy(update={"name": f"{spec.model}/{build.short}"})
    return Recorded(Placed(parsed, origin), BuildId(spec.id, spec.commit or None, provisional=False), home)


# -- what a Job says ------------------------------------------------------------------------------------------------


def of_storage(status: BuildStatus, found: BuildRecord) -> BuildStatus:
    """The status with what the object storage has of the build: all of its result."""
    changes = {
        "phase": BuildPhase.SUCCEEDED,
        "started_at": found.started_at,
        "finished_at": found.finished_at,
        "metrics": {name: repr(value) for name, value in found.metrics.items()},
        "artifact": found.artifact.key,
        "record": record_key(found.model, found.build_id),
    }
    return BuildStatus.model_validate(status.model_dump() | changes)


#: What the definition of the record has room for.
_METRICS, _WORD, _TEXT = 1000, 128, 8192


def fitting(status: BuildStatus, wanted: Sequence[str]) -> BuildStatus:
    """The status as the cluster takes it: of too many metrics the first, and in any case those that are `wanted`.

    One that the cluster refuses would leave a build running for ever.
    """
    names = sorted(status.metrics, key=lambda name: name not in wanted)[:_METRICS]
    failure = status.failure
    if failure is not None:
        failure = Failure(
            step=failure.step[:_WORD], reason=failure.reason[:_WORD] or "Failed", message=failure.message[:_TEXT]
        )
    kept = {name: value for name, value in status.metrics.items() if name in set(names)}
    return status.model_copy(update={"metrics": kept, "failure": failure})


def lost(status: BuildStatus) -> BuildStatus:
    """The status of a build whose Job has succeeded, and of whose result nothing is left anywhere."""
    message = "its Job is complete, and neither its pods nor the object storage say what came of it"
    changes = {"phase": BuildPhase.FAILED, "failure": Failure(reason="ResultLost", message=message)}
    return status.model_copy(update=changes)


def batch_of(run: Build) -> BatchExecution:
    """What a batch run was asked to do. Raises RecordError."""
    try:
        return BatchExecution.model_validate_json(orjson.dumps(run.spec.specification["batch"]))
    except (ValueError, KeyError) as error:
        words = " ".join(str(error).split())[:300]
        raise RecordError(f"the specification of Build {run.identity.name} cannot be read: {words}") from None


def status_of(build: Build, job: Body | None, state: Readiness, pods: Sequence[Body]) -> BuildStatus:
    """The status of a build whose Job is in this state. `pods` are the Job's, as far as they are still there.

    The result of a Job that has succeeded, and whose pods are gone, is in the object storage alone (`is_whole`).
    """
    before = build.status
    if job is None:
        return before.model_copy(update={"phase": BuildPhase.PENDING})
    started = job.get("status", {}).get("startTime") or before.started_at
    if state.state is State.CURRENT:
        ended = job["status"].get("completionTime") or _condition_time(job, "Complete")
        result = _result(pods)
        changes = {
            "phase": BuildPhase.SUCCEEDED,
            "started_at": started,
            "finished_at": ended,
            "metrics": {name: str(value) for name, value in result.get("metrics", {}).items()},
            "artifact": result.get("artifact", ""),
            "record": result.get("record", ""),
        }
    elif state.state is State.FAILED:
        changes = {
            "phase": BuildPhase.FAILED,
            "started_at": started,
            "finished_at": _condition_time(job, "Failed"),
            "failure": _failure(pods, state.message),
        }
    else:
        phase = BuildPhase.RUNNING if job.get("status", {}).get("active") else BuildPhase.PENDING
        changes = {"phase": phase, "started_at": started}
    return BuildStatus.model_validate(before.model_dump() | changes)


def is_whole(pods: Sequence[Body]) -> bool:
    """Whether the pods tell the whole result: some metrics may not have fitted into it."""
    result = _result(pods)
    return bool(result) and not result.get("metrics_left_out")


def _result(pods: Sequence[Body]) -> dict[str, Any]:
    """What the container of the pod that succeeded left. Numbers stay the text that they are: 0.1 is no float."""
    for pod in pods:
        for container in pod.get("status", {}).get("containerStatuses", ()):
            terminated = container.get("state", {}).get("terminated") or {}
            if terminated.get("exitCode") == 0 and terminated.get("message"):
                try:
                    result = json.loads(terminated["message"], parse_float=str, parse_int=str)
                    json.dumps(result, ensure_ascii=False).encode()  # half a character is no text
                except (ValueError, RecursionError):
                    continue
                if isinstance(result, dict) and isinstance(result.get("metrics", {}), dict) and _has_texts(result):
                    return result
    return {}


def _has_texts(result: Mapping[str, Any]) -> bool:
    """The code of a model writes into the same file: what it leaves there is a stranger's."""
    return all(isinstance(result.get(name, ""), str) for name in ("artifact", "record"))


def _failure(pods: Sequence[Body], message: str) -> Failure:
    """In the words of the newest pod's container, or else in those of the Job's controller."""
    newest_first = sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)
    for pod in newest_first:
        status = pod.get("status", {})
        for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
            terminated = container.get("state", {}).get("terminated") or {}
            if terminated.get("exitCode"):
                try:
                    error = json.loads(terminated.get("message") or "")["error"]
                    return Failure(step=str(error["step"]), reason=str(error["reason"]), message=str(error["message"]))
                except (ValueError, KeyError, TypeError, RecursionError):
                    continue
    return Failure(reason="JobFailed", message=message or "the Job failed, and does not say why")


def _condition_time(job: Body, kind: str) -> str | None:
    conditions = job.get("status", {}).get("conditions") or ()
    return next((c.get("lastTransitionTime") for c in conditions if c.get("type") == kind), None)
