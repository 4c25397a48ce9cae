"""Service -> EndpointSlices: where the Pods of a Service are, and which of them take requests.

Written after kube-controller-manager 1.36, for IPv4. A slice holds up to 100 endpoints, and an endpoint stays in the
slice that it is in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from embedded.loop import Cluster
from embedded.store import Event
from embedded.workloads import pods as _pods
from embedded.workloads.index import PODS, SERVICES, SLICES, Index, key_of, states
from embedded.workloads.writes import Create, Delete, Replace, Write, Writer

Object = dict[str, Any]
View = Mapping[str, Any]

MANAGED_BY = "endpointslice-controller.k8s.io"
_LABEL_MANAGER, _LABEL_SERVICE = "endpointslice.kubernetes.io/managed-by", "kubernetes.io/service-name"
_LABEL_HEADLESS = "service.kubernetes.io/headless"
_MOST_IN_A_SLICE = 100


def decide(service: Object, pods: Iterable[View], slices: Iterable[Object]) -> list[Write]:
    """What makes the slices of a Service those of its Pods. `pods` are those that it selects."""
    wanted: dict[bytes, dict[str, Object]] = {}  # by ports, then by the Pod's uid
    for pod in pods:
        if _pods.is_finished(pod) or not (pod.get("status") or {}).get("podIP"):
            continue
        ports = orjson.dumps(_ports(service, pod), option=orjson.OPT_SORT_KEYS)
        wanted.setdefault(ports, {})[pod["metadata"]["uid"]] = _endpoint(service, pod)
    if not wanted:
        wanted[b"[]"] = {}  # a Service without endpoints has an empty slice
    labels = _labels(service)
    writes: list[Write] = []
    by_ports: dict[bytes, list[Object]] = {}
    for found in slices:
        ports = orjson.dumps(found.get("ports") or [], option=orjson.OPT_SORT_KEYS)
        by_ports.setdefault(ports if _is_owned(found, service) else b"", []).append(found)
    for ports, endpoints in wanted.items():
        for old, filled in _fill(by_ports.pop(ports, []), endpoints):
            if old is None:
                writes.append(Create(SLICES, _slice(service, labels, orjson.loads(ports), filled), service))
            elif not filled and endpoints:
                writes.append(Delete(SLICES, old))
            elif (old.get("endpoints") or []) != filled or old["metadata"].get("labels") != labels:
                changed = {**old, "metadata": {**old["metadata"], "labels": labels}, "endpoints": filled}
                writes.append(Replace(SLICES, changed))
    writes += [Delete(SLICES, found) for left in by_ports.values() for found in left]
    return writes


def _fill(slices: list[Object], endpoints: Mapping[str, Object]) -> list[tuple[Object | None, list[Object]]]:
    """The endpoints of each slice, as far as possible those that it has already; None stands for a new slice."""
    left = dict(endpoints)
    filled: list[tuple[Object | None, list[Object]]] = []
    for found in slices:
        kept = ((endpoint.get("targetRef") or {}).get("uid", "") for endpoint in found.get("endpoints") or ())
        filled.append((found, [left.pop(uid) for uid in kept if uid in left]))
    for _, members in sorted(filled, key=lambda pair: -len(pair[1])):  # the fullest first: few slices
        for uid in list(left)[: _MOST_IN_A_SLICE - len(members)]:
            members.append(left.pop(uid))
    rest = list(left.values())
    filled += [(None, rest[start : start + _MOST_IN_A_SLICE]) for start in range(0, len(rest), _MOST_IN_A_SLICE)]
    return filled or [(None, [])]


def _endpoint(service: View, pod: View) -> Object:
    spec, metadata = pod["spec"], pod["metadata"]
    serving, terminating = _pods.is_ready(pod), _pods.is_deleting(pod)
    always = bool(service["spec"].get("publishNotReadyAddresses"))
    endpoint: Object = {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {
            "ready": always or (serving and not terminating),
            "serving": serving,
            "terminating": terminating,
        },
        "targetRef": {
            "kind": "Pod",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
    }
    if spec.get("nodeName"):
        endpoint["nodeName"] = spec["nodeName"]
    if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
        endpoint["hostname"] = spec["hostname"]
    return endpoint


def _ports(service: View, pod: View) -> list[Object]:
    """The Service's ports on a Pod; a name that the Pod does not have gives none."""
    ports: list[Object] = []
    for port in service["spec"].get("ports") or ():
        number = _number(port, pod)
        if number is not None:
            found = {"name": port.get("name", ""), "port": number, "protocol": port.get("protocol", "TCP")}
            ports.append(found | ({"appProtocol": port["appProtocol"]} if "appProtocol" in port else {}))
    return ports


