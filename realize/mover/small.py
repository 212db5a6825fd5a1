"""Move small files in batches: each step is one call for all files of a batch.

What goes into a batch is decided here alone: a store only says how many bytes its link bears at present.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import takewhile
from operator import attrgetter
from typing import Final, TypeAlias

from attrs import evolve
from twisted.internet.defer import Deferred

from realize.by_value import ByValue
from realize.errors import Conflict, RealizeError, Unanswered
from realize.mover.batch import BatchOutcome, MovingBatch
from realize.mover.events import End, Finished, How, UnderWay
from realize.mover.gate import Gate
from realize.mover.interfaces import Arrived
from realize.mover.plan import Action, resolve
from realize.mover.removal import how_arrived, refuse_same_file
from realize.mover.work import SideError, StoreFailed, Work, just_arrived, whole
from realize.numbered import numbered
from realize.values import (
    MAX_VALUE_BYTES,
    Committed,
    Entry,
    Existing,
    Expected,
    Fetched,
    OnConflict,
    Removal,
    Sized,
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
class Candidate(ByValue):
    """A file to be moved, and what the destination has under its name."""

    entry: Entry
    existing: Existing


OutcomeReport: TypeAlias = Callable[[Candidate, BatchOutcome], object]


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


def grouped_in_order(
    candidates: Sequence[Candidate], at_once: Callable[[], int]
) -> Iterator[list[Candidate] | Candidate]:
    """The same, but all that is yielded is in the order of the candidates."""
    left = list(candidates)
    while left:
        fits = partial(_fits, at_once())
        if fits(left[0]):
            batch = next(batches(takewhile(fits, left), at_once))
            left = left[len(batch) :]
            yield batch
        else:
            yield left.pop(0)


def _fits(most: int, candidate: Candidate) -> bool:
    return candidate.entry.size <= most


async def move_small(
    work: Work, batch: Sequence[Candidate], report: OutcomeReport, directories: Gate | None = None
) -> None:
    """Move the files of a batch; at the end, ``report`` is called with the outcome of each file, in order.

    They are put at the destination once ``directories`` is open, if given, and read before.
    Raises `StoreFailed` if a store refuses a whole call.
    Then, or if cancelled, ``report`` is called only for the files whose outcome is known.
    """
    moving = _SmallBatch(work, {candidate.entry.path: candidate for candidate in batch})
    under_way = 0
    try:
        with work.progress.batch([candidate.entry for candidate in batch]):
            absent, conflicting = await moving.read()
            conflicting = await moving.settle(conflicting)
            if work.options.policy is OnConflict.RENAME:
                conflicting = await moving.find_beside(conflicting)
            if directories is not None:
                await directories.passed()
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


class _SmallBatch(MovingBatch[Fetched, Stored | None]):
    """The files of one batch; ``arrived`` has each with what was stored, or None if the file was there already.

    ``numbers`` has those that files may get which are to be kept beside others, ``beside`` the numbered names of those
    that are there under one.
    """

    def __init__(self, work: Work, candidates: dict[bytes, Candidate]) -> None:
        super().__init__(work)
        self.candidates = candidates
        self.numbers: dict[bytes, int] = {}
        self.beside: dict[bytes, bytes] = {}

    async def read(self) -> tuple[list[Fetched], list[Fetched]]:
        """Read all files; returns those whose name is free at the destination, and those whose name is taken."""
        with whole(End.SOURCE):
            keeping, paths, removing = self.work.keeping, list(self.candidates), self.work.options.remove
            wanted = None if keeping is None else keeping.asks()
            answers: Sequence[Fetched | RealizeError]
            answers = await self.work.source.read_small(paths, removing=removing, wanted=wanted)
        if keeping is not None:
            answers = await keeping.complete(self.work.source, answers)
        absent: list[Fetched] = []
        conflicting: list[Fetched] = []
        settles = self.work.settles
        for (path, candidate), answer in zip(self.candidates.items(), answers, strict=True):
            if isinstance(answer, RealizeError):
                self.outcomes[path] = SideError(End.SOURCE, answer)
            elif settles and (changed := self.work.changed_since(candidate.entry, answer.version)) is not None:
                self.outcomes[path] = SideError(End.SOURCE, changed)
            elif self._is_free(candidate):
                absent.append(answer)
            else:
                conflicting.append(answer)
        self._travelled(End.SOURCE, [*absent, *conflicting])
        return absent, conflicting

    async def settle(self, conflicting: Sequence[Fetched]) -> list[Fetched]:
        """Sort out the files that the destination has already; returns those whose name another one has."""
        doubtful = [
            self._expected(fetched)
            for fetched in conflicting
            if fetched.version.size == self._existing(fetched).final_size
        ]
        there: set[bytes] = set()
        for expected, answer in zip(doubtful, await self._settled(doubtful), strict=True):
            if isinstance(answer, RealizeError):
                self.outcomes[expected.path] = SideError(End.DESTINATION, answer)
            elif answer:
                there.add(expected.path)
        return [fetched for fetched in conflicting if await self._replaces(fetched, there)]

    async def _settled(self, doubtful: Sequence[Expected]) -> Sequence[bool | RealizeError]:
        if not doubtful:
            return ()
        keeping = self.work.keeping
        with whole(End.DESTINATION):
            if keeping is None:
                return await self.work.destination.settle(doubtful)
            return await keeping.insisting(doubtful, attrgetter("path"), self._settle_now)

    def _settle_now(self, doubtful: Sequence[Expected]) -> Deferred[list[bool | RealizeError]]:
        """Ask about files that have further attributes, insisting on what the run insists on by now."""
        keeping = self.work.keeping
        return self.work.destination.settle(
            [
                each
                if keeping is None or each.attributes is None
                else evolve(each, attributes=keeping.of(each.attributes))
                for each in doubtful
            ]
        )

    async def find_beside(self, conflicting: Sequence[Fetched]) -> list[Fetched]:
        """Sort out the files that an earlier run has put beside others, and could not remove any more.

        Returns the rest, and notes which number each may get.
        """
        if not conflicting:
            return []
        with whole(End.DESTINATION):
            answers = await self.work.destination.siblings(
                [Sized(fetched.file.path, fetched.version.size) for fetched in conflicting]
            )
        doubtful: list[tuple[Fetched, Expected]] = []
        for fetched, siblings in zip(conflicting, answers, strict=True):
            path = fetched.file.path
            if isinstance(siblings, RealizeError):
                self.outcomes[path] = SideError(End.DESTINATION, siblings)
                continue
            self.numbers[path] = siblings.free
            doubtful += (
                (fetched, evolve(self._expected(fetched), path=numbered(path, number))) for number in siblings.alike
            )
        settled = await self._settled([expected for _, expected in doubtful])
        for (fetched, expected), answer in zip(doubtful, settled, strict=True):
            path = fetched.file.path
            if isinstance(answer, RealizeError):
                self.outcomes.setdefault(path, SideError(End.DESTINATION, answer))
            elif answer and path not in self.beside and path not in self.outcomes:
                with whole(End.DESTINATION):
                    [existing] = await self.work.destination.describe([expected.path])
                if isinstance(existing, RealizeError):
                    self.outcomes[path] = SideError(End.DESTINATION, existing)
                elif await self._is_there(fetched, existing):
                    self.beside[path] = expected.path
        return [each for each in conflicting if each.file.path not in self.outcomes.keys() | self.beside.keys()]

    def _expected(self, fetched: Fetched) -> Expected:
        attributes = self._preserved(fetched).attributes
        return Expected(fetched.file.path, fetched.version.size, fetched.file.digest, attributes)

    async def put(self, files: Sequence[Fetched], policy: OnConflict) -> None:
        """Send files; ``policy`` decides about files that the destination has under their names by then."""
        if not files:
            return
        try:
            with whole(End.DESTINATION):
                answers = await self._put(files, policy)
        except StoreFailed as side_error:
            if isinstance(side_error.error, Unanswered):
                unknown = self.work.unknown([_arrived(fetched, None) for fetched in files])
                self.outcomes |= {each.path: each for each in unknown}
            raise
        self._travelled(End.DESTINATION, files)
        for fetched, answer in zip(files, answers, strict=True):
            path = fetched.file.path
            if isinstance(answer, Conflict) and self._is_free(self.candidates[path]):
                self.outcomes[path] = SideError(End.DESTINATION, just_arrived(path))
            elif isinstance(answer, RealizeError):
                self.outcomes[path] = SideError(End.DESTINATION, answer)
            elif answer.how is Committed.SKIPPED:
                self.outcomes[path] = _finished(fetched, How.SKIPPED, sent=fetched.version.size)
            else:
                if answer.how is Committed.REPLACED:
                    self.work.history.other_names.note(self.candidates[path].existing)
                if answer.number:
                    self.beside[path] = numbered(path, answer.number)
                self.arrived.append((fetched, answer))

    async def _put(self, files: Sequence[Fetched], policy: OnConflict) -> Sequence[Stored | RealizeError]:
        def ask(some: Sequence[Fetched]) -> Deferred[list[Stored | RealizeError]]:
            outgoing, put = [self._outgoing(file) for file in some], self.work.destination.put_small
            directories = self.work.directories
            unmade = [] if directories is None else directories.unmade(file.path for file in outgoing)
            if directories is None or not unmade:
                return put(outgoing, policy)
            return put(outgoing, policy, unmade).addCallback(_noting, partial(directories.made, unmade))

        keeping = self.work.keeping
        if keeping is None:
            return await ask(files)
        return await keeping.insisting(files, lambda fetched: fetched.file.path, ask)

    def paths(self) -> Iterable[bytes]:
        """See `MovingBatch`."""
        return self.candidates

    def removal(self, found: Fetched) -> Removal:
        """See `MovingBatch`."""
        return Removal(found.file.path, found.version)

    def arrival(self, found: Fetched, how: Stored | None) -> Arrived:
        """See `MovingBatch`."""
        return _arrived(found, how_arrived(how), self.beside.get(found.file.path, b""), _backup(how))

    def there(self, found: Fetched, how: Stored | None, *, removed: bool = False) -> Finished:
        """See `MovingBatch`."""
        sent = 0 if how is None else found.version.size
        finished = _finished(found, how_arrived(how), sent=sent, removed=removed)
        stored_as, backup = self.beside.get(found.file.path, b""), _backup(how)
        return evolve(finished, stored_as=stored_as, backup=backup) if stored_as or backup else finished

    async def _replaces(self, fetched: Fetched, there: set[bytes]) -> bool:
        path = fetched.file.path
        if path in self.outcomes:
            return False
        existing = self._existing(fetched)
        if path in there:
            await self._is_there(fetched, existing)
            return False
        try:
            action = resolve(path, existing, self.work.options.policy, self.work.history)
        except RealizeError as error:
            self.outcomes[path] = SideError(End.DESTINATION, error)
            return False
        if action is Action.SKIP:
            self.outcomes[path] = _finished(fetched, How.SKIPPED)
        return action in {Action.REPLACE, Action.RENAME}

    async def _is_there(self, fetched: Fetched, existing: Existing) -> bool:
        """Note that the destination has the file, as ``existing``, unless that is the file at the source itself."""
        path = fetched.file.path
        try:
            await refuse_same_file(self.work, path, existing)
        except StoreFailed:
            raise
        except SideError as side_error:
            self.outcomes[path] = side_error
            return False
        self.work.history.other_names.note(existing)
        self.arrived.append((fetched, None))
        return True

    @staticmethod
    def _is_free(candidate: Candidate) -> bool:
        """Whether the destination had nothing of that name when it was asked."""
        existing = candidate.existing
        return existing.final_size is None and not existing.obstacle

    def _travelled(self, end: End, files: Sequence[Fetched]) -> None:
        sizes = ((fetched.file.path, fetched.version.size) for fetched in files)
        self.work.progress.all_travelled(end, sizes, self.work.emit)

    def _existing(self, fetched: Fetched) -> Existing:
        return self.candidates[fetched.file.path].existing

    def _outgoing(self, fetched: Fetched) -> SmallFile:
        """The file as it is to arrive, with the version that it may replace, or the number that it may get."""
        file = self._preserved(fetched)
        number = self.numbers.get(file.path)
        if number is not None:
            return evolve(file, number=number)
        seen = self.candidates[file.path].existing.seen
        return file if seen is None else evolve(file, replaces=seen)

    def _preserved(self, fetched: Fetched) -> SmallFile:
        if not self.work.options.preserve:
            return evolve(fetched.file, attributes=None)
        keeping, file = self.work.keeping, fetched.file
        if keeping is None or file.attributes is None:
            return file
        attributes = keeping.of(file.attributes)
        return file if attributes is file.attributes else evolve(file, attributes=attributes)


def _noting(answers: list[Stored | RealizeError], note: Callable[[], None]) -> list[Stored | RealizeError]:
    note()
    return answers


def _backup(stored: Stored | None) -> bytes:
    return b"" if stored is None else stored.asked_backup


def _arrived(fetched: Fetched, how: How | None, stored_as: bytes = b"", backup: bytes = b"") -> Arrived:
    return Arrived(fetched.file.path, fetched.version.size, fetched.file.digest, how, stored_as, backup=backup)


def _finished(fetched: Fetched, how: How, *, sent: int = 0, removed: bool = False) -> Finished:
    return Finished(fetched.file.path, fetched.version.size, sent, how, fetched.file.digest, removed)
