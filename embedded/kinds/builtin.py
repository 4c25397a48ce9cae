"""The built-in kinds: their names, and where their schemas are. What an API server of 1.36 answers in /apis, for the
kinds served here."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from embedded.kinds.columns import COLUMNS
from embedded.kinds.kind import Kind
from embedded.schema import compile_schema

_DEFINITIONS = Path(__file__).parent.parent / "definitions"
_ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


class _Row(NamedTuple):
    definition: str  # of the OpenAPI document, without io.k8s.
    group: str
    plural: str
    short_names: str = ""
    namespaced: bool = True
    subresources: str = ""
    categories: str = ""
    verbs: tuple[str, ...] = _ALL_VERBS


_NAMESPACE_VERBS = tuple(verb for verb in _ALL_VERBS if verb != "deletecollection")
_APIEXTENSIONS = "apiextensions-apiserver.pkg.apis.apiextensions.v1"
_ROWS = (
    _Row("api.core.v1.ConfigMap", "", "configmaps", "cm"),
    _Row("api.core.v1.Endpoints", "", "endpoints", "ep"),
    _Row("api.core.v1.Event", "", "events", "ev"),
    _Row("api.core.v1.LimitRange", "", "limitranges", "limits"),
    _Row(
        "api.core.v1.Namespace", "", "namespaces", "ns",
        namespaced=False, subresources="status", verbs=_NAMESPACE_VERBS,
    ),
    _Row("api.core.v1.Node", "", "nodes", "no", namespaced=False, subresources="status"),
    _Row("api.core.v1.PersistentVolumeClaim", "", "persistentvolumeclaims", "pvc", subresources="status"),
    _Row("api.core.v1.Pod", "", "pods", "po", subresources="log status", categories="all"),
    _Row("api.core.v1.ResourceQuota", "", "resourcequotas", "quota", subresources="status"),
    _Row("api.core.v1.Secret", "", "secrets"),
    _Row("api.core.v1.Service", "", "services", "svc", subresources="status", categories="all"),
    _Row("api.core.v1.ServiceAccount", "", "serviceaccounts", "sa"),
    _Row("api.apps.v1.Deployment", "apps", "deployments", "deploy", subresources="status scale", categories="all"),
    _Row("api.apps.v1.ReplicaSet", "apps", "replicasets", "rs", subresources="status scale", categories="all"),
    _Row("api.apps.v1.StatefulSet", "apps", "statefulsets", "sts", subresources="status scale", categories="all"),
    _Row(
        "api.autoscaling.v2.HorizontalPodAutoscaler", "autoscaling", "horizontalpodautoscalers", "hpa",
        subresources="status", categories="all",
    ),
    _Row("api.batch.v1.CronJob", "batch", "cronjobs", "cj", subresources="status", categories="all"),
    _Row("api.batch.v1.Job", "batch", "jobs", subresources="status", categories="all"),
    _Row("api.coordination.v1.Lease", "coordination.k8s.io", "leases"),
    _Row("api.discovery.v1.EndpointSlice", "discovery.k8s.io", "endpointslices"),
    _Row("api.networking.v1.NetworkPolicy", "networking.k8s.io", "networkpolicies", "netpol"),
    _Row("api.policy.v1.PodDisruptionBudget", "policy", "poddisruptionbudgets", "pdb", subresources="status"),
    _Row("api.rbac.v1.ClusterRole", "rbac.authorization.k8s.io", "clusterroles", namespaced=False),
    _Row("api.rbac.v1.ClusterRoleBinding", "rbac.authorization.k8s.io", "clusterrolebindings", namespaced=False),
    _Row("api.rbac.v1.Role", "rbac.authorization.k8s.io", "roles"),
    _Row("api.rbac.v1.RoleBinding", "rbac.authorization.k8s.io", "rolebindings"),
    _Row(
        f"{_APIEXTENSIONS}.CustomResourceDefinition", "apiextensions.k8s.io", "customresourcedefinitions", "crd crds",
        namespaced=False, subresources="status", categories="api-extensions",
    ),
    _Row(
        "api.authentication.v1.SelfSubjectReview", "authentication.k8s.io", "selfsubjectreviews",
        namespaced=False, verbs=("create",),
    ),
    _Row(
        "api.authorization.v1.SelfSubjectAccessReview", "authorization.k8s.io", "selfsubjectaccessreviews",
        namespaced=False, verbs=("create",),
    ),
    _Row(
        "api.authorization.v1.SelfSubjectRulesReview", "authorization.k8s.io", "selfsubjectrulesreviews",
        namespaced=False, verbs=("create",),
    ),
)  # fmt: skip

# What `embedded.generate` starts from: the kinds, and what the scale subresource and the answers speak.
ROOTS = (
    *(f"io.k8s.{row.definition}" for row in _ROWS),
    "io.k8s.api.autoscaling.v1.Scale",
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
    "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta",
    "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
)


@cache
def definitions() -> dict[str, dict[str, Any]]:
    """OpenAPI v3 schemas by definition name (`io.k8s.api.apps.v1.Deployment`). A `$ref` is such a name, without
    `#/components/schemas/`."""
    merged: dict[str, dict[str, Any]] = {}
    for path in sorted(_DEFINITIONS.glob("*.json")):
        merged.update(orjson.loads(path.read_bytes()))
    return merged


@cache
def builtin_kinds() -> tuple[Kind, ...]:
    known = definitions()
    return tuple(_kind(row, known) for row in _ROWS)


def _kind(row: _Row, known: dict[str, dict[str, Any]]) -> Kind:
    *_, version, name = row.definition.split(".")
    return Kind(
        group=row.group,
        version=version,
        kind=name,
        plural=row.plural,
        singular=name.lower(),
        namespaced=row.namespaced,
        schema=compile_schema({"$ref": f"io.k8s.{row.definition}"}, known),
        short_names=tuple(row.short_names.split()),
        categories=tuple(row.categories.split()),
        subresources=frozenset(row.subresources.split()),
        columns=COLUMNS.get(name, COLUMNS[""]),
        verbs=row.verbs,
        openapi=known[f"io.k8s.{row.definition}"],
    )
