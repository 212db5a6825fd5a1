"""Partials that may go: which of them, and none that is another one by now, or in use."""

from __future__ import annotations

import fcntl
import os

import pytest
from attrs import define, evolve
from hypothesis import given
from hypothesis import strategies as st

from realize.fs import awaiting
from realize.store.local import partial_marks as marks
from realize.store.local.leftovers import (
    find_leftovers,
    gained_ns,
    in_the_way,
    remove_awaiting,
    remove_unlocked,
    unlocked,
)
from realize.store.local.location import locate
from realize.store.local.walker import WalkEntry
from tests.faults import descriptors
from tests.leftovers import leave_partial, partial_at


@define
class Status:
    """What is asked of the status of a partial."""

    st_size: int
    st_mtime_ns: int
    st_mode: int = marks.RECEIVING
    st_ctime_ns: int = 0

    @property
    def st_blocks(self) -> int:
        """As many as it has bytes: it has no holes."""
        return self.st_size


def partials(*sizes):
    """Some of these sizes, the oldest first."""
    return [WalkEntry(b"%d" % age, (), b"", Status(size, age)) for age, size in enumerate(sizes)]


def names(found):
    return [each.path for each in found]


@pytest.mark.parametrize(
    ("sizes", "missing", "chosen"),
    [
        ((5, 5, 5), 1, [b"0"]),
        ((5, 5, 5), 5, [b"0"]),
        ((5, 5, 5), 6, [b"0", b"1"]),
        ((5, 5, 5), 15, [b"0", b"1", b"2"]),
        ((5, 5, 5), 16, []),
        ((1, 9), 5, [b"1"]),
        ((1, 9), 9, [b"1"]),
        ((1, 9), 10, [b"0", b"1"]),
        ((3, 3, 7), 9, [b"0", b"2"]),
        ((0, 3), 1, [b"1"]),
        ((), 1, []),
    ],
)
def test_the_oldest_go_and_no_more_than_are_needed(sizes, missing, chosen):
    """None at all if all of them are not enough: what was received would be lost for nothing."""
    found = partials(*sizes)

    assert chosen == names(in_the_way(found[::-1], missing))
    assert chosen == names(in_the_way([*found, WalkEntry(b"?", (), b"", None)], missing))


def test_those_of_one_instant_go_in_any_order():
    """Nothing else about them is compared."""
    alike = [evolve(each, status=Status(5, 7)) for each in partials(5, 5, 5)]

    assert 2 == len(in_the_way(alike, 10))


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 40))
def test_what_goes_is_enough_and_none_of_it_too_much(sizes, missing):
    """Whatever there is."""
    chosen = in_the_way(partials(*sizes), missing)
    total = sum(each.size for each in chosen)

    assert (total >= missing) == (sum(sizes) >= missing) == bool(chosen)
    assert all(total - each.size < missing for each in chosen)


def test_what_a_commit_has_given_its_time_is_as_old_as_its_last_change():
    """That of the source says nothing."""
    receiving = Status(1, 5, marks.RECEIVING, 9)

    assert (5, 9) == (gained_ns(receiving), gained_ns(evolve(receiving, st_mode=marks.MARK | 0o644)))


@pytest.fixture
def place(tmp_path):
    """Where three partials are: of ``a`` and ``b``, and of ``d/c``."""
    (tmp_path / "d").mkdir()
    for directory, name in ((tmp_path, "a"), (tmp_path, "b"), (tmp_path / "d", "c")):
        leave_partial(directory, name, b"12")
    (tmp_path / "f").write_bytes(b"")
    return tmp_path


def found(place, **options):
    """All that are found, in order of their paths."""
    finding = find_leftovers(locate(os.fsencode(place), b"", None), **options)
    return sorted((each for partials, _ in finding for each in partials), key=lambda each: each.path)


