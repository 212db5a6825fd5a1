"""Holes of files: they are neither read nor sent, and take no room where they arrive."""

from __future__ import annotations

import os
import random
import tempfile
from itertools import accumulate

import pytest
from blake3 import blake3
from twisted.internet.threads import deferToThread

from realize.errors import NoSpace, SourceChanged
from realize.fs import holes
from realize.fs.reading import blocks, digest_of, hash_zeros
from realize.store import deltas
from realize.store.local import reader as reader_module
from realize.store.local.store import LocalStore
from realize.values import (
    BLOCK_BYTES,
    MAX_HOLE_BYTES,
    MIN_HOLE_BYTES,
    SPAN_BYTES,
    ZERO_BLOCK,
    Committed,
    Expected,
    Hole,
    OnConflict,
    in_holes,
)
from tests.local_stores import SALT, at_once, behind, full, root
from tests.store_helpers import block_digests, digest, failure, filled, random_bytes, read_all, read_to_end
from tests.test_headroom import MIB, clock, disk, headroom, store

__all__ = ["behind", "clock", "disk", "full", "headroom", "root", "store"]

KIB = 1 << 10
TIB = 1 << 40


@pytest.fixture
def folder():
    """A directory of a file system that knows its holes."""
    with tempfile.TemporaryDirectory(prefix="realize-holes-", dir="/dev/shm") as path:
        yield os.fsencode(path)


def write(path, layout):
    """Make a file of these lengths, in turns hole and content; return its content."""
    ends = list(accumulate(layout))
    content = bytearray(ends[-1])
    with open(path, "wb") as file:
        for start, end in zip(ends[::2], ends[1::2], strict=False):
            content[start:end] = random_bytes(end - start, seed=start + 1)
            file.seek(start)
            file.write(content[start:end])
        file.truncate(ends[-1])
    os.utime(path, ns=(1, 1))
    return bytes(content)


async def opened(path, run_in_thread=at_once):
    """A store of a directory."""
    store = LocalStore(path, run_in_thread=run_in_thread)
    await store.open(SALT)
    return store


async def copy(source, target, name=b"f", size=None):
    """Send a file from one store to another; returns what was not a hole, in bytes."""
    reader = await source.open_reader(name)
    size = reader.version.size
    writer = await target.open_writer(name, size, OnConflict.REPLACE, allocated=reader.allocated)
    sent = 0
    while pieces := await reader.read():
        sent += sum(map(len, pieces)) - in_holes(pieces)
        await writer.write(pieces)
    await writer.commit(await reader.finish(), None)
    reader.close()
    return sent


@pytest.fixture
def reads(monkeypatch):
    """Offset and length of each pread(2)."""
    asked = []
    pread = os.pread

    def reading(fd, length, offset):
        asked.append((offset, length))
        return pread(fd, length, offset)

    monkeypatch.setattr(os, "pread", reading)
    return asked


@pytest.mark.parametrize("where", ["/dev/shm", None])
@pytest.mark.parametrize(
    "layout",
    [
        (300 * MIB, 100 * KIB, 200 * MIB),
        (0, 3 * MIB, 200 * MIB, 5),
        (200 * MIB,),
        (64 * KIB, 64 * KIB) * 20,
        (MAX_HOLE_BYTES + 5, 7),
    ],
)
async def test_what_arrives_takes_as_much_room_as_what_was_there(where, layout):
    """On each file system, wherever the holes are; and all of it is there, to the last byte."""
    with tempfile.TemporaryDirectory(dir=where) as path:
        here, there = os.fsencode(path) + b"/here", os.fsencode(path) + b"/there"
        os.mkdir(here)
        os.mkdir(there)
        content = write(here + b"/f", layout)
        sent = await copy(await opened(here, deferToThread), await opened(there, deferToThread))
        before, after = os.stat(here + b"/f"), os.stat(there + b"/f")
        with open(there + b"/f", "rb") as file:
            assert content == file.read()

    assert sent <= sum(layout[1::2]) + 8 * MIN_HOLE_BYTES
    assert after.st_blocks <= before.st_blocks + 256


