"""The content of files on its way: streams under a window of credit.

Content is in ``Data`` boxes, what shrinks in ``Compressed`` ones, and holes are told by ``Zeros``.

A receiver gives credit, and a sender never sends more than that: this bounds the memory of the receiver however slow
its disk is.
The sender also waits while its transport is full: this bounds its own memory however slow the link is.

Stream numbers: the connecting side uses odd ones, the accepting side even ones, each in ascending order and never
twice.
So the last number tells which closed streams have existed; what arrives late for those is ignored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple, Protocol, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from realize.concurrency.memory import Share
from realize.errors import Busy, ConnectionFailed, ProtocolError, RealizeError
from realize.values import MAX_HOLE_BYTES, MAX_VALUE_BYTES, MIN_HOLE_BYTES, ZERO_BLOCK, Content, Hole, Piece
from realize.wire.boxes import CompressedBox, compressed, data_head, data_tail, zeros
from realize.wire.commands import HOLE_CREDIT_BYTES, MAX_CREDIT_BYTES, MAX_STREAMS, MIN_COMPRESSED_BYTES
from realize.wire.compression import (
    CHUNKS_PER_PORTION,
    MIN_PORTION_BYTES,
    STEP_BYTES,
    Compression,
    Hope,
    beginning,
    portions,
)
from realize.wire.send_queue import SendQueue
from realize.wire.traffic import Traffic
from realize.wire.windows import FIRST_WINDOW_BYTES, RoundTrip, StreamWindow

_log = Logger()

MIN_GRANT_BYTES: Final = 1 << 20
"""The least credit worth a box, in bytes, unless less content is left."""

AHEAD_BYTES: Final = 2 * MIN_GRANT_BYTES
"""Bytes that may be under way beyond the window: credit comes in steps, and takes time to arrive."""

MAX_NARROW_BYTES: Final = FIRST_WINDOW_BYTES + AHEAD_BYTES
"""Bytes of one stream that may be under way, or waiting for the consumer, before the link has shown that it takes more.

