"""Reading spec files: what is read, what is refused, and that an answer with gaps says so."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.source.files import Limits, read
from reconciler.source.git import Branch, Credential, Unresolved, resolve

SPEC = b"api_version: v1\nspec: {}\n"
SECRET = b"password: planted-4711\n"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with one spec in `specs`; what lies beside it is none of the repository's business."""
    folder = tmp_path / "checkout"
    (folder / "specs").mkdir(parents=True)
    (folder / "specs" / "a.yaml").write_bytes(SPEC)
    (tmp_path / "outside.yaml").write_bytes(SECRET)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.yaml").write_bytes(SECRET)
    monkeypatch.chdir(folder)
    return folder


def told(path: Path | str = "specs", limits: Limits | None = None) -> list[tuple[str, str]]:
    """(file, rule) of each problem, after a check that nothing of the outside was read."""
    files = read([Path(path)], limits or Limits())
    assert SECRET not in files.content.values()
    assert files.complete is (not files.problems)
    return [(problem.file, problem.rule) for problem in files.problems]


def test_all_spec_files_below_a_folder_are_read_in_order_of_name(checkout: Path) -> None:
    for name in ("specs/z.yml", "specs/prod/b.YAML", "specs/prod/eu/c.yaml"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_bytes(name.encode())
    (checkout / "specs" / "README.md").write_bytes(b"no spec")
    files = read([Path("specs")])
    assert files.complete
    assert list(files.content.items()) == [
        ("specs/a.yaml", SPEC),
        ("specs/prod/b.YAML", b"specs/prod/b.YAML"),
        ("specs/prod/eu/c.yaml", b"specs/prod/eu/c.yaml"),
        ("specs/z.yml", b"specs/z.yml"),
    ]


def test_hidden_files_hidden_folders_and_node_modules_are_left_out(checkout: Path) -> None:
    for name in (".hidden.yaml", ".git/x.yaml", ".venv/x.yaml", "node_modules/x.yaml", "prod/.cache/x.yaml"):
        (checkout / "specs" / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / "specs" / name).write_bytes(SECRET)
    assert told() == []
    assert list(read([Path("specs")]).content) == ["specs/a.yaml"]


@pytest.mark.parametrize("given_as", ["specs", "./specs", "specs/", "specs/../specs", "{here}/specs"])
def test_names_are_relative_to_the_current_folder_however_it_was_given(checkout: Path, given_as: str) -> None:
    assert list(read([Path(given_as.format(here=checkout))]).content) == ["specs/a.yaml"]


def test_names_of_the_current_folder_itself_have_no_prefix(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout / "specs")
    assert list(read([Path()]).content) == ["a.yaml"]


def test_names_elsewhere_are_as_they_were_given(checkout: Path, tmp_path: Path) -> None:
    assert list(read([Path("../outside")]).content) == ["../outside/x.yaml"]
    assert list(read([tmp_path / "outside"]).content) == [f"{tmp_path}/outside/x.yaml"]


def test_a_file_that_is_named_itself_is_read_whatever_its_name(checkout: Path) -> None:
    (checkout / ".spec.json").write_bytes(b"{}")
    assert read([Path(".spec.json")]).content == {".spec.json": b"{}"}


def test_what_is_given_twice_is_read_once(checkout: Path) -> None:
    once = Limits(total_bytes=len(SPEC), files=1)
    files = read([Path("specs"), Path("specs/a.yaml"), Path(), checkout], once)
    assert files.complete
    assert files.content == {"specs/a.yaml": SPEC}


# What must not look like "delete everything".


def test_a_folder_that_does_not_exist_is_a_problem_and_the_nearest_name_is_told(checkout: Path) -> None:
    files = read([Path("specz")])
    assert not files.complete
    assert str(files.problems[0]) == "specz:1:1: There is no such file or folder. Specs."
    assert files.problems[0].rule == "source/not-found"


def test_a_folder_without_specs_is_a_problem_even_beside_one_that_has_some(checkout: Path) -> None:
    (checkout / "empty").mkdir()
    (checkout / "empty" / "notes.txt").write_bytes(b"")
    assert told("empty") == [("empty", "source/no-specs")]
    both = read([Path("specs"), Path("empty")])
    assert (both.complete, list(both.content)) == (False, ["specs/a.yaml"])


def test_no_path_at_all_is_a_problem() -> None:
    assert not read([]).complete


def test_a_file_or_folder_that_may_not_be_read_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_to_everybody() as folder:
        (folder / "specs" / "closed").mkdir(parents=True)
        (folder / "specs" / "a.yaml").write_bytes(SPEC)
        (folder / "specs" / "b.yaml").write_bytes(SECRET)
        (folder / "specs" / "b.yaml").chmod(0)
        (folder / "specs" / "closed" / "c.yaml").write_bytes(SECRET)
        (folder / "specs" / "closed").chmod(0)
        monkeypatch.chdir(folder)
        with not_as_root():
            assert told() == [("specs/b.yaml", "source/unreadable"), ("specs/closed", "source/unreadable")]
            assert "permission denied" in read([Path("specs")]).problems[0].message
        (folder / "specs" / "closed").chmod(0o700)


# Symbolic links.


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("b.yaml", "../../outside.yaml"),
        ("b.yaml", "{outside}.yaml"),
        ("b.yaml", "chain"),
        ("b.yaml", "b.yaml"),
        ("b.yaml", "nothing.yaml"),
        ("b.yaml", "/dev/zero"),
        ("b.yaml", "/proc/self/environ"),
        ("b.yaml", "../.git/config"),
        ("b.yaml", ".git/config"),
        ("b.yaml", ".git"),
        ("prod", "../../outside"),
        ("prod", "{outside}"),
        ("prod", "chain"),
        ("prod", ".git"),
        ("prod", "nothing"),
        ("prod", "/"),
    ],
)
def test_a_link_that_leaves_the_folder_or_leads_nowhere_is_refused_and_named(
    checkout: Path, tmp_path: Path, link: str, target: str
) -> None:
    for git in (checkout / ".git", checkout / "specs" / ".git"):
        git.mkdir()
        (git / "config").write_bytes(SECRET)
    (checkout / "specs" / "chain").symlink_to(tmp_path / "outside.yaml" if link == "b.yaml" else tmp_path / "outside")
    (checkout / "specs" / link).symlink_to(target.format(outside=tmp_path / "outside"))
    assert (f"specs/{link}", "source/symbolic-link") in told()
    assert read([Path("specs")]).content == {"specs/a.yaml": SPEC}


