"""Whatever happens to the specs, to the cluster, to the way there and to the daemon: it ends as a fresh run would.

Somebody commits and drifts at random, requests fail, the daemon dies and another one begins. When all that is over,
the cluster is as a run of the last commit makes it out of nothing, and a further look at everything sends nothing.

The daemon is the real one, but for time: its keepers go round when the test says so, as if hours had passed in between.
The cluster is the embedded API server, and the real one where there is one; who is missing there is `played`.
`TRUEUP_TEST_FULL=1` draws many more.
"""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from random import Random
from threading import Event
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from reconciler import inventory, queries, reconcile
from reconciler.cluster import ApiError, Connection, Retry, connect
from reconciler.clusters import Clusters
from reconciler.daemon.conductor import Command, Conductor
from reconciler.daemon.desire import Desire
from reconciler.daemon.drifts import Drifted
from reconciler.daemon.fleet import Fleet
from reconciler.daemon.follower import Delivered
from reconciler.daemon.health import Health
from reconciler.daemon.keeper import Keeper
from reconciler.daemon.ties import Pass, Ties
from reconciler.outside import Outside
from reconciler.plan import Plan
from reconciler.readiness import Readiness
from reconciler.report import Done
from reconciler.source.files import Files
from reconciler.source.mirror import Revision
from reconciler.specs.index import Index
from reconciler.specs.places import Places
from reconciler.specs.references import Specs
from reconciler.telling.events import Events
from renderers.manifest import ObjectId
from schemas.environment import DataPlane
from tests.contract import faults
from tests.contract.client import MERGE, Api, EmbeddedServer, eventually
from tests.contract.conftest import PLANES, REAL_KUBECONFIG
from tests.contract.faults import Fault, FaultProxy
from tests.contract.plant import played
from tests.e2e import harness

FULL = bool(os.environ.get("TRUEUP_TEST_FULL"))
EMBEDDED = DataPlane(type="embedded")
#: Seconds after which everything is due that waits or has failed; and after which everything is audited.
LATER, MUCH_LATER = 500.0, 24 * 3_600.0
#: Seconds that it may take to settle; a real cluster's controllers take some of them.
PATIENCE = {"embedded": 30.0, "real": 90.0}


def clock() -> datetime:
    """Nothing here depends on the date."""
    return datetime(2026, 1, 1, tzinfo=UTC)


# -- the repository ---------------------------------------------------------------------------------------------------

#: Nobody else's: a real cluster may have others.
DEV, PROD = ENVIRONMENTS = ("convergence-dev", "convergence-prod")
MODELS = ("churn", "fraud", "upsell")
COMMITS = ("45a96240e08b09e4c2dd86a6a58f8ce239655f3c", "deb5c5bfd3c0e8c39dd8e1a7bdea09d8be0b7a2b")
BROKEN = (
    b"api_version: v1\nspec: [",
    b"api_version: v1\nspec: {variations: [{model: churn, name: lost, environments: [%b], build: nobodys}]}\n"
    % DEV.encode(),
    b"api_version: v2\nspec: {}\n",
)


SOMEWHERE = ([DEV], [PROD], [DEV, PROD])
#: What may be written in a model, and in what is for all of them.
OF_MODELS: dict[str, tuple[Any, ...]] = {
    "environments": SOMEWHERE,
    "built_in": ("elsewhere", DEV, PROD),
    "commit": COMMITS,
    "memory": ("1Gi", "2Gi"),
    "env_vars": ({}, {"LEVEL": "a"}, {"LEVEL": "b", "MORE": "1"}),
    "second": (0, 20, 60),
    "testers": (False, True),
}
OF_ALL: dict[str, tuple[Any, ...]] = {
    "environments": SOMEWHERE,
    "quota": (0, 40, 50),
    "broken": (None, None, *BROKEN),
    "audience": ("ada", "emmy"),
}


