"""Deployments and ReplicaSets: what holds in every rollout, and the corners that a cluster seldom shows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedded.errors import StatusError
from embedded.workloads import pods as _pods
from embedded.workloads import replicasets
from embedded.workloads.rollouts import template_hash
from tests.conftest import examples
from tests.unit.embedded.controlled import Controlled, Object, condition, deployment, image_of


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Controlled]:
    controlled = Controlled(tmp_path)
    yield controlled
    controlled.close()


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controlled]:
    controlled = Controlled(tmp_path_factory.mktemp("plane"))
    yield controlled
    controlled.close()


def _new_image(plane: Controlled, image: str) -> None:
    def change(obj: Object) -> None:
        obj["spec"]["template"]["spec"]["containers"][0]["image"] = image

    plane.change("deployments.apps", "web", change)


def _all_ready(plane: Controlled) -> None:
    """Plays the kubelet until nothing happens any more."""
    for _ in range(200):
        plane.settle()
        going = [pod for pod in plane.list("pods") if "deletionTimestamp" in pod["metadata"]]
        waiting = [pod for pod in plane.pods() if not _pods.is_ready(pod)]
        for pod in going:
            plane.gone(pod)
        for pod in waiting:
            plane.ready(pod)
        if not going and not waiting:
            return
    raise AssertionError("the rollout has no end")


_fence = st.one_of(st.integers(0, 4), st.integers(0, 100).map(lambda percent: f"{percent}%"))
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("image"), st.sampled_from(["v1", "v2", "v3"])),
        st.tuples(st.just("scale"), st.integers(0, 8)),
        st.tuples(st.just("ready"), st.integers(0, 20)),
        st.tuples(st.just("gone"), st.integers(0, 20)),
        st.tuples(st.just("pause"), st.booleans()),
        st.tuples(st.just("restart"), st.none()),
    ),
    max_size=12,
)


@settings(max_examples=examples(60))
@given(replicas=st.integers(1, 6), surge=_fence, unavailable=_fence, steps=_steps)
def test_every_rollout_keeps_within_its_limits_and_ends(
    lasting: Controlled, replicas: int, surge: int | str, unavailable: int | str, steps: list[tuple[str, Any]]
) -> None:
    if surge in (0, "0%") and unavailable in (0, "0%"):
        surge = 1
    plane = lasting.clear()
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    plane.create("deployments.apps", "web", deployment(replicas=replicas, strategy=rolling))
    _all_ready(plane)
    image, wanted = "v1", replicas
    for action, value in steps:
        pods = plane.list("pods")
        match action:
            case "image":
                image = value
                _new_image(plane, value)
            case "scale":
                wanted = value
                plane.spec("deployments.apps", "web", replicas=value)
            case "pause":
                plane.spec("deployments.apps", "web", paused=value)
            case "ready" if pods:
                plane.ready(pods[value % len(pods)])
            case "gone" if pods:
                plane.gone(pods[value % len(pods)])
            case "restart":
                plane.restart()
        plane.settle()
        _check_total(plane, wanted, surge)
    plane.spec("deployments.apps", "web", paused=False)
    _all_ready(plane)
    _check_end(plane, image, wanted)


def _check_total(plane: Controlled, wanted: int, surge: int | str) -> None:
    most = wanted + max(_pods.portion(surge, wanted, up=True), 0)
    sizes = [found["spec"]["replicas"] for found in plane.list("replicasets.apps")]
    assert sum(sizes) <= most or wanted == 0, f"{sizes} for {wanted} and a surge of {surge}"


def _check_end(plane: Controlled, image: str, wanted: int) -> None:
    live = plane.get("deployments.apps", "web")
    assert [image_of(pod) for pod in plane.pods()] == [image] * wanted
    assert condition(live, "Progressing")["reason"] == "NewReplicaSetAvailable"
    assert [live["status"].get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")] == [
        wanted
    ] * 3
    newest = max(plane.list("replicasets.apps"), key=_revision)
    assert image_of(newest) == image
    plane.writes.clear()
    plane.restart()
    plane.settle()
    assert plane.writes == [], "a look at what is as it should be writes nothing"


def _revision(found: Object) -> int:
    return int(found["metadata"]["annotations"]["deployment.kubernetes.io/revision"])


@settings(max_examples=30)
@given(replicas=st.integers(1, 6), surge=_fence, unavailable=_fence)
def test_a_rollout_of_a_healthy_version_never_has_fewer_available_than_allowed(
    lasting: Controlled, replicas: int, surge: int | str, unavailable: int | str
) -> None:
    if surge in (0, "0%") and unavailable in (0, "0%"):
        surge = 1
    plane = lasting.clear()
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    plane.create("deployments.apps", "web", deployment(replicas=replicas, strategy=rolling))
    _all_ready(plane)
    _new_image(plane, "v2")
    extra = _pods.portion(surge, replicas, up=True)
    fewer = _pods.portion(unavailable, replicas, up=False)
    least = replicas - (fewer if extra or fewer else 1)

    def check() -> None:
        ready = [pod for pod in plane.pods() if _pods.is_ready(pod)]
        assert len(ready) >= least

    for _ in range(100):
        plane.settle(check)
        waiting = next((pod for pod in plane.pods() if not _pods.is_ready(pod)), None)
        if waiting is None:
            break
        plane.ready(waiting)
    assert {image_of(pod) for pod in plane.pods()} == {"v2"}


def test_a_name_that_is_taken_is_a_collision_and_the_next_hash_is_tried(plane: Controlled) -> None:
    digest = template_hash(plane.create("deployments.apps", "probe", deployment(replicas=0))["spec"]["template"], 0)
    plane.user.delete("deployments.apps", "default", "probe")
    stranger = deployment("probe", image="other", replicas=0)
    stranger["selector"]["matchLabels"]["of"] = stranger["template"]["metadata"]["labels"]["of"] = "somebody"
    plane.create("replicasets.apps", f"probe-{digest}", stranger)
    plane.create("deployments.apps", "probe", deployment("probe", replicas=1))
    collided = template_hash(plane.get("deployments.apps", "probe")["spec"]["template"], 0)
    plane.create("replicasets.apps", f"probe-{collided}", stranger)
    plane.settle()
    assert plane.get("deployments.apps", "probe")["status"]["collisionCount"] == 1
    assert len(plane.pods(app="probe")) == 1


def test_a_deployment_that_is_deleted_with_its_pods_left_is_taken_up_by_the_next(plane: Controlled) -> None:
    plane.create("deployments.apps", "web", deployment(replicas=1))
    _all_ready(plane)
    (before,) = plane.list("replicasets.apps")
    plane.change("replicasets.apps", before["metadata"]["name"], lambda obj: obj["metadata"].pop("ownerReferences"))
    plane.user.delete("deployments.apps", "default", "web")
    plane.create("deployments.apps", "web", deployment(replicas=1))
    plane.settle()
    (after,) = plane.list("replicasets.apps")
    live = plane.get("deployments.apps", "web")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["metadata"]["ownerReferences"][0]["uid"] == live["metadata"]["uid"]
    assert len(plane.pods()) == 1


def test_the_pods_of_a_replica_set_go_in_the_order_of_a_cluster(plane: Controlled) -> None:
    def pod(name: str, **fields: Any) -> Object:
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": fields.get("since", "2026-11-21T08:00:00Z")}
        restarts = [{"restartCount": fields.get("restarts", 0)}]
        return {
            "metadata": {
                "name": name,
                "uid": name,
                "creationTimestamp": fields.get("created", "2026-11-21T07:00:00Z"),
                "annotations": {"controller.kubernetes.io/pod-deletion-cost": fields.get("cost", "0")},
            },
            "spec": {"nodeName": fields.get("node", "a")},
            "status": {
                "phase": fields.get("phase", "Running"),
                "conditions": [ready] if fields.get("ready", True) else [],
                "containerStatuses": restarts,
            },
        }

    pods = [
        pod("old"),
        pod("young", created="2026-11-21T07:30:00Z"),
        pod("restarted", restarts=3),
        pod("fresh", since="2026-11-21T08:30:00Z"),
        pod("crowded", node="b"),
        pod("cheap", cost="-1"),
        pod("unready", ready=False),
        pod("pending", phase="Pending", ready=False),
        pod("homeless", phase="Pending", ready=False, node=""),
    ]
    related = [*pods, *(pod(f"other-{number}", node="b") for number in range(9))]
    order = [found["metadata"]["name"] for found in _pods.first_to_go(pods, related)]
    expected = ["homeless", "pending", "unready", "cheap", "crowded", "fresh", "restarted", "young", "old"]
    assert order == expected


@pytest.mark.parametrize(
    ("value", "up", "expected"),
    [(3, True, 3), ("25%", True, 3), ("25%", False, 2), ("0%", True, 0), ("100%", False, 10)],
)
def test_percentages_are_of_the_replicas(value: int | str, up: bool, expected: int) -> None:
    assert _pods.portion(value, 10, up=up) == expected


def test_a_namespace_that_goes_takes_its_workloads_along(plane: Controlled) -> None:
    plane.create("deployments.apps", "web", deployment(replicas=1))
    _all_ready(plane)
    plane.user.delete("namespaces", "", "default")
    plane.settle()
    assert plane.user.get("namespaces", "", "default") is None
    assert plane.store.count("pods/") == 0


def test_a_refused_creation_is_a_condition_until_one_succeeds(now: datetime) -> None:
    replica_set: Object = {
        "metadata": {"generation": 1},
        "spec": {"replicas": 1, "template": {"metadata": {"labels": {"app": "web"}}}},
    }
    refused, again = replicasets.status(replica_set, [], StatusError(403, "Forbidden", "exceeded quota"), now)
    assert refused["conditions"] == [
        {
            "type": "ReplicaFailure",
            "status": "True",
            "reason": "FailedCreate",
            "message": "exceeded quota",
            "lastTransitionTime": "2026-11-21T08:15:18Z",
        }
    ]
    assert again is None
    recovered, _ = replicasets.status({**replica_set, "status": refused}, [], None, now)
    assert "conditions" not in recovered


def test_many_pods_are_created_and_deleted_in_short_looks(plane: Controlled) -> None:
    plane.create("deployments.apps", "web", deployment(replicas=35))
    before = 0

    def check() -> None:
        nonlocal before
        now = plane.store.count("pods/")
        assert abs(now - before) <= 10
        before = now

    plane.settle(check)
    assert before == 35
    plane.spec("deployments.apps", "web", replicas=2)
    plane.settle()
    assert len(plane.pods()) == 2


def test_a_scale_by_hand_of_a_replica_set_is_set_right(plane: Controlled) -> None:
    plane.create("deployments.apps", "web", deployment(replicas=2))
    _all_ready(plane)
    (found,) = plane.list("replicasets.apps")
    plane.spec("replicasets.apps", found["metadata"]["name"], replicas=5)
    _all_ready(plane)
    assert len(plane.pods()) == 2
