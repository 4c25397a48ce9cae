"""What a keeper sees of its environment: what watches have brought, and what it has just written. It asks nobody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from reconciler import inventory, plan, readiness
from reconciler.daemon.desire import Desire, Unit
from reconciler.daemon.members import Members
from reconciler.daemon.plane import Plane
from reconciler.inventory import Inventory, Place, place_of
from reconciler.plan import Beside, Observed
from reconciler.readiness import State
from renderers.manifest import Body, Manifest, ObjectId, object_id


class Rendered(NamedTuple):
    """A model's manifests, and the unit that they are of, as it was then; None: nothing is wanted of it."""

    unit: Unit | None
    manifests: tuple[Manifest, ...]


Batch: TypeAlias = Mapping[str, Rendered]


@dataclass(slots=True)
class Sight:
    """`name` is the environment's."""

    name: str
    plane: Plane
    desire: Desire
    members: Members = field(default_factory=Members)
    #: Where the cluster does not let us look, and why. The rest goes on.
    blind: Mapping[Place, str] = field(default_factory=dict)
    #: What this pass has written, as it was answered: to look at it again, nothing has to be unpacked.
    written: dict[ObjectId, Body] = field(default_factory=dict)

    def wrote(self, stored: Body) -> None:
        """A write of ours has left this."""
        target = object_id(stored)
        self.members.join(target, stored["metadata"].get("labels") or {})
        self.written[target] = stored

    def count(self, target: ObjectId) -> None:
        """By what is there now, and not by what was heard: since then, we may have made it anew, or deleted it."""
        known = self.plane.cache.entry(target)
        if known is not None:
            self.members.join(target, known.labels)
        else:
            self.members.leave(target)

    def live(self, target: ObjectId) -> Body | None:
        """A member, as the cache has it."""
        entry = self.plane.cache.entry(target)
        if entry is None or entry.labels.get(inventory.PART_OF) != inventory.set_id(self.name):
            return None
        written = self.written.get(target)
        if written is not None and written["metadata"]["resourceVersion"] == entry.version:
            return written
        return self.plane.cache.get(target)

    def is_there(self, target: ObjectId) -> bool:
        """Whether it is a member, as the cache has it."""
        return self.live(target) is not None

    def is_known(self, target: ObjectId) -> bool:
        """Whether it is there, or wanted."""
        return target in self.members or self.desire.owner(self.name, target) is not None

    def has_unwanted(self, model: str) -> bool:
        """Whether there is anything of a model that nobody wants."""
        unit = self.desire.unit(self.name, model)
        objects = unit.objects if unit is not None else {}
        return any(target not in objects for target in self._own(model))

    def is_settled(self, model: str, manifests: Collection[Manifest]) -> bool:
        """Whether there is nothing to do about what is wanted of a model, by a look alone."""
        unit, (stored, _) = self.desire.unit(self.name, model), self.plane.inventory(self.name)
        if unit is None or unit.waits or unit.problem or stored is None or (not model and self._is_wide(stored)):
            return False
        for manifest in manifests:
            has_run = manifest.id in stored.finished
            if place_of(manifest.id) in self.blind and not has_run:
                return False
            live = self.live(manifest.id)
            if live is None:
                if not has_run:
                    return False
            elif not plan.is_settled(manifest, live):
                return False
            elif not has_run and manifest.id.kind in plan.RUN_ONCE and readiness.of(live).state is State.CURRENT:
                return False  # the cluster may clean it up before anybody remembers
        return True

    def seen(self, batch: Batch, vanished: frozenset[ObjectId]) -> Observed:
        """What there is of these models, and of all others in numbers."""
        stored, _ = self.plane.inventory(self.name)
        ids = {manifest.id for one in batch.values() for manifest in one.manifests}
        for model in batch:
            ids.update(self._own(model))
        bodies = {target: self.live(target) for target in ids}
        # What others have and want is counted, not looked through: a pass costs what it is about.
        others = self.members.places - Counter(place_of(target) for target in ids if target in self.members)
        units = [unit for model in batch if (unit := self.desire.unit(self.name, model)) is not None]
        theirs = Counter(place_of(target) for unit in units for target in unit.objects)
        elsewhere = self.desire.places(self.name) - theirs
        finished, gone = (stored.finished, stored.gone) if stored is not None else (frozenset(), frozenset())
        beside = Beside(
            sum(number for place, number in others.items() if place.kind not in plan.NEVER_PRUNED),
            frozenset(others.keys() | elsewhere.keys()),
            frozenset(t for t in finished if (t in self.members and t not in ids) or self._is_wanted_beside(t, batch)),
            frozenset(t for t in gone if self._is_wanted_beside(t, batch)),
        )
        return Observed(
            self.name,
            {target: body for target, body in bodies.items() if body is not None},
            inventory=stored,
            rebuilt=stored is None and bool(self.members.places),
            vanished=vanished,
            beside=beside,
            blind=self.blind,
        )

    def _own(self, model: str) -> Iterator[ObjectId]:
        """The members of a model that no other one wants, whatever their labels say."""
        return (t for t in self.members.of(model) if self.desire.owner(self.name, t) in (None, model))

    def _is_wanted_beside(self, target: ObjectId, models: Collection[str]) -> bool:
        """Whether another model than these wants it."""
        owner = self.desire.owner(self.name, target)
        return owner is not None and owner not in models

    def _is_wide(self, stored: Inventory) -> bool:
        """Whether an inventory names places where nothing is any more: whoever emptied them was cut short."""
        known = self.desire.places(self.name).keys() | self.members.places.keys() | self.blind.keys()
        return not stored.places <= known
