from __future__ import annotations

from decimal import Decimal
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderers.manifest import Origin
from renderers.notes import Refused
from renderers.resources import (
    INSTANCES,
    Placement,
    build_placement,
    cpu_quantity,
    memory_quantity,
    serving_placement,
)
from schemas.base import GpuType
from schemas.environment import Defaults
from schemas.resources import Resources
from schemas.variation import DeploymentSpecification

ORIGIN = Origin("builds.yaml", 3, "build", "churn-1")
BYTES = {"": 1, "Ki": 1024, "Mi": 1024**2, "Gi": 1024**3, "Ti": 1024**4, "Pi": 1024**5, "Ei": 1024**6}


def for_build(purchase_option: str = "spot", defaults: Any = None, **resources: Any) -> Placement:
    return build_placement(
        Resources.model_validate(resources), purchase_option, Defaults.model_validate(defaults or {}), ORIGIN
    )


def for_serving(defaults: Any = None, **deployment: Any) -> Placement:
    return serving_placement(
        DeploymentSpecification.model_validate(deployment), Defaults.model_validate(defaults or {}), ORIGIN
    )


def required_terms(placement: Placement) -> list[list[dict[str, Any]]]:
    assert placement.affinity is not None
    required = placement.affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return [term["matchExpressions"] for term in required["nodeSelectorTerms"]]


def test_a_build_that_says_nothing_gets_two_cores_and_four_gibibytes() -> None:
    assert for_build().resources == {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "4Gi"}}


def test_a_deployment_that_says_nothing_gets_two_cores_and_two_gibibytes() -> None:
    assert for_serving().resources == {"requests": {"cpu": "2", "memory": "2Gi"}, "limits": {"memory": "2Gi"}}


def test_memory_is_limited_to_the_request_and_cpu_is_not_limited() -> None:
    placement = for_serving(cpu_fraction=0.5, memory="512Mi")

    assert placement.resources["limits"] == {"memory": "512Mi"}
    assert placement.resources["requests"] == {"cpu": "500m", "memory": "512Mi"}


def test_gpus_are_whole_and_their_limit_is_the_request() -> None:
    placement = for_build(gpu_type="NVIDIA_T4", gpu_amount=2)

    assert placement.gpus == 2
    assert placement.resources["requests"]["nvidia.com/gpu"] == placement.resources["limits"]["nvidia.com/gpu"] == "2"
    assert placement.resources["requests"]["cpu"] == "6"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in (placement.tolerations or [])


def test_an_instance_wins_over_gpus_and_gpus_win_over_cpu_and_memory() -> None:
    gpu = {"gpu_resources": {"gpu_type": "NVIDIA_T4"}, "cpu_fraction": 7.0, "memory": "1Gi"}

    assert for_serving(**gpu).resources["requests"] == {"cpu": "3", "memory": "14Gi", "nvidia.com/gpu": "1"}
    assert for_serving(**gpu, instance="tiny").resources["requests"] == {"cpu": "1", "memory": "2Gi"}


def test_an_instance_of_the_environment_comes_before_the_platforms_own() -> None:
    own = {"instance_templates": {"small": {"cpu": 3, "memory": "5Gi", "node_selector": {"pool": "a"}}}}
    placement = for_build(instance="small", defaults=own | {"node_selector": {"pool": "b", "zone": "c"}})

    assert placement.resources["requests"] == {"cpu": "3", "memory": "5Gi"}
    assert placement.node_selector == {"pool": "a", "zone": "c"}


def test_an_unknown_instance_is_refused_with_those_that_exist() -> None:
    with pytest.raises(Refused, match=r"builds\.yaml:3: the environment has no instance 'smal'") as refused:
        for_build(instance="smal", defaults={"instance_templates": {"mine": {"cpu": 1, "memory": "1Gi"}}})
    assert refused.value.rule == "resources/unknown-instance"
    assert "mine" in refused.value.hint
    assert "small" in refused.value.hint


