"""File systems that are full, or nearly."""

from __future__ import annotations

import ctypes
import os

from realize.errors import NoSpace
from realize.store.local.headroom import Headroom
from realize.values import Committed
from tests.local_stores import REPLACE, DirectoryBehind, behind, full, opened
from tests.store_helpers import digest, failure, how, small_file

__all__ = ["behind", "full"]


async def test_a_full_file_system(full, monkeypatch):
    """Files that do not fit fail with `NoSpace` and leave nothing, those that fit arrive.

    Of one that was begun because nobody could know, a partial is kept.
    """
    behind = DirectoryBehind(full)
    store = await opened(full)
    content = b"x" * 60_000

    answers = await store.put_small([small_file(b"%d" % number, content) for number in range(6)], REPLACE)
    assert [Committed.CREATED] * 4 == list(map(how, answers[:4]))
    assert [NoSpace] * 2 == [type(answer) for answer in answers[4:]]
    assert [b"0", b"1", b"2", b"3"] == behind.everything()

    assert isinstance(await failure(store.open_writer(b"large", 1 << 20, REPLACE)), NoSpace)
    assert behind.partial(b"large") is None

    monkeypatch.setattr(Headroom, "free", lambda *_: None)
    writing = await store.open_writer(b"large", 1 << 20, REPLACE)
    assert isinstance(await failure(writing.write([b"y" * (1 << 20)])), NoSpace)
    assert isinstance(await failure(writing.write([b""])), NoSpace)
    assert isinstance(await failure(writing.commit(digest(b""), None)), NoSpace)
    assert behind.partial(b"large")


async def test_an_unmounted_root_is_noticed(full):
    """The mount point below an unmounted file system is not the root: nothing is written to it."""
    store = await opened(full)
    libc = ctypes.CDLL(None)
    libc.umount2(full, 0)
    try:
        error = await failure(store.put_small([small_file(b"f", b"x")], REPLACE))
        assert "mounted" in str(error)
        assert os.listdir(full) == []
    finally:
        libc.mount(b"tmpfs", full, b"tmpfs", 0, b"size=256k")
