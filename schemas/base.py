"""What every spec type is made of: the model base, and the scalar types of the language.

JSON Schema is checked before these types see a document (`reconciler.specs`), so a rule that JSON Schema can
say (type, enum, pattern, range) is said by the annotation, and only what it cannot say is a validator that
calls `refuse`.
"""

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    Strict,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from schemas.problem import quoted

#: A JSON Schema, or a part of one. (pydantic's own alias costs the import of its generator.)
JsonSchema = dict[str, Any]


class SpecModel(BaseModel):
    """Frozen, strict, and closed: an unknown key is an error, and so is `"1"` where 1 is meant.

    `KEYS_FIRST`: keys that people write before those of the type that this one is derived from.
    """

    KEYS_FIRST: ClassVar[tuple[str, ...]] = ()

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        defer_build=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


@dataclass(frozen=True)
class Unit:
    """Annotation of a number: what one of it is, for people who look the field up ("x-unit" in the JSON Schema)."""

    name: str

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return handler(core) | {"x-unit": self.name}


def refuse(rule: str, message: str, *, at: str | int | None = None, hint: str = "") -> NoReturn:
    """Ends a validator with a problem that the loader can place.

    `at` is the key below the validated node that is to blame (default: the node itself); `hint` says what to
    write instead.
    """
    raise PydanticCustomError(rule, "{message}", {"message": message, "at": at, "hint": hint})


def shared(model: type[BaseModel]) -> Any:
    """The default of a field whose type has defaults only: one frozen value for all, made when first needed.

    A value made in the class body would build its validator at import, which every start of the command would pay.
    """
    return Field(default_factory=cache(model))


T = TypeVar("T")

#: A YAML list. Only the container is lenient (YAML has no tuples); its items stay strict.
Many = Annotated[tuple[T, ...], Strict(False)]


_ALPHANUMERIC = "a name starts and ends with a letter or digit"

#: A model, variation, or build: becomes part of Kubernetes names, so lower case (the platform's own rule).
ResourceName = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]([-_.a-z0-9]*[a-z0-9])?$",
        max_length=63,
        description=f"Lower case; {_ALPHANUMERIC}.",
        examples=["churn"],
    ),
]
#: A variation's name: the platform allows 36 characters, and no underscore.
VariationName = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$",
        max_length=36,
        description=f"Lower case; {_ALPHANUMERIC}.",
        examples=["default"],
    ),
]
#: An audience or automation: a label value in Kubernetes, where upper case is fine ("New-York").
DisplayName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$",
        max_length=63,
        description=f"{_ALPHANUMERIC[0].upper()}{_ALPHANUMERIC[1:]}.",
        examples=["california"],
    ),
]
#: A DNS label: environments and namespaces.
DnsLabel = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        max_length=63,
        description="A DNS label (RFC 1123).",
        examples=["production"],
    ),
]
#: The name of a Kubernetes Secret (or of one in the environment's namespace). Never its content.
SecretName = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$",
        max_length=253,
        description="The name of a Secret in the environment's namespace; never its content.",
        examples=["models-token"],
    ),
]
#: Text for people, one line or many.
Text = Annotated[str, Field(max_length=4096)]

#: Memory as a Kubernetes quantity. The platform's spellings GiB and MiB are read, and written as Gi and Mi.
Memory = Annotated[
    str,
    Field(pattern=r"^[1-9][0-9]*(\.[0-9]+)?(Ki|Mi|Gi|Ti|MiB|Mib|GiB|Gib)$", max_length=20, examples=["512Mi", "2Gi"]),
    AfterValidator(lambda value: value.rstrip("bB")),
]
#: CPU cores; Kubernetes would accept a billionth of one, which schedules and then never finishes.
Cpu = Annotated[float, Field(ge=0.05, le=512, examples=[0.5, 2]), Unit("cores")]
GpuAmount = Annotated[int, Field(ge=1, le=64), Unit("GPUs")]

#: A length of time: a whole number and a unit.
Duration = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}(s|m|h|d)$", examples=["90s", "10m", "6h", "7d"])]
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(duration: str) -> int:
    """The seconds of a `Duration`: "10m" -> 600."""
    return int(duration[:-1]) * _UNIT_SECONDS[duration[-1]]


