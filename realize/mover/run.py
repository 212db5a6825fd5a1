"""A whole run: several sources, one after the other, into one destination."""

from __future__ import annotations

import os
from collections.abc import Sequence

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime

from realize.errors import ConnectionFailed, DeadlineReached, Interrupted, NotFound, RealizeError, SameFile, UsageError
from realize.mover.brake import Brake
from realize.mover.events import End, Failed, Observer, SourceStarted
from realize.mover.interfaces import IManifest
from realize.mover.move import Move
from realize.mover.plan import overlap
from realize.mover.work import MoveOptions, Side, Trouble, Work, whole
from realize.values import OnConflict, Where, WhereKind

__all__ = ["MoveOptions", "Run", "Side"]


@define(eq=False)
class Run:
    """Moves, or copies, the files of the sources into the destination.

    Nothing is touched before every location was looked at and found fit.
    When the connection was lost, `resumed` makes the run that goes on with what is not done.
    """

    sources: Sequence[Side]
    destination: Side
    options: MoveOptions
    observer: Observer
    clock: IReactorTime
    brake: Brake = field(factory=Brake)
    manifest: IManifest | None = None
    _done: frozenset[int] = frozenset()
    _files: frozenset[int] = frozenset()
    _began_ns: int | None = None

    def resumed(self, sources: Sequence[Side], destination: Side) -> Run:
        """The same run over new connections to the same stores."""
        return evolve(self, sources=sources, destination=destination)

    def start(self) -> Deferred[None]:
        """Run to the end.

        Fires when everything was tried; what became of each file was said in events.
        Fails with the `RealizeError` that made it pointless to go on.
        Cancelled, it ends in order: what is under way is kept as durable partials, then it fails with `Interrupted`.
        When the brake was pulled, it fails with `DeadlineReached` if anything was not started because of it.
        """
        return Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        try:
            salt = os.urandom(16)
            there = await self._open(self.destination, End.DESTINATION, salt)
            if there.kind is WhereKind.FILE:
                raise UsageError(f"destination {self.destination.name}: is a file, not a directory")
            resumed, self._began_ns = self._began_ns is not None, self._began_ns or there.now_ns
            moved = resumed and self.options.remove
            places: dict[int, Where] = {}
            for number, source in enumerate(self.sources):
                if number not in self._done:
                    places[number] = await self._open(source, End.SOURCE, salt)
                    if places[number].kind is WhereKind.FILE:
                        self._files |= {number}
                    # A single file that is gone now was moved before the connection was lost.
                    elif moved and number in self._files and places[number].kind is WhereKind.ABSENT:
                        del places[number]
            for number, here in places.items():
                await self._fit(self.sources[number], here, there)
            for number, here in places.items():
                if self.brake.holds():
                    break
                await self._move(self.sources[number], here, there)
                self._done |= {number}
            if self.brake.held_back:
                raise DeadlineReached("the time limit was reached")
        except CancelledError as error:
            raise Interrupted("interrupted") from error
        except Trouble as trouble:
            raise self._named(self.destination.name, trouble) from trouble.error

    async def _open(self, side: Side, end: End, salt: bytes) -> Where:
        try:
            with whole(end):
                return await side.store.open(salt)
        except Trouble as trouble:
            raise self._named(side.name, trouble) from trouble.error

    async def _fit(self, source: Side, here: Where, there: Where) -> None:
        """Refuse what could not end well: overlapping locations, and rights that are missing at either end."""
        if here.kind is WhereKind.ABSENT:
            raise NotFound(f"source {source.name}: no such file or directory")
        if why := overlap(here, there):
            raise SameFile(f"source {source.name} and destination {self.destination.name}: {why}")
        if self.options.dry_run:
            return
        try:
            if self.options.remove:
                with whole(End.SOURCE):
                    await source.store.remove([])
        except Trouble as trouble:
            raise self._named(source.name, trouble) from trouble.error
        with whole(End.DESTINATION):
            await self.destination.store.put_small([], OnConflict.FAIL)

    async def _move(self, source: Side, here: Where, there: Where) -> None:
        self.observer(SourceStarted(source.name, self.destination.name))
        avoid = there.chain[0] if there.kind is WhereKind.DIRECTORY else b""
        work = Work(
            source.store,
            self.destination.store,
            self.options,
            self.observer,
            self._began_ns,
            self.brake,
            source.name,
            self.manifest,
        )
        try:
            await Move(work, here, avoid, self.clock).run()
        except Trouble as trouble:
            lost = isinstance(trouble.error, ConnectionFailed)
            if lost or trouble.end is End.DESTINATION or len(self.sources) == 1:
                name = source.name if trouble.end is End.SOURCE else self.destination.name
                raise self._named(name, trouble) from trouble.error
            self.observer(Failed(b"", End.SOURCE, trouble.error))

    def _named(self, name: str, trouble: Trouble) -> RealizeError:
        """The error, saying which end it happened at."""
        return type(trouble.error)(f"{trouble.end.value} {name}: {trouble.error}")
