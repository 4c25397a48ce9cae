"""What other repositories use of this one: the GitHub Action, GitLab's job, the hooks of pre-commit, the examples.

Their checkers look at them, and each is run as its system would, but for what needs its servers or a network: the
steps that set Python up and install Trueup. A server in the test takes the comments.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.contract.code_hosts import TOKEN, CodeHost, serving
from tests.contract.git_servers import git
from tests.contract.test_review import SPECS

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
EXAMPLES = ROOT / "examples" / "ci"
WORKFLOWS = [EXAMPLES / "github.yml", EXAMPLES / "github-code-scanning.yml"]


# -- checkers -------------------------------------------------------------------------------------------------------


def check(*command: str | Path, stdin: str = "") -> str:
    """Output of a checker that finds nothing."""
    done = subprocess.run([BIN / command[0], *command[1:]], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-actions", [ROOT / "action.yml"]),
        ("vendor.github-workflows", WORKFLOWS),
        ("vendor.gitlab-ci", [ROOT / "ci" / "trueup.gitlab-ci.yml", EXAMPLES / "gitlab.yml"]),
    ],
)
def test_the_files_are_what_their_schemas_ask_for(schema: str, files: list[Path]) -> None:
    check("check-jsonschema", f"--builtin-schema={schema}", "--data-transform=gitlab-ci", *files)


def test_the_action_and_the_workflows_are_safe_to_use() -> None:
    """Pinned by commit, no credentials left behind, nothing that others wrote in a script, least permissions."""
    check("zizmor", "--offline", "--no-progress", "--quiet", "--persona=pedantic", ROOT / "action.yml", *WORKFLOWS)


def test_the_shell_scripts_are_sound() -> None:
    check("shellcheck", ROOT / "ci" / "install.sh")
    for step in ACTION["runs"]["steps"]:
        if "run" in step:
            check("shellcheck", "--shell=bash", "-", stdin=step["run"])
    for line in gitlab_job()["before_script"] + gitlab_job()["script"]:
        check("shellcheck", "--shell=bash", "-", stdin=line)


def test_no_script_of_the_action_has_an_expression_in_it() -> None:
    assert not [step["name"] for step in ACTION["runs"]["steps"] if "${{" in step.get("run", "")]


# -- GitHub ---------------------------------------------------------------------------------------------------------


class Run(NamedTuple):
    """How the action ended."""

    code: int
    log: str
    outputs: dict[str, str]
    summary: str

    @property
    def commands(self) -> list[str]:
        return [line for line in self.log.splitlines() if re.match("::(error|warning|notice)", line)]


@pytest.fixture
def host() -> Iterator[CodeHost]:
    made = CodeHost("github", "github-actions[bot]")
    with serving(made):
        yield made


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A clone as actions/checkout leaves it: detached, with the branches of `origin`."""
    theirs, folder = tmp_path / "theirs", tmp_path / "workspace"
    (theirs / "specs").mkdir(parents=True)
    for name, text in SPECS.items():
        (theirs / "specs" / name).write_text(text)
    git(theirs, "init", "-q", "-b", "main")
    git(theirs, "add", "-A")
    git(theirs, "commit", "-q", "-m", "the specs")
    git(tmp_path, "clone", "-q", theirs.as_uri(), str(folder))
    git(folder, "checkout", "-q", "--detach")
    git(folder, "branch", "-D", "main")
    return folder


def edit(workspace: Path, old: str, new: str) -> None:
    path = workspace / "specs" / "churn.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def act(workspace: Path, host: CodeHost, *, base_ref: str = "main", **inputs: str) -> Run:
    """Runs the steps of action.yml as a runner does: expressions, variables, outputs, until one fails."""
    temp = workspace.parent / "temp"
    (temp / "trueup" / "bin").mkdir(parents=True, exist_ok=True)
    for name, target in (("python", sys.executable), ("reconcile", BIN / "reconcile")):
        (temp / "trueup" / "bin" / name).unlink(missing_ok=True)
        (temp / "trueup" / "bin" / name).symlink_to(target)
    for name, text in {"event": json.dumps(EVENT), "output": "", "summary": ""}.items():
        (temp / name).write_text(text)
    here = {
        "PATH": os.environ["PATH"],
        "HOME": str(temp),
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "GITHUB_ACTION_PATH": str(ROOT),
        "GITHUB_API_URL": host.url,
        "GITHUB_BASE_REF": base_ref,
        "GITHUB_EVENT_NAME": "pull_request",
        "GITHUB_EVENT_PATH": str(temp / "event"),
        "GITHUB_GRAPHQL_URL": f"{host.url}/graphql",
        "GITHUB_OUTPUT": str(temp / "output"),
        "GITHUB_REPOSITORY": "o/r",
        "GITHUB_RUN_ID": "99",
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_SHA": "1" * 40,
        "GITHUB_STEP_SUMMARY": str(temp / "summary"),
        "GITHUB_WORKSPACE": str(workspace),
        "RUNNER_TEMP": str(temp),
    }
    known: dict[str, str] = {"github.token": TOKEN}
    for name, given in ACTION["inputs"].items():
        known[f"inputs.{name}"] = evaluated(inputs.pop(name.replace("-", "_"), given["default"]), known)
    assert not inputs, "there are such inputs"
    code, log = 0, ""
    for step in ACTION["runs"]["steps"]:
        if "uses" in step or step["name"] == "Install Trueup":
            continue
        variables = {name: evaluated(value, known) for name, value in step["env"].items()}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=workspace, env=here | variables, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        log += done.stdout
        written = dict(line.split("=", 1) for line in (temp / "output").read_text().splitlines())
        known |= {f"steps.{step.get('id')}.outputs.{name}": value for name, value in written.items()}
        (temp / "output").write_text("")
        if code := done.returncode:
            break
    outputs = {name: evaluated(output["value"], known) for name, output in ACTION["outputs"].items()}
    assert TOKEN not in log
    return Run(code, log, outputs, (temp / "summary").read_text())


