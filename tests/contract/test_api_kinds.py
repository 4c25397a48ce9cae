"""What is special about some kinds: defaults, rules, subresources."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.contract.client import JSON_PATCH, MERGE, Answer, Api, deployment, eventually

POD_SPEC = {"containers": [{"name": "main", "image": "registry.example/main:1"}]}


def service(name: str, **spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80}]
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": ports, **spec}}


def job(name: str) -> dict[str, Any]:
    template = {"spec": {**POD_SPEC, "restartPolicy": "Never"}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template}}


def test_a_deployment_gets_its_defaults(api: Api, deployments: str) -> None:
    spec = api("POST", deployments, deployment("a")).body["spec"]
    assert (spec["replicas"], spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (1, 10, 600)
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}
    pod = spec["template"]["spec"]
    assert (pod["restartPolicy"], pod["dnsPolicy"], pod["terminationGracePeriodSeconds"]) == (
        "Always",
        "ClusterFirst",
        30,
    )
    assert pod["containers"][0]["imagePullPolicy"] == "IfNotPresent"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"replicas": -1}, "spec.replicas"),
        ({"selector": {"matchLabels": {"app": "another"}}}, "spec.template.metadata.labels"),
        ({"strategy": {"type": "Sideways"}}, "spec.strategy"),
        (
            {"template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": []}}},
            "spec.template.spec.containers",
        ),
    ],
)
def test_a_deployment_that_breaks_a_rule_is_refused(
    api: Api, deployments: str, change: dict[str, Any], field: str
) -> None:
    answer = api("POST", deployments, deployment("a", **change))
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert answer.body["message"].startswith('Deployment.apps "a" is invalid: ')
    assert field in {cause["field"] for cause in answer.body["details"]["causes"]}


def test_a_selector_never_changes(api: Api, deployments: str) -> None:
    api("POST", deployments, deployment("a"))
    change = [
        {"op": "replace", "path": "/spec/selector/matchLabels/app", "value": "b"},
        {"op": "replace", "path": "/spec/template/metadata/labels/app", "value": "b"},
    ]
    answer = api("PATCH", f"{deployments}/a", change, content_type=JSON_PATCH)
    assert answer.status == 422
    assert answer.body["details"]["causes"][0]["field"] == "spec.selector"
    assert "field is immutable" in answer.body["message"]


def test_the_status_subresource_changes_status_alone(api: Api, deployments: str) -> None:
    api("POST", deployments, deployment("a"))

    def write() -> Answer | None:
        body = api("GET", f"{deployments}/a").body
        body["spec"]["replicas"], body["status"] = 9, {"replicas": 2, "observedGeneration": 1}
        answer = api("PUT", f"{deployments}/a/status", body)
        return answer if answer.status == 200 else None

    written = eventually(write)  # a controller may write in between
    assert written is not None
    assert (written.body["spec"]["replicas"], written.body["status"]["replicas"]) == (1, 2)
    assert written.body["metadata"]["generation"] == 1


def test_the_object_itself_does_not_change_its_status(api: Api, deployments: str) -> None:
    body = api("POST", deployments, {**deployment("a"), "status": {"replicas": 7}}).body
    assert "replicas" not in body["status"]
    body = api("PATCH", f"{deployments}/a", {"status": {"replicas": 7}}, content_type=MERGE).body
    assert body["status"].get("replicas") != 7


def test_kinds_without_a_subresource_do_not_serve_it(api: Api, config_maps: str) -> None:
    assert api("GET", f"{config_maps}/a/status").status == 404


def test_scale_reads_and_writes_replicas(api: Api, deployments: str) -> None:
    api("POST", deployments, deployment("a", replicas=3))
    scale = api("GET", f"{deployments}/a/scale").body
    assert (scale["kind"], scale["apiVersion"], scale["spec"]) == ("Scale", "autoscaling/v1", {"replicas": 3})
    assert scale["status"] == {"replicas": 0, "selector": "app=a"}
    scale["spec"]["replicas"] = 4
    del scale["metadata"]["resourceVersion"]  # a controller may write in between
    assert api("PUT", f"{deployments}/a/scale", scale).body["spec"] == {"replicas": 4}
    patched = api("PATCH", f"{deployments}/a/scale", {"spec": {"replicas": 0}}, content_type=MERGE)
    assert (patched.status, patched.body["spec"]) == (200, {})
    assert api("GET", f"{deployments}/a").body["spec"]["replicas"] == 0


def test_scale_is_locked_like_the_object(api: Api, deployments: str) -> None:
    api("POST", deployments, deployment("a"))
    scale = api("GET", f"{deployments}/a/scale").body
    api("PATCH", f"{deployments}/a", {"spec": {"paused": True}}, content_type=MERGE)
    assert api("PUT", f"{deployments}/a/scale", scale).status == 409


def test_scale_refuses_negative_replicas(api: Api, deployments: str) -> None:
    api("POST", deployments, deployment("a"))
    answer = api("PATCH", f"{deployments}/a/scale", {"spec": {"replicas": -1}}, content_type=MERGE)
    assert (answer.status, answer.body["details"]["kind"]) == (422, "Scale")


def test_who_scales_owns_the_replicas(api: Api, deployments: str) -> None:
    api.apply(f"{deployments}/a", deployment("a", replicas=1))
    api("PATCH", f"{deployments}/a/scale?fieldManager=autoscaler", {"spec": {"replicas": 5}}, content_type=MERGE)
    entries = api("GET", f"{deployments}/a").body["metadata"]["managedFields"]
    (entry,) = [entry for entry in entries if entry["manager"] == "autoscaler"]
    assert (entry["subresource"], entry["fieldsV1"]) == ("scale", {"f:spec": {"f:replicas": {}}})
    answer = api.apply(f"{deployments}/a", deployment("a", replicas=1))
    assert answer.status == 409
    assert answer.body["details"]["causes"][0]["field"] == ".spec.replicas"
    assert 'conflict with "autoscaler" with subresource "scale"' in answer.body["message"]


def test_a_service_gets_an_address_of_its_own(api: Api, namespace: str) -> None:
    services = f"/api/v1/namespaces/{namespace}/services"
    specs = [api("POST", services, service(name)).body["spec"] for name in ("a", "b")]
    assert all(re.fullmatch(r"10\.96\.\d+\.\d+", spec["clusterIP"]) for spec in specs)
    assert specs[0]["clusterIP"] != specs[1]["clusterIP"]
    assert specs[0]["clusterIPs"] == [specs[0]["clusterIP"]]
    assert (specs[0]["type"], specs[0]["sessionAffinity"], specs[0]["internalTrafficPolicy"]) == (
        "ClusterIP",
        "None",
        "Cluster",
    )
    assert specs[0]["ports"] == [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 80}]


def test_a_service_keeps_its_address(api: Api, namespace: str) -> None:
    services = f"/api/v1/namespaces/{namespace}/services"
    address = api("POST", services, service("a")).body["spec"]["clusterIP"]
    assert api("PUT", f"{services}/a", service("a", selector={"app": "a"})).body["spec"]["clusterIP"] == address
    assert api.apply(f"{services}/a", service("a"), query="&force=true").body["spec"]["clusterIP"] == address
    answer = api(
        "PATCH",
        f"{services}/a",
        {"spec": {"clusterIP": "10.96.250.250", "clusterIPs": ["10.96.250.250"]}},
        content_type=MERGE,
    )
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")


def test_an_address_that_is_taken_is_refused(api: Api, namespace: str) -> None:
    services = f"/api/v1/namespaces/{namespace}/services"
    address = api("POST", services, service("a")).body["spec"]["clusterIP"]
    answer = api("POST", services, service("b", clusterIP=address))
    assert answer.status == 422
    assert answer.body["details"]["causes"][0]["field"] == "spec.clusterIPs"
    assert "provided IP is already allocated" in answer.body["message"]
    api("DELETE", f"{services}/a")
    assert api("POST", services, service("b", clusterIP=address)).status == 201


def test_a_headless_service_has_no_address(api: Api, namespace: str) -> None:
    spec = api("POST", f"/api/v1/namespaces/{namespace}/services", service("a", clusterIP="None")).body["spec"]
    assert (spec["clusterIP"], spec["clusterIPs"]) == ("None", ["None"])


def test_a_node_port_is_chosen(api: Api, namespace: str) -> None:
    answer = api("POST", f"/api/v1/namespaces/{namespace}/services", service("a", type="NodePort"))
    assert 30000 <= answer.body["spec"]["ports"][0]["nodePort"] <= 32767


def test_a_deleted_service_is_answered_with_itself(api: Api, namespace: str) -> None:
    services = f"/api/v1/namespaces/{namespace}/services"
    api("POST", services, service("a"))
    assert api("DELETE", f"{services}/a").body["kind"] == "Service"


def test_a_job_selects_the_pods_that_it_makes(api: Api, namespace: str) -> None:
    body = api("POST", f"/apis/batch/v1/namespaces/{namespace}/jobs", job("a")).body
    uid = body["metadata"]["uid"]
    assert body["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert body["spec"]["template"]["metadata"]["labels"]["batch.kubernetes.io/job-name"] == "a"
    assert (body["spec"]["backoffLimit"], body["spec"]["completions"], body["spec"]["parallelism"]) == (6, 1, 1)


def test_what_a_job_runs_never_changes(api: Api, namespace: str) -> None:
    jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    api.apply(f"{jobs}/a", job("a"))
    changed = job("a")
    changed["spec"]["template"]["spec"] = {
        **POD_SPEC,
        "restartPolicy": "Never",
        "containers": [{"name": "main", "image": "x"}],
    }
    answer = api.apply(f"{jobs}/a", changed)
    assert answer.status == 422
    assert answer.body["details"]["causes"][0]["field"] == "spec.template"
    assert "field is immutable" in answer.body["message"]
    assert api.apply(f"{jobs}/a", job("a")).status == 200


def test_secrets_take_text_and_keep_base64(api: Api, namespace: str) -> None:
    secrets = f"/api/v1/namespaces/{namespace}/secrets"
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"key": "value"}}
    created = api("POST", secrets, body).body
    assert (created["type"], created["data"], "stringData" in created) == ("Opaque", {"key": "dmFsdWU="}, False)


def test_an_immutable_config_map_never_changes(api: Api, config_maps: str) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1"}, "immutable": True}
    api("POST", config_maps, body)
    answer = api("PATCH", f"{config_maps}/a", {"data": {"k": "2"}}, content_type=MERGE)
    assert answer.status == 422
    assert "field is immutable when `immutable` is set" in answer.body["message"]


def test_a_pod_begins_pending(api: Api, namespace: str) -> None:
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": POD_SPEC}
    created = api("POST", f"/api/v1/namespaces/{namespace}/pods", body).body
    assert created["status"]["phase"] == "Pending"
    assert created["status"]["qosClass"] == "BestEffort"
    assert (created["spec"]["priority"], created["spec"]["preemptionPolicy"]) == (0, "PreemptLowerPriority")


def test_a_pod_that_runs_nowhere_is_deleted_at_once(api: Api, namespace: str) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    api("POST", pods, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": POD_SPEC})
    assert api("DELETE", f"{pods}/a").body["kind"] == "Pod"
    assert api("GET", f"{pods}/a").status == 404


def test_a_pod_that_runs_is_given_time_to_stop(api: Api, namespace: str) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    spec = {**POD_SPEC, "nodeName": "node-1"}
    api("POST", pods, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec})
    answer = api("DELETE", f"{pods}/a")
    assert answer.body["metadata"]["deletionGracePeriodSeconds"] == 30
    assert "deletionTimestamp" in api("GET", f"{pods}/a").body["metadata"]
    assert api("DELETE", f"{pods}/a", {"gracePeriodSeconds": 0}).status == 200
    assert api("GET", f"{pods}/a").status == 404


def test_everybody_may_ask_what_they_may_do(api: Api) -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    review: dict[str, Any] = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    review["spec"] = {
        "resourceAttributes": {"namespace": "default", "verb": "create", "group": "apps", "resource": "deployments"}
    }
    answer = api("POST", path, review)
    assert (answer.status, answer.body["status"]["allowed"]) == (201, True)
    assert api("POST", path, {**review, "spec": {}}).status == 422
    rules = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": "default"},
    }
    answer = api("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", rules)
    assert {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]} in answer.body["status"]["resourceRules"]
