"""Turns of those who replace a file, say that it is there, or remove it: also of several processes."""

from __future__ import annotations

import errno
import fcntl
import os
import threading

import pytest
from attrs import evolve

from realize.errors import Busy, SourceChanged
from realize.fs import file_locks, tree
from realize.fs.file_locks import FileLocks, Lock
from realize.store.local import group_commit, removal
from realize.store.local.group_commit import Committer
from realize.values import Committed, Expected, OnConflict, Removal, Stored
from tests.local_stores import at_once, opened, root
from tests.store_helpers import digest, small_file

__all__ = ["root"]

OLD = Expected(b"f", 3, digest(b"old"))


def plant(root, content):
    """A file of that content."""
    with open(os.path.join(root, b"f"), "wb") as file:
        file.write(content)


@pytest.fixture
def two(root):
    """Two descriptors of a file, opened by themselves, as two processes have them."""
    plant(root, b"old")
    fds = [os.open(os.path.join(root, b"f"), os.O_RDONLY) for _ in range(2)]
    yield fds
    for fd in fds:
        os.close(fd)


@pytest.fixture
def now(monkeypatch):
    """Nobody waits for a lock, and time passes when the test says so."""
    time_s = [100.0]
    monkeypatch.setattr(tree, "LOCKS", FileLocks(sleep=lambda _: None, now=lambda: time_s[0]))
    return time_s


async def processes(root, count=2):
    """Stores that share nothing but the directory, as those of several processes do."""
    return [await opened(root, committer=Committer(at_once)) for _ in range(count)]


def can_lock(fd, operation):
    """Whether another process gets such a lock."""
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True


@pytest.mark.parametrize("shared", [True, False])
def test_a_turn_keeps_other_processes_out(two, shared):
    """As long as it lasts, however it ends; those who only read it with a shared lock may go on doing so."""
    ours, theirs = two
    lock = Lock(FileLocks(), ours, b"f", device=1, of_process=False, shared=shared)
    with lock:
        assert not can_lock(theirs, fcntl.LOCK_EX)
        assert shared == can_lock(theirs, fcntl.LOCK_SH)
    assert can_lock(theirs, fcntl.LOCK_EX)
    with pytest.raises(ZeroDivisionError), lock:
        raise ZeroDivisionError
    assert can_lock(theirs, fcntl.LOCK_EX)


@pytest.mark.parametrize("of_process", [True, False])
def test_a_turn_may_end_with_the_descriptor(two, of_process):
    """Then nothing is unlocked before it is closed, unless the lock is not that of the descriptor."""
    named, theirs = two
    ours = os.open(f"/proc/self/fd/{named}", os.O_RDONLY)
    locks = FileLocks()
    with Lock(locks, ours, b"f", device=1, of_process=of_process, closing=True):
        pass

    assert of_process == can_lock(theirs, fcntl.LOCK_EX)
    assert not locks.of_device(1).locked()
    os.close(ours)
    assert can_lock(theirs, fcntl.LOCK_EX)


def test_a_turn_waits_for_another(two):
    """For as long as a look and a rename take."""
    ours, theirs = two
    fcntl.flock(theirs, fcntl.LOCK_EX)
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            fcntl.flock(theirs, fcntl.LOCK_UN)

    with Lock(FileLocks(sleep), ours, b"f", device=1, of_process=False):
        assert 3 == len(waits)


def test_who_keeps_locks_stops_nobody_for_long(two):
    """The first file fails after some time, those that come soon after at once; then there is patience again."""
    ours, theirs = two
    fcntl.flock(theirs, fcntl.LOCK_EX)
    waits, time_s = [], [100.0]
    locks = FileLocks(waits.append, lambda: time_s[0])
    lock = Lock(locks, ours, b"f", device=1, of_process=False)

    for _ in range(1000):
        with pytest.raises(Busy, match="f: is locked by another process"), lock:
            pytest.fail("nobody can have a turn")
    assert 0.1 < sum(waits) < 0.5

    time_s[0] += 1
    with pytest.raises(Busy), lock:
        pytest.fail("nobody can have a turn")
    assert 0.2 < sum(waits) < 1.0


