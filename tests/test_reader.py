"""A large file of this machine as it is read: what the kernel is told, and how far ahead it is cut."""

from __future__ import annotations

import os

from realize.errors import ProtocolError
from realize.values import BLOCK_BYTES, SPAN_BYTES, SPANS_AHEAD
from tests.local_stores import behind, opened, root
from tests.store_helpers import digest, failure, random_bytes

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


async def test_a_skip_leaves_what_was_cut_where_it_is(root, behind):
    """What is picked is what was cut, and the reading goes on behind it, although something was skipped meanwhile."""
    content = random_bytes(SPAN_BYTES + BLOCK_BYTES)
    behind.plant(b"f", content)
    reader = await (await opened(root)).open_reader(b"f")
    chunks = await reader.cut()
    await reader.skip(BLOCK_BYTES)

    assert content[:SPAN_BYTES] == b"".join(await reader.pick([True] * len(chunks)))
    assert content[SPAN_BYTES:] == b"".join(await reader.read())
    assert digest(content) == await reader.finish()
    reader.close()
