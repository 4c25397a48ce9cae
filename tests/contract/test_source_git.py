"""Resolving branches against real git servers: smart HTTP over TLS with a token, ssh with a key, and files.

Planted secrets are looked for in everything that others can see: answers, output, logs, command lines, and
files that stay behind.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from reconciler.source.git import Branch, Credential, Unresolved, resolve
from tests.contract.git_servers import BASIC, TOKEN, GitHandler, GitServer, SshServer, command_lines, git
from tests.contract.git_servers import certificate as write_certificate

GOOD = Credential.token("bot", TOKEN)


# ------------------------------------------------------------------------------------------------- the servers


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
    """main, feature/new, and a branch whose full name ends like that of main."""
    folder = tmp_path / "repositories" / "models.git"
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "--bare", "-b", "main")
    tree = git(folder, "hash-object", "-t", "tree", "-w", "--stdin")
    for name in ("main", "feature/new", "refs/heads/main"):
        git(folder, "update-ref", f"refs/heads/{name}", git(folder, "commit-tree", tree, "-m", name))
    git(folder, "tag", "v1", "main")
    return folder


def commit(repository: Path, branch: str = "main") -> str:
    return git(repository, "rev-parse", f"refs/heads/{branch}")


def resident_bytes(pattern: str) -> int:
    """Of the largest process with this in its command line."""
    most = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if pattern.encode() in (process / "cmdline").read_bytes():
                most = max(most, int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        except OSError:
            continue
    return most


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and its own certificate authority, for 127.0.0.1."""
    return write_certificate(tmp_path_factory.mktemp("tls") / "server.pem")


