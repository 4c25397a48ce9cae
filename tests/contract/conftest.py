"""The API servers that the contract is held against.

The embedded server always runs, as the process that people start. A real one joins where TRUEUP_TEST_KUBECONFIG names
its kubeconfig (with a bearer token): each test of the contract then runs against both.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.client import Api, EmbeddedServer, eventually, is_given

REAL_KUBECONFIG = os.environ.get("TRUEUP_TEST_KUBECONFIG", "")
PLANES = ("embedded", "real") if REAL_KUBECONFIG else ("embedded",)


def pytest_report_collectionfinish() -> str:
    if REAL_KUBECONFIG:
        return f"contract: the embedded API server and the real one of {REAL_KUBECONFIG}"
    return "contract: the embedded API server only (TRUEUP_TEST_KUBECONFIG names no real one)"


@pytest.fixture(scope="session", params=PLANES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The kubeconfig of an API server, and which one it is."""
    if request.param == "real":
        yield Path(REAL_KUBECONFIG), "real"
        return
    embedded = EmbeddedServer(tmp_path_factory.mktemp("embedded") / "data")
    assert embedded.first_line.startswith("ready https://127.0.0.1:"), embedded.log()
    yield embedded.kubeconfig, "embedded"
    log = embedded.log()
    assert embedded.end() == 0
    assert "Traceback" not in log, log


@pytest.fixture
def api(server: tuple[Path, str]) -> Iterator[Api]:
    """A client of each API server in turn."""
    client = Api(*server)
    yield client
    client.close()


@pytest.fixture
def namespace(api: Api) -> Iterator[str]:
    """A namespace that only this test uses, with what a cluster puts in each of them (`kube-root-ca.crt`)."""
    name = f"contract-{secrets.token_hex(5)}"
    answer = api("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    assert answer.status == 201, answer.body
    usual = {item["metadata"]["name"] for item in api("GET", "/api/v1/namespaces/default/configmaps").body["items"]}
    for given in usual:
        if is_given(given):
            eventually(lambda given=given: api("GET", f"/api/v1/namespaces/{name}/configmaps/{given}").status == 200)
    yield name
    api("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
def config_maps(namespace: str) -> str:
    """The path of the ConfigMaps of this test."""
    return f"/api/v1/namespaces/{namespace}/configmaps"


@pytest.fixture
def deployments(namespace: str) -> str:
    """The path of the Deployments of this test."""
    return f"/apis/apps/v1/namespaces/{namespace}/deployments"
