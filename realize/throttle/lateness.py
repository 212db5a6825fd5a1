"""How late the timers of a reactor are, and how much of what they were late by is made up for.

Pure arithmetic; all times are seconds of one clock.

A bucket that is served late passes, besides what it saved up, what came in while it was waiting to be served.
To do so without a bound would follow every hiccup by a burst; to do so not at all costs a busy reactor its rate.
So the bound grows with the lateness that is observed: it doubles whenever a timer uses up half of it, and is halved by
each second in which none does.
While timers are punctual, what is made up for is what `MIN_CATCH_UP_S` brings at most.
"""

from __future__ import annotations

import math
from typing import Final

MIN_CATCH_UP_S: Final = 0.003
"""Seconds of lateness that are always made up for; a timer of a punctual reactor is late by one millisecond at most."""

MAX_CATCH_UP_S: Final = 0.1
"""Seconds of lateness that are made up for at most; longer ones are no load, but a process that stood still."""


class Lateness:
    """Watches one timer."""

    def __init__(self) -> None:
        self._bound = MIN_CATCH_UP_S
        self._grew = 0.0

    def begin(self, due: float, now: float) -> float:
        """The moment from which on to serve at ``now``: ``due``, when it was to be done, or as long ago as counts."""
        late = max(0.0, now - due)
        bound = self.bound(now)
        if late > bound / 2:
            self._bound, self._grew = min(MAX_CATCH_UP_S, 2 * bound), now
        return now - min(late, bound)

    def bound(self, now: float) -> float:
        """Seconds of lateness that count at ``now``."""
        return max(MIN_CATCH_UP_S, self._bound * math.exp2(min(0.0, self._grew - now)))