def test_a_lock_that_cannot_be_given_back_fails_nothing(two, monkeypatch):
    """What was done under it is done; it goes with the descriptor."""
    flock = fcntl.flock

    def fail(fd, operation):
        if operation == fcntl.LOCK_UN:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        flock(fd, operation)

    monkeypatch.setattr(file_locks.fcntl, "flock", fail)
    with Lock(FileLocks(), two[0], b"f", device=1, of_process=False):
        pass


@pytest.mark.parametrize("number", [errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP, None])
def test_without_such_locks_the_threads_of_the_process_take_turns(two, monkeypatch, number):
    """NFS says EBADF, for the descriptor is not for writing; FUSE would keep what is removed while open (None)."""

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(file_locks.fcntl, "flock", refuse)
    locks, order = FileLocks(), []

    def turn(name, device, begun, may_end):
        with Lock(locks, two[0], b"f", device=device, of_process=number is None) as lock:
            order.append((name, lock.of_process))
            begun.set()
            may_end.wait(10)

    events = [threading.Event() for _ in range(4)]
    first = threading.Thread(target=turn, args=("first", 1, events[0], events[1]))
    second = threading.Thread(target=turn, args=("second", 1, events[2], events[1]))
    first.start()
    events[0].wait(10)
    second.start()
    turn("another disk", 2, events[3], events[3])
    assert not events[2].wait(0.05)
    events[1].set()
    first.join()
    second.join()

    assert [("first", True), ("another disk", True), ("second", True)] == order


async def test_what_one_process_vouches_for_another_does_not_replace(root, monkeypatch, now):
    """It has looked before the first said that the file is there, and would replace it behind that."""
    plant(root, b"old")
    ours, theirs = await processes(root)
    [existing] = await theirs.describe([b"f"])
    look, looks, answers = group_commit.refuse_obstacle, [], []

    def meanwhile(*arguments):
        looks.append(look(*arguments))
        if len(looks) == 2:
            ours.settle([OLD]).addBoth(answers.append)
        return looks[-1]

    monkeypatch.setattr(group_commit, "refuse_obstacle", meanwhile)
    [stored] = await theirs.put_small([evolve(small_file(b"f", b"new"), replaces=existing.seen)], OnConflict.REPLACE)

    [[answer]] = answers
    assert Committed.REPLACED is stored.how
    assert "f: is locked by another process" == str(answer)


async def test_what_was_vouched_for_meanwhile_is_not_replaced(root):
    """The other way round: who comes later sees that the file is not the one that was seen."""
    plant(root, b"old")
    ours, theirs = await processes(root)
    [existing] = await theirs.describe([b"f"])

    assert [True] == await ours.settle([OLD])
    [refused] = await theirs.put_small([evolve(small_file(b"f", b"new"), replaces=existing.seen)], OnConflict.REPLACE)

    assert isinstance(refused, Busy)


async def test_what_is_put_in_place_of_a_file_is_not_removed_in_its_stead(root, monkeypatch, now):
    """One takes the file away while another one replaces it: what is new stays, whoever comes first."""
    plant(root, b"old")
    taking, bringing = await processes(root)
    [fetched] = await taking.read_small([b"f"], removing=True)
    [existing] = await bringing.describe([b"f"])
    unlink, answers = os.unlink, []

    def meanwhile(name, **options):
        new = evolve(small_file(b"f", b"new"), replaces=existing.seen)
        if name == b"f":
            bringing.put_small([new], OnConflict.REPLACE).addBoth(answers.append)
        unlink(name, **options)

    monkeypatch.setattr(removal.os, "unlink", meanwhile)
    [removed] = await taking.remove([Removal(b"f", fetched.version)])
    monkeypatch.undo()

    [[refused]] = answers
    assert removed is None
    assert isinstance(refused, Busy)
    [stored] = await bringing.put_small([small_file(b"f", b"new")], OnConflict.REPLACE)
    assert isinstance(stored, Stored)
    [refused] = await taking.remove([Removal(b"f", fetched.version)])
    assert isinstance(refused, SourceChanged)


