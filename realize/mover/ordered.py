"""`OrderedListing`: the files of a listing by age or by size, which takes the end of the listing to know.

What memory should not hold is in the records of a `Sorting`.
Each has all that is needed of its file, with the attributes of the directories that it is in as they were before
anything was moved, so nothing is asked of the source again.
"""

from __future__ import annotations

import struct
from typing import Final

from twisted.internet.defer import Deferred
from zope.interface import implementer

from realize.mover.filters import Selection
from realize.mover.interfaces import Sorting
from realize.mover.records import Records, entries_of
from realize.store.interfaces import IListing
from realize.values import Entry, Kind, Order

ORDERED_PAGE_FILES: Final = 250
"""Files on a page; what a page does not begin is what a run that ends early has not begun."""

_KEY: Final = struct.Struct("!Q")


@implementer(IListing)
class OrderedListing:
    """Gives at first all that is no file, as ``listing`` does, and then its files in that order.

    Files that are equal in it come in path order.  Those that ``selection`` leaves out are dropped early.
    ``sorting`` belongs to it from now on.
    """

    held: Final = 0

    def __init__(self, listing: IListing, order: Order, selection: Selection, sorting: Sorting) -> None:
        self.now_ns = listing.now_ns
        self._listing = listing
        self._order = order
        self._selection = selection
        self._sorting = sorting
        self._records = Records()
        self._position: int | None = None
        """Where the next records are; None while the listing goes on."""
        self._busy = False
        self._closed = False

    def next_page(self) -> Deferred[list[Entry]]:
        """See `IListing`."""
        return Deferred.fromCoroutine(self._next_page())

    async def _next_page(self) -> list[Entry]:
        self._busy = True
        try:
            while self._position is None and not self._closed:
                if page := await self._others():
                    return page
            page = [] if self._closed else await self._files()
        finally:
            self._busy = False
            if self._closed:
                self._sorting.close()
        if not page:
            self.close()
        return page

    async def _others(self) -> list[Entry]:
        """What is no file of the next page of the listing; its files are added to the records."""
        page = await self._listing.next_page()
        if not page:
            await self._sorting.sort()
            self._position = 0
            return []
        self.now_ns = self._listing.now_ns
        records = []
        for entry in page:
            self._records.listed(entry)
            if entry.kind is Kind.FILE and self._selection.accepts_file(entry.path, entry.size):
                records.append(self._records.of(entry, _KEY.pack(_key(entry, self._order))))
        if records:
            await self._sorting.add(records)
        return [entry for entry in page if entry.kind is not Kind.FILE]

    async def _files(self) -> list[Entry]:
        records, self._position = await self._sorting.read(self._position or 0, ORDERED_PAGE_FILES)
        page: dict[bytes, Entry] = {}
        for record in records:
            page |= {entry.path: entry for entry in entries_of(record, _KEY.size)}
        return list(page.values())

    def close(self) -> None:
        """See `IListing`."""
        self._closed = True
        self._listing.close()
        if not self._busy:
            self._sorting.close()


def _key(entry: Entry, order: Order) -> int:
    """A number that is the less the earlier a file comes."""
    match order:
        case Order.OLDEST:
            return _shifted(entry.mtime_ns)
        case Order.NEWEST:
            return _turned(_shifted(entry.mtime_ns))
        case Order.SMALLEST:
            return entry.size
        case Order.LARGEST:
            return _turned(entry.size)


def _shifted(mtime_ns: int) -> int:
    """The same order without a sign, in 64 bits."""
    return mtime_ns + (1 << 63)


def _turned(number: int) -> int:
    """The opposite order, in 64 bits."""
    return (1 << 64) - 1 - number
