"""`python -m runtime fetch` as the init container of a build runs it, against real git servers.

Planted secrets are looked for in everything that others can see: output, results, command lines and environments of
all processes, and files that stay behind.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from runtime.exits import Exit, Failure
from runtime.fetch import fetch as fetch_here
from runtime.logs import Log, Secrets
from runtime.repositories import Source, source
from tests.contract.git_servers import (
    BASIC,
    TOKEN,
    FileServer,
    GitServer,
    SshServer,
    certificate,
    git,
    make_repository,
)

ROOT = Path(__file__).parents[2]
NOWHERE = "0123456789" * 4


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits: the first is no branch's any more."""
    folder = tmp_path / "repositories" / "models.git"
    make_repository(
        folder,
        {"churn/main/model.py": "old", "gone.txt": "x"},
        {"churn/main/model.py": "new", "run.sh!": "#!/bin/sh\n", "ünï.txt": "bytes", "empty": ""},
    )
    return folder


def commits(repository: Path) -> list[str]:
    return git(repository, "rev-list", "--reverse", "refs/heads/main").split()


@pytest.fixture
def server(repository: Path) -> Iterator[GitServer]:
    running = GitServer(repository.parent)
    yield running
    running.stop()


@pytest.fixture
def ssh_server(repository: Path) -> Iterator[SshServer]:
    running = SshServer(repository.parent)
    yield running
    running.stop()


class Outcome(NamedTuple):
    code: int
    result: dict[str, Any]
    output: str
    into: Path

    @property
    def cause(self) -> str:
        assert self.result.keys() == {"error"}, self
        assert self.result["error"]["step"] == "fetch"
        return str(self.result["error"]["message"])


def fetch(
    tmp_path: Path,
    repository: str,
    commit: str | None,
    credentials: dict[str, str] | None = None,
    *arguments: str,
    **environ: str,
) -> Outcome:
    """Runs it as a container does, and looks at what stays behind."""
    workspace = tmp_path / "workspace"
    secret = tmp_path / "secret"
    workspace.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "runtime", "fetch", f"--repository={repository}", f"--into={workspace}/code"]
    command += [f"--result={tmp_path}/result", *arguments]
    if commit is not None:
        command.append(f"--commit={commit}")
    if credentials is not None:
        secret.mkdir(exist_ok=True)
        for name, value in credentials.items():
            (secret / name).write_text(value)
        command.append(f"--credentials={secret}")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), **environ}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    output = run.stdout + run.stderr
    assert "Traceback" not in output
    for planted in (credentials or {}).values():
        for line in filter(lambda line: len(line) > 8 and not line.startswith("["), planted.splitlines()):
            assert line not in output
            assert not any(line.encode() in path.read_bytes() for path in workspace.rglob("*") if path.is_file())
    left = {path.name for path in workspace.iterdir()} - {"code", "code.commit", "runtime"}
    assert left == set()
    return Outcome(run.returncode, json.loads((tmp_path / "result").read_text()), output, workspace / "code")


def files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


# ----------------------------------------------------------------------------------------------------- the commit


def test_the_files_of_the_commit_are_there_and_nothing_of_git(tmp_path: Path, repository: Path) -> None:
    newest = commits(repository)[-1]
    outcome = fetch(tmp_path, repository.as_uri(), newest)
    assert outcome.code == 0, outcome
    assert files(outcome.into) == {
        "churn/main/model.py": "new",
        "run.sh": "#!/bin/sh\n",
        "ünï.txt": "bytes",
        "empty": "",
    }
    assert os.access(outcome.into / "run.sh", os.X_OK)
    assert not os.access(outcome.into / "empty", os.X_OK)
    assert outcome.result == {"commit": newest, "files": 4, "bytes": 18}


def test_a_commit_that_no_branch_stands_at_any_more_is_fetched(tmp_path: Path, server: GitServer) -> None:
    oldest = commits(server.repositories / "models.git")[0]
    outcome = fetch(tmp_path, f"{server.url}/models.git", oldest)
    assert files(outcome.into) == {"churn/main/model.py": "old", "gone.txt": "x"}


