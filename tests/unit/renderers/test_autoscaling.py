"""ScaledObjects: what is asked of Prometheus, and what KEDA does with the answer."""

from __future__ import annotations

from typing import Any

import pytest

from renderers import autoscaling as renderer
from renderers.manifest import Body
from renderers.notes import Refused
from tests.unit.renderers.made import NO_FACTS, environment, one
from tests.unit.renderers.made_serving import PROMETHEUS, cluster, serving, variation

CPU = {"metric_type": "cpu", "aggregation_type": "avg", "time_period": 2, "threshold": 60}
REQUESTS = {"metric_type": "throughput", "aggregation_type": "sum", "time_period": 1, "threshold": 120}


def unit(*triggers: dict[str, Any], where: Any = None, traffic: Any = None, **config: Any) -> Any:
    scaled = {"max_replica_count": 10, "prometheus_trigger": list(triggers) or CPU} | config
    fields = {"deployment": {"auto_scale_config": scaled}} | ({"traffic": traffic} if traffic else {})
    return serving(variation(**fields), where=where)


def spec(*triggers: dict[str, Any], **fields: Any) -> Body:
    made: Body = one(renderer.render(unit(*triggers, **fields), NO_FACTS), "ScaledObject")["spec"]
    return made


def trigger(where: Any = None, minimum: int = 1, **fields: Any) -> Body:
    (made,) = spec(CPU | fields, where=where, min_replica_count=minimum)["triggers"]
    return dict(made)


def test_a_scaled_object_scales_the_deployment_of_its_name() -> None:
    (manifest,) = renderer.render(unit(), NO_FACTS)

    assert manifest.id.kind == "ScaledObject"
    assert manifest.body["spec"]["scaleTargetRef"]["name"] == manifest.id.name
    assert [(needed.kind, needed.name) for needed in manifest.needs][1] == ("Deployment", manifest.id.name)
    assert renderer.render(serving(variation()), NO_FACTS) == []