@pytest.mark.parametrize("name", INSTANCES)
def test_every_instance_of_the_platform_can_be_asked_for(name: str) -> None:
    placement = for_serving(instance=name)

    assert placement.gpus == INSTANCES[name].gpus
    assert placement.resources["limits"]["memory"] == INSTANCES[name].memory


@pytest.mark.parametrize("gpu_type", get_args(GpuType))
def test_every_gpu_has_a_size_and_labels_to_find_it_by(gpu_type: str) -> None:
    placement = for_build(gpu_type=gpu_type)

    assert placement.gpus >= 1
    assert Decimal(placement.resources["requests"]["cpu"]) >= 1
    keys = [term[0]["key"] for term in required_terms(placement)]
    assert keys[:2] == ["trueup.dev/gpu", "nvidia.com/gpu.product"]


def test_a_type_that_names_a_machine_gets_what_the_machine_leaves_to_pods() -> None:
    placement = for_build(gpu_type="NVIDIA_V100_4_32_208")

    assert placement.resources["requests"] == {"cpu": "31", "memory": "187Gi", "nvidia.com/gpu": "4"}


def test_spot_is_a_wish_and_tolerated() -> None:
    placement = for_build("spot")

    assert placement.affinity is not None
    assert list(placement.affinity["nodeAffinity"]) == ["preferredDuringSchedulingIgnoredDuringExecution"]
    assert "kubernetes.azure.com/scalesetpriority" in {toleration["key"] for toleration in placement.tolerations or []}


def test_on_demand_is_a_demand_that_nodes_without_labels_fulfil() -> None:
    placement = for_build("ondemand")
    (term,) = required_terms(placement)

    assert {"key": "karpenter.sh/capacity-type", "operator": "NotIn", "values": ["spot"]} in term
    assert {expression["operator"] for expression in term} == {"NotIn"}
    assert placement.tolerations is None


def test_an_on_demand_gpu_is_demanded_in_every_alternative() -> None:
    for term in required_terms(for_build("ondemand", gpu_type="NVIDIA_T4")):
        assert [expression["operator"] for expression in term] == ["In"] + ["NotIn"] * 5


def test_tolerations_of_the_environment_are_kubernetes_tolerations() -> None:
    taint = {"key": "dedicated", "value": "ml", "effect": "NoExecute", "toleration_seconds": 60}
    placement = for_build("ondemand", defaults={"tolerations": [taint]})

    assert placement.tolerations == [
        {"key": "dedicated", "operator": "Equal", "value": "ml", "effect": "NoExecute", "tolerationSeconds": 60}
    ]


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("2048Mi", "2Gi"),
        ("1.5Gi", "1536Mi"),
        ("512Mi", "512Mi"),
        ("1000Mi", "1000Mi"),
        ("0.3Ki", "308"),
        ("1Ti", "1Ti"),
    ],
)
def test_memory_is_written_as_kubernetes_writes_it_back(written: str, canonical: str) -> None:
    assert memory_quantity(written) == canonical


@given(st.integers(1, 10**6), st.integers(0, 999), st.sampled_from(["Ki", "Mi", "Gi", "Ti"]))
def test_memory_is_never_less_than_was_asked_for_and_less_than_a_byte_more(whole: int, part: int, unit: str) -> None:
    asked = Decimal(f"{whole}.{part:03}") * BYTES[unit]
    written = memory_quantity(f"{whole}.{part:03}{unit}")
    number, made_unit = written.rstrip("KMGTPEi"), written.lstrip("0123456789")

    assert 0 <= int(number) * BYTES[made_unit] - asked < 1


@pytest.mark.parametrize(("cores", "quantity"), [(2.0, "2"), (0.5, "500m"), (0.05, "50m"), (1.25, "1250m")])
def test_cores_are_written_as_kubernetes_writes_them_back(cores: float, quantity: str) -> None:
    assert cpu_quantity(cores) == quantity
