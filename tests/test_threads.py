"""What is waited for while threads work, and what becomes of it then: `realize.concurrency.shielded`."""

from __future__ import annotations

import os

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed

from realize.concurrency.shielded import disposing, shielded, shielded_opening, steadfast
from realize.errors import Unanswered


class Worker:
    """Its work ends when the test says so; ``done`` has what came of it."""

    def __init__(self):
        self.gate = Deferred()
        self.done = []

    async def work(self, *args, **options):
        """Wait, and take note."""
        result = await self.gate
        self.done.append((args, options))
        return result

    plain = shielded(work)
    steady = steadfast(work)


def outcome(deferred):
    """What it has come to, in a list."""
    results = []
    deferred.addBoth(results.append)
    return results


@pytest.mark.parametrize("method", ["plain", "steady"])
def test_what_is_waited_for_comes_back(method):
    """With what it was called with; an error, too."""
    good, bad = Worker(), Worker()
    results = [outcome(getattr(worker, method)(1, two=2)) for worker in (good, bad)]
    before = [list(each) for each in results]
    good.gate.callback(7)
    bad.gate.errback(ZeroDivisionError())

    assert [[], []] == before
    assert [7] == results[0]
    assert ZeroDivisionError is results[1][0].type
    assert ([((1,), {"two": 2})], []) == (good.done, bad.done)
    assert method != "plain" or "Wait, and take note." == Worker.plain.__doc__


@pytest.mark.parametrize("ends", [7, ZeroDivisionError()])
def test_what_nobody_waits_for_goes_on_to_its_end(ends):
    """Whoever cancels is told at once; what comes later is nobody's."""
    worker = Worker()
    waiting = worker.plain()
    results = outcome(waiting)
    waiting.cancel()
    early = [failure.type for failure in results]
    worker.gate.callback(ends) if ends == 7 else worker.gate.errback(ends)

    assert ([CancelledError], 1) == (early, len(results))
    assert (1 if ends == 7 else 0) == len(worker.done)


def test_what_may_be_done_is_waited_for_once_more():
    """Only then it is not known whether it was."""
    worker = Worker()
    waiting = worker.steady()
    results = outcome(waiting)
    waiting.cancel()
    early = list(results)
    waiting.cancel()
    worker.gate.callback(7)

    assert ([], [Unanswered], 1) == (early, [failure.type for failure in results], len(worker.done))


@pytest.mark.parametrize("wanted", [True, False])
def test_what_is_opened_for_nobody_is_released(wanted):
    """And only that."""
    worker, released = Worker(), []
    waiting = shielded_opening(released.append)(worker.work)(1)
    results = outcome(waiting)
    if not wanted:
        waiting.cancel()
    worker.gate.callback(7)

    assert ([], [7]) == (released, results) if wanted else [7] == released
    assert [((1,), {})] == worker.done


@pytest.mark.parametrize("how", ["in a thread", "later", "no thread", "no memory"])
def test_a_descriptor_is_closed_in_a_thread_or_else_here(how):
    """What was opened is closed whatever fails, once, and not before it is its turn."""
    fd = os.open("/dev/null", os.O_RDONLY)
    work = []

    def run_in_thread(*job):
        if how == "no thread":
            raise RuntimeError("no thread")
        if how == "no memory":
            return succeed(None).addCallback(lambda _: 1 / 0)
        if how == "later":
            work.append((Deferred(), *job))
            return work[0][0]
        job[0](*job[1:])
        return succeed(None)

    results = outcome(disposing(run_in_thread)(fd))
    if how == "later":
        os.fstat(fd)
        assert [] == results
        [(ended, job, *arguments)] = work
        ended.callback(job(*arguments))

    assert [None] == results
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