EVENT = {"pull_request": {"number": 7, "head": {"sha": "feedc0ffee" * 4}}}


def evaluated(text: str, known: Mapping[str, str]) -> str:
    """With the expressions of GitHub's that the action uses; what is not set is empty."""
    return re.sub(r"\$\{\{ ([\w.-]+) \}\}", lambda found: known.get(found[1], ""), text)


def test_a_change_is_commented_and_annotated_and_passes(workspace: Path, host: CodeHost) -> None:
    edit(workspace, "memory: 1Gi", "memory: 2Gi")
    run = act(workspace, host, sarif_file="made/trueup.sarif")
    assert run.code == 0, run.log
    assert run.outputs["exit-code"] == "2"
    assert run.outputs["changes"] == "true"
    (body,) = host.bodies
    assert "memory 1Gi" in re.sub("[`*]", "", body)
    assert body.endswith("<sub>Of feedc0ffeefe, by [this job](https://github.com/o/r/actions/runs/99).</sub>\n")
    assert Path(run.outputs["markdown"]).read_text().splitlines()[:3] == body.splitlines()[:3]
    assert json.loads(Path(run.outputs["json"]).read_text())["base"]["ref"] == "main"
    assert json.loads((workspace / "made" / "trueup.sarif").read_text())["version"] == "2.1.0"
    assert any(line.startswith("::notice file=specs/churn.yaml,line=6,") for line in run.commands), run.log
    assert "<!-- trueup:plan -->" in run.summary

    edit(workspace, "memory: 2Gi", "memory: 1Gi")
    run = act(workspace, host)
    assert (run.code, run.outputs["exit-code"], run.outputs["changes"]) == (0, "0", "false")
    (body,) = host.bodies
    assert "nothing changes" in body


def test_specs_that_are_wrong_fail_with_annotations_on_their_lines_and_are_commented(
    workspace: Path, host: CodeHost
) -> None:
    edit(workspace, "memory: 1Gi", "memori: 1Gi")
    run = act(workspace, host)
    assert run.code == 1
    assert any(line.startswith("::error file=specs/churn.yaml,line=6,") for line in run.commands), run.log
    assert "memori" in host.bodies[0]


def test_a_limit_fails_unless_it_may_not(workspace: Path, host: CodeHost) -> None:
    (workspace / "specs" / "churn.yaml").unlink()
    run = act(workspace, host, comment="false")
    assert (run.code, run.outputs["exit-code"]) == (4, "4"), run.log
    assert host.asked == []
    (guard,) = json.loads(Path(run.outputs["json"]).read_text())["plan"]["guards"]
    run = act(workspace, host, comment="false", approve=f"bug {guard['approval']} --help")
    assert (run.code, run.outputs["exit-code"]) == (0, "2"), run.log
    assert act(workspace, host, fail_on_limits="false").code == 0


def test_a_clone_that_is_too_shallow_says_what_to_do(workspace: Path, host: CodeHost) -> None:
    git(workspace, "remote", "remove", "origin")
    (workspace / ".git" / "shallow").write_text(git(workspace, "rev-parse", "HEAD") + "\n")
    run = act(workspace, host)
    assert run.code == 3
    assert run.outputs == {"exit-code": "3", "changes": "", "markdown": "", "json": ""}
    assert "`fetch-depth: 0` of actions/checkout" in run.commands[0]
    assert run.commands[0].startswith("::error title=Trueup::")
    assert host.bodies == []


