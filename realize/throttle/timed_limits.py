"""Limits that are set for good or for a time, after which the one that was last set for good holds again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from attrs import define
from twisted.internet.interfaces import IDelayedCall, IReactorTime

_Key = TypeVar("_Key", bound=Hashable)
_Rate = TypeVar("_Rate", int, float)


@define(eq=False)
class _Held(Generic[_Rate]):
    """The limit of one key; ``lasting`` is the one for good, ``ending`` the timer of one for a time."""

    rate: _Rate | None
    lasting: _Rate | None
    ending: IDelayedCall | None


class TimedLimits(Generic[_Key, _Rate]):
    """Limits by key, in bytes per second; None, and a key that was never set, is no limit.

    ``returned`` is called when the time of a limit is over: with its key, its rate, and the rate that holds now.
    """

    def __init__(self, clock: IReactorTime, returned: Callable[[_Key, _Rate | None, _Rate | None], object]) -> None:
        self._clock = clock
        self._returned: Callable[[_Key, _Rate | None, _Rate | None], object] = returned
        self._held: dict[_Key, _Held[_Rate]] = {}

    def rate(self, key: _Key) -> _Rate | None:
        """The limit that holds for ``key`` now."""
        held = self._held.get(key)
        return None if held is None else held.rate

    def lasts(self, key: _Key) -> float | None:
        """For how many more seconds it holds; None if it is for good."""
        held = self._held.get(key)
        return None if held is None or held.ending is None else held.ending.getTime() - self._clock.seconds()

    def __iter__(self) -> Iterator[_Key]:
        """The keys that have a limit, or had one that will return."""
        return iter(self._held)

    def set(self, key: _Key, rate: _Rate | None, seconds: float | None = None) -> None:
        """Let ``rate`` hold in place of what holds for ``key``: for ``seconds``, or for good."""
        before = self._held.get(key)
        lasting = rate
        if seconds is not None:
            lasting = None if before is None else before.lasting
        _stop(before)
        if rate is None and seconds is None:
            self._held.pop(key, None)
        else:
            ending = None if seconds is None else self._clock.callLater(seconds, self._over, key)
            self._held[key] = _Held(rate, lasting, ending)

    def forget(self, key: _Key) -> None:
        """Drop what was set for ``key``, and its timer."""
        _stop(self._held.pop(key, None))

    def close(self) -> None:
        """Leave no timer behind; limits for a time stay as they are."""
        for held in self._held.values():
            _stop(held)

    def _over(self, key: _Key) -> None:
        held = self._held[key]
        held.ending = None
        self.set(key, held.lasting)
        self._returned(key, held.rate, held.lasting)


def _stop(held: _Held[_Rate] | None) -> None:
    if held is not None and held.ending is not None:
        held.ending.cancel()
        held.ending = None
