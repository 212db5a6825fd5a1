"""How far a run is, from the mover's events; pure."""

from __future__ import annotations

from attrs import define

from realize.by_value import ByValue
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


@define(eq=False, repr=False)
class InFlight(ByValue):
    """A file in flight: its size (0 for a small file in a batch), and how many bytes of it are at the destination."""

    size: int
    reached: int


class Sent:
    """Counts the bytes of content that travelled, each once, including those of files that never arrived."""

    def __init__(self) -> None:
        self.total = 0
        self._counted: dict[bytes, int] = {}
        """For each file that has not ended, its part of ``total``."""

    def __call__(self, event: Event) -> None:
        """Take one event into account."""
        match event:
            case Finished() | Unknown():
                self.total += event.sent - self._counted.pop(event.path, 0)
            case Progressed(path, amount, found):
                self.total += amount - found
                self._counted[path] = self._counted.get(path, 0) + amount - found
            case Started(path) | Stopped(path) | Postponed(path) | Failed(path):
                self._counted.pop(path, None)
            case Retrying():
                self._counted.clear()
            case _:
                pass


class Board:
    """How far a run is, for a display while it works; sizes are in bytes.

    ``done`` is how much of the files found is at the destination, including parts that an earlier run had sent.
    ``moved`` is the progress of this run alone: what was sent, copied from old versions, or left out as holes.
    """

    def __init__(self) -> None:
        self.found_files = 0
        self.found_bytes = 0
        self.listed = False
        """Whether the listing is complete, so that no more files will be found."""
        self.done_files = 0
        self.done = 0
        self.sent = Sent()
        self.in_flight: dict[bytes, InFlight] = {}
        self._copied = 0

    @property
    def moved(self) -> int:
        """The progress of this run, in bytes."""
        return self.sent.total + self._copied

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
                self._drop(event.path)
                self.in_flight[event.path] = InFlight(event.size, event.have)
                self.done += event.have
            case Finished():
                self._drop(event.path)
                self.done += event.size
                self.done_files += 1
            case Failed():
                self._drop(event.path)
                self.done_files += event.found
            case Stopped() | Postponed() | Unknown():
                self._drop(event.path)
            case Retrying():
                # Files that are not done will be found again.
                for path in list(self.in_flight):
                    self._drop(path)
                self.listed = False
                self.found_files = self.done_files
                self.found_bytes = self.done
            case _:
                pass

    def _progressed(self, event: Progressed) -> None:
        self._copied += event.found
        self.in_flight.setdefault(event.path, InFlight(0, 0)).reached += event.amount
        self.done += event.amount

    def _drop(self, path: bytes) -> None:
        file = self.in_flight.pop(path, None)
        if file is not None:
            self.done -= file.reached
