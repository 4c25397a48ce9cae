"""What a Job does next: pure, from the Job, its Pods and the moment.

Written after kube-controller-manager 1.36. A Pod that ended is counted exactly once, whatever crashes: its uid goes
into `uncountedTerminatedPods`, then its finalizer goes, then it is counted. NonIndexed Jobs only; an Indexed one fails
at once and says so.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from embedded.deletion import timestamp
from embedded.workloads import pods as _pods
from embedded.workloads.index import JOBS, PODS
from embedded.workloads.job_failures import judge, seconds_to_retry
from embedded.workloads.writes import Create, Decision, Delete, Note, Replace, Write, sooner

Object = dict[str, Any]

#: The finalizer by which a Pod stays until it is counted.
TRACKING = "batch.kubernetes.io/job-tracking"

#: Pods that are created or deleted in one pass: all controllers share one thread. Their events bring the next pass.
_BURST = 10

#: The reason and message of the end of a Job.
_End = tuple[str, str]
_COMPLETE: _End = ("CompletionsReached", "Reached expected number of succeeded pods")
_INDEXED: _End = (
    "CompletionModeNotSupported",
    "The embedded data plane runs Jobs with completionMode NonIndexed only",
)


def finished(job: Mapping[str, Any]) -> Object | None:
    """The condition by which a Job has ended, None where it has not."""
    ends = (_pods.condition(job, kind) for kind in ("Complete", "Failed"))
    return next((dict(end) for end in ends if end is not None and end["status"] == "True"), None)


def seconds_to_live(job: Object, now: datetime) -> float | None:
    """In how many seconds a finished Job is deleted; None: never, or not finished."""
    end, ttl = finished(job), job["spec"].get("ttlSecondsAfterFinished")
    if end is None or ttl is None:
        return None
    return max((_pods.moment(end["lastTransitionTime"]) + timedelta(seconds=ttl) - now).total_seconds(), 0.0)


def without_tracking(pod: Object) -> Object:
    """A Pod that nothing holds back any more."""
    left = [name for name in pod["metadata"].get("finalizers") or () if name != TRACKING]
    metadata = {key: value for key, value in pod["metadata"].items() if key != "finalizers"}
    return {**pod, "metadata": {**metadata, "finalizers": left} if left else metadata}


def is_tracked(pod: Object) -> bool:
    """Whether a Job has still to count it."""
    return TRACKING in (pod["metadata"].get("finalizers") or ())


def decide(job: Object, pods: list[Object], now: datetime) -> Decision:
    """The writes of one pass over a Job that has not finished. `pods` are those it controls."""
    return _Run(job, pods, now).decision()


class _Run:
    """One pass."""

    def __init__(self, job: Object, pods: list[Object], now: datetime) -> None:
        self._job = job
        self._spec: Object = job["spec"]
        self._pods = pods
        self._now = now
        self._status: Object = copy.deepcopy(job.get("status") or {})
        self._policy = self._spec.get("podFailurePolicy")
        self._suspended = bool(self._spec.get("suspend"))
        self._deleted: list[Object] = []
        self._created = 0
        self._again: list[float] = []
        self._notes: list[Note] = []

    def decision(self) -> Decision:
        """Counts, judges, acts, and writes what has changed."""
        self._count_released()
        active = [pod for pod in self._pods if _pods.is_active(pod)]
        uncounted = self._status["uncountedTerminatedPods"]
        succeeded, failed = self._newly_ended(uncounted)
        total_succeeded = self._number("succeeded") + len(succeeded) + len(uncounted.get("succeeded", ()))
        counted = [pod for pod in failed if judge(self._policy, pod).counts]
        total_failed = self._number("failed") + len(counted) + len(uncounted.get("failed", ()))
        if "startTime" not in self._status and not self._suspended:
            self._status["startTime"] = timestamp(self._now)

        target = self._target(total_failed)
        if target is not None:
            self._deleted = active
        else:
            if not _pods.is_deleting(self._job):
                self._manage(active, total_succeeded)
            completions = self._spec.get("completions")
            left = len(active) - len(self._deleted) + self._created
            done = total_succeeded >= completions if completions is not None else total_succeeded > 0
            if done and not left:
                target = ("SuccessCriteriaMet", *_COMPLETE)
            elif not _pods.is_deleting(self._job):
                self._tell_suspension()
        released = self._release(target)
        if target is not None and self._condition(target[0]) is None:
            self._add(*target)
        self._describe(active)
        # What is released now is counted in the next pass, which its event brings.
        if target is not None and not released and not self._deleted:
            self._finish(target)
        return Decision(self._writes(released, ends=target is not None), sooner(*self._again))

    # Counting

    def _count_released(self) -> None:
        """Pods whose finalizer is gone move from the uncounted to the numbers."""
        uncounted = self._status.setdefault("uncountedTerminatedPods", {})
        held = {pod["metadata"]["uid"] for pod in self._pods if is_tracked(pod)}
        for field in ("succeeded", "failed"):
            uids = uncounted.pop(field, [])
            left = [uid for uid in uids if uid in held]
            if left:
                uncounted[field] = left
            if len(left) < len(uids):
                self._status[field] = self._number(field) + len(uids) - len(left)

    def _newly_ended(self, uncounted: Object) -> tuple[list[Object], list[Object]]:
        known = {*uncounted.get("succeeded", ()), *uncounted.get("failed", ())}
        fresh = [pod for pod in self._pods if is_tracked(pod) and pod["metadata"]["uid"] not in known]
        succeeded = [pod for pod in fresh if _pods.phase(pod) == "Succeeded"]
        return succeeded, [pod for pod in fresh if self._is_failed(pod)]

    def _is_failed(self, pod: Object) -> bool:
        if _pods.phase(pod) == "Failed":
            return True
        return not self._replaces_failed_only and _pods.is_deleting(pod) and _pods.phase(pod) != "Succeeded"

    @property
    def _replaces_failed_only(self) -> bool:
        return self._spec.get("podReplacementPolicy") == "Failed" or self._policy is not None

    def _release(self, target: tuple[str, str, str] | None) -> list[Object]:
        """The Pods that have ended, or that the end of the Job ends: each is noted, and then let go."""
        uncounted = self._status["uncountedTerminatedPods"]
        failing = target is not None and target[0] == "FailureTarget"
        released: list[Object] = []
        for pod in self._pods:
            if not is_tracked(pod):
                continue
            uid, succeeded = pod["metadata"]["uid"], _pods.phase(pod) == "Succeeded"
            failed = not succeeded and (self._is_failed(pod) or failing)
            if not (succeeded or failed or target is not None or _pods.is_deleting(self._job)):
                continue
            released.append(pod)
            noted = {*uncounted.get("succeeded", ()), *uncounted.get("failed", ())}
            if uid not in noted and (succeeded or (failed and judge(self._policy, pod).counts)):
                uncounted.setdefault("succeeded" if succeeded else "failed", []).append(uid)
        return released

    # Judging

    def _target(self, failed: int) -> tuple[str, str, str] | None:
        """Why the Job is to end: the type, reason and message of the condition that says so first."""
        for kind in ("SuccessCriteriaMet", "FailureTarget"):
            if (found := self._condition(kind)) is not None:
                return kind, found["reason"], found["message"]
        end = self._failure(failed)
        return ("FailureTarget", *end) if end else None

    def _failure(self, failed: int) -> _End | None:
        if self._spec.get("completionMode") == "Indexed":
            return _INDEXED
        verdicts = (judge(self._policy, pod) for pod in self._pods if self._is_failed(pod)) if self._policy else ()
        for verdict in verdicts:
            if verdict.fails_job:
                return "PodFailurePolicy", verdict.fails_job
        limit = int(self._spec.get("backoffLimit", 6))
        if failed > limit or self._restarted_too_often(limit):
            return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        deadline = self._spec.get("activeDeadlineSeconds")
        if deadline is not None and not self._suspended:
            left = _pods.moment(self._status["startTime"]) + timedelta(seconds=deadline) - self._now
            if left <= timedelta(0):
                return "DeadlineExceeded", "Job was active longer than specified deadline"
            self._again.append(left.total_seconds())
        return None

    def _restarted_too_often(self, limit: int) -> bool:
        """With restartPolicy OnFailure it is the containers that are tried again, and not the Pods."""
        if self._spec["template"]["spec"].get("restartPolicy") != "OnFailure":
            return False
        restarts = sum(
            status.get("restartCount", 0)
            for pod in self._pods
            if not _pods.is_finished(pod)
            for field in ("initContainerStatuses", "containerStatuses")
            for status in (pod.get("status") or {}).get(field) or ()
        )
        return bool(restarts >= max(limit, 1))

    # Acting

    def _manage(self, active: list[Object], succeeded: int) -> None:
        """Too many Pods: the first to go go. Too few: as many as are missing, after the back-off."""
        parallelism, completions = int(self._spec.get("parallelism", 1)), self._spec.get("completions")
        if self._suspended:
            wanted = 0
        elif completions is not None:
            wanted = max(min(parallelism, completions - succeeded), 0)
        else:
            wanted = len(active) if succeeded else parallelism
        if len(active) > wanted:
            self._deleted = _pods.first_to_go(active, ())[: min(len(active) - wanted, _BURST)]
            return
        waiting = sum(map(_pods.is_terminating, self._pods)) if self._replaces_failed_only else 0
        missing = wanted - waiting - len(active)
        if missing <= 0:
            return
        ended = [pod for pod in self._pods if _pods.phase(pod) == "Succeeded"]
        wait = seconds_to_retry(ended, [pod for pod in self._pods if self._is_failed(pod)], self._now)
        if wait > 0:
            self._again.append(wait)
        else:
            self._created = min(missing, _BURST)

    def _tell_suspension(self) -> None:
        found = self._condition("Suspended")
        if self._suspended and (found is None or found["status"] != "True"):
            self._add("Suspended", "JobSuspended", "Job suspended")
            self._status.pop("startTime", None)
            self._notes.append(Note(self._job, "Suspended", "Job suspended"))
        elif not self._suspended and found is not None and found["status"] != "False":
            self._add("Suspended", "JobResumed", "Job resumed", "False")
            self._status["startTime"] = timestamp(self._now)
            self._notes.append(Note(self._job, "Resumed", "Job resumed"))

    # Telling

    def _describe(self, active: list[Object]) -> None:
        leaving = {pod["metadata"]["uid"] for pod in self._deleted}
        left = [pod for pod in active if pod["metadata"]["uid"] not in leaving]
        self._status.pop("active", None)
        if left or self._created:
            self._status["active"] = len(left) + self._created
        self._status["ready"] = sum(map(_pods.is_ready, left))
        self._status["terminating"] = sum(map(_pods.is_terminating, self._pods)) + len(self._deleted)

    def _finish(self, target: tuple[str, str, str]) -> None:
        """The Job has ended once every Pod is counted, and none is on its way out."""
        if self._status["uncountedTerminatedPods"] or self._status["terminating"]:
            return
        kind, reason, message = target
        if kind == "SuccessCriteriaMet":
            self._add("Complete", reason, message)
            self._status["completionTime"] = timestamp(self._now)
            self._notes.append(Note(self._job, "Completed", "Job completed"))
        else:
            self._add("Failed", reason, message)
            self._notes.append(Note(self._job, reason, message, "Warning"))

    def _writes(self, released: list[Object], *, ends: bool) -> list[Write]:
        """In an order that a crash may cut anywhere: a Pod is noted before it is let go."""
        status: list[Write] = []
        if self._status != (self._job.get("status") or {}):
            status = [Replace(JOBS, {**self._job, "status": self._status}, "status")]
        deletions: list[Write] = [Delete(PODS, pod, self._job) for pod in self._deleted]
        if not ends:  # a Pod that is only too many, or suspended, has not failed
            deletions = [*(Replace(PODS, without_tracking(pod)) for pod in self._deleted), *deletions]
        releases = [Replace(PODS, without_tracking(pod)) for pod in released]
        creation = Create(PODS, _pods.from_template(self._job, [TRACKING]), self._job)
        return [*deletions, *status, *releases, *[creation] * self._created, *self._notes]

    def _number(self, field: str) -> int:
        return int(self._status.get(field, 0))

    def _condition(self, kind: str) -> Object | None:
        found = self._status.get("conditions") or ()
        return next((condition for condition in found if condition["type"] == kind), None)

    def _add(self, kind: str, reason: str, message: str, status: str = "True") -> None:
        now = timestamp(self._now)
        times = {"lastProbeTime": now, "lastTransitionTime": now}
        condition = {"type": kind, "status": status, **times, "reason": reason, "message": message}
        others = [found for found in self._status.get("conditions") or () if found["type"] != kind]
        self._status["conditions"] = [*others, condition]
