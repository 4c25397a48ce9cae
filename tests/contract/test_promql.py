"""Our PromQL, evaluated by Prometheus itself: under load, when idle, and when nobody is scraped any more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from renderers import monitoring
from renderers.autoscaling import promql
from renderers.metrics import DURATION, GATE_VERDICTS, REQUESTS, pods_of
from schemas.autoscaling import PrometheusTrigger
from tests.unit.renderers.made import NO_FACTS, one
from tests.unit.renderers.made_serving import serving, variation

PROMTOOL = shutil.which("promtool")
pytestmark = pytest.mark.skipif(
    PROMTOOL is None and "CI" not in os.environ, reason="needs promtool (Debian: apt-get install prometheus)"
)

PODS = pods_of("production", "churn-default-1a2b3c4d")
NAMES = ("churn-default-1a2b3c4d-7f9c5d6b8-abcde", "churn-default-1a2b3c4d-7f9c5d6b8-fghij")
#: Pods of another Deployment, whose name begins with that of ours.
OTHER = "churn-default-1a2b3c4d-canary-7f9c5d6b8-abcde"


def series(metric: str, pod: str, values: str, **labels: str) -> dict[str, str]:
    known = {"namespace": "production", "pod": pod, "container": "model"} | labels
    text = ",".join(f'{name}="{value}"' for name, value in known.items())
    return {"series": f"{metric}{{{text}}}", "values": values}


def served(pod: str, *, ok: int, failed: int, seconds: float) -> list[dict[str, str]]:
    """Requests of each 15 seconds, each of which takes `seconds`: 0.05 or 0.4."""
    every = ok + failed
    made = [
        series(REQUESTS, pod, f"0+{ok}x40", code="200", model="churn", variation="default", build_id="1a2b3c4d"),
        series(REQUESTS, pod, f"0+{failed}x40", code="503", model="churn", variation="default", build_id="1a2b3c4d"),
        series(f"{DURATION}_count", pod, f"0+{every}x40"),
        series(f"{DURATION}_sum", pod, f"0+{every * seconds}x40"),
    ]
    for bound in ("0.1", "0.5", "+Inf"):
        within = every if seconds <= float(bound) else 0
        made.append(series(f"{DURATION}_bucket", pod, f"0+{within}x40", le=bound))
    return made


def used(pod: str, *, cores: float, bytes_: int) -> list[dict[str, str]]:
    return [
        series("container_cpu_usage_seconds_total", pod, f"0+{cores * 15}x40"),
        series("container_memory_working_set_bytes", pod, f"{bytes_}x40"),
        series("kube_pod_container_resource_requests", pod, "2x40", resource="cpu"),
        series("kube_pod_container_resource_limits", pod, "1000x40", resource="memory"),
        series("DCGM_FI_DEV_GPU_UTIL", pod, f"{int(cores * 50)}x40", gpu="0"),
        series("DCGM_FI_DEV_GPU_UTIL", pod, "9223372036854775794x40", gpu="1"),
    ]


#: Per 15 s: 30 requests of 50 ms, 3 of them failed, and 10 of 400 ms, none failed; 0.8 and 1.6 of 2 cores.
LOADED = [
    *served(NAMES[0], ok=27, failed=3, seconds=0.05),
    *served(NAMES[1], ok=10, failed=0, seconds=0.4),
    *used(NAMES[0], cores=0.8, bytes_=300),
    *used(NAMES[1], cores=1.6, bytes_=500),
    *served(OTHER, ok=1000, failed=1000, seconds=0.4),
    *used(OTHER, cores=2, bytes_=1000),
]
IDLE = [line for pod in NAMES for line in (*served(pod, ok=0, failed=0, seconds=0.05), *used(pod, cores=0, bytes_=0))]
#: Samples that end after two minutes; the answer is asked for after ten.
GONE = [line | {"values": line["values"].replace("x40", "x8")} for line in LOADED[:-1]]

EXPECTED = {
    ("cpu", "avg"): 60,
    ("cpu", "max"): 80,
    ("cpu", "min"): 40,
    ("cpu", "sum"): 120,
    ("memory", "avg"): 40,
    ("memory", "max"): 50,
    ("memory", "min"): 30,
    ("memory", "sum"): 80,
    ("gpu", "avg"): 60,
    ("gpu", "max"): 80,
    ("gpu", "min"): 40,
    ("gpu", "sum"): 120,
    ("latency", "avg"): 137.5,
    ("latency", "max"): 400,
    ("latency", "min"): 50,
    ("latency", "sum"): 366.6666666666667,  # 30 * 50 ms and 10 * 400 ms in 15 s
    ("latency", "p50"): 66.66666666666667,  # 20 of the 30 in the first bucket, which ends at 100 ms
    ("latency", "p99"): 484,
    ("error_rate", "avg"): 7.5,
    ("error_rate", "max"): 10,
    ("error_rate", "min"): 0,
    ("error_rate", "sum"): 10,
    ("throughput", "avg"): 80,
    ("throughput", "max"): 120,
    ("throughput", "min"): 40,
    ("throughput", "sum"): 160,
}


def run(command: str, file: Path) -> None:
    assert PROMTOOL is not None, "CI has to install promtool"
    arguments = [PROMTOOL, *command.split(), file.name]
    done = subprocess.run(arguments, cwd=file.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def query(metric: str, aggregation: str) -> str:
    fields = {"metric_type": metric, "aggregation_type": aggregation, "time_period": 2, "threshold": 1.0}
    return promql(PrometheusTrigger.model_validate(fields), PODS)


def asks(input_series: list[dict[str, str]], expected: dict[tuple[str, str], float | None]) -> dict[str, Any]:
    """One test of promtool: after ten minutes, one sample without labels for each query, or none for None."""
    return {
        "interval": "15s",
        "input_series": input_series,
        "promql_expr_test": [
            {
                "expr": f"round({query(*name)}, 0.000001)",
                "eval_time": "10m",
                "exp_samples": [] if value is None else [{"labels": "{}", "value": round(value, 6)}],
            }
            for name, value in expected.items()
        ],
    }


@pytest.mark.parametrize(
    ("state", "given", "expected"),
    [
        ("loaded", LOADED, EXPECTED),
        ("idle", IDLE, dict.fromkeys(EXPECTED, 0)),
        ("gone", GONE, dict.fromkeys(EXPECTED)),
    ],
    ids=["loaded", "idle", "gone"],
)
def test_a_trigger_measures_its_deployment(
    state: str, given: list[dict[str, str]], expected: dict[tuple[str, str], float | None], tmp_path: Path
) -> None:
    """Idle is 0 and not NaN; gone is nothing and not 0, so that an outage does not take pods away."""
    file = tmp_path / f"{state}.yaml"
    file.write_text(json.dumps({"rule_files": [], "evaluation_interval": "15s", "tests": [asks(given, expected)]}))

    run("test rules", file)


def rules() -> Any:
    unit = serving(variation())
    return one(monitoring.render(unit, NO_FACTS), "PrometheusRule")["spec"]


def test_alerts_are_rules_that_prometheus_reads(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(json.dumps(rules()))

    run("check rules", file)


def test_alerts_fire_for_what_people_must_know(tmp_path: Path) -> None:
    (deployment,) = [
        rule["expr"].split('deployment=~"')[1].split('"')[0]
        for rule in rules()["groups"][0]["rules"]
        if rule["alert"] == "TrueupUnavailable"
    ]
    down = {
        "series": f'kube_deployment_status_replicas_available{{namespace="production",deployment="{deployment}"}}',
        "values": "0x80",
    }
    verdict = 'model="churn",environment="production",automation="a",outcome="Rejected"'
    rejected = {
        "series": f"{GATE_VERDICTS}{{{verdict}}}",
        "values": "0x20 1x60",
    }
    labels = {"model": "churn", "variation": "default", "build_id": "1a2b3c4d"}
    slow = [
        series(
            f"{DURATION}_bucket", NAMES[0], "0+40x80", le=bound, model="churn", variation="default", build_id="1a2b3c4d"
        )
        for bound in ("10", "+Inf")
    ]
    failing = [series(REQUESTS, NAMES[0], "0+40x80", code=code, **labels) for code in ("200", "500")]
    (tmp_path / "rules.yaml").write_text(json.dumps(rules()))
    fired = {
        "TrueupErrorRate": 'variation="default",build_id="1a2b3c4d"',
        "TrueupLatency": 'variation="default",build_id="1a2b3c4d"',
        "TrueupUnavailable": f'namespace="production",deployment="{deployment}"',
        "TrueupGate": 'automation="a",outcome="Rejected"',
    }
    expressions = [
        {
            "expr": f'count by (alertname) (ALERTS{{alertname="{name}",alertstate="firing",{matchers}}})',
            "eval_time": "18m",
            "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1}],
        }
        for name, matchers in fired.items()
    ]
    quiet = {"expr": 'count(ALERTS{alertstate="firing"})', "eval_time": "18m", "exp_samples": []}
    tests = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "15s",
        "tests": [
            {"interval": "15s", "input_series": [down, rejected, *slow, *failing], "promql_expr_test": expressions},
            {"interval": "15s", "input_series": [], "promql_expr_test": [quiet]},
        ],
    }
    file = tmp_path / "alerts.yaml"
    file.write_text(json.dumps(tests))

    run("test rules", file)
