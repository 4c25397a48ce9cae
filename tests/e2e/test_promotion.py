"""From a commit to the requests of production: models are really built, judged, promoted and rolled back.

All tests share one data plane, and each has a model of its own: the records and the traffic of one are no other's.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.contract.prometheus_server import PrometheusProcess, needs_prometheus
from tests.e2e.data_plane import MODEL, REPOSITORY, Running, Traffic, eventually, place_of
from tests.e2e.harness import document

#: Better than all builds before it, by what was recorded of them.
BEST = "select max(value) from build_metrics where model = :model and name = 'auc' and build_id <> :build_id"
SIZE = {"number_of_pods": 1, "number_of_http_server_workers": 1, "cpu_fraction": 0.25, "memory": "512Mi"}


def environments(prometheus_url: str = "") -> dict[str, Any]:
    """Production comes after staging, where a person agrees to it. The shop goes ahead alone, and live follows it."""
    asked = {"prometheus_url": prometheus_url} if prometheus_url else {}
    return {
        "environments": [
            {"name": "staging"},
            {"name": "production", "promote_after": "staging", "approval": "manual"},
            {"name": "shop"} | asked,
            {"name": "live", "promote_after": "shop"},
        ]
    }


def automation(model: str, *environments: str, **more: Any) -> dict[str, Any]:
    """Builds what is on main: at once the first time, and then when a person asks."""
    spec = {
        "name": f"{model}-daily",
        "model": model,
        "trigger": "manual",
        "execute_immediately": True,
        "build_spec": {
            "git_uri": f"{REPOSITORY}#{model}",
            "git_branch": "main",
            "resources": {"cpu": 0.5, "memory": "512Mi"},
        },
        "deployment_condition": {"metric_name": "auc", "threshold": BEST, "on_no_baseline": "pass"},
        "deployment_spec": {"variation_name": "default", "environments": list(environments)},
    }
    return {"automations": [spec | more]}


def variation(model: str, *environments: str, steps: dict[int, str], **more: Any) -> dict[str, Any]:
    """A canary. `steps`: percent of the traffic, and for how long."""
    canary = {"steps": [{"weight": weight, "hold": hold} for weight, hold in steps.items()]}
    source = {} if "build" in more else {"automation": f"{model}-daily"}
    spec = {"model": model, "name": "default", "environments": list(environments), "deployment": SIZE} | source
    checks = {"checks": more.pop("checks")} if "checks" in more else {}
    return {"variations": [spec | {"rollout": {"canary": canary | checks}} | more]}


@pytest.fixture(scope="module")
def plane(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    plane = place_of(installed, tmp_path_factory.mktemp("plane")).start_all()
    plane.write("specs/environments.yaml", document(environments()))
    yield plane
    plane.stop_all()


@pytest.fixture
def specify(plane: Running) -> Callable[..., Path]:
    """Writes the specs of one model. They stay for the tests that follow, as nothing is deleted without approval."""

    def write(model: str, *parts: dict[str, Any]) -> Path:
        return plane.write(f"specs/{model}.yaml", document(*parts))

    return write


@pytest.fixture
def prometheus(plane: Running, tmp_path: Path) -> Iterator[PrometheusProcess]:
    """Looks at the pods of the data plane, and answers the checks in the shop."""
    often = [{"target_label": f"__scrape_{what}__", "replacement": "500ms"} for what in ("interval", "timeout")]
    files = [{"files": [str(plane.home / "data" / "prometheus" / "targets.json")]}]
    scrape = {"job_name": "pods", "file_sd_configs": files, "relabel_configs": often}
    configuration = {"global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"}, "scrape_configs": [scrape]}
    process = PrometheusProcess(tmp_path / "prometheus", json.dumps(configuration))
    plane.write("specs/environments.yaml", document(environments(process.url)))
    yield process
    process.stop()


def served(plane: Running, environment: str, model: str) -> str:
    """What the model answers there now."""
    with plane.client(environment) as client:
        answer = client.predict(model)
    assert answer.status == 200, answer
    return str(answer.body[0]["answer"])


def build_of(promotion: dict[str, Any]) -> str:
    return str(promotion["spec"]["build"])


def phase_of(promotion: dict[str, Any]) -> str:
    return str(promotion["status"]["phase"])


def test_a_better_build_takes_over_and_a_worse_one_never_gets_there(plane: Running, specify: Callable[..., Path]):
    plane.repository.model("churn", "first", auc="0.80")
    specify(
        "churn",
        automation("churn", "staging", "production"),
        variation(
            "churn",
            "staging",
            "production",
            steps={20: "2s", 60: "2s"},
            environment_overrides={"staging": {"rollout": "replace"}},
        ),
    )
    plane.run()
    assert served(plane, "staging", "churn") == "first"
    waiting = plane.promotion("churn", "production")
    assert phase_of(waiting) == "AwaitingApproval"
    assert waiting["status"]["gate"]["verdicts"][-1]["outcome"] == "Passed"
    plane.told("approve", waiting["name"], "-m", "it looks good")
    plane.run()
    assert served(plane, "production", "churn") == "first"
    assert "it looks good" in plane.told("explain", waiting["name"])

    plane.repository.model("churn", "second", auc="0.90")
    plane.trigger("churn-daily")
    plane.run()
    assert served(plane, "staging", "churn") == "second"
    assert served(plane, "production", "churn") == "first"
    better = plane.promotion("churn", "production")
    plane.told("approve", better["name"])
    with Traffic(plane.gateway("production"), "churn") as traffic, plane.running():
        eventually(lambda: 0.05 < share(traffic, better) < 0.4)
        eventually(lambda: 0.45 < share(traffic, better) < 0.75)
        eventually(lambda: share(traffic, better) == 1)
    assert traffic.failures == []
    assert phase_of(plane.promotion("churn", "production")) == "Succeeded"
    assert plane.deployments("production", "churn") == {build_of(better)[:8]}

    plane.repository.model("churn", "third", auc="0.85")
    plane.trigger("churn-daily")
    plane.run()
    worse = plane.promotion("churn", "staging")
    assert phase_of(worse) == "Rejected"
    assert "0.85" in worse["status"]["message"]
    assert "0.9" in worse["status"]["message"]
    explained = plane.told("explain", worse["name"])
    assert re.search(r"SELECT MAX\(value\) FROM .* WHERE model = \$model AND name = 'auc'", explained), explained
    for evidence in (":model = churn", build_of(worse), "answered (0.9)", "auc 0.85 is not above 0.9"):
        assert evidence in " ".join(explained.split()), explained
    for where in ("staging", "production"):
        assert plane.deployments(where, "churn") == {build_of(better)[:8]}
        assert served(plane, where, "churn") == "second"


def share(traffic: Traffic, promotion: dict[str, Any]) -> float:
    """The new build's part of the last answers."""
    last = traffic.builds(100)
    return last[build_of(promotion)[:8]] / 100


