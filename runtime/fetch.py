"""`runtime fetch`: the code of a repository at exactly one commit, as plain files.

Files are written from git's object database, not by a checkout: no hook, filter, attribute, submodule or large-file
program takes part, and no name or link leads out of the folder.
"""

from __future__ import annotations

import argparse
import os
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, NamedTuple

from runtime.exits import Exit, Failure, report
from runtime.logs import Log, Secrets
from runtime.processes import Ended, interruptible, run
from runtime.repositories import (
    STEP,
    Source,
    check_commit,
    complaint,
    git_environment,
    parse_mirrors,
    read_credential,
    source,
)

#: What a repository may have: beyond it, the volume of the pod would be full before anything is built.
MAX_BYTES = 4 << 30
MAX_FILES = 200_000
#: Seconds that git may take to fetch.
TIMEOUT = 1800.0

_LARGE_FILE_POINTER = b"version https://git-lfs.github.com/spec/v1\n"


def main(options: argparse.Namespace) -> int:
    """Fetches, and leaves a result for the kubelet. Returns the exit code."""
    log = Log(sys.stdout, Secrets(os.environ))
    try:
        with interruptible():
            result = _fetch(options, log)
    except Failure as failure:
        log.say(str(failure))
        report(failure.result(), options.result)
        return failure.code
    report(result, options.result)
    return Exit.DONE


def _fetch(options: argparse.Namespace, log: Log) -> dict[str, str | int]:
    commit = check_commit(options.commit)
    credential = read_credential(options.credentials) if options.credentials is not None else None
    if credential is not None:
        log.secrets = Secrets(os.environ, *credential.secrets())
    where = source(options.repository, _mirrors(), credential)
    try:
        with log.step(f"fetching {where.repository} at {commit}"):
            fetched = fetch(where, commit, options.into, log)
            log.say(f"    {fetched.files} files, {fetched.bytes} bytes")
        if options.copy_runtime is not None:
            from runtime.copy import copy_runtime  # noqa: PLC0415 - most builds have no image of their own

            with log.step(f"leaving a copy of the runtime in {options.copy_runtime}"):
                copy_runtime(options.copy_runtime)
    except OSError as error:
        raise Failure(STEP, f"{error.strerror or error}: {error.filename}", Exit.DISTURBED) from error
    return {"commit": commit, "files": fetched.files, "bytes": fetched.bytes}


def _mirrors() -> dict[str, str]:
    """Lines `FROM=TO`, in a variable or in a file that a variable names: the embedded data plane keeps one."""
    text = os.environ.get("TRUEUP_GIT_MIRRORS", "")
    if name := os.environ.get("TRUEUP_GIT_MIRRORS_FILE"):
        with suppress(FileNotFoundError):
            text += "\n" + Path(name).read_text(encoding="utf-8")
    return parse_mirrors(text)


class Fetched(NamedTuple):
    """How much was written."""

    files: int
    bytes: int


def fetch(where: Source, commit: str, into: Path, log: Log, max_bytes: int = MAX_BYTES) -> Fetched:
    """Writes the files of the commit to the folder `into`, which holds all of them or is not there.

    What an earlier run left there is replaced; a folder of somebody else's is not touched. Raises Failure, OSError.
    """
    note, partial = into.with_name(f"{into.name}.commit"), into.with_name(f"{into.name}.partial")
    if into.exists() and any(into.iterdir()) and not note.exists():
        raise Failure(STEP, f"{into} has files in it already: name a new folder", Exit.DISTURBED)
    for folder in (into, partial):
        shutil.rmtree(folder, ignore_errors=True)
    partial.mkdir(parents=True)
    note.write_text(f"{commit}\n")
    try:
        # Beside the code, for a folder in memory would not have the room.
        with TemporaryDirectory(prefix=".trueup-git-", dir=into.parent) as scratch:
            git = _Git(where, commit, Path(scratch), log, max_bytes=max_bytes)
            git.fetch()
            fetched = _write(git, partial, log)
        partial.rename(into)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return fetched


class Entry(NamedTuple):
    """A file of a commit."""

    mode: str
    object: str
    size: int
    path: str


#: What a server sends may have no end; no core dump, for it would hold the token. In blocks of 512 bytes.
_LIMITED = 'ulimit -c 0; ulimit -f "$1"; shift; exec "$@"'


