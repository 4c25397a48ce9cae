"""What an environment's cluster has: few lists, then a dry run for each object that a local look cannot call clean."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace

from reconciler import inventory
from reconciler.cluster import (
    FIELD_MANAGER,
    ApiError,
    DryRunUnsupported,
    FieldConflict,
    Forbidden,
    Invalid,
    KindMissing,
    KubeconfigError,
    NamespaceMissing,
    NotFound,
    QuotaExceeded,
    Reader,
    Terminating,
    TooLarge,
    Unauthorized,
    Unavailable,
    WebhookFailed,
)
from reconciler.inventory import CONTENT_HASH, CorruptInventoryError, Inventory, Place
from reconciler.plan import (
    RUN_ONCE,
    Conflicted,
    Immutable,
    Observed,
    Predicted,
    Prediction,
    Refusal,
    Unverifiable,
    gives_way,
    is_settled,
)
from renderers.manifest import Body, Manifest, ObjectId, object_id

#: Every place that Trueup has ever put objects in, for when the inventory is lost: api version, kind, namespaced.
KNOWN_KINDS: tuple[tuple[str, str, bool], ...] = (
    ("v1", "Namespace", False),
    ("v1", "ServiceAccount", True),
    ("v1", "ResourceQuota", True),
    ("v1", "ConfigMap", True),
    ("v1", "Service", True),
    ("networking.k8s.io/v1", "NetworkPolicy", True),
    ("apps/v1", "Deployment", True),
    ("batch/v1", "Job", True),
    ("policy/v1", "PodDisruptionBudget", True),
    ("keda.sh/v1alpha1", "ScaledObject", True),
    ("gateway.networking.k8s.io/v1", "Gateway", True),
    ("gateway.networking.k8s.io/v1", "HTTPRoute", True),
    ("gateway.envoyproxy.io/v1alpha1", "SecurityPolicy", True),
    ("gateway.envoyproxy.io/v1alpha1", "BackendTrafficPolicy", True),
    ("monitoring.coreos.com/v1", "PodMonitor", True),
    ("monitoring.coreos.com/v1", "PrometheusRule", True),
)

#: Of those, the versions that a cluster has only where somebody has installed them.
ADDED_APIS = frozenset(version for version, _, _ in KNOWN_KINDS if "." in version and ".k8s.io/" not in version) | {
    "gateway.networking.k8s.io/v1"
}

#: Where a dry run is tried for an object whose namespace does not exist yet: there is such a namespace everywhere.
_SCRATCH_NAMESPACE = "default"

#: So many missing objects are looked for one by one; of more, whole lists are cheaper.
_FEW = 8

#: Refusals of a dry run that are not about the object. In the scratch namespace, there are two more.
_SAYS_NOTHING = (KindMissing, NamespaceMissing, DryRunUnsupported, Forbidden, Terminating, WebhookFailed)
_SAYS_NOTHING_ELSEWHERE = (*_SAYS_NOTHING, QuotaExceeded, FieldConflict)


def inventories(reader: Reader) -> dict[str, Inventory | None]:
    """The environments that have an inventory in this cluster; None where it is not one that we can read.

    So an environment is found that no spec names any more.
    """
    found: dict[str, Inventory | None] = {}
    try:
        listing = reader.list("v1", "ConfigMap", namespace=inventory.NAMESPACE, labels=inventory.ENVIRONMENT)
    except NotFound:
        return {}
    for body in listing.items:
        name = body["metadata"]["labels"][inventory.ENVIRONMENT]
        if body["metadata"]["name"] != inventory.name_of(name):
            continue  # a copy, which says nothing about the environment whose label it has
        try:
            found[name] = inventory.from_config_map(body)
        except CorruptInventoryError:
            found[name] = None
    return found


def same_cluster(one: Reader, other: Reader) -> bool:
    """Whether two connections lead to one cluster: kube-system has one UID there. Where nobody may look: yes."""
    target = ObjectId("v1", "Namespace", "", "kube-system")
    try:
        bodies = [reader.get(target) for reader in (one, other)]
    except ApiError:
        return True
    uids = {body["metadata"]["uid"] for body in bodies if body is not None}
    return len(uids) < 2


def observe(
    reader: Reader,
    environment: str,
    manifests: Sequence[Manifest],
    known: Mapping[str, Inventory | None],
    pool: Executor,
    *,
    verify: bool,
) -> Observed:
    """What the cluster has for one environment. Raises `ApiError` where it could not be seen completely.

    `verify` asks the server about objects that do not exist yet as well: a preview wants to know, while a run
    that applies them at once learns it from applying them.
    """
    places = {inventory.place_of(manifest.id) for manifest in manifests}
    stored = known.get(environment)
    rebuilt = stored is None
    if stored is not None:
        places |= stored.places
    else:
        # The label of a namespace tells where objects of an earlier revision may be.
        labelled = _members(reader, environment, [Place("v1", "Namespace", "")], pool)
        namespaces = {place.namespace for place in places} - {""} | {target.name for target in labelled}
        for version, kind, namespaced in KNOWN_KINDS:
            places |= {Place(version, kind, ns) for ns in namespaces} if namespaced else {Place(version, kind, "")}
    members = _members(reader, environment, places, pool)
    # A first run has no inventory either, and nothing that it could have lost.
    seen = Observed(environment, members, inventory=stored, rebuilt=rebuilt and bool(members))
    return judged(reader, seen, manifests, known, pool, verify=verify)


def judged(
    reader: Reader,
    seen: Observed,
    manifests: Sequence[Manifest],
    known: Collection[str],
    pool: Executor,
    *,
    verify: bool = False,
    audit: bool = False,
) -> Observed:
    """What was seen, with what only the server can say about it. Raises `ApiError` where the cluster is lost.

    `known` are the environments with an inventory there. `audit` asks about what looks clean, too: the server may have
    learned defaults since, and admission may want something else by now.

    A member that somebody took the label from is one still: what we have applied says so itself, and what was seen to
    vanish and is there again is not what was there before. One with the label of another set is that set's.
    """
    missing = [manifest for manifest in manifests if manifest.id not in seen.members]
    strangers = _strangers(reader, missing, pool)
    lost = {t for t, body in strangers.items() if not _owner(body) and (t in seen.vanished or _was_applied(body))}
    bodies = pool.map(lambda target: _found(reader, target), lost)
    members = {**seen.members, **{object_id(body): body for body in bodies if body is not None}}
    missing = [manifest for manifest in missing if manifest.id not in members]
    others = {target: _owner(body) for target, body in strangers.items() if target not in lost}
    # A namespace is often made by whoever runs the cluster: joining one that belongs to nobody takes nothing away.
    owners = {inventory.set_id(name): f"environment {name}" for name in known}
    foreign = {t: owners.get(owner, owner) for t, owner in others.items() if owner or t.kind != "Namespace"}
    asked = [m for m in manifests if m.id in members and _is_asked(m, members[m.id], audit=audit)]
    if verify:
        asked += [m for m in missing if m.id not in foreign and not seen.has_run(m.id)]
    namespaces = {m.id.name for m in missing if m.id.kind == "Namespace" and m.id not in others}
    answers = pool.map(lambda manifest: predict(reader, manifest, namespaces), asked)
    predictions = {manifest.id: answer for manifest, answer in zip(asked, answers, strict=True)}
    return replace(seen, members=members, foreign=foreign, predictions=predictions)


def _is_asked(manifest: Manifest, live: Body, *, audit: bool) -> bool:
    return manifest.id.kind not in RUN_ONCE if audit else not is_settled(manifest, live)


def predict(reader: Reader, manifest: Manifest, missing_namespaces: set[str]) -> Prediction:
    """What the server says applying the object would do. Raises `ApiError` where the cluster is lost."""
    if manifest.id.namespace in missing_namespaces:
        return _predict_elsewhere(reader, manifest)
    return _predict(reader, manifest.body)


def _predict(reader: Reader, body: Body, taken: tuple[tuple[str, str], ...] = ()) -> Prediction:
    """`taken`: (manager, field) of a person's tool, to be taken over."""
    try:
        return Predicted(reader.predict(body, force=bool(taken)), taken)
    except FieldConflict as conflict:
        if taken or not all(gives_way(object_id(body), manager, path) for manager, path in conflict.conflicts):
            return Conflicted(conflict.conflicts)
        return _predict(reader, body, conflict.conflicts)
    except Invalid as invalid:
        if invalid.immutable_only:
            return Immutable(invalid.message, _is_valid_as_new(reader, body))
        return Refusal(invalid.message)
    except _SAYS_NOTHING as error:
        return Unverifiable(error.message)
    except (KubeconfigError, Unauthorized, Unavailable):
        raise
    except ApiError as error:
        return Refusal(error.message)