What the consumer works on, about `TAKE_BYTES`, comes on top.
"""

TAKE_BYTES: Final = 2 << 20
"""About how many bytes a consumer gets at once; while it works on them, the window goes on filling."""

WRITE_BATCH_BYTES: Final = 512 * 1024
"""About how many bytes of boxes are written at once to a transport without a limit."""

MAX_NOTED_WRITES: Final = 64
"""Writes of a stream whose way is followed one by one; those beyond it count as one."""

_FRAGMENT_BYTES: Final = 4096
"""Bytes: what came together and is shorter is collected until there is more."""

_LARGE_VIEW_BYTES: Final = 16 * 1024
"""Bytes that views must have on average to be kept instead of copied."""

_MAX_OUTSTANDING_BYTES: Final = MAX_CREDIT_BYTES * 4
"""Bytes of unused credit that a peer may give us."""


class Link(Protocol):
    """What streams need of a connection."""

    memory: Share
    """What the other end may make us hold."""

    bytes_sent: int
    """How many bytes were written so far."""

    sending: SendQueue
    """To be asked before content is written."""

    round_trip: RoundTrip
    """How long an answer of the other end takes."""

    compression: Compression | None
    """Compresses and expands content; None if not both ends know that."""

    @property
    def takes_holes(self) -> bool:
        """Whether the other end understands what says that content is a hole."""

    def now(self) -> float:
        """The time in seconds, of a clock that nobody sets."""

    def unsent(self) -> int:
        """How many of these bytes the machine at the other end has not confirmed, as far as can be known."""

    def write(self, data: bytes) -> None:
        """Send whole boxes."""

    def chunk(self) -> int:
        """How many bytes of content to write at once."""

    def grant(self, stream: int, amount: int) -> None:
        """Send credit."""

    def arriving(self, stream: int) -> int:
        """How many bytes of an unfinished box are probably content of that stream."""

    def expect(self, what: str) -> int:
        """Let the connection fail unless ``what`` comes in time; returns a ticket for `expected`."""

    def expected(self, ticket: int) -> None:
        """It has come, or nobody waits for it any more."""

    def stream_closed(self) -> None:
        """A stream was closed."""


class OutboundStream:
    """Content that we send."""

    def __init__(self, number: int, link: Link) -> None:
        self.number = number
        self.credit = 0
        self.content = 0
        """Bytes of content handed to the transport so far, without holes."""
        self.holes = 0
        """Bytes of content that were holes, and told as such."""
        self.saved = 0
        """Bytes of content that did not travel since it was compressed."""
        self._link = link
        self._hope = Hope()
        self._tail = data_tail(number)
        self._gone = 0
        self._travelled = 0
        self._noted: deque[_Write] = deque()
        self._error: RealizeError | None = None
        self._waiting: Deferred[None] | None = None

    def travelled(self) -> int:
        """Bytes of content that have left this machine, without holes; after the end, as many as were known then."""
        if self._error is None:
            position = self._link.bytes_sent - self._link.unsent()
            while self._noted and self._noted[0].end <= position:
                self._gone = self._noted.popleft().content
            self._travelled = self._gone
            if self._noted and self._noted[0].begin < position:
                first = self._noted[0]
                part = (position - first.begin) / (first.end - first.begin)
                self._travelled += int((first.content - self._gone) * part)
        return self._travelled

    @property
    def takes_holes(self) -> bool:
        """Whether the other end is told of holes; else it gets their zeros."""
        return self._link.takes_holes

    async def send(self, pieces: Sequence[Piece], *, apart: bool = False) -> None:
        """Send the pieces; done when the transport has them all.

        They are compressed where that makes it faster; if ``apart``, each piece alone, so that how much one shrinks
        says nothing of the others.
        Raises what the receiver stopped the stream with, or why the connection was lost.
        Only one call at a time.
        """
        compression, hope = self._link.compression, self._hope
        if compression is None:
            await self._send_plain(pieces)
            return
        while pieces:
            if not compression.wanted():
                part, pieces = beginning(pieces, compression.stride())
                await self._send_plain(part)
            elif hope.pause:
                before = self.content
                part, pieces = beginning(pieces, min(hope.pause, STEP_BYTES))
                await self._send_plain(part)
                hope.passed(self.content - before)
            else:
                part, pieces = beginning(pieces, STEP_BYTES if apart else hope.step)
                for is_hole, group in groupby(part, _is_hole):
                    if is_hole:
                        await self._send_plain(list(group))
                    else:
                        await self._send_shrunk(compression, cast("list[Content]", list(group)), apart=apart)

    async def _send_shrunk(self, compression: Compression, contents: Sequence[Content], *, apart: bool) -> None:
        """Send contents compressed, as far as they shrink."""
        most = min(MAX_VALUE_BYTES, max(MIN_PORTION_BYTES, CHUNKS_PER_PORTION * self._link.chunk()))
        tried = portions(contents, most, apart=apart)
        frames = await compression.shrink(tried, sampled=apart)
        if not apart:
            self._hope.tried(shrank=any(frames))
        for is_plain, group in groupby(zip(tried, frames, strict=True), lambda each: each[1] is None):
            if is_plain:
                await self._send_plain([content for content, _ in group])
            else:
                await self._send_frames([(len(content), frame) for content, frame in group if frame is not None])

    async def _send_frames(self, frames: Sequence[tuple[int, bytes]]) -> None:
        """Send frames, each with the length of its content."""
        boxes: list[Content] = []
        size = travelling = 0
        for length, frame in frames:
            if boxes and (self.credit < length or travelling >= self._link.chunk()):
                await self._flush(boxes, size, size - travelling)
                boxes, size, travelling = [], 0, 0
            await self.credited(length)
            self.credit -= length
            boxes += compressed(self.number, length, frame)
            size += length
            travelling += len(frame)
        await self._flush(boxes, size, size - travelling)

    async def _send_plain(self, pieces: Sequence[Piece]) -> None:
        """Send the pieces in boxes that each carry as many of them as fit."""
        boxes: list[Content] = []
        size = 0
        content: list[Content] = []
        length = room = 0
        batch = self._link.chunk()
        for piece in self._as_sent(pieces) if Hole in map(type, pieces) else pieces:
            if len(piece) < room and not isinstance(piece, Hole):
                # As with most small files: there is nothing to cut, or to send yet.
                content.append(piece)
                room -= len(piece)
                continue
            if isinstance(piece, Hole):
                if room:
                    boxes += self._box(content, length - room)
                    size += length - room
                    room = 0
                if self.credit < HOLE_CREDIT_BYTES and boxes:
                    await self._flush(boxes, size)
                    boxes, size = [], 0
                await self.credited(HOLE_CREDIT_BYTES)
                self.credit -= HOLE_CREDIT_BYTES
                self.holes += len(piece)
                boxes.append(zeros(self.number, len(piece)))
                continue
            rest = memoryview(piece)
            while rest:
                if not room:
                    if self._error is not None:
                        raise self._error
                    if size >= batch or (size and not self.credit):
                        await self._flush(boxes, size)
                        boxes, size = [], 0
                        batch = self._link.chunk()
                    if not self.credit:
                        await self.credited()
                    room = min(MAX_VALUE_BYTES, self.credit, batch)
                    content, length = [], room
                taken = rest[:room]
                rest = rest[len(taken) :]
                content.append(taken)
                room -= len(taken)
                if not room:
                    boxes += self._box(content, length)
                    size += length
        if room:
            boxes += self._box(content, length - room)
            size += length - room
        if boxes:
            await self._flush(boxes, size)

    def _box(self, content: Sequence[Content], length: int) -> tuple[Content, ...]:
        """A ``Data`` box of that content, whose ``length`` bytes use up credit."""
        self.credit -= length
        return data_head(length), *content, self._tail

    def _as_sent(self, pieces: Sequence[Piece]) -> Iterator[Piece]:
        """Yield the pieces, with zeros in place of those holes of which the other end is not to be told."""
        told = self.takes_holes
        for piece in pieces:
            if not isinstance(piece, Hole) or (told and MIN_HOLE_BYTES <= len(piece) <= MAX_HOLE_BYTES):
                yield piece
                continue
            for _ in range(len(piece) // len(ZERO_BLOCK)):
                yield ZERO_BLOCK
            yield memoryview(ZERO_BLOCK)[: len(piece) % len(ZERO_BLOCK)]

    async def credited(self, least: int = 1) -> None:
        """Wait until there are ``least`` bytes of credit; raises like `send`."""
        while self.credit < least and self._error is None:
            ticket = self._link.expect("with credit")
            try:
                await self._credited()
            finally:
                self._link.expected(ticket)
        if self._error is not None:
            raise self._error

    async def _flush(self, parts: list[Content], size: int, saved: int = 0) -> None:
        sending = self._link.sending
        waiting = sending.writable()
        while waiting is not None:
            await waiting
            waiting = sending.writable()
        if self._error is not None:
            raise self._error
        data = b"".join(parts)
        self.content += size
        self.saved += saved
        begin = self._link.bytes_sent
        self._link.write(data)
        if self._link.compression is not None:
            self._link.compression.wrote(begin)
        if len(self._noted) == MAX_NOTED_WRITES:
            begin = self._noted.pop().begin
        self._noted.append(_Write(begin, self._link.bytes_sent, self.content))

    def _credited(self) -> Deferred[None]:
        self._waiting = Deferred()
        return self._waiting

    def give(self, amount: int) -> None:
        """The receiver gave ``amount`` bytes of credit; raises `ProtocolError` if that is too much."""
        self.credit += amount
        if self.credit > _MAX_OUTSTANDING_BYTES:
            raise ProtocolError(f"{self.credit} bytes of credit")
        self._wake()

    def fail(self, error: RealizeError) -> None:
        """Make `send` fail, now and later; the first error counts."""
        if self._error is None:
            self._error = error
            self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)


class _Write(NamedTuple):
    """Where a write lies among all bytes of the link; the content of the stream up to its end."""

    begin: int
    end: int
    content: int


class InboundStream:
    """Content that we receive: ``limit`` bytes of it.

    Memory is claimed before credit is given, until the consumer is done with the content.
    Without the first MiB of credit nothing would go on, so memory for that is waited for; more only makes the sender
    faster, and is given while there is plenty.
    What the link takes beyond `MAX_NARROW_BYTES` is given from what nobody else wants.
    A hole takes no memory to speak of, but credit, and waits for the consumer like content.
    """

    def __init__(self, number: int, limit: int, link: Link) -> None:
        self.number = number
        self.limit = limit
        self.arrived = 0
        """Bytes of content that have come, holes among them."""
        self.holes = 0
        """Bytes of content that were told to be holes."""
        self.saved = 0
        """Bytes of content that did not travel since it was compressed."""
        self._link = link
        self._granted = 0
        """Up to where content may come."""
        self._cap: int | None = None
        """Up to where credit is given, if not to the end."""
        self._takes_holes = True
        self._leapt = 0
        """How much further holes have brought `arrived` than the credit that they used up."""
        self._window = StreamWindow()
        self._claim = link.memory.claim()
        self._asking = False
        """Whether we wait for memory."""
        self._taken = 0
        """Bytes that the consumer works on."""
        self._views: list[Content] = []
        self._pieces: list[Piece | CompressedBox] = []
        self._compressed = 0
        """How many of these are compressed."""
        self._fragments = bytearray()
        self._waiting: Deferred[list[Piece]] | None = None
        self._expanding: Deferred[Any] | None = None
        """What was compressed and is to be read next, or why it cannot be; None if nobody waits for that."""
        self._held = 0
        self._error: RealizeError | None = None

    @property
    def content(self) -> int:
        """Bytes of content that have arrived, without holes."""
        return self.arrived - self.holes

    def travelled(self) -> int:
        """Bytes of content that have arrived, without holes, including those of an unfinished box."""
        return min(self.limit, self.arrived + self._link.arriving(self.number)) - self.holes

    @property
    def unread(self) -> bool:
        """Whether there is content that has arrived, and that nobody has read yet."""
        return bool(self._held) or self._expanding is not None

    def cap(self, length: int) -> None:
        """Give credit for hardly more than ``length`` bytes, holes not counted: no more of it is wanted.

        To be called before `start`.
        """
        # If a hole comes next, there is enough to be told of it.
        self._cap = self.arrived + length + HOLE_CREDIT_BYTES

    def start(self) -> None:
        """Give the first credit."""
        self._grant()

    def promised(self) -> None:
        """The command that opened the stream gave credit for all of its content, which has no holes."""
        self._granted = self.limit
        self._takes_holes = False

    def matched(self, length: int) -> None:
        """``length`` bytes of the content need not be sent; raises `ProtocolError` if fewer are still to come."""
        if length > self.limit - self.arrived:
            raise ProtocolError("less is to be sent than has arrived")
        promised = min(self._granted, self.limit)
        self.limit -= length
        self._claim.shrink(promised - min(self._granted, self.limit))
        self._serve()

    def receive(self, content: Content) -> None:
        """A ``Data`` box arrived; raises `realize.errors.ProtocolError` if it was not allowed.

        ``content`` may be a view; it must stay valid until `delivered` is called.
        """
        self.arrived += len(content)
        if not content:
            raise ProtocolError("a Data box without content")
        self._check_arrived()
        if self._error is None:
            self._views.append(content)
            self._held += len(content)

    def _check_arrived(self) -> None:
        if self.arrived > self._granted:
            raise ProtocolError(f"stream {self.number}: more content than credit")
        if self.arrived > self.limit:
            raise ProtocolError(f"stream {self.number}: more content than announced")

    def receive_compressed(self, box: CompressedBox) -> None:
        """A ``Compressed`` box arrived; raises `realize.errors.ProtocolError` if it was not allowed."""
        length, frame = box.length, box.frame
        if not MIN_COMPRESSED_BYTES <= length <= MAX_VALUE_BYTES or not 0 < len(frame) < length:
            raise ProtocolError(f"stream {self.number}: {length} bytes compressed to {len(frame)}")
        self.arrived += length
        self.saved += length - len(frame)
        self._check_arrived()
        if self._error is None:
            self._gather()
            self._end_fragments()
            self._pieces.append(box)
            self._compressed += 1
            self._held += length

    def receive_hole(self, length: int) -> None:
        """A ``Zeros`` box arrived; raises `realize.errors.ProtocolError` if it was not allowed."""
        if not self._takes_holes or not MIN_HOLE_BYTES <= length <= MAX_HOLE_BYTES:
            raise ProtocolError(f"stream {self.number}: a hole of {length} bytes")
        usable = min(self._granted, self.limit) - self.arrived
        self.arrived += length
        self.holes += length
        self._granted += length - HOLE_CREDIT_BYTES
        if self._cap is not None:
            self._cap += length
        self._leapt += length - HOLE_CREDIT_BYTES
        self._check_arrived()
        if self._error is None:
            # What need not come any more takes no memory.
            self._claim.shrink(usable - HOLE_CREDIT_BYTES - (min(self._granted, self.limit) - self.arrived))
            self._gather()
            self._end_fragments()
            self._pieces.append(Hole(length))
            self._held += HOLE_CREDIT_BYTES

    def delivered(self) -> None:
        """All boxes of one delivery were received: keep their content alone, and serve whoever waits."""
        self._gather()
        self._serve()

    def read(self) -> Deferred[list[Piece]]:
        """Return the next content: about `TAKE_BYTES` at most, waiting for some if necessary; an empty list at the end.

        The last of the pieces may be a hole that is longer.

        The caller is done with what it got before, so new credit may be given.
        Fails with the error of `fail`, or with that of `end` once all is read that has arrived.
        If it is cancelled, the next call returns what this one would have.
        """
        if self._expanding is not None:
            return self._hand(self._expanding, Deferred())
        if self._error is not None and not self._held:
            self._claim.release()
            return fail(self._error)
        self._claim.shrink(self._taken)
        self._taken = 0
        if self._held or self.arrived >= self.limit:
            taken = self._take()
            self._grant()
            return taken if self._expanding is None else self._hand(taken, Deferred())
        self._grant()
        self._waiting = Deferred(self._forget)
        return self._waiting

    def end(self, error: RealizeError) -> None:
        """Nothing more will come: let `read` return what has arrived, and then fail with ``error``.

        To be followed by `fail` if nobody reads on: what was not read takes memory.
        """
        if self._error is not None:
            return
        self.delivered()
        if not self.unread:
            self.fail(error)
            return
        self._error = error
        self._claim.shrink(min(self._granted, self.limit) - self.arrived)

    def fail(self, error: RealizeError) -> None:
        """Make `read` fail, now and later, and drop all that was not read; the first error counts."""
        if self._error is None:
            self._error = error
        self._claim.release()
        self._views.clear()
        self._pieces.clear()
        self._fragments.clear()
        self._held = self._compressed = 0
        self._expanding = None
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(self._error)

    def _forget(self, _: Deferred[list[Piece]]) -> None:
        self._waiting = None

    def _serve(self) -> None:
        if self._waiting is None or self._expanding is not None:
            return
        if self._held or self.arrived >= self.limit:
            taken = self._take()
            self._grant()
            # Without threads, it was told already that something could not be expanded.
            if self._waiting is not None:
                self._hand(taken, self._waiting)

    def _hand(self, taken: Deferred[Any], reader: Deferred[list[Piece]]) -> Deferred[list[Piece]]:
        """Tell the reader what was taken, or why it cannot be read; one that is cancelled leaves it to the next.

        Until then it goes on waiting: whatever fails in between ends the connection, and that tells it.
        """

        def tell(found: list[Piece] | Exception) -> Any:
            if reader.called:
                return found
            self._expanding = self._waiting = None
            reader.callback(found) if isinstance(found, list) else reader.errback(found)
            return None

        def lost(failure: Failure) -> None:
            """Tell the reader that it could not be told: else it would wait for ever."""
            if not reader.called:
                self._waiting = None
                reader.errback(failure)

        taken.addCallback(tell).addErrback(lost)
        return reader

    def _gather(self) -> None:
        """Append what has come since the last time to what is there.

        A window full of tiny boxes must not become millions of objects, nor a small view keep a large buffer alive.
        """
        views = self._views
        if _worth_keeping(views):
            self._end_fragments()
            self._pieces += views
        elif sum(map(len, views)) < _FRAGMENT_BYTES:
            self._fragments += b"".join(views)
        else:
            self._end_fragments()
            self._pieces.append(b"".join(views))
        views.clear()

    def _end_fragments(self) -> None:
        if self._fragments:
            self._pieces.append(bytes(self._fragments))
            self._fragments.clear()

    def _take(self) -> Deferred[Any]:
        self._gather()
        self._end_fragments()
        count = size = held = 0
        compression = self._link.compression if self._compressed else None
        while size < TAKE_BYTES and count < len(self._pieces):
            piece = self._pieces[count]
            length = piece.length if isinstance(piece, CompressedBox) else len(piece)
            size += length
            held += HOLE_CREDIT_BYTES if isinstance(piece, Hole) else length
            count += 1
        pieces = self._pieces[:count]
        del self._pieces[:count]
        self._held -= held
        self._taken += held
        if compression is None:
            return succeed(cast("list[Piece]", pieces))
        self._compressed -= sum(isinstance(piece, CompressedBox) for piece in pieces)
        self._expanding = compression.expand(pieces)
        return self._expanding.addErrback(self._not_expanded)

    def _not_expanded(self, failure: Failure) -> Any:
        """Take nothing more of a peer that sends what is no frame; returns the error."""
        error: Any = failure.value
        if isinstance(error, RealizeError):
            self.fail(error.with_traceback(None))
        return error

    def _grant(self) -> None:
        left = (self.limit if self._cap is None else min(self.limit, self._cap)) - self._granted
        if left <= 0 or self._error is not None:
            return
        round_trip = self._link.round_trip
        known = round_trip.look()
        if round_trip.probing:
            window = 0
        else:
            self._window.fit(self.arrived - self._leapt, self._link.now(), known)
            window = self._window.bytes
        unread = self._granted - self.arrived + self._held
        amount, least = min(window + AHEAD_BYTES - unread, left), min(MIN_GRANT_BYTES, left)
        if amount < least:
            return
        narrow = min(amount, MAX_NARROW_BYTES - unread)
        if narrow < least:
            given = self._claim.widen(amount, least)
        elif self._claim.try_grow(narrow):
            given = narrow + self._claim.widen(amount - narrow, 1)
        elif self._claim.try_grow(first := min(narrow, MIN_GRANT_BYTES)):
            given = first
        else:
            given = 0
            if unread < MIN_GRANT_BYTES:
                self._ask(first)
        if given:
            self._promise(given)

    def _ask(self, amount: int) -> None:
        """Give ``amount`` bytes of credit as soon as there is memory: without it nothing would go on."""
        if not self._asking:
            self._asking = True
            self._claim.grow(amount).addCallbacks(lambda _: self._promise(amount), lambda _: None)

    def _promise(self, amount: int) -> None:
        self._asking = False
        self._granted += amount
        self._link.grant(self.number, amount)


def _is_hole(piece: Piece) -> bool:
    return isinstance(piece, Hole)


def _worth_keeping(views: Sequence[Content]) -> bool:
    """Whether to keep views: they are large, and what they keep alive is little more than what they show."""
    size = kept = 0
    looked_at: object = None
    for view in views:
        size += len(view)
        owner: Any = view.obj if isinstance(view, memoryview) else view
        if owner is not looked_at:
            looked_at = owner
            kept += len(owner)
    return size >= _LARGE_VIEW_BYTES * len(views) and 3 * kept <= 4 * size


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
            waiting = (other for other, stream in self._open.items() if isinstance(stream, InboundStream))
            self.latest = next(waiting, 0)
        self._link.stream_closed()

    def receive(self, number: int, content: Content) -> None:
        """A ``Data`` box arrived; raises `ProtocolError`, which ends the connection.

        To be followed by `delivered`, at once or after more boxes.
        """
        stream = self._open.get(number)
        if isinstance(stream, InboundStream):
            stream.receive(content)
            self._receiving.add(stream)
            self.latest = number
        elif number in self._open or not self._existed(number):
            raise ProtocolError(f"content for stream {number}, which does not expect any")

    def receive_hole(self, number: int, length: int) -> None:
        """A ``Zeros`` box arrived; as for `receive`."""
        stream = self._open.get(number)
        if isinstance(stream, InboundStream):
            stream.receive_hole(length)
            self._receiving.add(stream)
        elif number in self._open or not self._existed(number):
            raise ProtocolError(f"a hole for stream {number}, which does not expect any")

    def receive_compressed(self, box: CompressedBox) -> None:
        """A ``Compressed`` box arrived; as for `receive`."""
        if self._link.compression is None:
            raise ProtocolError("compressed content, which was not agreed")
        number = box.stream
        stream = self._open.get(number)
        if isinstance(stream, InboundStream):
            stream.receive_compressed(box)
            self._receiving.add(stream)
            self.latest = number
        elif number in self._open or not self._existed(number):
            raise ProtocolError(f"content for stream {number}, which does not expect any")

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
            stream = self._open.get(number)
            if isinstance(stream, InboundStream):
                with _log.failuresHandled("while a connection ended"):
                    stream.end(error)
                if stream.unread:
                    continue
            stream = self._open.pop(number, None)
            if stream is not None:
                _count(stream, self._ended)
                with _log.failuresHandled("while a connection ended"):
                    stream.fail(error)


class _Act(Protocol):
    def __call__(self, stream: OutboundStream) -> None: ...
