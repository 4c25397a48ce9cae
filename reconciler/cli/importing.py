"""`reconcile import`: from the reference platform to specs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli.common import colors, columns, epilog, fail, piped, write, write_lines

if TYPE_CHECKING:
    from reconciler.importing import Imported


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        name="import",
        epilog=epilog(
            "reconcile import old/ -o specs/                        a folder of audiences, configurations, automations",
            "reconcile import automations.py --environment production",
            "reconcile import old/ -o specs/ --git-uri churn=https://github.com/acme/models.git#churn",
            "qwak audiences list --json-format > audiences.json && reconcile import audiences.json old/ -o specs/",
            codes="0 imported, 1 something is left to decide (it is said what, and marked `# import:` in the result), "
            "3 the result could not be written",
        ),
    )(import_)


def import_(
    path: Annotated[
        list[Path], typer.Argument(help="Files, or folders of them: *.yaml, *.json, *.py.", metavar="PATH")
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The folder of the specs. Default: print them.", metavar="DIR"),
    ] = None,
    environment: Annotated[
        list[str] | None,
        typer.Option(
            "--environment",
            "-e",
            help="The environment where the files name none; or OLD=NEW, what one is called from now on. "
            "May be given again.",
            metavar="[OLD=]NAME",
        ),
    ] = None,
    git_uri: Annotated[
        list[str] | None,
        typer.Option("--git-uri", help="Where a model's code is: MODEL=REPOSITORY#FOLDER.", metavar="MODEL=URI"),
    ] = None,
    audience: Annotated[
        list[str] | None,
        typer.Option("--audience", help="The name of an audience that files know by its id.", metavar="ID=NAME"),
    ] = None,
) -> None:
    """Reads what the Qwak (JFrog ML) platform has: audiences, deployment and build configurations, automations.

    Python files are read, and never run. Existing files are never overwritten, and what is defined already is left.
    """
    from reconciler.importing import Options, convert, reading
    from reconciler.report import text
    from reconciler.source import files

    renamed, default = _environments(environment)
    options = Options(default, renamed, _pairs("--git-uri", git_uri), _pairs("--audience", audience))
    given = files.read(path, suffixes=reading.SUFFIXES)
    there = files.read([output]) if output is not None and output.exists() else files.Files({}, ())
    unreadable = [problem for problem in there.problems if problem.rule != "source/no-specs"]
    if unreadable:
        fail(f"{unreadable[0]}", code=3)
    # As `files.read` names what is in a folder, so that problems lead to the files of the result.
    folder = "" if output is None or output == Path() else f"{output.as_posix().rstrip('/')}/"
    result = convert(given.content, options, there.content, folder=folder, split=output is not None)
    stream = sys.stdout if output is not None else sys.stderr
    told = (*given.problems, *result.told, *result.problems)
    for line in text.problems(told, width=columns(), color=colors(stream), whole=piped(stream)):
        stream.write(f"{line}\n")
    if output is not None:
        _write_files(output, result.files)
        write_lines(_summary(result, output))
    else:
        sys.stderr.write("".join(f"{line}\n" for line in _summary(result, None)))
        write("".join(result.files.values()))
    is_fine = result.is_whole and not given.problems
    # Whoever wanted something and got nothing has named the wrong place; what was there already is something.
    raise typer.Exit(0 if is_fine and (result.files or result.told) else 1)


def _environments(given: list[str] | None) -> tuple[dict[str, str], str]:
    """The environments that get another name, and the one where the files name none."""
    renamed: dict[str, str] = {}
    default = ""
    for one in given or ():
        old, equals, new = one.partition("=")
        if not old or (equals and not new):
            fail(f"--environment wants NAME or OLD=NEW, not {one}", code=1)
        if equals:
            renamed[old] = new
        elif default:
            fail(f"--environment names two environments without a name before them, {default} and {old}", code=1)
        else:
            default = old
    return renamed, default


def _pairs(option: str, given: list[str] | None) -> Mapping[str, str]:
    pairs: dict[str, str] = {}
    for one in given or ():
        key, _, value = one.partition("=")
        if not (key and value):
            fail(f"{option} wants a name, = and what belongs to it, not {one}", code=1)
        pairs[key] = value
    return pairs


def _write_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8", newline="\n") as file:
                file.write(content)
        except OSError as error:
            fail(f"{path} cannot be written: {(error.strerror or type(error).__name__).lower()}", code=3)


def _summary(result: Imported, folder: Path | None) -> Iterator[str]:
    from reconciler.report.text import clean, counted

    if result.files and folder is not None:
        yield f"Written to {folder}:"
        yield from (f"  {name}" for name in result.files)
    if result.secrets:
        yield "Secrets to make (specs name them, and never hold them):"
        for secret in result.secrets:
            yield f"  {secret.name}, key {secret.key}: see {clean(str(secret.place))}"
    kinds = [counted(count, kind.removesuffix("s")) for kind, count in result.counts.items()]
    problems = (*result.told, *result.problems)
    said = [
        counted(sum(problem.severity == "error" for problem in problems), "thing") + " to decide",
        counted(sum(problem.rule in ("import/changed", "import/renamed") for problem in problems), "change"),
        counted(sum(problem.rule == "import/no-counterpart" for problem in problems), "thing") + " without counterpart",
    ]
    if result.others:
        said.append(f"{counted(result.others, 'file')} not of the platform")
    yield f"Imported {', '.join(kinds) or 'nothing'}; {', '.join(said)}."
