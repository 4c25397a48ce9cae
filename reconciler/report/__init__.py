"""What a run tells: problems of the specs, the plan, what was done, and the exit code. Pure.

`text` is for people, `machine` for programs (JSON, YAML); both show the same `Report`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from reconciler.plan import Change, Op, Plan
from renderers.manifest import Origin
from schemas.problem import Problem


class Outcome(StrEnum):
    """What became of one change."""

    APPLIED = "applied"
    DELETED = "deleted"
    FAILED = "failed"  #: the cluster refused it, or it will never be ready
    BLOCKED = "blocked"  #: left alone, because of something else that failed, or somebody else's fields
    WAITING = "waiting"  #: not yet; the next run goes on


@dataclass(frozen=True, slots=True)
class Done:
    """A change, and what became of it. `infrastructure`: no spec could mend it; the cluster is in the way."""

    change: Change
    outcome: Outcome
    message: str = ""
    infrastructure: bool = False


@dataclass(frozen=True, slots=True)
class Trouble:
    """The world is in the way: a cluster, a repository or a file that cannot be read. `where`: which."""

    where: str
    message: str


@dataclass(frozen=True, slots=True)
class Told:
    """Something that went on by itself: a build, a promotion. `where`: which."""

    where: str
    message: str


class Topic(StrEnum):
    """What a sentence about a change of the specs is about, in order of importance: where room is short, it counts."""

    UNREAD = "unread"  #: nobody can say what becomes of it: its specs are wrong
    REMOVED = "removed"  #: somebody's predictions, a model or an environment go
    TRAFFIC = "traffic"  #: who gets which variation, and how a canary walks
    GATE = "gate"  #: what a new build has to reach before it is promoted, and who is asked
    BUILD = "build"  #: what is built, from what
    ENVIRONMENT = "environment"
    AUTOMATION = "automation"  #: when something is built by itself
    SERVING = "serving"  #: pods, resources, variables
    SCALING = "scaling"
    AUDIENCE = "audience"


@dataclass(frozen=True, slots=True)
class Effect:
    """What a change of the specs does, in a sentence without environment and model, which stand before it.

    `environment` and `model` are "" where it is about none, or about all. `origin` is the spec that asks for it now;
    None where a spec is gone.
    """

    environment: str
    model: str
    topic: Topic
    text: str
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Base:
    """The commit that the specs are compared with, instead of a cluster.

    `ref` is what was asked for, `commit` where the two histories parted (40 hex digits; "": the files as they were in
    the beginning). `files` are the spec files that differ. `problems` are the errors of the base itself: what is broken
    there is compared as if it were not there.
    """

    ref: str
    commit: str
    files: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


class ExitCode(IntEnum):
    """What the process ends with. When several are true, the first of this order of urgency: 1, 3, 4, 2, 0."""

    FINE = 0
    SPECS = 1
    CHANGES = 2
    WORLD = 3
    BLOCKED = 4
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a run found and did. `plan` is None where there was nothing to plan from.

    `overdue`: the run waited for what it had applied and what goes on by itself, and not all of it ended in time.
    `told`: how builds and promotions moved on. `base` and `effects`: where specs are compared with those of another
    commit, with which, and what the change does; the plan then is of what differs, as if the base were what runs.
    `specs` are all that were found valid, whether something is planned for them or not.
    """

    problems: tuple[Problem, ...] = ()
    plan: Plan | None = None
    done: tuple[Done, ...] = ()
    trouble: tuple[Trouble, ...] = ()
    overdue: bool = False
    told: tuple[Told, ...] = ()
    base: Base | None = None
    effects: tuple[Effect, ...] = ()
    specs: tuple[Origin, ...] = ()


def exit_code(report: Report, *, detailed: bool = False) -> ExitCode:
    """The exit code of a run; `detailed` tells changes that are still to be made from none."""
    changes = report.plan.changes if report.plan else ()
    outcomes = report.done
    refused = [change for change in changes if change.op is Op.REFUSED]
    if any(problem.severity == "error" for problem in report.problems) or not all(c.infrastructure for c in refused):
        return ExitCode.SPECS
    if any(done.outcome is Outcome.FAILED and not done.infrastructure for done in outcomes):
        return ExitCode.SPECS
    if report.trouble or refused or report.overdue or any(done.outcome is Outcome.FAILED for done in outcomes):
        return ExitCode.WORLD
    if report.plan and report.plan.guards:
        return ExitCode.BLOCKED
    if any(change.op is Op.CONFLICT for change in changes) or any(o.outcome is Outcome.BLOCKED for o in outcomes):
        return ExitCode.BLOCKED
    settled = {done.change.id for done in outcomes if done.outcome in (Outcome.APPLIED, Outcome.DELETED)}
    undone = report.plan is not None and any(change.id not in settled for change in report.plan.actions)
    # A gate, and what an automation has promoted, are in no manifest of a preview; their change is one.
    if detailed and (undone or report.effects):
        return ExitCode.CHANGES
    return ExitCode.FINE
