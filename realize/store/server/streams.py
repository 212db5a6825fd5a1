"""Serving one file as a stream: content that arrives goes to an `IWriter`, an `IReader`'s goes out.

A stream is opened, used and closed by commands of the peer, which may come in any order and at any time; each object
here puts them in order, refuses what is not legal then (`realize.store.transfer_state`), and ends in exactly one way.
The lock of a stream comes before a turn of its peer in the directory (``turn``).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredLock, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from realize.concurrency.turns import Turn
from realize.errors import Busy, ConnectionFailed, ProtocolError, RealizeError, StorageError, VerifyFailed
from realize.store.interfaces import IReader, IWriter
from realize.store.server.audit import FileAudit
from realize.store.server.observers import ReadObserver, WriteObserver
from realize.store.transfer_state import ReadPhase, ReadState, WritePhase, WriteState
from realize.values import BLOCK_BYTES, Attributes, Chunk, Piece, Stored, extent, in_holes
from realize.wire import commands, costs, packing
from realize.wire.connection import PeerProtocol
from realize.wire.error_answers import to_declared
from realize.wire.inbound_stream import InboundStream
from realize.wire.outbound_stream import OutboundStream
from realize.wire.packing import MAX_DIGESTS

_T = TypeVar("_T")

LAST_WRITES_TIMEOUT_S: Final = 2.0
"""Seconds for which content is still written that had arrived when its stream was given up; its peer waits."""

STREAM_IDLE_TIMEOUT_S: Final = 600.0
"""Seconds without a command or content after which a stream is closed: it holds a lock, a descriptor, and room."""


class Stage(enum.Enum):
    """How far a file that the peer sends has come."""

    OPENING = "opening"
    """The store opens it, and may wait for room; commands wait."""
    RECEIVING = "receiving"
    """Content is written as it comes."""
    STOPPED = "stopped"
    """Content cannot be written, or is not complete: the peer was told, and what still comes is dropped."""
    ENDED = "ended"
    """It was committed or abandoned, or could not be opened."""


_NEXT_STAGE: Final[Mapping[Stage, frozenset[Stage]]] = {
    Stage.OPENING: frozenset({Stage.RECEIVING, Stage.ENDED}),
    Stage.RECEIVING: frozenset({Stage.STOPPED, Stage.ENDED}),
    Stage.STOPPED: frozenset({Stage.ENDED}),
    Stage.ENDED: frozenset(),
}


def once(failed: Callable[[RealizeError], None]) -> Callable[[BaseException], None]:
    """Wrap ``failed`` to be called for the first declared error only: one cause may fail a stream in many ways."""
    told = False

    def tell(error: BaseException) -> None:
        nonlocal told
        if not told and isinstance(error, RealizeError):
            told = True
            failed(error)

    return tell


class ServedWrite:
    """A file that the peer sends; its `Stage` says what becomes of a command.

    The pump writes what arrives; the lock keeps it and the commands apart.
    """

    def __init__(
        self,
        protocol: PeerProtocol,
        stream: InboundStream,
        size: int,
        audit: FileAudit,
        observer: WriteObserver,
        turn: Turn,
    ) -> None:
        self._protocol = protocol
        self._stream = stream
        self._turn = turn
        self._stage = Stage.OPENING
        self._order = WriteState(size, have=0)
        self._audit = audit
        self._observer = observer
        self._failed = once(observer.count_failed)
        self._write_failed = once(audit.failed)
        self._claim = protocol.memory.claim()
        self._claim.force(costs.STREAM_BYTES)
        self._searching: bool | None = None
        """Whether there was memory to search for chunks; None before the first offer."""
        self._lock = DeferredLock()
        self._offering = DeferredLock()
        self._leaving = DeferredLock()
        self._writer: IWriter | None = None
        self._opening: Deferred[IWriter] | None = None
        self._pumping: Deferred[None] | None = None
        self._error: RealizeError | None = None
        """Why it was stopped."""
        self._came = 0
        """How many commands and pieces of content have come."""
        self._looking: IDelayedCall | None = None

    def describe(self) -> dict[str, Any]:
        """For status reports."""
        return {
            "path": self._audit.shown,
            "direction": "receive",
            "size": self._order.size,
            "done": self._order.spared + self._stream.arrived,
            "compressed": self._stream.saved > 0,
        }

    async def open(self, opening: Deferred[IWriter]) -> int:
        """Wait for the writer, then give credit."""
        await self._lock.acquire()
        self._opening = opening
        try:
            self._writer = await opening
            self._order.have = self._writer.have
        except CancelledError as error:
            self._end()
            raise ConnectionFailed("the stream was closed while it was opened") from error
        except BaseException as error:
            self._end()
            self._failed(error)
            self._write_failed(error)
            raise
        finally:
            self._opening = None
            self._lock.release()
        if not self._enter(Stage.RECEIVING):
            await self._writer.abandon(keep=True)
            raise ConnectionFailed("the stream was closed while it was opened")
        try:
            self._audit.started(self._writer.have)
            self._pumping = Deferred.fromCoroutine(self._pump(self._writer))
            self._stream.start()
            self._look_later()
        except Exception:
            # The peer is told that it is not open, and may not close it.
            self._end()
            await self._writer.abandon(keep=True)
            raise
        return self._writer.have

    def _look_later(self) -> None:
        self._looking = self._protocol.clock.callLater(STREAM_IDLE_TIMEOUT_S, self._look, self._came)

    def _look(self, came: int) -> None:
        """Close the stream if it was idle since ``came``; work in progress, on a slow disk, is not the peer's fault."""
        if self._came != came or self._order.unanswered or self._lock.locked:
            self._look_later()
            return
        self._looking = None
        self._fail(
            Busy(f"{self._audit.shown}: none of it came for {STREAM_IDLE_TIMEOUT_S:g} seconds, so it was stopped")
        )
        closing = Deferred.fromCoroutine(self.abandon(keep=True))
        closing.addErrback(lambda failure: to_declared(self._protocol.log, failure, "abandoning"))

    async def match(self, digests: list[bytes], length: int) -> int:
        """See `realize.wire.commands.MatchPartial`."""
        self._came += 1
        writer = await self._ready()
        await self._lock.acquire()
        try:
            self._order.arrived = self._stream.arrived
            self._order.match(len(digests), length)
            matched: int = await self._told(self._turn(lambda: writer.match(digests, length)))
            self._order.matched(matched)
            self._stream.matched(matched)
        finally:
            self._lock.release()
        return matched

    async def offer(self, chunks: list[Chunk]) -> bytes:
        """See `realize.wire.commands.OfferChunks`."""
        self._came += 1
        await self._offering.acquire()
        try:
            # Once there were offers, there are no matches any more to wait for.
            writer = self._writer if self._order.phase is not WritePhase.COMPARING else None
            asked = self._offer(writer or await self._ready(), chunks)
        finally:
            self._offering.release()
        try:
            wanted = await self._told(asked)
        except BaseException:
            self._order.dropped()
            raise
        length, missed = extent(chunks), extent(chunks, wanted)
        self._order.answered(length, missed)
        self._stream.matched(length - missed)
        self._observer.found(length - missed)
        return packing.pack_bits(wanted)

    def _offer(self, writer: IWriter, chunks: list[Chunk]) -> Deferred[list[bool]]:
        """Pass chunks to the writer without waiting for its answer; it keeps their order.

        So it searches for the next ones while it writes the last.
        """
        self._order.arrived = self._stream.arrived
        self._order.offer(extent(chunks))
        if self._searching is None:
            self._searching = self._claim.try_grow(costs.SEARCH_BYTES)
        if not self._searching:
            # All of it is wanted then, as where there is no final file.
            return succeed([True] * len(chunks))
        return self._turn(lambda: writer.offer(chunks))

    async def commit(self, digest: bytes, attributes: Attributes | None) -> Stored:
        """See `realize.wire.commands.CommitStream`."""
        writer = await self._ready()
        if self._ended:
            raise ProtocolError("the stream has ended")
        if self._stream.arrived < self._stream.limit:
            # Content and commands arrive in order: what is not here now will not come.  The store finds out what is
            # missing and refuses; the pump only has to end.
            self._stream.fail(VerifyFailed("the content is shorter than announced"))
        if self._pumping is not None:
            await self._pumping
        if self._ended:
            raise ProtocolError("the stream has ended")
        self._end()
        if self._error is not None and not isinstance(self._error, VerifyFailed):
            self._audit.stopped(await writer.abandon(keep=True), kept=True)
            raise self._error
        try:
            outcome = await writer.commit(digest, attributes)
        except RealizeError as error:
            self._failed(error)
            self._audit.ended(digest, error)
            raise
        self._observer.count_committed(outcome.how)
        self._audit.ended(digest, outcome)
        return outcome

    async def abandon(self, *, keep: bool) -> int | None:
        """See `realize.wire.commands.AbandonStream`; return how many bytes are kept, None if that is not known."""
        # Whoever comes second waits: the store must not be closed while the last content is written.
        await self._leaving.acquire()
        try:
            return await self._abandon(keep=keep)
        finally:
            self._leaving.release()

    async def _abandon(self, *, keep: bool) -> int | None:
        kept: int | None = None
        if self._ended:
            return kept
        self._enter(Stage.ENDED)
        try:
            self._order.end()
            if keep:
                await self._write_the_last()
        finally:
            self._forget()
            try:
                if self._pumping is not None:
                    await self._pumping
            finally:
                # If it is being opened, `open` sees that it has ended; it need not wait for room any more.
                if self._opening is not None:
                    self._opening.cancel()
                if self._writer is not None:
                    kept = await self._writer.abandon(keep=keep)
                    self._audit.stopped(kept, kept=keep)
        return kept

    async def _write_the_last(self) -> None:
        """Let the pump write what has arrived, as far as it comes in `LAST_WRITES_TIMEOUT_S`."""
        error = ConnectionFailed("the stream was closed")
        self._stream.end(error)
        if self._pumping is not None:
            timer = self._protocol.clock.callLater(LAST_WRITES_TIMEOUT_S, self._stream.fail, error)
            try:
                await self._pumping
            finally:
                if timer.active():
                    timer.cancel()

    async def _told(self, work: Deferred[_T]) -> _T:
        """Await the writer's answer; count its failure, and log it if the disk is at fault."""
        try:
            return await work
        except RealizeError as error:
            self._failed(error)
            if isinstance(error, StorageError):
                self._write_failed(error)
            raise

    async def _ready(self) -> IWriter:
        await self._lock.run(lambda: None)
        if self._writer is None:
            raise ProtocolError("the stream could not be opened")
        return self._writer

    async def _pump(self, writer: IWriter) -> None:
        try:
            while pieces := await self._stream.read():
                self._came += 1
                if holes := in_holes(pieces):
                    self._observer.left_out(holes)
                await self._lock.acquire()
                try:
                    await writer.write(pieces)
                finally:
                    self._lock.release()
        except (RealizeError, CancelledError) as error:
            failed = error if isinstance(error, RealizeError) else ConnectionFailed("the stream was closed")
            # Its frames hold content.
            self._fail(failed.with_traceback(None))
        except Exception:  # noqa: BLE001 -- becomes a declared error, logged with its traceback
            self._fail(to_declared(self._protocol.log, Failure(), "writing"))

    def _fail(self, error: RealizeError) -> None:
        if self._error is not None:
            return
        self._error = error
        if isinstance(error, StorageError):
            self._write_failed(error)
        self._stream.fail(error)
        if self._enter(Stage.STOPPED):
            self._failed(error)
            self._protocol.tell(
                commands.StopStream, stream=self._stream.number, code=error.wire_code, description=str(error)
            )

    @property
    def _ended(self) -> bool:
        return self._stage is Stage.ENDED

    def _enter(self, stage: Stage) -> bool:
        """Go on to a stage, and answer whether that is the way from here: what comes too late changes nothing."""
        if stage not in _NEXT_STAGE[self._stage]:
            return False
        self._stage = stage
        return True

    def _end(self) -> None:
        if self._enter(Stage.ENDED):
            try:
                self._order.end()
            finally:
                self._forget()

    def _forget(self) -> None:
        """Close the stream, whose number means nothing from now on."""
        try:
            if self._looking is not None:
                self._looking.cancel()
                self._looking = None
            self._protocol.streams.close(self._stream.number)
        finally:
            self._observer.forget()
            self._claim.release()


