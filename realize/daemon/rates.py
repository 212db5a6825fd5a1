"""How fast what grows on the daemon does so: the bytes of connections and transfers, looked at about every second."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from typing import Final

from twisted.internet.interfaces import IReactorTime

RATE_SAMPLES: Final = 3
"""Looks that are remembered; a rate is that since the earliest of them."""

MIN_SAMPLE_INTERVAL_S: Final = 0.4
"""Seconds that two looks are apart at least, so that those which somebody asks for do not drive the others out."""


class RateSampler:
    """Remembers what the last looks have seen."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._looks: deque[tuple[float, Mapping[Hashable, int]]] = deque(maxlen=RATE_SAMPLES)

    def look(self, totals: Mapping[Hashable, int]) -> None:
        """So much it is by now of each thing that grows."""
        now = self._clock.seconds()
        if not self._looks or now - self._looks[-1][0] >= MIN_SAMPLE_INTERVAL_S:
            self._looks.append((now, totals))

    def of(self, thing: Hashable, total: int) -> float | None:
        """How much a thing that has now come to ``total`` grew in a second; None for one that has just begun."""
        now = self._clock.seconds()
        for then, totals in self._looks:
            before = totals.get(thing)
            if before is not None and now - then >= MIN_SAMPLE_INTERVAL_S:
                return max(0, total - before) / (now - then)
        return None
