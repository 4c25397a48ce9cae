"""Which commit a branch stands at, and what two commits differ in.

Addresses and branch names come from specs, so they are data of strangers: an address is checked against an
allow-list, and the name of a branch never reaches a command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from reconciler.source.commands import (
    SETTINGS,
    Cause,
    Credential,
    Question,
    Unresolved,
    beginning,
    environment_of,
    question_of,
    run,
    unresolved,
)

if TYPE_CHECKING:
    from asyncio import StreamReader

__all__ = ["Branch", "Cause", "Credential", "Unresolved", "changed", "resolve"]


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch of a repository: the address without `#folder`, the name without `refs/heads/`."""

    repository: str
    branch: str
    credential: Credential | None = None


def resolve(
    wanted: Iterable[Branch],
    *,
    mirrors: Mapping[str, str] | None = None,
    allow_file: bool = False,
    timeout_s: float = 30,
    deadline_s: float = 120,
    concurrency: int = 8,
) -> dict[Branch, str | Unresolved]:
    """The commit (40 or 64 hex digits) that each branch stands at. Asks a repository once; needs git 2.31.

    `mirrors`: beginning of an address -> what stands in its place (the longest that fits, cut at `/` or `:`). A
    credential goes to the mirror then, and nowhere else. `allow_file` permits file:///, for the embedded data
    plane. A repository gets `timeout_s` seconds, all of them together `deadline_s`; `concurrency` are asked at
    once.

    Proxies (HTTPS_PROXY, ALL_PROXY, NO_PROXY) and certificate authorities (SSL_CERT_FILE, SSL_CERT_DIR) are
    those of this process. Nothing else of its environment, and no configuration file, reaches git.

    Raises nothing for what a repository or its spec does. Call it in a thread that runs no event loop.
    """
    import asyncio  # noqa: PLC0415 - 0.04 s that commands without git do not pay

    wanted = tuple(wanted)
    answers: dict[Branch, str | Unresolved] = {}
    questions: dict[Question, list[Branch]] = {}
    for branch in wanted:
        question = question_of(branch.repository, branch.credential, mirrors or {}, allow_file=allow_file)
        if isinstance(question, Unresolved):
            answers[branch] = question
        elif not _BRANCH.fullmatch(branch.branch):
            said = f"{branch.repository}: {branch.branch[:200]!r} is not a branch's name"
            answers[branch] = Unresolved(said, "branch")
        else:
            questions.setdefault(question, []).append(branch)
    if questions:
        names = {question: {branch.branch for branch in branches} for question, branches in questions.items()}
        replies = asyncio.run(_ask_all(names, timeout_s, deadline_s, concurrency))
        for question, branches in questions.items():
            answers.update((branch, _answer(branch, replies[question])) for branch in branches)
    return {branch: answers[branch] for branch in wanted}


def changed(
    repository: str,
    old: str,
    new: str,
    paths: Iterable[str] = (),
    *,
    credential: Credential | None = None,
    mirrors: Mapping[str, str] | None = None,
    allow_file: bool = False,
    timeout_s: float = 120,
    max_bytes: int = 1 << 30,
) -> bool | Unresolved:
    """Whether one of the paths (files or folders of the repository) differs between two commits, by their full ids.

    No path, or "", is the whole repository. A path that neither commit has does not differ. True where the server has
    `old` no more: its branch was rewritten, and nobody knows what became of the paths.

    Fetches both commits' folders, without history and, where the server can, without files; what a commit holds is
    never written out. `mirrors`, `allow_file` and the environment of git are as with `resolve`; `timeout_s` is for
    all of it, and `max_bytes` for what is fetched. Raises nothing for what a repository or its spec does. Call it in a
    thread that runs no event loop.
    """
    import asyncio  # noqa: PLC0415 - see `resolve`

    question = question_of(repository, credential, mirrors or {}, allow_file=allow_file)
    if isinstance(question, Unresolved):
        return question
    literal = [path.removeprefix("./").strip("/") for path in paths]
    for commit in (old, new):
        if not _COMMIT.fullmatch(commit):
            return Unresolved(f"{repository}: {commit[:200]!r} is not the id of a commit", "branch")
    for path in literal:
        if ".." in path.split("/") or not path.isprintable():
            return Unresolved(f"{repository}: {path[:200]!r} is not a path in a repository", "branch")
    if old == new or len(old) != len(new):  # of another length: made anew with another hash
        return old != new
    comparison = _Comparison(old, new, () if "" in literal or "." in literal else tuple(literal), max_bytes)
    try:
        with TemporaryDirectory(prefix="trueup-git-") as folder:
            answer = asyncio.run(_compare(question, comparison, Path(folder), timeout_s))
    except OSError as error:  # no disk space, no more processes
        answer = Unresolved(f"git cannot be started here: {error.strerror}", "unreachable")
    return Unresolved(f"{repository}: {answer.reason}", answer.cause) if isinstance(answer, Unresolved) else answer


_BRANCH = re.compile("[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*")
_COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


class _Heads(NamedTuple):
    """The branches of a repository."""

    commits: dict[str, str]  #: of those that were asked for
    names: list[str]  #: for a hint; at most `_NAMES`


_NAMES = 2000

_Reply: TypeAlias = _Heads | Unresolved


def _answer(branch: Branch, reply: _Reply) -> str | Unresolved:
    if isinstance(reply, Unresolved):
        return Unresolved(f"{branch.repository}: {reply.reason}", reply.cause)
    commit = reply.commits.get(branch.branch)
    return commit or Unresolved(f"{branch.repository}: {_no_branch(branch.branch, reply.names)}", "branch")


