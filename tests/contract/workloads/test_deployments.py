"""Deployments and their ReplicaSets: rollouts, scaling, status, Events."""

from __future__ import annotations

import re
import subprocess

from tests.contract.client import KUBECTL, MERGE, eventually
from tests.contract.workloads.kubelet import Kubelet, conditions_of, image_of, reason_of


def test_a_deployment_makes_a_replica_set_with_a_hash_and_a_revision(kubelet: Kubelet) -> None:
    created = kubelet.create("deployments", kubelet.deployment(replicas=2))
    kubelet.pods(2, app="web")
    (found,) = kubelet.list("replicasets", app="web")
    digest = found["metadata"]["labels"]["pod-template-hash"]
    assert found["metadata"]["name"] == f"web-{digest}"
    assert re.fullmatch("[bcdfghjklmnpqrstvwxz2456789]{6,10}", digest)
    assert found["spec"]["selector"] == {"matchLabels": {"app": "web", "pod-template-hash": digest}}
    assert found["spec"]["template"]["metadata"]["labels"] == {"app": "web", "pod-template-hash": digest}
    assert found["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": "web",
            "uid": created["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    annotations = {
        key.removeprefix("deployment.kubernetes.io/"): value for key, value in found["metadata"]["annotations"].items()
    }
    assert annotations == {"revision": "1", "desired-replicas": "2", "max-replicas": "3"}
    live = kubelet.get("deployments", "web")
    assert live is not None
    assert live["metadata"]["annotations"] == {"deployment.kubernetes.io/revision": "1"}


def test_a_replica_set_makes_pods_from_its_template(kubelet: Kubelet) -> None:
    kubelet.create("deployments", kubelet.deployment(replicas=1))
    (pod,) = kubelet.pods(1, app="web")
    (owner,) = kubelet.list("replicasets", app="web")
    assert pod["metadata"]["generateName"] == f"{owner['metadata']['name']}-"
    assert pod["metadata"]["labels"] == owner["spec"]["template"]["metadata"]["labels"]
    (reference,) = pod["metadata"]["ownerReferences"]
    assert (reference["kind"], reference["uid"]) == ("ReplicaSet", owner["metadata"]["uid"])
    assert "finalizers" not in pod["metadata"]
    assert pod["status"]["phase"] == "Pending"


def test_a_deployment_tells_of_a_rollout_and_of_its_end(kubelet: Kubelet) -> None:
    kubelet.create("deployments", kubelet.deployment(replicas=2))
    kubelet.pods(2, app="web")
    status = kubelet.status("deployments", "web", lambda status: status.get("replicas") == 2)
    (owner,) = kubelet.list("replicasets", app="web")
    name = owner["metadata"]["name"]
    counts = {key: value for key, value in status.items() if key != "conditions"}
    assert counts == {
        "observedGeneration": 1,
        "replicas": 2,
        "updatedReplicas": 2,
        "unavailableReplicas": 2,
        "terminatingReplicas": 0,
    }
    assert conditions_of(status) == {
        "Available": ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability."),
        "Progressing": ("True", "ReplicaSetUpdated", f'ReplicaSet "{name}" is progressing.'),
    }
    kubelet.all_ready(2, app="web")
    status = kubelet.status(
        "deployments", "web", lambda status: reason_of(status, "Progressing") == "NewReplicaSetAvailable"
    )
    assert {key: value for key, value in status.items() if key != "conditions"} == {
        "observedGeneration": 1,
        "replicas": 2,
        "updatedReplicas": 2,
        "readyReplicas": 2,
        "availableReplicas": 2,
        "terminatingReplicas": 0,
    }
    assert conditions_of(status) == {
        "Available": ("True", "MinimumReplicasAvailable", "Deployment has minimum availability."),
        "Progressing": ("True", "NewReplicaSetAvailable", f'ReplicaSet "{name}" has successfully progressed.'),
    }
    owned = kubelet.status("replicasets", name, lambda status: status.get("availableReplicas") == 2)
    assert owned == {
        "observedGeneration": 1,
        "replicas": 2,
        "fullyLabeledReplicas": 2,
        "readyReplicas": 2,
        "availableReplicas": 2,
        "terminatingReplicas": 0,
    }


def test_a_rolling_update_keeps_within_surge_and_unavailability(kubelet: Kubelet) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    kubelet.create("deployments", kubelet.deployment(replicas=3, strategy=rolling))
    kubelet.all_ready(3, app="web")
    kubelet.status("deployments", "web", lambda status: status.get("availableReplicas") == 3)
    kubelet.new_image("web", "v2")
    found = kubelet.pods(4, app="web")
    (fresh,) = [pod for pod in found if image_of(pod) == "v2"]
    status = kubelet.status("deployments", "web", lambda status: status.get("replicas") == 4)
    assert (status["updatedReplicas"], status["availableReplicas"]) == (1, 3)
    kubelet.ready(fresh)
    # One old Pod may go now, and the next new one comes.
    eventually(lambda: sum(image_of(pod) == "v1" for pod in kubelet.pods(app="web")) == 2)
    eventually(lambda: sum(image_of(pod) == "v2" for pod in kubelet.pods(app="web")) == 2)
    kubelet.roll("web", "v2", 3)
    status = kubelet.status(
        "deployments", "web", lambda status: reason_of(status, "Progressing") == "NewReplicaSetAvailable"
    )
    assert (status["replicas"], status["updatedReplicas"], status["availableReplicas"]) == (3, 3, 3)
    sizes = {
        found["spec"]["template"]["spec"]["containers"][0]["image"]: found["spec"]["replicas"]
        for found in kubelet.list("replicasets", app="web")
    }
    assert sizes == {"v1": 0, "v2": 3}


def test_percentages_of_surge_round_up_and_of_unavailability_down(kubelet: Kubelet) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}
    kubelet.create("deployments", kubelet.deployment(replicas=5, strategy=rolling))
    kubelet.all_ready(5, app="web")
    kubelet.status("deployments", "web", lambda status: status.get("availableReplicas") == 5)
    kubelet.new_image("web", "v2")
    # Two more than five at most, and one fewer available at most.
    eventually(lambda: sorted(image_of(pod) for pod in kubelet.pods(app="web")) == ["v1"] * 4 + ["v2"] * 3)
    kubelet.roll("web", "v2", 5)


