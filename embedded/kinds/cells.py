"""The values that `kubectl get` shows: how a status becomes a word, and a time an age."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from embedded.kinds.kind import Cell

_Object = Mapping[str, Any]


def parse_time(text: str) -> datetime:
    """An RFC 3339 time of an object, with or without fractions."""
    return datetime.fromisoformat(text)


def human_duration(elapsed: timedelta) -> str:
    """`45s`, `5m30s`, `3h20m`, `6d4h`, `2y30d`: two units while the first is small, as kubectl prints ages."""
    seconds = int(elapsed.total_seconds())
    if seconds < -1:
        return "<invalid>"
    seconds = max(seconds, 0)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    if days < 365 * 8:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(first: int, first_unit: str, second: int, second_unit: str) -> str:
    return f"{first}{first_unit}{second}{second_unit}" if second else f"{first}{first_unit}"


def age(text: str | None, now: datetime) -> str:
    return human_duration(now.astimezone(UTC) - parse_time(text)) if text else "<unknown>"


def at(obj: Any, path: str, default: Any = None) -> Any:
    """`at(pod, "spec.nodeName")`; the default where any part is missing or null."""
    for part in path.split("."):
        if not isinstance(obj, Mapping):
            return default
        obj = obj.get(part)
    return default if obj is None else obj


def value(path: str, default: Any = "<none>") -> Cell:
    return lambda obj, _now: at(obj, path, default)


def text(path: str, default: str = "<none>") -> Cell:
    return lambda obj, _now: str(at(obj, path, default))


def joined(items: Iterable[str]) -> str:
    return ",".join(items) or "<none>"


def selector_text(selector: Mapping[str, Any] | None) -> str:
    """A LabelSelector as `a=b,c in (d,e),!f`; `<none>` when it is empty."""
    if not selector:
        return "<none>"
    parts = [f"{key}={value}" for key, value in sorted(selector.get("matchLabels", {}).items())]
    for rule in selector.get("matchExpressions", ()):
        key, values = rule["key"], ",".join(sorted(rule.get("values", ())))
        parts.append(
            {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key}.get(
                rule["operator"], f"!{key}"
            )
        )
    return joined(parts)


def pod_ready(pod: _Object, _now: datetime) -> str:
    sidecars = {item["name"] for item in at(pod, "spec.initContainers", ()) if item.get("restartPolicy") == "Always"}
    statuses = at(pod, "status.containerStatuses", ())
    ready = sum(bool(status.get("ready")) for status in statuses)
    ready += sum(
        bool(s.get("ready") and s.get("started"))
        for s in at(pod, "status.initContainerStatuses", ())
        if s["name"] in sidecars
    )
    return f"{ready}/{len(at(pod, 'spec.containers', ())) + len(sidecars)}"


def pod_status(pod: _Object) -> str:
    """The one word of `kubectl get pods`: a container's reason where it says more than the phase."""
    reason: str = at(pod, "status.reason") or at(pod, "status.phase", "")
    init = _init_reason(pod)
    if init:
        reason = init
    else:
        running = False
        for status in reversed(at(pod, "status.containerStatuses", ())):
            state = status.get("state", {})
            waiting, terminated = state.get("waiting") or {}, state.get("terminated") or {}
            if waiting.get("reason"):
                reason = waiting["reason"]
            elif terminated:
                reason = terminated.get("reason") or _exit_text(terminated)
            elif status.get("ready") and state.get("running") is not None:
                running = True
        if reason == "Completed" and running:
            conditions = at(pod, "status.conditions", ())
            ready = any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
            reason = "Running" if ready else "NotReady"
    if at(pod, "metadata.deletionTimestamp"):
        return "Unknown" if at(pod, "status.reason") == "NodeLost" else "Terminating"
    return reason


def _exit_text(terminated: _Object) -> str:
    return f"Signal:{terminated['signal']}" if terminated.get("signal") else f"ExitCode:{terminated.get('exitCode', 0)}"


