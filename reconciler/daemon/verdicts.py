"""What a pass means for each of its models: settled, or looked at again, and when. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from typing import NamedTuple

from reconciler import inventory, plan
from reconciler.plan import Change, Op, Plan
from reconciler.report import Done, Outcome
from renderers.manifest import ObjectId


class Next(StrEnum):
    """When a model is looked at again."""

    SETTLED = "settled"  #: when something happens to it: it is as it should be
    KEPT = "kept"  #: the same, although somebody has changed something of it
    WRITTEN = "written"  #: now, as the server has it by now
    AT_ONCE = "at once"  #: now, as not all was begun: something newer came
    LATER = "later"  #: after a while, which depends on `waits`


class Verdict(NamedTuple):
    """What follows for a model. The rest is of `Agenda.leave`, for what is looked at later.

    `forced`: even if it looks settled then, as the inventory may not say what it should.
    """

    next: Next
    why: str = ""
    waits: bool = False
    held: bool = False
    forced: bool = False


def of(
    waits: Mapping[str, str],
    planned: Plan,
    done: Collection[Done],
    environment: str,
    model_of: Callable[[ObjectId], str],
    *,
    is_whole: bool,
) -> dict[str, Verdict]:
    """By model. `waits`: why each of them cannot be rendered; "" where it can. `is_whole`: nothing has cut it off."""
    outcome = {one.change.id: one for one in done}
    stuck = outcome.get(inventory.object_id_of(environment))
    limits = {guard.message for guard in planned.guards}
    changes: dict[str, list[Change]] = {model: [] for model in waits}
    for change in planned.changes:
        if change.op is not Op.UNCHANGED and (model := model_of(change.id)) in changes:
            changes[model].append(change)
    return {
        model: _verdict(waits[model], theirs, outcome, stuck, limits, is_whole=is_whole)
        for model, theirs in changes.items()
    }


def _verdict(
    waits: str,
    changes: Collection[Change],
    outcome: Mapping[ObjectId, Done],
    stuck: Done | None,
    limits: Collection[str],
    *,
    is_whole: bool,
) -> Verdict:
    open_ = [c for c in changes if not (c.id in outcome and is_done(outcome[c.id]))]
    left = [change for change in open_ if change.held != plan.REPORTED]
    if waits:
        return Verdict(Next.LATER, waits, waits=True, forced=stuck is not None)
    if left:
        is_cut_off = any(change.is_action and change.id not in outcome for change in left)
        return Verdict(Next.AT_ONCE) if is_cut_off else _left(left, outcome, limits)
    if stuck is not None:
        return Verdict(Next.LATER, stuck.message, forced=True)
    if not is_whole:
        return Verdict(Next.AT_ONCE, forced=True)
    if open_:
        return Verdict(Next.KEPT)
    return Verdict(Next.WRITTEN if changes else Next.SETTLED)


def _left(left: Collection[Change], outcome: Mapping[ObjectId, Done], limits: Collection[str]) -> Verdict:
    """Not all of it is done: whoever is waited for, or how it failed, decides when to look again."""
    whys = [(change, outcome.get(change.id)) for change in left]
    failed = [(c, d) for c, d in whys if d is not None and d.outcome in (Outcome.FAILED, Outcome.BLOCKED)]
    refused = [(c, d) for c, d in whys if c.op in (Op.CONFLICT, Op.REFUSED)]
    first, one = (failed or refused or whys)[0]
    why = (one.message if one is not None else "") or first.held or first.reason
    held = any(change.held and change.held in limits for change in left)
    return Verdict(Next.LATER, f"{first.id}: {why}", waits=not (failed or refused), held=held)


def is_done(one: Done) -> bool:
    """Whether an object is as it should be by now."""
    return one.outcome in (Outcome.APPLIED, Outcome.DELETED)
