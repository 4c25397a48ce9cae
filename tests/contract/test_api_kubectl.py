"""kubectl works: people meet an API server through it first."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.client import KUBECTL, Api

Kubectl = Callable[..., str]

MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: REPLICAS
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: "registry.example/web:1"}]}
"""


@pytest.fixture
def kubectl(api: Api, namespace: str, tmp_path: Path) -> Kubectl:
    def run(*arguments: str, stdin: str = "", code: int = 0) -> str:
        command = [KUBECTL, f"--kubeconfig={api.kubeconfig}", f"--cache-dir={tmp_path}", f"--namespace={namespace}"]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "EDITOR": "sed -i s/replicas:.3/replicas:\\ 4/",
        }
        done = subprocess.run(
            [*command, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment,
        )
        assert done.returncode == code, done.stderr
        return done.stdout

    return run


def test_apply_get_edit_and_delete(kubectl: Kubectl) -> None:
    two, three = MANIFEST.replace("REPLICAS", "2"), MANIFEST.replace("REPLICAS", "3")
    assert kubectl("apply", "-f", "-", stdin=two) == "deployment.apps/web created\n"
    assert kubectl("apply", "-f", "-", stdin=two) == "deployment.apps/web unchanged\n"
    difference = kubectl("diff", "-f", "-", stdin=three, code=1)
    assert "-  replicas: 2\n+  replicas: 3\n" in difference
    assert kubectl("apply", "-f", "-", stdin=three) == "deployment.apps/web configured\n"
    assert kubectl("edit", "deployment", "web") == "deployment.apps/web edited\n"
    header, row = kubectl("get", "deploy").splitlines()
    assert header.split() == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert row.split()[:2] == ["web", "0/4"]
    assert kubectl("delete", "deploy", "web").startswith('deployment.apps "web" deleted')
    assert kubectl("get", "deploy") == ""


def test_server_side_apply_reports_conflicts(kubectl: Kubectl) -> None:
    kubectl("apply", "--server-side", "--field-manager=other", "-f", "-", stdin=MANIFEST.replace("REPLICAS", "2"))
    changed = MANIFEST.replace("REPLICAS", "3")
    kubectl("apply", "--server-side", "-f", "-", stdin=changed, code=1)
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=changed)
    assert kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "3"


def test_the_small_commands(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=MANIFEST.replace("REPLICAS", "1"))
    assert kubectl("scale", "deploy", "web", "--replicas=3") == "deployment.apps/web scaled\n"
    assert kubectl("label", "deploy", "web", "tier=front") == "deployment.apps/web labeled\n"
    assert kubectl("annotate", "deploy", "web", "note=hello") == "deployment.apps/web annotated\n"
    patch = json.dumps({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "web:2"}]}}}})
    assert kubectl("patch", "deploy", "web", "-p", patch) == "deployment.apps/web patched\n"
    assert kubectl("set", "image", "deploy/web", "main=web:3") == "deployment.apps/web image updated\n"
    body = json.loads(kubectl("get", "deploy", "web", "-o", "json"))
    assert body["spec"]["replicas"] == 3
    assert (body["metadata"]["labels"]["tier"], body["metadata"]["annotations"]["note"]) == ("front", "hello")
    assert body["spec"]["template"]["spec"]["containers"][0]["image"] == "web:3"


def test_what_kubectl_makes_by_itself(kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "configmap", "settings", "--from-literal=a=b")
    kubectl("create", "secret", "generic", "credentials", "--from-literal=token=t")
    kubectl("create", "deployment", "made", "--image=registry.example/made:1", "--replicas=2", "--port=80")
    kubectl("create", "job", "once", "--image=registry.example/once:1", "--", "true")
    kubectl("create", "cronjob", "often", "--image=registry.example/often:1", "--schedule=*/5 * * * *", "--", "true")
    kubectl("create", "role", "reader", "--verb=get", "--resource=pods")
    kubectl("create", "rolebinding", "reads", "--role=reader", f"--serviceaccount={namespace}:default")
    kubectl("create", "quota", "small", "--hard=cpu=1")
    kubectl("create", "poddisruptionbudget", "careful", "--selector=app=made", "--min-available=1")
    kubectl("expose", "deployment", "made")
    names = kubectl("get", "cm,secret,deploy,job,cronjob,role,rolebinding,quota,pdb,svc", "-o", "name").split()
    assert {
        "configmap/settings",
        "secret/credentials",
        "deployment.apps/made",
        "job.batch/once",
        "cronjob.batch/often",
        "role.rbac.authorization.k8s.io/reader",
        "rolebinding.rbac.authorization.k8s.io/reads",
        "resourcequota/small",
        "poddisruptionbudget.policy/careful",
        "service/made",
    } <= set(names)
    assert kubectl("get", "secret", "credentials", "-o", "jsonpath={.data.token}") == "dA=="
    assert kubectl("get", "deploy", "made", "-o", "jsonpath={.spec.replicas}") == "2"


def test_describe_and_explain(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=MANIFEST.replace("REPLICAS", "1"))
    assert "StrategyType:           RollingUpdate" in kubectl("describe", "deploy", "web")
    assert "rollingUpdate\t<RollingUpdateDeployment>" in kubectl("explain", "deployment.spec.strategy")


def test_resources_are_listed(kubectl: Kubectl) -> None:
    rows = {row.split()[0]: row.split() for row in kubectl("api-resources", "--no-headers").splitlines()}
    assert rows["deployments"] == ["deployments", "deploy", "apps/v1", "true", "Deployment"]
    assert "apps/v1" in kubectl("api-versions").split()


def test_one_may_ask_what_one_may_do(kubectl: Kubectl) -> None:
    assert kubectl("auth", "can-i", "create", "deployments") == "yes\n"


def test_a_watch_prints_changes(kubectl: Kubectl, api: Api, namespace: str, tmp_path: Path) -> None:
    kubectl("create", "configmap", "first")
    command = ["kubectl", f"--kubeconfig={api.kubeconfig}", f"--cache-dir={tmp_path}", f"--namespace={namespace}"]
    watch = subprocess.Popen(
        [*command, "get", "configmap", "--watch", "--no-headers"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert watch.stdout is not None
        names = {watch.stdout.readline().split()[0]}
        while "first" not in names:
            names.add(watch.stdout.readline().split()[0])
        time.sleep(0.3)
        kubectl("create", "configmap", "second")
        while "second" not in names:
            names.add(watch.stdout.readline().split()[0])
    finally:
        watch.kill()
        watch.communicate()