async def test_two_commands_in_opposite_directions_leave_one_copy(tmp_path, monkeypatch, now):
    """One is about to remove the copy that the other one finds, and says to be there, in this very moment."""
    here, there = (os.fsencode(tmp_path / name) for name in ("here", "there"))
    for each in (here, there):
        os.mkdir(each)
        plant(each, b"old")
    [from_here, into_here], [from_there, into_there] = await processes(here), await processes(there)
    [fetched] = await from_there.read_small([b"f"], removing=True)
    assert [True] == await into_here.settle([OLD])
    [copy] = await from_here.read_small([b"f"], removing=True)
    unlink, answers = os.unlink, []

    def meanwhile(name, **options):
        if name == b"f" and not answers:
            into_there.settle([OLD]).addBoth(answers.append)
        unlink(name, **options)

    monkeypatch.setattr(removal.os, "unlink", meanwhile)
    await from_there.remove([Removal(b"f", fetched.version)])
    if answers == [[True]]:
        await from_here.remove([Removal(b"f", copy.version)])

    assert [b"f"] == os.listdir(here) + os.listdir(there)
    [[refused]] = answers
    assert isinstance(refused, Busy)


@pytest.mark.parametrize("deed", ["settle", "replace", "remove"])
async def test_a_lock_that_somebody_keeps_loses_nothing(root, now, deed):
    """Neither is the file replaced nor removed nor vouched for, until it is let go."""
    plant(root, b"old")
    [store] = await processes(root, 1)
    [fetched] = await store.read_small([b"f"], removing=True)

    async def attempt():
        if deed == "settle":
            return await store.settle([OLD])
        if deed == "remove":
            return await store.remove([Removal(b"f", fetched.version)])
        return await store.put_small([small_file(b"f", b"new")], OnConflict.REPLACE)

    with open(os.path.join(root, b"f"), "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        [refused] = await attempt()
        assert isinstance(refused, Busy)
        assert [b"f"] == os.listdir(root)
    now[0] += 2
    [done] = await attempt()
    assert not isinstance(done, Busy)


@pytest.mark.parametrize("operation", [fcntl.LOCK_EX, fcntl.LOCK_SH])
async def test_a_locked_directory_is_in_nobodys_way(root, operation):
    """flock(1) on the destination is how many keep runs from overlapping."""
    plant(root, b"old")
    [store] = await processes(root, 1)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(fd, operation)
    try:
        [stored] = await store.put_small([small_file(b"f", b"new")], OnConflict.REPLACE)
    finally:
        os.close(fd)

    assert Committed.REPLACED is stored.how


async def test_what_goes_away_before_it_is_replaced_is_made(root, monkeypatch):
    """And if another one appears in just that moment, that is not replaced unseen."""
    plant(root, b"old")
    [store] = await processes(root, 1)
    [existing] = await store.describe([b"f"])
    look, looks = group_commit.refuse_obstacle, []

    def meanwhile(*arguments):
        if len(looks) == 0:
            os.unlink(os.path.join(root, b"f"))
        looks.append(look(*arguments))
        if len(looks) == 1:
            plant(root, b"another")
        return looks[-1]

    monkeypatch.setattr(group_commit, "refuse_obstacle", meanwhile)
    [refused] = await store.put_small([evolve(small_file(b"f", b"new"), replaces=existing.seen)], OnConflict.REPLACE)
    assert isinstance(refused, Busy)
    os.unlink(os.path.join(root, b"f"))
    [stored] = await store.put_small([evolve(small_file(b"f", b"new"), replaces=existing.seen)], OnConflict.REPLACE)

    assert Committed.CREATED is stored.how