def test_a_server_that_hands_out_branches_only_gives_the_commit_with_its_history(
    tmp_path: Path, repository: Path
) -> None:
    server = GitServer(repository.parent, is_old=True)
    try:
        outcome = fetch(tmp_path, f"{server.url}/models.git", commits(repository)[0])
    finally:
        server.stop()
    assert "all branches are fetched" in outcome.output
    assert files(outcome.into)["churn/main/model.py"] == "old"


def test_a_plain_web_server_does(tmp_path: Path, repository: Path) -> None:
    git(repository, "update-server-info")
    server = FileServer(repository.parent)
    try:
        outcome = fetch(tmp_path, f"{server.url}/models.git", commits(repository)[0])
    finally:
        server.stop()
    assert files(outcome.into)["churn/main/model.py"] == "old"


def test_a_repository_with_sha256_is_fetched(tmp_path: Path) -> None:
    folder = tmp_path / "sha256.git"
    git(tmp_path, "init", "-q", "--bare", "--object-format=sha256", str(folder))
    blob = git(folder, "hash-object", "-w", "--stdin", given="x")
    tree = git(folder, "mktree", given=f"100644 blob {blob}\ta\n")
    commit = git(folder, "commit-tree", tree, "-m", "x")
    assert len(commit) == 64
    assert files(fetch(tmp_path, folder.as_uri(), commit).into) == {"a": "x"}


def test_without_a_commit_nothing_is_fetched(tmp_path: Path, repository: Path) -> None:
    outcome = fetch(tmp_path, repository.as_uri(), None)
    assert outcome.code == Exit.CODE
    assert "no commit was named" in outcome.cause
    assert not outcome.into.exists()


@pytest.mark.parametrize("commit", ["main", "--upload-pack=touch x", "0" * 39, "HEAD", NOWHERE.upper() + "A"])
def test_only_a_full_commit_id_is_a_commit(tmp_path: Path, repository: Path, commit: str) -> None:
    outcome = fetch(tmp_path, repository.as_uri(), commit)
    assert outcome.code == Exit.CODE
    assert "is not a commit id of 40 or 64 hex digits" in outcome.cause


def test_a_commit_that_is_not_there_is_named(tmp_path: Path, repository: Path, server: GitServer) -> None:
    for address in (repository.as_uri(), f"{server.url}/models.git"):
        outcome = fetch(tmp_path, address, NOWHERE)
        assert outcome.code == Exit.CODE
        assert outcome.cause == f"{address}: the commit {NOWHERE} is not there"


def test_a_commit_that_is_not_on_a_server_of_branches_is_named(tmp_path: Path, repository: Path) -> None:
    server = GitServer(repository.parent, is_old=True)
    try:
        outcome = fetch(tmp_path, f"{server.url}/models.git", NOWHERE)
    finally:
        server.stop()
    assert outcome.code == Exit.CODE
    assert outcome.cause.endswith(f"the commit {NOWHERE} is not there")


def test_the_id_of_a_file_is_no_commit(tmp_path: Path, repository: Path) -> None:
    blob = git(repository, "rev-parse", "main:empty")
    outcome = fetch(tmp_path, repository.as_uri(), blob)
    assert outcome.code == Exit.CODE
    assert "is not there: it is a blob" in outcome.cause


def test_a_second_run_replaces_what_the_first_one_left(tmp_path: Path, repository: Path) -> None:
    first, second = commits(repository)
    fetch(tmp_path, repository.as_uri(), first)
    assert "gone.txt" not in files(fetch(tmp_path, repository.as_uri(), second).into)


def test_a_folder_of_somebody_elses_is_not_touched(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "workspace/code").mkdir(parents=True)
    (tmp_path / "workspace/code/thesis.txt").write_text("years of work")
    outcome = fetch(tmp_path, repository.as_uri(), commits(repository)[0])
    assert outcome.code == Exit.DISTURBED
    assert files(outcome.into) == {"thesis.txt": "years of work"}


