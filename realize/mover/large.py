"""Move one file, of any size, by itself: compare, resume, send, commit, remove."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final, TypeVar

from attrs import define, evolve
from twisted.internet.defer import CancelledError, Deferred

from realize.errors import Conflict, RealizeError, SourceChanged, Unanswered, VerifyFailed, WrongSize
from realize.mover.allowance import Spent
from realize.mover.delta import Delta, shares, worthwhile
from realize.mover.events import End, Finished, How, Progressed, Started, Stopped
from realize.mover.interfaces import Arrived
from realize.mover.plan import Action, decide, resolve
from realize.mover.removal import how_arrived, refuse_same_file, remove_arrived
from realize.mover.work import SideError, Work, at, just_arrived, whole
from realize.numbered import numbered
from realize.store.interfaces import IReader, IWriter
from realize.values import (
    BLOCK_BYTES,
    Attributes,
    Committed,
    Entry,
    Existing,
    Hole,
    OnConflict,
    Piece,
    Preserve,
    Removal,
    Siblings,
    Sized,
    Stored,
)

_T = TypeVar("_T")

MAX_CONCESSIONS: Final = 4
"""How often a file is tried again at most, without a delta, or without insisting on what cannot be kept."""

COMPARE_STEP_BYTES: Final = 64 * BLOCK_BYTES
"""Content that is compared per round trip."""


async def move_large(work: Work, listed: Entry, existing: Existing | None = None) -> Finished:
    """Move one file and return how it ended; raises `SideError`.

    ``listed`` is what the file was when it was listed; it may have changed since.
    ``existing`` is what the destination said about the name, perhaps a while ago, if `decide` has not refused that.
    If it had a file then, it is asked again: otherwise the whole content might be sent before it turns out that this
    file was replaced by another one meanwhile.  The same holds for an obstacle, beside which the file may be already.
    """
    free = existing is not None and existing.final_size is None and not existing.obstacle
    known = existing if free else None
    deltas = True
    for _ in range(MAX_CONCESSIONS):
        try:
            return await _move(work, listed, known, deltas=deltas)
        except _OldVersionChanged:
            # Somebody is writing to the file that is to be replaced, and may go on doing so: send without a delta.
            known, deltas = None, False
        except SideError as side_error:
            if work.keeping is None or not work.keeping.gives_way(listed.path, side_error.error):
                raise
            known = None
    return await _move(work, listed, None, deltas=False)


async def _attributes(work: Work, path: bytes, reader: IReader) -> Attributes | None:
    """What is carried over of the file that is being read."""
    if not work.options.preserve:
        return None
    keeping = work.keeping
    if keeping is None:
        return reader.attributes
    if not keeping.wanted:
        return keeping.of(reader.attributes)
    [extras] = await keeping.of_versions(work.source, [path], [reader.version])
    if isinstance(extras, RealizeError):
        raise SideError(End.SOURCE, extras)
    return keeping.of(reader.attributes, extras)


async def _foresee(work: Work, path: bytes, attributes: Attributes | None) -> None:
    """Raise `SideError` if it shows that something could not be kept, before all of the content was sent in vain."""
    if attributes is None or attributes.extras is None or not attributes.extras.kinds:
        return
    with whole(End.DESTINATION):
        [error] = await work.destination.foresee([path], [attributes.extras])
    if error is not None:
        raise SideError(End.DESTINATION, error)


class _OldVersionChanged(SideError):
    """The digest of the result is wrong after parts were copied from the old version, which must have changed."""


def _beginning(pieces: Sequence[Piece], most: int, *, takes_holes: bool) -> list[Piece]:
    """The first pieces, of which at most ``most`` bytes have to be sent: none of holes, if the writer takes them."""
    allowed: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, Hole) and takes_holes:
            allowed.append(piece)
        elif len(piece) <= most:
            allowed.append(piece)
            most -= len(piece)
        else:
            if most:
                allowed.append(bytes(min(most, BLOCK_BYTES)) if isinstance(piece, Hole) else piece[:most])
            break
    return allowed


async def _open(work: Work, listed: Entry) -> IReader:
    with at(End.SOURCE):
        reader = await work.source.open_reader(listed.path, removing=work.options.remove)
        changed = work.changed_since(listed, reader.version)
        if changed is not None:
            reader.close()
            raise changed
    return reader


async def _move(work: Work, listed: Entry, known: Existing | None, *, deltas: bool) -> Finished:
    path = listed.path
    target, number = path, 0
    reader = await _open(work, listed)
    try:
        policy, history = work.options.policy, work.history
        if known is None:
            existing = await _describe(work, path)
            with at(End.DESTINATION):
                action = decide(path, reader.version.size, existing, policy, history)
        else:
            # That was decided when it was described: there is no final file, so it is sent, after a partial if any.
            existing, action = known, Action.SEND
        if action is Action.COMPARE:
            if await _identical(work, path, path, reader):
                return await _there(work, path, reader, existing)
            with at(End.DESTINATION):
                action = resolve(path, existing, policy, history)
            reader.close()
            reader = await _open(work, listed)
        if action is Action.SKIP:
            return Finished(path, reader.version.size, 0, How.SKIPPED, b"", removed=False)
        if action is Action.REPLACE and policy is OnConflict.RENAME and not work.destination.replaces:
            # What this run has stored of an earlier version of the file stays, too.
            action = Action.RENAME
        elif action is Action.RENAME and history.number and work.destination.replaces:
            # This run has stored an earlier version of the same file beside the other one: that one is replaced.
            beside = numbered(path, history.number)
            earlier = await _describe(work, beside)
            if history.has_stored(earlier):
                target, existing, action = beside, earlier, Action.REPLACE
        if action is Action.RENAME:
            siblings = await _siblings(work, path, reader.version.size)
            number = siblings.free
            for each in siblings.alike:
                beside = numbered(path, each)
                if await _identical(work, path, beside, reader):
                    return await _there(work, path, reader, await _describe(work, beside), beside)
                reader.close()
                reader = await _open(work, listed)
        sending = _Sending(work, path, reader, existing, deltas, work.policy(existing, action), target, number)
        stored = await sending.run()
        if stored.how is Committed.REPLACED:
            history.other_names.note(existing)
        if target != path and stored.how is Committed.REPLACED:
            stored = evolve(stored, how=Committed.RENAMED, number=history.number)
        if stored.how is Committed.SKIPPED:
            return Finished(path, reader.version.size, sending.sent, How.SKIPPED, sending.digest, removed=False)
        return await _remove(work, path, reader, stored, sent=sending.sent, digest=sending.digest, holes=sending.holes)
    finally:
        reader.close()


async def _there(work: Work, path: bytes, reader: IReader, existing: Existing, stored_as: bytes = b"") -> Finished:
    """Finish a file whose content the destination has already, as ``existing``, perhaps under another name."""
    await refuse_same_file(work, path, existing)
    work.history.other_names.note(existing)
    digest = await _finish(reader)
    return await _remove(work, path, reader, None, sent=0, digest=digest, stored_as=stored_as)


async def _describe(work: Work, path: bytes) -> Existing:
    with whole(End.DESTINATION):
        [existing] = await work.destination.describe([path])
    if isinstance(existing, RealizeError):
        raise SideError(End.DESTINATION, existing)
    return existing


async def _siblings(work: Work, path: bytes, size: int) -> Siblings:
    with whole(End.DESTINATION):
        [siblings] = await work.destination.siblings([Sized(path, size)])
    if isinstance(siblings, RealizeError):
        raise SideError(End.DESTINATION, siblings)
    return siblings


async def _identical(work: Work, path: bytes, target: bytes, reader: IReader) -> bool:
    """Whether the final ``target`` has the content of the source; if so it also has its attributes now.

    If so, the reader has been read to its end.
    """
    size, offset = reader.version.size, 0
    attributes = await _attributes(work, path, reader)
    while True:
        length = min(COMPARE_STEP_BYTES, size - offset)
        with at(End.SOURCE):
            digests = await reader.block_digests(length)
        with at(End.DESTINATION):
            matched = await work.destination.match_final(target, size, offset, digests, attributes)
        if matched < length:
            return False
        with at(End.SOURCE):
            await reader.skip(length)
        offset += length
        if offset == size:
            return True


async def _finish(reader: IReader) -> bytes:
    with at(End.SOURCE):
        return await reader.finish()


async def _remove(
    work: Work,
    path: bytes,
    reader: IReader,
    stored: Stored | None,
    *,
    sent: int,
    digest: bytes,
    stored_as: bytes = b"",
    holes: int = 0,
) -> Finished:
    """Record a file as arrived, and remove it at the source if asked to; ``stored`` is None if it was there already.

    ``stored_as`` is the other name under which it was.
    Raises `SideError`, with ``stored`` in it, if the source refuses to remove the file.
    """
    how = how_arrived(stored)
    if stored is not None and stored.number:
        stored_as = numbered(path, stored.number)
    size, backup = reader.version.size, b"" if stored is None else stored.asked_backup
    recorded = [Arrived(path, size, digest, how, stored_as, backup=backup)]
    there = Finished(path, size, sent, how, digest, removed=False, stored_as=stored_as, holes=holes, backup=backup)
    try:
        [refused] = await remove_arrived(work, recorded, [Removal(path, reader.version)])
    except Exception as error:
        unanswered = isinstance(error, SideError) and isinstance(error.error, Unanswered)
        work.emit(work.removal_unknown(there) if unanswered else there)
        raise
    if refused is not None:
        raise SideError(End.SOURCE, refused, stored=stored)
    return evolve(there, removed=work.options.remove)


@define(eq=False, repr=False)
class _Sending:
    """Sends the content of one file into a writer.

    ``policy`` and ``number`` decide about what has the name ``target`` at the destination by then.
    Counts in bytes: ``have`` was in the partial and matched, ``found`` was copied from the old version, ``sent``
    travelled, ``holes`` was left out.
    """

    work: Work
    path: bytes
    reader: IReader
    existing: Existing
    deltas: bool
    policy: OnConflict
    target: bytes
    number: int = 0
    sent: int = 0
    have: int = 0
    found: int = 0
    holes: int = 0
    digest: bytes = b""
    granted: int = 0
    """How many bytes may be sent."""
    committing: bool = False
    """Whether the commit was asked for: that closes the writer, whatever the outcome."""

    async def run(self) -> Stored:
        """Send what is missing and commit; on an error, leave a durable partial unless it would be useless."""
        allowance, self.granted = self.work.allowance, self.reader.version.size
        if allowance is None:
            return await self._run()
        wanted = max(1, self.reader.version.size - (self.existing.partial_size or 0))
        self.granted = await allowance.reserve(wanted)
        try:
            if not self.granted:
                raise Spent
            return await self._run()
        finally:
            allowance.settle(self.granted, self.sent)

    async def _run(self) -> Stored:
        version = self.reader.version
        attributes = await _attributes(self.work, self.path, self.reader)
        await _foresee(self.work, self.path, attributes)
        with at(End.DESTINATION):
            preserve = attributes is not None and not attributes.leaves(Preserve.MODE)
            opening = self.work.destination.open_writer(
                self.target,
                version.size,
                self.policy,
                preserve=preserve,
                replaces=self.existing.seen if self.policy is OnConflict.REPLACE else None,
                number=self.number,
                allocated=self.reader.allocated,
            )
            writer = await self._unless_taken(opening)
        try:
            self.work.progress.begun(self.path)
            await self._resume(writer)
            self.work.emit(Started(self.path, version.size, self.have))
            left = version.size - self.have
            if self.work.allowance is not None and self.granted < left:
                self.granted += self.work.allowance.take(left - self.granted)
            if self.granted < left:
                self.reader.at_most(self.granted)
            deltas = self.deltas and self.granted >= left
            if deltas and worthwhile(self.reader, writer, self.existing.final_size or 0, left):
                await Delta(self.reader, writer, left, self._moved).run()
            await self._send(writer)
            self.digest = await _finish(self.reader)
            with at(End.DESTINATION):
                self.committing = True
                stored = await self._unless_taken(writer.commit(self.digest, attributes))
            self.work.progress.arrived(self.path, self.sent, self.work.emit)
        except Exception as error:
            self.work.progress.look(self.work.emit)
            if isinstance(error, SideError) and isinstance(error.error, Unanswered):
                [unknown] = self.work.unknown([Arrived(self.path, version.size, self.digest, None)])
                self.work.emit(evolve(unknown, sent=self.sent))
                raise
            useless = isinstance(error, SideError) and isinstance(error.error, (SourceChanged, WrongSize))
            reached: int | None = None
            reported = self.work.progress.reported(self.path)
            try:
                if isinstance(error, CancelledError):
                    await self._write_the_last(writer)
                reached = await self._abandon(writer, keep=not useless)
            finally:
                # What was still on its way when we looked has travelled, too, if it is kept.
                more = min(self.sent, (reached or 0) - self.have - self.found - self.holes) - reported
                if more > 0:
                    self.work.emit(Progressed(self.path, more))
                self.work.emit(Stopped(self.path, version.size, reached))
            if self.found and isinstance(error, SideError) and isinstance(error.error, VerifyFailed):
                raise _OldVersionChanged(error.end, error.error) from error
            if isinstance(error, SideError):
                error.in_vain = True
            raise
        return stored

    async def _resume(self, writer: IWriter) -> None:
        """Skip the beginning that the partial has, as far as the digests of both sides match."""
        while self.have < writer.have:
            length = min(COMPARE_STEP_BYTES, writer.have - self.have)
            with at(End.SOURCE):
                digests = await self.reader.block_digests(length)
            with at(End.DESTINATION):
                matched = await writer.match(digests, length)
            with at(End.SOURCE):
                await self.reader.skip(matched)
            self.have += matched
            if matched < length:
                return

    def _moved(self, sent: int, holes: int, found: int = 0) -> None:
        self.sent += sent
        self.holes += holes
        self.found += found
        self.work.progress.written(self.path, self.sent, self.work.emit)
        if spared := holes + found:
            self.work.emit(Progressed(self.path, spared, spared))

    async def _send(self, writer: IWriter) -> None:
        while await self._send_some(writer):
            pass

    async def _send_some(self, writer: IWriter) -> bool:
        """Send the next pieces, which nothing keeps while others are read; return whether there were any."""
        with at(End.SOURCE):
            pieces = await self.reader.read()
        if not pieces:
            return False
        allowed = pieces
        if self.work.allowance is not None:
            allowed = _beginning(pieces, self.granted - self.sent, takes_holes=writer.takes_holes)
        if allowed:
            with at(End.DESTINATION):
                await writer.write(allowed)
            self._moved(*shares(writer, allowed))
        if len(allowed) < len(pieces) or len(allowed[-1]) < len(pieces[-1]):
            raise Spent
        return True

    async def _write_the_last(self, writer: IWriter) -> None:
        """Write what has arrived on this machine; cancelled again, it goes no further."""
        if not writer.near:
            return
        self.reader.stop()
        with contextlib.suppress(CancelledError, SideError, Spent):
            await self._send(writer)

    async def _unless_taken(self, answer: Deferred[_T]) -> _T:
        """Await the answer; raises `Busy`, so that it is tried again, if a file appeared where none was seen before."""
        try:
            return await answer
        except Conflict as error:
            if self.existing.final_size is None and not self.existing.obstacle:
                raise just_arrived(self.path) from error
            raise

    async def _abandon(self, writer: IWriter, *, keep: bool) -> int | None:
        """Close the writer; returns how many bytes the destination keeps as a partial.

        None if it does not answer; it then keeps the partial of its own accord.
        """
        try:
            kept = await writer.abandon(keep=keep)
            if kept is None and self.committing:
                [left] = await self.work.destination.describe([self.target])
                kept = None if isinstance(left, RealizeError) else left.partial_size or 0
        except RealizeError:
            return None
        return kept