def _no_branch(name: str, names: list[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only for what is missing

    if not names:
        return f"the branch {name!r} is not there, nor any other: the repository is empty"
    nearest = " or ".join(map(repr, get_close_matches(name, names, 3)))
    return f"the branch {name!r} is not there" + (f"; the nearest is {nearest}" if nearest else "")


async def _ask_all(
    questions: Mapping[Question, set[str]], timeout_s: float, deadline_s: float, concurrency: int
) -> dict[Question, _Reply]:
    import asyncio  # noqa: PLC0415 - see `resolve`

    gate = asyncio.Semaphore(concurrency)
    clock = asyncio.get_running_loop().time
    end = clock() + deadline_s

    async def ask(question: Question, names: set[str]) -> _Reply:
        async with gate:
            seconds = min(timeout_s, end - clock())
            if seconds <= 0:
                return Unresolved(f"it was not asked: the others took {deadline_s:g} s", "timeout")
            try:
                with TemporaryDirectory(prefix="trueup-git-") as folder:
                    return await _ask(question, names, Path(folder), seconds)
            except OSError as error:  # no disk space, no more processes
                return Unresolved(f"git cannot be started here: {error.strerror}", "unreachable")

    async with asyncio.TaskGroup() as group:
        tasks = {question: group.create_task(ask(question, names)) for question, names in questions.items()}
    return {question: task.result() for question, task in tasks.items()}


async def _ask(question: Question, names: set[str], folder: Path, seconds: float) -> _Reply:
    import asyncio  # noqa: PLC0415 - see `resolve`

    try:
        async with asyncio.timeout(seconds):
            # All branches, because the server sends them all: git compares patterns itself, and only with the end of
            # a name ("main" is also found in refs/heads/refs/heads/main).
            command = ("git", "ls-remote", "--heads", "--", question.address)
            environment = environment_of(question, folder)
            heads, complaint, status = await run(folder, environment, command, lambda said: _heads(said, names))
    except TimeoutError:
        return Unresolved(f"there was no answer within {seconds:.3g} s", "timeout")
    return heads if status == 0 else unresolved(question, complaint, status)


class _Comparison(NamedTuple):
    """Two commits, and in which paths they may differ; none: in anything."""

    old: str
    new: str
    paths: tuple[str, ...]
    max_bytes: int


async def _compare(question: Question, wanted: _Comparison, folder: Path, seconds: float) -> bool | Unresolved:
    import asyncio  # noqa: PLC0415 - see `resolve`

    environment = environment_of(question, folder)

    async def in_repository(repository: str, *arguments: str, is_offline: bool = True) -> tuple[str, int]:
        # A partial repository asks its server for what it has not, in the middle of anything.
        protocols = {"GIT_ALLOW_PROTOCOL": ""} if is_offline else {}
        whole = ("git", *SETTINGS, f"--git-dir={repository}", "--literal-pathspecs", *arguments)
        _, complaint, status = await run(folder, environment | protocols, whole, beginning, max_bytes=wanted.max_bytes)
        return complaint, status

    async def fetch(repository: str, *what: str) -> tuple[str, int]:
        kind = "sha256" if len(wanted.new) == 64 else "sha1"
        complaint, status = await in_repository(
            repository, "init", "--quiet", "--bare", "--template=", f"--object-format={kind}"
        )
        if status != 0:
            return complaint, status
        options = ("--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--filter=blob:none")
        return await in_repository(repository, "fetch", *options, *what, is_offline=False)

    async def compare() -> bool | Unresolved:
        here = "commits"
        complaint, status = await fetch(here, "--depth=1", "--", question.address, wanted.new, wanted.old)
        failure = complaint if status != 0 else ""
        if gone := re.search(r"not our ref ([0-9a-f]+)", failure):
            return gone[1] == wanted.old or _no_commit(wanted.new)
        if re.search(r"unadvertised object|want [0-9a-f]+ not valid|shallow|dumb http", failure):
            # An old server hands out branches alone. Anew, for of a branch that is there git would fetch no history.
            here = "branches"
            complaint, status = await fetch(here, "--", question.address, "+refs/heads/*:refs/heads/*")
            for commit in (wanted.new, wanted.old) if status == 0 else ():
                if (await in_repository(here, "cat-file", "-e", f"{commit}^{{commit}}"))[1] != 0:
                    return commit == wanted.old or _no_commit(commit)
        if status == 0:
            arguments = ("--quiet", "-r", wanted.old, wanted.new, "--", *wanted.paths)
            complaint, status = await in_repository(here, "diff-tree", *arguments)
            if status in (0, 1):
                return status == 1
        return unresolved(question, complaint, status)

    try:
        async with asyncio.timeout(seconds):
            return await compare()
    except TimeoutError:
        return Unresolved(f"there was no answer within {seconds:.3g} s", "timeout")


def _no_commit(commit: str) -> Unresolved:
    return Unresolved(f"the commit {commit} is not there", "branch")


_HEAD = re.compile(rb"([0-9a-f]{40}|[0-9a-f]{64})\trefs/heads/(.+)")


async def _heads(stream: StreamReader, names: set[str]) -> _Heads:
    heads = _Heads({}, [])
    rest = b""
    while chunk := await stream.read(1 << 16):
        *lines, rest = (rest[-(1 << 16) :] + chunk).split(b"\n")
        for line in lines:
            match = _HEAD.fullmatch(line)
            name = match[2].decode(errors="replace") if match else ""
            if match and name in names:
                heads.commits[name] = match[1].decode()
            # A repository is a stranger too: only names that a spec could ask for are ever shown.
            if len(heads.names) < _NAMES and _BRANCH.fullmatch(name):
                heads.names.append(name)
    return heads
