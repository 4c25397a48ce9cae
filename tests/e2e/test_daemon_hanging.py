"""What takes long, or for ever: a cluster that never answers, a turn. The others, and the end, stay quick."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.client import Api
from tests.contract.faults import FaultProxy
from tests.e2e.daemon import Daemon, Specs, running, until
from tests.e2e.harness import Plane, before, build, document, environment, members, variation

LEASE = "/apis/coordination.k8s.io/v1/namespaces/trueup-system/leases/trueup"


def hang(handler: Any, request: bytes) -> None:
    """The server hears nothing of it, and nobody hears of the server."""
    threading.Event().wait(120)


@pytest.fixture
def far(any_plane: Plane, api: Api, new_plane: Callable[[], Plane], certificate: Path) -> Iterator[FaultProxy]:
    """The way to a second cluster, whose kubeconfig is in the Secret `far`."""
    api("POST", "/api/v1/namespaces", {"metadata": {"name": "trueup-system"}})
    with FaultProxy(new_plane().up().kubeconfig, certificate=certificate) as proxy:
        kubeconfig = proxy.kubeconfig(any_plane.folder / "other").read_text()
        secret = {"metadata": {"name": "far"}, "stringData": {"kubeconfig": kubeconfig}}
        assert api("POST", "/api/v1/namespaces/trueup-system/secrets", secret).status == 201
        yield proxy


def gives_the_lease_back(daemon: Daemon, api: Api) -> float:
    """Seconds from the signal that ends it until another replica may lead. It ends in order."""
    began = time.monotonic()
    assert daemon.process is not None
    daemon.process.terminate()
    until(lambda: not api("GET", LEASE).body["spec"].get("holderIdentity"), 30)
    gave = time.monotonic() - began
    assert daemon.process.wait(30) == 0
    print(f"the lease was given back after {gave:.2f} s, and all has ended after {time.monotonic() - began:.2f} s")
    return gave


def in_far(**more: Any) -> str:
    plane = {"type": "kubernetes", "kubeconfig_secret": "far"}
    return document(environment("far", data_plane=plane, object_storage="s3://acme/models", **more))


def applied(daemon: Daemon, environment: str, commit: str) -> bool:
    return bool(daemon.metric("trueup_applied_revision_info", environment=environment, revision=commit))


@pytest.mark.usefixtures("plant")
def test_a_write_that_is_never_answered_holds_up_neither_the_others_nor_the_end(
    any_plane: Plane, api: Api, specs: Specs, prod: str, far: FaultProxy
) -> None:
    commit = specs.write(all=before(prod), far=in_far())
    with running(any_plane, specs, "--leader-elect", KUBECONFIG=str(any_plane.kubeconfig)) as daemon:
        until(lambda: applied(daemon, "far", commit) and applied(daemon, prod, commit))
        far.inject(hang, method="PATCH", times=1000)
        asked = far.count("PATCH")
        commit = specs.write(far=in_far(quota={"pods": 7}))
        until(lambda: far.count("PATCH") > asked)
        until(lambda: applied(daemon, prod, commit))
        service = next(name for name in members(api, prod) if name.startswith("Service/"))
        api("DELETE", f"/api/v1/namespaces/{prod}/services/{service.partition('/')[2]}")
        (event,) = until(lambda: daemon.said("drift", environment=prod, outcome="mended"))
        assert event["seconds"] < 1.0
        assert gives_the_lease_back(daemon, api) <= 2


def models(name: str, numbers: range) -> str:
    served = [(build(f"m{n}-1", f"m{n}"), variation(f"m{n}", "default", name, build=f"m{n}-1")) for n in numbers]
    return document(*(part for parts in served for part in parts))


@pytest.mark.usefixtures("plant")
def test_a_turn_that_takes_long_does_not_hold_up_the_end(any_plane: Plane, api: Api, specs: Specs, prod: str) -> None:
    """Thousands of specs at once take seconds to be read; another replica waits to lead."""
    specs.write(all=before(prod))
    with running(any_plane, specs, "--leader-elect") as daemon:
        until(lambda: api("GET", LEASE).status == 200 and api("GET", LEASE).body["spec"].get("holderIdentity"))
        until(lambda: daemon.metric("trueup_applied_revision_info"))
        specs.write(**{f"many-{n}": models(prod, range(n, n + 100)) for n in range(0, 2000, 100)})
        until(lambda: len(daemon.said("a new revision")) == 2)  # read, and not yet rendered
        assert gives_the_lease_back(daemon, api) <= 2


def test_it_is_alive_and_can_be_ended_while_its_own_cluster_never_answers(
    any_plane: Plane, specs: Specs, prod: str
) -> None:
    """Whoever restarts it for that would only make it later."""
    specs.write(all=before(prod))
    with FaultProxy(any_plane.kubeconfig) as proxy:
        proxy.inject(hang, times=100_000)
        kubeconfig = str(proxy.kubeconfig(any_plane.folder / "home"))
        began = time.monotonic()
        with running(any_plane, specs, "--leader-elect", "--kubeconfig", kubeconfig) as daemon:
            assert time.monotonic() - began < 20
            until(lambda: proxy.count("GET", "/api/v1"))
            assert daemon.get("/healthz")[0] == 200
            assert daemon.get("/readyz")[0] == 503
            began = time.monotonic()
            assert daemon.stop() == 0
            print(f"it has ended after {time.monotonic() - began:.2f} s")
            assert time.monotonic() - began < 10
