"""The prediction server: what callers, probes, Prometheus and the inference log get of it."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from renderers.metrics import DURATION, REQUESTS
from runtime.storage import FileStorage
from tests.contract.prediction_server import (
    MODEL,
    OBEDIENT,
    REPOSITORY,
    VARIATION,
    PredictionServer,
    ask,
    eventually,
    store_build,
)

PREDICT = f"/v1/{MODEL}/predict"

#: Says how many rows it was given at once, and takes its time over the old until there is a file GATE.
ROWS = """
import os, time
from runtime.model import Model

class Rows(Model):
    def build(self):
        pass

    def predict(self, df):
        while df["age"].max() > 1000 and not os.path.exists(os.environ["GATE"]):
            time.sleep(0.01)
        if df["age"].min() < 0:
            raise ValueError("an age is not negative")
        return df.assign(rows=len(df))
"""

SCHEMA = {"inputs": [{"name": "age", "type": "int"}], "outputs": [{"name": "score", "type": "float"}]}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> FileStorage:
    return FileStorage(tmp_path_factory.mktemp("storage"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the pods: they share a cache, as those of one machine do."""
    return tmp_path_factory.mktemp("pods")


@pytest.fixture(scope="module")
def obedient(storage: FileStorage, tmp_path_factory: pytest.TempPathFactory) -> str:
    return store_build(storage, tmp_path_factory.mktemp("build"), OBEDIENT, SCHEMA)


@pytest.fixture(scope="module")
def rows(storage: FileStorage, tmp_path_factory: pytest.TempPathFactory) -> str:
    return store_build(storage, tmp_path_factory.mktemp("build"), ROWS)


@pytest.fixture(scope="module")
def server(storage: FileStorage, folder: Path, obedient: str) -> Iterator[PredictionServer]:
    """With two workers."""
    with PredictionServer(storage, folder, obedient, "--workers=2", "--timeout-ms=60000", "--preload") as started:
        yield started
        assert started.stop() == 0
        assert "Task exception" not in started.log()


@pytest.fixture(scope="module")
def tabular(storage: FileStorage, folder: Path, rows: str) -> Iterator[PredictionServer]:
    """Of a model that gets a DataFrame."""
    with PredictionServer(storage, folder, rows, "--workers=1") as started:
        yield started


def records(storage: FileStorage, variation: str) -> list[dict[str, Any]]:
    """Of the inference log."""
    prefix = f"inferences/environment=production/model={MODEL}/variation={variation}/"
    lines = [line for key in storage.list(prefix) for line in gzip.decompress(storage.read(key)).splitlines()]
    return [json.loads(line) for line in lines]


# -- predictions --


def test_a_prediction_is_answered_at_both_of_its_addresses(server: PredictionServer) -> None:
    for path in (PREDICT, f"/v1/{MODEL}/{VARIATION}/predict"):
        answer = server.ask("POST", path, {"values": [1, 2, 3]})
        assert (answer.status, answer.json["sum"]) == (200, 6)
        assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/", "/v1/other/predict", f"/v1/{MODEL}/other/predict", "/v2/models/other/infer"])
def test_what_is_not_served_here_is_not_found(server: PredictionServer, path: str) -> None:
    answer = server.ask("POST", path, {"values": [1]})
    assert answer.status == 404
    assert f"POST {PREDICT}" in answer.json["message"]


def test_every_answer_says_which_build_of_which_variation_gave_it(server: PredictionServer) -> None:
    for path, body in ((PREDICT, {"values": []}), (PREDICT, {"raise": "x"}), ("/nowhere", {}), ("/v2", None)):
        answer = server.ask("POST" if body is not None else "GET", path, body)
        assert answer.headers["x-trueup-variation"] == VARIATION
        assert answer.headers["x-trueup-build-id"] == server.build_id[:8]
        assert answer.headers["x-request-id"]


def test_the_ids_of_a_request_come_back_and_bad_ones_are_replaced(server: PredictionServer) -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    answer = server.predict({"values": []}, x_request_id="order-66", traceparent=parent)
    assert answer.headers["x-request-id"] == "order-66"
    assert answer.headers["traceparent"] == parent

    answer = server.predict({"values": []}, x_request_id="a b", traceparent="00-" + "0" * 32 + "-00f067aa0ba902b7-01")
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", answer.headers["traceparent"])


