"""What is looked at so that a file can be removed is asked of the file system itself, not of a cache of attributes."""

import errno
import os
import stat

import pytest
from attrs import evolve

from realize.errors import Busy, SourceChanged
from realize.fs import syscalls, tree
from realize.values import BLOCK_BYTES, Expected, Fetched, OnConflict, Removal
from tests.local_stores import opened, root
from tests.store_helpers import block_digests, digest, failure, random_bytes, read_all, small_file

__all__ = ["root"]

LARGE = random_bytes(2 * BLOCK_BYTES + 7)


@pytest.fixture
def cache(monkeypatch):
    """From when this is called, the status of a regular file is what it was when it was first asked for."""

    def cache():
        known = {}

        def caching(call):
            def status(*arguments, **options):
                found = call(*arguments, **options)
                return known.setdefault((found.st_dev, found.st_ino), found) if stat.S_ISREG(found.st_mode) else found

            return status

        for name in ("stat", "fstat"):
            monkeypatch.setattr(os, name, caching(getattr(os, name)))
        monkeypatch.setattr(tree, "always_fresh", lambda _: False)

    return cache


def plant(root, content, name=b"f"):
    """A file that has settled, so that a change shows."""
    path = os.path.join(root, name)
    with open(path, "wb") as file:
        file.write(content)
    return path


def append(path):
    """What somebody does behind the cache."""
    with open(path, "ab") as file:
        file.write(b"MORE")


@pytest.mark.parametrize("links", [1, 2])
async def test_a_change_before_the_removal(root, cache, links):
    """It is kept, also if one of several names is to be removed."""
    path = plant(root, b"content")
    if links == 2:
        os.link(path, path + b"2")
    cache()
    store = await opened(root)
    [read] = await store.read_small([b"f"])
    append(path)

    [refused] = await store.remove([Removal(b"f", read.version)])

    assert isinstance(refused, SourceChanged)
    assert os.path.exists(path)


async def test_a_change_while_a_small_file_is_read(root, cache, monkeypatch):
    """It is not taken for whole."""
    path = plant(root, b"content")
    cache()
    store = await opened(root)
    pread = os.pread

    def change(*arguments):
        content = pread(*arguments)
        with open(path, "r+b") as file:
            file.write(b"CON")
        return content

    monkeypatch.setattr(os, "pread", change)

    [answer] = await store.read_small([b"f"])

    assert isinstance(answer, SourceChanged)


async def test_a_change_while_a_large_file_is_read(root, cache):
    """Nor is a large one."""
    path = plant(root, LARGE)
    cache()
    store = await opened(root)
    reader = await store.open_reader(b"f")
    await reader.skip(BLOCK_BYTES)
    append(path)

    assert isinstance(await failure(read_all(reader)), SourceChanged)
    reader.close()


async def test_an_old_status_when_it_is_opened_is_noticed_at_the_end(root, cache):
    """What is remembered when a file is opened may be old, for what is asked at the end must be the same."""
    path = plant(root, b"content")
    cache()
    os.stat(path)
    with open(path, "r+b") as file:
        file.write(b"CON")
    store = await opened(root)

    [small] = await store.read_small([b"f"])
    reader = await store.open_reader(b"f")

    assert isinstance(small, SourceChanged)
    assert isinstance(await failure(read_all(reader)), SourceChanged)
    reader.close()


@pytest.mark.parametrize("content", [b"content", LARGE])
async def test_a_final_file_that_changes_while_it_is_compared(root, cache, monkeypatch, content):
    """It is not vouched for: the only other copy would be removed."""
    path = plant(root, content)
    cache()
    store = await opened(root)
    pread = os.pread

    def change(*arguments):
        piece = pread(*arguments)
        with open(path, "r+b") as file:
            file.write(b"CON")
        return piece

    monkeypatch.setattr(os, "pread", change)

    assert [False] == await store.settle([Expected(b"f", len(content), digest(content))])
    plant(root, content)
    assert 0 == await store.match_final(b"f", len(content), 0, block_digests(content))


async def test_a_final_file_that_was_changed_is_not_replaced_unseen(root, cache):
    """Somebody else may have put his own there, and removed its source."""
    path = plant(root, b"old")
    cache()
    store = await opened(root)
    [existing] = await store.describe([b"f"])
    append(path)

    [refused] = await store.put_small([evolve(small_file(b"f", b"new"), replaces=existing.seen)], OnConflict.REPLACE)

    assert isinstance(refused, Busy)
    with open(path, "rb") as file:
        assert file.read() == b"oldMORE"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL, errno.EPERM, None])
async def test_without_statx_there_is_stat(root, monkeypatch, number):
    """An old kernel, an old C library and a container's filter of system calls do not keep files from being moved."""

    def refuse(*_):
        syscalls.ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(syscalls, "_statx", number and refuse)
    path = plant(root, b"content")
    store = await opened(root)

    [read] = await store.read_small([b"f"])

    assert isinstance(read, Fetched)
    assert [None] == await store.remove([Removal(b"f", read.version)])
    assert not os.path.exists(path)


def test_the_same_as_stat(tmp_path):
    """What statx tells is what stat tells, of whatever there is, to the nanosecond."""
    path = os.fsencode(tmp_path)
    plant(path, b"content", b"file")
    os.utime(os.path.join(path, b"file"), ns=(1, -1_234_567_890_123_456_789))
    os.symlink(b"nowhere", os.path.join(path, b"link"))
    os.mkfifo(os.path.join(path, b"fifo"), 0o640)
    fd = os.open(path, os.O_RDONLY)
    try:
        for name in (b"file", b"link", b"fifo", b".", b"..", b"/dev/null", b"/proc/self/status"):
            fresh, status = syscalls.fresh_stat(name, fd), os.stat(name, dir_fd=fd, follow_symlinks=False)
            assert [getattr(status, field) for field in fresh._fields] == list(fresh)
        fresh, status = syscalls.fresh_fstat(fd), os.fstat(fd)
        assert [getattr(status, field) for field in fresh._fields] == list(fresh)
        with pytest.raises(FileNotFoundError):
            syscalls.fresh_stat(b"missing", fd)
    finally:
        os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        syscalls.fresh_fstat(fd)
