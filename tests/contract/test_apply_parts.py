"""What a daemon asks of a pass that a single run does not: builds made elsewhere, an end in the middle, and drift."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from reconciler import apply, inventory, observe, plan
from reconciler.cluster import Retry, Writer, connect
from reconciler.plan import Beside, Change, Observed, Op, Plan
from reconciler.readiness import Readiness, State
from reconciler.report import Done, Outcome
from renderers.build import FULL_ID
from renderers.manifest import Body, Manifest
from renderers.names import PROTECTED
from tests.contract.client import MERGE, Api, config_map, deployment
from tests.contract.faults import FaultProxy, answer
from tests.contract.test_apply import MAPS, Environment, environment, kubeconfig, outcomes, route

__all__ = ["environment", "kubeconfig"]  # fixtures

BUILD = "4ac442ef" + 56 * "0"


@pytest.fixture
def proxied(environment: Environment, kubeconfig: Path, tmp_path: Path) -> Iterator[FaultProxy]:
    """The environment's cluster, behind a proxy that counts."""
    with FaultProxy(kubeconfig) as proxy, ExitStack() as stack:
        retry = Retry(attempts=3, base=0.01)
        connection = connect(str(proxy.kubeconfig(tmp_path / "kubeconfig")), trusted=True, retry=retry)
        stack.callback(connection.close)
        direct, environment.writer = environment.writer, Writer(connection)
        yield proxy
        environment.writer = direct


class TestABuildThatIsMadeElsewhere:
    """Another keeper makes it, and says what has become of it; the pass itself has no Job."""

    def serve(self, environment: Environment, state: Readiness | None) -> tuple[Done, list[str]]:
        """What becomes of what serves it, and which builds were asked about."""
        asked: list[str] = []

        def built(build: str) -> Readiness | None:
            asked.append(build)
            return state

        serving = deployment("churn")
        serving["metadata"]["annotations"] = {FULL_ID: BUILD}
        manifests = [environment.namespace(), environment.manifest(serving)]
        made = environment.plan(manifests)
        target = apply.Target(environment.writer, environment.wanted, environment.observed, lambda: None)
        done = list(apply.carry_out(made, {environment.name: target}, environment.pool, built_elsewhere=built))
        return done[-1], asked

    def test_is_waited_for(self, environment: Environment) -> None:
        done, asked = self.serve(environment, Readiness(State.IN_PROGRESS, "it runs"))
        assert (done.outcome, done.message) == (Outcome.WAITING, "it waits for its build 4ac442ef: it runs")
        assert asked == [BUILD]
        assert environment.live(deployment("churn")) is None

    def test_is_waited_for_where_its_job_is_not_there_yet(self, environment: Environment) -> None:
        done, _ = self.serve(environment, Readiness(State.NOT_FOUND, "it does not exist"))
        assert done.outcome is Outcome.WAITING

    def test_says_why_it_failed(self, environment: Environment) -> None:
        done, _ = self.serve(environment, Readiness(State.FAILED, "ModelFailed: it has no data"))
        assert (done.outcome, done.message) == (Outcome.FAILED, "its build failed: ModelFailed: it has no data")

    @pytest.mark.parametrize("state", [Readiness(State.CURRENT), None], ids=["done", "nobody knows"])
    def test_is_served(self, environment: Environment, state: Readiness | None) -> None:
        assert self.serve(environment, state)[0].outcome is Outcome.APPLIED

    def test_is_not_asked_about_by_what_serves_already(self, environment: Environment) -> None:
        """What runs keeps running, and is changed, whatever has become of the Job that made it."""
        self.serve(environment, None)
        serving = deployment("churn", minReadySeconds=5)
        serving["metadata"]["annotations"] = {FULL_ID: BUILD}
        manifests = [environment.namespace(), environment.manifest(serving)]
        made = environment.plan(manifests)
        target = apply.Target(environment.writer, environment.wanted, environment.observed, lambda: None)
        never = Readiness(State.FAILED, "it must not be asked")
        (done,) = apply.carry_out(made, {environment.name: target}, environment.pool, built_elsewhere=lambda _: never)
        assert done.outcome is Outcome.APPLIED