def test_links_that_stay_in_the_folder_show_files_that_are_read_once(checkout: Path) -> None:
    (checkout / "specs" / "prod").mkdir()
    (checkout / "specs" / "prod" / "same.yaml").symlink_to("../a.yaml")
    (checkout / "specs" / "prod" / "up").symlink_to("..")
    (checkout / "specs" / "eu").symlink_to("prod")
    files = read([Path("specs")])
    assert files.complete
    assert files.content == {"specs/a.yaml": SPEC}


def test_a_link_to_a_file_without_the_suffix_of_specs_is_read_by_the_links_name(checkout: Path) -> None:
    (checkout / "specs" / "shared.txt").write_bytes(b"shared")
    (checkout / "specs" / "b.yaml").symlink_to("shared.txt")
    assert read([Path("specs")]).content == {"specs/a.yaml": SPEC, "specs/b.yaml": b"shared"}


def test_a_link_that_can_be_no_spec_is_nobodys_business(checkout: Path) -> None:
    (checkout / "specs" / "LICENSE").symlink_to("../../outside.yaml")
    assert told() == []


def test_a_mounted_config_map_is_read(checkout: Path) -> None:
    mount = checkout / "mount"
    (mount / "..2026_11_21").mkdir(parents=True)
    (mount / "..2026_11_21" / "a.yaml").write_bytes(SPEC)
    (mount / "..data").symlink_to("..2026_11_21")
    (mount / "a.yaml").symlink_to("..data/a.yaml")
    files = read([Path("mount")])
    assert files.complete
    assert files.content == {"mount/a.yaml": SPEC}


def test_a_given_folder_that_is_a_link_is_followed_but_not_out_of_the_current_folder(
    checkout: Path, tmp_path: Path
) -> None:
    # git-sync shows the newest revision as a link; a pull request can make a link of `specs`.
    (checkout / "current").symlink_to("specs")
    assert read([Path("current")]).content == {"current/a.yaml": SPEC}
    (checkout / "stolen").symlink_to(tmp_path / "outside")
    assert told("stolen") == [("stolen", "source/symbolic-link")]
    (tmp_path / "link").symlink_to(checkout / "specs")
    assert list(read([Path("../link")]).content) == ["../link/a.yaml"]


# What is no file, and what is too much.


