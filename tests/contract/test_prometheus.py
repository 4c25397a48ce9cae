"""Prometheus as it is: what its answers are read as, that the numbers of checks come out right, and how it fails."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from reconciler.gates import Sample, expressions
from reconciler.gates.checks import Subject
from reconciler.prometheus import LIMIT, Prometheus
from reconciler.warehouse import QueryError
from renderers.metrics import REQUESTS
from schemas.variation import Check
from tests.contract.prometheus_server import Exporter, PrometheusServer, eventually, needs_prometheus, now

pytestmark = needs_prometheus

PROMTOOL = shutil.which("promtool")

BUILDS = {"fast": "1a2b3c4d", "slow": "3f9a1c2e", "reset": "5b6c7d8e", "gone": "7d8e9fa0", "idle": "9fa0b1c2"}


def pod(build: str, suffix: str = "abcde") -> tuple[str, str]:
    return "production", f"churn-default-{build}-7f9c5d6b8-{suffix}"


def exporter(build: str) -> Exporter:
    return Exporter({"model": "churn", "variation": "default", "build_id": build})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """Builds with known requests: of `slow` 1,000 at two pods, 25 of them failed."""
    pods = {name: exporter(build) for name, build in BUILDS.items()}
    other = exporter(BUILDS["slow"])
    # Names that begin like those of `slow`: of another variation, and of the same one in another namespace.
    strangers = [exporter(BUILDS["slow"]) for _ in range(2)]
    targets = {pod(BUILDS[name]): one for name, one in pods.items()} | {
        pod(BUILDS["slow"], "fghij"): other,
        ("production", f"churn-default-{BUILDS['slow']}-eu-7f9c5d6b8-abcde"): strangers[0],
        ("staging", pod(BUILDS["slow"])[1]): strangers[1],
    }
    running = PrometheusServer(tmp_path_factory.mktemp("prometheus"), targets)
    scraped = ScrapedBy(running)
    scraped.next(len(targets))
    pods["fast"].serve(400, seconds=0.04)
    pods["slow"].serve(600, failed=25, seconds=0.2)
    other.serve(400, seconds=0.4)
    for stranger in strangers:
        stranger.serve(500, failed=500, seconds=2)
    pods["reset"].serve(100, failed=100)
    pods["gone"].serve(200, failed=10)
    scraped.next(len(targets))
    pods["reset"].restart()
    pods["gone"].stop()
    pods["reset"].serve(60, failed=20)
    scraped.next(len(targets) - 1)
    yield running
    running.stop()
    for one in (*pods.values(), other, *strangers):
        if one is not pods["gone"]:
            one.stop()


class ScrapedBy:
    """Waits for scrapes of all targets."""

    def __init__(self, server: PrometheusServer) -> None:
        self._server = server

    def next(self, pods: int) -> None:
        """Until so many pods have been scraped since now."""
        began = time.clock_gettime(time.CLOCK_REALTIME)
        with Prometheus(self._server.url, 30) as prometheus:

            def scraped() -> bool:
                series = prometheus.ask(f'min by (pod, namespace) (timestamp({REQUESTS}{{code="200"}}))', now()).series
                fresh = [sample for sample in series if float(sample.value) > began + 0.6]
                return len(fresh) == pods

            eventually(scraped, "all pods are scraped")


def ask(server: PrometheusServer, expression: str) -> tuple[Sample, ...]:
    with Prometheus(server.url) as prometheus:
        return prometheus.ask(expression, now()).series


def of_check(server: PrometheusServer, build: str, **fields: Any) -> tuple[str | None, str | None]:
    """The value of a check and the requests that it counted; None where there are no series."""
    known = {"name": "check", "threshold": "1", "window": "1m"} | fields
    subject = Subject("production", "churn", "default", BUILDS[build])
    asked = expressions(Check.model_validate(known), subject, None)
    assert asked.requests is not None
    values = []
    for expression in (asked.value, asked.requests):
        series = ask(server, expression)
        assert len(series) <= 1
        values.append(series[0].value if series else None)
    return values[0], values[1]


# -- the numbers ------------------------------------------------------------------------------------------------------


def test_25_of_1000_requests_are_2_5_percent(server: PrometheusServer) -> None:
    """Of both pods, whichever answered; and of no other Deployment's, whose names begin alike."""
    value, _ = of_check(server, "slow", metric="error_rate")
    assert value == "2.5"


