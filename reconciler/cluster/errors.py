"""What a refusal by a Kubernetes API server means: one class for each way of reacting to it.

Pure: an answer goes in (`from_answer`), an error value comes out. The texts that tell two refusals of
one status apart are those of kube-apiserver, and `tests/contract/test_cluster_edge.py` asks a real
server for each of them.

The message is what a person reads: the object, the server's words, what to do. Server's words may quote
what they refuse, so those about a Secret are passed on only where the server composes them from names.
"""

# ruff: noqa: N818 - "except Stale:" reads as the situation that it handles; the common base is an Error

from __future__ import annotations

import json
import re
from typing import Any, ClassVar, NamedTuple, TypeVar

import orjson

from renderers.manifest import ObjectId

_T = TypeVar("_T")


class Cause(NamedTuple):
    """One of the reasons that the server gives, for one field (`Status.details.causes`)."""

    field: str  #: "spec.replicas", "" for the object as a whole
    reason: str  #: "FieldValueInvalid", "FieldManagerConflict" ...
    message: str


class ApiError(Exception):
    """A request that the cluster refused or did not answer.

    `status` is the HTTP status, 0 where there was no answer. `reason` is the server's word for machines
    ("Conflict"), "" where it gave none. `message` is the server's text, safe to show. `id` is the object
    asked about, with an empty name for a list; None for discovery. `str()` is the sentence for people.
    """

    remedy: ClassVar[str] = ""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        target: ObjectId | None = None,
        causes: tuple[Cause, ...] = (),
    ) -> None:
        super().__init__(status, reason, message, target)
        self.status = status
        self.reason = reason
        self.message = message
        self.id = target
        self.causes = causes

    def __str__(self) -> str:
        text = f"{self.id}: {self.message}" if self.id else self.message
        return f"{text.rstrip('.')}. {self.remedy}" if self.remedy else text


class KubeconfigError(ApiError):
    """The kubeconfig, the service account or the exec plugin gives no usable access."""

    def __init__(self, message: str) -> None:
        super().__init__(0, "", message)


class Unavailable(ApiError):
    """No answer, or one that another try may change: 408, 429, 5xx, the network. Raised after the retries.

    `maybe_done` says that the request may have been carried out all the same. Whoever sent an `update`
    then reads the object again before deciding anything.
    """

    remedy = "The next pass tries again."

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        target: ObjectId | None = None,
        *,
        maybe_done: bool = True,
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(status, reason, message, target)
        self.maybe_done = maybe_done
        self.retry_after = retry_after  #: seconds that the server asks to wait, 0.0 as a rule


class WebhookFailed(Unavailable):
    """An admission or conversion webhook could not be called. Says nothing about the object."""


class NotLeader(ApiError):
    """Another replica leads, or nobody can tell: this one writes nothing. No request was sent."""

    remedy = "The replica that leads does it."

    def __init__(self, message: str) -> None:
        super().__init__(0, "", message)


class Unauthorized(ApiError):
    """401, also with fresh credentials."""

    remedy = "Log in to the cluster again, or renew the credentials in the kubeconfig."


class Forbidden(ApiError):
    """403: the role of this account does not allow it."""

    remedy = "Grant it in the role of this account."


class QuotaExceeded(ApiError):
    """403: a ResourceQuota of the namespace is used up, or asks for requests or limits to be set."""

    remedy = "Raise the quota, or ask for less."


class Terminating(ApiError):
    """403: the namespace is being deleted. It passes by itself."""

    remedy = "Wait until the namespace is gone; it is then created again."


class NotFound(ApiError):
    """404: the object does not exist."""


class KindMissing(ApiError):
    """The cluster does not serve this kind in this version."""

    remedy = "Install the CustomResourceDefinition or the operator that brings it."


class NamespaceMissing(ApiError):
    """404: the namespace that the object is to be in does not exist."""

    remedy = "Create the namespace first."


class Expired(ApiError):
    """410: the resourceVersion or the continue token is older than what the server remembers."""

    remedy = "List again."


class AlreadyExists(ApiError):
    """409 on create: somebody else made an object of this name."""


class Stale(ApiError):
    """409: the object is not, or no longer, the one that the request was made for.

    `field` is what differed: "uid" (deleted, and made anew by somebody) or "resourceVersion" (changed).
    """

    remedy = "Read it again and decide again."

    @property
    def field(self) -> str:
        return "uid" if _UID_DIFFERS.search(self.message) else "resourceVersion"


