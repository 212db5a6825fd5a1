"""The interface of displays, and the choice of one.

Messages for people go to stderr, results to stdout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TextIO

from realize.cli.display.options import DisplayOptions
from realize.errors import RealizeError
from realize.mover.events import Event
from realize.runs.tally import Tally


class Display(Protocol):
    """Shows a run.

    It is called with every event, and closed once at the end; until then `tick` is called every ``interval`` seconds.
    """

    interval: float

    def __call__(self, event: Event) -> None:
        """Take one event."""

    def tick(self) -> None:
        """Show how far the run is."""

    def close(self, tally: Tally, seconds: float, error: RealizeError | None) -> None:
        """Show the result of the run; ``error``, which ended it early, is reported to people elsewhere."""


def choose(options: DisplayOptions, out: TextIO, err: TextIO, now: Callable[[], float]) -> Display:
    """The display for these options and streams."""
    if options.json:
        from realize.cli.display.json_lines import JsonLines

        return JsonLines(out)
    from realize.cli.display.lines import Lines, Quiet

    if options.quiet:
        return Quiet(err)
    if (err.isatty() if options.progress is None else options.progress) and not options.dry_run:
        from realize.cli.display.bars import Bars

        return Bars(err, now, options)
    return Lines(out, err, now, options)