def test_no_failed_request_is_zero(server: PrometheusServer) -> None:
    assert of_check(server, "fast", metric="error_rate")[0] == "0"


@pytest.mark.parametrize(
    ("metric", "slow", "fast"),
    [
        ("latency_avg", "280", "40"),  # 600 of 200 ms and 400 of 400 ms
        ("latency_p50", "225", "37.5"),  # 500 of 600 in the bucket from 100 to 250 ms
        ("latency_p90", "437.5", "47.5"),
        ("latency_p95", "468.75", "48.75"),
        ("latency_p99", "493.75", "49.75"),
    ],
)
def test_latency_is_in_milliseconds(server: PrometheusServer, metric: str, slow: str, fast: str) -> None:
    assert of_check(server, "slow", metric=metric)[0] == slow
    assert of_check(server, "fast", metric=metric)[0] == fast


def test_requests_are_counted_over_all_pods(server: PrometheusServer) -> None:
    assert of_check(server, "slow", metric="error_rate")[1] == "1000"
    assert of_check(server, "fast", metric="error_rate")[1] == "400"


def test_a_counter_that_begins_anew_does_not_hide_what_it_counted_before(server: PrometheusServer) -> None:
    """100 of 100 failed, then the container was started again, and 20 of 60 failed."""
    value, requests = of_check(server, "reset", metric="error_rate")
    assert value is not None
    assert requests is not None
    assert float(value) == pytest.approx(75, abs=5)  # what Prometheus estimates after a restart
    assert float(requests) > 155


def test_a_pod_that_is_gone_still_counts_while_its_samples_are_in_the_window(server: PrometheusServer) -> None:
    assert of_check(server, "gone", metric="error_rate")[0] == "5"


def test_a_build_without_requests_has_no_error_rate(server: PrometheusServer) -> None:
    assert of_check(server, "idle", metric="error_rate") == ("NaN", "0")
    assert of_check(server, "idle", metric="latency_avg")[0] == "NaN"
    assert of_check(server, "idle", metric="latency_p99")[0] == "NaN"


def test_a_build_that_nobody_scrapes_has_no_series(server: PrometheusServer) -> None:
    missing = Subject("production", "churn", "default", "0" * 8)
    for metric in ("error_rate", "latency_avg", "latency_p99"):
        check = Check.model_validate({"name": "check", "metric": metric, "threshold": "1"})
        asked = expressions(check, missing, None)
        assert asked.requests is not None
        assert ask(server, asked.value) == ask(server, asked.requests) == ()


def test_a_query_of_ones_own_finds_its_build_by_the_labels_of_the_server(server: PrometheusServer) -> None:
    query = (
        f'sum(increase({REQUESTS}{{namespace="$namespace",variation="$variation",build_id="$build_id",'
        'pod!~".*-eu-.*",code="500"}[$window])) > bool 0'
    )
    assert of_check(server, "slow", query=query)[0] == "1"
    assert of_check(server, "fast", query=query)[0] == "0"


# -- the numbers over time --------------------------------------------------------------------------------------------

