"""Frames of Zstandard: content in, frames out, and back, without ever trusting a frame.

To be called in threads: the library lets others run meanwhile.
A frame from a peer must be exactly one, without a dictionary, whose header and blocks say what the peer has announced;
only then is it expanded, into memory of that length.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, cast

import zstandard

from realize.errors import ProtocolError
from realize.values import MAX_VALUE_BYTES, Content, Piece
from realize.wire.boxes import CompressedBox
from realize.wire.commands import MIN_COMPRESSED_BYTES

LEVEL: Final = 1
"""Level of compression: others take longer, and logs shrink no further by the next two."""

BOX_BYTES: Final = 32
"""Bytes that a box of compressed content is longer than one of content, about."""

SAMPLE_BYTES: Final = 4096
"""Bytes by which a long content is judged."""

MAX_BLOCKS: Final = 64
"""Blocks of a frame from a peer at most: ours has one, and thousands of empty ones take longer than any content."""

_MIN_SAMPLED_BYTES: Final = 4 * SAMPLE_BYTES

_MAX_WINDOW_BYTES: Final = 1 << 16
"""How far back a frame may refer: no further than the longest content."""

_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_BLOCK_HEADER_BYTES: Final = 3
_CHECKSUM_BYTES: Final = 4
_KIND_RLE: Final = 1
_KIND_RESERVED: Final = 3

# To make one costs more than to compress a small file, and takes some 0.5 MiB.  One for each thread that works: `pop`
# and `append` need no lock.
_compressors: list[zstandard.ZstdCompressor] = []
_decompressors: list[zstandard.ZstdDecompressor] = []


def shrink(contents: Sequence[Content], *, sampled: bool) -> tuple[list[bytes | None], float]:
    """Compress each of the contents; None for one that does not shrink.  Returns how many seconds that took as well."""
    began = time.perf_counter()
    compressor = _compressors.pop() if _compressors else zstandard.ZstdCompressor(level=LEVEL)
    found = [_frame(compressor, content, sampled=sampled) for content in contents]
    _compressors.append(compressor)
    return found, time.perf_counter() - began


def _frame(compressor: zstandard.ZstdCompressor, content: Content, *, sampled: bool) -> bytes | None:
    length = len(content)
    if length < MIN_COMPRESSED_BYTES:
        return None
    if sampled and length > _MIN_SAMPLED_BYTES:
        middle = length // 2
        sample = compressor.compress(content[middle : middle + SAMPLE_BYTES])
        if not _is_worthwhile(len(sample), SAMPLE_BYTES):
            return None
    frame = compressor.compress(content)
    return frame if _is_worthwhile(len(frame) + BOX_BYTES, length) else None


def _is_worthwhile(shrunk: int, length: int) -> bool:
    """Whether a sixteenth is saved: less is not worth what it costs the other end."""
    return 16 * shrunk <= 15 * length


def expand(pieces: list[Piece | CompressedBox]) -> list[Piece]:
    """Put content in the place of the pieces that are compressed, and return the list; raises `ProtocolError`.

    Each frame goes before the next one is expanded, so that hardly more memory is taken than was claimed for content.
    """
    decompressor = (
        _decompressors.pop() if _decompressors else zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
    )
    for index, piece in enumerate(pieces):
        if isinstance(piece, CompressedBox):
            pieces[index] = _content(decompressor, piece.frame, piece.length)
    _decompressors.append(decompressor)
    return cast("list[Piece]", pieces)


def _content(decompressor: zstandard.ZstdDecompressor, frame: bytes, length: int) -> bytes:
    try:
        _check(frame, length)
        content = decompressor.decompress(frame)
    except zstandard.ZstdError as error:
        raise ProtocolError(f"compressed content cannot be expanded: {error}") from None
    if len(content) != length:
        raise ProtocolError(f"compressed content of {length} bytes expands to {len(content)}")
    return content


def _check(frame: bytes, length: int) -> None:
    """Raise `ProtocolError`, or `zstandard.ZstdError`, unless this is one whole frame with so much content."""
    if not frame.startswith(_MAGIC):
        raise ProtocolError("compressed content is not a frame of Zstandard")
    header = zstandard.get_frame_parameters(frame)
    if header.dict_id:
        raise ProtocolError("compressed content needs a dictionary")
    if header.content_size != length or length > MAX_VALUE_BYTES:
        raise ProtocolError(f"compressed content of {length} bytes has another length in its frame")
    if header.window_size > _MAX_WINDOW_BYTES:
        raise ProtocolError(f"compressed content refers back by {header.window_size} bytes")
    position = zstandard.frame_header_size(frame)
    for _ in range(MAX_BLOCKS):
        block = int.from_bytes(frame[position : position + _BLOCK_HEADER_BYTES], "little")
        last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
        position += _BLOCK_HEADER_BYTES + (1 if kind == _KIND_RLE else size)
        if position > len(frame) or kind == _KIND_RESERVED:
            raise ProtocolError("compressed content is cut off")
        if last:
            break
    else:
        raise ProtocolError(f"compressed content has more than {MAX_BLOCKS} blocks")
    if position + (_CHECKSUM_BYTES if header.has_checksum else 0) != len(frame):
        raise ProtocolError("compressed content goes on behind its frame")
