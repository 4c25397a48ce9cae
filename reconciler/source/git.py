"""Which commit a branch stands at, and what two commits differ in: the only module of the reconciler that runs git.

Addresses and branch names come from specs, so they are data of strangers: an address is checked against an
allow-list (`runtime.git`, which builds go by, too), and the name of a branch never reaches a command line.

git is run by asyncio and not through GitPython: GitPython adds to the environment of this process and cannot
take anything out of it (GIT_CONFIG_COUNT of a hook or a CI job would redirect the question), keeps all output
in memory, and ends a process with the help of `pgrep` or `ps`, which slim images do not have.
"""

from __future__ import annotations

import base64
import os
import re
import signal
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote

from runtime import git

if TYPE_CHECKING:
    from asyncio import StreamReader


@dataclass(frozen=True, slots=True)
class Credential:
    """What a repository asks for. The representation shows nothing of it."""

    kind: Literal["token", "ssh-key"]
    secret: str = field(repr=False)
    user: str = field(default="", repr=False)  # some servers take the token as the user
    known_hosts: str | None = field(default=None, repr=False)

    @classmethod
    def token(cls, user: str, token: str) -> Credential:
        """For https. White space around both is dropped: a Secret made with `echo` ends in a line break.

        Without a user, one stands there that every server takes.
        """
        return cls("token", token.strip(), user.strip() or git.ANY_USER)

    @classmethod
    def ssh_key(cls, private_key: str, known_hosts: str | None = None) -> Credential:
        """For ssh: a private key without passphrase, and the lines of a known_hosts file.

        Without `known_hosts`, this machine's own files say which hosts are known (/etc/ssh/ssh_known_hosts and
        ~/.ssh/known_hosts). An unknown host is refused either way.
        """
        # OpenSSH refuses a key without its last line break, or with those of Windows.
        return cls("ssh-key", private_key.replace("\r\n", "\n").strip() + "\n", known_hosts=known_hosts)


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch of a repository: the address without `#folder`, the name without `refs/heads/`."""

    repository: str
    branch: str
    credential: Credential | None = None


Cause: TypeAlias = Literal["address", "branch", "credential", "unreachable", "timeout"]


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Why a question to git has no answer: a sentence for people, and whose turn it is.

    `address` and `branch` (or a commit, or a path): the spec's; `credential`: the Secret's; `unreachable` and
    `timeout`: the world's, and the next pass asks again.
    """

    reason: str
    cause: Cause


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
    questions: dict[_Question, list[Branch]] = {}
    for branch in wanted:
        question = _question(branch.repository, branch.credential, mirrors or {}, allow_file=allow_file)
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

    question = _question(repository, credential, mirrors or {}, allow_file=allow_file)
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


class _Question(NamedTuple):
    """One call of git."""

    address: str
    protocol: str
    credential: Credential | None  #: None also where it is of no use for the protocol


def _question(
    repository: str, credential: Credential | None, mirrors: Mapping[str, str], *, allow_file: bool
) -> _Question | Unresolved:
    address = repository
    protocol = _protocol(address, allow_file=allow_file)
    if protocol:
        # And again: the end of what a mirror makes of an address was still written in a spec.
        address = git.mirrored(address, mirrors)
        protocol = _protocol(address, allow_file=allow_file)
    if protocol is None:
        allowed = "https://host/path, ssh://host/path, user@host:path" + (" and file:///path" if allow_file else "")
        return Unresolved(f"{git.shown(address)!r} is not an address that git is given; those are {allowed}", "address")
    fits = credential and {"token": "https", "ssh-key": "ssh"}[credential.kind] == protocol
    return _Question(address, protocol, credential if fits else None)


def _protocol(address: str, *, allow_file: bool) -> str | None:
    """https, ssh or file; None for what git must not see."""
    protocol = git.protocol_of(address)
    return None if protocol == "http" or (protocol == "file" and not allow_file) else protocol


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
    questions: Mapping[_Question, set[str]], timeout_s: float, deadline_s: float, concurrency: int
) -> dict[_Question, _Reply]:
    import asyncio  # noqa: PLC0415 - see `resolve`

    gate = asyncio.Semaphore(concurrency)
    clock = asyncio.get_running_loop().time
    end = clock() + deadline_s

    async def ask(question: _Question, names: set[str]) -> _Reply:
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


