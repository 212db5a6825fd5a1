"""The settled files of one source, for one run: a listing that goes on as files settle, until none has for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from realize.errors import Busy, NoSpace, RealizeError
from realize.mover.events import Event, Failed, Finished, How, Left
from realize.store.interfaces import IListing
from realize.values import Entry, Kind
from realize.watch.settling import MAX_FILE_DELAY_S

PAGE_FILES: Final = 500
"""Files on a page."""

LINGER_S: Final = 5.0
"""How long a run waits for another file: a new connection for each file would cost more than its content."""

PAGE_INTERVAL_S: Final = 0.2
"""The least time between two pages: small files cost much less together, and nobody misses this little."""

MAX_RUN_S: Final = 60.0
"""After so long a run ends, and the next one begins, so that its end is told while files keep coming."""

MAX_TURN_S: Final = 2.0
"""After so long a source with ever more files lets those have their turn that wait in other sources of its move."""

MAX_RUN_FILES: Final = 50_000
"""The same for the number of its files, of which some things are remembered."""

MAX_BUSY_DELAY_S: Final = 4.0
"""How long a file waits at most that somebody else writes there: often we do, on a connection that is dead."""

MAX_FULL_DELAY_S: Final = 300.0
"""How long a file waits at most for which the destination had no room: somebody makes room for many files at once."""

_LEFT_THERE: Final = frozenset({How.SKIPPED, How.GONE})
"""How a file ends that is not removed, and is not to be."""


class SettledSource(Protocol):
    """Knows the files of one source that have settled, and takes back what could not be moved."""

    def take(self, most: int) -> list[Entry]:
        """Up to ``most`` settled files in path order, with the directories they are in; they are in flight then."""

    def moved(self, path: bytes) -> None:
        """Say that nothing is left to do for a file that was taken."""

    def failed(self, path: bytes, *, max_delay_s: float = ...) -> float:
        """Say that a file could not be moved; returns in how many seconds it is settled again, at most that many."""

    def untouched(self, paths: Sequence[bytes]) -> None:
        """Say that the turn of these files never came."""


@implementer(IListing)
class SettledFeed:
    """Gives a run what settles in one source, and tells the source what becomes of it; for one run.

    ``others_wait`` says whether another source of the same move has files: then this one does not linger, and goes on
    for no longer than `MAX_TURN_S`.
    ``failed`` is told of each file that could not be moved, and why.
    """

    held: Final = 0

    def __init__(
        self,
        source: SettledSource,
        clock: IReactorTime,
        *,
        others_wait: Callable[[], bool],
        failed: Callable[[bytes, RealizeError], object],
    ) -> None:
        self._source = source
        self._clock = clock
        self._others_wait = others_wait
        self._failed = failed
        self._began = clock.seconds()
        self._in_flight: set[bytes] = set()
        self._seen: set[bytes] = set()
        """All files that were given: none is given twice, for the run has just put it there itself."""
        self._waiting: Deferred[list[Entry]] | None = None
        self._timer: IDelayedCall | None = None
        """For the next page, or for the end if no file comes."""
        self._page_at = clock.seconds()
        """When the next page may be given."""
        self._ending = False
        self._turn_began: float | None = None
        """When the first page was asked for: sources have their turns one after another."""
        self.now_ns = time.time_ns()

    def listing(self) -> IListing:
        """Itself."""
        return self

    def next_page(self) -> Deferred[list[Entry]]:
        """Fires with the next settled files as soon as there are some; with none at the end."""
        waiting: Deferred[list[Entry]] = Deferred(lambda _: self._wait_no_more())
        self._waiting = waiting
        if self._turn_began is None:
            self._turn_began = self._clock.seconds()
        early_s = self._page_at - self._clock.seconds()
        if early_s > 0.0 and not self._ending:
            self._timer = self._clock.callLater(early_s, self._give)
        else:
            self._give()
        return waiting

    def wake(self) -> None:
        """Say that there are settled files, here or in another source of this run."""
        if self._waiting is not None and self._clock.seconds() >= self._page_at:
            self._give()

    def _give(self) -> None:
        """Answer the request if there is anything to answer; else linger."""
        page = self._page()
        if page or self._ending or self._others_wait():
            self._answer(page)
        elif self._timer is None or not self._timer.active():
            self._timer = self._clock.callLater(LINGER_S, self.end)

    def end(self) -> None:
        """Give nothing more."""
        self._ending = True
        if self._waiting is not None:
            self._answer([])

    def close(self) -> None:
        """Give nothing more; the run does not ask again."""
        self._ending = True
        self._wait_no_more()

    def __call__(self, event: Event) -> None:
        """Tell the source what became of a file.

        One that arrived and was not removed, or of which that is unknown, stays in flight until the run is over: what
        ended the run has a delay of its own, and the file is not to blame.
        """
        match event:
            case Finished(path, how=how, removed=removed):
                if removed or how in _LEFT_THERE:
                    self._is_done(path)
            case Left(path):
                self._is_done(path)
            case Failed(path, _, error) if path:
                self._failed(path, error)
                if path in self._in_flight:
                    self._in_flight.discard(path)
                    self._source.failed(path, max_delay_s=_max_delay_s(error))
            case _:
                pass

    def _is_done(self, path: bytes) -> None:
        if path in self._in_flight:
            self._in_flight.discard(path)
            self._source.moved(path)

    def over(self, *, complete: bool) -> None:
        """Give back what the run did not come to; a ``complete`` run came to everything, so what is left is odd.

        What is odd comes back after a delay, so that no run is made for it over and over.
        """
        self.close()
        left, self._in_flight = sorted(self._in_flight), set()
        if not complete:
            self._source.untouched(left)
            return
        for path in left:
            self._source.failed(path)

    def _page(self) -> list[Entry]:
        """What has settled; ends this run if it has gone on for long, or if a file comes a second time."""
        if self._has_had_enough():
            self._ending = True
        if self._ending:
            return []
        self.now_ns = time.time_ns()
        page = self._source.take(PAGE_FILES)
        again = {entry.path for entry in page if entry.kind is not Kind.DIRECTORY and entry.path in self._seen}
        if again:
            self._ending = True
            self._source.untouched(sorted(again))
            page = [entry for entry in page if entry.path not in again]
        files = {entry.path for entry in page if entry.kind is not Kind.DIRECTORY}
        self._seen |= files
        self._in_flight |= files
        return page if files else []

    def _has_had_enough(self) -> bool:
        """Whether others are to have their turn; a source that has given nothing yet has not had its own."""
        if not self._seen:
            return False
        now, turn_began = self._clock.seconds(), self._turn_began
        if now - self._began >= MAX_RUN_S or len(self._seen) >= MAX_RUN_FILES:
            return True
        return turn_began is not None and now - turn_began >= MAX_TURN_S and self._others_wait()

    def _answer(self, page: list[Entry]) -> None:
        self._page_at = self._clock.seconds() + PAGE_INTERVAL_S
        waiting = self._waiting
        self._wait_no_more()
        if waiting is not None:
            waiting.callback(page)

    def _wait_no_more(self) -> None:
        self._waiting = None
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


def _max_delay_s(error: RealizeError) -> float:
    """How long a file that failed in this way waits at most for its next attempt."""
    match error:
        case Busy():
            return MAX_BUSY_DELAY_S
        case NoSpace():
            return MAX_FULL_DELAY_S
        case _:
            return MAX_FILE_DELAY_S
