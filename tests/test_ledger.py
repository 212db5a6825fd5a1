"""Room that was promised to files that are being written: `realize.store.local.promised_space`."""

from __future__ import annotations

import threading

import pytest
from twisted.internet.task import Clock

from realize.store.local import promised_space as ledger_module
from realize.store.local.promised_space import (
    LEDGER_POLL_S,
    METADATA_BYTES,
    STALLED_AFTER_S,
    Crowded,
    FileSystem,
    Ledger,
)


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


class Meanwhile:
    """Another thread: it has all the time that it can use before this one goes on, and ends behind it."""

    def __init__(self, work):
        self.results = []
        self._thread = threading.Thread(target=lambda: self.results.append(work()))

    def begin(self):
        """Let it come as far as it can."""
        self._thread.start()
        self._thread.join(0.05)

    def end(self):
        """What it has come to."""
        self._thread.join()
        return self.results[0]


def test_two_threads_find_the_same_file_system(monkeypatch):
    """Also when both are the first."""
    ledger, others = Ledger(Clock()), []

    def make(*arguments):
        if not others:
            others.append(Meanwhile(lambda: ledger.on(1)))
            others[0].begin()
        return FileSystem(*arguments)

    monkeypatch.setattr(ledger_module, "FileSystem", make)
    found = ledger.on(1)

    assert found is others[0].end()


def test_two_threads_are_not_promised_the_same_room(disk):
    """What one of them has measured is not what the other one finds."""

    def other():
        try:
            return disk.promise(60, 0, 0, lambda: 100)
        except Crowded as crowded:
            return crowded

    meanwhile = Meanwhile(other)
    first = disk.promise(60, 0, 0, lambda: meanwhile.begin() or 100)

    assert isinstance(meanwhile.end(), Crowded)
    assert {first} == disk.promises


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
    clock.advance(LEDGER_POLL_S)

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


@pytest.mark.parametrize(
    ("reached", "stalled"),
    [
        (2 * METADATA_BYTES + 1, True),
        (3 * METADATA_BYTES - 1, True),
        (3 * METADATA_BYTES, False),
        (METADATA_BYTES, False),
    ],
)
def test_it_is_what_a_file_has_gained_that_counts(disk, clock, reached, stalled):
    """Not what it had; one that is begun anew is being written, too."""
    promise = disk.promise(10 * METADATA_BYTES, 2 * METADATA_BYTES, 0, lambda: 10 * METADATA_BYTES)
    clock.advance(STALLED_AFTER_S + 1)
    promise.reached(reached)

    assert stalled is promise.stalled


def test_nothing_is_kept_for_a_file_that_does_not_grow(disk, clock):
    """Somebody has announced it and does not send it; when it grows again, it counts again."""
    idle = disk.promise(10 * METADATA_BYTES, 0, 0, lambda: 10 * METADATA_BYTES)
    clock.advance(STALLED_AFTER_S)
    before = idle.stalled, disk.busy
    clock.advance(1)
    stalled = idle.stalled, disk.busy
    idle.reached(METADATA_BYTES)

    assert ((False, True), (True, False), False) == (before, stalled, idle.stalled)
