"""The embedded API server as a process: what is there after a crash, who else may start, who may read what."""

from __future__ import annotations

import signal
import socket
import ssl
import stat
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from tests.contract.client import ROOT, Api, EmbeddedServer, config_map

MAPS = "/api/v1/namespaces/default/configmaps"

Start = Callable[..., EmbeddedServer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    servers: list[EmbeddedServer] = []

    def begin(*arguments: str) -> EmbeddedServer:
        servers.append(EmbeddedServer(tmp_path / "data", *arguments))
        return servers[-1]

    yield begin
    for server in servers:
        if server.process.poll() is None:
            server.end(signal.SIGKILL)


def client(server: EmbeddedServer) -> Api:
    return Api(server.kubeconfig, "embedded")


def test_what_was_answered_survives_a_kill(start: Start) -> None:
    first = start()
    api = client(first)
    written = [api.apply(f"{MAPS}/m{number}", config_map(f"m{number}", {"k": "v"})).body for number in range(50)]
    api.close()
    first.end(signal.SIGKILL)
    second = start()
    api = client(second)
    assert [api("GET", f"{MAPS}/m{number}").body for number in range(50)] == written
    newest = max(int(item["metadata"]["resourceVersion"]) for item in written)
    assert int(api.apply(f"{MAPS}/more", config_map("more")).body["metadata"]["resourceVersion"]) > newest
    api.close()
    assert second.end() == 0


def test_a_watch_goes_on_after_a_restart(start: Start) -> None:
    first = start()
    api = client(first)
    version = api("GET", MAPS).body["metadata"]["resourceVersion"]
    api("POST", MAPS, config_map("a"))
    api("DELETE", f"{MAPS}/a")
    api.close()
    assert first.end() == 0
    second = start()
    api = client(second)
    with api.watch(MAPS, f"resourceVersion={version}&fieldSelector=metadata.name=a") as events:
        assert [next(events)["type"], next(events)["type"]] == ["ADDED", "DELETED"]
    api.close()
    second.end()


def test_credentials_stay_over_a_restart(start: Start) -> None:
    first = start("--port", "0")
    before = first.kubeconfig.read_text()
    port = first.first_line.rpartition(":")[2]
    first.end()
    second = start("--port", port)
    assert second.kubeconfig.read_text() == before
    second.end()


def test_history_that_was_compacted_is_gone(start: Start) -> None:
    server = start("--history", "100")
    api = client(server)
    version = api("GET", MAPS).body["metadata"]["resourceVersion"]
    page = api("GET", "/api/v1/namespaces?limit=1").body["metadata"]["continue"]
    for number in range(1200):
        api("PUT", f"{MAPS}/a", config_map("a", {"n": str(number)})) if number else api("POST", MAPS, config_map("a"))
    with api.watch(MAPS, f"resourceVersion={version}") as events:
        event = next(events)
        assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert event["object"]["message"].startswith(f"too old resource version: {version} (")
        assert list(events) == []
    exact = api("GET", f"{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact")
    assert (exact.status, exact.body["reason"]) == (410, "Expired")
    more = api("GET", f"/api/v1/namespaces?limit=1&continue={page}")
    assert (more.status, more.body["reason"]) == (410, "Expired")
    assert api("GET", f"{MAPS}/a").body["data"] == {"n": "1199"}
    api.close()
    server.end()


def test_a_second_server_on_the_same_directory_is_refused(start: Start) -> None:
    start()
    second = start()
    assert second.first_line == ""
    assert "is in use by another embedded API server" in second.log()
    assert second.end() == 3


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::"])
def test_other_machines_are_not_served(start: Start, host: str) -> None:
    server = start("--host", host)
    assert "is no loopback address" in server.log()
    assert server.end() == 2


def test_a_port_that_is_taken_is_named(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = start("--port", str(port))
        assert f"cannot listen on 127.0.0.1:{port}" in server.log()
        assert server.end() == 3


def test_only_the_owner_can_read_what_it_keeps(start: Start, tmp_path: Path) -> None:
    elsewhere = tmp_path / "kube" / "config"
    server = start("--kubeconfig", str(elsewhere))
    server.end()
    for path in [*server.data.iterdir(), elsewhere]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(server.data.stat().st_mode) == 0o700


def test_the_token_is_in_no_log(start: Start) -> None:
    server = start()
    api = client(server)
    api("GET", "/api/v1/namespaces")
    api.close()
    log = server.log()
    server.end()
    assert api.token not in log
    assert api.token not in server.first_line


def test_a_stop_ends_watches_properly(start: Start) -> None:
    server = start()
    api = client(server)
    with api.watch(MAPS, "resourceVersion=0") as events:
        server.process.send_signal(signal.SIGTERM)
        assert [event for event in events if event["type"] == "ERROR"] == []
    api.close()
    assert server.end() == 0


@pytest.mark.parametrize(
    "text",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X-Long: " + b"a" * 100_000 + b"\r\n\r\n",
        b"POST /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_and_others_go_on(start: Start, text: bytes) -> None:
    server = start()
    api = client(server)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _, port = api.address.partition(":")
    with socket.create_connection((host, int(port))) as plain, context.wrap_socket(plain) as connection:
        connection.sendall(text)
        assert connection.recv(1000).startswith(b"HTTP/1.1 4")
    assert api("GET", "/readyz").status == 200
    api.close()
    log = server.log()
    assert server.end() == 0
    assert "Traceback" not in log


def test_a_watch_may_begin_with_more_than_a_client_reads_at_once(start: Start) -> None:
    server = start()
    api = client(server)
    number, size = 250, 100_000
    for index in range(number):
        assert api("POST", MAPS, config_map(f"big{index}", {"k": "x" * size})).status == 201
    with api.watch(MAPS, "resourceVersion=0&allowWatchBookmarks=true") as events:
        time.sleep(0.5)  # nobody reads yet, and 25 MB wait
        assert sum(1 for event in islice(events, number) if event["type"] == "ADDED") == number
        assert next(events)["type"] == "BOOKMARK"
    api.close()
    assert server.end() == 0


def test_deeply_nested_bodies_are_refused_and_harm_nobody(start: Start) -> None:
    server = start()
    api = client(server)
    for body, kind in (
        ("[" * 100_000, "application/yaml"),
        ("- " * 50_000, "application/yaml"),
        ("[" * 100_000, "application/json"),
    ):
        assert api("POST", MAPS, body, content_type=kind).status == 400
    assert api("GET", "/readyz").status == 200
    api.close()
    assert server.end() == 0


def test_the_package_stands_alone() -> None:
    import ast

    for path in (ROOT / "embedded").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {name.partition(".")[0] for name in names} & {"schemas", "renderers", "reconciler", "runtime"}, (
                path
            )