async def test_a_hole_is_not_read(folder, reads):
    """Neither when it is sent, nor when it is compared, at either end."""
    content = write(folder + b"/f", (100 * MIB, 10, 30 * MIB - 10))
    allowed = range(100 * MIB - 4096, 101 * MIB + 4096)
    store = await opened(folder)
    reader = await store.open_reader(b"f")
    digests = await reader.block_digests(len(content))
    assert digest(content) == await read_to_end(reader)
    assert len(content) == await store.match_final(b"f", len(content), 0, digests)
    writer = await store.open_writer(b"g", len(content), OnConflict.FAIL)
    first = [*[Hole(MAX_HOLE_BYTES)] * 6, Hole(4 * MIB)]
    await writer.write([*first, content[100 * MIB : 101 * MIB], Hole(MAX_HOLE_BYTES), Hole(13 * MIB)])
    await writer.abandon(keep=True)
    writer = await store.open_writer(b"g", len(content), OnConflict.FAIL)
    assert len(content) == await writer.match(digests, len(content))
    await writer.commit(digest(content), None)

    assert [] == [(offset, length) for offset, length in reads if offset not in allowed and offset < len(content)]
    assert reads


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_the_layout(folder, seed):
    """Short holes and long ones, at any place: what is read is the content, and only holes are holes."""
    rng = random.Random(seed)
    layout = [rng.choice([4, 60, 64, 68, 100, 3000]) * KIB + rng.choice([0, 0, 1, 4095]) for _ in range(40)]
    content = write(folder + b"/f", layout)
    reader = await (await opened(folder)).open_reader(b"f")
    pieces = []
    while some := await reader.read():
        pieces += some

    assert content == b"".join(filled(pieces))
    assert digest(content) == await reader.finish()
    assert all(MIN_HOLE_BYTES <= len(piece) <= MAX_HOLE_BYTES for piece in pieces if isinstance(piece, Hole))
    assert in_holes(pieces) > sum(length for length in layout[::2] if length > 72 * KIB) * 0.9
    reader.close()


async def test_what_a_file_system_is_not_believed_is_read(folder, reads, monkeypatch):
    """What turns out to be zeros is a hole all the same."""
    monkeypatch.setattr(reader_module, "holes_are_sure", lambda _fd: False)
    content = write(folder + b"/f", (5 * MIB, 10, 3 * MIB))
    reader = await (await opened(folder)).open_reader(b"f")
    pieces = []
    while some := await reader.read():
        pieces += some

    assert content == b"".join(filled(pieces))
    assert sum(length for offset, length in reads if offset < len(content)) >= len(content)
    assert in_holes(pieces) > 7 * MIB
    reader.close()


async def test_content_that_a_file_system_calls_a_hole_arrives(folder, monkeypatch):
    """Where it is not believed."""
    monkeypatch.setattr(reader_module, "holes_are_sure", lambda _fd: False)
    content = random_bytes(3 * MIB)
    monkeypatch.setattr(os, "lseek", lambda _fd, _offset, whence: 3 * MIB if whence == os.SEEK_DATA else 0)
    with open(folder + b"/f", "wb") as file:
        file.write(content)
    reader = await (await opened(folder)).open_reader(b"f")

    assert content == await read_all(reader)
    reader.close()


async def test_a_file_system_that_knows_no_holes(folder, monkeypatch):
    """All is content there."""

    def lseek(*_):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "lseek", lseek)
    content = write(folder + b"/f", (3 * MIB, 10, 3 * MIB))
    reader = await (await opened(folder)).open_reader(b"f")

    assert None is reader.allocated
    assert len(content) == await copy(await opened(folder), await opened(folder))
    reader.close()


@pytest.mark.parametrize("change", ["shorter", "written", "shorter and longer"])
async def test_a_file_that_changes_in_a_hole_has_changed(folder, change):
    """As if somebody had written anywhere else."""
    path = folder + b"/f"
    write(path, (200 * MIB, 10, 200 * MIB))
    reader = await (await opened(folder)).open_reader(b"f")
    await reader.read()
    with open(path, "r+b") as file:
        if change == "written":
            file.seek(150 * MIB)
            file.write(b"new")
        else:
            file.truncate(MIB)
        if change == "shorter and longer":
            file.truncate(400 * MIB + 10)

    assert isinstance(await failure(read_to_end(reader)), SourceChanged)
    reader.close()


async def test_real_zeros_match_holes(root, behind):
    """In a final file and in a partial, of which no byte is sent again; what is there stays as it is."""
    content = bytes(3 * MIB)
    behind.plant(b"f", content)
    behind.plant_partial(b"g", content)
    store = await opened(root)
    digests = block_digests(content)
    matched = await store.match_final(b"f", len(content), 0, digests)
    writer = await store.open_writer(b"g", len(content), OnConflict.FAIL)

    assert len(content) == matched == await writer.match(digests, len(content))
    assert Committed.CREATED is (await writer.commit(digest(content), None)).how


async def test_a_hole_where_content_was_lost_is_noticed(root, behind):
    """A crash may leave zeros in place of what was not on the disk yet: it does not match, and is sent again."""
    content = random_bytes(3 * MIB)
    behind.plant_sparse(b"f", content[:MIB] + bytes(2 * MIB))
    store = await opened(root)
    digests = block_digests(content)

    assert MIB == await store.match_final(b"f", len(content), 0, digests)
    assert [False] == await store.settle([Expected(b"f", len(content), digest(content))])


