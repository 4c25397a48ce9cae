"""A mirror of the specs' repository, against real git servers: what is fetched, read, noticed and refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from reconciler.source import files as on_disk
from reconciler.source.files import Files, Limits
from reconciler.source.git import Credential, Unresolved
from reconciler.source.mirror import Mirror, MirrorError, Revision
from reconciler.source.signatures import Signers, UnverifiedError
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
NOW = datetime(2026, 6, 1, tzinfo=UTC)
SECRET = "password: planted-4711\n"

FIRST: dict[str, str | bytes] = {"specs/a.yaml": "a1", "specs/eu/b.yml": "b1", "README.md": "x", "other/c.yaml": "c"}
SECOND = FIRST | {"specs/a.yaml": "a2", "README.md": "y"}


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
    """One commit on main."""
    folder = tmp_path / "repositories" / "specs.git"
    make_repository(folder, FIRST)
    return folder


Make = Callable[..., Mirror]


@pytest.fixture
def make(tmp_path: Path, repository: Path) -> Make:
    """Makes mirrors of the repository, all in the same folder, as a process does that starts again."""

    def make_one(address: str = repository.as_uri(), branch: str = "main", **options: Any) -> Mirror:
        return Mirror(tmp_path / "mirror", address, branch, **{"allow_file": True, "timeout_s": 20, **options})

    return make_one


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


def push(repository: Path, tree: Mapping[str, str | bytes], *, onto: str = "main", branch: str = "main") -> str:
    """Puts a commit of these files onto a branch. A path that ends in `@` is a symbolic link, in `!` a submodule."""
    number = int(git(repository, "rev-list", "--count", "--all"))
    stream = b"commit refs/heads/%s\ncommitter A B <a@b> %d +0000\ndata 5\npush\n" % (branch.encode(), 10**9 + number)
    stream += f"from {git(repository, 'rev-parse', onto)}\ndeleteall\n".encode() if onto else b"deleteall\n"
    for path, content in tree.items():
        data = content if isinstance(content, bytes) else content.encode()
        if path.endswith("!"):
            stream += f"M 160000 {content!s} {path[:-1]}\n".encode()
        else:
            mode = "120000" if path.endswith("@") else "100644"
            name = path.rstrip("@").replace("\n", "\\n")
            stream += f'M {mode} inline "{name}"\n'.encode() + b"data %d\n%b\n" % (len(data), data)
    subprocess.run(["git", "fast-import", "--quiet", "--force"], cwd=repository, input=stream, check=True)
    return git(repository, "rev-parse", branch)


def stands_at(mirror: Mirror, credential: Credential | None = None) -> str:
    revision = mirror.fetch(credential)
    assert isinstance(revision, Revision), revision
    return revision.commit


def reason(answer: Revision | Unresolved, cause: str) -> str:
    assert isinstance(answer, Unresolved), answer
    assert answer.cause == cause, answer
    assert answer.reason.isprintable()
    return answer.reason


def read(mirror: Mirror) -> Files:
    return mirror.files(stands_at(mirror))


def told(files: Files) -> list[tuple[str, str]]:
    """(file, rule) of each problem."""
    assert files.complete is (not files.problems)
    return [(problem.file, problem.rule) for problem in files.problems]


# --------------------------------------------------------------------------------------------- where it stands


def test_a_branch_is_fetched_and_described(make: Make, repository: Path) -> None:
    tree = git(repository, "rev-parse", "main^{tree}")
    message = "\n  Say \x1b[31mmore \u202e of it  \nand more\n"
    commit = git(repository, "commit-tree", tree, "-p", "main", "-m", message)
    git(repository, "update-ref", "refs/heads/main", commit)
    revision = make().fetch()
    at = datetime.fromtimestamp(int(git(repository, "show", "-s", "--format=%ct", "main")), UTC)
    assert revision == Revision(commit, at, "a@b", "Say  [31mmore   of it")


def test_a_poll_without_news_asks_where_the_branch_stands_and_nothing_else(make: Make, server: GitServer) -> None:
    mirror = make(f"{server.url}/specs.git")
    first = mirror.fetch()
    server.requests.clear()
    assert mirror.fetch() is first
    assert [request.partition("?")[0] for request in server.requests] == [
        "GET /specs.git/info/refs",
        "POST /specs.git/git-upload-pack",
    ]


def test_a_new_commit_is_fetched_alone(make: Make, server: GitServer, repository: Path, tmp_path: Path) -> None:
    mirror = make(f"{server.url}/specs.git")
    old = stands_at(mirror)
    big = Random(1).randbytes(200_000)
    new = push(repository, SECOND | {"big.bin": big})
    assert stands_at(mirror) == new
    newer = push(repository, SECOND | {"big.bin": big, "specs/new.yaml": "n"})
    assert stands_at(mirror) == newer
    sizes = sorted(path.stat().st_size for path in (tmp_path / "mirror").rglob("*.pack"))
    assert len(sizes) == 3
    assert sizes[1] < 2_000
    assert sizes[2] > 200_000
    assert mirror.is_ancestor(old, newer)


@pytest.mark.parametrize("is_old", [False, True])
def test_old_servers_are_understood(
    make: Make, start: Callable[..., GitServer], repository: Path, is_old: bool
) -> None:
    mirror = make(f"{start(is_old=is_old).url}/specs.git", path="specs")
    assert list(read(mirror).content) == ["specs/a.yaml", "specs/eu/b.yml"]
    push(repository, SECOND)
    assert read(mirror).content["specs/a.yaml"] == b"a2"


def test_other_branches_and_tags_are_not_fetched(make: Make, repository: Path, tmp_path: Path) -> None:
    elsewhere = push(repository, {"x.yaml": "x"}, branch="other")
    git(repository, "tag", "v1", elsewhere)
    git(repository, "tag", "-m", "x", "v2", "main")
    mirror = make()
    stands_at(mirror)
    refs = tmp_path / "mirror" / "1" / "refs"
    assert [path.name for path in refs.rglob("*") if path.is_file()] == ["followed"]
    with pytest.raises(MirrorError, match="is not in its mirror"):
        mirror.files(elsewhere)


def test_a_missing_branch_names_the_nearest(make: Make) -> None:
    assert "the nearest is 'main'" in reason(make(branch="mian").fetch(), "branch")


def test_a_key_and_a_token_open_the_repository(make: Make, server: GitServer, repository: Path) -> None:
    server.needs_token()
    mirror = make(f"{server.url}/specs.git")
    assert "it asks for a token" in reason(mirror.fetch(), "credential")
    commit = stands_at(mirror, GOOD)
    assert BASIC.encode() not in server.processes
    ssh = SshServer(repository.parent, watch=command_lines)
    try:
        key = Credential.ssh_key(ssh.private_key, ssh.known_hosts)
        assert stands_at(make(f"{ssh.url}/specs.git"), key) == commit
        push(repository, SECOND)
        assert stands_at(make(f"{ssh.url}/specs.git"), key) != commit
    finally:
        ssh.stop()


def test_the_token_is_in_no_file_of_the_mirror(make: Make, server: GitServer, tmp_path: Path) -> None:
    server.needs_token()
    stands_at(make(f"{server.url}/specs.git"), GOOD)
    for path in (tmp_path / "mirror").rglob("*"):
        assert path.is_dir() or not {TOKEN.encode(), BASIC.encode()} & set(path.read_bytes().split())


def test_while_the_server_is_away_what_was_fetched_can_be_read(
    make: Make, start: Callable[..., GitServer], repository: Path
) -> None:
    server = start()
    mirror = make(f"{server.url}/specs.git", path="specs", timeout_s=5)
    first = mirror.fetch()
    server.answer = lambda request: request.reply(503)
    push(repository, SECOND)
    reason(mirror.fetch(), "unreachable")
    again = make(f"{server.url}/specs.git", path="specs", timeout_s=5)
    reason(again.fetch(), "unreachable")
    for each in (mirror, again):
        head = each.head()
        assert head == first
        assert head is not None
        assert each.files(head.commit).content["specs/a.yaml"] == b"a1"


@pytest.mark.parametrize("change", ["repository", "branch"])
def test_while_the_server_is_away_the_mirror_of_something_else_is_none(
    make: Make, repository: Path, tmp_path: Path, change: str
) -> None:
    """A daemon that was started with another `--git` or `--branch` applied what it had followed before."""
    commit = stands_at(make())
    away = {"address": (tmp_path / "gone.git").as_uri()} if change == "repository" else {"branch": "gone"}
    other = make(**away)
    assert isinstance(other.fetch(), Unresolved)
    assert other.head() is None
    with pytest.raises(MirrorError, match="nothing of it was fetched yet"):
        other.files(commit)
    again = make().head()
    assert again is not None, "it is kept until the other one is there"
    assert again.commit == commit


def test_the_mirror_of_something_else_is_replaced_whole(make: Make, repository: Path, tmp_path: Path) -> None:
    stands_at(make())
    new = push(repository, {"a.yaml": "x"}, onto="", branch="next")
    mirror = make(branch="next")
    assert stands_at(mirror) == new
    assert read(mirror).content == {"a.yaml": b"x"}
    assert [path.name for path in (tmp_path / "mirror").iterdir()] == ["2"]
    assert make().head() is None


def test_an_address_is_in_no_file_of_the_mirror(make: Make, server: GitServer, tmp_path: Path) -> None:
    """Somebody may have written a token into it; what it is a mirror of is kept as a digest."""
    address = f"{server.url}/specs.git"
    stands_at(make(address))
    kept = [path for path in (tmp_path / "mirror").rglob("*") if path.is_file()]
    assert not any(server.url.encode() in path.read_bytes() for path in kept)


def test_a_mirror_that_never_fetched_stands_nowhere(make: Make) -> None:
    mirror = make()
    assert mirror.head() is None
    with pytest.raises(MirrorError, match="nothing of it was fetched yet"):
        mirror.files("0" * 40)


def test_a_server_that_does_not_answer_is_left(make: Make, server: GitServer, repository: Path) -> None:
    mirror, impatient = make(f"{server.url}/specs.git"), make(f"{server.url}/specs.git", timeout_s=1)
    stands_at(mirror)
    push(repository, SECOND)
    go_on = threading.Event()
    server.answer = lambda request: not go_on.wait(20)
    began = time.monotonic()
    try:
        assert "within 1 s" in reason(impatient.fetch(), "timeout")
        assert time.monotonic() - began < 15
    finally:
        go_on.set()
    server.answer = lambda request: False
    assert stands_at(mirror) == git(repository, "rev-parse", "main")


def test_a_folder_that_cannot_be_written_says_so(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    mirror = Mirror(tmp_path / "file" / "mirror", repository.as_uri(), "main", allow_file=True)
    assert "it cannot be kept in" in reason(mirror.fetch(), "unreachable")


# ------------------------------------------------------------------------------------------------------ files


def test_all_spec_files_are_read_by_their_names_in_the_repository(make: Make, repository: Path) -> None:
    assert read(make()).content == {"other/c.yaml": b"c", "specs/a.yaml": b"a1", "specs/eu/b.yml": b"b1"}
    assert read(make(path="specs")).content == {"specs/a.yaml": b"a1", "specs/eu/b.yml": b"b1"}
    assert read(make(path="./specs/eu/")).content == {"specs/eu/b.yml": b"b1"}
    assert read(make(path="specs/a.yaml")).content == {"specs/a.yaml": b"a1"}
    assert read(make(path="README.md")).content == {"README.md": b"x"}


def test_hidden_places_and_node_modules_are_left_out(make: Make, repository: Path) -> None:
    hidden = (".x.yaml", ".git2/x.yaml", "specs/node_modules/x.yaml", "specs/.venv/a/x.yaml")
    push(repository, {"specs/a.yaml": "a", "specs/b.YAML": "b", "specs/x.json": "", **dict.fromkeys(hidden, SECRET)})
    assert read(make()).content == {"specs/a.yaml": b"a", "specs/b.YAML": b"b"}


def test_a_path_that_is_not_there_or_has_no_specs_is_a_problem(make: Make, repository: Path) -> None:
    """An empty answer would mean "delete everything"."""
    push(repository, {"a.yaml": "a", "docs/x.md": "", "specs/.hidden/x.yaml": ""})
    assert told(read(make(path="spec"))) == [("spec", "source/not-found")]
    assert told(read(make(path="a"))) == [("a", "source/not-found")]
    assert told(read(make(path="docs"))) == [("docs", "source/no-specs")]
    assert told(read(make(path="specs"))) == [("specs", "source/no-specs")]
    push(repository, {})
    assert told(read(make())) == [(".", "source/no-specs")]


def test_any_content_and_any_length_comes_back_as_it_was_pushed(make: Make, repository: Path) -> None:
    random = Random(7)
    tree = {f"{n:03}.yaml": random.randbytes(random.choice((0, 1, 100, 70_000, 300_000))) for n in range(60)}
    push(repository, tree)
    assert read(make()).content == tree


def test_a_repository_with_sha256_takes_the_place_of_one_with_sha1(make: Make, tmp_path: Path) -> None:
    stands_at(make())
    folder = tmp_path / "new.git"
    folder.mkdir()
    git(folder, "init", "-q", "--bare", "-b", "main", "--object-format=sha256")
    blob = git(folder, "hash-object", "-w", "--stdin", given="x")
    tree = git(folder, "mktree", given=f"100644 blob {blob}\ta.yaml")
    git(folder, "update-ref", "refs/heads/main", git(folder, "commit-tree", tree, "-m", "first"))
    mirror = make(folder.as_uri())
    assert len(stands_at(mirror)) == 64
    assert read(mirror).content == {"a.yaml": b"x"}


@pytest.mark.parametrize("name", ["a\nb.yaml", "a\x1b[31m.yaml", "a\u202eb.yaml", b"a\xff.yaml".decode("latin-1")])
def test_a_name_that_cannot_be_printed_is_refused_and_shown_harmlessly(make: Make, repository: Path, name: str) -> None:
    blob = git(repository, "hash-object", "-w", "--stdin", given="x")
    given = f"100644 blob {blob}\t".encode() + name.encode("latin-1" if "ÿ" in name else "utf-8") + b"\0"
    made = subprocess.run(["git", "mktree", "-z"], cwd=repository, input=given, capture_output=True, check=True)
    commit = git(repository, "commit-tree", made.stdout.decode().strip(), "-m", "x")
    git(repository, "update-ref", "refs/heads/main", commit)
    files = read(make())
    assert [rule for _, rule in told(files)] == ["source/file-name"]
    assert files.problems[0].file.isprintable()


def test_a_folder_with_two_files_of_one_name_is_refused(make: Make, repository: Path) -> None:
    """Only a program that is not git makes one; two readers could take a file each."""
    blobs = [git(repository, "hash-object", "-w", "--stdin", given=text) for text in "xy"]
    tree = b"".join(b"100644 a.yaml\0" + bytes.fromhex(blob) for blob in blobs)
    command = ["git", "hash-object", "-t", "tree", "-w", "--literally", "--stdin"]
    made = subprocess.run(command, cwd=repository, input=tree, capture_output=True, check=True).stdout.decode().strip()
    git(repository, "update-ref", "refs/heads/main", git(repository, "commit-tree", made, "-m", "x"))
    assert told(read(make())) == [("a.yaml", "source/file-name")]


# ---------------------------------------------------------------------------------------------------- changed


def test_what_differs_is_named_as_the_files_are(make: Make, repository: Path) -> None:
    mirror = make()
    old = stands_at(mirror)
    mirror.files(old)
    new = push(repository, {"specs/a.yaml": "a2", "specs/new.yaml": "n", "README.md": "z", "other/c.yaml": "c"})
    stands_at(mirror)
    assert mirror.changed(old, new) == {"specs/a.yaml": b"a2", "specs/new.yaml": b"n", "specs/eu/b.yml": None}
    assert mirror.changed(old, old) == {}


def test_what_differs_outside_the_path_is_nobodys_business(make: Make, repository: Path) -> None:
    mirror = make(path="specs")
    old = stands_at(mirror)
    mirror.files(old)
    new = push(repository, FIRST | {"README.md": "z", "other/c.yaml": "c2", "specs/.hidden.yaml": "h"})
    stands_at(mirror)
    assert mirror.changed(old, new) == {}


def test_random_changes_add_up_to_what_is_read_whole(make: Make, repository: Path) -> None:
    random = Random(4711)
    names = [f"{folder}{n}.{end}" for folder in ("", "a/", "a/b/", ".h/") for n in range(4) for end in ("yaml", "txt")]
    mirror = make()
    old = push(repository, {"keep.yaml": "k"})
    stands_at(mirror)
    content = dict(mirror.files(old).content)
    tree: dict[str, str | bytes] = {"keep.yaml": "k"}
    for step in range(25):
        for name in random.sample(names, 3):
            if tree.pop(name, None) is None or random.random() < 0.5:
                tree[name] = f"{step}"
        new = push(repository, tree)
        stands_at(mirror)
        changes = mirror.changed(old, new)
        assert changes is not None
        content = {name: text for name, text in {**content, **changes}.items() if text is not None}
        assert content == make().files(new).content
        old = new


@pytest.mark.parametrize(
    "tree",
    [
        {"link.yaml@": "specs/a.yaml"},
        {"docs@": "specs"},
        {"specs/a.yaml@": "eu/b.yml"},
        {"specs/lfs.yaml": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"},
        {"specs/large.yaml": "x" * 2000},
        {"/".join("d" * 12) + "/deep.yaml": "x"},
        {"specs/line\nbreak.yaml": "x"},
        {f"{n}.yaml": "x" for n in range(30)},
        {f"{n}.yaml": "x" * 900 for n in range(12)},
    ],
    ids=["link", "link to a folder", "file becomes link", "LFS", "large", "deep", "name", "many", "much"],
)
def test_what_could_be_a_problem_has_to_be_read_whole(
    make: Make, repository: Path, tree: dict[str, str | bytes]
) -> None:
    limits = Limits(files=20, file_bytes=1000, total_bytes=10_000, depth=10)
    mirror = make(limits=limits)
    old = stands_at(mirror)
    mirror.files(old)
    new = push(repository, {name: text for name, text in FIRST.items() if f"{name}@" not in tree} | tree)
    stands_at(mirror)
    assert mirror.changed(old, new) is None
    mirror.files(new)
    back = push(repository, SECOND)
    stands_at(mirror)
    assert mirror.changed(new, back) is None
    assert mirror.changed(old, back) == {"specs/a.yaml": b"a2"}


def test_when_all_specs_are_gone_the_whole_says_so(make: Make, repository: Path) -> None:
    mirror = make(path="specs")
    old = stands_at(mirror)
    mirror.files(old)
    new = push(repository, {"README.md": "x"})
    stands_at(mirror)
    assert mirror.changed(old, new) is None
    assert told(mirror.files(new)) == [("specs", "source/not-found")]


def test_from_a_commit_that_was_not_read_nothing_can_be_told(make: Make, repository: Path) -> None:
    mirror = make()
    old = stands_at(mirror)
    assert mirror.changed(old, old) is None


@pytest.mark.parametrize("ask", ["files", "changed", "is_ancestor", "verify"])
@pytest.mark.parametrize("name", ["main", "HEAD", "--help", "0" * 39, "0" * 41, "0" * 40 + "\n", "@{-1}", ""])
def test_only_the_full_id_of_a_commit_is_asked_for(make: Make, ask: str, name: str) -> None:
    mirror = make()
    commit = stands_at(mirror)
    rest: dict[str, tuple[Any, ...]] = {"changed": (name,), "is_ancestor": (commit,), "verify": (Signers(), NOW)}
    with pytest.raises(ValueError, match="is not the id of a commit"):
        getattr(mirror, ask)(name, *rest.get(ask, ()))


# ----------------------------------------------------------------------------------------- rewound, and signed


def test_a_rewound_branch_is_noticed(make: Make, repository: Path) -> None:
    """T08"""
    mirror = make()
    first = stands_at(mirror)
    second = push(repository, SECOND)
    stands_at(mirror)
    assert mirror.is_ancestor(first, second)
    assert mirror.is_ancestor(second, second)
    git(repository, "update-ref", "refs/heads/main", first)
    assert stands_at(mirror) == first
    assert not mirror.is_ancestor(second, first)


def test_a_branch_that_was_rewritten_is_noticed_and_what_it_was_is_still_there(make: Make, repository: Path) -> None:
    """T08"""
    mirror = make()
    old = stands_at(mirror)
    mirror.files(old)
    new = push(repository, SECOND, onto="")
    assert stands_at(mirror) == new
    assert not mirror.is_ancestor(old, new)
    assert mirror.changed(old, new) == {"specs/a.yaml": b"a2"}


def test_a_commit_that_was_never_here_led_to_nothing(make: Make) -> None:
    mirror = make()
    assert not mirror.is_ancestor("0123456789" * 4, stands_at(mirror))


def test_a_branch_that_moves_between_the_check_and_the_reading_changes_nothing(
    make: Make, repository: Path, tmp_path: Path
) -> None:
    """T08"""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    sign = ("-c", "gpg.format=ssh", "-c", f"user.signingkey={key}", "commit-tree", "-S", "-m", "signed")
    good = git(repository, *sign, "-p", "main", "main^{tree}")
    git(repository, "update-ref", "refs/heads/main", good)
    mirror = make(path="specs")
    commit = stands_at(mirror)
    signers = Signers(b"alice " + key.with_suffix(".pub").read_bytes())
    assert mirror.verify(commit, signers, NOW).startswith("alice ")
    evil = push(repository, {"specs/a.yaml": SECRET})
    git(repository, "tag", "-f", commit, evil)
    assert stands_at(mirror) == evil
    assert mirror.files(commit).content["specs/a.yaml"] == b"a1"
    with pytest.raises(UnverifiedError, match="is not signed"):
        mirror.verify(evil, signers, NOW)


# ------------------------------------------------------------------------------------------ damage, and growth


def damage_the_packs(folder: Path) -> None:
    for pack in folder.rglob("*.pack"):
        pack.chmod(0o600)
        content = bytearray(pack.read_bytes())
        for position in range(20, len(content) - 20, 7):
            content[position] ^= 0x55
        pack.write_bytes(content)


def truncate_the_packs(folder: Path) -> None:
    for pack in folder.rglob("*.pack"):
        pack.chmod(0o600)
        os.truncate(pack, pack.stat().st_size // 2)


def forge_an_object(folder: Path) -> None:
    """A file of the commit with other content: valid for git, which never hashes what it reads here."""
    (repository,) = folder.iterdir()
    for pack in repository.rglob("*.pack"):
        objects = pack.read_bytes()
        shutil.rmtree(pack.parent)
        pack.parent.mkdir()
        subprocess.run(["git", "unpack-objects", "-q"], cwd=repository, input=objects, check=True)
    blob = git(repository, "rev-parse", "followed:specs/a.yaml")
    forged = git(repository, "hash-object", "-w", "--stdin", given="forged")
    target = repository / "objects" / blob[:2] / blob[2:]
    target.chmod(0o600)
    shutil.copy(repository / "objects" / forged[:2] / forged[2:], target)


@pytest.mark.parametrize(
    "harm",
    [
        damage_the_packs,
        truncate_the_packs,
        forge_an_object,
        lambda folder: [path.unlink() for path in folder.rglob("*.pack")],
        lambda folder: [path.unlink() for path in folder.rglob("*.idx")],
        lambda folder: [path.write_bytes(b"") for path in folder.rglob("followed")],
        lambda folder: [path.write_text("0" * 39 + "1\n") for path in folder.rglob("followed")],
        lambda folder: [path.unlink() for path in folder.rglob("HEAD")],
        lambda folder: [path.write_text("[core\n") for path in folder.rglob("config")],
        lambda folder: [shutil.rmtree(path) or path.mkdir() for path in folder.iterdir()],
        shutil.rmtree,
        lambda folder: shutil.rmtree(folder) or folder.mkdir(),
    ],
    ids=[
        *("damaged", "truncated", "forged", "no pack", "no index", "no branch", "wrong branch", "no HEAD", "no config"),
        *("empty", "gone", "nothing"),
    ],
)
def test_a_damaged_mirror_never_answers_wrongly_and_the_next_fetch_makes_it_anew(
    make: Make, repository: Path, tmp_path: Path, harm: Callable[[Path], object]
) -> None:
    right = read(make(path="specs"))
    harm(tmp_path / "mirror")
    mirror = make(path="specs")
    for _ in range(2):
        commit = stands_at(mirror)
        try:
            files = mirror.files(commit)
        except MirrorError:
            continue
        assert files == right
        break
    assert mirror.files(stands_at(mirror)) == right
    newer = push(repository, SECOND)
    assert stands_at(mirror) == newer
    assert mirror.files(newer).content["specs/a.yaml"] == b"a2"


def test_damage_is_told_once_and_then_mended_while_it_runs(make: Make, tmp_path: Path) -> None:
    mirror = make()
    commit = stands_at(mirror)
    right = mirror.files(commit)
    damage_the_packs(tmp_path / "mirror")
    with pytest.raises(MirrorError, match=r"specs\.git: "):
        mirror.files(commit)
    assert stands_at(mirror) == commit
    assert mirror.files(commit) == right


def test_while_the_server_is_away_a_damaged_mirror_is_kept(make: Make, repository: Path, tmp_path: Path) -> None:
    mirror = make()
    commit = stands_at(mirror)
    damage_the_packs(tmp_path / "mirror")
    with pytest.raises(MirrorError):
        mirror.files(commit)
    repository.rename(repository.with_name("gone"))
    reason(mirror.fetch(), "address")
    assert [path.name for path in (tmp_path / "mirror").iterdir()] == ["1"]


def test_what_a_killed_git_leaves_behind_is_swept_away(make: Make, repository: Path, tmp_path: Path) -> None:
    mirror = make()
    stands_at(mirror)
    folder = tmp_path / "mirror" / "1"
    left = [folder / name for name in ("objects/pack/tmp_pack_x", "refs/heads/followed.lock", "config.lock")]
    for path in left:
        path.write_bytes(b"x")
    (tmp_path / "mirror" / "new" / "objects").mkdir(parents=True)
    new = push(repository, SECOND)
    assert stands_at(mirror) == new
    assert not any(path.exists() for path in left)
    assert folder.exists()


def test_a_process_killed_at_any_moment_of_a_fetch_leaves_nothing_that_is_wrong(
    make: Make, repository: Path, tmp_path: Path
) -> None:
    stands_at(make())
    program = (
        "import sys; from pathlib import Path; from reconciler.source.mirror import Mirror\n"
        "print('ready', flush=True)\n"
        "while True: print(Mirror(Path(sys.argv[1]), sys.argv[2], 'main', allow_file=True).fetch(), flush=True)"
    )
    for number in range(12):
        wanted = push(repository, {"specs/a.yaml": f"{number}", "big.bin": Random(number).randbytes(300_000)})
        if number % 3 == 0:
            shutil.rmtree(tmp_path / "mirror")
        command = [sys.executable, "-c", program, str(tmp_path / "mirror"), repository.as_uri()]
        environment = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.004 * number)
            process.kill()
        mirror = make()
        assert stands_at(mirror) == wanted
        assert mirror.files(wanted).content == {"specs/a.yaml": f"{number}".encode()}
    for left in (tmp_path / "temporary").iterdir():
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()  # Python's own, who was about to find out whether it may write here


def test_a_branch_that_is_rewritten_for_ever_does_not_fill_the_disk(
    make: Make, repository: Path, tmp_path: Path
) -> None:
    mirror = make(max_bytes=1 << 20)
    for number in range(12):
        push(repository, {"a.yaml": f"{number}", "big.bin": Random(number).randbytes(300_000)}, onto="")
        stands_at(mirror)
        assert sum(path.stat().st_size for path in (tmp_path / "mirror").rglob("*.pack")) < 2 << 20
    assert read(mirror).content == {"a.yaml": b"11"}


def test_many_small_fetches_are_put_together(make: Make, repository: Path, tmp_path: Path) -> None:
    mirror = make()
    for number in range(45):
        push(repository, FIRST | {"specs/a.yaml": f"{number}"})
        stands_at(mirror)
    assert len(list((tmp_path / "mirror").rglob("*.pack"))) < 10
    assert read(mirror).content["specs/a.yaml"] == b"44"


def test_threads_read_while_it_is_fetched_and_made_anew(make: Make, repository: Path, tmp_path: Path) -> None:
    mirror = make(path="specs")
    commit = stands_at(mirror)
    right = mirror.files(commit)
    wrong: list[Files] = []
    end = threading.Event()

    def look() -> None:
        while not end.is_set():
            try:
                files = mirror.files(commit)
            except MirrorError:
                continue
            if files != right:
                wrong.append(files)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(6):
        push(repository, FIRST | {"specs/a.yaml": f"{number}"})
        if number % 2:
            truncate_the_packs(tmp_path / "mirror")
        mirror.fetch()
    end.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert mirror.files(commit) == right


# ------------------------------------------------------------------------------------------------ T01 to T07


@pytest.fixture
def checked_out(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Files]:
    """Reads `specs` as the job of a pull request does."""

    def read_specs() -> Files:
        git(tmp_path, "clone", "-q", str(repository), str(tmp_path / "checkout"))
        monkeypatch.chdir(tmp_path / "checkout")
        return on_disk.read([Path("specs")])

    return read_specs


LINKS = [
    ("specs/b.yaml", "../../outside.yaml"),
    ("specs/b.yaml", "/etc/passwd"),
    ("specs/b.yaml", "/proc/self/environ"),
    ("specs/b.yaml", "b.yaml"),
    ("specs/b.yaml", "nothing.yaml"),
    ("specs/b.yaml", "../.git/config"),
    ("specs/b.yaml", ".hidden/x.yaml"),
    ("specs/b.yaml", "../other/c.yaml"),
    ("specs/b.yaml", "chain"),
    ("specs/prod", "../other"),
    ("specs/prod", "../../outside"),
    ("specs/prod", "/etc"),
    ("specs/prod", ".."),
    ("specs/prod", ".hidden"),
    ("specs/b.yaml", "a.yaml/x.yaml"),
]
TREE: dict[str, str | bytes] = {"specs/a.yaml": "a", "other/c.yaml": SECRET, "specs/.hidden/x.yaml": SECRET}


@pytest.mark.parametrize(("link", "target"), LINKS)
def test_a_link_that_leads_elsewhere_is_refused_as_a_pull_request_refuses_it(
    make: Make, repository: Path, checked_out: Callable[[], Files], link: str, target: str
) -> None:
    """T01: outside the root, absolute, chain, loop, a folder, `.git`."""
    push(repository, TREE | {f"{link}@": target, "specs/chain@": "../other/c.yaml"})
    files = read(make(path="specs"))
    assert (link, "source/symbolic-link") in told(files)
    assert SECRET.encode() not in files.content.values()
    assert told(checked_out()) == told(files)


@pytest.mark.parametrize(
    ("link", "target", "names"),
    [
        ("specs/b.yaml", "a.yaml", {"specs/a.yaml"}),
        ("specs/b.yaml", "../specs/./eu/../a.yaml", {"specs/a.yaml"}),
        ("specs/b.yaml", "note.txt", {"specs/a.yaml", "specs/b.yaml"}),
        ("specs/b.yaml", "round", {"specs/a.yaml", "specs/b.yaml"}),
        ("specs/us", "eu", {"specs/a.yaml"}),
        ("specs/README.md", "../README.md", {"specs/a.yaml"}),
        ("specs/.hidden.yaml", "/etc/passwd", {"specs/a.yaml"}),
        ("other/x.yaml", "/etc/passwd", {"specs/a.yaml"}),
    ],
)
def test_a_link_that_stays_is_read_as_a_pull_request_reads_it(
    request: pytest.FixtureRequest, make: Make, link: str, target: str, names: set[str]
) -> None:
    """T01"""
    repository: Path = request.getfixturevalue("repository")
    tree = {"specs/a.yaml": "a", "specs/note.txt": "n", "specs/eu/x.txt": "", "specs/round@": "eu/../note.txt"}
    push(repository, tree | {"README.md": "", f"{link}@": target})
    files = read(make(path="specs"))
    assert told(files) == []
    assert set(files.content) == names
    assert request.getfixturevalue("checked_out")().content == files.content


def test_a_path_that_is_a_link_is_not_followed(make: Make, repository: Path) -> None:
    """T01"""
    push(repository, TREE | {"link@": "specs", "sub!": "0123456789" * 4})
    assert told(read(make(path="link"))) == [("link", "source/not-a-file")]
    assert told(read(make(path="link/a.yaml"))) == [("link/a.yaml", "source/not-found")]
    assert told(read(make(path="sub"))) == [("sub", "source/not-a-file")]


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "specs/../..",
        "/etc",
        "/",
        "specs//eu",
        "specs/./eu",
        "a\0b",
        "a\nb",
        "a\\b",
        "..\\x",
        "x" * 4096,
        "\u202ex",
    ],
)
def test_a_path_that_could_lead_anywhere_is_refused(make: Make, path: str) -> None:
    """T02"""
    with pytest.raises(ValueError, match="is not a folder of a repository") as refused:
        make(path=path)
    assert len(str(refused.value)) < 1200


@pytest.mark.parametrize("path", [":(top)specs", "*", "spec?", "--help", "-r", "specs/*.yaml", ":/specs", "!specs"])
def test_a_path_is_no_pattern_and_no_option(make: Make, path: str) -> None:
    """T02"""
    assert told(read(make(path=path))) == [(path, "source/not-found")]


@pytest.mark.parametrize(
    "address",
    [
        "ext::sh -c touch% /tmp/x",
        "--upload-pack=touch /tmp/x",
        "-oProxyCommand=x",
        "ssh://-oProxyCommand=x/y",
        "git@-oProxyCommand=x:y",
        "https://host/a\nb",
        "https://host/a\rb",
        "https://host/\0",
        "git://host/x",
        "http://host/x",
        "fd::17",
        "/etc",
        "",
    ],
)
def test_an_address_that_git_must_not_see_is_refused(make: Make, address: str, tmp_path: Path) -> None:
    """T03"""
    assert "is not an address that git is given" in reason(make(address, allow_file=False).fetch(), "address")
    assert not (tmp_path / "mirror").exists()


def test_files_are_asked_only_where_that_is_allowed(make: Make) -> None:
    """T03"""
    assert "is not an address" in reason(make(allow_file=False).fetch(), "address")


@pytest.mark.parametrize(
    "branch",
    ["-x", "--upload-pack=x", "main\nx", "main\r", "a b", "", "../x", "x:y", "+main", "^main", "refs/heads/*", "a\0"],
)
def test_what_cannot_be_a_branch_is_refused(make: Make, branch: str) -> None:
    """T03"""
    assert "is not a branch's name" in reason(make(branch=branch).fetch(), "branch")


def test_nothing_that_a_repository_brings_is_run_or_followed(
    make: Make, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T04: submodules, large file storage, attributes with filters, hooks, configuration."""
    trap = tmp_path / "sprung"
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        f'[filter "lfs"]\n smudge = touch {trap}\n process = touch {trap}\n required = true\n'
        f'[core]\n hooksPath = {home}\n fsmonitor = touch {trap}\n[url "file:///nowhere/"]\n insteadOf = file:///\n'
    )
    for hook in ("post-checkout", "reference-transaction", "post-merge"):
        (home / hook).write_text(f"#!/bin/sh\ntouch {trap}\n")
        (home / hook).chmod(0o755)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    push(
        repository,
        {
            "a.yaml": "a",
            ".gitattributes": "*.yaml filter=lfs diff=lfs merge=lfs -text\n*.yaml export-ignore ident\n",
            ".gitmodules": f'[submodule "x"]\n path = sub\n url = {repository.as_uri()}\n update = !touch {trap}\n',
            ".lfsconfig": f"[lfs]\n url = {repository.as_uri()}\n",
            "sub!": git(repository, "rev-parse", "main"),
            "sub.yaml!": git(repository, "rev-parse", "main"),
            "large.yaml": pointer,
        },
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / ".gitconfig"))
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(home))
    mirror = make()
    files = read(mirror)
    assert files.content == {"a.yaml": b"a"}
    assert told(files) == [("large.yaml", "source/large-file")]
    assert not trap.exists()


