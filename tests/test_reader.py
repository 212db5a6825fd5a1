"""A large file of this machine as it is read: what the kernel is told, and how far ahead it is cut."""

from __future__ import annotations

import os

from realize.errors import ProtocolError
from realize.testing import failure, random_bytes
from realize.values import SPAN_BYTES, SPANS_AHEAD
from tests.local_stores import behind, opened, root

__all__ = ["behind", "root"]


async def test_the_kernel_is_told_that_all_will_be_read(root, behind, monkeypatch):
    """It reads further ahead then: the whole file, from its first byte on."""
    behind.plant(b"f", b"content")
    told, advise = [], os.posix_fadvise
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, *how: told.append(how) or advise(fd, *how))
    (await (await opened(root)).open_reader(b"f")).close()

    assert (0, 0, os.POSIX_FADV_SEQUENTIAL) in told


async def test_what_is_cut_is_picked_before_more_is_cut(root, behind):
    """Each span that waits costs memory; with one picked there is room for another."""
    behind.plant(b"f", random_bytes(1000) * ((SPANS_AHEAD + 2) * SPAN_BYTES // 1000))
    reader = await (await opened(root)).open_reader(b"f")
    spans = [await reader.cut() for _ in range(SPANS_AHEAD)]

    assert isinstance(await failure(reader.cut()), ProtocolError)
    await reader.pick([False] * len(spans[0]))
    assert sum(length for length, _ in await reader.cut()) == SPAN_BYTES
    reader.close()
