"""Variations: a build of a model as it is served, and its share of the traffic."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from schemas.autoscaling import AutoScaleConfig
from schemas.base import (
    Cpu,
    Direction,
    DisplayName,
    DnsLabel,
    Duration,
    EnvVars,
    IamRoleArn,
    Many,
    Memory,
    NamedMap,
    PurchaseOption,
    ResourceName,
    SecretName,
    SpecModel,
    StaticThreshold,
    Text,
    Unit,
    VariationName,
    refuse,
    seconds,
    shared,
)
from schemas.resources import GpuResources, InstanceName


class DeploymentSpecification(SpecModel):
    """How a build is served: the platform's deployment specification, by its own names and defaults."""

    number_of_http_server_workers: Annotated[int, Field(ge=1, le=256), Unit("processes")] = 2
    """Worker processes in each pod."""
    http_request_timeout_ms: Annotated[int, Field(ge=1, le=3_600_000), Unit("milliseconds")] = 5000
    """Milliseconds for one prediction."""
    max_batch_size: Annotated[int, Field(ge=1, le=100_000), Unit("rows")] = 1
    """Rows that the server may gather into one call of predict()."""
    daemon_mode: bool = False
    """True: the model is loaded once before the workers are forked; False: by each worker."""
    custom_iam_role_arn: IamRoleArn | None = None
    """The AWS role of the pods."""
    number_of_pods: Annotated[int, Field(ge=1, le=10_000), Unit("pods")] = 2
    """Pods; ignored where auto_scale_config is given."""
    cpu_fraction: Cpu = 2.0
    """Cores of each pod."""
    memory: Memory = "2Gi"
    """Memory of each pod, request and limit in one."""
    gpu_resources: GpuResources | None = None
    """GPUs of each pod."""
    instance: InstanceName | None = None
    """An instance template; wins over gpu_resources, which win over cpu_fraction and memory."""
    purchase_option: PurchaseOption = "spot"
    auto_scale_config: AutoScaleConfig | None = None
    """The number of pods follows load."""
    env_vars: EnvVars = ()
    """Seen by the model's server; win over those of the build."""
    deployment_timeout: Annotated[int, Field(ge=0, le=86_400), Unit("seconds")] = 0
    """Seconds until a deployment that is not ready counts as failed; 0: 1800."""
    service_account_key_secret_name: SecretName | None = None
    """A Secret whose key `key.json` is a Google Cloud service account key."""


class Traffic(SpecModel):
    """A share of one audience's requests."""

    audience: DisplayName | None = None
    """Whose requests; none: everybody who is in no other audience of the model."""
    weight: Annotated[int, Field(ge=0, le=100), Unit("percent")] = 100
    """Percent. Without the shadows, the weights of one audience sum to 100."""
    shadow: bool = False
    """True: gets copies of `weight` percent of the requests; its answers are thrown away."""


class Step(SpecModel):
    """One step of a canary."""

    weight: Annotated[int, Field(ge=1, le=100), Unit("percent")]
    """Percent of the variation's own traffic that the new build gets."""
    hold: Duration = "5m"
    """How long, at the least, before the next step."""


class Check(SpecModel):
    """What must be true of the new build at every step."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63, examples=["errors"])]
    """In verdicts and notifications."""
    metric: Literal["error_rate", "latency_avg", "latency_p50", "latency_p90", "latency_p95", "latency_p99"] | None = (
        None
    )
    """error_rate: %; latency: ms. Or `query`."""
    query: (
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=8192,
                examples=['max(my_queue_length{build_id="$build_id", namespace="$namespace"})'],
            ),
        ]
        | None
    ) = None
    """PromQL with one sample as its answer; `$build_id`, `$variation`, `$namespace` and `$window` are filled in."""
    direction: Direction = "BELOW"
    """How the metric must lie to the threshold."""
    threshold: StaticThreshold
    """A decimal number in quotes, in the metric's unit."""
    relative_to_current: bool = False
    """True: the threshold is what the new build's metric may differ from the current one's."""
    min_samples: Annotated[int, Field(ge=0, le=1_000_000_000), Unit("requests")] = 100
    """Requests to the new build in the window, before there is a verdict."""
    window: Duration = "5m"
    """How far back the metric looks."""

    @model_validator(mode="after")
    def _metric_or_query(self) -> Self:
        if (self.metric is None) == (self.query is None):
            refuse("rollout/check", "a check has exactly one of metric and query", hint="metric: error_rate")
        return self


