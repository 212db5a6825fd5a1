"""Room that was promised to files that are being written: `realize.store.ledger`."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from realize.store.ledger import GROWTH, POLL, STALLED, Crowded, Ledger


@pytest.fixture
def clock():
    """Time, by hand."""
    return Clock()


@pytest.fixture
def disk(clock):
    """A file system."""
    return Ledger(clock).on(1)


def crowded(disk, size, free, *, on_disk=0):
    """Why there is no room for a file now."""
    with pytest.raises(Crowded) as raised:
        disk.promise(size, on_disk, 0, lambda: free)
    return raised.value


def test_a_file_system_has_one_ledger_whatever_asks():
    """By its device."""
    ledger = Ledger(Clock())

    assert ledger.on(1) is ledger.on(1) is not ledger.on(2)


def test_what_others_still_need_is_not_free(disk):
    """What they have written is not free any more anyhow."""
    first = disk.promise(100, 0, 0, lambda: 100)
    assert 0 == crowded(disk, 1, 100).free
    first.reached(60)

    assert [40, 40] == [first.left, disk.promise(40, 0, 0, lambda: 80).left]


def test_a_file_that_has_grown_beyond_its_size_needs_nothing(disk):
    """Nor does it make room for others."""
    first = disk.promise(100, 0, 0, lambda: 100)
    first.reached(101)

    assert 0 == first.left
    assert 10 == disk.promise(10, 0, 0, lambda: 10).left
    crowded(disk, 1, 10)


@pytest.mark.parametrize(("size", "waits"), [(150, True), (151, False)])
def test_it_is_worth_waiting_for_others_if_there_is_room_without_them(disk, size, waits):
    """What they have written, and what they replace, becomes free if they fail, or when they end."""
    disk.promise(100, 30, 20, lambda: 100)

    assert waits is crowded(disk, size, 100).waits
    assert not crowded(Ledger(Clock()).on(2), 1, 0).waits


def test_whoever_waits_is_told_of_a_change_that_he_has_not_seen(disk, clock):
    """One that came between his look and his waiting counts, too; at the latest he looks again after a while."""
    promise = disk.promise(100, 0, 0, lambda: 100)
    refused = crowded(disk, 10, 100)
    told = []
    promise.release()
    disk.changed()
    disk.change(refused.seen).addCallback(told.append)
    missed = list(told)
    disk.change(disk.seen).addCallback(told.append)
    waiting = list(told)
    clock.advance(POLL)

    assert ([None], [None], [None, None]) == (missed, waiting, told)
    assert [] == clock.getDelayedCalls()


def test_whoever_waits_no_more_leaves_nothing(disk, clock):
    """Neither a timer nor a place in the line."""
    waiting = disk.change(disk.seen)
    other = disk.change(disk.seen)
    waiting.addErrback(lambda _: None).cancel()
    polled = len(clock.getDelayedCalls())
    other.addErrback(lambda _: None).cancel()

    assert (1, 0) == (polled, len(clock.getDelayedCalls()))


def test_nothing_is_kept_for_a_file_that_does_not_grow(disk, clock):
    """Somebody has announced it and does not send it; when it grows again, it counts again."""
    idle = disk.promise(10 * GROWTH, 0, 0, lambda: 10 * GROWTH)
    clock.advance(STALLED)
    before = idle.stalled, disk.busy
    clock.advance(1)
    stalled = idle.stalled, disk.busy
    idle.reached(GROWTH)

    assert ((False, True), (True, False), False) == (before, stalled, idle.stalled)
