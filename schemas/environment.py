"""Environments: where models are built and served, and in which order they are promoted."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from schemas.audience import HeaderKey, is_reserved
from schemas.base import (
    Cpu,
    DnsLabel,
    EnvVars,
    GpuAmount,
    GpuType,
    IamRoleArn,
    JsonSchema,
    Many,
    Memory,
    NamedMap,
    Pairs,
    SecretName,
    SpecModel,
    TextMap,
    Unit,
    has_steps,
    refuse,
    shared,
)
from schemas.resources import InstanceName

#: Namespaces that belong to the cluster itself, and the one where Trueup keeps its inventories.
RESERVED_NAMESPACES = frozenset({"default", "kube-system", "kube-public", "kube-node-lease", "trueup-system"})

LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"

Url = Annotated[
    str,
    Field(
        pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[!-~]*)?$",
        max_length=2048,
        examples=["https://ml.example.com"],
    ),
]


NodeSelector = Annotated[Pairs, TextMap(LABEL_KEY, (("pool", "gpu"),), LABEL_VALUE)]


class DataPlane(SpecModel):
    """The cluster that runs an environment."""

    type: Literal["kubernetes", "embedded"] = "embedded"
    """`embedded`: this machine, for a laptop, CI and tests; not for production. `kubernetes`: a cluster."""
    context: Annotated[str, Field(min_length=1, max_length=253, examples=["eks-production"])] | None = None
    """The context of the kubeconfig; none: the current one, or the cluster that the reconciler runs in."""
    kubeconfig_secret: SecretName | None = None
    """A Secret in the reconciler's namespace whose key `kubeconfig` reaches another cluster."""

    @model_validator(mode="after")
    def _embedded_has_no_cluster(self) -> Self:
        if self.type == "embedded" and (self.context or self.kubeconfig_secret):
            at = "context" if self.context else "kubeconfig_secret"
            refuse("environment/data-plane", "the embedded data plane is this machine", at=at, hint="type: kubernetes")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        """A data plane without settings may be written as its type alone."""
        reference = handler(core)
        schema = handler.resolve_ref_schema(reference)
        kind = dict(schema["properties"]["type"])
        kind.pop("default", None)
        schema.update({"if": {"type": "string"}, "then": {"enum": kind["enum"]}, "else": {"type": "object"}})
        schema.pop("type")
        return reference


def _data_plane(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


class Analytics(SpecModel):
    """The SQL engine that reads the model analytics, and answers metric triggers and SQL thresholds."""

    engine: Literal["duckdb", "athena", "sqlalchemy"] = "duckdb"
    """duckdb: in a locked child process, over the object storage; athena: through AWS; sqlalchemy: any other."""
    database: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$", max_length=255, examples=["trueup"])] | None = None
    """The database (Athena: the Glue database)."""
    workgroup: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=128, examples=["ml"])] | None = None
    """Athena's workgroup, which bounds what a query may scan."""
    output_location: (
        Annotated[
            str,
            Field(
                pattern=r"^s3://[a-z0-9.-]+(/[!-~]*)?$", max_length=1024, examples=["s3://acme-models/athena-results"]
            ),
        ]
        | None
    ) = None
    """Where Athena writes results."""
    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$", examples=["eu-central-1"])] | None = None
    """The AWS region."""
    url_secret: SecretName | None = None
    """A Secret whose key `url` is the SQLAlchemy URL."""
    timeout_seconds: Annotated[int, Field(ge=1, le=3600), Unit("seconds")] = 60
    """How long one query may take."""

    @model_validator(mode="after")
    def _engine_has_what_it_needs(self) -> Self:
        if self.engine == "athena" and self.database is None:
            refuse("environment/analytics", "athena needs a database", at="engine", hint="database: trueup")
        if (self.engine == "sqlalchemy") != (self.url_secret is not None):
            refuse(
                "environment/analytics",
                "url_secret and the engine sqlalchemy go together",
                at="url_secret" if self.url_secret else "engine",
            )
        return self


