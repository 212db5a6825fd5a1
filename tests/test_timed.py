"""When a move by the clock runs: `realize.moves.timed`."""

from __future__ import annotations

from collections import Counter

import pytest
from twisted.internet.task import Clock

from realize.errors import Busy, Conflict, ConnectionFailed, RealizeError, SourceChanged, Unsettled
from realize.moves.one_run import RunEnd
from realize.moves.state import Unfinished
from realize.moves.status import RunResult
from realize.moves.timed import Timed
from realize.schedule.when import Every, parse_when

LOST = ConnectionFailed("nas is away")


class Wall:
    """A wall clock and a reactor's clock that a test moves together, or apart."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.ahead = 1_000_000.0

    def now(self) -> float:
        """Seconds since the epoch."""
        return self.clock.seconds() + self.ahead


def ended(
    error: RealizeError | None = None,
    *,
    complete: bool = True,
    cut_short: bool = False,
    failed: tuple[tuple[bytes, RealizeError], ...] = (),
    left: tuple[int, int] = (0, 0),
) -> RunEnd:
    """How a run ended."""
    result = RunResult(run="1", began=1.0, ended=2.0)
    return RunEnd(result, error, complete and error is None, failed, Counter(), *left, cut_short)


def every_ten_minutes(
    wall: Wall,
    max_duration_s: float | None = None,
    last_due: float | None = None,
    unfinished: Unfinished | None = None,
) -> Timed:
    """A trigger for each ten minutes."""
    every = Every(600.0)
    return Timed(wall.clock, every, wall.now, ["/a"], max_duration_s, last_due=last_due, unfinished=unfinished)


def test_the_first_run_of_an_interval_is_at_once() -> None:
    """And the next one an interval after its start, however long it took."""
    wall = Wall()
    timed = every_ten_minutes(wall)
    first = timed.wait_s(0.0)
    timed.begin()
    wall.clock.advance(100.0)
    timed.ended(ended())

    assert 0.0 == first
    assert 500.0 == timed.wait_s(0.0)


def test_what_was_missed_is_caught_up_once() -> None:
    """Whether the daemon did not run, or the machine slept for hours."""
    wall = Wall()
    after_restart = every_ten_minutes(wall, last_due=wall.now() - 5_000.0)
    asleep = every_ten_minutes(wall, last_due=wall.now())
    wall.ahead += 5_000.0

    for timed in (after_restart, asleep):
        wait = timed.wait_s(0.0)
        timed.begin()
        timed.ended(ended())
        assert wait is not None
        assert wait <= 0.0
        assert 600.0 == timed.wait_s(0.0)


@pytest.mark.parametrize("text", ["every 10m", "*:0/10"])
@pytest.mark.parametrize("ran", [True, False])
def test_a_clock_that_is_set_back_stops_nothing(text: str, ran: bool) -> None:
    """By ten days, before or after the daemon started: it runs at its times by the clock as it is now."""
    wall = Wall()
    last_due = wall.now() if ran else None
    timed = Timed(wall.clock, parse_when(text), wall.now, ["/a"], None, jitter_s=5.0, last_due=last_due)
    wall.ahead -= 10 * 86_400.0
    runs = 0
    for _ in range(3_600):
        wall.clock.advance(1.0)
        wait = timed.wait_s(0.0)
        assert wait is not None
        if wait <= 0.0:
            timed.begin()
            timed.ended(ended())
            runs += 1

    assert 5 <= runs <= 7


def test_a_clock_that_is_corrected_brings_no_time_twice() -> None:
    """As a time server does: a second or two, just after a run."""
    wall = Wall()
    timed = Timed(wall.clock, parse_when("*:0/10"), wall.now, ["/a"], None, last_due=wall.now())
    wall.clock.advance(wait := timed.wait_s(0.0) or 0.0)
    timed.begin()
    timed.ended(ended())
    wall.ahead -= 2.0

    assert wait > 0.0
    assert 602.0 == timed.wait_s(0.0)


def test_trouble_is_tried_again_after_its_delay() -> None:
    """Not only at the next occasion; and that comes in time, whatever the delay."""
    wall = Wall()
    timed = every_ten_minutes(wall)
    timed.begin()
    timed.ended(ended(LOST))
    again = timed.wait_s(30.0)
    wall.clock.advance(595.0)

    assert 30.0 == again
    assert 5.0 == timed.wait_s(300.0)


def test_trouble_is_not_tried_again_once_the_time_limit_of_the_occasion_is_over() -> None:
    """What may run for two minutes at night must not come back by day; each attempt has what is left of the time."""
    wall = Wall()
    timed = every_ten_minutes(wall, max_duration_s=120.0)
    first = timed.begin()
    wall.clock.advance(50.0)
    timed.ended(ended(LOST))
    in_time, too_late = timed.wait_s(60.0), timed.wait_s(80.0)
    wall.clock.advance(60.0)
    second = timed.begin()

    assert (60.0, 550.0) == (in_time, too_late)
    assert (120.0, 10.0) == (first.remaining_s, second.remaining_s)


@pytest.mark.parametrize("text", ["every 10m", "*:0/10"])
@pytest.mark.parametrize("end", [ended(LOST), ended(complete=False, cut_short=True)], ids=["trouble", "cut short"])
def test_an_occasion_that_was_not_done_goes_on_after_a_restart(text: str, end: RunEnd) -> None:
    """And so it does after a reload or a pause: what should move at night must not wait for the next one."""
    wall = Wall()
    before = Timed(wall.clock, parse_when(text), wall.now, ["/a"], None)
    wall.clock.advance(before.wait_s(0.0) or 0.0)
    before.begin()
    wall.clock.advance(10.0)
    before.ended(end)
    after = Timed(
        wall.clock, parse_when(text), wall.now, ["/a"], None, last_due=before.last_due, unfinished=before.unfinished
    )

    assert (0.0, 0.0) == (before.wait_s(0.0), after.wait_s(0.0))
    after.begin()
    after.ended(ended())
    assert before.last_due == after.last_due
    assert after.unfinished is None
    assert 590.0 == after.wait_s(0.0)


@pytest.mark.parametrize("later_s", [60.0, 150.0])
def test_the_time_limit_of_an_occasion_holds_over_a_restart(later_s: float) -> None:
    """What may run for two minutes at night must not come back by day, nor begin another two minutes."""
    wall = Wall()
    before = every_ten_minutes(wall, max_duration_s=120.0)
    before.begin()
    wall.clock.advance(50.0)
    before.ended(ended(complete=False, cut_short=True))
    unfinished = before.unfinished
    wall.clock.advance(later_s - 50.0)
    after = every_ten_minutes(wall, max_duration_s=120.0, last_due=before.last_due, unfinished=unfinished)

    if later_s < 120.0:
        assert 0.0 == after.wait_s(0.0)
        assert 120.0 - later_s == after.begin().remaining_s
    else:
        assert 600.0 - later_s == after.wait_s(0.0)
        assert before.unfinished is None


def test_what_a_clock_that_was_wrong_left_is_not_longer_than_the_time_limit() -> None:
    """The clock may have been years ahead when it was written."""
    wall = Wall()
    timed = every_ten_minutes(wall, max_duration_s=120.0, last_due=9e9, unfinished=Unfinished(until=9e9))

    assert 0.0 == timed.wait_s(0.0)
    assert 120.0 == timed.begin().remaining_s


def test_a_run_that_is_asked_for_begins_at_once() -> None:
    """It counts as the occasion."""
    wall = Wall()
    timed = every_ten_minutes(wall, last_due=wall.now())
    seen: list[float | None] = []
    timed.changed = lambda: seen.append(timed.wait_s(0.0))
    wall.clock.advance(100.0)
    timed.asked()
    timed.begin()

    assert [0.0] == seen
    assert wall.now() == timed.last_due
    assert 600.0 == timed.wait_s(0.0)


def test_files_that_fail_are_known_since_their_first_failure() -> None:
    """Until a run comes to its end without it; one that ends early before that tells nothing of them."""
    wall = Wall()
    timed = every_ten_minutes(wall)
    conflict = Conflict("there is another one")
    timed.ended(ended(failed=((b"a", conflict),), left=(2, 20)))
    timed.ended(ended(failed=((b"a", conflict),)))
    [failure] = timed.failures
    timed.ended(ended(complete=False))
    still = timed.failed_files
    timed.ended(ended())

    assert ("/a", b"a", 2, "conflict", "a: there is another one") == (
        failure.source,
        failure.path,
        failure.attempts,
        failure.code,
        failure.error,
    )
    assert (1, 0) == (still, timed.failed_files)


def test_files_that_others_use_are_told_from_other_failures() -> None:
    """After a restart too."""
    wall = Wall()
    timed = every_ten_minutes(wall)
    busy = (b"a", SourceChanged("a: is open")), (b"b", Unsettled("b: changed")), (b"c", Busy("c: is written"))
    timed.ended(ended(failed=(*busy, (b"d", Conflict("d: another one")))))
    after = Timed(wall.clock, Every(600.0), wall.now, ["/a"], None, failures=timed.failures)

    assert [(4, 3)] * 2 == [(each.failed_files, each.busy_files) for each in (timed, after)]


def test_the_backlog_is_what_the_last_run_left() -> None:
    """Files that failed, and those that it did not come to."""
    timed = every_ten_minutes(Wall())
    timed.ended(ended(failed=((b"a", Conflict("x")),), complete=False, left=(2, 20)))

    assert (3, 20, 1.0) == (timed.backlog.files, timed.backlog.size, timed.backlog.oldest)
