"""Threads for short work: one of them, and a second one only while that is slow."""

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from realize.store.brief import MOST, SLOW, BriefWork


class Threads:
    """A pool whose work is done when the test says so."""

    def __init__(self):
        self.clock = Clock()
        self.begun = []
        self.done = {}
        self.brief = BriefWork(self.run, self.clock)
        self.results = []

    def run(self, work, *args):
        """Begin; `work` is the name of a job here."""
        self.begun.append(work)
        self.done[work] = Deferred()
        return self.done[work]

    def ask(self, *names):
        """Ask for jobs."""
        waiting = [self.brief.run(name) for name in names]
        for each in waiting:
            each.addBoth(self.results.append)
        return waiting

    def end(self, name, after=0.0):
        """A job has ended."""
        self.clock.advance(after)
        self.done[name].callback(name.upper())


@pytest.fixture
def threads():
    """No job yet."""
    return Threads()


def test_what_is_quick_is_done_one_by_one(threads):
    """However much waits, and for however long."""
    threads.ask(*"abcdefgh")
    seen = []
    for name in "abcdefgh":
        seen.append(list(threads.begun))
        threads.end(name, after=0.8 * SLOW)

    assert ["a", "ab", "abc", "abcd", "abcde", "abcdef", "abcdefg", "abcdefgh"] == ["".join(each) for each in seen]
    assert list("ABCDEFGH") == threads.results
    assert [] == threads.clock.getDelayedCalls()


def test_a_second_one_begins_while_one_is_slow(threads):
    """It waits for a disk, perhaps: the next one need not wait for that, but no more than that."""
    threads.ask(*"abcd")
    threads.clock.advance(SLOW / 2)
    early = list(threads.begun)
    threads.clock.advance(SLOW)
    threads.clock.advance(10 * SLOW)

    assert (["a"], ["a", "b"]) == (early, threads.begun)
    assert MOST == len(threads.begun)


def test_two_go_on_while_they_are_slow_and_one_when_they_are_not(threads):
    """A slow one is followed at once; a quick one leaves its place if another is under way."""
    threads.ask(*"abcdef")
    threads.clock.advance(SLOW)
    threads.end("a", after=SLOW)
    slow = list(threads.begun)
    threads.end("c", after=SLOW / 10)
    quick = list(threads.begun)
    threads.end("b")

    assert (list("abc"), list("abc"), list("abcd")) == (slow, quick, threads.begun)


def test_errors_are_of_the_one_who_asked(threads):
    """Also when there is no thread to be had; what waits goes on."""
    threads.ask("a", "b")
    threads.done["a"].errback(OSError("broken"))

    assert threads.results[0].check(OSError)
    assert ["a", "b"] == threads.begun

    def refuse(*_):
        raise RuntimeError("no thread")

    errors = []
    BriefWork(refuse, threads.clock).run("c").addErrback(lambda failure: errors.append(failure.type))
    assert [RuntimeError] == errors


def test_what_nobody_waits_for_is_done_all_the_same(threads):
    """Cancelled, it fires at once; a thread cannot be stopped, and what comes behind it keeps its place."""
    first, second, _ = threads.ask("a", "b", "c")
    first.cancel()
    second.cancel()
    threads.end("a")
    threads.end("b")

    assert [CancelledError, CancelledError] == [each.type for each in threads.results]
    assert ["a", "b", "c"] == threads.begun