class Gateway(SpecModel):
    """The Gateway (Gateway API) through which predictions come."""

    name: DnsLabel = "trueup"
    """The Gateway object."""
    namespace: DnsLabel | None = None
    """Its namespace; none: the environment's own."""
    section_name: DnsLabel | None = None
    """The listener; none: all of them."""
    hostname: (
        Annotated[
            str,
            Field(
                pattern=r"^(\{model\}|\*)?(\.?[a-z0-9]([-a-z0-9]*[a-z0-9])?)+$",
                max_length=253,
                examples=["models.example.com", "{model}.ml.example.com"],
            ),
        ]
        | None
    ) = None
    """The host of the routes; `{model}` stands for the model's name. None: any host."""
    controller: Literal["envoy-gateway", "istio", "kgateway", "nginx", "embedded", "unknown"] = "unknown"
    """Which implementation, because dialects and limits differ. `unknown`: only what every one of them can do."""
    sticky_header: Annotated[HeaderKey, Field(examples=["user"])] | None = None
    """Requests with the same value of this header get the same variation while weights stay, and a share that grows
    gives nobody back. None, and a request without it: decided by itself."""

    @model_validator(mode="after")
    def _sticky_header_is_free(self) -> Self:
        if self.sticky_header is not None and is_reserved(self.sticky_header):
            refuse(
                "environment/reserved-header",
                f"the header {self.sticky_header!r} is reserved",
                at="sticky_header",
                hint="choose a header that names who asks, such as `user`",
            )
        return self


class Toleration(SpecModel):
    """A taint that pods accept, as Kubernetes has it."""

    key: Annotated[str, Field(pattern=LABEL_KEY, max_length=316, examples=["nvidia.com/gpu"])] | None = None
    """The taint's key; none with `Exists`: every taint."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """`Equal` compares the value."""
    value: Annotated[str, Field(pattern=LABEL_VALUE, examples=["present"])] | None = None
    """The taint's value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """None: every effect."""
    toleration_seconds: Annotated[int, Field(ge=0), Unit("seconds")] | None = None
    """How long a pod stays, with NoExecute."""

    @model_validator(mode="after")
    def _as_kubernetes_wants(self) -> Self:
        if self.operator == "Exists" and self.value is not None:
            refuse("environment/toleration", "a toleration with operator Exists has no value", at="value")
        if self.operator == "Equal" and self.key is None:
            refuse("environment/toleration", "a toleration needs a key", hint="or write operator: Exists")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            refuse("environment/toleration", "toleration_seconds needs effect: NoExecute", at="toleration_seconds")
        return self


class InstanceTemplate(SpecModel):
    """A size by name."""

    cpu: Cpu
    """Cores."""
    memory: Memory
    """Memory."""
    gpu_type: GpuType | None = None
    """The GPU, if any."""
    gpu_amount: GpuAmount | None = None
    """How many GPUs; 1 where a type is given."""
    node_selector: NodeSelector = ()
    """Labels that the nodes must have."""

    @model_validator(mode="after")
    def _amount_of_something(self) -> Self:
        if self.gpu_amount is not None and self.gpu_type is None:
            refuse("resources/gpu", "gpu_amount needs a gpu_type", at="gpu_amount")
        return self


@dataclass(frozen=True)
class OneOrMany:
    """Describes a list that may be written as its only item."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        many = handler(core)
        return {"if": {"type": "array"}, "then": many | {"uniqueItems": True}, "else": many["items"]}


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


class Defaults(SpecModel):
    """What builds and deployments of the environment get where they say nothing."""

    iam_role_arn: IamRoleArn | None = None
    """The AWS role of the pods."""
    node_selector: NodeSelector = ()
    """Labels that the nodes must have."""
    tolerations: Annotated[Many[Toleration], Field(max_length=50)] = ()
    """Taints that the pods accept."""
    env_vars: EnvVars = ()
    """Environment variables; a build's or deployment's own win."""
    queue_name: DnsLabel | None = None
    """The Kueue LocalQueue that admits builds."""
    image_pull_secrets: Annotated[Many[SecretName], Field(max_length=20)] = ()
    """Secrets for private registries."""
    instance_templates: Annotated[tuple[tuple[InstanceName, InstanceTemplate], ...], NamedMap()] = ()
    """Sizes by name, beside and before the platform's own table (tiny, small, gpu.t4.xl, ...)."""


