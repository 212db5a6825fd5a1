"""`realize.throttle.backlog` and `realize.throttle.tls_records`: bytes that wait, and what they will cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realize.throttle.backlog import Backlog
from realize.throttle.tls_records import TLS_RECORD_BYTES, payload_that_fits, wire_size

WRITES = st.lists(
    st.binary(min_size=1, max_size=40) | st.integers(1, 70_000).map(lambda size: b"w" * size), max_size=20
)


@given(writes=WRITES, limits=st.lists(st.integers(1, 100_000), min_size=1))
def test_what_is_taken_is_what_was_put_in_order(writes, limits):
    """However it is cut: no piece is empty or longer than asked for, and ``size`` is what is left."""
    backlog, taken, turn = Backlog(), b"", 0
    for data in writes:
        backlog.put(data)
    while backlog.size:
        limit = limits[turn % len(limits)]
        piece = backlog.take(limit)
        assert 1 <= len(piece) <= limit
        taken, turn = taken + piece, turn + 1
        assert len(b"".join(writes)) - len(taken) == backlog.size

    assert b"".join(writes) == taken


@given(before=WRITES, after=WRITES, limits=st.lists(st.integers(1, 100_000), min_size=1))
def test_no_piece_crosses_a_cut(before, after, limits):
    """What was there when it was made is taken first, to the last byte; ``ahead`` is what is left of that."""
    backlog, taken, turn = Backlog(), b"", 0
    for data in before:
        backlog.put(data)
    backlog.cut()
    for data in after:
        backlog.put(data)
    ahead = len(b"".join(before))
    while backlog.size:
        assert max(0, ahead - len(taken)) == backlog.ahead
        piece = backlog.take(limits[turn % len(limits)])
        assert len(taken) >= ahead or len(taken) + len(piece) <= ahead
        taken, turn = taken + piece, turn + 1

    assert b"".join(before + after) == taken


def test_short_writes_are_joined():
    """So that many of them cost one record."""
    backlog = Backlog()
    for data in (b"ab", b"cd", b"ef"):
        backlog.put(data)

    assert b"abcde" == backlog.take(5)
    assert b"f" == backlog.take(5)


def test_a_long_write_is_passed_on_as_it_is():
    """What fills a record is neither copied nor joined to what follows."""
    backlog, long = Backlog(), b"l" * TLS_RECORD_BYTES
    backlog.put(long)
    backlog.put(b"short")

    assert long is backlog.take(TLS_RECORD_BYTES + 1)
    assert b"short" == backlog.take(TLS_RECORD_BYTES)


def test_a_cleared_backlog_starts_anew():
    """Also in the middle of a write."""
    backlog = Backlog()
    backlog.put(b"abcdef")
    backlog.cut()
    backlog.take(3)
    backlog.clear()
    backlog.put(b"xyz")

    assert (3, 0) == (backlog.size, backlog.ahead)
    assert b"xyz" == backlog.take(10)


@pytest.mark.parametrize(
    ("payload", "wire"), [(0, 0), (1, 23), (TLS_RECORD_BYTES, 16406), (TLS_RECORD_BYTES + 1, 16429)]
)
def test_each_record_begun_costs_its_overhead(payload, wire):
    """A record holds up to 16 KiB."""
    assert wire == wire_size(payload, 22)


@given(wire=st.integers(0, 1 << 40), overhead=st.sampled_from([0, 22]))
def test_what_fits_is_the_largest_write_that_does(wire, overhead):
    """One byte more would not fit."""
    payload = payload_that_fits(wire, overhead)

    assert wire_size(payload, overhead) <= wire < wire_size(payload + 1, overhead)
