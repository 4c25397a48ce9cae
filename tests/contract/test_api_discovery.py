"""How clients find out what is served, and who may ask."""

from __future__ import annotations

import pytest

from tests.contract.client import Api

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def test_all_resources_come_in_two_answers(api: Api) -> None:
    core = api("GET", "/api", accept=AGGREGATED)
    assert core.headers["content-type"].startswith("application/json;g=apidiscovery.k8s.io;v=v2")


@pytest.mark.parametrize("path", ["/api", "/apis"])
def test_aggregated_discovery_describes_each_resource(api: Api, path: str) -> None:
    document = api("GET", path, accept=AGGREGATED).body
    assert (document["kind"], document["apiVersion"]) == ("APIGroupDiscoveryList", "apidiscovery.k8s.io/v2")
    found = {
        (group["metadata"].get("name", ""), version["version"], resource["resource"]): resource
        for group in document["items"]
        for version in group["versions"]
        for resource in version["resources"]
    }
    if path == "/api":
        resource = found["", "v1", "configmaps"]
        assert (resource["shortNames"], resource["singularResource"], resource["scope"]) == (
            ["cm"],
            "configmap",
            "Namespaced",
        )
    else:
        resource = found["apps", "v1", "deployments"]
        assert resource["categories"] == ["all"]
        assert [item["subresource"] for item in resource["subresources"]] == ["scale", "status"]
        assert {"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"} == set(
            resource["verbs"]
        )


def test_groups_and_versions_can_be_asked_one_by_one(api: Api) -> None:
    assert api("GET", "/api").body["versions"] == ["v1"]
    groups = {group["name"]: group for group in api("GET", "/apis").body["groups"]}
    assert groups["apps"]["preferredVersion"] == {"groupVersion": "apps/v1", "version": "v1"}
    assert api("GET", "/apis/apps").body["versions"] == [{"groupVersion": "apps/v1", "version": "v1"}]
    resources = {item["name"]: item for item in api("GET", "/apis/apps/v1").body["resources"]}
    assert resources["deployments"]["kind"] == "Deployment"
    assert (resources["deployments/scale"]["kind"], resources["deployments/scale"]["group"]) == ("Scale", "autoscaling")


@pytest.mark.parametrize("path", ["/nothing", "/apis/nothing.example.com", "/apis/nothing.example.com/v1/things"])
def test_what_is_not_served_is_not_found(api: Api, path: str) -> None:
    answer = api("GET", path)
    assert (answer.status, answer.body) == (404, "404 page not found\n")


def test_a_kind_that_a_group_does_not_have_is_not_found(api: Api) -> None:
    answer = api("GET", "/apis/apps/v1/nothings")
    assert (answer.status, answer.body["message"]) == (404, "the server could not find the requested resource")


def test_open_api_describes_each_kind(api: Api) -> None:
    url = api("GET", "/openapi/v3").body["paths"]["apis/apps/v1"]["serverRelativeURL"]
    document = api("GET", url).body
    schemas = document["components"]["schemas"]
    deployment = schemas["io.k8s.api.apps.v1.Deployment"]
    assert deployment["x-kubernetes-group-version-kind"] == [{"group": "apps", "kind": "Deployment", "version": "v1"}]
    ports = schemas["io.k8s.api.core.v1.Container"]["properties"]["ports"]
    assert ports["x-kubernetes-list-map-keys"] == ["containerPort", "protocol"]
    patch = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert {"dryRun", "fieldManager", "fieldValidation", "force"} <= {item["name"] for item in patch["parameters"]}


def test_the_version_is_told(api: Api) -> None:
    version = api("GET", "/version").body
    assert (version["major"], version["gitVersion"].startswith(f"v1.{version['minor']}.")) == ("1", True)


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
def test_health_can_be_asked(api: Api, path: str) -> None:
    answer = api("GET", path)
    assert (answer.status, answer.body) == (200, "ok")


@pytest.mark.parametrize("authorization", ["Bearer wrong", "Bearer ", "Basic YTpi", ""])
def test_nobody_without_the_token_is_let_in(api: Api, authorization: str) -> None:
    for path in ("/api/v1/namespaces", "/apis", "/openapi/v3"):
        answer = api("GET", path, headers={"Authorization": authorization})
        assert answer.status in (401, 403)
        assert answer.body["kind"] == "Status"
