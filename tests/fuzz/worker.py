"""One target in this process: `python -m tests.fuzz.worker NAME FOLDER SECONDS`, or `... NAME --replay FILE`.

atheris guides by coverage: it changes inputs, and keeps those that reach new branches. It wants a process of its own,
because it ends it. It is built for few platforms; elsewhere Hypothesis changes the same seeds, without a guide.
"""

from __future__ import annotations

import faulthandler
import importlib
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from tests.fuzz.targets.target import Target, load, seeds

#: One input may take as long, in seconds. Thousands of times what it takes as a rule: this is for what hangs.
PATIENCE = 15
#: All of the process, in MiB; a tenth of it is there before the first input.
MEMORY = 1500
CRASH = "crash"
#: atheris' releases, as of 3.1: CPython on Linux x86-64 with glibc.
WITHOUT_ATHERIS = "atheris is not installed: it has wheels for CPython 3.11 to 3.14 on Linux x86-64 with glibc alone"


def main() -> None:
    name, *rest = sys.argv[1:]
    if rest[0] == "--replay":
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        strict(load(name))(Path(rest[1]).read_bytes())
        return
    folder, seconds, engine = Path(rest[0]), float(rest[1]), rest[2]
    (guided if engine == "atheris" else unguided)(name, folder, seconds)


def guided(name: str, folder: Path, seconds: float) -> NoReturn:
    """Never returns. libFuzzer prints what it counts to stderr, and writes what breaks the target into the folder."""
    import atheris

    with atheris.instrument_imports(include=["schemas", "renderers", "reconciler", "runtime.resolve", "tests.fuzz"]):
        target = load(name)
    corpus, found, words = folder / "corpus", folder / "found", folder / "words"
    for each in (corpus, found):
        each.mkdir()
    for number, seed in enumerate(seeds(name, target)):
        (corpus / str(number)).write_bytes(seed)
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words) or "# none\n")
    options = {
        "max_total_time": max(1, round(seconds)),
        "max_len": target.max_bytes,
        "timeout": PATIENCE,
        "rss_limit_mb": MEMORY,
        "artifact_prefix": f"{folder}/{CRASH}-",
        "dict": str(words),
        "print_final_stats": 1,
    }
    given = [f"-{key}={value}" for key, value in options.items()]
    atheris.Setup([sys.argv[0], *given, str(found), str(corpus)], strict(target))
    atheris.Fuzz()
    raise AssertionError("libFuzzer ends the process")


def unguided(name: str, folder: Path, seconds: float) -> None:
    """The seeds, and what Hypothesis makes of them and of nothing. Prints in libFuzzer's words."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st

    target = load(name)
    check, known = strict(target), seeds(name, target)
    executed, until = 0, time.monotonic() + seconds

    def tried(data: bytes) -> None:
        nonlocal executed
        executed += 1
        try:
            faulthandler.dump_traceback_later(PATIENCE, exit=True)
            (folder / CRASH).write_bytes(data)  # what hangs or kills the process leaves it there
            check(data)
        except Exception:
            traceback.print_exc()
            (folder / f"{CRASH}-of-hypothesis").write_bytes(data)
            raise

    @st.composite
    def changed(draw: st.DrawFn) -> bytes:
        seed = bytearray(draw(st.sampled_from([b"", *known])))
        for _ in range(draw(st.integers(0, 4))):
            start = draw(st.integers(0, len(seed)))
            end = draw(st.integers(start, min(len(seed), start + 16)))
            seed[start:end] = draw(st.binary(max_size=16) | st.sampled_from([b"", *(w.encode() for w in target.words)]))
        return bytes(seed[: target.max_bytes])

    began = time.monotonic()
    for data in known:
        tried(data)
    rounds = 0
    while time.monotonic() < until:
        rounds += 1
        quiet = settings(
            max_examples=50,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        seeded(rounds)(quiet(given(changed())(tried)))()
    faulthandler.cancel_dump_traceback_later()
    (folder / CRASH).unlink(missing_ok=True)
    sys.stderr.write(f"stat::number_of_executed_units: {executed}\n")
    sys.stderr.write(f"stat::average_exec_per_sec: {executed / max(time.monotonic() - began, 0.001):.0f}\n")


def strict(target: Target) -> Callable[[bytes], None]:
    """The check, with warnings as errors: what strangers write makes nobody's log longer."""

    def check(data: bytes) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            target.check(data)

    return check


def _escaped(word: str) -> str:
    return "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\' else f"\\x{b:02x}" for b in word.encode())


if __name__ == "__main__":
    importlib.invalidate_caches()
    main()
