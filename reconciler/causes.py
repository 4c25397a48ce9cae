"""Why something is not ready, in the words of its pods: a controller only counts them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from reconciler.cluster import ApiError, Reader
from reconciler.readiness import Readiness
from renderers.manifest import Body

_HAVE_PODS = frozenset({"Deployment", "Job"})
_LONGEST = 600
#: What a pod that is only starting says.
_HARMLESS = frozenset({"ContainerCreating", "PodInitializing"})


def explained(reader: Reader, live: Body, state: Readiness) -> Readiness:
    """The state with what the newest pod that is in trouble says about it, where one is."""
    if live["kind"] not in _HAVE_PODS:
        return state
    selector = live["spec"].get("selector", {}).get("matchLabels") or {"job-name": live["metadata"]["name"]}
    labels = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
    try:
        pods = reader.list("v1", "Pod", namespace=live["metadata"]["namespace"], labels=labels).items
    except ApiError:  # whoever may not read pods is told what the controller says
        return state
    cause = of_pods(pods)
    return state._replace(message=f"{state.message}: {cause}" if state.message else cause) if cause else state


def of_pods(pods: list[Body]) -> str:
    """What is wrong with the newest pod that says so; "" where none does."""
    newest_first = sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)
    return next((said for pod in newest_first for said in _of_pod(pod)), "")


def _of_pod(pod: Body) -> Iterator[str]:
    status = pod.get("status", {})
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        who = f"container {container['name']}"
        for state in (container.get("state", {}), container.get("lastState", {})):
            terminated = state.get("terminated") or {}
            if terminated.get("exitCode"):
                yield f"{who}: {_of_end(terminated)}"
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") and waiting["reason"] not in _HARMLESS:
            yield f"{who}: {waiting['reason']}: {_short(waiting.get('message', ''))}".rstrip(": ")
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield f"{condition.get('reason', '')}: {_short(condition.get('message', ''))}".strip(": ")


def _of_end(terminated: dict[str, Any]) -> str:
    """Our runtime leaves its error as JSON in the termination message; others leave text, or nothing."""
    message = terminated.get("message") or ""
    try:
        error = orjson.loads(message)["error"]
        return _short(f"{error['step']}: {error['message']}")
    except (orjson.JSONDecodeError, KeyError, TypeError):
        words = f"{terminated.get('reason', 'Error')}, exit code {terminated['exitCode']}"
        return f"{words}: {_short(message.strip())}" if message.strip() else words


def _short(text: str) -> str:
    """The end of a long message: there is what went wrong."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"... {text[-_LONGEST:]}"
