"""The memory: a Build for each run of a build, a Promotion for each build that is to be served somewhere. Pure.

Both are custom resources in the reconciler's namespace. What was asked for (spec) never changes; what became of it
(status) is written by the reconciler alone, each time against the version that it was decided on. A Promotion's
decisions are the one thing that people add to: a list that only grows.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, ValidationError
from pydantic.alias_generators import to_camel

from reconciler import inventory
from renderers import names
from renderers.manifest import Body, ObjectId

API_VERSION = "trueup.dev/v1"
NAMESPACE = inventory.NAMESPACE


class RecordError(Exception):
    """A record that somebody has edited into something that cannot be read. The sentence says which, and what."""


def _to_text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:  # the year 1, east of Greenwich
        raise ValueError("no date that can be told in UTC") from None


#: An instant, in UTC, to the millisecond: a schedule compares them.
Instant = Annotated[datetime, AfterValidator(_in_utc), PlainSerializer(_to_text, return_type=str)]


class _Part(BaseModel):
    """A part of a record: camelCase in the cluster, as Kubernetes has it."""

    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore", defer_build=True
    )


class Identity(_Part):
    """Which object of the cluster it is, and which version of it was read. Empty for one that is still to be made."""

    name: str
    uid: str = ""
    resource_version: str = ""
    created_at: Instant | None = None


# -- builds ---------------------------------------------------------------------------------------------------------


class BuildPhase(StrEnum):
    """Where a build stands. The last three are ends."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"  #: a later run replaced it (concurrency_policy: Replace)
    REGISTERED = "Registered"  #: nothing ran: the automation was first seen then, and its schedule counts from there


class Cause(_Part):
    """What started it."""

    kind: Literal["Spec", "Schedule", "Interval", "Metric", "Git", "Manual", "Immediate", "Registration"]
    at: Instant
    """The instant that a schedule names; otherwise when it was asked for."""
    by: str = ""
    """Who asked, as the cluster authenticated them; "" for the reconciler itself."""
    reason: str = ""
    """In their words, or what the trigger saw."""


class BuildRequest(_Part):
    """The spec of a Build: all that makes it what it is."""

    id: str
    """SHA-256, 64 hex digits (`renderers.identity`)."""
    model: str
    environment: str
    """Where it runs, and in whose object storage its artifact is."""
    automation: str = ""
    """Whose run it is; "" for a build of a spec."""
    action: Literal["Build", "Batch"] = "Build"
    cause: Cause
    commit: str = ""
    specification: Mapping[str, Any] = Field(default_factory=dict)
    """The build specification, as in a spec, defaults left out. For a batch: {"build": id, "batch": its spec}."""


class Failure(_Part):
    """Why a build failed, as its container said it."""

    step: str = ""
    reason: str
    message: str


class BuildStatus(_Part):
    """What became of a build."""

    phase: BuildPhase = BuildPhase.PENDING
    started_at: Instant | None = None
    finished_at: Instant | None = None
    metrics: Mapping[str, str] = Field(default_factory=dict)
    """By name, as text: the exact decimals that were logged."""
    artifact: str = ""
    """The key of the artifact in the object storage."""
    record: str = ""
    """The key of its record there."""
    failure: Failure | None = None
    notified: tuple[str, ...] = ()
    """Which messages were sent (`notify`)."""


class Build(_Part):
    """A run of a build."""

    identity: Identity
    spec: BuildRequest
    status: BuildStatus = BuildStatus()

    @property
    def is_finished(self) -> bool:
        """Whether it has come to an end."""
        return self.status.phase not in (BuildPhase.PENDING, BuildPhase.RUNNING)

    @property
    def short(self) -> str:
        """The 8 hex digits that are part of names."""
        return self.spec.id[:8]


def build_name(model: str, build_id: str) -> str:
    """The name of a Build: the cluster admits it once."""
    return names.job_name(model, build_id[:8])


