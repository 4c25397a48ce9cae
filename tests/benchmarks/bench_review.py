"""A pull request: `--base` over 1,000 specs of which 10 changed, and `--watch` after one of them is saved.

Beside them, on the manifests of the models that changed: `kubectl diff --server-side` against an embedded API server
that has the base, which answers the same question of a reviewer, and `kubernetes-validate`, which only looks whether
they are well formed. Neither reads specs, and both get the manifests ready-made.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks import many_specs
from tests.benchmarks.server import api_server
from tests.contract.client import KUBECTL

BIN = Path(sys.executable).parent
RECONCILE = str(BIN / "reconcile")
SPECS, CHANGED, SAVES = 1_000, 10, 9
#: What kubernetes-validate has schemas of.
BUILT_IN = frozenset({"v1", "apps/v1", "batch/v1", "policy/v1", "networking.k8s.io/v1"})


def main() -> None:
    """Prints a table: wall and CPU seconds (median) with the children's, and the targets."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        changed = make(root / "all", SPECS)
        print(f"{'':58}{'wall s':>9}{'CPU s':>9}{'target':>9}")
        show("floor: python -c pass", [sys.executable, "-c", "pass"], root, runs=9)
        base = [RECONCILE, "--dry-run", "--base", "main"]
        show(f"--base: {SPECS:,} specs, {CHANGED} changed", base, root / "all", runs=5, target="0.80")
        show("the same, as a comment", [*base, "-o", "markdown"], root / "all", runs=5)
        show(f"no base: all {SPECS:,} specs planned", base[:2], root / "all", runs=3)
        watch(root / "all", changed[0])
        peers(root, changed)


def make(repository: Path, number: int) -> list[Path]:
    """A repository with specs on `main`, and the work tree of a branch where ten variations have more memory."""
    many_specs.write(repository / "specs", number)
    git(repository, "init", "-q", "-b", "main")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "the specs")
    changed = sorted((repository / "specs" / "variations").glob("*-a.yaml"))[:CHANGED]
    for path in changed:
        path.write_text(path.read_text().replace("memory: 2Gi", "memory: 3Gi"))
    return changed


def watch(repository: Path, path: Path) -> None:
    """Saves one file again and again: from the save to the end of the plan, and what the plan says that it took."""
    command = [RECONCILE, "--dry-run", "--base", "main", "--watch"]
    seen: list[float] = []
    planned: list[float] = []
    with subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ends = filter(None, (re.search(r"planned in (\d+) ms", line) for line in process.stdout))
        next(ends)
        for number in range(SAVES):
            time.sleep(0.3)  # a person
            saved = time.perf_counter()
            path.write_text(re.sub(r"memory: \d+Gi", f"memory: {number + 5}Gi", path.read_text()))
            planned.append(int(next(ends)[1]) / 1000)
            seen.append(time.perf_counter() - saved)
        process.terminate()
    print(f"{'--watch: one of them saved, until its plan is there':58}{statistics.median(seen):9.3f}")
    print(f"{'  of that, the plan, as it says':58}{statistics.median(planned):9.3f}{'':9}{'0.10':>9}", flush=True)


def peers(root: Path, changed: Sequence[Path]) -> None:
    """What others take for the manifests of the changed models alone."""
    models = [path.stem.removesuffix("-a") for path in changed]
    few = root / "few"
    for path in (root / "all" / "specs").rglob("*.yaml"):
        number = re.search(r"\d+", path.stem)
        if path.parent.name == "environments" or (number and f"model-{number[0]}" in models):
            target = few / path.relative_to(root / "all")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(path.read_text())
    head, before, plain = (root / f"{name}.json" for name in ("head", "base", "plain"))
    head.write_text(rendered(few))
    for path in few.rglob("*-a.yaml"):
        path.write_text(re.sub(r"memory: \d+Gi\n      env_vars", "memory: 2Gi\n      env_vars", path.read_text()))
    before.write_text(rendered(few))
    items = json.loads(head.read_text())["items"]
    known = [item for item in items if item["apiVersion"] in BUILT_IN]
    plain.write_text("".join(f"---\n{json.dumps(item)}\n" for item in known))
    with api_server() as kubeconfig:
        kubectl = [KUBECTL, f"--kubeconfig={kubeconfig}"]
        for namespace in sorted({item["metadata"].get("namespace", "") for item in items} - {""}):
            subprocess.run([*kubectl, "create", "namespace", namespace], capture_output=True, check=False)
        apply = [*kubectl, "apply", "--server-side", "--validate=false", "-f", str(before)]
        subprocess.run(apply, capture_output=True, check=True)
        diff = [*kubectl, "diff", "--server-side", "--force-conflicts", "-f", str(head)]
        show(f"kubectl diff --server-side: their {len(items)} objects", diff, root, runs=1, codes=(1,))
    validate = [str(BIN / "kubernetes-validate"), "--quiet", str(plain)]
    show(f"kubernetes-validate: {len(known)} of them that it knows", validate, root, runs=1)
    show("reconcile validate: the specs of all", [RECONCILE, "validate"], root / "all", runs=3)


def rendered(folder: Path) -> str:
    return subprocess.check_output([RECONCILE, "render", "-o", "json"], cwd=folder, text=True)


class Cost(NamedTuple):
    """Seconds."""

    wall: float
    cpu: float


def show(
    title: str, command: Sequence[str], folder: Path, *, runs: int, target: str = "", codes: Sequence[int] = (0,)
) -> None:
    """One row."""
    costs = [measured(command, folder, codes) for _ in range(runs)]
    wall, cpu = (statistics.median(column) for column in zip(*costs, strict=True))
    print(f"{title:58}{wall:9.3f}{cpu:9.3f}{target:>9}", flush=True)


def measured(command: Sequence[str], folder: Path, codes: Sequence[int]) -> Cost:
    """What a process and its children took."""
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode in codes, f"{command} ended with {process.returncode}"
    return Cost(time.perf_counter() - started, usage.ru_utime + usage.ru_stime)


def git(folder: Path, *arguments: str) -> None:
    """With nothing of this machine's settings."""
    identity: Mapping[str, str] = {
        f"GIT_{role}_{what}": "a@b" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    subprocess.run(["git", *arguments], cwd=folder, env={**os.environ, **identity, "HOME": "/nowhere"}, check=True)


if __name__ == "__main__":
    main()
