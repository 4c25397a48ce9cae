"""10,000 objects kept up to date by watches, beside raw lists of the same: `python -m tests.benchmarks cache`.

Half are ConfigMaps, half are Deployments of the size that serving has, with the managedFields that a server-side apply
leaves; in 10 namespaces, so that there are 20 watches. A process of its own holds the cache. Prints

- the time to the first complete cache (target: 10 s), beside the ceiling: the same pages over one bare keep-alive
  connection, neither decoded nor kept;
- its memory above that of a process that has imported the same and listed nothing (target: 60 MiB);
- what an event, a `get`, a `list` and a look at all entries cost, in CPU of that process.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from reconciler import readiness
from reconciler.cluster import Cache, CachedReader, Heard, Reader, Watched, Writer, connect
from renderers.manifest import Body
from tests.benchmarks.server import api_server
from tests.contract.faults import Upstream

NAMESPACES = 10
OF_EACH_KIND = 500  # in each namespace
EVENTS = 1_000
THREADS = 8
LABELS = {"app.kubernetes.io/managed-by": "trueup", "applyset.kubernetes.io/part-of": "applyset-bench-v1"}
SELECTOR = "applyset.kubernetes.io/part-of=applyset-bench-v1"
PATHS = {"ConfigMap": "/api/v1/namespaces/{}/configmaps", "Deployment": "/apis/apps/v1/namespaces/{}/deployments"}


def main() -> None:
    """Measures against $KUBECONFIG, or against an embedded server that is started and stopped."""
    with api_server() as kubeconfig:
        measure(kubeconfig)


def measure(kubeconfig: Path) -> None:
    """Fills the server, lists it both ways, changes some of it, and empties it."""
    writer = Writer(connect(str(kubeconfig), trusted=True, connections=THREADS))
    namespaces = [f"bench-{uuid4().hex[:8]}-{number}" for number in range(NAMESPACES)]
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(writer.apply, map(_namespace, namespaces)))
        made = list(pool.map(writer.apply, _bodies(namespaces)))
        size = sum(len(json.dumps(body)) for body in made) / len(made)
        print(f"{writer.version()}: {len(made):,} objects of {size / 1000:.1f} kB, {2 * NAMESPACES} watches")
        try:
            _compare(kubeconfig, writer, namespaces, pool)
        finally:
            _empty(Upstream.of(kubeconfig), namespaces)


def _compare(kubeconfig: Path, writer: Writer, namespaces: list[str], pool: ThreadPoolExecutor) -> None:
    with _child(kubeconfig, "bare", namespaces) as ask:
        bare = ask("memory")["rss"]
    raw = min(_raw(Upstream.of(kubeconfig), namespaces) for _ in range(3))
    with _child(kubeconfig, "cache", namespaces) as ask:
        complete = ask("complete")
        memory = ask("memory")
        print(f"{'first complete cache':34}{complete['wall']:9.2f} s   {complete['cpu']:.2f} s of CPU")
        print(f"{'raw pages over one connection':34}{raw:9.2f} s   ratio {raw / complete['wall']:.2f}")
        print(f"{'memory above a bare process':34}{memory['rss'] - bare:9.1f} MiB (peak {memory['peak'] - bare:.1f})")
        ask("begin")
        changes = [_changed(namespaces[number % NAMESPACES], number) for number in range(EVENTS)]
        list(pool.map(lambda body: writer.apply(body, force=True), changes))
        heard = ask("heard")
        print(f"{'an event':34}{heard['cpu'] / EVENTS * 1e6:9.0f} us of CPU")
        costs = ask("costs")
        print(f"{'get of one object':34}{costs['get'] * 1e6:9.0f} us")
        count = 2 * OF_EACH_KIND * NAMESPACES
        print(f"{'list, decoded, of each object':34}{costs['list'] / count * 1e6:9.0f} us   all: {costs['list']:.2f} s")
        print(f"{'entries, of each object':34}{costs['entries'] / count * 1e6:9.2f} us   all: {costs['entries']:.3f} s")
        again = ask("memory")
        print(f"{'memory after all that':34}{again['rss'] - bare:9.1f} MiB")


def _raw(upstream: Upstream, namespaces: list[str]) -> float:
    """The same pages, read and thrown away; only the token of the next one is looked for."""
    connection = upstream.open()
    headers = {"Authorization": f"Bearer {upstream.token}", "Accept": "application/json"}
    began = time.perf_counter()
    for path in (path.format(namespace) for namespace in namespaces for path in PATHS.values()):
        token = ""
        while True:
            connection.request(
                "GET", f"{path}?limit=500&labelSelector={SELECTOR.replace('=', '%3D')}{token}", None, headers
            )
            head = connection.getresponse().read()[:2000]
            _, found, rest = head.partition(b'"continue":"')
            if not found:
                break
            token = "&continue=" + rest.partition(b'"')[0].decode()
    connection.close()
    return time.perf_counter() - began


def _empty(upstream: Upstream, namespaces: list[str]) -> None:
    connection = upstream.open()
    headers = {"Authorization": f"Bearer {upstream.token}"}
    for namespace in namespaces:
        for path in (*PATHS.values(), "/api/v1/namespaces/{}"):
            connection.request("DELETE", path.format(namespace), None, headers)
            connection.getresponse().read()
    connection.close()


# -- the process that is measured -----------------------------------------------------------------------------------


@contextmanager
def _child(kubeconfig: Path, what: str, namespaces: list[str]) -> Iterator[Callable[[str], dict[str, float]]]:
    command = [sys.executable, "-m", "tests.benchmarks.bench_cache", what, str(kubeconfig), *namespaces]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        asking, answering = child.stdin, child.stdout

        def ask(question: str) -> dict[str, float]:
            print(question, file=asking, flush=True)
            answer: dict[str, float] = json.loads(answering.readline())
            return answer

        yield ask
        asking.close()


def _measured(what: str, kubeconfig: str, *namespaces: str) -> None:
    began, began_cpu = time.perf_counter(), time.process_time()
    connection = connect(kubeconfig, trusted=True)
    heard: list[Heard] = []
    cache = Cache(Reader(connection), heard.append, judge=lambda body: readiness.of(body).state)
    reader = CachedReader(connection, cache)
    reader.version()
    wanted = [
        Watched(*kind, namespace, SELECTOR)
        for namespace in namespaces
        for kind in (("v1", "ConfigMap"), ("apps/v1", "Deployment"))
    ]
    if what == "cache":
        cache.follow(wanted)
    for line in sys.stdin:
        match line.strip():
            case "complete":
                while not all(map(cache.is_complete, wanted)):
                    time.sleep(0.005)
                assert cache.counts().objects == 2 * OF_EACH_KIND * NAMESPACES
                answer = {"wall": time.perf_counter() - began, "cpu": time.process_time() - began_cpu}
            case "memory":
                gc.collect()
                lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
                rss, peak = (int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
                answer = {"rss": rss, "peak": peak}
            case "begin":
                time.sleep(1.0)  # for the streams to be open
                heard.clear()
                cpu = time.process_time()
                answer = {}
            case "heard":
                # Where controllers run, they are heard as well.
                while sum(one.how == "CHANGED" and one.target.kind == "ConfigMap" for one in list(heard)) < EVENTS:
                    time.sleep(0.005)
                answer = {"cpu": time.process_time() - cpu}
            case "costs":
                answer = _costs(cache, reader, wanted)
        print(json.dumps(answer), flush=True)
    cache.close()
    connection.close()


def _costs(cache: Cache, reader: CachedReader, wanted: list[Watched]) -> dict[str, float]:
    targets = [target for one in wanted[:2] for target, _ in cache.entries(one)]

    def list_all() -> None:
        for version, kind, namespace, labels in wanted:
            reader.list(version, kind, namespace=namespace, labels=labels)

    return {
        "get": _cpu(lambda: [reader.get(target) for target in targets]) / len(targets),
        "list": _cpu(list_all),
        "entries": _cpu(lambda: [entry.version for one in wanted for _, entry in cache.entries(one)]),
    }


def _cpu(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


# -- the objects ----------------------------------------------------------------------------------------------------


def _bodies(namespaces: list[str]) -> Iterator[Body]:
    for namespace in namespaces:
        for number in range(OF_EACH_KIND):
            yield _config_map(namespace, number, "x")
            yield _deployment(namespace, number)


def _changed(namespace: str, number: int) -> Body:
    """Another ConfigMap for every number: whose data changes, by somebody else."""
    return _config_map(namespace, number // NAMESPACES, f"changed {number}")


def _namespace(name: str) -> Body:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _metadata(namespace: str, number: int) -> Body:
    name = f"model-{number}"
    labels = {**LABELS, "app.kubernetes.io/name": name, "app.kubernetes.io/component": "serving"}
    return {
        "name": name,
        "namespace": namespace,
        "labels": labels,
        "annotations": {"trueup.dev/content-hash": uuid4().hex * 2},
    }


def _config_map(namespace: str, number: int, word: str) -> Body:
    data = {f"setting-{key}": f"{uuid4().hex} {word}" for key in range(20)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(namespace, number), "data": data}


def _deployment(namespace: str, number: int) -> Body:
    metadata = _metadata(namespace, number)
    probe = {"httpGet": {"path": "/v2/health/ready", "port": "http"}, "periodSeconds": 5, "failureThreshold": 3}
    container = {
        "name": "model",
        "image": f"registry.example.com/runtime@sha256:{uuid4().hex * 2}",
        "args": ["serve", "--model", metadata["name"], "--artifact", f"s3://bucket/{uuid4().hex}/artifact"],
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "env": [{"name": f"SETTING_{n}", "value": f"{uuid4().hex}"} for n in range(12)],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}},
        "readinessProbe": probe,
        "livenessProbe": {**probe, "periodSeconds": 30},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "artifacts", "mountPath": "/var/artifacts"}],
    }
    pod = {
        "containers": [container],
        "serviceAccountName": metadata["name"],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "artifacts", "emptyDir": {}}],
    }
    selector = {"app.kubernetes.io/name": metadata["name"]}
    template = {"metadata": {"labels": metadata["labels"]}, "spec": pod}
    spec = {"replicas": 0, "paused": True, "selector": {"matchLabels": selector}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _measured(*sys.argv[1:])
    else:
        main()
