"""What happened to a model, and why: the records as text, readable in 80 columns. Pure.

`history` is a line for each build and promotion; `explain` is one promotion with all the evidence that it was decided
on; `status` is what automations and promotions wait for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from textwrap import wrap

from reconciler import triggers
from reconciler.records import Build, BuildPhase, Cause, Promotion, Verdict
from reconciler.report.text import clean

#: How many of a build's metrics a line of the history has room for.
_METRICS = 3


def history(builds: Iterable[Build], promotions: Iterable[Promotion], *, width: int) -> Iterator[str]:
    """All that happened, the newest first."""
    happened = [(_moment(b.status.finished_at, b.spec.cause.at), _build_line(b)) for b in builds]
    happened += [(_moment(p.status.since, p.spec.cause.at), _promotion_line(p)) for p in promotions]
    for at, (title, detail) in sorted(happened, key=lambda one: one[0], reverse=True):
        yield f"{at:%Y-%m-%d %H:%M:%S}  {clean(title)}"
        yield from _indented(detail, "    ", width)


def explain(
    promotion: Promotion, build: Build | None, deployed: Build | None, others: Sequence[Promotion], *, width: int
) -> Iterator[str]:
    """One promotion: what was asked for, what was judged and on what evidence, who decided, how far it got.

    `deployed` is the build that was served when it was asked for; `others` the promotions of the same build.
    """
    spec, status = promotion.spec, promotion.status
    yield f"{clean(promotion.identity.name)}: {status.phase}"
    yield from _indented(status.message, "  ", width)
    yield ""
    what = "rollback" if spec.kind == "Rollback" else "promotion"
    yield f"  {what} of {clean(spec.model)} in {clean(spec.environment)}, variation {clean(spec.variation)}"
    yield from _indented(f"build {_build_words(spec.build, build)}", "  ", width)
    before = f"build {_build_words(spec.expected_current, deployed)}" if spec.expected_current else "nothing"
    yield from _indented(f"in place of {before}", "  ", width)
    by_itself = spec.cause.reason if spec.cause.kind == "Spec" else ""
    yield from _indented(by_itself or f"asked for {_cause_words(spec.cause)}", "  ", width)
    for one in status.gate.verdicts:
        yield ""
        yield from verdict(one, "gate", width=width)
    if status.approval is not None:
        yield ""
        yield from _indented(
            f"approved by {status.approval.by} at {_at(status.approval.at)}{_quoted(status.approval.reason)}",
            "  ",
            width,
        )
    for decision in spec.decisions:
        words = f"{decision.action.lower()} by {decision.by} at {_at(decision.at)}{_quoted(decision.reason)}"
        other = "" if decision.build == spec.build else f", about build {decision.build[:8]}: it decides nothing here"
        yield from _indented(f"said: {words}{other}", "  ", width)
    if status.rollout is not None:
        rollout = status.rollout
        yield ""
        where = "before its first step" if rollout.step < 0 else f"at step {rollout.step + 1}"
        routed = f", in effect since {_at(rollout.routed_at)}" if rollout.routed_at else ""
        paused = f", paused since {_at(rollout.paused_at)}" if rollout.paused_at else ""
        yield from _indented(
            f"rollout: began at {_at(rollout.began_at)}, {where}, {rollout.weight} % of the traffic{routed}{paused}",
            "  ",
            width,
        )
        for one in rollout.checks:
            yield from verdict(one, f"check {one.name}", width=width)
    elsewhere = [p for p in others if p.identity.name != promotion.identity.name]
    if elsewhere:
        yield ""
        yield "  the same build elsewhere:"
        yield from (f"    {clean(one.identity.name)}: {one.status.phase}" for one in elsewhere)


def verdict(verdict: Verdict, title: str, *, width: int) -> Iterator[str]:
    """One judgement with its evidence."""
    also = ", without effect (dry_run)" if verdict.dry_run else ""
    attempt = f", attempt {verdict.attempt}" if verdict.attempt > 1 else ""
    yield from _indented(
        f"{title}: {verdict.outcome} ({verdict.reason}){also}{attempt} at {_at(verdict.at)}", "  ", width
    )
    yield from _indented(verdict.message, "    ", width)
    if verdict.query:
        yield from _indented(verdict.query.strip(), "      | ", width)
        given = ", ".join(f":{name} = {value}" for name, value in sorted(verdict.parameters.items()))
        yield from _indented(f"with {given}" if given else "", "      ", width)
        answer = f"answered ({', '.join(verdict.row)})" if verdict.row else "no answer"
        yield from _indented(
            f"{verdict.engine}: {answer} in {verdict.duration_ms} ms; sha256 {verdict.query_sha256[:16]}",
            "      ",
            width,
        )


def under_way(builds: Iterable[Build], promotions: Iterable[Promotion], *, width: int) -> Iterator[str]:
    """What has not come to an end, and what each waits for."""
    for build in sorted(builds, key=lambda b: b.spec.cause.at):
        title, detail = _build_line(build)
        yield clean(title)
        yield from _indented(detail, "    ", width)
    for promotion in sorted(promotions, key=lambda p: p.identity.name):
        yield f"{clean(promotion.identity.name)}: {promotion.status.phase}"
        yield from _indented(promotion.status.message, "    ", width)


def schedule(name: str, decision: triggers.Decision, *, width: int) -> Iterator[str]:
    """When an automation runs, as far as its records alone tell."""
    words = {
        triggers.Start: "it is due; the next reconcile starts it",
        triggers.Register: "it is new; the next reconcile registers it",
        triggers.AskMetric: "its metric is due to be looked at",
        triggers.AskPaths: "there is a new commit to look at",
    }
    why = decision.why if isinstance(decision, triggers.Wait) else words[type(decision)]
    yield from _indented(f"automation {name}: {why}", "", width)


def predictions(asked: Iterable[tuple[str, str, str, str]]) -> Iterator[str]:
    """Where each model of each environment is asked: (environment, model, URL, header Host or "")."""
    rows = [(clean(environment), clean(model), clean(url), clean(host)) for environment, model, url, host in asked]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    yield "Predictions:"
    for environment, model, url, host in rows:
        yield f"  {environment:{first}}  {model:{second}}  {url}{f'  with the header Host: {host}' if host else ''}"


def as_data(builds: Iterable[Build], promotions: Iterable[Promotion]) -> Mapping[str, Sequence[Mapping[str, object]]]:
    """For programs: the records as they are, without what only the cluster needs."""
    return {
        "builds": [{"name": b.identity.name, **b.model_dump(mode="json", exclude={"identity"})} for b in builds],
        "promotions": [
            {"name": p.identity.name, **p.model_dump(mode="json", exclude={"identity"})} for p in promotions
        ],
    }


# -- words ----------------------------------------------------------------------------------------------------------


def _build_line(build: Build) -> tuple[str, str]:
    spec, status = build.spec, build.status
    whose = f" of {spec.automation}" if spec.automation else ""
    if status.phase is BuildPhase.REGISTERED:
        return f"automation {spec.automation} registered", "its schedule counts from here"
    what = "batch" if spec.action == "Batch" else "build"
    if status.failure is not None:
        detail = f"{status.failure.step}: {status.failure.message}".removeprefix(": ")
    else:
        shown = [f"{name} {value}" for name, value in list(status.metrics.items())[:_METRICS]]
        detail = ", ".join(shown + (["..."] if len(status.metrics) > _METRICS else []))
    asked = f"asked for {_cause_words(spec.cause)}" if spec.automation else ""
    return f"{what} {build.short}{whose}: {status.phase}", "; ".join(filter(None, (detail, asked)))


def _promotion_line(promotion: Promotion) -> tuple[str, str]:
    spec = promotion.spec
    arrow = f"{spec.expected_current[:8]} -> {spec.build[:8]}" if spec.expected_current else spec.build[:8]
    verb = "rollback" if spec.kind == "Rollback" else "promotion"
    title = f"{verb} {arrow} in {spec.environment}/{spec.variation}: {promotion.status.phase}"
    return title, f"{promotion.status.message} ({promotion.identity.name})"


def _build_words(build_id: str, build: Build | None) -> str:
    if build is None:
        return build_id[:8]
    whose = f" of automation {build.spec.automation}" if build.spec.automation else ""
    commit = f", commit {build.spec.commit[:12]}" if build.spec.commit else ""
    ended = f", finished at {_at(build.status.finished_at)}" if build.status.finished_at else ""
    return f"{build_id[:8]}{whose}{commit}{ended}"


def _cause_words(cause: Cause) -> str:
    who = f" by {cause.by}" if cause.by else ""
    how = {
        "Spec": "by its spec",
        "Schedule": "by its schedule",
        "Interval": "by its interval",
        "Metric": "by its metric",
        "Git": "by a new commit",
        "Manual": f"by a person{who}" if not cause.by else who.strip(),
        "Immediate": "at once",
        "Registration": "as it was new",
    }[cause.kind]
    return f"{how} at {_at(cause.at)}{_quoted(cause.reason)}"


def _quoted(reason: str) -> str:
    return f": {reason}" if reason else ""


def _at(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _moment(*moments: datetime | None) -> datetime:
    return next(moment for moment in moments if moment is not None).astimezone(UTC)


def _indented(text: str, indent: str, width: int) -> Iterator[str]:
    for line in text.splitlines():
        yield from wrap(
            clean(line),
            max(width, 40),
            initial_indent=indent,
            subsequent_indent=indent,
            break_on_hyphens=False,
            break_long_words=False,
        )