@dataclass
class Model:
    """A model as it is written in its file."""

    environments: list[str]
    built_in: str = "elsewhere"
    commit: str = COMMITS[0]
    memory: str = "1Gi"
    env_vars: dict[str, str] = field(default_factory=dict)
    #: The share of a second variation with everybody, and whether testers get only that one.
    second: int = 0
    testers: bool = False

    def spec(self, name: str) -> dict[str, Any]:
        parts = [harness.build(f"{name}-1", name, environment=self.built_in)]
        parts[0]["builds"][0]["git_commit"] = self.commit
        first: list[dict[str, Any]] = [{"weight": 100 - self.second}]
        rest: list[dict[str, Any]] = [{"weight": self.second}] if self.second else []
        if self.testers:
            (rest if self.second else first).append({"weight": 100, "audience": "testers"})
        for variation, traffic in (("default", first), ("extra", rest)):
            if traffic:
                made = harness.variation(
                    name, variation, "", build=f"{name}-1", traffic=traffic, memory=self.memory, env_vars=self.env_vars
                )
                made["variations"][0]["environments"] = self.environments
                parts.append(made)
        return {"builds": parts[0]["builds"], "variations": [v for part in parts[1:] for v in part["variations"]]}


def text(spec: Mapping[str, Any]) -> bytes:
    return json.dumps({"api_version": "v1", "spec": spec}, indent=1).encode()


@dataclass
class Repository:
    """The specs, as somebody edits them; and all that was ever committed, as a `Follower` hands it on."""

    environments: list[str] = field(default_factory=lambda: list(ENVIRONMENTS))
    quota: int = 0
    models: dict[str, Model] = field(default_factory=lambda: {name: Model([DEV, PROD]) for name in MODELS[:2]})
    broken: bytes | None = None
    audience: str = "ada"
    rules: Files = field(default_factory=lambda: Files({}, ()))
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    _ruled: Files | None = None
    delivered: SimpleQueue[Delivered] = field(default_factory=SimpleQueue)
    trouble: str = ""
    fetched_at: float | None = None

    def files(self) -> dict[str, bytes]:
        more = {"quota": {"pods": self.quota}} if self.quota else {}
        # What nobody wants to have a model in any more may be left out.
        used = {e for model in self.models.values() for e in (*model.environments, model.built_in)} - {"elsewhere"}
        named = [name for name in ENVIRONMENTS if name in self.environments or name in used]
        environments = [{"name": name, "data_plane": "embedded", **more} for name in named]
        condition = {"key": "user", "operator": "IN", "operand": [self.audience, "grace"]}
        testers = {"name": "testers", "priority": 1, "conditions": {"unary": [condition]}}
        found = {
            "environments.yaml": text({"environments": [*environments, harness.ELSEWHERE]}),
            "audiences.yaml": text({"audiences": [testers]}),
        }
        found |= {f"{name}.yaml": text(model.spec(name)) for name, model in self.models.items()}
        return found | ({"broken.yaml": self.broken} if self.broken is not None else {})

    def commit(self) -> None:
        """Commits what has been edited, and hands on what has changed."""
        last = self.last
        files = self.files()
        changed = {name: files.get(name) for name in {*files, *last} if files.get(name) != last.get(name)}
        is_whole = not self.commits or self.rules != self._ruled
        revision = self._revision(len(self.commits) + 1)
        self.commits[revision.commit], self._ruled = files, self.rules
        given = {"files": Files(files, ())} if is_whole else {"changed": changed}
        self.delivered.put(Delivered(revision, rules=self.rules, **given))

    @property
    def last(self) -> dict[str, bytes]:
        return next(reversed(self.commits.values())) if self.commits else {}

    def begin_anew(self) -> None:
        """For another daemon, which knows nothing yet."""
        self.delivered = SimpleQueue()
        self.delivered.put(Delivered(self._revision(len(self.commits)), Files(self.last, ()), rules=self.rules))

    def again(self, commit: str) -> Files:
        return Files(self.commits[commit], ())

    def content(self, commit: str, name: str) -> bytes:
        return self.commits[commit][name]

    def is_ancestor(self, old: str, new: str) -> bool:
        return True

    def rules_before(self, commit: str) -> Iterator[Files]:
        yield from ()

    def forget(self) -> None: ...

    def poll_now(self) -> None: ...

    def _revision(self, number: int) -> Revision:
        return Revision(f"{number:040x}", clock(), "Ada", "an edit")


# -- the daemon -------------------------------------------------------------------------------------------------------


class Hurried(Clusters):
    """Clusters that are given up soon, and tried again soon."""

    def _embedded(self) -> Connection:
        retry = Retry(attempts=3, base=0.01, longest=0.05)
        return connect(str(self.home / "kubeconfig"), trusted=True, connections=16, retry=retry)


