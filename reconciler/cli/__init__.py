"""The command line: arguments, printing, exit codes. It decides nothing.

Heavy modules are imported inside the commands: `--help` pays for none of them.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from contextlib import closing, suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from reconciler.cli import authors, daemon, importing, records
from reconciler.cli.common import (
    Environments,
    Format,
    Home,
    Kubeconfig,
    KubeContext,
    Mirrors,
    Output,
    Paths,
    PolicyFile,
    clusters_of,
    colors,
    columns,
    epilog,
    fail,
    home_of,
    mirrors_of,
    now,
    paths_of,
    piped,
    rules_of,
    warn,
    write,
    write_lines,
)
from reconciler.cli.printing import print_end, print_problems, print_report

if TYPE_CHECKING:
    from collections.abc import Callable

    from reconciler.offline import Rules
    from reconciler.plan import Plan
    from reconciler.policy import Policy
    from reconciler.reconcile import Request
    from reconciler.report import Done, Report, Told
    from reconciler.specs import Loaded


app = typer.Typer(
    name="reconcile",
    help="Trues machine-learning platforms up to Git.",
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=epilog(
        "reconcile --dry-run -f specs/          what the specs ask for, without a cluster",
        "reconcile --dry-run --base main        what a pull request changes",
        "reconcile --dry-run --watch            again, whenever a spec is saved",
        "reconcile --dry-run --live -f specs/   what a run would do to the clusters",
        "reconcile up && reconcile -f specs/    onto this machine",
        codes="0 fine, 1 the specs or the command line are wrong, or something has failed, 2 there are changes "
        "(with --detailed-exitcode), 3 the world is (cluster, git), 4 blocked by a guard or a conflict, "
        "130 interrupted",
    ),
)


class ManifestFormat(StrEnum):
    """How manifests are printed."""

    YAML = "yaml"
    JSON = "json"


DetailedExitCode = Annotated[
    bool, typer.Option("--detailed-exitcode", help="Exit with 2 if there are changes to make.")
]


@app.callback(invoke_without_command=True)
def reconcile(
    ctx: typer.Context,
    file: Paths = None,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done. Offline, unless --live.")
    ] = False,
    environment: Environments = None,
    live: Annotated[bool, typer.Option("--live", help="With --dry-run: compare with the clusters.")] = False,
    base: Annotated[
        str | None,
        typer.Option(
            "--base", help="With --dry-run: what has changed since the history parted from REF.", metavar="REF"
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option("--head", help="With --base: a commit, instead of the files as they are.", metavar="REF"),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="With --dry-run: again whenever a spec is saved. ^C ends it.")
    ] = False,
    output: Output = Format.TEXT,
    detailed_exitcode: DetailedExitCode = False,
    approve: Annotated[
        list[str] | None, typer.Option(help="Lift the limit that named this id; may be given again.", metavar="ID")
    ] = None,
    wait: Annotated[
        float, typer.Option(help="Wait so long for what was applied to be ready.", metavar="SECONDS")
    ] = 0.0,
    policy: PolicyFile = None,
    home: Home = None,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
    mirror: Mirrors = None,
) -> None:
    """Trues the clusters up to the specs, once: read, validate, compare, apply, prune."""
    if ctx.invoked_subcommand is not None:
        _refuse_given(ctx)
        return
    _refuse_empty(base=base, head=head)
    # Ignored, each of these would do more than was asked for.
    if live and not dry_run:
        fail("--live goes with --dry-run", code=1)
    if base is not None and (live or kubeconfig or not dry_run):
        fail("--base goes with --dry-run, and without a cluster: it compares with a commit", code=1)
    if head is not None and base is None:
        fail("--head goes with --base", code=1)
    if watch and (head is not None or live or kubeconfig or not dry_run or output is not Format.TEXT):
        fail("--watch goes with --dry-run, on a terminal and without a cluster", code=1)
    if context is not None and kubeconfig is None:
        fail("--context goes with --kubeconfig; an environment names its own in data_plane", code=1)
    places = rules_of(policy, approve or ())
    if watch:
        _watch(file, base, environment, places)
    if base is not None:
        report = _review(file, base, head, environment, places)
        print_report(report, output, detailed=detailed_exitcode)
        _end(report, detailed=detailed_exitcode)
    rules = places.read()
    if dry_run and not (live or kubeconfig):
        from reconciler import offline

        loaded = offline.load(paths_of(file), rules)
        _check_environments(environment, loaded)
        report = offline.preview(loaded, environment or (), rules)
        print_report(report, output, detailed=detailed_exitcode)
        _end(report, detailed=detailed_exitcode)
    from reconciler import reconcile as story

    request = _request(file, home_of(home), environment, approve, mirrors=mirror, wait_s=wait, rules=rules)
    if dry_run:
        with closing(clusters_of(home, kubeconfig, context)) as clusters:
            report = story.preview(request, clusters, now)
            warn(clusters.warnings())
        print_report(report, output, detailed=detailed_exitcode)
    else:
        if mirror:
            from reconciler import local

            local.keep_mirrors(home_of(home), request.mirrors)
        with closing(clusters_of(home, kubeconfig, context)) as clusters:
            report = story.reconcile(request, clusters, _teller(output), now)
            warn(clusters.warnings())
        print_end(report, output, detailed=detailed_exitcode)
    _end(report, detailed=detailed_exitcode)


@app.command(
    epilog=epilog(
        "reconcile validate -f specs/",
        "reconcile validate -f specs/ -o json | jq '.problems[].message'",
        codes="0 valid, 1 not",
    )
)
def validate(file: Paths = None, *, output: Output = Format.TEXT, policy: PolicyFile = None) -> None:
    """Checks the specs, and says everything that is wrong at once."""
    from reconciler import offline
    from reconciler.report import Report

    rules = rules_of(policy).read()
    loaded = offline.load(paths_of(file), rules)
    # What no single spec can know: whether it can be rendered, and whether two of them want one object.
    report = offline.preview(loaded)
    report = Report(tuple(sorted((*report.problems, *rules.problems))), specs=report.specs)
    print_problems(report, output)
    _end(report)


@app.command(
    epilog=epilog(
        "reconcile render -f specs/ -e staging",
        "reconcile render -f specs/ | kubectl diff -f -",
        codes="0 rendered, 1 the specs are wrong",
    )
)
def render(
    file: Paths = None,
    *,
    environment: Environments = None,
    output: Annotated[ManifestFormat, typer.Option("--output", "-o", help="yaml or json.")] = ManifestFormat.YAML,
) -> None:
    """Prints the Kubernetes manifests that the specs ask for."""
    from reconciler import desired, offline
    from reconciler.report import Report, machine, text
    from renderers.catalog import Facts

    loaded = offline.load(paths_of(file))
    _check_environments(environment, loaded)
    problems = list(loaded.problems)
    bodies = []
    for unit in desired.build(loaded.catalog, Facts()):
        problems += [unit.problem] if unit.problem else []
        if not environment or unit.environment in environment:
            bodies += [manifest.body for manifest in unit.manifests]
    write(machine.manifests(bodies, output.value))
    report = Report(tuple(sorted(problems)))
    for line in text.problems(report.problems, width=columns(), color=colors(sys.stderr), whole=piped(sys.stderr)):
        sys.stderr.write(line + "\n")
    _end(report)


@app.command(
    epilog=epilog(
        "reconcile schema > trueup.schema.json      for an editor: put it beside the specs, and on top of each",
        "                                           # yaml-language-server: $schema=../trueup.schema.json",
        "reconcile schema --modeline                that line, for the schema of this installation",
        "reconcile schema plan                      what `reconcile -o json` prints",
        "reconcile schema policy --modeline         the line for .trueup-policy.yaml",
        "reconcile schema --crds | kubectl apply --server-side -f -",
        codes="0 printed, 1 there is no such kind",
    )
)
def schema(
    kind: Annotated[
        str, typer.Argument(help="document, environment, build, variation, audience, automation, policy or plan.")
    ] = ("document"),
    *,
    crds: Annotated[
        bool, typer.Option("--crds", help="Print the CustomResourceDefinitions of the records instead.")
    ] = False,
    modeline: Annotated[
        bool, typer.Option("--modeline", help="Print the line by which a spec file shows an editor its schema.")
    ] = False,
) -> None:
    """Prints the JSON Schema of a kind, of a whole document, or of the plan's JSON."""
    from importlib.resources import files

    from reconciler.report import machine

    if crds:
        from reconciler import ledger

        write(machine.manifests(ledger.definitions(), "yaml"))
        return
    known = {"plan": machine.SCHEMA_FILE}
    for name in ("document", "environment", "build", "variation", "audience", "automation", "policy"):
        known[name] = files("schemas") / f"{name}.schema.json"
    if kind not in known:
        fail(f"there is no kind {kind!r}; there are {', '.join(known)}", code=1)
    if modeline:
        write(f"# yaml-language-server: $schema={Path(str(known[kind])).as_uri()}\n")
        return
    write(known[kind].read_text(encoding="utf-8"))


