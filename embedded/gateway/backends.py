"""What stands behind a route: Services, and the endpoints of their pods, as clusters of the proxy. Pure.

Endpoints are written into their cluster. Envoy could read them from files of their own (EDS), but it opens an inotify
instance for each, of which Linux gives a user 128, and ends itself when there is none left (tried with Envoy 1.40). A
cluster whose endpoints change is replaced: its requests in flight finish on their old connections.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import NamedTuple

from embedded.gateway.world import Key, Object, Problem, World


class Backend(NamedTuple):
    """What a backendRef leads to; `cluster` is "" where that is nothing."""

    cluster: str
    problem: Problem | None = None


class Ref(NamedTuple):
    """A backendRef, as far as it says where to."""

    group: str
    kind: str
    namespace: str
    name: str
    port: int | None


def ref_of(written: Object, namespace: str) -> Ref:
    """A backendRef of an object in this namespace."""
    return Ref(
        written.get("group", ""),
        written.get("kind", "Service"),
        written.get("namespace", namespace),
        written["name"],
        written.get("port"),
    )


def resolve(ref: Ref, namespace: str, services: Mapping[Key, Object]) -> Backend:
    """The cluster of a backendRef of an object in this namespace, or what is wrong with it."""
    if (ref.group, ref.kind) != ("", "Service"):
        kind = f"{ref.kind}.{ref.group}" if ref.group else ref.kind
        return Backend("", Problem("InvalidKind", f"backend {ref.name} is a {kind}, and only Services are supported"))
    if ref.namespace != namespace:
        why = f"Service {ref.namespace}/{ref.name} is in another namespace, and no ReferenceGrant allows that"
        return Backend("", Problem("RefNotPermitted", why))
    service = services.get(Key(ref.namespace, ref.name))
    if service is None:
        return Backend("", Problem("BackendNotFound", f"there is no Service {ref.namespace}/{ref.name}"))
    if all(port["port"] != ref.port for port in service["spec"].get("ports", ())):
        return Backend("", Problem("BackendNotFound", f"Service {ref.namespace}/{ref.name} has no port {ref.port}"))
    return Backend(f"{ref.namespace}.{ref.name}.{ref.port}")


class Endpoints:
    """The addresses behind each port of each Service."""

    def __init__(self, world: World) -> None:
        self._services = world.services
        self._slices: dict[Key, list[Object]] = {}
        for key, one in sorted(world.slices.items()):
            service = one["metadata"].get("labels", {}).get("kubernetes.io/service-name")
            if service:
                self._slices.setdefault(Key(key.namespace, service), []).append(one)

    def of(self, cluster: str) -> tuple[tuple[str, int], ...]:
        """Address and port of what is ready behind a cluster. Where nothing is, of what ends but still answers."""
        namespace, name, number = cluster.split(".")
        service = self._services.get(Key(namespace, name))
        ports = service["spec"].get("ports", ()) if service is not None else ()
        meant = {port.get("name", "") for port in ports if port["port"] == int(number)}
        ready: dict[tuple[str, int], None] = {}
        ending: dict[tuple[str, int], None] = {}
        for one in self._slices.get(Key(namespace, name), ()):
            targets = [port["port"] for port in one.get("ports") or () if (port.get("name") or "") in meant]
            for endpoint in one.get("endpoints") or ():
                conditions = endpoint.get("conditions", {})
                into = ready if conditions.get("ready", True) else ending if conditions.get("serving") else None
                if into is not None and _is_address(endpoint["addresses"][0]):
                    into.update(dict.fromkeys((endpoint["addresses"][0], port) for port in targets))
        return tuple(ready or ending)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


#: A model's server drops a connection on which nothing came for a while (gunicorn after 2 s, uvicorn after 5 s). A
#: request that is just then sent on it would be lost, so the proxy drops it first. A new one costs 0.1 ms here.
_IDLE = "1s"

#: How many at once: no limit of the proxy, because the servers have their own, and say so with a 503 of theirs.
_NO_LIMIT = 1_000_000

_LIMITS = {
    "max_connections": _NO_LIMIT,
    "max_pending_requests": _NO_LIMIT,
    "max_requests": _NO_LIMIT,
    "max_retries": _NO_LIMIT,
}
_PROTOCOL = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def cluster(name: str, endpoints: tuple[tuple[str, int], ...]) -> Object:
    """A cluster with these endpoints.

    An endpoint that cannot be connected to is left out for a while. What a model answers never counts: a 500 may be
    the fault of the request.
    """
    return {
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {
                    "lb_endpoints": [
                        {"endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}}}
                        for address, port in endpoints
                    ]
                }
            ],
        },
        "circuit_breakers": {"thresholds": [_LIMITS]},
        "outlier_detection": {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 2,
            "enforcing_consecutive_local_origin_failure": 100,
            "enforcing_local_origin_success_rate": 0,
            "enforcing_consecutive_5xx": 0,
            "enforcing_consecutive_gateway_failure": 0,
            "enforcing_success_rate": 0,
            "interval": "1s",
            "base_ejection_time": "1s",
            "max_ejection_time": "5s",
            "max_ejection_percent": 100,
        },
        "typed_extension_protocol_options": {
            _PROTOCOL: {
                "@type": f"type.googleapis.com/{_PROTOCOL}",
                "common_http_protocol_options": {"idle_timeout": _IDLE},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }
