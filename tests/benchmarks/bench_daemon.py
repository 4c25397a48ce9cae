"""The daemon, as it is installed, on an API server of its own: `python -m tests.benchmarks daemon`.

    KUBECONFIG=... python -m tests.benchmarks daemon        the same on another server, in namespaces of its own

Beside each figure is the ceiling: a bare keep-alive loop of the same requests on the same server, in the same run.
Nobody runs pods here, so the controllers' part is played, and none of its time counts. Prints

- cold apply of 4,000 objects, from the new revision to the last object (target: 80 % of the ceiling's rate);
- with 10,000 objects: start-up where all of them are there (10 s), memory (256 MiB), CPU while nothing happens;
- a pass in which nothing has changed (no request, 0.2 s of CPU);
- drift of one object until it is mended (p95 1 s);
- one changed spec among 10,000, in CPU up to the finished plan (50 ms), by its parts and in the whole process; and the
  same of a model that comes by promotion, as 200 of them do, and where an organisation has rules of its own.
"""

from __future__ import annotations

import gc
import statistics
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote
from uuid import uuid4

from reconciler import ledger, policy, queries, recorded
from reconciler.automate import Automator, Recall
from reconciler.cli.common import now
from reconciler.cluster import FIELD_MANAGER, Writer, connect
from reconciler.cluster.objects import apply_patch
from reconciler.daemon.conductor import RECORDS
from reconciler.daemon.desire import Desire, Moved
from reconciler.daemon.drifts import Drifted
from reconciler.daemon.health import Health
from reconciler.daemon.keeper import Keeper
from reconciler.daemon.plane import INVENTORIES, Plane
from reconciler.daemon.ties import Pass, Ties
from reconciler.inventory import PART_OF, set_id
from reconciler.outside import Outside
from reconciler.plan import Plan
from reconciler.readiness import Readiness, State
from reconciler.records import (
    API_VERSION,
    NAMESPACE,
    Build,
    BuildPhase,
    BuildStatus,
    Cause,
    Identity,
    Phase,
    Promotion,
    PromotionRequest,
    PromotionStatus,
    promotion_name,
)
from reconciler.report import Done, Outcome
from reconciler.specs.index import Index
from reconciler.specs.places import Places
from reconciler.specs.references import Specs
from reconciler.telling.events import Events
from renderers.catalog import Facts
from renderers.identity import identify
from renderers.manifest import Manifest, ObjectId
from renderers.names import ENVIRONMENT
from schemas.environment import DataPlane
from tests.benchmarks import many_specs
from tests.benchmarks.server import api_server
from tests.contract.client import MERGE, Api
from tests.contract.faults import Upstream
from tests.contract.plant import Plant
from tests.e2e.daemon import Daemon
from tests.e2e.daemon import Specs as Followed
from tests.e2e.harness import Plane as Folder

