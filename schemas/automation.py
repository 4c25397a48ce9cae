"""Automations: when a model is built anew, and what a build must achieve to be deployed."""

import re
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from schemas import cron
from schemas.base import (
    Cpu,
    Direction,
    DisplayName,
    DnsLabel,
    GpuAmount,
    GpuType,
    IamRoleArn,
    JsonSchema,
    Many,
    Memory,
    Pairs,
    ResourceName,
    SecretName,
    SpecModel,
    Sql,
    Text,
    TextMap,
    Threshold,
    Unit,
    VariationName,
    has_steps,
    refuse,
    shared,
)
from schemas.build import AutomationBuildSpecification, FileType, Parameters
from schemas.environment import Url
from schemas.problem import quoted
from schemas.resources import InstanceName
from schemas.variation import DeploymentSpecification

CronExpression = Annotated[str, Field(min_length=1, max_length=256, examples=["0 3 * * *", "@daily"])]


def _check_cron(expression: str, at: str) -> None:
    try:
        cron.parse(expression)
    except cron.CronError as error:
        refuse("automation/cron", str(error), at=at, hint='such as "0 3 * * *", every day at three')


@lru_cache(maxsize=1024)
def _is_time_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


class ScheduledTrigger(SpecModel):
    """At certain times."""

    cron: CronExpression | None = None
    """Five fields, as a Kubernetes CronJob reads them. Or `interval`."""
    interval: (
        Annotated[str, Field(pattern=r"^(Hourly|Daily|Weekly|[1-9][0-9]{0,8}[smhd])$", examples=["Daily", "6h"])] | None
    ) = None
    """Hourly, Daily, Weekly, or a length of time such as 6h, after the last run."""
    time_zone: Annotated[str, Field(pattern=r"^[A-Za-z0-9_+/-]+$", max_length=64, examples=["Europe/Berlin"])] = "UTC"
    """The time zone of `cron`, by its IANA name."""

    @model_validator(mode="after")
    def _cron_or_interval(self) -> Self:
        if (self.cron is None) == (self.interval is None):
            refuse("automation/schedule", "a schedule has exactly one of cron and interval", hint="interval: Daily")
        if self.cron is not None:
            _check_cron(self.cron, "cron")
        if not _is_time_zone(self.time_zone):
            refuse("automation/time-zone", f"{self.time_zone!r} is no time zone", at="time_zone", hint="Europe/Berlin")
        return self


class MetricTrigger(SpecModel):
    """When a metric of the model analytics crosses a threshold."""

    sql_query: Sql
    """Answers one row of one column. May use :model, :environment and :as_of."""
    direction: Direction = "ABOVE"
    """How the metric must lie to the threshold for a run to start."""
    threshold: Threshold
    override_cron: CronExpression = "0 * * * *"
    """When it is looked at, in UTC."""

    @model_validator(mode="after")
    def _cron_is_sound(self) -> Self:
        _check_cron(self.override_cron, "override_cron")
        return self


class GitTrigger(SpecModel):
    """When the branch of the build specification has a new commit."""

    paths: Annotated[
        Many[Annotated[str, Field(min_length=1, max_length=1024, examples=["models/churn"])]], Field(max_length=50)
    ] = ()
    """Only commits that change one of these; none: the model's folder, and dependency_required_folders."""

    @model_validator(mode="after")
    def _paths_are_in_the_repository(self) -> Self:
        for path in self.paths:
            if has_steps(path.removeprefix("./")) or not path.isprintable():
                refuse(
                    "automation/path",
                    f"{quoted(path)} is no path in a repository",
                    at="paths",
                    hint="write it from the root of the repository, such as models/churn",
                )
        return self


class ManualTrigger(SpecModel):
    """Only when a person asks: `reconcile trigger NAME`."""


def _trigger(value: Any) -> Any:
    return {value: {}} if isinstance(value, str) else value


