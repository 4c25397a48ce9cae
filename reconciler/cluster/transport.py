"""Requests to one API server: as many at a time as it can take, retries, fresh credentials.

One `Connection` is shared by all threads of a process that talk to one cluster as one account, and so is
its `Flow`, which says how many requests are in flight and whether the server is asked at all. A watch
holds a connection of its own, so that watching can never starve writing.
"""

from __future__ import annotations

import gc
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import orjson

from reconciler.cluster.errors import KubeconfigError, Unavailable, from_answer
from reconciler.cluster.flow import Flow
from renderers.manifest import ObjectId

if TYPE_CHECKING:
    import urllib3

    from reconciler.cluster.wire import Wire


class Answer(NamedTuple):
    """What a server has answered. Headers by their names in lower case; several of one name are one, with commas."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Access(NamedTuple):
    """What a kubeconfig or a service account gave when it was last read."""

    host: str  #: "https://10.0.0.1:443", for messages
    prefix: str  #: the path under which the API is served: "" as a rule, "/k8s/clusters/c-1" behind Rancher
    authorization: Callable[[], str | None]  #: the header's value, renewed when it is about to expire
    pool: Wire  #: for requests
    watch_pool: urllib3.HTTPConnectionPool  #: for watches; does not block
    timeouts: Timeouts


_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_ALWAYS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "trueup"}


class _Request(NamedTuple):
    method: str
    path: str
    target: ObjectId | None
    began: float  #: when it was first to be sent, by the clock of `Retry`
    body: bytes | None = None
    headers: Mapping[str, str] = _NO_HEADERS
    fence: Callable[[], None] | None = None
    stream: bool = False  #: a watch: its answer is read as it comes


class Timeouts(NamedTuple):
    """How long to wait, in seconds."""

    connect: float = 5.0
    answer: float = 40.0  #: longer than the 30 s that an admission webhook may take
    #: The same for a look, which nobody admits: longer than the 15 s that the server keeps it in a queue (API Priority
    #: and Fairness). Whoever looks at many clusters in turn waits for one that hangs no longer than this.
    look: float = 20.0
    silence: float = 120.0  #: of a watch, before it is taken for half-open; bookmarks come every minute
    #: Until a peer is given up that does not answer TCP keepalive: a machine that is gone, a path that swallows
    #: everything. `silence` is for what still answers those, and passes nothing on.
    vanished: int = 25


class Stream:
    """The answer to a watch, as it comes. `end` may be called from any thread."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        #: how it ended, "" before: in order, by a broken connection, or because nothing came any more
        self.ended: Literal["", "closed", "error", "silent"] = ""
        self._response = response

    def end(self) -> None:
        with suppress(ValueError, RuntimeError, OSError):  # it has just ended by itself
            self._response.shutdown()

    def chunk(self) -> bytes:
        """What has come, as soon as something has; empty at its end, of whatever kind."""
        try:
            with _lost_answers("", None):
                chunk = self._response.read1(_CHUNK)
        except Unavailable as error:
            self.ended = "silent" if error.message.endswith(_NO_ANSWER) else "error"
            return b""
        if not chunk:
            self.ended = "closed"
        return chunk


@dataclass(frozen=True, slots=True)
class Retry:
    """How long to insist: exponential back-off with full jitter, never shorter than the server asks for.

    At most `attempts` tries, none of which begins later than `deadline` seconds after the first. The n-th
    pause is drawn from 0 to `base * 2**n` seconds; where the server says Retry-After the pause comes on top
    of that, so that clients do not come back all at once. No pause is longer than `longest` seconds, that between
    two looks at an unreachable server included.
    """

    attempts: int = 6
    deadline: float = 60.0
    base: float = 0.2
    longest: float = 15.0
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random
    pause: Callable[[float], object] | None = None  #: None: wait, and wake up when the connection is closed

    def delay(self, failures: int, retry_after: float = 0.0) -> float:
        """Seconds to wait after this many failures in a row (1 or more)."""
        backoff: float = self.base * 2 ** min(failures, 30) * self.jitter()
        return min(self.longest, retry_after + backoff)