@pytest.fixture
def start(certificate: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], GitServer]]:
    """Starts servers of the repository, which git trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    servers: list[GitServer] = []

    def start_one() -> GitServer:
        servers.append(GitServer(repository.parent, certificate=certificate, watch=command_lines))
        return servers[-1]

    yield start_one
    for server in servers:
        server.stop()


@pytest.fixture
def server(start: Callable[[], GitServer]) -> GitServer:
    return start()


def ask(address: str, branch: str = "main", credential: Credential | None = None, **options: Any) -> str | Unresolved:
    wanted = Branch(address, branch, credential)
    return resolve([wanted], **{"timeout_s": 20, **options})[wanted]


def reason(answer: str | Unresolved, cause: str) -> str:
    assert isinstance(answer, Unresolved)
    assert answer.cause == cause, answer
    assert answer.reason.isprintable()
    return answer.reason


def without(pattern: str) -> bool:
    """Whether soon no process has this in its command line."""
    end = time.monotonic() + 5
    while pattern.encode() in command_lines():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


# ---------------------------------------------------------------------------------------------------- branches


def test_a_branch_stands_at_its_commit(repository: Path) -> None:
    for branch in ("main", "feature/new"):
        assert ask(repository.as_uri(), branch, allow_file=True) == commit(repository, branch)


def test_a_branch_whose_name_only_ends_in_the_wanted_one_is_another_branch(repository: Path) -> None:
    git(repository, "update-ref", "-d", "refs/heads/main")
    assert "'main' is not there" in reason(ask(repository.as_uri(), allow_file=True), "branch")


def test_a_missing_branch_names_the_nearest_ones(repository: Path) -> None:
    told = reason(ask(repository.as_uri(), "feature/mew", allow_file=True), "branch")
    assert told == f"{repository.as_uri()}: the branch 'feature/mew' is not there; the nearest is 'feature/new'"


def test_a_tag_is_no_branch(repository: Path) -> None:
    assert "'v1' is not there" in reason(ask(repository.as_uri(), "v1", allow_file=True), "branch")


def test_a_branch_that_moved_is_seen_to_have_moved(repository: Path) -> None:
    before = ask(repository.as_uri(), allow_file=True)
    git(repository, "update-ref", "refs/heads/main", commit(repository, "feature/new"))
    after = ask(repository.as_uri(), allow_file=True)
    assert before != after == commit(repository, "feature/new")


def test_a_repository_without_branches_says_so(repository: Path) -> None:
    empty = repository.parent / "empty.git"
    git(repository.parent, "init", "-q", "--bare", str(empty))
    assert "the repository is empty" in reason(ask(empty.as_uri(), allow_file=True), "branch")


def test_a_repository_with_sha256_answers_64_digits(repository: Path) -> None:
    folder = repository.parent / "sha256.git"
    git(repository.parent, "init", "-q", "--bare", "--object-format=sha256", str(folder))
    tree = git(folder, "hash-object", "-t", "tree", "-w", "--stdin")
    git(folder, "update-ref", "refs/heads/main", git(folder, "commit-tree", tree, "-m", "x"))
    answer = ask(folder.as_uri(), allow_file=True)
    assert answer == commit(folder)
    assert len(str(answer)) == 64


def test_many_branches_are_found_among_very_many(repository: Path) -> None:
    main = commit(repository)
    packed = "".join(f"{main} refs/heads/b{number:06}\n" for number in range(100_000))
    (repository / "packed-refs").write_text("# pack-refs with: peeled fully-peeled sorted \n" + packed)
    wanted = [Branch(repository.as_uri(), f"b{number:06}") for number in range(0, 100_000, 50)]
    assert set(resolve(wanted, allow_file=True).values()) == {main}


# ------------------------------------------------------------------------------------------- many repositories


def test_a_repository_is_asked_once_for_all_its_branches(server: GitServer, repository: Path) -> None:
    wanted = [Branch(f"{server.url}/models.git", branch) for branch in ("feature/new", "nothing", "main")]
    answers = resolve(wanted)
    assert list(answers) == wanted
    assert answers[wanted[0]] == commit(repository, "feature/new")
    assert answers[wanted[2]] == commit(repository)
    assert isinstance(answers[wanted[1]], Unresolved)
    assert [request.partition("/models")[0] for request in server.requests] == ["GET ", "POST "]


def test_what_is_wrong_with_one_repository_does_not_touch_the_others(server: GitServer, repository: Path) -> None:
    bad = [Branch(there, "main") for there in (f"{server.url}/nothing.git", "ext::x", "https://127.0.0.1:1/x")]
    good = Branch(f"{server.url}/models.git", "main")
    answers = resolve([*bad, good])
    assert answers[good] == commit(repository)
    assert [getattr(answers[branch], "cause", None) for branch in bad] == ["address", "address", "unreachable"]


def test_repositories_are_asked_at_the_same_time_but_not_more_than_allowed(server: GitServer) -> None:
    lock = threading.Lock()
    present, most = 0, 0

    def slowly(_: GitHandler) -> bool:
        nonlocal present, most
        with lock:
            present += 1
            most = max(most, present)
        time.sleep(0.2)
        with lock:
            present -= 1
        return False

    server.answer = slowly
    resolve([Branch(f"{server.url}/r{number}.git", "main") for number in range(6)], concurrency=3)
    assert most == 3


def test_threads_may_ask_at_the_same_time(repository: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ask(repository.as_uri(), allow_file=True), range(8)))
    assert answers == [commit(repository)] * 8


# ------------------------------------------------------------------------------------------------------- token


def test_the_token_opens_the_repository(server: GitServer, repository: Path) -> None:
    server.needs_token()
    assert ask(f"{server.url}/models.git", credential=GOOD) == commit(repository)
    assert set(server.authorizations) == {f"Basic {BASIC}"}


def test_white_space_around_a_token_is_not_part_of_it(server: GitServer, repository: Path) -> None:
    server.needs_token()
    assert ask(f"{server.url}/models.git", credential=Credential.token("bot", f"{TOKEN}\n")) == commit(repository)


def test_a_wrong_token_and_no_token_are_told_apart(server: GitServer) -> None:
    server.needs_token()
    wrong = reason(ask(f"{server.url}/models.git", credential=Credential.token("bot", "planted-wrong")), "credential")
    assert wrong == f"{server.url}/models.git: the token of its Secret was refused"
    none = reason(ask(f"{server.url}/models.git"), "credential")
    assert none == f"{server.url}/models.git: it asks for a token, and the spec names no Secret"


def test_the_token_is_on_no_command_line_in_no_log_and_in_no_file_that_stays(
    server: GitServer, temporary: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    server.needs_token()
    ask(f"{server.url}/models.git", credential=GOOD)
    assert server.url.encode() in server.processes  # so git's own command line was among them
    seen = server.processes.decode(errors="replace") + caplog.text + "".join(capfd.readouterr())
    for secret in (TOKEN, BASIC):
        assert secret not in seen
    assert list(temporary.iterdir()) == []


def test_a_server_that_sends_the_token_back_does_not_get_it_into_a_message(server: GitServer) -> None:
    def echo(request: GitHandler) -> bool:
        told = f"{request.headers['Authorization']} {TOKEN}\x1b[31m {BASIC}"
        line = f"ERR {told}".encode()
        body = b"001e# service=git-upload-pack\n0000" + f"{len(line) + 4:04x}".encode() + line
        return request.reply(200, body, Content_Type="application/x-git-upload-pack-advertisement")

    server.answer = echo
    told = reason(ask(f"{server.url}/models.git", credential=GOOD), "unreachable")
    assert "remote error: Basic *** ***" in told  # the server's words are shown, the token in them is not
    server.answer = lambda request: request.reply(403, f"{TOKEN} {BASIC}".encode())
    told += reason(ask(f"{server.url}/models.git", credential=GOOD), "credential")
    server.answer = lambda request: request.reply(500, f"{TOKEN} {BASIC}".encode())
    told += reason(ask(f"{server.url}/models.git", credential=GOOD), "unreachable")
    assert TOKEN not in told
    assert BASIC not in told


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_so_no_token_goes_to_another_host(
    start: Callable[[], GitServer], status: int
) -> None:
    first, second = start(), start()
    first.answer = lambda request: request.reply(status, Location=second.url + request.path)
    told = reason(ask(f"{first.url}/models.git", credential=GOOD), "address")
    assert "it has moved" in told
    assert first.authorizations == [f"Basic {BASIC}"]
    assert second.requests == []


def test_a_token_is_not_sent_to_the_next_repository(start: Callable[[], GitServer], repository: Path) -> None:
    first, second = start(), start()
    first.needs_token()
    wanted = [Branch(f"{first.url}/models.git", "main", GOOD), Branch(f"{second.url}/models.git", "main")]
    assert set(resolve(wanted).values()) == {commit(repository)}
    assert set(second.authorizations) == {None}


def test_a_server_whose_certificate_nobody_signed_gets_no_token(
    server: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "certificate" in reason(ask(f"{server.url}/models.git", credential=GOOD), "unreachable")
    assert server.requests == []


# ----------------------------------------------------------------------------------------------------- mirrors


def test_a_mirror_is_asked_in_the_place_of_what_a_spec_names(server: GitServer, repository: Path) -> None:
    server.needs_token()
    mirrors = {"https://github.com/": "https://127.0.0.1:1/", "https://github.com/acme/": f"{server.url}/"}
    assert ask("https://github.com/acme/models.git", credential=GOOD, mirrors=mirrors) == commit(repository)
    told = reason(ask("https://github.com/acme/gone.git", credential=GOOD, mirrors=mirrors), "address")
    assert told.startswith("https://github.com/acme/gone.git: ")


def test_a_mirror_may_be_a_folder_where_files_are_allowed(repository: Path) -> None:
    mirrors = {"git@github.com:acme/": repository.parent.as_uri() + "/"}
    assert ask("git@github.com:acme/models.git", mirrors=mirrors, allow_file=True) == commit(repository)
    reason(ask("git@github.com:acme/models.git", mirrors=mirrors), "address")


def test_a_mirror_does_not_take_the_hosts_whose_names_begin_alike(server: GitServer) -> None:
    # Cut in the middle of a host, the rest of it would choose where the token goes.
    mirrors = {"https://git.invalid": server.url, "https://git": server.url}
    reason(ask("https://git.invalid.example.invalid/models.git", credential=GOOD, mirrors=mirrors), "unreachable")
    assert server.requests == []


# ------------------------------------------------------------------------------------------------- environment


def test_nothing_of_the_callers_git_reaches_ours(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As inside a git hook, with every configuration file saying that the repository is elsewhere."""
    elsewhere = f'[url "file:///nowhere/"]\n\tinsteadOf = {repository.parent.as_uri()}/\n'
    home = tmp_path / "home"
    (home / ".config" / "git").mkdir(parents=True)
    for path in (home / ".gitconfig", home / ".config" / "git" / "config"):
        path.write_text(elsewhere)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / ".gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "url.file:///nowhere/.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", f"{repository.parent.as_uri()}/")
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'protocol.allow'='never'")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_EXEC_PATH", "/nowhere")
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))
    assert ask(repository.as_uri(), allow_file=True) == commit(repository)
    assert not (tmp_path / "trace").exists()


