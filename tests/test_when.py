"""When standing moves run: intervals, and calendar expressions as systemd understands them."""

from __future__ import annotations

import functools
import os
import random
import subprocess
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from realize.errors import UsageError
from realize.schedule.when import Calendar, Every, Settled, parse_when

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"

CHANGES = {
    BERLIN: ("2026-03-29 01:00", "2026-10-25 01:00"),
    NEW_YORK: ("2026-03-08 07:00", "2026-11-01 06:00"),
    LORD_HOWE: ("2026-04-04 15:00", "2026-10-03 15:30"),
}
"""When clocks are set forth and back, in UTC."""

EXPRESSIONS = (
    "Mon..Fri 02:30",
    "*:0/15",
    "*-*-01 04:00",
    "minutely",
    "hourly",
    "daily",
    "weekly",
    "monthly",
    "quarterly",
    "semiannually",
    "yearly",
    "annually",
    "Sat,Sun 12:00:30",
    "saturday,Mon..Wed 03:05",
    "Thu, 01:00",
    "*-*~01 23:00",
    "*-02~03",
    "Mon *-05~07/1 12:30",
    "Mon..Fri *-*-01..07 02:30",
    "2026-*-1/3 1,3,5:10..20/5",
    "26-10,11-* 02:15",
    "2026..2028-12-24 18:00:00",
    "*-1/4-1 0/6:00",
    "02,14:*:30",
    "Sun *-02-29",
    "02:30 UTC",
    "Mon..Fri 02:30 America/New_York",
    "*-10-25 *:0/30 Europe/Berlin",
    "1:5:9",
)


