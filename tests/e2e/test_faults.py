"""An API server that fails in every way it can, in the middle of a run: what the run says, and how it is mended."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.contract.client import Api
from tests.contract.faults import Fault, FaultProxy, Seen, answer, cut, drop, lose
from tests.e2e.harness import FULL, Plane, Run, after, before, forget, members, state


def status(code: int, reason: str, message: str, **details: Any) -> dict[str, Any]:
    """An error as kube-apiserver words it."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "reason": reason,
        "message": message,
        "details": details,
        "code": code,
    }


def conflict(manager: str) -> dict[str, Any]:
    words = f'conflict with "{manager}" using apps/v1'
    cause = {"reason": "FieldManagerConflict", "message": words, "field": ".spec.replicas"}
    message = f"Apply failed with 1 conflict: {words}: .spec.replicas"
    return status(409, "Conflict", message, causes=[cause])


RBAC = 'deployments.apps is forbidden: User "trueup" cannot patch resource "deployments" in API group "apps"'
QUOTA = 'pods "x" is forbidden: exceeded quota: team, requested: count/jobs.batch=1, used: 9, limited: 9'
NEGATIVE = 'Deployment.apps "x" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0'
WEBHOOK = 'Internal error occurred: failed calling webhook "check.example.com": failed to call webhook: timed out'
OVERLOADED = "the server has received too many requests and has asked us to try again later"
STALE = 'Operation cannot be fulfilled on services "x": the object has been modified'

ANSWERS: dict[str, Fault] = {
    "401": answer(401, status(401, "Unauthorized", "Unauthorized")),
    "403": answer(403, status(403, "Forbidden", RBAC)),
    "403 quota": answer(403, status(403, "Forbidden", QUOTA)),
    "404 kind": answer(404, "404 page not found\n"),
    "409 controller": answer(409, conflict("keda-operator")),
    "409 kubectl": answer(409, conflict("kubectl-edit")),
    "409 changed": answer(409, status(409, "Conflict", STALE, kind="services")),
    "422": answer(
        422, status(422, "Invalid", NEGATIVE, causes=[{"reason": "FieldValueInvalid", "field": "spec.replicas"}])
    ),
    "429": answer(429, status(429, "TooManyRequests", OVERLOADED, retryAfterSeconds=1), Retry_After="1"),
    "500": answer(500, status(500, "InternalError", WEBHOOK)),
    "503": answer(503, "upstream connect error or disconnect/reset before headers"),
    "a reset": drop(),
    "a reset after it was done": lose(),
    "half an answer": cut(),
}

#: Requests of a run by what they are for: method and path. A run that applies makes no dry run of what is new.
REQUESTS: dict[str, tuple[str, str]] = {
    "discovery": ("GET", r"^/apis/apps/v1$"),
    "the kind of routes": ("GET", r"^/apis/gateway.networking.k8s.io/v1$"),
    "inventories": ("GET", r"^/api/v1/namespaces/trueup-system/configmaps\?"),
    "members": ("GET", r"/deployments\?.*part-of"),
    "dry run": ("PATCH", r"/deployments/.*dryRun=All"),
    "inventory": ("PATCH", r"^/api/v1/namespaces/trueup-system/configmaps/trueup-prod"),
    "namespace": ("PATCH", r"^/api/v1/namespaces/prod\?"),
    "deployment": ("PATCH", r"/deployments/churn-default-\w+\?(?!.*dryRun)"),
    "job": ("PATCH", r"/jobs/"),
    "route": ("PATCH", r"/httproutes/(?!.*dryRun)"),
    "every write": ("PATCH", ""),
    "deletion": ("DELETE", r"/services/"),
}


class Case(NamedTuple):
    """A fault, where it strikes and how often; the exit code of that run, and words of the sentence that says why."""

    fault: str
    where: str
    times: int
    code: int
    words: str

    def __str__(self) -> str:
        return f"{self.fault} for {self.where}"


ALWAYS = 1000
CASES = [
    Case("401", "every write", ALWAYS, 3, "Log in to the cluster again"),
    Case("403", "inventories", ALWAYS, 3, "! environments elsewhere, prod: .*Grant it in the role"),
    Case("403", "deployment", ALWAYS, 3, "Grant it in the role of this account"),
    Case("403 quota", "job", ALWAYS, 1, "Raise the quota, or ask for less"),
    Case("404 kind", "the kind of routes", ALWAYS, 3, "Install the CustomResourceDefinition"),
    Case("409 controller", "deployment", ALWAYS, 4, "keda-operator"),
    Case("409 kubectl", "deployment", 1, 0, "Done: 16 applied"),
    Case("409 changed", "deployment", 1, 0, "Done: 16 applied"),
    Case("409 changed", "deletion", 1, 0, "4 deleted"),
    Case("422", "deployment", ALWAYS, 1, "must be greater than or equal to 0"),
    Case("429", "namespace", 1, 0, "Done: 16 applied"),
    Case("500", "route", ALWAYS, 3, "failed calling webhook"),
]
#: Requests that only a run makes that changes something.
CHANGING = ("dry run", "deletion")
NAMED = {(case.fault, case.where) for case in CASES}
#: All faults in all places, once, whether it is repeated then or refused; and some of them where time is short.
ONCE = [pair for pair in itertools.product(ANSWERS, REQUESTS) if pair not in NAMED][:: 1 if FULL else 31]


@pytest.fixture(scope="module")
def api(plane: Plane) -> Iterator[Api]:
    client = plane.api()
    yield client
    client.close()


