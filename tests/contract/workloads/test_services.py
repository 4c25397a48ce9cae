"""EndpointSlices of Services, and PodDisruptionBudgets: where requests may go, and what may be taken away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.client import eventually
from tests.contract.workloads.kubelet import Kubelet, Object, conditions_of


def test_a_service_has_a_slice_with_its_pods(kubelet: Kubelet) -> None:
    service = kubelet.create("services", _service(labels={"team": "ml"}))
    (empty,) = eventually(lambda: kubelet.list("endpointslices") or None)
    assert not empty["endpoints"]
    assert not empty["ports"]
    kubelet.create("deployments", kubelet.deployment(replicas=2))
    first, second = kubelet.pods(2, app="web")
    kubelet.ready(first, ip="10.1.0.1")
    kubelet.ready(second, ip="10.1.0.2", ready=False)
    found = _slices(kubelet, lambda endpoints: len(endpoints) == 2)
    (one,) = found
    assert one["metadata"]["labels"] == {
        "team": "ml",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    assert one["metadata"]["generateName"] == "web-"
    (reference,) = one["metadata"]["ownerReferences"]
    assert (reference["kind"], reference["uid"], reference["controller"]) == (
        "Service",
        service["metadata"]["uid"],
        True,
    )
    assert one["addressType"] == "IPv4"
    assert one["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "http"}]
    by_address = {endpoint["addresses"][0]: endpoint for endpoint in one["endpoints"]}
    assert by_address["10.1.0.1"] == {
        "addresses": ["10.1.0.1"],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "nodeName": kubelet.node,
        "targetRef": {
            "kind": "Pod",
            "namespace": kubelet.namespace,
            "name": first["metadata"]["name"],
            "uid": first["metadata"]["uid"],
        },
    }
    assert by_address["10.1.0.2"]["conditions"] == {"ready": False, "serving": False, "terminating": False}


def test_a_pod_that_stops_serves_to_the_end_and_is_not_ready(kubelet: Kubelet) -> None:
    kubelet.create("services", _service())
    kubelet.create("deployments", kubelet.deployment(replicas=1))
    (pod,) = kubelet.all_ready(1, app="web")
    _slices(kubelet, lambda endpoints: [one["conditions"]["ready"] for one in endpoints] == [True])
    kubelet.api("DELETE", kubelet.path("pods", pod["metadata"]["name"]))
    name = pod["metadata"]["name"]
    (one,) = _slices(kubelet, lambda endpoints: any(not one["conditions"]["ready"] for one in endpoints))
    (stopping,) = [endpoint for endpoint in one["endpoints"] if endpoint["targetRef"]["name"] == name]
    assert stopping["conditions"] == {"ready": False, "serving": True, "terminating": True}
    kubelet.gone(pod)
    _slices(kubelet, lambda endpoints: all(one["targetRef"]["name"] != name for one in endpoints))


def test_a_named_port_is_the_one_of_each_pod(kubelet: Kubelet) -> None:
    kubelet.create("services", _service(selector={"of": "web"}))
    for number, port in enumerate((8080, 9090)):
        spec = kubelet.pod_spec("v1")
        spec["containers"][0]["ports"] = [{"name": "http", "containerPort": port}]
        body = {"metadata": {"name": f"pod-{number}", "labels": {"of": "web"}}, "spec": spec}
        kubelet.ready(kubelet.create("pods", body), ip=f"10.1.0.{number + 1}")
    found = _slices(kubelet, lambda endpoints: len(endpoints) == 2)
    listed = {one["ports"][0]["port"]: one["endpoints"][0]["addresses"] for one in found if one["endpoints"]}
    assert listed == {8080: ["10.1.0.1"], 9090: ["10.1.0.2"]}


def test_a_service_without_a_selector_has_no_slice_of_ours(kubelet: Kubelet) -> None:
    kubelet.create("services", _service(selector={}))
    kubelet.create("services", _service(name="other"))
    eventually(lambda: kubelet.list("endpointslices"))
    assert {one["metadata"]["labels"]["kubernetes.io/service-name"] for one in kubelet.list("endpointslices")} == {
        "other"
    }


def test_slices_go_with_their_service(kubelet: Kubelet) -> None:
    kubelet.create("services", _service())
    eventually(lambda: kubelet.list("endpointslices"))
    kubelet.api("DELETE", kubelet.path("services", "web"))
    eventually(lambda: kubelet.list("endpointslices") == [])


def test_a_budget_counts_the_pods_that_there_should_be(kubelet: Kubelet) -> None:
    kubelet.create("poddisruptionbudgets", _budget(maxUnavailable=1))
    status = kubelet.status("poddisruptionbudgets", "web", lambda status: "conditions" in status)
    assert _counts(status) == (0, 0, 0, 0)
    kubelet.create("deployments", kubelet.deployment(replicas=3))
    kubelet.pods(3, app="web")
    kubelet.status("poddisruptionbudgets", "web", lambda status: _counts(status) == (3, 2, 0, 0))
    pods = kubelet.all_ready(3, app="web")
    status = kubelet.status("poddisruptionbudgets", "web", lambda status: _counts(status) == (3, 2, 3, 1))
    assert conditions_of(status) == {"DisruptionAllowed": ("True", "SufficientPods", "")}
    assert status["observedGeneration"] == 1
    kubelet.ready(pods[0], ready=False)
    status = kubelet.status("poddisruptionbudgets", "web", lambda status: _counts(status) == (3, 2, 2, 0))
    assert conditions_of(status) == {"DisruptionAllowed": ("False", "InsufficientPods", "")}


@pytest.mark.parametrize(("least", "expected"), [(1, (2, 1, 2, 1)), ("60%", (2, 2, 2, 0))])
def test_a_budget_by_the_least_available(kubelet: Kubelet, least: int | str, expected: tuple[int, ...]) -> None:
    kubelet.create("poddisruptionbudgets", _budget(minAvailable=least))
    kubelet.create("deployments", kubelet.deployment(replicas=2))
    kubelet.all_ready(2, app="web")
    kubelet.status("poddisruptionbudgets", "web", lambda status: _counts(status) == expected)


def _service(name: str = "web", selector: Object | None = None, labels: Object | None = None) -> Object:
    port = {"name": "http", "port": 80, "targetPort": "http", "appProtocol": "http"}
    spec = {"selector": {"app": "web"} if selector is None else selector, "ports": [port]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": labels or {}}, "spec": spec}


def _budget(**spec: Any) -> Object:
    body = {"selector": {"matchLabels": {"app": "web"}}, **spec}
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"}, "spec": body}


def _counts(status: Object) -> tuple[int, ...]:
    names = ("expectedPods", "desiredHealthy", "currentHealthy", "disruptionsAllowed")
    return tuple(status.get(name, 0) for name in names)


def _slices(kubelet: Kubelet, is_there: Callable[[list[Object]], Any]) -> list[Object]:
    """The slices once their endpoints are as they should be."""

    def look() -> list[Object] | None:
        found = kubelet.list("endpointslices")
        return found if is_there([endpoint for one in found for endpoint in one["endpoints"] or ()]) else None

    return eventually(look)
