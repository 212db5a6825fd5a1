"""What sets off the runs of a move as files settle: `realize.moves.settling`, over watches that a test drives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from realize.errors import Conflict
from realize.mover.events import End, Failed
from realize.moves.one_run import RunEnd
from realize.moves.settling import PRUNE_INTERVAL_S, Settling
from realize.moves.state import FileFailure
from realize.moves.status import KnownBacklog, RunResult
from realize.values import Entry, Kind
from realize.watch.settling import FailedFile
from realize.watch.source_watch import SourceBacklog, WatchMode

ENDED = RunEnd(RunResult(run="1", began=1.0, ended=2.0), None, True, (), Counter(), 0, 0)


class Watch:
    """As `realize.watch.source_watch.SourceWatch`, with files that a test adds."""

    def __init__(self) -> None:
        self.mode = WatchMode.EVENTS
        self.on_ready: Callable[[], object] = lambda: None
        self.on_hang: Callable[[], object] = lambda: None
        self.settled: list[bytes] = []
        self.failing: dict[bytes, FailedFile] = {}
        self.told: list[str] = []
        self.backlog = SourceBacklog(files=0, bytes=0, oldest=None, at_least=False)

    @property
    def ready(self) -> int:
        """How many files can be taken."""
        return len(self.settled)

    @property
    def failures(self) -> Iterable[FailedFile]:
        """What failed."""
        return self.failing.values()

    def add(self, path: bytes) -> None:
        """Let a file settle."""
        self.settled.append(path)
        self.on_ready()

    def take(self, _: int) -> list[Entry]:
        """Take them."""
        taken, self.settled = self.settled, []
        return [Entry(path, Kind.FILE, 1, 1) for path in taken]

    def failed(self, path: bytes, *, max_delay_s: float = 3_600.0) -> float:
        """One could not be moved."""
        self.failing[path] = FailedFile(path, 5.0, 1)
        return 1.0

    def untouched(self, paths: Sequence[bytes]) -> None:
        """Their turn never came."""
        self.settled += paths

    def restore(self, failures: Iterable[FailedFile]) -> None:
        """What failed before."""
        self.failing |= {each.path: each for each in failures}

    def start(self) -> None:
        """Begin."""
        self.told.append("start")

    def stop(self) -> Deferred[None]:
        """End."""
        self.told.append("stop")
        return succeed(None)

    def retry_now(self) -> None:
        """Forget delays."""
        self.told.append("retry")

    def walk_now(self) -> None:
        """Walk."""
        self.told.append("walk")


class Trial:
    """A trigger over two sources."""

    def __init__(self, *, prunes: bool = False, failures: Iterable[FileFailure] = ()) -> None:
        self.clock = Clock()
        self.watches = {"/a": Watch(), "/b": Watch()}
        self.settling = Settling(
            self.clock,
            list(self.watches),
            lambda path: cast("Any", self.watches[path]),
            prunes=prunes,
            max_duration_s=None,
            failures=failures,
        )
        self.changes = 0
        self.settling.changed = self.changed
        self.settling.start()

    def changed(self) -> None:
        """Count it."""
        self.changes += 1


def test_a_run_is_due_when_a_file_has_settled() -> None:
    """After the delay that trouble has brought, and over the sources that have files, no others."""
    trial = Trial()
    before = trial.settling.wait_s(0.0), trial.settling.begin()
    trial.watches["/b"].add(b"x")
    occasion = trial.settling.begin()

    assert (None, None) == before
    assert 1 == trial.changes
    assert 30.0 == trial.settling.wait_s(30.0)
    assert occasion is not None
    assert (["/b"], 1) == (occasion.texts, len(occasion.feeds))


def test_files_that_settle_during_a_run_belong_to_it() -> None:
    """Those of its sources are given to it; those of another one make it end soon, for the next one has both."""
    trial = Trial()
    trial.watches["/a"].add(b"1")
    occasion = trial.settling.begin()
    assert occasion is not None
    pages: list[list[Entry]] = []
    [feed] = occasion.feeds
    feed.next_page().addCallback(pages.append)
    feed.next_page().addCallback(pages.append)
    trial.clock.advance(0.2)
    trial.watches["/a"].add(b"2")
    feed.next_page().addCallback(pages.append)
    trial.clock.advance(0.2)
    trial.watches["/b"].add(b"3")

    assert [[b"1"], [b"2"], []] == [[entry.path for entry in page] for page in pages]


def test_failures_have_their_kind_and_last_over_a_restart() -> None:
    """A file is new among them once; what is known of those from before is kept until they are moved."""
    before = FileFailure(source="/a", path=b"old", since=1.0, attempts=7, code="conflict", error="old: another one")
    trial = Trial(failures=[before, FileFailure(source="/gone", path=b"x", since=1.0)])
    trial.watches["/a"].settled = [b"old", b"new"]
    occasion = trial.settling.begin()
    assert occasion is not None
    [feed] = occasion.feeds
    feed.next_page()
    first = []
    for path in (b"old", b"new"):
        feed(Failed(path, End.DESTINATION, Conflict(f"{path.decode()}: another one")))
        first.append(trial.settling.is_first_failure(path))
    trial.settling.ended(ENDED)
    failures = {failed.path: failed for failed in trial.settling.failures}

    assert [False, True] == first
    assert not trial.settling.is_first_failure(b"new")
    assert {"conflict"} == {failed.code for failed in failures.values()}
    assert (5.0, "new: another one", "/a") == (
        failures[b"new"].since,
        failures[b"new"].error,
        failures[b"new"].source,
    )
    assert 2 == trial.settling.failed_files


def test_files_that_others_use_are_told_from_other_failures() -> None:
    """A file that somebody uses needs nobody."""
    before = FileFailure(source="/a", path=b"old", since=1.0, attempts=7, code="busy", error="old: is written")
    trial = Trial(failures=[before])
    trial.watches["/a"].settled = [b"new"]
    occasion = trial.settling.begin()
    assert occasion is not None
    [feed] = occasion.feeds
    feed.next_page()
    feed(Failed(b"new", End.DESTINATION, Conflict("new: another one")))

    assert (2, 1) == (trial.settling.failed_files, trial.settling.busy_files)


def test_the_backlog_is_that_of_all_sources() -> None:
    """With the oldest of them; of more than are known it is said that there are more."""
    trial = Trial()
    trial.watches["/a"].backlog = SourceBacklog(files=2, bytes=20, oldest=7.0, at_least=True)
    trial.watches["/b"].backlog = SourceBacklog(files=1, bytes=5, oldest=3.0, at_least=False)

    assert KnownBacklog(files=3, size=25, oldest=3.0, at_least=True) == trial.settling.backlog
    assert {"/a": "events", "/b": "events"} == trial.settling.watching


def test_empty_directories_are_looked_for_once_an_hour() -> None:
    """By a run over all sources that are there, if the configuration says so; other runs look for none."""
    trial, without = Trial(prunes=True), Trial()
    first = trial.settling.wait_s(0.0)
    trial.clock.advance(PRUNE_INTERVAL_S)
    trial.watches["/b"].mode = WatchMode.ABSENT
    due, occasion = trial.settling.wait_s(0.0), trial.settling.begin()
    trial.watches["/a"].add(b"1")
    ordinary = trial.settling.begin()

    assert (PRUNE_INTERVAL_S, 0.0) == (first, due)
    assert occasion is not None
    assert ordinary is not None
    assert (["/a"], 1, True) == (occasion.texts, len(occasion.feeds), occasion.prunes)
    assert not ordinary.prunes
    trial.watches["/a"].take(1)
    assert PRUNE_INTERVAL_S == trial.settling.wait_s(0.0)
    assert without.settling.wait_s(0.0) is None


def test_a_run_that_is_asked_for_tries_everything_again() -> None:
    """What failed, what was missed, and empty directories."""
    trial = Trial(prunes=True)
    trial.settling.asked()

    assert ["start", "retry", "walk"] == trial.watches["/a"].told
    assert 0.0 == trial.settling.wait_s(0.0)


def test_stopping_stops_every_watch() -> None:
    """And fires when all have stopped."""
    trial = Trial()
    stopped: list[object] = []
    trial.settling.stop().addCallback(stopped.append)

    assert [None] == stopped
    assert [["start", "stop"]] * 2 == [watch.told for watch in trial.watches.values()]
