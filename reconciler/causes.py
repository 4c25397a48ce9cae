"""Why something is not ready, in the words of its pods: a controller only counts them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from reconciler import readiness
from reconciler.cluster import ApiError, Reader
from reconciler.readiness import Readiness, State
from renderers.manifest import Body

_HAVE_PODS = frozenset({"Deployment", "Job"})
_LONGEST = 600
#: What a pod that is only starting says.
_HARMLESS = frozenset({"ContainerCreating", "PodInitializing"})


def state_of(reader: Reader, live: Body | None) -> Readiness:
    """The readiness of an object, with what the newest of its pods that is in trouble says about it."""
    state = readiness.of(live)
    if live is None or live["kind"] not in _HAVE_PODS or state.state is State.CURRENT:
        return state
    selector = live["spec"].get("selector", {}).get("matchLabels") or {"job-name": live["metadata"]["name"]}
    labels = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
    try:
        pods = reader.list("v1", "Pod", namespace=live["metadata"]["namespace"], labels=labels).items
    except ApiError:  # whoever may not read pods is told what the controller says
        return state
    cause = of_pods(pods)
    if cause is None:
        return state
    # What our runtime says is the whole story; anything else needs what the controller counted.
    alone = cause.is_whole or not state.message
    return state._replace(message=cause.text if alone else f"{state.message}: {cause.text}")


class Cause(NamedTuple):
    """What a pod says. `is_whole`: nothing has to be said beside it."""

    text: str
    is_whole: bool = False


def of_pods(pods: list[Body]) -> Cause | None:
    """What is wrong with the newest pod that says so; None where none does."""
    newest_first = sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)
    return next((said for pod in newest_first for said in _of_pod(pod)), None)


def _of_pod(pod: Body) -> Iterator[Cause]:
    status = pod.get("status", {})
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        who = f"container {container['name']}"
        for state in (container.get("state", {}), container.get("lastState", {})):
            terminated = state.get("terminated") or {}
            if terminated.get("exitCode"):
                yield _of_end(who, terminated)
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") and waiting["reason"] not in _HARMLESS:
            yield Cause(f"{who}: {waiting['reason']}: {_end_of(waiting.get('message', ''))}".rstrip(": "))
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield Cause(f"{condition.get('reason', '')}: {_end_of(condition.get('message', ''))}".strip(": "))


def _of_end(who: str, terminated: dict[str, Any]) -> Cause:
    """Our runtime leaves its error as JSON in the termination message; others leave text, or nothing."""
    message = terminated.get("message") or ""
    try:
        error = orjson.loads(message)["error"]
        text = f"{error['step']}: {error['message']}".partition("\nTraceback ")[0]
        sentence = " ".join(text.split())
        return Cause(sentence if len(sentence) <= _LONGEST else f"{sentence[:_LONGEST]} ...", is_whole=True)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        words = f"{who}: {terminated.get('reason', 'Error')}, exit code {terminated['exitCode']}"
        return Cause(f"{words}: {_end_of(message)}" if message.strip() else words)


def _end_of(text: str) -> str:
    """Of a log, the last words say what went wrong."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"... {text[-_LONGEST:]}"
