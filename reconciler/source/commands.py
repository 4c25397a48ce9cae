"""How programs are run on what strangers wrote: git, with an environment of its own, and bounded in time and room.

An address is checked against an allow-list (`runtime.git`, which builds go by, too). Arguments are fixed: nothing from
a spec is among them but what was matched against a pattern.

Programs are run by asyncio and not through GitPython: GitPython adds to the environment of this process and cannot
take anything out of it (GIT_CONFIG_COUNT of a hook or a CI job would redirect the question), keeps all output
in memory, and ends a process with the help of `pgrep` or `ps`, which slim images do not have.
"""

from __future__ import annotations

import base64
import os
import re
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote

from runtime import git

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter


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


Cause: TypeAlias = Literal["address", "branch", "credential", "unreachable", "timeout"]


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Why a question to git has no answer: a sentence for people, and whose turn it is.

    `address` and `branch` (or a commit, or a path): the spec's; `credential`: the Secret's; `unreachable` and
    `timeout`: the world's, and the next pass asks again.
    """

    reason: str
    cause: Cause


class Question(NamedTuple):
    """An address that git may be given."""

    address: str
    protocol: str
    credential: Credential | None  #: None also where it is of no use for the protocol


def question_of(
    repository: str, credential: Credential | None, mirrors: Mapping[str, str], *, allow_file: bool
) -> Question | Unresolved:
    """What git is asked of a repository, with its mirror in its place; or why it is not asked."""
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
    return Question(address, protocol, credential if fits else None)


def _protocol(address: str, *, allow_file: bool) -> str | None:
    """https, ssh or file; None for what git must not see."""
    protocol = git.protocol_of(address)
    return None if protocol == "http" or (protocol == "file" and not allow_file) else protocol


#: No background work that outlives us; one pack; little memory, because there is a limit to it.
SETTINGS = (
    *("-c", "gc.auto=0", "-c", "maintenance.auto=false"),
    *("-c", "fetch.unpackLimit=1", "-c", "pack.threads=1", "-c", "core.bigFileThreshold=16m"),
    *("-c", "core.packedGitWindowSize=16m", "-c", "core.packedGitLimit=64m"),
)


#: A repository may answer without an end: git would keep it all, in memory or in files (512 bytes are a block of them).
#: No core dump, for it would hold the token.
_LIMITED = 'ulimit -S -v 524288 2>/dev/null; ulimit -f "$1"; ulimit -S -c 0; shift; exec "$@"'

T = TypeVar("T")


async def run(
    folder: Path,
    environment: Mapping[str, str],
    command: Sequence[str],
    read: Callable[[StreamReader], Awaitable[T]],
    *,
    given: bytes = b"",
    max_bytes: int = 1 << 20,
) -> tuple[T, str, int]:
    """What was read of what a program says, what it complains about, and its exit status (127: it is not installed).

    `read` gets its output: where that ends before the output does, the program is ended, and all its children.
    `given` is its input. No file that it writes becomes larger than `max_bytes`.
    """
    import asyncio  # noqa: PLC0415 - 0.04 s that commands without git do not pay
    from asyncio.subprocess import DEVNULL, PIPE  # noqa: PLC0415 - as above

    process = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", _LIMITED, "sh", str(max_bytes // 512), *command),
        cwd=folder,
        env=environment,
        stdin=PIPE if given else DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        limit=1 << 18,
        start_new_session=True,
    )
    output, complaints = process.stdout, process.stderr
    assert output is not None
    assert complaints is not None

    def end() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # git alone would leave its ssh or git-remote-https behind

    async def listen() -> T:
        said = await read(output)
        if not output.at_eof():
            end()
            while await output.read(1 << 18):
                pass
        return said

    try:
        said, complaint, _ = await asyncio.gather(listen(), beginning(complaints), _write(process.stdin, given))
        return said, complaint, await process.wait()
    except BaseException:  # the timeout and Ctrl-C too
        end()
        await process.communicate()
        raise


async def _write(stream: StreamWriter | None, given: bytes) -> None:
    if stream is None:
        return
    with suppress(BrokenPipeError, ConnectionResetError):  # it ended before it had read all
        stream.write(given)
        await stream.drain()
    stream.close()


async def beginning(stream: StreamReader) -> str:
    """The first 16 KiB; the rest is read too, lest the writer wait."""
    text = b""
    while chunk := await stream.read(1 << 16):
        text += chunk[: (1 << 14) - len(text)]
    return text.decode(errors="replace")


def environment_of(question: Question, folder: Path) -> dict[str, str]:
    """All that git gets to know when it asks. `folder` holds its home and its keys, and is deleted later."""
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


def unresolved(question: Question, complaint: str, status: int) -> Unresolved:
    """What git complained of, as a sentence without secrets."""
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
