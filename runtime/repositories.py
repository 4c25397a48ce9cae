"""How git is asked for a build's code: where, with which credentials, and what its complaints mean.

Credentials are files, and reach git as files of this process alone: no command line and no environment has them.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from runtime import git
from runtime.exits import Exit, Failure

STEP = "fetch"

_COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Credential:
    """A token for https, with the user that goes with it, or a private key for ssh. Its `repr` shows neither."""

    token: str | None = field(default=None, repr=False)
    user: str = field(default="", repr=False)
    private_key: str | None = field(default=None, repr=False)
    known_hosts: str | None = field(default=None, repr=False)

    def secrets(self) -> list[str]:
        """All forms that must not be shown: a server may send back what it was sent."""
        if self.token is not None:
            basic = base64.b64encode(f"{self.user}:{self.token}".encode()).decode()
            # Some servers take the token as the user.
            return [self.token, basic, *([self.user] if len(self.user) >= 16 else [])]
        return [line for line in (self.private_key or "").splitlines() if not line.startswith("-----")]


def read_credential(folder: Path) -> Credential:
    """The files of a Secret: `token` (`user:token`, or with `username` beside it), or `ssh-privatekey` and optional
    `known_hosts`. Raises Failure.
    """
    try:
        files = {path.name: path.read_text("utf-8") for path in folder.iterdir() if path.is_file()}
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(STEP, f"the credentials in {folder} cannot be read: {type(error).__name__}", Exit.CODE) from None
    if "token" in files:
        # A Secret that was made with `echo` ends in a line break.
        token = files["token"].strip()
        if "username" in files:
            return Credential(token=token, user=files["username"].strip())
        user, _, rest = token.partition(":")
        return Credential(token=rest.strip(), user=user.strip()) if rest else Credential(token=user, user=git.ANY_USER)
    if "ssh-privatekey" in files:
        # OpenSSH refuses a key without its last line break, or with those of Windows.
        key = files["ssh-privatekey"].replace("\r\n", "\n").strip() + "\n"
        return Credential(private_key=key, known_hosts=files.get("known_hosts"))
    raise Failure(STEP, "the Secret has neither the key `token` nor `ssh-privatekey`", Exit.CODE)


@dataclass(frozen=True, slots=True)
class Source:
    """Where git reads: an address of the allow-list."""

    repository: str  #: what the spec says, for people
    address: str  #: what git is given: a mirror's, perhaps
    protocol: str
    credential: Credential | None

    def failure(self, cause: str, code: Exit = Exit.CODE) -> Failure:
        return Failure(STEP, f"{self.repository}: {cause}", code)


def source(repository: str, mirrors: Mapping[str, str], credential: Credential | None) -> Source:
    """The source of a repository. `mirrors`: beginning of an address -> what stands in its place, cut at `/` or `:`.

    Raises Failure where git must not be given the address, or the token would travel in the open.
    """
    address = git.mirrored(repository, mirrors) if git.protocol_of(repository) else repository
    protocol = git.protocol_of(address)
    if protocol is None:
        allowed = "https://host/path, ssh://host/path, user@host:path or file:///path"
        raise Failure(
            STEP, f"{git.shown(address)!r} is not an address that git is given; those are {allowed}", Exit.CODE
        )
    fits = credential and (credential.private_key is not None) == (protocol == "ssh") and protocol != "file"
    found = Source(repository, address, protocol, credential if fits else None)
    if found.credential and protocol == "http" and not _is_this_machine(address):
        raise found.failure("a token is not sent over http, where anybody on the way can read it: write https")
    return found


def check_commit(commit: str | None) -> str:
    """Raises Failure for what is no full commit id."""
    if commit is None:
        raise Failure(STEP, "no commit was named: this build is provisional, and is not run", Exit.CODE)
    if not _COMMIT.fullmatch(commit):
        raise Failure(STEP, f"{commit[:80]!r} is not a commit id of 40 or 64 hex digits", Exit.CODE)
    return commit


def parse_mirrors(text: str) -> dict[str, str]:
    """Of lines `URL=URL`."""
    pairs = (line.strip().partition("=") for line in text.splitlines() if line.strip())
    return {beginning: target for beginning, _, target in pairs}


def git_environment(source: Source, folder: Path) -> dict[str, str]:
    """All that git gets to know; credentials become files in `folder`, which is deleted later."""
    configuration = [
        ("http.lowSpeedLimit", "1000"),
        ("http.lowSpeedTime", "60"),
        ("core.bigFileThreshold", "32m"),  # larger files are not kept in memory
        ("pack.threads", "1"),
        ("gc.auto", "0"),
        ("maintenance.auto", "false"),
    ]
    credential = source.credential
    if credential and credential.token is not None:
        parts = urlsplit(source.address)
        login = f"{quote(credential.user, safe='')}:{quote(credential.token, safe='')}"
        git.write_secret(folder / "login", f"{parts.scheme}://{login}@{parts.netloc}\n")
        # git's own helper: it answers for this host only.
        configuration.append(("credential.helper", f"store --file={shlex.quote(str(folder / 'login'))}"))
    made = git.environment(source.protocol, folder, configuration)
    if source.protocol == "ssh":
        key, known_hosts = (credential.private_key, credential.known_hosts) if credential else (None, None)
        made |= git.ssh_environment(folder, key, known_hosts)
    return made


def _is_this_machine(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    return host == "localhost" or (host[:1].isdigit() and ipaddress.IPv4Address(host).is_loopback)


#: What git says -> what to tell, and whether another try may fare better. The first that fits.
_COMPLAINTS = (
    (r"Load key ", Exit.CODE, "the private key of its Secret is damaged"),
    (
        r"Host key verification failed",
        Exit.CODE,
        "the host's key is not among the known ones; add `known_hosts` to its Secret, or the key may be forged",
    ),
    (
        r"could not read (Username|Password)|Authentication failed|returned error: 40[13]|Permission denied",
        Exit.CODE,
        "{access}",
    ),
    (
        r"returned error: 30[0-9]|redirect",
        Exit.CODE,
        "it has moved: the server answers with a redirect, which is not followed; write the address that it has now",
    ),
    (r"dubious ownership", Exit.CODE, "git refuses it, for its files belong to another user"),
    (r"signal 25|File size limit exceeded|File too large", Exit.CODE, "it is larger than {limit}"),
    (r"not our ref|no such remote ref|couldn't find remote ref", Exit.CODE, "the commit {commit} is not there"),
    (
        r"repository .* not found|does not appear to be a git repository|returned error: 404|Repository not found",
        Exit.CODE,
        "there is no such repository, or {asker} may not see it",
    ),
)


def complaint(source: Source, said: str, status: int | None, *, commit: str, limit: str) -> Failure:
    """What git's failure means: the cause, and whose turn it is. `said` has no secrets any more."""
    # `remote:` is the server's own text; git's sentence about its failure comes first of the others.
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("remote:")]
    detail = re.sub(r"^fatal: (unable to access '[^']*': )?", "", lines[0]) if lines else f"git ended with {status}"
    detail = "".join(character if character.isprintable() else " " for character in detail)[:300]
    kind = "private key" if source.protocol == "ssh" else "token"
    asker = f"the {kind} of its Secret" if source.credential else "the public"
    access = f"{asker} was refused" if source.credential else f"it asks for a {kind}, and the spec names no Secret"
    if source.credential and source.protocol == "ssh":
        access += " (it must have no passphrase)"  # ssh says nothing of such a key: it could ask nobody
    for pattern, code, sentence in _COMPLAINTS:
        if re.search(pattern, said):
            words = {"access": access, "asker": asker, "commit": commit, "limit": limit}
            return source.failure(sentence.format(**words), code)
    return source.failure(f"it cannot be reached: {detail}", Exit.DISTURBED)
