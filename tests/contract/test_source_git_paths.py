"""What two commits differ in, asked of real git servers: smart HTTP over TLS, new and old, ssh, and files."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from reconciler.source.git import Credential, Unresolved, changed
from tests.contract.git_servers import (
    BASIC,
    TOKEN,
    GitHandler,
    GitServer,
    SshServer,
    command_lines,
    git,
    make_repository,
)
from tests.contract.git_servers import certificate as write_certificate

GOOD = Credential.token("bot", TOKEN)
NOWHERE = "0123456789" * 4

FIRST: dict[str, str | bytes] = {"churn/main/model.py": "1", "churn/README": "x", "shared/x.py": "1", "run.sh": "x"}
SECOND = FIRST | {"churn/main/model.py": "2"}
THIRD = FIRST | {"churn/main/model.py": "2", "other/new.txt": "x"}


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
    """Three commits on main; a server of it can leave files out."""
    folder = tmp_path / "repositories" / "models.git"
    make_repository(folder, FIRST, SECOND, THIRD)
    git(folder, "config", "uploadpack.allowFilter", "true")
    return folder


@pytest.fixture
def commits(repository: Path) -> list[str]:
    return git(repository, "rev-list", "--reverse", "main").split()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and its own certificate authority, for 127.0.0.1."""
    return write_certificate(tmp_path_factory.mktemp("tls") / "server.pem")


