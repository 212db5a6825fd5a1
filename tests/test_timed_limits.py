"""Limits that are set for good or for a time."""

import pytest
from twisted.internet.task import Clock

from realize.errors import UsageError
from realize.schedule.timetable import parse_timetable
from realize.throttle.timed_limits import Cause, TimedLimits
from tests.walls import Wall

DAY = "08:00,1M 18:00,3M 23:00,unlimited"
M = 1 << 20


class Limits:
    """Limits with their clocks, and what they told of changes by themselves."""

    def __init__(self):
        self.clock = Clock()
        self.wall = Wall(self.clock, "07:59:50")
        self.returned = []
        self.limits = TimedLimits(self.clock, lambda *told: self.returned.append(told), self.wall)
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

    assert (lasting, None, [("a", 7, lasting, Cause.TIME)]) == (limits.rate("a"), limits.lasts("a"), limits.returned)
    assert ([] if lasting is None else ["a"]) == list(limits.limits)


def test_none_for_a_time_is_remembered(limits):
    """The limit that it lifts comes back."""
    limits.set("a", 5)
    limits.set("a", None, 10.0)
    assert (None, ["a"]) == (limits.rate("a"), list(limits.limits))

    limits.clock.advance(10.0)

    assert (5, [("a", None, 5, Cause.TIME)]) == (limits.rate("a"), limits.returned)


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


def test_a_timetable_is_obeyed_at_its_times(limits):
    """To the moment, and what it changes is told."""
    limits.set("a", parse_timetable(DAY))
    assert (None, None, []) == (limits.rate("a"), limits.lasts("a"), limits.returned)

    limits.clock.advance(9.99)
    assert limits.rate("a") is None
    limits.clock.advance(0.02)

    assert (M, [("a", None, M, Cause.TIMETABLE)]) == (limits.rate("a"), limits.returned)


def test_a_limit_for_a_time_outranks_the_timetable(limits):
    """It holds over a change, and then what the timetable says at its end does."""
    limits.set("a", parse_timetable(DAY))
    limits.set("a", 7, 3_600.0)
    limits.clock.pump([10.0] * 359)
    assert (7, []) == (limits.rate("a"), limits.returned)

    limits.clock.advance(10.0)

    assert (M, [("a", 7, M, Cause.TIME)]) == (limits.rate("a"), limits.returned)
    limits.clock.pump([60.0] * 10 * 60)
    assert 3 * M == limits.rate("a")


def test_a_limit_for_good_outranks_the_timetable_for_good(limits):
    """Nothing of it is left, nor its timer."""
    limits.set("a", parse_timetable(DAY))
    limits.set("a", 7)
    limits.clock.advance(86_400.0)

    assert (7, None, [], []) == (
        limits.rate("a"),
        limits.limits.timetable("a"),
        limits.returned,
        limits.clock.getDelayedCalls(),
    )


def test_a_timetable_is_not_for_a_time(limits):
    """That would be two times in one; and nothing changes."""
    with pytest.raises(UsageError, match="is one rate, not a timetable"):
        limits.set("a", parse_timetable(DAY), 10.0)

    assert [] == list(limits.limits)


def test_what_is_set_behind_a_limit_for_a_time_waits_for_its_end(limits):
    """Be it a rate, a timetable, or no limit; without such a limit it holds at once."""
    for key, lasting in (("a", 5), ("b", parse_timetable(DAY)), ("c", None)):
        limits.set(key, 9)
        limits.set(key, 7, 60.0)
        limits.limits.set_lasting(key, lasting)
    limits.limits.set_lasting("d", 4)
    assert (7, 7, 7, 4) == tuple(map(limits.rate, "abcd"))

    limits.clock.pump([1.0] * 60)

    assert (5, M, None, 4) == tuple(map(limits.rate, "abcd"))


def test_the_next_change_is_known(limits):
    """By the timetable, and by the end of a limit for a time, whichever comes first and changes anything."""
    following = limits.limits.next_change
    limits.set("plain", 5)
    limits.set("daily", parse_timetable(DAY))
    assert (None, None) == (following("plain"), following("unknown"))
    assert (10.0, M) == following("daily")

    limits.set("daily", M, 5_000.0)
    assert (10.0 + 10 * 3_600, 3 * M) == following("daily")
    limits.set("daily", 7, 5.0)
    assert (5.0, None) == following("daily")
    limits.set("plain", 6, 20.0)
    assert (20.0, 5) == following("plain")


def test_of_two_limits_the_next_change_is_that_of_the_lower_one(limits):
    """What changes without binding is no change."""
    limits.set("low", 2 * M)
    limits.set("daily", parse_timetable(DAY))

    assert (10.0, M) == limits.limits.next_change("low", "daily")
    limits.clock.pump([10.0, 1.0])
    assert (10 * 3_600 - 1.0, 2 * M) == limits.limits.next_change("low", "daily")
    limits.set("low", M // 2)
    assert None is limits.limits.next_change("low", "daily")


def test_forgetting_and_closing_end_timetables(limits):
    """No timer is left, and rates stay as they are."""
    limits.set("a", parse_timetable(DAY))
    limits.set("b", parse_timetable(DAY))
    limits.limits.forget("a")
    limits.limits.close()
    limits.set("c", parse_timetable("07:00,5"))

    assert ([], [None, None, 5]) == (limits.clock.getDelayedCalls(), list(map(limits.rate, "abc")))
