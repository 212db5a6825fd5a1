"""The files that a run is fed with as they settle: `realize.moves.feed`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from realize.errors import Busy, Conflict, NoSpace, RealizeError
from realize.mover.events import End, Failed, Finished, How, Left, Unknown
from realize.moves.feed import (
    LINGER_S,
    MAX_BUSY_DELAY_S,
    MAX_FULL_DELAY_S,
    MAX_RUN_S,
    MAX_TURN_S,
    PAGE_INTERVAL_S,
    SettledFeed,
)
from realize.values import Entry, Kind


class Source:
    """Settled files that a test adds, and what the feed says of them."""

    def __init__(self) -> None:
        self.settled: list[Entry] = []
        self.told: list[tuple[str, bytes]] = []
        self.max_delays_s: list[float] = []

    def add(self, *paths: bytes) -> None:
        """Let files settle."""
        self.settled += [Entry(path, Kind.FILE, 1, 1) for path in paths]

    def take(self, most: int) -> list[Entry]:
        """As `realize.moves.feed.SettledSource`."""
        taken, self.settled = self.settled[:most], self.settled[most:]
        return taken

    def moved(self, path: bytes) -> None:
        """As `realize.moves.feed.SettledSource`."""
        self.told.append(("moved", path))

    def failed(self, path: bytes, *, max_delay_s: float = 3_600.0) -> float:
        """As `realize.moves.feed.SettledSource`."""
        self.told.append(("failed", path))
        self.max_delays_s.append(max_delay_s)
        return 1.0

    def untouched(self, paths: Sequence[bytes]) -> None:
        """As `realize.moves.feed.SettledSource`."""
        self.told += [("untouched", path) for path in paths]


class Trial:
    """A feed over a source, and the pages that were asked of it."""

    def __init__(self, others_wait: Callable[[], bool] = lambda: False) -> None:
        self.clock = Clock()
        self.source = Source()
        self.failed: list[tuple[bytes, RealizeError]] = []
        self.feed = SettledFeed(
            self.source,
            self.clock,
            others_wait=others_wait,
            failed=lambda path, error: self.failed.append((path, error)),
        )
        self.pages: list[list[bytes]] = []

    def ask(self) -> Deferred[None]:
        """Ask for a page when one may come, and keep it when it does."""
        self.clock.advance(PAGE_INTERVAL_S)
        return self.feed.next_page().addCallback(lambda page: self.pages.append([entry.path for entry in page]))


@pytest.fixture
def trial() -> Trial:
    """A feed over a source without files."""
    return Trial()


def finished(path: bytes, how: How = How.CREATED, *, removed: bool = True) -> Finished:
    """The event of a file that ended."""
    return Finished(path, 1, 1, how, b"", removed=removed)


def test_what_has_settled_comes_at_once(trial: Trial) -> None:
    """The run does not wait for more."""
    trial.source.add(b"a", b"b")
    trial.ask()

    assert [[b"a", b"b"]] == trial.pages


def test_what_settles_later_comes_when_it_does(trial: Trial) -> None:
    """As long as the run lingers; waking it for nothing does no harm."""
    trial.ask()
    trial.feed.wake()
    before = list(trial.pages)
    trial.source.add(b"a")
    trial.feed.wake()

    assert [] == before
    assert [[b"a"]] == trial.pages
    assert [] == trial.clock.getDelayedCalls()


def test_pages_keep_a_distance(trial: Trial) -> None:
    """The first file of many does not wait; those behind it come together."""
    trial.source.add(b"a")
    trial.ask()
    trial.source.add(b"b")
    trial.feed.next_page().addCallback(lambda page: trial.pages.append([entry.path for entry in page]))
    trial.feed.wake()
    early = list(trial.pages)
    trial.source.add(b"c")
    trial.feed.wake()
    trial.clock.advance(PAGE_INTERVAL_S)

    assert [[b"a"]] == early
    assert [[b"a"], [b"b", b"c"]] == trial.pages
    assert [] == trial.clock.getDelayedCalls()


def test_a_run_ends_when_nothing_has_settled_for_a_while(trial: Trial) -> None:
    """So that its connection does not stay for ever; nothing is given after the end."""
    trial.ask()
    trial.clock.advance(LINGER_S)
    trial.source.add(b"late")
    trial.ask()

    assert [[], []] == trial.pages
    assert [Entry(b"late", Kind.FILE, 1, 1)] == trial.source.settled


def test_a_run_does_not_linger_where_another_source_has_files() -> None:
    """Whether that has them when the page is asked for, or gets them while this one lingers."""
    waiting: list[bool] = []
    at_once, later = Trial(lambda: True), Trial(lambda: bool(waiting))
    at_once.ask()
    later.ask()
    waiting.append(True)
    later.feed.wake()

    assert [[]] == at_once.pages == later.pages


def test_a_run_ends_after_a_minute_even_if_files_keep_coming(trial: Trial) -> None:
    """Its end is told, and the next run goes on with what it leaves."""
    trial.source.add(b"a")
    trial.ask()
    trial.clock.advance(MAX_RUN_S)
    trial.source.add(b"b")
    trial.ask()

    assert [[b"a"], []] == trial.pages
    assert [b"b"] == [entry.path for entry in trial.source.settled]


def test_a_source_that_is_never_done_lets_others_have_their_turn() -> None:
    """After two seconds, and only if others wait; a minute is no reason to give one nothing that waited for so long."""
    busy, alone, patient = Trial(lambda: True), Trial(), Trial(lambda: True)
    patient.clock.advance(MAX_RUN_S)
    for trial in (busy, alone, patient):
        for path in (b"first", b"second"):
            trial.source.add(path)
            trial.ask()
        trial.clock.advance(MAX_TURN_S)
        trial.source.add(b"third")
        trial.ask()

    assert [[b"first"], [b"second"], []] == busy.pages
    assert [[b"first"], [b"second"], [b"third"]] == alone.pages
    assert [[b"first"], []] == patient.pages[:2]


def test_no_file_is_given_twice_to_one_run(trial: Trial) -> None:
    """The run would take what it has put there itself for somebody else's: the new version waits for the next run."""
    trial.source.add(b"a", b"b")
    trial.ask()
    trial.feed(finished(b"a"))
    trial.source.add(b"a", b"c")
    trial.ask()
    trial.ask()

    assert [[b"a", b"b"], [b"c"], []] == trial.pages
    assert ("untouched", b"a") in trial.source.told


