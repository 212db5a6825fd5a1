"""The statistics of a run so far, counted from the mover's events; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from realize.errors import RealizeError, is_busy
from realize.exit_codes import ExitCode
from realize.mover.events import (
    Event,
    Failed,
    Finished,
    Found,
    HeldBack,
    How,
    Left,
    NotPreserved,
    Planned,
    Pruned,
    Retrying,
    SourceStarted,
    Started,
    Stopped,
    UnderWay,
    Unknown,
)
from realize.mover.plan import Action
from realize.runs.board import Sent
from realize.runs.exit_code import exit_code_of

ARRIVED = (How.CREATED, How.REPLACED, How.RENAMED, How.ALREADY_THERE)
"""The outcomes after which the file is at the destination."""


class _Counts:
    """Counts of files by how they ended."""

    def __init__(self) -> None:
        self.finished: Counter[How] = Counter()
        self.finished_bytes: Counter[How] = Counter()
        self.links = 0
        """Symlinks among the files that are at the destination."""
        self.linked = 0
        """Names among them that are hard links to another one."""
        self.planned: Counter[Action] = Counter()
        self.planned_bytes = 0
        self.left = 0
        self.held_back = 0
        self.pruned = 0


class Tally(_Counts):
    """Files and bytes by outcome.

    Only failures make the exit code differ from 0: files that were skipped by policy or taken by somebody else, and
    entries that are never moved (symlinks, devices, ...), are reported, but nothing went wrong with them.
    """

    def __init__(self, sources: Sequence[str] = (), destination: str = "") -> None:
        super().__init__()
        self.sources = sources
        """The resolved source locations; empty until known, as is ``destination``."""
        self.destination = destination
        self.found_files = 0
        self.found_bytes = 0
        self.removed = 0
        self.hole_bytes = 0
        """How many bytes of the files that were sent did not travel because they are holes."""
        self.compression_saved_bytes = 0
        """How many bytes of what was sent did not travel because it was compressed; known at the end."""
        self.failed = 0
        self.busy = 0
        """How many of those that ``failed`` are in use by others: see `realize.errors.is_busy`."""
        self.not_kept: dict[str, None] = {}
        """The kinds of attributes that were not kept of some files, which were moved all the same."""
        self.steps = 0
        """Grows with all lasting progress: files that end, and parts of others that the destination keeps."""
        self.interrupted: dict[bytes, tuple[int, int | None]] = {}
        """Files that were started and not completed: size, and how many bytes are durable there (None if unknown)."""
        self.unknown: dict[bytes, Unknown] = {}
        """Files of which it is unknown what became, because no answer came."""
        self._kept: dict[bytes, int] = {}
        """For each file that has not ended, how many bytes the destination had when it was last started."""
        self._sent = Sent()
        self._in_flight: dict[bytes, int] = {}
        """Large files in flight, and their sizes."""
        self._small_in_flight = 0
        """The number of small files in flight."""
        self._abandoned = 0
        self._recounted = _Counts()
        """Counts of files that are still at the current source, and so are found again if its listing starts again."""
        self._failures: dict[bytes, tuple[bool, bool]] = {}
        """What failed of the current source, whether it was found and is busy; removed if it ends otherwise."""
        self._failed_files = 0
        """How many of those that ``failed`` were found: the others are directories and whole sources."""
        self._lost = False
        """Whether the connection was lost and the listing has not started again; until then, all counts hold."""

    def __call__(self, event: Event) -> None:
        """Count one event."""
        if self._lost:
            if isinstance(event, (SourceStarted, Found)):
                self._lost = False
                self._forget(self._recounted)
        elif isinstance(event, SourceStarted):
            self._failures.clear()
        recounted = self._recounted
        self._sent(event)
        match event:
            case Finished():  # first, since it is what happens to every file
                self.steps += 1
                self._finished(event)
            case SourceStarted():
                self._recounted = _Counts()
            case Found(files, size):
                self.found_files += files
                self.found_bytes += size
            case Stopped(path, size, reached):
                self._in_flight.pop(path, None)
                self.interrupted[path] = (size, reached)
            case Started(path, size, have):
                self._in_flight[path] = size
                self.interrupted.pop(path, None)
                self.unknown.pop(path, None)
                self.steps += have > self._kept.get(path, have)
                self._kept[path] = have
            case UnderWay(files):
                self._small_in_flight += files
            case Unknown(path):
                self._in_flight.pop(path, None)
                self.unknown[path] = event
            case Retrying():
                self._lost = True
            case Planned():
                for count in (self, recounted):
                    count.planned[event.action] += 1
                    count.planned_bytes += event.size
            case Failed(path):
                self._ended(path)
                self._failures[path] = kinds = event.found, bool(path) and is_busy(event.error)
                self._count_failure(*kinds, by=1)
            case NotPreserved(_, kind):
                self.not_kept[kind.value] = None
            case Left():
                self.left += 1
                recounted.left += 1
            case HeldBack():
                self.held_back += 1
                recounted.held_back += 1
            case Pruned(_, removed):
                self.pruned += 1
                recounted.pruned += not removed
            case _:
                pass

    def give_up(self) -> None:
        """Count the files in flight as interrupted or unknown, because the process is about to be killed.

        May be called from any thread.
        """
        self.interrupted |= {path: (size, None) for path, size in self._in_flight.copy().items()}
        self._abandoned = self._small_in_flight

    def _ended(self, path: bytes) -> None:
        """Forget what was noted about a file, now that it has ended."""
        if path in self._failures:
            self._count_failure(*self._failures.pop(path), by=-1)
        if self._in_flight or self.interrupted or self.unknown or self._kept:
            for known in (self._in_flight, self.interrupted, self.unknown, self._kept):
                known.pop(path, None)

    def _count_failure(self, found: bool, busy: bool, *, by: int) -> None:  # noqa: FBT001 -- they are kept together
        self.failed += by
        self.busy += by * busy
        self._failed_files += by * found

    def _finished(self, event: Finished) -> None:
        self._ended(event.path)
        how = event.how
        self.removed += event.removed
        self.hole_bytes += event.holes
        linked, is_link = bool(event.linked_to), event.target is not None and how in ARRIVED
        for count in (self,) if event.removed or how is How.GONE else (self, self._recounted):
            count.finished[how] += 1
            count.finished_bytes[how] += event.size
            if linked:
                count.linked += 1
            if is_link:
                count.links += 1

    def _forget(self, recounted: _Counts) -> None:
        """Subtract what will be found again, since the current source starts again: nothing may be counted twice."""
        self._recounted = _Counts()
        self.finished -= recounted.finished
        self.finished_bytes -= recounted.finished_bytes
        self.links -= recounted.links
        self.linked -= recounted.linked
        self.planned -= recounted.planned
        self.planned_bytes -= recounted.planned_bytes
        self.left -= recounted.left
        self.held_back -= recounted.held_back
        self.pruned -= recounted.pruned
        self.found_files = self.done - sum(found for found, _ in self._failures.values())
        self.found_bytes = self.done_bytes

    def count(self, how: How) -> int:
        """How many files ended so at the destination; whether they were removed at the source may be unknown."""
        return self.finished[how] + sum(each.how is how for each in list(self.unknown.values()))

    def size(self, how: How) -> int:
        """The total size of these files, in bytes."""
        return self.finished_bytes[how] + sum(each.size for each in list(self.unknown.values()) if each.how is how)

    @property
    def sent_bytes(self) -> int:
        """How many bytes of content travelled, including those of files that never arrived."""
        return self._sent.total

    @property
    def arrived(self) -> int:
        """How many files are at the destination now."""
        return sum(map(self.count, ARRIVED))

    @property
    def arrived_bytes(self) -> int:
        """The total size of the files that are at the destination now, in bytes."""
        return sum(map(self.size, ARRIVED))

    @property
    def unknown_arrivals(self) -> int:
        """How many files may or may not be at the destination; all of them are at the source."""
        return sum(each.how is None for each in list(self.unknown.values())) + self._abandoned

    @property
    def unknown_removals(self) -> int:
        """How many files may or may not be removed from the source; all of them are at the destination."""
        return sum(each.how is not None for each in list(self.unknown.values()))

    @property
    def done_bytes(self) -> int:
        """The total size of the files that ended without a failure, in bytes."""
        return self.finished_bytes.total()

    @property
    def done(self) -> int:
        """How many of the files that were found need no more work."""
        return self.finished.total() + self._failed_files

    @property
    def not_started(self) -> int:
        """How many of the files that were found have not been started."""
        others = len(self.interrupted) + self.unknown_arrivals + self.unknown_removals
        return max(0, self.found_files - self.done - others)

    def exit_code(self, error: RealizeError | None = None) -> ExitCode:
        """The exit code of a run with these counts that ``error`` ended, None being its proper end."""
        return exit_code_of(error, failed=self.failed > 0)
