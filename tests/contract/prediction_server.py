"""A prediction server as its container starts it: `python -m runtime serve` on a build in an object storage."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tarfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from runtime.environments import PLATFORM
from runtime.records import BuildRecord, StoredFile, artifact_key, packages_description_key, packages_key, record_key
from runtime.storage import FileStorage
from tests.contract.ports import free_port

REPOSITORY = Path(__file__).parents[2]
MODEL = "screening"
VARIATION = "main"
#: The environment that tests are run in, as a packed one: one line that leads there.
_DIGEST = "0" * 31 + "1"
_SAVE = "import sys, pathlib; from runtime.model.loader import new_model, save; a = pathlib.Path(sys.argv[1]); "
_SAVE += "save(new_model(a / 'code', '', 'main'), a)"
#: Does what its input says.
OBEDIENT = """
import os, sys, time
from runtime.model import HTTPException, Model, api
from runtime.model.adapters import JsonInputAdapter, JsonOutputAdapter

class Obedient(Model):
    def build(self):
        pass

    def initialize_model(self):
        if "LOADS" in os.environ:
            with open(os.environ["LOADS"], "a") as file:
                file.write("loaded\\n")

    @api(analytics_exclude_columns=["name"], input_adapter=JsonInputAdapter(), output_adapter=JsonOutputAdapter())
    def predict(self, order):
        if "sleep" in order:
            time.sleep(order["sleep"])
        while "until" in order and not os.path.exists(order["until"]):
            time.sleep(0.01)
        if "raise" in order:
            raise ValueError(order["raise"])
        if "status" in order:
            raise HTTPException(order["status"], "as it was told to")
        if "exit" in order:
            sys.exit(order["exit"])
        if "nan" in order:
            return {"nan": float("nan"), "infinity": float("inf")}
        if "fork" in order and os.fork() == 0:
            time.sleep(order["fork"])
            os._exit(0)
        if "die" in order:
            os.kill(os.getpid(), 9)
        if "object" in order:
            return {"object": object()}
        if "size" in order:
            return "x" * order["size"]
        return {"sum": sum(order["values"]), "pid": os.getpid()}
