"""Jobs of many short system calls: one at a time, unless what runs waits for something."""

import threading
import time

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock

from realize.concurrency.one_at_work import LOOK_S, WAITED_FOR_S, OneAtWork


class Threads:
    """Two pools whose work is done when the test says so, and the processor time that it takes meanwhile."""

    def __init__(self, monkeypatch):
        self.clock = Clock()
        self.begun = []
        self.done = {}
        self.used = {}
        self.own = 0.0
        one = OneAtWork(self.clock, lambda: self.own * self.clock.seconds())
        self.pools = [one.through(self.run), one.through(self.run)]
        self.results = []

        def used(running):
            """The processor time of a job since the last call."""
            share, since = self.used.get(running.work, (1.0, 0.0))
            self.used[running.work] = share, self.clock.seconds()
            return share * (self.clock.seconds() - since)

        monkeypatch.setattr("realize.concurrency.one_at_work._Running.used", used)

    def run(self, running, *args):
        """Begin; `work` is the name of a job here."""
        self.begun.append(running.work)
        self.done[running.work] = Deferred()
        return self.done[running.work]

    def ask(self, *names, pool=0):
        """Ask for jobs."""
        waiting = [self.pools[pool](name) for name in names]
        for each in waiting:
            each.addBoth(self.results.append)
        return waiting

    def uses(self, **shares):
        """From now on, these jobs use as much of a processor."""
        self.used |= {name: (share, self.clock.seconds()) for name, share in shares.items()}

    def end(self, name):
        """A job has ended."""
        self.done[name].callback(name.upper())


@pytest.fixture
def threads(monkeypatch):
    """No job yet."""
    return Threads(monkeypatch)


def test_what_works_is_alone(threads):
    """In the order in which it was asked for, whichever pool it is for."""
    threads.ask("a")
    threads.ask("b", pool=1)
    threads.ask("c")
    seen = []
    for name in "abc":
        threads.clock.pump([LOOK_S] * 5)
        seen.append("".join(threads.begun))
        threads.end(name)

    assert ["a", "ab", "abc"] == seen
    assert list("ABC") == threads.results
    threads.clock.advance(LOOK_S)
    assert [] == threads.clock.getDelayedCalls()


def test_others_begin_while_it_waits(threads):
    """One more at each look, until together they use most of a processor."""
    threads.ask(*"abcdefg")
    threads.uses(a=0.3, b=0.3, c=0.3)
    seen = []
    for _ in range(5):
        threads.clock.advance(LOOK_S)
        seen.append("".join(threads.begun))

    assert ["ab", "abc", "abc", "abc", "abc"] == seen


def test_the_reactor_counts(threads):
    """What works beside it waits for the interpreter as often as not."""
    threads.own = 0.5
    threads.ask(*"abc")
    threads.uses(a=0.4)
    threads.clock.pump([LOOK_S] * 3)
    busy = list(threads.begun)
    threads.own = 0.3
    threads.clock.pump([LOOK_S] * 3)

    assert (["a"], ["a", "b"]) == (busy, threads.begun)


def test_nobody_waits_for_one_that_hangs(threads):
    """Once that shows, not even for a look."""
    threads.ask("hangs", "a")
    threads.uses(hangs=0.0)
    threads.clock.advance(LOOK_S)
    threads.end("a")
    threads.ask("b", "c")

    assert ["hangs", "a", "b"] == threads.begun
    threads.end("b")
    assert "c" == threads.begun[-1]


def test_nobody_waits_long_for_one_that_hangs_while_the_reactor_is_busy(threads):
    """Then it looks like one that waits for the interpreter; once it has taken long, it holds up nobody."""
    threads.own = 1.0
    threads.ask("hangs", "a", pool=0)
    threads.ask("b", pool=1)
    threads.uses(hangs=0.0)
    seen = []
    for _ in range(2):
        threads.clock.pump([LOOK_S] * int(0.99 * WAITED_FOR_S / LOOK_S))
        seen.append("".join(threads.begun))
        threads.clock.pump([LOOK_S] * 3)
    threads.end("a")

    assert ["hangs", "hangsa"] == seen
    assert ["hangs", "a", "b"] == threads.begun


