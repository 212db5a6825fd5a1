"""Threads for short work: one of them, and a second one only while that is slow."""

import itertools

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock

from realize.concurrency.short_jobs import MAX_THREADS, MAX_THREADS_PER_PEER, SLOW_JOB_S, ShortJobs
from tests.faults import Fault


class Threads:
    """A pool whose work is done when the test says so."""

    def __init__(self):
        self.clock = Clock()
        self.begun = []
        self.done = {}
        self.brief = ShortJobs(self.run, self.clock)
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
        threads.end(name, after=0.8 * SLOW_JOB_S)

    assert ["a", "ab", "abc", "abcd", "abcde", "abcdef", "abcdefg", "abcdefgh"] == ["".join(each) for each in seen]
    assert list("ABCDEFGH") == threads.results
    assert [] == threads.clock.getDelayedCalls()


def test_a_second_one_begins_while_one_is_slow(threads):
    """It waits for a disk, perhaps: the next one need not wait for that, but no more than that."""
    threads.ask(*"abcd")
    threads.clock.advance(SLOW_JOB_S / 2)
    early = list(threads.begun)
    threads.clock.advance(SLOW_JOB_S)
    threads.clock.advance(10 * SLOW_JOB_S)

    assert (["a"], ["a", "b"]) == (early, threads.begun)
    assert MAX_THREADS_PER_PEER == len(threads.begun)


def test_a_quick_one_leaves_its_place_to_nobody_while_another_is_quick(threads):
    """A slow one makes room for one more of its kind; what has just begun may be quick."""
    threads.ask(*"abcdef")
    threads.clock.advance(SLOW_JOB_S)
    threads.end("a", after=SLOW_JOB_S)
    slow = list(threads.begun)
    threads.end("b")
    threads.end("c", after=SLOW_JOB_S / 10)
    quick = list(threads.begun)
    threads.end("d", after=SLOW_JOB_S / 10)

    assert (list("abc"), list("abcd"), list("abcde")) == (slow, quick, threads.begun)


@pytest.mark.parametrize("after", [0.0, 0.5])
def test_one_that_was_slow_leaves_its_place_though_another_has_just_begun(threads, after):
    """What comes next is of its kind, perhaps; from the very moment at which it counts as slow."""
    threads.ask(*"abcd")
    threads.clock.advance(SLOW_JOB_S)
    threads.end("a", after=after * SLOW_JOB_S)

    assert list("abc") == threads.begun


def test_one_that_was_quick_leaves_its_place_to_nobody_while_another_has_just_begun(threads):
    """As long as that one is not slow."""
    threads.ask(*"abcd")
    threads.clock.advance(SLOW_JOB_S)
    threads.end("a")
    threads.end("c", after=SLOW_JOB_S / 2)

    assert list("abc") == threads.begun


def test_what_is_quick_does_not_wait_behind_one_that_hangs(threads):
    """Not for a moment, whether it has been asked for before or only now."""
    threads.ask(*"abcd")
    threads.clock.advance(SLOW_JOB_S)
    threads.end("b")
    threads.end("c")
    threads.end("d")
    threads.ask("e")
    threads.end("e")
    threads.ask("f")

    assert list("abcdef") == threads.begun
    assert list("BCDE") == threads.results
    assert [] == threads.clock.getDelayedCalls()


def test_whoever_asks_for_much_leaves_a_thread_and_a_turn_to_others(threads):
    """However much of one peer's waits, and hangs: another one's is begun beside it, and then they take turns."""
    for name in "abcdef":
        threads.brief.of("greedy")(name)
    for name in "uvw":
        threads.brief.of("modest")(name)
    threads.clock.advance(10 * SLOW_JOB_S)
    threads.clock.advance(10 * SLOW_JOB_S)
    hanging = list(threads.begun)
    threads.end("u")
    beside = list(threads.begun)
    for name in "abvcw":
        threads.end(name)

    assert (list("abu"), MAX_THREADS) == (hanging, len(hanging))
    assert list("abuv") == beside
    assert list("abuvcwd") == threads.begun


