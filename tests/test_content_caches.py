"""What is read of a file is what the file system has now, also where its cache of content is not to be relied upon.

Nor may what a file is compared with be in the cache alone: the kernel keeps there what it could not write, and calls it
written once it has told somebody.
"""

import ctypes
import errno
import os
import stat

import pytest

from realize.errors import StorageError
from realize.fs import syscalls, tree
from realize.fs.names import partial_name
from realize.store.local.partial_marks import RECEIVING
from realize.values import BLOCK_BYTES, Expected, Fetched, OnConflict
from tests.local_stores import opened
from tests.store_helpers import block_digests, digest, random_bytes, read_all

OLD = random_bytes(2 * BLOCK_BYTES + 7, seed=1)
NEW = random_bytes(2 * BLOCK_BYTES + 7, seed=2)


@pytest.fixture
def root(tmp_path):
    """A directory with a file ``f`` of that content."""
    path = os.fsencode(tmp_path / "root")
    os.mkdir(path)
    with open(os.path.join(path, b"f"), "wb") as file:
        file.write(NEW)
    return path


@pytest.fixture
def cached(monkeypatch):
    """A cache that has other content than the disk, until it is told to drop it; what the kernel was asked for.

    It drops what was written, or was to be, and nothing else.
    """
    asked = []
    pread, preadv = os.pread, os.preadv

    def is_old(fd):
        return os.POSIX_FADV_DONTNEED not in asked and stat.S_ISREG(os.fstat(fd).st_mode)

    def old_pread(fd, length, offset):
        return OLD[offset : offset + length] if is_old(fd) else pread(fd, length, offset)

    def old_preadv(fd, views, offset):
        count = preadv(fd, views, offset)
        if is_old(fd):
            views[0][:count] = OLD[offset : offset + count]
        return count

    monkeypatch.setattr(os, "pread", old_pread)
    monkeypatch.setattr(os, "preadv", old_preadv)
    monkeypatch.setattr(os, "posix_fadvise", lambda _fd, _offset, _length, advice: asked.append(advice))
    monkeypatch.setattr(syscalls, "_sync_file_range", lambda *arguments: asked.append(arguments[1:]) or 0)
    return asked


@pytest.fixture
def cache(cached, monkeypatch):
    """A file system in user space that keeps old content of ``f`` when that has changed; the advice it got."""
    monkeypatch.setattr(tree, "may_keep_old_content", lambda _fd: True)
    return cached


@pytest.mark.usefixtures("cache")
async def test_old_content_is_not_taken_for_the_file(root):
    """Its status is that of the new content already, so the last look would find nothing wrong."""
    store = await opened(root)
    reader = await store.open_reader(b"f")

    content = await read_all(reader)
    other = await store.open_reader(b"f")
    await other.skip(len(NEW))

    assert content == NEW
    assert digest(NEW) == await reader.finish() == await other.finish()
    reader.close()
    other.close()


async def test_nor_that_of_a_small_one(root, cache):
    """The same for a file that travels in a batch."""
    os.truncate(os.path.join(root, b"f"), 1000)

    [answer] = await (await opened(root)).read_small([b"f"])

    assert isinstance(answer, Fetched)
    assert answer.file.content == NEW[:1000]
    assert os.POSIX_FADV_DONTNEED in cache


@pytest.mark.usefixtures("cache")
async def test_nor_that_of_a_final_file(root):
    """A source whose content is what the destination has had once is not there already."""
    store = await opened(root)

    assert [False] == await store.settle([Expected(b"f", len(OLD), digest(OLD))])
    assert [True] == await store.settle([Expected(b"f", len(NEW), digest(NEW))])
    assert 0 == await store.match_final(b"f", len(OLD), 0, block_digests(OLD))
    assert len(NEW) == await store.match_final(b"f", len(NEW), 0, block_digests(NEW))


async def test_other_file_systems_keep_what_they_have_cached(root, monkeypatch):
    """For a source it is as good as what is on the disk, and faster."""
    advised = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _fd, _offset, _length, advice: advised.append(advice))
    store = await opened(root)

    reader = await store.open_reader(b"f")
    reader.close()
    await store.read_small([b"f"])

    assert os.POSIX_FADV_DONTNEED not in advised


WRITTEN = [(0, 0, 7), os.POSIX_FADV_DONTNEED]
"""What is asked of the kernel so that all content comes from the disk: write it and wait, then drop it."""


async def test_what_is_only_in_the_cache_is_not_there(root, cached):
    """An earlier run, or whoever wrote the file, was told that it could not be written; every fsync succeeds since."""
    store = await opened(root)

    assert [False] == await store.settle([Expected(b"f", len(OLD), digest(OLD))])
    assert WRITTEN == cached


async def test_nor_is_what_is_only_in_the_cache_of_a_large_file(root, cached):
    """The same for one that is compared block by block; it is dropped once, at the beginning."""
    store = await opened(root)
    assert 0 == await store.match_final(b"f", len(OLD), 0, block_digests(OLD))
    assert WRITTEN == cached
    cached.clear()

    matched = 0
    for block in block_digests(NEW):
        matched += await store.match_final(b"f", len(NEW), matched, [block])

    assert (len(NEW), WRITTEN) == (matched, cached)


async def test_a_partial_is_gone_on_with_behind_what_is_on_the_disk(root, cached):
    """An earlier process may have left more of it in the cache than could be written."""
    path = os.path.join(root, partial_name(b"g"))
    with open(path, "wb") as file:
        file.write(NEW)
        os.fchmod(file.fileno(), RECEIVING)
    writer = await (await opened(root)).open_writer(b"g", len(OLD), OnConflict.FAIL)

    matched = await writer.match(block_digests(OLD), len(OLD))
    await writer.abandon(keep=False)

    assert (0, WRITTEN) == (matched, cached)


async def test_what_cannot_be_written_is_an_error(root, monkeypatch):
    """Not another file: to keep both would fill the disk with copies of it."""

    def fail(*_):
        ctypes.set_errno(errno.EIO)
        return -1

    monkeypatch.setattr(syscalls, "_sync_file_range", fail)
    store = await opened(root)

    [small] = await store.settle([Expected(b"f", len(NEW), digest(NEW))])
    with pytest.raises(StorageError, match="Input/output error"):
        await store.match_final(b"f", len(NEW), 0, block_digests(NEW))

    assert isinstance(small, StorageError)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP])
async def test_where_the_kernel_does_not_write_a_part_of_a_file_what_it_has_written_is_dropped(
    root, cached, monkeypatch, number
):
    """A container may filter that call, and a file system lack it; an fsync follows."""

    def refuse(*_):
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(syscalls, "_sync_file_range", refuse)

    assert [True] == await (await opened(root)).settle([Expected(b"f", len(NEW), digest(NEW))])
    assert [os.POSIX_FADV_DONTNEED] == cached
