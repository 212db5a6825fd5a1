"""Turns of those who replace final files or say that they are there, of several processes."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred

from realize.errors import Busy
from realize.store import commit
from realize.store.commit import Committer
from realize.store.replacing import Replacing
from realize.testing import digest, small_file
from realize.values import Committed, Expected, OnConflict, Stored
from tests.test_local_store import at_once, opened, root

__all__ = ["root"]


def plant(root, content):
    """A file of that content."""
    with open(os.path.join(root, b"f"), "wb") as file:
        file.write(content)


@pytest.fixture
def directory(tmp_path):
    """Two descriptors of a directory, opened by themselves, as two processes have them."""
    fds = [os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY) for _ in range(2)]
    yield fds
    for fd in fds:
        os.close(fd)


def locked(fd):
    """Whether somebody has the lock of the directory."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def test_a_turn_keeps_other_processes_out(directory):
    """As long as it lasts, however it ends."""
    ours, theirs = directory
    replacing = Replacing()
    with replacing.turn(ours, b"f"):
        assert locked(theirs)
    assert not locked(theirs)
    with pytest.raises(ZeroDivisionError), replacing.turn(ours, b"f"):
        assert locked(theirs)
        raise ZeroDivisionError
    assert not locked(theirs)


def test_a_turn_waits_for_another(directory):
    """For as long as looks and renames take, which is short."""
    ours, theirs = directory
    fcntl.flock(theirs, fcntl.LOCK_EX)
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            fcntl.flock(theirs, fcntl.LOCK_UN)

    with Replacing(sleep).turn(ours, b"f"):
        assert 3 == len(waits)
        assert locked(theirs)


def test_who_keeps_the_lock_stops_nobody_for_long(directory):
    """Any user who may read the directory can take it: files fail, the first after some time, the others at once."""
    ours, theirs = directory
    fcntl.flock(theirs, fcntl.LOCK_SH)
    waits = []
    replacing = Replacing(waits.append)

    for _ in range(1000):
        with pytest.raises(Busy, match="f: another process holds a lock on its directory"), replacing.turn(ours, b"f"):
            pytest.fail("nobody can have a turn")
    assert 0.1 < sum(waits) < 0.5

    fcntl.flock(theirs, fcntl.LOCK_UN)
    with replacing.turn(ours, b"f"):
        pass


@pytest.mark.parametrize("number", [errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_such_locks_threads_take_turns(directory, monkeypatch, number):
    """NFS says EBADF, for the descriptor is not for writing, and others have no locks at all."""

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    replacing = Replacing()
    with replacing.turn(directory[0], b"f"):
        assert replacing._threads.locked()
    assert not replacing._threads.locked()


async def settled(store, content):
    """Whether a store vouches for the file."""
    [answer] = await store.settle([Expected(b"f", len(content), digest(content))])
    return answer


async def test_what_one_process_vouches_for_another_does_not_replace(root, monkeypatch):
    """It has looked before the first said that the file is there, and would replace it behind that."""
    plant(root, b"old")
    ours, theirs = [await opened(root, committer=Committer(at_once)) for _ in range(2)]
    [existing] = await theirs.describe([b"f"])
    answers = []
    look = commit.refuse_obstacle

    def meanwhile(*arguments):
        seen = look(*arguments)
        Deferred.fromCoroutine(settled(ours, b"old")).addBoth(answers.append)
        return seen

    monkeypatch.setattr(commit, "refuse_obstacle", meanwhile)
    [stored] = await theirs.put_small([evolve(small_file(b"f", b"new"), replaces=existing.seen)], OnConflict.REPLACE)

    [answer] = answers
    assert isinstance(stored, Stored)
    assert stored.how is Committed.REPLACED
    assert isinstance(answer, Busy)
    assert "f: another process holds a lock on its directory" == str(answer)


async def test_what_was_vouched_for_meanwhile_is_not_replaced(root):
    """The other way round: who comes later sees that the file is not the one that was seen."""
    plant(root, b"old")
    ours, theirs = [await opened(root, committer=Committer(at_once)) for _ in range(2)]
    [existing] = await theirs.describe([b"f"])

    assert await settled(ours, b"old")
    [refused] = await theirs.put_small([evolve(small_file(b"f", b"new"), replaces=existing.seen)], OnConflict.REPLACE)

    assert isinstance(refused, Busy)


@pytest.mark.parametrize("vouching", [True, False])
async def test_a_lock_that_somebody_keeps_loses_nothing(root, vouching):
    """Neither is a file replaced nor is one vouched for, until it is let go."""
    plant(root, b"old")
    store = await opened(root)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(fd, fcntl.LOCK_EX)

    async def attempt():
        if vouching:
            return await settled(store, b"old")
        [answer] = await store.put_small([small_file(b"f", b"new")], OnConflict.REPLACE)
        return answer

    assert isinstance(await attempt(), Busy)
    assert [b"f"] == os.listdir(root)
    os.close(fd)
    assert not isinstance(await attempt(), Busy)
