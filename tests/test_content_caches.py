"""What is read of a file is what the file system has now, also where its cache of content is not to be relied upon."""

import os
import stat

import pytest

from realize.fs import tree
from realize.values import BLOCK_BYTES, Expected, Fetched
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
def cache(monkeypatch):
    """A file system in user space that keeps old content of ``f`` until it is told to drop it; the advice it got."""
    advised = []
    pread, preadv = os.pread, os.preadv

    def is_old(fd):
        return os.POSIX_FADV_DONTNEED not in advised and stat.S_ISREG(os.fstat(fd).st_mode)

    def old_pread(fd, length, offset):
        return OLD[offset : offset + length] if is_old(fd) else pread(fd, length, offset)

    def old_preadv(fd, views, offset):
        count = preadv(fd, views, offset)
        if is_old(fd):
            views[0][:count] = OLD[offset : offset + count]
        return count

    monkeypatch.setattr(os, "pread", old_pread)
    monkeypatch.setattr(os, "preadv", old_preadv)
    monkeypatch.setattr(os, "posix_fadvise", lambda _fd, _offset, _length, advice: advised.append(advice))
    monkeypatch.setattr(tree, "may_keep_old_content", lambda _fd: True)
    return advised


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
    """It is as good as what is on the disk, and faster."""
    advised = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _fd, _offset, _length, advice: advised.append(advice))
    store = await opened(root)

    reader = await store.open_reader(b"f")
    reader.close()
    await store.read_small([b"f"])

    assert os.POSIX_FADV_DONTNEED not in advised
