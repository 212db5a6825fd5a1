"""In which order a commit makes things durable, and what a failure on the way leaves."""

from __future__ import annotations

import errno
import os
import threading

import pytest
from twisted.internet.defer import Deferred, maybeDeferred

from realize.errors import Busy, SourceChanged, StorageError
from realize.store.hooks import CommitHooks
from realize.store.local import existing as finals
from realize.store.local import group_commit
from realize.store.local import small_files as small
from realize.store.local.group_commit import Anchor, Committer
from realize.store.local.headroom import Headroom
from realize.store.local.versions import Clock
from realize.values import BLOCK_BYTES, Committed, Expected, Removal
from tests.local_stores import PARTIAL, REPLACE, SALT, at_once, behind, calls, failing, fetched, opened, put, root
from tests.store_helpers import block_digests, digest, failure, how, small_file

__all__ = ["behind", "calls", "root"]


async def test_order_for_few_small_files(root, calls):
    """Content is durable before the rename, the directories after it, from the deepest to the root."""
    store = await opened(root)

    await store.put_small([small_file(b"a/b/f", b"x"), small_file(b"g", b"x")], REPLACE)

    kinds = [kind for kind, _ in calls]
    assert kinds == ["fsync", "fsync", "rename", "rename", "fsync", "fsync", "fsync"]
    assert all(".part" in what for _, what in calls[:2])
    assert [("fsync", "/a/b"), ("fsync", "/a"), ("fsync", "")] == calls[4:]


async def test_order_for_many_small_files(root, calls):
    """Many files are made durable together, before the first of them is renamed."""
    store = await opened(root)

    await store.put_small([small_file(b"d/%d" % number, b"x") for number in range(20)], REPLACE)

    assert [("syncfs", "")] == calls[:1]
    assert {"rename"} == {kind for kind, _ in calls[1:21]}
    assert [("fsync", "/d"), ("fsync", "")] == calls[21:]


async def test_order_for_small_files_in_many_directories(root, calls):
    """Many directories are made durable together too, behind the last rename."""
    store = await opened(root)

    await store.put_small([small_file(b"%d/f" % number, b"x") for number in range(20)], REPLACE)

    assert [("syncfs", "")] == calls[:1] == calls[21:]
    assert {"rename"} == {kind for kind, _ in calls[1:21]}


async def test_a_failed_sync_of_many_directories_leaves_all_in_doubt(root, behind, monkeypatch):
    """What has its name, but perhaps not for ever, does not count as committed."""
    tried = []

    def syncfs(fd):
        tried.append(fd)
        if len(tried) == 2:
            failing([])()

    monkeypatch.setattr(group_commit, "syncfs", syncfs)
    store = await opened(root)

    answers = await store.put_small([small_file(b"%d/f" % number, b"x") for number in range(20)], REPLACE)

    assert [StorageError] * 20 == [type(answer) for answer in answers]


async def test_a_failed_sync_is_not_asked_about_directories(root, calls, monkeypatch):
    """A descriptor tells of a failed write once: what else is in the group gets an fsync for each directory."""

    def syncfs(fd):
        calls.append(("syncfs", ""))
        if calls.count(("syncfs", "")) == 1:
            failing([])()

    monkeypatch.setattr(group_commit, "syncfs", syncfs)
    store = await opened(root)
    prepared = []
    for names in ([b"%d" % number for number in range(20)], [b"a/b/c/f"]):
        files = [small_file(name, b"x") for name in names]
        batch = small.write_batch(store._location, files, REPLACE, SALT, CommitHooks(), Headroom(at_once), None)
        prepared += batch.prepared()
    calls.clear()

    *failed, kept = group_commit.commit_group(prepared, CommitHooks())

    assert {StorageError} == {type(outcome) for outcome in failed}
    assert Committed.CREATED is how(kept)
    assert [("syncfs", ""), ("rename", "f"), *(("fsync", each) for each in ("/a/b/c", "/a/b", "/a", ""))] == calls


async def test_order_without_syncfs(root, calls, monkeypatch):
    """Where syncfs cannot be trusted, each file gets an fsync."""
    monkeypatch.setattr(small, "syncs_as_a_whole", lambda _fd: False)
    store = await opened(root)

    await store.put_small([small_file(b"%d" % number, b"x") for number in range(20)], REPLACE)

    assert ["fsync"] * 20 + ["rename"] * 20 + ["fsync"] == [kind for kind, _ in calls]


async def test_order_for_a_large_file(root, calls):
    """The same for a large file."""
    store = await opened(root)
    writing = await store.open_writer(b"d/f", 1, REPLACE)
    await writing.write([b"x"])
    await writing.commit(digest(b"x"), None)

    assert [("fsync", "/d/" + PARTIAL.decode()), ("rename", "f"), ("fsync", "/d"), ("fsync", "")] == calls