ENVIRONMENTS = 4
COLD = 154  # models: 4,000 objects
MODELS = 385  # 10,000 objects
ASIDE = 1_615  # more of them, in an environment that is suspended: 10,000 specs
ROUNDS = 3
THREADS = 8
DRIFTS = 200
AT_ONCE = 20
CHANGES = 20
PROMOTED = 200  # of the models
KINDS = {
    "ServiceAccount": ("v1", "serviceaccounts"),
    "ResourceQuota": ("v1", "resourcequotas"),
    "NetworkPolicy": ("networking.k8s.io/v1", "networkpolicies"),
    "ConfigMap": ("v1", "configmaps"),
    "Service": ("v1", "services"),
    "Deployment": ("apps/v1", "deployments"),
    "PodDisruptionBudget": ("policy/v1", "poddisruptionbudgets"),
    "ScaledObject": ("keda.sh/v1alpha1", "scaledobjects"),
    "PodMonitor": ("monitoring.coreos.com/v1", "podmonitors"),
    "PrometheusRule": ("monitoring.coreos.com/v1", "prometheusrules"),
    "HTTPRoute": ("gateway.networking.k8s.io/v1", "httproutes"),
}
#: Six rules about specs, and two about changes; nothing here breaks one.
RULES = b"""api_version: v1
policies:
- {name: a, kind: variation, message: Not so, require: 'spec.deployment.number_of_pods <= 20'}
- {name: b, kind: variation, message: Not so, when: 'environment.name == "production"', require: 'spec.build != "next"'}
- {name: c, kind: variation, message: Not so, require: 'spec.traffic.all(t, !has(t.weight) || t.weight <= 100)'}
- {name: d, kind: build, message: Not so, require: 'spec.git_uri.startsWith("https://")'}
- {name: e, kind: audience, message: Not so, require: 'spec.priority > 0'}
- {name: f, kind: environment, message: Not so, require: 'spec.name != "default"'}
- {name: g, kind: change, message: Not so, require: 'change.op != "delete" || approvals.size() > 0'}
- name: h
  kind: change
  message: Not so
  when: change.kind == "Deployment" && manifest != null
  require: '!has(manifest.spec.replicas) || manifest.spec.replicas < 20'
"""
_CANARY = "    rollout:\n      canary:\n        steps:\n        - weight: 50\n          hold: 1m\n"
NO_RECALL = Recall(Facts(), {}, {})
CURRENT = Readiness(State.CURRENT)


def main() -> None:
    """Measures against $KUBECONFIG, or against an embedded server that is started and stopped."""
    with api_server() as kubeconfig:
        print(f"{'':44}{'ours':>12}{'ceiling':>12}{'ratio':>8}")
        cold(kubeconfig)
        many(kubeconfig)


# -- specs ----------------------------------------------------------------------------------------------------------