def test_a_model_that_raises_answers_500_with_its_class_and_the_traceback_is_in_the_log_only(
    server: PredictionServer,
) -> None:
    answer = server.predict({"raise": "no such plan"}, x_request_id="raises-1")
    assert answer.status == 500
    assert answer.headers["x-exception-class"] == "ValueError"
    assert answer.json == {"message": "ValueError: no such plan"}
    eventually(lambda: "raises-1" in server.log())
    (event,) = (event for event in server.events() if event.get("request_id") == "raises-1")
    assert 'raise ValueError(order["raise"])' in event["traceback"]
    assert len(event["trace_id"]) == 32


def test_a_model_may_choose_the_status_of_its_refusal(server: PredictionServer) -> None:
    answer = server.predict({"status": 422})
    assert answer.status == 422
    assert answer.json == {"message": "as it was told to"}
    assert server.predict({"status": 99}).status == 500


def test_a_model_that_exits_or_answers_what_json_cannot_hold_is_at_fault_and_goes_on(server: PredictionServer) -> None:
    assert server.predict({"exit": 3}).headers["x-exception-class"] == "SystemExit"
    assert server.predict({"object": True}).status == 500
    assert server.predict({"values": [1]}).status == 200


def test_nan_and_infinity_are_null_in_an_answer(server: PredictionServer) -> None:
    answer = server.predict({"nan": True})
    assert answer.body == b'{"nan":null,"infinity":null}'


def test_an_answer_may_be_large(server: PredictionServer) -> None:
    assert len(server.predict({"size": 30_000_000}).body) == 30_000_002


# -- the Open Inference Protocol --


def test_the_server_tells_of_itself_its_health_and_its_model(server: PredictionServer) -> None:
    assert server.ask("GET", "/v2").json["name"] == "trueup"
    assert server.ask("GET", "/v2/health/live").json == {"live": True}
    assert server.ask("GET", "/v2/health/ready").json["ready"] is True
    short = server.build_id[:8]
    for path in (f"/v2/models/{MODEL}", f"/v2/models/{MODEL}/versions/{short}"):
        assert server.ask("GET", path).json == {
            "name": MODEL,
            "versions": [short],
            "platform": "trueup",
            "inputs": [{"name": "age", "datatype": "INT64", "shape": [-1]}],
            "outputs": [{"name": "score", "datatype": "FP64", "shape": [-1]}],
        }
        assert server.ask("GET", f"{path}/ready").status == 200


def test_a_version_is_the_variation_or_its_build(server: PredictionServer) -> None:
    body = {"inputs": [{"name": "values", "shape": [2], "datatype": "INT64", "data": [1, 2]}]}
    for version in (VARIATION, server.build_id, server.build_id[:8]):
        place = f"/v2/models/{MODEL}/versions/{version}"
        assert server.ask("GET", f"{place}/ready").status == 200
        assert server.ask("GET", place).json["name"] == MODEL
        assert server.ask("POST", f"{place}/infer", body).status == 200
    assert server.ask("GET", f"/v2/models/{MODEL}/versions/another/ready").status == 404


def test_infer_takes_tensors_and_answers_tensors(server: PredictionServer) -> None:
    tensor = {"name": "values", "shape": [3], "datatype": "INT64", "data": [1, 2, 3]}
    request = {"id": "i-1", "inputs": [tensor], "outputs": [{"name": "output-0"}]}
    answer = server.ask("POST", f"/v2/models/{MODEL}/infer", request)
    assert answer.status == 200, answer.body
    assert answer.json["id"] == "i-1"
    assert answer.json["model_name"] == MODEL
    assert answer.json["model_version"] == server.build_id[:8]
    (output,) = answer.json["outputs"]
    assert json.loads(output["data"][0])["sum"] == 6


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"inputs": []}', b'{"inputs": [{"name": "a"}]}', b"{"])
def test_infer_refuses_what_is_no_request_of_the_protocol(server: PredictionServer, body: bytes) -> None:
    assert server.ask("POST", f"/v2/models/{MODEL}/infer", body).status == 400


# -- metrics --