class Trigger(SpecModel):
    """What starts a run: exactly one of these."""

    scheduled: ScheduledTrigger | None = None
    """At certain times."""
    metric: MetricTrigger | None = None
    """When a metric crosses a threshold."""
    git: GitTrigger | None = None
    """When there is a new commit."""
    manual: ManualTrigger | None = None
    """When a person asks."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [key for key in ("scheduled", "metric", "git", "manual") if getattr(self, key) is not None]
        if len(given) != 1:
            refuse(
                "automation/trigger",
                f"a trigger is exactly one of scheduled, metric, git and manual; this one has {len(given)}",
                at=given[1] if given else None,
                hint="keep one of them" if given else "scheduled: {interval: Daily}",
            )
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        """`git` and `manual` need no settings, and may stand alone."""
        reference = handler(core)
        schema = handler.resolve_ref_schema(reference)
        schema.pop("type")
        schema.update({"if": {"type": "string"}, "then": {"enum": ["manual", "git"]}, "else": {"type": "object"}})
        return reference


class DeploymentCondition(SpecModel):
    """What a build must achieve to be deployed: its metric against a threshold, or against the deployed build's."""

    metric_name: Annotated[
        str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_.:/ -]*$", examples=["f1"])
    ]
    """As the model's code logs it."""
    direction: Direction = "ABOVE"
    """How the metric must lie to the threshold. ABOVE and BELOW are strict."""
    threshold: Threshold | None = None
    """A decimal number in quotes, or SQL, which may use :model, :environment, :build_id and :as_of."""
    variation: VariationName | None = None
    """Instead of a threshold: the same metric of the build that this variation serves now."""
    on_no_baseline: Literal["hold", "pass"] = "hold"
    """When there is nothing to compare with yet: wait for a person, or let it pass."""
    cast: bool = False
    """True: text that reads as a number is one. Otherwise it is an error of the query."""
    dry_run: bool = False
    """True: judged and recorded, without effect."""
    timeout_seconds: Annotated[int, Field(ge=1, le=86_400), Unit("seconds")] = 600
    """For the query with its retries; then it is held."""

    @model_validator(mode="after")
    def _one_baseline(self) -> Self:
        if (self.threshold is None) == (self.variation is None):
            refuse(
                "automation/condition",
                "a condition has exactly one of threshold and variation",
                at="variation" if self.variation else None,
                hint='threshold: "0.65"',
            )
        return self


class AutomationDeployment(DeploymentSpecification):
    """Where and how a build that met the condition is deployed."""

    KEYS_FIRST: ClassVar = ("variation_name", "environments")

    variation_name: VariationName = "default"
    """The variation that gets it. Without a spec of its own it takes everybody."""
    environments: Annotated[Many[DnsLabel], Field(max_length=200)] = ()
    """Where. None: the environments of the variation's spec, or the automation's own."""


HEADER = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"

#: What a notification's connection says itself. A spec that says it too would say something else.
CONNECTION_HEADERS = frozenset(
    {"connection", "content-length", "host", "idempotency-key", "te", "trailer", "transfer-encoding", "upgrade"}
)

#: As `SecretName` has it.
_OBJECT_NAME = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"


class SlackNotification(SpecModel):
    """A message to a Slack channel."""

    webhook_secret: SecretName
    """A Secret whose key `url` is the incoming webhook's address, which is itself a secret."""


class PagerDutyNotification(SpecModel):
    """An incident, or its end."""

    routing_key_secret: SecretName
    """A Secret whose key `routing_key` is the integration's."""
    severity: Literal["critical", "error", "warning", "info"] = "error"
    """As PagerDuty has it."""


class CustomWebhook(SpecModel):
    """A request of your own. execution_date, model_id, automation, status and build_id are added to `data`."""

    url: Url
    """Where to."""
    http_method: Literal["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"] = "GET"
    """GET sends `data` as query parameters, the others as a JSON body."""
    headers: Annotated[Pairs, TextMap(HEADER, (("X-Team", "growth"),))] = ()
    """Request headers."""
    header_secrets: Annotated[Pairs, TextMap(HEADER, (("Authorization", "ci-token"),), _OBJECT_NAME)] = ()
    """Request headers whose values are Secrets (key `value`)."""
    data: Annotated[Pairs, TextMap(r"^[^\x00-\x1f]{1,128}$", (("channel", "ml"),))] = ()
    """What else to send."""

    @model_validator(mode="after")
    def _no_credential_in_the_open(self) -> Self:
        for name, _ in self.headers:
            if re.search(r"authorization|token|api-?key|secret", name, re.IGNORECASE):
                refuse(
                    "notification/secret",
                    f"the header {name} looks like a credential, and a spec names secrets, never holds them",
                    at="headers",
                    hint=f"header_secrets: {{{name}: NAME-OF-A-SECRET}}",
                )
        return self

    @model_validator(mode="after")
    def _no_header_of_the_connection(self) -> Self:
        for at, headers in (("headers", self.headers), ("header_secrets", self.header_secrets)):
            for name, _ in headers:
                if name.lower() in CONNECTION_HEADERS:
                    refuse("notification/header", f"the header {name} is the connection's own", at=at, hint="remove it")
        return self


class Notification(SpecModel):
    """Who is told; several at once are fine."""

    slack: SlackNotification | None = None
    """Slack."""
    pagerduty: PagerDutyNotification | None = None
    """PagerDuty."""
    custom_webhook: CustomWebhook | None = None
    """Anything else."""

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if self.slack is None and self.pagerduty is None and self.custom_webhook is None:
            refuse("notification/nobody", "a notification names slack, pagerduty or custom_webhook")
        return self


