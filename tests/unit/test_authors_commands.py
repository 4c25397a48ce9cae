"""What authors of specs type: explain, fmt, init, completion. In process, in a folder of their own."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from typer.testing import CliRunner

from reconciler import offline
from reconciler.authors import completion, files
from reconciler.cli import app
from reconciler.plan import Op
from reconciler.source.files import lookalikes
from schemas.reader import read

UNTIDY = b"spec:\n  audiences:\n  -   priority: 1 # first\n      name: a\napi_version: v1\n"
TIDY = b"api_version: v1\nspec:\n  audiences:\n    - name: a\n      priority: 1  # first\n"


class Ran(NamedTuple):
    code: int
    out: str
    err: str


def run(*arguments: str, given: bytes = b"") -> Ran:
    result = CliRunner().invoke(app, arguments, input=given)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, of somebody who has told git who they are."""
    monkeypatch.setenv("HOME", str(tmp_path / "place"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ada@example.com")
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def put(folder: Path, contents: Mapping[str, bytes]) -> None:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


# -- explain --------------------------------------------------------------------------------------------------------


def test_a_field_is_explained_without_a_cluster(folder: Path) -> None:
    told = run("explain", "variation.traffic")
    assert told.code == 0
    assert told.out.startswith("variation.traffic  <list of mappings>\n")
    assert "  weight  <whole number>, in percent, default 100\n" in told.out


def test_programs_get_json_and_yaml(folder: Path) -> None:
    data = json.loads(run("explain", "environment", "-o", "json").out)
    assert data["path"] == "environment"
    assert yaml.safe_load(run("explain", "environment", "-o", "yaml").out) == data


def test_without_a_name_the_document_is_explained(folder: Path) -> None:
    assert run("explain").out.startswith("document  <mapping>")


def test_a_field_with_a_slip_is_named(folder: Path) -> None:
    told = run("explain", "variation.trafic")
    assert (told.code, told.out) == (1, "")
    assert "write variation.traffic" in told.err


def test_anything_else_is_a_promotion_and_a_slip_in_a_kind_is_guessed(folder: Path) -> None:
    told = run("explain", "variatoin.traffic")
    assert told.code == 1, "nobody has named a cluster"
    assert told.err.startswith("reconcile: there is no field 'variatoin.traffic'; write variation.traffic. Promotions")
    told = run("explain", "churn.default.production.1a2b3c4d-1")
    assert told.code == 3, "no cluster to ask"
    assert "there is no" not in told.err


def test_what_is_neither_a_field_nor_a_promotion_is_said(folder: Path) -> None:
    told = run("explain", "nosuch.field")
    assert told.code == 1
    assert told.err.startswith(
        "reconcile: there is no kind 'nosuch'; there are environment, build, variation, audience, automation."
    )
    assert run("explain", "").err == "reconcile: name a field, such as variation.traffic, or a promotion\n"


def test_a_cluster_that_was_named_and_is_not_there_is_in_the_way(folder: Path) -> None:
    told = run("explain", "variatoin.traffic", "--kubeconfig", "none.yaml")
    assert told.code == 3
    assert "none.yaml" in told.err


def test_a_terminal_does_not_obey_what_is_asked_for(folder: Path) -> None:
    assert "\x1b" not in run("explain", "variation.\x1b[31mx").err


def test_an_editor_is_shown_the_schema_of_this_installation(folder: Path) -> None:
    line = run("schema", "--modeline").out
    named = re.fullmatch(r"# yaml-language-server: \$schema=file://(/.*)\n", line)
    assert named
    assert json.loads(Path(named[1]).read_bytes()) == json.loads(run("schema").out)


# -- fmt ------------------------------------------------------------------------------------------------------------


def test_files_are_formatted_in_their_place(folder: Path) -> None:
    put(folder, {"specs/a.yaml": UNTIDY, "specs/deep/b.yml": TIDY, "specs/c.txt": b"a:    1\n"})
    (folder / "specs/a.yaml").chmod(0o640)
    assert run("fmt") == (0, "formatted specs/a.yaml\n1 of 2 files changed.\n", "")
    assert (folder / "specs/a.yaml").read_bytes() == TIDY
    assert stat.S_IMODE((folder / "specs/a.yaml").stat().st_mode) == 0o640
    assert sorted(path.name for path in (folder / "specs").iterdir()) == ["a.yaml", "c.txt", "deep"]
    assert run("fmt") == (0, "0 of 2 files changed.\n", "")


def test_check_and_diff_write_nothing_and_say_what_would_change(folder: Path) -> None:
    put(folder, {"specs/a.yaml": UNTIDY})
    assert run("fmt", "--check") == (2, "specs/a.yaml would change\n1 of 1 files would change.\n", "")
    told = run("fmt", "--diff")
    assert told.code == 0
    assert "--- a/specs/a.yaml\n+++ b/specs/a.yaml\n" in told.out
    assert "\n+    - name: a\n" in told.out
    assert (folder / "specs/a.yaml").read_bytes() == UNTIDY
    put(folder, {"specs/a.yaml": TIDY})
    assert run("fmt", "--check", "--diff").code == 0


def test_yaml_of_something_else_is_left_alone_unless_it_is_named(folder: Path) -> None:
    other = b"jobs:\n  push:\n    tags:\n    - v1\napiVersion:   v1\nnested:\n    api_version:   v1\n"
    flow = b'--- {"api_version":   v1}\n'
    put(folder, {"action.yaml": other, "charts/values.yaml": other, "specs.yaml": UNTIDY, "flow.yaml": flow})
    told = run("fmt")
    assert (told.code, told.out) == (0, "formatted flow.yaml\nformatted specs.yaml\n2 of 2 files changed.\n")
    assert (folder / "charts/values.yaml").read_bytes() == other
    assert run("fmt", str(folder / "action.yaml")).out.endswith("1 of 1 files changed.\n")


def test_files_may_be_named_as_pre_commit_names_them(folder: Path) -> None:
    put(folder, {"a.yaml": UNTIDY, "b.yaml": UNTIDY, "c.yaml": UNTIDY})
    assert run("fmt", "a.yaml", "-f", "b.yaml").out.endswith("2 of 2 files changed.\n")
    assert (folder / "c.yaml").read_bytes() == UNTIDY


def test_an_editor_gives_and_takes_text(folder: Path) -> None:
    assert run("fmt", "-", given=UNTIDY) == (0, TIDY.decode(), "")
    wrong = run("fmt", "-", given=b"a: [1\n")
    assert (wrong.code, wrong.out) == (1, "")
    assert wrong.err.startswith("<stdin>:1:4: error: ")


def test_an_editor_asks_whether_text_would_change(folder: Path) -> None:
    told = run("fmt", "--check", "-", given=UNTIDY)
    assert (told.code, told.out) == (2, "<stdin> would change\n")
    assert run("fmt", "--check", "-", given=TIDY) == Ran(0, "", "")
    assert run("fmt", "--check", "--diff", "-", given=UNTIDY).code == 2


def test_a_file_that_cannot_be_formatted_does_not_stop_the_others(folder: Path) -> None:
    put(folder, {"specs/a.yaml": UNTIDY, "specs/b.yaml": b"a: yes\n"})
    told = run("fmt")
    assert told.code == 1
    assert told.out == "formatted specs/a.yaml\n1 of 2 files changed.\n"
    assert told.err.startswith("specs/b.yaml:1:4: error: ")
    assert (folder / "specs/b.yaml").read_bytes() == b"a: yes\n"


def test_a_file_behind_a_link_is_written_and_the_link_stays(folder: Path) -> None:
    put(folder, {"specs/..data/a.yaml": UNTIDY})
    (folder / "specs/a.yaml").symlink_to("..data/a.yaml")
    assert run("fmt").code == 0
    assert (folder / "specs/a.yaml").is_symlink()
    assert (folder / "specs/..data/a.yaml").read_bytes() == TIDY


def test_what_somebody_else_has_written_meanwhile_is_left_and_said(folder: Path) -> None:
    put(folder, {"specs/a.yaml": UNTIDY, "specs/b.yaml": UNTIDY})
    planned = files.formatted([Path("specs")])
    (folder / "specs/a.yaml").write_bytes(b"a: 1\n")
    (folder / "specs/b.yaml").unlink()
    done = files.write(planned)
    assert done.changes == {}
    assert [(problem.file, problem.message) for problem in done.problems] == [
        ("specs/a.yaml", "Somebody else has just written it."),
        ("specs/b.yaml", "It cannot be written: no such file or directory."),
    ]
    assert [path.name for path in (folder / "specs").iterdir()] == ["a.yaml"]
    assert (folder / "specs/a.yaml").read_bytes() == b"a: 1\n"


# -- bad files ------------------------------------------------------------------------------------------------------

BAD = {
    "binary.yaml": (b"\x7fELF\x02\x01\x01\x00\x00\xff\xff", "This is a binary file, and no YAML."),
    "utf16.yaml": ("a: 1\n".encode("utf-16"), "The file is UTF-16 and not UTF-8"),
    "latin.yaml": (b"a: caf\xe9\n", "The file is not UTF-8 from here on."),
    "conflict.yaml": (b"a: 1\n<<<<<<< HEAD\nb: 1\n=======\n>>>>>>> x\n", "This is the marker of a Git merge conflict"),
    "na\x1b[31mme.yaml": (b"a: 1\n", "The file's name has characters that cannot be printed."),
}


@pytest.mark.parametrize("command", ["validate", "fmt"])
def test_what_is_no_spec_file_is_said_of_every_file_and_left_as_it_is(folder: Path, command: str) -> None:
    put(folder, {f"specs/{name}": content for name, (content, _) in BAD.items()})
    (folder / "outside.yaml").write_bytes(UNTIDY)
    (folder / "specs/link.yaml").symlink_to("../outside.yaml")
    told = run(command)
    text = told.out + told.err
    assert told.code == 1
    assert all(said in text for _, said in BAD.values()), text
    assert "specs/link.yaml:1:1: error: The symbolic link leaves the folder." in text
    assert "\x1b" not in text
    assert {name: (folder / "specs" / name).read_bytes() for name in BAD} == {n: c for n, (c, _) in BAD.items()}
    assert (folder / "outside.yaml").read_bytes() == UNTIDY


def test_files_that_differ_in_nothing_but_case_are_a_warning(folder: Path) -> None:
    put(folder, {"specs/a.yaml": TIDY, "specs/A.yaml": TIDY.replace(b"name: a", b"name: b")})
    told = run("validate")
    assert told.code == 0
    assert "specs/a.yaml:1:1: warning: The name differs from specs/A.yaml in nothing but case" in told.out
    assert lookalikes(["a.yaml", "b/a.yaml", "B/A.yaml"])[0].file == "b/a.yaml"


def test_names_and_texts_with_escapes_are_shown_and_not_obeyed(folder: Path) -> None:
    put(folder, {"specs/a.yaml": b'api_version: v1\nspec:\n  audiences: [{name: "\\e[31m\\u202ex", "\\e[2J": 1}]\n'})
    told = run("validate")
    assert told.code == 1
    assert "\x1b" not in told.out
    assert "\u202e" not in told.out
    assert "\x1b" not in run("fmt", "--diff").out


def test_windows_line_ends_are_fine(folder: Path) -> None:
    put(folder, {"specs/a.yaml": UNTIDY.replace(b"\n", b"\r\n")})
    assert run("validate").code == 0
    assert run("fmt").code == 0
    assert (folder / "specs/a.yaml").read_bytes() == TIDY.replace(b"\n", b"\r\n")


# -- init -----------------------------------------------------------------------------------------------------------


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_a_new_repository_works_as_it_is(folder: Path) -> None:
    told = run("init")
    assert told.code == 0, told.err
    assert told.out.endswith("\n  reconcile up && reconcile --wait 300\n")
    assert git(folder, "status", "--porcelain") == ""
    assert git(folder, "log", "--format=%an: %s") == "Ada: Specs to begin with\nAda: A model to begin with"

    loaded = offline.load([Path("specs")])
    assert loaded.problems == ()
    catalog = loaded.catalog
    assert [len(kind) for kind in (catalog.environments, catalog.builds, catalog.variations)] == [1, 1, 2]
    assert [len(kind) for kind in (catalog.audiences, catalog.automations)] == [1, 1]
    plan = offline.preview(loaded).plan
    assert plan is not None
    assert {change.id.kind for change in plan.changes} >= {"Job", "Deployment", "HTTPRoute", "Gateway"}
    assert {change.op for change in plan.changes} == {Op.CREATE}
    # The commit that is pinned has the model, and the address leads to it.
    (build,) = (placed.spec for placed in catalog.builds.values())
    assert build.git_uri == f"file://{folder}#models/churn"
    assert "models/churn/main/model.py" in git(folder, "ls-tree", "-r", "--name-only", build.git_commit or "")


def test_what_init_makes_is_formatted_and_names_its_schema(folder: Path) -> None:
    run("init")
    assert run("fmt", "--check").code == 0
    for path in (folder / "specs").glob("*.yaml"):
        named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", path.read_text())
        assert named
        schema = json.loads((path.parent / named[1]).read_text())
        assert schema["properties"]["api_version"]
    for path in (".pre-commit-config.yaml", ".github/workflows/trueup.yml"):
        assert read(path, (folder / path).read_bytes()).problems == []


def test_the_model_of_a_new_repository_passes_its_own_tests(folder: Path) -> None:
    run("init")
    done = subprocess.run(
        [sys.executable, "-c", "import tests.test_churn as t; t.test_who_is_new_and_calls_a_lot_leaves()"],
        cwd=folder / "models/churn",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_in_a_repository_nothing_is_committed_and_its_branch_is_built(folder: Path) -> None:
    git(folder, "init", "--quiet", "--initial-branch=trunk")
    put(folder, {"README.md": b"mine\n", ".gitignore": b"mine\n"})
    told = run("init")
    assert told.code == 0
    assert "left as it is: README.md" in told.out
    assert "left as it is: .gitignore; add .trueup/ to it" in told.out
    assert "Commit it, and it works as it is:" in told.out
    assert (folder / "README.md").read_bytes() == b"mine\n"
    assert "git_branch: trunk" in (folder / "specs/churn.yaml").read_text()
    assert offline.load([Path("specs")]).problems == ()
    with pytest.raises(subprocess.CalledProcessError):
        git(folder, "rev-parse", "HEAD")


def test_nothing_is_overwritten_and_what_is_in_the_way_is_named(folder: Path) -> None:
    put(folder, {"specs/churn.yaml": b"mine\n"})
    (folder / "models/churn/main").mkdir(parents=True)
    (folder / "models/churn/main/model.py").symlink_to("nowhere")
    told = run("init")
    assert told.code == 1
    assert "models/churn/main/model.py, specs/churn.yaml would be overwritten; nothing was made" in told.err
    assert sorted(path.name for path in folder.iterdir()) == ["models", "specs"]
    assert (folder / "specs/churn.yaml").read_bytes() == b"mine\n"


def test_a_place_that_cannot_become_a_repository_says_why(folder: Path) -> None:
    git(folder, "init", "--quiet")
    assert "is inside the repository" in run("init", "below").err
    assert "has a character that a git_uri cannot have" in run("init", "a place").err
    (folder / "file").write_bytes(b"")
    assert run("init", "file").code == 1
    (folder / "specs").symlink_to("/tmp")
    assert "a symbolic link leads out of" in run("init").err


def test_a_bare_repository_and_a_commit_that_git_refuses_are_said(folder: Path) -> None:
    git(folder, "init", "--quiet", "--bare", "bare")
    assert "git says: " in run("init", "bare").err
    (folder / ".gitconfig").write_text("[commit]\n  gpgsign = true\n[gpg]\n  program = false\n")
    told = run("init", "signed")
    assert told.code == 1
    assert "git says: fatal: failed to write commit object" in told.err


def test_where_a_commit_is_checked_out_main_is_built(folder: Path) -> None:
    git(folder, "init", "--quiet")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "first")
    git(folder, "checkout", "--quiet", "--detach")
    assert run("init").code == 0
    assert "git_branch: main" in (folder / "specs/churn.yaml").read_text()


def test_init_says_where_git_does_not_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = folder / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("reconciler.authors.files.SECONDS", 0.2)
    told = run("init", "shop")
    assert (told.code, told.err) == (1, "reconcile: git has not answered within 0.2 s\n")


def test_an_empty_base_is_said_as_what_it_mostly_is(folder: Path) -> None:
    for option in ("--base", "--head"):
        told = run("--dry-run", "--base", "main", option, "")
        assert told.code == 1
        assert told.err.startswith(f"reconcile: {option} wants a branch, a tag or a commit, and got nothing")


def test_a_repository_that_git_names_to_a_hook_is_not_the_one_that_is_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(folder, "init", "--quiet", "theirs")
    for name, path in {"GIT_DIR": ".git", "GIT_WORK_TREE": "", "GIT_INDEX_FILE": ".git/index"}.items():
        monkeypatch.setenv(name, str(folder / "theirs" / path))
    told = run("init", "ours")
    assert told.code == 0, told.err
    assert not (folder / "theirs/.git/index").exists()
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name)
    assert git(folder / "ours", "status", "--porcelain") == ""


def test_init_makes_the_folder_that_it_is_given(folder: Path) -> None:
    told = run("init", "shop/models")
    assert told.code == 0
    assert f"  cd {folder}/shop/models && reconcile up" in told.out
    assert (folder / "shop/models/specs/churn.yaml").exists()


# -- completion -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begun", "offered"),
    [
        ("var", ["variation", "variation."]),
        ("variation.tr", ["variation.traffic", "variation.traffic."]),
        ("variation.traffic.", ["variation.traffic.audience", "variation.traffic.weight", "variation.traffic.shadow"]),
        ("variations[0].traffic.w", ["variations[0].traffic.weight"]),
        ("build.resources.c", ["build.resources.cpu"]),  # and no other spelling of it
        ("pol", ["policy", "policy."]),
        ("policy.re", ["policy.require"]),
        ("nonsense.", []),
        ("churn.default.production", []),
    ],
)
def test_paths_are_completed_one_step_at_a_time(begun: str, offered: list[str]) -> None:
    assert completion.paths(begun) == offered


def test_environments_are_completed_from_the_specs_and_nothing_else_is() -> None:
    content = {
        "a.yaml": b"api_version: v1\nspec:\n  environments: [{name: b}, {name: a}, {name: '$(rm)'}, {name: 1}, x]\n",
        "b.yaml": b"spec: {environments: {name: c}}\n",
        "c.yaml": b"environments: [",
        "d.yaml": b"spec: []\n---\nspec: {environments: [{name: d}]}\n",
    }
    assert completion.environments(content) == ["a", "b", "d"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(folder: Path, shell: str) -> None:
    assert f"# {shell} completion of reconcile." in run("completion", shell).out


def test_a_shell_without_one_is_said(folder: Path) -> None:
    told = run("completion", "tcsh")
    assert (told.code, told.out) == (1, "")
    assert "there is one for bash, zsh, fish" in told.err
