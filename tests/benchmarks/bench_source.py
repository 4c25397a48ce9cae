"""Following a repository of 10,000 specs, beside bare git commands: `python -m tests.benchmarks source`.

Wall and CPU seconds, those of git included: the median of several runs. The ceiling of each is the git command that
nobody can do without, with its output thrown away. The repository is a folder, so there is no network in it.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from reconciler.source.mirror import Mirror, Revision
from tests.benchmarks.many_specs import write

SPECS = 10_000
RUNS = 7


class Took(NamedTuple):
    """Medians, in milliseconds."""

    wall: float
    cpu: float


def git(folder: Path, *arguments: str, given: bytes = b"") -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@b", "-c", "gc.auto=0")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, input=given, check=True, capture_output=True).stdout.decode().strip()


def bare(folder: Path, *arguments: str, given: bytes = b"") -> None:
    subprocess.run(["git", *arguments], cwd=folder, input=given, check=True, stdout=subprocess.DEVNULL)


def cpu() -> float:
    both = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def measure(run: Callable[[], object], before: Callable[[], object] = lambda: None) -> Took:
    """`before` makes the world that is measured, and is not."""
    walls, cpus = [], []
    for _ in range(RUNS):
        before()
        wall, used = time.perf_counter(), cpu()
        run()
        walls.append(time.perf_counter() - wall)
        cpus.append(cpu() - used)
    return Took(statistics.median(walls) * 1000, statistics.median(cpus) * 1000)


def report(title: str, ours: Took, ceiling: Took) -> None:
    print(
        f"  {title:<32} {ours.wall:7.1f} ms wall {ours.cpu:7.1f} ms CPU   "
        f"git alone {ceiling.wall:7.1f} ms wall {ceiling.cpu:7.1f} ms CPU"
    )


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="trueup-bench-") as name:
        work, peer = Path(name) / "work", Path(name) / "peer.git"
        work.mkdir()
        git(work, "init", "-q", "-b", "main")
        write(work, SPECS)
        git(work, "add", "-A")
        git(work, "commit", "-qm", "all")
        git(work, "repack", "-adq")
        git(work.parent, "clone", "-q", "--bare", str(work), str(peer))
        one = next(iter(sorted((work / "variations").iterdir())))
        url = work.as_uri()
        mirror = Mirror(Path(name) / "mirror", url, "main", allow_file=True)

        def stands_at() -> str:
            revision = mirror.fetch()
            assert isinstance(revision, Revision), revision
            return revision.commit

        def commit() -> None:
            one.write_text(one.read_text(encoding="utf-8") + "# more\n", encoding="utf-8")
            git(work, "commit", "-qam", "one")

        began, used = time.perf_counter(), cpu()
        old = stands_at()
        print(f"{SPECS:,} specs; the first fetch: {time.perf_counter() - began:.2f} s wall, {cpu() - used:.2f} s CPU")

        fetch = ("fetch", "-q", "--no-tags", url, "+refs/heads/main:refs/heads/main")
        report("poll without news", measure(stands_at), measure(lambda: bare(peer, "ls-remote", "--heads", url)))
        report("poll and fetch of one commit", measure(stands_at, commit), measure(lambda: bare(peer, *fetch), commit))

        new = stands_at()
        bare(peer, *fetch)
        listed = git(peer, "ls-tree", "-r", "--object-only", new).encode()

        def blobs() -> None:
            bare(peer, "ls-tree", "-r", "--long", new)
            bare(peer, "cat-file", "--batch", "--buffer", given=listed)

        report(f"files: all {SPECS:,}", measure(lambda: mirror.files(new)), measure(blobs))
        assert len(mirror.files(old).content) == SPECS
        blob = git(peer, "rev-parse", f"{new}:{one.relative_to(work)}").encode()

        def difference() -> None:
            bare(peer, "diff-tree", "-r", old, new)
            bare(peer, "cat-file", "--batch", given=blob)

        changes = mirror.changed(old, new)
        assert changes is not None
        assert len(changes) == 1
        report(f"changed: 1 of {SPECS:,}", measure(lambda: mirror.changed(old, new)), measure(difference))
        report(
            "is_ancestor",
            measure(lambda: mirror.is_ancestor(old, new)),
            measure(lambda: bare(peer, "merge-base", "--is-ancestor", old, new)),
        )


if __name__ == "__main__":
    main()