def test_the_bounds_and_periods_are_those_of_the_spec() -> None:
    made = spec(min_replica_count=2, max_replica_count=7, polling_interval=15, cool_down_period=120)

    assert (made["minReplicaCount"], made["maxReplicaCount"], made["pollingInterval"]) == (2, 7, 15)
    assert made["cooldownPeriod"] == 120
    behavior = made["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == 120
    assert made["fallback"]["replicas"] == 2


def test_a_cool_down_longer_than_kubernetes_has_is_cut_and_told() -> None:
    made = unit(cool_down_period=7200)
    behavior = one(renderer.render(made, NO_FACTS), "ScaledObject")["spec"]["advanced"]["horizontalPodAutoscalerConfig"]

    assert behavior["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 3600
    assert any("of 7200 s is cut to 3600 s" in note.text for note in renderer.notes(made, NO_FACTS))


@pytest.mark.parametrize("metric", ["cpu", "gpu", "memory", "latency", "error_rate", "throughput"])
@pytest.mark.parametrize(
    ("aggregation", "metric_type"), [("avg", "Value"), ("max", "Value"), ("min", "Value"), ("sum", "AverageValue")]
)
def test_a_sum_is_divided_by_the_pods_and_nothing_else_is(metric: str, aggregation: str, metric_type: str) -> None:
    made = trigger(metric_type=metric, aggregation_type=aggregation)

    assert made["metricType"] == metric_type
    assert made["name"] == f"{metric}-{aggregation}"


def test_what_cannot_be_read_is_an_error_and_not_a_zero() -> None:
    metadata = trigger()["metadata"]

    assert metadata["ignoreNullValues"] == "false"
    assert metadata["serverAddress"] == PROMETHEUS


@pytest.mark.parametrize(("threshold", "text"), [(60, "60"), (0.65, "0.65"), (1e6, "1000000"), (1e-7, "1e-07")])
def test_a_threshold_is_text(threshold: float, text: str) -> None:
    assert trigger(threshold=threshold)["metadata"]["threshold"] == text


def test_only_the_pods_of_this_very_deployment_are_asked() -> None:
    query = trigger()["metadata"]["query"]
    name = one(renderer.render(unit(), NO_FACTS), "ScaledObject")["metadata"]["name"]

    assert f'pod=~"{name}-[a-z0-9]{{1,10}}-[a-z0-9]{{5}}"' in query
    assert 'namespace="production"' in query


@pytest.mark.parametrize(("code", "pattern"), [(".*", "[45].."), ("5xx", "5.."), ("429|5..", "429|5..")])
def test_error_codes_are_a_regular_expression(code: str, pattern: str) -> None:
    made = trigger(metric_type="error_rate", error_code=code)

    assert f'code=~"{pattern}"' in made["metadata"]["query"]


def test_a_broken_regular_expression_of_codes_is_refused() -> None:
    with pytest.raises(Refused, match="is no regular expression"):
        trigger(metric_type="error_rate", error_code="[5")


def test_several_triggers_have_names_of_their_own() -> None:
    assert [made["name"] for made in spec(CPU, CPU | {"threshold": 80}, REQUESTS)["triggers"]] == [
        "cpu-avg",
        "cpu-avg-1",
        "throughput-sum-2",
    ]


# --- to zero -----------------------------------------------------------------------------------------------------


def test_what_sleeps_is_woken_by_the_requests_at_the_gateway_alone() -> None:
    made = spec(CPU, REQUESTS, min_replica_count=0)
    cpu, requests = made["triggers"]

    assert "istio_requests_total" in requests["metadata"]["query"]
    assert (requests["metadata"]["activationThreshold"], requests["metadata"]["ignoreNullValues"]) == ("0", "false")
    assert requests["metricType"] == "AverageValue"
    assert float(cpu["metadata"]["activationThreshold"]) > 1e12
    assert cpu["metadata"]["ignoreNullValues"] == "true"
    assert made["fallback"]["replicas"] == 1


def test_what_never_sleeps_is_measured_at_its_pods() -> None:
    assert "trueup_requests_total" in trigger(**REQUESTS)["metadata"]["query"]


@pytest.mark.parametrize(
    ("requests", "controller"), [(REQUESTS, "kgateway"), (REQUESTS | {"aggregation_type": "max"}, "istio")]
)
def test_a_sleep_without_waking_is_refused(requests: dict[str, Any], controller: str) -> None:
    with pytest.raises(Refused, match="nothing would wake it") as caught:
        spec(requests, min_replica_count=0, where=cluster(controller))
    assert caught.value.rule == "autoscaling/never-wakes"


def test_a_shadow_does_not_sleep() -> None:
    with pytest.raises(Refused, match="is a shadow"):
        spec(REQUESTS, min_replica_count=0, traffic=[{"shadow": True}])


# --- environments ------------------------------------------------------------------------------------------------


def test_a_cluster_without_prometheus_is_refused() -> None:
    with pytest.raises(Refused, match="has no prometheus_url") as caught:
        spec(where=cluster(prometheus_url=None))
    assert caught.value.rule == "autoscaling/no-prometheus"


def test_the_prometheus_of_the_embedded_data_plane_is_on_this_machine_unless_it_says_otherwise() -> None:
    def address(**more: object) -> str:
        return str(spec(where=environment(**more))["triggers"][0]["metadata"]["serverAddress"])

    assert address() == "http://127.0.0.1:9090"
    assert address(prometheus_url="http://prometheus.example.com") == "http://prometheus.example.com"


def test_metrics_that_mislead_are_told() -> None:
    memory = unit(CPU | {"metric_type": "memory"})
    latency = unit(CPU | {"metric_type": "latency", "aggregation_type": "sum"})

    assert any("take none away" in note.text for note in renderer.notes(memory, NO_FACTS))
    assert any("1000 is one request in progress" in note.text for note in renderer.notes(latency, NO_FACTS))
