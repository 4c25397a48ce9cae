"""`reconcile run`: the daemon's command line."""

from __future__ import annotations

import signal
import sys
from threading import Event
from typing import Annotated

import typer

from reconciler.cli.common import (
    Environments,
    Home,
    Kubeconfig,
    KubeContext,
    Mirrors,
    epilog,
    fail,
    home_of,
    mirrors_of,
    now,
)

_EPILOG = epilog(
    "reconcile run --git https://git.example.com/acme/specs.git --path specs --leader-elect",
    "reconcile up && reconcile run --git file://$PWD --path examples/specs --interval 5",
    codes="0 it was told to end, 1 the command line is wrong, 3 it could not begin",
)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("run", epilog=_EPILOG)(run)


def run(
    git: Annotated[str, typer.Option("--git", help="The repository of the specs: https, ssh or file.", metavar="URL")],
    *,
    branch: Annotated[str, typer.Option(help="The branch to follow.", metavar="NAME")] = "main",
    path: Annotated[str, typer.Option(help="The folder with the specs; none: all of it.", metavar="FOLDER")] = "",
    interval: Annotated[float, typer.Option(help="Between two polls.", metavar="SECONDS", min=1.0)] = 60.0,
    git_secret: Annotated[
        str, typer.Option(help="A Secret with `token`, or with `ssh-privatekey` and `known_hosts`.", metavar="NAME")
    ] = "",
    webhook_secret: Annotated[
        str, typer.Option(help="A Secret whose values sign pushes: takes webhooks.", metavar="NAME")
    ] = "",
    signers_secret: Annotated[
        str,
        typer.Option(help="A Secret with `allowed_signers` or OpenPGP keys: follows no other commits.", metavar="NAME"),
    ] = "",
    leader_elect: Annotated[
        bool, typer.Option("--leader-elect", help="Several replicas run, and one of them writes.")
    ] = False,
    address: Annotated[
        str, typer.Option(help="Of /healthz, /readyz, /metrics and the overview page.", metavar="HOST:PORT")
    ] = "127.0.0.1:8080",
    webhook_address: Annotated[str, typer.Option(help="Of /webhook.", metavar="HOST:PORT")] = "127.0.0.1:9292",
    log_format: Annotated[str, typer.Option(help="json or console.", metavar="FORMAT")] = "",
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.", metavar="LEVEL")] = "info",
    environment: Environments = None,
    home: Home = None,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
    mirror: Mirrors = None,
) -> None:
    """Follows a branch and keeps the clusters as its specs say, until it is told to end."""
    form = log_format or ("console" if sys.stderr.isatty() else "json")
    if form not in ("json", "console"):
        fail(f"--log-format wants json or console, not {form!r}", code=1)
    if log_level not in ("debug", "info", "warning", "error"):
        fail(f"--log-level wants debug, info, warning or error, not {log_level!r}", code=1)
    if not interval < float("inf"):
        fail("--interval wants a number of seconds", code=1)
    if context is not None and kubeconfig is None:
        fail("--context goes with --kubeconfig; an environment names its own in data_plane", code=1)
    from importlib.metadata import version

    from reconciler import daemon
    from reconciler.cluster import ApiError
    from reconciler.source.commands import Unresolved, question_of
    from reconciler.source.mirror import checked_path
    from reconciler.telling import logs
    from reconciler.web.server import host_and_port

    # What stays wrong however often it is tried is said now, and not in a log once a minute.
    mirrors = mirrors_of(mirror)
    asked = question_of(git, None, mirrors, allow_file=True)
    if isinstance(asked, Unresolved):
        fail(f"--git: {asked.reason}", code=1)
    for option, check, given in (
        ("--path", checked_path, path),
        ("--address", host_and_port, address),
        ("--webhook-address", host_and_port, webhook_address),
    ):
        try:
            check(given)
        except ValueError as error:
            fail(f"{option}: {error}", code=1)
    logs.configure(form, log_level)  # type: ignore[arg-type] # checked above
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    settings = daemon.Settings(
        repository=git,
        branch=branch,
        path=path,
        interval_s=interval,
        home=home_of(home),
        kubeconfig=kubeconfig,
        context=context,
        environments=frozenset(environment or ()),
        mirrors=mirrors,
        git_secret=git_secret,
        webhook_secret=webhook_secret,
        signers_secret=signers_secret,
        address=address,
        webhook_address=webhook_address,
        elect=leader_elect,
    )
    import gc

    gc.enable()  # a run is short and does without; this one is not
    # Manifests are many objects, and in no cycles. As often as by default, a fifth of a long apply would go there.
    gc.set_threshold(20_000, 20, 20)
    gc.freeze()
    try:
        daemon.run(settings, version("trueup"), now, stop)
    except (ApiError, OSError, ValueError) as error:
        fail(str(error), code=3)
