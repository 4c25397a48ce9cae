"""What an environment has, as its keeper has heard of it: the names of its objects, by model and by place. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from reconciler.inventory import Place, place_of
from renderers.manifest import ObjectId
from renderers.names import COMPONENT, NAME

_ENVIRONMENTS_OWN = "environment"


def model_of(labels: Mapping[str, str]) -> str:
    """The model that an object says it is of; "" for the environment's own."""
    return "" if labels.get(COMPONENT) == _ENVIRONMENTS_OWN else labels.get(NAME, "")


@dataclass(slots=True)
class Members:
    """Counted as they come and go, so that a question about all of them costs no look at each."""

    _models: dict[ObjectId, str] = field(default_factory=dict)
    _by_model: dict[str, set[ObjectId]] = field(default_factory=dict)
    #: How many there are at each place.
    places: Counter[Place] = field(default_factory=Counter)
    #: The names of those that are namespaces.
    namespaces: set[str] = field(default_factory=set)

    def __contains__(self, target: ObjectId) -> bool:
        return target in self._models

    @property
    def models(self) -> Collection[str]:
        """Those that have any."""
        return self._by_model.keys()

    @property
    def kinds(self) -> set[str]:
        """What there is any of. May be asked for by any thread."""
        return {place.kind for place in list(self.places)}

    def model(self, target: ObjectId) -> str:
        """The model of a member; "" also of what is none."""
        return self._models.get(target, "")

    def of(self, model: str) -> Collection[ObjectId]:
        """The members of a model."""
        return self._by_model.get(model, ())

    def join(self, target: ObjectId, labels: Mapping[str, str]) -> None:
        """An object is there, and has these labels."""
        self.leave(target)
        model = model_of(labels)
        self._models[target] = model
        self._by_model.setdefault(model, set()).add(target)
        self.places[place_of(target)] += 1
        if target.kind == "Namespace":
            self.namespaces.add(target.name)

    def leave(self, target: ObjectId) -> None:
        """It is gone, or somebody else's."""
        model = self._models.pop(target, None)
        if model is None:
            return
        place = place_of(target)
        self.places[place] -= 1
        if not self.places[place]:
            del self.places[place]
        if target.kind == "Namespace":
            self.namespaces.discard(target.name)
        self._by_model[model].discard(target)
        if not self._by_model[model]:
            del self._by_model[model]
