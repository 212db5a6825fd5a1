"""A whole run: the sources, one after the other unless one hangs, into one destination."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING, Final

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from realize.errors import (
    ConnectionFailed,
    DeadlineReached,
    Interrupted,
    NotFound,
    RealizeError,
    SameFile,
    StorageError,
    Unavailable,
    UsageError,
    next_step,
)
from realize.mover.allowance import Allowance
from realize.mover.directories import Directories
from realize.mover.events import (
    End,
    Event,
    Failed,
    Finished,
    Found,
    How,
    Listed,
    NoHardLinks,
    NoRoom,
    Observer,
    OlderDestination,
    Planned,
    SourceStarted,
)
from realize.mover.history import RunHistory
from realize.mover.interfaces import Arrived, IManifest, Names, Sorting
from realize.mover.jobs import Jobs
from realize.mover.move import Move
from realize.mover.plan import Action, overlap
from realize.mover.progress import Progress
from realize.mover.scarcity import Scarcity
from realize.mover.stop_flag import StopFlag
from realize.mover.turns import SourceTurns
from realize.mover.work import Side, SideError, TransferOptions, Work, whole
from realize.store.interfaces import IStore
from realize.values import USUALLY_PRESERVED, OnConflict, Preserve, Where, WhereKind

if TYPE_CHECKING:
    from realize.mover.keeping import Keeping

__all__ = ["Run", "Side", "TransferOptions"]

SOURCE_IDLE_S: Final = 5.0
"""A source that emits no event, or gives no first answer, for this long counts as hanging."""

SALT_BYTES: Final = 16

MISSING: Final = (NotFound, StorageError)
"""The errors of a source that does not exist or cannot be read."""


@define(eq=False, repr=False)
class Run:
    """Moves, or copies, the files of the sources into the destination.

    Nothing is changed before every location was checked.
    One missing source among several does not keep the others from being moved; one that a daemon serves and that is
    away is left for later.
    Nor does one that hangs, at that check or later: the next one is moved beside it.
    After a lost connection, `resumed` makes the run that does the rest.
    """

    sources: Sequence[Side]
    destination: Side
    options: TransferOptions
    observer: Observer
    clock: IReactorTime
    stop_flag: StopFlag = field(factory=StopFlag)
    manifest: IManifest | None = None
    names: Names | None = None
    """What is moved of each source, if not all that it has."""
    allowance: Allowance | None = None
    """What may be sent in all; None: everything."""
    sorting: Callable[[], Sorting] | None = None
    """Makes what sorts a listing; needed for the option ``order``."""
    salt: bytes = field(factory=lambda: os.urandom(SALT_BYTES))
    """With what the stores are opened; where they are is not to be recognised on another connection."""
    _scarcity: Scarcity = field(factory=Scarcity)
    _done: frozenset[int] = frozenset()
    _away: Unavailable | None = None
    """Why a source is left for `resumed`, after all others."""
    _listed: set[int] = field(factory=set)
    _files: frozenset[int] = frozenset()
    _began: float | None = None
    _run_started_ns: int | None = None
    _directories: dict[int, Directories] = field(factory=dict)
    _unsure: dict[int, list[Finished]] = field(factory=dict)
    _gave_way: bool = False
    """Whether files are skipped that should be kept beside others, and nobody was told yet."""
    _keeping: Keeping | None = None
    """Made with the first source that was found."""
    _no_hard_links_told: bool = False
    _progresses: dict[IStore, Progress] = field(factory=dict)

    def resumed(self, sources: Sequence[Side], destination: Side) -> Run:
        """The rest of this run, over new connections to the same stores."""
        return evolve(
            self,
            sources=sources,
            destination=destination,
            salt=os.urandom(SALT_BYTES),
            listed=set(self._done),
            progresses={},
            away=None,
        )

    def start(self) -> Deferred[None]:
        """Run to the end; to be called once.

        Fires when every file was tried; events have told what became of each.
        Fails with the `RealizeError` that made it pointless to go on, and with `DeadlineReached` if the stop flag kept
        anything from being started.
        Cancelled, it ends in order: files under way are kept as durable partials, then it fails with `Interrupted`.
        """
        return Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        jobs = Jobs(self.clock)
        opening: dict[int, Deferred[Where | None]] = {}
        try:
            salt, now = self.salt, self.clock.seconds()
            resumed, self._began = self._began is not None, now if self._began is None else self._began
            age_ns = int((now - self._began) * 1e9)
            there = await self._open(self.destination, End.DESTINATION, salt, age_ns)
            for into in dict.fromkeys(each.into for each in self.sources):
                if into is not None and into is not self.destination.store:
                    await self._open(evolve(self.destination, store=into), End.DESTINATION, salt, age_ns)
            self._settle_policy()
            if there.kind is WhereKind.FILE:
                raise UsageError(f"destination {self.destination.name}: is a file, not a directory")
            began_ns = there.now_ns - age_ns
            # The earlier of the two, in case the clock there was set since.
            self._run_started_ns = min(began_ns, began_ns if self._run_started_ns is None else self._run_started_ns)
            for number in range(len(self.sources)):
                if number not in self._done:
                    opening[number] = Deferred.fromCoroutine(self._find(number, salt, moved_before=resumed))
            locations: dict[int, Where | RealizeError | None] = {}
            for number, answer in (await self._answered(opening)).items():
                try:
                    locations[number] = await self._checked(number, answer, there)
                except (*MISSING, Unavailable) as error:
                    if len(self.sources) == 1:
                        raise
                    locations[number] = error
            turns = SourceTurns(self.clock, SOURCE_IDLE_S)
            # The hanging ones come last, so that no source that could be moved waits for them.
            for number in sorted(opening, key=lambda number: number not in locations):
                if self.stop_flag.should_stop():
                    break
                await jobs.start(
                    turns, partial(self._move_when_found, number, locations, opening[number], there, turns)
                )
            await jobs.drained()
            await self._report_no_space()
            if self.stop_flag.took_effect:
                raise DeadlineReached(self.stop_flag.why)
            if self._away is not None:
                raise self._away
        except CancelledError as error:
            raise Interrupted("interrupted") from error
        except SideError as side_error:
            raise self._named(self.destination.name, side_error) from side_error.error
        finally:
            for found in opening.values():
                found.addErrback(lambda _: None)
                found.cancel()
            await jobs.cancelled()

    def _settle_policy(self) -> None:
        """Give way if the destination cannot keep both of two files; raises `UsageError` if just that was asked for."""
        if self.options.policy is not OnConflict.RENAME or self.destination.store.keeps_both():
            return
        if self.options.policy_asked:
            raise UsageError(
                f"destination {self.destination.name}: has an older version that cannot keep both files; "
                "upgrade it, or ask for replace, skip or fail"
            )
        self.options = evolve(self.options, policy=OnConflict.SKIP)
        self._gave_way = True

    async def _find(self, number: int, salt: bytes, *, moved_before: bool) -> Where | None:
        """Open a source and return what it is; None for a single file that was moved before the connection was lost."""
        here = await self._open(self.sources[number], End.SOURCE, salt)
        if here.kind is WhereKind.FILE:
            self._files |= {number}
        elif here.kind is WhereKind.ABSENT and moved_before and self.options.remove and number in self._files:
            self._removed_after_all(number, [True] * len(self._unsure.setdefault(number, [])))
            return None
        return here

    async def _answered(self, opening: Mapping[int, Deferred[Where | None]]) -> dict[int, Where | Failure | None]:
        """Wait at most `SOURCE_IDLE_S` for every source to say what it is; returns the answers so far, by number.

        The answers are collected in a callback instead of awaited one by one: the run goes on from within the callback
        of the last one, and cannot await a Deferred whose callbacks are still running.
        """
        all_answered: Deferred[None] = Deferred()
        timer = self.clock.callLater(SOURCE_IDLE_S, all_answered.callback, None)
        answers: dict[int, Where | Failure | None] = {}

        def noted(result: Where | Failure | None, number: int) -> Where | Failure | None:
            answers[number] = result
            if len(answers) == len(opening) and timer.active():
                all_answered.callback(None)
            return result

        for number, found in opening.items():
            found.addBoth(noted, number)
        if opening:
            try:
                await all_answered
            finally:
                if timer.active():
                    timer.cancel()
        else:
            timer.cancel()
        return dict(sorted(answers.items()))

    async def _move_when_found(
        self,
        number: int,
        locations: Mapping[int, Where | RealizeError | None],
        found: Deferred[Where | None],
        there: Where,
        turns: SourceTurns,
    ) -> None:
        """Move one source; if it did not say in time what it is, wait for that and check it first."""
        here: Where | RealizeError | None
        if number in locations:
            here = locations[number]
        else:
            try:
                here = await self._checked(number, await found, there)
            except Unavailable as error:
                here = error
            except ConnectionFailed:
                raise
            except RealizeError as error:
                here = error
        if isinstance(here, Unavailable):
            self._away = here
            return
        if isinstance(here, RealizeError):
            self.observer(SourceStarted(self.sources[number].name, self.destination.name))
            self.observer(Failed(b"", End.SOURCE, here, found=False))
        elif here is not None:
            await self._move(number, here, there, turns)
        self._done |= {number}
        self._note_listed(number)

    def _note_listed(self, number: int) -> None:
        """Note that nothing more will be found in a source; emits `Listed` when that holds for all of them."""
        before = len(self._listed)
        self._listed.add(number)
        if before < len(self._listed) == len(self.sources):
            self.observer(Listed())

    async def _checked(self, number: int, answer: Where | Failure | None, there: Where) -> Where | None:
        """Check what a source has said about itself and return it; None if the source is done already.

        Raises the error that it answered with, and what `_check_location` raises.
        """
        if isinstance(answer, Failure):
            answer.raiseException()
        if answer is not None:
            await self._check_location(self.sources[number], answer, there)
        return answer

    async def _open(self, side: Side, end: End, salt: bytes, run_age_ns: int = 0) -> Where:
        try:
            with whole(end):
                return await side.store.open(salt, run_age_ns)
        except SideError as side_error:
            raise self._named(side.name, side_error) from side_error.error

    async def _check_location(self, source: Side, here: Where, there: Where) -> None:
        """Raise if this source cannot be moved: it is missing, the locations overlap, or either side denies access."""
        if here.kind is WhereKind.ABSENT:
            raise NotFound(f"source {source.name}: no such file or directory")
        if why := overlap(here, there):
            raise SameFile(f"source {source.name} and destination {self.destination.name}: {why}")
        if self.options.links:
            for end, side in (("source", source), ("destination", self.destination)):
                if not side.store.links:
                    raise UsageError(
                        f"{end} {side.name}: the peer cannot move symlinks, it runs an older release; "
                        "upgrade it, or leave out --links (links in a standing move)"
                    )
        self._check_keeping(source)
        try:
            if self.options.remove:
                with whole(End.SOURCE):
                    await source.store.remove([])
        except SideError as side_error:
            raise self._named(source.name, side_error) from side_error.error
        with whole(End.DESTINATION):
            await self.destination.store.put_small([], OnConflict.FAIL)

    def _check_keeping(self, source: Side) -> None:
        """Raise `UsageError` if one of the ends cannot keep what is carried over, unless the user can do without."""
        if self._keeping is None and self.options.preserve != USUALLY_PRESERVED:
            # Otherwise, nothing of it is loaded.
            from realize.mover.keeping import keeping_of

            self._keeping = keeping_of(self.options, self.observer)
        if self._keeping is not None:
            ends = (
                (End.SOURCE, source, source.store.tells),
                (End.DESTINATION, self.destination, self.destination.store.accepts),
            )
            self._keeping.check(ends)

    async def _move(self, number: int, here: Where, there: Where, turns: SourceTurns) -> None:
        source = self.sources[number]

        def observer(event: Event) -> None:
            turns.alive()
            if source.feed is not None:
                source.feed(event)
            if isinstance(event, Listed):
                self._note_listed(number)
            else:
                if self._gave_way and _is_skip(event):
                    self._gave_way = False
                    self.observer(OlderDestination())
                self.observer(event)

        self.observer(SourceStarted(source.name, self.destination.name))
        avoid = there.identities[0] if there.kind is WhereKind.DIRECTORY else b""
        into = self.destination.store if source.into is None else source.into
        work = Work(
            source.store,
            into,
            self.options,
            observer,
            RunHistory(there.now_ns if self._run_started_ns is None else self._run_started_ns),
            self.stop_flag,
            source.name,
            self.manifest,
            scarcity=self._scarcity,
            directories=self._carried_over(number, here, there),
            unsure=self._unsure.setdefault(number, []),
            progress=self._progress(source.store, into),
            feed=source.feed,
            names=self.names,
            sorting=self.sorting,
            allowance=self.allowance,
            keeping=self._keeping,
        )
        work = self._with_hard_links(work)
        self._scarcity.begin(source.name)
        try:
            if work.unsure:
                with whole(End.SOURCE):
                    found = await source.store.describe([each.path for each in work.unsure])
                # A symlink that is still there is an obstacle.
                self._removed_after_all(
                    number,
                    [
                        not isinstance(each, RealizeError) and each.final_size is None and not each.obstacle
                        for each in found
                    ],
                )
            await Move(work, here, avoid, self.clock).run()
        except SideError as side_error:
            lost = isinstance(side_error.error, ConnectionFailed)
            if lost or side_error.end is End.DESTINATION or len(self.sources) == 1:
                name = source.name if side_error.end is End.SOURCE else self.destination.name
                raise self._named(name, side_error) from side_error.error
            self.observer(Failed(b"", End.SOURCE, side_error.error, found=False))

    def _with_hard_links(self, work: Work) -> Work:
        """The same, keeping hard links if that is asked for and both ends know how; else that is told once."""
        if Preserve.HARDLINKS not in self.options.preserve or work.feed is not None:
            return work
        for end, store in ((End.SOURCE, work.source), (End.DESTINATION, work.destination)):
            if not store.hard_links:
                if not self._no_hard_links_told:
                    self._no_hard_links_told = True
                    self.observer(NoHardLinks(end))
                return work
        return evolve(work, hard_links=True)

    def _removed_after_all(self, number: int, gone: Sequence[bool]) -> None:
        """Report the files whose removal went unanswered and that turn out to be gone; the listing has the others."""
        unsure = self._unsure[number]
        for finished in compress(unsure, gone):
            self.observer(Found(1, finished.size))
            if self.manifest is not None:
                self.manifest.removed(self.sources[number].name, [Arrived.of(finished)])
            self.observer(finished)
        unsure.clear()

    async def _report_no_space(self) -> None:
        files, size = self._scarcity.files, self._scarcity.size
        if files:
            missing: int | None = None
            with contextlib.suppress(RealizeError):
                missing = max(0, size - (await self.destination.store.space()).free)
            self.observer(NoRoom(files, size, missing))

    def _carried_over(self, number: int, here: Where, there: Where) -> Directories | None:
        """The directories of a source, to copy permissions and times from; None if these are not to be copied.

        After a lost connection they are those known from before, since moving files has changed their times.
        """
        if not self.options.preserve or self.options.dry_run or here.kind is not WhereKind.DIRECTORY:
            return None
        known = self._directories.setdefault(number, Directories())
        if there.kind is WhereKind.ABSENT:
            known.location_mode = here.mode
        return known

    def _progress(self, source: IStore, destination: IStore) -> Progress:
        """The `Progress` shared by all sources whose content goes over the same connection."""
        travels, end = destination, End.DESTINATION
        if destination.in_transit() is None:
            travels, end = source, End.SOURCE
        return self._progresses.setdefault(travels, Progress(travels.in_transit, end))

    def _named(self, name: str, side_error: SideError) -> RealizeError:
        """The error with the side and the location it happened at, and what to do next, in its text."""
        error = side_error.cause
        return type(error)(f"{side_error.end.value} {name}: {error}{next_step(error, name)}")


def _is_skip(event: Event) -> bool:
    """Whether a file was, or would be, skipped."""
    return (isinstance(event, Finished) and event.how is How.SKIPPED) or (
        isinstance(event, Planned) and event.action is Action.SKIP
    )
