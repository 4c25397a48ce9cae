"""What a daemon does about what a cluster does not show it, and about what was deleted behind its back."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler import inventory, plan, policy
from reconciler.daemon.desire import Desire
from reconciler.daemon.keeper import Keeper
from reconciler.daemon.scribe import Reporter
from reconciler.source.files import Files
from reconciler.telling.metrics import Metrics
from tests.contract.client import MERGE, Api, eventually
from tests.contract.faults import answer
from tests.contract.test_convergence import (
    COMMITS,
    DEV,
    PROD,
    Led,
    Model,
    Repository,
    World,
    _has,
    _leaves,
    _path,
    clock,
    cluster,
)
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
        turned(world, lambda: "prune/blind" in [guard.rule for guard in keeper(world, DEV).guards])
        for kind in ("HTTPRoute", "Deployment", "Service"):
            assert fraud(world, DEV, kind), "what is not seen may need it"
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


@pytest.fixture
def reporting(cluster: tuple[Path, Api]) -> Iterator[World]:
    folder, api = cluster
    world = World(api, folder, Led)
    world.repository = Reporting()
    world.repository.models = {"churn": world.repository.models["churn"]}
    with world:
        yield world


class TestADeletionByHand:
    def test_that_is_only_reported_is_no_new_object_to_the_next_process(self, reporting: World) -> None:
        world = reporting
        world.repository.commit()
        world.settle()
        path = service(world)
        assert world.api("DELETE", path).status == 200
        turned(world, lambda: keeper(world, DEV).drifts.open)
        world.restart()
        turned(world, lambda: keeper(world, DEV).drifts.open)
        turned(world, lambda: keeper(world, DEV).is_caught_up)
        assert world.api("GET", path).status == 404
        assert [(one.change.drift, one.outcome) for one in world.daemon.heard.drifts] == [(True, "reported")]

    def test_is_forgotten_when_it_is_mended(self, reporting: World) -> None:
        world = reporting
        world.repository.commit()
        world.settle()
        path = service(world)
        assert world.api("DELETE", path).status == 200
        turned(world, lambda: keeper(world, DEV).drifts.open)
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

    def test_that_is_heard_of_late_makes_nobody_forget_what_is_there_again(self, world: World) -> None:
        world.repository.models = {"churn": world.repository.models["churn"]}
        world.repository.commit()
        world.settle()
        dev, path = keeper(world, DEV), service(world)
        assert world.api("DELETE", path).status == 200
        eventually(lambda: not dev._heard.empty())
        late = dev._heard.get()
        assert late.how == "DELETED"
        dev.want({"churn"})
        turned(world, lambda: world.api("GET", path).status == 200)
        dev._heard.put(late)
        world.settle()
        world.repository.models["churn"].commit = COMMITS[1]
        world.repository.commit()
        world.settle()
        assert world.api("GET", path).status == 404, "the next build takes its place, and nobody wants it any more"

    def test_of_much_at_a_time_is_no_fight(self, world: World) -> None:
        world.repository.models = {"churn": Model([DEV], second=20)}
        world.repository.commit()
        world.settle()
        theirs = [
            body
            for body in harness.members(world.api, DEV).values()
            if body["metadata"]["labels"].get("app.kubernetes.io/name") == "churn" and body["kind"] != "Job"
        ]
        assert len(theirs) > 5
        for body in theirs:
            assert world.api("DELETE", _path(body)).status in (200, 202)
        world.settle()
        assert {one.outcome for one in world.daemon.heard.drifts} == {"mended"}


class TestWhatIsOnlyReported:
    """Of environments with `drift: report`."""

    def edit(self, world: World, path: str, manager: str, patch: dict[str, Any]) -> None:
        assert world.api("PATCH", f"{path}?fieldManager={manager}", patch, content_type=MERGE).status == 200

    def path(self, world: World) -> str:
        (name,) = members(world, DEV, "Deployment")
        return f"{harness.collection('Deployment', DEV)}/{name.partition('/')[2]}"

    def build(self, world: World, commit: str) -> None:
        world.repository.models["churn"].commit = commit
        world.repository.commit()
        world.settle()

    def test_is_forgotten_with_the_object(self, reporting: World) -> None:
        world = reporting
        world.repository.commit()
        world.settle()
        path = self.path(world)
        patch = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 7}}}}
        self.edit(world, path, "kubectl-edit", patch)
        turned(world, lambda: keeper(world, DEV).drifts.open)
        self.build(world, COMMITS[1])
        assert world.api("GET", path).status == 404
        assert keeper(world, DEV).drifts.open == {}

    def test_does_not_keep_what_was_deleted_from_coming_back_with_another_build_and_its_own(
        self, reporting: World
    ) -> None:
        world = reporting
        world.repository.commit()
        world.settle()
        path = self.path(world)
        assert world.api("DELETE", path).status in (200, 202)
        turned(world, lambda: keeper(world, DEV).drifts.open)
        self.build(world, COMMITS[1])
        self.build(world, COMMITS[0])
        assert world.api("GET", path).status == 200

    def test_is_told_again_when_somebody_does_more(self, reporting: World) -> None:
        world = reporting
        world.repository.commit()
        world.settle()
        told = world.daemon.heard.drifts
        self.edit(world, service(world), "kubectl-edit", {"spec": {"selector": {"a": "b"}}})
        turned(world, lambda: told)
        for _ in range(5):
            world.turn()
        assert len(told) == 1
        self.edit(world, service(world), "k9s", {"metadata": {"labels": {"app.kubernetes.io/managed-by": "me"}}})
        turned(world, lambda: len(told) > 1)
        assert [one.change.by for one in told] == ["kubectl-edit", "k9s, kubectl-edit"]

    def test_is_not_tried_all_the_time_when_it_is_to_be_mended_and_cannot(self, reporting: World) -> None:
        world = reporting
        assert isinstance(world.repository, Reporting)
        world.repository.commit()
        world.settle()
        assert world.api("DELETE", service(world)).status == 200
        dev = keeper(world, DEV)
        turned(world, lambda: dev.drifts.open and dev.is_caught_up)
        words = forbidden("list", "services", "", DEV)
        world.proxy.inject(answer(403, words), method="GET", path=f"/namespaces/{DEV}/services", times=ALWAYS)
        for one, watch in dev.plane.cache._watches.items():
            if (one.kind, one.namespace) == ("Service", DEV):
                watch.shelf.forget()
                watch._stream.end()
        turned(world, lambda: dev._sight.blind)
        world.repository.drift = "mend"
        world.repository.commit()
        turned(world, lambda: any(one.tries for _, one in dev.agenda))
        passes = set()
        for _ in range(20):
            dev.turn(time.monotonic())
            passes.add(dev.last)
        assert len(passes) <= 2


def test_what_moves_in_another_environment_stops_no_pass(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often: with each batch of many, something may have moved elsewhere."""
    world.repository.models = {"churn": Model([DEV]), "fraud": Model([PROD])}
    world.repository.commit()
    world.settle()
    dev, memory = keeper(world, DEV), iter(f"{number}Gi" for number in range(2, 100))
    look = Desire.look

    def looked(desire: Desire, environment: str, models: Any) -> Any:
        found = look(desire, environment, models)
        if environment == DEV:
            world.repository.models["fraud"].memory = next(memory)
            world.repository.commit()
            world.daemon.conductor.turn()
        return found

    monkeypatch.setattr(Desire, "look", looked)
    world.repository.models["churn"].memory = "2Gi"
    world.repository.commit()
    passes = dev.last
    turned(world, lambda: dev.last is not passes, 10.0)


