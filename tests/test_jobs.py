"""Jobs run side by side within their slots and end together."""

import pytest
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.task import Clock

from realize.mover.jobs import CANCEL_TIMEOUT_S, Jobs


def outcome(coroutine):
    """Start a coroutine; the list has its result or failure once it ended."""
    results = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    return results


def job(gate, log, name):
    """A job that ends when its gate fires, and logs how it ended."""

    async def run():
        try:
            await gate
        except CancelledError:
            log.append((name, "cancelled"))
            raise
        log.append((name, "done"))

    return run


def test_no_more_jobs_than_slots_run_at_once():
    """A third job waits until one of two slots is free."""
    jobs, slots, log = Jobs(Clock()), DeferredSemaphore(2), []
    gates = [Deferred() for _ in range(3)]

    started = [outcome(jobs.start(slots, job(gate, log, n))) for n, gate in enumerate(gates)]
    assert [[None], [None], []] == started

    gates[0].callback(None)

    assert [None] == started[2]
    for gate in gates[1:]:
        gate.callback(None)


def test_drained_waits_for_the_last_job():
    """`drained` answers only when no job runs any more."""
    jobs, slots, log, gate = Jobs(Clock()), DeferredSemaphore(1), [], Deferred()
    outcome(jobs.start(slots, job(gate, log, "a")))
    drained = outcome(jobs.drained())
    assert [] == drained

    gate.callback(None)

    assert [None] == drained


def test_a_slot_that_cannot_be_given_back_is_raised_instead_of_waited_for():
    """As for want of memory, when the next one is to be let in."""

    class Slots(DeferredSemaphore):
        def release(self):
            raise MemoryError

    jobs, log, gate = Jobs(Clock()), [], Deferred()
    outcome(jobs.start(Slots(1), job(gate, log, "a")))
    drained = outcome(jobs.drained())

    gate.callback(None)

    assert MemoryError is drained[0].type


def test_a_job_that_fails_cancels_the_others_and_is_raised():
    """The error that one job lets out ends its neighbours and comes out of `drained`."""
    jobs, slots, log = Jobs(Clock()), DeferredSemaphore(2), []
    failing, other = Deferred(), Deferred()
    outcome(jobs.start(slots, job(failing, log, "failing")))
    outcome(jobs.start(slots, job(other, log, "other")))

    failing.errback(KeyError("x"))

    assert [("other", "cancelled")] == log
    with pytest.raises(KeyError):
        outcome(jobs.drained())[0].raiseException()
    with pytest.raises(KeyError):
        outcome(jobs.start(slots, job(Deferred(), log, "late")))[0].raiseException()


def test_cancelling_the_wait_is_not_swallowed():
    """Whoever waits for the jobs and is cancelled sees the cancellation, and the jobs go on until told otherwise."""
    jobs, slots, log = Jobs(Clock()), DeferredSemaphore(1), []
    outcome(jobs.start(slots, job(Deferred(), log, "a")))
    waiting = Deferred.fromCoroutine(jobs.drained())
    results = []
    waiting.addBoth(results.append)

    waiting.cancel()

    assert [CancelledError] == [result.type for result in results]
    assert [] == log
    assert [None] == outcome(jobs.cancelled())
    assert [("a", "cancelled")] == log


def test_a_cancellation_that_nobody_asked_for_is_a_failure():
    """A job that is cancelled from elsewhere has not done its work, so the others end and it is raised."""
    jobs, slots, log, gate = Jobs(Clock()), DeferredSemaphore(1), [], Deferred()
    outcome(jobs.start(slots, job(gate, log, "a")))

    gate.cancel()

    assert [CancelledError] == [result.type for result in outcome(jobs.drained())]


def test_who_waits_may_be_cancelled_by_another_who_does():
    """The end of the last job wakes them one after the other, and one that is given up then is no trouble."""
    jobs, slots, gate = Jobs(Clock()), DeferredSemaphore(1), Deferred()
    outcome(jobs.start(slots, job(gate, [], "job")))
    ended = []
    waiting = [Deferred.fromCoroutine(jobs.drained()) for _ in range(2)]
    waiting[0].addBoth(lambda _: waiting[1].cancel())
    waiting[1].addBoth(ended.append)

    gate.callback(None)

    assert 1 == len(ended)


