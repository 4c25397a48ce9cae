"""Documents that the JSON Schema would nearly always take, made from it: what comes after it is reached often."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import jsonschema_rs

from reconciler.specs.typed import schema
from tests.fuzz.choices import Choices
from tests.fuzz.targets.specs import NEIGHBOUR, answered
from tests.fuzz.targets.target import Target

#: Few names, so that references lead somewhere, and names meet.
_NAMES = ("a", "b", "a-1", "default", "staging", "production", "adults", "kube-x", "trueup-system", "n" * 63)
_NAMED = frozenset(
    (
        *("name", "model", "build", "automation", "audience", "environment", "variation", "variation_name"),
        *("promote_after", "environments", "namespace", "context", "kubeconfig_secret", "metric_name"),
    )
)
_SQL = (
    "0.65",
    "select max(value) from build_metrics where model = :model",
    "select max(value) from bild_metrics",
    "select 1, 2",
    "select * from read_text('/etc/passwd')",
    "with x as (select 1) select * from x",
    "select max(value) from build_metrics where build_id <> :build_id and finished_at > :as_of - interval 1 day",
)
_TEXTS = (
    *("", "a", "A_b", "secret.a", "secret.a.b", "5m", "90s", "2Gi", "512Mi", "17", "-0.5", "1e9", "x" * 80, "é", "\n"),
    *("0 3 * * *", "*/5 * * * *", "Europe/Berlin", "a.*|b", "[a-z]+", "(?=a)", "https://git.example.com/m.git#x"),
    *("ssh://git@example.com/m.git", "file:///models", "../../x", "s3://bucket/x", "{model}.example.com", "\u202e"),
)
#: Text that fits somewhere, tried against the pattern of a field.
_FITTING = (
    *("a", "b", "abc", "5m", "90s", "2Gi", "17", "0.5", "0 3 * * *", "eu-west-1", "https://a.example/x", "main", "A=b"),
    *("s3://bucket/x", "https://git.example.com/m.git#x", "arn:aws:iam::123456789012:role/x", "a" * 40, "0" * 64),
)
#: Of these a spec has exactly one.
_ONE_OF = (
    ("scheduled", "metric", "git", "manual"),
    ("cron", "interval"),
    ("build", "automation"),
    ("build_spec", "batch_execution"),
    ("git_branch", "git_commit"),
    ("git_access_token_secret", "git_ssh_token_secret"),
)
_WRONG: tuple[Any, ...] = (None, True, -1, 0.5, 10**9, "", "x", [], {}, ["a", "a"], {"a": "b"})


def check(data: bytes) -> None:
    choices = Choices(data)
    files = [_document(choices) for _ in range(1 + choices.below(2))]
    answered({f"{name}.yaml": content for name, content in zip("ab", [*files, NEIGHBOUR], strict=False)})


def _document(choices: Choices) -> bytes:
    kinds = _resolved(_resolved(schema())["properties"]["spec"])["properties"]
    writer = _Writer(choices, careless=choices.seldom(4))
    spec = {}
    for kind, items in kinds.items():
        count = choices.below(4)
        if count:
            spec[kind] = [writer.value(_items(items), "") for _ in range(count)]
    return json.dumps({"api_version": "v1", "spec": spec}, indent=1).encode()


def _items(node: dict[str, Any]) -> dict[str, Any]:
    node = _resolved(node)
    items: dict[str, Any] = node["items"] if "items" in node else _items(node["anyOf"][0])
    return items


def _resolved(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = schema()["$defs"][node["$ref"].removeprefix("#/$defs/")]
    return node


@dataclass(frozen=True)
class _Writer:
    """Writes what the schema describes. A careless one slips: a wrong type, text of no form, a key of its own."""

    choices: Choices
    careless: bool

    def value(self, node: Any, key: str) -> Any:
        choices = self.choices
        if self.careless and choices.seldom(32):
            return choices.one_of(_WRONG)
        node = _resolved(node)
        if "const" in node or "enum" in node:
            return choices.one_of(node.get("enum") or [node["const"]])
        for alternatives in ("anyOf", "oneOf"):
            if alternatives in node:
                return self.value(choices.one_of(node[alternatives]), key)
        if "then" in node:
            return self.value(node["then"] if choices.flag() else node["else"], key)
        kind = node.get("type")
        match choices.one_of(kind) if isinstance(kind, list) else kind:
            case "object":
                return self.object(node)
            case "array":
                few = (node.get("minItems", 0), 1, 2, 3)
                return [self.value(node.get("items", {}), key) for _ in range(choices.one_of(few))]
            case "string":
                return self.text(node, key)
            case "integer":
                low, high = node.get("minimum", 0), node.get("maximum", 100)
                return choices.one_of((low, max(low, 1), min(high, 50), min(high, 100), high))
            case "number":
                low, high = node.get("minimum", 0), node.get("maximum", 100)
                return choices.one_of((low, max(low, 0.5), min(high, 2.5), high))
            case "boolean":
                return choices.flag()
            case _:
                return None

    def object(self, node: dict[str, Any]) -> dict[str, Any]:
        choices, required = self.choices, node.get("required", ())
        result = {
            key: self.value(part, key)
            for key, part in node.get("properties", {}).items()
            if key in required or choices.seldom(4)
        }
        if not self.careless:
            for group in _ONE_OF:
                if all(key in node.get("properties", {}) for key in group):
                    only = choices.one_of(group)
                    result = {key: value for key, value in result.items() if key not in group}
                    part = _resolved(node["properties"][only])
                    result[only] = self.value(part.get("anyOf", [part])[0], only)  # the other one is null
        more = node.get("additionalProperties")
        if isinstance(more, dict):
            for _ in range(choices.below(3)):
                name = choices.one_of((*_NAMES, *_TEXTS) if self.careless else ("staging", "a", "API_TOKEN"))
                result[name] = self.value(more, "")
        if self.careless and choices.seldom(32):
            result[choices.one_of(("nmae", "weights", "x", "", "\x1b[2J"))] = choices.one_of(_WRONG)
        return result

    def text(self, node: dict[str, Any], key: str) -> str:
        choices = self.choices
        if key in _NAMED and not (self.careless and choices.seldom()):
            return choices.one_of(_NAMES if self.careless else _NAMES[:5])
        if key in ("threshold", "sql_query") and choices.flag():
            return choices.one_of(_SQL)
        given = node.get("examples", ())
        if given and not (self.careless and choices.seldom(4)):
            return str(choices.one_of(given))
        return choices.one_of(_TEXTS if self.careless else _fitting(node.get("pattern", "")))


@cache
def _fitting(pattern: str) -> tuple[str, ...]:
    matcher = jsonschema_rs.validator_for({"pattern": pattern})
    return tuple(text for text in _FITTING if matcher.is_valid(text)) or ("",)


TARGET = Target(check, seeds=[bytes(range(256)), bytes(reversed(range(256))), bytes(n * 7 % 251 for n in range(1000))])
