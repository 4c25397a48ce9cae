"""Commands for those who write specs: explain, fmt, init, completion."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.authors import COMPLETION
from reconciler.cli import records
from reconciler.cli.common import (
    DataFormat,
    DataOutput,
    Home,
    Kubeconfig,
    KubeContext,
    colors,
    columns,
    epilog,
    fail,
    paths_of,
    piped,
    write,
    write_lines,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from schemas.problem import Problem


def register(app: typer.Typer) -> None:
    """Adds these commands."""
    app.command(
        epilog=epilog(
            "reconcile explain variation.traffic            what may stand there, and what it means",
            "reconcile explain automation --recursive       all fields, in short",
            "reconcile explain churn.default.production.1a2b3c4d-1",
            codes="0 printed, 1 there is no such thing, 3 the cluster is in the way (never for a field)",
        )
    )(explain)
    app.command(
        epilog=epilog(
            "reconcile fmt                      specs/, or this folder",
            "reconcile fmt --check --diff       in CI: what would change",
            "reconcile fmt - < a.yaml           for an editor",
            codes="0 formatted, 1 a file cannot be read, 2 a file would change (with --check)",
        )
    )(fmt)
    app.command(
        epilog=epilog(
            "reconcile init && reconcile up && reconcile --wait 300",
            "reconcile init models",
            codes="0 made, 1 something is in the way",
        )
    )(init)
    app.command(
        epilog=epilog(
            "source <(reconcile completion bash)            in ~/.bashrc",
            "source <(reconcile completion zsh)             in ~/.zshrc, after compinit",
            "reconcile completion fish | source             in config.fish",
            codes="0 printed, 1 there is no such shell",
        )
    )(completion)
    if COMPLETION in os.environ:
        # Typer does so itself for an app with options that write into a person's shell configuration; ours has none.
        from typer._completion_classes import completion_init

        completion_init()


# -- explain --------------------------------------------------------------------------------------------------------


def _paths(incomplete: str) -> list[str]:
    from reconciler.authors import completion as completions

    return completions.paths(incomplete)


def explain(
    name: Annotated[
        str,
        typer.Argument(
            help="A field, such as variation.traffic; or a promotion, as `reconcile status` shows it.",
            metavar="FIELD | PROMOTION",
            autocompletion=_paths,
        ),
    ] = "document",
    *,
    recursive: Annotated[bool, typer.Option("--recursive", help="All fields below, not only the next ones.")] = False,
    output: DataOutput = DataFormat.TEXT,
    home: Home = None,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
) -> None:
    """What a field of the specs means; or why a promotion stands where it stands.

    A field: its type, default, unit, limits and examples, out of the schema. A promotion: the verdicts with their
    evidence, who decided, how far it got.
    """
    from reconciler.authors import explained, fields

    if not name.strip():
        fail("name a field, such as variation.traffic, or a promotion", code=1)
    if not fields.is_path(name):
        # What was meant may be a field with a slip in its first word, for which no cluster is needed.
        no_field = fields.why_none(name)
        records.explain(name, output=output, home=home, kubeconfig=kubeconfig, context=context, otherwise=no_field)
        return
    try:
        field = fields.find(name)
    except fields.NoFieldError as error:
        fail(str(error), code=1)
    if output is DataFormat.TEXT:
        write_lines(explained.text(field, recursive=recursive, width=columns()))
    else:
        from reconciler.report import machine

        write(machine.data(explained.as_data(field, recursive=recursive), output.value))


# -- fmt ------------------------------------------------------------------------------------------------------------


def fmt(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Spec files, or folders of them; - is the standard input.", metavar="[PATH]..."),
    ] = None,
    *,
    file: Annotated[list[Path] | None, typer.Option("--file", "-f", help="The same.", metavar="PATH")] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit with 2 if a file would change.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Write nothing; show what would change.")] = False,
) -> None:
    """Writes specs in the one way: order of keys, indentation, quotes, blank lines. Comments stay.

    What a spec means never changes: a file for which that cannot be shown is left as it is. So is YAML of something
    else in a folder: what does not say api_version, unless it is named.
    """
    from reconciler.authors import files

    given = [*(paths or ()), *(file or ())]
    if Path("-") in given:
        if len(given) > 1:
            fail("- stands alone", code=1)
        _format_input(check=check, diff=diff)
        return
    result = files.formatted(paths_of(given))
    if diff:
        write_lines(_difference(result.changes))
    elif check:
        write_lines(f"{name} would change" for name in result.changes)
    else:
        result = files.write(result)
        write_lines(f"formatted {name}" for name in result.changes)
    _tell(result.problems)
    words = "would change" if check or diff else "changed"
    write(f"{len(result.changes)} of {result.count} files {words}.\n")
    if result.problems:
        raise typer.Exit(1)
    if check and result.changes:
        raise typer.Exit(2)


def _format_input(*, check: bool, diff: bool) -> None:
    from reconciler.authors.layout import NotFormattedError, formatted

    content = sys.stdin.buffer.read()
    try:
        made = formatted("<stdin>", content)
    except NotFormattedError as error:
        _tell(error.problems)
        raise typer.Exit(1) from None
    if diff:
        write_lines(_difference({"<stdin>": (content, made)} if made != content else {}))
    elif check:
        write_lines(["<stdin> would change"] if made != content else [])
    else:
        # As bytes: a file with the line ends of Windows keeps them.
        sys.stdout.flush()
        sys.stdout.buffer.write(made)
        sys.stdout.buffer.flush()
    if check and made != content:
        raise typer.Exit(2)


def _difference(changes: Mapping[str, tuple[bytes, bytes]]) -> Iterator[str]:
    from difflib import unified_diff

    from reconciler.report.text import clean

    for name, versions in changes.items():
        old, new = (version.decode("utf-8-sig").splitlines() for version in versions)
        for line in unified_diff(old, new, f"a/{name}", f"b/{name}", lineterm=""):
            yield clean(line)


def _tell(problems: tuple[Problem, ...]) -> None:
    if problems:
        from reconciler.report import text

        for line in text.problems(problems, width=columns(), color=colors(sys.stderr), whole=piped(sys.stderr)):
            sys.stderr.write(line + "\n")


# -- init -----------------------------------------------------------------------------------------------------------


def init(
    folder: Annotated[Path, typer.Argument(help="Where; it is made if it is not there.", metavar="[DIR]")] = Path(),
) -> None:
    """Makes a repository to begin with: specs that work as they are, a small model, CI, an editor's settings.

    Nothing that is there is overwritten.
    """
    from reconciler.authors import files

    try:
        made = files.begin(folder)
    except files.InTheWayError as error:
        fail(str(error), code=1)
    write_lines(made)


# -- completion -----------------------------------------------------------------------------------------------------


def completion(
    shell: Annotated[
        str,
        typer.Argument(help="bash, zsh or fish.", metavar="SHELL", autocompletion=lambda: ["bash", "zsh", "fish"]),
    ],
) -> None:
    """Prints a shell's script that completes commands, options, fields and names of environments."""
    from reconciler.authors.completion import SCRIPTS

    if shell not in SCRIPTS:
        fail(f"there is no completion for {shell!r}; there is one for {', '.join(SCRIPTS)}", code=1)
    write(SCRIPTS[shell])
