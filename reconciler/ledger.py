"""The records in the cluster: read, created once, and changed only as they were when it was decided.

Every write is safe to lose and safe to repeat: a name is admitted once, a status is written against the version that
it was decided on, and of two writers one wins and the other reads again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import resources
from weakref import WeakSet

from reconciler import system
from reconciler.cluster import (
    AlreadyExists,
    ApiError,
    Forbidden,
    KindMissing,
    NotFound,
    Reader,
    Stale,
    Unavailable,
    Writer,
)
from reconciler.promotion import Ledger
from reconciler.records import (
    API_VERSION,
    NAMESPACE,
    Build,
    Decision,
    Promotion,
    R,
    RecordError,
    from_body,
    kind_of,
    object_id_of,
    to_body,
)
from renderers.manifest import Body, ObjectId, object_id

#: Annotation of the definitions: a number that grows with each change of them.
REVISION = "trueup.dev/revision"

_ESTABLISHED_SECONDS = 15.0  # a server that is one of several waits five before it serves a new kind
_POLL_SECONDS = 0.1
_INSTALL = (
    "An administrator installs it with the Helm chart, or by "
    "`reconcile schema --crds | kubectl apply --server-side -f -`"
)
_TRIES = 10  # of a decision, while the reconciler writes the status of the same promotion


#: Whose definitions were seen to be as they should be. A connection lives as long as its process, or as one command.
_ready: WeakSet[Reader] = WeakSet()


def read(reader: Reader) -> tuple[Ledger, list[str]]:
    """All records, by two requests, and a sentence for each that cannot be read and so is not among them.

    Nothing where the cluster does not have their kinds yet: then nothing was ever recorded. Raises `ApiError`.
    """
    records: list[Build | Promotion] = []
    bad: list[tuple[Body, str]] = []
    for body in bodies(reader):
        try:
            records.append(record_of(body))
        except RecordError as error:
            bad.append((body, f"{error}. It is left out until somebody deletes it"))
    return Ledger(
        {record.identity.name: record for record in records if isinstance(record, Build)},
        tuple(record for record in records if isinstance(record, Promotion)),
        unreadable={_place(body): why for body, why in bad if body["kind"] == kind_of(Promotion)},
    ), [why for _, why in bad]


def bodies(reader: Reader) -> list[Body]:
    """All records as they are stored, by two requests; none of a kind that the cluster does not have yet.

    Raises `ApiError`.
    """
    found: list[Body] = []
    for kind in (Build, Promotion):
        try:
            found += reader.list(API_VERSION, kind_of(kind), namespace=NAMESPACE).items
        except KindMissing:
            _ready.discard(reader)
    return found


def record_of(body: Body) -> Build | Promotion:
    """The record that an object is. Raises RecordError."""
    return from_body(Build, body) if body["kind"] == kind_of(Build) else from_body(Promotion, body)


def _place(promotion: Body) -> tuple[str, str]:
    """(environment, model) of a promotion that cannot be read. The cluster admits none without them."""
    spec = promotion.get("spec") or {}
    return str(spec.get("environment", "")), str(spec.get("model", ""))


def who(reader: Reader) -> str:
    """The user name that the cluster authenticates us by. Raises `ApiError`."""
    try:
        return reader.user()
    except KindMissing as error:
        words = "the cluster does not tell who asks (SelfSubjectReview), which needs Kubernetes 1.28 or newer"
        raise ApiError(error.status, error.reason, words) from None


# -- definitions ----------------------------------------------------------------------------------------------------


def definitions() -> list[Body]:
    """The CustomResourceDefinitions of both kinds, as this version of Trueup has them."""
    import yaml  # noqa: PLC0415 - commands that read records do not pay for it

    files = sorted((resources.files("reconciler") / "crds").iterdir(), key=lambda file: file.name)
    return [yaml.safe_load(file.read_bytes()) for file in files]


def ensure(writer: Writer) -> list[str]:
    """Sees to it that records can be written: their namespace and their kinds are there, and none is an old one.

    Three requests where they are, and none at all after that, until `read` has found a kind missing. A sentence for
    each thing that is missing and that only an administrator can add. Raises `ApiError` otherwise.
    """
    if writer in _ready:
        return []
    troubles: list[str] = []
    try:
        system.ensure_namespace(writer)
    except Forbidden as error:
        troubles.append(f"{error} An administrator can: kubectl create namespace {NAMESPACE}")
    troubles += [trouble for definition in definitions() for trouble in _install(writer, definition)]
    if not troubles:
        _wait_until_served(writer)
        _ready.add(writer)
    return troubles


def _install(writer: Writer, definition: Body) -> Iterator[str]:
    target, kind = object_id(definition), definition["spec"]["names"]["kind"]
    try:
        live = writer.get(target)
    except Forbidden as error:
        if writer.resource(API_VERSION, kind) is None:
            yield f"{error} Without the kind {kind}, nothing can be recorded. {_INSTALL}"
        return
    if live is not None and _is_current(live, definition):
        return
    try:
        # By force: whoever installed the older one (kubectl; Helm, which never upgrades definitions) owns its fields.
        writer.apply(definition, force=True)
    except Forbidden as error:
        state = "Without the kind" if live is None else "With an older definition of the kind"
        yield f"{error} {state} {kind}, not everything can be recorded. {_INSTALL}"


def _is_current(live: Body, definition: Body) -> bool:
    if _revision(live) != _revision(definition):
        # A newer one is left alone: the reconciler that brought it may come back.
        return _revision(live) > _revision(definition)
    return all(live["spec"].get(key) == value for key, value in definition["spec"].items())


def _revision(definition: Body) -> int:
    text = definition["metadata"].get("annotations", {}).get(REVISION, "")
    return int(text) if text.isascii() and text.isdigit() else 0


def _wait_until_served(reader: Reader) -> None:
    deadline = time.monotonic() + _ESTABLISHED_SECONDS
    for kind in (kind_of(Build), kind_of(Promotion)):
        while reader.resource(API_VERSION, kind) is None:
            if time.monotonic() > deadline:
                words = f"{kind} in {API_VERSION} is installed, and the cluster does not serve it yet"
                raise Unavailable(0, "", words)
            time.sleep(_POLL_SECONDS)


# -- writing --------------------------------------------------------------------------------------------------------


def create(writer: Writer, record: Build | Promotion) -> bool:
    """Records it, unless there is a record of its name: False. Somebody was faster, and theirs counts.

    A status that the record has already is written after it. Raises `ApiError`.
    """
    body = to_body(record)
    status = body.pop("status")  # which the server would drop without a word
    try:
        stored = writer.create(body)
    except AlreadyExists:
        return False
    if record.status != type(record.status)():
        with suppress(Stale):  # who has changed it since has seen it, and knows more than we do
            writer.update(stored | {"status": status}, subresource="status")
    return True


def write_status(writer: Writer, record: R) -> R | None:
    """Writes the status that was decided on this version of the record: the record as it is stored then.

    None where it has changed since, or is gone: read it again, and decide again. Raises `ApiError`.
    """
    try:
        return from_body(type(record), writer.update(to_body(record), subresource="status"))
    except (Stale, NotFound):
        return None


def decide(writer: Writer, name: str, decision: Decision) -> Promotion:
    """Adds what a person said to a promotion: the promotion with it.

    The reconciler may write its status at the same time; then it is tried again. What the same person said last is
    not said twice. Raises `Stale` where another person has decided something in between, as this one has not seen
    that; `NotFound` where the promotion is gone; RecordError where it cannot be read; `ApiError`.
    """
    target = ObjectId(API_VERSION, kind_of(Promotion), NAMESPACE, name)
    seen: tuple[Decision, ...] | None = None
    for left in reversed(range(_TRIES)):
        live = writer.get(target)
        if live is None:
            raise NotFound(404, "NotFound", "there is no such promotion any more", target)
        said = from_body(Promotion, live).spec.decisions
        if said and _is_repeated(said[-1], decision):
            return from_body(Promotion, live)
        if seen is not None and said != seen:
            words = f"{said[-1].by} has decided at the same time: {said[-1].action}"
            raise Stale(409, "Conflict", words, target)
        seen = said
        try:
            return from_body(Promotion, writer.update(_with_decision(live, decision)))
        except (Stale, Unavailable):  # of an answer that was lost, reading again tells
            if not left:
                raise
    raise AssertionError("the last try returns or raises")


def _with_decision(live: Body, decision: Decision) -> Body:
    added = decision.model_dump(by_alias=True, exclude_defaults=True, mode="json")
    spec = live["spec"]
    return live | {"spec": spec | {"decisions": [*spec.get("decisions", ()), added]}}


def _is_repeated(last: Decision, decision: Decision) -> bool:
    return (last.action, last.by, last.build) == (decision.action, decision.by, decision.build)


def delete(writer: Writer, record: Build | Promotion) -> bool:
    """Deletes that very record, if nothing has happened to it since it was read. False where something has.

    Raises `ApiError`.
    """
    identity = record.identity
    try:
        writer.delete(
            object_id_of(record),
            uid=identity.uid,
            resource_version=identity.resource_version,
            propagation="Background",
        )
    except Stale:
        return False
    return True
