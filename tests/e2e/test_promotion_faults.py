"""Whatever happens on a build's way into production: it arrives once, on the way that was decided, or it does not.

Only the API server runs; a `Plant` plays what a cluster does. Each test commits new models and watches them arrive.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from reconciler import inventory
from tests.contract.client import MERGE, Api
from tests.contract.faults import Fault, FaultProxy, Seen, answer, lose
from tests.contract.plant import Plant
from tests.e2e.data_plane import REPOSITORY, Repository, eventually
from tests.e2e.harness import FULL, Plane, Run, at_once, document, environment, is_write, kill, state

MODELS = ("churn", "fraud")
ENVIRONMENTS = ("staging", "production")
#: Where models are built, and whose analytics are asked.
WORKSHOP = "workshop"
RECORDS = "/apis/trueup.dev/v1/namespaces/trueup-system"
SQL = "SELECT coalesce(max(value), 0.5) FROM build_metrics WHERE model = :model AND build_id <> :build_id"
CONFIG_HASH = "trueup.dev/config-hash"
#: The writes of a run that brings a new build of both models into production: records, Jobs, Deployments, routes.
WRITES = 85


def automation(model: str, condition: dict[str, Any]) -> dict[str, Any]:
    """Every commit is built, judged, and deployed to staging and then to production."""
    return {
        "name": f"{model}-git",
        "model": model,
        "environment": WORKSHOP,
        "trigger": "git",
        "build_spec": {"git_uri": f"{REPOSITORY}#{model}", "git_branch": "main"},
        "deployment_condition": {"metric_name": "auc", **condition},
        "deployment_spec": {"environments": list(ENVIRONMENTS)},
    }


def served(model: str, hold: str) -> dict[str, Any]:
    """At once in staging, step by step in production."""
    steps = [{"weight": 10, "hold": hold}, {"weight": 50, "hold": hold}]
    return {
        "model": model,
        "name": "default",
        "environments": list(ENVIRONMENTS),
        "automation": f"{model}-git",
        "deployment": {"number_of_pods": 1, "memory": "1Gi"},
        "environment_overrides": {"production": {"rollout": {"canary": {"steps": steps}}}},
    }


def specs(hold: str = "1s", **production: Any) -> str:
    return document(
        environment(WORKSHOP),
        environment("staging"),
        environment("production", promote_after=["staging"], **production),
        {"automations": [automation("churn", {"threshold": "0.65"}), automation("fraud", {"threshold": SQL})]},
        {"variations": [served(model, hold) for model in MODELS]},
    )


class Ending(NamedTuple):
    """How a commit ended, in words that are the same for every commit."""

    records: Any
    objects: Any
    rows: Any


@dataclass
class Site:
    """A plane with both models in production, and a repository to commit to."""

    plane: Plane
    api: Api
    repository: Repository
    commits: int = 0

    def commit(self, *models: str) -> str:
        """A new version of these models."""
        self.commits += 1
        for model in models or MODELS:
            commit = self.repository.model(model, f"version {self.commits}")
        return commit

    def arguments(self, wait: float = 60, proxy: FaultProxy | None = None) -> list[str | Path]:
        given: list[str | Path] = ["--mirror", self.repository.mirror, "--wait", str(wait)]
        if proxy is not None:
            given += ["--kubeconfig", proxy.kubeconfig(self.plane.folder / f"proxy-{id(proxy)}")]
        return given

    def run(self, wait: float = 60, proxy: FaultProxy | None = None) -> Run:
        return self.plane.reconcile(*self.arguments(wait, proxy), timeout=100)

    def run_until(self, look: Callable[[], Any]) -> None:
        """Runs until something is so, and ends then, in the middle of whatever it does."""
        process = self.plane.start(*self.arguments())
        try:
            eventually(look)
        finally:
            process.kill()
            process.communicate()

    def start(self, proxy: FaultProxy) -> subprocess.Popen[str]:
        return self.plane.start(*self.arguments(proxy=proxy))

    def records(self, plural: str) -> list[dict[str, Any]]:
        found = self.api("GET", f"{RECORDS}/{plural}")
        assert found.status == 200, found.body
        items: list[dict[str, Any]] = found.body["items"]
        return items

    def builds(self, model: str) -> list[dict[str, Any]]:
        """The newest first."""
        found = [one for one in self.records("builds") if one["spec"]["model"] == model]
        return sorted(found, key=lambda one: str(one["spec"]["cause"]["at"]), reverse=True)

    def promotions(self, build: str) -> list[dict[str, Any]]:
        return [one for one in self.records("promotions") if one["spec"]["build"] == build]

    def promotion(self, model: str, place: str) -> dict[str, Any]:
        """Of the newest build."""
        newest = self.builds(model)[0]["spec"]["id"]
        (found,) = (one for one in self.promotions(newest) if one["spec"]["environment"] == place)
        return found

    def edit(self, record: dict[str, Any], *, subresource: str = "", **changes: Any) -> Any:
        """As `kubectl edit` does it."""
        plural = f"{record.get('kind', 'Promotion').lower()}s"
        path = f"{RECORDS}/{plural}/{record['metadata']['name']}{subresource}"
        return self.api("PATCH", path, changes, content_type=MERGE)

    def backends(self, model: str, place: str) -> dict[str, int]:
        path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{place}/httproutes/{model}"
        rules = self.api("GET", path).body["spec"]["rules"]
        return {ref["name"]: ref.get("weight", 1) for rule in rules for ref in rule["backendRefs"]}

    def ending(self) -> Ending:
        """What the newest build of each model came to."""
        said: dict[str, Any] = {}
        words: dict[str, str] = {}
        builds = {model: self.builds(model) for model in MODELS}
        for model, (newest, before, *_) in builds.items():
            for name, one in (("new", newest), ("old", before)):
                words |= {one["spec"]["id"]: f"{name} {model}", one["spec"]["id"][:8]: f"{name}8"}
            words[newest["spec"]["commit"]] = f"commit of {model}"
            promotions = self.promotions(newest["spec"]["id"])
            said[model] = [
                sum(one["spec"]["commit"] == newest["spec"]["commit"] for one in builds[model]),
                {key: newest["status"].get(key) for key in ("phase", "metrics", "artifact", "record", "notified")},
                sorted((_told(one) for one in promotions), key=str),
            ]
        objects = {}
        for place in (WORKSHOP, *ENVIRONMENTS):
            for key, one in state(self.api, place).items():
                if not key.startswith("Job/") or any(key.endswith(b[0]["spec"]["id"][:8]) for b in builds.values()):
                    objects[f"{place}/{key}"] = one
        for one in objects.values():
            if isinstance(one, dict):  # hashes of what names the build
                one["metadata"]["annotations"].pop(inventory.CONTENT_HASH, None)
                pods = one.get("spec", {}).get("template", {}).get("metadata", {})
                pods.get("annotations", {}).pop(CONFIG_HASH, None)
        folder = self.plane.home / "data" / "objects" / "analytics" / "promotions"
        newest = [found[0]["spec"]["id"] for found in builds.values()]
        files = folder.rglob("*.json")
        rows = sorted(path.name for path in files if json.loads(path.read_text())["build_id"] in newest)
        return Ending(*(_replaced(part, words) for part in (said, objects, rows)))


def _told(promotion: dict[str, Any]) -> Any:
    """What a promotion came to, without times."""
    spec, status = promotion["spec"], promotion["status"]
    rollout, verdicts = status.get("rollout", {}), status["gate"]["verdicts"]
    return {
        "name": promotion["metadata"]["name"],
        "place": [spec["environment"], spec["variation"], spec["attempt"], spec.get("expectedCurrent")],
        "phase": status["phase"],
        "message": status["message"],
        "weight": [rollout.get("weight"), rollout.get("step")],
        "verdicts": [[one["outcome"], one["reason"], one["threshold"]] for one in verdicts],
        "notified": status["notified"],
    }


def _replaced(value: Any, words: dict[str, str]) -> Any:
    text = json.dumps(value, sort_keys=True)
    for old in sorted(words, key=len, reverse=True):
        text = text.replace(old, words[old])
    return json.loads(text)


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two values differ, leaf by leaf."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys())
        return [d for key in keys for d in differences(one.get(key), other.get(key), f"{where}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [d for n, (a, b) in enumerate(zip(one, other, strict=True)) for d in differences(a, b, f"{where}/{n}")]
    return [] if one == other else [f"{where}: {one!r} instead of {other!r}"]


@pytest.fixture(scope="module")
def site(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Both models have been in production since their first commit."""
    made = Site(plane, plane.api(), Repository(tmp_path_factory.mktemp("git") / "models"))
    plane.write("specs/a.yaml", specs())
    made.commit()
    with Plant(made.api):
        first = made.run()
    assert first.code == 0, first.text
    yield made
    made.api.close()