class Led(Fleet):
    """A fleet whose keepers have no threads: somebody calls `Keeper.turn`."""

    def _appoint(self, key: DataPlane, name: str) -> None:
        keeper = self.keepers[key, name] = Keeper(name, self.plane(key), self.desire, self.ties)
        keeper.plane.hear_own(name, keeper.hear_own)

    def _dismiss(self, key: DataPlane, name: str) -> None:
        keeper = self.keepers.pop((key, name))
        keeper.plane.follow(keeper.loop, (), keeper.hear)
        keeper.plane.hear_own(name, None)


@dataclass
class Heard:
    """What keepers tell, kept."""

    plans: list[Plan] = field(default_factory=list)
    drifts: list[Drifted] = field(default_factory=list)

    def planned(self, environment: str, planned: Plan) -> None:
        self.plans.append(planned)

    def did(self, environment: str, done: Done) -> None: ...

    def drifted(self, environment: str, drift: Drifted, now: float) -> None:
        self.drifts.append(drift)

    def limited(self, environment: str, limits: object, held: int, forbidden: int) -> None: ...

    def warned(self, environment: str, warnings: object) -> None: ...

    def approved(self, environment: str, approved: object) -> None: ...

    def forgot(self, environment: str) -> None: ...

    def passed(self, one: Pass) -> None: ...

    def lost(self, environment: str, why: str) -> None: ...


class Daemon:
    """All of it but for elections, the standing and HTTP. `fleet` is `Led`, or `Fleet` for one with threads."""

    def __init__(self, repository: Repository, kubeconfig_folder: Path, fleet: type[Fleet] = Led) -> None:
        self._closing = ExitStack()
        self._ahead = 0.0
        self.heard = Heard()
        clusters = Hurried(kubeconfig_folder)
        self._closing.callback(clusters.close)
        index = Index(self._content, queries.check, self._check)
        self.desire = Desire(index)
        command, bell = Command(None, 0.0), Event()
        ties = Ties(command, self.heard, self._again, self._built, self._moved, Health())
        self.fleet = fleet(clusters, self.desire, ties, None, bell.set, lambda *_: None, _events)
        outside = Outside(self.fleet.reader, kubeconfig_folder, {})
        self.conductor = Conductor(
            self.desire, index, self.fleet, repository, outside, EMBEDDED, command, clock, bell, *[_ignore] * 3
        )

    @property
    def keepers(self) -> list[Keeper]:
        return list(self.fleet.keepers.values())

    def turn(self, later: float = LATER) -> None:
        """Everybody goes round once, so much later. A cluster that is lost is tried again the next time."""
        self._ahead += later
        self.conductor.turn()
        for keeper in self.keepers if isinstance(self.fleet, Led) else ():
            try:
                keeper.turn(time.monotonic() + self._ahead)
            except ApiError as error:
                keeper._lose(str(error))

    def close(self) -> None:
        if not isinstance(self.fleet, Led):
            self.fleet.stop()
        self.fleet.close()
        self._closing.close()

    def _check(self, specs: Specs, places: Places) -> None:
        self.desire.rules.check(specs, places)

    def _content(self, name: str) -> bytes:
        assert self.conductor.revision is not None
        return self.conductor.follower.content(self.conductor.revision.commit, name)

    def _again(self, environment: str) -> frozenset[ObjectId] | None:
        return self.conductor.again(environment)

    def _built(self, build: str) -> Readiness | None:
        return self.fleet.built(build)

    def _moved(self, model: str) -> None:
        self.conductor.stir(model)


def _ignore(_: object) -> None: ...


def _events(writer: Any) -> Events:
    return Events(writer, clock, lambda: None)


# -- what happens -----------------------------------------------------------------------------------------------------

#: Of these, one is as good as another of the same name.
REPLACED = ("ConfigMap", "NetworkPolicy", "Service", "ServiceAccount", "PodDisruptionBudget")
CONFLICT = {"kind": "Status", "status": "Failure", "reason": "Conflict", "message": "it has changed", "code": 409}


def status(code: int, reason: str = "") -> Fault:
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code}
    return faults.answer(code, {**body, "reason": reason, "message": "an injected fault"})