def test_hooks_in_the_folder_of_the_mirror_are_not_run(make: Make, repository: Path, tmp_path: Path) -> None:
    """T04"""
    mirror = make()
    stands_at(mirror)
    trap, hooks = tmp_path / "sprung", tmp_path / "mirror" / "1" / "hooks"
    hooks.mkdir(exist_ok=True)
    for hook in ("reference-transaction", "post-index-change", "pre-auto-gc"):
        (hooks / hook).write_text(f"#!/bin/sh\ntouch {trap}\n")
        (hooks / hook).chmod(0o755)
    push(repository, SECOND)
    read(mirror)
    assert not trap.exists()


def test_a_redirect_is_not_followed_and_no_token_leaves(make: Make, start: Callable[..., GitServer]) -> None:
    """T05"""
    here, elsewhere = start(), start()

    def redirect(request: GitHandler) -> bool:
        return request.reply(302, Location=f"{elsewhere.url}{request.path}")

    here.answer = redirect
    assert "redirect" in reason(make(f"{here.url}/specs.git").fetch(GOOD), "address")
    assert elsewhere.authorizations == []


@pytest.mark.parametrize(
    "address",
    [
        "http://169.254.169.254/latest/x.git",
        "https://169.254.169.254/x.git",
        "https://169.254.0.1:443/x.git",
        "ssh://git@169.254.169.254/x.git",
        "git@169.254.169.254:x.git",
        "https://2852039166/x.git",
        "https://0xa9fea9fe/x.git",
        "https://0251.0376.0251.0376/x.git",
        "https://[fe80::1]/x.git",
        "https://[fd00:ec2::254]/x.git",
        "https://[::ffff:169.254.169.254]/x.git",
    ],
)
def test_link_local_addresses_are_refused_however_they_are_written(make: Make, address: str) -> None:
    """T06"""
    assert "is not an address that git is given" in reason(make(address, allow_file=False).fetch(), "address")


