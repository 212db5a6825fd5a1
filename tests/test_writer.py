"""A large file on its way into a directory: what is durable, what is asked of the kernel, and how it ends."""

from __future__ import annotations

import errno
import os

import pytest

from realize.errors import Conflict, NoSpace, ProtocolError, StorageError, VerifyFailed
from realize.store.local import writer as writer_module
from realize.store.local.headroom import Headroom
from realize.units import Reserve
from realize.values import BLOCK_BYTES, Attributes, Committed, OnConflict
from tests.leftovers import leave_partial, partial_at
from tests.local_stores import PARTIAL, REPLACE, at_once, behind, calls, open_files, opened, root
from tests.store_helpers import block_digests, digest, failure, how, random_bytes

__all__ = ["behind", "calls", "root"]

CONTENT = random_bytes(3 * BLOCK_BYTES + 5)


async def test_a_partial_that_is_kept_is_durable(root, behind, calls):
    """Its content first, then its name: what a later run goes on with is there after a power cut."""
    os.mkdir(behind.at(b"d"))
    store = await opened(root)
    writer = await store.open_writer(b"d/f", 3, REPLACE)
    await writer.write([b"12"])
    await writer.abandon(keep=True)

    assert [("fsync", "/d/" + PARTIAL.decode()), ("fsync", "/d")] == calls


async def test_nothing_is_kept_of_nothing(root, behind, calls):
    """An empty partial is of no use to anybody."""
    store = await opened(root)
    writer = await store.open_writer(b"f", 3, REPLACE)
    await writer.abandon(keep=True)

    assert ([], []) == (calls, behind.everything())


