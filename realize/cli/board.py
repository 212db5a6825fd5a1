"""How far a run is and how fast it goes, kept from the mover's events for whatever displays it; pure."""

from __future__ import annotations

from attrs import define, field

from realize.mover.events import (
    Event,
    Failed,
    Finished,
    Found,
    Interrupted,
    Postponed,
    Progressed,
    Retrying,
    Started,
    Unknown,
)


@define
class Flight:
    """A started file: its size, and how much of it the destination has."""

    size: int
    reached: int


@define
class Board:
    """How far a run is: what a display shows while it works.

    ``moved`` counts bytes that got there in this run, ``sent`` those of them that travelled, ``done`` also those of
    earlier runs.
    """

    found_files: int = 0
    found_bytes: int = 0
    done_files: int = 0
    done: int = 0
    moved: int = 0
    sent: int = 0
    flying: dict[bytes, Flight] = field(factory=dict)

    def __call__(self, event: Event) -> None:
        """Take one event into account."""
        match event:
            case Progressed():
                self._progressed(event)
            case Found(files, size):
                self.found_files += files
                self.found_bytes += size
            case Started():
                self._land(event.path)
                self.flying[event.path] = Flight(event.size, event.have)
                self.done += event.have
            case Finished():
                flight = self._land(event.path)
                if flight is None:
                    self.moved += event.sent
                    self.sent += event.sent
                self.done += event.size
                self.done_files += 1
            case Failed():
                self._land(event.path)
                self.done_files += 1
            case Unknown():
                if self._land(event.path) is None:
                    self.moved += event.sent
                    self.sent += event.sent
            case Interrupted() | Postponed():
                self._land(event.path)
            case Retrying():
                # What is not done will be found again.
                self.found_files = self.done_files
                self.found_bytes = self.done
            case _:
                pass

    def _progressed(self, event: Progressed) -> None:
        self.moved += event.amount
        self.sent += event.amount - event.found
        flight = self.flying.get(event.path)
        if flight is not None:
            flight.reached += event.amount
            self.done += event.amount

    def _land(self, path: bytes) -> Flight | None:
        flight = self.flying.pop(path, None)
        if flight is not None:
            self.done -= flight.reached
        return flight


@define
class Meter:
    """The rate at which a growing count grew over the last ``window`` seconds."""

    window: float = 10.0
    _samples: list[tuple[float, int]] = field(factory=list)

    def rate(self, now: float, count: int) -> float:
        """Take a sample and answer the rate, in units per second; 0.0 as long as nothing can be said."""
        self._samples.append((now, count))
        while len(self._samples) > 2 and self._samples[1][0] <= now - self.window:
            del self._samples[0]
        first, before = self._samples[0]
        return (count - before) / (now - first) if now > first else 0.0


def remaining(board: Board, rate: float) -> float | None:
    """Seconds until all that was found is done at this rate, or None if that cannot be said."""
    return max(0, board.found_bytes - board.done) / rate if rate > 0 else None
