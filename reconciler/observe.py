"""What an environment's cluster has: few lists, then a dry run for each object that a local look cannot call clean.

What the cluster refuses to show of one object, or of one kind, is refused in the plan, and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace

from reconciler import inventory, owners
from reconciler.cluster import (
    ApiError,
    DryRunUnsupported,
    FieldConflict,
    Forbidden,
    Invalid,
    KindMissing,
    NamespaceMissing,
    NotFound,
    QuotaExceeded,
    Reader,
    Terminating,
    WebhookFailed,
    is_of_one,
    is_ours,
)
from reconciler.inventory import CONTENT_HASH, CorruptInventoryError, Inventory, Place
from reconciler.plan import (
    RUN_ONCE,
    Conflicted,
    Immutable,
    InTheWay,
    Observed,
    Predicted,
    Prediction,
    Refusal,
    Unverifiable,
    gives_way,
    is_human,
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

#: What no spec can mend.
_NOT_OF_SPECS = (Forbidden, WebhookFailed)
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
    """What the cluster has for one environment. Raises `ApiError` where the cluster is lost.

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
        labelled, _ = _members(reader, environment, [Place("v1", "Namespace", "")], pool)
        namespaces = {place.namespace for place in places} - {""} | {target.name for target in labelled}
        for version, kind, namespaced in KNOWN_KINDS:
            places |= {Place(version, kind, ns) for ns in namespaces} if namespaced else {Place(version, kind, "")}
    members, blind = _members(reader, environment, places, pool)
    # A first run has no inventory either, and nothing that it could have lost.
    seen = Observed(environment, members, inventory=stored, rebuilt=rebuilt and bool(members), blind=blind)
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
    looked: dict[Place, list[Body]] | None = None,
) -> Observed:
    """What was seen, with what only the server can say about it. Raises `ApiError` where the cluster is lost.

    `known` are the environments with an inventory there. `audit` asks about what looks clean, too: the server may have
    learned defaults since, and admission may want something else by now.

    A member that somebody took the label from is one still: what we have applied says so itself, and what was seen to
    vanish and is there again is not what was there before. One with the label of another set is that set's. One that
    has its label was missed: lists may lag, and a server that has just begun does not know all its kinds yet.

    `looked` is what places were seen to hold, filled here: who asks about many objects in turn is shown all of a place
    once, and then what is not theirs. Most of what comes meanwhile is, and need not be read; what a person makes
    between two questions is a person's still.
    """
    refused: dict[ObjectId, Prediction] = {}
    for target in (manifest.id for manifest in manifests):
        if why := seen.blind.get(inventory.place_of(target)):
            refused[target] = Refusal(why, infrastructure=True)
    manifests = [manifest for manifest in manifests if manifest.id not in refused]
    missing = [manifest for manifest in manifests if manifest.id not in seen.members]
    ours = inventory.set_id(seen.environment)
    strangers = _strangers(reader, missing, refused, pool, ours=ours, looked=looked if looked is not None else {})
    unlabelled = {t for t, body in strangers.items() if not _owner(body) and (t in seen.vanished or _was_applied(body))}
    lost = unlabelled | {t for t, body in strangers.items() if _owner(body) == ours}
    members = {**seen.members, **_found(reader, lost, refused, pool)}
    missing = [manifest for manifest in missing if manifest.id not in members and manifest.id not in refused]
    others = {target: _owner(body) for target, body in strangers.items() if target not in lost}
    # A namespace is often made by whoever runs the cluster: joining one that belongs to nobody takes nothing away.
    names = {inventory.set_id(name): f"environment {name}" for name in known}
    foreign = {t: names.get(owner, owner) for t, owner in others.items() if owner or t.kind != "Namespace"}
    asked = [m for m in manifests if m.id in members and _is_asked(m, members[m.id], audit=audit)]
    if verify:
        asked += [m for m in missing if m.id not in foreign and not seen.has_run(m.id)]
    namespaces = {m.id.name for m in missing if m.id.kind == "Namespace" and m.id not in others}
    answers = pool.map(lambda manifest: predict(reader, manifest, namespaces), asked)
    predictions = {manifest.id: answer for manifest, answer in zip(asked, answers, strict=True)}
    return replace(seen, members=members, foreign=foreign, predictions={**predictions, **refused})


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
        stored = reader.predict(body, force=bool(taken))
        added = owners.leaving(stored, body, is_human)
        return Predicted(owners.without(stored, added), (*taken, *((one.manager, one.field) for one in added)))
    except FieldConflict as conflict:
        if taken or not all(gives_way(object_id(body), manager, path) for manager, path in conflict.conflicts):
            return Conflicted(conflict.conflicts)
        return _predict(reader, body, conflict.conflicts)
    except Invalid as invalid:
        return _why_invalid(reader, body, invalid)
    except _SAYS_NOTHING as error:
        return Unverifiable(error.message)
    except ApiError as error:
        return _refusal(error)


def _why_invalid(reader: Reader, body: Body, invalid: Invalid) -> Prediction:
    """What could be done about it: that takes more questions, each of which may be refused as well."""
    try:
        if invalid.immutable_only:
            return Immutable(invalid.message, _is_valid_as_new(reader, body))
        return _in_the_way(reader, body) or Refusal(invalid.message)
    except ApiError as error:
        return _refusal(error)


