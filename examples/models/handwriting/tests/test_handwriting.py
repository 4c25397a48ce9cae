"""Run by every build after build(): a failing test fails the build, so that it can never be promoted."""

import pickle

import pandas as pd
import pytest
from main import HandwritingModel
from sklearn.datasets import load_digits


@pytest.fixture(scope="module")
def model() -> HandwritingModel:
    trained = HandwritingModel()
    trained.build()
    return trained


def test_every_digit_is_read_well(model: HandwritingModel) -> None:
    assert model.metrics["worst_f1"] > 0.95


def test_noise_outside_the_range_of_the_scanners_does_not_change_the_answer(model: HandwritingModel) -> None:
    pictures = load_digits(as_frame=True).data.head(20)
    noisy = pictures.mask(pictures == 0, -3).mask(pictures == 16, 40)

    assert model.predict(noisy).equals(model.predict(pictures))


def test_it_answers_the_same_after_a_journey_as_an_artifact(model: HandwritingModel) -> None:
    picture = pd.DataFrame([{field["name"]: field["example"] for field in model.schema()["inputs"]}])
    loaded = pickle.loads(pickle.dumps(model))
    loaded.initialize_model()

    assert loaded.predict(picture).equals(model.predict(picture))
