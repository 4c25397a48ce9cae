"""Plan, apply and prune against API servers: what a run leaves behind, also where it goes wrong.

`Environment` makes a run of hand-written objects, so that each test says exactly what is wanted.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from reconciler import apply, desired, inventory, observe, plan, reconcile
from reconciler.cluster import Retry, Writer, connect
from reconciler.clusters import Clusters
from reconciler.plan import Op, Plan, Wanted
from reconciler.report import Done, Outcome, Report
from renderers.manifest import Body, Manifest, Origin, object_id
from renderers.names import BUILD_ID, LINEAGE, NAME, VARIATION
from tests.contract.client import Api, EmbeddedServer, config_map, deployment, eventually


def disruption_budget(name: str) -> Body:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": name}}},
    }


ORIGIN = Origin("specs/test.yaml", 1, "variation", "test")


def route(*names: str) -> Body:
    """One that leads to Services of these names."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "churn"},
        "spec": {"rules": [{"backendRefs": [{"name": name, "port": 80} for name in names]}]},
    }


class Environment:
    """One environment with its namespace, and runs that true it up to lists of objects."""

    def __init__(self, writer: Writer, name: str) -> None:
        self.writer = writer
        self.name = name
        self.pool = ThreadPoolExecutor(8)
        self.second_look: Any = "the same"

    def manifest(self, body: Body, needs: tuple[Manifest, ...] = ()) -> Manifest:
        body = {**body, "metadata": {**body["metadata"]}}
        if body["kind"] != "Namespace":
            body["metadata"]["namespace"] = self.name
        desired._mark(body, inventory.set_id(self.name))
        return Manifest(object_id(body), body, ORIGIN, self.name, tuple(one.id for one in needs))

    def namespace(self) -> Manifest:
        return self.manifest({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name}})

    def plan(self, manifests: list[Manifest], *, verify: bool = False, **state: Any) -> Plan:
        known = observe.inventories(self.writer)
        self.observed = observe.observe(self.writer, self.name, manifests, known, self.pool, verify=verify)
        self.wanted = Wanted(self.name, manifests, **state)
        changes, guards = plan.environment(self.wanted, self.observed)
        return plan.assemble(changes, (), guards)

    def carry_out(self, made: Plan, manifests: list[Manifest]) -> list[Done]:
        again = frozenset(one.id for one in manifests) if self.second_look == "the same" else self.second_look
        target = apply.Target(self.writer, self.wanted, self.observed, lambda: again)
        return list(apply.carry_out(made, {self.name: target}, self.pool))

    def run(self, *bodies: Body | Manifest, approve: bool = False, **state: Any) -> list[Done]:
        """One whole run. The namespace is always wanted."""
        given = [body if isinstance(body, Manifest) else self.manifest(body) for body in bodies]
        manifests = [self.namespace(), *given]
        made = self.plan(manifests, **state)
        approvals = {guard.approval for guard in made.guards} if approve else set()
        return self.carry_out(plan.approved(made, approvals), manifests)

    def live(self, body: Body) -> Body | None:
        return self.writer.get(self.manifest(body).id)

    def versions(self) -> set[str]:
        """The resourceVersions of everything that a run may have written."""
        ids = [*(m.id for m in self.wanted.manifests), inventory.object_id_of(self.name)]
        return {self.writer.get(target)["metadata"]["resourceVersion"] for target in ids}

    def inventory(self) -> set[str]:
        """The kinds that the inventory knows of."""
        stored = self.writer.get(inventory.object_id_of(self.name))
        return set() if stored is None else {place.kind for place in inventory.from_config_map(stored).places}


@pytest.fixture
def kubeconfig(server: tuple[Path, str]) -> Path:
    return server[0]


@pytest.fixture
def environment(kubeconfig: Path) -> Iterator[Environment]:
    connection = connect(str(kubeconfig), trusted=True, retry=Retry(attempts=3, base=0.01))
    made = Environment(Writer(connection), f"env-{secrets.token_hex(5)}")
    yield made
    made.pool.shutdown()
    connection.close()


def outcomes(done: list[Done]) -> dict[str, Outcome]:
    return {f"{one.change.id.kind}/{one.change.id.name}": one.outcome for one in done}


def going(api: Api) -> set[Outcome]:
    """What may become of an object whose pods go before it: a real cluster's garbage collector has to come first."""
    return {Outcome.DELETED} if api.plane == "embedded" else {Outcome.DELETED, Outcome.WAITING}


MAPS = [config_map(f"map-{number}", {"a": "1"}) for number in range(6)]