def test_recreate_waits_for_the_last_old_pod(kubelet: Kubelet) -> None:
    kubelet.create("deployments", kubelet.deployment(replicas=2, strategy={"type": "Recreate"}))
    first, second = kubelet.all_ready(2, app="web")
    kubelet.new_image("web", "v2")
    assert kubelet.pods(0, app="web") == []
    kubelet.status("deployments", "web", lambda status: status.get("terminatingReplicas") == 2)
    kubelet.gone(first)
    kubelet.status("deployments", "web", lambda status: status.get("terminatingReplicas") == 1)
    assert kubelet.pods(app="web") == []
    kubelet.gone(second)
    assert [image_of(pod) for pod in kubelet.pods(2, app="web")] == ["v2", "v2"]


def test_a_rollback_uses_the_old_replica_set_under_a_new_revision(kubelet: Kubelet) -> None:
    kubelet.create("deployments", kubelet.deployment(replicas=1))
    kubelet.all_ready(1, app="web")
    (first,) = kubelet.list("replicasets", app="web")
    kubelet.new_image("web", "v2")
    kubelet.roll("web", "v2", 1)
    kubelet.new_image("web", "v1")
    kubelet.roll("web", "v1", 1)
    again = kubelet.get("replicasets", first["metadata"]["name"])
    assert again is not None
    assert again["metadata"]["uid"] == first["metadata"]["uid"]
    assert again["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
    assert again["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"] == "1"
    assert len(kubelet.list("replicasets", app="web")) == 2
    live = kubelet.get("deployments", "web")
    assert live is not None
    assert live["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"


def test_old_replica_sets_are_kept_up_to_the_limit(kubelet: Kubelet) -> None:
    kubelet.create("deployments", kubelet.deployment(replicas=1, revisionHistoryLimit=1))
    kubelet.all_ready(1, app="web")
    for image in ("v2", "v3"):
        kubelet.new_image("web", image)
        kubelet.roll("web", image, 1)
    revisions = eventually(
        lambda: (
            len(found := kubelet.list("replicasets", app="web")) == 2
            and sorted(one["metadata"]["annotations"]["deployment.kubernetes.io/revision"] for one in found)
        )
    )
    assert revisions == ["2", "3"]


def test_a_paused_deployment_scales_and_does_not_roll(kubelet: Kubelet) -> None:
    kubelet.create("deployments", kubelet.deployment(replicas=1))
    kubelet.all_ready(1, app="web")
    kubelet.patch("deployments", "web", {"spec": {"paused": True}})
    kubelet.new_image("web", "v2")
    kubelet.patch("deployments", "web", {"spec": {"replicas": 2}})
    assert [image_of(pod) for pod in kubelet.pods(2, app="web")] == ["v1", "v1"]
    status = kubelet.status("deployments", "web", lambda status: reason_of(status, "Progressing") == "DeploymentPaused")
    assert conditions_of(status)["Progressing"] == ("Unknown", "DeploymentPaused", "Deployment is paused")
    kubelet.patch("deployments", "web", {"spec": {"paused": False}})
    kubelet.roll("web", "v2", 2)


def test_scaling_in_the_middle_of_a_rollout_shares_the_pods_out(kubelet: Kubelet) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}}
    kubelet.create("deployments", kubelet.deployment(replicas=4, strategy=rolling))
    kubelet.all_ready(4, app="web")
    kubelet.status("deployments", "web", lambda status: status.get("availableReplicas") == 4)
    kubelet.new_image("web", "v2")
    eventually(lambda: sorted(map(image_of, kubelet.pods(app="web"))) == ["v1"] * 4 + ["v2"] * 2)
    kubelet.patch("deployments", "web", {"spec": {"replicas": 10}})
    # Twelve Pods in the proportion of four to two.
    eventually(lambda: sorted(map(image_of, kubelet.pods(app="web"))) == ["v1"] * 8 + ["v2"] * 4)


