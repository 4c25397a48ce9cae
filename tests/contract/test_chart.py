"""The chart: what it renders, and what it refuses.

Rendered and linted by Helm's own engine; the objects are judged by Kubernetes' schemas and by the API servers of the
contract. Its roles are in test_chart_roles.py, its alerts in test_chart_alerts.py, an installation of it in
test_chart_installed.py.
"""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import typer
import yaml

from reconciler import inventory
from reconciler.cli import daemon
from tests.contract import helm
from tests.contract.client import ROOT
from tests.contract.helm import (
    CASES,
    CHART,
    ELSEWHERE,
    ENVIRONMENTS,
    EVERYTHING,
    MINIMUM,
    NAMESPACE,
    NOTHING,
    Body,
    found,
    lint,
    rendered,
)
from tests.contract.rbac import Roles, request_of


@pytest.fixture(params=CASES)
def values(request: pytest.FixtureRequest) -> dict[str, Any]:
    return CASES[request.param]


def kinds(bodies: list[Body]) -> list[str]:
    return sorted(body["kind"] for body in bodies)


def identities(bodies: list[Body]) -> set[tuple[str, str, str]]:
    return {(body["kind"], body["metadata"].get("namespace", ""), body["metadata"]["name"]) for body in bodies}


def arguments(bodies: list[Body]) -> list[str]:
    """What the reconciler is started with."""
    [container] = found(bodies, "Deployment")["spec"]["template"]["spec"]["containers"]
    return list(container["args"])


# -- what is rendered -----------------------------------------------------------------------------------------------


def test_helm_has_nothing_to_say_against_it(values: dict[str, Any]) -> None:
    assert lint(values) == []


def test_it_says_nothing_against_the_defaults_alone_either() -> None:
    assert lint({}) == []


def test_built_in_kinds_have_the_fields_of_their_openapi_schema(values: dict[str, Any]) -> None:
    version = kubernetes_validate.latest_version()
    for body in rendered(values):
        if not body["apiVersion"].startswith(("monitoring.coreos.com/", "gateway.networking.k8s.io/")):
            kubernetes_validate.validate(body, version, strict=True)


