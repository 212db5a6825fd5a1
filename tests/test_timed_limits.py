"""Limits that are set for good or for a time."""

import pytest
from twisted.internet.task import Clock

from realize.throttle.timed_limits import TimedLimits


class Limits:
    """Limits with their clock, and what they told of those whose time was over."""

    def __init__(self):
        self.clock = Clock()
        self.returned = []
        self.limits = TimedLimits(self.clock, lambda *told: self.returned.append(told))
        self.set, self.rate, self.lasts = self.limits.set, self.limits.rate, self.limits.lasts


@pytest.fixture
def limits():
    """No limit at first."""
    return Limits()


def test_what_was_never_set_is_no_limit(limits):
    """It has no time either."""
    assert (None, None, []) == (limits.rate("a"), limits.lasts("a"), list(limits.limits))


def test_one_for_good_stays(limits):
    """Until another one takes its place; no limit is one of them."""
    limits.set("a", 5)
    limits.set("b", 6)
    limits.set("b", None)
    limits.clock.advance(1e9)

    assert (5, None, None, ["a"], []) == (
        limits.rate("a"),
        limits.lasts("a"),
        limits.rate("b"),
        list(limits.limits),
        limits.returned,
    )


@pytest.mark.parametrize("lasting", [5, None])
def test_one_for_a_time_gives_way_to_the_last_for_good(limits, lasting):
    """Also to none, and also when it has taken the place of another one for a time, whose timer does nothing."""
    limits.set("a", lasting)
    limits.set("a", 9, 10.0)
    limits.clock.advance(4.0)
    limits.set("a", 7, 10.0)
    limits.clock.advance(9.0)
    assert (7, 1.0, []) == (limits.rate("a"), limits.lasts("a"), limits.returned)

    limits.clock.advance(1.0)

    assert (lasting, None, [("a", 7, lasting)]) == (limits.rate("a"), limits.lasts("a"), limits.returned)
    assert ([] if lasting is None else ["a"]) == list(limits.limits)


def test_none_for_a_time_is_remembered(limits):
    """The limit that it lifts comes back."""
    limits.set("a", 5)
    limits.set("a", None, 10.0)
    assert (None, ["a"]) == (limits.rate("a"), list(limits.limits))

    limits.clock.advance(10.0)

    assert (5, [("a", None, 5)]) == (limits.rate("a"), limits.returned)


def test_one_for_good_ends_one_for_a_time(limits):
    """Nothing returns then."""
    limits.set("a", 5)
    limits.set("a", 9, 10.0)
    limits.set("a", 6)

    assert (6, None, []) == (limits.rate("a"), limits.lasts("a"), limits.clock.getDelayedCalls())


def test_what_is_forgotten_returns_no_more(limits):
    """Neither its limit nor its timer is left; to forget what was never set is harmless."""
    limits.set("a", 9, 10.0)
    limits.limits.forget("a")
    limits.limits.forget("b")

    assert (None, []) == (limits.rate("a"), limits.clock.getDelayedCalls())


def test_closing_stops_the_timers(limits):
    """Limits stay as they are, and closing again is harmless."""
    limits.set("a", 9, 10.0)
    limits.limits.close()
    limits.limits.close()

    assert (9, None, []) == (limits.rate("a"), limits.lasts("a"), limits.clock.getDelayedCalls())