class FieldConflict(ApiError):
    """409 on server-side apply: other managers own fields that we want to set."""

    remedy = "Remove the field there or here, or let this field manager take it over."

    @property
    def conflicts(self) -> tuple[tuple[str, str], ...]:
        """(manager, field) pairs: ("kubectl", ".spec.replicas")."""
        return tuple((_manager(cause.message), cause.field) for cause in self.causes)


class Invalid(ApiError):
    """The object is refused for what it says: by validation (422, 400) or by an admission policy (403)."""

    @property
    def immutable_only(self) -> bool:
        """Whether each cause is about a field that cannot change: a replacement would be accepted.

        Other causes beside it mean that the replacement would be refused as well, after the deletion.
        """
        return bool(self.causes) and all(_IMMUTABLE.search(cause.message) for cause in self.causes)


class TooLarge(ApiError):
    """413, or the store's own limit (about 1.5 MiB for an object)."""

    remedy = "Make the object smaller: split it, or move the data to object storage."


class DryRunUnsupported(ApiError):
    """400: an admission webhook with side effects refuses dry runs. What it would do is unknown."""


def is_of_one(error: ApiError) -> bool:
    """Whether the cluster has answered, and only this object, or this kind, is refused: others may fare better."""
    lost = (KubeconfigError, NotLeader, Unauthorized, Unavailable)
    return isinstance(error, WebhookFailed) or not isinstance(error, lost)


# The words of kube-apiserver. `is forbidden: User "..."` is RBAC; other 403s are admission.
_RBAC = re.compile(r'forbidden: (?:User|user) "')
_QUOTA = re.compile(r"(?:exceeded|failed) quota")
_DRY_RUN = re.compile(r"does not support dry run")
_WEBHOOK = re.compile(r"failed calling webhook|conversion webhook for .* failed")
_TOO_LARGE = re.compile(r"request is too large|larger than max|entity too large", re.IGNORECASE)
_COMPACTED = re.compile(r"has been compacted|too old resource version")
# Server-side apply reports what does not fit the schema of the kind as a plain 500, without a reason.
_UNFIT = re.compile(r"^failed to (?:create|convert|merge|build|find|decode) ")
_UID_DIFFERS = re.compile(r"UID in (?:the )?precondition|uid mismatch|metadata\.uid")
_MANAGER = re.compile(r'conflict with ("(?:[^"\\]|\\.)*")')
# Validation of built-in kinds, of CRDs (by CEL, as is the custom) and of webhooks words it in these ways.
_IMMUTABLE = re.compile(
    r"immutable|may not change once set|cannot change roleRef|updates to \w+ spec for fields other than",
    re.IGNORECASE,
)
# Go prints the whole value that it refuses: a pod template with its environment, pages of it.
_BULKY_VALUE = re.compile(r"(Invalid value: )(?:[\w.*&]*\{.*\}|map\[.*\]|\[.*\])(?=: )", re.DOTALL)

_WORDS_KEPT = 1000  # characters of the server's text
#: For a Secret, only these are quoted: kube-apiserver writes them from names, never from values.
_NAMES_ONLY = (
    Unauthorized,
    Forbidden,
    Terminating,
    NotFound,
    NamespaceMissing,
    KindMissing,
    Expired,
    AlreadyExists,
    Stale,
    FieldConflict,
)


def from_answer(
    status: int,
    body: bytes,
    target: ObjectId | None = None,
    *,
    guarded: bool = True,
    retry_after: float = 0.0,
) -> ApiError:
    """The error that an answer of HTTP status >= 400 means.

    `body` is a `Status` object, or whatever a proxy on the way says. `guarded` tells that the request
    carried a resourceVersion or a UID: without one a plain conflict is two writers meeting inside the
    server, which another try solves.
    """
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict) or answer.get("kind") != "Status":
        # A load balancer, an ingress, or the server's own router, which answers in plain text.
        secret = target is not None and target.kind == "Secret"  # of which it may quote the request
        text = "" if secret else body[:200].decode(errors="replace").strip()
        answer = {"message": f"HTTP {status}: {text}" if text else f"HTTP {status} without a reason"}
    return from_status({**answer, "code": status}, target, guarded=guarded, retry_after=retry_after)


