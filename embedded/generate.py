"""Makes `embedded/definitions/*.json`: what the built-in kinds look like. For developers of this package only.

    mkdir openapi && for p in api/v1 apis/apps/v1 apis/batch/v1 ...; do
        kubectl get --raw /openapi/v3/$p > openapi/$(echo $p | tr / _).json; done
    python -m embedded.generate openapi PATH/TO/staging/src/k8s.io

OpenAPI says the types, the enums, how lists merge, and which structs are always there (`default: {}`). It does not
say which zero values the server leaves out of its answers (`hostPort: 0`, `env: []`): that is in the Go tags of
k8s.io/api (`omitempty` on a field that is not a pointer). Such properties get `x-omit-empty: true` here, and pointers
and lists that are written even when they are nil `x-never-absent: true` (null is then what the server writes, and it
decides who owns the path of a new list).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import orjson

from embedded.kinds.builtin import ROOTS

DATA = Path(__file__).parent / "definitions"
REF = "#/components/schemas/"
# Enums whose refusal the server words in its own way (embedded.kinds says it), and those that it lists in another
# order.
OWN_WORDS = {
    ("DeploymentStrategy", "type"), ("StatefulSetSpec", "podManagementPolicy"), ("StatefulSetUpdateStrategy", "type"),
    ("Toleration", "operator"), ("PersistentVolumeClaimSpec", "accessModes"), ("HTTPGetAction", "scheme"),
    ("CustomResourceDefinitionSpec", "scope"), ("LimitRangeItem", "type"),
}  # fmt: skip
ORDER = {
    tuple(sorted(values)): list(values)
    for values in (
        ("Always", "OnFailure", "Never"), ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"),
        ("NonIndexed", "Indexed"),
        ("NoSchedule", "PreferNoSchedule", "NoExecute"), ("File", "FallbackToLogsOnError"), ("Ingress", "Egress"),
    )
}  # fmt: skip
KEPT = (
    "type", "format", "required", "properties", "additionalProperties", "items", "enum", "default", "oneOf", "nullable",
    "minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum", "pattern",
    "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type",
    "x-kubernetes-patch-strategy", "x-kubernetes-patch-merge-key",
    "x-kubernetes-preserve-unknown-fields", "x-kubernetes-group-version-kind",
)  # fmt: skip


def compact(node: dict[str, Any]) -> dict[str, Any]:
    """The node without descriptions; `allOf: [{$ref}]` becomes a plain `$ref` with its siblings."""
    out = {key: node[key] for key in KEPT if key in node}
    refs = [node, *node.get("allOf", ())]
    for ref in refs:
        if "$ref" in ref:
            out["$ref"] = ref["$ref"].removeprefix(REF)
    if "properties" in out:
        out["properties"] = {name: compact(child) for name, child in sorted(out["properties"].items())}
    for key in ("items", "additionalProperties"):
        if isinstance(out.get(key), dict):
            out[key] = compact(out[key])
    return out


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(references(child) for child in node.values()))
    return set()


def go_fields(source: Path) -> dict[str, dict[str, tuple[str, str]]]:
    """{"core.v1.Container": {"name": (Go type, json tag)}}; embedded structs are under the name "" + type."""
    structs: dict[str, dict[str, tuple[str, str]]] = {}
    for path in sorted(source.rglob("types*.go")):
        package = ".".join(path.parent.parts[-2:])
        for name, body in re.findall(r"^type (\w+) struct \{\n(.*?)^\}", path.read_text(), re.MULTILINE | re.DOTALL):
            fields = structs.setdefault(f"{package}.{name}", {})
            for go_type, tag in re.findall(r'^\t(?:\w+\s+)?(\S+)\s+`json:"([^"]*)"', body, re.MULTILINE):
                json_name, _, options = tag.partition(",")
                fields[json_name or f"inline {go_type}"] = (go_type, options)
    for name, fields in structs.items():
        package = name.rpartition(".")[0]
        for inline in [field for field in fields if field.startswith("inline ")]:
            fields.update(structs.get(f"{package}.{inline.removeprefix('inline ')}", {}))
    return structs


def mark_omitted(name: str, definition: dict[str, Any], structs: dict[str, dict[str, tuple[str, str]]]) -> None:
    fields = structs.get(".".join(name.split(".")[-3:]), {})
    for prop, node in definition.get("properties", {}).items():
        go_type, options = fields.get(prop, ("*", ""))
        values = node.get("items", node).get("enum")
        if values and (name.rpartition(".")[2], prop) in OWN_WORDS:
            del node.get("items", node)["enum"]
        elif values:
            node.get("items", node)["enum"] = ORDER.get(tuple(sorted(values)), values)
        is_struct = "$ref" in node or ("type" not in node)
        if "omitempty" in options and not go_type.startswith("*") and not is_struct:
            node["x-omit-empty"] = True
        written_as_null = "omitempty" not in options and go_type.startswith(("*", "[", "map"))
        zero_time = (
            go_type.rpartition(".")[2] in ("Time", "MicroTime")
            and go_type[0].isalpha()
            and not go_type.startswith("map")
            and "omitzero" not in options
        )
        if prop in fields and (written_as_null or zero_time):
            node["x-never-absent"] = True


def main(openapi: Path, source: Path) -> None:
    known: dict[str, dict[str, Any]] = {}
    for path in sorted(openapi.glob("*.json")):
        known.update(orjson.loads(path.read_bytes())["components"]["schemas"])
    structs = go_fields(source)
    chosen: dict[str, dict[str, Any]] = {}
    queue = list(ROOTS)
    while queue:
        name = queue.pop()
        if name in chosen:
            continue
        chosen[name] = compact(known[name])
        mark_omitted(name, chosen[name], structs)
        queue.extend(references(chosen[name]))
    files: dict[str, dict[str, Any]] = {}
    for name in sorted(chosen):
        package = "meta" if name.startswith("io.k8s.apimachinery") else name.split(".")[-3]
        files.setdefault(package, {})[name] = chosen[name]
    for package, definitions in files.items():
        (DATA / f"{package}.json").write_bytes(orjson.dumps(definitions, option=orjson.OPT_APPEND_NEWLINE))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