async def test_what_is_there_already_is_made_durable(root, behind, calls):
    """A final that somebody else may just have written counts only after it and its directories are durable."""
    behind.plant(b"d/f", b"x")
    store = await opened(root)

    assert await store.settle([Expected(b"d/f", 1, digest(b"x"))]) == [True]
    assert [("fsync", "/d/f"), ("fsync", "/d"), ("fsync", "")] == calls
    calls.clear()
    assert await store.match_final(b"d/f", 1, 0, [digest(b"x")]) == 1
    assert [("fsync", "/d/f"), ("fsync", "/d"), ("fsync", "")] == calls
    calls.clear()
    assert await store.settle([Expected(b"d/f", 1, digest(b"y"))]) == [False]
    assert calls == []


@pytest.mark.parametrize("count", [1, 20])
async def test_a_failed_sync_means_no_rename(root, behind, monkeypatch, count):
    """When content cannot be made durable no file becomes final, no partial stays, and nothing is tried twice."""
    tried = []
    monkeypatch.setattr(os, "fsync", failing(tried))
    monkeypatch.setattr(group_commit, "syncfs", failing(tried))
    store = await opened(root)

    answers = await store.put_small([small_file(b"%d" % number, b"x") for number in range(count)], REPLACE)

    assert [StorageError] * count == [type(answer) for answer in answers]
    assert behind.everything() == []
    assert len(tried) == 1


async def test_a_failed_sync_of_a_large_file_discards_it(root, behind, monkeypatch):
    """After a failed fsync what the kernel says about the pages proves nothing, so they are not kept."""
    store = await opened(root)
    writing = await store.open_writer(b"f", 1, REPLACE)
    await writing.write([b"x"])
    monkeypatch.setattr(os, "fsync", failing([]))

    assert isinstance(await failure(writing.commit(digest(b"x"), None)), StorageError)
    assert behind.everything() == []


async def test_what_was_found_to_be_there_looks_as_if_it_had_arrived_now(root, behind):
    """Who has read such a file before, to move it away, does not remove it any more: another source may be gone for it.

    Two commands that move in opposite directions would lose the file otherwise.
    """
    behind.plant(b"small", b"x")
    behind.plant(b"large", b"y" * BLOCK_BYTES)
    store = await opened(root)
    versions = [(await fetched(store, b"small")).version]
    reader = await store.open_reader(b"large")
    versions.append(reader.version)
    reader.close()

    assert await store.settle([Expected(b"small", 1, digest(b"x"))]) == [True]
    assert await store.match_final(b"large", BLOCK_BYTES, 0, block_digests(b"y" * BLOCK_BYTES)) == BLOCK_BYTES

    answers = await store.remove([Removal(b"small", versions[0]), Removal(b"large", versions[1])])
    assert [type(answer) for answer in answers] == [SourceChanged, SourceChanged]
    assert (behind.content(b"small"), behind.content(b"large")) == (b"x", b"y" * BLOCK_BYTES)


async def test_what_may_not_be_touched_is_not_vouched_for(root, behind, monkeypatch):
    """A file of somebody else that cannot be made to look new is sent again instead of being relied upon."""
    behind.plant(b"f", b"x")

    def fchmod(_fd, _mode):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchmod", fchmod)
    store = await opened(root)

    assert await store.settle([Expected(b"f", 1, digest(b"x"))]) == [False]
    assert await store.match_final(b"f", 1, 0, [digest(b"x")]) == 0


@pytest.mark.parametrize("way", ["settle", "match_final"])
async def test_what_is_about_to_be_replaced_is_not_said_to_be_there(root, behind, monkeypatch, way):
    """Who finds his file there while it was looked at for the last time before its replacement is told the truth."""
    behind.plant(b"f", b"x")
    store = await opened(root)
    other = await opened(root, committer=store._committer)
    look, answers = group_commit.refuse_obstacle, []

    def rely():
        asked = (
            other.settle([Expected(b"f", 1, digest(b"x"))])
            if way == "settle"
            else other.match_final(b"f", 1, 0, [digest(b"x")])
        )
        asked.addBoth(answers.append)

    relying, looks = threading.Thread(target=rely), []

    def look_and_wait(*arguments):
        status = look(*arguments)
        looks.append(status)
        if len(looks) == 2:
            relying.start()
            relying.join(0.2)
        return status

    monkeypatch.setattr(group_commit, "refuse_obstacle", look_and_wait)

    assert how(await put(store, b"f", b"new")) is Committed.REPLACED
    relying.join()
    [answer] = answers
    [answer] = answer if way == "settle" else [answer]
    # On a busy machine it may lose patience with the lock: then it is asked again later.
    assert not answer or isinstance(getattr(answer, "value", answer), Busy)


def test_a_stamp_of_the_present_tick_is_renewed_a_tick_later(root, behind, monkeypatch):
    """What gets the same change time again gets another one when that is sure to differ."""
    behind.plant(b"f", b"x")
    slept, changes = [], []
    change = os.fchmod
    monkeypatch.setattr(os, "fchmod", lambda fd, mode: changes.append(change(fd, mode) if slept else None))
    with open(behind.at(b"f"), "rb") as file:
        before = os.fstat(file.fileno())
        clock = Clock(now_ns=lambda: before.st_ctime_ns + 5_000_000, sleep=slept.append)

        finals._renew(file.fileno(), before, 0o600, clock)

    assert (slept, len(changes)) == ([pytest.approx(0.015)], 2)