async def test_a_directory_that_cannot_be_made_durable_is_told(root, behind, monkeypatch):
    """The partial stays, and nothing stays open."""
    store = await opened(root)
    writer = await store.open_writer(b"f", 3, REPLACE)
    await writer.write([b"12"])

    def fails(_fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(writer_module, "fsync_directory", fails)

    assert "f: Input/output error" == str(await failure(writer.abandon(keep=True)))
    assert [PARTIAL] == behind.everything()
    assert [] == open_files(root)


async def test_the_kernel_is_told_early_to_write(root, monkeypatch):
    """Each part of what was written here once, so that the commit has less to wait for."""
    asked = []
    monkeypatch.setattr(writer_module, "_WRITEBACK_STEP_BYTES", 100)
    monkeypatch.setattr(writer_module, "start_writeback", lambda _fd, offset, length: asked.append((offset, length)))
    leave_partial(root, "f", CONTENT[:BLOCK_BYTES])
    store = await opened(root)
    writer = await store.open_writer(b"f", len(CONTENT), REPLACE)
    assert BLOCK_BYTES == await writer.match(block_digests(CONTENT[:BLOCK_BYTES]), BLOCK_BYTES)
    for start, end in (
        (BLOCK_BYTES, BLOCK_BYTES + 99),
        (BLOCK_BYTES + 99, BLOCK_BYTES + 100),
        (BLOCK_BYTES + 100, len(CONTENT)),
    ):
        await writer.write([CONTENT[start:end]])

    assert how(await writer.commit(digest(CONTENT), None)) is Committed.CREATED
    assert [(BLOCK_BYTES, 100), (BLOCK_BYTES + 100, len(CONTENT) - BLOCK_BYTES - 100)] == asked


async def test_only_what_matches_is_gone_on_with(root, behind):
    """Behind the first block that differs all is written anew, over several comparisons."""
    leave_partial(root, "f", CONTENT[: 2 * BLOCK_BYTES] + b"!" + CONTENT[2 * BLOCK_BYTES + 1 :] + b"and more")
    store = await opened(root)
    writer = await store.open_writer(b"f", len(CONTENT), REPLACE)
    digests = block_digests(CONTENT)

    assert len(CONTENT) == writer.have
    assert BLOCK_BYTES == await writer.match(digests[:1], BLOCK_BYTES)
    assert BLOCK_BYTES == await writer.match(digests[1:3], 2 * BLOCK_BYTES)
    await writer.write([CONTENT[2 * BLOCK_BYTES : -5], CONTENT[-5:]])

    assert how(await writer.commit(digest(CONTENT), None)) is Committed.CREATED
    assert CONTENT == behind.content(b"f")


async def test_a_comparison_ends_where_the_first_slice_differs(root, monkeypatch):
    """A block that is somewhere else in the new version is not taken for the one at its place."""
    monkeypatch.setattr(writer_module, "SLICE_BYTES", BLOCK_BYTES)
    moved = CONTENT[:BLOCK_BYTES]
    leave_partial(root, "f", moved)
    store = await opened(root)
    writer = await store.open_writer(b"f", 3 * BLOCK_BYTES, REPLACE)

    assert 0 == await writer.match([b"?" * 32, *block_digests(moved)], 2 * BLOCK_BYTES)
    await writer.abandon(keep=True)


async def test_a_comparison_ends_in_the_middle_of_a_block(root, monkeypatch):
    """Where there is more of the partial, as much is compared as is asked for."""
    monkeypatch.setattr(writer_module, "SLICE_BYTES", BLOCK_BYTES)
    leave_partial(root, "f", CONTENT)
    store = await opened(root)
    writer = await store.open_writer(b"f", len(CONTENT), REPLACE)

    assert 2 * BLOCK_BYTES + 7 == await writer.match(block_digests(CONTENT[: 2 * BLOCK_BYTES + 7]), 2 * BLOCK_BYTES + 7)
    await writer.abandon(keep=True)


async def test_what_is_there_is_compared_before_anything_is_sent(root):
    """Behind content, or an offer, nobody knows any more what a block would be compared with."""
    leave_partial(root, "f", CONTENT)
    store = await opened(root)
    for begin in (lambda writer: writer.write([b""]), lambda writer: writer.offer([(5000, bytes(16))])):
        writer = await store.open_writer(b"f", len(CONTENT), REPLACE)
        await begin(writer)

        assert isinstance(await failure(writer.match([], 0)), ProtocolError)
        await writer.abandon(keep=False)
        leave_partial(root, "f", CONTENT)


async def test_what_is_left_behind_the_end_goes(root, behind):
    """Also if nothing is written, since all of it was there."""
    leave_partial(root, "f", CONTENT + b"and more")
    store = await opened(root)
    writer = await store.open_writer(b"f", len(CONTENT), REPLACE)
    assert len(CONTENT) == await writer.match(block_digests(CONTENT), len(CONTENT))

    assert how(await writer.commit(digest(CONTENT), Attributes(7, 0o640))) is Committed.CREATED
    assert (CONTENT, Attributes(7, 0o640)) == (behind.content(b"f"), behind.attributes(b"f"))


@pytest.mark.parametrize(
    ("length", "count"), [(BLOCK_BYTES, 0), (BLOCK_BYTES, 2), (BLOCK_BYTES + 1, 1), (0, 1), (1, 0)]
)
async def test_a_comparison_has_a_digest_for_each_block(root, length, count):
    """No more and no less."""
    leave_partial(root, "f", CONTENT)
    store = await opened(root)
    writer = await store.open_writer(b"f", len(CONTENT), REPLACE)

    assert isinstance(await failure(writer.match([b"?" * 32] * count, length)), ProtocolError)
    assert 0 == await writer.match([], 0)
    await writer.abandon(keep=True)


@pytest.mark.parametrize("policy", [OnConflict.FAIL, OnConflict.SKIP])
async def test_who_is_not_to_replace_is_told_before_anything_is_sent(root, behind, policy):
    """And no partial is made."""
    behind.plant(b"f", b"x")
    store = await opened(root)

    assert "f: exists already" == str(await failure(store.open_writer(b"f", 3, policy)))
    assert Conflict is type(await failure(store.open_writer(b"f", 3, policy)))
    assert [b"f"] == behind.everything()


async def test_what_cannot_be_begun_leaves_no_directory(root, behind):
    """Those that were made for it go, and the one that was there stays."""
    os.mkdir(behind.at(b"d"))
    store = await opened(root, headroom=Headroom(at_once, reserve=Reserve(1 << 60)))

    assert isinstance(await failure(store.open_writer(b"d/e/e/f", 3, REPLACE)), NoSpace)
    assert [b"d"] == behind.everything()


@pytest.mark.parametrize(("path", "replaced"), [(b"d/new", 0), (b"new", 0), (b"f", 5)])
async def test_the_room_of_what_is_replaced_is_known(root, behind, path, replaced):
    """It becomes free in the end; of what is not there nothing does."""
    behind.plant(b"f", b"12345")
    store = await opened(root)
    writer = await store.open_writer(path, 9, REPLACE)
    [promise] = store._headroom.ledger.on(os.stat(root).st_dev).promises
    await writer.abandon(keep=False)

    assert replaced == promise.replaced


async def test_a_symlink_in_the_place_of_a_partial_is_not_discarded(root, behind):
    """It is not ours to remove, though it leads to what is."""
    store = await opened(root)
    writer = await store.open_writer(b"f", 3, REPLACE)
    await writer.write([b"12"])
    os.rename(behind.at(PARTIAL), behind.at(b"moved"))
    os.symlink(b"moved", behind.at(PARTIAL))
    await writer.abandon(keep=False)

    assert [PARTIAL, b"moved"] == behind.everything()


async def test_a_write_that_failed_is_the_last(root, behind, monkeypatch):
    """How much has arrived is not known any more: neither is more written nor is it committed, whatever is asked."""
    store = await opened(root)
    writer = await store.open_writer(b"f", 4, REPLACE)
    await writer.write([b"12"])

    def fails(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fails)
        first = await failure(writer.write([b"3"]))
    second = await failure(writer.write([b"4"]))
    third = await failure(writer.commit(digest(b"1234"), None))

    assert ["f: Input/output error"] * 3 == [str(each) for each in (first, second, third)]
    assert [] == open_files(root)
    assert behind.content(b"f") is None


async def test_a_write_that_failed_unexpectedly_is_the_last_too(root, monkeypatch):
    """Whatever it was."""
    store = await opened(root)
    writer = await store.open_writer(b"f", 4, REPLACE)

    def fails(*_):
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fails)
        with pytest.raises(ZeroDivisionError):
            await writer.write([b"12"])
    later = await failure(writer.write([b"34"]))

    assert "f: could not be written" == str(later)
    await writer.abandon(keep=False)


