"""From a commit to the requests of production: models are really built, judged, promoted and rolled back.

All tests share one data plane, and each has a model of its own: the records and the traffic of one are no other's.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.contract.prometheus_server import PrometheusProcess, needs_prometheus, now
from tests.e2e.data_plane import MODEL, REPOSITORY, Promoted, Running, Traffic, eventually, place_of
from tests.e2e.harness import document

#: Better than all builds before it, by what was recorded of them.
BEST = "select max(value) from build_metrics where model = :model and name = 'auc' and build_id <> :build_id"
RESOURCES = {"cpu": 0.5, "memory": "512Mi"}
SIZE = {"number_of_pods": 1, "number_of_http_server_workers": 1, "cpu_fraction": 0.25, "memory": "512Mi"}
#: Of a canary: no more than 5 % of its requests may fail.
ERRORS = {
    "name": "errors",
    "metric": "error_rate",
    "direction": "BELOW_OR_EQUALS",
    "threshold": "5",
    "min_samples": 20,
    "window": "30s",
}


def environments(prometheus_url: str) -> dict[str, Any]:
    """Production comes after staging, and a person agrees to it. Live comes after the shop, by itself."""
    return {
        "environments": [
            {"name": "staging"},
            {"name": "production", "promote_after": "staging", "approval": "manual"},
            {"name": "shop", "prometheus_url": prometheus_url},
            {"name": "live", "promote_after": "shop"},
        ]
    }


def automation(model: str, *environments: str) -> dict[str, Any]:
    """Builds what is on main: at once the first time, and then when a person asks."""
    source = {"git_uri": f"{REPOSITORY}#{model}", "git_branch": "main", "resources": RESOURCES}
    spec = {
        "name": f"{model}-daily",
        "model": model,
        "trigger": "manual",
        "execute_immediately": True,
        "build_spec": source,
        "deployment_condition": {"metric_name": "auc", "threshold": BEST, "on_no_baseline": "pass"},
        "deployment_spec": {"variation_name": "default", "environments": list(environments)},
    }
    return {"automations": [spec]}


def variation(model: str, *environments: str, steps: dict[int, str], **more: Any) -> dict[str, Any]:
    """A canary. `steps`: percent of the traffic, and for how long."""
    canary: dict[str, Any] = {"steps": [{"weight": weight, "hold": hold} for weight, hold in steps.items()]}
    if "checks" in more:
        canary["checks"] = more.pop("checks")
    source = {} if "build" in more else {"automation": f"{model}-daily"}
    spec = {"model": model, "name": "default", "environments": list(environments), "deployment": SIZE} | source
    return {"variations": [spec | {"rollout": {"canary": canary}} | more]}


def pinned(number: int, commits: Sequence[str]) -> list[dict[str, Any]]:
    """A variation that names its build, credit-1 or the next."""
    source = {"model": "credit", "git_uri": f"{REPOSITORY}#credit", "resources": RESOURCES}
    builds = [
        {"name": f"credit-{number}", "git_commit": commit} | source for number, commit in enumerate(commits, start=1)
    ]
    return [{"builds": builds}, variation("credit", "shop", "live", steps={50: "1s"}, build=f"credit-{number}")]


#: The models that are there from the start. Their first builds cost less when they are made at once.
SPECS: dict[str, Any] = {
    "churn": [
        automation("churn", "staging", "production"),
        variation(
            "churn",
            "staging",
            "production",
            steps={20: "2s", 60: "1s"},
            environment_overrides={"staging": {"rollout": "replace"}},
        ),
    ],
    "fraud": [automation("fraud", "shop"), variation("fraud", "shop", steps={50: "10s"}, checks=[ERRORS])],
    "retail": [automation("retail", "shop"), variation("retail", "shop", steps={50: "1s"})],
    "pricing": [automation("pricing", "shop"), variation("pricing", "shop", steps={20: "1h", 60: "1h"})],
    "stock": [automation("stock", "shop"), variation("stock", "shop", steps={40: "5s"})],
}


@pytest.fixture(scope="module")
def prometheus(plane_without_specs: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusProcess]:
    """Looks at the pods of the data plane."""
    targets = plane_without_specs.home / "data" / "prometheus" / "targets.json"
    often = [{"target_label": f"__scrape_{what}__", "replacement": "500ms"} for what in ("interval", "timeout")]
    scrape = {"job_name": "pods", "file_sd_configs": [{"files": [str(targets)]}], "relabel_configs": often}
    configuration = {"global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"}, "scrape_configs": [scrape]}
    process = PrometheusProcess(tmp_path_factory.mktemp("prometheus"), json.dumps(configuration))
    yield process
    process.stop()


@pytest.fixture(scope="module")
def plane_without_specs(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    plane = place_of(installed, tmp_path_factory.mktemp("plane")).start_all()
    yield plane
    plane.stop_all()


@pytest.fixture(scope="module")
def credit(plane_without_specs: Running) -> list[str]:
    """The commits of the model whose builds are pinned."""
    return [plane_without_specs.repository.model("credit", answer) for answer in ("one", "two")]


@pytest.fixture(scope="module")
def plane(plane_without_specs: Running, prometheus: PrometheusProcess, credit: list[str]) -> Running:
    """Each model's first build is promoted as far as it goes by itself."""
    plane = plane_without_specs
    plane.write("specs/environments.yaml", document(environments(prometheus.url)))
    for model, specs in SPECS.items():
        plane.repository.model(model, "first", auc="0.8")
        plane.write(f"specs/{model}.yaml", document(*specs))
    plane.write("specs/credit.yaml", document(*pinned(1, credit)))
    plane.run(wait=90)
    return plane