async def _ask(question: _Question, names: set[str], folder: Path, seconds: float) -> _Reply:
    import asyncio  # noqa: PLC0415 - see `resolve`

    try:
        async with asyncio.timeout(seconds):
            # All branches, because the server sends them all: git compares patterns itself, and only with the end of
            # a name ("main" is also found in refs/heads/refs/heads/main).
            arguments = ("ls-remote", "--heads", "--", question.address)
            environment = _environment(question, folder)
            heads, complaint, status = await _run(folder, environment, arguments, lambda said: _heads(said, names))
    except TimeoutError:
        return Unresolved(f"there was no answer within {seconds:.3g} s", "timeout")
    return heads if status == 0 else _complaint(question, complaint, status)


class _Comparison(NamedTuple):
    """Two commits, and in which paths they may differ; none: in anything."""

    old: str
    new: str
    paths: tuple[str, ...]
    max_bytes: int


#: No background work that outlives us; one pack; little memory, because there is a limit to it.
_SETTINGS = (
    *("-c", "gc.auto=0", "-c", "maintenance.auto=false"),
    *("-c", "fetch.unpackLimit=1", "-c", "pack.threads=1", "-c", "core.bigFileThreshold=16m"),
    *("-c", "core.packedGitWindowSize=16m", "-c", "core.packedGitLimit=64m"),
)


async def _compare(question: _Question, wanted: _Comparison, folder: Path, seconds: float) -> bool | Unresolved:
    import asyncio  # noqa: PLC0415 - see `resolve`

    environment = _environment(question, folder)

    async def run(repository: str, *arguments: str, is_offline: bool = True) -> tuple[str, int]:
        # A partial repository asks its server for what it has not, in the middle of anything.
        protocols = {"GIT_ALLOW_PROTOCOL": ""} if is_offline else {}
        whole = (*_SETTINGS, f"--git-dir={repository}", "--literal-pathspecs", *arguments)
        _, complaint, status = await _run(folder, environment | protocols, whole, _beginning, wanted.max_bytes)
        return complaint, status

    async def fetch(repository: str, *what: str) -> tuple[str, int]:
        kind = "sha256" if len(wanted.new) == 64 else "sha1"
        complaint, status = await run(repository, "init", "--quiet", "--bare", "--template=", f"--object-format={kind}")
        if status != 0:
            return complaint, status
        options = ("--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--filter=blob:none")
        return await run(repository, "fetch", *options, *what, is_offline=False)

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
                if (await run(here, "cat-file", "-e", f"{commit}^{{commit}}"))[1] != 0:
                    return commit == wanted.old or _no_commit(commit)
        if status == 0:
            arguments = ("--quiet", "-r", wanted.old, wanted.new, "--", *wanted.paths)
            complaint, status = await run(here, "diff-tree", *arguments)
            if status in (0, 1):
                return status == 1
        return _complaint(question, complaint, status)

    try:
        async with asyncio.timeout(seconds):
            return await compare()
    except TimeoutError:
        return Unresolved(f"there was no answer within {seconds:.3g} s", "timeout")


def _no_commit(commit: str) -> Unresolved:
    return Unresolved(f"the commit {commit} is not there", "branch")


#: A repository may answer without an end: git would keep it all, in memory or in files (512 bytes are a block of them).
#: No core dump, for it would hold the token.
_LIMITED = 'ulimit -S -v 524288 2>/dev/null; ulimit -f "$1"; ulimit -S -c 0; shift; exec "$@"'

T = TypeVar("T")


async def _run(
    folder: Path,
    environment: Mapping[str, str],
    arguments: Sequence[str],
    read: Callable[[StreamReader], Awaitable[T]],
    max_bytes: int = 1 << 20,
) -> tuple[T, str, int]:
    """What was read of what git says, what it complains about, and its exit status."""
    import asyncio  # noqa: PLC0415 - see `resolve`
    from asyncio.subprocess import DEVNULL, PIPE  # noqa: PLC0415 - see `resolve`

    process = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", _LIMITED, "sh", str(max_bytes // 512), "git", *arguments),
        cwd=folder,
        env=environment,
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        said, complaint = await asyncio.gather(read(process.stdout), _beginning(process.stderr))
        return said, complaint, await process.wait()
    except BaseException:  # the timeout and Ctrl-C too
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # git alone would leave its ssh or git-remote-https behind
        await process.communicate()
        raise


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


