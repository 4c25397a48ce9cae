"""One target for some time, in a process of its own, and what came of it."""

from __future__ import annotations

import base64
import importlib.util
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import worker
from tests.fuzz.targets.target import ROOT

#: Seconds beyond those that were asked for: the start, and one input that hangs.
_GRACE = 60 + worker.PATIENCE


@dataclass(frozen=True)
class Outcome:
    """`broken_by` are the bytes that the target does not take as it should, and `why` what happened then.

    `coverage` counts the branches that were reached, 0 where nobody counts.
    """

    target: str
    engine: str
    executions: int
    per_second: int
    coverage: int
    broken_by: bytes | None = None
    why: str = ""

    def __str__(self) -> str:
        reached = f", {self.coverage:,} branches reached" if self.coverage else ""
        told = f"{self.target}: {self.executions:,} executions, {self.per_second:,} a second{reached} ({self.engine})"
        if self.broken_by is None:
            return told
        reproducer = base64.b64encode(self.broken_by).decode()
        again = f"python -m tests.fuzz {self.target} --replay {reproducer}"
        return f"{told}\n{self.why}\nbroken by {self.broken_by[:200]!r}\nagain with: {again}"


def engine() -> str:
    """What can be had here: "atheris", or "hypothesis"."""
    return "atheris" if importlib.util.find_spec("atheris") else "hypothesis"


def run(target: str, seconds: float, engine: str) -> Outcome:
    """Tries a target. Raises RuntimeError where the process says neither how far it came nor what broke it."""
    with tempfile.TemporaryDirectory(prefix="trueup-fuzz-") as name:
        folder = Path(name)
        command = [sys.executable, "-m", "tests.fuzz.worker", target, str(folder), str(seconds), engine]
        ended = subprocess.run(
            command, cwd=ROOT, capture_output=True, timeout=seconds + _GRACE, check=False, env=_environment(folder)
        )
        said = ended.stderr.decode(errors="replace")
        crash = next((path.read_bytes() for path in sorted(folder.glob(f"{worker.CRASH}*")) if _is_fatal(path)), None)
        counted = {key: int(float(value)) for key, value in re.findall(r"stat::(\w+):\s+([\d.]+)", said)}
        if crash is None and (ended.returncode != 0 or not counted):
            raise RuntimeError(f"the process of {target} ended with {ended.returncode}:\n{said[-4000:]}")
        why = "" if crash is None else _traceback(said) or replay(target, crash)
    return Outcome(
        target,
        engine,
        counted.get("number_of_executed_units", 0),
        counted.get("average_exec_per_sec", 0),
        max(map(int, re.findall(r"\bcov: (\d+)", said)), default=0),
        crash,
        why,
    )


def replay(target: str, data: bytes) -> str:
    """What happens with these bytes alone; "" where they are taken as they should be."""
    with tempfile.TemporaryDirectory(prefix="trueup-fuzz-") as name:
        path = Path(name, "input")
        path.write_bytes(data)
        command = [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz.worker", target, "--replay", str(path)]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, env=_environment(Path(name)))
        said = ended.stderr.decode(errors="replace").strip()
        return said or f"it ended with {ended.returncode}" if ended.returncode else ""


def _is_fatal(path: Path) -> bool:
    """libFuzzer keeps what was merely slow as well; what takes longer than its patience is another file."""
    return "slow-unit" not in path.name


def _traceback(said: str) -> str:
    begins = said.find("=== Uncaught Python exception: ===")
    begins = begins if begins >= 0 else said.find("Traceback (most recent call last)")
    if begins < 0:
        return ""
    return said[begins:].partition("\n==")[0].strip()[-6000:]


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of ours that a target could read or leave behind."""
    return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(folder), "TMPDIR": str(folder)}
