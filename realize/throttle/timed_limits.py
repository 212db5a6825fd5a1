"""Limits that are set for good, as a rate or a timetable, and for a time, after which the one for good holds again."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Hashable, Iterator
from typing import Final, Generic, TypeVar

from attrs import define
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from realize.errors import UsageError
from realize.schedule.timetable import RateTimetable
from realize.throttle.rates import lowest
from realize.throttle.timetables import Timetables

_MAX_CHANGES_AHEAD: Final = 50
"""Changes of single limits that are looked through for the next one of several together."""

_Key = TypeVar("_Key", bound=Hashable)
_Rate = TypeVar("_Rate", int, float)


class Cause(enum.Enum):
    """Why a limit has changed."""

    PEER = "peer"
    RELOAD = "reload"
    TIME = "time"
    """It was set for a limited time, which is over."""
    TIMETABLE = "timetable"
    """Its timetable has another rate from now on."""


@define(eq=False, repr=False)
class _Held(Generic[_Rate]):
    """The limit of one key; ``lasting`` is the one for good, ``ending`` the timer of one for a time."""

    rate: _Rate | int | None
    lasting: _Rate | RateTimetable | None
    ending: IDelayedCall | None


LimitChanged = Callable[[_Key, _Rate | int | None, _Rate | int | None, Cause], object]


class TimedLimits(Generic[_Key, _Rate]):
    """Limits by key, in bytes per second; None, and a key that was never set, is no limit.

    ``changed`` is called when a limit changes by itself: with its key, its rate until then, the rate that holds now,
    and whether the time of a limit is over or a timetable says so.
    ``wall_clock`` is what timetables go by, in seconds since the epoch.
    """

    def __init__(
        self,
        clock: IReactorTime,
        changed: LimitChanged[_Key, _Rate],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._changed: LimitChanged[_Key, _Rate] = changed
        self._held: dict[_Key, _Held[_Rate]] = {}
        self._timetables = Timetables[_Key](clock, self._by_timetable, wall_clock)

    def rate(self, key: _Key) -> _Rate | int | None:
        """The limit that holds for ``key`` now."""
        held = self._held.get(key)
        return None if held is None else held.rate

    def lasts(self, key: _Key) -> float | None:
        """For how many more seconds it holds; None if it is for good."""
        held = self._held.get(key)
        return None if held is None or held.ending is None else held.ending.getTime() - self._clock.seconds()

    def timetable(self, key: _Key) -> RateTimetable | None:
        """The timetable that holds for good; None if a rate does."""
        held = self._held.get(key)
        return held.lasting if held is not None and isinstance(held.lasting, RateTimetable) else None

    def next_change(self, *keys: _Key) -> tuple[float, _Rate | int | None] | None:
        """In how many seconds the lowest limit of some keys becomes another one by itself, and which; None: never."""
        now = moment = self._wall_clock()
        present = lowest(*map(self.rate, keys))
        for _ in range(_MAX_CHANGES_AHEAD):
            following = [at for at in (self._change_after(key, now, moment) for key in keys) if at is not None]
            if not following:
                break
            moment = min(following)
            rate = lowest(*(self._rate_at(key, now, moment) for key in keys))
            if rate != present:
                return moment - now, rate
        return None

    def __iter__(self) -> Iterator[_Key]:
        """The keys that have a limit, or had one that will return."""
        return iter(self._held)

    def set(self, key: _Key, limit: _Rate | RateTimetable | None, seconds: float | None = None) -> None:
        """Let ``limit`` hold in place of what holds for ``key``: for ``seconds``, or for good.

        Raises `UsageError` for a timetable that is to hold for a time.
        """
        if seconds is not None and isinstance(limit, RateTimetable):
            raise UsageError("a limit that holds for a time is one rate, not a timetable")
        before = self._held.get(key)
        _stop(before)
        if seconds is not None and not isinstance(limit, RateTimetable):
            lasting = None if before is None else before.lasting
            self._held[key] = _Held(limit, lasting, self._clock.callLater(seconds, self._over, key))
        elif limit is None:
            self.forget(key)
        else:
            self._held[key] = _Held(self._begin(key, limit), limit, None)

    def set_lasting(self, key: _Key, limit: _Rate | RateTimetable | None) -> None:
        """Let ``limit`` hold for good; one that holds for a time at present does so until its end."""
        held = self._held.get(key)
        if held is None or held.ending is None:
            self.set(key, limit)
        else:
            held.lasting = limit
            self._begin(key, limit)

    def forget(self, key: _Key) -> None:
        """Drop what was set for ``key``, and its timer."""
        _stop(self._held.pop(key, None))
        self._timetables.forget(key)

    def close(self) -> None:
        """Leave no timer behind; limits for a time stay as they are, and timetables do not go on."""
        for held in self._held.values():
            _stop(held)
        self._timetables.close()

    def _begin(self, key: _Key, lasting: _Rate | RateTimetable | None) -> _Rate | int | None:
        """The rate of a limit for good by now; follow it if it is a timetable."""
        if isinstance(lasting, RateTimetable):
            return self._timetables.follow(key, lasting)
        self._timetables.forget(key)
        return lasting

    def _over(self, key: _Key) -> None:
        held = self._held[key]
        held.ending = None
        self.set(key, held.lasting)
        self._changed(key, held.rate, self.rate(key), Cause.TIME)

    def _by_timetable(self, key: _Key, _former: int | None, rate: int | None) -> None:
        held = self._held[key]
        if held.ending is None:
            former, held.rate = held.rate, rate
            self._changed(key, former, rate, Cause.TIMETABLE)

    def _change_after(self, key: _Key, now: float, moment: float) -> float | None:
        """When the limit of a key may change by itself, after a moment from ``now`` on."""
        lasts, timetable = self.lasts(key), self.timetable(key)
        if lasts is not None and now + lasts > moment:
            return now + lasts
        change = None if timetable is None else timetable.next_change(moment)
        return None if change is None else change[0]

    def _rate_at(self, key: _Key, now: float, moment: float) -> _Rate | int | None:
        """The limit of a key at a moment from ``now`` on, if nobody sets it."""
        held, lasts = self._held.get(key), self.lasts(key)
        if held is None or (lasts is not None and moment < now + lasts):
            return None if held is None else held.rate
        return held.lasting.rate_at(moment) if isinstance(held.lasting, RateTimetable) else held.lasting


def _stop(held: _Held[_Rate] | None) -> None:
    if held is not None and held.ending is not None:
        held.ending.cancel()
        held.ending = None
