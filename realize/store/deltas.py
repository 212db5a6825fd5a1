"""Deltas: cutting content into chunks where its bytes say so, and finding the chunks in another version of the file.

Pure: what is read comes from a function that the caller gives.

The source cuts the new version (`cut`); the destination looks each chunk up in the old one (`Search`) and wants only
what it does not find; `Assembly` puts the new version together from both.
A chunk is looked for where it would be if the bytes before it had only been replaced, which costs one look and no
memory.
Only when nothing is found there any more the old version is cut too, a segment at a time around the place where the
trail was lost, until a chunk turns up again.

A digest of a chunk proves nothing, and needs not: the digest of the whole file is verified before it gets its name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Final, TypeAlias

from xxhash import xxh3_128_digest

from realize.errors import VerifyFailed
from realize.values import MAX_CHUNK_BYTES, Chunk, Content, extent

if TYPE_CHECKING:
    from pyfastcdc import FastCDC

Read: TypeAlias = Callable[[int, memoryview], int]
"""``read(place, view)``: fills the view from there; how many bytes that were, fewer only at the end of the file."""

Run: TypeAlias = tuple[int, int | None]
"""So many bytes, and where in the old version they are; None if they are not."""

MIN_CHUNK_BYTES: Final = 4 << 10
"""Shorter chunks are never looked for: to ask costs as much as for a long one, and saves little."""

_AVERAGE_CHUNK_BYTES: Final = 8 << 10
_MAX_CHUNK_BYTES: Final = 16 << 10
_NORMALIZATION_LEVEL: Final = (
    3  # hardly any chunk is far from the average: a change of one byte costs one chunk, of that size
)
_LOOK_AHEAD_BYTES: Final = 256 << 10
_SEGMENT_BYTES: Final = 1 << 20
_SEGMENTS_AT_ONCE: Final = 64
_READ_BYTES: Final = 1 << 20
_LOST_AFTER_BYTES: Final = 64 << 10
_MAX_ANCHORS: Final = 4
_MAX_REMEMBERED_CHUNKS: Final = 1 << 15


def _cutter() -> FastCDC:
    # Only here, for most runs cut nothing, and each would start some milliseconds later.
    from pyfastcdc import FastCDC

    return FastCDC(
        _AVERAGE_CHUNK_BYTES,
        min_size=MIN_CHUNK_BYTES,
        max_size=_MAX_CHUNK_BYTES,
        normalized_chunking=_NORMALIZATION_LEVEL,
    )


def cut(content: bytes | memoryview) -> list[Chunk]:
    """The chunks of some content, at least `MIN_CHUNK_BYTES` bytes each unless there are not so many."""
    chunks = [(chunk.length, xxh3_128_digest(chunk.data)) for chunk in _cutter().cut_buf(content)]
    if len(chunks) > 1 and chunks[-1][0] < MIN_CHUNK_BYTES:
        length = chunks.pop()[0] + chunks.pop()[0]
        chunks.append((length, xxh3_128_digest(memoryview(content)[-length:])))
    return chunks


def merged(chunks: Sequence[Chunk], places: Sequence[int | None]) -> list[Run]:
    """The same with neighbours put together, as far as they are neighbours in the old version too."""
    runs: list[Run] = []
    for (length, _), place in zip(chunks, places, strict=True):
        if runs:
            before, start = runs[-1]
            if place == (None if start is None else start + before):
                runs[-1] = before + length, start
                continue
        runs.append((length, place))
    return runs


class Index:
    """Where chunks are, by their digests.

    Memory is bounded: when there are too many, every second one is forgotten, by its digest, and from then on such
    ones are not taken in.
    One in many is enough to find the trail again.
    """

    def __init__(self, most: int = _MAX_REMEMBERED_CHUNKS) -> None:
        self._most = most
        self._mask = 0
        self._places: dict[bytes, int] = {}

    def add(self, digest: bytes, place: int) -> None:
        """Remember a chunk, unless one like it is known."""
        if self._taken(digest):
            self._places.setdefault(digest, place)
            while len(self._places) > self._most:
                self._mask = self._mask << 1 | 1
                self._places = {kept: where for kept, where in self._places.items() if self._taken(kept)}

    def _taken(self, digest: bytes) -> bool:
        return not self._mask or not int.from_bytes(digest[:4], "big") & self._mask

    def get(self, digest: bytes) -> int | None:
        """The place of a chunk of that digest."""
        return self._places.get(digest)

    def __len__(self) -> int:
        """How many are known."""
        return len(self._places)


class Search:
    """Finds the chunks of a new version, in their order, in an old one of ``size`` bytes.

    ``position`` is where in the new version the first chunk begins.
    What is found tells what is in the old version, so it is not for whoever may not know that.
    """

    def __init__(self, size: int, read: Read, *, position: int = 0) -> None:
        self._size = size
        self._read = read
        self._position = position
        self._index = Index()
        self._segments: set[int] = set()
        # A trail is the distance between two equal pieces, old minus new; the latest first.
        self._trails: deque[int] = deque([0], maxlen=_MAX_ANCHORS)
        self._anchors: deque[int] = deque(maxlen=_MAX_ANCHORS)
        self._missed = 0
        self._buffer = memoryview(bytearray(_LOOK_AHEAD_BYTES))
        self._spare = memoryview(bytearray(MAX_CHUNK_BYTES))
        self._start = 0
        self._ahead = self._buffer[:0]

    def find(self, chunks: Sequence[Chunk]) -> list[int | None]:
        """The place of each chunk in the old version, None for what is not there or was not found.

        Reads, besides what it compares, at most `_SEGMENTS_AT_ONCE` segments for the index.
        """
        places: list[int | None] = [None] * len(chunks)
        budget, first = _SEGMENTS_AT_ONCE, 0
        while True:
            self._follow(chunks, places, first)
            lost = len(chunks) - sum(1 for _ in takewhile(lambda place: place is None, reversed(places)))
            if lost == len(chunks) or self._missed < _LOST_AFTER_BYTES:
                return places
            budget = self._explore({digest for _, digest in chunks[lost:]}, budget)
            if not budget:
                return places
            # From where the trail was lost, once more.
            again = extent(chunks[lost:])
            self._position -= again
            self._missed -= again
            first = lost

    def _follow(self, chunks: Sequence[Chunk], places: list[int | None], first: int) -> None:
        for number in range(first, len(chunks)):
            length, digest = chunks[number]
            place = self._place(length, digest)
            places[number] = place
            if place is not None:
                if self._missed:
                    self._follow_back(chunks, places, number)
                self._missed = 0
            else:
                if not self._missed:
                    self._anchors.appendleft(self._position + self._trails[0])
                self._missed += length
            self._position += length

    def _follow_back(self, chunks: Sequence[Chunk], places: list[int | None], found: int) -> None:
        """The trail that was found leads back, too: after a break it takes the cutter some chunks to fall into step."""
        place = self._position + self._trails[0]
        for number in range(found - 1, -1, -1):
            length, digest = chunks[number]
            place -= length
            if (
                places[number] is not None
                or length < MIN_CHUNK_BYTES
                or not self._is_at(place, length, digest, near=False)
            ):
                return
            places[number] = place

    def _place(self, length: int, digest: bytes) -> int | None:
        if length < MIN_CHUNK_BYTES:
            return None
        trails = self._trails
        place = self._position + trails[0]
        if self._is_at(place, length, digest, near=True):
            return place
        for trail in list(trails)[1:]:
            place = self._position + trail
            if self._is_at(place, length, digest, near=False):
                trails.remove(trail)
                trails.appendleft(trail)
                return place
        known = self._index.get(digest)
        if known is not None and self._is_at(known, length, digest, near=False):
            trails.appendleft(known - self._position)
            return known
        return None

    def _is_at(self, place: int, length: int, digest: bytes, *, near: bool) -> bool:
        if not 0 <= place <= self._size - length:
            return False
        content = self._look(place, length, near=near)
        # There is less where the old version became shorter.
        return len(content) == length and xxh3_128_digest(content) == digest

    def _look(self, place: int, length: int, *, near: bool) -> memoryview:
        start = place - self._start
        if start < 0 or start + length > len(self._ahead):
            if not near:
                return self._spare[: self._read(place, self._spare[:length])]
            self._start, start = place, 0
            self._ahead = self._buffer[: self._read(place, self._buffer)]
        return self._ahead[start : start + length]

    def _explore(self, digests: set[bytes], budget: int) -> int:
        """Take segments into the index until one of the chunks turns up; what is left of the budget, 0 if none did."""
        for segment in self._unexplored():
            self._segments.add(segment)
            place, found = segment * _SEGMENT_BYTES, False
            content = memoryview(bytearray(_SEGMENT_BYTES))
            for length, digest in cut(content[: self._read(place, content)]):
                self._index.add(digest, place)
                place += length
                found = found or (digest in digests and self._index.get(digest) is not None)
            budget -= 1
            if found or not budget:
                return budget
        return 0

    def _unexplored(self) -> Iterator[int]:
        """The segments that are not in the index, from where trails were lost onwards, and round to the beginning."""
        count = -(-self._size // _SEGMENT_BYTES)
        anchors = [max(0, min(anchor // _SEGMENT_BYTES, count - 1)) for anchor in self._anchors]
        for step in range(count):
            for anchor in anchors:
                segment = (anchor + step) % count
                if segment not in self._segments:
                    yield segment


class Assembly:
    """How a new version comes together: runs of the old one, and between them gaps for content that arrives."""

    def __init__(self) -> None:
        self._runs: deque[Run] = deque()
        self._scratch = memoryview(bytearray(_READ_BYTES))

    def __len__(self) -> int:
        """How many runs there are still to come."""
        return len(self._runs)

    def add(self, runs: Sequence[Run]) -> None:
        """What comes next, behind what was added before."""
        self._runs.extend(runs)

    @property
    def wanted(self) -> int:
        """How many bytes the gaps have that are still to come."""
        return sum(length for length, place in self._runs if place is None)

    def written(self, content: Content, read: Read) -> Iterator[memoryview]:
        """What can be written when this much of the content has arrived, in order, up to `_READ_BYTES` bytes at a time.

        That is the content in the gaps, and what ``read`` has for the runs before, between and behind them.
        Content for which there is no gap comes last.
        Each piece is valid until the next one is asked for.
        Fails with `realize.errors.VerifyFailed` where the old version ends too early.
        """
        view, filled = memoryview(content), 0
        while self._runs and (view or self._runs[0][1] is not None):
            length, place = self._runs[0]
            amount = (
                min(length, _READ_BYTES - filled) if place is not None else min(length, _READ_BYTES - filled, len(view))
            )
            target = self._scratch[filled : filled + amount]
            if place is None:
                target[:] = view[:amount]
                view = view[amount:]
            elif read(place, target) < amount:
                raise VerifyFailed("the file that is to be replaced became shorter meanwhile")
            if amount == length:
                self._runs.popleft()
            else:
                self._runs[0] = length - amount, None if place is None else place + amount
            filled += amount
            if filled == _READ_BYTES:
                yield self._scratch
                filled = 0
        if filled:
            yield self._scratch[:filled]
        if view:
            yield view