#: The platform's list of GPU types: what its command line lists, then the sized ones of its API.
GpuType = Literal[
    "NVIDIA_K80",
    "NVIDIA_V100",
    "NVIDIA_A100",
    "NVIDIA_T4",
    "NVIDIA_A10G",
    "NVIDIA_L4",
    "NVIDIA_T4_1_4_15",
    "NVIDIA_T4_1_8_30",
    "NVIDIA_T4_1_16_60",
    "NVIDIA_A100_80GB_8_96_1360",
    "NVIDIA_V100_1_8_52",
    "NVIDIA_V100_4_32_208",
    "NVIDIA_H100_NVL",
    "NVIDIA_A10",
    "NVIDIA_H100_SXM",
    "NVIDIA_H100_40GB",
    "NVIDIA_H100_80GB",
    "NVIDIA_M60",
    "NVIDIA_V100_2_16_104",
    "NVIDIA_V100_4_64_240",
    "NVIDIA_T4_4_16_104",
    "NVIDIA_T4_4_32_208",
    "NVIDIA_L4_4_48_192",
    "NVIDIA_A100_40GB_1_12_85",
    "NVIDIA_A100_40GB_2_24_170",
    "NVIDIA_A100_40GB_4_48_340",
]

#: What may stand for a metric compared with a threshold. ABOVE and BELOW are strict.
Direction = Literal["ABOVE", "BELOW", "EQUALS", "BELOW_OR_EQUALS", "ABOVE_OR_EQUALS"]

#: A static threshold, exactly: ASCII digits. Python's own parsers also take "1_000", "٣", "nan" and " 1 ".
STATIC_THRESHOLD = re.compile(r"[+-]?([0-9]+(\.[0-9]+)?|\.[0-9]+)([eE][+-]?[0-9]+)?")

#: How a query begins, after blanks, parentheses and comments.
_QUERY = re.compile(r"(?>\s|\(|--[^\n]*\n|/\*.*?\*/)*+(select|with)\b", re.IGNORECASE | re.DOTALL)


def _check_query(value: str) -> str:
    if _QUERY.match(value) is None:
        refuse("sql/no-query", "this is no SQL query", hint="begin it with SELECT, or WITH")
    return value


def _check_threshold(value: str) -> str:
    # "0,65" and "65%" would be taken for SQL, and fail at the first promotion instead of here.
    if STATIC_THRESHOLD.fullmatch(value) is None and _QUERY.match(value) is None:
        refuse(
            "threshold/form",
            f"{quoted(value)} is neither a decimal number nor a SQL query",
            hint='write digits, such as "0.65", or a query that begins with SELECT, or WITH',
        )
    return value


Sql = Annotated[
    str,
    Field(
        min_length=1,
        max_length=16_384,
        examples=["select max(value) from build_metrics where model = :model and name = 'f1'"],
    ),
    AfterValidator(_check_query),
]

#: Always text, as on the platform: a decimal number, or a SQL query that answers one row of one column.
Threshold = Annotated[
    str,
    Field(
        min_length=1,
        max_length=16_384,
        description='A decimal number in quotes ("0.65"), or a SQL query that returns one row of one column.',
        examples=["0.65", "select avg(value) from build_metrics where model = :model and name = 'f1'"],
    ),
    AfterValidator(_check_threshold),
]
#: A threshold that is a number and nothing else.
StaticThreshold = Annotated[
    str, Field(pattern=rf"^{STATIC_THRESHOLD.pattern}$", max_length=64, examples=["0.5", "250"])
]

PurchaseOption = Annotated[
    Literal["spot", "ondemand"], Field(description="`spot` may be interrupted and is retried; `ondemand` is not.")
]

_ENV_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_ENV_ITEM = re.compile(rf"({_ENV_NAME})=(.*)", re.DOTALL)


def _env_vars(value: Any) -> Any:
    """Both spellings of the platform, ["K=V"] and {K: V}, as pairs in order of name."""
    if isinstance(value, Mapping):
        return tuple(sorted(value.items()))
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        pairs: dict[str, str] = {}
        for index, item in enumerate(value):
            match = _ENV_ITEM.fullmatch(item)
            if match is None:
                refuse("env-vars/form", f"{item.partition('=')[0]!r} is not of the form NAME=VALUE", at=index)
            if match[1] in pairs:
                refuse("env-vars/duplicate", f"the variable {match[1]} is set twice", at=index, hint="keep one of them")
            pairs[match[1]] = match[2]
        return tuple(sorted(pairs.items()))
    return value


