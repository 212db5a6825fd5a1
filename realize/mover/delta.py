"""Send only those chunks of a file that the destination does not find in its old version.

Each span of the file goes through three stages: the source cuts it into chunks, the destination looks the chunks up,
the source reads the wanted ones.
Each stage works ahead of the next one, so neither side waits for the other, nor for the link between them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred

from realize.errors import ignore_expected
from realize.mover.events import End
from realize.mover.work import at
from realize.store.interfaces import IReader, IWriter
from realize.values import SPAN_BYTES, Chunk, Piece, extent, in_holes

DELTA_MIN_BYTES: Final = 256 << 10
"""A file that is shorter, or whose old version is, is sent in full."""

GIVE_UP_AFTER_BYTES: Final = 8 * SPAN_BYTES
"""If none of this many bytes at the beginning is found in the old version, the rest is sent in full."""

_CUTS_AHEAD: Final = 2
_OFFERS_AHEAD: Final = 4
_PICKS_AHEAD: Final = 2


def worthwhile(reader: IReader, writer: IWriter, old_size: int, left: int) -> bool:
    """Whether a delta is worth trying: old version and rest are large enough, in bytes, and both sides can do it."""
    return reader.deltas and writer.deltas and min(old_size, left) >= DELTA_MIN_BYTES


def shares(writer: IWriter, pieces: Sequence[Piece]) -> tuple[int, int]:
    """How many bytes of these pieces are sent, and how many are left out as holes."""
    holes = in_holes(pieces) if writer.takes_holes else 0
    return sum(map(len, pieces)) - holes, holes


@define(eq=False, repr=False)
class Delta:
    """Moves the next ``left`` bytes of a reader into a writer, until it seems pointless to look for them there.

    ``moved(sent, holes, found)`` is called with how many bytes were sent, and how many did not need to be because they
    are holes, or were found.
    """

    reader: IReader
    writer: IWriter
    left: int
    moved: Callable[[int, int, int], None]
    _cut: deque[Deferred[list[Chunk]]] = field(factory=deque)
    _offered: deque[tuple[Sequence[Chunk], Deferred[list[bool]]]] = field(factory=deque)
    _picked: deque[tuple[int, Deferred[list[Piece]]]] = field(factory=deque)
    _found: int = 0
    _missed: int = 0

    async def run(self) -> None:
        """Send as a delta; the caller sends what the reader still has after that. Raises `SideError`."""
        try:
            self._cut_more()
            while self._cut or self._offered or self._picked:
                if self._cut and len(self._offered) < _OFFERS_AHEAD:
                    await self._offer()
                elif self._offered and len(self._picked) < _PICKS_AHEAD:
                    await self._pick()
                else:
                    await self._write()
                self._cut_more()
        finally:
            waiting: list[Deferred[Any]] = [*self._cut, *(answer for _, answer in self._offered)]
            waiting += [answer for _, answer in self._picked]
            for each in waiting:
                each.addErrback(ignore_expected)

    def _cut_more(self) -> None:
        """Ask the source to cut more spans, unless nothing was found in the first `GIVE_UP_AFTER_BYTES`."""
        while self.left > 0 and len(self._cut) < _CUTS_AHEAD and (self._found or self._missed < GIVE_UP_AFTER_BYTES):
            self._cut.append(self.reader.cut())
            self.left -= SPAN_BYTES

    async def _offer(self) -> None:
        with at(End.SOURCE):
            chunks = await self._cut.popleft()
        self._offered.append((chunks, self.writer.offer(chunks)))

    async def _pick(self) -> None:
        chunks, answer = self._offered.popleft()
        with at(End.DESTINATION):
            wanted = await answer
        missed = extent(chunks, wanted)
        found = extent(chunks) - missed
        self._found += found
        self._missed += missed
        self._picked.append((found, self.reader.pick(wanted)))

    async def _write(self) -> None:
        found, answer = self._picked.popleft()
        with at(End.SOURCE):
            pieces = await answer
        if pieces:
            with at(End.DESTINATION):
                await self.writer.write(pieces)
        self.moved(*shares(self.writer, pieces), found)
