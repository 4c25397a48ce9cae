"""What controllers ask of Pods, and how they make and choose them. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from embedded.kinds.problems import matches
from embedded.workloads.index import controller_of
from embedded.workloads.writes import Replace, Write

Object = dict[str, Any]
View = Mapping[str, Any]

_FINISHED = ("Succeeded", "Failed")
_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


def moment(text: str) -> datetime:
    """A time as objects carry it."""
    return datetime.fromisoformat(text)


def condition(obj: View, kind: str) -> View | None:
    """A condition of an object's status."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((found for found in conditions if found["type"] == kind), None)


def phase(pod: View) -> str:
    """Pending, Running, Succeeded, Failed or Unknown."""
    return str((pod.get("status") or {}).get("phase") or "Pending")


def is_deleting(obj: View) -> bool:
    """Whether its deletion has begun."""
    return "deletionTimestamp" in obj["metadata"]


def is_finished(pod: View) -> bool:
    """Whether all its containers have ended for good."""
    return phase(pod) in _FINISHED


def is_active(pod: View) -> bool:
    """Whether it counts as a replica."""
    return not is_finished(pod) and not is_deleting(pod)


def is_terminating(pod: View) -> bool:
    """Whether it is being stopped, and has not ended."""
    return not is_finished(pod) and is_deleting(pod)


def ready_since(pod: View) -> str:
    """Since when it is ready, "" where it is not."""
    found = condition(pod, "Ready")
    if found is None or found.get("status") != "True":
        return ""
    return str(found.get("lastTransitionTime") or pod["metadata"]["creationTimestamp"])


def is_ready(pod: View) -> bool:
    """Whether requests may be sent to it."""
    return bool(ready_since(pod))


def seconds_to_available(pod: View, min_ready_seconds: int, now: datetime) -> float | None:
    """In how many seconds a ready Pod has been ready for long enough: 0 where it has, None where it is not ready."""
    since = ready_since(pod)
    if not since:
        return None
    if min_ready_seconds <= 0:
        return 0.0
    return max((moment(since) + timedelta(seconds=min_ready_seconds) - now).total_seconds(), 0.0)


def portion(value: int | str, whole: int, *, up: bool) -> int:
    """A number, or a percentage (`25%`) of `whole`, rounded up or down."""
    if isinstance(value, int):
        return value
    hundredths = int(value.removesuffix("%")) * whole
    return -(-hundredths // 100) if up else hundredths // 100


def owner_reference(owner: View) -> Object:
    """The reference by which an object belongs to the one that controls it."""
    metadata = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def from_template(owner: View, finalizers: Sequence[str] = ()) -> Object:
    """A new Pod of a workload."""
    template = owner["spec"]["template"]
    given = template.get("metadata") or {}
    metadata: Object = {
        "generateName": f"{owner['metadata']['name']}-",
        "labels": dict(given.get("labels") or {}),
        "annotations": dict(given.get("annotations") or {}),
        "finalizers": list(dict.fromkeys([*(given.get("finalizers") or ()), *finalizers])),
        "ownerReferences": [owner_reference(owner)],
    }
    return {"metadata": metadata, "spec": copy.deepcopy(template["spec"])}


class Claims(NamedTuple):
    """Which of some objects belong to an owner, and what is written so that they say so."""

    claimed: list[Object]
    writes: list[Write]


def claim(owner: View, resource: str, candidates: Iterable[Object]) -> Claims:
    """Objects that an owner controls stay its own as long as it selects them; those that nobody controls it adopts.

    Names an object the first time it sees it: a candidate may be there twice.
    """
    selector, uid = owner["spec"].get("selector"), owner["metadata"]["uid"]
    claims = Claims([], [])
    seen: set[str] = set()
    for obj in candidates:
        metadata = obj["metadata"]
        if metadata["uid"] in seen:
            continue
        seen.add(metadata["uid"])
        reference = controller_of(obj)
        selected = matches(selector, metadata.get("labels") or {})
        if reference is not None and reference["uid"] == uid:
            if selected:
                claims.claimed.append(obj)
            elif not is_deleting(owner):
                left = [other for other in metadata["ownerReferences"] if other["uid"] != uid]
                claims.writes.append(Replace(resource, _owned_by(obj, left)))
        elif reference is None and selected and not is_deleting(owner) and not is_deleting(obj):
            references = [*(metadata.get("ownerReferences") or ()), owner_reference(owner)]
            adopted = _owned_by(obj, references)
            claims.claimed.append(adopted)
            claims.writes.append(Replace(resource, adopted))
    return claims


def first_to_go(pods: Iterable[Object], related: Iterable[View]) -> list[Object]:
    """Pods in the order in which a cluster gives them up.

    First those without a node, then the pending, the not ready, those with the lower deletion cost, those on the
    node with most of their kind (`related`), the ready for the shortest time, those that restarted most, the younger.
    """
    crowd: dict[str, int] = {}
    for pod in related:
        if is_active(pod):
            node = pod["spec"].get("nodeName", "")
            crowd[node] = crowd.get(node, 0) + 1

    def rank(pod: Object) -> tuple[Any, ...]:
        since, node = ready_since(pod), pod["spec"].get("nodeName", "")
        return (
            bool(node),
            _PHASES.get(phase(pod), 1),
            bool(since),
            _deletion_cost(pod),
            -crowd.get(node, 0),
            -moment(since).timestamp() if since else 0.0,
            -_restarts(pod),
            -moment(pod["metadata"]["creationTimestamp"]).timestamp(),
            pod["metadata"]["uid"],
        )

    return sorted(pods, key=rank)


def _owned_by(obj: Object, references: list[Object]) -> Object:
    metadata = {**obj["metadata"], "ownerReferences": references}
    if not references:
        del metadata["ownerReferences"]
    return {**obj, "metadata": metadata}


def _deletion_cost(pod: View) -> int:
    text = (pod["metadata"].get("annotations") or {}).get("controller.kubernetes.io/pod-deletion-cost", "0")
    try:
        return int(text)
    except ValueError:
        return 0


def _restarts(pod: View) -> int:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return max((status.get("restartCount", 0) for status in statuses), default=0)
