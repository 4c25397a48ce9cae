"""When an automation runs. Pure, and level-based: what has happened is read from its Builds, the newest first of all.

There is no other state, so a reconciler that was away for a month, two at once, or one that is killed between
deciding and writing all come to the same run. Runs that were missed are made up for once, by the newest of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

from reconciler.records import Build, BuildPhase, Cause, Outcome, Verdict
from schemas import cron
from schemas.automation import Automation, GitTrigger, MetricTrigger, ScheduledTrigger
from schemas.base import seconds


class Seen(NamedTuple):
    """What is known of the world, as far as it was asked. All of it may be forgotten, and is asked again then."""

    head: str = ""  #: the newest commit of the branch; "" for unknown
    changed: bool | None = None  #: what was answered to `AskPaths`, for this head and the newest Build
    metric: Verdict | None = None  #: what was answered to the last `AskMetric`; its `at` says to which


class Start(NamedTuple):
    """A run is due: make a Build of it."""

    cause: Cause
    run: str  #: of `renderers.identity.build_id`: "" where the commit alone says which run it is
    replaces: tuple[str, ...] = ()  #: names of the Builds that it puts an end to


class Register(NamedTuple):
    """The automation is new and does not run at once: make a Build of phase Registered, from which it counts."""

    cause: Cause


class AskMetric(NamedTuple):
    """A check is due: judge the metric as of this instant."""

    at: datetime


class AskPaths(NamedTuple):
    """There is a new commit: ask whether one of the paths differs from that of the last run."""

    old: str
    new: str
    paths: tuple[str, ...]


class Wait(NamedTuple):
    """Nothing to do until then; None: until something else happens."""

    until: datetime | None
    why: str  #: one clause, for `reconcile status`


Decision: TypeAlias = Start | Register | AskMetric | AskPaths | Wait


def due(
    automation: Automation, runs: Sequence[Build], seen: Seen, now: datetime, *, suspended: bool = False
) -> Decision:
    """What to do about an automation.

    `runs`: all its Builds, in any order, those that people asked for included. `suspended`: its environment is. An
    automation that is disabled or suspended never runs, and once for all that it missed when it is so no more.
    """
    trigger = automation.trigger
    if not automation.enabled:
        return Wait(None, "it is disabled (enabled: false)")
    if suspended:
        return Wait(None, "its environment is suspended")
    if trigger.git is not None:
        return _of_git(automation, trigger.git, runs, seen, now)
    newest = max((run.spec.cause.at for run in runs), default=None)
    if newest is None:
        return _first(automation, now)
    if newest > now:
        # An instant that had its run must not have another when the clock comes to it again.
        return Wait(newest, f"its newest run is of {_text(newest)}, and the clock says {_text(now)}: it has gone back")
    if trigger.scheduled is not None:
        return _of_schedule(automation, trigger.scheduled, runs, newest, now)
    if trigger.metric is not None:
        return _of_metric(automation, trigger.metric, runs, newest, seen.metric, now=now)
    return Wait(None, f"it runs when a person asks: reconcile trigger {automation.name}")


def run_name(automation: str, at: datetime) -> str:
    """What tells a run from all others, for `renderers.identity.build_id`: "nightly@2026-11-21T03:00:00.000Z"."""
    return f"{automation}@{_text(at, 'milliseconds')}"


def _first(automation: Automation, now: datetime) -> Start | Register:
    if automation.execute_immediately:
        # Without an instant: two reconcilers that see it first have two, and are to make one Build.
        return Start(Cause(kind="Immediate", at=_to_milliseconds(now), reason="it is new"), f"{automation.name}@first")
    return Register(Cause(kind="Registration", at=_to_milliseconds(now), reason="it is new"))


def _of_schedule(
    automation: Automation, trigger: ScheduledTrigger, runs: Sequence[Build], newest: datetime, now: datetime
) -> Start | Wait:
    kind: Literal["Schedule", "Interval"]
    if trigger.cron is not None:
        kind, schedule, zone = "Schedule", f"cron {trigger.cron} {trigger.time_zone}", ZoneInfo(trigger.time_zone)
        fields = cron.parse(trigger.cron)
        at, following = cron.latest_before(fields, newest, now, zone), cron.next_after(fields, now, zone)
    else:
        assert trigger.interval is not None
        kind, schedule = "Interval", f"{trigger.interval} after the last run"
        at, following = _by_interval(_length(trigger.interval), newest, now)
    if at is not None:
        return _start(automation, runs, Cause(kind=kind, at=at, reason=schedule), run_name(automation.name, at))
    if following is None:
        return Wait(None, f"no run: its schedule has no instant that ever comes ({schedule})")
    return Wait(following, f"next run {_text(following)} ({schedule})")


def _length(interval: str) -> timedelta:
    return timedelta(seconds=seconds({"Hourly": "1h", "Daily": "1d", "Weekly": "7d"}.get(interval, interval)))


def _by_interval(length: timedelta, newest: datetime, now: datetime) -> tuple[datetime | None, datetime | None]:
    """The newest instant that was missed, and the next one. Counted from the last run, so that all see the same."""
    missed = (now - newest) // length
    is_writable = length <= datetime.max.replace(tzinfo=UTC) - now
    return newest + missed * length if missed else None, newest + (missed + 1) * length if is_writable else None


def _of_metric(
    automation: Automation,
    trigger: MetricTrigger,
    runs: Sequence[Build],
    newest: datetime,
    verdict: Verdict | None,
    *,
    now: datetime,
) -> Start | AskMetric | Wait:
    fields, utc = cron.parse(trigger.override_cron), ZoneInfo("UTC")
    at, following = cron.latest_before(fields, newest, now, utc), cron.next_after(fields, now, utc)
    then = f"next check {_text(following)}" if following else "no other check"
    then += f" (cron {trigger.override_cron} UTC)"
    if at is None:
        return Wait(following, then)
    answer = verdict if verdict is not None and verdict.at == at else None
    cause = Cause(kind="Metric", at=at, reason=answer.message if answer else "")
    start = _start(automation, runs, cause, run_name(automation.name, at))
    if isinstance(start, Wait):
        return start
    if answer is None:
        return AskMetric(at)
    return start if answer.outcome is Outcome.PASSED else Wait(following, f"{answer.message}; {then}")


def _of_git(
    automation: Automation, trigger: GitTrigger, runs: Sequence[Build], seen: Seen, now: datetime
) -> Start | AskPaths | Wait:
    # By commit, not by clock: one that had its run has no other, also where the branch was set back to it.
    built = sorted((run for run in runs if _is_run(run)), key=lambda run: run.spec.cause.at)
    if not seen.head:
        return Wait(None, "it is not known yet where its branch stands")
    if run := next((run for run in built if run.spec.commit == seen.head), None):
        return Wait(None, f"the newest commit, {seen.head[:12]}, had its run: {run.identity.name}")
    start = _start(automation, runs, Cause(kind="Git", at=_to_milliseconds(now), reason=f"commit {seen.head}"), "")
    paths = _paths(automation, trigger)
    if not built or "" in paths or isinstance(start, Wait):
        return start
    if seen.changed is None:
        return AskPaths(built[-1].spec.commit, seen.head, paths)
    return start if seen.changed else Wait(None, f"commit {seen.head[:12]} changes nothing in {', '.join(paths)}")


def _is_run(run: Build) -> bool:
    return bool(run.spec.commit) and run.status.phase is not BuildPhase.REGISTERED


def _paths(automation: Automation, trigger: GitTrigger) -> tuple[str, ...]:
    """Of the repository; "" is all of it. By default what the model is made of."""
    spec = automation.build_spec
    assert spec is not None, "a batch execution has no branch to watch"
    return trigger.paths or (spec.folder, *spec.dependency_required_folders)


def _start(automation: Automation, runs: Sequence[Build], cause: Cause, run: str) -> Start | Wait:
    """As the policy has it where a run still goes on."""
    going_on = tuple(sorted(run.identity.name for run in runs if not run.is_finished))
    if going_on and automation.concurrency_policy == "Forbid":
        what = f"the run of {_text(cause.at)}" if run else cause.reason
        return Wait(None, f"{what} waits for the end of {', '.join(going_on)} (concurrency_policy: Forbid)")
    return Start(cause, run, going_on if automation.concurrency_policy == "Replace" else ())


def _to_milliseconds(moment: datetime) -> datetime:
    """As a record keeps it: what is read back is what was written."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _text(moment: datetime, precision: Literal["seconds", "milliseconds"] = "seconds") -> str:
    return moment.astimezone(UTC).isoformat(timespec=precision).replace("+00:00", "Z")
