"""Frames of Zstandard: what shrinks comes back as it was, and a frame from a peer is never trusted."""

import random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from realize.errors import ProtocolError
from realize.values import MAX_VALUE_BYTES, Hole
from realize.wire.boxes import CompressedBox
from realize.wire.frames import MAX_BLOCKS, expand, shrink

TEXT = b"".join(b"%d: GET /index.html HTTP/1.1 200\n" % number for number in range(4000))[:MAX_VALUE_BYTES]
FRAME = zstandard.ZstdCompressor(level=1).compress(TEXT)
NOISE = random.Random(1).randbytes(MAX_VALUE_BYTES)


def frame_of(**options):
    """The text in a frame that is made in another way."""
    return zstandard.ZstdCompressor(**options).compress(TEXT)


def streamed(content, window_log):
    """A frame that says nothing of its length."""
    compressor = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=window_log, write_content_size=False)
    ).compressobj()
    return compressor.compress(content) + compressor.flush()


def bomb(length, blocks):
    """A frame with so many blocks of 128 KiB of zeros, which announces ``length`` bytes."""
    header = b"\x28\xb5\x2f\xfd" + bytes([0b10100000]) + length.to_bytes(4, "little")
    block = (128 << 10) << 3 | 1 << 1
    return header + b"".join((block | (number == blocks - 1)).to_bytes(3, "little") + b"\0" for number in range(blocks))


def empty_blocks(count):
    """A frame of the text, whose only block comes behind so many empty ones."""
    size = zstandard.frame_header_size(FRAME)
    return FRAME[:size] + bytes(3 * count) + FRAME[size:]


@given(st.lists(st.binary(min_size=1, max_size=300) | st.integers(1, 300).map(lambda count: b"line\n" * count)))
def test_what_shrinks_comes_back(contents):
    """Each content is in a frame of its own that is shorter, or is not compressed at all."""
    frames, _ = shrink(contents, sampled=False)

    assert all(frame is None or len(frame) < len(content) for content, frame in zip(contents, frames, strict=True))
    assert contents == expand(
        [
            content if frame is None else CompressedBox(1, len(content), frame)
            for content, frame in zip(contents, frames, strict=True)
        ]
    )


def test_holes_and_plain_content_stay():
    """Only what is compressed is expanded, and all keeps its order."""
    assert [b"x", TEXT, Hole(1 << 20)] == expand([b"x", CompressedBox(1, len(TEXT), FRAME), Hole(1 << 20)])


@pytest.mark.parametrize(
    ("content", "sampled", "shrinks"),
    [
        (TEXT, False, True),
        (TEXT, True, True),
        (NOISE, False, False),
        (NOISE, True, False),
        (b"a" * 255, False, False),
        (b"a" * 256, False, True),
        (NOISE[:20_000] + TEXT[:20_000], True, True),
    ],
)
def test_what_is_worth_it(content, sampled, shrinks):
    """Noise and what is short is left as it is; so is what has nothing but noise in its middle, where that counts."""
    [frame], _ = shrink([content], sampled=sampled)

    assert shrinks == (frame is not None)


@pytest.mark.parametrize(
    ("frame", "length", "error"),
    [
        (b"", len(TEXT), "not a frame"),
        (b"no frame at all", len(TEXT), "not a frame"),
        (b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + FRAME, len(TEXT), "not a frame"),
        (FRAME, len(TEXT) - 1, "another length"),
        (streamed(TEXT, 16), len(TEXT), "another length"),
        (streamed(TEXT, 27), len(TEXT), "another length"),
        (empty_blocks(MAX_BLOCKS - 1), len(TEXT), None),
        (empty_blocks(MAX_BLOCKS), len(TEXT), "more than 64 blocks"),
        (FRAME + b"\0", len(TEXT), "goes on"),
        (FRAME + FRAME, len(TEXT), "goes on"),
        (FRAME[:-1], len(TEXT), "cut off"),
        (FRAME[:6], len(TEXT), "cannot be expanded"),
        (FRAME[:40] + bytes(40) + FRAME[80:], len(TEXT), "cannot be expanded"),
        (bomb(MAX_VALUE_BYTES, 1000), MAX_VALUE_BYTES, "more than 64 blocks"),
        (bomb(MAX_VALUE_BYTES, 60), MAX_VALUE_BYTES, "cannot be expanded"),
        (bomb(1 << 27, 1000), 1 << 27, "another length"),
        (bomb(1000, 1), 1000, "cannot be expanded"),
        (frame_of(dict_data=zstandard.ZstdCompressionDict(TEXT[:999], dict_type=0)), len(TEXT), "cannot be expanded"),
        (frame_of(write_checksum=True), len(TEXT), None),
        (frame_of(write_checksum=True)[:-4], len(TEXT), "goes on"),
    ],
)
def test_a_frame_is_not_trusted(frame, length, error):
    """What is not exactly one frame with so much content is refused, and takes no more memory than was announced."""
    if error is None:
        assert [TEXT] == expand([CompressedBox(1, length, frame)])
    else:
        with pytest.raises(ProtocolError, match=error):
            expand([CompressedBox(1, length, frame)])


def test_a_dictionary_is_refused():
    """A frame that needs a dictionary is refused: there is none."""
    samples = [b"%d: GET /%d HTTP/1.1\n" % (number, number * 7) * 20 for number in range(200)]
    frame = frame_of(dict_data=zstandard.train_dictionary(1000, samples))

    with pytest.raises(ProtocolError, match="dictionary"):
        expand([CompressedBox(1, len(TEXT), frame)])


@given(st.integers(0, len(FRAME) - 1), st.integers(1, 255))
def test_a_damaged_frame_fails_in_one_way(position, change):
    """Whatever is changed in a frame, it either has so much content or is a violation of the protocol."""
    damaged = bytearray(FRAME)
    damaged[position] ^= change
    try:
        [content] = expand([CompressedBox(1, len(TEXT), bytes(damaged))])
    except ProtocolError:
        return

    assert len(TEXT) == len(content)
