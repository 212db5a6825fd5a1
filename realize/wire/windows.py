"""How much of a stream its receiver lets be under way: what the link takes in one round trip, and as much again.

Less than a round trip's worth makes the sender wait; more only waits at the other end, or here for the disk, and what
many streams have under way at once has to go through the processor's caches.

`RoundTrip` measures one connection, `StreamWindow` follows one stream.
Both are told what happens: they send nothing and claim no memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

FIRST_WINDOW_BYTES: Final = 8 << 20
"""The window of a stream until content has shown how fast the link is."""

MIN_WINDOW_BYTES: Final = 4 << 20
"""The narrowest window: what the consumer works on, and as much that arrives meanwhile."""

MIN_SPAN_S: Final = 0.05
"""Seconds over which a rate is measured at least: content comes in bursts."""

MEASURE_INTERVAL_S: Final = 0.5
"""Seconds between measurements of the round trip, as long as content comes."""

_MEASUREMENTS: Final = 8
"""Measurements of which the shortest counts: what a link or a busy process held up has taken longer."""


class RoundTrip:
    """How long an answer takes to come over one connection.

    ``ask`` asks for one that takes the other end no time; its Deferred fails if there will be none.
    """

    def __init__(self, clock: IReactorTime, ask: Callable[[], Deferred[object]]) -> None:
        self._clock = clock
        self._ask = ask
        self._measured: deque[float] = deque(maxlen=_MEASUREMENTS)
        self._asked: float | None = None
        self._waiting = False

    def look(self) -> float | None:
        """Return the round trip in seconds, None if that is not known yet; to be called whenever content comes."""
        now = self._clock.seconds()
        if not self._waiting and (self._asked is None or not 0 <= now - self._asked < MEASURE_INTERVAL_S):
            self._asked, self._waiting = now, True
            self._ask().addCallbacks(self._answered, self._unanswered, (now,))
        return min(self._measured, default=None)

    def _answered(self, _: object, asked: float) -> None:
        self._waiting = False
        took = self._clock.seconds() - asked
        # A clock that was set back says nothing.
        if took >= 0:
            self._measured.append(took)

    def _unanswered(self, _: Failure) -> None:
        self._waiting = False


class StreamWindow:
    """The window of one stream, in ``bytes``.

    Twice what arrives in a round trip: a sender that waits for credit doubles its rate with each of them until the link
    is full, and then has credit left while an answer is late.
    """

    def __init__(self) -> None:
        self.bytes = FIRST_WINDOW_BYTES
        self._since: float | None = None
        self._arrived = 0

    def fit(self, arrived: int, now: float, round_trip: float | None) -> None:
        """Follow the link: ``arrived`` bytes of content have come in all, at ``now`` in seconds.

        Wider at once; narrower by an eighth at a time, since one pause does not make a slow link.
        """
        if not arrived:
            return
        if self._since is None or now < self._since:
            self._since, self._arrived = now, arrived
            return
        if round_trip is None or (took := now - self._since) < max(round_trip, MIN_SPAN_S):
            return
        needed = int(2 * round_trip * (arrived - self._arrived) / took)
        self.bytes = max(MIN_WINDOW_BYTES, needed, self.bytes - self.bytes // 8)
        self._since, self._arrived = now, arrived
