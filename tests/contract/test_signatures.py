"""Who signed a commit: real signatures, made by git with ssh-keygen and gpg, checked by ssh-keygen and gpg."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reconciler.source.signatures import Signers, UnverifiedError, verify
from tests.contract.git_servers import git, make_repository

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files are made. Nothing stays there, whatever a test does."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    make_repository(tmp_path / "models.git", {"a.yaml": "x"})
    return tmp_path / "models.git"


@dataclass
class Key:
    """Somebody's key: what git is told to sign with it, and what others get."""

    settings: tuple[str, ...]
    public: bytes
    home: Path


def run(*command: str | Path, home: Path, given: bytes = b"") -> bytes:
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "GNUPGHOME": str(home)}
    return subprocess.run(command, check=True, env=environment, input=given, capture_output=True).stdout


@pytest.fixture
def ssh_key(tmp_path: Path) -> Callable[[str], Key]:
    def make(name: str) -> Key:
        path = tmp_path / name
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path, home=tmp_path)
        settings = ("-c", "gpg.format=ssh", "-c", f"user.signingkey={path}")
        return Key(settings, path.with_suffix(".pub").read_bytes(), tmp_path)

    return make


@pytest.fixture(scope="session")
def homes() -> Iterator[Path]:
    """Short, for the path of a socket has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="gpg-"))
    yield folder
    for home in folder.iterdir():
        run("gpgconf", "--kill", "all", home=home)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def openpgp_key(homes: Path) -> Callable[[str, str], Key]:
    """Makes a key that was made in 2026, and expires when it is told to."""

    def make(name: str, expires: str = "never") -> Key:
        home = homes / name
        if not home.exists():
            home.mkdir(mode=0o700)
            user = f"{name} <{name}@example.org>"
            batch = ("gpg", "--batch", "--quiet", "--faked-system-time", "20260101T000000!", "--passphrase", "")
            run(*batch, "--quick-generate-key", user, "ed25519", "sign", expires, home=home)
            gpg = home / "gpg"
            gpg.write_text('#!/bin/sh\nexec gpg --faked-system-time 20260102T000000! "$@"\n')
            gpg.chmod(0o755)
        public = run("gpg", "--batch", "--armor", "--export", home=home)
        return Key(("-c", f"user.signingkey={name}@example.org", "-c", f"gpg.program={home / 'gpg'}"), public, home)

    return make


def sign(repository: Path, key: Key, message: str = "signed") -> str:
    """A commit of a's folder that a key signed."""
    settings = (*key.settings, "-c", "user.name=A", "-c", "user.email=a@b")
    environment = {"PATH": os.environ["PATH"], "HOME": str(key.home), "GNUPGHOME": str(key.home)}
    command = ["git", *settings, "commit-tree", "-S", "main^{tree}", "-p", "main", "-m", message]
    made = subprocess.run(command, cwd=repository, check=True, env=environment, capture_output=True, text=True)
    return made.stdout.strip()


def content(repository: Path, commit: str) -> bytes:
    command = ["git", "cat-file", "commit", commit]
    return subprocess.run(command, cwd=repository, check=True, capture_output=True).stdout


def ask(repository: Path, commit: str, signers: Signers, now: datetime = NOW) -> str:
    return verify(commit, content(repository, commit), signers, now)


def why(repository: Path, commit: str, signers: Signers, now: datetime = NOW) -> str:
    """Why a commit does not count; without its id."""
    with pytest.raises(UnverifiedError) as told:
        ask(repository, commit, signers, now)
    assert str(told.value).isprintable()
    assert commit[:12] in str(told.value)
    return str(told.value).replace(f"the commit {commit[:12]} ", "")


def allowed(key: Key, who: str = "alice@example.org", options: str = "") -> bytes:
    return f"{who} {options} ".encode() + key.public


# --------------------------------------------------------------------------------------------------------- SSH