@pytest.mark.parametrize(
    ("sent", "of", "words"),
    [
        (b"12", b"123", "f: only 2 of 3 bytes arrived"),
        (b"12!", b"123", "f: the content that arrived differs from the content that was read"),
    ],
)
async def test_what_is_not_what_was_read_is_not_committed(root, behind, sent, of, words):
    """Nor is it kept: nobody knows what is wrong with it."""
    store = await opened(root)
    writer = await store.open_writer(b"f", len(of), REPLACE)
    await writer.write([sent])
    refused = await failure(writer.commit(digest(of), None))

    assert (VerifyFailed, words) == (type(refused), str(refused))
    assert [] == behind.everything()
    assert "f: is not being written any more" == str(await failure(writer.write([b""])))
    assert StorageError is type(await failure(writer.commit(digest(of), None)))
    assert await writer.abandon(keep=True) is None


async def test_more_than_was_announced_is_refused_as_a_whole(root, behind):
    """What fits still may come, and no byte of the rest is there."""
    store = await opened(root)
    writer = await store.open_writer(b"f", 3, REPLACE)

    assert isinstance(await failure(writer.write([b"12", b"34"])), ProtocolError)
    assert b"" == partial_at(root, "f").read_bytes()
    await writer.write([b"12", b"3"])
    assert isinstance(await failure(writer.write([b"4"])), ProtocolError)
    await writer.write([b""])
    assert how(await writer.commit(digest(b"123"), None)) is Committed.CREATED


async def test_the_room_of_a_file_is_free_when_it_has_ended(root):
    """However it ends; and until then it is kept for it, but for what it has written."""
    store = await opened(root)
    file_system = store._headroom.ledger.on(os.stat(root).st_dev)
    left = []
    for end in ("commit", "keep", "discard", "fail"):
        writer = await store.open_writer(b"f", 4, REPLACE)
        [promise] = file_system.promises
        await writer.write([b"12"])
        left.append(promise.left)
        seen = file_system.seen
        if end == "commit":
            await writer.write([b"34"])
            await writer.commit(digest(b"1234"), None)
        elif end == "fail":
            await failure(writer.commit(digest(b"1234"), None))
        else:
            await writer.abandon(keep=end == "keep")
        assert (set(), True) == (file_system.promises, file_system.seen > seen)
        partial_at(root, "f").unlink(missing_ok=True)

    assert [2] * 4 == left
