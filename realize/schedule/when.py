"""When a standing move runs: as files settle, at intervals, or at times of the calendar.

Moments are seconds since the epoch by the wall clock.
The two kinds that go by the clock answer ``next_after``: the first moment after another one at which it is time;
``missed``: whether it was time since the last run; and ``due``: when to run next.
If the wall clock was set back, so that the last run lies ahead, give them the present as the last run, once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from attrs import field, frozen
from oncalendar import BaseIterator, OnCalendarError

from realize.by_value import ByValue
from realize.errors import UsageError
from realize.schedule.local_time import first_shown, shown
from realize.units import format_duration, parse_duration, quoted

SHORTEST_INTERVAL_S: Final = 1.0
"""Seconds between the starts of two runs, at least."""

_MAX_EXPRESSION_CHARS: Final = 200
_EVERY: Final = re.compile(r"every (?P<interval>.*)", re.ASCII | re.IGNORECASE)
_STEP: Final = re.compile(r"(?P<first>\d+)(?:\.\.(?P<last>\d+))?/(?P<step>\d+)", re.ASCII)
_LASTS_OF_DATE: Final = (12, 31)
_LASTS_OF_TIME: Final = (23, 59, 59)


@frozen(eq=False, repr=False)
class Settled(ByValue):
    """As files settle: never by the clock."""

    def __str__(self) -> str:
        """As it is written."""
        return "settled"


@frozen(eq=False, repr=False)
class Every(ByValue):
    """At intervals of so many seconds, from the start of one run to the start of the next."""

    seconds: float

    def next_after(self, moment: float) -> float:
        """One interval after ``moment``, which is when the last run started."""
        return moment + self.seconds

    def missed(self, last: float, now: float) -> bool:
        """Whether an interval or more has gone by since the last run, which started at ``last``."""
        return self.next_after(last) <= now

    def due(self, last: float | None, since: float, jitter_s: float = 0.0) -> float:
        """When to run after a run that started at ``last``, None if there was none.

        ``since`` is from when there has been somebody to run it; what was missed before is caught up once, then.
        ``jitter_s`` delays the first run, and one that is caught up; the others follow from these.
        """
        planned = since if last is None else self.next_after(last)
        return planned if planned > since else since + jitter_s

    def __str__(self) -> str:
        """As it is written."""
        return f"every {format_duration(self.seconds)}"


@frozen(repr=False)
class Calendar(ByValue):
    """At the times of a calendar expression as systemd.time(7) describes it, to the second.

    ``zone`` is the one that the expression names; None is the zone of the machine.
    A local time that clocks skip is left out; one that they show twice is taken the first time.
    """

    expression: str
    zone: tzinfo | None = field(default=None, eq=str)

    def next_after(self, moment: float) -> float | None:
        """The first such time after ``moment``; None if there is none until the year 2200."""
        return next((found for found in self._times(moment) if found > moment), None)

    def missed(self, last: float, now: float) -> bool:
        """Whether there was such a time after the last run, which started at ``last``, until now."""
        following = self.next_after(last)
        return following is not None and following <= now

    def due(self, last: float | None, since: float, jitter_s: float = 0.0) -> float | None:
        """When to run after a run that started at ``last``, None if there was none; the answer None is never again.

        ``since`` is from when there has been somebody to run it; what was missed before is caught up once, then.
        ``jitter_s`` delays each run. Without a last run, nothing was missed.
        """
        planned = self.next_after(since if last is None else last)
        return None if planned is None else max(planned, since) + jitter_s

    def _times(self, moment: float) -> Iterator[float]:
        """The times from ``moment`` on; some before it, if clocks show what they have shown before."""
        for time in BaseIterator(self.expression, shown(moment, self.zone)):
            found = first_shown(time, self.zone)
            if found is not None:
                yield found

    def __str__(self) -> str:
        """As it is written."""
        return self.expression if self.zone is None else f"{self.expression} {self.zone}"


When = Settled | Every | Calendar


def parse_when(text: str) -> When:
    """What ``settled``, ``every INTERVAL`` or a calendar expression says.  Raises `UsageError`."""
    words = " ".join(text.split())
    if words.lower() == "settled":
        return Settled()
    if match := _EVERY.fullmatch(words):
        seconds = parse_duration(match["interval"])
        if seconds < SHORTEST_INTERVAL_S:
            raise UsageError(f"{quoted(text)} is too often: at most every {format_duration(SHORTEST_INTERVAL_S)}")
        return Every(seconds)
    expression, zone = _without_zone(words)
    refused = _refused(expression)
    if refused is not None:
        raise UsageError(
            f"{quoted(text)} is not a time to run: write settled, every 10m, or a calendar expression such as "
            f"Mon..Fri 02:30 ({refused})"
        )
    calendar = Calendar(expression, zone)
    if calendar.next_after(0.0) is None:
        raise UsageError(f"{quoted(text)} is a time that never comes")
    return calendar


def _without_zone(words: str) -> tuple[str, tzinfo | None]:
    """A calendar expression, and the zone that was behind it."""
    expression, _, name = words.rpartition(" ")
    zone: tzinfo | None = None
    if expression and name.upper() == "UTC":
        zone = UTC
    elif expression and name[0].isalpha():
        with suppress(OSError, ValueError, KeyError):
            zone = ZoneInfo(name)
    return (words, None) if zone is None else (expression, zone)


def _refused(expression: str) -> str | None:
    """Why a text is no calendar expression, in a few words; None if it is one."""
    if len(expression) > _MAX_EXPRESSION_CHARS:
        return "it is too long"
    try:
        BaseIterator(expression, datetime.min.replace(tzinfo=UTC))
    except OnCalendarError as error:
        return str(error)[:1].lower() + str(error)[1:]
    return next(_wrong_steps(expression), None)


def _wrong_steps(expression: str) -> Iterator[str]:
    """What the library would read otherwise than systemd, such as ``*:0/90``: for it that is once an hour."""
    for part in expression.split():
        timely = ":" in part
        fields = part.split(":") if timely else re.split("[-~]", part)
        lasts = _LASTS_OF_TIME if timely else (None, None, *_LASTS_OF_DATE)[-len(fields) :]
        for number, (values, last) in enumerate(zip(fields, lasts, strict=False), start=1):
            from_the_end = "~" in part and number == len(fields)
            for match in filter(None, map(_STEP.fullmatch, values.split(","))):
                first, step = int(match["first"]), int(match["step"])
                if (step >= first) if from_the_end else (last is not None and first + step > last):
                    yield f"{match[0]} repeats nothing"
                if match["last"] is not None and (from_the_end or match["last"] == match["first"]):
                    yield f"{match[0]} is a range that cannot repeat"