def test_everybody_who_waits_for_a_slot_hears_of_a_failure():
    """Not only the first, who gives the slot on."""
    jobs, slots, failing = Jobs(Clock()), DeferredSemaphore(1), Deferred()
    outcome(jobs.start(slots, job(failing, [], "failing")))
    waiting = [outcome(jobs.start(slots, job(Deferred(), [], "waiting"))) for _ in range(3)]

    failing.errback(KeyError("x"))

    assert [[KeyError]] * 3 == [[failure.type for failure in each] for each in waiting]


def test_the_first_failure_is_the_one_that_counts():
    """What goes wrong with the others as they are cancelled is a consequence of it."""
    jobs, slots, failing, other = Jobs(Clock()), DeferredSemaphore(2), Deferred(), Deferred()

    async def clumsy():
        try:
            await other
        finally:
            raise ValueError("while it was put in order")

    outcome(jobs.start(slots, job(failing, [], "failing")))
    outcome(jobs.start(slots, clumsy))
    failing.errback(KeyError("x"))

    assert [KeyError] == [failure.type for failure in outcome(jobs.drained())]


def test_jobs_that_were_cancelled_have_not_failed():
    """Whoever asked for it need not be told."""
    jobs, slots = Jobs(Clock()), DeferredSemaphore(1)
    outcome(jobs.start(slots, job(Deferred(), [], "a")))

    assert [None] == outcome(jobs.cancelled())
    assert [None] == outcome(jobs.drained())


def test_jobs_that_were_cancelled_are_cancelled_once_more_after_a_while():
    """Some wait for an answer to what is done in any case; that has an end."""
    clock, log = Clock(), []
    jobs, slots = Jobs(clock), DeferredSemaphore(1)

    async def patient():
        for wait in (Deferred(), Deferred()):
            try:
                await wait
            except CancelledError:
                log.append(clock.seconds())

    outcome(jobs.start(slots, patient))
    ended = outcome(jobs.cancelled())
    before = list(ended)
    clock.advance(CANCEL_TIMEOUT_S)

    assert ([0.0, CANCEL_TIMEOUT_S], [], [None]) == (log, before, ended)
    assert [] == clock.getDelayedCalls()


def test_the_wait_for_cancelled_jobs_is_not_cut_short():
    """A time limit may come behind a signal: what is put in order goes on."""
    jobs, slots, order = Jobs(Clock()), DeferredSemaphore(1), Deferred()

    async def orderly():
        try:
            await Deferred()
        finally:
            await order

    outcome(jobs.start(slots, orderly))
    waiting = Deferred.fromCoroutine(jobs.cancelled())
    ended = []
    waiting.addBoth(ended.append)
    waiting.cancel()
    before = list(ended)
    order.callback(None)

    assert ([], [None]) == (before, ended)


def test_nothing_begins_once_all_are_cancelled():
    """A slot that becomes free by that is not taken."""
    jobs, slots, log = Jobs(Clock()), DeferredSemaphore(1), []
    outcome(jobs.start(slots, job(Deferred(), log, "a")))
    waiting = outcome(jobs.start(slots, job(Deferred(), log, "b")))

    outcome(jobs.cancelled())

    assert [CancelledError] == [failure.type for failure in waiting]
    assert [("a", "cancelled")] == log


def test_what_goes_wrong_as_jobs_are_cancelled_is_a_failure():
    """It is none of the cancellations that were asked for."""
    jobs, slots = Jobs(Clock()), DeferredSemaphore(1)

    async def clumsy():
        try:
            await Deferred()
        except CancelledError:
            raise ValueError("while it was put in order") from None

    outcome(jobs.start(slots, clumsy))
    outcome(jobs.cancelled())

    assert [ValueError] == [failure.type for failure in outcome(jobs.drained())]
