"""One move, or copy, from its locations to its end: connections, time limit, manifest."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from itertools import repeat
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from realize.concurrency.loading_ahead import load_ahead
from realize.errors import ConnectionFailed, DeadlineReached, Interrupted, RealizeError, UsageError
from realize.locations import Location
from realize.mover.allowance import Allowance
from realize.mover.events import Event, NotCompressed, Observer, PartialGone
from realize.mover.interfaces import Feed, IManifest, Sorting
from realize.mover.run import SALT_BYTES, Run, Side
from realize.mover.stop_flag import StopFlag
from realize.mover.work import SPENT
from realize.runs.move_options import MoveOptions
from realize.runs.reconnecting import Reconnecting
from realize.runs.session import Session
from realize.runs.tally import Tally
from realize.values import USUALLY_PRESERVED

if TYPE_CHECKING:
    from realize.runs.expiry import Tidying
    from realize.runs.manifest import Manifest
    from realize.runs.wanted_names import WantedNames

LOADED_AHEAD: Final = (
    "encodings.idna",
    "pyfastcdc",
    "realize.mover.dry_run",
    "realize.mover.large",
    "realize.mover.links",
    "realize.mover.pruning",
    "realize.runs.connections",
    "realize.store.client.listing",
    "realize.store.client.store",
    "realize.store.client.streams",
    "realize.store.local.links",
    "realize.store.local.permissions",
    "realize.store.local.probe",
    "realize.store.local.reader",
    "realize.store.local.several_names",
    "realize.store.local.writer",
    "realize.wire.frames",
    "realize.wire.inbound_stream",
    "twisted.internet.endpoints",
)
"""What these need: a dry run, large files, symlinks, replacing several names of a file, the end of a run that prunes,
and a connection, which may not be made at once, with what a peer lists."""

KEEPING_AHEAD: Final = (
    "realize.mover.grouped",
    "realize.mover.hard_links",
    "realize.mover.keeping",
    "realize.runs.arranging",
    "realize.store.local.extras",
    "realize.store.local.linking",
)
"""What is needed besides by a run that carries over more than modes and times, or less."""

BEGINNING_AHEAD: Final = ("realize.runs.expiry", "realize.runs.manifest")
"""What some runs need from their beginning: for a program that may begin one later."""


async def _nothing() -> None:
    pass


class MoveRun:
    """Moves, or copies, what is at all locations but the last to the last one.

    ``observe`` gets every event; ``tally`` must have counted it when it returns, and learns the resolved locations.
    ``remove`` tells a move from a copy.
    ``when_connected`` is awaited once, before the first file.
    ``feeds`` say which files of each source are moved; without them, all are that its store lists.
    """

    def __init__(
        self,
        clock: IReactorTime,
        session: Session,
        texts: Sequence[str],
        options: MoveOptions,
        observe: Observer,
        tally: Tally,
        *,
        remove: bool,
        when_connected: Callable[[], Awaitable[None]] = _nothing,
        feeds: Sequence[Feed] = (),
    ) -> None:
        self._clock = clock
        self._session = session
        self._texts = texts
        self._options = options
        self._transfer = options.transfer(remove=remove)
        self._observer = observe
        self._tally = tally
        self._when_connected = when_connected
        self._feeds = feeds
        self._manifest: IManifest | None = None
        self._stop_flag = StopFlag()
        self._tidying: Tidying | None = None
        self._run: Run | None = None
        self._reconnecting: Reconnecting | None = None
        self._work: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        """For the end of the time, and then for that of the grace."""
        self._late = False
        self._names: WantedNames | None = None
        limit_bytes = options.max_transfer_bytes
        self._allowance = None if limit_bytes is None else Allowance(limit_bytes)
        self._connected = False

    def start(self, elapsed: float = 0.0) -> Deferred[None]:
        """Move everything; to be called once, at most ``elapsed`` seconds after the time of the run began.

        Fires when every file was tried; events have told what became of each.
        Fails with the `RealizeError` that ended the run early: `DeadlineReached` at its time limit, or
        `ConnectionFailed` if by then no connection was ever made.
        Cancelled, it ends in order: files in flight are kept as durable partials, then it fails with `Interrupted`.
        """
        return Deferred.fromCoroutine(self._whole_run(elapsed))

    def cancel(self) -> None:
        """End in order, as a cancelled `start` does; does nothing before it was called."""
        if self._work is not None:
            self._work.cancel()

    def finish_early(self) -> None:
        """End with the files that are in flight: nothing more is started, and `start` fails with `DeadlineReached`."""
        self._stop_flag.request()

    @property
    def sent_all_it_may(self) -> bool:
        """Whether it ends early since it may send nothing more."""
        return self._stop_flag.why == SPENT

    def limit_error(self) -> RealizeError:
        """The error for a run at its time limit: one that never got a connection has failed."""
        lost = None if self._reconnecting is None else self._reconnecting.lost
        cause = "" if lost is None else f"; {lost}"
        if self._connected:
            return DeadlineReached(f"{self._stop_flag.why}{cause}")
        return ConnectionFailed(f"{self._stop_flag.why}, and no connection was made{cause}")

    async def _whole_run(self, elapsed: float) -> None:
        start: Deferred[None] = Deferred()
        self._work = start.addCallback(lambda _: Deferred.fromCoroutine(self._move()))
        limit = self._options.max_duration_s
        if limit is not None and elapsed >= limit:
            self._out_of_time()
        elif limit is not None:
            self._timer = self._clock.callLater(limit - elapsed, self._out_of_time)
        start.callback(None)
        further = () if self._options.preserve == USUALLY_PRESERVED else KEEPING_AHEAD
        not_ahead = load_ahead(self._clock, (*LOADED_AHEAD, *further))
        error: RealizeError | None = None
        try:
            await self._work
        except CancelledError:
            error = Interrupted("interrupted")
        except RealizeError as problem:
            error = problem
        finally:
            not_ahead()
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
        if self._late and isinstance(error, Interrupted):
            error = self.limit_error()
        self._tally.compression_saved_bytes = self._session.compression_saved_bytes
        self._session.ended_by(error)
        if error is not None:
            raise error

    def _out_of_time(self) -> None:
        self._late = True
        self._stop_flag.request()
        # The grace is for files in flight, and between two attempts there are none.
        between = self._reconnecting is not None and self._reconnecting.pausing
        self._timer = self._clock.callLater(0.0 if between else self._options.grace_s, self.cancel)

    async def _move(self) -> None:
        """Read the names of what is to be moved, if not all is, and run until everything is moved."""
        session = self._session
        locations = session.resolve(*self._texts)
        *self._tally.sources, self._tally.destination = [each.resolved for each in locations]
        names = await self._named(locations)
        if names is None:
            await self._recorded(locations)
            return
        try:
            self._names = names
            await self._recorded(locations)
        finally:
            names.close()

    def _sorting(self) -> Sorting:
        # Without an order, nothing that sorts is loaded.
        from realize.runs.arranging import Arranging

        return Arranging(self._session.in_thread)

    async def _named(self, locations: Sequence[Location]) -> WantedNames | None:
        """The names of what is moved; None for all."""
        options = self._options
        if options.files_from is None:
            return None
        if len(locations) > 2:
            raise UsageError("--files-from is for one source, which its names are relative to")
        # Without such a list, nothing that reads it is loaded.
        from realize.runs.wanted_names import wanted_names

        return await wanted_names(options.files_from, self._session.in_thread, from0=options.from0)

    async def _recorded(self, locations: Sequence[Location]) -> None:
        """Run until everything is moved, and recorded if a manifest was asked for."""
        session = self._session
        async with self._recording(locations) as manifest:
            self._manifest = manifest
            self._tidying = None if self._options.dry_run else session.tidying(locations[-1], self._observer)
            session.on_freed = lambda path, size: self._observer(PartialGone(path, size, expired=False))
            await self._until_done_tidily(locations)
            if manifest is not None:
                await manifest.finish()

    def _recording(self, locations: Sequence[Location]) -> AbstractAsyncContextManager[Manifest | None]:
        if self._options.manifest is None:
            return nullcontext()
        # Without a manifest, nothing that writes it is loaded.
        from realize.runs.manifest import recording

        return recording(self._options.manifest, self._session, locations)

    async def _until_done_tidily(self, locations: Sequence[Location]) -> None:
        """Run until everything is moved, while old partials at a local destination are removed."""
        tidying = self._tidying
        if tidying is None:
            await self._until_done(locations)
            return
        tidying.start()
        try:
            await self._until_done(locations)
            if not self._stop_flag.requested:
                await tidying.finish()
        finally:
            tidying.stop()

    async def _until_done(self, locations: Sequence[Location]) -> None:
        self._reconnecting = Reconnecting(
            self._clock, self._session, locations, self._observer, lambda: self._tally.steps, self._given_up
        )
        if self._options.retry:
            await self._reconnecting.run(lambda: self._attempt(locations))
        else:
            await self._attempt(locations)

    def _given_up(self) -> RealizeError | None:
        return self.limit_error() if self._stop_flag.requested else None

    async def _attempt(self, locations: Sequence[Location]) -> None:
        """Connect, and move what is not moved yet."""
        salt = os.urandom(SALT_BYTES)
        sources, destination = await self._sides(locations, salt)
        self._connected = True
        if self._reconnecting is not None:
            self._reconnecting.lost = None
        if self._run is None:
            await self._when_connected()
            for peer in self._session.uncompressed:
                self._observer(NotCompressed(peer))
            self._run = Run(
                sources,
                destination,
                self._transfer,
                self._observe,
                self._clock,
                self._stop_flag,
                self._manifest,
                self._names,
                self._allowance,
                self._sorting,
                salt,
            )
        else:
            self._run = self._run.resumed(sources, destination)
        await self._run.start()

    def _observe(self, event: Event) -> None:
        self._observer(event)
        if self._tidying is not None:
            self._tidying(event)

    async def _sides(self, locations: Sequence[Location], salt: bytes) -> tuple[list[Side], Side]:
        """The sources, and the destination, which is a store of its own for each that may not learn what it holds.

        The run opens them first with that ``salt``.
        """
        session = self._session
        *sources, destination = locations
        stores = [await session.store(each, salt=salt) for each in sources]
        origins = [None if self._options.trust_source else session.origin(each, destination) for each in sources]
        backup = b"" if self._options.backup_dir is None else os.fsencode(self._options.backup_dir)
        into = {origin: await session.store(destination, origin, backup, salt) for origin in dict.fromkeys(origins)}
        feeds = self._feeds or repeat(None, len(sources))
        sides = [
            Side(*each) for each in zip(stores, map(str, sources), map(into.__getitem__, origins), feeds, strict=True)
        ]
        return sides, Side(into[origins[0]], str(destination))
