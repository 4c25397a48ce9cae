"""Progression: how far diabetes will have progressed in a year. A ridge regression and boosted trees, averaged."""

from __future__ import annotations

from typing import Any

import pandas as pd
from sklearn.datasets import load_diabetes
from sklearn.ensemble import GradientBoostingRegressor, VotingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.metrics import mean_absolute_error, r2_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

#: Age, sex, body mass index, blood pressure, and six values of blood serum.
MEASUREMENTS = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")


class ProgressionModel:
    """Answers the progression score a year after the measurements: 25 is hardly any, 346 the worst on record."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        straight = make_pipeline(StandardScaler(), RidgeCV())
        bent = GradientBoostingRegressor(max_depth=2, learning_rate=0.05, random_state=0)
        self._regressor = VotingRegressor([("straight", straight), ("bent", bent)])
        self._example = pd.DataFrame()

    def build(self) -> None:
        """Trains, and measures on a third of the patients that training did not see."""
        patients = load_diabetes(as_frame=True, scaled=False)
        seen, unseen, truth_seen, truth_unseen = train_test_split(
            patients.data[list(MEASUREMENTS)], patients.target, test_size=0.3, random_state=7
        )
        self._regressor.fit(seen, truth_seen)
        self._example = seen.head(1)

        score = self._regressor.predict(unseen)
        self.metrics = {
            "r2": float(r2_score(truth_unseen, score)),
            "mean_absolute_error": float(mean_absolute_error(truth_unseen, score)),
        }

    def initialize_model(self) -> None:
        """One prediction at the start of a pod: the first request does not wait for lazy imports."""
        self.predict(self._example)

    def schema(self) -> dict[str, list[dict[str, Any]]]:
        """What predict() reads and answers."""
        example = self._example.iloc[0]
        return {
            "inputs": [{"name": name, "type": "float", "example": float(example[name])} for name in example.index],
            "outputs": [{"name": "score", "type": "float"}],
        }

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        """One row for each patient. Columns may come in any order; a missing one is a KeyError that names it."""
        return pd.DataFrame({"score": self._regressor.predict(frame[list(MEASUREMENTS)])}, index=frame.index)
