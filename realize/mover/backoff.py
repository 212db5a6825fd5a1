"""How long to wait before the next attempt at a lost connection; pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import define

FIRST_DELAY_S: Final = 0.5
"""The delay before the first attempt."""

MAX_DELAY_S: Final = 300.0
"""The longest delay before an attempt."""

JITTER_FRACTION: Final = 0.25
"""The random part of a delay, so that many commands do not all reconnect at the same moment."""


@define
class Backoff:
    """Delays that double from `FIRST_DELAY_S` up to `MAX_DELAY_S`; ``chance`` returns random numbers from 0 to 1."""

    chance: Callable[[], float]
    attempts: int = 0

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        delay = min(FIRST_DELAY_S * 2.0 ** min(self.attempts, 32), MAX_DELAY_S)
        self.attempts += 1
        return delay * (1.0 - JITTER_FRACTION * self.chance())

    def reset(self) -> None:
        """Start again with the first delay, because an attempt made progress."""
        self.attempts = 0
