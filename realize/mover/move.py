"""Move everything below one source: list, plan, and keep many files on their way at once.

The listing is read a page at a time, and only as far ahead as there are free slots, so memory does not grow with the
number of files.
What cannot be moved now, but perhaps in a moment, is put aside (up to `MAX_RETRY_QUEUE_FILES` files) and tried again
at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Final

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred, DeferredLock, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater

from realize.errors import NotFound, RealizeError, StorageError
from realize.mover.events import (
    End,
    Failed,
    Finished,
    Found,
    HeldBack,
    How,
    Left,
    Listed,
    Planned,
    Postponed,
    Pruned,
    Unknown,
)
from realize.mover.jobs import Jobs
from realize.mover.large import move_large
from realize.mover.plan import Action, decide
from realize.mover.progress import PROGRESS_INTERVAL_S
from realize.mover.pruning import Vacancies
from realize.mover.small import Candidate, batches, move_small
from realize.mover.work import SideError, Work, whole
from realize.store.interfaces import IListing
from realize.values import Attributes, Entry, Existing, Kind, Stored, Use, Vacant, Where, WhereKind

PAGES_AHEAD: Final = 4
"""Pages of the listing that are worked on at once."""

BATCHES_PER_JOB: Final = 2
"""Batches of small files under way for each of the jobs the user allows."""

MAX_BATCHES: Final = 16
"""Batches of small files under way at most; each may be `realize.values.MAX_SMALL_BYTES` bytes."""

MAX_RETRY_QUEUE_FILES: Final = 10_000
"""Files that may wait for another attempt; beyond it they fail at once, so that memory stays bounded."""

DELAYS: Final = (0.25, 1.0, 3.0)
"""Seconds before each further attempt at a file that could not be moved now."""


@frozen
class _Aside:
    """A file that waits for another attempt; ``sent`` is what this run has made of an earlier version."""

    path: bytes
    size: int
    sent: Stored | None


@define(eq=False)
class Move:
    """One source on its way into the destination."""

    work: Work
    where: Where
    avoid: bytes
    clock: IReactorTime
    _jobs: Jobs = field(init=False)
    _pages: DeferredSemaphore = field(init=False)
    _making: DeferredLock = field(factory=DeferredLock, init=False)
    _batches: DeferredSemaphore = field(init=False)
    _files: DeferredSemaphore = field(init=False)
    _one: DeferredLock = field(factory=DeferredLock, init=False)
    """For what is sent when there is hardly any room."""
    _aside: list[_Aside] = field(factory=list, init=False)
    _second_round: bool = field(default=False, init=False)
    _last_attempt: bool = field(default=False, init=False)
    _opened: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Slots for what may run at once."""
        self._jobs = Jobs(self.clock)
        self._pages = DeferredSemaphore(PAGES_AHEAD)
        self._batches = DeferredSemaphore(min(BATCHES_PER_JOB * self.work.options.jobs, MAX_BATCHES))
        self._files = DeferredSemaphore(self.work.options.jobs)
        self._opened = self.clock.seconds()

    async def run(self) -> None:
        """Move everything; raises `SideError` if one of the stores fails as a whole, and what the manifest fails with.

        Cancelled, it stops all that is under way, keeping partials, before it raises CancelledError.
        """
        looking = LoopingCall(self.work.progress.look, self.work.emit)
        looking.clock = self.clock
        if self.work.progress.watches:
            looking.start(PROGRESS_INTERVAL_S, now=False)
        try:
            await self._whole_listing()
            await self._jobs.drained()
            for attempt, delay in enumerate(DELAYS, start=1):
                if not self._aside or self.work.brake.holds():
                    break
                self._last_attempt = attempt == len(DELAYS)
                await deferLater(self.clock, delay)
                await self._again()
            await self._set_directories(ended=True)
            if self.work.options.prune_age_ns is not None and self.where.kind is WhereKind.DIRECTORY:
                await self._prune_all(self.work.options.prune_age_ns)
        except Exception:
            await self._jobs.cancelled()
            raise
        finally:
            if looking.running:
                looking.stop()

    async def _whole_listing(self) -> None:
        with whole(End.SOURCE):
            listing = self.work.source.walk(avoid=self.avoid, leave=self.work.options.selection.leaving())
        directories = self.work.directories
        if directories is not None:
            directories.begin()
        try:
            while page := await self._page(listing):
                if self.work.brake.holds():
                    break
                here = {} if directories is None else directories.listed(page)
                await self._jobs.start(self._pages, partial(self._plan, page, here, self._now_ns(listing)))
                if directories is not None and directories.full:
                    await self._jobs.drained()
                    await self._set_directories(ended=False)
            else:
                self.work.emit(Listed())
        finally:
            listing.close()

    async def _page(self, listing: IListing) -> list[Entry]:
        with whole(End.SOURCE):
            return await listing.next_page()

    async def _again(self) -> None:
        waiting, self._aside = self._aside, []
        if not self._second_round:
            self._second_round = True
            self.work.scarcity.look_again()
        for each in waiting:
            work = self.work if each.sent is None else evolve(self.work, sent=each.sent)
            await self._jobs.start(self._files, partial(self._move_large, work, each.path, each.size))
        await self._jobs.drained()

    async def _make_directories(self, candidates: Sequence[Candidate], here: Mapping[bytes, Attributes]) -> None:
        """Make what is missing for these files; before that has been done for one page, it is not begun for another."""
        if self.work.directories is None or not candidates:
            return
        await self._making.acquire()
        try:
            wanted = self.work.directories.fill((candidate.entry.path for candidate in candidates), here)
            if wanted:
                with whole(End.DESTINATION):
                    # What cannot be made shows when a file is put there.
                    await self.work.destination.make_directories(wanted)
        finally:
            self._making.release()

    async def _set_directories(self, *, ended: bool) -> None:
        """Give copies of directories what they are to have for good, now that nothing is under way.

        What is not ours, or gone by now, stays as it is.
        """
        if self.work.directories is None:
            return
        waiting = () if ended else (each.path for each in self._aside)
        selection = self.work.options.selection
        done = self.work.directories.done(waiting, ended=ended)
        meant = [each for each in done if each.mtime_ns is not None or selection.accepts_directory(each.path)]
        if meant:
            with whole(End.DESTINATION):
                await self.work.destination.set_directories(meant)
        self.work.directories.forget(done)

    async def _prune_all(self, age_ns: int) -> None:
        """Remove the directories that have long been empty, as another listing has them."""
        selection = self.work.options.selection

        def may_go(directory: Entry) -> bool:
            old = not age_ns or self._now_ns(listing) - directory.mtime_ns >= age_ns
            return old and selection.accepts_directory(directory.path)

        vacancies = Vacancies(may_go)
        with whole(End.SOURCE):
            # What nothing names is left out, and so are its files, but its empty directories are not.
            leave = () if selection.only else selection.leaving()
            listing = self.work.source.walk(partials=True, avoid=self.avoid, leave=leave)
        try:
            while not self.work.brake.holds() and (page := await self._page(listing)):
                await self._prune(vacancies.seen(page))
            if not self.work.brake.holds():
                await self._prune(vacancies.ended())
        finally:
            listing.close()

    async def _prune(self, vacant: Sequence[Vacant]) -> None:
        if self.work.options.dry_run:
            for each in vacant:
                self.work.emit(Pruned(each.path, removed=False))
        elif vacant:
            with whole(End.SOURCE):
                answers = await self.work.source.prune(vacant)
            for each, answer in zip(vacant, answers, strict=True):
                if answer is True:
                    self.work.emit(Pruned(each.path, removed=True))

    def _now_ns(self, listing: IListing) -> int:
        """The present by the source's clock; the earlier one if that clock was set, so that files look younger."""
        return min(listing.now_ns, self.where.now_ns + int((self.clock.seconds() - self._opened) * 1e9))

    async def _plan(self, page: Sequence[Entry], here: Mapping[bytes, Attributes], now_ns: int) -> None:
        """Decide about the files of a page, which was listed at ``now_ns``, and start to move them.

        They are in the directories ``here``.
        """
        files = [entry for entry in page if self._is_meant(entry, now_ns)]
        if not files:
            return
        self.work.emit(Found(len(files), sum(entry.size for entry in files)))
        with whole(End.DESTINATION):
            described = await self.work.destination.describe([entry.path for entry in files])
        decided = self._decided(files, described)
        if self.work.options.dry_run:
            await self._foretell([(entry, action) for entry, _, action in decided])
            return
        candidates: list[Candidate] = []
        for entry, existing, action in decided:
            if action is Action.SKIP:
                self.work.emit(Finished(entry.path, entry.size, 0, How.SKIPPED, b"", removed=False))
            else:
                candidates.append(Candidate(entry, existing))
        await self._make_directories(candidates, here)
        await self._start(candidates)

    async def _start(self, candidates: list[Candidate]) -> None:
        """Start to move files: in batches if they fit them, else by themselves."""
        most = 0
        while candidates:
            if (fits := self._at_once()) > most:
                # What did not fit before may do now: how fast a link is shows when something has arrived.
                most = fits
                small = [candidate for candidate in candidates if candidate.entry.size <= most]
                candidates = [candidate for candidate in candidates if candidate.entry.size > most]
                for batch in batches(small, self._at_once):
                    await self._jobs.start(self._batches, partial(self._move_small, batch))
            else:
                first = candidates.pop(0)
                moving = partial(self._move_large, self.work, first.entry.path, first.entry.size, first.existing)
                await self._jobs.start(self._files, moving)

    def _at_once(self) -> int:
        """How much content a batch should have at present, and a file that travels in one."""
        return min(self.work.source.reads_at_once(), self.work.destination.takes_at_once())

    def _decided(
        self, files: Sequence[Entry], described: Sequence[Existing | RealizeError]
    ) -> list[tuple[Entry, Existing, Action]]:
        """What is to be done with each; what stands against one is reported."""
        since_ns, policy = self.work.taken_since_ns, self.work.options.policy
        decided: list[tuple[Entry, Existing, Action]] = []
        for entry, existing in zip(files, described, strict=True):
            try:
                if isinstance(existing, RealizeError):
                    raise existing
                action = decide(entry.path, entry.size, existing, policy, taken_since_ns=since_ns, sent=None)
            except RealizeError as error:
                self.work.emit(Failed(entry.path, End.DESTINATION, error))
            else:
                decided.append((entry, existing, action))
        return decided

    async def _foretell(self, decided: Sequence[tuple[Entry, Action]]) -> None:
        """Report what would be done, and what permissions would be against, which fails as it would."""
        work = self.work
        refused: dict[bytes, tuple[End, RealizeError]] = {}
        put = [entry.path for entry, action in decided if action not in {Action.SKIP, Action.COMPARE}]
        compared = [entry.path for entry, action in decided if action is Action.COMPARE]
        read = [entry.path for entry, action in decided if action is not Action.SKIP]
        for end, store, paths, use in (
            (End.DESTINATION, work.destination, put, Use.PUT),
            (End.DESTINATION, work.destination, compared, Use.COMPARE),
            (End.SOURCE, work.source, read, Use.MOVE if work.options.remove else Use.READ),
        ):
            with whole(end):
                answers = await store.forbidden(paths, use) if paths else []
            refused |= {path: (end, error) for path, error in zip(paths, answers, strict=True) if error is not None}
        for entry, action in decided:
            if entry.path in refused:
                work.emit(Failed(entry.path, *refused[entry.path]))
            else:
                work.emit(Planned(entry.path, entry.size, action))

    def _is_meant(self, entry: Entry, now_ns: int) -> bool:
        """Whether to work on this; what is left or unreadable is reported here, unless the filters leave it out."""
        selection = self.work.options.selection
        if entry.kind is Kind.UNREADABLE:
            if selection.accepts_unreadable(entry.path):
                self.work.emit(Failed(entry.path, End.SOURCE, StorageError(entry.note)))
        elif not selection.accepts_path(entry.path):
            return False
        elif entry.kind is Kind.LEFT:
            self.work.emit(Left(entry.path, entry.note))
        elif entry.kind is Kind.FILE:
            if selection.holds_back(entry.mtime_ns, now_ns):
                self.work.emit(HeldBack(entry.path, entry.mtime_ns))
            return selection.accepts_age(entry.mtime_ns, now_ns)
        return False

    async def _move_small(self, batch: Sequence[Candidate]) -> None:
        await self._in_order(partial(self._move_batch, batch))

    async def _move_batch(self, batch: Sequence[Candidate]) -> None:
        scarcity = self.work.scarcity
        tried: list[Candidate] = []
        for candidate in batch:
            refusal = scarcity.refusal(candidate.entry.path, candidate.entry.size)
            if refusal is None:
                tried.append(candidate)
            else:
                trouble = SideError(End.DESTINATION, refusal)
                trouble.in_vain = True
                self._troubled(self.work, candidate.entry.path, candidate.entry.size, trouble)
        if not tried:
            return
        await move_small(self.work, tried, self._ended)

    def _ended(self, candidate: Candidate, outcome: Finished | Unknown | SideError) -> None:
        """What became of a file of a batch."""
        if isinstance(outcome, SideError):
            if outcome.no_room:
                outcome.in_vain = True
                self.work.scarcity.failed(candidate.entry.size)
            self._troubled(self.work, candidate.entry.path, candidate.entry.size, outcome)
        else:
            self.work.emit(outcome)

    async def _move_large(self, work: Work, path: bytes, size: int, existing: Existing | None = None) -> None:
        await self._in_order(partial(self._move_file, work, path, size, existing))

    async def _move_file(self, work: Work, path: bytes, size: int, existing: Existing | None) -> None:
        try:
            refusal = work.scarcity.refusal(path, size)
            if refusal is not None:
                trouble = SideError(End.DESTINATION, refusal)
                trouble.in_vain = True
                raise trouble
            self.work.emit(await move_large(work, path, existing))
        except SideError as trouble:
            if trouble.hopeless:
                raise
            if trouble.no_room and trouble.in_vain:
                work.scarcity.failed(size)
            self._troubled(work, path, size, trouble)

    async def _in_order(self, job: Callable[[], Coroutine[Deferred[Any], Any, None]]) -> None:
        """Do it, unless the run is to end; one at a time when there is hardly any room."""
        if self.work.brake.holds():
            return
        if not self.work.scarcity.tight:
            await job()
            return
        await self._one.acquire()
        try:
            if not self.work.brake.holds():
                await job()
        finally:
            self._one.release()

    def _troubled(self, work: Work, path: bytes, size: int, trouble: SideError) -> None:
        """Try again later, or give up.

        What this run has sent itself may be replaced by the newer version of its source: only that, as it was then.
        """
        end, error = trouble.end, trouble.error
        if end is End.SOURCE and isinstance(error, NotFound):
            self.work.emit(Finished(path, size, 0, How.GONE, b"", removed=False))
        elif trouble.no_room and (
            not trouble.in_vain or self._second_round or len(self._aside) >= MAX_RETRY_QUEUE_FILES
        ):
            self._no_room(path, size, error)
        elif (
            (error.permanent and not trouble.no_room) or self._last_attempt or len(self._aside) >= MAX_RETRY_QUEUE_FILES
        ):
            self.work.emit(Failed(path, end, error))
        else:
            self._aside.append(_Aside(path, size, trouble.sent or work.sent))
            self.work.emit(Postponed(path, end, error))

    def _no_room(self, path: bytes, size: int, error: RealizeError) -> None:
        self.work.scarcity.left(self.work.name, size)
        self.work.emit(Failed(path, End.DESTINATION, error))
