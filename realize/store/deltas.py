"""Deltas: content-defined chunking, and finding the chunks of a new version of a file in an old one.

Pure: all reading is done by a function that the caller supplies.

The source cuts the new version into chunks (`cut`); the destination looks each of them up in the old version (`Search`)
and requests only those it does not find; `Assembly` builds the new version from both.
A chunk is first looked for right behind the one found before it, as if bytes had only been overwritten since; that
costs one comparison and no memory.
Only when this has found nothing for a while is the old version cut too, a segment at a time around the offset of the
last match, until a chunk is found again.

The digest of a chunk proves nothing, and need not: the digest of the whole file is verified before the file gets its
final name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import takewhile
from typing import TYPE_CHECKING, Final, TypeAlias

from xxhash import xxh3_128_digest

from realize.errors import VerifyFailed
from realize.values import MAX_CHUNK_BYTES, MIN_HOLE_BYTES, ZERO_BLOCK, Chunk, Hole, Piece, extent

if TYPE_CHECKING:
    from pyfastcdc import FastCDC

Read: TypeAlias = Callable[[int, memoryview], int]
"""``read(offset, view)`` fills ``view`` from ``offset`` on and returns the number of bytes read, which is smaller than
the view only at the end of the file."""

ByteRun: TypeAlias = tuple[int, int | None]
"""A length in bytes, and the offset of these bytes in the old version.