#: As often as here.
STEPS = (*["edit"] * 5, *["drift"] * 5, *["fail"] * 3, *["turn"] * 4, "restart", "audit", "settle", "lose_inventory")

#: What may become of a request.
OF_WRITES: dict[str, Callable[[], Fault]] = {
    "400": lambda: status(400, "BadRequest"),
    "401": lambda: status(401, "Unauthorized"),
    "403": lambda: status(403, "Forbidden"),
    "404": lambda: status(404, "NotFound"),
    "409": lambda: status(409, "Conflict"),
    "409 exists": lambda: status(409, "AlreadyExists"),
    "410": lambda: status(410, "Expired"),
    "422": lambda: status(422, "Invalid"),
    "429": lambda: status(429, "TooManyRequests"),
    "500": lambda: status(500, "InternalError"),
    "503": lambda: status(503, "ServiceUnavailable"),
    "504": lambda: status(504, "Timeout"),
    "dropped": faults.drop,
    "lost": faults.lose,
    "cut": faults.cut,
}
OF_LOOKS = ("401", "429", "500", "503", "504", "dropped", "lost", "cut")
OF_WATCHES = ("401", "403", "410", "429", "500", "503", "dropped")
_NO_WATCH, _WATCH = r"^(?!.*watch=)", "watch="