def _number(port: View, pod: View) -> int | None:
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target
    sidecars = (found for found in pod["spec"].get("initContainers") or () if found.get("restartPolicy") == "Always")
    for container in (*pod["spec"]["containers"], *sidecars):
        for found in container.get("ports") or ():
            if found.get("name") == target and found.get("protocol", "TCP") == port.get("protocol", "TCP"):
                return int(found["containerPort"])
    return None


def _labels(service: View) -> dict[str, str]:
    """The Service's own, and how a slice is found."""
    ours = {_LABEL_SERVICE: service["metadata"]["name"], _LABEL_MANAGER: MANAGED_BY}
    if service["spec"].get("clusterIP", "None") in ("None", ""):
        ours[_LABEL_HEADLESS] = ""
    theirs = service["metadata"].get("labels") or {}
    return {key: value for key, value in theirs.items() if key != _LABEL_HEADLESS} | ours


def _slice(service: View, labels: Mapping[str, str], ports: list[Object], endpoints: list[Object]) -> Object:
    metadata = {
        "generateName": f"{service['metadata']['name']}-",
        "labels": dict(labels),
        "ownerReferences": [_pods.owner_reference(service)],
    }
    return {"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": ports}


def _is_owned(found: View, service: View) -> bool:
    uid = service["metadata"]["uid"]
    return any(reference["uid"] == uid for reference in found["metadata"].get("ownerReferences") or ())


class Endpoints:
    """loop.Controller of the EndpointSlices of Services that select Pods."""

    def __init__(self, cluster: Cluster, index: Index, writer: Writer) -> None:
        self._cluster = cluster
        self._index = index
        self._writer = writer

    def keys(self, event: Event) -> Iterable[str]:
        """loop.Controller"""
        key = key_of(event)
        names: set[str] = set()
        if key.resource == SERVICES:
            names.add(key.name)
        elif key.resource == SLICES:
            labels = [found["metadata"].get("labels") or {} for found in states(event)]
            names.update(found[_LABEL_SERVICE] for found in labels if found.get(_LABEL_MANAGER) == MANAGED_BY)
        elif key.resource == PODS:
            for pod in states(event):
                names.update(self._index.selecting(SERVICES, key.namespace, pod["metadata"].get("labels") or {}))
        return [f"{key.namespace}/{name}" for name in sorted(names)]

    def reconcile(self, key: str) -> float | None:
        """loop.Controller"""
        namespace, _, name = key.partition("/")
        service = self._cluster.get(SERVICES, namespace, name)
        if service is None or _pods.is_deleting(service):
            return None
        selector = service["spec"].get("selector")
        if not selector or service["spec"].get("type") == "ExternalName":
            return None  # somebody else writes its endpoints, or it has none
        pods = self._cluster.read(PODS, namespace, self._index.selected(PODS, namespace, {"matchLabels": selector}))
        ours = {"matchLabels": {_LABEL_SERVICE: name, _LABEL_MANAGER: MANAGED_BY}}
        slices = self._cluster.read(SLICES, namespace, self._index.selected(SLICES, namespace, ours))
        self._writer.carry_out(decide(service, pods, slices))
        return None
