"""How a model's predict() is called: the decorator that says it, and the Api that does it.

`runtime.model.api` as an attribute is the decorator; take what is here by `from runtime.model.api import ...`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from runtime.model import adapters, frames
from runtime.model.exceptions import BadRequest, ModelError, NoAnswer
from runtime.model.frames import CannotSplit

__all__ = ["AnalyticsLogger", "Api", "BadRequest", "CannotSplit", "NoAnswer", "api", "api_of"]

Function = TypeVar("Function", bound=Callable[..., Any])
_ATTRIBUTE = "__trueup_api__"
_LOGGER = "analytics_logger"


@dataclass(frozen=True, slots=True)
class Options:
    """What `@api(...)` says."""

    #: whether requests and answers go into the inference log, which share of them, and without which columns
    analytics: bool = True
    sample_ratio: float = 1.0
    exclude_columns: tuple[str, ...] = ()
    feature_extraction: bool = False
    input: adapters.BaseInputAdapter = field(default_factory=adapters.DataFrameInputAdapter)
    output: adapters.BaseOutputAdapter = field(default_factory=adapters.DataFrameOutputAdapter)


def api(  # noqa: PLR0917 - in the order of the reference platform
    analytics: bool = True,
    analytics_sample_ratio: float = 1.0,
    analytics_exclude_columns: Sequence[str] = (),
    feature_extraction: bool = False,
    input_adapter: adapters.BaseInputAdapter | type[adapters.BaseInputAdapter] | None = None,
    output_adapter: adapters.BaseOutputAdapter | type[adapters.BaseOutputAdapter] | None = None,
) -> Callable[[Function], Function]:
    """Decorates predict(): `@api()`. Without it, predict() takes a DataFrame and is logged in full.

    `analytics`, `analytics_sample_ratio` (0 to 1) and `analytics_exclude_columns` are about the inference log;
    `input_adapter` and `output_adapter` (default: DataFrame, and its records) about what goes in and out.
    There is no feature store: a model with `feature_extraction=True` is refused when it is loaded.
    """
    if callable(analytics):
        raise TypeError("@api needs parentheses: write @api() above predict()")
    if not 0 <= analytics_sample_ratio <= 1:
        raise ValueError(f"analytics_sample_ratio is {analytics_sample_ratio}; it must be from 0 to 1")
    if isinstance(analytics_exclude_columns, str):
        raise TypeError(f"analytics_exclude_columns must be a list: write [{analytics_exclude_columns!r}]")
    options = Options(
        analytics,
        float(analytics_sample_ratio),
        tuple(analytics_exclude_columns),
        feature_extraction,
        adapters.made(input_adapter or adapters.DataFrameInputAdapter()),
        adapters.made(output_adapter or adapters.DataFrameOutputAdapter()),
    )

    def mark(function: Function) -> Function:
        setattr(function, _ATTRIBUTE, options)
        return function

    return mark


class AnalyticsLogger:
    """What predict() gets where it has a parameter `analytics_logger`: its way into the inference log."""

    __slots__ = ("_keep",)

    def __init__(self, keep: Callable[[Any], None]) -> None:
        self._keep = keep

    def log(self, log: Any) -> None:
        """Keep a value (that JSON can hold) beside this request and its answer."""
        self._keep(log)


class Api:
    """How a model is asked: decode() the body, call() predict, encode() its answer.

    `analytics`, `sample_ratio` and `exclude_columns` say what of it may be logged. Where `batchable`, values of one
    kind() may be put into one call by join(), and its result be split().
    """

    def __init__(self, predict: Callable[..., Any], options: Options, logs: bool) -> None:
        self._predict = predict
        self._input = options.input
        self._output = options.output
        self._logs = logs
        self.analytics = options.analytics
        self.sample_ratio = options.sample_ratio
        self.exclude_columns = frozenset(options.exclude_columns)
        # What the model itself logs belongs to one request.
        self.batchable = options.input.batchable and options.output.batchable and not logs

    def decode(self, body: bytes, content_type: str = adapters.JSON, headers: Mapping[str, str] | None = None) -> Any:
        """The argument of predict(). Names of `headers` are in lower case. Raises BadRequest."""
        return self._input.decode(body, content_type, headers or {})

    def from_tensors(self, tensors: dict[str, Any]) -> Any:
        """The argument of predict(), from named tensors as nested lists (runtime.model.tensors). Raises BadRequest."""
        return self._input.from_tensors(tensors)

    def call(self, value: Any, log: Callable[[Any], None] | None = None) -> Any:
        """What predict() answers. `log` gets what it logs. Raises whatever predict() raises."""
        if self._logs:
            return self._predict(value, **{_LOGGER: AnalyticsLogger(log or _ignore)})
        return self._predict(value)

    def encode(self, result: Any) -> tuple[bytes, str]:
        """The body of the answer and its Content-Type. Raises NoAnswer."""
        return self._output.encode(result)

    def rows(self, value: Any) -> int:
        """How many rows a value has."""
        return frames.count(value)

    def kind(self, value: Any) -> Hashable:
        """Only values of one kind may be joined: same columns, same types. Others would change one another."""
        return frames.kind_of(value)

    def join(self, values: Sequence[Any]) -> Any:
        """One value with the rows of all of them. Raises ValueError for values of more than one kind."""
        return frames.join(values)

    def split(self, result: Any, sizes: Sequence[int]) -> list[Any]:
        """The results of the values that were joined, `sizes` being their rows. Raises CannotSplit."""
        return frames.split(result, sizes)


def _ignore(_: Any) -> None:
    pass


def api_of(model: Any) -> Api:
    """How this model is asked. Raises ModelError where its predict() cannot be, or a package is missing."""
    predict = getattr(model, "predict", None)
    name = f"{type(model).__name__}.predict"
    if not callable(predict):
        raise ModelError(f"{type(model).__name__} has no method predict: write `def predict(self, df)`.")
    options: Options = getattr(predict, _ATTRIBUTE, None) or Options()
    if options.feature_extraction:
        raise ModelError(
            f"{name} asks for feature_extraction, and there is no feature store to extract from: "
            "fetch the features in predict(), or let the caller send them."
        )
    if inspect.iscoroutinefunction(predict):
        raise ModelError(
            f"{name} is a coroutine: write `def predict`, without async. Each server process answers one call."
        )
    logs = _takes_logger(predict, name)
    options.input.prepare()
    return Api(predict, options, logs)


def _takes_logger(predict: Callable[..., Any], name: str) -> bool:
    """Whether predict() asks for the logger. Raises ModelError where it cannot be called with one value."""
    try:
        parameters = inspect.signature(predict).parameters
    except (ValueError, TypeError):
        return False  # Compiled code does not say. It is called with one value.
    positional = [
        parameter
        for parameter in parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.VAR_POSITIONAL)
        and parameter.name != _LOGGER
    ]
    if not positional:
        raise ModelError(f"{name} takes no input: write `def predict(self, df)`.")
    wanting = [
        parameter.name
        for parameter in parameters.values()
        if parameter is not positional[0]
        and parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and parameter.name != _LOGGER
    ]
    if wanting:
        raise ModelError(
            f"{name} wants {', '.join(repr(name) for name in wanting)} besides its input, and nobody gives that: "
            "give it a default, or read it from the input."
        )
    return _LOGGER in parameters