def test_no_more_threads_than_there_are_for_brief_work(threads):
    """However many peers ask; nobody looks again and again while all of them hang."""
    for owner in "abcde":
        threads.brief.of(owner)(owner)
        threads.clock.advance(SLOW_JOB_S)
        threads.clock.advance(SLOW_JOB_S)

    assert list("abcde")[:MAX_THREADS] == threads.begun
    assert 5 - MAX_THREADS == threads.brief.waiting
    assert [] == threads.clock.getDelayedCalls()


@pytest.mark.parametrize("beside", [False, True])
def test_want_of_memory_keeps_nobody_waiting(threads, beside):
    """Who cannot begin is told, unless something is under way at whose end it begins all the same."""
    seen = set()
    for number in itertools.count(1):
        threads.__init__()
        if beside:
            threads.ask("a", "b")
            threads.clock.advance(SLOW_JOB_S)
        else:
            threads.ask("a")
        threads.ask("c", "d")
        threads.results.clear()
        with Fault(number, MemoryError()) as fault:
            threads.end("a")
        if not fault.hit:
            break
        early = len(threads.results) - 1
        for name in "bcd":
            if name in threads.done:
                threads.end(name)
        answers = sorted(str(getattr(each, "type", each)) for each in threads.results if each not in {"A", "B"})
        assert 2 == len(answers), fault.where
        assert {"C", "D", str(MemoryError)} >= set(answers), fault.where
        assert not beside or (0, ["C", "D"]) == (early, answers), fault.where
        seen.update(answers)

    assert {"C", "D", *([] if beside else [str(MemoryError)])} == seen


def test_errors_are_of_the_one_who_asked(threads):
    """Also when there is no thread to be had; what waits goes on."""
    threads.ask("a", "b")
    threads.done["a"].errback(OSError("broken"))

    assert threads.results[0].check(OSError)
    assert ["a", "b"] == threads.begun

    def refuse(*_):
        raise RuntimeError("no thread")

    errors = []
    ShortJobs(refuse, threads.clock).run("c").addErrback(lambda failure: errors.append(failure.type))
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


def test_many_that_have_ended_when_they_begin_are_no_burden():
    """A pool that refuses, or does at once what it is asked, is not asked within what it answers."""
    clock, held, seen = Clock(), Deferred(), []
    answers = [held]
    brief = ShortJobs(lambda number: answers.pop() if answers else succeed(number), clock)
    for number in range(2000):
        brief.run(number).addCallback(seen.append)
    held.callback(0)

    assert list(range(2000)) == sorted(seen)


@pytest.mark.parametrize("step", [0.3, 0.6, 0.9])
def test_time_passes_while_it_is_looked_at(step):
    """What has just become slow, between one look at the clock and the next, is not watched for too late."""

    class Running(Clock):
        def seconds(self):
            self.rightNow += step * SLOW_JOB_S
            return self.rightNow

        def callLater(self, delay, *work):
            assert delay >= 0
            return super().callLater(delay, *work)

    clock, begun = Running(), []
    brief = ShortJobs(lambda number: begun.append(number) or Deferred(), clock)
    for number in range(10):
        brief.run(number)
    clock.advance(SLOW_JOB_S)

    assert [0, 1] == begun


def test_how_long_one_takes_is_counted_from_its_own_beginning(threads):
    """Not from that of an earlier one that has ended in time: what waits is not begun too early."""
    threads.ask(*"abc")
    threads.end("a", after=0.5 * SLOW_JOB_S)
    threads.clock.advance(0.7 * SLOW_JOB_S)
    early = list(threads.begun)
    threads.clock.advance(0.4 * SLOW_JOB_S)

    assert (["a", "b"], ["a", "b", "c"]) == (early, threads.begun)
