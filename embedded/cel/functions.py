"""The function library: global functions, and methods of values."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from embedded.cel.evaluation import RELATIONS, Unsigned, checked, equal, truth
from embedded.patterns import go_pattern
from embedded.quantity import parse_quantity

_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def _duration(text: str) -> timedelta:
    sign, body = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if body == "0":
        return timedelta(0)
    parts = _DURATION.findall(body)
    if not body or "".join(number + unit for number, unit in parts) != body:
        raise ValueError(f'time: invalid duration "{text}"')
    return sign * timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))


def _timestamp(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"timestamp without a zone: {text}")
    return moment.astimezone(UTC)


def _string(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    raise TypeError


def _int(value: Any) -> int:
    if isinstance(value, datetime):
        return int(value.timestamp())
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    return int(checked(int(value)))


def _size(value: Any) -> int:
    if not isinstance(value, str | list | dict):
        raise TypeError
    return len(value)


def _is_quantity(text: Any) -> bool:
    try:
        parse_quantity(text)
    except ValueError:
        return False
    return True


def _matches(text: str, pattern: str) -> bool:
    return go_pattern(pattern).search(text) is not None


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    found = [match[0] for match in go_pattern(pattern).finditer(text)]
    return found if limit < 0 else found[:limit]


def _string_only(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(text: Any, *arguments: Any) -> Any:
        if not isinstance(text, str):
            raise TypeError
        return function(text, *arguments)

    return call


def _is_sorted(items: list[Any]) -> bool:
    return all(RELATIONS["<="](items[index], items[index + 1]) for index in range(len(items) - 1))


def _index_of(container: Any, item: Any, offset: int = 0) -> int:
    if isinstance(container, str):
        return container.find(item, offset)
    return next((index for index, held in enumerate(container) if equal(held, item)), -1)


def _last_index_of(container: Any, item: Any) -> int:
    if isinstance(container, str):
        return container.rfind(item)
    return next((index for index in reversed(range(len(container))) if equal(container[index], item)), -1)


def _split(text: str, separator: str, limit: int = -1) -> list[str]:
    if limit == 0:
        return []
    if not separator:
        return list(text)
    return text.split(separator, limit - 1 if limit > 0 else -1)


def _substring(text: str, start: int, end: int | None = None) -> str:
    stop = len(text) if end is None else end
    if not 0 <= start <= stop <= len(text):
        raise ValueError(f"index out of range: {start}")
    return text[start:stop]


def _compare(left: Any, right: Any) -> int:
    return int(left > right) - int(left < right)


def _is_address(parse: Callable[[str], Any]) -> Callable[[str], bool]:
    def call(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return call


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "bool": lambda value: {"true": True, "false": False}[value] if isinstance(value, str) else truth(value),
    "double": float,
    "duration": _string_only(_duration),
    "dyn": lambda value: value,
    "int": _int,
    "isCIDR": _is_address(ipaddress.ip_network),
    "isIP": _is_address(ipaddress.ip_address),
    "isQuantity": _is_quantity,
    "quantity": _string_only(parse_quantity),
    "size": _size,
    "string": _string,
    "timestamp": _string_only(_timestamp),
    "uint": lambda value: Unsigned(_int(value)),
}

METHODS: dict[str, Callable[..., Any]] = {
    "charAt": _string_only(lambda text, index: text[index]),
    "compareTo": _compare,
    "contains": _string_only(lambda text, part: part in text),
    "endsWith": _string_only(lambda text, part: text.endswith(part)),
    "find": _string_only(lambda text, pattern: (_find_all(text, pattern, 1) or [""])[0]),
    "findAll": _string_only(_find_all),
    "getHours": lambda span: int(span.total_seconds() // 3600) if isinstance(span, timedelta) else span.hour,
    "getMinutes": lambda span: int(span.total_seconds() // 60) if isinstance(span, timedelta) else span.minute,
    "getSeconds": lambda span: int(span.total_seconds()) if isinstance(span, timedelta) else span.second,
    "indexOf": _index_of,
    "isGreaterThan": lambda left, right: left > right,
    "isLessThan": lambda left, right: left < right,
    "isSorted": _is_sorted,
    "join": lambda items, separator="": separator.join(items),
    "lastIndexOf": _last_index_of,
    "lowerAscii": _string_only(str.lower),
    "matches": _string_only(_matches),
    "max": max,
    "min": min,
    "replace": _string_only(lambda text, old, new, limit=-1: text.replace(old, new, limit)),
    "size": _size,
    "split": _string_only(_split),
    "startsWith": _string_only(lambda text, part: text.startswith(part)),
    "substring": _string_only(_substring),
    "sum": sum,
    "trim": _string_only(str.strip),
    "upperAscii": _string_only(str.upper),
}