def test_an_allowed_signer_is_named_with_the_key(repository: Path, ssh_key: Callable[[str], Key]) -> None:
    alice = ssh_key("alice")
    said = ask(repository, sign(repository, alice), Signers(b"# us\n" + allowed(alice)))
    assert said.startswith("alice@example.org (SHA256:")


def test_an_ssh_key_that_nobody_allowed_is_unknown(repository: Path, ssh_key: Callable[[str], Key]) -> None:
    """T08"""
    signers = Signers(allowed(ssh_key("alice")))
    said = why(repository, sign(repository, ssh_key("mallory")), signers)
    assert said.endswith("which is not among the allowed signers")


@pytest.mark.parametrize(
    ("options", "now", "is_valid"),
    [
        ('valid-before="20260701"', NOW, True),
        ('valid-before="20260501"', NOW, False),
        ('valid-after="20260501"', NOW, True),
        ('valid-after="20260701"', NOW, False),
        ('valid-before="202606010100"', NOW + timedelta(minutes=59), True),
        ('valid-before="202606010100"', NOW + timedelta(minutes=61), False),
    ],
)
def test_a_key_counts_while_it_is_valid_whatever_the_commit_says_of_its_time(
    repository: Path, ssh_key: Callable[[str], Key], options: str, now: datetime, is_valid: bool
) -> None:
    alice = ssh_key("alice")
    signers, commit = Signers(allowed(alice, options=options)), sign(repository, alice)
    if is_valid:
        assert ask(repository, commit, signers, now)
    else:
        said = why(repository, commit, signers, now)
        assert said.endswith("which is among the allowed signers, but not for git, or not now")


def test_a_key_that_is_allowed_for_other_things_than_git_does_not_count(
    repository: Path, ssh_key: Callable[[str], Key]
) -> None:
    alice = ssh_key("alice")
    commit = sign(repository, alice)
    assert "not for git, or not now" in why(repository, commit, Signers(allowed(alice, options='namespaces="file"')))
    assert ask(repository, commit, Signers(allowed(alice, options='namespaces="git"')))


def test_a_revoked_ssh_key_does_not_count(repository: Path, ssh_key: Callable[[str], Key]) -> None:
    alice, bob = ssh_key("alice"), ssh_key("bob")
    commit = sign(repository, alice)
    assert why(repository, commit, Signers(allowed(alice), alice.public)).endswith("which is revoked")
    assert ask(repository, commit, Signers(allowed(alice), bob.public))


def test_a_changed_commit_has_a_bad_signature(repository: Path, ssh_key: Callable[[str], Key]) -> None:
    """T08"""
    alice = ssh_key("alice")
    commit = sign(repository, alice)
    for old, new in ((b"\n\nsigned", b"\n\nforged"), (b"tree ", b"tree 0"), (b"author A", b"author B")):
        forged = content(repository, commit).replace(old, new)
        with pytest.raises(UnverifiedError, match="has a bad signature"):
            verify(commit, forged, Signers(allowed(alice)), NOW)


def test_a_signature_of_something_else_than_a_commit_does_not_count(
    repository: Path, ssh_key: Callable[[str], Key], tmp_path: Path
) -> None:
    """What somebody signed as a file is no consent to a commit with the same bytes."""
    alice = ssh_key("alice")
    unsigned = content(repository, git(repository, "rev-parse", "main"))
    signature = run("ssh-keygen", "-Y", "sign", "-n", "file", "-f", tmp_path / "alice", home=tmp_path, given=unsigned)
    head, _, message = unsigned.partition(b"\n\n")
    forged = head + b"\ngpgsig " + signature.strip().replace(b"\n", b"\n ") + b"\n\n" + message
    with pytest.raises(UnverifiedError, match="has a bad signature"):
        verify("0" * 40, forged, Signers(allowed(alice)), NOW)


