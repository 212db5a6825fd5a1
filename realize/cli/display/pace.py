"""How fast a run goes and how long it will take, for people; pure."""

from __future__ import annotations

from typing import Final

from realize.runs.board import Board
from realize.units import format_duration, format_size

RATE_WINDOW_S: Final = 2.0
"""The window of the rate that is displayed."""

TIME_LEFT_WINDOW_S: Final = 10.0
"""The window of the rate from which the time left is estimated."""


class RateWindow:
    """The rate of a growing count over the last ``window`` seconds."""

    def __init__(self, window: float) -> None:
        self.window = window
        self._samples: list[tuple[float, int]] = []

    def rate(self, now: float, count: int) -> float:
        """Take a sample and return the rate, in units per second; 0.0 with the first sample."""
        self._samples.append((now, count))
        while len(self._samples) > 2 and self._samples[1][0] <= now - self.window:
            del self._samples[0]
        first, before = self._samples[0]
        return (count - before) / (now - first) if now > first else 0.0


def found(board: Board) -> tuple[str, str]:
    """The number of files found and their total size, for people; a plus means that there may be more."""
    more = "" if board.listed else "+"
    return f"{board.found_files:,}{more}", f"{format_size(board.found_bytes)}{more}"


def time_left(board: Board, rate: float) -> str:
    """The time left at this rate (bytes per second), for people; empty if unknown."""
    left = remaining(board, rate)
    return "" if left is None else f"{format_duration(round(left))}{'' if board.listed else '+'} left"


def remaining(board: Board, rate: float) -> float | None:
    """Seconds until all files found so far are done at this rate (bytes per second), or None if unknown."""
    return max(0, board.found_bytes - board.done) / rate if rate > 0 else None
