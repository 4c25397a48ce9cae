"""From specs and a repository to predictions: models are really built, really served, and traffic really reaches the
right variation."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.e2e.data_plane import MODEL, REPOSITORY, Client, Running, eventually, place_of, requests_counted
from tests.e2e.harness import Run, document, environment, processes_with

CLIENTS = {"qwak-inference": "0.2.1", "frogml-inference": "0.2.2"}
REGIONS = {
    "audiences": [
        {
            "name": name,
            "priority": priority,
            "conditions": {
                "unary": [{"key": "location", "operator": "UNARY_OPERATOR_TYPE_EXACT_MATCH", "operand": location}]
            },
        }
        for priority, (name, location) in enumerate((("california", "california"), ("New-York", "new-york")))
    ]
}


def build(name: str, commit: str, model: str = "churn", **more: Any) -> dict[str, Any]:
    spec = {"name": name, "model": model, "git_uri": f"{REPOSITORY}#{model}", "git_commit": commit}
    return {"builds": [spec | {"resources": {"cpu": 0.5, "memory": "512Mi"}} | more]}


def variation(
    name: str, where: str, build: str, *traffic: dict[str, Any], model: str = "churn", **deployment: Any
) -> dict[str, Any]:
    size = {"number_of_pods": 1, "number_of_http_server_workers": 1, "cpu_fraction": 0.25, "memory": "512Mi"}
    return {
        "variations": [
            {
                "model": model,
                "name": name,
                "environments": [where],
                "build": build,
                "deployment": size | deployment,
                "traffic": list(traffic),
            }
        ]
    }


def prod(*, default: str = "churn-1", share: int = 10) -> list[dict[str, Any]]:
    """Environment prod: everybody on `default`, New York on the canary, which gets a share of California."""
    return [
        environment("prod"),
        REGIONS,
        variation("default", "prod", default, {"weight": 100}, {"audience": "california", "weight": 100 - share}),
        variation("canary", "prod", "churn-2", {"audience": "california", "weight": share}, {"audience": "New-York"}),
    ]


class Served(NamedTuple):
    """A running plane, and the commits of its two builds."""

    plane: Running
    first: str
    second: str

    def apply(self, *specs: dict[str, Any]) -> Run:
        """Environment prod as these specs have it, and lab beside it."""
        lab = [
            environment("lab", promote_after="prod"),
            variation("observed", "lab", "churn-1", {"weight": 100}),
            variation("shadow", "lab", "churn-2", {"shadow": True, "weight": 50}),
        ]
        builds = [build("churn-1", self.first), build("churn-2", self.second)]
        run = self.plane.apply(document(*builds, *specs), document(*lab))
        assert run.code == 0, run.text
        return run


@pytest.fixture(scope="module")
def served(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    plane = place_of(installed, tmp_path_factory.mktemp("plane")).start_all()
    first = plane.repository.model("churn", "first", auc="0.8")
    yield Served(plane, first, plane.repository.model("churn", "second", auc="0.9"))
    plane.stop_all()


@pytest.fixture
def plane(served: Served) -> Running:
    """Two builds of one model, served in two environments, by audience, with a canary and a shadow."""
    served.apply(*prod())
    eventually(lambda: served.plane.answers("prod") and served.plane.answers("prod", location="new-york"))
    return served.plane


class TestPredictions:
    def test_two_audiences_reach_two_builds_of_the_model(self, plane: Running):
        with plane.client("prod") as client:
            new_york = client.predict(location="new-york")
            everybody = client.predict()
        assert (new_york.status, new_york.body) == (200, [{"answer": "second", "rows": 1}])
        assert (everybody.status, everybody.body) == (200, [{"answer": "first", "rows": 1}])
        assert (new_york.variation, everybody.variation) == ("canary", "default")
        assert new_york.headers["x-trueup-build-id"] != everybody.headers["x-trueup-build-id"]

    def test_a_canary_gets_its_share(self, plane: Running):
        shares = plane.shares("prod", 1000, location="california")
        assert 50 <= shares["canary"] <= 150  # a tenth, and five standard deviations
        assert shares["canary"] + shares["default"] == 1000

    def test_one_variation_can_be_asked_whoever_asks(self, plane: Running):
        with plane.client("prod") as client:
            assert client.post("/v1/churn/canary/predict", [{"age": 1}]).variation == "canary"
            assert client.post("/v1/churn/default/predict", [{"age": 1}], location="new-york").variation == "default"

    def test_a_shadow_receives_copies_and_answers_nobody(self, plane: Running):
        before = requests_counted(plane.pods("lab", variation="shadow"))
        assert plane.shares("lab", 300) == Counter(observed=300)
        received = requests_counted(plane.pods("lab", variation="shadow")) - before
        assert 100 <= received <= 200  # half of them, and more than five standard deviations

    def test_open_inference_through_the_gateway(self, plane: Running):
        tensor = {"name": "age", "shape": [2], "datatype": "INT64", "data": [1, 2]}
        with plane.client("prod") as client:
            answer = client.post("/v2/models/churn/infer", {"inputs": [tensor]}, location="new-york")
        assert answer.status == 200, answer
        assert answer.body["model_name"] == "churn"

    def test_an_unknown_model_is_told_apart_from_one_that_is_down(self, plane: Running):
        with plane.client("prod") as client:
            assert client.predict("nobody").status == 404

    @pytest.mark.parametrize("package", CLIENTS)
    def test_the_unmodified_client_of_the_platform_gets_predictions(self, plane: Running, package: str, tmp_path: Path):
        python = client_of(package, plane)
        gateway = plane.gateway("prod")
        script = tmp_path / "client.py"
        script.write_text(CLIENT_SCRIPT.format(module=package.replace("-", "_"), gateway=gateway))
        token = f"sig.{JWT_PAYLOAD}.sig"
        (tmp_path / ".qwak").mkdir()
        (tmp_path / ".qwak" / "auth").write_text(f'[default]\nTOKENS = "{token}"\n')
        (tmp_path / ".qwak" / "config").write_text("[default]\napi_key = x\n")
        environment = {
            "HOME": str(tmp_path),
            "QWAK_HOME": str(tmp_path),
            "JF_URL": f"http://{gateway}",
            "JF_ACCESS_TOKEN": token,
        }
        done = subprocess.run(
            [python, script], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1]) == {
            "everybody": [{"answer": "first", "rows": 1}],
            "new-york": [{"answer": "second", "rows": 1}],
            "canary": [{"answer": "second", "rows": 2}] * 2,
        }


#: {"exp": 4102444800}, in the year 2100; the clients look at nothing else.
JWT_PAYLOAD = "eyJleHAiOiA0MTAyNDQ0ODAwfQ"
CLIENT_SCRIPT = """
import json
from {module} import RealTimeClient

