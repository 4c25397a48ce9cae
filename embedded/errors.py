"""What the API server answers when it refuses: the `Status` object, in the words that clients look for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedded.kinds.kind import Kind
    from embedded.schema import Cause


class StatusError(Exception):
    """A request that is answered with a `Status` of `Failure`.

    `code` is the HTTP status, `reason` the machine-readable word (`NotFound`, `Conflict`, ...), `details` what
    the reason is about. `headers` go into the response.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: dict[str, Any] | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = tuple(headers)

    def status(self) -> dict[str, Any]:
        """The body of the answer."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        status["code"] = self.code
        return status


def _details(kind: Kind, name: str, what: str) -> dict[str, Any]:
    details = {"name": name, "group": kind.group, "kind": what}
    return {key: value for key, value in details.items() if value}


def not_found(kind: Kind, name: str) -> StatusError:
    """No such object."""
    message = f'{kind.group_resource} "{name}" not found'
    return StatusError(404, "NotFound", message, _details(kind, name, kind.plural))


def no_such_path() -> StatusError:
    """The path names no resource that is served."""
    return StatusError(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(kind: Kind, name: str) -> StatusError:
    """A create of something that is there."""
    message = f'{kind.group_resource} "{name}" already exists'
    return StatusError(409, "AlreadyExists", message, _details(kind, name, kind.plural))


def conflict(kind: Kind, name: str, why: str) -> StatusError:
    """A precondition that does not hold: resourceVersion or uid."""
    message = f'Operation cannot be fulfilled on {kind.group_resource} "{name}": {why}'
    return StatusError(409, "Conflict", message, _details(kind, name, kind.plural))


def apply_conflict(message: str, causes: Sequence[Cause]) -> StatusError:
    """A server-side apply of fields that another manager owns."""
    return StatusError(409, "Conflict", message, {"causes": [_cause(cause) for cause in causes]})


def invalid(kind: Kind, name: str, message: str, causes: Sequence[Cause]) -> StatusError:
    """An object that breaks a rule of its kind; `message` from `kinds.invalid_text`."""
    details = {**_details(kind, name, kind.kind), "causes": [_cause(cause) for cause in causes]}
    return StatusError(422, "Invalid", message, details)


def forbidden(kind: Kind, name: str, why: str, causes: Sequence[dict[str, str]] = ()) -> StatusError:
    """An admission rule says no."""
    details = _details(kind, name, kind.plural)
    if causes:
        details["causes"] = list(causes)
    subject = f'{kind.group_resource} "{name}"' if name else kind.group_resource
    return StatusError(403, "Forbidden", f"{subject} is forbidden: {why}", details)


def bad_request(message: str) -> StatusError:
    """A request that cannot be read."""
    return StatusError(400, "BadRequest", message)


def expired(message: str, details: dict[str, Any] | None = None) -> StatusError:
    """A revision whose history was compacted away: the client lists again."""
    return StatusError(410, "Expired", message, details)


def method_not_allowed() -> StatusError:
    """The resource is there; the verb is not."""
    message = "the server does not allow this method on the requested resource"
    return StatusError(405, "MethodNotAllowed", message, {})


def unauthorized() -> StatusError:
    """No token, or a wrong one."""
    return StatusError(401, "Unauthorized", "Unauthorized")


def _cause(cause: Cause) -> dict[str, str]:
    written = {"reason": cause.reason, "message": cause.message}
    if cause.field:
        written["field"] = cause.field
    return written
