"""What the implementations of Gateway API can do beyond its core, which is where they differ.

Sources: each project's conformance reports and documentation, and for the regular expressions the Envoy that most of
them are built on. A gateway that is not in the table, or whose dialect nobody has checked, gets the core alone: what
an implementation does not know it may ignore, and traffic would go where nobody wanted it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from schemas.environment import Environment


class GatewayFeatures(NamedTuple):
    """One implementation."""

    title: str
    regex: bool = False  #: header matches of type RegularExpression are RE2 over octets and match the whole value
    program_limit: int | None = None  #: the largest compiled RE2 program that it takes; None: any
    exact_first: bool = False  #: of two matches with as many headers, the one with more Exact ones wins
    always_present: tuple[str, ...] = ()  #: headers that every request has when it is matched, whatever the client sent
    underscores: bool = True  #: header names with "_" arrive
    mirror: bool = False  #: RequestMirror filters
    mirror_percent: bool = False  #: ... of a part of the requests
    timeouts: bool = False  #: a rule's timeouts
    #: SecurityPolicy and BackendTrafficPolicy of gateway.envoyproxy.io: it asks the resolver, and it pins users.
    policies: bool = False
    #: PromQL selector of its counter of requests to one Service, also of those that found no pod; None: it has none.
    request_counter: str | None = None


#: HTTP/1.1 asks for the first, and Envoy adds the second before it routes (tried with Envoy 1.40).
_OF_ENVOY = ("host", "x-forwarded-proto")

FEATURES: Mapping[str, GatewayFeatures] = {
    # Our own Envoy, told not to limit the size of a regular expression, to join repeated headers, and to send the
    # resolver the octets as they are (by itself it sends "!" for what is no UTF-8).
    "embedded": GatewayFeatures(
        "the embedded gateway",
        regex=True,
        always_present=_OF_ENVOY,
        mirror=True,
        mirror_percent=True,
        timeouts=True,
        policies=True,
    ),
    # It pins users across weighted variations since 1.9.
    "envoy-gateway": GatewayFeatures(
        "Envoy Gateway",
        regex=True,
        exact_first=True,
        always_present=_OF_ENVOY,
        underscores=False,
        mirror=True,
        mirror_percent=True,
        timeouts=True,
        policies=True,
    ),
    "istio": GatewayFeatures(
        "Istio",
        regex=True,
        program_limit=32_768,
        always_present=_OF_ENVOY,
        mirror=True,
        mirror_percent=True,
        timeouts=True,
        request_counter=(
            'istio_requests_total{{reporter="source",destination_service_namespace="{namespace}",'
            'destination_service_name="{service}"}}'
        ),
    ),
    "kgateway": GatewayFeatures(
        "kgateway", regex=True, program_limit=100, always_present=_OF_ENVOY, mirror=True, timeouts=True
    ),
    # Its regular expressions are not RE2, and NGINX drops headers with "_" unless told otherwise.
    "nginx": GatewayFeatures("NGINX Gateway Fabric", underscores=False, mirror=True, mirror_percent=True),
    "unknown": GatewayFeatures("the gateway (environment.gateway.controller is not given)"),
}


def gateway_features(environment: Environment) -> GatewayFeatures:
    """What the environment's gateway can do. The embedded data plane has our own, unless another one is named."""
    controller = environment.gateway.controller
    if controller == "unknown" and environment.data_plane.type == "embedded":
        controller = "embedded"
    return FEATURES[controller]
