"""What builds and promotes itself, against a real API server, real Git and real SQL: pass by pass, at any time of day.

The test says what time it is, and when the cluster does its part (`Plant`).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from reconciler import inventory, ledger
from reconciler.clusters import Clusters
from reconciler.reconcile import Request, reconcile
from reconciler.report import ExitCode, Outcome, Report, exit_code
from tests.contract.client import MERGE, Api, EmbeddedServer
from tests.contract.plant import Plant
from tests.e2e.data_plane import REPOSITORY, Repository
from tests.e2e.harness import collection, document, environment, forget

RECORDS = "/apis/trueup.dev/v1/namespaces/trueup-system"
BEGAN = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
Body = dict[str, Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """One of this module's own: a run looks at everything that a cluster has."""
    server = EmbeddedServer(tmp_path_factory.mktemp("automate") / "data")
    yield server.kubeconfig, "embedded"
    log = server.log()
    assert server.end() == 0
    assert "Traceback" not in log, log


@dataclass
class Land:
    """A cluster, specs, a repository, and a clock that only the test moves."""

    api: Api
    plant: Plant
    folder: Path
    repository: Repository
    now: datetime = BEGAN
    reports: list[Report] = field(default_factory=list)

    def write(self, *parts: Body) -> None:
        (self.folder / "specs.yaml").write_text(document(*parts))

    def run(self, wait: float = 0, *, valid: bool = True) -> Report:
        """One run: of one pass, unless it waits."""
        root, _, target = self.repository.mirror.partition("=")
        request = Request((self.folder / "specs.yaml",), self.folder / "home", mirrors={root: target}, wait_s=wait)
        with closing(Clusters(request.home, str(self.api.kubeconfig))) as clusters:
            report = reconcile(request, clusters, lambda _: None, lambda: self.now)
        assert any(p.severity == "error" for p in report.problems) is not valid, report.problems
        self.reports.append(report)
        return report

    def settle(self, passes: int = 12, *, valid: bool = True) -> Report:
        """Passes, with the cluster's part in between, until nothing goes on."""
        for _ in range(passes):
            report = self.run(valid=valid)
            self.plant.turn()
            if not report.told and not any(d.outcome is not Outcome.WAITING for d in report.done):
                return report
        raise AssertionError(f"it still goes on: {report.told}")

    def records(self, plural: str) -> list[Body]:
        """In the order of their causes."""
        answer = self.api("GET", f"{RECORDS}/{plural}")
        found = answer.body["items"] if answer.status == 200 else []
        return sorted(found, key=lambda one: (one["spec"]["cause"]["at"], one["metadata"]["name"]))

    def builds(self) -> list[str]:
        """The phases, the oldest first."""
        return [one.get("status", {}).get("phase", "Pending") for one in self.records("builds")]

    def promotion(self, number: int = -1) -> Body:
        status: Body = self.records("promotions")[number]["status"]
        return status

    def deployments(self, namespace: str = "prod") -> dict[str, str]:
        """uid by name."""
        items = self.api("GET", collection("Deployment", namespace)).body["items"]
        return {one["metadata"]["name"]: one["metadata"]["uid"] for one in items}

    def weights(self, model: str = "churn", namespace: str = "prod") -> dict[str, int]:
        route = self.api("GET", f"{collection('HTTPRoute', namespace)}/{model}").body
        refs = [ref for rule in route["spec"]["rules"] for ref in rule["backendRefs"]]
        return {ref["name"]: ref.get("weight", 1) // 100 for ref in refs if ref.get("weight", 1)}

    def jobs(self, namespace: str = "prod") -> set[str]:
        return {one["metadata"]["name"] for one in self.api("GET", collection("Job", namespace)).body["items"]}

    def hand_made(self, build: str, **more: Any) -> None:
        """A promotion of churn into prod, as a person writes it for kubectl: without a word of what it replaces."""
        for definition in ledger.definitions():
            path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
            assert self.api("POST", path, definition).status in (201, 409)
        cause = {"kind": "Manual", "at": self.now.isoformat(), "by": "kim"}
        spec = {"model": "churn", "variation": "default", "environment": "prod", "build": build, "cause": cause, **more}
        body = {
            "apiVersion": "trueup.dev/v1",
            "kind": "Promotion",
            "metadata": {"name": f"churn.default.prod.{build[:8]}-1", "namespace": "trueup-system"},
            "spec": spec,
        }
        answer = self.api("POST", f"{RECORDS}/promotions", body)
        assert answer.status == 201, answer.body.get("message")

    def decide(self, action: str, number: int = -1) -> None:
        one = self.records("promotions")[number]
        said = {"action": action, "by": "kim", "at": self.now.isoformat(), "build": one["spec"]["build"]}
        path = f"{RECORDS}/promotions/{one['metadata']['name']}"
        answer = self.api("PATCH", path, {"spec": {"decisions": [said]}}, content_type=MERGE)
        assert answer.status == 200, answer.body


@pytest.fixture
def land(server: tuple[Path, str], tmp_path: Path) -> Iterator[Land]:
    api = Api(*server)
    plant = Plant(api)
    land = Land(api, plant, tmp_path, Repository(tmp_path / "git"))
    land.repository.model("churn", "one")
    yield land
    for plural in ("builds", "promotions"):
        api("DELETE", f"{RECORDS}/{plural}")
    found = api("GET", f"/api/v1/namespaces/{inventory.NAMESPACE}/configmaps?labelSelector={inventory.PART_OF}").body
    left = {one["metadata"]["name"].removeprefix("trueup-") for one in found.get("items", ())}
    for name in left | {"prod", "train"}:
        forget(api, name)
    plant.close()
    api.close()


# -- specs ----------------------------------------------------------------------------------------------------------


def pinned(commit: str, **more: Any) -> tuple[Body, ...]:
    """A variation that serves the build of a commit."""
    build = {"name": "churn-1", "model": "churn", "git_uri": f"{REPOSITORY}#churn", "git_commit": commit}
    served = {"model": "churn", "environments": ["prod"], "build": "churn-1", **SMALL, **more}
    return environment("prod"), {"builds": [build]}, {"variations": [served]}


def halves(commit: str, other: str, **more: Any) -> tuple[Body, ...]:
    """The same for half of all requests, and another variation for the rest: no guard minds if one of them goes."""
    half = {"traffic": [{"weight": 50}]}
    where, _, variations = pinned(commit, **half, **more)
    commits = {"churn-1": commit, "churn-2": other}
    builds = [
        {"name": name, "model": "churn", "git_uri": f"{REPOSITORY}#churn", "git_commit": one}
        for name, one in commits.items()
    ]
    rest = {"model": "churn", "name": "other", "environments": ["prod"], "build": "churn-2", **SMALL, **half}
    return where, {"builds": builds}, {"variations": [*variations["variations"], rest]}


def automated(trigger: Any, *, where: Body | None = None, **more: Any) -> tuple[Body, ...]:
    """An automation that deploys to prod."""
    automation = {
        "name": "churn-auto",
        "model": "churn",
        "trigger": trigger,
        "build_spec": {"git_uri": f"{REPOSITORY}#churn", "git_branch": "main"},
        "deployment_spec": {"environments": ["prod"], **SMALL["deployment"]},
        **more,
    }
    return where or environment("prod"), {"automations": [automation]}


SMALL: Body = {"deployment": {"number_of_pods": 1, "memory": "1Gi"}}
EVERY_HOUR = {"scheduled": {"cron": "0 * * * *"}}
CANARY = {"canary": {"steps": [{"weight": 10, "hold": "30m"}, {"weight": 50, "hold": "30m"}], "timeout": "3d"}}


def canary(**automation: Any) -> tuple[Body, ...]:
    """An automation whose variation takes over step by step."""
    served = {"model": "churn", "environments": ["prod"], "automation": "churn-auto", **SMALL, "rollout": CANARY}
    return (*automated(**automation), {"variations": [served]})


# -- what served before ---------------------------------------------------------------------------------------------


def test_a_canary_that_is_added_to_what_serves_changes_nothing(land: Land):
    commit = land.repository.model("churn", "two")
    land.write(*pinned(commit))
    land.settle()
    before, weights = land.deployments(), land.weights()
    assert len(before) == 1
    assert land.records("builds") == [], "nothing has to be decided, and nothing is recorded"

    land.write(*pinned(commit, rollout=CANARY))
    report = land.settle()
    assert exit_code(report) == 0, report.trouble
    assert (land.deployments(), land.weights()) == (before, weights)
    assert land.records("promotions") == []
    assert land.builds() == ["Succeeded"]
    assert land.plant.gaps == set()


def test_a_canary_that_is_added_together_with_a_new_build_leaves_the_old_one_until_the_new_one_is_ready(land: Land):
    land.write(*pinned(land.repository.model("churn", "two")))
    land.settle()
    before, weights = land.deployments(), land.weights()

    land.write(*pinned(land.repository.model("churn", "three"), rollout=CANARY))
    land.plant.stuck = {"churn"}
    for _ in range(4):
        land.run()
        land.plant.turn()
    assert (land.deployments(), land.weights()) == (before, weights)
    land.plant.stuck = set()
    for _ in range(4):
        land.run()
        land.plant.turn()
        assert land.plant.gaps == set()
    land.settle()
    assert len(land.deployments()) == 1
    assert land.deployments().keys().isdisjoint(before)
    assert land.promotion()["phase"] == "Succeeded"
    assert land.plant.gaps == set()


@pytest.mark.parametrize("names", ["another build", "the one that serves"])
def test_a_promotion_made_by_hand_that_does_not_know_what_serves_takes_nothing_away(land: Land, names: str):
    other = land.repository.model("churn", "two")
    land.write(*halves(land.repository.model("churn", "three"), other))
    land.settle()
    before = land.deployments(), land.weights()
    (serving,) = (
        one["metadata"]["annotations"]["trueup.dev/build"]
        for one in land.api("GET", collection("Deployment", "prod")).body["items"]
        if one["metadata"]["labels"]["trueup.dev/variation"] == "default"
    )
    build = serving if names == "the one that serves" else "f" * 64
    land.hand_made(build)
    for _ in range(3):
        land.run()
        land.plant.turn()
        assert (land.deployments(), land.weights()) == before
    status = land.promotion()
    words = {
        "another build": (
            f"it was to replace no build (its expectedCurrent is empty), and build {serving[:8]} is served by now"
        ),
        "the one that serves": "its build is served already",
    }
    assert (status["phase"], status["message"]) == ("Superseded", words[names])

    land.write(*halves(land.repository.model("churn", "four"), other))
    for _ in range(8):
        land.run()
        land.plant.turn()
        assert sum(land.weights().values()) == 100
    land.settle()
    assert {name.rpartition("-")[0] for name in land.deployments().keys() & before[0].keys()} == {"churn-other"}
    assert [one["status"]["phase"] for one in land.records("promotions")] == ["Superseded", "Succeeded"]
    assert land.plant.gaps == set()


def test_what_serves_stays_while_the_first_promotion_waits_for_a_person(land: Land):
    other = land.repository.model("churn", "two")
    land.write(*halves(land.repository.model("churn", "three"), other))
    land.settle()
    before = land.deployments(), land.weights()
    _, *rest = halves(land.repository.model("churn", "four"), other)
    land.write(environment("prod", approval="manual"), *rest)
    for _ in range(4):
        land.run()
        land.plant.turn()
    assert land.promotion()["phase"] == "AwaitingApproval"
    assert (land.deployments(), land.weights()) == before
    land.decide("Approve")
    for _ in range(6):
        land.run()
        land.plant.turn()
        assert land.plant.gaps == set()
    assert land.promotion()["phase"] == "Succeeded"
    assert {name.rpartition("-")[0] for name in land.deployments().keys() & before[0].keys()} == {"churn-other"}
    assert sum(land.weights().values()) == 100


# -- the end of a wait ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["its build fails", "its pods crash", "the build of a first one fails"])
def test_a_run_that_waits_ends_as_soon_as_nothing_can_change_by_itself_any_more(land: Land, fault: str):
    if fault != "the build of a first one fails":
        land.write(*halves(land.repository.model("churn", "two"), land.repository.model("churn", "three")))
        land.settle()
    before = land.deployments()
    land.write(*halves(land.repository.model("churn", "four"), land.repository.model("churn", "five")))
    with Plant(land.api) as plant:
        if fault == "its pods crash":
            plant.crashing = True
        else:
            plant.failing = {"churn": 3}
        began = time.monotonic()
        report = land.run(wait=60)
    assert time.monotonic() - began < 30, report.done
    assert (report.overdue, exit_code(report)) == (False, ExitCode.SPECS)
    assert not [one for one in report.done if one.outcome is Outcome.WAITING]
    assert before.items() <= land.deployments().items(), "what serves stays"

    # And so does the next run, of the same specs.
    again = land.run(wait=60)
    assert (again.overdue, exit_code(again)) == (False, ExitCode.SPECS)
    assert time.monotonic() - began < 45, again.done


# -- triggers -------------------------------------------------------------------------------------------------------


def test_an_automation_that_does_not_run_at_once_is_registered_and_counts_from_there(land: Land):
    land.write(*automated(EVERY_HOUR))
    land.settle()
    assert land.builds() == ["Registered"]
    assert land.jobs() == set()
    land.now += timedelta(minutes=29)
    assert land.run().told == ()
    land.now += timedelta(minutes=2)
    land.settle()
    assert land.builds() == ["Registered", "Succeeded"]
    assert len(land.deployments()) == 1

    land.now += 3 * DAY
    land.settle()
    assert land.builds() == ["Registered", "Succeeded", "Succeeded"], "what was missed is made up for once"
    assert land.records("builds")[-1]["spec"]["cause"]["at"] == "2026-03-04T13:00:00.000Z"


@pytest.mark.parametrize(
    ("policy", "phases"),
    [("Forbid", ["Pending"]), ("Allow", ["Pending"] * 3), ("Replace", ["Cancelled", "Cancelled", "Pending"])],
)
def test_a_run_that_is_due_while_the_last_one_goes_on(land: Land, policy: str, phases: list[str]):
    land.plant.stuck = {"churn"}
    land.write(*automated(EVERY_HOUR, concurrency_policy=policy, execute_immediately=True))
    for _ in range(3):
        land.settle()
        land.now += HOUR
    running = [one for one in land.records("builds") if one.get("status", {}).get("phase", "Pending") == "Pending"]
    assert land.builds() == phases
    assert land.jobs() == {one["metadata"]["name"] for one in running}


def test_a_commit_is_built_once_and_only_where_it_changes_the_model(land: Land):
    land.write(*automated("git"))
    land.settle()
    assert land.builds() == ["Succeeded"]
    land.now += HOUR
    land.repository.commit({"fraud/main/__init__.py": "", "README.md": "about"})
    land.settle()
    assert land.builds() == ["Succeeded"]
    land.now += HOUR
    commit = land.repository.model("churn", "two")
    land.settle()
    land.settle()
    assert land.builds() == ["Succeeded"] * 2
    assert land.records("builds")[-1]["spec"]["commit"] == commit
    (serving,) = land.deployments()
    assert serving.endswith(land.records("builds")[-1]["spec"]["id"][:8])


def test_a_metric_is_asked_for_once_per_check_and_starts_a_run_when_it_crosses(land: Land):
    metric = {"sql_query": "SELECT count(*) FROM builds", "direction": "BELOW", "threshold": "1"}
    land.write(*automated({"metric": metric}))
    land.settle()
    assert land.builds() == ["Registered"]
    assert land.run().told == ()
    land.now += HOUR
    land.settle()
    assert land.builds() == ["Registered", "Succeeded"]
    assert land.records("builds")[-1]["spec"]["cause"] == {
        "kind": "Metric",
        "at": "2026-03-01T13:00:00.000Z",
        "by": "",
        "reason": "the metric 0 is below 1",
    }
    land.settle()
    assert land.builds() == ["Registered", "Succeeded"]


# -- gates ----------------------------------------------------------------------------------------------------------

GATE = {"metric_name": "auc", "threshold": "0.65"}


def gate(**changes: Any) -> Body:
    return {"deployment_condition": {**GATE, **changes}}


def test_a_metric_that_was_never_logged_rejects_the_build_and_the_nearest_name_is_told(land: Land):
    land.write(*automated("git", **gate(metric_name="acu")))
    land.settle()
    status = land.promotion()
    assert status["phase"] == "Rejected"
    assert status["message"].endswith("logged no metric acu, only auc; is auc meant?")
    assert land.deployments() == {}


@pytest.mark.parametrize(
    "sql", ["SELECT count(*) FROM read_text('/etc/passwd')", "SELECT 1; COPY (SELECT 1) TO '/tmp/trueup-was-here'"]
)
def test_sql_that_would_touch_a_file_is_a_problem_of_the_spec_and_lets_no_build_pass(land: Land, sql: str):
    land.write(*automated("git", **gate(threshold=sql)))
    report = land.settle(valid=False)
    assert exit_code(report) == 1
    assert any(problem.path[-1] == "threshold" for problem in report.problems)
    status = land.promotion()
    assert status["phase"] == "Held"
    assert status["message"].startswith("held for a person, as its gate cannot tell: ")
    assert land.deployments() == {}
    assert not Path("/tmp/trueup-was-here").exists()


def test_a_query_without_an_end_is_held_and_holds_up_nobody_else(land: Land):
    endless = "SELECT count(*) FROM range(100000000000) a, range(100000) b WHERE random() < 0"
    slow = {**gate(threshold=endless, timeout_seconds=2), "name": "fraud-auto", "model": "fraud"}
    slow["build_spec"] = {"git_uri": f"{REPOSITORY}#fraud", "git_branch": "main"}
    land.repository.model("fraud", "one")
    land.write(*automated("git"), automated("git", **slow)[1])
    land.run()
    land.plant.turn()
    ends: dict[str, datetime] = {}

    def clock() -> datetime:
        land.plant.turn()
        for one in land.records("promotions"):
            if one.get("status", {}).get("phase") in ("Succeeded", "Held"):
                ends.setdefault(one["spec"]["model"], datetime.now(UTC))  # noqa: TID251 - what the wait is about
        land.now += timedelta(seconds=1)
        return land.now

    root, _, target = land.repository.mirror.partition("=")
    request = Request((land.folder / "specs.yaml",), land.folder / "home", mirrors={root: target}, wait_s=40)
    with closing(Clusters(request.home, str(land.api.kubeconfig))) as clusters:
        reconcile(request, clusters, lambda _: None, clock)
    phases = {one["spec"]["model"]: one["status"]["phase"] for one in land.records("promotions")}
    assert phases == {"churn": "Succeeded", "fraud": "Held"}
    (held,) = (one["status"] for one in land.records("promotions") if one["spec"]["model"] == "fraud")
    assert "Timeout" in held["gate"]["verdicts"][-1]["reason"]


def test_a_warehouse_that_is_down_is_asked_again_and_then_a_person_is(land: Land):
    analytics = {"engine": "sqlalchemy", "url_secret": "warehouse"}
    where = environment("prod", analytics=analytics)
    land.write(*automated("git", where=where, **gate(threshold="SELECT 0.5", timeout_seconds=60)))
    land.settle()
    status = land.promotion()
    assert status["phase"] == "Pending"
    assert [one["outcome"] for one in status["gate"]["verdicts"]] == ["Error"]
    land.settle()
    assert len(land.promotion()["gate"]["verdicts"]) == 1, "not before its time"
    for seconds in (2, 4, 8):
        land.now += timedelta(seconds=seconds)
        land.settle()
    assert len(land.promotion()["gate"]["verdicts"]) == 4
    land.now += timedelta(minutes=2)
    land.settle()
    status = land.promotion()
    assert status["phase"] == "Held"
    assert "had no answer for 60 s" in status["message"]
    assert land.deployments() == {}

    land.decide("Approve")
    land.settle()
    assert land.promotion()["phase"] == "Succeeded"
    assert len(land.deployments()) == 1


# -- clocks ---------------------------------------------------------------------------------------------------------


def test_a_clock_that_goes_back_an_hour_shortens_no_step(land: Land):
    land.write(*canary(trigger="git"))
    land.settle()
    (old,) = land.deployments()
    land.now += DAY
    land.repository.model("churn", "two")
    land.settle()
    (new,) = land.deployments().keys() - {old}
    assert land.weights() == {old: 90, new: 10}

    land.now -= HOUR
    land.settle()
    assert land.weights() == {old: 90, new: 10}
    land.now += HOUR + timedelta(minutes=29)
    land.settle()
    assert land.weights() == {old: 90, new: 10}
    land.now += timedelta(minutes=2)
    land.settle()
    assert land.weights() == {old: 50, new: 50}
    assert len(land.records("builds")) == 2


def test_a_clock_that_jumps_a_day_ahead_skips_no_step_and_runs_once(land: Land):
    land.write(*canary(trigger=EVERY_HOUR, execute_immediately=True))
    land.settle()
    (old,) = land.deployments()
    land.now += HOUR
    land.settle()
    (new,) = land.deployments().keys() - {old}
    assert land.weights() == {old: 90, new: 10}
    land.now += DAY
    land.settle()
    course = [[weight // 100 for weight in weights.values()] for weights in land.plant.weights["prod/churn"]]
    assert course == [[100], [90, 10], [50, 50]], "the next step, and no further"
    assert land.weights() == {old: 50, new: 50}
    assert len(land.records("builds")) == 3, "one run for all that the day would have had"

    land.now -= DAY
    land.settle()
    assert len(land.records("builds")) == 3, "an instant that had its run has no other"


# -- records --------------------------------------------------------------------------------------------------------


def test_a_served_build_whose_record_is_gone_stays_and_is_told(land: Land):
    land.write(*automated(EVERY_HOUR, execute_immediately=True))
    land.settle()
    land.now += HOUR
    land.settle()
    before = land.deployments(), land.weights()
    newest = land.records("builds")[-1]["metadata"]["name"]
    land.api("DELETE", f"{RECORDS}/builds/{newest}")
    land.settle()
    assert land.records("builds")[-1]["metadata"]["name"] == newest, "its instant is due once more, and makes the same"
    assert land.builds() == ["Succeeded"] * 2
    assert len(land.records("promotions")) == 2

    land.write(*automated(EVERY_HOUR, enabled=False))
    land.api("DELETE", f"{RECORDS}/builds/{newest}")
    report = land.run()
    assert exit_code(report) == 3
    assert any(f"the record of build {newest[-8:]} is gone" in one.message for one in report.trouble), report.trouble
    land.settle()
    assert (land.deployments(), land.weights()) == before, "neither taken away nor replaced by an older one"
    assert len(land.records("promotions")) == 2


def test_a_promotion_that_nobody_can_read_is_told_and_its_model_stays_as_it_is(land: Land):
    other = {"name": "fraud-auto", "model": "fraud", "build_spec": {"git_uri": f"{REPOSITORY}#fraud"}}
    land.repository.model("fraud", "one")
    land.write(*automated("git"), automated("git", **other)[1])
    land.settle()
    before = land.deployments(), land.weights()
    (current,) = (one for one in land.records("promotions") if one["spec"]["model"] == "churn")
    name = f"{current['metadata']['name'][:-1]}2"
    nonsense = {
        **{key: current[key] for key in ("apiVersion", "kind")},
        "metadata": {"name": name, "namespace": "trueup-system"},
        # A date, to the server; none that could be told in UTC.
        "spec": {**current["spec"], "attempt": 2, "cause": {"kind": "Manual", "at": "0001-01-01T00:00:00+10:00"}},
    }
    made = land.api("POST", f"{RECORDS}/promotions", nonsense)
    assert made.status == 201, made.body

    land.now += HOUR
    land.repository.model("churn", "two")
    land.repository.model("fraud", "two")
    report = land.settle()
    assert exit_code(report) == 3
    assert any(f"Promotion trueup-system/{name}: spec.cause.at: " in one.message for one in report.trouble)
    assert land.weights() == before[1]
    assert before[0].items() <= land.deployments().items(), "nothing is deleted there while somebody has to look"
    phases = [one["status"]["phase"] for one in land.records("promotions") if one["spec"]["model"] == "fraud"]
    assert phases == ["Succeeded"] * 2, "the rest goes on"
    assert land.builds() == ["Succeeded"] * 4, "what is built disturbs nobody"

    land.api("DELETE", f"{RECORDS}/promotions/{name}")
    assert exit_code(land.settle()) == 0
    assert land.weights() != before[1]
    assert land.plant.gaps == set()


def test_old_records_make_room_and_what_serves_keeps_its_own(land: Land):
    land.write(*automated({"manual": {}}, execute_immediately=True))
    land.settle()
    (served,) = land.records("builds")
    for number in range(105):
        at = (BEGAN + timedelta(minutes=number + 1)).isoformat()
        build_id = f"{number:08x}" * 8
        body = {
            **{key: served[key] for key in ("apiVersion", "kind")},
            "metadata": {"name": f"churn-build-{build_id[:8]}", "namespace": "trueup-system"},
            "spec": {**served["spec"], "id": build_id, "cause": {"kind": "Manual", "at": at}},
        }
        made = land.api("POST", f"{RECORDS}/builds", body)
        assert made.status == 201, made.body
        failed = {"status": {"phase": "Failed", "finishedAt": at}}
        land.api("PATCH", f"{RECORDS}/builds/{body['metadata']['name']}/status", failed, content_type=MERGE)
    land.settle()
    names = {one["metadata"]["name"] for one in land.records("builds")}
    assert len(names) == 101
    assert served["metadata"]["name"] in names
    assert "churn-build-00000004" not in names
    assert "churn-build-00000005" in names


# -- messages -------------------------------------------------------------------------------------------------------


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[Body]]]:
    """A webhook: its address, and what it has received."""
    received: list[Body] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/hook", received
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_message_is_sent_once_and_written_down(
    land: Land, receiver: tuple[str, list[Body]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TRUEUP_NOTIFY_ALLOW", "127.0.0.1")
    address, received = receiver
    hook = {"custom_webhook": {"url": address, "http_method": "POST", "data": {"channel": "ml"}}}
    # Only what ended lately is told of.
    land.now = datetime.now(UTC)  # noqa: TID251 - the notifier's clock is the real one
    land.write(*automated("git", on_success=hook))
    land.settle()
    for _ in range(3):
        land.run(wait=2)
    assert [one["automation"] for one in received] == ["churn-auto"]
    assert received[0]["channel"] == "ml"
    assert len([key for key in land.promotion()["notified"] if "Succeeded" in key]) == 1


def test_a_message_that_may_not_be_sent_is_told_and_given_up(land: Land, receiver: tuple[str, list[Body]]):
    address, received = receiver  # of this machine, where nothing is sent unless somebody allows it
    land.now = datetime.now(UTC)  # noqa: TID251 - the notifier's clock is the real one
    land.write(*automated("git", on_success={"custom_webhook": {"url": address, "http_method": "POST"}}))
    told: list[str] = []
    while not any("!gave-up" in key for one in land.records("promotions") for key in one["status"].get("notified", ())):
        told += [f"{one.where}: {one.message}" for one in land.run(wait=0.5).told]
        land.plant.turn()
    assert received == []
    (said,) = (one for one in told if one.startswith("a message about "))
    assert "is a loopback address, and nothing is sent there; TRUEUP_NOTIFY_ALLOW can allow it" in said
