"""How what many machines do at one time is spread."""

from __future__ import annotations

from realize.schedule.jitter import jitter


def test_a_machine_has_the_same_delay_each_time() -> None:
    """For one move; another move of the machine, and the same move of another machine, have others."""
    delay = jitter("camera", b"one machine", 60.0)

    assert delay == jitter("camera", b"one machine", 60.0)
    assert len({delay, jitter("door", b"one machine", 60.0), jitter("camera", b"another machine", 60.0)}) == 3


def test_a_hundred_machines_are_spread_over_the_time() -> None:
    """From none to all of it, about as many in each tenth."""
    delays = [jitter("camera", b"machine %d" % number, 60.0) for number in range(1_000)]

    assert all(0 <= each < 60.0 for each in delays)
    tenths = [sum(number * 6 <= each < number * 6 + 6 for each in delays) for number in range(10)]
    assert all(60 < count < 140 for count in tenths), tenths


def test_no_time_to_spread_over_is_no_delay() -> None:
    """And any name and seed will do, also long ones."""
    assert 0.0 == jitter("camera", b"", 0.0)
    assert 0.0 <= jitter("\udcff" * 1_000, b"s" * 1_000, 1e-9) < 1e-9
