"""A client for the integration tests of a model: `from runtime.model.testing.fixtures import real_time_client`.

    def test_a_new_customer_is_likely_to_stay(real_time_client):
        (answer,) = real_time_client.predict([{"age": 41}])
        assert answer["churn"] < 0.5

In a build, it asks the model that was built (TRUEUP_ARTIFACT names the folder of its artifact); elsewhere, one that it
builds from `main` in the working directory, once.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from runtime.model import adapters, frames, jsons, loader
from runtime.model.api import Api, api_of

ARTIFACT = "TRUEUP_ARTIFACT"


class RealTimeClient:
    """Asks a model in this process as the reference platform's inference client asks it over HTTP.

    An error is raised as the HTTPException that the server would answer with, and what predict() raises as it is.
    """

    def __init__(self, api: Api) -> None:
        self._api = api

    def predict(
        self,
        feature_vectors: Any,
        output_format: Any = None,
        metadata: dict[str, str] | None = None,
        orient: str = "split",
    ) -> Any:
        """What the model answers, as Python values; with an `output_format` of PANDAS a DataFrame, of RAW the body.

        `feature_vectors` is a DataFrame (sent in `orient`), a list or dict (sent as JSON), text or bytes (sent as is).
        """
        if frames.is_frame(feature_vectors):
            body = jsons.dumps(frames.structure_of(feature_vectors, orient))
        elif isinstance(feature_vectors, str | bytes):
            body = feature_vectors.encode() if isinstance(feature_vectors, str) else feature_vectors
        else:
            body = jsons.dumps(feature_vectors)
        headers = {name.lower(): value for name, value in (metadata or {}).items()}
        answer, _ = self._api.encode(self._api.call(self._api.decode(body, adapters.JSON, headers)))
        wanted = getattr(output_format, "name", output_format) or "DICTIONARY"
        if wanted == "RAW":
            return answer
        return frames.rows_of(jsons.loads(answer)) if wanted == "PANDAS" else jsons.loads(answer)


@cache
def _model() -> Any:
    artifact = os.environ.get(ARTIFACT)
    if artifact:
        return loader.load(Path(artifact))
    model = loader.new_model(Path.cwd(), "", "main")
    model.build()
    initialize = getattr(model, "initialize_model", None)
    if callable(initialize):
        initialize()
    return model


@pytest.fixture(scope="session")
def real_time_client() -> RealTimeClient:
    """A client of the model under test."""
    return RealTimeClient(api_of(_model()))