def test_a_repository_is_read_from_its_mirror(tmp_path: Path, repository: Path) -> None:
    outcome = fetch(
        tmp_path,
        "https://git.example.com/acme/models.git",
        commits(repository)[-1],
        TRUEUP_GIT_MIRRORS=f"https://git.example.com/other=file:///nowhere\n"
        f"https://git.example.com/acme={repository.parent.as_uri()}\n",
    )
    assert files(outcome.into)["churn/main/model.py"] == "new"


# ----------------------------------------------------------------------------------------------------- credentials


@pytest.mark.parametrize(
    "secret", [{"token": f"bot:{TOKEN}\n"}, {"token": f"{TOKEN}\n", "username": "bot\n"}], ids=["one key", "two keys"]
)
def test_the_token_opens_the_repository_and_no_process_shows_it(
    tmp_path: Path, server: GitServer, secret: dict[str, str]
) -> None:
    server.needs_token()
    newest = commits(server.repositories / "models.git")[-1]
    outcome = fetch(tmp_path, f"{server.url}/models.git", newest, secret)
    assert files(outcome.into)["churn/main/model.py"] == "new"
    assert server.authorizations[-1] == f"Basic {BASIC}"
    for planted in (TOKEN, BASIC):
        assert planted.encode() not in server.processes


def test_a_token_alone_is_sent_with_a_user_that_servers_take(tmp_path: Path, server: GitServer) -> None:
    server.needs_token()
    outcome = fetch(tmp_path, f"{server.url}/models.git", NOWHERE, {"token": TOKEN})
    assert outcome.code == Exit.CODE  # the server wants a user with it
    sent = [given for given in server.authorizations if given]
    assert sent
    assert {base64.b64decode(given.removeprefix("Basic ")).decode() for given in sent} == {f"x-token-auth:{TOKEN}"}


def test_https_trusts_the_authorities_of_this_machine_and_no_others(tmp_path: Path, repository: Path) -> None:
    path = certificate(tmp_path / "server.pem")
    server = GitServer(repository.parent, certificate=path)
    server.needs_token()
    address, newest, secret = f"{server.url}/models.git", commits(repository)[-1], {"token": f"bot:{TOKEN}"}
    try:
        trusted = fetch(tmp_path, address, newest, secret, SSL_CERT_FILE=str(path))
        assert files(trusted.into)["churn/main/model.py"] == "new"
        server.authorizations.clear()
        stranger = fetch(tmp_path, address, newest, secret)
    finally:
        server.stop()
    assert "certificate" in stranger.cause
    assert server.authorizations == []


def test_a_refused_token_is_told_and_not_shown(tmp_path: Path, server: GitServer) -> None:
    server.needs_token()
    outcome = fetch(tmp_path, f"{server.url}/models.git", NOWHERE, {"token": "bot:planted-wrong-token"})
    assert outcome.code == Exit.CODE
    assert outcome.cause == f"{server.url}/models.git: the token of its Secret was refused"


def test_a_server_that_sends_the_token_back_does_not_get_it_printed(tmp_path: Path, server: GitServer) -> None:
    def echo(request: Any) -> bool:
        if request.headers["Authorization"] is None:
            return bool(request.reply(401, WWW_Authenticate='Basic realm="git"'))
        return bool(request.reply(500, f"you sent {TOKEN} {BASIC}".encode()))

    server.answer = echo
    outcome = fetch(tmp_path, f"{server.url}/models.git", NOWHERE, {"token": f"bot:{TOKEN}"})
    assert outcome.code == Exit.DISTURBED
    assert BASIC not in outcome.output
    assert TOKEN not in json.dumps(outcome.result)


def test_a_private_repository_without_a_secret_says_what_is_missing(tmp_path: Path, server: GitServer) -> None:
    server.needs_token()
    outcome = fetch(tmp_path, f"{server.url}/models.git", NOWHERE)
    assert outcome.code == Exit.CODE
    assert outcome.cause.endswith("it asks for a token, and the spec names no Secret")


