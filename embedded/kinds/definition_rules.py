"""Validation of CustomResourceDefinitions: names, versions, and whether a schema is structural.

Rules: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from embedded.cel import CelError, compile_rule
from embedded.checking import check
from embedded.kinds import formats
from embedded.kinds.problems import Problems
from embedded.patterns import go_pattern
from embedded.schema import compile_schema

_Object = Mapping[str, Any]
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")


def custom_resource_definition(found: Problems, obj: _Object, old: _Object | None) -> None:
    spec = obj["spec"]
    names, group = spec.get("names", {}), spec.get("group", "")
    name = obj["metadata"].get("name", "")
    if name != f"{names.get('plural', '')}.{group}":
        found.invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group')
    if not group:
        found.required("spec.group")
    else:
        found.each_invalid("spec.group", group, formats.dns_subdomain(group))
        if "." not in group:
            found.invalid("spec.group", group, "should be a domain with at least one dot")
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        found.unsupported("spec.scope", spec.get("scope", ""), ("Cluster", "Namespaced"))
    _names(found, names)
    versions = spec.get("versions") or []
    if sum(bool(version.get("storage")) for version in versions) != 1:
        found.invalid("spec.versions", versions, "must have exactly one version marked as storage version")
    if not obj.get("status", {}).get("storedVersions"):
        found.invalid("status.storedVersions", None, "must have at least one stored version")
    seen: set[str] = set()
    for index, version in enumerate(versions):
        where = f"spec.versions[{index}]"
        found.each_invalid(f"{where}.name", version.get("name", ""), formats.dns_1035_label(version.get("name", "")))
        if version.get("name") in seen:
            found.invalid("spec.versions", version.get("name"), "must contain unique version names")
        seen.add(version.get("name", ""))
        _version(found, where, version, only=len(versions) == 1)
    if old is not None and _is_established(old):
        _unchanged(found, spec, old["spec"])


def _names(found: Problems, names: _Object) -> None:
    for field, rule in (("plural", formats.dns_1035_label), ("singular", formats.dns_1035_label)):
        value = names.get(field, "")
        if not value:
            found.required(f"spec.names.{field}")
        else:
            found.each_invalid(f"spec.names.{field}", value, rule(value))
    for field in ("kind", "listKind"):
        value = names.get(field, "")
        if not value:
            found.required(f"spec.names.{field}")
        else:
            problems = formats.dns_1035_label(value.lower())
            found.each_invalid(
                f"spec.names.{field}",
                value,
                (f"may have mixed case, but should otherwise match: {problem}" for problem in problems),
            )
    for index, value in enumerate(names.get("shortNames", ())):
        found.each_invalid(f"spec.names.shortNames[{index}]", value, formats.dns_1035_label(value))
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        found.invalid("spec.names.listKind", names["listKind"], "kind and listKind may not be the same")


def _is_established(obj: _Object) -> bool:
    conditions = obj.get("status", {}).get("conditions") or ()
    return any(item["type"] == "Established" and item["status"] == "True" for item in conditions)


def _unchanged(found: Problems, new: _Object, old: _Object) -> None:
    found.immutable("spec.group", new.get("group"), old.get("group"))
    found.immutable("spec.scope", new.get("scope"), old.get("scope"))
    for name in ("plural", "kind"):
        found.immutable(f"spec.names.{name}", new["names"].get(name), old["names"].get(name))


def _version(found: Problems, field: str, version: _Object, *, only: bool) -> None:
    schema = version.get("schema", {}).get("openAPIV3Schema")
    if schema is None:
        found.required(f"{field}.schema.openAPIV3Schema")
    else:
        before = len(found.causes)
        # of a single version the server speaks in the words of an older form of the definition
        where = "spec.validation.openAPIV3Schema" if only else f"{field}.schema.openAPIV3Schema"
        if schema.get("type") != "object":
            found.invalid(f"{where}.type", schema.get("type", ""), "must be object at the root")
        _structural(found, where, schema, root=True)
        if len(found.causes) == before:
            _defaults_fit(found, where, schema)
    for index, column in enumerate(version.get("additionalPrinterColumns", ())):
        where = f"{'spec' if only else field}.additionalPrinterColumns[{index}]"
        if column.get("type") not in _COLUMN_TYPES:
            found.invalid(f"{where}.type", column.get("type", ""), f"must be one of {','.join(_COLUMN_TYPES)}")
        if not column.get("name"):
            found.required(f"{where}.name")
        if not column.get("jsonPath", "").startswith("."):
            found.invalid(f"{where}.jsonPath", column.get("jsonPath", ""), "must be a simple json path starting with .")
    scale = version.get("subresources", {}).get("scale")
    if scale is not None:
        for name in ("specReplicasPath", "statusReplicasPath"):
            prefix = f".{name.removesuffix('ReplicasPath')}."
            if not scale.get(name, "").startswith(prefix):
                found.invalid(
                    f"{'spec' if only else field}.subresources.scale.{name}",
                    scale.get(name, ""),
                    f"should be a json path under {prefix[:-1]}",
                )


def _structural(found: Problems, field: str, node: _Object, *, root: bool = False) -> None:
    """Every field has a type, and the validations do not hide further structure."""
    kind = node.get("type", "")
    flexible = node.get("x-kubernetes-int-or-string") or node.get("x-kubernetes-preserve-unknown-fields")
    if not kind and not flexible:
        found.required(
            f"{field}.type",
            "must not be empty for specified object fields"
            if not field.endswith("items")
            else "must not be empty for specified array items",
        )
    elif kind and kind not in _TYPES:
        found.unsupported(f"{field}.type", kind, _TYPES)
    if kind == "array" and "items" not in node:
        found.required(f"{field}.items", "must be specified")
    if "properties" in node and "additionalProperties" in node:
        found.forbidden(f"{field}.additionalProperties", "must be mutual exclusive with properties")
    if "pattern" in node:
        try:
            go_pattern(node["pattern"])
        except re.error as error:
            found.invalid(
                f"{field}.pattern", node["pattern"], f"must be a valid regular expression, but isn't: {error}"
            )
    if root and "default" in node:
        found.forbidden(f"{field}.default", "must not be set at the root")
    _list_rules(found, field, node)
    _cel_rules(found, field, node)
    for name, child in node.get("properties", {}).items():
        if root and name == "metadata":
            continue
        _structural(found, f"{field}.properties[{name}]", child)
    for name in ("items", "additionalProperties"):
        if isinstance(node.get(name), Mapping):
            _structural(found, f"{field}.{name}", node[name])


def _cel_rules(found: Problems, field: str, node: _Object) -> None:
    for index, rule in enumerate(node.get("x-kubernetes-validations", ())):
        try:
            compile_rule(rule)
        except CelError as error:
            found.invalid(f"{field}.x-kubernetes-validations[{index}].rule", rule, f"compilation failed: {error}")


def _list_rules(found: Problems, field: str, node: _Object) -> None:
    kind, keys = node.get("x-kubernetes-list-type"), node.get("x-kubernetes-list-map-keys", ())
    if kind is None:
        if keys:
            found.invalid(
                f"{field}.x-kubernetes-list-type", "", "must be map if x-kubernetes-list-map-keys is non-empty"
            )
        return
    if kind not in ("atomic", "map", "set"):
        found.unsupported(f"{field}.x-kubernetes-list-type", kind, ("atomic", "map", "set"))
    if node.get("type") != "array":
        found.invalid(f"{field}.type", node.get("type", ""), "must be array if x-kubernetes-list-type is specified")
    if kind != "map":
        return
    items = node.get("items", {})
    if not keys:
        found.required(f"{field}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map")
    elif any(key not in items.get("properties", {}) for key in keys):
        found.invalid(f"{field}.x-kubernetes-list-map-keys", list(keys), "entries must all be names of item properties")
    else:
        for key in keys:
            if "default" not in items["properties"][key] and key not in items.get("required", ()):
                found.required(
                    f"{field}.items.properties[{key}].default",
                    "this property is in x-kubernetes-list-map-keys, "
                    "so it must have a default or be a required property",
                )


def _defaults_fit(found: Problems, field: str, node: _Object) -> None:
    if "default" in node:
        for cause in check(compile_schema(node), node["default"]):
            found.causes.append(
                cause._replace(field=f"{field}.default", message=cause.message.replace("<nil> in body", " in body"))
            )
    for name, child in node.get("properties", {}).items():
        _defaults_fit(found, f"{field}.properties[{name}]", child)
    for name in ("items", "additionalProperties"):
        if isinstance(node.get(name), Mapping):
            _defaults_fit(found, f"{field}.{name}", node[name])