def test_an_error_of_the_program_about_one_model_stops_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    compare = plan.environment

    def failing(wanted: plan.Wanted, observed: plan.Observed) -> Any:
        if any("churn" in manifest.id.name for manifest in wanted.manifests):
            raise ValueError("it is odd")
        return compare(wanted, observed)

    monkeypatch.setattr(plan, "environment", failing)
    world.repository.commit()
    turned(world, lambda: fraud(world, DEV, "Deployment"))
    assert [one.why for model, one in keeper(world, DEV).agenda if model == "churn"] == ["ValueError: it is odd"]
    monkeypatch.undo()
    world.settle()
    assert [name for name in members(world, DEV, "Deployment") if "churn" in name]


def test_a_limit_on_deletions_sees_what_is_due_later_because_something_failed(world: World) -> None:
    """Each for itself, they may all be within it."""
    world.repository.commit()
    world.settle()
    dev = keeper(world, DEV)
    world.repository.models.clear()
    world.repository.commit()
    world.daemon.conductor.turn()
    dev._listen(time.monotonic())
    dev._lose("the cluster is away")
    first = min(dict(dev.agenda), key=lambda model: dict(dev.agenda)[model].due)
    assert [batch.keys() for batch in dev._batches(frozenset({first}))] == [{"churn", "fraud"}]


