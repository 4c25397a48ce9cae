"""S3, Glue and Athena of this machine, where the SQL really runs: ministack, which has DuckDB behind it.

It pins its own versions of what boto3 is made of, so it has an environment of its own, made once by `uv`.

What it does not do as Athena does, and what is done about it here:
- it does not know ExecutionParameters. A front before it puts them in, as Athena would (`EXECUTE ... USING`);
- SQL is DuckDB's: a view of Athena's, and `UNNEST` of a map, do not run.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import pytest

from tests.contract.ports import free_port

REQUIREMENTS = ("ministack==1.5.33", "duckdb==2.0.0")


def environment() -> Path:
    """The Python of ministack's environment, which is made where it is not there. Workers side by side make it once."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trueup-tests"
    folder = cache / "-".join(REQUIREMENTS).replace("==", "-")
    python = folder / "bin" / "python"
    if not python.exists():
        cache.mkdir(parents=True, exist_ok=True)
        uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        assert uv is not None, "`uv` comes with the package's extra `runtime`"
        made = cache / f"{folder.name}.{os.getpid()}"
        for command in (
            [uv, "venv", "--quiet", "--relocatable", "--python", sys.executable, str(made)],
            [uv, "pip", "install", "--quiet", "--python", str(made / "bin" / "python"), *REQUIREMENTS],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        try:
            made.rename(folder)
        except OSError:  # another worker was faster
            shutil.rmtree(made)
    return python


def with_parameters(sql: str, values: list[str]) -> str:
    """The statement with its `?` replaced, in their order, outside of quotes."""
    rest, parts = iter(values), sql.split("'")
    for number in range(0, len(parts), 2):
        while "?" in parts[number]:
            parts[number] = parts[number].replace("?", next(rest).replace("?", "\0"), 1)
    assert next(rest, None) is None, "more values than places"
    return "'".join(parts).replace("\0", "?")


class _Front(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behind = 0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("X-Amz-Target", "").endswith(".StartQueryExecution"):
            request = json.loads(body)
            request["QueryString"] = with_parameters(request["QueryString"], request.pop("ExecutionParameters", []))
            body = json.dumps(request).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.behind, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name not in ("Content-Length", "Connection")}
        connection.request("POST", self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("date", "server", "connection", "content-length", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


class Ministack(NamedTuple):
    url: str  #: of S3 and Glue
    athena: str  #: of Athena


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ministack]:
    """A running one, with nothing in it."""
    folder = tmp_path_factory.mktemp("ministack")
    port = free_port()
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "BIND_HOST": "127.0.0.1",  # by itself it would serve the network
        "GATEWAY_PORT": str(port),
        "S3_DATA_DIR": str(folder / "s3"),
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [environment(), "-m", "ministack"], cwd=folder, env=environ, stdout=log, stderr=log, start_new_session=True
        )
    front = ThreadingHTTPServer(("127.0.0.1", 0), type("Front", (_Front,), {"behind": port}))
    Thread(target=front.serve_forever, daemon=True).start()
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
        yield Ministack(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{front.server_port}")
    finally:
        front.shutdown()
        front.server_close()
        process.terminate()
        process.wait(15)