def test_nobody_waits_long_for_one_that_works(threads):
    """Peers share the processor, as they did before."""
    threads.ask("long", "a", "b")
    threads.clock.pump([LOOK_S] * int(1.1 * WAITED_FOR_S / LOOK_S))
    threads.end("a")

    assert ["long", "a", "b"] == threads.begun


def test_one_that_hung_and_works_again_is_alone(threads):
    """What others there are it only finds at work for as long as they take."""
    threads.ask("hangs", "a")
    threads.uses(hangs=0.0)
    threads.clock.advance(LOOK_S)
    threads.uses(hangs=1.0)
    threads.ask("b")
    threads.clock.advance(LOOK_S)
    threads.end("a")
    threads.clock.advance(LOOK_S)

    assert ["hangs", "a"] == threads.begun
    threads.end("hangs")
    assert ["hangs", "a", "b"] == threads.begun


def test_what_cannot_begin_fails_alone(threads):
    """Such as when no thread can be started, or when it ends as it begins."""
    one = OneAtWork(threads.clock)

    def no_thread(*_):
        raise RuntimeError("no thread")

    failed, done = [], []
    first = one.through(threads.run)("a")
    for _ in range(2000):  # more than can be nested
        one.through(no_thread)(int).addErrback(lambda failure: failed.append(failure.type))
    one.through(lambda running, *args: succeed(running(*args)))(int, "7").addCallback(done.append)
    threads.end("a")

    assert ([RuntimeError] * 2000, [7], "A") == (failed, done, first.result)


def test_what_cannot_be_begun_fails(threads, monkeypatch):
    """Without memory, say; what has ended meanwhile is told all the same."""
    threads.ask("a", "b", "c")

    def broken(_work, _now):
        raise MemoryError

    monkeypatch.setattr("realize.concurrency.one_at_work._Running", broken)
    threads.end("a")

    assert [MemoryError, MemoryError, "A"] == [getattr(each, "type", each) for each in threads.results]


def test_who_does_not_wait_any_more_holds_up_nobody(threads):
    """The job itself goes on."""
    waiting = threads.ask("a", "b")
    waiting[0].cancel()
    began = list(threads.begun)
    threads.end("a")

    assert (["a"], ["a", "b"]) == (began, threads.begun)
    assert threads.results[0].check(CancelledError)


def test_the_processor_time_is_that_of_the_thread():
    """Of the job that runs in it, since the last look; that of an ended thread is none."""
    begun, asked, ended = [], threading.Event(), threading.Event()

    def work():
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass
        begun.append(1)
        asked.wait(30)

    thread = None

    def run(running, *args):
        nonlocal thread
        seen.append(running)
        thread = threading.Thread(target=lambda: (running(*args), ended.set()))
        thread.start()
        return Deferred()

    seen = []
    OneAtWork(Clock()).through(run)(work)
    [running] = seen
    while not begun:
        time.sleep(0.001)
    worked, waited = running.used(), running.used()
    asked.set()
    ended.wait(30)
    thread.join()

    assert 0.05 <= worked < 5.0
    assert waited < 0.01
    assert 0.0 <= running.used() < 0.01


def test_one_that_has_just_begun_is_given_time(threads):
    """Before the next look, which is about a whole interval."""
    threads.ask("hangs", "a")
    threads.uses(hangs=0.0, a=0.0)
    threads.clock.advance(LOOK_S)
    threads.clock.advance(0.9 * LOOK_S)
    threads.end("a")
    threads.ask("b", "c")
    threads.uses(b=0.5)
    threads.clock.advance(0.9 * LOOK_S)
    seen = list(threads.begun)
    threads.clock.advance(0.1 * LOOK_S)

    assert (["hangs", "a", "b"], "c") == (seen, threads.begun[-1])