class TestARun:
    def test_applies_everything_and_the_next_one_has_nothing_to_do(self, environment: Environment):
        first = environment.run(deployment("churn"), *MAPS)
        assert set(outcomes(first).values()) == {Outcome.APPLIED}
        second = environment.plan([environment.namespace(), *map(environment.manifest, [deployment("churn"), *MAPS])])
        assert {change.op for change in second.changes} == {Op.UNCHANGED}
        assert environment.observed.predictions == {}, "a look was enough: no dry run was asked for"

    def test_that_changes_nothing_writes_nothing(self, environment: Environment):
        environment.run(deployment("churn"), *MAPS)
        before = environment.versions()
        assert environment.run(deployment("churn"), *MAPS) == []
        assert environment.versions() == before

    def test_shows_the_change_of_one_field_and_makes_it(self, environment: Environment):
        environment.run(deployment("churn", replicas=2))
        manifests = [environment.namespace(), environment.manifest(deployment("churn", replicas=3))]
        made = environment.plan(manifests)
        change = next(change for change in made.changes if change.op is not Op.UNCHANGED)
        assert (change.op, [tuple(field) for field in change.fields]) == (Op.CHANGE, [("spec.replicas", 2, 3)])
        environment.carry_out(made, manifests)
        assert environment.live(deployment("churn"))["spec"]["replicas"] == 3

    def test_verifies_what_does_not_exist_yet_even_without_its_namespace(self, environment: Environment):
        bad = deployment("bad", replicas=-1)
        made = environment.plan(
            [environment.namespace(), *map(environment.manifest, [deployment("good"), bad])], verify=True
        )
        found = {change.id.name: change for change in made.changes}
        assert found["good"].op is Op.CREATE
        assert found["bad"].op is Op.REFUSED
        assert "replicas" in found["bad"].reason
        assert environment.writer.get(environment.namespace().id) is None, "a plan writes nothing"

    def test_takes_a_field_away_that_the_specs_no_longer_have(self, environment: Environment):
        environment.run(config_map("settings", {"a": "1", "b": "2"}))
        environment.run(config_map("settings", {"a": "1"}))
        assert environment.live(config_map("settings"))["data"] == {"a": "1"}


class TestOthers:
    """Fields and objects that somebody else has a hand in."""

    def _edit(self, environment: Environment, api: Api, manager: str) -> None:
        path = f"/api/v1/namespaces/{environment.name}/configmaps/settings"
        body = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "edited"}}
        answer = api.apply(path, body, manager=manager, query="&force=true")
        assert answer.status == 200

    def test_a_persons_edit_is_taken_back(self, environment: Environment, api: Api):
        environment.run(config_map("settings", {"a": "1"}))
        self._edit(environment, api, "kubectl-edit")
        done = environment.run(config_map("settings", {"a": "1"}))
        assert outcomes(done) == {"ConfigMap/settings": Outcome.APPLIED}
        assert "takes .data.a over from kubectl-edit" in done[0].change.reason
        assert environment.live(config_map("settings"))["data"] == {"a": "1"}

    def test_a_controllers_field_is_left_alone_and_the_rest_goes_on(self, environment: Environment, api: Api):
        environment.run(config_map("settings", {"a": "1"}))
        self._edit(environment, api, "some-controller")
        done = environment.run(config_map("settings", {"a": "1"}), config_map("other", {"b": "1"}))
        assert outcomes(done) == {"ConfigMap/other": Outcome.APPLIED}
        assert environment.live(config_map("settings"))["data"] == {"a": "edited"}

    def test_an_object_that_was_there_before_is_not_taken_over(self, environment: Environment, api: Api):
        environment.run()
        api("POST", f"/api/v1/namespaces/{environment.name}/configmaps", config_map("settings", {"a": "theirs"}))
        assert environment.run(config_map("settings", {"a": "ours"})) == []
        assert environment.live(config_map("settings"))["data"] == {"a": "theirs"}

    def test_an_edit_of_an_object_that_must_be_replaced_is_a_part_of_the_plan_as_well(
        self, environment: Environment, api: Api
    ):
        environment.run(deployment("churn", replicas=2))
        path = f"/apis/apps/v1/namespaces/{environment.name}/deployments/churn"
        edit = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 5}}
        assert api.apply(path, edit, manager="kubectl-edit", query="&force=true").status == 200
        moved = deployment("churn", replicas=2)
        moved["spec"]["selector"]["matchLabels"] = moved["spec"]["template"]["metadata"]["labels"] = {"app": "moved"}
        made = environment.plan([environment.namespace(), environment.manifest(moved)])
        assert [change.op for change in made.changes] == [Op.UNCHANGED, Op.REPLACE]

    def test_the_namespace_of_another_environment_is_not_joined(self, environment: Environment):
        environment.run(*MAPS)
        intruder = Environment(environment.writer, f"{environment.name}-intruder")
        manifest = Manifest(
            environment.namespace().id,
            {**environment.namespace().body, "metadata": {"name": environment.name}},
            ORIGIN,
            intruder.name,
        )
        desired._mark(manifest.body, inventory.set_id(intruder.name))
        (change,) = intruder.plan([manifest]).changes
        intruder.pool.shutdown()
        assert change.op is Op.CONFLICT
        assert f"it belongs to environment {environment.name};" in change.reason

    def test_a_namespace_that_belongs_to_nobody_is_joined(self, environment: Environment, api: Api):
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": environment.name}}
        assert api("POST", "/api/v1/namespaces", body).status == 201
        assert set(outcomes(environment.run(MAPS[0])).values()) == {Outcome.APPLIED}

    def test_replicas_that_an_autoscaler_set_are_left_alone(self, environment: Environment, api: Api):
        environment.run(deployment("churn"))
        path = f"/apis/apps/v1/namespaces/{environment.name}/deployments/churn/scale"
        scale = api("GET", path).body
        scale["spec"]["replicas"] = 7
        assert api("PUT", path + "?fieldManager=keda", scale).status == 200
        environment.run(deployment("churn", minReadySeconds=5))
        assert environment.live(deployment("churn"))["spec"]["replicas"] == 7

    def test_pods_keep_running_when_an_autoscaler_takes_over_and_when_it_goes(self, environment: Environment, api: Api):
        environment.run(deployment("churn", replicas=5))
        environment.run(deployment("churn"))
        assert environment.live(deployment("churn"))["spec"]["replicas"] == 5, "the default would be 1"
        path = f"/apis/apps/v1/namespaces/{environment.name}/deployments/churn/scale"
        scale = api("GET", path).body
        scale["spec"]["replicas"] = 7
        assert api("PUT", path + "?fieldManager=kube-controller-manager", scale).status == 200
        assert environment.run(deployment("churn")) == [], "what the autoscaler says is no drift"
        environment.run(deployment("churn", replicas=3))
        assert environment.live(deployment("churn"))["spec"]["replicas"] == 3


