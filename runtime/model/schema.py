"""What a model says of its input and output.

    def schema(self):
        return {
            "inputs": [{"name": "age", "type": "int", "example": 41}],
            "outputs": [{"name": "churn", "type": "float"}],
        }

or the reference platform's ModelSchema, which becomes the same. Types are int, float, str, bool, bytes, datetime, list,
dict and any, as names or (int, float, str, bool, bytes, list, dict) as Python's own. An `example` in every input
makes a row that the build predicts on, before anybody else does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runtime.model import jsons
from runtime.model.exceptions import HTTPException, ModelError
from runtime.model.schema_entities import (
    BaseFeature,
    Entity,
    ExplicitFeature,
    FeatureStoreInput,
    InferenceOutput,
    Prediction,
    RequestInput,
)
from runtime.model.tracebacks import location_of, own_traceback

__all__ = [
    "BaseFeature",
    "Entity",
    "ExplicitFeature",
    "FeatureStoreInput",
    "InferenceOutput",
    "ModelSchema",
    "Prediction",
    "RequestInput",
    "example_of",
    "schema_of",
]

TYPES = ("int", "float", "str", "bool", "bytes", "datetime", "list", "dict", "any")


class ModelSchema:
    """Entities, inputs and outputs. A FeatureStoreInput is kept, and read by nothing: there is no feature store."""

    def __init__(
        self,
        entities: Sequence[Entity] | None = None,
        inputs: Sequence[BaseFeature] | None = None,
        outputs: Sequence[InferenceOutput] | None = None,
    ) -> None:
        self.entities = list(entities or ())
        self.inputs = list(inputs or ())
        self.outputs = list(outputs or ())

    def to_dict(self) -> dict[str, Any]:
        """Without what does not come with a request."""
        sent = [feature for feature in self.inputs if not isinstance(feature, FeatureStoreInput)]
        return {
            "inputs": [feature.to_dict() for feature in sent],
            "outputs": [output.to_dict() for output in self.outputs],
        }


def schema_of(model: object) -> dict[str, Any] | None:
    """The schema of a model, as {"inputs": [{"name", "type", "example"?}], "outputs": [{"name", "type"}]}.

    None where the model says nothing. Everything in it is plain JSON. Raises ModelError.
    """
    describe = getattr(model, "schema", None)
    if not callable(describe):
        return None
    where = f"{type(model).__name__}.schema()"
    try:
        given = describe()
    except Exception as error:
        raise ModelError(
            f"{where} failed{location_of(error)}: {type(error).__name__}: {error}", own_traceback(error)
        ) from error
    if given is None:
        return None
    document = given.to_dict() if isinstance(given, ModelSchema) else given
    if not isinstance(document, Mapping):
        raise ModelError(
            f"{where} answered a {type(given).__name__}: answer a dict with inputs and outputs, or a ModelSchema."
        )
    unknown = document.keys() - {"inputs", "outputs"}
    if unknown:
        raise ModelError(f"{where} has {', '.join(sorted(map(repr, unknown)))}: it may have inputs and outputs.")
    return {part: _fields(document.get(part) or (), f"{where}, {part}") for part in ("inputs", "outputs")}


def example_of(schema: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """One row of input, where each input of the schema (as of schema_of) has an example; else None."""
    inputs = schema["inputs"] if schema else []
    if not inputs or not all("example" in given for given in inputs):
        return None
    return {given["name"]: given["example"] for given in inputs}


def _fields(given: Any, where: str) -> list[dict[str, Any]]:
    if isinstance(given, str | Mapping) or not isinstance(given, Sequence):
        raise ModelError(f"{where} must be a list of fields, each a dict with a name and a type.")
    fields = [_field(field, f"{where}[{position}]") for position, field in enumerate(given)]
    names = [field["name"] for field in fields]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ModelError(f"{where} has {twice[0]!r} twice: name each field once.")
    return fields


def _field(given: Any, where: str) -> dict[str, Any]:
    if isinstance(given, BaseFeature | InferenceOutput):
        given = given.to_dict()
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str) or not given["name"]:
        raise ModelError(f'{where} must be a dict with a name and a type, as {{"name": "age", "type": "int"}}.')
    unknown = given.keys() - {"name", "type", "example"}
    if unknown:
        raise ModelError(f"{where} has {', '.join(sorted(map(repr, unknown)))}: it may have name, type and example.")
    kind = given.get("type", "any")
    kind = kind.__name__ if isinstance(kind, type) else kind
    if kind not in TYPES:
        raise ModelError(f"{where} has the type {kind!r}: it must be one of {', '.join(TYPES)}.")
    field = {"name": given["name"], "type": kind}
    if "example" in given:
        try:
            field["example"] = jsons.plain(given["example"])
        except HTTPException as error:
            raise ModelError(
                f"{where} has an example of {type(given['example']).__name__}, which JSON cannot hold."
            ) from error
    return field
