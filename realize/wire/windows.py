"""How much of a stream its receiver lets be under way: what the link takes in one round trip, and as much again.

Less than a round trip's worth makes the sender wait; more only waits at the other end, or here for the disk, and what
many streams have under way at once has to go through the processor's caches.

`RoundTrip` measures one connection, `StreamWindow` follows one stream.
Both are told what happens: they send nothing and claim no memory.
"""

from __future__ import annotations

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

PROBE_INTERVAL_S: Final = 60.0
"""Seconds for which the shortest round trip counts; then it is measured anew, with little under way."""

EARLY_PROBE_INTERVAL_S: Final = 10.0
"""The same while all measurements of late are `LONGER_TIMES` as long: probably the way has become longer."""

LONGER_TIMES: Final = 4
"""Our own queue does less, unless what a round trip takes is so little that a probe costs nothing."""

QUIET_S: Final = 5.0
"""Seconds without content after which nothing is under way that a measurement would wait for."""

_PROBE_ANSWERS: Final = 3
"""Answers of which a probe takes the shortest: the first ones come behind what was under way before."""

_LATEST_MEASUREMENTS: Final = 8
"""Measurements that tell whether the way has become longer."""


class RoundTrip:
    """How long an answer takes to come over one connection that nothing fills.

    An answer waits behind the content that is under way, which a window decides on; a window that followed such a
    round trip would make it longer, and itself wider, for ever.
    So the shortest one counts, and when it is old a probe finds another one: as long as ``probing``, streams should
    have as little under way as they can go on with.
    After a pause nothing is under way anyway, and what is measured then takes the place of what was known.

    ``ask`` asks for an answer that takes the other end no time; its Deferred fails if there will be none.
    """

    def __init__(self, clock: IReactorTime, ask: Callable[[], Deferred[object]]) -> None:
        self._clock = clock
        self._ask = ask
        self._shortest: float | None = None
        self._found = 0.0
        """When the shortest was measured, or a probe that was to confirm it had no answer."""
        self._latest: list[float] = []  # there are few, and an empty deque takes 760 bytes
        self._asked: float | None = None
        self._waiting = False
        self._looked = 0.0
        self._probe: list[float] | None = None
        """What the probe in progress has measured."""
        self.probing = False
        """Whether streams should have little under way."""

    def look(self) -> float | None:
        """Return the round trip in seconds, None if that is not known; to be called whenever content comes."""
        now = self._clock.seconds()
        quiet, self._looked = not 0 <= now - self._looked < QUIET_S, now
        if self._asked is None or not 0 <= now - self._asked < MEASURE_INTERVAL_S:
            if self._probe is None:
                if quiet:
                    self._probe = []
                elif self._shortest is not None and not 0 <= now - self._found < self._lasts(self._shortest):
                    self._probe, self.probing = [], True
            self._measure()
        return self._shortest

    def _lasts(self, shortest: float) -> float:
        longer = len(self._latest) == _LATEST_MEASUREMENTS and min(self._latest) >= LONGER_TIMES * shortest
        return EARLY_PROBE_INTERVAL_S if longer else PROBE_INTERVAL_S

    def _end_probe(self) -> None:
        self._probe, self.probing, self._found = None, False, self._clock.seconds()

    def _measure(self) -> None:
        if not self._waiting:
            self._asked, self._waiting = self._clock.seconds(), True
            self._ask().addCallbacks(self._answered, self._unanswered, (self._asked, self._probe))

    def _answered(self, _: object, asked: float, probe: list[float] | None) -> None:
        self._waiting = False
        now = self._clock.seconds()
        took = now - asked
        # A clock that was set back says nothing.
        if took >= 0:
            self._latest = [*self._latest[1 - _LATEST_MEASUREMENTS :], took]
            if self._shortest is None or took <= self._shortest:
                self._shortest, self._found = took, now
            if probe is not None and probe is self._probe:
                probe.append(took)
                if len(probe) == _PROBE_ANSWERS:
                    self._shortest = min(probe)
                    self._latest.clear()
                    self._end_probe()
        if self.probing:
            self._measure()

    def _unanswered(self, _: Failure) -> None:
        self._waiting = False
        if self._probe is not None:
            self._end_probe()


class StreamWindow:
    """The window of one stream, in ``bytes``.

    Twice what arrives in a round trip over a link that nothing fills: a sender that waits for credit doubles its rate
    with each of them until the link is full, and then has credit left while an answer is late.
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
