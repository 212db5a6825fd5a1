"""Reading and writing one file at the other end of a connection: `IReader` and `IWriter` over streams."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredLock, fail, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.python.failure import Failure
from zope.interface import implementer

from realize.errors import ConnectionFailed, ProtocolError, RealizeError, SourceChanged
from realize.store.client.lasting import call_lasting
from realize.store.client.transit import Transit
from realize.store.interfaces import IReader, IWriter
from realize.values import (
    BLOCK_BYTES,
    SPAN_BYTES,
    Attributes,
    Chunk,
    Content,
    OnConflict,
    Seen,
    Stored,
    Version,
    extent,
)
from realize.wire import commands, packing
from realize.wire.answers import log_unexpected
from realize.wire.connection import PeerProtocol
from realize.wire.streams import InboundStream, OutboundStream

ABANDON_TIMEOUT_S: Final = 4.0
"""Seconds that whoever abandons a file waits for the peer to say that it did."""

_MAX_MATCHED_BLOCKS: Final = 1024


@implementer(IReader)
class RemoteReader:
    """A file that the peer reads for us; content comes ahead of `read` as far as the stream's window allows."""

    def __init__(
        self, protocol: PeerProtocol, handle: int, path: bytes, opened: _OpenedRead, transit: Transit, *, removing: bool
    ) -> None:
        self.version = opened.version
        self.attributes = opened.attributes
        self._protocol = protocol
        self._handle = handle
        self._path = path
        self._removing = removing
        self._stream = opened.stream
        self._position = 0
        self._started = False
        self._spans: deque[list[int]] = deque()
        self._picking = DeferredLock()
        self._picked = 0
        self._left: list[Content] = []
        self._outcome: bytes | RealizeError | None = None
        self._waiting: list[Deferred[bytes]] = []
        self._closed = False
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
        return self._stream.travelled()

    def block_digests(self, length: int) -> Deferred[list[bytes]]:
        """See `IReader`; at most `realize.wire.packing.MAX_DIGESTS` blocks at a time."""
        return Deferred.fromCoroutine(self._block_digests(length))

    async def _block_digests(self, length: int) -> list[bytes]:
        await self._stopped(length)
        digests: list[bytes] = (await self._call(commands.BlockDigests, length=length))["digests"]
        if len(digests) != -(-length // BLOCK_BYTES):
            raise ProtocolError(f"{len(digests)} digests for {length} bytes")
        return digests

    def skip(self, length: int) -> Deferred[None]:
        """See `IReader`."""
        return Deferred.fromCoroutine(self._skip(length))

    async def _skip(self, length: int) -> None:
        await self._stopped(length)
        await self._call(commands.SkipBlocks, length=length)
        self._stream.matched(length)
        self._position += length

    @property
    def deltas(self) -> bool:
        """See `IReader`."""
        return _can_delta(self._protocol)

    def cut(self) -> Deferred[list[Chunk]]:
        """See `IReader`."""
        return Deferred.fromCoroutine(self._cut_span())

    async def _cut_span(self) -> list[Chunk]:
        if self._closed or self._started:
            raise ProtocolError("the reader cuts nothing any more")
        lengths: list[int] = []
        self._spans.append(lengths)
        try:
            chunks: list[Chunk] = (await self._call(commands.CutSpan))["chunks"]
        except RealizeError:
            self._spans.remove(lengths)
            raise
        lengths += [length for length, _ in chunks]
        cut = sum(map(sum, self._spans))
        if sum(lengths) > SPAN_BYTES or self._position + cut > self.version.size:
            raise ProtocolError("the peer cut more than there is")
        if not chunks:
            self._spans.remove(lengths)
        return chunks

    def pick(self, wanted: Sequence[bool]) -> Deferred[list[Content]]:
        """See `IReader`."""
        if self._closed or not wanted or not self._spans or len(wanted) != len(self._spans[0]):
            return fail(ProtocolError("a pick that does not fit what was cut"))
        lengths = self._spans.popleft()
        amount = sum(length for length, want in zip(lengths, wanted, strict=True) if want)
        stream = self._stream
        try:
            stream.matched(sum(lengths) - amount)
        except ProtocolError as error:
            return fail(error)
        self._position += sum(lengths)
        self._picked += amount
        asked = self._call(commands.PickChunks, wanted=packing.pack_bits(wanted))
        asked.addCallbacks(_sent_all, _fail, callbackArgs=(stream, self._picked), errbackArgs=(stream,))
        stream.start()
        return self._picking.run(lambda: Deferred.fromCoroutine(self._collect(stream, amount)))

    async def _collect(self, stream: InboundStream, amount: int) -> list[Content]:
        """So many bytes of the content that comes; others that came with them are for the next one who asks."""
        pieces: list[Content] = []
        while amount:
            if not self._left:
                self._left = await stream.read()
            piece = self._left.pop(0)
            if len(piece) > amount:
                self._left.insert(0, piece[amount:])
                piece = piece[:amount]
            pieces.append(piece)
            amount -= len(piece)
        return pieces

    def read(self) -> Deferred[list[Content]]:
        """See `IReader`."""
        if self._closed:
            return fail(ProtocolError("the reader is closed"))
        self._start()
        return self._stream.read().addCallback(self._counted)

    def finish(self) -> Deferred[bytes]:
        """See `IReader`."""
        if isinstance(self._outcome, RealizeError):
            return fail(self._outcome)
        if self._position < self.version.size:
            return fail(ProtocolError("not all of the file was read"))
        self._start()
        if isinstance(self._outcome, bytes):
            return succeed(self._outcome)
        waiting = Deferred[bytes]()
        self._waiting.append(waiting)
        return waiting

    def close(self) -> None:
        """See `IReader`."""
        if not self._closed:
            self._closed = True
            self._transit.end(self._journey)
            self._settled(ConnectionFailed("the reader was closed"))
            self._close_stream()

    def _close_stream(self) -> None:
        self._protocol.streams.close(self._stream.number)
        if not self._protocol.lost:
            self._protocol.call(commands.CloseStream, stream=self._stream.number).addErrback(_ignore)

    def _call(self, command: type, **arguments: Any) -> Deferred[dict[str, Any]]:
        return self._protocol.call(command, patient=True, stream=self._stream.number, **arguments)

    def _counted(self, pieces: list[Content]) -> list[Content]:
        self._position += sum(map(len, pieces))
        return pieces

    async def _stopped(self, length: int) -> None:
        """Make sure that content does not run ahead of us: to look at what comes next needs a stream that stands.

        Once content flows the only way is another stream, on which the peer reads again what we have.
        """
        if self._closed or self._position + length > self.version.size:
            raise ProtocolError("beyond the end of the file")
        if not self._started:
            return
        self._close_stream()
        opened = await _open_read(self._protocol, self._handle, self._path, removing=self._removing)
        self._stream = opened.stream
        self._started = False
        self._picked = 0
        self._outcome = None
        if self._closed:
            self._close_stream()
            raise ProtocolError("the reader is closed")
        if opened.version != self.version:
            raise SourceChanged("the file was changed while it was read")
        await self._call(commands.SkipBlocks, length=self._position)
        self._stream.matched(self._position)

    def _start(self) -> None:
        if self._started:
            return
        self._started = True
        self._spans.clear()
        stream = self._stream
        self._call(commands.StartRead).addErrback(self._failed, stream).addErrback(self._broken)
        self._call(commands.EndRead).addCallbacks(
            self._sent, self._failed, callbackArgs=(stream,), errbackArgs=(stream,)
        ).addErrback(self._broken)
        stream.start()

    def _sent(self, answer: dict[str, Any], stream: InboundStream) -> None:
        digest: bytes = answer["digest"]
        if stream is self._stream:
            complete = stream.arrived >= stream.limit
            self._settled(digest if complete else ProtocolError("the peer ended a file before all of it was sent"))

    def _failed(self, failure: Failure, stream: InboundStream) -> None:
        failure.trap(RealizeError)
        if stream is self._stream:
            self._settled(failure.value)

    def _broken(self, failure: Failure) -> None:
        """An answer could not be dealt with: with the connection all ends that waits for it."""
        error = log_unexpected(self._protocol.log, failure, "reading")
        self._protocol.abort(error)
        self._settled(error)

    def _settled(self, outcome: Any) -> None:
        if self._outcome is not None:
            return
        self._outcome = outcome
        waiting, self._waiting = self._waiting, []
        if isinstance(outcome, RealizeError):
            if self._stream.arrived < self._stream.limit:
                self._stream.fail(outcome)
            for waiter in waiting:
                waiter.errback(outcome)
        else:
            for waiter in waiting:
                waiter.callback(outcome)


@frozen
class _OpenedRead:
    """A file that the peer has opened for us."""

    stream: InboundStream
    version: Version
    attributes: Attributes


async def _open_read(protocol: PeerProtocol, handle: int, path: bytes, *, removing: bool) -> _OpenedRead:
    number = protocol.streams.choose()
    try:
        answer = await protocol.call(commands.OpenRead, handle=handle, stream=number, path=path, removing=removing)
    except CancelledError:
        # The peer may have opened it in the meantime.
        protocol.call(commands.CloseStream, stream=number).addErrback(_ignore)
        protocol.streams.close(number)
        raise
    except BaseException:
        protocol.streams.close(number)
        raise
    version: Version = answer["version"]
    return _OpenedRead(protocol.streams.inbound(number, version.size), version, answer["attributes"])


Arrived = Callable[[int, float], object]
"""Told how many bytes have arrived at the peer, and how many seconds that took."""


@implementer(IWriter)
class RemoteWriter:
    """A file that the peer writes for us; ``arrived`` is told how many bytes have taken how many seconds."""

    def __init__(
        self,
        protocol: PeerProtocol,
        path: bytes,
        stream: OutboundStream,
        have: int,
        size: int,
        arrived: Arrived,
        transit: Transit,
    ) -> None:
        self.have = have
        self._arrived = arrived
        self._began = protocol.clock.seconds()
        self._left = size
        self._protocol = protocol
        self._stream = stream
        self._transit = transit
        self._closed = False
        transit.begin(stream.number, [path], stream.travelled)

    @classmethod
    async def open(
        cls,
        protocol: PeerProtocol,
        handle: int,
        path: bytes,
        size: int,
        policy: OnConflict,
        arrived: Arrived,
        preserve: bool,  # noqa: FBT001 -- see `IStore.open_writer`
        replaces: Seen | None,
        transit: Transit,
    ) -> RemoteWriter:
        """Ask to write the file."""
        number = protocol.streams.choose()
        # Before the answer, since credit may come with it.
        stream = protocol.streams.outbound(number)
        try:
            answer = await protocol.call(
                commands.OpenWrite,
                patient=True,
                handle=handle,
                stream=number,
                path=path,
                size=size,
                policy=policy,
                preserve=preserve,
                replaces=replaces,
            )
        except CancelledError:
            # The peer may have opened it in the meantime.
            protocol.call(commands.AbandonStream, stream=number, keep=True).addErrback(_ignore)
            protocol.streams.close(number)
            raise
        except BaseException:
            protocol.streams.close(number)
            raise
        return cls(protocol, path, stream, answer["have"], size, arrived, transit)

    def match(self, digests: Sequence[bytes], length: int) -> Deferred[int]:
        """See `IWriter`."""
        return Deferred.fromCoroutine(self._match(list(digests), length))

    async def _match(self, digests: list[bytes], length: int) -> int:
        matched = 0
        for first in range(0, len(digests), _MAX_MATCHED_BLOCKS):
            part = digests[first : first + _MAX_MATCHED_BLOCKS]
            span = min(len(part) * BLOCK_BYTES, length - matched)
            answer = await self._call(commands.MatchPartial, digests=part, length=span)
            if answer["matched"] > span:
                raise ProtocolError("the peer matched more than it was asked about")
            matched += answer["matched"]
            self._left -= answer["matched"]
            if answer["matched"] < span:
                break
        return matched

    @property
    def deltas(self) -> bool:
        """See `IWriter`."""
        return _can_delta(self._protocol)

    def offer(self, chunks: Sequence[Chunk]) -> Deferred[list[bool]]:
        """See `IWriter`; the peer knows by itself what we may not find out."""
        return Deferred.fromCoroutine(self._offer(list(chunks)))

    async def _offer(self, chunks: list[Chunk]) -> list[bool]:
        if self._closed:
            raise ProtocolError("the writer is closed")
        answer = await self._call(commands.OfferChunks, chunks=chunks)
        wanted = packing.unpack_bits(answer["wanted"], len(chunks))
        self._left -= extent(chunks) - extent(chunks, wanted)
        return wanted

    def write(self, pieces: Sequence[Content]) -> Deferred[None]:
        """See `IWriter`."""
        length = sum(map(len, pieces))
        if self._closed:
            return fail(ProtocolError("the writer is closed"))
        if length > self._left:
            return fail(ProtocolError("more content than announced"))
        self._left -= length
        return Deferred.fromCoroutine(self._stream.send(pieces))

    def commit(self, digest: bytes, attributes: Attributes | None) -> Deferred[Stored]:
        """See `IWriter`."""
        if self._closed:
            return fail(ProtocolError("the writer is closed"))
        return Deferred.fromCoroutine(self._commit(digest, attributes))

    async def _commit(self, digest: bytes, attributes: Attributes | None) -> Stored:
        self._closed = True
        try:
            answer = await call_lasting(
                self._protocol,
                commands.CommitStream,
                stream=self._stream.number,
                digest=digest,
                attributes=attributes,
            )
        finally:
            self._end()
        self._arrived(self._stream.content, self._protocol.clock.seconds() - self._began)
        outcome: Stored = answer["outcome"]
        return outcome

    def abandon(self, *, keep: bool) -> Deferred[int | None]:
        """See `IWriter`; when the connection is lost, the peer keeps the partial by itself."""
        if self._closed:
            return succeed(None)
        self._closed = True
        self._end()
        if self._protocol.lost:
            return succeed(None)
        asked = self._protocol.call(commands.AbandonStream, stream=self._stream.number, keep=keep)
        # Who gives up does not wait long for a disk that hangs, or a peer that is frozen: it will do so all the same.
        given = asked.addTimeout(ABANDON_TIMEOUT_S, self._protocol.clock)
        return given.addCallbacks(lambda answer: answer.get("kept"), _given_up)

    def _end(self) -> None:
        self._transit.end(self._stream.number)
        self._protocol.streams.close(self._stream.number)

    def _call(self, command: type, **arguments: Any) -> Deferred[dict[str, Any]]:
        return self._protocol.call(command, patient=True, stream=self._stream.number, **arguments)


def _sent_all(_answer: object, stream: InboundStream, picked: int) -> None:
    """The answer comes behind the content; what is not here by now never comes, and nobody may wait for it."""
    if stream.arrived < picked:
        stream.fail(ProtocolError("the peer sent less than was picked"))


def _fail(failure: Failure, stream: InboundStream) -> None:
    failure.trap(RealizeError)
    error: Any = failure.value
    stream.fail(error)


def _can_delta(protocol: PeerProtocol) -> bool:
    return protocol.theirs is not None and commands.DELTAS in protocol.theirs.capabilities


def _given_up(failure: Failure) -> None:
    failure.trap(RealizeError, DeferredTimeout)


def _ignore(failure: Failure) -> None:
    """Nobody waits for this; the connection, if it was lost, told those who do."""
    failure.trap(RealizeError)
