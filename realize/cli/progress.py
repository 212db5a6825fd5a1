"""The display for terminals: an overall bar, one bar for each large file in flight, messages above them.

Events only count; drawing happens in `tick`, at most five times a second, so that no speed of the mover costs more.
rich knows the width of the terminal and respects ``NO_COLOR``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID
from rich.table import Column
from rich.text import Text

from realize.cli.board import PRESENT, TREND, Board, Meter, found, time_left
from realize.cli.display import Look
from realize.cli.summary import Tally
from realize.cli.wording import Wording
from realize.errors import DeadlineReached, RealizeError
from realize.mover.events import Event, Failed, NoRoom
from realize.units import display_name, format_size

LARGE = 8 << 20
"""Files of at least this many bytes get a bar of their own."""

MOST_BARS = 8
"""No more bars of files than this."""


class Bars:
    """Draws the bars and prints messages above them."""

    interval: float = 0.2

    def __init__(self, err: TextIO, now: Callable[[], float], look: Look) -> None:
        self._now = now
        self._look = look
        self._wording = Wording(verbose=look.verbose)
        self._board = Board()
        self._meter = Meter(PRESENT)
        self._trend = Meter(TREND)
        self._console = Console(file=err, highlight=False, markup=False, emoji=False)
        self._bars = Progress(
            _Label(table_column=Column(ratio=2, no_wrap=True, overflow="ellipsis")),
            BarColumn(bar_width=None, table_column=Column(ratio=3, min_width=10)),
            _Figures(table_column=Column(justify="right", no_wrap=True)),
            console=self._console,
            auto_refresh=False,
            transient=True,
            expand=True,
        )
        self._overall = self._bars.add_task("", total=None, label="", figures="")
        self._files: dict[bytes, TaskID] = {}
        self._meter.rate(now(), 0)
        self._trend.rate(now(), 0)
        self._bars.start()

    def __call__(self, event: Event) -> None:
        """Count the event, and print a message if it deserves one."""
        self._board(event)
        line = self._wording.note(event)
        if line is None and self._look.verbose:
            line = self._wording.arrival(event)
        if line is not None:
            style = "bold red" if isinstance(event, Failed | NoRoom) else "yellow"
            self._console.print(Text(f"realize: {line}", style=style), soft_wrap=True)

    def tick(self) -> None:
        """Draw."""
        board = self._board
        rate = self._meter.rate(self._now(), board.moved)
        left = time_left(board, self._trend.rate(self._now(), board.moved))
        files, size = found(board)
        figures = "  ".join(filter(None, (f"{format_size(board.done)}/{size}", f"{format_size(int(rate))}/s", left)))
        self._bars.update(
            self._overall,
            completed=board.done,
            total=board.found_bytes or None,
            label=f"{board.done_files:,}/{files} files",
            figures=figures,
        )
        self._draw_files()
        self._bars.refresh()

    def close(self, tally: Tally, seconds: float, error: RealizeError | None) -> None:
        """Take the bars away and write the final line."""
        self._bars.stop()
        if error is None or (tally.found_files and not isinstance(error, DeadlineReached)):
            line = tally.sentence(seconds, remove=self._look.remove, dry_run=self._look.dry_run)
            self._console.print(Text(f"realize: {line}"), soft_wrap=True)

    def _draw_files(self) -> None:
        flying = self._board.flying
        for path in [path for path in self._files if path not in flying]:
            self._bars.remove_task(self._files.pop(path))
        for path, flight in flying.items():
            task = self._files.get(path)
            if task is None:
                if flight.size < LARGE or len(self._files) >= MOST_BARS:
                    continue
                label = f"  {display_name(path)}"
                task = self._files[path] = self._bars.add_task("", total=flight.size, label=label, figures="")
            figures = f"{format_size(flight.reached)}/{format_size(flight.size)}"
            self._bars.update(task, completed=flight.reached, figures=figures)


class _Label(ProgressColumn):
    """The ``label`` of a bar, verbatim."""

    def render(self, task: Task) -> Text:
        """Text without markup: names of files may look like some."""
        return Text(task.fields["label"])


class _Figures(ProgressColumn):
    """The ``figures`` of a bar, verbatim."""

    def render(self, task: Task) -> Text:
        """Text without markup."""
        return Text(task.fields["figures"])
