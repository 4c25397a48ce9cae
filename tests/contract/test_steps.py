"""A step costs what has changed: it reads, decides and writes about the models that it is for, and about no others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reconciler import ledger, queries
from reconciler.automate import Automator, Progress
from reconciler.automate.archive import Archive
from reconciler.cluster import Connection, Writer, connect
from reconciler.outside import Outside
from reconciler.promotion import DEPLOYMENT_TIMEOUT
from reconciler.records import API_VERSION, NAMESPACE, Build, BuildPhase, BuildStatus, object_id_of, to_body
from reconciler.report import Told
from reconciler.specs.index import Index
from renderers.catalog import Facts
from schemas.environment import DataPlane
from tests.contract.client import Api, EmbeddedServer
from tests.contract.faults import FaultProxy
from tests.contract.test_automate import automated
from tests.e2e.data_plane import REPOSITORY, Repository
from tests.e2e.harness import document
from tests.sample_records import START, a_build, a_promotion, at

MADE = BuildStatus(phase=BuildPhase.SUCCEEDED, finished_at=at(1))
ENVIRONMENT = "api_version: v1\nspec:\n  environments:\n  - {name: prod, data_plane: embedded}\n"
CANARY = "{steps: [{weight: 50, hold: 1m}]}"
MODEL = """
api_version: v1
spec:
  builds:
  - {{name: {model}-1, model: {model}, git_uri: "https://git.example.com/models.git#{model}", git_commit: {commit}}}
  variations:
  - model: {model}
    name: default
    environments: [prod]
    build: {model}-1
    rollout: {{canary: {canary}}}
    traffic: [{{weight: 100}}]
    deployment: {{memory: {memory}}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """One of this module's own: a first step reads all the records that there are."""
    server = EmbeddedServer(tmp_path_factory.mktemp("steps") / "data")
    yield server.kubeconfig, "embedded"
    assert server.end() == 0


@pytest.fixture
def proxy(server: tuple[Path, str]) -> Iterator[FaultProxy]:
    with FaultProxy(server[0]) as proxy:
        yield proxy
    api = Api(*server)
    for plural in ("builds", "promotions"):
        api("DELETE", f"/apis/{API_VERSION}/namespaces/{NAMESPACE}/{plural}")
    api.close()


@pytest.fixture
def connection(proxy: FaultProxy, tmp_path: Path) -> Iterator[Connection]:
    made = connect(str(proxy.kubeconfig(tmp_path / "kubeconfig")), trusted=True)
    yield made
    made.close()


@pytest.fixture
def writer(connection: Connection) -> Writer:
    made = Writer(connection)
    assert ledger.ensure(made) == []
    return made


def stored(writer: Writer, record: Build) -> Build:
    found = writer.get(object_id_of(record))
    assert found is not None
    read = ledger.record_of(found)
    assert isinstance(read, Build)
    return read


# -- the archive ----------------------------------------------------------------------------------------------------


def test_all_is_read_once_and_then_what_is_doubted(writer: Writer, proxy: FaultProxy) -> None:
    churn, fraud = a_build(model="churn"), a_build(model="fraud")
    for one in (churn, fraud, a_promotion(model="churn")):
        ledger.create(writer, one)
    archive = Archive()
    assert archive.read(writer) == {"churn", "fraud"}
    assert archive.read(writer) == frozenset()
    ledger.write_status(writer, stored(writer, fraud).model_copy(update={"status": MADE}))
    archive.doubt(object_id_of(fraud))
    proxy.seen.clear()
    assert archive.read_again(writer) == {"fraud"}
    assert [seen.path.rpartition("/")[2] for seen in proxy.seen] == [fraud.identity.name]
    assert not archive.doubts
    (read,) = archive.ledger("fraud").builds.values()
    assert read.status == MADE
    assert archive.builds == {"Pending": 1, "Succeeded": 1}


def test_a_record_that_has_gone_is_of_no_model_any_more(writer: Writer) -> None:
    build = a_build(model="fraud")
    ledger.create(writer, build)
    archive = Archive()
    archive.read(writer)
    ledger.delete(writer, stored(writer, build))
    archive.doubt(object_id_of(build))
    assert archive.read_again(writer) == {"fraud"}
    assert list(archive.models) == []
    assert archive.model(object_id_of(build)) is None


def test_what_was_written_is_known_without_being_read(writer: Writer, proxy: FaultProxy) -> None:
    build = a_build(model="fraud")
    ledger.create(writer, build)
    archive = Archive()
    archive.read(writer)
    written = ledger.write_status(writer, stored(writer, build).model_copy(update={"status": MADE}))
    assert written is not None
    archive.doubt(object_id_of(build))
    archive.keep(written)
    proxy.seen.clear()
    assert archive.read_again(writer) == frozenset()
    assert proxy.seen == []
    assert archive.read(writer) == frozenset()


def test_a_record_that_cannot_be_read_is_told_of_its_model(writer: Writer) -> None:
    body = to_body(a_promotion(model="fraud", environment="prod"))
    body["spec"]["cause"]["at"] = "2026-11-21T03:00:00+99:99"
    writer.create(body)
    archive = Archive()
    assert archive.read(writer) == {"fraud"}
    (why,) = archive.unreadable("fraud")
    assert why.startswith(f"Promotion {NAMESPACE}/{body['metadata']['name']}: spec.cause.at: ")
    assert archive.ledger("fraud").unreadable == {("prod", "fraud"): why}
    assert archive.unreadable("churn") == []


# -- steps ----------------------------------------------------------------------------------------------------------


@dataclass
class Steps:
    """Two models that are promoted, as specs that follow their files."""

    writer: Writer
    index: Index
    automator: Automator
    minutes: float = 0

    def write(self, model: str, memory: str = "1Gi", canary: str = CANARY) -> None:
        text = MODEL.format(model=model, memory=memory, commit="a" * 40, canary=canary)
        self.index.update({f"{model}.yaml": text.encode()})
        self.automator.catalog = self.index.catalog

    def step(self, *models: str, whole: bool = False) -> Progress:
        self.minutes += 1
        return self.automator.step(self.writer, at(self.minutes), None if whole else models)

    def build(self, model: str) -> Build:
        records, _ = ledger.read(self.writer)
        (build,) = [build for build in records.builds.values() if build.spec.model == model]
        return build


@pytest.fixture
def steps(writer: Writer, tmp_path: Path) -> Steps:
    contents: dict[str, bytes] = {}
    index = Index(contents.__getitem__, queries.check)
    index.update({"environments.yaml": ENVIRONMENT.encode()})
    outside = Outside(lambda _: writer, tmp_path, {})
    plane = DataPlane(type="embedded")
    automator = Automator(index.catalog, Facts(), outside, plane, part=lambda model: index.part((model,)))
    made = Steps(writer, index, automator)
    for model in ("churn", "fraud"):
        made.write(model)
    assert not index.problems
    return made


def test_the_first_step_is_over_all_models_and_later_ones_over_those_that_they_are_for(
    steps: Steps, proxy: FaultProxy
) -> None:
    assert steps.step(whole=True).models == {"churn", "fraud"}
    steps.step()  # what was written without a version is read back
    steps.write("churn", memory="2Gi")
    proxy.seen.clear()
    assert steps.step("churn").models == {"churn"}
    assert [seen.path for seen in proxy.seen if "churn" in seen.path]
    assert not [seen.path for seen in proxy.seen if "fraud" in seen.path]


def test_a_step_for_nobody_is_about_what_has_changed_of_the_records(steps: Steps, proxy: FaultProxy) -> None:
    steps.step(whole=True)
    steps.step()
    build = steps.build("fraud")
    assert ledger.write_status(steps.writer, build.model_copy(update={"status": MADE})) is not None
    steps.automator.doubt(object_id_of(build))
    progress = steps.step()
    assert progress.models == {"fraud"}
    assert progress.builds == {"Pending": 1, "Succeeded": 1}
    assert [p.spec.model for p in ledger.read(steps.writer)[0].promotions] == ["fraud"]
    assert steps.step().models == {"fraud"}  # the promotion is read back, and goes on
    proxy.seen.clear()
    assert steps.step().models == frozenset()
    assert proxy.seen == []


def test_what_other_models_recall_stays_as_it_was(steps: Steps) -> None:
    steps.step(whole=True)
    for model in ("churn", "fraud"):
        ledger.write_status(steps.writer, steps.build(model).model_copy(update={"status": MADE}))
    steps.step(whole=True)
    before = steps.step(whole=True).recall
    assert before.facts.stands.keys() == {("prod", "churn", "default"), ("prod", "fraud", "default")}
    after = steps.step("churn").recall
    assert after == before
    assert after.facts.stands["prod", "fraud", "default"] is before.facts.stands["prod", "fraud", "default"]


def test_a_model_that_nobody_promotes_is_of_no_concern(steps: Steps) -> None:
    plain = MODEL.format(model="taxi", memory="1Gi", commit="b" * 40, canary=CANARY)
    plain = plain.replace("    rollout:", "    # rollout:")
    steps.index.update({"taxi.yaml": plain.encode()})
    steps.automator.catalog = steps.index.catalog
    assert steps.automator.concerns({"churn"})
    assert not steps.automator.concerns({"taxi"})
    steps.step(whole=True)
    steps.step()
    assert steps.step("taxi").models == frozenset()


def test_a_model_that_leaves_is_recalled_no_more(steps: Steps) -> None:
    steps.step(whole=True)
    steps.step()
    steps.index.update({"fraud.yaml": None})
    steps.automator.catalog = steps.index.catalog
    assert steps.step("fraud").models == {"fraud"}
    progress = steps.step()
    assert progress.models == frozenset()
    assert [key[1] for key in progress.recall.facts.stands] == ["churn"]


def test_nothing_is_installed_where_nobody_needs_records(
    proxy: FaultProxy, connection: Connection, tmp_path: Path
) -> None:
    writer = Writer(connection)
    automator = Automator(Index(lambda _: b"").catalog, Facts(), Outside(lambda _: writer, tmp_path, {}), DataPlane())
    progress = automator.step(writer, START)
    assert (progress.models, progress.busy) == (frozenset(), False)
    assert {seen.method for seen in proxy.seen} <= {"GET"}


def test_a_rollout_is_looked_at_again_when_its_time_is_over(steps: Steps) -> None:
    steps.step(whole=True)
    ledger.write_status(steps.writer, steps.build("churn").model_copy(update={"status": MADE}))
    for _ in range(3):
        progress = steps.step(whole=True)
    (one,) = ledger.read(steps.writer)[0].promotions
    assert one.status.rollout is not None
    assert progress.until == one.status.rollout.began_at + DEPLOYMENT_TIMEOUT


def test_a_paused_rollout_is_watched_and_nobody_waits_for_it(steps: Steps) -> None:
    checked = {
        "steps": [{"weight": 50, "hold": "1m"}],
        "checks": [{"name": "errors", "metric": "error_rate", "threshold": "5", "window": "5m"}],
    }
    watched = ENVIRONMENT.replace("embedded}", 'embedded, prometheus_url: "http://127.0.0.1:9"}')
    steps.index.update({"environments.yaml": watched.encode(), "fraud.yaml": None})
    steps.write("churn", canary=json.dumps(checked))
    assert not steps.index.problems, steps.index.problems
    steps.step(whole=True)
    ledger.write_status(steps.writer, steps.build("churn").model_copy(update={"status": MADE}))
    for _ in range(3):
        steps.step(whole=True)
    (one,) = ledger.read(steps.writer)[0].promotions
    assert one.status.rollout is not None
    now = at(steps.minutes + 1)
    rollout = {"step": 0, "weight": 50, "routed_at": now, "checked_at": now, "paused_at": now}
    paused = one.status.model_copy(update={"rollout": one.status.rollout.model_copy(update=rollout)})
    assert ledger.write_status(steps.writer, one.model_copy(update={"status": paused})) is not None
    steps.step(whole=True)
    steps.minutes -= 1
    progress = steps.step(whole=True)
    assert (progress.busy, progress.until) == (False, now + timedelta(seconds=30))


# -- automations ----------------------------------------------------------------------------------------------------


@dataclass
class Nightly:
    """An automation that runs every hour, of a process that goes on for hours."""

    writer: Writer
    repository: Repository
    index: Index
    automator: Automator
    hours: float = 0

    def write(self, branch: str = "main", trigger: Any = None, **more: Any) -> None:
        build = {"git_uri": f"{REPOSITORY}#churn", "git_branch": branch}
        parts = automated(trigger or {"scheduled": {"interval": "1h"}}, build_spec=build, **more)
        self.index.update({"specs.yaml": document(*parts).encode()})
        assert not [problem for problem in self.index.problems if problem.severity == "error"]
        self.automator.catalog = self.index.catalog

    def settle(self) -> Progress:
        """Until all that was asked is answered, and what follows from it is written."""
        for _ in range(3):
            progress = self.automator.step(self.writer, at(60 * self.hours))
            self.automator.questions.wait(20)
        return progress

    def finish(self) -> None:
        """All builds succeed."""
        records, _ = ledger.read(self.writer)
        for build in records.builds.values():
            ledger.write_status(self.writer, build.model_copy(update={"status": MADE}))

    @property
    def commits(self) -> list[str]:
        records, _ = ledger.read(self.writer)
        builds = sorted(records.builds.values(), key=lambda build: build.spec.cause.at)
        return [build.spec.commit for build in builds if build.spec.commit]


@pytest.fixture
def nightly(writer: Writer, tmp_path: Path) -> Iterator[Nightly]:
    repository, contents = Repository(tmp_path / "git"), dict[str, bytes]()
    index = Index(contents.__getitem__, queries.check)
    root, _, target = repository.mirror.partition("=")
    outside = Outside(lambda _: writer, tmp_path, {root: target})
    plane = DataPlane(type="embedded")
    automator = Automator(index.catalog, Facts(), outside, plane, part=lambda model: index.part((model,)))
    yield Nightly(writer, repository, index, automator)
    automator.close()


def test_each_run_is_of_the_commit_that_its_branch_stands_at_by_then(nightly: Nightly) -> None:
    first = nightly.repository.model("churn", "one")
    nightly.write(execute_immediately=True)
    nightly.settle()
    nightly.finish()
    second = nightly.repository.model("churn", "two")
    nightly.hours += 1.5
    nightly.settle()
    assert nightly.commits == [first, second]


def test_what_was_seen_of_one_branch_says_nothing_of_another(nightly: Nightly) -> None:
    first = nightly.repository.model("churn", "one")
    nightly.repository._git("checkout", "--quiet", "-b", "other")
    second = nightly.repository.model("churn", "two")
    nightly.write(trigger="git")
    nightly.settle()
    nightly.finish()
    nightly.write("other", trigger="git")
    nightly.settle()
    assert sorted(nightly.commits) == sorted([first, second])


def test_a_run_whose_git_is_away_is_looked_at_again_until_it_is_back(nightly: Nightly, tmp_path: Path) -> None:
    commit = nightly.repository.model("churn", "one")
    (tmp_path / "git").rename(tmp_path / "away")
    nightly.write(execute_immediately=True)
    for _ in range(5):
        nightly.settle()
        assert nightly.automator.open["churn"].trouble
    (tmp_path / "away").rename(tmp_path / "git")
    nightly.settle()
    nightly.settle()
    assert nightly.commits == [commit]


def test_what_a_metric_answers_is_told_once(nightly: Nightly) -> None:
    metric = {"sql_query": "SELECT 7", "direction": "BELOW", "threshold": "1"}
    nightly.repository.model("churn", "one")
    nightly.write(trigger={"metric": metric})
    told: list[Told] = []
    for nightly.hours in (0, 1.5, 2.5, 3.5):
        for _ in range(4):
            told += nightly.automator.step(nightly.writer, at(60 * nightly.hours)).told
            nightly.automator.questions.wait(20)
    said = [one.message for one in told if one.where == "automation churn-auto"]
    assert said == ["the metric 7 is not below 1 (BELOW is strict)"]