def test_the_first_line_of_a_key_says_what_it_is_for(repository: Path, ssh_key: Callable[[str], Key]) -> None:
    """So it is with git. A second line cannot widen what the first one narrowed."""
    alice = ssh_key("alice")
    narrow, wide = allowed(alice, options='namespaces="file"'), allowed(alice, "alice,*@example.com")
    commit = sign(repository, alice)
    assert "not for git, or not now" in why(repository, commit, Signers(narrow + wide))
    assert ask(repository, commit, Signers(wide + narrow)).startswith("alice (")


# ----------------------------------------------------------------------------------------------------- OpenPGP


def test_the_owner_of_an_openpgp_key_is_named_with_the_key(repository: Path, openpgp_key: Callable[[str], Key]) -> None:
    carol = openpgp_key("carol")
    others = {"a.asc": openpgp_key("dave").public, "b.gpg": run("gpg", "--export", home=carol.home)}
    said = ask(repository, sign(repository, carol), Signers(openpgp_keys=others))
    assert said.startswith("carol <carol@example.org> (")


def test_an_openpgp_key_that_nobody_named_is_unknown(repository: Path, openpgp_key: Callable[[str], Key]) -> None:
    """T08"""
    signers = Signers(openpgp_keys={"dave.asc": openpgp_key("dave").public})
    said = why(repository, sign(repository, openpgp_key("carol")), signers)
    assert said.endswith("which is not among the signers' keys")


def test_an_expired_openpgp_key_does_not_count(repository: Path, openpgp_key: Callable[[str, str], Key]) -> None:
    erin = openpgp_key("erin", "2026-07-01")
    commit, signers = sign(repository, erin), Signers(openpgp_keys={"erin.asc": erin.public})
    assert ask(repository, commit, signers, NOW)
    assert why(repository, commit, signers, NOW + timedelta(days=60)).endswith("which has expired")


def test_a_revoked_openpgp_key_does_not_count(repository: Path, openpgp_key: Callable[[str], Key]) -> None:
    frank = openpgp_key("frank")
    commit = sign(repository, frank)
    revocation = next((frank.home / "openpgp-revocs.d").iterdir()).read_bytes().replace(b":-----BEGIN", b"-----BEGIN")
    run("gpg", "--batch", "--import", home=frank.home, given=revocation)
    revoked = run("gpg", "--batch", "--armor", "--export", home=frank.home)
    assert ask(repository, commit, Signers(openpgp_keys={"frank.asc": frank.public}))
    assert why(repository, commit, Signers(openpgp_keys={"frank.asc": revoked})).endswith("which is revoked")


def test_a_changed_commit_has_a_bad_openpgp_signature(repository: Path, openpgp_key: Callable[[str], Key]) -> None:
    carol = openpgp_key("carol")
    commit = sign(repository, carol)
    forged = content(repository, commit).replace(b"\n\nsigned", b"\n\nforged")
    with pytest.raises(UnverifiedError, match="has a bad signature"):
        verify(commit, forged, Signers(openpgp_keys={"carol.asc": carol.public}), NOW)


def test_a_damaged_openpgp_key_is_named(repository: Path, openpgp_key: Callable[[str], Key]) -> None:
    carol = openpgp_key("carol")
    keys = {"carol.asc": carol.public, "dave.asc": b"no key"}
    said = why(repository, sign(repository, carol), Signers(openpgp_keys=keys))
    assert said == "cannot be checked: dave.asc of the signers' keys is no OpenPGP public key"


# ------------------------------------------------------------------------------------------------------- both


def test_a_commit_without_a_signature_does_not_count(repository: Path, ssh_key: Callable[[str], Key]) -> None:
    """T08"""
    commit = git(repository, "rev-parse", "main")
    assert why(repository, commit, Signers(allowed(ssh_key("alice")))) == "is not signed"


@pytest.mark.parametrize("signers", [Signers(), Signers(b" \n"), Signers.from_secret({"README": b"x"})])
def test_where_nobody_may_sign_nothing_counts(
    repository: Path, ssh_key: Callable[[str], Key], signers: Signers
) -> None:
    said = why(repository, sign(repository, ssh_key("alice")), signers)
    assert said == "has to be signed, and nobody is named whose signature counts"


