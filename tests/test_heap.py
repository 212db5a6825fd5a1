"""What is free goes back to the system."""

from __future__ import annotations

import ctypes
import gc

import pytest
from twisted.internet.task import Clock

from realize.daemon import heap
from realize.daemon.heap import HEAP_CHECK_INTERVAL_S, MIN_GROWTH_BYTES, Heap
from realize.process import bound_heaps


class Process:
    """A process that is as large as the test says, and smaller when free memory was given back."""

    def __init__(self):
        self.size = 0
        self.free = 0
        self.held = 0
        self.trims = 0
        self.clock = Clock()
        self.heap = Heap(self.clock, lambda: self.held, self.trim, lambda: self.size)

    def trim(self):
        self.trims += 1
        self.size -= self.free
        self.free = 0

    def grow(self, size, *, free):
        self.size += size
        self.free += free


@pytest.fixture(autouse=True)
def frozen(monkeypatch):
    """How often objects were frozen; those of the tests stay garbage that can be found."""
    calls = []
    monkeypatch.setattr(gc, "freeze", lambda: calls.append(None))
    return calls


@pytest.fixture
def process():
    """A small one, of which nothing is free."""
    made = Process()
    made.grow(MIN_GROWTH_BYTES, free=0)
    made.heap.start()
    yield made
    made.heap.stop()
    assert [] == made.clock.getDelayedCalls()


def test_what_was_loaded_before_the_start_is_no_garbage(frozen):
    """Not to look at it makes a collection much shorter, also where the C library keeps nothing."""
    made = Heap(Clock(), lambda: 0, None)
    before = len(frozen)
    made.start()
    made.stop()

    assert (0, 1) == (before, len(frozen))


def test_nothing_is_done_while_the_process_is_small(process):
    """It would cost milliseconds for nothing."""
    process.grow(MIN_GROWTH_BYTES - 1, free=MIN_GROWTH_BYTES - 1)
    process.clock.advance(HEAP_CHECK_INTERVAL_S)

    assert 0 == process.trims


def test_what_is_free_is_given_back_soon(process):
    """And again when there is more."""
    for _ in range(2):
        process.grow(10 * MIN_GROWTH_BYTES, free=10 * MIN_GROWTH_BYTES)
        process.clock.advance(HEAP_CHECK_INTERVAL_S)

    assert (MIN_GROWTH_BYTES, 2) == (process.size, process.trims)


def test_what_is_needed_for_good_is_not_looked_at_for_ever(process):
    """Ever more rarely, when nobody is served, and it is still there."""
    process.grow(10 * MIN_GROWTH_BYTES, free=0)
    trims = []
    for _ in range(300):
        process.clock.advance(HEAP_CHECK_INTERVAL_S)
        trims.append(process.trims)

    assert [1, 1, 2, 2, 2, 2, 3] == trims[:7]
    assert 9 == trims[-1]


def test_what_a_thread_lets_go_of_late_is_given_back_all_the_same(process):
    """It seemed to be needed for good; and what comes on top of it is given back at once."""
    process.grow(10 * MIN_GROWTH_BYTES, free=0)
    for _ in range(4):
        process.clock.advance(HEAP_CHECK_INTERVAL_S)
    process.free = 9 * MIN_GROWTH_BYTES
    for _ in range(8):
        process.clock.advance(HEAP_CHECK_INTERVAL_S)
    late = process.size
    process.grow(2 * MIN_GROWTH_BYTES, free=2 * MIN_GROWTH_BYTES)
    process.clock.advance(HEAP_CHECK_INTERVAL_S)

    assert (2 * MIN_GROWTH_BYTES, 2 * MIN_GROWTH_BYTES) == (late, process.size)


def test_what_becomes_free_a_little_later_is_given_back_too(process):
    """The connections of somebody who has left end one after the other."""
    process.grow(10 * MIN_GROWTH_BYTES, free=9 * MIN_GROWTH_BYTES)
    process.clock.advance(HEAP_CHECK_INTERVAL_S)
    process.free = MIN_GROWTH_BYTES - 1
    process.clock.advance(HEAP_CHECK_INTERVAL_S)

    assert MIN_GROWTH_BYTES + 1 == process.size


def test_what_was_held_is_given_back_when_it_has_become_free(process, monkeypatch):
    """While peers hold much, garbage is not collected for its sake."""
    collected = []
    monkeypatch.setattr(gc, "collect", lambda: collected.append(process.held))
    process.grow(10 * MIN_GROWTH_BYTES, free=0)
    process.held = 10 * MIN_GROWTH_BYTES
    process.clock.advance(HEAP_CHECK_INTERVAL_S)
    process.held, process.free = 0, 10 * MIN_GROWTH_BYTES
    process.clock.advance(HEAP_CHECK_INTERVAL_S)

    assert [0] == collected
    assert (MIN_GROWTH_BYTES, 2) == (process.size, process.trims)


def test_where_there_are_no_such_calls_nothing_is_watched(monkeypatch):
    """Another C library has neither, and no need of them."""
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    clock = Clock()
    Heap(clock, lambda: 0, bound_heaps()).start()

    assert [] == clock.getDelayedCalls()


def test_the_calls_are_there_on_this_system():
    """As far as its C library has them, they do no harm."""
    trim = bound_heaps()
    if trim is not None:
        trim()

    assert heap.resident() > 0
