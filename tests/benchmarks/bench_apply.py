"""A whole run: 1,000 apps of four objects each, cold, and then a pass in which nothing changed.

    python -m tests.benchmarks apply            against an embedded server of its own
    KUBECONFIG=... python -m tests.benchmarks apply

The ceiling is raw keep-alive requests: `http.client` from as many threads, sending the same bodies to the same server
and looking at no answer. Rounds are interleaved, each in namespaces of its own. The target is 80 % of the ceiling's
rate, planning, inventory and order included.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

from reconciler import apply, desired, inventory, observe, plan
from reconciler.cluster import FIELD_MANAGER, Writer, connect
from reconciler.cluster.objects import apply_patch
from reconciler.plan import Plan, Wanted
from renderers.manifest import Body, Manifest, Origin, object_id
from tests.benchmarks.server import api_server
from tests.contract.faults import Upstream

APPS = 1_000
ROUNDS = 3
THREADS = 8
ORIGIN = Origin("specs/bench.yaml", 1, "variation", "bench")
_PATHS = {
    "Namespace": "/api/v1/namespaces",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Service": "/api/v1/namespaces/{}/services",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
}


def main() -> None:
    """Measures against $KUBECONFIG, or against an embedded server that is started and stopped."""
    with api_server() as kubeconfig:
        measure(kubeconfig)


def measure(kubeconfig: Path) -> None:
    """Prints objects per second and the ratio for each round, then what a pass without changes costs."""
    connection = connect(str(kubeconfig), trusted=True, connections=THREADS)
    writer = Writer(connection)
    upstream = Upstream.of(kubeconfig)
    print(f"{4 * APPS + 1:,} objects, cold; {THREADS} requests at a time")
    print(f"{'':10}{'ours/s':>9}{'raw/s':>9}{'ratio':>8}")
    with ThreadPoolExecutor(THREADS) as pool:
        for number in range(ROUNDS):
            name = f"bench-{uuid4().hex[:8]}"
            manifests = _manifests(name)
            ours = _timed(lambda name=name, manifests=manifests: _run(writer, name, manifests, pool))
            bodies = [manifest.body for manifest in _manifests(f"{name}-raw")]
            raw = _timed(lambda bodies=bodies: _raw(upstream, bodies))
            rates = [(4 * APPS + 1) / seconds for seconds in (ours, raw)]
            print(f"round {number + 1:<4}{rates[0]:9.0f}{rates[1]:9.0f}{rates[0] / rates[1]:8.2f}", flush=True)
        cpu, wall = time.process_time(), time.perf_counter()
        made = _plan(writer, name, manifests, pool)[0]
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        assert not made.actions
        print(f"a pass in which nothing changed: {wall:.2f} s, {cpu:.2f} s of CPU, no write and no dry run")
    connection.close()


def _timed(work: object) -> float:
    started = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - started


def _plan(writer: Writer, name: str, manifests: list[Manifest], pool: ThreadPoolExecutor) -> tuple[Plan, apply.Target]:
    observed = observe.observe(writer, name, manifests, observe.inventories(writer), pool, verify=False)
    wanted = Wanted(name, tuple(manifests))
    changes, guards = plan.environment(wanted, observed)
    target = apply.Target(writer, wanted, observed, lambda: None)
    return plan.assemble(changes, (), guards), target


def _run(writer: Writer, name: str, manifests: list[Manifest], pool: ThreadPoolExecutor) -> None:
    made, target = _plan(writer, name, manifests, pool)
    done = list(apply.carry_out(made, {name: target}, pool))
    assert {one.outcome for one in done} == {"applied"}, next(one for one in done if one.outcome != "applied")


def _raw(upstream: Upstream, bodies: list[Body]) -> None:
    """The namespace first; then every thread takes the next body until none is left."""
    left = iter(bodies)
    lock = threading.Lock()
    _send(upstream, iter([next(left)]), lock)
    threads = [threading.Thread(target=_send, args=(upstream, left, lock)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _send(upstream: Upstream, bodies: object, lock: threading.Lock) -> None:
    connection = upstream.open()
    headers = {"Authorization": f"Bearer {upstream.token}", "Content-Type": "application/apply-patch+yaml"}
    while True:
        with lock:
            body = next(bodies, None)  # type: ignore[call-overload]
        if body is None:
            connection.close()
            return
        path = _PATHS[body["kind"]].format(body["metadata"].get("namespace", ""))
        query = f"?fieldManager={FIELD_MANAGER}&fieldValidation=Strict&force=false"
        connection.request("PATCH", f"{path}/{body['metadata']['name']}{query}", apply_patch(body), headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status in (200, 201), answer.status


def _manifests(name: str) -> list[Manifest]:
    bodies: list[Body] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}]
    for number in range(APPS):
        labels = {"app.kubernetes.io/name": f"app-{number}"}
        metadata = {"name": f"app-{number}", "namespace": name, "labels": labels}
        container = {
            "name": "model",
            "image": "registry.example.com/model:1",
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            "env": [{"name": f"SETTING_{n}", "value": f"value {n}"} for n in range(8)],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}},
        }
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        ports = [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]
        bodies += [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata | {"labels": dict(labels)}},
            {"apiVersion": "v1", "kind": "Service", "metadata": {**metadata, "labels": dict(labels)},
             "spec": {"selector": labels, "ports": ports}},
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {**metadata, "labels": dict(labels)},
             "data": {"settings": "x" * 500}},
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {**metadata, "labels": dict(labels)},
             "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}},
        ]  # fmt: skip
    manifests = []
    for body in bodies:
        desired._mark(body, inventory.set_id(name))
        manifests.append(Manifest(object_id(body), body, ORIGIN, name))
    return manifests


if __name__ == "__main__":
    main()
