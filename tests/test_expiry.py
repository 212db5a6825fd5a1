"""Partials that nobody came back for are removed, and nothing else."""

from __future__ import annotations

import errno
import fcntl
import os
import time

import pytest
from blake3 import blake3
from twisted.internet.defer import maybeDeferred

from realize.fs.awaiting import AWAITING_ATTRIBUTE, is_marked
from realize.fs.names import partial_name
from realize.fs.stamps import Present
from realize.store.local.expiry import expire_partials
from realize.store.local.store import LocalStore
from realize.values import Directory, OnConflict
from tests.faults import descriptors
from tests.leftovers import leave_partial

DAY = 86_400 * 10**9
F, G = partial_name(b"f"), b"d/" + partial_name(b"g")


@pytest.fixture
def root(tmp_path):
    """A directory with a partial, a partial in a directory, and things that only look like them."""
    path = os.fsencode(tmp_path)
    os.mkdir(os.path.join(path, b"d"))
    os.mkdir(os.path.join(path, partial_name(b"d")))
    for name in (b"f", b".f.part", partial_name(b"foreign"), partial_name(b"d") + b"/x"):
        with open(os.path.join(path, name), "wb") as file:
            file.write(b"123")
    leave_partial(path, b"f", b"123")
    leave_partial(os.path.join(path, b"d"), b"g", b"123")
    leave_partial(path, b"other", b"123")
    os.chown(os.path.join(path, partial_name(b"other")), 65534, 65534)
    os.symlink(b"f", os.path.join(path, partial_name(b"link")))
    return path


def removed(root, older_than=DAY, now=None):
    """Everything that was removed."""
    steps = expire_partials(root, older_than, Present(time.time_ns() + 2 * DAY if now is None else now))
    return [each for step in steps for each in step.removed]


def test_old_partials_are_removed(root):
    """Partials that were not changed for longer than the limit go, and are told with their size."""
    assert [(F, 3), (G, 3)] == sorted(removed(root))
    kept = {b"f", b"d", b".f.part", *map(partial_name, (b"d", b"foreign", b"other", b"link"))}
    assert kept == set(os.listdir(root))
    assert removed(root) == []


def test_partials_are_counted(root):
    """What is not old enough stays, and is counted with its size, for the metrics."""
    [step] = expire_partials(root, DAY, Present(time.time_ns()))
    [later] = expire_partials(root, DAY, Present(time.time_ns() + 2 * DAY))

    assert ([], 2, 6) == (step.removed, step.partials, step.size)
    assert (2, 0, 0) == (len(later.removed), later.partials, later.size)


def test_young_partials_stay(root):
    """A partial that was changed a moment ago is somebody's, however old the mtime that its commit has given it."""
    os.chmod(os.path.join(root, F), 0o1644)
    os.utime(os.path.join(root, F), (0, 0))

    assert removed(root, now=time.time_ns()) == []


def test_age_counts_from_the_last_byte_gained(root):
    """A partial that is still received is as old as its last byte, whatever else has changed since."""
    os.utime(os.path.join(root, F), (0, 0))

    assert [(F, 3)] == removed(root, now=time.time_ns())


