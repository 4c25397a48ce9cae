"""What stays open for an environment, and what is opened anew. Folders stand for object storages."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.cluster import Reader
from reconciler.outside import Outside, OutsideError
from reconciler.warehouse import QueryError
from runtime.records import record_key
from schemas.environment import Analytics, DataPlane, Environment
from tests.sample_records import a_build


def no_cluster(_: DataPlane) -> Reader:
    raise AssertionError("nothing of this is in a cluster")


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    return Outside(no_cluster, tmp_path, {})


def environment(folder: Path, name: str = "production", **fields: object) -> Environment:
    return Environment.model_validate({"name": name, "object_storage": folder.as_uri(), **fields})


def test_an_engine_is_kept_for_as_long_as_the_spec_of_its_environment_says_the_same(
    outside: Outside, tmp_path: Path
) -> None:
    engine = outside.engine(environment(tmp_path / "one"))
    assert outside.engine(environment(tmp_path / "one")) is engine
    assert outside.engine(environment(tmp_path / "one", "staging")) is not engine
    assert outside.engine(environment(tmp_path / "one")) is engine
    assert outside.engine(environment(tmp_path / "two")) is not engine


def test_another_kind_of_analytics_is_another_engine(outside: Outside, tmp_path: Path) -> None:
    before = outside.engine(environment(tmp_path))
    analytics = Analytics(engine="athena", database="models", region="eu-central-1", output_location="s3://a/b")
    after = outside.engine(environment(tmp_path).model_copy(update={"analytics": analytics}))
    assert type(after) is not type(before)


def test_records_are_read_where_the_spec_says_now(outside: Outside, tmp_path: Path) -> None:
    build = a_build()
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    broken = tmp_path / "two" / (build.status.record or record_key(build.spec.model, build.spec.id))
    broken.parent.mkdir(parents=True)
    broken.write_text("no record")
    assert outside.record(environment(tmp_path / "one"), build) is None
    with pytest.raises(OutsideError):
        outside.record(environment(tmp_path / "two"), build)
    assert outside.record(environment(tmp_path / "one"), build) is None


def test_a_spec_that_cannot_be_opened_leaves_nothing_behind(outside: Outside, tmp_path: Path) -> None:
    strange = environment(tmp_path).model_copy(update={"object_storage": "ftp://x"})
    good = outside.engine(environment(tmp_path))
    with pytest.raises(QueryError):
        outside.engine(strange)
    assert outside.engine(environment(tmp_path)) is good
    with pytest.raises(OutsideError):
        outside.record(strange, a_build())
    assert outside.record(environment(tmp_path), a_build()) is None
