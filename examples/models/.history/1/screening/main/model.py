"""Screening: is a biopsy malignant? Gradient boosted trees over all thirty measurements of the cell nuclei."""

from __future__ import annotations

import os
from typing import Any

import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import log_loss, precision_score, recall_score, roc_auc_score
from sklearn.model_selection import train_test_split


class ScreeningModel:
    """Answers the probability that a biopsy is malignant, and whether a pathologist should look at it first."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self._classifier = GradientBoostingClassifier(random_state=7)
        self._example = pd.DataFrame()
        self._threshold = 0.5

    def build(self) -> None:
        """Trains, and measures on a third of the biopsies that training did not see."""
        biopsies = load_breast_cancer(as_frame=True)
        malignant = (biopsies.target == 0).astype(int)
        seen, unseen, truth_seen, truth_unseen = train_test_split(
            biopsies.data, malignant, test_size=0.3, stratify=malignant, random_state=7
        )
        # Who would rather see ten healthy patients twice than miss one lowers it, in the `env_vars` of a build.
        self._threshold = float(os.environ.get("DECISION_THRESHOLD", "0.5"))
        self._classifier.fit(seen, truth_seen)
        self._example = seen.head(1)

        probability = self._classifier.predict_proba(unseen)[:, 1]
        urgent = probability >= self._threshold
        self.metrics = {
            "roc_auc": float(roc_auc_score(truth_unseen, probability)),
            "recall": float(recall_score(truth_unseen, urgent)),
            "precision": float(precision_score(truth_unseen, urgent)),
            "log_loss": float(log_loss(truth_unseen, probability)),
        }

    def initialize_model(self) -> None:
        """One prediction at the start of a pod: the first patient does not wait for lazy imports."""
        self.predict(self._example)

    def schema(self) -> dict[str, list[dict[str, Any]]]:
        """What predict() reads and answers."""
        example = self._example.iloc[0]
        return {
            "inputs": [{"name": name, "type": "float", "example": float(example[name])} for name in example.index],
            "outputs": [{"name": "probability", "type": "float"}, {"name": "urgent", "type": "bool"}],
        }

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        """One row for each biopsy. Columns may come in any order; a missing one is a KeyError that names it."""
        probability = self._classifier.predict_proba(frame[list(self._example.columns)])[:, 1]
        return pd.DataFrame({"probability": probability, "urgent": probability >= self._threshold}, index=frame.index)
