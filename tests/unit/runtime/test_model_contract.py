"""The model contract: how predict() is called, what schema() says, what is logged."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import runtime.model
from runtime.model import (
    ExplicitFeature,
    HTTPException,
    InferenceOutput,
    Model,
    ModelSchema,
    RequestInput,
    api,
    files,
    load_data,
    load_file,
    log_data,
    log_file,
    log_metric,
    log_param,
    run_local,
)
from runtime.model.adapters import JsonInputAdapter
from runtime.model.api import api_of
from runtime.model.exceptions import BadRequest, ModelError, QwakHTTPException
from runtime.model.metrics import forget, metrics_of, parameters_of_build
from runtime.model.schema import example_of, schema_of
from runtime.model.schema_entities import Entity, FeatureStoreInput


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    forget()
    monkeypatch.setattr(files, "_folder", None)
    yield
    forget()


# -- predict --


def test_the_decorator_stays_the_decorator_whoever_imports_the_module() -> None:
    assert runtime.model.api is api
    assert callable(api)


def test_a_plain_class_reads_and_answers_frames() -> None:
    class Plain:
        def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
            return frame[["a"]] + 1

    asked = api_of(Plain())
    assert asked.encode(asked.call(asked.decode(b'{"a": [1, 2]}'))) == (b'[{"a":2},{"a":3}]', "application/json")
    assert asked.analytics
    assert asked.sample_ratio == 1.0
    assert asked.batchable


def test_the_decorator_says_what_may_be_logged() -> None:
    class Private:
        @api(analytics_sample_ratio=0.1, analytics_exclude_columns=["name"], input_adapter=JsonInputAdapter)
        def predict(self, request: Any) -> Any:
            return request

    asked = api_of(Private())
    assert (asked.analytics, asked.sample_ratio, asked.exclude_columns) == (True, 0.1, {"name"})
    assert asked.decode(b"[]") == []
    assert not asked.batchable


def test_what_predict_logs_goes_with_its_request() -> None:
    class Logging:
        @api()
        def predict(self, frame: pd.DataFrame, analytics_logger: Any) -> list[int]:
            analytics_logger.log({"rows": len(frame)})
            return [1] * len(frame)

    asked = api_of(Logging())
    kept: list[Any] = []
    assert asked.call(asked.decode(b"[1, 2]"), kept.append) == [1, 1]
    assert kept == [{"rows": 2}]
    assert asked.call(asked.decode(b"[1]")) == [1]
    # In a batch, nobody could say whose it is.
    assert not asked.batchable


def test_answers_that_show_the_index_are_not_batched() -> None:
    class Indexed:
        @api(output_adapter=runtime.model.adapters.DataFrameOutputAdapter("split"))
        def predict(self, frame: Any) -> Any:
            return frame

    assert not api_of(Indexed()).batchable


def test_a_decorator_without_parentheses_is_told() -> None:
    with pytest.raises(TypeError, match=r"write @api\(\) above predict\(\)"):
        api(lambda self, frame: frame)  # type: ignore[arg-type] # the mistake


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"analytics_sample_ratio": 1.5}, "analytics_sample_ratio is 1.5; it must be from 0 to 1"),
        ({"analytics_sample_ratio": math.nan}, "analytics_sample_ratio is nan"),
        ({"analytics_exclude_columns": "name"}, "analytics_exclude_columns must be a list: write ['name']"),
    ],
)
def test_wrong_arguments_are_told_where_they_are_written(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        api(**arguments)
    assert sentence in str(caught.value)


class NoPredict:
    """Lacks a method."""


class NoInput:
    """Takes nothing."""

    def predict(self) -> None:
        """Answers nothing."""


class Greedy:
    """Takes too much."""

    def predict(self, frame: Any, threshold: float, *, mode: str, limit: int = 3) -> None:
        """Answers nothing."""


class Waiting:
    """Is asynchronous."""

    async def predict(self, frame: Any) -> None:
        """Answers nothing."""


class Extracting:
    """Wants a feature store."""

    @api(feature_extraction=True)
    def predict(self, frame: Any, extracted_df: Any) -> None:
        """Answers nothing."""


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (NoPredict, "NoPredict has no method predict: write `def predict(self, df)`."),
        (NoInput, "NoInput.predict takes no input: write `def predict(self, df)`."),
        (Greedy, "Greedy.predict wants 'threshold', 'mode' besides its input, and nobody gives that"),
        (Waiting, "Waiting.predict is a coroutine: write `def predict`, without async."),
        (Extracting, "Extracting.predict asks for feature_extraction, and there is no feature store"),
    ],
)
def test_a_predict_that_cannot_be_called_is_told_when_the_model_is_loaded(model: Any, sentence: str) -> None:
    with pytest.raises(ModelError) as caught:
        api_of(model())
    assert sentence in str(caught.value)


@pytest.mark.parametrize("status", [0, 200, 399, 600])
def test_a_model_answers_with_the_statuses_of_errors_only(status: int) -> None:
    assert HTTPException(status, "no").status == 500


def test_a_model_answers_with_a_status_and_a_body() -> None:
    class TooYoung(QwakHTTPException):
        """As model code makes its own."""

    error = TooYoung(422, {"reason": "age", "minimum": 18})
    assert (error.status, error.body, error.exception_class_name) == (422, {"reason": "age", "minimum": 18}, "TooYoung")
    assert HTTPException(404, "nobody").body == {"message": "nobody"}
    assert HTTPException(404, "x", "Other").exception_class_name == "Other"


def test_run_local_builds_once_and_asks_as_a_client_does() -> None:
    class Counting(Model):
        def __init__(self) -> None:
            self.steps: list[str] = []

        def build(self) -> None:
            self.steps.append("build")

        def initialize_model(self) -> None:
            self.steps.append("initialize")

        @api()
        def predict(self, df: pd.DataFrame) -> pd.DataFrame:
            return pd.DataFrame({"steps": [",".join(self.steps)] * len(df)})

    model = Counting()
    assert run_local(model, '[{"a": 1}]') == '[{"steps":"build,initialize"}]'
    assert run_local(model, b'[{"a": 1}]') == '[{"steps":"build,initialize"}]'
    with pytest.raises(BadRequest):
        run_local(model, "{")


def test_what_the_other_sdk_has_and_we_have_not_says_why() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'load_model': a build has its own model only"):
        runtime.model.load_model  # noqa: B018 - the access is what is tested
    with pytest.raises(AttributeError, match=r"has no attribute 'nonsense'$"):
        runtime.model.nonsense  # noqa: B018 - the access is what is tested


# -- metrics --


def test_metrics_and_parameters_are_logged_as_a_dict_or_one_by_one() -> None:
    log_metric({"auc": 0.9, "rows": 100})
    log_metric("auc", np.float32(0.5))
    log_metric("loss", Decimal("0.25"))
    log_metric({"array": np.array(2), "flag": True})
    log_param({"depth": 6, "kind": "tree", "lr": np.float64(0.5), "sizes": [1, 2], "none": None, "inf": math.inf})
    log_param("depth", np.int64(7))

    assert metrics_of(object()) == {"auc": 0.5, "rows": 100.0, "loss": 0.25, "array": 2.0, "flag": 1.0}
    assert parameters_of_build() == {
        "depth": 7,
        "kind": "tree",
        "lr": 0.5,
        "sizes": "[1, 2]",
        "none": None,
        "inf": "inf",
    }
    assert type(parameters_of_build()["depth"]) is int


def test_metrics_that_a_model_leaves_count_and_what_it_logs_is_newer() -> None:
    class Trained:
        def __init__(self) -> None:
            self.metrics = {"auc": np.float64(0.8), "recall": 1}

    log_metric("auc", 0.9)
    assert metrics_of(Trained()) == {"auc": 0.9, "recall": 1.0}


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [
        ({"auc": math.nan}, "the metric 'auc' is nan: no gate can compare it"),
        ({"auc": -math.inf}, "the metric 'auc' is -inf"),
        ({"auc": "0.9"}, "the metric 'auc' is '0.9': log a number"),
        ({"auc": None}, "the metric 'auc' is None: log a number"),
        ({"auc": 1j}, "the metric 'auc' is 1j: log a number"),
        ({"auc": np.array([1, 2])}, "log a number"),
        ({"auc": 10**400}, "log a number"),
        ({"": 1}, "'' is no name"),
        ({3: 1}, "3 is no name"),
    ],
)
def test_what_no_gate_could_compare_is_refused(metrics: Any, sentence: str) -> None:
    class Trained:
        def __init__(self) -> None:
            self.metrics = metrics

    with pytest.raises(ValueError, match=re.escape(sentence)):
        log_metric(metrics)
    with pytest.raises(ModelError) as told:
        metrics_of(Trained())
    assert str(told.value).startswith("self.metrics of Trained cannot be used after build(): ")
    assert sentence in str(told.value)


def test_metrics_that_are_no_dict_are_the_models_own_affair() -> None:
    class Trained:
        metrics = ("accuracy",)

    assert metrics_of(Trained()) == {}


def test_a_metric_without_a_value_is_told() -> None:
    with pytest.raises(ValueError, match=r'log a metric as \{"name": value\} or as "name", value; not \'auc\''):
        log_metric("auc")


# -- files --


def test_files_and_tables_are_kept_with_the_build(tmp_path: Path) -> None:
    files.keep_in(tmp_path / "artifact" / "files")
    source = tmp_path / "words.txt"
    source.write_text("a b c")
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "é"]})

    log_file(from_path=str(source), tag="words")
    log_data(frame, tag="seen")

    assert load_file(to_path=str(tmp_path / "again.txt"), tag="words") == str(tmp_path / "again.txt")
    assert (tmp_path / "again.txt").read_text() == "a b c"
    assert load_data(tag="seen").equals(frame)
    assert sorted(path.name for path in (tmp_path / "artifact" / "files").iterdir()) == ["seen.csv.gz", "words"]


def test_without_an_artifact_files_are_kept_for_the_process(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    log_file(tmp_path / "a")
    load_file(tmp_path / "b")
    assert (tmp_path / "b").read_text() == "x"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"tag": "../up"}, "The tag '../up' may have letters, digits, _ and - only."),
        ({"tag": "absent"}, "This build kept nothing under the tag 'absent'"),
        ({"tag": "a", "build_id": "other"}, "A build has its own files only"),
    ],
)
def test_a_file_that_cannot_be_had_is_told(arguments: dict[str, str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_file(tmp_path / "x", **arguments)
    assert sentence in str(caught.value)


# -- schema --


class Described:
    """A model that says this of itself."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema

    def schema(self) -> Any:
        return self._schema


