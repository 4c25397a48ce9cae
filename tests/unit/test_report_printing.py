"""Where a report goes: the standard output, and what a CI system reads beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reconciler.cli.common import Format
from reconciler.cli.printing import command_for_all, print_end, print_problems, print_report
from reconciler.report import Report, markdown
from reconciler.report.places import Places
from tests.sample_report import ERROR, of_a_pull_request, of_a_run


@pytest.fixture(autouse=True)
def outside_of_a_workflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("output", Format)
def test_every_form_is_for_previews_runs_and_validation(output, capsys):
    print_report(of_a_pull_request(), output, detailed=True)
    assert "specs/churn.yaml" in capsys.readouterr().out
    print_end(of_a_run(), output, detailed=False)
    assert "specs/churn.yaml" in capsys.readouterr().out
    print_problems(Report((ERROR,)), output)
    assert "The weight 140 is more than 100." in capsys.readouterr().out.replace("\\", "")


class TestSummary:
    """`-o github` in a job: annotations in the log, the plan in the job's summary."""

    def test_the_plan_is_added_to_what_is_there(self, tmp_path, monkeypatch, capsys):
        summary = tmp_path / "summary.md"
        summary.write_text("# Of an earlier command", encoding="utf-8")
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
        print_report(of_a_pull_request(), Format.GITHUB, detailed=False)
        assert summary.read_text(encoding="utf-8").startswith(
            f"# Of an earlier command\n{markdown.MARKER}\n### Trueup: "
        )
        assert capsys.readouterr().out.endswith("The job's summary has all of it.\n")

    def test_no_other_form_touches_it(self, tmp_path, monkeypatch):
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
        for output in Format:
            if output is not Format.GITHUB:
                print_report(of_a_pull_request(), output, detailed=False)
        assert not (tmp_path / "summary.md").exists()

    def test_a_summary_that_is_nearly_full_is_left_alone(self, tmp_path, monkeypatch, capsys):
        summary = tmp_path / "summary.md"
        summary.write_bytes(b"x" * (markdown.SUMMARY_LIMIT - 1_000))
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
        print_report(of_a_pull_request(), Format.GITHUB, detailed=False)
        assert summary.stat().st_size == markdown.SUMMARY_LIMIT - 1_000
        printed = capsys.readouterr()
        assert "no room for the plan" in printed.err
        assert "summary" not in printed.out

    def test_one_that_cannot_be_written_stops_nothing(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "no" / "folder.md"))
        print_report(of_a_pull_request(), Format.GITHUB, detailed=False)
        assert "GITHUB_STEP_SUMMARY cannot be written: No such file or directory" in capsys.readouterr().err


class TestRoot:
    """Which folder paths are relative to."""

    @staticmethod
    def uri(capsys) -> str:
        print_report(Report((ERROR,)), Format.SARIF, detailed=False)
        [result] = json.loads(capsys.readouterr().out)["runs"][0]["results"]
        return result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]

    def test_is_that_of_the_repository_around(self, tmp_path, monkeypatch, capsys):
        (tmp_path / ".git").mkdir()
        (tmp_path / "teams" / "a").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "teams" / "a")
        assert self.uri(capsys) == "teams/a/specs/churn.yaml"

    def test_is_the_workspace_where_there_is_no_repository(self, tmp_path, monkeypatch, capsys):
        (tmp_path / "a").mkdir()
        monkeypatch.chdir(tmp_path / "a")
        monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
        assert self.uri(capsys) == "a/specs/churn.yaml"

    def test_is_this_folder_otherwise(self, capsys):
        assert self.uri(capsys) == "specs/churn.yaml"

    @pytest.mark.parametrize("file", ["", ".", "..", "../b.yaml", "/etc/a.yaml", "/work/mlx/a.yaml"])
    def test_has_nothing_to_say_of_what_is_outside(self, file):
        assert Places("/work/ml", "/work/ml").relative(file) is None


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["--dry-run", "--base", "main", "-o", "markdown"], "reconcile --dry-run --base main"),
        (["--dry-run", "--base=a b", "-f", "x.yaml", "-omarkdown"], "reconcile --dry-run --base 'a b' -f x.yaml"),
        (["validate", "-f", "specs", "-o", "github"], "reconcile validate -f specs"),
        # A run is not repeated by somebody who only reads.
        (["-f", "specs/", "--wait", "30", "-o", "github"], "reconcile --dry-run --live -f specs/"),
        (["--dry-run", "--live", "--mirror", "https://a:hunter2@git=/x"], "reconcile --dry-run --live"),
    ],
)  # fmt: skip
def test_the_command_that_shows_all_of_it_reads_the_same_and_does_nothing(arguments, command):
    assert command_for_all(arguments) == command
