"""What Prometheus scrapes here: the part of the Prometheus operator, as a file of targets.

An operator writes Prometheus's configuration, and Prometheus asks Kubernetes for the pods itself. That of Debian is
built without Kubernetes, but every one can read its targets from a file and watches it (`file_sd_configs`).

Of a PodMonitor the file can say `selector`, `namespaceSelector`, and of each of `podMetricsEndpoints` that names its
`port`: `path`, `scheme`, `interval`, `scrapeTimeout`. What else it asks for (limits, relabelings, credentials) belongs
to the configuration of a Prometheus, and is left to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import orjson

from embedded.kinds.problems import matches
from embedded.store import Event
from embedded.workloads.index import PODS, decoded, key_of
from embedded.workloads.pods import phase

Object = dict[str, Any]
View = Mapping[str, Any]

POD_MONITORS = "podmonitors.monitoring.coreos.com"

_Seen = TypeVar("_Seen")


class Port(NamedTuple):
    """A named port of a container."""

    container: str
    name: str
    number: int


class Pod(NamedTuple):
    """What matters of a running pod."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    address: str
    ports: tuple[Port, ...]


class Monitor(NamedTuple):
    """What matters of a PodMonitor."""

    namespace: str
    name: str
    spec: View


def running(pod: View) -> Pod | None:
    """A pod that can be scraped; None where it does not run, or has no address yet."""
    address = (pod.get("status") or {}).get("podIP")
    if phase(pod) != "Running" or not address:
        return None
    metadata, spec = pod["metadata"], pod["spec"]
    ports = tuple(
        Port(container["name"], port["name"], port["containerPort"])
        for container in (*spec["containers"], *(spec.get("initContainers") or ()))  # a sidecar is one of the latter
        for port in container.get("ports") or ()
        if port.get("name")
    )
    return Pod(metadata["namespace"], metadata["name"], metadata.get("labels") or {}, address, ports)


def targets(monitors: Iterable[Monitor], pods: Iterable[Pod]) -> list[Object]:
    """The content of the file: an entry for each port that a monitor asks for, with the labels of the operator."""
    pods = list(pods)
    return [
        {"targets": [f"{pod.address}:{port.number}"], "labels": _labels(monitor, endpoint, pod, port)}
        for monitor in monitors
        for pod in pods
        if _selects(monitor, pod)
        for endpoint in monitor.spec.get("podMetricsEndpoints") or ()
        for port in pod.ports
        if port.name == endpoint.get("port")
    ]


def _selects(monitor: Monitor, pod: Pod) -> bool:
    where = monitor.spec.get("namespaceSelector") or {}
    there = where.get("any") or pod.namespace in (where.get("matchNames") or (monitor.namespace,))
    return bool(there) and matches(monitor.spec["selector"], pod.labels)


def _labels(monitor: Monitor, endpoint: View, pod: Pod, port: Port) -> dict[str, str]:
    interval = endpoint.get("interval", "")
    said = {
        "__metrics_path__": endpoint.get("path", ""),
        "__scheme__": endpoint.get("scheme", "").lower(),
        "__scrape_interval__": interval,
        # Prometheus shortens the time-out of its configuration to the interval beside it. A target whose interval is
        # shorter than that time-out (10 s) it refuses.
        "__scrape_timeout__": endpoint.get("scrapeTimeout") or interval,
    }
    return {
        "namespace": pod.namespace,
        "pod": pod.name,
        "container": port.container,
        "endpoint": port.name,
        "job": f"{monitor.namespace}/{monitor.name}",
        **{label: value for label, value in said.items() if value},
    }


class PodMonitors:
    """loop.Controller of `prometheus/targets.json` in the data folder, which is there from the start on."""

    def __init__(self, data: Path) -> None:
        self._file = data / "prometheus" / "targets.json"
        self._pods: dict[str, Pod] = {}
        self._monitors: dict[str, Monitor] = {}
        self._file.parent.mkdir(mode=0o700, exist_ok=True)
        self._write([])  # the pods of an earlier data plane have ended

    def keys(self, event: Event) -> Iterable[str]:
        """loop.Controller: there is one key, for the file. Most of what happens to a pod does not change it."""
        key = key_of(event)
        is_there = event.type != "DELETED"
        if key.resource == PODS:
            changed = _note(self._pods, event.key, running(decoded(event.body)) if is_there else None)
        elif key.resource == POD_MONITORS:
            found = Monitor(key.namespace, key.name, decoded(event.body)["spec"]) if is_there else None
            changed = _note(self._monitors, event.key, found)
        else:
            changed = False
        return ("",) if changed else ()

    def reconcile(self, _key: str) -> float | None:
        """loop.Controller"""
        wanted = targets(_in_order(self._monitors), _in_order(self._pods))
        if wanted != self._written:
            self._write(wanted)
        return None

    def _write(self, content: list[Object]) -> None:
        temporary = self._file.with_suffix(".new")
        temporary.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
        temporary.replace(self._file)
        self._written = content


def _in_order(seen: Mapping[str, _Seen]) -> list[_Seen]:
    return [seen[key] for key in sorted(seen)]


def _note(seen: dict[str, _Seen], key: str, found: _Seen | None) -> bool:
    """Keep what there is now. Whether that is something else than before."""
    changed = seen.get(key) != found
    if found is None:
        seen.pop(key, None)
    else:
        seen[key] = found
    return changed