api = "http://{gateway}/v1/churn"
client = RealTimeClient("churn", model_api=api + "/predict")
direct = RealTimeClient("churn", model_api=api + "/canary/predict")
print(json.dumps({{
    "everybody": client.predict([{{"age": 30}}]),
    "new-york": client.predict([{{"age": 30}}], metadata={{"location": "new-york"}}),
    "canary": direct.predict([{{"age": 30}}, {{"age": 31}}], metadata={{"location": "california"}}),
}}))
"""


def client_of(package: str, plane: Running) -> Path:
    """The interpreter of an environment with the client as it is on PyPI: the two cannot share one with each other."""
    folder = plane.folder.parent / package
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    subprocess.run([uv, "venv", "--quiet", "--allow-existing", folder], check=True)
    python = folder / "bin" / "python"
    requirement = f"{package}=={CLIENTS[package]}"
    done = subprocess.run(
        [uv, "pip", "install", "--quiet", "--python", python, requirement], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{requirement} could not be installed, which this test needs: {done.stderr}"
    return python


class TestChanges:
    def test_a_weight_changes_at_once_and_no_request_fails(self, plane: Running, served: Served):
        with load(plane, location="california") as clients:
            served.apply(*prod(share=50))
            eventually(lambda: clients.last(400)["canary"] > 100)
        assert clients.failures == []

    def test_a_new_build_takes_over_under_load_and_no_request_fails(self, plane: Running, served: Served):
        with load(plane) as clients:
            assert clients.answers == {"first"}
            served.apply(*prod(default="churn-2"))
            eventually(lambda: clients.answers == {"second"})
        assert clients.failures == []
        builds = {pod["metadata"]["labels"]["trueup.dev/build-id"] for pod in plane.pods("prod", variation="default")}
        assert len(builds) == 1, "the old build is gone"

    def test_an_already_built_model_answers_again_within_seconds_after_down_and_up(self, plane: Running):
        stopped = plane.reconcile("down", timeout=60)
        assert stopped.code == 0, stopped.text
        assert processes_with(str(plane.home)) == []
        began = time.monotonic()
        assert plane.reconcile("up").code == 0
        eventually(lambda: plane.answers("prod"))
        print(f"up to first prediction: {time.monotonic() - began:.1f} s")

    def test_a_proxy_that_is_killed_is_back_in_about_a_second(self, plane: Running):
        (proxy,) = children(plane.server(), "envoy")
        os.kill(proxy, signal.SIGKILL)
        eventually(lambda: plane.answers("prod"))

    def test_a_data_plane_that_is_killed_leaves_nothing_and_comes_back(self, plane: Running):
        os.kill(plane.server(), signal.SIGKILL)
        assert plane.reconcile("down").code == 0
        assert processes(plane) == []
        assert plane.reconcile("up").code == 0
        eventually(lambda: plane.answers("prod"))

    def test_kubectl_shows_what_runs(self, plane: Running):
        pods = plane.kubectl("get", "pods", "-n", "prod")
        assert pods.returncode == 0, pods.stderr
        assert "1/1" in pods.stdout
        logs = plane.kubectl("logs", "-n", "prod", "-l", "trueup.dev/variation=default", "-c", "model", "--tail=5")
        assert logs.returncode == 0, logs.stderr
        assert "ready" in logs.stdout

    def test_a_pod_that_is_deleted_is_replaced_and_nobody_else_is_hurt(self, plane: Running):
        pod = plane.pods("prod", variation="default")[0]
        assert plane.kubectl("delete", "pod", "-n", "prod", pod["metadata"]["name"], "--wait=false").returncode == 0
        assert plane.answers("prod", location="new-york")
        uids = {pod["metadata"]["uid"]}
        eventually(lambda: not uids & {one["metadata"]["uid"] for one in plane.pods("prod", variation="default")})
        eventually(lambda: plane.answers("prod"))

    def test_a_variation_that_is_removed_leaves_its_traffic_to_the_others(self, plane: Running, served: Served):
        alone = variation("default", "prod", "churn-1", {"weight": 100})
        with load(plane) as clients:
            served.apply(environment("prod"), REGIONS, alone)
        assert clients.failures == []
        assert plane.shares("prod", 20, location="new-york") == Counter(default=20)
        assert plane.pods("prod", variation="canary") == []

    def test_an_environment_that_goes_takes_its_pods_along(self, plane: Running):
        (plane.folder / "specs" / "1.yaml").unlink()
        run = plane.apply()
        approval = re.search(r"--approve (\w+)", run.text)
        assert approval, run.text
        mirror = plane.repository.mirror
        gone = plane.reconcile("-f", "specs", "--mirror", mirror, "--approve", approval[1], "--wait", "60")
        assert gone.code == 0, gone.text
        eventually(lambda: plane.pods("lab") == [])
        assert plane.answers("prod")


def processes(plane: Running) -> list[str]:
    """Lines "pid args" of what this plane runs."""
    lines = subprocess.run(["ps", "-ww", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in lines.splitlines() if str(plane.home) in line]


def children(parent: int, word: str) -> list[int]:
    """The processes that one has started, by a word of their command lines."""
    lines = subprocess.run(["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = (line.split(None, 2) for line in lines.splitlines())
    return [int(pid) for pid, of, args in rows if int(of) == parent and word in args]


class Load:
    """Predictions all the time, by several clients, and what became of them."""

    def __init__(self, plane: Running, headers: dict[str, str]) -> None:
        self.failures: list[str] = []
        self._seen: list[tuple[str, str]] = []
        self._stop = threading.Event()
        address = plane.gateway("prod")
        self._threads = [threading.Thread(target=self._run, args=(address, headers)) for _ in range(4)]

    @property
    def answers(self) -> set[str]:
        """What the last predictions answered."""
        return {answer for _, answer in self._seen[-50:]}

    def last(self, count: int) -> Counter[str]:
        """The variations of the last predictions; empty while there are not so many."""
        return Counter(variation for variation, _ in self._seen[-count:] if len(self._seen) >= count)

    def _run(self, address: str, headers: dict[str, str]) -> None:
        with Client(address) as client:
            while not self._stop.is_set():
                try:
                    answer = client.predict(**headers)
                except OSError as error:
                    self.failures.append(repr(error))
                    return
                if answer.status == 200:
                    self._seen.append((answer.variation, answer.body[0]["answer"]))
                else:
                    self.failures.append(f"{answer.status}: {answer.body}")
                time.sleep(0.002)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        eventually(lambda: len(self._seen) > 100 or self.failures)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def load(plane: Running, **headers: str) -> Load:
    return Load(plane, headers)


@pytest.fixture(scope="module")
def broken(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Run]]:
    plane = place_of(installed, tmp_path_factory.mktemp("broken")).start_all()
    repository = plane.repository
    models = {
        "unimportable": "import nothing_of_this_name",
        "no-class": "x = 1",
        "raises": MODEL.format(answer="a", auc="1/0"),
        "nan": MODEL.format(answer="a", auc='float("nan")'),
        "greedy": MODEL.format(answer="a", auc="(lambda hoard: __import__('time').sleep(5) or 1)(b'x' * 10**9)"),
        "bad-example": MODEL.format(answer="a", auc="1").replace("len(rows)", "rows[0]['missing']"),
    }
    for name, text in models.items():
        repository.commit({f"{name}/main/__init__.py": text, f"{name}/main/requirements.txt": ""})
    repository.model("bad-test", "a", test="def test_it():\n    assert 1 == 2\n")
    repository.model("bad-requirements", "a", requirements="trueup-no-such-package-at-all==1\n")
    commit = repository.model("good", "fine", test="def test_it():\n    pass\n")
    names = [*models, "bad-test", "bad-requirements", "nowhere", "good"]
    builds = [build(f"{name}-1", commit, name, resources={"cpu": 0.5, "memory": "256Mi"}) for name in names]
    builds += [build("lost-1", "0" * 40, "lost"), build("strange-1", commit, "strange")]
    builds[-1]["builds"][0]["git_uri"] = "https://git.invalid/acme/strange.git#strange"
    served = [
        variation("default", "prod", f"{name}-1", {"weight": 100}, model=name) for name in [*names, "lost", "strange"]
    ]
    made = plane.apply(document(environment("prod"), *builds, *served), wait=120, timeout=200)
    plane.write("out.txt", made.text)
    yield plane, made
    plane.stop_all()


class TestBrokenModels:
    """One run with a build of each kind of mistake, and one model without."""

    @pytest.mark.parametrize(
        ("model", "cause"),
        [
            ("unimportable", "No module named 'nothing_of_this_name'"),
            ("no-class", "class"),
            ("raises", "ZeroDivisionError"),
            ("nan", "auc"),
            ("greedy", "OOMKilled"),
            ("bad-example", "missing"),
            ("bad-test", "test"),
            ("bad-requirements", "trueup-no-such-package-at-all"),
            ("nowhere", "nowhere"),
            ("lost", "0000000"),
            ("strange", "git.invalid"),
        ],
    )
    def test_the_run_says_what_is_wrong_with_a_model(self, broken: tuple[Running, Run], model: str, cause: str):
        _, made = broken
        lines = made.text.splitlines()
        (at,) = (n for n, line in enumerate(lines) if re.match(rf"x failed +Deployment/prod/{model}-default-", line))
        said = itertools.takewhile(lambda line: line.startswith("    "), lines[at + 1 :])
        why = " ".join(map(str.strip, said))
        assert why.startswith("its build failed: ")
        assert cause in why

    def test_the_others_are_served_all_the_same(self, broken: tuple[Running, Run]):
        plane, made = broken
        assert made.code != 0
        with plane.client("prod") as client:
            assert client.predict("good").body == [{"answer": "fine", "rows": 1}]