Bucket = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", examples=["acme-models"])]
Folder = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_./{}%: -]+$",
        max_length=1024,
        description="May hold dates in braces, filled in at the run: scores/{%Y-%m-%d}.",
        examples=["scores/{%Y-%m-%d}"],
    ),
]


class BatchData(SpecModel):
    """What a batch execution reads and writes."""

    source_bucket: Bucket
    """Where the input is."""
    source_folder: Folder = "/"
    """The folder of the input."""
    input_file_type: FileType = "parquet"
    """How the input is written."""
    destination_bucket: Bucket
    """Where the answers go."""
    destination_folder: Folder = "/"
    """The folder of the answers."""
    output_file_type: FileType = "parquet"
    """How the answers are written."""
    access_token_secret_name: SecretName | None = None
    """The access key of the bucket; none: the role of the pods."""
    access_secret_secret_name: SecretName | None = None
    """The secret key that belongs to it."""
    session_token_secret_name: SecretName | None = None
    """The session token that belongs to them."""


class BatchExecutionSpecification(SpecModel):
    """How a batch execution runs. What is not given is as in the variation that is deployed."""

    job_timeout: Annotated[int, Field(ge=0, le=604_800), Unit("seconds")] = 0
    """Seconds for the whole; 0: no limit."""
    task_timeout: Annotated[int, Field(ge=0, le=604_800), Unit("seconds")] = 0
    """Seconds for one file; 0: no limit."""
    executors: Annotated[int, Field(ge=0, le=1000), Unit("pods")] = 0
    """Pods side by side; 0: 1."""
    cpu: Cpu | None = None
    """Cores of each."""
    memory: Memory | None = None
    """Memory of each."""
    gpu_type: GpuType | None = None
    """The GPU of each."""
    gpu_amount: GpuAmount | None = None
    """How many GPUs each."""
    custom_iam_role_arn: IamRoleArn | None = None
    """The AWS role."""
    instance: InstanceName | None = None
    """An instance template."""
    params: Parameters = ()
    """Environment variables of the job."""


class BatchExecution(SpecModel):
    """Predict on files instead of building: on a schedule, mostly."""

    build_id: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$", examples=["9f2c41d07be35a68"])] | None = None
    """The build; none: the one that the variation serves."""
    variation: VariationName = "default"
    """The variation whose build and settings are taken."""
    data_specifications: BatchData
    """What is read and written."""
    execution_specifications: BatchExecutionSpecification = shared(BatchExecutionSpecification)
    """How it runs."""


class Automation(SpecModel):
    """Builds a model again and again, and deploys a build that is better."""

    name: Annotated[DisplayName, Field(examples=["churn-nightly"])]
    model: ResourceName
    """The model."""
    description: Text = ""
    """For people."""
    environment: DnsLabel | None = None
    """Where it builds, and whose analytics it asks; none: the first of its environments, in order of promotion."""
    trigger: Annotated[
        Trigger, BeforeValidator(_trigger), Field(examples=["git", "manual", {"scheduled": {"interval": "Daily"}}])
    ]
    """What starts a run."""
    execute_immediately: bool = False
    """Run once when the automation is new."""
    enabled: bool = True
    """False: never runs by itself."""
    build_spec: AutomationBuildSpecification | None = None
    """What is built."""
    deployment_condition: DeploymentCondition | None = None
    """What the build must achieve; none: every successful build is deployed."""
    deployment_spec: AutomationDeployment | None = None
    """Where it is deployed; none: it is built and recorded only."""
    batch_execution: BatchExecution | None = None
    """Instead of a build: predict on files."""
    concurrency_policy: Literal["Forbid", "Allow", "Replace"] = "Forbid"
    """When a run is due while the last one still goes on: skip it, run both, or end the last one."""
    on_success: Notification | None = None
    """Told after a successful run, also where the build was not deployed."""
    on_error: Notification | None = None
    """Told after a run that failed."""

    @model_validator(mode="after")
    def _one_action(self) -> Self:
        if (self.build_spec is None) == (self.batch_execution is None):
            both = self.build_spec is not None
            refuse(
                "automation/action",
                "build_spec and batch_execution exclude each other" if both else "an automation builds or predicts",
                at="batch_execution" if both else None,
                hint="keep one of them" if both else "write build_spec, or batch_execution",
            )
        if self.batch_execution is not None:
            for key in ("deployment_condition", "deployment_spec"):
                if getattr(self, key) is not None:
                    refuse("automation/action", f"a batch execution has no {key}", at=key)
            if self.trigger.git is not None:
                refuse("automation/trigger", "a batch execution has no branch to watch", at="trigger")
        if self.deployment_condition is not None and self.deployment_spec is None:
            refuse(
                "automation/condition", "a condition without deployment_spec decides nothing", at="deployment_condition"
            )
        return self
