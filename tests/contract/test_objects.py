"""The reconciler's edge to an environment's object storage, on a real folder."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler.objects import Objects, ObjectsError, open_for, url_of
from reconciler.records import BuildStatus, Phase, PromotionStatus
from reconciler.warehouse import Query
from reconciler.warehouse.duckdb import DuckDb
from reconciler.warehouse.tables import promotion_key
from runtime.records import BuildRecord, StoredFile, record_key, row_key
from runtime.storage import FileStorage
from schemas.environment import DataPlane, Environment
from tests.sample_records import a_build, a_promotion

MOMENT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(name="production", object_storage=(tmp_path / "store").as_uri())


@pytest.fixture
def storage(tmp_path: Path) -> FileStorage:
    return FileStorage(tmp_path / "store")


@pytest.fixture
def objects(environment: Environment, tmp_path: Path) -> Objects:
    return open_for(environment, tmp_path)


def a_record(build_id: str, metrics: dict[str, float]) -> BuildRecord:
    file = StoredFile("k", "s", 1)
    return BuildRecord(
        build_id, "churn", "production", "c0ffee", {}, metrics, file, file, "3.11.7", None, None, MOMENT, MOMENT, None
    )


# ------------------------------------------------------------------------------------------------------ which storage


def test_an_environment_without_a_storage_has_the_folder_of_the_embedded_data_plane(tmp_path: Path) -> None:
    home = tmp_path / "a home"
    assert url_of(Environment(name="dev"), home) == (home / "data" / "objects").as_uri()


def test_an_environment_has_its_own_storage(tmp_path: Path) -> None:
    assert url_of(Environment(name="dev", object_storage="s3://models/dev"), tmp_path) == "s3://models/dev"


def test_a_cluster_without_a_storage_is_told(tmp_path: Path) -> None:
    cluster = Environment.model_construct(name="eu", object_storage=None, data_plane=DataPlane(type="kubernetes"))
    with pytest.raises(ObjectsError, match="the environment eu has no object_storage: write s3://BUCKET/PREFIX"):
        open_for(cluster, tmp_path)


def test_a_storage_that_is_none_is_told(tmp_path: Path) -> None:
    strange = Environment.model_construct(name="eu", object_storage="ftp://x", data_plane=DataPlane())
    with pytest.raises(ObjectsError, match="the object_storage of the environment eu: 'ftp://x' is no URL"):
        open_for(strange, tmp_path)


# --------------------------------------------------------------------------------------------------------- promotions


def test_a_promotion_that_ended_is_a_row_of_the_analytics(
    objects: Objects, storage: FileStorage, environment: Environment, tmp_path: Path
) -> None:
    promotion = a_promotion(
        environment="production",
        status=PromotionStatus(phase=Phase.SUCCEEDED, finished_at=MOMENT, message="it is done"),
    )
    assert objects.put_promotion(promotion)
    (key,) = storage.list("analytics/")
    assert key == promotion_key(promotion)
    assert json.loads(storage.read(key))["message"] == "it is done"
    asked = DuckDb(str(environment.object_storage), tmp_path / "cache").ask(
        Query("select build_id, deployed_at, replaced_at from deployments where model = :model", {"model": "churn"}), 20
    )
    assert asked.rows == ((promotion.spec.build, datetime(2026, 3, 1, 12), None),)  # noqa: DTZ001 - as the tables have it


def test_a_promotion_is_told_once(objects: Objects, storage: FileStorage) -> None:
    promotion = a_promotion(status=PromotionStatus(phase=Phase.SUCCEEDED, finished_at=MOMENT))
    assert objects.put_promotion(promotion)
    before = storage.read(promotion_key(promotion))
    later = promotion.model_copy(update={"status": PromotionStatus(phase=Phase.REJECTED)})
    assert not objects.put_promotion(later)
    assert storage.read(promotion_key(promotion)) == before


# ------------------------------------------------------------------------------------------------------------ records


def test_the_record_of_a_build_has_every_metric(objects: Objects, storage: FileStorage) -> None:
    build = a_build()
    assert objects.record(build) is None
    record = a_record(build.spec.id, {f"m{number}": number / 7 for number in range(1000)})
    storage.create(record_key("churn", build.spec.id), record.to_json())
    assert objects.record(build) == record


def test_a_build_says_itself_where_its_record_is(objects: Objects, storage: FileStorage) -> None:
    build = a_build(status=BuildStatus(record="builds/elsewhere/record.json"))
    record = a_record(build.spec.id, {"f1": 0.7})
    storage.create("builds/elsewhere/record.json", record.to_json())
    assert objects.record(build) == record


def test_a_row_made_of_a_record_is_read_by_the_engine(
    storage: FileStorage, environment: Environment, tmp_path: Path
) -> None:
    record = a_record("3f9a1c2e" * 8, {"f1": 0.7})
    storage.create(row_key("churn", record.build_id), record.to_row())
    asked = DuckDb(str(environment.object_storage), tmp_path / "cache").ask(
        Query("select build_id, metrics['f1'], tests_passed, duration_s, commit_id from builds", {"model": "churn"}), 20
    )
    assert asked.rows == ((record.build_id, 0.7, None, 0.0, "c0ffee"),)


@pytest.mark.parametrize(
    ("key", "told"),
    [("builds/x/record.json", "builds/x/record.json is damaged"), ("../../etc/passwd", "is no key")],
)
def test_a_record_that_cannot_be_read_is_told_and_not_tried_again(
    objects: Objects, storage: FileStorage, key: str, told: str
) -> None:
    storage.create("builds/x/record.json", b"{}")
    with pytest.raises(ObjectsError, match=told) as failed:
        objects.record(a_build(status=BuildStatus(record=key)))
    assert not failed.value.retryable


def test_a_storage_that_is_away_is_worth_another_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-very-secret-key")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    objects = open_for(Environment(name="eu", object_storage="s3://models/eu"), tmp_path)
    with pytest.raises(ObjectsError, match="cannot be reached") as failed:
        objects.put_promotion(a_promotion())
    assert failed.value.retryable
    assert "secret" not in str(failed.value)
    objects.close()