def test_all_below_are_found_or_those_of_one_directory(place):
    """Files are not among them."""
    paths = [os.fsencode(partial_at(place, name)) for name in "ab"]
    below = os.fsencode(partial_at(place / "d", "c"))

    assert sorted([*paths, below]) == [os.path.join(os.fsencode(place), each.from_root) for each in found(place)]
    assert sorted(paths) == [os.path.join(os.fsencode(place), each.path) for each in found(place, deep=False)]


@pytest.mark.parametrize("what", ["gone", "replaced", "changed", "locked", "directory", "unknown"])
def test_none_goes_that_is_another_one_by_now(place, what):
    """Nor one that somebody writes; the others go, before it and behind it."""
    location = locate(os.fsencode(place), b"", None)
    partial = partial_at(place, "b")
    every = found(place)
    with partial.open("rb") as kept:
        if what == "locked":
            fcntl.flock(kept, fcntl.LOCK_EX)
        elif what == "changed":
            partial.chmod(0o1640)
        elif what == "unknown":
            every = [evolve(each, status=None) if each.name == os.fsencode(partial.name) else each for each in every]
        else:
            partial.unlink()
        if what == "replaced":
            leave_partial(place, "b", b"12")
        elif what == "directory":
            partial.mkdir()
        idle, removed = unlocked(location, every), remove_unlocked(location, every)

    assert ["a", "c"] == sorted(chr(each.name[1]) for each in idle)
    assert names(idle) == names(removed)
    assert (what == "gone") == (not partial.exists())
    assert not partial_at(place, "a").exists()
    assert not partial_at(place / "d", "c").exists()


def test_where_a_directory_is_gone_the_others_go_all_the_same(place):
    """It is of no matter."""
    every = found(place)
    partial_at(place / "d", "c").unlink()
    (place / "d").rmdir()

    assert 2 == len(remove_unlocked(locate(os.fsencode(place), b"", None), every))
    assert ["f"] == os.listdir(place)


def test_one_that_is_swapped_while_it_is_opened_stays(place, monkeypatch):
    """The lock is that of the file that was opened, and the name is another's by now."""
    location, every = locate(os.fsencode(place), b"", None), found(place)
    partial, lock = partial_at(place, "b"), fcntl.flock

    def swap(fd, how):
        if os.path.samestat(os.fstat(fd), os.stat(partial)):
            os.rename(partial, place / "moved")
            leave_partial(place, "b", b"new")
            os.utime(place / "moved", ns=(7, 7))
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", swap)

    assert 2 == len(remove_unlocked(location, every))
    assert b"new" == partial.read_bytes()


def test_no_directory_is_open_when_it_is_removed(tmp_path, monkeypatch):
    """Some file systems keep what is open, under another name."""
    for number in range(2):
        path = tmp_path / f"{number}" / "in"
        path.mkdir(parents=True)
        for each in (path, path.parent):
            fd = os.open(each, os.O_RDONLY)
            awaiting.mark(fd, os.fsencode(each.name))
            os.close(fd)
    removed, rmdir = [], os.rmdir

    def looking(name, *, dir_fd):
        path = os.readlink(f"/proc/self/fd/{dir_fd}") + "/" + os.fsdecode(name)
        assert path not in descriptors().values()
        rmdir(name, dir_fd=dir_fd)
        removed.append(os.path.relpath(path, tmp_path))

    monkeypatch.setattr(os, "rmdir", looking)
    remove_awaiting(locate(os.fsencode(tmp_path), b"", None), [(b"0", b"in"), (b"1", b"in")])

    assert ["0/in", "0", "1/in", "1"] == removed


def test_what_is_given_up_in_the_middle_leaves_nothing_open(tmp_path, monkeypatch):
    """Wherever in a directory it was."""
    monkeypatch.setattr("realize.store.local.leftovers.PAGE_ENTRIES", 1)
    monkeypatch.setattr("realize.store.local.walker.MAX_SORTED_NAMES", 1)
    for number in range(100):
        (tmp_path / f"{number}").touch()
    before = descriptors()
    finding = find_leftovers(locate(os.fsencode(tmp_path), b"", None))
    next(finding)
    assert before != descriptors()
    finding.close()

    assert before == descriptors()
