"""The chart in a cluster: accepted by API servers, and installed, upgraded and removed by Helm in a real one.

The judge of roles (tests/contract/rbac.py) is held against the real server's own judgement here.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import pytest

from reconciler import inventory
from tests.contract import helm
from tests.contract.client import Answer, Api, config_map, eventually
from tests.contract.helm import CASES, EVERYTHING, Body, rendered
from tests.contract.rbac import EVERYBODY, Request, Roles, Rule, request_of

RESTRICTED = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}


def moved(values: dict[str, Any], namespace: str) -> dict[str, Any]:
    """Values whose environments are in namespaces of this test, and whose objects have names of its own."""
    environments = [one | {"namespace": f"{namespace}-{one['name']}"} for one in values.get("environments", ())]
    return values | {"environments": environments, "fullnameOverride": f"trueup-{namespace}"}


def path_of(api: Api, body: Body) -> str | None:
    """Where the object is on this server; None where it does not have the kind."""
    version, namespace = body["apiVersion"], body["metadata"].get("namespace")
    prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
    served = api("GET", prefix)
    found = served.body["resources"] if served.status == 200 else []
    plurals = [one["name"] for one in found if one["kind"] == body["kind"] and "/" not in one["name"]]
    if not plurals:
        return None
    return f"{prefix}{f'/namespaces/{namespace}' if namespace else ''}/{plurals[0]}/{body['metadata']['name']}"


@pytest.fixture
def restricted(api: Api, namespace: str) -> str:
    """The namespace of this test, which takes no pod that the profile `restricted` does not allow."""
    path = f"/api/v1/namespaces/{namespace}"
    answer = api("PATCH", path, RESTRICTED, content_type="application/merge-patch+json")
    assert answer.status == 200, answer.body
    return namespace


@pytest.mark.parametrize("case", CASES)
def test_an_api_server_accepts_every_object(case: str, api: Api, restricted: str, tmp_path: Path) -> None:
    values = moved(CASES[case], restricted)
    bodies = rendered(values, namespace=restricted, chart=helm.chart_for(restricted, tmp_path))
    for body in bodies:
        if body["kind"] == "Namespace":
            assert api.apply(f"/api/v1/namespaces/{body['metadata']['name']}", body).status == 201
    refused, unknown = [], set()
    for body in bodies:
        path = path_of(api, body)
        if path is None:
            unknown.add(body["kind"])
            continue
        answer = api.apply(path, body, query="&dryRun=All&fieldValidation=Strict")
        if answer.status not in (200, 201) or "warning" in answer.headers:
            refused.append((path, answer.status, answer.body, answer.headers.get("warning")))
    for body in bodies:
        if body["kind"] == "Namespace":
            api("DELETE", f"/api/v1/namespaces/{body['metadata']['name']}")

    assert refused == []
    # The embedded server has what it acts on: nobody else's account works on it.
    assert api.plane == "embedded" or unknown == set()


def test_a_pod_of_the_deployment_is_let_into_a_restricted_namespace(api: Api, restricted: str, tmp_path: Path) -> None:
    only_real(api)
    chart = helm.chart_for(restricted, tmp_path)
    template = helm.found(rendered(EVERYTHING, namespace=restricted, chart=chart), "Deployment")["spec"]["template"]
    metadata = template["metadata"] | {"name": "as-in-the-deployment", "namespace": restricted}
    pod = template | {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
    del pod["spec"]["priorityClassName"]  # is for kube-system alone
    path = f"/api/v1/namespaces/{restricted}/pods"
    answer = api("POST", f"{path}?dryRun=All", pod)
    assert (answer.status, "warning" in answer.headers) == (201, False), answer.body

    loose = copy.deepcopy(pod)
    del loose["spec"]["containers"][0]["securityContext"]["capabilities"]
    answer = api("POST", f"{path}?dryRun=All", loose)
    assert answer.status == 403
    assert 'violates PodSecurity "restricted:latest": unrestricted capabilities' in answer.body["message"]


# -- installed --------------------------------------------------------------------------------------------------------


def only_real(api: Api) -> None:
    if api.plane != "real":
        pytest.skip("the embedded server has one user, who may do everything, and neither roles nor flow control")


class Installed:
    """The chart, installed by Helm in the namespace of one test."""

    def __init__(self, api: Api, namespace: str, folder: Path) -> None:
        self.api, self.namespace = api, namespace
        self.chart = helm.chart_for(namespace, folder)
        self.values = moved(EVERYTHING, namespace)
        self.name = str(self.values["fullnameOverride"])
        self.user = f"system:serviceaccount:{namespace}:{self.name}"
        self.staging = f"{namespace}-staging"
        self.models = f"{namespace}-production"
        self.config = helm_python.Config(kubeconfig_path=api.kubeconfig, namespace=namespace)

    def install(self, values: dict[str, Any]) -> None:
        self.config.install(self.chart, "trueup", self.values | values, namespace=self.namespace, timeout=60)

    def upgrade(self, values: dict[str, Any]) -> None:
        self.config.upgrade(self.chart, "trueup", self.values | values, namespace=self.namespace, timeout=60)

    def ask(self, method: str, path: str, body: Any = None, *, content_type: str = "application/json") -> Answer:
        """A request of the reconciler, by its account."""
        headers = {"Impersonate-User": self.user}
        return self.api(method, path, body, content_type=content_type, headers=headers)

    def apply(self, path: str, body: Body) -> Answer:
        return self.ask("PATCH", f"{path}?fieldManager=trueup", body, content_type="application/apply-patch+yaml")

    def roles(self) -> Roles:
        bodies = rendered(self.values, namespace=self.namespace, chart=self.chart)
        return Roles.of(bodies, self.name, self.namespace)

    def remove(self) -> None:
        self.config.uninstall("trueup", ignore_not_found=True, timeout=60)
        self.config.close()
        for namespace in (self.staging, self.models):
            self.api("DELETE", f"/api/v1/namespaces/{namespace}")


@pytest.fixture
def chart(api: Api, namespace: str, tmp_path: Path) -> Iterator[Installed]:
    only_real(api)
    installed = Installed(api, namespace, tmp_path)
    yield installed
    installed.remove()


@pytest.fixture
def installed(chart: Installed) -> Installed:
    """With everything on."""
    chart.install({})
    # Roles have effect some time after they were stored.
    eventually(lambda: chart.ask("GET", f"/api/v1/namespaces/{chart.models}/services").status == 200)
    eventually(lambda: chart.ask("GET", f"/apis/trueup.dev/v1/namespaces/{chart.namespace}/builds").status == 200)
    return chart


def test_helm_installs_upgrades_and_removes_it_and_leaves_the_environments(chart: Installed, api: Api) -> None:
    def there(path: str) -> bool:
        return api("GET", path).status == 200

    staging, production = chart.values["environments"]
    names = {
        "deployment": f"/apis/apps/v1/namespaces/{chart.namespace}/deployments/{chart.name}",
        "policy": f"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/{chart.name}-approvals",
        "level": f"/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations/{chart.name}",
    }
    chart.install({"environments": [staging]})
    assert {name: there(path) for name, path in names.items()} == dict.fromkeys(names, True)
    assert not there(f"/api/v1/namespaces/{chart.models}")
    metadata = api("GET", f"/api/v1/namespaces/{chart.staging}").body["metadata"]
    assert metadata["labels"] == {"kubernetes.io/metadata.name": chart.staging}
    kept = f"/api/v1/namespaces/{chart.staging}/configmaps/kept"
    assert api.apply(kept, config_map("kept")).status == 201

    chart.upgrade({"environments": [staging, production]})
    uid = api("GET", f"/api/v1/namespaces/{chart.staging}").body["metadata"]["uid"]
    assert (uid, there(f"/api/v1/namespaces/{chart.models}"), there(kept)) == (metadata["uid"], True, True)

    chart.config.uninstall("trueup", timeout=60)
    assert {name: there(path) for name, path in names.items()} == dict.fromkeys(names, False)
    assert there(kept)
    assert there(f"/api/v1/namespaces/{chart.models}")
    # And again over what is there.
    chart.install({"environments": [staging, production]})
    assert api("GET", f"/api/v1/namespaces/{chart.staging}").body["metadata"]["uid"] == metadata["uid"]


def test_where_an_administrator_makes_namespaces_a_missing_one_is_named(chart: Installed) -> None:
    sentence = f"the namespace {chart.staging} of the environment staging does not exist: `kubectl create namespace"
    with pytest.raises(helm_python.HelmError, match=sentence):
        chart.install({"namespaces": {"create": False}})


def sample(chart: Installed) -> Iterator[Request]:
    """Requests that differ from each other in everything that roles look at."""
    names = (
        "",
        "trueup-staging",
        "trueup.status",
        "other",
        "git-token",
        "push",
        "trueup",
        chart.staging,
        "kube-system",
    )
    resources = (
        *(("", one) for one in ("configmaps", "secrets", "pods", "events", "namespaces", "serviceaccounts")),
        *(("apps", "deployments"), ("apps", "daemonsets"), ("batch", "jobs"), ("rbac.authorization.k8s.io", "roles")),
        *(("gateway.networking.k8s.io", "gateways"), ("coordination.k8s.io", "leases"), ("trueup.dev", "promotions")),
    )
    for namespace in (chart.namespace, chart.staging, chart.models, "default", ""):
        for group, resource in resources:
            for name in names:
                for verb in ("get", "list", "create", "patch", "update", "delete") if name else ("list", "create"):
                    yield Request(verb, group, resource, "", namespace, name)
    yield Request("update", "trueup.dev", "promotions", "status", chart.namespace, "p")
    yield Request("get", "", "pods", "log", chart.models, "p")
    yield request_of("GET", "/metrics")
    yield request_of("GET", "/version")


def test_the_server_judges_each_request_as_our_judge_does(installed: Installed, api: Api) -> None:
    """By a few reviews of all rules that an account has in a namespace, and by a review for each of some requests."""
    judge = installed.roles()
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{installed.namespace}", "system:authenticated"]

    def allowed(request: Request) -> bool:
        if request.path:
            asked: Body = {"nonResourceAttributes": {"path": request.path, "verb": request.verb}}
        else:
            given = request._asdict()
            del given["path"]
            asked = {"resourceAttributes": {key: value for key, value in given.items() if value}}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": asked | {"user": installed.user, "groups": groups},
        }
        return bool(api("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body).body["status"]["allowed"])

    every = list(sample(installed))
    some = [request for number, request in enumerate(every) if judge.allows(request) or number % 7 == 0]
    differing = [str(request) for request in some if judge.allows(request) is not allowed(request)]
    assert differing == []
    assert 80 < sum(map(judge.allows, some)) < len(some) - 80


def test_the_server_knows_the_rules_that_our_judge_knows_and_no_others(installed: Installed) -> None:
    judge = installed.roles()

    def flat(rules: list[Rule]) -> set[tuple[str, str, str, str]]:
        return {
            (verb, group, resource, name)
            for rule in rules
            for verb in rule.verbs
            for group in rule.groups
            for resource in rule.resources
            for name in rule.names or {""}
        }

    for namespace in (installed.namespace, installed.staging, installed.models, "default"):
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": namespace},
        }
        status = installed.ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", body).body["status"]
        assert status["incomplete"] is False
        theirs = flat([Rule.of(rule) for rule in status["resourceRules"]])
        ours = flat([bound.rule for bound in judge.bound if bound.namespace in ("", namespace)])
        assert theirs == ours | flat(list(EVERYBODY))


def test_an_apply_may_create_what_the_role_names_and_nothing_else(installed: Installed) -> None:
    maps = f"/api/v1/namespaces/{installed.namespace}/configmaps"
    environment = installed.values["environments"][0]["name"]
    for name, status in ((inventory.name_of(environment), 201), ("trueup.status", 201), ("trueup-other", 403)):
        assert installed.apply(f"{maps}/{name}", config_map(name)).status == status
    refused = installed.ask("POST", maps, config_map("trueup.status"))
    assert (refused.status, "cannot create resource" in refused.body["message"]) == (403, True)

    namespace = f"{installed.namespace}-new"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    assert installed.apply(f"/api/v1/namespaces/{namespace}", body).status == 403


def test_its_requests_have_a_place_of_their_own_and_the_lease_has_another(installed: Installed, api: Api) -> None:
    schemas = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas"
    work, lease = (api("GET", f"{schemas}/{name}").body for name in (installed.name, f"{installed.name}-lease"))
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{installed.namespace}/leases/trueup"

    def classified(path: str) -> str:
        return installed.ask("GET", path).headers["x-kubernetes-pf-flowschema-uid"]

    # A schema is obeyed some time after it was stored.
    eventually(lambda: classified("/version") == work["metadata"]["uid"])
    eventually(lambda: classified(leases) == lease["metadata"]["uid"])
    assert classified(f"/apis/apps/v1/namespaces/{installed.models}/deployments") == work["metadata"]["uid"]
    for schema in (work, lease):
        [dangling] = [one for one in schema["status"]["conditions"] if one["type"] == "Dangling"]
        assert dangling["status"] == "False"