def _predict_elsewhere(reader: Reader, manifest: Manifest) -> Prediction:
    """The dry run of an object whose namespace is not there yet, under a name that nobody has."""
    try:
        return Predicted(reader.predict(_elsewhere(manifest.body, _SCRATCH_NAMESPACE)))
    except Invalid as invalid:
        return Refusal(invalid.message)
    except TooLarge as error:
        return Refusal(error.message)
    except _SAYS_NOTHING_ELSEWHERE as error:
        return Unverifiable(f"its namespace does not exist yet, and elsewhere: {error.message}")


def _is_valid_as_new(reader: Reader, body: Body) -> bool:
    """Whether the server would take the object under another name: then only immutability was in the way."""
    try:
        reader.predict(_elsewhere(body, body["metadata"].get("namespace", "")))
    except ApiError:
        return False
    return True


def _elsewhere(body: Body, namespace: str) -> Body:
    metadata = body["metadata"]
    name = f"trueup-preview-{metadata['annotations'][CONTENT_HASH][:24]}"
    moved = {**metadata, "name": name} | ({"namespace": namespace} if namespace else {})
    return {**body, "metadata": moved}


def _members(reader: Reader, environment: str, places: Iterable[Place], pool: Executor) -> dict[ObjectId, Body]:
    """Every object that carries the environment's label, in all places."""
    selector = f"{inventory.PART_OF}={inventory.set_id(environment)}"

    def listed(place: Place) -> list[Body]:
        try:
            return reader.list(place.api_version, place.kind, namespace=place.namespace or None, labels=selector).items
        except KindMissing:
            return []

    return {object_id(body): body for bodies in pool.map(listed, sorted(places)) for body in bodies}


