"""All pods of this machine: which there are, and what their objects say of them."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from embedded.deletion import timestamp
from embedded.loop import Cluster, Controller
from embedded.node import logs, volumes
from embedded.node.addresses import Subnet
from embedded.node.container import Machine
from embedded.node.environment import Facts, base_environment
from embedded.node.events import Events
from embedded.node.leftovers import Records, end_leftovers, name_of
from embedded.node.logs import LogWriter
from embedded.node.machine import NODE, capacity, labels, node_status
from embedded.node.memory import MemoryWatch
from embedded.node.pod import Pod
from embedded.node.status import pod_status
from embedded.protocol import Response, Stream
from embedded.store import Event

Object = dict[str, Any]

log = logging.getLogger(__name__)

#: Seconds that pods have to end when we stop, and those in which what does not end is killed.
_STOP_SECONDS, _KILL_SECONDS = 10.0, 3.0


class Node:
    """Runs the pods of a cluster as processes of this machine: a `loop.Controller`.

    `data` is the folder in which pods have their files, `environment` what every container gets besides what its
    manifest says. `start` before the loop starts, `stop` before it stops. Whatever an earlier runner on this folder
    has left running is ended first.
    """

    def __init__(self, cluster: Cluster, data: Path, subnet: Subnet, environment: Mapping[str, str]) -> None:
        data = data.resolve()  # processes start in other folders
        self._cluster = cluster
        self._data = data
        self._subnet = subnet
        self._capacity = capacity(data)
        self._pods: dict[str, Pod] = {}  # by key of the store
        self._ending: set[Pod] = set()  # whose objects are gone
        self._logs: dict[str, LogWriter] = {}
        self._events = Events(cluster, NODE)
        self._enqueue: Callable[[Controller, str], None]
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._machine = Machine(
            name=name_of(data),
            clock=lambda: cluster.now,
            base=base_environment(os.environ, environment),
            capacity=self._capacity,
            records=Records(data),
            memory=MemoryWatch(),
            logs=self._logs,
            event=self._events.record,
        )

    def start(self, enqueue: Callable[[Controller, str], None]) -> None:
        """Begin. `enqueue` is that of the loop: a process's end is no event of the store."""
        self._enqueue = enqueue
        end_leftovers(self._data)
        self._events.start()
        self._cluster.create("nodes", "", {"metadata": {"name": NODE, "labels": labels()}})
        self._cluster.set_status("nodes", "", NODE, node_status(self._capacity, self._subnet.node, self._cluster.now))
        kept = {volumes.folder_of(self._data, pod["metadata"]["uid"]) for pod in self._cluster.list("pods")}
        (self._data / "pods").mkdir(mode=0o700, exist_ok=True)
        for folder in (self._data / "pods").iterdir():
            if folder not in kept:
                self._do(asyncio.to_thread(volumes.remove, folder))
        self._do(self._machine.memory.run())

    async def stop(self) -> None:
        """End all pods, each in its grace period or in ten seconds; their objects stay as they are."""
        self._stopping = True
        pods = [*self._pods.values(), *self._ending]
        for pod in pods:
            pod.stop(min(pod.grace, _STOP_SECONDS))
        running = {pod.task for pod in pods if not pod.task.done()}
        if running:
            _, running = await asyncio.wait(running, timeout=_STOP_SECONDS + _KILL_SECONDS)
        for pod in pods:
            pod.stop(0)
        if running:
            await asyncio.wait(running, timeout=_KILL_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.to_thread(end_leftovers, self._data)

    # Controller

    def keys(self, event: Event) -> Iterable[str]:
        """Controller.keys"""
        resource, namespace, _ = event.key.split("/", 2)
        if resource == "pods":
            if event.type == "DELETED" and event.key not in self._pods:  # it ended before we started
                uid = orjson.loads(event.body)["metadata"]["uid"]
                self._do(asyncio.to_thread(volumes.remove, volumes.folder_of(self._data, uid)))
            return (event.key,)
        if resource in ("secrets", "configmaps"):
            for key, pod in self._pods.items():
                if key.startswith(f"pods/{namespace}/"):
                    asyncio.get_running_loop().call_soon(pod.look_again)  # it writes files: the request need not wait
        return ()

    def reconcile(self, key: str) -> float | None:
        """Controller.reconcile"""
        if self._stopping:
            return None
        _, namespace, name = key.split("/", 2)
        obj = self._cluster.get("pods", namespace, name)
        pod = self._pods.get(key)
        if pod is not None and (obj is None or obj["metadata"]["uid"] != pod.uid):
            self._abandon(key, pod)
            pod = None
        if obj is None or obj["spec"].get("nodeName", NODE) != NODE:
            return None
        deleting = "deletionTimestamp" in obj["metadata"]
        if "nodeName" not in obj["spec"]:
            if not deleting:
                self._bind(obj)
            return None
        if pod is None and not deleting and obj.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            pod = self._pods[key] = self._run(key, obj)
        elif pod is not None:
            pod.update(obj)
        if pod is not None:
            self._report(obj, pod)
        if deleting and (pod is None or pod.ended) and obj["metadata"].get("deletionGracePeriodSeconds"):
            self._cluster.delete("pods", namespace, name, uid=obj["metadata"]["uid"], grace_seconds=0)
        return None

    # The logs

    def pod_logs(self, pod: Object, query: Mapping[str, str]) -> Response | Stream:
        """The answer to GET of a pod's `log`. Raises StatusError."""
        options = logs.parse_options(query, pod["metadata"]["name"], self._cluster.now)
        container = logs.container_of(pod, options.container)
        if "nodeName" not in pod["spec"]:
            return Response(200, b"", "text/plain")
        run = logs.run_of(pod, container, previous=options.previous)
        folder = volumes.folder_of(self._data, pod["metadata"]["uid"])
        return logs.answer(folder / container / f"{run.rpartition('/')[2]}.log", options, self._logs.get(run))

    # Pods

    def _bind(self, obj: Object) -> None:
        """The scheduler's part: there is one node, and a laptop runs what it is asked to, whatever that requests."""
        metadata, known = obj["metadata"], obj.get("status", {}).get("conditions", ())
        if not obj["spec"].get("schedulingGates"):
            self._update(obj, lambda live: live["spec"].update(nodeName=NODE))
            self._events.record(obj, "Scheduled", f"Assigned {metadata['namespace']}/{metadata['name']} to {NODE}")
        elif not any(one["type"] == "PodScheduled" for one in known):
            gated = {
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastTransitionTime": timestamp(self._cluster.now),
            }
            self._update(obj, lambda live: live["status"].update(conditions=[*known, gated]), "status")

    def _run(self, key: str, obj: Object) -> Pod:
        metadata = obj["metadata"]
        facts = Facts(
            pod=obj,
            ip=self._subnet.pod(metadata["uid"]),
            host_ip=self._subnet.node,
            capacity=self._capacity,
            lookup=lambda resource, name: self._cluster.get(resource, metadata["namespace"], name),
        )
        folder = volumes.folder_of(self._data, metadata["uid"])
        return Pod(facts, folder, self._machine, lambda: self._enqueue(self, key))

    def _report(self, obj: Object, pod: Pod) -> None:
        status = pod_status(obj, pod.report(), self._cluster.now)
        if status != obj.get("status"):
            self._update(obj, lambda live: live.update(status=status), "status")

    def _update(self, obj: Object, change: Callable[[Object], Any], subresource: str = "") -> None:
        metadata = obj["metadata"]
        self._cluster.update("pods", metadata["namespace"], metadata["name"], change, subresource)

    def _abandon(self, key: str, pod: Pod) -> None:
        """Its object is gone: it was deleted by force, or with its namespace."""
        del self._pods[key]
        self._ending.add(pod)
        pod.stop(0)
        self._do(self._clear(pod))

    async def _clear(self, pod: Pod) -> None:
        await asyncio.wait({pod.task})
        await asyncio.to_thread(volumes.remove, volumes.folder_of(self._data, pod.uid))
        self._subnet.release(pod.uid)
        self._ending.discard(pod)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the process runner failed", exc_info=error)