class Canary(SpecModel):
    """The new build takes over step by step."""

    steps: Annotated[Many[Step], Field(min_length=1, max_length=20)]
    """In order; after the last one the new build takes everything."""
    checks: Annotated[Many[Check], Field(max_length=20)] = ()
    """All must pass for a step to end."""
    on_failure: Literal["rollback", "hold"] = "rollback"
    """`rollback`: all traffic back to the current build. `hold`: stay and ask."""
    timeout: Duration = "1d"
    """The rollout as a whole; then as on_failure says."""

    @model_validator(mode="after")
    def _weights_rise(self) -> Self:
        weights = [step.weight for step in self.steps]
        if weights != sorted(set(weights)):
            refuse("rollout/steps", "the weights of the steps must rise", at="steps", hint="such as 5, 25, 50")
        held = sum(seconds(step.hold) for step in self.steps)
        if held > seconds(self.timeout):
            refuse("rollout/timeout", f"the steps hold for {held} s, longer than the timeout", at="timeout")
        names = [check.name for check in self.checks]
        if len(set(names)) < len(names):
            refuse("rollout/check", "two checks have one name", at="checks")
        return self


class CanaryRollout(SpecModel):
    """`canary:` as the key of a rollout."""

    canary: Canary
    """Step by step."""


Rollout = Literal["replace"] | CanaryRollout


class Override(SpecModel):
    """What is different in one environment. Keys of `deployment` that are not given stay as in the variation."""

    build: Annotated[ResourceName, Field(examples=["churn-1"])] | None = None
    """Another build."""
    deployment: DeploymentSpecification | None = None
    """Only the keys given here."""
    traffic: Annotated[Many[Traffic], Field(max_length=64)] | None = None
    """Instead of the variation's."""
    rollout: Rollout | None = None
    """Instead of the variation's."""


class Variation(SpecModel):
    """One way in which a model is served; a model may have several at a time."""

    model: ResourceName
    """The model."""
    name: VariationName = "default"
    description: Text = ""
    """For people."""
    environments: Annotated[Many[DnsLabel], Field(min_length=1, max_length=200)]
    """Where it is served."""
    build: Annotated[ResourceName, Field(examples=["churn-1"])] | None = None
    """The build that it serves: pinned, until a commit says otherwise."""
    automation: Annotated[DisplayName, Field(examples=["churn-nightly"])] | None = None
    """The automation whose newest promoted build it serves."""
    protected: bool = False
    """True: a plan that removes it or changes its traffic needs approval."""
    deployment: DeploymentSpecification = shared(DeploymentSpecification)
    """How it is served."""
    traffic: Annotated[Many[Traffic], Field(max_length=64)] | None = None
    """Its shares. None given: everybody, if the model has no other variation there; otherwise nothing."""
    rollout: Rollout = "replace"
    """How a new build takes over: at once when it is ready, or as a canary."""
    environment_overrides: Annotated[tuple[tuple[DnsLabel, Override], ...], NamedMap()] = ()
    """What is different in an environment."""

    @model_validator(mode="after")
    def _one_source_and_sound_overrides(self) -> Self:
        if (self.build is None) == (self.automation is None):
            both = self.build is not None
            refuse(
                "variation/source",
                "build and automation exclude each other" if both else "a variation serves a build",
                at="automation" if both else None,
                hint="keep one of them" if both else "write build: NAME, or automation: NAME",
            )
        if len(set(self.environments)) < len(self.environments):
            refuse("variation/environments", "an environment is named twice", at="environments")
        for environment, override in self.environment_overrides:
            if environment not in self.environments:
                refuse(
                    "variation/override",
                    f"the variation is not served in {environment}",
                    at="environment_overrides",
                    hint=f"add {environment} to environments",
                )
            if override.build and self.automation:
                refuse("variation/override", "the builds come from an automation", at="environment_overrides")
        return self

    def in_environment(self, environment: str) -> Self:
        """The variation as it is in one environment: its override laid over it."""
        for name, override in self.environment_overrides:
            if name == environment:
                changes: dict[str, Any] = {
                    key: getattr(override, key)
                    for key in ("build", "traffic", "rollout")
                    if getattr(override, key) is not None
                }
                if override.deployment is not None:
                    given = {key: getattr(override.deployment, key) for key in override.deployment.model_fields_set}
                    changes["deployment"] = self.deployment.model_copy(update=given)
                return self.model_copy(update=changes)
        return self
