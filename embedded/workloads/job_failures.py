"""What a failed Pod means to its Job: the Job's podFailurePolicy, and the time before the next attempt. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from embedded.workloads import pods as _pods

Object = dict[str, Any]
View = Mapping[str, Any]

#: Seconds before the second attempt, doubled each time, and the most: those of Kubernetes.
BACK_OFF, MOST_BACK_OFF = 10.0, 600.0


class Verdict(NamedTuple):
    """`counts` towards backoffLimit; `fails_job`: the sentence why no other attempt is made, or ""."""

    counts: bool = True
    fails_job: str = ""


def judge(policy: View | None, pod: View) -> Verdict:
    """What the first rule that matches says of a failed Pod; it counts where none does."""
    for index, rule in enumerate((policy or {}).get("rules") or ()):
        why = _match(rule, pod)
        if not why:
            continue
        if rule["action"] == "FailJob":
            return Verdict(fails_job=f"{why} matching FailJob rule at index {index}")
        return Verdict(counts=rule["action"] != "Ignore")
    return Verdict()


def _match(rule: View, pod: View) -> str:
    """How a Pod meets a rule, as the beginning of a sentence; "" where it does not."""
    status, metadata = pod.get("status") or {}, pod["metadata"]
    who = f"{metadata['namespace']}/{metadata['name']}"
    if (asked := rule.get("onExitCodes")) is not None:
        containers = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
        for container in containers:
            ended = (container.get("state") or {}).get("terminated")
            if ended and ended["exitCode"] and asked.get("containerName") in (None, container["name"]):
                is_in = ended["exitCode"] in asked["values"]
                if is_in is (asked["operator"] == "In"):
                    return f"Container {container['name']} for pod {who} failed with exit code {ended['exitCode']}"
        return ""
    for condition in status.get("conditions") or ():
        for pattern in rule.get("onPodConditions") or ():
            if (pattern["type"], pattern.get("status", "True")) == (condition["type"], condition["status"]):
                return f"Pod {who} has condition {condition['type']}"
    return ""


def seconds_to_retry(succeeded: Iterable[View], failed: Sequence[View], now: datetime) -> float:
    """How long the next attempt waits: 10 s after the first failure since the last success, twice as long each time.

    Counted from the Pods themselves, so that a restart of the controller forgets nothing.
    """
    last_success = max(map(_finished_at, succeeded), default=None)
    times = [time for time in map(_finished_at, failed) if last_success is None or time > last_success]
    if not times:
        return 0.0
    wait = min(BACK_OFF * 2.0 ** min(len(times) - 1, 16), MOST_BACK_OFF)
    return max((max(times) + timedelta(seconds=wait) - now).total_seconds(), 0.0)


def _finished_at(pod: View) -> datetime:
    """When the last container ended; what comes closest where that is not known."""
    status, metadata = pod.get("status") or {}, pod["metadata"]
    ended = [(found.get("state") or {}).get("terminated") or {} for found in status.get("containerStatuses") or ()]
    if ended and all(found.get("finishedAt") for found in ended):
        return max(_pods.moment(found["finishedAt"]) for found in ended)
    ready = _pods.condition(pod, "Ready")
    if ready is not None and ready["status"] == "False" and ready.get("lastTransitionTime"):
        return _pods.moment(ready["lastTransitionTime"])
    if "deletionTimestamp" in metadata:
        grace = timedelta(seconds=metadata.get("deletionGracePeriodSeconds", 0))
        return _pods.moment(metadata["deletionTimestamp"]) - grace
    return _pods.moment(metadata["creationTimestamp"])
