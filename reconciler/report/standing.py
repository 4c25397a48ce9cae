"""What the reconciler in the cluster says of itself, for people and for programs. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from reconciler.report import ExitCode
from reconciler.report.text import BOLD, CYAN, DIM, GREEN, RED, YELLOW, clean, counted, painted, problems, wrapped
from reconciler.telling.standing import EnvironmentStanding, Limit, Standing, State, lasted

#: What each state looks like (ANSI SGR), and what the command ends with where an environment is in it.
_STATES: dict[State, tuple[int, ExitCode]] = {
    State.SYNCED: (GREEN, ExitCode.FINE),
    State.PROGRESSING: (CYAN, ExitCode.FINE),
    State.DEGRADED: (RED, ExitCode.SPECS),
    State.UNREACHABLE: (RED, ExitCode.WORLD),
    State.SUSPENDED: (DIM, ExitCode.FINE),
    State.BLOCKED: (YELLOW, ExitCode.BLOCKED),
}


def text(standing: Standing, now: datetime, *, width: int, color: bool) -> Iterator[str]:
    """All of it, readable in 80 columns: what is wrong stands above what is fine."""
    if standing.is_stale(now):
        words = f"! the reconciler has not reported for {lasted(standing.age(now))}: it may not run any more"
        yield from wrapped(words, "", width, RED, color=color)
    if standing.source.trouble:
        fetched = standing.source.fetched_at
        since = f" (last fetched {lasted(now - fetched)} ago)" if fetched else ""
        yield from wrapped(f"! source: {clean(standing.source.trouble)}{since}", "", width, RED, color=color)
    yield from wrapped(_headline(standing, now), "", width, BOLD, color=color)
    yield from problems(standing.specs.problems.shown, width=width, color=color)
    yield from _more(standing.specs.problems.more, "      ", "problem")
    longest = max(map(len, standing.environments), default=0)
    for name, environment in standing.environments.items():
        yield from _environment(name, environment, now, longest, width=width, color=color)
    yield from _more(standing.left_out, "", "environment")


def as_data(standing: Standing, now: datetime) -> dict[str, Any]:
    """For programs: all of it, with its age."""
    return {
        "age_seconds": int(standing.age(now).total_seconds()),
        "stale": standing.is_stale(now),
        **standing.as_data(),
    }


def exit_code(standing: Standing, now: datetime) -> ExitCode:
    """The exit code that says how things stand, in the order of urgency of every other command: 1, 3, 4, 0."""
    codes = {_STATES[environment.state][1] for environment in standing.environments.values()}
    codes |= {ExitCode.SPECS} if standing.specs.is_wrong else set()
    codes |= {ExitCode.WORLD} if standing.is_stale(now) or standing.source.trouble else set()
    return next((code for code in (ExitCode.SPECS, ExitCode.WORLD, ExitCode.BLOCKED) if code in codes), ExitCode.FINE)


def approval(environment: str, limit: Limit) -> str:
    """The command that lets the plan pass; "" where nobody can."""
    return f"reconcile approve {limit.approval} -e {environment}" if limit.approval else ""


def _headline(standing: Standing, now: datetime) -> str:
    commit = clean(standing.revision[:12]) or "no commit yet"
    where = f"{clean(standing.branch)} at {commit}" if standing.branch else commit
    parts = [f"{where} (committed {lasted(now - standing.committed_at)} ago)" if standing.committed_at else where]
    parts += [counted(standing.specs.count, "spec")]
    parts += [f"applied {lasted(now - standing.applied_at)} ago"] if standing.applied_at else ["not yet applied whole"]
    leader = f" by {clean(standing.leader)}" if standing.leader else ""
    return f"{', '.join(parts)}; as of {lasted(standing.age(now))} ago{leader}"


def _environment(
    name: str, standing: EnvironmentStanding, now: datetime, longest: int, *, width: int, color: bool
) -> Iterator[str]:
    objects = ", ".join(f"{number} {clean(state)}" for state, number in standing.objects.items() if number)
    words = [clean(standing.revision[:8]), objects or "no objects"]
    last = standing.last_pass
    words += [f"looked at {lasted(now - last.at)} ago in {last.seconds:.1f} s"] if last else []
    state = painted(f"{standing.state:<11}", _STATES[standing.state][0], color)
    title = f"{clean(name):<{longest}}  "
    first, *rest = list(wrapped("  ".join(filter(None, words)), "", width - len(title) - 13, DIM, color=color))
    yield f"{painted(title, BOLD, color)}{state}  {first}"
    yield from (" " * (len(title) + 13) + line for line in rest)
    if standing.trouble:
        yield from wrapped(f"! {clean(standing.trouble)}", "  ", width, RED, color=color)
    for limit in standing.limits.shown:
        yield from _limit(name, limit, width=width, color=color)
    yield from _more(standing.limits.more, "  ", "limit")
    for unsettled in standing.unsettled.shown:
        since = f" (for {lasted(now - unsettled.since)})" if unsettled.since else ""
        yield from wrapped(f"· {clean(unsettled.model)}: {clean(unsettled.why)}{since}", "  ", width, CYAN, color=color)
    yield from _more(standing.unsettled.more, "  ", "model")
    for drift in standing.drift.shown:
        ago = f" ({lasted(now - drift.since)} ago)" if drift.since else ""
        words_of_it = f"~ {clean(drift.object)}: {clean(str(drift))}{ago}"
        yield from wrapped(words_of_it, "  ", width, YELLOW, color=color)
    yield from _more(standing.drift.more, "  ", "drifted object")


def _limit(environment: str, limit: Limit, *, width: int, color: bool) -> Iterator[str]:
    yield from wrapped(f"! {clean(limit.message)}.", "  ", width, RED, color=color)
    if command := approval(environment, limit):
        # On a line of its own, unbroken: it is there to be copied.
        yield f"    If that is meant: {clean(command)}"


def _more(number: int, indent: str, noun: str) -> Iterator[str]:
    if number:
        yield f"{indent}and {counted(number, f'more {noun}')}"
