"""`python -m runtime.steps.train ARTIFACT FOLDER MAIN_DIR ANSWER`: makes the model, builds it, and pickles it.

ARTIFACT is a folder with the code; the model joins it. The answer has `metrics`, `parameters`, `schema` and `example`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from runtime.exits import Exit
from runtime.model import files, loader
from runtime.model.exceptions import ModelError
from runtime.model.metrics import metrics_of, parameters_of_build
from runtime.model.schema import example_of, schema_of
from runtime.steps.step import StepError, call, run


def train(arguments: list[str]) -> dict[str, Any]:
    """Raises StepError."""
    artifact, folder, main_dir = Path(arguments[0]), arguments[1], arguments[2]
    files.keep_in(artifact / loader.FILES)
    try:
        model = loader.new_model(artifact / loader.CODE, folder, main_dir)
        call(model.build, f"{type(model).__name__}.build()")
        metrics, schema = metrics_of(model), schema_of(model)
    except ModelError as error:
        raise StepError(error, Exit.MODEL) from error
    try:
        loader.save(model, artifact)
    except ModelError as error:
        raise StepError(error, Exit.ARTIFACT) from error
    return {
        "metrics": metrics,
        "parameters": parameters_of_build(),
        "schema": schema,
        "example": example_of(schema),
    }


if __name__ == "__main__":
    sys.exit(run(train))