# -- what goes wrong in front of people -----------------------------------------------------------------------------

#: Answers the example that every build tries, and nobody else.
FRAGILE = ('return [{"answer"', 'assert rows[0]["age"] == 42\n        return [{"answer"')
ERRORS = {"name": "errors", "metric": "error_rate", "direction": "BELOW_OR_EQUALS", "threshold": "5"}


@needs_prometheus
def test_a_build_that_fails_requests_is_rolled_back_by_itself(
    plane: Running, specify: Callable[..., Path], prometheus: PrometheusProcess
):
    errors = ERRORS | {"min_samples": 20, "window": "30s"}
    specify("fraud", automation("fraud", "shop"), variation("fraud", "shop", steps={50: "10s"}, checks=[errors]))
    good = newest(plane, "fraud", "shop", "good", auc="0.8")

    text = MODEL.format(answer="fragile", auc="0.9").replace(*FRAGILE)
    plane.repository.commit({"fraud/main/__init__.py": text, "fraud/tests/test_it.py": "def test_it():\n    pass\n"})
    plane.trigger("fraud-daily")
    with Traffic(plane.gateway("shop"), "fraud") as traffic:
        plane.run()
        back = plane.promotion("fraud", "shop")
        assert phase_of(back) == "RolledBack"
        assert {answer.status for answer in traffic.of(build_of(back))} == {500}
        eventually(lambda: traffic.builds(100).keys() == {build_of(good)[:8]})
    assert "its check errors: " in back["status"]["message"]
    assert plane.deployments("shop", "fraud") == {build_of(good)[:8]}
    assert f'pod=~"fraud-default-{build_of(back)[:8]}' in plane.told("explain", back["name"])

    plane.run()
    assert [phase_of(p) for p in plane.promotions("fraud", "shop")] == ["Succeeded", "RolledBack"], "quarantine"
    plane.told("retry", back["name"], "-m", "the feed was broken, not the model")
    with Traffic(plane.gateway("shop"), "fraud"), plane.running():
        again = eventually(lambda: next(iter(plane.promotions("fraud", "shop")[2:]), None))
        eventually(lambda: phase_of(plane.promotion("fraud", "shop")) == "RollingOut")
        plane.told("reject", again["name"])
    assert build_of(again) == build_of(back)
    assert again["spec"]["attempt"] == 2


