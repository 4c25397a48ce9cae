"""EndpointSlices and PodDisruptionBudgets, where there are many Pods, or odd ones."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from embedded.workloads import budgets
from tests.unit.embedded.controlled import Controlled, Object, condition, deployment, pod_spec

SLICES = "endpointslices.discovery.k8s.io"


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Controlled]:
    controlled = Controlled(tmp_path)
    yield controlled
    controlled.close()


def _service(**spec: object) -> Object:
    return {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}], **spec}


def _many(plane: Controlled, number: int) -> list[Object]:
    pods = []
    for index in range(number):
        pod = plane.create("pods", f"pod-{index:03}", pod_spec("v1"), labels={"app": "web"})
        plane.ready(pod, ip=f"10.1.{index // 200}.{index % 200 + 1}")
        pods.append(pod)
    plane.settle()
    return pods


def _members(plane: Controlled) -> dict[str, set[str]]:
    return {
        found["metadata"]["name"]: {endpoint["targetRef"]["name"] for endpoint in found.get("endpoints") or ()}
        for found in plane.list(SLICES)
    }


def test_a_slice_holds_a_hundred_and_endpoints_stay_where_they_are(plane: Controlled) -> None:
    plane.create("services", "web", _service())
    pods = _many(plane, 205)
    before = _members(plane)
    assert sorted(map(len, before.values())) == [5, 100, 100]
    plane.writes.clear()
    plane.gone(pods[3])
    plane.settle()
    written = [event.key for event in plane.writes if event.key.startswith(SLICES)]
    assert len(written) == 1, "one Pod, one slice"
    after = _members(plane)
    assert {name: members - {"pod-003"} for name, members in before.items()} == after
    late = plane.create("pods", "late", pod_spec("v1"), labels={"app": "web"})
    plane.ready(late)
    plane.settle()
    assert sorted(map(len, _members(plane).values())) == [5, 100, 100], "the fullest with room takes it"


def test_slices_that_have_become_empty_go(plane: Controlled) -> None:
    plane.create("services", "web", _service())
    pods = _many(plane, 101)
    small = min(_members(plane).items(), key=lambda item: len(item[1]))
    (last,) = small[1]
    plane.gone(next(pod for pod in pods if pod["metadata"]["name"] == last))
    plane.settle()
    assert [len(members) for members in _members(plane).values()] == [100]


def test_a_service_that_asks_for_it_publishes_pods_that_are_not_ready(plane: Controlled) -> None:
    plane.create("services", "web", _service(publishNotReadyAddresses=True, clusterIP="None"))
    pod = plane.create(
        "pods", "web-0", pod_spec("v1") | {"hostname": "zero", "subdomain": "web"}, labels={"app": "web"}
    )
    plane.ready(pod, ready=False)
    plane.settle()
    (found,) = plane.list(SLICES)
    (endpoint,) = found["endpoints"]
    assert endpoint["conditions"] == {"ready": True, "serving": False, "terminating": False}
    assert endpoint["hostname"] == "zero"
    assert found["metadata"]["labels"]["service.kubernetes.io/headless"] == ""


def test_a_pod_without_the_named_port_is_listed_without_ports(plane: Controlled) -> None:
    plane.create("services", "web", _service(ports=[{"name": "grpc", "port": 81, "targetPort": "grpc"}]))
    _many(plane, 1)
    (found,) = plane.list(SLICES)
    assert not found.get("ports")
    assert len(found["endpoints"]) == 1


def test_labels_of_the_service_are_passed_on(plane: Controlled) -> None:
    plane.create("services", "web", _service())
    plane.settle()
    plane.change("services", "web", lambda obj: obj["metadata"].update(labels={"team": "ml"}))
    plane.settle()
    (found,) = plane.list(SLICES)
    assert found["metadata"]["labels"]["team"] == "ml"


def test_a_slice_that_somebody_changed_is_set_right(plane: Controlled) -> None:
    plane.create("services", "web", _service())
    _many(plane, 2)
    (found,) = plane.list(SLICES)
    plane.change(SLICES, found["metadata"]["name"], lambda obj: obj.update(endpoints=[]))
    plane.settle()
    assert [len(members) for members in _members(plane).values()] == [2]


def test_a_budget_over_pods_of_unknown_controllers_allows_nothing_and_says_why(plane: Controlled) -> None:
    plane.create(
        "poddisruptionbudgets.policy", "web", {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    )
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "gone", "uid": "1", "controller": True}
    plane.create("pods", "lost", pod_spec("v1"), labels={"app": "web"}, ownerReferences=[owner])
    plane.settle()
    found = plane.get("poddisruptionbudgets.policy", "web")
    said = condition(found, "DisruptionAllowed")
    assert (said["status"], said["reason"]) == ("False", "SyncFailed")
    assert said["message"] == 'found no controllers for pod "lost"'
    assert found["status"]["disruptionsAllowed"] == 0


def test_an_evicted_pod_counts_as_gone_for_two_minutes(now: datetime) -> None:
    ready = {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-21T08:00:00Z"}]}
    pods = [{"metadata": {"name": name}, "status": ready} for name in ("a", "b")]
    budget: Object = {
        "metadata": {"generation": 1},
        "spec": {"maxUnavailable": 1},
        "status": {
            "disruptedPods": {"a": "2026-11-21T08:14:18Z", "b": "2026-11-21T08:00:00Z", "c": "2026-11-21T08:15:00Z"}
        },
    }
    after, again = budgets.status(budget, pods, 2, now)
    assert after["disruptedPods"] == {"a": "2026-11-21T08:14:18Z"}
    assert (after["currentHealthy"], after["disruptionsAllowed"]) == (1, 0)
    assert again == 60


def test_the_scale_of_a_deployment_is_what_a_budget_expects(plane: Controlled) -> None:
    selector = {"matchLabels": {"app": "web"}}
    plane.create("poddisruptionbudgets.policy", "web", {"maxUnavailable": "50%", "selector": selector})
    plane.create("deployments.apps", "web", deployment(replicas=3))
    plane.settle()
    status = plane.get("poddisruptionbudgets.policy", "web")["status"]
    assert (status["expectedPods"], status["desiredHealthy"]) == (3, 1)
    plane.spec("deployments.apps", "web", replicas=6)
    plane.settle()
    status = plane.get("poddisruptionbudgets.policy", "web")["status"]
    assert (status["expectedPods"], status["desiredHealthy"]) == (6, 3)