DICT = {
    "inputs": [{"name": "age", "type": "int", "example": np.int64(41)}, {"name": "plan", "type": str, "example": None}],
    "outputs": [{"name": "churn", "type": "float"}],
}


def test_a_schema_is_a_dict() -> None:
    schema = schema_of(Described(DICT))
    assert schema == {
        "inputs": [{"name": "age", "type": "int", "example": 41}, {"name": "plan", "type": "str", "example": None}],
        "outputs": [{"name": "churn", "type": "float"}],
    }
    assert example_of(schema) == {"age": 41, "plan": None}


def test_a_schema_is_a_model_schema() -> None:
    schema = schema_of(
        Described(
            ModelSchema(
                entities=[Entity("customer")],
                inputs=[
                    ExplicitFeature(name="age", type=int),
                    RequestInput("plan", str),
                    FeatureStoreInput("customers.spent"),
                ],
                outputs=[InferenceOutput(name="churn", type=float)],
            )
        )
    )
    assert schema == {
        "inputs": [{"name": "age", "type": "int"}, {"name": "plan", "type": "str"}],
        "outputs": [{"name": "churn", "type": "float"}],
    }
    assert example_of(schema) is None


def test_a_feature_may_have_an_example() -> None:
    schema = schema_of(Described(ModelSchema(inputs=[ExplicitFeature("age", int, example=41)])))
    assert example_of(schema) == {"age": 41}


