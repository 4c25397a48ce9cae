"""Prometheus, over its HTTP API: one question, one answer, bounded in time and size.

Anything that speaks the API will do (Thanos, Mimir, VictoriaMetrics). The values of an answer stay the text that they
are: exact arithmetic begins there.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self
from urllib.parse import urlencode, urlsplit

import orjson

from reconciler.gates.checks import Sample, Samples
from reconciler.warehouse import QueryError

if TYPE_CHECKING:
    import urllib3

#: Bytes of an answer. One sample has some hundred; more than this is a query that sums nothing.
LIMIT = 1 << 20
_CHUNK = 65_536

#: `errorType` of the API -> our reason, and whether another try may fare better.
_ERRORS = {
    "bad_data": ("Syntax", False),
    "execution": ("Failed", False),
    "timeout": ("Timeout", True),
    "canceled": ("Timeout", True),
    "internal": ("Failed", True),
    "unavailable": ("Unavailable", True),
}


class Prometheus:
    """The Prometheus at `url`. `timeout_s` is for all questions together; a context manager, which ends connections.

    It asks without credentials. Redirects are not followed: what is asked is nobody else's business.
    """

    def __init__(self, url: str, timeout_s: float = 10.0) -> None:
        import urllib3  # noqa: PLC0415 - 80 ms, which commands without a canary do not pay

        self._url = f"{url.rstrip('/')}/api/v1/query"
        self._host = urlsplit(url).netloc
        self._until = monotonic() + timeout_s
        self._pool = urllib3.PoolManager(retries=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.clear()

    def ask(self, expression: str, at: datetime) -> Samples:
        """What a PromQL expression is at an instant. Raises QueryError."""
        began = monotonic()
        if began >= self._until:
            raise self._late()
        left = self._until - began
        asked = {"query": expression, "time": f"{at.timestamp():.3f}", "timeout": f"{left:.3f}"}
        status, answer = self._exchange(urlencode(asked), left)
        return Samples(self._samples(status, answer), round((monotonic() - began) * 1000))

    def _exchange(self, body: str, timeout_s: float) -> tuple[int, bytes]:
        from urllib3 import exceptions  # noqa: PLC0415 - as above

        try:
            response = self._pool.request(
                "POST",
                self._url,
                body=body,
                headers={"Content-Type": "application/x-www-form-urlencoded", "User-Agent": "trueup"},
                timeout=timeout_s,
                redirect=False,
                preload_content=False,
            )
            try:
                return response.status, self._read(response)
            finally:
                response.close()
        except exceptions.NewConnectionError as error:  # which urllib3 counts among the timeouts
            raise self._unreachable("nobody answers there") from error
        except exceptions.TimeoutError as error:
            raise self._late() from error
        except exceptions.HTTPError as error:
            raise self._unreachable(f"the connection broke, {type(error).__name__}") from error

    def _read(self, response: urllib3.BaseHTTPResponse) -> bytes:
        """The body as it comes: never decompressed, and never longer or later than it may be."""
        answer = bytearray()
        while chunk := response.read1(_CHUNK, decode_content=False):
            answer += chunk
            if len(answer) > LIMIT:
                raise QueryError("TooLarge", f"{self._host} answered more than {LIMIT >> 20} MiB: sum the series")
            if monotonic() > self._until:
                raise self._late()
        return bytes(answer)

    def _samples(self, status: int, answer: bytes) -> tuple[Sample, ...]:
        """The series of an instant vector; a scalar is one without labels."""
        try:
            said = orjson.loads(answer)
            if said["status"] != "success":
                self._refused(status, str(said["errorType"]), str(said["error"]))
            if warnings := said.get("warnings"):
                # Thanos and others answer with what they could reach, and failures that nobody saw look like none.
                words = f"{self._host} warned that its answer may not be whole: {_cut(warnings[0])}"
                raise QueryError("Partial", words, retryable=True)
            kind, result = said["data"]["resultType"], said["data"]["result"]
            if kind == "scalar":
                return (Sample({}, str(result[1])),)
            if kind == "vector":
                return tuple(_sample(series) for series in result)
        except (orjson.JSONDecodeError, KeyError, TypeError, IndexError, AttributeError):
            self._no_prometheus(status)
        raise QueryError("NotAllowed", f"the query answers a {_cut(kind)}, and a check wants an instant vector")

    def _refused(self, status: int, kind: str, message: str) -> NoReturn:
        reason, retryable = _ERRORS.get(kind, ("Failed", status >= 500))
        raise QueryError(reason, f"{self._host} refused the query: {_cut(message)}", retryable=retryable)

    def _no_prometheus(self, status: int) -> NoReturn:
        """For answers that are not of the API: those of proxies, and of other servers."""
        if status in (401, 403):
            raise QueryError("Permission", f"{self._host} answered {status}: it wants credentials, and gets none")
        if 300 <= status < 400:
            raise QueryError("NotAllowed", f"{self._host} answered {status}: redirects are not followed")
        words = f"{self._host} answered {status}, and not as the HTTP API of Prometheus does"
        raise QueryError("Failed", words, retryable=status == 429 or status >= 500)

    def _late(self) -> QueryError:
        return QueryError("Timeout", f"{self._host} gave no answer in time", retryable=True)

    def _unreachable(self, why: str) -> QueryError:
        return QueryError("Unavailable", f"{self._host} cannot be reached: {why}", retryable=True)


def _sample(series: Mapping[str, Any]) -> Sample:
    """Histograms of Prometheus' own kind have no single value, and are no KeyError's fault."""
    return Sample(dict(series["metric"]), str(series["value"][1]))


def _cut(text: object) -> str:
    return " ".join(str(text).split())[:300]
