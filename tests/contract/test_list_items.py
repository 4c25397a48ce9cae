"""What somebody puts into lists that we state. The server knows their items by keys: another port is another item."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from reconciler import owners, plan
from reconciler.cluster import Stale
from reconciler.plan import Op
from reconciler.report import Outcome
from renderers.manifest import Body
from tests.contract.client import Api, deployment
from tests.contract.test_apply import Environment, environment, kubeconfig, outcomes

__all__ = ["environment", "kubeconfig"]  # fixtures

SERVICE: Body = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "churn"},
    "spec": {"selector": {"app": "churn"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
}
DEPLOYMENT = deployment("churn")
CONTAINERS = ("spec", "template", "spec", "containers")


def at(body: Body, *path: str) -> Any:
    for step in path:
        body = body[step]
    return body


def edit(api: Api, environment: Environment, body: Body, manager: str, **changed: Any) -> None:
    """Somebody writes the whole object back, with this changed: `spec__ports=`, a value or what makes it."""
    live = environment.live(body)
    assert live is not None
    del live["metadata"]["resourceVersion"]  # whatever a controller has written into it meanwhile
    for path, value in changed.items():
        *way, last = path.split("__")
        at(live, *way)[last] = value(at(live, *way)[last]) if callable(value) else value
    group = "/api/v1" if body["kind"] == "Service" else "/apis/apps/v1"
    path = f"{group}/namespaces/{environment.name}/{body['kind'].lower()}s/{body['metadata']['name']}"
    answer = api("PUT", f"{path}?fieldManager={manager}", live)
    assert answer.status == 200, answer.body


def port(number: int) -> Any:
    return lambda ports: [ports[0] | {"port": number}]


def renamed(name: str) -> Any:
    return lambda items: [items[0] | {"name": name}]


def change_of(environment: Environment, body: Body) -> plan.Change:
    """What a run would do with it."""
    made = environment.plan([environment.namespace(), environment.manifest(body)])
    return next(change for change in made.changes if change.id.kind == body["kind"])


def assert_mended(environment: Environment, body: Body, path: tuple[str, ...]) -> None:
    """A run brings back what was there, to the last item; the next one finds nothing to do."""
    environment.run(body)
    assert environment.run(body) == []
    assert change_of(environment, body).op is Op.UNCHANGED
    live = environment.live(body)
    assert live is not None
    mine = [set(one) & {"name", "port"} for one in at(body, *path)]
    assert [{key: one[key] for key in keys} for one, keys in zip(at(live, *path), mine, strict=True)] == [
        {key: one[key] for key in keys} for one, keys in zip(at(body, *path), mine, strict=True)
    ]


def test_a_port_with_another_number_is_drift_that_names_who_did_it_and_is_mended(
    environment: Environment, api: Api
) -> None:
    environment.run(SERVICE)
    edit(api, environment, SERVICE, "kubectl-edit", spec__ports=port(81))
    change = change_of(environment, SERVICE)
    assert (change.op, change.drift, change.by) == (Op.CHANGE, True, "kubectl-edit")
    assert change.reason == 'takes .spec.ports[port=81,protocol="TCP"] over from kubectl-edit'
    assert ("spec.ports[http].port", 81, 80) in [tuple(field) for field in change.fields]
    assert outcomes(environment.run(SERVICE)) == {"Service/churn": Outcome.APPLIED}
    assert_mended(environment, SERVICE, ("spec", "ports"))


def test_a_port_that_a_program_has_changed_is_a_conflict_that_names_it(environment: Environment, api: Api) -> None:
    environment.run(SERVICE)
    edit(api, environment, SERVICE, "mesh-operator", spec__ports=port(81))
    change = change_of(environment, SERVICE)
    assert (change.op, change.reason) == (Op.CONFLICT, '.spec.ports[port=81,protocol="TCP"] belongs to mesh-operator')
    assert environment.run(SERVICE) == []
    live = environment.live(SERVICE)
    assert live is not None
    assert [one["port"] for one in live["spec"]["ports"]] == [81]


def test_a_renamed_container_does_not_stay_beside_ours(environment: Environment, api: Api) -> None:
    environment.run(DEPLOYMENT)
    edit(api, environment, DEPLOYMENT, "kubectl-edit", spec__template__spec__containers=renamed("theirs"))
    change = change_of(environment, DEPLOYMENT)
    assert (change.op, change.drift) == (Op.CHANGE, True)
    assert any(field.path.endswith("containers[theirs]") and field.new is None for field in change.fields)
    assert_mended(environment, DEPLOYMENT, CONTAINERS)


def test_a_renamed_container_is_mended_by_one_rollout(environment: Environment, api: Api) -> None:
    """Ours beside theirs would be one, with pods of both, and ours alone another."""
    environment.run(DEPLOYMENT)
    edit(api, environment, DEPLOYMENT, "kubectl-edit", spec__template__spec__containers=renamed("theirs"))
    before = environment.live(DEPLOYMENT)
    environment.run(DEPLOYMENT)
    after = environment.live(DEPLOYMENT)
    assert before is not None
    assert after is not None
    assert [one["name"] for one in at(after, *CONTAINERS)] == [one["name"] for one in at(DEPLOYMENT, *CONTAINERS)]
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1


def test_what_a_program_owns_as_well_stays_and_is_not_told_as_mended(environment: Environment, api: Api) -> None:
    environment.run(DEPLOYMENT)
    more = {"name": "proxy", "image": "registry.example/proxy:1"}
    edit(api, environment, DEPLOYMENT, "kubectl-patch", spec__template__spec__containers=lambda ours: [*ours, more])
    spec = {"selector": DEPLOYMENT["spec"]["selector"], "template": {"spec": {"containers": [more]}}}
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": spec}
    path = f"/apis/apps/v1/namespaces/{environment.name}/deployments/{DEPLOYMENT['metadata']['name']}"
    assert api.apply(path, body, manager="mesh-injector").status == 200
    assert change_of(environment, DEPLOYMENT).op is Op.UNCHANGED
    assert environment.run(DEPLOYMENT) == []


def test_what_a_person_has_added_beside_ours_goes_and_what_a_program_has_added_stays(
    environment: Environment, api: Api
) -> None:
    environment.run(DEPLOYMENT)
    sidecar = {"name": "proxy", "image": "registry.example/proxy:1"}
    edit(api, environment, DEPLOYMENT, "mesh-injector", spec__template__spec__containers=lambda ours: [*ours, sidecar])
    assert environment.run(DEPLOYMENT) == []
    assert change_of(environment, DEPLOYMENT).op is Op.UNCHANGED
    more = {"name": "debug", "image": "registry.example/debug:1"}
    edit(api, environment, DEPLOYMENT, "kubectl-patch", spec__template__spec__containers=lambda all_: [*all_, more])
    assert outcomes(environment.run(DEPLOYMENT)) == {"Deployment/churn": Outcome.APPLIED}
    live = environment.live(DEPLOYMENT)
    assert live is not None
    names = [one["name"] for one in at(live, *CONTAINERS)]
    assert names == [*(one["name"] for one in at(DEPLOYMENT, *CONTAINERS)), "proxy"]


def test_what_else_a_person_has_changed_stays_theirs(environment: Environment, api: Api) -> None:
    environment.run(SERVICE)
    edit(
        api, environment, SERVICE, "kubectl-edit", spec__ports=port(81), metadata__annotations=lambda a: a | {"x": "y"}
    )
    assert_mended(environment, SERVICE, ("spec", "ports"))
    live = environment.live(SERVICE)
    assert live is not None
    assert live["metadata"]["annotations"]["x"] == "y"
    (theirs,) = (one for one in live["metadata"]["managedFields"] if one["manager"] == "kubectl-edit")
    assert theirs["fieldsV1"] == {"f:metadata": {"f:annotations": {"f:x": {}}}}


def test_a_run_that_ended_halfway_is_finished_by_the_next_one(environment: Environment, api: Api) -> None:
    environment.run(SERVICE)
    edit(api, environment, SERVICE, "kubectl-edit", spec__ports=port(81))
    manifest, live = environment.manifest(SERVICE), environment.live(SERVICE)
    assert live is not None
    managed_fields = owners.taken_over(live, manifest.body, plan.is_human)
    assert managed_fields is not None
    environment.writer.own(live, managed_fields)
    assert_mended(environment, SERVICE, ("spec", "ports"))


def test_nothing_is_taken_over_for_a_spec_that_the_server_would_not_take_anyway(
    environment: Environment, api: Api
) -> None:
    environment.run(SERVICE)
    edit(api, environment, SERVICE, "kubectl-edit", spec__ports=port(81))
    bad = copy.deepcopy(SERVICE)
    bad["spec"]["ports"][0]["port"] = 99_999
    change = change_of(environment, bad)
    assert change.op is Op.REFUSED
    assert "99999" in change.reason


def test_a_change_of_the_object_meanwhile_is_not_overwritten(environment: Environment, api: Api) -> None:
    environment.run(SERVICE)
    edit(api, environment, SERVICE, "kubectl-edit", spec__ports=port(81))
    old = environment.live(SERVICE)
    assert old is not None
    edit(api, environment, SERVICE, "kubectl-edit", spec__ports=port(82))
    managed_fields = owners.taken_over(old, environment.manifest(SERVICE).body, plan.is_human)
    assert managed_fields is not None
    with pytest.raises(Stale):
        environment.writer.own(old, managed_fields)
