"""What stamps say although the clock that makes them is set."""

from __future__ import annotations

import os
import time

import pytest
from twisted.internet.threads import deferToThread

from realize.fs.stamps import MAX_CLOCK_CHANGES, Present, Stamps, read_clocks
from realize.store.local import group_commit
from realize.store.local.expiry import expire_partials
from realize.store.local.group_commit import Committer
from realize.store.local.store import LocalStore
from realize.values import Attributes, Expected, OnConflict
from tests.leftovers import leave_partial
from tests.store_helpers import digest, small_file

SECOND = 10**9
HOUR = 3600 * SECOND
YEAR = 365 * 24 * HOUR


class Clocks:
    """Two clocks that go as one says, or as the kernel's do; one of them can be set."""

    def __init__(self, *, real=False):
        self.passed_ns = 0
        self.ahead_ns = 0 if real else 1000 * HOUR
        self._real = real

    def read(self):
        """See `read_clocks`."""
        monotonic, wall = read_clocks() if self._real else (0, 0)
        return monotonic + self.passed_ns, wall + self.passed_ns + self.ahead_ns

    def stamp(self):
        """What a file would be stamped with now."""
        return self.read()[1]


@pytest.fixture
def clocks():
    """Clocks that stand still."""
    return Clocks()


@pytest.fixture
def stamps(clocks):
    """What is known of them."""
    return Stamps(clocks.read)


def test_the_clocks_of_the_kernel_are_read_together():
    """Their difference is the same each time, as nobody sets the clock now."""
    assert 1 == len({wall - monotonic for monotonic, wall in (read_clocks() for _ in range(1000))})


def test_what_is_stamped_later_has_no_earlier_stamp(clocks, stamps):
    """While nobody sets the clock, it is as with any clock."""
    began = stamps.note()
    first = clocks.stamp()
    clocks.passed_ns += SECOND

    assert first == stamps.earliest_since(began)
    assert first + SECOND == stamps.earliest_since(began + SECOND)


def test_a_clock_that_was_set_back_is_reckoned_with(clocks, stamps):
    """What is stamped after that counts as later than what was before, also when the clock has been set right again."""
    began = stamps.note()
    clocks.passed_ns += SECOND
    clocks.ahead_ns -= HOUR
    stamped = clocks.stamp()

    assert stamped >= stamps.earliest_since(began)
    clocks.ahead_ns += HOUR
    assert stamped >= stamps.earliest_since(began)


def test_what_the_clock_was_before_the_beginning_is_nothing_to_it(clocks, stamps):
    """A machine that started in 1970 and was set right replaces files as any other one does."""
    stamps.note()
    clocks.ahead_ns += 50 * YEAR
    stamps.note()
    old = clocks.stamp()
    clocks.passed_ns += SECOND
    began = stamps.note()
    clocks.passed_ns += SECOND
    clocks.ahead_ns -= HOUR
    stamps.note()

    assert clocks.stamp() - SECOND == stamps.earliest_since(began)
    assert old < clocks.stamp() + HOUR == stamps.earliest_since(began) + SECOND + HOUR


