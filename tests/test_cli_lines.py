"""The displays for logs and pipes, and who gets which: `realize.cli.display.lines`, `realize.cli.display.choice`."""

from __future__ import annotations

import io

from twisted.internet.task import Clock

from realize.cli.display.bars import Bars
from realize.cli.display.choice import Display, choose
from realize.cli.display.json_lines import JsonLines
from realize.cli.display.lines import Lines, Quiet
from realize.cli.display.options import DisplayOptions
from realize.errors import NoSpace
from realize.mover.events import (
    End,
    Event,
    Failed,
    Finished,
    Found,
    How,
    Left,
    Listed,
    Planned,
    Progressed,
    SourceStarted,
    Started,
)
from realize.mover.plan import Action
from realize.runs.tally import Tally


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


def shown(look: DisplayOptions, *events: Event) -> tuple[str, str]:
    """What a display for pipes writes to stdout and stderr for these events and the end of the run."""
    out, err = io.StringIO(), io.StringIO()
    display = choose(look, out, err, Clock().seconds)
    tally = Tally()
    for event in events:
        tally(event)
        display(event)
    display.close(tally, 1.0, None)
    return out.getvalue(), err.getvalue()


ARRIVED = Finished(b"a", 1024, 1024, How.CREATED, b"", removed=True)
FULL = Failed(b"b", End.DESTINATION, NoSpace("b: full"))
LINK = Left(b"c", "symlink")


def test_plain_lines_tell_what_did_not_go_the_usual_way() -> None:
    """One line for each failed or left file, none for those that arrived, and a closing line."""
    out, err = shown(DisplayOptions(), Found(2, 1024), ARRIVED, FULL, LINK)

    assert "" == out
    assert [
        "realize: error: destination: b: full",
        "realize: left: source: c: symlink",
        "realize: moved 1 file, 1 KiB (1 KiB sent) in 1.0 s; 1 left; 1 failed",
    ] == err.splitlines()


def test_verbose_adds_a_line_for_each_file() -> None:
    """With -v every file that arrived has a line."""
    _, err = shown(DisplayOptions(verbose=True), ARRIVED)

    assert "realize: moved: a (1 KiB)" == err.splitlines()[0]


def test_quiet_says_nothing_but_errors() -> None:
    """Neither closing line nor anything but what failed."""
    out, err = shown(DisplayOptions(quiet=True), ARRIVED, LINK, FULL)

    assert ("", "realize: error: destination: b: full\n") == (out, err)


def test_a_dry_run_says_where_the_files_of_each_source_would_go() -> None:
    """The names of its files follow."""
    _, err = shown(DisplayOptions(dry_run=True), SourceStarted("a", "nas:9771::inbox"))

    assert "realize: from a to nas:9771::inbox" == err.splitlines()[0]


def test_the_plan_of_a_dry_run_goes_to_stdout() -> None:
    """What would be done is a result; the rest is for people, on stderr."""
    out, err = shown(DisplayOptions(dry_run=True), Planned(b"a", 1024, Action.SEND))

    assert "send          1 KiB  a\n" == out
    assert "realize: would move 1 file, 1 KiB\n" == err


def test_progress_in_plain_lines_has_bytes_rate_and_time_left() -> None:
    """A tick writes one line that says how far the run is and how long it will take."""
    clock, err = Clock(), io.StringIO()
    display = Lines(io.StringIO(), err, clock.seconds, DisplayOptions())
    for event in (Found(1, 4 << 20), Listed(), Started(b"a", 4 << 20, 0), Progressed(b"a", 1 << 20)):
        display(event)
    clock.advance(2.0)

    display.tick()

    assert "realize: 0 of 1 files, 1 MiB of 4 MiB, 512 KiB/s, 6s left\n" == err.getvalue()


def kind_of(display: Display) -> type:
    """Close the display and say what it is."""
    display.close(Tally(), 0.0, None)
    return type(display)


def test_the_display_suits_the_stream() -> None:
    """Bars on a terminal, lines elsewhere; options outrank that; a dry run never draws bars."""
    now = Clock().seconds

    def choice(look: DisplayOptions, err: io.StringIO) -> type:
        return kind_of(choose(look, io.StringIO(), err, now))

    assert Bars is choice(DisplayOptions(), Terminal())
    assert Lines is choice(DisplayOptions(), io.StringIO())
    assert Bars is choice(DisplayOptions(progress=True), io.StringIO())
    assert Lines is choice(DisplayOptions(progress=False), Terminal())
    assert Lines is choice(DisplayOptions(dry_run=True), Terminal())
    assert Quiet is choice(DisplayOptions(quiet=True), Terminal())
    assert JsonLines is choice(DisplayOptions(json=True), Terminal())
