"""The base class of models. It helps editors and readers: a plain class with the same methods is a model too."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class Model(ABC):
    """A model: trained by build(), stored by pickle, and asked through predict().

    The instance must be picklable; what cannot be (connections, locks, sessions) is made in initialize_model().
    """

    @abstractmethod
    def build(self) -> None:
        """Train, or load what was trained elsewhere. Runs once, in the build; may log metrics and parameters."""

    @abstractmethod
    def predict(self, df: Any) -> Any:
        """Answer a request: one row for each row of the input. See runtime.model.adapters for what goes in and out."""

    def initialize_model(self) -> None:  # noqa: B027 - nothing to do is a fine default
        """Runs once in each server process, before its first request."""

    def schema(self) -> Any:
        """What predict() reads and answers: a dict or a ModelSchema, see runtime.model.schema. None: not told."""
        return None


# The names that the reference platform's two SDKs have for it.
QwakModel = FrogMlModel = BaseModel = Model
