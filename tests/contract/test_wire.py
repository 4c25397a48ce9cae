"""What an API server, or something on the way to it, may put on a connection; each case against a real socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.cluster import ApiError, Connection, Retry, Unavailable, connect

Serve = Callable[..., Connection]
BODY = b'{"kind":"ConfigMap","metadata":{"name":"a"}}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)


class Scripted:
    """Answers the n-th request of all with the n-th text, byte for byte; b"" hangs up without one."""

    def __init__(self, answers: tuple[bytes, ...], *, in_pieces: bool, hangs_up: bool) -> None:
        self.heads: list[bytes] = []  #: what was asked, without bodies
        self.connections = 0
        self._answers, self._in_pieces, self._hangs_up = iter(answers), in_pieces, hangs_up
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                connection.settimeout(5)
                while self._answer(connection):
                    pass

    def _answer(self, connection: socket.socket) -> bool:
        """Whether the connection stays."""
        received = b""
        while b"\r\n\r\n" not in received:
            try:
                part = connection.recv(65536)
            except OSError:
                return False
            if not part:
                return False
            received += part
        head, _, body = received.partition(b"\r\n\r\n")
        _, _, length = head.lower().partition(b"content-length: ")
        left = int(length.partition(b"\r\n")[0] or 0) - len(body)
        while left > 0:
            left -= len(connection.recv(left))
        self.heads.append(head)
        answer = next(self._answers, b"")
        pieces = [answer[n : n + 1] for n in range(len(answer))] if self._in_pieces else [answer]
        try:
            for piece in pieces:
                connection.sendall(piece)
        except OSError:  # whoever asked does not want all of it
            return False
        return bool(answer) and not self._hangs_up


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[Callable[..., tuple[Scripted, Connection]]]:
    """A server with these answers, and a connection that tries once."""
    made: list[tuple[Scripted, Connection]] = []

    def make(*answers: bytes, in_pieces: bool = False, hangs_up: bool = False) -> tuple[Scripted, Connection]:
        server = Scripted(answers, in_pieces=in_pieces, hangs_up=hangs_up)
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(f"""\
apiVersion: v1
kind: Config
clusters: [{{name: a, cluster: {{server: "http://127.0.0.1:{server.port}"}}}}]
users: [{{name: a, user: {{token: "of-nobody"}}}}]
contexts: [{{name: a, context: {{cluster: a, user: a}}}}]
current-context: a
""")
        connection = connect(str(kubeconfig), trusted=True, retry=Retry(attempts=1))
        made.append((server, connection))
        return made[-1]

    yield make
    for server, connection in made:
        connection.close()
        server.close()


def ok(head: bytes = LENGTH, body: bytes = BODY) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + head + b"\r\n" + body


WHOLE = {
    "its length": ok(),
    "its length, and another case": ok(LENGTH.lower()),
    "chunks": ok(b"Transfer-Encoding: chunked\r\n", b"2c\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "small chunks with extensions and a trailer": ok(
        b"Transfer-Encoding: chunked\r\n",
        b"".join(b"1;a=b\r\n%c\r\n" % one for one in BODY) + b"0\r\nX-End: yes\r\n\r\n",
    ),
    "a word on the way": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok(),
}


@pytest.mark.parametrize("in_pieces", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("answer", WHOLE.values(), ids=WHOLE)
def test_an_answer_is_read_to_its_end_and_its_connection_serves_the_next_request(scripted, answer, in_pieces):
    server, connection = scripted(answer, answer, in_pieces=in_pieces)
    for _ in range(2):
        assert connection.request("GET", "/api/v1/a")["metadata"] == {"name": "a"}
    assert server.connections == 1


def test_without_a_length_the_answer_ends_with_its_connection(scripted):
    server, connection = scripted(ok(b""), ok(b""), hangs_up=True)
    for _ in range(2):
        assert connection.request("GET", "/api/v1/a")["metadata"] == {"name": "a"}
    assert server.connections == 2


def test_a_connection_that_the_server_means_to_close_is_not_used_again(scripted):
    server, connection = scripted(ok(LENGTH + b"Connection: close\r\n"), ok(), hangs_up=True)
    for _ in range(2):
        assert connection.request("GET", "/api/v1/a")
    assert server.connections == 2


def test_what_is_asked_is_one_head_with_the_server_the_account_and_the_length(scripted):
    server, connection = scripted(ok(), ok())
    connection.request("PATCH", "/api/v1/a?b=c", body=b"{}", headers={"Content-Type": "application/apply-patch+yaml"})
    connection.request("DELETE", "/api/v1/a")
    first, second = (head.decode().split("\r\n") for head in server.heads)
    assert first[0] == "PATCH /api/v1/a?b=c HTTP/1.1"
    assert sorted(first[1:]) == [
        "Accept-Encoding: identity",
        "Accept: application/json",
        "Authorization: Bearer of-nobody",
        "Content-Length: 2",
        "Content-Type: application/apply-patch+yaml",
        f"Host: 127.0.0.1:{server.port}",
        "User-Agent: trueup",
    ]
    assert second[0] == "DELETE /api/v1/a HTTP/1.1"
    assert not any(line.startswith("Content-Length") for line in second)


CUT = {
    "nothing at all": b"",
    "half a status line": b"HTTP/1.1 20",
    "half of the headers": ok()[:40],
    "half of the body": ok()[:-10],
    "half of a chunk": ok(b"Transfer-Encoding: chunked\r\n", b"2c\r\n" + BODY[:10]),
    "chunks without an end": ok(b"Transfer-Encoding: chunked\r\n", b"2c\r\n" + BODY + b"\r\n"),
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a length that is none": ok(b"Content-Length: many\r\n"),
    "two lengths": ok(LENGTH + b"Content-Length: 7\r\n"),
    "a length and chunks": ok(LENGTH + b"Transfer-Encoding: chunked\r\n", b"2c\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a second answer that nobody asked for": ok() + b"HTTP/1.1 200 OK, of whom?",
    "a body without an end": ok(b"Transfer-Encoding: chunked\r\n", b"1000000\r\n%s\r\n" % (b" " * (1 << 24)) * 5),
    "headers without an end": b"HTTP/1.1 200 OK\r\n" + b"X-Header: %s\r\n" % (b"a" * 1000) * 1000,
}


@pytest.mark.parametrize("answer", CUT.values(), ids=CUT)
def test_what_is_no_whole_answer_is_a_lost_one_and_the_next_request_gets_a_connection_of_its_own(scripted, answer):
    server, connection = scripted(answer, ok(), hangs_up=True)
    with pytest.raises(Unavailable, match="the connection broke"):
        connection.request("PATCH", "/api/v1/a", body=b"{}")
    assert connection.request("GET", "/api/v1/a")["kind"] == "ConfigMap"
    assert server.connections == 2


@pytest.mark.parametrize("wrong", ["another protocol", "two lengths", "a second answer that nobody asked for"])
def test_a_connection_that_brought_what_is_no_answer_is_not_used_again_though_the_server_keeps_it(scripted, wrong):
    server, connection = scripted(CUT[wrong], ok())
    with pytest.raises(Unavailable, match="the connection broke"):
        connection.request("PATCH", "/api/v1/a", body=b"{}")
    assert connection.request("GET", "/api/v1/a")["kind"] == "ConfigMap"
    assert server.connections == 2


def test_a_refusal_without_a_body_is_one(scripted):
    _, connection = scripted(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(ApiError) as refused:
        connection.request("GET", "/api/v1/a")
    assert refused.value.status == 403


@pytest.mark.parametrize("header", ["a\r\nX-Other: b", "a\nb", "a\0b"])
def test_a_header_that_would_end_early_is_never_sent(scripted, header):
    server, connection = scripted(ok())
    with pytest.raises(ValueError, match="control character"):
        connection.request("GET", "/api/v1/a", headers={"X-Some": header})
    with pytest.raises(ValueError, match="control character"):
        connection.request("GET", f"/api/v1/{header}")
    assert connection.request("GET", "/api/v1/a")
    assert len(server.heads) == 1
