"""Completion in shells: their scripts, and what can be completed of the language. Pure.

A script asks the command itself, so that it never is out of date. Its answer is taken as words and never run: names
in it come from files that anybody may have written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from reconciler.authors import COMPLETION, fields
from schemas.reader import read

_ASK = f'COMP_WORDS="$words" COMP_CWORD="$at" {COMPLETION}=complete_bash reconcile 2>/dev/null'

#: By shell. Each asks with the words before the cursor; where there is no answer, files are meant.
SCRIPTS: Mapping[str, str] = {
    "bash": f"""\
# bash completion of reconcile. Load it in ~/.bashrc:  source <(reconcile completion bash)
_reconcile() {{
    local words="${{COMP_WORDS[*]}}" at="$COMP_CWORD" word="${{COMP_WORDS[COMP_CWORD]}}"
    mapfile -t COMPREPLY < <({_ASK})
    # No answer, or the word itself: a path is wanted.
    if [[ -z ${{COMPREPLY[*]}} || ${{COMPREPLY[*]}} == "$word" ]]; then COMPREPLY=(); fi
}}
complete -o default -F _reconcile reconcile
""",
    "zsh": f"""\
#compdef reconcile
# zsh completion of reconcile. Load it in ~/.zshrc, after compinit:  source <(reconcile completion zsh)
_reconcile() {{
    local word="${{words[CURRENT]}}" at=$((CURRENT - 1)) answer
    answer="$(words="${{words[*]}}"; {_ASK})"
    local -a found=("${{(@f)answer}}")
    if [[ -z $answer || $answer == "$word" ]]; then _files; else compadd -- $found; fi
}}
compdef _reconcile reconcile
""",
    "fish": f"""\
# fish completion of reconcile. Load it in config.fish:  reconcile completion fish | source
# Whether there is an answer; where there is none, files are offered.
function __reconcile_answers
    set -l given (commandline -opc)
    set -l word (commandline -ct)
    set -l at (count $given)
    set -l words (string join ' ' -- $given $word)
    set --global __reconcile_found (env {_ASK})
    test -n "$__reconcile_found"; and test "$__reconcile_found" != "$word"
end
complete --command reconcile --no-files --condition __reconcile_answers \\
    --arguments '(string join \\n -- $__reconcile_found)'
""",
}


def paths(begun: str) -> list[str]:
    """The field paths that begin so, one step further than what is there. What has fields is offered with the dot."""
    holder, dot, _ = begun.rpartition(".")
    if not dot:
        below = [*fields.kinds().values(), fields.policy(), fields.document()]
    else:
        try:
            below = [field for field in fields.find(holder).fields if not field.deprecated]
        except fields.NoFieldError:
            return []
    found = []
    for field in below:
        path = f"{holder}{dot}{field.name}"
        if path.startswith(begun):
            found += [path, f"{path}."] if field.fields else [path]
    return found


def environments(files: Mapping[str, bytes]) -> list[str]:
    """The names of the environments in spec files, as far as they can be read."""
    found: set[str] = set()
    for name, content in files.items():
        # Most files have none, and somebody is waiting.
        if b"environments" in content:
            for document in read(name, content).documents:
                found.update(_names(document.value))
    return sorted(found)


def _names(document: Any) -> list[str]:
    spec = document.get("spec") if isinstance(document, dict) else None
    listed = spec.get("environments") if isinstance(spec, dict) else None
    specs = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    names = [one["name"] for one in specs if isinstance(one.get("name"), str)]
    # Whatever else is there is no name of an environment, and a terminal might obey it.
    return [name for name in names if re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)]
