"""The resolver as its container starts it: a process that gateways and probes talk to over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.contract.ports import free_port

HOST = "127.0.0.1"
AUDIENCES = {
    "model": "churn",
    "audiences": [
        {
            "name": "vip",
            "priority": 1,
            "conditions": {"unary": [{"key": "Plan", "operator": "IN", "operand": ["gold"]}]},
        },
        {"name": "twice", "priority": 2, "conditions": {"unary": [{"key": "k", "operator": "IN", "operand": ["a,b"]}]}},
    ],
}


def start(port: int, audiences: Path) -> subprocess.Popen[bytes]:
    arguments = ["resolve", f"--port={port}", f"--audiences={audiences}"]
    return subprocess.Popen(
        [sys.executable, "-m", "runtime", *arguments], env=os.environ | {"POD_IP": HOST}, stderr=subprocess.PIPE
    )


def written(folder: Path, content: Any = AUDIENCES) -> Path:
    path = folder / "audiences.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    number = free_port()
    process = start(number, written(tmp_path_factory.mktemp("resolver")))
    assert process.stderr is not None
    assert process.stderr.readline() == f"resolving at {HOST}:{number}\n".encode()
    yield number
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


def ask(port: int, method: str, path: str, *lines: tuple[str, str], body: bytes = b"") -> tuple[int, str, Any]:
    """Status, the audience that it says, and its body."""
    with closing(http.client.HTTPConnection(HOST, port, timeout=10)) as connection:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in lines:
            connection.putheader(name, value)
        connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, answer.headers["x-trueup-audience"], json.loads(text) if text else None


@pytest.mark.parametrize("method", ["POST", "GET", "PUT", "HEAD", "OPTIONS"])
def test_it_says_the_audience_by_any_method_and_path(port: int, method: str) -> None:
    assert ask(port, method, "/v1/churn/predict?x=1", ("PLAN", " gold\t"))[:2] == (200, "vip")
    assert ask(port, method, "/", ("plan", "silver"))[:2] == (200, "-")


def test_a_header_that_comes_twice_is_joined(port: int) -> None:
    assert ask(port, "POST", "/", ("k", "a"), ("K", "b"))[1] == "twice"


def test_what_has_been_decided_and_comes_here_is_answered_by_nobody(port: int) -> None:
    status, audience, said = ask(port, "POST", "/v1/churn/predict", ("X-Trueup-Audience", "-"), body=b"x" * 2_000_000)

    assert (status, audience) == (404, None)
    assert said == {"error": "no variation of churn answers this request"}


@pytest.mark.parametrize("what", ["live", "ready"])
def test_probes_hear_that_it_is_well(port: int, what: str) -> None:
    assert ask(port, "GET", f"/v2/health/{what}") == (200, None, {what: True})


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"hello\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 300_000, b"HTTP/1.1 431 "),
    ],
)
def test_what_is_no_request_is_refused_as_json(port: int, sent: bytes, status: bytes) -> None:
    with socket.create_connection((HOST, port), timeout=10) as connection:
        try:
            connection.sendall(sent)
            received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        except ConnectionError:
            assert len(sent) > 1 << 20, "what is short is read to its end, and answered"
            return

    assert received.startswith(status)
    assert json.loads(received.partition(b"\r\n\r\n")[2]).keys() == {"error"}


def test_requests_in_a_row_are_answered_in_a_row(port: int) -> None:
    one = b"GET / HTTP/1.1\r\nplan: %s\r\n\r\n"
    with socket.create_connection((HOST, port), timeout=10) as connection:
        connection.sendall(one % b"gold" + one % b"iron" + one % b"gold")
        received = b""
        while received.count(b"content-length: 0") < 3:
            received += connection.recv(1 << 16)

    assert [line for line in received.split(b"\r\n") if line.startswith(b"x-trueup")] == [
        b"x-trueup-audience: vip",
        b"x-trueup-audience: -",
        b"x-trueup-audience: vip",
    ]


def test_at_its_end_it_answers_what_comes_on_open_connections_and_takes_no_new_ones(tmp_path: Path) -> None:
    port = free_port()
    process = start(port, written(tmp_path))
    assert process.stderr is not None
    process.stderr.readline()
    with socket.create_connection((HOST, port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nplan: go")
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, port), timeout=1)
        connection.sendall(b"ld\r\n\r\n")
        received = b"".join(iter(lambda: connection.recv(1 << 16), b""))

    assert b"x-trueup-audience: vip" in received
    assert b"connection: close" in received
    assert process.wait(timeout=10) == 0
    process.stderr.close()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", b"cannot be read"),
        ({"model": "churn", "audiences": [{"name": "a b"}]}, b"audiences.0.name"),
        (
            {"model": "m", "audiences": [{"name": "a", "conditions": {"unary": [
                {"key": "k", "operator": "UNARY_OPERATOR_TYPE_SAFE_REGEX_MATCH", "operand": "a++"}]}}]},
            b"bad repetition operator",
        ),
    ],
)  # fmt: skip
def test_audiences_that_make_no_sense_end_it_with_a_sentence(tmp_path: Path, content: Any, why: bytes) -> None:
    process = start(free_port(), written(tmp_path, content))
    _, said = process.communicate(timeout=20)

    assert process.returncode == 1
    assert why in said
    assert said.count(b"\n") == 1