def newest(plane: Running, model: str, environment: str) -> Promoted:
    return plane.promotions(model, environment)[-1]


def served(plane: Running, environment: str, model: str) -> str:
    """What the model answers there now."""
    with plane.client(environment) as client:
        answer = client.predict(model)
    assert answer.status == 200, answer
    return str(answer.body[0]["answer"])


def train(plane: Running, model: str, answer: str, auc: str) -> None:
    """A new commit, and a person who asks for a build of it."""
    plane.repository.model(model, answer, auc=auc)
    plane.trigger(f"{model}-daily")


# -- better and worse -----------------------------------------------------------------------------------------------


def test_a_better_build_takes_over_and_a_worse_one_never_gets_there(plane: Running):
    assert served(plane, "staging", "churn") == "first"
    first = newest(plane, "churn", "production")
    assert first.phase == "AwaitingApproval"
    assert first.body["status"]["gate"]["verdicts"][-1]["outcome"] == "Passed"
    plane.told("approve", first.name, "-m", "it looks good")
    plane.run()
    assert served(plane, "production", "churn") == "first"
    assert "it looks good" in plane.told("explain", first.name)

    train(plane, "churn", "second", "0.90")
    plane.run()
    assert (served(plane, "staging", "churn"), served(plane, "production", "churn")) == ("second", "first")
    better = newest(plane, "churn", "production")
    plane.told("approve", better.name)
    with Traffic(plane.gateway("production"), "churn") as traffic, plane.running():
        eventually(lambda: 0.05 < traffic.share(better.build) < 0.4)
        eventually(lambda: 0.45 < traffic.share(better.build) < 0.75)
        eventually(lambda: traffic.share(better.build) == 1)
    assert traffic.failures == []
    assert newest(plane, "churn", "production").phase == "Succeeded"
    assert plane.deployments("production", "churn") == {better.build}

    train(plane, "churn", "third", "0.85")
    plane.run()
    worse = newest(plane, "churn", "staging")
    assert worse.phase == "Rejected"
    assert "auc 0.85 is not above 0.9" in worse.message
    explained = " ".join(plane.told("explain", worse.name).split())
    assert re.search(r"(?i)select max\(value\).* model = :model", explained), explained
    for evidence in (":model = churn", worse.body["spec"]["build"], "answered (0.9)", worse.message):
        assert evidence in explained, explained
    for environment in ("staging", "production"):
        assert plane.deployments(environment, "churn") == {better.build}
        assert served(plane, environment, "churn") == "second"


# -- what goes wrong in front of people -----------------------------------------------------------------------------

#: Answers the example that every build tries, and nobody else.
FRAGILE = ('return [{"answer"', 'assert rows[0]["age"] == 42\n        return [{"answer"')