#: The value of an environment variable that is read from a Secret.
SECRET_REFERENCE = re.compile(r"secret\.(?P<name>[a-z0-9]([-a-z0-9]*[a-z0-9])?)(\.(?P<key>[-._A-Za-z0-9]+))?")


def _check_secrets(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    for name, value in pairs:
        # A misspelt reference would reach the model as text, and look like a wrong password there.
        if value.startswith("secret.") and SECRET_REFERENCE.fullmatch(value) is None:
            refuse(
                "env-vars/secret",
                f"{name} does not name a Secret",
                at=name,
                hint="write secret.NAME or secret.NAME.KEY, the name in lower-case letters, digits and -",
            )
    return pairs


class Described:
    """Annotation: the JSON Schema of a field whose validators read more than its type says."""

    def __init__(self, schema: JsonSchema) -> None:
        self._schema = schema

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return deepcopy(self._schema)


#: Environment variables. The value `secret.NAME` is read from the Secret NAME (key `value`), and
#: `secret.NAME.KEY` from its key KEY; that is how a spec uses a secret without holding it.
EnvVars = Annotated[
    tuple[tuple[str, str], ...],
    BeforeValidator(_env_vars),
    AfterValidator(_check_secrets),
    PlainSerializer(dict, when_used="json"),
    Described(
        {
            "description": (
                "Environment variables, as a mapping or as a list of NAME=VALUE. "
                "`secret.NAME` or `secret.NAME.KEY` as the value reads a Secret."
            ),
            "examples": [{"LOG_LEVEL": "info", "API_KEY": "secret.scoring-api"}, ["LOG_LEVEL=info"]],
            "anyOf": [
                {
                    "type": "object",
                    "propertyNames": {"pattern": f"^{_ENV_NAME}$", "maxLength": 253},
                    "additionalProperties": {"type": "string", "maxLength": 32768},
                    "maxProperties": 500,
                },
                {
                    "type": "array",
                    "items": {
                        "type": "string",
                        "pattern": f"^{_ENV_NAME}=",
                        "maxLength": 33024,
                        "examples": ["LOG_LEVEL=info"],
                    },
                    "maxItems": 500,
                },
            ],
        }
    ),
]


#: A mapping of text to text as a spec value: pairs in order of key, so that it can be hashed and compared.
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class TextMap:
    """Annotation of a `Pairs` field: reads a mapping, and describes it in the JSON Schema."""

    key_pattern: str
    example: tuple[tuple[str, str], ...]
    value_pattern: str = ""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        as_read = core_schema.plain_serializer_function_ser_schema(dict, when_used="json")
        return core_schema.no_info_before_validator_function(_sorted_pairs, handler(source), serialization=as_read)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        value = {"type": "string", "maxLength": 4096}
        return {
            "type": "object",
            "examples": [dict(self.example)],
            "propertyNames": {"pattern": self.key_pattern, "maxLength": 253},
            "additionalProperties": value | ({"pattern": self.value_pattern} if self.value_pattern else {}),
            "maxProperties": 200,
        }


@dataclass(frozen=True)
class NamedMap:
    """Annotation of a field of (name, model) pairs: reads a mapping, and describes it in the JSON Schema."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(_sorted_pairs, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        name, item = handler(core)["items"]["prefixItems"]
        names = {key: name[key] for key in ("pattern", "maxLength")}
        return {"type": "object", "propertyNames": names, "additionalProperties": item, "maxProperties": 200}


def _sorted_pairs(value: Any) -> Any:
    return tuple(sorted(value.items())) if isinstance(value, Mapping) else value


#: An AWS role that pods of the environment or variation assume.
IamRoleArn = Annotated[
    str,
    Field(
        pattern=r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]{1,512}$",
        examples=["arn:aws:iam::123456789012:role/churn-serving"],
    ),
]

#: A path inside a repository: relative, forward slashes, no step upwards.
RepositoryPath = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$", max_length=1024, examples=["main"]),
]


def has_steps(path: str) -> bool:
    """Whether a path, or an address with one, goes anywhere but downwards: no reader agrees with another on where."""
    return any(part in (".", "..") for part in path.split("/"))


#: A container image.
Image = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]([a-z0-9._:/-]*[a-z0-9])?(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$",
        max_length=512,
        examples=["registry.example.com/ml/base:3.11"],
    ),
]