@pytest.fixture(scope="module")
def right(plane: Plane, api: Api) -> dict[Callable[[str], str], dict[str, Any]]:
    """What runs of these specs end with that nobody disturbs."""
    ends = {}
    for specs in (before, after):
        plane.write("specs/a.yaml", specs("prod"))
        assert plane.reconcile().code == 0
        ends[specs] = state(api, "prod")
    forget(api, "prod")
    return ends


def disturbed(plane: Plane, proxy: FaultProxy) -> Run:
    run = plane.reconcile("--kubeconfig", proxy.kubeconfig(plane.folder / "proxy"), timeout=100)
    assert not run.err, "a sentence in the report, and no traceback"
    return run


def specs_for(plane: Plane, where: str) -> Callable[[str], str]:
    """Writes specs whose run makes such a request."""
    if where in CHANGING:
        plane.write("specs/a.yaml", before("prod"))
        assert plane.reconcile().code == 0
        specs = after
    else:
        specs = before
    plane.write("specs/a.yaml", specs("prod"))
    return specs


@pytest.mark.usefixtures("name")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_run_meets(plane: Plane, api: Api, right: Any, case: Case):
    specs = specs_for(plane, case.where)
    method, path = REQUESTS[case.where]
    with FaultProxy(plane.kubeconfig) as proxy:
        proxy.inject(ANSWERS[case.fault], method=method, path=path, times=case.times)
        run = disturbed(plane, proxy)
        assert proxy.count(method, path) > 0, "the fault met nobody"
    assert run.code == case.code, run.text
    assert re.search(case.words, " ".join(run.out.split())), run.out
    assert ("Not everything is as the specs ask for" in run.out) is (run.code != 0)
    mended = plane.reconcile()
    assert mended.code == 0, mended.text
    assert state(api, "prod") == right[specs]


def test_what_a_server_warns_of_is_passed_on_once_and_beside_the_report(plane: Plane, name: str):
    plane.write("specs/a.yaml", before(name))
    none = {"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "1"}, "items": []}
    with FaultProxy(plane.kubeconfig) as proxy:
        words = "v1 ConfigMap goes \u202eaway, größer"  # what turns the writing direction around hides words
        warned = answer(200, none, Warning=f'299 - "{words}"'.encode().decode("latin-1"))
        proxy.inject(warned, method="GET", path="/namespaces/trueup-system/configmaps")
        kubeconfig = proxy.kubeconfig(plane.folder / "proxy")
        run = plane.reconcile("--dry-run", "--kubeconfig", kubeconfig, "-o", "json")
    assert run.code == 0
    assert run.data["plan"]["changes"], "the report is still one document"
    assert run.err.count("v1 ConfigMap goes") == 1
    assert run.err.startswith("warning: ")
    assert "\u202e" not in run.err
    assert "größer" in run.err


def test_one_refused_object_stops_what_needs_it_and_nothing_else(plane: Plane, api: Api, name: str):
    specs_for(plane, "deployment")
    with FaultProxy(plane.kubeconfig) as proxy:
        proxy.inject(ANSWERS["422"], method="PATCH", path="/deployments/churn-extra", times=ALWAYS)
        run = disturbed(plane, proxy)
    assert run.code == 1
    there = {key.rpartition("-")[0] or key for key in members(api, name)}
    assert {"Deployment/churn-default", "PodDisruptionBudget/churn-default", "Job/churn-build"} <= there
    assert there.isdisjoint({"Deployment/churn-extra", "PodDisruptionBudget/churn-extra"})
    assert "HTTPRoute/churn" not in there, "nobody would answer a part of the requests"


class Flaky(FaultProxy):
    """Meets every request with a fault when it comes for the first time; `every` n-th such request only."""

    def __init__(self, upstream: Path, fault: Fault, every: int) -> None:
        super().__init__(upstream)
        self.fault = fault
        self.every = every
        self.known: dict[tuple[str, str], None] = {}

    def fault_for(self, request: Seen) -> Fault | None:
        super().fault_for(request)
        key = (request.method, request.path)
        with self._lock:
            if key in self.known:
                return None
            self.known[key] = None
            return self.fault if len(self.known) % self.every == 0 else None


@pytest.mark.usefixtures("name")
@pytest.mark.parametrize("fault", ["500", "503", "a reset", "a reset after it was done", "half an answer"])
def test_nobody_notices_that_requests_have_to_be_repeated_after(plane: Plane, api: Api, right: Any, fault: str):
    specs_for(plane, "deletion")
    with Flaky(plane.kubeconfig, ANSWERS[fault], every=1 if FULL else 4) as proxy:
        run = disturbed(plane, proxy)
    assert run.code == 0, run.text
    assert state(api, "prod") == right[after]


@pytest.mark.usefixtures("name")
@pytest.mark.parametrize(("fault", "where"), ONCE)
def test_whatever_happens_once_the_next_run_mends(plane: Plane, api: Api, right: Any, fault: str, where: str):
    specs = specs_for(plane, where)
    method, path = REQUESTS[where]
    with FaultProxy(plane.kubeconfig) as proxy:
        proxy.inject(ANSWERS[fault], method=method, path=path)
        run = disturbed(plane, proxy)
        assert proxy.count(method, path) > 0, "the fault met nobody"
    assert run.code in (0, 1, 3, 4), run.text
    assert ("Not everything is as the specs ask for" in run.out) is (run.code != 0)
    mended = plane.reconcile()
    assert mended.code == 0, mended.text
    assert state(api, "prod") == right[specs]