class World:
    """A repository, a cluster and a daemon, and somebody who does things to them at random."""

    def __init__(self, api: Api, folder: Path, fleet: type[Fleet]) -> None:
        self.api, self.folder, self.fleet = api, folder, fleet
        self.random = Random(0)
        self.repository = Repository()
        self.proxy = FaultProxy(folder / "server" / "kubeconfig")
        self.plant = played(api)
        #: Something is not as it was, and only this very daemon knows.
        self.is_fragile = False

    def __enter__(self) -> World:
        self.proxy.__enter__()
        self.proxy.kubeconfig(self.folder / "kubeconfig")
        self.daemon = Daemon(self.repository, self.folder, self.fleet)
        return self

    def __exit__(self, *_: object) -> None:
        self.daemon.close()
        self.proxy.__exit__()
        self.plant.close()
        self.forget()

    def forget(self) -> None:
        for name in ENVIRONMENTS:
            harness.forget(self.api, name)

    def step(self, what: str, seed: int) -> None:
        """What there is to choose from depends on what the cluster has by now, so a step is drawn with its chance."""
        self.random = Random(seed)
        note(f"- {what}")
        getattr(self, what)()

    # -- of the specs

    def edit(self) -> None:
        """A commit of one to three edits."""
        models = self.repository.models
        for _ in range(self.random.randint(1, 3)):
            name, what = self.random.choice(MODELS), self.random.choice(("add", "add", "add", "take", "all"))
            if what == "take":
                models.pop(name, None)
                note(f"    {name} goes")
                continue
            fields = OF_ALL if what == "all" else OF_MODELS
            edited = self.repository if what == "all" else models.setdefault(name, Model([DEV, PROD]))
            field_name = self.random.choice(sorted(fields))
            value = self.random.choice(fields[field_name])
            note(f"    {name if what == 'add' else 'all'}: {field_name} = {value!r}")
            setattr(edited, field_name, value)
        self.repository.commit()

    # -- of the cluster

    def drift(self) -> None:
        """Somebody changes one object past Git."""
        name = self.random.choice(ENVIRONMENTS)
        members = {
            key: one for key, one in harness.members(self.api, name).items() if one["kind"] not in ("Namespace", "Job")
        }
        if not members:
            return
        key = self.random.choice(sorted(members))
        body, path = members[key], _path(members[key])
        ways = [self._edit_field, self._edit_field, self._edit_field, self._delete, self._label, self._take_label]
        ways += [self._scale] if body["kind"] == "Deployment" else []
        ways += [self._replace] if body["kind"] in REPLACED else []
        way = self.random.choice(ways)
        note(f"    {way.__name__} {key} in {name}")
        way(body, path)

    def _edit_field(self, body: dict[str, Any], path: str) -> None:
        """A value that we have written, and not one of the server's own."""
        found = [
            manifest.body
            for keeper in self.daemon.keepers
            if keeper.name == body["metadata"]["namespace"]
            for manifests in keeper.desire.look(keeper.name, keeper.desire.models(keeper.name)).values()
            for manifest in manifests
            if (manifest.id.kind, manifest.id.name) == (body["kind"], body["metadata"]["name"])
        ]
        if not found:
            return
        leaves = [leaf for leaf in _leaves(found[0]) if _is_ours_to_edit(leaf) and _has(body, leaf)]
        leaf = self.random.choice(leaves)
        edited = copy.deepcopy(body)
        at: Any = edited
        for step in leaf[:-1]:
            at = at[step]
        value = at[leaf[-1]]
        at[leaf[-1]] = value + 1 if type(value) is int else not value if isinstance(value, bool) else "edited"
        answer = self.api("PUT", f"{path}?fieldManager=kubectl-edit", edited)
        note(f"      {'.'.join(map(str, leaf))}: {answer.status}")

    def _scale(self, body: dict[str, Any], path: str) -> None:
        scaled = {"spec": {"replicas": 3}}
        assert self.api("PATCH", f"{path}?fieldManager=kubectl", scaled, content_type=MERGE).status == 200

    def _label(self, body: dict[str, Any], path: str) -> None:
        labels = {"metadata": {"labels": {"example.com/mine": "yes"}}}
        assert self.api("PATCH", f"{path}?fieldManager=kubectl-label", labels, content_type=MERGE).status == 200

    def _take_label(self, body: dict[str, Any], path: str) -> None:
        labels = {"metadata": {"labels": {inventory.PART_OF: None}}}
        assert self.api("PATCH", f"{path}?fieldManager=kubectl-label", labels, content_type=MERGE).status == 200

    def _delete(self, body: dict[str, Any], path: str) -> None:
        assert self.api("DELETE", path).status in (200, 202)

    def _replace(self, body: dict[str, Any], path: str) -> None:
        """It is deleted, and there is another one of its name, perhaps without a word of whose it is."""
        taken = ("uid", "resourceVersion", "managedFields", "creationTimestamp", "generation")
        metadata = {key: value for key, value in body["metadata"].items() if key not in taken}
        if self.random.random() < 0.5:
            metadata["labels"] = {k: v for k, v in metadata["labels"].items() if k != inventory.PART_OF}
            # To anybody who has not seen the first one, it is somebody else's.
            self.is_fragile = True
        spec = {key: value for key, value in body.items() if key not in ("status", "metadata", "kind")}
        if body["kind"] == "Service":
            spec["spec"] = {key: value for key, value in spec["spec"].items() if not key.startswith("clusterIP")}
        version, _ = harness.COLLECTIONS[body["kind"]]
        made = {**spec, "apiVersion": version, "kind": body["kind"], "metadata": metadata}
        self._delete(body, path)
        answer = self.api("POST", f"{path.rpartition('/')[0]}?fieldManager=kubectl-create", made)
        assert answer.status == 201, answer.body

    def lose_inventory(self) -> None:
        name = self.random.choice(ENVIRONMENTS)
        self.api("DELETE", f"/api/v1/namespaces/{inventory.NAMESPACE}/configmaps/{inventory.name_of(name)}")

    # -- of the way there, and of the daemon

    def fail(self) -> None:
        """Some requests that come will fail."""
        for _ in range(self.random.randint(1, 3)):
            nth, times = self.random.randint(1, 12), self.random.choice((1, 1, 2, 4))
            method = self.random.choice(("PATCH", "PATCH", "PATCH", "DELETE", "PUT", "GET", "watch"))
            kinds = {"GET": OF_LOOKS, "watch": OF_WATCHES}.get(method, tuple(OF_WRITES))
            kind = self.random.choice(kinds)
            note(f"    {kind} for {times} {method} from number {nth} on")
            verb, path = ("GET", _WATCH) if method == "watch" else (method, _NO_WATCH)
            self.proxy.inject(OF_WRITES[kind](), method=verb, path=path, nth=nth, times=times)

    def turn(self) -> None:
        self.daemon.turn()
        self.plant.turn()

    def audit(self) -> None:
        self.daemon.turn(MUCH_LATER)

    def restart(self) -> None:
        if self.is_fragile:
            self.settle()
        self.daemon.close()
        if self.repository.commits:
            self.repository.begin_anew()
        self.daemon = Daemon(self.repository, self.folder, self.fleet)

    # -- the end

    def settle(self) -> None:
        """Until there is nothing left to do. A person approves what needs one."""
        if not self.repository.commits:
            return
        quiet = 0
        until = time.monotonic() + PATIENCE[self.api.plane]
        while quiet < 2:
            self.turn()
            assert time.monotonic() < until, self._why()
            is_quiet = not self.approve() and self.is_seen() and all(map(self.is_at_rest, self.daemon.keepers))
            quiet = quiet + 1 if is_quiet else 0
            time.sleep(0.0 if quiet else 0.005)
        self.is_fragile = False

    def is_at_rest(self, keeper: Keeper) -> bool:
        """Everything is done; or, with specs that nobody can read, all that may be done until they are mended."""
        is_held = all("not all specs could be read" in one.why for _, one in keeper.agenda)
        is_heard = keeper.is_seen and keeper._wants.empty() and keeper._heard.empty()
        return keeper.is_caught_up or (is_heard and is_held and self.repository.broken is not None)

    def is_seen(self) -> bool:
        """Whether the daemon's cache has all that the cluster has."""
        for keeper in self.daemon.keepers:
            if not keeper.is_seen:
                return False
            served = {
                (key, one["metadata"]["resourceVersion"]) for key, one in harness.members(self.api, keeper.name).items()
            }
            cached = {
                (f"{target.kind}/{target.name}", entry.version)
                for watched in keeper._watched
                for target, entry in keeper.plane.cache.entries(watched)
            }
            if served != cached:
                return False
        return True

    def approve(self) -> bool:
        """As a person does, who has read what is held. Whether there was anything."""
        is_any = False
        for keeper in self.daemon.keepers:
            for guard in keeper.guards:
                path = f"/api/v1/namespaces/{inventory.NAMESPACE}/configmaps/{inventory.name_of(keeper.name)}"
                live = self.api("GET", path).body
                if not guard.approval or live["kind"] != "ConfigMap" or inventory.approved_in(live) is not None:
                    continue
                approved = inventory.with_approval(live, inventory.Approved(guard.approval, "ada"))
                is_any |= self.api("PUT", f"{path}?fieldManager=reconcile-approve", approved).status == 200
        return is_any

    def state(self) -> dict[str, dict[str, Any]]:
        """What the environments have, but for what others have added and for who wrote what."""
        return {name: _without_others(harness.state(self.api, name)) for name in ENVIRONMENTS}

    def run(self) -> Any:
        """A run of the last commit, by who knows nothing of the daemon."""
        folder = self.folder / "specs"
        for old in folder.glob("*.yaml"):
            old.unlink()
        folder.mkdir(exist_ok=True)
        for name, content in self.repository.last.items():
            (folder / name).write_bytes(content)
        clusters = Hurried(self.folder / "server")
        try:
            return reconcile.reconcile(reconcile.Request((folder,), self.folder / "server"), clusters, _ignore, clock)
        finally:
            clusters.close()

    def _why(self) -> str:
        open_ = {k.name: [(m or "(environment)", u.why) for m, u in k.agenda] for k in self.daemon.keepers}
        troubles = {k.name: (k.trouble, k.is_seen, k.guards) for k in self.daemon.keepers}
        return f"not settled: {open_}; {troubles}; {self.daemon.conductor.trouble}"