OLD, NEW = (f"churn-default-3f9a1c2e-7f9c5d6b8-{suffix}" for suffix in ("abcde", "fghij"))
#: Values of (successes, failures) at each pod, every 15 seconds; what is asked for is minutes 5 to 10.
OVER_TIME: dict[str, tuple[dict[str, tuple[str, str]], Any, int | None]] = {
    "steady": ({OLD: ("0+39x40", "0+1x40")}, 2.5, 800),
    "only before": ({OLD: ("0+39x20 780x20", "0+9x20 180x20")}, "NaN", 0),
    "a pod that is two minutes old": ({OLD: ("0+38x40", "0+2x40"), NEW: ("_x32 0+19x8", "_x32 0+1x8")}, 5, 960),
    "a pod that has gone": ({OLD: ("0+20x40", "0x40"), NEW: ("0+20x24 stale", "0+20x24 stale")}, 100 / 7, 560),
    "failures that begin": ({OLD: ("0+10x40", "0x36 0+25x3")}, 100 * 75 / 275, 275),
    "all pods gone": ({OLD: ("0+20x10 stale", "0+20x10 stale")}, None, None),
    # The container began anew in minute 7: there are 8 intervals before it and 11 after it.
    "a restart": ({OLD: ("0+30x28 0+30x12", "0+10x28 0+10x12")}, 25, 760),
}


@pytest.mark.parametrize("case", OVER_TIME)
def test_a_check_sees_what_happened_in_its_window(case: str, tmp_path: Path) -> None:
    assert PROMTOOL is not None, "CI has to install promtool"
    pods, percent, requests = OVER_TIME[case]
    check = Check.model_validate({"name": "errors", "metric": "error_rate", "threshold": "1"})
    asked = expressions(check, Subject("production", "churn", "default", "3f9a1c2e"), None)
    # A test of promtool cannot expect NaN, which is what equals nothing.
    value = (f"({asked.value}) == bool ({asked.value})", 0) if percent == "NaN" else (asked.value, percent)
    answers = dict([value, (asked.requests, requests)])
    test = {
        "interval": "15s",
        "input_series": [
            {"series": f'{REQUESTS}{{namespace="production",pod="{pod}",code="{code}"}}', "values": values}
            for pod, both in pods.items()
            for code, values in zip(("200", "500"), both, strict=True)
        ],
        "promql_expr_test": [
            {
                "expr": expression,
                "eval_time": "10m",
                "exp_samples": [] if value is None else [{"labels": "{}", "value": round(value, 6)}],
            }
            for expression, value in answers.items()
        ],
    }
    file = tmp_path / "checks.yaml"
    file.write_text(json.dumps({"evaluation_interval": "15s", "tests": [test]}))
    done = subprocess.run([PROMTOOL, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# -- answers ----------------------------------------------------------------------------------------------------------


def test_an_answer_has_the_labels_and_the_text_of_each_series(server: PrometheusServer) -> None:
    series = ask(server, f'max by (build_id, code) ({REQUESTS}{{namespace="staging",code=~"[25]00"}})')
    assert {(sample.labels["code"], sample.value) for sample in series} == {("200", "0"), ("500", "500")}
    assert all(sample.labels["build_id"] == BUILDS["slow"] for sample in series)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("vector(0) / 0", "NaN"),
        ("vector(1) / 0", "+Inf"),
        ("vector(-1) / 0", "-Inf"),
        ("vector(1e30)", "1e+30"),
        ("vector(0.1) + 0.2", "0.30000000000000004"),
        ("1 + 1", "2"),
    ],
)
def test_a_value_stays_the_text_that_prometheus_wrote(server: PrometheusServer, expression: str, value: str) -> None:
    assert [sample.value for sample in ask(server, expression)] == [value]


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("sum(", "Syntax"),
        ("no_such_function(x)", "Syntax"),
        (f"{REQUESTS}[5m]", "NotAllowed"),
        ('"text"', "NotAllowed"),
        (f'{REQUESTS} * on (model) {REQUESTS}{{code="200"}}', "Failed"),
    ],
)
def test_a_wrong_query_is_not_asked_again(server: PrometheusServer, expression: str, reason: str) -> None:
    with pytest.raises(QueryError) as caught:
        ask(server, expression)
    assert (caught.value.reason, caught.value.retryable) == (reason, False)


