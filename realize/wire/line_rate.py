"""How fast a line takes what is sent, as long as it is the line that holds the sender up; pure.

A sender that is held up by its disk, or by the receiver, leaves the line idle at times, and what went over it says
little of what it could carry.
So the rate is that of a time at whose end something still waited that had been written a while before.
"""

from __future__ import annotations

from collections import deque
from typing import Final, TypeAlias

MEASURED_AFTER_S: Final = 0.25
"""Seconds over which the rate is measured at least."""

WAITED_S: Final = 0.02
"""Seconds after which a line that is not full has carried what was written."""

FORGET_S: Final = 5.0
"""Seconds after which a rate is forgotten if the line has not been full since: it may have become faster."""

_APART_S: Final = 0.005
"""Seconds between writes that are noted one by one."""


_Mark: TypeAlias = tuple[float, int]
"""A time, and a position among all bytes that are sent over the line."""


class LineRate:
    """The rate of one line.

    `wrote` is called at each write, and `look`, if it `is_due`, right before one.
    ``now`` is in seconds, of a clock that nobody sets.
    """

    def __init__(self) -> None:
        self.rate_bps: float | None = None
        """Bytes per second; None if the line holds nobody up, as far as is known."""
        self._since: _Mark | None = None
        """What had left this machine when we looked last."""
        self._full_at = 0.0
        """When the line was last found full."""
        self._writes: deque[_Mark] | None = None
        """Where the writes of late began; None before the first one: an empty deque takes 760 bytes."""

    def wrote(self, now: float, begin: int) -> None:
        """Something was written at that position."""
        writes = self._writes
        if writes is None:
            writes = self._writes = deque()
        if not writes or now - writes[-1][0] >= _APART_S:
            self._forget_writes(now)
            writes.append((now, begin))

    def is_due(self, now: float) -> bool:
        """Whether the rate can be measured anew."""
        return self._since is None or now - self._since[0] >= MEASURED_AFTER_S

    def look(self, now: float, sent: int, unsent: int) -> None:
        """Measure: of ``sent`` bytes written so far, ``unsent`` have not left this machine, or not arrived."""
        since = self._since
        gone = sent - unsent
        self._forget_writes(now)
        settled = self._writes[0][1] if self._writes else sent
        if since is not None and gone < settled:
            self.rate_bps = (gone - since[1]) / (now - since[0])
            self._full_at = now
        elif now - self._full_at > FORGET_S:
            self.rate_bps = None
        self._since = (now, gone)

    def _forget_writes(self, now: float) -> None:
        writes = self._writes
        while writes and writes[0][0] <= now - WAITED_S:
            writes.popleft()
