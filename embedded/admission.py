"""What the server adds to an object on its way in, and what it refuses for reasons outside of the object.

Written after the admission plugins and registry strategies of kube-apiserver 1.36: namespace life cycle, service
addresses, node ports, the generated selector of Jobs, the service account of Pods.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

import orjson

from embedded.errors import StatusError, forbidden, invalid
from embedded.kinds.kind import Kind
from embedded.schema import Cause
from embedded.store import Event, Store, prefix_of

Object = dict[str, Any]

#: Where cluster IPs come from; the first one belongs to the API server itself.
SERVICE_NETWORK = ipaddress.ip_network("10.96.0.0/16")
_NODE_PORTS = range(30000, 32768)


def check_namespace(kind: Kind, namespace: str, name: str, found: Object | None) -> None:
    """Refuse new objects in a namespace that is not there, or that is going."""
    if found is None:
        details = {"name": namespace, "kind": "namespaces"}
        raise StatusError(404, "NotFound", f'namespaces "{namespace}" not found', details)
    if "deletionTimestamp" in found["metadata"]:
        why = f"unable to create new content in namespace {namespace} because it is being terminated"
        message = f"namespace {namespace} is being terminated"
        cause = {"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"}
        raise forbidden(kind, name, why, [cause])


def complete(kind: Kind, obj: Object, live: Object | None, addresses: Addresses) -> None:
    """Fill in, in place, what only the server knows. `live` None: a create."""
    match kind.group_resource:
        case "namespaces":
            _complete_namespace(obj, live)
        case "services":
            _complete_service(obj, live, addresses)
        case "customresourcedefinitions.apiextensions.k8s.io":
            _establish(obj)
        case "jobs.batch" if live is None:
            _complete_job(obj)
        case "pods" if live is None:
            _complete_pod(obj)


class Addresses:
    """Which cluster IPs and node ports the services of a store have."""

    def __init__(self, store: Store) -> None:
        self._ips: dict[str, str] = {}  # -> key of the service
        self._ports: dict[int, str] = {}
        self._by_key: dict[str, tuple[list[str], list[int]]] = {}
        self._fresh = (str(address) for address in _forever(SERVICE_NETWORK))
        for key, body in store.scan(prefix_of("services")):
            self._note(key, orjson.loads(body))
        store.listen(prefix_of("services"), self._on_event)

    def owner_of(self, ip: str) -> str | None:
        """The key of the service that has this cluster IP."""
        return self._ips.get(ip)

    def owner_of_port(self, port: int) -> str | None:
        """The key of the service that has this node port."""
        return self._ports.get(port)

    def free_ip(self) -> str:
        """A cluster IP that no service has."""
        return next(ip for ip in self._fresh if ip not in self._ips)

    def free_port(self, taken: set[int]) -> int:
        """A node port that no service has, and that is not in `taken`."""
        return next(port for port in _NODE_PORTS if port not in self._ports and port not in taken)

    def _on_event(self, event: Event) -> None:
        ips, ports = self._by_key.pop(event.key, ([], []))
        for ip in ips:
            self._ips.pop(ip, None)
        for port in ports:
            self._ports.pop(port, None)
        if event.type != "DELETED":
            self._note(event.key, orjson.loads(event.body))

    def _note(self, key: str, service: Object) -> None:
        spec = service.get("spec", {})
        ips = [ip for ip in spec.get("clusterIPs", ()) if ip != "None"]
        ports = [port["nodePort"] for port in spec.get("ports", ()) if port.get("nodePort")]
        self._by_key[key] = (ips, ports)
        self._ips.update(dict.fromkeys(ips, key))
        self._ports.update(dict.fromkeys(ports, key))


def check_addresses(kind: Kind, obj: Object, live: Object | None, addresses: Addresses) -> None:
    """Refuse a cluster IP or a node port that another service has, or that is none of ours."""
    if kind.group_resource != "services":
        return
    spec, before = obj.get("spec", {}), (live or {}).get("spec", {})
    metadata = obj["metadata"]
    key = f"services/{metadata.get('namespace', '')}/{metadata['name']}"
    causes: list[Cause] = []
    ip = spec.get("clusterIP", "")
    if ip not in ("", "None", before.get("clusterIP")):
        problem = ""
        if ipaddress.ip_address(ip) not in SERVICE_NETWORK:
            problem = f"the provided IP ({ip}) is not in the valid range. The range of valid IPs is {SERVICE_NETWORK}"
        elif addresses.owner_of(ip) not in (None, key):
            problem = "provided IP is already allocated"
        if problem:
            message = f'Invalid value: ["{ip}"]: failed to allocate IP {ip}: {problem}'
            causes.append(Cause("spec.clusterIPs", "FieldValueInvalid", message))
    for index, port in enumerate(spec.get("ports", ())):
        number = port.get("nodePort")
        if not number or addresses.owner_of_port(number) == key:
            continue
        problem = ""
        if number not in _NODE_PORTS:
            valid = f"{_NODE_PORTS[0]}-{_NODE_PORTS[-1]}"
            problem = f"provided port is not in the valid range. The range of valid ports is {valid}"
        elif addresses.owner_of_port(number) is not None:
            problem = "provided port is already allocated"
        if problem:
            causes.append(
                Cause(f"spec.ports[{index}].nodePort", "FieldValueInvalid", f"Invalid value: {number}: {problem}")
            )
    if causes:
        name = metadata["name"]
        listed = ", ".join(str(cause) for cause in causes)
        text = f'Service "{name}" is invalid: {f"[{listed}]" if len(causes) > 1 else listed}'
        raise invalid(kind, name, text, causes)


def _complete_namespace(obj: Object, live: Object | None) -> None:
    if live is None:
        obj.setdefault("spec", {})["finalizers"] = ["kubernetes"]
        obj["status"] = {"phase": "Active"}
    elif live.get("spec", {}).get("finalizers"):
        obj["spec"] = live["spec"]  # only the finalize subresource and the namespace controller change it


def _complete_service(obj: Object, live: Object | None, addresses: Addresses) -> None:
    spec = obj.setdefault("spec", {})
    before = (live or {}).get("spec", {})
    if spec.get("type") == "ExternalName":
        for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            spec.pop(field, None)
        return
    if not spec.get("clusterIP"):
        spec["clusterIP"] = (spec.get("clusterIPs") or [""])[0] or before.get("clusterIP") or addresses.free_ip()
    spec.setdefault("clusterIPs", [spec["clusterIP"]])
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    if spec.get("type") not in ("NodePort", "LoadBalancer"):
        return
    given = {port["nodePort"] for port in spec.get("ports", ()) if port.get("nodePort")}
    old = {(port.get("protocol"), port.get("port")): port.get("nodePort") for port in before.get("ports", ())}
    for port in spec.get("ports", ()):
        if not port.get("nodePort"):
            kept = old.get((port.get("protocol"), port.get("port")))
            port["nodePort"] = kept if kept and kept not in given else addresses.free_port(given)
            given.add(port["nodePort"])


def _complete_pod(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    account = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = account
    spec.setdefault("priority", 0)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    tolerations = spec.setdefault("tolerations", [])
    for trouble in ("not-ready", "unreachable"):
        key = f"node.kubernetes.io/{trouble}"
        if not any(toleration.get("key") in (None, "", key) for toleration in tolerations):
            tolerations.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})


def _complete_job(obj: Object) -> None:
    """A Job finds its Pods by its own uid, unless somebody selects by hand."""
    spec = obj.get("spec") or {}
    template = spec.get("template")
    if spec.get("manualSelector") or not isinstance(template, dict):
        return
    uid, name = obj["metadata"]["uid"], obj["metadata"]["name"]
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    labels["batch.kubernetes.io/controller-uid"] = labels["controller-uid"] = uid
    labels["batch.kubernetes.io/job-name"] = labels["job-name"] = name
    selector = spec.setdefault("selector", {}).setdefault("matchLabels", {})
    selector.setdefault("batch.kubernetes.io/controller-uid", uid)
    if not obj["metadata"].get("labels"):
        obj["metadata"]["labels"] = dict(labels)


def _establish(crd: Object) -> None:
    """The status of a definition: it is served as soon as it is there, and remembers each version it was stored in."""
    spec, before, now = crd.get("spec") or {}, crd.get("status") or {}, crd["metadata"]["creationTimestamp"]
    names = spec.get("names") or {}
    kind = str(names.get("kind", ""))
    accepted = {"listKind": f"{kind}List", "singular": kind.lower(), **names}
    stored = [version["name"] for version in spec.get("versions") or () if version.get("storage")]
    conditions = [
        _condition("NamesAccepted", "NoConflicts", "no conflicts found", now),
        _condition("Established", "InitialNamesAccepted", "the initial names have been accepted", now),
    ]
    crd["status"] = {
        "acceptedNames": accepted,
        "conditions": before.get("conditions") or conditions,
        "storedVersions": list(dict.fromkeys([*(before.get("storedVersions") or ()), *stored])),
    }


def _condition(name: str, reason: str, message: str, now: str) -> Object:
    return {"type": name, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now}


def _forever(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> Iterator[Any]:
    while True:
        # The first ten are kept for services that ask for a well-known address: the API server, DNS.
        yield from (network[index] for index in range(10, network.num_addresses - 1))