@needs_prometheus
def test_a_rollback_asks_nobody(plane: Running, specify: Callable[..., Path], prometheus: PrometheusProcess):
    specify("retail", automation("retail", "shop"), variation("retail", "shop", steps={50: "1s"}))
    before = newest(plane, "retail", "shop", "before", auc="0.8")
    current = newest(plane, "retail", "shop", "current", auc="0.9")
    specify("retail", automation("retail", "shop"), variation("retail", "shop", steps={50: "1s"}, checks=[ERRORS]))
    prometheus.stop()
    analytics = plane.home / "data" / "objects" / "analytics"
    with broken(analytics, "retail"):
        gate = plane.reconcile("gate", "retail-daily", "-f", "specs")
        assert gate.code == 3, gate.text
        plane.told("rollback", "retail", "-e", "shop", "-m", "complaints")
        plane.reconcile("-f", "specs", "--mirror", plane.repository.mirror, "--wait", "20")
        back = plane.promotion("retail", "shop")
        assert (phase_of(back), build_of(back)) == ("Succeeded", build_of(before))
        assert served(plane, "shop", "retail") == "before"
        assert plane.deployments("shop", "retail") == {build_of(before)[:8]}
    plane.run()
    assert plane.promotion("retail", "shop")["name"] == back["name"], "what was rolled back does not come again"
    rows = (analytics / "promotions").rglob(f"{back['name']}.json")
    assert len(list(rows)) == 1, "the analytics hear of it later"
    assert build_of(current) != build_of(before)


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


def newest(plane: Running, model: str, environment: str, answer: str, *, auc: str) -> dict[str, Any]:
    """Commits a model, and has it built and promoted there. Its promotion."""
    plane.repository.model(model, answer, auc=auc)
    if known(plane, model):
        plane.trigger(f"{model}-daily")
    plane.run()
    promotion = plane.promotion(model, environment)
    assert phase_of(promotion) == "Succeeded"
    assert served(plane, environment, model) == answer
    return promotion


def known(plane: Running, model: str) -> bool:
    """Whether there are any records of the model."""
    return plane.reconcile("history", model).code == 0


# -- people, and processes that die ---------------------------------------------------------------------------------


def test_a_rollout_is_paused_resumed_and_aborted(plane: Running, specify: Callable[..., Path]):
    specify("pricing", automation("pricing", "shop"), variation("pricing", "shop", steps={20: "3s", 60: "1h"}))
    before = newest(plane, "pricing", "shop", "before", auc="0.8")
    plane.repository.model("pricing", "after", auc="0.9")
    plane.trigger("pricing-daily")
    with Traffic(plane.gateway("shop"), "pricing") as traffic, plane.running():
        after = eventually(lambda: next(iter(plane.promotions("pricing", "shop")[1:]), None))
        eventually(lambda: traffic.of(build_of(after)))
        plane.told("pause", after["name"], "-m", "lunch")
        time.sleep(4)
        rollout = plane.promotion("pricing", "shop")["status"]["rollout"]
        assert (rollout["weight"], bool(rollout["paused_at"])) == (20, True)
        assert 0.05 < share(traffic, after) < 0.4
        plane.told("resume", after["name"])
        eventually(lambda: share(traffic, after) > 0.45)
        asked = time.monotonic()
        plane.told("reject", after["name"], "-m", "not what the shop wants")
        eventually(lambda: share(traffic, after) == 0)
        returned = traffic.of(build_of(after))[-1].at - asked
    assert returned < 5, f"{returned:.1f} s"
    assert traffic.failures == []
    aborted = plane.promotion("pricing", "shop")
    assert phase_of(aborted) == "RolledBack"
    assert "not what the shop wants" in aborted["status"]["message"]
    assert plane.deployments("shop", "pricing") == {build_of(before)[:8]}


