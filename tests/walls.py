"""A clock on the wall for tests, which goes as a reactor's clock does until somebody sets it."""

from __future__ import annotations

from datetime import datetime

from twisted.internet.task import Clock

DATE = "2026-11-28"
"""A Saturday without a change of clocks anywhere."""


class Wall:
    """Seconds since the epoch, beginning at a time of that day, in the zone of the machine."""

    def __init__(self, clock: Clock, time: str) -> None:
        self._clock = clock
        self._ahead = 0.0
        self.show(time)

    def show(self, time: str, date: str = DATE) -> None:
        """Set the clock, as somebody does who finds it wrong; also what time is it after the machine has slept."""
        self._ahead = datetime.fromisoformat(f"{date} {time}").timestamp() - self._clock.seconds()

    def __call__(self) -> float:
        """The present."""
        return self._clock.seconds() + self._ahead