def test_metrics_have_the_names_and_labels_that_dashboards_ask_for_and_begin_at_zero(
    storage: FileStorage, folder: Path, obedient: str
) -> None:
    with PredictionServer(storage, folder, obedient, "--workers=1", "--timeout-ms=700") as server:
        labels = f'model="{MODEL}",variation="{VARIATION}",build_id="{obedient[:8]}"'
        before = server.metrics()
        assert {before[f'{REQUESTS}{{{labels},code="{code}"}}'] for code in (200, 400, 413, 500, 503, 504)} == {0}
        assert before[f"{DURATION}_count{{{labels}}}"] == 0

        server.predict({"values": [1]})
        server.predict({"raise": "x"})
        server.ask("GET", "/v2/health/ready")  # counts as no prediction: probes would drown the failures
        after = server.metrics()
        assert after[f'{REQUESTS}{{{labels},code="200"}}'] == 1
        assert after[f'{REQUESTS}{{{labels},code="500"}}'] == 1
        assert sum(value for name, value in after.items() if name.startswith(REQUESTS)) == 2
        assert after[f"{DURATION}_count{{{labels}}}"] == 2
        assert after[f'{DURATION}_bucket{{{labels},le="+Inf"}}'] == 2
        assert 0 < after[f"{DURATION}_sum{{{labels}}}"] < 1
        # The alert on latency looks at this part of the time limit: there is a bound exactly there.
        assert after[f'{DURATION}_bucket{{{labels},le="0.56"}}'] == 2
        assert after["process_cpu_seconds_total"] > 0
        assert after["process_resident_memory_bytes"] > 10_000_000
        assert abs(after["process_start_time_seconds"] - Path(f"/proc/{server.process.pid}").stat().st_ctime) < 60


# -- batches --


@pytest.fixture
def gated(storage: FileStorage, folder: Path, rows: str, tmp_path: Path) -> Iterator[tuple[PredictionServer, Path]]:
    """A server of batches, and the file that it waits for."""
    gate = tmp_path / "gate"
    arguments = ("--workers=1", "--max-batch-size=4", "--timeout-ms=60000")
    with PredictionServer(storage, folder, rows, *arguments, environ={"GATE": str(gate)}) as server:
        yield server, gate


def test_requests_that_wait_together_are_computed_together_up_to_the_limit(
    gated: tuple[PredictionServer, Path],
) -> None:
    server, gate = gated
    with ThreadPoolExecutor(8) as callers:
        assert server.predict([{"age": 1}]).json == [{"age": 1, "rows": 1}], "nobody waits for company"
        slow = callers.submit(server.predict, [{"age": 2000}])
        server.eventually_computes()
        waiting = [callers.submit(server.predict, [{"age": age}, {"age": age}]) for age in range(4)]
        server.eventually_computes(waiting=4)
        larger = callers.submit(server.predict, [{"age": age} for age in range(6)])
        server.eventually_computes(waiting=5)
        gate.touch()
        assert slow.result().json[0]["rows"] == 1
        for age, future in enumerate(waiting):
            assert future.result().json == [{"age": age, "rows": 4}] * 2
        assert [row["rows"] for row in larger.result().json] == [6] * 6, "one request is never taken apart"


def test_a_bad_row_fails_its_own_request_and_no_other_of_the_batch(
    gated: tuple[PredictionServer, Path],
) -> None:
    server, gate = gated
    with ThreadPoolExecutor(8) as callers:
        slow = callers.submit(server.predict, [{"age": 2000}])
        server.eventually_computes()
        bodies: list[Any] = [[{"age": 1}], [{"age": -1}], b"{", [{"weight": 5}], [{"age": 2}]]
        asked = [callers.submit(server.predict, body) for body in bodies]
        server.eventually_computes(waiting=5)
        gate.touch()
        answers = [future.result() for future in asked]
        assert slow.result().status == 200
        assert [answer.status for answer in answers] == [200, 500, 400, 500, 200]
        assert answers[4].json[0]["age"] == 2


@pytest.mark.parametrize(
    "body",
    [
        {"columns": ["age"], "index": [7], "data": [[41]]},
        {"columns": ["age"], "data": [[41]]},
        [{"age": 41}],
        {"age": [41]},
        {"age": 41},
    ],
)
def test_rows_may_come_in_each_of_their_forms(tabular: PredictionServer, body: Any) -> None:
    assert tabular.predict(body).json == [{"age": 41, "rows": 1}]


