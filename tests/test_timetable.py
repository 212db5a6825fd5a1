"""Rates by time of day."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realize.errors import UsageError
from realize.schedule.timetable import RateChange, RateTimetable, parse_timetable

RCLONES = "08:00,512k 12:00,10M 13:00,512k 18:00,30M 23:00,off"
WEEK = "Mon-00:00,512k Fri-23:59,10M Sat-10:00,1M Sun-20:00,off"
K, M = 1 << 10, 1 << 20


def at(text: str, zone: str = "UTC") -> float:
    """The moment at which clocks show a time for the first time."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("now", "rate", "following", "new"),
    [
        ("2026-11-28 00:00", None, "2026-11-28 08:00", 512 * K),
        ("2026-11-28 07:59:59.999", None, "2026-11-28 08:00", 512 * K),
        ("2026-11-28 08:00", 512 * K, "2026-11-28 12:00", 10 * M),
        ("2026-11-28 12:30", 10 * M, "2026-11-28 13:00", 512 * K),
        ("2026-11-28 17:00", 512 * K, "2026-11-28 18:00", 30 * M),
        ("2026-11-28 22:59:59", 30 * M, "2026-11-28 23:00", None),
        ("2026-11-28 23:00", None, "2026-11-29 08:00", 512 * K),
    ],
)
def test_each_rate_holds_until_the_next_one(now: str, rate: int | None, following: str, new: int | None) -> None:
    """The last one of a day until the first one of the next day."""
    timetable = parse_timetable(RCLONES)

    assert rate == timetable.rate_at(at(now), UTC)
    assert (at(following), new) == timetable.next_change(at(now), UTC)


@pytest.mark.parametrize(
    ("now", "rate", "following", "new"),
    [
        ("2026-11-22 19:00", 1 * M, "2026-11-22 20:00", None),
        ("2026-11-22 20:00", None, "2026-11-23 00:00", 512 * K),
        ("2026-11-25 12:00", 512 * K, "2026-11-27 23:59", 10 * M),
        ("2026-11-28 09:59", 10 * M, "2026-11-28 10:00", 1 * M),
    ],
)
def test_a_day_of_the_week_may_be_named(now: str, rate: int | None, following: str, new: int | None) -> None:
    """Then the rate holds for days, if no other one comes before."""
    timetable = parse_timetable(WEEK)

    assert rate == timetable.rate_at(at(now), UTC)
    assert (at(following), new) == timetable.next_change(at(now), UTC)


def test_one_change_a_week_holds_for_the_week() -> None:
    """There is nothing that it changes to."""
    timetable = parse_timetable("Wed-12:00,1M")

    assert M == timetable.rate_at(at("2026-11-25 11:59"), UTC)
    assert M == timetable.rate_at(at("2026-11-25 12:00"), UTC)
    assert timetable.next_change(at("2026-11-25 11:59"), UTC) is None


def test_a_named_day_outranks_each_day_at_the_same_time() -> None:
    """And is beside it at other times."""
    timetable = parse_timetable("08:00,1M Sat-08:00,unlimited Sat-12:00,2M")

    assert None is timetable.rate_at(at("2026-11-28 09:00"), UTC)
    assert 2 * M == timetable.rate_at(at("2026-11-28 13:00"), UTC)
    assert M == timetable.rate_at(at("2026-11-29 09:00"), UTC)


@pytest.mark.parametrize("text", ["512k", "unlimited", "off", " 20M ", "12345"])
def test_a_plain_rate_never_changes(text: str) -> None:
    """It is a timetable without changes."""
    timetable = parse_timetable(text)

    assert timetable.changes == ()
    assert timetable.plain == timetable.rate_at(at("2026-11-28 09:00"))
    assert timetable.next_change(at("2026-11-28 09:00")) is None


def test_the_same_rate_again_is_no_change() -> None:
    """What is told as the next change is one that somebody would notice."""
    assert (at("2026-11-29 08:00"), 512 * K) == parse_timetable("08:00,512k 12:00,512k 18:00,1M").next_change(
        at("2026-11-28 20:00"), UTC
    )
    assert parse_timetable("08:00,512k 18:00,512k").next_change(at("2026-11-28 09:00"), UTC) is None


def test_a_change_in_an_hour_that_clocks_skip_is_when_they_skip_it() -> None:
    """Of several, the last one holds then."""
    berlin = ZoneInfo("Europe/Berlin")
    timetable = parse_timetable("01:00,1M 02:15,2M 02:45,3M 04:00,4M")
    skipped = at("2026-03-29 01:00")

    assert M == timetable.rate_at(skipped - 1, berlin)
    assert (skipped, 3 * M) == timetable.next_change(skipped - 1, berlin)
    assert 3 * M == timetable.rate_at(skipped, berlin)