@needs_prometheus
def test_a_build_that_fails_requests_is_rolled_back_by_itself(plane: Running):
    good = newest(plane, "fraud", "shop")
    text = MODEL.format(answer="fragile", auc="0.9").replace(*FRAGILE)
    plane.repository.commit({"fraud/main/__init__.py": text, "fraud/tests/test_it.py": "def test_it():\n    pass\n"})
    plane.trigger("fraud-daily")
    with Traffic(plane.gateway("shop"), "fraud") as traffic:
        plane.run()
        back = newest(plane, "fraud", "shop")
        assert back.phase == "RolledBack"
        eventually(lambda: traffic.share(good.build) == 1)
    assert {answer.status for answer in traffic.of(back.build)} == {500}
    assert "its check errors: " in back.message
    assert plane.deployments("shop", "fraud") == {good.build}
    assert f'pod=~"fraud-default-{back.build}' in plane.told("explain", back.name)

    plane.run()
    assert [one.phase for one in plane.promotions("fraud", "shop")] == ["Succeeded", "RolledBack"], "quarantine"
    plane.told("retry", back.name, "-m", "the feed was broken, not the model")
    with plane.running():
        eventually(lambda: newest(plane, "fraud", "shop").phase in ("RollingOut", "RolledBack"))
        again = newest(plane, "fraud", "shop")
        # The check still sees the requests of the first attempt, and may be faster than a person.
        plane.reconcile("reject", again.name)
    assert (again.build, again.body["spec"]["attempt"]) == (back.build, 2)
    assert plane.deployments("shop", "fraud") == {good.build}


@needs_prometheus
def test_a_rollback_asks_nobody(plane: Running, prometheus: PrometheusProcess):
    before = newest(plane, "retail", "shop")
    train(plane, "retail", "second", "0.9")
    plane.run()
    assert served(plane, "shop", "retail") == "second"
    checked = variation("retail", "shop", steps={50: "1h"}, checks=[ERRORS])
    plane.write("specs/retail.yaml", document(automation("retail", "shop"), checked))
    analytics = plane.home / "data" / "objects" / "analytics"
    with stopped(prometheus), broken(analytics, "retail"):
        gate = plane.reconcile("gate", "retail-daily", "-f", "specs")
        assert gate.code == 3, gate.text
        plane.told("rollback", "retail", "-e", "shop", "-m", "complaints")
        plane.reconcile("-f", "specs", "--mirror", plane.repository.mirror, "--wait", "20")
        back = newest(plane, "retail", "shop")
        assert (back.phase, back.build) == ("Succeeded", before.build)
        assert served(plane, "shop", "retail") == "first"
        assert plane.deployments("shop", "retail") == {before.build}
    plane.run()
    assert newest(plane, "retail", "shop").name == back.name, "what was rolled back does not come again"
    rows = (analytics / "promotions").rglob(f"{back.name}.json")
    assert len(list(rows)) == 1, "the analytics hear of it later"


@contextmanager
def stopped(prometheus: PrometheusProcess) -> Iterator[None]:
    """It takes connections and never answers, which is worse than to be away."""
    address = f"web.listen-address=127.0.0.1:{prometheus.port}"
    found = subprocess.run(["pgrep", "-f", address], capture_output=True, text=True, check=True).stdout
    process = int(found)
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


@contextmanager
def broken(analytics: Path, model: str) -> Iterator[None]:
    """A row that is none, and a folder that nothing can be written into."""
    row = analytics / "builds" / f"model={model}" / f"{'0' * 64}.json"
    folder, aside = analytics / "promotions", analytics / "aside"
    row.write_bytes(b"\x00garbage")
    folder.rename(aside)
    folder.write_bytes(b"\x00garbage")
    try:
        yield
    finally:
        row.unlink()
        folder.unlink()
        aside.rename(folder)


# -- people, and processes that die ---------------------------------------------------------------------------------


