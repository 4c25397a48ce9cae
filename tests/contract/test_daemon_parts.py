"""What a daemon does about what a cluster does not show it, and about what was deleted behind its back."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler import inventory
from reconciler.daemon.keeper import Keeper
from tests.contract.client import Api, eventually
from tests.contract.faults import answer
from tests.contract.test_convergence import DEV, PROD, Led, Repository, World, _has, _leaves, cluster
from tests.contract.test_partly_refused import ALWAYS, forbidden
from tests.e2e import harness

__all__ = ["cluster"]  # a fixture


@pytest.fixture
def world(cluster: tuple[Path, Api]) -> Iterator[World]:
    folder, api = cluster
    with World(api, folder, Led) as world:
        yield world


def keeper(world: World, name: str) -> Keeper:
    turned(world, lambda: any(keeper.name == name for keeper in world.daemon.keepers))
    return next(keeper for keeper in world.daemon.keepers if keeper.name == name)


def turned(world: World, condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Lets everybody go round until something is so."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, world._why()
        world.turn()
        time.sleep(0.01)


def members(world: World, name: str, kind: str) -> list[str]:
    return sorted(key for key in harness.members(world.api, name) if key.startswith(f"{kind}/"))


class TestAKindThatIsForbidden:
    def forbid(self, world: World, verb: str = "list") -> str:
        words = forbidden(verb, "resourcequotas", "", DEV)
        path = f"/namespaces/{DEV}/resourcequotas" + (".*watch=true" if verb == "watch" else "")
        world.proxy.inject(answer(403, words), method="GET", path=path, times=ALWAYS)
        return str(words["message"])

    @pytest.mark.parametrize("verb", ["list", "watch"])
    def test_is_refused_while_the_rest_is_applied_and_heals_when_the_right_is_there(
        self, world: World, verb: str
    ) -> None:
        words = self.forbid(world, verb)
        world.repository.quota = 40
        world.repository.commit()
        turned(world, lambda: members(world, DEV, "Deployment") and members(world, PROD, "ResourceQuota"))
        turned(world, lambda: words in keeper(world, DEV).trouble)
        dev = keeper(world, DEV)
        assert members(world, DEV, "ResourceQuota") == []
        assert dev.is_seen
        assert words in world.daemon.fleet.unseen
        assert any(words in one.why and not one.waits for _, one in dev.agenda), "it failed, and is tried again"
        assert keeper(world, PROD).trouble == ""
        world.proxy._rules.clear()
        world.settle()
        assert members(world, DEV, "ResourceQuota")
        assert world.daemon.fleet.unseen == ""

    def test_loses_nothing_by_a_process_that_never_saw_it(self, world: World) -> None:
        world.repository.commit()
        world.settle()
        words = forbidden("list", "services", "", DEV)
        world.proxy.inject(answer(403, words), method="GET", path=f"/namespaces/{DEV}/services", times=ALWAYS)
        del world.repository.models["fraud"]
        world.repository.commit()
        world.restart()
        turned(world, lambda: world.approve() or not fraud(world, PROD, "Service"))
        turned(world, lambda: world.approve() or not fraud(world, DEV, "HTTPRoute"))
        assert fraud(world, DEV, "Service")
        stored = world.api("GET", f"/api/v1/namespaces/trueup-system/configmaps/{inventory.name_of(DEV)}").body
        assert "Service" in {place.kind for place in inventory.from_config_map(stored).places}
        world.proxy._rules.clear()
        world.settle()
        assert fraud(world, DEV, "Service") == []


def fraud(world: World, name: str, kind: str) -> list[str]:
    return [key for key in members(world, name, kind) if "fraud" in key]


class Reporting(Repository):
    """Specs whose environments report drift, until somebody says otherwise."""

    drift = "report"

    def files(self) -> dict[str, bytes]:
        files = super().files()
        before, after = b'"data_plane": "embedded"', f'"data_plane": "embedded", "drift": "{self.drift}"'.encode()
        return files | {"environments.yaml": files["environments.yaml"].replace(before, after)}


def service(world: World) -> str:
    return f"/api/v1/namespaces/{DEV}/services/{members(world, DEV, 'Service')[0].partition('/')[2]}"


class TestADeletionByHand:
    @pytest.fixture
    def reporting(self, cluster: tuple[Path, Api]) -> Iterator[World]:
        folder, api = cluster
        world = World(api, folder, Led)
        world.repository = Reporting()
        with world:
            yield world

    def test_that_is_only_reported_is_no_new_object_to_the_next_process(self, reporting: World) -> None:
        world = reporting
        world.repository.commit()
        world.settle()
        path = service(world)
        assert world.api("DELETE", path).status == 200
        turned(world, lambda: keeper(world, DEV).drift)
        world.restart()
        turned(world, lambda: keeper(world, DEV).drift)
        turned(world, lambda: keeper(world, DEV).is_caught_up)
        assert world.api("GET", path).status == 404
        assert [(one.change.drift, one.outcome) for one in world.daemon.heard.drifts] == [(True, "reported")]

    def test_is_forgotten_when_it_is_mended(self, reporting: World) -> None:
        world = reporting
        world.repository.commit()
        world.settle()
        path = service(world)
        assert world.api("DELETE", path).status == 200
        turned(world, lambda: keeper(world, DEV).drift)
        assert isinstance(world.repository, Reporting)
        world.repository.drift = "mend"
        world.repository.commit()
        world.settle()
        assert world.api("GET", path).status == 200
        stored = world.api("GET", f"/api/v1/namespaces/trueup-system/configmaps/{inventory.name_of(DEV)}").body
        assert inventory.from_config_map(stored).gone == frozenset()

    def test_that_a_pass_has_mended_before_it_heard_of_it_is_told_once(self, world: World) -> None:
        world.repository.commit()
        world.settle()
        dev, path = keeper(world, DEV), service(world)
        live = world.api("GET", path).body
        model = live["metadata"]["labels"]["app.kubernetes.io/name"]
        assert world.api("DELETE", path).status == 200
        eventually(lambda: not dev._heard.empty())
        late = dev._heard.get()
        assert (late.how, late.target.name) == ("DELETED", live["metadata"]["name"])
        dev.want({model})
        turned(world, lambda: world.api("GET", path).status == 200)
        dev._heard.put(late)
        world.settle()
        told = [one for one in world.daemon.heard.drifts if one.change.id == late.target]
        assert [one.outcome for one in told] == ["mended"]


#: By these the server knows the items of lists.
KEYS = frozenset({"name", "port", "containerPort", "protocol", "mountPath", "topologyKey", "whenUnsatisfiable"})


def test_whatever_key_of_a_list_somebody_edits_the_list_ends_as_we_want_it(world: World) -> None:
    """To the server, that is another item, and ours is missing."""
    world.repository.commit()
    world.settle()
    dev = keeper(world, DEV)
    before, edited = world.state(), Counter[str]()
    for manifests in dev.desire.look(DEV, ["", "churn"]).values():
        for manifest in manifests:
            if manifest.id.kind in ("Namespace", "Job"):
                continue
            path = f"{harness.collection(manifest.id.kind, DEV)}/{manifest.id.name}"
            for leaf in _leaves(manifest.body):
                live = world.api("GET", path).body
                if leaf[-1] in KEYS and isinstance(leaf[-2], int) and _has(live, leaf):
                    edited[manifest.id.kind] += edit(world, live, path, leaf)
                    world.settle()
    assert edited["Service"]
    assert edited["Deployment"] > 5
    assert world.state() == before


def edit(world: World, live: dict[str, Any], path: str, leaf: tuple[Any, ...]) -> bool:
    """Whether the server took it."""
    at: Any = live
    for step in leaf[:-1]:
        at = at[step]
    at[leaf[-1]] = at[leaf[-1]] + 1 if isinstance(at[leaf[-1]], int) else "edited"
    return world.api("PUT", f"{path}?fieldManager=kubectl-edit", live).status == 200
