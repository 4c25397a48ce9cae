"""`reconcile import` as it is called: what it prints and writes, and with which code it ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from reconciler.cli import importing

AUDIENCE = """\
api_version: v1
spec:
  audiences:
    - name: gold
      conditions:
        unary:
          - {key: plan, operator: UNARY_OPERATOR_TYPE_EXACT_MATCH, operand: gold}
"""
DEPLOYMENT = "model_id: churn\nbuild_id: 5f0c1f52\n"
URI = "churn=https://git.example.com/models.git#churn"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "audience.yaml").write_text(AUDIENCE)
    (folder / "deploy.yml").write_text(DEPLOYMENT)
    (folder / "notes.txt").write_text("not read")
    return folder


def run(*arguments: str) -> Result:
    app = typer.Typer()
    app.callback()(lambda: None)
    importing.register(app)
    return CliRunner().invoke(app, ["import", *arguments])


def test_specs_are_printed_and_the_rest_goes_to_the_other_stream(old: Path) -> None:
    result = run("old/audience.yaml")
    assert result.exit_code == 0
    assert result.stdout.startswith("api_version: v1\nspec:\n  audiences:\n    # import: from old/audience.yaml:4\n")
    assert result.stderr == "Imported 1 audience; 0 things to decide, 0 changes, 0 things without counterpart.\n"


def test_a_folder_is_imported_into_a_folder_that_validates(old: Path) -> None:
    result = run("old", "-o", "specs", "-e", "production", "--git-uri", URI)
    assert result.exit_code == 0, result.output
    written = sorted(path.relative_to("specs").as_posix() for path in Path("specs").rglob("*.yaml"))
    assert written == [
        "audiences/gold.yaml",
        "builds/churn.yaml",
        "environments/production.yaml",
        "variations/churn.yaml",
    ]
    assert "Imported 1 environment, 1 build, 1 variation, 1 audience" in result.stdout
    assert result.stderr == ""


def test_what_is_left_to_decide_is_told_and_ends_with_one(old: Path) -> None:
    result = run("old", "-o", "specs")
    assert result.exit_code == 1
    assert "old/deploy.yml:1:1: error: In which repository the code of churn is" in result.stdout
    assert "try: --git-uri churn=https://.../repository#folder" in result.stdout
    assert "specs/variations/churn.yaml:5:7: error: A variation serves a build." in result.stdout
    assert "# import: build:" in Path("specs/variations/churn.yaml").read_text()


def test_a_second_import_leaves_everything_as_it_is(old: Path) -> None:
    run("old", "-o", "specs", "-e", "production", "--git-uri", URI)
    before = {path: path.read_text() for path in Path("specs").rglob("*.yaml")}
    result = run("old", "-o", "specs", "-e", "production", "--git-uri", URI)
    assert {path: path.read_text() for path in Path("specs").rglob("*.yaml")} == before
    told = " ".join(result.stdout.split())
    assert "The audience gold is at specs/audiences/gold.yaml:5 already: it was left as it is." in told
    assert result.exit_code == 0


def test_a_file_that_is_no_spec_but_has_the_name_is_not_written_over(old: Path) -> None:
    Path("specs/audiences").mkdir(parents=True)
    Path("specs/audiences/Gold.yaml").write_text("# mine\n")
    assert run("old/audience.yaml", "-o", "specs").exit_code == 0
    assert Path("specs/audiences/Gold.yaml").read_text() == "# mine\n"
    assert Path("specs/audiences/gold-2.yaml").exists()


def test_a_folder_that_cannot_be_written_is_told(old: Path) -> None:
    Path("specs").mkdir()
    Path("specs/audiences").write_text("a file where a folder should be")
    result = run("old/audience.yaml", "-o", "specs")
    assert result.exit_code == 3
    assert "specs/audiences/gold.yaml cannot be written" in result.stderr


def test_a_path_that_does_not_exist_is_told(old: Path) -> None:
    result = run("odl", "-o", "specs")
    assert result.exit_code == 1
    assert "There is no such file or folder" in result.stdout


def test_a_file_that_is_named_and_is_not_of_the_platform_is_told(old: Path) -> None:
    Path("other.yaml").write_text("a: 1\n")
    result = run("other.yaml")
    assert "Imported nothing" in result.stderr
    assert "1 file not of the platform" in result.stderr
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-e", "a", "-e", "b"), "--environment names two environments without a name before them, a and b"),
        (("-e", "a="), "--environment wants NAME or OLD=NEW, not a="),
        (("--git-uri", "churn"), "--git-uri wants a name, = and what belongs to it, not churn"),
        (("--audience", "=x"), "--audience wants a name, = and what belongs to it, not =x"),
    ],
)
def test_an_option_that_means_nothing_is_refused(old: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run("old", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr


def test_names_from_files_cannot_write_to_the_terminal(old: Path) -> None:
    Path("a.yaml").write_text(AUDIENCE.replace("name: gold", 'name: "\\e[31mgold"'))
    result = run("a.yaml")
    assert "\x1b" not in result.output
