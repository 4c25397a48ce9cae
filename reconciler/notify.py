"""Notifications are sent from here: Slack, PagerDuty, webhooks. The reconciler never waits for any of them.

`Notifier.offer` takes what is owed (`notifications.owed`) and returns at once; a few threads send it; `Notifier.poll`
says what has come of it, for the driver to write into the records. What is offered again meanwhile is passed over, and
what is lost with the process is owed still.

Where a message may go is limited, for whoever writes a spec names the address, and this process stands where others do
not: no loopback, link-local, multicast, reserved or cloud metadata address, however it is spelled and whatever name
resolves to it. The name is resolved once, and what was checked is what is connected to. Redirects are not followed, and
secrets go over https only. Private addresses are allowed, for that is where a company's own receivers are.
TRUEUP_NOTIFY_ALLOW lifts the limits for hosts and networks: "127.0.0.0/8,hooks.corp.example". Proxies are not used.

A Secret is read when it is needed, and named where something is wrong; no value of one, and so no address from one, is
in any sentence.
"""

from __future__ import annotations

import heapq
import http.client
import re
import socket
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import count
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from reconciler.cluster.errors import ApiError
from reconciler.notifications import GAVE_UP, Message, Request, request
from renderers.manifest import ObjectId
from schemas.automation import CustomWebhook, PagerDutyNotification, SlackNotification

#: The variable that says where messages may go although the rules forbid it.
ALLOW = "TRUEUP_NOTIFY_ALLOW"

#: (environment, name) -> the content of that Secret in the environment's namespace, decoded. Raises ApiError.
ReadSecret = Callable[[str, str], Mapping[str, bytes]]

_Address = IPv4Address | IPv6Address


class Delivery(NamedTuple):
    """What has come of a message."""

    record: ObjectId
    key: str  #: what the record's `notified` gets: the message's key, or that with `!gave-up`
    sentence: str  #: why it was given up; "" where it was delivered


class Pace(NamedTuple):
    """How long, and how often. Seconds."""

    timeout: float = 5.0  #: to connect; and once more for everything after that
    attempts: int = 10
    deadline: float = 3600.0  #: for all attempts
    first: float = 5.0  #: before the second attempt; then twice as long each time
    longest: float = 600.0  #: between two attempts, whatever Retry-After says


# -- where messages may go --

#: What clouds answer credentials at, beside the link-local addresses: AWS, Alibaba, Oracle, Azure.
_METADATA = frozenset(map(ip_address, ("fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16")))
_THIS_NETWORK = IPv4Network("0.0.0.0/8")
#: IPv6 addresses whose last four bytes are an IPv4 address that a gateway leads to (RFC 6052, RFC 8215).
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))


