"""How much goes to make way, and for whom: `realize.store.local.headroom`."""

from __future__ import annotations

import os

import pytest

from realize.errors import StorageError
from realize.store.local.location import locate
from realize.store.local.store import LocalStore, root_identity
from realize.units import Reserve
from realize.values import Committed
from tests.leftovers import leave_partial
from tests.store_helpers import failure, small_file
from tests.test_headroom import REPLACE, SALT, Late, aged, at_once, clock, disk, headroom

__all__ = ["clock", "disk", "headroom"]

BLOCK = 512
"""What free room is counted in."""

OLD, YOUNG = 4 * BLOCK, 5 * BLOCK
"""The sizes of two partials; the first one goes first."""


@pytest.fixture
def partials(disk):
    """Both of them."""
    return [
        aged(leave_partial(disk.path, "a", b"p" * OLD), 300),
        aged(leave_partial(disk.path, "b", b"p" * YOUNG), 100),
    ]


@pytest.fixture
def location(disk):
    """Where they are."""
    return locate(bytes(disk.path), b"", None)


def left(partials):
    """Which are there."""
    return [path.exists() for path in partials]


@pytest.mark.parametrize(
    ("free", "made", "expected"),
    [
        (None, True, [False, False]),
        (OLD + YOUNG, True, [False, False]),
        (OLD + YOUNG - 1, True, [False, True]),
        (YOUNG, True, [False, True]),
        (YOUNG - 1, True, [True, False]),
        (0, True, [False, False]),
        (-1, False, [True, True]),
    ],
)
async def test_way_is_made_for_what_is_missing_of_a_file(headroom, location, partials, free, made, expected):
    """For all of the rest, if it seems that there is enough, or nobody knows: then it is a quota that has none."""
    promise = headroom.ledger.on(os.stat(location.root.path).st_dev).promise(OLD + YOUNG, 0, 0, lambda: None)

    assert made is await headroom.go_on(location, promise, free, headroom.made)
    assert expected == left(partials)


@pytest.mark.parametrize(
    ("free", "sizes", "made", "expected"),
    [
        (2 * BLOCK, [6 * BLOCK], True, [False, True]),
        (2 * BLOCK, [6 * BLOCK + 1], True, [True, False]),
        (8 * BLOCK, [4 * BLOCK, 4 * BLOCK], True, [False, False]),
        (8 * BLOCK, [4 * BLOCK, 4 * BLOCK + 1], True, [False, True]),
        (0, [OLD + YOUNG], True, [False, False]),
        (0, [OLD + YOUNG, BLOCK], True, [False, False]),
        (0, [OLD + YOUNG + 1], False, [True, True]),
        (-BLOCK, [OLD + YOUNG], True, [False, False]),
        (-BLOCK, [OLD + YOUNG + 1], False, [True, True]),
        (None, [OLD], True, [False, True]),
        (None, [OLD + YOUNG + 1], False, [True, True]),
    ],
)
async def test_way_is_made_for_as_many_small_files_as_fit(
    headroom, location, disk, partials, monkeypatch, free, sizes, made, expected
):
    """In their order, and no more goes than they need; what is beyond the reserve is as good as nothing."""
    disk.size = OLD + YOUNG + (20 * BLOCK if free is None else max(0, free))
    if free is None:
        monkeypatch.setattr(os, "fstatvfs", lambda _: os.statvfs_result((0,) * 10))
    elif free < 0:
        headroom.reserve = Reserve(-free)

    assert made is await headroom.make_way_for_small(location, sizes, headroom.wait())
    assert expected == left(partials)


async def test_what_went_is_not_counted_on_again(headroom, location, disk, partials, monkeypatch):
    """What is known of the directory is not looked up each time."""
    monkeypatch.setattr("realize.store.local.known_partials.MIN_LOOK_AGE_S", 1000)
    disk.size = OLD + YOUNG
    assert await headroom.make_way_for_small(location, [OLD], headroom.wait())
    assert [False, True] == left(partials)
    disk.size = YOUNG

    assert await headroom.make_way_for_small(location, [YOUNG, OLD], headroom.wait())
    assert [False, False] == left(partials)


async def test_way_that_was_made_for_other_small_files_is_worth_another_attempt(disk, headroom):
    """Also if there is room again when it is asked for, and nothing more that could go: it was made meanwhile."""
    threads = Late()
    store = LocalStore(
        str(disk.path), run_in_thread=threads.run, headroom=headroom, root_identity=root_identity(disk.path)
    )
    store.open(SALT)
    threads.let()
    path = leave_partial(disk.path, "left", b"p" * disk.size)
    first = store.put_small([small_file(b"1", b"x" * BLOCK)], REPLACE)
    late, threads.results[:] = list(threads.results), []
    second = store.put_small([small_file(b"2", b"x" * BLOCK)], REPLACE)
    threads.let()
    assert [Committed.CREATED] == [each.how for each in await second]
    threads.results += late

    threads.let()

    assert not path.exists()
    assert [Committed.CREATED] == [getattr(each, "how", each) for each in await first]
    await store.close()


async def test_small_files_wait_no_more_once_their_directory_is_closed(disk, headroom):
    """Whoever has asked for them is told why."""
    stores = [
        LocalStore(str(disk.path), run_in_thread=at_once, headroom=headroom, root_identity=root_identity(disk.path))
        for _ in range(2)
    ]
    for store in stores:
        await store.open(SALT)
    writing = await stores[0].open_writer(b"large", disk.size, REPLACE)
    await writing.write([b"x" * disk.size])
    putting = stores[1].put_small([small_file(b"f", b"x" * BLOCK)], REPLACE)
    early = putting.called
    await stores[1].close()

    error = await failure(putting)
    assert (False, StorageError) == (early, type(error))
    assert "the directory was closed while a file waited for room" == str(error)
    await stores[0].close()
