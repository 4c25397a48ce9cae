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

from reconciler.daemon.conductor import Command, Commits
from reconciler.lease import Elector
from tests.contract.client import Api
from tests.contract.test_convergence import COMMITS, DEV, Led, Repository, World, clock, cluster, text
from tests.contract.test_daemon_parts import turned

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
