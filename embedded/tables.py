"""The Table answer: rows and columns, from which kubectl prints what people read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from embedded.kinds.kind import Kind

Object = Mapping[str, Any]


def table(
    kind: Kind,
    objects: Iterable[dict[str, Any]],
    list_metadata: Mapping[str, Any],
    now: datetime,
    *,
    include: str = "Metadata",
    columns: bool = True,
) -> dict[str, Any]:
    """A `meta.k8s.io/v1` Table of these objects.

    `include` is what each row carries of its object: `None`, `Metadata` or `Object`. `columns` False leaves the column
    definitions out, as in every event of a watch but the first.
    """
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": dict(list_metadata),
        "columnDefinitions": _definitions(kind) if columns else None,
        "rows": [_row(kind, obj, now, include) for obj in objects],
    }


def partial(obj: Object) -> dict[str, Any]:
    """An object without anything but its metadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def _definitions(kind: Kind) -> list[dict[str, Any]]:
    return [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        }
        for column in kind.columns
    ]


def _row(kind: Kind, obj: dict[str, Any], now: datetime, include: str) -> dict[str, Any]:
    cells = [column.cell(obj, now) for column in kind.columns]
    shown: Object | None = {"None": None, "Object": obj}.get(include, partial(obj))
    return {"cells": cells, "object": shown}