def _path(body: dict[str, Any]) -> str:
    return f"{harness.collection(body['kind'], body['metadata']['namespace'])}/{body['metadata']['name']}"


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _leaves(one, (*path, key))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _leaves(one, (*path, number))
    else:
        yield path


def _is_ours_to_edit(leaf: tuple[Any, ...]) -> bool:
    """Not what makes it another object, or somebody else's."""
    is_identity = leaf[0] in ("apiVersion", "kind") or leaf in (("metadata", "name"), ("metadata", "namespace"))
    return not is_identity and leaf[-1] != inventory.PART_OF


def _has(body: Any, leaf: tuple[Any, ...]) -> bool:
    for step in leaf:
        try:
            body = body[step]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def _without_others(state: dict[str, Any]) -> dict[str, Any]:
    for key, one in state.items():
        if key != "inventory":
            del one["managers"]
            # A real cluster's controller counts there.
            one["metadata"].get("annotations", {}).pop("deployment.kubernetes.io/revision", None)
            for others in [label for label in one["metadata"].get("labels", {}) if label.startswith("example.com/")]:
                del one["metadata"]["labels"][others]
    return state


pytestmark = pytest.mark.timeout(7_200 if FULL else 1_200 if REAL_KUBECONFIG else 120)

# -- the property -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=PLANES)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Api]]:
    """A folder, and the API server whose kubeconfig is in its folder `server`."""
    folder = tmp_path_factory.mktemp("convergence")
    if request.param == "real":
        kubeconfig = folder / "server/kubeconfig"
        kubeconfig.parent.mkdir()
        kubeconfig.write_bytes(Path(REAL_KUBECONFIG).read_bytes())
        with closing(Api(kubeconfig, "real")) as api:
            yield folder, api
        return
    server = EmbeddedServer(folder / "server")
    api = Api(server.kubeconfig, "embedded")
    yield folder, api
    api.close()
    log = server.log()
    assert server.end() == 0
    assert "Traceback" not in log, log


