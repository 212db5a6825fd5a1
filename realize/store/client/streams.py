"""Reading and writing one file at the other end of a connection: `IReader` and `IWriter` over streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredLock, fail, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.python.failure import Failure
from zope.interface import implementer

from realize.by_value import ByValue
from realize.concurrency.shielded import cancellable
from realize.errors import ConnectionFailed, ProtocolError, RealizeError, SourceChanged, ignore_expected
from realize.store.client.transit import Transit
from realize.store.client.unanswered import call_lasting
from realize.store.interfaces import IReader, IWriter
from realize.store.transfer_state import ReadPhase, ReadState, WritePhase, WriteState
from realize.values import (
    BLOCK_BYTES,
    Attributes,
    Chunk,
    Hole,
    OnConflict,
    Piece,
    Seen,
    Stored,
    Version,
    extent,
)
from realize.wire import commands, packing
from realize.wire.connection import PeerProtocol
from realize.wire.error_answers import log_unexpected
from realize.wire.inbound_stream import InboundStream
from realize.wire.outbound_stream import OutboundStream

ABANDON_TIMEOUT_S: Final = 4.0
"""Seconds to wait for the peer's answer to an abandoned file."""

BLOCKS_PER_COMMAND: Final = 1024
"""Blocks that one command asks the peer to compare; longer comparisons take several."""


@implementer(IReader)
class RemoteReader:
    """A file that the peer reads for us; content comes ahead of `read` as far as the stream's window allows.

    What may be asked next is for its `realize.store.transfer_state.ReadState` to say.
    To look at what comes next when content flows takes another stream, on which the peer skips what we have: the one
    that is used, with its outcome, is a `_ArrivingContent`.
    """

    def __init__(
        self, protocol: PeerProtocol, handle: int, path: bytes, opened: _OpenedRead, transit: Transit, *, removing: bool
    ) -> None:
        self.version = opened.version
        self.attributes = opened.attributes
        self.allocated = opened.allocated
        self._protocol = protocol
        self._handle = handle
        self._path = path
        self._removing = removing
        self._order = ReadState(opened.version.size)
        self._most: int | None = None
        self._content = _ArrivingContent(protocol, opened.stream)
        self._transit = transit
        self._journey = opened.stream.number
        transit.begin(self._journey, [path], self._travelled)

    @classmethod
    async def open(
        cls, protocol: PeerProtocol, handle: int, path: bytes, transit: Transit, *, removing: bool
    ) -> RemoteReader:
        """Ask for the file."""
        opened = await _open_read(protocol, handle, path, removing=removing)
        return cls(protocol, handle, path, opened, transit, removing=removing)

    def _travelled(self) -> int:
        return self._content.stream.travelled()

    @cancellable
    async def block_digests(self, length: int) -> list[bytes]:
        """See `IReader`; at most `realize.wire.packing.MAX_DIGESTS` blocks at a time."""
        await self._stand(length)
        digests: list[bytes] = (await self._content.call(commands.BlockDigests, length=length))["digests"]
        self._order.check_digests(len(digests), length)
        return digests

    @cancellable
    async def skip(self, length: int) -> None:
        """See `IReader`."""
        await self._stand(length)
        await self._content.skip(length)
        self._order.position += length

    @property
    def deltas(self) -> bool:
        """See `IReader`."""
        return _can_delta(self._protocol)

    @cancellable
    async def cut(self) -> list[Chunk]:
        """See `IReader`."""
        self._order.cut()
        content = self._content
        chunks: list[Chunk] = (await content.call(commands.CutSpan))["chunks"]
        if content is self._content:
            lengths = [length for length, _ in chunks]
            self._order.check_cut(sum(lengths))
            self._order.was_cut(lengths)
        return chunks

    def pick(self, wanted: Sequence[bool]) -> Deferred[list[Piece]]:
        """See `IReader`."""
        try:
            picked = self._order.pick(wanted)
            self._content.stream.matched(picked.spared)
        except ProtocolError as error:
            return fail(error)
        return self._content.pick(wanted, picked.wanted)

    def at_most(self, size: int) -> None:
        """See `IReader`."""
        self._most = size

    def stop(self) -> None:
        """See `IReader`; of chunks that were picked, none are returned any more."""
        if self._order.phase is ReadPhase.FLOWING:
            self._content.stream.end(ConnectionFailed("the reader was stopped"))
        else:
            self.close()

    def read(self) -> Deferred[list[Piece]]:
        """See `IReader`."""
        if self._order.phase is not ReadPhase.FLOWING:
            try:
                self._flow()
            except ProtocolError as error:
                return fail(error)
        return self._content.stream.read().addCallback(self._counted)

    def finish(self) -> Deferred[bytes]:
        """See `IReader`."""
        outcome = self._content.outcome
        if isinstance(outcome, RealizeError):
            return fail(outcome)
        try:
            self._order.finish()
        except ProtocolError as error:
            return fail(error)
        if outcome is None and self._order.phase is ReadPhase.STANDING:
            self._flow()
        return self._content.finish()

    def close(self) -> None:
        """See `IReader`."""
        if self._order.phase is not ReadPhase.ENDED:
            self._order.end()
            self._transit.end(self._journey)
            self._content.settle(ConnectionFailed("the reader was closed"))
            self._content.close()

    def _counted(self, pieces: list[Piece]) -> list[Piece]:
        self._order.position += sum(map(len, pieces))
        return pieces

    def _flow(self) -> None:
        self._order.flow()
        if self._most is not None:
            self._content.stream.cap(self._most)
        self._content.start()

    async def _stand(self, length: int) -> None:
        """Check that the next ``length`` bytes may be looked at; if content flows, open another stream."""
        self._order.look(length)
        if self._order.phase is not ReadPhase.FLOWING:
            return
        self._content.close()
        opened = await _open_read(self._protocol, self._handle, self._path, removing=self._removing)
        self._content = _ArrivingContent(self._protocol, opened.stream, self._content.leave())
        try:
            self._order.stand()
        except ProtocolError:
            self._content.close()
            raise
        if opened.version != self.version:
            raise SourceChanged("the file was changed while it was read")
        await self._content.skip(self._order.position)