def test_each_end_of_a_file_is_told_once(trial: Trial) -> None:
    """What was moved, is gone, skipped or of no kind that is moved is done with; what failed comes back."""
    paths = [b"moved", b"gone", b"skipped", b"link", b"failed"]
    trial.source.add(*paths)
    trial.ask()
    conflict = Conflict("there is another one")
    for event in (
        finished(b"moved"),
        finished(b"gone", How.GONE, removed=False),
        finished(b"skipped", How.SKIPPED, removed=False),
        Left(b"link", "symlink"),
        Failed(b"failed", End.DESTINATION, conflict),
        finished(b"moved"),
        finished(b"never given"),
        Failed(b"", End.SOURCE, conflict),
    ):
        trial.feed(event)
    trial.feed.over(complete=True)

    assert [("moved", path) for path in paths[:4]] + [("failed", path) for path in paths[4:]] == trial.source.told
    assert [(b"failed", conflict)] == trial.failed


def test_what_somebody_else_is_writing_comes_back_soon(trial: Trial) -> None:
    """Often it was this machine, on a connection whose end the other one has not noticed."""
    trial.source.add(b"busy", b"refused")
    trial.ask()
    trial.feed(Failed(b"busy", End.DESTINATION, Busy("somebody else is writing it")))
    trial.feed(Failed(b"refused", End.DESTINATION, Conflict("there is another one")))

    assert [MAX_BUSY_DELAY_S, 3_600.0] == trial.source.max_delays_s


def test_what_found_no_room_comes_back_within_five_minutes(trial: Trial) -> None:
    """Nobody tells the source that there is room again; an hour would be long to wait for it."""
    trial.source.add(b"large")
    trial.ask()
    trial.feed(Failed(b"large", End.DESTINATION, NoSpace("large: No space left on device")))

    assert [300.0] == [MAX_FULL_DELAY_S] == trial.source.max_delays_s


@pytest.mark.parametrize("how", [How.CREATED, How.REPLACED, How.ALREADY_THERE])
def test_what_arrived_and_was_not_removed_is_given_back(trial: Trial, how: How) -> None:
    """The run ended in between: the next one finds it there, and removes it."""
    trial.source.add(b"a")
    trial.ask()
    trial.feed(finished(b"a", how, removed=False))
    trial.feed.over(complete=False)

    assert [("untouched", b"a")] == trial.source.told


@pytest.mark.parametrize("how", [None, How.CREATED])
def test_what_is_unknown_is_given_back(trial: Trial, how: How | None) -> None:
    """With the run that had no answer, whose delay is enough: the files are not to blame for their link."""
    trial.source.add(b"a")
    trial.ask()
    trial.feed(Unknown(b"a", 1, 1, how))
    trial.feed.over(complete=False)

    assert [("untouched", b"a")] == trial.source.told


@pytest.mark.parametrize(("complete", "what"), [(False, "untouched"), (True, "failed")])
def test_what_a_run_did_not_come_to_is_given_back(trial: Trial, complete: bool, what: str) -> None:
    """As it was after a run that ended early; with a delay after one that had no reason to leave it out."""
    trial.source.add(b"a")
    trial.ask()
    trial.feed.over(complete=complete)

    assert [(what, b"a")] == trial.source.told


def test_a_cancelled_request_loses_no_file(trial: Trial) -> None:
    """What settles after it is still there for the next run."""
    waiting = trial.ask().addErrback(lambda _: None)
    waiting.cancel()
    trial.source.add(b"a")
    trial.feed.wake()

    assert [] == trial.pages
    assert [b"a"] == [entry.path for entry in trial.source.settled]
    assert [] == trial.clock.getDelayedCalls()
