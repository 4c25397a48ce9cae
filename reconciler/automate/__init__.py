"""What builds and promotes itself, one step at a time.

    records, Jobs -> builds -> triggers -> promotions -> verdicts -> records -> what is to be rendered

Each step reads the records and what they are about, decides (`triggers`, `promotion`: pure), and writes what was
decided, each record against the version that it was decided on. Traffic follows in the same pass, because rendering
reads the records. So a crash between any two writes leaves nothing half done: the next step decides again, from the
same records. Questions that take time (SQL, Prometheus, Git) are asked aside, and no step waits for them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from reconciler import asked, ledger, promotion
from reconciler.automate import builds, filing, promotions
from reconciler.automate.desk import Desk
from reconciler.automate.questions import Questions
from reconciler.automate.recall import Recall, recall
from reconciler.cluster import ApiError, Reader, Unavailable, Writer
from reconciler.decisions import NotMeantError
from reconciler.gates import is_static
from reconciler.notify import Egress, Notifier
from reconciler.outside import Outside, OutsideError
from reconciler.promotion import Ledger
from reconciler.records import Promotion, Verdict
from reconciler.report import Told, Trouble
from renderers.catalog import Catalog, Facts, automation_environment, promotion_order
from schemas.environment import DataPlane

__all__ = ["Automator", "Progress", "Recall", "out_of_reach"]


class Progress(NamedTuple):
    """What a step came to. `busy`: something goes on by itself, and another step will find more to do.

    `until`: when the next step has something to do even though nothing happens before; None: never. `records`: as they
    were after the step. `verdicts`: what gates and checks have said in it.
    """

    recall: Recall
    told: tuple[Told, ...] = ()
    trouble: tuple[Trouble, ...] = ()
    busy: bool = False
    until: datetime | None = None
    records: Ledger | None = None
    verdicts: tuple[tuple[Promotion, Verdict], ...] = ()


def out_of_reach(catalog: Catalog, facts: Facts, error: ApiError) -> Progress:
    """Without its records, nobody can say what a promoted variation serves: it is left as it is."""
    why = f"the records are out of reach: {error}"
    order = promotion_order(catalog)
    unclear = {(environment, model): why for environment, model, _ in promotion.places(catalog, order)}
    for automation in catalog.automations.values():
        # Its builds may run elsewhere than they are served.
        unclear[automation_environment(catalog, automation.spec, order), automation.spec.model] = why
    recall = Recall(facts, {}, unclear)
    return Progress(recall, trouble=(Trouble("records", str(error)),), busy=isinstance(error, Unavailable))


@dataclass(slots=True)
class Automator:
    """The steps of a run. `facts` are those that specs need, without records; `home` is where the records are.

    `complete`: all specs are valid. `only`: the environments that the run is about; none: all.
    """

    catalog: Catalog
    facts: Facts
    outside: Outside
    home: DataPlane
    complete: bool = True
    only: frozenset[str] = frozenset()
    questions: Questions = field(default_factory=Questions, init=False)
    _branches: builds.Branches = field(default_factory=builds.Branches, init=False)
    _notifier: Notifier = field(init=False)
    _told: dict[str, str] = field(default_factory=dict, init=False)
    _is_tidied: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._notifier = Notifier(self._secrets, Egress.of(os.environ))

    def is_needed(self, *, sure: bool = False) -> bool:
        """Whether any spec needs records, or there are promotions: records that nobody reads fall behind.

        Where the cluster says nothing of them, there are none; or, to be `sure`, that is raised: an `ApiError`.
        """
        if self.catalog.automations or promotion.places(self.catalog, promotion_order(self.catalog)):
            return True
        try:
            records, _ = ledger.read(self.outside.reader_of(self.home))
        except ApiError:
            if sure:
                raise
            return False
        return bool(records.promotions)

    def look(self, now: datetime, *, ask: bool = True) -> Progress:
        """What the records mean, and what gates would say now, without a step: for a preview. `ask`: ask the gates."""
        desk = self._desk(self.outside.reader_of(self.home))
        verdicts = tuple(self._verdicts(desk, now)) if ask else ()
        return Progress(recall(desk), verdicts, tuple(desk.trouble))

    def tidy_again(self) -> None:
        """Lets the next step make room for new records."""
        self._is_tidied = False

    def recall(self) -> Recall:
        """What the records mean by now."""
        return recall(self._desk(self.outside.reader_of(self.home)))

    def _verdicts(self, desk: Desk, now: datetime) -> Iterator[Told]:
        for name, placed in self.catalog.automations.items():
            condition = placed.spec.deployment_condition
            if condition is not None and condition.threshold is not None and not is_static(condition.threshold):
                try:
                    found = asked.verdict(self.catalog, desk.ledger, name, self.outside, build="", to="", now=now)
                except (NotMeantError, ApiError) as error:
                    yield Told(f"gate of {name}", str(error))
                else:
                    yield Told(f"gate of {name}, asked now", f"{found.outcome}: {found.message}")

    def step(self, writer: Writer, now: datetime) -> Progress:
        """One step. `writer` is that of the home cluster. Raises `ApiError` where the records are out of reach."""
        missing = ledger.ensure(writer)
        desk = self._desk(writer, writer, now)
        desk.trouble += [Trouble("records", words) for words in missing]
        builds.follow(desk)
        builds.start(desk, self._branches)
        promotions.request(desk)
        promotions.advance(desk)
        filing.file(desk)
        filing.notify(desk, self._notifier)
        if not self._is_tidied and not desk.trouble:  # what cannot be read may name what would go
            filing.tidy(desk)
            self._is_tidied = True
        self.questions.forget_unwanted()
        last = {one.where: one for one in desk.told}
        told = tuple(one for one in last.values() if self._told.get(one.where) != one.message)
        self._told |= {one.where: one.message for one in told}
        busy = desk.busy or self.questions.any
        return Progress(recall(desk), told, tuple(desk.trouble), busy, desk.until, desk.ledger, tuple(desk.verdicts))

    def _desk(self, reader: Reader, writer: Writer | None = None, now: datetime | None = None) -> Desk:
        records, troubles = ledger.read(reader)
        return Desk(
            records,
            troubles,
            catalog=self.catalog,
            facts=self.facts,
            outside=self.outside,
            questions=self.questions,
            complete=self.complete,
            only=self.only,
            writer=writer,
            now=now,
        )

    def _secrets(self, environment: str, name: str) -> Mapping[str, bytes]:
        """For the notifier, whose threads end at any other error than this one. Raises `ApiError`."""
        placed = self.catalog.environments.get(environment)
        if placed is None:
            raise ApiError(0, "", f"the environment {environment} has left the specs")
        try:
            return self.outside.secrets(placed.spec, name)
        except OutsideError as error:
            raise ApiError(0, "", str(error)) from None

    def close(self) -> None:
        """Lets messages go out that are under way, and lets go of questions that nobody waits for any more."""
        self.questions.close()
        self._notifier.close()
