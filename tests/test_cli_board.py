"""How far a run is: `realize.runs.board`."""

from __future__ import annotations

from realize.cli.display.pace import RateWindow, remaining
from realize.errors import Busy, ConnectionFailed
from realize.mover.events import (
    End,
    Event,
    Failed,
    Finished,
    Found,
    How,
    Listed,
    Progressed,
    Retrying,
    Started,
    Stopped,
)
from realize.runs.board import Board


def board_of(*events: Event) -> Board:
    """A board that saw these events."""
    board = Board()
    for event in events:
        board(event)
    return board


def test_a_resumed_file_counts_what_was_there_as_done_but_not_as_moved() -> None:
    """The bar of a resumed file starts where it stopped; the rate counts only what travels now."""
    board = board_of(Found(1, 100), Started(b"a", 100, 60), Progressed(b"a", 10))

    assert (70, 10, 70) == (board.done, board.moved, board.in_flight[b"a"].reached)


def test_a_finished_file_counts_once() -> None:
    """However it came there, a finished file adds its size to what is done, once."""
    board = board_of(
        Found(2, 150),
        Started(b"a", 100, 60),
        Progressed(b"a", 40),
        Finished(b"a", 100, 40, How.CREATED, b"", removed=True),
        Finished(b"small", 50, 50, How.CREATED, b"", removed=True),
    )

    assert (150, 90, 2, {}) == (board.done, board.moved, board.done_files, board.in_flight)


def test_a_file_that_stops_is_not_in_flight_any_more() -> None:
    """What an interrupted or failed file had reached no longer counts as done."""
    stopped = board_of(Started(b"a", 100, 0), Progressed(b"a", 40), Stopped(b"a", 100, 40))
    failed = board_of(Started(b"a", 100, 0), Progressed(b"a", 40), Failed(b"a", End.SOURCE, Busy("a: busy")))

    assert (0, {}) == (stopped.done, stopped.in_flight)
    assert (0, {}) == (failed.done, failed.in_flight)


def test_a_directory_that_failed_is_none_of_the_files_that_are_done() -> None:
    """It was not counted as found, so the files that are done would be more than were found."""
    error = Busy("d: busy")

    assert 0 == board_of(Found(1, 100), Failed(b"d", End.SOURCE, error, found=False)).done_files
    assert 1 == board_of(Found(1, 100), Failed(b"a", End.SOURCE, error)).done_files


def test_a_small_file_counts_while_it_travels_and_once_when_it_has_arrived() -> None:
    """A batch may take a minute; what was said of its files by then is a part of what they come to."""
    under_way = board_of(Found(2, 150), Progressed(b"a", 40))
    board = board_of(
        Found(2, 150),
        Progressed(b"a", 40),
        Finished(b"a", 100, 100, How.CREATED, b"", removed=True),
        Finished(b"b", 50, 50, How.CREATED, b"", removed=True),
    )

    assert (40, 40, 40, 0) == (under_way.done, under_way.moved, under_way.sent.total, under_way.done_files)
    assert (150, 150, 150, 2) == (board.done, board.moved, board.sent.total, board.done_files)


def test_what_travelled_in_vain_was_sent_all_the_same() -> None:
    """It was on the line, and it is when it travels again; but it is not done."""
    lost = [Found(2, 150), Started(b"a", 100, 0), Progressed(b"a", 40), Progressed(b"small", 10)]
    lost += [Stopped(b"a", 100, 40), Retrying(ConnectionFailed("lost"), 1.0)]
    again = [Started(b"a", 100, 40), Progressed(b"a", 60), Finished(b"a", 100, 60, How.CREATED, b"", removed=True)]

    assert (0, 50, {}) == (board_of(*lost).done, board_of(*lost).sent.total, board_of(*lost).in_flight)
    assert (100, 110) == (board_of(*lost, *again).done, board_of(*lost, *again).sent.total)


def test_when_a_source_is_listed_again_more_may_be_found() -> None:
    """After a lost connection what was found is not the last word any more."""
    found = [Found(2, 150), Listed()]

    assert not board_of(Found(2, 150)).listed
    assert board_of(*found).listed
    assert not board_of(*found, Retrying(ConnectionFailed("lost"), 1.0)).listed


def test_the_meter_forgets_what_is_older_than_its_window() -> None:
    """A rate follows the last seconds, not the whole run."""
    meter = RateWindow(window=10.0)

    rates = [meter.rate(float(second), count) for second, count in ((0, 0), (10, 1000), (20, 1000), (30, 1000))]

    assert [0.0, 100.0, 0.0, 0.0] == rates


def test_the_time_left_is_unknown_until_there_is_a_rate() -> None:
    """Without a rate nothing is promised."""
    board = board_of(Found(1, 100))

    assert None is remaining(board, 0.0)
    assert 10.0 == remaining(board, 10.0)
