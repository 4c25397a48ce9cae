"""What the server answers: predictions, the Open Inference Protocol's questions, and its metrics."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote

from runtime.server import frames, log
from runtime.server.http import Exchange, Head, Limits, Reply, Response
from runtime.server.journal import Journal
from runtime.server.metrics import CONTENT_TYPE, Metrics, Sample
from runtime.server.pool import Pool, Task, Unavailable

_REQUEST_ID = re.compile(r"[!-~]{1,128}")
#: W3C Trace Context: version, trace id, span id, flags; a later version may have more.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_UNSAFE = re.compile(r"[^ -~]")

#: Characters of a header that a worker is told. A frame's text has no room for two of 64 KiB.
_TOLD = 1024

#: Seconds after which a caller may try again.
_RETRY_AFTER = "1"

#: Types of a model's schema, as the Open Inference Protocol names them.
_DATATYPES = {
    "bool": "BOOL",
    "boolean": "BOOL",
    "int": "INT64",
    "integer": "INT64",
    "int32": "INT32",
    "int64": "INT64",
    "float": "FP64",
    "float32": "FP32",
    "float64": "FP64",
    "double": "FP64",
    "number": "FP64",
}


@dataclass(frozen=True, slots=True)
class Identity:
    """What is served."""

    model: str
    variation: str
    build_id: str
    environment: str
    shadow: bool = False  #: callers do not see its answers

    @property
    def short(self) -> str:
        """The 8 hex digits that headers, labels and names of objects have."""
        return self.build_id[:8]


class _Trace:
    """What a request is called, by itself or by us."""

    __slots__ = ("parent", "request_id", "trace_id")

    def __init__(self, head: Head | None) -> None:
        given = head.header(b"x-request-id") if head is not None else ""
        self.request_id = given if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()
        parent = head.header(b"traceparent") if head is not None else ""
        match = _TRACEPARENT.fullmatch(parent)
        self.parent = parent if match else f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-00"
        self.trace_id = match[1] if match else self.parent[3:35]

    def headers(self) -> tuple[tuple[str, str], ...]:
        return (("x-request-id", self.request_id), ("traceparent", _UNSAFE.sub("", self.parent)))


class _Application:
    """What both ports have in common: limits, the headers of every answer, errors."""

    def __init__(self, identity: Identity, limits: Limits) -> None:
        self.limits = limits
        self.closing = False
        self.held_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._common = (f"x-trueup-variation: {identity.variation}\r\nx-trueup-build-id: {identity.short}\r\n").encode(
            "latin-1", "replace"
        )
        self._dated = b""
        self._dated_until = 0.0

    def common_headers(self) -> bytes:
        now = self._loop.time()
        if now >= self._dated_until:
            self._dated = b"%bdate: %b\r\n" % (self._common, formatdate(usegmt=True).encode())
            self._dated_until = now + 1.0
        return self._dated

    def unread(self, head: Head | None, status: int, message: str) -> Response:
        return _error(_Trace(head), status, message)


def _error(trace: _Trace, status: int, message: str, *more: tuple[str, str]) -> Response:
    retry = (("retry-after", _RETRY_AFTER),) if status == 503 else ()
    body = json.dumps({"message": message}).encode()
    return Response(status, body, headers=(*trace.headers(), *retry, *more))


class _Prediction:
    """A prediction on its way: counted, timed and recorded when it is answered."""

    __slots__ = ("_body", "_head", "_reply", "_sampled", "_server", "_started", "_task", "_time", "_trace")

    def __init__(self, server: Server, kind: int, head: Head, body: bytes, reply: Reply) -> None:
        self._server = server
        self._head = head
        self._reply = reply
        self._trace = trace = _Trace(head)
        self._started = server.clock()
        self._sampled = server.journal is not None and server.journal.is_sampled()
        self._body = body if self._sampled else b""
        self._time = log.timestamp(log.now()) if self._sampled else ""
        content_type, adapter = (head.header(name)[:_TOLD] for name in (b"content-type", b"adapter-name"))
        text = f"{trace.request_id}\n{trace.trace_id}\n{content_type}\n{adapter}"
        self._task = Task(kind, text, body, self._finish)

    def begin(self) -> bool:
        """False: it is answered already."""
        try:
            self._server.pool.submit(self._task)
        except Unavailable as unavailable:
            self._task.fail(503, str(unavailable))
        return not self._task.settled

    def abandon(self, *, certainly: bool) -> None:
        # What is computed may as well be told to a client that still listens. What waits is not computed for one that
        # has probably gone: after a time-out of theirs, callers ask again, and the queue would be full of ghosts.
        if certainly or not self._task.begun:
            self._task.abandon()

    def _finish(self, status: int, text: str, body: bytes) -> None:
        seconds = self._server.clock() - self._started
        headers = self._trace.headers()
        if status < 400:
            content_type = _UNSAFE.sub("", text)
        else:
            content_type = "application/json"
            if text:
                headers = (*headers, ("x-exception-class", _UNSAFE.sub("", text)))
            if status == 503:
                headers = (*headers, ("retry-after", _RETRY_AFTER))
        self._server.metrics.count(status)
        self._server.metrics.observe(seconds)
        self._reply(Response(status, body, content_type, headers))
        if self._sampled:
            self._record(status, seconds, body)

    def _record(self, status: int, seconds: float, answer: bytes) -> None:
        journal, identity = self._server.journal, self._server.identity
        assert journal is not None
        known = {
            "time": self._time,
            "request_id": self._trace.request_id,
            "trace_id": self._trace.trace_id,
            "build_id": identity.build_id,
            "model": identity.model,
            "variation": identity.variation,
            "environment": identity.environment,
            "audience": self._head.header(b"x-trueup-audience")[:256] or None,
            "status": status,
            "duration_ms": round(seconds * 1000, 3),
            "shadow": identity.shadow,
        }
        if excluded := self._server.pool.hello.exclude_columns:
            known["exclude_columns"] = list(excluded)
        journal.record(known, self._body, answer, self._task.notes)


class Server(_Application):
    """The port that predictions come in at."""

    def __init__(
        self,
        identity: Identity,
        limits: Limits,
        pool: Pool,
        metrics: Metrics,
        *,
        journal: Journal | None,
        schema: Mapping[str, Any] | None,
    ) -> None:
        super().__init__(identity, limits)
        self.identity = identity
        self.pool = pool
        self.metrics = metrics
        self.journal = journal
        self.clock = time.perf_counter  # the loop's own has milliseconds
        model = identity.model
        # A route leads to one variation by its name; who knows the build may name that.
        versions = (identity.variation, identity.short, identity.build_id)
        own = ["", *(f"/versions/{version}" for version in versions)]
        self._predictions = {f"/v2/models/{model}{version}/infer": frames.INFER for version in own}
        self._predictions |= {f"/v1/{model}/predict": frames.PREDICT}
        self._predictions |= {f"/v1/{model}/{identity.variation}/predict": frames.PREDICT}
        # A copy of a request names the variation that the original was for.
        self._copies = re.compile(f"/v1/{re.escape(model)}/[^/]+/predict") if identity.shadow else None
        described = _described(identity, schema)
        self._told = {f"/v2/models/{model}{version}": json.dumps(described).encode() for version in own}
        self._told |= {"/v2": b'{"name": "trueup", "version": "2", "extensions": []}'}
        self._told |= {"/v2/health/live": b'{"live": true}'}
        self._states = {"/v2/health/ready", *(f"/v2/models/{model}{version}/ready" for version in own)}

    def refusal(self, head: Head) -> Response | None:
        path = _decoded(head.path)
        kind = self._prediction(path)
        if kind is None:
            if path in self._told or path in self._states:
                return None if head.method in ("GET", "HEAD") else _not_allowed(head, "GET, HEAD")
            return self.unread(head, 404, self._unknown(path))
        if head.method != "POST":
            return self._counted(_not_allowed(head, "POST"))
        if kind == frames.INFER and not _is_json(head.header(b"content-type")):
            return self.unread(head, 415, "the Open Inference Protocol is understood in application/json")
        try:
            self.pool.check()
        except Unavailable as unavailable:
            return self.unread(head, 503, str(unavailable))
        return None

    def unread(self, head: Head | None, status: int, message: str) -> Response:
        response = super().unread(head, status, message)
        return self._counted(response) if head is not None and self._prediction(_decoded(head.path)) else response

    def _counted(self, response: Response) -> Response:
        self.metrics.count(response.status)
        return response

    def handle(self, head: Head, body: bytes, reply: Reply) -> Exchange | None:
        path = _decoded(head.path)
        kind = self._prediction(path)
        if kind is not None and head.method == "POST" and body:
            prediction = _Prediction(self, kind, head, body, reply)
            return prediction if prediction.begin() else None
        refused = self.refusal(head)
        if refused is not None:
            reply(refused)
        elif kind is not None:
            reply(self.unread(head, 400, "The body is empty."))
        elif path in self._told:
            reply(Response(200, self._told[path], headers=_Trace(head).headers()))
        else:
            reply(self._state(head))
        return None

    def _state(self, head: Head) -> Response:
        ready = self.pool.ready > 0 and not self.closing
        body = json.dumps({"name": self.identity.model, "ready": ready}).encode()
        return Response(200 if ready else 503, body, headers=_Trace(head).headers())

    def _prediction(self, path: str) -> int | None:
        kind = self._predictions.get(path)
        if kind is None and self._copies is not None and self._copies.fullmatch(path):
            return frames.PREDICT
        return kind

    def _unknown(self, path: str) -> str:
        model, variation = self.identity.model, self.identity.variation
        return (
            f"nothing is at {path[:200]!r}: this is the variation {variation} of {model}, at POST /v1/{model}/predict"
        )


class Exposition(_Application):
    """The port that Prometheus asks."""

    def __init__(
        self, identity: Identity, limits: Limits, pool: Pool, metrics: Metrics, journal: Journal | None
    ) -> None:
        super().__init__(identity, limits)
        self._pool = pool
        self._metrics = metrics
        self._journal = journal

    def refusal(self, head: Head) -> Response | None:
        if head.path != "/metrics":
            return self.unread(head, 404, "here are /metrics alone")
        return None if head.method in ("GET", "HEAD") else _not_allowed(head, "GET, HEAD")

    def handle(self, head: Head, body: bytes, reply: Reply) -> Exchange | None:  # noqa: ARG002 - the Application's
        refused = self.refusal(head)
        if refused is None:
            pids = self._pool.pids() + (self._journal.pids() if self._journal is not None else [])
            text = self._metrics.text(self._samples(), pids)
            refused = Response(200, text, CONTENT_TYPE, _Trace(head).headers())
        reply(refused)
        return None

    def _samples(self) -> Sequence[Sample]:
        pool = self._pool
        counts = self._journal.counts if self._journal is not None else {"written": 0, "dropped": 0}
        return [
            Sample("trueup_workers_ready", "gauge", "Processes that have the model.", pool.ready),
            Sample("trueup_requests_unanswered", "gauge", "Requests that wait or are computed.", pool.unanswered),
            Sample("trueup_requests_waiting", "gauge", "Requests that no process computes yet.", pool.waiting),
            Sample(
                "trueup_worker_replacements_total",
                "counter",
                "Processes of the model that were replaced, by why.",
                pool.replaced,
                "reason",
            ),
            Sample(
                "trueup_inference_log_records_total",
                "counter",
                "Records of predictions that were written to the object storage, or dropped.",
                counts,
                "outcome",
            ),
        ]


def _not_allowed(head: Head, allowed: str) -> Response:
    return _error(_Trace(head), 405, f"{head.method} is not possible here: {allowed} is", ("allow", allowed))


def _decoded(path: str) -> str:
    return unquote(path) if "%" in path else path


def _is_json(content_type: str) -> bool:
    name = content_type.partition(";")[0].strip().lower()
    return name in ("", "application/json") or name.endswith("+json")


def _described(identity: Identity, schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """The model's metadata. `schema` is {"inputs": [{"name", "type"}], "outputs": [...]}, as its build recorded it."""

    def columns(part: str) -> list[dict[str, Any]]:
        return [
            {
                "name": column.get("name"),
                "datatype": _DATATYPES.get(str(column.get("type")).lower(), "BYTES"),
                "shape": [-1],
            }
            for column in (schema or {}).get(part) or []
        ]

    return {
        "name": identity.model,
        "versions": [identity.short],
        "platform": "trueup",
        "inputs": columns("inputs"),
        "outputs": columns("outputs"),
    }