# -- promotions -----------------------------------------------------------------------------------------------------


class Phase(StrEnum):
    """Where a promotion stands. The last four are ends."""

    PENDING = "Pending"  #: it waits: for its gate, for another environment, or for its turn
    AWAITING_APPROVAL = "AwaitingApproval"
    ROLLING_OUT = "RollingOut"
    HELD = "Held"  #: only a person can say how it goes on
    SUCCEEDED = "Succeeded"
    REJECTED = "Rejected"  #: it never got any traffic
    ROLLED_BACK = "RolledBack"  #: it had some, and the build before has all of it again
    SUPERSEDED = "Superseded"  #: something else is wanted by now


ENDS = frozenset({Phase.SUCCEEDED, Phase.REJECTED, Phase.ROLLED_BACK, Phase.SUPERSEDED})


class Action(StrEnum):
    """What people decide."""

    APPROVE = "Approve"
    REJECT = "Reject"  #: while it rolls out: abort
    PAUSE = "Pause"
    RESUME = "Resume"


class Decision(_Part):
    """What a person said. `build` is the id that they looked at: for any other, it decides nothing."""

    action: Action
    by: str
    at: Instant
    reason: str = ""
    build: str


class PromotionRequest(_Part):
    """The spec of a Promotion."""

    model: str
    variation: str
    environment: str
    build: str
    """The id of the build that is to be served."""
    expected_current: str = ""
    """The id of the build that was served when this was asked for; "" for none."""
    kind: Literal["Promote", "Rollback"] = "Promote"
    """A rollback goes to a build that was verified there, and asks nobody."""
    automation: str = ""
    attempt: int = 1
    """A build that was rejected or rolled back is never tried again unless a person asks for another attempt."""
    cause: Cause
    decisions: tuple[Decision, ...] = ()


class Outcome(StrEnum):
    """Of a gate or a check; only the first lets anything happen."""

    PASSED = "Passed"
    REJECTED = "Rejected"
    INCONCLUSIVE = "Inconclusive"  #: held for a person
    ERROR = "Error"  #: tried again, then held


class Verdict(_Part):
    """One judgement, with all that it was made from. Written once, never changed."""

    outcome: Outcome
    reason: str
    """One word in CamelCase, for machines: `gates` has the list."""
    message: str
    """One plain sentence."""
    name: str = ""
    """Of the check; "" for the gate."""
    at: Instant
    attempt: int = 1
    metric: str = ""
    """Its name."""
    value: str = ""
    """The metric's value, as decimal text; "" where there is none."""
    threshold: str = ""
    """What it was compared with, as decimal text."""
    direction: str = ""
    query: str = ""
    """SQL as the spec has it, or PromQL; "" for a static threshold."""
    ran: str = ""
    """What ran, where that is not `query` as it is: SQL without the candidate, and without what came later."""
    query_sha256: str = ""
    """Of what ran."""
    parameters: Mapping[str, str] = Field(default_factory=dict)
    """Bound, as text."""
    engine: str = ""
    row: tuple[str, ...] = ()
    """What the engine answered, as text."""
    duration_ms: int = 0
    samples: str = ""
    """Requests in the window of a check."""
    retryable: bool = False
    """An error that another try may mend."""
    dry_run: bool = False


class Gate(_Part):
    """The gate of a promotion so far. `verdicts`: the last ten."""

    verdicts: tuple[Verdict, ...] = ()
    first_at: Instant | None = None
    next_at: Instant | None = None
    """When it is asked again."""


class Approval(_Part):
    """Who let it pass, and when."""

    by: str
    at: Instant
    reason: str = ""


class Rollout(_Part):
    """How far the traffic has moved. `weight` is what the routes should give the new build of the variation's own."""

    step: int = -1
    """The index into the canary's steps; -1: no traffic yet; as many as there are steps: all of it."""
    weight: int = 0
    began_at: Instant
    routed_at: Instant | None = None
    """When the routes were first seen to have this weight: holds count from here."""
    checks: tuple[Verdict, ...] = ()
    """The last verdict of each check in this step."""
    checked_at: Instant | None = None
    paused_at: Instant | None = None