def settle(site: Site) -> None:
    """Brings both models' newest builds into production, whatever an earlier test left."""
    site.plane.write("specs/a.yaml", specs())
    serving = [list(site.backends(model, "production")) for model in MODELS]
    if serving != [[f"{model}-default-{site.builds(model)[0]['spec']['id'][:8]}"] for model in MODELS]:
        site.commit()
        with Plant(site.api):
            run = site.run()
        assert run.code == 0, run.text


@pytest.fixture
def settled(site: Site) -> Site:
    """Both models' newest builds are in production."""
    settle(site)
    return site


@pytest.fixture
def plant(settled: Site) -> Iterator[Plant]:
    """The controllers go on while the test does what it does."""
    with Plant(settled.api) as plant:
        yield plant


@pytest.fixture(scope="module")
def undisturbed(site: Site) -> tuple[Ending, int]:
    """How a commit ends that nobody disturbs, and how many writes that takes."""
    settle(site)
    site.commit()
    with Plant(site.api) as plant, FaultProxy(site.plane.kubeconfig) as proxy:
        run = site.run(proxy=proxy)
    assert run.code == 0, run.text
    came_once(site, plant)
    ending = site.ending()
    assert [[p["phase"] for p in ending.records[model][2]] for model in MODELS] == [["Succeeded"] * 2] * 2
    assert all(len(ending.records[model][2][0]["verdicts"]) == 1 for model in MODELS)
    return ending, sum(map(is_write, proxy.seen))


