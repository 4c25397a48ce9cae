"""From `reconcile` to a prediction: `python -m tests.benchmarks data_plane`.

A model of the examples (scikit-learn, pandas) is built once; then a new environment asks for it, and for nothing that
would have to be built. Timed from the start of the command to the first answer through the gateway, beside the least
that it can take: an interpreter that loads the same artifact and predicts once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path

from sklearn.datasets import load_breast_cancer

from tests.contract.client import Api

ROOT = Path(__file__).parents[2]
RECONCILE = Path(sys.executable).with_name("reconcile")
URI = "https://git.example.com/acme/models.git"
LOAD = """
import sys
from pathlib import Path
from runtime.model import loader
from runtime.model.api import api_of
model = loader.load(Path(sys.argv[1]))
api_of(model).call(api_of(model).decode(Path(sys.argv[2]).read_bytes(), "application/json"))
"""


def main() -> None:
    """Prints seconds for the first build, for an environment that needs none, and for a bare load."""
    with tempfile.TemporaryDirectory() as folder:
        _measure(Path(folder))


def _measure(folder: Path) -> None:
    home, repository = folder / "home", folder / "models.git"
    made = subprocess.run(
        [sys.executable, ROOT / "examples/make_repository.py", repository], check=True, capture_output=True, text=True
    )
    commit = made.stdout.split()[0]
    body = load_breast_cancer(as_frame=True).data.head(1).to_json(orient="split").encode()
    subprocess.run([RECONCILE, "up", "--home", home], check=True, capture_output=True)
    try:
        first = _seconds_to_answer(folder, home, _specs(commit, "first"), "first", body)
        print(f"first run, everything is made              {first:6.1f} s")
        again = _seconds_to_answer(folder, home, _specs(commit, "first", "second"), "second", body)
        bare = _bare(folder, home, body)
        print(f"a new environment, the build is there      {again:6.1f} s   (target 10 s)")
        print(f"a bare interpreter loads it and predicts   {bare:6.1f} s   ratio {again / bare:.1f}")
    finally:
        subprocess.run([RECONCILE, "down", "--home", home], check=True, capture_output=True)


def _specs(commit: str, *environments: str) -> str:
    size = {"number_of_pods": 1, "number_of_http_server_workers": 1, "cpu_fraction": 0.25, "memory": "1Gi"}
    build = {"name": "screening-1", "model": "screening", "git_uri": f"{URI}#screening", "git_commit": commit}
    build["environment"] = environments[0]
    served = {"model": "screening", "name": "default", "environments": list(environments), "build": "screening-1"}
    specs = {
        "environments": [{"name": name} for name in environments],
        "builds": [build],
        "variations": [{**served, "deployment": size, "traffic": [{"weight": 100}]}],
    }
    return json.dumps({"api_version": "v1", "spec": specs})


def _seconds_to_answer(folder: Path, home: Path, specs: str, environment: str, body: bytes) -> float:
    (folder / "specs.yaml").write_text(specs)
    began = time.monotonic()
    mirror = f"{URI}=file://{folder / 'models.git'}"
    command = [RECONCILE, "-f", folder / "specs.yaml", "--home", home, "--mirror", mirror, "--wait", "300"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    api = Api(home / "kubeconfig", "embedded")
    try:
        while not _answers(api, environment, body):
            time.sleep(0.02)
        return time.monotonic() - began
    finally:
        running.wait()
        api.close()


def _answers(api: Api, environment: str, body: bytes) -> bool:
    path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{environment}/gateways/trueup"
    answer = api("GET", path)
    if answer.status != 200 or not answer.body.get("status", {}).get("addresses"):
        return False
    gateway = answer.body
    addresses = gateway["status"]["addresses"]
    connection = HTTPConnection(addresses[0]["value"], gateway["spec"]["listeners"][0]["port"], timeout=10)
    try:
        connection.request("POST", "/v1/screening/predict", body, {"content-type": "application/json"})
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _bare(folder: Path, home: Path, body: bytes) -> float:
    """The artifact and its packages are where a server of this machine has them."""
    cache = home / "data" / "cache"
    (python,) = cache.glob("environments/*/bin/python")
    artifact = next(path.parent for path in cache.rglob("artifact.json"))
    (folder / "body.json").write_bytes(body)
    began = time.monotonic()
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    subprocess.run([python, "-c", LOAD, artifact, folder / "body.json"], check=True, env=environment)
    return time.monotonic() - began
