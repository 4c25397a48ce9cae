"""Handwriting: which digit somebody wrote into a box of a paper form. A support vector machine over 64 pixels."""

from __future__ import annotations

from typing import Any

import pandas as pd
from imaging import ink
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC


class HandwritingModel:
    """Answers the digit of each picture."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self._classifier = SVC(gamma=0.25, C=10)
        self._example = pd.DataFrame()

    def build(self) -> None:
        """Trains, and measures on a third of the pictures that training did not see."""
        pictures = load_digits(as_frame=True)
        seen, unseen, truth_seen, truth_unseen = train_test_split(
            pictures.data, pictures.target, test_size=0.3, stratify=pictures.target, random_state=7
        )
        self._classifier.fit(ink(seen), truth_seen)
        self._example = seen.head(1)

        digits = self._classifier.predict(ink(unseen))
        self.metrics = {
            "accuracy": float(accuracy_score(truth_unseen, digits)),
            # The worst digit: an average hides a model that cannot tell 1 from 7.
            "worst_f1": float(min(f1_score(truth_unseen, digits, average=None))),
        }

    def initialize_model(self) -> None:
        """One prediction at the start of a pod: the first request does not wait for lazy imports."""
        self.predict(self._example)

    def schema(self) -> dict[str, list[dict[str, Any]]]:
        """What predict() reads and answers."""
        example = self._example.iloc[0]
        return {
            "inputs": [{"name": name, "type": "float", "example": float(example[name])} for name in example.index],
            "outputs": [{"name": "digit", "type": "int"}],
        }

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        """One row for each picture. Columns may come in any order; a missing one is a KeyError that names it."""
        pixels = ink(frame[list(self._example.columns)])
        return pd.DataFrame({"digit": self._classifier.predict(pixels)}, index=frame.index)
