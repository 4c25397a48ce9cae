"""Who signed a commit.

ssh-keygen and gpg are given the commit's own bytes, which were hashed to the very id that is rendered, and not the
name of something that git would look up again. What they are told to trust is in a folder of this one question.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from os import environ
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from reconciler.source.commands import beginning, run


class UnverifiedError(Exception):
    """A commit is not signed by anybody whose signature counts: a sentence that says why."""


@dataclass(frozen=True, slots=True)
class Signers:
    """Whose signatures count. Public keys are no secrets, but who may change them decides what runs."""

    #: The lines of an ssh-keygen ALLOWED SIGNERS file: principals, options, key. A key's first line counts, as for git.
    allowed_signers: bytes = b""
    #: SSH keys that count no more: a list of public keys, or a key revocation list (ssh-keygen -k).
    revoked_keys: bytes = b""
    #: Name of the file -> OpenPGP public keys, armored or not, with what revokes them.
    openpgp_keys: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def from_secret(cls, data: Mapping[str, bytes]) -> Signers:
        """Of a Secret's keys `allowed_signers`, `revoked_keys`, `*.asc` and `*.gpg`; others are nobody's business."""
        keys = {name: data[name] for name in sorted(data) if name.endswith((".asc", ".gpg"))}
        return cls(data.get("allowed_signers", b""), data.get("revoked_keys", b""), keys)


def verify(commit: str, content: bytes, signers: Signers, now: datetime, *, timeout_s: float = 30) -> str:
    """Who signed a commit, by its id and its own bytes: a principal or a user id, and the key's fingerprint.

    A key has to be valid `now`. The dates in a commit are no evidence: who has an old key may write an old date. So
    from `valid-before` on, or from the day an OpenPGP key expires, no commit of that key counts, whenever it says that
    it was made; before the key of the newest commit ends, sign another commit with the next one.

    Raises UnverifiedError for all that is not one good signature of one of the signers.
    """
    short = commit[:12]
    if not (signers.allowed_signers.strip() or signers.openpgp_keys):
        raise UnverifiedError(f"the commit {short} has to be signed, and nobody is named whose signature counts")
    signed = _signed(content, commit)
    if not signed:
        raise UnverifiedError(f"the commit {short} is not signed")
    if len(signed.signatures) > 1:
        raise UnverifiedError(f"the commit {short} has more than one signature")
    signature = signed.signatures[0]
    try:
        with TemporaryDirectory(prefix="trueup-keys-") as folder:
            if signature.startswith(b"-----BEGIN SSH SIGNATURE-----"):
                question = _ssh(_Tools(Path(folder), timeout_s), signed.payload, signature, signers, now)
            elif signature.startswith((b"-----BEGIN PGP SIGNATURE-----", b"-----BEGIN PGP MESSAGE-----")):
                question = _openpgp(_Tools(Path(folder), timeout_s), signed.payload, signature, signers, now)
            else:
                raise _WrongError("has a signature that is neither of SSH nor of OpenPGP")
            return asyncio.run(question)
    except _WrongError as wrong:
        raise UnverifiedError(f"the commit {short} {wrong}") from None
    except TimeoutError:
        raise UnverifiedError(f"the signature of the commit {short} was not checked in {timeout_s:g} s") from None
    except OSError as error:
        text = f"the signature of the commit {short} cannot be checked here: {error.strerror}"
        raise UnverifiedError(text) from error


class _WrongError(Exception):
    """The rest of the sentence "the commit <id> ..."."""


class _Signed(NamedTuple):
    payload: bytes
    signatures: list[bytes]


def _signed(content: bytes, commit: str) -> _Signed | None:
    """What was signed is the commit without its signature: the header of that name, and the lines that go on with it.

    A repository that moves to SHA-256 may carry a signature for each kind; the other kind's is of other bytes.
    """
    ours, other = (b"gpgsig-sha256", b"gpgsig") if len(commit) == 64 else (b"gpgsig", b"gpgsig-sha256")
    head, separator, message = content.partition(b"\n\n")
    kept: list[bytes] = []
    signatures: list[list[bytes]] = []
    into = kept
    for line in head.split(b"\n"):
        name, _, value = line.partition(b" ")
        if line.startswith(b" ") and into is not kept:
            into.append(line[1:])
        elif name == ours:
            into = [value]
            signatures.append(into)
        elif name == other:
            into = [value]
        else:
            into = kept
            into.append(line)
    if not signatures:
        return None
    whole = [b"\n".join(lines) + b"\n" for lines in signatures]
    return _Signed(b"\n".join(kept) + separator + message, whole)


@dataclass(frozen=True, slots=True)
class _Tools:
    folder: Path
    timeout_s: float

    async def say(self, *command: str, given: bytes = b"") -> tuple[str, int]:
        """What a program says and its exit status. Raises FileNotFoundError where it is not installed."""
        made = {"PATH": environ.get("PATH", ""), "HOME": str(self.folder), "LC_ALL": "C", "TZ": "UTC"}
        async with asyncio.timeout(self.timeout_s):
            said, _, status = await run(self.folder, made, command, beginning, given=given)
        if status == 127:
            raise FileNotFoundError(2, f"{command[0]} is not installed")
        return said, status


async def _ssh(tools: _Tools, payload: bytes, signature: bytes, signers: Signers, now: datetime) -> str:
    if not signers.allowed_signers.strip():
        raise _WrongError("is signed with an SSH key, and no SSH keys are named whose signatures count")
    for name, text in (("signature", signature), ("allowed", signers.allowed_signers), ("gone", signers.revoked_keys)):
        (tools.folder / name).write_bytes(text)
    at = f"-Overify-time={now.astimezone(UTC):%Y%m%d%H%M%S}"
    signed = ("-n", "git", "-s", "signature")
    said, status = await tools.say("ssh-keygen", "-Y", "check-novalidate", *signed, given=payload)
    key = re.search(r"SHA256:\S+", said)
    if status != 0 or key is None:
        raise _WrongError("has a bad signature: it is not of this commit, or damaged")
    said, _ = await tools.say("ssh-keygen", "-Y", "find-principals", "-f", "allowed", "-s", "signature", at)
    for principal in dict.fromkeys(said.splitlines()):
        question = ("ssh-keygen", "-Y", "verify", *signed, "-f", "allowed", f"-I{principal}", at)
        if (await tools.say(*question, "-r", "gone", given=payload))[1] == 0:
            return f"{_printable(principal)} ({key[0]})"
        if (await tools.say(*question, given=payload))[1] == 0:
            raise _WrongError(f"is signed with the SSH key {key[0]}, which is revoked")
    named = _public_key(signature) in signers.allowed_signers
    why = (
        "which is among the allowed signers, but not for git, or not now"
        if named
        else "which is not among the allowed signers"
    )
    raise _WrongError(f"is signed with the SSH key {key[0]}, {why}")


def _public_key(signature: bytes) -> bytes:
    """The signer's key as an allowed signers file has it. PROTOCOL.sshsig: "SSHSIG", a version, and then the key."""
    body = base64.b64decode(b"".join(line for line in signature.splitlines() if not line.startswith(b"-")))
    length = int.from_bytes(body[10:14], "big")
    return base64.b64encode(body[14 : 14 + length])


