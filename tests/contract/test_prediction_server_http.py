"""The prediction server's HTTP: what it understands, what it refuses, and how much it lets a client take of it."""

from __future__ import annotations

import gzip
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.storage import FileStorage
from tests.contract.prediction_server import (
    MODEL,
    OBEDIENT,
    PredictionServer,
    ask,
    drained,
    eventually,
    free_ports,
    store_build,
)

PREDICT = f"/v1/{MODEL}/predict"
BODY = b'{"values": [1, 2]}'
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PredictionServer]:
    folder = tmp_path_factory.mktemp("server")
    storage = FileStorage(folder / "storage")
    build_id = store_build(storage, folder / "build", OBEDIENT)
    with PredictionServer(storage, folder, build_id, "--workers=2", "--timeout-ms=60000", "--preload") as started:
        yield started
        assert started.stop() == 0
        assert "Traceback (most recent call last)" not in started.log()


def request(*headers: str, method: str = "POST", path: str = PREDICT, body: bytes = b"", host: str = "a") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def with_length(body: bytes = BODY, *more: str) -> bytes:
    return request(f"Content-Length: {len(body)}", *more, body=body)


def statuses(received: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


# -- what is refused --


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("GET", PREDICT, 405, "POST"),
        ("DELETE", PREDICT, 405, "POST"),
        ("POST", "/v2/health/ready", 405, "GET, HEAD"),
        ("POST", "/v2", 405, "GET, HEAD"),
        ("POST", "/nowhere", 404, None),
        ("GET", "/", 404, None),
    ],
)
def test_methods_and_paths(server: PredictionServer, method: str, path: str, status: int, allowed: str | None) -> None:
    answer = server.ask(method, path, BODY if method == "POST" else None)
    assert answer.status == status
    assert answer.headers.get("allow") == allowed
    assert answer.json["message"]


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (BODY, "application/json", 200),
        (BODY, "application/vnd.api+json; charset=utf-8", 200),
        (BODY, "application/x-www-form-urlencoded", 200),  # what curl says of everything: the body is JSON
        (b"age=41", "application/x-www-form-urlencoded", 415),
        (b"<age>41</age>", "application/xml", 415),
        (b"{", "application/json", 400),
        (b'{"values": [1, NaN]}', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"", "application/json", 400),
    ],
)
def test_bodies_and_their_types(server: PredictionServer, body: bytes, content_type: str, status: int) -> None:
    answer = server.ask("POST", PREDICT, body, {"Content-Type": content_type})
    assert answer.status == status, answer.body
    assert "message" in answer.json or status == 200
    assert "x-exception-class" not in answer.headers


def test_tensors_come_as_json(server: PredictionServer) -> None:
    answer = server.ask("POST", f"/v2/models/{MODEL}/infer", b"x", {"Content-Type": "application/octet-stream"})
    assert answer.status == 415