@app.command(
    epilog=epilog(
        "reconcile up && export KUBECONFIG=$PWD/.trueup/kubeconfig && kubectl get namespaces",
        codes="0 it is up, 3 it could not be started",
    )
)
def up(
    *,
    home: Home = None,
    only_api: Annotated[
        bool, typer.Option("--only-api", help="Keep objects, and run nothing: no builds, no pods, no gateway.")
    ] = False,
) -> None:
    """Starts the embedded data plane on this machine: a Kubernetes API, what runs its pods, and a gateway.

    Not for production.
    """
    from reconciler import local

    place = home_of(home)
    try:
        number, started = local.up(place, only_api=only_api)
    except local.LocalError as error:
        fail(str(error), code=3)
    write(f"The embedded data plane {'is up' if started else 'was up already'} (process {number}).\n")
    write(f"  export KUBECONFIG={(place / 'kubeconfig').resolve()}\n")


@app.command(
    epilog=epilog(
        "reconcile down", "rm -r .trueup    and forget what it stored", codes="0 it is down, 3 something may still run"
    )
)
def down(*, home: Home = None) -> None:
    """Stops the embedded data plane of this machine and all that it runs. What it stored stays."""
    from reconciler import local

    place = home_of(home)
    try:
        was_up = local.down(place)
    except local.LocalError as error:
        fail(str(error), code=3)
    write("The embedded data plane is down.\n" if was_up else f"None was up in {place}.\n")


