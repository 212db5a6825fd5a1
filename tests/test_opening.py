"""What a store opens is closed, and its room given back, also if nobody gets it."""

from __future__ import annotations

import errno
import gc
import os
import weakref

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.python.failure import Failure

from realize.concurrency.semaphore import FairSemaphore
from realize.errors import Busy, StorageError
from realize.fs.descriptors import release
from realize.store.local import partial_marks as marks
from realize.store.local import reader as reading
from realize.store.local import store as local
from realize.store.local import writer as writing
from realize.store.local.group_commit import Committer
from realize.store.local.headroom import Headroom
from realize.store.local.versions import representable, settled_in
from realize.values import Committed
from tests.faults import Quiet
from tests.leftovers import leave_partial
from tests.local_stores import PARTIAL, REPLACE, at_once, behind, open_files, opened, root
from tests.store_helpers import how, small_file
from tests.test_partials import put

__all__ = ["behind", "root"]


def no_memory(*_arguments):
    """There is none."""
    raise MemoryError


@pytest.mark.parametrize("kind", ["LocalReader", "LocalWriter"])
async def test_what_cannot_be_handed_out_is_closed(root, behind, monkeypatch, kind):
    """Its descriptor, its lock and its room are free again."""
    behind.plant(b"f", b"x")
    store = await opened(root)

    def opening():
        return store.open_reader(b"f") if kind == "LocalReader" else store.open_writer(b"f", 3, REPLACE)

    with monkeypatch.context() as patch:
        patch.setattr(reading if kind == "LocalReader" else writing, kind, no_memory)
        with pytest.raises(MemoryError):
            await opening()

    assert [] == open_files(root)
    assert not store._headroom.ledger.on(os.stat(root).st_dev).promises
    again = await opening()
    if kind == "LocalReader":
        again.close()
    else:
        await again.abandon(keep=False)


async def test_what_nobody_waits_for_and_cannot_be_kept_is_sent_again(root, monkeypatch):
    """That is no fault of the program, so that nothing is logged; what is one is told."""
    pending = []

    def later(job, *arguments):
        if job is writing.PartialFile:
            pending.append(lambda: at_once(job, *arguments).chainDeferred(answer))
            answer = Deferred()
            return answer
        return at_once(job, *arguments)

    leave_partial(root, "f", b"12")
    store = await opened(root, run_in_thread=later)
    opening = store.open_writer(b"f", 3, REPLACE)
    opening.cancel()
    with pytest.raises(CancelledError):
        await opening

    def fails(_fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        pending.pop()()

    assert [] == os.listdir(root)
    assert how(await put(store, b"f", b"new")) is Committed.CREATED
    assert local._not_kept(Failure(Busy("later"))) is None
    with pytest.raises(ZeroDivisionError):
        local._not_kept(Failure(ZeroDivisionError()))


async def test_where_nobody_knows_whether_modes_are_kept_a_file_is_not_ours(root, behind, monkeypatch):
    """A partial without the mark may be somebody's file: an error of the disk does not make it ours."""
    place = leave_partial(root, "f", b"12")
    place.chmod(0o600)

    def fails(_fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(marks, "keeps_modes", fails)

    assert marks.is_ours(0, PARTIAL, place.stat()) is False
    store = await opened(root)
    assert how(await put(store, b"f", b"new")) is Committed.CREATED
    assert b"12" == place.read_bytes()


class Ending:
    """A writer that ends when, and how, the test says."""

    def __init__(self, end):
        self.end = end
        self.told = []

    def abandon(self, *, keep):
        """End."""
        self.told.append(keep)
        return self.end


async def test_whatever_cannot_be_kept_all_that_is_written_is_closed(root, monkeypatch):
    """The store has closed when the last one has; an error that came first is the reason that is told."""
    writers = [Ending(fail(StorageError("broken"))), Ending(fail(StorageError("broken"))), Ending(Deferred())]
    left = list(writers)

    def make(partial, *_):
        partial.close(release)
        partial.promise.release()
        return left.pop()

    monkeypatch.setattr(writing, "LocalWriter", make)
    store = await opened(root)
    for name in (b"1", b"2", b"3"):
        await store.open_writer(name, 3, REPLACE)
    results = []
    store.close().addBoth(results.append)
    early = list(results)
    writers[-1].end.callback(0)

    assert ([], [[True]] * 3) == (early, [writer.told for writer in writers])
    assert [(StorageError, "broken")] == [(failure.type, str(failure.value)) for failure in results]


async def test_what_cannot_be_closed_keeps_nothing_else_open(root, behind, monkeypatch):
    """Neither what is read, nor what is written; it is logged."""
    behind.plant(b"f", b"x")
    logged = []
    monkeypatch.setattr(local, "_log", Quiet(logged))
    store = await opened(root)
    store.walk().close = fails = lambda: 1 / 0
    reader = await store.open_reader(b"f")
    close, reader.close = reader.close, fails
    await store.open_reader(b"f")
    await store.open_writer(b"g", 3, REPLACE)
    assert 3 == len(open_files(root))
    await store.close()

    assert [ZeroDivisionError] * 2 == logged
    assert 1 == len(open_files(root))
    close()


async def test_small_files_wait_for_room_among_those_that_are_committed(root):
    """Nothing of them is written before, and they take as many places as they are."""
    committer = Committer(at_once)
    committer.slots = FairSemaphore(3)
    store = await opened(root, committer=committer)
    Deferred.fromCoroutine(committer.slots.acquire(2))
    putting = store.put_small([small_file(b"1", b"x"), small_file(b"2", b"x")], REPLACE)
    before = os.listdir(root), putting.called
    committer.slots.release(2)

    assert ([], False) == before
    assert [Committed.CREATED] * 2 == [how(each) for each in await putting]
    assert Deferred.fromCoroutine(committer.slots.acquire(3)).called


async def test_nothing_is_remembered_of_whoever_waited_for_room(root, monkeypatch):
    """A connection may open thousands of files."""
    wait, waited = Headroom.wait, []

    def noted(headroom):
        waiting = wait(headroom)
        waited.append(weakref.ref(waiting))
        return waiting

    monkeypatch.setattr(Headroom, "wait", noted)
    store = await opened(root)
    writer = await store.open_writer(b"f", 3, REPLACE)
    await writer.abandon(keep=False)
    del writer
    gc.collect()

    assert [None] == [reference() for reference in waited]


@pytest.mark.parametrize("number", [0, 1, -1, 2**63 - 1, -(2**63)])
def test_a_time_that_fits_stays_as_it_is(number):
    """What does not fit becomes the nearest that does."""
    assert number == representable(number)
    assert [2**63 - 1, -(2**63)] == [representable(2**63), representable(-(2**63) - 1)]


@pytest.mark.parametrize(
    ("age_ns", "wait"), [(0, True), (-1, True), (10**7, True), (10**12, False), (-(10**12), False)]
)
def test_what_was_stamped_just_now_has_to_settle(age_ns, wait):
    """By a clock that is behind, too, unless it is so far behind that it does not come to the stamp for long."""
    stamp = 1_700_000_000_123_456_789
    assert wait == (settled_in(stamp, stamp + age_ns) > 0)


@pytest.mark.parametrize("sign", [1, -1])
def test_what_has_just_settled_is_not_waited_for(sign):
    """Neither behind the stamp nor before it."""
    stamp = 1_700_000_000_123_456_789
    settled = round(settled_in(stamp, stamp) * 1e9)

    assert 0.0 == settled_in(stamp, stamp + sign * settled)
    assert 0.0 < settled_in(stamp, stamp + sign * (settled - 1))
