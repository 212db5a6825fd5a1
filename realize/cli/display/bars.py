"""The display for terminals: an overall bar, one bar for each large file in flight, messages above them.

Events only count; drawing happens in `tick`, at most five times a second, so that no speed of the mover costs more.
rich knows the width of the terminal and respects ``NO_COLOR``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from realize.cli.display.board import RATE_WINDOW_S, TIME_LEFT_WINDOW_S, Board, Flight, RateWindow, found, time_left
from realize.cli.display.options import DisplayOptions
from realize.cli.display.rows import Row, Shape
from realize.cli.display.summary import Tally
from realize.cli.display.wording import Wording
from realize.errors import DeadlineReached, RealizeError
from realize.mover.events import Event, Failed, NoRoom
from realize.units import display_name, format_size

OWN_BAR_MIN_BYTES = 8 << 20
"""Files of at least this many bytes get a bar of their own."""

MAX_FILE_BARS = 8
"""No more bars of files than this."""


class Bars:
    """Draws the bars and prints messages above them."""

    interval: float = 0.2

    def __init__(self, err: TextIO, now: Callable[[], float], look: DisplayOptions) -> None:
        self._now = now
        self._look = look
        self._wording = Wording(verbose=look.verbose)
        self._board = Board()
        self._meter = RateWindow(RATE_WINDOW_S)
        self._trend = RateWindow(TIME_LEFT_WINDOW_S)
        self._console = Console(file=err, highlight=False, markup=False, emoji=False)
        self._shape = Shape(self._console.width)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._meter.rate(now(), 0)
        self._trend.rate(now(), 0)
        self._live.start()

    def __call__(self, event: Event) -> None:
        """Count the event, and print a message if it deserves one."""
        self._board(event)
        line = self._wording.note(event)
        if line is None and self._look.verbose:
            line = self._wording.arrival(event)
        if line is not None:
            self._refit()
            style = "bold red" if isinstance(event, Failed | NoRoom) else "yellow"
            self._console.print(Text(f"realize: {line}", style=style), soft_wrap=True)

    def tick(self) -> None:
        """Draw."""
        self._refit()
        self._live.update(self.view(self._shape, self._console.height), refresh=True)

    def view(self, shape: Shape, height: int) -> Table:
        """The rows as they are now, no more than there is room for."""
        board, now = self._board, self._now()
        rate = f"{format_size(int(self._meter.rate(now, board.moved)))}/s"
        left = time_left(board, self._trend.rate(now, board.moved))
        files, size = found(board)
        share = _share(board.done, board.found_bytes)
        overall = Row(
            (f"{board.done_files:,}/{files} files", f"{board.done_files:,}/{files}"),
            board.done,
            board.found_bytes or None,
            (
                _joined(f"{format_size(board.done)}/{size}", rate, left),
                _joined(share, rate, left),
                _joined(share, rate),
                share,
            ),
        )
        large = [(path, flight) for path, flight in board.flying.items() if flight.size >= OWN_BAR_MIN_BYTES]
        return shape.table([overall, *(_row(*each) for each in large[: max(0, min(MAX_FILE_BARS, height - 2))])])

    def close(self, tally: Tally, seconds: float, error: RealizeError | None) -> None:
        """Take the bars away and write the final line."""
        self._refit()
        self._live.stop()
        if error is None or (tally.found_files and not isinstance(error, DeadlineReached)):
            line = tally.sentence(seconds, remove=self._look.remove, dry_run=self._look.dry_run)
            self._console.print(Text(f"realize: {line}"), soft_wrap=True)

    def _refit(self) -> None:
        """Take note of the width of the terminal.

        If it is narrower now, the terminal has wrapped the rows that are there, and more lines are to be cleared.
        """
        before, width = self._shape.width, self._console.width
        if width == before:
            return
        self._shape = Shape(width)
        drawn = self._live._live_render  # noqa: SLF001 -- rich clears what it has drawn as if nothing had happened to it
        if drawn._shape is not None:  # noqa: SLF001
            _, height = drawn._shape  # noqa: SLF001
            drawn._shape = width, height * -(-before // width)  # noqa: SLF001


def _row(path: bytes, flight: Flight) -> Row:
    share = _share(flight.reached, flight.size)
    sizes = f"{format_size(flight.reached)}/{format_size(flight.size)}"
    return Row((f"  {display_name(path)}",), flight.reached, flight.size, (sizes, share, share, share))


def _share(done: int, total: int) -> str:
    return f"{100 * done // total}%" if total else "0%"


def _joined(*parts: str) -> str:
    return "  ".join(filter(None, parts))