@dataclass(frozen=True, slots=True)
class Egress:
    """Which addresses may be connected to; `hosts` and `networks` may although the rules forbid it."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Egress:
        """From TRUEUP_NOTIFY_ALLOW: hosts, addresses and networks, with commas. Raises ValueError."""
        hosts: set[str] = set()
        networks: list[IPv4Network | IPv6Network] = []
        for entry in filter(None, map(str.strip, environ.get(ALLOW, "").split(","))):
            try:
                networks.append(ip_network(entry))
            except ValueError:
                if (
                    not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9-]+)*", entry)
                    or entry[-1].isdigit()
                ):
                    sentence = f"{ALLOW}: {entry!r} is neither a host nor a network: write hooks.example or 10.0.0.0/8"
                    raise ValueError(sentence) from None
                hosts.add(entry.lower())
        return cls(frozenset(hosts), tuple(networks))

    def is_allowed(self, host: str, address: _Address) -> bool:
        """Whether the rules are lifted there."""
        return host.lower() in self.hosts or any(address in network for network in self.networks)

    def refusal(self, host: str, address: _Address) -> str:
        """What the address is that nothing is sent to, "a loopback address"; "" where it may be."""
        if self.is_allowed(host, address):
            return ""
        return next(filter(None, map(_forbidden, (address, *_within(address)))), "")


def _forbidden(address: _Address) -> str:
    kinds = {
        "a loopback address": address.is_loopback,
        "a link-local address": address.is_link_local,
        "a multicast address": address.is_multicast,
        "no address of a host": address.is_unspecified or (address.version == 4 and address in _THIS_NETWORK),
        "a cloud's metadata service": address in _METADATA,
        "a reserved address": address.is_reserved and not _within(address),
    }
    return next((kind for kind, is_so in kinds.items() if is_so), "")


def _within(address: _Address) -> list[IPv4Address]:
    """The IPv4 addresses that an IPv6 one leads to."""
    if isinstance(address, IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in _NAT64):
        found.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [each for each in found if each is not None]


# -- sending --


class Notifier:
    """Sends messages from threads of its own. Used from one thread; a context manager, which ends them."""

    def __init__(
        self,
        read_secret: ReadSecret,
        egress: Egress,
        *,
        pace: Pace | None = None,
        workers: int = 4,
        capacity: int = 1000,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """At most `capacity` messages wait. `trust`: which certificates are believed; default: the system's."""
        self._read_secret = read_secret
        self._egress = egress
        self._pace = pace or Pace()
        self._workers = workers
        self._capacity = capacity
        self._given_trust = trust
        self._changed = threading.Condition()
        self._closed = False
        self._threads: list[threading.Thread] = []
        self._numbers = count()
        self._waiting: list[tuple[float, int, _Task]] = []  # a heap
        self._open: set[_Id] = set()
        self._untried: set[_Id] = set()
        self._ended: OrderedDict[_Id, Delivery] = OrderedDict()
        self._unreported: dict[_Id, Delivery] = {}

    def offer(self, messages: Iterable[Message]) -> None:
        """Take messages to send. Never waits; what there is no room for is to be offered again."""
        with self._changed:
            for message in messages:
                identity = (message.record, message.key)
                if identity in self._ended:
                    # The driver could not write it down. It is told again, and nobody else is.
                    self._unreported[identity] = self._ended[identity]
                elif identity not in self._open and len(self._open) < self._capacity and not self._closed:
                    self._open.add(identity)
                    self._untried.add(identity)
                    self._push(_Task(message, time.monotonic()), 0.0)
            if self._open and not self._threads:
                self._start()
            self._changed.notify_all()

    def poll(self) -> list[Delivery]:
        """What has ended since the last call."""
        with self._changed:
            ended = list(self._unreported.values())
            self._unreported.clear()
        return ended

    @property
    def is_busy(self) -> bool:
        """Whether a message waits for its first attempt, or has ended and was not told of yet."""
        with self._changed:
            return bool(self._untried or self._unreported)

    def close(self) -> None:
        """Send nothing more. What is being sent has the rest of its time."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(3 * self._pace.timeout)

    def __enter__(self) -> Notifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        for number in range(self._workers):
            thread = threading.Thread(target=self._work, name=f"notify-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _push(self, task: _Task, delay: float) -> None:
        heapq.heappush(self._waiting, (time.monotonic() + delay, next(self._numbers), task))

    def _work(self) -> None:
        while (task := self._next()) is not None:
            task.attempts += 1
            failure = self._attempt(task.message)
            with self._changed:
                self._settle(task, failure)
                self._changed.notify_all()

    def _next(self) -> _Task | None:
        """The next that is due, once one is. None: the end."""
        with self._changed:
            while not self._closed:
                wait = self._waiting[0][0] - time.monotonic() if self._waiting else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._waiting)[2]
                self._changed.wait(wait)
        return None

    def _settle(self, task: _Task, failure: _Failure | None) -> None:
        pace, message = self._pace, task.message
        self._untried.discard((message.record, message.key))
        if failure is not None and failure.passes:
            delay = min(max(failure.retry_after, pace.first * 2 ** (task.attempts - 1)), pace.longest)
            late = time.monotonic() + delay > task.began + pace.deadline
            if task.attempts < pace.attempts and not late:
                self._push(task, delay)
                return
        identity = (message.record, message.key)
        tries = "once" if task.attempts == 1 else f"{task.attempts} times"
        self._ended[identity] = self._unreported[identity] = (
            Delivery(message.record, message.key, "")
            if failure is None
            else Delivery(
                message.record,
                message.key + GAVE_UP,
                f"the notification {message.key} of {message.record} is given up, tried {tries}: {failure}",
            )
        )
        self._open.discard(identity)
        while len(self._ended) > 10 * self._capacity:
            self._ended.popitem(last=False)

    def _attempt(self, message: Message) -> _Failure | None:
        """None: it is delivered."""
        try:
            made = request(message, lambda *what: self._secret(message, *what))
            _send(made, _receiver(message), self._egress, self._pace.timeout, lambda: self._trust)
        except _Failure as failure:
            return failure
        except ApiError as error:
            # Its text is the API server's, which knows the Secret's name and not its content.
            return _Failure(f"a Secret cannot be read: {error}")
        return None

    def _secret(self, message: Message, name: str, key: str, default: str | None) -> str:
        value = self._read_secret(message.environment, name).get(key)
        if value is None:
            if default is not None:
                return default
            raise _Failure(f"the Secret {name} of environment {message.environment} has no key `{key}`")
        try:
            return value.decode().strip()  # editors end a file with a newline
        except UnicodeDecodeError:
            raise _Failure(f"the key `{key}` of the Secret {name} is no text") from None

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        return self._given_trust or ssl.create_default_context()


_Id = tuple[ObjectId, str]


@dataclass(slots=True, eq=False)
class _Task:
    message: Message
    began: float
    attempts: int = field(default=0)


class _Failure(Exception):  # noqa: N818 - what it is
    """Why a message was not delivered, without secrets. `passes`: another attempt may fare better."""

    def __init__(self, sentence: str, *, passes: bool = True, retry_after: float = 0.0) -> None:
        super().__init__(sentence)
        self.passes = passes
        self.retry_after = retry_after


def _receiver(message: Message) -> str:
    """Who gets it, for a sentence; the address of a Slack webhook is a secret itself."""
    match message.target:
        case SlackNotification(webhook_secret=secret):
            return f"the address in the Secret {secret}"
        case PagerDutyNotification(routing_key_secret=secret):
            return f"PagerDuty (Secret {secret})"
        case CustomWebhook(url=url):
            return f"the webhook at {urlsplit(url).netloc}"


def _send(made: Request, receiver: str, egress: Egress, timeout: float, trust: Callable[[], ssl.SSLContext]) -> None:
    """Sends it once. Raises _Failure."""
    parts, port = _parsed(made.url, receiver)
    headers = _headers(made, receiver)
    host = parts.hostname or ""
    address = _resolved(host, port, receiver, egress)
    if made.secret and parts.scheme == "http" and not egress.is_allowed(host, address):
        raise _Failure(f"{receiver} is no https address, and a secret goes over https only", passes=False)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    with _told(receiver), socket.create_connection((str(address), port), timeout) as raw, _deadline(raw, timeout):
        stream = trust().wrap_socket(raw, server_hostname=host) if parts.scheme == "https" else raw
        with stream, closing(http.client.HTTPConnection(host, port)) as connection:
            connection.sock = stream
            connection.request(made.method, target, made.body, {**headers, "Host": _host(parts)})
            with connection.getresponse() as answer:
                _judge(answer, receiver, made)


def _parsed(url: str, receiver: str) -> tuple[SplitResult, int]:
    with suppress(ValueError):  # a port that is none, a bracket that is not closed
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        is_plain = re.fullmatch(r"[!-~]{1,4096}", url) and parts.username is None and parts.password is None
        if is_plain and parts.scheme in ("http", "https") and parts.hostname:
            return parts, port
    raise _Failure(f"{receiver} is no URL such as https://host/path", passes=False)


def _headers(made: Request, receiver: str) -> dict[str, str]:
    for name, value in made.headers.items():
        if not re.fullmatch(r"[\t\x20-\x7e\x80-\xff]*", value):
            raise _Failure(f"the header {name} for {receiver} has a character that no header may have", passes=False)
    return {"User-Agent": "trueup", "Accept": "*/*", "Connection": "close", **made.headers}


def _host(parts: SplitResult) -> str:
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else str(parts.hostname)
    return name if parts.port is None else f"{name}:{parts.port}"


def _resolved(host: str, port: int, receiver: str, egress: Egress) -> _Address:
    """The address that is connected to; a name that leads to a forbidden one as well is refused."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise _Failure(f"the host of {receiver} cannot be resolved") from None
    addresses = [ip_address(str(sockaddr[0])) for *_, sockaddr in found]
    for address in addresses:
        if refusal := egress.refusal(host, address):
            hint = f"{ALLOW} can allow it"
            raise _Failure(f"{receiver} is {refusal}, and nothing is sent there; {hint}", passes=False)
    # Most clusters have no way to IPv6 addresses, and names that have both.
    return min(addresses, key=lambda address: address.version)