class _Git:
    """One repository of git's, for one commit."""

    def __init__(self, where: Source, commit: str, folder: Path, log: Log, *, max_bytes: int) -> None:
        self.where, self.commit, self.max_bytes = where, commit, max_bytes
        self._folder = folder
        self._repository = folder / "repository"
        self._environment = git_environment(where, folder)
        self._log = log

    def fetch(self) -> None:
        """The commit without its history, or all branches where the server hands out nothing else."""
        kind = "sha256" if len(self.commit) == 64 else "sha1"
        ended = self._run("init", "--quiet", "--bare", "--template=", f"--object-format={kind}", "repository")
        self._check(ended)
        options = ("--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head")
        repository = f"--git-dir={self._repository}"
        ended = self._run(repository, "fetch", *options, "--depth=1", "--", self.where.address, self.commit)
        if ended.status != 0 and re.search("unadvertised object|shallow|dumb http", ended.tail):
            self._log.say("    the server does not hand out a single commit: all branches are fetched")
            branches = "+refs/heads/*:refs/heads/*"
            ended = self._run(repository, "fetch", *options, "--", self.where.address, branches)
        self._check(ended)
        kind = self._output("cat-file", "-t", self.commit)
        if kind != "commit":
            raise self.where.failure(f"the commit {self.commit} is not there" + (f": it is a {kind}" if kind else ""))

    def entries(self) -> Iterator[Entry]:
        """All files of the commit. A tree may name itself more often than there is room for: it is read as it comes."""
        rest = b""
        with self._open("ls-tree", "-r", "-l", "-z", "--full-tree", self.commit) as process:
            assert process.stdout is not None
            try:
                while chunk := process.stdout.read(1 << 16):
                    *lines, rest = (rest + chunk).split(b"\0")
                    for line in lines:
                        head, _, path = line.partition(b"\t")
                        mode, _, name, size = head.decode().split()
                        yield Entry(mode, name, int(size) if size.isdigit() else 0, os.fsdecode(path))
            finally:
                process.kill()

    def contents(self, entries: list[Entry]) -> Iterator[tuple[Entry, IO[bytes]]]:
        """Each file with a stream that stands at the beginning of its content. Read `entry.size` bytes of it."""
        with self._open("cat-file", "--batch") as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                for entry in entries:
                    process.stdin.write(f"{entry.object}\n".encode())
                    process.stdin.flush()
                    head = process.stdout.readline().split()
                    if head[1:] != [b"blob", str(entry.size).encode()]:
                        raise self.where.failure(f"its object {entry.object} is damaged")
                    yield entry, process.stdout
                    process.stdout.read(1)
            finally:
                process.kill()

    def _run(self, *arguments: str) -> Ended:
        blocks = str(self.max_bytes // 512)
        try:
            return run(
                ["/bin/sh", "-c", _LIMITED, "sh", blocks, "git", *arguments],
                log=self._log,
                cwd=self._folder,
                env=self._environment,
                timeout_s=TIMEOUT,
            )
        except OSError as error:
            raise self.where.failure(f"git cannot be started: {error.strerror}", Exit.DISTURBED) from error

    def _open(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - fixed arguments
            ["git", f"--git-dir={self._repository}", *arguments],  # noqa: S607 - git of the image
            cwd=self._folder,
            env=dict(self._environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def _output(self, *arguments: str) -> str:
        with self._open(*arguments) as process:
            return process.communicate()[0].decode().strip()

    def _check(self, ended: Ended) -> None:
        if ended.status == 0:
            return
        if ended.status is None:
            raise self.where.failure(f"git took more than {TIMEOUT:g} s", Exit.DISTURBED)
        if ended.status == 127:
            raise self.where.failure("git is not installed", Exit.DISTURBED)
        said = self._log.secrets.mask(ended.tail)
        limit = f"{self.max_bytes >> 20} MiB"
        raise complaint(self.where, said, ended.status, commit=self.commit, limit=limit)


def _write(git: _Git, root: Path, log: Log) -> Fetched:
    files: list[Entry] = []
    links: list[Entry] = []
    total = 0
    for entry in git.entries():
        _check_path(git.where, entry.path)
        if entry.mode == "160000":
            log.say(f"    {entry.path} is a submodule, which is not fetched")
            continue
        (links if entry.mode == "120000" else files).append(entry)
        total += entry.size
        if total > git.max_bytes or len(files) + len(links) > MAX_FILES:
            most = f"{git.max_bytes >> 20} MiB or {MAX_FILES} files"
            raise git.where.failure(f"it has more than {most} at the commit {git.commit}")
    made: set[Path] = set()
    for entry, stream in git.contents(files):
        path = root / entry.path
        if path.parent not in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            made.add(path.parent)
        if _copy(stream, path, entry):
            log.say(f"    {entry.path} is in large file storage, and only the pointer to it is fetched")
    # Last, so that no file is written through a link.
    targets = [(root / entry.path, os.fsdecode(stream.read(entry.size))) for entry, stream in git.contents(links)]
    for path, target in targets:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    outside = [path for path, _ in targets if not path.resolve().is_relative_to(root.resolve())]
    for path in outside:
        log.say(f"    {path.relative_to(root).as_posix()} is left out: the link leads out of the repository")
        path.unlink()
    return Fetched(len(files) + len(targets) - len(outside), total)


def _check_path(where: Source, path: str) -> None:
    """git checks names when it checks out, which it does not do here."""
    parts = path.split("/")
    if posixpath.isabs(path) or any(part in ("", ".", "..") or part.lower() == ".git" for part in parts):
        raise where.failure(f"it has a file of the name {path[:200]!r}, which could lead anywhere")


def _copy(stream: IO[bytes], path: Path, entry: Entry) -> bool:
    """Writes a file. Returns whether it is a pointer to large file storage."""
    left, first = entry.size, b""
    mode = 0o755 if entry.mode == "100755" else 0o644
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb") as file:
        while left:
            chunk = stream.read(min(left, 1 << 20))
            if not chunk:
                raise OSError(None, f"git ended in the middle of {entry.path}")
            first = first or chunk
            file.write(chunk)
            left -= len(chunk)
    return first.startswith(_LARGE_FILE_POINTER)
