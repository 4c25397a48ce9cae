"""When the conductor steps, and what it does with what comes from others: against a real API server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reconciler import automate
from reconciler.automate.desk import Desk
from reconciler.daemon.conductor import Command, Commits
from reconciler.lease import Elector
from reconciler.specs.index import Index
from tests.contract.client import MERGE, Api
from tests.contract.test_convergence import COMMITS, DEV, Led, Model, Repository, World, clock, cluster, text
from tests.contract.test_daemon_parts import turned
from tests.e2e.harness import members

__all__ = ["cluster"]  # a fixture

RECORDS = "/apis/trueup.dev/v1/namespaces/trueup-system"
STEPS = [{"weight": 50, "hold": "1m"}]


@dataclass
class Promoting(Repository):
    """One model, whose builds are promoted; and what else there is, by the name of its file."""

    more: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        del self.models["fraud"]
        self.models["churn"].built_in = DEV

    def files(self) -> dict[str, bytes]:
        files = super().files() | {f"{name}.yaml": text(spec) for name, spec in self.more.items()}
        if "churn.yaml" in files:
            spec = json.loads(files["churn.yaml"])["spec"]
            served = [one | {"rollout": {"canary": {"steps": STEPS}}} for one in spec["variations"]]
            files["churn.yaml"] = text(spec | {"variations": served})
        return files


@pytest.fixture
def world(cluster: tuple[Path, Api]) -> Iterator[World]:
    folder, api = cluster
    world = World(api, folder, Led)
    world.repository = Promoting()
    with world:
        yield world
    forget_records(api)


def forget_records(api: Api) -> None:
    for plural in ("builds", "promotions"):
        api("DELETE", f"{RECORDS}/{plural}")


class Votes(Elector):
    """Who leads, as the test says."""

    def __init__(self) -> None:
        self.leads_since: float | None = 1.0

    @property
    def since(self) -> float | None:
        return self.leads_since


def test_what_was_due_in_another_term_is_not_due_for_ever(world: World) -> None:
    conductor, votes = world.daemon.conductor, Votes()
    conductor.command = Command(votes, 0.0)
    object.__setattr__(world.daemon.fleet.ties, "leadership", conductor.command)
    world.repository.commit()
    turned(world, lambda: "churn" in conductor._due)
    votes.leads_since = None
    del world.repository.models["churn"]
    forget_records(world.api)
    world.repository.commit()
    for _ in range(5):
        world.turn()
    votes.leads_since = 2.0
    turned(world, lambda: conductor.command.leads)
    time.sleep(2.5)  # by then, all that was due in the first term is
    steps = set()
    for _ in range(10):
        conductor.turn()
        steps.add(conductor._stepped_at)
        time.sleep(0.15)
    assert len(steps) <= 3


def test_of_commits_that_come_before_anybody_looks_none_is_lost(world: World) -> None:
    conductor = world.daemon.conductor
    branch = ("https://git.example.com/models.git", "main")
    conductor.take_commits(Commits({branch: COMMITS[0]}, {}))
    conductor.take_commits(Commits({}, {branch: "Git is away"}))
    world.repository.commit()
    world.turn()
    assert conductor.progress.recall.facts.commits == {branch: COMMITS[0]}


def test_a_run_is_due_when_the_clock_says_so_also_where_the_clock_was_set(world: World) -> None:
    nightly = {
        "name": "churn-nightly",
        "model": "churn",
        "trigger": {"scheduled": {"cron": "0 3 * * *"}},
        "build_spec": {"git_uri": "file:///nowhere#churn"},
        "deployment_spec": {"variation_name": "default", "environments": [DEV], "memory": "1Gi"},
    }
    world.repository = Promoting(more={"nightly": {"automations": [nightly]}})
    world.repository.models.clear()
    world.restart()
    conductor = world.daemon.conductor
    world.repository.commit()
    turned(world, lambda: conductor.progress.until is not None and time.monotonic() - conductor._stepped_at > 2.5)
    moment = clock()
    assert conductor.progress.until == moment + timedelta(hours=3)
    conductor.clock = lambda: moment
    moment += timedelta(hours=4)
    turned(world, lambda: "churn-nightly" in conductor.trouble, seconds=10.0)


def promotions(world: World) -> list[dict[str, Any]]:
    """Their statuses."""
    answer = world.api("GET", f"{RECORDS}/promotions")
    return [one.get("status", {}) for one in answer.body["items"]] if answer.status == 200 else []


def is_in_its_hold(status: dict[str, Any]) -> bool:
    return status.get("phase") == "RollingOut" and bool(status["rollout"].get("routedAt"))


def test_a_rollout_in_its_hold_is_looked_at_when_something_happens_to_it_and_hardly_before(world: World) -> None:
    conductor, model = world.daemon.conductor, world.repository.models["churn"]
    model.environments = [DEV]
    world.repository.commit()
    turned(world, lambda: [one.get("phase") for one in promotions(world)] == ["Succeeded"])
    (first,) = world.plant.weights[f"{DEV}/churn"][-1]
    model.commit = COMMITS[1]
    world.repository.commit()
    turned(world, lambda: any(is_in_its_hold(one) for one in promotions(world)))
    turned(world, lambda: conductor._due["churn"] - time.monotonic() > 10, seconds=5)
    assert conductor.progress.busy
    (second,) = world.plant.weights[f"{DEV}/churn"][-1].keys() - {first}
    why = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "no room"}
    path = f"/apis/apps/v1/namespaces/{DEV}/deployments/{second}/status"
    failed = {"status": {"conditions": [why], "availableReplicas": 0}}
    assert world.api("PATCH", path, failed, content_type=MERGE).status == 200
    turned(world, lambda: "RolledBack" in [one["phase"] for one in promotions(world)], seconds=5)


def test_a_fault_of_the_program_about_one_model_leaves_it_as_it_is_and_stops_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.repository.models["fraud"] = Model([DEV], built_in=DEV)
    world.repository.commit()
    world.settle()
    had = members(world.api, DEV)
    advance = automate.promotions.advance

    def fails_about_churn(desk: Desk) -> None:
        if desk.model == "churn":
            raise IndexError("no such thing")
        advance(desk)

    monkeypatch.setattr(automate.promotions, "advance", fails_about_churn)
    monkeypatch.setattr("reconciler.daemon.conductor._RETRY", 0.1)
    for model in world.repository.models.values():
        model.commit = COMMITS[1]
    world.repository.commit()
    conductor = world.daemon.conductor
    turned(world, lambda: len({name for name in members(world.api, DEV) if name.startswith("Deployment/fraud")}) == 2)
    assert "churn: it ended with an error of the program: IndexError: no such thing" in conductor.trouble
    assert {name for name in had if "churn" in name} <= members(world.api, DEV).keys()
    assert len([record for record in caplog.records if record.exc_info]) == 1, "it is tried again, and told once"
    monkeypatch.undo()
    turned(world, lambda: len({name for name in members(world.api, DEV) if name.startswith("Deployment/churn")}) == 2)
    assert conductor.trouble == ""


class Again(Repository):
    """Hands the last commit on again, whole, to whoever could not use it."""

    def forget(self) -> None:
        self.begin_anew()


def test_a_turn_that_fails_begins_again_and_what_was_handed_on_stays_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.repository = Again()
    world.restart()
    conductor = world.daemon.conductor
    world.repository.commit()
    world.settle()
    had = members(world.api, DEV)

    def fail(*_: object) -> None:
        raise RecursionError("too deep")

    world.repository.models["fraud"].memory = "2Gi"
    world.repository.commit()
    with monkeypatch.context() as patched:
        for name in ("update", "replace"):
            patched.setattr(Index, name, fail)
        for _ in range(2):
            with pytest.raises(RecursionError):
                conductor.turn()
            conductor.begin_again("it fails")
        service = next(name for name in had if name.startswith("Service/churn"))
        assert world.api("DELETE", f"/api/v1/namespaces/{DEV}/services/{service.partition('/')[2]}").status == 200
        keeper = next(keeper for keeper in world.daemon.keepers if keeper.name == DEV)
        until = time.monotonic() + 10
        while members(world.api, DEV).keys() != had.keys():
            assert time.monotonic() < until, "drift is not mended"
            keeper.turn(time.monotonic())
            time.sleep(0.02)
    world.settle()
    assert conductor.revision is not None
    assert conductor.revision.commit == world.repository._revision(2).commit
    assert conductor.trouble == ""