@pytest.mark.parametrize(
    "data",
    [
        request("Content-Length: 18", "Content-Length: 18", body=BODY),
        request("Content-Length: 18", "Content-Length: 5", body=BODY),
        request("Content-Length: 18", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        request("Transfer-Encoding: chunked", "Content-Length: 18", body=b"0\r\n\r\n"),
        request("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        request("Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
        request("Content-Length : 18", body=BODY),
        request("Content-Length: +18", body=BODY),
        request("Content-Length: 18", "Host: b", body=BODY),
        request("Content-Length: 18", "Content-Type: application/json", "Content-Type: text/xml", body=BODY),
        request("X-Folded: a", " b", "Content-Length: 18", body=BODY),
        request("X-Null: a\0b", "Content-Length: 18", body=BODY),
        b"POST " + PREDICT.encode() + b" HTTP/1.1\r\nContent-Length: 18\r\n\r\n" + BODY,
        b"POST " + PREDICT.encode() + b" HTTP/1.1\nHost: a\nContent-Length: 18\n\n" + BODY,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_a_message_that_two_servers_could_read_in_two_ways_is_refused_and_its_connection_ended(
    server: PredictionServer, data: bytes
) -> None:
    received = server.raw(data + with_length())
    assert statuses(received) in ([400], [501]), received
    assert b"connection: close" in received
    assert b"x-trueup-build-id: " in received


def test_transfer_codings_but_chunked_are_not_understood(server: PredictionServer) -> None:
    assert statuses(server.raw(request("Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"))) == [501]


def test_a_version_that_is_not_spoken_is_told(server: PredictionServer) -> None:
    assert statuses(server.raw(b"GET /v2 HTTP/2.0\r\nHost: a\r\n\r\n")) == [505]


@pytest.mark.parametrize("header", ["X-Large: " + "a" * 70_000, "\r\n".join(f"X-{i}: {'b' * 100}" for i in range(700))])
def test_headers_that_are_too_large_are_refused(server: PredictionServer, header: str) -> None:
    received = server.raw(request(header, "Content-Length: 18", body=BODY))
    assert statuses(received) == [431]
    assert json.loads(received.partition(b"\r\n\r\n")[2])["message"]


@pytest.mark.parametrize("name", ["Content-Type", "Adapter-Name"])
def test_a_long_header_that_workers_are_told_of_kills_none_of_them(server: PredictionServer, name: str) -> None:
    # In UTF-8 it is twice as long, which is more than a frame's text holds.
    header = f"{name}: ".encode() + b"\xe9" * 60_000 + b"\r\nConnection: close\r\nContent-Length: %d" % len(BODY)
    received = server.raw(b"POST %b HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n%b" % (PREDICT.encode(), header, BODY))
    assert statuses(received) in ([200], [415])
    assert server.metric("trueup_worker_replacements_total", reason="died") == 0


def test_a_header_without_end_takes_no_memory(server: PredictionServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 5) as client:
        client.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nX-Endless: ".encode())
        answered = False
        for _ in range(100):
            try:
                client.sendall(b"a" * 65_536)
            except (BrokenPipeError, ConnectionResetError):
                answered = True
                break
        assert answered or statuses(drained(client)) == [431]
    assert server.predict({"values": [1]}).status == 200


# -- large bodies --


def resident(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def test_a_hundred_megabytes_are_refused_before_they_are_read(server: PredictionServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 5) as client:
        client.sendall(request(f"Content-Length: {100 * MIB}"))
        received = client.recv(65_536)
    assert statuses(received) == [413]
    assert b"16777216 bytes" in received


def test_a_hundred_megabytes_of_unknown_length_are_not_held_in_memory(server: PredictionServer) -> None:
    before = resident(server.process.pid)
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        client.sendall(request("Transfer-Encoding: chunked"))
        chunk = b"%x\r\n" % MIB + b"1" * MIB + b"\r\n"
        for _ in range(100):
            client.sendall(chunk)
        client.shutdown(socket.SHUT_WR)
        received = drained(client)
    assert statuses(received) == [413], "the client that sends to the end still gets its answer"
    assert resident(server.process.pid) - before < 24 * MIB


def test_a_body_below_the_limit_is_taken(server: PredictionServer) -> None:
    numbers = [1] * 5_000_000
    assert server.predict({"values": numbers}).json["sum"] == 5_000_000


def test_a_body_in_gzip_is_unpacked_and_no_further_than_the_limit(server: PredictionServer) -> None:
    packed = {"Content-Encoding": "gzip"}
    assert server.ask("POST", PREDICT, gzip.compress(BODY), packed).json["sum"] == 3
    assert server.ask("POST", PREDICT, gzip.compress(b"1" * (100 * MIB)), packed).status == 413
    assert server.ask("POST", PREDICT, BODY, packed).status == 400
    assert server.ask("POST", PREDICT, gzip.compress(BODY)[:-4], packed).status == 400
    assert server.ask("POST", PREDICT, gzip.compress(BODY) + b"x", packed).status == 400
    assert server.ask("POST", PREDICT, BODY, {"Content-Encoding": "br"}).status == 415


# -- what is understood --


def test_chunked_bodies_with_extensions_and_trailers_are_understood(server: PredictionServer) -> None:
    chunks = b'5;a=b\r\n{"val\r\nD\r\nues": [1, 2]}\r\n0\r\nX-Checksum: 1\r\n\r\n'
    received = server.raw(request("Transfer-Encoding: chunked", body=chunks) + with_length(BODY, "Connection: close"))
    assert statuses(received) == [200, 200]


def test_a_client_that_expects_100_continue_is_told_to_go_on(server: PredictionServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 5) as client:
        client.sendall(request("Content-Length: 18", "Expect: 100-continue", "Connection: close"))
        assert client.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(BODY)
        assert statuses(drained(client)) == [200]


def test_a_client_that_expects_100_continue_is_told_before_it_sends_what_nobody_wants(
    server: PredictionServer,
) -> None:
    expecting = ("Content-Length: 18", "Expect: 100-continue")
    assert statuses(server.raw(request(*expecting, path="/nowhere"))) == [404]
    assert statuses(server.raw(request(f"Content-Length: {100 * MIB}", expecting[1]))) == [413]
    assert statuses(server.raw(request("Content-Length: 18", "Expect: tea"))) == [417]


def test_head_is_answered_like_get_without_the_body(server: PredictionServer) -> None:
    received = server.raw(request("Connection: close", method="HEAD", path="/v2/health/live"))
    assert statuses(received) == [200]
    assert b"content-length: 14\r\n" in received
    assert received.endswith(b"\r\n\r\n")


def test_requests_sent_ahead_are_answered_in_their_order(server: PredictionServer) -> None:
    bodies = [json.dumps({"values": [number], "sleep": 0.01 * (number == 0)}).encode() for number in range(50)]
    received = server.raw(b"".join(map(with_length, bodies)) + request("Connection: close", method="GET", path="/v2"))
    assert statuses(received) == [200] * 51
    assert [int(found) for found in re.findall(rb'"sum":(\d+)', received)] == list(range(50))


def test_a_bad_message_behind_good_ones_is_refused_after_they_are_answered(server: PredictionServer) -> None:
    slow = with_length(b'{"values": [], "sleep": 0.05}')
    assert statuses(server.raw(slow + with_length() + b"NONSENSE\r\n\r\n" + with_length())) == [200, 200, 400]


def test_a_connection_is_used_again_also_after_a_refusal(server: PredictionServer) -> None:
    connection = server.connection()
    for path, status in ((PREDICT, 200), ("/nowhere", 404), (PREDICT, 200)):
        assert ask(connection, "POST", path, {"values": [1]}).status == status
        kept = connection.sock
        assert kept is not None
    connection.close()


def test_http_1_0_and_a_client_that_has_said_everything_get_their_answer(server: PredictionServer) -> None:
    old = f"POST {PREDICT} HTTP/1.0\r\nContent-Length: 18\r\n\r\n".encode() + BODY
    assert statuses(server.raw(old)) == [200]
    with socket.create_connection(("127.0.0.1", server.port), 5) as client:
        client.sendall(with_length(b'{"values": [], "sleep": 0.05}'))
        client.shutdown(socket.SHUT_WR)
        assert statuses(drained(client)) == [200]


def test_names_of_headers_have_no_case_and_whole_urls_are_targets(server: PredictionServer) -> None:
    received = server.raw(
        request("CONTENT-LENGTH: 18", "X-REQUEST-ID: upper", "connection: CLOSE", path=f"http://a{PREDICT}", body=BODY)
    )
    assert statuses(received) == [200]
    assert b"x-request-id: upper" in received
    assert statuses(server.raw(request("Connection: close", method="GET", path="/%762?x=1"))) == [200]


def test_answers_cannot_be_given_headers_by_a_caller(server: PredictionServer) -> None:
    received = server.raw(with_length(BODY, "X-Request-Id: a\tSet-Cookie: b", "traceparent: \xe9", "Connection: close"))
    assert statuses(received) == [200]
    assert b"Set-Cookie" not in received


# -- clients that take their time --


def test_slow_clients_are_ended_and_do_not_delay_others(server: PredictionServer, tmp_path: Path) -> None:
    (artifact,) = Path(server.environ["TRUEUP_CACHE_DIR"], "artifacts").iterdir()
    port, metrics_port = free_ports()
    command = [sys.executable, "-P", "-m", "runtime.server", f"--artifact={artifact}", f"--port={port}"]
    command += [f"--metrics-port={metrics_port}", "--workers=1", "--timeout-ms=1000", "--max-batch-size=1"]
    command += ["--head-seconds=0.3", "--body-seconds=0.6"]
    environ = {name: value for name, value in server.environ.items() if name != "TRUEUP_OBJECT_STORAGE"}
    address = ("127.0.0.1", port)
    log = tmp_path / "log"
    with log.open("wb") as output, subprocess.Popen(command, env=environ, stderr=output, cwd=tmp_path) as process:
        try:
            eventually(lambda: "ready at" in log.read_text())
            with (
                socket.create_connection(address, 5) as drips,
                socket.create_connection(address, 5) as stalls,
                socket.create_connection(address, 5) as idles,
            ):
                stop = threading.Event()

                def drip() -> None:
                    while not stop.wait(0.05):
                        try:
                            drips.sendall(b"X-A: b\r\n")
                        except OSError:
                            return

                drips.sendall(b"POST / HTTP/1.1\r\nHost: a\r\n")
                stalls.sendall(request("Content-Length: 18", body=BODY[:3]))
                thread = threading.Thread(target=drip)
                thread.start()
                begun = time.monotonic()
                with socket.create_connection(address, 5) as quick:
                    quick.sendall(with_length(BODY, "Connection: close"))
                    assert statuses(drained(quick)) == [200]
                assert time.monotonic() - begun < 2
                assert statuses(drained(stalls)) == [408]
                assert statuses(drained(drips)) == [408]
                stop.set()
                thread.join()
                idles.sendall(with_length(BODY, "Connection: close"))
                assert statuses(drained(idles)) == [200], "who has begun nothing may wait"
        finally:
            process.terminate()
        assert process.wait(10) == 0
