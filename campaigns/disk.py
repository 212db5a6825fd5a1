"""A disk with a write cache: of what was written since the last flush, a power cut leaves all, some or nothing.

`DiskTree` is a file system with just one file, the disk; a loop device on that file passes on every write and every
flush of the real file system on it.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
import stat
from typing import Final

from campaigns.strict import Node, StrictTree

NAME: Final = b"disk"
BLOCK: Final = 4096
"""Bytes that are written atomically."""
PART: Final = 1 << 16
"""Bytes that are known together to be used."""


class DiskTree(StrictTree):
    """One file of a fixed size, which remembers the old content of blocks written since the last flush."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._blocks = mmap.mmap(-1, size)
        self._pending: list[tuple[int, bytes, bytes]] = []
        self._used: set[int] = set()
        self._size = size
        self.fails = False
        """Whether it takes nothing any more, and says so."""
        node = _DiskNode(2, 2, stat.S_IFREG | 0o600)
        node.length = size
        self.nodes[node.number] = node
        self.root.names[NAME] = node

    def read(self, node: Node, offset: int, size: int) -> bytes:
        """The content last written, flushed or not."""
        del node
        return self._blocks[offset : min(offset + size, self._size)]

    def write(self, node: Node, offset: int, data: bytes) -> None:
        """Write into the cache of the disk."""
        del node
        if self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if offset + len(data) > self._size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        # A disk writes sectors, so a request may be done in part.
        for begin in range(0, len(data), BLOCK):
            piece, at = bytes(data[begin : begin + BLOCK]), offset + begin
            self._pending.append((at, self._blocks[at : at + len(piece)], piece))
        self._blocks[offset : offset + len(data)] = data
        self._used.update(range(offset // PART, (offset + len(data) - 1) // PART + 1))

    def truncate(self, node: Node, size: int) -> None:
        """Refuse: a disk keeps its size."""
        del node, size

    def sync(self, node: Node) -> None:
        """Flush: everything written so far is safe."""
        del node
        if self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._pending.clear()

    def load(self, path: str) -> None:
        """Replace the content by an image; the disk is as good as new then."""
        self.fails = False
        self._pending.clear()
        self._blocks.close()
        self._blocks = mmap.mmap(-1, self._size)
        self._used.clear()
        with open(path, "rb") as file:
            for begin, end in extents(file.fileno(), self._size):
                file.seek(begin)
                self._blocks[begin:end] = file.read(end - begin)
                self._used.update(range(begin // PART, (end - 1) // PART + 1))

    def leave(self, path: str, kept: str, rng: random.Random) -> int:
        """Write the image that a power cut would leave now; returns how many blocks are lost.

        ``kept`` says which writes since the last flush are left: ``all``, ``none``, ``some`` of them at random, or the
        ``first`` of them.
        """
        pending = self._pending
        if kept == "first":
            chosen = set(range(rng.randrange(len(pending) + 1)))
        else:
            share = {"all": 1.0, "none": 0.0, "some": rng.random()}[kept]
            chosen = {number for number in range(len(pending)) if rng.random() < share}
        # Of several writes to one place, the first one has the content from before the flush.
        changed = {at: old for at, old, _ in reversed(pending)}
        for number, (at, _, new) in enumerate(pending):
            if number in chosen:
                changed[at] = new
        with open(path, "wb") as file:
            file.truncate(self._size)
            for number in self._used:
                file.seek(number * PART)
                file.write(self._blocks[number * PART : min((number + 1) * PART, self._size)])
            for at, content in changed.items():
                file.seek(at)
                file.write(content)
        return len(pending) - len(chosen)


class _DiskNode(Node):
    length: int = 0

    @property
    def size(self) -> int:
        """Of the disk."""
        return self.length


def extents(fd: int, size: int) -> list[tuple[int, int]]:
    """Where a sparse file has data."""
    found: list[tuple[int, int]] = []
    end = 0
    while end < size:
        try:
            begin = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            raise
        end = os.lseek(fd, begin, os.SEEK_HOLE)
        found.append((begin, end))
    return found
