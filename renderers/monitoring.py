"""Monitoring of a model: what Prometheus scrapes, when it alerts, and a Grafana dashboard.

Rendered where the environment has a `prometheus_url`; a cluster without the prometheus-operator does not know these
kinds.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import orjson

from renderers import names
from renderers.catalog import Facts, Unit
from renderers.environment import namespace_id
from renderers.manifest import Manifest, object_id
from renderers.metrics import DURATION, GATE_VERDICTS, REQUESTS
from renderers.served import Served, by_variation, served
from renderers.serving import pace
from renderers.template import Template

_POD_MONITOR = Template("pod-monitor")
_RULES = Template("prometheus-rule")
_DASHBOARDS = Template("dashboard-config-map")

#: Percent of the requests that may fail before somebody is called.
ERROR_PERCENT = 5
#: Part of a variation's time limit that its slowest hundredth may take.
LATENCY_PART = 0.8
#: Fewer requests than these, in five minutes, say nothing.
MIN_REQUESTS = 20

#: Labels that alerts and panels are about.
_BY = "variation, build_id"


def render(unit: Unit, facts: Facts) -> list[Manifest]:
    """PodMonitor, PrometheusRule, and the ConfigMap with the dashboard."""
    environment, here = unit.environment.spec, served(unit, facts)
    if environment.prometheus_url is None or not here:
        return []
    origin, name, namespace = here[0].variation.origin, names.object_name(unit.model), environment.namespace_name

    def common(**labels: str) -> dict[str, Any]:
        return {
            "namespace": namespace,
            "labels": names.labels(unit.model, "monitoring", environment.name) | labels,
            "annotations": names.provenance(origin, f"model/{unit.model}"),
        }

    bodies = [
        _POD_MONITOR(name=name, model=unit.model, interval=f"{pace(environment).scrape}s", **common()),
        _RULES(name=name, group=f"trueup.{namespace}.{unit.model}", rules=_rules(unit, here), **common()),
        _DASHBOARDS(
            name=names.object_name(unit.model, "dashboard"),
            data={f"{namespace}-{name}.json": dashboard(namespace, unit.model)},
            **common(grafana_dashboard="1"),
        ),
    ]
    return [Manifest(object_id(body), body, origin, environment.name, (namespace_id(environment),)) for body in bodies]


def _rules(unit: Unit, here: list[Served]) -> list[dict[str, Any]]:
    environment, model = unit.environment.spec, unit.model
    scope = f'namespace="{environment.namespace_name}",model="{model}"'
    enough = f"sum by ({_BY}) (increase({REQUESTS}{{{scope}}}[5m])) >= {MIN_REQUESTS}"
    where = f"{model} in {environment.name}"
    errors = f'sum by ({_BY}) (rate({REQUESTS}{{{scope},code=~"5.."}}[5m]))'
    rules = [
        _alert(
            "TrueupErrorRate",
            f"100 * {errors} / sum by ({_BY}) (rate({REQUESTS}{{{scope}}}[5m])) > {ERROR_PERCENT} and {enough}",
            "5m",
            "critical",
            f"{{{{ $value | humanize }}}} % of the predictions of {where} fail "
            "(variation {{ $labels.variation }}, build {{ $labels.build_id }})",
        )
    ]
    for one, *_ in by_variation(here):
        spec = one.variation.spec
        limit = round(spec.deployment.http_request_timeout_ms * LATENCY_PART)
        buckets = f'sum by (le, {_BY}) (rate({DURATION}_bucket{{{scope},variation="{spec.name}"}}[5m]))'
        rules.append(
            _alert(
                "TrueupLatency",
                f"1000 * histogram_quantile(0.99, {buckets}) > {limit} and {enough}",
                "10m",
                "warning",
                f"one prediction of {where} in a hundred takes {{{{ $value | humanize }}}} ms; the time limit of "
                f"variation {spec.name} is {spec.deployment.http_request_timeout_ms} ms",
            )
        )
    # A variation without pods has no samples of its own, so its silence would look like health. A build that gets
    # nothing yet may still be starting.
    awake = [one.name for one in here if one.percent and not _may_sleep(one)]
    if awake:
        available = (
            "kube_deployment_status_replicas_available"
            f'{{namespace="{environment.namespace_name}",deployment=~"{"|".join(awake)}"}}'
        )
        rules.append(
            _alert(
                "TrueupUnavailable",
                f"{available} == 0",
                "5m",
                "critical",
                f"no pod of {{{{ $labels.deployment }}}} is ready: nobody answers for it in {environment.name}",
            )
        )
    gates = f'{GATE_VERDICTS}{{model="{model}",environment="{environment.name}",outcome=~"Rejected|Error"}}'
    rules.append(
        _alert(
            "TrueupGate",
            f"sum by (automation, outcome) (increase({gates}[1h])) > 0",
            None,
            "warning",
            f"a build of {where} was not promoted: {{{{ $labels.outcome }}}} (automation {{{{ $labels.automation }}}})",
        )
    )
    return rules


def _may_sleep(one: Served) -> bool:
    config = one.variation.spec.deployment.auto_scale_config
    return config is not None and config.min_replica_count == 0


def _alert(name: str, expression: str, lasting: str | None, severity: str, summary: str) -> dict[str, Any]:
    rule: dict[str, Any] = {"alert": name, "expr": expression}
    if lasting is not None:
        rule["for"] = lasting
    return rule | {"labels": {"severity": severity}, "annotations": {"summary": summary}}


def dashboard(namespace: str, model: str) -> str:
    """The Grafana dashboard, as JSON: four panels, two in a row, a line for each build of each variation."""
    scope = f'namespace="{namespace}",model="{model}"'
    rate = "[$__rate_interval]"
    requests = f"sum by ({_BY}) (rate({REQUESTS}{{{scope}}}{rate}))"
    errors = f'sum by ({_BY}) (rate({REQUESTS}{{{scope},code=~"5.."}}{rate}))'
    buckets = f"sum by (le, {_BY}) (rate({DURATION}_bucket{{{scope}}}{rate}))"
    panels = [
        _panel("Predictions per minute", "short", f"60 * {requests}"),
        _panel("Failed predictions", "percent", f"100 * {errors} / {requests} or 0 * {requests}"),
        _panel("Slowest of a hundred predictions", "ms", f"1000 * histogram_quantile(0.99, {buckets})"),
        _panel("Pods", "short", f"count by ({_BY}) (count by ({_BY}, pod) ({REQUESTS}{{{scope}}}))"),
    ]
    for number, panel in enumerate(panels):
        panel |= {"id": number + 1, "gridPos": {"x": number % 2 * 12, "y": number // 2 * 8, "w": 12, "h": 8}}
    body = {
        "uid": sha256(f"{namespace}/{model}".encode()).hexdigest()[:32],  # 40 characters are the most
        "title": f"{model} ({namespace})",
        "tags": ["trueup"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
        "panels": panels,
    }
    return orjson.dumps(body).decode()


def _panel(title: str, unit: str, expression: str) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": title,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [{"refId": "A", "expr": expression, "legendFormat": "{{variation}} {{build_id}}"}],
    }