class TestFailures:
    def test_one_refused_object_stops_what_needs_it_and_nothing_else(self, environment: Environment):
        bad = environment.manifest(deployment("bad", replicas=-1))
        done = environment.run(bad, environment.manifest(disruption_budget("bad"), (bad,)), deployment("good"))
        found = outcomes(done)
        assert found["Deployment/bad"] is Outcome.FAILED
        assert found["PodDisruptionBudget/bad"] is Outcome.BLOCKED
        assert found["Deployment/good"] is Outcome.APPLIED

    def test_a_kind_that_the_cluster_does_not_know_fails_alone(self, environment: Environment):
        odd = {"apiVersion": "example.com/v1", "kind": "Odd", "metadata": {"name": "odd"}, "spec": {}}
        found = outcomes(environment.run(odd, config_map("map")))
        assert found["Odd/odd"] is Outcome.FAILED
        assert found["ConfigMap/map"] is Outcome.APPLIED

    def test_the_inventory_knows_a_place_before_anything_is_in_it(self, environment: Environment):
        odd = {"apiVersion": "example.com/v1", "kind": "Odd", "metadata": {"name": "odd"}, "spec": {}}
        environment.run(odd)
        assert "Odd" in environment.inventory(), "what may have been created is looked for by the next run"

    def test_an_immutable_field_is_replaced(self, environment: Environment):
        def selecting(value: str) -> Body:
            body = deployment("churn")
            body["spec"]["selector"]["matchLabels"] = {"app": "churn", "tier": value}
            body["spec"]["template"]["metadata"]["labels"] = {"app": "churn", "tier": value}
            return body

        environment.run(selecting("old"))
        first = environment.live(selecting("old"))
        manifests = [environment.namespace(), environment.manifest(selecting("new"))]
        made = environment.plan(manifests)
        change = next(change for change in made.changes if change.op is not Op.UNCHANGED)
        assert change.op is Op.REPLACE
        assert change.uid == first["metadata"]["uid"]

    def test_a_job_that_was_cleaned_up_after_its_end_does_not_run_again(self, environment: Environment, api: Api):
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "build"},
            "spec": {
                "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "build", "image": "a:1"}]}}
            },
        }
        environment.run(job)
        path = f"/apis/batch/v1/namespaces/{environment.name}/jobs/build"
        conditions = [
            {"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
            for kind in ("SuccessCriteriaMet", "Complete")
        ]
        times = {"startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:00Z"}
        ended = {"status": {"succeeded": 1, "conditions": conditions, **times}}
        answer = api("PATCH", f"{path}/status", ended, content_type="application/merge-patch+json")
        assert answer.status == 200, answer.body
        environment.run(job)
        api("DELETE", f"{path}?propagationPolicy=Background")
        eventually(lambda: environment.live(job) is None)
        assert environment.run(job) == []
        assert environment.live(job) is None

    @pytest.fixture
    def built_and_served(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """A build, and a Deployment that serves it."""
        of_build = {"annotations": {"trueup.dev/build": "sha256:1"}}
        template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "build", "image": "a:1"}]}}
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "build", **of_build},
            "spec": {"template": template},
        }
        labels = {"app": "served"}
        pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "model", "image": "a:1"}]}}
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "served", **of_build},
            "spec": {"selector": {"matchLabels": labels}, "template": pod},
        }
        return job, deployment

    def _end(self, environment: Environment, api: Api, **conditions: str) -> None:
        when = "2026-01-01T00:00:00Z"
        ended = [
            {"type": kind, "status": "True", "lastTransitionTime": when, "reason": reason, "message": reason}
            for kind, reason in conditions.items()
        ]
        times = {"startTime": when} | ({"completionTime": when} if "Complete" in conditions else {})
        answer = api(
            "PATCH",
            f"/apis/batch/v1/namespaces/{environment.name}/jobs/build/status",
            {"status": {"conditions": ended, **times}},
            content_type="application/merge-patch+json",
        )
        assert answer.status == 200, answer.body

    def test_what_serves_a_build_waits_until_it_is_made(self, environment: Environment, api: Api, built_and_served):
        job, deployment = built_and_served
        waiting = environment.run(job, deployment)[-1]
        assert waiting.outcome is Outcome.WAITING
        assert "it waits for its build" in waiting.message
        assert environment.live(deployment) is None

        self._end(environment, api, SuccessCriteriaMet="Done", Complete="Done")
        environment.run(job, deployment)
        assert environment.live(deployment) is not None

    def test_what_needs_something_that_waits_waits_too(self, environment: Environment, built_and_served):
        job, serving = built_and_served
        served = environment.manifest(serving)
        found = outcomes(environment.run(job, served, environment.manifest(disruption_budget("served"), (served,))))
        assert found["PodDisruptionBudget/served"] is Outcome.WAITING, "the next run goes on, and nobody has to act"

    def test_what_needs_something_that_failed_is_blocked_also_where_it_would_wait_for_another(
        self, environment: Environment, built_and_served
    ):
        job, serving = built_and_served
        served, bad = environment.manifest(serving), environment.manifest(deployment("bad", replicas=-1))
        budget = environment.manifest(disruption_budget("served"), (served, bad))
        blocked = environment.run(job, served, bad, budget)[-1]
        assert (blocked.change.id, blocked.outcome) == (budget.id, Outcome.BLOCKED)
        assert blocked.message == f"it needs {bad.id}"

    def test_a_cluster_that_is_lost_is_not_asked_about_its_builds(
        self, environment: Environment, kubeconfig: Path, tmp_path: Path, built_and_served
    ):
        from tests.contract.faults import FaultProxy, answer

        job, serving = built_and_served
        with FaultProxy(kubeconfig) as proxy:
            retry = Retry(attempts=2, base=0.001)
            connection = connect(str(proxy.kubeconfig(tmp_path / "kubeconfig")), trusted=True, retry=retry)
            builder = Environment(Writer(connection), f"{environment.name}-b")
            plans = [
                builder.plan([builder.namespace(), builder.manifest(job)]),
                environment.plan([environment.namespace(), environment.manifest(serving)]),
            ]
            proxy.inject(answer(503, "down"), method="PATCH", path=f"/namespaces/{builder.name}", times=10_000)
            asked = proxy.count("GET", "/jobs")
            made = plan.assemble([change for one in plans for change in one.changes])
            targets = {
                one.name: apply.Target(one.writer, one.wanted, one.observed, lambda: None)
                for one in (builder, environment)
            }
            waiting = list(apply.carry_out(made, targets, environment.pool))[-1]
            builder.pool.shutdown()
            connection.close()
        assert (waiting.change.id.kind, waiting.outcome) == ("Deployment", Outcome.WAITING)
        assert f"the cluster of {builder.name} was lost" in waiting.message
        assert proxy.count("GET", "/jobs") == asked

    def test_what_serves_a_build_that_failed_says_why(self, environment: Environment, api: Api, built_and_served):
        job, deployment = built_and_served
        environment.run(job)
        self._end(environment, api, FailureTarget="BackoffLimitExceeded", Failed="BackoffLimitExceeded")
        failed = environment.run(job, deployment)[-1]
        assert failed.outcome is Outcome.FAILED
        assert "its build failed: BackoffLimitExceeded" in failed.message
        assert environment.live(deployment) is None

    def test_a_failed_build_that_somebody_deletes_is_tried_again(
        self, environment: Environment, api: Api, built_and_served
    ):
        job, _ = built_and_served
        environment.run(job)
        self._end(environment, api, FailureTarget="BackoffLimitExceeded", Failed="BackoffLimitExceeded")
        assert environment.run(job) == []
        api("DELETE", f"/apis/batch/v1/namespaces/{environment.name}/jobs/build?propagationPolicy=Background")
        eventually(lambda: environment.live(job) is None)
        environment.run(job)
        assert environment.live(job) is not None


