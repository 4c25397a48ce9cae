"""`python -m runtime.steps.validate ARTIFACT ANSWER`: loads an artifact as a server does, and predicts on its example.

The answer has `predicted`: false where there is no example, or its input is none that a row of values makes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.exits import Exit
from runtime.model import adapters, jsons, loader
from runtime.model.api import Api, api_of
from runtime.model.exceptions import ModelError
from runtime.steps.step import StepError, call, run


def validate(arguments: list[str]) -> dict[str, Any]:
    """Raises StepError."""
    artifact = Path(arguments[0])
    example = json.loads((artifact / loader.DESCRIPTION).read_bytes())["example"]
    try:
        model = loader.load(artifact)
        api = api_of(model)
        body = _body(api, example) if example is not None else None
        if body is not None:
            call(
                lambda: api.encode(api.call(api.decode(body, adapters.JSON))),
                f"{type(model).__name__}.predict() on the example",
            )
    except ModelError as error:
        raise StepError(error, Exit.ARTIFACT) from error
    return {"predicted": body is not None}


def _body(api: Api, example: Mapping[str, Any]) -> bytes | None:
    """The example as a client would send it; None where clients send something else than JSON."""
    return next((body for adapter in _inputs(api) if (body := _as_sent(adapter, example)) is not None), None)


def _inputs(api: Api) -> list[adapters.BaseInputAdapter]:
    adapter = api._input
    return list(adapter.adapters) if isinstance(adapter, adapters.MultiInputAdapter) else [adapter]


def _as_sent(adapter: adapters.BaseInputAdapter, example: Mapping[str, Any]) -> bytes | None:
    if isinstance(adapter, adapters.DataFrameInputAdapter):
        return jsons.dumps([example])
    if isinstance(adapter, adapters.NumpyInputAdapter):
        return jsons.dumps([list(example.values())])
    if isinstance(adapter, adapters.JsonInputAdapter):
        return jsons.dumps(example)
    return None


if __name__ == "__main__":
    sys.exit(run(validate))
