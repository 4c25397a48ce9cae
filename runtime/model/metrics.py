"""The metrics and parameters that a model leaves while it is built. They belong to the process: one build, one process.

The metrics are what promotion gates compare, so only finite numbers are taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Number, Real
from typing import Any, SupportsFloat, cast

from runtime.model.exceptions import ModelError

#: What a parameter may be.
Parameter = str | int | float | bool | None

_metrics: dict[str, float] = {}
_parameters: dict[str, Parameter] = {}


def log_metric(metrics: Mapping[str, Any] | str, value: Any = None) -> None:
    """Keep metrics of this build: `log_metric({"auc": 0.91})` or `log_metric("auc", 0.91)`.

    The last value of a name wins. Raises ValueError for a value that is no finite number: a gate could not compare it.
    """
    _metrics.update({_name(name): _metric(name, number) for name, number in _pairs(metrics, value, "metric").items()})


def log_param(parameters: Mapping[str, Any] | str, value: Any = None) -> None:
    """Keep parameters of this build: `log_param({"depth": 6})` or `log_param("depth", 6)`.

    The last value of a name wins. Numbers, text, true, false and None stay what they are; anything else is kept as
    its text.
    """
    pairs = _pairs(parameters, value, "parameter")
    _parameters.update({_name(name): _parameter(setting) for name, setting in pairs.items()})


log_metrics = log_metric
log_params = log_param


def metrics_of(model: object) -> dict[str, float]:
    """The metrics of a built model: what it left in `self.metrics`, and over it what it logged.

    Raises ModelError where `self.metrics` is a dict that has something else than finite numbers.
    """
    left = getattr(model, "metrics", None)
    found: dict[str, float] = {}
    if isinstance(left, Mapping):
        try:
            found = {_name(name): _metric(name, number) for name, number in left.items()}
        except ValueError as error:
            raise ModelError(f"self.metrics of {type(model).__name__} cannot be used after build(): {error}") from error
    return found | _metrics


def parameters_of_build() -> dict[str, Parameter]:
    """The parameters that were logged."""
    return dict(_parameters)


def forget() -> None:
    """Forget what was logged: another build begins in this process, as in tests."""
    _metrics.clear()
    _parameters.clear()


def _pairs(given: Mapping[str, Any] | str, value: Any, what: str) -> Mapping[str, Any]:
    if isinstance(given, Mapping):
        return given
    if value is not None or what == "parameter":
        return {given: value}
    raise ValueError(f'log a {what} as {{"name": value}} or as "name", value; not {given!r}')


def _name(name: object) -> str:
    if not (isinstance(name, str) and name.strip()):
        raise ValueError(f"{name!r} is no name: write some text")
    return name


def _metric(name: object, value: Any) -> float:
    number = _number(value)
    if number is None:
        raise ValueError(f"the metric {name!r} is {value!r}: log a number")
    if not math.isfinite(number):
        raise ValueError(f"the metric {name!r} is {number}: no gate can compare it. Find out why, or leave it out")
    return number


def _number(value: Any) -> float | None:
    """Numbers of numpy, pandas, torch and Decimal are numbers too; text is none, even where float() takes it."""
    if isinstance(value, str | bytes) or not (isinstance(value, Number) or hasattr(value, "item")):
        return None
    try:
        return float(cast(SupportsFloat, value))
    except (TypeError, ValueError, OverflowError):
        return None


def _parameter(value: Any) -> Parameter:
    item = getattr(value, "item", None)
    plain = item() if callable(item) and getattr(value, "ndim", 0) == 0 else value
    if isinstance(plain, Real) and not math.isfinite(plain):
        return str(plain)
    return plain if isinstance(plain, str | int | float | bool | None) else str(plain)
