"""What a renderer returns: one Kubernetes object, and where in the specs it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

#: A JSON object as Kubernetes receives it: str keys; str, int, bool, list and dict values.
Body = dict[str, Any]


class ObjectId(NamedTuple):
    """What identifies one object in one cluster.

    `api_version` is the version that we write ("apps/v1"); two ids of one object under two versions
    are two ids, which is why pruning compares UIDs as well. `namespace` is "" for cluster-scoped kinds.
    """

    api_version: str
    kind: str
    namespace: str
    name: str

    @property
    def group(self) -> str:
        """The API group, "" for the core group."""
        group, slash, _ = self.api_version.rpartition("/")
        return group if slash else ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.kind, self.namespace, self.name) if part)


class Origin(NamedTuple):
    """The spec that an object comes from, for errors, for the plan and for blame."""

    file: str
    line: int  #: 1-based; 0 where the spec has no line of its own (an implied one)
    kind: str  #: "variation", "environment", ...
    name: str
    column: int = 1  #: 1-based
    path: tuple[str | int, ...] = ()  #: into the document

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Manifest:
    """One desired object.

    `environment` is the name of the environment that it belongs to: its failure domain, its inventory
    and its cluster. `needs` are the objects without which applying this one makes no sense; if one of
    them fails, this one is left alone and reported as blocked.
    """

    id: ObjectId
    body: Body
    origin: Origin
    environment: str
    needs: tuple[ObjectId, ...] = ()


def object_id(body: Body) -> ObjectId:
    """The id of a Kubernetes object as it is written or read."""
    metadata = body["metadata"]
    return ObjectId(body["apiVersion"], body["kind"], metadata.get("namespace", ""), metadata["name"])
