"""In which form an answer is wanted: the objects as they are, a Table, or metadata alone; as JSON or YAML."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import orjson
import yaml

from embedded.errors import StatusError
from embedded.kinds.kind import Kind
from embedded.tables import partial, table

_TYPES = {"application/json", "application/*", "*/*", "application/yaml"}
_FORMS = {"", "Table", "PartialObjectMetadata", "PartialObjectMetadataList"}


class View(NamedTuple):
    """`form` is "" (the objects themselves), "Table" or "PartialObjectMetadata".

    `include` is what the rows of a Table carry of their objects: `None`, `Metadata` or `Object`.
    """

    form: str = ""
    yaml: bool = False
    include: str = "Metadata"

    @property
    def content_type(self) -> str:
        """Of the answer."""
        return "application/yaml" if self.yaml else "application/json"

    def encode(self, body: bytes) -> bytes:
        """JSON in the form of the answer."""
        if not self.yaml:
            return body
        return yaml.dump(orjson.loads(body), Dumper=yaml.CSafeDumper, default_flow_style=False).encode()


@lru_cache(maxsize=256)
def negotiate(accept: str, include: str = "Metadata") -> View:
    """The first form in an Accept header that we can give; raises StatusError (406) where there is none."""
    for entry in accept.split(","):
        media, *parameters = (part.strip() for part in entry.split(";"))
        values = dict(parameter.partition("=")[::2] for parameter in parameters)
        form = values.get("as", "")
        if media in _TYPES and form in _FORMS and (not form or values.get("v") == "v1"):
            return View(form.removesuffix("List"), media == "application/yaml", include)
    if not accept:
        return View()
    message = "only the following media types are accepted: application/json, application/yaml"
    raise StatusError(406, "NotAcceptable", message)


def full(kind: Kind, stored: bytes) -> bytes:
    """An object as it is answered. It is stored without apiVersion and kind: they depend on the version asked for."""
    return b'{"kind":"%b","apiVersion":"%b",%b' % (kind.kind.encode(), kind.api_version.encode(), stored[1:])


def one(view: View, kind: Kind, body: bytes, now: datetime) -> bytes:
    """The answer that is one object, given as JSON with apiVersion and kind."""
    if view.form:
        obj = orjson.loads(body)
        if obj.get("kind") == kind.kind:  # a deletion may be answered with a Status, which has one form only
            version = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            shown = table(kind, [obj], version, now, include=view.include) if view.form == "Table" else partial(obj)
            body = orjson.dumps(shown)
    return view.encode(body)


def many(view: View, kind: Kind, stored: list[bytes], metadata: Mapping[str, Any], now: datetime) -> bytes:
    """The answer that is a list; `metadata` has its resourceVersion, and `continue` if there is more."""
    if view.form == "Table":
        objects = [orjson.loads(full(kind, body)) for body in stored]
        return view.encode(orjson.dumps(table(kind, objects, metadata, now, include=view.include)))
    if view.form:
        items = b",".join(orjson.dumps(partial(orjson.loads(body))) for body in stored)
        return view.encode(_list("PartialObjectMetadataList", "meta.k8s.io/v1", metadata, items))
    # Items of built-in kinds have neither apiVersion nor kind on a real server: clients must not rely on them.
    items = b",".join(full(kind, body) for body in stored) if kind.custom else b",".join(stored)
    return view.encode(_list(f"{kind.kind}List", kind.api_version, metadata, items))


def _list(kind: str, api_version: str, metadata: Mapping[str, Any], items: bytes) -> bytes:
    head = f'{{"kind":"{kind}","apiVersion":"{api_version}","metadata":'.encode()
    return b'%b%b,"items":[%b]}' % (head, orjson.dumps(metadata), items)


def event(view: View, kind: Kind, event_type: str, stored: bytes, now: datetime, *, first: bool) -> bytes:
    """One line of a watch. `first`: a Table has its columns in the first line only."""
    if not view.form:
        body = full(kind, stored)
    else:
        obj = orjson.loads(full(kind, stored))
        if view.form == "Table":
            version = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            body = orjson.dumps(table(kind, [obj], version, now, include=view.include, columns=first))
        else:
            body = orjson.dumps(partial(obj))
    return b'{"type":"%b","object":%b}\n' % (event_type.encode(), body)
