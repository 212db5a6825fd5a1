"""How long to wait before the next attempt at a lost connection; pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import define

FIRST_DELAY_S: Final = 0.5
"""Seconds before the first attempt."""

MAX_DELAY_S: Final = 300.0
"""Seconds before any attempt, at most."""

JITTER_FRACTION: Final = 0.25
"""The part of a delay that chance decides, so that many commands do not come back all at once."""


@define
class Backoff:
    """Delays that double from `FIRST_DELAY_S` to `MAX_DELAY_S`; ``chance`` gives numbers from 0 to 1."""

    chance: Callable[[], float]
    attempts: int = 0

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        delay = min(FIRST_DELAY_S * 2.0 ** min(self.attempts, 32), MAX_DELAY_S)
        self.attempts += 1
        return delay * (1.0 - JITTER_FRACTION * self.chance())

    def reset(self) -> None:
        """An attempt got somewhere: begin anew."""
        self.attempts = 0
