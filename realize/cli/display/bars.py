"""The display for terminals: an overall bar, one bar for each large file in flight, and messages above them.

Events are only counted; `tick` draws, five times a second, so that a fast mover does not cost more.
rich knows the width of the terminal and respects ``NO_COLOR``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from realize.cli.display.options import DisplayOptions
from realize.cli.display.pace import RATE_WINDOW_S, TIME_LEFT_WINDOW_S, RateWindow, found, time_left
from realize.cli.display.rows import Row, Shape
from realize.cli.display.summary import closing_line
from realize.cli.display.wording import Wording
from realize.errors import DeadlineReached, RealizeError
from realize.mover.events import Event, Failed, NoRoom
from realize.runs.board import Board, InFlight
from realize.runs.tally import Tally
from realize.units import display_name, format_size

OWN_BAR_MIN_BYTES = 8 << 20
"""Files of at least this size get a bar of their own."""

MAX_FILE_BARS = 8
"""Bars of single files at most."""


class Bars:
    """Draws the bars and prints messages above them."""

    interval: float = 0.2

    def __init__(self, err: TextIO, now: Callable[[], float], options: DisplayOptions) -> None:
        self._now = now
        self._options = options
        self._wording = Wording(verbose=options.verbose)
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
        """Count the event, and print a message about it if there is one."""
        self._board(event)
        line = self._wording.note(event)
        if line is None and self._options.verbose:
            line = self._wording.arrival(event)
        if line is not None:
            self._refit()
            style = "bold red" if isinstance(event, Failed | NoRoom) else "yellow"
            self._console.print(Text(f"realize: {line}", style=style), soft_wrap=True)

    def tick(self) -> None:
        """Draw the bars."""
        self._refit()
        self._live.update(self.view(self._shape, self._console.height), refresh=True)

    def view(self, shape: Shape, height: int) -> Table:
        """The rows as they are now, at most as many as fit into ``height`` lines."""
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
        large = [(path, file) for path, file in board.in_flight.items() if file.size >= OWN_BAR_MIN_BYTES]
        return shape.table([overall, *(_row(*each) for each in large[: max(0, min(MAX_FILE_BARS, height - 2))])])

    def close(self, tally: Tally, seconds: float, error: RealizeError | None) -> None:
        """Remove the bars and write the final line."""
        self._refit()
        self._live.stop()
        if error is None or (tally.found_files and not isinstance(error, DeadlineReached)):
            line = closing_line(tally, seconds, remove=self._options.remove, dry_run=self._options.dry_run)
            self._console.print(Text(f"realize: {line}"), soft_wrap=True)

    def _refit(self) -> None:
        """Adapt to the width of the terminal.

        A terminal that was made narrower has wrapped the drawn rows, so more lines have to be cleared.
        """
        before, width = self._shape.width, self._console.width
        if width == before:
            return
        self._shape = Shape(width)
        drawn = self._live._live_render  # noqa: SLF001 -- rich itself would clear as many lines as it has drawn
        if drawn._shape is not None:  # noqa: SLF001
            _, height = drawn._shape  # noqa: SLF001
            drawn._shape = width, height * -(-before // width)  # noqa: SLF001


def _row(path: bytes, file: InFlight) -> Row:
    share = _share(file.reached, file.size)
    sizes = f"{format_size(file.reached)}/{format_size(file.size)}"
    return Row((f"  {display_name(path)}",), file.reached, file.size, (sizes, share, share, share))


def _share(done: int, total: int) -> str:
    return f"{100 * done // total}%" if total else "0%"


def _joined(*parts: str) -> str:
    return "  ".join(filter(None, parts))
