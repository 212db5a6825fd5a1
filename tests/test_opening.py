"""What a store opens is closed, and its room given back, also if nobody gets it."""

from __future__ import annotations

import errno
import os

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from realize.errors import Busy
from realize.store import local, marks
from realize.testing import how
from realize.values import Committed
from tests.leftovers import leave_partial
from tests.test_local_store import PARTIAL, REPLACE, at_once, behind, open_files, opened, root
from tests.test_partials import put

__all__ = ["behind", "root"]


def no_memory(*_arguments):
    """There is none."""
    raise MemoryError


@pytest.mark.parametrize("kind", ["LocalReader", "LocalWriter"])
async def test_what_cannot_be_handed_out_is_closed(root, behind, monkeypatch, kind):
    """Its descriptor, its lock and its room are free again."""
    behind.plant(b"f", b"x")
    store = await opened(root)

    def opening():
        return store.open_reader(b"f") if kind == "LocalReader" else store.open_writer(b"f", 3, REPLACE)

    with monkeypatch.context() as patch:
        patch.setattr(local, kind, no_memory)
        with pytest.raises(MemoryError):
            await opening()

    assert [] == open_files(root)
    assert not store._headroom.ledger.on(os.stat(root).st_dev).promises
    again = await opening()
    if kind == "LocalReader":
        again.close()
    else:
        await again.abandon(keep=False)


async def test_what_nobody_waits_for_and_cannot_be_kept_is_sent_again(root, monkeypatch):
    """That is no fault of the program, so that nothing is logged; what is one is told."""
    pending = []

    def later(job, *arguments):
        if job is local.PartialFile:
            pending.append(lambda: at_once(job, *arguments).chainDeferred(answer))
            answer = Deferred()
            return answer
        return at_once(job, *arguments)

    leave_partial(root, "f", b"12")
    store = await opened(root, run_in_thread=later)
    opening = store.open_writer(b"f", 3, REPLACE)
    opening.cancel()
    with pytest.raises(CancelledError):
        await opening

    def fails(_fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        pending.pop()()

    assert [] == os.listdir(root)
    assert how(await put(store, b"f", b"new")) is Committed.CREATED
    assert local._not_kept(Failure(Busy("later"))) is None
    with pytest.raises(ZeroDivisionError):
        local._not_kept(Failure(ZeroDivisionError()))


async def test_where_nobody_knows_whether_modes_are_kept_a_file_is_not_ours(root, behind, monkeypatch):
    """A partial without the mark may be somebody's file: an error of the disk does not make it ours."""
    place = leave_partial(root, "f", b"12")
    place.chmod(0o600)

    def fails(_fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(marks, "keeps_modes", fails)

    assert marks.is_ours(0, PARTIAL, place.stat()) is False
    store = await opened(root)
    assert how(await put(store, b"f", b"new")) is Committed.CREATED
    assert b"12" == place.read_bytes()
