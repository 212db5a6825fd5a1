"""Displays for logs and pipes: plain lines, or nothing but errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO

from realize.cli.display.options import DisplayOptions
from realize.cli.display.pace import RateWindow, found, time_left
from realize.cli.display.summary import closing_line
from realize.cli.display.wording import Wording, plan_line
from realize.errors import DeadlineReached, RealizeError
from realize.mover.events import Event, Failed, Finished, NoRoom, Planned, Pruned, SourceStarted
from realize.runs.board import Board
from realize.runs.tally import Tally
from realize.units import format_size


class Lines:
    """Writes a line for everything unusual, one each minute for progress, and one at the end."""

    interval: float = 60.0

    def __init__(self, out: TextIO, err: TextIO, now: Callable[[], float], options: DisplayOptions) -> None:
        self._out = out
        self._err = err
        self._now = now
        self._options = options
        self._wording = Wording(verbose=options.verbose)
        self._board = Board()
        self._meter = RateWindow(window=self.interval)
        self._meter.rate(now(), 0)

    def __call__(self, event: Event) -> None:
        """Count the event, and write a line about it if there is one."""
        self._board(event)
        if isinstance(event, Planned) or (isinstance(event, Pruned) and not event.removed):
            print(plan_line(event), file=self._out)
            return
        if self._options.dry_run and isinstance(event, SourceStarted):
            self._say(f"from {event.source} to {event.destination}")
        line = self._wording.note(event)
        if line is None and self._options.verbose:
            line = self._wording.arrival(event)
        if line is not None:
            self._say(line)

    def tick(self) -> None:
        """Write how far the run is."""
        board = self._board
        rate = self._meter.rate(self._now(), board.moved)
        files, size = found(board)
        parts = [f"{board.done_files:,} of {files} files", f"{format_size(board.done)} of {size}"]
        parts += [f"{format_size(int(rate))}/s", time_left(board, rate)]
        self._say(", ".join(filter(None, parts)))

    def close(self, tally: Tally, seconds: float, error: RealizeError | None) -> None:
        """Write the final line."""
        if error is None or (tally.found_files and not isinstance(error, DeadlineReached)):
            self._say(closing_line(tally, seconds, remove=self._options.remove, dry_run=self._options.dry_run))

    def _say(self, line: str) -> None:
        print(f"realize: {line}", file=self._err, flush=True)


class Quiet:
    """Writes nothing but errors."""

    interval: float = 3600.0

    def __init__(self, err: TextIO) -> None:
        self._err = err
        self._wording = Wording()

    def __call__(self, event: Event) -> None:
        """Write failures."""
        if isinstance(event, Finished):
            return
        line = self._wording.note(event)
        if line is not None and isinstance(event, (Failed, NoRoom)):
            print(f"realize: {line}", file=self._err, flush=True)

    def tick(self) -> None:
        """Write nothing."""

    def close(self, tally: Tally, seconds: float, error: RealizeError | None) -> None:
        """Write nothing."""