def test_the_scale_of_a_deployment_is_followed(kubelet: Kubelet) -> None:
    kubelet.create("deployments", kubelet.deployment(replicas=3))
    pods = kubelet.all_ready(3, app="web")
    kubelet.ready(pods[1], ready=False)
    kubelet.status("deployments", "web", lambda status: status.get("readyReplicas") == 2)
    path = kubelet.path("deployments", "web") + "/scale"
    answer = kubelet.api("PATCH", path, {"spec": {"replicas": 2}}, content_type=MERGE)
    assert answer.status == 200, answer.body
    # The one that is not ready goes first.
    left = {pod["metadata"]["name"] for pod in kubelet.pods(2, app="web")}
    assert left == {pods[0]["metadata"]["name"], pods[2]["metadata"]["name"]}
    eventually(lambda: kubelet.api("GET", path).body["status"]["replicas"] == 2)


def test_a_pod_is_available_after_min_ready_seconds(kubelet: Kubelet) -> None:
    kubelet.create("deployments", kubelet.deployment(replicas=1, minReadySeconds=2))
    kubelet.all_ready(1, app="web")
    status = kubelet.status("deployments", "web", lambda status: status.get("readyReplicas") == 1)
    assert "availableReplicas" not in status
    status = kubelet.status("deployments", "web", lambda status: status.get("availableReplicas") == 1)
    assert reason_of(status, "Progressing") == "NewReplicaSetAvailable"


