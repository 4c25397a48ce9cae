"""What a pull request does, in every form that its CI system shows. For `action.yml`, and the job of GitLab.

Standard library only, and no import of Trueup, which is in an environment of its own. The settings are variables and
never part of a shell's text, because whoever opens a pull request chooses some of them (the name of a branch).

    TRUEUP_COMMAND         `reconcile`, with its path if it is not on the PATH
    TRUEUP_OUT             the folder for what is made: plan.json, plan.md, and junit.xml for GitLab
    TRUEUP_PATHS           spec files and folders, one on a line; "": specs/, or the folder
    TRUEUP_BASE            what is compared with; "": what the pull request goes into. Without one: the whole plan
    TRUEUP_APPROVE         the ids of limits that people mean to pass, with blanks or lines between them; "": none
    TRUEUP_POLICY          a file of rules; "": .trueup-policy.yaml, if it is there
    TRUEUP_DIRECTORY       where `reconcile` runs; "": here
    TRUEUP_SARIF_FILE      a file to write, from here; "": none
    TRUEUP_FAIL_ON_LIMITS  "false": a limit that is run into (exit code 4) is told, and fails nothing

Exit code: that of `reconcile`, but 0 where there are changes, which is what pull requests are for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Exit codes of `reconcile`. The first: the specs are wrong, or what was asked.
WRONG, CHANGES, WORLD, BLOCKED = 1, 2, 3, 4


def main() -> int:
    """What `made` says, or why there is nothing: a folder with a slip in its name is no bug that needs a traceback."""
    here = os.environ
    on_github = here.get("GITHUB_ACTIONS") == "true"
    try:
        return made(here, on_github=on_github)
    except OSError as error:
        tell(f"{error.filename}: {(error.strerror or type(error).__name__).lower()}", on_github=on_github)
        outputs(here, {"exit-code": str(WRONG)})
        return WRONG


def made(here: Mapping[str, str], *, on_github: bool) -> int:
    """Runs it once for each form: a second each, and no state between them."""
    out = Path(here["TRUEUP_OUT"])
    out.mkdir(parents=True, exist_ok=True)
    asked = arguments(here)

    code, report, complaint = run(here, asked, "json")
    try:
        plan = json.loads(report)
    except ValueError:
        tell(complaint.strip() or f"reconcile ended with {code}, and said nothing", on_github=on_github)
        outputs(here, {"exit-code": str(code or WORLD)})
        return code or WORLD
    (out / "plan.json").write_text(report, encoding="utf-8")

    files = {"markdown": out / "plan.md"}
    if here.get("TRUEUP_SARIF_FILE"):
        files["sarif"] = Path(here["TRUEUP_SARIF_FILE"])
    if not on_github:
        files["junit"] = out / "junit.xml"
    for form, path in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(run(here, asked, form)[1], encoding="utf-8")
    _, log, warnings = run(here, asked, "github" if on_github else "text")
    sys.stdout.write(log)
    sys.stderr.write("".join(f"{harmless(line)}\n" for line in warnings.splitlines()))

    paths = {"markdown": str(files["markdown"]), "json": str(out / "plan.json")}
    outputs(here, {"exit-code": str(code), "changes": str(has_changes(plan)).lower(), **paths})
    return 0 if code == CHANGES or (code == BLOCKED and here.get("TRUEUP_FAIL_ON_LIMITS") == "false") else code


def arguments(here: Mapping[str, str]) -> list[str]:
    """What is asked of `reconcile`, but for the form. Each value is joined to its option: none can become another."""
    paths = [line.strip() for line in here.get("TRUEUP_PATHS", "").splitlines()]
    asked = ["--dry-run", "--detailed-exitcode", *(f"--file={path}" for path in paths if path)]
    for option, value in (("base", base(here)), ("policy", here.get("TRUEUP_POLICY"))):
        asked += [f"--{option}={value}"] if value else []
    return [*asked, *(f"--approve={name}" for name in here.get("TRUEUP_APPROVE", "").split())]


def base(here: Mapping[str, str]) -> str:
    """What the pull request goes into; "" outside of one.

    GitHub checks out a merge with the newest target branch, whose name stands for it: the commit in the event is the
    one from when the pull request was opened, so that everything merged since would look like a part of it. GitLab
    fetches no target branch; it names the commit of it that was merged, or else the one where the two parted.
    """
    names = ("TRUEUP_BASE", "GITHUB_BASE_REF", "CI_MERGE_REQUEST_TARGET_BRANCH_SHA", "CI_MERGE_REQUEST_DIFF_BASE_SHA")
    return next(filter(None, (here.get(name) for name in names)), "")


def run(here: Mapping[str, str], asked: list[str], form: str) -> tuple[int, str, str]:
    """Exit code, output and complaints."""
    command = [here.get("TRUEUP_COMMAND", "reconcile"), *asked, f"--output={form}"]
    done = subprocess.run(  # noqa: S603 - a list of arguments, and no shell
        command, cwd=here.get("TRUEUP_DIRECTORY") or ".", capture_output=True, encoding="utf-8", check=False
    )
    return done.returncode, done.stdout, done.stderr


def has_changes(plan: Mapping[str, Any]) -> bool:
    """Whether anything is done when it is merged. The exit code does not say so where something is wrong as well."""
    summary = (plan.get("plan") or {}).get("summary", {})
    return bool(plan.get("effects")) or any(count for op, count in summary.items() if op != "unchanged")


def outputs(here: Mapping[str, str], values: Mapping[str, str]) -> None:
    """What later steps of a GitHub job can use. A value of two lines could set another output."""
    if "GITHUB_OUTPUT" in here:
        with Path(here["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as file:
            file.writelines(f"{name}={' '.join(value.splitlines())}\n" for name, value in values.items())


def tell(complaint: str, *, on_github: bool) -> None:
    """Why there is no plan, where people look."""
    if on_github:
        escaped = complaint.replace("##[", "# #[").replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
        sys.stdout.write(f"::error title=Trueup::{escaped}\n")
    else:
        sys.stderr.write(f"{complaint}\n")


def harmless(line: str) -> str:
    """A line that GitHub's runner takes for no command."""
    line = line.replace("##[", "# #[")
    return f"· {line}" if line.lstrip().startswith("::") else line


if __name__ == "__main__":
    sys.exit(main())