None if they have to be sent; `EMPTY` if they are zeros.
"""

EMPTY: Final = -1
"""Stands for an offset: the bytes are zeros, and need not be taken from anywhere."""

MIN_CHUNK_BYTES: Final = 4 << 10
"""Shorter chunks are never looked up: that costs as much as for a long one, and saves little."""

_AVERAGE_CHUNK_BYTES: Final = 8 << 10
_MAX_CUT_BYTES: Final = 16 << 10
_NORMALIZATION_LEVEL: Final = 3
"""Keeps nearly all chunks close to the average size: a change of one byte then costs one chunk of that size."""

_LOOK_AHEAD_BYTES: Final = 256 << 10
"""Read at once where consecutive chunks are expected."""

_SEGMENT_BYTES: Final = 1 << 20
"""The old version is indexed in segments of this size."""

_SEGMENTS_AT_ONCE: Final = 64
"""Segments that one call of `Search.find` may index."""

_READ_BYTES: Final = 1 << 20
"""The largest piece that `Assembly.written` yields from its own buffer."""

_LOST_AFTER_BYTES: Final = 64 << 10
"""Once this much in a row was not found, segments of the old version are indexed."""

_MAX_ANCHORS: Final = 4
"""Shifts and last matches that `Search` remembers."""

_MAX_REMEMBERED_CHUNKS: Final = 1 << 15
"""Chunks that an `Index` holds."""


def _cutter() -> FastCDC:
    # Imported here because it takes some milliseconds, and most runs cut nothing.
    from pyfastcdc import FastCDC

    return FastCDC(
        _AVERAGE_CHUNK_BYTES,
        min_size=MIN_CHUNK_BYTES,
        max_size=_MAX_CUT_BYTES,
        normalized_chunking=_NORMALIZATION_LEVEL,
    )


def cut(content: bytes | memoryview) -> list[Chunk]:
    """Return the chunks of ``content``, each of at least `MIN_CHUNK_BYTES` unless all of it is shorter."""
    chunks = [(chunk.length, xxh3_128_digest(chunk.data)) for chunk in _cutter().cut_buf(content)]
    if len(chunks) > 1 and chunks[-1][0] < MIN_CHUNK_BYTES:
        length = chunks.pop()[0] + chunks.pop()[0]
        chunks.append((length, xxh3_128_digest(memoryview(content)[-length:])))
    return chunks


@cache
def _chunk_of_zeros() -> Chunk:
    return _MAX_CUT_BYTES, xxh3_128_digest(ZERO_BLOCK[:_MAX_CUT_BYTES])


def cut_zeros(length: int) -> list[Chunk]:
    """Return what `cut` returns for this many zeros."""
    count, rest = divmod(length, _MAX_CUT_BYTES)
    chunks = [_chunk_of_zeros()] * count
    if rest:
        if rest < MIN_CHUNK_BYTES and chunks:
            rest += chunks.pop()[0]
        chunks.append((rest, xxh3_128_digest(ZERO_BLOCK[:rest])))
    return chunks


def merged(chunks: Sequence[Chunk], offsets: Sequence[int | None]) -> list[ByteRun]:
    """Return the chunks as runs, joining neighbours if both are missing, or zeros, or neighbours in the old version."""
    runs: list[ByteRun] = []
    for (length, _), offset in zip(chunks, offsets, strict=True):
        if runs:
            before, start = runs[-1]
            if offset == (start if start in {None, EMPTY} else start + before):
                runs[-1] = before + length, start
                continue
        runs.append((length, offset))
    return runs


class Index:
    """Offsets of chunks in the old version, by digest.

    Memory is bounded: above ``most`` chunks, those with a certain bit set in their digest, about half, are dropped, and
    such chunks are ignored from then on.
    One match among many chunks is enough to resume: those after it are found by their offset.
    """

    def __init__(self, most: int = _MAX_REMEMBERED_CHUNKS) -> None:
        self._most = most
        self._mask = 0
        self._offsets: dict[bytes, int] = {}

    def add(self, digest: bytes, offset: int) -> None:
        """Remember the offset of a chunk, unless one with the same digest is known."""
        if self._is_kept(digest):
            self._offsets.setdefault(digest, offset)
            while len(self._offsets) > self._most:
                self._mask = self._mask << 1 | 1
                self._offsets = {kept: offset for kept, offset in self._offsets.items() if self._is_kept(kept)}

    def _is_kept(self, digest: bytes) -> bool:
        return not self._mask or not int.from_bytes(digest[:4], "big") & self._mask

    def get(self, digest: bytes) -> int | None:
        """Return the offset of a chunk with this digest, or None."""
        return self._offsets.get(digest)

    def __len__(self) -> int:
        """Number of chunks known."""
        return len(self._offsets)


class Search:
    """Finds the chunks of a new version, in order, in an old one of ``size`` bytes.

    ``position`` is the offset of the first chunk in the new version.

    Security: whether a chunk is found reveals content of the old version, and the peer chooses the chunks.
    One that knows `MIN_CHUNK_BYTES` - 1 consecutive bytes can offer them with each of the 256 values of the next byte,
    see which is found, and so read on byte by byte; nothing in this class prevents that.
    So it may only serve a peer that may read the file, or search a file proven to hold only what that peer has sent
    (`realize.store.local.old_version.OldVersion.prove`).
    """

    def __init__(self, size: int, read: Read, *, position: int = 0) -> None:
        self._size = size
        self._read = read
        self._position = position
        self._index = Index()
        self._segments: set[int] = set()
        # A shift is the offset of a chunk in the old version minus that in the new one; latest first.
        self._shifts: deque[int] = deque([0], maxlen=_MAX_ANCHORS)
        self._anchors: deque[int] = deque(maxlen=_MAX_ANCHORS)
        self._missed = 0
        self._buffer = memoryview(bytearray(_LOOK_AHEAD_BYTES))
        self._spare = memoryview(bytearray(MAX_CHUNK_BYTES))
        self._start = 0
        self._ahead = self._buffer[:0]

    def find(self, chunks: Sequence[Chunk]) -> list[int | None]:
        """Return the offset of each chunk in the old version, None for those not found; some of these may be there.

        The longest chunk that `cut` makes, if it is of zeros, is always found, as `EMPTY`: that needs no old version.

        Apart from what it compares, it reads at most `_SEGMENTS_AT_ONCE` segments for the index.
        """
        offsets: list[int | None] = [None] * len(chunks)
        budget, first = _SEGMENTS_AT_ONCE, 0
        while True:
            self._follow(chunks, offsets, first)
            lost = len(chunks) - sum(1 for _ in takewhile(lambda offset: offset in {None, EMPTY}, reversed(offsets)))
            missing = [number for number in range(lost, len(chunks)) if offsets[number] is None]
            if not missing or self._missed < _LOST_AFTER_BYTES:
                return offsets
            budget = self._explore({chunks[number][1] for number in missing}, budget)
            if not budget:
                return offsets
            # Once more, beginning with the first chunk after the last match.
            self._position -= extent(chunks[lost:])
            self._missed -= sum(chunks[number][0] for number in missing)
            first = lost

    def _follow(self, chunks: Sequence[Chunk], offsets: list[int | None], first: int) -> None:
        zeros = _chunk_of_zeros()
        for number in range(first, len(chunks)):
            length, digest = chunks[number]
            if digest == zeros[1] and length == zeros[0]:
                offsets[number] = EMPTY
                self._position += length
                continue
            offset = self._locate(length, digest)
            offsets[number] = offset
            if offset is not None:
                if self._missed:
                    self._extend_back(chunks, offsets, number)
                self._missed = 0
            else:
                if not self._missed:
                    self._anchors.appendleft(self._position + self._shifts[0])
                self._missed += length
            self._position += length

    def _extend_back(self, chunks: Sequence[Chunk], offsets: list[int | None], found: int) -> None:
        """Look for the chunks before ``found`` at its shift, too: after a gap, cutting takes some chunks to realign."""
        offset = self._position + self._shifts[0]
        for number in range(found - 1, -1, -1):
            length, digest = chunks[number]
            offset -= length
            if (
                offsets[number] is not None
                or length < MIN_CHUNK_BYTES
                or not self._is_at(offset, length, digest, near=False)
            ):
                return
            offsets[number] = offset

    def _locate(self, length: int, digest: bytes) -> int | None:
        if length < MIN_CHUNK_BYTES:
            return None
        shifts = self._shifts
        offset = self._position + shifts[0]
        if self._is_at(offset, length, digest, near=True):
            return offset
        for shift in list(shifts)[1:]:
            offset = self._position + shift
            if self._is_at(offset, length, digest, near=False):
                shifts.remove(shift)
                shifts.appendleft(shift)
                return offset
        known = self._index.get(digest)
        if known is not None and self._is_at(known, length, digest, near=False):
            shifts.appendleft(known - self._position)
            return known
        return None

    def _is_at(self, offset: int, length: int, digest: bytes, *, near: bool) -> bool:
        if not 0 <= offset <= self._size - length:
            return False
        content = self._look(offset, length, near=near)
        # It is shorter if the old version was truncated meanwhile.
        return len(content) == length and xxh3_128_digest(content) == digest

    def _look(self, offset: int, length: int, *, near: bool) -> memoryview:
        start = offset - self._start
        if start < 0 or start + length > len(self._ahead):
            if not near:
                return self._spare[: self._read(offset, self._spare[:length])]
            self._start, start = offset, 0
            self._ahead = self._buffer[: self._read(offset, self._buffer)]
        return self._ahead[start : start + length]

    def _explore(self, digests: set[bytes], budget: int) -> int:
        """Index segments until one contains a chunk of ``digests``; return the rest of the budget, 0 if none did."""
        for segment in self._unexplored():
            self._segments.add(segment)
            offset, found = segment * _SEGMENT_BYTES, False
            content = memoryview(bytearray(_SEGMENT_BYTES))
            for length, digest in cut(content[: self._read(offset, content)]):
                self._index.add(digest, offset)
                offset += length
                found = found or (digest in digests and self._index.get(digest) is not None)
            budget -= 1
            if found or not budget:
                return budget
        return 0

    def _unexplored(self) -> Iterator[int]:
        """Yield the segments that are not indexed yet, from the last matches onwards, wrapping round at the end."""
        count = -(-self._size // _SEGMENT_BYTES)
        anchors = [max(0, min(anchor // _SEGMENT_BYTES, count - 1)) for anchor in self._anchors]
        for step in range(count):
            for anchor in anchors:
                segment = (anchor + step) % count
                if segment not in self._segments:
                    yield segment


class Assembly:
    """Builds a new version from runs of the old one and, in the gaps between them, content that arrives."""

    def __init__(self) -> None:
        self._runs: deque[ByteRun] = deque()
        self._scratch = memoryview(bytearray(_READ_BYTES))

    def __len__(self) -> int:
        """Number of runs that are not complete yet."""
        return len(self._runs)

    def add(self, runs: Sequence[ByteRun]) -> None:
        """Append runs."""
        self._runs.extend(runs)

    def written(self, content: Piece, read: Read) -> Iterator[memoryview | Hole]:
        """Yield what can be written now that ``content`` has arrived, in order.

        That is the content for the gaps, and what ``read`` returns for the runs before, between and after them, in
        pieces of at most `_READ_BYTES`; content beyond the last gap comes last, as one piece.
        A hole is yielded as one, as are runs of zeros that are long enough.
        Each piece is valid until the next one is requested.
        Raises `realize.errors.VerifyFailed` if the old version has become too short.
        """
        if isinstance(content, Hole):
            view, hole, filled = memoryview(b""), len(content), 0
        else:
            view, hole, filled = memoryview(content), 0, 0
        while self._runs and (view or hole or self._runs[0][1] is not None):
            length, offset = self._runs[0]
            empty = hole if offset is None else length if offset == EMPTY else 0
            if empty and (offset is None or length >= MIN_HOLE_BYTES):
                if filled:
                    yield self._scratch[:filled]
                    filled = 0
                empty = min(empty, length)
                hole -= empty if offset is None else 0
                self._done(empty)
                yield Hole(empty)
                continue
            amount = min(length, _READ_BYTES - filled)
            if offset is None:
                amount = min(amount, len(view))
            target = self._scratch[filled : filled + amount]
            if offset is None:
                target[:] = view[:amount]
                view = view[amount:]
            elif offset == EMPTY:
                target[:] = ZERO_BLOCK[:amount]
            elif read(offset, target) < amount:
                raise VerifyFailed("the file that is to be replaced became shorter meanwhile")
            self._done(amount)
            filled += amount
            if filled == _READ_BYTES:
                yield self._scratch
                filled = 0
        if filled:
            yield self._scratch[:filled]
        if view:
            yield view
        if hole:
            yield Hole(hole)

    def _done(self, amount: int) -> None:
        """Note that ``amount`` bytes of the first run are complete."""
        length, offset = self._runs[0]
        if amount == length:
            self._runs.popleft()
        else:
            self._runs[0] = length - amount, offset if offset in {None, EMPTY} else offset + amount
