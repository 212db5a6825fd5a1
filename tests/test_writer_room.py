"""A large file for which the room ends while it is written."""

from __future__ import annotations

import errno
import os

from realize.errors import StorageError
from realize.store.local import writer as writer_module
from realize.store.local.headroom import Headroom
from realize.store.local.promised_space import Ledger
from realize.units import Reserve
from realize.values import Committed
from tests.leftovers import leave_partial
from tests.store_helpers import digest, failure
from tests.test_headroom import MIB, REPLACE, aged, at_once, clock, disk, finish, headroom, opened, store

__all__ = ["clock", "disk", "headroom", "store"]


async def test_no_more_partials_go_than_the_rest_needs(disk, clock):
    """What is free counts: only what is missing is made."""
    store = opened(disk, Headroom(at_once, Ledger(clock), Reserve(MIB)))
    older = aged(leave_partial(disk.path, "a", b"p" * 3 * MIB), 200)
    younger = aged(leave_partial(disk.path, "b", b"p" * 3 * MIB), 100)
    writing = await store.open_writer(b"f", 10 * MIB, REPLACE)
    await writing.write([b"x" * MIB])
    (disk.path / "theirs").write_bytes(b"t" * 5 * MIB)
    await writing.write([b"x" * 9 * MIB])

    assert [False, True] == [path.exists() for path in (older, younger)]
    assert (await writing.commit(digest(b"x" * 10 * MIB), None)).how is Committed.CREATED


async def test_what_fails_when_there_is_room_again_has_failed(store, disk, monkeypatch):
    """Its error names the file, as that of any other write does."""
    leave_partial(disk.path, "a", b"p" * MIB)
    writing = await store.open_writer(b"f", 2, REPLACE)
    errors = [errno.EIO, errno.ENOSPC]

    def fails(*_):
        number = errors.pop()
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fails)
        error = await failure(writing.write([b"xx"]))
    await writing.abandon(keep=False)

    assert (StorageError, "f: Input/output error", []) == (type(error), str(error), errors)


async def test_the_reserve_is_looked_at_again_after_so_many_bytes(disk, clock, monkeypatch):
    """To look costs a call each time, and a file may come in small pieces."""
    monkeypatch.setattr(writer_module, "_WRITEBACK_STEP_BYTES", 100)
    looks, looked = [], []
    monkeypatch.setattr(os, "fstatvfs", lambda fd: looks.append(fd) or disk.statvfs(fd))
    store = opened(disk, Headroom(at_once, Ledger(clock), Reserve(MIB)))
    writing = await store.open_writer(b"f", MIB, REPLACE)
    for length in (10, 100, 1, 99, 1, 1):
        looks.clear()
        await writing.write([b"x" * length])
        looked.append(len(looks))
    await writing.abandon(keep=False)

    assert [1, 0, 1, 0, 0, 1] == looked


async def test_all_that_is_no_reserve_may_be_written(disk, clock):
    """To the last byte."""
    store = opened(disk, Headroom(at_once, Ledger(clock), Reserve(4 * MIB)))

    assert await finish(await store.open_writer(b"f", 16 * MIB, REPLACE), 16 * MIB) is Committed.CREATED
