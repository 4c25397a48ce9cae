"""Server-side applies beside raw keep-alive requests: `python -m tests.benchmarks cluster`.

Both sides send the same bytes to the same API server from the same number of threads, in interleaved rounds: first
applies that create an object of 2 KB each, then applies that change nothing. The raw side is `http.client`, which
neither decodes nor judges an answer. Prints requests per second, CPU of this process per request, and the ratio of the
rates. The target is 0.80 for applies that create; those that change nothing show the client at its most costly.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import orjson

from reconciler.cluster import FIELD_MANAGER, Writer, connect
from renderers.manifest import Body, object_id
from tests.benchmarks.server import api_server
from tests.contract.faults import Upstream

THREADS = 8
OBJECTS = 500
ROUNDS = 4
RUN = f"bench-{uuid4().hex[:8]}"


class Rate(NamedTuple):
    per_second: float
    cpu_ms: float


def manifests(batch: str) -> list[Body]:
    """ConfigMaps of about 2 KB."""
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"{RUN}-{batch}-{number}", "namespace": "default", "labels": {"bench": RUN}},
            "data": {f"key-{key}": f"{number}-" + "x" * 90 for key in range(20)},
        }
        for number in range(OBJECTS)
    ]


def ours(writer: Writer, bodies: Iterator[Body]) -> None:
    for body in bodies:
        writer.apply(body)


def raw(upstream: Upstream, bodies: Iterator[Body]) -> None:
    connection = upstream.open()
    headers = {
        "Authorization": f"Bearer {upstream.token}",
        "Content-Type": "application/apply-patch+yaml",
        "Accept": "application/json",
    }
    query = f"?fieldManager={FIELD_MANAGER}&force=false&fieldValidation=Strict"
    for body in bodies:
        path = f"/api/v1/namespaces/default/configmaps/{body['metadata']['name']}{query}"
        connection.request("PATCH", path, orjson.dumps(body), headers)
        response = connection.getresponse()
        response.read()
        assert response.status in (200, 201), response.status
    connection.close()


def measure(send: Callable[[Iterator[Body]], None], bodies: list[Body]) -> Rate:
    """All threads take from the same bodies until there are none left."""
    left = iter(bodies)  # of a list: safe to share, as `next` holds the interpreter lock
    threads = [threading.Thread(target=send, args=(left,)) for _ in range(THREADS)]
    wall, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Rate(len(bodies) / wall, cpu / len(bodies) * 1000)


def show(what: str, rates: dict[str, list[Rate]]) -> None:
    best = {name: max(measured) for name, measured in rates.items()}
    print(f"{what}, best of {ROUNDS} rounds of {OBJECTS}")
    for name, rate in best.items():
        print(f"  {name:16} {rate.per_second:6.0f} requests/s   {rate.cpu_ms:.2f} ms of CPU each")
    print(f"  {'ratio':16} {best['Writer.apply'].per_second / best['raw http.client'].per_second:6.2f}")


def main() -> None:
    """Measures against $KUBECONFIG, or against an embedded server that is started and stopped."""
    with api_server() as kubeconfig:
        compare(kubeconfig)


def compare(kubeconfig: Path) -> None:
    writer = Writer(connect(str(kubeconfig), trusted=True, connections=THREADS))
    print(f"{writer.version()}, {THREADS} threads")
    upstream = Upstream.of(kubeconfig)
    sides = {
        "raw http.client": lambda bodies: raw(upstream, bodies),
        "Writer.apply": lambda bodies: ours(writer, bodies),
    }
    writer.resource("v1", "ConfigMap")
    try:
        for what, batch in (("creating", "{}-{}"), ("changing nothing", "{}-0")):
            rates: dict[str, list[Rate]] = {name: [] for name in sides}
            for turn in range(ROUNDS):
                for number, (name, send) in enumerate(sides.items()):
                    rates[name].append(measure(send, manifests(batch.format(number, turn))))
            show(what, rates)
    finally:
        made = writer.list("v1", "ConfigMap", namespace="default", labels=f"bench={RUN}", metadata_only=True)
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(lambda item: writer.delete(object_id(item), uid=item["metadata"]["uid"]), made.items))


if __name__ == "__main__":
    main()
