"""Autoscaling: a KEDA ScaledObject (2.18 or later) for each variation whose number of pods follows a metric.

The HPA that KEDA makes knows two kinds of target. `Value` compares the metric with the threshold as it is, which is
right for an average, a maximum, a minimum or a percentile. `AverageValue` divides it by the pods first, which is right
for a sum. The wrong one either never scales or never stops.

Every query answers 0 where there is nothing to do, and nothing where there are no series. Nothing is an error
(`ignoreNullValues: "false"`), at which the pods stay as they are: a Prometheus that is down must not look like a quiet
night.
"""

from __future__ import annotations

from typing import Any

from renderers.catalog import Facts, Placed, Unit
from renderers.environment import namespace_id
from renderers.gateways import gateway_features
from renderers.manifest import Manifest, object_id
from renderers.metrics import DURATION, REQUESTS, pods_of
from renderers.notes import Note, Refused
from renderers.served import Served, by_variation, is_shadow, prometheus_of, served, traffic_of
from renderers.serving import CONTAINER
from renderers.template import Template
from schemas.autoscaling import PERCENTILES, AutoScaleConfig, PrometheusTrigger
from schemas.environment import Environment
from schemas.regex import compile_re2
from schemas.variation import Variation

_SCALED_OBJECT = Template("scaled-object")

#: Kubernetes' limit of an HPA's stabilization window, in seconds.
LONGEST_WINDOW = 3600
#: Above any metric: a trigger with this never wakes what sleeps, nor keeps it awake.
NEVER = "1e15"


def render(unit: Unit, facts: Facts) -> list[Manifest]:
    """A ScaledObject for each build of an autoscaled variation. Errors: `Refused`."""
    environment = unit.environment.spec
    manifests: list[Manifest] = []
    for variation in unit.variations:  # also one that waits for its first build: not only then should people hear of it
        _refuse_what_cannot_work(variation, unit)
    for one in served(unit, facts):
        config = one.variation.spec.deployment.auto_scale_config
        if config is None:
            continue
        body = _SCALED_OBJECT(
            name=one.name,
            namespace=environment.namespace_name,
            labels=one.labels("autoscaling", environment),
            annotations=one.annotations(),
            polling_interval=config.polling_interval,
            cool_down=config.cool_down_period,
            window=min(config.cool_down_period, LONGEST_WINDOW),
            least=config.min_replica_count,
            most=config.max_replica_count,
            fallback=max(config.min_replica_count, 1),
            triggers=[_trigger(one, number, environment) for number in range(len(config.prometheus_trigger))],
        )
        needs = (namespace_id(environment), one.deployment_id(environment))
        manifests.append(Manifest(object_id(body), body, one.variation.origin, environment.name, needs))
    return manifests


def notes(unit: Unit, facts: Facts) -> list[Note]:
    """What a number in the spec means here, where that may surprise."""
    told: list[Note] = []
    for one, *_ in by_variation(served(unit, facts)):
        spec = one.variation.spec
        config = spec.deployment.auto_scale_config
        if config is None:
            continue
        what = f"variation {spec.name} of {spec.model}"
        told += [Note(one.variation.origin, f"{what}: {text}") for text in _surprises(config)]
    return told


def _surprises(config: AutoScaleConfig) -> list[str]:
    period, window = config.cool_down_period, min(config.cool_down_period, LONGEST_WINDOW)
    texts = [f"pods are taken away once the load has been lower for {window} s (cool_down_period)"]
    if window < period:
        texts.append(f"the cool_down_period of {period} s is cut to {window} s, the longest that Kubernetes has")
    if config.min_replica_count == 0:
        texts.append(
            f"the last pod is taken away {period} s after the last request; the next one has to wait for a pod"
        )
    for trigger in config.prometheus_trigger:
        if trigger.metric_type == "memory" and trigger.aggregation_type != "sum":
            texts.append(
                "a loaded model needs its memory whatever the load, so a memory trigger may add pods up to "
                f"{config.max_replica_count} and take none away"
            )
        if trigger.metric_type == "latency" and trigger.aggregation_type == "sum":
            texts.append(
                "the sum of latency is milliseconds of work per second: 1000 is one request in progress at all times, "
                "for each pod"
            )
    return texts


def _refuse_what_cannot_work(variation: Placed[Variation], unit: Unit) -> None:
    spec, origin, environment = variation.spec, variation.origin, unit.environment.spec
    config, what = spec.deployment.auto_scale_config, f"variation {spec.name} of {spec.model}"
    if config is None:
        return
    if prometheus_of(environment) is None:
        raise Refused(
            origin,
            "autoscaling/no-prometheus",
            f"{what} is scaled by a metric, and the environment {environment.name} has no prometheus_url",
            "give the environment a prometheus_url, or the deployment number_of_pods instead of auto_scale_config",
        )
    if config.min_replica_count == 0:
        gateway = gateway_features(environment)
        if not any(_is_in_front(trigger, config, environment) for trigger in config.prometheus_trigger):
            raise Refused(
                origin,
                "autoscaling/never-wakes",
                f"{what} may have no pods, and nothing would wake it: {gateway.title} has no count of the requests to "
                "a variation that no pod answered",
                "min_replica_count: 1; or a trigger on throughput (avg or sum) behind Istio",
            )
        if is_shadow(traffic_of(spec, unit)):
            raise Refused(
                origin,
                "autoscaling/never-wakes",
                f"{what} is a shadow and may have no pods: a copied request wakes nobody",
                "min_replica_count: 1",
            )


