"""Rates by the time of day and the day of the week, in the form that rclone has: ``08:00,512k 18:00,unlimited``.

Moments are seconds since the epoch by the wall clock, rates bytes per second, None for no limit.
A change that falls into an hour that clocks skip happens when they skip it; one in an hour that comes twice happens
the first time only.
"""

from __future__ import annotations

import re
import time
from datetime import date, datetime, timedelta, tzinfo
from datetime import time as time_of_day
from functools import lru_cache
from typing import Final

from attrs import frozen

from realize.by_value import ByValue
from realize.errors import UsageError
from realize.schedule.local_time import first_reached, shown
from realize.units import parse_rate, quoted

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY_NAMES: Final = {
    name.lower(): number
    for number, short in enumerate(_DAYS)
    for name in (short, ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")[number])
}
_WEEK_DAYS: Final = 7
_REMEMBERED_DAYS: Final = 512
_MAX_TIMETABLE_CHARS: Final = 2_000
_CHANGE: Final = r"(?ai)(?:(?P<day>[a-z]+)-)?(?P<hour>\d{1,2}):(?P<minute>\d{2}),(?P<rate>.+)"
_TIMETABLE_EXAMPLE: Final = "08:00,512k 18:00,unlimited or Mon-08:00,512k Fri-18:00,unlimited"
_UNITS_BPS: Final = (("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("k", 1 << 10))

Changes = tuple[tuple[float, int | None], ...]
"""Moments, and the rates that begin then."""


@frozen(eq=False, repr=False)
class RateChange(ByValue):
    """The rate from one time of day on: on one day of the week (0 is Monday), or, for None, on each that has no own."""

    at: time_of_day
    rate: int | None
    day: int | None = None

    def __str__(self) -> str:
        """As it is written."""
        day = "" if self.day is None else f"{_DAYS[self.day]}-"
        return f"{day}{self.at:%H:%M},{_written(self.rate)}"


@frozen(cache_hash=True, repr=False)
class RateTimetable(ByValue):
    """Rates by time; ``changes`` in their order in time, and ``plain`` is the rate if there are none."""

    changes: tuple[RateChange, ...] = ()
    plain: int | None = None

    def rate_at(self, moment: float, zone: tzinfo | None = None) -> int | None:
        """The rate at a moment, in bytes per second."""
        today = shown(moment, zone).date()
        # From tomorrow on, since clocks that are set back may have shown some of it already.
        for days in range(1, -_WEEK_DAYS - 2, -1) if self.changes else ():
            reached = [rate for at, rate in _changes_on(self, today + timedelta(days), zone) if at <= moment]
            if reached:
                return reached[-1]
        return self.plain

    def next_change(self, moment: float, zone: tzinfo | None = None) -> tuple[float, int | None] | None:
        """When, after a moment, another rate begins, and which; None if it stays as it is."""
        present, today = self.rate_at(moment, zone), shown(moment, zone).date()
        for days in range(_WEEK_DAYS + 2) if self.changes else ():
            for at, rate in _changes_on(self, today + timedelta(days), zone):
                if at > moment and rate != present:
                    return at, rate
        return None

    @property
    def rates(self) -> frozenset[int | None]:
        """Every rate that may hold."""
        return frozenset(each.rate for each in self.changes) or frozenset({self.plain})

    def __str__(self) -> str:
        """As it is written; `parse_timetable` reads it."""
        return " ".join(map(str, self.changes)) or _written(self.plain)


def _changes_on(timetable: RateTimetable, date: date, zone: tzinfo | None) -> Changes:
    """The changes of one day, in order; of several at once, because clocks skip an hour, the last one holds."""
    return _computed(timetable, date, zone, None if zone is not None else (*time.tzname, time.timezone))


@lru_cache(maxsize=_REMEMBERED_DAYS)
def _computed(timetable: RateTimetable, date: date, zone: tzinfo | None, _machine: object) -> Changes:
    """`_changes_on`, remembered: each connection with a timetable asks. The zone of the machine may be set anew."""
    rates = {each.at: each.rate for each in timetable.changes if each.day is None}
    rates.update((each.at, each.rate) for each in timetable.changes if each.day == date.weekday())
    moments = {first_reached(datetime.combine(date, at), zone): rate for at, rate in sorted(rates.items())}
    return tuple(moments.items())


RateByTime = int | RateTimetable | None
"""A limit in bytes per second that holds always, one by the time of day, or, for None, no limit."""


def parse_rate_by_time(text: str) -> RateByTime:
    """What `parse_timetable` says, a rate that never changes as a number or None.  Raises `UsageError`."""
    return plainly(parse_timetable(text))


def plainly(limit: RateByTime) -> RateByTime:
    """The same limit; a timetable without changes as the rate that it is."""
    return limit.plain if isinstance(limit, RateTimetable) and not limit.changes else limit


def rate_now(limit: RateByTime, moment: float) -> int | None:
    """The limit that holds at a moment."""
    return limit.rate_at(moment) if isinstance(limit, RateTimetable) else limit


def change_after(limit: RateByTime, moment: float) -> tuple[float, int | None] | None:
    """When a limit becomes another one by itself after a moment, and which; None: it does not."""
    return limit.next_change(moment) if isinstance(limit, RateTimetable) else None


def logged_as(limit: RateByTime) -> int | str | None:
    """A limit for a log: bytes per second, the text of a timetable, or None."""
    return str(limit) if isinstance(limit, RateTimetable) else limit


def parse_timetable(text: str) -> RateTimetable:
    """The timetable, or the plain rate, that a text says; rates as for `realize.units.parse_rate`, or ``off`` for none.

    Raises `UsageError`.
    """
    if len(text) > _MAX_TIMETABLE_CHARS:
        raise UsageError(
            f"{quoted(text)} is too long a timetable: at most {_MAX_TIMETABLE_CHARS} characters are allowed"
        )
    words = text.replace(";", " ").split()
    if "," not in text:
        return RateTimetable(plain=_rate(text))
    changes: dict[tuple[int | None, time_of_day], RateChange] = {}
    for word in words:
        change = _change(word)
        if (change.day, change.at) in changes:
            raise UsageError(f"{quoted(text)} has two rates for {str(change).partition(',')[0]}")
        changes[change.day, change.at] = change
    # Those for each day first, then day by day: as `RateTimetable` reads them, and the same text for the same thing.
    ordered = sorted(changes.values(), key=lambda each: (-1 if each.day is None else each.day, each.at))
    return RateTimetable(tuple(ordered))


def _change(word: str) -> RateChange:
    match = re.fullmatch(_CHANGE, word)
    if match is None:
        raise UsageError(f"{quoted(word)} is not a rate with the time it begins: write {_TIMETABLE_EXAMPLE}")
    day = None if match["day"] is None else _DAY_NAMES.get(match["day"].lower())
    if match["day"] is not None and day is None:
        raise UsageError(f"{quoted(match['day'])} is not a day of the week: write Mon, Tue, Wed, Thu, Fri, Sat or Sun")
    hour, minute = int(match["hour"]), int(match["minute"])
    if hour > 23 or minute > 59:
        raise UsageError(f"{quoted(word)} has no time of day: write it from 00:00 to 23:59")
    return RateChange(time_of_day(hour, minute), _rate(match["rate"]), day)


def _rate(text: str) -> int | None:
    if text.strip().lower() == "off":
        return None
    if ":" in text:
        raise UsageError(
            f"{quoted(text)} has a rate for each direction: give --throttle-up and --throttle-down one each"
        )
    return parse_rate(text)


def _written(rate: int | None) -> str:
    """A rate so that it is read as the same again."""
    if rate is None:
        return "unlimited"
    return next((f"{rate // size}{unit}" for unit, size in _UNITS_BPS if not rate % size), str(rate))
