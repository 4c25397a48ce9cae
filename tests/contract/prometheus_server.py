"""A real Prometheus (Debian's package) that scrapes real exporters over HTTP, for the tests.

Each exporter is a pod as Prometheus knows it: what it exports says nothing of its namespace and name, which are added
when it is scraped, as the prometheus-operator does it.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from runtime.server.metrics import CONTENT_TYPE, Metrics
from tests.contract.ports import free_port

PROMETHEUS = shutil.which("prometheus")
needs_prometheus = pytest.mark.skipif(
    PROMETHEUS is None and "CI" not in os.environ, reason="needs prometheus (Debian: apt-get install prometheus)"
)

#: Instead of the 15 s of production. Windows of the tests are short as well.
SCRAPE = "500ms"


class Exporter:
    """A pod's /metrics, by the code of our own server. `restart` begins all its counters anew."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = labels
        self._lock = threading.Lock()
        self.restart()
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with exporter._lock:
                    text = exporter._metrics.text((), ())
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def serve(self, requests: int, *, failed: int = 0, seconds: float = 0.05) -> None:
        """So many requests at once, all of which take `seconds`."""
        with self._lock:
            for number in range(requests):
                self._metrics.count(500 if number < failed else 200)
                self._metrics.observe(seconds)

    def restart(self) -> None:
        """As a container that crashed and was started again in the same pod."""
        with self._lock:
            self._metrics = Metrics(self._labels, 5.0)

    def stop(self) -> None:
        """The pod is gone."""
        self._server.shutdown()
        self._server.server_close()


class PrometheusProcess:
    """A Prometheus on a free port, with a configuration (YAML)."""

    def __init__(self, folder: Path, configuration: str) -> None:
        assert PROMETHEUS is not None, "CI has to install prometheus"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prometheus.yaml").write_text(configuration)
        self._log = (folder / "log").open("w+")
        self._process = subprocess.Popen(
            [
                PROMETHEUS,
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--log.level=warn",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        eventually(self._is_ready, "Prometheus is ready")

    def _is_ready(self) -> bool:
        if self._process.poll() is not None:
            self._log.seek(0)
            raise AssertionError(self._log.read())
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/-/ready")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        """Ends it, and waits for its end."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


class PrometheusServer(PrometheusProcess):
    """A Prometheus which scrapes `targets`: (namespace, pod) -> exporter."""

    def __init__(self, folder: Path, targets: Mapping[tuple[str, str], Exporter]) -> None:
        configuration = {
            "global": {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE},
            "scrape_configs": [
                {
                    "job_name": "pods",
                    "static_configs": [
                        {"targets": [f"127.0.0.1:{exporter.port}"], "labels": {"namespace": namespace, "pod": pod}}
                        for (namespace, pod), exporter in targets.items()
                    ],
                }
            ],
        }
        super().__init__(folder, json.dumps(configuration))  # JSON is YAML


def now() -> datetime:
    """This moment, by the clock that Prometheus has."""
    return datetime.fromtimestamp(time.clock_gettime(time.CLOCK_REALTIME), UTC)


def eventually(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Waits until the condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"after {seconds} s still not: {what}"
        time.sleep(0.05)
