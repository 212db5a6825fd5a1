"""Which watch belongs to which directory, while these come, go and are renamed."""

from __future__ import annotations

import pytest

from realize.watch.directories import WatchedDirectories


@pytest.fixture
def directories():
    """The top, and a/b/c."""
    found = WatchedDirectories()
    for number, path in enumerate([b"", b"a", b"a/b", b"a/b/c"], start=1):
        assert [] == found.put(path, number, 1)
    return found


def paths(directories):
    """All that have a place, by their watches."""
    return {watch: directories.path(watch) for watch in range(1, 10) if directories.path(watch) is not None}


def test_paths(directories):
    """Of directories, and of names in them."""
    assert {1: b"", 2: b"a", 3: b"a/b", 4: b"a/b/c"} == paths(directories)
    assert (b"x", b"a/b/x", None) == tuple(directories.path(watch, b"x") for watch in (1, 3, 9))
    assert (True, False) == (directories.is_top(1), directories.is_top(2))
    assert (True, False) == (directories.has(2, b"b"), directories.has(2, b"x"))


def test_a_rename_takes_all_below_along(directories):
    """At once, with watches and all."""
    directories.put(b"z", 5, 1)
    left = directories.leave(2, b"b", 77)
    between = paths(directories)
    directories.arrive(5, b"y", 77)

    assert left
    assert {1: b"", 2: b"a", 5: b"z"} == between
    assert {1: b"", 2: b"a", 3: b"z/y", 4: b"z/y/c", 5: b"z"} == paths(directories)
    assert [] == directories.left()


def test_what_leaves_and_does_not_arrive_is_given_up(directories):
    """With all that is below."""
    directories.leave(1, b"a", 77)

    assert [2, 3, 4] == sorted(directories.left())
    assert {1: b""} == paths(directories)
    assert 1 == len(directories)


def test_what_arrives_in_the_place_of_another_one_replaces_it(directories):
    """That one was empty, or it could not have been replaced; its watch is of no more use."""
    directories.put(b"z", 5, 1)
    directories.leave(1, b"a", 77)

    assert [5] == directories.arrive(1, b"z", 77)
    assert {1: b"", 2: b"z", 3: b"z/b", 4: b"z/b/c"} == paths(directories)


def test_a_walk_finds_a_directory_at_another_path(directories):
    """It is there now, with what is below."""
    assert [] == directories.put(b"new", 3, 2)
    assert {1: b"", 2: b"a", 3: b"new", 4: b"new/c"} == paths(directories)


def test_a_walk_finds_a_directory_in_the_place_of_another_one(directories):
    """The watches of the former one, and of what was below, are of no more use."""
    assert [2, 3, 4] == sorted(directories.put(b"a", 6, 2))
    assert {1: b"", 6: b"a"} == paths(directories)


def test_a_walk_finds_a_directory_below_where_it_was(directories):
    """Such as after ``mv a x; mkdir a; mv x a/d``, of which no event was read yet."""
    directories.put(b"a", 6, 2)
    directories.put(b"a/d", 2, 2)
    directories.put(b"a/d/b", 3, 2)

    assert {1: b"", 2: b"a/d", 3: b"a/d/b", 6: b"a"} == paths(directories)


def test_a_walk_finds_an_outer_directory_below_itself(directories):
    """Before it finds what has taken its place; nothing goes in circles."""
    assert [3, 4] == sorted(directories.put(b"a/b/c/d", 2, 2))
    assert {1: b"", 2: b"a/b/c/d"} == paths(directories)


def test_a_walk_finds_a_directory_that_was_moved_out(directories):
    """It is in the source again, and is not given up with what has left."""
    directories.leave(1, b"a", 77)
    directories.put(b"back", 2, 2)

    assert [] == directories.left()
    assert {1: b"", 2: b"back", 3: b"back/b", 4: b"back/b/c"} == paths(directories)


def test_what_no_walk_sees_any_more_is_given_up(directories):
    """After events were lost nobody else tells of it."""
    directories.put(b"", 1, 2)
    directories.put(b"a", 2, 2)

    assert [3, 4] == sorted(directories.unseen(2))
    assert {1: b"", 2: b"a"} == paths(directories)


def test_what_is_dropped_takes_all_below_along(directories):
    """By its watch, or by its name in another one; what is not known is no matter."""
    assert [] == directories.drop(9) == directories.drop(1, b"x")
    assert [4] == directories.drop(4)
    assert [2, 3] == sorted(directories.drop(1, b"a"))
    assert {1: b""} == paths(directories)


def test_a_rename_within_what_was_moved_out_leads_nowhere(directories):
    """What is not in the source is of no interest, until it is again."""
    directories.leave(1, b"a", 77)
    directories.leave(3, b"c", 78)
    directories.arrive(2, b"d", 78)

    assert {1: b""} == paths(directories)
    assert [2, 3, 4] == sorted(directories.left())


def test_all_are_forgotten(directories):
    """Whatever is left is given up."""
    assert [1, 2, 3, 4] == sorted(directories.clear())
    assert 0 == len(directories)
    assert {} == paths(directories)
