"""Removing the names of a file one after the other: `realize.store.local.hard_links`."""

from __future__ import annotations

import os
import threading

import pytest
from attrs import evolve

from realize.store.local import hard_links as unlinked
from realize.store.local.hard_links import HardLinks
from realize.store.local.versions import version_of


class Links:
    """A file with several names, whose change time is what the test says."""

    def __init__(self, directory, monkeypatch, known):
        self.known = known
        self.fd = os.open(directory / "file", os.O_RDWR | os.O_CREAT)
        self.directory_fd = os.open(directory, os.O_RDONLY)
        self.at = version_of(os.fstat(self.fd))
        self.names = 0
        self._directory = directory
        self._times = []
        versions = {}
        fstat, original = unlinked.fresh_fstat, unlinked.version_of

        def asked(fd):
            status = fstat(fd)
            versions[id(status)] = status, self._version() if fd == self.fd else original(status)
            return status

        monkeypatch.setattr(unlinked, "fresh_fstat", asked)
        monkeypatch.setattr(unlinked, "version_of", lambda status: versions.pop(id(status))[1])

    def _version(self):
        return self.time(self._times.pop(0))

    def time(self, ctime_ns):
        """The file as of that change time."""
        return evolve(self.at, ctime_ns=ctime_ns)

    def unlink(self, read, before, after):
        """Remove a name of what was read at one time, which has the other times before and after that."""
        self.names += 1
        name = b"%d" % self.names
        os.link(self._directory / "file", self._directory / os.fsdecode(name))
        self._times = [before, after]
        removed = self.known.unlink(self.fd, name, self.directory_fd, self.time(read))
        assert removed != os.path.exists(self._directory / os.fsdecode(name))
        return removed

    def same(self, read, now):
        """Whether it counts as the same."""
        return self.known.same(self.time(read), self.time(now))

    def close(self):
        """Close what was opened."""
        os.close(self.fd)
        os.close(self.directory_fd)


@pytest.fixture
def known():
    """What was removed."""
    return HardLinks()


@pytest.fixture
def links(tmp_path, monkeypatch, known):
    """A file."""
    links = Links(tmp_path, monkeypatch, known)
    yield links
    links.close()


def test_every_removal_of_ours_leads_from_one_version_to_the_next(links):
    """What was read before any of them is the same as what is there after the last, and as nothing in between."""
    assert links.unlink(read=1, before=1, after=2)
    assert links.unlink(read=1, before=2, after=3)

    assert [True, True, True] == [links.same(read, 3) for read in (1, 2, 3)]
    assert not links.same(1, 2)
    assert not links.same(0, 3)
    assert not links.same(3, 1)


def test_what_somebody_else_did_in_between_begins_anew(links):
    """What was read before that is another version for good."""
    assert links.unlink(read=1, before=1, after=2)
    assert not links.unlink(read=1, before=5, after=6)
    assert links.unlink(read=5, before=5, after=6)

    assert links.same(5, 6)
    assert not links.same(1, 6)
    assert not links.same(2, 6)


def test_a_version_that_comes_back_is_the_last_one(links):
    """The clock that files are stamped with may be set back between two removals."""
    assert links.unlink(read=1, before=1, after=2)
    assert links.unlink(read=1, before=2, after=1)

    assert links.same(2, 1)
    assert not links.same(1, 2)
    assert links.unlink(read=2, before=1, after=3)
    assert links.same(2, 3)


def test_what_is_written_while_a_name_is_removed_is_not_ours(links, monkeypatch):
    """More than the change time is another one then."""
    unlink = os.unlink

    def written(name, **options):
        unlink(name, **options)
        links.at = evolve(links.at, size=links.at.size + 1)

    monkeypatch.setattr(os, "unlink", written)
    before = links.at
    assert links.unlink(read=1, before=1, after=2)

    assert not links.known.same(evolve(before, ctime_ns=1), links.time(2))


def test_so_many_names_of_a_file_are_remembered_and_no_more(links, monkeypatch):
    """What came of it before is forgotten, but not what was read: other names may have been read with it."""
    monkeypatch.setattr(unlinked, "MAX_NAMES_PER_FILE", 3)
    for time in range(1, 3):
        assert links.unlink(read=1, before=time, after=time + 1)
    assert links.same(1, 3)

    assert links.unlink(read=1, before=3, after=4)

    assert [True, False, True] == [links.same(read, 4) for read in (1, 2, 3)]


def test_so_many_files_are_remembered_and_no_more(links, known, monkeypatch):
    """The one whose names were not removed for longest is forgotten."""
    monkeypatch.setattr(unlinked, "MAX_LINKED_FILES", 2)
    first = links.at
    second, third = evolve(first, inode=first.inode + 1), evolve(first, inode=first.inode + 2)
    for file, time in ((first, 1), (second, 1), (first, 2), (third, 1)):
        links.at = file
        assert links.unlink(read=time, before=time, after=time + 1)

    known_of = [
        known.same(evolve(each, ctime_ns=1), evolve(each, ctime_ns=last))
        for each, last in ((first, 3), (second, 2), (third, 2))
    ]
    assert [True, False, True] == known_of


def test_one_name_at_a_time_is_removed(links, monkeypatch):
    """Of two threads that had looked, one would take what the other one did for somebody else's doing."""
    lock = threading.Lock()
    links.known = HardLinks(lock)
    held, unlink = [], os.unlink

    def noting(name, **options):
        held.append(lock.locked())
        unlink(name, **options)

    monkeypatch.setattr(os, "unlink", noting)
    assert links.unlink(read=1, before=1, after=2)

    assert ([True], False) == (held, lock.locked())


def test_nobody_is_told_of_half_a_removal(links):
    """Whoever asks waits until what the removal led to is known."""

    class Noting:
        entered = 0

        def __enter__(self):
            self.entered += 1

        def __exit__(self, *_):
            pass

    lock = Noting()
    links.known = HardLinks(lock)

    assert links.same(1, 1)
    assert 1 == lock.entered