def test_a_rollout_is_paused_resumed_and_aborted(plane: Running):
    before = newest(plane, "pricing", "shop")
    train(plane, "pricing", "second", "0.9")
    with Traffic(plane.gateway("shop"), "pricing") as traffic:
        with plane.running():  # which ends when only a person can go on
            eventually(lambda: newest(plane, "pricing", "shop").rollout.get("weight") == 20)
            after = newest(plane, "pricing", "shop")
            plane.told("pause", after.name, "-m", "lunch")
        paused = newest(plane, "pricing", "shop").rollout
        assert (paused["weight"], "pausedAt" in paused) == (20, True)
        eventually(lambda: 0.05 < traffic.share(after.build) < 0.4)
        # The step was to last until it was paused, however long that takes.
        soon = variation("pricing", "shop", steps={20: "1s", 60: "1h"})
        plane.write("specs/pricing.yaml", document(automation("pricing", "shop"), soon))
        plane.told("resume", after.name)
        with plane.running():
            eventually(lambda: traffic.share(after.build) > 0.45)
            asked = time.monotonic()
            plane.told("reject", after.name, "-m", "not what the shop wants")
            eventually(lambda: traffic.share(after.build) == 0)
            returned = traffic.of(after.build)[-1].at - asked
    assert returned < 30, f"{returned:.1f} s"
    assert traffic.failures == []
    aborted = newest(plane, "pricing", "shop")
    assert aborted.phase == "RolledBack"
    assert "not what the shop wants" in aborted.message
    assert plane.deployments("shop", "pricing") == {before.build}


def test_a_reconciler_that_comes_back_goes_on_where_it_was(plane: Running):
    train(plane, "stock", "second", "0.9")
    once = plane.reconcile("-f", "specs", "--mirror", plane.repository.mirror)
    assert once.code == 0, once.text
    job = plane.records("builds", "stock")[-1]["metadata"]["name"]
    eventually(lambda: "Complete" in plane.kubectl("get", "job", "-n", "shop", job).stdout)
    seen = plane.records("builds", "stock")[-1].get("status", {})
    assert seen.get("phase") != "Succeeded", "nobody has seen its end yet"

    with plane.running() as first:
        eventually(lambda: len(plane.promotions("stock", "shop")) > 1)
        eventually(lambda: newest(plane, "stock", "shop").rollout.get("routedAt"))
        before = newest(plane, "stock", "shop")
        os.kill(first.pid, signal.SIGKILL)
    assert before.rollout["weight"] == 40
    held_since = set()

    def goes_on() -> bool:
        rollout = newest(plane, "stock", "shop").rollout
        if rollout["weight"] == 40:
            held_since.add(rollout["routedAt"])
        return bool(rollout["weight"] != 40)

    with plane.running():
        eventually(goes_on)
        held = now() - before.moment("routedAt")
    after = newest(plane, "stock", "shop")
    assert after.phase == "Succeeded"
    assert after.rollout["beganAt"] == before.rollout["beganAt"]
    assert held_since <= {before.rollout["routedAt"]}, "the hold went on, and did not begin anew"
    assert held.total_seconds() >= 5
    assert served(plane, "shop", "stock") == "second"


def test_two_reconcilers_at_once_do_everything_once(plane: Running):
    plane.write("specs/leads.yaml", document(automation("leads", "shop"), variation("leads", "shop", steps={50: "1s"})))
    plane.repository.model("leads", "first", auc="0.8")
    with plane.running(), plane.running():
        pass
    train(plane, "leads", "second", "0.9")
    with Traffic(plane.gateway("shop"), "leads") as traffic, plane.running(), plane.running():
        pass
    assert traffic.failures == []
    assert [one["status"]["phase"] for one in plane.records("builds", "leads")] == ["Succeeded"] * 2
    promotions = plane.promotions("leads", "shop")
    assert [(one.phase, one.name[-1]) for one in promotions] == [("Succeeded", "1")] * 2
    assert served(plane, "shop", "leads") == "second"
    assert plane.deployments("shop", "leads") == {promotions[-1].build}


# -- a commit says which build --------------------------------------------------------------------------------------


def test_a_pinned_build_goes_from_environment_to_environment(plane: Running, credit: list[str]):
    def pin(number: int) -> None:
        plane.write("specs/credit.yaml", document(*pinned(number, credit)))
        plane.run()

    def answers() -> tuple[str, str]:
        return served(plane, "shop", "credit"), served(plane, "live", "credit")

    assert answers() == ("one", "one")
    pin(2)
    assert answers() == ("two", "two")
    first, second = plane.promotions("credit", "live")
    upstream = newest(plane, "credit", "shop")
    assert upstream.build == second.build != first.build
    assert upstream.moment("finishedAt") <= second.moment("beganAt"), "verified in the shop first"
    pin(1)
    assert answers() == ("one", "one")
    assert [one.build for one in plane.promotions("credit", "live")] == [first.build, second.build, first.build]
    assert plane.deployments("live", "credit") == {first.build}