def test_what_an_environment_had_is_known_while_nobody_keeps_it(world: World) -> None:
    """As when its cluster cannot be connected to; or right after a start, when there is no revision yet."""
    fleet, known = world.daemon.fleet, {DEV: "1a2b", "gone": "3c4d"}
    reporter = Reporter(world.daemon.conductor, fleet, Metrics("1"), clock, "", "", lambda *_: None, known)
    reporter._note()
    assert known.keys() == {DEV, "gone"}
    world.repository.commit()
    world.settle()
    reporter._note()
    assert known[DEV] == known[PROD] == world.daemon.desire.revision
    fleet._dismiss(*next(key for key in fleet.keepers if key[1] == DEV))
    reporter._note()
    assert {DEV, PROD} <= known.keys()
    assert "gone" not in known


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


class TestRulesOfTheOrganisation:
    def ruled(self, world: World, text: str) -> None:
        """Commits these rules; "": no file of them."""
        content = f"api_version: v1\npolicies:\n{text}".encode()
        world.repository.rules = Files({policy.FILE: content} if text else {}, ())
        world.repository.commit()

    def test_hold_what_a_person_lets_pass_by_its_id(self, world: World) -> None:
        require = 'change.kind != "Deployment" || change.op != "create" || approvals.size() > 0'
        world.repository.commit()
        world.settle()
        had = members(world, DEV, "Deployment")
        self.ruled(world, f"- {{name: ask, kind: change, require: '{require}', message: Ask first}}\n")
        world.repository.models["upsell"] = Model([DEV])
        world.repository.commit()
        dev = keeper(world, DEV)
        turned(world, lambda: dev.guards)
        (limit,) = dev.guards
        assert (limit.rule, limit.message) == ("policy/ask", "Ask first")
        assert members(world, DEV, "Deployment") == had
        writer = dev.plane.writer
        live = writer.get(inventory.object_id_of(DEV))
        assert live is not None
        writer.update(inventory.with_approval(live, inventory.Approved(limit.approval, "ada")))
        turned(world, lambda: len(members(world, DEV, "Deployment")) > len(had))
        turned(world, lambda: not dev.guards)

    def test_that_nobody_could_ever_read_let_nothing_pass_until_they_can_be_read(self, world: World) -> None:
        self.ruled(world, "- [")
        dev = keeper(world, DEV)
        turned(world, lambda: dev.guards)
        assert {guard.rule for guard in dev.guards} == {"policy/unknown"}
        assert "policy/not-taken" in {problem.rule for problem in world.daemon.desire.problems()}
        assert not harness.members(world.api, DEV)
        self.ruled(world, "")
        world.settle()
        assert members(world, DEV, "Deployment")
        assert not world.daemon.desire.problems()


def test_a_keeper_that_has_ended_is_not_missed_however_late_it_ends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has dismissed it does not wait for a cluster that hangs, so its last words may come after that."""
    world.repository.commit()
    one = keeper(world, DEV)
    health = one.ties.health
    busy, late = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        busy.set()
        late.wait(10)

    monkeypatch.setattr(one.ties.listener, "planned", hang)
    thread = threading.Thread(target=one.run)
    thread.start()
    assert busy.wait(10)
    one.stop()
    health.forget(one.loop)
    late.set()
    thread.join(20)
    health.clock = lambda: time.monotonic() + 3600
    assert health.judge() == (True, "alive")


def test_a_namespace_that_somebody_deletes_is_full_again_as_soon_as_it_is_gone(world: World) -> None:
    """However long that takes, and however often was tried meanwhile what no namespace takes that is being deleted."""
    world.repository.commit()
    world.settle()
    dev, had = keeper(world, DEV), harness.members(world.api, DEV).keys()
    maps = f"/api/v1/namespaces/{DEV}/configmaps"
    held = {"metadata": {"name": "held", "finalizers": ["example.com/hold"]}}
    assert world.api("POST", maps, held).status == 201
    assert world.api("DELETE", f"/api/v1/namespaces/{DEV}").status in (200, 202)
    turned(world, lambda: any("being terminated" in one.why and one.tries > 6 for _, one in dev.agenda))
    assert world.api("PATCH", f"{maps}/held", {"metadata": {"finalizers": None}}, content_type=MERGE).status == 200
    until = time.monotonic() + 10
    while harness.members(world.api, DEV).keys() != had:
        assert time.monotonic() < until, world._why()
        world.daemon.conductor.turn()
        dev.turn(time.monotonic())
        world.plant.turn()
        time.sleep(0.02)