def job(name: str, build: str) -> Body:
    """One that makes a build."""
    pod = {"restartPolicy": "Never", "containers": [{"name": "build", "image": "builder"}]}
    metadata = {"name": name, "annotations": {FULL_ID: build}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": {"spec": pod}}}


@pytest.mark.parametrize(
    ("status", "words"),
    [(403, 'jobs "churn-build" is forbidden: User "ada" cannot get it'), (503, "the server is away")],
)
def test_of_what_nobody_may_look_at_nobody_says_that_it_goes_on(
    environment: Environment, proxied: FaultProxy, status: int, words: str
) -> None:
    serving = deployment("churn")
    serving["metadata"]["annotations"] = {FULL_ID: BUILD}
    manifests = [environment.namespace(), *map(environment.manifest, (job("churn-build", BUILD), serving))]
    made = environment.plan(manifests)
    refused = {"kind": "Status", "status": "Failure", "message": words, "code": status}
    proxied.inject(answer(status, refused), method="GET", path="/jobs/churn-build", times=1000)
    done = environment.carry_out(made, manifests)[-1]
    assert (done.change.id.kind, done.outcome, done.infrastructure) == ("Deployment", Outcome.FAILED, True)
    assert words in done.message


class TestWhoStopsListening:
    def test_waits_for_what_is_under_way_and_begins_nothing_more(
        self, environment: Environment, proxied: FaultProxy
    ) -> None:
        environment.run()
        manifests = [environment.namespace(), *(environment.manifest(config_map(f"map-{n}")) for n in range(100))]
        made = environment.plan(manifests)
        answered: list[float] = []

        def slow(handler: Any, request: bytes) -> None:
            time.sleep(0.2)
            handler._pass_on(request)
            answered.append(time.monotonic())

        proxied.inject(slow, method="PATCH", path="/configmaps/map-", times=100)
        target = apply.Target(environment.writer, environment.wanted, environment.observed, lambda: None)
        with closing(apply.carry_out(made, {environment.name: target}, environment.pool)) as doing:
            first = next(doing)
        closed_at = time.monotonic()
        begun = proxied.count("PATCH", "/configmaps/map-")
        assert first.outcome is Outcome.APPLIED
        assert begun < 100
        time.sleep(0.5)
        assert proxied.count("PATCH", "/configmaps/map-") == begun
        # The answer is on its way a little before the proxy has taken note of it.
        assert len(answered) == begun
        assert max(answered) < closed_at + 0.1

    def test_leaves_what_the_next_run_goes_on_with(self, environment: Environment) -> None:
        manifests = [environment.namespace(), *map(environment.manifest, MAPS)]
        made = environment.plan(manifests)
        target = apply.Target(environment.writer, environment.wanted, environment.observed, lambda: None)
        with closing(apply.carry_out(made, {environment.name: target}, environment.pool)) as doing:
            next(doing)
        assert {"Namespace", "ConfigMap"} <= environment.inventory(), "what is half done is found again"
        environment.run(*MAPS)
        assert environment.run(*MAPS) == []


class TestAPassOverAPart:
    """The inventory is about all of an environment, whoever looks at a part of it."""

    def test_keeps_the_places_of_the_rest(self, environment: Environment) -> None:
        environment.run(deployment("churn"), MAPS[0])
        stored = observe.inventories(environment.writer)[environment.name]
        assert stored is not None
        part = [environment.namespace(), environment.manifest(config_map("map-0", {"a": "2"}))]
        seen = {m.id: environment.writer.get(m.id) for m in part}
        deployments = inventory.place_of(environment.manifest(deployment("churn")).id)
        rest = Beside(members=1, places=frozenset({deployments}))
        made, observed = self.plan(environment, part, seen, inventory=stored, beside=rest)
        target = apply.Target(environment.writer, environment.wanted, observed, frozenset)
        done = list(apply.carry_out(made, {environment.name: target}, environment.pool))
        assert [(one.change.id.name, one.outcome) for one in done] == [("map-0", Outcome.APPLIED)]
        assert environment.inventory() == {"Namespace", "ConfigMap", "Deployment"}

    def plan(
        self, environment: Environment, part: list[Manifest], seen: dict[Any, Any], **more: Any
    ) -> tuple[Plan, Observed]:
        environment.wanted = plan.Wanted(environment.name, part)
        known = observe.inventories(environment.writer)
        bare = Observed(environment.name, seen, **more)
        observed = observe.judged(environment.writer, bare, part, known, environment.pool)
        changes, guards = plan.environment(environment.wanted, observed)
        return plan.assemble(changes, (), guards), observed


class TestWhatIsMissing:
    """`observe.judged`: desired objects that are not among the members that were seen."""

    def judge(
        self, environment: Environment, manifests: list[Manifest], *, seen: bool = False, **more: Any
    ) -> tuple[Observed, dict[str, Change]]:
        """`seen`: what exists is among the members. Otherwise nothing is."""
        bodies = {m.id: environment.writer.get(m.id) for m in manifests} if seen else {}
        members = {target: body for target, body in bodies.items() if body is not None}
        known = observe.inventories(environment.writer)
        audit = more.pop("audit", False)
        bare = Observed(environment.name, members, inventory=known.get(environment.name), **more)
        observed = observe.judged(environment.writer, bare, manifests, known, environment.pool, audit=audit)
        changes, _ = plan.environment(plan.Wanted(environment.name, manifests), observed)
        return observed, {change.id.name: change for change in changes}

    def test_is_looked_for_one_by_one_where_it_is_little_and_in_a_list_where_it_is_much(
        self, environment: Environment, proxied: FaultProxy
    ) -> None:
        environment.run()
        few = [environment.manifest(config_map(f"map-{n}")) for n in range(8)]
        self.judge(environment, few)
        assert proxied.count("GET", r"/configmaps/map-\d") == 8
        lists = proxied.count("GET", rf"/namespaces/{environment.name}/configmaps(\?|$)")
        many = [environment.manifest(config_map(f"map-{n}")) for n in range(9)]
        _, changes = self.judge(environment, many)
        assert proxied.count("GET", r"/configmaps/map-\d") == 8
        assert proxied.count("GET", rf"/namespaces/{environment.name}/configmaps(\?|$)") == lists + 1
        assert {change.op for change in changes.values()} == {Op.CREATE}

    def test_of_a_kind_that_the_cluster_does_not_have_is_simply_not_there(self, environment: Environment) -> None:
        odd = {"apiVersion": "example.com/v1", "kind": "Odd", "metadata": {"name": "odd"}, "spec": {}}
        _, changes = self.judge(environment, [environment.manifest(odd)])
        assert changes["odd"].op is Op.CREATE

    def _take_label(self, api: Api, environment: Environment, name: str, label: str | None = None) -> None:
        path = f"/api/v1/namespaces/{environment.name}/configmaps/{name}?fieldManager=kubectl-label"
        patch = {"metadata": {"labels": {inventory.PART_OF: label}}}
        assert api("PATCH", path, patch, content_type=MERGE).status == 200

    @pytest.mark.parametrize("others", [0, 20], ids=["alone", "among many that are not there"])
    def test_because_somebody_took_its_label_is_a_member_that_has_drifted(
        self, environment: Environment, api: Api, others: int
    ) -> None:
        environment.run(MAPS[0])
        self._take_label(api, environment, "map-0")
        more = [environment.manifest(config_map(f"more-{n}")) for n in range(others)]
        observed, changes = self.judge(environment, [environment.manifest(MAPS[0]), *more])
        change = changes["map-0"]
        # Who only takes away leaves no trace in the object.
        assert (change.op, change.drift, change.by) == (Op.CHANGE, True, "")
        assert [field.path for field in change.fields] == ["metadata.labels"]
        assert observed.foreign == {}

    def test_and_has_our_label_is_a_member_that_a_list_has_missed(self, environment: Environment) -> None:
        environment.run(MAPS[0])
        observed, changes = self.judge(environment, [environment.manifest(config_map("map-0", {"a": "ours"}))])
        assert observed.foreign == {}
        assert (changes["map-0"].op, changes["map-0"].drift) == (Op.CHANGE, False)

    @pytest.mark.parametrize("is_shown", [True, False], ids=["and is shown", "and is not shown"])
    def test_and_routes_requests_keeps_what_answers_them(
        self, environment: Environment, proxied: FaultProxy, *, is_shown: bool
    ) -> None:
        """A server that has just begun says of a kind that it does not know it, though there are objects of it."""
        environment.run(deployment("kept"), deployment("removed"), route("kept", "removed"))
        proxied.inject(answer(404, "404 page not found\n"), method="GET", path=r"/httproutes\?")
        if not is_shown:
            proxied.inject(answer(403, b""), method="GET", path="/httproutes/churn")
        done = environment.run(deployment("kept"), route("kept"))
        if is_shown:
            assert list(outcomes(done)) == ["HTTPRoute/churn", "Deployment/removed"], "in this order"
        else:
            assert outcomes(done) == {"Deployment/removed": Outcome.BLOCKED}

    def test_and_comes_between_two_questions_is_a_persons_still(
        self, environment: Environment, api: Api, proxied: FaultProxy
    ) -> None:
        """Who asks about thousands of objects in turn need not be shown all of his own again and again."""
        environment.run(MAPS[0])
        ours = [environment.manifest(config_map(f"map-{n}")) for n in range(10)]
        theirs = [environment.manifest(config_map(f"more-{n}")) for n in range(10)]
        known = observe.inventories(environment.writer)
        looked: dict[inventory.Place, list[Body]] = {}

        def ask(manifests: list[Manifest]) -> Observed:
            bare = Observed(environment.name, inventory=known.get(environment.name))
            return observe.judged(environment.writer, bare, manifests, known, environment.pool, looked=looked)

        assert ask(ours).members.keys() == {ours[0].id}
        body = config_map("more-3", {"a": "theirs"})
        assert api("POST", f"/api/v1/namespaces/{environment.name}/configmaps", body).status == 201
        self._take_label(api, environment, "more-3", "of-mine")
        api("PATCH", f"/api/v1/namespaces/{environment.name}/configmaps/map-0", {}, content_type=MERGE)
        observed = ask([*ours, *theirs])
        assert observed.foreign == {theirs[3].id: "of-mine"}
        assert observed.members.keys() == {ours[0].id}, "what a list has missed is found all the same"

    def test_and_lost_its_label_gets_it_back_by_any_run(self, environment: Environment, api: Api) -> None:
        environment.run(*MAPS)
        self._take_label(api, environment, "map-0")
        assert outcomes(environment.run(*MAPS)) == {"ConfigMap/map-0": Outcome.APPLIED}
        live = environment.live(MAPS[0])
        assert live is not None
        assert live["metadata"]["labels"][inventory.PART_OF] == inventory.set_id(environment.name)
        assert environment.run(*MAPS) == []

    def test_and_has_the_label_of_another_set_is_that_sets(self, environment: Environment, api: Api) -> None:
        environment.run(MAPS[0])
        self._take_label(api, environment, "map-0", "applyset-another-v1")
        manifest = environment.manifest(MAPS[0])
        for vanished in (frozenset(), frozenset({manifest.id})):
            observed, changes = self.judge(environment, [manifest], vanished=vanished)
            assert observed.foreign == {manifest.id: "applyset-another-v1"}
            assert (changes["map-0"].op, changes["map-0"].is_action) == (Op.CONFLICT, False)

    def test_and_was_made_by_somebody_else_is_a_conflict_unless_it_took_the_place_of_ours(
        self, environment: Environment, api: Api
    ) -> None:
        environment.run()
        body = config_map("map-0", {"a": "theirs"})
        assert api("POST", f"/api/v1/namespaces/{environment.name}/configmaps", body).status == 201
        manifest = environment.manifest(config_map("map-0", {"a": "ours"}))
        _, changes = self.judge(environment, [manifest])
        assert changes["map-0"].op is Op.CONFLICT
        observed, changes = self.judge(environment, [manifest], vanished=frozenset({manifest.id}))
        assert observed.members.keys() == {manifest.id}
        assert changes["map-0"].drift
        assert changes["map-0"].uid == observed.members[manifest.id]["metadata"]["uid"]

    def test_is_asked_about_by_an_audit_only_where_it_is_there(
        self, environment: Environment, proxied: FaultProxy
    ) -> None:
        environment.run(MAPS[0])
        manifests = [environment.manifest(one) for one in MAPS[:2]]
        dry_runs = proxied.count("PATCH", "dryRun=All")
        _, changes = self.judge(environment, manifests, seen=True)
        assert proxied.count("PATCH", "dryRun=All") == dry_runs, "a look is enough"
        assert [changes[name].op for name in ("map-0", "map-1")] == [Op.UNCHANGED, Op.CREATE]
        observed, changes = self.judge(environment, manifests, seen=True, audit=True)
        assert observed.predictions.keys() == {manifests[0].id}
        assert [changes[name].op for name in ("map-0", "map-1")] == [Op.UNCHANGED, Op.CREATE]

    def test_an_audit_does_not_ask_about_what_runs_once(self, environment: Environment) -> None:
        template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "b", "image": "registry.example/b:1"}]}}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}, "spec": {"template": template}}
        environment.run(job)
        observed, changes = self.judge(environment, [environment.manifest(job)], seen=True, audit=True)
        assert observed.predictions == {}
        assert changes["once"].op is Op.UNCHANGED


