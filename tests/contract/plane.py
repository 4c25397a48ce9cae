"""A gateway with the objects that it looks at, and servers behind it: what tests and benchmark of the gateway use."""

from __future__ import annotations

import asyncio
import http.client
import json
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import uvloop

from embedded import kinds
from embedded.controllers import Controllers
from embedded.gateway import Gateway
from embedded.gateway.world import CLASS, GATEWAYS, ROUTES, SECURITY_POLICIES, TRAFFIC_POLICIES
from embedded.loop import Cluster, Loop
from embedded.node.addresses import Subnet
from embedded.objects import Objects
from embedded.registry import Registry
from embedded.store import Store
from tests.contract.client import eventually

UPSTREAM = Path(__file__).parent / "upstream.py"
SLICES = "endpointslices.discovery.k8s.io"
PORT = 8080

Found = TypeVar("Found")
Object = dict[str, Any]


class Said(NamedTuple):
    """An answer. `told` is what the server behind the gateway says of the request, None where it was not asked."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def told(self) -> Any:
        return json.loads(self.body) if self.body.startswith(b"{") else None

    @property
    def name(self) -> str:
        """Who answered; "" where nobody did."""
        return self.told["name"] if self.told else ""


class Server:
    """A server behind the gateway, as a process."""

    def __init__(self, name: str, address: str, port: int = 8080) -> None:
        self.name, self.address, self.port = name, address, port
        command = [sys.executable, "-I", str(UPSTREAM), name, address, str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def count(self) -> int:
        """How many requests came."""
        connection = http.client.HTTPConnection(self.address, self.port, timeout=10)
        connection.request("GET", "/count")
        number = int(connection.getresponse().read())
        connection.close()
        return number

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Plane:
    """An API server's objects and the gateway, in a thread with an event loop of its own."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._ready = threading.Event()
        self._thread = ThreadPoolExecutor(1)
        self._life = self._thread.submit(lambda: uvloop.run(self._run()))
        eventually(lambda: self._ready.is_set() or self._life.done())
        if self._life.done():
            self._life.result()

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        store = Store(self.data)
        objects = Objects(store, Registry(kinds.BUILTIN), lambda: datetime.now(UTC))  # noqa: TID251
        controllers = Controllers(objects)
        controllers.start()
        self.cluster = Cluster(objects, controllers, "test")
        self.subnet = Subnet.lease(self.data)
        self.gateway = Gateway(Cluster(objects, controllers, "trueup-gateway"), self.data, self.subnet)
        loop = Loop(objects, [self.gateway])
        await self.gateway.start()
        loop.start()
        self._ready.set()
        await self._stop.wait()
        loop.stop()
        await self.gateway.stop()
        self.subnet.close()
        store.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._life.result()
        self._thread.shutdown()

    def call(self, function: Callable[..., Found], *arguments: Any) -> Found:
        """Call a function in the thread that owns the objects."""

        async def called() -> Found:
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(20)

    def write(self, resource: str, obj: Object) -> None:
        """Create an object, or give one another spec (or whatever an EndpointSlice has)."""
        namespace, name = obj["metadata"].get("namespace", ""), obj["metadata"]["name"]

        def written() -> None:
            if self.cluster.create(resource, namespace, obj) is None:
                fields = {field: value for field, value in obj.items() if field != "metadata"}
                self.cluster.update(resource, namespace, name, lambda live: live.update(fields))

        self.call(written)

    def delete(self, resource: str, namespace: str, name: str) -> None:
        self.call(self.cluster.delete, resource, namespace, name)

    def get(self, resource: str, namespace: str, name: str) -> Object:
        found = self.call(self.cluster.get, resource, namespace, name)
        assert found is not None
        return found


