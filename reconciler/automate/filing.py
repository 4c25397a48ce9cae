"""What the records owe others: rows of the model analytics, messages to people, and room for new records."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from functools import partial

from reconciler import notifications, retention
from reconciler.automate.desk import Desk
from reconciler.notify import Notifier
from reconciler.records import Build, Phase, Promotion, object_id_of
from reconciler.report import Trouble
from schemas.environment import Environment

#: In `notified`: the object storage has its row.
_FILED = "analytics"
#: Messages that nobody has got yet are offered so often.
_OFFERED_AGAIN = timedelta(minutes=1)
#: What never began says nothing about a build.
_WORTH_A_ROW = frozenset({Phase.SUCCEEDED, Phase.REJECTED, Phase.ROLLED_BACK})


def file(desk: Desk) -> None:
    """Promotions that have ended become rows of the analytics."""
    for one in desk.ledger.promotions:
        environment = desk.environment(one.spec.environment)
        if one.status.phase in _WORTH_A_ROW and _FILED not in one.status.notified and environment is not None:
            with desk.troubled(f"the analytics row of promotion {one.identity.name}"):
                if desk.questions.ask(("file", one.identity.name), partial(_put, desk, environment, one)):
                    _note(desk, one, _FILED)


def _put(desk: Desk, environment: Environment, one: Promotion) -> bool:
    desk.outside.put_promotion(environment, one)
    return True


def notify(desk: Desk, notifier: Notifier) -> None:
    """Messages that are owed are given to the notifier; what it has delivered is written down."""
    for delivery in desk.deliveries:
        record = _find(desk, delivery.record)
        if record is not None and delivery.key not in record.status.notified:
            with desk.troubled(f"record {record.identity.name}"):
                _note(desk, record, delivery.key)
        if delivery.sentence:
            where = f"a message about {delivery.record.name}"
            desk.trouble.append(Trouble(where, delivery.sentence))
            # Trouble is what a step has left, and this one leaves none: a run that goes on would say nothing of it.
            desk.tell(where, delivery.sentence)
    builds, promotions = list(desk.ledger.builds.values()), desk.ledger.promotions
    for placed in desk.catalog.automations.values():
        owed = notifications.owed(placed.spec, builds, promotions, desk.now)
        if owed:
            notifier.offer(owed)
            desk.wake(desk.now + _OFFERED_AGAIN)  # there may have been no room for it


def tidy(desk: Desk) -> None:
    """Records that nobody needs any more make room."""
    wanted = {pinned.identity.id for pinned in desk.pinned.values()}
    for record in retention.expired(desk.ledger.builds.values(), desk.ledger.promotions, wanted):
        with desk.troubled(f"record {record.identity.name}"):
            desk.forget(record)


def _find(desk: Desk, target: object) -> Build | Promotion | None:
    records: Iterable[Build | Promotion] = (*desk.ledger.builds.values(), *desk.ledger.promotions)
    return next((record for record in records if object_id_of(record) == target), None)


def _note(desk: Desk, record: Build | Promotion, key: str) -> None:
    notified = (*record.status.notified, key)
    if isinstance(record, Build):
        desk.write_build(record, record.status.model_copy(update={"notified": notified}))
    else:
        desk.write_promotion(record, record.status.model_copy(update={"notified": notified}))
