"""Directories above a root: what was made by a run that did not live to make it durable."""

from __future__ import annotations

import errno
import os
import threading

import pytest
from twisted.internet.threads import deferToThread

from realize.errors import StorageError
from realize.fs import ancestors, syscalls
from realize.fs.ancestors import Ancestors
from realize.store.local.store import LocalStore, root_identity
from realize.values import Attributes, Expected, OnConflict
from tests.local_stores import as_nobody, open_root
from tests.store_helpers import digest, small_file

__all__ = ["open_root"]

REPLACE = OnConflict.REPLACE


@pytest.fixture
def synced(monkeypatch):
    """The directories that are made durable because they are above a root, in order."""
    recorded = []
    monkeypatch.setattr(
        ancestors, "fsync_directory", lambda fd: recorded.append(os.readlink(f"/proc/self/fd/{fd}")) or os.fsync(fd)
    )
    return recorded


@pytest.fixture
def deep(tmp_path):
    """A destination that an earlier run has made, with two directories above it."""
    path = tmp_path / "new" / "deep" / "dest"
    path.mkdir(parents=True)
    return path


def upwards(path):
    """All directories above ``path`` on its file system, the nearest first."""
    device = path.stat().st_dev
    return [str(each) for each in path.parents if each.stat().st_dev == device]


async def opened(path, **options):
    store = LocalStore(str(path), run_in_thread=deferToThread, **options)
    await store.open(b"")
    return store


async def test_directories_above_the_destination_are_durable_before_a_file_counts(deep, synced):
    """Whoever made them: up to the mount point, once for all that one store is asked to do."""
    store = await opened(deep)

    await store.put_small([small_file(b"d/f", b"x")], REPLACE)
    first = list(synced)
    await store.put_small([small_file(b"g", b"x")], REPLACE)

    assert upwards(deep) == first == synced


async def test_directories_above_a_large_file_are_durable(deep, synced):
    """The same for a file that comes as a stream."""
    writer = await (await opened(deep)).open_writer(b"f", 1, REPLACE)
    await writer.write([b"x"])
    await writer.commit(digest(b"x"), Attributes(0, 0o600))

    assert upwards(deep) == synced


async def test_directories_above_what_is_there_already_are_durable(deep, synced):
    """What is found at the destination lets the source go, too."""
    (deep / "f").write_bytes(b"x")
    (deep / "g").write_bytes(b"y")

    await (await opened(deep)).settle([Expected(b"f", 1, digest(b"x"))])
    settled = list(synced)
    await (await opened(deep)).match_final(b"g", 1, 0, [digest(b"y")])

    assert upwards(deep) == settled == synced[len(settled) :]


async def test_directories_above_a_served_directory_are_durable(deep, synced):
    """Its administrator may have made it a moment before the daemon started."""
    store = await opened(deep, root_identity=root_identity(str(deep)))

    await store.put_small([small_file(b"f", b"x")], REPLACE)

    assert upwards(deep) == synced


async def test_nothing_counts_while_a_directory_above_cannot_be_made_durable(deep, monkeypatch):
    """The answer is an error, each time, until it can."""

    def broken(_fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    store = await opened(deep)
    monkeypatch.setattr(ancestors, "fsync_directory", broken)
    outcomes = [(await store.put_small([small_file(name, b"x")], REPLACE))[0] for name in (b"f", b"g")]
    monkeypatch.undo()
    [later] = await store.settle([Expected(b"f", 1, digest(b"x"))])

    assert [StorageError, StorageError] == list(map(type, outcomes))
    assert "above the destination" in str(outcomes[0])
    assert later is True


def test_a_directory_above_that_may_not_be_read_is_synced_with_its_file_system(deep, monkeypatch):
    """With syncfs where that is known to make all durable; elsewhere it is passed over."""
    asked = []

    def open_above(fd, real=ancestors._open_above):
        above, _ = real(fd)
        return above, False

    monkeypatch.setattr(ancestors, "_open_above", open_above)
    monkeypatch.setattr(ancestors, "syncfs", asked.append)
    fd = os.open(deep, os.O_RDONLY)
    try:
        monkeypatch.setattr(ancestors, "syncs_as_a_whole", lambda _fd: True)
        Ancestors().sync(fd)
        whole = list(asked)
        monkeypatch.setattr(ancestors, "syncs_as_a_whole", lambda _fd: False)
        Ancestors().sync(fd)
    finally:
        os.close(fd)

    assert [fd] == whole == asked


def test_who_comes_while_they_are_made_durable_waits_for_that(monkeypatch):
    """A file of another thread does not count before, and nothing is done twice."""
    ancestors_of_one, done, others = Ancestors(), [], []

    def slowly(_fd):
        others.append(threading.Thread(target=lambda: others and ancestors_of_one.sync(0)))
        if len(others) == 1:
            others[0].start()
            others[0].join(0.05)
        done.append("durable")

    monkeypatch.setattr(ancestors, "_sync_upwards", slowly)
    ancestors_of_one.sync(0)
    others[0].join()

    assert ["durable"] == done


async def test_above_what_somebody_may_write_to_there_may_be_what_he_may_not_read(open_root, monkeypatch):
    """It is gone through all the same, and its file system is made durable as a whole."""
    below = os.path.join(open_root, b"below")
    os.mkdir(below)
    os.chmod(open_root, 0o711)
    asked = []
    monkeypatch.setattr(ancestors, "syncfs", asked.append)
    monkeypatch.setattr(ancestors, "syncs_as_a_whole", lambda _fd: True)
    fd = os.open(below, os.O_RDONLY)
    try:
        await as_nobody(Ancestors().sync, fd)
        above, readable = await as_nobody(ancestors._open_above, fd)
        assert not readable
        assert os.path.samestat(os.fstat(above), os.stat(open_root))
        os.close(above)
    finally:
        os.close(fd)

    assert [fd] == asked


@pytest.mark.parametrize(
    ("devices", "kinds", "mounted"),
    [
        ((1, 1), (7, 7), False),
        ((1, 2), (7, 7), True),
        ((1, 2), (syscalls.BTRFS, 7), True),
        ((1, 2), (7, syscalls.BTRFS), True),
        ((1, 2), (syscalls.BTRFS, syscalls.BTRFS), False),
    ],
)
def test_a_subvolume_is_no_mount_point(monkeypatch, devices, kinds, mounted):
    """On btrfs it has a device number of its own, though it is on the same file system as what is above it."""
    below, above = (os.stat_result((0, 0, device, 0, 0, 0, 0, 0, 0, 0)) for device in devices)
    monkeypatch.setattr(ancestors, "file_system", lambda fd: kinds[fd])

    assert mounted is ancestors._is_mounted(0, 1, below, above)
