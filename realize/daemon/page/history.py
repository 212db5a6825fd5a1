"""The rates of the last hour, as a few samples of growing totals.

Invariants: no more than `MAX_SERIES` things are remembered, and of each no more than `HISTORY_SAMPLES` rates, eight
bytes each; a thing that is no longer there is forgotten.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

HISTORY_INTERVAL_S: Final = 20.0
"""Time between two samples."""

HISTORY_SAMPLES: Final = 180
"""Samples that are remembered: those of an hour."""

MAX_SERIES: Final = 128
"""Things whose rates are remembered: 180 KiB in all."""


@define(eq=False, repr=False)
class RateHistory:
    """The rates of some things, in bytes per second; pure."""

    _before: dict[Hashable, int] = field(factory=dict, init=False)
    _rates: dict[Hashable, array[float]] = field(factory=dict, init=False)

    def add(self, totals: Mapping[Hashable, int], intervals: int = 1) -> None:
        """Take a sample of all totals in bytes, ``intervals`` after the one before; more than one if some were missed.

        A total that is less than before has grown by nothing.
        """
        totals = dict(list(totals.items())[:MAX_SERIES])
        for thing in self._rates.keys() - totals.keys():
            del self._rates[thing]
        for thing, total in totals.items():
            rates = self._rates.setdefault(thing, array("d"))
            if thing in self._before:
                rate = max(0, total - self._before[thing]) / (HISTORY_INTERVAL_S * intervals)
                rates.extend([rate] * min(intervals, HISTORY_SAMPLES))
                del rates[:-HISTORY_SAMPLES]
        self._before = totals

    def of(self, thing: Hashable) -> Sequence[float]:
        """The rates of a thing, the latest last; fewer than `HISTORY_SAMPLES` if it is not that old."""
        return tuple(self._rates.get(thing, ()))


@define(eq=False, repr=False)
class HistorySampler:
    """Takes the samples of a history by the clock; those that a busy reactor missed are made up for.

    ``totals`` returns the totals in bytes by now.
    """

    _clock: IReactorTime
    _totals: Callable[[], Mapping[Hashable, int]]
    history: RateHistory = field(factory=RateHistory, init=False)
    _sampling: LoopingCall | None = field(default=None, init=False)

    def start(self) -> None:
        """Take the first sample now."""
        # It keeps to its beginning, so intervals never drift, and says how many have passed.
        self._sampling = LoopingCall.withCount(self._sample)
        self._sampling.clock = self._clock
        self._sampling.start(HISTORY_INTERVAL_S)

    def stop(self) -> None:
        """Leave no timer behind."""
        if self._sampling is not None and self._sampling.running:
            self._sampling.stop()

    def _sample(self, intervals: int) -> None:
        self.history.add(self._totals(), intervals)