def test_blocks_in_a_hole_are_known(folder, reads):
    """They are the same object, so that nobody needs to hash them again; one that only begins with a hole is read."""
    content = write(folder + b"/f", (2 * MIB + 5, 10, 3 * MIB - 15))
    with open(folder + b"/f", "rb") as file:
        found = list(blocks(file.fileno(), len(content), 0))
        assert digest(content) == digest_of(file.fileno(), len(content))

    assert [True, True, False, True, True] == [block is ZERO_BLOCK for block in found]
    assert content == b"".join(found)
    assert {2 * MIB} == {offset for offset, _ in reads}


def test_a_comparison_believes_no_hole_that_is_not_sure(folder, reads, monkeypatch):
    """What is taken for the same may be removed elsewhere: where others may have written, all is read."""
    monkeypatch.setattr(holes, "always_fresh", lambda _fd: False)
    content = write(folder + b"/f", (2 * MIB, 10, 3 * MIB))
    with open(folder + b"/f", "rb") as file:
        assert content == b"".join(blocks(file.fileno(), len(content), 0))

    assert len(content) == sum(length for _, length in reads)


@pytest.mark.parametrize("length", [0, 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 17])
def test_zeros_are_hashed_as_such(length):
    """However many."""
    hasher = blake3()
    hash_zeros(hasher, length)

    assert digest(bytes(length)) == hasher.digest()


@pytest.mark.parametrize("length", [1, 4095, 16_384, 16_385, 20_480, 100_000, SPAN_BYTES])
def test_a_hole_is_cut_like_its_zeros(length):
    """So the other side, which may cut zeros, finds the same chunks."""
    assert deltas.cut(bytes(length)) == deltas.cut_zeros(length)


async def test_a_delta_leaves_holes(folder, reads):
    """What is zeros at the source is neither read nor sent, nor taken from the old version, nor allocated."""
    os.mkdir(folder + b"/new")
    os.mkdir(folder + b"/old")
    write(folder + b"/old/f", (8 * MIB, 300 * KIB, 30 * MIB))
    content = write(folder + b"/new/f", (9 * MIB, 300 * KIB, 60 * MIB))
    source, target = await opened(folder + b"/new"), await opened(folder + b"/old")
    reader = await source.open_reader(b"f")
    writer = await target.open_writer(b"f", len(content), OnConflict.REPLACE, allocated=reader.allocated)
    sent = 0
    while chunks := await reader.cut():
        pieces = await reader.pick(await writer.offer(chunks))
        sent += sum(map(len, pieces))
        await writer.write(pieces)
    await writer.commit(await reader.finish(), None)
    reader.close()

    with open(folder + b"/old/f", "rb") as file:
        assert content == file.read()
    assert sent < 350 * KIB
    assert os.stat(folder + b"/old/f").st_blocks * 512 < MIB


async def test_a_file_needs_the_room_of_its_content(store, disk):
    """A file of a TiB begins on a disk of 20 MiB if that is enough; and one that needs more does not."""
    writer = await store.open_writer(b"f", TIB, OnConflict.FAIL, allocated=10 * MIB)

    assert isinstance(await failure(store.open_writer(b"g", TIB, OnConflict.FAIL, allocated=21 * MIB)), NoSpace)
    assert isinstance(await failure(store.open_writer(b"h", TIB, OnConflict.FAIL)), NoSpace)
    await writer.abandon(keep=False)


async def test_a_file_that_takes_more_than_was_told_fails_in_order(full):
    """What has arrived is kept, and known to be a hole and content."""
    store = await opened(full)
    writer = await store.open_writer(b"f", TIB, OnConflict.FAIL, allocated=100)
    await writer.write([Hole(MAX_HOLE_BYTES), b"x" * 100 * KIB])
    error = await failure(writer.write([b"x" * 300 * KIB]))
    kept = await writer.abandon(keep=True)

    assert isinstance(error, NoSpace)
    assert MAX_HOLE_BYTES + 100 * KIB <= kept <= MAX_HOLE_BYTES + 256 * KIB


async def test_what_was_kept_with_holes_takes_no_promise(full):
    """It is gone on with, however little is free beside it."""
    store = await opened(full)
    writer = await store.open_writer(b"f", TIB, OnConflict.FAIL, allocated=200 * KIB)
    await writer.write([Hole(MAX_HOLE_BYTES), b"x" * 100 * KIB])
    await writer.abandon(keep=True)
    with open(full + b"/other", "wb") as file:
        file.write(b"o" * 32 * KIB)
    writer = await store.open_writer(b"f", TIB, OnConflict.FAIL, allocated=200 * KIB)

    assert MAX_HOLE_BYTES + 100 * KIB == writer.have
    waiting = store.open_writer(b"g", TIB, OnConflict.FAIL, allocated=30 * KIB)
    assert not waiting.called
    await writer.abandon(keep=False)
    await (await waiting).abandon(keep=False)
