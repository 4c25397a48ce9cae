"""What the end-to-end tests share: the installed command, the data plane that it starts, and specs to give it.

Everything runs as processes, in folders that are empty at first, with an environment made from nothing.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from reconciler import inventory
from renderers import names
from tests.contract.client import KUBECTL, MERGE, Api
from tests.contract.faults import Seen

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
#: When what the tests play happens.
NOW = "2026-01-01T00:00:00Z"
#: All k, all faults in all places.
FULL = bool(os.environ.get("TRUEUP_TEST_FULL"))


class Run(NamedTuple):
    """What became of a command."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err

    @property
    def data(self) -> Any:
        return json.loads(self.out)

    def told(self, outcome: str) -> set[str]:
        """The objects that became this, as "Kind/name"."""
        lines = re.findall(rf"^\S {outcome} +(\S+)$", self.out, re.MULTILINE)
        return {f"{parts[0]}/{parts[-1]}" for parts in (line.split("/") for line in lines)}


@dataclass(frozen=True)
class Place:
    """A folder where somebody uses the installed command. `reconcile` runs it there."""

    folder: Path
    command: Path

    def environment(self, **more: str) -> dict[str, str]:
        """What the command gets to know: nothing of the checkout, nothing of the person who runs the tests."""
        git = Path(shutil.which("git") or "git").parent
        home = self.folder.parent / f"{self.folder.name}.home"
        home.mkdir(exist_ok=True)
        path = os.pathsep.join((str(self.command.parent), str(git), "/usr/bin", "/bin"))
        return {"PATH": path, "HOME": str(home), "LC_ALL": "C.UTF-8", **more}

    def reconcile(self, *arguments: str | Path, timeout: float = 60, **environment: str) -> Run:
        process = self.start(*arguments, **environment)
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            process.kill()
            process.wait()
        return Run(process.returncode, out, err)

    def start(self, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.command, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


class Plane(Place):
    """A place where the embedded data plane is up, in its default folder."""

    @property
    def home(self) -> Path:
        return self.folder / ".trueup"

    @property
    def kubeconfig(self) -> Path:
        return self.home / "kubeconfig"

    def api(self) -> Api:
        return Api(self.kubeconfig, "embedded")

    def server(self) -> int:
        """The process id of the embedded data plane."""
        return int((self.home / "pid").read_text())

    def up(self) -> Self:
        started = self.reconcile("up", "--only-api")
        assert started.code == 0, started.text
        return self

    def down(self) -> None:
        """Stops it, and holds it to leaving nothing behind that runs, and no failure of its own in its log."""
        if not self.home.exists():
            return
        stopped = self.reconcile("down")
        assert stopped.code == 0, stopped.text
        assert processes_with(str(self.home)) == []
        log = (self.home / "log").read_text()
        assert "Traceback" not in log, log

    def placed(self, specs: str) -> str:
        """Specs, with their environments in this data plane."""
        return specs

    def kubectl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = self.environment(KUBECONFIG=str(self.kubeconfig))
        return subprocess.run(
            [KUBECTL, *arguments], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )


@dataclass(frozen=True)
class Remote(Plane):
    """A place from which somebody uses a cluster that runs already, as a pod uses its own.

    What Trueup keeps for itself there is gone when a test begins; environments have to have names of their own.
    """

    there: Path

    @property
    def kubeconfig(self) -> Path:
        return self.there

    def api(self) -> Api:
        return Api(self.there, "real")

    def environment(self, **more: str) -> dict[str, str]:
        return super().environment(**{"KUBECONFIG": str(self.there), "KUBERNETES_SERVICE_HOST": "127.0.0.1", **more})

    def placed(self, specs: str) -> str:
        cluster = '"data_plane": "kubernetes", "object_storage": "s3://acme/models"'
        return specs.replace('"data_plane": "embedded"', cluster)

    def up(self) -> Self:
        with closing(self.api()) as api:
            api("POST", "/api/v1/namespaces", {"metadata": {"name": inventory.NAMESPACE}})
            for kinds in ("api/v1", "apis/coordination.k8s.io/v1", "apis/trueup.dev/v1"):
                for plural in ("configmaps", "secrets", "leases", "builds", "promotions"):
                    api("DELETE", f"/{kinds}/namespaces/{inventory.NAMESPACE}/{plural}")
        return self

    def down(self) -> None:
        self.up()


def processes_with(text: str) -> list[str]:
    """The command lines of all processes that name this text."""
    lines = subprocess.run(["ps", "-ww", "-eo", "args="], capture_output=True, text=True, check=True).stdout
    return [line for line in lines.splitlines() if text in line]


# -- specs ----------------------------------------------------------------------------------------------------------

COMMIT = "45a96240e08b09e4c2dd86a6a58f8ce239655f3c"
REPOSITORY = "https://git.example.com/acme/models.git"


#: Where builds are made that are no subject of a test. It is suspended, so that no run makes or waits for them.
ELSEWHERE = {"name": "elsewhere", "data_plane": "embedded", "suspended": True}


def environment(name: str, **more: Any) -> dict[str, Any]:
    return {"environments": [{"name": name, "data_plane": "embedded", **more}]}


def build(name: str, model: str, *, environment: str = "elsewhere", **more: Any) -> dict[str, Any]:
    """A build that is made elsewhere, and so can be served at once. One in an environment of the test is waited for.

    Only the API server runs in these tests: a Job stays as it is until `make_built` or `fail_builds` ends it.
    """
    git = {"git_uri": f"{REPOSITORY}#{model}"} | ({} if "git_branch" in more else {"git_commit": COMMIT})
    return {"builds": [{"name": name, "model": model, "environment": environment, **git, **more}]}


def candidate(model: str, environment: str) -> dict[str, Any]:
    """A build that is made in this environment, and that nobody serves yet: there is a Job, and nothing waits."""
    return build(f"{model}-next", model, environment=environment, env_vars={"NEXT": "1"})


def variation(
    model: str,
    name: str,
    environment: str,
    *,
    build: str,
    traffic: Iterable[dict[str, Any]] = ({"weight": 100},),
    **deployment: Any,
) -> dict[str, Any]:
    return {
        "variations": [
            {
                "model": model,
                "name": name,
                "environments": [environment],
                "build": build,
                "deployment": {"number_of_pods": 1, "memory": "1Gi", **deployment},
                "traffic": list(traffic),
            }
        ]
    }


def insiders() -> dict[str, Any]:
    condition = {"key": "user", "operator": "IN", "operand": ["ada", "grace"]}
    return {"audiences": [{"name": "testers", "priority": 1, "conditions": {"unary": [condition]}}]}


def document(*parts: dict[str, Any]) -> str:
    """A spec file. JSON is YAML, and each list gets its own lines so that positions can be told."""
    spec: dict[str, list[Any]] = {}
    for part in parts:
        for kind, specs in part.items():
            spec.setdefault(kind, []).extend(specs)
    if "environments" in spec and any(one.get("environment") == ELSEWHERE["name"] for one in spec.get("builds", ())):
        spec["environments"].append(ELSEWHERE)
    return json.dumps({"api_version": "v1", "spec": spec}, indent=1)


def before(name: str) -> str:
    """An environment with one model, whose traffic two variations share, and a build that is made there."""
    theirs = {"audience": "testers"}
    return document(
        environment(name),
        insiders(),
        build("churn-1", "churn"),
        candidate("churn", name),
        variation("churn", "default", name, build="churn-1", traffic=[{"weight": 100}, {**theirs, "weight": 40}]),
        variation("churn", "extra", name, build="churn-1", traffic=[{**theirs, "weight": 60}]),
    )


def after(name: str) -> str:
    """The same, changed in every way: a variation and a build are gone, memory is added, a model is new."""
    return document(
        environment(name, quota={"pods": 50}),
        build("churn-1", "churn"),
        build("fraud-1", "fraud"),
        candidate("fraud", name),
        variation("churn", "default", name, build="churn-1", memory="2Gi"),
        variation("fraud", "default", name, build="fraud-1"),
    )


# -- what the server has --------------------------------------------------------------------------------------------

#: Where rendered objects can be: path of the collection within a namespace, by kind.
COLLECTIONS: dict[str, tuple[str, str]] = {
    "ServiceAccount": ("v1", "serviceaccounts"),
    "ResourceQuota": ("v1", "resourcequotas"),
    "ConfigMap": ("v1", "configmaps"),
    "Service": ("v1", "services"),
    "NetworkPolicy": ("networking.k8s.io/v1", "networkpolicies"),
    "Deployment": ("apps/v1", "deployments"),
    "Job": ("batch/v1", "jobs"),
    "PodDisruptionBudget": ("policy/v1", "poddisruptionbudgets"),
    "ScaledObject": ("keda.sh/v1alpha1", "scaledobjects"),
    "Gateway": ("gateway.networking.k8s.io/v1", "gateways"),
    "HTTPRoute": ("gateway.networking.k8s.io/v1", "httproutes"),
    "PodMonitor": ("monitoring.coreos.com/v1", "podmonitors"),
    "PrometheusRule": ("monitoring.coreos.com/v1", "prometheusrules"),
}
#: What the server sets, and what differs each time.
_SERVER_SET = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink")


def collection(kind: str, namespace: str) -> str:
    version, plural = COLLECTIONS[kind]
    return f"{'/apis' if '/' in version else '/api'}/{version}/namespaces/{namespace}/{plural}"


def members(api: Api, name: str, namespace: str = "") -> dict[str, dict[str, Any]]:
    """Every object that carries the environment's label, as "Kind/name"; the namespace itself among them."""
    selector = f"?labelSelector={inventory.PART_OF}={inventory.set_id(name)}"
    paths = {"Namespace": "/api/v1/namespaces"} | {kind: collection(kind, namespace or name) for kind in COLLECTIONS}
    found: dict[str, dict[str, Any]] = {}
    for kind, path in paths.items():
        answer = api("GET", path + selector)
        assert answer.status == 200, answer.body
        # Only the list says what its items are.
        found |= {f"{kind}/{one['metadata']['name']}": {**one, "kind": kind} for one in answer.body["items"]}
    return found


def places(api: Api, name: str) -> set[str]:
    """The kinds for which the environment's inventory knows a place; empty where there is no inventory."""
    answer = api("GET", f"/api/v1/namespaces/{inventory.NAMESPACE}/configmaps/{inventory.name_of(name)}")
    if answer.status == 404:
        return set()
    return {place.kind for place in inventory.from_config_map(answer.body).places}


def state(api: Api, name: str) -> dict[str, Any]:
    """All that an environment has, without what the server sets: two runs that end alike have the same."""
    found: dict[str, Any] = {key: canonical(one) for key, one in members(api, name).items()}
    return found | {"inventory": sorted(places(api, name))}


def canonical(body: dict[str, Any]) -> dict[str, Any]:
    metadata = {key: value for key, value in body["metadata"].items() if key not in _SERVER_SET}
    owners = sorted({entry["manager"] for entry in body["metadata"].get("managedFields", ())})
    kept = copy.deepcopy({key: value for key, value in body.items() if key not in ("metadata", "status")})
    if body["kind"] == "Service":
        kept["spec"] = {key: value for key, value in kept["spec"].items() if not key.startswith("clusterIP")}
    if body["kind"] == "Job":  # it selects its pods by its own uid
        for labels in (kept["spec"]["selector"]["matchLabels"], kept["spec"]["template"]["metadata"]["labels"]):
            for label in ("controller-uid", "batch.kubernetes.io/controller-uid"):
                labels.pop(label, None)
    return {**kept, "metadata": metadata, "managers": owners}


def forget(api: Api, name: str) -> None:
    """Takes an environment and all that is in it off the server, as if it had never been there."""
    api("DELETE", f"/api/v1/namespaces/{inventory.NAMESPACE}/configmaps/{inventory.name_of(name)}")
    api("DELETE", f"/api/v1/namespaces/{name}")
    until = time.monotonic() + 10
    while api("GET", f"/api/v1/namespaces/{name}").status != 404:
        assert time.monotonic() < until, f"the namespace {name} does not go"
        time.sleep(0.02)


def make_ready(api: Api, namespace: str) -> None:
    """Plays the part of the controllers: all pods of all Deployments are there and answer."""
    for one in api("GET", collection("Deployment", namespace)).body["items"]:
        replicas = one["spec"]["replicas"]
        counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), replicas)
        conditions = [
            {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"},
            {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
        ]
        status = {"observedGeneration": one["metadata"]["generation"], "conditions": conditions, **counts}
        path = f"{collection('Deployment', namespace)}/{one['metadata']['name']}"
        _set_status(api, path, status)


def make_built(api: Api, namespace: str, model: str = "") -> None:
    """Plays the part of the controllers: all Jobs, or those of one model, are complete."""
    for job in _running(api, namespace, model):
        _end(api, job, "SuccessCriteriaMet", "Complete", reason="CompletionsReached", completionTime=NOW)


def fail_builds(api: Api, namespace: str, model: str, exit_code: int, message: str) -> None:
    """The pod of each of a model's Jobs has ended with this exit code and termination message, and the Job with it."""
    for job in _running(api, namespace, model):
        name, template = f"{job['metadata']['name']}-x7x4f", job["spec"]["template"]
        pods = f"/api/v1/namespaces/{namespace}/pods"
        made = api("POST", pods, {**template, "metadata": {**template["metadata"], "name": name}})
        assert made.status == 201, made.body
        ended = {"exitCode": exit_code, "reason": "Error", "message": message}
        about = {"image": "builder", "imageID": "", "ready": False, "restartCount": 0}
        containers = [{"name": "build", "state": {"terminated": ended}, **about}]
        _set_status(api, f"{pods}/{name}", {"phase": "Failed", "containerStatuses": containers})
        _end(api, job, "FailureTarget", "Failed", reason="PodFailurePolicy", failed=1)


def _running(api: Api, namespace: str, model: str) -> list[dict[str, Any]]:
    selector = f"?labelSelector={names.NAME}={model}" if model else ""
    jobs = api("GET", collection("Job", namespace) + selector).body["items"]
    return [job for job in jobs if not job.get("status", {}).get("conditions")]


def _end(api: Api, job: dict[str, Any], *conditions: str, reason: str, **status: Any) -> None:
    met = [{"type": one, "status": "True", "reason": reason, "lastTransitionTime": NOW} for one in conditions]
    path = f"{collection('Job', job['metadata']['namespace'])}/{job['metadata']['name']}"
    _set_status(api, path, {"conditions": met, "startTime": NOW, **status})


def _set_status(api: Api, path: str, status: dict[str, Any]) -> None:
    answer = api("PATCH", f"{path}/status", {"status": status}, content_type=MERGE)
    assert answer.status == 200, answer.body


# -- faults ---------------------------------------------------------------------------------------------------------


def is_write(request: Seen) -> bool:
    return request.method != "GET" and "dryRun=All" not in request.path


def kill(process: Callable[[], int], *, first_do_it: bool) -> Any:
    """A fault that kills a process (SIGKILL) when a request arrives, before or after the server has done it."""

    def act(handler: Any, request: bytes) -> None:
        if first_do_it:
            handler.ask_upstream(request).read()
        os.kill(process(), signal.SIGKILL)
        handler.reset()

    return act


def at_once(calls: Iterable[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(8) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]
