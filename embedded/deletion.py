"""What a deletion does to an object: preconditions, finalizers, the time that a Pod has to stop."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from embedded.errors import StatusError
from embedded.kinds.kind import Kind

Object = dict[str, Any]

#: The finalizers by which a deletion waits for, or lets go of, what the object owns.
FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"

#: The finalizer of a CustomResourceDefinition whose objects are not deleted yet.
CRD_CLEANUP = "customresourcecleanup.apiextensions.k8s.io"

CRDS = "customresourcedefinitions.apiextensions.k8s.io"


def timestamp(now: datetime) -> str:
    """RFC 3339 in whole seconds, as in metadata."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


class DeleteOptions(NamedTuple):
    """How a deletion is asked for. `propagation` is Background, Foreground, Orphan or "" (the kind's default)."""

    dry_run: bool = False
    uid: str = ""
    resource_version: str = ""
    propagation: str = ""
    grace_seconds: int | None = None


def check_preconditions(kind: Kind, name: str, live: Object, options: DeleteOptions) -> None:
    """Refuse (409) to delete another object than the one that was meant."""
    metadata = live["metadata"]
    why = ""
    if options.uid and options.uid != metadata["uid"]:
        why = (
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({metadata['uid']})."
            " The object might have been deleted and then recreated"
        )
    elif options.resource_version and options.resource_version != metadata["resourceVersion"]:
        why = (
            f"the ResourceVersion in the precondition ({options.resource_version}) does not match the ResourceVersion"
            f" in record ({metadata['resourceVersion']}). The object might have been modified"
        )
    if why:
        details = {"name": name, "group": kind.group, "kind": kind.kind}
        what = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
        message = f'Operation cannot be fulfilled on {what} "{name}": {why}'
        raise StatusError(409, "Conflict", message, {key: value for key, value in details.items() if value})


def mark(kind: Kind, obj: Object, options: DeleteOptions, now: datetime) -> bool:
    """Make the object what it is once its deletion has begun; whether it stays for the time being."""
    metadata = obj["metadata"]
    deleting = "deletionTimestamp" in metadata
    if options.propagation or not deleting:
        _set_finalizers(kind, metadata, options)
    grace = _grace_seconds(kind, obj, options)
    if not deleting and (is_held(kind, obj) or kind.group_resource == "pods"):
        metadata["deletionTimestamp"] = timestamp(now + timedelta(seconds=grace))
        if kind.group_resource != "namespaces":
            metadata["deletionGracePeriodSeconds"] = grace
        if metadata.get("generation"):
            metadata["generation"] += 1
    elif deleting and grace < metadata.get("deletionGracePeriodSeconds", 0):
        metadata["deletionTimestamp"] = timestamp(now + timedelta(seconds=grace))
        metadata["deletionGracePeriodSeconds"] = grace
    if kind.group_resource == "namespaces":
        obj.setdefault("status", {})["phase"] = "Terminating"
    return is_held(kind, obj)


def _set_finalizers(kind: Kind, metadata: Object, options: DeleteOptions) -> None:
    finalizers = [name for name in metadata.get("finalizers", ()) if name not in (FOREGROUND, ORPHAN)]
    # A Job keeps its Pods unless somebody says otherwise, for the sake of clients of 2015.
    propagation = options.propagation or ("Orphan" if kind.group_resource == "jobs.batch" else "Background")
    if propagation == "Foreground":
        finalizers.append(FOREGROUND)
    elif propagation == "Orphan":
        finalizers.append(ORPHAN)
    if kind.group_resource == CRDS and CRD_CLEANUP not in finalizers:
        finalizers.append(CRD_CLEANUP)
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)


def is_held(kind: Kind, obj: Object) -> bool:
    """Whether an object that is being deleted stays: for its finalizers, or for the time that a Pod has to stop."""
    if obj["metadata"].get("finalizers"):
        return True
    if kind.group_resource == "namespaces":
        return bool(obj.get("spec", {}).get("finalizers"))
    return bool(obj["metadata"].get("deletionGracePeriodSeconds"))


def _grace_seconds(kind: Kind, obj: Object, options: DeleteOptions) -> int:
    """The time a Pod has to stop. One that runs nowhere, or no more, needs none."""
    if kind.group_resource != "pods":
        return 0
    spec = obj.get("spec", {})
    if not spec.get("nodeName") or obj.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    if options.grace_seconds is not None:
        return options.grace_seconds
    return int(spec.get("terminationGracePeriodSeconds", 30))


def status(kind: Kind, name: str, uid: str) -> Object:
    """What the deletion of an object that is gone is answered with."""
    details = {"name": name, "group": kind.group, "kind": kind.plural, "uid": uid}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {key: value for key, value in details.items() if value},
    }