class PromotionStatus(_Part):
    """What became of a promotion."""

    phase: Phase = Phase.PENDING
    message: str = ""
    """One sentence: what it waits for, or how it ended."""
    since: Instant | None = None
    """When this phase began."""
    gate: Gate = Gate()
    approval: Approval | None = None
    rollout: Rollout | None = None
    suspended_at: Instant | None = None
    """Since when its environment is suspended. Its clocks stand still; apart from a pause, which is a person's and
    stays."""
    decided: int = 0
    """How many of the spec's decisions have been taken into account: each one counts once, in the phase in which it
    came. Clocks could not tell that, since people's differ from the reconciler's."""
    finished_at: Instant | None = None
    notified: tuple[str, ...] = ()


class Promotion(_Part):
    """A build on its way to be served by a variation in an environment."""

    identity: Identity
    spec: PromotionRequest
    status: PromotionStatus = PromotionStatus()

    @property
    def is_finished(self) -> bool:
        """Whether it has come to an end."""
        return self.status.phase in ENDS

    @property
    def is_rolling_out(self) -> bool:
        """Whether its build may have traffic, and the build before has the rest."""
        return not self.is_finished and self.status.rollout is not None

    @property
    def place(self) -> tuple[str, str, str]:
        """(environment, model, variation): where its build is to be served."""
        return self.spec.environment, self.spec.model, self.spec.variation


def promotion_name(request: PromotionRequest) -> str:
    """The name of a Promotion: the cluster admits an attempt once."""
    place = (names.object_name(part) for part in (request.model, request.variation, request.environment))
    return f"{'.'.join(place)}.{request.build[:8]}-{request.attempt}"


# -- to and from objects --------------------------------------------------------------------------------------------

R = TypeVar("R", Build, Promotion)
_KINDS: dict[type[Build | Promotion], str] = {Build: "Build", Promotion: "Promotion"}


def kind_of(record: type[Build | Promotion]) -> str:
    """The kind of its custom resource."""
    return _KINDS[record]


def object_id_of(record: Build | Promotion) -> ObjectId:
    """Of the custom resource."""
    return ObjectId(API_VERSION, _KINDS[type(record)], NAMESPACE, record.identity.name)


def to_body(record: Build | Promotion) -> Body:
    """The whole object, status included. A version that was read is a precondition of writing it."""
    metadata: dict[str, Any] = {
        "name": record.identity.name,
        "namespace": NAMESPACE,
        "labels": names.labels(record.spec.model, "record", record.spec.environment),
    }
    if record.identity.resource_version:
        metadata |= {"resourceVersion": record.identity.resource_version, "uid": record.identity.uid}
    return {
        "apiVersion": API_VERSION,
        "kind": _KINDS[type(record)],
        "metadata": metadata,
        "spec": record.spec.model_dump(by_alias=True, exclude_defaults=True, mode="json"),
        "status": record.status.model_dump(by_alias=True, exclude_none=True, exclude_defaults=False, mode="json"),
    }


def from_body(kind: type[R], body: Body) -> R:
    """The record that an object is. Raises RecordError."""
    metadata = body["metadata"]
    identity = {
        "name": metadata["name"],
        "uid": metadata.get("uid", ""),
        "resourceVersion": metadata.get("resourceVersion", ""),
        "createdAt": metadata.get("creationTimestamp"),
    }
    try:
        return kind.model_validate({"identity": identity, "spec": body["spec"], "status": body.get("status") or {}})
    except (ValidationError, KeyError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": ("spec",), "msg": "is missing"}
        where = ".".join(str(part) for part in first["loc"])
        raise RecordError(f"{_KINDS[kind]} {NAMESPACE}/{metadata['name']}: {where}: {first['msg']}") from None