class TestPruning:
    def test_deletes_what_nobody_wants_and_narrows_the_inventory(self, environment: Environment):
        service_account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}}
        environment.run(service_account, *MAPS)
        assert environment.inventory() == {"Namespace", "ConfigMap", "ServiceAccount"}
        done = environment.run(*MAPS)
        assert outcomes(done) == {"ServiceAccount/robot": Outcome.DELETED}
        assert environment.live(service_account) is None
        assert environment.inventory() == {"Namespace", "ConfigMap"}

    def test_an_incomplete_render_makes_the_inventory_forget_nothing(self, environment: Environment):
        environment.run(deployment("churn"), MAPS[0])
        environment.live(deployment("churn"))
        environment.writer.delete(
            environment.manifest(deployment("churn")).id,
            uid=environment.live(deployment("churn"))["metadata"]["uid"],
            propagation="Background",
        )
        environment.run(MAPS[0], complete=False)
        assert "Deployment" in environment.inventory()
        environment.run(MAPS[0])
        assert "Deployment" not in environment.inventory()

    def test_what_may_still_get_traffic_stays_with_the_route_that_names_it(self, environment: Environment, api: Api):
        kept, removed = deployment("kept"), deployment("removed")
        environment.run(kept, removed, route("kept", "removed"))
        path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{environment.name}/httproutes/churn"
        theirs = route("kept", "removed", "theirs")
        assert api.apply(path, theirs, manager="some-controller", query="&force=true").status == 200
        done = environment.run(kept, route("kept"))
        assert outcomes(done) == {"Deployment/removed": Outcome.BLOCKED}
        assert environment.live(removed) is not None

    def test_spares_what_a_second_look_at_the_specs_wants(self, environment: Environment):
        environment.run(*MAPS)
        environment.second_look = frozenset({environment.manifest(MAPS[0]).id})
        done = environment.run(*MAPS[1:])
        assert outcomes(done) == {"ConfigMap/map-0": Outcome.BLOCKED}
        assert environment.live(MAPS[0]) is not None

    def test_deletes_nothing_when_the_second_look_fails(self, environment: Environment):
        environment.run(*MAPS)
        environment.second_look = None
        assert outcomes(environment.run(*MAPS[1:])) == {"ConfigMap/map-0": Outcome.BLOCKED}
        assert environment.live(MAPS[0]) is not None

    def test_deletes_nothing_while_the_specs_have_errors(self, environment: Environment):
        environment.run(*MAPS)
        assert environment.run(*MAPS[1:], complete=False) == []
        assert environment.live(MAPS[0]) is not None

    def test_everything_goes_only_with_approval(self, environment: Environment):
        environment.run(*MAPS)
        assert environment.run() == []
        assert environment.live(MAPS[0]) is not None
        done = environment.run(approve=True)
        assert [one.outcome for one in done] == [Outcome.DELETED] * 6
        assert environment.writer.get(environment.namespace().id) is not None, "a namespace is never deleted by a plan"

    def test_an_object_of_the_same_name_that_somebody_else_made_is_spared(self, environment: Environment, api: Api):
        environment.run(*MAPS)
        manifests = [environment.namespace(), *map(environment.manifest, MAPS[1:])]
        made = environment.plan(manifests)
        path = f"/api/v1/namespaces/{environment.name}/configmaps"
        api("DELETE", f"{path}/map-0")
        assert api("POST", path, config_map("map-0", {"a": "theirs"})).status == 201
        environment.carry_out(made, manifests)
        assert environment.live(MAPS[0])["data"] == {"a": "theirs"}

    def test_an_object_whose_label_was_taken_away_is_spared(self, environment: Environment, api: Api):
        environment.run(*MAPS)
        manifests = [environment.namespace(), *map(environment.manifest, MAPS[1:])]
        made = environment.plan(manifests)
        path = f"/api/v1/namespaces/{environment.name}/configmaps/map-0"
        patch = {"metadata": {"labels": {inventory.PART_OF: None}}}
        assert api("PATCH", path, patch, content_type="application/merge-patch+json").status == 200
        assert outcomes(environment.carry_out(made, manifests)) == {"ConfigMap/map-0": Outcome.BLOCKED}
        assert environment.live(MAPS[0]) is not None

    def test_a_finalizer_that_stays_is_told_and_neither_waited_for_nor_forgotten(
        self, environment: Environment, api: Api
    ):
        environment.run(*MAPS)
        path = f"/api/v1/namespaces/{environment.name}/configmaps/map-0"
        patch = {"metadata": {"finalizers": ["example.com/hold"]}}
        api("PATCH", path, patch, content_type="application/merge-patch+json")
        done = environment.run(*MAPS[1:])
        assert outcomes(done) == {"ConfigMap/map-0": Outcome.WAITING}
        assert "example.com/hold" in done[0].message
        made = environment.plan([environment.namespace(), *map(environment.manifest, MAPS[1:])])
        change = next(change for change in made.changes if change.op is Op.DELETE)
        assert not change.is_action, "it is not deleted again and again"
        assert "example.com/hold" in change.held
        api("PATCH", path, {"metadata": {"finalizers": None}}, content_type="application/merge-patch+json")
        eventually(lambda: environment.live(MAPS[0]) is None)

    def test_a_lost_inventory_is_rebuilt_first_and_pruned_by_the_next_run(self, environment: Environment, api: Api):
        environment.run(*MAPS)
        target = inventory.object_id_of(environment.name)
        api("DELETE", f"/api/v1/namespaces/{target.namespace}/configmaps/{target.name}")
        assert environment.run(*MAPS[1:]) == []
        assert environment.live(MAPS[0]) is not None
        assert environment.inventory() == {"Namespace", "ConfigMap"}
        assert outcomes(environment.run(*MAPS[1:])) == {"ConfigMap/map-0": Outcome.DELETED}

    def test_a_corrupt_inventory_is_rebuilt_as_a_lost_one(self, environment: Environment, api: Api):
        environment.run(*MAPS)
        target = inventory.object_id_of(environment.name)
        path = f"/api/v1/namespaces/{target.namespace}/configmaps/{target.name}"
        api("PATCH", path, {"data": {"places": "?"}}, content_type="application/merge-patch+json")
        assert environment.run(*MAPS[1:]) == []
        assert environment.inventory() == {"Namespace", "ConfigMap"}

    def test_a_copy_of_an_inventory_is_not_taken_for_it(self, environment: Environment, api: Api):
        environment.run(*MAPS)
        target = inventory.object_id_of(environment.name)
        path = f"/api/v1/namespaces/{target.namespace}/configmaps"
        copy = api("GET", f"{path}/{target.name}").body
        copy["metadata"] = {"name": f"a-{target.name}", "labels": copy["metadata"]["labels"]}
        assert api("POST", path, copy).status == 201
        assert outcomes(environment.run(*MAPS[1:])) == {"ConfigMap/map-0": Outcome.DELETED}
        api("DELETE", f"{path}/a-{target.name}")

    def test_a_corrupt_inventory_of_an_environment_without_specs_is_rebuilt_from_its_namespaces_label(
        self, environment: Environment, api: Api
    ):
        environment.run(*MAPS)
        target = inventory.object_id_of(environment.name)
        path = f"/api/v1/namespaces/{target.namespace}/configmaps/{target.name}"
        api("PATCH", path, {"data": {"places": "?"}}, content_type="application/merge-patch+json")
        environment.carry_out(environment.plan([], in_specs=False), [])
        assert environment.inventory() == {"Namespace", "ConfigMap"}

    def test_an_environment_that_is_gone_from_the_specs_leaves_its_namespace_and_nothing_else(
        self, environment: Environment
    ):
        environment.run(*MAPS)
        made = environment.plan([], in_specs=False)
        made = plan.approved(made, {guard.approval for guard in made.guards})
        environment.carry_out(made, [])
        assert environment.live(MAPS[0]) is None
        assert environment.inventory() == set(), "nothing of it is left to speak of"