records.register(app)
authors.register(app)
daemon.register(app)
importing.register(app)


def main() -> None:
    """The entry point of the command `reconcile`."""
    # A run is short, and its data are trees: the collector would only walk them, a fifth of a large dry run's time.
    gc.disable()
    # Ended by whoever runs us is interrupted: what is open is closed, and temporary credentials are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = app(standalone_mode=False)
    except typer.TyperException as wrong:
        # Not its own exit code: 2 would tell a pipeline that there are changes.
        sys.stderr.write(f"reconcile: {wrong.format_message()} (see reconcile --help)\n")
        code = 1
    if code == 130:
        sys.stderr.write("\ninterrupted; what was done stays, and the next run goes on from there\n")
    with suppress(BrokenPipeError):
        sys.stdout.flush()
    # What libraries want done at the end is done (the Kubernetes package keeps certificates in temporary files). But
    # the interpreter is not taken down piece by piece, which is a tenth of a short run, and after ^C requests under
    # way are not waited for: a run may be cut anywhere.
    atexit._run_exitfuncs()
    os._exit(code or 0)


# -- arguments ------------------------------------------------------------------------------------------------------


def _refuse_given(ctx: typer.Context) -> None:
    """Options before a command would be taken for its own, and have no effect."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    given = [f"--{name.replace('_', '-')}" for name, where in sources.items() if where and where.name == "COMMANDLINE"]
    if given:
        fail(f"{', '.join(given)}: options come after the command: reconcile {ctx.invoked_subcommand} ...", code=1)


def _refuse_empty(**refs: str | None) -> None:
    for name, ref in refs.items():
        if ref == "":
            fail(
                f"--{name} wants a branch, a tag or a commit, and got nothing: is a variable of the CI job empty?",
                code=1,
            )


def _request(
    files: list[Path] | None,
    home: Path,
    environments: list[str] | None,
    approved: list[str] | None,
    *,
    mirrors: list[str] | None,
    wait_s: float,
    rules: Policy,
) -> Request:
    from reconciler.reconcile import Request

    if not 0 <= wait_s < float("inf"):  # NaN too is never over
        fail(f"--wait wants a number of seconds, not {wait_s}", code=1)
    only, lifted = frozenset(environments or ()), frozenset(approved or ())
    return Request(paths_of(files), home, only, lifted, mirrors_of(mirrors), wait_s, rules)


def _watch(files: list[Path] | None, base: str | None, environments: list[str] | None, rules: Rules) -> NoReturn:
    """A screen after each save: what is wrong, and what has changed since the base, or since it began."""
    from reconciler import review
    from reconciler.report import text
    from reconciler.source import checkout
    from reconciler.source.watch import changes

    paths, screen = paths_of(files), sys.stdout.isatty()
    saved = changes(paths, rules.places)
    try:
        for report, seconds in review.follow(paths, base, environments or (), saved, rules):
            write("\x1b[2J\x1b[H" if screen else "")
            write_lines(text.report(report, width=columns(), color=colors(sys.stdout)))
            write(f"{now():%H:%M:%S}  planned in {seconds * 1000:.0f} ms; watching {', '.join(map(str, paths))}\n")
    except (checkout.CheckoutError, review.NoEnvironmentError, OSError) as error:
        fail(str(error), code=1)
    except KeyboardInterrupt:
        pass
    raise typer.Exit(0)


def _review(
    files: list[Path] | None, base: str, head: str | None, environments: list[str] | None, rules: Rules
) -> Report:
    from reconciler import review
    from reconciler.source import checkout

    try:
        return review.preview(paths_of(files), base, head, environments or (), rules)
    except checkout.TooShallowError as error:
        fail(str(error), code=3)
    except (checkout.CheckoutError, review.NoEnvironmentError) as error:
        fail(str(error), code=1)


def _check_environments(names: list[str] | None, loaded: Loaded) -> None:
    known = loaded.catalog.environments
    for name in names or ():
        if name not in known:
            fail(f"there is no valid environment {name!r}; there are: {', '.join(known) or 'none'}", code=1)


# -- printing -------------------------------------------------------------------------------------------------------


def _teller(output: Format) -> Callable[[Plan | Done | Told], None]:
    """What is told while a run goes on: in text, the plan and each thing done; for programs, nothing until the end."""
    from reconciler.plan import Plan
    from reconciler.report import Told, text

    color, width = colors(sys.stdout), columns()

    def tell(event: Plan | Done | Told) -> None:
        if isinstance(event, Plan):
            write_lines(text.plan(event, width=width, color=color))
        elif isinstance(event, Told):
            write_lines(text.told(event, width=width, color=color))
        else:
            write_lines(text.done(event, width=width, color=color))

    return tell if output is Format.TEXT else _silent


def _silent(_: Plan | Done | Told) -> None:
    """Programs read one document, at the end."""


def _end(report: Report, *, detailed: bool = False) -> NoReturn:
    from reconciler.report import exit_code

    raise typer.Exit(int(exit_code(report, detailed=detailed)))
