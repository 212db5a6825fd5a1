"""What a run has come to: `realize.runs.tally`."""

from __future__ import annotations

from realize.cli.display.summary import closing_line, deadline_line
from realize.errors import ConnectionFailed, DeadlineReached, NoSpace, StorageError
from realize.mover.events import (
    End,
    Event,
    Failed,
    Finished,
    Found,
    HeldBack,
    How,
    Left,
    Planned,
    Progressed,
    Retrying,
    SourceStarted,
    Started,
    Stopped,
    UnderWay,
    Unknown,
)
from realize.mover.plan import Action
from realize.runs.tally import Tally


def finished(how: How, *, size: int = 1000, sent: int = 1000, removed: bool = True) -> Finished:
    """A file that ended well."""
    return Finished(b"a", size, sent, how, b"", removed)


def tally_of(*events: Event) -> Tally:
    """A tally that saw these events."""
    tally = Tally()
    for event in events:
        tally(event)
    return tally


def test_outcomes_are_counted_apart() -> None:
    """Files that arrived, were skipped or gone are told apart, and only what arrived counts as arrived bytes."""
    tally = tally_of(
        Found(4, 4000),
        finished(How.CREATED),
        finished(How.ALREADY_THERE, sent=0),
        finished(How.SKIPPED, sent=0, removed=False),
        finished(How.GONE, sent=0, removed=False),
    )

    assert (4, 4000) == (tally.found_files, tally.found_bytes)
    assert (2, 2000, 1000, 2) == (tally.arrived, tally.arrived_bytes, tally.sent_bytes, tally.removed)


def test_what_is_skipped_gone_or_left_is_no_failure() -> None:
    """The exit code is 0 if nothing went wrong, also if not everything was moved."""
    tally = tally_of(finished(How.SKIPPED), finished(How.GONE), Left(b"link", "symlink"), HeldBack(b"future", 10**18))

    assert 0 == tally.exit_code()


def test_one_failure_makes_the_exit_code_1() -> None:
    """The exit code is 1 if anything failed, whatever else went well."""
    tally = tally_of(finished(How.CREATED), Failed(b"b", End.DESTINATION, NoSpace("b: full")))

    assert 1 == tally.exit_code()


def test_the_closing_line_names_every_outcome_that_occurred() -> None:
    """The closing line has counts, bytes and seconds, and mentions no outcome that did not occur."""
    tally = tally_of(
        finished(How.CREATED), finished(How.SKIPPED), Left(b"link", "symlink"), HeldBack(b"future", 10**18)
    )

    sentence = closing_line(tally, 2.0, remove=True, dry_run=False)

    held_back = "1 held back by --min-age, with times in the future"
    assert f"moved 1 file, 1000 B (2 KiB sent) in 2.0 s; 1 skipped; 1 left; {held_back}" == sentence


def test_the_closing_line_says_what_compression_saved() -> None:
    """Of a run whose content travelled compressed, it says how much less that was."""
    tally = tally_of(Finished(b"a", 20 << 20, 20 << 20, How.CREATED, b"", removed=True))
    tally.compression_saved_bytes = 15 << 20

    sentence = closing_line(tally, 4.0, remove=True, dry_run=False)

    assert "moved 1 file, 20 MiB (20 MiB sent, 15 MiB less by compression) in 4.0 s" == sentence


def test_the_closing_line_says_what_was_in_holes() -> None:
    """Where there were any: else nobody would understand how so much has arrived of so little."""
    tally = tally_of(Finished(b"a", 20 << 30, 1 << 20, How.CREATED, b"", removed=True, holes=(20 << 30) - (1 << 20)))

    sentence = closing_line(tally, 4.0, remove=True, dry_run=False)

    assert "moved 1 file, 20 GiB (1 MiB sent, 20 GiB in holes) in 4.0 s" == sentence


