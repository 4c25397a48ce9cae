"""Commands about what was recorded: builds and promotions, looked at and decided on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli.common import (
    DataFormat,
    DataOutput,
    Home,
    Kubeconfig,
    KubeContext,
    Mirrors,
    Paths,
    colors,
    columns,
    epilog,
    fail,
    now,
    paths_of,
    warn,
    write,
    write_lines,
)
from reconciler.cli.opened import clusters_opened, home_plane, records_opened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reconciler.cluster import Reader, Writer
    from reconciler.inventory import Approved
    from reconciler.records import Action
    from reconciler.telling.standing import Standing

Reason = Annotated[str, typer.Option("--reason", "-m", help="Why; it is kept with the decision.", metavar="TEXT")]
PromotionName = Annotated[
    str, typer.Argument(help="Its name, or how it begins: as `reconcile status` shows it.", metavar="PROMOTION")
]
ModelName = Annotated[str, typer.Argument(help="The model.", metavar="MODEL")]
AutomationName = Annotated[str, typer.Argument(help="Its name.", metavar="AUTOMATION")]

_TRIES = 5  # of an approval, while the reconciler writes the same inventory
_CODES = "0 done, 1 it means nothing (the sentence says why), 3 the cluster is in the way"


def register(app: typer.Typer) -> None:
    """Adds these commands."""
    app.command(
        epilog=epilog(
            "reconcile status",
            "reconcile status -f specs/      and when automations run",
            "reconcile status -o json | jq '.standing.environments[].state'",
            codes="0 as the specs ask for, or under way; 1 specs are wrong, or something has failed; 3 the world is "
            "(cluster, git), or the reconciler does not report; 4 blocked until a person approves",
        )
    )(status)
    app.command(epilog=_looking("reconcile history churn", "reconcile history churn -o json | jq '.promotions[0]'"))(
        history
    )
    app.command(
        epilog=epilog(
            "reconcile approve churn.default.production.1a2b3c4d-1 -m 'seen in staging for a week'",
            "reconcile approve 3f9a1c2e77aa -e production             a plan that ran into a limit",
            codes=_CODES,
        )
    )(approve)
    for command, example in (
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
    output: DataOutput = DataFormat.TEXT,
    home: Home = None,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
) -> None:
    """How the reconciler in the cluster stands, and what is under way: builds, promotions, what each waits for.

    With -f: also when automations run. Of the embedded data plane: also where predictions are asked for.
    """
    from reconciler import offline, story, triggers, world
    from reconciler.report import ExitCode
    from reconciler.report import standing as report

    catalog = offline.load(tuple(file)).catalog if file else None
    with records_opened(home, kubeconfig, context, catalog) as opened:
        ledger, standing = opened.ledger, _standing(opened.writer)
        # Of a cluster, that would be every route of every namespace.
        asked = world.all_asked(opened.writer) if opened.plane.type == "embedded" and kubeconfig is None else []
    code = report.exit_code(standing, now()) if standing else ExitCode.FINE
    builds = [build for build in ledger.builds.values() if not build.is_finished]
    promotions = [promotion for promotion in ledger.promotions if not promotion.is_finished]
    if output is not DataFormat.TEXT:
        found = report.as_data(standing, now()) if standing else None
        predictions = [one._asdict() for one in asked]
        _print_data({"standing": found, "predictions": predictions, **story.as_data(builds, promotions)}, output)
        raise typer.Exit(int(code))
    if standing:
        write_lines([*report.text(standing, now(), width=columns(), color=colors(sys.stdout)), ""])
    if asked:
        write_lines([*story.predictions(asked), ""])
    lines = list(story.under_way(builds, promotions, width=columns()))
    write_lines(lines or ["Nothing is under way."])
    for name, placed in catalog.automations.items() if catalog else ():
        runs = [build for build in ledger.builds.values() if build.spec.automation == name]
        write_lines(story.schedule(name, triggers.due(placed.spec, runs, triggers.Seen(), now()), width=columns()))
    raise typer.Exit(int(code))


def _standing(reader: Reader) -> Standing | None:
    """What the reconciler in the cluster says of itself; None where none has said anything, or it may not be read."""
    from reconciler.cluster import Forbidden
    from reconciler.telling import standing

    try:
        body = reader.get(standing.OBJECT)
        return standing.from_config_map(body) if body else None
    except (Forbidden, standing.StandingError) as error:
        warn([str(error)])
        return None


def history(
    model: ModelName,
    *,
    environment: Annotated[
        str | None, typer.Option("--environment", "-e", help="Only what happened there.", metavar="NAME")
    ] = None,
    output: DataOutput = DataFormat.TEXT,
    home: Home = None,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
) -> None:
    """What happened to a model: its builds and promotions, the newest first."""
    from reconciler import story

    with records_opened(home, kubeconfig, context) as opened:
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
    if output is DataFormat.TEXT:
        write_lines(story.history(builds, promotions, width=columns()))
    else:
        _print_data(story.as_data(builds, promotions), output)


def explain(
    promotion: str,
    *,
    output: DataFormat,
    home: Path | None,
    kubeconfig: str | None,
    context: str | None,
    otherwise: str,
) -> None:
    """Why a promotion stands where it stands: the verdicts with their evidence, who decided, how far it got.

    `otherwise`: why the name is none of anything else that can be explained.
    """
    from reconciler import decisions, story

    with records_opened(home, kubeconfig, context, otherwise=otherwise) as opened:
        ledger = opened.ledger
        found = decisions.find(ledger.promotions, promotion)
    build = ledger.build(found.spec.build)
    if output is not DataFormat.TEXT:
        _print_data(story.as_data([build] if build else [], [found]), output)
        return
    same = [p for p in ledger.promotions if p.spec.build == found.spec.build and p.spec.model == found.spec.model]
    deployed = ledger.build(found.spec.expected_current)
    write_lines(story.explain(found, build, deployed, same, width=columns()))


# -- deciding -------------------------------------------------------------------------------------------------------


def approve(
    promotions: Annotated[
        list[str],
        typer.Argument(help="Their names, or how they begin; with -e, the id of a plan.", metavar="NAME..."),
    ],
    *,
    environment: Annotated[
        str | None,
        typer.Option("--environment", "-e", help="Let a plan of this environment pass its limits.", metavar="NAME"),
    ] = None,
    file: Paths = None,
    reason: Reason = "",
    home: Home = None,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
) -> None:
    """Lets promotions pass that wait for a person. Who you are is what the cluster says.

    With -e: lets the plan pass that ran into a limit, as `reconcile status` shows it, once. The environment's cluster
    is the one that -f says; without it, the one where the records are.
    """
    from reconciler import inventory
    from reconciler.records import Action

    if environment is not None:
        _approve_plan(promotions, environment, file, reason=reason, home=home, kubeconfig=kubeconfig, context=context)
        return
    for name in promotions:
        if inventory.is_approval(name):
            fail(f"{name} is the id of a plan: say of which environment, by -e NAME", code=1)
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

    with records_opened(home, kubeconfig, context) as opened:
        # All of them are looked at before one is decided on: a misspelt name leaves nothing half done.
        found = [decisions.find(opened.ledger.promotions, name) for name in wanted]
        by = ledger.who(opened.writer)
        for name, one in zip(wanted, found, strict=True):
            said = decisions.decision(one, action, name, by=by, reason=reason, now=now())
            ledger.decide(opened.writer, one.identity.name, said)
            write(f"{one.identity.name}: {action.lower()} by {by}\n")


def _approve_plan(
    ids: list[str],
    environment: str,
    file: list[Path] | None,
    *,
    reason: str,
    home: Home,
    kubeconfig: Kubeconfig,
    context: KubeContext,
) -> None:
    from reconciler import inventory, ledger, offline
    from reconciler.inventory import Approved
    from reconciler.records import NAMESPACE

    if len(ids) != 1 or not inventory.is_approval(ids[0]):
        fail(f"{', '.join(ids)}: not the id of one plan, which has 12 hex digits: see reconcile status", code=1)
    catalog = offline.load(tuple(file)).catalog if file else None
    placed = catalog.environments.get(environment) if catalog else None
    if catalog and placed is None:
        known = ", ".join(catalog.environments) or "none"
        fail(f"there is no valid environment {environment!r}; there are: {known}", code=1)
    with clusters_opened(home, kubeconfig, context) as clusters:
        at_home = home_plane(clusters, catalog)
        if refusal := _refusal(_standing(clusters.reader(at_home)), environment, ids[0]):
            fail(refusal, code=1)
        writer = clusters.writer(placed.spec.data_plane if placed else at_home)
        said = Approved(ids[0], ledger.who(writer))
        if not _write_approval(writer, environment, said, reason):
            hint = "" if file else "; if it is in another cluster, name that by -f or --kubeconfig"
            name = f"{NAMESPACE}/{inventory.name_of(environment)}"
            fail(f"no environment {environment!r} is in this cluster: it has no ConfigMap {name}{hint}", code=1)
    write(f"{environment}: plan {said.id} is approved by {said.by}\n")


def _refusal(standing: Standing | None, environment: str, wanted: str) -> str:
    """Why an approval would lift nothing, as far as the reconciler has said lately; "" where it may."""
    from reconciler.telling.standing import lasted

    if standing is None or standing.is_stale(now()) or environment not in standing.environments:
        return ""
    limits = standing.environments[environment].limits
    waiting = list(dict.fromkeys(limit.approval for limit in limits.shown if limit.approval))
    if wanted in waiting or limits.more:  # of a list that was cut, nobody knows
        return ""
    ago = f"as of {lasted(standing.age(now()))} ago"
    there = f"what waits is {', '.join(waiting)}" if waiting else "nothing waits for an approval"
    return f"{wanted}: no plan of {environment} that waits has this id; {ago}, {there}"


def _write_approval(writer: Writer, environment: str, said: Approved, reason: str) -> bool:
    """Writes it into the inventory as it is now; False where there is none. Raises `ApiError`."""
    from reconciler import inventory
    from reconciler.cluster import Stale, Unavailable

    for left in reversed(range(_TRIES)):
        live = writer.get(inventory.object_id_of(environment))
        if live is None:
            return False
        if inventory.approved_in(live) == said:
            return True
        try:
            writer.update(inventory.with_approval(live, said, reason))
        except (Stale, Unavailable):  # of an answer that was lost, reading again tells
            if not left:
                raise
    return True


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

    with records_opened(home, kubeconfig, context) as opened:
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

    with records_opened(home, kubeconfig, context) as opened:
        by = ledger.who(opened.writer)
        place = (environment, model, variation)
        request = decisions.rollback(opened.ledger, place, to, by=by, reason=reason, now=now())
        opened.create(request)


def trigger(
    automation: AutomationName,
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
    with records_opened(home, kubeconfig, context, loaded.catalog) as opened:
        by, outside = ledger.who(opened.writer), opened.outside(mirror)
        build = asked.run(loaded.catalog, opened.ledger, automation, outside, by=by, reason=reason, now=now())
        warn(ledger.ensure(opened.writer))
        created = ledger.create(opened.writer, build)
        write(f"build {build.short} of {automation} {'is asked for' if created else 'was asked for already'}\n")


def gate(
    automation: AutomationName,
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
    with records_opened(home, kubeconfig, context, loaded.catalog) as opened:
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


# -- printing ----------------------------------------------------------------------------------------------------------


def _print_data(data: Mapping[str, object], output: DataFormat) -> None:
    from reconciler.report import machine

    write(machine.data(data, output.value))