def _init_reason(pod: _Object) -> str:
    total = len(at(pod, "spec.initContainers", ()))
    sidecars = {item["name"] for item in at(pod, "spec.initContainers", ()) if item.get("restartPolicy") == "Always"}
    for index, status in enumerate(at(pod, "status.initContainerStatuses", ())):
        state = status.get("state", {})
        waiting, terminated = state.get("waiting") or {}, state.get("terminated")
        if terminated is not None and terminated.get("exitCode", 0) == 0:
            continue
        if status["name"] in sidecars and status.get("started"):
            continue
        if terminated is not None:
            return f"Init:{terminated.get('reason') or _exit_text(terminated)}"
        if waiting.get("reason") and waiting["reason"] != "PodInitializing":
            return f"Init:{waiting['reason']}"
        return f"Init:{index}/{total}"
    return ""


def restarts(pod: _Object, now: datetime) -> str:
    statuses = at(pod, "status.containerStatuses", ())
    count = sum(status.get("restartCount", 0) for status in statuses)
    last = max((at(status, "lastState.terminated.finishedAt", "") for status in statuses), default="")
    return f"{count} ({age(last, now)} ago)" if count and last else str(count)


def readiness_gates(pod: _Object, _now: datetime) -> str:
    gates = [gate["conditionType"] for gate in at(pod, "spec.readinessGates", ())]
    true = {item["type"] for item in at(pod, "status.conditions", ()) if item["status"] == "True"}
    return f"{sum(gate in true for gate in gates)}/{len(gates)}" if gates else "<none>"


def external_ip(service: _Object, _now: datetime) -> str:
    kind, spec = at(service, "spec.type"), service.get("spec", {})
    ips = list(spec.get("externalIPs", ()))
    if kind == "ExternalName":
        return str(spec.get("externalName", ""))
    if kind == "LoadBalancer":
        ingress = [
            item.get("ip") or item.get("hostname", "") for item in at(service, "status.loadBalancer.ingress", ())
        ]
        return ",".join([*ingress, *ips]) or "<pending>"
    return joined(ips)


def ports(service: _Object, _now: datetime) -> str:
    def one(port: _Object) -> str:
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        return f"{port['port']}{node}/{port.get('protocol', 'TCP')}"

    return joined(one(port) for port in at(service, "spec.ports", ()))


def endpoints(endpoints: _Object, _now: datetime) -> str:
    found = []
    for subset in endpoints.get("subsets", ()):
        ports = [port["port"] for port in subset.get("ports", ())]
        found += [
            f"{address['ip']}:{port}" if port else address["ip"]
            for port in ports or [0]
            for address in subset.get("addresses", ())
        ]
    return _capped(found)


def _capped(items: list[str]) -> str:
    shown = ",".join(items[:3]) or "<none>"
    return f"{shown} + {len(items) - 3} more..." if len(items) > 3 else shown


def job_status(job: _Object, _now: datetime) -> str:
    true = {item["type"] for item in at(job, "status.conditions", ()) if item["status"] == "True"}
    for name, shown in (("Complete", "Complete"), ("Failed", "Failed")):
        if name in true:
            return shown
    if at(job, "metadata.deletionTimestamp"):
        return "Terminating"
    for name, shown in (
        ("Suspended", "Suspended"),
        ("FailureTarget", "FailureTarget"),
        ("SuccessCriteriaMet", "SuccessCriteriaMet"),
    ):
        if name in true:
            return shown
    return "Running"


def completions(job: _Object, _now: datetime) -> str:
    done, wanted, parallel = at(job, "status.succeeded", 0), at(job, "spec.completions"), at(job, "spec.parallelism", 0)
    if wanted is not None:
        return f"{done}/{wanted}"
    return f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"


def job_duration(job: _Object, now: datetime) -> str:
    started, finished = at(job, "status.startTime"), at(job, "status.completionTime")
    if not started:
        return ""
    return human_duration((parse_time(finished) if finished else now) - parse_time(started))


def reference(hpa: _Object, _now: datetime) -> str:
    target = at(hpa, "spec.scaleTargetRef", {})
    return f"{target.get('kind')}/{target.get('name')}"