def test_the_current_folder_and_the_folder_for_temporary_files_may_be_repositories(
    repository: Path, temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "config", "url.file:///nowhere/.insteadOf", f"{repository.parent.as_uri()}/")
    monkeypatch.chdir(tmp_path)
    assert temporary.is_relative_to(tmp_path)
    assert ask(repository.as_uri(), allow_file=True) == commit(repository)


def test_no_credentials_of_the_caller_are_used(
    server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.needs_token()
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login bot password {TOKEN}\n")
    (tmp_path / "askpass").write_text(f"#!/bin/sh\necho {TOKEN}\n")
    (tmp_path / "askpass").chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("GIT_ASKPASS", "SSH_ASKPASS"):
        monkeypatch.setenv(name, str(tmp_path / "askpass"))
    reason(ask(f"{server.url}/models.git"), "credential")
    assert set(server.authorizations) == {None}


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, str]]:
    """The environment of the first git that is started."""
    real, noted = shutil.which("git"), tmp_path / "seen"
    (tmp_path / "git").write_text(f'#!/bin/sh\n[ -e {noted} ] || env > {noted}\nexec {real} "$@"\n')
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return lambda: dict(line.split("=", 1) for line in noted.read_text().splitlines())


def configuration(environment: dict[str, str]) -> dict[str, str]:
    """Takes git's configuration out of an environment."""
    numbers = range(int(environment.pop("GIT_CONFIG_COUNT")))
    return {environment.pop(f"GIT_CONFIG_KEY_{n}"): environment.pop(f"GIT_CONFIG_VALUE_{n}") for n in numbers}