def test_with_everything_on_there_is_one_object_of_each_kind_that_is_asked_for() -> None:
    more = {"Ingress", "HTTPRoute", "ServiceMonitor", "PrometheusRule", "ConfigMap", "PriorityLevelConfiguration"}
    usual = {"Deployment", "Service", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy", "FlowSchema", "Pod"}
    policies = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    access = {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "Namespace"}
    assert set(kinds(rendered(EVERYTHING))) == more | usual | policies | access
    assert set(kinds(rendered(MINIMUM))) == (usual | policies | access) - {"Namespace"}


def test_with_everything_off_there_is_the_reconciler_and_its_account() -> None:
    assert kinds(rendered(NOTHING)) == ["Deployment", "Pod", "Service", "ServiceAccount"]


def test_elsewhere_there_are_an_account_and_its_roles_and_no_reconciler() -> None:
    bodies = rendered(ELSEWHERE)
    assert not {"Deployment", "Service", "Pod", "NetworkPolicy"} & set(kinds(bodies))
    assert found(bodies, "Secret", "trueup-token").keys() == {"apiVersion", "kind", "metadata", "type"}
    allowed = Roles.of(bodies, "trueup", NAMESPACE)
    assert allowed.allows(request_of("PATCH", "/apis/apps/v1/namespaces/models/deployments/churn"))
    assert allowed.allows(request_of("PATCH", f"/api/v1/namespaces/{NAMESPACE}/configmaps/trueup-production"))
    assert not allowed.allows(request_of("GET", f"/apis/trueup.dev/v1/namespaces/{NAMESPACE}/promotions"))
    assert not allowed.allows(request_of("PUT", f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/trueup"))


def test_no_object_has_the_value_of_a_secret(values: dict[str, Any]) -> None:
    for body in rendered(values):
        assert body["kind"] != "Secret" or not {"data", "stringData"} & body.keys()
    text = json.dumps(rendered(values))
    assert not re.search(r"ghp_|glpat-|AKIA|BEGIN [A-Z ]*PRIVATE KEY|password", text)


def test_secrets_are_named_to_the_reconciler_and_never_mounted() -> None:
    bodies = rendered(EVERYTHING)
    assert {"--git-secret=specs-git", "--signers-secret=signers", "--webhook-secret=push"} <= {*arguments(bodies)}
    pod = found(bodies, "Deployment")["spec"]["template"]["spec"]
    assert [next(iter(volume.keys() - {"name"})) for volume in pod["volumes"]] == ["emptyDir", "emptyDir", "configMap"]


def test_the_reconciler_is_told_what_the_values_say() -> None:
    application = typer.Typer()
    daemon.register(application)
    command = typer.main.get_command(application)
    name, *given = arguments(rendered(EVERYTHING))
    taken = command.make_context(name, given).params
    assert name == command.name
    given_to_it = {key: value for key, value in taken.items() if value}
    assert given_to_it.pop("home").as_posix() == "/var/lib/trueup"
    assert given_to_it == {
        "git": "git@git.example.com:ml/specs.git",
        "branch": "release/2026",
        "path": "platform/specs",
        "interval": 60.0,
        "git_secret": "specs-git",
        "signers_secret": "signers",
        "webhook_secret": "push",
        "webhook_address": "0.0.0.0:9292",
        "leader_elect": True,
        "address": "0.0.0.0:8080",
        "log_format": "console",
        "log_level": "debug",
        "environment": ["staging", "production", "eu"],
    }


def test_there_is_no_webhook_without_its_secret() -> None:
    bodies = rendered(MINIMUM)
    assert [port["name"] for port in found(bodies, "Service")["spec"]["ports"]] == ["http"]
    assert not any("webhook" in argument for argument in arguments(bodies))
    assert len(found(bodies, "NetworkPolicy")["spec"]["ingress"]) == 1


def test_a_digest_counts_more_than_a_tag_and_the_chart_knows_its_own_version() -> None:
    def image(**given: str) -> str:
        [container] = found(rendered(MINIMUM | {"image": given}), "Deployment")["spec"]["template"]["spec"][
            "containers"
        ]
        return str(container["image"])

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert image() == f"ghcr.io/trueup/reconciler:{version}"
    assert image(repository="registry.example.com:5000/trueup", tag="1.2.3") == "registry.example.com:5000/trueup:1.2.3"
    assert image(tag="1.2.3", digest=f"sha256:{'a' * 64}") == f"ghcr.io/trueup/reconciler@sha256:{'a' * 64}"


def test_the_versions_of_the_chart_and_of_the_package_are_one() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)


def test_names_and_the_selector_stay_through_upgrades_whatever_the_values() -> None:
    first = rendered(MINIMUM | {"environments": ENVIRONMENTS})
    later = rendered(EVERYTHING, upgrade=True)
    assert identities(first) <= identities(later)
    selectors = {
        json.dumps(found(bodies, "Deployment")["spec"]["selector"], sort_keys=True) for bodies in (first, later)
    }
    assert len(selectors) == 1


@pytest.mark.parametrize(
    "release", ["t", "gitops", "trueup", "my-trueup", "r" * 53, "trueup-" + "r" * 46, "a" * 49 + "-b-c"]
)
def test_names_fit_whatever_the_release_is_called(release: str) -> None:
    name = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
    value = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
    for body in rendered(EVERYTHING, release=release):
        # Those of ConfigMaps are subdomains: they may have a dot.
        assert name.fullmatch(body["metadata"]["name"].replace(".", "-")), body["metadata"]["name"]
        template = body["spec"]["template"] if body["kind"] == "Deployment" else body
        labels = {**body["metadata"].get("labels", {}), **template["metadata"].get("labels", {})}
        assert [label for label in labels.values() if not value.fullmatch(label)] == []


def test_a_dot_keeps_the_dashboard_apart_from_every_inventory() -> None:
    names = {body["metadata"]["name"] for body in rendered(EVERYTHING) if body["kind"] == "ConfigMap"}
    assert names == {"trueup.dashboard"}
    assert not any(name.startswith("trueup-") for name in names)


def test_an_environments_namespace_is_made_by_a_hook_and_belongs_to_nobody() -> None:
    """Helm's labels would be a conflict with the reconciler's, and `helm uninstall` would delete the models."""
    made = [body for body in rendered(EVERYTHING) if body["kind"] == "Namespace"]
    assert [body["metadata"]["name"] for body in made] == ["staging", "models"]
    for body in made:
        assert body["metadata"].keys() == {"name", "annotations"}
        assert body["metadata"]["annotations"] == {
            "helm.sh/hook": "pre-install,pre-upgrade",
            # What is there has to be something: without a policy, a hook is deleted before it is made anew.
            "helm.sh/hook-delete-policy": "hook-failed",
        }


def test_the_notes_say_what_comes_next() -> None:
    notes = {case: helm.texts(given)["templates/NOTES.txt"] for case, given in CASES.items()}
    assert "No environment is listed" in notes["minimum"]
    assert "  - production, in the namespace models\n" in notes["environments"]
    assert "There is no webhook: a commit is seen within 60 seconds" in notes["environments"]
    assert "which you make: specs-git, signers, push." in notes["everything"]
    assert "system:serviceaccount:trueup-system:trueup may now work on:\n  - staging" in notes["elsewhere"]


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"git": {"url": ""}}, "git.url is missing: the repository of the specs, such as `--set git.url=https://"),
        ({"git": {"url": "https://me:token@git.example.com/s.git"}}, "git.url holds a credential"),
        ({"git": {"url": "file:///srv/specs.git"}}, '"file:///srv/specs.git" is no address of a repository: https://'),
        ({"git": {"url": "http://git.example.com/s.git"}}, "is no address of a repository"),
        ({"git": {"url": "--upload-pack=x"}}, "is no address of a repository"),
        ({"webhook": {"ingress": {"enabled": True}}}, "webhook.secret is missing"),
        ({"webhook": {"secret": "s", "httpRoute": {"enabled": True}}}, "webhook.httpRoute.parentRefs is empty"),
        ({"environments": [{"name": "a"}, {"name": "a", "namespace": "b"}]}, "environments: a is there twice"),
        ({"environments": [{"name": "a", "namespace": "b"}, {"name": "b"}]}, "a and b have the same namespace b"),
        ({"environments": [{"name": "kube-x"}]}, "kube-x cannot have the reserved namespace kube-x"),
        (
            {"environments": [{"name": "a", "namespace": NAMESPACE}]},
            f"a cannot have the reserved namespace {NAMESPACE}",
        ),
    ],
)
def test_what_cannot_work_is_refused_in_a_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(helm_python.HelmError, match=re.escape(sentence)) as refused:
        rendered(MINIMUM | given)
    assert "token@" not in str(refused.value)


