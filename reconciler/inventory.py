"""What an environment owns in its cluster: an ApplySet (KEP-3659). Pure.

Every object carries the environment's label; the labels are the truth. The inventory, one ConfigMap for each
environment, says where to look for them. It is widened before anything is applied and narrowed after everything
is pruned, so that an interrupted run leaves nothing behind that the next one does not find.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

from renderers.manifest import Body, Manifest, ObjectId

#: Where the inventories are, in each cluster.
NAMESPACE = "trueup-system"
PART_OF = "applyset.kubernetes.io/part-of"
SET_ID = "applyset.kubernetes.io/id"
TOOLING = "applyset.kubernetes.io/tooling"
KINDS = "applyset.kubernetes.io/contains-group-kinds"
NAMESPACES = "applyset.kubernetes.io/additional-namespaces"
ENVIRONMENT = "trueup.dev/environment"
#: Annotation of every member: the hash of the object as it was rendered. Equal on both sides means that nobody asks
#: for anything new.
CONTENT_HASH = "trueup.dev/content-hash"
#: Annotation: "ID by USER". A person lets the plan of this id pass the limits that it ran into.
APPROVED = "trueup.dev/approved"
#: Annotation: why, in their words.
APPROVED_REASON = "trueup.dev/approved-reason"
_TOOL = "trueup/v1"
_APPROVAL = re.compile(r"([0-9a-f]{12}) by (\S.*)")


class Place(NamedTuple):
    """Where members are: one kind in one namespace ("" for a cluster-scoped kind)."""

    api_version: str
    kind: str
    namespace: str


class CorruptInventoryError(Exception):
    """The ConfigMap is not one that we wrote. The sentence says why."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """Where an environment has members, and what has run.

    `finished` are Jobs that were seen to have ended well: a cluster cleans them up after some time, and
    what is gone then must not be taken for what never ran. `gone` are objects that somebody has deleted past Git, and
    that stay so (`drift: report`): they must not be taken for new ones by a process that has not seen the deletion.
    """

    environment: str
    places: frozenset[Place] = frozenset()
    finished: frozenset[ObjectId] = frozenset()
    gone: frozenset[ObjectId] = frozenset()

    def widened(self, manifests: Iterable[Manifest]) -> Inventory:
        """With room for what is about to be applied."""
        return replace(self, places=self.places | {place_of(manifest.id) for manifest in manifests})


def place_of(target: ObjectId) -> Place:
    """Where an object is."""
    return Place(target.api_version, target.kind, target.namespace)


def name_of(environment: str) -> str:
    """The ConfigMap's name."""
    return f"trueup-{environment}"


def object_id_of(environment: str) -> ObjectId:
    """The ConfigMap."""
    return ObjectId("v1", "ConfigMap", NAMESPACE, name_of(environment))


@cache
def set_id(environment: str) -> str:
    """The ApplySet id, a label value: the hash of <name>.<namespace>.<kind>.<group>, as the KEP defines it."""
    digest = hashlib.sha256(f"{name_of(environment)}.{NAMESPACE}.ConfigMap.".encode()).digest()
    return f"applyset-{base64.urlsafe_b64encode(digest).decode().rstrip('=')}-v1"


def to_config_map(inventory: Inventory) -> Body:
    """The ConfigMap of an inventory. `data.places` has what the KEP's annotations have no room for: the versions."""
    namespaces = sorted({place.namespace for place in inventory.places} - {"", NAMESPACE})
    kinds = sorted({_group_kind(place) for place in inventory.places})
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name_of(inventory.environment),
            "namespace": NAMESPACE,
            "labels": {
                SET_ID: set_id(inventory.environment),
                ENVIRONMENT: inventory.environment,
                "app.kubernetes.io/managed-by": "trueup",
            },
            "annotations": {TOOLING: _TOOL, KINDS: ",".join(kinds), NAMESPACES: ",".join(namespaces)},
        },
        "data": {
            "places": "\n".join(
                " ".join((p.api_version, p.kind, p.namespace or "-")) for p in sorted(inventory.places)
            ),
            "finished": _lines(inventory.finished),
            **({"gone": _lines(inventory.gone)} if inventory.gone else {}),
        },
    }


def from_config_map(body: Body) -> Inventory:
    """The inventory of a ConfigMap. Raises `CorruptInventoryError` where it is another tool's, or was edited."""
    metadata = body.get("metadata", {})
    environment = metadata.get("labels", {}).get(ENVIRONMENT, "")
    tooling = metadata.get("annotations", {}).get(TOOLING, "")
    if tooling.partition("/")[0] != "trueup":
        raise CorruptInventoryError(f"it belongs to {tooling or 'another tool'}")
    if metadata.get("name") != name_of(environment) or metadata.get("labels", {}).get(SET_ID) != set_id(environment):
        # A copied or renamed ConfigMap would point us at another environment's objects.
        raise CorruptInventoryError("its ApplySet id does not belong to its name")
    data = body.get("data") or {}
    places = [Place(version, kind, "" if ns == "-" else ns) for version, kind, ns in _words(data, "places", 3)]
    finished, gone = (frozenset(ObjectId(*words) for words in _words(data, key, 4)) for key in ("finished", "gone"))
    return Inventory(environment, frozenset(places), finished, gone)


def _lines(targets: Iterable[ObjectId]) -> str:
    return "\n".join(" ".join(target) for target in sorted(targets))


def _words(data: Mapping[str, str], key: str, count: int) -> Iterator[list[str]]:
    for line in data.get(key, "").splitlines():
        words = line.split(" ")
        if len(words) != count or not all(words):
            raise CorruptInventoryError(f"its line {line!r} in {key} does not have {count} words")
        yield words


def _group_kind(place: Place) -> str:
    group, slash, _ = place.api_version.rpartition("/")
    return f"{place.kind}.{group}" if slash else place.kind


# -- what people approve --------------------------------------------------------------------------------------------


class Approved(NamedTuple):
    """A person has let a plan pass its limits: `plan.Guard.approval`, and the name that the cluster knows them by."""

    id: str
    by: str


def is_approval(text: str) -> bool:
    """Whether it has the form of an id that can be approved."""
    return re.fullmatch(r"[0-9a-f]{12}", text) is not None


def approved_in(config_map: Body) -> Approved | None:
    """What somebody has approved for this environment; None where nobody has, or what is there means nothing."""
    found = _APPROVAL.fullmatch((config_map["metadata"].get("annotations") or {}).get(APPROVED, ""))
    return Approved(found[1], found[2]) if found else None


def with_approval(config_map: Body, approved: Approved, reason: str = "") -> Body:
    """The ConfigMap with what somebody approved, in place of what was approved before; to be written by an update."""
    said = {APPROVED: f"{approved.id} by {approved.by}"} | ({APPROVED_REASON: reason} if reason else {})
    return _annotated(config_map, said)


def without_approval(config_map: Body) -> Body:
    """The ConfigMap without an approval: it counts for one plan, once."""
    return _annotated(config_map, {})


def _annotated(config_map: Body, more: dict[str, str]) -> Body:
    metadata = config_map["metadata"]
    left = {k: v for k, v in (metadata.get("annotations") or {}).items() if k not in (APPROVED, APPROVED_REASON)}
    return config_map | {"metadata": metadata | {"annotations": left | more}}
