"""What PodMonitors become on this machine: a file of targets, from which a real Prometheus scrapes real pods."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib import request
from urllib.error import URLError

import pytest

from reconciler.prometheus import Prometheus
from tests.contract.client import ROOT, Api, eventually
from tests.contract.prometheus_server import PrometheusProcess, needs_prometheus, now
from tests.contract.workloads.conftest import WithControllers

Object = dict[str, Any]

#: Tells of itself at /metrics, and ends when it is asked at /end.
WEB = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path in ("/metrics", "/end") else 404)
        self.end_headers()
        self.wfile.write(b"answer 42\\n")
        if self.path == "/end":
            raise SystemExit(0)
    def log_message(self, *_):
        pass
http.server.HTTPServer((os.environ["POD_IP"], 9090), Handler).serve_forever()
"""


class WholePlane(WithControllers):
    """The embedded data plane with its node."""

    COMMAND = ("-m", "embedded")


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholePlane]:
    plane = WholePlane(tmp_path_factory.mktemp("monitored") / "data")
    assert plane.first_line.startswith("ready https://127.0.0.1:"), plane.log()
    yield plane
    log = plane.log()
    assert plane.end() == 0
    assert "Traceback" not in log, log


@pytest.fixture
def server(plane: WholePlane) -> tuple[Path, str]:
    return plane.kubeconfig, "embedded"


def targets(plane: WholePlane) -> list[Object]:
    """What is in the file now; a file that is half written is no JSON."""
    found: list[Object] = json.loads((plane.data / "prometheus" / "targets.json").read_text())
    return found


def create(api: Api, path: str, body: Object) -> None:
    answer = api("POST", path, body)
    assert answer.status == 201, answer.body


def monitored(api: Api, namespace: str) -> str:
    """A PodMonitor, and a pod that it selects; the pod's address."""
    monitor = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {"name": "churn"},
        "spec": {
            "selector": {"matchLabels": {"app": "churn"}},
            "podMetricsEndpoints": [{"port": "metrics", "path": "/metrics", "interval": "1s"}],
        },
    }
    container = {
        "name": "model",
        "image": "local",
        "command": ["python", "-c", WEB],
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "ports": [{"name": "metrics", "containerPort": 9090}],
    }
    pod = {
        "metadata": {"name": "churn-1", "labels": {"app": "churn"}},
        "spec": {"containers": [container], "restartPolicy": "Never"},
    }
    create(api, f"/apis/monitoring.coreos.com/v1/namespaces/{namespace}/podmonitors", monitor)
    create(api, f"/api/v1/namespaces/{namespace}/pods", pod)
    status = eventually(lambda: status_in(api, namespace, "Running"))
    address: str = status["podIP"]
    return address


def status_in(api: Api, namespace: str, phase: str) -> Object:
    """The status of the pod, once it is in this phase."""
    status: Object = api("GET", f"/api/v1/namespaces/{namespace}/pods/churn-1").body["status"]
    return status if status["phase"] == phase else {}


def asked_to_end(address: str) -> bool:
    """Whether it could be asked: it runs before it listens."""
    with suppress(URLError), request.urlopen(f"http://{address}:9090/end", timeout=5):
        return True
    return False


def test_a_running_pod_is_a_target_until_it_ends(plane: WholePlane, api: Api, namespace: str) -> None:
    assert targets(plane) == []

    address = monitored(api, namespace)

    labels = {
        "namespace": namespace,
        "pod": "churn-1",
        "container": "model",
        "endpoint": "metrics",
        "job": f"{namespace}/churn",
        "__metrics_path__": "/metrics",
        "__scrape_interval__": "1s",
        "__scrape_timeout__": "1s",
    }
    assert eventually(lambda: targets(plane)) == [{"targets": [f"{address}:9090"], "labels": labels}]
    eventually(lambda: asked_to_end(address))
    eventually(lambda: status_in(api, namespace, "Succeeded"))
    eventually(lambda: not targets(plane), seconds=1)


@needs_prometheus
def test_prometheus_scrapes_it_with_the_configuration_of_the_examples(
    plane: WholePlane, api: Api, namespace: str, tmp_path: Path
) -> None:
    example = (ROOT / "examples" / "prometheus.yaml").read_text()
    text = example.replace("TARGETS_FILE", str(plane.data / "prometheus" / "targets.json"))
    running = PrometheusProcess(tmp_path / "prometheus", text)
    try:
        monitored(api, namespace)  # while Prometheus runs: it hears of the pod by the file alone
        labels = f'namespace="{namespace}",pod="churn-1",container="model",endpoint="metrics",job="{namespace}/churn"'
        with Prometheus(running.url) as prometheus:
            assert eventually(lambda: prometheus.ask(f"up{{{labels}}} == 1", now()).series)
            (answer,) = prometheus.ask(f"answer{{{labels}}}", now()).series
        assert answer.value == "42"
    finally:
        running.stop()
