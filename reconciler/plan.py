"""desired x observed -> the plan. Pure: what is to be done is data, which is printed, and carried out, as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from reconciler import diff, inventory, readiness, traffic
from reconciler.diff import FieldChange
from reconciler.inventory import CONTENT_HASH, Inventory, Place
from renderers.manifest import Body, Manifest, ObjectId, Origin
from renderers.names import ANSWERS, LINEAGE, NAME, PROTECTED, SHARES

#: In which order kinds are applied; pruning goes the other way. A kind that is not here comes with the workloads.
STAGES: tuple[frozenset[str], ...] = (
    frozenset({"Namespace", "CustomResourceDefinition"}),
    frozenset({"ResourceQuota", "LimitRange", "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy"}),
    frozenset({"ConfigMap", "Secret", "PersistentVolumeClaim", "Gateway"}),
    frozenset({"Service", "Job"}),
    frozenset({"Deployment"}),
    frozenset({"ScaledObject", "HorizontalPodAutoscaler", "PodDisruptionBudget", "PodMonitor", "PrometheusRule"}),
    frozenset({"SecurityPolicy", "BackendTrafficPolicy"}),
    frozenset({"HTTPRoute"}),
)
_WORKLOADS = 3  # of kinds that nobody named
_STAGE_OF = {kind: number for number, kinds in enumerate(STAGES) for kind in kinds}

#: Never deleted by a plan: with them goes what people put inside, which is not ours to lose.
NEVER_PRUNED = frozenset(
    {"Namespace", "CustomResourceDefinition", "PersistentVolume", "PersistentVolumeClaim", "Secret"}
)
#: Kinds that may be deleted and created again where the server calls a field immutable.
REPLACEABLE = frozenset({"Deployment", "Service", "PodDisruptionBudget", "ScaledObject", "ServiceAccount"})
#: What runs once. Its name is the hash of what it does: if it exists it is the right one, whatever else is different,
#: and if it has finished it is not made again, not even after the cluster has cleaned it up.
RUN_ONCE = frozenset({"Job"})
#: A plan deletes at most this share of an environment, or this many objects if that is more, and never all.
PRUNE_SHARE = 0.20
PRUNE_FREE = 5

#: Limits that no person can lift: what they wait for is another look.
NEVER_LIFTED = frozenset({"prune/blind", "prune/incomplete", "prune/rebuilt"})

PROTECTED_TEXT = "a protected variation would be removed, or its model's traffic moved"

#: Managers that are a person at a keyboard; Git wins over them. Any other manager is asked about, never overridden.
HUMAN_TOOLS = ("kubectl", "k9s", "rancher", "lens", "Mozilla", "dashboard", "headlamp", "before-first-apply")

#: Why nothing is done in an environment whose spec says `suspended: true`.
SUSPENDED = "the environment is suspended"
#: Why nothing is done about what was changed past Git in an environment whose spec says `drift: report`.
REPORTED = "somebody changed it in the cluster; the environment has `drift: report`, so it stays"


class Op(StrEnum):
    """What is done with one object."""

    CREATE = "create"
    CHANGE = "change"
    REPLACE = "replace"  #: deleted and created again, because a field cannot be changed
    DELETE = "delete"
    UNCHANGED = "unchanged"
    CONFLICT = "conflict"  #: somebody else owns it, or a field of it: left alone
    UNVERIFIED = "unverified"  #: will be applied; the server could not be asked what that does
    REFUSED = "refused"  #: the server would not take it


@dataclass(frozen=True, slots=True)
class Change:
    """One object, and what is done with it.

    `held` says why a change is not carried out (a guard, a suspended environment); "" where it is. `supersedes` is
    the object of the same lineage that goes when this one has come. `uid` is that of the live object
    that the decision was made on: a precondition of what deletes it. `traffic` says how a route's requests move,
    where they do so between builds of the same variations and nothing else changes: no guard stops that.

    `drift`: the specs ask for what was applied before, and somebody has changed it in the cluster since; `by` is who,
    a field manager, as far as the server says. `infrastructure`: what refuses it has nothing to do with the specs.
    """

    op: Op
    id: ObjectId
    environment: str
    origin: Origin | None = None
    fields: tuple[FieldChange, ...] = ()
    reason: str = ""
    held: str = ""
    manifest: Manifest | None = None
    uid: str = ""
    supersedes: ObjectId | None = None
    superseded_by: ObjectId | None = None
    traffic: tuple[str, ...] | None = None
    drift: bool = False
    by: str = ""
    infrastructure: bool = False

    @property
    def is_action(self) -> bool:
        """Whether carrying the plan out does something for it."""
        return not self.held and self.op in (Op.CREATE, Op.CHANGE, Op.REPLACE, Op.DELETE, Op.UNVERIFIED)


@dataclass(frozen=True, slots=True)
class Note:
    """What a reader of the plan should know, and where it comes from."""

    environment: str
    origin: Origin | None
    text: str


@dataclass(frozen=True, slots=True)
class Guard:
    """A limit that one environment's part of the plan ran into.

    `approval` is what `--approve` takes to lift it: the id of exactly what it holds, whatever else is in the plan. ""
    where nobody can lift it.
    """

    environment: str
    rule: str
    message: str
    approval: str = ""

    @property
    def is_of_policy(self) -> bool:
        """Whether it is a rule of the organisation, and not one of ours."""
        return self.rule.startswith("policy/")


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that one run would do, in the order in which it would.

    `id` identifies exactly these actions: an approval of it approves nothing else.
    """

    changes: tuple[Change, ...]
    notes: tuple[Note, ...] = ()
    guards: tuple[Guard, ...] = ()
    offline: bool = False
    id: str = ""

    @property
    def actions(self) -> tuple[Change, ...]:
        """What carrying it out would do."""
        return tuple(change for change in self.changes if change.is_action)

    def count(self, op: Op) -> int:
        """How many changes have this operation."""
        return sum(change.op is op for change in self.changes)