def test_the_closing_line_of_a_dry_run_says_would() -> None:
    """A dry run claims nothing that did not happen."""
    tally = tally_of(Planned(b"a", 2048, Action.SEND), Planned(b"b", 0, Action.COMPARE))

    assert "would copy 2 files, 2 KiB" == closing_line(tally, 1.0, remove=False, dry_run=True)


def test_the_closing_line_names_both_ends() -> None:
    """Where files went is to be seen without a look at the command line; of many sources the first ones are named."""
    few = Tally(sources=["/a", "/b\n"], destination="nas:9771::inbox")
    many = Tally(sources=[f"/{number}" for number in range(1_234)], destination="/there")

    assert r"would move 0 files, 0 B, from /a, /b\n to nas:9771::inbox" == closing_line(
        few, 1.0, remove=True, dry_run=True
    )
    assert "moved 0 files, 0 B (0 B sent) in 1.0 s, from /0, /1, /2 and 1,231 more to /there" == closing_line(
        many, 1.0, remove=True, dry_run=False
    )


def test_a_source_that_begins_again_is_not_counted_twice() -> None:
    """After a lost connection, what is found again counts once; what was removed or of an earlier source stays."""
    copied = finished(How.CREATED, removed=False)
    again = finished(How.ALREADY_THERE, sent=0, removed=False)
    failed = Failed(b"b", End.DESTINATION, NoSpace("b: full"))
    retrying = Retrying(ConnectionFailed("lost"), 0.5)
    tally = tally_of(
        SourceStarted("one", "there"),
        Found(1, 1000),
        copied,
        SourceStarted("two", "there"),
        Found(4, 4000),
        copied,
        finished(How.CREATED),
        finished(How.GONE, sent=0, removed=False),
        failed,
        Left(b"link", "symlink"),
        HeldBack(b"future", 10**18),
        retrying,
        retrying,
        SourceStarted("two", "there"),
        Found(2, 2000),
        again,
        failed,
        Left(b"link", "symlink"),
        HeldBack(b"future", 10**18),
    )

    assert (3, 3000, 3000) == (tally.arrived, tally.arrived_bytes, tally.sent_bytes)
    assert (5, 5000) == (tally.found_files, tally.found_bytes)
    assert (1, 1, 1) == (tally.failed, tally.left, tally.held_back)
    assert {How.CREATED: 2, How.ALREADY_THERE: 1, How.GONE: 1} == dict(tally.finished)


def test_what_is_unknown_is_counted_as_that() -> None:
    """What is surely there counts as arrived, not as removed; when it is known in the end, it counts once."""
    tally = tally_of(
        Found(5, 5000),
        Unknown(b"a", 1000, 1000, None),
        Unknown(b"b", 1000, 1000, How.CREATED),
        Unknown(b"c", 1000, 0, How.ALREADY_THERE),
    )
    said = deadline_line(tally, "--max-duration 1m", 61.0)
    counts = (tally.arrived, tally.arrived_bytes, tally.sent_bytes, tally.removed, tally.not_started)
    unknown = (tally.unknown_arrivals, tally.unknown_removals)
    tally(Retrying(ConnectionFailed("lost"), 0.5))
    tally(Found(2, 2000))
    tally(Finished(b"a", 1000, 0, How.ALREADY_THERE, b"", removed=True))
    tally(Finished(b"b", 1000, 0, How.CREATED, b"", removed=True))

    assert ((2, 2000, 2000, 0, 2), (1, 2)) == (counts, unknown)
    assert (3, 3000, 2000, 2, 0) == (
        tally.arrived,
        tally.arrived_bytes,
        tally.sent_bytes,
        tally.removed,
        tally.not_started,
    )
    assert (0, 1) == (tally.unknown_arrivals, tally.unknown_removals)
    assert (
        "2 files, 2 KiB, are there; none interrupted; 2 found but not started; "
        "1 unknown (no answer came); 2 perhaps not removed (no answer came); 61.0 s elapsed"
    ) == said.partition(": ")[2]