def test_a_schema_may_be_left_out() -> None:
    assert schema_of(object()) is None
    assert schema_of(Described(None)) is None
    assert example_of(None) is None
    assert example_of({"inputs": [], "outputs": []}) is None


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        ([], "Described.schema() answered a list: answer a dict with inputs and outputs, or a ModelSchema."),
        ({"input": []}, "Described.schema() has 'input': it may have inputs and outputs."),
        ({"inputs": "age"}, "Described.schema(), inputs must be a list of fields"),
        ({"inputs": ["age"]}, "Described.schema(), inputs[0] must be a dict with a name and a type"),
        ({"outputs": [{"name": "a", "type": "int"}] * 2}, "Described.schema(), outputs has 'a' twice"),
        (
            {"inputs": [{"name": "a", "type": "integer"}]},
            "inputs[0] has the type 'integer': it must be one of int, float",
        ),
        ({"inputs": [{"name": "a", "typo": "int"}]}, "inputs[0] has 'typo': it may have name, type and example."),
        ({"inputs": [{"name": "a", "type": [int]}]}, "inputs[0] has the type"),
        (
            {"inputs": [{"name": "a", "example": object()}]},
            "inputs[0] has an example of object, which JSON cannot hold.",
        ),
    ],
)
def test_a_wrong_schema_is_told_with_its_place(schema: Any, sentence: str) -> None:
    with pytest.raises(ModelError) as caught:
        schema_of(Described(schema))
    assert sentence in str(caught.value)


def test_a_schema_that_raises_is_told_with_the_models_own_frames() -> None:
    class Broken:
        def schema(self) -> Any:
            return {}["inputs"]

    with pytest.raises(
        ModelError, match=r"Broken\.schema\(\) failed at .*test_model_contract\.py:\d+: KeyError: 'inputs'"
    ) as caught:
        schema_of(Broken())
    assert 'return {}["inputs"]' in caught.value.details
    assert "runtime/model" not in caught.value.details
