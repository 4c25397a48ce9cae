"""What a person may decide about promotions, as the record that says so. Pure.

Everything names the build id that the person looked at: what was said of one build decides nothing about another.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from difflib import get_close_matches

from reconciler.promotion import Ledger
from reconciler.records import Action, Cause, Decision, Phase, Promotion, PromotionRequest

#: In which phases a decision means something.
_MEANT: dict[Action, frozenset[Phase]] = {
    Action.APPROVE: frozenset({Phase.PENDING, Phase.AWAITING_APPROVAL, Phase.HELD}),
    Action.REJECT: frozenset({Phase.PENDING, Phase.AWAITING_APPROVAL, Phase.HELD, Phase.ROLLING_OUT}),
    Action.PAUSE: frozenset({Phase.ROLLING_OUT}),
    Action.RESUME: frozenset({Phase.ROLLING_OUT}),
}


#: Decisions that may be pauses; a record has room for some more, so that the last word is always possible.
_PAUSES = 16


class NotMeantError(Exception):
    """What was asked for cannot be meant. The sentence says why, and what can."""


def find(promotions: Iterable[Promotion], name: str) -> Promotion:
    """The promotion of this name, or the only one whose name begins with it; of several, the only one that is still
    under way. Raises NotMeantError.
    """
    known = sorted(promotions, key=lambda p: p.identity.name)
    found = [p for p in known if p.identity.name == name] or [p for p in known if p.identity.name.startswith(name)]
    if len(found) > 1:
        found = [p for p in found if not p.is_finished] or found
    if len(found) == 1:
        return found[0]
    unfinished = ", ".join(p.identity.name for p in known if not p.is_finished) or "none"
    if found:
        raise NotMeantError(f"{name!r} may be any of {', '.join(p.identity.name for p in found)}")
    near = get_close_matches(name, [p.identity.name for p in known], 1)
    hint = f", but {near[0]}" if near else ""
    raise NotMeantError(f"there is no promotion {name!r}{hint}; under way are: {unfinished}")


def decision(promotion: Promotion, action: Action, said: str, *, by: str, reason: str, now: datetime) -> Decision:
    """What is added to the promotion. `said` is what the person called it. Raises NotMeantError where it would mean
    nothing.
    """
    name, status = promotion.identity.name, promotion.status
    if action is Action.APPROVE and promotion.spec.build[:8] not in said:
        # Between a person's look and the command, a newer build may have come.
        raise NotMeantError(f"say which build you have looked at, as {name} does")
    if action in (Action.PAUSE, Action.RESUME) and len(promotion.spec.decisions) >= _PAUSES:
        raise NotMeantError(f"{name} was paused and resumed too often; what is left is to approve or to reject it")
    if promotion.is_finished:
        raise NotMeantError(f"{name} has ended: {status.phase}: {status.message}")
    if status.phase not in _MEANT[action]:
        raise NotMeantError(f"{name} is {status.phase}, and there is nothing to {action.lower()}: {status.message}")
    is_paused = status.rollout is not None and status.rollout.paused_at is not None
    if action is Action.RESUME and not is_paused:
        raise NotMeantError(f"{name} is not paused")
    if action is Action.PAUSE and is_paused:
        raise NotMeantError(f"{name} is paused already")
    return Decision(action=action, by=by, at=now, reason=reason, build=promotion.spec.build)


def rollback(
    ledger: Ledger, place: tuple[str, str, str], to: str, *, by: str, reason: str, now: datetime
) -> PromotionRequest:
    """A promotion back to the build before, or to the one whose id begins with `to`. Raises NotMeantError.

    `place` is (environment, model, variation). Only a build that was verified there is gone back to: its Deployment
    is known to have served.
    """
    environment, model, variation = place
    where = f"{model}, variation {variation}, in {environment}"
    current = ledger.current(place)
    if not current:
        raise NotMeantError(f"no promotion of {where} has succeeded yet, so there is nothing to go back to")
    served = [p for p in ledger.promotions if p.place == place and p.status.phase is Phase.SUCCEEDED]
    served.sort(key=lambda p: (p.status.finished_at or p.spec.cause.at, p.identity.name), reverse=True)
    # What the first promotion replaced had served, too.
    known = (build for p in served for build in (p.spec.build, p.spec.expected_current))
    before = [build for build in dict.fromkeys(known) if build not in ("", current)]
    if to:
        before = [build for build in before if build.startswith(to)]
        if len(before) > 1:
            raise NotMeantError(f"build {to} may be any of {', '.join(build[:8] for build in before)}")
    else:
        before = [build for build in before if ledger.quarantined(build, place) is None]
    if not before:
        wanted = f"build {to}" if to else "no build but the current one"
        raise NotMeantError(f"{where}: {wanted} {'was never' if to else 'was'} verified there")
    attempt = ledger.next_attempt(before[0], place)
    return PromotionRequest(
        model=model,
        variation=variation,
        environment=environment,
        build=before[0],
        expected_current=current,
        kind="Rollback",
        attempt=attempt,
        cause=Cause(kind="Manual", at=now, by=by, reason=reason),
    )


def retry(ledger: Ledger, promotion: Promotion, *, by: str, reason: str, now: datetime) -> PromotionRequest:
    """The same build once more, although it was rejected or rolled back. Raises NotMeantError."""
    spec, place = promotion.spec, promotion.place
    if ledger.quarantined(spec.build, place) is None:
        raise NotMeantError(f"{promotion.identity.name} is {promotion.status.phase}, and needs no other attempt")
    attempt = ledger.next_attempt(spec.build, place)
    return spec.model_copy(
        update={
            "kind": "Promote",
            "attempt": attempt,
            "expected_current": ledger.current(place),
            "decisions": (),
            "cause": Cause(kind="Manual", at=now, by=by, reason=reason),
        }
    )