# -- What the cluster edge found, for one environment ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Predicted:
    """What the server said a server-side apply would store."""

    body: Body
    forced: tuple[tuple[str, str], ...] = ()  #: (manager, field or item of a list) that a person's tool owned


@dataclass(frozen=True, slots=True)
class Conflicted:
    """Another manager owns fields that we want: (manager, field) of each."""

    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Immutable:
    """A field cannot be changed; `proven` tells whether the server would take the object as a new one."""

    message: str
    proven: bool


@dataclass(frozen=True, slots=True)
class Unverifiable:
    """The server could not be asked. The sentence says why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """The server would not take it, or not show it. Its own words. `infrastructure`: no spec can mend that."""

    message: str
    infrastructure: bool = False


@dataclass(frozen=True, slots=True)
class InTheWay:
    """What a person's tool has put into lists keeps the server from taking it: (manager, item) of each. They go."""

    items: tuple[tuple[str, str], ...]


Prediction = Predicted | Conflicted | Immutable | Unverifiable | Refusal | InTheWay


@dataclass(frozen=True, slots=True)
class Beside:
    """What an environment has beside the models that a pass looks at: limits and the inventory are about all of it.

    `members`: how many objects a plan could delete. `places`: where they are, and where others are wanted. `finished`:
    Jobs that have run, and are wanted or still there. `gone`: what somebody has deleted, and is wanted.
    """

    members: int = 0
    places: frozenset[Place] = frozenset()
    finished: frozenset[ObjectId] = frozenset()
    gone: frozenset[ObjectId] = frozenset()


_NOTHING_BESIDE = Beside()


