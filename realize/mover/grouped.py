"""`GroupedListing`: a listing without the files that have several names, and those by the file, when it has ended.

Only then it is known which names a file has at the source.  What memory should not hold is in the records of a
`Sorting`, which only a listing with such a file has.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from zope.interface import implementer

from realize.mover.filters import Selection
from realize.mover.interfaces import Sorting
from realize.mover.records import Records, entries_of
from realize.store.interfaces import IListing
from realize.values import Attributes, Entry, Kind

_T = TypeVar("_T")

BATCH_NAMES: Final = 256
"""Names after which a batch of files with several names is full; the last file has all of its names."""

MAX_GROUP_BYTES: Final = 16 << 20
"""Names of one file that are held, with `_NAME_BYTES` for each; what has more of them is moved as several files."""

_NAME_BYTES: Final = 512
_PLACE: Final = struct.Struct("!Q")


@define(eq=False, repr=False)
class LinkedFiles:
    """Some files with several names: for each its names in the order of the listing, and the directories of all."""

    files: list[list[Entry]] = field(factory=list)
    directories: dict[bytes, Attributes] = field(factory=dict)


@implementer(IListing)
class GroupedListing:
    """Gives what ``listing`` does, but files that have an identity only by `linked`, after its end.

    ``sorting`` makes what sorts them. Those that ``selection`` leaves out are dropped early.
    """

    held: Final = 0

    def __init__(self, listing: IListing, selection: Selection, sorting: Callable[[], Sorting]) -> None:
        self.now_ns = listing.now_ns
        self._listing = listing
        self._selection = selection
        self._make = sorting
        self._sorting: Sorting | None = None
        self._records = Records()
        self._listed = 0
        self._sorted = False
        self._position = 0
        self._ahead: list[bytes] = []
        self._busy = False
        self._closed = False

    def next_page(self) -> Deferred[list[Entry]]:
        """See `IListing`."""
        return Deferred.fromCoroutine(self._next_page())

    async def _next_page(self) -> list[Entry]:
        while not self._closed and (page := await self._listing.next_page()):
            self.now_ns = self._listing.now_ns
            records: list[bytes] = []
            for entry in page:
                self._records.listed(entry)
                if entry.identity and self._selection.accepts_file(entry.path, entry.size):
                    self._listed += 1
                    records.append(self._records.of(entry, _key(entry.identity, self._listed)))
            if records:
                await self._add(records)
            if others := [entry for entry in page if not entry.identity]:
                return others
        if self._sorting is not None and not self._closed and not self._sorted:
            self._sorted = True
            await self._working(self._sorting.sort())
        return []

    async def linked(self) -> LinkedFiles | None:
        """Return the next files that have several names, once there is no other page; None at the end."""
        found = LinkedFiles()
        names = 0
        while names < BATCH_NAMES and (records := await self._next_file()):
            file: list[Entry] = []
            for record in records:
                *above, entry = entries_of(record, _key_bytes(record))
                found.directories |= {each.path: Attributes(each.mtime_ns, each.mode) for each in above}
                file.append(Entry(entry.path, Kind.FILE, entry.size, entry.mtime_ns, identity=_identity(record)))
            found.files.append(file)
            names += len(file)
        return found if found.files else None

    async def _next_file(self) -> list[bytes]:
        """The records of the names of the next file."""
        records: list[bytes] = []
        held = 0
        while held < MAX_GROUP_BYTES:
            if not self._ahead and not await self._look_ahead():
                break
            if records and _identity(self._ahead[-1]) != _identity(records[0]):
                break
            records.append(self._ahead.pop())
            held += len(records[-1]) + _NAME_BYTES
        return records

    async def _look_ahead(self) -> bool:
        if self._sorting is None or self._closed:
            return False
        found, self._position = await self._working(self._sorting.read(self._position, BATCH_NAMES))
        self._ahead = found[::-1]
        return bool(found)

    async def _add(self, records: list[bytes]) -> None:
        if self._sorting is None:
            self._sorting = self._make()
        await self._working(self._sorting.add(records))

    async def _working(self, call: Deferred[_T]) -> _T:
        self._busy = True
        try:
            return await call
        finally:
            self._busy = False
            if self._closed and self._sorting is not None:
                self._sorting.close()

    def close(self) -> None:
        """See `IListing`; what `linked` has yet to return is kept."""
        self._listing.close()

    def forget(self) -> None:
        """Free all that is kept; there is nothing more."""
        self._closed = True
        if self._sorting is not None and not self._busy:
            self._sorting.close()


def _key(identity: bytes, number: int) -> bytes:
    return bytes([len(identity)]) + identity + _PLACE.pack(number)


def _key_bytes(record: bytes) -> int:
    return 1 + record[0] + _PLACE.size


def _identity(record: bytes) -> bytes:
    return record[1 : 1 + record[0]]
