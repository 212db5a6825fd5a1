"""Follows timetables of rates: tells when another rate holds, by the clock on the wall.

The timer of a reactor cannot know that the wall clock was set, or that the machine has slept.
So it wakes once a minute at least, and otherwise when the next rate begins: a change is at most a minute late after
such an event, and a few milliseconds without one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from attrs import define
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from realize.schedule.timetable import RateTimetable

MAX_LOOK_INTERVAL_S: Final = 60.0
"""Seconds after which the clock on the wall is looked at again, at the latest."""

_MIN_LOOK_INTERVAL_S: Final = 0.001
"""The same, at the earliest: a timer that fires a little early must not spin."""

_Key = TypeVar("_Key", bound=Hashable)


@define(eq=False, repr=False)
class _Followed:
    """A timetable, and the rate that was told last."""

    timetable: RateTimetable
    rate: int | None


class Timetables(Generic[_Key]):
    """Timetables by key; ``changed`` is called with the key, the former rate and the new one, in bytes per second.

    ``wall_clock`` answers seconds since the epoch.
    """

    def __init__(
        self,
        clock: IReactorTime,
        changed: Callable[[_Key, int | None, int | None], object],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._changed: Callable[[_Key, int | None, int | None], object] = changed
        self._wall_clock = wall_clock
        self._followed: dict[_Key, _Followed] = {}
        self._timer: IDelayedCall | None = None
        self._closed = False

    def follow(self, key: _Key, timetable: RateTimetable) -> int | None:
        """Tell from now on what changes by ``timetable``, in place of another one; the answer is the rate now."""
        rate = timetable.rate_at(self._wall_clock())
        self._followed[key] = _Followed(timetable, rate)
        self._wait()
        return rate

    def forget(self, key: _Key) -> None:
        """Tell no more of a key, if it is known."""
        if self._followed.pop(key, None) is not None and not self._followed:
            self._stop()

    def close(self) -> None:
        """Leave no timer behind, for good; nothing is told any more."""
        self._closed = True
        self._stop()

    def _stop(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _wait(self) -> None:
        """Set the timer for the next change of any timetable."""
        self._stop()
        if self._closed or not self._followed:
            return
        now = self._wall_clock()
        changes = (each.next_change(now) for each in {each.timetable for each in self._followed.values()})
        following = min((change[0] for change in changes if change is not None), default=math.inf)
        delay = min(max(following - now, _MIN_LOOK_INTERVAL_S), MAX_LOOK_INTERVAL_S)
        self._timer = self._clock.callLater(delay, self._look)

    def _look(self) -> None:
        """Tell what is another rate by now; what is told may make others be followed, and forgotten."""
        self._timer = None
        now = self._wall_clock()
        rates = {each: each.rate_at(now) for each in {each.timetable for each in self._followed.values()}}
        changes = [
            (key, each, each.rate, rates[each.timetable])
            for key, each in self._followed.items()
            if each.rate != rates[each.timetable]
        ]
        for _, followed, _, rate in changes:
            followed.rate = rate
        try:
            for key, followed, former, rate in changes:
                if self._followed.get(key) is followed:
                    self._changed(key, former, rate)
        finally:
            self._wait()
