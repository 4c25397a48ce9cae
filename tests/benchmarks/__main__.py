"""`python -m tests.benchmarks [NAME ...]`: every benchmark, each beside a peer or a ceiling of the same run.

Nothing here fails for being slow: machines are noisy, and a ratio to something measured a moment ago is what lasts.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main() -> None:
    """Runs the benchmarks whose names are given, or all."""
    found = sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))
    for name in [f"bench_{word}" for word in sys.argv[1:]] or found:
        print(f"\n== {name}", flush=True)
        importlib.import_module(f"tests.benchmarks.{name}").main()


if __name__ == "__main__":
    main()
