"""The parts of a ModelSchema, as the reference platform names them.

`type` is one of Python's int, float, str, bool, bytes. `example` is ours: a value for the row that a build predicts on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(unsafe_hash=True)
class Entity:
    """What a row is about: the key of a customer, say."""

    name: str
    type: type = str


@dataclass(unsafe_hash=True)
class BaseFeature:
    """An input."""

    name: str

    def to_dict(self) -> dict[str, Any]:
        """As in the dict form of a schema."""
        return {"name": self.name, "type": "any"}


@dataclass(unsafe_hash=True)
class _Typed(BaseFeature):
    type: type
    example: Any = None

    def to_dict(self) -> dict[str, Any]:
        told = {"name": self.name, "type": self.type}
        return told if self.example is None else told | {"example": self.example}


@dataclass(unsafe_hash=True)
class ExplicitFeature(_Typed):
    """An input that comes with the request."""


@dataclass(unsafe_hash=True)
class RequestInput(_Typed):
    """An input that comes with the request."""


@dataclass(unsafe_hash=True)
class FeatureStoreInput(BaseFeature):
    """An input that would come from a feature store."""

    entity: Entity | None = None


@dataclass(unsafe_hash=True)
class InferenceOutput:
    """A column of the answer."""

    name: str
    type: type

    def to_dict(self) -> dict[str, Any]:
        """As in the dict form of a schema."""
        return {"name": self.name, "type": self.type}


Prediction = InferenceOutput