def moment(text: str) -> float:
    """The moment of a time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def as_in(expression: str, zone: str) -> Calendar:
    """A calendar expression for a machine in a zone."""
    parsed = parse_when(expression)
    assert isinstance(parsed, Calendar)
    return parsed if parsed.zone else Calendar(parsed.expression, ZoneInfo(zone))


@functools.cache
def systemd(expressions: tuple[str, ...], zone: str, after: float, count: int) -> dict[str, list[float]] | None:
    """When systemd elapses after a whole second in UTC, on a machine in a zone; None: it refuses one of them.

    It is started once for many expressions: that takes longer than what it computes.
    """
    base = datetime.fromtimestamp(after, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    done = subprocess.run(
        ["systemd-analyze", "calendar", f"--iterations={count}", f"--base-time={base}", *expressions],
        env={**os.environ, "TZ": zone, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return None
    found: dict[str, list[float]] = {}
    for expression, said in zip(expressions, done.stdout.split("\n\n"), strict=True):
        lines = [line.strip().partition(": ")[::2] for line in said.splitlines()]
        found[expression] = [
            as_moment(at)
            for what, at in lines
            if (what.startswith(("Next elapse", "Iter.")) and at.endswith(" UTC")) or what == "(in UTC)"
        ]
    return found


def as_moment(said: str) -> float:
    """The moment that a line of systemd-analyze has."""
    return datetime.strptime(said.strip(), "%a %Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC).timestamp()


def ours(calendar: Calendar, after: float, count: int) -> list[float]:
    """The times after a moment."""
    found: list[float] = []
    while len(found) < count and (following := calendar.next_after(after)) is not None:
        found.append(after := following)
    return found


def shown_once(moments: list[float], zone: str) -> list[float]:
    """Those in which clocks show a time that they show once only."""
    times = [datetime.fromtimestamp(each, ZoneInfo(zone)) for each in moments]
    return [each.timestamp() for each in times if each.utcoffset() == each.replace(fold=1 - each.fold).utcoffset()]


def compare(expression: str, among: tuple[str, ...], zone: str, after: float, count: int) -> None:
    """Fail unless systemd and we elapse at the same moments; it is asked for all expressions ``among`` which this is.

    In the hour that comes twice systemd takes the one or the other, as the C library does; so it is left out here.
    """
    calendar = as_in(expression, zone)
    shown_in = str(calendar.zone)
    answered = systemd(among, zone, after, count)
    assert answered is not None
    theirs, mine = answered[expression], ours(calendar, after, count)
    end = min([each[-1] for each in (theirs, mine) if len(each) == count], default=float("inf"))
    until_end = [shown_once([each for each in both if each <= end], shown_in) for both in (theirs, mine)]

    assert until_end[0] == until_end[1], (expression, zone, after)


@pytest.mark.parametrize("zone", CHANGES)
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_times_are_those_of_systemd(expression: str, zone: str) -> None:
    """Across both changes to and from summer time, and in between, in zones that change by an hour and by less."""
    for change in CHANGES[zone]:
        compare(expression, EXPRESSIONS, zone, moment(change) - 86_400, 60)
        compare(expression, EXPRESSIONS, zone, moment(change) - 1_800, 60)


def random_values(draw: random.Random, first: int, last: int) -> str:
    """Values of one field: a list of numbers, ranges, repetitions."""
    if draw.random() < 0.3:
        return "*"
    values = []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        low, high = sorted(draw.sample(range(first, last), 2))
        step = draw.randint(1, min(9, last - low))
        values.append(draw.choice((f"{low:02}", f"{low}..{high:02}", f"{low}/{step}", f"{low}..{high}/{step}")))
    return ",".join(values)


def random_expression(draw: random.Random) -> str:
    """An expression that systemd understands, and can compute: it gives up after a thousand steps."""
    parts = []
    if draw.random() < 0.4:
        parts.append(draw.choice(("Mon", "sun", "Tuesday,Fri", "Mon..Fri", "Sat,Sun", "Tue..Thu,Sun")))
    if draw.random() < 0.5:
        from_the_end = draw.choice(("~01", "~7/1", "~20", "~8/3"))
        days = from_the_end if draw.random() < 0.3 else f"-{random_values(draw, 1, 31)}"
        parts.append(draw.choice(("", "*-", "2026..2099-")) + draw.choice(("*", "3..10", "1/4", "04,10,12")) + days)
    if draw.random() < 0.7 or not parts:
        # Repetitions of hours go wrong in systemd at the end of a month: it takes hours from 24 on for the next day's.
        hours = draw.choice(("*", "02", "01..03", "00,12", f"{draw.randint(0, 23)}"))
        seconds = f":{random_values(draw, 0, 59)}" if draw.random() < 0.3 else ""
        parts.append(f"{hours}:{random_values(draw, 0, 59)}{seconds}")
    if draw.random() < 0.2:
        parts.append(draw.choice(("UTC", BERLIN, NEW_YORK, LORD_HOWE, "Asia/Kolkata")))
    return " ".join(parts)


@pytest.mark.parametrize("zone", CHANGES)
def test_times_of_any_expression_are_those_of_systemd(zone: str) -> None:
    """Of a hundred expressions that nobody has chosen, from ten moments within two days before clocks change."""
    for seed in range(10):
        draw = random.Random(seed)
        after = moment(draw.choice(CHANGES[zone])) - draw.randint(1_800, 172_800)
        expressions = tuple(random_expression(draw) for _ in range(10))

        for expression in expressions:
            compare(expression, expressions, zone, after, 8)


REFUSED = (
    "",
    " ",
    "now and then",
    "every",
    "every day",
    "every 0s",
    "every 500ms",
    "Mon..",
    "Mon,,Tue",
    "Mon Tue",
    "24:00",
    "12:60",
    "12:00:60",
    "12:00 12:00",
    "*:*:*:*",
    "12:00 Europe",
    "12:00 Europe/Atlantis",
    "12:00 ../../etc/localtime",
    "12:00 UTC UTC",
    "UTC",
    "*/5",
    "*:0/0",
    "*:0/90",
    "*:50/15",
    "0/24:00",
    "*-*-20/20",
    "*-13-01",
    "*-*-32",
    "*-*~29",
    "*-*~3/4",
    "*-*~5..16/9",
    "04..04/8:00",
    "*-02-30",
    "1:" + "9" * 5_000,
    "12:00:00.5",
    "\u0661\u0662:00",
    "12:00;13:00",
)


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_time_is_refused(text: str) -> None:
    """With one sentence, which has the text in it, or its beginning."""
    with pytest.raises(UsageError) as caught:
        parse_when(text)

    said = str(caught.value)
    assert said.startswith("'") and "\n" not in said and len(said) < 300


@pytest.mark.parametrize("text", ["*:0/90", "*:50/15", "0/24:00", "*-*-20/20", "*-*~3/4", "24:00", "Mon,,Tue"])
def test_systemd_refuses_that_as_well(text: str) -> None:
    """Also what could be read as something else than was meant: every 90 minutes are not once an hour."""
    assert systemd((text,), "UTC", 0, 1) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("settled", Settled()),
        (" Settled ", Settled()),
        ("every 10m", Every(600.0)),
        ("every  1h30m", Every(5_400.0)),
        ("Every 90", Every(90.0)),
        ("Mon..Fri  02:30", Calendar("Mon..Fri 02:30")),
        ("daily UTC", Calendar("daily", UTC)),
        ("*:0/15 Europe/Berlin", Calendar("*:0/15", ZoneInfo(BERLIN))),
    ],
)
def test_what_is_written_is_read(text: str, expected: object) -> None:
    """In each of the three forms, and again from what it is shown as."""
    parsed = parse_when(text)

    assert expected == parsed == parse_when(str(parsed))


def test_an_hour_that_comes_twice_counts_once() -> None:
    """The first time it comes; who asks within the second time is told what comes behind it."""
    half_past_two = as_in("02:30", BERLIN)
    again = moment("2026-10-25 01:10")

    assert moment("2026-10-25 00:30") == half_past_two.next_after(moment("2026-10-24 12:00"))
    assert moment("2026-10-26 01:30") == half_past_two.next_after(moment("2026-10-25 00:30"))
    assert moment("2026-10-26 01:30") == half_past_two.next_after(again)
    assert moment("2026-10-25 02:00") == as_in("*:0/15", BERLIN).next_after(again)


def test_an_hour_that_does_not_exist_is_left_out() -> None:
    """A time within it is not moved to another one, and the next day has it again."""
    assert moment("2026-03-30 00:30") == as_in("02:30", BERLIN).next_after(moment("2026-03-28 12:00"))


@pytest.mark.parametrize("zone", CHANGES)
def test_times_only_increase(zone: str) -> None:
    """Whatever clocks do, and wherever between two times one asks."""
    calendar = as_in("*:0/10", zone)
    for change in map(moment, CHANGES[zone]):
        found = ours(calendar, change - 10_000, 60)

        assert all(earlier < later for earlier, later in pairwise(found))
        assert all(after < (calendar.next_after(after) or 0) for after in range(int(change) - 9_000, int(change), 97))


def test_a_part_of_a_second_is_over() -> None:
    """The times are whole seconds; the next one is later than the moment, also by less than a second."""
    every_second = as_in("*:*:*", "UTC")

    assert 1_800_000_001.0 == every_second.next_after(1_800_000_000.0)
    assert 1_800_000_001.0 == every_second.next_after(1_800_000_000.25)


def test_without_a_zone_it_is_that_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the C library has it, from TZ or the file of the system."""
    try:
        monkeypatch.setenv("TZ", NEW_YORK)
        time.tzset()

        assert moment("2026-07-01 06:30") == Calendar("02:30").next_after(moment("2026-07-01 00:00"))
        assert moment("2026-03-09 06:30") == Calendar("02:30").next_after(moment("2026-03-08 00:00"))
    finally:
        monkeypatch.undo()
        time.tzset()


