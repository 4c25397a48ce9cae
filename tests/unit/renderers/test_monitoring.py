"""What Prometheus scrapes and alerts on, and what Grafana shows."""

from __future__ import annotations

import json
from typing import Any

from renderers import monitoring as renderer
from renderers.manifest import Body
from tests.unit.renderers.made import NO_FACTS, one
from tests.unit.renderers.made_serving import cluster, implied_by_an_automation, serving, variation


def made(kind: str, *variations: Any) -> Body:
    return one(renderer.render(serving(*variations or (variation(),)), NO_FACTS), kind)


def alerts(*variations: Any) -> list[Body]:
    (group,) = made("PrometheusRule", *variations)["spec"]["groups"]
    rules: list[Body] = group["rules"]
    return rules


def test_a_model_has_one_of_each() -> None:
    manifests = renderer.render(serving(variation("a", traffic=[{}]), variation("b")), NO_FACTS)

    assert [str(manifest.id) for manifest in manifests] == [
        "PodMonitor/production/churn",
        "PrometheusRule/production/churn",
        "ConfigMap/production/churn-dashboard",
    ]


def test_nothing_is_watched_where_nobody_watches_or_nothing_is_served() -> None:
    assert renderer.render(serving(variation(), where=cluster(prometheus_url=None)), NO_FACTS) == []
    assert renderer.render(implied_by_an_automation(), NO_FACTS) == []


def test_the_servers_metrics_port_is_scraped() -> None:
    spec = made("PodMonitor")["spec"]

    assert spec["podMetricsEndpoints"] == [{"port": "metrics", "path": "/metrics", "interval": "15s"}]
    assert spec["selector"]["matchLabels"]["app.kubernetes.io/name"] == "churn"
    assert "namespaceSelector" not in spec


def test_the_servers_of_a_laptop_are_scraped_every_second() -> None:
    unit = serving(variation(), where=cluster(data_plane="embedded"))

    spec = one(renderer.render(unit, NO_FACTS), "PodMonitor")["spec"]

    assert [endpoint["interval"] for endpoint in spec["podMetricsEndpoints"]] == ["1s"]


def test_errors_latency_silence_and_gates_are_alerted() -> None:
    assert [rule["alert"] for rule in alerts()] == [
        "TrueupErrorRate",
        "TrueupLatency",
        "TrueupUnavailable",
        "TrueupGate",
    ]


def test_a_variation_is_slow_by_its_own_time_limit() -> None:
    slow = variation("slow", deployment={"http_request_timeout_ms": 60_000}, traffic=[{}])
    latency = [rule["expr"] for rule in alerts(slow, variation()) if rule["alert"] == "TrueupLatency"]

    assert ['variation="default"' in latency[0], "> 4000 " in latency[0]] == [True, True]
    assert ['variation="slow"' in latency[1], "> 48000 " in latency[1]] == [True, True]


def test_what_may_sleep_is_not_missed() -> None:
    requests = {"metric_type": "throughput", "aggregation_type": "sum", "time_period": 1, "threshold": 120}
    scaled = {"min_replica_count": 0, "max_replica_count": 2, "prometheus_trigger": requests}
    sleeper = variation(deployment={"auto_scale_config": scaled})

    assert "TrueupUnavailable" not in [rule["alert"] for rule in alerts(sleeper)]


def test_the_dashboard_is_one_that_grafana_finds_and_reads() -> None:
    config_map = made("ConfigMap")
    (text,) = config_map["data"].values()
    dashboard = json.loads(text)

    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert len(dashboard["uid"]) <= 40
    assert [panel["id"] for panel in dashboard["panels"]] == [1, 2, 3, 4]
    assert len(text) < 4096
    assert all('model="churn"' in panel["targets"][0]["expr"] for panel in dashboard["panels"])


def test_dashboards_of_two_namespaces_are_two() -> None:
    assert json.loads(renderer.dashboard("a", "churn"))["uid"] != json.loads(renderer.dashboard("b", "churn"))["uid"]
