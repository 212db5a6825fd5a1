"""Following timetables of rates by the clock on the wall."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from realize.schedule.timetable import parse_timetable
from realize.throttle.timetables import MAX_LOOK_INTERVAL_S, Timetables
from tests.walls import Wall

DAY = parse_timetable("08:00,1M 18:00,3M 23:00,unlimited")
M = 1 << 20


class Following:
    """Timetables with their clocks, and what they told."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.wall = Wall(self.clock, "07:00:00")
        self.told: list[tuple[str, int | None, int | None]] = []
        self.timetables = Timetables[str](self.clock, lambda *told: self.told.append(told), self.wall)

    @property
    def wakes_in(self) -> list[float]:
        """In how many seconds each timer fires."""
        return [call.getTime() - self.clock.seconds() for call in self.clock.getDelayedCalls()]


@pytest.fixture
def following() -> Following:
    """Nothing is followed yet."""
    return Following()


def test_without_timetables_nothing_wakes(following: Following) -> None:
    """Nor once none is left."""
    assert [] == following.wakes_in

    following.timetables.follow("a", DAY)
    following.timetables.forget("a")
    following.timetables.forget("never known")

    assert [] == following.wakes_in


def test_the_rate_at_the_beginning_is_the_answer(following: Following) -> None:
    """And is not told."""
    assert following.timetables.follow("a", DAY) is None
    following.wall.show("12:00")
    assert M == following.timetables.follow("b", DAY)

    assert [] == following.told


def test_it_wakes_once_a_minute_and_at_the_change(following: Following) -> None:
    """The change is told at its moment."""
    following.timetables.follow("a", DAY)
    assert [MAX_LOOK_INTERVAL_S] == following.wakes_in

    following.clock.pump([60.0] * 59)
    assert [60.0] == pytest.approx(following.wakes_in)
    following.wall.show("07:59:30")
    following.clock.advance(60.0)
    following.clock.pump([60.0] * 600)

    assert [("a", None, M), ("a", M, 3 * M)] == following.told


@pytest.mark.parametrize("shown", ["08:00", "12:00", "17:59:58"])
def test_a_clock_that_was_set_is_noticed_within_a_minute(following: Following, shown: str) -> None:
    """So is a machine that has slept: it finds another time when it goes on."""
    following.timetables.follow("a", DAY)
    following.clock.advance(59.0)
    following.wall.show(shown)
    following.clock.advance(1.0)

    assert [("a", None, M)] == following.told


def test_a_clock_that_was_set_back_is_noticed_too(following: Following) -> None:
    """What holds is what the timetable says for the time that is shown."""
    following.wall.show("12:00")
    following.timetables.follow("a", DAY)
    following.wall.show("07:00")
    following.clock.advance(60.0)
    following.wall.show("12:00")
    following.clock.advance(60.0)

    assert [("a", M, None), ("a", None, M)] == following.told


def test_a_timer_that_fires_early_waits_a_little_more(following: Following) -> None:
    """The clock on the wall may go a little slower than that of the timers; then nothing spins."""
    following.wall.show("07:59:59")
    following.timetables.follow("a", DAY)
    following.wall.show("07:59:58.9999")
    following.clock.advance(1.0)
    assert ([], 1) == (following.told, len(following.wakes_in))
    assert 0.0009 < following.wakes_in[0] < 0.0011

    following.clock.advance(0.0011)

    assert [("a", None, M)] == following.told


def test_many_keys_need_one_timer(following: Following) -> None:
    """All are told at their own times, with one timetable or several."""
    other = parse_timetable("07:30,5 08:00,6")
    for key, timetable in (("a", DAY), ("b", DAY), ("c", other)):
        following.timetables.follow(key, timetable)
    assert 1 == len(following.wakes_in)

    following.clock.pump([60.0] * 61)

    assert [("c", 6, 5), ("a", None, M), ("b", None, M), ("c", 5, 6)] == following.told


def test_who_is_told_may_change_what_is_followed() -> None:
    """What is forgotten, or follows another timetable, is not told of the change of before."""
    clock = Clock()
    wall = Wall(clock, "07:59:59")
    told: list[str] = []

    def changed(key: str, _former: int | None, _rate: int | None) -> None:
        told.append(key)
        timetables.forget("b")
        timetables.follow("c", parse_timetable("00:00,5"))
        timetables.follow("d", DAY)

    timetables = Timetables[str](clock, changed, wall)
    for key in "abc":
        timetables.follow(key, DAY)
    clock.advance(1.0)

    assert ["a"] == told
    clock.advance(60.0)
    assert ["a"] == told
    timetables.close()


def test_who_fails_when_told_stops_nobody(following: Following) -> None:
    """The next look is due all the same."""

    def fail(*_told: object) -> None:
        raise ZeroDivisionError

    timetables = Timetables[str](following.clock, fail, following.wall)
    following.wall.show("07:59:59")
    timetables.follow("a", DAY)

    with pytest.raises(ZeroDivisionError):
        following.clock.advance(1.0)

    assert [MAX_LOOK_INTERVAL_S] == following.wakes_in


def test_closing_is_for_good(following: Following) -> None:
    """Nothing is told any more, and no timer set."""
    following.timetables.follow("a", DAY)
    following.timetables.close()
    following.timetables.follow("b", DAY)
    following.clock.advance(86_400.0)

    assert ([], []) == (following.told, following.wakes_in)