def test_a_redirect_does_not_take_the_token_elsewhere(tmp_path: Path, server: GitServer, repository: Path) -> None:
    other = GitServer(repository.parent)
    server.answer = lambda request: request.reply(302, Location=f"{other.url}{request.path}")
    try:
        outcome = fetch(tmp_path, f"{server.url}/models.git", NOWHERE, {"token": f"bot:{TOKEN}"})
    finally:
        other.stop()
    assert outcome.code == Exit.CODE
    assert "it has moved" in outcome.cause
    assert other.requests == []


def test_the_private_key_opens_the_repository_and_no_process_shows_it(
    tmp_path: Path, ssh_server: SshServer, repository: Path
) -> None:
    # As a Secret made on Windows, without its last line break.
    secret = {"ssh-privatekey": ssh_server.private_key.strip().replace("\n", "\r\n")}
    secret["known_hosts"] = ssh_server.known_hosts
    outcome = fetch(tmp_path, f"{ssh_server.url}/models.git", commits(repository)[-1], secret)
    assert outcome.code == 0, outcome
    assert files(outcome.into)["churn/main/model.py"] == "new"
    assert ssh_server.private_key.splitlines()[1].encode() not in ssh_server.processes


def test_a_host_that_is_not_known_is_refused(tmp_path: Path, ssh_server: SshServer) -> None:
    secret = {"ssh-privatekey": ssh_server.private_key, "known_hosts": ""}
    outcome = fetch(tmp_path, f"{ssh_server.url}/models.git", NOWHERE, secret)
    assert outcome.code == Exit.CODE
    assert "the host's key is not among the known ones" in outcome.cause


def test_a_damaged_key_is_told_and_not_shown(tmp_path: Path, ssh_server: SshServer) -> None:
    secret = {"ssh-privatekey": "planted-4711", "known_hosts": ssh_server.known_hosts}
    outcome = fetch(tmp_path, f"{ssh_server.url}/models.git", NOWHERE, secret)
    assert outcome.code == Exit.CODE
    assert outcome.cause.endswith("the private key of its Secret is damaged")


@pytest.mark.parametrize("secret", [{}, {"password": "planted-4711"}], ids=["empty", "another key"])
def test_a_secret_without_the_right_keys_says_which(tmp_path: Path, repository: Path, secret: dict[str, str]) -> None:
    outcome = fetch(tmp_path, repository.as_uri(), NOWHERE, secret)
    assert outcome.code == Exit.CODE
    assert outcome.cause == "the Secret has neither the key `token` nor `ssh-privatekey`"


# ------------------------------------------------------------------------------------------------ what goes wrong


def test_a_repository_that_is_not_there_is_named(tmp_path: Path, server: GitServer) -> None:
    for address in (f"{server.url}/nothing.git", f"{tmp_path.as_uri()}/nothing.git"):
        outcome = fetch(tmp_path, address, NOWHERE)
        assert outcome.code == Exit.CODE
        assert outcome.cause == f"{address}: there is no such repository, or the public may not see it"


@pytest.mark.parametrize(
    "address",
    [
        "ext::sh -c 'touch ran'",
        "--upload-pack=touch ran",
        "https://bot:planted-4711@git.example.com/x",
        "https://169.254.169.254/x",
        "https://2852039166/x",
        "file:///x/../y",
        "/etc",
        "https://host/a b",
    ],
)
def test_git_is_given_addresses_of_an_allow_list_only(tmp_path: Path, address: str) -> None:
    outcome = fetch(tmp_path, address, NOWHERE)
    assert outcome.code == Exit.CODE
    assert "is not an address that git is given" in outcome.cause
    assert "planted-4711" not in outcome.output + outcome.cause
    assert not (tmp_path / "ran").exists()


def test_a_token_does_not_travel_over_http(tmp_path: Path) -> None:
    outcome = fetch(tmp_path, "http://git.example.com/models.git", NOWHERE, {"token": TOKEN})
    assert outcome.code == Exit.CODE
    assert "a token is not sent over http" in outcome.cause