class TestARouteThatStays:
    """What it leads to gets requests as long as it is there, for whatever reason that is."""

    def test_because_its_deletion_waits_keeps_what_it_leads_to(self, environment: Environment, api: Api) -> None:
        held = route("removed")
        held["metadata"] = {**held["metadata"], "finalizers": ["example.com/hold"]}
        environment.run(deployment("kept"), deployment("removed"), held)
        for _ in range(2):
            done = outcomes(environment.run(deployment("kept"), approve=True))
            assert done.pop("Deployment/removed") is Outcome.WAITING
        assert environment.live(deployment("removed")) is not None
        path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{environment.name}/httproutes/churn"
        assert api("PATCH", path, {"metadata": {"finalizers": None}}, content_type=MERGE).status == 200
        assert outcomes(environment.run(deployment("kept"))) == {"Deployment/removed": Outcome.DELETED}

    def test_because_a_limit_holds_it_keeps_what_it_leads_to(self, environment: Environment) -> None:
        protected = route("removed")
        protected["metadata"] = {**protected["metadata"], "annotations": {PROTECTED: "true"}}
        environment.run(deployment("kept"), deployment("removed"), protected)
        assert outcomes(environment.run(deployment("kept"))) == {"Deployment/removed": Outcome.BLOCKED}
        done = outcomes(environment.run(deployment("kept"), approve=True))
        assert list(done) == ["HTTPRoute/churn", "Deployment/removed"]