class ServedRead:
    """A file that the peer reads."""

    def __init__(
        self,
        protocol: PeerProtocol,
        stream: OutboundStream,
        shown: str,
        observer: ReadObserver,
        turn: Turn,
    ) -> None:
        self._protocol = protocol
        self._turn = turn
        self._stream = stream
        self._observer = observer
        self._failed = once(observer.count_failed)
        self._shown = shown
        self._claim = protocol.memory.claim()
        self._claim.force(costs.STREAM_BYTES)
        self._lock = DeferredLock()
        self._cutting = DeferredLock()
        self._order = ReadState(0)
        self._reader: IReader | None = None
        self._spared = 0
        """Bytes that need not be sent, those that were skipped among them."""
        self._skipped = 0
        self._pumping: Deferred[None] | None = None
        self._digest: bytes | RealizeError | None = None
        self._asked = False

    def describe(self) -> dict[str, Any]:
        """For status reports."""
        return {
            "path": self._shown,
            "direction": "send",
            "size": self._order.size,
            "done": self._spared + self._stream.holes + self._stream.travelled(),
            "compressed": self._stream.saved > 0,
        }

    async def open(self, opening: Deferred[IReader]) -> IReader:
        """Wait for the reader."""
        try:
            reader = await opening
        except BaseException as error:
            self.close()
            self._failed(error)
            raise
        if self._order.phase is ReadPhase.ENDED:
            reader.close()
            raise ConnectionFailed("the stream was closed while it was opened")
        self._reader = reader
        self._order.size = reader.version.size
        return reader

    async def block_digests(self, length: int) -> list[bytes]:
        """See `realize.wire.commands.BlockDigests`."""
        reader = self._standing()
        self._order.look(length)
        if length > MAX_DIGESTS * BLOCK_BYTES:
            raise ProtocolError(f"digests of {length} bytes do not fit an answer")
        await self._lock.acquire()
        try:
            digests = await self._told(self._turn(lambda: reader.block_digests(length)))
            return list(digests)
        finally:
            self._lock.release()

    async def skip(self, length: int) -> None:
        """See `realize.wire.commands.SkipBlocks`."""
        reader = self._standing()
        self._order.look(length)
        self._order.position += length
        self._spared += length
        self._skipped += length
        await self._lock.acquire()
        try:
            await self._told(self._turn(lambda: reader.skip(length)))
        finally:
            self._lock.release()

    async def cut(self) -> list[Chunk]:
        """See `realize.wire.commands.CutSpan`."""
        reader = self._standing()
        await self._cutting.acquire()
        try:
            self._order.make_way()
            if self._claim.size == costs.STREAM_BYTES:
                await self._claim.grow(costs.CUTTING_BYTES)
            chunks: list[Chunk] = await self._told(self._turn(reader.cut))
            self._order.was_cut([length for length, _ in chunks])
        finally:
            self._cutting.release()
        return chunks

    async def pick(self, bits: bytes) -> None:
        """See `realize.wire.commands.PickChunks`."""
        reader = self._standing()
        wanted = packing.unpack_bits(bits, self._order.choices)
        found = self._order.pick(wanted).spared
        self._spared += found
        self._observer.found(found)
        await self._lock.acquire()
        try:
            pieces: list[Piece] = await self._told(reader.pick(wanted))
            await self._send(pieces)
        finally:
            self._lock.release()

    def start(self) -> int:
        """See `realize.wire.commands.StartRead`; return how many bytes were skipped."""
        reader = self._standing()
        self._order.flow()
        self._pumping = Deferred.fromCoroutine(self._pump(reader))
        return self._skipped

    async def end(self) -> bytes:
        """See `realize.wire.commands.EndRead`."""
        if self._pumping is None or self._asked:
            raise ProtocolError("EndRead belongs behind StartRead, once")
        self._asked = True
        await self._pumping
        if isinstance(self._digest, bytes):
            if self._reader is not None:
                self._observer.was_read(self._reader.version, self._digest)
            return self._digest
        raise self._digest or ConnectionFailed("the stream was closed")

    def close(self) -> None:
        """See `realize.wire.commands.CloseStream`; may be called at any time, more than once."""
        if self._order.phase is ReadPhase.ENDED:
            return
        try:
            self._order.end()
            # The pump, if it waits for credit or for the transport, fails by this.
            self._protocol.streams.close(self._stream.number)
        finally:
            self._observer.forget()
            try:
                self._claim.release()
            finally:
                if self._reader is not None:
                    self._reader.close()

    async def _send(self, pieces: list[Piece]) -> None:
        """Send content; what the peer is told to be holes counts as saved."""
        before = self._stream.holes
        try:
            await self._stream.send(pieces)
        finally:
            if holes := self._stream.holes - before:
                self._observer.left_out(holes)

    async def _told(self, work: Deferred[_T]) -> _T:
        """Await the reader's answer; count its failure."""
        try:
            return await work
        except RealizeError as error:
            if self._order.phase is not ReadPhase.ENDED:
                self._failed(error)
            raise

    def _standing(self) -> IReader:
        """Return the reader; raise `ProtocolError` if the stream is not open, or was started."""
        if self._reader is None or self._order.phase is ReadPhase.ENDED:
            raise ProtocolError("the stream is not open")
        if self._order.phase is ReadPhase.FLOWING:
            raise ProtocolError("the stream was started already")
        return self._reader

    async def _pump(self, reader: IReader) -> None:
        await self._lock.acquire()
        try:
            self._claim.become(costs.STREAM_BYTES)
            while True:
                # What nobody has asked for yet would only be held.
                if self._spared + self._stream.holes + self._stream.content < reader.version.size:
                    await self._stream.credited()
                pieces = await reader.read()
                if not pieces:
                    break
                await self._send(pieces)
            self._digest = await reader.finish()
        except (RealizeError, CancelledError) as error:
            failed = error if isinstance(error, RealizeError) else ConnectionFailed("the stream was closed")
            # Its frames hold content.
            self._digest = failed.with_traceback(None)
        except Exception:  # noqa: BLE001 -- becomes a declared error, logged with its traceback
            self._digest = to_declared(self._protocol.log, Failure(), "reading")
        finally:
            self._lock.release()
        if isinstance(self._digest, RealizeError) and self._order.phase is not ReadPhase.ENDED:
            self._failed(self._digest)
