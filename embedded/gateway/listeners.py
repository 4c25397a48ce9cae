"""Listeners of the proxy, the route tables behind them, and what it is started with. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from embedded.gateway.attachment import Gate, Section, owner
from embedded.gateway.hostnames import covers, precision
from embedded.gateway.routes import RETRY_POLICY, Compiled
from embedded.gateway.world import Key, Object

#: The first name of statistics about requests.
STATISTICS = "gateway"

#: Who a request was routed as; only a service that a SecurityPolicy names may say so.
AUDIENCE_HEADER = "x-trueup-audience"

#: Of a request body, what is kept for another try and for copies, in bytes. A larger one gets neither.
_KEPT = 16 << 20

_HEADERS_KIB = 60
_HEADERS_COUNT = 100
_CONNECTIONS = 50_000
_SERVER = "trueup"


class Placed(NamedTuple):
    """An HTTPRoute on a listener, for one hostname."""

    section: str
    hostname: str
    key: Key
    compiled: Compiled


def typed(name: str) -> Object:
    """The beginning of a message whose type must be told."""
    return {"@type": f"type.googleapis.com/envoy.{name}"}


# --- route tables ------------------------------------------------------------------------------------------------

#: The frogml client asks the server it predicts with for this before its first prediction.
_CLIENT_CHECK: Object = {
    "match": {
        "path": "/ui/api/v1/system/auth/screen/footer",
        "headers": [{"name": ":method", "string_match": {"exact": "GET"}}],
    },
    "direct_response": {"status": 200, "body": {"inline_string": '{"serverId":"trueup"}'}},
    "response_headers_to_add": [
        {
            "header": {"key": "content-type", "value": "application/json"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    ],
}


def route_table(gate: Gate, port: int, placed: Iterable[Placed]) -> Object:
    """All routes of a listener.

    A request belongs to the listener that describes its hostname most closely, even if that has no route for it. Of
    that listener's HTTPRoutes those for the closest hostname come first, and then the rank decides.
    """
    here = list(placed)
    sections = [section for section in gate.sections if section.port == port and section.refused is None]
    domains = {one.hostname for one in here} | {section.hostname for section in sections} | {""}
    return {
        **typed("config.route.v3.RouteConfiguration"),
        "name": gate.listener(port),
        "ignore_port_in_host_matching": True,
        "request_headers_to_remove": ["x-envoy-external-address"],
        "virtual_hosts": [_virtual_host(domain, owner(gate, port, domain), here) for domain in sorted(domains)],
    }


def _virtual_host(domain: str, section: Section | None, placed: list[Placed]) -> Object:
    matching = [
        (one.hostname, one.compiled)
        for one in placed
        if section is not None and one.section == section.name and covers(one.hostname, domain)
    ]
    ranked = []
    for hostname, compiled in matching:
        shorter = tuple(-number for number in precision(hostname))
        ranked += [((shorter, rank), route) for rank, route in compiled.routes]
    ranked.sort(key=lambda item: item[0])
    return {
        "name": domain or "*",
        "domains": [domain or "*"],
        "retry_policy": RETRY_POLICY,
        "request_body_buffer_limit": _KEPT,
        "routes": [*(route for _, route in ranked), _CLIENT_CHECK],
    }


# --- listeners ---------------------------------------------------------------------------------------------------


def listener(gate: Gate, port: int, filters: Mapping[str, Object], routes: Path) -> Object:
    """A listener with these filters, which are off until a route turns them on. Its routes are in the file `routes`."""
    return {
        **typed("config.listener.v3.Listener"),
        "name": gate.listener(port),
        "address": {"socket_address": {"address": gate.address, "port_value": port}},
        # Or another process that allows it, too, would share the port unnoticed.
        "enable_reuse_port": False,
        "per_connection_buffer_limit_bytes": _KEPT,
        "filter_chains": [
            {"filters": [{"name": "http", "typed_config": _connection_manager(gate.listener(port), filters, routes)}]}
        ],
    }


def _connection_manager(name: str, filters: Mapping[str, Object], routes: Path) -> Object:
    without = typed("extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation")
    router = typed("extensions.filters.http.router.v3.Router") | {"suppress_envoy_headers": True}
    return {
        **typed("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": STATISTICS,
        "rds": {"route_config_name": name, "config_source": {"path_config_source": {"path": str(routes)}}},
        # Whoever connects is a stranger: what they send to steer the proxy (x-envoy-*) goes.
        "use_remote_address": True,
        "early_header_mutation_extensions": [
            {"name": "audience", "typed_config": without | {"mutations": [{"remove": AUDIENCE_HEADER}]}}
        ],
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "server_name": _SERVER,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
        "max_request_headers_kb": _HEADERS_KIB,
        "common_http_protocol_options": {
            "max_headers_count": _HEADERS_COUNT,
            "headers_with_underscores_action": "ALLOW",
        },
        "request_headers_timeout": "30s",
        "http_filters": [*filters.values(), {"name": "router", "typed_config": router}],
    }


# --- what it is started with -------------------------------------------------------------------------------------


def bootstrap(listeners: Path, clusters: Path, admin: str) -> Object:
    """Envoy's own configuration. `admin` is the path of its administration's socket."""
    counters = [
        {"prefix": "cluster_manager."},
        {"prefix": "listener_manager."},
        {"prefix": "server."},
        {"prefix": f"http.{STATISTICS}."},
    ]
    limit = typed("extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig")
    settings: Object = {f"re2.max_program_size.{level}_level": 4_294_967_295 for level in ("error", "warn")}
    # A header that is sent twice has one value, with a comma between both (RFC 9110, 5.3): so it is for ext_authz, too.
    settings["envoy.reloadable_features.match_headers_individually"] = False
    return {
        "node": {"id": "gateway", "cluster": "embedded"},
        "admin": {"address": {"pipe": {"path": admin, "mode": 0o600}}},
        "dynamic_resources": {
            "cds_config": {"path_config_source": {"path": str(clusters)}},
            "lds_config": {"path_config_source": {"path": str(listeners)}},
        },
        "stats_config": {"stats_matcher": {"inclusion_list": {"patterns": counters}}},
        "layered_runtime": {"layers": [{"name": "settings", "static_layer": settings}]},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": limit | {"max_active_downstream_connections": _CONNECTIONS},
                }
            ]
        },
    }
