"""Move everything below one source: list it, plan, and keep many files in flight.

The listing is read a page at a time, and only as far ahead as there are free slots, so memory does not grow with the
number of files.
A file that cannot be moved now, but perhaps in a moment, waits in a retry queue (of at most `MAX_RETRY_QUEUE_FILES`)
until the end of the listing.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, DeferredLock, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater

from realize.by_value import ByValue
from realize.errors import LinkRefused, NotFound, RealizeError, StorageError
from realize.mover.allowance import Allowance, Spent
from realize.mover.directory_copies import DirectoryCopies
from realize.mover.events import (
    End,
    Failed,
    Finished,
    Found,
    HeldBack,
    How,
    Left,
    Listed,
    Postponed,
    Unknown,
)
from realize.mover.gate import Gate
from realize.mover.jobs import Jobs, Slots
from realize.mover.plan import Action, decide
from realize.mover.progress import PROGRESS_INTERVAL_S
from realize.mover.slots import FlightLimits, VaryingSlots
from realize.mover.small import Candidate, grouped, grouped_in_order, move_small
from realize.mover.work import SideError, Work, whole
from realize.store.interfaces import IListing
from realize.values import (
    Attributes,
    Entry,
    Existing,
    Kind,
    Stored,
    Where,
    WhereKind,
)

if TYPE_CHECKING:
    # Loaded only by a run that keeps more than permission bits and times.
    from realize.mover.grouped import GroupedListing

PAGES_AHEAD: Final = 16
"""Pages of the listing that are processed at once; each takes two round trips before its files can go."""

MAX_RETRY_QUEUE_FILES: Final = 10_000
"""Files that may wait for another attempt; beyond this, they fail at once, so that memory stays bounded."""

DELAYS: Final = (0.25, 1.0, 3.0)
"""Seconds before each further attempt at the files in the retry queue."""


@frozen(eq=False, repr=False)
class _Retry(ByValue):
    """A file that waits for another attempt; ``stored`` is what this run stored of an earlier version of it."""

    listed: Entry
    stored: Stored | None


class Move:
    """Moves one source into the destination.

    ``where`` is what the source says about itself; ``avoid`` is the identity of the destination's directory, which the
    listing must not enter, or empty if it does not exist yet.
    """

    def __init__(self, work: Work, where: Where, avoid: bytes, clock: IReactorTime) -> None:
        self.work = work
        self.where = where
        self.avoid = avoid
        self.clock = clock
        self._jobs = Jobs(clock)
        self._copies = DirectoryCopies(work)
        # In an order, the files of a page begin when all of those before it have begun.
        in_turn = work.options.order is not None or work.allowance is not None
        self._pages = DeferredSemaphore(1 if in_turn else PAGES_AHEAD)
        limits = FlightLimits(work.options.jobs, work.source, work.destination)
        self._batches = VaryingSlots(limits.may_begin_batch)
        self._files = VaryingSlots(limits.may_begin_file)
        self._one_at_a_time = DeferredLock()
        """Held while sending to a destination that is short of space."""
        self._retry_queue: list[_Retry] = []
        self._grouped: GroupedListing | None = None
        """Has the files that have several names."""
        self._second_round = False
        self._last_attempt = False
        self._opened = clock.seconds()

    async def run(self) -> None:
        """Move everything.

        Raises `SideError` if a store fails as a whole, and the `RealizeError` of a manifest that cannot be written.
        Cancelled, it stops everything in flight, keeping partials, and then raises CancelledError.
        """
        looking = LoopingCall(self.work.progress.look, self.work.emit)
        looking.clock = self.clock
        if self.work.progress.watches:
            looking.start(PROGRESS_INTERVAL_S, now=False)
        try:
            if self.work.hard_links and not self.work.options.dry_run:
                with whole(End.DESTINATION):
                    await self.work.destination.link_files([])
            await self._whole_listing()
            await self._jobs.drained()
            for attempt, delay in enumerate(DELAYS, start=1):
                if not self._retry_queue or self.work.stop_flag.should_stop():
                    break
                self._last_attempt = attempt == len(DELAYS)
                await deferLater(self.clock, delay)
                await self._retry_queued()
            await self._copies.finish(ended=True)
            # A directory has the only copy of what could not be kept of it.
            prune_age_ns = None if self._copies.incomplete else self.work.options.prune_age_ns
            if prune_age_ns is not None and self.where.kind is WhereKind.DIRECTORY:
                # Loaded only for those who prune.
                from realize.mover.pruning import prune

                await prune(self.work, self.avoid, prune_age_ns, self._now_ns)
        except Exception:
            await self._jobs.cancelled()
            raise
        finally:
            if looking.running:
                looking.stop()

    async def _whole_listing(self) -> None:
        with whole(End.SOURCE):
            listing = self._listing()
        directories = self.work.directories
        if directories is not None:
            directories.begin()
        try:
            while page := await self._page(listing):
                if self.work.stop_flag.should_stop():
                    break
                here = {} if directories is None else directories.listed(page)
                await self._jobs.start(self._pages, partial(self._plan, page, here, self._now_ns(listing)))
                await self._finish_directories()
            else:
                if self._grouped is not None:
                    await self._linked_files(self._grouped)
                self.work.emit(Listed())
        finally:
            listing.close()
            if self._grouped is not None:
                self._grouped.forget()

    async def _linked_files(self, listing: GroupedListing) -> None:
        """Start moving the files that have several names."""
        while True:
            with whole(End.SOURCE):
                linked = await listing.linked()
            if linked is None or self.work.stop_flag.should_stop():
                return
            now_ns = self._now_ns(listing)
            files = [[entry for entry in file if self._is_selected(entry, now_ns)] for file in linked.files]
            names = [entry for file in files for entry in file]
            if names:
                self.work.emit(Found(len(names), sum(entry.size for entry in names)))
                await self._start(self._batches, self._move_linked, files, linked.directories)
            await self._finish_directories()

    async def _move_linked(self, files: Sequence[Sequence[Entry]], here: Mapping[bytes, Attributes]) -> None:
        """Move some files that have several names each; ``here`` has the directories that these are in."""
        from realize.mover.hard_links import LinkedBatch, linked_files, planned_links

        entries = [entry for file in files for entry in file]
        with whole(End.DESTINATION):
            described = await self.work.destination.describe([entry.path for entry in entries])
        decided = self._decided(entries, described)
        if self.work.options.dry_run:
            from realize.mover.dry_run import report_dry_run

            linked_to = planned_links({entry.path: action for entry, _, action in decided}, files)
            await report_dry_run(self.work, [(entry, action) for entry, _, action in decided], linked_to)
            return
        candidates: dict[bytes, Candidate] = {}
        for entry, existing, action in decided:
            if action is Action.SKIP:
                self.work.emit(Finished(entry.path, entry.size, 0, How.SKIPPED, b"", removed=False))
            else:
                candidates[entry.path] = Candidate(entry, existing)
        await self._copies.make(list(candidates), here)
        moving = LinkedBatch(self.work, linked_files(candidates, files), self._move_contents, self._retry_or_fail)
        await moving.run()
        self._retry_queue += (_Retry(entry, None) for entry in moving.waiting())

    async def _move_contents(self, work: Work, candidates: Sequence[Candidate]) -> None:
        """Move these files, one batch or large file after the other."""
        for moving in grouped(candidates, self._batch_bytes):
            if work.stop_flag.should_stop():
                return
            if isinstance(moving, Candidate):
                await self._files.acquire(moving.entry.size)
                try:
                    await self._move_file(work, moving.entry, moving.existing)
                finally:
                    self._files.release(moving.entry.size)
            else:
                await self._move_batch(moving, work)

    def _listing(self) -> IListing:
        if self.work.feed is not None:
            return self.work.feed.listing()
        listing, order = self._ungrouped(), self.work.options.order
        if order is None or self.work.sorting is None:
            return listing
        # Without an order, nothing that sorts is loaded.
        from realize.mover.ordered import OrderedListing

        return OrderedListing(listing, order, self.work.options.selection, self.work.sorting())

    def _ungrouped(self) -> IListing:
        """A listing in path order, with the files that have several names at its end, if their links are kept."""
        listing = self._unordered()
        if not self.work.hard_links or self.work.sorting is None:
            return listing
        from realize.mover.grouped import GroupedListing

        self._grouped = GroupedListing(listing, self.work.options.selection, self.work.sorting)
        return self._grouped

    def _unordered(self) -> IListing:
        if self.work.names is not None:
            # Without names, nothing that looks them up is loaded.
            from realize.mover.named import NamedListing

            options, hard_links = self.work.options, self.work.hard_links
            return NamedListing(self.work.source, self.work.names, links=options.links, hard_links=hard_links)
        options = self.work.options
        return self.work.source.walk(
            avoid=self.avoid,
            leave=options.selection.leaving(),
            one_file_system=options.one_file_system,
            links=options.links,
            hard_links=self.work.hard_links,
        )

    async def _page(self, listing: IListing) -> list[Entry]:
        with whole(End.SOURCE):
            return await listing.next_page()

    async def _retry_queued(self) -> None:
        waiting, self._retry_queue = self._retry_queue, []
        if not self._second_round:
            self._second_round = True
            self.work.scarcity.look_again()
        linked: dict[bytes, list[Entry]] = {}
        for each in waiting:
            if each.listed.identity and each.stored is None:
                linked.setdefault(each.listed.identity, []).append(each.listed)
                continue
            work = self.work if each.stored is None else self._having_stored(each.stored)
            if each.listed.kind is Kind.LINK:
                await self._start(self._batches, self._move_links, [each.listed])
                continue
            await self._start(self._files.for_size(each.listed.size), self._move_file, work, each.listed)
        for names in linked.values():
            # The directories are there since the first attempt, or are made when the files come.
            await self._start(self._batches, self._move_linked, [names], {})
        await self._jobs.drained()

    def _having_stored(self, stored: Stored) -> Work:
        """The work for a file of which the run has stored an earlier version."""
        return evolve(self.work, history=evolve(self.work.history, stored=stored))

    async def _finish_directories(self) -> None:
        """Set the directories that are done, if many are remembered."""
        if self.work.directories is not None and self.work.directories.full:
            await self._jobs.drained()
            await self._copies.finish((each.listed.path for each in self._retry_queue), ended=False)

    def _now_ns(self, listing: IListing) -> int:
        """The time now by the source's clock; the earlier of two values if that was set, so that files look younger."""
        return min(listing.now_ns, self.where.now_ns + int((self.clock.seconds() - self._opened) * 1e9))

    async def _plan(self, page: Sequence[Entry], here: Mapping[bytes, Attributes], now_ns: int) -> None:
        """Decide what to do with the files of a page, and start moving them.

        ``here`` has the directories that they are in, and ``now_ns`` is when the page was listed.
        """
        selected = [entry for entry in page if self._is_selected(entry, now_ns)]
        links = [entry for entry in selected if entry.kind is Kind.LINK]
        if links:
            await self._plan_links(links, here)
        files = [entry for entry in selected if entry.kind is Kind.FILE]
        if not files:
            return
        self.work.emit(Found(len(files), sum(entry.size for entry in files)))
        with whole(End.DESTINATION):
            described = await self.work.destination.describe([entry.path for entry in files])
        decided = self._decided(files, described)
        if self.work.options.dry_run:
            from realize.mover.dry_run import report_dry_run

            await report_dry_run(self.work, [(entry, action) for entry, _, action in decided])
            return
        candidates: list[Candidate] = []
        for entry, existing, action in decided:
            if action is Action.SKIP:
                self.work.emit(Finished(entry.path, entry.size, 0, How.SKIPPED, b"", removed=False))
            else:
                candidates.append(Candidate(entry, existing))
        making = partial(self._copies.make, [candidate.entry.path for candidate in candidates], here)
        # Over a long link the first batches bring their directories, or are read while the destination makes these.
        directories = None if self._announced(candidates, here) else Gate(Deferred.fromCoroutine(making()))
        try:
            in_groups = grouped if self.work.options.order is None else grouped_in_order
            for moving in in_groups(candidates, self._batch_bytes):
                if isinstance(moving, Candidate):
                    if directories is None:
                        directories = Gate(Deferred.fromCoroutine(making()))
                    await directories.passed()
                    slots = self._files.for_size(moving.entry.size)
                    await self._start(slots, self._move_file, self.work, moving.entry, moving.existing)
                else:
                    slots = self._batches.for_size(sum(each.entry.size for each in moving))
                    await self._start(slots, self._move_batch, moving, self.work, directories)
            if directories is not None:
                await directories.passed()
        finally:
            if directories is not None:
                directories.abandon()

    def _announced(self, candidates: Sequence[Candidate], here: Mapping[bytes, Attributes]) -> bool:
        """Whether the directories missing for these files go along with them."""
        work = self.work
        if work.directories is None or work.keeping is not None or not work.destination.takes_directories:
            return False
        work.directories.fill((candidate.entry.path for candidate in candidates), here)
        return True

    async def _plan_links(self, links: Sequence[Entry], here: Mapping[bytes, Attributes]) -> None:
        """Start moving the symlinks of a page."""
        if not self.work.options.dry_run:
            await self._copies.make([entry.path for entry in links], here)
        # Without symlinks, nothing that moves them is loaded.
        from realize.mover.links import link_batches, plan_links

        for batch in link_batches(links):
            if self.work.options.dry_run:
                await plan_links(self.work, batch)
            else:
                await self._start(self._batches, self._move_links, batch)

    def _batch_bytes(self) -> int:
        """How many bytes of content a batch, and so a file in a batch, should have at present."""
        return min(self.work.source.reads_at_once(), self.work.destination.takes_at_once())

    def _decided(
        self, files: Sequence[Entry], described: Sequence[Existing | RealizeError]
    ) -> list[tuple[Entry, Existing, Action]]:
        """What to do with each file; files that cannot be moved are reported as failed and left out."""
        policy, history = self.work.options.policy, self.work.history
        decided: list[tuple[Entry, Existing, Action]] = []
        for entry, existing in zip(files, described, strict=True):
            try:
                if isinstance(existing, RealizeError):
                    raise existing
                action = decide(entry.path, entry.size, existing, policy, history)
            except RealizeError as error:
                self.work.emit(Failed(entry.path, End.DESTINATION, error))
            else:
                decided.append((entry, existing, action))
        return decided

    def _is_selected(self, entry: Entry, now_ns: int) -> bool:
        """Whether to move this entry; reports what is left, unreadable or held back, unless the filters exclude it."""
        selection = self.work.options.selection
        if entry.kind is Kind.UNREADABLE:
            if selection.accepts_unreadable(entry.path):
                self.work.emit(Failed(entry.path, End.SOURCE, StorageError(entry.note), found=False))
        elif not selection.accepts_path(entry.path):
            return False
        elif entry.kind is Kind.LEFT:
            self.work.emit(Left(entry.path, entry.note))
        elif entry.kind is Kind.FILE or (entry.kind is Kind.LINK and self.work.options.links):
            if not selection.accepts_size(entry.size):
                return False
            if selection.holds_back(entry.mtime_ns, now_ns):
                self.work.emit(HeldBack(entry.path, entry.mtime_ns))
            return selection.accepts_age(entry.mtime_ns, now_ns)
        return False

    async def _move_batch(self, batch: Sequence[Candidate], work: Work, directories: Gate | None = None) -> None:
        """Move the files of a batch, once ``directories`` is open, if given; ``work`` may be a variant of our own."""
        scarcity = work.scarcity
        tried: list[Candidate] = []
        for candidate in batch:
            refusal = scarcity.refusal(candidate.entry.path, candidate.entry.size)
            if refusal is None:
                tried.append(candidate)
            else:
                side_error = SideError(End.DESTINATION, refusal)
                side_error.in_vain = True
                self._retry_or_fail(work, candidate.entry, side_error)
        if not tried:
            return
        if work.allowance is None:
            await move_small(work, tried, partial(self._batch_file_ended, work), directories)
            return
        if directories is not None:
            await directories.passed()
        await self._move_as_allowed(work, work.allowance, tried)

    async def _move_as_allowed(self, work: Work, allowance: Allowance, batch: Sequence[Candidate]) -> None:
        """Move the first files of a batch, as many as may be sent; of one that is too large alone, its beginning."""
        reserved = await allowance.reserve(sum(each.entry.size for each in batch))
        fitting: list[Candidate] = []
        size = 0
        for each in batch:
            size += each.entry.size
            if size > reserved:
                break
            fitting.append(each)
        sent = 0

        def ended(candidate: Candidate, outcome: Finished | Unknown | SideError) -> None:
            nonlocal sent
            # What failed may have travelled all the same.
            sent += candidate.entry.size if isinstance(outcome, SideError) else outcome.sent
            self._batch_file_ended(work, candidate, outcome)

        try:
            if fitting:
                await move_small(work, fitting, ended)
        finally:
            allowance.settle(reserved, sent)
        if not fitting:
            await self._move_file(work, batch[0].entry, batch[0].existing)
        if len(batch) > max(1, len(fitting)):
            work.spent()

    def _batch_file_ended(self, work: Work, candidate: Candidate, outcome: Finished | Unknown | SideError) -> None:
        """Deal with the outcome of one file of a batch."""
        if isinstance(outcome, SideError):
            if outcome.no_room:
                outcome.in_vain = True
                work.scarcity.failed(candidate.entry.size)
            self._retry_or_fail(work, candidate.entry, outcome)
        else:
            work.emit(outcome)

    async def _move_links(self, batch: Sequence[Entry]) -> None:
        from realize.mover.links import move_links

        await move_links(self.work, batch, self._link_ended)

    def _link_ended(self, entry: Entry, outcome: Finished | Unknown | SideError) -> None:
        """Deal with the outcome of one symlink of a batch.

        It counts as found only now, since one that is refused is left, like what is never moved.
        """
        if isinstance(outcome, SideError) and isinstance(outcome.error, LinkRefused):
            from realize.mover.links import left_of

            self.work.emit(left_of(entry, outcome.error))
            return
        if not self._second_round:
            self.work.emit(Found(1, 0))
        if isinstance(outcome, SideError):
            self._retry_or_fail(self.work, entry, outcome)
        else:
            self.work.emit(outcome)

    async def _move_file(self, work: Work, listed: Entry, existing: Existing | None = None) -> None:
        try:
            refusal = work.scarcity.refusal(listed.path, listed.size)
            if refusal is not None:
                side_error = SideError(End.DESTINATION, refusal)
                side_error.in_vain = True
                raise side_error
            # Where all files fit batches, nothing that moves larger ones is loaded.
            from realize.mover.large import move_large

            work.emit(await move_large(work, listed, existing))
        except Spent:
            work.spent()
        except SideError as side_error:
            if side_error.fatal:
                raise
            if side_error.no_room and side_error.in_vain:
                work.scarcity.failed(listed.size)
            self._retry_or_fail(work, listed, side_error)

    async def _start(self, slots: Slots, move: Callable[..., Coroutine[Deferred[Any], Any, None]], *args: Any) -> None:
        """Wait for a slot and start to move something; returns while it is under way.

        Nothing is moved once the run is to stop, and one thing at a time if the destination is short of space.
        """

        async def job() -> None:
            if self.work.stop_flag.should_stop():
                return
            if not self.work.scarcity.tight:
                await move(*args)
                return
            await self._one_at_a_time.acquire()
            try:
                if not self.work.stop_flag.should_stop():
                    await move(*args)
            finally:
                self._one_at_a_time.release()

        await self._jobs.start(slots, job)

    def _retry_or_fail(self, work: Work, listed: Entry, side_error: SideError) -> None:
        """Queue a file for another attempt, or report it as failed (or as gone, if the source no longer has it).

        The queue remembers what this run itself has stored under that name: that file, if unchanged, may be replaced by
        the newer version of its source, and no other.
        """
        path, size = listed.path, listed.size
        end, error = side_error.end, side_error.error
        if end is End.SOURCE and isinstance(error, NotFound):
            work.emit(Finished(path, size, 0, How.GONE, b"", removed=False))
        elif side_error.no_room and (
            not side_error.in_vain
            or self.work.feed is not None
            or self._second_round
            or len(self._retry_queue) >= MAX_RETRY_QUEUE_FILES
        ):
            self._no_room(path, size, error)
        elif (
            (error.permanent and not side_error.no_room)
            or self._last_attempt
            or self.work.feed is not None
            or len(self._retry_queue) >= MAX_RETRY_QUEUE_FILES
        ):
            work.emit(Failed(path, end, error))
        else:
            self._retry_queue.append(_Retry(listed, side_error.stored or work.history.stored))
            work.emit(Postponed(path, end, error))

    def _no_room(self, path: bytes, size: int, error: RealizeError) -> None:
        self.work.scarcity.left(self.work.name, size)
        self.work.emit(Failed(path, End.DESTINATION, error))