@contextmanager
def _deadline(raw: socket.socket, seconds: float) -> Iterator[None]:
    """The connection ends after this, however slowly the other side keeps it busy. Raises TimeoutError."""
    guard = raw.dup()  # TLS takes the descriptor from the socket
    is_over = threading.Event()

    def end() -> None:
        is_over.set()
        with suppress(OSError):
            guard.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException):
        if not is_over.is_set():
            raise
    finally:
        timer.cancel()
        timer.join()
        guard.close()
    # What was cut off may look complete: the end of a connection ends a header, too.
    if is_over.is_set():
        raise TimeoutError


@contextmanager
def _told(receiver: str) -> Iterator[None]:
    """What happens to connections, in our words: those of others may quote the request."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        # OpenSSL's words have the host in them where that is what is wrong.
        why = "it is for another host" if error.verify_code in (62, 64) else error.verify_message
        raise _Failure(f"the certificate of {receiver} is not trusted: {why}") from None
    except ssl.SSLError:
        raise _Failure(f"{receiver}: no secure connection") from None
    except TimeoutError:
        raise _Failure(f"{receiver} does not answer in time") from None
    except http.client.HTTPException:
        raise _Failure(f"{receiver} does not answer as HTTP has it") from None
    except OSError as error:
        raise _Failure(f"{receiver}: {error.strerror or 'the connection broke'}") from None


def _judge(answer: http.client.HTTPResponse, receiver: str, made: Request) -> None:
    """Raises _Failure where the answer is no success."""
    status = answer.status
    if 200 <= status < 300:
        return
    if 300 <= status < 400:
        raise _Failure(
            f"{receiver} answers {status}, and a redirect is not followed: name the right address", passes=False
        )
    word = _word(answer, made)
    passes = status in (408, 429) or status >= 500
    raise _Failure(f"{receiver} answers {status}{word}", passes=passes, retry_after=_retry_after(answer))


def _word(answer: http.client.HTTPResponse, made: Request) -> str:
    """Slack says what is wrong in one word, "no_service". Longer words may be an echo of what was sent."""
    with suppress(OSError, http.client.HTTPException):
        text = answer.read(64).decode("utf-8", "replace").strip()
        sent = f"{made.url}{made.headers}{made.body!r}"
        if re.fullmatch(r"[a-z]+(_[a-z]+)+", text) and text not in sent:
            return f" ({text})"
    return ""


def _retry_after(answer: http.client.HTTPResponse) -> float:
    """Seconds. A date counts from that of the answer, for the two clocks need not agree."""
    value = answer.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        return (parsedate_to_datetime(value) - parsedate_to_datetime(answer.headers.get("Date", ""))).total_seconds()
    except (ValueError, TypeError):
        return 0.0
