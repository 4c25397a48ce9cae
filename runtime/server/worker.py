"""The processes that have the model: a template, and the workers that are forked from it.

`python -m runtime.server.worker ARTIFACT MAX_BATCH [--preload] SOCKET`. With --preload (the spec's daemon_mode) the
template loads the model once, and each worker begins with a copy of its memory; else each worker loads it for itself.
Both end when their socket does, so nothing is left when the front dies.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import select
import signal
import socket
import sys
import time
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from runtime.model.api import Api, api_of
from runtime.model.exceptions import BadRequest, HTTPException, ModelError
from runtime.model.jsons import dumps, loads
from runtime.model.loader import load
from runtime.model.tensors import tensors_from_result, value_from_tensors
from runtime.model.tracebacks import own_traceback
from runtime.server import frames, log

#: Seconds that the template waits for its workers at the end.
_ENDING = 3.0

#: Media types of bodies that adapters read.
_READ = re.compile(
    r"(image|audio|video|multipart)/.+|text/(plain|json)|application/(json|.+\+json|octet-stream|x-npy|(x-|vnd\.google\.)?protobuf)"
)

#: What a model may raise: everything but what ends this process on purpose. sys.exit() in a model is such a fault too.
_FAULTS = (Exception, SystemExit)


def main() -> None:
    """The template's whole life."""
    parser = argparse.ArgumentParser()
    parser.add_argument("artifact", type=Path)
    parser.add_argument("max_batch", type=int)
    parser.add_argument("--preload", action="store_true")
    parser.add_argument("socket", type=int)
    options = parser.parse_args()
    # The front says when to end. A handler, for being deaf to a signal would be handed on to the model's own processes.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    os.set_inheritable(options.socket, False)  # a process that the model starts would keep it open
    with socket.socket(fileno=options.socket) as control:
        template = _Template(control, options.artifact, options.max_batch)
        worker = template.run(preload=options.preload)
    if worker is not None:
        worker.run()


class _Template:
    def __init__(self, control: socket.socket, artifact: Path, max_batch: int) -> None:
        self._control = control
        self._artifact = artifact
        self._max_batch = max_batch
        self._children: set[int] = set()

    def run(self, *, preload: bool) -> _Worker | None:
        """None: the front is gone, and the workers with it. A worker: this is the fork."""
        loaded = None
        if preload:
            loaded = _loaded(self._artifact, self._control)
            if loaded is None:
                return None
            gc.collect()
            gc.freeze()  # a collection would write to every page that the workers share
        self._control.sendall(frames.pack(frames.LOADED))
        while True:
            readable, _, _ = select.select([self._control], [], [], 1.0)
            self._reap()
            if not readable:
                continue
            data, passed, _, _ = socket.recv_fds(self._control, len(frames.pack(frames.FORK)), 1)
            if not data:
                self._end()
                return None
            for number in passed:
                with socket.socket(fileno=number) as theirs:
                    if self._forked():
                        os.set_inheritable(theirs.fileno(), False)
                        return _Worker(socket.socket(fileno=theirs.detach()), self._artifact, self._max_batch, loaded)

    def _forked(self) -> bool:
        """True in the fork."""
        try:
            pid = os.fork()
        except OSError as error:  # the front sees the socket end, and asks again
            log.write("error", f"no process can be made: {error.strerror}")
            return False
        if pid:
            self._children.add(pid)
        return not pid

    def _reap(self) -> None:
        for pid in list(self._children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._children.discard(pid)
                code = os.waitstatus_to_exitcode(status)
                if code:
                    how = f"signal {-code}" if code < 0 else f"exit code {code}"
                    log.write("warning", f"a process of the model ended with {how}", pid=pid)

    def _end(self) -> None:
        until = time.monotonic() + _ENDING
        while self._children and time.monotonic() < until:
            time.sleep(0.01)
            self._reap()
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)


def _loaded(artifact: Path, front: socket.socket) -> tuple[Any, Api] | None:
    """The model, and how it is asked. None: it cannot be loaded, and the front knows why."""
    try:
        model = load(artifact)
        tensors_from_result([0])  # imports what it needs now, and not in the time of the first request
        return model, api_of(model)
    except _FAULTS as error:
        sentence = str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
        with suppress(BrokenPipeError):  # another worker told it before, and the front has ended
            front.sendall(frames.pack(frames.FAILED, 0, "", sentence.encode("utf-8", "replace")))
        return None


class _Request(NamedTuple):
    """One request of a batch, understood."""

    number: int
    id: str
    trace: str
    value: Any
    rows: int
    kind: Hashable  #: what may be joined is of one kind
    repeated: Mapping[str, Any] | None  #: what the answer of an Open Inference request begins with; None: it is no such
    outputs: frozenset[str]  #: the tensors that it asks for; none: all


