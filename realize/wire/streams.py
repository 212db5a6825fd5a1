"""The streams of one connection: content of files on its way, under windows of credit.

Content is in ``Data`` boxes, what shrinks in ``Compressed`` ones, and holes are told by ``Zeros``.

A receiver gives credit (`realize.wire.inbound_stream`), and a sender never sends more than that
(`realize.wire.outbound_stream`): this bounds the memory of the receiver however slow its disk is.
The sender also waits while its transport is full: this bounds its own memory however slow the link is.

Stream numbers: the connecting side uses odd ones, the accepting side even ones, each in ascending order and never
twice.
So the last number tells which closed streams have existed; what arrives late for those is ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.logger import Logger

from realize.errors import Busy, ConnectionFailed, ProtocolError, RealizeError
from realize.values import Content
from realize.wire.boxes import CompressedBox
from realize.wire.commands import MAX_CREDIT_BYTES, MAX_STREAMS
from realize.wire.outbound_stream import OutboundStream
from realize.wire.traffic import Traffic

if TYPE_CHECKING:
    from realize.wire.inbound_stream import InboundStream
    from realize.wire.stream_link import Link

_log = Logger()


def _inbound(stream: InboundStream | OutboundStream | None) -> InboundStream | None:
    """The stream if it is known to receive; without its class, which only those load who receive content."""
    return None if isinstance(stream, OutboundStream) else stream


def _count(stream: InboundStream | OutboundStream | None, traffic: Traffic) -> None:
    if isinstance(stream, OutboundStream):
        traffic.content_sent += stream.content - stream.saved
        traffic.saved_sent += stream.saved
    elif stream is not None:
        traffic.content_received += stream.content - stream.saved
        traffic.saved_received += stream.saved


class StreamTable:
    """The streams of one connection."""

    def __init__(self, link: Link, *, connecting: bool) -> None:
        self._link = link
        self._open: dict[int, InboundStream | OutboundStream | None] = {}
        """Those that are open; None until it is known what they carry. What is not outbound is inbound."""
        self._receiving: set[InboundStream] = set()
        self.latest = 0
        """The stream that content came for last, or will probably come for first."""
        self._ours = -1 if connecting else 0
        self._theirs = 0 if connecting else -1
        self._lost: RealizeError | None = None
        self._ended = Traffic()
        """Content of the streams that are closed."""

    def count(self, traffic: Traffic) -> None:
        """Add the content that all streams there ever were have sent and received, without holes."""
        traffic.add(self._ended)
        for stream in self._open.values():
            _count(stream, traffic)

    def __len__(self) -> int:
        """How many streams are open."""
        return len(self._open)

    def choose(self) -> int:
        """A number for a stream that we open, to be given back with `close`; raises `Busy` if too many are open."""
        if self._lost is not None:
            raise self._lost
        if len(self._open) >= MAX_STREAMS:
            raise Busy(f"this connection has {MAX_STREAMS} streams open already")
        self._ours += 2
        self._open[self._ours] = None
        return self._ours

    def accept(self, number: int) -> None:
        """Accept the number that the peer chose for a stream; raises `ProtocolError`, or `Busy` for one too many."""
        if number % 2 != self._theirs % 2 or number <= self._theirs:
            raise ProtocolError(f"stream {number} may not be opened")
        # Used up even if it may not be opened now, so that what still comes for it is late and not wrong.
        self._theirs = number
        if len(self._open) >= MAX_STREAMS:
            raise Busy(f"this connection has {MAX_STREAMS} streams open already")
        self._open[number] = None

    def use_up(self, number: int) -> None:
        """Count as closed the number of a stream that was not opened; does nothing if the peer may not open it now."""
        if number % 2 == self._theirs % 2 and number > self._theirs:
            self._theirs = number

    def inbound(self, number: int, limit: int) -> InboundStream:
        """Expect ``limit`` bytes of content on a number that was chosen or accepted."""
        # Loaded only by those who receive content.
        from realize.wire.inbound_stream import InboundStream

        stream = InboundStream(number, limit, self._link)
        if not self.latest:
            self.latest = number
        self._put(number, stream)
        return stream

    def outbound(self, number: int) -> OutboundStream:
        """Prepare to send content on a number that was chosen or accepted."""
        stream = OutboundStream(number, self._link)
        self._put(number, stream)
        return stream

    def _put(self, number: int, stream: InboundStream | OutboundStream) -> None:
        if self._lost is not None:
            stream.fail(self._lost)
        elif number in self._open:
            self._open[number] = stream
        else:
            stream.fail(ConnectionFailed(f"stream {number} is closed"))

    def close(self, number: int) -> None:
        """Forget a stream: whoever waits for it fails, what still arrives for it is ignored."""
        stream = self._open.pop(number, None)
        if stream is not None:
            _count(stream, self._ended)
            stream.fail(ConnectionFailed(f"stream {number} is closed"))
        if number == self.latest:
            waiting = (other for other, stream in self._open.items() if _inbound(stream) is not None)
            self.latest = next(waiting, 0)
        self._link.stream_closed()

    def receive(self, number: int, content: Content) -> None:
        """A ``Data`` box arrived; raises `ProtocolError`, which ends the connection.

        To be followed by `delivered`, at once or after more boxes.
        """
        stream = self._expecting(number, "content")
        if stream is not None:
            stream.receive(content)
            self._receiving.add(stream)
            self.latest = number

    def receive_hole(self, number: int, length: int) -> None:
        """A ``Zeros`` box arrived; as for `receive`."""
        stream = self._expecting(number, "a hole")
        if stream is not None:
            stream.receive_hole(length)
            self._receiving.add(stream)

    def receive_compressed(self, box: CompressedBox) -> None:
        """A ``Compressed`` box arrived; as for `receive`."""
        if self._link.compression is None:
            raise ProtocolError("compressed content, which was not agreed")
        stream = self._expecting(box.stream, "content")
        if stream is not None:
            stream.receive_compressed(box)
            self._receiving.add(stream)
            self.latest = box.stream

    def _expecting(self, number: int, what: str) -> InboundStream | None:
        """The stream that ``what`` is for, None if it is closed; raises `ProtocolError` if it never expects any."""
        stream = _inbound(self._open.get(number))
        if stream is None and (number in self._open or not self._existed(number)):
            raise ProtocolError(f"{what} for stream {number}, which does not expect any")
        return stream

    def delivered(self) -> None:
        """All boxes of one delivery were received."""
        receiving, self._receiving = self._receiving, set()
        for stream in receiving:
            stream.delivered()

    def credited(self, number: int, amount: int) -> None:
        """A ``Credit`` arrived; raises `ProtocolError`."""
        if not 0 < amount <= MAX_CREDIT_BYTES:
            raise ProtocolError(f"{amount} bytes of credit at once")
        self._outbound(number, "credit", lambda stream: stream.give(amount))

    def stopped(self, number: int, error: RealizeError) -> None:
        """A ``StopStream`` arrived; raises `ProtocolError`."""
        self._outbound(number, "an end", lambda stream: stream.fail(error))

    def _outbound(self, number: int, what: str, act: _Act) -> None:
        stream = self._open.get(number)
        if isinstance(stream, OutboundStream):
            act(stream)
        elif number in self._open or not self._existed(number):
            raise ProtocolError(f"{what} for stream {number}, which sends nothing")

    def _existed(self, number: int) -> bool:
        return 0 < number <= (self._ours if number % 2 == self._ours % 2 else self._theirs)

    def lost(self, error: RealizeError) -> None:
        """The connection is gone: fail all streams, now and later.

        Content that has arrived and was not read yet can still be, until the stream is closed.
        """
        self._lost = error
        for number in list(self._open):
            receiving = _inbound(self._open.get(number))
            if receiving is not None:
                with _log.failuresHandled("while a connection ended"):
                    receiving.end(error)
                if receiving.unread:
                    continue
            stream = self._open.pop(number, None)
            if stream is not None:
                _count(stream, self._ended)
                with _log.failuresHandled("while a connection ended"):
                    stream.fail(error)


class _Act(Protocol):
    def __call__(self, stream: OutboundStream) -> None: ...
