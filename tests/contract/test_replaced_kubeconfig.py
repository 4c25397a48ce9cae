"""A cluster whose kubeconfig is in a Secret, which somebody replaces while the daemon runs."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from reconciler import inventory
from reconciler.daemon import fleet
from reconciler.daemon.keeper import Keeper
from tests.contract.client import Api, EmbeddedServer, eventually
from tests.contract.test_convergence import DEV, PROD, Led, Model, Repository, World, cluster
from tests.e2e import harness

__all__ = ["cluster"]  # a fixture

SECRET = f"/api/v1/namespaces/{inventory.NAMESPACE}/secrets/cluster-prod"


class Elsewhere(Repository):
    """Specs by which one environment, without models, is in a cluster whose kubeconfig is in a Secret."""

    def __init__(self) -> None:
        super().__init__(models={"churn": Model([DEV])})

    def files(self) -> dict[str, bytes]:
        files = super().files()
        spec = json.loads(files["environments.yaml"])
        for one in spec["spec"]["environments"]:
            if one["name"] == PROD:
                one["data_plane"] = {"type": "kubernetes", "kubeconfig_secret": "cluster-prod"}
                one["object_storage"] = "s3://acme/models"
        return files | {"environments.yaml": json.dumps(spec).encode()}


class Clusters:
    """The cluster of the reconciler, and another one to move to."""

    def __init__(self, world: World, other: Api) -> None:
        self.world, self.other = world, other

    def give(self, kubeconfig: Path | None) -> None:
        """What the Secret holds; None: there is none."""
        api = self.world.api
        api("DELETE", SECRET)
        if kubeconfig is not None:
            data = {"kubeconfig": base64.b64encode(kubeconfig.read_bytes()).decode()}
            body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cluster-prod"}, "data": data}
            assert api("POST", SECRET.rpartition("/")[0], body).status == 201

    def keeper(self, name: str) -> Keeper | None:
        return next((keeper for keeper in self.world.daemon.keepers if keeper.name == name), None)

    def turned(self, condition: Any) -> None:
        until = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < until, (self.world._why(), self.world.daemon.fleet.troubles)
            self.world.turn()
            time.sleep(0.01)

    def has(self, api: Api) -> bool:
        """Whether the environment's own objects are there."""
        return any(not key.startswith("Namespace/") for key in harness.members(api, PROD))


@pytest.fixture
def clusters(cluster: tuple[Path, Api], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clusters]:
    folder, api = cluster
    monkeypatch.setattr(fleet, "SECRET_SECONDS", 0.0)
    monkeypatch.setattr(fleet, "_RETRY_SECONDS", 0.1)
    monkeypatch.setenv("KUBECONFIG", str(folder / "server" / "kubeconfig"))
    namespaces = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in (PROD, "trueup-system")
    ]
    with ExitStack() as stack:
        server = EmbeddedServer(tmp_path / "other")
        stack.callback(server.end)
        other = stack.enter_context(closing(Api(server.kubeconfig, "embedded")))
        world = World(api, folder, Led)
        world.repository = Elsewhere()
        stack.enter_context(world)
        for one, body in product((api, other), namespaces):
            assert one("POST", "/api/v1/namespaces", body).status in (201, 409)
        made = Clusters(world, other)
        made.give(Path(api.kubeconfig))
        stack.callback(lambda: api("DELETE", SECRET))
        world.repository.commit()
        made.turned(lambda: made.has(api))
        yield made


def test_is_connected_to_anew_and_no_other_cluster_notices(clusters: Clusters) -> None:
    world = clusters.world
    dev, prod = clusters.keeper(DEV), clusters.keeper(PROD)
    assert dev is not None
    assert prod is not None
    clusters.give(Path(clusters.other.kubeconfig))
    clusters.turned(lambda: clusters.has(clusters.other))
    assert clusters.keeper(DEV) is dev
    assert not dev.plane.connection.closed
    now = clusters.keeper(PROD)
    assert now is not None
    assert now.plane.connection.host != prod.plane.connection.host
    assert prod.plane.connection.closed
    assert world.daemon.fleet.troubles == {}


def test_the_same_kubeconfig_in_another_secret_changes_nothing(clusters: Clusters) -> None:
    prod = clusters.keeper(PROD)
    clusters.give(Path(clusters.world.api.kubeconfig))
    for _ in range(5):
        clusters.world.turn()
    assert clusters.keeper(PROD) is prod


def test_one_that_is_taken_away_ends_the_work_there_until_there_is_another(clusters: Clusters) -> None:
    daemon = clusters.world.daemon
    clusters.give(None)
    clusters.turned(lambda: PROD in daemon.fleet.troubles)
    assert "cluster-prod has no key `kubeconfig`" in daemon.fleet.troubles[PROD]
    assert clusters.keeper(PROD) is None
    assert clusters.keeper(DEV) is not None
    clusters.give(Path(clusters.other.kubeconfig))
    clusters.turned(lambda: clusters.has(clusters.other))
    assert daemon.fleet.troubles == {}


def test_nothing_is_given_up_while_nobody_can_ask(clusters: Clusters) -> None:
    prod = clusters.keeper(PROD)
    reader = clusters.world.daemon.fleet.clusters._readers
    home = next(key for key in reader if key.kubeconfig_secret is None and key.type == "kubernetes")
    reader[home]._connection.close()
    for _ in range(5):
        clusters.world.turn()
    assert clusters.keeper(PROD) is prod
    eventually(lambda: prod is not None and prod.is_seen)
