"""What the tests of the whole data plane share: a repository of small models, specs that serve them, and clients.

The models need no package but Python, so that a build takes as long as our part of it does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.e2e.harness import Plane, Run, processes_with

REPOSITORY = "https://git.example.com/acme/models.git"

#: A model that answers with a constant and what it was asked. {answer} is what differs between two commits.
MODEL = """
import os

class Churn:
    def __init__(self):
        self.metrics = {{}}

    def build(self):
        self.metrics = {{"auc": {auc}}}

    def schema(self):
        return {{"inputs": [{{"name": "age", "type": "int", "example": 42}}], "outputs": []}}

    def predict(self, rows):
        return [{{"answer": "{answer}", "rows": len(rows)}} for _ in rows]
"""
TEST = """
from main import Churn

def test_it_answers():
    assert Churn().predict([{"age": 1}])[0]["rows"] == 1
"""


class Repository:
    """A bare repository in a folder; `commit` writes files and gives the commit's id."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self._git("init", "--quiet", "--initial-branch=main")
        self._git("config", "user.email", "models@acme.example")
        self._git("config", "user.name", "Acme")

    @property
    def mirror(self) -> str:
        return f"{REPOSITORY}=file://{self.folder}"

    def commit(self, files: dict[str, str]) -> str:
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", "models")
        return self._git("rev-parse", "HEAD").strip()

    def model(self, name: str, answer: str, *, auc: str = "0.9", test: str = TEST, requirements: str = "") -> str:
        return self.commit(
            {
                f"{name}/main/__init__.py": MODEL.format(answer=answer, auc=auc),
                f"{name}/main/requirements.txt": requirements,
                f"{name}/tests/test_it.py": test,
            }
        )

    def _git(self, *arguments: str) -> str:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout


class Answer(NamedTuple):
    """What came back through a gateway."""

    status: int
    body: Any
    headers: dict[str, str]

    @property
    def variation(self) -> str:
        return self.headers["x-trueup-variation"]


class Client:
    """One connection to a gateway, opened again where the other side has closed it."""

    def __init__(self, address: str) -> None:
        self._connection = HTTPConnection(address, timeout=30)

    def predict(self, model: str = "churn", body: Any = ({"age": 30},), **headers: str) -> Answer:
        return self.post(f"/v1/{model}/predict", body, **headers)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        sent = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._connection.request("POST", path, data, sent)
        response = self._connection.getresponse()
        text = response.read()
        names = {name.lower(): value for name, value in response.getheaders()}
        is_json = names.get("content-type", "").startswith("application/json")
        return Answer(response.status, json.loads(text) if is_json else text.decode(), names)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Running(Plane):
    """A place where the whole data plane is up: controllers, pods, gateway."""

    repository: Repository

    def start_all(self) -> Running:
        started = self.reconcile("up")
        assert started.code == 0, started.text
        return self

    def environment(self, **more: str) -> dict[str, str]:
        """Builds install packages: what says where those come from is the machine's own."""
        passed = ("PIP_", "UV_", "SSL_CERT", "REQUESTS_CA", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
        machine = {name: value for name, value in os.environ.items() if name.startswith(passed)}
        return machine | super().environment(**more)

    def apply(self, *specs: str, wait: float = 90, timeout: float = 120) -> Any:
        for number, text in enumerate(specs):
            self.write(f"specs/{number}.yaml", text)
        mirror = self.repository.mirror
        return self.reconcile("-f", "specs", "--mirror", mirror, "--wait", str(wait), timeout=timeout)

    # -- what builds and promotes itself ------------------------------------------------------------------------------

    def run(self, *more: str, wait: float = 120) -> Run:
        """A run over the specs as they are, until nothing goes on by itself."""
        run = self.reconcile(*self._run_arguments(wait), *more, timeout=wait + 30)
        assert run.code == 0, run.text
        return run

    @contextmanager
    def running(self, wait: float = 120) -> Iterator[subprocess.Popen[str]]:
        """Such a run in the background. It has to end by itself, and well, unless the test has killed it."""
        process = self.start(*self._run_arguments(wait))
        try:
            yield process
            out, err = process.communicate(timeout=wait + 30)
        finally:
            process.kill()
            process.wait()
        assert process.returncode in (0, -signal.SIGKILL), out + err

    def _run_arguments(self, wait: float) -> tuple[str, ...]:
        return ("-f", "specs", "--mirror", self.repository.mirror, "--wait", str(wait))

    def told(self, command: str, *arguments: str) -> str:
        """A command about records, such as approve; what it prints."""
        run = self.reconcile(command, *arguments)
        assert run.code == 0, run.text
        return run.out

    def trigger(self, automation: str) -> None:
        self.told("trigger", automation, "-f", "specs", "--mirror", self.repository.mirror)

    def records(self, kind: str, model: str) -> list[dict[str, Any]]:
        """Builds or promotions of a model, those that were asked for first at the beginning."""
        api = self.api()
        found: list[dict[str, Any]] = api("GET", f"/apis/trueup.dev/v1/namespaces/trueup-system/{kind}").body["items"]
        api.close()
        return sorted((r for r in found if r["spec"]["model"] == model), key=lambda r: str(r["spec"]["cause"]["at"]))

    def promotions(self, model: str, environment: str) -> list[Promoted]:
        return [Promoted(one) for one in self.records("promotions", model) if one["spec"]["environment"] == environment]

    def deployments(self, namespace: str, model: str) -> set[str]:
        """The ids of the builds that have a Deployment."""
        api = self.api()
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments?labelSelector=app.kubernetes.io/name={model}"
        items = api("GET", path).body["items"]
        api.close()
        return {one["metadata"]["labels"]["trueup.dev/build-id"] for one in items}

    # -- what answers -------------------------------------------------------------------------------------------------

    def gateway(self, namespace: str) -> str:
        """host:port, when it answers."""
        path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/gateways/trueup"

        def address() -> str:
            api = self.api()
            body = api("GET", path).body
            api.close()
            addresses = body.get("status", {}).get("addresses")
            return f"{addresses[0]['value']}:{body['spec']['listeners'][0]['port']}" if addresses else ""

        return eventually(address)

    def client(self, namespace: str) -> Client:
        return Client(self.gateway(namespace))

    def shares(self, namespace: str, count: int, **headers: str) -> Counter[str]:
        with self.client(namespace) as client:
            return Counter(client.predict(**headers).variation for _ in range(count))

    def answers(self, namespace: str, **headers: str) -> bool:
        """Whether somebody answers a prediction now."""
        try:
            with self.client(namespace) as client:
                return client.predict(**headers).status == 200
        except OSError:
            return False

    def pods(self, namespace: str, **labels: str) -> list[dict[str, Any]]:
        api = self.api()
        selector = ",".join(f"trueup.dev/{key.replace('_', '-')}={value}" for key, value in labels.items())
        items: list[dict[str, Any]] = api("GET", f"/api/v1/namespaces/{namespace}/pods?labelSelector={selector}").body[
            "items"
        ]
        api.close()
        return items

    def stop_all(self) -> None:
        stopped = self.reconcile("down", timeout=90)
        assert stopped.code == 0, stopped.text
        assert processes_with(str(self.home)) == []
        log = (self.home / "log").read_text()
        assert "Traceback" not in log, log[-4000:]


class Promoted(NamedTuple):
    """A Promotion, as the cluster has it."""

    body: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])

    @property
    def build(self) -> str:
        """The first 8 digits of its build's id."""
        return str(self.body["spec"]["build"])[:8]

    @property
    def phase(self) -> str:
        return str(self.body.get("status", {}).get("phase", "Pending"))

    @property
    def message(self) -> str:
        return str(self.body["status"]["message"])

    @property
    def rollout(self) -> dict[str, Any]:
        return dict(self.body.get("status", {}).get("rollout") or {})

    def moment(self, key: str) -> datetime:
        """An instant of its rollout, or of its status."""
        return datetime.fromisoformat(self.rollout.get(key) or self.body["status"][key])


