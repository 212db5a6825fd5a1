"""How far a run is and how fast it goes, kept from the mover's events for whatever displays it; pure."""

from __future__ import annotations

from typing import Final

from attrs import define, field

from realize.mover.events import (
    Event,
    Failed,
    Finished,
    Found,
    Listed,
    Postponed,
    Progressed,
    Retrying,
    Started,
    Stopped,
    Unknown,
)
from realize.units import format_duration, format_size


@define
class Flight:
    """A file under way: its size, unless it is small and travels in a batch, and how much of it has gone over."""

    size: int
    reached: int


@define
class Sent:
    """Bytes of content that have travelled, also those of files that did not get there; each counts once."""

    total: int = 0
    _counted: dict[bytes, int] = field(factory=dict)
    """What is in ``total`` of files that have not ended."""

    def __call__(self, event: Event) -> None:
        """Take one event into account."""
        match event:
            case Progressed(path, amount, found):
                self.total += amount - found
                self._counted[path] = self._counted.get(path, 0) + amount - found
            case Finished(path, _, sent) | Unknown(path, _, sent):
                self.total += sent - self._counted.pop(path, 0)
            case Started(path) | Stopped(path) | Postponed(path) | Failed(path):
                self._counted.pop(path, None)
            case Retrying():
                self._counted.clear()
            case _:
                pass


@define
class Board:
    """How far a run is: what a display shows while it works.

    ``done`` counts what has gone over of the files found, in this run or in earlier ones, ``moved`` what got on in this
    run: what was sent, and what was found at the destination.
    """

    found_files: int = 0
    found_bytes: int = 0
    listed: bool = False
    """Whether nothing more will be found."""
    done_files: int = 0
    done: int = 0
    sent: Sent = field(factory=Sent)
    flying: dict[bytes, Flight] = field(factory=dict)

    _taken: int = 0

    @property
    def moved(self) -> int:
        """What got on in this run."""
        return self.sent.total + self._taken

    def __call__(self, event: Event) -> None:
        """Take one event into account."""
        self.sent(event)
        match event:
            case Progressed():
                self._progressed(event)
            case Found(files, size):
                self.found_files += files
                self.found_bytes += size
            case Listed():
                self.listed = True
            case Started():
                self._land(event.path)
                self.flying[event.path] = Flight(event.size, event.have)
                self.done += event.have
            case Finished():
                self._land(event.path)
                self.done += event.size
                self.done_files += 1
            case Failed():
                self._land(event.path)
                self.done_files += 1
            case Stopped() | Postponed() | Unknown():
                self._land(event.path)
            case Retrying():
                # What is not done will be found again.
                for path in list(self.flying):
                    self._land(path)
                self.listed = False
                self.found_files = self.done_files
                self.found_bytes = self.done
            case _:
                pass

    def _progressed(self, event: Progressed) -> None:
        self._taken += event.found
        self.flying.setdefault(event.path, Flight(0, 0)).reached += event.amount
        self.done += event.amount

    def _land(self, path: bytes) -> None:
        flight = self.flying.pop(path, None)
        if flight is not None:
            self.done -= flight.reached


RATE_WINDOW_S: Final = 2.0
"""Seconds over which the rate is measured that people see."""

TIME_LEFT_WINDOW_S: Final = 10.0
"""Seconds over which the rate is measured that tells how long the rest will take."""


@define
class RateWindow:
    """The rate at which a growing count grew over the last ``window`` seconds."""

    window: float
    _samples: list[tuple[float, int]] = field(factory=list)

    def rate(self, now: float, count: int) -> float:
        """Take a sample and answer the rate, in units per second; 0.0 as long as nothing can be said."""
        self._samples.append((now, count))
        while len(self._samples) > 2 and self._samples[1][0] <= now - self.window:
            del self._samples[0]
        first, before = self._samples[0]
        return (count - before) / (now - first) if now > first else 0.0


def found(board: Board) -> tuple[str, str]:
    """How many files were found, and of how many bytes, for people; a plus tells that there may be more."""
    more = "" if board.listed else "+"
    return f"{board.found_files:,}{more}", f"{format_size(board.found_bytes)}{more}"


def time_left(board: Board, rate: float) -> str:
    """How long all that was found will take at this rate, for people; empty if that cannot be said."""
    left = remaining(board, rate)
    return "" if left is None else f"{format_duration(round(left))}{'' if board.listed else '+'} left"


def remaining(board: Board, rate: float) -> float | None:
    """Seconds until all that was found is done at this rate, or None if that cannot be said."""
    return max(0, board.found_bytes - board.done) / rate if rate > 0 else None
