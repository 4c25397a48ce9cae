"""`kill -9` at any moment of a run: the next run ends where an undisturbed one would have, and nothing is lost."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.contract.client import Api
from tests.contract.faults import Fault, FaultProxy, Seen
from tests.e2e.harness import (
    FULL,
    Plane,
    build,
    candidate,
    document,
    environment,
    forget,
    is_write,
    kill,
    members,
    places,
    state,
    variation,
)


class KillAt(FaultProxy):
    """A proxy that kills a process when the k-th request that writes arrives."""

    def __init__(self, upstream: Path, k: int, victim: Callable[[], int], *, first_do_it: bool) -> None:
        super().__init__(upstream)
        self.left = k
        self.fault: Fault = kill(victim, first_do_it=first_do_it)

    def fault_for(self, request: Seen) -> Fault | None:
        super().fault_for(request)
        if is_write(request):
            with self._lock:
                self.left -= 1
                if self.left == 0:
                    return self.fault
        return None


class Undisturbed(NamedTuple):
    """What an undisturbed run ends with, and how many writes it takes."""

    state: dict[str, Any]
    writes: int


def first(name: str) -> str:
    """One model with metrics; a second variation of it sees a share of the requests, and answers nobody."""
    shadow = [{"shadow": True, "weight": 20}]
    return document(
        environment(name, prometheus_url="http://prometheus.example"),
        build("churn-1", "churn"),
        candidate("churn", name),
        variation("churn", "default", name, build="churn-1"),
        variation("churn", "extra", name, build="churn-1", traffic=shadow),
    )


def second(name: str) -> str:
    """The same, changed in every way: the shadow and the metrics are gone, memory is added, a model is new."""
    return document(
        environment(name, quota={"pods": 50}),
        build("churn-1", "churn"),
        candidate("churn", name),
        build("fraud-1", "fraud"),
        candidate("fraud", name),
        variation("churn", "default", name, build="churn-1", memory="2Gi"),
        variation("fraud", "default", name, build="fraud-1"),
    )


class Scenario(NamedTuple):
    """The specs of the run that is killed, those of a run before it, and how many requests of it write something."""

    earlier: Callable[[str], str] | None
    specs: Callable[[str], str]
    writes: int


SCENARIOS = {
    # the inventory, 18 objects
    "first": Scenario(None, first, 19),
    # 3 objects changed, 6 new, 5 deleted, the inventory narrowed
    "second": Scenario(first, second, 15),
}


class Moment(NamedTuple):
    """When the k-th request that writes arrives, before or after it is carried out."""

    scenario: str
    k: int
    first_do_it: bool

    def __str__(self) -> str:
        return f"{'after' if self.first_do_it else 'before'} write {self.k} of the {self.scenario}"


def moments() -> Iterator[Moment]:
    for name, (_, _, count) in SCENARIOS.items():
        for k in range(1, count + 1):
            if FULL:
                yield from (Moment(name, k, done) for done in (True, False))
            elif k in (1, count // 2, count - 2, count):
                yield Moment(name, k, k % 2 == 0)


@pytest.fixture(scope="module")
def api(plane: Plane) -> Iterator[Api]:
    client = plane.api()
    # The namespace of inventories is written by whoever comes first, and left as it is by all others.
    client("POST", "/api/v1/namespaces", {"metadata": {"name": "trueup-system"}})
    yield client
    client.close()


@pytest.fixture(scope="module")
def undisturbed(plane: Plane, api: Api) -> Callable[[str], Undisturbed]:
    """The same run, through the same proxy, with nobody killed; made when it is first asked for."""
    found: dict[str, Undisturbed] = {}

    def run(name: str) -> Undisturbed:
        if name not in found:
            prepare(plane, name)
            with FaultProxy(plane.kubeconfig) as proxy:
                done = plane.reconcile("--kubeconfig", proxy.kubeconfig(plane.folder / "proxy"))
            assert done.code == 0, done.text
            found[name] = Undisturbed(state(api, "prod"), sum(map(is_write, proxy.seen)))
            forget(api, "prod")
        return found[name]

    return run


def prepare(plane: Plane, scenario: str) -> None:
    """Does what came before, and leaves the specs of the run itself in their place."""
    earlier, specs, _ = SCENARIOS[scenario]
    if earlier is not None:
        plane.write("specs/a.yaml", earlier("prod"))
        assert plane.reconcile().code == 0
    plane.write("specs/a.yaml", specs("prod"))


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=60)
    time.sleep(0.05)  # what it had sent with other connections arrives
    return process.returncode, out + err


@pytest.mark.usefixtures("name")
@pytest.mark.parametrize("moment", list(moments()), ids=str)
def test_a_run_that_is_killed_is_completed_by_the_next_one(
    plane: Plane, api: Api, undisturbed: Callable[[str], Undisturbed], moment: Moment
):
    scenario, k, first_do_it = moment
    wanted = undisturbed(scenario)
    assert wanted.writes == SCENARIOS[scenario].writes, "the moments are chosen among this many"
    prepare(plane, scenario)
    had = {key: one["metadata"]["uid"] for key, one in members(api, "prod").items()}

    processes: list[subprocess.Popen[str]] = []
    with KillAt(plane.kubeconfig, k, lambda: processes[0].pid, first_do_it=first_do_it) as proxy:
        processes.append(plane.start("--kubeconfig", proxy.kubeconfig(plane.folder / "proxy")))
        code, said = ended(processes[0])
    assert code == -9, said

    left = members(api, "prod")
    assert {key.partition("/")[0] for key in left} <= places(api, "prod"), "the next run would not find an orphan"
    uids = had | {key: one["metadata"]["uid"] for key, one in left.items()}

    completed = plane.reconcile()
    assert completed.code == 0, completed.text
    assert state(api, "prod") == wanted.state
    now = {key: one["metadata"]["uid"] for key, one in members(api, "prod").items()}
    assert {key: uid for key, uid in now.items() if uids.get(key, uid) != uid} == {}, "nothing is made twice"


def test_a_server_that_is_killed_during_a_run_ends_it_with_3_and_is_started_again(
    new_plane: Callable[[], Plane], undisturbed: Callable[[str], Undisturbed]
):
    wanted = undisturbed("second")
    plane = new_plane().up()
    prepare(plane, "second")

    with KillAt(plane.kubeconfig, 7, plane.server, first_do_it=True) as proxy:
        run = plane.reconcile("--kubeconfig", proxy.kubeconfig(plane.folder / "proxy"))
    assert run.code == 3, run.text
    assert "the cluster of prod was lost" in run.out
    assert "Not everything is as the specs ask for; the next run goes on from here." in run.out
    assert not run.err

    started = plane.reconcile("up", "--only-api")
    assert started.out.startswith("The embedded data plane is up (process ")
    completed = plane.reconcile()
    assert completed.code == 0, completed.text
    api = plane.api()
    assert state(api, "prod") == wanted.state
    api.close()
    assert plane.reconcile("--detailed-exitcode").code == 0