def test_what_will_not_be_again_has_no_next_time() -> None:
    """A date in the past is understood, and never due."""
    past = as_in("2020-01-01 12:00", "UTC")
    now = moment("2026-11-28 12:00")

    assert past.next_after(now) is None
    assert past.due(now, now) is None
    assert not past.missed(now, now + 1e6)


NOON = moment("2026-11-28 12:00")


def test_an_interval_counts_from_the_start_of_the_last_run() -> None:
    """So a restart in between changes nothing."""
    every = Every(600.0)

    assert NOON + 600 == every.due(NOON, since=NOON - 5_000, jitter_s=30.0)
    assert NOON + 600 == every.due(NOON, since=NOON + 300, jitter_s=30.0)
    assert not every.missed(NOON, NOON + 599)
    assert every.missed(NOON, NOON + 600)


def test_an_interval_that_went_by_is_caught_up_once() -> None:
    """When there is somebody to do it again, later by the jitter; and so is the first one."""
    every = Every(600.0)

    assert NOON + 7_030 == every.due(NOON, since=NOON + 7_000, jitter_s=30.0)
    assert NOON + 30 == every.due(None, since=NOON, jitter_s=30.0)


def test_a_time_of_the_calendar_that_was_missed_is_caught_up_once() -> None:
    """However many were missed; without a last run none was."""
    hourly = as_in("hourly", "UTC")
    since = NOON + 5 * 3_600 + 90

    assert hourly.missed(NOON, since)
    assert since + 20 == hourly.due(NOON, since, jitter_s=20.0)
    assert NOON + 6 * 3_600 + 20 == hourly.due(since + 20, since, jitter_s=20.0)
    assert NOON + 6 * 3_600 + 20 == hourly.due(None, since, jitter_s=20.0)
    assert not hourly.missed(since + 20, since + 60)


def test_each_time_of_the_calendar_is_later_by_the_jitter() -> None:
    """A run that began late by the jitter takes nothing from the next one."""
    daily = as_in("daily", "UTC")
    midnight = moment("2026-11-29 00:00")

    assert midnight + 45 == daily.due(NOON, since=NOON, jitter_s=45.0)
    assert midnight + timedelta(days=1).total_seconds() + 45 == daily.due(midnight + 45, since=NOON, jitter_s=45.0)
