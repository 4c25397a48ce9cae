"""Workload controllers: what becomes of a Deployment, a Job, a Service, a PodDisruptionBudget.

Written against what clients can see, and held against both: the embedded data plane with its controllers and without
its node, and a real cluster's kube-controller-manager. Neither runs Pods here: the tests play the kubelet and write Pod
status through the API.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.client import ROOT, Api, EmbeddedServer
from tests.contract.conftest import REAL_KUBECONFIG
from tests.contract.workloads.kubelet import Kubelet


class WithControllers(EmbeddedServer):
    """The embedded data plane without its node."""

    COMMAND = ("-m", "embedded", "--no-node")

    def __init__(self, data: Path) -> None:
        self.data = data
        command = [sys.executable, *self.COMMAND, "--data", str(data)]
        self._log = (data.parent / f"{data.name}.log").open("a+")
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=self._log, text=True)
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline().strip()


@pytest.fixture(scope="session", params=["embedded", "real"] if REAL_KUBECONFIG else ["embedded"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A server with controllers. The real one needs its kube-controller-manager, and no kubelet."""
    if request.param == "real":
        yield Path(REAL_KUBECONFIG), "real"
        return
    embedded = WithControllers(tmp_path_factory.mktemp("workloads") / "data")
    assert embedded.first_line.startswith("ready https://127.0.0.1:"), embedded.log()
    yield embedded.kubeconfig, "embedded"
    log = embedded.log()
    assert embedded.end() == 0
    assert "Traceback" not in log, log


@pytest.fixture
def kubelet(api: Api, namespace: str) -> Iterator[Kubelet]:
    node = f"node-{secrets.token_hex(4)}"
    answer = api("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
    assert answer.status == 201, answer.body
    played = Kubelet(api, namespace, node)
    yield played
    for pod in played.list("pods"):
        api("DELETE", played.path("pods", pod["metadata"]["name"]), {"gracePeriodSeconds": 0})
    api("DELETE", f"/api/v1/nodes/{node}")
