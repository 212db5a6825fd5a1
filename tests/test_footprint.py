"""What a peer may do to directories: those that it made, or emptied, are its own; all others are not."""

from __future__ import annotations

import os
import threading
import tracemalloc

import pytest

from realize.config import PeerConfig, Right
from realize.daemon.peer_changes import withdrawn
from realize.errors import Conflict, RealizeError
from realize.fs.tree import identity_of
from realize.keys import generate_identity
from realize.store.local import footprint
from realize.store.local.footprint import Footprint, trace_of
from realize.store.local.store import LocalStore, root_identity
from realize.store.local.versions import version_of
from realize.values import Attributes, Directory, Fetched, OnConflict, Removal, SmallFile, Vacant
from tests.local_stores import at_once
from tests.store_helpers import small_file


async def opened(root, trace=None, **options):
    """A store that is served to a peer with that footprint, which may change and prune only what is its own."""
    options = {"changes_all": False, "prunes_all": False, **options}
    store = LocalStore(
        str(root), run_in_thread=at_once, root_identity=root_identity(str(root)), footprint=trace, **options
    )
    await store.open(b"salt")
    return store


async def removed(store, path):
    """Read a file and remove it."""
    [read] = await store.read_small([path])
    assert isinstance(read, Fetched)
    assert [None] == await store.remove([Removal(path, read.version)])


async def test_only_directories_that_the_peer_has_emptied_are_pruned(tmp_path):
    """One in which it removed a file goes, and then the one above; an empty one of the operator's stays."""
    (tmp_path / "operators").mkdir()
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "f").write_bytes(b"x")
    store = await opened(tmp_path)

    await removed(store, b"a/b/f")
    pruned = await store.prune([Vacant(path, None) for path in (b"operators", b"a/b", b"a")])

    assert [False, True, True] == pruned
    assert ["operators"] == os.listdir(tmp_path)


async def test_a_later_connection_of_the_peer_may_prune_what_an_earlier_one_emptied(tmp_path):
    """The footprint is the peer's; another peer has another."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"x")
    trace = Footprint()
    await removed(await opened(tmp_path, trace), b"d/f")
    vacant = [Vacant(b"d", None)]

    assert [False] == await (await opened(tmp_path, Footprint())).prune(vacant)
    assert [True] == await (await opened(tmp_path, trace)).prune(vacant)


async def test_a_directory_that_was_pruned_is_forgotten(tmp_path):
    """Somebody else's may get its number, where nobody knows when a directory was made."""
    trace = Footprint()
    store = await opened(tmp_path, trace)
    await store.make_directories([Directory(b"d", 0o700)])
    fd = os.open(tmp_path / "d", os.O_RDONLY)
    directory = trace_of(identity_of(os.fstat(fd)), fd)
    os.close(fd)
    before = trace.may_remove(directory)

    assert [True] == await store.prune([Vacant(b"d", None)])
    assert (True, False) == (before, trace.may_remove(directory))


async def test_who_may_prune_removes_every_empty_directory(tmp_path):
    """That is what the right is for."""
    (tmp_path / "d").mkdir()
    store = await opened(tmp_path, prunes_all=True)

    assert [True] == await store.prune([Vacant(b"d", None)])


async def test_directories_that_were_there_keep_their_permissions_and_times(tmp_path):
    """Who may create only gives them to what it has made itself."""
    there = tmp_path / "there"
    there.mkdir()
    there.chmod(0o755)
    os.utime(there, ns=(1, 1))
    store = await opened(tmp_path)
    wanted = [Directory(b"there", 0o700, 5), Directory(b"new", 0o750, 5)]

    assert [None, None] == await store.make_directories(wanted)
    assert [False, True] == await store.set_directories(wanted)

    before, new = os.stat(there), os.stat(tmp_path / "new")
    assert (0o755, 1) == (before.st_mode & 0o777, before.st_mtime_ns)
    assert (0o750, 5) == (new.st_mode & 0o777, new.st_mtime_ns)


async def test_the_footprint_is_bounded_and_forgets_what_is_gone(monkeypatch):
    """What was forgotten stays where it is; a number that is used again belongs to somebody else."""
    monkeypatch.setattr(footprint, "MAX_FOOTPRINT_DIRECTORIES", 2)
    trace = Footprint()
    for inode in range(3):
        trace.made(b"%d" % inode)
    trace.gone(b"2")

    assert [False, True, False] == [trace.may_change(b"%d" % inode) for inode in range(3)]


def test_what_is_done_again_is_remembered_for_longest(monkeypatch):
    """Of the directories that were made, and of those that were emptied; what is gone was neither."""
    monkeypatch.setattr(footprint, "MAX_FOOTPRINT_DIRECTORIES", 2)
    trace = Footprint()
    for each in (b"0", b"1", b"0", b"2", b"2"):
        trace.made(each)
    for each in (b"3", b"4", b"3", b"5", b"5"):
        trace.removed_from(each)

    assert [True, False, True] == [trace.may_change(each) for each in (b"0", b"1", b"2")]
    assert [True, False, True] * 2 == [trace.may_remove(b"%d" % number) for number in range(6)]
    trace.gone(b"0")
    trace.gone(b"3")
    assert [False, False] == [trace.may_remove(each) for each in (b"0", b"3")]
    assert not trace.may_change(b"0")