def test_git_gets_an_environment_made_from_nothing(
    repository: Path, seen: Callable[[], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    assert ask(repository.as_uri(), allow_file=True) == commit(repository)
    of_the_shell = {"PWD", "OLDPWD", "SHLVL", "_"}
    passed_on = {"PATH", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
    passed_on |= set(map(str.lower, passed_on))
    ours = {name: value for name, value in seen().items() if name not in of_the_shell | passed_on}
    assert configuration(ours) == {
        "credential.helper": "",
        "http.followRedirects": "false",
        "protocol.version": "2",
    }
    home = Path(ours.pop("HOME"))
    assert home.parent.parent == Path(ours.pop("GIT_CEILING_DIRECTORIES"))
    assert ours == {
        "GIT_ALLOW_PROTOCOL": "file",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }


def test_the_token_is_bound_to_the_host_of_the_repository(seen: Callable[[], dict[str, str]]) -> None:
    reason(ask("https://127.0.0.1:1/acme/models.git", credential=GOOD), "unreachable")
    with_token = [key for key, value in configuration(seen()).items() if BASIC in value]
    assert with_token == ["http.https://127.0.0.1:1/.extraHeader"]


def test_a_machine_without_git_says_so(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = repository.as_uri()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert reason(ask(there, allow_file=True), "unreachable") == f"{there}: git is not installed"


def test_a_machine_without_room_for_temporary_files_says_so(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert "git cannot be started here" in reason(ask(repository.as_uri(), allow_file=True), "unreachable")


# ------------------------------------------------------------------------------------------------------ limits


def test_a_server_that_does_not_answer_is_left_and_no_process_stays(server: GitServer) -> None:
    gone = threading.Event()
    server.answer = lambda request: gone.wait(30)
    begin = time.monotonic()
    told = reason(ask(f"{server.url}/models.git", credential=GOOD, timeout_s=0.5), "timeout")
    assert told == f"{server.url}/models.git: there was no answer within 0.5 s"
    assert time.monotonic() - begin < 20
    assert without(server.url)
    gone.set()


def test_all_repositories_together_have_a_deadline(server: GitServer) -> None:
    gone = threading.Event()
    server.answer = lambda request: gone.wait(30)
    wanted = [Branch(f"{server.url}/r{number}.git", "main") for number in range(20)]
    begin = time.monotonic()
    answers = resolve(wanted, timeout_s=0.5, deadline_s=1, concurrency=2)
    assert time.monotonic() - begin < 20
    assert {getattr(answer, "cause", None) for answer in answers.values()} == {"timeout"}
    assert "it was not asked: the others took 1 s" in reason(answers[wanted[-1]], "timeout")
    gone.set()


def test_an_answer_without_an_end_does_not_fill_the_memory(server: GitServer) -> None:
    most = 0

    def endless(request: GitHandler) -> bool:
        request.send_response(200)
        request.send_header("Content-Type", "application/x-git-upload-pack-advertisement")
        request.end_headers()
        request.wfile.write(b"001e# service=git-upload-pack\n0000")
        line = b"%s refs/heads/%060d\n" % (b"1" * 40, 7)
        lines = (b"%04x%s" % (len(line) + 4, line)) * 50_000
        nonlocal most
        while True:
            most = max(most, resident_bytes(server.url))
            request.wfile.write(lines)

    server.answer = endless
    told = reason(ask(f"{server.url}/models.git", timeout_s=60), "unreachable")
    assert "memory" in told.lower()
    assert 0 < most < 600 << 20
    assert without(server.url)


def test_an_interrupt_ends_git_too(server: GitServer) -> None:
    gone, asked = threading.Event(), threading.Event()

    def wait(_: GitHandler) -> bool:
        asked.set()
        return gone.wait(30)

    server.answer = wait
    program = f"from reconciler.source.git import *\nresolve([Branch({server.url + '/x'!r}, 'main')])"
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    assert asked.wait(20)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=10)
    assert complaint.splitlines()[-1].startswith("KeyboardInterrupt")
    assert without(server.url)
    gone.set()


# --------------------------------------------------------------------------------------------------------- ssh


@pytest.fixture
def files() -> dict[str, int]:
    """In the folder for temporary files during a call: name -> mode."""
    return {}


@pytest.fixture
def ssh_server(repository: Path, temporary: Path, files: dict[str, int]) -> Iterator[SshServer]:
    def watch() -> bytes:
        files.update((path.name, stat.S_IMODE(path.stat().st_mode)) for path in temporary.rglob("*"))
        return command_lines()

    server = SshServer(repository.parent, watch)
    yield server
    server.stop()


def test_the_private_key_opens_the_repository(ssh_server: SshServer, repository: Path) -> None:
    credential = Credential.ssh_key(ssh_server.private_key, ssh_server.known_hosts)
    assert ask(f"{ssh_server.url}/models.git", "feature/new", credential) == commit(repository, "feature/new")


@pytest.mark.parametrize("spoil", [str.strip, lambda key: key.replace("\n", "\r\n")])
def test_a_key_that_was_pasted_without_its_last_line_break_is_mended(
    ssh_server: SshServer, repository: Path, spoil: Callable[[str], str]
) -> None:
    credential = Credential.ssh_key(spoil(ssh_server.private_key), ssh_server.known_hosts)
    assert ask(f"{ssh_server.url}/models.git", credential=credential) == commit(repository)


def test_the_private_key_is_in_a_file_of_its_owner_and_nowhere_else(
    ssh_server: SshServer, files: dict[str, int]
) -> None:
    credential = Credential.ssh_key(ssh_server.private_key, ssh_server.known_hosts)
    ask(f"{ssh_server.url}/models.git", credential=credential)
    assert files["key"] == 0o600
    assert ssh_server.url.encode() in ssh_server.processes
    for line in ssh_server.private_key.splitlines():
        assert line.encode() not in ssh_server.processes


@pytest.mark.parametrize("known", ["", None, "another"])
def test_a_host_whose_key_is_not_known_is_refused(
    ssh_server: SshServer, files: dict[str, int], known: str | None
) -> None:
    if known == "another":
        known = ssh_server.known_as(asyncssh.generate_private_key("ssh-ed25519"))
    credential = Credential.ssh_key(ssh_server.private_key, known)
    told = reason(ask(f"{ssh_server.url}/models.git", credential=credential), "credential")
    assert "the host's key is not among the known ones" in told
    assert files == {}


def test_a_key_that_the_server_does_not_know_is_refused(ssh_server: SshServer) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
    credential = Credential.ssh_key(other, ssh_server.known_hosts)
    told = reason(ask(f"{ssh_server.url}/models.git", credential=credential), "credential")
    assert (
        told == f"{ssh_server.url}/models.git: the private key of its Secret was refused (it must have no passphrase)"
    )


def test_a_damaged_key_says_so_and_is_not_shown(ssh_server: SshServer) -> None:
    for key in ("planted-4711", "", ssh_server.private_key.replace("\n", "\nplanted", 1)):
        credential = Credential.ssh_key(key, ssh_server.known_hosts)
        told = reason(ask(f"{ssh_server.url}/models.git", credential=credential), "credential")
        assert told == f"{ssh_server.url}/models.git: the private key of its Secret is damaged"


def test_a_key_with_a_passphrase_says_so(ssh_server: SshServer, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "planted", "-f", tmp_path / "locked"], check=True)
    credential = Credential.ssh_key((tmp_path / "locked").read_text(), ssh_server.known_hosts)
    told = reason(ask(f"{ssh_server.url}/models.git", credential=credential), "credential")
    assert "must have no passphrase" in told


def test_nothing_of_the_callers_ssh_is_used(
    ssh_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrapper").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "wrapper").chmod(0o755)
    for name in ("GIT_SSH", "GIT_SSH_COMMAND"):
        monkeypatch.setenv(name, str(tmp_path / "wrapper"))
    credential = Credential.ssh_key(ssh_server.private_key, ssh_server.known_hosts)
    assert isinstance(ask(f"{ssh_server.url}/models.git", credential=credential), str)
    assert not (tmp_path / "ran").exists()
