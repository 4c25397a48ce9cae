"""The status of a promotion: how it is moved on, and how answers are put into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from reconciler.records import ENDS, Gate, Outcome, Phase, PromotionStatus, Verdict
from schemas.automation import DeploymentCondition
from schemas.variation import Check

#: Verdicts of a gate that are kept.
VERDICTS = 10
#: Between two tries of a gate that has failed to answer: doubled each time, from 2 seconds to this.
MOST_BACK_OFF = timedelta(seconds=60)
#: The reason of a verdict that is a person's, where the gate or the checks gave none that lets it pass.
WAIVED = "Waived"
#: Messages hold what other systems say; the cluster takes 8192 characters.
_MESSAGE = 4096


@dataclass(frozen=True, slots=True)
class AskGate:
    """The gate is to be judged."""

    condition: DeploymentCondition
    attempt: int  #: from 1


@dataclass(frozen=True, slots=True)
class AskChecks:
    """The checks of a canary are to be judged."""

    checks: tuple[Check, ...]
    weight: int  #: percent of the variation's own traffic that the new build has
    since: datetime  #: when it got them


class Step(NamedTuple):
    """What comes next of a promotion."""

    status: PromotionStatus
    """To be written, where it differs from the one before."""
    question: AskGate | AskChecks | None = None
    """To be asked; `judged` puts the answer into the status."""
    look_again: datetime | None = None
    """When there is something to decide even if nothing changes until then."""

    @property
    def sentence(self) -> str:
        """What it waits for, or how it ended."""
        return self.status.message


def moved(status: PromotionStatus, phase: Phase, message: str, now: datetime, **changes: Any) -> PromotionStatus:
    """The status in a phase, which began now if it was another one before."""
    since = status.since if phase is status.phase and status.since is not None else now
    return status.model_copy(update={"phase": phase, "message": message[:_MESSAGE], "since": since, **changes})


def ended(
    status: PromotionStatus, phase: Phase, message: str, now: datetime, last_end: datetime | None
) -> PromotionStatus:
    """The status at the end: after all other ends of the place, also where the clock went back meanwhile."""
    at = now if last_end is None else max(now, last_end + timedelta(milliseconds=1))
    return moved(status, phase, message, now, finished_at=at)


def judged(status: PromotionStatus, verdicts: Sequence[Verdict], now: datetime) -> PromotionStatus:
    """The status with what was answered: to the gate (verdicts without a name) or to the checks of a rollout.

    An answer that comes when nobody waits for it any more changes nothing.
    """
    of_gate = tuple(verdict for verdict in verdicts if not verdict.name)
    of_checks = {verdict.name: verdict for verdict in verdicts if verdict.name}
    rollout = status.rollout
    if status.phase in ENDS:
        return status
    if of_gate and rollout is None:
        kept = (*status.gate.verdicts, *of_gate)[-VERDICTS:]
        next_at = now + _back_off(kept) if is_retried(kept[-1]) else None
        gate = Gate(verdicts=kept, first_at=status.gate.first_at or now, next_at=next_at)
        return status.model_copy(update={"gate": gate})
    if of_checks and rollout is not None:
        # Who asks aside may be answered in the step after the one that was asked about.
        begun = rollout.routed_at
        if begun is None or any(verdict.at < begun <= now for verdict in of_checks.values()):
            return status
        checks = tuple(({verdict.name: verdict for verdict in rollout.checks} | of_checks).values())
        asked_at = min(verdict.at for verdict in of_checks.values())
        changed = rollout.model_copy(update={"checks": checks, "checked_at": asked_at})
        return status.model_copy(update={"rollout": changed})
    return status


def is_retried(verdict: Verdict) -> bool:
    """Whether another try may bring another answer."""
    return verdict.outcome is Outcome.ERROR and verdict.retryable


def _back_off(verdicts: Sequence[Verdict]) -> timedelta:
    errors = 0
    for verdict in reversed(verdicts):
        if not is_retried(verdict):
            break
        errors += 1
    return min(timedelta(seconds=2**errors), MOST_BACK_OFF)


# -- words ----------------------------------------------------------------------------------------------------------


def short(build_id: str) -> str:
    """The 8 hex digits that people know a build by."""
    return build_id[:8]


def clock(moment: datetime) -> str:
    """An instant, for people."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def because(reason: str) -> str:
    """A person's reason, as the end of a sentence."""
    return f": {reason}" if reason else ""
