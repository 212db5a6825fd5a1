"""Rates of growing totals, such as the bytes of connections and transfers, from a few samples of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from typing import Final

from twisted.internet.interfaces import IReactorTime

RATE_SAMPLES: Final = 3
"""Samples that are remembered; a rate is computed since the earliest that has the total."""

MIN_SAMPLE_INTERVAL_S: Final = 0.4
"""Least time between two samples, so that extra ones, taken on request, do not displace the regular ones."""

MAX_REPEATED_S: Final = 45.0
"""Seconds for which a sample stands for later ones while connections carry pings alone: one or two at rest, else three.

These are 54 bytes, which still pass for an idle connection.
"""


class RateSampler:
    """Remembers the last samples of all totals."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._looks: deque[tuple[float, Mapping[Hashable, int]]] = deque(maxlen=RATE_SAMPLES)
        self._lasts_until = 0.0
        """For how long the last of them may be repeated."""

    def look(self, totals: Mapping[Hashable, int], *, lasts: bool = False) -> None:
        """Take a sample: the totals by now; ``lasts`` if later it may be repeated."""
        now = self._clock.seconds()
        if self._is_due(now):
            self._looks.append((now, totals))
            self._lasts_until = now + MAX_REPEATED_S if lasts else now

    def repeat(self) -> bool:
        """Take the last sample once more, since the totals are about the same; False if one has to look anew."""
        now = self._clock.seconds()
        if now >= self._lasts_until:
            return False
        if self._is_due(now):
            self._looks.append((now, self._looks[-1][1]))
        return True

    def _is_due(self, now: float) -> bool:
        return not self._looks or now - self._looks[-1][0] >= MIN_SAMPLE_INTERVAL_S

    def of(self, thing: Hashable, total: int) -> float | None:
        """The growth per second of a thing whose total is ``total`` now; None if it is too new to tell."""
        now = self._clock.seconds()
        for then, totals in self._looks:
            before = totals.get(thing)
            if before is not None and now - then >= MIN_SAMPLE_INTERVAL_S:
                return max(0, total - before) / (now - then)
        return None
