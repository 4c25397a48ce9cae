"""Notifications as they are sent: to real servers of this machine, good and bad ones."""

from __future__ import annotations

import datetime as dt
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from reconciler.cluster.errors import Unavailable
from reconciler.notifications import GAVE_UP, Message
from reconciler.notify import ALLOW, Delivery, Egress, Notifier, Pace
from renderers.manifest import ObjectId
from schemas.automation import CustomWebhook, PagerDutyNotification, SlackNotification

PACE = Pace(timeout=10, attempts=3, deadline=60, first=0.05, longest=0.3)
#: For receivers that are never going to answer.
IMPATIENT = PACE._replace(timeout=0.5, attempts=1)
PATH = "/services/T0/B0/s3cret-path"
TOKEN = "Bearer s3cret-token"
LOOPBACK = Egress.of({ALLOW: "127.0.0.0/8, ::1"})


class Seen(NamedTuple):
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


Answer = Callable[[BaseHTTPRequestHandler], None]


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    return answer


def drip(handler: BaseHTTPRequestHandler) -> None:
    """A header that never ends, a byte at a time: no single read takes long."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(100):
        handler.wfile.write(b".")
        time.sleep(0.1)


def flood(code: int) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        handler.end_headers()
        for _ in range(10_000):
            handler.wfile.write(b"x" * 65536)

    return answer


class Receiver:
    """A server that keeps what it gets, and answers as it is told; the last answer goes on."""

    def __init__(self, *answers: Answer, context: ssl.SSLContext | None = None) -> None:
        self.seen: list[Seen] = []
        self.times: list[float] = []
        self._answers = list(answers) or [status(200, b"ok")]
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def handle(self) -> None:
                with suppress(OSError):  # the other side has hung up, as it should
                    super().handle()

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                receiver.times.append(time.monotonic())
                receiver.seen.append(Seen(self.command, self.path, dict(self.headers), body))
                answers = receiver._answers
                (answers.pop(0) if len(answers) > 1 else answers[0])(self)

            do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = do_PATCH = _serve  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                pass  # a client that does not trust it ends the handshake

            def get_request(self) -> tuple[Any, Any]:
                stream, address = super().get_request()
                if context is not None:
                    stream = context.wrap_socket(stream, server_side=True, do_handshake_on_connect=False)
                return stream, address

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def message(target: Any, key: str = "slack/Failed", number: int = 1) -> Message:
    return Message(
        record=ObjectId("trueup.dev/v1", "Build", "trueup-system", f"churn-build-{number:08x}"),
        key=key,
        target=target,
        environment="staging",
        automation="nightly",
        model="churn",
        build="1a2b3c4d" * 8,
        execution_date=dt.datetime(2026, 11, 21, 3, tzinfo=dt.UTC),
        status="Failed: out of memory",
    )


SLACK = message(SlackNotification(webhook_secret="slack-ml"))


def hook(port: int, host: str = "127.0.0.1", **fields: Any) -> Message:
    spec = {"url": f"http://{host}:{port}/ml", "http_method": "POST"} | fields
    return message(CustomWebhook.model_validate(spec), "custom_webhook/Failed")


def secrets(url: str = "", **more: bytes) -> Callable[[str, str], Mapping[str, bytes]]:
    content: dict[str, Mapping[str, bytes]] = {
        "slack-ml": {"url": f"{url}\n".encode()},
        "pager-ml": {"routing_key": b"s3cret-routing", "url": url.encode()},
        "hook-token": {"value": TOKEN.encode()},
    }

    def read(environment: str, name: str) -> Mapping[str, bytes]:
        assert environment == "staging"
        return content[name] | more

    return read


def wait(notifier: Notifier, count: int = 1, seconds: float = 30) -> list[Delivery]:
    """What ends, once `count` of them have."""
    found: list[Delivery] = []
    until = time.monotonic() + seconds
    while len(found) < count:
        assert time.monotonic() < until, found
        found += notifier.poll()
        time.sleep(0.01)
    return found


def deliver(what: Message, url: str = "", *, egress: Egress = LOOPBACK, **options: Any) -> Delivery:
    with Notifier(secrets(url), egress, pace=options.pop("pace", PACE), **options) as notifier:
        notifier.offer([what])
        (delivery,) = wait(notifier)
    assert "s3cret" not in repr(delivery)
    return delivery


# -- what arrives --


def test_slack_gets_its_message_at_the_address_in_the_secret() -> None:
    with Receiver() as receiver:
        delivery = deliver(SLACK, f"http://127.0.0.1:{receiver.port}{PATH}")

    assert delivery == Delivery(SLACK.record, "slack/Failed", "")
    (seen,) = receiver.seen
    assert (seen.method, seen.path, seen.headers["Host"]) == ("POST", PATH, f"127.0.0.1:{receiver.port}")
    assert "Status: Failed: out of memory" in json.loads(seen.body)["text"]


def test_pagerduty_gets_its_routing_key_at_the_address_of_its_region() -> None:
    target = PagerDutyNotification(routing_key_secret="pager-ml")
    with Receiver(status(202, b'{"status":"success"}')) as receiver:
        delivery = deliver(message(target, "pagerduty/Failed"), f"http://127.0.0.1:{receiver.port}/v2/enqueue")

    assert delivery.key == "pagerduty/Failed"
    assert json.loads(receiver.seen[0].body)["routing_key"] == "s3cret-routing"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
def test_a_webhook_is_called_by_its_method(method: str) -> None:
    with Receiver() as receiver:
        what = hook(receiver.port, http_method=method, header_secrets={"Authorization": "hook-token"})
        assert deliver(what).key == "custom_webhook/Failed"

    (seen,) = receiver.seen
    assert (seen.method, seen.headers["Authorization"]) == (method, TOKEN)
    assert seen.headers["Idempotency-Key"] == "Build/churn-build-00000001/custom_webhook/Failed"
    assert ("model_id=churn" in seen.path, b'"model_id":"churn"' in seen.body) == (method == "GET", method != "GET")


# -- how often --


def test_what_is_offered_again_and_again_is_sent_once() -> None:
    with Receiver() as receiver, Notifier(secrets(), LOOPBACK, pace=PACE) as notifier:
        what = hook(receiver.port)
        for _ in range(20):
            notifier.offer([what])
        (first,) = wait(notifier)
        assert notifier.poll() == []
        # As after a pass that could not write the record.
        notifier.offer([what])
        assert notifier.poll() == [first]

    assert len(receiver.seen) == 1


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_what_may_pass_is_tried_again(code: int) -> None:
    with Receiver(status(code), status(code), status(200)) as receiver:
        assert deliver(hook(receiver.port)).key == "custom_webhook/Failed"

    assert len(receiver.seen) == 3


def test_it_is_given_up_some_time() -> None:
    with Receiver(status(500)) as receiver:
        delivery = deliver(hook(receiver.port))

    assert delivery.key == "custom_webhook/Failed" + GAVE_UP
    assert delivery.sentence == (
        "the notification custom_webhook/Failed of Build/trueup-system/churn-build-00000001 is given up, "
        "tried 3 times: "
        f"the webhook at 127.0.0.1:{receiver.port} answers 500"
    )


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_a_refusal_is_final(code: int) -> None:
    with Receiver(status(code)) as receiver:
        assert deliver(hook(receiver.port)).key.endswith(GAVE_UP)

    assert len(receiver.seen) == 1


def test_the_server_says_how_long_to_wait_within_bounds() -> None:
    with Receiver(status(429, Retry_After="60"), status(200)) as receiver:
        deliver(hook(receiver.port), pace=PACE._replace(longest=0.7))

    first, second = receiver.times
    assert 0.7 <= second - first < 30


def test_retry_after_may_be_a_date() -> None:
    dates = {"Date": "Sat, 21 Nov 2026 03:00:00 GMT", "Retry_After": "Sat, 21 Nov 2026 03:00:01 GMT"}

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(
            f"HTTP/1.1 503 Busy\r\nDate: {dates['Date']}\r\nRetry-After: {dates['Retry_After']}\r\n\r\n".encode()
        )

    with Receiver(answer, status(200)) as receiver:
        deliver(hook(receiver.port), pace=PACE._replace(longest=5))

    first, second = receiver.times
    assert second - first >= 1.0


def test_slacks_word_for_what_is_wrong_is_told_and_an_echo_is_not() -> None:
    url = f"/services/{'x' * 8}"
    with Receiver(status(404, b"no_service")) as receiver:
        told = deliver(SLACK, f"http://127.0.0.1:{receiver.port}{url}").sentence
    assert told.endswith("the address in the Secret slack-ml answers 404 (no_service)")

    with Receiver(status(403, b"my_own_key")) as receiver:
        told = deliver(SLACK, f"http://127.0.0.1:{receiver.port}/my_own_key").sentence
    assert told.endswith("answers 403")


# -- receivers that are slow, or too much --


def test_a_receiver_that_drips_is_left_after_the_time_limit_and_holds_up_nobody() -> None:
    with (
        Receiver(drip) as slow,
        Receiver() as quick,
        Notifier(secrets(), LOOPBACK, pace=IMPATIENT._replace(timeout=2), workers=2) as notifier,
    ):
        began = time.monotonic()
        notifier.offer([hook(slow.port), hook(quick.port)._replace(key="custom_webhook/RolledBack")])
        assert notifier.poll() == [], "whoever offers does not wait"
        (first,) = wait(notifier)
        assert first.key == "custom_webhook/RolledBack"
        (second,) = wait(notifier)

    assert second.key == "custom_webhook/Failed" + GAVE_UP
    assert second.sentence.endswith("does not answer in time")
    assert time.monotonic() - began < 9, "it drips for ten"


def test_a_receiver_that_says_nothing_is_left_after_the_time_limit() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        delivery = deliver(hook(silent.getsockname()[1]), pace=IMPATIENT)

    assert delivery.sentence.endswith("does not answer in time")


@pytest.mark.parametrize(("code", "key"), [(200, "custom_webhook/Failed"), (400, "custom_webhook/Failed" + GAVE_UP)])
def test_an_endless_answer_is_not_read(code: int, key: str) -> None:
    with Receiver(flood(code)) as receiver:
        assert deliver(hook(receiver.port)).key == key


def test_an_answer_that_is_no_http_is_a_failure() -> None:
    with Receiver(lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH\r\n")) as receiver:
        assert "does not answer as HTTP has it" in deliver(hook(receiver.port)).sentence


def test_nobody_there_is_a_failure() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as gone:
        port = gone.getsockname()[1]
    assert deliver(hook(port)).sentence.endswith("Connection refused")


def test_no_more_than_its_capacity_waits() -> None:
    messages = [SLACK._replace(key=f"slack/{number}") for number in range(10)]
    with Receiver() as receiver:
        read = secrets(f"http://127.0.0.1:{receiver.port}{PATH}")
        with Notifier(read, LOOPBACK, pace=PACE, capacity=4) as notifier:
            notifier.offer(messages)
            assert len(wait(notifier, 4)) == 4
            time.sleep(0.1)
            assert notifier.poll() == []
            notifier.offer(messages[4:8])
            assert len(wait(notifier, 4)) == 4

    assert len(receiver.seen) == 8


def test_closing_ends_the_threads_and_what_waits_is_not_sent() -> None:
    with Receiver(status(500)) as receiver:
        notifier = Notifier(secrets(), LOOPBACK, pace=PACE._replace(first=60, longest=60, deadline=600))
        notifier.offer([hook(receiver.port)])
        while not receiver.seen:
            time.sleep(0.01)
        notifier.close()

    assert notifier.poll() == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("notify-")]


# -- where nothing is sent --

FORBIDDEN = [
    ("127.0.0.1", "a loopback address"),
    ("127.1", "a loopback address"),
    ("2130706433", "a loopback address"),
    ("0x7f.0.0.1", "a loopback address"),
    ("localhost", "a loopback address"),
    ("[::1]", "a loopback address"),
    ("[::ffff:127.0.0.1]", "a loopback address"),
    ("[::ffff:a9fe:a9fe]", "a link-local address"),
    ("169.254.169.254", "a link-local address"),
    ("[fe80::1]", "a link-local address"),
    ("[64:ff9b::169.254.169.254]", "a link-local address"),
    ("[2002:7f00:1::]", "a loopback address"),
    ("0.0.0.0", "no address of a host"),
    ("0", "no address of a host"),
    ("[::]", "no address of a host"),
    ("224.0.0.251", "a multicast address"),
    ("[ff02::1]", "a multicast address"),
    ("255.255.255.255", "a reserved address"),
    ("[fd00:ec2::254]", "a cloud's metadata service"),
    ("100.100.100.200", "a cloud's metadata service"),
]


@pytest.mark.parametrize(("host", "kind"), FORBIDDEN)
def test_an_address_that_only_this_machine_reaches_is_refused_however_it_is_spelled(host: str, kind: str) -> None:
    with Receiver() as receiver:
        delivery = deliver(SLACK, f"https://{host}:{receiver.port}{PATH}", egress=Egress())

    assert delivery.key == "slack/Failed" + GAVE_UP
    assert f"tried once: the address in the Secret slack-ml is {kind}, and nothing is sent there" in delivery.sentence
    assert receiver.seen == []


@pytest.mark.parametrize(
    "address", ["10.0.0.7", "192.168.1.1", "fd12::1", "93.184.216.34", "2606:4700::1111", "64:ff9b::808:808"]
)
def test_private_and_public_addresses_are_allowed(address: str) -> None:
    assert Egress().refusal("hooks.example", ip_address(address)) == ""


def test_hosts_and_networks_can_be_allowed() -> None:
    egress = Egress.of({ALLOW: " hooks.corp.example, 127.0.0.2 ,169.254.0.0/16,"})

    assert egress.refusal("HOOKS.corp.example", ip_address("127.0.0.1")) == ""
    assert egress.refusal("elsewhere", ip_address("127.0.0.2")) == ""
    assert egress.refusal("elsewhere", ip_address("169.254.169.254")) == ""
    assert egress.refusal("elsewhere", ip_address("127.0.0.1")) == "a loopback address"


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "10.0.0.300", "https://hooks.example", "*", "a b"])
def test_what_is_neither_a_host_nor_a_network_is_said_at_the_start(entry: str) -> None:
    with pytest.raises(ValueError, match=r"TRUEUP_NOTIFY_ALLOW: .* is neither a host nor a network"):
        Egress.of({ALLOW: f"localhost,{entry}"})


def test_a_redirect_is_not_followed() -> None:
    with Receiver() as inside, Receiver(status(302, Location=f"http://127.0.0.1:{inside.port}/meta-data")) as receiver:
        delivery = deliver(hook(receiver.port))

    assert (delivery.key, inside.seen) == ("custom_webhook/Failed" + GAVE_UP, [])
    assert "answers 302, and a redirect is not followed" in delivery.sentence
    assert len(receiver.seen) == 1


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """The names that were asked for; each time they get the next answer."""
    asked: list[str] = []
    system, left = socket.getaddrinfo, list(answers)

    def resolve(host: str, port: int, *more: Any, **options: Any) -> Any:
        if host != "hooks.example":
            return system(host, port, *more, **options)
        asked.append(host)
        addresses = left.pop(0) if len(left) > 1 else left[0]
        return [found for address in addresses for found in system(address, port, *more, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


def test_what_was_checked_is_what_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolving(monkeypatch, ["127.0.0.1"], ["127.0.0.9"])
    with Receiver() as receiver:
        egress = Egress.of({ALLOW: "127.0.0.1"})
        assert deliver(hook(receiver.port, "hooks.example"), egress=egress).key == "custom_webhook/Failed"

    assert asked == ["hooks.example"]
    assert receiver.seen[0].headers["Host"] == f"hooks.example:{receiver.port}"


def test_a_name_that_leads_to_a_forbidden_address_as_well_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ["93.184.216.34", "127.0.0.1"])
    with Receiver() as receiver:
        delivery = deliver(hook(receiver.port, "hooks.example"), egress=Egress())

    assert "is a loopback address" in delivery.sentence
    assert receiver.seen == []


# -- secrets --


def test_a_secret_is_not_sent_in_the_clear() -> None:
    with_secret = hook(80, "192.0.2.1", header_secrets={"Authorization": "hook-token"})

    assert "a secret goes over https only" in deliver(with_secret, egress=Egress()).sentence
    assert "a secret goes over https only" in deliver(SLACK, f"http://192.0.2.1{PATH}", egress=Egress()).sentence


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/s3cret",
        "s3cret",
        "https://s3cret@h/",
        "https://h:99999/s3cret",
        "https://[h/s3cret",
        "https://h/s3cret a",
        "//h",
    ],
)
def test_a_secret_that_is_no_address_is_named_and_not_quoted(url: str) -> None:
    told = deliver(SLACK, url).sentence

    assert told.endswith("the address in the Secret slack-ml is no URL such as https://host/path")


def test_a_header_that_would_be_two_is_refused_without_its_value() -> None:
    with Receiver() as receiver:
        what = hook(receiver.port, header_secrets={"Authorization": "hook-token"})
        with Notifier(secrets(value=b"s3cret\r\nX-Evil: 1"), LOOPBACK, pace=PACE) as notifier:
            notifier.offer([what])
            (delivery,) = wait(notifier)

    assert "the header Authorization for the webhook at 127.0.0.1" in delivery.sentence
    assert "s3cret" not in delivery.sentence
    assert receiver.seen == []


def test_a_missing_key_is_looked_for_again_and_named() -> None:
    content: dict[str, bytes] = {}
    with Receiver() as receiver, Notifier(lambda *_: content, LOOPBACK, pace=PACE._replace(attempts=9)) as notifier:
        notifier.offer([SLACK])
        time.sleep(0.1)
        content["url"] = f"http://127.0.0.1:{receiver.port}{PATH}".encode()
        assert wait(notifier)[0].sentence == ""

    with Notifier(lambda *_: {}, LOOPBACK, pace=PACE) as notifier:
        notifier.offer([SLACK])
        told = wait(notifier)[0].sentence
    assert told.endswith("tried 3 times: the Secret slack-ml of environment staging has no key `url`")


def test_a_cluster_that_does_not_answer_is_asked_again() -> None:
    asked: list[str] = []

    def read(environment: str, name: str) -> Mapping[str, bytes]:
        asked.append(name)
        raise Unavailable(0, "", "https://10.0.0.1: cannot connect")

    with Notifier(read, LOOPBACK, pace=PACE) as notifier:
        notifier.offer([SLACK])
        assert "a Secret cannot be read: " in wait(notifier)[0].sentence

    assert asked == ["slack-ml"] * 3


def test_nothing_is_logged(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG)
    with Receiver(status(500, PATH.encode())) as receiver:
        deliver(SLACK, f"http://127.0.0.1:{receiver.port}{PATH}")

    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


# -- https --


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What the server shows, a certificate of `localhost`, and what trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver of a test")])
    now = dt.datetime.fromtimestamp(time.time(), dt.UTC)  # noqa: TID251 - openssl looks at the clock
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder: Path = tmp_path_factory.mktemp("authority")
    pem, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, private, serialization.NoEncryption()))
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return shown, ssl.create_default_context(cafile=str(folder / "cert.pem"))


Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


def test_https_is_spoken_with_the_name_and_not_with_the_address(authority: Contexts) -> None:
    shown, trust = authority
    names: list[str | None] = []
    shown.sni_callback = lambda _, name, __: names.append(name)
    with Receiver(context=shown) as receiver:
        delivery = deliver(SLACK, f"https://localhost:{receiver.port}{PATH}", trust=trust)

    assert delivery.sentence == ""
    assert names == ["localhost"]
    assert receiver.seen[0].headers["Host"] == f"localhost:{receiver.port}"


def test_a_certificate_that_nobody_vouches_for_is_not_trusted(authority: Contexts) -> None:
    with Receiver(context=authority[0]) as receiver:
        told = deliver(SLACK, f"https://localhost:{receiver.port}{PATH}").sentence

    assert "the certificate of the address in the Secret slack-ml is not trusted: self-signed certificate" in told
    assert receiver.seen == []


def test_a_certificate_for_another_host_is_not_trusted(authority: Contexts) -> None:
    with Receiver(context=authority[0]) as receiver:
        told = deliver(SLACK, f"https://127.0.0.1:{receiver.port}{PATH}", trust=authority[1]).sentence

    assert told.endswith("is not trusted: it is for another host")
    assert receiver.seen == []


def test_a_handshake_that_never_ends_is_left_after_the_time_limit(authority: Contexts) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"https://localhost:{silent.getsockname()[1]}{PATH}"
        told = deliver(SLACK, url, trust=authority[1], pace=IMPATIENT).sentence

    assert told.endswith("does not answer in time")