"""

_MOMENT = datetime(2026, 1, 2, tzinfo=UTC)


def store_build(storage: FileStorage, scratch: Path, source: str, schema: Mapping[str, Any] | None = None) -> str:
    """Stores a build of the model whose package is `source`; its id."""
    artifact = scratch / "artifact"
    package = artifact / "code" / "main"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(source)
    described = {"format": 1, "main_dir": "main", "folder": "", "environment": _DIGEST, "schema": schema}
    (artifact / "artifact.json").write_text(json.dumps(described))
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-P", "-c", _SAVE, str(artifact)], env=environ, check=True)
    archive = scratch / "artifact.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for path in sorted(artifact.iterdir()):
            tar.add(path, path.name)
    build_id = hashlib.sha256(source.encode()).hexdigest()
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    stored = StoredFile(artifact_key(MODEL, build_id, digest), digest, archive.stat().st_size)
    storage.create(stored.key, archive)
    record = BuildRecord(
        build_id=build_id,
        model=MODEL,
        environment="production",
        commit="0" * 40,
        parameters={},
        metrics={},
        artifact=stored,
        packages=_store_environment(storage),
        python=".".join(map(str, sys.version_info[:3])),
        schema=schema,
        tests=None,
        started_at=_MOMENT,
        finished_at=_MOMENT,
        log=None,
    )
    storage.create(record_key(MODEL, build_id), record.to_json())
    return build_id


def _store_environment(storage: FileStorage) -> StoredFile:
    content = BytesIO()
    site = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    lines = f"{sysconfig.get_path('purelib')}\n{REPOSITORY}\n".encode()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        member = tarfile.TarInfo(f"{site}/tests.pth")
        member.size = len(lines)
        tar.addfile(member, BytesIO(lines))
    key, packed = packages_key(_DIGEST), content.getvalue()
    described = {"format": 1, "sha256": hashlib.sha256(packed).hexdigest(), "bytes": len(packed), "platform": PLATFORM}
    if storage.create(key, packed):
        storage.create(packages_description_key(_DIGEST), json.dumps(described).encode())
    described = json.loads(storage.read(packages_description_key(_DIGEST)))
    return StoredFile(key, described["sha256"], described["bytes"])


class Answer(NamedTuple):
    """What a server answered. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class PredictionServer:
    """One running server. Ended by `stop`, or at the end of its `with`."""

    def __init__(
        self,
        storage: FileStorage,
        folder: Path,
        build_id: str,
        *arguments: str,
        wait: bool = True,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.build_id = build_id
        self.port, self.metrics_port = free_ports()
        self._log = folder / f"server-{self.port}.log"
        self.environ = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "TRUEUP_CACHE_DIR": str(folder / "cache"),
            "TRUEUP_OBJECT_STORAGE": storage.url,
            "TRUEUP_MODEL": MODEL,
            "TRUEUP_VARIATION": VARIATION,
            "TRUEUP_BUILD_ID": build_id,
            "TRUEUP_ENVIRONMENT": "production",
            "POD_IP": "127.0.0.1",
            "POD_NAME": "screening-main-0",
        } | dict(environ or {})
        command = [
            sys.executable,
            "-m",
            "runtime",
            "serve",
            f"--port={self.port}",
            f"--metrics-port={self.metrics_port}",
        ]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *arguments], env=self.environ, stdout=log, stderr=log, cwd=folder
            )
        if wait:
            eventually(lambda: self.process.poll() is not None or "ready at" in self.log(), 60)
            assert self.process.poll() is None, self.log()

    def __enter__(self) -> PredictionServer:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def log(self) -> str:
        return self._log.read_text("utf-8")

    def events(self) -> list[dict[str, Any]]:
        """The lines of its own log."""
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    def stop(self) -> int:
        """SIGTERM, as the kubelet sends it. The exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def eventually_computes(self, *, waiting: int = 0) -> None:
        """Until one request is computed, and so many more wait for it."""
        eventually(
            lambda: (
                self.metric("trueup_requests_waiting") == waiting
                and self.metric("trueup_requests_unanswered") == waiting + 1
            )
        )

    def is_open(self) -> bool:
        """Whether it takes connections yet."""
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def connection(self, timeout: float = 30) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """One request on a connection of its own. A body that is no bytes is sent as JSON."""
        connection = self.connection()
        try:
            return ask(connection, method, path, body, headers)
        finally:
            connection.close()

    def predict(self, body: Any, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", f"/v1/{MODEL}/predict", body, named)

    def raw(self, data: bytes, timeout: float = 30) -> bytes:
        """Everything that the server says to these bytes, until it closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout) as client:
            client.sendall(data)
            return drained(client)

    def metrics(self) -> dict[str, float]:
        """Samples by name and labels, as they stand in the text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=30)
        try:
            text = ask(connection, "GET", "/metrics").body.decode()
        finally:
            connection.close()
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    def metric(self, name: str, **labels: str) -> float:
        """The sample with these labels, among others."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        (value,) = (
            value
            for sample, value in self.metrics().items()
            if sample.partition("{")[0] == name and all(label in sample for label in wanted)
        )
        return value


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request on an open connection."""
    sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    typed = {} if body is None else {"Content-Type": "application/json"}
    connection.request(method, path, sent, typed | dict(headers or {}))
    response = connection.getresponse()
    received = response.read()
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, received)


def drained(client: socket.socket) -> bytes:
    received = b""
    try:
        while data := client.recv(65_536):
            received += data
    except ConnectionResetError:
        pass
    return received


def eventually(condition: Callable[[], object], seconds: float = 30) -> None:
    """Waits until the condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


def free_ports() -> tuple[int, int]:
    """Two that nobody uses."""
    return free_port(), free_port()
