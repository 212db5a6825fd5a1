"""What a run has come to: `realize.cli.summary`."""

from __future__ import annotations

from realize.cli.summary import Tally
from realize.errors import NoSpace
from realize.mover.events import End, Event, Failed, Finished, Found, How, Left, Planned
from realize.mover.plan import Action


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
    tally = tally_of(finished(How.SKIPPED), finished(How.GONE), Left(b"link", "symlink"))

    assert 0 == tally.exit_code()


def test_one_failure_makes_the_exit_code_1() -> None:
    """The exit code is 1 if anything failed, whatever else went well."""
    tally = tally_of(finished(How.CREATED), Failed(b"b", End.DESTINATION, NoSpace("b: full")))

    assert 1 == tally.exit_code()


def test_the_closing_line_names_every_outcome_that_occurred() -> None:
    """The closing line has counts, bytes and seconds, and mentions no outcome that did not occur."""
    tally = tally_of(finished(How.CREATED), finished(How.SKIPPED), Left(b"link", "symlink"))

    sentence = tally.sentence(2.0, remove=True, dry_run=False)

    assert "moved 1 file, 1000 B (2 KiB sent) in 2.0 s; 1 skipped; 1 left (not regular files)" == sentence


def test_the_closing_line_of_a_dry_run_says_would() -> None:
    """A dry run claims nothing that did not happen."""
    tally = tally_of(Planned(b"a", 2048, Action.SEND), Planned(b"b", 0, Action.COMPARE))

    assert "would copy 2 files, 2 KiB" == tally.sentence(1.0, remove=False, dry_run=True)
