"""What the server serves, as clients ask for it: versions, groups, resources, OpenAPI."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from embedded.kinds import definitions
from embedded.kinds.kind import Kind
from embedded.registry import Registry

#: The Kubernetes version whose behaviour this server has.
VERSION = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.2+trueup-embedded",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "",
}

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

_SUBRESOURCE_VERBS = {"log": ["get"], "scale": ["get", "patch", "update"], "status": ["get", "patch", "update"]}
_SCALE = {"group": "autoscaling", "version": "v1", "kind": "Scale"}


def wants_aggregated(accept: str) -> bool:
    """Whether a client asks for all groups in one answer."""
    return any(
        "as=APIGroupDiscoveryList" in entry and "v=v2" in entry.replace(" ", "").split(";")
        for entry in accept.split(",")
    )


def aggregated(registry: Registry, *, core: bool) -> dict[str, Any]:
    """`/api` (the core group) or `/apis` (all others) as one APIGroupDiscoveryList."""
    items = []
    for group, versions in registry.groups().items():
        if (group == "") != core:
            continue
        listed = [
            {"version": version, "resources": [_aggregated_resource(kind) for kind in kinds], "freshness": "Current"}
            for version, kinds in versions.items()
        ]
        items.append({"metadata": {"name": group} if group else {}, "versions": listed})
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _aggregated_resource(kind: Kind) -> dict[str, Any]:
    own = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    resource: dict[str, Any] = {
        "resource": kind.plural,
        "responseKind": own,
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        resource["shortNames"] = list(kind.short_names)
    if kind.categories:
        resource["categories"] = list(kind.categories)
    if kind.subresources:
        resource["subresources"] = [
            {"subresource": name, "responseKind": _SCALE if name == "scale" else own, "verbs": _SUBRESOURCE_VERBS[name]}
            for name in sorted(kind.subresources)
        ]
    return resource


def core_versions(address: str) -> dict[str, Any]:
    """`/api`, the old way."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def group_list(registry: Registry) -> dict[str, Any]:
    """`/apis`, the old way."""
    groups = [_group(group, list(versions)) for group, versions in registry.groups().items() if group]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(registry: Registry, name: str) -> dict[str, Any] | None:
    """`/apis/NAME`, None where there is no such group."""
    versions = registry.groups().get(name)
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, list(versions))} if versions and name else None


def _group(name: str, versions: list[str]) -> dict[str, Any]:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def resources(registry: Registry, name: str, version: str) -> dict[str, Any] | None:
    """`/api/v1` and `/apis/GROUP/VERSION`, None where there is no such version."""
    kinds = registry.groups().get(name, {}).get(version)
    if not kinds:
        return None
    listed: list[dict[str, Any]] = []
    for kind in kinds:
        resource = {
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": list(kind.verbs),
        }
        if kind.short_names:
            resource["shortNames"] = list(kind.short_names)
        if kind.categories:
            resource["categories"] = list(kind.categories)
        listed.append(resource)
        for subresource in sorted(kind.subresources):
            below = {"name": f"{kind.plural}/{subresource}", "singularName": "", "namespaced": kind.namespaced}
            below |= _SCALE if subresource == "scale" else {"kind": kind.kind}
            listed.append(below | {"verbs": _SUBRESOURCE_VERBS[subresource]})
    group_version = f"{name}/{version}" if name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed}


def root_paths(registry: Registry) -> dict[str, Any]:
    """`/`."""
    paths = ["/api", "/api/v1", "/apis"]
    for name, versions in registry.groups().items():
        if name:
            paths += [f"/apis/{name}", *(f"/apis/{name}/{version}" for version in versions)]
    return {"paths": [*sorted(paths), "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"]}