# RFC 9111 (and RFC 7234 before it): 299 - "text", several in one header.
_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')
_WARNINGS_KEPT = 200
_RENEW_EVERY = 10.0  # seconds, at most: a fleet of refused requests must not start a fleet of exec plugins
_CHUNK = 65536
_LINE = 1 << 24  # bytes of one event; an object has at most 1.5 MiB in etcd
_NO_ANSWER = "no answer in time"


@dataclass(slots=True, eq=False)
class Connection:
    """One API server, as one account. Safe to share between threads; `close` ends its watches.

    `load` reads the kubeconfig or the service account, and does so again when the server answers 401.
    `connections` is the number of requests in flight that is never exceeded; within it the server's answers say how
    many there are (`flow.Limit`). `observe` is told of each exchange, retries included: the method ("WATCH" for the
    beginning of a watch), the HTTP status (0 where the answer was lost), and seconds. It is called by the thread that
    made the request, and must not raise.
    """

    load: Callable[[], Access]
    retry: Retry = field(default_factory=Retry)
    connections: int = 32
    observe: Callable[[str, int, float], None] | None = None
    _access: Access = field(init=False)
    _flow: Flow = field(init=False)
    _renewed_at: float | None = field(default=None, init=False)
    _renewing: threading.Lock = field(default_factory=threading.Lock, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _closed: threading.Event = field(default_factory=threading.Event, init=False)
    _streams: set[Stream] = field(default_factory=set, init=False)
    _warnings: dict[tuple[ObjectId | None, str], None] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._access = self.load()
        self._flow = Flow(self._access.host, self.connections, self.retry.clock, self.retry.longest)

    @property
    def host(self) -> str:
        """The URL of the API server, for messages."""
        return self._access.host + self._access.prefix

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed.is_set()

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        return self._flow.limit

    @property
    def in_flight(self) -> int:
        """How many requests are in flight, watches not counted."""
        return self._flow.in_flight

    @property
    def unreachable_since(self) -> float | None:
        """When (by the clock of `retry`) the first of those requests was sent that have all got no answer.

        None while the server answers.
        """
        return self._flow.unreachable_since

    def take_warnings(self) -> tuple[tuple[ObjectId | None, str], ...]:
        """What the server warned of since the last call (deprecated versions ...), each once."""
        with self._lock:
            warnings = tuple(self._warnings)
            self._warnings.clear()
        return warnings

    def close(self) -> None:
        """End watches and pauses, and refuse further requests. Those under way are finished, without retries."""
        self._closed.set()
        self._flow.close()
        with self._lock:
            streams = tuple(self._streams)
        for stream in streams:
            stream.end()
        self._access.pool.close()
        self._access.watch_pool.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        target: ObjectId | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
        repeatable: bool = True,
        guarded: bool = True,
        fence: Callable[[], None] | None = None,
    ) -> dict[str, Any]:
        """Send a request until it is answered for good: the JSON object, or the `ApiError` that the answer means.

        `repeatable` says that doing it twice is doing it once; a request that is not is only sent again
        when the server cannot have acted on it. `guarded`: see `errors.from_answer`. `fence` is called each time just
        before it is sent, after every wait, and raises where it is not to be.

        A server that has not answered anybody for a while is given up: `Unavailable` at once, but for one request at
        a time that tries it (`flow.Breaker`).
        """
        began = self.retry.clock()
        request = _Request(method, path, target, began, body, headers, fence)
        deadline = began + self.retry.deadline
        failures = 0
        while True:
            try:
                answer, _ = self._send(request, guarded=guarded)
                return decoded(answer.content, target)
            except Unavailable as error:
                failures += 1
                if (error.maybe_done and not repeatable) or self._flow.is_late(began):
                    raise
                self.back_off(error, failures, deadline)

    def lines(self, path: str, *, target: ObjectId, opened: Callable[[Stream], None] | None = None) -> Iterator[bytes]:
        """The lines of a watch as they come, until it ends: by the server, a broken connection, silence, `close`.

        A line that is cut off is left out. `opened` is given the stream, once the server has accepted. Raises
        `ApiError` where the watch is refused.
        """
        _, response = self._send(_Request("GET", path, target, self.retry.clock(), stream=True))
        assert response is not None
        stream = Stream(response)
        with self._lock:
            self._streams.add(stream)
        try:
            if opened is not None:
                opened(stream)
            unfinished: list[bytes] = []
            while not self.closed and (chunk := stream.chunk()):
                if sum(map(len, unfinished)) > _LINE:
                    raise Unavailable(0, "", "a line of the watch does not end; is this an API server?", target)
                *lines, rest = chunk.split(b"\n")
                for line in lines:
                    yield b"".join((*unfinished, line))
                    unfinished.clear()
                unfinished.append(rest)
        finally:
            with self._lock:
                self._streams.discard(stream)
            response.close()

    def back_off(self, error: Unavailable, failures: int, deadline: float) -> None:
        """Wait before the next try, or raise the error where there is to be none."""
        delay = self.retry.delay(failures, error.retry_after)
        late = self.retry.clock() + delay > deadline
        if failures >= self.retry.attempts or late or self._closed.is_set():
            raise error
        (self.retry.pause or self._closed.wait)(delay)

    def _send(self, request: _Request, *, guarded: bool = True) -> _Exchanged:
        """The answer, where it is a success; with fresh credentials where these were refused."""
        access = self._access
        exchanged = self._exchange(access, request)
        if exchanged.answer.status == 401 and (renewed := self._renew(access)) is not access:
            exchanged = self._exchange(renewed, request)
        status, headers, content = exchanged.answer
        if "warning" in headers:
            self._remember_warnings(request.target, headers["warning"])
        if status >= 300:
            raise from_answer(
                status,
                _without_our_token(content, access),
                request.target,
                guarded=guarded,
                retry_after=_retry_after(headers),
            )
        return exchanged

    def _exchange(self, access: Access, request: _Request) -> _Exchanged:
        """One answer, of whatever status, when it is this request's turn."""
        verb = "WATCH" if request.stream else request.method
        turn = self._flow.enter(verb, request.began, counted=not request.stream, target=request.target)
        sent_at = self.retry.clock()
        status, why, pause = None, "", 0.0
        try:
            if request.fence is not None:
                request.fence()
            exchanged = _exchange(access, request)
            status = exchanged.answer.status
            if status >= 300 and (asked := _retry_after(exchanged.answer.headers)):
                pause = self.retry.delay(1, asked)
        except Unavailable as error:
            status, why = 0, error.message.removeprefix(f"{access.host}: ")
            raise
        finally:
            self._flow.leave(turn, sent_at, status, why=why, pause=pause)
            if self.observe is not None and status is not None:
                self.observe(verb, status, self.retry.clock() - sent_at)
        return exchanged

    def _renew(self, refused: Access) -> Access:
        """Other credentials than the refused ones, where there are any; another thread may have got them."""
        with self._renewing:
            now = self.retry.clock()
            recently = self._renewed_at is not None and now - self._renewed_at < _RENEW_EVERY
            if self._access is refused and not recently:
                self._renewed_at = now
                self._access = self.load()
            return self._access

    def _remember_warnings(self, target: ObjectId | None, header: str) -> None:
        header = header.encode("latin-1").decode(errors="replace")  # Kubernetes writes it in UTF-8
        with self._lock:
            for text in _WARNING.findall(header):
                if len(self._warnings) < _WARNINGS_KEPT:
                    self._warnings[target, text.replace('\\"', '"')] = None


