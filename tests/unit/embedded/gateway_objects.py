"""Objects that the gateway looks at, as small as they can be."""

from __future__ import annotations

from typing import Any

from embedded.gateway.configuration import Configuration, Memo, configure
from embedded.gateway.listeners import route_table
from embedded.gateway.world import CLASS, Key, World

Object = dict[str, Any]

ADDRESSES = ("127.20.1.1", "127.20.1.2")


def metadata(name: str, **more: Any) -> Object:
    made = {"name": name, "namespace": "shop", "uid": f"uid-{name}", "generation": 1}
    return {**made, "creationTimestamp": "2026-01-01T00:00:00Z", **more}


def gateway(*listeners: Object, name: str = "gate", **more: Any) -> Object:
    given = listeners or ({"name": "http", "port": 80, "protocol": "HTTP"},)
    return {"metadata": metadata(name, **more), "spec": {"gatewayClassName": CLASS, "listeners": list(given)}}


def route(name: str, *rules: Object, **more: Any) -> Object:
    spec = {"parentRefs": [{"name": "gate"}], "rules": list(rules)}
    return {"metadata": metadata(name), "spec": {**spec, **more}}


def service(name: str) -> Object:
    return {"metadata": metadata(name), "spec": {"ports": [{"name": "http", "port": 80}, {"name": "more", "port": 90}]}}


def endpoints(service_name: str, *given: Object, number: int = 1, **more: Any) -> Object:
    labels = {"kubernetes.io/service-name": service_name}
    made = {"ports": [{"name": "http", "port": 8080}], "endpoints": list(given), **more}
    return {"metadata": metadata(f"{service_name}-{number}", labels=labels), **made}


def world(**objects: Object) -> World:
    """A world with a Gateway `gate`, the Services `a` and `b`, and these HTTPRoutes."""
    made = World()
    made.gateways[Key("shop", "gate")] = gateway()
    for name in ("a", "b"):
        made.services[Key("shop", name)] = service(name)
    made.namespaces[Key("", "shop")] = {"metadata": {"name": "shop", "labels": {"team": "red"}}}
    for name, one in objects.items():
        made.routes[Key("shop", name)] = one
    return made


def configured(given: World) -> Configuration:
    return configure(given, ADDRESSES, Memo())


def routes_of(given: World, host: str = "*") -> list[Object]:
    """The proxy's routes for a hostname, without the one that is always last."""
    port = configured(given).ports["shop.gate.80"]
    table = route_table(port.gate, port.number, port.placed)
    (found,) = [one["routes"] for one in table["virtual_hosts"] if one["name"] == host]
    return list(found[:-1])


def to(service_name: str, *matches: Object, **more: Any) -> Object:
    """A rule that leads to a Service."""
    return {
        "backendRefs": [{"name": service_name, "port": 80}],
        **({"matches": list(matches)} if matches else {}),
        **more,
    }
