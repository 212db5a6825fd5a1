"""The threads for disk work: `realize.concurrency.thread_pool`."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from types import SimpleNamespace

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import AlreadyCalledError, CancelledError, Deferred, DeferredList, gatherResults
from twisted.internet.task import deferLater

from realize.concurrency import thread_pool
from realize.concurrency.thread_pool import ThreadPool, ThreadPools
from realize.errors import Busy
from tests.faults import Quiet

SOON = 20
"""Seconds after which a test gives up."""


class Content:
    """Something that can be seen to go."""


class Asked:
    """A reactor that looks when the test lets it."""

    def __init__(self):
        self.asked = []

    def callFromThread(self, look):
        """Take note."""
        self.asked.append(look)


@pytest.fixture
def pool():
    """A pool of two threads."""
    pool = ThreadPool(reactor, 2, "test")
    yield pool
    pool.stop()


@pytest_twisted.ensureDeferred
async def test_work_is_done_in_a_thread_and_told_in_the_reactors(pool):
    """The work gets its arguments elsewhere; what comes of it arrives where everything else runs."""

    def work(*args, **options):
        return args, options, threading.current_thread()

    told = []
    args, options, thread = await pool.run(work, 1, b"2", three=3).addCallback(
        lambda result: told.append(threading.current_thread()) or result
    )

    assert ((1, b"2"), {"three": 3}) == (args, options)
    assert [threading.main_thread()] == told
    assert "test 1" == thread.name


@pytest.mark.parametrize("error", [OSError(5, "broken"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
@pytest_twisted.ensureDeferred
async def test_whatever_the_work_raises_is_told(pool, error):
    """An error arrives as it is, and the thread goes on to the next one."""

    def fails():
        raise error

    [(succeeded, failure)] = await DeferredList([pool.run(fails)], consumeErrors=True)

    assert (False, error) == (succeeded, failure.value)
    assert 1 == await pool.run(lambda: 1)
    assert 1 == pool.size


@pytest_twisted.ensureDeferred
async def test_no_more_threads_than_allowed_and_no_more_than_needed(pool):
    """What comes one after the other needs one thread, what comes at once all that may be; the rest waits its turn."""
    for _ in range(5):
        await pool.run(int)
    assert (1, 0, 0) == (pool.size, pool.busy, pool.waiting)

    gate, both = threading.Event(), threading.Barrier(3)
    asked = [pool.run(lambda: (both.wait(SOON), gate.wait(SOON))) for _ in range(2)]
    both.wait(SOON)
    asked += [pool.run(threading.current_thread) for _ in range(4)]
    seen = pool.size, pool.busy, pool.waiting
    gate.set()
    threads = (await gatherResults(asked))[2:]

    assert (2, 2, 4) == seen
    assert {thread.name for thread in threads} <= {"test 1", "test 2"}
    assert (2, 0, 0) == (pool.size, pool.busy, pool.waiting)


@pytest_twisted.ensureDeferred
async def test_work_that_hangs_keeps_nothing_else(pool):
    """One thread that hangs leaves the other one to what comes later, however much that is."""
    gate = threading.Event()
    hanging = pool.run(gate.wait, SOON)
    try:
        assert list(range(100)) == await gatherResults([pool.run(int, number) for number in range(100)])
    finally:
        gate.set()
    assert await hanging


@pytest_twisted.ensureDeferred
async def test_work_begins_in_the_order_it_was_asked_for():
    """One thread does one thing after the other, and results arrive in that order."""
    pool, done, told = ThreadPool(reactor, 1, "test"), [], []
    asked = [pool.run(done.append, number).addCallback(lambda _, n=number: told.append(n)) for number in range(200)]
    await gatherResults(asked)
    pool.stop()

    assert list(range(200)) == done == told


@pytest_twisted.ensureDeferred
async def test_results_that_come_close_together_are_all_delivered(pool):
    """None is overlooked between a thread that has more and a reactor that has just looked; each asks for the next."""
    count = 0

    async def chain(length):
        nonlocal count
        for _ in range(length):
            await pool.run(time.monotonic)
            count += 1

    await gatherResults([Deferred.fromCoroutine(chain(1500)) for _ in range(4)])

    assert 6000 == count


@pytest_twisted.ensureDeferred
async def test_results_leave_the_reactor_its_turn(pool):
    """Work that asks for more work for ever does not keep a timer from firing."""
    going = True

    def again(_):
        return pool.run(int).addCallback(again) if going else None

    chains = [pool.run(int).addCallback(again) for _ in range(4)]
    await deferLater(reactor, 0.01)
    going = False
    await gatherResults(chains)


@pytest_twisted.ensureDeferred
async def test_cancelled_work_is_done_all_the_same(pool):
    """Who cancels is told at once; the thread goes on to its end and the next work is not disturbed."""
    gate, done = threading.Event(), []
    asked = pool.run(lambda: (gate.wait(SOON), done.append(1)))
    asked.cancel()
    [(succeeded, failure)] = await DeferredList([asked], consumeErrors=True)
    gate.set()

    assert (False, CancelledError) == (succeeded, failure.type)
    assert 2 == await pool.run(lambda: 2)
    pool.stop()
    assert [1] == done


@pytest_twisted.ensureDeferred
async def test_stopping_waits_for_what_was_asked_for(pool):
    """Nothing that was asked for is left undone, and no thread is left."""
    done = []
    asked = [pool.run(lambda n=number: (time.sleep(0.01), done.append(n))) for number in range(6)]
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("test ")]
    pool.stop()

    assert list(range(6)) == sorted(done)
    assert (2, 0) == (len(threads), pool.size)
    assert not any(thread.is_alive() for thread in threads)
    await gatherResults(asked)


@pytest_twisted.ensureDeferred
async def test_work_after_the_end_leaves_no_thread(pool):
    """What is closed last is closed, and no thread is left that would keep the process from ending."""
    await pool.run(int)
    pool.stop()
    threads = await gatherResults([pool.run(threading.current_thread) for _ in range(20)])
    for thread in threads:
        thread.join(SOON)

    assert not any(thread.is_alive() for thread in threads)
    assert 0 == pool.size == pool.waiting


@pytest_twisted.ensureDeferred
async def test_a_machine_that_allows_no_more_threads(pool, monkeypatch):
    """The threads that there are do the work; without any, whoever asks is told at once, and nothing waits."""

    def refuses(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuses)
        with pytest.raises(Busy, match="gives no thread for work on the disk"):
            pool.run(int)
    assert (0, 0, 0) == (pool.size, pool.busy, pool.waiting)

    await pool.run(int)
    monkeypatch.setattr(threading.Thread, "start", refuses)
    assert [0, 1, 2] == await gatherResults([pool.run(int, number) for number in range(3)])
    assert 1 == pool.size


@pytest_twisted.ensureDeferred
async def test_idle_threads_hold_nothing_of_their_last_work(pool):
    """What a thread was given and what it returned can go while it waits: a megabyte of content, or a descriptor."""
    given, returned = Content(), Content()
    gone = [weakref.ref(given), weakref.ref(returned)]
    results = [returned]
    await pool.run(lambda _: results.pop(), given)
    # Its thread has announced the result before it let go of it.
    await pool.run(int)
    await pool.run(int)
    del given, returned
    gc.collect()

    assert [None, None] == [reference() for reference in gone]


def test_what_work_was_called_with_goes_before_its_result_is_told():
    """However long the reactor takes to look: a megabyte of content need not wait for that."""
    held = Content()
    gone = weakref.ref(held)
    pool = ThreadPool(Asked(), 1, "test")
    asked = pool.run(lambda _: None, held)
    del held
    pool.stop()

    assert not asked.called
    assert gone() is None


@pytest_twisted.ensureDeferred
async def test_what_failed_keeps_nothing_of_what_it_worked_on(pool):
    """Its error, which may be kept, tells where it was raised, and nothing of the content that was there."""
    seen = []

    def fails():
        content = Content()
        seen.append(weakref.ref(content))
        raise OSError(5, "broken")

    gc.disable()
    try:
        [(_, failure)] = await DeferredList([pool.run(fails)], consumeErrors=True)
        gone = seen[0]() is None
    finally:
        gc.enable()

    assert gone
    assert "in fails" in failure.getTraceback()


@pytest_twisted.ensureDeferred
async def test_an_error_that_is_raised_again_ends_nobody_who_was_told_before(pool):
    """As that of a file that cannot be written, which all later calls raise: who was told first may be tidying up."""
    broken = OSError(5, "broken")
    tidied = Deferred()

    def fails():
        raise broken

    async def told():
        try:
            await pool.run(fails)
        except OSError:
            return await tidied

    first = Deferred.fromCoroutine(told())
    await DeferredList([pool.run(int)])
    await DeferredList([pool.run(fails)], consumeErrors=True)
    tidied.callback("tidied")

    assert await first == "tidied"


@pytest_twisted.ensureDeferred
async def test_an_idle_thread_holds_nothing_that_it_returned(pool):
    """It goes without waiting for what comes next."""
    gone = threading.Event()
    reference = await pool.run(Content).addCallback(lambda content: weakref.ref(content, lambda _: gone.set()))
    await deferLater(reactor, 0)  # behind who tells the result

    assert gone.wait(SOON)
    assert reference() is None


def test_the_reactor_is_asked_to_look_once():
    """However much is done before it does; and again for what is done after that."""
    looks, told = Asked(), []
    pool = ThreadPool(looks, 1, "test")
    for number in range(5):
        pool.run(int, number).addCallback(told.append)
    pool.stop()
    asked = len(looks.asked)
    looks.asked[0]()
    assert (1, list(range(5))) == (asked, told)

    last = pool.run(threading.current_thread).addCallback(told.append)
    for thread in threading.enumerate():
        if thread.name == "test 1":
            thread.join(SOON)
    assert (2, False) == (len(looks.asked), last.called)
    looks.asked[1]()
    assert last.called


def test_what_no_thread_has_taken_yet_keeps_none_busy(monkeypatch):
    """It waits."""
    monkeypatch.setattr(threading.Thread, "start", lambda _: None)
    pool = ThreadPool(Asked(), 2, "test")
    pool.run(int)

    assert (1, 0, 1) == (pool.size, pool.busy, pool.waiting)


def test_the_threads_of_all_directories_end():
    """Behind what they were asked for."""
    pools, done = ThreadPools(Asked(), 2, "test"), []
    for key in "ab":
        pools.of(key).run(done.append, key)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("test ")]
    pools.stop()

    assert (["a", "b"], 2) == (sorted(done), len(threads))
    assert [False, False] == [thread.is_alive() for thread in threads]


@pytest_twisted.ensureDeferred
async def test_a_result_is_told_when_there_is_memory_again(pool, monkeypatch):
    """A thread that cannot say that it is done tries again: somebody waits, perhaps with a lock in the result."""
    refused = []

    def refuses(*arguments):
        if len(refused) < 3:
            refused.append(arguments)
            raise MemoryError
        return call(*arguments)

    call, slept = reactor.callFromThread, []
    monkeypatch.setattr(thread_pool, "time", SimpleNamespace(sleep=slept.append))
    monkeypatch.setattr(reactor, "callFromThread", refuses)

    assert [0, 1, 2] == await gatherResults([pool.run(int, number) for number in range(3)])
    assert 3 == len(refused)
    assert [thread_pool.ANNOUNCE_RETRY_S] * 3 == slept


@pytest_twisted.ensureDeferred
async def test_a_result_that_cannot_be_told_keeps_no_other_back(pool, monkeypatch):
    """One Deferred that somebody else has fired already is logged, and all the others are fired."""
    logged = []
    monkeypatch.setattr(thread_pool, "_log", Quiet(logged))
    gate = threading.Event()
    waiting = [pool.run(gate.wait, 0.01 * number) for number in range(3)]
    waiting[0].callback(None)

    await DeferredList(waiting[1:])

    assert [AlreadyCalledError] == logged
