"""What verdicts lead to. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from reconciler.records import Outcome, Verdict

#: The worst first. A fault that was seen counts more than one that could not be looked for.
_SEVERITY = (Outcome.REJECTED, Outcome.ERROR, Outcome.INCONCLUSIVE, Outcome.PASSED)

#: Seconds before the second try; doubled for each one after it.
_FIRST_PAUSE = 5
_LONGEST_PAUSE = 300


def worst(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The verdict that decides: the first of those with the worst outcome. None where nothing was judged."""
    return min(verdicts, key=lambda verdict: _SEVERITY.index(verdict.outcome), default=None)


def retry_at(verdicts: Sequence[Verdict], first_at: datetime, timeout_s: float, now: datetime) -> datetime | None:
    """When a gate is asked again, after the last of its verdicts; None: a person has to decide.

    Only an error that another try may mend is tried again, with a pause that doubles, and for the last time when
    `timeout_s` have passed since `first_at`.
    """
    last, deadline = verdicts[-1], first_at + timedelta(seconds=timeout_s)
    if last.outcome is not Outcome.ERROR or not last.retryable or now >= deadline:
        return None
    pause = min(_FIRST_PAUSE * 2 ** min(last.attempt - 1, 16), _LONGEST_PAUSE)
    return min(now + timedelta(seconds=pause), deadline)
