"""A better model replaces a worse one, and nothing else does: `python examples/promotion.py HOME MIRROR`.

Three commits reach the models' repository, one after the other. The first is better, and takes over in production
while requests flow. The second is worse, and is rejected. The third passes its gate, and fails in front of patients:
its traffic is given back by itself. It ends with an error where any of that does not come true.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from http.client import HTTPConnection
from pathlib import Path

from kubernetes import client, config
from make_repository import AUTHOR, MODELS
from sklearn.datasets import load_diabetes

RECONCILE = Path(sys.executable).with_name("reconcile")
SPECS = Path(__file__).parent / "specs"
AUTOMATION, MODEL, PRODUCTION = "progression-weekly", "progression", "acme-health"
MESSAGES = (
    "progression: a ridge regression and boosted trees, averaged",
    "progression: only what is cheap to measure",
    "progression: curves, and the strain on the heart",
)


class Tour:
    """What the acts share: the command, the repository, and what the records say."""

    def __init__(self, home: Path, mirror: str) -> None:
        self.home, self.mirror = home, mirror

    def commit(self, number: int) -> None:
        """A data scientist pushes the next version of the model to main."""
        version = MODELS / ".later" / str(number) / MODEL / "main" / "model.py"
        content = version.read_bytes()
        message = f"{MESSAGES[number - 1]}\n".encode()
        when = f"{int(time.time())} +0000"  # noqa: TID251 - a commit is of the moment
        stream = (
            f"commit refs/heads/main\nauthor {AUTHOR} {when}\ncommitter {AUTHOR} {when}\n".encode()
            + b"data %d\n%b\nfrom refs/heads/main^0\n" % (len(message), message)
            + f"M 100644 inline {MODEL}/main/model.py\n".encode()
            + b"data %d\n%b\ndone\n" % (len(content), content)
        )
        repository = self.home / "models.git"
        subprocess.run(["git", "fast-import", "--quiet", "--done"], cwd=repository, input=stream, check=True)  # noqa: S607 - as in a shell
        print(f"\n-- {MESSAGES[number - 1]}")

    def run(self, *arguments: str) -> str:
        """A command of Trueup's; what it prints."""
        command = [str(RECONCILE), *arguments, "--home", str(self.home)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own command
        if done.returncode not in (0, 4):
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def reconcile(self) -> None:
        """Until nothing goes on by itself. How builds and promotions move on is shown."""
        told = self.run("-f", str(SPECS), "--mirror", self.mirror, "--wait", "300", "-o", "json")
        shown = {}
        for one in json.loads(told)["told"]:
            if MODEL in one["where"]:
                shown[one["where"]] = one["message"]
        for where, message in shown.items():
            print(f"   {where}: {message}")

    def train(self) -> str:
        """A run of the automation. The id of its build."""
        self.run("trigger", AUTOMATION, "-f", str(SPECS), "--mirror", self.mirror)
        self.reconcile()
        builds = [b for b in self.records()["builds"] if b["spec"]["automation"] == AUTOMATION]
        return str(max(builds, key=lambda build: build["spec"]["cause"]["at"])["spec"]["id"])

    def approve(self, build: str) -> None:
        """A doctor agrees to what staging has shown."""
        self.run("approve", f"{MODEL}.default.production.{build[:8]}-1", "--reason", "looks good in staging")

    def records(self) -> dict[str, list[dict[str, dict[str, dict[str, str]]]]]:
        """Builds and promotions of the model."""
        records: dict[str, list[dict[str, dict[str, dict[str, str]]]]]
        records = json.loads(self.run("history", MODEL, "-o", "json"))
        return records

    def phase(self, build: str, environment: str) -> str:
        """Where the promotion of a build to an environment stands."""
        for promotion in self.records()["promotions"]:
            if promotion["spec"]["build"] == build and promotion["spec"]["environment"] == environment:
                return str(promotion["status"]["phase"])
        return "none"

    def expect(self, build: str, **phases: str) -> None:
        """Ends the tour where a promotion stands elsewhere."""
        for environment, wanted in phases.items():
            if (found := self.phase(build, environment)) != wanted:
                raise SystemExit(f"build {build[:8]} should be {wanted} in {environment}, and is {found}")


class Patients(threading.Thread):
    """They ask all the time. `answers` counts (HTTP status, build)."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self._connection = HTTPConnection(address, timeout=30)
        self._patients = load_diabetes(as_frame=True, scaled=False).data
        self._over = threading.Event()
        self.answers: Counter[tuple[int, str]] = Counter()

    def run(self) -> None:
        """Until the end of the act."""
        number = 0
        while not self._over.wait(0.01):
            number = (number + 1) % len(self._patients)
            body = self._patients.iloc[[number]].to_json(orient="split")
            self._connection.request("POST", f"/v1/{MODEL}/predict", body, {"content-type": "application/json"})
            response = self._connection.getresponse()
            response.read()
            self.answers[response.status, response.headers.get("x-trueup-build-id", "nobody")] += 1

    def __enter__(self) -> Patients:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()
        for (status, build), count in sorted(self.answers.items()):
            print(f"   {count:5} answers {status} from build {build[:8]}")

    def ask(self, build: str, count: int) -> None:
        """Until so many answers have come from a build."""
        until = time.monotonic() + 30
        while sum(n for (_, whose), n in self.answers.items() if whose[:8] == build[:8]) < count:
            if time.monotonic() > until:
                raise SystemExit(f"build {build[:8]} answers nobody")
            time.sleep(0.1)


def gateway() -> str:
    """host:port of production."""
    gateways = client.CustomObjectsApi()
    body = gateways.get_namespaced_custom_object("gateway.networking.k8s.io", "v1", PRODUCTION, "gateways", "trueup")
    return f"{body['status']['addresses'][0]['value']}:{body['spec']['listeners'][0]['port']}"


def main() -> None:
    """The three acts, and what is remembered of them."""
    tour = Tour(Path(sys.argv[1]).resolve(), sys.argv[2])
    config.load_kube_config(str(tour.home / "kubeconfig"))

    if any(one["spec"]["expected_current"] for one in tour.records()["promotions"]):
        print("This has happened here before; `make down && rm -r .trueup` forgets it.")
        print(tour.run("history", MODEL))
        return

    tour.commit(1)
    better = tour.train()
    tour.expect(better, staging="Succeeded", production="AwaitingApproval")
    tour.approve(better)
    with Patients(gateway()) as patients:
        tour.reconcile()
        patients.ask(better, 10)
    tour.expect(better, production="Succeeded")
    if failed := sum(count for (status, _), count in patients.answers.items() if status != 200):
        raise SystemExit(f"{failed} requests failed while the better build took over")

    tour.commit(2)
    worse = tour.train()
    tour.expect(worse, staging="Rejected")
    print(tour.run("explain", f"{MODEL}.default.staging.{worse[:8]}-1"))

    tour.commit(3)
    fragile = tour.train()
    tour.expect(fragile, staging="Succeeded", production="AwaitingApproval")
    tour.approve(fragile)
    with Patients(gateway()) as patients:
        tour.reconcile()
    tour.expect(fragile, production="RolledBack")
    with Patients(gateway()) as patients:
        patients.ask(better, 50)
    if any(whose[:8] != better[:8] or status != 200 for status, whose in patients.answers):
        raise SystemExit("the build that failed still answers somebody")

    print("\n-- What is remembered: reconcile history progression")
    print(tour.run("history", MODEL))


if __name__ == "__main__":
    main()