def test_one_instant_has_one_answer(server: PrometheusServer) -> None:
    """What is compared is measured at the same time, and can be asked for again."""
    at = now()
    with Prometheus(server.url) as prometheus:
        first = prometheus.ask("time()", at).series
        time.sleep(0.01)
        second = prometheus.ask("time()", at).series
    assert first == second
    assert Decimal(first[0].value) == pytest.approx(Decimal(at.timestamp()), abs=Decimal("0.002"))


# -- a world that is in the way ---------------------------------------------------------------------------------------


class Wrong:
    """A server that answers as it is told to, whatever it is asked."""

    def __init__(self, status: int, body: bytes, headers: dict[str, str] | None = None, drip: float = 0) -> None:
        wrong = self
        self.asked = 0

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                wrong.asked += 1
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                try:
                    for at in range(0, len(body), 1 if drip else 65536):
                        self.wfile.write(body[at : at + (1 if drip else 65536)])
                        time.sleep(drip)
                except OSError:
                    pass  # it was hung up on

            do_GET = do_POST  # noqa: N815 - where a redirect would lead

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def fails_with(self, timeout_s: float = 5.0) -> QueryError:
        try:
            with Prometheus(self.url, timeout_s) as prometheus, pytest.raises(QueryError) as caught:
                prometheus.ask("up", now())
        finally:
            self._server.shutdown()
            self._server.server_close()
        return caught.value


@pytest.mark.parametrize(
    ("status", "body", "reason", "retryable"),
    [
        (502, b"<html>Bad Gateway</html>", "Failed", True),
        (503, b'{"status":"error","errorType":"unavailable","error":"starting"}', "Unavailable", True),
        (503, b'{"status":"error","errorType":"timeout","error":"query timed out"}', "Timeout", True),
        (429, b"slow down", "Failed", True),
        (401, b"who are you", "Permission", False),
        (404, b"404 page not found", "Failed", False),
        (200, b"<html>Welcome</html>", "Failed", False),
        (200, b"", "Failed", False),
        (200, b"[]", "Failed", False),
        (200, b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{}}]}}', "Failed", False),
        (
            200,
            b'{"status":"success","data":{"resultType":"vector","result":[]},"warnings":["store-2 did not answer"]}',
            "Partial",
            True,
        ),
    ],
)
def test_what_is_no_whole_answer_is_an_error(status: int, body: bytes, reason: str, retryable: bool) -> None:
    error = Wrong(status, body).fails_with()
    assert (error.reason, error.retryable) == (reason, retryable)


def test_a_redirect_is_not_followed() -> None:
    other = Wrong(200, b"{}")
    error = Wrong(307, b"", {"Location": f"{other.url}/api/v1/query"}).fails_with()
    assert (error.reason, error.retryable, other.asked) == ("NotAllowed", False, 0)
    other.fails_with()


def test_an_answer_without_end_is_left() -> None:
    assert Wrong(200, b"x" * (LIMIT + 1)).fails_with().reason == "TooLarge"


def test_a_compressed_answer_is_not_unpacked() -> None:
    error = Wrong(200, b"\x1f\x8b\x08\x00", {"Content-Encoding": "gzip"}).fails_with()
    assert error.reason == "Failed"


def test_an_answer_that_comes_byte_by_byte_is_late() -> None:
    began = time.monotonic()
    error = Wrong(200, b"x" * 1000, drip=0.05).fails_with(0.5)
    assert (error.reason, error.retryable) == ("Timeout", True)
    assert time.monotonic() - began < 30, "all of it takes fifty"


def test_silence_is_a_timeout_and_all_questions_share_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with Prometheus(url, 0.3) as prometheus:
            for _ in range(100):
                with pytest.raises(QueryError) as caught:
                    prometheus.ask("up", now())
                assert (caught.value.reason, caught.value.retryable) == ("Timeout", True)
        assert time.monotonic() - began < 20


def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Prometheus(f"http://127.0.0.1:{port}") as prometheus, pytest.raises(QueryError) as caught:
        prometheus.ask("up", now())
    assert (caught.value.reason, caught.value.retryable) == ("Unavailable", True)
    assert caught.value.message == f"127.0.0.1:{port} cannot be reached: nobody answers there"