def test_one_thread_at_a_time_takes_note(monkeypatch):
    """Of two that forget the oldest one, the second would find another one, or none."""
    lock = threading.Lock()
    held = []

    class Named(bytes):
        def __hash__(self):
            held.append(lock.locked())
            return super().__hash__()

    monkeypatch.setattr(footprint.threading, "Lock", lambda: lock)
    trace = Footprint()
    monkeypatch.undo()
    for call in (trace.made, trace.removed_from, trace.gone):
        call(Named(b"d"))

    assert {True} == set(held)
    assert not lock.locked()


def test_the_footprint_takes_little_memory(tmp_path):
    """It stays when the peer has gone."""
    trace = Footprint()
    tracemalloc.start()
    fd = os.open(tmp_path, os.O_RDONLY)
    for inode in range(footprint.MAX_FOOTPRINT_DIRECTORIES + 10):
        each = trace_of((1 << 40, 1 << 40 | inode), fd)
        trace.made(each)
        trace.removed_from(each)
    os.close(fd)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert taken < 5 << 20


@pytest.mark.parametrize("content", [b"", b"x"], ids=["nothing came", "thrown away"])
async def test_an_abandoned_write_takes_along_the_directories_that_it_made(tmp_path, content):
    """Those that were there before stay, and so do those that somebody uses by now."""
    (tmp_path / "there").mkdir()
    store = await opened(tmp_path)
    first = await store.open_writer(b"there/a/b/f", 10, OnConflict.FAIL)
    second = await store.open_writer(b"used/a/f", 10, OnConflict.FAIL)
    (tmp_path / "used" / "of somebody").write_bytes(b"")
    for writer in (first, second):
        if content:
            await writer.write([content])
        await writer.abandon(keep=not content)

    assert ["there", "used"] == sorted(os.listdir(tmp_path))
    assert [] == os.listdir(tmp_path / "there")
    assert ["of somebody"] == os.listdir(tmp_path / "used")


async def test_a_file_that_is_kept_for_later_keeps_its_directories(tmp_path):
    """The partial is in them."""
    store = await opened(tmp_path)
    writer = await store.open_writer(b"a/f", 10, OnConflict.FAIL)
    await writer.write([b"x"])
    await writer.abandon(keep=True)

    assert 1 == len(os.listdir(tmp_path / "a"))


async def test_small_files_that_are_refused_leave_no_directories(tmp_path):
    """Nor do they take those away in which others of their batch arrive."""
    store = await opened(tmp_path)
    damaged = SmallFile(b"x/y/f", b"content", bytes(32), Attributes(1, 0o600))
    first = await store.put_small([damaged], OnConflict.FAIL)
    second = await store.put_small([small_file(b"a/f", b"x"), small_file(b"a/b/" + b"n" * 300, b"x")], OnConflict.FAIL)
    taken = await store.put_small([small_file(b"a/f", b"y")], OnConflict.FAIL)

    assert isinstance(first[0], RealizeError)
    assert isinstance(second[1], RealizeError)
    assert isinstance(taken[0], Conflict)
    assert ["a"] == os.listdir(tmp_path)
    assert ["f"] == os.listdir(tmp_path / "a")


def test_to_be_allowed_more_ends_no_connection():
    """Write has create in it; the other way round something is lost."""
    key = generate_identity().public_key
    create, write = (PeerConfig(key, rights={"inbox": frozenset({right})}) for right in (Right.CREATE, Right.WRITE))

    assert set() == withdrawn({"a": create}, {"a": write})
    assert {"a"} == withdrawn({"a": write}, {"a": create})


@pytest.mark.parametrize("emptied", [False, True])
async def test_what_gets_the_number_of_one_that_is_gone_is_somebody_elses(tmp_path, emptied):
    """Whoever has removed that: many file systems give the number of a directory to the next one that is made."""
    trace = Footprint()
    store = await opened(tmp_path, trace)
    await store.make_directories([Directory(b"old%d" % number, 0o700) for number in range(20)])
    if emptied:
        for number in range(20):
            (tmp_path / f"old{number}/f").touch()
            version = version_of(os.stat(tmp_path / f"old{number}/f"))
            assert [None] == await store.remove([Removal(b"old%d/f" % number, version)])
        trace._made.clear()
    numbers = {each.stat().st_ino for each in tmp_path.iterdir()}
    for number in range(20):
        (tmp_path / f"old{number}").rmdir()
    theirs: list[bytes] = []
    # Others may get some of the numbers first; a file system that uses none twice has nothing to confuse.
    while len(theirs) < 20 or (
        numbers.isdisjoint(each.stat().st_ino for each in tmp_path.iterdir()) and len(theirs) < 200
    ):
        theirs.append(b"theirs%d" % len(theirs))
        (tmp_path / os.fsdecode(theirs[-1])).mkdir(0o700)
    await store.make_directories([Directory(name, 0o777) for name in theirs])
    await store.set_directories([Directory(name, 0o777) for name in theirs])

    assert {0o700} == {each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}
    assert [False] * len(theirs) == await store.prune([Vacant(name, None) for name in theirs])