class Answered(NamedTuple):
    """What one of many requests came to."""

    at: float  #: when it was answered (time.monotonic)
    status: int
    build: str  #: the first 8 digits of the id of the build that answered
    text: str


class Traffic:
    """Predictions all the time, by two clients, and what became of each."""

    def __init__(self, address: str, model: str) -> None:
        self.answers: list[Answered] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(address, model)) for _ in range(2)]

    @property
    def failures(self) -> list[Answered]:
        return [answer for answer in self.answers if answer.status != 200]

    def share(self, build: str) -> float:
        """Its part of the last answers."""
        last = self.answers[-100:]
        return sum(answer.build == build for answer in last) / len(last)

    def of(self, build: str) -> list[Answered]:
        """What a build has answered."""
        return [answer for answer in self.answers if answer.build == build]

    def _run(self, address: str, model: str) -> None:
        with Client(address) as client:
            while not self._stop.wait(0.01):
                try:
                    answer = client.predict(model)
                except OSError as error:
                    self.answers.append(Answered(time.monotonic(), 0, "", repr(error)))
                    return
                build = answer.headers.get("x-trueup-build-id", "")[:8]
                self.answers.append(Answered(time.monotonic(), answer.status, build, str(answer.body)))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        eventually(lambda: len(self.answers) > 50)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def eventually(look: Callable[[], Any], seconds: float = 120) -> Any:
    """What `look` gives as soon as that is true."""
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until, f"nothing after {seconds} s: {found!r}"
        time.sleep(0.05)
    return found


def requests_counted(pods: list[dict[str, Any]]) -> int:
    """Requests that the pods have counted, by their own metrics."""
    total = 0.0
    for pod in pods:
        connection = HTTPConnection(pod["status"]["podIP"], 9090, timeout=10)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        total += sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("trueup_requests_total{"))
    return int(total)


def place_of(installed: Path, folder: Path) -> Running:
    folder.mkdir(parents=True, exist_ok=True)
    return Running(folder, installed, Repository(folder / "models"))