@dataclass(frozen=True, slots=True)
class Observed:
    """What an environment's cluster has.

    `members` carry the environment's label, or are desired and somebody took it from them. `foreign` are other desired
    objects that exist without it: id -> whose they are, in words, or "" where nobody says so. `predictions` exist for
    what a local look could not call clean. `rebuilt`: the inventory was lost or corrupt, so that members were looked
    for everywhere we know of. `vanished`: desired objects that were seen to be deleted by somebody else. `beside`: what
    else there is. `blind`: places where nobody could look, and why. What is there may not be what `members` say.
    """

    environment: str
    members: Mapping[ObjectId, Body] = field(default_factory=dict)
    foreign: Mapping[ObjectId, str] = field(default_factory=dict)
    predictions: Mapping[ObjectId, Prediction] = field(default_factory=dict)
    inventory: Inventory | None = None
    rebuilt: bool = False
    vanished: frozenset[ObjectId] = frozenset()
    beside: Beside = _NOTHING_BESIDE
    blind: Mapping[Place, str] = field(default_factory=dict)

    def has_run(self, target: ObjectId) -> bool:
        """Whether it is something that runs once, and has."""
        return self.inventory is not None and target in self.inventory.finished

    def was_deleted(self, target: ObjectId) -> bool:
        """Whether somebody has deleted it past Git, as was seen just now or once before."""
        remembered = self.inventory is not None and target in self.inventory.gone and target not in self.members
        return remembered or target in self.vanished


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an environment should have.

    `complete`: every spec was read and is valid. If not, nothing is deleted and no existing route changes, because
    an object that a broken spec asks for looks just like one that nobody wants. Requests may still move between the
    builds of a variation: who gets which variation stays as it is.

    `keep`: what is not wanted any more and stays all the same, until the cluster cleans it up: Jobs of runs that have
    finished, whose logs people read. `reports_drift`: what was changed past Git stays, and is told. `keeps_all`: why
    nothing is deleted in this pass, whatever nobody wants; "" where that may be. `rewound`: in words, that these specs
    do not follow those that were applied before; what is lost by that, a person has to mean.
    """

    environment: str
    manifests: Sequence[Manifest]
    complete: bool = True
    suspended: bool = False
    in_specs: bool = True
    keep: frozenset[ObjectId] = frozenset()
    reports_drift: bool = False
    keeps_all: str = ""
    rewound: str = ""


# -- Deciding -------------------------------------------------------------------------------------------------------


def is_settled(manifest: Manifest, live: Body) -> bool:
    """Whether nothing has to be asked about a live object: it runs once, or a look proves it clean."""
    return manifest.id.kind in RUN_ONCE or is_clean(manifest, live)


def is_clean(manifest: Manifest, live: Body) -> bool:
    """Whether a look at the live object alone proves that applying the manifest would change nothing.

    False means unsure, never dirty: only the server knows defaults and admission. Two things must hold: the last
    thing that we applied is what we want now (the content hash), and every value in it is still there.
    """
    metadata = live.get("metadata", {})
    wanted_hash = manifest.body["metadata"]["annotations"][CONTENT_HASH]
    if metadata.get("annotations", {}).get(CONTENT_HASH) != wanted_hash or "deletionTimestamp" in metadata:
        return False
    return _has(live, manifest.body)


#: Maps that the API replaces as a whole: one key more is a difference.
_ATOMIC_MAPS = frozenset({"nodeSelector", "matchLabels", "selector"})


def _has(live: Any, wanted: Any, *, whole: bool = False) -> bool:
    """Whether every value of `wanted` is in `live`; lists must have the same length, to be on the safe side."""
    if isinstance(wanted, dict):
        if not isinstance(live, dict) or (whole and live.keys() != wanted.keys()):
            return False
        # Most values are texts, and every object that was written is looked at: a call for each would double the time.
        for key, value in wanted.items():
            have = live.get(key)
            if have is None and (value is not None or key not in live):
                return False
            if have != value if type(value) is str else not _has(have, value, whole=key in _ATOMIC_MAPS):
                return False
        return True
    if isinstance(wanted, list):
        if not isinstance(live, list) or len(live) != len(wanted):
            return False
        return all(_has(have, want) for have, want in zip(live, wanted, strict=True))
    return type(live) is type(wanted) and bool(live == wanted)


def offline(manifests: Iterable[Manifest], *, whole: bool = False) -> list[Change]:
    """The changes of a preview without a cluster: everything is new. `whole`: with the manifests."""
    return [
        Change(Op.CREATE, one.id, one.environment, one.origin, manifest=one if whole else None) for one in manifests
    ]


def environment(wanted: Wanted, observed: Observed) -> tuple[list[Change], list[Guard]]:
    """The changes of one environment, in order, and the limits that they ran into."""
    changes = _with_traffic([_change(manifest, observed) for manifest in wanted.manifests], observed)
    deletions = _deletions(wanted, observed)
    if wanted.keeps_all:
        deletions = [_held(change, wanted.keeps_all) for change in deletions]
    changes, deletions = _paired(changes, deletions, observed)
    guards = _guards(wanted, observed, deletions)
    if guards:
        deletions = [_held(change, guards[0].message) for change in deletions]
    if not wanted.suspended and (silenced := _silenced((*changes, *deletions), observed)):
        message = f"nobody would answer predictions of {', '.join(sorted(silenced))} any more"
        guards = [*guards, Guard(observed.environment, "routing/last-variation", message)]
        changes = [_held(c, message) if _silences(c, silenced, observed) else c for c in changes]
        deletions = [_held(c, message) if _silences(c, silenced, observed) else c for c in deletions]
    if not wanted.suspended:
        protected = Guard(observed.environment, "variation/protected", PROTECTED_TEXT)
        touched = [_touches_protected(change, observed) for change in (*changes, *deletions)]
        if any(touched):
            guards = [*guards, protected]
            changes = [_held(c, PROTECTED_TEXT) if _touches_protected(c, observed) else c for c in changes]
            deletions = [_held(c, PROTECTED_TEXT) if _touches_protected(c, observed) else c for c in deletions]
    guards = [with_approval(guard, (*changes, *deletions)) for guard in guards]
    if not wanted.complete:
        changes = [_held_while_incomplete(change, observed) for change in changes]
    if wanted.reports_drift:
        changes = [_held(change, REPORTED) if change.drift else change for change in changes]
    if wanted.suspended:
        changes = [_held(change, SUSPENDED) for change in changes]
        deletions = [_held(change, SUSPENDED) for change in deletions]
    return sorted(changes, key=_order) + sorted(deletions, key=_order, reverse=True), guards


def assemble(
    changes: Iterable[Change], notes: Iterable[Note] = (), guards: Iterable[Guard] = (), *, offline: bool = False
) -> Plan:
    """The plan of all environments, with its id."""
    listed = tuple(changes)
    return Plan(listed, tuple(notes), tuple(guards), offline, plan_id(listed))


def approved(plan: Plan, approvals: Collection[str]) -> Plan:
    """The plan, with the limits lifted that a person has approved: what each of them holds, and nothing else."""
    approvals = set(approvals) - {""}  # which would name all that nobody can approve
    lifted = {(guard.environment, guard.message) for guard in plan.guards if guard.approval in approvals}
    changes = tuple(replace(c, held="") if (c.environment, c.held) in lifted else c for c in plan.changes)
    left = [guard for guard in plan.guards if (guard.environment, guard.message) not in lifted]
    unused = sorted(approvals - {guard.approval for guard in plan.guards})
    if unused and left:
        remark = f" (what was approved is another plan: {', '.join(unused)})"
        held = {(guard.environment, guard.message) for guard in left}
        changes = tuple(replace(c, held=c.held + remark) if (c.environment, c.held) in held else c for c in changes)
        left = [replace(guard, message=guard.message + remark) for guard in left]
    return replace(plan, changes=changes, guards=tuple(left))


def plan_id(changes: Iterable[Change]) -> str:
    """12 hex digits of the hash of what would be done, held or not: an approval names exactly this."""
    digest = hashlib.sha256()
    for change in changes:
        if change.op is Op.UNCHANGED:
            continue
        wanted = change.manifest.body["metadata"]["annotations"][CONTENT_HASH] if change.manifest else ""
        # What the server said of it is left out: a preview asks about more objects than a run, and an approval of
        # the one must be an approval of the other.
        verb = change.op if change.op in (Op.DELETE, Op.REPLACE) else "apply"
        digest.update("\0".join((change.environment, verb, *change.id, wanted, change.uid)).encode() + b"\n")
    return digest.hexdigest()[:12]


def stage(target: ObjectId) -> int:
    """The number of the stage in which an object is applied; deletion goes from the highest to the lowest."""
    return _STAGE_OF.get(target.kind, _WORKLOADS)


def gives_way(target: ObjectId, manager: str, path: str) -> bool:
    """Whether a field is taken over from its manager: from a person's tool, and `replicas` from an autoscaler.

    A Deployment that states its replicas is not autoscaled any more; its ScaledObject goes at the end of the run.
    """
    return is_human(manager) or (target.kind == "Deployment" and path == ".spec.replicas")


def is_human(manager: str) -> bool:
    """Whether a field manager is a person's tool."""
    return manager.lower().startswith(tuple(tool.lower() for tool in HUMAN_TOOLS))


