"""The part of the contract of a store that is about extras; `tests.store_contract.StoreContract` has it."""

from __future__ import annotations

import grp
import os
import pwd
from typing import TYPE_CHECKING

from attrs import evolve

from realize.errors import NotFound, RealizeError
from realize.extras import Extras, FoundExtras, Owner
from realize.store.interfaces import IStore
from realize.values import (
    EXTRAS,
    Attributes,
    Directory,
    Expected,
    OnConflict,
    Preserve,
)
from tests.store_helpers import block_digests, digest, small_file

if TYPE_CHECKING:
    from tests.store_contract import Behind

OURS = Owner(
    os.geteuid(),
    os.getegid(),
    pwd.getpwuid(os.geteuid()).pw_name.encode(),
    grp.getgrgid(os.getegid()).gr_name.encode(),
)
"""An owner that whoever runs the tests may set."""

COLOUR = b"\x0buser.colour\0\3red"
EXTRA = Extras(OURS, b"", None, COLOUR)
PLAIN = Attributes(1_000_000_000, 0o640)
KEPT = evolve(PLAIN, extras=EXTRA)
STRICT: frozenset[Preserve] = frozenset()


async def extras_of(store: IStore, path: bytes) -> Extras | type[RealizeError]:
    """What a store tells of a file, or the class of its error."""
    [found] = await store.read_extras([path], EXTRAS, lenient=STRICT)
    return found.extras if isinstance(found, FoundExtras) else type(found)


class ExtrasContract:
    """Tests that every store passes; see `tests.store_contract.StoreContract`."""

    async def opened(self) -> tuple[IStore, Behind]:
        """A store, opened, and what is behind it."""
        raise NotImplementedError

    async def test_small_files_get_extras(self) -> None:
        """They are told as they were given."""
        store, _ = await self.opened()

        await store.put_small([small_file(b"d/f", b"1", KEPT), small_file(b"g", b"2", PLAIN)], OnConflict.FAIL)

        assert EXTRA == await extras_of(store, b"d/f")
        plain = await extras_of(store, b"g")
        assert isinstance(plain, Extras)
        assert b"" == (plain.xattrs or b"")

    async def test_large_files_get_extras(self) -> None:
        """When they are committed."""
        store, _ = await self.opened()
        writer = await store.open_writer(b"f", 3, OnConflict.FAIL)

        await writer.write([b"123"])
        await writer.commit(digest(b"123"), KEPT)

        assert EXTRA == await extras_of(store, b"f")

    async def test_files_that_are_there_get_extras(self) -> None:
        """Small and large ones, once their content is the one that is expected."""
        store, behind = await self.opened()
        for path in (b"small", b"large", b"other"):
            behind.plant(path, b"123")

        settled = await store.settle(
            [Expected(b"small", 3, digest(b"123"), KEPT), Expected(b"other", 3, digest(b"124"), KEPT)]
        )
        matched = await store.match_final(b"large", 3, 0, block_digests(b"123"), KEPT)

        assert ([True, False], 3) == (settled, matched)
        assert [EXTRA, EXTRA] == [await extras_of(store, path) for path in (b"small", b"large")]
        other = await extras_of(store, b"other")
        assert isinstance(other, Extras)
        assert b"" == (other.xattrs or b"")

    async def test_directories_get_extras(self) -> None:
        """In the end; they may have default lists, too."""
        store, _ = await self.opened()
        directory = Directory(b"d", 0o750, 1_000_000_000, evolve(EXTRA, default_acl=b""))

        made = await store.make_directories([directory])
        done = await store.set_directories([directory])

        assert ([None], [True]) == (made, done)
        assert directory.extras == await extras_of(store, b"d")

    async def test_tells_no_extras_of_what_is_missing(self) -> None:
        """Like everything else."""
        store, _ = await self.opened()

        assert NotFound is await extras_of(store, b"f")

    async def test_foresees_nothing_bad(self) -> None:
        """For what can be kept, whether the file is there or not: everything, unless somebody forbids it."""
        store, _ = await self.opened()

        assert [None] == await store.foresee([b"f"], [EXTRA])
        assert (frozenset(Preserve), EXTRAS) == (store.tells, EXTRAS & store.accepts)

    async def test_the_version_of_extras_is_that_of_the_content(self) -> None:
        """So that whoever reads both knows that they belong together."""
        store, _ = await self.opened()
        await store.put_small([small_file(b"f", b"1", KEPT)], OnConflict.FAIL)
        [fetched] = await store.read_small([b"f"])
        [found] = await store.read_extras([b"f"], EXTRAS, lenient=STRICT)

        assert not isinstance(fetched, RealizeError)
        assert isinstance(found, FoundExtras)
        assert fetched.version == found.version