class Space:
    """A namespace with a Gateway, and what the tests do with it."""

    def __init__(self, plane: Plane, name: str = "") -> None:
        self.plane = plane
        self.name = name or f"space-{secrets.token_hex(4)}"
        self._connection: http.client.HTTPConnection | None = None
        plane.write("namespaces", {"metadata": {"name": self.name}})
        self.gateway(http_listener("http"))
        eventually(lambda: self.condition(GATEWAYS, "gate", "Programmed")["status"] == "True")
        self.address: str = plane.get(GATEWAYS, self.name, "gate")["status"]["addresses"][0]["value"]

    def gateway(self, *listeners: Object, name: str = "gate") -> None:
        spec = {"gatewayClassName": CLASS, "listeners": list(listeners)}
        self.plane.write(GATEWAYS, {"metadata": {"name": name, "namespace": self.name}, "spec": spec})

    def service(self, name: str, *servers: Server, **conditions: bool) -> None:
        """A Service with these servers as its endpoints."""
        ports = [{"name": "http", "port": 80, "targetPort": 8080}]
        metadata = {"name": name, "namespace": self.name}
        self.plane.write("services", {"metadata": metadata, "spec": {"selector": {"app": name}, "ports": ports}})
        self.endpoints(name, *servers, **conditions)

    def endpoints(self, name: str, *servers: Server, **conditions: bool) -> None:
        labels = {"kubernetes.io/service-name": name}
        endpoints = [{"addresses": [server.address], "conditions": {"ready": True, **conditions}} for server in servers]
        metadata = {"name": f"{name}-1", "namespace": self.name, "labels": labels}
        ports = [{"name": "http", "port": 8080, "protocol": "TCP"}]
        self.plane.write(SLICES, {"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": ports})

    def route(
        self, name: str, *rules: Object, wait: bool = True, parents: list[Object] | None = None, **spec: Any
    ) -> None:
        """Write an HTTPRoute, and wait until it is reported on."""
        spec = {"parentRefs": parents or [{"name": "gate"}], "rules": list(rules), **spec}
        self.plane.write(ROUTES, {"metadata": {"name": name, "namespace": self.name}, "spec": spec})
        if wait:
            eventually(lambda: self.reported(name))

    def reported(self, name: str) -> bool:
        """Whether the newest version of a route is reported on."""
        route = self.plane.get(ROUTES, self.name, name)
        said = [one for parent in route.get("status", {}).get("parents", ()) for one in parent["conditions"]]
        return bool(said) and all(one["observedGeneration"] == route["metadata"]["generation"] for one in said)

    def condition(self, resource: str, name: str, kind: str) -> Object:
        """A condition of an object at its first parent; one of status "" where it has none."""
        status = self.plane.get(resource, self.name, name).get("status", {})
        lists = [status, *status.get("parents", ()), *status.get("ancestors", ())]
        said = [one for each in lists for one in each.get("conditions", ()) if one["type"] == kind]
        return said[0] if said else {"status": "", "reason": "", "message": ""}

    def security_policy(self, route: str, service: str, **auth: Any) -> None:
        http_service = {"backendRefs": [{"name": service, "port": 80}], "headersToBackend": ["x-trueup-audience"]}
        spec = {"extAuth": {"http": http_service, "headersToExtAuth": ["x-user"], "recomputeRoute": True, **auth}}
        self._policy(SECURITY_POLICIES, route, spec)

    def traffic_policy(self, route: str, header: str) -> None:
        pinned = {"type": "ConsistentHash", "consistentHash": {"type": "Header", "header": {"name": header}}}
        self._policy(TRAFFIC_POLICIES, route, {"loadBalancer": pinned})

    def _policy(self, resource: str, route: str, spec: Object) -> None:
        target = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": route}
        metadata = {"name": route, "namespace": self.name}
        self.plane.write(resource, {"metadata": metadata, "spec": {"targetRefs": [target], **spec}})
        eventually(lambda: self.condition(resource, route, "Accepted")["status"] != "")

    def get(self, path: str, headers: dict[str, str] | None = None, *, method: str = "GET", body: bytes = b"") -> Said:
        """A request through the gateway, on one connection for all."""
        if self._connection is None:
            self._connection = self.connect()
        self._connection.request(method, path, body or None, headers or {})
        response = self._connection.getresponse()
        return Said(response.status, response.read(), {key.lower(): value for key, value in response.getheaders()})

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self.address, PORT, timeout=20)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def http_listener(name: str, port: int = PORT, **more: Any) -> Object:
    return {"name": name, "port": port, "protocol": "HTTP", **more}


def backend(name: str, weight: int = 1, **more: Any) -> Object:
    return {"name": name, "port": 80, "weight": weight, **more}


def prefix(path: str, **more: Any) -> Object:
    return {"path": {"type": "PathPrefix", "value": path}, **more}


def exact(path: str, **more: Any) -> Object:
    return {"path": {"type": "Exact", "value": path}, **more}


def header(name: str, value: str, kind: str = "Exact") -> Object:
    return {"name": name, "value": value, "type": kind}


def rule(*backends: Object, matches: list[Object] | None = None, **more: Any) -> Object:
    return {"backendRefs": list(backends), **({"matches": matches} if matches else {}), **more}


class Load:
    """Requests through a gateway, as fast as they are answered, from some connections at once."""

    def __init__(
        self, space: Space, path: str = "/", connections: int = 4, headers: dict[str, str] | None = None
    ) -> None:
        self.answers: list[tuple[int, str]] = []  #: status, and who answered
        self.errors: list[Exception] = []
        self._space, self._path, self._headers = space, path, headers or {}
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(connections)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        eventually(lambda: self.answers)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def more(self, number: int = 200) -> None:
        """Wait for so many more answers."""
        wanted = len(self.answers) + number
        eventually(lambda: len(self.answers) >= wanted)

    def _ask(self) -> None:
        connection = self._space.connect()
        while not self._ending.is_set():
            try:
                connection.request("GET", self._path, headers=self._headers)
                response = connection.getresponse()
                body = response.read()
                name = json.loads(body)["name"] if response.status == 200 else body.decode()
                self.answers.append((response.status, name))
            except (OSError, http.client.HTTPException) as error:
                self.errors.append(error)
                connection.close()
        connection.close()