@contextmanager
def bounded(*, seconds: float, mebibytes: int) -> Iterator[None]:
    """What this process may take. Git has limits of its own: memory as in `commands`, and one size for its files."""
    tracemalloc.start()
    began = time.monotonic()
    yield
    took, (_, peak) = time.monotonic() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took < seconds
    assert peak < mebibytes << 20


def test_a_file_over_the_limit_is_told_by_its_size_and_not_read(make: Make, repository: Path) -> None:
    """T07: 64 MiB of zeroes are 64 KiB in a pack."""
    push(repository, {"a.yaml": "a", "bomb.yaml": bytes(64 << 20)})
    with bounded(seconds=10, mebibytes=8):
        files = read(make())
    assert files.content == {"a.yaml": b"a"}
    assert told(files) == [("bomb.yaml", "source/too-large")]


def test_a_pack_over_the_limit_is_not_kept(make: Make, repository: Path, tmp_path: Path) -> None:
    """T07"""
    push(repository, {"a.yaml": "a", "big.bin": Random(1).randbytes(3 << 20)})
    assert "sends too much" in reason(make(max_bytes=1 << 20).fetch(), "unreachable")
    assert sum(path.stat().st_size for path in (tmp_path / "mirror").rglob("*") if path.is_file()) < 1 << 20


