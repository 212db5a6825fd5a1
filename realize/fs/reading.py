"""Reading parts of a file at an offset, and hashing them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final

from blake3 import blake3

from realize.fs.holes import sure_hole
from realize.values import BLOCK_BYTES, ZERO_BLOCK

_DIGEST_OF_ZEROS: Final = bytes.fromhex("488de202f73bd976de4e7048f4e1f39a776d86d582b7348ff53bf432b987fca8")
"""That of `ZERO_BLOCK`; to compute it whenever the module is imported would take as long as a small file."""


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
    """Yield ``length`` bytes from ``offset`` on in `BLOCK_BYTES` pieces, the last one shorter; ends with the file.

    What is in a hole as a whole is not read: it is `ZERO_BLOCK`.
    """
    end = offset + length
    hole = 0
    while offset < end:
        wanted = min(BLOCK_BYTES, end - offset)
        if wanted == BLOCK_BYTES:
            if hole <= offset:
                hole = sure_hole(fd, offset, end)
            if hole - offset >= wanted:
                yield ZERO_BLOCK
                offset += wanted
                continue
        piece = read_exactly(fd, wanted, offset)
        if piece:
            yield piece
        if len(piece) < wanted:
            return
        offset += wanted


def block_digest(piece: bytes) -> bytes:
    """Return the digest of a piece that `blocks` has yielded."""
    return _DIGEST_OF_ZEROS if piece is ZERO_BLOCK else blake3(piece).digest()


def hash_zeros(hasher: blake3, length: int) -> None:
    """Update a hasher with this many zeros."""
    for _ in range(length // BLOCK_BYTES):
        hasher.update(ZERO_BLOCK)
    if rest := length % BLOCK_BYTES:
        hasher.update(memoryview(ZERO_BLOCK)[:rest])


def matching(fd: int, length: int, offset: int, digests: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the same blocks, up to the first one whose digest differs, or which is too short."""
    end = offset + length
    for piece, digest in zip(blocks(fd, length, offset), digests, strict=False):
        if len(piece) < min(BLOCK_BYTES, end - offset) or block_digest(piece) != digest:
            return
        yield piece
        offset += len(piece)


def digest_of(fd: int, size: int) -> bytes:
    """Return the digest of the first ``size`` bytes of a file."""
    hasher = blake3()
    for piece in blocks(fd, size, 0):
        hasher.update(piece)
    return hasher.digest()
