"""What people are told: `realize.cli.display.wording`."""

from __future__ import annotations

import pytest

from realize.cli.display.wording import Wording, local_time, plan_line
from realize.errors import AccessDenied, Busy, ConnectionFailed, NoSpace, StorageError
from realize.locations import LocalLocation, RemoteLocation
from realize.mover.events import (
    End,
    Failed,
    Finished,
    HeldBack,
    How,
    Left,
    NoRoom,
    Planned,
    Retrying,
    SourceStarted,
    Stopped,
    Unknown,
)
from realize.mover.plan import Action
from realize.runs.reconnecting import advice


def wording() -> Wording:
    """One that knows both locations."""
    wording = Wording()
    wording.note(SourceStarted("/store/a", "hostb:9771::inbox"))
    return wording


def test_a_failure_names_the_file_the_end_and_the_cause() -> None:
    """Whoever reads the line knows what failed, where, and why."""
    line = wording().note(Failed(b"x/y", End.DESTINATION, NoSpace("no space left on device")))

    assert "error: destination hostb:9771::inbox: x/y: no space left on device" == line


def test_a_name_that_the_cause_has_already_is_not_said_twice() -> None:
    """Errors that name their file are left as they are."""
    line = wording().note(Failed(b"x/y", End.SOURCE, StorageError("x/y: cannot read: Input/output error")))

    assert "error: source /store/a: x/y: cannot read: Input/output error" == line


def test_a_name_that_is_part_of_another_word_is_said() -> None:
    """Short names occur in many words."""
    assert "left: source /store/a: l: symlink" == wording().note(Left(b"l", "symlink"))


def test_a_right_that_is_missing_comes_with_the_next_step() -> None:
    """What tells how to get it."""
    line = wording().note(Failed(b"", End.DESTINATION, AccessDenied("this peer may not write in inbox")))

    assert (
        "error: destination hostb:9771::inbox: this peer may not write in inbox "
        "(`realize check hostb:9771::inbox` says what to fix)" == line
    )


def test_what_is_tried_in_vain_comes_with_the_next_step() -> None:
    """About the location that the error is about, if it is known."""
    hosta, hostb = (RemoteLocation(name, f"{name}.lan", 9771, "inbox", b"") for name in ("hosta", "hostb"))
    places = [LocalLocation("/store/a"), hosta, hostb]
    error = ConnectionFailed("hostb.lan:9771 cannot be reached: no answer")

    early, late = (wording().note(Retrying(error, 20.0, text)) for text in ("", advice(error, places)))

    assert f"retrying in 20.0 s: {error}" == early
    assert f"{early} (`realize check hostb:9771::inbox` says what to fix)" == late
    assert "" == advice(ConnectionFailed("lost"), places)


def test_a_hostile_name_cannot_forge_a_line() -> None:
    """Line breaks and escape sequences in names are shown escaped."""
    line = wording().note(Left(b"a\nrealize: moved\x1b[2J", "symlink"))

    assert r"left: source /store/a: a\nrealize: moved\x1b[2J: symlink" == line


def test_skipped_and_interrupted_files_are_told() -> None:
    """What stays behind, and why, is said."""
    skipped = wording().note(Finished(b"a", 1, 0, How.SKIPPED, b"", removed=False))
    interrupted = wording().note(Stopped(b"a", 2048, 1024))
    nothing = wording().note(Stopped(b"a", 2048, 0))
    untold = wording().note(Stopped(b"a", 2048, None))

    assert "skipped: destination hostb:9771::inbox: a: another file has this name" == skipped
    assert "interrupted: destination hostb:9771::inbox: a: 1 KiB of 2 KiB are kept for the next time" == interrupted
    assert nothing is None
    assert (
        "interrupted: destination hostb:9771::inbox: a: it is unknown how much of 2 KiB is kept for the next time"
        == untold
    )


def test_what_is_unknown_is_told_by_the_file() -> None:
    """Either whether it has arrived, or whether it was removed."""
    there = wording().arrival(Unknown(b"a", 1024, 1024, None))
    removed = wording().arrival(Unknown(b"a", 1024, 1024, How.CREATED))

    assert "unknown: a (1 KiB): no answer came whether it is there" == there
    assert "unknown: a (1 KiB): no answer came whether it was removed" == removed


def test_an_arrival_says_whether_the_source_was_removed() -> None:
    """A copied file is not called moved, and one that was there already says so."""
    moved = wording().arrival(Finished(b"a", 1024, 1024, How.CREATED, b"", removed=True))
    copied = wording().arrival(Finished(b"a", 1024, 0, How.ALREADY_THERE, b"", removed=False))

    assert ("moved: a (1 KiB)", "copied: a (1 KiB, already there)") == (moved, copied)


def test_what_is_held_back_is_named_with_its_time() -> None:
    """Which tells whether a clock was wrong."""
    time_ns = 1_900_000_000 * 10**9

    line = wording().arrival(HeldBack(b"a", time_ns))

    assert f"held back: source /store/a: a: its time, {local_time(time_ns)}, lies in the future" == line
    assert local_time(time_ns).startswith("2030-03-1")


def test_a_plan_line_has_action_size_and_name() -> None:
    """A dry run prints columns."""
    assert "send          1 KiB  a b" == plan_line(Planned(b"a b", 1024, Action.SEND))


def test_a_full_destination_is_said_once() -> None:
    """In full for the first file; the others are counted at the end. Other failures are all named."""
    said = wording()
    full = NoSpace("x: No space left on device")
    events = [Failed(b"x", End.DESTINATION, full)] * 3 + [Failed(b"y", End.DESTINATION, Busy("y: busy"))] * 2

    lines = [said.note(event) for event in events]

    assert [True, False, False, True, True] == [line is not None for line in lines]
    assert 3 == sum(Wording(verbose=True).note(event) is not None for event in events[:3])


@pytest.mark.parametrize(
    ("event", "end"),
    [
        (NoRoom(1, 5 << 20, 2 << 20), "1 file, 5 MiB, did not fit: 2 MiB are missing"),
        (NoRoom(1000, 5 << 20, 0), "1,000 files, 5 MiB, did not fit; is there a quota?"),
        (NoRoom(2, 5 << 20, None), "2 files, 5 MiB, did not fit"),
    ],
)
def test_how_much_is_missing(event: NoRoom, end: str) -> None:
    """One sentence at the end of the run, with the destination."""
    assert f"no room: destination hostb:9771::inbox: {end}" == wording().note(event)
