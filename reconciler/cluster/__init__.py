"""The Kubernetes edge: the only part that talks to an API server.

`connect` finds a way to the cluster, `Reader` and `Writer` read and write objects over it, and each
refusal is an `ApiError` of the class that says what to do about it. Many threads may share all of them.
"""

from reconciler.cluster.access import connect
from reconciler.cluster.cache import Cache, CachedReader, CachedWriter, Counts, Trouble
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
    NotLeader,
    QuotaExceeded,
    Stale,
    Terminating,
    TooLarge,
    Unauthorized,
    Unavailable,
    WebhookFailed,
    is_of_one,
)
from reconciler.cluster.objects import FIELD_MANAGER, Listing, Page, Reader, Resource, WatchEvent, Writer, is_ours
from reconciler.cluster.shelf import Entry, Heard, Watched
from reconciler.cluster.transport import Connection, Retry, Timeouts
from reconciler.cluster.watching import Pace

__all__ = [
    "FIELD_MANAGER",
    "AlreadyExists",
    "ApiError",
    "Cache",
    "CachedReader",
    "CachedWriter",
    "Cause",
    "Connection",
    "Counts",
    "DryRunUnsupported",
    "Entry",
    "Expired",
    "FieldConflict",
    "Forbidden",
    "Heard",
    "Invalid",
    "KindMissing",
    "KubeconfigError",
    "Listing",
    "NamespaceMissing",
    "NotFound",
    "NotLeader",
    "Pace",
    "Page",
    "QuotaExceeded",
    "Reader",
    "Resource",
    "Retry",
    "Stale",
    "Terminating",
    "Timeouts",
    "TooLarge",
    "Trouble",
    "Unauthorized",
    "Unavailable",
    "WatchEvent",
    "Watched",
    "WebhookFailed",
    "Writer",
    "connect",
    "is_of_one",
    "is_ours",
]
