"""The pages of the documentation as tests read them: blocks that are carried out in order, in one repository.

What a block is, is said by its first line, of which readers see the name of the file:

    ```yaml specs/churn.yaml        the file is written
    ```diff specs/churn.yaml        the file is changed: lines with + and -, and enough around them to find the place
    ```sql                          a query over the model analytics, which is parsed
    ```console                      commands after `$`, and what they print; `...` stands for anything
    ```console exit=1               the last command ends with this code; without it, all end with 0
    ```console cluster              commands for a cluster, which are only held against the command line
    ```console embedded             commands for the embedded data plane: run where there is one
    ```text                         a picture

Hashes differ from run to run: any hash is like any other.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs
import typer
import yaml
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from docs import generate
from reconciler.cli import app
from reconciler.warehouse import statement, tables

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
#: The page that begins with nothing.
TUTORIAL = "tutorial.md"
#: Narrow enough to be read on a page.
COLUMNS = 80
#: What needs a cluster and is not ours: taken as it is.
OTHERS = ("kubectl", "helm", "curl", "export", "git", "grep", "python", "qwak")
_HASH = re.compile(r"\b(?:[0-9a-f]{40}|[0-9a-f]{12}|[0-9a-f]{8})\b")


class Block(NamedTuple):
    """A fenced block."""

    page: str  #: below docs/
    line: int
    language: str
    words: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"docs/{self.page}:{self.line}"

    @property
    def code(self) -> int:
        return next((int(word.removeprefix("exit=")) for word in self.words if word.startswith("exit=")), 0)


class Command(NamedTuple):
    """A command of a console block, and what it is said to print."""

    line: str
    expected: str


def names() -> list[str]:
    """All pages that are written by hand and have something in them to do, as paths below docs/."""
    pages = [path for path in DOCS.rglob("*.md") if not path.read_text(encoding="utf-8").startswith(generate.MARK)]
    found = sorted(path.relative_to(DOCS).as_posix() for path in pages)
    return [page for page in found if any(block.language != "text" for block in blocks(page))]


def blocks(page: str) -> Iterator[Block]:
    for token in MarkdownIt("commonmark").parse((DOCS / page).read_text(encoding="utf-8")):
        if token.type == "fence" and not token.info.startswith("{"):  # those are Sphinx's
            language, *words = token.info.split() or [""]
            assert token.map is not None
            yield Block(page, token.map[0] + 1, language, tuple(words), token.content)


def commands(text: str) -> Iterator[Command]:
    """`$ command`, continued where a line ends with a backslash, and then what it prints."""
    line, expected, is_whole = "", "", True
    for one in text.splitlines(keepends=True):
        if not is_whole:
            line += one.removeprefix("> ")
        elif one.startswith("$ "):
            if line:
                yield Command(line, expected)
            line, expected = one[2:], ""
        else:
            expected += one
        is_whole = not (line.endswith("\\\n") and not expected)
    yield Command(line, expected)


def prints(expected: str, printed: str) -> bool:
    """Whether a command has printed what the page says."""
    lines = [_HASH.sub("HASH", line.rstrip()) for line in expected.rstrip().splitlines()]
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "..." else re.escape(line).replace(r"\.\.\.", ".*") + "\n" for line in lines
    )
    told = "".join(_HASH.sub("HASH", line.rstrip()) + "\n" for line in printed.rstrip().splitlines())
    return re.fullmatch(pattern, told) is not None


@dataclass
class Reader:
    """Somebody who does what a page says, in a folder of their own.

    `has_plane`: they start the embedded data plane, and have `reconcile` as `program`. Otherwise `reconcile` runs in
    this process, which is many times faster.
    """

    folder: Path
    home: Path
    program: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        bin_folder = self.program.parent if self.program else Path(sys.executable).parent
        identity = {f"GIT_{who}_{what}": "you" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("TRUEUP_", "KUBECONFIG"))},
            **identity,
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "COLUMNS": str(COLUMNS),
            "NO_COLOR": "1",
        }

    def do(self, block: Block) -> None:
        """Does what a block says; AssertionError where that does not come out as the page says."""
        if block.language == "console":
            self._run(block)
        elif block.language == "diff":
            path = self.folder / block.words[0]
            path.write_text(changed(path.read_text(encoding="utf-8"), block), encoding="utf-8")
        elif block.language in ("yaml", "python"):
            assert len(block.words) == 1, f"{block}: which file is it?"
            path = self.folder / block.words[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
            if path.name == "values.yaml":
                check_values(block)
        elif block.language == "sql":
            wrong = statement.problems(block.text, "duckdb", tables=tables.COLUMNS, parameters=tables.PARAMETERS)
            # A person may look at more than the one value that a gate wants.
            assert not [one for one in wrong if one.rule != "sql/one-column"], f"{block}: {wrong}"
        else:
            assert block.language == "text", f"{block}: no test knows what to do with {block.language!r}"

    def _run(self, block: Block) -> None:
        needs = {"cluster", "embedded"} & set(block.words)
        found = list(commands(block.text))
        for number, command in enumerate(found, start=1):
            if "cluster" in needs or (needs and self.program is None):
                check(command.line, block)
                continue
            code, printed = self.reconcile(command.line) or self.shell(command.line)
            wanted = block.code if number == len(found) else 0
            assert code == wanted, f"{block}: {command.line}ended with {code}, not {wanted}:\n{printed}"
            said = f"{block}: {command.line}printed\n{printed}\nand not\n{command.expected}"
            assert not command.expected.strip() or prints(command.expected, printed), said

    def reconcile(self, line: str) -> tuple[int, str] | None:
        """A command of ours alone, in this process; what it prints goes into a file where it says so. None: another."""
        found = re.fullmatch(r"(reconcile[^|<>&;$(]*)(?:> (\S+))?", line.replace("\\\n", " ").strip())
        if self.program is not None or not found:
            return None
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            arguments = shlex.split(found[1], comments=True)[1:]
            done = CliRunner().invoke(app, arguments, env=self.environment, catch_exceptions=False)
        finally:
            os.chdir(before)
        if found[2]:
            (self.folder / found[2]).write_text(done.stdout, encoding="utf-8")
        return done.exit_code, done.stderr if found[2] else done.output

    def shell(self, line: str) -> tuple[int, str]:
        """Anything else. Where it goes to and what it exports holds for what follows."""
        after = self.home / "after"
        script = f"{line}\ncode=$?; pwd > '{after}'; env -0 >> '{after}'; exit $code"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        place, _, rest = after.read_text().partition("\n")
        self.folder = Path(place)
        self.environment = dict(pair.split("=", 1) for pair in rest.split("\0") if "=" in pair)
        return done.returncode, done.stdout


def changed(text: str, block: Block) -> str:
    """A text after a change. What is around it must be there exactly once."""
    before = "".join(line[1:] for line in block.text.splitlines(keepends=True) if not line.startswith("+"))
    after = "".join(line[1:] for line in block.text.splitlines(keepends=True) if not line.startswith("-"))
    assert text.count(before) == 1, f"{block}: its lines are {text.count(before)} times in\n{text}"
    return text.replace(before, after)


# -- what cannot be run without a cluster -----------------------------------------------------------------------------


def check(line: str, block: Block) -> None:
    """Holds a command against the command line, or the chart's values, without running it."""
    for part in re.split(r"&&|\|", line.replace("\\\n", " ")):
        words = shlex.split(part, comments=True)
        if not words:
            continue
        if words[0] == "reconcile":
            parse(words[1:], block)
        elif words[:2] in (["helm", "install"], ["helm", "upgrade"]):
            for given in (after for before, after in pairwise(words) if before == "--set"):
                assert is_value(given.partition("=")[0]), f"{block}: the chart has no value {given}"
        else:
            assert words[0] in OTHERS, f"{block}: what is {words[0]}?"


def check_values(block: Block) -> None:
    """Holds the chart's values against their schema."""
    schema = json.loads((ROOT / "charts" / "trueup" / "values.schema.json").read_text())
    wrong = [error.message for error in jsonschema_rs.validator_for(schema).iter_errors(yaml.safe_load(block.text))]
    assert not wrong, f"{block}: {wrong}"


def parse(arguments: list[str], block: Block) -> None:
    command: Any = typer.main.get_command(app)
    while arguments and arguments[0] in getattr(command, "commands", {}):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    is_group, first = bool(getattr(command, "commands", {})), next(iter(arguments), "-")
    assert not is_group or first.startswith("-"), f"{block}: there is no command {first}"
    try:
        command.make_context("reconcile", list(arguments))
    except typer.TyperException as error:
        raise AssertionError(f"{block}: reconcile {' '.join(arguments)}: {error.format_message()}") from error


def is_value(path: str) -> bool:
    values: object = yaml.safe_load((ROOT / "charts" / "trueup" / "values.yaml").read_text())
    for step in re.sub(r"\[.*", "", path).split("."):
        if not isinstance(values, Mapping) or step not in values:
            return False
        values = values[step]
    return True