class TestTwoBuilds:
    """A build takes over from another one of the same variation, or fails to."""

    def _build(self, environment: Environment, build: str, **spec: Any) -> list[Manifest]:
        """Its Deployment and its Service."""
        name = f"churn-{build}"
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}}
        service["spec"] = {"ports": [{"port": 80}], "selector": {"app": name}}
        bodies = [deployment(name, **spec), service]
        for body in bodies:
            body["metadata"]["labels"] = {NAME: "churn", VARIATION: "default", BUILD_ID: build}
            body["metadata"]["annotations"] = {LINEAGE: "variation/churn/default"}
        return [environment.manifest(body) for body in bodies]

    def _route(self, environment: Environment, *needs: Manifest, **weights: int) -> Manifest:
        """Needs the Deployments that are given."""
        refs = [
            {"group": "", "kind": "Service", "name": f"churn-{b}", "port": 80, "weight": w} for b, w in weights.items()
        ]
        body = {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "churn", "labels": {NAME: "churn"}},
            "spec": {"rules": [{"name": "everybody", "backendRefs": refs}]},
        }
        return environment.manifest(body, needs)

    def _weights(self, environment: Environment) -> dict[str, int]:
        live = environment.writer.get(self._route(environment).id)
        assert live is not None
        return {backend["name"]: backend["weight"] for backend in live["spec"]["rules"][0]["backendRefs"]}

    def _ready(self, environment: Environment, api: Api, build: str, pods: int = 1) -> None:
        path = f"/apis/apps/v1/namespaces/{environment.name}/deployments/churn-{build}/status"
        count = {"replicas": pods, "updatedReplicas": pods, "availableReplicas": pods, "readyReplicas": pods}
        status = {"status": {"observedGeneration": 1, **count}}
        answer = api("PATCH", path, status, content_type="application/merge-patch+json")
        assert answer.status == 200, answer.body

    @pytest.fixture
    def old(self, environment: Environment) -> list[Manifest]:
        return self._build(environment, "old")

    @pytest.fixture
    def new(self, environment: Environment) -> list[Manifest]:
        return self._build(environment, "new")

    def test_requests_come_when_the_new_build_is_ready(self, environment: Environment, api: Api, old, new):
        environment.run(*old, *new, self._route(environment, old[0], old=100))
        step = self._route(environment, old[0], new[0], old=75, new=25)
        (waiting,) = environment.run(*old, *new, step)
        assert waiting.outcome is Outcome.WAITING
        assert "traffic stays where it is until" in waiting.message
        assert self._weights(environment) == {"churn-old": 100}

        self._ready(environment, api, "new")
        environment.run(*old, *new, step)
        assert self._weights(environment) == {"churn-old": 75, "churn-new": 25}

    def test_the_way_back_waits_for_nothing(self, environment: Environment, old, new):
        """No pod of the old build is ready, it cannot be changed, and other specs are broken: back all the same."""
        environment.run(*old, *new, self._route(environment, new[0], old=0, new=100))
        back = self._route(environment, old[0], old=100)
        bad = self._build(environment, "old", replicas=-1)
        found = outcomes(environment.run(*bad, *new, back, complete=False))
        assert found == {"HTTPRoute/churn": Outcome.APPLIED}
        assert self._weights(environment) == {"churn-old": 100}

    def test_anything_else_about_a_route_waits_for_what_could_not_be_changed(self, environment: Environment, old, new):
        environment.run(*old, *new, self._route(environment, old[0], old=90))
        bad = self._build(environment, "old", replicas=-1)
        found = outcomes(environment.run(*bad, *new, self._route(environment, bad[0], old=100)))
        assert found["HTTPRoute/churn"] is Outcome.BLOCKED

    def test_the_old_build_goes_after_its_traffic_and_when_its_sibling_is_ready(
        self, environment: Environment, api: Api, old, new
    ):
        environment.run(*old, *new, self._route(environment, new[0], old=0, new=100))
        found = outcomes(environment.run(*new, self._route(environment, new[0], new=100)))
        assert found["HTTPRoute/churn"] is Outcome.APPLIED
        assert found["Deployment/churn-old"] is Outcome.WAITING, "nobody else could answer yet"

        self._ready(environment, api, "new")
        found = outcomes(environment.run(*new, self._route(environment, new[0], new=100)))
        assert found.pop("Deployment/churn-old") in going(api)
        assert found == {"Service/churn-old": Outcome.DELETED}
        assert environment.writer.get(new[0].id) is not None

    def test_the_job_of_a_finished_run_stays_a_member(self, environment: Environment, api: Api):
        template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "build", "image": "a:1"}]}}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "run"}, "spec": {"template": template}}
        environment.run(job)
        kept = frozenset({environment.manifest(job).id})
        assert environment.run(keep=kept) == []
        assert environment.live(job) is not None
        assert environment.inventory() == {"Namespace", "Job"}
        (gone,) = environment.run(approve=True)
        assert gone.change.id.kind == "Job"
        assert gone.outcome in going(api)


