"""The instants of cron expressions: those of robfig/cron v3, which runs the CronJobs of Kubernetes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from schemas.cron import FIELDS, CronError, latest_before, next_after, parse
from tests.conftest import examples

MINUTE = timedelta(minutes=1)


def instants(expression: str, begin: datetime, zone: ZoneInfo, count: int) -> list[datetime]:
    found: list[datetime] = []
    while len(found) < count and (following := next_after(parse(expression), begin, zone)) is not None:
        found.append(begin := following)
    return found


def shown(moments: list[datetime], zone: ZoneInfo) -> str:
    """As the clock of the zone reads, with what it is ahead of UTC."""
    return ", ".join(moment.astimezone(zone).strftime("%Y-%m-%d %H:%M%z") for moment in moments)


#: What robfig/cron v3.0.1, compiled, answers: zone, where it is asked from (local time), expression, instants.
ROBFIG = [
    # a time that the clock leaves out in spring is skipped, not moved
    (
        *("America/New_York", "2026-03-07 00:00", "30 2 * * *"),
        "2026-03-07 02:30-0500, 2026-03-09 02:30-0400, 2026-03-10 02:30-0400",
    ),
    (
        *("America/New_York", "2026-03-08 00:30", "0 * * * *"),
        "2026-03-08 01:00-0500, 2026-03-08 03:00-0400, 2026-03-08 04:00-0400",
    ),
    (
        *("America/New_York", "2026-03-08 00:00", "*/45 2 * * *"),
        "2026-03-09 02:00-0400, 2026-03-09 02:45-0400, 2026-03-10 02:00-0400",
    ),
    (
        "Europe/Berlin",
        "2026-03-28 23:05",
        "57 0-3 * * *",
        "2026-03-29 00:57+0100, 2026-03-29 01:57+0100, 2026-03-29 03:57+0200",
    ),
    # one that it shows twice in autumn counts twice
    (
        *("America/New_York", "2026-10-31 00:00", "30 1 * * *"),
        "2026-10-31 01:30-0400, 2026-11-01 01:30-0400, 2026-11-01 01:30-0500, 2026-11-02 01:30-0500",
    ),
    (
        *("America/New_York", "2026-11-01 00:45", "*/30 * * * *"),
        "2026-11-01 01:00-0400, 2026-11-01 01:30-0400, 2026-11-01 01:00-0500, 2026-11-01 01:30-0500",
    ),
    (
        *("America/New_York", "2026-11-01 00:30", "0 1,2 * * *"),
        "2026-11-01 01:00-0400, 2026-11-01 01:00-0500, 2026-11-01 02:00-0500, 2026-11-02 01:00-0500",
    ),
    # half an hour is left out in Lord Howe, from 02:00 to 02:30
    (
        *("Australia/Lord_Howe", "2026-10-03 00:00", "15 2 * * *"),
        "2026-10-03 02:15+1030, 2026-10-05 02:15+1100, 2026-10-06 02:15+1100",
    ),
    # midnight itself is left out in Beirut
    ("Asia/Beirut", "2026-03-28 01:00", "0 0 * * *", "2026-03-30 00:00+0300, 2026-03-31 00:00+0300"),
    # the days of a month and of a week: either, unless one of them has a star; */2 is none, */1 is one
    ("UTC", "2026-01-01 00:00", "0 0 13 * 5", "2026-01-02 00:00+0000, 2026-01-09 00:00+0000, 2026-01-13 00:00+0000"),
    ("UTC", "2026-01-01 00:00", "0 0 */2 * 1", "2026-01-03 00:00+0000, 2026-01-05 00:00+0000, 2026-01-07 00:00+0000"),
    ("UTC", "2026-01-01 00:00", "0 0 */1 * 1", "2026-01-05 00:00+0000, 2026-01-12 00:00+0000, 2026-01-19 00:00+0000"),
    ("UTC", "2026-01-01 00:00", "0 0 13 * ?", "2026-01-13 00:00+0000, 2026-02-13 00:00+0000, 2026-03-13 00:00+0000"),
    # dates that are rare, and one that never comes
    ("UTC", "2026-01-01 00:00", "0 0 29 2 *", "2028-02-29 00:00+0000, 2032-02-29 00:00+0000"),
    ("UTC", "2026-01-01 00:00", "0 0 30 2 *", ""),
    ("UTC", "2096-03-01 00:00", "0 0 29 2 *", ""),  # 2104: it looks no further than the end of the fifth year
    ("UTC", "2025-12-31 23:59", "@yearly", "2026-01-01 00:00+0000, 2027-01-01 00:00+0000"),
]


@pytest.mark.parametrize(("name", "begin", "expression", "answer"), ROBFIG)
def test_instants_are_those_of_a_kubernetes_cron_job(name: str, begin: str, expression: str, answer: str) -> None:
    zone = ZoneInfo(name)
    moment = datetime.fromisoformat(begin).replace(tzinfo=zone)
    count = len(answer.split(",")) if answer else 1
    assert shown(instants(expression, moment, zone, count), zone) == answer


def test_a_day_without_a_midnight_is_a_day_and_no_other_day_stands_in_for_it() -> None:
    """The clock of Beirut goes from 23:59 to 01:00 on 29 March 2026.

    robfig, asked on the 28th, passes over the 29th, and for the 28th alone names 05:00 of the 29th; asked on the 29th
    it answers as here.
    """
    zone = ZoneInfo("Asia/Beirut")
    moment = datetime(2026, 3, 27, 12, tzinfo=zone)
    assert shown(instants("0 5 29 3 *", moment, zone, 1), zone) == "2026-03-29 05:00+0300"
    assert shown(instants("0 5 28 3 *", moment, zone, 2), zone) == "2026-03-28 05:00+0200, 2027-03-28 05:00+0300"


def test_an_hour_whose_beginning_alone_is_there_still_counts() -> None:
    """Lord Howe shows 01:30 to 02:00 twice in April. robfig, asked hours before, passes over 02:00."""
    zone = ZoneInfo("Australia/Lord_Howe")
    moment = datetime(2026, 4, 4, 12, tzinfo=zone)
    assert shown(instants("0 2 * * *", moment, zone, 2), zone) == "2026-04-05 02:00+1030, 2026-04-06 02:00+1030"
    assert (
        shown(instants("45 1 * * *", moment, zone, 3), zone)
        == "2026-04-05 01:45+1100, 2026-04-05 01:45+1030, 2026-04-06 01:45+1030"
    )


def test_the_newest_instant_is_found_over_years_that_were_missed() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    since, now = datetime(1990, 1, 1, tzinfo=UTC), datetime(2026, 11, 21, 12, 0, 30, tzinfo=UTC)
    expected = {
        "* * * * *": datetime(2026, 11, 21, 12, 0, tzinfo=UTC),
        "0 3 * * *": datetime(2026, 11, 21, 2, 0, tzinfo=UTC),
        "0 0 1 1 *": datetime(2025, 12, 31, 23, 0, tzinfo=UTC),
        "30 2 29 2 *": datetime(2024, 2, 29, 1, 30, tzinfo=UTC),
        "0 0 30 2 *": None,
    }
    assert {text: latest_before(parse(text), since, now, berlin) for text in expected} == expected


def test_an_instant_is_after_since_and_not_after_now() -> None:
    fields, utc = parse("0 3 * * *"), ZoneInfo("UTC")
    at = datetime(2026, 11, 21, 3, tzinfo=UTC)
    second = timedelta(seconds=1)
    assert next_after(fields, at, utc) == at + timedelta(days=1)
    assert next_after(fields, at - second, utc) == at
    assert latest_before(fields, at, at + second, utc) is None
    assert latest_before(fields, at - second, at, utc) == at
    assert latest_before(fields, at + second, at - second, utc) is None


NO_SCHEDULES = ["@every 5m", "@reboot", "CRON_TZ=UTC 0 0 * * *", "0 0 * * 7", "0 0 L * *", "0 0 * * 5#3", "60 * * * *"]
NO_SCHEDULES += ["*/0 * * * *", "0 22-2 * * *", "0 0 1,,2 * *", "*-5 * * * *", "0 0 ٣ * *", "+5 * * * *", "0 0 1- * *"]
NO_SCHEDULES += ["* * * * * *", ""]


@pytest.mark.parametrize("text", NO_SCHEDULES)
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(CronError):
        parse(text)


# ---------------------------------------------------------------------------------------------------- properties

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Asia/Beirut"]
ZONES += ["America/Havana", "America/Santiago", "Antarctica/Troll", "Africa/Casablanca", "Pacific/Chatham"]
zones = st.sampled_from(ZONES).map(ZoneInfo)
moments = st.timedeltas(timedelta(0), timedelta(days=25 * 365)).map(
    lambda passed: datetime(2012, 1, 1, tzinfo=UTC) + passed
)


@st.composite
def expressions(draw: st.DrawFn) -> str:
    def field(low: int, high: int) -> st.SearchStrategy[str]:
        number = st.integers(low, high)
        span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
        stepped = st.tuples(st.one_of(st.just("*"), span), st.integers(1, 20)).map(lambda pair: f"{pair[0]}/{pair[1]}")
        part = st.one_of(number.map(str), span, stepped)
        return st.one_of(st.just("*"), st.lists(part, min_size=1, max_size=3).map(",".join))

    return " ".join(draw(field(low, high)) for _, low, high in FIELDS)


def is_allowed(expression: str, moment: datetime, zone: ZoneInfo) -> bool:
    """Whether the clock reads what the fields say; written from the rule, not from the search."""
    minutes, hours, days, months, weekdays = parse(expression)
    clock = moment.astimezone(zone)
    in_month, in_week = clock.day in days.values, (clock.weekday() + 1) % 7 in weekdays.values
    is_day = (in_month and in_week) if days.star or weekdays.star else (in_month or in_week)
    is_time = clock.minute in minutes.values and clock.hour in hours.values and clock.month in months.values
    return is_day and is_time and clock.second == clock.microsecond == 0


@given(expressions(), moments, zones)
def test_every_instant_is_later_and_reads_as_the_fields_say(text: str, moment: datetime, zone: ZoneInfo) -> None:
    following = next_after(parse(text), moment, zone)
    assume(following is not None)
    assert following is not None
    assert following > moment
    assert is_allowed(text, following, zone)


@settings(max_examples=examples(40))
@given(expressions(), moments, zones, st.integers(1, 1500))
def test_no_minute_that_reads_as_the_fields_say_is_passed_over(
    text: str, moment: datetime, zone: ZoneInfo, minutes: int
) -> None:
    begin = moment.replace(second=0, microsecond=0)
    found = next_after(parse(text), begin, zone)
    end = min(found or datetime.max.replace(tzinfo=UTC), begin + minutes * MINUTE)
    between = (begin + count * MINUTE for count in range(1, (end - begin) // MINUTE))
    assert not any(is_allowed(text, minute, zone) for minute in between)


#: The hours around a change of a clock, where everything that can go wrong goes wrong.
CHANGES = [
    ("Europe/Berlin", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 10, 25, 1, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
    ("Asia/Beirut", datetime(2026, 3, 28, 22, tzinfo=UTC)),
    ("Asia/Beirut", datetime(2026, 10, 24, 21, tzinfo=UTC)),
    ("America/Havana", datetime(2026, 3, 8, 5, tzinfo=UTC)),
    ("America/Havana", datetime(2026, 11, 1, 5, tzinfo=UTC)),
    ("Antarctica/Troll", datetime(2026, 10, 25, 1, tzinfo=UTC)),
]


@settings(max_examples=examples(60))
@given(expressions(), st.sampled_from(CHANGES))
def test_around_a_change_of_the_clock_the_instants_are_all_minutes_that_read_so(
    text: str, change: tuple[str, datetime]
) -> None:
    zone, begin, end = ZoneInfo(change[0]), change[1] - timedelta(hours=8), change[1] + timedelta(hours=8)
    expected = [begin + count * MINUTE for count in range(1, 16 * 60 + 1)]
    expected = [minute for minute in expected if is_allowed(text, minute, zone)]
    found = [moment for moment in instants(text, begin, zone, min(len(expected) + 1, 50)) if moment <= end]
    assert found == expected[:50]
    assert latest_before(parse(text), begin, end, zone) == (expected[-1] if expected else None)


@given(expressions(), moments, zones, st.timedeltas(timedelta(0), timedelta(days=400)))
def test_asking_later_never_answers_earlier(text: str, moment: datetime, zone: ZoneInfo, later: timedelta) -> None:
    first, second = (next_after(parse(text), at, zone) for at in (moment, moment + later))
    assume(first is not None and second is not None)
    assert first is not None
    assert second is not None
    assert first <= second
    assert first == second or first <= moment + later


@given(expressions(), moments, zones)
def test_the_newest_instant_is_the_last_that_stepping_comes_to(text: str, since: datetime, zone: ZoneInfo) -> None:
    stepped = instants(text, since, zone, 30)
    for number, (here, following) in enumerate(pairwise(stepped)):
        assert latest_before(parse(text), since, following - timedelta(microseconds=1), zone) == here
        assert latest_before(parse(text), since, following, zone) == following
        assert latest_before(parse(text), here, following, zone) == following
        if number == 0:
            assert latest_before(parse(text), since, here - timedelta(microseconds=1), zone) is None