def test_a_folder_that_is_not_there_is_said_where_people_look(workspace: Path, host: CodeHost) -> None:
    run = act(workspace, host, working_directory="modles")
    assert (run.code, run.outputs["exit-code"]) == (1, "1")
    assert run.commands[0] == "::error title=Trueup::modles: no such file or directory"
    (workspace / "file").write_text("")
    run = act(workspace, host, sarif_file="file/trueup.sarif")
    assert (run.code, run.outputs["exit-code"]) == (1, "1")
    assert run.commands[0].startswith("::error title=Trueup::file")
    assert "Traceback" not in run.log


def test_what_a_stranger_chose_is_never_run(workspace: Path, host: CodeHost) -> None:
    """A branch may be called so; and the folder that it runs in is the stranger's as well."""
    for name in ("json.py", "pip.py", "subprocess.py", "sitecustomize.py"):
        (workspace / name).write_text("open('was-run', 'w')\n")
    run = act(
        workspace, host, base_ref="x$(touch${IFS}was-run)`touch${IFS}was-run`;touch${IFS}was-run", path="--help",
        policy="\n::error::mine\n##[error]mine",
    )  # fmt: skip
    assert run.code == 1
    assert not (workspace / "was-run").exists()
    assert [line for line in run.commands if "title=Trueup" not in line] == []
    assert "##[" not in run.log


# -- GitLab ---------------------------------------------------------------------------------------------------------


def gitlab_job() -> dict[str, Any]:
    job: dict[str, Any] = yaml.safe_load((ROOT / "ci" / "trueup.gitlab-ci.yml").read_text())["trueup"]
    return job


def test_a_merge_request_gets_a_note_and_a_report_of_what_is_wrong(workspace: Path) -> None:
    """Only its paths of what a job installs are others: this checkout, and this environment."""
    parted = git(workspace, "rev-parse", "HEAD")
    edit(workspace, "memory: 1Gi", "memori: 1Gi")
    git(workspace, "remote", "remove", "origin")
    job = gitlab_job()
    host = CodeHost("gitlab", "project_5_bot")
    here = {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "CI_PROJECT_DIR": str(workspace),
        "CI_MERGE_REQUEST_IID": "7",
        "CI_MERGE_REQUEST_PROJECT_ID": "5",
        "CI_MERGE_REQUEST_DIFF_BASE_SHA": parted,
        "CI_MERGE_REQUEST_TARGET_BRANCH_SHA": "",
        "CI_COMMIT_SHA": parted,
        "CI_JOB_URL": "https://gitlab.com/o/r/-/jobs/99",
        "TRUEUP_TOKEN": TOKEN,
    }
    variables = {name: value.replace("$CI_PROJECT_DIR", str(workspace)) for name, value in job["variables"].items()}
    script = "\n".join(job["script"]).replace("/tmp/trueup-environment/bin", str(BIN)).replace("/tmp/trueup", str(ROOT))
    with serving(host):
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script], cwd=workspace, capture_output=True, text=True, check=False,
            env=here | variables | {"CI_API_V4_URL": f"{host.url}/api/v4"},
        )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "memori" in host.bodies[0]
    assert "memori" in (workspace / job["artifacts"]["reports"]["junit"]).read_text()
    assert "memori" in done.stdout


# -- pre-commit -----------------------------------------------------------------------------------------------------


def test_the_hooks_of_pre_commit(workspace: Path) -> None:
    """With the environment that is there in place of one that pre-commit would make of this repository."""
    check("pre-commit", "validate-manifest", ROOT / ".pre-commit-hooks.yaml")
    check("pre-commit", "validate-config", EXAMPLES / "pre-commit-config.yaml")
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    used = yaml.safe_load((EXAMPLES / "pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert used == [{"id": hook["id"]} for hook in hooks]
    local = {"repo": "local", "hooks": [hook | {"language": "system"} for hook in hooks]}
    (workspace / ".pre-commit-config.yaml").write_text(json.dumps({"repos": [local]}))

    def commit() -> str:
        git(workspace, "add", "-A")
        done = subprocess.run(
            [BIN / "pre-commit", "run", "--color=never"], cwd=workspace, stdout=subprocess.PIPE, text=True, check=False,
            env={"PATH": f"{BIN}:{os.environ['PATH']}", "PRE_COMMIT_HOME": str(workspace.parent), "HOME": "/nowhere"},
        )  # fmt: skip
        return re.sub(r"\.{3,}", ": ", done.stdout)

    edit(workspace, "deployment: {memory: 1Gi}", "deployment:   {memory: 2Gi}")
    said = commit()
    assert "trueup fmt: Failed" in said  # it has put it in order
    assert "trueup validate: Passed" in said
    said = commit()
    assert "trueup fmt: Passed" in said
    (workspace / "specs" / "environments.yaml").unlink()
    said = commit()
    assert "trueup validate: Failed" in said
    assert "production" in said
