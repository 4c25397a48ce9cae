"""What all commands share: options, ways to print, and the end with an error."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from reconciler.clusters import Clusters
    from reconciler.offline import Rules


def epilog(*examples: str, codes: str) -> str:
    """The end of a command's help. Lines after the mark are not filled into a paragraph."""
    return "\n".join(("\b", "Examples:", *(f"  {example}" for example in examples), "", f"Exit codes: {codes}."))


class Format(StrEnum):
    """How a report is printed."""

    TEXT = "text"
    JSON = "json"
    YAML = "yaml"
    MARKDOWN = "markdown"  #: a comment on a pull request
    GITHUB = "github"  #: annotations in a workflow of GitHub Actions, and its job's summary
    SARIF = "sarif"  #: code scanning
    JUNIT = "junit"  #: tests, for any CI system


class DataFormat(StrEnum):
    """How anything else is printed."""

    TEXT = "text"
    JSON = "json"
    YAML = "yaml"


Paths = Annotated[
    list[Path] | None,
    typer.Option(
        "--file", "-f", help="A spec file, or a folder of them. Default: specs/, or this folder.", metavar="PATH"
    ),
]


def _environments(ctx: typer.Context) -> list[str]:
    """What completes the name of an environment: those in the files that the command is to read."""
    from reconciler.authors import completion
    from reconciler.source import files

    return completion.environments(files.read(paths_of(ctx.params.get("file"))).content)


Environments = Annotated[
    list[str] | None,
    typer.Option(
        "--environment",
        "-e",
        help="Only this environment; may be given again.",
        metavar="NAME",
        autocompletion=_environments,
    ),
]
Output = Annotated[
    Format,
    typer.Option("--output", "-o", help="text, json, yaml, markdown, github, sarif or junit.", metavar="FORMAT"),
]
DataOutput = Annotated[DataFormat, typer.Option("--output", "-o", help="text, json or yaml.", metavar="FORMAT")]
Home = Annotated[
    Path | None, typer.Option("--home", help="The embedded data plane's folder. Default: $TRUEUP_HOME, or .trueup.")
]
Kubeconfig = Annotated[
    str | None, typer.Option("--kubeconfig", help="Use this cluster for every environment.", metavar="PATH")
]
KubeContext = Annotated[str | None, typer.Option("--context", help="The context of --kubeconfig.", metavar="NAME")]
Mirrors = Annotated[
    list[str] | None,
    typer.Option("--mirror", help="Read repositories whose URL begins with FROM at TO instead.", metavar="FROM=TO"),
]


PolicyFile = Annotated[
    Path | None,
    typer.Option(
        "--policy", help="Rules of your own, in CEL. Default: .trueup-policy.yaml, here or above.", metavar="PATH"
    ),
]


def rules_of(given: Path | None, approvals: Iterable[str] = ()) -> Rules:
    """Where the rules of the organisation are."""
    from reconciler import offline

    if given is not None and not given.is_file():
        fail(f"there is no file {given}", code=1)
    return offline.rules_of(given, approvals)


def home_of(given: Path | None) -> Path:
    from reconciler.clusters import default_home

    return given or default_home()


def paths_of(files: list[Path] | None) -> tuple[Path, ...]:
    default = Path("specs") if Path("specs").is_dir() else Path()
    return tuple(files or (default,))


def mirrors_of(mirrors: list[str] | None) -> dict[str, str]:
    """Where repositories are to be read instead, by the beginnings of their URLs."""
    pairs = [pair.partition("=") for pair in mirrors or ()]
    for beginning, equals, replacement in pairs:
        if not (beginning and equals and replacement):
            fail(f"--mirror wants FROM=TO, not {beginning}", code=1)
    return {beginning: replacement for beginning, _, replacement in pairs}


def clusters_of(home: Path | None, kubeconfig: str | None, context: str | None) -> Clusters:
    from reconciler.clusters import Clusters, default_home

    return Clusters(home or default_home(), kubeconfig, context)


def colors(stream: object) -> bool:
    """Colours on a terminal only, and not where somebody asked for none (https://no-color.org)."""
    refused = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return not refused and bool(getattr(stream, "isatty", bool)())


def columns() -> int:
    import shutil

    return shutil.get_terminal_size((100, 24)).columns


def piped(stream: object) -> bool:
    """Whether no person sees it as it is printed, as far as that is known: `| grep` finds what is on one line."""
    return "COLUMNS" not in os.environ and not getattr(stream, "isatty", bool)()


def write_lines(lines: Iterable[str]) -> None:
    write("".join(f"{line}\n" for line in lines))


def warn(warnings: list[str]) -> None:
    from reconciler.report import text

    for warning in warnings:
        sys.stderr.write(f"warning: {text.clean(warning)}\n")


def write(words: str) -> None:
    """Writes to the standard output, at once. A reader that left (`| head`) does not stop a run half-way."""
    try:
        sys.stdout.write(words)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(message: str, *, code: int) -> NoReturn:
    from reconciler.report.text import clean

    # A message may hold what a model or a warehouse has said.
    sys.stderr.write(f"reconcile: {clean(message)}\n")
    raise typer.Exit(code)


def now() -> datetime:
    """The moment. The command line is where it comes from."""
    return datetime.now(UTC)  # noqa: TID251 - here, and nowhere below