def test_a_reconciler_that_comes_back_goes_on_where_it_was(plane: Running, specify: Callable[..., Path]):
    specify("stock", automation("stock", "shop"), variation("stock", "shop", steps={40: "5s"}))
    newest(plane, "stock", "shop", "before", auc="0.8")
    plane.repository.model("stock", "after", auc="0.9")
    plane.trigger("stock-daily")
    once = plane.reconcile("-f", "specs", "--mirror", plane.repository.mirror)
    assert once.code == 0, once.text
    name = plane.records("stock")["builds"][-1]["name"]
    eventually(lambda: "Complete" in plane.kubectl("get", "job", "-n", "shop", name).stdout)
    assert plane.records("stock")["builds"][-1]["status"]["phase"] != "Succeeded", "nobody has seen its end yet"

    def rollout() -> dict[str, Any]:
        return dict(plane.promotion("stock", "shop")["status"].get("rollout") or {})

    with plane.running() as first:
        eventually(lambda: rollout().get("routed_at") and rollout().get("weight") == 40)
        os.kill(first.pid, signal.SIGKILL)
    before = rollout()
    plane.run()
    after = plane.promotion("stock", "shop")
    assert phase_of(after) == "Succeeded"
    assert after["status"]["rollout"]["began_at"] == before["began_at"]
    held = moment(after["status"]["rollout"]["routed_at"]) - moment(before["routed_at"])
    assert 5 <= held.total_seconds() < 9, "the hold went on, and did not begin anew"
    assert served(plane, "shop", "stock") == "after"


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_two_reconcilers_at_once_do_everything_once(plane: Running, specify: Callable[..., Path]):
    specify("leads", automation("leads", "shop"), variation("leads", "shop", steps={50: "1s"}))
    plane.repository.model("leads", "before", auc="0.8")
    with plane.running(), plane.running():
        pass
    plane.repository.model("leads", "after", auc="0.9")
    plane.trigger("leads-daily")
    with Traffic(plane.gateway("shop"), "leads") as traffic, plane.running(), plane.running():
        pass
    assert traffic.failures == []
    records = plane.records("leads")
    assert [b["status"]["phase"] for b in records["builds"]] == ["Succeeded"] * 2
    assert [(phase_of(p), p["spec"]["attempt"]) for p in records["promotions"]] == [("Succeeded", 1)] * 2
    assert served(plane, "shop", "leads") == "after"
    assert plane.deployments("shop", "leads") == {build_of(records["promotions"][-1])[:8]}


# -- a commit says which build --------------------------------------------------------------------------------------


def test_a_pinned_build_goes_from_environment_to_environment(plane: Running, specify: Callable[..., Path]):
    commits = [plane.repository.model("credit", answer) for answer in ("one", "two")]
    builds = [
        {
            "name": f"credit-{number}",
            "model": "credit",
            "git_uri": f"{REPOSITORY}#credit",
            "git_commit": commit,
            "resources": {"cpu": 0.5, "memory": "512Mi"},
        }
        for number, commit in enumerate(commits, start=1)
    ]

    def pin(number: int) -> None:
        pinned = variation("credit", "shop", "live", steps={50: "1s"}, build=f"credit-{number}")
        specify("credit", {"builds": builds}, pinned)
        plane.run()

    pin(1)
    pin(2)
    first, second = plane.promotions("credit", "live")
    upstream = plane.promotions("credit", "shop")[-1]
    assert build_of(upstream) == build_of(second) != build_of(first)
    assert moment(upstream["status"]["finished_at"]) <= moment(second["status"]["rollout"]["began_at"])
    assert (served(plane, "shop", "credit"), served(plane, "live", "credit")) == ("two", "two")
    pin(1)
    assert (served(plane, "shop", "credit"), served(plane, "live", "credit")) == ("one", "one")
    assert [build_of(p) for p in plane.promotions("credit", "live")] == [build_of(p) for p in (first, second, first)]
    assert plane.deployments("live", "credit") == {build_of(first)[:8]}
