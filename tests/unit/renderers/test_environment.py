from __future__ import annotations

from typing import Any

import pytest

from renderers import environment as renderer
from renderers.catalog import Unit
from renderers.manifest import Manifest
from tests.unit.renderers.made import ROLE, environment, one


def rendered(**fields: Any) -> list[Manifest]:
    return renderer.render(Unit(environment(**fields), ""))


def policy(name: str, /, **fields: Any) -> Any:
    (body,) = [manifest.body for manifest in rendered(**fields) if manifest.id.name == name]
    return body["spec"]


def gateway_namespaces(**fields: Any) -> list[Any]:
    http, _ = policy("trueup-serving", **fields)["ingress"]
    return http["from"]


def test_the_namespace_comes_first_and_everything_else_needs_it() -> None:
    namespace, *others = rendered(namespace="ml")

    assert namespace.id.kind == "Namespace"
    assert namespace.needs == ()
    assert {manifest.needs for manifest in others} == {(namespace.id,)}
    assert {manifest.id.namespace for manifest in others} == {"ml"}


def test_the_namespace_admits_restricted_pods_only() -> None:
    labels = one(rendered(), "Namespace")["metadata"]["labels"]

    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert labels["app.kubernetes.io/managed-by"] == "trueup"


def test_the_account_of_builds_assumes_the_role_of_the_environment_and_has_no_token() -> None:
    account = one(rendered(defaults={"iam_role_arn": ROLE}), "ServiceAccount")

    assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"] == ROLE
    assert account["automountServiceAccountToken"] is False


def test_without_a_role_there_is_no_annotation_of_one() -> None:
    annotations = one(rendered(), "ServiceAccount")["metadata"]["annotations"]

    assert annotations == {"trueup.dev/spec": "environment/production"}


def test_the_quota_bounds_pods_builds_and_what_is_given() -> None:
    quota = {"cpu": 1.5, "memory": "2048Gi", "gpu": 0, "pods": 7, "builds": 9}

    assert one(rendered(quota=quota), "ResourceQuota")["spec"]["hard"] == {
        "pods": "7",
        "count/jobs.batch": "9",
        "requests.cpu": "1500m",
        "requests.memory": "2Ti",
        "requests.nvidia.com/gpu": "0",
    }
    assert one(rendered(), "ResourceQuota")["spec"]["hard"] == {"pods": "500", "count/jobs.batch": "200"}


def test_nothing_comes_in_to_a_build() -> None:
    spec = policy("trueup-builds")

    assert "ingress" not in spec
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "build"


@pytest.mark.parametrize("name", ["trueup-builds", "trueup-serving"])
def test_pods_reach_everything_but_the_credentials_of_their_node(name: str) -> None:
    (egress,) = policy(name)["egress"]

    assert [block["ipBlock"].get("except") for block in egress["to"][1:]] == [
        ["169.254.169.254/32"],
        ["fd00:ec2::254/128"],
    ]


def test_predictions_come_from_the_namespaces_of_the_gateway() -> None:
    def named(*names: str) -> list[Any]:
        return [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}} for name in names]

    assert gateway_namespaces(gateway={"namespace": "gateways", "controller": "istio"}) == named("gateways")
    assert gateway_namespaces(namespace="ml", gateway={"controller": "kgateway"}) == named("ml")
    assert gateway_namespaces(gateway={"namespace": "gateways", "controller": "envoy-gateway"}) == named(
        "envoy-gateway-system", "gateways"
    )
    assert gateway_namespaces(name="local") == named("local")


def test_with_a_controller_that_nobody_knows_predictions_come_from_the_whole_cluster() -> None:
    assert gateway_namespaces(data_plane="kubernetes", object_storage="s3://models") == [{"namespaceSelector": {}}]


def test_metrics_are_read_from_the_whole_cluster() -> None:
    _, metrics = policy("trueup-serving")["ingress"]

    assert metrics == {"from": [{"namespaceSelector": {}}], "ports": [{"port": 9090, "protocol": "TCP"}]}


def test_a_suspended_environment_is_rendered_and_says_so() -> None:
    unit = Unit(environment(suspended=True), "")

    assert [manifest.id for manifest in renderer.render(unit)] == [manifest.id for manifest in rendered()]
    assert [note.text for note in renderer.notes(unit)] == [
        "environment production is suspended: nothing in it is changed or removed"
    ]
    assert renderer.notes(Unit(environment(), "")) == []
