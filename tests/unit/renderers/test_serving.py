"""The pods that answer predictions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from renderers import serving as renderer
from renderers.identity import identify
from renderers.manifest import Body
from tests.unit.renderers.made import NO_FACTS, ROLE, build, one
from tests.unit.renderers.made_serving import audience, cluster, implied_by_an_automation, serving, variation

SCALED = {
    "max_replica_count": 5,
    "prometheus_trigger": {"metric_type": "cpu", "aggregation_type": "avg", "time_period": 2, "threshold": 60},
}
SHORT = identify(build().spec, NO_FACTS).short


def deployment(where: Any = None, traffic: Any = None, build_fields: Any = None, **fields: Any) -> Body:
    placed = variation(deployment=fields, **({"traffic": traffic} if traffic else {}))
    unit = serving(placed, where=where, audiences=(audience("vip"),), **(build_fields or {}))
    return one(renderer.render(unit, NO_FACTS), "Deployment")


def pod(**fields: Any) -> Body:
    spec: Body = deployment(**fields)["spec"]["template"]["spec"]
    return spec


def container(**fields: Any) -> Body:
    (body,) = pod(**fields)["containers"]
    return body


def values(**fields: Any) -> dict[str, Any]:
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container(**fields)["env"]}


def test_the_objects_of_a_build_carry_its_id_so_that_the_next_one_stands_beside_it() -> None:
    manifests = renderer.render(serving(variation()), NO_FACTS)

    assert [str(manifest.id) for manifest in manifests] == [
        "ServiceAccount/production/churn-serving",
        f"Deployment/production/churn-default-{SHORT}",
        f"Service/production/churn-default-{SHORT}",
        f"PodDisruptionBudget/production/churn-default-{SHORT}",
    ]
    annotations = deployment()["metadata"]["annotations"]
    assert annotations["trueup.dev/lineage"] == "variation/churn/default"
    assert annotations["trueup.dev/spec"] == "variation/churn/default"
    assert "trueup.dev/provisional" not in annotations


def test_what_serves_a_build_of_an_unknown_commit_is_marked_and_told() -> None:
    made = deployment(build_fields={"git_branch": "main"})
    unit = serving(variation(), git_branch="main")

    assert made["metadata"]["annotations"]["trueup.dev/provisional"] == "true"
    assert renderer.notes(unit, NO_FACTS) == []  # the note of the build says it, where the build runs here
    (note,) = renderer.notes(replace(unit, runs_here=frozenset()), NO_FACTS)
    assert "is provisional" in note.text


def test_the_selector_holds_nothing_that_changes_while_the_name_stays() -> None:
    made = deployment()

    assert made["spec"]["selector"]["matchLabels"] == {
        "app.kubernetes.io/name": "churn",
        "app.kubernetes.io/instance": f"churn-default-{SHORT}",
    }
    assert made["spec"]["selector"]["matchLabels"].items() <= made["spec"]["template"]["metadata"]["labels"].items()
    service = one(renderer.render(serving(variation()), NO_FACTS), "Service")
    assert service["spec"]["selector"] == made["spec"]["selector"]["matchLabels"]


def test_the_number_of_pods_is_left_to_keda_where_it_scales() -> None:
    assert deployment()["spec"]["replicas"] == 2
    assert deployment(number_of_pods=7)["spec"]["replicas"] == 7
    assert "replicas" not in deployment(auto_scale_config=SCALED)["spec"]


def test_the_server_is_told_how_to_serve() -> None:
    arguments = container(
        number_of_http_server_workers=4, http_request_timeout_ms=1500, max_batch_size=32, daemon_mode=True
    )["args"]

    assert arguments[0] == "serve"
    assert {"--workers=4", "--timeout-ms=1500", "--max-batch-size=32", "--preload"} <= set(arguments)
    assert "--preload" not in container()["args"]


def test_variables_of_the_deployment_win_over_the_builds_and_those_over_the_environments() -> None:
    made = values(
        where=cluster(defaults={"env_vars": {"A": "environment", "B": "environment", "C": "environment"}}),
        build_fields={"env_vars": {"B": "build", "C": "build"}},
        env_vars={"C": "deployment", "KEY": "secret.api.token", "POD_NAME": "mine", "TRUEUP_MODEL": "mine"},
    )

    assert (made["A"], made["B"], made["C"]) == ("environment", "build", "deployment")
    assert made["KEY"] == {"secretKeyRef": {"name": "api", "key": "token"}}
    assert made["TRUEUP_MODEL"] == "churn"
    assert made["POD_NAME"]["fieldRef"]["fieldPath"] == "metadata.name"


def test_no_variable_is_there_twice() -> None:
    names = [item["name"] for item in container(env_vars={"POD_NAME": "mine", "HOME": "/mine"})["env"]]

    assert len(set(names)) == len(names)


def test_a_pod_gets_time_for_its_longest_request_before_it_is_killed() -> None:
    made = pod(http_request_timeout_ms=60_000)
    drain = made["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]

    assert made["terminationGracePeriodSeconds"] >= drain + 60 + 10


@pytest.mark.parametrize(("timeout", "expected"), [(0, 1800), (600, 600), (1, 20)])
def test_a_model_may_load_as_long_as_its_deployment_may_take(timeout: int, expected: int) -> None:
    spec = deployment(deployment_timeout=timeout)["spec"]
    probe = spec["template"]["spec"]["containers"][0]["startupProbe"]

    assert spec["progressDeadlineSeconds"] == expected > spec["minReadySeconds"]
    assert probe["failureThreshold"] * probe["periodSeconds"] >= expected


def test_a_shadow_knows_that_it_is_one_and_may_be_drained() -> None:
    shadow = [{"weight": 20, "shadow": True}]
    unit = serving(variation(traffic=shadow), variation("main", traffic=[{"weight": 100}]))
    manifests = renderer.render(unit, NO_FACTS)

    assert "--shadow" in container(traffic=shadow)["args"]
    assert "--shadow" not in container(traffic=[*shadow, {"audience": "vip", "weight": 100}])["args"]
    budgets = [manifest.id.name for manifest in manifests if manifest.id.kind == "PodDisruptionBudget"]
    assert budgets == [f"churn-main-{SHORT}"]


def test_an_image_of_the_users_own_gets_the_runtime() -> None:
    made = pod(build_fields={"base_image": "registry.example.com/base:1"})

    assert made["containers"][0]["image"] == "registry.example.com/base:1"
    assert made["initContainers"][0]["image"].startswith("ghcr.io/trueup/server:")
    assert "initContainers" not in pod()


def test_gpus_bring_the_image_for_them() -> None:
    made = container(gpu_resources={"gpu_type": "NVIDIA_T4"})

    assert made["image"].startswith("ghcr.io/trueup/server-gpu:")
    assert made["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_a_role_of_its_own_is_an_account_of_its_own() -> None:
    unit = serving(
        variation(),
        variation("other", deployment={"custom_iam_role_arn": ROLE}),
        where=cluster(defaults={"iam_role_arn": ROLE.replace("churn", "all")}),
    )
    accounts = {
        manifest.id.name: manifest.body["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
        for manifest in renderer.render(unit, NO_FACTS)
        if manifest.id.kind == "ServiceAccount"
    }

    assert len(accounts) == 2
    assert accounts.pop("churn-serving") == ROLE.replace("churn", "all")
    assert set(accounts.values()) == {ROLE}


def test_pods_of_one_build_with_one_hash_were_told_the_same() -> None:
    def told(**fields: Any) -> str:
        return str(deployment(**fields)["spec"]["template"]["metadata"]["annotations"]["trueup.dev/config-hash"])

    assert told() == told(number_of_pods=9)
    assert told() != told(env_vars={"A": "b"})
    assert told() != told(number_of_http_server_workers=3)


def test_what_needs_something_comes_after_it() -> None:
    seen = {serving(variation()).environment.spec.name}
    for manifest in renderer.render(serving(variation()), NO_FACTS):
        assert {needed.name for needed in manifest.needs} <= seen
        seen.add(manifest.id.name)


def test_a_variation_whose_automation_promoted_nothing_is_not_served_and_the_plan_says_so() -> None:
    unit = implied_by_an_automation()

    assert renderer.render(unit, NO_FACTS) == []
    (note,) = renderer.notes(unit, NO_FACTS)
    assert note.text == (
        "variation default of churn is not served in production: automation nightly has promoted no build there yet"
    )