def _order(change: Change) -> tuple[int, ObjectId]:
    return stage(change.id), change.id


def _change(manifest: Manifest, observed: Observed) -> Change:
    """What is done with one desired object; and whether that is drift, and not what the specs newly ask for."""
    change = _compared(manifest, observed)
    if not (change.is_action or change.op is Op.CONFLICT):
        return change
    live = observed.members.get(manifest.id)
    asked_before = observed.was_deleted(manifest.id) or (live is not None and _hash(live) == _hash(manifest.body))
    return replace(change, drift=True, by=_by(observed.predictions.get(manifest.id))) if asked_before else change


def _by(prediction: Prediction | None) -> str:
    """Who changed an object: whose fields we want back; or else who wrote it last, as who takes away owns nothing."""
    match prediction:
        case Conflicted(owned) | Predicted(_, owned) | InTheWay(owned) if owned:
            return ", ".join(sorted({manager for manager, _ in owned}))
        case Predicted(body):
            others = [
                (str(entry.get("time", "")), str(entry.get("manager", "")))
                for entry in body["metadata"].get("managedFields") or ()
                if entry.get("operation") == "Update" and not entry.get("subresource")
            ]
            return max(others, default=("", ""))[1]
    return ""


def _hash(body: Body) -> str:
    """Of what was asked for when it was applied last."""
    return str(body["metadata"].get("annotations", {}).get(CONTENT_HASH, ""))