def test_signers_of_the_other_kind_are_told_apart(
    repository: Path, ssh_key: Callable[[str], Key], openpgp_key: Callable[[str], Key]
) -> None:
    alice, carol = ssh_key("alice"), openpgp_key("carol")
    only_ssh, only_openpgp = Signers(allowed(alice)), Signers(openpgp_keys={"carol.asc": carol.public})
    assert "no OpenPGP keys are named" in why(repository, sign(repository, carol), only_ssh)
    assert "no SSH keys are named" in why(repository, sign(repository, alice), only_openpgp)
    both = Signers.from_secret({"allowed_signers": allowed(alice), "carol.asc": carol.public, "notes.txt": b"x"})
    assert ask(repository, sign(repository, alice), both).startswith("alice@")
    assert ask(repository, sign(repository, carol), both).startswith("carol ")


def test_several_signatures_are_refused(repository: Path, ssh_key: Callable[[str], Key]) -> None:
    """Which of them would it be? Git puts them together, and others take the first or the last."""
    alice = ssh_key("alice")
    one = content(repository, sign(repository, alice))
    head, _, message = one.partition(b"\n\n")
    signature = head[head.index(b"\ngpgsig ") :]
    with pytest.raises(UnverifiedError, match="more than one signature"):
        verify("0" * 40, head + signature + b"\n\n" + message, Signers(allowed(alice)), NOW)


@pytest.mark.parametrize(
    "signature", [b"-----BEGIN SIGNED MESSAGE-----\nx", b"", b"-----BEGIN SSH SIGNATURE-----\n\xff\n", b"\0"]
)
def test_what_is_no_signature_does_not_count(repository: Path, ssh_key: Callable[[str], Key], signature: bytes) -> None:
    head, _, message = content(repository, git(repository, "rev-parse", "main")).partition(b"\n\n")
    forged = head + b"\ngpgsig " + signature.replace(b"\n", b"\n ") + b"\n\n" + message
    with pytest.raises(UnverifiedError):
        verify("0" * 40, forged, Signers(allowed(ssh_key("alice"))), NOW)


def test_a_signature_in_the_message_is_none(repository: Path, ssh_key: Callable[[str], Key]) -> None:
    alice = ssh_key("alice")
    signed = content(repository, sign(repository, alice)).partition(b"\n\n")[0]
    unsigned = content(repository, git(repository, "rev-parse", "main"))
    with pytest.raises(UnverifiedError, match="is not signed"):
        verify("0" * 40, unsigned + b"\n" + signed + b"\n", Signers(allowed(alice)), NOW)


@pytest.mark.parametrize("program", ["ssh-keygen", "gpg"])
def test_a_machine_without_the_program_says_so(
    request: pytest.FixtureRequest, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    key: Key = request.getfixturevalue("ssh_key" if program == "ssh-keygen" else "openpgp_key")("carol")
    signers = Signers(allowed(key)) if program == "ssh-keygen" else Signers(openpgp_keys={"carol.asc": key.public})
    commit = sign(repository, key)
    signed = content(repository, commit)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(UnverifiedError, match=f"cannot be checked here: {program} is not installed"):
        verify(commit, signed, signers, NOW)


def test_a_repository_with_sha256_is_signed_too(tmp_path: Path, ssh_key: Callable[[str], Key]) -> None:
    folder = tmp_path / "new.git"
    folder.mkdir()
    git(folder, "init", "-q", "--bare", "-b", "main", "--object-format=sha256")
    tree = git(folder, "hash-object", "-t", "tree", "-w", "--stdin")
    git(folder, "update-ref", "refs/heads/main", git(folder, "commit-tree", tree, "-m", "first"))
    alice = ssh_key("alice")
    assert ask(folder, sign(folder, alice), Signers(allowed(alice))).startswith("alice@")