class _Worker:
    def __init__(self, front: socket.socket, artifact: Path, max_batch: int, loaded: tuple[Any, Api] | None) -> None:
        self._front = front
        self._artifact = artifact
        self._max_batch = max_batch
        self._loaded = loaded
        self._api: Api
        self._unsent: list[bytes] = []

    def run(self) -> None:
        """Computes batches until the front ends."""
        loaded = self._loaded or _loaded(self._artifact, self._front)
        if loaded is None:
            return
        self._api = api = loaded[1]
        hello = {
            "batchable": api.batchable,
            "sample_ratio": api.sample_ratio if api.analytics else 0.0,
            "exclude_columns": sorted(api.exclude_columns),
        }
        # A process that the model forks would keep the socket open when this one dies, and read from it beside us.
        os.register_at_fork(after_in_child=lambda: os.close(self._front.detach()))
        self._send(frames.READY, os.getpid(), "", json.dumps(hello).encode())
        self._flush()
        stream = cast(IO[bytes], self._front.makefile("rb", buffering=65_536))
        batch: list[frames.Frame] = []
        try:
            while (frame := frames.read(stream)) is not None:
                if frame.kind == frames.GO:
                    self._compute(batch)
                    self._send(frames.DONE)
                    self._flush()
                    batch = []
                else:
                    batch.append(frame)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the front is gone
        sys.stdout.flush()

    def _send(self, kind: int, number: int = 0, text: str = "", body: bytes = b"") -> None:
        self._unsent.append(frames.pack(kind, number, text, body))

    def _flush(self) -> None:
        """Before anything that may take its time: what is answered is answered."""
        if self._unsent:
            self._front.sendall(b"".join(self._unsent))
            self._unsent.clear()

    def _compute(self, batch: Sequence[frames.Frame]) -> None:
        groups: dict[Hashable, list[_Request]] = {}
        rows = 0
        for frame in batch:
            request = self._understood(frame)
            if request is None:
                continue
            if rows and rows + request.rows > self._max_batch:
                self._send(frames.BACK, request.number)
            else:
                rows += request.rows
                groups.setdefault(request.kind, []).append(request)
        for requests in groups.values():
            if len(requests) == 1 or not self._computed_together(requests):
                for request in requests:
                    self._compute_alone(request)

    def _understood(self, frame: frames.Frame) -> _Request | None:
        """None: the request is answered already, with what is wrong with it."""
        name, trace, content_type, adapter = frame.text.split("\n")
        repeated, outputs = None, frozenset[str]()
        try:
            if frame.kind == frames.INFER:
                document = loads(frame.body)
                if not isinstance(document, dict):
                    raise BadRequest('The body is no object; send {"inputs": [...]}.')
                value = value_from_tensors(document.get("inputs"), self._api)
                repeated, outputs = _repeated(document), _outputs(document)
            else:
                value = self._api.decode(frame.body, content_type, {"adapter-name": adapter} if adapter else {})
            rows, kind = (self._api.rows(value), self._api.kind(value)) if self._api.batchable else (1, None)
        except _FAULTS as error:
            if isinstance(error, BadRequest) and _is_strange(content_type):
                error.status_code, error.message = 415, f"{error} Its Content-Type is {content_type}."
            self._fail(frame.number, name, trace, error)
            return None
        return _Request(frame.number, name, trace, value, rows, kind, repeated, outputs)

    def _computed_together(self, requests: Sequence[_Request]) -> bool:
        """False: the model cannot take them at once, and none is answered."""
        self._flush()
        try:
            result = self._api.call(self._api.join([request.value for request in requests]))
            parts = self._api.split(result, [request.rows for request in requests])
        except _FAULTS:
            # One request's bad row must not fail the others': alone, each gets the answer that it deserves.
            return False
        for request, part in zip(requests, parts, strict=True):
            self._answer(request, part)
        return True

    def _compute_alone(self, request: _Request) -> None:
        notes: list[Any] = []
        self._flush()
        try:
            result = self._api.call(request.value, notes.append)
        except _FAULTS as error:
            self._fail(request.number, request.id, request.trace, error)
            return
        if notes:
            try:
                self._send(frames.NOTES, request.number, "", dumps(notes))
            except HTTPException as error:
                log.write("warning", f"what the model logged is left out: {error}", request_id=request.id)
        self._answer(request, result)

    def _answer(self, request: _Request, result: Any) -> None:
        try:
            if request.repeated is None:
                body, content_type = self._api.encode(result)
            else:
                tensors = tensors_from_result(result)
                chosen = [tensor for tensor in tensors if not request.outputs or tensor["name"] in request.outputs]
                body, content_type = dumps({**request.repeated, "outputs": chosen}), "application/json"
        except _FAULTS as error:
            self._fail(request.number, request.id, request.trace, error)
        else:
            self._send(200, request.number, content_type, body)

    def _fail(self, number: int, name: str, trace: str, error: BaseException) -> None:
        if isinstance(error, HTTPException):
            status, body, exception = error.status, dumps(error.body), error.exception_class_name
        else:
            status, exception = 500, type(error).__name__
            body = dumps({"message": f"{exception}: {error}"})
        if isinstance(error, BadRequest):
            exception = ""  # the caller's fault, and not an exception of the model
        elif status >= 500:
            log.write(
                "error",
                "the model raised",
                request_id=name,
                trace_id=trace,
                exception=exception,
                traceback=own_traceback(error),
            )
        self._send(status, number, exception, body)


def _repeated(document: Mapping[str, Any]) -> Mapping[str, Any]:
    known = {
        "model_name": os.environ.get("TRUEUP_MODEL", ""),
        "model_version": os.environ.get("TRUEUP_BUILD_ID", "")[:8],
    }
    return {**known, "id": document["id"]} if isinstance(document.get("id"), str) else known


def _outputs(document: Mapping[str, Any]) -> frozenset[str]:
    asked = document.get("outputs") or []
    if not isinstance(asked, list) or not all(isinstance(item, dict) for item in asked):
        raise BadRequest('"outputs" must be a list of objects, each with the name of a tensor.')
    return frozenset(str(item.get("name")) for item in asked)


def _is_strange(content_type: str) -> bool:
    """Whether it names a format that no adapter reads. Who sends JSON by another name is understood all the same."""
    name = content_type.partition(";")[0].strip().lower()
    return bool(name) and not _READ.fullmatch(name)


if __name__ == "__main__":
    main()
