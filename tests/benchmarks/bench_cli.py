"""The command line, cold: `--help`, one file, 1,000 and 10,000 specs.

Beside it the floor (`python -c pass`), and what `kubectl create --dry-run=client` takes for the manifests of the
1,000 specs, where there is a kubectl: it parses and checks what we parse, check, render, and plan.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks import many_specs

RECONCILE = str(Path(sys.executable).parent / "reconcile")
ONE = """\
api_version: v1
spec:
  environments:
  - name: production
  audiences:
  - name: california
    conditions:
      unary:
      - {key: location, operator: UNARY_OPERATOR_TYPE_EXACT_MATCH, operand: california}
  builds:
  - name: churn-1
    model: churn
    git_uri: https://git.example.com/models.git#churn
    git_commit: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
  variations:
  - {model: churn, name: default, environments: [production], build: churn-1, traffic: [{weight: 100}]}
  - {model: churn, name: beta, environments: [production], build: churn-1, traffic: [{audience: california}]}
"""


def main() -> None:
    """Prints a table: wall seconds (median), peak memory, and the ratio to the floor."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "one.yaml").write_text(ONE)
        for number in (1_000, 10_000):
            many_specs.write(root / str(number), number)
        floor, _ = measured([sys.executable, "-c", "pass"], 9)
        print(f"{'':44}{'seconds':>9}{'MiB':>7}{'x floor':>9}{'target':>9}")
        show("floor: python -c pass", [sys.executable, "-c", "pass"], 9, floor, "")
        show("reconcile --help", [RECONCILE, "--help"], 9, floor, "0.15")
        one = [RECONCILE, "--dry-run", "-f", str(root / "one.yaml")]
        show("dry run of one file (5 specs)", one, 9, floor, "0.35")
        show("validate 1,000 specs", [RECONCILE, "validate", "-f", str(root / "1000")], 3, floor, "")
        show("dry run of 1,000 specs", [RECONCILE, "--dry-run", "-f", str(root / "1000")], 5, floor, "1.0")
        show("dry run of 10,000 specs", [RECONCILE, "--dry-run", "-f", str(root / "10000")], 3, floor, "6.0")
        kubectl = shutil.which("kubectl")
        if kubectl is None:
            print("kubectl is not on this machine: no peer to compare with")
            return
        manifests = root / "manifests.yaml"
        with manifests.open("wb") as out:
            subprocess.run([RECONCILE, "render", "-f", str(root / "1000")], stdout=out, check=True)
        home = {"TRUEUP_HOME": str(root / "home")}
        subprocess.run([RECONCILE, "up", "--only-api"], env=os.environ | home, check=True, capture_output=True)
        try:
            show(
                "kubectl --dry-run=client, the same manifests",
                [kubectl, "create", "--dry-run=client", "-o", "name", "-f", str(manifests)],
                1,
                floor,
                "",
                env={"KUBECONFIG": str(root / "home" / "kubeconfig")},
            )
        finally:
            subprocess.run([RECONCILE, "down"], env=os.environ | home, check=True, capture_output=True)


def show(
    title: str, command: list[str], runs: int, floor: float, target: str, *, env: dict[str, str] | None = None
) -> None:
    """One row."""
    seconds, mebibytes = measured(command, runs, env)
    print(f"{title:44}{seconds:9.3f}{mebibytes:7.0f}{seconds / floor:9.1f}{target:>9}", flush=True)


def measured(command: list[str], runs: int, env: dict[str, str] | None = None) -> tuple[float, float]:
    """Median wall seconds, and the highest peak of resident memory in MiB."""
    times: list[float] = []
    peak = 0
    for _ in range(runs):
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | (env or {})) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        times.append(time.perf_counter() - started)
        assert process.returncode == 0, f"{command} ended with {process.returncode}"
        peak = max(peak, usage.ru_maxrss)
    return statistics.median(times), peak / 1024


if __name__ == "__main__":
    main()