class OpenApi:
    """The OpenAPI v3 documents, one per group and version, made when somebody asks and kept until kinds change."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._documents: dict[str, tuple[tuple[Kind, ...], bytes]] = {}

    def index(self) -> dict[str, Any]:
        """`/openapi/v3`: where the documents are. A hash in each address changes with its document."""
        paths = {}
        for name, versions in self._registry.groups().items():
            for version in versions:
                path = f"apis/{name}/{version}" if name else f"api/{version}"
                digest = hashlib.sha256(self.document(path) or b"").hexdigest().upper()
                paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
        return {"paths": paths}

    def document(self, path: str) -> bytes | None:
        """`/openapi/v3/apis/apps/v1`, None where there is no such document."""
        parts = path.split("/")
        name, version = (parts[1], parts[2]) if parts[0] == "apis" and len(parts) == 3 else ("", parts[-1])
        kinds = self._registry.groups().get(name, {}).get(version)
        if not kinds:
            return None
        held = self._documents.get(path)
        if held is None or held[0] != tuple(kinds):
            held = (tuple(kinds), orjson.dumps(_document(kinds)))
            self._documents[path] = held
        return held[1]


def _document(kinds: list[Kind]) -> dict[str, Any]:
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for kind in kinds:
        name = _schema_name(kind)
        schemas[name] = _schema(kind)
        _add_referenced(schemas[name], schemas)
        _add_paths(kind, name, paths)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": f"{VERSION['major']}.{VERSION['minor']}"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _schema_name(kind: Kind) -> str:
    if kind.custom:
        reverse = ".".join(reversed(kind.group.split(".")))
        return f"{reverse}.{kind.version}.{kind.kind}"
    return next(name for name, schema in definitions().items() if schema is kind.openapi)


def _schema(kind: Kind) -> dict[str, Any]:
    schema: dict[str, Any] = _absolute(kind.openapi)
    schema["x-kubernetes-group-version-kind"] = [{"group": kind.group, "kind": kind.kind, "version": kind.version}]
    properties = schema.setdefault("properties", {})
    properties.setdefault("apiVersion", {"type": "string"})
    properties.setdefault("kind", {"type": "string"})
    if kind.custom:
        properties["metadata"] = {"allOf": [{"$ref": f"{_SCHEMAS}io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}]}
    return schema


_SCHEMAS = "#/components/schemas/"


def _absolute(node: Any) -> Any:
    """A copy whose `$ref`s are addresses within the document."""
    if isinstance(node, dict) or hasattr(node, "items"):
        return {
            key: f"{_SCHEMAS}{value}" if key == "$ref" and isinstance(value, str) else _absolute(value)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [_absolute(item) for item in node]
    return node


def _add_referenced(node: Any, schemas: dict[str, Any]) -> None:
    if isinstance(node, dict):
        reference = node.get("$ref")
        if isinstance(reference, str):
            name = reference.removeprefix(_SCHEMAS)
            if name not in schemas and name in definitions():
                schemas[name] = _absolute(definitions()[name])
                _add_referenced(schemas[name], schemas)
        for value in node.values():
            _add_referenced(value, schemas)
    elif isinstance(node, list):
        for item in node:
            _add_referenced(item, schemas)


_QUERY = {
    "dryRun": "string",
    "fieldManager": "string",
    "fieldValidation": "string",
    "force": "boolean",
}


def _add_paths(kind: Kind, schema: str, paths: dict[str, Any]) -> None:
    """The operations, as far as clients look at them: kubectl finds out here whether fieldValidation is there."""
    base = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    collection = f"{base}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{base}/{kind.plural}"
    answer = {"200": {"description": "OK", "content": {"application/json": {"schema": {"$ref": _SCHEMAS + schema}}}}}

    def operation(verb: str, *parameters: str) -> dict[str, Any]:
        return {
            "x-kubernetes-action": verb,
            "x-kubernetes-group-version-kind": {"group": kind.group, "kind": kind.kind, "version": kind.version},
            "parameters": [
                {"name": name, "in": "query", "schema": {"type": _QUERY[name], "uniqueItems": True}}
                for name in parameters
            ],
            "responses": answer,
        }

    paths[collection] = {"post": operation("post", "dryRun", "fieldManager", "fieldValidation")}
    if "get" in kind.verbs:
        paths[collection]["get"] = operation("list")
        paths[f"{collection}/{{name}}"] = {
            "get": operation("get"),
            "put": operation("put", "dryRun", "fieldManager", "fieldValidation"),
            "patch": operation("patch", "dryRun", "fieldManager", "fieldValidation", "force"),
            "delete": operation("delete", "dryRun"),
        }
