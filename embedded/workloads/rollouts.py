"""What a Deployment does next: pure, from the Deployment, its ReplicaSets and the moment.

Written after kube-controller-manager 1.36. Reasons, messages, annotations and the order of steps are the ones that
clients know. A pass does one step; what it writes brings the next one.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

import orjson

from embedded.deletion import timestamp
from embedded.workloads import pods as _pods
from embedded.workloads.index import DEPLOYMENTS, REPLICA_SETS
from embedded.workloads.writes import Create, Decision, Delete, Note, Replace, Write, sooner

Object = dict[str, Any]

HASH = "pod-template-hash"
_PREFIX = "deployment.kubernetes.io"
_REVISION, _HISTORY = f"{_PREFIX}/revision", f"{_PREFIX}/revision-history"
_DESIRED, _MAXIMUM = f"{_PREFIX}/desired-replicas", f"{_PREFIX}/max-replicas"
_NOT_COPIED = {
    _REVISION,
    _HISTORY,
    _DESIRED,
    _MAXIMUM,
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
}
_HISTORY_CHARACTERS = 2000
_FOREVER = 2**31 - 1  # a deadline or a limit that means none
_SAFE = "bcdfghjklmnpqrstvwxz2456789"  # spells no word


def decide(
    deployment: Object,
    replica_sets: Iterable[Object],
    *,
    runs: Callable[[str], bool],
    taken: Callable[[str], bool],
    now: datetime,
) -> Decision:
    """The writes of one pass.

    `replica_sets` are those that the Deployment owns, `runs` says whether one of them (by uid) has Pods that have not
    ended (asked where they must be gone first), `taken` whether a ReplicaSet of a name exists.
    """
    rollout = _Rollout(deployment, list(replica_sets), runs, taken, now)
    if _pods.is_deleting(deployment):
        rollout.status_only()
    elif deployment["spec"].get("paused") or rollout.is_scaled():
        rollout.scale()
    elif (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
        rollout.recreate()
    else:
        rollout.roll()
    return rollout.decision()


def refused(deployment: Object, why: str, now: datetime) -> list[Write]:
    """What is said where the ReplicaSet of the newest version cannot be created."""
    rollout = _Rollout(deployment, [], lambda _: False, lambda _: False, now)
    rollout.refused(f"Failed to create new replica set: {why}")
    return list(rollout.decision().writes)


class _Rollout:
    """One pass. Works on copies; what differs at the end is written."""

    def __init__(
        self,
        deployment: Object,
        replica_sets: list[Object],
        runs: Callable[[str], bool],
        taken: Callable[[str], bool],
        now: datetime,
    ) -> None:
        self._before = deployment
        self._deployment = {**deployment, "metadata": copy.deepcopy(deployment["metadata"])}
        self._status: Object = copy.deepcopy(deployment.get("status") or {})
        self._spec: Object = deployment["spec"]
        self._wanted = int(self._spec.get("replicas", 1))
        self._runs = runs
        self._taken = taken
        self._now = now
        self._live = {found["metadata"]["name"]: found for found in replica_sets}
        copies = [{**found, **copy.deepcopy({k: found[k] for k in ("metadata", "spec")})} for found in replica_sets]
        self._sets = sorted(copies, key=_age)
        self._new = next((found for found in self._sets if _template_of(found) == _template_of(deployment)), None)
        self._old = [found for found in self._sets if found is not self._new]
        self._created: Object | None = None
        self._deleted: list[Object] = []
        self._notes: list[Note] = []
        self._surge, self._unavailable = self._fences()
        self._check_pause()
        if not _pods.is_deleting(deployment) and self._new is not None:
            self._adopt_revision(self._new)

    # The four ways

    def status_only(self) -> None:
        """It is being deleted: only its status goes on."""
        self._count()

    def is_scaled(self) -> bool:
        """Whether the number of replicas changed since the ReplicaSets were sized."""
        active = [found for found in self._sets if _size(found)]
        return any(_number(found, _DESIRED, self._wanted) != self._wanted for found in active)

    def scale(self) -> None:
        """Change the number of Pods and nothing else: in the middle of a rollout each version gets its share."""
        active = [found for found in self._sets if _size(found)]
        if len(active) <= 1:
            only = active[0] if active else self._new or (self._old[-1] if self._old else None)
            if only is not None:
                self._resize(only, self._wanted)
        elif self._new is not None and self._is_saturated(self._new):
            for found in active:
                if found is not self._new:
                    self._resize(found, 0)
        elif self._is_rolling:
            self._share_out(active)
        if self._spec.get("paused"):
            self._clean_up()
        self._count()

    def roll(self) -> None:
        """RollingUpdate."""
        if self._new is None:
            self._new = self._create()
        if self._new is not None and not self._grow(self._new) and not self._shrink(self._new):
            self._clean_up_if_complete()
        self._progress()

    def recreate(self) -> None:
        """Recreate: no new Pod before the last old one is gone."""
        sized = [found for found in self._old if _size(found)]
        for found in sized:
            self._resize(found, 0)
        if not sized and not any(map(self._is_running, self._old)):
            if self._new is None:
                self._new = self._create()
            elif _size(self._new) != self._wanted:
                self._resize(self._new, self._wanted)
            self._clean_up_if_complete()
        self._progress()

    def refused(self, message: str) -> None:
        """The newest version has no ReplicaSet, and gets none."""
        if self._has_deadline:
            self._set("Progressing", "False", "ReplicaSetCreateError", message)

    def _is_running(self, old: Object) -> bool:
        return bool((old.get("status") or {}).get("replicas")) or self._runs(old["metadata"]["uid"])

    def decision(self) -> Decision:
        """What is written, in an order that a crash may cut anywhere."""
        writes: list[Write] = []
        if self._created is not None:
            writes.append(Create(REPLICA_SETS, self._created, self._before))
        gone = {found["metadata"]["name"] for found in self._deleted}
        for found in self._sets:
            name = found["metadata"]["name"]
            if name in self._live and name not in gone and found != self._live[name]:
                writes.append(Replace(REPLICA_SETS, found))
        writes += [Delete(REPLICA_SETS, found) for found in self._deleted]
        after = {**self._deployment, "status": self._status}
        if after != {"status": {}, **self._before}:
            # The revision is an annotation, and comes with the status: it asks for no other Pods.
            writes.append(Replace(DEPLOYMENTS, after, "status"))
        return Decision([*writes, *self._notes], self._next_look())

    # Revisions

    def _adopt_revision(self, found: Object) -> None:
        """The newest version has the highest revision, also when it is an old one that came back."""
        newest = max((_number(other, _REVISION, 0) for other in self._old), default=0) + 1
        annotations = found["metadata"].setdefault("annotations", {})
        annotations.update(self._annotations())
        before = _number(found, _REVISION, 0)
        if before < newest:
            annotations[_REVISION] = str(newest)
            if before:
                history = [past for past in annotations.get(_HISTORY, "").split(",") if past] + [str(before)]
                while len(",".join(history)) > _HISTORY_CHARACTERS:
                    history.pop(0)
                annotations[_HISTORY] = ",".join(history)
        if found["spec"].get("minReadySeconds", 0) != self._spec.get("minReadySeconds", 0):
            found["spec"]["minReadySeconds"] = self._spec.get("minReadySeconds", 0)
        self._deployment["metadata"].setdefault("annotations", {})[_REVISION] = annotations[_REVISION]
        if self._has_deadline and self._condition("Progressing") is None:
            message = f'Found new replica set "{found["metadata"]["name"]}"'
            self._set("Progressing", "True", "FoundNewReplicaSet", message)

    def _annotations(self) -> dict[str, str]:
        """Those of the Deployment that its ReplicaSets have, too."""
        given = self._before["metadata"].get("annotations") or {}
        return {key: value for key, value in given.items() if key not in _NOT_COPIED}

    def _create(self) -> Object | None:
        """The ReplicaSet of the newest version; None where its name is taken: the next pass finds another one."""
        collisions = int(self._status.get("collisionCount", 0))
        template = copy.deepcopy(self._spec["template"])
        digest = template_hash(template, collisions)
        name = f"{self._before['metadata']['name'][: 252 - len(digest)]}-{digest}"
        if self._taken(name):
            self._status["collisionCount"] = collisions + 1
            return None
        labels = template.setdefault("metadata", {}).setdefault("labels", {})
        labels[HASH] = digest
        selector = copy.deepcopy(self._spec["selector"])
        selector.setdefault("matchLabels", {})[HASH] = digest
        revision = str(max((_number(other, _REVISION, 0) for other in self._old), default=0) + 1)
        created: Object = {
            "metadata": {
                "name": name,
                "namespace": self._before["metadata"]["namespace"],
                "labels": dict(labels),
                "annotations": {**self._annotations(), _REVISION: revision, **self._sizes()},
                "ownerReferences": [_pods.owner_reference(self._before)],
            },
            "spec": {"replicas": 0, "selector": selector, "template": template},
        }
        if self._spec.get("minReadySeconds"):
            created["spec"]["minReadySeconds"] = self._spec["minReadySeconds"]
        size = created["spec"]["replicas"] = self._room(created) if self._is_rolling else self._wanted
        self._created = created
        self._sets.append(created)
        if size:
            self._note(f"Scaled up replica set {name} from 0 to {size}")
        self._deployment["metadata"].setdefault("annotations", {})[_REVISION] = revision
        if self._has_deadline:
            self._set("Progressing", "True", "NewReplicaSetCreated", f'Created new replica set "{name}"')
        return created

    def _clean_up_if_complete(self) -> None:
        if _is_complete(self._before, self._before.get("status") or {}):
            self._clean_up()

    def _clean_up(self) -> None:
        """Old ReplicaSets beyond the history go, the oldest revisions first."""
        limit = int(self._spec.get("revisionHistoryLimit", 10))
        kept = sorted(
            (f for f in self._old if not _pods.is_deleting(f)), key=lambda f: (_number(f, _REVISION, 0), _age(f))
        )
        for found in kept[: max(len(kept) - limit, 0)]:
            status = found.get("status") or {}
            seen = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
            if seen and not _size(found) and not status.get("replicas"):
                self._deleted.append(found)

    # Sizes

    @property
    def _is_rolling(self) -> bool:
        return bool((self._spec.get("strategy") or {}).get("type", "RollingUpdate") == "RollingUpdate")

    def _fences(self) -> tuple[int, int]:
        """How many Pods more than wanted there may be, and how many fewer available ones."""
        if not self._is_rolling:
            return 0, 0
        rolling = (self._spec.get("strategy") or {}).get("rollingUpdate") or {}
        surge = _pods.portion(rolling.get("maxSurge", 0), self._wanted, up=True)
        unavailable = _pods.portion(rolling.get("maxUnavailable", 0), self._wanted, up=False)
        if surge == 0 and unavailable == 0:
            unavailable = 1
        return surge, min(unavailable, self._wanted)

    def _sizes(self) -> dict[str, str]:
        return {_DESIRED: str(self._wanted), _MAXIMUM: str(self._wanted + self._surge)}

    def _resize(self, found: Object, size: int) -> None:
        before = _size(found)
        found["spec"]["replicas"] = size
        found["metadata"].setdefault("annotations", {}).update(self._sizes())
        if size != before:
            direction = "up" if size > before else "down"
            self._note(f"Scaled {direction} replica set {found['metadata']['name']} from {before} to {size}")

    def _room(self, new: Object) -> int:
        """How large the newest version may be now."""
        total = sum(map(_size, self._old)) + _size(new)
        free = max(self._wanted + self._surge - total, 0)
        return _size(new) + min(free, self._wanted - _size(new))

    def _grow(self, new: Object) -> bool:
        size = min(self._room(new), self._wanted)
        if new is self._created or size == _size(new):
            return new is self._created
        self._resize(new, size)
        return True

    def _shrink(self, new: Object) -> bool:
        """Old Pods go as far as enough others are available: those first that do not work anyway."""
        old = [found for found in self._old if _size(found)]
        least = self._wanted - self._unavailable
        total = sum(map(_size, old)) + _size(new)
        spare = total - least - (_size(new) - _available(new))
        if not old or spare <= 0:
            return False
        gone = 0
        for found in old:
            broken = min(_size(found) - _available(found), spare - gone)
            if broken > 0:
                self._resize(found, _size(found) - broken)
                gone += broken
        spare = sum(map(_available, [*old, new])) - least
        for found in old:
            leaving = min(_size(found), spare)
            if leaving > 0:
                self._resize(found, _size(found) - leaving)
                spare -= leaving
                gone += leaving
        return gone > 0

    def _is_saturated(self, new: Object) -> bool:
        sized = _number(new, _DESIRED, -1) == self._wanted
        return sized and _size(new) == self._wanted and _available(new) == self._wanted

    def _share_out(self, active: list[Object]) -> None:
        """Proportional scaling: the largest first, which also takes what rounding leaves."""
        most = self._wanted + self._surge if self._wanted else 0
        missing = most - sum(map(_size, active))
        # Among equals the newer one grows, and the older one shrinks.
        ordered = sorted(active, key=_age, reverse=missing > 0)
        ordered.sort(key=_size, reverse=True)
        shares: list[int] = []
        for found in ordered:
            left = missing - sum(shares)
            share = self._share(found) if missing else 0
            shares.append(min(share, left) if missing > 0 else max(share, left))
        shares[0] += missing - sum(shares)
        for found, share in zip(ordered, shares, strict=True):
            self._resize(found, max(_size(found) + share, 0))

    def _share(self, found: Object) -> int:
        if not self._wanted:
            return -_size(found)
        before = _number(found, _MAXIMUM, 0) or int(self._status.get("replicas", 0))
        if not before:
            return 0
        exact = _size(found) * (self._wanted + self._surge) / before
        return int(exact + 0.5) - _size(found)

    # Status

    @property
    def _has_deadline(self) -> bool:
        return int(self._spec.get("progressDeadlineSeconds", _FOREVER)) != _FOREVER

    def _check_pause(self) -> None:
        found, paused = self._condition("Progressing") or {}, bool(self._spec.get("paused"))
        if not self._has_deadline or found.get("reason") == "ProgressDeadlineExceeded":
            return
        if paused and found.get("reason") != "DeploymentPaused":
            self._set("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused")
        elif not paused and found.get("reason") == "DeploymentPaused":
            self._set("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed")

    def _count(self) -> None:
        """The numbers, and whether enough is available. ReplicaSets count as they were read."""
        sets = [found for found in self._sets if found is not self._created]
        statuses = [found.get("status") or {} for found in sets]
        new = (self._new or {}).get("status") or {}
        available = sum(map(_available, sets))
        counts = {
            "replicas": sum(status.get("replicas", 0) for status in statuses),
            "updatedReplicas": new.get("replicas", 0),
            "readyReplicas": sum(status.get("readyReplicas", 0) for status in statuses),
            "availableReplicas": available,
            "unavailableReplicas": max(sum(map(_size, self._sets)) - available, 0),
            "collisionCount": self._status.get("collisionCount", 0),
        }
        terminating = [status.get("terminatingReplicas") for status in statuses if status.get("observedGeneration")]
        conditions = self._status.get("conditions") or []
        self._status = {
            "observedGeneration": self._before["metadata"]["generation"],
            **{name: count for name, count in counts.items() if count},
        }
        if None not in terminating:
            self._status["terminatingReplicas"] = sum(count or 0 for count in terminating)
        if conditions:
            self._status["conditions"] = conditions
        if available >= self._wanted - self._unavailable:
            self._set("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        else:
            message = "Deployment does not have minimum availability."
            self._set("Available", "False", "MinimumReplicasUnavailable", message)

    def _progress(self) -> None:
        """The status of a rollout: complete, under way, or stuck."""
        before = self._status
        current = self._condition("Progressing")
        self._count()
        after = self._status
        if not self._has_deadline:
            _drop(self._status, "Progressing")
        done = after.get("replicas", 0) == after.get("updatedReplicas", 0)
        if self._has_deadline and not (done and (current or {}).get("reason") == "NewReplicaSetAvailable"):
            who = f'ReplicaSet "{self._new["metadata"]["name"]}"' if self._new else None
            who = who or f'Deployment "{self._before["metadata"]["name"]}"'
            if _is_complete(self._before, after):
                self._set("Progressing", "True", "NewReplicaSetAvailable", f"{who} has successfully progressed.")
            elif _is_progress(before, after):
                since = current["lastTransitionTime"] if current and current["status"] == "True" else None
                _drop(self._status, "Progressing")
                self._set("Progressing", "True", "ReplicaSetUpdated", f"{who} is progressing.", since)
            elif self._is_late():
                self._set("Progressing", "False", "ProgressDeadlineExceeded", f"{who} has timed out progressing.")
        _drop(self._status, "ReplicaFailure")
        failed = [_pods.condition(found, "ReplicaFailure") for found in (self._new, *self._old) if found]
        failure = next((found for found in failed if found is not None), None)
        if failure is not None:
            updated = {"lastUpdateTime": failure["lastTransitionTime"]}
            self._status.setdefault("conditions", []).append({**failure, **updated})

    def _is_late(self) -> bool:
        found = self._condition("Progressing")
        if found is None or found["reason"] == "NewReplicaSetAvailable":
            return False
        return bool(found["reason"] == "ProgressDeadlineExceeded" or self._deadline(found) < self._now)

    def _deadline(self, progressing: Object) -> datetime:
        return _pods.moment(progressing["lastUpdateTime"]) + timedelta(seconds=self._spec["progressDeadlineSeconds"])

    def _next_look(self) -> float | None:
        found = self._condition("Progressing")
        if not self._has_deadline or found is None or found["reason"] == "ProgressDeadlineExceeded":
            return None
        if _is_complete(self._before, self._status) or self._spec.get("paused"):
            return None
        # Times have whole seconds: one second later it has passed for sure.
        return sooner((self._deadline(found) - self._now).total_seconds() + 1)

    def _condition(self, kind: str) -> Object | None:
        found = self._status.get("conditions") or ()
        return next((condition for condition in found if condition["type"] == kind), None)

    def _set(self, kind: str, status: str, reason: str, message: str, since: str | None = None) -> None:
        """A condition; one that says the same already stays as it is, times and all."""
        current, now = self._condition(kind), timestamp(self._now)
        if current is not None and (current["status"], current["reason"]) == (status, reason):
            return
        if since is None:
            since = current["lastTransitionTime"] if current is not None and current["status"] == status else now
        times = {"lastUpdateTime": now, "lastTransitionTime": since}
        _drop(self._status, kind)
        condition = {"type": kind, "status": status, **times, "reason": reason, "message": message}
        self._status.setdefault("conditions", []).append(condition)

    def _note(self, message: str) -> None:
        self._notes.append(Note(self._before, "ScalingReplicaSet", message))


def template_hash(template: Object, collisions: int) -> str:
    """The label that tells versions apart: the same template gives the same, unless that name was taken."""
    text = orjson.dumps([template, collisions], option=orjson.OPT_SORT_KEYS)
    number = int.from_bytes(hashlib.sha256(text).digest()[:4], "big")
    return "".join(_SAFE[int(digit)] for digit in f"{number:010d}")


def _template_of(obj: Object) -> Object:
    """The Pod template without the label that a ReplicaSet adds."""
    template: Object = copy.deepcopy(obj["spec"]["template"])
    metadata = template.get("metadata") or {}
    labels = metadata.get("labels") or {}
    labels.pop(HASH, None)
    if not labels:
        metadata.pop("labels", None)
    if not metadata:
        template.pop("metadata", None)
    return template


def _drop(status: Object, kind: str) -> None:
    left = [condition for condition in status.get("conditions") or () if condition["type"] != kind]
    status.pop("conditions", None)
    if left:
        status["conditions"] = left


def _is_complete(deployment: Object, status: Object) -> bool:
    wanted = int(deployment["spec"].get("replicas", 1))
    counts = [status.get(name, 0) for name in ("updatedReplicas", "replicas", "availableReplicas")]
    return counts == [wanted] * 3 and status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]


def _is_progress(before: Object, after: Object) -> bool:
    def old(status: Object) -> int:
        return int(status.get("replicas", 0) - status.get("updatedReplicas", 0))

    more = ("updatedReplicas", "readyReplicas", "availableReplicas")
    return old(after) < old(before) or any(after.get(name, 0) > before.get(name, 0) for name in more)


def _size(replica_set: Object) -> int:
    return int(replica_set["spec"].get("replicas", 1))


def _available(replica_set: Object) -> int:
    return int((replica_set.get("status") or {}).get("availableReplicas", 0))


def _age(replica_set: Object) -> tuple[str, str]:
    metadata = replica_set["metadata"]
    return metadata.get("creationTimestamp", "~"), metadata["name"]


def _number(replica_set: Object, annotation: str, default: int) -> int:
    text = (replica_set["metadata"].get("annotations") or {}).get(annotation, "")
    return int(text) if text.isdigit() else default
