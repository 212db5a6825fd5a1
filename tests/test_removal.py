"""Removing a batch of sources: each gets its own answer, and what is not what was moved stays."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from realize.errors import BadName, Busy, Conflict, NotFound, SourceChanged, StorageError
from realize.fs import tree
from realize.store.local.versions import UNREADABLE
from realize.values import Removal, Vacant, Version
from tests.faults import descriptors
from tests.local_stores import behind, fetched, opened, root
from tests.store_helpers import failure

__all__ = ["behind", "root"]

ELSEWHERE = Version(0, 0, 0, 0, 0)


def broken(call, name, error):
    """That system call, which fails for what has that name."""

    def calling(first, *arguments, **options):
        if first == name:
            raise error
        return call(first, *arguments, **options)

    return calling


async def removals(store, *paths):
    """What it takes to remove these files."""
    return [Removal(path, (await fetched(store, path)).version) for path in paths]


@pytest.mark.parametrize(
    ("error", "kind"),
    [(OSError(errno.EIO, "broken"), StorageError), (MemoryError(), Busy), (NotFound("gone"), NotFound)],
)
async def test_each_removal_has_its_own_answer(root, behind, monkeypatch, error, kind):
    """Whatever one of a batch fails with: its answer is at its place, and the ones behind it are removed."""
    for name in (b"a", b"b", b"c", b"d"):
        behind.plant(name, b"x")
    store = await opened(root)
    wanted = await removals(store, b"a", b"b", b"c", b"d")
    monkeypatch.setattr(os, "unlink", broken(os.unlink, b"b", error))
    batch = [*wanted[:3], Removal(b"../e", ELSEWHERE), Removal(b"no/file", ELSEWHERE), *wanted[3:]]

    answers = await store.remove(batch)

    assert [None, kind, None, BadName, NotFound, None] == [answer and type(answer) for answer in answers]
    assert [b"b"] == behind.everything()


async def test_what_is_gone_already_is_said_to_be_gone(root, behind):
    """A name that is not there any more keeps nobody behind it from being removed."""
    for name in (b"a", b"b"):
        behind.plant(name, b"x")
    store = await opened(root)
    wanted = await removals(store, b"a", b"b")
    os.unlink(behind.at(b"a"))

    gone, removed = await store.remove(wanted)

    assert (NotFound, None) == (type(gone), removed)
    assert [] == behind.everything()


@pytest.mark.parametrize("number", sorted(UNREADABLE))
async def test_what_may_not_be_read_any_more_is_removed_if_it_is_the_same(root, behind, monkeypatch, number):
    """A file that was moved can be removed by its status alone, and one that is another by its status is kept."""
    behind.plant(b"same", b"x")
    behind.plant(b"other", b"x")
    store = await opened(root)
    wanted = await removals(store, b"same", b"other")
    os.chmod(behind.at(b"other"), 0o640)
    refused = OSError(number, os.strerror(number))
    opening = os.open

    def unreadable(path, flags, *arguments, **options):
        if path in {b"same", b"other"} and not flags & os.O_PATH:
            raise refused
        return opening(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", unreadable)

    assert [type(None), SourceChanged] == list(map(type, await store.remove(wanted)))
    assert [b"other"] == behind.everything()


async def test_what_cannot_be_looked_at_is_kept(root, behind, monkeypatch):
    """An error of the disk says nothing of whether it is still the file that was moved."""
    behind.plant(b"f", b"x")
    store = await opened(root)
    wanted = await removals(store, b"f")
    monkeypatch.setattr(os, "open", broken(os.open, b"f", OSError(errno.EIO, "broken")))

    assert [StorageError] == list(map(type, await store.remove(wanted)))
    assert [b"f"] == behind.everything()


async def test_what_a_program_has_open_for_writing_is_kept(root, behind):
    """What it stores through a mapping need not show in the status."""
    behind.plant(b"f", b"x")
    store = await opened(root)
    wanted = await removals(store, b"f")

    with behind.writing(b"f"):
        refused = await store.remove(wanted)

    assert [SourceChanged] == list(map(type, refused))
    assert [None] == await store.remove(wanted)


async def test_who_reads_a_file_under_a_lock_keeps_nobody_from_removing_it(root, behind):
    """A shared lock is for reading, and so is that of a removal."""
    behind.plant(b"f", b"x")
    store = await opened(root)
    wanted = await removals(store, b"f")

    with open(behind.at(b"f"), "rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert [None] == await store.remove(wanted)


async def test_where_locks_are_of_no_use_the_file_is_closed_once(root, behind, monkeypatch):
    """It is not open when it is removed, or it would get another name; and what gets its number stays open."""
    monkeypatch.setattr(tree, "renames_what_is_open", lambda _: True)
    behind.plant(b"f", b"x")
    store = await opened(root)
    wanted = await removals(store, b"f")
    unlink, kept = os.unlink, []

    def opening(name, **options):
        assert os.fsdecode(behind.at(b"f")) not in descriptors().values()
        kept.append(os.open(os.devnull, os.O_RDONLY))
        unlink(name, **options)

    monkeypatch.setattr(os, "unlink", opening)

    assert [None] == await store.remove(wanted)
    assert [] == behind.everything()
    assert os.path.samestat(os.stat(os.devnull), os.fstat(*kept))
    os.close(*kept)


async def test_each_directory_has_its_own_answer(root, behind, monkeypatch):
    """Which of a batch were removed, and which stay for whatever reason; in order."""
    for name in (b"empty", b"full/x", b"changed", b"last"):
        os.makedirs(behind.at(name))
    behind.plant(b"file", b"")
    os.symlink("full", behind.at(b"link"))
    os.utime(behind.at(b"empty"), ns=(7, 7))
    os.utime(behind.at(b"changed"), ns=(7, 7))
    store = await opened(root)
    batch = [
        Vacant(b"empty", 7),
        Vacant(b"full", None),
        Vacant(b"changed", 8),
        Vacant(b"no/no", None),
        Vacant(b"no", None),
        Vacant(b"../up", None),
        Vacant(b"file/x", None),
        Vacant(b"link/x", None),
        Vacant(b"last", None),
    ]

    answers = await store.prune(batch)

    assert [True, False, False, False, False] == answers[:5]
    assert [BadName, Conflict, BadName] == list(map(type, answers[5:8]))
    assert [True] == answers[8:]
    assert [b"changed", b"file", b"full", b"full/x", b"link"] == behind.everything()


async def test_where_the_root_is_gone_nothing_is_said_to_be_removed(root, behind):
    """What is missing because its file system is not mounted is not taken for gone."""
    behind.plant(b"f", b"x")
    store = await opened(root)
    wanted = await removals(store, b"f")
    os.rename(root, root + b"~")
    os.mkdir(root)

    assert isinstance(await failure(store.remove(wanted)), StorageError)
    assert isinstance(await failure(store.prune([Vacant(b"f", None)])), StorageError)