def came_once(site: Site, plant: Plant) -> None:
    """One Job for each build, nobody without an answer, and no weight that was not its turn."""
    assert plant.gaps == set()
    assert [key for key, uids in plant.jobs.items() if len(uids) > 1] == []
    for model in MODELS:
        newest, before = (f"{model}-default-{one['spec']['id'][:8]}" for one in site.builds(model)[:2])
        course = [{before: 100}, {before: 90, newest: 10}, {before: 50, newest: 50}, {newest: 100}]
        seen = [
            {name: weight // 100 for name, weight in weights.items() if weight}
            for weights in plant.weights[f"production/{model}"]
        ]
        turns = [course.index(one) for one in seen]
        assert turns == sorted(turns), seen


# -- killed ---------------------------------------------------------------------------------------------------------


class Every(FaultProxy):
    """Meets every n-th request that writes with a fault, or the n-th alone."""

    def __init__(self, upstream: Path, fault: Fault, every: int, *, once: bool = False) -> None:
        super().__init__(upstream)
        self.fault, self.every, self.once, self.count_of_writes = fault, every, once, 0

    def fault_for(self, request: Seen) -> Fault | None:
        super().fault_for(request)
        if not is_write(request):
            return None
        with self._lock:
            self.count_of_writes += 1
            if self.once:
                return self.fault if self.count_of_writes == self.every else None
            return self.fault if self.count_of_writes % self.every == 0 else None


def killed_runs(site: Site, deaths: Deaths) -> int:
    """Runs, each begun when the one before was killed, until one comes to its end: how many were killed."""
    processes: list[subprocess.Popen[str]] = []
    death = kill(lambda: processes[-1].pid, first_do_it=deaths.first_do_it)
    with Every(site.plane.kubeconfig, death, deaths.every, once=deaths.once) as proxy:
        while not processes or processes[-1].returncode == -9:
            processes.append(site.start(proxy))
            try:
                out, err = processes[-1].communicate(timeout=100)
            finally:
                processes[-1].kill()
            time.sleep(0.05)  # what it had sent with other connections arrives
    assert processes[-1].returncode == 0, out + err
    return len(processes) - 1


class Deaths(NamedTuple):
    """Runs are killed at every so manieth write, again and again; `once`: a single one is."""

    every: int
    first_do_it: bool
    once: bool

    def __str__(self) -> str:
        which = f"write {self.every}" if self.once else f"every write {self.every}"
        return f"{'after' if self.first_do_it else 'before'} {which}"


SINGLE = [Deaths(k, first_do_it=True, once=True) for k in range(1, WRITES + 1)]
MANY = [Deaths(n, first_do_it=done, once=False) for n in (1, 2, 3, 5, 7) for done in (True, False) if n > 1 or done]


@pytest.mark.timeout(600)  # one process for each write of the run
@pytest.mark.parametrize("deaths", [*SINGLE, *MANY] if FULL else [Deaths(17, first_do_it=True, once=False)], ids=str)
def test_runs_that_are_killed_are_completed_by_the_next(settled: Site, undisturbed: tuple[Ending, int], deaths: Deaths):
    ending, writes = undisturbed
    assert abs(writes - WRITES) <= 4, "the moments are chosen among this many"
    settled.commit()
    with Plant(settled.api) as plant:
        killed = killed_runs(settled, deaths)
    if deaths.once:
        assert killed == 1 or deaths.every > writes - 4
    else:
        assert killed >= 60 // deaths.every
    came_once(settled, plant)
    assert differences(settled.ending()._asdict(), ending._asdict()) == []


@pytest.mark.parametrize("every", (2, 3, 4, 5, 7, 11) if FULL else (3,))
def test_the_answers_to_many_writes_are_lost(settled: Site, undisturbed: tuple[Ending, int], every: int):
    settled.commit()
    with Plant(settled.api) as plant, Every(settled.plane.kubeconfig, lose(), every) as proxy:
        run = settled.run(proxy=proxy)
    assert run.code == 0, run.text
    assert proxy.count_of_writes > WRITES
    came_once(settled, plant)
    assert differences(settled.ending()._asdict(), undisturbed[0]._asdict()) == []


# -- two at once ----------------------------------------------------------------------------------------------------


def slow(seconds: float) -> Fault:
    """Every answer comes late."""

    def act(handler: Any, request: bytes) -> None:
        time.sleep(seconds)
        handler._pass_on(request)

    return act


def test_two_reconcilers_at_once_come_to_the_end_of_one(settled: Site, undisturbed: tuple[Ending, int]):
    settled.commit()
    with (
        Plant(settled.api) as plant,
        Every(settled.plane.kubeconfig, slow(0.1), 3) as one,
        Every(settled.plane.kubeconfig, slow(0.2), 5) as other,
    ):
        runs = at_once([lambda: settled.run(proxy=one), lambda: settled.run(proxy=other)])
    assert [run.code for run in runs] == [0, 0], "\n".join(run.text for run in runs)
    came_once(settled, plant)
    assert differences(settled.ending()._asdict(), undisturbed[0]._asdict()) == []


# -- records that somebody has edited -------------------------------------------------------------------------------


def test_a_promotion_that_is_edited_goes_on_from_what_its_record_says(site: Site, plant: Plant):
    site.plane.write("specs/a.yaml", specs(hold="1h"))
    site.commit("churn")
    site.run_until(lambda: 1000 in site.backends("churn", "production").values())
    held = site.promotion("churn", "production")
    refused = site.edit(held, spec={"build": "0" * 64})
    assert refused.status == 422
    assert "spec is immutable" in refused.body["message"]

    ahead = site.edit(held, subresource="/status", status={"rollout": {"weight": 50, "step": 1, "routedAt": None}})
    assert ahead.status == 200, ahead.body
    site.run_until(lambda: list(site.backends("churn", "production").values()) == [5000, 5000])
    ended = site.edit(held, subresource="/status", status={"phase": "RolledBack", "finishedAt": "2026-01-01T00:00:00Z"})
    assert ended.status == 200, ended.body
    run = site.run()
    assert run.code == 0, run.text
    (old,) = site.backends("churn", "production")
    assert old != f"churn-default-{held['spec']['build'][:8]}", "the traffic is where it was before"
    assert plant.gaps == set()


def test_nothing_but_an_approval_of_this_very_build_lets_it_into_production(site: Site, plant: Plant):
    site.plane.write("specs/a.yaml", specs(approval="manual"))
    site.commit("churn")
    asked = site.run()
    assert asked.code == 0, asked.text
    first = site.promotion("churn", "production")
    assert first["status"]["phase"] == "AwaitingApproval"
    site.edit(first, subresource="/status", status={"phase": "RollingOut"})
    assert site.run().code == 0
    assert site.promotion("churn", "production")["status"]["phase"] == "AwaitingApproval", "a word is no approval"

    site.commit("churn")
    assert site.run().code == 0
    late = site.plane.reconcile("approve", first["metadata"]["name"])
    assert late.code == 1
    assert "has ended: Superseded: " in late.err
    assert "is wanted by now" in late.err
    second = site.promotion("churn", "production")
    assert second["status"]["phase"] == "AwaitingApproval"
    assert second["spec"].get("decisions", []) == []
    unapproved = {f"churn-default-{one['spec']['build'][:8]}" for one in (first, second)}
    assert site.backends("churn", "production").keys().isdisjoint(unapproved)


# -- records out of reach -------------------------------------------------------------------------------------------

BROKEN = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
FAULTS = {
    "500": answer(500, {**BROKEN, "code": 500, "reason": "InternalError", "message": "etcd has no leader"}),
    "403": answer(403, {**BROKEN, "code": 403, "reason": "Forbidden", "message": 'forbidden: User "trueup" cannot'}),
}


@pytest.mark.parametrize("fault", FAULTS if FULL else ["403"])
def test_without_the_promotions_what_is_promoted_stays_and_all_else_is_applied(site: Site, plant: Plant, fault: str):
    plant.stuck = {"fraud"}
    site.commit("fraud")
    site.run_until(lambda: any(key.endswith(site.builds("fraud")[0]["spec"]["id"][:8]) for key in plant.jobs))
    before = {place: state(site.api, place) for place in (WORKSHOP, *ENVIRONMENTS)}
    site.plane.write("specs/a.yaml", specs(quota={"pods": int(fault) // 10}))
    with FaultProxy(site.plane.kubeconfig) as proxy:
        proxy.inject(FAULTS[fault], path="/promotions", times=1000)
        run = site.run(wait=0, proxy=proxy)
    plant.stuck = set()
    assert run.code == 3, run.text
    assert run.told("applied") == {"ResourceQuota/trueup"}
    assert "records" in run.out
    after = {place: state(site.api, place) for place in before}
    changed = [d.split(":")[0] for d in differences(after, before)]
    assert all(one.startswith("/production/ResourceQuota/trueup/") for one in changed), changed
