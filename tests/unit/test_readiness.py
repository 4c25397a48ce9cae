"""Readiness by kind, after kstatus."""

import pytest

from reconciler.readiness import State, of


def live(kind, status=None, *, generation=2, spec=None, **metadata):
    return {
        "kind": kind,
        "metadata": {"generation": generation, **metadata},
        "spec": spec or {},
        "status": status or {},
    }


def parent(**conditions):
    listed = [{"type": k, "status": v, "observedGeneration": 2, "reason": "R"} for k, v in conditions.items()]
    return {"parents": [{"parentRef": {"name": "gw"}, "conditions": listed}]}


READY = {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}
TWO = {"replicas": 2}

CASES = [
    ("nothing there", None, State.NOT_FOUND, "does not exist"),
    ("a deployment before its controller came", live("Deployment", spec=TWO), State.IN_PROGRESS, "no controller"),
    (
        "a deployment that is stale",
        live("Deployment", READY | {"observedGeneration": 1}, spec=TWO),
        State.IN_PROGRESS,
        "not seen",
    ),
    (
        "a deployment with new pods missing",
        live("Deployment", READY | {"updatedReplicas": 1}, spec=TWO),
        State.IN_PROGRESS,
        "1 of 2 pods are of the new",
    ),
    (
        "a deployment with old pods left",
        live("Deployment", READY | {"replicas": 3}, spec=TWO),
        State.IN_PROGRESS,
        "1 pods of the old",
    ),
    (
        "a deployment with pods that do not answer",
        live("Deployment", READY | {"availableReplicas": 0}, spec=TWO),
        State.IN_PROGRESS,
        "0 of 2",
    ),
    ("a deployment that is ready", live("Deployment", READY, spec=TWO), State.CURRENT, "2 of 2"),
    (
        "a deployment scaled to zero",
        live("Deployment", {"observedGeneration": 2}, spec={"replicas": 0}),
        State.CURRENT,
        "0 of 0",
    ),
    (
        "a deployment that gave up",
        live(
            "Deployment",
            READY | {"conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded", "message": "late"}]},
            spec=TWO,
        ),
        State.FAILED,
        "late",
    ),
    ("a job that waits", live("Job"), State.IN_PROGRESS, "not started"),
    ("a job that runs", live("Job", {"active": 1}), State.IN_PROGRESS, "it runs"),
    ("a job in its queue", live("Job", spec={"suspend": True}), State.IN_PROGRESS, "suspended"),
    (
        "a job that is done",
        live("Job", {"conditions": [{"type": "Complete", "status": "True"}]}),
        State.CURRENT,
        "complete",
    ),
    (
        "a job that failed",
        live("Job", {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}),
        State.FAILED,
        "BackoffLimitExceeded",
    ),
    ("a route before its gateway came", live("HTTPRoute"), State.IN_PROGRESS, "no gateway"),
    (
        "a route that is accepted",
        live("HTTPRoute", parent(Accepted="True", ResolvedRefs="True")),
        State.CURRENT,
        "accepted",
    ),
    (
        "a route without its backend",
        live("HTTPRoute", parent(Accepted="True", ResolvedRefs="False")),
        State.FAILED,
        "gw: R",
    ),
    (
        "a route half taken",
        live("HTTPRoute", parent(Accepted="True", ResolvedRefs="True", PartiallyInvalid="True")),
        State.FAILED,
        "gw",
    ),
    ("a route half judged", live("HTTPRoute", parent(Accepted="True")), State.IN_PROGRESS, "ResolvedRefs"),
    (
        "a route judged as it was before",
        live("HTTPRoute", parent(Accepted="True", ResolvedRefs="True"), generation=3),
        State.IN_PROGRESS,
        "newest",
    ),
    (
        "a scaled object that is refused",
        live("ScaledObject", {"conditions": [{"type": "Ready", "status": "False", "reason": "X"}]}),
        State.FAILED,
        "X",
    ),
    ("a namespace", live("Namespace", {"phase": "Active"}), State.CURRENT, ""),
    ("a namespace that goes", live("Namespace", {"phase": "Terminating"}), State.TERMINATING, "Terminating"),
    ("an object that goes", live("Service", deletionTimestamp="t", finalizers=["a/b"]), State.TERMINATING, "a/b"),
    ("a kind without a rule", live("ConfigMap"), State.CURRENT, ""),
]


@pytest.mark.parametrize(("body", "state", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_readiness_of(body, state, words):
    found = of(body)
    assert found.state is state
    assert words in found.message


def test_a_gateway_is_ready_when_it_is_programmed_as_it_is_now():
    gateway = {"kind": "Gateway", "metadata": {"generation": 2}, "status": {}}
    assert of(gateway).state is State.IN_PROGRESS
    seen = {"type": "Programmed", "status": "False", "reason": "AddressNotUsable", "message": "the port is taken"}
    gateway["status"] = {"conditions": [seen | {"observedGeneration": 2}]}
    assert of(gateway).message == "AddressNotUsable: the port is taken"
    gateway["status"] = {"conditions": [seen | {"observedGeneration": 1, "status": "True"}]}
    assert of(gateway).state is State.IN_PROGRESS
    gateway["status"] = {"conditions": [seen | {"observedGeneration": 2, "status": "True"}]}
    assert of(gateway).state is State.CURRENT


def test_a_policy_fails_only_where_a_gateway_refuses_it():
    policy = {"kind": "SecurityPolicy", "metadata": {"generation": 1}}
    assert of(policy).state is State.CURRENT, "nobody reports it before its route is there"
    refused = {"type": "Accepted", "status": "False", "reason": "Invalid", "message": "no such service"}
    policy["status"] = {"ancestors": [{"conditions": [refused | {"observedGeneration": 1}]}]}
    assert of(policy) == (State.FAILED, "Invalid: no such service")
    policy["status"] = {"ancestors": [{"conditions": [refused | {"observedGeneration": 0}]}]}
    assert of(policy).state is State.CURRENT


def test_a_route_of_which_a_gateway_does_not_know_yet_is_waited_for():
    condition = {"type": "Accepted", "status": "Unknown", "reason": "Pending", "message": "Envoy starts"}
    parent = {"parentRef": {"name": "trueup"}, "conditions": [condition | {"observedGeneration": 1}]}
    route = {"kind": "HTTPRoute", "metadata": {"generation": 1}, "status": {"parents": [parent]}}
    assert of(route) == (State.IN_PROGRESS, "trueup: Pending: Envoy starts")
