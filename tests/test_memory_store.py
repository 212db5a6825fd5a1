"""The store in memory keeps the contract of all stores."""

from __future__ import annotations

from realize.errors import NoSpace
from realize.store.interfaces import IStore
from realize.values import OnConflict
from tests.memory_store import MemoryStore
from tests.store_contract import Behind, MemoryBehind, StoreContract
from tests.store_helpers import failure


class TestMemoryStore(StoreContract):
    """`MemoryStore` keeps the contract."""

    async def make_store(self) -> tuple[IStore, Behind]:
        """A store in memory."""
        store = MemoryStore()
        return store, MemoryBehind(store)


async def test_fails_when_told_to() -> None:
    """An error that was planted comes once, at its place."""
    store = MemoryStore()
    store.fail_next["write", b"f"] = NoSpace("full")
    writer = await store.open_writer(b"f", 2, OnConflict.REPLACE)

    assert isinstance(await failure(writer.write([b"1"])), NoSpace)
    await writer.write([b"12"])
    await store.close()
    assert store.partials == {b"f": b"12"}