def test_pipes_sockets_and_devices_are_refused_without_waiting_for_them(checkout: Path) -> None:
    os.mkfifo(checkout / "specs" / "pipe.yaml")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("specs/socket.yaml")
        begin = time.monotonic()
        assert told() == [("specs/pipe.yaml", "source/not-a-file"), ("specs/socket.yaml", "source/not-a-file")]
        assert told("specs/pipe.yaml") == [("specs/pipe.yaml", "source/not-a-file")]
        assert told("/dev/zero") == [("/dev/zero", "source/not-a-file")]
        assert time.monotonic() - begin < 10


def test_a_folder_with_a_specs_name_is_a_folder(checkout: Path) -> None:
    (checkout / "specs" / "b.yaml").mkdir()
    (checkout / "specs" / "b.yaml" / "c.yaml").write_bytes(SPEC)
    assert list(read([Path("specs")]).content) == ["specs/a.yaml", "specs/b.yaml/c.yaml"]


def test_a_file_over_the_limit_is_told_and_not_read(checkout: Path) -> None:
    with (checkout / "specs" / "big.yaml").open("wb") as file:
        file.truncate(1 << 40)  # a hole: a terabyte that costs nothing, unless somebody reads it
    (checkout / "specs" / "fits.yaml").write_bytes(b"#" * (1 << 20))
    assert told() == [("specs/big.yaml", "source/too-large")]
    assert len(read([Path("specs")]).content["specs/fits.yaml"]) == 1 << 20


def test_the_limits_of_the_whole_end_reading_and_say_so(checkout: Path) -> None:
    for number in range(9):
        (checkout / "specs" / f"{number}.yaml").write_bytes(b"#" * 100)
    assert [rule for _, rule in told(limits=Limits(files=9))] == ["source/too-much"]
    assert [rule for _, rule in told(limits=Limits(total_bytes=900))] == ["source/too-much"]
    assert told(limits=Limits(files=10, total_bytes=925)) == []
    assert len(read([Path("specs")], Limits(files=4)).content) == 4


def test_problems_are_bounded_too(checkout: Path) -> None:
    for number in range(50):
        (checkout / "specs" / f"{number}.yaml").symlink_to("nowhere")
    assert len(told(limits=Limits(files=10))) <= 11


def test_folders_that_lie_too_deep_are_told(checkout: Path) -> None:
    deep = checkout.joinpath("specs", *["d"] * 200)
    deep.mkdir(parents=True)
    (deep / "x.yaml").write_bytes(SPEC)
    assert told() == [("/".join(["specs", *["d"] * 65]), "source/too-deep")]


@pytest.mark.parametrize("name", ["a\n::error::b.yaml", "a\x1b[31m.yaml", "a\u202eb.yaml", os.fsdecode(b"a\xff.yaml")])
def test_a_name_that_cannot_be_printed_is_refused_and_shown_harmlessly(checkout: Path, name: str) -> None:
    (checkout / "specs" / name).write_bytes(SPEC)
    (problem,) = read([Path("specs")]).problems
    assert problem.rule == "source/file-name"
    assert str(problem).isprintable()


def test_ten_thousand_files_are_read_in_well_under_half_a_second(checkout: Path) -> None:
    for folder in range(100):
        (checkout / "specs" / f"m{folder}").mkdir()
        for number in range(100):
            (checkout / "specs" / f"m{folder}" / f"{number}.yaml").write_bytes(SPEC)
    begin = time.process_time()  # not the wall's clock: other tests run beside this one
    files = read([Path("specs")])
    assert time.process_time() - begin < 0.5
    assert len(files.content) == 10_001


# Which addresses git is given. There is no git on this PATH: an address that passes ends in "git is not installed".


@pytest.fixture
def without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def cause(address: str, branch: str = "main", *, allow_file: bool = False, mirror: tuple[str, str] = ("-", "-")) -> str:
    wanted = Branch(address, branch)
    answer = resolve([wanted], allow_file=allow_file, mirrors=dict([mirror]))[wanted]
    assert isinstance(answer, Unresolved)
    assert answer.reason.isprintable()
    return "passes" if answer.reason.endswith("git is not installed") else answer.cause


@pytest.mark.usefixtures("without_git")
@pytest.mark.parametrize(
    "address",
    [
        "https://github.com/acme/models.git",
        "https://git.example:8443/a/b",
        "https://10.0.0.7/models",
        "ssh://git@git.example:2222/acme/models.git",
        "ssh://git.example/acme/models",
        "git@github.com:acme/models.git",
    ],
)
def test_https_and_ssh_addresses_pass(address: str) -> None:
    assert cause(address) == "passes"


