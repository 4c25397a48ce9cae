"""What the cluster refuses to show of one object, or of one kind: that is refused, and the rest goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reconciler import inventory, observe, plan, reconcile
from reconciler.cluster import Unavailable
from reconciler.clusters import Clusters
from reconciler.plan import Op, Plan
from reconciler.report import ExitCode, Outcome, Report, exit_code
from renderers.manifest import Body, ObjectId
from tests.contract.client import Api, config_map, deployment
from tests.contract.faults import FaultProxy, answer
from tests.contract.test_apply import MAPS, Environment, disruption_budget, environment, kubeconfig, outcomes
from tests.contract.test_apply_parts import proxied, route
from tests.contract.test_convergence import clock
from tests.contract.test_list_items import SERVICE, edit, port

__all__ = ["environment", "kubeconfig", "proxied"]  # fixtures

ALWAYS = 1000


def forbidden(verb: str, resource: str, group: str, namespace: str) -> Body:
    """As kube-apiserver says it, whatever authorizer it has asked."""
    words = f'{resource} is forbidden: User "trueup" cannot {verb} resource "{resource}"'
    words += f' in API group "{group}" in the namespace "{namespace}"'
    return {"kind": "Status", "status": "Failure", "message": words, "reason": "Forbidden", "code": 403}


def ops(made: Plan) -> dict[str, Op]:
    return {f"{change.id.kind}/{change.id.name}": change.op for change in made.changes}


class TestOneObject:
    @pytest.mark.parametrize(
        ("status", "words"),
        [(403, 'forbidden: User "trueup" cannot get'), (400, "it is odd"), (500, "conversion webhook for x failed")],
    )
    def test_that_is_refused_stops_no_other(
        self, environment: Environment, proxied: FaultProxy, status: int, words: str
    ) -> None:
        environment.run()
        said = {"kind": "Status", "status": "Failure", "message": words, "code": status}
        proxied.inject(answer(status, said), method="GET", path="/configmaps/bad$", times=ALWAYS)
        manifests = [environment.namespace(), *map(environment.manifest, [config_map("bad"), config_map("good")])]
        made = environment.plan(manifests)
        assert ops(made) == {
            f"Namespace/{environment.name}": Op.UNCHANGED,
            "ConfigMap/bad": Op.REFUSED,
            "ConfigMap/good": Op.CREATE,
        }
        assert next(change.reason for change in made.changes if change.id.name == "bad").startswith(words)
        assert outcomes(environment.carry_out(made, manifests)) == {"ConfigMap/good": Outcome.APPLIED}

    def test_is_refused_where_many_are_looked_for_in_a_list(
        self, environment: Environment, proxied: FaultProxy
    ) -> None:
        environment.run()
        words = forbidden("list", "configmaps", "", environment.name)
        proxied.inject(answer(403, words), path=rf"/{environment.name}/configmaps\?limit=\d+$", times=ALWAYS)
        maps = [config_map(f"map-{number}") for number in range(20)]
        made = environment.plan([environment.namespace(), *map(environment.manifest, [deployment("churn"), *maps])])
        assert made.count(Op.REFUSED) == 20
        assert ops(made)["Deployment/churn"] is Op.CREATE

    @pytest.mark.parametrize("asked", ["GET", "PATCH"], ids=["to read it", "to try it as a new one"])
    def test_that_is_not_valid_as_it_is_stops_no_other_where_more_cannot_be_asked(
        self, environment: Environment, proxied: FaultProxy, api: Api, asked: str
    ) -> None:
        environment.run(SERVICE)
        edit(api, environment, SERVICE, "kubectl-edit", spec__ports=port(81))
        words = forbidden(asked.lower(), "services", "", environment.name)
        path = "/services/churn$" if asked == "GET" else "/services/trueup-preview-"
        proxied.inject(answer(403, words), method=asked, path=path, times=ALWAYS)
        manifests = [environment.namespace(), *map(environment.manifest, [SERVICE, config_map("good")])]
        made = environment.plan(manifests)
        assert (ops(made)["Service/churn"], ops(made)["ConfigMap/good"]) == (Op.REFUSED, Op.CREATE)
        assert outcomes(environment.carry_out(made, manifests)) == {"ConfigMap/good": Outcome.APPLIED}

    def test_a_server_that_is_lost_meanwhile_says_nothing_about_an_object(
        self, environment: Environment, proxied: FaultProxy, api: Api
    ) -> None:
        environment.run(SERVICE)
        edit(api, environment, SERVICE, "kubectl-edit", spec__ports=port(81))
        proxied.inject(answer(503, b"away"), method="PATCH", path="/services/trueup-preview-", times=ALWAYS)
        with pytest.raises(Unavailable):
            environment.plan([environment.namespace(), environment.manifest(SERVICE)])

    def test_a_server_that_is_lost_is_no_refusal(self, environment: Environment, proxied: FaultProxy) -> None:
        environment.run()
        proxied.inject(answer(503, b"away"), method="GET", path="/configmaps/map", times=ALWAYS)
        with pytest.raises(Unavailable):
            environment.plan([environment.namespace(), environment.manifest(config_map("map"))])


class TestAKind:
    """Its list is forbidden: nobody knows what there is of it."""

    def forbid(self, environment: Environment, proxy: FaultProxy) -> str:
        words = forbidden("list", "poddisruptionbudgets", "policy", environment.name)
        proxy.inject(answer(403, words), method="GET", path="/poddisruptionbudgets", times=ALWAYS)
        return str(words["message"])

    def test_is_refused_with_the_right_that_is_missing_and_the_rest_is_applied(
        self, environment: Environment, proxied: FaultProxy
    ) -> None:
        words = self.forbid(environment, proxied)
        manifests = [environment.namespace(), *map(environment.manifest, [config_map("map"), disruption_budget("pdb")])]
        made = environment.plan(manifests)
        refused = next(change for change in made.changes if change.op is Op.REFUSED)
        assert (refused.id.kind, refused.reason) == (
            "PodDisruptionBudget", f"{words}. Grant it in the role of this account."
        )  # fmt: skip
        done = environment.carry_out(made, manifests)
        assert outcomes(done)["ConfigMap/map"] is Outcome.APPLIED
        assert exit_code(Report(plan=made, done=tuple(done))) is ExitCode.WORLD, "no spec can mend that"

    def test_loses_nothing_and_is_found_again_by_who_may_look(
        self, environment: Environment, proxied: FaultProxy
    ) -> None:
        environment.run(config_map("map"), disruption_budget("pdb"))
        self.forbid(environment, proxied)
        environment.run(config_map("map"))
        assert environment.live(config_map("map")) is not None
        assert "PodDisruptionBudget" in environment.inventory(), "there may be some"
        proxied._rules.clear()
        assert environment.live(disruption_budget("pdb")) is not None
        assert outcomes(environment.run(config_map("map"))) == {"PodDisruptionBudget/pdb": Outcome.DELETED}
        assert "PodDisruptionBudget" not in environment.inventory()

    def test_of_routes_keeps_what_they_may_lead_to(self, environment: Environment, proxied: FaultProxy) -> None:
        environment.run(deployment("kept"), deployment("removed"), route("removed"))
        words = forbidden("list", "httproutes", "gateway.networking.k8s.io", environment.name)
        proxied.inject(answer(403, words), method="GET", path=r"/httproutes\?", times=ALWAYS)
        assert environment.run(deployment("kept"), approve=True) == []
        assert environment.live(deployment("removed")) is not None
        proxied._rules.clear()
        assert list(outcomes(environment.run(deployment("kept")))) == ["HTTPRoute/churn", "Deployment/removed"]

    @pytest.mark.parametrize("verb", ["list", "get"])
    def test_keeps_in_mind_what_somebody_has_deleted_of_it(
        self, environment: Environment, proxied: FaultProxy, api: Api, verb: str
    ) -> None:
        """`drift: report`: it stays deleted, also where nobody can say for a while that it is."""

        def gone() -> frozenset[ObjectId]:
            stored = observe.inventories(environment.writer)[environment.name]
            assert stored is not None
            return stored.gone

        def run() -> None:
            manifests = [environment.namespace(), *map(environment.manifest, MAPS[:2])]
            environment.plan(manifests, reports_drift=True)
            environment.observed = replace(environment.observed, vanished=vanished)
            changes, guards = plan.environment(environment.wanted, environment.observed)
            environment.carry_out(plan.assemble(changes, (), guards), manifests)

        environment.run(*MAPS[:2])
        target = environment.manifest(MAPS[0]).id
        assert api("DELETE", f"/api/v1/namespaces/{environment.name}/configmaps/{target.name}").status == 200
        vanished = frozenset({target})
        run()
        assert gone() == {target}
        vanished = frozenset()  # a process that has not seen it
        path = rf"/{environment.name}/configmaps" + (r"\?" if verb == "list" else f"/{target.name}$")
        words = forbidden(verb, "configmaps", "", environment.name)
        proxied.inject(answer(403, words), method="GET", path=path, times=ALWAYS)
        run()
        assert gone() == {target}
        proxied._rules.clear()
        run()
        assert environment.live(MAPS[0]) is None

    def test_keeps_the_inventory_of_an_environment_that_nobody_wants(
        self, environment: Environment, proxied: FaultProxy
    ) -> None:
        environment.run(config_map("map"), disruption_budget("pdb"))
        self.forbid(environment, proxied)
        made = environment.plan([], in_specs=False)
        environment.carry_out(made, [])
        assert inventory.from_config_map(environment.writer.get(inventory.object_id_of(environment.name)) or {}).places


def test_a_run_tells_of_what_it_may_not_see_where_it_wants_nothing(kubeconfig: Path, tmp_path: Path) -> None:
    """In a plan that is said of each object; of a kind that nobody wants, there is none to say it of."""
    spec = "api_version: v1\nspec: {environments: [{name: blind, data_plane: embedded}]}\n"
    (tmp_path / "environments.yaml").write_text(spec)
    with FaultProxy(kubeconfig) as proxy:
        words = forbidden("list", "deployments", "apps", "blind")
        proxy.inject(answer(403, words), method="GET", path="/namespaces/blind/deployments", times=ALWAYS)
        clusters = Clusters(tmp_path, str(proxy.kubeconfig(tmp_path / "kubeconfig")))
        request = reconcile.Request((tmp_path / "environments.yaml",), tmp_path, frozenset({"blind"}))
        report = reconcile.preview(request, clusters, clock)
        clusters.close()
    (told,) = report.trouble
    assert (told.where, str(words["message"]) in told.message) == ("environment blind", True), (told, report.problems)
    assert exit_code(report) is ExitCode.WORLD