@dataclass
class World:
    """Specs of some models in environments of our own, a repository of them, and what is known of the server."""

    kubeconfig: Path
    folder: Path
    models: int
    aside: int = 0
    #: The first so many models come by promotion.
    promoted: int = 0
    tag: str = field(default_factory=lambda: f"bench-{uuid4().hex[:6]}")

    @property
    def environments(self) -> list[str]:
        return [f"{self.tag}-{number}" for number in range(ENVIRONMENTS)]

    @property
    def elsewhere(self) -> str:
        return f"{self.tag}-aside"

    @property
    def files(self) -> dict[str, str]:
        """Every model: an audience, two builds, and two variations of it, each in two environments."""
        found = {f"environments/{self.elsewhere}": _environment(self.elsewhere, "    suspended: true\n")}
        found |= {f"environments/{name}": _environment(name) for name in self.environments}
        for n in range(self.models + self.aside):
            pair = [self.environments[n % ENVIRONMENTS], self.environments[(n + 1) % ENVIRONMENTS]]
            places = pair if n < self.models else [self.elsewhere]
            found |= _model(n, places, self.elsewhere, _CANARY if n < self.promoted else "")
        return found

    @property
    def contents(self) -> dict[str, bytes]:
        return {f"{name}.yaml": text.encode() for name, text in self.files.items()}

    @cached_property
    def specs(self) -> Followed:
        made = Followed(self.folder / "repository")
        made.write(**self.files)
        return made

    @cached_property
    def manifests(self) -> list[Manifest]:
        """What all of it is rendered to, in the environments that are not suspended."""
        contents = self.contents
        index = Index(contents.__getitem__, queries.check)
        index.replace(contents)
        assert not index.problems, index.problems[:3]
        desire = Desire(index)
        desire.update("", None, NO_RECALL, {})
        return [
            manifest
            for name in self.environments
            for manifests in desire.look(name, desire.models(name)).values()
            for manifest in manifests
        ]

    def record(self) -> None:
        """Records of all that is promoted: each build was made once, and promoted to each of its environments.

        Nobody may look meanwhile: a promotion that has not ended serves nothing.
        """
        connection = connect(str(self.kubeconfig), trusted=True)
        writer = Writer(connection)
        assert not ledger.ensure(writer)
        with ThreadPoolExecutor(THREADS) as pool:
            assert all(pool.map(partial(ledger.create, writer), self._records()))
        connection.close()

    def _records(self) -> Iterator[Build | Promotion]:
        contents = self.contents
        index = Index(contents.__getitem__, queries.check)
        index.replace(contents)
        at = now()
        made = BuildStatus(phase=BuildPhase.SUCCEEDED, metrics={"auc": "0.9"}, started_at=at, finished_at=at)
        ended = PromotionStatus(phase=Phase.SUCCEEDED, since=at, finished_at=at, notified=("analytics",))
        for variation in index.part([f"model-{n}" for n in range(self.promoted)]).variations.values():
            spec = variation.spec
            assert spec.build is not None
            build = index.catalog.builds[spec.build].spec
            identity = identify(build, Facts())
            yield recorded.of_spec(build, identity, self.elsewhere, at).model_copy(update={"status": made})
            for environment in spec.environments:
                cause = Cause(kind="Spec", at=at)
                request = PromotionRequest(
                    model=spec.model, variation=spec.name, environment=environment, build=identity.id, cause=cause
                )
                yield Promotion(identity=Identity(name=promotion_name(request)), spec=request, status=ended)

    @contextmanager
    def daemon(self, name: str) -> Iterator[Daemon]:
        """The command as the chart installs it, which is about our environments only."""
        where = Folder(self.folder, Path(sysconfig.get_path("scripts")) / "reconcile")
        about = [word for environment in (*self.environments, self.elsewhere) for word in ("-e", environment)]
        given = ["--git", self.specs.url, "--path", "specs", "--interval", "1", "--home", str(self.folder / "home")]
        daemon = Daemon(where, [*given, "--kubeconfig", str(self.kubeconfig), *about], name).start(MALLOC_ARENA_MAX="2")
        try:
            yield daemon
            daemon.assert_sound()
        finally:
            daemon.kill()

    def empty(self) -> None:
        """Leaves the server as it was. Where no controller ends a namespace, it is ended here, after a while."""
        api = Api(self.kubeconfig, "")
        for name in (*self.environments, self.elsewhere):
            for version, plural in KINDS.values():
                api("DELETE", f"{_root(version)}/namespaces/{name}/{plural}")
            api("DELETE", f"/api/v1/namespaces/{name}")
            api("DELETE", f"/api/v1/namespaces/trueup-system/configmaps/trueup-{name}")
            for plural in ("builds", "promotions"):
                records = f"/apis/{API_VERSION}/namespaces/{NAMESPACE}/{plural}"
                api("DELETE", f"{records}?labelSelector={quote(f'{ENVIRONMENT}={name}')}")
        end = time.monotonic() + 30
        for path in (f"/api/v1/namespaces/{name}" for name in self.environments):
            while (found := api("GET", path)).status == 200 and time.monotonic() < end:
                time.sleep(0.5)
            if found.status == 200:
                api("PUT", f"{path}/finalize", {**found.body, "spec": {"finalizers": []}})
        api.close()


def _environment(name: str, more: str = "") -> str:
    head = f"  environments:\n  - name: {name}\n    data_plane: kubernetes\n    object_storage: s3://bench/{name}\n"
    head += "    prometheus_url: http://prometheus:9090\n"
    return f"api_version: v1\nspec:\n{head}{more}"


def _model(n: int, places: list[str], elsewhere: str, rollout: str) -> dict[str, str]:
    head, where = "api_version: v1\nspec:\n", f"[{', '.join(places)}]"
    found = {f"audiences/audience-{n}": head + many_specs._AUDIENCE.format(n=n)}
    for side, audience in (("a", ""), ("b", f"audience: audience-{n}, ")):
        build = many_specs._BUILD.format(n=n, side=side, commit=f"{n:039x}{side}")
        found[f"builds/model-{n}-{side}"] = f"{head}{build}    environment: {elsewhere}\n"
        variation = many_specs._VARIATION.format(n=n, side=side, audience=audience, places=where)
        found[f"variations/model-{n}-{side}"] = head + variation + rollout
    return found