def decoded(text: bytes, target: ObjectId | None) -> dict[str, Any]:
    """The JSON object in an answer; `Unavailable` where something on the way answered in its stead."""
    try:
        if len(text) < _LARGE:
            answer = orjson.loads(text)
        else:
            with _collector_paused():
                answer = orjson.loads(text)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        raise Unavailable(0, "", "the answer is not a JSON object; is this an API server?", target)
    return answer


_LARGE = 1 << 16  # bytes
_decoding = threading.Lock()


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Spare the cycle collector from walking, again and again, what was decoded so far.

    Two thirds of the time of a large list would go there, and JSON has no cycles. One thread at a time,
    which costs nothing as decoding holds the interpreter lock.
    """
    with _decoding:
        enabled = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if enabled:
                gc.enable()


class _Exchanged(NamedTuple):
    """An answer; of a watch that was accepted, what is still to come of it as well."""

    answer: Answer
    stream: urllib3.BaseHTTPResponse | None = None


def _exchange(access: Access, request: _Request) -> _Exchanged:
    method, path, body = request.method, access.prefix + request.path, request.body
    headers = {"Host": access.host.partition("//")[2], **_ALWAYS, **request.headers}
    if authorization := access.authorization():
        headers["Authorization"] = authorization
    with _lost_answers(access.host, request.target):
        if not request.stream:
            patience = access.timeouts.answer if method != "GET" else min(access.timeouts.look, access.timeouts.answer)
            return _Exchanged(access.pool.exchange(method, path, body, headers, patience))
        # A redirect must not carry the credentials elsewhere, and ours knows what may be repeated.
        stream = access.watch_pool.urlopen(
            method, path, body, headers, retries=False, redirect=False, preload_content=False
        )
        content = stream.read() if stream.status >= 300 else b""
        answer = Answer(stream.status, {name.lower(): value for name, value in stream.headers.items()}, content)
        return _Exchanged(answer, stream)


def _without_our_token(answer: bytes, access: Access) -> bytes:
    """A proxy that is in trouble may repeat the request to whoever sent it, and its words end in a report."""
    token = (access.authorization() or "").rpartition(" ")[2].encode()
    return answer.replace(token, b"(our token)") if token else answer


@contextmanager
def _lost_answers(host: str, target: ObjectId | None) -> Iterator[None]:
    """Turn what happens to connections into `Unavailable`, and mistrust into `KubeconfigError`."""
    from urllib3 import exceptions  # noqa: PLC0415 - 80 ms, which commands without a cluster do not pay

    try:
        yield
    except exceptions.HTTPError as error:
        unsent = False
        words = f"the connection broke ({type(error).__name__})"
        match error:
            case exceptions.SSLError():
                if mistrust := getattr(error.args[0], "verify_message", ""):  # ssl.SSLCertVerificationError
                    words = f"{host}: the certificate of the server is not trusted: {mistrust}"
                    raise KubeconfigError(words) from error
                words = f"no secure connection ({error.args[0]})"
            case exceptions.ProxyError():
                unsent = True
                words = "cannot connect through the proxy"
            case exceptions.NewConnectionError() | exceptions.ConnectTimeoutError():
                unsent = True
                words = "cannot connect"
                if isinstance(error.__cause__, OSError) and error.__cause__.strerror:
                    words += f" ({error.__cause__.strerror})"
            case exceptions.ReadTimeoutError():
                words = _NO_ANSWER
        raise Unavailable(0, "", f"{host}: {words}", target, maybe_done=not unsent) from error


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds. The API server says so many; a balancer may say a date (RFC 9110, 10.2.3), by its own clock."""
    asked = headers.get("retry-after", "")
    if not asked or (asked.isascii() and asked.isdigit()):
        return float(asked or 0)
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - 45 ms, which nobody else pays

    try:
        until, now = parsedate_to_datetime(asked), parsedate_to_datetime(headers.get("date", ""))
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError):  # no date, or one without a time zone
        return 0.0
