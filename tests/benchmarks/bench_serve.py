"""The prediction server, beside a bare server of the same stack: `python -m tests.benchmarks serve`.

A trivial model, 2 workers, 8 connections, load generator and servers on the same processors. The bare server parses
with httptools on uvloop and computes in its own process: the ceiling, with none of what makes a server safe. Needs
wrk. The server is asked to reach 3,000 predictions/s on two cores.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from runtime.storage import FileStorage
from tests.contract.prediction_server import MODEL, PredictionServer, free_ports, store_build

SECONDS = 4
CONNECTIONS = 8

SUM = """
from runtime.model import Model, api
from runtime.model.adapters import JsonInputAdapter, JsonOutputAdapter

class Sum(Model):
    def build(self):
        pass

    @api(input_adapter=JsonInputAdapter(), output_adapter=JsonOutputAdapter())
    def predict(self, value):
        return [{"sum": sum(row)} for row in value["data"]]
"""

FRAME = """
from runtime.model import Model

class Frame(Model):
    def build(self):
        pass

    def predict(self, df):
        return df.sum(axis=1).to_frame("sum")
"""

BARE = """
import asyncio, json, sys, httptools, uvloop

class Bare(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.parser, self.body = transport, httptools.HttpRequestParser(self), []

    def data_received(self, data):
        self.parser.feed_data(data)

    def on_body(self, data):
        self.body.append(data)

    def on_message_complete(self):
        value = json.loads(b"".join(self.body))
        self.body = []
        out = json.dumps([{"sum": sum(row)} for row in value["data"]]).encode()
        head = b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(out)
        self.transport.write(head + out)

async def main():
    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()

uvloop.run(main())
"""

SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"columns":["a","b","c"],"index":[0],"data":[[1.5,2.5,3.5]]}'
"""


def measure(name: str, url: str, script: Path) -> float:
    """Predictions per second; prints a line."""
    wrk = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}", "--latency", "-s", str(script), url]
    text = subprocess.run(wrk, capture_output=True, text=True, check=True).stdout
    p50, p99 = (re.search(rf"(?m)^\s+{percent}%\s+(\S+)$", text) for percent in (50, 99))
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    assert p50, text
    assert p99, text
    assert rate, text
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    note = f"  {failed[1]} FAILED" if failed else ""
    print(f"  {name:<52} {float(rate[1]):9,.0f}/s   p50 {p50[1]:>8}   p99 {p99[1]:>8}{note}")
    return float(rate[1])


def _wait_for(url: str) -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(url, b'{"data": [[1]]}', timeout=1).close()
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"nothing answers at {url}")


def main() -> None:
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: apt-get install wrk")
    print(f"{SECONDS} s each, {CONNECTIONS} connections, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        script, bare = folder / "post.lua", folder / "bare.py"
        script.write_text(SCRIPT)
        bare.write_text(BARE)
        storage = FileStorage(folder / "storage")
        trivial = store_build(storage, folder / "trivial", SUM)
        frame = store_build(storage, folder / "frame", FRAME)

        port, _ = free_ports()
        bare_url = f"http://127.0.0.1:{port}/"
        with subprocess.Popen([sys.executable, str(bare), str(port)]) as process:
            try:
                _wait_for(bare_url)
                ceiling = measure("bare httptools + uvloop, one process", bare_url, script)
            finally:
                process.terminate()

        def served(name: str, build_id: str, *arguments: str, environ: Mapping[str, str] | None = None) -> float:
            with PredictionServer(
                storage, folder, build_id, "--workers=2", "--preload", *arguments, environ=environ
            ) as server:
                url = f"http://127.0.0.1:{server.port}/v1/{MODEL}/predict"
                _wait_for(url)
                return measure(name, url, script)

        quiet = {"TRUEUP_INFERENCE_SAMPLE_RATIO": "0"}
        rate = served("prediction server, no inference log", trivial, environ=quiet)
        served("prediction server, every prediction logged", trivial)
        served("prediction server, pandas in and out", frame, environ=quiet)
        served("prediction server, pandas, batches of 8", frame, "--max-batch-size=8", environ=quiet)
        print(f"  the trivial model: {rate / ceiling:.2f} of the ceiling")


if __name__ == "__main__":
    main()