def _compared(manifest: Manifest, observed: Observed) -> Change:
    base = Change(Op.UNCHANGED, manifest.id, observed.environment, manifest.origin, manifest=manifest)
    live = observed.members.get(manifest.id)
    if live is not None:
        base = replace(base, uid=live["metadata"].get("uid", ""))
    elif manifest.id in observed.foreign:
        return replace(base, op=Op.CONFLICT, reason=_whose(observed.foreign[manifest.id], observed.environment))
    elif observed.has_run(manifest.id):
        return replace(base, reason="it has run; the cluster has cleaned it up since")
    match observed.predictions.get(manifest.id):
        case None:
            return base if live is not None else replace(base, op=Op.CREATE)
        case Predicted(body, forced):
            if live is None:
                return replace(base, op=Op.CREATE)
            reason = _taking(forced)
            fields = diff.compare(live, body)
            same = not fields and live.get("metadata", {}).get("annotations", {}) == body["metadata"].get(
                "annotations", {}
            )
            return base if same else replace(base, op=Op.CHANGE, fields=fields, reason=reason)
        case Conflicted(owned):
            return replace(
                base, op=Op.CONFLICT, reason="; ".join(f"{path} belongs to {manager}" for manager, path in owned)
            )
        case Immutable(message, proven):
            if proven and manifest.id.kind in REPLACEABLE:
                fields = diff.compare(live, manifest.body) if live is not None else ()
                return replace(base, op=Op.REPLACE, reason=message, fields=_only_wanted(fields))
            return replace(base, op=Op.REFUSED, reason=message)
        case InTheWay(items):
            fields = diff.compare(live, manifest.body) if live is not None else ()
            return replace(base, op=Op.CHANGE, reason=_taking(items), fields=_only_wanted(fields))
        case Unverifiable(reason):
            return replace(base, op=Op.UNVERIFIED, reason=reason)
        case Refusal(message, infrastructure):
            return replace(base, op=Op.REFUSED, reason=message, infrastructure=infrastructure)


def _with_traffic(changes: list[Change], observed: Observed) -> list[Change]:
    """Tells of each route that changes whether all that it does is to move requests between builds."""
    routes = [n for n, c in enumerate(changes) if c.id.kind == "HTTPRoute" and c.uid and c.is_action]
    if not routes:
        return changes
    services = [body for target, body in observed.members.items() if target.kind == "Service"]
    services += [c.manifest.body for c in changes if c.id.kind == "Service" and c.manifest is not None]
    known = traffic.backends(services)
    for number in routes:
        change = changes[number]
        match observed.predictions.get(change.id):
            case Predicted(body):
                new = body
            case _:
                assert change.manifest is not None
                new = change.manifest.body
        moved = traffic.between_builds(observed.members[change.id], new, known)
        changes[number] = replace(change, traffic=moved)
    return changes


def _only_wanted(fields: tuple[FieldChange, ...]) -> tuple[FieldChange, ...]:
    """Of a comparison with a manifest that lacks the server's defaults: only what the manifest does say."""
    return tuple(change for change in fields if change.new is not diff.ABSENT)


def _taking(owned: Iterable[tuple[str, str]]) -> str:
    return "; ".join(f"takes {path} over from {manager}" for manager, path in owned)


