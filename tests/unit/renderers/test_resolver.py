"""The resolver: what is rendered where a gateway cannot tell audiences apart."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from renderers import routing
from renderers.catalog import Unit
from renderers.manifest import Manifest
from runtime.resolve import Configuration
from tests.unit.renderers.made import NO_FACTS, environment, one
from tests.unit.renderers.made_serving import audience, cluster, header, serving, variation

ASKED = audience("asked", header("Consent", None, "ABSENT"), header("study", "x"), description="Of the study")
GOLD = audience("gold", header("plan", "gold"), priority=1)


def unit(where: Any = None, *, everybody: bool = True, **fields: Any) -> Unit:
    rest: list[dict[str, Any]] = [{}] if everybody else []
    traffic = [{"audience": "asked"}, {"audience": "gold"}, *rest]
    asked = audience("asked", header("Consent", None, "ABSENT"), header("study", "x"), **fields) if fields else ASKED
    return serving(variation(traffic=traffic), audiences=(asked, GOLD), where=where or cluster("envoy-gateway"))


def rendered(where: Any = None, **fields: Any) -> list[Manifest]:
    return routing.render(unit(where, **fields), NO_FACTS)


def test_in_a_cluster_there_are_two_of_it_and_a_budget() -> None:
    made = rendered()

    assert [m.id.kind for m in made] == [
        "ConfigMap",
        "Deployment",
        "Service",
        "PodDisruptionBudget",
        "SecurityPolicy",
        "HTTPRoute",
    ]
    assert one(made, "Deployment")["spec"]["replicas"] == 2


def test_on_a_laptop_there_is_one() -> None:
    made = rendered(environment())

    assert [m.id.kind for m in made] == ["ConfigMap", "Deployment", "Service", "SecurityPolicy", "HTTPRoute"]
    assert one(made, "Deployment")["spec"]["replicas"] == 1


def test_it_reads_the_audiences_in_order_as_the_runtime_does() -> None:
    made = rendered()
    data = one(made, "ConfigMap")["data"]["audiences.json"]

    assert [a.name for a in Configuration.model_validate_json(data).audiences] == ["gold", "asked"]
    assert orjson.loads(data)["model"] == "churn"
    (container,) = one(made, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["resolve", "--port=8080", "--audiences=/etc/trueup/audiences.json"]
    assert container["volumeMounts"] == [{"name": "audiences", "mountPath": "/etc/trueup", "readOnly": True}]


def test_what_it_reads_is_part_of_a_name_and_never_changes() -> None:
    def config_map(**fields: Any) -> Any:
        return one(rendered(**fields), "ConfigMap")

    assert config_map()["immutable"] is True
    assert config_map()["metadata"]["name"].startswith("churn-resolver-")
    assert config_map()["metadata"]["name"] != config_map(priority=7)["metadata"]["name"]
    assert config_map()["metadata"]["name"] == config_map(description="Other words")["metadata"]["name"]
    (volume,) = one(rendered(), "Deployment")["spec"]["template"]["spec"]["volumes"]
    assert volume["configMap"]["name"] == config_map()["metadata"]["name"]


def test_the_gateway_asks_with_the_headers_that_decide_and_takes_one_from_the_answer() -> None:
    spec = one(rendered(), "SecurityPolicy")["spec"]

    assert spec["targetRefs"] == [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "churn"}]
    assert spec["extAuth"] == {
        "http": {
            "backendRefs": [{"group": "", "kind": "Service", "name": "churn-resolver", "port": 80}],
            "headersToBackend": ["x-trueup-audience"],
        },
        "headersToExtAuth": ["consent", "plan", "study"],
        "recomputeRoute": True,
        "failOpen": False,
    }


def test_the_route_waits_for_it() -> None:
    route = rendered()[-1]

    kinds = [(need.kind, need.name) for need in route.needs[-3:]]
    assert kinds == [("Service", "churn-resolver"), ("Deployment", "churn-resolver"), ("SecurityPolicy", "churn")]


@pytest.mark.parametrize("controller", ["istio", "kgateway", "nginx", "unknown"])
def test_another_gateway_gets_no_policy_that_it_does_not_know(controller: str) -> None:
    kinds = [m.id.kind for m in rendered(cluster(controller))]

    assert kinds == ["ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "HTTPRoute"]


def test_where_nobody_takes_everybody_else_the_resolver_says_so() -> None:
    *_, last = one(rendered(everybody=False), "HTTPRoute")["spec"]["rules"]

    assert last["name"] == "nobody"
    assert [backend["name"] for backend in last["backendRefs"]] == ["churn-resolver"]
    (change,) = [f["requestHeaderModifier"] for f in last["filters"]]
    assert change == {"set": [{"name": "x-trueup-audience", "value": "-"}]}
    assert all("headers" not in match for match in last["matches"])


def test_a_gateway_that_can_tell_by_itself_needs_none() -> None:
    made = routing.render(serving(variation(traffic=[{"audience": "gold"}, {}]), audiences=(GOLD,)), NO_FACTS)

    assert [m.id.kind for m in made] == ["HTTPRoute"]