def from_status(
    answer: dict[str, Any],
    target: ObjectId | None = None,
    *,
    guarded: bool = True,
    retry_after: float = 0.0,
) -> ApiError:
    """The error that a `Status` object means: that of an answer, or that of a watch event."""
    status: int = _typed(answer.get("code"), int) or 500
    reason = _typed(answer.get("reason"), str)
    words = _typed(answer.get("message"), str) or f"HTTP {status} {reason}".strip()
    details = _typed(answer.get("details"), dict)
    causes = tuple(
        dict.fromkeys(  # the server repeats some
            Cause(
                _typed(cause.get("field"), str),
                _typed(cause.get("reason"), str),
                _shortened(_typed(cause.get("message"), str)),
            )
            for cause in _typed(details.get("causes"), list)
            if isinstance(cause, dict)
        )
    )
    kind = _class_of(status, reason, words, details=details, causes=causes, target=target, guarded=guarded)
    if target is not None and target.kind == "Secret" and kind not in _NAMES_ONLY:
        words, causes = _withheld(status, reason, causes)
    words = _shortened(words)
    if issubclass(kind, Unavailable):
        return kind(
            status,
            reason,
            words,
            target,
            maybe_done=status not in (408, 409, 429),  # these are answered before anything is stored
            retry_after=retry_after or float(min(_typed(details.get("retryAfterSeconds"), int), 3600)),
        )
    return kind(status, reason, words, target, causes)


def _class_of(
    status: int,
    reason: str,
    words: str,
    *,
    details: dict[str, Any],
    causes: tuple[Cause, ...],
    target: ObjectId | None,
    guarded: bool,
) -> type[ApiError]:
    match status:
        case 400:
            return DryRunUnsupported if _DRY_RUN.search(words) else Invalid
        case 401:
            return Unauthorized
        case 403:
            return _forbidden(words, causes)
        case 404:
            return _missing(details, target)
        case 409:
            return _conflict(reason, details, causes, target, guarded)
        case 410:
            return Expired
        case 413:
            return TooLarge
        case 422:
            # Update and apply tell another uid as one more immutable field.
            return Stale if any(cause.field == "metadata.uid" for cause in causes) else Invalid
        case 408 | 429:
            return Unavailable
        case _ if status >= 500:
            return _broken(words)
        case _:
            return ApiError


def _forbidden(words: str, causes: tuple[Cause, ...]) -> type[ApiError]:
    if any(cause.reason == "NamespaceTerminating" for cause in causes):
        return Terminating
    if _RBAC.search(words):
        return Forbidden
    return QuotaExceeded if _QUOTA.search(words) else Invalid


def _missing(details: dict[str, Any], target: ObjectId | None) -> type[ApiError]:
    if "kind" not in details:
        return KindMissing  # the path is unknown, not the object
    if details["kind"] == "namespaces" and target is not None and target.kind != "Namespace":
        return NamespaceMissing
    return NotFound


def _conflict(
    reason: str,
    details: dict[str, Any],
    causes: tuple[Cause, ...],
    target: ObjectId | None,
    guarded: bool,
) -> type[ApiError]:
    if causes and all(cause.reason == "FieldManagerConflict" for cause in causes):
        return FieldConflict
    if reason == "AlreadyExists":
        return AlreadyExists
    # Admission counts against the quota by optimistic locking, and reports its own lost race as if it
    # were about our object (kubernetes/kubernetes#67761).
    if details.get("kind") == "resourcequotas" and target is not None and target.kind != "ResourceQuota":
        return Unavailable
    return Stale if guarded else Unavailable


def _broken(words: str) -> type[ApiError]:
    if _WEBHOOK.search(words):
        return WebhookFailed
    if _TOO_LARGE.search(words):
        return TooLarge
    if _COMPACTED.search(words):
        return Expired
    return Invalid if _UNFIT.search(words) else Unavailable


def _typed(value: object, kind: type[_T]) -> _T:
    """The value, or an empty one: what is between us and the server may answer anything."""
    return value if isinstance(value, kind) else kind()


def _withheld(status: int, reason: str, causes: tuple[Cause, ...]) -> tuple[str, tuple[Cause, ...]]:
    fields = ", ".join(cause.field for cause in causes if cause.field)
    words = f"{reason or f'HTTP {status}'}{f' ({fields})' if fields else ''}"
    return (
        f"{words}; the server's words are withheld, as they may quote the Secret",
        tuple(cause._replace(message="") for cause in causes),
    )


def _manager(message: str) -> str:
    found = _MANAGER.search(message)
    try:
        return str(json.loads(found[1])) if found else message
    except ValueError:  # Go has escapes that JSON has not
        return message


def _shortened(words: str) -> str:
    words = _BULKY_VALUE.sub(r"\1{...}", words).partition("\n@@")[0]  # some validation adds a diff
    return words if len(words) <= _WORDS_KEPT else f"{words[: _WORDS_KEPT // 2]} ... {words[-_WORDS_KEPT // 2 :]}"
