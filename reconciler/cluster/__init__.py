"""The Kubernetes edge: the only part that talks to an API server.

`connect` finds a way to the cluster, `Reader` and `Writer` read and write objects over it, and each
refusal is an `ApiError` of the class that says what to do about it. Many threads may share all of them.
"""

from reconciler.cluster.access import connect
from reconciler.cluster.errors import (
    AlreadyExists,
    ApiError,
    Cause,
    DryRunUnsupported,
    Expired,
    FieldConflict,
    Forbidden,
    Invalid,
    KindMissing,
    KubeconfigError,
    NamespaceMissing,
    NotFound,
    QuotaExceeded,
    Stale,
    Terminating,
    TooLarge,
    Unauthorized,
    Unavailable,
    WebhookFailed,
)
from reconciler.cluster.objects import FIELD_MANAGER, Listing, Reader, Resource, WatchEvent, Writer
from reconciler.cluster.transport import Connection, Retry, Timeouts

__all__ = [
    "FIELD_MANAGER",
    "AlreadyExists",
    "ApiError",
    "Cause",
    "Connection",
    "DryRunUnsupported",
    "Expired",
    "FieldConflict",
    "Forbidden",
    "Invalid",
    "KindMissing",
    "KubeconfigError",
    "Listing",
    "NamespaceMissing",
    "NotFound",
    "QuotaExceeded",
    "Reader",
    "Resource",
    "Retry",
    "Stale",
    "Terminating",
    "Timeouts",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "WatchEvent",
    "WebhookFailed",
    "Writer",
    "connect",
]
