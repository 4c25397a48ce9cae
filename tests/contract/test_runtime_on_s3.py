"""A model's whole way with a bucket as its object storage: built, served, and its predictions logged."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from pathlib import Path

import pytest

from runtime import records
from runtime.storage import open_storage
from tests.contract.prediction_server import MODEL, VARIATION, PredictionServer
from tests.contract.test_object_storage import aws, moto  # noqa: F401 - fixtures
from tests.contract.test_runtime_build import GOOD, Builder, cache  # noqa: F401 - a fixture

URL = "s3://models/production"


@pytest.mark.usefixtures("aws")
def test_a_model_is_built_into_a_bucket_and_served_from_it(tmp_path: Path, cache: Path):  # noqa: F811
    credentials = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    builder = Builder(tmp_path / "build", cache)
    builder.write(GOOD)
    environ = builder.environment(TRUEUP_OBJECT_STORAGE=URL, TRUEUP_MODEL=MODEL, **credentials)
    run = subprocess.run(
        builder.command(), env=environ, cwd=builder.folder, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert credentials["AWS_SECRET_ACCESS_KEY"] not in run.stdout + run.stderr

    storage = open_storage(URL)
    key = records.record_key(MODEL, "a1b2")
    record = records.parse_record(storage.read(key), key)
    assert record.metrics == {"auc": 0.9, "rows": 3.0}
    again = subprocess.run(builder.command(), env=environ, cwd=builder.folder, capture_output=True, check=False)
    assert again.returncode == 0, "what is finished is answered from its record"

    with PredictionServer(storage, tmp_path / "serve", "a1b2", environ=credentials) as server:
        answer = server.predict([{"a": 2}])
        assert (answer.status, answer.json) == (200, [{"sum": 3}])
        assert server.stop() == 0
    logged = [key for key in storage.list("inferences/") if f"model={MODEL}/variation={VARIATION}/" in key]
    assert len(logged) == 1
    (line,) = gzip.decompress(storage.read(logged[0])).splitlines()
    assert json.loads(line)["status"] == 200
    storage.close()
