"""Validation of pods and pod templates: what a real API server refuses, without the parts that no kind here can reach
(Windows, devices)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedded.kinds import formats
from embedded.kinds.problems import Problems, matches
from embedded.kinds.volumes import FIELDS_OF_ENV, validate_field_ref, validate_relative_path, validate_volumes
from embedded.quantity import parse_quantity

_Object = Mapping[str, Any]
_MAX_ID = 2**31 - 1
_CONTAINER_RESOURCES = ("cpu", "memory", "ephemeral-storage")
_RESOURCE_FIELDS = (
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
)


def validate_template(found: Problems, field: str, template: _Object) -> None:
    meta = template.get("metadata", {})
    found.labels(f"{field}.labels", meta.get("labels"))
    found.annotations(f"{field}.annotations", meta.get("annotations"))
    validate_pod_spec(found, f"{field}.spec", template.get("spec", {}))


def validate_selected_template(found: Problems, spec: _Object, what: str) -> None:
    """A workload that finds its pods by a selector: the selector is there, not empty, and matches the template."""
    selector = spec.get("selector")
    if selector is None:
        found.required("spec.selector")
    elif not selector.get("matchLabels") and not selector.get("matchExpressions"):
        found.invalid("spec.selector", selector, f"empty selector is invalid for {what}")
    readable = found.selector("spec.selector", selector)
    template = spec["template"]
    labels = template.get("metadata", {}).get("labels")
    if selector is not None and not readable:
        found.invalid("spec.selector", selector, "invalid label selector")
    elif selector != {} and not matches(selector, labels or {}):
        found.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    validate_template(found, "spec.template", template)


def validate_pod_spec(found: Problems, field: str, spec: _Object) -> None:
    volumes = validate_volumes(found, f"{field}.volumes", spec.get("volumes", ()))
    grace = spec.get("terminationGracePeriodSeconds", 30)
    if not spec.get("containers"):
        found.required(f"{field}.containers")
    names: set[str] = set()
    for group in ("containers", "initContainers"):
        host_ports: set[str] = set()
        for index, container in enumerate(spec.get(group) or ()):
            where = f"{field}.{group}[{index}]"
            name = container.get("name", "")
            if name in names and name:
                found.duplicate(f"{where}.name", name)
            names.add(name)
            _container(
                found,
                where,
                container,
                volumes=volumes,
                grace=grace,
                host_ports=host_ports,
                init=group == "initContainers",
            )
    found.labels(f"{field}.nodeSelector", spec.get("nodeSelector"))
    for name in ("nodeName", "serviceAccountName", "priorityClassName"):
        found.name(f"{field}.{name}", spec.get(name), formats.dns_subdomain)
    for name in ("hostname", "subdomain"):
        found.name(f"{field}.{name}", spec.get(name), formats.dns_label)
    found.within(f"{field}.activeDeadlineSeconds", spec.get("activeDeadlineSeconds"), 1, _MAX_ID)
    _security(found, f"{field}.securityContext", spec.get("securityContext", {}))
    _tolerations(found, f"{field}.tolerations", spec.get("tolerations", ()))
    _spread(found, f"{field}.topologySpreadConstraints", spec.get("topologySpreadConstraints", ()))
    _affinity(found, f"{field}.affinity", spec.get("affinity", {}))


def _container(
    found: Problems,
    field: str,
    container: _Object,
    *,
    volumes: set[str],
    grace: int,
    host_ports: set[str],
    init: bool,
) -> None:
    name = container.get("name")
    if not name:
        found.required(f"{field}.name")
    else:
        found.each_invalid(f"{field}.name", name, formats.dns_label(name))
    if not container.get("image"):
        found.required(f"{field}.image")
    found.one_of(f"{field}.restartPolicy", container.get("restartPolicy"), ("Always", "Never", "OnFailure"))
    sidecar = container.get("restartPolicy") == "Always"
    _ports(found, f"{field}.ports", container.get("ports", ()), host_ports)
    _env(found, field, container)
    _mounts(found, f"{field}.volumeMounts", container.get("volumeMounts", ()), volumes)
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe in container:
            if init and not sidecar:
                found.forbidden(f"{field}.{probe}", "may not be set for init containers without restartPolicy=Always")
            else:
                _probe(found, f"{field}.{probe}", container[probe], once=probe != "readinessProbe")
    for moment, handler in container.get("lifecycle", {}).items():
        if isinstance(handler, Mapping):
            where = f"{field}.lifecycle.{moment}"
            _handler(found, where, handler, ("exec", "httpGet", "tcpSocket", "sleep"))
            seconds = handler.get("sleep", {}).get("seconds", 0) if "sleep" in handler else 0
            if seconds < 0 or seconds > grace:
                found.invalid(
                    f"{where}.sleep",
                    seconds,
                    f"must be non-negative and less than terminationGracePeriodSeconds ({grace})",
                )
    validate_resources(found, f"{field}.resources", container.get("resources", {}))
    context = container.get("securityContext", {})
    _ids(found, f"{field}.securityContext", context, ("runAsUser", "runAsGroup"))
    _seccomp(found, f"{field}.securityContext", context)
    if context.get("privileged") and context.get("allowPrivilegeEscalation") is False:
        found.invalid(
            f"{field}.securityContext",
            context,
            "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        )


def _ports(found: Problems, field: str, ports: Any, host_ports: set[str]) -> None:
    names = set()
    for index, port in enumerate(ports):
        where = f"{field}[{index}]"
        if "name" in port:
            if port["name"] in names:
                found.duplicate(f"{where}.name", port["name"])
            elif not (problems := formats.port_name(port["name"])):
                names.add(port["name"])
            else:
                found.each_invalid(f"{where}.name", port["name"], problems)
        if not port.get("containerPort"):
            found.required(f"{where}.containerPort")
        else:
            found.each_invalid(
                f"{where}.containerPort", port["containerPort"], formats.port_number(port["containerPort"])
            )
        if port.get("hostPort"):
            found.each_invalid(f"{where}.hostPort", port["hostPort"], formats.port_number(port["hostPort"]))
            key = f"{port.get('protocol', 'TCP')}/{port.get('hostIP', '')}/{port['hostPort']}"
            if key in host_ports:
                found.duplicate(f"{where}.hostPort", key)
            host_ports.add(key)


def _env(found: Problems, field: str, container: _Object) -> None:
    for index, variable in enumerate(container.get("env", ())):
        where = f"{field}.env[{index}]"
        if not variable.get("name"):
            found.required(f"{where}.name")
        else:
            found.each_invalid(f"{where}.name", variable["name"], formats.variable_name(variable["name"]))
        source = variable.get("valueFrom")
        if source is not None:
            _env_source(found, f"{where}.valueFrom", source, has_value=bool(variable.get("value")))
    for index, source in enumerate(container.get("envFrom", ())):
        where = f"{field}.envFrom"
        given = [name for name in ("configMapRef", "secretRef") if name in source]
        if not given:
            found.invalid(where, "", "must specify one of: `configMapRef` or `secretRef`")
        elif len(given) > 1:
            found.invalid(where, "", "may not have more than one field specified at a time")
        for name in given:
            if not source[name].get("name"):
                found.required(f"{where}[{index}].{name}.name")
            else:
                found.each_invalid(
                    f"{where}[{index}].{name}.name", source[name]["name"], formats.dns_subdomain(source[name]["name"])
                )


def _env_source(found: Problems, field: str, source: _Object, *, has_value: bool) -> None:
    given = [
        name
        for name in ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
        if name in source
    ]
    for name in given:
        where, ref = f"{field}.{name}", source[name]
        if name == "fieldRef":
            validate_field_ref(found, where, ref, FIELDS_OF_ENV)
        elif name == "resourceFieldRef":
            if ref.get("resource") not in _RESOURCE_FIELDS and not ref.get("resource", "").startswith(
                ("limits.hugepages-", "requests.hugepages-")
            ):
                found.unsupported(f"{where}.resource", ref.get("resource", ""), _RESOURCE_FIELDS)
        elif name != "fileKeyRef":
            found.each_invalid(f"{where}.name", ref.get("name", ""), formats.dns_subdomain(ref.get("name", "")))
            if not ref.get("key"):
                found.required(f"{where}.key")
            else:
                found.each_invalid(f"{where}.key", ref["key"], formats.config_key(ref["key"]))
    if not given:
        found.invalid(
            field,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        )
    elif has_value:
        found.invalid(field, "", "may not be specified when `value` is not empty")
    elif len(given) > 1:
        found.invalid(field, "", "may not have more than one field specified at a time")


def _mounts(found: Problems, field: str, mounts: Any, volumes: set[str]) -> None:
    paths = set()
    for index, mount in enumerate(mounts):
        where = f"{field}[{index}]"
        if not mount.get("name"):
            found.required(f"{where}.name")
        if mount.get("name") not in volumes:
            found.not_found(f"{where}.name", mount.get("name", ""))
        path = mount.get("mountPath")
        if not path:
            found.required(f"{where}.mountPath")
        elif path in paths:
            found.invalid(f"{where}.mountPath", path, "must be unique")
        paths.add(path)
        for name in ("subPath", "subPathExpr"):
            if mount.get(name):
                validate_relative_path(found, f"{where}.{name}", mount[name])


_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")


def _probe(found: Problems, field: str, probe: _Object, *, once: bool) -> None:
    _handler(found, field, probe, _HANDLERS)
    for name in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        found.not_negative(f"{field}.{name}", probe.get(name))
    grace = probe.get("terminationGracePeriodSeconds")
    if grace is not None and grace <= 0:
        found.invalid(f"{field}.terminationGracePeriodSeconds", grace, "must be greater than 0")
    if once and probe.get("successThreshold", 1) != 1:
        found.invalid(f"{field}.successThreshold", probe["successThreshold"], "must be 1")


def _handler(found: Problems, field: str, handler: _Object, kinds: tuple[str, ...]) -> None:
    given = [name for name in kinds if name in handler]
    if not given:
        found.required(field, "must specify a handler type")
    for name in given[1:]:
        found.forbidden(f"{field}.{name}", "may not specify more than 1 handler type")
    if not given:
        return
    name = given[0]
    action, where = handler[name], f"{field}.{name}"
    if name == "exec" and not action.get("command"):
        found.required(f"{where}.command")
    if name in ("httpGet", "tcpSocket", "grpc"):
        found.port(f"{where}.port", action.get("port"))
    if name == "httpGet":
        found.one_of(f"{where}.scheme", action.get("scheme"), ("HTTP", "HTTPS")) if action.get("scheme") not in (
            "HTTP",
            "HTTPS",
        ) else None


def validate_resources(found: Problems, field: str, resources: _Object) -> None:
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    for part, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            where = f"{field}.{part}[{name}]"
            resource_name(found, where, name, _CONTAINER_RESOURCES, "must be a standard resource for containers")
            if found.quantity(where, amount) and "/" in name and parse_quantity(amount) % 1:
                found.invalid(where, amount, "must be an integer")
    for name, amount in requests.items():
        limit = limits.get(name)
        if limit is None:
            if _is_extended(name):
                found.required(f"{field}.limits", "Limit must be set for non overcommitable resources")
        elif _is_extended(name) and parse_quantity(amount) != parse_quantity(limit):
            found.invalid(f"{field}.requests", amount, f"must be equal to {name} limit of {limit}")
        elif parse_quantity(amount) > parse_quantity(limit):
            found.invalid(f"{field}.requests", amount, f"must be less than or equal to {name} limit of {limit}")


def _is_extended(name: str) -> bool:
    """Counted whole, never overcommitted: GPUs, huge pages."""
    return ("/" in name and "kubernetes.io/" not in name) or name.startswith("hugepages-")


def resource_name(found: Problems, field: str, name: str, known: tuple[str, ...], otherwise: str) -> None:
    problems = formats.qualified_name(name)
    found.each_invalid(field, name, problems)
    if "/" not in name and name not in known and not name.startswith("hugepages-"):
        if not problems:
            found.invalid(field, name, "must be a standard resource type or fully qualified")
        found.invalid(field, name, otherwise)


def _ids(found: Problems, field: str, context: _Object, names: tuple[str, ...]) -> None:
    for name in names:
        found.within(f"{field}.{name}", context.get(name), 0, _MAX_ID)


def _seccomp(found: Problems, field: str, context: _Object) -> None:
    profile = context.get("seccompProfile")
    if profile is None:
        return
    if profile.get("type") == "Localhost":
        if not profile.get("localhostProfile"):
            found.required(f"{field}.seccompProfile.localhostProfile", "must be set when seccomp type is Localhost")
    elif profile.get("localhostProfile") is not None:
        found.invalid(
            f"{field}.seccompProfile.localhostProfile",
            profile["localhostProfile"],
            "can only be set when seccomp type is Localhost",
        )


def _security(found: Problems, field: str, context: _Object) -> None:
    _ids(found, field, context, ("fsGroup", "runAsUser", "runAsGroup"))
    for index, group in enumerate(context.get("supplementalGroups", ())):
        found.within(f"{field}.supplementalGroups[{index}]", group, 0, _MAX_ID)
    _seccomp(found, field, context)


def _tolerations(found: Problems, field: str, tolerations: Any) -> None:
    for index, toleration in enumerate(tolerations):
        where = f"{field}[{index}]"
        key, operator, effect = toleration.get("key", ""), toleration.get("operator", ""), toleration.get("effect", "")
        if key:
            found.each_invalid(f"{where}.key", key, formats.qualified_name(key))
        elif operator != "Exists":
            found.invalid(
                f"{where}.operator",
                operator,
                'operator must be Exists when `key` is empty, which means "match all values and all keys"',
            )
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            found.invalid(f"{where}.effect", effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
        if operator in ("", "Equal"):
            found.each_invalid(
                f"{where}.operator", toleration.get("value", ""), formats.label_value(toleration.get("value", ""))
            )
        elif operator == "Exists":
            if toleration.get("value"):
                found.invalid(
                    f"{where}.operator", toleration["value"], "value must be empty when `operator` is 'Exists'"
                )
        else:
            found.one_of(f"{where}.operator", operator, ("Equal", "Exists"))


def _spread(found: Problems, field: str, constraints: Any) -> None:
    seen: list[str] = []
    for index, constraint in enumerate(constraints):
        where = f"{field}[{index}]"
        if constraint.get("maxSkew", 0) <= 0:
            found.invalid(f"{where}.maxSkew", constraint.get("maxSkew", 0), "must be greater than zero")
        if not constraint.get("topologyKey"):
            found.required(f"{where}.topologyKey", "can not be empty")
        pair = f"{{{constraint.get('topologyKey')}, {constraint.get('whenUnsatisfiable')}}}"
        if pair in seen:
            found.duplicate(f"{field}[{seen.index(pair)}].{{topologyKey, whenUnsatisfiable}}", pair)
        seen.append(pair)
        if constraint.get("minDomains") is not None and constraint["minDomains"] <= 0:
            found.invalid(f"{where}.minDomains", constraint["minDomains"], "must be greater than zero")
        found.selector(f"{where}.labelSelector", constraint.get("labelSelector"))


def _affinity(found: Problems, field: str, affinity: _Object) -> None:
    required, preferred = (
        "requiredDuringSchedulingIgnoredDuringExecution",
        "preferredDuringSchedulingIgnoredDuringExecution",
    )
    node = affinity.get("nodeAffinity", {})
    if required in node and not node[required].get("nodeSelectorTerms"):
        found.required(
            f"{field}.nodeAffinity.{required}.nodeSelectorTerms", "must have at least one node selector term"
        )
    for index, term in enumerate(node.get(preferred, ())):
        _weight(found, f"{field}.nodeAffinity.{preferred}[{index}].weight", term.get("weight", 0))
    for kind in ("podAffinity", "podAntiAffinity"):
        for index, term in enumerate(affinity.get(kind, {}).get(required, ())):
            _affinity_term(found, f"{field}.{kind}.{required}[{index}]", term)
        for index, weighted in enumerate(affinity.get(kind, {}).get(preferred, ())):
            _weight(found, f"{field}.{kind}.{preferred}[{index}].weight", weighted.get("weight", 0))
            _affinity_term(
                found, f"{field}.{kind}.{preferred}[{index}].podAffinityTerm", weighted.get("podAffinityTerm", {})
            )


def _weight(found: Problems, field: str, weight: int) -> None:
    if not 1 <= weight <= 100:
        found.invalid(field, weight, "must be in the range 1-100")


def _affinity_term(found: Problems, field: str, term: _Object) -> None:
    key = term.get("topologyKey", "")
    if not key:
        found.required(f"{field}.topologyKey", "can not be empty")
    found.each_invalid(f"{field}.topologyKey", key, formats.qualified_name(key))
    for name in ("labelSelector", "namespaceSelector"):
        found.selector(f"{field}.{name}", term.get(name))