def test_a_clock_that_is_set_forward_in_between_may_have_been_so_just_now(clocks, stamps):
    """Nobody knows when between two readings the clock was set; the care is for the side of files that look older."""
    clocks.passed_ns += SECOND
    stamped = clocks.stamp()
    clocks.ahead_ns += HOUR
    stamps.note()

    assert stamped >= stamps.earliest_since(clocks.passed_ns - SECOND // 2)


def test_a_time_before_the_first_reading_is_reckoned_from_that(clocks, stamps):
    """A run may have begun before the daemon was restarted."""
    assert clocks.stamp() - HOUR == stamps.earliest_since(stamps.note() - HOUR)


def test_no_more_than_so_many_settings_are_remembered(clocks, stamps):
    """A clock that is set all the time does not fill the memory, and the first setting still counts."""
    first = clocks.stamp()
    for _ in range(2 * MAX_CLOCK_CHANGES):
        clocks.passed_ns += SECOND
        clocks.ahead_ns += SECOND
        stamps.note()

    assert len(stamps._settings) == MAX_CLOCK_CHANGES
    assert first == stamps.earliest_since(0)
    # The second one is the first that is forgotten.
    assert first + SECOND == stamps.earliest_since(SECOND)
    assert clocks.stamp() - 2 * SECOND == stamps.earliest_since(clocks.passed_ns - SECOND)


def test_a_clock_that_nobody_sets_is_one_setting(clocks, stamps):
    """However often it is read: what is known of the time before is not forgotten."""
    clocks.ahead_ns += HOUR
    began, stamped = stamps.note(), clocks.stamp()
    for _ in range(2 * MAX_CLOCK_CHANGES):
        clocks.passed_ns += SECOND
        stamps.note()

    assert stamped == stamps.earliest_since(began)


def test_what_was_stamped_before_the_first_reading_is_as_old_as_it_looks(clocks):
    """However long the machine had been running by then."""
    clocks.passed_ns += 10 * HOUR
    stamps = Stamps(clocks.read)
    stamped = clocks.stamp() - HOUR
    clocks.passed_ns += SECOND
    clocks.ahead_ns += YEAR

    assert YEAR + HOUR + SECOND == stamps.present().age_ns(stamped)


def test_one_thread_at_a_time_reads_the_clocks(clocks):
    """Of two, the later one could note its reading first, which looks as if the clock had been set back."""
    held = []

    def read():
        held.append(stamps is None or stamps._lock.locked())
        return clocks.read()

    stamps = None
    stamps = Stamps(read)
    held.clear()
    stamps.note()
    stamps.earliest_since(0)
    stamps.present()

    assert [True] * 3 == held


def test_a_clock_that_is_set_forward_makes_nothing_old(clocks, stamps):
    """What was stamped since the first reading is as old as the monotonic clock says."""
    clocks.passed_ns += 10 * SECOND
    stamped = clocks.stamp()
    stamps.note()
    clocks.passed_ns += SECOND
    clocks.ahead_ns += 50 * YEAR

    assert SECOND == stamps.present().age_ns(stamped)
    assert YEAR == stamps.present().age_ns(clocks.stamp() - YEAR)


def test_what_was_stamped_at_this_very_instant_has_no_age(clocks, stamps):
    """Also when the clock is set forward in it."""
    stamped = clocks.stamp()
    stamps.note()
    clocks.ahead_ns += HOUR

    assert 0 == stamps.present().age_ns(stamped)


def test_a_setting_counts_from_the_reading_that_shows_it(clocks, stamps):
    """What is stamped from that on has no earlier stamp."""
    clocks.passed_ns += SECOND
    clocks.ahead_ns += HOUR
    began = stamps.note()
    clocks.passed_ns += SECOND

    assert clocks.stamp() - SECOND == stamps.earliest_since(began)
    assert clocks.stamp() - SECOND - HOUR - 1 == stamps.earliest_since(began - 1)


def test_what_was_stamped_after_the_clock_was_set_forward_grows_old(clocks, stamps):
    """The former setting does not make it one of the future for ever."""
    clocks.ahead_ns += 50 * YEAR
    stamped = clocks.stamp()
    stamps.note()
    clocks.passed_ns += HOUR

    assert HOUR == stamps.present().age_ns(stamped)


def test_a_stamp_of_the_future_is_not_old(clocks, stamps):
    """After a clock was set back."""
    stamped = clocks.stamp()
    clocks.ahead_ns -= HOUR

    assert -HOUR == stamps.present().age_ns(stamped)


def test_partials_do_not_expire_because_the_clock_is_set_forward(tmp_path):
    """One that was received before that is kept for as long as any; one from before the start is as old as it looks."""
    clocks = Clocks(real=True)
    stamps = Stamps(clocks.read)
    leave_partial(os.fsencode(tmp_path), b"f", b"content")
    clocks.passed_ns += SECOND
    clocks.ahead_ns += YEAR

    def expired(present):
        return [each for step in expire_partials(tmp_path, HOUR, present) for each in step.removed]

    assert [] == expired(stamps.present())
    assert 1 == len(expired(Present(clocks.stamp())))


async def opened(path, stamps, run_age_ns=0):
    """A store of a directory that is told so of the clock."""
    store = LocalStore(path, run_in_thread=deferToThread, committer=Committer(deferToThread, stamps=stamps))
    await store.open(b"", run_age_ns)
    return store


async def recent(store, name=b"f"):
    [existing] = await store.describe([name])
    return existing.recent


async def test_what_was_there_before_the_run_is_not_recent(tmp_path):
    """It may be replaced."""
    (tmp_path / "f").write_bytes(b"x")
    clocks = Clocks(real=True)
    clocks.passed_ns += SECOND
    store = await opened(tmp_path, Stamps(clocks.read))

    assert not await recent(store)
    assert not await recent(store, b"missing")


async def put_small(store, path):
    await store.put_small([small_file(b"f", b"x")], OnConflict.REPLACE)


async def put_large(store, path):
    writer = await store.open_writer(b"f", 1, OnConflict.REPLACE)
    await writer.write([b"x"])
    await writer.commit(digest(b"x"), Attributes(0, 0o600))


async def settle(store, path):
    (path / "f").write_bytes(b"x")
    assert [True] == await store.settle([Expected(b"f", 1, digest(b"x"))])


async def match(store, path):
    (path / "f").write_bytes(b"x")
    time.sleep(0.05)
    assert 1 == await store.match_final(b"f", 1, 0, [digest(b"x")])


@pytest.mark.parametrize("arrive", [put_small, put_large, settle, match])
@pytest.mark.parametrize("set_right", [False, True])
async def test_what_arrives_after_the_clock_was_set_back_is_recent(tmp_path, arrive, set_right):
    """Whichever way it arrives, also if the clock is set right before anybody asks, and for who comes back later."""
    clocks = Clocks(real=True)
    clocks.ahead_ns += HOUR
    stamps = Stamps(clocks.read)
    store = await opened(tmp_path, stamps)
    clocks.ahead_ns -= HOUR
    await arrive(store, tmp_path)
    if set_right:
        clocks.ahead_ns += HOUR
    clocks.passed_ns += SECOND

    assert await recent(store)
    assert await recent(await opened(tmp_path, stamps, run_age_ns=HOUR))
    if not set_right:
        assert not await recent(await opened(tmp_path, stamps))


@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_gets_its_name_while_the_clock_is_set_back_is_recent(tmp_path, monkeypatch, when):
    """The clock is set, before the name or with it, and set right after it, in the middle of a group_commit."""
    clocks = Clocks(real=True)
    clocks.ahead_ns += HOUR
    stamps = Stamps(clocks.read)
    store = await opened(tmp_path, stamps)
    rename = group_commit.rename_noreplace

    def renamed(*names):
        clocks.ahead_ns = 0 if when == "after" else HOUR
        rename(*names)

    monkeypatch.setattr(group_commit, "rename_noreplace", renamed)
    clocks.ahead_ns = HOUR if when == "after" else 0
    time.sleep(0.05)  # the clock that stamps files ticks more slowly
    await put_small(store, tmp_path)
    clocks.ahead_ns = HOUR
    clocks.passed_ns += SECOND

    assert await recent(store)
