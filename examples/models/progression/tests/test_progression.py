"""Run by every build after build(): a failing test fails the build, so that it can never be promoted."""

import pickle

import pandas as pd
import pytest
from main import ProgressionModel


@pytest.fixture(scope="module")
def model() -> ProgressionModel:
    trained = ProgressionModel()
    trained.build()
    return trained


@pytest.fixture
def patient(model: ProgressionModel) -> pd.DataFrame:
    return pd.DataFrame([{field["name"]: field["example"] for field in model.schema()["inputs"]}])


def test_it_explains_more_than_the_average_would(model: ProgressionModel) -> None:
    assert model.metrics["r2"] > 0.3


def test_a_higher_body_mass_index_means_a_higher_score(model: ProgressionModel, patient: pd.DataFrame) -> None:
    heavier = patient.assign(bmi=patient["bmi"] + 10)

    assert model.predict(heavier)["score"].item() > model.predict(patient)["score"].item()


def test_it_answers_the_same_after_a_journey_as_an_artifact(model: ProgressionModel, patient: pd.DataFrame) -> None:
    loaded = pickle.loads(pickle.dumps(model))
    loaded.initialize_model()

    assert loaded.predict(patient).equals(model.predict(patient))