def test_a_change_in_an_hour_that_comes_twice_is_when_it_comes_first() -> None:
    """The rate does not go back when clocks do."""
    berlin = ZoneInfo("Europe/Berlin")
    timetable = parse_timetable("01:00,1M 02:30,2M 04:00,4M")

    assert (at("2026-10-25 00:30"), 2 * M) == timetable.next_change(at("2026-10-25 00:00"), berlin)
    assert 2 * M == timetable.rate_at(at("2026-10-25 01:10"), berlin)
    assert (at("2026-10-25 03:00"), 4 * M) == timetable.next_change(at("2026-10-25 01:10"), berlin)


def test_half_an_hour_may_be_skipped_as_well() -> None:
    """Clocks on Lord Howe Island are set by that."""
    zone = ZoneInfo("Australia/Lord_Howe")

    assert (at("2026-10-03 15:30"), M) == parse_timetable("00:00,2M 02:10,1M").next_change(at("2026-10-03 15:00"), zone)


@pytest.mark.parametrize(("zone", "hours"), [("UTC", 0), ("America/New_York", 4), ("Asia/Tokyo", -9)])
def test_without_a_zone_it_is_that_of_the_machine(monkeypatch: pytest.MonkeyPatch, zone: str, hours: int) -> None:
    """As the C library has it, also after it was set anew."""
    timetable = parse_timetable("08:00,1M 18:00,off")
    eight = at("2026-07-01 08:00") + hours * 3_600
    try:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

        assert (None, M) == (timetable.rate_at(eight - 1), timetable.rate_at(eight))
        assert (eight + 36_000, None) == timetable.next_change(eight)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a rate"),
        ("08:00", "for each direction"),
        ("512k:1M", "--throttle-up and --throttle-down"),
        ("08:00,512k:1M", "--throttle-up and --throttle-down"),
        ("08:00,512k 512k", "is not a rate with the time it begins"),
        ("24:00,1M", "from 00:00 to 23:59"),
        ("08:60,1M", "from 00:00 to 23:59"),
        ("8,1M", "is not a rate with the time it begins"),
        ("08:00,0", "is not a rate"),
        ("08:00,10Mbit", "counts bytes"),
        ("08:00,", "is not a rate with the time it begins"),
        ("Foo-08:00,1M", "'Foo' is not a day of the week"),
        ("08:00,1M 8:00,2M", "two rates for 08:00"),
        ("Sat-08:00,1M saturday-08:00,2M", "two rates for Sat-08:00"),
        ("08:00,1M " * 1_000, "too long"),
    ],
)
def test_what_is_no_timetable_is_refused(text: str, said: str) -> None:
    """With a sentence that says what is wrong."""
    with pytest.raises(UsageError, match=said):
        parse_timetable(text)


def test_days_are_named_as_people_do() -> None:
    """Short or long, in any case; and semicolons part changes as well as spaces do."""
    written = parse_timetable("MON-08:00,1M; friday-18:00,off;8:30,2M")

    assert "08:30,2M Mon-08:00,1M Fri-18:00,unlimited" == str(written)


rates = st.one_of(st.none(), st.integers(1, 10 << 40), st.sampled_from([K, 512 * K, M, 3 << 30, 1 << 40]))
changes = st.builds(
    RateChange, st.times().map(lambda each: each.replace(second=0, microsecond=0)), rates, st.none() | st.integers(0, 6)
)


@given(st.lists(changes, min_size=1, max_size=8, unique_by=lambda each: (each.day, each.at)))
def test_what_is_written_is_read_again(listed: list[RateChange]) -> None:
    """As the same timetable, whatever order its changes were given in."""
    timetable = parse_timetable(" ".join(map(str, listed)))

    assert set(listed) == set(timetable.changes)
    assert timetable == parse_timetable(str(timetable))


@given(rates)
def test_a_plain_rate_is_read_again(rate: int | None) -> None:
    """To the byte."""
    assert RateTimetable(plain=rate) == parse_timetable(str(RateTimetable(plain=rate)))


@given(st.lists(changes, min_size=1, max_size=6, unique_by=lambda each: (each.day, each.at)), st.integers(0, 10**7))
def test_the_next_change_is_the_next_one(listed: list[RateChange], minute: int) -> None:
    """The rate is the same until then, and another one from then on."""
    timetable, zone = parse_timetable(" ".join(map(str, listed))), ZoneInfo("Europe/Berlin")
    now = 1_790_000_000.0 + minute * 60

    following = timetable.next_change(now, zone)

    before = timetable.rate_at(now, zone)
    if following is None:
        assert all(before == timetable.rate_at(now + hours * 3_600, zone) for hours in range(0, 8 * 24, 7))
    else:
        assert now < following[0] <= now + 8 * 86_400
        assert before == timetable.rate_at(following[0] - 1, zone) != following[1]
        assert following[1] == timetable.rate_at(following[0], zone)