def test_locked_partials_stay(root):
    """A partial that is being written is not removed."""
    with open(os.path.join(root, F), "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert [(G, 3)] == removed(root)


def test_a_partial_that_changes_in_that_moment_stays(root, monkeypatch):
    """Who takes up a partial between the look and the lock keeps it."""
    original = fcntl.flock

    def flock(fd, how):
        original(fd, how)
        os.utime(os.path.join(root, F))
        os.rename(os.path.join(root, G), os.path.join(root, b"g"))
        monkeypatch.setattr(fcntl, "flock", original)

    monkeypatch.setattr(fcntl, "flock", flock)

    assert removed(root) == []
    assert os.path.exists(os.path.join(root, F))


def test_goes_in_slices(root, monkeypatch):
    """Each step looks at a few files, so that it can be given up in between; an empty step is not the end."""
    monkeypatch.setattr("realize.store.local.leftovers.PAGE_ENTRIES", 1)
    steps = expire_partials(root, DAY, Present(time.time_ns() + 2 * DAY))

    assert len(next(steps).removed) + len(next(steps).removed) < 2
    before = len(os.listdir("/proc/self/fd"))
    steps.close()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_what_is_just_as_old_as_it_may_be_stays(root):
    """A moment later it goes."""
    for name in (F, G):
        os.utime(os.path.join(root, name), ns=(DAY, DAY))

    assert [] == removed(root, DAY, now=2 * DAY)
    assert [(F, 3), (G, 3)] == sorted(removed(root, DAY, now=2 * DAY + 1))


@pytest.fixture
def destination(tmp_path):
    """An empty one."""
    return tmp_path


async def opened(destination):
    """The store there."""
    store = LocalStore(os.fsencode(destination), run_in_thread=maybeDeferred)
    await store.open(b"salt")
    return store


async def interrupted(store, path):
    """A write that was given up, and whose partial was kept."""
    writer = await store.open_writer(path, 9, OnConflict.REPLACE)
    await writer.write([b"some"])
    await writer.abandon(keep=True)


async def arrived(store, path):
    """A file that has arrived."""
    writer = await store.open_writer(path, 4, OnConflict.REPLACE)
    await writer.write([b"some"])
    await writer.commit(blake3(b"some").digest(), None)


def below(destination):
    """All directories."""
    return {str(each.relative_to(destination)) for each in destination.rglob("*") if each.is_dir()}


async def test_directories_that_were_made_for_a_partial_go_with_it(destination):
    """Or somebody who never comes back would leave them for ever; those that were there before stay."""
    store = await opened(destination)
    (destination / "theirs").mkdir()
    await interrupted(store, b"theirs/a/b/f")
    await interrupted(store, b"a/b/c/f")

    assert [b"a/b/c/" + partial_name(b"f"), b"theirs/a/b/" + partial_name(b"f")] == sorted(
        path for path, _ in removed(os.fsencode(destination))
    )
    assert {"theirs"} == below(destination)


async def test_directories_in_which_a_file_has_arrived_stay(destination):
    """Also when whoever waited for it has taken it away: they may wait there for the next one."""
    store = await opened(destination)
    await interrupted(store, b"a/b/c/f")
    await arrived(store, b"a/b/g")
    (destination / "a/b/g").unlink()

    assert 1 == len(removed(os.fsencode(destination)))
    assert {"a", "a/b"} == below(destination)


async def test_directories_that_wait_for_nothing_any_more_go(destination):
    """A run that ended between the making of directories and the first file has left no partial in them."""
    store = await opened(destination)
    await store.make_directories([Directory(b"a", 0o755), Directory(b"a/b", 0o700)])
    (destination / "theirs").mkdir()

    assert [] == removed(os.fsencode(destination), now=time.time_ns())
    assert {"a", "a/b", "theirs"} == below(destination)
    assert [] == removed(os.fsencode(destination))
    assert {"theirs"} == below(destination)


async def test_what_was_put_into_a_directory_meanwhile_stays(destination):
    """By whomever, and it may be a directory."""
    store = await opened(destination)
    await interrupted(store, b"a/b/f")
    (destination / "a/theirs").mkdir()

    assert 1 == len(removed(os.fsencode(destination)))
    assert {"a", "a/theirs"} == below(destination)


async def test_directories_of_somebody_else_never_wait(destination):
    """Copies that have the attribute, too, as `cp -a` and backups make them, and what was given another name."""
    store = await opened(destination)
    await store.make_directories([Directory(b"a", 0o755), Directory(b"b", 0o755), Directory(b"c", 0o755)])
    (destination / "copy").mkdir()
    (destination / "b").rename(destination / "renamed")
    (destination / "c").rename(destination / "renamed/c")
    for name in ("copy", "renamed/c"):
        os.setxattr(destination / name, AWAITING_ATTRIBUTE, os.getxattr(destination / "a", AWAITING_ATTRIBUTE))

    assert [] == removed(os.fsencode(destination))
    assert {"copy", "renamed", "renamed/c"} == below(destination)


async def test_what_has_arrived_counts_above_directories_of_somebody_else_too(destination):
    """They never waited, and what they are in does not wait any more."""
    store = await opened(destination)
    await store.make_directories([Directory(b"a", 0o755)])
    (destination / "a/theirs").mkdir()
    await arrived(store, b"a/theirs/f")
    (destination / "a/theirs/f").unlink()
    (destination / "a/theirs").rmdir()

    assert [] == removed(os.fsencode(destination))
    assert {"a"} == below(destination)


async def test_directories_that_cannot_be_marked_stay(destination, monkeypatch):
    """Nobody can tell later who has made them."""
    store = await opened(destination)

    def setxattr(*_):
        raise OSError(errno.ENOTSUP, "no attributes")

    monkeypatch.setattr(os, "setxattr", setxattr)
    await interrupted(store, b"a/f")

    assert 1 == len(removed(os.fsencode(destination)))
    assert {"a"} == below(destination)


async def test_a_directory_goes_with_its_partial_however_young_it_is(destination):
    """It was made for that alone; one in which another partial still waits stays with it."""
    store = await opened(destination)
    await interrupted(store, b"a/b/f")
    await interrupted(store, b"c/f")
    await interrupted(store, b"c/g")
    for name in ("a/b", "c"):
        os.utime(destination / name / os.fsdecode(partial_name(b"f")), ns=(0, 0))

    assert 2 == len(removed(os.fsencode(destination), now=time.time_ns()))
    assert {"c"} == below(destination)


async def test_a_directory_that_has_waited_just_as_long_as_it_may_stays(destination):
    """A moment later it goes."""
    store = await opened(destination)
    await store.make_directories([Directory(b"a", 0o755)])
    made = os.stat(destination / "a").st_ctime_ns

    removed(os.fsencode(destination), now=made + DAY)
    assert {"a"} == below(destination)
    removed(os.fsencode(destination), now=made + DAY + 1)
    assert set() == below(destination)


def test_what_is_below_is_left_alone_if_it_is_not_asked_for(root):
    """It may be another directory that is served, with a limit of its own."""
    steps = expire_partials(root, DAY, Present(time.time_ns() + 2 * DAY), deep=False)

    assert [(F, 3)] == [each for step in steps for each in step.removed]
    assert [(G, 3)] == removed(root)


def test_whoever_fails_lets_go_of_the_directories(root, monkeypatch):
    """At once: the error may be kept for long."""

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr("realize.store.local.expiry.remove_unlocked", fail)
    monkeypatch.setattr("realize.store.local.leftovers.PAGE_ENTRIES", 1)
    monkeypatch.setattr("realize.store.local.walker.MAX_SORTED_NAMES", 1)
    directory = os.path.join(root, b"many")
    os.mkdir(directory)
    for number in range(100):
        os.close(os.open(os.path.join(directory, b".%d.part" % number), os.O_CREAT))
    for number in range(20):
        leave_partial(directory, b"%d" % number, b"")
    before = descriptors()
    steps = expire_partials(directory, DAY, Present(time.time_ns() + 2 * DAY))
    with pytest.raises(MemoryError) as kept:
        list(steps)

    assert before == descriptors()
    assert kept.value.__traceback__ is not None


def test_marks_are_known_again_by_later_versions(destination):
    """A directory is marked with its number and with what its name comes to, and one without a mark is not."""
    (destination / "a").mkdir()
    fd = os.open(destination / "a", os.O_RDONLY)
    try:
        assert not is_marked(fd, b"a")
        number = os.fstat(fd).st_ino.to_bytes(8, "big")
        os.setxattr(fd, "user.realize.awaiting", number + blake3(b"a").digest(8))
        assert is_marked(fd, b"a")
        assert not is_marked(fd, b"b")
    finally:
        os.close(fd)
