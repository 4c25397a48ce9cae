"""Validation of the kinds that hold configuration, routing, access and limits: everything that is not about running
pods."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from embedded.kinds import formats
from embedded.kinds.pods import resource_name
from embedded.kinds.problems import Problems
from embedded.quantity import parse_quantity

_Object = Mapping[str, Any]
_MAX_DATA = 1024 * 1024  # bytes that a ConfigMap or a Secret may hold


def namespace(found: Problems, obj: _Object, _old: _Object | None) -> None:
    for index, finalizer in enumerate(obj["spec"].get("finalizers", ())):
        if "/" not in finalizer and finalizer != "kubernetes":
            found.invalid(
                f"spec.finalizers[{index}]",
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            )


def config_map(found: Problems, obj: _Object, old: _Object | None) -> None:
    data, binary = obj.get("data", {}), obj.get("binaryData", {})
    for key in data:
        found.each_invalid(f"data[{key}]", key, formats.config_key(key))
        if key in binary:
            found.invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
    for key in binary:
        found.each_invalid(f"binaryData[{key}]", key, formats.config_key(key))
    size = sum(len(value.encode()) for value in data.values()) + sum(len(value) * 3 // 4 for value in binary.values())
    if size > _MAX_DATA:
        found.too_long("", _MAX_DATA)
    if old is not None and old.get("immutable"):
        for name in ("data", "binaryData"):
            if obj.get(name) != old.get(name):
                found.forbidden(name, "field is immutable when `immutable` is set")
        if not obj.get("immutable"):
            found.forbidden("immutable", "field is immutable when `immutable` is set")


_SECRET_KEYS = {
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}


def secret(found: Problems, obj: _Object, old: _Object | None) -> None:
    data, kind = obj.get("data", {}), obj.get("type", "")
    for key in data:
        found.each_invalid(f"data[{key}]", key, formats.config_key(key))
    if sum(len(value) * 3 // 4 for value in data.values()) > _MAX_DATA:
        found.too_long("data", _MAX_DATA)
    for key in _SECRET_KEYS.get(kind, ()):
        if key not in data:
            found.required(f"data[{key}]")
    if kind == "kubernetes.io/service-account-token" and not obj["metadata"].get("annotations", {}).get(
        "kubernetes.io/service-account.name"
    ):
        found.required("metadata.annotations[kubernetes.io/service-account.name]")
    if kind == "kubernetes.io/basic-auth" and "username" not in data and "password" not in data:
        found.required("data[username]")
        found.required("data[password]")
    if old is not None:
        found.immutable("type", kind, old.get("type"))
        if old.get("immutable"):
            if data != old.get("data", {}):
                found.forbidden("data", "field is immutable when `immutable` is set")
            if not obj.get("immutable"):
                found.forbidden("immutable", "field is immutable when `immutable` is set")


# --- routing --------------------------------------------------------------------------------------------------


def service(found: Problems, obj: _Object, old: _Object | None) -> None:
    spec = obj["spec"]
    kind, headless = spec.get("type"), spec.get("clusterIP") == "None"
    ports = spec.get("ports", ())
    if not ports and not headless and kind != "ExternalName":
        found.required("spec.ports")
    _service_ports(found, ports, kind)
    found.labels("spec.selector", spec.get("selector"))
    if kind == "ExternalName":
        name = spec.get("externalName", "").rstrip(".")
        if not name:
            found.required("spec.externalName")
        else:
            found.each_invalid("spec.externalName", name, formats.dns_subdomain(name))
    for index, ip in enumerate(spec.get("clusterIPs", ()) or ([spec["clusterIP"]] if spec.get("clusterIP") else ())):
        if ip != "None":
            found.each_invalid(f"spec.clusterIPs[{index}]", ip, formats.ip_address(ip))
    for index, ip in enumerate(spec.get("externalIPs", ())):
        found.each_invalid(f"spec.externalIPs[{index}]", ip, formats.ip_address(ip))
    external = kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and bool(spec.get("externalIPs")))
    if spec.get("externalTrafficPolicy") and not external:
        found.invalid(
            "spec.externalTrafficPolicy",
            spec["externalTrafficPolicy"],
            "may only be set for externally-accessible services",
        )
    seconds = spec.get("sessionAffinityConfig", {}).get("clientIP", {}).get("timeoutSeconds", 1)
    if not 0 < seconds <= 86400:
        found.invalid(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            seconds,
            "must be greater than 0 and less than or equal to 86400",
        )
    if (
        old is not None
        and kind == old["spec"].get("type") == "ClusterIP"
        and spec.get("clusterIP") != old["spec"].get("clusterIP")
    ):
        found.invalid("spec.clusterIPs[0]", [spec.get("clusterIP", "")], "may not change once set")


def _service_ports(found: Problems, ports: Any, kind: str | None) -> None:
    names: set[str] = set()
    seen: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        where = f"spec.ports[{index}]"
        name = port.get("name", "")
        if not name:
            if len(ports) > 1:
                found.required(f"{where}.name")
        else:
            found.each_invalid(f"{where}.name", name, formats.dns_label(name))
            if name in names:
                found.duplicate(f"{where}.name", name)
            names.add(name)
        found.each_invalid(f"{where}.port", port.get("port", 0), formats.port_number(port.get("port", 0)))
        found.port(f"{where}.targetPort", port.get("targetPort"))
        if port.get("appProtocol") is not None:
            found.each_invalid(f"{where}.appProtocol", port["appProtocol"], formats.qualified_name(port["appProtocol"]))
        if port.get("nodePort") and kind not in ("NodePort", "LoadBalancer"):
            found.forbidden(f"{where}.nodePort", f"may not be used when `type` is '{kind}'")
        key = (port.get("protocol"), port.get("port"))
        if key in seen and not any(cause.field == where for cause in found.causes):
            found.duplicate(where, {"protocol": key[0], "port": key[1]})
        seen.add(key)


def endpoint_slice(found: Problems, obj: _Object, old: _Object | None) -> None:
    kind = obj.get("addressType")
    for index, endpoint in enumerate(obj.get("endpoints") or ()):
        where, addresses = f"endpoints[{index}]", endpoint.get("addresses") or ()
        if not addresses:
            found.required(f"{where}.addresses", "must contain at least 1 address")
        for place, address in enumerate(addresses):
            rule = formats.dns_subdomain if kind == "FQDN" else formats.ip_address
            found.each_invalid(f"{where}.addresses[{place}]", address, rule(address))
    names: set[str] = set()
    for index, port in enumerate(obj.get("ports") or ()):
        name = port.get("name", "")
        if name:
            found.each_invalid(f"ports[{index}].name", name, formats.dns_label(name))
        if name in names:
            found.duplicate(f"ports[{index}].name", name)
        names.add(name)
    if old is not None:
        found.immutable("addressType", kind, old.get("addressType"))


def network_policy(found: Problems, obj: _Object, _old: _Object | None) -> None:
    spec = obj["spec"]
    found.selector("spec.podSelector", spec.get("podSelector"))
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction, ())):
            where = f"spec.{direction}[{index}]"
            for place, port in enumerate(rule.get("ports", ())):
                _policy_port(found, f"{where}.ports[{place}]", port)
            for place, peer in enumerate(rule.get(peers, ())):
                _policy_peer(found, f"{where}.{peers}[{place}]", peer)


def _policy_port(found: Problems, field: str, port: _Object) -> None:
    number, end = port.get("port"), port.get("endPort")
    if number is not None:
        found.port(f"{field}.port", number)
    if end is None:
        return
    if isinstance(number, int):
        if end < number:
            found.invalid(f"{field}.endPort", number, "must be greater than or equal to `port`")
        found.each_invalid(f"{field}.endPort", end, formats.port_number(end))
    else:
        found.required(
            f"{field}.endPort", "may not be specified when `port` is not specified"
        ) if number is None else found.invalid(
            f"{field}.endPort", end, "may not be specified when `port` is non-numeric"
        )


def _policy_peer(found: Problems, field: str, peer: _Object) -> None:
    if not peer:
        found.required(field, "must specify a peer")
    for name in ("podSelector", "namespaceSelector"):
        found.selector(f"{field}.{name}", peer.get(name))
    block = peer.get("ipBlock")
    if block is None:
        return
    if len(peer) > 1:
        found.forbidden(field, "may not specify both ipBlock and another peer")
    where = f"{field}.ipBlock"
    if not block.get("cidr"):
        found.required(f"{where}.cidr")
        return
    problems = formats.cidr(block["cidr"])
    found.each_invalid(f"{where}.cidr", block["cidr"], problems)
    for index, text in enumerate(block.get("except", ())):
        if wrong := formats.cidr(text):
            found.each_invalid(f"{where}.except[{index}]", text, wrong)
        elif not problems and not _inside(text, block["cidr"]):
            found.invalid(f"{where}.except[{index}]", text, "must be a strict subset of `cidr`")


def _inside(inner: str, outer: str) -> bool:
    small, large = ipaddress.ip_network(inner, strict=False), ipaddress.ip_network(outer, strict=False)
    if small.version != large.version or small == large:
        return False
    return small.network_address in large and small.broadcast_address in large


# --- access ---------------------------------------------------------------------------------------------------

_RBAC = "rbac.authorization.k8s.io"


def role(found: Problems, obj: _Object, _old: _Object | None) -> None:
    _rules(found, obj, namespaced=True)


def cluster_role(found: Problems, obj: _Object, _old: _Object | None) -> None:
    _rules(found, obj, namespaced=False)


def _rules(found: Problems, obj: _Object, *, namespaced: bool) -> None:
    for index, rule in enumerate(obj.get("rules") or ()):
        where, urls = f"rules[{index}]", rule.get("nonResourceURLs")
        if not rule.get("verbs"):
            found.required(f"{where}.verbs", "verbs must contain at least one value")
        if urls:
            if namespaced:
                found.invalid(f"{where}.nonResourceURLs", urls, "namespaced rules cannot apply to non-resource URLs")
            elif rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
                found.invalid(
                    f"{where}.nonResourceURLs",
                    urls,
                    "rules cannot apply to both regular resources and non-resource URLs",
                )
            continue
        if not rule.get("apiGroups"):
            found.required(f"{where}.apiGroups", "resource rules must supply at least one api group")
        if not rule.get("resources"):
            found.required(f"{where}.resources", "resource rules must supply at least one resource")


def role_binding(found: Problems, obj: _Object, old: _Object | None) -> None:
    _binding(found, obj, old, ("Role", "ClusterRole"))


def cluster_role_binding(found: Problems, obj: _Object, old: _Object | None) -> None:
    _binding(found, obj, old, ("ClusterRole",))


def _binding(found: Problems, obj: _Object, old: _Object | None, kinds: tuple[str, ...]) -> None:
    ref = obj["roleRef"]
    if ref.get("apiGroup") != _RBAC:
        found.unsupported("roleRef.apiGroup", ref.get("apiGroup", ""), (_RBAC,))
    if ref.get("kind") not in kinds:
        found.unsupported("roleRef.kind", ref.get("kind", ""), kinds)
    if not ref.get("name"):
        found.required("roleRef.name")
    else:
        found.each_invalid("roleRef.name", ref["name"], formats.path_segment(ref["name"]))
    for index, subject in enumerate(obj.get("subjects", ())):
        _subject(found, f"subjects[{index}]", subject, namespaced="Role" in kinds)
    if old is not None and ref != old["roleRef"]:
        found.invalid("roleRef", ref, "cannot change roleRef")


def _subject(found: Problems, field: str, subject: _Object, *, namespaced: bool) -> None:
    kind = subject.get("kind")
    if not subject.get("name"):
        found.required(f"{field}.name")
    if kind == "ServiceAccount":
        found.name(f"{field}.name", subject.get("name"), formats.dns_subdomain)
        if subject.get("apiGroup"):
            found.unsupported(f"{field}.apiGroup", subject["apiGroup"], ("",))
        if not subject.get("namespace") and not namespaced:
            found.required(f"{field}.namespace")
    elif kind in ("User", "Group"):
        if subject.get("apiGroup") != _RBAC:
            found.unsupported(f"{field}.apiGroup", subject.get("apiGroup", ""), (_RBAC,))
    else:
        found.unsupported(f"{field}.kind", kind or "", ("ServiceAccount", "User", "Group"))


def lease(found: Problems, obj: _Object, _old: _Object | None) -> None:
    spec = obj["spec"]
    seconds = spec.get("leaseDurationSeconds")
    if seconds is not None and seconds <= 0:
        found.invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0")
    found.not_negative("spec.leaseTransitions", spec.get("leaseTransitions"))


# --- limits ---------------------------------------------------------------------------------------------------

_ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")


def volume_claim(found: Problems, obj: _Object, old: _Object | None) -> None:
    spec = obj["spec"]
    modes = spec.get("accessModes") or ()
    if not modes:
        found.required("spec.accessModes", "at least 1 access mode is required")
    for mode in modes:
        if mode not in _ACCESS_MODES:
            found.unsupported("spec.accessModes", mode, _ACCESS_MODES)
    size = spec.get("resources", {}).get("requests", {}).get("storage")
    if size is None:
        found.required("spec.resources[storage]")
    elif parse_quantity(size) <= 0:
        found.invalid("spec.resources[storage]", size, "must be greater than zero")
    found.name("spec.storageClassName", spec.get("storageClassName"), formats.dns_subdomain)
    if old is not None and _fixed_of_claim(obj, old) != _fixed_of_claim(old, old):
        found.forbidden(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        )


def _fixed_of_claim(claim: _Object, old: _Object) -> dict[str, Any]:
    """What may not change: a bound claim may grow, and a claim without a class may be given one."""
    mutable = {"volumeName", "volumeAttributesClassName"}
    if old["status"].get("phase") == "Bound":
        mutable.add("resources")
    if "storageClassName" not in old["spec"]:
        mutable.add("storageClassName")
    return {key: value for key, value in claim["spec"].items() if key not in mutable}


_QUOTA = (
    "cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory", "requests.storage",
    "requests.ephemeral-storage", "limits.cpu", "limits.memory", "limits.ephemeral-storage", "storage",
    "pods", "replicationcontrollers", "resourcequotas", "secrets", "configmaps", "persistentvolumeclaims",
    "services", "services.nodeports", "services.loadbalancers",
)  # fmt: skip
_COUNTED = _QUOTA[11:]


def resource_quota(found: Problems, obj: _Object, _old: _Object | None) -> None:
    for name, amount in obj["spec"].get("hard", {}).items():
        where = f"spec.hard[{name}]"
        resource_name(found, where, name, _QUOTA, "must be a standard resource for quota")
        if (
            found.quantity(where, amount)
            and (name in _COUNTED or name.startswith("count/"))
            and parse_quantity(amount) % 1
        ):
            found.invalid(where, amount, "must be an integer")


def limit_range(found: Problems, obj: _Object, _old: _Object | None) -> None:
    for index, item in enumerate(obj["spec"].get("limits") or ()):
        where, kind = f"spec.limits[{index}]", item.get("type", "")
        if kind not in ("Pod", "Container", "PersistentVolumeClaim") and "/" not in kind:
            found.invalid(f"{where}.type", kind, "must be a standard limit type or fully qualified")
        for name in sorted(
            {name for part in ("min", "max", "default", "defaultRequest") for name in item.get(part, {})}
        ):
            _limit(found, where, item, name)


def _limit(found: Problems, field: str, item: _Object, name: str) -> None:
    def amount(part: str) -> Any:
        return item.get(part, {}).get(name)

    def above(left: Any, right: Any) -> bool:
        return left is not None and right is not None and parse_quantity(left) > parse_quantity(right)

    least, most, request, default = amount("min"), amount("max"), amount("defaultRequest"), amount("default")
    if above(least, most):
        found.invalid(f"{field}.min[{name}]", least, f"min value {least} is greater than max value {most}")
    if above(least, request):
        found.invalid(
            f"{field}.defaultRequest[{name}]",
            request,
            f"min value {least} is greater than default request value {request}",
        )
    if above(request, most):
        found.invalid(
            f"{field}.defaultRequest[{name}]",
            request,
            f"default request value {request} is greater than max value {most}",
        )
    if above(request, default):
        found.invalid(
            f"{field}.defaultRequest[{name}]",
            request,
            f"default request value {request} is greater than default limit value {default}",
        )
    if above(least, default):
        found.invalid(f"{field}.default[{name}]", least, f"min value {least} is greater than default value {default}")
    if above(default, most):
        found.invalid(f"{field}.default[{name}]", most, f"default value {default} is greater than max value {most}")


def event(found: Problems, obj: _Object, _old: _Object | None) -> None:
    involved = obj.get("involvedObject", {}).get("namespace", "")
    held = obj["metadata"].get("namespace", "")
    if involved and involved != held:
        found.invalid("involvedObject.namespace", involved, "does not match event.namespace")