def test_a_namespace_that_is_going_fails_its_objects_with_a_sentence_that_says_so(environment: Environment, api: Api):
    environment.run(*MAPS)
    # The finalizer on one object keeps the namespace in the state Terminating.
    path = f"/api/v1/namespaces/{environment.name}"
    patch = {"metadata": {"finalizers": ["example.com/hold"]}}
    api("PATCH", f"{path}/configmaps/map-0", patch, content_type="application/merge-patch+json")
    api("DELETE", path)
    done = environment.run(*MAPS, config_map("new"))
    assert outcomes(done)["ConfigMap/new"] is not Outcome.APPLIED
    assert any("terminat" in one.message.lower() for one in done)
    api(
        "PATCH",
        f"{path}/configmaps/map-0",
        {"metadata": {"finalizers": None}},
        content_type="application/merge-patch+json",
    )


def test_a_replacement_that_waits_for_the_old_object_stops_nothing_else(environment: Environment, api: Api):
    environment.run(deployment("churn"))
    path = f"/apis/apps/v1/namespaces/{environment.name}/deployments/churn"
    hold = {"metadata": {"finalizers": ["example.com/hold"]}}
    assert api("PATCH", path, hold, content_type="application/merge-patch+json").status == 200
    moved = deployment("churn")
    moved["spec"]["selector"]["matchLabels"] = moved["spec"]["template"]["metadata"]["labels"] = {"app": "moved"}
    done = environment.run(moved, disruption_budget("other"))
    assert outcomes(done) == {"Deployment/churn": Outcome.WAITING, "PodDisruptionBudget/other": Outcome.APPLIED}
    api("PATCH", path, {"metadata": {"finalizers": None}}, content_type="application/merge-patch+json")
    eventually(lambda: environment.live(moved) is None)
    assert outcomes(environment.run(moved, disruption_budget("other"))) == {"Deployment/churn": Outcome.APPLIED}


