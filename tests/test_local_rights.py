"""What a local store may do as somebody who is not root; rights are dropped for a moment in a thread of its own."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from realize.errors import StorageError, Unavailable
from realize.store.local.store import LocalStore, root_identity
from realize.store.local.versions import Clock
from realize.values import Directory, Entry, Expected, Fetched, Kind, OnConflict, Removal, Use
from tests.local_stores import DirectoryBehind, as_nobody, at_once, behind, open_root, opened, put
from tests.store_helpers import digest, listed_files

__all__ = ["behind", "open_root"]


async def test_files_that_may_not_be_read(open_root):
    """A file without permission fails by itself, with the system's reason."""
    behind = DirectoryBehind(open_root)
    behind.plant(b"closed", b"x")
    behind.plant(b"open", b"x")
    os.chmod(behind.at(b"closed"), 0)
    store = await opened(open_root, run_in_thread=as_nobody)

    closed, readable = await store.read_small([b"closed", b"open"])

    assert type(closed) is StorageError
    assert str(closed) == "closed: cannot be read: Permission denied"
    assert isinstance(readable, Fetched)


async def test_a_directory_that_may_not_be_written(open_root):
    """A directory without permission refuses files, with the system's reason."""
    store = await opened(open_root, run_in_thread=as_nobody)

    answer = await put(store, b"f", b"x")

    assert type(answer) is StorageError
    assert str(answer) == "f: cannot be created: Permission denied"


async def test_what_may_not_be_done_is_named(open_root):
    """To make a directory, to begin a large file, to compare, to list and to try: each says what it was."""
    behind = DirectoryBehind(open_root)
    behind.plant(b"f", b"x")
    behind.plant(b"closed/f", b"x")
    store = await opened(open_root, run_in_thread=as_nobody)
    os.chmod(behind.at(b"closed"), 0)
    os.chmod(behind.at(b"f"), 0)

    [made] = await store.make_directories([Directory(b"new", 0o755)])
    [settled] = await store.settle([Expected(b"f", 1, b"\0" * 32)])
    errors = [made, settled]
    for work in (
        store.open_writer(b"large", 1, OnConflict.FAIL),
        store.match_final(b"f", 1, 0, [b"\0" * 32]),
        store.open_reader(b"closed/f"),
        store.try_write(),
    ):
        with pytest.raises(StorageError) as caught:
            await work
        errors.append(caught.value)

    assert [
        "new: cannot be created: Permission denied",
        "f: cannot be read: Permission denied",
        "large: cannot be created: Permission denied",
        "f: cannot be read: Permission denied",
        "closed: cannot be opened: Permission denied",
        f"{os.fsdecode(open_root)}: cannot be written to: Permission denied",
    ] == list(map(str, errors))


async def test_a_file_that_may_not_be_removed_says_so(open_root):
    """That is a matter of the directory it is in."""
    behind = DirectoryBehind(open_root)
    behind.plant(b"f", b"x")
    store = await opened(open_root, run_in_thread=as_nobody)
    [fetched] = await store.read_small([b"f"])

    [removed] = await store.remove([Removal(b"f", fetched.version)])

    assert "f: cannot be removed: Permission denied" == str(removed)


FORETOLD = {
    "closed": (0o755, Use.READ, "f: cannot be read: Permission denied"),
    "closed to be moved": (0o777, Use.MOVE, "f: cannot be read: Permission denied"),
    "f": (0o755, Use.MOVE, "f: cannot be removed: Permission denied"),
    "sticky": (0o1777, Use.MOVE, "f: cannot be removed: Operation not permitted"),
    "new": (0o755, Use.PUT, "g: cannot be created: Permission denied"),
    "new below": (0o755, Use.PUT, "d: cannot be created: Permission denied"),
    "replaced": (0o1777, Use.PUT, "f: cannot be put in its place: Operation not permitted"),
    "fine": (0o777, Use.PUT, None),
    "closed to be compared": (0o777, Use.COMPARE, "f: cannot be read: Permission denied"),
}


@pytest.mark.parametrize("what", FORETOLD)
async def test_what_is_foretold_is_what_a_try_fails_with(open_root, what):
    """In the same words; and nothing is touched by asking."""
    mode, use, expected = FORETOLD[what]
    behind = DirectoryBehind(open_root)
    behind.plant(b"f", b"x")
    if what.startswith("closed"):
        os.chmod(behind.at(b"f"), 0)
    os.chmod(open_root, mode)
    path = {"new": b"g", "new below": b"d/g"}.get(what, b"f")
    store = await opened(open_root, run_in_thread=as_nobody)

    before = os.stat(open_root).st_ctime_ns, sorted(os.listdir(open_root))
    [foretold] = await store.forbidden([path], use)
    after = os.stat(open_root).st_ctime_ns, sorted(os.listdir(open_root))
    if use is Use.PUT:
        outcome = await put(store, path, b"y")
    elif use is Use.COMPARE:
        [outcome] = await store.settle([Expected(path, 1, digest(b"x"), None)])
    else:
        [outcome] = await store.read_small([path])
        if use is Use.MOVE and isinstance(outcome, Fetched):
            [outcome] = await store.remove([Removal(path, outcome.version)])

    assert before == after
    assert expected == (None if foretold is None else str(foretold))
    assert expected in {None, str(outcome)}
    assert (expected is None) == (not isinstance(outcome, StorageError))


async def test_a_file_system_that_is_mounted_read_only_forbids_by_that_name(open_root, monkeypatch):
    """Its permissions may look fine."""
    store = await opened(open_root, run_in_thread=at_once)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))

    [foretold] = await store.forbidden([b"f"], Use.PUT)

    assert "f: cannot be created: Read-only file system" == str(foretold)


async def test_what_peers_are_told_does_not_say_where_a_directory_is(open_root):
    """The name under which it is served stands for it."""
    store = LocalStore(
        open_root, root_identity=root_identity(open_root), shown=b"inbox", run_in_thread=as_nobody, clock=Clock()
    )
    os.chmod(open_root, 0)

    with pytest.raises(Unavailable) as closed:
        await store.open(b"salt")
    os.rmdir(open_root)
    with pytest.raises(Unavailable) as gone:
        await store.open(b"salt")
    os.mkdir(open_root)

    assert "directory inbox is not there now: cannot be opened: Permission denied" == str(closed.value)
    assert "directory inbox is not there now: No such file or directory" == str(gone.value)


async def test_directories_that_may_not_be_read_are_listed_so(open_root):
    """A directory without permission is an entry that says why, and the listing goes on."""
    behind = DirectoryBehind(open_root)
    behind.plant(b"a/f", b"")
    behind.plant(b"b/f", b"")
    os.chmod(behind.at(b"a"), 0)
    store = await opened(open_root, run_in_thread=as_nobody)

    a, b = await listed_files(store.walk())

    assert Entry(b"a", Kind.UNREADABLE, note="cannot be listed: Permission denied") == a
    assert (b"b/f", Kind.FILE) == (b.path, b.kind)