def test_a_lost_connection_that_does_not_come_back_changes_nothing_of_what_was_counted() -> None:
    """What was there, and what failed, is so until the source is listed anew; a failure outranks the time limit."""
    tally = tally_of(
        SourceStarted("one", "there"),
        Found(9, 9000),
        finished(How.CREATED),
        finished(How.CREATED, removed=False),
        Failed(b"b", End.DESTINATION, NoSpace("b: full")),
        Retrying(ConnectionFailed("lost"), 0.5),
        Retrying(ConnectionFailed("lost"), 1.0),
    )

    said = deadline_line(tally, "--max-duration 1m", 61.0)

    assert (2, 1, 1, 6) == (tally.arrived, tally.removed, tally.failed, tally.not_started)
    assert 1 == tally.exit_code(DeadlineReached("the time limit was reached"))
    assert "2 files, 2 KiB, are there; none interrupted; 6 found but not started; 1 failed" in said


def test_what_failed_before_a_connection_was_lost_has_failed_until_it_is_known_better() -> None:
    """A limit that is reached while the source is being listed anew does not make a success of it."""
    failures = [Failed(name, End.DESTINATION, NoSpace("full")) for name in (b"a", b"b")]
    tally = tally_of(
        SourceStarted("one", "there"),
        Found(5, 5000),
        *failures,
        Retrying(ConnectionFailed("lost"), 0.5),
        SourceStarted("one", "there"),
        Found(5, 5000),
    )
    before = (tally.failed, tally.not_started, tally.exit_code(DeadlineReached("the time limit was reached")))
    tally(failures[0])
    tally(Finished(b"b", 1000, 1000, How.CREATED, b"", removed=True))

    assert (2, 3, 1) == before
    assert (1, 1, 3) == (tally.failed, tally.removed, tally.not_started)
    tally(SourceStarted("two", "there"))
    tally(failures[0])
    assert 2 == tally.failed


def test_a_directory_that_failed_is_no_file_that_was_found() -> None:
    """It hides none that is not begun, neither at once nor when the source is listed again, and counts once."""
    failed = Failed(b"d", End.SOURCE, StorageError("d: cannot be listed"), found=False)
    tally = tally_of(SourceStarted("one", "there"), Found(3, 3000), failed)
    before = (tally.failed, tally.found_files, tally.not_started)
    for event in (Retrying(ConnectionFailed("lost"), 0.5), SourceStarted("one", "there"), Found(3, 3000), failed):
        tally(event)

    assert (1, 3, 3) == before == (tally.failed, tally.found_files, tally.not_started)


def test_a_run_that_ends_by_force_does_not_know_what_becomes_of_what_is_under_way() -> None:
    """Until then that is nothing to be told of; small files are counted, large ones named."""
    tally = tally_of(
        Found(9, 9000), Started(b"large", 1024, 0), Started(b"a", 1000, 0), UnderWay(4), finished(How.CREATED)
    )
    before = (tally.interrupted.copy(), tally.unknown_arrivals, tally.not_started)
    tally(UnderWay(-1))
    tally.give_up()

    assert ({}, 0, 8) == before
    assert ({b"large": (1024, None)}, 3, 4) == (tally.interrupted, tally.unknown_arrivals, tally.not_started)
    assert "interrupted: large (1 KiB); 4 found but not started; 3 unknown" in deadline_line(
        tally, "--max-duration 1s", 6.0
    )


def test_whatever_lasts_is_a_step() -> None:
    """What was kept of a file that never finishes counts as much as a file that does: the next retry comes soon."""
    tally, seen = Tally(), []
    for event in (
        Started(b"huge", 100, 10),
        Progressed(b"huge", 5),
        Stopped(b"huge", 100, 15),
        Started(b"huge", 100, 15),
        Started(b"huge", 100, 15),
        Finished(b"small", 0, 0, How.CREATED, b"", removed=True),
    ):
        tally(event)
        seen.append(tally.steps)

    assert [0, 0, 0, 1, 1, 2] == seen