def hpa_targets(hpa: _Object, _now: datetime) -> str:
    current = at(hpa, "status.currentMetrics", ())
    shown = []
    for index, metric in enumerate(at(hpa, "spec.metrics", ())):
        source = _metric_source(metric)
        measured = _metric_source(current[index]).get("current", {}) if index < len(current) else {}
        target = source.get("target", {})
        if target.get("averageUtilization") is not None:
            now_text = (
                f"{measured['averageUtilization']}%" if measured.get("averageUtilization") is not None else "<unknown>"
            )
            text = f"{now_text}/{target['averageUtilization']}%"
        else:
            field = "averageValue" if target.get("averageValue") is not None else "value"
            text = f"{measured.get(field, '<unknown>')}/{target.get(field, '<auto>')}"
            if metric.get("type") == "External" and field == "averageValue":
                text += " (avg)"
        name = source.get("name")
        shown.append(f"{name}: {text}" if metric.get("type") == "Resource" else text)
    if len(shown) > 2:
        return f"{', '.join(shown[:2])} + {len(shown) - 2} more..."
    return ", ".join(shown) or "<none>"


def _metric_source(metric: _Object) -> Any:
    name = metric.get("type", "")
    return metric.get(name[:1].lower() + name[1:], {})


def pdb_bound(field: str) -> Cell:
    return lambda obj, _now: str(at(obj, f"spec.{field}", "N/A"))


def subjects(kind: str) -> Cell:
    def cell(obj: _Object, _now: datetime) -> str:
        found = [subject for subject in obj.get("subjects", ()) if subject.get("kind") == kind]
        named = (f"{s.get('namespace')}/{s['name']}" if kind == "ServiceAccount" else s["name"] for s in found)
        return ", ".join(named)

    return cell


def role(obj: _Object, _now: datetime) -> str:
    return f"{at(obj, 'roleRef.kind')}/{at(obj, 'roleRef.name')}"


def event_object(event: _Object, _now: datetime) -> str:
    involved = event.get("involvedObject", {})
    return (
        f"{involved.get('kind', '').lower()}/{involved['name']}"
        if involved.get("name")
        else involved.get("kind", "").lower()
    )


def event_time(first: str) -> Cell:
    def cell(event: _Object, now: datetime) -> str:
        moment = at(event, first) or at(event, "series.lastObservedTime") or at(event, "eventTime")
        return age(moment, now)

    return cell


def event_source(event: _Object, _now: datetime) -> str:
    component = at(event, "source.component") or at(event, "reportingComponent", "")
    host = at(event, "source.host") or at(event, "reportingInstance", "")
    return f"{component}, {host}" if host else component


def slice_ports(item: _Object, _now: datetime) -> str:
    return _capped([str(port.get("port", "*")) for port in item.get("ports") or ()]) if item.get("ports") else "<unset>"


def slice_addresses(item: _Object, _now: datetime) -> str:
    found = [address for endpoint in item.get("endpoints") or () for address in endpoint.get("addresses", ())]
    return _capped(found) if found else "<unset>"


def quota(wanted: Callable[[str], bool]) -> Cell:
    def cell(quota: _Object, _now: datetime) -> str:
        used = at(quota, "status.used", {})
        hard = at(quota, "status.hard", {})
        return ", ".join(
            f"{name}: {used.get(name, '0')}/{limit}" for name, limit in sorted(hard.items()) if wanted(name)
        )

    return cell


def node_status(node: _Object, _now: datetime) -> str:
    ready = next((item["status"] for item in at(node, "status.conditions", ()) if item["type"] == "Ready"), "Unknown")
    words = [{"True": "Ready", "False": "NotReady"}.get(ready, "Unknown")]
    return ",".join([*words, "SchedulingDisabled"] if at(node, "spec.unschedulable") else words)


def node_roles(node: _Object, _now: datetime) -> str:
    prefix = "node-role.kubernetes.io/"
    return joined(sorted(key.removeprefix(prefix) for key in at(node, "metadata.labels", {}) if key.startswith(prefix)))


def access_modes(pvc: _Object, _now: datetime) -> str:
    short = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
    return ",".join(short.get(mode, mode) for mode in at(pvc, "status.accessModes", ()))


def data_count(obj: _Object, _now: datetime) -> int:
    return len(obj.get("data") or ()) + len(obj.get("binaryData") or ())


def ready_of(wanted: str) -> Cell:
    return lambda obj, _now: f"{at(obj, 'status.readyReplicas', 0)}/{at(obj, wanted, 0)}"
