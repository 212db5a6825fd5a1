"""The local store keeps the contract of all stores."""

from __future__ import annotations

import os

import pytest
from twisted.internet.threads import deferToThread

from realize.errors import NotFound
from realize.store.local.store import LocalStore, root_identity
from realize.values import WhereKind
from tests.local_stores import SALT, DirectoryBehind, at_once, behind, root
from tests.store_contract import StoreContract
from tests.store_helpers import failure

__all__ = ["behind", "root"]


class TestContractInThreads(StoreContract):
    """`LocalStore` keeps the contract with real threads."""

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path):
        self.path = os.fsencode(tmp_path / "root")
        os.mkdir(self.path)

    async def make_store(self):
        """A store of an empty directory."""
        return LocalStore(self.path, run_in_thread=deferToThread), DirectoryBehind(self.path)


class TestContractBelowAServedDirectory(TestContractInThreads):
    """`LocalStore` keeps the contract for a location below a root that is watched, and is made on demand."""

    async def make_store(self):
        """A store of a location that is not there yet."""
        store = LocalStore(self.path, b"a/b", run_in_thread=at_once, root_identity=root_identity(self.path))
        return store, DirectoryBehind(os.path.join(self.path, b"a/b"))

    async def test_says_where_it_is(self):
        """A location that is not there yet is absent, and its place is that of its nearest ancestor."""
        store, behind = await self.make_store()
        root = LocalStore(self.path, run_in_thread=at_once)

        before = await store.open(SALT)
        behind.plant(b"f", b"")
        after = await store.open(SALT)

        assert (WhereKind.ABSENT, WhereKind.DIRECTORY) == (before.kind, after.kind)
        assert (await root.open(SALT)).identities == before.identities
        assert after.identities[2:] == before.identities

    async def test_lists_nothing_after_close(self):
        """A listing of a location that is missing fails: nothing is not the same as not there."""
        store, _ = await self.opened()

        assert isinstance(await failure(store.walk().next_page()), NotFound)

    async def test_opens_no_reader_for_what_is_missing(self):
        """A missing file of a missing location is `NotFound`."""
        store, _ = await self.opened()

        assert isinstance(await failure(store.open_reader(b"f")), NotFound)
