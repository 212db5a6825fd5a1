"""What a display is, and which one a command line asks for.

Messages for people go to stderr, results to stdout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TextIO

from realize.cli.display.options import DisplayOptions
from realize.cli.display.summary import Tally
from realize.errors import RealizeError
from realize.mover.events import Event


class Display(Protocol):
    """Shows a run.

    It is called with every event, then closed once; in between, `tick` is called every ``interval`` seconds.
    """

    interval: float

    def __call__(self, event: Event) -> None:
        """Take one event."""

    def tick(self) -> None:
        """Show how far the run is."""

    def close(self, tally: Tally, seconds: float, error: RealizeError | None) -> None:
        """Say what the run came to; ``error`` ended it before its time, and somebody else tells people about it."""


def choose(look: DisplayOptions, out: TextIO, err: TextIO, now: Callable[[], float]) -> Display:
    """The display for these wishes and streams."""
    if look.json:
        from realize.cli.display.json_lines import JsonLines

        return JsonLines(out)
    from realize.cli.display.lines import Lines, Quiet

    if look.quiet:
        return Quiet(err)
    if (err.isatty() if look.progress is None else look.progress) and not look.dry_run:
        from realize.cli.display.bars import Bars

        return Bars(err, now, look)
    return Lines(out, err, now, look)
