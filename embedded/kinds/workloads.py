"""Validation of what runs pods and what looks after them: Deployment, ReplicaSet, StatefulSet, Job, CronJob,
autoscaler, disruption budget."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Mapping
from functools import cache
from typing import Any

from embedded.kinds import formats
from embedded.kinds.pods import validate_pod_spec, validate_selected_template, validate_template
from embedded.kinds.problems import Problems, matches
from embedded.schema import Cause

_Object = Mapping[str, Any]


def deployment(found: Problems, obj: _Object, old: _Object | None) -> None:
    spec = obj["spec"]
    found.not_negative("spec.replicas", spec.get("replicas"))
    _always_restarts(found, spec, "deployment")
    _strategy(found, spec["strategy"])
    found.not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    found.not_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None:
        found.not_negative("spec.progressDeadlineSeconds", deadline)
        if deadline <= spec.get("minReadySeconds", 0):
            found.invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds")
    if old is not None:
        found.immutable("spec.selector", spec.get("selector"), old["spec"].get("selector"))


def _always_restarts(found: Problems, spec: _Object, what: str) -> None:
    validate_selected_template(found, spec, what)
    pod = spec["template"]["spec"]
    if pod.get("restartPolicy") != "Always":
        found.unsupported("spec.template.spec.restartPolicy", pod.get("restartPolicy"), ("Always",))
    if pod.get("activeDeadlineSeconds") is not None:
        found.forbidden(
            "spec.template.spec.activeDeadlineSeconds", "activeDeadlineSeconds in ReplicaSet is not Supported"
        )


def _strategy(found: Problems, strategy: _Object) -> None:
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    if kind == "Recreate":
        if rolling is not None:
            found.forbidden("spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")
        return
    if kind != "RollingUpdate":
        found.unsupported("spec.strategy", strategy, ("Recreate", "RollingUpdate"))
        return
    surge, unavailable = (rolling or {}).get("maxSurge"), (rolling or {}).get("maxUnavailable")
    found.int_or_percent("spec.strategy.rollingUpdate.maxUnavailable", unavailable)
    found.int_or_percent("spec.strategy.rollingUpdate.maxSurge", surge, at_most_100=False)
    if unavailable in (0, "0%") and surge in (0, "0%"):
        found.invalid("spec.strategy.rollingUpdate.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0")


def replica_set(found: Problems, obj: _Object, old: _Object | None) -> None:
    spec = obj["spec"]
    found.not_negative("spec.replicas", spec.get("replicas"))
    found.not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    _always_restarts(found, spec, "replicaset")
    if old is not None:
        found.immutable("spec.selector", spec.get("selector"), old["spec"].get("selector"))


_MUTABLE_OF_STATEFUL_SET = (
    "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
)  # fmt: skip


def stateful_set(found: Problems, obj: _Object, old: _Object | None) -> None:
    spec = obj["spec"]
    if spec.get("podManagementPolicy") not in ("OrderedReady", "Parallel"):
        found.invalid(
            "spec.podManagementPolicy", spec.get("podManagementPolicy"), "must be 'OrderedReady' or 'Parallel'"
        )
    if spec["updateStrategy"].get("type") not in ("RollingUpdate", "OnDelete"):
        found.invalid("spec.updateStrategy", spec["updateStrategy"], "must be 'RollingUpdate' or 'OnDelete'")
    found.not_negative("spec.replicas", spec.get("replicas"))
    found.not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    found.name("spec.serviceName", spec.get("serviceName"), formats.dns_label)
    _always_restarts(found, spec, "statefulset")
    if old is not None:
        fixed = [
            {key: value for key, value in held["spec"].items() if key not in _MUTABLE_OF_STATEFUL_SET}
            for held in (obj, old)
        ]
        if fixed[0] != fixed[1]:
            found.forbidden("spec", f"updates to statefulset spec for fields other than {_listed()} are forbidden")


def _listed() -> str:
    *most, last = (f"'{name}'" for name in _MUTABLE_OF_STATEFUL_SET)
    return f"{', '.join(most)} and {last}"


# --- jobs -----------------------------------------------------------------------------------------------------


def job(found: Problems, obj: _Object, old: _Object | None) -> None:
    spec, uid = obj["spec"], obj["metadata"].get("uid", "")
    selector, labels = spec.get("selector"), spec["template"].get("metadata", {}).get("labels", {})
    if selector is None:
        found.required("spec.selector")
    else:
        readable = found.selector("spec.selector", selector)
        if (
            old is None
            and not spec.get("manualSelector")
            and selector != {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
        ):
            found.invalid("spec.selector", selector, "`selector` not auto-generated")
        if readable and not matches(selector, labels):
            found.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    job_spec(found, "spec", spec)
    if old is not None:
        _unchanged_job(
            found,
            spec,
            old["spec"],
            suspended=bool(old["spec"].get("suspend")) and not old.get("status", {}).get("startTime"),
        )


def job_spec(found: Problems, field: str, spec: _Object) -> None:
    for name in (
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ):
        found.not_negative(f"{field}.{name}", spec.get(name))
    if spec.get("completionMode") == "Indexed" and spec.get("completions") is None:
        found.required(f"{field}.completions", "when completion mode is Indexed")
    template = spec["template"]
    pod = template["spec"]
    names = {container.get("name") for group in ("containers", "initContainers") for container in pod.get(group) or ()}
    if "podFailurePolicy" in spec:
        if pod.get("restartPolicy") != "Never":
            found.invalid(
                f"{field}.podTemplate.spec.restartPolicy",
                pod.get("restartPolicy"),
                'only "Never" is supported when podFailurePolicy is specified',
            )
        for index, rule in enumerate(spec["podFailurePolicy"].get("rules") or ()):
            _failure_rule(found, f"{field}.podFailurePolicy.rules[{index}]", rule, names)
        if spec.get("podReplacementPolicy") == "TerminatingOrFailed":
            found.unsupported(f"{field}.podReplacementPolicy", "TerminatingOrFailed", ("Failed",))
    validate_template(found, f"{field}.template", template)
    if pod.get("restartPolicy") in (None, "Always"):
        found.required(f"{field}.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"')


def _failure_rule(found: Problems, field: str, rule: _Object, names: set[Any]) -> None:
    codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
    if codes is not None:
        where, values = f"{field}.onExitCodes", codes.get("values") or []
        if codes.get("containerName") is not None and codes["containerName"] not in names:
            found.invalid(
                f"{where}.containerName",
                codes["containerName"],
                "must be one of the container or initContainer names in the pod template",
            )
        if not values:
            found.invalid(f"{where}.values", values, "at least one value is required")
        if len(values) > 255:
            found.invalid(f"{where}.values", len(values), "must have at most 255 items")
        for index, value in enumerate(values):
            if codes.get("operator") == "In" and value == 0:
                found.invalid(f"{where}.values[{index}]", value, "must not be 0 for the In operator")
        if len(set(values)) != len(values):
            found.duplicate(f"{where}.values", next(value for value in values if values.count(value) > 1))
        elif sorted(values) != values:
            found.invalid(f"{where}.values", values, "must be ordered")
        if conditions:
            found.invalid(field, rule, "specifying both OnExitCodes and OnPodConditions is not supported")
    elif not conditions:
        message = "Invalid value: specifying one of OnExitCodes and OnPodConditions is required"
        found.causes.append(Cause(field, "FieldValueInvalid", message))  # the one place where the server shows no value


_FIXED_OF_JOB = ("selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy")


def _unchanged_job(found: Problems, new: _Object, old: _Object, *, suspended: bool) -> None:
    elastic = new.get("completionMode") == "Indexed" and new.get("parallelism") == new.get("completions")
    if not elastic:
        found.immutable("spec.completions", new.get("completions"), old.get("completions"))
    for name in _FIXED_OF_JOB:
        found.immutable(f"spec.{name}", new.get(name), old.get(name))
    templates = [new["template"], old["template"]]
    if suspended:  # where a job may run can still be decided before it starts
        templates = [_without_placement(template) for template in templates]
    if templates[0] != templates[1]:
        found.invalid("spec.template", new["template"], "field is immutable")


def _without_placement(template: _Object) -> dict[str, Any]:
    meta = {key: value for key, value in template.get("metadata", {}).items() if key not in ("labels", "annotations")}
    placed = ("nodeSelector", "tolerations", "affinity", "schedulingGates")
    pod = {key: value for key, value in template["spec"].items() if key not in placed}
    for group in ("containers", "initContainers"):
        if group in pod:
            pod[group] = [
                {key: value for key, value in container.items() if key != "resources"} for container in pod[group]
            ]
    return {**template, "metadata": meta, "spec": pod}


def cron_job(found: Problems, obj: _Object, _old: _Object | None) -> None:
    spec = obj["spec"]
    if len(obj["metadata"].get("name", "")) > 52:  # a Job's name is 11 characters longer
        found.invalid("metadata.name", obj["metadata"]["name"], "must be no more than 52 characters")
    schedule = spec.get("schedule", "")
    if not schedule:
        found.required("spec.schedule")
    elif "TZ" in schedule:
        found.invalid("spec.schedule", schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead")
    else:
        found.each_invalid("spec.schedule", schedule, schedule_problems(schedule))
    zone = spec.get("timeZone")
    if zone == "":
        found.invalid("spec.timeZone", zone, "timeZone must be nil or non-empty string")
    elif zone is not None and zone not in _time_zones():
        found.invalid("spec.timeZone", zone, f"unknown time zone {zone}")
    for name in ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        found.not_negative(f"spec.{name}", spec.get(name))
    job_spec(found, "spec.jobTemplate.spec", spec["jobTemplate"]["spec"])


@cache
def _time_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones() | {"UTC", "Local"})


_MACROS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_WORDS: tuple[tuple[str, ...], ...] = (
    (),
    (),
    (),
    ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
)


def schedule_problems(schedule: str) -> list[str]:
    """Why a cron schedule of five fields (or a macro such as `@daily`) cannot be read: [] when it can."""
    if schedule.startswith("@"):
        if schedule in _MACROS or re.fullmatch(r"@every (\d+(\.\d+)?(h|m|s|ms))+", schedule):
            return []
        return [f"unrecognized descriptor: {schedule}"]
    parts = schedule.split()
    if len(parts) != 5:
        return [f"expected exactly 5 fields, found {len(parts)}: [{' '.join(parts)}]"]
    for part, bounds, words in zip(parts, _BOUNDS, _WORDS, strict=True):
        for item in part.split(","):
            problem = _range_problem(item, bounds, words)
            if problem:
                return [problem]
    return []


def _range_problem(item: str, bounds: tuple[int, int], words: tuple[str, ...]) -> str:
    span, slash, step = item.partition("/")
    low, dash, high = span.partition("-")
    first_word = 1 if bounds[0] == 1 else 0

    def number(text: str) -> int | None:
        if text.lower() in words:
            return words.index(text.lower()) + first_word
        return int(text) if text.isascii() and text.isdigit() else None

    if slash and (not step.isdigit() or int(step) == 0):
        return (
            f"failed to parse int from {step}: invalid syntax"
            if not step.isdigit()
            else f"step of range should be a positive number: {item}"
        )
    if span in ("*", "?"):
        return ""
    start, end = number(low), number(high) if dash else number(low)
    if start is None or end is None:
        wrong = low if start is None else high
        return f'failed to parse int from {wrong}: strconv.Atoi: parsing "{wrong}": invalid syntax'
    if start < bounds[0]:
        return f"beginning of range ({start}) below minimum ({bounds[0]}): {item}"
    if end > bounds[1]:
        return f"end of range ({end}) above maximum ({bounds[1]}): {item}"
    return f"beginning of range ({start}) beyond end of range ({end}): {item}" if start > end else ""


# --- scaling and disruption -----------------------------------------------------------------------------------


def autoscaler(found: Problems, obj: _Object, _old: _Object | None) -> None:
    spec = obj["spec"]
    least, most = spec.get("minReplicas", 1), spec.get("maxReplicas", 0)
    metrics = spec.get("metrics", ())
    if least < 1:
        found.invalid("spec.minReplicas", least, "must be greater than or equal to 1")
    if most < 1:
        found.required("spec.maxReplicas", "must be set and greater than 0")
    if most < least:
        found.invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`")
    target = spec["scaleTargetRef"]
    for name in ("kind", "name"):
        if not target.get(name):
            found.required(f"spec.scaleTargetRef.{name}")
        else:
            found.each_invalid(f"spec.scaleTargetRef.{name}", target[name], formats.path_segment(target[name]))
    if "/" not in target.get("apiVersion", ""):
        found.invalid(
            "spec.scaleTargetRef.apiVersion", target.get("apiVersion", ""), "apiVersion must specify API group"
        )
    for index, metric in enumerate(metrics):
        _metric(found, f"spec.metrics[{index}]", metric)
    if least == 0 and not any(metric.get("type") in ("Object", "External") for metric in metrics):
        found.forbidden(
            "spec.metrics", "must specify at least one Object or External metric to support scaling to zero replicas"
        )
    for direction in ("scaleUp", "scaleDown"):
        rules = spec.get("behavior", {}).get(direction)
        if rules is not None:
            _scaling_rules(found, f"spec.behavior.{direction}", rules)


_METRICS = ("ContainerResource", "External", "Object", "Pods", "Resource")


def _metric(found: Problems, field: str, metric: _Object) -> None:
    kind = metric.get("type", "")
    if kind not in _METRICS:
        found.unsupported(f"{field}.type", kind, _METRICS)
        return
    name = kind[0].lower() + kind[1:]
    source = metric.get(name)
    if source is None:
        found.required(f"{field}.{name}", "must populate information for the given metric source")
        return
    target, where = source.get("target", {}), f"{field}.{name}.target"
    if kind in ("Resource", "ContainerResource"):
        if not source.get("name"):
            found.required(f"{field}.{name}.name")
        utilization = target.get("averageUtilization")
        if utilization is None and target.get("averageValue") is None:
            found.required(f"{where}.averageUtilization", "must set either a target raw value or a target utilization")
        if utilization is not None and utilization < 1:
            found.invalid(f"{where}.averageUtilization", utilization, "must be greater than 0")
    elif target.get("value") is None and target.get("averageValue") is None:
        found.required(f"{where}.averageValue", "must set either a target value for metric or a per-pod target")
    if kind in ("External", "Pods", "Object") and not source.get("metric", {}).get("name"):
        found.required(f"{field}.{name}.metric.name")


def _scaling_rules(found: Problems, field: str, rules: _Object) -> None:
    window = rules.get("stabilizationWindowSeconds")
    found.not_negative(f"{field}.stabilizationWindowSeconds", window)
    if window is not None and window > 3600:
        found.invalid(f"{field}.stabilizationWindowSeconds", window, "must be less than or equal to 3600")
    if not rules.get("policies"):
        found.required(f"{field}.policies", "must specify at least one Policy")
    found.one_of(f"{field}.selectPolicy", rules.get("selectPolicy"), ("Disabled", "Max", "Min"))
    for index, policy in enumerate(rules.get("policies") or ()):
        found.one_of(f"{field}.policies[{index}].type", policy.get("type", ""), ("Percent", "Pods"))
        for name in ("value", "periodSeconds"):
            if policy.get(name, 0) <= 0:
                found.invalid(f"{field}.policies[{index}].{name}", policy.get(name, 0), "must be greater than zero")
        if policy.get("periodSeconds", 0) > 1800:
            found.invalid(
                f"{field}.policies[{index}].periodSeconds",
                policy["periodSeconds"],
                "must be less than or equal to 1800",
            )


def disruption_budget(found: Problems, obj: _Object, _old: _Object | None) -> None:
    spec = obj["spec"]
    if "minAvailable" in spec and "maxUnavailable" in spec:
        found.invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set")
    for name in ("minAvailable", "maxUnavailable"):
        found.int_or_percent(f"spec.{name}", spec.get(name))
    found.selector("spec.selector", spec.get("selector"))


_POD_MAY_CHANGE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def pod(found: Problems, obj: _Object, old: _Object | None) -> None:
    if old is None:
        validate_pod_spec(found, "spec", obj["spec"])
        return
    changed = [_fixed_of_pod(held["spec"]) for held in (obj, old)]
    if changed[0] != changed[1]:
        found.forbidden("spec", _POD_MAY_CHANGE)
    else:
        validate_pod_spec(found, "spec", obj["spec"])


def _fixed_of_pod(spec: _Object) -> dict[str, Any]:
    fixed = {
        key: value for key, value in spec.items() if key not in ("activeDeadlineSeconds", "tolerations", "nodeName")
    }
    for group in ("containers", "initContainers"):
        if group in fixed:
            fixed[group] = [
                {key: value for key, value in container.items() if key != "image"} for container in fixed[group]
            ]
    return fixed
