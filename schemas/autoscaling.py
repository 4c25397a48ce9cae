"""Autoscaling: how many pods serve a variation, by a metric that Prometheus has."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from schemas.base import JsonSchema, SpecModel, Unit, refuse

MetricType = Literal["cpu", "gpu", "memory", "latency", "error_rate", "throughput"]
AggregationType = Literal["avg", "max", "min", "sum", "p50", "p90", "p95", "p99"]

#: Percentiles exist where there is a histogram.
PERCENTILES = frozenset({"p50", "p90", "p95", "p99"})


class PrometheusTrigger(SpecModel):
    """Scale so that a metric stays at a threshold."""

    metric_type: MetricType
    """cpu: % of the request; gpu: % busy; memory: % of the limit; latency: ms; error_rate: %; throughput: requests
    per minute."""
    aggregation_type: AggregationType
    """Over the pods (avg, max, min, sum), or a percentile of the requests (latency only)."""
    time_period: Annotated[int, Field(ge=1, le=1440), Unit("minutes")]
    """The window in minutes."""
    threshold: Annotated[float, Field(gt=0)]
    """In the metric's unit."""
    error_code: Annotated[str, Field(pattern=r"^[0-9.x*|\[\]-]+$", max_length=64, examples=["5.*"])] = ".*"
    """For `error_rate`: which status codes count, as a regular expression. The default counts 400 and above."""

    @model_validator(mode="after")
    def _aggregation_fits_metric(self) -> Self:
        if self.aggregation_type in PERCENTILES and self.metric_type != "latency":
            refuse(
                "autoscaling/aggregation",
                f"{self.metric_type} has no percentiles",
                at="aggregation_type",
                hint="write avg, max, min or sum, or use the metric latency",
            )
        return self


def _triggers(value: Any) -> Any:
    """One trigger or a list of them, flat or with the platform's `query_spec` level."""
    triggers = value if isinstance(value, list | tuple) else [value]
    return tuple(_flat(trigger) for trigger in triggers)


def _flat(trigger: Any) -> Any:
    if isinstance(trigger, Mapping) and isinstance(trigger.get("query_spec"), Mapping):
        return {**trigger["query_spec"], **{key: item for key, item in trigger.items() if key != "query_spec"}}
    return trigger


def _nested_triggers(value: Any) -> Any:
    """The platform writes `triggers: {prometheus_trigger: [...]}`; we read it as `prometheus_trigger: [...]`."""
    if isinstance(value, Mapping) and isinstance(value.get("triggers"), Mapping):
        rest = {key: item for key, item in value.items() if key != "triggers"}
        return {**rest, **value["triggers"]}
    return value


class AutoScaleConfig(SpecModel):
    """The number of pods follows load, between two bounds."""

    min_replica_count: Annotated[int, Field(ge=0, le=10_000), Unit("pods")] = 1
    """Pods at the least. 0 needs a trigger that has samples without pods: `throughput`, measured at the gateway."""
    max_replica_count: Annotated[int, Field(ge=1, le=10_000), Unit("pods")]
    """Pods at the most."""
    polling_interval: Annotated[int, Field(ge=1, le=3600), Unit("seconds")] = 30
    """Seconds between two looks at the metric."""
    cool_down_period: Annotated[int, Field(ge=0, le=86_400), Unit("seconds")] = 300
    """Seconds of quiet before pods are taken away."""
    prometheus_trigger: Annotated[
        tuple[PrometheusTrigger, ...],
        Field(min_length=1, max_length=10),
        BeforeValidator(_triggers),
    ]
    """What is measured: one trigger, or a list of which the one that asks for most pods wins."""

    @model_validator(mode="before")
    @classmethod
    def _platform_form(cls, value: Any) -> Any:
        return _nested_triggers(value)

    @model_validator(mode="after")
    def _bounds_and_waking(self) -> Self:
        if self.min_replica_count > self.max_replica_count:
            refuse(
                "autoscaling/bounds",
                f"min_replica_count {self.min_replica_count} is above max_replica_count {self.max_replica_count}",
                at="min_replica_count",
            )
        if self.min_replica_count == 0 and all(t.metric_type != "throughput" for t in self.prometheus_trigger):
            refuse(
                "autoscaling/never-wakes",
                "with no pod there are no samples of this metric, so the variation would never wake",
                at="min_replica_count",
                hint="write 1, or add a trigger on throughput, which the gateway measures",
            )
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        """Adds the spellings that `_triggers` and `_nested_triggers` read: one, a list, nested, with `query_spec`."""
        reference = handler(core)
        schema = handler.resolve_ref_schema(reference)
        listed = schema["properties"]["prometheus_trigger"]
        flat = listed["items"]
        described = handler.resolve_ref_schema(flat)
        nested = {key: value for key, value in described["properties"].items() if key != "threshold"}
        query_spec = {
            "type": "object",
            "properties": {
                "query_spec": {
                    "type": "object",
                    "description": "The trigger's other keys, as the platform nests them.",
                    "properties": nested,
                    "required": [key for key in described["required"] if key != "threshold"],
                    "additionalProperties": False,
                },
                "threshold": described["properties"]["threshold"],
            },
            "required": ["query_spec", "threshold"],
            "additionalProperties": False,
        }
        # `if` before `anyOf`: a wrong key is then reported against the spelling that was meant.
        one = {"if": {"type": "object", "required": ["query_spec"]}, "then": query_spec, "else": flat}
        many = {"type": "array", "items": one, "minItems": 1, "maxItems": 10}
        schema["properties"]["prometheus_trigger"] = {
            "description": listed["description"],
            "if": {"type": "array"},
            "then": many,
            "else": one,
        }
        schema["properties"]["triggers"] = {
            "description": "The platform's own nesting of `prometheus_trigger`.",
            "type": "object",
            "properties": {"prometheus_trigger": {"description": listed["description"], **many}},
            "required": ["prometheus_trigger"],
            "additionalProperties": False,
        }
        schema["required"] = [key for key in schema["required"] if key != "prometheus_trigger"]
        schema["oneOf"] = [{"required": ["prometheus_trigger"]}, {"required": ["triggers"]}]
        return reference