#: What gpg tells of a signature that does not count.
_COMPLAINTS = {
    "BADSIG": "has a bad signature: it is not of this commit, or damaged",
    "REVKEYSIG": "is signed with the OpenPGP key {key}, which is revoked",
    "EXPKEYSIG": "is signed with the OpenPGP key {key}, which has expired",
    "EXPSIG": "has a signature that has expired, of the OpenPGP key {key}",
    "NO_PUBKEY": "is signed with the OpenPGP key {key}, which is not among the signers' keys",
    "ERRSIG": "has a signature that cannot be checked, of the OpenPGP key {key}",
    "NODATA": "has a bad signature: it is damaged",
}


async def _openpgp(tools: _Tools, payload: bytes, signature: bytes, signers: Signers, now: datetime) -> str:
    if not signers.openpgp_keys:
        raise _WrongError("is signed with an OpenPGP key, and no OpenPGP keys are named whose signatures count")
    home = tools.folder / "gnupg"
    home.mkdir(mode=0o700)
    (tools.folder / "signature").write_bytes(signature)
    gpg = (
        *("gpg", "--homedir", "gnupg", "--no-options", "--batch", "--no-tty", "--no-autostart", "--disable-dirmngr"),
        *("--no-auto-key-retrieve", "--no-auto-check-trustdb", "--trust-model", "always", "--weak-digest", "SHA1"),
        *("--faked-system-time", f"{now.timestamp():.0f}!", "--status-fd", "1"),
    )
    for name, key in signers.openpgp_keys.items():
        # Not its exit status: it misses the agent, which nobody needs for public keys.
        told = _statuses((await tools.say(*gpg, "--import", given=key))[0])
        if "IMPORT_OK" not in told or told.keys() & {"NODATA", "IMPORT_PROBLEM"}:
            raise _WrongError(f"cannot be checked: {_printable(name)} of the signers' keys is no OpenPGP public key")
    said, status = await tools.say(*gpg, "--verify", "signature", "-", given=payload)
    told = _statuses(said)
    for word, complaint in _COMPLAINTS.items():
        if word in told:
            raise _WrongError(complaint.format(key=_printable(told[word][0].partition(" ")[0])))
    # One of each: of several signatures gpg tells one after the other, and the good one might be nobody's.
    if status != 0 or len(told.get("GOODSIG", ())) != 1 or len(told.get("VALIDSIG", ())) != 1:
        raise _WrongError("has a signature that gpg does not take")
    return f"{_printable(told['GOODSIG'][0].partition(' ')[2])} ({told['VALIDSIG'][0].partition(' ')[0]})"


def _statuses(said: str) -> Mapping[str, Sequence[str]]:
    """What gpg says for programs: word -> what follows it, each time."""
    told: dict[str, list[str]] = {}
    for line in said.splitlines():
        if line.startswith("[GNUPG:] "):
            word, _, rest = line.removeprefix("[GNUPG:] ").partition(" ")
            told.setdefault(word, []).append(rest)
    return told


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)[:200]