def test_a_folder_that_cannot_be_made_is_worth_another_try(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "file").write_text("x")
    command = [sys.executable, "-m", "runtime", "fetch", f"--repository={repository.as_uri()}"]
    command += [f"--into={tmp_path}/file/code", f"--commit={commits(repository)[0]}", f"--result={tmp_path}/result"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == Exit.DISTURBED
    assert "Traceback" not in run.stderr


def test_a_server_that_is_away_is_worth_another_try(tmp_path: Path) -> None:
    outcome = fetch(tmp_path, "http://127.0.0.1:9/models.git", NOWHERE)
    assert outcome.code == Exit.DISTURBED
    assert "it cannot be reached" in outcome.cause


def test_an_error_of_the_server_is_worth_another_try(tmp_path: Path, server: GitServer) -> None:
    server.answer = lambda request: request.reply(503)
    outcome = fetch(tmp_path, f"{server.url}/models.git", NOWHERE)
    assert outcome.code == Exit.DISTURBED


def test_settings_and_hooks_of_the_machine_do_not_matter(tmp_path: Path, repository: Path) -> None:
    (tmp_path / ".gitconfig").write_text(f"[core]\n\tfsmonitor = touch {tmp_path}/ran\n\thooksPath = {tmp_path}\n")
    (tmp_path / "post-checkout").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "post-checkout").chmod(0o755)
    wrapper = {"GIT_SSH_COMMAND": f"touch {tmp_path}/ran", "GIT_DIR": "/nowhere", "GIT_CONFIG_GLOBAL": "/nowhere"}
    assert fetch(tmp_path, repository.as_uri(), commits(repository)[0], None, **wrapper).code == 0
    assert not (tmp_path / "ran").exists()


