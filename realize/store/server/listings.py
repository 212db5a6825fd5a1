"""The listings that one peer is reading on one connection: which, in how much memory, and what comes next of each.

A page of a store may be more than fits an answer: what is left of it comes first in the next one.
The peer may ask for pages ahead; they are read one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, DeferredLock

from realize.by_value import ByValue
from realize.concurrency.memory import Claim
from realize.errors import Busy, ProtocolError
from realize.store.interfaces import IListing
from realize.values import MAX_VALUE_BYTES, Entry
from realize.wire import commands, packing
from realize.wire.connection import PeerProtocol


@frozen(eq=False, repr=False)
class Page(ByValue):
    """What is answered about a listing: entries, whether there may be more, and when they were listed.

    ``now_ns`` is by the clock of the store.
    """

    entries: Sequence[Entry]
    more: bool
    now_ns: int


_NO_PAGE: Final = Page((), more=False, now_ns=0)
"""The answer about a listing that has ended already."""


@define(eq=False, repr=False)
class ServedListing:
    """A listing that the peer is reading, and the entries of its last page that did not fit the answer."""

    number: int
    handle: int
    pages: IListing
    claim: Claim
    """The memory that the listing takes."""
    left: Sequence[Entry] = ()
    turn: DeferredLock = field(factory=DeferredLock)
    """Held by who gets the next page."""
    asked: Deferred[list[Entry]] | None = None


class ServedListings:
    """The listings of one connection, by the numbers that the peer has chosen for them."""

    def __init__(self, protocol: PeerProtocol) -> None:
        self._protocol = protocol
        self._open: dict[int, ServedListing] = {}

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    def numbers(self, handle: int) -> list[int]:
        """The numbers of those of the directory with that handle."""
        return [each.number for each in self._open.values() if each.handle == handle]

    def find(self, number: int, handle: int, begin: Callable[[], IListing], *, further: bool) -> ServedListing | None:
        """The listing of that number, which ``begin`` makes if there is none; None if it has ended already.

        ``further`` says that the peer asks for a page that is not the first one, perhaps while it waits for another.
        Raises `Busy` if too many are open, `ProtocolError` if it is of another directory, or its next page is asked for
        while another answer is due.
        """
        found = self._open.get(number)
        if found is not None:
            if found.handle != handle or (found.turn.locked and not further):
                raise ProtocolError(f"listing {number} is in use")
            return found
        if further:
            return None
        if len(self._open) >= commands.MAX_LISTINGS:
            raise Busy(f"this connection has {commands.MAX_LISTINGS} listings open already")
        found = self._open[number] = ServedListing(number, handle, begin(), self._protocol.memory.claim())
        return found

    async def next_page(self, listing: ServedListing | None) -> Page:
        """The next page of a listing, when it is its turn; one that fails, or has no more, is ended."""
        if listing is None:
            return _NO_PAGE
        await listing.turn.acquire()
        try:
            return await self._next_page(listing)
        finally:
            listing.turn.release()

    async def _next_page(self, listing: ServedListing) -> Page:
        if self._open.get(listing.number) is not listing:
            return _NO_PAGE
        try:
            if not listing.left:
                listing.asked = listing.pages.next_page()
                listing.left = await listing.asked
                listing.claim.become(listing.pages.held)
        except BaseException:
            self.end(listing.number)
            raise
        finally:
            listing.asked = None
        if not listing.left:
            self.end(listing.number)
            return Page((), more=False, now_ns=listing.pages.now_ns)
        page = next(packing.fit(listing.left, packing.measure_entry, most=MAX_VALUE_BYTES))
        listing.left = listing.left[len(page) :]
        return Page(page, more=True, now_ns=listing.pages.now_ns)

    def end(self, number: int) -> None:
        """End a listing, and what it is asked for; does nothing if there is none."""
        listing = self._open.pop(number, None)
        if listing is not None:
            listing.claim.release()
            listing.pages.close()
            if listing.asked is not None:
                listing.asked.cancel()