def test_infer_makes_columns_of_tensors_and_tensors_of_columns(tabular: PredictionServer) -> None:
    tensor = {"name": "age", "shape": [2, 1], "datatype": "FP64", "data": [[41], [5.5]]}
    answer = tabular.ask("POST", f"/v2/models/{MODEL}/infer", {"inputs": [tensor], "outputs": [{"name": "rows"}]})
    (output,) = answer.json["outputs"]
    assert output == {"name": "rows", "shape": [2], "datatype": "INT64", "data": [2, 2]}


# -- the inference log --


def test_the_log_has_each_prediction_without_its_excluded_columns(
    storage: FileStorage, folder: Path, obedient: str
) -> None:
    with PredictionServer(storage, folder, obedient, "--workers=1", environ={"TRUEUP_VARIATION": "logged"}) as server:
        parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        body = {"values": [1, 2], "name": "Ada"}
        server.predict(body, x_request_id="r-1", traceparent=parent, x_trueup_audience="california")
        server.predict({"raise": "x"})
        server.predict(b"no JSON")
        assert server.stop() == 0
    found = records(storage, "logged")
    assert [record["status"] for record in found] == [200, 500, 400]
    first = found[0]
    assert first["input"] == {"values": [1, 2]}
    assert first["output"]["sum"] == 3
    assert first["request_id"] == "r-1"
    assert first["trace_id"] == parent[3:35]
    assert first["build_id"] == obedient
    assert (first["variation"], first["environment"], first["audience"]) == ("logged", "production", "california")
    assert 0 < first["duration_ms"] < 1000
    assert first["shadow"] is False
    assert found[2]["input"] is None
    assert found[2]["input_bytes"] == 7
    (key,) = storage.list(f"inferences/environment=production/model={MODEL}/variation=logged/")
    assert re.search(r"/date=\d{4}-\d\d-\d\d/hour=\d\d/screening-main-0-[0-9a-f]{8}-0\.jsonl\.gz$", key)


@pytest.mark.parametrize(("length", "kept"), [(100_000, True), (1_000_000, False)])
def test_what_a_model_logs_itself_is_in_the_record_unless_it_is_too_large(
    storage: FileStorage, folder: Path, length: int, kept: bool
) -> None:
    source = OBEDIENT.replace("def predict(self, order):", "def predict(self, order, analytics_logger):").replace(
        'if "sleep" in order:', 'analytics_logger.log("n" * order["log"])\n        if "sleep" in order:'
    )
    build_id = store_build(storage, folder / f"logger-{length}", source + f"\n# {length}\n")
    variation = f"noted-{length}"
    with PredictionServer(storage, folder, build_id, "--workers=1", environ={"TRUEUP_VARIATION": variation}) as server:
        assert server.predict({"log": length, "values": [1]}).status == 200
        assert server.stop() == 0
    (record,) = records(storage, variation)
    assert record.get("logged") == (["n" * length] if kept else None)
    assert record["logged_bytes"] == length + 4


def test_a_shadow_takes_copies_for_every_variation_and_its_log_says_what_it_is(
    storage: FileStorage, folder: Path, obedient: str
) -> None:
    with PredictionServer(
        storage, folder, obedient, "--workers=1", "--shadow", environ={"TRUEUP_VARIATION": "shadow"}
    ) as server:
        assert server.ask("POST", f"/v1/{MODEL}/{VARIATION}/predict", {"values": [1]}).status == 200
        assert server.stop() == 0
    assert [record["shadow"] for record in records(storage, "shadow")] == [True]


def test_a_sample_of_nothing_writes_nothing(storage: FileStorage, folder: Path, obedient: str) -> None:
    environ = {"TRUEUP_VARIATION": "silent", "TRUEUP_INFERENCE_SAMPLE_RATIO": "0"}
    with PredictionServer(storage, folder, obedient, "--workers=1", environ=environ) as server:
        assert server.ask("POST", f"/v1/{MODEL}/predict", {"values": [1]}).status == 200
        assert server.stop() == 0
    assert records(storage, "silent") == []


