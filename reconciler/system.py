"""The namespace that Trueup keeps for itself, in every cluster: inventories, records, the Lease, its own Secrets."""

from __future__ import annotations

from reconciler.cluster import Forbidden, Reader, Writer
from reconciler.inventory import NAMESPACE
from renderers.manifest import ObjectId

_TARGET = ObjectId("v1", "Namespace", "", NAMESPACE)


def ensure_namespace(writer: Writer) -> None:
    """Sees to it that it is there. One that somebody else has made is left as it is. Raises `ApiError`."""
    if not _is_there(writer):
        labels = {"app.kubernetes.io/managed-by": "trueup"}
        writer.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})


def _is_there(reader: Reader) -> bool:
    try:
        return reader.get(_TARGET) is not None
    except Forbidden:
        return True  # an account that may not look was given its place by somebody
