"""What builds and promotes itself, one step at a time.

    records, Jobs -> builds -> triggers -> promotions -> verdicts -> records -> what is to be rendered

Each step takes models one by one, as nothing that is decided about one depends on another. It reads the records and
what they are about, decides (`triggers`, `promotion`: pure), and writes what was decided, each record against the
version that it was decided on. Traffic follows in the same pass, because rendering
reads the records. So a crash between any two writes leaves nothing half done: the next step decides again, from the
same records. Questions that take time (SQL, Prometheus, Git) are asked aside, and no step waits for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from reconciler import asked, ledger, promotion
from reconciler.automate import builds, filing, promotions
from reconciler.automate.archive import Archive
from reconciler.automate.desk import Desk
from reconciler.automate.questions import Asker, Questions
from reconciler.automate.recall import Recall, Recalls, recall
from reconciler.cluster import ApiError, Reader, Unavailable, Writer
from reconciler.decisions import NotMeantError
from reconciler.gates import is_static
from reconciler.notify import Delivery, Egress, Notifier
from reconciler.outside import Outside, OutsideError
from reconciler.records import Promotion, Verdict
from reconciler.report import Told, Trouble
from reconciler.telling.logs import Log
from renderers.catalog import Catalog, Facts, Placed, automation_environment, promotion_order
from renderers.manifest import ObjectId
from schemas.automation import Automation
from schemas.build import Build
from schemas.environment import DataPlane, Environment
from schemas.variation import Variation

__all__ = ["Automator", "Progress", "Recall", "Standing", "out_of_reach"]

log = Log(__name__)

K = TypeVar("K")
S = TypeVar("S", Automation, Build, Variation)


class Progress(NamedTuple):
    """What a step came to. `busy`: something goes on by itself, and another step will find more to do.

    `until`: when the next step has something to do even though nothing happens before; None: never. Those, `recall` and
    `trouble` are of all models. `told` and `verdicts` (what gates and checks have said) are of this step, which was
    about `models`. `builds` and `promotions` count the records after it, by phase, and by environment and phase; None:
    nobody knows.
    """

    recall: Recall
    models: frozenset[str] = frozenset()
    told: tuple[Told, ...] = ()
    trouble: tuple[Trouble, ...] = ()
    busy: bool = False
    until: datetime | None = None
    verdicts: tuple[tuple[Promotion, Verdict], ...] = ()
    builds: Mapping[str, int] | None = None
    promotions: Mapping[str, Mapping[str, int]] = MappingProxyType({})


class Standing(NamedTuple):
    """Where a model stands after its step, in the words of `Progress`.

    `is_still`: before `until`, a step has nothing to do unless something happens to its Jobs, pods, routes or records.
    """

    trouble: tuple[Trouble, ...] = ()
    busy: bool = False
    until: datetime | None = None
    is_still: bool = True


class _End(NamedTuple):
    """What is left of a desk after its step."""

    recall: Recall
    standing: Standing
    told: Sequence[Told]
    verdicts: Sequence[tuple[Promotion, Verdict]]


def _end(desk: Desk) -> _End:
    recalled = recall(desk)  # which may find trouble
    return _End(
        recalled,
        Standing(tuple(desk.trouble), desk.moves or desk.holds, desk.until, not desk.moves),
        desk.told,
        desk.verdicts,
    )


def out_of_reach(catalog: Catalog, facts: Facts, error: ApiError) -> Progress:
    """Without its records, nobody can say what a promoted variation serves: it is left as it is."""
    unclear = _unclear(catalog, promotion_order(catalog), f"the records are out of reach: {error}")
    recall = Recall(facts, {}, unclear)
    return Progress(recall, trouble=(Trouble("records", str(error)),), busy=isinstance(error, Unavailable))


def _unclear(catalog: Catalog, order: Sequence[str], why: str) -> dict[tuple[str, str], str]:
    """Where nobody can say what a promoted variation serves."""
    unclear = {(environment, model): why for environment, model, _ in promotion.places(catalog, order)}
    for automation in catalog.automations.values():
        # Its builds may run elsewhere than they are served.
        unclear[automation_environment(catalog, automation.spec, order), automation.spec.model] = why
    return unclear


@dataclass(slots=True)
class Automator:
    """The steps of a run. `facts` are those that specs need, without records; `home` is where the records are.

    `complete`: all specs are valid. `only`: the environments that the run is about; none: all. `part` gives as much of
    the catalog as a model needs; without it, the catalog stays as it is.
    """

    catalog: Catalog
    facts: Facts
    outside: Outside
    home: DataPlane
    complete: bool = True
    only: frozenset[str] = frozenset()
    part: Callable[[str], Catalog] | None = None
    questions: Questions = field(default_factory=Questions, init=False)
    #: Models in which something goes on, is due, or is wrong.
    open: dict[str, Standing] = field(default_factory=dict, init=False)
    _archive: Archive = field(default_factory=Archive, init=False)
    _recalls: Recalls = field(default_factory=Recalls, init=False)
    _branches: builds.Branches = field(default_factory=builds.Branches, init=False)
    _notifier: Notifier = field(init=False)
    #: The environments in order of promotion, as of a catalog's environments.
    _ordered: tuple[Mapping[str, Placed[Environment]], Sequence[str]] = field(default=({}, ()), init=False)
    #: Models whose old records were put away.
    _tidied: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self._notifier = Notifier(self._secrets, Egress.of(os.environ))
        if self.part is None:
            self.part = _parts(self.catalog)

    def is_needed(self) -> bool:
        """Whether any spec needs records, or there are promotions: records that nobody reads fall behind.

        Where the cluster says nothing of them, there are none.
        """
        if self.catalog.automations or promotion.places(self.catalog, self._order()):
            return True
        try:
            records, _ = ledger.read(self.outside.reader_of(self.home))
        except ApiError:
            return False
        return bool(records.promotions)

    def look(self, now: datetime, models: Collection[str] | None = None, *, ask: bool = True) -> Progress:
        """What the records mean, and what gates would say now, without a step: for a preview. `ask`: ask the gates."""

        def look(model: str) -> _End:
            desk = self._desk(model)
            desk.told += self._verdicts(desk, now) if ask else ()
            return _end(desk)

        meant = self._meant(self.outside.reader_of(self.home), models)
        ends = {model: self._apart(model, look) for model in sorted(meant)}
        return self._progress(ends, [told for end in ends.values() for told in end.told])

    def tidy_again(self) -> None:
        """Lets the next steps make room for new records."""
        self._tidied.clear()

    def recall(self) -> Recall:
        """What the records mean by now."""
        changed = self._archive.read(self.outside.reader_of(self.home))
        self._recalls.take({model: recall(self._desk(model)) for model in sorted(changed)})
        return self._recalls.whole(self.catalog, self.facts)

    def concerns(self, models: Collection[str]) -> bool:
        """Whether records, or what becomes of them, have anything to do with any of these models."""
        return any(map(self._is_recorded, models))

    def doubt(self, record: ObjectId) -> None:
        """A record may have changed."""
        self._archive.doubt(record)

    @property
    def doubts(self) -> bool:
        """Whether any record is to be read again."""
        return self._archive.doubts

    def _verdicts(self, desk: Desk, now: datetime) -> Iterator[Told]:
        for name, placed in desk.catalog.automations.items():
            condition = placed.spec.deployment_condition
            if condition is not None and condition.threshold is not None and not is_static(condition.threshold):
                try:
                    found = asked.verdict(self.catalog, desk.ledger, name, self.outside, build="", to="", now=now)
                except (NotMeantError, ApiError) as error:
                    yield Told(f"gate of {name}", str(error))
                else:
                    yield Told(f"gate of {name}, asked now", f"{found.outcome}: {found.message}")

    def step(self, writer: Writer, now: datetime, models: Collection[str] | None = None) -> Progress:
        """One step of these models, and of those whose records have changed; None: of all.

        `writer` is that of the home cluster. Raises `ApiError` where the records are out of reach.
        """
        meant = self._meant(writer, models)
        delivered = self._delivered()
        meant |= delivered.keys()
        missing = ledger.ensure(writer) if meant else []

        def step(model: str) -> _End:
            desk = self._desk(model, delivered.get(model, ()), writer, now)
            desk.trouble += [Trouble("records", words) for words in missing]
            builds.follow(desk)
            builds.start(desk, self._branches)
            promotions.request(desk)
            promotions.advance(desk)
            filing.file(desk)
            filing.notify(desk, self._notifier)
            if model not in self._tidied and not desk.trouble:  # what cannot be read may name what would go
                filing.tidy(desk)
                self._tidied.add(model)
            desk.moves |= desk.questions.end()
            return _end(desk)

        ends = {model: self._apart(model, step) for model in sorted(meant)}
        last = {one.where: one for end in ends.values() for one in end.told}
        return self._progress(ends, list(last.values()))

    def _apart(self, model: str, work: Callable[[str], _End]) -> _End:
        """A fault of ours that one model brings about must not stop the others: all of that one is left as it is."""
        try:
            return work(model)
        except ApiError:
            raise
        except Exception as error:  # whatever it is, the other models go on
            trouble = Trouble(model, f"it ended with an error of the program: {type(error).__name__}: {error}")
            if trouble not in self.open.get(model, Standing()).trouble:  # it is tried again and again
                log.exception("a step ended with an error of the program", model=model)
            known = self._recalls.part(model)
            unclear = {**known.unclear, **_unclear(self._part(model), self._order(), trouble.message)}
            return _End(known._replace(unclear=unclear), Standing((trouble,)), (), ())

    def _meant(self, reader: Reader, models: Collection[str] | None) -> set[str]:
        """What a step is about. Reads what may have changed of the records."""
        if models is not None:
            changed = self._archive.read_again(self.outside.reader_of(self.home))
            return {model for model in models if self._is_recorded(model)} | changed
        self._archive.read(reader)
        if self.complete:  # what cannot be read has not left
            self._branches.keep(self.catalog.automations.keys())
        places = promotion.places(self.catalog, self._order())
        automated = {placed.spec.model for placed in self.catalog.automations.values()}
        recalled = {*self._recalls.models, *self.open, *self._archive.models}
        return {model for _, model, _ in places} | automated | recalled

    def _is_recorded(self, model: str) -> bool:
        if model in self._archive.models or model in self._recalls.models or model in self.open:
            return True
        part = self._part(model)
        return bool(part.automations or promotion.places(part, self._order()))

    def _order(self) -> Sequence[str]:
        environments, order = self._ordered
        if environments is not self.catalog.environments:
            order = promotion_order(self.catalog)
            self._ordered = self.catalog.environments, order
        return order

    def _part(self, model: str) -> Catalog:
        assert self.part is not None
        return self.part(model)

    def _delivered(self) -> dict[str, list[Delivery]]:
        """Messages that have ended, by the model whose records they are about."""
        found: dict[str, list[Delivery]] = {}
        for delivery in self._notifier.poll():
            model = self._archive.model(delivery.record)
            if model is not None:  # a record that has gone need not remember anything
                found.setdefault(model, []).append(delivery)
        return found

    def _progress(self, ends: Mapping[str, _End], told: Sequence[Told]) -> Progress:
        """What these models have come to, laid beside what is known of all others."""
        self._recalls.take({model: end.recall for model, end in ends.items()})
        for model, end in ends.items():
            self.open.pop(model, None)
            if end.standing != Standing():
                self.open[model] = end.standing
        open_ = self.open.values()
        return Progress(
            self._recalls.whole(self.catalog, self.facts),
            frozenset(ends),
            tuple(told),
            tuple(dict.fromkeys(words for one in open_ for words in one.trouble)),
            any(one.busy for one in open_) or self._notifier.is_busy,
            min((one.until for one in open_ if one.until is not None), default=None),
            tuple(one for end in ends.values() for one in end.verdicts),
            self._archive.builds,
            self._archive.promotions,
        )

    def _desk(
        self, model: str, deliveries: Sequence[Delivery] = (), writer: Writer | None = None, now: datetime | None = None
    ) -> Desk:
        return Desk(
            self._archive,
            model,
            catalog=self._part(model),
            order=self._order(),
            facts=self.facts,
            outside=self.outside,
            questions=Asker(self.questions, model),
            complete=self.complete,
            only=self.only,
            deliveries=deliveries,
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


def _parts(catalog: Catalog) -> Callable[[str], Catalog]:
    """What each model needs of a catalog. Environments and audiences are shared: they are not of any model."""
    shared = Catalog(catalog.environments, audiences=catalog.audiences)
    builds_of = _by_model(catalog.builds)
    variations_of = _by_model(catalog.variations)
    automations_of = _by_model(catalog.automations)

    def part(model: str) -> Catalog:
        return replace(
            shared,
            builds=builds_of.get(model, {}),
            variations=variations_of.get(model, {}),
            automations=automations_of.get(model, {}),
        )

    return part


def _by_model(specs: Mapping[K, Placed[S]]) -> dict[str, dict[K, Placed[S]]]:
    found: dict[str, dict[K, Placed[S]]] = {}
    for key, placed in specs.items():
        found.setdefault(placed.spec.model, {})[key] = placed
    return found
