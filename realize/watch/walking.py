"""`Walking`: which walks of a source are to be done, and in which order; one piece of one walk is read at a time.

New directories come first.
Then the whole source, at the start, when events were lost, and every now and then; for what was missed, slowly.
If more files were found than may be known, others are looked for when there is room for them: that walk pauses
whenever there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from realize.store.local.walker import PAGE_ENTRIES
from realize.watch.jobs import SourceJobs
from realize.watch.settling import SettlingFiles
from realize.watch.walks import SourceWalk, WalkPage, read_page

MAX_NEW_DIRECTORIES: Final = 10_000
"""New directories that wait to be walked one by one; if there are more, everything is."""

MAX_PAUSE_S: Final = 600.0
"""A walk for which there is no room for so long is given up: it may keep a file system from being unmounted."""

_DUTY_FRACTION: Final = 0.2
"""The part of its time that a slow walk works, and that those do which are done by the clock."""

_MIN_WALK_GAP_S: Final = 1.0
_REFILL_FRACTION: Final = 0.25
"""When fewer files are known than this part of the most that may be, others are looked for."""


class Walking:
    """The walks of one source, from `want` to `abandon`.

    ``begin`` returns a walk of everything below a path, None if there cannot be one.
    ``take_in`` is given what a piece has found, but for its files, and ``found`` is called after these were taken in.
    ``lost`` is given why the source cannot be walked.
    ``ended`` is called after each walk of the whole, and returns after how many seconds the next one is due, and
    whether that is done slowly.
    """

    def __init__(
        self,
        jobs: SourceJobs,
        files: SettlingFiles,
        reactor: IReactorTime,
        *,
        begin: Callable[[bytes], SourceWalk | None],
        take_in: Callable[[WalkPage], None],
        found: Callable[[], None],
        lost: Callable[[Failure], None],
        ended: Callable[[], tuple[float, bool]],
    ) -> None:
        self._jobs = jobs
        self._files = files
        self._reactor = reactor
        self._begin = begin
        self._take_in = take_in
        self._found = found
        self._lost = lost
        self._ended = ended
        self._reading: list[SourceWalk] | None = None
        """The walks that a thread reads from."""
        self._taking_in = False
        self._abandoned = True
        """Whether there is nothing to be walked, since the source is not there."""
        self._new: dict[bytes, None] = {}
        self._new_walks: list[SourceWalk] = []
        self._whole: list[SourceWalk] = []
        self._wanted = False
        self._slowly = False
        self._refill: list[SourceWalk] = []
        self._worked_s = 0.0
        """How long the latest walk of the whole took, without its pauses."""
        self._ended_s: float | None = None
        self._counted = (0, 0)
        self.number = 0
        """Of the latest walk of the whole source."""
        self.beyond = (0, 0)
        """Files, and their bytes, that were found and for which there was no room."""

    @property
    def adding(self) -> bool:
        """Whether directories may be watched that are not known yet."""
        return self.reading or self.visiting

    @property
    def reading(self) -> bool:
        """Whether a thread reads a piece."""
        return self._reading is not None

    @property
    def visiting(self) -> bool:
        """Whether there is something to be walked that somebody has asked for by `visit`."""
        return bool(self._new or self._new_walks)

    def want(self, *, slowly: bool = False) -> None:
        """Walk the whole source as soon as possible; a walk that is under way is hurried, and done again."""
        self._abandoned = False
        self._slowly = slowly if not self._wanted else self._slowly and slowly
        self._wanted = True
        self._jobs.cancel("slowly")
        self.go_on()

    def want_within(self, delay_s: float) -> None:
        """Walk the whole source after that time, or a little later if that takes long, unless it is walked now."""
        if not self._whole and not self._wanted:
            self._jobs.cancel("walk")
            self._jobs.later("walk", max(delay_s, pause_after_s(self._worked_s)), self.want)

    def visit(self, path: bytes) -> None:
        """Walk everything below a path."""
        if len(self._new) < MAX_NEW_DIRECTORIES:
            self._new[path] = None
            self.go_on()
        elif not self._wanted:
            self.want()

    def abandon(self) -> None:
        """Give up all walks: the source is not there any more."""
        self._abandoned = True
        self._jobs.cancel("walk", "gap", "slowly", "room")
        for walks in (self._new_walks, self._whole, self._refill):
            if walks is not self._reading:
                _close(walks)
        self._new_walks, self._whole, self._refill = [], [], []
        self._new.clear()
        self._wanted = False

    def go_on(self) -> None:
        """Read the next piece, if there is one."""
        if self.reading or self._taking_in or self._abandoned or self._jobs.stopped:
            return
        if self._new and not self._new_walks:
            some = list(self._new)[:PAGE_ENTRIES]
            for path in some:
                del self._new[path]
            self._new_walks = [walk for path in some if (walk := self._begin(path)) is not None]
        if self._new_walks:
            self._read(self._new_walks, self._found_new)
        elif self._whole:
            if not self._jobs.waits("slowly"):
                self._read(self._whole, self._found_in_whole)
        elif self._wanted:
            self._begin_whole()
        elif self._refill or self._wants_refill:
            self._look_for_more()

    def _read(self, walks: list[SourceWalk], then: Callable[[WalkPage], None]) -> None:
        self._reading = walks
        began_s = self._reactor.seconds()

        def done(page: WalkPage | Failure) -> None:
            self._reading = None
            worked_s = self._reactor.seconds() - began_s
            if walks is self._whole:
                self._worked_s += worked_s
            if isinstance(page, Failure):
                abandoned = self._are_abandoned(walks)
                _close(walks)
                if abandoned:
                    self.go_on()
                else:
                    self._lost(page)
                return
            self._taking_in = True  # what events that were kept ask for comes after this page
            try:
                self._take_in(page)
                if self._are_abandoned(walks):
                    _close(walks)
                else:
                    then(page)
                    self._found()
            finally:
                self._taking_in = False
            if self._whole and walks is self._whole and self._slowly:
                self._jobs.later("slowly", pause_after_s(worked_s), self.go_on)
            self.go_on()

        self._jobs.in_thread(read_page, walks).addBoth(done)

    def _are_abandoned(self, walks: list[SourceWalk]) -> bool:
        return not any(walks is each for each in (self._new_walks, self._whole, self._refill))

    def _found_new(self, page: WalkPage) -> None:
        for file in page.files:
            self._files.found(file)

    def _begin_whole(self) -> None:
        if self._ended_s is not None:
            wait_s = self._ended_s + max(_MIN_WALK_GAP_S, self._worked_s) - self._reactor.seconds()
            if wait_s > 0:
                self._jobs.later("gap", wait_s, self.go_on)
                return
        self._jobs.cancel("walk")
        self._wanted = False
        self._close_refill()
        self._files.missed = self._files.forgotten = False
        self._counted = (0, 0)
        self.number += 1
        self._worked_s = 0.0
        self._whole = self._walk_of_all()
        self._read(self._whole, self._found_in_whole)

    def _found_in_whole(self, page: WalkPage) -> None:
        files, size = self._counted
        for file in page.files:
            if not self._files.found(file):
                files, size = files + 1, size + file.size
        self._counted = files, size
        if not self._whole:
            self.beyond = self._counted
            self._ended_s = self._reactor.seconds()
            period_s, slowly = self._ended()
            self._jobs.later("walk", max(period_s, pause_after_s(self._worked_s)), self._again, slowly)

    def _again(self, slowly: bool) -> None:  # noqa: FBT001 -- what a timer calls is called like this
        self.want(slowly=slowly)

    @property
    def _wants_refill(self) -> bool:
        more = self.beyond[0] or self._files.missed
        return bool(more) and self._files.waiting < self._files.max_known * _REFILL_FRACTION

    def _look_for_more(self) -> None:
        if len(self._files) + PAGE_ENTRIES > self._files.max_known:
            self._jobs.later("room", MAX_PAUSE_S, self._close_refill)
            return
        self._jobs.cancel("room")
        if not self._refill:
            self._files.missed = False
            self._refill = self._walk_of_all()
        self._read(self._refill, self._found_more)

    def _found_more(self, page: WalkPage) -> None:
        known, size = len(self._files), self._files.size
        self._found_new(page)
        more, more_bytes = len(self._files) - known, self._files.size - size
        self.beyond = (max(0, self.beyond[0] - more), max(0, self.beyond[1] - more_bytes)) if self._refill else (0, 0)

    def _close_refill(self) -> None:
        """Give up looking for more; there may be some."""
        if self._refill:
            self._files.missed = True
            _close(self._refill)

    def _walk_of_all(self) -> list[SourceWalk]:
        walk = self._begin(b"")
        assert walk is not None  # noqa: S101 -- for the type checker
        return [walk]


def pause_after_s(worked_s: float) -> float:
    """Return how long whoever works by the clock is to do nothing after that."""
    return worked_s * (1 / _DUTY_FRACTION - 1)


def _close(walks: list[SourceWalk]) -> None:
    for walk in walks:
        walk.close()
    walks.clear()
