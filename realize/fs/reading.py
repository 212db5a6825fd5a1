"""Reading parts of a file at an offset, and hashing them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from blake3 import blake3

from realize.values import BLOCK_BYTES


def read_exactly(fd: int, length: int, offset: int) -> bytes:
    """That many bytes, less only at the end of the file."""
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
    """Fill ``view`` with what is there; how many bytes that were, less than it holds only at the end of the file.

    What is read over and over in the same memory costs half of what it costs in new memory each time.
    """
    count = 0
    while count < len(view) and (read := os.preadv(fd, [view[count:]], offset + count)):
        count += read
    return count


def blocks(fd: int, length: int, offset: int) -> Iterator[bytes]:
    """The bytes from ``offset`` on in pieces of `BLOCK_BYTES`, the last one shorter; ends early where the file ends."""
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
    """Those blocks, up to the first one that has not the digest named, or is shorter than it should be."""
    end = offset + length
    for piece, digest in zip(blocks(fd, length, offset), digests, strict=False):
        if len(piece) < min(BLOCK_BYTES, end - offset) or blake3(piece).digest() != digest:
            return
        yield piece
        offset += len(piece)


def digest_of(fd: int, size: int) -> bytes:
    """The digest of the first ``size`` bytes of a file."""
    hasher = blake3()
    for piece in blocks(fd, size, 0):
        hasher.update(piece)
    return hasher.digest()