async def _beginning(stream: StreamReader) -> str:
    """The first 16 KiB; the rest is read too, lest the writer wait."""
    text = b""
    while chunk := await stream.read(1 << 16):
        text += chunk[: (1 << 14) - len(text)]
    return text.decode(errors="replace")


def _environment(question: _Question, folder: Path) -> dict[str, str]:
    """All that git gets to know."""
    configuration: list[tuple[str, str]] = []
    credential = question.credential
    if credential and question.protocol == "https":
        origin = "/".join(question.address.split("/")[:3])  # no other host gets the token
        configuration = [(f"http.{origin}/.extraHeader", f"Authorization: Basic {_basic(credential)}")]
    made = git.environment(question.protocol, folder, configuration)
    if question.protocol == "ssh":
        key, known_hosts = (credential.secret, credential.known_hosts) if credential else (None, None)
        made |= git.ssh_environment(folder, key, known_hosts)
    return made


def _basic(credential: Credential) -> str:
    return base64.b64encode(f"{credential.user}:{credential.secret}".encode()).decode()


#: What git says -> whose turn it is, and what to tell; {detail} is git's own sentence. The first that fits.
_COMPLAINTS: tuple[tuple[str, Cause, str], ...] = (
    (r"Load key ", "credential", "the private key of its Secret is damaged"),
    (
        r"Host key verification failed",
        "credential",
        "the host's key is not among the known ones; add `known_hosts` to its Secret, or the key may be forged",
    ),
    (
        r"could not read (Username|Password)|Authentication failed|returned error: 40[13]|Permission denied",
        "credential",
        "{access}",
    ),
    (
        r"returned error: 30[0-9]|redirect",
        "address",
        "it has moved: the server answers with a redirect, which is not followed; write the address that it has now",
    ),
    (r"dubious ownership", "address", "git refuses it, for its files belong to another user"),
    (
        r"invalid index-pack output|File too large",
        "unreachable",
        "it sends too much, or what is damaged; a server with `uploadpack.allowFilter` could leave the files out",
    ),
    (r"Could not resolve|unable to look up", "unreachable", "it cannot be reached: {detail}"),
    (
        r"repository .* not found|does not appear to be a git repository|returned error: 404|Repository not found",
        "address",
        "there is no such repository, or {asker} may not see it",
    ),
)


def _complaint(question: _Question, complaint: str, status: int) -> Unresolved:
    if status == 127:
        return Unresolved("git is not installed", "unreachable")
    text = _without_secrets(complaint, question.credential)
    # `remote:` is the server's own text; git's sentence about its failure comes first of the others.
    lines = [
        line.strip() for line in text.splitlines() if line.strip() and not line.startswith(("remote:", "warning:"))
    ]
    detail = re.sub(r"^fatal: (unable to access '[^']*': )?", "", lines[0]) if lines else f"git ended with {status}"
    detail = "".join(character if character.isprintable() else " " for character in detail)[:300]
    kind = "private key" if question.protocol == "ssh" else "token"
    asker = f"the {kind} of its Secret" if question.credential else "the public"
    access = f"{asker} was refused" if question.credential else f"it asks for a {kind}, and the spec names no Secret"
    if question.credential and question.protocol == "ssh":
        access += " (it must have no passphrase)"  # ssh says nothing of such a key: it could ask nobody
    for pattern, cause, sentence in _COMPLAINTS:
        if re.search(pattern, text):
            return Unresolved(sentence.format(detail=detail, access=access, asker=asker), cause)
    return Unresolved(f"it cannot be reached: {detail}", "unreachable")


def _without_secrets(text: str, credential: Credential | None) -> str:
    """A server may send back what it was sent."""
    if credential is None:
        return text
    forms = [credential.secret.strip(), _basic(credential), quote(credential.secret, safe="")]
    if len(credential.user) >= 16:  # a token in the user's place, and no "x-token-auth"
        forms.append(credential.user)
    for form in filter(None, forms):
        text = text.replace(form, "***")
    return text
