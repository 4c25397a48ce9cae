"""Reading YAML, beside PyYAML's CSafeLoader: `python -m tests.benchmarks reader`.

CPU seconds, the best of some interleaved rounds. The strict reader is allowed to cost as much as the loader
that it replaces (ratio 1.00); it has been about half on small files.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping

import yaml

from schemas.reader import Limits, read

SMALL_FILES = 5_000
BIG_BYTES = 5_000_000
ROUNDS = 5


def variation(number: int) -> str:
    return f"""\
# Owned by the pricing team
api_version: v1
spec:
  variations:
    - model: churn-{number % 50}
      name: variation-{number}
      build: churn-{number % 50}
      environments: [staging, production]
      deployment:
        pods: {number % 5 + 1}
        cpu: 0.5
        memory: 512Mi
        workers: 2
        daemon_mode: true
        env_vars:
          LOG_LEVEL: info
          THRESHOLD: "0.65"
      traffic:
        - audience: new-york
          weight: 100
          shadow: false
        - weight: {number % 100}
          shadow: true
      rollout:
        canary:
          steps: [{{weight: 10, hold: 5m}}, {{weight: 50, hold: 10m}}]
"""


def best_of(candidates: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    best = dict.fromkeys(candidates, float("inf"))
    for _ in range(rounds):
        for name, run in candidates.items():
            gc.collect()
            start = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - start)
    return best


def table(title: str, best: dict[str, float]) -> None:
    peer = best["CSafeLoader"]
    print(title)
    for name, seconds in best.items():
        print(f"  {name:<28} {seconds:7.3f} s  {seconds / peer:5.2f}x")


def main() -> None:
    files = [variation(number).encode() for number in range(SMALL_FILES)]
    small = {
        "CSafeLoader": lambda: [yaml.load(content, yaml.CSafeLoader) for content in files],
        "reader": lambda: [read("f", content) for content in files],
        "reader, every position": lambda: [read("f", content, marks=True) for content in files],
    }
    table(f"{SMALL_FILES:,} files of {len(files[0])} bytes", best_of(small, ROUNDS))

    entry = "".join(variation(1).splitlines(keepends=True)[4:])
    big_file = ("api_version: v1\nspec:\n  variations:\n" + entry * (BIG_BYTES // len(entry))).encode()
    limits = Limits(bytes=1 << 30, nodes=1 << 30)
    big = {
        "CSafeLoader": lambda: yaml.load(big_file, yaml.CSafeLoader),
        "reader": lambda: read("f", big_file, limits),
        "reader, every position": lambda: read("f", big_file, limits, marks=True),
    }
    table(f"1 file of {len(big_file):,} bytes", best_of(big, 2))


if __name__ == "__main__":
    main()
