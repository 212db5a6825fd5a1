"""Reading parts of a file at an offset, and hashing them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from blake3 import blake3

from realize.values import BLOCK_BYTES


def read_exactly(fd: int, length: int, offset: int) -> bytes:
    """Return ``length`` bytes from ``offset`` on, fewer only at the end of the file."""
    piece = os.pread(fd, length, offset)
    if len(piece) == length or not piece:
        return piece
    pieces = [piece]
    missing = length - len(piece)
    while missing and (piece := os.pread(fd, missing, offset + length - missing)):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def read_into(fd: int, view: memoryview, offset: int) -> int:
    """Fill ``view`` from ``offset`` on; return the number of bytes, fewer than it holds only at the end of the file.

    Reading into the same memory again and again costs half as much as reading into new memory each time.
    """
    count = 0
    while count < len(view) and (read := os.preadv(fd, [view[count:]], offset + count)):
        count += read
    return count


def blocks(fd: int, length: int, offset: int) -> Iterator[bytes]:
    """Yield ``length`` bytes from ``offset`` on in `BLOCK_BYTES` pieces, the last one shorter; ends with the file."""
    end = offset + length
    while offset < end:
        wanted = min(BLOCK_BYTES, end - offset)
        piece = read_exactly(fd, wanted, offset)
        if piece:
            yield piece
        if len(piece) < wanted:
            return
        offset += wanted


def matching(fd: int, length: int, offset: int, digests: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the same blocks, up to the first one whose digest differs, or which is too short."""
    end = offset + length
    for piece, digest in zip(blocks(fd, length, offset), digests, strict=False):
        if len(piece) < min(BLOCK_BYTES, end - offset) or blake3(piece).digest() != digest:
            return
        yield piece
        offset += len(piece)


def digest_of(fd: int, size: int) -> bytes:
    """Return the digest of the first ``size`` bytes of a file."""
    hasher = blake3()
    for piece in blocks(fd, size, 0):
        hasher.update(piece)
    return hasher.digest()
