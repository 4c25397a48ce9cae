"""Run by every build after build(): a failing test fails the build, so that it can never be promoted."""

import pickle

import pandas as pd
import pytest
from main import ScreeningModel


@pytest.fixture(scope="module")
def model() -> ScreeningModel:
    trained = ScreeningModel()
    trained.build()
    return trained


@pytest.fixture
def biopsy(model: ScreeningModel) -> pd.DataFrame:
    return pd.DataFrame([{field["name"]: field["example"] for field in model.schema()["inputs"]}])


def test_it_beats_a_coin_by_far_on_biopsies_it_has_not_seen(model: ScreeningModel) -> None:
    assert model.metrics["roc_auc"] > 0.95


def test_a_biopsy_gets_a_probability_and_a_verdict_that_agree(model: ScreeningModel, biopsy: pd.DataFrame) -> None:
    (answer,) = model.predict(biopsy).to_dict("records")

    assert 0 <= answer["probability"] <= 1
    assert answer["urgent"] == (answer["probability"] >= 0.5)


def test_the_order_of_the_columns_does_not_matter(model: ScreeningModel, biopsy: pd.DataFrame) -> None:
    assert model.predict(biopsy[biopsy.columns[::-1]]).equals(model.predict(biopsy))


def test_a_missing_measurement_is_named(model: ScreeningModel, biopsy: pd.DataFrame) -> None:
    with pytest.raises(KeyError, match="mean radius"):
        model.predict(biopsy.drop(columns="mean radius"))


def test_a_lower_threshold_finds_at_least_as_many_malignant_biopsies(
    model: ScreeningModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECISION_THRESHOLD", "0.2")
    sensitive = ScreeningModel()
    sensitive.build()

    assert sensitive.metrics["recall"] >= model.metrics["recall"]
    assert sensitive.metrics["precision"] <= model.metrics["precision"]


def test_it_answers_the_same_after_a_journey_as_an_artifact(model: ScreeningModel, biopsy: pd.DataFrame) -> None:
    loaded = pickle.loads(pickle.dumps(model))
    loaded.initialize_model()

    assert loaded.predict(biopsy).equals(model.predict(biopsy))