def _in_the_way(reader: Reader, body: Body) -> InTheWay | Conflicted | None:
    """What others have put into the lists of an object, where that alone keeps the server from taking it."""
    live = reader.live(object_id(body))
    found = owners.strangers(live, body) if live is not None else ()
    if live is None or not found or not _is_valid_as_new(reader, body):
        return None
    leaving = owners.leaving(live, body, is_human)
    staying = tuple((one.manager, one.field) for one in found if one not in leaving)
    return Conflicted(staying) if staying else InTheWay(tuple((one.manager, one.field) for one in leaving))


def _predict_elsewhere(reader: Reader, manifest: Manifest) -> Prediction:
    """The dry run of an object whose namespace is not there yet, under a name that nobody has."""
    try:
        return Predicted(reader.predict(_elsewhere(manifest.body, _SCRATCH_NAMESPACE)))
    except Invalid as invalid:
        return Refusal(invalid.message)
    except _SAYS_NOTHING_ELSEWHERE as error:
        return Unverifiable(f"its namespace does not exist yet, and elsewhere: {error.message}")
    except ApiError as error:
        return _refusal(error)


def _is_valid_as_new(reader: Reader, body: Body) -> bool:
    """Whether the server would take the object under another name: then only what is there was in the way.

    Raises `ApiError` where the cluster is lost.
    """
    try:
        reader.predict(_elsewhere(body, body["metadata"].get("namespace", "")))
    except ApiError as error:
        if not is_of_one(error):
            raise
        return False
    return True


def _elsewhere(body: Body, namespace: str) -> Body:
    metadata = body["metadata"]
    name = f"trueup-preview-{metadata['annotations'][CONTENT_HASH][:24]}"
    moved = {**metadata, "name": name} | ({"namespace": namespace} if namespace else {})
    return {**body, "metadata": moved}


def _members(
    reader: Reader, environment: str, places: Iterable[Place], pool: Executor
) -> tuple[dict[ObjectId, Body], dict[Place, str]]:
    """Every object that carries the environment's label, in all places; and why some of them cannot be looked at."""
    selector = f"{inventory.PART_OF}={inventory.set_id(environment)}"
    blind: dict[Place, str] = {}

    def listed(place: Place) -> list[Body]:
        try:
            return reader.list(place.api_version, place.kind, namespace=place.namespace or None, labels=selector).items
        except KindMissing:
            return []
        except ApiError as error:
            blind[place] = _refusal(error).message
            return []

    members = {object_id(body): body for bodies in pool.map(listed, sorted(places)) for body in bodies}
    return members, blind


def _strangers(
    reader: Reader,
    missing: Sequence[Manifest],
    refused: dict[ObjectId, Prediction],
    pool: Executor,
    *,
    ours: str,
    looked: dict[Place, list[Body]],
) -> dict[ObjectId, Body]:
    """Of the desired objects that are not members, those that exist all the same: of many, their metadata only.

    Of which nobody can say whether they do, are `refused`. `ours` is the label of our set.
    """
    wanted = {manifest.id for manifest in missing}
    if len(wanted) <= _FEW:
        return _found(reader, wanted, refused, pool)
    places = sorted({inventory.place_of(target) for target in wanted})

    def listed(place: Place) -> list[Body]:
        version, kind, namespace = place
        before = [body for body in looked.get(place, ()) if _owner(body) == ours]
        others = f"{inventory.PART_OF}!={ours}" if place in looked else ""
        try:
            found = reader.list(version, kind, namespace=namespace or None, labels=others, metadata_only=True).items
            looked[place] = before + found
            return looked[place]
        except KindMissing:
            return []
        except ApiError as error:
            refused.update(dict.fromkeys((t for t in wanted if inventory.place_of(t) == place), _refusal(error)))
            return []

    listings = pool.map(listed, places)
    return {target: body for bodies in listings for body in bodies if (target := object_id(body)) in wanted}


def _found(
    reader: Reader, targets: Collection[ObjectId], refused: dict[ObjectId, Prediction], pool: Executor
) -> dict[ObjectId, Body]:
    """Those of the objects that exist."""

    def got(target: ObjectId) -> Body | None:
        try:
            return reader.get(target)
        except KindMissing:
            return None
        except ApiError as error:
            refused[target] = _refusal(error)
            return None

    bodies = pool.map(got, sorted(targets))
    return {object_id(body): body for body in bodies if body is not None}


def _refusal(error: ApiError) -> Refusal:
    """What the cluster says of this object, or this kind. Raises the error where the cluster is lost."""
    if not is_of_one(error):
        raise error
    return Refusal(f"{error.message.rstrip('.')}. {error.remedy}".rstrip(), isinstance(error, _NOT_OF_SPECS))


def _was_applied(body: Body) -> bool:
    """Whether fields of it are ours: what people make, or another program does, has none."""
    entries = body["metadata"].get("managedFields") or ()
    return any(map(is_ours, entries))


def _owner(body: Body) -> str:
    return str((body["metadata"].get("labels") or {}).get(inventory.PART_OF, ""))
