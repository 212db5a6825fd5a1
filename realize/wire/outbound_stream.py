"""Content that we send: never more than the receiver gave credit for, and never more than the transport takes.

Where that makes it faster it is compressed, and holes are told instead of sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from twisted.internet.defer import Deferred

from realize.errors import ProtocolError, RealizeError
from realize.values import MAX_HOLE_BYTES, MAX_VALUE_BYTES, MIN_HOLE_BYTES, ZERO_BLOCK, Content, Hole, Piece
from realize.wire.boxes import compressed, data_head, data_tail, zeros
from realize.wire.commands import HOLE_CREDIT_BYTES, MAX_CREDIT_BYTES
from realize.wire.compression import (
    CHUNKS_PER_PORTION,
    MIN_PORTION_BYTES,
    STEP_BYTES,
    Compression,
    Hope,
    beginning,
    portions,
)

if TYPE_CHECKING:
    from realize.wire.stream_link import Link

WRITE_BATCH_BYTES: Final = 512 * 1024
"""About how many bytes of boxes are written at once to a transport without a limit."""

MAX_NOTED_WRITES: Final = 64
"""Writes of a stream whose way is followed one by one; those beyond it count as one."""

_MAX_OUTSTANDING_BYTES: Final = MAX_CREDIT_BYTES * 4
"""Bytes of unused credit that a peer may give us."""


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


def _is_hole(piece: Piece) -> bool:
    return isinstance(piece, Hole)