def test_a_rollout_without_progress_exceeds_its_deadline(kubelet: Kubelet) -> None:
    kubelet.create("deployments", kubelet.deployment(replicas=1, progressDeadlineSeconds=2))
    status = kubelet.status(
        "deployments", "web", lambda status: reason_of(status, "Progressing") == "ProgressDeadlineExceeded"
    )
    (owner,) = kubelet.list("replicasets", app="web")
    message = f'ReplicaSet "{owner["metadata"]["name"]}" has timed out progressing.'
    assert conditions_of(status)["Progressing"] == ("False", "ProgressDeadlineExceeded", message)
    kubelet.all_ready(1, app="web")
    kubelet.status("deployments", "web", lambda status: reason_of(status, "Progressing") == "NewReplicaSetAvailable")


def test_a_pod_that_is_deleted_or_failed_is_replaced(kubelet: Kubelet) -> None:
    kubelet.create("deployments", kubelet.deployment(replicas=2))
    first, second = kubelet.all_ready(2, app="web")
    kubelet.gone(first)
    kubelet.ended(second, 1)
    lost = {first["metadata"]["uid"], second["metadata"]["uid"]}
    eventually(lambda: sum(pod["metadata"]["uid"] not in lost for pod in kubelet.pods(app="web")) == 2)


def test_a_pod_whose_label_changes_is_let_go_and_adopted_again(kubelet: Kubelet) -> None:
    kubelet.create("deployments", kubelet.deployment(replicas=1))
    (pod,) = kubelet.all_ready(1, app="web")
    name = pod["metadata"]["name"]
    kubelet.patch("pods", name, {"metadata": {"labels": {"app": "aside"}}})
    eventually(lambda: "ownerReferences" not in kubelet.get("pods", name)["metadata"])  # type: ignore[index]  # it is there
    (other,) = kubelet.pods(1, app="web")
    kubelet.patch("pods", name, {"metadata": {"labels": {"app": "web"}}})
    # Two for one: the one that is not ready goes.
    eventually(lambda: [pod["metadata"]["name"] for pod in kubelet.pods(app="web")] == [name])
    assert other["metadata"]["name"] != name


def test_what_a_deployment_made_goes_with_it(kubelet: Kubelet) -> None:
    kubelet.create("deployments", kubelet.deployment(replicas=2))
    kubelet.all_ready(2, app="web")
    kubelet.api("DELETE", kubelet.path("deployments", "web"))
    eventually(lambda: kubelet.list("replicasets", app="web") == [])
    eventually(lambda: all("deletionTimestamp" in pod["metadata"] for pod in kubelet.list("pods", app="web")))


def test_events_tell_what_was_done(kubelet: Kubelet) -> None:
    kubelet.create("deployments", kubelet.deployment(replicas=1))
    (pod,) = kubelet.pods(1, app="web")
    (owner,) = kubelet.list("replicasets", app="web")
    name = owner["metadata"]["name"]
    described = eventually(
        lambda: (
            len(
                found := [
                    one for one in kubelet.list("events") if one["reason"] in ("ScalingReplicaSet", "SuccessfulCreate")
                ]
            )
            == 2
            and found
        )
    )
    said = {(one["involvedObject"]["kind"], one["reason"]): one for one in described}
    scaled = said["Deployment", "ScalingReplicaSet"]
    assert scaled["message"] == f"Scaled up replica set {name} from 0 to 1"
    assert (scaled["type"], scaled["count"]) == ("Normal", 1)
    assert scaled["source"] == {"component": "deployment-controller"}
    made = said["ReplicaSet", "SuccessfulCreate"]
    assert made["message"] == f"Created pod: {pod['metadata']['name']}"
    command = [
        KUBECTL,
        "--kubeconfig",
        str(kubelet.api.kubeconfig),
        "-n",
        kubelet.namespace,
        "describe",
        "deployment",
        "web",
    ]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert f"Scaled up replica set {name} from 0 to 1" in text
    assert re.search(r"NewReplicaSet: +" + name, text)
