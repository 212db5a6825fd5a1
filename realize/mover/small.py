"""Move small files in batches: each step is one call for all files of a batch.

What goes into a batch is decided here alone: a store only says how many bytes its link bears at present.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from attrs import define, evolve, field

from realize.errors import Conflict, RealizeError, Unanswered
from realize.mover.events import End, Finished, How, UnderWay, Unknown
from realize.mover.interfaces import Arrived
from realize.mover.large import HOW_COMMITTED, refuse_same_file
from realize.mover.plan import Action, resolve
from realize.mover.removal import remove_arrived
from realize.mover.work import SideError, StoreFailed, Work, just_arrived, whole
from realize.shown import Shown
from realize.values import (
    MAX_VALUE_BYTES,
    Committed,
    Entry,
    Existing,
    Expected,
    Fetched,
    OnConflict,
    Removal,
    SmallFile,
    Stored,
    frozen,
)

FILE_HEADER_BYTES: Final = 128
"""Upper bound of what is sent for a small file besides its path and its content."""

MAX_HEADERS_BYTES: Final = MAX_VALUE_BYTES
"""The headers of a batch, with the paths, have to fit one value of the protocol."""

MAX_BATCH_FILES: Final = 256
"""Files in one batch at most, so that its answer does not take long."""


@frozen(eq=False, repr=False)
class Candidate(Shown):
    """A file to be moved, and what the destination has under its name."""

    entry: Entry
    existing: Existing


OutcomeReport: TypeAlias = Callable[[Candidate, Finished | Unknown | SideError], object]


def batches(candidates: Iterable[Candidate], at_once: Callable[[], int]) -> Iterator[list[Candidate]]:
    """Group candidates in order, so that the headers of a group fit one command and its content ``at_once()`` bytes.

    ``at_once`` is asked anew for each batch, since its answer changes while batches are sent; otherwise pure.
    A candidate that is larger by itself gets a batch of its own.
    """
    batch: list[Candidate] = []
    content = headers = 0
    most = at_once()
    for candidate in candidates:
        size, header = candidate.entry.size, len(candidate.entry.path) + FILE_HEADER_BYTES
        if batch and (content + size > most or headers + header > MAX_HEADERS_BYTES or len(batch) == MAX_BATCH_FILES):
            yield batch
            batch, content, headers = [], 0, 0
            most = at_once()
        batch.append(candidate)
        content += size
        headers += header
    if batch:
        yield batch


def grouped(candidates: Sequence[Candidate], at_once: Callable[[], int]) -> Iterator[list[Candidate] | Candidate]:
    """Yield the batches of all candidates that fit one, and the others one by one; pure, as `batches`.

    What does not fit at first may fit later: batches grow once arriving files have shown how fast the link is.
    """
    left, most = list(candidates), 0
    while left:
        if (fits := at_once()) > most:
            most = fits
            yield from batches([each for each in left if each.entry.size <= most], at_once)
            left = [each for each in left if each.entry.size > most]
        else:
            yield left.pop(0)


async def move_small(work: Work, batch: Sequence[Candidate], report: OutcomeReport) -> None:
    """Move the files of a batch; at the end, ``report`` is called with the outcome of each file, in order.

    Raises `StoreFailed` if a store refuses a whole call.
    Then, or if cancelled, ``report`` is called only for the files whose outcome is known.
    """
    moving = _SmallBatch(work, {candidate.entry.path: candidate for candidate in batch})
    under_way = 0
    try:
        with work.progress.batch([candidate.entry for candidate in batch]):
            absent, conflicting = await moving.read()
            conflicting = await moving.settle(conflicting)
            under_way = len(batch) - len(moving.outcomes)
            work.emit(UnderWay(under_way))
            await moving.put(absent, OnConflict.SKIP if work.options.policy is OnConflict.SKIP else OnConflict.FAIL)
            await moving.put(conflicting, work.options.policy)
            await moving.remove()
    finally:
        moving.note()
        for path, outcome in moving.so_far():
            report(moving.candidates[path], outcome)
        # Only after all reports: a hanging process may be ended in the middle of them.
        work.emit(UnderWay(-under_way))


@define(eq=False, repr=False)
class _SmallBatch:
    """The files of one batch between the steps; each ends up in ``outcomes``.

    ``arrived`` has the files that are at the destination now, with what was stored, or None if the file was there
    already; ``recorded`` says whether the manifest was told of them.
    """

    work: Work
    candidates: dict[bytes, Candidate]
    outcomes: dict[bytes, Finished | Unknown | SideError] = field(factory=dict)
    arrived: list[tuple[Fetched, Stored | None]] = field(factory=list)
    recorded: bool = False

    async def read(self) -> tuple[list[Fetched], list[Fetched]]:
        """Read all files; returns those whose name is free at the destination, and those whose name is taken."""
        with whole(End.SOURCE):
            answers = await self.work.source.read_small(list(self.candidates), removing=self.work.options.remove)
        absent: list[Fetched] = []
        conflicting: list[Fetched] = []
        for path, answer in zip(self.candidates, answers, strict=True):
            if isinstance(answer, RealizeError):
                self.outcomes[path] = SideError(End.SOURCE, answer)
            elif (changed := self.work.changed_since(self.candidates[path].entry, answer.version)) is not None:
                self.outcomes[path] = SideError(End.SOURCE, changed)
            elif self.candidates[path].existing.final_size is None:
                absent.append(answer)
            else:
                conflicting.append(answer)
        self._travelled(End.SOURCE, [*absent, *conflicting])
        return absent, conflicting

    async def settle(self, conflicting: Sequence[Fetched]) -> list[Fetched]:
        """Sort out the files that the destination has already; returns those that are to replace another file."""
        doubtful = [
            Expected(fetched.file.path, fetched.version.size, fetched.file.digest, self._preserved(fetched).attributes)
            for fetched in conflicting
            if fetched.version.size == self._existing(fetched).final_size
        ]
        there: set[bytes] = set()
        if doubtful:
            with whole(End.DESTINATION):
                answers = await self.work.destination.settle(doubtful)
            for expected, answer in zip(doubtful, answers, strict=True):
                if isinstance(answer, RealizeError):
                    self.outcomes[expected.path] = SideError(End.DESTINATION, answer)
                elif answer:
                    there.add(expected.path)
        return [fetched for fetched in conflicting if await self._replaces(fetched, there)]

    async def put(self, files: Sequence[Fetched], policy: OnConflict) -> None:
        """Send files; ``policy`` decides about files that the destination has under their names by then."""
        if not files:
            return
        try:
            with whole(End.DESTINATION):
                answers = await self.work.destination.put_small([self._outgoing(file) for file in files], policy)
        except StoreFailed as side_error:
            if isinstance(side_error.error, Unanswered):
                unknown = self.work.unknown([_arrived(fetched, None) for fetched in files])
                self.outcomes |= {each.path: each for each in unknown}
            raise
        self._travelled(End.DESTINATION, files)
        for fetched, answer in zip(files, answers, strict=True):
            path = fetched.file.path
            if isinstance(answer, Conflict) and self._existing(fetched).final_size is None:
                self.outcomes[path] = SideError(End.DESTINATION, just_arrived(path))
            elif isinstance(answer, RealizeError):
                self.outcomes[path] = SideError(End.DESTINATION, answer)
            elif answer.how is Committed.SKIPPED:
                self.outcomes[path] = _finished(fetched, How.SKIPPED, sent=fetched.version.size)
            else:
                self.arrived.append((fetched, answer))

    async def remove(self) -> None:
        """Record the files that are durable at the destination, and remove them from the source if asked to."""
        recorded = self._arrivals()
        self.recorded = True
        removals = [Removal(fetched.file.path, fetched.version) for fetched, _ in self.arrived]
        try:
            refusals = await remove_arrived(self.work, recorded, removals)
        except StoreFailed as side_error:
            if isinstance(side_error.error, Unanswered):
                for fetched, stored in self.arrived:
                    unknown = self.work.removal_unknown(_there(fetched, stored))
                    self.outcomes[fetched.file.path] = unknown
            raise
        for (fetched, stored), refused in zip(self.arrived, refusals, strict=True):
            if refused is not None:
                self.outcomes[fetched.file.path] = SideError(End.SOURCE, refused, sent=stored)
            else:
                self.outcomes[fetched.file.path] = _there(fetched, stored, removed=self.work.options.remove)

    def note(self) -> None:
        """Record the files that arrived, if the batch ended before `remove` did."""
        if not self.recorded:
            self.work.kept(self._arrivals())

    def so_far(self) -> Iterator[tuple[bytes, Finished | Unknown | SideError]]:
        """The outcomes known so far, by path; a file that arrived and was not yet removed is on both sides."""
        there = {fetched.file.path: (fetched, stored) for fetched, stored in self.arrived}
        for path in self.candidates:
            if path in self.outcomes:
                yield path, self.outcomes[path]
            elif path in there:
                yield path, _there(*there[path])

    def _arrivals(self) -> list[Arrived]:
        return [_arrived(fetched, _how(stored)) for fetched, stored in self.arrived]

    async def _replaces(self, fetched: Fetched, there: set[bytes]) -> bool:
        path = fetched.file.path
        if path in self.outcomes:
            return False
        existing = self._existing(fetched)
        if path in there:
            try:
                await refuse_same_file(self.work, path, existing)
            except StoreFailed:
                raise
            except SideError as side_error:
                self.outcomes[path] = side_error
            else:
                self.arrived.append((fetched, None))
            return False
        try:
            policy, run_started_ns = self.work.options.policy, self.work.run_started_ns
            action = resolve(path, existing, policy, run_started_ns=run_started_ns, sent=None)
        except RealizeError as error:
            self.outcomes[path] = SideError(End.DESTINATION, error)
            return False
        if action is Action.SKIP:
            self.outcomes[path] = _finished(fetched, How.SKIPPED)
        return action is Action.REPLACE

    def _travelled(self, end: End, files: Sequence[Fetched]) -> None:
        sizes = ((fetched.file.path, fetched.version.size) for fetched in files)
        self.work.progress.all_travelled(end, sizes, self.work.emit)

    def _existing(self, fetched: Fetched) -> Existing:
        return self.candidates[fetched.file.path].existing

    def _outgoing(self, fetched: Fetched) -> SmallFile:
        """The file as it is to arrive, with the version of the destination's file that it may replace."""
        seen = self._existing(fetched).seen
        file = self._preserved(fetched)
        return file if seen is None else evolve(file, replaces=seen)

    def _preserved(self, fetched: Fetched) -> SmallFile:
        return fetched.file if self.work.options.preserve else evolve(fetched.file, attributes=None)


def _how(stored: Stored | None) -> How:
    return How.ALREADY_THERE if stored is None else HOW_COMMITTED[stored.how]


def _arrived(fetched: Fetched, how: How | None) -> Arrived:
    return Arrived(fetched.file.path, fetched.version.size, fetched.file.digest, how)


def _there(fetched: Fetched, stored: Stored | None, *, removed: bool = False) -> Finished:
    """The outcome of a file that is at the destination."""
    sent = 0 if stored is None else fetched.version.size
    return _finished(fetched, _how(stored), sent=sent, removed=removed)


def _finished(fetched: Fetched, how: How, *, sent: int = 0, removed: bool = False) -> Finished:
    return Finished(fetched.file.path, fetched.version.size, sent, how, fetched.file.digest, removed)
