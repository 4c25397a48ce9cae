"""Create, read, replace and delete: what every kind of object has in common."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest

from tests.contract.client import MERGE, Api, config_map, deployment, is_given


def test_a_created_object_gets_a_uid_a_time_and_a_resource_version(api: Api, config_maps: str) -> None:
    answer = api("POST", config_maps, config_map("a", {"key": "value"}))
    assert answer.status == 201
    metadata = answer.body["metadata"]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", metadata["uid"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", metadata["creationTimestamp"])
    assert metadata["resourceVersion"].isdigit()
    assert api("GET", f"{config_maps}/a").body == answer.body


def test_the_client_does_not_choose_what_the_server_owns(api: Api, config_maps: str) -> None:
    given = config_map(
        "a", uid="mine", creationTimestamp="2001-01-01T00:00:00Z", deletionTimestamp="2001-01-01T00:00:00Z"
    )
    metadata = api("POST", config_maps, given).body["metadata"]
    assert metadata["uid"] != "mine"
    assert not metadata["creationTimestamp"].startswith("2001")
    assert "deletionTimestamp" not in metadata


def test_creating_what_is_there_is_a_conflict(api: Api, config_maps: str) -> None:
    api("POST", config_maps, config_map("a"))
    answer = api("POST", config_maps, config_map("a"))
    assert (answer.status, answer.body["reason"]) == (409, "AlreadyExists")
    assert answer.body["message"] == 'configmaps "a" already exists'
    assert answer.body["details"] == {"name": "a", "kind": "configmaps"}


def test_what_is_not_there_is_named(api: Api, deployments: str) -> None:
    answer = api("GET", f"{deployments}/a")
    assert (answer.status, answer.body["reason"]) == (404, "NotFound")
    assert answer.body["message"] == 'deployments.apps "a" not found'
    assert answer.body["details"] == {"name": "a", "group": "apps", "kind": "deployments"}


def test_nothing_is_created_in_a_namespace_that_is_not_there(api: Api) -> None:
    answer = api("POST", "/api/v1/namespaces/not-there/configmaps", config_map("a"))
    assert (answer.status, answer.body["message"]) == (404, 'namespaces "not-there" not found')
    assert answer.body["details"]["kind"] == "namespaces"


def test_a_generated_name_extends_the_prefix(api: Api, config_maps: str) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "run-"}}
    names = {api("POST", config_maps, body).body["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(re.fullmatch(r"run-[a-z0-9]{5}", name) for name in names)


def test_an_object_needs_a_name(api: Api, config_maps: str) -> None:
    answer = api("POST", config_maps, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}})
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert answer.body["message"].endswith("metadata.name: Required value: name or generateName is required")


@pytest.mark.parametrize("name", ["Upper", "under_score", "-dash", "dot.", "a" * 254])
def test_a_name_is_a_dns_subdomain(api: Api, config_maps: str, name: str) -> None:
    answer = api("POST", config_maps, config_map(name))
    assert answer.status == 422
    assert answer.body["details"]["causes"][0]["field"] == "metadata.name"


def test_path_and_object_agree_on_the_namespace(api: Api, config_maps: str) -> None:
    answer = api("POST", config_maps, config_map("a", namespace="another"))
    assert answer.status == 400
    assert (
        answer.body["message"]
        == "the namespace of the provided object does not match the namespace sent on the request"
    )


def test_path_and_object_agree_on_the_name(api: Api, config_maps: str) -> None:
    api("POST", config_maps, config_map("a"))
    answer = api("PUT", f"{config_maps}/a", config_map("b"))
    assert answer.status == 400
    assert answer.body["message"] == "the name of the object (b) does not match the name on the URL (a)"


def test_a_body_may_be_yaml(api: Api, config_maps: str) -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  day: '2024-01-02'\n"
    answer = api("POST", config_maps, text, content_type="application/yaml")
    assert (answer.status, answer.body["data"]) == (201, {"day": "2024-01-02"})


def test_an_answer_may_be_yaml(api: Api, config_maps: str) -> None:
    api("POST", config_maps, config_map("a", {"key": "value"}))
    answer = api("GET", f"{config_maps}/a", accept="application/yaml")
    assert answer.headers["content-type"] == "application/yaml"
    assert "data:\n  key: value\n" in answer.body


@pytest.mark.parametrize(
    ("body", "content_type", "status", "reason"),
    [
        ("{", "application/json", 400, "BadRequest"),
        ("", "application/json", 400, "BadRequest"),
        ("[]", "application/json", 400, "BadRequest"),
        ("{}", "text/plain", 415, "UnsupportedMediaType"),
        ('{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"}}', "application/json", 400, "BadRequest"),
        (
            '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":[]}',
            "application/json",
            400,
            "BadRequest",
        ),
    ],
)
def test_a_body_that_is_no_such_object_is_refused(
    api: Api, config_maps: str, *, body: str, content_type: str, status: int, reason: str
) -> None:
    answer = api("POST", config_maps, body, content_type=content_type)
    assert (answer.status, answer.body["reason"]) == (status, reason)


def test_a_body_of_more_than_three_mebibytes_is_refused(api: Api, config_maps: str) -> None:
    answer = api("POST", config_maps, config_map("a", {"key": "x" * (3 << 20)}))
    assert (answer.status, answer.body["reason"]) == (413, "RequestEntityTooLarge")


def test_strict_validation_refuses_unknown_and_duplicate_fields(api: Api, config_maps: str) -> None:
    body = (
        '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","color":"red"},"data":{"k":"1","k":"2"},"size":1}'
    )
    answer = api("POST", f"{config_maps}?fieldValidation=Strict", body)
    assert (answer.status, answer.body["reason"]) == (400, "BadRequest")
    for problem in ('unknown field "metadata.color"', 'duplicate field "data.k"', 'unknown field "size"'):
        assert problem in answer.body["message"]


def test_unknown_fields_are_a_warning_by_default_and_are_dropped(api: Api, config_maps: str) -> None:
    answer = api("POST", config_maps, {**config_map("a"), "size": 1})
    assert answer.status == 201
    assert answer.headers["warning"] == '299 - "unknown field \\"size\\""'
    assert "size" not in answer.body


def test_unknown_fields_can_be_ignored(api: Api, config_maps: str) -> None:
    answer = api("POST", f"{config_maps}?fieldValidation=Ignore", {**config_map("a"), "size": 1})
    assert (answer.status, "warning" in answer.headers) == (201, False)


def test_a_dry_run_answers_as_if_and_writes_nothing(api: Api, config_maps: str) -> None:
    answer = api("POST", f"{config_maps}?dryRun=All", config_map("a", {"key": "value"}))
    assert (answer.status, answer.body["data"]) == (201, {"key": "value"})
    assert answer.body["metadata"]["uid"]
    assert "resourceVersion" not in answer.body["metadata"]
    assert api("GET", f"{config_maps}/a").status == 404


def test_a_dry_run_of_a_change_writes_nothing(api: Api, config_maps: str) -> None:
    created = api("POST", config_maps, config_map("a", {"key": "1"})).body
    answer = api("PUT", f"{config_maps}/a?dryRun=All", config_map("a", {"key": "2"}))
    assert (answer.status, answer.body["data"]) == (200, {"key": "2"})
    assert api("GET", f"{config_maps}/a").body == created
    assert api("DELETE", f"{config_maps}/a?dryRun=All").status == 200
    assert api("GET", f"{config_maps}/a").body == created


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("dryRun=Some", "dryRun"),
        ("fieldValidation=Loose", "fieldValidation"),
        (f"fieldManager={'x' * 129}", "fieldManager"),
    ],
)
def test_options_that_are_none_are_refused(api: Api, config_maps: str, query: str, field: str) -> None:
    answer = api("POST", f"{config_maps}?{query}", config_map("a"))
    assert (answer.status, answer.body["details"]["kind"]) == (422, "CreateOptions")
    assert answer.body["details"]["causes"][0]["field"] == field


def test_replacing_changes_everything_but_what_the_server_owns(api: Api, config_maps: str) -> None:
    created = api("POST", config_maps, config_map("a", {"old": "1"}, labels={"x": "y"})).body
    replaced = api("PUT", f"{config_maps}/a", config_map("a", {"new": "2"})).body
    assert replaced["data"] == {"new": "2"}
    assert "labels" not in replaced["metadata"]
    assert int(replaced["metadata"]["resourceVersion"]) > int(created["metadata"]["resourceVersion"])
    for owned in ("uid", "creationTimestamp"):
        assert replaced["metadata"][owned] == created["metadata"][owned]


def test_replacing_with_the_same_changes_nothing(api: Api, config_maps: str) -> None:
    created = api("POST", config_maps, config_map("a", {"key": "1"})).body
    assert api("PUT", f"{config_maps}/a", created).body == created


def test_replacing_what_has_changed_since_is_a_conflict(api: Api, config_maps: str) -> None:
    first = api("POST", config_maps, config_map("a", {"key": "1"})).body
    api("PUT", f"{config_maps}/a", config_map("a", {"key": "2"}))
    answer = api("PUT", f"{config_maps}/a", first)
    assert (answer.status, answer.body["reason"]) == (409, "Conflict")
    assert answer.body["message"] == (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified;'
        " please apply your changes to the latest version and try again"
    )


def test_replacing_another_incarnation_is_a_conflict(api: Api, config_maps: str) -> None:
    api("POST", config_maps, config_map("a"))
    answer = api("PUT", f"{config_maps}/a", config_map("a", uid="another"))
    assert (answer.status, answer.body["reason"]) == (409, "Conflict")
    assert "Precondition failed: UID in precondition: another" in answer.body["message"]


def test_replacing_creates_no_config_map(api: Api, config_maps: str) -> None:
    assert api("PUT", f"{config_maps}/a", config_map("a")).status == 404


def test_replacing_creates_a_lease(api: Api, namespace: str) -> None:
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "a"}, "spec": {}}
    assert api("PUT", f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/a", body).status == 201


def test_of_many_who_take_a_lease_one_wins(api: Api, namespace: str) -> None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/leader"
    free: dict[str, Any] = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "leader"},
        "spec": {},
    }
    free = api("PUT", path, free).body
    answers: dict[str, int] = {}
    ready = threading.Barrier(6)

    def take(holder: str) -> None:
        client = api.another()
        ready.wait()
        answers[holder] = client("PUT", path, {**free, "spec": {"holderIdentity": holder}}).status
        client.close()

    threads = [threading.Thread(target=take, args=(f"replica-{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers.values()) == [200, 409, 409, 409, 409, 409]
    (winner,) = [holder for holder, status in answers.items() if status == 200]
    assert api("GET", path).body["spec"]["holderIdentity"] == winner


def test_a_lease_is_not_replaced_blindly(api: Api, namespace: str) -> None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/leader"
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "leader"}, "spec": {}}
    api("PUT", path, body)
    answer = api("PUT", path, body)
    assert answer.status == 422
    assert answer.body["message"].endswith(
        "metadata.resourceVersion: Invalid value: 0: must be specified for an update"
    )


def test_a_deletion_is_answered_with_the_uid(api: Api, config_maps: str) -> None:
    uid = api("POST", config_maps, config_map("a")).body["metadata"]["uid"]
    answer = api("DELETE", f"{config_maps}/a")
    assert (answer.status, answer.body["status"]) == (200, "Success")
    assert answer.body["details"] == {"name": "a", "kind": "configmaps", "uid": uid}
    assert api("GET", f"{config_maps}/a").status == 404
    assert api("DELETE", f"{config_maps}/a").status == 404


@pytest.mark.parametrize("precondition", [{"uid": "another"}, {"resourceVersion": "1"}])
def test_a_deletion_checks_its_preconditions(api: Api, config_maps: str, precondition: dict[str, str]) -> None:
    api("POST", config_maps, config_map("a"))
    options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": precondition}
    answer = api("DELETE", f"{config_maps}/a", options)
    assert (answer.status, answer.body["reason"]) == (409, "Conflict")
    assert "in the precondition" in answer.body["message"]
    assert api("GET", f"{config_maps}/a").status == 200


def test_a_deletion_whose_preconditions_hold_happens(api: Api, config_maps: str) -> None:
    metadata = api("POST", config_maps, config_map("a")).body["metadata"]
    preconditions = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
    assert api("DELETE", f"{config_maps}/a", {"preconditions": preconditions}).status == 200


def test_a_collection_is_deleted_by_selector(api: Api, config_maps: str) -> None:
    for name, tier in (("a", "front"), ("b", "back"), ("c", "front")):
        api("POST", config_maps, config_map(name, labels={"tier": tier}))
    answer = api("DELETE", f"{config_maps}?labelSelector=tier=front")
    assert answer.status == 200
    assert [item["metadata"]["name"] for item in answer.body["items"]] == ["a", "c"]
    left = {item["metadata"]["name"] for item in api("GET", config_maps).body["items"]}
    assert {name for name in left if not is_given(name)} == {"b"}


@pytest.mark.parametrize(("method", "path"), [("PUT", ""), ("PATCH", ""), ("POST", "/a")])
def test_a_verb_that_a_path_does_not_know_is_refused(api: Api, config_maps: str, method: str, path: str) -> None:
    answer = api(method, f"{config_maps}{path}", config_map("a"))
    assert (answer.status, answer.body["reason"]) == (405, "MethodNotAllowed")


def test_generation_counts_changes_of_what_is_wanted(api: Api, deployments: str) -> None:
    assert api("POST", deployments, deployment("a")).body["metadata"]["generation"] == 1
    labelled = api("PATCH", f"{deployments}/a", {"metadata": {"labels": {"x": "y"}}}, content_type=MERGE)
    assert labelled.body["metadata"]["generation"] == 1
    scaled = api("PATCH", f"{deployments}/a", {"spec": {"replicas": 5}}, content_type=MERGE)
    assert scaled.body["metadata"]["generation"] == 2