def _whose(owner: str, environment: str) -> str:
    found = f"it belongs to {owner}" if owner else "it exists, and Trueup did not make it"
    return f"{found}; to hand it over, give it the label {inventory.PART_OF}={inventory.set_id(environment)}"


def _deletions(wanted: Wanted, observed: Observed) -> list[Change]:
    """Members that nobody wants. One object under two API versions is one object: its UID says so."""
    desired = {manifest.id for manifest in wanted.manifests}
    kept_uids = {body["metadata"].get("uid") for target, body in observed.members.items() if target in desired}
    deletions = []
    for target, body in sorted(observed.members.items()):
        metadata = body["metadata"]
        if target in desired or target in wanted.keep or metadata.get("uid") in kept_uids:
            continue
        change = Change(
            Op.DELETE,
            target,
            observed.environment,
            uid=metadata.get("uid", ""),
            held=_why_kept(target, metadata),
        )
        deletions.append(change)
    return _behind_routes(deletions, observed)


def _behind_routes(deletions: list[Change], observed: Observed) -> list[Change]:
    """What stands behind a route stays as long as that does: it still gets requests."""
    kept = {
        model: f"{change.id} may still lead to it, and stays: {change.held}"
        for change in deletions
        if change.id.kind == "HTTPRoute" and change.held and (model := _model(change.id, observed))
    }
    return [
        change if change.id.kind in ("Job", "HTTPRoute") else _held(change, kept.get(_model(change.id, observed), ""))
        for change in deletions
    ]


def _model(target: ObjectId, observed: Observed) -> str:
    """The model that a member is for, "" where it is for none."""
    return str((observed.members[target]["metadata"].get("labels") or {}).get(NAME, ""))


def _why_kept(target: ObjectId, metadata: Body) -> str:
    """Why an unwanted member is not deleted, or ""."""
    if target.kind in NEVER_PRUNED:
        return f"a {target.kind} is never deleted by a plan: delete it by hand, when nothing in it is needed"
    if metadata.get("annotations", {}).get("trueup.dev/prevent-deletion") == "true":
        return "it has the annotation trueup.dev/prevent-deletion"
    if any(owner.get("controller") for owner in metadata.get("ownerReferences", ())):
        return "a controller owns it"
    if "deletionTimestamp" in metadata:
        holders = ", ".join(metadata.get("finalizers", ())) or "its dependents"
        return f"its deletion waits for {holders}"
    return ""


def _paired(changes: list[Change], deletions: list[Change], observed: Observed) -> tuple[list[Change], list[Change]]:
    """Pairs what goes with what takes its place: same kind, same lineage, another name.

    That is the sibling that is there already, if there is one: what remains when a build has taken over, or failed to.
    """
    successors: dict[tuple[str, str], ObjectId] = {}
    for change in sorted(changes, key=lambda change: (not change.uid, change.id)):
        if change.manifest is not None and (key := _lineage(change.id, change.manifest.body)) is not None:
            successors.setdefault(key, change.id)
    paired: dict[ObjectId, ObjectId] = {}
    for index, deletion in enumerate(deletions):
        key = _lineage(deletion.id, observed.members[deletion.id])
        if key in successors:
            running = _runs(deletion.id, observed.members[deletion.id])
            held = deletion.held or ("it still runs; it goes when it has finished" if running else "")
            deletions[index] = replace(deletion, superseded_by=successors[key], held=held)
            paired[successors[key]] = deletion.id
    return [replace(c, supersedes=paired[c.id]) if c.id in paired else c for c in changes], deletions


def _runs(target: ObjectId, body: Body) -> bool:
    return target.kind in RUN_ONCE and readiness.of(body).state is readiness.State.IN_PROGRESS


def _lineage(target: ObjectId, body: Body) -> tuple[str, str] | None:
    lineage = body.get("metadata", {}).get("annotations", {}).get(LINEAGE)
    return (target.kind, lineage) if lineage else None