def test_a_folder_that_holds_itself_ends_reading(make: Make, repository: Path) -> None:
    """T07: ten folders of ten, ten times: ten thousand million files, in a dozen objects."""
    made = git(repository, "hash-object", "-w", "--stdin", given="x")
    kind, mode, end = "blob", "100644", ".yaml"
    for _ in range(10):
        given = "".join(f"{mode} {kind} {made}\t{n}{end}\n" for n in range(10))
        made = git(repository, "mktree", given=given)
        kind, mode, end = "tree", "040000", ""
    good = git(repository, "rev-parse", "main")
    mirror = make()
    stands_at(mirror)
    mirror.files(good)
    bomb = git(repository, "commit-tree", made, "-p", good, "-m", "bomb")
    git(repository, "update-ref", "refs/heads/main", bomb)
    with bounded(seconds=10, mebibytes=40):
        assert stands_at(mirror) == bomb
        assert told(mirror.files(bomb)) == [(".", "source/too-much")]
        assert mirror.changed(good, bomb) is None


def test_the_first_of_some_files_is_read_or_what_keeps_it_from_being_read_is_told(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "a.yaml": "a" * 50,
        "b/c.yaml": "c",
        "rules/below.yaml": "x",
        "link.yaml@": "b/c.yaml",
    }
    (commit,) = make_repository(tmp_path / "r.git", files)
    mirror = Mirror(
        tmp_path / "m", (tmp_path / "r.git").as_uri(), "main", allow_file=True, limits=Limits(file_bytes=40)
    )
    assert stands_at(mirror) == commit
    assert mirror.first(commit, ["b/none.yaml", "b/c.yaml", "a.yaml"]).content == {"b/c.yaml": b"c"}
    assert mirror.first(commit, ["none.yaml", "rules", "b"]) == Files({}, ())
    assert told(mirror.first(commit, ["none.yaml", "a.yaml", "b/c.yaml"])) == [("a.yaml", "source/too-large")]
    assert told(mirror.first(commit, ["link.yaml", "b/c.yaml"])) == [("link.yaml", "source/symbolic-link")]


