"""CustomResourceDefinitions: the kinds they make, and the ones that come with this server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import yaml

from embedded.kinds.cells import age
from embedded.kinds.columns import AGE, NAME
from embedded.kinds.kind import Column, Kind
from embedded.schema import Schema, compile_schema

_CRDS = Path(__file__).parent.parent / "crds"
_META_SCHEMA = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


@cache
def shipped_crds() -> tuple[dict[str, Any], ...]:
    """The CustomResourceDefinitions that the server installs when it starts. Do not change them: they are shared."""
    found: list[dict[str, Any]] = []
    for path in sorted(_CRDS.glob("*.yaml")):
        found += [document for document in yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader) if document]
    return tuple(found)


@cache
def _object_meta() -> Schema:
    from embedded.kinds.builtin import definitions  # noqa: PLC0415 - builtin imports the columns, which import kinds

    return compile_schema({"$ref": _META_SCHEMA}, definitions())


def kinds_of_crd(crd: Mapping[str, Any]) -> tuple[Kind, ...]:
    """One Kind per served version. The definition must be valid: `validate` it first."""
    spec = crd["spec"]
    return tuple(_kind(spec, version) for version in spec["versions"] if version.get("served"))


def _kind(spec: Mapping[str, Any], version: Mapping[str, Any]) -> Kind:
    names = spec["names"]
    openapi = version.get("schema", {}).get(
        "openAPIV3Schema", {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    )
    schema = compile_schema(openapi)
    if spec.get("preserveUnknownFields"):
        schema.preserve_unknown = True
    schema.properties["metadata"] = _object_meta()
    for name in ("apiVersion", "kind"):
        schema.properties.setdefault(name, Schema(type="string"))
    subresources = version.get("subresources", {})
    columns = tuple(_column(item) for item in version.get("additionalPrinterColumns", ()))
    return Kind(
        group=spec["group"],
        version=version["name"],
        kind=names["kind"],
        plural=names["plural"],
        singular=names.get("singular") or names["kind"].lower(),
        namespaced=spec["scope"] == "Namespaced",
        schema=schema,
        short_names=tuple(names.get("shortNames", ())),
        categories=tuple(names.get("categories", ())),
        subresources=frozenset(subresources),
        columns=(NAME, *(columns or (AGE,))),
        storage=bool(version.get("storage")),
        custom=True,
        openapi=openapi,
        scale_paths=subresources.get("scale", {}),
    )


def _column(item: Mapping[str, Any]) -> Column:
    read = json_path(item["jsonPath"])
    kind = item["type"]

    def cell(obj: Mapping[str, Any], now: datetime) -> Any:
        found = read(obj)
        if not found:
            return None
        value = found[0]
        if kind == "date":
            return age(value, now) if isinstance(value, str) else None
        if kind == "string":
            return ",".join(map(_plain, found)) if len(found) > 1 else _plain(value)
        return value

    return Column(
        item["name"],
        kind,
        cell,
        format=item.get("format", ""),
        description=item.get("description", ""),
        priority=item.get("priority", 0),
    )


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


_STEP = re.compile(
    r"""\.(?P<field>(?:[^.\[\]\\]|\\.)+)            # .name, with dots escaped
      | \['(?P<quoted>[^']*)'\]                     # ['name']
      | \[(?P<index>-?\d+|\*)\]                     # [0] or [*]
      | \[\?\(\s*@\.(?P<key>[\w.-]+)\s*==\s*(?P<quote>["'])(?P<wanted>.*?)(?P=quote)\s*\)\]""",
    re.VERBOSE,
)


def json_path(path: str) -> Any:
    """A function that reads a simple JSONPath from an object and gives the list of values found.

    Fields, indexes, `[*]` and `[?(@.type=="Ready")]`: what printer columns and scale subresources use. Other syntax
    finds nothing.
    """
    steps: list[re.Match[str]] = []
    position = 0
    while position < len(path):
        step = _STEP.match(path, position)
        if step is None:
            return lambda _obj: []
        steps.append(step)
        position = step.end()

    def read(obj: Any) -> list[Any]:
        values = [obj]
        for step in steps:
            values = [found for value in values for found in _step(step, value)]
        return [value for value in values if value is not None]

    return read


def _step(step: re.Match[str], value: Any) -> list[Any]:
    name = step["field"] or step["quoted"]
    if name is not None:
        name = name.replace("\\.", ".")
        return [value[name]] if isinstance(value, dict) and name in value else []
    if step["key"] is not None:
        return (
            [item for item in value if isinstance(item, dict) and str(item.get(step["key"])) == step["wanted"]]
            if isinstance(value, list)
            else []
        )
    if not isinstance(value, list):
        return list(value.values()) if isinstance(value, dict) and step["index"] == "*" else []
    if step["index"] == "*":
        return list(value)
    index = int(step["index"])
    return [value[index]] if -len(value) <= index < len(value) else []
