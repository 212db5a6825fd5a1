"""Timers of very many connections, which are served together."""

import pytest
from twisted.internet.task import Clock

from realize.wire import coarse_timers
from realize.wire.coarse_timers import MAX_SERVING_S, CoarseTimers
from tests.faults import Quiet


@pytest.fixture
def clock():
    """A clock at no whole second, on which no timer is left in the end."""
    clock = Clock()
    clock.advance(100.25)
    yield clock
    assert [] == clock.getDelayedCalls()


def test_calls_of_the_same_second_are_made_together_in_order_with_one_timer(clock):
    """None comes early, and none a second late."""
    timers, made = CoarseTimers(clock), []
    for delay in (15.0, 14.9, 15.7, 16.0):
        timers.callLater(delay, lambda delay=delay: made.append((delay, clock.seconds())))
    pending = len(clock.getDelayedCalls())
    clock.pump([0.25] * 80)

    assert 1 == pending
    assert [(15.0, 116.0), (14.9, 116.0), (15.7, 116.0), (16.0, 117.0)] == made


def test_an_earlier_call_is_not_held_up_by_a_later_one(clock):
    """The timer follows the earliest."""
    timers, made = CoarseTimers(clock), []
    timers.callLater(30, lambda: made.append("late"))
    timers.callLater(1, lambda: made.append("soon"))
    clock.advance(1.75)
    soon = list(made)
    clock.advance(29)

    assert (["soon"], ["soon", "late"]) == (soon, made)


def test_a_call_that_is_cancelled_is_not_made(clock):
    """Not even if another one of the same moment cancels it; to cancel one that was made does nothing."""
    timers, made, doomed = CoarseTimers(clock), [], []
    first = timers.callLater(1, lambda: [each.cancel() for each in doomed])
    doomed.append(timers.callLater(1, lambda: made.append("second")))
    timers.callLater(5, lambda: made.append("third")).cancel()
    clock.advance(10)
    first.cancel()

    assert [] == made


def test_a_call_may_make_another_one(clock):
    """One that is due at once comes with the next second at the latest, and the clock is not asked in between."""
    timers, made = CoarseTimers(clock), []
    timers.callLater(1, lambda: timers.callLater(0, lambda: made.append(clock.seconds())))
    clock.advance(1.75)
    clock.pump([0.5] * 4)

    assert [102.0] == made


def test_a_call_that_fails_does_not_keep_others_from_being_made(clock, monkeypatch):
    """Its error is logged."""
    logged = []
    monkeypatch.setattr(coarse_timers, "_log", Quiet(logged))
    timers, made = CoarseTimers(clock), []
    timers.callLater(1, lambda: 1 / 0)
    timers.callLater(1, lambda: made.append("next"))
    clock.advance(2)

    assert ["next"] == made
    assert [ZeroDivisionError] == logged


def test_want_of_memory_does_not_stop_the_timer(clock, monkeypatch):
    """All connections of a daemon hang on it; what was not served is served next, with what comes later."""

    def no_memory(*_):
        raise MemoryError

    timers, made = CoarseTimers(clock), []
    for delay in (1, 1, 5):
        timers.callLater(delay, lambda delay=delay: made.append(delay))
    with monkeypatch.context() as patch:
        patch.setattr(coarse_timers, "next", no_memory, raising=False)
        with pytest.raises(MemoryError):
            clock.advance(2)
    clock.pump([1.0] * 5)
    timers.callLater(1, lambda: made.append("new"))
    clock.advance(2)

    assert [1, 1, 5, "new"] == made


def test_very_many_calls_of_one_second_leave_others_their_turns(clock):
    """A thousand peers that connected at once are due at once; each call is made once, and none much later."""
    timers, made = CoarseTimers(clock), []

    def take_time():
        clock.rightNow += MAX_SERVING_S / 4
        made.append(clock.seconds())

    for _ in range(12):
        timers.callLater(1, take_time)
    clock.callLater(1.75, made.append, "another")
    clock.advance(1.75)

    assert (13, 5) == (len(made), made.index("another"))