def test_very_many_files_end_reading_at_the_limit(make: Make, repository: Path) -> None:
    """T07"""
    push(repository, {f"{n // 1000}/{n}.yaml": "x" for n in range(20_000)})
    with bounded(seconds=10, mebibytes=40):
        files = read(make(limits=Limits(files=500)))
    assert len(files.content) == 500
    assert [rule for _, rule in told(files)] == ["source/too-much"]
    files = read(make(limits=Limits(total_bytes=700)))
    assert len(files.content) == 700
    assert [rule for _, rule in told(files)] == ["source/too-much"]


def test_very_many_branches_are_asked_for_and_not_fetched(make: Make, repository: Path, tmp_path: Path) -> None:
    """T07"""
    commit = git(repository, "rev-parse", "main")
    lines = sorted(f"{commit} refs/heads/{n}" for n in range(200_000))
    packed = "# pack-refs with: peeled fully-peeled sorted \n" + "\n".join([*lines, f"{commit} refs/heads/main"]) + "\n"
    (repository / "packed-refs").write_text(packed)
    (repository / "refs/heads/main").unlink(missing_ok=True)
    with bounded(seconds=10, mebibytes=8):
        assert stands_at(make()) == commit
    assert len(list((tmp_path / "mirror" / "1" / "refs" / "heads").iterdir())) == 1


def test_a_commit_that_is_too_large_is_told(make: Make, repository: Path) -> None:
    """T07"""
    tree = git(repository, "rev-parse", "main^{tree}")
    large = git(repository, "commit-tree", tree, given="x" * (5 << 20))
    git(repository, "update-ref", "refs/heads/main", large)
    assert "too large" in reason(make().fetch(), "branch")