async def test_a_partial_that_could_not_be_made_durable_is_not_kept(root, behind, monkeypatch):
    """After a failed fsync a second one may succeed though the data is gone: nobody may go on with this partial."""
    store = await opened(root)
    writing = await store.open_writer(b"f", 2, REPLACE)
    await writing.write([b"x"])
    monkeypatch.setattr(os, "fsync", failing([]))

    assert isinstance(await failure(writing.abandon(keep=True)), StorageError)
    assert behind.everything() == []


async def test_without_an_anchor_each_file_is_synced(root, behind, monkeypatch):
    """Where no descriptor is left to speak for a batch, its files are made durable one by one."""
    store = await opened(root)

    def no_more(_fd):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(small, "syncs_as_a_whole", no_more)
    monkeypatch.setattr(group_commit, "syncfs", failing([]))

    answers = await store.put_small([small_file(b"%d" % number, b"x") for number in range(20)], REPLACE)

    assert list(map(how, answers)) == [Committed.CREATED] * 20


async def test_a_failed_sync_of_the_directory_is_no_success(root, behind, monkeypatch):
    """A file that got its name, but not durably, is not reported as committed."""
    store = await opened(root)
    original = os.fsync

    def fsync(fd):
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        original(fd)

    monkeypatch.setattr(os, "fsync", fsync)

    assert isinstance(await put(store, b"f", b"x"), StorageError)
    assert behind.content(b"f") == b"x"
    assert isinstance((await store.settle([Expected(b"f", 1, digest(b"x"))]))[0], StorageError)
    assert isinstance(await failure(store.match_final(b"f", 1, 0, [digest(b"x")])), StorageError)


async def test_a_file_system_that_cannot_sync_directories(root, monkeypatch):
    """Where fsync of a directory is not supported, files are committed all the same."""
    store = await opened(root)
    original = os.fsync

    def fsync(fd):
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        original(fd)

    monkeypatch.setattr(os, "fsync", fsync)

    assert how(await put(store, b"f", b"x")) is Committed.CREATED


async def test_a_directory_renamed_during_the_commit(root, behind):
    """A file whose directory was exchanged for another is not committed into either."""
    waiting = []

    def run(job, *arguments):
        if job is not group_commit.commit_group:
            return at_once(job, *arguments)
        later = Deferred()
        waiting.append(lambda: at_once(job, *arguments).chainDeferred(later))
        return later

    store = await opened(root, run_in_thread=run)
    answer = store.put_small([small_file(b"d/f", b"x"), small_file(b"e/f", b"x")], REPLACE)
    os.rename(behind.at(b"d"), behind.at(b"away"))
    os.mkdir(behind.at(b"d"))
    waiting.pop()()
    first, second = await answer

    assert isinstance(first, StorageError)
    assert how(second) is Committed.CREATED
    assert behind.content(b"d/f") is None
    assert behind.content(b"away/f") is None


async def test_one_group_at_a_time(root):
    """What comes while a group is being committed makes the next group, together."""
    groups = []

    def run(job, *arguments):
        if job is not group_commit.commit_group:
            return at_once(job, *arguments)
        later = Deferred()
        groups.append((len(arguments[0]), lambda: at_once(job, *arguments).chainDeferred(later)))
        return later

    committer = Committer(run)
    stores = [await opened(root, run_in_thread=run, committer=committer) for _ in range(2)]
    answers = [
        store.put_small([small_file(b"%d-%d" % (batch, number), b"x") for number in range(9)], REPLACE)
        for batch, store in enumerate(stores * 3)
    ]
    assert [count for count, _ in groups] == [9]
    groups[0][1]()
    assert [count for count, _ in groups] == [9, 45]
    groups[1][1]()
    for answer in answers:
        assert [Committed.CREATED] * 9 == list(map(how, await answer))


def test_the_oldest_anchor_speaks_for_a_group(root, monkeypatch):
    """One syncfs for each device, on the descriptor that was opened before all the files were written."""
    synced = []
    monkeypatch.setattr(group_commit, "syncfs", synced.append)
    anchors = [Anchor(100, 1), Anchor(101, 1), Anchor(102, 2)]

    assert group_commit._sync_devices(reversed(anchors), CommitHooks()) == {}
    assert synced == [100, 102]


async def test_a_group_that_fails_as_a_whole_tells_everybody(root):
    """Nobody waits for ever when the commit itself breaks."""

    def run(job, *arguments):
        if job is group_commit.commit_group:
            return maybeDeferred(lambda: 1 / 0)
        return at_once(job, *arguments)

    store = await opened(root, run_in_thread=run)
    with pytest.raises(ZeroDivisionError):
        await put(store, b"f", b"x")