def _strangers(reader: Reader, missing: Sequence[Manifest], pool: Executor) -> dict[ObjectId, Body]:
    """Of the desired objects that are not members, those that exist all the same: of many, their metadata only."""
    wanted = {manifest.id for manifest in missing}
    if len(wanted) <= _FEW:
        bodies = pool.map(lambda target: _found(reader, target), sorted(wanted))
        return {object_id(body): body for body in bodies if body is not None}
    places = sorted({inventory.place_of(target) for target in wanted})

    def listed(place: Place) -> list[Body]:
        try:
            namespace = place.namespace or None
            return reader.list(place.api_version, place.kind, namespace=namespace, metadata_only=True).items
        except KindMissing:
            return []

    listings = pool.map(listed, places)
    return {target: body for bodies in listings for body in bodies if (target := object_id(body)) in wanted}


def _found(reader: Reader, target: ObjectId) -> Body | None:
    try:
        return reader.get(target)
    except KindMissing:
        return None


def _was_applied(body: Body) -> bool:
    """Whether fields of it are ours: what people make, or another program does, has none."""
    entries = body["metadata"].get("managedFields") or ()
    return any(entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply" for entry in entries)


def _owner(body: Body) -> str:
    return str((body["metadata"].get("labels") or {}).get(inventory.PART_OF, ""))
