"""`python -m runtime.server`: serves a model's artifact, in the model's environment. `runtime serve` starts it.

Which model it is, and where the inference log goes, is in the environment: TRUEUP_MODEL, TRUEUP_VARIATION,
TRUEUP_BUILD_ID, TRUEUP_ENVIRONMENT, TRUEUP_OBJECT_STORAGE, POD_IP, POD_NAME. TRUEUP_MAX_BODY_BYTES (16 MiB),
TRUEUP_MAX_WAITING (1,024 requests) and TRUEUP_INFERENCE_SAMPLE_RATIO (the model's own) may be set in a spec's env_vars.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from runtime.exits import Exit
from runtime.server import log
from runtime.server.app import Exposition, Identity, Server
from runtime.server.http import Connections, Limits
from runtime.server.journal import Journal, recorder_environment
from runtime.server.metrics import Metrics
from runtime.server.pool import LoadFailed, Pool

Number = TypeVar("Number", int, float)

LIMITS = Limits()

#: Seconds after SIGTERM in which new connections are taken: a gateway may not have heard of the end yet.
_LAME_SECONDS = 1.0
#: Seconds without a word after which a connection is closed then.
_QUIET_SECONDS = 0.25


def main() -> int:
    """Serves until SIGTERM. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m runtime.server", description=__doc__)
    parser.add_argument("--artifact", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--metrics-port", required=True, type=int)
    parser.add_argument("--workers", required=True, type=int)
    parser.add_argument("--timeout-ms", required=True, type=int)
    parser.add_argument("--max-batch-size", required=True, type=int)
    parser.add_argument("--preload", action="store_true")
    parser.add_argument("--shadow", action="store_true")
    parser.add_argument("--recorder-python", default=sys.executable, help="an interpreter that reaches the storage")
    parser.add_argument("--recorder-path", help="where it finds this program; default: beside itself")
    parser.add_argument("--head-seconds", type=float, default=LIMITS.head_seconds, help="for the head of a request")
    parser.add_argument("--body-seconds", type=float, default=LIMITS.body_seconds, help="for its body")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(options, os.environ))


async def _serve(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)

    identity = Identity(
        environ["TRUEUP_MODEL"],
        environ["TRUEUP_VARIATION"],
        environ["TRUEUP_BUILD_ID"],
        environ.get("TRUEUP_ENVIRONMENT", ""),
        options.shadow,
    )
    limits = Limits(
        body_bytes=_number(environ, "TRUEUP_MAX_BODY_BYTES", LIMITS.body_bytes),
        head_seconds=options.head_seconds,
        body_seconds=options.body_seconds,
    )
    template = [sys.executable, "-P", "-m", "runtime.server.worker", str(options.artifact), str(options.max_batch_size)]
    pool = Pool(
        [*template, *(["--preload"] if options.preload else [])],
        workers=options.workers,
        timeout=options.timeout_ms / 1000,
        max_batch=options.max_batch_size,
        max_waiting=_number(environ, "TRUEUP_MAX_WAITING", 1024),
        forked=options.preload,
    )
    journal = None
    if "TRUEUP_OBJECT_STORAGE" in environ:
        command = [options.recorder_python, "-P", "-m", "runtime.server.recorder"]
        journal = Journal(command, recorder_environment(environ, options.recorder_path))
    labels = {"model": identity.model, "variation": identity.variation, "build_id": identity.short}
    metrics = Metrics(labels, options.timeout_ms / 1000)
    schema = json.loads((options.artifact / "artifact.json").read_bytes()).get("schema")
    server = Server(identity, limits, pool, metrics, journal=journal, schema=schema)
    connections = Connections(server)
    exposition = Connections(Exposition(identity, limits, pool, metrics, journal))

    host = environ.get("POD_IP") or "127.0.0.1"
    try:
        listening = await loop.create_server(connections, sock=_listen(host, options.port))
        scraped = await loop.create_server(exposition, sock=_listen(host, options.metrics_port))
    except OSError as error:
        log.write("error", f"the server cannot listen at {host}: {error.strerror}")
        return Exit.DISTURBED

    failed = None
    try:
        await _run(pool, journal, ending, environ, f"{host}:{options.port}")
    except LoadFailed as failure:
        failed = failure
    else:
        await _drain(server, connections, listening, options.timeout_ms / 1000)
    await asyncio.gather(pool.close(), *([journal.close()] if journal is not None else []))
    for each in (listening, scraped):
        each.close()
    for open_ones in (connections, exposition):
        open_ones.stop()
    if failed is not None:  # as the last line: the kubelet takes the end of the log for the termination message
        log.write("error", f"the model cannot be served: {failed}")
        return Exit.MODEL
    log.write("info", "ended")
    return Exit.DONE


async def _run(
    pool: Pool, journal: Journal | None, ending: asyncio.Event, environ: Mapping[str, str], where: str
) -> None:
    """Returns when the end is asked for. Raises LoadFailed."""
    starting = asyncio.ensure_future(pool.start())
    ended = asyncio.ensure_future(ending.wait())
    await asyncio.wait([starting, ended], return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        return
    try:
        starting.result()
    except LoadFailed:
        ended.cancel()
        raise
    if journal is not None:
        journal.begin(min(1.0, max(0.0, _number(environ, "TRUEUP_INFERENCE_SAMPLE_RATIO", pool.hello.sample_ratio))))
    log.write("info", f"ready at {where}", batchable=pool.hello.batchable)
    await ended


async def _drain(server: Server, connections: Connections, listening: Any, timeout: float) -> None:
    """No request that reaches this server is lost: each is answered, and told to go elsewhere with the next."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _LAME_SECONDS + timeout + 1.0
    server.closing = True
    log.write("info", "ending: what is being answered will be")
    await asyncio.sleep(_LAME_SECONDS)
    for each in listening.sockets:
        _refuse_new(each)
    await asyncio.sleep(0.05)  # what is connected is accepted
    listening.close()
    while connections.open and loop.time() < until:
        connections.close_idle(_QUIET_SECONDS)
        await asyncio.sleep(0.02)


def _refuse_new(listening: Any) -> None:
    """No more connections come in. Closing alone would reset those that wait to be accepted.

    On Linux, by a packet filter of one instruction: keep nothing. Clients try again, and find the socket closed.
    """
    if sys.platform == "linux":
        program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF_RET, 0 bytes
        attached = struct.pack("HP", 1, ctypes.addressof(program))
        listening.setsockopt(socket.SOL_SOCKET, 26, attached)  # SO_ATTACH_FILTER


def _listen(host: str, port: int) -> socket.socket:
    """Raises OSError."""
    ((family, kind, protocol, _, address), *_) = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(address)
    listening.listen(2048)
    listening.setblocking(False)
    return listening


def _number(environ: Mapping[str, str], name: str, default: Number) -> Number:
    """A limit from the environment; what is no number is told, and the default holds."""
    text = environ.get(name)
    if text is None:
        return default
    try:
        return type(default)(text)
    except ValueError:
        log.write("warning", f"{name} is {text!r}, which is no number: {default} it is")
        return default


if __name__ == "__main__":
    sys.exit(main())
