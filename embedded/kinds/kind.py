"""What the API server knows about one kind in one version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from embedded.schema import Schema

Cell = Callable[[Mapping[str, Any], datetime], Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the Table answer. `cell(object, now)` gives the value (str, int, float, bool or None)."""

    name: str
    type: str  # string | integer | number | boolean | date
    cell: Cell
    format: str = ""  # "name" for the Name column
    description: str = ""
    priority: int = 0  # > 0: only with -o wide


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """A kind in one version. `group` is "" for core; `api_version` is what objects carry."""

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool
    schema: Schema
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: frozenset[str] = frozenset()  # of {"status", "scale", "log"}
    columns: tuple[Column, ...] = ()
    storage: bool = True  # False: served, but stored in another version
    custom: bool = False  # from a CustomResourceDefinition
    verbs: tuple[str, ...] = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
    openapi: Mapping[str, Any] = field(default_factory=dict)  # custom kinds: the OpenAPI v3 schema as given
    scale_paths: Mapping[str, str] = field(
        default_factory=dict
    )  # custom kinds: specReplicasPath, statusReplicasPath, labelSelectorPath

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_resource(self) -> str:
        """`deployments.apps`, `pods`: how error messages and CRD names write it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural
