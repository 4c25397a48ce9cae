"""The records of one model in one step, and the pen: everything is written against the version that was read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cached_property
from typing import NamedTuple

from reconciler import ledger as edge
from reconciler import promotion
from reconciler.automate.archive import Archive
from reconciler.automate.questions import Asker
from reconciler.cluster import ApiError, Unavailable, Writer
from reconciler.inventory import PART_OF, set_id
from reconciler.notify import Delivery
from reconciler.outside import Outside, OutsideError
from reconciler.promotion import Ledger, Place, PlaceKey
from reconciler.records import (
    Build,
    BuildStatus,
    Identity,
    Promotion,
    PromotionRequest,
    PromotionStatus,
    R,
    Verdict,
    object_id_of,
    promotion_name,
)
from reconciler.report import Told, Trouble
from renderers.build import FULL_ID
from renderers.catalog import BuildId, Catalog, Facts, Placed, units
from renderers.identity import identify
from renderers.names import NAME, VARIATION
from schemas.build import Build as BuildSpec
from schemas.environment import Environment

#: What nobody could look at, or what nobody knows of, is looked at again after this.
_LOOK_AGAIN = timedelta(seconds=10)


class Pinned(NamedTuple):
    """A build that a spec names for a place."""

    build: Placed[BuildSpec]
    identity: BuildId
    home: Environment


class Desk:
    """What a step works on for one model: nothing that is decided about it depends on another one.

    `catalog` is as much of the specs as the model needs, and all environments; `order` is that of promotion;
    `deliveries` are messages about its records that have ended. Without a writer and a moment it is for looking only.
    """

    def __init__(
        self,
        archive: Archive,
        model: str,
        *,
        catalog: Catalog,
        order: Sequence[str],
        facts: Facts,
        outside: Outside,
        questions: Asker,
        complete: bool = True,
        only: frozenset[str] = frozenset(),
        deliveries: Sequence[Delivery] = (),
        writer: Writer | None = None,
        now: datetime | None = None,
    ) -> None:
        self.model = model
        self.catalog, self.order, self.facts, self.outside = catalog, order, facts, outside
        self.questions, self.deliveries = questions, deliveries
        #: Whether all specs are valid. Otherwise one that cannot be read looks like one that is gone.
        self.complete = complete
        self._only = only
        self.trouble = [Trouble("records", words) for words in archive.unreadable(model)]
        self.told: list[Told] = []
        #: What gates and checks have said in this step.
        self.verdicts: list[tuple[Promotion, Verdict]] = []
        #: Something goes on by itself, of which another step may find more to do; or which nothing but an event, or a
        #: moment that is known, moves on.
        self.moves = False
        self.holds = False
        #: When something is due even though nothing happens before.
        self.until: datetime | None = None
        #: Places of which nobody could look whether they serve something already.
        self.unseen: set[PlaceKey] = set()
        #: What is served at a place although no record says so, in words.
        self.unclear: dict[PlaceKey, str] = {}
        self._writer, self._now = writer, now
        self._archive, ledger = archive, archive.ledger(model)
        self._builds = dict(ledger.builds)
        self._promotions = {one.identity.name: one for one in ledger.promotions}
        self._served: dict[PlaceKey, str] = {}
        self._unreadable = ledger.unreadable
        self._ledger: Ledger | None = None
        self._look_at_what_is_served()

    @property
    def writer(self) -> Writer:
        assert self._writer is not None, "who only looks writes nothing"
        return self._writer

    @property
    def now(self) -> datetime:
        """Of the step."""
        assert self._now is not None, "who only looks decides nothing"
        return self._now

    @property
    def ledger(self) -> Ledger:
        """All its records, as they are by now."""
        if self._ledger is None:
            self._ledger = Ledger(self._builds, tuple(self._promotions.values()), self._served, self._unreadable)
        return self._ledger

    @cached_property
    def places(self) -> Mapping[PlaceKey, Place]:
        """Where builds come by promotion."""
        return promotion.places(self.catalog, self.order, self.ledger)

    @cached_property
    def pinned(self) -> Mapping[PlaceKey, Pinned]:
        """The builds that specs name for these places, as far as their commits are known."""
        found: dict[PlaceKey, Pinned] = {}
        for unit in units(self.catalog, self.facts):
            here = unit.environment.spec
            for variation in unit.variations:
                key = here.name, variation.spec.model, variation.spec.name
                name = variation.spec.build
                if name is not None and key in self.places:
                    identity = identify(unit.builds[name].spec, self.facts)
                    if not identity.provisional:
                        found[key] = Pinned(unit.builds[name], identity, unit.built_in.get(name, here))
        return found

    def is_meant(self, environment: str) -> bool:
        """Whether this run is about an environment; what it leaves alone, it does not decide on either."""
        return not self._only or environment in self._only

    def environment(self, name: str) -> Environment | None:
        """By its name; None where no spec has it."""
        placed = self.catalog.environments.get(name)
        return placed.spec if placed is not None else None

    @contextmanager
    def troubled(self, where: str) -> Iterator[None]:
        """What cannot be reached is told, and holds nothing else up."""
        try:
            yield
        except (ApiError, OutsideError) as error:
            self.trouble.append(Trouble(where, str(error)))
            self.moves |= isinstance(error, Unavailable)  # it passes by itself, mostly

    def wake(self, at: datetime) -> None:
        """Something is due then."""
        self.until = at if self.until is None else min(self.until, at)

    def tell(self, where: str, message: str) -> None:
        """For whoever looks on."""
        self.told.append(Told(where, message))

    # -- writing ----------------------------------------------------------------------------------------------------

    def create_build(self, build: Build) -> None:
        """Records a build. Where somebody was faster, theirs is read in the next step."""
        if build.identity.name in self._builds:
            return
        self._archive.doubt(object_id_of(build))
        if edge.create(self.writer, build):  # not so where its record is there and cannot be read
            self.moves = True
            self._builds[build.identity.name] = build
            self._ledger = None
            what = "batch" if build.spec.action == "Batch" else "build"
            self.tell(f"{what} {build.identity.name}", f"asked for ({build.spec.cause.kind})")

    def write_build(self, build: Build, status: BuildStatus) -> Build | None:
        """Writes what became of a build, if that is new. None: it has changed meanwhile."""
        if status == build.status:
            return build
        written = self._written(build.model_copy(update={"status": status}))
        if written is not None:
            self._builds[written.identity.name] = written
            if written.status.phase is not build.status.phase:
                self.tell(f"build {written.identity.name}", _words(written))
        return written

    def create_promotion(self, request: PromotionRequest) -> None:
        """Asks for a promotion."""
        made = Promotion(identity=Identity(name=promotion_name(request)), spec=request)
        self.moves = True
        if made.identity.name not in self._promotions:
            self._archive.doubt(object_id_of(made))
            edge.create(self.writer, made)  # and read in the next step, with its version

    def write_promotion(self, one: Promotion, status: PromotionStatus) -> Promotion | None:
        """Writes what became of a promotion, if that is new. None: it has changed meanwhile."""
        if status == one.status:
            return one
        written = self._written(one.model_copy(update={"status": status}))
        if written is not None:
            self._promotions[written.identity.name] = written
            if (status.phase, status.message) != (one.status.phase, one.status.message):
                self.tell(f"promotion {written.identity.name}", f"{written.status.phase}: {written.status.message}")
        return written

    def _written(self, record: R) -> R | None:
        # An answer that is lost leaves the doubt: the next step reads what there is.
        self._archive.doubt(object_id_of(record))
        written = edge.write_status(self.writer, record)
        self.moves, self._ledger = True, None
        if written is not None:
            self._archive.keep(written)
        return written

    def forget(self, record: Build | Promotion) -> None:
        """Deletes a record that nobody needs any more."""
        self._archive.doubt(object_id_of(record))
        if edge.delete(self.writer, record):
            known = self._builds if isinstance(record, Build) else self._promotions
            known.pop(record.identity.name, None)
            self._archive.forget(record)
            self._ledger = None

    # -- what no record says ----------------------------------------------------------------------------------------

    def _look_at_what_is_served(self) -> None:
        """Places may serve although no promotion says what: their spec has asked for no decision until now.

        Where that is the very build that the spec names, it counts as the current one. Any other is left alone until
        the first promotion begins: nobody knows its spec any more. A promotion that only waits, or that a person has
        written without a word of what it replaces, takes nothing away.
        """
        served: dict[PlaceKey, str] = {}
        for key, place in self.places.items():
            if self.ledger.says_what_is_served(key):
                continue
            environment, (_, model, variation) = place.environment, key
            labels = f"{PART_OF}={set_id(environment.name)},{NAME}={model},{VARIATION}={variation}"
            try:
                reader = self.outside.reader_of(environment.data_plane)
                found = reader.list("apps/v1", "Deployment", namespace=environment.namespace_name, labels=labels).items
            except ApiError as error:
                self.unclear[key] = str(error)
                self.unseen.add(key)
                continue
            ids = {body["metadata"].get("annotations", {}).get(FULL_ID, "") for body in found}
            ids -= {one.spec.build for one in self.ledger.at(key) if one.status.rollout is not None}  # it brought them
            pinned = self.pinned.get(key)
            if pinned is not None and ids == {pinned.identity.id}:
                served[key] = pinned.identity.id
            elif ids:
                words = "is served without a promotion, and stays until the first one begins"
                builds = ", ".join(sorted(one[:8] or "one that nobody knows" for one in ids))
                self.unclear[key] = f"variation {variation}: build {builds} {words}"
        if served:
            self._served, self._ledger = served, None
        if self.unclear and self._now is not None:
            self.wake(self._now + _LOOK_AGAIN)


def _words(build: Build) -> str:
    status = build.status
    if status.failure is not None:
        return f"{status.phase}: {status.failure.step}: {status.failure.message}".splitlines()[0]
    metrics = ", ".join(f"{name} {value}" for name, value in list(status.metrics.items())[:3])
    return f"{status.phase}{f': {metrics}' if metrics else ''}"