class _ArrivingContent:
    """One stream on which the peer sends a file; its ``outcome`` is the digest of the whole, an error, or None yet."""

    def __init__(self, protocol: PeerProtocol, stream: InboundStream, waiting: Sequence[Deferred[bytes]] = ()) -> None:
        """``waiting`` fire with the outcome, besides what `finish` returns."""
        self.stream = stream
        self.outcome: bytes | RealizeError | None = None
        self._protocol = protocol
        self._waiting = list(waiting)
        self._picking = DeferredLock()
        self._picked = 0
        self._surplus: list[Piece] = []

    def call(self, command: type, **arguments: Any) -> Deferred[dict[str, Any]]:
        """Ask the peer something about the stream."""
        return self._protocol.call(command, patient=True, stream=self.stream.number, **arguments)

    async def skip(self, length: int) -> None:
        """Let the peer go on behind the next ``length`` bytes."""
        await self.call(commands.SkipBlocks, length=length)
        self.stream.matched(length)

    def pick(self, wanted: Sequence[bool], amount: int) -> Deferred[list[Piece]]:
        """Ask for these chunks of a span, ``amount`` bytes; they come in the order in which they were asked for."""
        self._picked += amount
        asked = self.call(commands.PickChunks, wanted=packing.pack_bits(wanted))
        asked.addCallbacks(self._sent_all, self._not_picked, callbackArgs=(self._picked,))
        self.stream.start()
        return self._picking.run(lambda: Deferred.fromCoroutine(self._collect(amount)))

    async def _collect(self, amount: int) -> list[Piece]:
        """Read exactly ``amount`` bytes; the surplus is kept for the next pick."""
        pieces: list[Piece] = []
        while amount:
            if not self._surplus:
                self._surplus = await self.stream.read()
            piece = self._surplus.pop(0)
            if len(piece) > amount:
                piece, rest = _split(piece, amount)
                self._surplus.insert(0, rest)
            pieces.append(piece)
            amount -= len(piece)
        return pieces

    def _sent_all(self, _answer: object, picked: int) -> None:
        """Fail the stream if content is missing: the answer comes behind the content, so it will never come."""
        if self.stream.arrived < picked:
            self.stream.fail(ProtocolError("the peer sent less than was picked"))

    def _not_picked(self, failure: Failure) -> None:
        failure.trap(RealizeError)
        error: Any = failure.value
        self.stream.end(error)

    def start(self) -> None:
        """Ask for all the rest; what the peer answers at its end is the outcome."""
        self.call(commands.StartRead).addErrback(self._failed).addErrback(self._broken)
        self.call(commands.EndRead).addCallbacks(self._sent, self._failed).addErrback(self._broken)
        self.stream.start()

    def finish(self) -> Deferred[bytes]:
        """Wait for the outcome."""
        if isinstance(self.outcome, bytes):
            return succeed(self.outcome)
        waiting = Deferred[bytes]()
        self._waiting.append(waiting)
        return waiting

    def settle(self, outcome: bytes | RealizeError) -> None:
        """Set the outcome, unless there is one, and fire what waits; an error is read behind what has come."""
        if self.outcome is not None:
            return
        self.outcome = outcome
        waiting = self.leave()
        if isinstance(outcome, RealizeError):
            if self.stream.arrived < self.stream.limit:
                self.stream.end(outcome)
            for waiter in waiting:
                waiter.errback(outcome)
        else:
            for waiter in waiting:
                waiter.callback(outcome)

    def leave(self) -> list[Deferred[bytes]]:
        """Return what waits for the outcome; the caller must fire it."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def close(self) -> None:
        """Tell the peer that nothing more is wanted."""
        self._protocol.streams.close(self.stream.number)
        if not self._protocol.lost:
            self._protocol.call(commands.CloseStream, stream=self.stream.number).addErrback(ignore_expected)

    def _sent(self, answer: dict[str, Any]) -> None:
        complete = self.stream.arrived >= self.stream.limit
        self.settle(answer["digest"] if complete else ProtocolError("the peer ended a file before all of it was sent"))

    def _failed(self, failure: Failure) -> None:
        failure.trap(RealizeError)
        error: Any = failure.value
        self.settle(error)

    def _broken(self, failure: Failure) -> None:
        """Abort the connection after a fault of ours, so that nothing waits for the answer for ever."""
        error = log_unexpected(self._protocol.log, failure, "reading")
        self._protocol.abort(error)
        self.settle(error)


def _split(piece: Piece, at: int) -> tuple[Piece, Piece]:
    if isinstance(piece, Hole):
        return Hole(at), Hole(len(piece) - at)
    return piece[:at], piece[at:]


@frozen(eq=False, repr=False)
class _OpenedRead(ByValue):
    """A file that the peer has opened for us."""

    stream: InboundStream
    version: Version
    attributes: Attributes
    allocated: int | None


async def _open_read(protocol: PeerProtocol, handle: int, path: bytes, *, removing: bool) -> _OpenedRead:
    number = protocol.streams.choose()
    try:
        answer = await protocol.call(commands.OpenRead, handle=handle, stream=number, path=path, removing=removing)
    except CancelledError:
        # The peer may have opened it in the meantime.
        protocol.call(commands.CloseStream, stream=number).addErrback(ignore_expected)
        protocol.streams.close(number)
        raise
    except BaseException:
        protocol.streams.close(number)
        raise
    version: Version = answer["version"]
    stream = protocol.streams.inbound(number, version.size)
    return _OpenedRead(stream, version, answer["attributes"], answer.get("allocated"))


BytesArrived = Callable[[int, float], object]
"""Called with the bytes that have arrived at the peer, and the seconds that took."""


@implementer(IWriter)
class RemoteWriter:
    """A file that the peer writes for us; ``arrived`` is called when it was committed."""

    def __init__(
        self,
        protocol: PeerProtocol,
        path: bytes,
        stream: OutboundStream,
        have: int,
        size: int,
        arrived: BytesArrived,
        transit: Transit,
    ) -> None:
        self.have = have
        self._arrived = arrived
        self._began = protocol.clock.seconds()
        self._order = WriteState(size)
        self._protocol = protocol
        self._stream = stream
        self._transit = transit
        transit.begin(stream.number, [path], stream.travelled)

    @classmethod
    async def open(
        cls,
        protocol: PeerProtocol,
        handle: int,
        path: bytes,
        size: int,
        policy: OnConflict,
        arrived: BytesArrived,
        preserve: bool,  # noqa: FBT001 -- see `IStore.open_writer`
        replaces: Seen | None,
        number: int,
        allocated: int | None,
        transit: Transit,
    ) -> RemoteWriter:
        """Ask to write the file."""
        chosen = protocol.streams.choose()
        # Before the answer, since credit may come with it.
        stream = protocol.streams.outbound(chosen)
        try:
            answer = await protocol.call(
                commands.OpenWrite,
                patient=True,
                handle=handle,
                stream=chosen,
                path=path,
                size=size,
                policy=policy,
                preserve=preserve,
                replaces=replaces,
                number=number or None,
                allocated=allocated,
            )
        except CancelledError:
            # The peer may have opened it in the meantime.
            protocol.call(commands.AbandonStream, stream=chosen, keep=True).addErrback(ignore_expected)
            protocol.streams.close(chosen)
            raise
        except BaseException:
            protocol.streams.close(chosen)
            raise
        return cls(protocol, path, stream, answer["have"], size, arrived, transit)

    @cancellable
    async def match(self, digests: Sequence[bytes], length: int) -> int:
        """See `IWriter`."""
        self._order.match(len(digests), length)
        matched = 0
        for first in range(0, len(digests), BLOCKS_PER_COMMAND):
            part = list(digests[first : first + BLOCKS_PER_COMMAND])
            span = min(len(part) * BLOCK_BYTES, length - matched)
            answer = await self._call(commands.MatchPartial, digests=part, length=span)
            if answer["matched"] > span:
                raise ProtocolError("the peer matched more than it was asked about")
            matched += answer["matched"]
            self._order.matched(answer["matched"])
            if answer["matched"] < span:
                break
        return matched

    @property
    def deltas(self) -> bool:
        """See `IWriter`."""
        return _can_delta(self._protocol)

    @cancellable
    async def offer(self, chunks: Sequence[Chunk]) -> list[bool]:
        """See `IWriter`; if we may not know what is there, the peer wants everything."""
        length = extent(chunks)
        self._order.offer(length)
        try:
            answer = await self._call(commands.OfferChunks, chunks=chunks)
            wanted = packing.unpack_bits(answer["wanted"], len(chunks))
        except BaseException:
            self._order.dropped()
            raise
        self._order.answered(length, extent(chunks, wanted))
        return wanted

    near = False

    @property
    def takes_holes(self) -> bool:
        """See `IWriter`."""
        return self._stream.takes_holes

    def write(self, pieces: Sequence[Piece]) -> Deferred[None]:
        """See `IWriter`."""
        try:
            self._order.write(sum(map(len, pieces)))
        except ProtocolError as error:
            return fail(error)
        return Deferred.fromCoroutine(self._stream.send(pieces))

    @cancellable
    async def commit(self, digest: bytes, attributes: Attributes | None) -> Stored:
        """See `IWriter`."""
        if self._order.phase is WritePhase.ENDED:
            raise ProtocolError("the writer is closed")
        self._order.end()
        try:
            answer = await call_lasting(
                self._protocol,
                commands.CommitStream,
                stream=self._stream.number,
                digest=digest,
                attributes=attributes,
                extras=None if attributes is None else attributes.extras,
            )
        finally:
            self._end()
        self._arrived(self._stream.content, self._protocol.clock.seconds() - self._began)
        outcome: Stored = answer["outcome"]
        return outcome

    def abandon(self, *, keep: bool) -> Deferred[int | None]:
        """See `IWriter`; when the connection is lost, the peer keeps the partial by itself."""
        if self._order.phase is WritePhase.ENDED:
            return succeed(None)
        self._order.end()
        self._end()
        if self._protocol.lost:
            return succeed(None)
        asked = self._protocol.call(commands.AbandonStream, stream=self._stream.number, keep=keep)
        # Not longer: the peer abandons it anyway, even if its disk hangs or it is frozen just now.
        given = asked.addTimeout(ABANDON_TIMEOUT_S, self._protocol.clock)
        return given.addCallbacks(lambda answer: answer.get("kept"), _given_up)

    def _end(self) -> None:
        self._transit.end(self._stream.number)
        self._protocol.streams.close(self._stream.number)

    def _call(self, command: type, **arguments: Any) -> Deferred[dict[str, Any]]:
        return self._protocol.call(command, patient=True, stream=self._stream.number, **arguments)


def _can_delta(protocol: PeerProtocol) -> bool:
    return protocol.theirs is not None and commands.DELTAS in protocol.theirs.capabilities


def _given_up(failure: Failure) -> None:
    failure.trap(RealizeError, DeferredTimeout)
