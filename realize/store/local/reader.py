"""`LocalReader`: one file of this machine, read from start to end while it is hashed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from attrs import frozen
from blake3 import blake3
from twisted.internet.defer import Deferred, DeferredLock
from zope.interface import implementer

from realize.by_value import ByValue
from realize.concurrency.memory import Share
from realize.concurrency.shielded import RunInThread, disposing, shielded
from realize.errors import NotFound, RealizeError, SourceChanged
from realize.fs.descriptors import release
from realize.fs.handle import Handle
from realize.fs.holes import holes_are_sure, next_content, next_hole, sure_hole
from realize.fs.oserrors import Deed, storage_error, storage_errors
from realize.fs.reading import block_digest, blocks, hash_zeros, read_exactly, read_into
from realize.fs.syscalls import fresh_fstat, fresh_stat
from realize.fs.tree import identity_of
from realize.store.deltas import cut, cut_zeros
from realize.store.interfaces import IReader
from realize.store.local.hard_links import HardLinks
from realize.store.local.location import RootedLocation
from realize.store.local.versions import (
    Clock,
    attributes_of,
    has_more,
    open_settled,
    refuse_written,
    version_of,
    wrong_size,
)
from realize.store.transfer_state import ReadPhase, ReadState
from realize.units import display_name
from realize.values import (
    BLOCK_BYTES,
    MAX_HOLE_BYTES,
    MIN_HOLE_BYTES,
    SLICE_BYTES,
    SPAN_BYTES,
    Attributes,
    Chunk,
    Hole,
    Piece,
    Version,
)

READ_PIECE_BYTES: Final = 2 * BLOCK_BYTES
"""Bytes of one read: going into a thread and back costs as much as reading half of them."""


@frozen(eq=False, repr=False)
class _HashState(ByValue):
    """How far the file was read, and a hasher of everything before that; never updated in place.

    ``verified`` says that the file was checked again after its end had been read.
    From ``position`` on there is a hole up to ``hole``, and then content up to ``content``; what is behind both was not
    looked at.
    """

    position: int
    hasher: blake3
    verified: bool = False
    hole: int = 0
    content: int = 0


@frozen(eq=False, repr=False)
class SourceFile(ByValue):
    """A file that is open for reading, and what can be done to it in a thread."""

    location: RootedLocation
    path: bytes
    handle: Handle
    version: Version
    attributes: Attributes
    unlinked: HardLinks
    content: int
    """Where the first hole may be."""
    allocated: int | None
    """Bytes that the content takes, None if the file has no holes."""

    @classmethod
    def open(
        cls,
        location: RootedLocation,
        path: bytes,
        clock: Clock,
        unlinked: HardLinks,
        removing: bool,  # noqa: FBT001 -- what runs in a thread is called like this
    ) -> SourceFile:
        """Open a regular, settled file; one that is to be removed afterwards must not be open for writing elsewhere."""
        directory, name = location.split(path)
        with location.tree() as tree, storage_errors(path, Deed.READ):
            fd, status = open_settled(tree, directory, name, path, clock)
            try:
                if removing:
                    refuse_written(fd, path)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
                size = status.st_size
                content = next_hole(fd, 0, size) if next_content(fd, 0, size) == 0 else 0
                allocated = min(size, status.st_blocks * 512) if content < size else None
                version, attributes = version_of(status), attributes_of(status)
                return cls(location, path, Handle(fd), version, attributes, unlinked, content, allocated)
            except BaseException:
                release(fd)
                raise

    def piece(self, progress: _HashState) -> tuple[list[Piece], _HashState]:
        """Read the next pieces; the last call verifies the file, too, which saves a trip into a thread."""
        size = self.version.size
        position, hole, content = progress.position, progress.hole, progress.content
        hasher = progress.hasher.copy()
        pieces: list[Piece] = []
        left, left_in_holes = READ_PIECE_BYTES, MAX_HOLE_BYTES
        with self.handle as fd, storage_errors(self.path):
            while position < size and left and left_in_holes >= MIN_HOLE_BYTES:
                if position >= max(hole, content):
                    hole = next_content(fd, position, size)
                    content = _end_of_content(fd, max(hole, position + 1), size, left)
                length = min(hole - position, left_in_holes)
                if length >= MIN_HOLE_BYTES and holes_are_sure(fd):
                    hash_zeros(hasher, length)
                    pieces.append(Hole(length))
                    left_in_holes -= length
                else:
                    end = max(content, position + 1) if length < MIN_HOLE_BYTES else hole
                    length = min(left, end - position)
                    piece = read_exactly(fd, length, position)
                    if len(piece) < length:
                        raise self._ended_early(fd)
                    hasher.update(piece)
                    empty = position < hole and length >= MIN_HOLE_BYTES and _are_zeros(piece)
                    pieces.append(Hole(length) if empty else piece)
                    left -= length
                position += length
        if last := position == size:
            self.verify()
        return pieces, _HashState(position, hasher, last, hole, content)

    def span(self, progress: _HashState, buffer: memoryview) -> tuple[list[Chunk], _HashState]:
        """Return the chunks of the next span and the progress behind them; ``buffer`` must hold a whole span."""
        content = buffer[: self.version.size - progress.position]
        with self.handle as fd, storage_errors(self.path):
            end = progress.position + len(content)
            if sure_hole(fd, progress.position, end) == end:
                hasher = progress.hasher.copy()
                hash_zeros(hasher, len(content))
                return cut_zeros(len(content)), _HashState(end, hasher)
            count = read_into(fd, content, progress.position)
            if count < len(content):
                raise self._ended_early(fd)
        return cut(content), _HashState(progress.position + len(content), _updated(progress.hasher, content))

    def parts(self, parts: Sequence[tuple[int, int]]) -> list[Piece]:
        """Read some parts, each given by its offset and length in bytes; one that is a hole is not read."""
        with self.handle as fd, storage_errors(self.path):
            pieces = [_part(fd, offset, length) for offset, length in parts]
            if any(len(piece) < length for piece, (_, length) in zip(pieces, parts, strict=True)):
                raise self._ended_early(fd)
        return pieces

    def look(self, progress: _HashState, length: int) -> tuple[list[bytes], _HashState]:
        """Return the digests of the blocks of the next ``length`` bytes, and the progress behind them."""
        hasher = progress.hasher.copy()
        digests: list[bytes] = []
        position = progress.position
        with self.handle as fd, storage_errors(self.path):
            for block in blocks(fd, length, position):
                digests.append(block_digest(block))
                hasher.update(block)
                position += len(block)
            if position != progress.position + length:
                raise self._ended_early(fd)
        return digests, _HashState(position, hasher)

    def verify(self) -> None:
        """Raise `SourceChanged` unless it is still the file that was opened, `WrongSize` unless it ends at its size."""
        directory, name = self.location.split(self.path)
        with self.handle as fd, self.location.tree() as tree:
            try:
                more = has_more(fd, self.version.size)
                named = fresh_stat(name, tree.directory(directory))
                same = identity_of(named) == (self.version.device, self.version.inode)
                if same and self._unchanged(fd):
                    if more:
                        raise wrong_size(self.path, self.version.size, more=True)
                    return
            except (FileNotFoundError, NotFound):
                pass
            except (OSError, MemoryError) as error:
                raise storage_error(error, self.path) from error
        raise SourceChanged(f"{display_name(self.path)}: changed while it was read")

    def _unchanged(self, fd: int) -> bool:
        return self.unlinked.same(self.version, version_of(fresh_fstat(fd)))

    def _ended_early(self, fd: int) -> RealizeError:
        """Return the error for a file that has less content than its size says."""
        if self._unchanged(fd):
            return wrong_size(self.path, self.version.size, more=False)
        return SourceChanged(f"{display_name(self.path)}: became shorter while it was read")


def _updated(hasher: blake3, piece: bytes | memoryview) -> blake3:
    copy = hasher.copy()
    copy.update(piece)
    return copy


def _end_of_content(fd: int, start: int, end: int, most: int) -> int:
    """Return where the content ends that begins at ``start``; holes that are too short to be told are part of it.

    Of content with such holes, about ``most`` bytes are looked at.
    """
    content = next_hole(fd, start, end)
    while content < end and content - start < most:
        behind = next_content(fd, content, end)
        if behind - content >= MIN_HOLE_BYTES or behind == content:
            break
        content = next_hole(fd, behind, end)
    return content


def _are_zeros(piece: bytes) -> bool:
    return piece == bytes(len(piece))


def _part(fd: int, offset: int, length: int) -> Piece:
    is_hole = length >= MIN_HOLE_BYTES and sure_hole(fd, offset, offset + length) == offset + length
    return Hole(length) if is_hole else read_exactly(fd, length, offset)


@implementer(IReader)
class LocalReader:
    """A local file being read; the next piece is read ahead while the caller is busy with the last one."""

    deltas = True

    def __init__(
        self,
        source: SourceFile,
        run_in_thread: RunInThread,
        on_closed: Callable[[LocalReader], None],
        memory: Share,
    ) -> None:
        """Pieces are claimed from ``memory``, and given back when the caller asks for the next one."""
        self.version = source.version
        self.attributes = source.attributes
        self.allocated = source.allocated
        self._source = source
        self._run_in_thread = run_in_thread
        self._on_closed = on_closed
        self._dispose = disposing(run_in_thread)
        self._claim = memory.claim()
        self._given = 0
        """Bytes of the piece that the caller is busy with."""
        self._order = ReadState(source.version.size, source.path)
        self._progress = _HashState(0, blake3(), content=source.content)
        self._looked = self._progress
        self._ahead: Deferred[tuple[list[Piece], _HashState]] | None = None
        self._ahead_bytes = 0
        self._behind: deque[_HashState] = deque()
        """The progress behind each span that was cut and not picked yet."""
        self._cutting = DeferredLock()
        self._buffer: memoryview | None = None

    @shielded
    async def block_digests(self, length: int) -> list[bytes]:
        """See `IReader`; skipping just these bytes does not read them again."""
        self._order.look(length)
        self._stand()
        digests, self._looked = await self._look(length)
        return digests

    @shielded
    async def skip(self, length: int) -> None:
        """See `IReader`."""
        self._order.look(length)
        self._stand()
        if self._looked.position != self._progress.position + length:
            _, self._looked = await self._look(length)
        self._progress = self._looked
        self._order.position += length

    def _stand(self) -> None:
        """Read no further ahead: what comes next is looked at first."""
        self._order.stand()
        self._drop_ahead()

    async def _look(self, length: int) -> tuple[list[bytes], _HashState]:
        """Look at the next bytes a slice at a time, so that closing the file stops it."""
        digests: list[bytes] = []
        looked, end = self._progress, self._progress.position + length
        while looked.position < end:
            some: list[bytes]
            some, looked = await self._run_in_thread(self._source.look, looked, min(SLICE_BYTES, end - looked.position))
            digests += some
        return digests, looked

    def at_most(self, size: int) -> None:
        """See `IReader`; what is read ahead here has not travelled."""

    def stop(self) -> None:
        """See `IReader`; nothing has travelled."""
        self.close()

    @shielded
    async def cut(self) -> list[Chunk]:
        """See `IReader`; content is not kept for `pick`, which reads it again."""
        self._stand()
        await self._cutting.acquire()
        try:
            self._order.make_way()
            before = self._behind[-1] if self._behind else self._progress
            if before.position == self.version.size:
                return []
            if self._buffer is None:
                self._buffer = memoryview(bytearray(SPAN_BYTES))
            chunks: list[Chunk]
            chunks, behind = await self._run_in_thread(self._source.span, before, self._buffer)
            self._order.was_cut([length for length, _ in chunks])
            if self._order.phase is ReadPhase.STANDING:
                self._behind.append(behind)
            return chunks
        finally:
            self._cutting.release()

    @shielded
    async def pick(self, wanted: Sequence[bool]) -> list[Piece]:
        """See `IReader`."""
        parts = self._order.pick(wanted).parts
        self._progress = self._behind.popleft()
        pieces: list[Piece] = await self._run_in_thread(self._source.parts, parts) if parts else []
        return pieces

    @shielded
    async def read(self) -> list[Piece]:
        """See `IReader`."""
        if self._order.phase is not ReadPhase.FLOWING:
            self._order.flow()
            self._behind.clear()
        self._buffer = None
        self._claim.shrink(self._given)
        self._given = 0
        if self._progress.position == self.version.size:
            return []
        if self._ahead is None:
            length = self._next
            await self._claim.grow(length)
            self._read_ahead(length)
        ahead, self._ahead = self._ahead, None
        assert ahead is not None  # noqa: S101 -- for the type checker
        self._given = self._ahead_bytes
        pieces, self._progress = await ahead
        self._order.position = self._progress.position
        if self._progress.verified:
            self._let_go()
        elif not self._source.handle.closed and self._claim.try_grow(length := self._next):
            self._read_ahead(length)
        return pieces

    @shielded
    async def finish(self) -> bytes:
        """See `IReader`."""
        self._order.finish()
        if not self._progress.verified:
            await self._run_in_thread(self._source.verify)
        return self._progress.hasher.digest()

    def close(self) -> None:
        """See `IReader`; the file is closed as soon as no thread reads it."""
        try:
            self._drop_ahead()
        finally:
            self._claim.release()
            self._let_go()
            self._on_closed(self)

    def _let_go(self) -> None:
        self._source.handle.close(self._dispose)

    @property
    def _next(self) -> int:
        """Bytes of the next piece."""
        return min(READ_PIECE_BYTES, self.version.size - self._progress.position)

    def _read_ahead(self, length: int) -> None:
        self._ahead_bytes = length
        self._ahead = self._run_in_thread(self._source.piece, self._progress)

    def _drop_ahead(self) -> None:
        """Forget the piece that was read ahead; the progress does not include it yet."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            self._claim.shrink(self._ahead_bytes)
            ahead.addErrback(lambda _: None)  # what nobody wants may as well fail
