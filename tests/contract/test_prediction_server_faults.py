"""The prediction server when something goes wrong: nobody's fault costs anybody else a prediction."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from runtime.storage import FileStorage
from tests.contract.prediction_server import MODEL, OBEDIENT, PredictionServer, ask, eventually, store_build

PREDICT = f"/v1/{MODEL}/predict"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> FileStorage:
    return FileStorage(tmp_path_factory.mktemp("storage"))


@pytest.fixture(scope="module")
def start(storage: FileStorage, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., PredictionServer]:
    folder = tmp_path_factory.mktemp("pods")
    build_id = store_build(storage, folder / "build", OBEDIENT)

    def started(*arguments: str, environ: Mapping[str, str] | None = None) -> PredictionServer:
        return PredictionServer(storage, folder, build_id, *arguments, environ=environ)

    return started


class Load:
    """Callers who ask without pause, each on a connection of its own, and connect again when told to."""

    def __init__(self, server: PredictionServer, callers: int = 4) -> None:
        self._server = server
        self._stop = threading.Event()
        self.statuses: Counter[int] = Counter()
        self.broken: list[str] = []  # requests that got no answer
        self.refused = 0  # connections that were not taken
        self._threads = [threading.Thread(target=self._ask) for _ in range(callers)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        eventually(lambda: self.statuses[200] > 20)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._stop.is_set():
            connection = self._server.connection()
            try:
                connection.connect()
            except ConnectionRefusedError:
                self.refused += 1
                return
            while not self._stop.is_set():
                try:
                    answer = ask(connection, "POST", PREDICT, {"values": [1]})
                except (OSError, http.client.HTTPException) as error:
                    self.broken.append(repr(error))
                    break
                self.statuses[answer.status] += 1
                if answer.headers.get("connection") == "close":
                    break
            connection.close()


def worker_of(server: PredictionServer) -> int:
    pid: int = server.predict({"values": []}).json["pid"]
    return pid


@pytest.fixture(params=["--preload", "each loads"])
def loading(request: pytest.FixtureRequest) -> list[str]:
    return [request.param] if request.param.startswith("-") else []


def test_a_call_that_hangs_gets_its_504_in_time_and_others_do_not_notice(
    start: Callable[..., PredictionServer], loading: list[str]
) -> None:
    with start("--workers=2", "--timeout-ms=500", *loading) as server, ThreadPoolExecutor(2) as callers:
        eventually(lambda: server.metric("trueup_workers_ready") == 2)
        with Load(server) as load:
            begun = time.monotonic()
            hanging = callers.submit(server.predict, {"sleep": 3600})
            answer = hanging.result()
            assert 0.45 < time.monotonic() - begun < 60
            assert answer.status == 504
            assert answer.json == {"message": "no answer within 500 ms"}
            eventually(lambda: answer.headers["x-request-id"] in server.log())
            eventually(lambda: server.metric("trueup_worker_replacements_total", reason="timeout") == 1)
            eventually(lambda: server.metric("trueup_workers_ready") == 2)
        assert set(load.statuses) == {200}
        assert not load.broken


def test_a_server_of_one_worker_is_not_ready_while_it_hangs_only_to_be_replaced(
    start: Callable[..., PredictionServer],
) -> None:
    with start("--workers=1", "--timeout-ms=1000", "--preload") as server:
        before = worker_of(server)
        assert server.predict({"sleep": 3600}).status == 504
        assert server.predict({"values": [2]}).json["sum"] == 2, "what waits meanwhile goes to the next worker"
        assert worker_of(server) != before
        assert not Path(f"/proc/{before}").exists() or "Z" in Path(f"/proc/{before}/stat").read_text()


def test_a_worker_killed_under_load_takes_no_request_but_its_own(
    start: Callable[..., PredictionServer], loading: list[str]
) -> None:
    with start("--workers=2", "--timeout-ms=60000", *loading) as server:
        eventually(lambda: server.metric("trueup_workers_ready") == 2)
        with Load(server) as load:
            before = load.statuses[200]
            os.kill(worker_of(server), signal.SIGKILL)
            eventually(lambda: server.metric("trueup_worker_replacements_total", reason="died") == 1)
            eventually(lambda: server.metric("trueup_workers_ready") == 2)
            eventually(lambda: load.statuses[200] > before + 100)
        assert not load.broken
        assert load.statuses[500] <= 1
        assert set(load.statuses) <= {200, 500}


def test_the_only_worker_may_die_and_what_waits_is_answered_by_the_next(
    start: Callable[..., PredictionServer],
) -> None:
    with start("--workers=1", "--timeout-ms=60000", "--preload") as server, ThreadPoolExecutor(4) as callers:
        slow = callers.submit(server.predict, {"sleep": 0.3, "die": True})
        time.sleep(0.1)
        waiting = [callers.submit(server.predict, {"values": [number]}) for number in range(3)]
        answer = slow.result()
        assert answer.status == 500
        assert answer.headers["x-exception-class"] == "WorkerDied"
        assert [future.result().json["sum"] for future in waiting] == [0, 1, 2]


def test_a_worker_that_dies_is_missed_at_once_though_a_process_that_it_forked_lives_on(
    start: Callable[..., PredictionServer],
) -> None:
    with start("--workers=1", "--timeout-ms=60000") as server:
        began = time.monotonic()
        answer = server.predict({"fork": 10, "die": True})
        assert answer.headers["x-exception-class"] == "WorkerDied"
        assert server.predict({"values": [1]}).json["sum"] == 1
        assert time.monotonic() - began < 9, "what it forked lives for ten"


def test_a_model_that_dies_of_every_request_is_started_again_more_and_more_slowly(
    start: Callable[..., PredictionServer],
) -> None:
    with start("--workers=1", "--timeout-ms=60000", "--preload") as server:
        answers: Counter[int] = Counter()
        retry_after, ready = set(), set()
        while answers[500] < 4:
            answer = server.predict({"die": True})
            answers[answer.status] += 1
            retry_after.add(answer.headers.get("retry-after"))
            ready.add(server.ask("GET", "/v2/health/ready").status)
        assert answers.keys() == {500, 503}
        assert retry_after == {None, "1"}
        assert 503 in ready
        assert server.metric("trueup_worker_replacements_total", reason="died") == 4
        assert server.ask("GET", "/v2/health/live").status == 200
        pauses = [event["pause_seconds"] for event in server.events() if "pause_seconds" in event]
    assert pauses == [0, 0.25, 0.5, 1]


def test_the_process_that_makes_workers_may_die_too(start: Callable[..., PredictionServer]) -> None:
    with start("--workers=1", "--timeout-ms=60000", "--preload") as server:
        worker = worker_of(server)
        template = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(template, signal.SIGKILL)
        eventually(lambda: "the process that makes workers died" in server.log())
        assert worker_of(server) == worker
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: server.metric("trueup_worker_replacements_total", reason="died") == 1)
        assert server.predict({"values": [3]}).json["sum"] == 3


def test_more_requests_than_may_wait_are_told_to_come_again(
    start: Callable[..., PredictionServer], tmp_path: Path
) -> None:
    arguments = ("--workers=1", "--timeout-ms=60000", "--preload")
    with (
        start(*arguments, environ={"TRUEUP_MAX_WAITING": "2", "TRUEUP_MAX_BODY_BYTES": "1000"}) as server,
        ThreadPoolExecutor(6) as callers,
    ):
        slow = callers.submit(server.predict, {"until": str(tmp_path / "gate"), "values": []})
        server.eventually_computes()
        futures = [callers.submit(server.predict, {"values": []}) for _ in range(4)]
        eventually(lambda: sum(future.done() for future in futures) == 2)
        (tmp_path / "gate").touch()
        answers = [future.result() for future in futures]
        assert slow.result().status == 200
        assert Counter(answer.status for answer in answers) == {200: 2, 503: 2}
        assert {answer.headers.get("retry-after") for answer in answers} == {None, "1"}
        assert server.predict({"values": [1] * 500}).status == 413


def test_a_recorder_that_dies_costs_records_and_no_prediction(start: Callable[..., PredictionServer]) -> None:
    with start("--workers=1", "--preload") as server:
        server.predict({"values": [1]})
        recorders = [pid for pid in _descendants(server.process.pid) if b"recorder" in _command(pid)]
        time.sleep(0.2)  # the record is on its way
        os.kill(recorders[0], signal.SIGKILL)
        assert server.predict({"values": [1]}).status == 200
        eventually(lambda: server.metric("trueup_inference_log_records_total", outcome="dropped") >= 1)
        assert server.predict({"values": [1]}).status == 200


def test_a_request_whose_caller_is_gone_is_not_computed(start: Callable[..., PredictionServer], tmp_path: Path) -> None:
    with start("--workers=1", "--timeout-ms=60000", "--preload") as server, ThreadPoolExecutor(1) as callers:
        slow = callers.submit(server.predict, {"until": str(tmp_path / "gate"), "values": []})
        server.eventually_computes()
        for number in range(3):
            with closing(server.connection()) as impatient:
                impatient.request("POST", PREDICT, json.dumps({"sleep": 60}), {"Content-Type": "application/json"})
                eventually(lambda number=number: server.metric("trueup_requests_waiting") == number + 1)
            eventually(lambda number=number: server.metric("trueup_requests_total", code="499") == number + 1)
        (tmp_path / "gate").touch()
        assert slow.result().status == 200
        assert server.predict({"values": [1]}).status == 200


def test_the_end_drains_without_a_failed_request(
    start: Callable[..., PredictionServer], storage: FileStorage, tmp_path: Path
) -> None:
    environ = {"TRUEUP_VARIATION": "drained"}
    with (
        start("--workers=2", "--timeout-ms=60000", "--preload", environ=environ) as server,
        ThreadPoolExecutor(1) as callers,
    ):
        idle, probe = server.connection(), server.connection()
        assert ask(idle, "GET", "/v2/health/ready").status == 200
        with Load(server) as load:
            slow = callers.submit(server.predict, {"until": str(tmp_path / "gate"), "values": [7]})
            eventually(lambda: server.metric("trueup_requests_unanswered") >= 1)
            server.process.send_signal(signal.SIGTERM)
            eventually(lambda: ask(probe, "GET", "/v2/health/ready").status == 503)
            last = ask(idle, "POST", PREDICT, {"values": [1]})
            assert (last.status, last.headers["connection"]) == (200, "close")
            (tmp_path / "gate").touch()
            answer = slow.result()
            assert (answer.status, answer.json["sum"]) == (200, 7)
            assert server.process.wait(60) == 0
        idle.close()
        probe.close()
        assert not load.broken
        assert set(load.statuses) == {200}
        assert load.refused > 0
    stored = [storage.read(key) for key in storage.list(f"inferences/environment=production/model={MODEL}/")]
    assert stored, "what was logged is flushed"


def test_nothing_is_left_when_the_server_is_killed(start: Callable[..., PredictionServer]) -> None:
    with start("--workers=2", "--timeout-ms=60000") as server, ThreadPoolExecutor(1) as callers:
        children = _descendants(server.process.pid)
        assert len(children) >= 3
        hanging = callers.submit(server.predict, {"sleep": 3600})
        time.sleep(0.1)
        server.process.kill()
        with pytest.raises((OSError, http.client.HTTPException)):
            hanging.result()
        eventually(lambda: not any(_is_alive(pid) for pid in children), 15)


def _descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
