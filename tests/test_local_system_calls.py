"""How a local store calls the system: nothing stays open, nothing is asked twice."""

from __future__ import annotations

import errno
import os

import pytest
from twisted.internet.defer import Deferred

from realize.errors import StorageError, VerifyFailed
from realize.fs import syscalls
from realize.fs.descriptors import release
from realize.fs.handle import Handle
from realize.values import OnConflict
from tests.local_stores import DirectoryBehind, at_once, behind, opened, root

__all__ = ["behind", "root"]


def test_rename_noreplace(root, behind):
    """A name that is taken, by whatever it is, is not replaced."""
    behind.plant(b"a", b"a")
    os.symlink(b"nowhere", behind.at(b"link"))
    fd = os.open(root, os.O_RDONLY)
    try:
        with pytest.raises(FileExistsError):
            syscalls.rename_noreplace(fd, b"a", b"link")
        with pytest.raises(FileNotFoundError):
            syscalls.rename_noreplace(fd, b"missing", b"b")
        syscalls.rename_noreplace(fd, b"a", b"b")
    finally:
        os.close(fd)
    assert behind.content(b"b") == b"a"


@pytest.mark.parametrize("links", [True, False])
def test_rename_noreplace_without_support(root, behind, monkeypatch, links):
    """A file system without the flag, or even without hard links, keeps the promise as well as it can."""
    monkeypatch.setattr(syscalls, "_renameat2", None)
    if not links:
        monkeypatch.setattr(os, "link", _no_links)
    behind.plant(b"a", b"a")
    behind.plant(b"taken", b"t")
    fd = os.open(root, os.O_RDONLY)
    try:
        with pytest.raises(FileExistsError):
            syscalls.rename_noreplace(fd, b"a", b"taken")
        syscalls.rename_noreplace(fd, b"a", b"b")
    finally:
        os.close(fd)
    assert [b"b", b"taken"] == behind.everything()


def _no_links(*_arguments, **_options):
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_syncfs_refuses_a_closed_descriptor():
    """Errors of libc come as `OSError`."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        syscalls.syncfs(-1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        syscalls.syncs_as_a_whole(-1)


def test_a_handle_is_closed_by_its_last_user(root):
    """The descriptor stays open while somebody uses it, and nobody gets it afterwards."""
    fd = os.open(root, os.O_RDONLY)
    handle = Handle(fd)
    with handle as used:
        handle.close()
        handle.close()
        assert fd == used
        os.fstat(fd)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    with pytest.raises(StorageError), handle:
        pass


async def opened_without_closing(root):
    """A store in whose threads no descriptor is ever closed, and the arguments of those that are to be."""
    asked = []

    def later(job, *arguments):
        if job is release:
            asked.append(arguments)
            return Deferred()
        return at_once(job, *arguments)

    return await opened(root, run_in_thread=later), asked


async def test_a_large_file_that_was_removed_is_let_go_of_in_a_thread(root):
    """The last close frees all blocks of the file, which may take seconds: the reactor does not wait for it."""
    DirectoryBehind(root).plant(b"f", b"x")
    store, asked = await opened_without_closing(root)
    (await store.open_reader(b"f")).close()
    [(fd,)] = asked

    os.fstat(fd)
    os.close(fd)


@pytest.mark.parametrize("how", ["another digest", "not kept"])
async def test_a_partial_that_was_discarded_is_let_go_of_in_a_thread(root, how):
    """Its blocks are freed by the last close, too; its name is free at once."""
    store, asked = await opened_without_closing(root)
    writer = await store.open_writer(b"f", 3, OnConflict.REPLACE)
    await writer.write([b"abc"])
    if how == "not kept":
        await writer.abandon(keep=False)
    else:
        with pytest.raises(VerifyFailed):
            await writer.commit(bytes(32), None)
    [(fd,)] = asked
    again = await store.open_writer(b"f", 3, OnConflict.REPLACE)

    assert 0 == os.fstat(fd).st_nlink == again.have
    os.close(fd)
    await again.write([b"abc"])
    await again.abandon(keep=True)
    assert 1 == len(asked)


async def test_what_no_thread_can_close_is_closed_all_the_same(root):
    """A machine that has no thread left does not make us keep descriptors."""
    DirectoryBehind(root).plant(b"f", b"x")

    def refuses(job, *arguments):
        if job is release:
            raise RuntimeError("can't start new thread")
        return at_once(job, *arguments)

    store = await opened(root, run_in_thread=refuses)
    before = len(os.listdir("/proc/self/fd"))
    reader = await store.open_reader(b"f")
    reader.close()

    assert before == len(os.listdir("/proc/self/fd"))
