"""Cron expressions with the grammar of Kubernetes CronJobs: five fields, or a macro such as @daily."""

from __future__ import annotations

from typing import NamedTuple

#: minute, hour, day of month, month, day of week: names, and the lowest and highest value.
FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("day of week", 0, 6))
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_NAMES: tuple[dict[str, int], ...] = (
    {},
    {},
    {},
    {name: number for number, name in enumerate(_MONTHS, 1)},
    {name: number for number, name in enumerate(_DAYS)},
)
MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class CronError(ValueError):
    """The expression says no schedule; the text says which field, and why."""


class Field(NamedTuple):
    """The values that one field allows; `star` as cron means it: the field does not restrict the day."""

    values: frozenset[int]
    star: bool


def parse(expression: str) -> tuple[Field, Field, Field, Field, Field]:
    """The five fields of an expression. Raises `CronError`.

    The grammar is that of robfig/cron v3 `ParseStandard`, which Kubernetes uses: no seconds, no `L`, `W` or `#`,
    and 7 is no day of the week.
    """
    parts = MACROS.get(expression.strip(), expression).split()
    if len(parts) != len(FIELDS):
        raise CronError(f"a cron expression has 5 fields or is one of {', '.join(MACROS)}; this one has {len(parts)}")
    minute, hour, day, month, weekday = (_field(text, index) for index, text in enumerate(parts))
    return minute, hour, day, month, weekday


def _field(text: str, index: int) -> Field:
    name, lowest, highest = FIELDS[index]
    values: set[int] = set()
    star = False
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = _number(step_text, index) if slash else 1
        if span in ("*", "?"):
            first, last = lowest, highest
            star = star or step == 1  # "*/2" restricts the day, "*/1" does not: as the Go library has it
        elif "-" in span:
            first, last = (_number(bound, index) for bound in span.split("-", 1))
        else:
            first = _number(span, index)
            last = highest if slash else first
        if first < lowest or last > highest or first > last:
            raise CronError(f"the {name} {part!r} is not within {lowest}-{highest}")
        if step == 0:
            raise CronError(f"the {name} {part!r} has a step of 0")
        values.update(range(first, last + 1, step))
    return Field(frozenset(values), star)


def _number(text: str, index: int) -> int:
    if text.lower() in _NAMES[index]:
        return _NAMES[index][text.lower()]
    if not (text.isascii() and text.isdigit()):
        raise CronError(f"the {FIELDS[index][0]} {text!r} is not a number")
    return int(text)
