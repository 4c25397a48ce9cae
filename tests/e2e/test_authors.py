"""What authors use beside specs, as it is installed: a new repository, and completion in real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.harness import Place

#: What is typed before the tab -> what is offered.
TYPED = {
    "reconcile expl": ["explain"],
    "reconcile explain variation.tra": ["variation.traffic", "variation.traffic."],
    "reconcile explain variation.traffic.we": ["variation.traffic.weight"],
    "reconcile completion z": ["zsh"],
    "reconcile explain build -o j": ["json"],
    "reconcile render -e l": ["local"],
    "reconcile validate -f spe": [],  # a path: the shell knows those
}

#: By shell: how its completion is loaded and asked for the words in $1 and on; what is offered, a line each.
SHELLS = {
    "bash": """
        source <(reconcile completion bash)
        ask() { COMP_WORDS=($1); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _reconcile; printf '%s\\n' "${COMPREPLY[@]}"; }
        for typed in "$@"; do echo "> $typed"; ask "$typed"; done
    """,
    "zsh": """
        autoload -Uz compinit; compinit -u -D
        source <(reconcile completion zsh)
        compadd() { shift; print -rl -- $@ }
        _files() { }
        for typed in "$@"; do echo "> $typed"; words=(${=typed}); CURRENT=$#words; _reconcile; done
    """,
    "fish": """
        reconcile completion fish | source
        for typed in $argv; echo "> $typed"; complete -C $typed; end
    """,
}


def asked(shell: str, program: Path, folder: Path) -> dict[str, list[str]]:
    """What a shell offers for each of `TYPED`."""
    marker = [] if shell == "fish" else ["shell"]
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(folder)}
    done = subprocess.run(
        [shell, "-c", SHELLS[shell], *marker, *TYPED],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    offered: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("> "):
            words = offered.setdefault(line[2:], [])
        elif line:
            words.append(line)
    return offered


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if shutil.which(shell)])
def test_a_shell_completes_commands_fields_formats_and_environments(place: Place, installed: Path, shell: str) -> None:
    made = place.reconcile("init")
    assert made.code == 0, made.err
    offered = asked(shell, installed, place.folder)
    if shell == "fish":
        # It offers the files itself, in the same answer.
        assert offered.pop("reconcile validate -f spe") == ["specs/"]
    assert offered == {typed: words for typed, words in TYPED.items() if typed in offered}
    assert len(offered) >= len(TYPED) - 1


def test_a_new_repository_is_valid_and_planned_as_it_is_installed(place: Place) -> None:
    made = place.reconcile("init")
    assert made.code == 0, made.err
    assert place.reconcile("validate").code == 0
    planned = place.reconcile("--dry-run")
    assert planned.code == 0
    assert "Job churn-build-" in planned.out
    assert place.reconcile("fmt", "--check").code == 0