@pytest.mark.usefixtures("without_git")
@pytest.mark.parametrize(
    "address",
    [
        "",
        "ext::sh -c touch% /tmp/owned",
        "ext::https://github.com/a/b",
        "--upload-pack=touch /tmp/owned",
        "-oProxyCommand=touch",
        "-u@host:x",
        "git@host:-x",
        "ssh://-oProxyCommand=touch/x",
        "ssh://-oProxyCommand@host/x",
        "ssh://host:-1/x",
        "https://github.com/a/b\n",
        "https://github.com/a\nb",
        "https://github.com/a\r",
        "https://github.com/a\0b",
        "https://github.com/a b",
        "https://github.com/a?b",
        "https://github.com/a#folder",
        "https://github.com/../a",
        "https://github.com/a/..",
        "git@github.com:../a",
        "https://-x/a",
        "https://x-/a",
        "https://[::1]/a",
        "https://169.254.169.254/latest",
        "https://2852039166/latest",
        "https://0xa9fea9fe/latest",
        "https://169.254.43518/latest",
        "ssh://169.254.169.254/x",
        "git@169.254.169.254:x",
        "http://github.com/a/b",
        "git://github.com/a/b",
        "ftp://github.com/a/b",
        "HTTPS://github.com/a/b",
        "file:///srv/models",
        "/srv/models",
        "models",
        "../models",
    ],
)
def test_every_other_address_is_refused_before_git_sees_it(address: str) -> None:
    assert cause(address) == "address"


@pytest.mark.usefixtures("without_git")
def test_files_pass_only_where_they_are_allowed() -> None:
    assert cause("file:///srv/models", allow_file=True) == "passes"
    assert cause("file:///srv/models") == "address"
    assert cause("file://host/models", allow_file=True) == "address"
    assert cause("file:///srv/../etc", allow_file=True) == "address"


@pytest.mark.usefixtures("without_git")
@pytest.mark.parametrize(
    "branch", ["", "-x", "--upload-pack=x", "a\nb", "a b", "*", "refs/heads/*", "a~1", "a/-b", "é"]
)
def test_what_cannot_be_a_branch_is_refused(branch: str) -> None:
    assert cause("https://github.com/a/b", branch) == "branch"


@pytest.mark.usefixtures("without_git")
def test_a_mirror_must_pass_too() -> None:
    there = "https://github.com/a/b"
    assert cause(there, mirror=("https://github.com/", "https://mirror.example/github/")) == "passes"
    assert cause(there, mirror=("https://github.com/", "ext::sh -c ")) == "address"
    assert cause(there, mirror=("https://github.com/", "file:///srv/")) == "address"
    assert cause(there, mirror=("https://github.com/", "file:///srv/"), allow_file=True) == "passes"


@given(
    st.text(st.characters(codec="utf-8"), max_size=40),
    st.sampled_from(["", "https://", "ssh://", "git@h:", "-", "a::"]),
)
def test_no_text_gets_an_option_a_program_or_a_line_break_past_the_check(text: str, beginning: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        address = beginning + text
        if cause(address) == "passes":
            assert address.startswith(("https://", "ssh://")) or (address[0] != "-" and "@" in address)
            assert "::" not in address
            assert address.isascii()
            assert address.isprintable()
            assert " " not in address


@pytest.mark.usefixtures("without_git")
def test_an_address_with_a_token_in_it_is_refused_without_showing_the_token() -> None:
    wanted = Branch("https://bot:planted-4711@github.com/a/b", "main")
    answer = resolve([wanted])[wanted]
    assert isinstance(answer, Unresolved)
    assert answer.cause == "address"
    assert "planted" not in answer.reason


def test_the_representation_of_a_credential_shows_nothing_of_it() -> None:
    for credential in (
        Credential.token("planted-user", "planted-token"),
        Credential.ssh_key("planted-key", "planted-hosts"),
    ):
        assert "planted" not in f"{Branch('https://h/x', 'main', credential)!r} {credential!r} {credential}"


def test_nothing_wanted_is_nothing_asked() -> None:
    assert resolve([]) == {}


@contextmanager
def open_to_everybody() -> Iterator[Path]:
    """A temporary folder whose parents everybody may enter; pytest's own are root's alone."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def not_as_root() -> Iterator[None]:
    """For root nothing is unreadable. For everybody else this changes nothing."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
