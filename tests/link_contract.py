"""The part of the contract of a store that is about symlinks; `tests.store_contract.StoreContract` has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from realize.errors import BadName, Conflict, LinkRefused, NotFound, RealizeError, SourceChanged
from realize.store.interfaces import IStore
from realize.values import Entry, FoundSymlink, Kind, Linked, OnConflict, Removal, Symlink, Version
from tests.store_helpers import listed_files, small_file

if TYPE_CHECKING:
    from tests.store_contract import Behind

REPLACE, SKIP, FAIL = OnConflict.REPLACE, OnConflict.SKIP, OnConflict.FAIL

OUTSIDE = ["/etc/passwd", "../" * 9 + "x", "d/../x", "./../" * 9, "d/../../../x", "/"]
IMPOSSIBLE = [b"", b"a\0b", b"x/" * 2048]


def link(path: str, target: str, mtime_ns: int | None = 1_000_000_000) -> Symlink:
    """A symlink."""
    return Symlink(path.encode(), target.encode(), mtime_ns)


async def put(
    store: IStore, *links: Symlink, policy: OnConflict = REPLACE, trial: bool = False
) -> list[Linked | type[RealizeError]]:
    """What became of symlinks: how each was made, or the class of its error."""
    answers = await store.put_links(links, policy, trial=trial)
    return [type(answer) if isinstance(answer, RealizeError) else answer for answer in answers]


async def read(store: IStore, paths: Sequence[bytes]) -> list[FoundSymlink]:
    """Symlinks that can be read."""
    return [found for found in await store.read_links(paths) if isinstance(found, FoundSymlink)]


async def _begin_run(store: IStore, path: bytes) -> None:
    """Begin a run that is sure to be later than this symlink: who reads one waits until its time has passed."""
    await read(store, [path])
    await store.open(b"salt")


class LinkContract:
    """Tests that every store passes; see `tests.store_contract.StoreContract`."""

    async def opened(self) -> tuple[IStore, Behind]:
        """A store, opened, and what is behind it."""
        raise NotImplementedError

    async def test_lists_symlinks_if_asked(self) -> None:
        """A listing has them as such only then; for others they are left alone."""
        store, behind = await self.opened()
        behind.plant_link(b"d/l", b"nowhere")

        assert store.links
        [entry] = await listed_files(store.walk(links=True))
        assert (b"d/l", Kind.LINK, 0, "") == (entry.path, entry.kind, entry.size, entry.note)
        assert entry.mtime_ns > 0
        assert [Entry(b"d/l", Kind.LEFT, note="symlink")] == await listed_files(store.walk())
        await store.close()

    async def test_a_symlink_goes_as_it_is(self) -> None:
        """Target and time are those of the symlink, whatever it leads to, if to anything."""
        store, behind = await self.opened()
        behind.plant(b"f", b"content")
        links = [link("l", "f"), link("d/e/up", "../../f"), link("dangling", "no\nwhere"), link("dir", "d/")]

        assert [Linked.CREATED] * 4 == await put(store, *links)
        assert links == [found.link for found in await read(store, [each.path for each in links])]
        assert [b"f", b"../../f", b"no\nwhere", b"d/"] == [behind.target(each.path) for each in links]
        assert b"content" == behind.content(b"f")
        await store.close()

    async def test_a_long_target(self) -> None:
        """Targets as long as the kernel allows go, and many of them in one call."""
        store, _ = await self.opened()
        links = [link(f"l{number:02}", "x/" * 2047 + "y") for number in range(40)]

        assert [Linked.CREATED] * 40 == await put(store, *links)
        assert links == [found.link for found in await read(store, [each.path for each in links])]
        await store.close()

    async def test_the_same_symlink_is_there_already(self) -> None:
        """It gets the time, and looks as if it had just arrived: who has read it before does not remove it."""
        store, behind = await self.opened()
        behind.plant_link(b"l", b"f")
        [before] = await read(store, [b"l"])

        assert [Linked.ALREADY_THERE] == await put(store, link("l", "f"), policy=FAIL)
        [after] = await read(store, [b"l"])
        assert 1_000_000_000 == after.link.mtime_ns
        [refused] = await store.remove([Removal(b"l", before.version)])
        assert isinstance(refused, SourceChanged)
        assert b"f" == behind.target(b"l")
        await store.close()

    async def test_the_policy_decides_about_another_symlink(self) -> None:
        """It is replaced, skipped, or in the way."""
        store, behind = await self.opened()
        behind.plant_link(b"l", b"old")
        await _begin_run(store, b"l")

        assert [Conflict] == await put(store, link("l", "new"), policy=FAIL)
        assert [Linked.SKIPPED] == await put(store, link("l", "new"), policy=SKIP)
        assert b"old" == behind.target(b"l")
        assert [Linked.REPLACED] == await put(store, link("l", "new"))
        assert b"new" == behind.target(b"l")
        assert [(b"l", Kind.LINK)] == [(each.path, each.kind) for each in await listed_files(store.walk(links=True))]
        await store.close()

    async def test_what_arrived_in_this_run_is_not_replaced(self) -> None:
        """It may be from another source."""
        store, behind = await self.opened()
        await put(store, link("l", "one"))

        assert [Conflict] == await put(store, link("l", "other"))
        assert b"one" == behind.target(b"l")
        await store.close()

    async def test_a_symlink_replaces_no_file_and_no_directory(self) -> None:
        """And no file replaces a symlink, or goes through one."""
        store, behind = await self.opened()
        behind.plant(b"f", b"content")
        behind.plant(b"d/g", b"content")
        behind.plant_link(b"l", b"d")
        await store.open(b"salt")

        assert [Conflict, Conflict] == await put(store, link("f", "x"), link("d", "x"))
        assert [BadName] == await put(store, link("l/x", "y"))
        [refused] = await store.put_small([small_file(b"l", b"new")], REPLACE)
        assert isinstance(refused, Conflict)
        assert (b"content", b"content", b"d") == (behind.content(b"f"), behind.content(b"d/g"), behind.target(b"l"))
        assert behind.content(b"d/x") is None
        await store.close()

    @pytest.mark.parametrize("target", OUTSIDE)
    async def test_targets_that_may_lead_outside_are_refused(self, target: str) -> None:
        """Nothing is made."""
        store, behind = await self.opened()

        assert [LinkRefused] == await put(store, link("l", target))
        assert behind.target(b"l") is None
        await store.close()

    @pytest.mark.parametrize("target", IMPOSSIBLE, ids=["empty", "NUL", "too long"])
    async def test_impossible_targets_are_refused(self, target: bytes) -> None:
        """Whoever sends them."""
        store, behind = await self.opened()

        with pytest.raises(RealizeError):  # by the store itself, or by the protocol
            raise (await store.put_links([Symlink(b"l", target, None)], REPLACE))[0]  # type: ignore[misc]
        assert behind.target(b"l") is None

    async def test_a_trial_touches_nothing(self) -> None:
        """It says what would become of each."""
        store, behind = await self.opened()
        behind.plant_link(b"same", b"f")
        behind.plant_link(b"other", b"g")
        await _begin_run(store, b"other")
        links = [link("new/l", "f"), link("same", "f"), link("other", "f"), link("out", "/etc")]

        assert [Linked.CREATED, Linked.ALREADY_THERE, Linked.REPLACED, LinkRefused] == await put(
            store, *links, trial=True
        )
        assert [None, b"f", b"g", None] == [behind.target(each.path) for each in links]
        assert behind.attributes(b"new") is None
        await store.close()

    async def test_removes_a_symlink_and_not_what_it_leads_to(self) -> None:
        """If it is still the one that was read."""
        store, behind = await self.opened()
        behind.plant(b"f", b"content")
        behind.plant_link(b"l", b"f")
        [found] = await read(store, [b"l"])

        [refused] = await store.remove([Removal(b"l", Version(1, 2, 3, 4, 5))])
        assert isinstance(refused, SourceChanged)
        assert [None] == await store.remove([Removal(b"l", found.version)])
        assert (None, b"content") == (behind.target(b"l"), behind.content(b"f"))
        await store.close()

    async def test_reads_only_symlinks(self) -> None:
        """What is none, or not there, is an error of its own."""
        store, behind = await self.opened()
        behind.plant(b"f", b"content")
        behind.plant_link(b"l", b"f")

        answers = await store.read_links([b"f", b"nothing", b"l", b"../l"])
        assert [SourceChanged, NotFound, FoundSymlink, BadName] == [type(each) for each in answers]
        assert [] == await store.read_links([])
        assert [] == await store.put_links([], FAIL)
        await store.close()