def test_a_storage_that_is_down_costs_records_and_no_prediction(
    storage: FileStorage, folder: Path, obedient: str
) -> None:
    environ = {"TRUEUP_ARTIFACT_STORAGE": storage.url, "TRUEUP_OBJECT_STORAGE": "file:///proc/nowhere"}
    with PredictionServer(storage, folder, obedient, "--workers=1", environ=environ) as server:
        connection = server.connection()
        for _ in range(100):
            assert ask(connection, "POST", PREDICT, {"values": [1]}).status == 200
        connection.close()
        begun = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begun < 20


# -- start --


@pytest.mark.parametrize(("arguments", "loads"), [(("--preload",), 1), ((), 3)])
def test_daemon_mode_loads_the_model_once_for_all_workers(
    storage: FileStorage, obedient: str, tmp_path: Path, arguments: tuple[str, ...], loads: int
) -> None:
    counted = tmp_path / "loads"
    with PredictionServer(
        storage, tmp_path, obedient, "--workers=3", *arguments, environ={"LOADS": str(counted)}
    ) as server:
        eventually(lambda: server.metric("trueup_workers_ready") == 3)
    assert counted.read_text().splitlines() == ["loaded"] * loads


def test_a_build_that_is_not_there_yet_is_worth_another_try(storage: FileStorage, folder: Path) -> None:
    with PredictionServer(storage, folder, "f" * 64, wait=False) as server:
        assert server.process.wait(20) == 1
        assert f"build ffffffff of {MODEL} is not built yet" in server.log()


def test_an_artifact_that_is_damaged_is_not_served(storage: FileStorage, folder: Path, tmp_path: Path) -> None:
    build_id = store_build(storage, tmp_path, ROWS + "# damaged\n")
    (key,) = (key for key in storage.list(f"builds/{MODEL}/{build_id}/") if "artifact" in key)
    with (storage.root / key).open("r+b") as file:
        file.seek(100)
        file.write(b"?")
    with PredictionServer(storage, folder, build_id, wait=False) as server:
        assert server.process.wait(20) == 4
        assert f"{key} is damaged" in server.log()


def test_a_model_that_cannot_be_loaded_ends_the_server_with_the_reason(
    storage: FileStorage, folder: Path, tmp_path: Path
) -> None:
    source = ROWS + '\n    def initialize_model(self):\n        raise RuntimeError("no feature table")\n'
    build_id = store_build(storage, tmp_path, source)
    for arguments in ([], ["--preload"]):
        with PredictionServer(storage, folder, build_id, *arguments, wait=False) as server:
            assert server.process.wait(20) == 3
            assert "no feature table" in server.events()[-1]["message"]


def test_while_the_model_is_loaded_the_server_lives_and_is_not_ready_and_it_may_be_ended(
    storage: FileStorage, folder: Path, tmp_path: Path
) -> None:
    source = ROWS + "\n    def initialize_model(self):\n        time.sleep(60)\n"
    build_id = store_build(storage, tmp_path, source)
    with PredictionServer(storage, folder, build_id, "--preload", wait=False) as server:
        eventually(lambda: server.is_open() and server.ask("GET", "/v2/health/live").status == 200)
        assert server.ask("GET", "/v2/health/ready").status == 503
        assert server.predict([{"age": 1}]).json == {"message": "the model is being loaded"}
        begun = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begun < 40


def test_pods_that_start_at_once_share_one_cache(storage: FileStorage, tmp_path: Path, obedient: str) -> None:
    pods = [PredictionServer(storage, tmp_path, obedient, "--workers=1", wait=False) for _ in range(3)]
    try:
        for pod in pods:
            eventually(lambda pod=pod: "ready at" in pod.log() or pod.process.poll() is not None, 60)  # type: ignore[misc]
            assert pod.predict({"values": [2, 2]}).json["sum"] == 4, pod.log()
        assert len(list((tmp_path / "cache" / "artifacts").iterdir())) == 1
    finally:
        for pod in pods:
            pod.__exit__()


def test_the_server_needs_nothing_of_the_bootstrap_but_its_arguments(tmp_path: Path) -> None:
    """The model's environment has the runtime itself, and neither boto3 nor any of the rest."""
    blocked = "import sys; sys.modules.update(dict.fromkeys(['boto3', 'botocore', 'granian', 'pydantic', 'urllib3']));"
    code = blocked + "import runtime.server.__main__, runtime.server.worker"
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-P", "-c", code], env=environ, check=True, cwd=tmp_path)
