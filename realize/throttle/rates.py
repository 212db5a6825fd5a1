"""Which rates and bursts a limit may have, and what follows from a rate.

Pure: every limit is checked here, whether it comes from a string, from a configuration or from a program.
"""

from __future__ import annotations

import math
from typing import Final, TypeVar

from realize.errors import UsageError
from realize.schedule.timetable import RateTimetable
from realize.units import MAX_RATE_BPS, format_rate

MIN_RATE_BPS: Final = 1
"""The lowest limit in bytes per second; the highest is `realize.units.MAX_RATE_BPS`."""

_Rate = TypeVar("_Rate", int, float)

QUANTUM_S: Final = 0.003
"""Seconds' worth of bytes released at a time; a bucket saves up as much again, for nodes that wait for each other."""

MIN_QUANTUM_BYTES: Final = 1024
"""The smallest slice, in bytes, as long as `MAX_QUANTUM_S` allows it: a TLS record costs 22, a packet 40 or more."""

MAX_QUANTUM_S: Final = 0.5
"""The longest, in seconds, that a slice takes to collect; at low rates this makes it smaller than the minimum."""


def slice_of(rate: float) -> int:
    """The bytes to release at a time at ``rate`` bytes per second: 3 ms' worth, more at low rates, at least one."""
    return max(1, int(max(rate * QUANTUM_S, min(MIN_QUANTUM_BYTES, rate * MAX_QUANTUM_S))))


def burst_of(rate: float) -> float:
    """The default burst in bytes at ``rate`` bytes per second: a slice, and another 3 ms' worth."""
    return slice_of(rate) + rate * QUANTUM_S


def check_rate(rate: float | None) -> None:
    """Raise `UsageError` unless ``rate`` is None or from 1 byte/s to 10 TiB/s."""
    if rate is not None and not (math.isfinite(rate) and MIN_RATE_BPS <= rate <= MAX_RATE_BPS):
        raise UsageError(f"a limit is from 1 byte/s to 10 TiB/s, or unlimited; {rate:g} bytes/s is neither")


def check_burst(burst: float | None, rate: float | None) -> None:
    """Raise `UsageError` unless ``burst``, in bytes, is None or enough for ``rate``: a slice, which leaves at once.

    With less than that the rate would not be reached, because a timer fires only so often.
    """
    least = 1 if rate is None else slice_of(rate)
    if burst is not None and not (math.isfinite(burst) and burst >= least):
        raise UsageError(
            f"a limit of {format_rate(rate)} needs a burst of at least {least} byte{'s'[: least > 1]}, not {burst:.16g}"
        )


def check_rate_by_time(limit: float | RateTimetable | None) -> None:
    """`check_rate`, also for each rate of a timetable."""
    for rate in limit.rates if isinstance(limit, RateTimetable) else (limit,):
        check_rate(rate)


def lowest(*rates: _Rate | None) -> _Rate | None:
    """The lowest of the ``rates``, which is the one that binds; None, no limit, if all are None."""
    return min((rate for rate in rates if rate is not None), default=None)