class Quota(SpecModel):
    """The most that everything in the environment may ask for together."""

    cpu: Annotated[float, Field(ge=0.05, le=100_000), Unit("cores")] | None = None
    """Cores."""
    memory: Memory | None = None
    """Memory."""
    gpu: Annotated[int, Field(ge=0, le=100_000), Unit("GPUs")] | None = None
    """GPUs."""
    pods: Annotated[int, Field(ge=1, le=100_000), Unit("pods")] = 500
    """Pods, running or waiting."""
    builds: Annotated[int, Field(ge=1, le=10_000), Unit("jobs")] = 200
    """Build jobs that exist at a time, finished ones until they are cleaned up included."""


class Environment(SpecModel):
    """One place where models run: a namespace of a cluster."""

    name: DnsLabel
    suspended: bool = False
    """True: nothing here is changed, and nothing is removed."""
    data_plane: Annotated[
        DataPlane, BeforeValidator(_data_plane), Field(examples=["embedded", {"type": "kubernetes", "context": "eks"}])
    ] = shared(DataPlane)
    """The cluster; none named: the embedded data plane of this machine."""
    namespace: DnsLabel | None = None
    """Its namespace, which no other environment of that cluster may have; none: the environment's name."""
    object_storage: (
        Annotated[
            str,
            Field(
                pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*'()/-]*)?|file:///[A-Za-z0-9_./-]*)$",
                max_length=1024,
                examples=["s3://acme-models/production"],
            ),
        ]
        | None
    ) = None
    """Where artifacts, metrics and inference logs are kept. None: a folder of the embedded data plane; a cluster
    needs one."""
    analytics: Analytics = shared(Analytics)
    """The SQL engine over it."""
    gateway: Gateway = shared(Gateway)
    """Where predictions come in."""
    prometheus_url: Url | None = None
    """Needed by autoscaling and by checks of a canary."""
    promote_after: Annotated[tuple[DnsLabel, ...], BeforeValidator(_one_or_many), OneOrMany()] = ()
    """A build must be verified in these environments before it may come here."""
    approval: Literal["automatic", "manual"] = "automatic"
    """`manual`: a person approves each promotion into this environment."""
    defaults: Defaults = shared(Defaults)
    """For builds and deployments that say nothing."""
    quota: Quota = shared(Quota)
    """Bounds of the namespace."""
    drift: Literal["mend", "report"] = "mend"
    """What is done about what somebody changes in the cluster past Git: `mend` it, or only `report` it."""

    @property
    def namespace_name(self) -> str:
        """The namespace, given or derived."""
        return self.namespace or self.name

    @model_validator(mode="after")
    def _namespace_is_free(self) -> Self:
        namespace = self.namespace_name
        if namespace in RESERVED_NAMESPACES or namespace.startswith("kube-"):
            at = "namespace" if self.namespace else "name"
            refuse(
                "environment/reserved-namespace",
                f"the namespace {namespace} is reserved",
                at=at,
                hint="write namespace: NAME, another one",
            )
        if has_steps(self.object_storage or ""):
            refuse(
                "environment/object-storage",
                "object_storage has a step (. or ..) in it, which no storage takes for one",
                at="object_storage",
                hint="write it out",
            )
        if self.name in self.promote_after:
            refuse("environment/promote-after", "an environment cannot come after itself", at="promote_after")
        if self.data_plane.type == "kubernetes" and not (self.object_storage or "").startswith("s3:"):
            refuse(
                "environment/object-storage",
                "a cluster needs an object storage that its pods reach, for artifacts and inference logs",
                at="object_storage" if self.object_storage else None,
                hint="write object_storage: s3://BUCKET/PREFIX",
            )
        return self
