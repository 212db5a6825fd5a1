"""Whoever commits is told how that ended, and nobody's files are committed after he was told that they are not."""

from __future__ import annotations

import errno
import os

import pytest
from twisted.internet.defer import Deferred, maybeDeferred, succeed

from realize.concurrency.semaphore import FairSemaphore
from realize.errors import StorageError
from realize.store.local import group_commit
from realize.store.local.group_commit import Anchor, Committer, Prepared
from realize.store.local.partial_marks import RECEIVING
from realize.values import Attributes, Committed, OnConflict, Stored
from tests.local_stores import PARTIAL, REPLACE, at_once, behind, open_files, opened, put, root
from tests.store_helpers import digest, failure, how, small_file

__all__ = ["behind", "root"]


async def test_what_could_not_begin_is_not_committed_with_the_next(root, behind, monkeypatch):
    """Its partial was let go of when that failed: it may be somebody else's by then."""
    committer = Committer(at_once)
    store = await opened(root, committer=committer)

    def fails():
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(committer, "_next_group", fails)
        with pytest.raises(MemoryError):
            await put(store, b"f", b"x")

    assert [] == open_files(root)
    assert how(await put(store, b"g", b"y")) is Committed.CREATED
    assert behind.content(b"f") is None


async def test_what_has_begun_when_it_fails_is_told_that_it_failed(root, monkeypatch):
    """Also if it does not wait any more."""
    committer = Committer(at_once)
    store = await opened(root, committer=committer)

    def fails():
        committer._waiting.pop("")
        raise MemoryError

    monkeypatch.setattr(committer, "_next_group", fails)
    with pytest.raises(MemoryError):
        await put(store, b"f", b"x")

    assert [] == open_files(root)


@pytest.mark.parametrize("answer", [None, [None]])
async def test_an_answer_that_is_none_is_an_error(root, answer):
    """Nobody waits for ever, whatever the thread brings, and all is let go of."""

    def run(job, *arguments):
        return succeed(answer) if job is group_commit.commit_group else at_once(job, *arguments)

    store = await opened(root, run_in_thread=run)
    results = []
    for name in (b"f", b"g"):
        put_one = store.put_small([small_file(name + b"1", b"x"), small_file(name + b"2", b"x")], REPLACE)
        put_one.addBoth(results.append)

    assert 2 == len(results)
    assert all(each.check(TypeError, RuntimeError) for each in results)
    assert [] == open_files(root)


async def test_where_the_next_group_cannot_begin_the_last_one_is_answered(root, monkeypatch):
    """What has been committed is told so, and who waits is told that nothing comes of it."""
    waiting = []

    def run(job, *arguments):
        if job is not group_commit.commit_group:
            return at_once(job, *arguments)
        later = Deferred()
        waiting.append(lambda: maybeDeferred(job, *arguments).chainDeferred(later))
        return later

    def fails():
        raise MemoryError

    committer = Committer(run)
    store = await opened(root, run_in_thread=run, committer=committer)
    results = [[], [], []]
    for number, result in enumerate(results):
        store.put_small([small_file(b"%d" % number, b"x")], REPLACE).addBoth(result.append)
    monkeypatch.setattr(committer, "_next_group", fails)
    waiting[0]()

    assert how(results[0][0][0]) is Committed.CREATED
    assert all(each.check(MemoryError) for [each] in results[1:])
    assert [] == open_files(root)


async def test_where_no_group_can_begin_all_who_wait_are_told(root):
    """The first has a thread, and for the second there is none: neither it nor the third waits for ever."""
    waiting = []

    def run(job, *arguments):
        if job is not group_commit.commit_group:
            return at_once(job, *arguments)
        if waiting:
            raise RuntimeError("no thread")
        later = Deferred()
        waiting.append(lambda: maybeDeferred(job, *arguments).chainDeferred(later))
        return later

    committer = Committer(run)
    store = await opened(root, run_in_thread=run, committer=committer)
    results = [[], [], []]
    for number, result in enumerate(results):
        store.put_small([small_file(b"%d" % number, b"x")], REPLACE).addBoth(result.append)
    waiting[0]()

    assert how(results[0][0][0]) is Committed.CREATED
    assert all(each.check(RuntimeError) for [each] in results[1:])
    assert [] == open_files(root)
    assert {b"0"} == {name for name in os.listdir(root) if not name.startswith(b".")}


