"""Whatever happens on a build's way into production: it arrives once, on the way that was decided, or it does not.

Only the API server runs; a `Plant` plays what a cluster does. Each test commits new models and watches them arrive.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from reconciler import inventory
from tests.contract.client import MERGE, Api
from tests.contract.faults import Fault, FaultProxy, Seen, answer, lose
from tests.contract.plant import Plant
from tests.e2e.data_plane import REPOSITORY, Repository
from tests.e2e.harness import FULL, Plane, Run, at_once, document, environment, is_write, kill, state

MODELS = ("churn", "fraud")
ENVIRONMENTS = ("staging", "production")
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
        "trigger": "git",
        "build_spec": {"git_uri": f"{REPOSITORY}#{model}", "git_branch": "main"},
        "deployment_condition": {"metric_name": "auc", **condition},
        "deployment_spec": {"environments": list(ENVIRONMENTS)},
    }


def served(model: str) -> dict[str, Any]:
    """At once in staging, step by step in production."""
    steps = [{"weight": 10, "hold": "1s"}, {"weight": 50, "hold": "1s"}]
    return {
        "model": model,
        "name": "default",
        "environments": list(ENVIRONMENTS),
        "automation": f"{model}-git",
        "deployment": {"number_of_pods": 1, "memory": "1Gi"},
        "environment_overrides": {"production": {"rollout": {"canary": {"steps": steps}}}},
    }


def specs(**production: Any) -> str:
    return document(
        environment("staging"),
        environment("production", promote_after=["staging"], **production),
        {"automations": [automation("churn", {"threshold": "0.65"}), automation("fraud", {"threshold": SQL})]},
        {"variations": [served(model) for model in MODELS]},
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
        (found,) = (p for p in self.promotions(self.builds(model)[0]["spec"]["id"]) if p["spec"]["environment"] == place)
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
        for place in ENVIRONMENTS:
            for key, one in state(self.api, place).items():
                if not key.startswith("Job/") or any(key.endswith(b[0]["spec"]["id"][:8]) for b in builds.values()):
                    objects[f"{place}/{key}"] = one
        for one in objects.values():
            if isinstance(one, dict):  # hashes of what names the build
                one["metadata"]["annotations"].pop(inventory.CONTENT_HASH, None)
                one.get("spec", {}).get("template", {}).get("metadata", {}).get("annotations", {}).pop(CONFIG_HASH, None)
        folder = self.plane.home / "data" / "objects" / "analytics" / "promotions"
        newest = [found[0]["spec"]["id"] for found in builds.values()]
        rows = sorted(path.name for path in folder.rglob("*.json") if json.loads(path.read_text())["build_id"] in newest)
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


@pytest.fixture
def plant(site: Site) -> Iterator[Plant]:
    """The controllers go on; at the end of the test everything has arrived, for the next one to begin with."""
    with Plant(site.api) as plant:
        yield plant
        site.plane.write("specs/a.yaml", specs())
        site.commit()
        settled = site.run()
        assert settled.code == 0, settled.text


@pytest.fixture(scope="module")
def undisturbed(site: Site) -> tuple[Ending, int]:
    """How a commit ends that nobody disturbs, and how many writes that takes."""
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


def killed_runs(site: Site, every: int, *, first_do_it: bool, once: bool = False) -> int:
    """Runs, each begun when the one before was killed, until one comes to its end: how many were killed."""
    processes: list[subprocess.Popen[str]] = []
    victim = kill(lambda: processes[-1].pid, first_do_it=first_do_it)
    with Every(site.plane.kubeconfig, victim, every, once=once) as proxy:
        while True:
            processes.append(site.start(proxy))
            out, err = processes[-1].communicate(timeout=100)
            if processes[-1].returncode != -9:
                break
            time.sleep(0.05)  # what it had sent with other connections arrives
    assert processes[-1].returncode == 0, out + err
    return len(processes) - 1


@pytest.mark.parametrize("k", range(1, WRITES + 1) if FULL else (16,))
def test_a_run_that_is_killed_after_write(site: Site, undisturbed: tuple[Ending, int], k: int):
    ending, writes = undisturbed
    assert abs(writes - WRITES) <= 4, "the moments are chosen among this many"
    site.commit()
    with Plant(site.api) as plant:
        killed = killed_runs(site, k, first_do_it=True, once=True)
    assert killed == 1 or k > writes - 4
    came_once(site, plant)
    assert differences(site.ending()._asdict(), ending._asdict()) == []


@pytest.mark.parametrize(
    ("every", "first_do_it"),
    [(1, True), (2, True), (3, True), (5, True), (2, False), (3, False), (7, False)] if FULL else [(7, True)],
)
def test_runs_that_are_killed_again_and_again_after_so_many_writes(
    site: Site, undisturbed: tuple[Ending, int], every: int, first_do_it: bool
):
    site.commit()
    with Plant(site.api) as plant:
        assert killed_runs(site, every, first_do_it=first_do_it) > 40 // every
    came_once(site, plant)
    assert differences(site.ending()._asdict(), undisturbed[0]._asdict()) == []


@pytest.mark.parametrize("every", (2, 3, 4, 5, 7, 11) if FULL else (3,))
def test_the_answers_to_many_writes_are_lost(site: Site, undisturbed: tuple[Ending, int], every: int):
    site.commit()
    with Plant(site.api) as plant, Every(site.plane.kubeconfig, lose(), every) as proxy:
        run = site.run(proxy=proxy)
    assert run.code == 0, run.text
    assert proxy.count_of_writes > WRITES
    came_once(site, plant)
    assert differences(site.ending()._asdict(), undisturbed[0]._asdict()) == []


# -- two at once ----------------------------------------------------------------------------------------------------


def slow(seconds: float) -> Fault:
    """Every answer comes late."""

    def act(handler: Any, request: bytes) -> None:
        time.sleep(seconds)
        handler._pass_on(request)

    return act


def test_two_reconcilers_at_once_come_to_the_end_of_one(site: Site, undisturbed: tuple[Ending, int]):
    site.commit()
    with (
        Plant(site.api) as plant,
        Every(site.plane.kubeconfig, slow(0.1), 3) as one,
        Every(site.plane.kubeconfig, slow(0.2), 5) as other,
    ):
        runs = at_once([lambda: site.run(proxy=one), lambda: site.run(proxy=other)])
    assert [run.code for run in runs] == [0, 0], "\n".join(run.text for run in runs)
    came_once(site, plant)
    assert differences(site.ending()._asdict(), undisturbed[0]._asdict()) == []