def test_sigterm_ends_git_and_leaves_nothing(tmp_path: Path, server: GitServer) -> None:
    asked = threading.Event()

    def wait(_: Any) -> bool:
        asked.set()
        time.sleep(30)
        return False

    server.answer = wait
    command = [sys.executable, "-m", "runtime", "fetch", f"--repository={server.url}/models.git"]
    command += [f"--into={tmp_path}/workspace/code", f"--commit={NOWHERE}", f"--result={tmp_path}/result"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert asked.wait(20)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == Exit.INTERRUPTED
    assert json.loads((tmp_path / "result").read_text())["error"]["reason"] == "Interrupted"
    assert {path.name for path in (tmp_path / "workspace").iterdir()} <= {"code.commit"}


# --------------------------------------------------------------------------------------------- hostile repositories


def test_links_inside_stay_and_links_that_lead_out_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "links.git"
    (commit,) = make_repository(
        folder,
        {
            "a/b/file": "x",
            "a/inside@": "b/file",
            "a/b/up@": "../..",
            "absolute@": "/etc/passwd",
            "outside@": "../secret",
            # Each step of it looks harmless: a/b/up is the root, and what follows leaves it.
            "winding@": "a/b/up/../secret",
        },
    )
    outcome = fetch(tmp_path, folder.as_uri(), commit)
    assert outcome.code == 0
    assert (outcome.into / "a/inside").read_text() == "x"
    assert (outcome.into / "a/b/up").is_symlink()
    for name in ("absolute", "outside", "winding"):
        assert not (outcome.into / name).is_symlink()
        assert f"{name} is left out: the link leads out of the repository" in outcome.output


def test_attributes_submodules_and_large_file_storage_change_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "x.git"
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    make_repository(
        folder,
        {
            ".gitattributes": "* text eol=crlf filter=lfs export-ignore\n",
            "weights.bin": pointer,
            "text": "a\nb\n",
            ".gitmodules": '[submodule "s"]\n\tpath = s\n\turl = ext::sh -c "touch ran"\n',
        },
    )
    tree = git(folder, "ls-tree", "main") + f"\n160000 commit {NOWHERE}\ts\n"
    commit = git(folder, "commit-tree", git(folder, "mktree", "--missing", given=tree), "-m", "x")
    outcome = fetch(tmp_path, folder.as_uri(), commit)
    assert outcome.code == 0
    assert files(outcome.into)["text"] == "a\nb\n"
    assert files(outcome.into)["weights.bin"] == pointer
    assert "weights.bin is in large file storage" in outcome.output
    assert "s is a submodule, which is not fetched" in outcome.output


@pytest.mark.parametrize("name", ["..", ".git", ".GIT"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "x.git"
    git(tmp_path, "init", "-q", "--bare", str(folder))
    blob = git(folder, "hash-object", "-w", "--stdin", given="x")
    # mktree would not write it: a tree is "<mode> <name>\0<id in binary>".
    content = f"100644 {name}".encode() + b"\0" + bytes.fromhex(blob)
    (tmp_path / "tree").write_bytes(content)
    tree = git(folder, "hash-object", "-w", "-t", "tree", "--literally", str(tmp_path / "tree"))
    outcome = fetch(tmp_path, folder.as_uri(), git(folder, "commit-tree", tree, "-m", "x"))
    assert outcome.code == Exit.CODE
    assert "which could lead anywhere" in outcome.cause
    assert not outcome.into.exists()


def local(repository: Path) -> Source:
    return source(repository.as_uri(), {}, None)


@pytest.fixture
def log() -> Iterator[Log]:
    with Path(os.devnull).open("w") as stream:
        yield Log(stream, Secrets({}))


def test_a_repository_that_is_too_large_is_not_written(tmp_path: Path, log: Log) -> None:
    folder = tmp_path / "large.git"
    (commit,) = make_repository(folder, {"zeros": b"\0" * (3 << 20)})
    with pytest.raises(Failure, match="it has more than 2 MiB") as caught:
        fetch_here(local(folder), commit, tmp_path / "code", log, max_bytes=2 << 20)
    assert caught.value.code == Exit.CODE
    assert not (tmp_path / "code").exists()


def test_a_transfer_that_is_too_large_is_ended(tmp_path: Path, log: Log) -> None:
    folder = tmp_path / "large.git"
    (commit,) = make_repository(folder, {"noise": os.urandom(3 << 20)})
    with pytest.raises(Failure, match="it is larger than 2 MiB"):
        fetch_here(local(folder), commit, tmp_path / "code", log, max_bytes=2 << 20)


def test_a_tree_that_names_itself_without_end_is_left(tmp_path: Path, log: Log) -> None:
    folder = tmp_path / "bomb.git"
    git(tmp_path, "init", "-q", "--bare", str(folder))
    tree = git(folder, "mktree", given=f"100644 blob {git(folder, 'hash-object', '-w', '--stdin', given='x')}\tx\n")
    for _ in range(10):
        tree = git(folder, "mktree", given="".join(f"040000 tree {tree}\t{name}\n" for name in "abcdefghij"))
    commit = git(folder, "commit-tree", tree, "-m", "ten thousand million files")
    with pytest.raises(Failure, match=r"it has more than .* files"):
        fetch_here(local(folder), commit, tmp_path / "code", log)


# ------------------------------------------------------------------------------------------------ the runtime's copy


def test_the_copy_of_the_runtime_works_without_anything_else(tmp_path: Path, repository: Path) -> None:
    copy = tmp_path / "workspace" / "runtime"
    outcome = fetch(tmp_path, repository.as_uri(), commits(repository)[0], None, f"--copy-runtime={copy}")
    assert outcome.code == 0
    # -S: no installed package is seen, as in an image that has Python alone.
    check = "import boto3, yaml, runtime.storage; from runtime.installers import uv_program; print(uv_program())"
    run = subprocess.run(
        [sys.executable, "-S", "-c", f"{check}; boto3.client('s3', 'us-east-1')"],
        env={"PATH": "/usr/bin", "PYTHONPATH": str(copy), "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stderr == ""
    assert run.stdout.strip() == str(copy / "bin" / "uv")