def _guards(wanted: Wanted, observed: Observed, deletions: Sequence[Change]) -> list[Guard]:
    """Why nothing may be deleted now. What is superseded does not count against the budget: it has a successor."""
    lost = [change for change in deletions if not change.held and change.superseded_by is None]
    name = observed.environment
    if not deletions or wanted.suspended:
        return []
    if not wanted.complete:
        return [Guard(name, "prune/incomplete", "not all specs could be read and rendered, so nothing is deleted")]
    if observed.blind and any(not change.held for change in deletions):
        # What is not seen may be the route to what would go.
        kinds = ", ".join(sorted({place.kind for place in observed.blind}))
        message = f"the cluster does not show what there is of {kinds}, so nothing is deleted"
        return [Guard(name, "prune/blind", message)]
    if observed.rebuilt:
        message = "the inventory was lost and is rebuilt from labels; this run deletes nothing, the next one may"
        return [Guard(name, "prune/rebuilt", message)]
    if lost and wanted.rewound:
        message = f"{wanted.rewound}, and {len(lost)} objects of {name} would be deleted by that"
        return [Guard(name, "prune/rewound", message)]
    here = sum(target.kind not in NEVER_PRUNED and target not in wanted.keep for target in observed.members)
    total = here + observed.beside.members
    if lost and (len(lost) >= total or not wanted.in_specs):
        number = f"all {total} objects" if len(lost) >= total else f"{len(lost)} of {total} objects"
        number = "the only object" if total == 1 else number
        what = "" if wanted.in_specs else ", because no spec names the environment any more"
        return [Guard(name, "prune/all", f"{number} of {name} would be deleted{what}")]
    if len(lost) > max(PRUNE_FREE, int(total * PRUNE_SHARE)):
        message = f"{len(lost)} of {total} objects of {name} would be deleted, more than {PRUNE_SHARE:.0%}"
        return [Guard(name, "prune/budget", message)]
    return []


def with_approval(guard: Guard, changes: Iterable[Change]) -> Guard:
    """With the id of what it holds. It is the same in every pass: what else is due then comes and goes."""
    if guard.rule in NEVER_LIFTED:
        return guard
    held = (change for change in changes if change.held == guard.message)
    return replace(guard, approval=plan_id(sorted(held, key=_order)))


def _touches_protected(change: Change, observed: Observed) -> bool:
    """Whether it takes a protected variation away, or moves the traffic of a model that has one."""
    live = observed.members.get(change.id)
    if live is None or not change.is_action or live["metadata"].get("annotations", {}).get(PROTECTED) != "true":
        return False
    if change.id.kind == "HTTPRoute":
        rules = any(field.path.startswith("spec.rules") for field in change.fields)
        return change.op is Op.DELETE or (rules and not _is_promoted(change, observed))
    return change.op is Op.DELETE and change.superseded_by is None


def _is_promoted(change: Change, observed: Observed) -> bool:
    """Whether a route changes only because of what was promoted, and not because specs want something else."""
    if change.traffic is not None:
        return True
    live, wanted = observed.members.get(change.id), change.manifest
    if live is None or wanted is None:
        return False
    before = live["metadata"].get("annotations", {}).get(SHARES)
    return before is not None and before == wanted.body["metadata"]["annotations"].get(SHARES)


def _silenced(changes: Iterable[Change], observed: Observed) -> set[str]:
    """The models whose requests have had answers, and would have none any more."""
    routes = [change for change in changes if change.id.kind == "HTTPRoute" and change.is_action]
    return {
        observed.members[change.id]["metadata"].get("labels", {}).get(NAME, "")
        for change in routes
        if _answers(observed.members.get(change.id)) and (change.manifest is None or not _answers(change.manifest.body))
    }


def _answers(route: Body | None) -> bool:
    return route is not None and route["metadata"].get("annotations", {}).get(ANSWERS) == "true"


def _silences(change: Change, silenced: Collection[str], observed: Observed) -> bool:
    """Whether it takes a silenced model's answers away: its route, or what stands behind that."""
    live = observed.members.get(change.id)
    if live is None or live["metadata"].get("labels", {}).get(NAME) not in silenced:
        return False
    return change.id.kind == "HTTPRoute" if change.op is not Op.DELETE else change.superseded_by is None


def _held_while_incomplete(change: Change, observed: Observed) -> Change:
    if change.id.kind == "HTTPRoute" and change.uid and change.is_action and not _is_promoted(change, observed):
        return _held(change, "not all specs could be read and rendered, so existing routes stay as they are")
    return change


def _held(change: Change, why: str) -> Change:
    return change if change.op is Op.UNCHANGED or change.held else replace(change, held=why)