async def test_who_comes_when_there_is_memory_again_is_committed(root, monkeypatch):
    """A group for which there was none keeps nobody else waiting."""
    store = await opened(root)

    def fails(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(group_commit, "maybeDeferred", fails)
        with pytest.raises(MemoryError):
            await put(store, b"f", b"x")
    results = []
    store.put_small([small_file(b"g", b"y")], REPLACE).addBoth(results.append)

    assert [Committed.CREATED] == [how(answer) for [answer] in results]


async def test_a_partial_that_cannot_be_made_private_again_is_no_other_error(root, behind, monkeypatch):
    """Why the file was not committed is what counts."""
    store = await opened(root)
    writer = await store.open_writer(b"f", 1, OnConflict.FAIL)
    await writer.write([b"x"])
    behind.plant(b"f", b"theirs")
    fchmod = os.fchmod

    def fails(fd, mode):
        if mode == RECEIVING:
            raise OSError(errno.EIO, "broken")
        fchmod(fd, mode)

    monkeypatch.setattr(os, "fchmod", fails)

    assert "f: exists already" == str(await failure(writer.commit(digest(b"x"), Attributes(1, 0o644))))


async def test_a_symlink_in_the_place_of_a_partial_stays(root, behind):
    """It is not ours to remove, though it leads to what is."""
    store = await opened(root)
    original = store._committer.commit

    def swap(files, *owner):
        os.rename(behind.at(PARTIAL), behind.at(b"moved"))
        os.symlink(b"moved", behind.at(PARTIAL))
        return original(files, *owner)

    store._committer.commit = swap

    assert isinstance(await put(store, b"f", b"x"), StorageError)
    assert [PARTIAL, b"moved"] == behind.everything()


async def test_directories_are_made_durable_one_below_the_other(root, monkeypatch):
    """However deep they are, and however many: each is opened by way of the one above, and synced after those below."""
    store = await opened(root)
    paths = [b"%d/" % number + b"d/" * 100 + b"f" for number in range(3)]
    opening, opened_now, synced = os.open, [], []
    monkeypatch.setattr(os, "open", lambda path, *args, **how: opened_now.append(path) or opening(path, *args, **how))
    monkeypatch.setattr(group_commit, "fsync_directory", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    await store.put_small([small_file(path, b"x") for path in paths], REPLACE)

    assert 3 * 101 + 1 == len(synced) == len(set(synced))
    assert all(synced.index(os.path.dirname(each)) > synced.index(each) for each in synced[:-1])
    assert len(opened_now) < 3 * 101 * 5


async def test_a_group_of_deep_files_is_small(root, monkeypatch):
    """All directories above its files are remembered while they are made durable."""
    monkeypatch.setattr(group_commit, "MAX_GROUP_FILES", 20)
    begun = Deferred()
    groups = []

    def run(job, *arguments):
        if job is not group_commit.commit_group:
            return at_once(job, *arguments)
        groups.append(len(arguments[0]))
        return begun.addCallback(lambda _: job(*arguments)) if len(groups) == 1 else at_once(job, *arguments)

    store = await opened(root, run_in_thread=run)
    for number in range(12):
        store.put_small([small_file(b"d/" * 100 + b"%d" % number, b"x")], REPLACE)
    begun.callback(None)

    assert [1, 2, 2, 2, 2, 2, 1] == groups


@pytest.mark.parametrize(
    ("brought", "groups"),
    [([1] * 5, [1, 2, 2]), ([1, 2, 1], [1, 2, 1]), ([1, 1, 3, 1], [1, 4, 1]), ([1, 1, 4], [1, 1, 4]), ([1, 9], [1, 9])],
)
async def test_a_group_is_full_when_it_has_so_many_files(root, monkeypatch, brought, groups):
    """What is brought together stays together: it makes a group larger, up to twice, or has one for itself."""
    monkeypatch.setattr(group_commit, "MAX_GROUP_FILES", 2)
    begun, committed = Deferred(), []

    def run(job, *arguments):
        if job is not group_commit.commit_group:
            return at_once(job, *arguments)
        committed.append(len(arguments[0]))
        return begun.addCallback(lambda _: job(*arguments)) if len(committed) == 1 else at_once(job, *arguments)

    store = await opened(root, run_in_thread=run)
    for number, count in enumerate(brought):
        store.put_small([small_file(b"%d %d" % (number, each), b"x") for each in range(count)], REPLACE)
    begun.callback(None)

    assert groups == committed


async def test_who_commits_much_keeps_nobody_waiting(root, monkeypatch):
    """The owners take turns, in the groups and for room: what one has brought before waits behind the other's."""
    monkeypatch.setattr(group_commit, "MAX_GROUP_FILES", 2)
    committer = Committer(lambda job, *arguments: begun.addCallback(lambda _: job(*arguments)))
    committer.slots = FairSemaphore(4)
    begun, done = Deferred(), []
    stores = {owner: await opened(root, committer=committer, owner=owner) for owner in ("many", "few")}
    for number in range(9):
        for owner in stores if number == 8 else ["many"]:
            putting = stores[owner].put_small([small_file(b"%s%d" % (owner.encode(), number), b"x")], REPLACE)
            putting.addCallback(lambda _, name=f"{owner}{number}": done.append(name))
    begun.callback(None)

    assert 10 == len(done)
    assert 5 >= done.index("few8")
    assert [f"many{number}" for number in range(9)] == [name for name in done if name != "few8"]


async def test_a_file_that_goes_away_when_it_is_to_be_replaced_is_made_anew(root, behind, monkeypatch):
    """Somebody has removed it between the look and the lock: nothing is replaced, and that is what is said."""
    behind.plant(b"f", b"old")
    opening = group_commit.open_if_readable

    def removed_then(name, fd):
        opened_now = opening(name, fd)
        os.unlink(name, dir_fd=fd)
        return opened_now

    monkeypatch.setattr(group_commit, "open_if_readable", removed_then)
    store = await opened(root)

    assert how(await put(store, b"f", b"new")) is Committed.CREATED
    assert b"new" == behind.content(b"f")


async def test_the_file_that_is_replaced_is_the_one_that_was_locked(root, behind, monkeypatch):
    """Of one that somebody has put in its place meanwhile, others may say that it is there: it is locked, too."""
    behind.plant(b"f", b"old")
    behind.plant(b"other", b"newer")
    inodes = [os.stat(behind.at(name)).st_ino for name in (b"f", b"other")]
    opening, locked = group_commit.open_if_readable, []

    def exchanged_then(name, fd):
        opened_now = opening(name, fd)
        locked.append(os.fstat(opened_now).st_ino)
        if len(locked) == 1:
            os.rename(behind.at(b"other"), behind.at(b"f"))
        return opened_now

    monkeypatch.setattr(group_commit, "open_if_readable", exchanged_then)
    store = await opened(root)

    assert how(await put(store, b"f", b"new")) is Committed.REPLACED
    assert inodes == locked
    assert b"new" == behind.content(b"f")


async def test_a_root_that_vanishes_is_an_error_for_each_file(root, behind):
    """Not for the group: another root may be in it."""

    def run(job, *arguments):
        if job is group_commit.commit_group:
            os.rename(root, root + b".away")
        try:
            return at_once(job, *arguments)
        finally:
            if job is group_commit.commit_group:
                os.rename(root + b".away", root)

    store = await opened(root, run_in_thread=run)
    outcomes = await store.put_small([small_file(b"f", b"x"), small_file(b"g", b"y")], REPLACE)

    assert [StorageError] * 2 == [type(each) for each in outcomes]
    assert [] == open_files(root)


async def test_a_root_that_vanishes_is_an_error_for_its_files_alone(root, tmp_path):
    """Those of another directory are committed in the same group."""
    held = []

    def run(job, *arguments):
        if job is not group_commit.commit_group:
            return at_once(job, *arguments)
        if len(held) == 1:
            os.rename(root, root + b".away")
        begun = Deferred()
        held.append(begun.addCallback(lambda _: job(*arguments)))
        return begun

    (tmp_path / "other").mkdir()
    committer = Committer(run)
    here = await opened(root, run_in_thread=run, committer=committer)
    there = await opened(bytes(tmp_path / "other"), run_in_thread=run, committer=committer)
    results = []
    for store, name in ((there, b"first"), (here, b"f"), (there, b"g")):
        store.put_small([small_file(name, b"x")], REPLACE).addBoth(results.append)
    for _ in range(2):
        held[-1].callback(None)
    os.rename(root + b".away", root)

    assert Committed.CREATED is how(results[0][0])
    assert [StorageError, Stored] == [type(each) for [each] in results[1:]]
    assert [] == open_files(root)


@pytest.mark.parametrize("what", ["anchor", "lock", "no lock"])
def test_what_is_let_go_of_twice_is_closed_once(tmp_path, what):
    """By then its number may be that of another file."""
    fd = os.open(tmp_path, os.O_RDONLY)
    prepared = Prepared(*[None] * 10, fd=fd, mode=None, lock=what == "lock")
    if what == "anchor":
        prepared.anchor = Anchor(fd, 1)
    prepared.release()
    if what == "no lock":
        os.close(fd)
    again = os.open(tmp_path, os.O_RDONLY)
    prepared.release()

    assert fd == again
    os.close(again)
