"""What the embedded gateway adds to a prediction, and how soon a route changes, under load from wrk.

    python -m tests.benchmarks gateway

The ceiling is the same server without a gateway, in the same run; rounds are interleaved. The server is a few lines
that answer always the same, so that what is measured is the gateway. Targets: p50 +0.5 ms at 8 connections, a changed
route in effect within a second, and no failed request.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.contract.plane import PORT, Plane, Space, backend, exact, header, prefix, rule

ROUNDS = 3
SECONDS = 2
ROUTES = (1, 100, 1000)
FLIPS = 20

_SERVER = """
import asyncio, sys, uvloop
answer = b"HTTP/1.1 200 OK\\r\\ncontent-length: %d\\r\\n\\r\\n%s" % (len(sys.argv[3]), sys.argv[3].encode())
class Same(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data): self.transport.write(answer * data.count(b"\\r\\n\\r\\n"))
async def serve():
    server = await asyncio.get_running_loop().create_server(Same, sys.argv[1], int(sys.argv[2]), backlog=1024)
    print("ready", flush=True)
    await server.serve_forever()
uvloop.run(serve())
"""


class Load(NamedTuple):
    """What wrk saw."""

    p50: float  #: milliseconds
    p99: float
    rate: float  #: requests a second
    failed: int


class Server:
    """A server that answers with its name, as fast as Python can."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        command = [sys.executable, "-c", _SERVER, address, str(PORT), name]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"


def main() -> None:
    """Measures with wrk; without it, says so."""
    if shutil.which("wrk") is None:
        print("this needs wrk: apt-get install wrk")
        return
    with tempfile.TemporaryDirectory() as folder:
        plane = Plane(Path(folder) / "data")
        servers = [Server(name, plane.subnet.pod(name)) for name in ("a", "b")]
        try:
            measure(plane, servers)
        finally:
            plane.stop()
            for server in servers:
                server.process.kill()
                server.process.wait()


def measure(plane: Plane, servers: list[Server]) -> None:
    """Prints what is added by kind of route, and what a change costs by number of routes."""
    space = Space(plane)
    for server in servers:
        space.service(server.name, server)
    one, weighted = [backend("a")], [backend("a", 9000), backend("b", 1000)]
    audience = [prefix("/header", headers=[header("x-user", ".*(?:a|b).*", "RegularExpression")])]
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "b", "port": 80}, "percent": 50}}
    space.route(
        "kinds",
        rule(*one, matches=[prefix("/one")]),
        rule(*one, matches=audience),
        rule(*weighted, matches=[prefix("/weights")]),
        rule(*one, matches=[prefix("/shadow")], filters=[mirror]),
    )
    space.route("sticky", rule(*weighted, matches=[prefix("/sticky")]))
    space.traffic_policy("sticky", "x-user")
    direct, gateway = f"http://{servers[0].address}:{PORT}", f"http://{space.address}:{PORT}"
    kinds = ("/one", "/header", "/weights", "/sticky", "/shadow")
    print(f"{'':10}{'c':>4}{'p50 ms':>9}{'p99 ms':>9}{'req/s':>9}{'added p50':>11}{'of direct':>11}{'failed':>8}")
    for connections in (1, 8, 64):
        seen: dict[str, list[Load]] = {}
        for _ in range(ROUNDS):
            seen.setdefault("direct", []).append(wrk(direct, connections))
            for path in kinds:
                seen.setdefault(path, []).append(wrk(gateway + path, connections))
        base = middle(seen["direct"])
        for name, loads in seen.items():
            load = middle(loads)
            row = f"{name:10}{connections:4}{load.p50:9.3f}{load.p99:9.3f}{load.rate:9.0f}{load.p50 - base.p50:11.3f}"
            print(f"{row}{load.rate / base.rate:11.2f}{sum(each.failed for each in loads):8}", flush=True)
    print(f"memory of Envoy: {memory(plane)} MiB")
    changes(plane, space, servers[1])


def changes(plane: Plane, space: Space, server: Server) -> None:
    """A route that flips between two backends under load, among more and more others."""
    print(f"{'routes':>8}{'effect ms: median':>19}{'most':>8}{'endpoints ms':>14}{'failed':>8}{'MiB':>6}")
    written = 0
    url = f"http://{space.address}:{PORT}/flip"
    space.route("flip", rule(backend("a"), matches=[exact("/flip")]))
    space.service("c", server)
    space.route("c", rule(backend("c"), matches=[exact("/c")]))
    for number in ROUTES:
        while written < number:
            matches = [exact(f"/v1/model-{written}/predict"), prefix(f"/v2/models/model-{written}")]
            last = written == number - 1
            space.route(f"model-{written:04}", rule(backend("a"), backend("b"), matches=matches), wait=last)
            written += 1
        load = subprocess.Popen(
            ["wrk", "-t1", "-c8", f"-d{3 + SECONDS}s", "--latency", url], stdout=subprocess.PIPE, text=True
        )
        time.sleep(0.5)
        took = [timed(lambda name=name: flip(space, name)) for name in "ba" * (FLIPS // 2)]
        endpoints = [timed(lambda up=up: ending(space, [server] if up else [])) for up in (False, True) * 3]
        failed = parse(load.communicate()[0]).failed
        row = f"{number:8}{statistics.median(took) * 1000:19.1f}{max(took) * 1000:8.1f}"
        print(f"{row}{statistics.median(endpoints) * 1000:14.1f}{failed:8}{memory(plane):6}", flush=True)


def flip(space: Space, name: str) -> None:
    """Write the route, and ask until it is that backend that answers."""
    space.route("flip", rule(backend(name), matches=[exact("/flip")]), wait=False)
    while space.get("/flip").body != name.encode():
        pass


def ending(space: Space, servers: list[Server]) -> None:
    """Give a Service these endpoints, and ask until it has them."""
    space.endpoints("c", *servers)
    while (space.get("/c").status == 200) is not bool(servers):
        pass


def timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def wrk(url: str, connections: int) -> Load:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency", "-H", "x-user: anna", url]
    return parse(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def parse(output: str) -> Load:
    units = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    found = dict(re.findall(r"^ +(50|99)% +([\d.]+\w+)", output, re.MULTILINE))
    times = [re.fullmatch(r"([\d.]+)(us|ms|s)", found[name]) for name in ("50", "99")]
    p50, p99 = (float(one[1]) * units[one[2]] for one in times if one is not None)
    failed = sum(map(int, re.findall(r"(?:connect|read|write|timeout|responses:) (\d+)", output)))
    return Load(p50, p99, float(re.findall(r"Requests/sec: +([\d.]+)", output)[0]), failed)


def middle(loads: list[Load]) -> Load:
    return Load(*(statistics.median(each) for each in zip(*loads, strict=True)))  # type: ignore[arg-type]


def memory(plane: Plane) -> int:
    """MiB of resident memory of Envoy."""
    status = Path(f"/proc/{plane.gateway.envoy.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) // 1024


if __name__ == "__main__":
    main()
