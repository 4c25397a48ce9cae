"""A namespace with workloads, and the hands of the kubelet that would run them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tests.contract.client import MERGE, Api, eventually

Object = dict[str, Any]


class Kubelet:
    """A namespace with its workloads, and the hands of its kubelet."""

    def __init__(self, api: Api, namespace: str, node: str) -> None:
        self.api = api
        self.namespace = namespace
        self.node = node

    def path(self, resource: str, name: str = "") -> str:
        group = _GROUPS.get(resource, "api/v1")
        return f"/{group}/namespaces/{self.namespace}/{resource}" + (f"/{name}" if name else "")

    def create(self, resource: str, body: Object) -> Object:
        answer = self.api("POST", self.path(resource), body)
        assert answer.status == 201, answer.body
        created: Object = answer.body
        return created

    def get(self, resource: str, name: str) -> Object | None:
        answer = self.api("GET", self.path(resource, name))
        assert answer.status in (200, 404), answer.body
        return answer.body if answer.status == 200 else None

    def patch(self, resource: str, name: str, change: Object) -> Object:
        answer = self.api("PATCH", self.path(resource, name), change, content_type=MERGE)
        assert answer.status == 200, answer.body
        changed: Object = answer.body
        return changed

    def list(self, resource: str, **labels: str) -> list[Object]:
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        answer = self.api("GET", f"{self.path(resource)}?labelSelector={selector}")
        assert answer.status == 200, answer.body
        return list(answer.body["items"])

    def status(self, resource: str, name: str, is_there: Callable[[Object], Any]) -> Object:
        """The status of an object once it is as it should be."""

        def look() -> Object | None:
            found = self.get(resource, name)
            status: Object = (found or {}).get("status") or {}
            return status if is_there(status) else None

        return eventually(look)

    def pods(self, number: int | None = None, **labels: str) -> list[Object]:
        """The Pods that are not being deleted, the oldest first; once there are as many as asked for."""

        def look() -> tuple[list[Object]] | None:
            found = [pod for pod in self.list("pods", **labels) if "deletionTimestamp" not in pod["metadata"]]
            return (found,) if number in (None, len(found)) else None

        (found,) = eventually(look)
        return sorted(found, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))

    # The kubelet

    def ready(self, pod: Object, *, ready: bool = True, ip: str = "10.1.2.3") -> None:
        now = moment()
        conditions = [{"type": "Ready", "status": str(ready), "lastTransitionTime": now}]
        self._write(
            pod, {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": conditions, "startTime": now}
        )

    def ended(self, pod: Object, code: int = 0, *, container: str = "main", init: bool = False, **status: Any) -> None:
        now = moment()
        terminated = {"exitCode": code, "startedAt": now, "finishedAt": now, "reason": "Error" if code else "Completed"}
        one = {
            "name": container,
            "image": "x",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": terminated},
        }
        field = "initContainerStatuses" if init else "containerStatuses"
        self._write(pod, {"phase": "Failed" if code else "Succeeded", field: [one], **status})

    def gone(self, pod: Object) -> None:
        """The containers of a Pod that is being deleted have ended."""
        self.api("DELETE", self.path("pods", pod["metadata"]["name"]), {"gracePeriodSeconds": 0})

    def _write(self, pod: Object, status: Object) -> None:
        name = pod["metadata"]["name"]
        answer = self.api("PATCH", self.path("pods", name) + "/status", {"status": status}, content_type=MERGE)
        assert answer.status == 200, answer.body

    # What is sent

    def deployment(self, name: str = "web", *, image: str = "v1", **spec: Any) -> Object:
        template = {"metadata": {"labels": {"app": name}}, "spec": self.pod_spec(image)}
        body = {"selector": {"matchLabels": {"app": name}}, "template": template, **spec}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": body}

    def job(self, name: str = "build", **spec: Any) -> Object:
        template = {"spec": {"restartPolicy": "Never", **self.pod_spec("v1")}}
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name},
            "spec": {"template": template, **spec},
        }

    def pod_spec(self, image: str) -> Object:
        port = {"name": "http", "containerPort": 8080}
        return {"nodeName": self.node, "containers": [{"name": "main", "image": image, "ports": [port]}]}

    def new_image(self, name: str, image: str) -> None:
        containers = self.pod_spec(image)["containers"]
        self.patch("deployments", name, {"spec": {"template": {"spec": {"containers": containers}}}})

    def all_ready(self, number: int, **labels: str) -> list[Object]:
        """Makes Pods ready as they come, until there are as many as asked for, all ready."""

        def step() -> list[Object] | None:
            found = self.pods(**labels)
            for pod in found:
                if not is_ready(pod):
                    self.ready(pod)
            return found if len(found) == number and all(map(is_ready, found)) else None

        return eventually(step)

    def roll(self, name: str, image: str, number: int) -> None:
        """Plays the kubelet until a Deployment has only Pods of an image, all ready."""

        def step() -> bool:
            for pod in self.list("pods", app=name):
                if "deletionTimestamp" in pod["metadata"]:
                    self.gone(pod)
                elif not is_ready(pod):
                    self.ready(pod)
            found = self.list("pods", app=name)
            return len(found) == number and all(is_ready(pod) and image_of(pod) == image for pod in found)

        eventually(step)
        self.status("deployments", name, lambda status: status.get("terminatingReplicas") == 0)


_GROUPS = {
    "deployments": "apis/apps/v1",
    "replicasets": "apis/apps/v1",
    "jobs": "apis/batch/v1",
    "endpointslices": "apis/discovery.k8s.io/v1",
    "poddisruptionbudgets": "apis/policy/v1",
    "scaledobjects": "apis/keda.sh/v1alpha1",
}


def moment() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")  # noqa: TID251  # a kubelet has a clock


def is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(found["type"] == "Ready" and found["status"] == "True" for found in conditions)


def image_of(pod: Object) -> str:
    return str(pod["spec"]["containers"][0]["image"])


def conditions_of(status: Object) -> dict[str, tuple[str, str, str]]:
    found = status.get("conditions", ())
    return {one["type"]: (one["status"], one.get("reason", ""), one.get("message", "")) for one in found}


def reason_of(status: Object, kind: str) -> str:
    return conditions_of(status).get(kind, ("", "", ""))[1]
