"""Makes the Git repository that the example specs build from: `python examples/make_repository.py DESTINATION`.

The repository is bare, and its commit ids are the same wherever and whenever it is made, so that the specs can pin
them. Its `main` is `examples/models`. The folder `.history/N` holds the files that commit N + 1 changed, as they were
before: commit N is the current tree with the folders `.history/N` and above laid over it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MODELS = Path(__file__).parent / "models"
HISTORY = MODELS / ".history"

#: What each commit says, oldest first.
MESSAGES = (
    "Three models: screening, progression, handwriting",
    "screening: logistic regression instead of boosted trees, with a better roc_auc",
    "progression: all ten measurements instead of the body mass index alone, with a better r2",
)
#: Monday, 6 January 2025, 09:00 UTC; a week between two commits.
FIRST_COMMIT = 1_736_154_000
WEEK = 7 * 24 * 3600
AUTHOR = "Acme Health <models@acme.example>"

#: Only these are code; caches and editors' files must not change the commit ids.
SUFFIXES = {".py", ".txt"}


def files(folder: Path) -> dict[str, bytes]:
    """Path -> content of the code below a folder, hidden folders and caches left out."""
    found: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith((".", "__pycache__")) for part in relative.parts)
        if path.suffix in SUFFIXES and path.is_file() and not hidden:
            found[relative.as_posix()] = path.read_bytes()
    return found


def trees() -> list[dict[str, bytes]]:
    """The tree of each commit, oldest first."""
    newest_first = [files(MODELS)]
    for number in range(len(MESSAGES) - 1, 0, -1):
        newest_first.append(newest_first[-1] | files(HISTORY / str(number)))
    return newest_first[::-1]


def stream() -> Iterator[bytes]:
    """The history as `git fast-import` reads it: no work tree, hence no ignore rules, file modes or line endings."""
    for number, (tree, message) in enumerate(zip(trees(), MESSAGES, strict=True)):
        when = f"{FIRST_COMMIT + number * WEEK} +0000"
        yield f"commit refs/heads/main\nauthor {AUTHOR} {when}\ncommitter {AUTHOR} {when}\n".encode()
        yield _data(f"{message}\n".encode())
        yield b"deleteall\n"
        for path, content in sorted(tree.items()):
            yield f"M 100644 inline {path}\n".encode() + _data(content)


def make_repository(destination: Path) -> list[str]:
    """Makes the repository and returns its commit ids, oldest first.

    Raises FileExistsError where the destination is neither new nor an empty folder.
    """
    if destination.exists() and any(destination.iterdir()):
        raise FileExistsError(f"{destination} is not empty: name a new folder")
    destination.mkdir(parents=True, exist_ok=True)
    _git(destination, "init", "--quiet", "--bare", "--template=", "--object-format=sha1", "--initial-branch=main")
    _git(destination, "fast-import", "--quiet", "--done", given=b"".join(stream()) + b"done\n")
    return _git(destination, "rev-list", "--reverse", "refs/heads/main").decode().split()


def _data(content: bytes) -> bytes:
    return b"data %d\n%b\n" % (len(content), content)


def _git(repository: Path, *arguments: str, given: bytes = b"") -> bytes:
    # The settings of the person who runs it must not matter: neither the ids nor where the repository is.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment = inherited | {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    return subprocess.run(  # noqa: S603 -- the arguments are fixed, in this file
        ["git", *arguments],  # noqa: S607 -- whichever git the shell would run
        cwd=repository,
        env=environment,
        input=given,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.stderr.write("usage: python examples/make_repository.py DESTINATION\n")
        return 2
    for commit, message in zip(make_repository(Path(arguments[0])), MESSAGES, strict=True):
        sys.stdout.write(f"{commit} {message}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