def test_a_webhook_that_cannot_be_called_for_one_object_stops_no_other(
    environment: Environment, kubeconfig: Path, tmp_path: Path
):
    from tests.contract.faults import FaultProxy, answer

    down = {
        "kind": "Status",
        "reason": "InternalError",
        "message": 'Internal error occurred: failed calling webhook "a.example.com": connection refused',
        "code": 500,
    }
    environment.run(MAPS[0])
    with FaultProxy(kubeconfig) as proxy:
        retry = Retry(attempts=2, base=0.001)
        connection = connect(str(proxy.kubeconfig(tmp_path / "kubeconfig")), trusted=True, retry=retry)
        environment.writer = Writer(connection)
        proxy.inject(answer(500, down), method="PATCH", path="/configmaps/map-0", times=10_000)
        changed = config_map("map-0", {"a": "2"})
        done = environment.run(changed, *MAPS[1:])
        connection.close()
    found = outcomes(done)
    assert found.pop("ConfigMap/map-0") is Outcome.FAILED
    assert list(found.values()) == [Outcome.APPLIED] * 5


#: When these runs happen.
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Reached(Clusters):
    """Clusters that a test has connections to already."""

    def __init__(self, writer_of: Callable[[Any], Writer]) -> None:
        super().__init__(Path("/nowhere"))
        self._writer_of = writer_of

    def reader(self, plane: Any) -> Writer:
        return self._writer_of(plane)

    def writer(self, plane: Any) -> Writer:
        return self._writer_of(plane)