def test_another_namespace_is_refused_as_the_code_knows_its_own() -> None:
    assert inventory.NAMESPACE == NAMESPACE
    with pytest.raises(helm_python.HelmError, match="install it with `--namespace trueup-system --create-namespace`"):
        rendered(namespace="default")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"replicas": 2}, "at '': additional properties 'replicas' not allowed"),
        ({"git": MINIMUM["git"] | {"intervall": 5}}, "at '/git': additional properties 'intervall' not allowed"),
        ({"git": MINIMUM["git"] | {"interval": "60s"}}, "at '/git/interval': got string, want integer"),
        ({"git": MINIMUM["git"] | {"interval": 1}}, "at '/git/interval': minimum: got 1, want 5"),
        ({"git": MINIMUM["git"] | {"path": "/specs"}}, "at '/git/path': '/specs' does not match pattern"),
        ({"git": MINIMUM["git"] | {"branch": "--force"}}, "at '/git/branch': '--force' does not match pattern"),
        ({"image": {"tag": 1.1}}, "at '/image/tag': got number, want string"),
        ({"image": {"digest": "sha256:1"}}, "at '/image/digest'"),
        ({"environments": ["prod"]}, "at '/environments/0': got string, want object"),
        ({"environments": [{"namespace": "prod"}]}, "at '/environments/0': missing property 'name'"),
        ({"environments": [{"name": "Prod"}]}, "at '/environments/0/name': 'Prod' does not match pattern"),
        ({"environments": [{"name": "p", "secrets": ["*"]}]}, "at '/environments/0/secrets/0': '*' does not match"),
        ({"environments": [{"name": "p", "secrets": [""]}]}, "at '/environments/0/secrets/0': '' does not match"),
        ({"kubeconfigSecrets": "eu"}, "at '/kubeconfigSecrets': got string, want array"),
        ({"reconciler": {"replicas": "2"}}, "at '/reconciler/replicas': got string, want integer"),
        ({"reconciler": {"logFormat": "xml"}}, "at '/reconciler/logFormat': value must be one of 'json', 'console'"),
        ({"reconciler": {"env": [{"name": "A", "value": 1}]}}, "at '/reconciler/env/0/value': got number, want string"),
        ({"reconciler": {"resources": {"limits": {"memory": "1 GB"}}}}, "at '/reconciler/resources/limits/memory'"),
        ({"serviceMonitor": {"interval": "30"}}, "at '/serviceMonitor/interval': '30' does not match pattern"),
        ({"networkPolicy": {"egressPorts": ["https"]}}, "at '/networkPolicy/egressPorts/0': got string, want integer"),
    ],
)
def test_a_value_that_is_none_is_refused_with_its_place(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(helm_python.HelmError, match=re.escape(sentence)):
        rendered(MINIMUM | given)


def test_the_schema_has_every_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    schema["properties"].pop("global")
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(given: dict[str, Any], schema: dict[str, Any], path: str) -> None:
        if "properties" in schema:
            assert schema["additionalProperties"] is False, path
            if path != ".reconciler.resources":  # its parts may both be left out
                assert given.keys() == schema["properties"].keys(), path
            for key, value in given.items():
                if isinstance(value, dict):
                    compare(value, schema["properties"][key], f"{path}.{key}")

    compare(defaults, schema, "")


def test_the_readme_has_every_value_as_it_is() -> None:
    described = {one.key for one in helm.values()}
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(leaves(defaults, described)) == described, "each value has a comment that begins with `# --`"
    assert helm.README.read_text() == helm.with_table(helm.README.read_text()), "run: python -m tests.contract.helm"
    assert helm.table() in helm.README.read_text()


def leaves(value: Any, described: set[str], path: str = "") -> Iterator[str]:
    if isinstance(value, dict) and value and path not in described:
        for key, inner in value.items():
            yield from leaves(inner, described, f"{path}.{key}".lstrip("."))
    else:
        yield path


# -- the pods --------------------------------------------------------------------------------------------------------


def pods(bodies: list[Body]) -> list[Body]:
    """The specs of all pods that the chart starts."""
    templates = [body["spec"]["template"] for body in bodies if body["kind"] == "Deployment"]
    return [pod["spec"] for pod in [*templates, *(body for body in bodies if body["kind"] == "Pod")]]


def unrestricted(pod: Body) -> list[str]:
    """What the profile `restricted` of the Pod Security Standards has against a pod, and what we ask for beyond it."""
    security = pod.get("securityContext", {})
    kinds_of_volumes = {"configMap", "csi", "downwardAPI", "emptyDir", "projected", "secret"}
    faults = {
        "may run as root": not security.get("runAsNonRoot") or security.get("runAsUser", 0) == 0,
        "has no seccomp profile": security.get("seccompProfile", {}).get("type") != "RuntimeDefault",
        "shares something of the node": bool({"hostNetwork", "hostPID", "hostIPC"} & pod.keys()),
        "mounts something of the node": not all(v.keys() & kinds_of_volumes for v in pod.get("volumes", ())),
        "is told of every service": pod.get("enableServiceLinks") is not False,
        "may have a token unasked": "automountServiceAccountToken" not in pod,
    }
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        own = container.get("securityContext", {})
        strict = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        faults |= {
            f"{container['name']} may do more than it needs": own != strict,
            f"{container['name']} has a port of the node": any("hostPort" in p for p in container.get("ports", ())),
            f"{container['name']} does not say what it needs": container.get("resources", {}).keys()
            != {"requests", "limits"},
        }
    return [fault for fault, is_so in faults.items() if is_so]


def test_pods_are_restricted(values: dict[str, Any]) -> None:
    for pod in pods(rendered(values)):
        assert unrestricted(pod) == []


@pytest.mark.parametrize("part", ["securityContext", "resources", "enableServiceLinks", "automountServiceAccountToken"])
def test_and_would_not_be_without_any_part_of_it(part: str) -> None:
    for pod in pods(rendered(EVERYTHING)):
        without = copy.deepcopy(pod)
        for place in (without, *without["containers"]):
            place.pop(part, None)
        assert unrestricted(without) != []


def test_only_the_reconcilers_pod_has_a_token_of_the_account() -> None:
    bodies = rendered(EVERYTHING)
    assert found(bodies, "ServiceAccount")["automountServiceAccountToken"] is False
    assert found(bodies, "Deployment")["spec"]["template"]["spec"]["automountServiceAccountToken"] is True
    assert found(bodies, "Pod", "trueup-test")["spec"]["automountServiceAccountToken"] is False


def test_the_image_has_the_user_that_the_pods_have() -> None:
    dockerfile = (ROOT / "images/reconciler.Dockerfile").read_text()
    users = {pod["securityContext"]["runAsUser"] for pod in pods(rendered(EVERYTHING))}
    assert users == {int(number) for number in re.findall(r"^USER (\d+):\1$", dockerfile, re.MULTILINE)}
    assert 'ENTRYPOINT ["reconcile"]' in dockerfile  # the Deployment gives arguments only


def test_what_is_written_goes_to_volumes_and_credentials_to_memory() -> None:
    pod = found(rendered(MINIMUM), "Deployment")["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"]}
    assert volumes["tmp"]["medium"] == "Memory"
    assert "sizeLimit" in volumes["home"]
    [container] = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"home": "/var/lib/trueup", "tmp": "/tmp"}
    assert f"--home={mounts['home']}" in container["args"]