def _trigger(one: Served, number: int, environment: Environment) -> dict[str, Any]:
    config = one.variation.spec.deployment.auto_scale_config
    assert config is not None
    trigger = config.prometheus_trigger[number]
    in_front = _is_in_front(trigger, config, environment)
    sleeps = config.min_replica_count == 0
    name = f"{trigger.metric_type}-{trigger.aggregation_type}"
    counter = gateway_features(environment).request_counter if in_front else None
    if counter is not None:
        selected = counter.format(namespace=environment.namespace_name, service=one.name)
        query = f"60 * sum(rate({selected}[{trigger.time_period}m]))"
    else:
        query = promql(trigger, pods_of(environment.namespace_name, one.name), _error_codes(one, trigger))
    return {
        "type": "prometheus",
        "name": name if number == 0 else f"{name}-{number}",
        "metricType": "AverageValue" if in_front or trigger.aggregation_type == "sum" else "Value",
        "useCachedMetrics": True,
        "metadata": {
            "serverAddress": prometheus_of(environment),
            "query": query,
            "threshold": _number(trigger.threshold),
            # What is measured at the pods says nothing while there are none, and an idle pod is never at 0 % CPU: of
            # what may sleep, only the requests in front decide whether it does.
            "activationThreshold": NEVER if sleeps and not in_front else "0",
            "ignoreNullValues": "true" if sleeps and not in_front else "false",
        },
    }


def _is_in_front(trigger: PrometheusTrigger, config: AutoScaleConfig, environment: Environment) -> bool:
    """Whether the trigger is measured at the gateway: there alone are samples while there are no pods.

    Not otherwise, because the server counts what came to one build and the gateway may also count retries.
    """
    return (
        config.min_replica_count == 0
        and trigger.metric_type == "throughput"
        and trigger.aggregation_type in ("avg", "sum")
        and gateway_features(environment).request_counter is not None
    )


def _error_codes(one: Served, trigger: PrometheusTrigger) -> str:
    """The regular expression of the status codes that count as errors. The platform writes "5xx" as well as "5.."."""
    pattern = "[45].." if trigger.error_code == ".*" else trigger.error_code.replace("x", ".")
    try:
        compile_re2(pattern)
    except ValueError as error:
        raise Refused(
            one.variation.origin,
            "autoscaling/error-code",
            f"error_code {trigger.error_code!r} is no regular expression: {error}",
            'write "5..", or "429|5.."',
        ) from error
    return pattern


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


# --- PromQL ------------------------------------------------------------------------------------------------------


def promql(trigger: PrometheusTrigger, pods: str, error_codes: str = "[45]..") -> str:
    """The query of a trigger: one sample in the metric's unit, 0 when idle, none when there are no series.

    `pods` is a selector of the pods, without braces; `error_codes` a regular expression.
    """
    window = f"[{trigger.time_period}m]"
    aggregation = trigger.aggregation_type
    if trigger.metric_type == "cpu":
        used = f'rate(container_cpu_usage_seconds_total{{{pods},container="{CONTAINER}"}}{window})'
        return _percent_of(aggregation, used, "requests", "cpu", pods)
    if trigger.metric_type == "memory":
        used = f'avg_over_time(container_memory_working_set_bytes{{{pods},container="{CONTAINER}"}}{window})'
        return _percent_of(aggregation, used, "limits", "memory", pods)
    if trigger.metric_type == "gpu":
        # A GPU that cannot say how busy it is says 9223372036854775794.
        busy = f"avg_over_time((DCGM_FI_DEV_GPU_UTIL{{{pods}}} <= 100)[{trigger.time_period}m:15s])"
        return f"{aggregation}(avg by (pod) ({busy}))"
    if trigger.metric_type == "throughput":
        requests = f"rate({REQUESTS}{{{pods}}}{window})"
        return f"60 * {aggregation}(sum by (pod) ({requests}))"
    if trigger.metric_type == "error_rate":
        errors = f'rate({REQUESTS}{{{pods},code=~"{error_codes}"}}{window})'
        return _ratio(aggregation, 100, errors, f"rate({REQUESTS}{{{pods}}}{window})")
    count = f"rate({DURATION}_count{{{pods}}}{window})"
    if aggregation in PERCENTILES:
        buckets = f"sum by (le) (rate({DURATION}_bucket{{{pods}}}{window}))"
        quantile = f"histogram_quantile(0.{aggregation[1:]}, {buckets})"
        return f"1000 * ({quantile} >= 0) or 0 * sum({count})"  # NaN, when idle, is not >= 0
    seconds = f"rate({DURATION}_sum{{{pods}}}{window})"
    if aggregation == "sum":
        return f"1000 * sum({seconds})"
    return _ratio(aggregation, 1000, seconds, count)


def _percent_of(aggregation: str, used: str, bound: str, resource: str, pods: str) -> str:
    bounds = f'kube_pod_container_resource_{bound}{{{pods},container="{CONTAINER}",resource="{resource}"}}'
    return f"100 * {aggregation}(sum by (pod) ({used}) / on (pod) sum by (pod) ({bounds}))"


def _ratio(aggregation: str, factor: int, part: str, whole: str) -> str:
    """The average is that of the requests, whichever pod answered them; the others are over the pods."""
    total = "sum" if aggregation == "avg" else "sum by (pod)"
    ratio = f"{factor} * {total} ({part}) / ({total} ({whole}) > 0) or 0 * {total} ({whole})"
    return ratio if aggregation == "avg" else f"{aggregation}({ratio})"
