"""How long the command waits before it comes back."""

from hypothesis import given
from hypothesis import strategies as st

from realize.mover.stop_flag import StopFlag
from realize.runs.reconnecting import FIRST_DELAY_S, JITTER_FRACTION, MAX_DELAY_S, Backoff


def test_delays_double_up_to_five_minutes():
    """Half a second, one, two, ... five minutes, and no more."""
    backoff = Backoff(lambda: 0.0)

    assert [0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] == [backoff.next() for _ in range(12)]


def test_progress_begins_anew():
    """After an attempt that got somewhere, the next delay is the first one again."""
    backoff = Backoff(lambda: 0.0)
    for _ in range(5):
        backoff.next()

    backoff.reset()

    assert FIRST_DELAY_S == backoff.next()


@given(st.integers(0, 100_000), st.floats(0, 1))
def test_delays_stay_in_bounds(attempts, chance):
    """However often it was tried, and whatever chance says."""
    delay = Backoff(lambda: chance, attempts).next()

    assert FIRST_DELAY_S * (1 - JITTER_FRACTION) <= delay <= MAX_DELAY_S


def test_a_stop_flag_tells_whether_it_took_effect():
    """Only if something wanted to start after the request."""
    stop_flag = StopFlag()
    before = (stop_flag.should_stop(), stop_flag.took_effect)
    stop_flag.request()
    idle = stop_flag.took_effect

    assert ((False, False), False) == (before, idle)
    assert (True, True) == (stop_flag.should_stop(), stop_flag.took_effect)
