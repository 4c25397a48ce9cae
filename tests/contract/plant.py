"""Plays the controllers of a cluster on an API server that has none: builds end, pods are ready, routes are accepted.

    with Plant(api) as plant:
        plant.metrics["churn"] = {"auc": "0.9"}
        ...

On one that has controllers and no nodes (a kube-apiserver with its controller manager) the `Nodes` do. `played` gives
whoever is missing.

What it has seen on the way is kept: every Job by its uid, and the weights of every route in the order in which they
came. A route that sends requests to pods that are not ready, or to nobody, is noted in `gaps`.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from renderers.names import ENVIRONMENT
from tests.contract.client import MERGE, Api

NOW = "2026-01-01T00:00:00Z"
GATEWAY = "gateway.networking.k8s.io/v1"
_PERIOD = 0.02

Body = dict[str, Any]


class Plant:
    """The controllers, in a thread. `metrics`: what the build of a model logs, as JSON; none: {"auc": 0.9}."""

    def __init__(self, api: Api) -> None:
        self._api = api.another()
        self._over = threading.Event()
        self._thread = ThreadPoolExecutor(1)
        self._lock = threading.Lock()
        self.metrics: dict[str, dict[str, Any]] = {}
        #: Models whose builds do not end, and models whose builds end with this exit code.
        self.stuck: set[str] = set()
        self.failing: dict[str, int] = {}
        #: Beginnings of the names of Deployments that never become ready.
        self.unready: tuple[str, ...] = ()
        #: Whether the pods of Deployments that have none ready yet crash until their time is over.
        self.crashing = False
        #: Whether routes are accepted.
        self.accepts = True
        #: "namespace/name" of each Job -> the uids that it had.
        self.jobs: defaultdict[str, set[str]] = defaultdict(set)
        #: "namespace/name" of each route -> its weights by Service, each once, in their order.
        self.weights: defaultdict[str, list[dict[str, int]]] = defaultdict(list)
        self.gaps: set[str] = set()

    def __enter__(self) -> Self:
        self._life = self._thread.submit(self._run)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.shutdown()
        self.close()
        self._life.result()

    def close(self) -> None:
        """For who calls `turn` and has no thread."""
        self._api.close()

    def _run(self) -> None:
        while not self._over.wait(_PERIOD):
            self.turn()

    def turn(self) -> None:
        """Everything that can go on goes on, once."""
        with self._lock:
            for job in self._list("batch/v1", "jobs"):
                self._job(job)
            ready = {key for key in map(self._deployment, self._list("apps/v1", "deployments")) if key}
            for route in self._list(GATEWAY, "httproutes"):
                self._route(route, ready)
            self._gateways()
            for budget in self._list("policy/v1", "poddisruptionbudgets"):
                self._seen(budget, "poddisruptionbudgets", {"disruptionsAllowed": 0, "currentHealthy": 1})

    def _gateways(self) -> None:
        for gateway in self._list(GATEWAY, "gateways"):
            self._seen(gateway, "gateways", {"conditions": [_condition(gateway, "Programmed")]})

    def _list(self, version: str, plural: str) -> list[Body]:
        """All that belongs to an environment."""
        answer = self._api(
            "GET", f"/{'apis' if '/' in version else 'api'}/{version}/{plural}?labelSelector={ENVIRONMENT}"
        )
        if answer.status == 404:  # nobody has installed the kind
            return []
        assert answer.status == 200, answer.body
        return [{**one, "apiVersion": version} for one in answer.body["items"]]

    def _job(self, job: Body) -> None:
        metadata, model = job["metadata"], job["metadata"]["labels"]["app.kubernetes.io/name"]
        self.jobs[f"{metadata['namespace']}/{metadata['name']}"].add(metadata["uid"])
        if job.get("status", {}).get("conditions") or model in self.stuck:
            return
        code = self.failing.get(model, 0)
        pods = f"/api/v1/namespaces/{metadata['namespace']}/pods"
        template, name = job["spec"]["template"], f"{metadata['name']}-x7x4f"
        self._api("POST", pods, {**template, "metadata": {**template["metadata"], "name": name}})
        self._write(f"{pods}/{name}", self._ended(model, template))
        kinds = ("FailureTarget", "Failed") if code else ("SuccessCriteriaMet", "Complete")
        met = [{"type": kind, "status": "True", "reason": "Ended", "lastTransitionTime": NOW} for kind in kinds]
        times = {"startTime": NOW} | ({} if code else {"completionTime": NOW, "succeeded": 1})
        self._write(_path(job, "jobs"), {"conditions": met, **times})

    def _ended(self, model: str, pod: Body) -> Body:
        """The status of a build's pod that has ended."""
        code = self.failing.get(model, 0)
        result: Body = {"metrics": self.metrics.get(model, {"auc": 0.9}), "artifact": "a", "record": "r"}
        if code:
            result = {"error": {"step": "build", "reason": "ModelFailed", "message": "it has no data"}}
        ended = {"exitCode": code, "reason": "Error" if code else "Completed", "message": json.dumps(result)}
        about = {"image": "builder", "imageID": "", "ready": False, "restartCount": 0}
        containers = [{"name": pod["spec"]["containers"][0]["name"], "state": {"terminated": ended}, **about}]
        return {"phase": "Failed" if code else "Succeeded", "containerStatuses": containers}

    def _deployment(self, one: Body) -> str:
        """Its name, if its pods are ready."""
        name, metadata = one["metadata"]["name"], one["metadata"]
        if name.startswith(self.unready):
            return ""
        if self.crashing and not one.get("status", {}).get("readyReplicas"):
            words = {"reason": "ProgressDeadlineExceeded", "message": "it has timed out progressing"}
            self._seen(one, "deployments", {"conditions": [{"type": "Progressing", "status": "False", **words}]})
            return ""
        replicas = one["spec"]["replicas"]
        counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), replicas)
        conditions = [
            {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"},
            {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
        ]
        self._seen(one, "deployments", {"conditions": conditions, **counts})
        return f"{metadata['namespace']}/{name}"

    def _route(self, route: Body, ready: set[str]) -> None:
        namespace, name = route["metadata"]["namespace"], route["metadata"]["name"]
        weights: dict[str, int] = {}
        for rule in route["spec"]["rules"]:
            for ref in rule.get("backendRefs", ()):
                weights[ref["name"]] = ref.get("weight", 1)
                if ref.get("weight", 1) and f"{namespace}/{ref['name']}" not in ready:
                    self.gaps.add(f"{namespace}/{name} sends requests to {ref['name']}, which is not ready")
        seen = self.weights[f"{namespace}/{name}"]
        if not seen or seen[-1] != weights:
            seen.append(weights)
        if self.accepts:
            conditions = [_condition(route, kind) for kind in ("Accepted", "ResolvedRefs")]
            parent = {"parentRef": route["spec"]["parentRefs"][0], "controllerName": "trueup.dev/plant"}
            if _differs(route.get("status", {}).get("parents"), conditions):
                self._write(_path(route, "httproutes"), {"parents": [parent | {"conditions": conditions}]})

    def _seen(self, body: Body, plural: str, status: Body) -> None:
        """Its controller has seen this generation of it."""
        generation = body["metadata"]["generation"]
        said = body.get("status", {})
        if plural == "gateways":
            if _differs([said], status["conditions"]):
                self._write(_path(body, plural), status)
        elif said.get("observedGeneration") != generation:
            self._write(_path(body, plural), {"observedGeneration": generation, **status})

    def _write(self, path: str, status: Body) -> None:
        answer = self._api("PATCH", f"{path}/status", {"status": status}, content_type=MERGE)
        assert answer.status in (200, 404), answer.body


class Nodes(Plant):
    """The nodes: pods that serve become ready, pods of Jobs end. What follows is up to the cluster's controllers."""

    def turn(self) -> None:
        """Everything that can go on goes on, once."""
        with self._lock:
            for job in self._list("batch/v1", "jobs"):
                self.jobs[f"{job['metadata']['namespace']}/{job['metadata']['name']}"].add(job["metadata"]["uid"])
            for pod in self._list("v1", "pods"):
                self._pod(pod)
            # Routes first: whoever is not ready after that was not ready when the route came, either.
            routes = self._list(GATEWAY, "httproutes")
            ready = {
                f"{one['metadata']['namespace']}/{one['metadata']['name']}"
                for one in self._list("apps/v1", "deployments")
                if one.get("status", {}).get("availableReplicas")
            }
            for route in routes:
                self._route(route, ready)
            self._gateways()

    def _pod(self, pod: Body) -> None:
        metadata = pod["metadata"]
        model = metadata["labels"]["app.kubernetes.io/name"]
        if pod["status"]["phase"] != "Pending" or "deletionTimestamp" in metadata:
            return
        (owner,) = metadata["ownerReferences"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        if owner["kind"] == "Job":
            if model not in self.stuck:
                self._write(path, self._ended(model, pod))
        elif not metadata["name"].startswith(self.unready):
            ready = {"type": "Ready", "status": "True", "lastTransitionTime": NOW}
            self._write(path, {"phase": "Running", "conditions": [ready]})


def played(api: Api) -> Plant:
    """Whoever is missing on this server: its controllers and its nodes, or its nodes alone."""
    # A controller manager puts it into every namespace.
    is_managed = api("GET", "/api/v1/namespaces/default/configmaps/kube-root-ca.crt").status == 200
    return Nodes(api) if is_managed else Plant(api)


def _condition(body: Body, kind: str) -> Body:
    generation = body["metadata"]["generation"]
    said = {"status": "True", "reason": kind, "message": "", "lastTransitionTime": NOW}
    return {"type": kind, "observedGeneration": generation, **said}


def _differs(parents: list[Body] | None, conditions: list[Body]) -> bool:
    said = [(c["type"], c.get("observedGeneration")) for parent in parents or () for c in parent.get("conditions", ())]
    return said != [(c["type"], c["observedGeneration"]) for c in conditions]


def _path(body: Body, plural: str) -> str:
    return f"/apis/{body['apiVersion']}/namespaces/{body['metadata']['namespace']}/{plural}/{body['metadata']['name']}"