def bounded(examples: int, examples_in_full: int) -> Any:
    return settings(
        max_examples=examples_in_full if FULL else examples,
        deadline=None,
        derandomize=not FULL,
        # Each try costs seconds, and a shorter one says little more.
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


Steps: TypeAlias = list[tuple[str, int]]
histories: st.SearchStrategy[Steps] = st.lists(
    st.tuples(st.sampled_from(STEPS), st.integers(0, 2**32)), min_size=8, max_size=20
)


@bounded(6, 400)
@given(steps=histories)
def test_it_ends_as_a_fresh_run_of_the_last_commit_and_then_sends_nothing(
    cluster: tuple[Path, Api], steps: Steps
) -> None:
    _assert_converges(cluster, Led, steps)


@bounded(2, 100)
@given(steps=histories)
def test_so_it_does_with_a_thread_for_each_environment(cluster: tuple[Path, Api], steps: Steps) -> None:
    _assert_converges(cluster, Fleet, steps)


def _assert_converges(cluster: tuple[Path, Api], fleet: type[Fleet], steps: Steps) -> None:
    folder, api = cluster
    with World(api, folder, fleet) as world:
        world.edit()
        for what, seed in steps:
            world.step(what, seed)
        world.settle()
        _assert_at_rest(world)
        world.repository.broken = None
        world.repository.commit()
        world.settle()
        _assert_at_rest(world)
        ended = world.state()
    # All of it is gone by now, and so is the daemon.
    _assert_as_made_anew(world, ended)


def _assert_at_rest(world: World) -> None:
    """Everything is looked at once more, by the daemon and by a run that begins: nobody has anything to do."""
    arrived = len(world.proxy.seen)
    world.daemon.fleet.want_all()
    world.daemon.turn(0.0)
    eventually(lambda: all(map(world.is_at_rest, world.daemon.keepers)))
    sent = [one for one in world.proxy.seen[arrived:] if "watch=" not in one.path]
    if world.repository.broken is not None:  # what is held is asked about
        sent = [one for one in sent if harness.is_write(one)]
    assert [f"{one.method} {one.path}" for one in sent] == []
    before = world.state()
    again = world.run()
    assert again.plan.actions == ()
    assert again.done == ()
    assert world.state() == before


def _assert_as_made_anew(world: World, ended: dict[str, dict[str, Any]]) -> None:
    """The same comes of the last commit where there was nothing before."""
    plant = played(world.api)

    def is_made() -> bool:
        done = world.run().done
        plant.turn()
        return done == ()

    eventually(is_made, PATIENCE[world.api.plane])
    plant.close()
    anew = world.state()
    world.forget()
    for name in ENVIRONMENTS:
        left, made = ended[name], anew[name]
        if f'"name": "{name}"'.encode() not in world.repository.last["environments.yaml"]:
            # Only the namespace stays, as people may have put something in it.
            assert set(left) <= {"inventory", f"Namespace/{name}"}
            assert left["inventory"] == []
            continue
        # What has run is not run again, whoever takes its Job away.
        jobs = {key for key in {*left, *made} if key.startswith("Job/")}
        assert jobs & left.keys() <= made.keys()
        assert {key: one for key, one in left.items() if key not in jobs} == {
            key: one for key, one in made.items() if key not in jobs
        }
