"""The rate at which bytes flowed during the last second.

Pure arithmetic over two slots of one second: the one being filled, and the one before it.
The older slot fades out as the newer one fills, so that a reading always covers one second, and nothing in it is older
than two.
"""

from __future__ import annotations

from typing import Final

SLOT_S: Final = 1.0
"""Length of a slot in seconds."""


class Meter:
    """Counts bytes as they pass; all times are seconds of one clock, which should be monotonic."""

    def __init__(self) -> None:
        self.total = 0
        """All bytes ever counted."""
        self._start = 0.0
        self._current = 0.0
        self._previous = 0.0

    def count(self, amount: int, now: float) -> None:
        """Count ``amount`` bytes that passed at ``now``."""
        self.total += amount
        self._advance(now)
        self._current += amount

    def rate(self, now: float) -> float:
        """Bytes per second during the second before ``now``."""
        self._advance(now)
        return self._previous * (SLOT_S - (now - self._start)) + self._current

    def absorb(self, other: Meter, now: float) -> None:
        """Take over what ``other`` has counted, its rate included; ``other`` must not be used any more."""
        rate = other.rate(now)
        self.rate(now)
        self.total += other.total
        self._current += rate

    def _advance(self, now: float) -> None:
        passed = now - self._start
        if passed < 0.0:
            # The clock was set back: start the slot again and keep what it holds.
            self._start = now
        elif passed >= 2 * SLOT_S:
            self._previous, self._current, self._start = 0.0, 0.0, now
        elif passed >= SLOT_S:
            self._previous, self._current, self._start = self._current, 0.0, self._start + SLOT_S
