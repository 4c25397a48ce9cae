"""What model code imports: `from runtime.model import Model, api, log_metric`.

Code written for the reference platform's SDK needs a changed import: `qwak` and `qwak.model` both become
`runtime.model` (`import runtime.model as qwak`, `from runtime.model.base import QwakModel`,
`from runtime.model.exceptions import QwakHTTPException`).
"""

from typing import Any

# First of all: importing the module sets `api` to the module, and this sets it to the decorator, for good.
from runtime.model.api import AnalyticsLogger, api
from runtime.model.base import FrogMlModel, Model, QwakModel
from runtime.model.exceptions import BadRequest, HTTPException
from runtime.model.files import load_data, load_file, log_data, log_file
from runtime.model.metrics import log_metric, log_metrics, log_param, log_params
from runtime.model.schema import ExplicitFeature, InferenceOutput, ModelSchema, RequestInput
from runtime.model.tools import frogml_timer, qwak_timer, run_local, timer

__all__ = [
    "AnalyticsLogger",
    "BadRequest",
    "ExplicitFeature",
    "FrogMlModel",
    "HTTPException",
    "InferenceOutput",
    "Model",
    "ModelSchema",
    "QwakModel",
    "RequestInput",
    "api",
    "frogml_timer",
    "load_data",
    "load_file",
    "log_data",
    "log_file",
    "log_metric",
    "log_metrics",
    "log_param",
    "log_params",
    "qwak_timer",
    "run_local",
    "timer",
]

_ABSENT = {
    "log_model": "the model is stored with its build by itself; log_file() keeps other files",
    "load_model": "a build has its own model only; keep what it needs of others in its code, or fetch it in build()",
    "QwakClient": "what is deployed is told by the specs in Git",
    "FrogMLClient": "what is deployed is told by the specs in Git",
}


def __getattr__(name: str) -> Any:
    """A name of the reference platform's SDK that has no place here says why."""
    reason = _ABSENT.get(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}" + (f": {reason}" if reason else ""))