class TestTheWholeStory:
    """`reconcile`, from a folder of specs."""

    def _run(self, environment: Environment, folder: Path, state: str) -> Report:
        (folder / "specs.yaml").write_text(
            f"api_version: v1\nspec:\n  environments:\n    - {{name: {environment.name}, {state}}}\n"
        )
        request = reconcile.Request((folder,))
        return reconcile.reconcile(request, Reached(lambda _: environment.writer), lambda _: None, lambda: NOW)

    def test_a_suspended_environment_is_not_written_to(self, environment: Environment, tmp_path: Path):
        assert self._run(environment, tmp_path, "suspended: true").done == ()
        assert environment.writer.get(inventory.object_id_of(environment.name)) is None

    def test_two_environments_that_turn_out_to_share_a_namespace_do_not_fight_over_it(
        self, environment: Environment, tmp_path: Path
    ):
        name, space = environment.name, f"namespace: {environment.name}-shared, object_storage: s3://bucket/trueup"
        state = f"data_plane: {{type: kubernetes, context: a}}, {space}}}\n    - {{name: {name}-2, "
        report = self._run(environment, tmp_path, f"{state}data_plane: {{type: kubernetes, context: b}}, {space}")
        assert {one.change.environment for one in report.done} == {name}
        assert [trouble.where for trouble in report.trouble] == [f"environment {name}-2"]
        assert f"environment {name} has the namespace" in report.trouble[0].message

    def test_an_environment_is_applied_and_the_next_run_has_nothing_to_do(
        self, environment: Environment, tmp_path: Path
    ):
        first = self._run(environment, tmp_path, "suspended: false")
        assert first.done
        assert {one.outcome for one in first.done} == {Outcome.APPLIED}
        assert self._run(environment, tmp_path, "suspended: false").done == ()

    def test_an_environment_that_moved_to_another_cluster_is_told_of_what_it_left_behind(
        self, environment: Environment, kubeconfig: Path, tmp_path: Path
    ):
        def run(plane: str, writer_of: Any) -> Report:
            text = f"- name: {environment.name}\n      data_plane: {plane}\n      object_storage: s3://bucket/a\n"
            anchor = f"    - name: {environment.name}-stays\n      suspended: true\n"
            (tmp_path / "specs.yaml").write_text(f"api_version: v1\nspec:\n  environments:\n    {text}{anchor}")
            return reconcile.reconcile(reconcile.Request((tmp_path,)), Reached(writer_of), lambda _: None, lambda: NOW)

        run("embedded", lambda _: environment.writer)
        again = connect(str(kubeconfig), trusted=True)
        by_two_ways = {"embedded": environment.writer, "kubernetes": Writer(again)}
        same = run("{type: kubernetes, context: b}", lambda plane: by_two_ways[plane.type])
        assert same.trouble == (), "two ways to one cluster are no move"
        other = EmbeddedServer(tmp_path / "other")
        connection = connect(str(other.kubeconfig), trusted=True)
        two_clusters = {"embedded": environment.writer, "kubernetes": Writer(connection)}
        moved = run("{type: kubernetes, context: b}", lambda plane: two_clusters[plane.type])
        connection.close()
        again.close()
        other.end()
        (trouble,) = moved.trouble
        assert trouble.where == f"environment {environment.name}"
        assert "moved to another cluster" in trouble.message
        assert inventory.set_id(environment.name) in trouble.message

    def test_a_run_for_some_environments_neither_changes_nor_judges_the_others(
        self, environment: Environment, tmp_path: Path
    ):
        name = environment.name
        (tmp_path / "specs.yaml").write_text(
            f"api_version: v1\nspec:\n  environments:\n    - name: {name}-a\n    - name: {name}-b\n"
        )

        def run(*names: str) -> Report:
            request = reconcile.Request((tmp_path,), environments=frozenset(names))
            return reconcile.reconcile(request, Reached(lambda _: environment.writer), lambda _: None, lambda: NOW)

        assert {one.change.environment for one in run(f"{name}-a").done} == {f"{name}-a"}
        (tmp_path / "specs.yaml").write_text(f"api_version: v1\nspec:\n  environments:\n    - name: {name}-b\n")
        only_b = run(f"{name}-b")
        assert {one.change.environment for one in only_b.done} == {f"{name}-b"}
        assert only_b.plan is not None
        assert only_b.plan.guards == (), "what is left of the other one is not looked at"
        left_over = run(f"{name}-a")
        assert left_over.plan is not None
        assert [guard.environment for guard in left_over.plan.guards] == [f"{name}-a"], "unless it is asked for"
        assert "no spec names it" in run("nowhere").trouble[0].message


def test_a_cluster_that_is_lost_stops_its_environment_at_once(
    environment: Environment, kubeconfig: Path, tmp_path: Path
):
    from tests.contract.faults import FaultProxy, answer

    with FaultProxy(kubeconfig) as proxy:
        retry = Retry(attempts=2, base=0.001)
        connection = connect(str(proxy.kubeconfig(tmp_path / "kubeconfig")), trusted=True, retry=retry)
        environment.writer = Writer(connection)
        manifests = [environment.namespace(), *map(environment.manifest, MAPS)]
        made = environment.plan(manifests)
        proxy.inject(answer(503, "down"), method="PATCH", path="/configmaps/map-", times=10_000)
        done = environment.carry_out(made, manifests)
        connection.close()
    assert any(one.infrastructure for one in done)
    assert sum(one.outcome is Outcome.APPLIED for one in done) == 1, "the namespace"
