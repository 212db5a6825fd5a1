"""What a local store leaves, and what becomes of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, maybeDeferred

from realize.errors import BadName, Busy, Conflict, ProtocolError, StorageError, VerifyFailed
from realize.fs.names import is_partial, partial_name
from realize.store import deltas
from realize.store.local import old_version
from realize.store.local.headroom import Headroom
from realize.store.local.walker import Walker
from realize.store.local.writer import MAX_WAITING_RUNS
from realize.values import BLOCK_BYTES, SPAN_BYTES, Committed, OnConflict, Stored
from tests.local_stores import (
    PARTIAL,
    REPLACE,
    DirectoryBehind,
    as_nobody,
    at_once,
    behind,
    every_method,
    open_files,
    open_root,
    opened,
    put,
    root,
)
from tests.store_helpers import LARGE_CONTENT, block_digests, digest, failure, how, random_bytes, small_file

__all__ = ["behind", "open_root", "root"]


async def test_no_small_partial_is_left(root, behind):
    """Whatever happens to the files of a batch, no partial of theirs stays."""
    behind.plant(b"d/f", b"")
    behind.plant(b"e", b"old")
    store = await opened(root)
    files = [small_file(b"d", b"x"), small_file(b"new", b"x"), evolve(small_file(b"v", b"x"), digest=b"?" * 32)]

    answers = await store.put_small([*files, small_file(b"e", b"x")], OnConflict.FAIL)

    assert [Conflict, Stored, VerifyFailed, Conflict] == [type(answer) for answer in answers]
    assert not [path for path in behind.everything() if is_partial(os.path.basename(path))]


async def test_errors_are_ours(root):
    """Every failure that a store reports is a `RealizeError`."""
    store = await opened(root)

    assert [BadName] * 8 == [type(answer) for answer in await every_method(store, b"a" * 256)]


async def test_comparing_needs_as_many_digests_as_blocks(root, behind):
    """The digests of a comparison must cover its length."""
    behind.plant_partial(b"f", LARGE_CONTENT)
    store = await opened(root)
    writing = await store.open_writer(b"f", len(LARGE_CONTENT), REPLACE)

    assert isinstance(await failure(writing.match(block_digests(LARGE_CONTENT)[:2], len(LARGE_CONTENT))), ProtocolError)
    assert await writing.match(block_digests(LARGE_CONTENT), len(LARGE_CONTENT)) == len(LARGE_CONTENT)
    await writing.abandon(keep=True)


@pytest.mark.parametrize("mode", [0o1400, 0o1500])
async def test_an_abandoned_partial_that_may_not_be_written_is_taken_up(open_root, mode):
    """A commit that was cut short has given the partial its final mode; the next run goes on with it all the same."""
    behind = DirectoryBehind(open_root)
    behind.plant_partial(b"f", b"xy")
    partial = behind.at(PARTIAL)
    os.chmod(partial, mode)
    os.chmod(open_root, 0o777)
    if not os.getuid():
        os.chown(partial, 65534, 65534)
    store = await opened(open_root, run_in_thread=as_nobody)

    writing = await store.open_writer(b"f", 3, REPLACE)

    assert writing.have == 2
    assert isinstance(await failure(store.open_writer(b"f", 3, REPLACE)), Busy)
    assert await writing.match([digest(b"xy")], 2) == 2
    await writing.write([b"z"])
    os.chmod(partial, mode)
    assert isinstance(await failure(store.open_writer(b"f", 3, REPLACE)), Busy)
    assert how(await writing.commit(digest(b"xyz"), None)) is Committed.CREATED


async def test_a_partial_of_somebody_else_is_not_discarded_with_ours(root, behind):
    """What took the place of our partial is left alone when ours cannot be renamed."""
    store = await opened(root, run_in_thread=at_once)
    original = store._committer.commit

    def swap(files, *owner):
        behind.plant_partial(b"f~", b"")
        os.rename(behind.at(partial_name(b"f~")), behind.at(PARTIAL))
        return original(files, *owner)

    store._committer.commit = swap

    assert isinstance(await put(store, b"f", b"x"), StorageError)
    assert behind.everything() == [PARTIAL]


OLD = random_bytes(3 * BLOCK_BYTES)


NEW = OLD[:BLOCK_BYTES] + b"inserted" + OLD[BLOCK_BYTES:]


async def half_done(store, behind):
    """A writer that knows what is wanted of a new version, and was not given it yet; and what that is."""
    behind.plant(b"f", OLD)
    await store.describe([b"f"])
    writer = await store.open_writer(b"f", len(NEW), REPLACE)
    chunks = deltas.cut(NEW)
    wanted = await writer.offer(chunks)
    content, position = b"", 0
    for (length, _), want in zip(chunks, wanted, strict=True):
        content += NEW[position : position + length] if want else b""
        position += length
    assert 0 < len(content) < 100_000
    return writer, content


@pytest.mark.parametrize("how", ["changes", "shrinks"])
async def test_an_old_version_that_is_not_left_alone(root, behind, how):
    """What is copied from a file that somebody writes to meanwhile is not committed."""
    store = await opened(root)
    writer, content = await half_done(store, behind)

    with (Path(os.fsdecode(root)) / "f").open("r+b") as file:
        if how == "changes":
            file.seek(2 * BLOCK_BYTES)
            file.write(b"changed")
        else:
            file.truncate(2 * BLOCK_BYTES)
    error = await failure(write_and_commit(writer, content))
    await writer.abandon(keep=True)

    assert isinstance(error, VerifyFailed)
    assert NEW != behind.content(b"f")
    assert [] == open_files(root)
    await store.close()


async def test_an_old_version_that_is_only_unlinked_is_of_use_to_the_end(root, behind):
    """What was open stays readable: the new version comes together, and replaces nothing."""
    store = await opened(root)
    writer, content = await half_done(store, behind)

    os.unlink(os.path.join(root, b"f"))

    assert Committed.CREATED is how(await write_and_commit(writer, content))
    assert NEW == behind.content(b"f")
    await store.close()


async def write_and_commit(writer, content):
    """Give the writer the rest, and have it committed."""
    await writer.write([content])
    return await writer.commit(digest(NEW), None)


async def test_a_writer_that_looks_for_chunks_lets_go_of_everything(root, behind):
    """The old version is closed with the writer, however that ends."""
    store = await opened(root)
    writer, content = await half_done(store, behind)

    before = open_files(root)
    await writer.write([content[:10]])
    await writer.abandon(keep=True)

    assert 2 == len(before)
    assert [] == open_files(root)
    await store.close()


async def test_what_is_offered_does_not_run_far_ahead_of_the_content(root, behind, monkeypatch):
    """Who offers more and more of a file without end, and sends nothing, is refused before our memory is full."""
    monkeypatch.setattr(Headroom, "free", lambda *_: None)
    store = await opened(root)
    behind.plant(b"f", OLD)
    await store.describe([b"f"])
    writer = await store.open_writer(b"f", 1 << 50, REPLACE)
    known = min(deltas.cut(OLD))
    missing = (1, bytes(16))
    for _ in range(2):
        await writer.offer([(60_000, bytes(16)), known])
    offer = [missing, known] * (SPAN_BYTES // (known[0] + 1))

    with pytest.raises(ProtocolError, match="more chunks are offered"):
        for _ in range(MAX_WAITING_RUNS // len(offer) + 1):
            await writer.offer(offer)

    await writer.abandon(keep=False)
    await store.close()


async def test_an_old_version_that_cannot_be_read_is_replaced_all_the_same(root, behind, monkeypatch):
    """Whatever reading it fails with: then everything is wanted."""
    store = await opened(root)
    behind.plant(b"f", OLD)
    await store.describe([b"f"])
    writer = await store.open_writer(b"f", len(NEW), REPLACE)

    def broken(fd, view, offset):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(old_version, "read_into", broken)
    wanted = await writer.offer(deltas.cut(NEW))

    assert all(wanted)
    await writer.write([NEW])
    assert Committed.REPLACED is how(await writer.commit(digest(NEW), None))
    assert NEW == behind.content(b"f")
    await store.close()


async def test_a_listing_that_was_given_up_reads_nothing_more(root, behind):
    """Neither what is asked for later, nor what still waits for its thread: nobody would get it."""
    behind.plant(b"f", b"1")
    waiting = []

    def later(work, *arguments):
        if not opening:
            return maybeDeferred(work, *arguments)
        result = Deferred()
        waiting.append((result, work, arguments))
        return result

    opening = []
    store = await opened(root, run_briefly=later)
    opening.append("is over")
    listing = store.walk()
    page = listing.next_page()
    listing.close()
    [(result, work, arguments)] = waiting
    read = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Walker, "page", lambda _: read.append(1))
        result.callback(work(*arguments))

    assert ([], []) == (await page, read)


@pytest.mark.parametrize("whose", ["listing", "store", "listing while a page is read"])
async def test_a_listing_that_is_given_up_leaves_nothing_open(root, behind, monkeypatch, whose):
    """A directory of which more is to come has a descriptor."""
    monkeypatch.setattr("realize.store.local.walker.MAX_SORTED_NAMES", 2)
    for number in range(5):
        behind.plant(b"d/%d" % number, b"1")
    closing = []

    def later(work, *arguments):
        page = maybeDeferred(work, *arguments)
        for close in closing:
            close()
        return page

    store = await opened(root, run_briefly=later)
    listing = store.walk()
    assert 0 < len(await listing.next_page()) < 6
    assert [] != open_files(root)
    if whose == "store":
        await store.close()
    elif whose == "listing":
        listing.close()
    else:
        closing.append(listing.close)
        assert [] != await listing.next_page()

    assert [] == open_files(root)
