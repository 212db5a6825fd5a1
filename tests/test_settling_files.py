"""Which files have settled, and what becomes of them, by a clock that tests set and without a file."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.task import Clock

from realize.store.local.looks import FileLook
from realize.values import Entry, Kind
from realize.watch.settling import (
    MAX_FILE_DELAY_S,
    MAX_LOOKS,
    WRITTEN_AGAIN_S,
    FailedFile,
    FoundFile,
    SettlingFiles,
)

SETTLE_S = 10.0
EPOCH = 1_000_000.0


def book(clock, **options):
    """Files that settle in ten seconds; delays have no jitter."""
    return SettlingFiles(
        SETTLE_S, now=clock.seconds, epoch=lambda: EPOCH + clock.seconds(), jitter=lambda: 0.0, **options
    )


def seen(path, version=1, unchanged_s=SETTLE_S, size=7, **options):
    """A look at a regular file."""
    return FileLook(path, Entry(path, Kind.FILE, size, 123), version, unchanged_s, **options)


def settle(files, clock, *paths, **options):
    """Let files come and settle."""
    for path in paths:
        files.changed(path)
    clock.advance(SETTLE_S)
    files.looked([seen(path, **options) for path in files.due()])


@pytest.fixture
def clock():
    """A clock."""
    return Clock()


@pytest.fixture
def files(clock):
    """No files yet."""
    return book(clock)


def test_a_file_is_due_once_it_may_have_settled(files, clock):
    """Not earlier; and once, until it was looked at."""
    files.changed(b"a")
    clock.advance(SETTLE_S - 0.1)
    early = files.due()
    clock.advance(0.1)

    assert ([], [b"a"], []) == (early, files.due(), files.due())


def test_each_change_puts_it_off(files, clock):
    """With one entry in the queue, however many changes there are."""
    for _ in range(10_000):
        files.changed(b"a")
    clock.advance(SETTLE_S / 2)
    files.changed(b"a")
    clock.advance(SETTLE_S / 2)

    assert [] == files.due()
    assert SETTLE_S * 1.5 == files.next_due_s()
    assert 1 == len(files._due)


def test_a_file_that_proves_its_age_settles_at_the_first_look(files, clock):
    """By its change time."""
    settle(files, clock, b"a", unchanged_s=SETTLE_S)

    assert [Entry(b"a", Kind.FILE, 7, 123)] == files.take(10)


def test_a_file_that_proves_no_age_settles_at_the_second_look(files, clock):
    """If it is the same that long after the first one."""
    settle(files, clock, b"a", unchanged_s=0.0)
    first = files.take(10)
    clock.advance(SETTLE_S)
    files.looked([seen(b"a", unchanged_s=0.0) for _ in files.due()])

    assert ([], [b"a"]) == (first, [each.path for each in files.take(10)])


def test_a_file_that_changes_between_looks_does_not_settle(files, clock):
    """However often."""
    files.changed(b"a")
    for version in range(1, 10):
        clock.advance(SETTLE_S)
        files.looked([seen(path, version, 0.0) for path in files.due()])

    assert [] == files.take(10)


def test_a_file_that_is_nearly_old_enough_is_looked_at_again_soon(files, clock):
    """As soon as it will be."""
    settle(files, clock, b"a", unchanged_s=SETTLE_S - 1)

    assert SETTLE_S + 1 == files.next_due_s()


def test_a_file_that_is_written_to_is_looked_at_again_later(clock):
    """Not too often, even if little time is to pass."""
    files = SettlingFiles(0.0, now=clock.seconds, epoch=clock.seconds, jitter=random.random)
    files.changed(b"a")
    files.looked([seen(path, written=True) for path in files.due()])

    assert WRITTEN_AGAIN_S == files.next_due_s()
    assert [] == files.take(10)


def test_what_is_gone_is_forgotten(files, clock):
    """Whether somebody has said so, or it was not there when it was looked at."""
    for path in (b"a", b"b", b"c"):
        files.changed(path)
    files.gone(b"a")
    clock.advance(SETTLE_S)
    due = files.due()
    files.gone(b"b")
    files.looked([seen(b"b"), FileLook(b"c", None)])

    assert [b"b", b"c"] == due
    assert (0, 0, None) == (len(files), files.size, files.oldest)


def test_a_directory_that_is_gone_takes_its_files_along(files):
    """And nothing whose name merely begins like it."""
    for path in (b"a/b", b"a/c/d", b"a.b", b"ab/c"):
        files.changed(path)
    files.gone_below(b"a")

    assert 2 == len(files)
    assert b"a.b" in files
    assert b"ab/c" in files


def test_a_change_while_it_is_looked_at_counts(files, clock):
    """What was seen may be what was there before."""
    files.changed(b"a")
    clock.advance(SETTLE_S)
    files.due()
    files.changed(b"a")
    files.looked([seen(b"a")])

    assert [] == files.take(10)
    assert 2 * SETTLE_S == files.next_due_s()


def test_files_come_in_the_order_in_which_they_settled_and_pages_in_path_order(files, clock):
    """With the directories above them, each once."""
    a, b = Entry(b"a", Kind.DIRECTORY, mode=0o755), Entry(b"a/b", Kind.DIRECTORY, mode=0o700)
    for path in (b"z", b"a/b/2", b"a/b/1", b"a.txt"):
        files.changed(path)
    clock.advance(SETTLE_S)
    files.due()
    files.looked([seen(b"z"), seen(b"a/b/2", above=(a, b)), seen(b"a/b/1", above=(a, b)), seen(b"a.txt")])

    assert [b"a", b"a/b", b"a/b/1", b"a/b/2", b"z"] == [each.path for each in files.take(3)]
    assert [b"a.txt"] == [each.path for each in files.take(3)]


def test_what_is_moved_is_forgotten(files, clock):
    """Unless it changed on its way: then it is new."""
    settle(files, clock, b"a", b"b")
    files.take(10)
    files.changed(b"b")
    files.moved(b"a")
    files.moved(b"b")

    assert b"a" not in files
    assert b"b" in files
    assert 2 * SETTLE_S == files.next_due_s()


def test_what_is_removed_on_its_way_is_not_new(files, clock):
    """Who moves a file removes it, and may have written to it before."""
    settle(files, clock, b"a")
    files.take(10)
    files.changed(b"a")
    files.gone(b"a")
    files.moved(b"a")

    assert 0 == len(files)


def test_what_fails_comes_back_later_and_later(files, clock):
    """Twice as late each time, up to a bound."""
    settle(files, clock, b"a")
    delays = []
    for _ in range(15):
        files.take(10)
        delays.append(files.failed(b"a"))
        clock.advance(delays[-1] - 0.1)
        assert [] == files.due()
        clock.advance(0.1)
        files.looked([seen(path) for path in files.due()])

    assert [1, 2, 4, 8] == delays[:4]
    assert [MAX_FILE_DELAY_S] * 3 == delays[-3:]
    assert [FailedFile(b"a", EPOCH + SETTLE_S, 15)] == list(files.failures)


def test_delays_have_a_bound_of_their_own(files, clock):
    """What will be possible in a moment does not wait for an hour, however often it was tried."""
    settle(files, clock, b"a")
    delays = []
    for _ in range(5):
        files.take(10)
        delays.append(files.failed(b"a", max_delay_s=3.0))
        clock.advance(delays[-1])
        files.looked([seen(path) for path in files.due()])

    assert [1, 2, 3, 3, 3] == delays


def test_delays_have_jitter(clock):
    """So that thousands of files do not come back at once."""
    files = SettlingFiles(0.0, now=clock.seconds, epoch=clock.seconds, jitter=lambda: 1.0)
    files.changed(b"a")
    files.looked([seen(path) for path in files.due()])
    files.take(1)

    assert 0.75 == files.failed(b"a")


def test_a_change_brings_a_failed_file_back(files, clock):
    """After it has settled, whatever its delay was."""
    settle(files, clock, b"a")
    files.take(1)
    files.failed(b"a", 1000.0)
    files.changed(b"a")

    assert 2 * SETTLE_S == files.next_due_s()


def test_a_file_that_has_changed_on_its_way_has_not_failed(files, clock):
    """It settles again."""
    settle(files, clock, b"a")
    files.take(1)
    files.changed(b"a")

    assert SETTLE_S == files.failed(b"a")
    assert [] == list(files.failures)


def test_success_ends_a_failure(files, clock):
    """The next one begins anew."""
    settle(files, clock, b"a")
    files.take(1)
    files.failed(b"a")
    files.retry_now()
    files.looked([seen(path) for path in files.due()])
    files.take(1)
    files.moved(b"a")

    assert [] == list(files.failures)
    assert 0 == len(files)


def test_nobody_came_to_a_file(files, clock):
    """It is the first one next time."""
    settle(files, clock, b"a", b"b", b"c")
    files.take(2)
    files.untouched([b"a", b"b"])

    assert [b"a", b"b"] == [each.path for each in files.take(2)]


def test_failures_survive_a_restart(files, clock):
    """Since when, and how many; what is not there any more is forgotten. They have waited since then, at least."""
    files.restore([FailedFile(b"a", 5.0, 3), FailedFile(b"b", 6.0, 1)])
    oldest = files.oldest
    clock.advance(SETTLE_S)
    files.due()
    files.looked([seen(b"a", unchanged_s=1e9), FileLook(b"b", None)])
    assert (5.0, 5.0) == (oldest, files.oldest)
    files.take(1)

    assert [FailedFile(b"a", 5.0, 3)] == list(files.failures)
    assert 8.0 == files.failed(b"a")


def test_something_unreadable_is_handed_out_at_once(files, clock):
    """So that somebody is told; then it waits like all that fail, and goes on to fail with growing delays."""
    files.unreadable(b"a", "is too deep")
    first = files.take(1)
    files.failed(b"a")
    files.unreadable(b"a", "is too deep")
    meanwhile = files.take(1)
    clock.advance(1.0)
    files.looked([FileLook(path, Entry(path, Kind.DIRECTORY)) for path in files.due()])
    files.unreadable(b"a", "is too deep")
    second = files.take(1)

    assert [Entry(b"a", Kind.UNREADABLE, note="is too deep")] == first == second
    assert [] == meanwhile
    assert 2.0 == files.failed(b"a")


def test_a_directory_that_was_unreadable_is_walked(files, clock):
    """And forgotten, once somebody has entered it."""
    files.unreadable(b"a", "forbidden")
    files.take(1)
    files.failed(b"a")
    clock.advance(1.0)
    directories = files.looked([FileLook(path, Entry(path, Kind.DIRECTORY)) for path in files.due()])
    files.gone(b"a")

    assert [b"a"] == directories
    assert 0 == len(files)


def test_only_so_many_files_are_known(clock):
    """That there are more is remembered."""
    files = book(clock, max_known=2)
    files.changed(b"a")
    assert files.found(FoundFile(b"b", 1, 1))
    before = files.missed
    assert not files.found(FoundFile(b"c", 1, 1))
    assert files.found(FoundFile(b"b", 1, 1))

    assert (False, True, 2) == (before, files.missed, len(files))


def test_only_so_many_failures_are_known(clock):
    """There must be room for others; a later walk finds the rest."""
    files = book(clock, max_failed=1)
    settle(files, clock, b"a", b"b")
    files.take(2)
    files.failed(b"a")
    delay_s = files.failed(b"b")

    assert (MAX_FILE_DELAY_S, True, 1) == (delay_s, files.forgotten, len(files))
    assert not files.missed


def test_what_a_walk_finds_settles_when_it_is_old_enough(files, clock):
    """What is old already is looked at at once."""
    files.found(FoundFile(b"old", 1, 1, unchanged_s=100.0, since=EPOCH - 100))
    files.found(FoundFile(b"new", 1, 1, unchanged_s=4.0))

    assert [b"old"] == files.due()
    assert SETTLE_S - 4.0 == files.next_due_s()
    assert EPOCH - 100 == files.oldest


def test_a_walk_sees_changes_that_nobody_told_of(files, clock):
    """Of a file that is known."""
    settle(files, clock, b"a")
    files.found(FoundFile(b"a", 7, 1))
    same = files.settled
    files.found(FoundFile(b"a", 7, 2))

    assert (1, 0) == (same, files.settled)


@pytest.mark.parametrize("version", [1, 2])
def test_what_a_walk_finds_in_place_of_a_file_in_flight_is_new(files, clock, version):
    """A directory was replaced, or went and came back: nothing but the walk tells of what is in it."""
    settle(files, clock, b"d/a", version=1)
    files.take(1)
    files.gone_below(b"d")
    files.found(FoundFile(b"d/a", 7, version))
    files.moved(b"d/a")
    clock.advance(SETTLE_S)

    assert [b"d/a"] == files.due()


def test_a_walk_sees_another_version_of_a_file_in_flight(files, clock):
    """Where the file system tells nothing, and there was no time to see that the former one was gone."""
    settle(files, clock, b"a", version=1)
    files.take(1)
    files.found(FoundFile(b"a", 7, 2))
    files.moved(b"a")

    assert b"a" in files


def test_a_walk_that_finds_a_file_in_flight_as_it_was_taken_changes_nothing(files, clock):
    """It is done with when it was moved."""
    settle(files, clock, b"a", version=1)
    files.take(1)
    files.found(FoundFile(b"a", 7, 1))
    files.moved(b"a")

    assert b"a" not in files


def test_after_doubt_everything_is_looked_at_again(files, clock):
    """But for what is in flight."""
    settle(files, clock, b"a", b"b", b"c")
    files.take(1)
    files.doubt()

    assert 0 == files.settled
    assert [b"b", b"c"] == files.due()


def test_so_many_files_are_due_at_a_time(files, clock):
    """The others are due right after that."""
    for number in range(MAX_LOOKS + 1):
        files.changed(b"%d" % number)
    clock.advance(SETTLE_S)

    assert (MAX_LOOKS, 1, 0) == tuple(len(files.due()) for _ in range(3))


def test_the_oldest_is_the_one_that_has_not_changed_for_longest(files, clock):
    """One that changes all the time is not old."""
    files.changed(b"a")
    clock.advance(1)
    files.changed(b"b")
    clock.advance(1)
    files.changed(b"a")

    assert EPOCH + 1 == files.oldest


@given(st.lists(st.integers(0, 20), max_size=200))
def test_queues_do_not_grow_with_what_happens_to_the_files(numbers):
    """They are about as long as there are files, however often these settle, change and come back."""
    clock = Clock()
    files = book(clock)
    for number in numbers * 20:
        path = b"%d" % number
        files.changed(path)
        clock.advance(SETTLE_S if number % 3 else 0.0)
        files.looked([seen(path) for path in files.due()])
        for entry in files.take(number):
            if number % 2:
                files.failed(entry.path)
            else:
                files.untouched([entry.path])

    most = 2 * len(files) + 1_025
    assert max(len(files._due), len(files._oldest), len(files._settled)) <= most


class Life(RuleBasedStateMachine):
    """Anything may happen to files in any order: the counts are right, and each file is in one place."""

    paths = st.sampled_from([b"a", b"b", b"d/a", b"d/b", b"d/e/a"])

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.files = book(self.clock, max_known=4, max_failed=2)
        self.in_flight = set()
        self.looked_at = []

    @rule(path=paths)
    def changed(self, path):
        self.files.changed(path)

    @rule(path=paths)
    def gone(self, path):
        self.files.gone(path)

    @rule(directory=st.sampled_from([b"d", b"d/e"]))
    def gone_below(self, directory):
        self.files.gone_below(directory)

    @rule(path=paths, version=st.integers(1, 3), age=st.sampled_from([0.0, 100.0]))
    def found(self, path, version, age):
        self.files.found(FoundFile(path, 5, version, age))

    @rule(path=paths)
    def unreadable(self, path):
        self.files.unreadable(path, "forbidden")

    @rule(seconds=st.sampled_from([0.0, 1.0, SETTLE_S, 5000.0]))
    def passes(self, seconds):
        self.clock.advance(seconds)

    @precondition(lambda self: not self.looked_at)
    @rule()
    def due(self):
        self.looked_at = self.files.due()

    @rule(version=st.integers(1, 3), what=st.sampled_from(["file", "written", "gone", "directory"]))
    def looked(self, version, what):
        looks = {
            "file": lambda path: seen(path, version),
            "written": lambda path: seen(path, version, written=True),
            "gone": lambda path: FileLook(path, None),
            "directory": lambda path: FileLook(path, Entry(path, Kind.DIRECTORY)),
        }
        self.files.looked([looks[what](path) for path in self.looked_at])
        self.looked_at = []

    @rule(most=st.integers(0, 3))
    def take(self, most):
        taken = {each.path for each in self.files.take(most)}
        assert not taken & self.in_flight
        self.in_flight |= taken

    @rule(how=st.sampled_from(["moved", "failed", "untouched"]))
    def back(self, how):
        if self.in_flight:
            path = self.in_flight.pop()
            getattr(self.files, how)([path] if how == "untouched" else path)

    @rule()
    def retry(self):
        self.files.retry_now()

    @rule()
    def doubt(self):
        self.files.doubt()
        self.looked_at = []

    @invariant()
    def counts(self):
        known = self.files._files.values()
        assert self.files.size == sum(each.size for each in known)
        assert self.files.settled == sum(each.state.name == "SETTLED" for each in known)
        assert len(known) <= 4
        assert len(list(self.files.failures)) <= 2
        assert (self.files.oldest is None) == (not known)

    def teardown(self):
        """Whatever is known comes out in the end, when nothing happens any more."""
        self.looked(1, "gone")
        for path in list(self.in_flight):
            self.files.untouched([path])
        self.files.retry_now()
        came = set()
        known = {each.path for each in self.files._files.values()}
        for _ in range(6):
            self.clock.advance(MAX_FILE_DELAY_S)
            self.files.looked([seen(path) for path in self.files.due()])
            came |= {each.path for each in self.files.take(10)}
        assert known == came


TestLife = Life.TestCase