def test_selectors_find_the_reconcilers_pods_and_not_the_test() -> None:
    bodies = rendered(EVERYTHING)
    deployment = found(bodies, "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    selectors = [
        deployment["selector"]["matchLabels"],
        found(bodies, "Service")["spec"]["selector"],
        found(bodies, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        found(bodies, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(one["labelSelector"]["matchLabels"] for one in deployment["template"]["spec"]["topologySpreadConstraints"]),
    ]
    test = found(bodies, "Pod", "trueup-test")["metadata"]["labels"]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not selector.items() <= test.items()
    # The Service's own labels are what the ServiceMonitor looks for.
    monitor = found(bodies, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert monitor.items() <= found(bodies, "Service")["metadata"]["labels"].items()
    policy = found(bodies, "NetworkPolicy")["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
    assert policy.items() <= test.items()


def test_ports_that_are_named_are_ports_of_the_pod() -> None:
    bodies = rendered(EVERYTHING)
    [container] = found(bodies, "Deployment")["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": 8080, "webhook": 9292}
    assert {f"--address=0.0.0.0:{ports['http']}", f"--webhook-address=0.0.0.0:{ports['webhook']}"} <= {
        *container["args"]
    }
    assert {port["targetPort"] for port in found(bodies, "Service")["spec"]["ports"]} == ports.keys()
    assert {container[probe]["httpGet"]["port"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")} == {
        "http"
    }
    [rule] = found(bodies, "Ingress", "trueup-webhook")["spec"]["rules"]
    assert [(path["path"], path["pathType"]) for path in rule["http"]["paths"]] == [("/webhook", "Exact")]
    [rule] = found(bodies, "HTTPRoute", "trueup-webhook")["spec"]["rules"]
    assert [match["path"] for match in rule["matches"]] == [{"type": "Exact", "value": "/webhook"}]
    assert rule["backendRefs"] == [{"name": "trueup", "port": 9292}]


def test_the_lease_does_not_wait_behind_the_work() -> None:
    bodies = rendered(MINIMUM)
    work, lease = found(bodies, "FlowSchema"), found(bodies, "FlowSchema", "trueup-lease")
    assert lease["spec"]["matchingPrecedence"] < work["spec"]["matchingPrecedence"]
    assert work["spec"]["rules"][0]["subjects"] == lease["spec"]["rules"][0]["subjects"]
    assert work["spec"]["priorityLevelConfiguration"]["name"] == "workload-high"
    own = rendered(MINIMUM | {"flowSchema": {"priorityLevel": ""}})
    name = found(own, "FlowSchema")["spec"]["priorityLevelConfiguration"]["name"]
    assert found(own, "PriorityLevelConfiguration", name)["spec"]["type"] == "Limited"