@pytest.fixture
def start(certificate: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., GitServer]]:
    """Starts servers of the repository, which git trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    servers: list[GitServer] = []

    def start_one(*, is_old: bool = False) -> GitServer:
        servers.append(GitServer(repository.parent, certificate=certificate, watch=command_lines, is_old=is_old))
        return servers[-1]

    yield start_one
    for server in servers:
        server.stop()


@pytest.fixture
def server(start: Callable[..., GitServer]) -> GitServer:
    return start()


def ask(address: str, old: str, new: str, *paths: str, **options: Any) -> bool | Unresolved:
    return changed(address, old, new, paths, **{"timeout_s": 20, **options})


def reason(answer: bool | Unresolved, cause: str) -> str:
    assert isinstance(answer, Unresolved), answer
    assert answer.cause == cause, answer
    assert answer.reason.isprintable()
    return answer.reason


# ------------------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize(
    ("path", "differs"),
    [
        ("churn", True),
        ("churn/", True),
        ("./churn/main", True),
        ("churn/main/model.py", True),
        ("", True),
        (".", True),
        ("churn/README", False),
        ("shared", False),
        ("run.sh", False),
        ("other", False),  # neither commit has it
        ("chur", False),  # the beginning of a name is not the name
        ("*", False),  # a path, and no pattern
        (":(top)churn", False),
        ("churn/main/model.py/x", False),
    ],
)
def test_a_path_differs_or_not(repository: Path, commits: list[str], path: str, differs: bool) -> None:
    assert ask(repository.as_uri(), commits[0], commits[1], path, allow_file=True) is differs


def test_one_path_of_several_is_enough_and_none_means_all(repository: Path, commits: list[str]) -> None:
    first, second, third = commits
    there = repository.as_uri()
    assert ask(there, second, third, "churn", "shared", allow_file=True) is False
    assert ask(there, second, third, "churn", "other", allow_file=True) is True
    assert ask(there, second, third, allow_file=True) is True
    assert ask(there, third, first, "other", allow_file=True) is True  # it is gone
    assert ask(there, first, first, "churn", allow_file=True) is False


def test_a_file_that_becomes_executable_has_changed(tmp_path: Path) -> None:
    folder = tmp_path / "modes.git"
    old, new = make_repository(folder, {"run.sh": "x"}, {"run.sh!": "x"})
    assert ask(folder.as_uri(), old, new, "run.sh", allow_file=True) is True


def test_names_in_any_language_and_sha256_are_no_trouble(tmp_path: Path) -> None:
    folder = tmp_path / "sha256.git"
    folder.mkdir()
    git(folder, "init", "-q", "--bare", "--object-format=sha256", "-b", "main")
    made = []
    for content in ("1", "2"):
        blob = git(folder, "hash-object", "-w", "--stdin", given=content)
        tree = git(folder, "mktree", given=f"100644 blob {blob}\tmodèle 一.py")
        made.append(git(folder, "commit-tree", tree, "-m", content))
    git(folder, "update-ref", "refs/heads/main", made[1])
    git(folder, "update-ref", "refs/heads/before", made[0])
    assert ask(folder.as_uri(), made[0], made[1], "modèle 一.py", allow_file=True) is True
    assert ask(folder.as_uri(), made[0], made[1], "modèle 二.py", allow_file=True) is False


# -------------------------------------------------------------------------------------------- commits that are gone


def force_push(repository: Path, commits: list[str]) -> None:
    """main begins anew, and what it was is collected."""
    tree = git(repository, "rev-parse", f"{commits[0]}^{{tree}}")
    git(repository, "update-ref", "refs/heads/main", git(repository, "commit-tree", tree, "-m", "anew"))
    git(repository, "repack", "-adq")
    git(repository, "prune", "--expire=now")


@pytest.mark.parametrize("is_old", [False, True])
def test_where_the_old_commit_is_gone_everything_may_have_changed(
    start: Callable[..., GitServer], repository: Path, commits: list[str], is_old: bool
) -> None:
    force_push(repository, commits)
    head = git(repository, "rev-parse", "main")
    assert ask(f"{start(is_old=is_old).url}/models.git", commits[1], head, "shared") is True


@pytest.mark.parametrize("is_old", [False, True])
def test_a_new_commit_that_is_not_there_is_told(
    start: Callable[..., GitServer], commits: list[str], is_old: bool
) -> None:
    url = f"{start(is_old=is_old).url}/models.git"
    assert reason(ask(url, commits[0], NOWHERE), "branch") == f"{url}: the commit {NOWHERE} is not there"


def test_a_repository_made_anew_with_another_hash_has_changed(server: GitServer, commits: list[str]) -> None:
    assert ask(f"{server.url}/models.git", commits[0], "ab" * 32) is True
    assert server.requests == []


@pytest.mark.parametrize(
    "name", ["main", "--upload-pack=x", "HEAD", "", NOWHERE[:-1], NOWHERE.replace("a", "A") + "\n"]
)
def test_what_is_no_full_id_never_reaches_git(server: GitServer, commits: list[str], name: str) -> None:
    url = f"{server.url}/models.git"
    assert "is not the id of a commit" in reason(ask(url, name, commits[0]), "branch")
    assert "is not the id of a commit" in reason(ask(url, commits[0], name), "branch")
    assert server.requests == []


# ------------------------------------------------------------------------------------------------------- servers


def test_only_folders_are_fetched_and_in_one_go(server: GitServer, repository: Path) -> None:
    """A gigabyte beside the model is not downloaded to see that nothing changed."""
    sent = 0
    reply = GitHandler.reply

    def counted(request: GitHandler, status: int, body: bytes = b"", **headers: str) -> bool:
        nonlocal sent
        sent += len(body)
        return reply(request, status, body, **headers)

    big = Random(1).randbytes(1 << 20)
    folder = repository.parent / "big.git"
    old, new = make_repository(folder, {"churn/m.py": "1", "weights": big}, {"churn/m.py": "1", "weights": big[1:]})
    git(folder, "config", "uploadpack.allowFilter", "true")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(GitHandler, "reply", counted)
        assert ask(f"{server.url}/big.git", old, new, "churn") is False
    assert sent < 10_000
    requests = [request.split("?")[0] for request in server.requests]
    assert requests == ["GET /big.git/info/refs", "POST /big.git/git-upload-pack"]


@pytest.mark.parametrize("can_filter", ["true", "false"])
@pytest.mark.parametrize("is_old", [False, True])
def test_servers_that_can_less_are_asked_for_more(
    start: Callable[..., GitServer], repository: Path, commits: list[str], is_old: bool, can_filter: str
) -> None:
    git(repository, "config", "uploadpack.allowFilter", can_filter)
    url = f"{start(is_old=is_old).url}/models.git"
    assert ask(url, commits[0], commits[2], "churn") is True
    assert ask(url, commits[0], commits[2], "shared") is False


def test_a_mirror_is_asked_in_its_place(server: GitServer, commits: list[str]) -> None:
    server.needs_token()
    mirrors = {"https://github.com/acme/": f"{server.url}/"}
    there = "https://github.com/acme/models.git"
    assert ask(there, commits[0], commits[1], "churn", credential=GOOD, mirrors=mirrors) is True
    gone = "https://github.com/acme/gone.git"
    assert reason(ask(gone, *commits[:2], credential=GOOD, mirrors=mirrors), "address").startswith(f"{gone}: ")


@pytest.mark.parametrize("address", ["ext::sh -c x", "http://127.0.0.1/x", "-x", "git://127.0.0.1/x", "/srv/x"])
def test_an_address_that_git_must_not_see_is_refused(commits: list[str], address: str) -> None:
    assert "is not an address that git is given" in reason(ask(address, *commits[:2]), "address")


def test_files_are_asked_only_where_that_is_allowed(repository: Path, commits: list[str]) -> None:
    assert "is not an address" in reason(ask(repository.as_uri(), *commits[:2]), "address")


def test_a_key_opens_the_repository(repository: Path, commits: list[str]) -> None:
    running = SshServer(repository.parent)
    try:
        key = Credential.ssh_key(running.private_key, running.known_hosts)
        url = f"{running.url}/models.git"
        assert ask(url, commits[0], commits[1], "churn", credential=key) is True
        assert ask(url, commits[1], commits[2], "churn", credential=key) is False
        assert running.key.export_private_key() not in running.processes
    finally:
        running.stop()


# ------------------------------------------------------------------------------------------------------- faults


def test_the_token_is_on_no_command_line_and_a_wrong_one_is_told(server: GitServer, commits: list[str]) -> None:
    server.needs_token()
    url = f"{server.url}/models.git"
    assert ask(url, *commits[:2], "churn", credential=GOOD) is True
    assert server.url.encode() in server.processes
    for secret in (TOKEN, BASIC):
        assert secret.encode() not in server.processes
    wrong = ask(url, *commits[:2], credential=Credential.token("bot", "planted-wrong"))
    assert reason(wrong, "credential") == f"{url}: the token of its Secret was refused"


def test_a_server_that_does_not_answer_is_given_up_and_nothing_of_git_stays(
    server: GitServer, commits: list[str]
) -> None:
    gone = threading.Event()

    def never(_: GitHandler) -> bool:
        return gone.wait(30)

    server.answer = never
    url = f"{server.url}/models.git"
    begun = time.monotonic()
    assert reason(ask(url, *commits[:2], timeout_s=0.5), "timeout") == f"{url}: there was no answer within 0.5 s"
    assert time.monotonic() - begun < 20
    assert server.url.encode() not in command_lines()
    gone.set()


def test_a_server_that_sends_more_than_is_allowed_is_given_up(server: GitServer, repository: Path) -> None:
    old, new = make_repository(  # and it cannot leave files out
        repository.parent / "big.git",
        {"weights": Random(1).randbytes(1 << 20)},
        {"weights": Random(2).randbytes(1 << 20)},
    )
    url = f"{server.url}/big.git"
    assert ask(url, old, new, "weights", max_bytes=4 << 20) is True
    told = reason(ask(url, old, new, "weights", max_bytes=1 << 20), "unreachable")
    assert told.startswith(f"{url}: it sends too much, or what is damaged; ")


def test_hooks_and_settings_of_the_repository_do_nothing_here(
    repository: Path, commits: list[str], tmp_path: Path
) -> None:
    for hook in ("post-checkout", "reference-transaction", "post-index-change"):
        path = repository / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        path.chmod(0o755)
    git(repository, "config", "diff.external", f"touch {tmp_path}/ran")
    assert ask(repository.as_uri(), *commits[:2], "churn", allow_file=True) is True
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("path", ["../x", "a/../../x", "a\0b"])
def test_a_path_that_leads_out_of_the_repository_is_told(repository: Path, commits: list[str], path: str) -> None:
    told = reason(ask(repository.as_uri(), *commits[:2], path, allow_file=True), "branch")
    assert "is not a path in a repository" in told
