"""The bars: `realize.cli.display.bars`."""

from __future__ import annotations

import io
import re

import pytest
from twisted.internet.task import Clock

from realize.cli.display.bars import OWN_BAR_MIN_BYTES, Bars
from realize.cli.display.options import DisplayOptions
from realize.errors import NoSpace
from realize.mover.events import End, Event, Failed, Finished, Found, How, Listed, Progressed, Started
from realize.runs.tally import Tally


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


def drawn(*events: Event, columns: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """What one tick draws after these events, two seconds into the run."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))
    clock, err = Clock(), Terminal()
    bars = Bars(err, clock.seconds, DisplayOptions())
    for event in events:
        bars(event)
    clock.advance(2.0)
    err.seek(0)
    err.truncate()
    bars.tick()
    text = err.getvalue()
    bars.close(Tally(), 2.0, None)
    return text


def test_the_overall_bar_has_files_bytes_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """One look tells how far the run is and how long it will take."""
    monkeypatch.setenv("NO_COLOR", "1")

    text = drawn(
        Found(2, 4 << 20),
        Listed(),
        Finished(b"a", 1 << 20, 1 << 20, How.CREATED, b"", removed=True),
        columns=100,
        monkeypatch=monkeypatch,
    )

    assert "1/2 files" in text
    assert "1 MiB/4 MiB  512 KiB/s  6s left" in text


def test_while_the_source_is_listed_there_may_be_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plus says so, at each figure that may still grow."""
    monkeypatch.setenv("NO_COLOR", "1")

    text = drawn(
        Found(4000, 4 << 20),
        Finished(b"a", 1 << 20, 1 << 20, How.CREATED, b"", removed=True),
        columns=100,
        monkeypatch=monkeypatch,
    )

    assert "1/4,000+ files" in text
    assert "1 MiB/4 MiB+  512 KiB/s  6s+ left" in text


def test_a_large_file_has_a_bar_and_a_small_one_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bars are for files that take a while; their names are verbatim, whatever rich makes of brackets."""
    text = drawn(
        Found(2, 2 * OWN_BAR_MIN_BYTES),
        Started(b"[bold]large", OWN_BAR_MIN_BYTES, 0),
        Progressed(b"[bold]large", OWN_BAR_MIN_BYTES // 2),
        Started(b"small", 100_000, 0),
        columns=100,
        monkeypatch=monkeypatch,
    )

    assert "[bold]large" in text
    assert "4 MiB/8 MiB" in text
    assert "small" not in text


def test_no_line_is_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long names are cut, not wrapped."""
    monkeypatch.setenv("NO_COLOR", "1")

    text = drawn(
        Found(1, OWN_BAR_MIN_BYTES), Started(b"n" * 300, OWN_BAR_MIN_BYTES, 0), columns=60, monkeypatch=monkeypatch
    )

    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n").split("\n")
    assert [] == [line for line in lines if len(line) > 60]
    assert any("nnnnn\N{HORIZONTAL ELLIPSIS}" in line for line in lines)


@pytest.mark.parametrize(("columns", "lines"), [(100, 2), (40, 6), (200, 2)])
def test_rows_that_a_narrower_terminal_has_wrapped_are_cleared(
    columns: int, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows of 100 columns are six lines of 40; a wider terminal wraps nothing."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    err = Terminal()
    bars = Bars(err, Clock().seconds, DisplayOptions())
    for event in (Found(1, OWN_BAR_MIN_BYTES), Started(b"large", OWN_BAR_MIN_BYTES, 0)):
        bars(event)
    bars.tick()
    monkeypatch.setenv("COLUMNS", str(columns))
    bars._console.width = columns
    err.seek(0)
    err.truncate()
    bars.tick()
    up = err.getvalue().count("\x1b[1A")
    bars.close(Tally(), 2.0, None)

    assert lines - 1 == up


def test_messages_are_printed_above_the_bars_without_colour_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error is readable at once and NO_COLOR is respected."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    err = Terminal()
    bars = Bars(err, Clock().seconds, DisplayOptions())

    bars(Failed(b"b", End.DESTINATION, NoSpace("b: full")))
    bars.close(Tally(), 0.0, None)

    assert "realize: error: destination: b: full" in err.getvalue()
    assert "\x1b[31m" not in err.getvalue()
    assert "\x1b[1;31m" not in err.getvalue()
