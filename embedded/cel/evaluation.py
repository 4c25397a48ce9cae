"""What operators and macros do: values are JSON data, and datetimes, timedeltas and decimals that functions make of
them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

Env = dict[str, Any]
Node = Callable[[Env], Any]


class CelRuntimeError(Exception):
    """An evaluation that has no value: a missing key, a wrong type, an overflow."""


class Unsigned(int):
    """A CEL uint."""


def binary(function: Callable[[Any, Any], Any], left: Node, right: Node) -> Node:
    return lambda env: function(left(env), right(env))


def select(target: Node, field: str) -> Node:
    def select(env: Env) -> Any:
        value = target(env)
        if not isinstance(value, dict) or field not in value:
            raise CelRuntimeError(f"no such key: {field}")
        return value[field]

    return select


def has(value: Any, field: str) -> bool:
    if not isinstance(value, dict):
        raise CelRuntimeError(f"no such key: {field}")
    return field in value


def truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise CelRuntimeError("no such overload")
    return value


def logical(left: Node, right: Node, *, decisive: bool) -> Node:
    """`||` (decisive True) and `&&`: a side that decides hides an error of the other."""

    def evaluate(env: Env) -> bool:
        try:
            first = truth(left(env))
        except CelRuntimeError:
            if truth(right(env)) is decisive:
                return decisive
            raise
        return first if first is decisive else truth(right(env))

    return evaluate


def macro(name: str, target: Node, variable: str, bodies: list[Node]) -> Node:
    def each(env: Env) -> list[Any]:
        value = target(env)
        if not isinstance(value, list | dict):
            raise CelRuntimeError("no such overload")
        return list(value)

    body = bodies[0]

    def quantified(env: Env) -> bool:
        decisive = name == "exists"
        problem: CelRuntimeError | None = None
        for item in each(env):
            try:
                if truth(body({**env, variable: item})) is decisive:
                    return decisive
            except CelRuntimeError as error:
                problem = problem or error
        if problem is not None:
            raise problem
        return not decisive

    if name in ("all", "exists"):
        return quantified
    if name in ("exists_one", "existsOne"):
        return lambda env: sum(truth(body({**env, variable: item})) for item in each(env)) == 1
    if name == "filter":
        return lambda env: [item for item in each(env) if truth(body({**env, variable: item}))]
    if len(bodies) == 2:
        return lambda env: [
            bodies[1]({**env, variable: item}) for item in each(env) if truth(body({**env, variable: item}))
        ]
    return lambda env: [body({**env, variable: item}) for item in each(env)]


def numeric(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CelRuntimeError("no such overload")
    return value


def checked(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, Unsigned) and not -(2**63) <= value < 2**63:
        raise CelRuntimeError("integer overflow")
    return value


def equal(left: Any, right: Any) -> bool:
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right)


def _ordered(left: Any, right: Any) -> None:
    both = (left, right)
    if any(isinstance(value, bool) for value in both):
        fits = all(isinstance(value, bool) for value in both)
    else:
        fits = any(
            all(isinstance(value, kinds) for value in both)
            for kinds in ((int, float), (str,), (timedelta,), (datetime,))
        )
    if not fits:
        raise CelRuntimeError("no such overload")


def _comparison(function: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(left: Any, right: Any) -> bool:
        _ordered(left, right)
        return function(left, right)

    return compare


RELATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": equal,
    "!=": lambda left, right: not equal(left, right),
    "<": _comparison(lambda left, right: left < right),
    "<=": _comparison(lambda left, right: left <= right),
    ">": _comparison(lambda left, right: left > right),
    ">=": _comparison(lambda left, right: left >= right),
}


def contains_in(item: Any, container: Any) -> bool:
    if isinstance(container, dict):
        return item in container
    if isinstance(container, list):
        return any(equal(item, held) for held in container)
    raise CelRuntimeError("no such overload")


def index(container: Any, key: Any) -> Any:
    if isinstance(container, dict):
        if key not in container:
            raise CelRuntimeError(f"no such key: {key}")
        return container[key]
    if isinstance(container, list) and isinstance(key, int) and not isinstance(key, bool):
        if not 0 <= key < len(container):
            raise CelRuntimeError(f"index out of bounds: {key}")
        return container[key]
    raise CelRuntimeError("no such overload")


def add(left: Any, right: Any) -> Any:
    for kind in (str, list, timedelta):
        if isinstance(left, kind) and isinstance(right, kind):
            return left + right  # type: ignore[operator] # same kind on both sides
    if isinstance(left, datetime) and isinstance(right, timedelta):
        return left + right
    if isinstance(left, timedelta) and isinstance(right, datetime):
        return right + left
    return checked(numeric(left) + numeric(right))


def subtract(left: Any, right: Any) -> Any:
    if isinstance(left, datetime | timedelta) and isinstance(right, datetime | timedelta):
        try:
            return left - right  # type: ignore[operator] # a duration minus a timestamp is the TypeError
        except TypeError:
            raise CelRuntimeError("no such overload") from None
    return checked(numeric(left) - numeric(right))


def multiply(left: Any, right: Any) -> Any:
    return checked(numeric(left) * numeric(right))


def divide(left: Any, right: Any) -> Any:
    if isinstance(numeric(left), float) or isinstance(numeric(right), float):
        return left / right if right else float("nan")
    if right == 0:
        raise CelRuntimeError("division by zero")
    return checked(abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1))


def modulo(left: Any, right: Any) -> Any:
    if right == 0:
        raise CelRuntimeError("modulus by zero")
    return left - divide(left, right) * right


def call(name: str, function: Callable[..., Any], arguments: list[Any]) -> Any:
    try:
        return function(*arguments)
    except (TypeError, AttributeError):
        raise CelRuntimeError(f"no such overload: {name}") from None
    except (ValueError, OverflowError) as error:
        raise CelRuntimeError(str(error)) from None
