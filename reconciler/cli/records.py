"""Commands about what was recorded: builds and promotions, looked at and decided on."""

from __future__ import annotations

from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli.common import (
    Format,
    Home,
    Kubeconfig,
    KubeContext,
    Mirrors,
    Output,
    Paths,
    clusters_of,
    columns,
    epilog,
    fail,
    mirrors_of,
    now,
    paths_of,
    warn,
    write,
    write_lines,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from reconciler.clusters import Clusters
    from reconciler.outside import Outside
    from reconciler.records import Action, PromotionRequest
    from renderers.catalog import Catalog
    from schemas.environment import DataPlane

Reason = Annotated[str, typer.Option("--reason", "-m", help="Why; it is kept with the decision.", metavar="TEXT")]
PromotionName = Annotated[
    str, typer.Argument(help="Its name, or how it begins: as `reconcile status` shows it.", metavar="PROMOTION")
]
ModelName = Annotated[str, typer.Argument(help="The model.", metavar="MODEL")]

_CODES = "0 done, 1 it means nothing (the sentence says why), 3 the cluster is in the way"


def register(app: typer.Typer) -> None:
    """Adds these commands."""
    app.command(epilog=_looking("reconcile status", "reconcile status -f specs/      and when automations run"))(status)
    app.command(epilog=_looking("reconcile history churn", "reconcile history churn -o json | jq '.promotions[0]'"))(
        history
    )
    app.command(epilog=_looking("reconcile explain churn.default.production.1a2b3c4d-1"))(explain)
    for command, example in (
        (approve, "reconcile approve churn.default.production.1a2b3c4d-1 -m 'seen in staging for a week'"),
        (reject, "reconcile reject churn.default.production -m 'the auditors want to see it first'"),
        (pause, "reconcile pause churn.default.production"),
        (resume, "reconcile resume churn.default.production"),
        (retry, "reconcile retry churn.default.production.1a2b3c4d-1 -m 'the warehouse was wrong'"),
        (rollback, "reconcile rollback churn -e production -m 'complaints from support'"),
        (trigger, "reconcile trigger churn-nightly"),
    ):
        app.command(epilog=epilog(example, codes=_CODES))(command)
    app.command(
        epilog=epilog(
            "reconcile gate churn-nightly                its newest build, now",
            "reconcile gate churn-nightly --build 1a2b3c4d",
            codes="0 passed, 1 there is no such gate, 3 the warehouse or the cluster is in the way, 4 not passed",
        )
    )(gate)
    analytics = typer.Typer(
        help="The model analytics: what SQL thresholds ask.", rich_markup_mode=None, no_args_is_help=True
    )
    analytics.command(
        name="init",
        epilog=epilog(
            "reconcile analytics init -e production --dry-run",
            "reconcile analytics init -e production",
            codes="0 it is as it should be, 1 there is nothing to make, 3 AWS is in the way",
        ),
    )(analytics_init)
    app.add_typer(analytics, name="analytics")


def _looking(*examples: str) -> str:
    return epilog(*examples, codes="0 printed, 1 there is no such thing, 3 the cluster is in the way")


# -- looking --------------------------------------------------------------------------------------------------------


def status(
    file: Paths = None,
    *,
    output: Output = Format.TEXT,
    home: Home = None,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
) -> None:
    """What is under way: builds, promotions, and what each of them waits for. With -f: also when automations run."""
    from reconciler import offline, story, triggers

    catalog = offline.load(tuple(file)).catalog if file else None
    with _opened(home, kubeconfig, context, catalog) as opened:
        ledger = opened.ledger
    builds = [build for build in ledger.builds.values() if not build.is_finished]
    promotions = [promotion for promotion in ledger.promotions if not promotion.is_finished]
    if output is not Format.TEXT:
        _print_data(story.as_data(builds, promotions), output)
        return
    lines = list(story.under_way(builds, promotions, width=columns()))
    write_lines(lines or ["Nothing is under way."])
    for name, placed in catalog.automations.items() if catalog else ():
        runs = [build for build in ledger.builds.values() if build.spec.automation == name]
        write_lines(story.schedule(name, triggers.due(placed.spec, runs, triggers.Seen(), now()), width=columns()))


def history(
    model: ModelName,
    *,
    environment: Annotated[
        str | None, typer.Option("--environment", "-e", help="Only what happened there.", metavar="NAME")
    ] = None,
    output: Output = Format.TEXT,
    home: Home = None,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
) -> None:
    """What happened to a model: its builds and promotions, the newest first."""
    from reconciler import story

    with _opened(home, kubeconfig, context) as opened:
        ledger = opened.ledger
    builds = [b for b in ledger.builds.values() if b.spec.model == model]
    promotions = [p for p in ledger.promotions if p.spec.model == model]
    if not builds and not promotions:
        known = sorted({b.spec.model for b in ledger.builds.values()} | {p.spec.model for p in ledger.promotions})
        fail(f"nothing is recorded of a model {model!r}; there are: {', '.join(known) or 'none'}", code=1)
    if environment is not None:
        known = sorted({b.spec.environment for b in builds} | {p.spec.environment for p in promotions})
        if environment not in known:
            fail(f"nothing of {model} is recorded in {environment!r}; there are: {', '.join(known)}", code=1)
        builds = [b for b in builds if b.spec.environment == environment]
        promotions = [p for p in promotions if p.spec.environment == environment]
    if output is Format.TEXT:
        write_lines(story.history(builds, promotions, width=columns()))
    else:
        _print_data(story.as_data(builds, promotions), output)


def explain(
    promotion: PromotionName,
    *,
    output: Output = Format.TEXT,
    home: Home = None,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
) -> None:
    """Why a promotion stands where it stands: the verdicts with their evidence, who decided, how far it got."""
    from reconciler import decisions, story

    with _opened(home, kubeconfig, context) as opened:
        ledger = opened.ledger
        found = decisions.find(ledger.promotions, promotion)
    build = ledger.build(found.spec.build)
    if output is not Format.TEXT:
        _print_data(story.as_data([build] if build else [], [found]), output)
        return
    same = [p for p in ledger.promotions if p.spec.build == found.spec.build and p.spec.model == found.spec.model]
    deployed = ledger.build(found.spec.expected_current)
    write_lines(story.explain(found, build, deployed, same, width=columns()))


# -- deciding -------------------------------------------------------------------------------------------------------


def approve(
    promotions: Annotated[list[str], typer.Argument(help="Their names, or how they begin.", metavar="PROMOTION...")],
    *,
    reason: Reason = "",
    home: Home = None,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
) -> None:
    """Lets promotions pass that wait for a person. Who you are is what the cluster says."""
    from reconciler.records import Action

    _decide(Action.APPROVE, promotions, reason=reason, home=home, kubeconfig=kubeconfig, context=context)


def reject(
    promotions: Annotated[list[str], typer.Argument(help="Their names, or how they begin.", metavar="PROMOTION...")],
    *,
    reason: Reason = "",
    home: Home = None,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
) -> None:
    """Ends promotions. What has traffic already gives all of it back; the build is not tried again by itself."""
    from reconciler.records import Action

    _decide(Action.REJECT, promotions, reason=reason, home=home, kubeconfig=kubeconfig, context=context)


def pause(
    promotion: PromotionName,
    *,
    reason: Reason = "",
    home: Home = None,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
) -> None:
    """Stops a canary where it is. A check that fails still takes its traffic back."""
    from reconciler.records import Action

    _decide(Action.PAUSE, [promotion], reason=reason, home=home, kubeconfig=kubeconfig, context=context)


def resume(
    promotion: PromotionName,
    *,
    reason: Reason = "",
    home: Home = None,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
) -> None:
    """Lets a paused canary go on."""
    from reconciler.records import Action

    _decide(Action.RESUME, [promotion], reason=reason, home=home, kubeconfig=kubeconfig, context=context)


def _decide(
    action: Action,
    wanted: list[str],
    *,
    reason: str,
    home: Home,
    kubeconfig: Kubeconfig,
    context: KubeContext,
) -> None:
    from reconciler import decisions, ledger

    with _opened(home, kubeconfig, context) as opened:
        # All of them are looked at before one is decided on: a misspelt name leaves nothing half done.
        found = [decisions.find(opened.ledger.promotions, name) for name in wanted]
        by = ledger.who(opened.writer)
        for name, one in zip(wanted, found, strict=True):
            said = decisions.decision(one, action, name, by=by, reason=reason, now=now())
            ledger.decide(opened.writer, one.identity.name, said)
            write(f"{one.identity.name}: {action.lower()} by {by}\n")


def retry(
    promotion: PromotionName,
    *,
    reason: Reason = "",
    home: Home = None,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
) -> None:
    """Tries a build once more that was rejected or rolled back, from its gate on."""
    from reconciler import decisions, ledger

    with _opened(home, kubeconfig, context) as opened:
        found = decisions.find(opened.ledger.promotions, promotion)
        by = ledger.who(opened.writer)
        request = decisions.retry(opened.ledger, found, by=by, reason=reason, now=now())
        opened.create(request)


def rollback(
    model: ModelName,
    *,
    environment: Annotated[str, typer.Option("--environment", "-e", help="Where.", metavar="NAME")],
    variation: Annotated[str, typer.Option("--variation", help="Which variation.", metavar="NAME")] = "default",
    to: Annotated[
        str, typer.Option("--to", help="A build that was verified there; none: the one before.", metavar="BUILD")
    ] = "",
    reason: Reason = "",
    home: Home = None,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
) -> None:
    """Goes back to a build that was verified there, at once: no gate, no approval, no warehouse is asked."""
    from reconciler import decisions, ledger

    with _opened(home, kubeconfig, context) as opened:
        by = ledger.who(opened.writer)
        place = (environment, model, variation)
        request = decisions.rollback(opened.ledger, place, to, by=by, reason=reason, now=now())
        opened.create(request)


def trigger(
    automation: Annotated[str, typer.Argument(help="Its name.", metavar="AUTOMATION")],
    file: Paths = None,
    *,
    reason: Reason = "",
    home: Home = None,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
    mirror: Mirrors = None,
) -> None:
    """Starts a run of an automation now. The next `reconcile` carries it out."""
    from reconciler import asked, ledger, offline

    loaded = offline.load(paths_of(file))
    with _opened(home, kubeconfig, context, loaded.catalog) as opened:
        by, outside = ledger.who(opened.writer), opened.outside(mirror)
        build = asked.run(loaded.catalog, opened.ledger, automation, outside, by=by, reason=reason, now=now())
        warn(ledger.ensure(opened.writer))
        created = ledger.create(opened.writer, build)
        write(f"build {build.short} of {automation} {'is asked for' if created else 'was asked for already'}\n")


def gate(
    automation: Annotated[str, typer.Argument(help="Its name.", metavar="AUTOMATION")],
    file: Paths = None,
    *,
    build: Annotated[
        str, typer.Option("--build", help="Which build; none: the newest one that succeeded.", metavar="BUILD")
    ] = "",
    environment: Annotated[
        str, typer.Option("--environment", "-e", help="As for a promotion to there.", metavar="NAME")
    ] = "",
    home: Home = None,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
) -> None:
    """Judges a build by an automation's condition, now and without any effect."""
    from reconciler import asked, offline, story
    from reconciler.records import Outcome

    loaded = offline.load(paths_of(file))
    with _opened(home, kubeconfig, context, loaded.catalog) as opened:
        outside = opened.outside()
        found = asked.verdict(
            loaded.catalog, opened.ledger, automation, outside, build=build, to=environment, now=now()
        )
    write_lines(story.verdict(found, "gate", width=columns()))
    raise typer.Exit({Outcome.PASSED: 0, Outcome.ERROR: 3}.get(found.outcome, 4))


def analytics_init(
    file: Paths = None,
    *,
    environment: Annotated[str, typer.Option("--environment", "-e", help="Whose analytics.", metavar="NAME")],
    adopt: Annotated[bool, typer.Option("--adopt", help="Take over what somebody else made.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be made.")] = False,
) -> None:
    """Makes the database, tables, views and workgroup that Athena needs. What is there already stays."""
    from reconciler import analytics, offline
    from reconciler.analytics import AnalyticsError

    loaded = offline.load(paths_of(file))
    placed = loaded.catalog.environments.get(environment)
    if placed is None:
        known = ", ".join(loaded.catalog.environments) or "none"
        fail(f"there is no valid environment {environment!r}; there are: {known}", code=1)
    if placed.spec.analytics.engine != "athena":
        fail(f"{environment} asks {placed.spec.analytics.engine}, for which nothing has to be made", code=1)
    try:
        steps = analytics.init(placed.spec, adopt=adopt, dry_run=dry_run)
    except AnalyticsError as error:
        fail(str(error), code=3)
    would = "would be " if dry_run else ""
    for step in steps:
        done = f"{would}{step.action}" if step.action in ("made", "changed") else step.action
        write(f"{step.what}: {done}{f' ({step.detail})' if step.detail else ''}\n")


# -- the records ----------------------------------------------------------------------------------------------------


class _Opened:
    """The records of the reconciler's own cluster, read once."""

    def __init__(self, clusters: Clusters, planes: Iterable[DataPlane]) -> None:
        from reconciler import ledger

        self.clusters = clusters
        self.writer = clusters.writer(clusters.home_plane(planes))
        self.ledger, troubles = ledger.read(self.writer)
        warn(troubles)

    def outside(self, mirrors: list[str] | None = None) -> Outside:
        """The world beside the clusters."""
        from reconciler.outside import Outside

        return Outside(self.clusters.reader, self.clusters.home, mirrors_of(mirrors))

    def create(self, request: PromotionRequest) -> None:
        """Asks for a promotion. The next `reconcile` carries it out."""
        from reconciler import ledger
        from reconciler.records import Identity, Promotion, promotion_name

        made = Promotion(identity=Identity(name=promotion_name(request)), spec=request)
        created = ledger.create(self.writer, made)
        write(f"{made.identity.name} {'is asked for' if created else 'was asked for already'}\n")


@contextmanager
def _opened(
    home: Path | None, kubeconfig: str | None, context: str | None, catalog: Catalog | None = None
) -> Iterator[_Opened]:
    """The records of the cluster that the specs name; without specs, those of the embedded data plane if it runs
    here, and otherwise those of the kubeconfig's cluster.
    """
    from reconciler import local
    from reconciler.cluster import ApiError, KubeconfigError
    from reconciler.decisions import NotMeantError
    from reconciler.outside import OutsideError
    from reconciler.records import RecordError
    from schemas.environment import DataPlane

    with closing(clusters_of(home, kubeconfig, context)) as clusters:
        if catalog is not None:
            planes = [placed.spec.data_plane for placed in catalog.environments.values()]
        else:
            planes = [DataPlane(type="embedded" if local.pid(clusters.home.absolute()) else "kubernetes")]
        try:
            yield _Opened(clusters, planes)
        except (NotMeantError, RecordError) as error:
            fail(str(error), code=1)
        except KubeconfigError as error:
            hint = "" if kubeconfig else "; or start a data plane on this machine: reconcile up"
            fail(f"{error}{hint}", code=3)
        except (ApiError, OutsideError) as error:
            fail(str(error), code=3)


def _print_data(data: Mapping[str, object], output: Format) -> None:
    from reconciler.report import machine

    write(machine.data(data, output.value))
