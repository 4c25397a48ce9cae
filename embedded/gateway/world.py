"""What the gateway looks at: the objects of the store that matter to it, as they are now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from embedded.store import Event

Object = dict[str, Any]

#: The name under which the gateway reports, and the class of the Gateways that are its own.
CONTROLLER = "trueup.dev/embedded"
CLASS = "trueup-embedded"

GROUP = "gateway.networking.k8s.io"

CLASSES = f"gatewayclasses.{GROUP}"
GATEWAYS = f"gateways.{GROUP}"
ROUTES = f"httproutes.{GROUP}"
SECURITY_POLICIES = "securitypolicies.gateway.envoyproxy.io"
TRAFFIC_POLICIES = "backendtrafficpolicies.gateway.envoyproxy.io"

_FIELDS = {
    CLASSES: "classes",
    GATEWAYS: "gateways",
    ROUTES: "routes",
    "services": "services",
    "endpointslices.discovery.k8s.io": "slices",
    "namespaces": "namespaces",
    SECURITY_POLICIES: "security_policies",
    TRAFFIC_POLICIES: "traffic_policies",
}


class Key(NamedTuple):
    """Which object of its kind; `namespace` is "" where the kind has none."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Problem(NamedTuple):
    """Why something is not as its author wants it: a reason as Gateway API has them, and a sentence."""

    reason: str
    message: str


@dataclass(slots=True)
class World:
    """Objects by namespace and name. What is in it is never changed, only replaced."""

    classes: dict[Key, Object] = field(default_factory=dict)
    gateways: dict[Key, Object] = field(default_factory=dict)
    routes: dict[Key, Object] = field(default_factory=dict)
    services: dict[Key, Object] = field(default_factory=dict)
    slices: dict[Key, Object] = field(default_factory=dict)
    namespaces: dict[Key, Object] = field(default_factory=dict)
    security_policies: dict[Key, Object] = field(default_factory=dict)
    traffic_policies: dict[Key, Object] = field(default_factory=dict)

    def note(self, event: Event) -> bool:
        """Take over a change; whether it is about anything that matters here."""
        resource, namespace, name = event.key.split("/", 2)
        if resource not in _FIELDS:
            return False
        objects: dict[Key, Object] = getattr(self, _FIELDS[resource])
        if event.type == "DELETED":
            objects.pop(Key(namespace, name), None)
        else:
            objects[Key(namespace, name)] = orjson.loads(event.body)
        return True

    def snapshot(self) -> World:
        """The world as it is now, whatever happens to this one."""
        return World(*(dict(getattr(self, name)) for name in _FIELDS.values()))

    def labels(self, namespace: str) -> dict[str, str]:
        """The labels of a namespace."""
        found: dict[str, str] = self.namespaces.get(Key("", namespace), {}).get("metadata", {}).get("labels", {})
        return found


def oldest_first(objects: Iterable[tuple[Key, Object]]) -> list[tuple[Key, Object]]:
    """In Gateway API's order of precedence: by age, then by name."""
    return sorted(objects, key=lambda item: (item[1]["metadata"]["creationTimestamp"], item[0]))