def _root(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def _path(target: ObjectId) -> str:
    if target.kind == "Namespace":
        return f"/api/v1/namespaces/{target.name}"
    version, plural = KINDS[target.kind]
    return f"{_root(version)}/namespaces/{target.namespace}/{plural}/{target.name}"


# -- the server -----------------------------------------------------------------------------------------------------


class Controllers(Plant):
    """Of our own namespaces only: others may share the server."""

    def __init__(self, world: World) -> None:
        self._world = world
        super().__init__(Api(world.kubeconfig, ""))

    def _list(self, version: str, plural: str) -> list[Any]:
        found = []
        for name in self._world.environments:
            answer = self._api("GET", f"/apis/{version}/namespaces/{name}/{plural}")
            assert answer.status == 200, answer.body
            found += [{**one, "apiVersion": version} for one in answer.body["items"]]
        return found


class Raw:
    """Bare requests on kept-alive connections, whose answers nobody looks at."""

    def __init__(self, kubeconfig: Path) -> None:
        self._upstream = Upstream.of(kubeconfig)
        self._connection = self._upstream.open()

    def __call__(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> bytes:
        headers = {"Authorization": f"Bearer {self._upstream.token}", "Accept": "application/json"}
        self._connection.request(method, path, body, headers | ({"Content-Type": kind} if kind else {}))
        answer = self._connection.getresponse()
        content = answer.read()
        assert answer.status in (200, 201), (answer.status, content[:500])
        return content

    def apply(self, manifest: Manifest, more: str = "") -> None:
        query = f"?fieldManager={FIELD_MANAGER}&fieldValidation=Strict&force=false{more}"
        body = apply_patch(manifest.body)
        self("PATCH", _path(manifest.id) + query, body, "application/apply-patch+yaml")

    def list(self, path: str) -> None:
        """In pages, as a watch begins; only the token of the next one is looked for."""
        token = ""
        while True:
            head = self("GET", f"{path}limit=500{token}")[:2000]
            _, found, rest = head.partition(b'"continue":"')
            if not found:
                return
            token = "&continue=" + rest.partition(b'"')[0].decode()


# -- measuring ------------------------------------------------------------------------------------------------------


class Process:
    """What a process has used."""

    def __init__(self, daemon: Daemon) -> None:
        assert daemon.process is not None
        self._proc = Path(f"/proc/{daemon.process.pid}")
        self._clock = (~daemon.process.pid << 3) | 2  # as clock_getcpuclockid(3) has it

    @property
    def cpu(self) -> float:
        """Seconds, of all its threads."""
        return time.clock_gettime(self._clock)

    @property
    def git(self) -> float:
        """Seconds of CPU of the processes that it has started and that have ended."""
        words = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(words[13]) + int(words[14])) / 100

    def memory(self) -> tuple[float, float]:
        """MiB now, and at most."""
        lines = (self._proc / "status").read_text().splitlines()
        kb = {line.partition(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmRSS", "VmHWM"))}
        return kb["VmRSS"] / 1024, kb["VmHWM"] / 1024


def _until(look: Callable[[], Any], *, every: float = 0.05, seconds: float = 180.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"nothing after {seconds} s"
        time.sleep(every)
    return found


def _is_settled(daemon: Daemon) -> bool:
    return daemon.metric("trueup_unsettled_units") == 0 and bool(daemon.metric("trueup_applied_revision_info"))


def _moment(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


def _say(what: str, ours: str, ceiling: str = "", ratio: str = "", more: str = "") -> None:
    print(f"{what:44}{ours:>12}{ceiling:>12}{ratio:>8}  {more}".rstrip(), flush=True)


# -- cold apply -----------------------------------------------------------------------------------------------------


def cold(kubeconfig: Path) -> None:
    """The daemon and the ceiling in turn, each in namespaces of its own. Routes wait for pods, and do not count."""
    for number in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            world = World(kubeconfig, Path(folder, "ours"), COLD)
            other = World(kubeconfig, Path(folder, "raw"), COLD)
            world.folder.mkdir()
            try:
                _one_cold(number, world, other)
            finally:
                world.empty()
                other.empty()


def _one_cold(number: int, world: World, other: World) -> None:
    count = len(world.manifests)
    with world.daemon("cold") as daemon:
        _until(lambda: daemon.log.read_bytes().count(b'"msg": "applied"') >= count, every=0.5)
        cpu = Process(daemon).cpu
        (revised,) = daemon.said("a new revision")
        applied = [_moment(event) for event in daemon.said("applied")]
        plans = [_moment(event) for event in daemon.said("a plan")]
        assert len(applied) == count, (len(applied), count)
        seconds, writing = max(applied) - _moment(revised), max(applied) - min(plans)
        assert daemon.stop() == 0
    raw = _raw_rate(other.manifests, world.kubeconfig)
    rate = count / seconds
    more = f"from the first plan on {count / writing / raw:.2f}; {cpu / count * 1000:.2f} ms of CPU each"
    _say(
        f"cold apply of {count:,} objects, round {number + 1}",
        f"{rate:.0f}/s",
        f"{raw:.0f}/s",
        f"{rate / raw:.2f}",
        more,
    )


def _raw_rate(manifests: list[Manifest], kubeconfig: Path) -> float:
    """Namespaces first; then every thread takes the next object until none is left."""
    first = [manifest for manifest in manifests if manifest.id.kind == "Namespace"]
    left = iter([manifest for manifest in manifests if manifest.id.kind != "Namespace"])
    lock = threading.Lock()

    def send(_: int) -> None:
        raw = Raw(kubeconfig)
        while True:
            with lock:
                manifest = next(left, None)
            if manifest is None:
                return
            raw.apply(manifest)

    began = time.perf_counter()
    one = Raw(kubeconfig)
    for manifest in first:
        one.apply(manifest)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(send, range(THREADS)))
    return len(manifests) / (time.perf_counter() - began)


# -- 10,000 objects -------------------------------------------------------------------------------------------------


def many(kubeconfig: Path) -> None:
    """Everything that is about a daemon that has its objects."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(kubeconfig, Path(folder), MODELS)
        try:
            _many(world)
        finally:
            world.empty()


def _many(world: World) -> None:
    count = len(world.manifests)
    print(f"{len(world.files):,} specs, {count:,} objects")
    with world.daemon("first") as daemon, Controllers(world):
        process = Process(daemon)
        _until(lambda: daemon.log.read_bytes().count(b'"msg": "applied"') >= count, every=1.0, seconds=900)
        _until(lambda: _is_settled(daemon), every=0.5)
        held, most = process.memory()
        _say("memory after the first apply", f"{held:.0f} MiB", more=f"at most {most:.0f}")
        assert daemon.stop() == 0
    world.promoted = PROMOTED
    world.record()
    _start_up(world)
    with Inside(world) as inside:
        _nothing(inside)
        _changed(inside, "one changed spec, to the finished plan", range(PROMOTED, PROMOTED + CHANGES))
        _changed(inside, "the same of a promoted model", range(CHANGES))
        inside.go_by(policy.read(policy.FILE, RULES))
        _changed(inside, "the same by rules", range(PROMOTED + CHANGES, PROMOTED + 2 * CHANGES))


def _start_up(world: World) -> None:
    began = time.perf_counter()
    with world.daemon("again") as daemon:
        process = Process(daemon)
        _until(lambda: daemon.log.exists() and daemon.said("begins"), every=0.02)
        _until(lambda: daemon.get("/readyz")[0] == 200, every=0.02)
        ready, cpu = time.perf_counter() - began, process.cpu
        _until(lambda: _is_settled(daemon), every=0.1)
        settled, all_cpu = time.perf_counter() - began, process.cpu
        raw = Raw(world.kubeconfig)
        began = time.perf_counter()
        for name in world.environments:
            for version, plural in KINDS.values():
                selector = f"labelSelector={PART_OF}%3D{set_id(name)}&"
                raw.list(f"{_root(version)}/namespaces/{name}/{plural}?{selector}")
        lists = time.perf_counter() - began
        ratio = f"{lists / ready:.2f}"
        _say("start-up until all is seen", f"{ready:.2f} s", f"{lists:.2f} s", ratio, f"{cpu:.2f} s of CPU")
        _say("until all is found to be as it should", f"{settled:.2f} s", more=f"{all_cpu:.2f} s of CPU")
        held, most = process.memory()
        _say("memory", f"{held:.0f} MiB", more=f"at most {most:.0f}")
        time.sleep(3)
        _idle(daemon, process)
        _drift(world, daemon)
        held, most = process.memory()
        _say("memory after all that", f"{held:.0f} MiB", more=f"at most {most:.0f}")
        world.aside = ASIDE
        _commits(world, daemon, process)
        assert daemon.stop() == 0


def _idle(daemon: Daemon, process: Process, what: str = "CPU while nothing happens") -> None:
    """Of the daemon, and of git, which it asks every second."""
    seconds, cpu, git = time.perf_counter(), process.cpu, process.git
    time.sleep(10)
    seconds = time.perf_counter() - seconds
    own, gits = (process.cpu - cpu) / seconds, (process.git - git) / seconds
    _say(what, f"{own:.1%}", more=f"and git {gits:.1%}, which is asked every second")


def _drift(world: World, daemon: Daemon) -> None:
    """Somebody edits a budget. From the answer to the edit until the server has the old value again."""
    budgets = [one for one in world.manifests if one.id.kind == "PodDisruptionBudget"]
    api, raw = Api(world.kubeconfig, ""), Raw(world.kubeconfig)
    mended, bare = [], []
    for manifest in budgets[: 2 * DRIFTS : 2]:
        began = _edit(api, manifest)
        while not _is_mended(api, manifest):
            time.sleep(0.004)
        mended.append(time.perf_counter() - began)
        began = time.perf_counter()
        raw.apply(manifest, "&dryRun=All")
        raw.apply(manifest)
        bare.append(time.perf_counter() - began)
    own = [event["seconds"] for event in daemon.said("drift", outcome="mended")]
    half = statistics.median(mended) * 1000
    _say(
        f"drift mended, p95 of {len(mended)} one by one",
        f"{_p95(mended) * 1000:.0f} ms",
        f"{_p95(bare) * 1000:.0f} ms",
        more=f"half of them in {half:.0f} ms; from when it was seen on {_p95(own) * 1000:.0f} ms",
    )
    at = {manifest.id: _edit(api, manifest) for manifest in budgets[1 : 2 * AT_ONCE : 2]}
    left = {manifest.id: manifest for manifest in budgets[1 : 2 * AT_ONCE : 2]}
    together = []
    while left:
        for target, manifest in list(left.items()):
            if _is_mended(api, manifest):
                together.append(time.perf_counter() - at[target])
                del left[target]
    _say(f"drift mended, p95 of {len(together)} at once", f"{_p95(together) * 1000:.0f} ms")
    api.close()


def _edit(api: Api, manifest: Manifest) -> float:
    path = f"{_path(manifest.id)}?fieldManager=kubectl-edit"
    answer = api("PATCH", path, {"spec": {"maxUnavailable": 2}}, content_type=MERGE)
    assert answer.status == 200, answer.body
    return time.perf_counter()


def _is_mended(api: Api, manifest: Manifest) -> bool:
    return bool(api("GET", _path(manifest.id)).body["spec"]["maxUnavailable"] == 1)


def _p95(numbers: list[float]) -> float:
    return sorted(numbers)[int(len(numbers) * 0.95)]


def _commits(world: World, daemon: Daemon, process: Process) -> None:
    """Of one spec each, from the commit until everything is applied; Git is asked every second."""
    files = world.files
    commit = world.specs.write(**files)
    _until(lambda: daemon.metric("trueup_applied_revision_info", revision=commit) >= ENVIRONMENTS, every=0.5)
    held, most = process.memory()
    _say(f"memory with {len(files):,} specs", f"{held:.0f} MiB", more=f"at most {most:.0f}")
    time.sleep(5)
    _idle(daemon, process, f"CPU with {world.promoted} promoted models")
    _one_by_one("one changed spec, to the end, all of it", range(PROMOTED, PROMOTED + CHANGES), world, daemon, process)
    _one_by_one("the same of a promoted model", range(CHANGES), world, daemon, process)


def _one_by_one(what: str, models: range, world: World, daemon: Daemon, process: Process) -> None:
    cpu, git, seconds = [], [], []
    for n in models:
        name = f"variations/model-{n}-a"
        text = world.files[name].replace("5000", str(6000 + n))
        plans = len(daemon.said("a plan"))
        began, gits = process.cpu, process.git
        world.specs.write(**{name: text})
        _until(partial(_has_planned, daemon, plans + 2), every=0.1)
        time.sleep(0.5)
        (*_, revised) = daemon.said("a new revision")
        seconds.append(_moment(daemon.said("a plan")[-1]) - _moment(revised))
        cpu.append(process.cpu - began)
        git.append(process.git - gits)
    gits, wait = statistics.mean(git) * 1000, statistics.median(seconds) * 1000
    _say(
        what,
        f"{statistics.median(cpu) * 1000:.0f} ms",
        more=f"of CPU, and git {gits:.0f} ms; from the revision to the last plan {wait:.0f} ms",
    )


def _has_planned(daemon: Daemon, number: int) -> bool:
    return len(daemon.said("a plan")) >= number


# -- the parts, in this process -------------------------------------------------------------------------------------


class Inside:
    """The keepers of the environments, whose turns are taken here: so that the CPU of each part can be told."""

    def __init__(self, world: World) -> None:
        self.requests: list[str] = []
        #: CPU of this process when a plan was finished.
        self.plans: list[float] = []
        connection = connect(str(world.kubeconfig), trusted=True)
        connection.observe = lambda method, status, seconds: self.requests.append(method)
        self.contents = world.contents
        self.rules = policy.NONE
        self.index = Index(self.contents.__getitem__, queries.check, self._check)
        self.index.replace(self.contents)
        self.desire = Desire(self.index)
        self.plane = Plane(DataPlane(type="kubernetes"), connection, None, self._events)
        self.plane.follow("inventories", [INVENTORIES], lambda _: None)
        self.plane.follow("records", RECORDS, lambda _: None)
        self.automator = Automator(
            self.index.catalog,
            Facts(),
            Outside(lambda _: self.plane.reader, world.folder, {}),
            self.plane.key,
            part=lambda model: self.index.part((model,)),
        )
        ties = Ties(self, self, lambda _: None, lambda _: CURRENT, lambda _: None, Health())
        self.keepers = {name: Keeper(name, self.plane, self.desire, ties) for name in world.environments}
        for name, keeper in self.keepers.items():
            self.plane.hear_own(name, keeper.hear_own)

    def __enter__(self) -> Self:
        _until(lambda: self.plane.is_complete(RECORDS), every=0.01)
        began = time.process_time()
        progress = self.progress = self.automator.step(self.plane.writer, now())
        _say(f"a step over {PROMOTED} promoted models", f"{(time.process_time() - began) * 1000:.0f} ms", more="of CPU")
        assert not progress.busy
        assert not progress.trouble, progress.trouble
        self.desire.update("first", None, progress.recall, {})
        _until(self.turn, every=0.01)
        time.sleep(1)
        gc.collect()
        gc.freeze()
        return self

    def __exit__(self, *_: object) -> None:
        self.plane.close()

    def turn(self) -> bool:
        for keeper in self.keepers.values():
            keeper.turn(time.monotonic())
        return all(keeper.is_caught_up for keeper in self.keepers.values())

    def _check(self, specs: Specs, places: Places) -> None:
        self.rules.check(specs, places)

    def go_by(self, rules: policy.Policy) -> None:
        """From now on, and everything is judged by them once."""
        assert not rules.problems
        began = time.process_time()
        self.rules = self.desire.rules = rules
        self.index.replace(self.contents)
        self.desire.update("ruled", None, self.progress.recall, {})
        _say(f"{len(rules.rules)} rules are new", f"{time.process_time() - began:.2f} s", more="of CPU")
        assert not self.index.problems
        gc.collect()
        gc.freeze()

    def change(self, name: str, content: bytes) -> tuple[float, float, float, Moved]:
        """A file as it is now. CPU of the index, of a step of the models it is about, and of rendering them."""
        began = time.process_time()
        models = self.index.update({name: content}).models
        indexed = time.process_time()
        assert models is not None
        self.automator.catalog = self.index.catalog
        progress = self.progress
        if self.automator.concerns(models):
            progress = self.progress = self.automator.step(self.plane.writer, now(), models)
        stepped = time.process_time()
        moved = self.desire.update(name, models, progress.recall, {})
        for unit in moved.units:
            if unit.environment in self.keepers:
                self.keepers[unit.environment].want({unit.model})
        return indexed - began, stepped - indexed, time.process_time() - stepped, moved

    @staticmethod
    def _events(writer: Writer) -> Events:
        return Events(writer, now, lambda: None, instance="bench")

    # As leadership, and as listener.

    leads = True

    def keeps_all(self) -> str:
        return ""

    def planned(self, environment: str, planned: Plan) -> None:
        self.plans.append(time.process_time())

    def did(self, environment: str, done: Done) -> None:
        assert done.outcome is Outcome.APPLIED, done

    def drifted(self, environment: str, drift: Drifted, now: float) -> None:
        raise AssertionError(drift)

    def limited(self, environment: str, limits: object, held: int, forbidden: int) -> None: ...

    def warned(self, environment: str, warnings: object) -> None: ...

    def approved(self, environment: str, approved: object) -> None: ...

    def forgot(self, environment: str) -> None: ...

    def passed(self, one: Pass) -> None: ...

    def lost(self, environment: str, why: str) -> None:
        raise AssertionError(why)


def _nothing(inside: Inside) -> None:
    """A commit that changes nothing; another turn; and everything looked at, as after a start."""
    name = "variations/model-0-a.yaml"
    inside.requests.clear()
    *parts, moved = inside.change(name, inside.contents[name] + b"# a comment\n")
    assert not moved.units
    began = time.process_time()
    assert inside.turn()
    commit = sum(parts) + time.process_time() - began
    began = time.process_time()
    assert inside.turn()
    turn = time.process_time() - began
    _say("a pass with no change: a commit", f"{commit * 1000:.1f} ms", more=f"of CPU; {len(inside.requests)} requests")
    _say("a pass with no change: a turn", f"{turn * 1000:.1f} ms", more=f"of CPU; {len(inside.requests)} requests")
    began = time.process_time()
    for keeper in inside.keepers.values():
        keeper.want(None)
    assert inside.turn()
    whole = time.process_time() - began
    _say("every object looked at", f"{whole * 1000:.0f} ms", more=f"of CPU; {len(inside.requests)} requests")


def _changed(inside: Inside, what: str, models: range) -> None:
    """One spec, of a model in two environments: to the plan of the second."""
    parts = []
    for n in models:
        name = f"variations/model-{n}-b.yaml"
        inside.plans.clear()
        index, step, desire, moved = inside.change(name, inside.contents[name].replace(b"5000", b"%d" % (7000 + n)))
        plans: list[float] = []
        for unit in sorted(moved.units):
            began = time.process_time()
            inside.keepers[unit.environment].turn(time.monotonic())
            plans.append(inside.plans[len(plans)] - began)
        _until(inside.turn, every=0.05)
        parts.append((index, step, desire, *plans))
    index, step, desire, one, two = (statistics.median(part) * 1000 for part in zip(*parts, strict=True))
    _say(
        what,
        f"{index + step + desire + one + two:.1f} ms",
        more=f"of CPU: read and checked {index:.1f}, promotions {step:.1f}, rendered {desire:.1f}, "
        f"two environments {one:.1f} and {two:.1f}",
    )


if __name__ == "__main__":
    main()
