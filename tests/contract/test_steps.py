"""A step costs what has changed: it reads, decides and writes about the models that it is for, and about no others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler import ledger, queries
from reconciler.automate import Automator, Progress
from reconciler.automate.archive import Archive
from reconciler.cluster import Connection, Writer, connect
from reconciler.outside import Outside
from reconciler.records import API_VERSION, NAMESPACE, Build, BuildPhase, BuildStatus, object_id_of, to_body
from reconciler.specs.index import Index
from renderers.catalog import Facts
from schemas.environment import DataPlane
from tests.contract.client import Api, EmbeddedServer
from tests.contract.faults import FaultProxy
from tests.sample_records import START, a_build, a_promotion, at

MADE = BuildStatus(phase=BuildPhase.SUCCEEDED, finished_at=at(1))
ENVIRONMENT = "api_version: v1\nspec:\n  environments:\n  - {name: prod, data_plane: embedded}\n"
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
    rollout: {{canary: {{steps: [{{weight: 50, hold: 1m}}]}}}}
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

    def write(self, model: str, memory: str = "1Gi") -> None:
        self.index.update({f"{model}.yaml": MODEL.format(model=model, memory=memory, commit="a" * 40).encode()})
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
    plain = MODEL.format(model="taxi", memory="1Gi", commit="b" * 40).replace("    rollout:", "    # rollout:")
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
