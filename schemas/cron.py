"""Cron expressions with the grammar and the instants of Kubernetes CronJobs: five fields, or a macro such as @daily."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

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


#: In the order of `FIELDS`.
Fields: TypeAlias = tuple[Field, Field, Field, Field, Field]


@lru_cache(maxsize=1024)  # a schedule is asked for in every pass
def parse(expression: str) -> Fields:
    """The five fields of an expression. Raises `CronError`.

    The grammar is that of robfig/cron v3 `ParseStandard`, which Kubernetes uses: no seconds, no `L`, `W` or `#`,
    and 7 is no day of the week. Stricter in what is likely a mistake: no empty part ("1,,2") and no `*-5`. A time
    zone in the expression (CRON_TZ=) and `@every 5m`, which count from no fixed instant, are refused: `time_zone` and
    `interval` say both.
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


def next_after(fields: Fields, moment: datetime, zone: ZoneInfo) -> datetime | None:
    """The first instant after `moment`, in UTC; None where none comes within five years, as with 30 February.

    An instant belongs to a schedule when the clock of `zone` reads what the fields allow, to the minute. So a time
    that the clock leaves out in spring is skipped, and one that it shows twice in autumn counts twice, as in a
    Kubernetes CronJob. The day must be one that both day fields allow where either of them has a star, else one that
    either allows.

    robfig/cron v3, asked a second before any instant of ours, names that instant. Asked from further away it may name
    others around a midnight or a half-hour that the clock leaves out, or two hours that it shows twice (Beirut, Havana,
    Lord Howe, Troll): it passes over instants, or names one on a day that the fields exclude. What has run must not
    depend on who asks from where.
    """
    begin = moment.astimezone(zone)
    # robfig gives up at the end of the fifth year after that of the second in which it begins.
    end = date((moment + timedelta(seconds=1)).astimezone(zone).year + 5, 12, 31)
    return next((instant for instant in _instants(fields, begin, end, zone, step=1) if instant > moment), None)


def latest_before(fields: Fields, since: datetime, now: datetime, zone: ZoneInfo) -> datetime | None:
    """The newest instant in (since, now], in UTC; None where there is none. Cheap for years, too."""
    begin, end = now.astimezone(zone), since.astimezone(zone).date()
    newest = next((instant for instant in _instants(fields, begin, end, zone, step=-1) if instant <= now), None)
    return newest if newest is not None and newest > since else None


def _instants(
    fields: Fields, begin: datetime, end: date, zone: ZoneInfo, *, step: Literal[1, -1]
) -> Iterator[datetime]:
    """The instants from the hour of `begin` (or some on its other side) to the day `end`: onwards, or back in time.

    The instants of a day all lie before those of the next: since 2012 no zone has turned its clock back over a
    midnight that had already passed.
    """
    hours, minutes = (sorted(field.values)[::step] for field in (fields[1], fields[0]))
    for day in _days(fields, begin.date(), end, step):
        midnight = datetime.combine(day, time())
        offsets = _offsets(midnight, zone)
        if len(offsets) == 1:
            for hour in hours:
                if day != begin.date() or (hour - begin.hour) * step >= 0:
                    start = (midnight - offsets[0]).replace(tzinfo=UTC) + timedelta(hours=hour)
                    yield from (start + timedelta(minutes=minute) for minute in minutes)
        else:  # the clock is changed: a reading may be no instant, or two
            readings = [midnight + timedelta(hours=hour, minutes=minute) for hour in hours for minute in minutes]
            pairs = ((reading, (reading - offset).replace(tzinfo=UTC)) for reading in readings for offset in offsets)
            real = (moment for reading, moment in pairs if moment.astimezone(zone).replace(tzinfo=None) == reading)
            yield from sorted(real)[::step]


def _offsets(midnight: datetime, zone: ZoneInfo) -> list[timedelta]:
    """What the clock is ahead of UTC at the beginning and at the end of a day."""
    edges = (edge.replace(fold=fold) for edge in (midnight, midnight + timedelta(days=1)) for fold in (0, 1))
    return list({offset for edge in edges if (offset := zone.utcoffset(edge)) is not None})


def _days(fields: Fields, begin: date, end: date, step: Literal[1, -1]) -> Iterator[date]:
    """The days from `begin` to `end` that the fields allow, in this order."""
    _, _, days, months, weekdays = fields
    first, last = min(begin, end), max(begin, end)
    for count in range(begin.year * 12 + begin.month - 1, end.year * 12 + end.month - 1 + step, step):
        year, month = count // 12, count % 12 + 1
        if month not in months.values:
            continue
        for number in range(1, monthrange(year, month)[1] + 1)[::step]:
            day = date(year, month, number)
            allowed = number in days.values, day.isoweekday() % 7 in weekdays.values
            if first <= day <= last and (all(allowed) if days.star or weekdays.star else any(allowed)):
                yield day
