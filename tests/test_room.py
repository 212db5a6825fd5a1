"""Places that are waited for: `realize.concurrency.semaphore`."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from realize.concurrency.semaphore import FairSemaphore


def test_whoever_gives_up_waiting_takes_no_place():
    """A place that nobody wants any more goes to the next one, and is not lost."""
    room, told = FairSemaphore(2), []
    Deferred.fromCoroutine(room.acquire(2))
    waiting = [Deferred.fromCoroutine(room.acquire(2)) for _ in range(3)]
    for number, each in enumerate(waiting):
        each.addBoth(lambda result, number=number: told.append((number, getattr(result, "type", None))))

    waiting[1].cancel()
    room.release(2)
    room.release(2)
    room.release(2)
    last = Deferred.fromCoroutine(room.acquire(2))

    assert [(1, CancelledError), (0, None), (2, None)] == told
    assert last.called


def test_whoever_gives_up_keeps_nobody_out():
    """Behind one who waits for many places wait others who need few: they come in when he goes."""
    room = FairSemaphore(2)
    Deferred.fromCoroutine(room.acquire(1))
    many = Deferred.fromCoroutine(room.acquire(2))
    few = Deferred.fromCoroutine(room.acquire(1))
    many.addErrback(lambda _: None)

    many.cancel()

    assert few.called


def test_whoever_comes_in_after_waiting_takes_his_places():
    """Others wait until he leaves, and come in when there is room for all that they want."""
    room = FairSemaphore(2)
    Deferred.fromCoroutine(room.acquire(2))
    waiting = [Deferred.fromCoroutine(room.acquire(count)) for count in (1, 1, 1, 3)]
    room.release(2)
    first = [each.called for each in waiting]
    room.release(1)
    second = [each.called for each in waiting]
    room.release(1)
    third = [each.called for each in waiting]
    room.release(1)

    assert [True, True, False, False] == first
    assert [True, True, True, False] == second == third
    assert waiting[3].called
